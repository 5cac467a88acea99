//! `bench gas`: what payment channels cost on a chain, and a voucher on a processor.
//!
//! Gas is counted on a real anvil, from the receipts of transactions that the node's own wallet made. It does not depend on the
//! machine. The token is a plain ERC-20; one behind a proxy, as USDC is, takes some thousands more for each transfer. A voucher is
//! cumulative, so how many jobs share a redemption is the payee's choice: what it waits with is what it risks if the payer's
//! deposit were gone, which the contract does not allow before the end of an exit.

use super::BenchError;
use crate::{
    evm::{self, Anvil, ChainError, Program, act, at_once, give_tokens},
    machine::{Machine, cpu_time},
};
use infernet_node::settlement::evm::{
    contract::{CHALLENGE_SECS, Channels},
    rpc::quantity,
    transaction::Call,
    wallet::Wallet,
};
use infernet_wire::{
    evm::EvmAddress,
    id::JobId,
    key::NodeKey,
    voucher::{ChannelTerms, Close, SignedVoucher, UnverifiedVoucher, Voucher},
};
use serde::Serialize;

/// Vouchers that are timed: a few hundred ticks of the processor clock.
const VOUCHERS: u32 = 20_000;
/// Output tokens that a voucher pays for (PROTOCOL, payment).
const CHUNK: f64 = 64.0;
/// Jobs that share a redemption.
const SHARES: [u64; 4] = [1, 10, 100, 1_000];

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct GasResult {
    /// Where the vouchers were timed.
    pub machine: Machine,
    /// Gas to put the contract on the chain.
    pub deploy: u64,
    /// Gas in an ERC-20.
    pub token: Costs,
    /// Gas in the chain's own coin.
    pub coin: Costs,
    /// Gas for a thousand jobs in an ERC-20 over one open channel, by how many share a redemption.
    pub thousand_jobs: Vec<Share>,
    /// Processor time to sign a voucher, in microseconds.
    pub sign_us: f64,
    /// To read one and check its signature.
    pub verify_us: f64,
}

/// Gas of each call.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Costs {
    /// Open with a first deposit, the token's approval not counted.
    pub open: u64,
    /// Add to it.
    pub top_up: u64,
    /// The first redemption to a payee that has none of the token.
    pub first_redemption: u64,
    /// Each later one.
    pub redemption: u64,
    /// Both sides close.
    pub close: u64,
    /// The payer wants out.
    pub start_exit: u64,
    /// The payer is out.
    pub finish_exit: u64,
}

/// How many jobs share a redemption, and what a thousand of them cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Share {
    /// Jobs in one redemption.
    pub jobs: u64,
    /// Gas for a thousand.
    pub gas: u64,
}

impl std::fmt::Display for GasResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "gas                          ERC-20       coin")?;
        let mut row = |what, of: fn(&Costs) -> u64| writeln!(f, "  {what:<22} {:>10} {:>10}", of(&self.token), of(&self.coin));
        row("open", |costs| costs.open)?;
        row("top up", |costs| costs.top_up)?;
        row("first redemption", |costs| costs.first_redemption)?;
        row("redemption", |costs| costs.redemption)?;
        row("cooperative close", |costs| costs.close)?;
        row("start of an exit", |costs| costs.start_exit)?;
        row("end of an exit", |costs| costs.finish_exit)?;
        writeln!(f, "  the contract itself    {:>10}", self.deploy)?;
        writeln!(f, "a thousand jobs over one channel, ERC-20")?;
        for share in &self.thousand_jobs {
            writeln!(f, "  {:>5} to a redemption    {:>10}", share.jobs, share.gas)?;
        }
        write!(
            f,
            "a voucher: signed in {:.1} µs, checked in {:.1} µs; {:.2} and {:.2} µs per token of a chunk of {CHUNK}",
            self.sign_us,
            self.verify_us,
            self.sign_us / CHUNK,
            self.verify_us / CHUNK
        )
    }
}

/// Measures.
pub async fn run() -> Result<GasResult, BenchError> {
    let machine = Machine::here();
    let anvil = Anvil::start().await?;
    let [payer, payee] = [key(2)?, key(3)?];
    let scene =
        Scene { wallet: anvil.wallet(&payer, at_once()).await?, channels: Channels(EvmAddress::ZERO), payer, payee, anvil };
    let channels = Program::Channels.deploy(&scene.wallet).await?;
    let deploy = scene.gas_of_last().await?;
    let scene = Scene { channels: scene.wallet.check_contract(&channels).await.map_err(ChainError::from)?, ..scene };
    let token = Program::TestToken.deploy(&scene.wallet).await?;
    give_tokens(&scene.wallet, &token, 1_000_000, &channels).await?;
    let token = scene.costs(&token).await?;
    let coin = scene.costs(&EvmAddress::ZERO).await?;
    let thousand_jobs = SHARES.map(|jobs| Share { jobs, gas: (1_000 / jobs) * token.redemption }).into();
    let (sign_us, verify_us) = vouchers(&scene.payer)?;
    Ok(GasResult { machine, deploy, token, coin, thousand_jobs, sign_us, verify_us })
}

struct Scene {
    anvil: Anvil,
    wallet: Wallet,
    channels: Channels,
    payer: NodeKey,
    payee: NodeKey,
}

impl Scene {
    async fn gas(&self, call: Call) -> Result<u64, ChainError> {
        Ok(act(&self.wallet, call).await?.gas_used)
    }

    /// Of the newest block, which holds one transaction.
    async fn gas_of_last(&self) -> Result<u64, ChainError> {
        let block = self.anvil.command("eth_getBlockByNumber", serde_json::json!(["latest", false])).await?;
        let gas = block.get("gasUsed").and_then(quantity).and_then(|gas| gas.try_into().ok());
        gas.ok_or_else(|| ChainError::Start("a block without gas".into()))
    }

    fn terms(&self, token: &EvmAddress, salt: u8) -> ChannelTerms {
        evm::terms(&self.channels, &self.payer.id().evm_address(), &self.payee.id().evm_address(), token, salt)
    }

    fn redeem(&self, terms: &ChannelTerms, amount: u128) -> Result<Call, BenchError> {
        Ok(self.channels.redeem(&SignedVoucher::sign(&self.payer, voucher(terms, amount)).map_err(told)?))
    }

    /// Two channels: one that both close, one that the payer leaves.
    async fn costs(&self, token: &EvmAddress) -> Result<Costs, BenchError> {
        let (terms, left) = (self.terms(token, 1), self.terms(token, 2));
        let open = self.gas(self.channels.open(&terms.payee, token, 1_000, terms.salt)).await?;
        let top_up = self.gas(self.channels.top_up(&terms.id(), token, 1_000)).await?;
        let first_redemption = self.gas(self.redeem(&terms, 100)?).await?;
        let redemption = self.gas(self.redeem(&terms, 200)?).await?;
        let close = Close { chain: terms.chain, contract: terms.contract, channel: terms.id(), amount: 300 };
        let (by_payer, by_payee) = (close.sign(&self.payer), close.sign(&self.payee));
        let close = self.gas(self.channels.close(&close.channel, close.amount, &by_payer, &by_payee)).await?;
        self.gas(self.channels.open(&left.payee, token, 1_000, left.salt)).await?;
        let start_exit = self.gas(self.channels.start_exit(&left.id())).await?;
        self.anvil.pass(CHALLENGE_SECS).await?;
        let finish_exit = self.gas(self.channels.finish_exit(&left.id())).await?;
        Ok(Costs { open, top_up, first_redemption, redemption, close, start_exit, finish_exit })
    }
}

fn key(n: u8) -> Result<NodeKey, BenchError> {
    NodeKey::from_bytes(&[n; 32]).map_err(told)
}

fn told(error: impl std::fmt::Display) -> BenchError {
    BenchError::Options(error.to_string())
}

fn voucher(terms: &ChannelTerms, amount: u128) -> Voucher {
    Voucher { chain: terms.chain, contract: terms.contract, channel: terms.id(), job: JobId([1; 16]), amount }
}

/// Processor time to sign and to check one, in microseconds.
fn vouchers(key: &NodeKey) -> Result<(f64, f64), BenchError> {
    let payer = key.id().evm_address();
    let channels = Channels(payer);
    let terms = evm::terms(&channels, &payer, &payer, &payer, 1);
    let each = |since: std::time::Duration| (cpu_time() - since).as_secs_f64() * 1e6 / f64::from(VOUCHERS);
    let began = cpu_time();
    let mut signed = Vec::new();
    for n in 0..VOUCHERS {
        signed.push(SignedVoucher::sign(key, voucher(&terms, n.into())).map_err(told)?.encode());
    }
    let (sign_us, began) = (each(began), cpu_time());
    for bytes in &signed {
        UnverifiedVoucher::decode(bytes).and_then(|read| read.verify(&payer)).map_err(told)?;
    }
    Ok((sign_us, each(began)))
}
