//! What stands between a host and the internet, by what it does with UDP and TCP ports (RFC 4787, RFC 5382).

use clap::ValueEnum;
use serde::Serialize;
use std::fmt;

/// How long a NAT remembers a port without traffic: RFC 4787 asks for two minutes at least, many have less.
const REMEMBERS_SECS: u32 = 60;
/// Ports that a NAT remembers.
const PORTS: u32 = 4_096;

/// A kind of NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum NatKind {
    /// None: the host has an address of its own.
    Open,
    /// One outer port for each inner one, and whoever knows it may use it ("full cone").
    EndpointIndependent,
    /// One outer port for each inner one, for those addresses that the host has sent to ("restricted cone").
    AddressDependent,
    /// Another outer port for each destination, and only for that ("symmetric").
    Symmetric,
}

impl NatKind {
    /// All of them, the easiest first.
    pub const ALL: [NatKind; 4] = [NatKind::Open, NatKind::EndpointIndependent, NatKind::AddressDependent, NatKind::Symmetric];

    /// A short stable name.
    pub fn label(self) -> &'static str {
        match self {
            NatKind::Open => "open",
            NatKind::EndpointIndependent => "endpoint-independent",
            NatKind::AddressDependent => "address-dependent",
            NatKind::Symmetric => "symmetric",
        }
    }

    /// What nftables is told on a router with `outer` at its interface `ext`, for the host `inner` behind its interface `int`.
    /// Empty for [`NatKind::Open`], which has no router.
    ///
    /// Linux itself keeps a host's port for every destination and lets in only who was sent to from there; so what differs
    /// is whom else a set lets in, and the ports of the last kind are random. An unasked packet is dropped before it is tracked,
    /// or the answer to it would get another port.
    pub fn rules(self, outer: &str, inner: &str) -> String {
        let (key, update, lookup) = match self {
            NatKind::Open => return String::new(),
            NatKind::EndpointIndependent => {
                ("inet_proto . inet_service", "meta l4proto . th sport", "meta l4proto . th dport @mapped")
            }
            NatKind::AddressDependent => (
                "ipv4_addr . inet_proto . inet_service",
                "ip daddr . meta l4proto . th sport",
                "ip saddr . meta l4proto . th dport @mapped",
            ),
            NatKind::Symmetric => return symmetric(),
        };
        format!(
            "table ip nat {{
  set mapped {{ type {key}; flags dynamic; timeout {REMEMBERS_SECS}s; size {PORTS}; }}
  chain learn {{ type filter hook forward priority mangle; iifname \"int\" meta l4proto {{ tcp, udp }} update @mapped {{ {update} }}; }}
  chain in {{ type nat hook prerouting priority dstnat; iifname \"ext\" {lookup} dnat to {inner}; }}
  chain out {{ type nat hook postrouting priority srcnat; oifname \"ext\" snat to {outer}; }}
  chain unasked {{ type filter hook input priority filter; iifname \"ext\" ct state new drop; }}
}}\n"
        )
    }
}

fn symmetric() -> String {
    "table ip nat {
  chain out { type nat hook postrouting priority srcnat; oifname \"ext\" masquerade random,fully-random; }
  chain unasked { type filter hook input priority filter; iifname \"ext\" ct state new drop; }
}\n"
    .to_owned()
}

impl fmt::Display for NatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}
