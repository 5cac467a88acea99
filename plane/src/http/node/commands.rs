//! A node asks for its operators' commands, says how far it is, and how it ended.

use super::{
    limit,
    reply::{Refusal, Reply, data},
    text, worker,
};
use crate::{
    auth::Signed,
    commands::{LEASE_MS, MAX_ERROR, kept_result, progress},
    state::Plane,
    store::{CommandRow, CommandStatus, Notice, Pubkey},
};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use infernet_node::clock;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/v1/node/commands/poll", post(poll))
        .route("/api/v1/node/commands/{id}/complete", post(complete))
        .route("/api/v1/node/commands/{id}/progress", post(progressed))
}
/// Take the commands that wait for a node.
#[utoipa::path(post, path = "/api/v1/node/commands/poll", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object), (status = 404, body = Object)))]
async fn poll(State(plane): State<Plane>, signed: Signed) -> Reply {
    worker(&plane, signed.pubkey).await?;
    let (limit, now) = (limit(&signed.body, 5, 10), clock::now());
    let taken = plane.store.take_commands(signed.pubkey, limit, now, now.after(LEASE_MS)).await?;
    for command in &taken {
        told(&plane, command).await;
    }
    data(json!({ "commands": taken.iter().map(given).collect::<Vec<_>>() }))
}

/// A command as a node gets it. `signed` is what it verifies; existing daemons know only the rest.
fn given(row: &CommandRow) -> Value {
    let mut given = json!({ "id": row.id, "command": row.verb, "args": row.args });
    if let (Some(raw), Some(given)) = (&row.signed, given.as_object_mut()) {
        given.insert("signed".into(), hex::encode(raw).into());
    }
    given
}
/// Say how a command ended.
#[utoipa::path(post, path = "/api/v1/node/commands/{id}/complete", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request"), ("id" = String, Path, description = "Its id")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object), (status = 404, body = Object)))]
async fn complete(State(plane): State<Plane>, Path(id): Path<String>, signed: Signed) -> Reply {
    let status = match signed.body.get("status").and_then(Value::as_str) {
        Some("completed") => CommandStatus::Completed,
        Some("failed") => CommandStatus::Failed,
        _ => return Err(Refusal::bad("status must be one of: completed, failed")),
    };
    let before = of(&plane, &id, signed.pubkey).await?;
    let row = CommandRow {
        status,
        result: signed.body.get("result").filter(|result| !result.is_null()).and_then(kept_result),
        error: text(&signed.body, "error", MAX_ERROR),
        ended: Some(clock::now()),
        lease: None,
        ..before
    };
    if plane.store.update_command(at_it(&row), &row).await? {
        told(&plane, &row).await;
        return data(json!({ "id": row.id, "status": row.status }));
    }
    let now = of(&plane, &id, signed.pubkey).await?;
    data(json!({ "id": now.id, "status": now.status, "noop": true }))
}

/// Say how far a command is.
///
/// The status in the answer is how a node learns that the command was cancelled.
#[utoipa::path(post, path = "/api/v1/node/commands/{id}/progress", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request"), ("id" = String, Path, description = "Its id")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object), (status = 404, body = Object)))]
async fn progressed(State(plane): State<Plane>, Path(id): Path<String>, signed: Signed) -> Reply {
    let progress = progress(signed.body.get("progress").unwrap_or(&Value::Null))
        .ok_or_else(|| Refusal::bad("progress must be an object with status, phase, step, steps, total, completed or pct"))?;
    let before = of(&plane, &id, signed.pubkey).await?;
    let lease = Some(clock::now().after(LEASE_MS));
    let row = CommandRow { status: CommandStatus::Running, progress: Some(progress.clone()), lease, ..before };
    let status = if plane.store.update_command(at_it(&row), &row).await? {
        told(&plane, &row).await;
        row.status
    } else {
        of(&plane, &id, signed.pubkey).await?.status
    };
    data(json!({ "id": row.id, "progress": progress, "status": status }))
}

/// In which statuses a node is heard: whoever says how far it is, is at it, though its lease ended while nobody heard it.
fn at_it(row: &CommandRow) -> &'static [CommandStatus] {
    if row.started.is_some() { &[CommandStatus::Running, CommandStatus::Expired] } else { &[CommandStatus::Running] }
}

/// The command `id`, which must be `pubkey`'s.
async fn of(plane: &Plane, id: &str, pubkey: Pubkey) -> Result<CommandRow, Refusal> {
    let row = plane.store.command(id).await?.ok_or_else(|| Refusal::unknown("command not found"))?;
    if row.node != pubkey {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "command is not for this node"));
    }
    Ok(row)
}

/// Live pages hear of it.
pub(in crate::http) async fn told(plane: &Plane, row: &CommandRow) {
    let notice = Notice::Command { id: row.id.clone(), node: row.node };
    if let Err(error) = plane.store.notify(&notice).await {
        tracing::debug!("nobody is told of a command's change: {error}");
    }
}
