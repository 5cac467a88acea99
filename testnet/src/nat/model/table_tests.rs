//! Each row of RFC 4787 that the table models.

use super::*;
use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

const T0: UnixMillis = UnixMillis(1_000_000);
const MINUTE: u64 = 60_000;
/// A host.
const X: &str = "192.168.0.2:46337";
/// The hosts Y1 and Y2 of RFC 4787 §4.1, and ports of theirs.
const Y1: &str = "198.18.1.1:1000";
const Y1_OTHER_PORT: &str = "198.18.1.1:2000";
const Y2: &str = "198.18.2.1:1000";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn behaviour(mapping: Dependence, filtering: Dependence) -> Behaviour {
    Behaviour { mapping, filtering, ports: Ports::Kept, hairpins: false, inbound_refreshes: false, remembers_ms: MINUTE }
}

fn table(behaviour: Behaviour) -> Table {
    Table::new(behaviour, "203.0.113.1".parse().unwrap())
}

/// Whether sending to `other` after [`Y1`] gives the same outside endpoint.
fn is_reused(mapping: Dependence, ports: Ports, other: &str) -> bool {
    let mut table = table(Behaviour { ports, ..behaviour(mapping, EndpointIndependent) });
    let first = table.outbound(at(X), at(Y1), T0, 7).unwrap();
    assert_eq!(table.outbound(at(X), at(Y1), T0, 8), Ok(first), "towards one endpoint it always is");
    table.outbound(at(X), at(other), T0, 9).unwrap() == first
}

#[test]
fn mapping_endpoint_independent_is_reused_for_everybody() {
    for ports in [Ports::Kept, Ports::Random] {
        assert!(is_reused(EndpointIndependent, ports, Y1_OTHER_PORT));
        assert!(is_reused(EndpointIndependent, ports, Y2));
    }
}

#[test]
fn mapping_address_dependent_is_reused_for_one_address() {
    for ports in [Ports::Kept, Ports::Random] {
        assert!(is_reused(AddressDependent, ports, Y1_OTHER_PORT));
        assert!(!is_reused(AddressDependent, ports, Y2));
    }
}

#[test]
fn mapping_address_and_port_dependent_is_reused_for_one_endpoint() {
    for ports in [Ports::Kept, Ports::Random] {
        assert!(!is_reused(AddressAndPortDependent, ports, Y1_OTHER_PORT));
        assert!(!is_reused(AddressAndPortDependent, ports, Y2));
    }
}

/// Who gets in at the endpoint that X has, after it has sent to [`Y1`].
fn let_in(filtering: Dependence) -> [Result<SocketAddr, Refusal>; 3] {
    let mut table = table(behaviour(EndpointIndependent, filtering));
    let outside = table.outbound(at(X), at(Y1), T0, 0).unwrap();
    [Y1, Y1_OTHER_PORT, Y2].map(|from| table.inbound(outside.port(), at(from), T0))
}

#[test]
fn filtering_lets_in_by_nothing_by_address_or_by_endpoint() {
    let (in_, out) = (Ok(at(X)), Err(Refusal::Filtered));
    assert_eq!(let_in(EndpointIndependent), [in_, in_, in_]);
    assert_eq!(let_in(AddressDependent), [in_, in_, out]);
    assert_eq!(let_in(AddressAndPortDependent), [in_, out, out]);
}

#[test]
fn nobody_gets_in_where_nobody_has_sent_from() {
    let mut table = table(behaviour(EndpointIndependent, EndpointIndependent));
    assert_eq!(table.inbound(46337, at(Y1), T0), Err(Refusal::Unmapped));
}

#[test]
fn a_port_is_kept_unless_another_host_has_it_and_never_shared() {
    let mut table = table(behaviour(EndpointIndependent, EndpointIndependent));
    let first = table.outbound(at(X), at(Y1), T0, 5).unwrap();
    assert_eq!(first, at("203.0.113.1:46337"));
    let mut given = vec![first];
    for n in 3..100 {
        let neighbour = at(&format!("192.168.0.{n}:46337"));
        // The same chance again and again.
        given.push(table.outbound(neighbour, at(Y1), T0, 5).unwrap());
        let inside = table.inbound(given.last().unwrap().port(), at(Y2), T0);
        assert_eq!(inside, Ok(neighbour), "what comes there is for it");
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 98);
}

#[test]
fn a_reserved_port_is_nobody_s() {
    let mut table = table(behaviour(EndpointIndependent, EndpointIndependent));
    let port = table.outbound(at(X), at(Y1), T0, 5).unwrap().port();
    table.reserve(port);
    assert_eq!(table.inbound(port, at(Y1), T0), Err(Refusal::Unmapped));
    assert_eq!(table.outbound(at(X), at(Y1), T0, 5).unwrap().port(), FIRST_PORT + 5);
}

#[test]
fn random_ports_say_nothing_about_the_host_and_wrap_around() {
    let mut table = table(Behaviour { ports: Ports::Random, ..behaviour(AddressAndPortDependent, AddressAndPortDependent) });
    let last = u64::from(u16::MAX - FIRST_PORT);
    assert_eq!(table.outbound(at(X), at(Y1), T0, last).unwrap().port(), u16::MAX);
    assert_eq!(table.outbound(at(X), at(Y2), T0, last).unwrap().port(), FIRST_PORT);
    assert_eq!(table.outbound(at(X), at(Y1_OTHER_PORT), T0, last + 1).unwrap().port(), FIRST_PORT + 1);
}

#[test]
fn a_mapping_is_forgotten_after_its_time_and_its_port_is_free_again() {
    let mut table = table(behaviour(EndpointIndependent, EndpointIndependent));
    let port = table.outbound(at(X), at(Y1), T0, 0).unwrap().port();
    assert!(table.inbound(port, at(Y2), T0.after(MINUTE - 1)).is_ok());
    assert_eq!(table.inbound(port, at(Y2), T0.after(MINUTE)), Err(Refusal::Unmapped));
    assert!(!table.is_mapped(port) && table.ports.is_empty());
}

#[test]
fn what_goes_out_refreshes_and_what_comes_in_only_where_it_is_said_to() {
    for (inbound_refreshes, expected) in [(true, Ok(at(X))), (false, Err(Refusal::Unmapped))] {
        let mut table = table(Behaviour { inbound_refreshes, ..behaviour(EndpointIndependent, AddressDependent) });
        let port = table.outbound(at(X), at(Y1), T0, 0).unwrap().port();
        table.outbound(at(X), at(Y1), T0.after(MINUTE - 1), 0).unwrap();
        assert!(table.inbound(port, at(Y1), T0.after(2 * MINUTE - 2)).is_ok(), "it was refreshed by what went out");
        assert_eq!(table.inbound(port, at(Y1), T0.after(3 * MINUTE - 3)), expected);
    }
}

#[test]
fn whom_it_lets_in_is_forgotten_one_by_one() {
    let mut table = table(behaviour(EndpointIndependent, AddressDependent));
    let port = table.outbound(at(X), at(Y1), T0, 0).unwrap().port();
    let later = T0.after(MINUTE - 1);
    table.outbound(at(X), at(Y2), later, 0).unwrap();
    let end = T0.after(MINUTE);
    assert_eq!(table.inbound(port, at(Y1), end), Err(Refusal::Filtered));
    assert_eq!(table.inbound(port, at(Y2), end), Ok(at(X)), "the mapping stays");
}

#[test]
fn hairpinning_shows_the_outside_endpoint_or_is_refused() {
    let neighbour = at("192.168.0.3:5000");
    for (hairpins, expected) in [(true, Ok(at(X))), (false, Err(Refusal::Hairpin))] {
        let mut table = table(Behaviour { hairpins, ..behaviour(EndpointIndependent, EndpointIndependent) });
        let outside = table.outbound(at(X), at(Y1), T0, 0).unwrap();
        let seen = table.outbound(neighbour, outside, T0, 0).unwrap();
        assert_eq!(seen.ip(), outside.ip(), "external source IP address and port, REQ-9");
        assert_eq!(table.inbound(outside.port(), seen, T0), expected);
    }
}

#[test]
fn a_forwarded_port_lets_in_everybody_for_good_and_is_what_its_host_seems_to_be() {
    let mut table = table(behaviour(EndpointIndependent, AddressAndPortDependent));
    let outside = table.forward(at(X));
    let much_later = T0.after(1_000 * MINUTE);
    assert_eq!(table.inbound(outside.port(), at(Y1), much_later), Ok(at(X)));
    assert_eq!(table.outbound(at(X), at(Y2), much_later, 9), Ok(outside));
    assert_eq!(table.inbound(outside.port(), at(Y1), much_later.after(1_000 * MINUTE)), Ok(at(X)));
}

#[test]
fn nothing_grows_without_bound() {
    let mut table = table(behaviour(AddressAndPortDependent, AddressAndPortDependent));
    let remote = |n: usize| SocketAddr::new("198.18.0.1".parse().unwrap(), u16::try_from(n + 1).unwrap());
    for n in 0..MAX_MAPPINGS {
        table.outbound(at(X), remote(n), T0, n as u64).unwrap();
    }
    assert_eq!(table.outbound(at(X), remote(MAX_MAPPINGS), T0, 0), Err(Refusal::Full));
    assert!(table.outbound(at(X), remote(0), T0, 0).is_ok(), "who has one keeps it");
    assert!(table.outbound(at(X), remote(MAX_MAPPINGS), T0.after(MINUTE), 0).is_ok(), "later there is room");
    let mut table = self::table(behaviour(EndpointIndependent, AddressAndPortDependent));
    let port =
        (0..=MAX_REMOTES).map(|n| table.outbound(at(X), remote(n), T0.after(n as u64), 0).unwrap().port()).max().unwrap();
    let end = T0.after(MAX_REMOTES as u64);
    assert_eq!(table.inbound(port, remote(0), end), Err(Refusal::Filtered), "the one sent to longest ago");
    assert!(table.inbound(port, remote(1), end).is_ok());
}
