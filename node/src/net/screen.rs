//! What peers say of us and ask us to dial, kept to bounds, around behaviours of libp2p that believe all of it.
//!
//! AutoNAT's client remembers every address at which anybody says that it sees us, for ever; and DCUtR dials whatever the other
//! end of a circuit names. So [`Screened`] lets only so many addresses of ours in, none of them from closer by than is asked for,
//! and lets its behaviour dial only what a stranger at the circuit's relay could rightly name, only so often.

use super::{
    discovery::{self, Reach},
    quota::{Quota, Rate},
};
use crate::clock;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, DialFailure, FromSwarm, NetworkBehaviour, NewExternalAddrCandidate,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    task::{Context, Poll},
};

/// Addresses of ours that are looked at: v4 and v6, TCP and QUIC, of two uplinks, and as many that somebody made up.
const MAX_CANDIDATES: usize = 16;
/// Dials that peers on circuits may cause: three tries with each of a bidder's round at once, one in two seconds on and on.
const PUNCHES: Rate = Rate { interval_ms: 2_000, burst: 96 };
/// Addresses of one punch: what an honest node knows of itself.
const MAX_PUNCH_ADDRESSES: usize = 24;

/// A peer asks us to dial what it should not, or too often.
#[derive(Debug, thiserror::Error)]
enum Unwanted {
    #[error("the other side names addresses that are not its own to name")]
    Addresses,
    #[error("too many tries to punch a hole")]
    TooMany,
}

/// See the module.
pub(super) struct Screened<B> {
    inner: B,
    least: Reach,
    candidates: BTreeSet<Multiaddr>,
    /// The relays' addresses of the circuits that are open, by connection.
    circuits: BTreeMap<ConnectionId, (PeerId, Multiaddr)>,
    /// Dials of the inner behaviour that are under way.
    dials: BTreeSet<ConnectionId>,
    punches: Quota<()>,
}

impl<B> Screened<B> {
    /// Addresses of ours that reach less far than `least` are left out.
    pub(super) fn new(inner: B, least: Reach) -> Self {
        Screened {
            inner,
            least,
            candidates: BTreeSet::new(),
            circuits: BTreeMap::new(),
            dials: BTreeSet::new(),
            punches: Quota::new(PUNCHES, 1),
        }
    }

    fn lets_in(&mut self, candidate: &Multiaddr) -> bool {
        if discovery::relay_of(candidate).is_some() || discovery::reach(candidate).is_none_or(|reach| reach < self.least) {
            return false;
        }
        self.candidates.contains(candidate)
            || (self.candidates.len() < MAX_CANDIDATES && self.candidates.insert(candidate.clone()))
    }

    fn judge(&mut self, peer: Option<PeerId>, addresses: &[Multiaddr]) -> Result<(), Unwanted> {
        let mut relays = self.circuits.values().filter(|(other, _)| Some(*other) == peer).map(|(_, relay)| relay);
        let may_name = |relay: &Multiaddr| {
            let is_fair = |address: &Multiaddr| discovery::relay_of(address).is_none() && discovery::is_usable(address, relay);
            addresses.len() <= MAX_PUNCH_ADDRESSES && addresses.iter().all(is_fair)
        };
        if !relays.any(may_name) {
            return Err(Unwanted::Addresses);
        }
        if self.punches.try_take((), clock::now()) { Ok(()) } else { Err(Unwanted::TooMany) }
    }

    fn opened(&mut self, connection: ConnectionId, peer: PeerId, circuit: &Multiaddr) {
        if discovery::relay_of(circuit).is_some() {
            let relay = circuit.iter().take_while(|part| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit)).collect();
            self.circuits.insert(connection, (peer, relay));
        }
    }

    fn on_event(&mut self, event: &FromSwarm) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.circuits.remove(connection_id);
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. }) => {
                self.circuits.remove(connection_id);
                self.dials.remove(connection_id);
            }
            FromSwarm::ListenFailure(failure) => {
                self.circuits.remove(&failure.connection_id);
            }
            _ => {}
        }
    }
}

impl<B: NetworkBehaviour> Screened<B> {
    /// A peer sees us at `addr`. identify says so of its own accord, but not of addresses that we tell already.
    pub(super) fn suggest(&mut self, addr: &Multiaddr) {
        self.on_swarm_event(FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr }));
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Screened<B> {
    type ConnectionHandler = B::ConnectionHandler;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.opened(connection, peer, local);
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.dials.contains(&connection) {
            self.judge(peer, addresses).map_err(ConnectionDenied::new)?;
        }
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.dials.remove(&connection);
        self.opened(connection, peer, address);
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::NewExternalAddrCandidate(NewExternalAddrCandidate { addr }) = event
            && !self.lets_in(addr)
        {
            return;
        }
        self.on_event(&event);
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let next = self.inner.poll(cx);
        if let Poll::Ready(ToSwarm::Dial { opts }) = &next {
            self.dials.insert(opts.connection_id());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_that_somebody_makes_up_are_bounded_and_those_of_a_lan_left_out() {
        let mut screened = Screened::new((), Reach::World);
        let made_up = |n: u32| address(&format!("/ip4/198.51.100.7/tcp/{}", 1 + n));
        assert!(!screened.lets_in(&address("/ip4/10.0.0.7/tcp/1")));
        assert!(!screened.lets_in(&address(&format!("/ip4/198.51.100.7/tcp/1/p2p/{}/p2p-circuit", PeerId::random()))));
        assert_eq!((0..10_000).filter(|n| screened.lets_in(&made_up(*n))).count(), MAX_CANDIDATES);
        assert!(screened.lets_in(&made_up(0)), "one that is known counts again");
    }

    #[test]
    fn the_other_end_of_a_circuit_can_have_us_dial_neither_our_own_network_nor_without_end() {
        let mut screened = Screened::new((), Reach::World);
        let (peer, relay, circuit) = (PeerId::random(), PeerId::random(), ConnectionId::new_unchecked(1));
        let there = [address("/ip4/203.0.113.9/tcp/46337")];
        assert!(screened.judge(Some(peer), &there).is_err(), "nobody on a circuit");
        screened.opened(circuit, peer, &address(&format!("/ip4/198.51.100.7/tcp/1/p2p/{relay}/p2p-circuit/p2p/{peer}")));
        for named in ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.1/tcp/80", "/ip4/169.254.169.254/tcp/80", "/unix/a"] {
            assert!(screened.judge(Some(peer), &[there[0].clone(), address(named)]).is_err(), "{named}");
        }
        let dialled = (0..1_000).filter(|_| screened.judge(Some(peer), &there).is_ok()).count();
        assert!((96..=98).contains(&dialled), "{dialled}");
    }
}
