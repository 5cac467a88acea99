//! What a NAT remembers, and whom it lets in, in the terms of RFC 4787. Pure: time and chance are arguments.
//!
//! An *endpoint* is an address and a port. A datagram that goes out gets a **mapping**: an outside endpoint that stands for the inside
//! one, towards everybody, one address, or one endpoint. A datagram that comes to it is let in, or not, by where it is from (the
//! **filtering**). Both are forgotten after a time without traffic.
//!
//! Not here, since nothing of ours depends on it: pools of outside addresses, port parity, fragments, ICMP.

use infernet_wire::time::UnixMillis;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

/// Mappings of a NAT: as many as one of the namespaces has. Above, what is new is refused.
pub const MAX_MAPPINGS: usize = 4_096;
/// Remotes that a mapping lets in. Above, the one sent to longest ago is forgotten.
pub const MAX_REMOTES: usize = 256;
/// Ports that are somebody else's. Above, all are tried again.
const MAX_RESERVED: usize = 1_024;
/// Ports below are not chosen for a host (RFC 4787 REQ-3 keeps well-known ports apart).
const FIRST_PORT: u16 = 1_024;

/// What of a remote endpoint makes a difference (RFC 4787 §4.1, §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependence {
    /// Nothing: all remotes are the same.
    EndpointIndependent,
    /// Its address.
    AddressDependent,
    /// Its address and port.
    AddressAndPortDependent,
}

/// A remote, as far as it makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Remote {
    Any,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

impl Dependence {
    fn of(self, remote: SocketAddr) -> Remote {
        match self {
            Dependence::EndpointIndependent => Remote::Any,
            Dependence::AddressDependent => Remote::Address(remote.ip()),
            Dependence::AddressAndPortDependent => Remote::Endpoint(remote),
        }
    }
}

/// Which outside port stands for an inside one (RFC 4787 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The same, if it is free ("port preservation").
    Kept,
    /// Any.
    Random,
}

/// How a NAT behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// When a host gets another outside endpoint.
    pub mapping: Dependence,
    /// Who is let in.
    pub filtering: Dependence,
    /// Which port it gets.
    pub ports: Ports,
    /// Whether hosts inside reach each other, and themselves, at outside endpoints (§6).
    pub hairpins: bool,
    /// Whether what comes in refreshes a mapping, too; what goes out always does (§4.3, REQ-6).
    pub inbound_refreshes: bool,
    /// After so long without traffic a mapping is forgotten.
    pub remembers_ms: u64,
}

/// A datagram goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody inside has that port.
    #[error("no mapping has that port")]
    Unmapped,
    /// Somebody has, who has not sent there.
    #[error("the mapping lets in nobody from there")]
    Filtered,
    /// It came from inside.
    #[error("this NAT does not hairpin")]
    Hairpin,
    /// There are [`MAX_MAPPINGS`].
    #[error("all {MAX_MAPPINGS} mappings are taken")]
    Full,
}

#[derive(Debug)]
struct Mapping {
    inside: SocketAddr,
    /// Towards whom.
    remote: Remote,
    /// Whom it lets in, and when that was last refreshed.
    let_in: BTreeMap<Remote, UnixMillis>,
    used: UnixMillis,
    /// Stands for good, and lets in everybody: a port that the router was told to pass on.
    is_forwarded: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Table {
    behaviour: Behaviour,
    outside: IpAddr,
    mappings: BTreeMap<u16, Mapping>,
    ports: BTreeMap<(SocketAddr, Remote), u16>,
    reserved: BTreeSet<u16>,
}

impl Table {
    /// A NAT whose outside address is `outside`; it remembers nothing yet.
    pub fn new(behaviour: Behaviour, outside: IpAddr) -> Self {
        Table { behaviour, outside, mappings: BTreeMap::new(), ports: BTreeMap::new(), reserved: BTreeSet::new() }
    }

    /// How it behaves.
    pub fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    /// Its outside address.
    pub fn outside(&self) -> IpAddr {
        self.outside
    }

    /// Passes on whatever comes to the outside port of the same number, for good. Returns the outside endpoint.
    pub fn forward(&mut self, inside: SocketAddr) -> SocketAddr {
        let (port, remote) = (inside.port(), Remote::Any);
        let never = UnixMillis(u64::MAX);
        self.remove(port);
        self.ports.insert((inside, remote), port);
        self.mappings.insert(port, Mapping { inside, remote, let_in: BTreeMap::new(), used: never, is_forwarded: true });
        SocketAddr::new(self.outside, port)
    }

    /// A datagram of `inside` goes to `to`: the outside endpoint that it seems to come from. `chance` is a random number.
    pub fn outbound(
        &mut self,
        inside: SocketAddr,
        to: SocketAddr,
        now: UnixMillis,
        chance: u64,
    ) -> Result<SocketAddr, Refusal> {
        self.expire(now);
        let key = (inside, self.behaviour.mapping.of(to));
        let port = match self.ports.get(&key) {
            Some(port) => *port,
            None => self.map(key, now, chance)?,
        };
        let filter = self.behaviour.filtering.of(to);
        if let Some(mapping) = self.mappings.get_mut(&port)
            && !mapping.is_forwarded
        {
            mapping.used = now;
            mapping.lets_in(filter, now);
        }
        Ok(SocketAddr::new(self.outside, port))
    }

    /// A datagram of `from` comes to the outside `port`: the inside endpoint that gets it.
    pub fn inbound(&mut self, port: u16, from: SocketAddr, now: UnixMillis) -> Result<SocketAddr, Refusal> {
        self.expire(now);
        let Behaviour { filtering, hairpins, inbound_refreshes, .. } = self.behaviour;
        let filter = filtering.of(from);
        let is_hairpin = from.ip() == self.outside;
        let mapping = self.mappings.get_mut(&port).ok_or(Refusal::Unmapped)?;
        if is_hairpin && !hairpins {
            return Err(Refusal::Hairpin);
        }
        if mapping.is_forwarded {
            return Ok(mapping.inside);
        }
        let seen = mapping.let_in.get_mut(&filter).ok_or(Refusal::Filtered)?;
        if inbound_refreshes {
            (*seen, mapping.used) = (now, now);
        }
        Ok(mapping.inside)
    }

    /// Forgets what had no traffic for too long.
    pub fn expire(&mut self, now: UnixMillis) {
        let ms = self.behaviour.remembers_ms;
        let is_over = |used: UnixMillis| now.0.saturating_sub(used.0) >= ms;
        let over: Vec<u16> = self.mappings.iter().filter(|(_, mapping)| is_over(mapping.used)).map(|(port, _)| *port).collect();
        over.into_iter().for_each(|port| self.remove(port));
        self.mappings.values_mut().for_each(|mapping| mapping.let_in.retain(|_, used| !is_over(*used)));
    }

    /// Whether an outside endpoint stands for somebody.
    pub fn is_mapped(&self, port: u16) -> bool {
        self.mappings.contains_key(&port)
    }

    /// Gives `port` to nobody: it can't be used.
    pub fn reserve(&mut self, port: u16) {
        if self.reserved.len() >= MAX_RESERVED {
            self.reserved.clear();
        }
        self.reserved.insert(port);
        self.remove(port);
    }

    fn is_free(&self, port: u16) -> bool {
        !self.is_mapped(port) && !self.reserved.contains(&port)
    }

    fn remove(&mut self, port: u16) {
        if let Some(Mapping { inside, remote, .. }) = self.mappings.remove(&port) {
            self.ports.remove(&(inside, remote));
        }
    }

    fn map(&mut self, key: (SocketAddr, Remote), now: UnixMillis, chance: u64) -> Result<u16, Refusal> {
        if self.mappings.len() >= MAX_MAPPINGS {
            return Err(Refusal::Full);
        }
        let (inside, remote) = key;
        let span = u64::from(u16::MAX - FIRST_PORT) + 1;
        // Less than the span, which fits.
        let any = FIRST_PORT + u16::try_from(chance % span).unwrap_or_default();
        let first = match self.behaviour.ports {
            Ports::Kept if self.is_free(inside.port()) => inside.port(),
            Ports::Kept | Ports::Random => any,
        };
        // No two share a port (REQ-3), and there are more than mappings.
        let in_turn = std::iter::once(first).chain(first..=u16::MAX).chain(FIRST_PORT..first);
        let port = in_turn.into_iter().find(|port| self.is_free(*port)).ok_or(Refusal::Full)?;
        self.ports.insert(key, port);
        self.mappings.insert(port, Mapping { inside, remote, let_in: BTreeMap::new(), used: now, is_forwarded: false });
        Ok(port)
    }
}

impl Mapping {
    fn lets_in(&mut self, remote: Remote, now: UnixMillis) {
        if self.let_in.len() >= MAX_REMOTES
            && !self.let_in.contains_key(&remote)
            && let Some(oldest) = self.let_in.iter().min_by_key(|(_, used)| **used).map(|(remote, _)| *remote)
        {
            self.let_in.remove(&oldest);
        }
        self.let_in.insert(remote, now);
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
