//! An answer as server-sent events, for as many readers as like, from wherever each wants to go on.
//!
//! An event's `id` is a place in the answer, in bytes: whoever comes back with it gets all that came since and nothing twice,
//! whatever pieces it was cut into before, and from the stored text, too. A reader that is slow holds up nobody: what piled up
//! meanwhile comes in one piece. The last event's id ends in `.end`; who comes back with that is told that there is nothing more.

use super::error::Refusal;
use crate::{
    gateway::{End, Log},
    state::Plane,
    store::JobRow,
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, stream};
use infernet_node::clock;
use infernet_wire::time::UnixMillis;
use serde_json::{Value, json};
use std::{convert::Infallible, time::Duration};
use tokio::{sync::watch, time::timeout_at};

/// A comment is sent when nothing else was for this long: proxies and browsers give up on a line that is silent for long.
const PING: Duration = Duration::from_secs(15);
/// What is written at once at most, so that a slow reader's backlog does not fill memory.
const PIECE: usize = 32 * 1024;
/// How the last event's id ends.
const END: &str = ".end";

/// Which clients read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `/api/v1/jobs/{id}/stream`: bare data, `[DONE]` at the end.
    Jobs,
    /// `/api/chat/stream/{id}`: named events.
    Chat,
}

/// The answer of the job `row`, from where the reader was. `asked` is the place in the address, for readers that can't set
/// headers.
pub fn respond(
    plane: &Plane,
    row: JobRow,
    headers: &HeaderMap,
    asked: Option<&str>,
    dialect: Dialect,
    now: UnixMillis,
) -> Result<Response, Refusal> {
    let place = match headers.get("last-event-id") {
        Some(value) => Some(value.to_str().map_err(|_| bad_place())?),
        None => asked,
    };
    if place.is_some_and(|place| place.ends_with(END)) {
        // A browser's EventSource does not come again after this.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let from = place.map_or(Ok(0), |place| place.parse().map_err(|_| bad_place()))?;
    let log = followed(plane, &row, now)?;
    if !log.borrow().text.is_char_boundary(from) {
        return Err(bad_place());
    }
    let opening = (dialect == Dialect::Chat && from == 0).then(|| opening(&row));
    let reader = Reader { log, at: from, over: false, dialect, opening, quiet: PING };
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((head, Body::from_stream(events(reader))).into_response())
}

fn bad_place() -> Refusal {
    Refusal::bad("Last-Event-ID is no id of this job's events")
}

/// The answer: in memory if the job runs or ended here, else as it was stored.
fn followed(plane: &Plane, row: &JobRow, now: UnixMillis) -> Result<watch::Receiver<Log>, Refusal> {
    if let Some(live) = plane.gateway.as_ref().and_then(|gateway| gateway.live(&row.id)) {
        let straight = || Refusal::new(StatusCode::GONE, "gone", "this job's answer went straight to who asked, by /v1");
        return live.follow().ok_or_else(straight);
    }
    if let Some(log) = Log::of(row) {
        // The sender gone is no harm: the log is over.
        return Ok(watch::channel(log).1);
    }
    if row.status.is_over() {
        let text = "the answer is not kept any more: it stays some minutes, or for good if the job asked to `store` it";
        return Err(Refusal::new(StatusCode::GONE, "gone", text));
    }
    if row.lease.as_ref().is_some_and(|(_, until)| *until > now) {
        let text = "another instance of this plane runs the job: ask again, so that the balancer finds it";
        return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "elsewhere", text));
    }
    Err(Refusal::unavailable("the instance that ran this job is gone: the job will be failed in a moment"))
}

struct Reader {
    log: watch::Receiver<Log>,
    at: usize,
    over: bool,
    dialect: Dialect,
    opening: Option<Bytes>,
    /// [`PING`].
    quiet: Duration,
}

fn events(reader: Reader) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(reader, |mut reader| async move { reader.next().await.map(|bytes| (Ok(bytes), reader)) })
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        let quiet = clock::deadline(self.quiet);
        loop {
            if self.over {
                return None;
            }
            if let Some(event) = self.piece() {
                return Some(event);
            }
            match timeout_at(quiet, self.log.changed()).await {
                Ok(Ok(())) => {}
                Err(_) => return Some(Bytes::from_static(b": ping\n\n")),
                // The job went away without an end, which it does not; a truncated stream must not look complete.
                Ok(Err(_)) => return None,
            }
        }
    }

    /// What came since, or the end; `None` if there is neither yet.
    fn piece(&mut self) -> Option<Bytes> {
        let log = self.log.borrow_and_update();
        let rest = log.text.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            let end = log.end.as_ref()?;
            self.over = true;
            return Some(self.dialect.end(self.at, end, &log.text));
        }
        let text = rest.get(..rest.floor_char_boundary(PIECE)).unwrap_or(rest);
        self.at += text.len();
        Some(self.dialect.text(self.at, text))
    }
}

impl Dialect {
    fn text(self, id: usize, text: &str) -> Bytes {
        let data = json!({ "text": text });
        match self {
            Dialect::Jobs => format!("id: {id}\ndata: {data}\n\n"),
            Dialect::Chat => format!("id: {id}\nevent: token\ndata: {data}\n\n"),
        }
        .into()
    }

    fn end(self, at: usize, end: &End, text: &str) -> Bytes {
        let (name, data) = match (self, end) {
            (Dialect::Jobs, End::Done(_)) => (None, "[DONE]".to_owned()),
            (Dialect::Jobs, End::Failed(error)) => (None, json!({ "error": error.code, "message": error.message }).to_string()),
            (Dialect::Jobs, End::Cancelled) => (None, json!({ "error": "cancelled", "message": CANCELLED }).to_string()),
            (Dialect::Chat, End::Done(finish)) => {
                let done =
                    json!({ "text": text, "reason": finish.as_deref().unwrap_or("stop"), "finished_at": shown(clock::now()) });
                (Some("done"), done.to_string())
            }
            (Dialect::Chat, End::Failed(error)) => (Some("error"), json!({ "message": error.message }).to_string()),
            (Dialect::Chat, End::Cancelled) => (Some("error"), json!({ "message": CANCELLED }).to_string()),
        };
        let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
        format!("id: {at}{END}\n{name}data: {data}\n\n").into()
    }
}

const CANCELLED: &str = "the job was cancelled; the answer so far is incomplete";

fn shown(at: UnixMillis) -> String {
    crate::accounts::wallet::iso(at)
}

/// What existing clients hear first: the job, without its prompt, and who serves it.
fn opening(row: &JobRow) -> Bytes {
    let job: Value = json!({
        "id": row.id.0, "status": super::jobs::status(row.status), "model_name": row.model, "created_at": shown(row.created),
    });
    let meta = json!({
        "provider_node_id": row.worker.map(|worker| worker.to_string()), "provider_name": null, "model": row.model,
        "started_at": row.started.map(shown), "engine": null,
    });
    format!("event: job\ndata: {job}\n\nevent: meta\ndata: {meta}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::JobError;
    use futures::StreamExt;

    fn reader(log: watch::Receiver<Log>, at: usize) -> Reader {
        Reader { log, at, over: false, dialect: Dialect::Jobs, opening: None, quiet: PING }
    }

    async fn all(reader: Reader) -> String {
        events(reader).map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap()).collect::<Vec<_>>().await.concat()
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_loses_and_repeats_nothing() {
        let (tell, log) = watch::channel(Log::default());
        let whole = "one two thr\u{e9}e four";
        let done = tokio::spawn(all(reader(log.clone(), 0)));
        for piece in whole.split_inclusive(' ') {
            tell.send_modify(|log| log.text.push_str(piece));
            tokio::task::yield_now().await;
        }
        tell.send_modify(|log| log.end = Some(End::Done(Some("stop".into()))));
        let text = |stream: &str| {
            let events = stream.split_terminator("\n\n").filter_map(|event| event.split_once("data: "));
            let texts = events.filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok());
            texts.filter_map(|data| data["text"].as_str().map(str::to_owned)).collect::<String>()
        };
        let stream = done.await.unwrap();
        assert_eq!(text(&stream), whole);
        assert!(stream.ends_with(&format!("id: {}.end\ndata: [DONE]\n\n", whole.len())), "{stream}");
        for (at, _) in whole.char_indices() {
            assert_eq!(text(&all(reader(log.clone(), at)).await), whole[at..]);
        }
    }

    #[tokio::test]
    async fn a_quiet_stream_is_kept_alive() {
        let (_tell, log) = watch::channel(Log::default());
        let mut reader = Reader { quiet: Duration::from_millis(1), ..reader(log, 0) };
        assert_eq!(reader.next().await.as_deref(), Some(&b": ping\n\n"[..]));
    }

    #[tokio::test]
    async fn what_breaks_off_never_looks_complete() {
        let failed = End::Failed(JobError { code: "node_disconnected".into(), message: "gone".into() });
        let (_tell, log) = watch::channel(Log { text: "so f".into(), end: Some(failed) });
        let stream = all(reader(log, 0)).await;
        assert!(stream.ends_with("data: {\"error\":\"node_disconnected\",\"message\":\"gone\"}\n\n"), "{stream}");
        assert!(!stream.contains("[DONE]"));
    }

    #[tokio::test]
    async fn a_backlog_comes_in_bounded_pieces() {
        let text = "\u{e9}".repeat(PIECE);
        let (_tell, log) = watch::channel(Log { text: text.clone(), end: Some(End::Done(None)) });
        let pieces: Vec<Bytes> = events(reader(log, 0)).map(Result::unwrap).collect().await;
        assert!(pieces.len() >= 3 && pieces.iter().all(|piece| piece.len() < 2 * PIECE), "{}", pieces.len());
    }
}
