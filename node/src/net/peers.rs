//! Who is connected: a small book that the task keeps up to date.

use super::discovery;
use infernet_wire::{id::NodeId, time::UnixMillis};
use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, gossipsub::TopicHash, multiaddr::Protocol, swarm::ConnectionId};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// An agent's name is for people; a longer one is cut.
const MAX_AGENT_CHARS: usize = 64;
/// Why a dial failed is for people too: some name every address that was tried.
const MAX_REASON_CHARS: usize = 160;

/// gossipsub tells with each of its heartbeats, every 0.7 s, whose queue was full. Two that are further apart are two troubles.
const SAME_TROUBLE_MS: u64 = 2_000;
/// A queue that is full for so long is not read: a stall of a slow link, or of a loaded machine, is shorter.
const DEAF_MS: u64 = 5_000;

/// How a connection runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP with noise and yamux.
    Tcp,
    /// QUIC.
    Quic,
}

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// They did.
    Inbound,
    /// We did.
    Outbound,
}

/// Which way the bytes to a peer take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// From one to the other.
    Direct,
    /// The same, through a hole that both punched into their NATs.
    Punched,
    /// Through a relay.
    Relayed {
        /// Which.
        via: PeerId,
    },
}

impl Path {
    /// A short stable name: `direct`, `punched` or `relayed`.
    pub fn label(self) -> &'static str {
        match self {
            Path::Direct => "direct",
            Path::Punched => "punched",
            Path::Relayed { .. } => "relayed",
        }
    }

    fn is_relayed(self) -> bool {
        matches!(self, Path::Relayed { .. })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Relayed { via } => write!(f, "relayed through {via}"),
            direct => f.write_str(direct.label()),
        }
    }
}

/// A connected peer. Of several connections, the best one is meant: a direct one, and of those the first.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Who it is.
    pub id: NodeId,
    /// Where it says it listens, without `/p2p/`, as far as we can use it: what to put into a peer cache. Empty if it tells none.
    pub addresses: Vec<Multiaddr>,
    /// The other end of the connection. Of an inbound one, nobody listens there; of a circuit, it begins with the relay's.
    pub remote: Multiaddr,
    /// The connection's transport; of a circuit, that to the relay.
    pub transport: Transport,
    /// The connection's direction.
    pub direction: Direction,
    /// Which way it takes.
    pub path: Path,
    /// Why there is no direct connection; `None` if there is one.
    pub why_not_direct: Option<String>,
    /// Dials that failed while there was only a circuit.
    pub punches_failed: u32,
    /// The last ping, in milliseconds; `None` before the first.
    pub rtt_ms: Option<u32>,
    /// What software it says it runs, at most 64 characters, none of them control characters.
    pub agent: Option<String>,
    /// gossipsub's score: below zero for trouble, see `net::score`.
    pub score: f64,
    /// Since when it has been connected.
    pub connected_since: UnixMillis,
}

/// The PeerId of a node.
pub(super) fn peer_id(node: &NodeId) -> Option<PeerId> {
    PeerId::from_bytes(&node.to_peer_id_bytes()).ok()
}

/// The node of a PeerId; `None` if it is not a secp256k1 key.
pub(super) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

/// One connection.
#[derive(Debug, Clone)]
struct Connection {
    remote: Multiaddr,
    direction: Direction,
    path: Path,
}

impl Connection {
    fn new(endpoint: &ConnectedPoint) -> Self {
        // An inbound circuit names only its source as the other end.
        let (remote, direction) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (address, Direction::Outbound),
            ConnectedPoint::Listener { local_addr, .. } if discovery::relay_of(local_addr).is_some() => {
                (local_addr, Direction::Inbound)
            }
            ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, Direction::Inbound),
        };
        let path = discovery::relay_of(remote).map_or(Path::Direct, |via| Path::Relayed { via });
        Connection { remote: remote.clone(), direction, path }
    }
}

#[derive(Debug)]
struct Peer {
    info: PeerInfo,
    connections: BTreeMap<ConnectionId, Connection>,
    /// What the last of the dials met that failed while there was only a circuit.
    last_failure: String,
    topics: BTreeSet<TopicHash>,
    faults: u32,
    /// Since when its queue has been full, and when that was last told.
    slow: Option<(UnixMillis, UnixMillis)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Peers(BTreeMap<NodeId, Peer>);

impl Peers {
    /// A connection exists. True if it is the peer's first.
    pub(super) fn connected(
        &mut self,
        id: NodeId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
        now: UnixMillis,
    ) -> bool {
        let mut made = Connection::new(endpoint);
        let peer = self.0.entry(id).or_insert_with(|| Peer::new(id, &made, now));
        let only_relayed = !peer.connections.is_empty() && peer.connections.values().all(|other| other.path.is_relayed());
        if only_relayed && !made.path.is_relayed() {
            made.path = Path::Punched;
        }
        peer.connections.insert(connection, made);
        peer.show_best();
        peer.connections.len() == 1
    }

    /// A connection is gone. True if it was the peer's last.
    pub(super) fn disconnected(&mut self, id: &NodeId, connection: &ConnectionId) -> bool {
        let Some(peer) = self.0.get_mut(id) else { return false };
        peer.connections.remove(connection);
        peer.show_best();
        peer.connections.is_empty() && self.0.remove(id).is_some()
    }

    /// A direct connection could not be made.
    pub(super) fn punch_failed(&mut self, id: &NodeId, reason: &str) {
        let Some(peer) = self.0.get_mut(id).filter(|peer| peer.info.path.is_relayed()) else { return };
        peer.info.punches_failed = peer.info.punches_failed.saturating_add(1);
        peer.last_failure = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect();
        peer.show_best();
    }

    /// Which way a connection takes.
    pub(super) fn path(&self, id: &NodeId, connection: &ConnectionId) -> Option<Path> {
        Some(self.0.get(id)?.connections.get(connection)?.path)
    }

    /// Whether somebody has come in through `relay` and is still there: dead connections are closed, see `PING`.
    pub(super) fn is_reached_through(&self, relay: &PeerId) -> bool {
        let through = |connection: &Connection| {
            connection.direction == Direction::Inbound && connection.path == (Path::Relayed { via: *relay })
        };
        self.0.values().any(|peer| peer.connections.values().any(through))
    }

    pub(super) fn is_connected(&self, id: &NodeId) -> bool {
        self.0.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What identify told. `usable` are the addresses that passed the filter.
    pub(super) fn identified(&mut self, id: &NodeId, agent: &str, usable: &[Multiaddr]) {
        let Some(peer) = self.0.get_mut(id) else { return };
        peer.info.agent = Some(agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT_CHARS).collect());
        peer.info.addresses = usable.to_vec();
    }

    /// What is known of a peer; its score is left out.
    pub(super) fn info(&self, id: &NodeId) -> Option<PeerInfo> {
        self.0.get(id).map(|peer| peer.info.clone())
    }

    /// Where those who are connected are.
    pub(super) fn remotes(&self) -> impl Iterator<Item = &Multiaddr> {
        self.0.values().map(|peer| &peer.info.remote)
    }

    /// Where a peer is connected from or to.
    pub(super) fn remote(&self, id: &NodeId) -> Option<&Multiaddr> {
        self.0.get(id).map(|peer| &peer.info.remote)
    }

    pub(super) fn pinged(&mut self, id: &NodeId, rtt_ms: u32) {
        if let Some(peer) = self.0.get_mut(id) {
            peer.info.rtt_ms = Some(rtt_ms);
        }
    }

    pub(super) fn subscribed(&mut self, id: &NodeId, topic: TopicHash) {
        if let Some(peer) = self.0.get_mut(id) {
            peer.topics.insert(topic);
        }
    }

    pub(super) fn unsubscribed(&mut self, id: &NodeId, topic: &TopicHash) {
        if let Some(peer) = self.0.get_mut(id) {
            peer.topics.remove(topic);
        }
    }

    /// A peer sent what it must not. How often it did so far.
    pub(super) fn blamed(&mut self, id: &NodeId) -> u32 {
        let Some(peer) = self.0.get_mut(id) else { return 0 };
        peer.faults = peer.faults.saturating_add(1);
        peer.faults
    }

    /// A peer's queue is full. Whether it has been for so long that the peer must be taken for deaf.
    pub(super) fn slow(&mut self, id: &NodeId, now: UnixMillis) -> bool {
        let Some(peer) = self.0.get_mut(id) else { return false };
        let since = match peer.slow {
            Some((since, last)) if now.since(last) <= SAME_TROUBLE_MS => since,
            _ => now,
        };
        peer.slow = Some((since, now));
        now.since(since) >= DEAF_MS
    }

    /// Peers that follow any of our topics.
    pub(super) fn subscribers(&self) -> usize {
        self.0.values().filter(|peer| !peer.topics.is_empty()).count()
    }

    /// Everybody, with the score that `score` gives.
    pub(super) fn infos(&self, score: impl Fn(&NodeId) -> f64) -> Vec<PeerInfo> {
        self.0.iter().map(|(id, peer)| PeerInfo { score: score(id), ..peer.info.clone() }).collect()
    }
}

impl Peer {
    fn new(id: NodeId, first: &Connection, now: UnixMillis) -> Self {
        let info = PeerInfo {
            id,
            addresses: vec![],
            transport: transport(&first.remote),
            remote: first.remote.clone(),
            direction: first.direction,
            path: first.path,
            why_not_direct: None,
            punches_failed: 0,
            rtt_ms: None,
            agent: None,
            score: 0.0,
            connected_since: now,
        };
        Peer { info, connections: BTreeMap::new(), last_failure: String::new(), topics: BTreeSet::new(), faults: 0, slow: None }
    }

    fn show_best(&mut self) {
        let Some((_, best)) = self.connections.iter().min_by_key(|(id, connection)| (connection.path.is_relayed(), **id))
        else {
            return;
        };
        self.info.transport = transport(&best.remote);
        self.info.remote = best.remote.clone();
        self.info.direction = best.direction;
        self.info.path = best.path;
        self.info.why_not_direct = best.path.is_relayed().then(|| match self.info.punches_failed {
            0 => "no hole has been punched yet".into(),
            1 => format!("hole punching failed: {}", self.last_failure),
            n => format!("hole punching failed {n} times: {}", self.last_failure),
        });
    }
}

fn transport(address: &Multiaddr) -> Transport {
    let quic = address.iter().any(|part| matches!(part, Protocol::QuicV1));
    if quic { Transport::Quic } else { Transport::Tcp }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::{Endpoint, transport::PortUse};

    const ID: NodeId = NodeId([2; 33]);
    const T0: UnixMillis = UnixMillis(1_000_000);

    fn peers() -> Peers {
        let mut peers = Peers::default();
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let endpoint = ConnectedPoint::Listener { local_addr: address.clone(), send_back_addr: address };
        assert!(peers.connected(ID, ConnectionId::new_unchecked(1), &endpoint, T0));
        peers
    }

    fn dialled(address: &Multiaddr) -> ConnectedPoint {
        let address = address.clone();
        ConnectedPoint::Dialer { address, role_override: Endpoint::Dialer, port_use: PortUse::Reuse }
    }

    #[test]
    fn a_circuit_is_told_with_why_it_is_one_until_there_is_a_direct_connection_and_after_it() {
        let (mut peers, relay, connection) = (Peers::default(), PeerId::random(), ConnectionId::new_unchecked);
        let at_relay: Multiaddr = format!("/ip4/198.51.100.1/tcp/1/p2p/{relay}/p2p-circuit").parse().unwrap();
        let from = peer_id(&node(3)).unwrap();
        let inbound = ConnectedPoint::Listener {
            local_addr: at_relay.clone(),
            send_back_addr: Multiaddr::empty().with(Protocol::P2p(from)),
        };
        assert!(peers.connected(node(3), connection(1), &inbound, T0));
        let info = |peers: &Peers| peers.info(&node(3)).unwrap();
        assert_eq!((info(&peers).path, info(&peers).remote), (Path::Relayed { via: relay }, at_relay));
        (0..2).for_each(|_| peers.punch_failed(&node(3), &format!("refused\n{}", "x".repeat(500))));
        let why = info(&peers).why_not_direct.unwrap();
        assert!(why.starts_with("hole punching failed 2 times: refusedx") && why.len() < 200, "{why}");
        let direct: Multiaddr = "/ip4/203.0.113.9/udp/1/quic-v1".parse().unwrap();
        assert!(!peers.connected(node(3), connection(2), &dialled(&direct), T0));
        let punched = info(&peers);
        assert_eq!((punched.path, punched.transport, punched.why_not_direct), (Path::Punched, Transport::Quic, None));
        assert!(!peers.disconnected(&node(3), &connection(2)));
        assert_eq!(info(&peers).path, Path::Relayed { via: relay });
        assert!(peers.disconnected(&node(3), &connection(1)));
    }

    fn node(n: u8) -> NodeId {
        infernet_wire::key::NodeKey::from_bytes(&[n; 32]).unwrap().id()
    }

    #[test]
    fn a_queue_that_stays_full_makes_a_deaf_peer() {
        let mut peers = peers();
        let told: Vec<bool> = (0..9).map(|beat| peers.slow(&ID, T0.after(beat * 700))).collect();
        assert_eq!(told, [false, false, false, false, false, false, false, false, true]);
    }

    #[test]
    fn stalls_that_pass_are_forgiven() {
        let mut peers = peers();
        for minute in 0..60 {
            for beat in 0..5 {
                assert!(!peers.slow(&ID, T0.after(minute * 60_000 + beat * 700)));
            }
        }
        assert!(!peers.slow(&NodeId([3; 33]), T0), "nobody");
    }
}
