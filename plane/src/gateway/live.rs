//! Jobs in this instance's memory: those that run, and the answers of those that ended not long ago.

use super::{GatewayConfig, Outcome};
use crate::{
    http::error::Refusal,
    store::{ClientId, JobError, JobRow, JobStatus, Renewal, StoredText, WebJobId},
};
use infernet_wire::{money::MicroUsd, time::UnixMillis};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::{Mutex, watch};

/// The longest answer that is kept: four bytes for each token that may be asked for.
pub(super) const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It is whole; why it ended, as OpenAI names it.
    Done(Option<String>),
    /// It broke off.
    Failed(JobError),
    /// Its client wanted no more.
    Cancelled,
}

/// An answer as it grows. A place in it is a number of bytes.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// The answer so far.
    pub text: String,
    /// How it ended, once it has.
    pub end: Option<End>,
}

impl Log {
    /// What a row that is over and has kept its text tells.
    pub fn of(row: &JobRow) -> Option<Self> {
        let text = row.text.as_ref()?.answer.clone();
        let end = match row.status {
            JobStatus::Completed => End::Done(None),
            JobStatus::Cancelled => End::Cancelled,
            JobStatus::Failed => End::Failed(row.error.clone()?),
            JobStatus::Pending | JobStatus::Assigned | JobStatus::Running => return None,
        };
        Some(Log { text, end: Some(end) })
    }
}

/// A job in memory.
pub struct Live {
    id: WebJobId,
    client: ClientId,
    /// As it was last written, without its text.
    pub(super) row: Mutex<JobRow>,
    /// The request, if it is to be kept with its answer, and when that was last written.
    request: Option<String>,
    text_written: AtomicU64,
    /// Its answer, unless that goes straight to who asked.
    log: watch::Sender<Log>,
    has_log: bool,
    cancel: watch::Sender<bool>,
    /// Whether its row is in the store, so that its lease can be renewed.
    written: AtomicBool,
    refused: AtomicBool,
    /// What it has cost by now, in micro-USD, and its answer's tokens.
    cost: AtomicU64,
    tokens: AtomicU64,
}

impl Live {
    pub(super) fn new(row: JobRow, has_log: bool) -> Self {
        Live {
            id: row.id.clone(),
            client: row.client.clone(),
            request: row.text.as_ref().map(|text| text.request.clone()),
            text_written: AtomicU64::new(row.created.0),
            row: Mutex::new(JobRow { text: None, ..row }),
            log: watch::Sender::default(),
            has_log,
            cancel: watch::Sender::new(false),
            written: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            cost: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
        }
    }

    /// Its name.
    pub fn id(&self) -> &WebJobId {
        &self.id
    }

    /// The answer, for whoever waits for more of it; `None` if it goes straight to who asked.
    pub fn follow(&self) -> Option<watch::Receiver<Log>> {
        self.has_log.then(|| self.log.subscribe())
    }

    /// The row as it is now.
    pub async fn row(&self) -> JobRow {
        self.row.lock().await.clone()
    }

    /// Nobody wants more of it.
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }

    pub(crate) fn cancelled(&self) -> watch::Receiver<bool> {
        self.cancel.subscribe()
    }

    /// More of the answer, or `false` if that would be too long.
    pub(super) fn push(&self, text: &str) -> bool {
        let fits = self.log.borrow().text.len() + text.len() <= MAX_ANSWER;
        if fits {
            self.log.send_modify(|log| log.text.push_str(text));
        }
        fits
    }

    /// What it has cost by now.
    pub(crate) fn note(&self, cost: MicroUsd, tokens: u32) {
        self.cost.store(cost.0, Ordering::Relaxed);
        self.tokens.store(tokens.into(), Ordering::Relaxed);
    }

    pub(super) fn cost(&self) -> MicroUsd {
        MicroUsd(self.cost.load(Ordering::Relaxed))
    }

    /// Its row is in the store.
    pub(super) fn mark_written(&self) {
        self.written.store(true, Ordering::Relaxed);
    }

    /// What is known by now, so that a crash loses little.
    pub(super) fn renewal(&self) -> Renewal {
        let tokens = u32::try_from(self.tokens.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let known = tokens > 0;
        Renewal { id: self.id.clone(), output_tokens: known.then_some(tokens), cost: known.then(|| self.cost()) }
    }

    /// Puts into `row` what is known by now.
    pub(super) fn checkpoint(&self, row: &mut JobRow) {
        let known = self.renewal();
        (row.output_tokens, row.cost) = (known.output_tokens.or(row.output_tokens), known.cost.or(row.cost));
    }

    /// It was refused: neither text nor answer is to be kept.
    pub(super) fn keep_nothing(&self) {
        self.refused.store(true, Ordering::Relaxed);
        self.text_written.store(u64::MAX, Ordering::Relaxed);
    }

    /// What is to be kept by now, if its client asked for that and it was not written since `before`. From `now` on it counts as
    /// written.
    pub(super) fn text(&self, before: UnixMillis, now: UnixMillis) -> Option<StoredText> {
        let request = self.request.as_ref().filter(|_| self.text_written.load(Ordering::Relaxed) <= before.0)?;
        self.text_written.store(now.0, Ordering::Relaxed);
        Some(StoredText { request: request.clone(), answer: self.log.borrow().text.clone() })
    }

    /// The row at its end.
    pub(super) async fn ended(&self, outcome: &Outcome, now: UnixMillis) -> JobRow {
        let mut row = self.row.lock().await;
        self.checkpoint(&mut row);
        row.text = self.text(now, now);
        row.status = match (&outcome.error, outcome.cancelled) {
            (_, true) => JobStatus::Cancelled,
            (Some(_), _) => JobStatus::Failed,
            (None, _) => JobStatus::Completed,
        };
        if let Some((input, output)) = outcome.usage {
            (row.input_tokens, row.output_tokens) = (Some(input), Some(output));
        }
        row.worker = outcome.worker.or(row.worker);
        (row.cost, row.receipt, row.error) = (Some(outcome.cost), outcome.receipt, outcome.error.clone());
        (row.updated, row.ended, row.lease) = (now, Some(now), None);
        // A prompt that nobody answered was not paid for: who sends many must not fill the store with them.
        if row.status != JobStatus::Completed && row.text.as_ref().is_some_and(|kept| kept.answer.is_empty()) {
            row.text = None;
        }
        row.clone()
    }

    /// Tells readers how it ended.
    pub(super) fn close(&self, outcome: &Outcome) {
        let end = match &outcome.error {
            _ if outcome.cancelled => End::Cancelled,
            Some(error) => End::Failed(error.clone()),
            None => End::Done(outcome.finish.map(str::to_owned)),
        };
        self.log.send_modify(|log| log.end = Some(end));
    }

    fn bytes(&self) -> usize {
        self.log.borrow().text.len()
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Table {
    running: BTreeMap<WebJobId, Arc<Live>>,
    per_client: BTreeMap<ClientId, usize>,
    kept: BTreeMap<WebJobId, Arc<Live>>,
    /// Kept ones, the oldest first, with the end of their time and their bytes.
    order: VecDeque<(UnixMillis, Arc<Live>, usize)>,
    bytes: usize,
}

impl Table {
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn all_running(&self) -> Vec<Arc<Live>> {
        self.running.values().cloned().collect()
    }

    /// Those that the store knows of.
    pub(super) fn all_written(&self) -> Vec<Arc<Live>> {
        self.running.values().filter(|live| live.written.load(Ordering::Relaxed)).cloned().collect()
    }

    pub(super) fn get(&self, id: &WebJobId) -> Option<Arc<Live>> {
        self.running.get(id).or_else(|| self.kept.get(id)).cloned()
    }

    /// Takes a place for a job, if there is one.
    pub(super) fn add(&mut self, live: &Arc<Live>, config: &GatewayConfig) -> Result<(), Refusal> {
        if self.running.len() >= config.max_running {
            return Err(Refusal::busy("the plane runs as many jobs as it takes: try again"));
        }
        if self.running.contains_key(&live.id) {
            return Err(Refusal::busy("the same job is being begun: try again"));
        }
        let own = self.per_client.entry(live.client.clone()).or_default();
        if *own >= config.max_running_per_client {
            return Err(Refusal::busy(format!("{own} jobs of yours run already: wait for some, or cancel some")));
        }
        *own += 1;
        self.running.insert(live.id.clone(), live.clone());
        Ok(())
    }

    /// Gives a place back: its own, not one that another job of the same name has taken since.
    pub(super) fn remove(&mut self, live: &Arc<Live>) {
        if !self.running.get(&live.id).is_some_and(|running| Arc::ptr_eq(running, live)) {
            return;
        }
        self.running.remove(&live.id);
        if let Some(own) = self.per_client.get_mut(&live.client) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.per_client.remove(&live.client);
            }
        }
    }

    /// A job has ended; its answer is kept until `until`, if there is room.
    pub(super) fn ended(&mut self, live: &Arc<Live>, until: UnixMillis, most: usize) {
        self.remove(live);
        // Nobody was told the name of one that was refused, and its name may be another's soon.
        if !live.has_log || live.refused.load(Ordering::Relaxed) {
            return;
        }
        let bytes = live.bytes();
        self.bytes += bytes;
        self.order.push_back((until, live.clone(), bytes));
        self.kept.insert(live.id.clone(), live.clone());
        while self.bytes > most {
            self.forget_oldest();
        }
    }

    /// Forgets answers whose time is over.
    pub(super) fn forget(&mut self, now: UnixMillis) {
        while self.order.front().is_some_and(|(until, ..)| *until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, oldest, bytes)) = self.order.pop_front() {
            self.bytes = self.bytes.saturating_sub(bytes);
            // A job that was asked for again has another's answer under its name.
            if self.kept.get(&oldest.id).is_some_and(|kept| Arc::ptr_eq(kept, &oldest)) {
                self.kept.remove(&oldest.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn live(answer: &str) -> Arc<Live> {
        let row = json!({ "id": "job_a", "client": "cl_a", "model": "m", "status": "pending", "created": 1, "updated": 1,
            "budget": 1 });
        let live = Live::new(serde_json::from_value(row).expect("a row"), true);
        assert!(live.push(answer));
        Arc::new(live)
    }

    #[test]
    fn what_was_refused_is_not_kept_and_only_a_jobs_own_answer_is_forgotten() {
        let mut table = Table::default();
        let (refused, first, second) = (live(""), live("first"), live("second"));
        refused.keep_nothing();
        table.ended(&refused, UnixMillis(10), 100);
        assert!(table.get(&refused.id).is_none() && table.order.is_empty());
        table.ended(&first, UnixMillis(10), 100);
        table.ended(&second, UnixMillis(20), 100);
        table.forget(UnixMillis(10));
        let kept = table.get(&second.id).expect("the answer of the second run");
        assert!(Arc::ptr_eq(&kept, &second));
        assert_eq!(table.bytes, "second".len());
        table.forget(UnixMillis(20));
        assert!(table.get(&second.id).is_none());
    }
}
