//! `/infernet/chat/1`, and streams of other protocols that we open: streams between two connected peers, for whoever speaks on them;
//! the mesh does not look inside. Of other protocols those that peers open come through a door, see [`inbound`](super::inbound).
//!
//! Of several connections to a peer the best carries a new stream: a straight one before one through a relay, and of equals the
//! newest. Streams that were opened before stay where they are. Incoming streams wait in a bounded queue until they are taken; when
//! it is full they are reset and counted. (libp2p's own stream behaviour drops what is not taken in the same moment, and picks any
//! connection.)

use super::bare::Bare;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    multiaddr::Protocol,
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialFailure, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tokio::sync::{mpsc, oneshot};

/// What is spoken on the streams.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/infernet/chat/1");
/// Incoming streams that wait to be taken: some thousand arrive in a burst, and taking one is to spawn a task.
const WAITING: usize = 1_024;
/// Streams that wait for a connection, all together: two rounds of bidders.
const MAX_DIALLING: usize = 64;
/// Streams that are being opened on one connection. Above, the newcomer is refused.
const MAX_OPENING: usize = 256;

/// How a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// Straight, to or from this address.
    Direct(Multiaddr),
    /// The same, over a connection that was made while there was one through a relay: by hole punching, or found later.
    Punched(Multiaddr),
    /// Through a relay.
    Relayed(Option<PeerId>),
}

impl Via {
    fn of(near: &Multiaddr, far: &Multiaddr, has_relayed: bool) -> Self {
        let circuit = [far, near].into_iter().find(|address| address.iter().any(|part| part == Protocol::P2pCircuit));
        match circuit {
            Some(circuit) => Via::Relayed(relay(circuit)),
            None if has_relayed => Via::Punched(far.clone()),
            None => Via::Direct(far.clone()),
        }
    }

    fn is_relayed(&self) -> bool {
        matches!(self, Via::Relayed(_))
    }
}

/// The relay of a circuit's address: who is named before `/p2p-circuit`.
fn relay(circuit: &Multiaddr) -> Option<PeerId> {
    let before = circuit.iter().take_while(|part| *part != Protocol::P2pCircuit);
    before.filter_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None }).last()
}

/// An open stream.
#[derive(Debug)]
pub struct PeerStream {
    /// Who is on the other side.
    pub peer: PeerId,
    /// How it goes.
    pub via: Via,
    /// The stream.
    pub stream: Stream,
}

/// No stream could be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamRefused {
    /// There is no connection, and none could be made.
    #[error("not connected")]
    NotConnected,
    /// It does not take streams of this protocol.
    #[error("the peer takes no such streams")]
    Unsupported,
    /// Too many are being opened.
    #[error("too many streams are being opened")]
    Busy,
    /// The connection failed.
    #[error("{0}")]
    Io(String),
    /// The network is shut down.
    #[error("the network is shut down")]
    Stopped,
}

/// What a connection is to open, and for whom.
#[derive(Debug)]
pub(super) struct Wanted {
    protocol: StreamProtocol,
    reply: Reply,
}

pub(super) type Reply = oneshot::Sender<Result<PeerStream, StreamRefused>>;

/// The queue of incoming streams: the end that [`super::NetConfig::chat`] takes, and the one to read from.
pub fn channel() -> (mpsc::Sender<PeerStream>, mpsc::Receiver<PeerStream>) {
    mpsc::channel(WAITING)
}

/// See the module.
pub(super) struct Behaviour {
    /// Who takes incoming streams; nobody's are taken if there is none.
    taker: Option<mpsc::Sender<PeerStream>>,
    offers: Arc<[StreamProtocol]>,
    connections: BTreeMap<PeerId, Vec<(ConnectionId, Via)>>,
    dialling: BTreeMap<PeerId, Vec<Reply>>,
    todo: VecDeque<ToSwarm<Infallible, Wanted>>,
    dropped: Arc<AtomicU64>,
}

impl Behaviour {
    pub(super) fn new(taker: Option<mpsc::Sender<PeerStream>>) -> Self {
        let (connections, dialling, todo) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        let offers = taker.iter().map(|_| PROTOCOL).collect();
        Behaviour { taker, offers, connections, dialling, todo, dropped: Arc::default() }
    }

    /// Incoming streams that were reset because nobody took those before them.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Opens a stream of `protocol` to `peer`, if that is connected.
    pub(super) fn open(&mut self, peer: PeerId, protocol: StreamProtocol, reply: Reply) {
        match self.best(&peer) {
            Some(connection) => self.open_on(peer, connection, Wanted { protocol, reply }),
            None => tell(reply, Err(StreamRefused::NotConnected)),
        }
    }

    /// Opens a chat stream to `peer`; without a connection it is dialled, at the addresses that the swarm knows.
    pub(super) fn open_chat(&mut self, peer: PeerId, reply: Reply) {
        if let Some(connection) = self.best(&peer) {
            return self.open_on(peer, connection, Wanted { protocol: PROTOCOL, reply });
        }
        if self.dialling.values().map(Vec::len).sum::<usize>() >= MAX_DIALLING {
            return tell(reply, Err(StreamRefused::Busy));
        }
        self.dialling.entry(peer).or_default().push(reply);
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
        self.todo.push_back(ToSwarm::Dial { opts });
    }

    fn open_on(&mut self, peer_id: PeerId, connection: ConnectionId, event: Wanted) {
        self.todo.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(connection), event });
    }

    fn best(&self, peer: &PeerId) -> Option<ConnectionId> {
        let connections = self.connections.get(peer)?.iter().rev();
        connections.min_by_key(|(_, via)| via.is_relayed()).map(|(connection, _)| *connection)
    }

    /// A connection is coming up: who waited for one gets it when it stands.
    fn handler(&self, peer: PeerId, near: &Multiaddr, far: &Multiaddr) -> Handler {
        let has_relayed = self.connections.get(&peer).is_some_and(|all| all.iter().any(|(_, via)| via.is_relayed()));
        Handler {
            peer,
            via: Via::of(near, far, has_relayed),
            taker: self.taker.clone(),
            offers: self.offers.clone(),
            dropped: self.dropped.clone(),
            wanted: VecDeque::new(),
            opening: 0,
        }
    }

    fn connected(&mut self, peer: PeerId, connection: ConnectionId, via: Via) {
        self.connections.entry(peer).or_default().push((connection, via));
        for reply in self.dialling.remove(&peer).unwrap_or_default() {
            self.open_on(peer, connection, Wanted { protocol: PROTOCOL, reply });
        }
    }

    fn closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(connections) = self.connections.get_mut(peer) {
            connections.retain(|(id, _)| *id != connection);
            if connections.is_empty() {
                self.connections.remove(peer);
            }
        }
    }
}

fn tell(reply: Reply, result: Result<PeerStream, StreamRefused>) {
    // Whoever asked may have gone.
    let _ = reply.send(result);
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        near: &Multiaddr,
        far: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, near, far))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        far: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, &Multiaddr::empty(), far))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let near = match established.endpoint {
                    libp2p::core::ConnectedPoint::Listener { local_addr, .. } => local_addr.clone(),
                    libp2p::core::ConnectedPoint::Dialer { .. } => Multiaddr::empty(),
                };
                let peer = established.peer_id;
                let via = self.handler(peer, &near, established.endpoint.get_remote_address()).via;
                self.connected(peer, established.connection_id, via);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.closed(&peer_id, connection_id)
            }
            // While another connection is being made, or stands, the failure of this one says nothing.
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, .. })
                if !matches!(error, libp2p::swarm::DialError::DialPeerConditionFalse(_)) =>
            {
                for reply in self.dialling.remove(&peer).unwrap_or_default() {
                    tell(reply, Err(StreamRefused::NotConnected));
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The task polls again after each command, so nobody need be woken.
        self.todo.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The streams of one connection.
pub(super) struct Handler {
    peer: PeerId,
    via: Via,
    taker: Option<mpsc::Sender<PeerStream>>,
    offers: Arc<[StreamProtocol]>,
    dropped: Arc<AtomicU64>,
    wanted: VecDeque<Wanted>,
    opening: usize,
}

impl Handler {
    fn open(&self, stream: Stream) -> PeerStream {
        PeerStream { peer: self.peer, via: self.via.clone(), stream }
    }

    fn take(&self, stream: Stream) {
        let taken = self.taker.as_ref().is_some_and(|taker| taker.try_send(self.open(stream)).is_ok());
        self.dropped.fetch_add(u64::from(!taken), Ordering::Relaxed);
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Wanted;
    type ToBehaviour = Infallible;
    type InboundProtocol = Bare;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Bare> {
        SubstreamProtocol::new(Bare(self.offers.clone()), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Reply, Infallible>> {
        match self.wanted.pop_front() {
            Some(Wanted { protocol, reply }) => {
                self.opening += 1;
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(protocol), reply);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, wanted: Wanted) {
        if self.opening + self.wanted.len() >= MAX_OPENING {
            return tell(wanted.reply, Err(StreamRefused::Busy));
        }
        self.wanted.push_back(wanted);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Bare, ReadyUpgrade<StreamProtocol>, (), Reply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, _), .. }) => {
                self.take(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: reply }) => {
                self.opening = self.opening.saturating_sub(1);
                tell(reply, Ok(self.open(stream)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: reply }) => {
                self.opening = self.opening.saturating_sub(1);
                let refused = match error {
                    StreamUpgradeError::NegotiationFailed => StreamRefused::Unsupported,
                    StreamUpgradeError::Timeout => StreamRefused::Io("no answer".into()),
                    StreamUpgradeError::Io(error) => StreamRefused::Io(error.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                tell(reply, Err(refused));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = "16Uiu2HAkz3Ud7MFMyZ5B3GPBVpqe4ZbxLm5e7LFCzDCTe7CMUGMo";

    fn via(near: &str, far: &str, has_relayed: bool) -> Via {
        let address = |text: &str| if text.is_empty() { Multiaddr::empty() } else { text.parse().expect("an address") };
        Via::of(&address(near), &address(far), has_relayed)
    }

    #[test]
    fn a_path_is_told_by_its_addresses_and_by_what_was_there_before() {
        let (circuit, socket) = (format!("/ip4/192.0.2.1/tcp/1/p2p/{RELAY}/p2p-circuit"), "/ip4/192.0.2.7/tcp/4");
        let relay = Some(RELAY.parse().expect("an id"));
        assert_eq!(via("", &format!("{circuit}/p2p/{RELAY}"), false), Via::Relayed(relay), "dialled");
        assert_eq!(via(&circuit, &format!("/p2p/{RELAY}"), false), Via::Relayed(relay), "accepted");
        assert_eq!(via("", socket, false), Via::Direct(socket.parse().expect("an address")));
        assert_eq!(via("", socket, true), Via::Punched(socket.parse().expect("an address")));
    }
}
