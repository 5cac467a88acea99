//! The node API: what daemons say to a plane, byte-compatible with the existing control plane.
//!
//! All routes are POST, signed with `X-Infernet-Auth` ([`crate::auth`]); answers are `{"data":…}`, refusals `{"error":"text"}`.
//! Nothing here is needed by the mesh: a node that never registers earns just the same.

pub mod reply;
pub mod specs;

pub(super) mod commands;
pub(super) mod payouts;

use super::limits::{self, From as Sender, Turns};
use crate::{
    auth::Signed,
    presence,
    state::Plane,
    store::{NodePut, NodeRow, Notice, Pubkey, Role, is_brief},
    uuid,
};
use axum::{Extension, Router, extract::State, http::StatusCode, routing::post};
use infernet_node::clock;
use infernet_wire::{id::NodeId, time::UnixMillis};
use reply::{Refusal, Reply, data, iso};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tracing::debug;

/// The longest name that a node gives itself.
const MAX_NODE_ID: usize = 64;
/// The longest name for people.
const MAX_NAME: usize = 80;
/// The longest address: a host name of DNS.
const MAX_ADDRESS: usize = 253;
/// What a node without a row is told.
const NO_ROW: &str = "no row for this pubkey — call /register first";

/// The routes of daemons.
pub fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/v1/node/register", post(register))
        .route("/api/v1/node/heartbeat", post(heartbeat))
        .route("/api/v1/node/me", post(me))
        .route("/api/v1/node/remove", post(remove))
        .merge(payouts::routes())
        .merge(commands::routes())
}

/// The role that a body names.
pub(super) fn role(body: &Map<String, Value>) -> Result<Role, Refusal> {
    match body.get("role").and_then(Value::as_str) {
        Some("provider") => Ok(Role::Provider),
        Some("aggregator") => Ok(Role::Aggregator),
        Some("client") => Ok(Role::Client),
        _ => Err(Refusal::bad("role must be one of: provider, aggregator, client")),
    }
}

/// The row that a key registered as a provider, else as an aggregator.
pub(super) async fn worker(plane: &Plane, pubkey: Pubkey) -> Result<NodeRow, Refusal> {
    for role in [Role::Provider, Role::Aggregator] {
        if let Some(row) = plane.store.node(pubkey, role).await? {
            return Ok(row);
        }
    }
    Err(Refusal::unknown(NO_ROW))
}

/// A whole number of the body from 1 to `most`; `usual` if there is none.
pub(super) fn limit(body: &Map<String, Value>, usual: usize, most: usize) -> usize {
    let given = body.get("limit").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    given.unwrap_or(usual).clamp(1, most)
}

/// A text of the body without control characters, cut to `most` characters.
pub(super) fn text(body: &Map<String, Value>, key: &str, most: usize) -> Option<String> {
    body.get(key).and_then(Value::as_str).map(|text| specs::plain(text, most))
}
/// Register a node, or change its row.
#[utoipa::path(post, path = "/api/v1/node/register", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object)))]
async fn register(
    State(plane): State<Plane>,
    Extension(from): Extension<Sender>,
    Extension(turns): Extension<Arc<Turns>>,
    signed: Signed,
) -> Reply {
    let (now, role) = (clock::now(), role(&signed.body)?);
    let node_id = node_id(&signed.body)?;
    // Whoever goes by a node's id must be that node.
    if node_id.parse::<NodeId>().is_ok_and(|id| id.x_only() != signed.pubkey.0) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "node_id is owned by another pubkey"));
    }
    let before = plane.store.node(signed.pubkey, role).await?;
    if before.is_none() {
        // Keys cost nothing, and each makes a row.
        limits::new_node_turn(&plane, &turns, from)?;
    }
    let row = registered(before, &signed, role, node_id, now);
    match plane.store.put_node(&row).await? {
        NodePut::Kept => {}
        NodePut::Taken => return Err(Refusal::new(StatusCode::FORBIDDEN, "node_id is owned by another pubkey")),
    }
    told(&plane, signed.pubkey).await;
    // Of two first registrations at once the earlier one's id stays.
    let kept = plane.store.node(signed.pubkey, role).await?.unwrap_or(row);
    data(json!({ "id": kept.id, "node_id": kept.node_id }))
}

fn node_id(body: &Map<String, Value>) -> Result<String, Refusal> {
    let given = body.get("node_id").and_then(Value::as_str).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if (1..=MAX_NODE_ID).contains(&given.len()) && given.chars().all(plain) {
        return Ok(given.into());
    }
    Err(Refusal::bad("node_id must be 1 to 64 letters, digits, '-', '_', '.' or ':'"))
}

/// The row after a registration. What it does not say stays, but whether its requests name the plane, which is never taken back.
fn registered(before: Option<NodeRow>, signed: &Signed, role: Role, node_id: String, now: UnixMillis) -> NodeRow {
    let named = before.as_ref().is_some_and(|row| row.names_audience);
    let mut row = before.unwrap_or_else(|| NodeRow {
        pubkey: signed.pubkey,
        role,
        id: uuid::random(),
        node_id: String::new(),
        name: String::new(),
        address: String::new(),
        port: 0,
        available: true,
        specs: json!({}),
        public: true,
        names_audience: false,
        registered: now,
        seen: now,
    });
    row.node_id = node_id;
    row.names_audience = named || signed.names_audience;
    row.name = text(&signed.body, "name", MAX_NAME).unwrap_or(row.name);
    heard(&mut row, &signed.body, now);
    extra(&mut row, &signed.body);
    row
}

/// What both a registration and a heartbeat may say.
fn heard(row: &mut NodeRow, body: &Map<String, Value>, now: UnixMillis) {
    row.seen = now;
    row.available = body.get("status").and_then(Value::as_str) != Some("offline");
    if let Some(address) = text(body, "address", MAX_ADDRESS) {
        row.address = address;
    }
    if let Some(port) = body.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()) {
        row.port = port;
    }
    if let Some(given) = body.get("specs").filter(|given| given.is_object()) {
        row.specs = specs::kept(given);
        if is_brief(row.registered, row.seen) {
            specs::shorten(&mut row.specs);
        }
    }
}

/// What a registration says beside its specs is kept with them.
fn extra(row: &mut NodeRow, body: &Map<String, Value>) {
    let more: Map<String, Value> =
        ["gpu_model", "price"].iter().filter_map(|key| Some(((*key).to_owned(), body.get(*key)?.clone()))).collect();
    if let (Value::Object(specs), Value::Object(more)) = (&mut row.specs, specs::kept(&Value::Object(more))) {
        specs.extend(more);
    }
}
/// Say that a node is there, and how busy it is.
#[utoipa::path(post, path = "/api/v1/node/heartbeat", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object), (status = 404, body = Object)))]
async fn heartbeat(State(plane): State<Plane>, signed: Signed) -> Reply {
    let (now, role) = (clock::now(), role(&signed.body)?);
    let mut row = plane.store.node(signed.pubkey, role).await?.ok_or(Refusal::unknown(NO_ROW))?;
    heard(&mut row, &signed.body, now);
    plane.store.put_node(&row).await?;
    if !row.available {
        plane.legacy.left(signed.pubkey);
    }
    told(&plane, signed.pubkey).await;
    data(json!({ "id": row.id }))
}
/// The row of who asks.
#[utoipa::path(post, path = "/api/v1/node/me", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object)))]
async fn me(State(plane): State<Plane>, signed: Signed) -> Reply {
    let row = plane.store.node(signed.pubkey, role(&signed.body)?).await?;
    let now = clock::now();
    data(json!({ "row": row.map(|row| shown(&row, plane.config.offline_ms, now)) }))
}

/// A row as its own node sees it.
fn shown(row: &NodeRow, silence_ms: u64, now: UnixMillis) -> Value {
    let status = if presence::is_online(row, silence_ms, now) { "available" } else { "offline" };
    json!({
        "id": row.id,
        "node_id": row.node_id,
        "role": row.role,
        "public_key": hex::encode(row.pubkey.0),
        "name": row.name,
        "status": status,
        "address": Some(&row.address).filter(|address| !address.is_empty()),
        "port": Some(row.port).filter(|port| *port > 0),
        "gpu_model": row.specs.get("gpu_model"),
        "price": row.specs.get("price"),
        "specs": row.specs,
        "is_public": row.public,
        "created_at": iso(row.registered),
        "last_seen": iso(row.seen),
    })
}
/// Remove the row of who asks.
#[utoipa::path(post, path = "/api/v1/node/remove", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object)))]
async fn remove(State(plane): State<Plane>, signed: Signed) -> Reply {
    let removed = plane.store.remove_node(signed.pubkey, role(&signed.body)?).await?;
    plane.legacy.left(signed.pubkey);
    told(&plane, signed.pubkey).await;
    match removed {
        Some(row) => data(json!({ "deleted": true, "id": row.id })),
        None => data(json!({ "deleted": false })),
    }
}

/// Live pages hear of it; if they don't, they see it when they ask.
async fn told(plane: &Plane, pubkey: Pubkey) {
    if let Err(error) = plane.store.notify(&Notice::Node { pubkey }).await {
        debug!("nobody is told of a node's change: {error}");
    }
}
