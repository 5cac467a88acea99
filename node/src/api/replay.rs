//! `Idempotency-Key`: the same key and request get the same answer again, and are paid for once.
//!
//! A whole answer is kept in memory for a while. A second request that comes while the first is under way waits for it. Only
//! answers that came to their end are kept: after a failure, or when the first client went away and did not come back
//! ([`comeback`](super::comeback)), the key is free again. The same key with another request is a mistake, and is told as one.
//!
//! [`Table`] decides and is pure; [`Replays`] waits.

use super::{
    comeback::{self, Kept},
    error::ApiError,
};
use crate::clock;
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use infernet_wire::{hash, id::Hash, time::UnixMillis};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// The header's name.
const HEADER: &str = "idempotency-key";
/// Marks an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("x-infernet-replayed");
/// The longest key, as Stripe has it.
const MAX_KEY_BYTES: usize = 255;
/// Keys remembered: a client that retries does so within minutes.
const MAX_ENTRIES: usize = 1_024;
/// Bytes of answers kept, all together.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The largest answer kept: ten thousand tokens as a stream. What is larger is given, but not again.
pub(super) const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// How long an answer is kept.
const TTL_MS: u64 = 60 * 60_000;
/// How long a second request waits for the first, which is over by then: jobs have ten minutes.
const WAIT: Duration = Duration::from_secs(11 * 60);

/// Whose key: the API key's name, and the client's choice.
type Key = (String, String);

/// A kept answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    kind: &'static str,
    bytes: Bytes,
}

#[derive(Debug)]
enum State {
    /// The sender is gone when it is over. The stream, once there is one, while anybody has it.
    Running(watch::Receiver<()>, Weak<Kept>),
    Done(Answer),
}

#[derive(Debug)]
struct Entry {
    request: Hash,
    since: UnixMillis,
    state: State,
}

impl Entry {
    fn bytes(&self) -> usize {
        if let State::Done(answer) = &self.state { answer.bytes.len() } else { 0 }
    }
}

/// What to do with a request.
#[derive(Debug)]
enum Begun {
    /// It is the first: keep the sender while it runs.
    First(watch::Sender<()>),
    /// Ask again when the sender is gone.
    Wait(watch::Receiver<()>),
    /// It streams, and may be come back to.
    Streams(watch::Receiver<()>, Arc<Kept>),
    /// Its answer.
    Again(Answer),
    /// Its key belongs to another request.
    Other,
    /// Too many requests with keys are under way.
    Full,
}

/// Keys and answers. Pure.
#[derive(Debug, Default)]
struct Table {
    entries: BTreeMap<Key, Entry>,
    bytes: usize,
}

impl Table {
    fn begin(&mut self, key: &Key, request: Hash, now: UnixMillis) -> Begun {
        match self.entries.get(key).filter(|entry| now.since(entry.since) < TTL_MS) {
            Some(entry) if entry.request != request => Begun::Other,
            Some(Entry { state: State::Done(answer), .. }) => Begun::Again(answer.clone()),
            Some(Entry { state: State::Running(over, stream), .. }) => match stream.upgrade() {
                Some(stream) => Begun::Streams(over.clone(), stream),
                None => Begun::Wait(over.clone()),
            },
            None => self.begin_new(key, request, now),
        }
    }

    fn begin_new(&mut self, key: &Key, request: Hash, now: UnixMillis) -> Begun {
        self.forget(key);
        while self.entries.len() >= MAX_ENTRIES {
            if !self.forget_oldest() {
                return Begun::Full;
            }
        }
        let (running, over) = watch::channel(());
        self.entries.insert(key.clone(), Entry { request, since: now, state: State::Running(over, Weak::new()) });
        Begun::First(running)
    }

    /// A running request has begun to stream.
    fn streams(&mut self, key: &Key, kept: &Arc<Kept>) {
        if let Some(Entry { state: State::Running(_, stream), .. }) = self.entries.get_mut(key) {
            *stream = Arc::downgrade(kept);
        }
    }

    /// Keeps an answer, in place of older ones if need be.
    fn complete(&mut self, key: &Key, answer: Answer, now: UnixMillis) {
        if answer.bytes.len() > MAX_ANSWER_BYTES {
            return self.forget(key);
        }
        if let Some(entry) = self.entries.get_mut(key) {
            self.bytes += answer.bytes.len();
            entry.since = now;
            entry.state = State::Done(answer);
        }
        while self.bytes > MAX_BYTES && self.forget_oldest() {}
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes = self.bytes.saturating_sub(entry.bytes());
        }
    }

    /// Whether there was an answer to forget; requests under way stay.
    fn forget_oldest(&mut self) -> bool {
        let done = self.entries.iter().filter(|(_, entry)| matches!(entry.state, State::Done(_)));
        let oldest = done.min_by_key(|(_, entry)| entry.since).map(|(key, _)| key.clone());
        oldest.map(|key| self.forget(&key)).is_some()
    }
}

/// The answers that may be asked for again. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Replays {
    table: Arc<Mutex<Table>>,
}

/// How to go on.
pub(super) enum Turn {
    /// This is the answer.
    Replayed(Response),
    /// Answer, and record the answer if the request has a key.
    Answer(Option<Recorder>),
}

impl Replays {
    /// Decides about a request by `caller` to `route` with `body`; waits if the same one is under way.
    pub(super) async fn turn(&self, caller: &str, headers: &HeaderMap, route: &str, body: &[u8]) -> Result<Turn, ApiError> {
        let Some(value) = headers.get(HEADER) else { return Ok(Turn::Answer(None)) };
        let chosen = value.to_str().ok().filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
        let bad =
            || ApiError::field("Idempotency-Key", format!("Idempotency-Key must have 1 to {MAX_KEY_BYTES} plain characters"));
        let key = (caller.to_owned(), chosen.ok_or_else(bad)?.to_owned());
        let request = hash::tagged("infernet/idempotency/1", &[route.as_bytes(), body]);
        let from = comeback::wanted(headers)?;
        let waited = timeout(WAIT, self.find(&key, request, from)).await;
        let late = |_| ApiError::busy("the first request with this Idempotency-Key is still under way; try again");
        match waited.map_err(late)?? {
            Found::Answer(answer) => Ok(Turn::Replayed(answer.into_response(from)?)),
            Found::Stream(stream) => Ok(Turn::Replayed(stream.go_on(from.unwrap_or(0)).await?)),
            Found::Nothing(running) => Ok(Turn::Answer(Some(Recorder { replays: self.clone(), key, running: Some(running) }))),
        }
    }

    /// `from`: where a client that comes back wants to go on. One that does not say waits for a stream that is being read.
    async fn find(&self, key: &Key, request: Hash, from: Option<usize>) -> Result<Found, ApiError> {
        loop {
            let begun = self.table(|table| table.begin(key, request, clock::now()));
            match begun {
                Begun::First(_) if from.is_some_and(|place| place > 0) => {
                    self.table(|table| table.forget(key));
                    return Err(ApiError::gone());
                }
                Begun::First(running) => return Ok(Found::Nothing(running)),
                Begun::Again(answer) => return Ok(Found::Answer(answer)),
                Begun::Streams(_, stream) if from.is_some() || !stream.is_attached() => return Ok(Found::Stream(stream)),
                Begun::Other => return Err(ApiError::other_request()),
                Begun::Full => {
                    return Err(ApiError::busy("too many requests with an Idempotency-Key are under way; try again"));
                }
                // Nothing is ever sent: it resolves when the sender is gone.
                Begun::Wait(mut over) | Begun::Streams(mut over, _) => drop(over.changed().await),
            }
        }
    }

    fn table<T>(&self, with: impl FnOnce(&mut Table) -> T) -> T {
        // Nothing in here panics while it holds the lock.
        with(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What there is of a request.
enum Found {
    Answer(Answer),
    Stream(Arc<Kept>),
    /// It is the first.
    Nothing(watch::Sender<()>),
}

impl Answer {
    /// All of it, or of a stream what comes behind the place `from`.
    fn into_response(self, from: Option<usize>) -> Result<Response, ApiError> {
        let bytes = if self.kind == EVENTS { comeback::whole(&self.bytes, from)? } else { self.bytes };
        let yes = HeaderValue::from_static("true");
        Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(self.kind)), (REPLAYED, yes)], bytes).into_response())
    }
}

/// The kind of a recorded stream.
const EVENTS: &str = "text/event-stream";

/// The place of an answer while it is given. Dropped before it is complete, the key is free again.
#[derive(Debug)]
pub(super) struct Recorder {
    replays: Replays,
    key: Key,
    running: Option<watch::Sender<()>>,
}

impl Recorder {
    /// The answer comes as `kept`, and its client may come back to it.
    pub(super) fn streams(&self, kept: &Arc<Kept>) {
        self.replays.table(|table| table.streams(&self.key, kept));
    }

    /// The answer is this whole stream of events.
    pub(super) fn complete_events(self, bytes: &[u8]) {
        self.complete_with(EVENTS, bytes);
    }

    /// The answer is `body`, of `kind`.
    pub(super) fn complete_with(mut self, kind: &'static str, body: &[u8]) {
        let answer = Answer { kind, bytes: Bytes::copy_from_slice(body) };
        self.replays.table(|table| table.complete(&self.key, answer, clock::now()));
        self.running = None;
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Still running: it came to no end.
        if self.running.is_some() {
            self.replays.table(|table| table.forget(&self.key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn key(n: usize) -> Key {
        (String::new(), n.to_string())
    }

    fn request(n: u8) -> Hash {
        Hash([n; 32])
    }

    fn answer(bytes: usize) -> Answer {
        Answer { kind: EVENTS, bytes: vec![b'x'; bytes].into() }
    }

    fn done(table: &mut Table, n: usize, bytes: usize, now: UnixMillis) {
        assert!(matches!(table.begin(&key(n), request(1), now), Begun::First(_)));
        table.complete(&key(n), answer(bytes), now);
    }

    #[test]
    fn the_same_request_gets_the_same_answer_and_another_is_told_so() {
        let mut table = Table::default();
        done(&mut table, 1, 10, NOW);
        assert!(matches!(table.begin(&key(1), request(1), NOW), Begun::Again(a) if a == answer(10)));
        assert!(matches!(table.begin(&key(1), request(2), NOW), Begun::Other));
        let other_caller = ("b".into(), "1".into());
        assert!(matches!(table.begin(&other_caller, request(2), NOW), Begun::First(_)));
    }

    #[test]
    fn a_second_waits_for_the_first_and_takes_its_place_if_it_fails() {
        let mut table = Table::default();
        let Begun::First(running) = table.begin(&key(1), request(1), NOW) else { panic!("the first") };
        let Begun::Wait(over) = table.begin(&key(1), request(1), NOW) else { panic!("a second") };
        assert!(over.has_changed().is_ok());
        table.forget(&key(1));
        drop(running);
        assert!(over.has_changed().is_err(), "the wait is over");
        assert!(matches!(table.begin(&key(1), request(1), NOW), Begun::First(_)));
    }

    #[test]
    fn answers_are_kept_for_a_while_and_within_bounds() {
        let mut table = Table::default();
        done(&mut table, 1, 10, NOW);
        assert!(matches!(table.begin(&key(1), request(2), NOW.after(TTL_MS)), Begun::First(_)), "free again");
        let mut table = Table::default();
        for n in 0..40 {
            done(&mut table, n, MAX_ANSWER_BYTES, NOW.after(n as u64));
        }
        assert_eq!((table.bytes, table.entries.len()), (MAX_BYTES, MAX_BYTES / MAX_ANSWER_BYTES));
        assert!(matches!(table.begin(&key(39), request(1), NOW), Begun::Again(_)), "the newest stay");
        done(&mut table, 99, MAX_ANSWER_BYTES + 1, NOW);
        assert!(matches!(table.begin(&key(99), request(1), NOW), Begun::First(_)), "too long to keep");
    }

    #[test]
    fn requests_under_way_are_never_forgotten() {
        let mut table = Table::default();
        let running: Vec<_> = (0..MAX_ENTRIES).map(|n| table.begin(&key(n), request(1), NOW)).collect();
        assert!(running.iter().all(|begun| matches!(begun, Begun::First(_))));
        assert!(matches!(table.begin(&key(MAX_ENTRIES), request(1), NOW), Begun::Full));
        table.complete(&key(0), answer(1), NOW);
        assert!(matches!(table.begin(&key(MAX_ENTRIES), request(1), NOW), Begun::First(_)));
    }
}
