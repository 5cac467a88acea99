//! How others reach this node: whether it can be dialled, at which addresses, and through which relays if not. Pure.
//!
//! What is known comes from outside: where we listen, what a peer that dialled back found (AutoNAT v2), what the router mapped
//! (UPnP), what the operator says, which peers are relays and how far away. Out come three things: which relay to ask for a
//! reservation next (`Reach::decide`), where we are to be found (`Reach::told`), and why.
//!
//! | state | known | told to peers | told in ads |
//! |---|---|---|---|
//! | unknown | nobody has tried yet | where we listen | the same, as far as it reaches |
//! | open | a peer dialled us at an address of our own | that, and what is for the local network | what reaches furthest |
//! | mapped | a router passes on to us: UPnP or the operator says so | the same | the same |
//! | mapped, it seems | a peer dialled us at an address that is not our own | that and circuits, and what is for the local network | that and circuits |
//! | behind NAT | a peer tried and could not | circuits, and what is for the local network | circuits |
//!
//! **Relays**, for a worker that can't be dialled, or does not know after [`PATIENCE_MS`], or at once if its operator names some: two of
//! them, those that the operator names first, then the nearest, on different networks if there are any. One that is lost is replaced
//! at once if another is known, and asked again after a second, then ever later, at most every half a minute. libp2p itself renews a
//! reservation after three quarters of its time; when that fails we hear of it as of any other loss. Each place that is held is proved
//! to carry something, see `reach/proof.rs`: a relay that does not is let go, and others take its turn.
//!
//! **It seems**: a NAT that lets in whom it has sent to (address-dependent filtering, RFC 4787 §5) lets in the peer that tries for us,
//! which dials from another port of the same address, and nobody else. So that peer's word alone does not do without relays.
//!
//! **What can't be known**: each address is tried once, by one peer, which may lie. A false "no" costs a way over relays; a false "yes"
//! costs buyers a dial.

mod proof;
mod relays;

pub use relays::RelayInfo;
pub(super) use relays::{Prove, Relays, Reserve};

use super::discovery::{self, Reach as Distance};
use infernet_wire::time::UnixMillis;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

/// How long to wait for a verdict before relays are used to be safe: a few rounds of AutoNAT, which asks every five seconds.
pub const PATIENCE_MS: u64 = 30_000;
/// Verdicts remembered: as many as addresses that are tried.
const MAX_VERDICTS: usize = 16;
/// Addresses told: as many as an ad takes.
const MAX_TOLD: usize = infernet_wire::limits::MAX_ADDRESSES;

/// What the operator wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Find out, and use relays if need be.
    #[default]
    Auto,
    /// Our addresses work: no relays.
    Direct,
    /// Listen nowhere; be reached over relays, and over what we dial.
    OutboundOnly,
    /// Tell nobody an address of this machine; be reached over relays.
    RelayOnly,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::Auto, Mode::Direct, Mode::OutboundOnly, Mode::RelayOnly];

    /// Whether the machine is to be dialled at all.
    pub fn listens(self) -> bool {
        matches!(self, Mode::Auto | Mode::Direct)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Auto => "auto",
            Mode::Direct => "direct",
            Mode::OutboundOnly => "outbound-only",
            Mode::RelayOnly => "relay-only",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Mode::ALL.into_iter().find(|mode| mode.to_string() == text);
        named.ok_or_else(|| "write auto, direct, outbound-only or relay-only".into())
    }
}

/// Whether a node can be dialled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reachability {
    /// At an address of its own.
    Open,
    /// At an address from which a router passes on to it.
    Mapped,
    /// No.
    BehindNat,
    /// Nobody has tried yet.
    #[default]
    Unknown,
}

impl Reachability {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Reachability::Open => "open",
            Reachability::Mapped => "mapped",
            Reachability::BehindNat => "behind NAT",
            Reachability::Unknown => "unknown",
        }
    }
}

/// What is set once.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) me: PeerId,
    pub(super) mode: Mode,
    /// Whether others want to reach us, so that relays are worth it.
    pub(super) serves: bool,
    /// Where the operator says that we are reached.
    pub(super) external: Vec<Multiaddr>,
    /// Addresses of this machine that nobody is told.
    pub(super) hidden: Vec<IpAddr>,
    /// The operator's relays, with `/p2p/` at the end.
    pub(super) relays: Vec<Multiaddr>,
}

/// Where a node is to be found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// Whether it can be dialled.
    pub state: Reachability,
    /// How that is known, in a sentence.
    pub why: String,
    /// For peers that are connected, without our own `/p2p/`.
    pub addresses: Vec<Multiaddr>,
    /// For everybody: those of `addresses` that reach furthest.
    pub advertised: Vec<Multiaddr>,
    /// The relays that hold a place for us.
    pub relays: Vec<PeerId>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reach {
    setup: Setup,
    listening: BTreeSet<Multiaddr>,
    confirmed: BTreeSet<Multiaddr>,
    refused: BTreeSet<Multiaddr>,
    mapped: BTreeSet<Multiaddr>,
    relays: Relays,
    /// When the first relay was known, who could have told whether we can be dialled.
    waiting_since: Option<UnixMillis>,
}

impl Reach {
    pub(super) fn new(setup: Setup) -> Self {
        Reach {
            relays: Relays::new(&setup.relays),
            setup,
            listening: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            refused: BTreeSet::new(),
            mapped: BTreeSet::new(),
            waiting_since: None,
        }
    }

    // ---- what is learnt

    /// We listen at `address`, which counts unless it is hidden. Circuits are learnt by [`Reach::reserved`].
    pub(super) fn listens(&mut self, address: &Multiaddr) {
        let is_hidden = ip(address).is_some_and(|ip| self.setup.hidden.contains(&ip));
        if !is_hidden && discovery::relay_of(address).is_none() && self.setup.mode.listens() {
            self.listening.insert(without_peer(address));
        }
    }

    /// No longer.
    pub(super) fn stopped_listening(&mut self, address: &Multiaddr) {
        let address = without_peer(address);
        self.listening.remove(&address);
        // The uplink may have changed: what was true of it is not any more.
        let gone = ip(&address);
        self.confirmed.retain(|confirmed| ip(confirmed) != gone);
    }

    /// A peer tried to dial us there.
    pub(super) fn tried(&mut self, address: &Multiaddr, reached: bool) {
        let address = without_peer(address);
        self.refused.remove(&address);
        self.confirmed.remove(&address);
        let verdicts = if reached { &mut self.confirmed } else { &mut self.refused };
        if verdicts.len() < MAX_VERDICTS {
            verdicts.insert(address);
        }
    }

    /// The router passes on what comes there, or no longer.
    pub(super) fn mapped(&mut self, address: &Multiaddr, is_mapped: bool) {
        let address = without_peer(address);
        if !is_mapped {
            self.mapped.remove(&address);
        } else if self.mapped.len() < MAX_VERDICTS {
            self.mapped.insert(address);
        }
    }

    /// A connected peer says that it is a relay, and where it is.
    pub(super) fn is_relay(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: UnixMillis) {
        if self.relays.seen(peer, addresses) {
            self.waiting_since.get_or_insert(now);
        }
    }

    /// A page names a relay.
    pub(super) fn told_of(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: UnixMillis) {
        if self.relays.told(peer, addresses) {
            self.waiting_since.get_or_insert(now);
        }
    }

    /// What becomes of relays.
    pub(super) fn relays_mut(&mut self) -> &mut Relays {
        &mut self.relays
    }

    /// The relays that are known.
    pub(super) fn relays(&self) -> &Relays {
        &self.relays
    }

    // ---- what follows

    /// Whether we can be dialled.
    pub(super) fn state(&self) -> Reachability {
        if !self.setup.mode.listens() {
            return Reachability::BehindNat;
        }
        let own: BTreeSet<_> = self.listening.iter().filter_map(ip).collect();
        if self.confirmed.iter().filter_map(ip).any(|ip| own.contains(&ip)) {
            Reachability::Open
        } else if !(self.confirmed.is_empty() && self.mapped.is_empty() && self.setup.external.is_empty()) {
            Reachability::Mapped
        } else if !self.refused.is_empty() {
            Reachability::BehindNat
        } else {
            Reachability::Unknown
        }
    }

    /// Whether only a peer's word says that a router lets everybody in.
    fn may_be_filtered(&self) -> bool {
        self.state() == Reachability::Mapped && self.setup.external.is_empty() && self.mapped.is_empty()
    }

    /// Whether relays are worth it, as far as that does not depend on the time.
    fn wants_relays(&self, now: UnixMillis) -> bool {
        match (self.setup.mode, self.state()) {
            (Mode::Auto, Reachability::Mapped) if self.may_be_filtered() => self.setup.serves,
            (Mode::Direct, _) | (Mode::Auto, Reachability::Open | Reachability::Mapped) => false,
            (Mode::OutboundOnly | Mode::RelayOnly, _) => self.setup.serves,
            (Mode::Auto, Reachability::BehindNat) => self.setup.serves,
            (Mode::Auto, Reachability::Unknown) => {
                let waited = self.waiting_since.is_some_and(|since| since.after(PATIENCE_MS) <= now);
                self.setup.serves && (waited || self.listening.is_empty() || !self.setup.relays.is_empty())
            }
        }
    }

    /// When [`Reach::decide`] is due; `None`: not before something is learnt.
    pub(super) fn due(&self, now: UnixMillis) -> Option<UnixMillis> {
        if !self.wants_relays(now) {
            let patience = || self.waiting_since.map(|since| since.after(PATIENCE_MS)).filter(|at| *at > now);
            let may_want = self.setup.serves && self.setup.mode == Mode::Auto && self.state() == Reachability::Unknown;
            return may_want.then(patience).flatten();
        }
        self.relays.due()
    }

    /// Whom to ask for a place now. Who is named counts as asked.
    pub(super) fn decide(&mut self, now: UnixMillis, chance: u64) -> Vec<Reserve> {
        let wants = self.wants_relays(now);
        self.relays.decide(wants, now, chance)
    }

    /// Which relay to try now, whether it carries anything. `carries` tells of which circuits to us stand. What is named counts as
    /// begun, until [`Relays::proved`].
    pub(super) fn next_to_prove(&mut self, carries: impl Fn(&PeerId) -> bool, now: UnixMillis, chance: u64) -> Option<Prove> {
        if self.wants_relays(now) { self.relays.next_to_prove(carries, now, chance) } else { None }
    }

    /// Where we are to be found.
    pub(super) fn told(&self) -> Reached {
        let state = self.state();
        let held = self.relays.held();
        let is_sure = matches!(state, Reachability::Open | Reachability::Mapped) && !self.may_be_filtered();
        let is_used = self.setup.mode != Mode::Direct && !is_sure;
        let circuits: Vec<Multiaddr> =
            if is_used { held.iter().filter_map(|id| self.relays.circuit(id)).collect() } else { Vec::new() };
        let mut direct = self.direct(state);
        direct.sort_by_key(|address| std::cmp::Reverse(discovery::reach(address)));
        let furthest = direct.iter().filter_map(discovery::reach).max();
        let hides = state == Reachability::BehindNat;
        let widely: Vec<Multiaddr> =
            direct.iter().filter(|address| !hides && discovery::reach(address) == furthest).cloned().collect();
        let join = |direct: Vec<Multiaddr>| circuits.iter().cloned().chain(direct).take(MAX_TOLD).collect::<Vec<_>>();
        Reached { state, why: self.why(state), advertised: join(widely), addresses: join(direct), relays: held }
    }

    /// Addresses of the machine that are told.
    fn direct(&self, state: Reachability) -> Vec<Multiaddr> {
        if !self.setup.mode.listens() {
            return Vec::new();
        }
        let works: BTreeSet<Multiaddr> =
            self.setup.external.iter().map(without_peer).chain(self.mapped.iter().chain(&self.confirmed).cloned()).collect();
        let is_told = |address: &&Multiaddr| match (self.setup.mode, state) {
            (Mode::Direct, _) | (_, Reachability::Unknown) => true,
            // Of those that nobody confirmed, what is for the neighbours alone.
            _ => !self.refused.contains(*address) && discovery::reach(address).is_some_and(|reach| reach < Distance::World),
        };
        let local = self.listening.iter().filter(is_told).filter(|address| !works.contains(*address));
        works.iter().chain(local).cloned().collect()
    }

    fn why(&self, state: Reachability) -> String {
        let first = |addresses: &BTreeSet<Multiaddr>| addresses.first().map(ToString::to_string).unwrap_or_default();
        match (self.setup.mode, state) {
            (Mode::OutboundOnly, _) => "outbound-only: it listens nowhere".into(),
            (Mode::RelayOnly, _) => "relay-only: it tells no address of its own".into(),
            (_, Reachability::Open) => format!("a peer reached it at {}", first(&self.confirmed)),
            (_, Reachability::Mapped) => match self.setup.external.first() {
                Some(address) => format!("its operator says that it is reached at {address}"),
                None if !self.mapped.is_empty() => format!("the router maps {} to it", first(&self.mapped)),
                None => format!(
                    "a peer reached it at {}; whether its router lets everybody in is not known",
                    first(&self.confirmed)
                ),
            },
            (_, Reachability::BehindNat) => format!("a peer could not reach it at {}", first(&self.refused)),
            (_, Reachability::Unknown) => "no peer has tried yet; relays do".into(),
        }
    }

    /// As libp2p has it.
    pub(super) fn me(&self) -> PeerId {
        self.setup.me
    }
}

/// The address without the peer at its end.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if discovery::peer_of(&address).is_some() {
        address.pop();
    }
    address
}

/// The address that it begins with.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
