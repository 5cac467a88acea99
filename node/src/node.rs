//! A node: every part started in order, and the one place where they know each other.
//!
//! Events of the mesh go to whoever cares: ads to both roles, offers and accepts to the seller, answers to the buyer. Nobody
//! waits for anybody: a full queue drops the message, counted, and gossip goes on.

mod overview;
mod places;

use crate::{
    backend::{Backend, BackendSpec},
    buyer::{Buyer, ChatError, ChatEvent, ChatOrder, Lost, Preferences},
    chat::{
        self,
        endpoint::{BindError, Endpoint},
        lasting::Lasting,
        pool::Pool,
        relayed::Relayed,
        tally::Tally,
    },
    clock,
    config::{Alias, Region},
    control::schema::MeetsReport,
    engines::{Engines, Offers},
    hardware::{self, Reading, Sensors},
    jobs::Jobs,
    ledger::Ledger,
    local_time,
    market::{
        buyer as buyer_market,
        buyer::Observation,
        policy::{Policy, Sensed},
        pricing::Pricing,
        seller as seller_market,
    },
    metrics::Metrics,
    net::{self, Net, NetConfig, NetError, ReachConfig},
    recall, receipt_pages,
    report::ChatReport,
    seller::{self, Places, Seller},
    settlement::{
        rail::{Evm, Rails},
        service::{self, Account, AccountError},
        solana::{
            account::{self, NotUsed},
            key::SolanaKey,
        },
        tabs::{Credit, Tabs},
    },
    spend::{ALL, CapError, Caps, Purse},
    store::{Store, StoreError},
};
use infernet_wire::{capability::SocketAddrText, id::NodeId, key::NodeKey, model_name, money::Price, topic::NetworkId};
use libp2p::Multiaddr;
use overview::Overview;
use places::Addressing;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{Instrument, debug, info, info_span, warn};

/// How often the peer cache is written.
const PEER_CACHE: Duration = Duration::from_secs(60);
/// How often a draining node looks whether a job still runs.
const LOOK_IDLE: Duration = Duration::from_millis(50);
/// Peers kept for the next start.
const MAX_CACHED_PEERS: usize = 64;
/// Who comes and goes is told up to so many peers; in a larger mesh nobody reads it.
const TOLD_PEERS: usize = 8;

/// What a node is made of.
pub struct Settings {
    /// Who it is.
    pub key: NodeKey,
    /// Who it was before its key was rotated: receipts of then are its own, too.
    pub former: Vec<NodeId>,
    /// Which network it joins.
    pub network: NetworkId,
    /// Where libp2p listens.
    pub listen: Vec<Multiaddr>,
    /// Where the chat endpoint listens (UDP).
    pub chat_listen: SocketAddr,
    /// Peers to start from.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to look for peers on the local network.
    pub mdns: bool,
    /// Connections at most.
    pub max_peers: u32,
    /// How others are to reach it.
    pub reach: ReachConfig,
    /// What it sells; `None` for a node that only buys.
    pub serve: Option<Serve>,
    /// How it buys.
    pub preferences: Preferences,
    /// For tests: a copy of every gossip payload.
    pub tap: Option<mpsc::Sender<(String, Vec<u8>)>>,
}

/// What a worker sells.
pub struct Serve {
    /// Its engines.
    pub engines: Vec<Arc<dyn Backend>>,
    /// What they cost, and how many jobs of each run at once.
    pub pricing: Pricing,
    /// The only models that are offered; all if empty.
    pub models: Vec<String>,
    /// When nothing is sold.
    pub policy: Policy,
    /// What tells how the machine is.
    pub sensors: Box<dyn Sensors>,
    /// Jobs at once.
    pub slots: u16,
    /// What buyers may owe.
    pub credit: Credit,
    /// Where others reach the chat endpoint; empty if at its own addresses.
    pub chat_advertise: Vec<SocketAddr>,
    /// Other names of its models.
    pub aliases: Vec<Alias>,
    /// Where it says it is.
    pub region: Option<Region>,
}

impl Serve {
    /// All models of `engines`, always, on this machine, to nobody on credit.
    pub fn new(engines: Vec<Arc<dyn Backend>>, pricing: Pricing, slots: u16) -> Self {
        Serve {
            engines,
            pricing,
            models: Vec::new(),
            policy: Policy::default(),
            sensors: Box::<hardware::Machine>::default(),
            slots,
            credit: Credit::default(),
            chat_advertise: Vec::new(),
            aliases: Vec::new(),
            region: None,
        }
    }
}

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Secrets would leak.
    #[error(
        "SSLKEYLOGFILE is set, so TLS libraries would write the secrets of every connection to a file; unset it and start again"
    )]
    KeyLog,
    /// The mesh.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The chat endpoint.
    #[error(transparent)]
    Chat(#[from] BindError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The socket vanished.
    #[error("the chat endpoint has no address: {0}")]
    Address(std::io::Error),
}

/// A running node.
pub struct Node {
    id: NodeId,
    /// The same, and who it was before.
    us: BTreeSet<NodeId>,
    network: NetworkId,
    net: Net,
    endpoint: Endpoint,
    chat_addr: SocketAddr,
    buyer: Buyer,
    seller: Option<Seller>,
    store: Arc<dyn Store>,
    tabs: Tabs,
    purse: OnceLock<Purse>,
    evm: Arc<Evm>,
    rails: Rails,
    dropped: Arc<AtomicU64>,
    chat_tally: Tally,
    metrics: Metrics,
    overview: Overview,
    addressing: Addressing,
    download: Arc<Semaphore>,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts every part; both listeners are bound when this returns.
    pub async fn start(settings: Settings, store: Arc<dyn Store>) -> Result<Self, StartError> {
        if std::env::var_os("SSLKEYLOGFILE").is_some() {
            return Err(StartError::KeyLog);
        }
        // Fails only if a provider is installed already, which is just as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (id, network) = (settings.key.id(), settings.network.clone());
        let (mode, hidden) = (settings.reach.mode, settings.reach.hidden.clone());
        // Who listens nowhere still needs a socket to chat from; its port is nobody's business.
        let chat_port = if mode.listens() { settings.chat_listen.port() } else { 0 };
        let endpoint = Endpoint::bind(&settings.key, (settings.chat_listen.ip(), chat_port).into())?;
        let chat_addr = endpoint.local_addr().map_err(StartError::Address)?;
        let (pages, asked) = receipt_pages::channel();
        let (chats, chat_streams) = net::streams::channel();
        let chat = settings.serve.is_some().then_some(chats);
        let config = NetConfig { receipts: Some(pages), chat, ..net_config(&settings, &*store) };
        let (net, events) = net::start(&settings.key, config).await?;
        let us: BTreeSet<NodeId> = settings.former.iter().copied().chain([id]).collect();
        let ledger = Ledger::new(store.clone(), net.clone(), us.clone());
        let credit = settings.serve.as_ref().map(|serve| serve.credit.clone()).unwrap_or_default();
        let tabs = Tabs::new(settings.key.clone(), &settings.former, network.clone(), store.clone(), credit);
        let evm = Arc::new(Evm::new(tabs.clone()));
        let rails = Rails::new(&tabs, evm.clone());
        let client = chat::client::Buyer {
            key: settings.key.clone(),
            network: settings.network.clone(),
            ledger: ledger.clone(),
            tabs: tabs.clone(),
            pool: Pool::new(endpoint.clone()),
            relayed: Some(Relayed::new(net.clone())),
        };
        let (metrics, jobs) = (Metrics::default(), Jobs::default());
        let buyer = Buyer::spawn(client, net.clone(), settings.preferences, metrics.clone(), jobs.clone());
        let (mut tasks, chat_tally) = (Vec::new(), Tally::default());
        let today = ledger.today().clone();
        let bootstrap = settings.bootstrap.iter().map(ToString::to_string).collect();
        let meets = MeetsReport { bootstrap, mdns: settings.mdns };
        let mut overview = Overview::new(jobs.clone(), today.clone(), meets);
        let outside = settings.serve.as_ref().map(|serve| serve.chat_advertise.clone()).unwrap_or_default();
        let listening = net.listen_addresses().await;
        let addressing = Addressing { mode, chat: chat_addr, outside, hidden, listening };
        let seller = match settings.serve {
            Some(serve) => {
                let worker = Worker {
                    key: settings.key,
                    network: settings.network,
                    net: net.clone(),
                    store: store.clone(),
                    ledger,
                    tabs: tabs.clone(),
                    rails: rails.clone(),
                    tally: chat_tally.clone(),
                    metrics: metrics.clone(),
                    jobs,
                };
                let places = addressing.places(&net.reached());
                let (seller, engines, machine) =
                    worker.start(serve, places, (endpoint.clone(), chat_streams), &mut tasks).await;
                overview.sells(engines, machine);
                tasks.push(tokio::spawn(places::follow(addressing.clone(), net.watch_reached(), seller.clone())));
                Some(seller)
            }
            None => None,
        };
        let dropped = Arc::new(AtomicU64::new(0));
        let dispatch =
            Dispatch { buyer: buyer.clone(), seller: seller.clone(), rails: rails.clone(), dropped: dropped.clone(), peers: 0 };
        let span = info_span!("node", me = %id.short());
        tasks.push(tokio::spawn(dispatch.run(events).instrument(span)));
        tasks.push(tokio::spawn(recall::run(us.clone(), store.clone(), today, buyer.clone(), seller.clone())));
        tasks.push(tokio::spawn(cache_peers(net.clone(), store.clone())));
        tasks.push(tokio::spawn(receipt_pages::run(network.clone(), store.clone(), asked)));
        debug!(me = %id, chat = %chat_addr, "started");
        Ok(Node {
            id,
            us,
            network,
            net,
            endpoint,
            chat_addr,
            buyer,
            seller,
            store,
            tabs,
            purse: OnceLock::new(),
            evm,
            rails,
            dropped,
            chat_tally,
            metrics,
            overview,
            addressing,
            download: Arc::new(Semaphore::new(1)),
            tasks,
        })
    }

    /// Who it is.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where the chat endpoint is bound.
    pub fn chat_addr(&self) -> SocketAddr {
        self.chat_addr
    }

    /// Where its ad says that the chat endpoint is; empty if it sells nothing.
    pub fn sold_at(&self) -> Vec<SocketAddrText> {
        if self.seller.is_some() { self.addressing.places(&self.net.reached()).chat } else { Vec::new() }
    }

    /// The mesh.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The buyer's role; every node has it.
    pub fn buyer(&self) -> &Buyer {
        &self.buyer
    }

    /// The worker's role, if it has it.
    pub fn seller(&self) -> Option<&Seller> {
        self.seller.as_ref()
    }

    /// How to reach its engines, see [`Engines::specs`]; `None` if it sells nothing.
    pub fn engine_specs(&self) -> Option<Vec<BackendSpec>> {
        Some(self.overview.sold_engines()?.specs())
    }

    /// Sells at another price from now on, see [`Engines::set_price`]; `false` if it sells nothing.
    pub async fn set_price(&self, model: Option<String>, price: Price) -> bool {
        let Some(engines) = self.overview.sold_engines() else { return false };
        engines.set_price(model, price).await;
        true
    }

    /// The name by which `model` gets its price: that of the price it has, else as it is offered; Ollama's `:latest` may be left
    /// out. If it is not offered, what is.
    pub async fn priced_name(&self, model: &str) -> Result<String, Vec<String>> {
        let offers = match &self.seller {
            Some(seller) => seller.status().await.map(|status| status.models).unwrap_or_default(),
            None => Vec::new(),
        };
        let Some(offered) = offers.iter().find(|offered| model_name::same(offered, model)) else { return Err(offers) };
        let pricing = self.overview.sold_engines().map(Engines::pricing).unwrap_or_default();
        Ok(pricing.name_of(offered).unwrap_or(offered).to_owned())
    }

    /// The right to fetch a model for an operator, which one at a time has.
    pub fn try_download(&self) -> Option<OwnedSemaphorePermit> {
        self.download.clone().try_acquire_owned().ok()
    }

    /// Asks the engines now and offers `only` these models, see [`Engines::poll_now`]; `None` if it sells nothing.
    pub async fn poll_engines(&self, only: Option<Vec<String>>) -> Option<Vec<String>> {
        Some(self.overview.sold_engines()?.poll_now(only).await)
    }

    /// The machine as it was read last; `None` if it sells nothing.
    pub fn machine(&self) -> Option<Reading> {
        self.overview.machine()
    }

    /// Receipts and what else is kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What buyers owe, and what is promised to workers.
    pub fn tabs(&self) -> &Tabs {
        &self.tabs
    }

    /// Buys and sells tranches on Solana from now on. The first call counts.
    pub fn use_solana(&self, account: account::Account, key: &SolanaKey) -> Result<(), NotUsed> {
        account.open(self.tabs.solana(), key, (self.id, &self.network), self.store.clone(), self.seller.is_some())?;
        // Its ad may be out. Should its queue be full, it says so with the next one.
        self.seller.as_ref().map(Seller::try_greet);
        Ok(())
    }

    /// Takes note of what happens in it.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Lets nothing be bought beyond `caps`, of which the store says what is left. The first call counts.
    pub async fn limit(&self, caps: Caps) -> Result<Purse, CapError> {
        let (store, us) = (self.store.clone(), self.us.clone());
        let opening = tokio::task::spawn_blocking(move || Purse::open(caps, store, &us));
        let purse = opening.await.map_err(|error| StoreError::Interrupted(error.to_string()))??;
        Ok(self.purse.get_or_init(|| purse).clone())
    }

    /// Settles on an EVM chain from now on, with its `key`. The first call counts.
    pub fn settle(&self, settings: service::Settings, key: NodeKey) -> Result<(), AccountError> {
        self.evm.settle(settings, key, self.store.clone())
    }

    /// All ways in which it settles.
    pub fn rails(&self) -> &Rails {
        &self.rails
    }

    /// Its account on an EVM chain, if it has one.
    pub fn account(&self) -> Option<&Account> {
        self.evm.account()
    }

    /// Buys one job within the node's caps, for its operator; see [`Buyer::chat`].
    pub async fn chat(
        &self,
        mut order: ChatOrder,
        events: &mpsc::Sender<ChatEvent>,
        cancel: &mut watch::Receiver<bool>,
    ) -> Result<ChatReport, ChatError> {
        let worst = order.worst();
        let spending = match self.purse.get() {
            Some(purse) => purse.authorise(ALL, Caps::default(), worst, 1).await?,
            None => None,
        };
        if let Some(spending) = &spending {
            order.budget = Some(spending.most());
        }
        order.lost = Lost::default();
        let lost = order.lost.clone();
        let result = self.buyer.chat(order, events, cancel).await;
        if let Some(spending) = spending {
            spending.settle_as(&result, lost.amount());
        }
        result
    }

    /// Counts of what was refused, dropped and ignored, by reason.
    pub async fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.net.counters().await;
        counters.insert("events_dropped".into(), self.dropped.load(Ordering::Relaxed));
        counters.insert("chat.connection.refused".into(), self.endpoint.refused());
        counters.extend(self.chat_tally.counters());
        counters
    }

    /// The network it takes part in.
    pub fn network(&self) -> &NetworkId {
        &self.network
    }

    /// Jobs that are not over, sold and bought; those whose receipt is being signed are among them.
    pub async fn jobs(&self) -> usize {
        let sold = match &self.seller {
            Some(seller) => seller.status().await.map_or(0, |status| status.under_way()),
            None => 0,
        };
        sold + self.buyer.running()
    }

    /// Stops bidding and waits at most `grace` for running jobs, sold and bought, and for their receipts.
    pub async fn drain(&self, grace: Duration) {
        let sold = async {
            if let Some(seller) = &self.seller {
                seller.drain().await;
                idle(seller).await;
            }
        };
        let _ = timeout(grace, async { tokio::join!(sold, self.buyer.idle()) }).await;
    }

    /// Drains, then closes everything, and lets go of the store.
    pub async fn shutdown(self, grace: Duration) {
        self.close(grace).await;
    }

    /// [`Node::shutdown`] for a node that others still hold: the store stays locked until the last of them is gone.
    pub async fn close(&self, grace: Duration) {
        self.drain(grace).await;
        save_peers(&self.net, &*self.store).await;
        save_ad_sequences(&self.net, &*self.store).await;
        self.endpoint.close().await;
        self.tabs.close().await;
        self.rails.iter().for_each(|rail| rail.stop());
        self.tasks.iter().for_each(JoinHandle::abort);
        self.net.clone().shutdown().await;
        let store = self.store.clone();
        let flushed = tokio::task::spawn_blocking(move || store.flush()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            warn!("the store was not flushed in order");
        }
    }
}

/// Resolves when no job runs and no receipt is being signed.
async fn idle(seller: &Seller) {
    while seller.status().await.is_some_and(|s| s.under_way() > 0) {
        sleep(LOOK_IDLE).await;
    }
}

fn net_config(settings: &Settings, store: &dyn Store) -> NetConfig {
    let known = store.peers().unwrap_or_else(|error| {
        warn!("the peer cache can't be read: {error}");
        Vec::new()
    });
    let ad_sequences = store.ad_sequences().unwrap_or_else(|error| {
        warn!("others' ad sequences can't be read: {error}");
        Vec::new()
    });
    NetConfig {
        network: settings.network.clone(),
        ad_sequences,
        listen: settings.listen.clone(),
        bootstrap: settings.bootstrap.clone(),
        mdns: settings.mdns,
        max_peers: settings.max_peers,
        reach: settings.reach.clone(),
        known_peers: known.iter().filter_map(|text| text.parse().ok()).collect(),
        serves: settings.serve.is_some(),
        receipts: None,
        tap: settings.tap.clone(),
        ..NetConfig::default()
    }
}

/// What the worker's parts share while they start.
struct Worker {
    key: NodeKey,
    network: NetworkId,
    net: Net,
    store: Arc<dyn Store>,
    ledger: Ledger,
    tabs: Tabs,
    rails: Rails,
    tally: Tally,
    metrics: Metrics,
    jobs: Jobs,
}

impl Worker {
    async fn start(
        self,
        serve: Serve,
        places: Places,
        (endpoint, chat_streams): (Endpoint, mpsc::Receiver<net::streams::PeerStream>),
        tasks: &mut Vec<JoinHandle<()>>,
    ) -> (Seller, Engines, watch::Receiver<Reading>) {
        let machine = hardware::watch(serve.sensors).await;
        let tags = Tags { region: serve.region.as_ref().map(Region::tag) };
        blind(&serve.policy, &machine.borrow()).into_iter().for_each(|what| warn!("{what}"));
        let settings = seller::Settings {
            key: self.key.clone(),
            network: self.network.clone(),
            rails: self.rails,
            slots: serve.slots,
            pricing: serve.pricing.clone(),
            policy: serve.policy,
            tags: tags.of(&machine.borrow()),
            places,
        };
        let seller = Seller::spawn(settings, self.net, self.store);
        // Before the first ad, which may have to say nothing.
        let first = sensed(&machine.borrow());
        seller.sensed(first).await;
        tasks.push(tokio::spawn(sense(machine.clone(), tags, seller.clone())));
        let offers = Offers { pricing: serve.pricing, aliases: serve.aliases, only: serve.models };
        let engines = Engines::spawn(serve.engines, offers, seller.clone()).await;
        let worker = chat::server::Worker {
            key: self.key,
            network: self.network,
            seller: seller.clone(),
            engines: engines.clone(),
            ledger: self.ledger,
            tabs: self.tabs,
            lasting: Lasting::default(),
            tally: self.tally,
            metrics: self.metrics,
            jobs: self.jobs,
        };
        let worker = Arc::new(worker);
        tasks.push(tokio::spawn(chat::server::run(endpoint, worker.clone())));
        tasks.push(tokio::spawn(chat::relayed::run(chat_streams, worker)));
        (seller, engines, machine)
    }
}

/// Tells the seller of every reading of the machine, as long as there are any.
async fn sense(mut machine: watch::Receiver<Reading>, tags: Tags, seller: Seller) {
    while machine.changed().await.is_ok() {
        let (now, known) = {
            let reading = machine.borrow_and_update();
            (sensed(&reading), tags.when_known(&reading))
        };
        seller.sensed(now).await;
        if let Some(tags) = known {
            seller.set_tags(tags).await;
        }
    }
}

/// What the worker's ad says of its machine.
struct Tags {
    region: Option<String>,
}

impl Tags {
    fn of(&self, reading: &Reading) -> Vec<String> {
        hardware::tags(reading).into_iter().chain(self.region.clone()).collect()
    }

    /// The driver may answer late, or not for a while: the machine is what it is meanwhile.
    fn when_known(&self, reading: &Reading) -> Option<Vec<String>> {
        (!reading.gpus.is_empty()).then(|| self.of(reading))
    }
}

/// A limit on what no sensor tells limits nothing: the operator should know.
fn blind(policy: &Policy, reading: &Reading) -> Vec<&'static str> {
    let now = sensed(reading);
    let limits = [
        (policy.max_celsius.is_some() && now.celsius.is_none(), "no GPU tells how hot it is, so max_celsius does nothing"),
        (policy.max_watts.is_some() && now.watts.is_none(), "no GPU tells what it draws, so max_watts does nothing"),
        (
            policy.idle_percent.is_some() && now.busy_percent.is_none(),
            "neither a GPU nor the system tells how busy it is, so only_idle does nothing",
        ),
    ];
    limits.into_iter().filter(|(is_blind, _)| *is_blind).map(|(_, what)| what).collect()
}

/// What of a reading the operator's policy is about.
fn sensed(reading: &Reading) -> Sensed {
    Sensed {
        offset_seconds: local_time::offset_seconds(clock::now()),
        celsius: reading.celsius(),
        watts: reading.watts(),
        busy_percent: reading.gpu_percent().max(reading.load_percent),
    }
}

struct Dispatch {
    buyer: Buyer,
    seller: Option<Seller>,
    rails: Rails,
    dropped: Arc<AtomicU64>,
    peers: usize,
}

impl Dispatch {
    async fn run(mut self, mut events: mpsc::Receiver<net::Event>) {
        while let Some(event) = events.recv().await {
            if !self.pass_on(event) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether everybody concerned had room for it.
    fn pass_on(&mut self, event: net::Event) -> bool {
        use net::Event;
        match event {
            Event::Ad(ad) => {
                self.rails.iter().for_each(|rail| rail.heard(&ad));
                let sold = self.sell(seller_market::Input::Ad(ad.clone()));
                self.buyer.try_tell(buyer_market::Input::Ad(ad)) && sold
            }
            Event::Offer(offer) => self.sell(seller_market::Input::Offer(offer)),
            Event::Accept(accept) => self.sell(seller_market::Input::Accept(accept)),
            Event::Answer(answer) => self.buyer.try_tell(buyer_market::Input::Answer(answer)),
            Event::Receipt(receipt) => {
                debug!(job = %receipt.receipt().job, "receipt heard");
                self.buyer.try_tell(buyer_market::Input::Receipt(Box::new(receipt)))
            }
            Event::Rtt { peer, ms } => {
                self.buyer.observe(peer, Observation::Rtt(ms));
                true
            }
            Event::PeerConnected(peer) => {
                self.peers += 1;
                self.tell(peer, "peer joined");
                self.seller.as_ref().is_none_or(Seller::try_greet)
            }
            Event::PeerDisconnected(peer) => {
                self.peers = self.peers.saturating_sub(1);
                self.tell(peer, "peer left");
                true
            }
        }
    }

    fn tell(&self, peer: NodeId, what: &str) {
        if self.peers <= TOLD_PEERS {
            info!(peer = %peer.short(), peers = self.peers, "{what}");
        } else {
            debug!(peer = %peer.short(), peers = self.peers, "{what}");
        }
    }

    fn sell(&self, input: seller_market::Input) -> bool {
        self.seller.as_ref().is_none_or(|seller| seller.try_tell(input))
    }
}

async fn cache_peers(net: Net, store: Arc<dyn Store>) {
    loop {
        sleep(PEER_CACHE).await;
        save_peers(&net, &*store).await;
        save_ad_sequences(&net, &*store).await;
    }
}

/// So that after a restart an ad that was replaced meanwhile stays stale.
async fn save_ad_sequences(net: &Net, store: &dyn Store) {
    let sequences = net.ad_sequences().await;
    if sequences.is_empty() {
        return;
    }
    if let Err(error) = store.put_ad_sequences(&sequences) {
        warn!("others' ad sequences can't be written: {error}");
    }
}

async fn save_peers(net: &Net, store: &dyn Store) {
    let addresses = net.peers().await.into_iter().flat_map(|p| p.addresses).take(MAX_CACHED_PEERS);
    let addresses: Vec<String> = addresses.map(|a| a.to_string()).collect();
    if addresses.is_empty() {
        return;
    }
    if let Err(error) = store.put_peers(&addresses) {
        warn!("the peer cache can't be written: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{Gpu, Vendor};

    fn reading(gpus: Vec<Gpu>, load_percent: Option<u16>) -> Reading {
        Reading { gpus, load_percent, ..Reading::default() }
    }

    fn gpu() -> Gpu {
        let (model, memory_bytes) = ("a GPU".into(), Some(24 << 30));
        Gpu { vendor: Vendor::Nvidia, model, memory_bytes, used_bytes: None, busy_percent: None, celsius: None, watts: None }
    }

    #[test]
    fn each_limit_on_what_nothing_tells_is_named() {
        let policy = Policy { max_celsius: Some(80), max_watts: Some(300), idle_percent: Some(20), ..Policy::default() };
        let named = |reading: &Reading| {
            let limits = ["max_celsius", "max_watts", "only_idle"];
            let told = blind(&policy, reading).concat();
            limits.into_iter().filter(|limit| told.contains(limit)).collect::<Vec<_>>()
        };
        assert_eq!(named(&reading(vec![gpu()], None)), ["max_celsius", "max_watts", "only_idle"]);
        assert_eq!(named(&reading(vec![gpu()], Some(5))), ["max_celsius", "max_watts"]);
        let all = Gpu { busy_percent: Some(1), celsius: Some(50), watts: Some(100), ..gpu() };
        assert!(named(&reading(vec![all], None)).is_empty());
        assert!(blind(&Policy::default(), &reading(Vec::new(), None)).is_empty(), "nothing is limited");
    }

    #[test]
    fn a_driver_that_is_late_changes_what_the_ad_says_and_one_that_hangs_does_not() {
        let tags = Tags { region: Some("a region".into()) };
        assert_eq!(tags.when_known(&reading(Vec::new(), Some(5))), None);
        let known = tags.when_known(&reading(vec![gpu()], Some(5))).expect("the driver answers");
        assert!(known.iter().any(|tag| tag == "c0mpute:vram:24-48gb") && known.last().is_some_and(|tag| tag == "a region"));
    }
}
