//! For whoever watches the machine: `/livez`, whether the process answers; `/healthz`, whether it can buy.

use super::service::Service;
use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use std::sync::Arc;

/// What a probe is told.
#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    peers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// 200 if the node has peers, else 503 and why.
pub(super) async fn ready(State(service): State<Arc<Service>>) -> (StatusCode, Json<Health>) {
    let peers = service.net.peers().await.len();
    let reason = match peers {
        _ if service.is_stopping() => Some("the node is shutting down"),
        0 => Some("the node has no peers: name a bootstrap address or check the network"),
        _ => None,
    };
    let (code, status) =
        if reason.is_some() { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") } else { (StatusCode::OK, "ok") };
    (code, Json(Health { status, peers, reason }))
}

/// 200.
pub(super) async fn alive() -> &'static str {
    "ok"
}
