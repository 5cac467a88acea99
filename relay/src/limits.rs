//! What one peer, one network and all together may take, and why.
//!
//! rust-libp2p's own relay ends a circuit after 128 KiB or two minutes, whatever happens on it: enough to punch a hole, deadly for
//! an answer of a language model. Raised limits would not do, since there a circuit's end does not depend on whether anything
//! flows, and whoever sends most gets most. So this relay speaks the same protocol and carries the bytes itself.
//!
//! | limit | default | why |
//! |---|---|---|
//! | time of a circuit | none | an answer takes as long as it takes |
//! | bytes of a circuit | none | an answer is as long as it is |
//! | `idle` | 120 s without a byte | libp2p pings every 15 s: after eight missed ones nobody is there |
//! | `rate` | 12.5 MB/s, both directions of all circuits | 100 Mbit/s, what a small machine has. Fair turns need a bound that is reached here, not in the provider's queue: set it to a little less than your uplink |
//! | turns | 16 KiB a turn, peers in rotation | whoever opened a circuit gets turns for it, as many as any other; peers that send little go first, so that a token does not wait behind a file |
//! | `quota` | 20 GiB a day of who opens circuits | two months of tokens at 100/s, two films. Nothing is cut: what runs goes on at `slow-rate`, new circuits are refused until the day is over |
//! | `slow-rate` | 16 KB/s of each circuit, each way | 100 tokens a second with their frames |
//! | requests | 1 024 at once, 16 of a connection, fewer when many are taken | all that had a reservation ask again after a restart; who opens streams and says nothing leaves room for others; see `hop` |
//! | `reservations` | 1 024 | 64 kB of connection each, measured, and more while it is used: 100 MB |
//! | `reservations-per-prefix` | 32 | an office or a small provider's customers; a farm of keys behind one address gets no more |
//! | `reservation` | 600 s | renewed at 450 s, before a connection without streams would be closed |
//! | `circuits` | 512 | two buffers of 16 KiB each, and at most as much as two windows of a stream: 272 MB if all readers stall |
//! | `circuits-per-source` | 16 | a buyer's jobs share one circuit to each worker |
//! | `circuits-per-target` | 64 | a busy worker's buyers |
//! | `circuits-per-prefix` | 64 | as reservations, for those who open |
//! | `peers` | 2 048 | connections in all, beside reservations those of buyers |
//!
//! A prefix is a /24 of IPv4, a /48 of IPv6: what one customer usually has at most.

use std::{net::IpAddr, time::Duration};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// After so long without a byte in either direction a circuit ends.
    pub idle: Duration,
    /// Bytes a second of all circuits; 0: no bound.
    pub rate: u64,
    /// Bytes a day of whoever opens circuits; 0: no bound.
    pub quota: u64,
    /// Bytes a second, each way, of each circuit of a peer whose quota is spent.
    pub slow_rate: u64,
    /// Reservations at once.
    pub reservations: usize,
    /// Reservations of one prefix.
    pub reservations_per_prefix: usize,
    /// How long a reservation lasts unless renewed.
    pub reservation: Duration,
    /// Circuits at once.
    pub circuits: usize,
    /// Circuits that one peer has opened.
    pub circuits_per_source: usize,
    /// Circuits to one peer.
    pub circuits_per_target: usize,
    /// Circuits that the peers of one prefix have opened.
    pub circuits_per_prefix: usize,
    /// Connections.
    pub peers: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            idle: Duration::from_secs(120),
            rate: 12_500_000,
            quota: 20 << 30,
            slow_rate: 16_000,
            reservations: 1_024,
            reservations_per_prefix: 32,
            reservation: Duration::from_secs(600),
            circuits: 512,
            circuits_per_source: 16,
            circuits_per_target: 64,
            circuits_per_prefix: 64,
            peers: 2_048,
        }
    }
}

/// A /24 or a /48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prefix {
    /// The first three bytes of an IPv4 address.
    V4([u8; 3]),
    /// The first three groups of an IPv6 address.
    V6([u16; 3]),
}

impl Prefix {
    /// The prefix of an address; of an IPv4 address in IPv6's clothes, IPv4's.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Prefix::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments();
                Prefix::V6([a, b, c])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_what_one_customer_has() {
        let prefix = |text: &str| Prefix::of(text.parse().expect("an address"));
        assert_eq!(prefix("192.0.2.1"), prefix("192.0.2.200"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.3.1"));
        assert_eq!(prefix("::ffff:192.0.2.1"), prefix("192.0.2.9"));
        assert_eq!(prefix("2001:db8:1:2::1"), prefix("2001:db8:1:9::1"));
        assert_ne!(prefix("2001:db8:1::1"), prefix("2001:db8:2::1"));
    }
}
