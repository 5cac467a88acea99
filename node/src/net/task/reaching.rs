//! How others reach us, and how we reach one of them: carries out what [`reach`](super::super::reach) decides.

use super::{NetTask, chance, tell};
use crate::{
    clock,
    net::{
        Path, PeerInfo, Reachability, behaviour, discovery,
        peers::{node_id, peer_id},
        probe::{self, NoCircuit},
        reach::{Reserve, without_peer},
    },
};
use infernet_wire::{capability::CapabilityAd, envelope::Verified, id::NodeId, limits, time::UnixMillis};
use libp2p::{
    Multiaddr, PeerId, autonat,
    core::transport::ListenerId,
    dcutr, identify,
    kad::Mode,
    multiaddr::Protocol,
    relay,
    swarm::{
        DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
    upnp,
};
use std::{collections::BTreeSet, io};
use tokio::{sync::oneshot, task::JoinError};

/// Workers whose addresses are remembered from their ads: some hundred bytes each.
pub(super) const PLACES: usize = 1_024;
/// Those who wait for a connection at once: every job of a busy buyer. Above, they are told at once that there is none.
const MAX_WAITING: usize = 256;

/// Who waits for a connection.
#[derive(Debug)]
pub(super) struct Caller {
    peer: NodeId,
    deadline: UnixMillis,
    reply: oneshot::Sender<Option<PeerInfo>>,
}

impl NetTask {
    // ---- how others reach us

    /// After anything was learnt.
    pub(super) fn follow_reach(&mut self) {
        for reserve in self.reach.decide(clock::now(), chance()) {
            self.reserve(reserve);
        }
        self.prove();
        let told = self.reach.told();
        if *self.ends.reached.borrow() == told {
            return;
        }
        tracing::info!(
            state = told.state.label(),
            relays = told.relays.len(),
            addresses = told.addresses.len(),
            "{}",
            told.why
        );
        let is_server = match told.state {
            Reachability::Open | Reachability::Mapped => true,
            Reachability::Unknown => self.serves,
            Reachability::BehindNat => false,
        };
        self.swarm.behaviour_mut().kad.set_mode(Some(if is_server { Mode::Server } else { Mode::Client }));
        self.ends.reached.send_replace(told);
        self.tell_addresses();
    }

    fn reserve(&mut self, Reserve { relay, address }: Reserve) {
        self.counters.add("relay", "asked");
        match self.swarm.listen_on(address) {
            Ok(listener) => drop(self.reserving.insert(listener, relay)),
            Err(error) => {
                tracing::debug!(%relay, %error, "not asked for a place");
                self.reach.relays_mut().lost(&relay, clock::now(), chance());
            }
        }
    }

    /// Tries a relay, if one is to be tried.
    fn prove(&mut self) {
        let peers = &self.peers;
        let carries = |relay: &PeerId| peers.is_reached_through(relay);
        let Some(mut prove) = self.reach.next_to_prove(carries, clock::now(), chance()) else { return };
        // What it is told by may lead nowhere from here: not every router takes back what it sends out.
        let here = node_id(&prove.relay).and_then(|id| peers.remote(&id));
        prove.addresses.extend(here.filter(|here| discovery::relay_of(here).is_none()).map(without_peer));
        self.counters.add("relay", "tried");
        let me = self.reach.me();
        self.proving.spawn(async move { (prove.relay, probe::dial(me, prove, probe::PATIENCE).await) });
    }

    /// A try is over. One that could not be made is no proof for the relay, and none against it.
    pub(super) fn on_tried(&mut self, tried: Result<(PeerId, Result<(), NoCircuit>), JoinError>) {
        let (relay, outcome) = match tried {
            Ok(tried) => tried,
            Err(error) => {
                tracing::error!(%error, "a try of a relay broke");
                return self.reach.relays_mut().untried(clock::now());
            }
        };
        match outcome {
            Ok(()) => self.tried(&relay, true),
            Err(NoCircuit::Untried(why)) => {
                tracing::warn!(%relay, why, "a relay could not be tried");
                self.reach.relays_mut().untried(clock::now());
            }
            Err(error) => {
                self.counters.add("relay", "not_carried");
                tracing::debug!(%relay, %error, "a relay did not carry a circuit");
                self.tried(&relay, false);
            }
        }
        self.follow_reach();
    }

    fn tried(&mut self, relay: &PeerId, came: bool) {
        if !self.reach.relays_mut().proved(relay, came, clock::now(), chance()) {
            return;
        }
        tracing::warn!(%relay, "a relay holds a place for this node and carries nothing: it is let go");
        self.counters.add("relay", "barren");
        // Not by its listener alone: libp2p 0.57 panics if the relay grants then what it was asked for before. This ends that, too.
        let _ = self.swarm.disconnect_peer_id(*relay);
    }

    /// Somebody has come in at `address`.
    pub(super) fn on_carried(&mut self, address: &Multiaddr) {
        if let Some(relay) = discovery::relay_of(address) {
            self.reach.relays_mut().carried(&relay, clock::now(), chance());
            // It may be told of from now on.
            self.follow_reach();
        }
    }

    /// What identify tells peers is what libp2p calls external addresses: exactly those that we want to be told.
    pub(super) fn tell_addresses(&mut self) {
        let me = self.reach.me();
        let whole = |address: &Multiaddr| match discovery::relay_of(address) {
            Some(_) => address.clone().with(Protocol::P2p(me)),
            None => address.clone(),
        };
        let wanted: BTreeSet<Multiaddr> = self.ends.reached.borrow().addresses.iter().map(whole).collect();
        let have: BTreeSet<Multiaddr> = self.swarm.external_addresses().cloned().collect();
        have.difference(&wanted).for_each(|address| self.swarm.remove_external_address(address));
        wanted.difference(&have).for_each(|address| self.swarm.add_external_address(address.clone()));
    }

    /// A peer sees us at an address that we tell already: that is to be tried, too.
    pub(super) fn on_seen_at(&mut self, address: &Multiaddr) {
        if self.swarm.external_addresses().any(|told| told == address) {
            let behaviour = self.swarm.behaviour_mut();
            behaviour.probe.as_mut().into_iter().for_each(|probe| probe.suggest(address));
            behaviour.punch.as_mut().into_iter().for_each(|punch| punch.suggest(address));
        }
    }

    pub(super) fn on_listening(&mut self, address: &Multiaddr) {
        tracing::info!(%address, "listening");
        self.reach.listens(address);
        self.follow_reach();
    }

    pub(super) fn on_stopped_listening(&mut self, addresses: &[Multiaddr]) {
        addresses.iter().for_each(|address| self.reach.stopped_listening(address));
        self.follow_reach();
    }

    /// A reservation is over, or a socket is gone.
    pub(super) fn on_listener_closed(&mut self, listener: ListenerId, addresses: &[Multiaddr], reason: &io::Result<()>) {
        let Some(relay) = self.reserving.remove(&listener) else {
            tracing::error!(?addresses, ?reason, "no longer listening");
            return self.on_stopped_listening(addresses);
        };
        self.counters.add("relay", "lost");
        tracing::debug!(%relay, ?reason, "no place at a relay");
        // A later request may have been granted meanwhile.
        if !self.reserving.values().any(|other| *other == relay) {
            self.reach.relays_mut().lost(&relay, clock::now(), chance());
        }
        self.follow_reach();
    }

    pub(super) fn on_circuits(&mut self, event: &relay::client::Event) {
        match event {
            relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal, .. } => {
                self.counters.add("relay", if *renewal { "renewed" } else { "reserved" });
                self.reach.relays_mut().reserved(relay_peer_id, clock::now());
                self.follow_reach();
            }
            relay::client::Event::OutboundCircuitEstablished { .. } => self.counters.add("relay", "circuit_out"),
            relay::client::Event::InboundCircuitEstablished { .. } => self.counters.add("relay", "circuit_in"),
        }
    }

    pub(super) fn on_probed(&mut self, event: &autonat::v2::client::Event) {
        let reached = event.result.is_ok();
        tracing::debug!(address = %event.tested_addr, server = %event.server, reached, "a peer has tried to dial us");
        self.counters.add("reach", if reached { "confirmed" } else { "unreachable" });
        self.reach.tried(&event.tested_addr, reached);
        self.follow_reach();
    }

    pub(super) fn on_upnp(&mut self, event: &upnp::Event) {
        match event {
            upnp::Event::NewExternalAddr { external_addr, .. } => self.reach.mapped(external_addr, true),
            upnp::Event::ExpiredExternalAddr { external_addr, .. } => self.reach.mapped(external_addr, false),
            upnp::Event::GatewayNotFound => self.counters.add("reach", "no_upnp"),
            upnp::Event::NonRoutableGateway => self.counters.add("reach", "upnp_behind_nat"),
        }
        self.follow_reach();
    }

    /// If the peer is a relay, of which `usable` addresses can be dialled, it may be of use.
    pub(super) fn on_maybe_relay(&mut self, peer: PeerId, info: &identify::Info, usable: Vec<Multiaddr>) {
        if info.protocols.contains(&behaviour::HOP) {
            self.reach.is_relay(peer, usable, clock::now());
            self.follow_reach();
        }
    }

    // ---- how we reach others

    pub(super) fn on_punched(&mut self, event: &dcutr::Event) {
        match &event.result {
            Ok(_) => self.counters.add("punch", "done"),
            Err(error) => {
                self.counters.add("punch", "failed");
                self.punch_failed(event.remote_peer_id, error);
            }
        }
    }

    pub(super) fn punch_failed(&mut self, peer: PeerId, error: &dyn std::error::Error) {
        if let Some(id) = node_id(&peer) {
            self.peers.punch_failed(&id, &error.to_string());
        }
    }

    /// Where a worker says in its ad that it is.
    pub(super) fn learn_place(&mut self, ad: &Verified<CapabilityAd>) {
        let addresses = ad.mesh.iter().filter_map(|address| address.as_str().parse().ok());
        let addresses: Vec<Multiaddr> = addresses.filter(|address| discovery::reach(address) >= Some(self.least)).collect();
        self.places.insert(ad.signer(), addresses, clock::now());
    }

    pub(super) fn connect(
        &mut self,
        peer: NodeId,
        addresses: Vec<Multiaddr>,
        deadline: UnixMillis,
        reply: oneshot::Sender<Option<PeerInfo>>,
    ) {
        let Some(id) = peer_id(&peer) else { return tell(reply, None) };
        if self.peers.is_connected(&peer) || self.callers.len() >= MAX_WAITING {
            return tell(reply, self.peers.info(&peer));
        }
        self.callers.push(Caller { peer, deadline, reply });
        match self.dial_worker(&peer, id, addresses) {
            // Somebody else's dial will do.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => {
                tracing::debug!(%error, "not dialled");
                self.answer_callers(&peer);
            }
        }
    }

    /// Dials at `addresses`, at those of its newest ad, and where the DHT knows it.
    pub(super) fn dial_worker(&mut self, peer: &NodeId, id: PeerId, mut addresses: Vec<Multiaddr>) -> Result<(), DialError> {
        addresses.truncate(limits::MAX_ADDRESSES);
        let addresses = addresses.iter().map(without_peer).chain(self.advertised(peer)).collect();
        let opts = DialOpts::peer_id(id).condition(PeerCondition::DisconnectedAndNotDialing);
        self.swarm.dial(opts.addresses(addresses).extend_addresses_through_behaviour().build())
    }

    /// Where `peer` is by its newest ad: an ad has [`limits::MAX_ADDRESSES`] at most.
    pub(super) fn advertised(&self, peer: &NodeId) -> Vec<Multiaddr> {
        self.places.get(peer).into_iter().flatten().map(without_peer).collect()
    }

    /// Tells those who wait for `peer` how it is.
    pub(super) fn answer_callers(&mut self, peer: &NodeId) {
        let info = self.peers.info(peer);
        for caller in self.callers.extract_if(.., |caller| caller.peer == *peer) {
            tell(caller.reply, info.clone());
        }
    }

    pub(super) fn drop_late_callers(&mut self, now: UnixMillis) {
        self.callers.retain(|caller| caller.deadline > now && !caller.reply.is_closed());
    }

    pub(super) fn next_caller_deadline(&self) -> Option<UnixMillis> {
        self.callers.iter().map(|caller| caller.deadline).min()
    }

    /// Counts connections that begin, by their way.
    pub(super) fn count_path(&mut self, path: Path) {
        self.counters.add("path", path.label());
    }
}
