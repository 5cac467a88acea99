//! `/api/v1/jobs*`: ask, look, follow, cancel. A job is its client's alone: to everybody else it is not there.

mod request;
mod shown;

pub use request::{BatchRequest, JobRequest, Message, Settings, Stop};
pub use shown::{Accepted, Batch, BatchItem, JobList, JobResult, JobView, Problem, Usage, status};

use super::{
    body,
    caller::Caller,
    error::{ErrorBody, Refusal},
    stream,
};
use crate::{
    accounts::Scope,
    gateway::{Begun, Gateway, NewJob},
    shares::Share,
    state::Plane,
    store::{Idempotency, JobQuery, JobRow, JobStatus, WebJobId},
};
use axum::{
    Json, Router,
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use infernet_node::clock;
use infernet_wire::{hash, id::Hash, time::UnixMillis};
use request::Asked;
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// Jobs of one batch. Larger ones are several.
pub const MAX_BATCH: usize = 64;
/// The longest `Idempotency-Key`.
const MAX_IDEMPOTENCY_KEY: usize = 255;
/// Jobs of a page where nobody says otherwise, and at most.
const PAGE: usize = 20;
const MAX_PAGE: usize = 100;
/// How long a cancel waits for the job to end, so that most answers tell how it did.
const CANCEL: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// The routes.
pub fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/v1/jobs", post(submit).get(list))
        .route("/api/v1/jobs/batch", post(batch))
        .route("/api/v1/jobs/{id}", get(show).delete(cancel))
        .route("/api/v1/jobs/{id}/stream", get(follow))
}

/// The gateway, where there is one.
pub(super) fn gateway(plane: &Plane) -> Result<&Arc<Gateway>, Refusal> {
    plane
        .gateway
        .as_ref()
        .ok_or_else(|| Refusal::unavailable("this plane buys nothing for clients: ask another, or run a node"))
}

/// Ask for a job. It is bought on the mesh in the background; follow it at `stream_url`.
#[utoipa::path(post, path = "/api/v1/jobs", tag = "jobs", request_body = JobRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same request under the same key is one job")),
    responses((status = 202, body = Accepted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 402, body = ErrorBody), (status = 413, body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn submit(State(plane): State<Plane>, caller: Caller, request: Request) -> Result<Response, Refusal> {
    caller.needs(Scope::Jobs)?;
    let gateway = gateway(&plane)?;
    let (parts, body) = request.into_parts();
    let (bytes, room) = body::read_into(gateway, body::payer(&caller.0.client), &parts.headers, body).await?;
    let idempotency = idempotency(&parts.headers, &bytes)?;
    let asked = body::parse::<JobRequest>(&bytes)?.check(gateway.config())?;
    drop(bytes);
    let accepted = begin(gateway, &caller, asked, idempotency, room).await?;
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, format!("/api/v1/jobs/{}", accepted.id))], Json(accepted)).into_response())
}

/// Ask for many jobs with the same settings. All are checked before one is begun; each is paid for by itself.
#[utoipa::path(post, path = "/api/v1/jobs/batch", tag = "jobs", request_body = BatchRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same request under the same key is one batch")),
    responses((status = 422, body = ErrorBody), (status = 202, body = Batch), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 402, body = ErrorBody), (status = 413, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn batch(State(plane): State<Plane>, caller: Caller, request: Request) -> Result<Response, Refusal> {
    caller.needs(Scope::Jobs)?;
    let gateway = gateway(&plane)?;
    let (parts, body) = request.into_parts();
    let (bytes, room) = body::read_into(gateway, body::payer(&caller.0.client), &parts.headers, body).await?;
    let idempotency = idempotency(&parts.headers, &bytes)?;
    let all: Vec<Asked> = body::parse::<BatchRequest>(&bytes)?.check(gateway.config())?;
    drop(bytes);
    let mut jobs = Vec::with_capacity(all.len());
    for (place, asked) in all.into_iter().enumerate() {
        let idempotency = idempotency.clone().map(|own| Idempotency { key: format!("{}#{place}", own.key), ..own });
        match begin(gateway, &caller, asked, idempotency, room.clone()).await {
            // If not one could be begun, the batch was refused.
            Err(refusal) if place == 0 => return Err(refusal),
            begun => jobs.push(BatchItem::from(begun)),
        }
    }
    Ok((StatusCode::ACCEPTED, Json(Batch { jobs })).into_response())
}

async fn begin(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    asked: Asked,
    idempotency: Option<Idempotency>,
    room: Arc<Share>,
) -> Result<Accepted, Refusal> {
    let new = NewJob {
        client: caller.client().clone(),
        key: caller.key().map(|key| (key.hash, key.per_day)),
        model: asked.order.request.model.clone(),
        most: asked.order.worst(),
        text: asked.text,
        idempotency,
        followed: true,
    };
    match gateway.submit(new, asked.order, Some(room)).await? {
        Begun::New(live, _) => Ok(Accepted::from(&live.row().await)),
        Begun::Same(row) => Ok(Accepted::from(&*row)),
    }
}

fn idempotency(headers: &HeaderMap, body: &[u8]) -> Result<Option<Idempotency>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let bad = || Refusal::bad(format!("Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} plain characters"));
    let key = value.to_str().ok().filter(|key| (1..=MAX_IDEMPOTENCY_KEY).contains(&key.len())).ok_or_else(bad)?;
    let request: Hash = hash::sha256(body);
    Ok(Some(Idempotency { key: key.to_owned(), request }))
}

/// The caller's job `id`; for others it is not there.
pub(super) async fn own(plane: &Plane, caller: &Caller, id: &str) -> Result<JobRow, Refusal> {
    let none = || Refusal::not_found("job");
    let id = WebJobId(Some(id).filter(|id| is_id(id)).ok_or_else(none)?.to_owned());
    let row = plane.store.job(&id).await?.filter(|row| row.client == *caller.client()).ok_or_else(none)?;
    Ok(row)
}

/// `job_` and 32 hexadecimal digits.
pub(super) fn is_id(id: &str) -> bool {
    id.strip_prefix("job_").is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A job, and how far it is.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "Its name")),
    responses((status = 200, body = JobView), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn show(State(plane): State<Plane>, caller: Caller, Path(id): Path<String>) -> Result<Json<JobView>, Refusal> {
    caller.needs(Scope::Read)?;
    let row = own(&plane, &caller, &id).await?;
    Ok(Json(viewed(&plane, row)))
}

/// The row with what this instance remembers of its answer.
pub(super) fn viewed(plane: &Plane, row: JobRow) -> JobView {
    let live = plane.gateway.as_ref().and_then(|gateway| gateway.live(&row.id));
    let log = live.and_then(|live| live.follow()).map(|log| log.borrow().clone());
    JobView::new(row, log)
}

/// The caller's jobs, the newest first; without their answers, of which each may be megabytes: look at one for its own.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs",
    params(("limit" = Option<usize>, Query, description = "At most so many; 20 unless said, at most 100"),
        ("status" = Option<String>, Query, description = "pending, assigned, running, completed, failed or cancelled"),
        ("model" = Option<String>, Query, description = "For this model alone"),
        ("since" = Option<u64>, Query, description = "That came since, in unix milliseconds"),
        ("before" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, body = JobList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
async fn list(State(plane): State<Plane>, caller: Caller, RawQuery(query): RawQuery) -> Result<Json<JobList>, Refusal> {
    caller.needs(Scope::Read)?;
    let mut wanted = page_of(query.as_deref().unwrap_or_default())?;
    wanted.client = Some(caller.client().clone());
    let rows = plane.store.jobs(&wanted).await?;
    let next = rows.last().filter(|_| rows.len() == wanted.limit).map(place_of);
    let jobs = rows.into_iter().map(|row| JobView::new(JobRow { text: None, ..row }, None)).collect();
    Ok(Json(JobList { jobs, next }))
}

fn page_of(query: &str) -> Result<JobQuery, Refusal> {
    let mut wanted = JobQuery { limit: PAGE, ..JobQuery::default() };
    for (name, value) in pairs(query) {
        match name {
            "limit" => {
                let bad = || Refusal::bad(format!("limit must be 1 to {MAX_PAGE}"));
                wanted.limit = value.parse().ok().filter(|n| (1..=MAX_PAGE).contains(n)).ok_or_else(bad)?;
            }
            "status" => {
                let bad = || Refusal::bad("status must be pending, assigned, running, completed, failed or cancelled");
                let status = serde_json::from_value::<JobStatus>(value.as_str().into());
                wanted.status = Some(status.map_err(|_| bad())?);
            }
            "model" => wanted.model = Some(value),
            "since" => {
                let bad = || Refusal::bad("since must be a time in unix milliseconds");
                wanted.since = Some(UnixMillis(value.parse().map_err(|_| bad())?));
            }
            "before" => {
                wanted.before = Some(place(&value)?);
            }
            // Others are ignored, as everywhere.
            _ => {}
        }
    }
    Ok(wanted)
}

/// Where the page after `row` begins, as clients give it back.
pub(super) fn place_of(row: &JobRow) -> String {
    format!("{}-{}", row.created.0, row.id.0)
}

/// What [`place_of`] wrote.
pub(super) fn place(text: &str) -> Result<(UnixMillis, WebJobId), Refusal> {
    let bad = || Refusal::bad("before must be the `next` of the page before");
    let (at, id) = text.split_once('-').ok_or_else(bad)?;
    let at = UnixMillis(at.parse().map_err(|_| bad())?);
    Ok((at, WebJobId(Some(id).filter(|id| is_id(id)).ok_or_else(bad)?.to_owned())))
}

/// The pairs of a query, with `%XX` and `+` read.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, String)> {
    query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name, unescaped(value)))
}

fn unescaped(text: &str) -> String {
    String::from_utf8_lossy(&unescaped_bytes(text)).into_owned()
}

/// Whether what is escaped in a path is text.
pub(super) fn is_text(path: &str) -> bool {
    std::str::from_utf8(&unescaped_bytes(path)).is_ok()
}

fn unescaped_bytes(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.first_chunk::<2>()).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    bytes
}

/// Cancel a job: the worker stops, and what came is paid. What is over stays as it is.
#[utoipa::path(delete, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "Its name")),
    responses((status = 200, description = "It is over", body = JobView),
        (status = 202, description = "It will be in a moment", body = JobView),
        (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn cancel(
    State(plane): State<Plane>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<JobView>), Refusal> {
    caller.needs(Scope::Jobs)?;
    let row = own(&plane, &caller, &id).await?;
    if row.status.is_over() {
        return Ok((StatusCode::OK, Json(viewed(&plane, row))));
    }
    gateway(&plane)?.cancel(&row.id).await?;
    let over = async {
        loop {
            match plane.store.job(&row.id).await {
                Ok(Some(now)) if now.status.is_over() => return Ok(now),
                Ok(_) => sleep(LOOK).await,
                Err(error) => return Err(Refusal::from(error)),
            }
        }
    };
    match timeout(CANCEL, over).await {
        Ok(ended) => Ok((StatusCode::OK, Json(viewed(&plane, ended?)))),
        Err(_) => Ok((StatusCode::ACCEPTED, Json(viewed(&plane, row.clone())))),
    }
}

/// Follow a job's answer as server-sent events: `data: {"text":"…"}` until `data: [DONE]`, or `data: {"error","message"}` if it
/// broke off. Each event has an `id`; a reader that comes back with it as `Last-Event-ID` gets all that came since, once.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/stream", tag = "jobs",
    params(("id" = String, Path, description = "Its name"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last event that was read")),
    responses((status = 400, body = ErrorBody), (status = 200, description = "Server-sent events", content_type = "text/event-stream"),
        (status = 204, description = "The last event was the end"), (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 410, body = ErrorBody), (status = 421, body = ErrorBody)))]
async fn follow(
    State(plane): State<Plane>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    caller.needs(Scope::Read)?;
    let row = own(&plane, &caller, &id).await?;
    let asked = pairs(query.as_deref().unwrap_or_default()).find(|(name, _)| *name == "last_event_id").map(|(_, value)| value);
    stream::respond(&plane, row, &headers, asked.as_deref(), stream::Dialect::Jobs, clock::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_nonsense_names_its_field() {
        let id = format!("job_{}", "a".repeat(32));
        let wanted = page_of(&format!("limit=3&status=failed&model=a%2Fb+c&since=7&before=9-{id}&x=y")).unwrap();
        assert_eq!((wanted.limit, wanted.status, wanted.since), (3, Some(JobStatus::Failed), Some(UnixMillis(7))));
        assert_eq!((wanted.model.as_deref(), wanted.before), (Some("a/b c"), Some((UnixMillis(9), WebJobId(id)))));
        for (query, name) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("status=odd", "status"),
            ("since=x", "since"),
            ("before=1", "before"),
        ] {
            assert!(page_of(query).unwrap_err().message.starts_with(name), "{query}");
        }
        assert_eq!(page_of("").unwrap().limit, PAGE);
    }

    #[test]
    fn escapes_are_read_and_broken_ones_stay() {
        for (text, expected) in
            [("a%20b", "a b"), ("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%C3%A9", "é"), ("%ff", "\u{fffd}")]
        {
            assert_eq!(unescaped(text), expected);
        }
        assert!(is_text("/api/v1/nodes/%C3%A9") && !is_text("/api/v1/nodes/%ff"));
    }
}
