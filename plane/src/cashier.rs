//! Money on an EVM chain: what clients deposit, and how much of it the plane keeps at hand.
//!
//! | module | what |
//! |---|---|
//! | [`transfer`] | **pure**: a token's calls and its `Transfer` logs |
//! | `read` | which blocks are read next, and what they brought |
//! | `sweep` | what is above the cap goes to the cold account |
//!
//! **A deposit's way:** a client sends tokens from the wallet that it signs in by to the plane's account. When the transfer is
//! [`CashierConfig::depth`] blocks deep it is kept, with how far the chain was read, in one write; then it is credited to the client
//! of its wallet, in another that happens once. Both may be done again by anybody at any time: a restart, another instance, an
//! RPC node that tells the same twice add nothing. A wallet that nobody signs in by may do so later: its deposits wait.
//!
//! **What is believed:** one RPC node. It can hide a deposit for a while, since the last [`OVERLAP`] blocks are read again each
//! time, and it could invent one: name a node that you trust. On another chain, or for a token of other than six decimals, nothing is
//! credited at all. A plane starts while its RPC node is down, and says so on `/metrics` and to its admins.
//!
//! **The hot account** is that of the key that the plane buys with, and one step of it is on its way at a time. The key is for nobody
//! else: where the chain shows transactions that are not the plane's, nothing is swept, and the reason says what to do. Nothing here is
//! given back to clients by the chain: that is their operator's to do.

mod read;
mod sweep;
pub mod transfer;

use self::{read::Reading, sweep::Sweeper};
use crate::store::{MAX_PAGE, Store, StoreError};
use infernet_node::{
    clock,
    settlement::evm::{
        rpc::{Endpoint, Rpc, RpcError},
        step::Rules,
        wallet::{EvmError, Wallet},
    },
};
use infernet_wire::{evm::EvmAddress, key::NodeKey, money::MicroUsd, time::UnixMillis};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinHandle, time::sleep};
use tracing::{Instrument, info, info_span, warn};

pub use self::read::OVERLAP;
pub use self::sweep::{MIN_SWEEP, Sweep};

/// Between two looks at the chain: a third of Ethereum's block.
const POLL: Duration = Duration::from_secs(4);
/// The longest pause after rounds that failed: each failure doubles it.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A token of dollars whose unit is a micro-USD.
const DECIMALS: u128 = 6;

/// Which chain, token and accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CashierConfig {
    /// The chain's node. A credential.
    pub rpc: Endpoint,
    /// The chain.
    pub chain: u64,
    /// A token of dollars with six decimals, such as USDC.
    pub token: EvmAddress,
    /// Blocks, its own included, that bury a transfer before it counts.
    pub depth: u64,
    /// Where what is above the cap goes; `None`: it stays.
    pub cold: Option<(EvmAddress, MicroUsd)>,
    /// Between two looks at the chain.
    pub poll: Duration,
}

impl CashierConfig {
    /// One that looks as often as is of use.
    pub fn new(rpc: Endpoint, chain: u64, token: EvmAddress) -> Self {
        CashierConfig { rpc, chain, token, depth: Rules::default().depth, cold: None, poll: POLL }
    }
}

/// Why money can't be looked after now.
#[derive(Debug, thiserror::Error)]
pub enum CashierError {
    /// The chain's node, or what it says.
    #[error(transparent)]
    Evm(#[from] EvmError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No contract there.
    #[error("there is no token at {0} on this chain: check evm-token and evm-chain")]
    NoToken(EvmAddress),
    /// Another unit.
    #[error("the token {token} has {found} decimals, not {DECIMALS}: name one whose unit is a micro-USD, such as USDC")]
    Decimals {
        /// Which.
        token: EvmAddress,
        /// How many it has.
        found: u128,
    },
    /// A sweep that can't be read: another version wrote it.
    #[error("payment {number} in the store can't be read, so nothing more is sent: {reason}")]
    Payment {
        /// Which.
        number: u64,
        /// Why.
        reason: String,
    },
}

impl From<RpcError> for CashierError {
    fn from(error: RpcError) -> Self {
        CashierError::Evm(error.into())
    }
}

impl CashierError {
    /// Whether what is set is wrong, so that no time heals it.
    fn is_setting(&self) -> bool {
        match self {
            CashierError::NoToken(_) | CashierError::Decimals { .. } => true,
            CashierError::Evm(error) => !error.retryable(),
            CashierError::Store(_) | CashierError::Payment { .. } => false,
        }
    }
}

/// How it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The chain was not seen yet.
    #[default]
    Starting,
    /// All is well.
    Following,
    /// The chain or the store does not answer as it should; it is tried again.
    Failing,
}

/// What the cashier last saw and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How it goes.
    pub state: State,
    /// Why it fails.
    pub reason: Option<String>,
    /// The newest block.
    pub head: Option<u64>,
    /// The last block whose transfers are kept.
    pub read: Option<u64>,
    /// When all was last well.
    pub well: Option<UnixMillis>,
    /// Rounds that failed since the start.
    pub failures: u64,
    /// Deposits credited since the start.
    pub credited: u64,
    /// And how much.
    pub credited_amount: MicroUsd,
    /// Deposits that are nobody's yet.
    pub unclaimed: u64,
    /// And how much.
    pub unclaimed_amount: MicroUsd,
    /// What the plane's account has of the token.
    pub hot: Option<MicroUsd>,
    /// The newest sweep.
    pub sweep: Option<Sweep>,
    /// Why nothing can be swept now.
    pub sweep_reason: Option<String>,
}

/// A running cashier's front: what it is set to, and how it goes. Cheap to clone.
#[derive(Clone)]
pub struct Cashier {
    config: Arc<CashierConfig>,
    address: EvmAddress,
    report: watch::Receiver<Report>,
}

impl Cashier {
    /// What it is set to.
    pub fn config(&self) -> &CashierConfig {
        &self.config
    }

    /// The plane's account: where to deposit.
    pub fn address(&self) -> EvmAddress {
        self.address
    }

    /// How it goes.
    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Whether what is deposited now will be found: the chain was read once, and from there on nothing is left out. Before that nobody
    /// is to be told the address.
    pub fn is_open(&self) -> bool {
        self.report.borrow().read.is_some()
    }

    /// Starts one for the account of `key`. Settings that the chain contradicts are refused; a chain's node that does not answer
    /// is asked again later.
    pub async fn start(config: CashierConfig, key: NodeKey, store: Arc<dyn Store>) -> Result<(Self, Task), CashierError> {
        let rpc = Rpc::new(config.rpc.clone(), config.chain)?;
        let config = Arc::new(config);
        let rules = Rules { depth: config.depth, ..Rules::default() };
        let wallet = Wallet::new(rpc, key, rules, config.poll);
        let (report, reported) = watch::channel(Report::default());
        let cashier = Cashier { config: config.clone(), address: wallet.address(), report: reported };
        let mut work = Work::new(config, wallet, store, report);
        let read = work.reading.read_before(&*work.store).await?;
        work.report.send_modify(|report| report.read = read);
        match work.check().await {
            Err(error) if error.is_setting() => return Err(error),
            Err(error) => work.failed(&error),
            Ok(()) => {}
        }
        let (chain, account) = (work.config.chain, work.wallet.address());
        info!(chain, %account, token = %work.config.token, "deposits are looked for");
        let task = tokio::spawn(work.run().instrument(info_span!("cashier", chain)));
        Ok((cashier, Task(task)))
    }
}

/// The task; dropping it ends it. What it has not finished goes on after the next start.
pub struct Task(JoinHandle<()>);

impl Task {
    /// Ends it; returns when it holds nothing more.
    pub async fn stop(mut self) {
        self.0.abort();
        // It was aborted, which is all there is to learn.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Work {
    config: Arc<CashierConfig>,
    wallet: Wallet,
    store: Arc<dyn Store>,
    report: watch::Sender<Report>,
    reading: Reading,
    sweeper: Option<Sweeper>,
    is_checked: bool,
}

impl Work {
    fn new(config: Arc<CashierConfig>, wallet: Wallet, store: Arc<dyn Store>, report: watch::Sender<Report>) -> Self {
        let reading = Reading::new(&config, wallet.address());
        let sweeper = config.cold.map(|(cold, cap)| Sweeper::new(&config, wallet.clone(), store.clone(), cold, cap));
        Work { config, wallet, store, report, reading, sweeper, is_checked: false }
    }

    async fn run(mut self) {
        let mut pause = self.config.poll;
        loop {
            pause = match self.round().await {
                Ok(()) => {
                    self.well();
                    self.config.poll
                }
                Err(error) => {
                    self.failed(&error);
                    pause.saturating_mul(2).min(MAX_PAUSE.max(self.config.poll))
                }
            };
            sleep(pause).await;
        }
    }

    /// What was kept is credited whether the chain answers or not; what can't be swept keeps nobody's deposit waiting.
    async fn round(&mut self) -> Result<(), CashierError> {
        self.claim().await?;
        if !self.is_checked {
            self.check().await?;
        }
        self.read().await?;
        self.claim().await?;
        self.sweep().await;
        Ok(())
    }

    /// Whether chain and token are what is set.
    async fn check(&mut self) -> Result<(), CashierError> {
        let (rpc, token) = (self.wallet.rpc(), self.config.token);
        rpc.check_chain().await?;
        let answer = self.wallet.view(&transfer::decimals(&token)).await?;
        let found = transfer::number(&answer).ok_or(CashierError::NoToken(token))?;
        if found != DECIMALS {
            return Err(CashierError::Decimals { token, found });
        }
        self.is_checked = true;
        Ok(())
    }

    async fn read(&mut self) -> Result<(), CashierError> {
        let head = self.reading.head(self.wallet.rpc()).await?;
        self.report.send_modify(|report| report.head = Some(head));
        loop {
            let Some(read) = self.reading.next(self.wallet.rpc(), &*self.store, head).await? else { return Ok(()) };
            self.report.send_modify(|report| report.read = report.read.max(Some(read)));
        }
    }

    /// Credits what waits for somebody who is known by now.
    async fn claim(&mut self) -> Result<(), CashierError> {
        loop {
            let mut done = 0;
            for deposit in self.store.claimable_deposits(MAX_PAGE).await? {
                if self.store.credit_deposit(&deposit, clock::now()).await? {
                    done += 1;
                    let client = deposit.client.as_ref().map_or("", |client| &client.0);
                    info!(client, amount = deposit.amount.0, tx = %hex::encode(deposit.tx.as_bytes()), "a deposit is credited");
                    self.report.send_modify(|report| {
                        report.credited += 1;
                        report.credited_amount = MicroUsd(report.credited_amount.0.saturating_add(deposit.amount.0));
                    });
                }
            }
            if done < MAX_PAGE {
                break;
            }
        }
        let (count, sum) = self.store.unclaimed_deposits().await?;
        self.report.send_modify(|report| (report.unclaimed, report.unclaimed_amount) = (count, sum));
        Ok(())
    }

    async fn sweep(&mut self) {
        let Some(sweeper) = &self.sweeper else {
            let hot = sweep::balance(&self.wallet, &self.config.token, "latest").await.ok();
            return self.report.send_modify(|report| report.hot = hot.map(sweep::micro).or(report.hot));
        };
        let swept = sweeper.round(clock::now()).await;
        let reason = swept.as_ref().err().map(ToString::to_string);
        self.report.send_modify(|report| {
            if let Ok((hot, sweep)) = swept {
                (report.hot, report.sweep) = (Some(hot), sweep);
            }
            if reason.is_some() && reason != report.sweep_reason {
                warn!("nothing can be swept: {}", reason.as_deref().unwrap_or_default());
            }
            report.sweep_reason = reason;
        });
    }

    fn well(&self) {
        self.report.send_modify(|report| {
            (report.state, report.reason, report.well) = (State::Following, None, Some(clock::now()));
        });
    }

    fn failed(&self, error: &CashierError) {
        self.report.send_modify(|report| {
            let reason = error.to_string();
            if report.reason.as_ref() != Some(&reason) {
                warn!("deposits are not read: {reason}");
            }
            (report.state, report.reason) = (State::Failing, Some(reason));
            report.failures += 1;
        });
    }
}
