//! Existing daemons take jobs here, stream their answers and complete them. See [`crate::legacy`].

use super::node::{
    reply::{Refusal, Reply, data, iso},
    specs, text, worker,
};
use crate::{
    auth::Signed,
    legacy::{self, Ended, Event, Job, MAX_EVENT_BYTES, MAX_EVENTS, Refused},
    state::Plane,
};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use infernet_node::clock;
use serde_json::{Value, json};

/// The longest reason of a failure.
const MAX_ERROR: usize = 1_024;

/// The routes of the bridge.
pub fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/v1/node/jobs/poll", post(poll))
        .route("/api/v1/node/jobs/{id}/events", post(events))
        .route("/api/v1/node/jobs/{id}/complete", post(complete))
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Unknown => StatusCode::NOT_FOUND,
            Refused::NotAssigned => StatusCode::FORBIDDEN,
            Refused::Over => StatusCode::CONFLICT,
            Refused::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        };
        Refusal::new(status, refused.to_string())
    }
}

/// Take a job that no worker of the mesh bid on.
///
/// Nodes of the mesh, which name their audience, get their jobs there.
#[utoipa::path(post, path = "/api/v1/node/jobs/poll", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object), (status = 404, body = Object)))]
async fn poll(State(plane): State<Plane>, signed: Signed) -> Reply {
    let row = worker(&plane, signed.pubkey).await?;
    let daemon = legacy::daemon(&row).filter(|_| plane.config.legacy && row.available);
    let jobs = daemon.map(|daemon| plane.legacy.poll(&daemon, clock::now())).unwrap_or_default();
    data(json!({ "provider_id": row.id, "jobs": jobs.iter().map(given).collect::<Vec<_>>() }))
}

/// A job as daemons know it.
fn given(job: &Job) -> Value {
    json!({
        "id": job.id,
        "title": format!("chat:{}", job.model),
        "type": "chat",
        "status": "assigned",
        "payment_offer": 0,
        "payment_coin": null,
        "model_name": job.model,
        "input_spec": { "messages": job.messages, "max_tokens": job.max_tokens, "temperature": job.temperature },
        "created_at": iso(job.created),
    })
}
/// Pieces of an answer.
#[utoipa::path(post, path = "/api/v1/node/jobs/{id}/events", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request"), ("id" = String, Path, description = "Its id")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object), (status = 404, body = Object), (status = 409, body = Object)))]
async fn events(State(plane): State<Plane>, Path(id): Path<String>, signed: Signed) -> Reply {
    let given = signed.body.get("events").and_then(Value::as_array);
    let given = given.ok_or_else(|| Refusal::bad("events must be a list"))?;
    if given.len() > MAX_EVENTS {
        return Err(Refusal::bad(format!("at most {MAX_EVENTS} events per request")));
    }
    let events = given.iter().map(event).collect::<Result<Vec<_>, _>>()?;
    let inserted = plane.legacy.events(&id, signed.pubkey, &events, clock::now())?;
    data(json!({ "inserted": inserted }))
}

fn event(given: &Value) -> Result<Event, Refusal> {
    let data = given.get("data").unwrap_or(&Value::Null);
    let said = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
    if data.to_string().len() > MAX_EVENT_BYTES {
        return Err(Refusal::bad(format!("an event's data is at most {MAX_EVENT_BYTES} bytes")));
    }
    match given.get("event_type").and_then(Value::as_str) {
        Some("meta") => Ok(Event::Meta),
        Some("token") => Ok(Event::Text(said("text").into())),
        Some("done") => Ok(Event::Done),
        Some("error") => Ok(Event::Failed(specs::plain(said("message"), MAX_ERROR))),
        _ => Err(Refusal::bad("event_type must be one of: meta, token, done, error")),
    }
}
/// Say how a job ended.
#[utoipa::path(post, path = "/api/v1/node/jobs/{id}/complete", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request"), ("id" = String, Path, description = "Its id")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object), (status = 404, body = Object), (status = 409, body = Object)))]
async fn complete(State(plane): State<Plane>, Path(id): Path<String>, signed: Signed) -> Reply {
    let ended = if signed.body.get("status").and_then(Value::as_str) == Some("failed") {
        Ended::Failed(text(&signed.body, "error", MAX_ERROR).unwrap_or_else(|| "the node gave no reason".into()))
    } else {
        let whole = signed.body.get("result").and_then(|result| result.get("text")).and_then(Value::as_str);
        Ended::Completed(whole.map(str::to_owned))
    };
    let completed = plane.legacy.complete(&id, signed.pubkey, ended, clock::now())?;
    let mut reply = json!({ "id": id, "status": completed.status });
    if let (true, Some(reply)) = (completed.noop, reply.as_object_mut()) {
        reply.insert("noop".into(), true.into());
    }
    data(reply)
}
