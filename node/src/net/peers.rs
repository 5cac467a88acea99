//! Who is connected: a small book that the task keeps up to date.

use infernet_wire::{id::NodeId, time::UnixMillis};
use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, gossipsub::TopicHash, multiaddr::Protocol};
use std::collections::{BTreeMap, BTreeSet};

/// An agent's name is for people; a longer one is cut.
const MAX_AGENT_CHARS: usize = 64;

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

/// A connected peer.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Who it is.
    pub id: NodeId,
    /// Where it says it listens, without `/p2p/`, as far as we can use it: what to put into a peer cache. Empty if it tells none.
    pub addresses: Vec<Multiaddr>,
    /// The other end of the first connection. Of an inbound one, nobody listens there.
    pub remote: Multiaddr,
    /// The first connection's transport.
    pub transport: Transport,
    /// The first connection's direction.
    pub direction: Direction,
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

#[derive(Debug)]
struct Peer {
    info: PeerInfo,
    connections: u32,
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
    pub(super) fn connected(&mut self, id: NodeId, endpoint: &ConnectedPoint, now: UnixMillis) -> bool {
        let peer = self.0.entry(id).or_insert_with(|| Peer::new(id, endpoint, now));
        peer.connections += 1;
        peer.connections == 1
    }

    /// A connection is gone. True if it was the peer's last.
    pub(super) fn disconnected(&mut self, id: &NodeId) -> bool {
        let Some(peer) = self.0.get_mut(id) else { return false };
        peer.connections = peer.connections.saturating_sub(1);
        peer.connections == 0 && self.0.remove(id).is_some()
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
    fn new(id: NodeId, endpoint: &ConnectedPoint, now: UnixMillis) -> Self {
        let remote = endpoint.get_remote_address().clone();
        let info = PeerInfo {
            id,
            addresses: vec![],
            transport: transport(&remote),
            remote,
            direction: if endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound },
            rtt_ms: None,
            agent: None,
            score: 0.0,
            connected_since: now,
        };
        Peer { info, connections: 0, topics: BTreeSet::new(), faults: 0, slow: None }
    }
}

fn transport(address: &Multiaddr) -> Transport {
    let quic = address.iter().any(|part| matches!(part, Protocol::QuicV1));
    if quic { Transport::Quic } else { Transport::Tcp }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: NodeId = NodeId([2; 33]);
    const T0: UnixMillis = UnixMillis(1_000_000);

    fn peers() -> Peers {
        let mut peers = Peers::default();
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let endpoint = ConnectedPoint::Listener { local_addr: address.clone(), send_back_addr: address };
        assert!(peers.connected(ID, &endpoint, T0));
        peers
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
