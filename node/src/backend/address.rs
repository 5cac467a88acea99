//! Addresses at which clouds tell their machines' secrets, and hosts their neighbours'. Pure.
//!
//! An engine's URL comes from the operator alone, but a name in it is resolved by somebody else. Whoever can make a node ask
//! `169.254.169.254` may read the machine's credentials in the error that comes back (CWE-918), so such addresses need the
//! operator's explicit word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names that clouds give their metadata services.
const METADATA_NAMES: [&str; 5] =
    ["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];
/// Metadata of Alibaba and of Oracle, which are not link-local.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// Metadata of Amazon and of Google over IPv6.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];
/// What NAT64 puts before an IPv4 address (RFC 6052).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Whether it is link-local (RFC 3927, RFC 4291) or a metadata service, written as IPv6 or not.
pub(crate) fn tells_secrets(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local() || METADATA_V4.contains(&ip),
        IpAddr::V6(ip) => {
            let inner = ip.to_ipv4_mapped().or_else(|| behind_nat64(ip));
            ip.is_unicast_link_local() || METADATA_V6.contains(&ip) || inner.is_some_and(|ip| tells_secrets(ip.into()))
        }
    }
}

fn behind_nat64(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [prefix @ .., high, low] = ip.segments();
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    (prefix == NAT64).then_some(Ipv4Addr::new(a, b, c, d))
}

/// Whether it is a metadata service's name.
pub(crate) fn is_metadata_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    METADATA_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}
