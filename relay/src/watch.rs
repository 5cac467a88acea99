//! What a relay can be watched by: `/healthz` (it runs), `/readyz` (it takes new ones), `/metrics` (how it goes).

use crate::{bootstrap::About, desk::Told};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use infernet_node::metrics::{CONTENT_TYPE, Family, Sample, encode};
use std::collections::BTreeMap;

/// For everybody: `/healthz`, `/readyz` and [`/bootstrap.json`](crate::bootstrap).
pub fn public(about: About) -> Router {
    health(about.clone()).merge(Router::new().route("/bootstrap.json", get(crate::bootstrap::get)).with_state(about))
}

/// For who runs it: `/healthz`, `/readyz`, `/metrics`.
pub fn all(about: About) -> Router {
    health(about.clone()).merge(Router::new().route("/metrics", get(metrics)).with_state(about))
}

fn health(about: About) -> Router {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(about)
}

async fn ready(State(about): State<About>) -> Response {
    if about.relaying.desk.told().await.is_draining {
        return (StatusCode::SERVICE_UNAVAILABLE, "it drains\n").into_response();
    }
    "ready\n".into_response()
}

async fn metrics(State(about): State<About>) -> Response {
    let told = about.relaying.desk.told().await;
    let peers = about.relaying.net.peers().await.len();
    let counters = about.relaying.net.counters().await;
    match encode(families(told, peers, counters)) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn families(told: Told, peers: usize, counters: BTreeMap<String, u64>) -> Vec<Family> {
    let whole = |number: u64| vec![Sample::whole(number)];
    let by = |label, counts: BTreeMap<&'static str, u64>| -> Vec<Sample> {
        counts.into_iter().map(|(name, count)| Sample::labelled(label, name, count)).collect()
    };
    let net = counters.into_iter().map(|(name, count)| Sample::labelled("what", name, count)).collect();
    vec![
        Family::gauge("infernet_relay_peers", "Connected peers.", whole(peers as u64)),
        Family::gauge(
            "infernet_relay_reservations",
            "Peers that can be reached over the relay.",
            whole(told.reservations as u64),
        ),
        Family::gauge("infernet_relay_circuits", "Circuits now.", whole(told.circuits as u64)),
        Family::gauge("infernet_relay_draining", "Whether nothing new is taken.", whole(told.is_draining.into())),
        Family::counter("infernet_relay_bytes", "Bytes carried, in both directions.", whole(told.bytes)),
        Family::counter("infernet_relay_slowed", "Turns of peers whose quota is spent.", whole(told.slowed)),
        Family::counter("infernet_relay_events", "What happened to reservations and circuits.", by("what", told.happened)),
        Family::counter("infernet_relay_refused", "What was refused, by the limit.", by("limit", told.refused)),
        Family::counter("infernet_relay_net", "What happened on the mesh's connections.", net),
    ]
}
