//! Whom to dial, and when; and which addresses are worth keeping. Pure.
//!
//! A node wants a few neighbours ([`TARGET`]). While it has none it dials its seeds again and again, after 500 ms, then ever
//! later, at most every 30 s, spread by chance so that a restarted bootstrap node is not hit by all at once. While it has some,
//! but too few, it looks around in the DHT, less often.

use infernet_wire::time::UnixMillis;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Neighbours wanted: gossipsub's mesh takes six, two are spare.
const TARGET: usize = 8;
/// First pause between rounds without any peer.
const FIRST_PAUSE_MS: u64 = 500;
/// Longest pause between rounds.
const LONGEST_PAUSE_MS: u64 = 30_000;
/// Pause between looks around while there are some peers, but too few.
const LOOK_AROUND_MS: u64 = 10_000;
/// Seeds kept: a peer cache is no phone book.
const MAX_SEEDS: usize = 256;
/// Addresses kept of one peer: v4 and v6, TCP and QUIC, two uplinks.
pub(super) const MAX_ADDRESSES: usize = 8;

/// An address to start from.
#[derive(Debug, Clone)]
struct Seed {
    address: Multiaddr,
    /// Whose it is: from `/p2p/`, or learnt when it answered.
    peer: Option<PeerId>,
}

/// What to do in a round.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Seeds to dial.
    pub(super) dial: Vec<Multiaddr>,
    /// How many more peers are wanted besides: look around in the DHT.
    pub(super) look_for: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Discovery {
    seeds: Vec<Seed>,
    cursor: usize,
    target: usize,
    failures: u32,
    next: UnixMillis,
}

impl Discovery {
    /// Seeds are dialled in this order.
    pub(super) fn new(seeds: impl IntoIterator<Item = Multiaddr>, max_peers: u32) -> Self {
        let target = usize::try_from(max_peers).unwrap_or(TARGET).min(TARGET);
        let seeds = seeds.into_iter().take(MAX_SEEDS).map(|address| Seed { peer: peer_of(&address), address }).collect();
        Discovery { seeds, cursor: 0, target, failures: 0, next: UnixMillis(0) }
    }

    /// When [`Discovery::round`] is due.
    pub(super) fn next(&self) -> UnixMillis {
        self.next
    }

    /// Whether `connected` neighbours are too few.
    pub(super) fn wants_more(&self, connected: usize) -> bool {
        connected < self.target
    }

    /// Asks for a round soon, after the last peer is gone. How soon depends on how often that was so before: a bootstrap node
    /// that is full takes a connection and closes it again.
    pub(super) fn hurry(&mut self, now: UnixMillis, chance: u64) {
        self.next = self.next.min(now.after(spread(self.pause(0), chance)));
    }

    /// Begins with `addresses`, too, and at once. They stand in the queue before others, since those may be of long ago; when the
    /// queue is full its last is left out.
    pub(super) fn told(&mut self, addresses: &[Multiaddr], now: UnixMillis) {
        for address in addresses {
            self.seeds.retain(|seed| seed.address != *address);
        }
        self.seeds.truncate(MAX_SEEDS.saturating_sub(addresses.len()));
        self.cursor = self.cursor.min(self.seeds.len());
        let seeds = addresses.iter().map(|address| Seed { peer: peer_of(address), address: address.clone() });
        self.seeds.splice(self.cursor..self.cursor, seeds);
        self.next = self.next.min(now);
    }

    /// A seed without `/p2p/` answered.
    pub(super) fn answered(&mut self, address: &Multiaddr, peer: PeerId) {
        for seed in self.seeds.iter_mut().filter(|seed| seed.address == *address) {
            seed.peer = Some(peer);
        }
    }

    /// What to do now, with `connected` neighbours; `chance` is a random number.
    pub(super) fn round(
        &mut self,
        connected: usize,
        is_connected: impl Fn(&PeerId) -> bool,
        now: UnixMillis,
        chance: u64,
    ) -> Round {
        self.failures = if connected == 0 { self.failures.saturating_add(1) } else { 0 };
        self.next = now.after(spread(self.pause(connected), chance));
        let wanted = self.target.saturating_sub(connected);
        let dial = self.take_seeds(wanted, is_connected);
        Round { look_for: if connected == 0 { 0 } else { wanted }, dial }
    }

    fn pause(&self, connected: usize) -> u64 {
        match connected {
            0 => (FIRST_PAUSE_MS << self.failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE_MS),
            few if few < self.target => LOOK_AROUND_MS,
            _ => LONGEST_PAUSE_MS,
        }
    }

    fn take_seeds(&mut self, wanted: usize, is_connected: impl Fn(&PeerId) -> bool) -> Vec<Multiaddr> {
        let start = self.cursor;
        self.cursor = (self.cursor + wanted) % self.seeds.len().max(1);
        let in_turn = self.seeds.iter().cycle().skip(start).take(self.seeds.len());
        let free = in_turn.filter(|seed| !seed.peer.as_ref().is_some_and(&is_connected));
        free.take(wanted).map(|seed| seed.address.clone()).collect()
    }
}

/// Between three and five quarters of `ms`.
pub(super) fn spread(ms: u64, chance: u64) -> u64 {
    ms - ms / 4 + chance % (ms / 2).max(1)
}

/// The peer that an address names at its end.
pub(super) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// The relay of a circuit's address; `None` if it is none.
pub(super) fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    let before = address.iter().zip(address.iter().skip(1)).find(|(_, part)| matches!(part, Protocol::P2pCircuit))?;
    if let (Protocol::P2p(relay), _) = before { Some(relay) } else { None }
}

/// From how far away an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// From the same machine.
    Host,
    /// From the same network.
    Site,
    /// From the internet.
    World,
}

/// Whether an address that a peer claims makes sense, seen from where that peer itself is: nobody on the internet can tell us
/// to dial our own loopback or our own network.
pub(super) fn is_usable(claimed: &Multiaddr, remote: &Multiaddr) -> bool {
    let (Some(claimed_reach), Some(remote_reach)) = (reach(claimed), reach(remote)) else { return false };
    claimed_reach >= remote_reach && has_known_transport(claimed)
}

fn has_known_transport(address: &Multiaddr) -> bool {
    let mut parts = address.iter().skip(1);
    match (parts.next(), parts.next()) {
        (Some(Protocol::Tcp(port)), None | Some(Protocol::P2p(_))) => port != 0,
        (Some(Protocol::Udp(port)), Some(Protocol::QuicV1)) => port != 0,
        _ => false,
    }
}

/// Whether all of `addresses` are of this machine alone; not if there are none.
pub(super) fn is_local(addresses: &[Multiaddr]) -> bool {
    !addresses.is_empty() && addresses.iter().all(|address| reach(address) == Some(Reach::Host))
}

/// From how near addresses are taken that an ad names: anybody can sign one, and would have us dial our own machine. Only a test
/// network is all there; who listens nowhere is in one if it begins in one.
pub(super) fn least_of_ads(listen: &[Multiaddr], bootstrap: &[Multiaddr]) -> Reach {
    let own = if listen.is_empty() { bootstrap } else { listen };
    if is_local(own) { Reach::Host } else { Reach::Site }
}

/// Of those, from how near one is dialled that we have not chosen: on our network only if we have peers there.
pub(super) fn least_of_unchosen<'a>(ads: Reach, mut remotes: impl Iterator<Item = &'a Multiaddr>) -> Reach {
    let has_neighbours = remotes.any(|remote| reach(remote) == Some(Reach::Site));
    if ads == Reach::Host || has_neighbours { ads } else { Reach::World }
}

/// `None` if it can't be reached at all, or nobody knows.
pub(super) fn reach(address: &Multiaddr) -> Option<Reach> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => ip_reach(ip.into()),
        Protocol::Ip6(ip) => ip_reach(ip.to_ipv4_mapped().map_or(ip.into(), IpAddr::from)),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) => Some(Reach::World),
        _ => None,
    }
}

fn ip_reach(ip: IpAddr) -> Option<Reach> {
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    let local = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || is_carrier_grade_nat(ip),
        IpAddr::V6(ip) => is_local_v6(ip),
    };
    Some(if ip.is_loopback() {
        Reach::Host
    } else if local {
        Reach::Site
    } else {
        Reach::World
    })
}

/// RFC 6598.
fn is_carrier_grade_nat(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0b1100_0000 == 64
}

/// Unique local (RFC 4193) or link-local (RFC 4291).
fn is_local_v6(ip: Ipv6Addr) -> bool {
    let [first, ..] = ip.segments();
    first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: UnixMillis = UnixMillis(1_000_000);

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn seeds(n: u16) -> Vec<Multiaddr> {
        (0..n).map(|n| address(&format!("/ip4/192.0.2.1/tcp/{}", 1000 + n))).collect()
    }

    #[test]
    fn without_peers_the_pauses_grow_to_a_bound() {
        let mut discovery = Discovery::new(seeds(1), 128);
        let pauses: Vec<u64> = (0..12)
            .map(|_| {
                assert_eq!(discovery.round(0, |_| false, T0, 0).dial.len(), 1);
                discovery.next().since(T0)
            })
            .collect();
        assert_eq!(pauses[..4], [375, 750, 1_500, 3_000]);
        assert_eq!(pauses[11], 22_500);
        for chance in 0..100_000 {
            let ms = spread(30_000, chance * 7);
            assert!((22_500..=37_500).contains(&ms), "{ms}");
        }
    }

    #[test]
    fn a_lost_peer_is_sought_soon_but_a_full_one_is_not_pestered() {
        let mut discovery = Discovery::new(seeds(1), 128);
        discovery.round(8, |_| false, T0, 0);
        discovery.hurry(T0, 0);
        assert_eq!(discovery.next().since(T0), 375);
        (0..12).for_each(|_| drop(discovery.round(0, |_| false, T0, 0)));
        discovery.hurry(T0, 0);
        assert_eq!(discovery.next().since(T0), 22_500);
    }

    #[test]
    fn a_small_node_stays_small() {
        let mut discovery = Discovery::new(seeds(10), 3);
        assert_eq!(discovery.round(0, |_| false, T0, 0).dial.len(), 3);
        assert_eq!(discovery.round(2, |_| false, T0, 0), Round { dial: vec![seeds(4)[3].clone()], look_for: 1 });
        assert_eq!(discovery.round(3, |_| false, T0, 0), Round::default());
    }

    #[test]
    fn a_connected_seed_is_not_dialled_again() {
        let mut discovery = Discovery::new(seeds(1), 8);
        let peer = PeerId::from_bytes(&NODE.to_peer_id_bytes()).unwrap();
        discovery.answered(&seeds(1)[0], peer);
        assert!(discovery.round(1, |p| *p == peer, T0, 0).dial.is_empty());
        assert_eq!(discovery.round(1, |_| false, T0, 0).dial.len(), 1);
    }

    #[test]
    fn who_is_told_later_is_dialled_before_those_who_waited_and_once() {
        let mut discovery = Discovery::new(seeds(300), 128);
        discovery.round(0, |_| false, T0, 0);
        let told = [address("/ip4/192.0.2.9/tcp/1"), address("/ip4/192.0.2.9/tcp/2")];
        for _ in 0..3 {
            discovery.told(&told, T0);
            assert_eq!(discovery.next(), T0);
            assert_eq!(discovery.seeds.len(), MAX_SEEDS);
            let dialled = discovery.round(0, |_| false, T0, 0).dial;
            assert_eq!((&dialled[..2], dialled.len()), (&told[..], 8));
        }
        let mut alone = Discovery::new([], 128);
        alone.told(&told, T0);
        assert_eq!(alone.round(0, |_| false, T0, 0).dial, told);
    }

    const NODE: infernet_wire::id::NodeId = infernet_wire::id::NodeId([2; 33]);

    fn check(claimed: &str, remote: &str, expected: bool) {
        assert_eq!(is_usable(&address(claimed), &address(remote)), expected, "{claimed} from {remote}");
    }

    #[test]
    fn addresses_are_believed_as_far_as_their_owner_is_near() {
        let (world, site, host) = ("/ip4/198.51.100.7/tcp/1", "/ip4/10.0.0.7/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1");
        for (remote, expected) in [(world, [true, false, false]), (site, [true, true, false]), (host, [true; 3])] {
            for (claimed, expected) in [world, site, host].into_iter().zip(expected) {
                check(claimed, remote, expected);
            }
        }
        check("/ip6/::ffff:127.0.0.1/tcp/1", world, false);
        check("/ip6/fe80::1/tcp/1", world, false);
        check("/ip4/100.64.0.1/tcp/1", world, false);
        check("/dns4/example.org/udp/46338/quic-v1", world, true);
        check("/ip4/0.0.0.0/tcp/1", host, false);
        check("/ip4/198.51.100.7/tcp/0", world, false);
        check("/ip4/198.51.100.7/udp/1", world, false);
        check("/ip4/198.51.100.7/tcp/1/ws", world, false);
    }

    #[test]
    fn an_ad_sends_nobody_to_its_own_machine_nor_to_a_network_where_it_has_no_peers() {
        let (world, site, host) = ("/ip4/198.51.100.7/tcp/1", "/ip4/10.0.0.7/tcp/1", "/ip4/127.0.0.1/tcp/1");
        let list = |texts: &[&str]| texts.iter().map(|text| address(text)).collect::<Vec<_>>();
        let least = |listen: &[&str], bootstrap: &[&str]| least_of_ads(&list(listen), &list(bootstrap));
        assert_eq!(least(&["/ip4/0.0.0.0/tcp/1", host], &[host]), Reach::Site);
        assert_eq!(least(&[], &[host, world]), Reach::Site);
        assert_eq!(least(&[], &[]), Reach::Site);
        assert_eq!(least(&[host], &[world]), Reach::Host, "a test network");
        assert_eq!(least(&[], &[host]), Reach::Host, "a leaf of one");
        let unchosen = |ads, remotes: &[&str]| least_of_unchosen(ads, list(remotes).iter());
        assert_eq!(unchosen(Reach::Site, &[world, host]), Reach::World);
        assert_eq!(unchosen(Reach::Site, &[world, site]), Reach::Site);
        assert_eq!(unchosen(Reach::Host, &[]), Reach::Host);
    }
}
