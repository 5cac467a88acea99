//! The node's tabs, kept: a [`Till`] for each job sold, a [`Payer`] for each bought. Thin: [`super::tab`] decides.

use super::{
    channels::{BadChannel, Channels, Known},
    solana::desk::Desk,
    tab::{Authorise, BadPayment, Cover, Funds, NoCredit, NotClosed, PayeeTab, PayerTab, units},
};
use crate::{
    clock,
    store::{Side, Store, StoreError, TabOf},
};
use futures::{FutureExt, future::BoxFuture};
use infernet_wire::{
    chat::{Closed, Closing, Payment},
    evm::EvmAddress,
    id::{ChannelId, EvmSignature, JobId, NodeId},
    key::{NodeKey, Signer},
    money::MicroUsd,
    settle::PaidOn,
    topic::NetworkId,
    voucher::{BadVoucher, ChannelTerms, Close, LEDGER, SignedVoucher, UnverifiedVoucher, Voucher, ledger_channel},
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
    /// The buyer owes enough already, or its deposit is used up.
    #[error(transparent)]
    NoCredit(#[from] NoCredit),
    /// It pays with no voucher.
    #[error(transparent)]
    Voucher(#[from] BadVoucher),
    /// It pays on a channel that is not taken.
    #[error(transparent)]
    Channel(#[from] BadChannel),
    /// What it owes can't be read.
    #[error("the worker's store does not answer")]
    Store(#[from] StoreError),
}

impl NotOpened {
    /// A short stable name, for counters.
    pub fn label(&self) -> &'static str {
        match self {
            NotOpened::NoCredit(_) => "no_credit",
            NotOpened::Voucher(_) => "bad_voucher",
            NotOpened::Channel(error) => error.label(),
            NotOpened::Store(_) => "store",
        }
    }
}

/// Why one side does not sign the end of a channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseRefused {
    /// The channel is not one of these two.
    #[error(transparent)]
    Channel(#[from] BadChannel),
    /// Not yet.
    #[error(transparent)]
    Running(#[from] NotClosed),
    /// The payee wants more than the payer knows of.
    #[error(
        "the worker wants {wants} units for the channel, and all jobs on it came to {owed}: take the slow way out with --exit"
    )]
    TooMuch {
        /// What it wants.
        wants: u128,
        /// What the payer knows of.
        owed: u128,
    },
    /// The signature is not the payee's.
    #[error("the worker's signature is wrong: {0}")]
    Signature(#[from] BadVoucher),
    /// What is owed can't be read or kept.
    #[error("the store does not answer: {0}")]
    Store(#[from] StoreError),
}

/// Why nothing can be paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPaid {
    /// The promise can't be kept on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More than can be counted, or than the channel holds.
    #[error("{0} is more than the channel to this worker can pay: deposit more (`infernet wallet deposit`)")]
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
    channels: Channels,
    solana: Desk,
    payers: Mutex<BTreeMap<Place, PayerTab>>,
    payees: Mutex<BTreeMap<Place, PayeeTab>>,
}

/// With whom, and on which channel; `None`: on the ledger.
type Place = (NodeId, Option<ChannelId>);

impl Shared {
    fn of(&self, side: Side, (other, channel): &Place) -> TabOf {
        TabOf { side, me: self.key.id(), other: *other, channel: *channel }
    }

    fn kept(&self, place: &Place) -> Result<PayeeTab, StoreError> {
        let Some(channel) = place.1 else { return kept(&*self.store, &self.us, &place.0) };
        let kept = self.store.tab(&self.of(Side::Sold, place))?.as_deref().and_then(PayeeTab::recover);
        let redeemed = || self.channels.get(&channel).map_or(0, |known| known.redeemed);
        Ok(kept.unwrap_or_else(|| PayeeTab::redeemed(redeemed())))
    }

    fn kept_payer(&self, place: &Place) -> Result<PayerTab, StoreError> {
        let kept = self.store.tab(&self.of(Side::Bought, place))?;
        Ok(kept.as_deref().and_then(PayerTab::recover).unwrap_or_default())
    }

    fn keep(&self, side: Side, place: &Place, tab: Vec<u8>) -> BoxFuture<'static, Result<(), StoreError>> {
        self.store.keep_tab(&self.of(side, place), tab)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before the lock is given back.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buyer's ledger with the first of `us`, as it was kept last. If there is none yet, it carries what was owed to the others, or
/// prepaid: they are former keys of the same node, the newest first.
pub fn kept(store: &dyn Store, us: &[NodeId], buyer: &NodeId) -> Result<PayeeTab, StoreError> {
    for (n, me) in us.iter().enumerate() {
        if let Some(tab) = store.tab(&TabOf::ledger(Side::Sold, *me, *buyer))?.as_deref().and_then(PayeeTab::recover) {
            return Ok(if n == 0 { tab } else { tab.carried() });
        }
    }
    Ok(PayeeTab::default())
}

/// The ledgers of all buyers, likewise.
pub fn all_kept(store: &dyn Store, us: &[NodeId]) -> Result<BTreeMap<NodeId, PayeeTab>, StoreError> {
    let mut all = BTreeMap::new();
    for me in us {
        let mut after = None;
        loop {
            let page = store.tabs(Side::Sold, me, after.as_ref())?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (of, _) in page.iter().filter(|(of, _)| of.channel.is_none()) {
                if let Entry::Vacant(free) = all.entry(of.other) {
                    free.insert(kept(store, us, &of.other)?);
                }
            }
        }
    }
    Ok(all)
}

/// Chain, contract and channel of vouchers.
fn named(paid_on: Option<PaidOn>, ledger: impl FnOnce() -> ChannelId) -> (u64, EvmAddress, ChannelId) {
    paid_on.map_or_else(|| (LEDGER, EvmAddress::ZERO, ledger()), |on| (on.chain, on.contract, on.channel))
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
        let (channels, solana) = (Channels::new(key.id().evm_address()), Desk::default());
        let (payers, payees) = (Mutex::default(), Mutex::default());
        let us = [key.id()].into_iter().chain(former.iter().rev().copied()).collect();
        Tabs {
            shared: Arc::new(Shared { key, us, network, store, credit: Mutex::new(credit), channels, solana, payers, payees }),
        }
    }

    /// The channels that jobs can be paid on.
    pub fn channels(&self) -> &Channels {
        &self.shared.channels
    }

    /// Tranches that are prepaid on Solana.
    pub fn solana(&self) -> &Desk {
        &self.shared.solana
    }

    /// How much buyers may owe from now on.
    pub fn set_credit(&self, credit: Credit) {
        *lock(&self.shared.credit) = credit;
    }

    /// How much buyers may owe.
    pub fn credit(&self) -> Credit {
        lock(&self.shared.credit).clone()
    }

    /// Lets `sale` run, if what it may cost is covered: by the deposit of the channel on which its first payment is a voucher, or by the
    /// buyer's credit.
    pub fn open(&self, sale: &Sale<'_>) -> Result<Till, NotOpened> {
        let Sale { buyer, job, most, tokens, payment, rate } = *sale;
        let shared = &self.shared;
        let claim =
            payment.map(|payment| UnverifiedVoucher::decode(&payment.voucher)).transpose()?.map(|voucher| *voucher.claim());
        let claim = claim.filter(|claim| claim.chain != LEDGER).map(|claim| (claim, buyer.evm_address()));
        let signer = Signer::of(&buyer).map_err(|_| BadVoucher::Signer { payer: buyer.evm_address() })?;
        // Until the job is on the tab nobody lets go of its channel.
        let mut payees = lock(&shared.payees);
        let (place, cover, paid_on) = match claim {
            None => ((buyer, None), Cover::Credit(lock(&shared.credit).limit(&buyer)), None),
            Some((claim, payer)) => {
                let (known, paid_on) = shared.channels.check(&payer, &claim, rate)?;
                ((buyer, Some(claim.channel)), Cover::Deposit { units: known.deposit, rate }, Some(paid_on))
            }
        };
        let tab = match payees.entry(place) {
            Entry::Occupied(tab) => tab.into_mut(),
            Entry::Vacant(free) => free.insert(shared.kept(&place)?),
        };
        let opened = tab.open(job, most, cover);
        if payees.len() > MAX_OPEN {
            // What it says is on disk, since it was written with each change.
            let idle = payees.iter().find(|(_, tab)| tab.is_idle()).map(|(place, _)| *place);
            idle.map(|idle| payees.remove(&idle));
        }
        opened?;
        let (tabs, left, none) = (self.clone(), SPARE_VOUCHERS + tokens / VOUCHER_TOKENS, MicroUsd(0));
        let agreed = named(paid_on, || ledger_channel(&shared.network, &buyer, &shared.key.id()));
        Ok(Till {
            tabs,
            place,
            signer,
            agreed,
            paid_on,
            job,
            left,
            taken: none,
            paid: none,
            on_the_way: none,
            keeping: None,
            open: true,
        })
    }

    /// What another job of `buyer` may cost on its credit, and on what it has prepaid. Nothing, if what it owes can't be read.
    pub fn credit_left(&self, buyer: &NodeId) -> MicroUsd {
        let credit = Cover::Credit(lock(&self.shared.credit).limit(buyer));
        self.left(&(*buyer, None), credit)
    }

    /// What another job of `buyer` may cost on the channel that has most, likewise.
    pub fn deposit_left(&self, buyer: &NodeId) -> MicroUsd {
        let rate = self.shared.channels.means().map_or(1, |means| means.rate);
        let left = |known: Known| self.left(&(*buyer, Some(known.terms.id())), Cover::Deposit { units: known.deposit, rate });
        self.shared.channels.from(buyer).into_iter().map(left).max().unwrap_or_default()
    }

    fn left(&self, place: &Place, cover: Cover) -> MicroUsd {
        self.sold_at(place).map_or(MicroUsd(0), |tab| tab.left(cover))
    }

    /// Where `job` of `worker`, which may cost `most`, is paid from, if its accept says `rate`: the first channel whose deposit suffices,
    /// else the ledger.
    pub fn payer(&self, worker: NodeId, job: JobId, most: MicroUsd, rate: u128) -> Payer {
        let needed = units(most, rate);
        let mut payers = lock(&self.shared.payers);
        let mut reserve = |(known, paid_on): (Known, PaidOn)| {
            let (place, funds) = ((worker, Some(paid_on.channel)), Funds { rate, most: known.deposit });
            let tab = match payers.entry(place) {
                Entry::Occupied(tab) => tab.into_mut(),
                // One that can't be read is not paid from.
                Entry::Vacant(free) => free.insert(self.shared.kept_payer(&place).ok()?),
            };
            tab.reserve(job, needed, funds).then_some((place, funds, Some(paid_on)))
        };
        let source = self.shared.channels.sources(&worker, rate).into_iter().find_map(&mut reserve);
        drop(payers);
        let (place, funds, paid_on) = source.unwrap_or(((worker, None), Funds::LEDGER, None));
        Payer { tabs: self.clone(), place, funds, paid_on, job, paid: MicroUsd(0), open: true }
    }

    /// `buyer` has paid `amount` outside: of its debt, or ahead. Its ledger then, once that is on disk.
    pub async fn clear(&self, buyer: &NodeId, amount: MicroUsd) -> Result<PayeeTab, StoreError> {
        self.change(buyer, |tab| tab.clear(amount), |tab| tab.unclear(amount)).await.map(|((), tab)| tab)
    }

    /// `buyer` has prepaid `amount`, its prepayment `number`; see [`PayeeTab::prepay`]. It counts when it is on disk.
    pub async fn prepay(&self, buyer: &NodeId, number: u64, amount: MicroUsd) -> Result<bool, StoreError> {
        // A tranche that is shown again is not counted again.
        self.change(buyer, |tab| tab.prepay(number, amount), |_| {}).await.map(|(next, _)| next)
    }

    /// Changes a buyer's ledger, and waits until that is on disk.
    async fn change<T>(
        &self,
        buyer: &NodeId,
        change: impl FnOnce(&mut PayeeTab) -> T,
        undo: impl FnOnce(&mut PayeeTab),
    ) -> Result<(T, PayeeTab), StoreError> {
        let place = (*buyer, None);
        let (keeping, changed) = {
            let mut payees = lock(&self.shared.payees);
            let mut unopened = None;
            let tab = match payees.get_mut(&place) {
                Some(tab) => tab,
                None => unopened.insert(self.shared.kept(&place)?),
            };
            let told = change(tab);
            (self.shared.keep(Side::Sold, &place, tab.record()), (told, tab.clone()))
        };
        let kept = keeping.await;
        if kept.is_err() {
            // What is not on the disk is not so: whoever was told that tries again.
            let mut payees = lock(&self.shared.payees);
            match payees.get_mut(&place) {
                Some(tab) if tab.is_idle() => drop(payees.remove(&place)),
                Some(tab) => undo(tab),
                None => {}
            }
        }
        kept.map(|()| changed)
    }

    /// Signs the end of a channel with `buyer`, for what all jobs on it came to: no more jobs run on it, which is on disk before
    /// anybody has the signature.
    pub async fn sign_close(&self, buyer: &NodeId, asked: &Closing) -> Result<Closed, CloseRefused> {
        let shared = &self.shared;
        let known = shared.channels.get(&asked.channel).ok_or(BadChannel::Unknown)?;
        let ChannelTerms { chain, contract, payer, payee, .. } = known.terms;
        if (chain, contract) != (asked.chain, asked.contract) || (payer, payee) != (buyer.evm_address(), shared.channels.us()) {
            return Err(BadChannel::NotOurs.into());
        }
        let place = (*buyer, Some(asked.channel));
        let (amount, keeping) = {
            let mut payees = lock(&shared.payees);
            let tab = match payees.entry(place) {
                Entry::Occupied(tab) => tab.into_mut(),
                Entry::Vacant(free) => free.insert(shared.kept(&place)?),
            };
            // What was redeemed may be more than the jobs came to: a voucher pays a piece ahead.
            let amount = tab.close(clock::now())?.max(known.redeemed).min(known.deposit);
            (amount, shared.keep(Side::Sold, &place, tab.record()))
        };
        keeping.await?;
        shared.channels.close(&asked.channel);
        let close = Close { chain, contract, channel: asked.channel, amount };
        Ok(Closed { amount, signature: close.sign(&shared.key) })
    }

    /// Checks that `worker` asks for no more than we owe it on a channel, and signs the same.
    pub fn sign_closed(&self, worker: &NodeId, asked: &Closing, closed: &Closed) -> Result<EvmSignature, CloseRefused> {
        let tab = self.bought_on(worker, &asked.channel)?;
        let redeemed = self.shared.channels.get(&asked.channel).map_or(0, |known| known.redeemed);
        let owed = tab.settled().max(redeemed);
        if closed.amount > owed {
            return Err(CloseRefused::TooMuch { wants: closed.amount, owed });
        }
        let close = Close { chain: asked.chain, contract: asked.contract, channel: asked.channel, amount: closed.amount };
        close.verify(&closed.signature, &worker.evm_address())?;
        Ok(close.sign(&self.shared.key))
    }

    /// Lets go of the channel that makes room for `newcomer` in a full book, if there is one: no job runs on it, its voucher would pay
    /// less than `worth` units, and there is less left in it. No job opens on it from then on.
    pub fn make_room(&self, newcomer: &Known, worth: u128) -> Result<Option<ChannelId>, StoreError> {
        let channels = &self.shared.channels;
        // Most are turned away without a look into the store.
        if channels.gives_way(newcomer, |_, _| false).is_none() {
            return Ok(None);
        }
        let sold = self.all_sold_on_channels()?.into_iter();
        let mut tabs: BTreeMap<ChannelId, (u128, bool)> =
            sold.map(|(_, channel, tab)| (channel, (tab.promised(), tab.is_idle()))).collect();
        let payees = lock(&self.shared.payees);
        let open = payees.iter().filter_map(|((_, channel), tab)| Some(((*channel)?, (tab.promised(), tab.is_idle()))));
        tabs.extend(open);
        let is_needed = |id: &ChannelId, known: &Known| {
            // A voucher may say more than is there: to promise costs nothing.
            let pays = |promised: u128| promised.min(known.deposit).saturating_sub(known.redeemed);
            tabs.get(id).is_some_and(|(promised, idle)| !idle || pays(*promised) >= worth)
        };
        let gone = channels.gives_way(newcomer, is_needed);
        gone.inspect(|id| channels.remove(id));
        Ok(gone)
    }

    /// A buyer's ledger as it is now, for whoever shows it.
    pub fn sold_to(&self, buyer: &NodeId) -> Result<PayeeTab, StoreError> {
        self.sold_at(&(*buyer, None))
    }

    /// What `buyer` owes on a channel, likewise.
    pub fn sold_on(&self, buyer: &NodeId, channel: &ChannelId) -> Result<PayeeTab, StoreError> {
        self.sold_at(&(*buyer, Some(*channel)))
    }

    fn sold_at(&self, place: &Place) -> Result<PayeeTab, StoreError> {
        let open = lock(&self.shared.payees).get(place).cloned();
        open.map_or_else(|| self.shared.kept(place), Ok)
    }

    /// What we owe `worker` on a channel, likewise.
    pub fn bought_on(&self, worker: &NodeId, channel: &ChannelId) -> Result<PayerTab, StoreError> {
        self.bought_at(&(*worker, Some(*channel)))
    }

    /// What we owe `worker` on the ledger, likewise.
    pub fn bought_from(&self, worker: &NodeId) -> Result<PayerTab, StoreError> {
        self.bought_at(&(*worker, None))
    }

    fn bought_at(&self, place: &Place) -> Result<PayerTab, StoreError> {
        let open = lock(&self.shared.payers).get(place).cloned();
        open.map_or_else(|| self.shared.kept_payer(place), Ok)
    }

    /// Who pays on which channel, and what came of it: of this node's present key.
    pub fn all_sold_on_channels(&self) -> Result<Vec<(NodeId, ChannelId, PayeeTab)>, StoreError> {
        let places = self.places(Side::Sold)?;
        places.into_iter().map(|(buyer, channel)| Ok((buyer, channel, self.sold_on(&buyer, &channel)?))).collect()
    }

    /// Whom we pay on which channel, likewise.
    pub fn all_bought_on_channels(&self) -> Result<Vec<(NodeId, ChannelId, PayerTab)>, StoreError> {
        let places = self.places(Side::Bought)?;
        places.into_iter().map(|(worker, channel)| Ok((worker, channel, self.bought_on(&worker, &channel)?))).collect()
    }

    /// The channels that ever had a tab.
    fn places(&self, side: Side) -> Result<Vec<(NodeId, ChannelId)>, StoreError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = self.shared.store.tabs(side, &self.shared.key.id(), after.as_ref())?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            after = Some(*last);
            found.extend(page.iter().filter_map(|(of, _)| Some((of.other, of.channel?))));
        }
    }

    /// All buyers' ledgers as they are now.
    pub fn all_sold(&self) -> Result<BTreeMap<NodeId, PayeeTab>, StoreError> {
        let mut all = all_kept(&*self.shared.store, &self.shared.us)?;
        let open = lock(&self.shared.payees);
        all.extend(open.iter().filter(|((_, channel), _)| channel.is_none()).map(|((buyer, _), tab)| (*buyer, tab.clone())));
        Ok(all)
    }

    /// Writes what was really promised, when the node stops.
    pub async fn close(&self) {
        let records: Vec<_> = {
            let payers = lock(&self.shared.payers);
            let idle = payers.iter().filter_map(|(place, tab)| Some((*place, tab.record()?)));
            idle.map(|(place, record)| written(self.shared.keep(Side::Bought, &place, record))).collect()
        };
        futures::future::join_all(records).await;
    }
}

/// A job that is about to be sold.
#[derive(Debug, Clone, Copy)]
pub struct Sale<'a> {
    /// Who buys.
    pub buyer: NodeId,
    /// The job.
    pub job: JobId,
    /// What it may cost.
    pub most: MicroUsd,
    /// Tokens of output it may have.
    pub tokens: u32,
    /// What came with it: the first payment says on which channel it is paid.
    pub payment: Option<&'a Payment>,
    /// Units of that channel for a micro-USD, as its accept says.
    pub rate: u128,
}

/// Where the payments for one job come in. Dropped, the job came to what was paid.
pub struct Till {
    tabs: Tabs,
    place: Place,
    /// Who pays.
    signer: Signer,
    /// Chain, contract and channel that its vouchers name.
    agreed: (u64, EvmAddress, ChannelId),
    paid_on: Option<PaidOn>,
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
        if (claim.chain, claim.contract, claim.channel) != self.agreed {
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
        let is_higher = |amount: u128| lock(&shared.payees).get(&self.place).is_none_or(|tab| amount > tab.promised());
        let verified = if is_higher(claim.amount) { Some(voucher.verify_by(&self.signer)?) } else { None };
        let mut payees = lock(&shared.payees);
        let tab = payees.get_mut(&self.place).ok_or(BadPayment::NoJob)?;
        if tab.take(&self.job, claim.amount, verified, payment.paid)? {
            self.keeping = Some(shared.keep(Side::Sold, &self.place, tab.record()));
            self.on_the_way = payment.paid;
        }
        self.taken = payment.paid;
        Ok(())
    }

    /// The channel on which it is paid; `None`: on the ledger.
    pub fn paid_on(&self) -> Option<PaidOn> {
        self.paid_on
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
        let Some(tab) = payees.get_mut(&self.place) else { return std::future::ready(()).boxed() };
        tab.end(&self.job, amount);
        written(shared.keep(Side::Sold, &self.place, tab.record())).boxed()
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
        let Some(tab) = payees.get_mut(&self.place) else { return };
        tab.settle(&self.job, amount, agreed);
        let keeping = shared.keep(Side::Sold, &self.place, tab.record());
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
    place: Place,
    funds: Funds,
    paid_on: Option<PaidOn>,
    job: JobId,
    paid: MicroUsd,
    open: bool,
}

impl Payer {
    /// The channel on which it is paid; `None`: on the ledger.
    pub fn paid_on(&self) -> Option<PaidOn> {
        self.paid_on
    }

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
                let tab = match payers.entry(self.place) {
                    Entry::Occupied(tab) => tab.into_mut(),
                    Entry::Vacant(free) => free.insert(shared.kept_payer(&self.place)?),
                };
                match tab.pay(self.job, paid, self.funds) {
                    Authorise::Ready { amount, more } => {
                        if let Some(total) = more {
                            self.authorise_later(total, shared.keep(Side::Bought, &self.place, tab.ahead(total)));
                        }
                        break amount;
                    }
                    Authorise::First(total) => (total, shared.keep(Side::Bought, &self.place, tab.ahead(total))),
                    Authorise::Refused => return Err(NotPaid::Amount(paid)),
                }
            };
            keeping.await?;
            if let Some(tab) = lock(&shared.payers).get_mut(&self.place) {
                tab.authorised(total);
            }
        };
        self.paid = paid;
        let (chain, contract, channel) =
            named(self.paid_on, || ledger_channel(&shared.network, &shared.key.id(), &self.place.0));
        let voucher = Voucher { chain, contract, channel, job: self.job, amount };
        // Only a chain without a contract is refused, and an amount of more than 64 bits.
        let signed = SignedVoucher::sign(&shared.key, voucher).map_err(|_| NotPaid::Amount(paid))?;
        Ok(Payment { voucher: ByteBuf::from(signed.encode()), paid })
    }

    fn authorise_later(&self, total: u128, keeping: BoxFuture<'static, Result<(), StoreError>>) {
        let (shared, place) = (self.tabs.shared.clone(), self.place);
        tokio::spawn(async move {
            match keeping.await {
                Ok(()) => {
                    if let Some(tab) = lock(&shared.payers).get_mut(&place) {
                        tab.authorised(total);
                    }
                }
                Err(error) => warn!("can't keep a tab: {error}"),
            }
        });
    }

    /// Lets go of a tab on which no job runs, beyond a number.
    fn make_room(&self, payers: &mut BTreeMap<Place, PayerTab>) {
        if payers.len() < MAX_OPEN || payers.contains_key(&self.place) {
            return;
        }
        let idle = payers.iter().find_map(|(place, tab)| Some((*place, tab.record()?)));
        if let Some((place, record)) = idle {
            payers.remove(&place);
            // Queued before it can be read again.
            write(self.tabs.shared.keep(Side::Bought, &place, record));
        }
    }

    /// The job came to `owed`, as both have signed, or as the worker has said that it is free; `None`: nobody knows.
    pub fn close(mut self, owed: Option<MicroUsd>) {
        self.end(owed);
    }

    fn end(&mut self, owed: Option<MicroUsd>) {
        if std::mem::take(&mut self.open)
            && let Some(tab) = lock(&self.tabs.shared.payers).get_mut(&self.place)
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

#[cfg(test)]
mod tests;
