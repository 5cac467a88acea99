//! Relays: which are known, which hold a place for us, which to ask next and when. Pure; see [`super`].

use super::{
    discovery, ip,
    proof::{self, Proof},
    without_peer,
};
use infernet_wire::time::UnixMillis;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Relays held at once: if one is lost, the other carries on until a third is found.
pub(in super::super) const HELD: usize = 2;
/// How long a relay may take to grant a reservation: a handshake and a round trip, with room.
const ASKED_MS: u64 = 30_000;
/// The pause after a first failure; it doubles each time.
const FIRST_PAUSE_MS: u64 = 1_000;
/// The longest pause, so that a relay that was away for long is found again within a minute.
const LONGEST_PAUSE_MS: u64 = 30_000;
/// Failures in a row after which a relay that nobody configured is forgotten; some three minutes.
const MAX_FAILURES: u32 = 8;
/// Relays remembered: a choice, not a phone book.
const MAX_RELAYS: usize = 32;
/// A relay as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayInfo {
    /// Who.
    pub id: PeerId,
    /// `held`, `asked` or `known`.
    pub state: &'static str,
    /// Whether the operator named it.
    pub configured: bool,
    /// The last ping.
    pub rtt_ms: Option<u32>,
    /// Times in a row that it did not grant a place.
    pub failures: u32,
    /// Times in a row that it granted one and carried nothing; see `net/reach/proof.rs`.
    pub barren: u32,
}

/// Ask for a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Reserve {
    pub(in super::super) relay: PeerId,
    /// To listen on: ends in `/p2p-circuit`.
    pub(in super::super) address: Multiaddr,
}

/// See whether a relay carries anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Prove {
    pub(in super::super) relay: PeerId,
    /// Where it says it is. Any will do: from here UDP may be blocked, or IPv6 lead nowhere, and from elsewhere not.
    pub(in super::super) addresses: Vec<Multiaddr>,
    /// Where others would dial us, without our own `/p2p/` at the end.
    pub(in super::super) circuit: Multiaddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Idle { not_before: UnixMillis },
    Asked { since: UnixMillis },
    Held(Proof),
}

#[derive(Debug, Clone)]
struct Relay {
    /// Where it is, without `/p2p/`; the one that reaches furthest first.
    addresses: Vec<Multiaddr>,
    configured: bool,
    connected: bool,
    rtt_ms: Option<u32>,
    failures: u32,
    barren: u32,
    place: Place,
}

impl Relay {
    fn new(addresses: Vec<Multiaddr>, configured: bool) -> Self {
        let place = Place::Idle { not_before: UnixMillis(0) };
        Relay { addresses, configured, connected: false, rtt_ms: None, failures: 0, barren: 0, place }
    }

    fn is_held(&self) -> bool {
        matches!(self.place, Place::Held(_))
    }

    /// Whether others are told of it: not if it has carried nothing before, until it does.
    fn is_told(&self) -> bool {
        matches!(self.place, Place::Held(proof) if self.barren == 0 || proof.is_proved())
    }

    fn is_taken(&self) -> bool {
        !matches!(self.place, Place::Idle { .. })
    }

    fn is_free(&self, now: UnixMillis) -> bool {
        !self.addresses.is_empty() && matches!(self.place, Place::Idle { not_before } if not_before <= now)
    }

    /// Better ones are smaller.
    fn rank(&self) -> (u32, bool, u32) {
        (self.failures, !self.connected, self.rtt_ms.unwrap_or(u32::MAX))
    }

    fn failed(&mut self, now: UnixMillis, chance: u64) {
        let pause = FIRST_PAUSE_MS.checked_shl(self.failures.min(10)).unwrap_or(LONGEST_PAUSE_MS).min(LONGEST_PAUSE_MS);
        self.failures = self.failures.saturating_add(1);
        self.place = Place::Idle { not_before: now.after(discovery::spread(pause, chance)) };
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(in super::super) struct Relays {
    known: BTreeMap<PeerId, Relay>,
    /// The one that is being tried: one at a time.
    proving: Option<PeerId>,
}

impl Relays {
    /// Those that the operator names, with `/p2p/` at the end; others are left out.
    pub(super) fn new(configured: &[Multiaddr]) -> Self {
        let mut relays: BTreeMap<PeerId, Relay> = BTreeMap::new();
        for address in configured.iter().take(MAX_RELAYS) {
            let Some(id) = discovery::peer_of(address) else { continue };
            let relay = relays.entry(id).or_insert_with(|| Relay::new(Vec::new(), true));
            relay.addresses.push(without_peer(address));
        }
        Relays { known: relays, proving: None }
    }

    /// A connected peer says that it is a relay, and where it is. Whether that is of use.
    pub(super) fn seen(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) -> bool {
        let is_of_use = self.told(peer, addresses);
        if let Some(relay) = self.known.get_mut(&peer).filter(|_| is_of_use) {
            relay.connected = true;
        }
        is_of_use
    }

    /// Somebody says that a peer is a relay, and where it is. Whether that is of use.
    pub(super) fn told(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) -> bool {
        addresses.retain(|address| discovery::relay_of(address).is_none());
        // A stable sort: of those that reach as far, in its own order.
        addresses.sort_by_key(|address| Reverse(discovery::reach(address)));
        let addresses: Vec<Multiaddr> = addresses.iter().map(without_peer).take(discovery::MAX_ADDRESSES).collect();
        if addresses.is_empty() || (!self.known.contains_key(&peer) && !self.make_room()) {
            return false;
        }
        let relay = self.known.entry(peer).or_insert_with(|| Relay::new(addresses.clone(), false));
        // The address of a place that is held stays as others know it.
        if !relay.configured && !relay.is_taken() {
            relay.addresses = addresses;
        }
        true
    }

    fn make_room(&mut self) -> bool {
        let gone = |relay: &Relay| !relay.configured && !relay.connected && !relay.is_taken();
        let gone = self.known.iter().filter(|(_, relay)| gone(relay));
        // What is known of those that carried nothing is of use for longer.
        if self.known.len() >= MAX_RELAYS
            && let Some(id) = gone.min_by_key(|(_, relay)| relay.barren > 0).map(|(id, _)| *id)
        {
            self.known.remove(&id);
        }
        self.known.len() < MAX_RELAYS
    }

    pub(in super::super) fn pinged(&mut self, peer: &PeerId, rtt_ms: u32) {
        if let Some(relay) = self.known.get_mut(peer) {
            relay.connected = true;
            relay.rtt_ms = Some(rtt_ms);
        }
    }

    /// A relay grants a place, or grants it again.
    pub(in super::super) fn reserved(&mut self, peer: &PeerId, now: UnixMillis) {
        if let Some(relay) = self.known.get_mut(peer) {
            relay.connected = true;
            relay.failures = 0;
            if !relay.is_held() {
                relay.place = Place::Held(Proof::new(now));
            }
        }
    }

    /// A circuit has come through a relay.
    pub(in super::super) fn carried(&mut self, peer: &PeerId, now: UnixMillis, chance: u64) {
        if let Some(relay) = self.known.get_mut(peer)
            && let Place::Held(proof) = &mut relay.place
        {
            proof.carried(now, chance);
            relay.barren = 0;
        }
    }

    /// What is to be proved now, if nothing is being. `carries` tells of which relay circuits stand: these prove it. What is named
    /// counts as begun, until [`Relays::proved`].
    pub(in super::super) fn next_to_prove(
        &mut self,
        carries: impl Fn(&PeerId) -> bool,
        now: UnixMillis,
        chance: u64,
    ) -> Option<Prove> {
        if self.proving.is_some() {
            return None;
        }
        let due = |relay: &Relay| matches!(relay.place, Place::Held(proof) if proof.due() <= now);
        let due: Vec<PeerId> = self.known.iter().filter(|(_, relay)| due(relay)).map(|(id, _)| *id).collect();
        let (proved, unproved): (Vec<_>, Vec<_>) = due.into_iter().partition(carries);
        proved.iter().for_each(|relay| self.carried(relay, now, chance));
        let relay = unproved.first()?;
        let (circuit, addresses) = (self.circuit(relay)?, self.known.get(relay)?.addresses.clone());
        self.proving = Some(*relay);
        Some(Prove { relay: *relay, addresses, circuit })
    }

    /// That could not be tried: it is again, and nothing was learnt.
    pub(in super::super) fn untried(&mut self, now: UnixMillis) {
        if let Some(relay) = self.proving.take().and_then(|id| self.known.get_mut(&id))
            && let Place::Held(proof) = &mut relay.place
        {
            proof.put_off(now);
        }
    }

    /// What came of that. Whether the relay is to be let go.
    pub(in super::super) fn proved(&mut self, peer: &PeerId, came: bool, now: UnixMillis, chance: u64) -> bool {
        self.proving = None;
        if came {
            self.carried(peer, now, chance);
            return false;
        }
        // It may have been lost, or even got again, meanwhile: then this is a try like another.
        let Some(relay) = self.known.get_mut(peer) else { return false };
        let Place::Held(proof) = &mut relay.place else { return false };
        let is_worthless = proof.missed(now);
        if is_worthless {
            relay.barren = relay.barren.saturating_add(1);
            let rest = discovery::spread(proof::rest_ms(relay.barren), chance);
            relay.place = Place::Idle { not_before: now.after(rest) };
        }
        is_worthless
    }

    /// A relay refuses, or the place there is lost.
    pub(in super::super) fn lost(&mut self, peer: &PeerId, now: UnixMillis, chance: u64) {
        if let Some(relay) = self.known.get_mut(peer).filter(|relay| relay.is_taken()) {
            relay.failed(now, chance);
        }
        self.forget();
    }

    /// The last connection to a peer is gone.
    pub(in super::super) fn left(&mut self, peer: &PeerId, now: UnixMillis, chance: u64) {
        let Some(relay) = self.known.get_mut(peer) else { return };
        (relay.connected, relay.rtt_ms) = (false, None);
        if relay.is_held() {
            relay.failed(now, chance);
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.known.retain(|_, relay| relay.configured || relay.connected || relay.failures <= MAX_FAILURES);
    }

    /// When [`Relays::decide`] is due, if relays are wanted.
    pub(super) fn due(&self) -> Option<UnixMillis> {
        let full = self.taken() >= HELD;
        let at = |relay: &Relay| match relay.place {
            Place::Asked { since } => Some(since.after(ASKED_MS)),
            Place::Idle { not_before } => (!full && !relay.addresses.is_empty()).then_some(not_before),
            // While another is tried, its end is waited for.
            Place::Held(proof) => self.proving.is_none().then(|| proof.due()),
        };
        self.known.values().filter_map(at).min()
    }

    fn taken(&self) -> usize {
        self.known.values().filter(|relay| relay.is_taken()).count()
    }

    /// Whom to ask for a place now, if more are wanted. Who is named counts as asked.
    pub(super) fn decide(&mut self, wanted: bool, now: UnixMillis, chance: u64) -> Vec<Reserve> {
        for relay in self.known.values_mut() {
            if matches!(relay.place, Place::Asked { since } if since.after(ASKED_MS) <= now) {
                relay.failed(now, chance);
            }
        }
        self.forget();
        let mut asked = Vec::new();
        while wanted && self.taken() < HELD {
            let Some(id) = self.best(now) else { break };
            let Some(relay) = self.known.get_mut(&id) else { break };
            relay.place = Place::Asked { since: now };
            asked.extend(self.circuit(&id).map(|address| Reserve { relay: id, address }));
        }
        asked
    }

    /// The best that is free, on another network than those we have if there is one.
    fn best(&self, now: UnixMillis) -> Option<PeerId> {
        let have: BTreeSet<_> = self.known.values().filter(|relay| relay.is_taken()).filter_map(network).collect();
        let free = self.known.iter().filter(|(_, relay)| relay.is_free(now));
        let is_near = |relay: &Relay| network(relay).is_some_and(|network| have.contains(&network));
        // A relay that carried nothing comes last, whoever names it.
        let order = |relay: &Relay| (relay.barren, !relay.configured, is_near(relay), relay.rank());
        free.min_by_key(|(id, relay)| (order(relay), **id)).map(|(id, _)| *id)
    }

    /// Those that hold a place for us, of which others are told.
    pub(super) fn held(&self) -> Vec<PeerId> {
        self.known.iter().filter(|(_, relay)| relay.is_told()).map(|(id, _)| *id).collect()
    }

    /// Where others reach us through `relay`, without our own `/p2p/` at the end.
    pub(super) fn circuit(&self, relay: &PeerId) -> Option<Multiaddr> {
        let address = self.known.get(relay)?.addresses.first()?.clone();
        Some(address.with(Protocol::P2p(*relay)).with(Protocol::P2pCircuit))
    }

    /// Every relay that is known, those that hold a place first.
    pub(in super::super) fn infos(&self) -> Vec<RelayInfo> {
        let info = |(id, relay): (&PeerId, &Relay)| RelayInfo {
            id: *id,
            state: match relay.place {
                Place::Held(_) => "held",
                Place::Asked { .. } => "asked",
                Place::Idle { .. } => "known",
            },
            configured: relay.configured,
            rtt_ms: relay.rtt_ms,
            failures: relay.failures,
            barren: relay.barren,
        };
        let mut relays: Vec<RelayInfo> = self.known.iter().map(info).collect();
        relays.sort_by_key(|relay| relay.state != "held");
        relays
    }
}

/// The network that a relay is on: /24 or /48, as relays themselves count.
fn network(relay: &Relay) -> Option<[u8; 6]> {
    Some(match ip(relay.addresses.first()?)? {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            [a, b, c, 0, 0, 4]
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, ..] = ip.octets();
            [a, b, c, d, e, f]
        }
    })
}
