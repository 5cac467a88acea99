//! An internet in this process, for machines that refuse namespaces: the real programs as processes on loopback, and NATs between them.
//!
//! | file | idea |
//! |---|---|
//! | [`table`] | what a NAT remembers and whom it lets in (RFC 4787), pure |
//! | [`meet`] | who can reach whom directly, from the tables alone |
//! | `router` | sockets around the tables |
//! | `owner` | whose a socket is that is bound to no address |
//!
//! **How a datagram travels.** Each host has an *inside* address, where its programs listen, and an *outside* address, where this
//! process listens; both are of 127.0.0.0/8. Hosts are told to hide their inside addresses (`--hide-address`), so they know each other by
//! outside endpoints alone, and whatever they send comes here. The sender's table says where it seems to come from; a socket is
//! bound there; the receiver's table says whether it gets in; from that socket it goes on to the receiver's inside endpoint, and what
//! is sent back there comes here again. The programs have no switch for this: QUIC, identify, AutoNAT, relays, hole punching and chat
//! run as they are.
//!
//! An *open* host is one of a cloud, whose outside address is another than its own (1:1) and whose operator says so
//! (`--external-address`, `--chat-advertise`).
//!
//! **What it can't show:** TCP, of which these nodes have none; IPv6, UPnP, fragments and ICMP; a host that changes its own address: here
//! its NAT gets another outside address and forgets everything, which its peers see in the same way; a datagram to an outside port
//! that nobody has, other than those that programs listen on, which does not come here and so opens nothing in its sender's NAT. It needs Linux, where all of
//! 127.0.0.0/8 is there, and `/proc`.

pub mod meet;
mod owner;
mod router;
pub mod table;

use super::kind::NatKind;
use router::{Order, Router};
use serde::Serialize;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};
use table::{Behaviour, Dependence, Ports};
use tokio::sync::{mpsc, oneshot};

/// As long as the NATs of the namespaces do.
const REMEMBERS_MS: u64 = 60_000;
/// UDP ports of each host: of the mesh and of chat. Others than those of `infernet`, which may run here on all addresses.
const MESH_PORT: u16 = 26_338;
const CHAT_PORT: u16 = 26_337;
/// All of them.
const PORTS: [u16; 2] = [MESH_PORT, CHAT_PORT];
/// Whoever has this port of an internet has the internet.
const CLAIM: (u8, u8, u16) = (255, 254, 26_336);
/// Internets on one machine: second octets, without the one that everything else uses.
const WORLDS: u8 = 250;
/// Hosts of an internet; inside addresses are so far above outside ones.
const MAX_HOSTS: u8 = 100;
/// Orders that wait; there is one caller.
const ORDERS: usize = 16;

/// The model can't run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No sockets.
    #[error("no NAT model here: {0}; it needs Linux, where all of 127.0.0.0/8 is there")]
    Socket(#[from] io::Error),
    /// All are taken.
    #[error(
        "no NAT model here: all {WORLDS} loopback networks are taken, or none is there; it needs Linux, where all of 127.0.0.0/8 is"
    )]
    NoWorld,
    /// Too many.
    #[error("the NAT model has {MAX_HOSTS} hosts, which is all it can have")]
    Full,
    /// Its task has ended.
    #[error("the NAT model has ended")]
    Ended,
}

impl NatKind {
    /// What the NAT does; that of an open host passes on everything.
    pub fn behaviour(self) -> Behaviour {
        let (mapping, filtering, ports) = match self {
            NatKind::Open | NatKind::EndpointIndependent => {
                (Dependence::EndpointIndependent, Dependence::EndpointIndependent, Ports::Kept)
            }
            NatKind::AddressDependent => (Dependence::EndpointIndependent, Dependence::AddressDependent, Ports::Kept),
            NatKind::Symmetric => (Dependence::AddressAndPortDependent, Dependence::AddressAndPortDependent, Ports::Random),
        };
        Behaviour { mapping, filtering, ports, hairpins: false, inbound_refreshes: true, remembers_ms: REMEMBERS_MS }
    }
}

/// What became of datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Let in.
    pub passed: u64,
    /// Nobody had that port.
    pub unmapped: u64,
    /// Its host had not sent there.
    pub filtered: u64,
    /// Its own host sent it.
    pub hairpin: u64,
    /// No mapping was free.
    pub full: u64,
    /// Lost, as it was told to.
    pub lost: u64,
    /// Too long, or too many under way.
    pub dropped: u64,
    /// From a program that nobody told of.
    pub unknown: u64,
    /// A socket could not be bound, or did not send.
    pub failed: u64,
}

/// The addresses of an internet: 127.`0`.x.y.
#[derive(Debug, Clone, Copy)]
struct World(u8);

impl World {
    /// One that nobody else on this machine uses, for as long as the socket is open.
    fn claim() -> Result<(World, UdpSocket), ModelError> {
        let [any] = infernet_node::clock::random();
        let worlds = (0..WORLDS).map(|n| World(2 + any.wrapping_add(n) % WORLDS));
        let (a, b, port) = CLAIM;
        let mut claims = worlds.filter_map(|world| Some((world, UdpSocket::bind((world.at(a, b), port)).ok()?)));
        claims.next().ok_or(ModelError::NoWorld)
    }

    fn at(self, a: u8, b: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, a, b)
    }

    fn inside(self, host: u8) -> Ipv4Addr {
        self.at(MAX_HOSTS + host, 2)
    }

    /// In a /24 of its own, as a relay's limits expect of strangers; `moves` times it has got another.
    fn outside(self, host: u8, moves: u8) -> Ipv4Addr {
        self.at(host, 1 + moves)
    }

    /// The host whose inside address this is.
    fn host(self, inside: Ipv4Addr) -> Option<u8> {
        let [_, _, a, _] = inside.octets();
        a.checked_sub(MAX_HOSTS).filter(|host| self.inside(*host) == inside)
    }
}

/// See the module. It ends when dropped.
#[derive(Debug)]
pub struct Model {
    world: World,
    hosts: u8,
    orders: mpsc::Sender<Order>,
    _claim: UdpSocket,
}

impl Model {
    /// Nobody is on it yet. A datagram takes `delay` from one host to another.
    pub fn new(delay: Duration) -> Result<Self, ModelError> {
        let (world, claim) = World::claim()?;
        let (orders, received) = mpsc::channel(ORDERS);
        tokio::spawn(Router::new(world, delay).run(received));
        Ok(Model { world, hosts: 0, orders, _claim: claim })
    }

    /// A new host behind a NAT of this kind.
    pub async fn host(&mut self, kind: NatKind) -> Result<Host, ModelError> {
        if self.hosts >= MAX_HOSTS {
            return Err(ModelError::Full);
        }
        self.hosts += 1;
        let host = Host { n: self.hosts, kind, world: self.world, moves: 0, orders: self.orders.clone() };
        let forwards = kind == NatKind::Open;
        ask(&self.orders, |reply| Order::Add { host: host.n, behaviour: kind.behaviour(), forwards, reply }).await??;
        Ok(host)
    }

    /// What became of all datagrams so far.
    pub async fn tally(&self) -> Result<Tally, ModelError> {
        ask(&self.orders, Order::Tally).await
    }
}

async fn ask<T>(orders: &mpsc::Sender<Order>, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, ModelError> {
    let (reply, answer) = oneshot::channel();
    orders.send(order(reply)).await.map_err(|_| ModelError::Ended)?;
    answer.await.map_err(|_| ModelError::Ended)
}

/// A host, and the NAT before it.
#[derive(Debug)]
pub struct Host {
    n: u8,
    kind: NatKind,
    world: World,
    moves: u8,
    orders: mpsc::Sender<Order>,
}

impl Host {
    /// How a program is told where it is.
    pub fn mesh_flags(&self) -> Vec<String> {
        let inside = self.world.inside(self.n);
        let mut flags = vec!["--listen".into(), quic(inside), "--hide-address".into(), inside.to_string()];
        if self.kind == NatKind::Open {
            flags.extend(["--external-address".into(), self.mesh_address()]);
        }
        flags
    }

    /// The same of a node's chat.
    pub fn chat_flags(&self) -> Vec<String> {
        let mut flags = vec!["--chat-listen".into(), SocketAddr::from((self.world.inside(self.n), CHAT_PORT)).to_string()];
        if self.kind == NatKind::Open {
            let outside = SocketAddr::from((self.world.outside(self.n, self.moves), CHAT_PORT));
            flags.extend(["--chat-advertise".into(), outside.to_string()]);
        }
        flags
    }

    /// Where an open host's mesh is, for others.
    pub fn mesh_address(&self) -> String {
        quic(self.world.outside(self.n, self.moves))
    }

    /// This process is one of its programs.
    pub async fn runs(&self, pid: u32) -> Result<(), ModelError> {
        self.orders.send(Order::Runs { host: self.n, pid }).await.map_err(|_| ModelError::Ended)
    }

    /// Loses `permille` of a thousand of its datagrams, in both directions, from now on.
    pub async fn lose(&self, permille: u16) -> Result<(), ModelError> {
        self.orders.send(Order::Lose { host: self.n, permille }).await.map_err(|_| ModelError::Ended)
    }

    /// Its NAT gets another outside address and forgets everything. A host without a NAT stays.
    pub async fn move_elsewhere(&mut self) -> Result<(), ModelError> {
        if self.kind == NatKind::Open {
            return Ok(());
        }
        self.moves = self.moves.saturating_add(1);
        self.orders.send(Order::Move { host: self.n, moves: self.moves }).await.map_err(|_| ModelError::Ended)
    }
}

fn quic(ip: Ipv4Addr) -> String {
    format!("/ip4/{ip}/udp/{MESH_PORT}/quic-v1")
}

#[cfg(test)]
#[path = "model/tests.rs"]
mod tests;
