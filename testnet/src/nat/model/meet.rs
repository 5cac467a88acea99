//! Who can reach whom directly: what the tables alone say, to compare with what nodes find.
//!
//! Both hosts have sent to a relay, which tells each where the other seems to be. Then both send there, again and again (RFC 5128 §3.3).
//! They meet if one of them hears the other and its answer is heard.

use super::table::Table;
use crate::nat::kind::NatKind;
use infernet_wire::time::UnixMillis;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// When it happens does not matter.
const NOW: UnixMillis = UnixMillis(0);
/// Rounds: the first opens what the second needs.
const ROUNDS: u64 = 3;

struct Side {
    table: Table,
    inside: SocketAddr,
    /// Where the other seems to be.
    other: SocketAddr,
}

impl Side {
    fn new(n: u8, kind: NatKind) -> Self {
        let host = |n: u8, last: u8| SocketAddr::from((Ipv4Addr::new(198, 18, n, last), 46_338));
        let outside = IpAddr::from(Ipv4Addr::new(198, 18, n, 1));
        let mut table = Table::new(kind.behaviour(), outside);
        let inside = host(n, 2);
        if kind == NatKind::Open {
            table.forward(inside);
        }
        Side { table, inside, other: host(0, 1) }
    }

    /// Sends to where the other is thought to be.
    fn send(&mut self, chance: u64) -> Option<(SocketAddr, SocketAddr)> {
        let to = self.other;
        Some((self.table.outbound(self.inside, to, NOW, chance).ok()?, to))
    }

    /// Whether it hears that; it answers to where it came from.
    fn hears(&mut self, (from, to): (SocketAddr, SocketAddr)) -> bool {
        let heard = to.ip() == self.table.outside() && self.table.inbound(to.port(), from, NOW).is_ok();
        if heard {
            self.other = from;
        }
        heard
    }
}

/// Whether two hosts behind NATs of these kinds can meet, each knowing where a relay sees the other.
pub fn can_meet(one: NatKind, another: NatKind) -> bool {
    let (mut a, mut b) = (Side::new(1, one), Side::new(2, another));
    let (Some((a_seen, _)), Some((b_seen, _))) = (a.send(101), b.send(202)) else { return false };
    (a.other, b.other) = (b_seen, a_seen);
    (0..ROUNDS).any(|round| {
        let chance = 1_000 + 10 * round;
        let forth = a.send(chance).is_some_and(|sent| b.hears(sent));
        let back = b.send(chance + 5).is_some_and(|sent| a.hears(sent));
        forth && back
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_meet_but_symmetric_ones() {
        for one in NatKind::ALL {
            for another in NatKind::ALL {
                let expected = (one, another) != (NatKind::Symmetric, NatKind::Symmetric);
                assert_eq!(can_meet(one, another), expected, "{one} and {another}");
            }
        }
    }
}
