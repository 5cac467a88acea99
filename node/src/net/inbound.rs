//! Streams that peers open, of protocols that the mesh itself does not speak: each is kept until somebody takes it, up to bounds.
//!
//! A [`Door`] is one protocol, made by [`door`] and given to the network by [`NetConfig::doors`](super::NetConfig::doors). What
//! comes through it waits in a [`Queue`] together with a [`Permit`], and counts until that is dropped. So one bound covers what
//! waits and what is being answered. `libp2p-stream` has room for one stream, and of many that come in one moment it drops the
//! others.
//!
//! When all places are taken, or all that one connection may have, a stream is reset at once, and counted (`inbound.refused`).
//! How many a connection may have goes down with the free places (`share`): whoever opens all that it can leaves some to others,
//! however many connections do so (Choudhury and Hahne's dynamic threshold, 1998).

use super::bare::Bare;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::DeniedUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
};
use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Reports that wait for the swarm: one of each connection at most, and they are merged when there are more.
const REPORTS: usize = 64;
/// Of the free places, what one connection may have: a sixteenth.
const SHARES: usize = 16;

/// How many streams of a protocol are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of all peers together.
    pub all: usize,
    /// Of one connection, while there is room.
    pub connection: usize,
}

/// One protocol, to be taken by the network.
#[derive(Debug, Clone)]
pub struct Door {
    protocol: StreamProtocol,
    bounds: Bounds,
    free: Arc<Semaphore>,
    out: mpsc::Sender<Arrived>,
}

/// What came through a [`Door`], in order; `None` after the network's end.
pub type Queue = mpsc::Receiver<Arrived>;

/// A stream that a peer has opened.
#[derive(Debug)]
pub struct Arrived {
    /// Who.
    pub peer: PeerId,
    /// Where the connection's other end is.
    pub remote: Multiaddr,
    /// The stream.
    pub stream: Stream,
    /// Its place.
    pub permit: Permit,
}

/// A stream's place among those that are taken, free again when dropped.
#[derive(Debug)]
pub struct Permit {
    _of_all: OwnedSemaphorePermit,
    _of_connection: Arc<()>,
}

/// A door for streams of `protocol`, and what comes through it.
pub fn door(protocol: StreamProtocol, bounds: Bounds) -> (Door, Queue) {
    // Each that waits has a permit, so there is always room.
    let (out, queue) = mpsc::channel(bounds.all.max(1));
    (Door { protocol, bounds, free: Arc::new(Semaphore::new(bounds.all)), out }, queue)
}

/// How many streams one connection may have when `free` places are left.
fn share(bounds: Bounds, free: usize) -> usize {
    (free / SHARES).clamp(1, bounds.connection.max(1))
}

impl Door {
    /// `held`: the connection's mark, of which each of its streams has a copy.
    fn admit(&self, held: &Arc<()>) -> Option<Permit> {
        if Arc::strong_count(held) > share(self.bounds, self.free.available_permits()) {
            return None;
        }
        let of_all = self.free.clone().try_acquire_owned().ok()?;
        Some(Permit { _of_all: of_all, _of_connection: held.clone() })
    }
}

/// Streams that were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused(pub(super) u64);

/// All doors of a node.
pub(super) struct Behaviour {
    doors: Arc<[Door]>,
    protocols: Arc<[StreamProtocol]>,
    reports: VecDeque<Refused>,
}

impl Behaviour {
    pub(super) fn new(doors: Vec<Door>) -> Self {
        let protocols = doors.iter().map(|door| door.protocol.clone()).collect();
        Behaviour { doors: doors.into(), protocols, reports: VecDeque::new() }
    }

    fn handler(&self, peer: PeerId, remote: &Multiaddr) -> Handler {
        let held = self.doors.iter().map(|_| Arc::new(())).collect();
        Handler { peer, remote: remote.clone(), doors: self.doors.clone(), protocols: self.protocols.clone(), held, refused: 0 }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Refused;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, remote))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, remote))
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, Refused(count): THandlerOutEvent<Self>) {
        let is_full = self.reports.len() >= REPORTS;
        match self.reports.back_mut() {
            Some(Refused(last)) if is_full => *last = last.saturating_add(count),
            _ => self.reports.push_back(Refused(count)),
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Refused, THandlerInEvent<Self>>> {
        self.reports.pop_front().map_or(Poll::Pending, |refused| Poll::Ready(ToSwarm::GenerateEvent(refused)))
    }
}

/// One connection's part.
pub(super) struct Handler {
    peer: PeerId,
    remote: Multiaddr,
    doors: Arc<[Door]>,
    protocols: Arc<[StreamProtocol]>,
    /// A mark for each door.
    held: Vec<Arc<()>>,
    /// Not told yet.
    refused: u64,
}

impl Handler {
    fn on_stream(&mut self, stream: Stream, protocol: &StreamProtocol) {
        let found = self.doors.iter().zip(&self.held).find(|(door, _)| door.protocol == *protocol);
        let admitted = found.and_then(|(door, held)| Some((door, door.admit(held)?)));
        let Some((door, permit)) = admitted else {
            self.refused = self.refused.saturating_add(1);
            return;
        };
        // Nobody takes streams any more: it is reset.
        let _ = door.out.try_send(Arrived { peer: self.peer, remote: self.remote.clone(), stream, permit });
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Refused;
    type InboundProtocol = Bare;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Bare> {
        SubstreamProtocol::new(Bare(self.protocols.clone()), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Refused>> {
        match std::mem::take(&mut self.refused) {
            0 => Poll::Pending,
            count => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Refused(count))),
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Bare, DeniedUpgrade>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, protocol), .. }) => {
                self.on_stream(stream, &protocol);
            }
            ConnectionEvent::AddressChange(change) => self.remote = change.new_address.clone(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/infernet-test/door/1");

    /// Each of so many connections takes what it can get; how many each got, and how many places are left.
    fn greedy(bounds: Bounds, connections: usize) -> (Vec<usize>, usize) {
        let (door, _queue) = door(PROTOCOL, bounds);
        let held: Vec<_> = (0..connections).map(|_| Arc::new(())).collect();
        let mut permits: Vec<Vec<Permit>> = held.iter().map(|_| Vec::new()).collect();
        for _ in 0..bounds.all {
            for (held, permits) in held.iter().zip(&mut permits) {
                permits.extend(door.admit(held));
            }
        }
        (permits.iter().map(Vec::len).collect(), door.free.available_permits())
    }

    #[test]
    fn a_connection_has_its_bound_and_a_place_is_free_again_when_its_stream_is_answered() {
        let bounds = Bounds { all: 1_024, connection: 3 };
        let (door, _queue) = door(PROTOCOL, bounds);
        let (one, other) = (Arc::new(()), Arc::new(()));
        let mut permits: Vec<_> = (0..3).filter_map(|_| door.admit(&one)).collect();
        assert!(permits.len() == 3 && door.admit(&one).is_none() && door.admit(&other).is_some());
        permits.pop();
        assert!(door.admit(&one).is_some());
    }

    #[test]
    fn whoever_takes_all_it_can_leaves_some_to_others_and_never_more_than_all_are_taken() {
        let bounds = Bounds { all: 256, connection: 16 };
        let (got, free) = greedy(bounds, 100);
        assert!(got.iter().all(|count| *count >= 1), "{got:?}");
        assert!(free >= SHARES, "{free} are left");
        let (got, free) = greedy(bounds, 300);
        assert_eq!((got.iter().sum::<usize>(), free), (256, 0), "more connections than places");
        assert_eq!(greedy(bounds, 2).0, [14, 14], "hardly anybody is there");
    }
}
