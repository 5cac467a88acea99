//! Where a worker says in its ad that it is: of all addresses, those that work.
//!
//! Nobody can try the chat endpoint for us: AutoNAT tries libp2p's own ports. So its address is told where libp2p's is known to work on
//! the same IP address of this machine, where nobody has tried anything yet, as in a network on one machine, and where the operator
//! says so. Everywhere else buyers chat over libp2p, directly or through a relay.

use crate::{
    net::{Mode, Reachability, Reached},
    seller::{Places, Seller},
};
use infernet_wire::{
    capability::{MeshAddress, SocketAddrText},
    limits,
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};
use tokio::sync::watch;

/// What does not change while a node runs.
#[derive(Debug, Clone)]
pub(super) struct Addressing {
    pub(super) mode: Mode,
    /// Where the chat endpoint is bound.
    pub(super) chat: SocketAddr,
    /// Where the operator says that it is reached.
    pub(super) outside: Vec<SocketAddr>,
    /// Addresses of this machine that nobody is told.
    pub(super) hidden: Vec<IpAddr>,
    /// Where libp2p listens.
    pub(super) listening: Vec<Multiaddr>,
}

impl Addressing {
    /// What an ad says.
    pub(super) fn places(&self, reached: &Reached) -> Places {
        let mesh = reached.advertised.iter().filter_map(|address| MeshAddress::new(address.to_string()));
        Places { chat: self.chat(reached), mesh: mesh.take(limits::MAX_ADDRESSES).collect() }
    }

    fn chat(&self, reached: &Reached) -> Vec<SocketAddrText> {
        if !self.mode.listens() {
            return Vec::new();
        }
        let mut all = advertised(self.chat, &self.outside, &self.listening);
        all.retain(|SocketAddrText(address)| !self.hidden.contains(&address.ip()));
        if !self.outside.is_empty() || self.mode == Mode::Direct || reached.state == Reachability::Unknown {
            return all;
        }
        let is_direct = |address: &&Multiaddr| !address.iter().any(|part| part == Protocol::P2pCircuit);
        let work: BTreeSet<IpAddr> = reached.advertised.iter().filter(is_direct).filter_map(ip).collect();
        all.into_iter().filter(|SocketAddrText(address)| work.contains(&address.ip())).collect()
    }
}

/// Tells `seller` whenever that changes, as long as there is a network.
pub(super) async fn follow(addressing: Addressing, mut reached: watch::Receiver<Reached>, seller: Seller) {
    loop {
        let places = addressing.places(&reached.borrow_and_update().clone());
        seller.set_places(places).await;
        if reached.changed().await.is_err() {
            return;
        }
    }
}

/// The addresses that buyers can try: those `outside` that the operator names. Without any, a wildcard stands for the addresses
/// on which libp2p really listens; loopback is named only if there is nothing else, as in a test network on one machine.
fn advertised(chat: SocketAddr, outside: &[SocketAddr], listening: &[Multiaddr]) -> Vec<SocketAddrText> {
    if !outside.is_empty() {
        return outside.iter().take(limits::MAX_ADDRESSES).copied().map(SocketAddrText).collect();
    }
    let ips: BTreeSet<IpAddr> = if chat.ip().is_unspecified() {
        listening.iter().filter_map(ip).filter(|ip| chat.is_ipv6() || ip.is_ipv4()).collect()
    } else {
        [chat.ip()].into()
    };
    let public: Vec<_> = ips.iter().filter(|ip| !ip.is_loopback() && !ip.is_unspecified()).collect();
    let chosen: Vec<_> = if public.is_empty() { ips.iter().collect() } else { public };
    chosen.into_iter().take(limits::MAX_ADDRESSES).map(|ip| SocketAddrText(SocketAddr::new(*ip, chat.port()))).collect()
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|a| a.parse().expect("a multiaddr")).collect()
    }

    fn texts(chat: Vec<SocketAddrText>) -> Vec<String> {
        chat.into_iter().map(String::from).collect()
    }

    fn check(chat: &str, listening: &[&str], expected: &[&str]) {
        let shown = advertised(chat.parse().expect("an address"), &[], &addresses(listening));
        assert_eq!(texts(shown), expected);
    }

    #[test]
    fn the_outside_of_a_mapped_port_is_advertised_alone() {
        let (inside, outside) = ("10.0.0.1:46337".parse().expect("an address"), "203.0.113.7:1".parse().expect("an address"));
        assert_eq!(advertised(inside, &[outside], &[]), [SocketAddrText(outside)]);
    }

    #[test]
    fn wildcards_are_advertised_as_real_addresses() {
        check("192.0.2.1:46337", &["/ip4/10.0.0.1/tcp/1"], &["192.0.2.1:46337"]);
        check(
            "0.0.0.0:46337",
            &["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/1/quic-v1"],
            &["10.0.0.1:46337"],
        );
        check("0.0.0.0:46337", &["/ip4/127.0.0.1/tcp/1"], &["127.0.0.1:46337"]);
        check("[::]:46337", &["/ip6/2001:db8::1/tcp/1", "/ip4/10.0.0.1/tcp/1"], &["10.0.0.1:46337", "[2001:db8::1]:46337"]);
        check("0.0.0.0:46337", &["/ip6/2001:db8::1/tcp/1"], &[]);
    }

    #[test]
    fn the_chat_endpoint_is_told_where_its_address_works_or_nobody_has_tried() {
        let relay = libp2p::PeerId::random();
        let circuit = format!("/ip4/203.0.113.7/tcp/1/p2p/{relay}/p2p-circuit");
        let chat = |mode, state, advertised: &[&str]| {
            let addressing = Addressing {
                mode,
                chat: "0.0.0.0:46337".parse().expect("an address"),
                outside: Vec::new(),
                hidden: vec!["172.17.0.1".parse().expect("an address")],
                listening: addresses(&["/ip4/10.0.0.1/tcp/1", "/ip4/203.0.113.7/tcp/1", "/ip4/172.17.0.1/tcp/1"]),
            };
            let places = addressing.places(&Reached { state, advertised: addresses(advertised), ..Reached::default() });
            assert_eq!(places.mesh.len(), advertised.len());
            texts(places.chat)
        };
        let both = ["10.0.0.1:46337", "203.0.113.7:46337"];
        assert_eq!(chat(Mode::Auto, Reachability::Unknown, &[]), both);
        assert_eq!(chat(Mode::Direct, Reachability::BehindNat, &[]), both);
        assert_eq!(chat(Mode::Auto, Reachability::Open, &["/ip4/203.0.113.7/tcp/1"]), ["203.0.113.7:46337"]);
        assert!(chat(Mode::Auto, Reachability::Mapped, &["/ip4/198.51.100.7/tcp/1"]).is_empty());
        assert!(chat(Mode::Auto, Reachability::BehindNat, &[&circuit]).is_empty());
        assert!(chat(Mode::RelayOnly, Reachability::Unknown, &[&circuit]).is_empty());
    }
}
