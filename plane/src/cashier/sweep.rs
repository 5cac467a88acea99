//! What the plane's account has above its cap goes to the cold account: one transaction at a time, kept in the store before it is
//! sent. The next is prepared when the one before has ended, from what the chain says then, so that a plane that was killed at any
//! point sends nothing twice.

use super::{CashierConfig, CashierError, transfer};
use crate::store::{PaymentRow, Store};
use infernet_node::settlement::evm::{
    contract,
    rpc::{shown, shown_address, shown_quantity},
    sole::Sole,
    step::{Stage, Step},
    wallet::{EvmError, Wallet},
};
use infernet_wire::{evm::EvmAddress, money::MicroUsd, time::UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tracing::info;

/// Less than a dollar is not worth its gas.
pub const MIN_SWEEP: u128 = 1_000_000;
/// After one that failed: each costs gas.
const AGAIN_MS: u64 = 60 * 60_000;

/// A payment as the store has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Payment {
    to: EvmAddress,
    amount: u64,
    step: Step,
}

/// A sweep as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// Its place among the account's payments.
    pub number: u64,
    /// When it was decided.
    pub at: UnixMillis,
    /// To where.
    pub to: EvmAddress,
    /// How much.
    pub amount: MicroUsd,
    /// `prepared`, `sent`, `mined`, `settled`, `failed` or `replaced`.
    pub stage: &'static str,
    /// Its newest transaction.
    pub tx: Option<String>,
}

/// What is above the cap, if it is worth its gas. Of the newest block and the deep one the lesser counts.
fn excess(newest: u128, deep: u128, cap: MicroUsd) -> Option<u128> {
    newest.min(deep).checked_sub(cap.0.into()).filter(|excess| *excess >= MIN_SWEEP)
}

/// Whether the next may be prepared: none is on its way, and the last did not fail a moment ago.
fn is_free(last: Option<(&PaymentRow, Stage)>, now: UnixMillis) -> bool {
    match last {
        None => true,
        Some((_, Stage::Confirmed { .. })) => true,
        Some((row, Stage::Reverted { .. } | Stage::Replaced)) => now.0 >= row.at.0.saturating_add(AGAIN_MS),
        Some(_) => false,
    }
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Prepared => "prepared",
        Stage::Sent { .. } | Stage::Doubt { .. } => "sent",
        Stage::Mined { .. } => "mined",
        Stage::Confirmed { .. } => "settled",
        Stage::Reverted { .. } => "failed",
        Stage::Replaced => "replaced",
    }
}

/// Token units as money: one is a micro-USD.
pub(super) fn micro(units: u128) -> MicroUsd {
    MicroUsd(u64::try_from(units).unwrap_or(u64::MAX))
}

/// What the account has of `token` in a block.
pub(super) async fn balance(wallet: &Wallet, token: &EvmAddress, block: &str) -> Result<u128, EvmError> {
    const METHOD: &str = "eth_call";
    let call = contract::balance_of(token, &wallet.address());
    let answer = wallet.rpc().bytes(METHOD, json!([{ "to": shown_address(token), "data": shown(&call.data) }, block])).await?;
    Ok(transfer::number(&answer).ok_or_else(|| wallet.rpc().malformed(METHOD))?)
}

/// Sweeps.
pub(super) struct Sweeper {
    wallet: Wallet,
    store: Arc<dyn Store>,
    account: String,
    token: EvmAddress,
    depth: u64,
    cold: EvmAddress,
    cap: MicroUsd,
    sole: Mutex<Sole>,
}

impl Sweeper {
    pub(super) fn new(config: &CashierConfig, wallet: Wallet, store: Arc<dyn Store>, cold: EvmAddress, cap: MicroUsd) -> Self {
        let account = format!("{}:{}", config.chain, wallet.address());
        Sweeper { wallet, store, account, token: config.token, depth: config.depth, cold, cap, sole: Mutex::default() }
    }

    /// One look and what follows from it; what the account has, and the newest sweep.
    pub(super) async fn round(&self, now: UnixMillis) -> Result<(MicroUsd, Option<Sweep>), CashierError> {
        let mut last = self.newest().await?;
        if let Some((row, payment)) = &mut last
            && !payment.step.is_done()
        {
            self.advance(row, payment).await?;
        }
        let newest = balance(&self.wallet, &self.token, "latest").await?;
        if is_free(last.as_ref().map(|(row, payment)| (row, payment.step.stage)), now)
            && let Some(amount) = self.excess(newest).await?
            && let () = self.alone(last.as_ref().map(|(_, payment)| payment.step.nonce), now).await?
            && let Some(begun) = self.prepare(last.as_ref().map_or(1, |(row, _)| row.number + 1), amount, now).await?
        {
            last = Some(begun);
        }
        Ok((micro(newest), last.map(|(row, payment)| shown_sweep(&row, &payment))))
    }

    /// Fails if somebody else uses the account: its sweeps would only take each other's numbers.
    async fn alone(&self, last: Option<u64>, now: UnixMillis) -> Result<(), EvmError> {
        let found = self.wallet.used().await?;
        let mut sole = self.sole.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(sole.check(self.wallet.address(), last, found, now)?)
    }

    async fn newest(&self) -> Result<Option<(PaymentRow, Payment)>, CashierError> {
        let Some(row) = self.store.payments(&self.account, 1).await?.pop() else { return Ok(None) };
        let read = serde_json::from_slice(&row.step);
        let payment = read.map_err(|error| CashierError::Payment { number: row.number, reason: error.to_string() })?;
        Ok(Some((row, payment)))
    }

    async fn excess(&self, newest: u128) -> Result<Option<u128>, CashierError> {
        if excess(newest, newest, self.cap).is_none() {
            return Ok(None);
        }
        let head = self.wallet.rpc().count("eth_blockNumber", json!([])).await?;
        let deep = head.saturating_add(1).saturating_sub(self.depth);
        let deep = balance(&self.wallet, &self.token, &shown_quantity(deep.into())).await?;
        Ok(excess(newest, deep, self.cap))
    }

    /// The next payment, kept; `None` if another instance has begun one.
    async fn prepare(&self, number: u64, amount: u128, now: UnixMillis) -> Result<Option<(PaymentRow, Payment)>, CashierError> {
        let step = self.wallet.prepare(contract::transfer(&self.token, &self.cold, amount)).await?;
        let payment = Payment { to: self.cold, amount: micro(amount).0, step };
        let row = PaymentRow { account: self.account.clone(), number, revision: 0, at: now, step: written(&payment) };
        let kept = self.store.keep_payment(&row).await?;
        if kept {
            info!(number, amount = payment.amount, to = %self.cold, "what is above the cap is swept");
        }
        Ok(kept.then_some((row, payment)))
    }

    /// What is not kept is not sent: [`Wallet::advance`] sees to that.
    async fn advance(&self, row: &mut PaymentRow, payment: &mut Payment) -> Result<(), CashierError> {
        let revision = AtomicU64::new(row.revision);
        let (whole, begun) = (payment.clone(), row.clone());
        let mut keep = |step: Step| {
            let payment = Payment { step, ..whole.clone() };
            let next = PaymentRow { revision: revision.load(Ordering::Relaxed) + 1, step: written(&payment), ..begun.clone() };
            let revision = &revision;
            async move {
                match self.store.keep_payment(&next).await {
                    Ok(true) => {
                        revision.store(next.revision, Ordering::Relaxed);
                        Ok(())
                    }
                    Ok(false) => Err("another instance drives it".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        self.wallet.advance(&mut payment.step, &mut keep).await?;
        row.revision = revision.into_inner();
        Ok(())
    }
}

fn written(payment: &Payment) -> Vec<u8> {
    serde_json::to_vec(payment).expect("a payment is numbers and bytes")
}

fn shown_sweep(row: &PaymentRow, payment: &Payment) -> Sweep {
    Sweep {
        number: row.number,
        at: row.at,
        to: payment.to,
        amount: MicroUsd(payment.amount),
        stage: word(payment.step.stage),
        tx: payment.step.attempts.last().map(|attempt| attempt.hash.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_node::settlement::evm::transaction::TxHash;

    #[test]
    fn only_what_is_above_the_cap_and_deep_is_swept() {
        let cap = MicroUsd(5_000_000);
        assert_eq!(excess(9_000_000, 9_000_000, cap), Some(4_000_000));
        assert_eq!(excess(9_000_000, 7_000_000, cap), Some(2_000_000), "what may vanish stays");
        assert_eq!(excess(7_000_000, 9_000_000, cap), Some(2_000_000), "what is spent is gone");
        assert_eq!(excess(5_999_999, 9_000_000, cap), None, "it is not worth its gas");
        assert_eq!(excess(0, 0, cap), None);
    }

    #[test]
    fn one_is_on_its_way_at_a_time_and_one_that_failed_waits() {
        let now = UnixMillis(AGAIN_MS * 2);
        let row = |at| PaymentRow { account: "a".into(), number: 1, revision: 0, at, step: Vec::new() };
        let (hash, block) = (TxHash([0; 32]), 1);
        let free = |stage, at| is_free(Some((&row(at), stage)), now);
        assert!(is_free(None, now) && free(Stage::Confirmed { hash, block }, now));
        for stage in [Stage::Prepared, Stage::Sent { at: now }, Stage::Doubt { since: now }] {
            assert!(!free(stage, UnixMillis(0)), "{stage:?}");
        }
        assert!(!free(Stage::Replaced, now) && !free(Stage::Reverted { hash, block }, UnixMillis(AGAIN_MS + 1)));
        assert!(free(Stage::Replaced, UnixMillis(0)) && free(Stage::Reverted { hash, block }, UnixMillis(AGAIN_MS)));
    }

    #[test]
    fn a_payment_is_read_as_it_was_written() {
        let call = contract::transfer(&EvmAddress([1; 20]), &EvmAddress([2; 20]), 5);
        let mut step = Step::new(31_337, call, 3, 60_000);
        step.stage = Stage::Mined { hash: TxHash([4; 32]), block: 7, block_hash: [5; 32] };
        let payment = Payment { to: EvmAddress([2; 20]), amount: 5, step };
        assert_eq!(serde_json::from_slice::<Payment>(&written(&payment)).expect("read"), payment);
    }
}
