//! Group commit: many callers, one sync.
//!
//! Callers put records into a bounded queue and wait. One thread takes whatever has queued up, writes it to the journal, syncs
//! once, brings the index up to date, and wakes those who waited. While it waits for the disk the next batch gathers by itself,
//! so nothing is delayed to make batches larger, and a lone caller waits for its own sync only.
//!
//! What a record changes is decided when it is queued, under the lock, so decision and order are one. Until the index has
//! a record, [`State::newest`] answers for it. The thread ends when the [`Committer`] is dropped, after the last queued record.
//!
//! An index that can't be written (sled needs room, too, and fails for good without) is put away, and opened again and brought
//! up to date every few seconds until that works. Meanwhile receipts go to the journal as ever, and new work is refused.

use super::{
    Commits, Index, StoreError,
    journal::{Health, Journal, JournalError},
    record::{Key, MAX_BODY, MAX_SUBJECT, Record},
};
use crate::{clock, metrics::Histogram};
use futures::channel::oneshot;
use std::{
    collections::BTreeMap,
    mem,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tracing::{error, info, warn};

/// Callers that wait at once: more than the node has blocking threads and jobs, so none is refused unless the disk hangs.
const MAX_WAITING: usize = 8_192;
/// Records written with one sync: some megabytes at most, so a segment stays about as large as it should be.
const MAX_BATCH: usize = 2_048;
/// How often a full disk, and an index that failed, are tried again.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };

/// Seconds of a commit: a good disk syncs in one to four milliseconds, a bad one takes a second.
const COMMIT_SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 4.096];

/// Resolves when what was queued is durable, or will not be.
pub(super) type Durable = oneshot::Receiver<Outcome>;

/// See the module.
pub(super) struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Opens the index again and brings it up to date with the journal.
pub(super) type Reopen = Box<dyn FnMut(&mut Journal) -> Result<Index, StoreError> + Send>;

struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    index: RwLock<Result<Arc<Index>, StoreError>>,
    place: PathBuf,
}

/// What callers and the thread share.
pub(super) struct State {
    /// The number of the newest record that was queued.
    last: u64,
    waiting: Vec<Waiter>,
    /// The number of the newest record that is durable.
    durable: u64,
    /// The newest queued record of each subject that is not in the index yet.
    pending: BTreeMap<Key, Pending>,
    health: Health,
    /// Why there is no index at the moment.
    index_failed: Option<StoreError>,
    stopping: bool,
    place: PathBuf,
    commits: Commits,
}

type Done = oneshot::Sender<Outcome>;

type Outcome = Result<(), StoreError>;

/// One place in the queue.
struct Waiter {
    /// `None` for one that only waits for what was queued before.
    record: Option<Record>,
    done: Done,
}

/// A record on its way.
struct Pending {
    record: Record,
    /// Others that wait for the same.
    also: Vec<Done>,
}

impl State {
    /// The newest record about `key` that is on its way to the disk.
    pub(super) fn newest(&self, key: &Key) -> Option<&Record> {
        self.pending.get(key).map(|pending| &pending.record)
    }

    /// Queues a record.
    pub(super) fn queue(&mut self, mut record: Record) -> Result<Durable, StoreError> {
        if let Some(refusal) = self.failure() {
            return Err(refusal);
        }
        if record.body.len() > MAX_BODY || record.subject.len() > MAX_SUBJECT {
            return Err(StoreError::TooLarge(record.body.len()));
        }
        record.number = self.last + 1;
        let durable = self.wait(Some(record.clone()))?;
        self.last = record.number;
        // Whoever waits for an older one about the same subject waits for this one.
        let also = self.pending.remove(&record.key()).map(|older| older.also).unwrap_or_default();
        self.pending.insert(record.key(), Pending { record, also });
        Ok(durable)
    }

    /// Waits for the newest record about `key`; resolves at once if it is durable.
    pub(super) fn join(&mut self, key: &Key) -> Durable {
        let (done, durable) = oneshot::channel();
        match self.pending.get_mut(key).filter(|pending| pending.record.number > self.durable) {
            Some(pending) => pending.also.push(done),
            None => drop(done.send(Ok(()))),
        }
        durable
    }

    /// What was written so far.
    pub(super) fn commits(&self) -> Commits {
        self.commits.clone()
    }

    /// Waits for all that was queued before.
    pub(super) fn barrier(&mut self) -> Result<Durable, StoreError> {
        self.wait(None)
    }

    /// Whether new work may rely on this store.
    pub(super) fn accepts_work(&self) -> Result<(), StoreError> {
        match (&self.health, &self.index_failed) {
            (Health::Full, _) => Err(StoreError::Full { path: self.place.clone() }),
            (Health::Failed(_), _) => self.failure().map_or(Ok(()), Err),
            (Health::Good, Some(error)) => Err(error.clone()),
            (Health::Good, None) => Ok(()),
        }
    }

    fn failure(&self) -> Option<StoreError> {
        match &self.health {
            Health::Failed(reason) => Some(StoreError::Failed { path: self.place.clone(), reason: reason.clone() }),
            Health::Good | Health::Full => None,
        }
    }

    fn wait(&mut self, record: Option<Record>) -> Result<Durable, StoreError> {
        if self.waiting.len() >= MAX_WAITING || self.pending.len() >= MAX_WAITING {
            return Err(StoreError::Busy(self.waiting.len()));
        }
        let (done, durable) = oneshot::channel();
        self.waiting.push(Waiter { record, done });
        Ok(durable)
    }

    /// What became of the records up to `upto`; returns who else waited for them.
    fn settle(&mut self, upto: u64, written: &Outcome, indexed: Outcome, health: &Health) -> Vec<Done> {
        self.health = health.clone();
        let settled = self.pending.values_mut().filter(|pending| pending.record.number <= upto);
        let also = settled.flat_map(|pending| mem::take(&mut pending.also)).collect();
        if written.is_ok() {
            self.durable = self.durable.max(upto);
        }
        self.index_failed = indexed.err();
        // What was refused is as if it had never been queued; what is not in the index yet is needed here.
        let keeps_all = written.is_ok() && self.index_failed.is_some();
        self.pending.retain(|_, pending| keeps_all || pending.record.number > upto || pending.record.number <= self.durable);
        if self.index_failed.is_none() {
            self.forget_durable();
        }
        also
    }

    /// The index has all that is durable.
    fn forget_durable(&mut self) {
        self.pending.retain(|_, pending| pending.record.number > self.durable);
    }
}

impl Committer {
    /// Starts the thread. `journal` and `index` agree; `reopen` makes another index should this one fail.
    pub(super) fn start(journal: Journal, index: Index, reopen: Reopen, place: PathBuf) -> Result<Self, StoreError> {
        let state = State {
            last: journal.last(),
            durable: journal.last(),
            waiting: Vec::new(),
            pending: BTreeMap::new(),
            health: journal.health().clone(),
            index_failed: None,
            stopping: false,
            place: place.clone(),
            commits: Commits { records: 0, seconds: Histogram::new(COMMIT_SECONDS) },
        };
        let index = RwLock::new(Ok(Arc::new(index)));
        let shared = Arc::new(Shared { state: Mutex::new(state), arrived: Condvar::new(), index, place: place.clone() });
        let writer = Writer { shared: shared.clone(), journal, reopen, tried: clock::instant() };
        let thread = thread::Builder::new().name("journal".into()).spawn(move || writer.run());
        let thread = thread.map_err(|error| StoreError::Io { path: place, reason: error.to_string() })?;
        Ok(Committer { shared, thread: Some(thread) })
    }

    /// The index; an error while there is none.
    pub(super) fn index(&self) -> Result<Arc<Index>, StoreError> {
        self.shared.index()
    }

    /// Decides and queues in one: nothing else is queued meanwhile. What is queued is written when the guard is dropped.
    pub(super) fn lock(&self) -> Queueing<'_> {
        Queueing { state: self.shared.lock(), arrived: &self.shared.arrived }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.lock().stopping = true;
        // A panic of the thread has been told by its hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The locked queue; wakes the thread when it is dropped.
pub(super) struct Queueing<'a> {
    state: MutexGuard<'a, State>,
    arrived: &'a Condvar,
}

impl std::ops::Deref for Queueing<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for Queueing<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Queueing<'_> {
    fn drop(&mut self) {
        if !self.state.waiting.is_empty() || self.state.stopping {
            self.arrived.notify_one();
        }
    }
}

impl Shared {
    /// A panic while it is held leaves a queue that is still a queue.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> Result<Arc<Index>, StoreError> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_index(&self, index: Result<Arc<Index>, StoreError>) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = index;
    }

    /// The next batch; empty when it is time to try again what failed, `None` at the end.
    fn next_batch(&self) -> Option<Vec<Waiter>> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.stopping {
                return None;
            }
            if state.health == Health::Full || state.index_failed.is_some() {
                let (waited, timeout) = self.arrived.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner);
                state = waited;
                if timeout.timed_out() {
                    return Some(Vec::new());
                }
            } else {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let taken = state.waiting.len().min(MAX_BATCH);
        let rest = state.waiting.split_off(taken);
        Some(mem::replace(&mut state.waiting, rest))
    }
}

/// The thread's own.
struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    reopen: Reopen,
    /// When it last tried again what had failed.
    tried: Instant,
}

impl Writer {
    fn run(mut self) {
        while let Some(mut batch) = self.shared.next_batch() {
            let records: Vec<Record> = batch.iter_mut().filter_map(|waiter| waiter.record.take()).collect();
            if !batch.is_empty() {
                self.commit(&records, batch);
            }
            if self.tried.elapsed() >= RETRY {
                self.tried = clock::instant();
                self.try_again();
            }
        }
    }

    fn commit(&mut self, records: &[Record], batch: Vec<Waiter>) {
        let upto = records.last().map_or(0, |record| record.number);
        let started = clock::instant();
        let written = self.journal.append(records).map_err(|error| self.refusal(&error));
        let took = started.elapsed();
        let indexed = if written.is_ok() { self.bring_up_to_date(records) } else { self.shared.index().map(|_| ()) };
        let mut state = self.shared.lock();
        if written.is_ok() && !records.is_empty() {
            state.commits.records += records.len() as u64;
            state.commits.seconds.observe(took.as_secs_f64());
        }
        let also = state.settle(upto, &written, indexed, self.journal.health());
        drop(state);
        let waited = batch.into_iter().map(|waiter| waiter.done).chain(also);
        // Who does not wait any more has its record all the same.
        waited.for_each(|done| drop(done.send(written.clone())));
    }

    /// An index that has failed once would skip records: it is put away.
    fn bring_up_to_date(&self, records: &[Record]) -> Outcome {
        let applied = self.shared.index()?.apply(records);
        if let Err(failed) = &applied {
            warn!("the store's index can't be written; receipts are kept in the journal, new work waits: {failed}");
            self.shared.set_index(Err(failed.clone()));
        }
        applied
    }

    /// Looks for room if the disk was full, and for an index if there is none.
    fn try_again(&mut self) {
        self.journal.try_recover();
        if self.shared.index().is_err() {
            match (self.reopen)(&mut self.journal) {
                Ok(index) => {
                    info!("the store's index is back");
                    self.shared.set_index(Ok(Arc::new(index)));
                }
                Err(error) => self.shared.set_index(Err(error)),
            }
        }
        let mut state = self.shared.lock();
        state.health = self.journal.health().clone();
        state.index_failed = self.shared.index().err();
        if state.index_failed.is_none() {
            state.forget_durable();
        }
    }

    fn refusal(&self, error: &JournalError) -> StoreError {
        let path = self.shared.place.clone();
        match error {
            JournalError::Full => StoreError::Full { path },
            JournalError::Failed(reason) | JournalError::Corrupt(reason) => {
                error!("the journal accepts nothing any more: {reason}");
                StoreError::Failed { path, reason: reason.clone() }
            }
            JournalError::Io(error) => StoreError::Io { path, reason: error.to_string() },
        }
    }
}

#[cfg(test)]
impl Committer {
    /// Puts the index away, as after a failed write.
    pub(super) fn lose_index(&self, error: &StoreError) {
        self.shared.set_index(Err(error.clone()));
        self.lock().index_failed = Some(error.clone());
        self.shared.arrived.notify_one();
    }
}
