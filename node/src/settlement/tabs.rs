//! The node's tabs, kept: a [`Till`] for each job sold, a [`Payer`] for each bought. Thin: [`super::tab`] decides.

use super::tab::{Authorise, BadPayment, NoCredit, PayeeTab, PayerTab};
use crate::store::{Side, Store, StoreError};
use futures::{FutureExt, future::BoxFuture};
use infernet_wire::{
    chat::Payment,
    evm::EvmAddress,
    id::{JobId, NodeId},
    key::NodeKey,
    money::MicroUsd,
    topic::NetworkId,
    voucher::{LEDGER, SignedVoucher, UnverifiedVoucher, Voucher, ledger_channel},
};
use serde_bytes::ByteBuf;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tracing::warn;

/// Tabs of each side in memory; those on which no job runs are let go beyond it, and read again when they are needed. One takes some
/// three hundred bytes.
const MAX_OPEN: usize = 4_096;

/// A buyer may pay as often as once for so many tokens, a quarter of a usual piece: checking and writing a voucher costs a tenth of a
/// millisecond, and must not be had for nothing.
const VOUCHER_TOKENS: u32 = 16;
/// And so often besides: before the first token, and after the last.
const SPARE_VOUCHERS: u32 = 8;

/// How much buyers may owe. They are asked for it when a job comes, with what it may cost at most.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credit {
    /// Anybody, unless named below.
    pub free: MicroUsd,
    /// Certain buyers.
    pub limits: BTreeMap<NodeId, MicroUsd>,
}

impl Credit {
    /// What `buyer` may owe.
    pub fn limit(&self, buyer: &NodeId) -> MicroUsd {
        self.limits.get(buyer).copied().unwrap_or(self.free)
    }
}

/// Why a job can't run on its buyer's tab.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// The buyer owes enough already.
    #[error(transparent)]
    NoCredit(#[from] NoCredit),
    /// What it owes can't be read.
    #[error("the worker's store does not answer")]
    Store(#[from] StoreError),
}

impl NotOpened {
    /// A short stable name, for counters.
    pub fn label(&self) -> &'static str {
        match self {
            NotOpened::NoCredit(_) => "no_credit",
            NotOpened::Store(_) => "store",
        }
    }
}

/// Why nothing can be paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPaid {
    /// The promise can't be kept on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More than can be counted.
    #[error("{0} is more than a voucher can say")]
    Amount(MicroUsd),
}

/// A handle to all tabs; cheap to clone.
#[derive(Clone)]
pub struct Tabs {
    shared: Arc<Shared>,
}

struct Shared {
    key: NodeKey,
    /// Our id, and those before it, the newest first.
    us: Vec<NodeId>,
    network: NetworkId,
    store: Arc<dyn Store>,
    credit: Mutex<Credit>,
    payers: Mutex<BTreeMap<NodeId, PayerTab>>,
    payees: Mutex<BTreeMap<NodeId, PayeeTab>>,
}

impl Shared {
    fn kept(&self, buyer: &NodeId) -> Result<PayeeTab, StoreError> {
        kept(&*self.store, &self.us, buyer)
    }

    fn keep(&self, side: Side, other: &NodeId, tab: Vec<u8>) -> BoxFuture<'static, Result<(), StoreError>> {
        self.store.keep_tab(side, &self.key.id(), other, tab)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before the lock is given back.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buyer's tab with the first of `us`, as it was kept last. If there is none yet, it carries what was owed to the others, who are
/// former keys of the same node, the newest first.
pub fn kept(store: &dyn Store, us: &[NodeId], buyer: &NodeId) -> Result<PayeeTab, StoreError> {
    for (n, me) in us.iter().enumerate() {
        if let Some(tab) = store.tab(Side::Sold, me, buyer)?.as_deref().and_then(PayeeTab::recover) {
            return Ok(if n == 0 { tab } else { PayeeTab::carrying(tab.owed()) });
        }
    }
    Ok(PayeeTab::default())
}

/// The tabs of all buyers, likewise.
pub fn all_kept(store: &dyn Store, us: &[NodeId]) -> Result<BTreeMap<NodeId, PayeeTab>, StoreError> {
    let mut all = BTreeMap::new();
    for me in us {
        let mut after = None;
        loop {
            let page = store.tabs(Side::Sold, me, after.as_ref())?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (buyer, _) in page {
                if let Entry::Vacant(free) = all.entry(buyer) {
                    free.insert(kept(store, us, &buyer)?);
                }
            }
        }
    }
    Ok(all)
}

/// Writes in the background: nobody waits for it, and the newest record counts. It is queued already, so that it is written even when
/// everything ends.
fn write(keeping: BoxFuture<'static, Result<(), StoreError>>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(written(keeping));
    }
}

/// Waits for the disk, and says if it fails.
async fn written(keeping: BoxFuture<'static, Result<(), StoreError>>) {
    if let Err(error) = keeping.await {
        warn!("can't keep a tab: {error}");
    }
}

impl Tabs {
    /// The tabs of the node with `key`, who was `former` before, the oldest first, in `store`.
    pub fn new(key: NodeKey, former: &[NodeId], network: NetworkId, store: Arc<dyn Store>, credit: Credit) -> Self {
        let (payers, payees) = (Mutex::default(), Mutex::default());
        let us = [key.id()].into_iter().chain(former.iter().rev().copied()).collect();
        Tabs { shared: Arc::new(Shared { key, us, network, store, credit: Mutex::new(credit), payers, payees }) }
    }

    /// How much buyers may owe from now on.
    pub fn set_credit(&self, credit: Credit) {
        *lock(&self.shared.credit) = credit;
    }

    /// How much buyers may owe.
    pub fn credit(&self) -> Credit {
        lock(&self.shared.credit).clone()
    }

    /// Lets `job` of `buyer`, which may cost `most` and have `tokens` of output, run, if the buyer has credit for it.
    pub fn open(&self, buyer: NodeId, job: JobId, most: MicroUsd, tokens: u32) -> Result<Till, NotOpened> {
        let limit = lock(&self.shared.credit).limit(&buyer);
        let shared = &self.shared;
        let mut payees = lock(&shared.payees);
        let tab = match payees.entry(buyer) {
            Entry::Occupied(tab) => tab.into_mut(),
            Entry::Vacant(place) => place.insert(shared.kept(&buyer)?),
        };
        let opened = tab.open(job, most, limit);
        if payees.len() > MAX_OPEN {
            // What it says is on disk, since it was written with each change.
            let idle = payees.iter().find(|(_, tab)| tab.is_idle()).map(|(buyer, _)| *buyer);
            idle.map(|idle| payees.remove(&idle));
        }
        opened?;
        let (tabs, left, none) = (self.clone(), SPARE_VOUCHERS + tokens / VOUCHER_TOKENS, MicroUsd(0));
        Ok(Till { tabs, buyer, job, left, taken: none, paid: none, on_the_way: none, keeping: None, open: true })
    }

    /// What `buyer` may still owe. Nothing, if what it owes can't be read.
    pub fn credit_left(&self, buyer: &NodeId) -> MicroUsd {
        let limit = lock(&self.shared.credit).limit(buyer);
        if limit == MicroUsd(0) {
            return limit;
        }
        let owed = self.sold_to(buyer).map_or(limit, |tab| tab.owed());
        MicroUsd(limit.0.saturating_sub(owed.0))
    }

    /// Where `job` of `worker` is paid from.
    pub fn payer(&self, worker: NodeId, job: JobId) -> Payer {
        Payer { tabs: self.clone(), worker, job, paid: MicroUsd(0), open: true }
    }

    /// `buyer` has paid `amount` of its debt outside. Its tab then, once that is on disk.
    pub async fn clear(&self, buyer: &NodeId, amount: MicroUsd) -> Result<PayeeTab, StoreError> {
        let (keeping, cleared) = {
            let mut payees = lock(&self.shared.payees);
            let mut unopened = None;
            let tab = match payees.get_mut(buyer) {
                Some(tab) => tab,
                None => unopened.insert(self.shared.kept(buyer)?),
            };
            tab.clear(amount);
            (self.shared.keep(Side::Sold, buyer, tab.record()), tab.clone())
        };
        keeping.await.map(|()| cleared)
    }

    /// A buyer's tab as it is now, for whoever shows it.
    pub fn sold_to(&self, buyer: &NodeId) -> Result<PayeeTab, StoreError> {
        let open = lock(&self.shared.payees).get(buyer).cloned();
        open.map_or_else(|| self.shared.kept(buyer), Ok)
    }

    /// All buyers' tabs as they are now.
    pub fn all_sold(&self) -> Result<BTreeMap<NodeId, PayeeTab>, StoreError> {
        let mut all = all_kept(&*self.shared.store, &self.shared.us)?;
        all.extend(lock(&self.shared.payees).iter().map(|(buyer, tab)| (*buyer, tab.clone())));
        Ok(all)
    }

    /// Writes what was really promised, when the node stops.
    pub async fn close(&self) {
        let records: Vec<_> = {
            let payers = lock(&self.shared.payers);
            let idle = payers.iter().filter_map(|(worker, tab)| Some((*worker, tab.record()?)));
            idle.map(|(worker, record)| written(self.shared.keep(Side::Bought, &worker, record))).collect()
        };
        futures::future::join_all(records).await;
    }
}

/// Where the payments for one job come in. Dropped, the job came to what was paid.
pub struct Till {
    tabs: Tabs,
    buyer: NodeId,
    job: JobId,
    /// Vouchers that are still looked at.
    left: u32,
    /// The last one that was good said so much.
    taken: MicroUsd,
    /// What counts: it is on disk.
    paid: MicroUsd,
    /// What counts once `keeping` is done.
    on_the_way: MicroUsd,
    keeping: Option<BoxFuture<'static, Result<(), StoreError>>>,
    open: bool,
}

impl Till {
    /// Takes a payment, or tells why not. It counts when [`Till::kept`] has resolved.
    pub fn take(&mut self, payment: &Payment) -> Result<(), BadPayment> {
        let shared = &self.tabs.shared;
        let voucher = UnverifiedVoucher::decode(&payment.voucher)?;
        let claim = *voucher.claim();
        let ours = ledger_channel(&shared.network, &self.buyer, &shared.key.id());
        if (claim.chain, claim.contract, claim.channel) != (LEDGER, EvmAddress::ZERO, ours) {
            return Err(BadPayment::Foreign);
        }
        if claim.job != self.job {
            return Err(BadPayment::OtherJob);
        }
        // One that pays no more says that the buyer is there, whatever else is in it.
        if payment.paid == self.taken && payment.paid > MicroUsd(0) {
            return Ok(());
        }
        self.left = self.left.checked_sub(1).ok_or(BadPayment::TooMany)?;
        // A voucher that is not above the highest is not looked at: it is the highest that counts.
        let is_higher = |amount: u128| lock(&shared.payees).get(&self.buyer).is_none_or(|tab| amount > tab.promised());
        let verified = if is_higher(claim.amount) { Some(voucher.verify(&self.buyer.evm_address())?) } else { None };
        let mut payees = lock(&shared.payees);
        let tab = payees.get_mut(&self.buyer).ok_or(BadPayment::NoJob)?;
        if tab.take(&self.job, claim.amount, verified, payment.paid)? {
            self.keeping = Some(shared.keep(Side::Sold, &self.buyer, tab.record()));
            self.on_the_way = payment.paid;
        }
        self.taken = payment.paid;
        Ok(())
    }

    /// What has been paid, and will be there after a crash.
    pub fn paid(&self) -> MicroUsd {
        self.paid
    }

    /// Whether what was taken is still on its way to the disk.
    pub fn is_writing(&self) -> bool {
        self.keeping.is_some()
    }

    /// Resolves when what was taken counts; never if nothing was. Cancel safe.
    pub async fn kept(&mut self) -> Result<(), StoreError> {
        let Some(keeping) = &mut self.keeping else { return std::future::pending().await };
        let kept = keeping.await;
        self.keeping = None;
        kept.inspect(|()| self.paid = self.on_the_way)
    }

    /// Waits for what was taken, if anything.
    pub async fn settled(&mut self) -> Result<(), StoreError> {
        if self.keeping.is_some() { self.kept().await } else { Ok(()) }
    }

    /// The answer is over and comes to `amount`: to be called before the buyer is told, see [`PayeeTab::end`], and to be on the disk by
    /// then, since a crash must not forget it. Queued before this returns, so a receipt that is kept later is on the disk later, too.
    pub fn end_of_answer(&mut self, amount: MicroUsd) -> BoxFuture<'static, ()> {
        let shared = &self.tabs.shared;
        let mut payees = lock(&shared.payees);
        let Some(tab) = payees.get_mut(&self.buyer) else { return std::future::ready(()).boxed() };
        tab.end(&self.job, amount);
        written(shared.keep(Side::Sold, &self.buyer, tab.record())).boxed()
    }

    /// The job is free: on the disk when it resolves, and only then to be told.
    pub async fn close_for_free(mut self) {
        let kept = self.end_of_answer(MicroUsd(0));
        self.end(MicroUsd(0), false);
        kept.await;
    }

    /// The job came to `amount`; `agreed` tells whether the buyer has signed that.
    pub fn close(mut self, amount: MicroUsd, agreed: bool) {
        self.end(amount, agreed);
    }

    fn end(&mut self, amount: MicroUsd, agreed: bool) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let shared = &self.tabs.shared;
        let mut payees = lock(&shared.payees);
        let Some(tab) = payees.get_mut(&self.buyer) else { return };
        tab.settle(&self.job, amount, agreed);
        let keeping = shared.keep(Side::Sold, &self.buyer, tab.record());
        drop(payees);
        write(keeping);
    }
}

impl Drop for Till {
    fn drop(&mut self) {
        self.end(MicroUsd(u64::MAX), false);
    }
}

/// Where one job is paid from. Dropped, all that was paid is gone.
pub struct Payer {
    tabs: Tabs,
    worker: NodeId,
    job: JobId,
    paid: MicroUsd,
    open: bool,
}

impl Payer {
    /// What was paid so far.
    pub fn paid(&self) -> MicroUsd {
        self.paid
    }

    /// Pays `paid` for the job in all, never less than before. Waits for the disk only if the step that is written there is used up.
    pub async fn pay(&mut self, paid: MicroUsd) -> Result<Payment, NotPaid> {
        let shared = self.tabs.shared.clone();
        let amount = loop {
            let (total, keeping) = {
                let mut payers = lock(&shared.payers);
                self.make_room(&mut payers);
                let tab = match payers.entry(self.worker) {
                    Entry::Occupied(tab) => tab.into_mut(),
                    Entry::Vacant(place) => {
                        let kept = shared.store.tab(Side::Bought, &shared.key.id(), &self.worker)?;
                        place.insert(kept.as_deref().and_then(PayerTab::recover).unwrap_or_default())
                    }
                };
                match tab.pay(self.job, paid) {
                    Authorise::Ready { amount, more } => {
                        if let Some(total) = more {
                            self.authorise_later(total, shared.keep(Side::Bought, &self.worker, tab.ahead(total)));
                        }
                        break amount;
                    }
                    Authorise::First(total) => (total, shared.keep(Side::Bought, &self.worker, tab.ahead(total))),
                    Authorise::Refused => return Err(NotPaid::Amount(paid)),
                }
            };
            keeping.await?;
            if let Some(tab) = lock(&shared.payers).get_mut(&self.worker) {
                tab.authorised(total);
            }
        };
        self.paid = paid;
        let channel = ledger_channel(&shared.network, &shared.key.id(), &self.worker);
        let voucher = Voucher { chain: LEDGER, contract: EvmAddress::ZERO, channel, job: self.job, amount: amount.into() };
        // Only a chain without a contract is refused, and an amount of more than 64 bits.
        let signed = SignedVoucher::sign(&shared.key, voucher).map_err(|_| NotPaid::Amount(paid))?;
        Ok(Payment { voucher: ByteBuf::from(signed.encode()), paid })
    }

    fn authorise_later(&self, total: u64, keeping: BoxFuture<'static, Result<(), StoreError>>) {
        let (shared, worker) = (self.tabs.shared.clone(), self.worker);
        tokio::spawn(async move {
            match keeping.await {
                Ok(()) => {
                    if let Some(tab) = lock(&shared.payers).get_mut(&worker) {
                        tab.authorised(total);
                    }
                }
                Err(error) => warn!("can't keep a tab: {error}"),
            }
        });
    }

    /// Lets go of a tab on which no job runs, beyond a number.
    fn make_room(&self, payers: &mut BTreeMap<NodeId, PayerTab>) {
        if payers.len() < MAX_OPEN || payers.contains_key(&self.worker) {
            return;
        }
        let idle = payers.iter().find_map(|(worker, tab)| Some((*worker, tab.record()?)));
        if let Some((worker, record)) = idle {
            payers.remove(&worker);
            // Queued before it can be read again.
            write(self.tabs.shared.keep(Side::Bought, &worker, record));
        }
    }

    /// The job came to `owed`, as both have signed, or as the worker has said that it is free; `None`: nobody knows.
    pub fn close(mut self, owed: Option<MicroUsd>) {
        self.end(owed);
    }

    fn end(&mut self, owed: Option<MicroUsd>) {
        if std::mem::take(&mut self.open)
            && let Some(tab) = lock(&self.tabs.shared.payers).get_mut(&self.worker)
        {
            tab.settle(&self.job, owed);
        }
    }
}

impl Drop for Payer {
    fn drop(&mut self) {
        self.end(None);
    }
}
