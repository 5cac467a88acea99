//! Receipts that count, and their sums: by hour, by worker, by model, by pair.
//!
//! A job and worker have one receipt: the one that both signed before one that only the worker did, and of two statements the
//! later, as [`crate::store::ReceiptPut::decide`] has it. Of all, those that both signed are kept before others, and then the
//! newest by their end: by the same order, or it would matter who came first. Names are kept once and numbered, since a receipt
//! is mostly names.

use super::ReceiptFact;
use infernet_node::date::{DAY_MS, HOUR_MS};
use infernet_wire::{
    id::{Hash, JobId, NodeId},
    money::MicroUsd,
    receipt::JobStatus,
    time::UnixMillis,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash as StdHash,
    ops::{AddAssign, SubAssign},
    sync::Arc,
};

/// Receipts that are kept: half a million are some 120 MB, and months of a network that earns its workers a living. The store
/// has all of them.
pub(super) const MAX_TRADES: usize = 500_000;

/// Sums of receipts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Receipts that both signed.
    pub jobs: u64,
    /// Of those, of jobs that were completed.
    pub completed: u64,
    /// Input tokens of jobs that both signed.
    pub input_tokens: u64,
    /// And output tokens.
    pub output_tokens: u64,
    /// And what they cost.
    pub amount: u64,
    /// And how long they took, in milliseconds.
    pub busy_ms: u64,
    /// Receipts that only the worker signed.
    pub unsettled: u64,
}

impl Sums {
    /// Tokens a second while at work; `None` if nothing was measured.
    pub fn tokens_per_second(&self) -> Option<f64> {
        (self.busy_ms > 0).then(|| self.output_tokens as f64 * 1000.0 / self.busy_ms as f64)
    }

    /// What was paid.
    pub fn paid(&self) -> MicroUsd {
        MicroUsd(self.amount)
    }

    fn is_zero(&self) -> bool {
        *self == Sums::default()
    }

    fn of(trade: &ReceiptFact) -> Self {
        if !trade.is_settled {
            return Sums { unsettled: 1, ..Sums::default() };
        }
        Sums {
            jobs: 1,
            completed: u64::from(trade.status == JobStatus::COMPLETED),
            input_tokens: trade.input_tokens.into(),
            output_tokens: trade.output_tokens.into(),
            amount: trade.amount.0,
            busy_ms: trade.finished.since(trade.started),
            unsettled: 0,
        }
    }
}

impl AddAssign for Sums {
    /// Wraps, as a ring: what is taken off again leaves what was there, whatever hostile numbers came between.
    fn add_assign(&mut self, other: Self) {
        self.jobs = self.jobs.wrapping_add(other.jobs);
        self.completed = self.completed.wrapping_add(other.completed);
        self.input_tokens = self.input_tokens.wrapping_add(other.input_tokens);
        self.output_tokens = self.output_tokens.wrapping_add(other.output_tokens);
        self.amount = self.amount.wrapping_add(other.amount);
        self.busy_ms = self.busy_ms.wrapping_add(other.busy_ms);
        self.unsettled = self.unsettled.wrapping_add(other.unsettled);
    }
}

impl SubAssign for Sums {
    fn sub_assign(&mut self, other: Self) {
        self.jobs = self.jobs.wrapping_sub(other.jobs);
        self.completed = self.completed.wrapping_sub(other.completed);
        self.input_tokens = self.input_tokens.wrapping_sub(other.input_tokens);
        self.output_tokens = self.output_tokens.wrapping_sub(other.output_tokens);
        self.amount = self.amount.wrapping_sub(other.amount);
        self.busy_ms = self.busy_ms.wrapping_sub(other.busy_ms);
        self.unsettled = self.unsettled.wrapping_sub(other.unsettled);
    }
}

/// Names, each kept once while somebody uses it.
#[derive(Debug)]
struct Names<T> {
    numbers: HashMap<T, (u32, u32)>,
    names: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Names { numbers: HashMap::new(), names: Vec::new(), free: Vec::new() }
    }
}

impl<T: StdHash + Eq + Clone> Names<T> {
    /// The number of a name that is used once more.
    fn hold(&mut self, name: &T) -> u32 {
        if let Some((number, users)) = self.numbers.get_mut(name) {
            *users += 1;
            return *number;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.names.push(None);
            // Fewer names than trades, of which there are fewer than four billion.
            (self.names.len() - 1) as u32
        });
        if let Some(place) = self.names.get_mut(number as usize) {
            *place = Some(name.clone());
        }
        self.numbers.insert(name.clone(), (number, 1));
        number
    }

    fn release(&mut self, number: u32) {
        let Some(name) = self.get(number).cloned() else { return };
        let users = self.numbers.get_mut(&name).map(|(_, users)| {
            *users -= 1;
            *users
        });
        if users == Some(0) {
            self.numbers.remove(&name);
            if let Some(place) = self.names.get_mut(number as usize) {
                *place = None;
            }
            self.free.push(number);
        }
    }

    fn get(&self, number: u32) -> Option<&T> {
        self.names.get(number as usize).and_then(Option::as_ref)
    }

    fn number(&self, name: &T) -> Option<u32> {
        self.numbers.get(name).map(|(number, _)| *number)
    }
}

/// One receipt as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    digest: Hash,
    buyer: u32,
    model: u32,
    input_tokens: u32,
    output_tokens: u32,
    amount: MicroUsd,
    started: UnixMillis,
    finished: UnixMillis,
    status: JobStatus,
    is_settled: bool,
}

/// What is summed of one worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfWorker {
    all: Sums,
    days: BTreeMap<u64, Sums>,
    buyers: BTreeMap<NodeId, Sums>,
    models: BTreeMap<Arc<str>, Sums>,
    newest: BTreeSet<(UnixMillis, JobId)>,
}

/// Whether both signed, when the job ended, whose it is: the first are let go first.
type Order = (bool, UnixMillis, JobId, NodeId);

/// What is summed of one buyer: with whom it has traded.
type OfBuyer = BTreeMap<NodeId, u64>;

/// Receipts and their sums. See the module.
#[derive(Debug)]
pub struct Ledger {
    bound: usize,
    nodes: Names<NodeId>,
    models: Names<Arc<str>>,
    trades: BTreeMap<(JobId, u32), Kept>,
    by_digest: BTreeSet<(u64, JobId, NodeId)>,
    order: BTreeSet<Order>,
    all: Sums,
    hours: BTreeMap<u64, Sums>,
    by_worker: BTreeMap<NodeId, OfWorker>,
    by_model: BTreeMap<Arc<str>, Sums>,
    by_buyer: BTreeMap<NodeId, OfBuyer>,
}

impl Ledger {
    pub(super) fn bounded(bound: usize) -> Self {
        Ledger {
            bound,
            nodes: Names::default(),
            models: Names::default(),
            trades: BTreeMap::new(),
            by_digest: BTreeSet::new(),
            order: BTreeSet::new(),
            all: Sums::default(),
            hours: BTreeMap::new(),
            by_worker: BTreeMap::new(),
            by_model: BTreeMap::new(),
            by_buyer: BTreeMap::new(),
        }
    }

    /// Takes in a receipt. Whether it is among those kept now.
    pub(super) fn put(&mut self, new: ReceiptFact) -> bool {
        // A key that trades with itself has done nothing for anybody.
        if new.worker == new.buyer {
            return false;
        }
        if let Some(kept) = self.get(&new.job, &new.worker) {
            if (new.is_settled, new.finished, new.digest) <= (kept.is_settled, kept.finished, kept.digest) {
                return false;
            }
            self.remove(&kept);
        }
        let (job, worker) = (new.job, new.worker);
        self.insert(new);
        while self.order.len() > self.bound {
            let oldest = self.order.first().copied().and_then(|(_, _, job, worker)| self.get(&job, &worker));
            match oldest {
                Some(oldest) => self.remove(&oldest),
                None => break,
            }
        }
        self.get(&job, &worker).is_some()
    }

    fn insert(&mut self, new: ReceiptFact) {
        let worker = self.nodes.hold(&new.worker);
        let kept = Kept {
            digest: new.digest,
            buyer: self.nodes.hold(&new.buyer),
            model: self.models.hold(&new.model),
            input_tokens: new.input_tokens,
            output_tokens: new.output_tokens,
            amount: new.amount,
            started: new.started,
            finished: new.finished,
            status: new.status,
            is_settled: new.is_settled,
        };
        self.trades.insert((new.job, worker), kept);
        self.order.insert((new.is_settled, new.finished, new.job, new.worker));
        self.by_digest.insert((beginning(&new.digest), new.job, new.worker));
        if let Some(trade) = self.get(&new.job, &new.worker) {
            self.count(&trade, |sums, one| *sums += one);
            self.by_worker.entry(trade.worker).or_default().newest.insert((trade.finished, trade.job));
            if trade.is_settled {
                *self.by_buyer.entry(trade.buyer).or_default().entry(trade.worker).or_default() += 1;
            }
        }
    }

    fn remove(&mut self, trade: &ReceiptFact) {
        let Some(worker) = self.nodes.number(&trade.worker) else { return };
        let Some(kept) = self.trades.remove(&(trade.job, worker)) else { return };
        self.order.remove(&(trade.is_settled, trade.finished, trade.job, trade.worker));
        self.by_digest.remove(&(beginning(&trade.digest), trade.job, trade.worker));
        self.count(trade, |sums, one| *sums -= one);
        if let Some(of) = self.by_worker.get_mut(&trade.worker) {
            of.newest.remove(&(trade.finished, trade.job));
            if of.newest.is_empty() {
                self.by_worker.remove(&trade.worker);
            }
        }
        if trade.is_settled {
            self.forget_pair(trade);
        }
        self.nodes.release(worker);
        self.nodes.release(kept.buyer);
        self.models.release(kept.model);
    }

    fn forget_pair(&mut self, trade: &ReceiptFact) {
        let Some(with) = self.by_buyer.get_mut(&trade.buyer) else { return };
        let left = with.get_mut(&trade.worker).map_or(0, |jobs| {
            *jobs -= 1;
            *jobs
        });
        if left == 0 {
            with.remove(&trade.worker);
        }
        if with.is_empty() {
            self.by_buyer.remove(&trade.buyer);
        }
    }

    /// Applies one receipt to all sums that it is in; sums of nothing are let go.
    fn count(&mut self, trade: &ReceiptFact, change: impl Fn(&mut Sums, Sums)) {
        fn at<K: Ord + Clone>(sums: &mut BTreeMap<K, Sums>, key: &K, one: Sums, change: &impl Fn(&mut Sums, Sums)) {
            let sum = sums.entry(key.clone()).or_default();
            change(sum, one);
            if sum.is_zero() {
                sums.remove(key);
            }
        }
        let one = Sums::of(trade);
        change(&mut self.all, one);
        at(&mut self.hours, &(trade.finished.0 / HOUR_MS), one, &change);
        at(&mut self.by_model, &trade.model, one, &change);
        let of = self.by_worker.entry(trade.worker).or_default();
        change(&mut of.all, one);
        at(&mut of.days, &(trade.finished.0 / DAY_MS), one, &change);
        at(&mut of.buyers, &trade.buyer, one, &change);
        at(&mut of.models, &trade.model, one, &change);
    }

    /// The receipt of a job and worker.
    pub fn get(&self, job: &JobId, worker: &NodeId) -> Option<ReceiptFact> {
        let kept = self.trades.get(&(*job, self.nodes.number(worker)?))?;
        Some(ReceiptFact {
            job: *job,
            worker: *worker,
            buyer: *self.nodes.get(kept.buyer)?,
            digest: kept.digest,
            is_settled: kept.is_settled,
            model: self.models.get(kept.model)?.clone(),
            input_tokens: kept.input_tokens,
            output_tokens: kept.output_tokens,
            amount: kept.amount,
            started: kept.started,
            finished: kept.finished,
            status: kept.status,
        })
    }

    /// The receipts of a job: one of each worker that did a part of it.
    pub fn of_job<'a>(&'a self, job: &'a JobId) -> impl Iterator<Item = ReceiptFact> + 'a {
        let workers = self.trades.range((*job, 0)..=(*job, u32::MAX)).filter_map(|((_, worker), _)| self.nodes.get(*worker));
        workers.filter_map(|worker| self.get(job, worker))
    }

    /// The receipt whose statement has this digest.
    pub fn by_digest(&self, digest: &Hash) -> Option<ReceiptFact> {
        let begins = (beginning(digest), JobId([0; 16]), NodeId([0; 33]));
        let alike = self.by_digest.range(begins..).take_while(|(beginning, ..)| *beginning == begins.0);
        alike.filter_map(|(_, job, worker)| self.get(job, worker)).find(|trade| trade.digest == *digest)
    }

    /// How many receipts are kept.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Receipts by their end, the newest first.
    pub fn newest(&self) -> impl Iterator<Item = ReceiptFact> + '_ {
        let begin = (true, UnixMillis(0), JobId([0; 16]), NodeId([0; 33]));
        let (mut settled, mut others) =
            (self.order.range(begin..).rev().peekable(), self.order.range(..begin).rev().peekable());
        let end = |order: Option<&&Order>| order.map(|(_, finished, job, worker)| (*finished, *job, *worker));
        let next = move || if end(settled.peek()) > end(others.peek()) { settled.next() } else { others.next() };
        std::iter::from_fn(next).filter_map(|(_, _, job, worker)| self.get(job, worker))
    }

    /// Receipts of one worker, the newest first.
    pub fn newest_of<'a>(&'a self, worker: &'a NodeId) -> impl Iterator<Item = ReceiptFact> + 'a {
        let jobs = self.by_worker.get(worker).into_iter().flat_map(|of| of.newest.iter().rev());
        jobs.filter_map(|(_, job)| self.get(job, worker))
    }

    /// Sums of all.
    pub fn all(&self) -> Sums {
        self.all
    }

    /// Sums of each hour since 1970 from `hour` on, those without a receipt left out.
    pub fn hours(&self, from: u64) -> impl Iterator<Item = (u64, Sums)> + '_ {
        self.hours.range(from..).map(|(hour, sums)| (*hour, *sums))
    }

    /// Sums of each model.
    pub fn by_model(&self) -> impl Iterator<Item = (&Arc<str>, Sums)> {
        self.by_model.iter().map(|(model, sums)| (model, *sums))
    }

    /// Those who have worked.
    pub fn workers(&self) -> impl Iterator<Item = &NodeId> {
        self.by_worker.keys()
    }

    /// Sums of one worker.
    pub fn of(&self, worker: &NodeId) -> Sums {
        self.by_worker.get(worker).map(|of| of.all).unwrap_or_default()
    }

    /// Sums of one worker by day since 1970, from `day` on.
    pub fn days_of(&self, worker: &NodeId, from: u64) -> impl Iterator<Item = (u64, Sums)> + '_ {
        let days = self.by_worker.get(worker).into_iter().flat_map(move |of| of.days.range(from..));
        days.map(|(day, sums)| (*day, *sums))
    }

    /// Sums of one worker by model.
    pub fn models_of(&self, worker: &NodeId) -> impl Iterator<Item = (&Arc<str>, Sums)> {
        self.by_worker.get(worker).into_iter().flat_map(|of| &of.models).map(|(model, sums)| (model, *sums))
    }

    /// Sums of one worker by buyer.
    pub fn buyers_of(&self, worker: &NodeId) -> impl Iterator<Item = (&NodeId, Sums)> {
        self.by_worker.get(worker).into_iter().flat_map(|of| &of.buyers).map(|(buyer, sums)| (buyer, *sums))
    }

    /// With how many workers a buyer has settled.
    pub fn partners(&self, buyer: &NodeId) -> usize {
        self.by_buyer.get(buyer).map_or(0, BTreeMap::len)
    }

    /// Whether `buyer` has settled a job with `worker`.
    pub fn has_bought(&self, buyer: &NodeId, worker: &NodeId) -> bool {
        self.by_buyer.get(buyer).is_some_and(|with| with.contains_key(worker))
    }
}

/// A digest's first bytes, which seldom two have in common.
fn beginning(digest: &Hash) -> u64 {
    digest.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
