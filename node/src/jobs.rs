//! Jobs of this node, bought and sold, as they run: for `infernet jobs` and `infernet status`.
//!
//! Whoever runs a job [begins](Jobs::begin) it here and notes its steps; whoever shows jobs takes a copy. A token costs one
//! atomic store. All of it is in memory, bounded, and gone with the process: receipts are what lasts. It holds no prompt, no
//! answer, and of an error only its label, since an error's text may quote either.

use crate::clock;
use infernet_wire::{
    id::{JobId, NodeId},
    money::MicroUsd,
    receipt::{JobStatus, SignedReceipt},
    time::UnixMillis,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

/// Ended jobs remembered: some screens, in less than 100 kB.
pub const MAX_ENDED: usize = 256;
/// Running jobs shown: twice the most that one machine was ever measured with. Further ones run unseen.
pub const MAX_RUNNING: usize = 4_096;

/// On which side of a job this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It pays.
    Bought,
    /// It works.
    Sold,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A worker is looked for.
    Auction,
    /// A worker has it; no token yet.
    Opened,
    /// Tokens flow.
    Streaming,
    /// Done, and signed by both.
    Settled,
    /// Done or cut off, and not signed by the buyer.
    Unsigned,
    /// It failed.
    Failed,
    /// The buyer did not want it any more.
    Cancelled,
}

impl Role {
    /// As it is shown.
    pub fn label(self) -> &'static str {
        match self {
            Role::Bought => "bought",
            Role::Sold => "sold",
        }
    }
}

impl State {
    /// Whether it is over.
    pub fn is_ended(self) -> bool {
        matches!(self, State::Settled | State::Unsigned | State::Failed | State::Cancelled)
    }

    /// As it is shown.
    pub fn label(self) -> &'static str {
        match self {
            State::Auction => "auction",
            State::Opened => "opened",
            State::Streaming => "streaming",
            State::Settled => "settled",
            State::Unsigned => "unsigned",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }
}

/// A job as it is shown, and `infernet jobs --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobReport {
    /// The job.
    #[schemars(with = "String")]
    pub id: JobId,
    /// `bought` or `sold`.
    pub role: Role,
    /// `auction`, `opened`, `streaming`; `settled`, `unsigned`, `failed` or `cancelled`.
    pub state: State,
    /// The other side, once it is known.
    #[schemars(with = "Option<String>")]
    pub peer: Option<NodeId>,
    /// The model, as it was asked for.
    pub model: String,
    /// Output tokens so far.
    pub tokens: u32,
    /// When it began, in unix milliseconds.
    pub started: u64,
    /// For how long it has run, or ran, in milliseconds.
    pub ms: u64,
    /// From its begin to the first token, in milliseconds; absent before.
    pub ttft_ms: Option<u64>,
    /// Tokens per second after the first; absent if there were too few.
    pub tokens_per_second: Option<u32>,
    /// The charge in micro-USD, once it is known.
    pub amount_micro_usd: Option<u64>,
    /// How the stream goes.
    pub path: Option<String>,
    /// What kind of failure, if it failed.
    pub error: Option<String>,
}

impl JobReport {
    /// What a receipt tells of a job that is no longer in memory.
    pub fn of_receipt(signed: &SignedReceipt, role: Role) -> Self {
        let body = signed.receipt();
        let state = match body.status {
            JobStatus::CANCELLED => State::Cancelled,
            JobStatus::COMPLETED if signed.countersign().is_some() => State::Settled,
            JobStatus::COMPLETED => State::Unsigned,
            _ => State::Failed,
        };
        JobReport {
            id: body.job,
            role,
            state,
            peer: Some(if role == Role::Sold { body.buyer } else { body.worker }),
            model: body.model.clone(),
            tokens: body.output_tokens,
            started: body.started.0,
            ms: body.finished.since(body.started),
            ttft_ms: None,
            tokens_per_second: None,
            amount_micro_usd: Some(body.amount.0),
            path: None,
            error: None,
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Settled, unsigned, failed or cancelled.
    pub state: State,
    /// The charge, if there was one.
    pub amount: Option<MicroUsd>,
    /// A label from the code.
    pub error: Option<&'static str>,
}

impl Ended {
    /// Without a charge.
    pub fn free(state: State, error: Option<&'static str>) -> Self {
        Ended { state, amount: None, error }
    }
}

/// All jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Jobs {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    begun: u64,
    running: BTreeMap<u64, Arc<Job>>,
    ended: VecDeque<Arc<Job>>,
}

/// A job's place in the table.
#[derive(Debug)]
pub struct Job {
    id: JobId,
    role: Role,
    model: String,
    started: UnixMillis,
    tokens: AtomicU32,
    /// When the first token came; 0 before.
    first: AtomicU64,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    peer: Option<NodeId>,
    path: Option<String>,
    end: Option<(Ended, UnixMillis)>,
}

impl Job {
    /// A worker has it, or another one now, with no token yet.
    pub fn opened(&self, peer: NodeId, path: String) {
        self.tokens.store(0, Ordering::Relaxed);
        self.first.store(0, Ordering::Relaxed);
        let mut facts = lock(&self.facts);
        (facts.peer, facts.path) = (Some(peer), Some(path));
    }

    /// It goes on in another stream.
    pub fn went_on(&self, path: String) {
        lock(&self.facts).path = Some(path);
    }

    /// So many output tokens have come by now.
    pub fn tokens(&self, tokens: u32) {
        if self.tokens.swap(tokens, Ordering::Relaxed) == 0 && tokens > 0 {
            self.first.store(clock::now().0, Ordering::Relaxed);
        }
    }

    fn report(&self, now: UnixMillis) -> JobReport {
        let (tokens, first) = (self.tokens.load(Ordering::Relaxed), self.first.load(Ordering::Relaxed));
        let facts = lock(&self.facts);
        let until = facts.end.as_ref().map_or(now, |(_, at)| *at);
        let ended = facts.end.as_ref().map(|(ended, _)| *ended);
        JobReport {
            id: self.id,
            role: self.role,
            state: match ended {
                Some(ended) => ended.state,
                None if tokens > 0 => State::Streaming,
                None if facts.peer.is_some() => State::Opened,
                None => State::Auction,
            },
            peer: facts.peer,
            model: self.model.clone(),
            tokens,
            started: self.started.0,
            ms: until.since(self.started),
            ttft_ms: (first > 0).then(|| UnixMillis(first).since(self.started)),
            tokens_per_second: if first > 0 { speed(tokens, until.since(UnixMillis(first))) } else { None },
            amount_micro_usd: ended.and_then(|ended| ended.amount).map(|amount| amount.0),
            path: facts.path.clone(),
            error: ended.and_then(|ended| ended.error).map(str::to_owned),
        }
    }
}

/// Tokens per second, the first one's wait left out.
fn speed(tokens: u32, ms: u64) -> Option<u32> {
    let after_first = u64::from(tokens.checked_sub(1).filter(|n| *n > 0)?);
    u32::try_from((after_first * 1_000).checked_div(ms)?).ok()
}

/// A job that runs: dropped without an [end](Running::end), it was cancelled.
#[derive(Debug)]
pub struct Running {
    jobs: Jobs,
    place: u64,
    job: Arc<Job>,
}

impl Running {
    /// Its place in the table, to note steps from elsewhere.
    pub fn job(&self) -> Arc<Job> {
        self.job.clone()
    }

    /// It is over.
    pub fn end(self, ended: Ended) {
        self.set_end(ended);
    }

    /// The first end counts.
    fn set_end(&self, ended: Ended) {
        lock(&self.job.facts).end.get_or_insert((ended, clock::now()));
    }
}

impl std::ops::Deref for Running {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.set_end(Ended::free(State::Cancelled, None));
        let mut table = lock(&self.jobs.table);
        if table.running.remove(&self.place).is_some() {
            if table.ended.len() >= MAX_ENDED {
                table.ended.pop_front();
            }
            table.ended.push_back(self.job.clone());
        }
    }
}

impl Jobs {
    /// A job begins.
    pub fn begin(&self, role: Role, id: JobId, model: String) -> Running {
        let (tokens, first, facts) = (AtomicU32::new(0), AtomicU64::new(0), Mutex::default());
        let job = Arc::new(Job { id, role, model, started: clock::now(), tokens, first, facts });
        let mut table = lock(&self.table);
        table.begun += 1;
        let place = table.begun;
        if table.running.len() < MAX_RUNNING {
            table.running.insert(place, job.clone());
        }
        Running { jobs: self.clone(), place, job }
    }

    /// Those that run, then those that ended, each the newest first; at most `limit`.
    pub fn list(&self, limit: usize, now: UnixMillis) -> Vec<JobReport> {
        let shown: Vec<Arc<Job>> = {
            let table = lock(&self.table);
            table.running.values().rev().chain(table.ended.iter().rev()).take(limit).cloned().collect()
        };
        shown.iter().map(|job| job.report(now)).collect()
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(jobs: &Jobs, n: u8) -> Running {
        jobs.begin(Role::Sold, JobId([n; 16]), "tiny".into())
    }

    fn states(jobs: &Jobs) -> Vec<State> {
        jobs.list(usize::MAX, clock::now()).iter().map(|job| job.state).collect()
    }

    #[test]
    fn a_job_is_seen_from_its_auction_to_its_receipt() {
        let jobs = Jobs::default();
        let running = begin(&jobs, 1);
        assert_eq!(states(&jobs), [State::Auction]);
        let key = infernet_wire::key::NodeKey::from_bytes(&[1; 32]).expect("a key");
        running.opened(key.id(), "direct".into());
        assert_eq!(states(&jobs), [State::Opened]);
        running.tokens(3);
        assert_eq!(states(&jobs), [State::Streaming]);
        running.end(Ended { state: State::Settled, amount: Some(MicroUsd(7)), error: None });
        let job = jobs.list(1, clock::now()).pop().expect("it is remembered");
        assert_eq!((job.state, job.tokens, job.amount_micro_usd), (State::Settled, 3, Some(7)));
        assert_eq!((job.peer, job.path.as_deref(), job.ttft_ms.is_some()), (Some(key.id()), Some("direct"), true));
    }

    #[test]
    fn a_job_that_is_dropped_was_cancelled() {
        let jobs = Jobs::default();
        drop(begin(&jobs, 1));
        assert_eq!(states(&jobs), [State::Cancelled]);
    }

    #[test]
    fn running_jobs_come_first_and_the_newest_of_each() {
        let jobs = Jobs::default();
        let (first, second) = (begin(&jobs, 1), begin(&jobs, 2));
        begin(&jobs, 3).end(Ended::free(State::Failed, Some("connect")));
        drop(begin(&jobs, 4));
        let order: Vec<u8> = jobs.list(usize::MAX, clock::now()).iter().map(|job| job.id.0[0]).collect();
        assert_eq!(order, [2, 1, 4, 3]);
        assert_eq!(jobs.list(1, clock::now()).len(), 1);
        drop((first, second));
    }

    #[test]
    fn neither_table_grows_without_end() {
        let jobs = Jobs::default();
        let running: Vec<_> = (0..MAX_RUNNING + 5).map(|_| begin(&jobs, 1)).collect();
        assert_eq!(states(&jobs).len(), MAX_RUNNING);
        drop(running);
        assert_eq!(states(&jobs).len(), MAX_ENDED);
    }

    #[test]
    fn speed_leaves_out_the_wait_for_the_first_token() {
        assert_eq!(speed(11, 1_000), Some(10));
        assert_eq!((speed(1, 1_000), speed(0, 5), speed(2, 0)), (None, None, None));
    }
}
