//! What a node is owed here, and where it wants it.
//!
//! Workers of the mesh are paid by their buyers; a plane's book has only the jobs of daemons behind the legacy bridge.

use super::{
    limit,
    reply::{Refusal, Reply, data, iso},
    role, text,
};
use crate::{
    auth::Signed,
    state::Plane,
    store::{JobQuery, JobRow, JobStatus, PayoutRow, Role},
};
use axum::{Router, extract::State, routing::post};
use infernet_node::clock;
use serde_json::{Value, json};

/// The longest name of a coin or network.
const MAX_COIN: usize = 16;
/// The longest address of any chain in use is 108 characters.
const MAX_ADDRESS: usize = 128;
/// Coins of one node.
const MAX_PAYOUTS: usize = 16;

pub(super) fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/v1/node/payments/list", post(payments))
        .route("/api/v1/node/payouts/list", post(list))
        .route("/api/v1/node/payouts/set", post(set))
}
/// What a daemon behind the bridge was paid for.
#[utoipa::path(post, path = "/api/v1/node/payments/list", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object)))]
async fn payments(State(plane): State<Plane>, signed: Signed) -> Reply {
    let limit = limit(&signed.body, 20, 100);
    if role(&signed.body)? != Role::Provider {
        return data(json!({ "rows": [] }));
    }
    let query = JobQuery { legacy: Some(signed.pubkey), status: Some(JobStatus::Completed), limit, ..JobQuery::default() };
    let rows: Vec<Value> = plane.store.jobs(&query).await?.iter().map(payment).collect();
    data(json!({ "rows": rows }))
}

fn payment(job: &JobRow) -> Value {
    json!({
        "id": job.id.0,
        "job_id": job.id.0,
        "direction": "outbound",
        "amount_micro_usd": job.cost.unwrap_or_default().0,
        "status": "pending",
        "created_at": iso(job.ended.unwrap_or(job.updated)),
    })
}
/// Where a node wants its coins.
#[utoipa::path(post, path = "/api/v1/node/payouts/list", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object)))]
async fn list(State(plane): State<Plane>, signed: Signed) -> Reply {
    let rows: Vec<Value> = plane.store.payouts(signed.pubkey).await?.iter().map(shown).collect();
    data(json!({ "rows": rows }))
}
/// Set where a node wants a coin.
#[utoipa::path(post, path = "/api/v1/node/payouts/set", tag = "nodes", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 413, body = Object)))]
async fn set(State(plane): State<Plane>, signed: Signed) -> Reply {
    let row = payout(&signed)?;
    let known = plane.store.payouts(signed.pubkey).await?;
    let replaces = known.iter().any(|other| (&other.coin, &other.network) == (&row.coin, &row.network));
    if !replaces && known.len() >= MAX_PAYOUTS {
        return Err(Refusal::bad(format!("a node has at most {MAX_PAYOUTS} payout addresses")));
    }
    plane.store.put_payout(&row).await?;
    data(json!({ "row": shown(&row) }))
}

fn payout(signed: &Signed) -> Result<PayoutRow, Refusal> {
    let word = |key: &str, most: usize| text(&signed.body, key, most + 1).unwrap_or_default();
    let fits = |word: &str, most: usize| {
        (1..=most).contains(&word.len()) && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
    };
    let (coin, network, address) = (word("coin", MAX_COIN), word("network", MAX_COIN), word("address", MAX_ADDRESS));
    if !fits(&coin, MAX_COIN) {
        return Err(Refusal::bad("coin is required: letters and digits, such as USDC"));
    }
    if !network.is_empty() && !fits(&network, MAX_COIN) {
        return Err(Refusal::bad("network must be letters and digits, such as base"));
    }
    if !fits(&address, MAX_ADDRESS) {
        return Err(Refusal::bad("address is required: an address of that coin, without spaces"));
    }
    let coin = coin.to_ascii_uppercase();
    Ok(PayoutRow { pubkey: signed.pubkey, coin, network: network.to_ascii_lowercase(), address, set: clock::now() })
}

fn shown(row: &PayoutRow) -> Value {
    let network = Some(&row.network).filter(|network| !network.is_empty());
    json!({ "coin": row.coin, "network": network, "address": row.address, "created_at": iso(row.set) })
}
