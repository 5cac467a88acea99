//! `/api/chat*`, as clients of the existing control plane know it, without its leaks: a job is readable by its client, or, where
//! the plane's operator pays for those who are nobody, by whoever holds the job's unguessable name. Its prompt is told to nobody.

use super::{
    body,
    caller::{Caller, Maybe},
    error::{Existing, Refusal},
    jobs::{self, JobRequest, Message, Settings},
    limits::From as Sender,
    stream::{self, Dialect},
};
use crate::{
    accounts::{ANONYMOUS, Scope, wallet::iso},
    gateway::{Begun, Gateway, NewJob},
    state::Plane,
    store::{ClientId, JobRow, WebJobId},
};
use axum::{
    Extension, Json, Router,
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use infernet_node::clock;
use infernet_wire::{hash, id::Hash, money::MicroUsd};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Names that mean any model.
const ANY: [&str; 3] = ["", "auto", "default"];

/// The routes.
pub fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/chat", post(ask))
        .route("/api/chat/stream/{id}", get(follow))
        .route("/api/chat/{id}/status", get(status))
}

/// What existing clients send.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatBody {
    messages: Option<Vec<Message>>,
    model_name: Option<String>,
    max_tokens: Option<u32>,
    temperature: Option<f64>,
    provider_id: Option<String>,
    #[schema(value_type = Option<Object>)]
    encrypted_messages: Option<Value>,
}

/// What they are told.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatAccepted {
    job_id: String,
    status: &'static str,
    source: &'static str,
    #[schema(value_type = Option<Object>)]
    provider: Option<Value>,
    stream_url: String,
}

/// Ask for a job, as the existing control plane's clients do.
#[utoipa::path(post, path = "/api/chat", tag = "existing clients", request_body = ChatBody, responses(
    (status = 200, body = ChatAccepted), (status = 400), (status = 401), (status = 402), (status = 429), (status = 503)))]
async fn ask(
    State(plane): State<Plane>,
    Maybe(somebody): Maybe,
    Extension(from): Extension<Sender>,
    request: Request,
) -> Result<Response, Existing> {
    let gateway = jobs::gateway(&plane)?;
    let (client, key, payer) = match somebody.map(Caller) {
        Some(caller) => {
            caller.needs(Scope::Jobs)?;
            let key = caller.key().map(|key| (key.hash, key.per_day));
            (caller.client().clone(), key, body::payer(&caller.0.client).to_owned())
        }
        None => (ClientId(ANONYMOUS.into()), Some(anonymous(&plane, from)?), from.counted()),
    };
    let (parts, body) = request.into_parts();
    let (bytes, room) = body::read_into(gateway, &payer, &parts.headers, body).await?;
    let asked: ChatBody = body::parse(&bytes)?;
    drop(bytes);
    if asked.encrypted_messages.is_some() {
        return Err(Refusal::bad(
            "encryptedMessages are not taken: send messages, or run a node, whose prompts only the worker reads",
        )
        .into());
    }
    let named = asked.model_name.unwrap_or_default();
    let model = if ANY.contains(&named.as_str()) {
        match any_model(gateway).await {
            Some(model) => model,
            None => return Ok(nobody()),
        }
    } else {
        named
    };
    let settings = Settings {
        model,
        max_tokens: asked.max_tokens,
        temperature: asked.temperature,
        node_id: asked.provider_id,
        ..Settings::default()
    };
    let asked = JobRequest { messages: asked.messages, prompt: None, settings }.check(gateway.config())?;
    let new = NewJob {
        client,
        key,
        model: asked.order.request.model.clone(),
        most: asked.order.worst(),
        text: None,
        idempotency: None,
        followed: true,
    };
    let row = match gateway.submit(new, asked.order, Some(room)).await? {
        Begun::New(live, _) => live.row().await,
        Begun::Same(row) => *row,
    };
    let stream_url = format!("/api/chat/stream/{}", row.id.0);
    let status = jobs::status(row.status);
    Ok(Json(ChatAccepted { job_id: row.id.0, status, source: "p2p", provider: None, stream_url }).into_response())
}

/// What an address may spend without being anybody.
fn anonymous(plane: &Plane, from: Sender) -> Result<(Hash, Option<MicroUsd>), Refusal> {
    let nobody = || Refusal::unauthorized("this plane answers its clients alone: show a key as `Authorization: Bearer …`");
    let per_day = plane.config.http.anonymous_per_day.ok_or_else(nobody)?;
    Ok((hash::tagged("infernet/anonymous/1", &[from.counted().as_bytes()]), Some(per_day)))
}

/// The model that most workers serve.
async fn any_model(gateway: &Gateway) -> Option<String> {
    let known = gateway.through().buyer.known_models().await;
    known.into_iter().max_by_key(|model| (model.workers, model.slots)).map(|model| model.id)
}

fn nobody() -> Response {
    let detail = json!({ "hint": "no worker is known yet: try again in a moment" });
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "no provider is there", "detail": detail }))).into_response()
}

/// The job, for those who may read it.
async fn readable(plane: &Plane, somebody: &Maybe, id: &str) -> Result<JobRow, Refusal> {
    let none = || Refusal::not_found("job");
    if !jobs::is_id(id) {
        return Err(none());
    }
    if let Some(somebody) = &somebody.0 {
        Caller(somebody.clone()).needs(Scope::Read)?;
    }
    let row = plane.store.job(&WebJobId(id.to_owned())).await?.ok_or_else(none)?;
    let own = somebody.0.as_ref().is_some_and(|somebody| somebody.client.id == row.client);
    if own || row.client.0 == ANONYMOUS { Ok(row) } else { Err(none()) }
}

/// Follow a job's answer, as the existing control plane's clients do: events `job`, `meta`, `token`, `done`, `error`.
#[utoipa::path(get, path = "/api/chat/stream/{id}", tag = "existing clients",
    params(("id" = String, Path, description = "Its name")),
    responses((status = 200, content_type = "text/event-stream"), (status = 404)))]
async fn follow(
    State(plane): State<Plane>,
    somebody: Maybe,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Existing> {
    let row = readable(&plane, &somebody, &id).await?;
    let asked = jobs::pairs(query.as_deref().unwrap_or_default()).find(|(name, _)| *name == "last_event_id").map(|(_, v)| v);
    Ok(stream::respond(&plane, row, &headers, asked.as_deref(), Dialect::Chat, clock::now())?)
}

/// How far a job is, as the existing control plane's clients ask.
#[utoipa::path(get, path = "/api/chat/{id}/status", tag = "existing clients",
    params(("id" = String, Path, description = "Its name")), responses((status = 200, body = Object), (status = 404)))]
async fn status(State(plane): State<Plane>, somebody: Maybe, Path(id): Path<String>) -> Result<Json<Value>, Existing> {
    let row = readable(&plane, &somebody, &id).await?;
    let error = row.error.as_ref().map(|error| error.message.clone());
    Ok(Json(json!({
        "id": row.id.0, "status": jobs::status(row.status), "model_name": row.model,
        "provider_id": row.worker.map(|worker| worker.to_string()), "error": error, "latest_error_message": error,
        "completed_at": row.ended.map(iso), "updated_at": iso(row.updated),
    })))
}
