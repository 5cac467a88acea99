//! What a plane can be watched by: `/healthz` (it runs), `/readyz` (it can work), `/metrics` (how it goes).

use crate::{
    cashier::{Cashier, State as CashierState},
    follow::{Follower, Told},
    index::Index,
    query,
    state::Plane,
    store::Store,
};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use infernet_node::{
    clock,
    metrics::{CONTENT_TYPE, Family, Sample, encode},
    net::Net,
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// How long an answer of the store counts: anybody may ask whether it is ready, as often as they like.
const FRESH: Duration = Duration::from_secs(1);

/// What is looked at.
#[derive(Clone)]
pub struct Watched {
    plane: Plane,
    follower: Arc<Follower>,
    /// What the store last answered, and until when that is told again.
    asked: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl Watched {
    /// A plane and who follows for it.
    pub fn new(plane: Plane, follower: Arc<Follower>) -> Self {
        Watched { plane, follower, asked: Arc::default() }
    }

    fn store(&self) -> &dyn Store {
        &*self.plane.store
    }

    /// Whether the store answers. However many ask, the store is asked once in [`FRESH`].
    async fn is_ready(&self) -> bool {
        let mut asked = self.asked.lock().await;
        if let Some((until, told)) = *asked
            && until.elapsed() == Duration::ZERO
        {
            return told;
        }
        let told = self.store().ready().await;
        if let Err(error) = &told {
            tracing::warn!("not ready: {error}");
        }
        *asked = Some((clock::deadline(FRESH), told.is_ok()));
        told.is_ok()
    }

    fn index(&self) -> &Index {
        &self.plane.index
    }

    fn net(&self) -> &Net {
        self.follower.net()
    }
}

/// `/healthz` and `/readyz`, for whoever balances load: they tell nothing but a word.
pub fn health(watched: Watched) -> Router {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(watched)
}

/// These and `/metrics`.
pub fn all(watched: Watched) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(watched.clone()).merge(health(watched))
}

/// A plane without peers still answers from what it knows, so only the store decides.
async fn ready(State(watched): State<Watched>) -> Response {
    if watched.is_ready().await {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response()
}

async fn metrics(State(watched): State<Watched>) -> Response {
    let peers = watched.net().peers().await.len();
    let counters = watched.net().counters().await;
    let is_ready = watched.is_ready().await;
    let told = watched.follower.tally().told();
    let families = families(&watched, told, peers, is_ready, counters.into_iter().collect());
    match encode(families) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn families(watched: &Watched, told: Told, peers: usize, is_ready: bool, counters: Vec<(String, u64)>) -> Vec<Family> {
    let (overview, receipts) = watched.index().read(|book| (query::overview(book, clock::now()), book.ledger().len() as u64));
    let heard = [("ad", told.ads), ("offer", told.offers), ("accept", told.accepts), ("receipt", told.receipts)];
    let heard = heard.into_iter().map(|(kind, count)| Sample::labelled("kind", kind, count)).collect();
    let kept = [("kept", told.kept), ("lost", told.lost)];
    let kept = kept.into_iter().map(|(what, count)| Sample::labelled("outcome", what, count)).collect();
    let net = counters.into_iter().map(|(name, count)| Sample::labelled("what", name, count)).collect();
    let whole = |number: u64| vec![Sample::whole(number)];
    let running = watched.plane.gateway.as_ref().map_or(0, |gateway| gateway.running());
    let chain = watched.plane.cashier.as_ref().map(chain).unwrap_or_default();
    let mut all = vec![
        Family::gauge("infernet_plane_ready", "Whether the store answers.", whole(is_ready.into())),
        Family::gauge("infernet_plane_peers", "Connected peers.", whole(peers as u64)),
        Family::counter("infernet_plane_heard", "Messages heard on the mesh, by kind.", heard),
        Family::counter("infernet_plane_receipts", "Receipts that the store has taken, and those it could not.", kept),
        Family::gauge("infernet_plane_indexed_receipts", "Receipts in the index.", whole(receipts)),
        Family::gauge("infernet_plane_nodes_online", "Workers whose ad has not expired.", whole(overview.nodes_online as u64)),
        Family::gauge("infernet_plane_models", "Models that are served now.", whole(overview.models as u64)),
        Family::gauge("infernet_plane_jobs_running", "Jobs of clients that run on this instance.", whole(running as u64)),
        Family::counter("infernet_plane_net", "What happened on the mesh's connections, by what.", net),
    ];
    all.extend(chain);
    all
}

/// Of a plane that takes deposits.
fn chain(cashier: &Cashier) -> Vec<Family> {
    let report = cashier.report();
    let whole = |number: u64| vec![Sample::whole(number)];
    let maybe = |number: Option<u64>| number.map(whole).unwrap_or_default();
    let well = u64::from(report.state == CashierState::Following);
    vec![
        Family::gauge("infernet_plane_chain_up", "Whether the chain's deposits are followed.", whole(well)),
        Family::counter(
            "infernet_plane_chain_failures",
            "Rounds in which the chain could not be read.",
            whole(report.failures),
        ),
        Family::gauge("infernet_plane_chain_head", "The chain's newest block.", maybe(report.head)),
        Family::gauge("infernet_plane_chain_read", "The last block whose transfers are kept.", maybe(report.read)),
        Family::counter("infernet_plane_deposits", "Deposits credited to clients.", whole(report.credited)),
        Family::counter("infernet_plane_deposits_micro_usd", "What they come to.", whole(report.credited_amount.0)),
        Family::gauge(
            "infernet_plane_unclaimed_deposits",
            "Deposits of wallets that nobody signs in by.",
            whole(report.unclaimed),
        ),
        Family::gauge("infernet_plane_hot_micro_usd", "What the plane's account has.", maybe(report.hot.map(|hot| hot.0))),
        Family::gauge(
            "infernet_plane_sweep_stuck",
            "Whether what is above the cap can't be swept.",
            whole(report.sweep_reason.is_some().into()),
        ),
    ]
}
