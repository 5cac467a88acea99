//! One scrape: the node is asked how it is, and the answer becomes text.

use super::{
    counted,
    family::{Family, Kind, Sample, Value},
    process,
    text::{CONTENT_TYPE, encode},
};
use crate::{
    api::{access::Caller, error::ApiError},
    hardware::{Gpu, Reading},
    net::{Direction, Path, PeerInfo, Reachability, Reached, Transport},
    node::Node,
    seller,
    spend::ALL,
    store::{Commits, Counts, Store, StoreError},
};
use axum::{
    Extension, Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use libp2p::PeerId;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::timeout;

/// A scrape at most: Prometheus gives up after ten seconds, and a node that takes half of that is in trouble.
const SCRAPE: Duration = Duration::from_secs(5);

/// There is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// Some part of the node does not answer.
    #[error("the node did not tell its metrics within {} s: it is overloaded or shutting down; see its log", SCRAPE.as_secs())]
    Late,
    /// They can't be written down.
    #[error("the metrics can't be written: {0}")]
    Text(#[from] std::fmt::Error),
}

impl IntoResponse for ScrapeError {
    fn into_response(self) -> Response {
        let status = match self {
            ScrapeError::Late => StatusCode::SERVICE_UNAVAILABLE,
            ScrapeError::Text(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.to_string()).into_response()
    }
}

/// `GET /metrics` of `node`, for the operator: what a node earns is nothing for those who only have a key to buy with.
pub fn route(node: Arc<Node>) -> Router {
    let serve = async move |Extension(caller): Extension<Caller>| {
        if caller.key != ALL {
            let fix = "the metrics are for the node's operator: use the token in its api-token file";
            return ApiError::forbidden("operator_only", fix).into_response();
        }
        answer(&node).await
    };
    Router::new().route("/metrics", get(serve))
}

/// The metrics of `node` as an answer over HTTP, for whoever has been let in.
pub async fn answer(node: &Node) -> Response {
    match text(node).await {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => error.into_response(),
    }
}

/// All metrics of `node` as OpenMetrics text.
pub async fn text(node: &Node) -> Result<String, ScrapeError> {
    let now = timeout(SCRAPE, Now::look(node)).await.map_err(|_| ScrapeError::Late)?;
    let mut families = now.families();
    families.extend(node.metrics().families());
    families.extend(counted::families(&now.counts));
    families.extend(process::families());
    Ok(encode(families)?)
}

/// How a node is.
struct Now {
    id: String,
    network: String,
    peers: Vec<PeerInfo>,
    reached: Reached,
    models_known: usize,
    jobs_bought: usize,
    seller: Option<seller::Status>,
    machine: Option<Reading>,
    store: Stored,
    /// Everything that is counted by name.
    counts: BTreeMap<String, u64>,
}

/// How its store is.
#[derive(Default)]
struct Stored {
    /// `None` while the index is away.
    counts: Option<Counts>,
    accepts_work: Option<Result<(), StoreError>>,
    commits: Option<Commits>,
}

impl Stored {
    fn look(store: &dyn Store) -> Self {
        Stored { counts: store.counts().ok(), accepts_work: Some(store.accepts_work()), commits: store.commits() }
    }
}

impl Now {
    async fn look(node: &Node) -> Self {
        let seller = match node.seller() {
            Some(seller) => seller.status().await,
            None => None,
        };
        let mut counts = node.counters().await;
        counts.extend(seller.iter().flat_map(|status| status.counters.clone()));
        let store = node.store().clone();
        // The index may have to read from the disk.
        let store = tokio::task::spawn_blocking(move || Stored::look(&*store)).await.unwrap_or_default();
        Now {
            id: node.id().to_string(),
            network: node.network().to_string(),
            peers: node.net().peers().await,
            reached: node.net().reached(),
            models_known: node.buyer().known_models().await.len(),
            jobs_bought: node.buyer().running(),
            seller,
            machine: node.machine(),
            store,
            counts,
        }
    }

    fn families(&self) -> Vec<Family> {
        let mut families = vec![
            info("infernet_build", "The software, by its version.", [("version", env!("CARGO_PKG_VERSION").to_owned())]),
            info(
                "infernet_node",
                "This node, by its id and network.",
                [("node", self.id.clone()), ("network", self.network.clone())],
            ),
            Family::gauge("infernet_peers", "Connected peers, by who dialled and how.", peers(&self.peers)),
            Family::gauge("infernet_peer_paths", "Connected peers, by the way the bytes take.", paths(&self.peers)),
            Family::gauge(
                "infernet_relayed_peers",
                "Connected peers that are reached through a relay, by the relay and by what became of hole punching.",
                relayed(&self.peers),
            ),
            Family::gauge(
                "infernet_peer_rtt_seconds",
                "Median of the last pings of connected peers, by the way the bytes take.",
                rtts(&self.peers),
            ),
            Family::gauge(
                "infernet_reachability",
                "1 for whether others can dial this node, 0 for what it could be else.",
                reachability(&self.reached),
            ),
            Family::gauge(
                "infernet_relays_held",
                "Relays that hold a place for this node.",
                vec![whole(self.reached.relays.len())],
            ),
            Family::gauge("infernet_models_known", "Models that live ads of workers name.", vec![whole(self.models_known)]),
            Family::gauge("infernet_jobs_bought_running", "Buyer: jobs under way.", vec![whole(self.jobs_bought)]),
        ];
        families.extend(selling(self.seller.as_ref()));
        families.extend(machine(self.machine.as_ref()));
        families.extend(self.store.families());
        families
    }
}

fn whole(n: usize) -> Sample {
    Sample::whole(n as u64)
}

fn info<const N: usize>(name: &'static str, help: &'static str, facts: [(&'static str, String); N]) -> Family {
    let labels = facts.into_iter().map(|(label, fact)| (label, fact.into())).collect();
    Family { name, help, kind: Kind::Info, samples: vec![Sample { labels, value: Value::Whole(1) }] }
}

/// By transport and direction; a kind without peers is told as 0.
fn peers(peers: &[PeerInfo]) -> Vec<Sample> {
    let count = |(transport, transport_name): (Transport, &'static str),
                 (direction, direction_name): (Direction, &'static str)| {
        let n = peers.iter().filter(|peer| peer.transport == transport && peer.direction == direction).count();
        let labels = vec![("direction", direction_name.into()), ("transport", transport_name.into())];
        Sample { labels, value: Value::Whole(n as u64) }
    };
    let directions = [(Direction::Inbound, "inbound"), (Direction::Outbound, "outbound")];
    let transports = [(Transport::Tcp, "tcp"), (Transport::Quic, "quic")];
    directions.iter().flat_map(|direction| transports.iter().map(|transport| count(*transport, *direction))).collect()
}

/// A way that nobody takes is told as 0.
fn paths(peers: &[PeerInfo]) -> Vec<Sample> {
    let count = |label: &'static str| peers.iter().filter(|peer| peer.path.label() == label).count() as u64;
    ["direct", "punched", "relayed"].map(|label| Sample::labelled("path", label, count(label))).into()
}

/// By the relay, which has at least one of the connections, and by whether a hole was tried to be punched.
fn relayed(peers: &[PeerInfo]) -> Vec<Sample> {
    let mut counts: BTreeMap<(PeerId, &'static str), u64> = BTreeMap::new();
    for peer in peers {
        if let Path::Relayed { via } = peer.path {
            let punching = if peer.punches_failed > 0 { "failed" } else { "untried" };
            *counts.entry((via, punching)).or_default() += 1;
        }
    }
    let sample = |((via, punching), count): ((PeerId, &'static str), u64)| {
        let labels = vec![("via", via.to_string().into()), ("punching", punching.into())];
        Sample { labels, value: Value::Whole(count) }
    };
    counts.into_iter().map(sample).collect()
}

/// A way whose peers were not pinged yet is left out.
fn rtts(peers: &[PeerInfo]) -> Vec<Sample> {
    let median = |label: &'static str| {
        let mut all: Vec<u32> = peers.iter().filter(|peer| peer.path.label() == label).filter_map(|peer| peer.rtt_ms).collect();
        all.sort_unstable();
        let ms = *all.get(all.len() / 2)?;
        Some(Sample { labels: vec![("path", label.into())], value: Value::Real(f64::from(ms) / 1e3) })
    };
    ["direct", "punched", "relayed"].into_iter().filter_map(median).collect()
}

fn reachability(reached: &Reached) -> Vec<Sample> {
    let states = [
        (Reachability::Open, "open"),
        (Reachability::Mapped, "mapped"),
        (Reachability::BehindNat, "behind_nat"),
        (Reachability::Unknown, "unknown"),
    ];
    states.map(|(state, label)| Sample::labelled("state", label, (state == reached.state).into())).into()
}

/// GPUs by their place and maker, and the load of the machine.
fn machine(machine: Option<&Reading>) -> [Family; 6] {
    let gpus = |value: fn(&Gpu) -> Option<Value>| {
        let sample = |(place, gpu): (usize, &Gpu)| {
            let labels = vec![("gpu", place.to_string().into()), ("vendor", gpu.vendor.name().into())];
            Some(Sample { labels, value: value(gpu)? })
        };
        machine.into_iter().flat_map(|machine| machine.gpus.iter().enumerate()).filter_map(sample).collect::<Vec<_>>()
    };
    let ratio = |percent: u16| Value::Real(f64::from(percent) / 100.0);
    let load = machine.and_then(|machine| machine.load_percent).map(|load| Sample { labels: Vec::new(), value: ratio(load) });
    [
        Family::gauge(
            "infernet_gpu_busy_ratio",
            "How busy each GPU is, of 1.",
            gpus(|gpu| Some(Value::Real(f64::from(gpu.busy_percent?) / 100.0))),
        ),
        Family::gauge("infernet_gpu_memory_bytes", "Memory of each GPU.", gpus(|gpu| Some(Value::Whole(gpu.memory_bytes?)))),
        Family::gauge(
            "infernet_gpu_memory_used_bytes",
            "Memory in use of each GPU.",
            gpus(|gpu| Some(Value::Whole(gpu.used_bytes?))),
        ),
        Family::gauge(
            "infernet_gpu_temperature_celsius",
            "How hot each GPU is.",
            gpus(|gpu| Some(Value::Whole(gpu.celsius?.into()))),
        ),
        Family::gauge("infernet_gpu_power_watts", "What each GPU draws.", gpus(|gpu| Some(Value::Whole(gpu.watts?.into())))),
        Family::gauge(
            "infernet_host_load_ratio",
            "Processes that run or wait for each processor, as the mean of a minute.",
            load.into_iter().collect(),
        ),
    ]
}

/// 1 for what keeps the worker from selling, 0 for everything else that could.
fn closed(status: &seller::Status) -> Vec<Sample> {
    let why = status.closed.as_ref().map(|closed| closed.reason.as_str());
    let reasons = ["off_schedule", "too_hot", "too_much_power", "busy_host"];
    reasons.map(|reason| Sample::labelled("reason", reason, (why == Some(reason)).into())).into()
}

fn selling(seller: Option<&seller::Status>) -> [Family; 4] {
    let slots = seller.map(|status| {
        let taken = status.running + status.held;
        let free = usize::from(status.slots).saturating_sub(taken);
        [("running", status.running), ("held", status.held), ("free", free)]
    });
    let slots = slots.into_iter().flatten().map(|(state, n)| Sample::labelled("state", state, n as u64)).collect();
    let models = seller.map(|status| whole(status.models.len())).into_iter().collect();
    let settling = seller.map(|status| whole(status.settling)).into_iter().collect();
    [
        Family::gauge("infernet_slots", "Worker: slots by state: running a job, held for a bid, free.", slots),
        Family::gauge(
            "infernet_jobs_settling",
            "Worker: jobs whose answer is over and whose receipt is being signed.",
            settling,
        ),
        Family::gauge(
            "infernet_closed",
            "Worker: 1 for the reason for which the operator's policy lets nothing be sold now.",
            seller.map(closed).unwrap_or_default(),
        ),
        Family::gauge("infernet_models_offered", "Worker: models served.", models),
    ]
}

impl Stored {
    fn families(&self) -> [Family; 5] {
        let receipts = self.counts.map(|counts| {
            let rest = counts.receipts.saturating_sub(counts.countersigned);
            [("countersigned", counts.countersigned), ("unacknowledged", rest)]
        });
        let receipts = receipts.into_iter().flatten().map(|(state, n)| Sample::labelled("state", state, n)).collect();
        let unreadable = self.counts.map(|counts| Sample::whole(counts.unreadable)).into_iter().collect();
        let accepts = self.accepts_work.as_ref().map(|accepts| Sample::whole(accepts.is_ok().into())).into_iter().collect();
        let records = self.commits.as_ref().map(|commits| Sample::whole(commits.records)).into_iter().collect();
        let syncs = self.commits.clone().map(|commits| Sample { labels: Vec::new(), value: Value::Histogram(commits.seconds) });
        [
            Family::gauge("infernet_store_receipts", "Receipts kept, by whether both sides signed.", receipts),
            Family::counter("infernet_store_unreadable_rows", "Reads of the store that met a row it can't read.", unreadable),
            Family::gauge(
                "infernet_store_accepts_work",
                "1 while new work may rely on the store, 0 if its disk is full or fails.",
                accepts,
            ),
            Family::counter(
                "infernet_journal_records",
                "Records written to the journal: receipts, spending, commands.",
                records,
            ),
            Family {
                name: "infernet_journal_commit_duration_seconds",
                help: "Writing and syncing one batch of records, in seconds.",
                kind: Kind::Histogram,
                samples: syncs.into_iter().collect(),
            },
        ]
    }
}
