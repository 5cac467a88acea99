//! An internet on this machine: a wire that all public addresses are on, and hosts behind NATs of each kind.

use super::{
    kind::NatKind,
    namespace::{Namespace, NamespaceError},
};
use std::{sync::Arc, time::Duration};

/// Public addresses are of the range for benchmarks (RFC 2544), each in a /24 of its own, as a relay's limits expect of strangers.
const PUBLIC: &str = "198.18";
/// The whole of it is one wire.
const PREFIX: u8 = 15;

/// Packets of a host that wait for their delay.
const QUEUE: u32 = 10_000;

/// The wire.
#[derive(Debug)]
pub struct Internet {
    wire: Namespace,
    hosts: u8,
    delay: Duration,
}

/// A host, and what stands before it.
#[derive(Debug)]
pub struct Host {
    /// Where its programs run.
    pub place: Arc<Namespace>,
    /// Its address, as it sees it.
    pub address: String,
    /// The NAT before it; `None` if it has none.
    router: Option<Router>,
}

#[derive(Debug)]
struct Router {
    place: Namespace,
    kind: NatKind,
    public: String,
}

impl Router {
    /// Forgets what it has remembered of others.
    async fn serve(&self, inner: &str) -> Result<(), NamespaceError> {
        self.place.filter(&format!("flush ruleset\n{}", self.kind.rules(&self.public, inner))).await
    }
}

impl Internet {
    /// Nobody is on it yet. A packet takes `delay` from one host to another, if the kernel has netem.
    pub async fn new(delay: Duration) -> Result<Self, NamespaceError> {
        let wire = Namespace::world().await?;
        // So that it fails here, if nftables is missing.
        wire.filter("flush ruleset\n").await?;
        wire.shell("ip link add wire type bridge\nip link set wire up\nip link set lo up").await?;
        if !delay.is_zero() {
            netem(&wire, "wire", delay).await.map_err(|error| match error {
                NamespaceError::Program { said, .. } => NamespaceError::NoDelay { said },
                other => other,
            })?;
            wire.shell("tc qdisc del dev wire root").await?;
        }
        Ok(Internet { wire, hosts: 0, delay })
    }

    /// A new host behind a NAT of this kind.
    pub async fn host(&mut self, kind: NatKind) -> Result<Host, NamespaceError> {
        self.hosts += 1;
        let n = self.hosts;
        let public = format!("{PUBLIC}.{n}.1");
        let place = self.wire.another().await?;
        if kind == NatKind::Open {
            self.plug(n, &place, &public).await?;
            return Ok(Host { place: Arc::new(place), address: public, router: None });
        }
        let router = Router { place: self.wire.another().await?, kind, public };
        self.plug(n, &router.place, &router.public).await?;
        let (gateway, address) = (format!("192.168.{n}.1"), format!("192.168.{n}.2"));
        router
            .place
            .shell(&format!(
                "ip link add int type veth peer name eth0 netns {}\nip addr add {gateway}/24 dev int\nip link set int up\n\
                 echo 1 > /proc/sys/net/ipv4/ip_forward",
                place.pid()
            ))
            .await?;
        place
            .shell(&format!("ip addr add {address}/24 dev eth0\nip link set eth0 up\nip route add default via {gateway}"))
            .await?;
        router.serve(&address).await?;
        Ok(Host { place: Arc::new(place), address, router: Some(router) })
    }

    /// Puts an interface `ext` with a public address into `place`.
    async fn plug(&self, n: u8, place: &Namespace, public: &str) -> Result<(), NamespaceError> {
        let pid = place.pid();
        self.wire
            .shell(&format!("ip link add ext{n} type veth peer name ext netns {pid}\nip link set ext{n} master wire up"))
            .await?;
        place.shell(&format!("ip addr add {public}/{PREFIX} dev ext\nip link set ext up")).await?;
        // What leaves a host waits, so each packet does once.
        if self.delay.is_zero() { Ok(()) } else { netem(place, "ext", self.delay).await }
    }
}

async fn netem(place: &Namespace, device: &str, delay: Duration) -> Result<(), NamespaceError> {
    place.shell(&format!("tc qdisc add dev {device} root netem delay {}ms limit {QUEUE}", delay.as_millis())).await
}

impl Host {
    /// Loses `permille` of a thousand of its packets, in both directions, from now on; its router does.
    pub async fn lose(&self, permille: u16) -> Result<(), NamespaceError> {
        let place = self.router.as_ref().map_or(&*self.place, |router| &router.place);
        let hooks = if self.router.is_some() { &["forward"][..] } else { &["input", "output"] };
        let chains = hooks.iter().map(|hook| {
            format!("chain {hook} {{ type filter hook {hook} priority 10; oifname != \"lo\" numgen random mod 1000 < {permille} drop; }}\n")
        });
        place.filter(&format!("table ip loss {{ {} }}\n", chains.collect::<String>())).await
    }

    /// Takes another address behind its NAT, as a laptop does that changes its network: what is open gets other ports outside. A
    /// host without a NAT stays.
    pub async fn move_elsewhere(&mut self) -> Result<(), NamespaceError> {
        let (Some(router), Some((net, _))) = (&self.router, self.address.rsplit_once('.')) else { return Ok(()) };
        let new = format!("{net}.77");
        self.place
            .shell(&format!(
                "ip addr del {}/24 dev eth0\nip addr add {new}/24 dev eth0\nip route replace default via {net}.1 src {new}",
                self.address
            ))
            .await?;
        router.serve(&new).await?;
        self.address = new;
        Ok(())
    }
}
