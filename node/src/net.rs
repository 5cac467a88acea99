//! The mesh: who is connected, what is gossiped, how an answer finds its buyer.
//!
//! [`start`] binds the sockets and returns a [`Net`], a small handle that may be cloned, and the one stream of [`Event`]s. One
//! task (`task`) owns the libp2p swarm; handles send it `Command`s and never share state with it.
//!
//! **A gossip message's way in:** socket → gossipsub (its signature, duplicates) → `gossip::Gate::admit`, pure, which decides by
//! size, quotas, age, author, replay set and signature → an [`Event`] to the node, if it has room for one → the verdict back to
//! gossipsub, in the same turn, which only then passes an accepted message on.
//!
//! **A message's way out:** [`Net::publish`] → the same gate, so that we never say what others refuse → gossipsub, or the
//! `outbox` while nobody subscribes.
//!
//! **An answer's way** (a bid, or a refusal to bid) is not gossip, so that an auction's cost does not grow with the network. This
//! refines section 4 of the protocol ("over an existing connection or circuit to the buyer, else on the topic encrypted"):
//! 1. *direct*, in the plain: the worker is connected to the buyer;
//! 2. *back along the path*, sealed to the buyer: to the neighbour that first brought the offer, from there to the buyer or to its
//!    own such neighbour (`routes`). Each link carries each answer once, and each hop allows one answer per worker and offer;
//! 3. *on the topic*, sealed, when neither works.
//!
//! Nobody dials an address because an offer names it.
//!
//! **A newcomer** asks its first neighbours for the live ads that they have heard (`ads`, `board`), which are judged like gossip;
//! else it would know each worker only when that advertises again, after 45 s.
//!
//! **Where it begins**: at the peers that are named, or at those that a page names ([`bootstrap`]).
//!
//! **How others reach us** ([`reach`]): directly if peers that try say so, else over relays. A circuit is a connection like any other:
//! everything above runs over it, until DCUtR makes a direct one of it. Who is connected how, and why not directly, is in
//! [`PeerInfo`].
//!
//! **A page of receipts** ([`receipts`]) is asked of a node by anybody; who keeps them answers, through [`NetConfig::receipts`].
//!
//! **A chat stream** ([`streams`]) is for buyers and workers without a direct way to each other's chat endpoint: [`Net::open_chat`]
//! opens one over a straight, punched or relayed connection, [`NetConfig::chat`] takes them. The mesh does not look inside.
//!
//! The network knows nothing of prices, slots or models: it never imports `market`. It stores nothing. Its bounds are constants
//! beside the code that keeps them; when one is reached, the newcomer is refused and a counter tells ([`Net::counters`]).

mod ads;
mod bare;
mod behaviour;
mod board;
pub mod bootstrap;
mod command;
mod counters;
mod direct;
mod discovery;
mod event;
mod generations;
mod gossip;
pub mod inbound;
mod outbox;
mod peers;
mod probe;
mod quota;
mod raw;
pub mod reach;
pub mod receipts;
mod replay;
pub mod routes;
pub mod rules;
mod score;
mod screen;
pub mod streams;
mod task;
mod transport;

pub use behaviour::KAD_PROTOCOL;
pub use event::Event;
pub use peers::{Direction, Path, PeerInfo, Transport};
pub use reach::{Mode, Reachability, Reached, RelayInfo};
pub use transport::{Socket, socket};

use crate::clock;
use command::Command;
use infernet_wire::{
    bid::Answer,
    id::NodeId,
    key::NodeKey,
    receipt_page::{Page, PageRequest},
    time::UnixMillis,
    topic::NetworkId,
};
use libp2p::{Multiaddr, StreamProtocol};
use std::{collections::BTreeMap, fmt, io, net::IpAddr, sync::Arc};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;

/// Events that wait for the node: a second of a busy network. When full, a message is dropped, counted and not passed on.
const EVENTS: usize = 1_024;
/// Commands that wait for the network. When full, callers wait.
const COMMANDS: usize = 256;
/// Connections of a node that sets no other bound: a mesh of eight, and room for those who look for one.
const MAX_PEERS: u32 = 128;

/// How to join the mesh.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// Messages of other networks are refused.
    pub network: NetworkId,
    /// Where to listen: TCP (`/ip4/0.0.0.0/tcp/46337`) and QUIC (`/ip4/0.0.0.0/udp/46338/quic-v1`). May be empty.
    pub listen: Vec<Multiaddr>,
    /// Where to begin, best with `/p2p/…` at the end; or pages that say so, see [`bootstrap`].
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to find peers on the local network by multicast.
    pub mdns: bool,
    /// The most established connections.
    pub max_peers: u32,
    /// Peers of earlier runs, with `/p2p/…` at the end; tried before `bootstrap`.
    pub known_peers: Vec<Multiaddr>,
    /// The newest ad sequences heard in earlier runs: ads that are not newer are stale.
    pub ad_sequences: Vec<(NodeId, u64)>,
    /// Whether to answer DHT queries from the start: for nodes that others can reach, such as workers and bootstrap nodes.
    /// Others begin to when libp2p finds that they can be reached.
    pub serves: bool,
    /// Who answers for our receipts when a peer asks for a page; `None`: there are none.
    pub receipts: Option<mpsc::Sender<receipts::Asked>>,
    /// Who takes chat streams that peers open, see [`streams`]; `None`: nobody's are taken.
    pub chat: Option<mpsc::Sender<streams::PeerStream>>,
    /// Whether to dial peers back that ask whether they can be reached (AutoNAT v2 server): for relays. The addresses that they
    /// name are dialled; for one that differs from where they come from they pay with data first.
    pub dial_back: bool,
    /// How others are to reach us.
    pub reach: ReachConfig,
    /// Protocols that the mesh does not speak, each with a queue of its own for the streams that peers open.
    pub doors: Vec<inbound::Door>,
    /// Gets a copy of every raw message seen or published, with its topic: for tests that search for what must not be there.
    /// What does not fit is dropped.
    pub tap: Option<mpsc::Sender<(String, Vec<u8>)>>,
}

impl Default for NetConfig {
    /// Listens nowhere and knows nobody.
    fn default() -> Self {
        NetConfig {
            network: NetworkId::default(),
            listen: Vec::new(),
            bootstrap: Vec::new(),
            mdns: false,
            max_peers: MAX_PEERS,
            known_peers: Vec::new(),
            ad_sequences: Vec::new(),
            serves: false,
            receipts: None,
            chat: None,
            dial_back: false,
            reach: ReachConfig::default(),
            doors: Vec::new(),
            tap: None,
        }
    }
}

/// How others are to reach a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReachConfig {
    /// Directly or over relays. With [`Mode::Auto`] only nodes that serve use relays, and only if need be.
    pub mode: Mode,
    /// Where the operator says that it is reached: told to peers, without `/p2p/`.
    pub external: Vec<Multiaddr>,
    /// IP addresses of this machine that nobody is told, such as a container bridge's, where nobody elsewhere reaches it.
    pub hidden: Vec<IpAddr>,
    /// Relays to use first, with `/p2p/…` at the end.
    pub relays: Vec<Multiaddr>,
    /// Whether to have the router map ports, unless the node listens on loopback alone.
    pub upnp: bool,
}

/// The network could not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A socket could not be opened.
    #[error("can't listen on {address}: {reason}; {fix}")]
    Listen {
        /// Where.
        address: Multiaddr,
        /// What went wrong.
        reason: String,
        /// What to do about it.
        fix: &'static str,
    },
    /// libp2p's QUIC would write the secrets of every connection to a file, and has no setting against it.
    #[error("the environment variable SSLKEYLOGFILE is set, which would reveal the node's traffic; unset it")]
    KeyLog,
    /// libp2p refused its settings or the key.
    #[error("can't set up the network: {0}")]
    Setup(String),
}

impl NetError {
    fn listen(address: &Multiaddr, error: &io::Error) -> Self {
        let fix = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program uses this port, perhaps another node: stop it, or listen on another port"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address: use one of its own, or 0.0.0.0 or ::",
            io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: use a higher one",
            _ => "use another address",
        };
        NetError::Listen { address: address.clone(), reason: error.to_string(), fix }
    }
}

/// A message was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Until the deadline, no connected peer subscribed to the topic.
    #[error("no peer subscribed to the topic before the deadline")]
    NoPeers,
    /// Other nodes would refuse the message; the reason as counted there.
    #[error("other nodes would refuse the message: {0}")]
    Refused(&'static str),
    /// Too many messages wait for a peer already, or all peers are slower than we publish.
    #[error("too many messages are waiting")]
    Busy,
    /// The network has been shut down.
    #[error("the network is shut down")]
    Stopped,
}

impl PublishError {
    /// Whether the same message may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self, PublishError::NoPeers | PublishError::Busy)
    }
}

/// Which way an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Over a connection to the buyer; it has arrived.
    Direct,
    /// Sealed, from neighbour to neighbour; it has arrived.
    Path,
    /// Sealed, on the topic; it is on its way.
    Topic,
    /// The buyer, or a neighbour on the way, did not want it: too late, or one too many.
    Refused,
    /// No way was open.
    Nowhere,
}

impl Route {
    /// A short stable name, for counters.
    pub fn label(self) -> &'static str {
        match self {
            Route::Direct => "direct",
            Route::Path => "path",
            Route::Topic => "topic",
            Route::Refused => "refused",
            Route::Nowhere => "nowhere",
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A handle to the network. When the last one is dropped, the network stops.
#[derive(Debug, Clone)]
pub struct Net {
    id: NodeId,
    commands: mpsc::Sender<Command>,
    subscribers: watch::Receiver<usize>,
    reached: watch::Receiver<Reached>,
}

/// Joins the mesh. All sockets are bound when this returns; connections come later, see [`Net::wait_connected`].
/// The events must be read: while their queue is full, messages are dropped. Dropping the receiver instead is fine: the node
/// then only passes messages on.
pub async fn start(key: &NodeKey, config: NetConfig) -> Result<(Net, mpsc::Receiver<Event>), NetError> {
    let (commands, commands_in) = mpsc::channel(COMMANDS);
    let (events_out, events) = mpsc::channel(EVENTS);
    let (subscribers_out, subscribers) = watch::channel(0);
    let (reached_out, reached) = watch::channel(Reached::default());
    let (pages, peers) = config.bootstrap.into_iter().partition(bootstrap::is_page);
    let (network, config) = (config.network.clone(), NetConfig { bootstrap: peers, ..config });
    let ends = task::Ends { commands: commands_in, events: events_out, subscribers: subscribers_out, reached: reached_out };
    task::spawn(key, config, ends).await?;
    begin(pages, network, &commands, &subscribers);
    Ok((Net { id: key.id(), commands, subscribers, reached }, events))
}

/// Has the pages asked, if there are any.
fn begin(pages: Vec<Multiaddr>, network: NetworkId, commands: &mpsc::Sender<Command>, subscribers: &watch::Receiver<usize>) {
    if !pages.is_empty() {
        let asking = bootstrap::follow(pages, network, commands.downgrade(), subscribers.clone());
        tokio::spawn(asking.instrument(tracing::Span::current()));
    }
}

impl Net {
    /// Who we are.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where we listen, each with `/p2p/` and our id at the end; empty after the shutdown.
    pub async fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.ask(|reply| Command::ListenAddresses { reply }).await.unwrap_or_default()
    }

    /// Publishes a signed message. Returns when it was handed to at least one peer that subscribes to `topic`; until there is one
    /// it waits, `deadline` at most. If the caller stops waiting, the message is published all the same.
    pub async fn publish(&self, topic: String, bytes: Arc<[u8]>, deadline: UnixMillis) -> Result<(), PublishError> {
        self.ask(|reply| Command::Publish { topic, bytes, deadline, reply }).await.unwrap_or(Err(PublishError::Stopped))
    }

    /// Brings our answer to an offer to its buyer, by the best way that works.
    pub async fn answer(&self, buyer: NodeId, answer: Answer) -> Route {
        self.ask(|reply| Command::Answer { buyer, answer: Box::new(answer), reply }).await.unwrap_or(Route::Nowhere)
    }

    /// A page of `peer`'s receipts, not verified. `peer` need not be connected if its ad says, or the DHT knows, where it is.
    pub async fn receipt_page(&self, peer: NodeId, request: PageRequest) -> Result<Page, receipts::PageError> {
        let asked = self.ask(|reply| Command::ReceiptPage { peer, request, reply }).await;
        let bytes = asked.unwrap_or(Err(receipts::PageError::Stopped))?;
        Ok(Page::decode(&bytes)?)
    }

    /// The connected peers, by id; empty after the shutdown.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        self.ask(|reply| Command::Peers { reply }).await.unwrap_or_default()
    }

    /// A connected peer.
    pub async fn peer(&self, id: NodeId) -> Option<PeerInfo> {
        self.ask(|reply| Command::Peer { id, reply }).await.flatten()
    }

    /// A chat stream to `peer`, over the best connection that there is; if there is none it is dialled where it is known to be.
    /// Whether the peer takes such streams at all may only show when it is read from.
    pub async fn open_chat(&self, peer: NodeId) -> Result<streams::PeerStream, streams::StreamRefused> {
        self.ask(|reply| Command::OpenChat { peer, reply }).await.unwrap_or(Err(streams::StreamRefused::Stopped))
    }

    /// A stream of `protocol`, which the mesh itself does not speak, to a peer that is connected, over the best connection that
    /// there is. Whether the peer speaks it may only show when it is read from.
    pub async fn open_stream(
        &self,
        peer: NodeId,
        protocol: StreamProtocol,
    ) -> Result<streams::PeerStream, streams::StreamRefused> {
        let asked = self.ask(|reply| Command::OpenStream { peer, protocol, reply }).await;
        asked.unwrap_or(Err(streams::StreamRefused::Stopped))
    }

    /// Starts to connect to `address`. Whether that works shows in an [`Event::PeerConnected`].
    pub async fn dial(&self, address: Multiaddr) {
        // Nobody is left to connect after the shutdown.
        let _ = self.commands.send(Command::Dial { address }).await;
    }

    /// Connects to `peer` unless that is so already: at `addresses`, at those of its newest ad, and where the DHT knows it. What it
    /// is connected by then, or `None` if that fails or takes longer than until `deadline`.
    pub async fn connect(&self, peer: NodeId, addresses: Vec<Multiaddr>, deadline: UnixMillis) -> Option<PeerInfo> {
        let asked = self.ask(|reply| Command::Connect { peer, addresses, deadline, reply });
        tokio::time::timeout(clock::until(deadline), asked).await.ok().flatten().flatten()
    }

    /// Where others reach us.
    pub fn reached(&self) -> Reached {
        self.reached.borrow().clone()
    }

    /// The same, and whenever it changes; it ends with the network.
    pub fn watch_reached(&self) -> watch::Receiver<Reached> {
        self.reached.clone()
    }

    /// The relays that are known, those that hold a place for us first; empty after the shutdown.
    pub async fn relays(&self) -> Vec<RelayInfo> {
        self.ask(|reply| Command::Relays { reply }).await.unwrap_or_default()
    }

    /// What happened how often since the start, by `area.what`, such as `gossip.expired`; empty after the shutdown.
    pub async fn counters(&self) -> BTreeMap<String, u64> {
        self.ask(|reply| Command::Counters { reply }).await.unwrap_or_default()
    }

    /// The newest ad sequence heard of each worker, for [`NetConfig::ad_sequences`] of the next run; empty after the shutdown.
    pub async fn ad_sequences(&self) -> Vec<(NodeId, u64)> {
        self.ask(|reply| Command::AdSequences { reply }).await.unwrap_or_default()
    }

    /// Waits until a connected peer subscribes to any of our topics; false if that does not happen before `deadline`.
    pub async fn wait_connected(&self, deadline: UnixMillis) -> bool {
        let mut subscribers = self.subscribers.clone();
        let connected = subscribers.wait_for(|count| *count > 0);
        matches!(tokio::time::timeout(clock::until(deadline), connected).await, Ok(Ok(_)))
    }

    /// Closes all connections and frees the sockets; returns when that is done.
    pub async fn shutdown(self) {
        let _ = self.commands.send(Command::Shutdown).await;
        self.commands.closed().await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
