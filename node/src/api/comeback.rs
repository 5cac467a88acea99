//! `Last-Event-ID`: a client whose connection broke comes back for its streamed answer and goes on where it was.
//!
//! It says which answer by the `Idempotency-Key` that it sent with it, and the same request again; only such streams can be come
//! back to, and only their events carry an `id`: the place in the stream behind the event, in bytes, without these ids. When its
//! reader is gone the answer goes on by itself for [`GRACE`], as far as there is room; a reader that comes back gets all that came
//! since, once. Nobody in time: the job is cancelled, what came is paid, and the key is free.
//!
//! One reader at a time: who comes back takes over from who was there. [`Log`] is pure.

use super::{error::ApiError, replay::Recorder, sse};
use crate::clock;
use axum::{
    body::Body,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use infernet_wire::limits;
use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, watch},
    time::{Instant as TimerInstant, sleep_until},
};

/// The header's name.
const HEADER: &str = "last-event-id";
/// How long an answer waits for its reader: as long as a worker waits for its buyer.
const GRACE: Duration = Duration::from_millis(limits::RESUME_GRACE_MS as u64);
/// Bytes of an answer that can be come back to. What is older is gone, and an answer without a reader stops here.
const KEPT: usize = super::replay::MAX_ANSWER_BYTES;
/// What is written at once at most.
const PIECE: usize = 32 * 1024;
/// The end of an event.
const BLANK: &[u8] = b"\n\n";

/// Where a client wants to go on: the place that its header names, if it has one.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    value.to_str().ok().and_then(|text| text.parse().ok()).map(Some).ok_or_else(bad_place)
}

fn bad_place() -> ApiError {
    ApiError::field("Last-Event-ID", "Last-Event-ID is no id of this answer's events; ask without it for all of them")
}

/// The events of a whole answer, from a place on.
pub(super) fn whole(bytes: &Bytes, from: Option<usize>) -> Result<Bytes, ApiError> {
    let log = Log { start: 0, bytes: bytes.to_vec(), over: true };
    let from = from.unwrap_or(0);
    log.check(from)?;
    Ok(numbered(log.bytes.get(from..).unwrap_or_default(), from))
}

/// What an answer has said, as far as it is kept.
#[derive(Debug, Default)]
struct Log {
    /// The place of the first byte kept.
    start: usize,
    bytes: Vec<u8>,
    over: bool,
}

impl Log {
    fn end(&self) -> usize {
        self.start + self.bytes.len()
    }

    /// Whole events. Of what nobody has asked for in a long while the oldest go.
    fn push(&mut self, events: &[u8]) {
        self.bytes.extend_from_slice(events);
        if let Some(over) = self.bytes.len().checked_sub(KEPT).filter(|over| *over > 0) {
            let cut = over + after_event(self.bytes.get(over..).unwrap_or_default()).unwrap_or(self.bytes.len() - over);
            self.bytes.drain(..cut);
            self.start += cut;
        }
    }

    /// Whether a reader can go on at `place`: it is kept, and an event begins there.
    fn check(&self, place: usize) -> Result<(), ApiError> {
        if place < self.start {
            return Err(ApiError::gone());
        }
        let before = self.bytes.get(..place - self.start).ok_or_else(bad_place)?;
        if before.is_empty() || before.ends_with(BLANK) { Ok(()) } else { Err(bad_place()) }
    }

    /// Whole events from `place` on, some [`PIECE`] of them; `None` if there are none yet.
    fn piece(&self, place: usize) -> Option<&[u8]> {
        let rest = self.bytes.get(place.checked_sub(self.start)?..).filter(|rest| !rest.is_empty())?;
        let cut = rest.len().min(PIECE);
        rest.get(
            ..cut
                + after_event(rest.get(cut.saturating_sub(BLANK.len())..)?).map_or(0, |more| more.saturating_sub(BLANK.len())),
        )
    }
}

/// Where the first event in `bytes` is over.
fn after_event(bytes: &[u8]) -> Option<usize> {
    bytes.windows(BLANK.len()).position(|window| window == BLANK).map(|at| at + BLANK.len())
}

/// The events with their ids.
fn numbered(mut events: &[u8], mut place: usize) -> Bytes {
    let mut out = Vec::with_capacity(events.len() + events.len() / 4);
    while let Some(length) = after_event(events) {
        let (event, rest) = events.split_at(length);
        place += length;
        out.extend_from_slice(format!("id: {place}\n").as_bytes());
        out.extend_from_slice(event);
        events = rest;
    }
    out.into()
}

/// An answer that can be come back to, while it comes.
pub(super) struct Kept {
    inner: Mutex<Inner>,
    /// The number of the newest reader.
    newest: watch::Sender<u64>,
    attached: AtomicBool,
}

struct Inner {
    events: Pin<Box<dyn Stream<Item = Result<Bytes, Infallible>> + Send>>,
    log: Log,
    recorder: Option<Recorder>,
}

/// What came next.
enum Step {
    Said,
    Ping,
}

impl Inner {
    /// Waits for more. Cancel safe.
    async fn advance(&mut self) -> Step {
        match self.events.next().await {
            Some(Ok(bytes)) if &bytes[..] == sse::PING_LINE => return Step::Ping,
            Some(Ok(bytes)) => self.log.push(&bytes),
            None => self.end(),
        }
        Step::Said
    }

    /// An answer that broke off is nothing to give again: whoever reads it still does, and its key is free.
    fn end(&mut self) {
        self.log.over = true;
        let recorder = self.recorder.take();
        if let Some(recorder) = recorder.filter(|_| self.log.start == 0 && self.log.bytes.ends_with(sse::DONE)) {
            recorder.complete_events(&self.log.bytes);
        }
    }
}

/// The response that is `events`, recorded, for as many connections as it takes.
pub(super) fn response(
    events: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
    recorder: Recorder,
) -> Result<Response, ApiError> {
    let inner = Inner { events: Box::pin(events), log: Log::default(), recorder: None };
    let kept = Arc::new(Kept { inner: Mutex::new(inner), newest: watch::Sender::new(0), attached: AtomicBool::new(false) });
    recorder.streams(&kept);
    // Nobody else has it yet.
    if let Ok(mut inner) = kept.inner.try_lock() {
        inner.recorder = Some(recorder);
    }
    Ok(kept.reader(0).response())
}

impl Kept {
    /// Whether somebody reads it now.
    pub(super) fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Relaxed)
    }

    /// The answer from the place `from` on, for a reader that comes back. It takes over from whoever was there; if the place is wrong
    /// the answer waits for its next try.
    pub(super) async fn go_on(self: &Arc<Self>, from: usize) -> Result<Response, ApiError> {
        let reader = self.reader(from);
        self.inner.lock().await.log.check(from)?;
        Ok(reader.response())
    }

    fn reader(self: &Arc<Self>, at: usize) -> Reader {
        let mut mine = 0;
        self.newest.send_modify(|newest| {
            *newest += 1;
            mine = *newest;
        });
        self.attached.store(true, Ordering::Relaxed);
        Reader { kept: self.clone(), turn: self.newest.subscribe(), mine, at, over: false }
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

/// One connection's part of an answer.
struct Reader {
    kept: Arc<Kept>,
    turn: watch::Receiver<u64>,
    mine: u64,
    at: usize,
    over: bool,
}

impl Reader {
    fn response(self) -> Response {
        let body = stream::unfold(self, |mut reader| async move {
            let bytes = reader.next().await?;
            Some((Ok::<_, Infallible>(bytes), reader))
        });
        (sse::headers(), Body::from_stream(body)).into_response()
    }

    /// The next events; `None` at the end, or when another reader has taken over.
    async fn next(&mut self) -> Option<Bytes> {
        let (mine, mut turn) = (self.mine, self.turn.clone());
        tokio::select! {
            biased;
            // Fails only if the sender is gone, which `kept` holds.
            _ = turn.wait_for(|newest| *newest != mine) => None,
            bytes = self.read() => bytes,
        }
    }

    async fn read(&mut self) -> Option<Bytes> {
        let mut inner = self.kept.inner.lock().await;
        loop {
            if let Some(piece) = inner.log.piece(self.at) {
                let bytes = numbered(piece, self.at);
                self.at += piece.len();
                return Some(bytes);
            }
            if inner.log.over {
                self.over = true;
                return None;
            }
            if matches!(inner.advance().await, Step::Ping) {
                return Some(Bytes::from_static(sse::PING_LINE));
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if *self.turn.borrow() != self.mine {
            return;
        }
        self.kept.attached.store(false, Ordering::Relaxed);
        if self.over {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(keep(self.kept.clone(), self.turn.clone(), self.mine, self.at, clock::deadline(GRACE)));
        }
    }
}

/// Lets an answer go on without a reader, until one comes back or `until`.
async fn keep(kept: Arc<Kept>, mut turn: watch::Receiver<u64>, mine: u64, left_at: usize, until: TimerInstant) {
    let going_on = async {
        let mut inner = kept.inner.lock().await;
        while !inner.log.over && inner.log.end().saturating_sub(left_at) < KEPT / 2 {
            inner.advance().await;
        }
        drop(inner);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        _ = turn.wait_for(|newest| *newest != mine) => return,
        () = sleep_until(until) => {}
        () = going_on => {}
    }
    let mut inner = kept.inner.lock().await;
    if *turn.borrow() == mine {
        // With the last of the stream the job is cancelled, with the recorder its key is free.
        inner.recorder = None;
        inner.events = Box::pin(stream::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(events: &[&str]) -> Log {
        let mut log = Log::default();
        events.iter().for_each(|event| log.push(format!("data: {event}\n\n").as_bytes()));
        log
    }

    #[test]
    fn a_reader_goes_on_behind_any_event_and_nowhere_else() {
        let log = log(&["a", "bc", "[DONE]"]);
        let text = String::from_utf8(log.bytes.clone()).unwrap();
        for place in 0..=text.len() {
            let may = place == 0 || text[..place].ends_with("\n\n");
            assert_eq!(log.check(place).is_ok(), may, "{place}");
        }
        assert!(log.check(text.len() + 1).is_err());
        assert_eq!(log.piece(text.len()), None, "nothing yet");
        assert_eq!(
            numbered(log.piece(0).unwrap(), 0),
            "id: 9\ndata: a\n\nid: 19\ndata: bc\n\nid: 33\ndata: [DONE]\n\n",
            "ids are places without ids"
        );
        assert_eq!(numbered(log.piece(9).unwrap(), 9), "id: 19\ndata: bc\n\nid: 33\ndata: [DONE]\n\n");
    }

    #[test]
    fn pieces_are_whole_events_whatever_their_sizes() {
        for size in [1, 7, 500, PIECE - 9, PIECE - 8, PIECE - 7, PIECE, 3 * PIECE] {
            let mut log = Log::default();
            (0..(4 * PIECE / size).clamp(3, 1_000))
                .for_each(|_| log.push(format!("data: {}\n\n", "x".repeat(size)).as_bytes()));
            let (mut place, mut read) = (0, Vec::new());
            while let Some(piece) = log.piece(place) {
                assert!(piece.ends_with(BLANK) && log.check(place + piece.len()).is_ok(), "{size}");
                assert!(piece.len() < PIECE + size + 10, "{size}");
                read.extend_from_slice(piece);
                place += piece.len();
            }
            assert_eq!(read, log.bytes, "{size}");
        }
    }

    #[test]
    fn what_is_too_old_is_gone_and_the_rest_begins_with_an_event() {
        let mut log = Log::default();
        let event = format!("data: {}\n\n", "x".repeat(1_000));
        let count = 2 * KEPT / event.len();
        (0..count).for_each(|_| log.push(event.as_bytes()));
        assert!(log.bytes.len() <= KEPT && log.start.is_multiple_of(event.len()));
        assert_eq!(log.end(), count * event.len());
        assert_eq!(log.check(0).unwrap_err(), ApiError::gone());
        assert!(log.check(log.start).is_ok() && log.piece(log.start).is_some());
    }
}
