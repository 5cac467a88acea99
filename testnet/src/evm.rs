//! An EVM chain on this machine, and `Channels` on it: a real **anvil**, which `testnet/contracts/build.sh install` fetches.
//!
//! What is deployed is what is committed in `testnet/contracts/built`. Transactions are made and signed by the node's own
//! [`Wallet`]; only time, mining and reorganisations are anvil's.

use infernet_node::settlement::evm::{
    contract::{self, Channels},
    rpc::{Receipt, Rpc, RpcError},
    step::{Rules, Stage, Step},
    transaction::Call,
    wallet::{EvmError, Wallet},
};
use infernet_wire::{
    evm::{EvmAddress, address_word, keccak, word},
    key::NodeKey,
    voucher::ChannelTerms,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// The chain id of [`Anvil`].
pub const CHAIN: u64 = 31_337;
/// How long anvil may take to listen: half a second, on a busy machine more.
const START: Duration = Duration::from_secs(30);
/// How long a transaction may take that nothing holds up.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks: everything is near.
const POLL: Duration = Duration::from_millis(15);
/// What an account gets to begin with: a thousand coins.
const FUNDS: u128 = 1_000_000_000_000_000_000_000;

/// What can't be done on the chain.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// There is no chain to start.
    #[error("anvil is not installed: run testnet/contracts/build.sh install")]
    NoAnvil,
    /// It does not start.
    #[error("anvil does not start: {0}")]
    Start(String),
    /// A payment.
    #[error(transparent)]
    Evm(#[from] EvmError),
    /// The chain's node.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// A transaction that should have worked.
    #[error("a transaction ended as {0:?}")]
    Ended(Stage),
    /// What is committed can't be read.
    #[error("testnet/contracts/built: {0}")]
    Built(String),
}

/// A running chain; dropping it stops it.
pub struct Anvil {
    /// Held for its end.
    _child: Child,
    url: String,
}

/// Where anvil is: `INFERNET_ANVIL`, or below `sdk/evm` of a build directory above this program.
pub fn anvil() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("INFERNET_ANVIL") {
        return Some(path.into());
    }
    let here = std::env::current_exe().ok()?;
    here.ancestors().find_map(|folder| installed(&folder.join("sdk/evm/node_modules/@foundry-rs")))
}

/// The package's own wrapper needs node; the program is in the package of this platform.
fn installed(packages: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(packages).ok()?;
    entries.filter_map(|entry| Some(entry.ok()?.path().join("bin/anvil"))).find(|path| path.is_file())
}

impl Anvil {
    /// Starts one on a free port of loopback, without accounts. A block is mined for each transaction, until that is changed.
    pub async fn start() -> Result<Self, ChainError> {
        let binary = anvil().ok_or(ChainError::NoAnvil)?;
        let chain = CHAIN.to_string();
        let args = ["--host", "127.0.0.1", "--port", "0", "--chain-id", &chain, "--accounts", "0"];
        let mut command = Command::new(&binary);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| ChainError::Start(format!("{}: {error}", binary.display())))?;
        let stdout = child.stdout.take().ok_or_else(|| ChainError::Start("without an output".into()))?;
        let mut lines = BufReader::new(stdout).lines();
        let listening = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(address) = line.trim().strip_prefix("Listening on ") {
                    return Some(format!("http://{address}"));
                }
            }
            None
        };
        let url = timeout(START, listening).await.ok().flatten();
        let url = url.ok_or_else(|| ChainError::Start(format!("it ends, or does not listen within {} s", START.as_secs())))?;
        // It goes on to tell of every question: somebody must listen.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Anvil { _child: child, url })
    }

    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of it.
    pub fn rpc(&self) -> Result<Rpc, ChainError> {
        let endpoint = self.url.parse().map_err(ChainError::Start)?;
        Ok(Rpc::new(endpoint, CHAIN)?)
    }

    /// One of anvil's own commands, such as `evm_mine`.
    pub async fn command(&self, method: &'static str, params: Value) -> Result<Value, ChainError> {
        Ok(self.rpc()?.ask(method, params).await?)
    }

    /// Whether each transaction makes a block at once.
    pub async fn automine(&self, on: bool) -> Result<(), ChainError> {
        self.command("evm_setAutomine", json!([on])).await.map(drop)
    }

    /// Makes empty blocks.
    pub async fn mine(&self, blocks: u64) -> Result<(), ChainError> {
        self.command("anvil_mine", json!([format!("{blocks:#x}")])).await.map(drop)
    }

    /// Lets time pass, and makes a block at its end.
    pub async fn pass(&self, secs: u64) -> Result<(), ChainError> {
        self.command("evm_increaseTime", json!([secs])).await?;
        self.mine(1).await
    }

    /// The account of `key`, with coins, and as patient as `rules`.
    pub async fn wallet(&self, key: &NodeKey, rules: Rules) -> Result<Wallet, ChainError> {
        self.fund(&key.id().evm_address()).await?;
        Ok(Wallet::new(self.rpc()?, key.clone(), rules, POLL))
    }

    /// Gives an account coins.
    pub async fn fund(&self, account: &EvmAddress) -> Result<(), ChainError> {
        self.command("anvil_setBalance", json!([account.to_string(), format!("{FUNDS:#x}")])).await.map(drop)
    }
}

/// Whether there is a chain to start. If not, what was not tested is said, and is a failure where `INFERNET_NEEDS_ANVIL` is set.
pub fn can_start(untested: &str) -> bool {
    let can = anvil().is_some();
    if !can {
        let told = format!("SKIPPED: anvil is not installed (run testnet/contracts/build.sh install); {untested}");
        assert!(std::env::var_os("INFERNET_NEEDS_ANVIL").is_none(), "{told}");
        writeln!(std::io::stderr(), "{told}").expect("somebody listens");
    }
    can
}

/// A chain, or `None` where there is none: see [`can_start`].
pub async fn chain(untested: &str) -> Option<Anvil> {
    if can_start(untested) { Some(Anvil::start().await.expect("a chain")) } else { None }
}

/// Rules for a chain where nothing is ever undone: a transaction counts in its first block.
pub fn at_once() -> Rules {
    Rules { depth: 1, ..Rules::default() }
}

/// A compiled contract.
#[derive(Debug, Clone)]
pub struct Built {
    /// What makes it.
    pub bytecode: Vec<u8>,
    /// What it is on a chain.
    pub runtime: Vec<u8>,
    /// How it is called.
    pub abi: Value,
}

/// The contracts that are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The payment channels.
    Channels,
    /// A token that anybody can mint, and that can misbehave.
    TestToken,
    /// A token as strict as USDT.
    StrictToken,
    /// An account with code, that calls back when coin arrives.
    Intruder,
}

impl Program {
    /// What is committed of it.
    pub fn built(self) -> Result<Built, ChainError> {
        let text = match self {
            Program::Channels => include_str!("../contracts/built/Channels.json"),
            Program::TestToken => include_str!("../contracts/built/TestToken.json"),
            Program::StrictToken => include_str!("../contracts/built/StrictToken.json"),
            Program::Intruder => include_str!("../contracts/built/Intruder.json"),
        };
        let mut json: Value = serde_json::from_str(text).map_err(|error| ChainError::Built(error.to_string()))?;
        let code = |field: &str| {
            let text = json.get(field).and_then(Value::as_str).unwrap_or_default();
            hex::decode(text.trim_start_matches("0x")).map_err(|error| ChainError::Built(error.to_string()))
        };
        let (bytecode, runtime) = (code("bytecode")?, code("runtime")?);
        Ok(Built { bytecode, runtime, abi: json.get_mut("abi").map(Value::take).unwrap_or_default() })
    }

    /// Puts it onto the chain.
    pub async fn deploy(self, by: &Wallet) -> Result<EvmAddress, ChainError> {
        let call = Call { to: None, value: 0, data: self.built()?.bytecode };
        let mut step = by.prepare(call).await?;
        finish(by, &mut step).await?;
        Ok(created(&by.address(), step.nonce))
    }
}

/// The address of the contract that an account's transaction with this nonce makes: of nonces below 128.
fn created(by: &EvmAddress, nonce: u64) -> EvmAddress {
    let nonce = if nonce == 0 { 0x80 } else { u8::try_from(nonce).unwrap_or_default() };
    let digest = keccak(&[&[0xd6, 0x94], &by.0, &[nonce]]);
    let mut address = EvmAddress::ZERO;
    address.0.iter_mut().zip(digest.iter().skip(12)).for_each(|(to, from)| *to = *from);
    address
}

/// Does something on the chain, and waits for its end, which must be a good one.
pub async fn act(wallet: &Wallet, call: Call) -> Result<Receipt, ChainError> {
    let mut step = wallet.prepare(call).await?;
    finish(wallet, &mut step).await
}

async fn finish(wallet: &Wallet, step: &mut Step) -> Result<Receipt, ChainError> {
    match wallet.drive(step, PATIENCE, |_| async { Ok(()) }).await? {
        Stage::Confirmed { hash, .. } => wallet.rpc().receipt(&hash.0).await?.ok_or(ChainError::Ended(step.stage)),
        other => Err(ChainError::Ended(other)),
    }
}

/// A call of a contract for tests, by its Solidity signature, with words and perhaps bytes at the end.
pub fn call(to: &EvmAddress, signature: &str, words: &[[u8; 32]], bytes: Option<&[u8]>) -> Call {
    let [a, b, c, d, ..] = keccak(&[signature.as_bytes()]);
    let mut data = [&[a, b, c, d][..], words.as_flattened()].concat();
    if let Some(bytes) = bytes {
        let offset = u128::try_from(words.len() + 1).unwrap_or_default() * 32;
        data.extend(word(offset));
        data.extend(word(u128::try_from(bytes.len()).unwrap_or_default()));
        data.extend(bytes);
        data.resize((data.len() - 4).next_multiple_of(32) + 4, 0);
    }
    Call { to: Some(*to), value: 0, data }
}

/// Gives an account tokens, and lets `spender` take them.
pub async fn give_tokens(wallet: &Wallet, token: &EvmAddress, amount: u128, spender: &EvmAddress) -> Result<(), ChainError> {
    let mint = [address_word(&wallet.address()), word(amount)];
    act(wallet, call(token, "mint(address,uint256)", &mint, None)).await?;
    act(wallet, contract::approve(token, spender, amount)).await.map(drop)
}

/// What two accounts agree on.
pub fn terms(channels: &Channels, payer: &EvmAddress, payee: &EvmAddress, token: &EvmAddress, salt: u8) -> ChannelTerms {
    ChannelTerms { chain: CHAIN, contract: channels.0, payer: *payer, payee: *payee, token: *token, salt: [salt; 32] }
}
