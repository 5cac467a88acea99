//! The libp2p protocols that a node speaks, and their settings.

use super::{
    NetConfig, NetError, ads, direct, discovery, inbound, peers::peer_id, reach::Mode, receipts, score, screen::Screened,
    streams,
};
use infernet_wire::{id::NodeId, limits, topic};
use libp2p::{
    PeerId, StreamProtocol, autonat, connection_limits,
    connection_limits::ConnectionLimits,
    dcutr,
    gossipsub::{self, IdentTopic, IdentityTransform, MessageAuthenticity, ValidationMode, WhitelistSubscriptionFilter},
    identify,
    identity::Keypair,
    kad::{self, store::MemoryStore},
    mdns, ping, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    upnp,
};
use std::time::Duration;

/// The name of our DHT, as in c0mpute.
pub const KAD_PROTOCOL: &str = "/c0mpute/kad/1.0.0";
pub(super) const KAD: StreamProtocol = StreamProtocol::new(KAD_PROTOCOL);
/// What relays speak (libp2p's circuit relay, version 2).
pub(super) const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");
const IDENTIFY: &str = "/c0mpute/id/1.0.0";
const AGENT: &str = concat!("infernet/", env!("CARGO_PKG_VERSION"));
/// Comes before the network's name in what a node calls itself.
const NETWORK: &str = " network/";

/// Short, so that the first mesh stands at once; gossipsub's own default is five seconds.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(100);
/// Gossip about missed messages goes out with each heartbeat, and a bid window is at most two seconds.
const HEARTBEAT: Duration = Duration::from_millis(700);
/// How long gossipsub knows a message again by its id, in about 300 bytes each. Neighbours offer what they have for five
/// heartbeats; twice that on a slow way, and as much again. Older copies are stopped by the gate, by digest, in a third of that.
const REMEMBER_IDS: Duration = Duration::from_secs(15);
/// gossipsub's own bound of a mesh; see [`mesh_high`].
const MESH_HIGH: usize = 12;
/// Messages queued for one peer: half a second of a busy network. gossipsub's default is 5 000, 320 MB of the largest.
const PEER_QUEUE: usize = 250;
/// Message ids in one "I have", each of about 100 bytes in memory: three heartbeats of a busy network. A peer that does not read
/// has a queue full of them; at gossipsub's default of 5 000 that is 260 MB.
const MAX_IDS: usize = 500;
/// Connections to one peer: two when both dial at once, and the same over a circuit, which stays open until the others stand; more
/// are waste.
const PER_PEER: u32 = 4;
/// Connections that only we can open: a mesh's worth.
const CHOSEN: u32 = 8;
/// Handshakes at once, in either direction: as many as take two cores a second.
const HANDSHAKES: u32 = 64;

/// How often each connection is tried, and how long an answer may take. libp2p lets a first failure pass, so one that is dead, since
/// the way to it has changed, is closed after 12 to 16 s; whoever streams over it has 30 s to come back on another
/// ([`deadline::RESUME_GRACE`](crate::deadline)). TCP alone would keep it for a quarter of an hour.
const PING: Duration = Duration::from_secs(4);

/// All protocols of a node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    /// First, so that it refuses a connection before others prepare for it.
    pub(super) limits: connection_limits::Behaviour,
    pub(super) gossip: gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>,
    pub(super) kad: kad::Behaviour<MemoryStore>,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) answers: direct::Behaviour,
    pub(super) receipts: receipts::Behaviour,
    pub(super) ads: ads::Behaviour,
    /// Streams of protocols that others speak; see [`super::NetConfig::doors`].
    pub(super) doors: inbound::Behaviour,
    /// Chat where there is no direct way to the chat endpoint, and streams that we open.
    pub(super) streams: streams::Behaviour,
    /// Tells peers whether they can be dialled (AutoNAT v2).
    pub(super) dial_back: Toggle<autonat::v2::server::Behaviour>,
    /// Has peers try whether we can be dialled (AutoNAT v2).
    pub(super) probe: Toggle<Screened<autonat::v2::client::Behaviour>>,
    /// Reserves places at relays, and opens circuits.
    pub(super) circuits: relay::client::Behaviour,
    /// Has the router map our ports.
    pub(super) upnp: Toggle<upnp::tokio::Behaviour>,
    /// Makes a circuit a direct connection (DCUtR). Last, so that it hears of no connection that others refuse: it counts on that.
    pub(super) punch: Toggle<Screened<dcutr::Behaviour>>,
}

impl Behaviour {
    pub(super) fn new(keypair: &Keypair, config: &NetConfig, circuits: relay::client::Behaviour) -> Result<Self, NetError> {
        let me = keypair.public().to_peer_id();
        // In a test network on one machine, its own addresses are all there are.
        let least = if discovery::is_local(&config.listen) { discovery::Reach::Host } else { discovery::Reach::World };
        let punches = config.reach.mode != Mode::RelayOnly && !config.dial_back;
        let listens = config.reach.mode.listens() && !config.listen.is_empty();
        let maps = config.reach.upnp && listens && !discovery::is_local(&config.listen);
        Ok(Behaviour {
            limits: limits(config.max_peers),
            gossip: gossip(keypair, config.max_peers)?,
            kad: kad(me, config.serves),
            identify: identify::Behaviour::new(
                identify::Config::new(IDENTIFY.into(), keypair.public())
                    .with_agent_version(format!("{AGENT}{NETWORK}{}", config.network.as_str()))
                    // What we listen on is told as far as it works; see `reach`.
                    .with_hide_listen_addrs(true)
                    // Else what a peer claims would be dialled as it is: our own loopback, where we answer ourselves, ends a dial.
                    .with_cache_size(0)
                    .with_push_listen_addr_updates(true),
            ),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING).with_timeout(PING)),
            mdns: mdns(me, config.mdns).into(),
            answers: direct::behaviour(),
            receipts: receipts::behaviour(),
            ads: ads::behaviour(),
            doors: inbound::Behaviour::new(config.doors.clone()),
            streams: streams::Behaviour::new(config.chat.clone()),
            dial_back: config.dial_back.then(autonat::v2::server::Behaviour::default).into(),
            probe: (config.reach.mode == Mode::Auto && listens && !config.dial_back)
                .then(|| Screened::new(autonat::v2::client::Behaviour::default(), least))
                .into(),
            circuits,
            upnp: maps.then(upnp::tokio::Behaviour::default).into(),
            punch: punches.then(|| Screened::new(dcutr::Behaviour::new(me), least)).into(),
        })
    }

    /// gossipsub's score of `peer`, zero if it has none.
    pub(super) fn score(&self, peer: &NodeId) -> f64 {
        peer_id(peer).and_then(|peer| self.gossip.peer_score(&peer)).unwrap_or_default()
    }
}

/// The network that a peer says it is of, if what it calls itself tells.
pub(super) fn network_of(agent: &str) -> Option<&str> {
    agent.split_once(NETWORK).and_then(|(_, rest)| rest.split_whitespace().next())
}

/// The topics that every node follows, so that it can pass them on.
pub(super) fn topics() -> [IdentTopic; 3] {
    [topic::CAPABILITIES.into(), topic::jobs(topic::INFERENCE), topic::RECEIPTS.into()]
        .map(|name: String| IdentTopic::new(name))
}

fn limits(max_peers: u32) -> connection_limits::Behaviour {
    // Some are kept for peers that we choose, so that strangers can't surround us.
    let chosen = CHOSEN.min(max_peers / 2);
    connection_limits::Behaviour::new(
        ConnectionLimits::default()
            .with_max_established(Some(max_peers))
            .with_max_established_incoming(Some(max_peers - chosen))
            .with_max_established_per_peer(Some(PER_PEER))
            .with_max_pending_incoming(Some(HANDSHAKES))
            .with_max_pending_outgoing(Some(HANDSHAKES)),
    )
}

fn gossip(
    keypair: &Keypair,
    max_peers: u32,
) -> Result<gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>, NetError> {
    let config = gossipsub::ConfigBuilder::default()
        .heartbeat_initial_delay(FIRST_HEARTBEAT)
        .heartbeat_interval(HEARTBEAT)
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(limits::MAX_GOSSIP_BYTES)
        .duplicate_cache_time(REMEMBER_IDS)
        .flood_publish(true)
        .mesh_n_high(mesh_high(max_peers))
        .connection_handler_queue_len(PEER_QUEUE)
        .max_control_messages_sent(MAX_IDS)
        .build()
        .map_err(|error| NetError::Setup(error.to_string()))?;
    let hashes = topics().map(|topic| topic.hash());
    let followed = WhitelistSubscriptionFilter(hashes.iter().cloned().collect());
    let signed = MessageAuthenticity::Signed(keypair.clone());
    let setup = |error: &dyn ToString| NetError::Setup(error.to_string());
    let mut gossip =
        gossipsub::Behaviour::new_with_subscription_filter(signed, config, followed).map_err(|error| setup(&error))?;
    gossip.with_peer_score(score::params(&hashes), score::thresholds()).map_err(|error| setup(&error))?;
    for topic in topics() {
        gossip.subscribe(&topic).map_err(|error| setup(&error))?;
    }
    Ok(gossip)
}

/// A node takes all its connections into its mesh, if they ask: peers ask only while they have too few, and behind a NAT the
/// bootstrap node may be all they have. With gossipsub's own bound, a star of 21 leaves lost its first offer for good for some
/// of them. Where peers have a choice, meshes stay at about six. One more than can be, since reaching it prunes down to six.
fn mesh_high(max_peers: u32) -> usize {
    usize::try_from(max_peers).unwrap_or(usize::MAX).saturating_add(1).max(MESH_HIGH)
}

fn kad(me: PeerId, serves: bool) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(KAD);
    // Addresses come from identify, filtered; see `discovery`.
    config.set_kbucket_inserts(kad::BucketInserts::Manual);
    // Nothing is stored in the DHT: it only finds peers.
    config.set_record_filtering(kad::StoreInserts::FilterBoth);
    let mut kad = kad::Behaviour::with_config(me, MemoryStore::new(me), config);
    // Not by what libp2p calls an external address: those are what we tell, not what is proved.
    kad.set_mode(Some(if serves { kad::Mode::Server } else { kad::Mode::Client }));
    kad
}

/// Without multicast (containers, some clouds) the node lives on without mDNS.
fn mdns(me: PeerId, wanted: bool) -> Option<mdns::tokio::Behaviour> {
    if !wanted {
        return None;
    }
    mdns::tokio::Behaviour::new(mdns::Config::default(), me)
        .inspect_err(|error| tracing::warn!(%error, "no mDNS: peers on the local network will not be found by themselves"))
        .ok()
}
