//! What a node tells people of itself: its state, its jobs, and why it earns or does not. It only reads; each answer is made
//! when it is asked for.

use super::Node;
use crate::{
    clock,
    control::{
        schema::{MeetsReport, ModelReport, PathsReport, PeerReport, PlaneReport, ReachReport, StatusReport, StoreReport},
        wallet,
    },
    engines::{EngineReport, Engines, Unserved},
    hardware::Reading,
    jobs::{JobReport, Jobs},
    market::pricing::Pricing,
    seller,
    store::{Store, StoreError},
    today::Today,
    why::{self, Evidence, WhyReport},
};
use infernet_wire::money::Price;
use std::{sync::OnceLock, time::Instant};
use tokio::sync::watch;

/// Jobs in a status: what fits below the rest.
const STATUS_JOBS: usize = 8;

/// What the other parts of a node don't keep.
pub(super) struct Overview {
    started: Instant,
    jobs: Jobs,
    today: Today,
    meets: MeetsReport,
    sale: Option<(Engines, watch::Receiver<Reading>)>,
    api: OnceLock<String>,
    planes: OnceLock<Vec<watch::Receiver<PlaneReport>>>,
}

impl Overview {
    /// Of a node that starts now and sells nothing yet.
    pub(super) fn new(jobs: Jobs, today: Today, meets: MeetsReport) -> Self {
        Overview { started: clock::instant(), jobs, today, meets, sale: None, api: OnceLock::new(), planes: OnceLock::new() }
    }

    /// It sells what `engines` have, on `machine`.
    pub(super) fn sells(&mut self, engines: Engines, machine: watch::Receiver<Reading>) {
        self.sale = Some((engines, machine));
    }

    pub(super) fn sold_engines(&self) -> Option<&Engines> {
        self.sale.as_ref().map(|(engines, _)| engines)
    }

    pub(super) fn machine(&self) -> Option<Reading> {
        self.sale.as_ref().map(|(_, machine)| machine.borrow().clone())
    }

    fn price(&self) -> Option<Price> {
        self.sold_engines().map(|engines| engines.pricing().base)
    }

    fn engines(&self) -> Vec<EngineReport> {
        self.sold_engines().map(Engines::reports).unwrap_or_default()
    }

    fn planes(&self) -> Vec<PlaneReport> {
        self.planes.get().into_iter().flatten().map(|plane| plane.borrow().clone()).collect()
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What is asked of several parts, for one answer.
struct Look {
    seller: Option<seller::Status>,
    engines: Vec<EngineReport>,
    unserved: Vec<Unserved>,
    peers: Vec<PeerReport>,
    store: StoreReport,
    rivals: Vec<ModelReport>,
    clocks: (u64, u64),
    signed: (u64, u64),
    pricing: Pricing,
}

impl Node {
    /// The state now, for people.
    pub async fn status(&self) -> StatusReport {
        let (look, overview) = (self.look().await, &self.overview);
        let warnings = why::warnings(&self.evidence(&look));
        let price = overview.price();
        StatusReport {
            version: env!("CARGO_PKG_VERSION").into(),
            id: self.id,
            network: self.network.to_string(),
            listen: self.net.listen_addresses().await.iter().map(ToString::to_string).collect(),
            chat: self.chat_addr.to_string(),
            reach: ReachReport::new(self.addressing.mode, &self.net.reached(), &self.net.relays().await),
            api: overview.api.get().cloned(),
            meets: Some(overview.meets.clone()),
            planes: overview.planes(),
            peers: look.peers.len(),
            paths: PathsReport::of(&look.peers),
            seller: look.seller,
            uptime_ms: overview.uptime_ms(),
            price_in: price.map(|price| price.input.0),
            price_out: price.map(|price| price.output.0),
            engines: look.engines,
            machine: overview.machine(),
            store: look.store,
            today: overview.today.report(clock::now()),
            jobs: self.recent_jobs(STATUS_JOBS),
            chain: self.account().map(|account| wallet::chain(account, self.tabs.channels().all().len())),
            warnings,
        }
    }

    /// The OpenAI endpoint answers at `base_url`: said once, when it does.
    pub fn serves_api(&self, base_url: String) {
        let _ = self.overview.api.set(base_url);
    }

    /// It tells planes of itself, and this is how that goes: said once, when it begins.
    pub fn tells_planes(&self, planes: Vec<watch::Receiver<PlaneReport>>) {
        let _ = self.overview.planes.set(planes);
    }

    /// The connected peers, for people.
    pub async fn peers(&self) -> Vec<PeerReport> {
        let now = clock::now();
        self.net.peers().await.iter().map(|peer| PeerReport::new(peer, now)).collect()
    }

    /// The jobs that run, then those that ended last, at most `limit`.
    pub fn recent_jobs(&self, limit: usize) -> Vec<JobReport> {
        self.overview.jobs.list(limit, clock::now())
    }

    /// Why it earns, or does not, and what to change.
    pub async fn why(&self) -> WhyReport {
        why::why(&self.evidence(&self.look().await))
    }

    async fn look(&self) -> Look {
        let counters = self.counters().await;
        let count = |name: &str| counters.get(name).copied().unwrap_or_default();
        Look {
            seller: match &self.seller {
                Some(seller) => seller.status().await,
                None => None,
            },
            engines: self.overview.engines(),
            unserved: self.overview.sold_engines().map(Engines::unserved).unwrap_or_default(),
            peers: self.peers().await,
            store: store_report(&*self.store),
            rivals: self.buyer.known_models().await.iter().map(ModelReport::from).collect(),
            clocks: (
                count("gossip.expired") + count("gossip.future"),
                counters.iter().filter(|(name, _)| name.starts_with("gossip.")).map(|(_, n)| n).sum(),
            ),
            signed: (count("chat.acknowledged"), count("chat.unacknowledged")),
            pricing: self.overview.sold_engines().map(Engines::pricing).unwrap_or_default(),
        }
    }

    fn evidence<'a>(&self, look: &'a Look) -> Evidence<'a> {
        Evidence {
            seller: look.seller.as_ref(),
            pricing: &look.pricing,
            engines: &look.engines,
            unserved: &look.unserved,
            peers: look.peers.len(),
            uptime_ms: self.overview.uptime_ms(),
            now: clock::now().0,
            store: look.store.problem.as_deref(),
            rivals: &look.rivals,
            clocks: look.clocks,
            signed: look.signed,
        }
    }
}

fn store_report(store: &dyn Store) -> StoreReport {
    let problem = |error: StoreError| Some(error.to_string());
    match store.counts() {
        Ok(counts) => StoreReport {
            receipts: counts.receipts,
            unacknowledged: counts.receipts.saturating_sub(counts.countersigned),
            unreadable: counts.unreadable,
            problem: store.accepts_work().err().and_then(problem),
        },
        Err(error) => StoreReport { problem: problem(error), ..StoreReport::default() },
    }
}
