//! How a worker that can't be dialled is reached, with real relays and real nodes on loopback.
#![cfg(test)]

use futures::StreamExt;
use infernet_node::{
    buyer::ChatEvent,
    chat::{client::Progress, stream::Way},
    clock, metrics,
    net::{self, Event, Mode, Net, NetConfig, Path, ReachConfig, Reachability, Reached},
    report::ChatReport,
};
use infernet_relay::{
    server::Running,
    settings::{Keys, Settings},
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, NETWORK, Sells},
    demo::order,
    engine::{EngineOptions, EngineServer},
    shim::{Link, Quality},
    stranger::{Stranger, fresh_key, network},
};
use infernet_wire::{bid::Answer, capability::CapabilityAd, id::NodeId};
use libp2p::{Multiaddr, SwarmBuilder, identity::Keypair, multiaddr::Protocol, noise, relay, swarm::SwarmEvent, tcp, yamux};
use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path as FilePath,
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

const MODEL: &str = "tiny-chat";
/// Of a million tokens, so that a few cost something.
const PRICE: u64 = 100_000;
/// Long enough for a busy machine, and for an ad, which at most one in ten seconds is listened to.
const SOON: Duration = Duration::from_secs(90);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}

/// A relay, its home, and its address with its id.
struct Relay {
    running: Running,
    home: TempDir,
    address: Multiaddr,
}

impl Relay {
    async fn start() -> Self {
        Relay::start_at(&at(Ipv4Addr::LOCALHOST.into(), 0)).await
    }

    async fn start_at(listen: &Multiaddr) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let (running, address) = start_relay(home.path(), listen).await;
        Relay { running, home, address }
    }

    fn port(&self) -> u16 {
        self.address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None }).expect("a port")
    }

    fn id(&self) -> String {
        let id = self.address.iter().find_map(|part| if let Protocol::P2p(id) = part { Some(id) } else { None });
        id.expect("an id").to_string()
    }

    async fn stop(self) -> TempDir {
        self.running.stop(Duration::ZERO).await;
        self.home
    }
}

fn at(ip: IpAddr, port: u16) -> Multiaddr {
    Multiaddr::from(ip).with(Protocol::Tcp(port))
}

async fn start_relay(home: &FilePath, listen: &Multiaddr) -> (Running, Multiaddr) {
    let keys = Keys {
        network: Some(NETWORK.parse().expect("a name")),
        listen: Some(vec![listen.clone()]),
        mdns: Some(false),
        http_listen: Some("none".into()),
        watch_listen: Some("none".into()),
        ..Keys::default()
    };
    let settings = Settings::check(home, keys).expect("good settings");
    let running = Running::start(settings, None).await.expect("a relay");
    let address = running.about.relaying.addresses().await.remove(0);
    (running, address)
}

fn reach(mode: Mode, relays: &[Multiaddr]) -> ReachConfig {
    ReachConfig { mode, relays: relays.to_vec(), ..ReachConfig::default() }
}

/// A worker in the mesh of `relay`.
async fn worker(bootstrap: &Multiaddr, reach: ReachConfig) -> (Member, EngineServer) {
    let engine = EngineServer::start(EngineOptions::default()).await.expect("an engine");
    let sells = Sells::new(engine.url(), PRICE, PRICE, 2);
    let spec = MemberSpec { reach, ..MemberSpec::worker(vec![bootstrap.clone()], sells) };
    (Member::start(spec).await.expect("a worker"), engine)
}

/// Waits until a node is reached as wanted.
async fn reached(what: &str, net: &Net, wanted: impl Fn(&Reached) -> bool) -> Reached {
    let mut watch = net.watch_reached();
    let found = watch.wait_for(|reached| wanted(reached));
    tokio::time::timeout(SOON, found)
        .await
        .unwrap_or_else(|_| panic!("{what}: {:?}", net.reached()))
        .expect("the net runs")
        .clone()
}

/// The next ad of `worker` that is as wanted.
async fn ad(what: &str, listener: &mut Stranger, worker: NodeId, wanted: impl Fn(&CapabilityAd) -> bool) -> CapabilityAd {
    soon(what, async {
        loop {
            match listener.hear().await.expect("the mesh is there") {
                Event::Ad(ad) if ad.signer() == worker && wanted(&ad) => return ad.into_body(),
                _ => {}
            }
        }
    })
    .await
}

/// Somebody in the mesh who can't be dialled either.
async fn buyer(bootstrap: &Multiaddr) -> Stranger {
    Stranger::join_silently(vec![bootstrap.clone()]).await.expect("a buyer")
}

async fn connect(from: &Net, to: NodeId, addresses: Vec<Multiaddr>) -> net::PeerInfo {
    let met = from.connect(to, addresses, clock::now().after(SOON.as_millis() as u64)).await;
    met.unwrap_or_else(|| panic!("no way to {to}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_nowhere_is_found_by_its_ad_and_answers_offers_over_the_circuit() {
    let relay = Relay::start().await;
    let mut buyer = buyer(&relay.address).await;
    let (worker, _engine) = worker(&relay.address, reach(Mode::OutboundOnly, &[])).await;
    let id = worker.node.id();
    assert!(worker.addresses().await.is_empty(), "it listens nowhere");
    let told = ad("an ad with a circuit", &mut buyer, id, |ad| !ad.mesh.is_empty()).await;
    assert_eq!((told.chat, told.mesh.len()), (vec![], 1));
    let circuit = format!("{}/p2p-circuit", relay.address);
    assert_eq!(told.mesh[0].as_str(), circuit);

    // Its ad says where; nobody else does.
    let via = relay.running.about.relaying.net.id();
    let met = connect(buyer.net(), id, vec![]).await;
    assert!(matches!(met.path, Path::Relayed { via: relay } if relay.to_string() == via.to_string()), "{}", met.path);
    assert_eq!(met.remote.to_string(), format!("{circuit}/p2p/{id}"));
    let asked = buyer.ask(MODEL, 8).expect("an offer");
    assert!(buyer.publish(&asked.offer).await);
    let answer = soon("a bid", buyer.answer()).await.expect("the mesh is there");
    assert!(matches!(&answer, Answer::Bid(bid) if bid.signer() == id && bid.chat.is_empty()), "{answer:?}");
    // Straight to the buyer, or back along the offer's path while a hole is being punched; not on the topic.
    soon("how it went", async {
        loop {
            let counters = worker.node.counters().await;
            let by = |route: &str| counters.get(&format!("answer_sent.{route}")).copied().unwrap_or_default();
            assert_eq!(by("topic"), 0);
            if by("direct") + by("path") == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;

    let why = soon("why not directly", async {
        loop {
            let peer = buyer.net().peer(id).await.expect("connected");
            let why = peer.why_not_direct.expect("it is relayed");
            if why.starts_with("hole punching failed") {
                return why;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(why.len() > "hole punching failed: ".len(), "{why}");
    let status = worker.node.status().await;
    assert_eq!((status.reach.mode.as_str(), status.reach.relays.len()), ("outbound-only", 1));
    assert_eq!(status.reach.relays[0].state, "held");
    worker.node.shutdown(Duration::ZERO).await;
    relay.stop().await;
}

/// Buys an answer; how it came, and what was told when it began.
async fn buys(buyer: &Member) -> (ChatReport, Way) {
    buyer.knows(MODEL, 1, SOON).await.expect("it hears the ad");
    let (events, mut heard) = mpsc::channel(256);
    let listening = tokio::spawn(async move {
        let mut known = None;
        while let Some(event) = heard.recv().await {
            if let ChatEvent::Stream(Progress::Opened { way, .. }) = event {
                known = Some(way);
            }
        }
        known
    });
    let (_never, mut cancel) = watch::channel(false);
    let order = order(MODEL, "Tell me a story about a fox.", 8);
    let report = soon("the job", buyer.node.buyer().chat(order, &events, &mut cancel)).await.expect("it is served");
    drop(events);
    let way = listening.await.expect("no panic").expect("it opened");
    assert!(report.receipt.as_ref().is_some_and(|receipt| receipt.verified && receipt.amount().0 > 0), "{report:?}");
    (report, way)
}

/// Somebody who listens nowhere buys of somebody who listens nowhere.
async fn a_job_over_a_relay_at(ip: IpAddr) {
    let relay = Relay::start_at(&at(ip, 0)).await;
    let (worker, _engine) = worker(&relay.address, reach(Mode::OutboundOnly, &[])).await;
    reached("a place", worker.node.net(), |reached| !reached.advertised.is_empty()).await;
    let spec = MemberSpec { listens: false, at: ip, ..MemberSpec::buyer(vec![relay.address.clone()]) };
    let buyer = Member::start(spec).await.expect("a buyer");
    let (report, way) = buys(&buyer).await;
    assert!(report.stream.path.contains("relay"), "{}", report.stream.path);
    assert!(way.why_not_direct.is_some_and(|why| why.contains("hole")), "why it is not direct is told with it");
    let status = buyer.node.status().await;
    let via: Vec<(usize, &str)> = status.paths.relays.iter().map(|via| (via.peers, via.relay.as_str())).collect();
    assert_eq!((status.paths.relayed, via), (1, vec![(1, relay.id().as_str())]), "{:?}", status.paths);
    let told = metrics::text(&buyer.node).await.expect("metrics");
    let is_told =
        |line: &str| line.starts_with("infernet_relayed_peers{") && line.contains(&relay.id()) && line.ends_with(" 1");
    assert!(told.lines().any(is_told), "{told}");
    worker.node.shutdown(Duration::ZERO).await;
    buyer.node.shutdown(Duration::ZERO).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_bought_from_a_worker_that_listens_nowhere() {
    a_job_over_a_relay_at(Ipv4Addr::LOCALHOST.into()).await;
}

/// Says so where there is none.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn has_ipv6() -> bool {
    let has = infernet_node::config::has_ipv6();
    if !has {
        eprintln!("skipped: this machine has no ::1");
    }
    has
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_over_a_relay_that_has_ipv6_alone() {
    if has_ipv6() {
        a_job_over_a_relay_at(Ipv6Addr::LOCALHOST.into()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_know_each_other_by_ipv6_alone_do_a_paid_job() {
    if !has_ipv6() {
        return;
    }
    let ip: IpAddr = Ipv6Addr::LOCALHOST.into();
    let engine = EngineServer::start(EngineOptions::default()).await.expect("an engine");
    let spec = MemberSpec { at: ip, ..MemberSpec::worker(vec![], Sells::new(engine.url(), PRICE, PRICE, 2)) };
    let worker = Member::start(spec).await.expect("a worker");
    let known = worker.addresses().await;
    assert!(known.iter().all(|address| address.to_string().starts_with("/ip6/::1/tcp/")), "{known:?}");
    let buyer = Member::start(MemberSpec { at: ip, ..MemberSpec::buyer(known) }).await.expect("a buyer");
    let (report, way) = buys(&buyer).await;
    assert!(report.stream.path.starts_with("direct quic [::1]:"), "{}", report.stream.path);
    assert!(way.rtt_ms.is_some() && way.why_not_direct.is_none(), "{way:?}");
    assert_eq!((buyer.node.status().await.paths.direct, buyer.node.status().await.paths.relayed), (1, 0));
    worker.node.shutdown(Duration::ZERO).await;
    buyer.node.shutdown(Duration::ZERO).await;
}

/// libp2p's own relay, which grants places; where it is.
async fn libp2p_relay(config: relay::Config) -> Multiaddr {
    let mut swarm = SwarmBuilder::with_existing_identity(Keypair::generate_secp256k1())
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("TCP")
        .with_behaviour(|key| relay::Behaviour::new(key.public().to_peer_id(), config))
        .expect("a relay")
        .with_swarm_config(|config| config.with_idle_connection_timeout(SOON * 10))
        .build();
    swarm.listen_on(at(Ipv4Addr::LOCALHOST.into(), 0)).expect("it listens");
    let address = soon("a relay that listens", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                return address;
            }
        }
    })
    .await;
    // Else it tells nobody where it is, and libp2p takes no such reservation.
    swarm.add_external_address(address.clone());
    let address = address.with_p2p(*swarm.local_peer_id()).expect("an address");
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_that_grant_places_and_carry_nothing_are_let_go_for_one_that_does() {
    // The one refuses every circuit, the other cuts it at its first bytes.
    let refuses = libp2p_relay(relay::Config { max_circuits: 0, ..relay::Config::default() }).await;
    let cuts = libp2p_relay(relay::Config { max_circuit_bytes: 1, ..relay::Config::default() }).await;
    let good = Relay::start().await;
    let mut listener = buyer(&good.address).await;
    let (worker, _engine) = worker(&good.address, reach(Mode::OutboundOnly, &[refuses.clone(), cuts.clone()])).await;
    let id = worker.node.id();
    let is_good = |address: &str| address == format!("{}/p2p-circuit", good.address);
    // They are named, so both were asked first.
    let reached = reached("the good one alone", worker.node.net(), |reached| {
        reached.relays.len() == 1 && reached.advertised.iter().all(|address| is_good(&address.to_string()))
    })
    .await;
    assert_eq!(reached.advertised.len(), 1);
    ad("an ad without the others", &mut listener, id, |ad| ad.mesh.len() == 1 && is_good(ad.mesh[0].as_str())).await;
    assert!(matches!(connect(listener.net(), id, vec![]).await.path, Path::Relayed { .. }));

    let status = worker.node.status().await;
    let barren: Vec<&str> =
        status.reach.relays.iter().filter(|relay| relay.barren == 1).map(|relay| relay.id.as_str()).collect();
    assert_eq!(barren.len(), 2, "{:?}", status.reach);
    assert!([&refuses, &cuts].iter().all(|relay| barren.iter().any(|id| relay.to_string().ends_with(id))), "{barren:?}");
    let counters = worker.node.counters().await;
    assert_eq!(counters.get("relay.barren"), Some(&2), "{counters:?}");
    soon("the good one is proved", async {
        while !worker.node.counters().await.contains_key("relay.circuit_in") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    worker.node.shutdown(Duration::ZERO).await;
    good.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_lost_is_replaced_and_the_ad_follows() {
    let relays = [Relay::start().await, Relay::start().await, Relay::start().await];
    let addresses: Vec<Multiaddr> = relays.iter().map(|relay| relay.address.clone()).collect();
    let mut listener = Stranger::join_silently(addresses.clone()).await.expect("a listener");
    let (worker, _engine) = worker(&addresses[0], reach(Mode::RelayOnly, &addresses)).await;
    let id = worker.node.id();
    let told = ad("an ad with two circuits", &mut listener, id, |ad| ad.mesh.len() == 2).await;
    let is_named = |ad: &CapabilityAd, relay: &Multiaddr| ad.mesh.iter().any(|at| at.as_str().starts_with(&relay.to_string()));
    let [lost, kept]: [usize; 2] = {
        let named: Vec<usize> = (0..3).filter(|n| is_named(&told, &addresses[*n])).collect();
        named.try_into().expect("two of the three")
    };
    let third = 3 - lost - kept;
    let mut relays: Vec<Option<Relay>> = relays.into_iter().map(Some).collect();
    relays[lost].take().expect("it runs").stop().await;
    reached("the third", worker.node.net(), |reached| {
        reached.relays.len() == 2
            && !reached.advertised.iter().any(|at| at.to_string().starts_with(&addresses[lost].to_string()))
    })
    .await;
    let told = ad("an ad with the third", &mut listener, id, |ad| is_named(ad, &addresses[third])).await;
    assert!(is_named(&told, &addresses[kept]) && !is_named(&told, &addresses[lost]), "{:?}", told.mesh);
    worker.node.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_comes_back_holds_a_place_again_and_the_worker_is_reached_through_it() {
    let relay = Relay::start().await;
    let (port, address) = (relay.port(), relay.address.clone());
    let (worker, _engine) = worker(&address, reach(Mode::OutboundOnly, std::slice::from_ref(&address))).await;
    reached("a place", worker.node.net(), |reached| !reached.relays.is_empty()).await;
    let home = relay.stop().await;
    reached("none", worker.node.net(), |reached| reached.relays.is_empty() && reached.advertised.is_empty()).await;
    let (running, again) = start_relay(home.path(), &at(Ipv4Addr::LOCALHOST.into(), port)).await;
    assert_eq!(again, address);
    let told = reached("a place again", worker.node.net(), |reached| !reached.relays.is_empty()).await;
    let buyer = buyer(&address).await;
    let met = connect(buyer.net(), worker.node.id(), told.advertised).await;
    assert!(matches!(met.path, Path::Relayed { .. }), "{}", met.path);
    worker.node.shutdown(Duration::ZERO).await;
    running.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_relay_only_tells_nobody_an_address_of_its_machine() {
    let relay = Relay::start().await;
    let mut buyer = buyer(&relay.address).await;
    let external: Vec<Multiaddr> = vec!["/ip4/203.0.113.7/tcp/46337".parse().expect("an address")];
    let (worker, _engine) =
        worker(&relay.address, ReachConfig { external, ..reach(Mode::RelayOnly, std::slice::from_ref(&relay.address)) }).await;
    let id = worker.node.id();
    let told = ad("an ad", &mut buyer, id, |ad| !ad.mesh.is_empty()).await;
    assert!(told.chat.is_empty() && told.mesh.iter().all(|at| at.as_str().ends_with("/p2p-circuit")), "{told:?}");
    connect(buyer.net(), id, vec![]).await;
    let identified = soon("identify", async {
        loop {
            match buyer.net().peer(id).await {
                Some(peer) if !peer.addresses.is_empty() => return peer.addresses,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    assert!(identified.iter().all(|at| at.iter().any(|part| part == Protocol::P2pCircuit)), "{identified:?}");
    assert!(worker.node.sold_at().is_empty());
    worker.node.shutdown(Duration::ZERO).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_says_is_outside_is_in_the_ad() {
    let mut hub = Stranger::join(vec![]).await.expect("a hub");
    let at = hub.net().listen_addresses().await.remove(0);
    let outside: Multiaddr = "/dns4/gpu.example.org/tcp/46337".parse().expect("an address");
    let (worker, _engine) = worker(&at, ReachConfig { external: vec![outside.clone()], ..ReachConfig::default() }).await;
    let told = ad("an ad", &mut hub, worker.node.id(), |_| true).await;
    assert_eq!(told.mesh.iter().map(|at| at.as_str()).collect::<Vec<_>>(), [outside.to_string()]);
    let reached = worker.node.net().reached();
    assert_eq!(reached.state, Reachability::Mapped);
    worker.node.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_becomes_a_direct_connection_where_a_hole_can_be_punched() {
    let relay = Relay::start().await;
    // It sells nothing: from its ad the other would know a straight way.
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")];
    let (bootstrap, reach) = (vec![relay.address.clone()], reach(Mode::Auto, std::slice::from_ref(&relay.address)));
    let config = NetConfig { network: network(), listen, bootstrap, serves: true, reach, ..NetConfig::default() };
    let (net, _events) = net::start(&fresh_key(), config).await.expect("a node");
    reached("a place", &net, |reached| !reached.relays.is_empty()).await;
    let buyer = Stranger::join(vec![relay.address.clone()]).await.expect("a buyer");
    assert!(buyer.net().wait_connected(clock::now().after(60_000)).await);
    let circuit = relay.address.clone().with(Protocol::P2pCircuit);
    let id = net.id();
    connect(buyer.net(), id, vec![circuit]).await;
    for (net, other) in [(buyer.net().clone(), id), (net.clone(), buyer.id())] {
        soon("a hole", async {
            while net.peer(other).await.is_none_or(|peer| peer.path != Path::Punched || peer.why_not_direct.is_some()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    net.shutdown().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_learns_from_relays_that_it_can_be_dialled_and_tells_its_own_address() {
    let relay = Relay::start().await;
    let (worker, _engine) = worker(&relay.address, ReachConfig::default()).await;
    let told = reached("a verdict", worker.node.net(), |reached| reached.state == Reachability::Open).await;
    let own = worker.addresses().await;
    assert_eq!(told.advertised.len(), 1, "{told:?}");
    assert!(own[0].to_string().starts_with(&told.advertised[0].to_string()), "{own:?}");
    assert_eq!((worker.node.sold_at().len(), told.relays.len()), (1, 0));
    worker.node.shutdown(Duration::ZERO).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_peers_can_not_dial_takes_a_relay_by_itself() {
    let relay = Relay::start().await;
    // It is seen from another address than the one that it listens on, and there nobody answers: a NAT.
    let nat =
        Link::tcp(SocketAddr::from(([127, 0, 0, 1], relay.port())), Quality::of_rtt(Duration::ZERO)).await.expect("a link");
    let id = relay.running.about.relaying.net.id();
    let behind: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}/p2p/{id}", nat.addr().port()).parse().expect("an address");
    let listen = vec!["/ip4/127.0.0.2/tcp/0".parse().expect("an address")];
    let config = NetConfig { network: network(), listen, bootstrap: vec![behind], serves: true, ..NetConfig::default() };
    let (net, _events) = net::start(&fresh_key(), config).await.expect("a node");
    let told = reached("a relay", &net, |reached| !reached.relays.is_empty() && reached.state == Reachability::BehindNat).await;
    assert!(told.why.starts_with("a peer could not reach it at /ip4/127.0.0.1/tcp/"), "{}", told.why);
    assert!(told.advertised.iter().all(|at| at.to_string().ends_with("/p2p-circuit")), "{told:?}");
    let counters = net.counters().await;
    assert!(counters.get("reach.unreachable").is_some_and(|n| *n > 0), "{counters:?}");
    net.shutdown().await;
    relay.stop().await;
}

/// A buyer that can't be dialled either, and knows the worker.
async fn chatting(bootstrap: &Multiaddr) -> Member {
    let buyer = MemberSpec { listens: false, ..MemberSpec::buyer(vec![bootstrap.clone()]) };
    let buyer = Member::start(buyer).await.expect("a buyer");
    buyer.knows(MODEL, 1, SOON).await.expect("the worker's ad");
    buyer
}

/// Buys an answer of `tokens`; `on_piece` is told how many pieces have come.
async fn chat(buyer: &Member, tokens: u32, mut on_piece: impl AsyncFnMut(usize)) -> (ChatReport, String) {
    let (told, mut events) = tokio::sync::mpsc::channel(256);
    let role = buyer.node.buyer().clone();
    let report = tokio::spawn(async move {
        let (_never, mut cancel) = tokio::sync::watch::channel(false);
        role.chat(order(MODEL, "Tell me a story about a fox.", tokens), &told, &mut cancel).await
    });
    let (mut text, mut pieces) = (String::new(), 0);
    while let Some(event) = soon("a step", events.recv()).await {
        if let ChatEvent::Stream(Progress::Text { text: piece, .. }) = event {
            text.push_str(&piece);
            pieces += 1;
            on_piece(pieces).await;
        }
    }
    (soon("the end", report).await.expect("no panic").expect("an answer"), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_outlives_its_relay_that_is_killed_and_comes_back() {
    let relay = Relay::start().await;
    let (port, address) = (relay.port(), relay.address.clone());
    let options = EngineOptions { tokens_per_second: Some(10.0), ..EngineOptions::default() };
    let engine = EngineServer::start(options).await.expect("an engine");
    let spec = MemberSpec::worker(vec![address.clone()], Sells::new(engine.url(), 1, 1, 2));
    let worker = MemberSpec { reach: reach(Mode::OutboundOnly, std::slice::from_ref(&address)), ..spec };
    let worker = Member::start(worker).await.expect("a worker");
    reached("a place", worker.node.net(), |reached| !reached.relays.is_empty()).await;
    let buyer = chatting(&address).await;
    let (whole, _) = chat(&buyer, 40, async |_| {}).await;
    let (mut standing, mut again) = (Some(relay), None);
    let (report, text) = chat(&buyer, 40, async |pieces| {
        if pieces == 6
            && let Some(relay) = standing.take()
        {
            let home = relay.stop().await;
            again = Some((start_relay(home.path(), &at(Ipv4Addr::LOCALHOST.into(), port)).await, home));
        }
    })
    .await;
    assert_eq!((&report.answer, &text), (&whole.answer, &whole.answer), "nothing lost, nothing repeated");
    assert!(report.stream.resumed >= 1);
    assert!(report.stream.path.starts_with("relayed by "), "{}", report.stream.path);
    assert!(report.receipt.expect("a receipt").verified);
    let counters = worker.node.counters().await;
    assert_eq!(counters.get("chat.started"), Some(&2), "one job each: {counters:?}");
    worker.node.shutdown(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_relays_a_network_on_loopback_is_as_it_was() {
    let mut hub = Stranger::join(vec![]).await.expect("a hub");
    let at = hub.net().listen_addresses().await.remove(0);
    let (worker, _engine) = worker(&at, ReachConfig::default()).await;
    let told = ad("an ad", &mut hub, worker.node.id(), |_| true).await;
    assert_eq!(told.chat.len(), 1);
    assert!(told.chat[0].0.ip().is_loopback());
    assert_eq!(worker.node.net().reached().state, Reachability::Unknown);
    let peer = soon("identify", async {
        loop {
            match hub.net().peer(worker.node.id()).await {
                Some(peer) if !peer.addresses.is_empty() => return peer,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    let own: Vec<String> = worker.addresses().await.iter().map(ToString::to_string).collect();
    assert!(own[0].starts_with(&peer.addresses[0].to_string()), "{own:?} {:?}", peer.addresses);
    assert_eq!(peer.path, Path::Direct);
    worker.node.shutdown(Duration::ZERO).await;
}
