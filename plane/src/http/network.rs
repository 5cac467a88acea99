//! What the network is like, from the index. Open to all: it is what gossip tells anybody, and holds no prompt and no answer.

use super::error::{ErrorBody, Refusal};
use crate::{query, state::Plane};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    routing::get,
};
use infernet_node::clock;
use infernet_wire::{
    id::{Hash, JobId, NodeId},
    receipt::SignedReceipt,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Rows of a page unless a request names another number.
const PAGE: usize = 50;
/// Hours of traffic and days of earnings unless a request names another number.
const HOURS: u64 = 24;
const DAYS: u64 = 30;

/// The routes.
pub fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/v1/overview", get(overview))
        .route("/api/v1/traffic", get(traffic))
        .route("/api/v1/demand", get(demand))
        .route("/api/v1/auctions", get(auctions))
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{id}", get(node))
        .route("/api/v1/nodes/{id}/status", get(status))
        .route("/api/v1/nodes/{id}/earnings", get(earnings))
        .route("/api/v1/receipts", get(receipts))
        .route("/api/v1/cprs/{id}", get(receipt))
}

/// What a list is asked for by.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wish {
    limit: Option<usize>,
    after: Option<String>,
    worker: Option<String>,
    viewer: Option<String>,
    offline: bool,
    hours: Option<u64>,
    days: Option<u64>,
}

impl Wish {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, query::MAX_ROWS)
    }
}

type Asked = Result<Query<Wish>, axum::extract::rejection::QueryRejection>;

fn wish(asked: Asked) -> Result<Wish, Refusal> {
    let told = "the query is not understood: limit, hours and days are whole numbers, offline is true or false";
    asked.map(|Query(wish)| wish).map_err(|_| Refusal::bad(told))
}

fn node_id(text: &str) -> Result<NodeId, Refusal> {
    text.parse().map_err(|_| Refusal::bad("that is no node id: they begin with 16Uiu2H"))
}

fn maybe_node(text: Option<&String>) -> Result<Option<NodeId>, Refusal> {
    text.map(|text| node_id(text)).transpose()
}

fn shown<T: Serialize>(name: &str, rows: T) -> Json<Value> {
    Json(json!({ name: rows }))
}

/// The network at a glance.
#[utoipa::path(get, path = "/api/v1/overview", tag = "network", responses((status = 200, body = Object)))]
async fn overview(State(plane): State<Plane>) -> Json<query::Overview> {
    Json(plane.index.read(|book| query::overview(book, clock::now())))
}

/// Volume and speed, hour by hour; `hours` is 24 unless named, a month at most.
#[utoipa::path(get, path = "/api/v1/traffic", tag = "network",
    params(("hours" = Option<u64>, Query, description = "24 unless said, at most 744")),
    responses((status = 200, body = Object), (status = 400, body = ErrorBody)))]
async fn traffic(State(plane): State<Plane>, asked: Asked) -> Result<Json<Value>, Refusal> {
    let hours = wish(asked)?.hours.unwrap_or(HOURS);
    Ok(shown("hours", plane.index.read(|book| query::traffic(book, clock::now(), hours))))
}

/// Models that buyers asked for in the last hour and that nobody serves.
#[utoipa::path(get, path = "/api/v1/demand", tag = "network", responses((status = 200, body = Object)))]
async fn demand(State(plane): State<Plane>) -> Json<Value> {
    shown("models", plane.index.read(|book| query::demand(book, clock::now())))
}

/// The newest auctions. Bids are sealed: only those that the buyer named are counted.
#[utoipa::path(get, path = "/api/v1/auctions", tag = "network",
    params(("limit" = Option<usize>, Query, description = "Rows at most; 50 unless said, at most 500")),
    responses((status = 200, body = Object), (status = 400, body = ErrorBody)))]
async fn auctions(State(plane): State<Plane>, asked: Asked) -> Result<Json<Value>, Refusal> {
    let limit = wish(asked)?.limit();
    Ok(shown("auctions", plane.index.read(|book| query::auctions(book, limit))))
}

/// Nodes by their ids, after the one named by `after`; with `offline=true` those that are gone, too.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "network",
    params(("limit" = Option<usize>, Query, description = "Rows at most; 50 unless said, at most 500"), ("after" = Option<String>, Query, description = "The `next` of the page before"), ("offline" = Option<bool>, Query, description = "Those that are gone, too")),
    responses((status = 200, body = Object), (status = 400, body = ErrorBody)))]
async fn nodes(State(plane): State<Plane>, asked: Asked) -> Result<Json<Value>, Refusal> {
    let wish = wish(asked)?;
    let after = maybe_node(wish.after.as_ref())?;
    let rows = plane.index.read(|book| query::nodes(book, clock::now(), after.as_ref(), wish.offline, wish.limit()));
    let next = rows.last().filter(|_| rows.len() == wish.limit()).map(|row| row.id);
    Ok(Json(json!({ "nodes": rows, "next": next })))
}

fn view(plane: &Plane, id: &NodeId) -> Result<query::NodeView, Refusal> {
    plane.index.read(|book| query::node(book, id, clock::now())).ok_or_else(|| Refusal::not_found("node"))
}

/// All that is known of a node. With `viewer`, its reputation by the receipts of that node alone, beside the other.
#[utoipa::path(get, path = "/api/v1/nodes/{id}", tag = "network",
    params(("id" = String, Path, description = "The node's id"), ("viewer" = Option<String>, Query, description = "Whose receipts alone count")),
    responses((status = 200, body = Object), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn node(State(plane): State<Plane>, Path(id): Path<String>, asked: Asked) -> Result<Json<Value>, Refusal> {
    let (id, viewer) = (node_id(&id)?, maybe_node(wish(asked)?.viewer.as_ref())?);
    let view = view(&plane, &id)?;
    let own = viewer.map(|viewer| plane.index.read(|book| query::reputation_with(book, &id, &viewer)));
    let mut shown = serde_json::to_value(view).unwrap_or_default();
    if let (Some(fields), Some(own)) = (shown.as_object_mut(), own) {
        fields.insert("viewer_reputation".into(), json!(own));
    }
    Ok(Json(shown))
}

/// Whether a node is there.
#[utoipa::path(get, path = "/api/v1/nodes/{id}/status", tag = "network",
    params(("id" = String, Path, description = "The node's id")),
    responses((status = 200, body = Object), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn status(State(plane): State<Plane>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let view = view(&plane, &node_id(&id)?)?;
    let status = if view.online { "online" } else { "offline" };
    Ok(Json(json!({ "id": view.id, "status": status, "last_seen": view.seen })))
}

/// What a node earned, day by day; `days` is 30 unless named, a year at most.
#[utoipa::path(get, path = "/api/v1/nodes/{id}/earnings", tag = "network",
    params(("id" = String, Path, description = "The node's id"), ("days" = Option<u64>, Query, description = "30 unless said, at most 366")),
    responses((status = 200, body = Object), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn earnings(State(plane): State<Plane>, Path(id): Path<String>, asked: Asked) -> Result<Json<Value>, Refusal> {
    let (id, days) = (node_id(&id)?, wish(asked)?.days.unwrap_or(DAYS));
    view(&plane, &id)?;
    Ok(shown("days", plane.index.read(|book| query::earnings(book, &id, clock::now(), days))))
}

/// The newest receipts, of all or of one `worker`.
#[utoipa::path(get, path = "/api/v1/receipts", tag = "network",
    params(("limit" = Option<usize>, Query, description = "Rows at most; 50 unless said, at most 500"), ("worker" = Option<String>, Query, description = "Of this node alone")),
    responses((status = 200, body = Object), (status = 400, body = ErrorBody)))]
async fn receipts(State(plane): State<Plane>, asked: Asked) -> Result<Json<Value>, Refusal> {
    let wish = wish(asked)?;
    let worker = maybe_node(wish.worker.as_ref())?;
    Ok(shown("receipts", plane.index.read(|book| query::receipts(book, worker.as_ref(), wish.limit()))))
}

/// A Compute Payment Receipt by its digest, or all receipts of a job by its id, with both statements as they were signed.
#[utoipa::path(get, path = "/api/v1/cprs/{id}", tag = "network",
    params(("id" = String, Path, description = "A receipt's digest, or a job")),
    responses((status = 200, body = Object), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn receipt(State(plane): State<Plane>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let by_job: Option<JobId> = id.parse().ok();
    let by_digest: Option<Hash> = id.parse().ok();
    if by_job.is_none() && by_digest.is_none() {
        return Err(Refusal::bad("name a receipt's digest (64 hexadecimal digits) or a job (32)"));
    }
    let found = plane.index.read(|book| match (by_job, by_digest) {
        (Some(job), _) => query::receipts_of_job(book, &job),
        (_, Some(digest)) => query::receipt(book, &digest).into_iter().collect(),
        _ => Vec::new(),
    });
    let mut shown = Vec::new();
    for row in found {
        let signed = plane.store.receipt(row.job, row.worker).await?;
        shown.push(json!({ "receipt": row, "signed": signed.as_ref().map(parts) }));
    }
    if shown.is_empty() { Err(Refusal::not_found("receipt")) } else { Ok(self::shown("receipts", shown)) }
}

/// Both statements as hexadecimal CBOR, for whoever verifies them.
fn parts(signed: &SignedReceipt) -> Value {
    json!({
        "worker": hex::encode(signed.receipt().raw()),
        "buyer": signed.countersign().map(|countersign| hex::encode(countersign.raw())),
    })
}
