//! Nodes on loopback, on free ports, with homes of their own.
//!
//! [`Member`] is a node in this process, for a demo or a test that looks inside. [`Process`](process::Process) is the real
//! `infernet` in a process of its own, for what only a process can show: SIGKILL, SIGSTOP, ports, memory.

pub mod process;
pub mod small_disk;

use infernet_node::{
    backend::{self, Backend, Deadlines},
    buyer::Preferences,
    clock,
    control::schema::{ChatOrderBody, WishesBody},
    hardware::Sensors,
    market::{policy::Policy, pricing::Pricing},
    net::ReachConfig,
    node::{Node, Serve, Settings, StartError},
    settlement::{service, tabs::Credit},
    store::{self, StoreError},
};
use infernet_wire::{
    capability::ModelAd,
    chat::{ChatMessage, Role},
    key::NodeKey,
    money::{MicroUsd, Price},
    topic::NetworkId,
};
use libp2p::Multiaddr;
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::sleep};

/// What a buyer may owe a worker here: more than any test or measurement spends.
pub const CREDIT: MicroUsd = MicroUsd(1_000_000_000);

/// The network of everything in this crate.
pub const NETWORK: &str = "testnet";

/// A cluster can't be built.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No temporary directory.
    #[error("can't make a temporary home: {0}")]
    Home(std::io::Error),
    /// A node.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An engine's address.
    #[error("bad engine: {0}")]
    Engine(String),
    /// A plane.
    #[error("a plane: {0}")]
    Plane(String),
    /// Its account on a chain.
    #[error("the account on the chain: {0}")]
    Account(String),
    /// Something that must happen did not.
    #[error("{what} did not happen within {} s", .within.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        within: Duration,
    },
}

/// What a member is.
#[derive(Debug, Clone)]
pub struct MemberSpec {
    /// Who to connect to first.
    pub bootstrap: Vec<Multiaddr>,
    /// What it sells.
    pub sells: Option<Sells>,
    /// How it buys.
    pub preferences: Preferences,
    /// Connections at most.
    pub max_peers: u32,
    /// Which of the machine's loopback addresses it listens at, mesh and chat.
    pub at: IpAddr,
    /// Whether others can connect to it.
    pub listens: bool,
    /// How others are to reach it.
    pub reach: ReachConfig,
    /// A copy of every gossip payload.
    pub tap: Option<mpsc::Sender<(String, Vec<u8>)>>,
    /// On which chain it pays and is paid.
    pub settles: Option<service::Settings>,
}

/// What a worker sells.
#[derive(Debug, Clone)]
pub struct Sells {
    /// An engine as `KIND=URL`; a URL alone is that of one with Ollama's interface.
    pub engine: String,
    /// More engines.
    pub also: Vec<String>,
    /// Its price.
    pub price: Price,
    /// Jobs at once.
    pub slots: u16,
    /// What anybody may owe it.
    pub credit: MicroUsd,
    /// How long its engine may take.
    pub deadlines: Deadlines,
    /// When nothing is sold.
    pub policy: Policy,
    /// What tells how the machine is; `None`: this machine's own.
    pub sensors: Option<fn() -> Box<dyn Sensors>>,
}

impl Sells {
    /// `engine` at `price_in` and `price_out` micro-USD per million tokens.
    pub fn new(engine: impl Into<String>, price_in: u64, price_out: u64, slots: u16) -> Self {
        let price = Price { input: MicroUsd(price_in), output: MicroUsd(price_out) };
        let (engine, deadlines, policy) = (engine.into(), Deadlines::default(), Policy::default());
        Sells { engine, also: Vec::new(), price, slots, credit: CREDIT, deadlines, policy, sensors: None }
    }

    /// The engines as `KIND=URL`.
    fn backends(&self) -> Vec<String> {
        let named = |engine: &String| if engine.starts_with("http") { format!("ollama={engine}") } else { engine.clone() };
        [&self.engine].into_iter().chain(&self.also).map(named).collect()
    }

    /// As flags of `infernet start`.
    pub fn flags(&self) -> Vec<String> {
        let (slots, input, output) = (self.slots.to_string(), self.price.input.0.to_string(), self.price.output.0.to_string());
        let engines = self.backends().into_iter().flat_map(|engine| ["--backend".to_owned(), engine]);
        let terms = ["--slots", &slots, "--price-in", &input, "--price-out", &output].map(str::to_owned);
        engines.chain(terms).collect()
    }
}

impl MemberSpec {
    /// A node that only buys.
    pub fn buyer(bootstrap: Vec<Multiaddr>) -> Self {
        MemberSpec {
            bootstrap,
            sells: None,
            preferences: Preferences::default(),
            max_peers: 64,
            at: Ipv4Addr::LOCALHOST.into(),
            listens: true,
            reach: ReachConfig::default(),
            tap: None,
            settles: None,
        }
    }

    /// A node that sells.
    pub fn worker(bootstrap: Vec<Multiaddr>, sells: Sells) -> Self {
        MemberSpec { sells: Some(sells), ..MemberSpec::buyer(bootstrap) }
    }
}

/// A node in this process.
pub struct Member {
    /// The node.
    pub node: Node,
    /// Its home, removed with it.
    pub home: TempDir,
}

impl Member {
    /// Starts a node with a fresh key and home.
    pub async fn start(spec: MemberSpec) -> Result<Self, ClusterError> {
        let home = tempfile::Builder::new().prefix("infernet-").tempdir().map_err(ClusterError::Home)?;
        let key = NodeKey::from_bytes(&clock::random()).map_err(|e| ClusterError::Engine(e.to_string()))?;
        let network: NetworkId = NETWORK.parse().unwrap_or_default();
        let store = store::open(home.path(), &network)?;
        let settings = Settings {
            key: key.clone(),
            former: Vec::new(),
            network,
            listen: if spec.listens { vec![any_port(spec.at)] } else { Vec::new() },
            chat_listen: (spec.at, 0).into(),
            bootstrap: spec.bootstrap,
            mdns: false,
            max_peers: spec.max_peers,
            reach: spec.reach,
            serve: spec.sells.map(serve).transpose()?,
            preferences: spec.preferences,
            tap: spec.tap,
        };
        let node = Node::start(settings, store).await?;
        if let Some(settings) = spec.settles {
            node.settle(settings, key).map_err(|error| ClusterError::Account(error.to_string()))?;
        }
        Ok(Member { node, home })
    }

    /// Its addresses, for others to start from.
    pub async fn addresses(&self) -> Vec<Multiaddr> {
        self.node.net().listen_addresses().await
    }

    /// Waits until it knows `workers` workers that serve `model`.
    pub async fn knows(&self, model: &str, workers: usize, within: Duration) -> Result<(), ClusterError> {
        let known = || async {
            let models = self.node.buyer().known_models().await;
            models.iter().filter(|m| names(&m.id, model)).map(|m| m.workers).sum::<usize>() >= workers
        };
        eventually(&format!("hearing of {workers} workers that serve {model}"), within, known).await
    }
}

/// Whether `id` is what a buyer who asks for `model` means.
fn names(id: &str, model: &str) -> bool {
    ModelAd { id: id.into(), ..ModelAd::default() }.answers_to(model)
}

/// A short question, with an answer of `max_tokens` from an engine that counts, for a node's control socket.
pub fn question(model: &str, max_tokens: u32) -> ChatOrderBody {
    ChatOrderBody {
        model: model.into(),
        messages: vec![ChatMessage::new(Role::User, "Go.")],
        max_tokens,
        temperature: None,
        seed: None,
        max_price: 10_000_000,
        budget: None,
        rule: 0,
        window_ms: 1_000,
        wishes: WishesBody::default(),
    }
}

/// TCP on a free port of 127.0.0.1.
pub fn loopback() -> Multiaddr {
    any_port(Ipv4Addr::LOCALHOST.into())
}

fn any_port(ip: IpAddr) -> Multiaddr {
    Multiaddr::from(ip).with(libp2p::multiaddr::Protocol::Tcp(0))
}

fn serve(sells: Sells) -> Result<Serve, ClusterError> {
    let connect = |text: String| -> Result<Arc<dyn Backend>, ClusterError> {
        let spec = text.parse().map_err(|e| ClusterError::Engine(format!("{e}")))?;
        let engine = backend::connect_with(&spec, sells.deadlines).map_err(|e| ClusterError::Engine(e.to_string()))?;
        Ok(engine.into())
    };
    let engines = sells.backends().into_iter().map(connect).collect::<Result<_, _>>()?;
    let mut serve = Serve::new(engines, Pricing::flat(sells.price), sells.slots);
    if let Some(sensors) = sells.sensors {
        serve.sensors = sensors();
    }
    Ok(Serve { policy: sells.policy, credit: Credit { free: sells.credit, ..Credit::default() }, ..serve })
}

/// Waits until `holds`, looking every few milliseconds.
pub async fn eventually<F: Future<Output = bool>>(
    what: &str,
    within: Duration,
    holds: impl Fn() -> F,
) -> Result<(), ClusterError> {
    let end = clock::instant() + within;
    while clock::instant() < end {
        if holds().await {
            return Ok(());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Err(ClusterError::Timeout { what: what.into(), within })
}
