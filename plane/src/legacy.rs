//! Jobs for daemons that know nothing of the mesh: the bridge that lets existing ones go on earning work.
//!
//! A daemon polls, streams its answer as events, and completes; all through the plane, unverified. So it gets only what no worker
//! of the mesh bid on, and what it does counts for no reputation and no volume. [`Desk`] decides; [`Legacy`] is its handle, and
//! [`Answer`] what whoever gave the job reads.
//!
//! | rule | |
//! |---|---|
//! | a job is given to one daemon, which must say something within [`FIRST_MS`], then every [`NEXT_MS`] | else it is given to another, [`MAX_TRIES`] times, unless some of the answer was delivered: then it fails |
//! | only the daemon that has it can add to it, and nobody after its end | 403, 409 |
//! | an answer has at most [`MAX_ANSWER_BYTES`], a request [`MAX_EVENTS`] events of [`MAX_EVENT_BYTES`] | else it is refused |
//! | the daemon's whole answer must begin with what it streamed | a lost batch fails the job; existing ones sell the gap |
//!
//! Prompts and answers are in this memory only, and only until the job's end; ends are remembered without them. A job lives in
//! the instance that took it: with several, daemons must be led to all of them (one per instance, or sticky by job).

mod desk;

pub use desk::{Completed, Daemon, Desk, Ended, Event, Job, Refused, Told};

use crate::store::{NodeRow, Pubkey, Role};
use desk::Output;
use infernet_node::clock;
use infernet_wire::time::UnixMillis;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};

/// Until a daemon that was given a job must have said something: it may load a model first.
pub const FIRST_MS: u64 = 60_000;
/// And between two words after that. Daemons send what they have four times a second.
pub const NEXT_MS: u64 = 30_000;
/// How long a job waits for a daemon: they poll every 15 s.
pub const WAIT_MS: u64 = 45_000;
/// How long a job may take in all, as long as its client would wait.
pub const MAX_JOB_MS: u64 = 10 * 60_000;
/// How many daemons may lose a job.
pub const MAX_TRIES: u32 = 3;
/// Jobs that are open at once: the desk's memory is at most so many prompts and answers.
pub const MAX_OPEN: usize = 256;
/// Jobs of one daemon at once, as existing routing has it.
pub const MAX_ACTIVE: usize = 4;
/// Events of one request.
pub const MAX_EVENTS: usize = 200;
/// One event, as JSON: a batch of tokens is some hundred bytes.
pub const MAX_EVENT_BYTES: usize = 16 * 1024;
/// An answer: beyond what any model writes at once.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Messages that wait for a slow reader: one for each request of the daemon.
const QUEUE: usize = 256;
/// How often whoever waits for an answer looks for leases that are over.
const LOOK: Duration = Duration::from_millis(500);

/// The desk's handle.
pub struct Legacy {
    enabled: bool,
    offline_ms: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    desk: Desk,
    readers: BTreeMap<String, mpsc::Sender<Told>>,
}

impl State {
    /// Tells readers; a reader that is gone or does not keep up cancels its job.
    fn tell(&mut self, outputs: Vec<Output>, now: UnixMillis) {
        for Output { id, told } in outputs {
            let over = told.is_last();
            let heard = self.readers.get(&id).is_some_and(|reader| reader.try_send(told).is_ok());
            if over || !heard {
                self.readers.remove(&id);
                self.desk.cancel(&id, now);
            }
        }
    }
}

impl Legacy {
    /// A bridge to the daemons that ask for jobs, which are offline after `offline_ms` of silence; if not `enabled`, to none.
    pub fn new(enabled: bool, offline_ms: u64) -> Self {
        Legacy { enabled, offline_ms, state: Mutex::default() }
    }

    /// Gives `job` to whichever daemon asks for it first. `None` if none that is there serves it, or the desk is full.
    pub fn offer(self: &Arc<Self>, job: Job, now: UnixMillis) -> Option<Answer> {
        if !self.serves(&job, now) {
            return None;
        }
        let (sender, told) = mpsc::channel(QUEUE);
        let id = job.id.clone();
        let mut state = self.lock();
        if !state.desk.open(job, now) {
            return None;
        }
        state.readers.insert(id.clone(), sender);
        drop(state);
        Some(Answer { id, told, legacy: self.clone(), over: false })
    }

    /// What `daemon` is to do now: at most one more job than it has.
    pub fn poll(&self, daemon: &Daemon, now: UnixMillis) -> Vec<Job> {
        let mut state = self.lock();
        let outputs = state.desk.sweep(now);
        state.tell(outputs, now);
        let (jobs, outputs) = state.desk.poll(daemon, now);
        state.tell(outputs, now);
        jobs
    }

    /// Events of `daemon` for the job `id`; returns how many there were.
    pub fn events(&self, id: &str, daemon: Pubkey, events: &[Event], now: UnixMillis) -> Result<usize, Refused> {
        let mut state = self.lock();
        let outputs = state.desk.events(id, daemon, events, now)?;
        state.tell(outputs, now);
        Ok(events.len())
    }

    /// `daemon` has ended the job `id`.
    pub fn complete(&self, id: &str, daemon: Pubkey, ended: Ended, now: UnixMillis) -> Result<Completed, Refused> {
        let mut state = self.lock();
        let (completed, outputs) = state.desk.complete(id, daemon, ended, now)?;
        state.tell(outputs, now);
        Ok(completed)
    }

    /// Whether a daemon that asks here would take `job`.
    pub fn serves(&self, job: &Job, now: UnixMillis) -> bool {
        self.enabled && self.lock().desk.is_served(job, UnixMillis(now.0.saturating_sub(self.offline_ms)))
    }

    /// `daemon` asks no more: it leaves.
    pub fn left(&self, daemon: Pubkey) {
        self.lock().desk.left(daemon);
    }

    fn sweep(&self, now: UnixMillis) {
        let mut state = self.lock();
        let outputs = state.desk.sweep(now);
        state.tell(outputs, now);
    }

    /// Nothing that holds it can panic half way through a change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer as it comes. Dropping it cancels the job.
pub struct Answer {
    id: String,
    told: mpsc::Receiver<Told>,
    legacy: Arc<Legacy>,
    over: bool,
}

impl Answer {
    /// What comes next; `None` after the last, or without one if it was read too slowly: then the job is cancelled.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            if self.over {
                return None;
            }
            match timeout(LOOK, self.told.recv()).await {
                Ok(Some(told)) => {
                    self.over = told.is_last();
                    return Some(told);
                }
                Ok(None) => self.over = true,
                Err(_) => self.legacy.sweep(clock::now()),
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut state = self.legacy.lock();
        state.readers.remove(&self.id);
        state.desk.cancel(&self.id, clock::now());
    }
}

/// A registered node as a daemon; `None` if it is one of the mesh, or no provider.
pub fn daemon(row: &NodeRow) -> Option<Daemon> {
    let is_legacy = row.role == Role::Provider && !row.names_audience;
    let models = row.specs.get("served_models").and_then(Value::as_array);
    let models = models.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    is_legacy.then_some(Daemon { pubkey: row.pubkey, models })
}
