//! The relay, with peers of libp2p's own library, with nodes, and over HTTP.
#![cfg(test)]

mod deaf;
mod dialable;

use dialable::Asker;
use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use infernet_node::{
    clock,
    net::{self, Event, NetConfig, Transport, bootstrap::BootstrapAddress},
};
use infernet_relay::{
    limits::Prefix,
    message::HOP,
    server::Running,
    settings::{Keys, Settings},
};
use infernet_testnet::{
    circuit::{Peer, Seen},
    cluster::{NETWORK, loopback},
    stranger::{Stranger, fresh_key, network},
};
use libp2p::{Multiaddr, PeerId, Stream};
use std::{future::Future, path::Path, time::Duration};
use tokio::sync::mpsc;

/// Long enough for a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_secs(3_600);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

fn settings(home: &Path, port: u16) -> Settings {
    let keys = Keys {
        network: Some(NETWORK.parse().expect("a name")),
        listen: Some(vec![format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address")]),
        http_listen: Some("127.0.0.1:0".into()),
        watch_listen: Some("127.0.0.1:0".into()),
        ..Keys::default()
    };
    Settings::check(home, keys).expect("good settings")
}

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// A relay that listens by QUIC alone.
fn by_quic(home: &Path) -> Settings {
    Settings { listen: vec![QUIC.parse().expect("an address")], ..settings(home, 0) }
}

async fn start(settings: Settings) -> (Running, Multiaddr) {
    let relay = Running::start(settings, None).await.expect("a relay");
    let address = relay.about.relaying.addresses().await.remove(0);
    (relay, address)
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn peer() -> Peer {
    Peer::start(NEVER).expect("a peer")
}

/// Two peers that can't be dialled, the second connected to the first through the relay.
async fn pair(relay: &Multiaddr) -> (Peer, Peer) {
    let (mut target, mut source) = (peer(), peer());
    let reached = soon("a reservation", target.reserve(relay)).await.expect("reserved");
    assert!(reached.to_string().contains("/p2p-circuit/"), "{reached}");
    assert_eq!(soon("a circuit", source.connect(&reached)).await.expect("connected"), target.id);
    (target, source)
}

async fn wait_for(relay: &Running, what: &'static str, count: u64) {
    let there = async {
        while relay.about.relaying.desk.told().await.happened.get(what).copied().unwrap_or_default() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, there).await;
}

/// Asks by hand; the answer's status, as the specification numbers them, and the stream.
async fn ask(peer: &Peer, relay: PeerId, request: &[u8]) -> (u64, Stream) {
    let mut stream = soon("a stream", peer.streams.clone().open_stream(relay, HOP)).await.expect("a stream");
    stream.write_all(&[&[request.len() as u8], request].concat()).await.expect("asked");
    stream.flush().await.expect("asked");
    let answer = soon("an answer", deaf::message(&mut stream)).await;
    // Field 5, a number, is the last.
    let status = match answer[..] {
        [.., 0x28, code] => code.into(),
        [.., 0x28, low, high] => u64::from(low & 0x7f) | u64::from(high) << 7,
        _ => panic!("no status: {answer:?}"),
    };
    (status, stream)
}

async fn asked(peer: &Peer, relay: PeerId, request: &[u8]) -> u64 {
    ask(peer, relay, request).await.0
}

/// A request for a circuit.
fn to(peer: &PeerId) -> Vec<u8> {
    let id = peer.to_bytes();
    [&[0x08, 1, 0x12, id.len() as u8 + 2, 0x0a, id.len() as u8], &id[..]].concat()
}

fn id_of(relay: &Running) -> PeerId {
    PeerId::from_bytes(&relay.net().id().to_peer_id_bytes()).expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_dialled_is_reached_a_long_answer_comes_whole_and_the_relay_reads_none_of_it() {
    const CANARY: &[u8] = b"the prompt is nobody's business ";
    const BYTES: usize = 12 << 20;
    let home = home();
    let (tap, mut tapped) = mpsc::channel::<Vec<u8>>(100_000);
    let relay = Running::start(settings(home.path(), 0), Some(tap)).await.expect("a relay");
    let address = relay.about.relaying.addresses().await.remove(0);
    let (target, source) = pair(&address).await;
    let (mut reader, mut writer) = source.echo(target.id).await.expect("an echo").split();
    let sent: Vec<u8> = CANARY.iter().copied().cycle().take(BYTES).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.expect("written");
        writer.close().await.expect("closed");
    });
    let mut got = Vec::new();
    soon("the echo", reader.read_to_end(&mut got)).await.expect("read");
    writing.await.expect("written");
    assert!(got == expected, "{} of {BYTES} bytes", got.len());
    drop((source, target));
    wait_for(&relay, "opened", 1).await;
    let mut seen = 0;
    let mut last = Vec::new();
    while let Ok(piece) = tapped.try_recv() {
        seen += piece.len();
        // Also across two pieces of one direction, as far as they follow each other.
        last.extend_from_slice(&piece);
        assert!(!last.windows(8).any(|bytes| bytes == &CANARY[..8]), "the relay saw the prompt");
        last = last.split_off(last.len().saturating_sub(7));
    }
    assert!(seen > 2 * BYTES, "only {seen} bytes were looked at");
    let told = relay.about.relaying.desk.told().await;
    assert!(told.bytes > 2 * BYTES as u64 && told.refused.is_empty(), "{told:?}");
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_outlives_the_idle_time_and_silence_ends_a_circuit() {
    const IDLE: Duration = Duration::from_millis(1_500);
    let home = home();
    let mut settings = settings(home.path(), 0);
    settings.limits.idle = IDLE;
    let (relay, address) = start(settings).await;
    let (target, source) = pair(&address).await;
    let mut stream = source.echo(target.id).await.expect("an echo");
    let began = clock::instant();
    while began.elapsed() < 3 * IDLE {
        stream.write_all(b"token").await.expect("written");
        stream.flush().await.expect("written");
        let mut echoed = [0; 5];
        soon("the echo", stream.read_exact(&mut echoed)).await.expect("still open");
        assert_eq!(&echoed, b"token");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(relay.about.relaying.desk.told().await.circuits, 1);
    wait_for(&relay, "idle", 1).await;
    assert!(
        soon("the end", stream.read(&mut [0])).await.is_ok_and(|length| length == 0) || stream.write_all(b"x").await.is_err()
    );
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_told_by_the_status_of_the_specification() {
    let home = home();
    let mut settings = settings(home.path(), 0);
    (settings.limits.reservations_per_prefix, settings.limits.circuits_per_source) = (1, 1);
    let (relay, address) = start(settings).await;
    let id = id_of(&relay);
    let mut target = peer();
    let reached = soon("a reservation", target.reserve(&address)).await.expect("reserved");
    let mut other = peer();
    soon("a connection", other.connect(&address)).await.expect("connected");
    assert_eq!(asked(&other, id, &[0x08, 0]).await, 200, "another reservation of this prefix");
    assert_eq!(asked(&other, id, &to(&PeerId::random())).await, 204, "no such reservation");
    assert_eq!(asked(&target, id, &to(&target.id)).await, 202, "to itself");
    assert_eq!(asked(&other, id, &[0x08, 1]).await, 400, "nobody is named");
    assert_eq!(asked(&other, id, &[0x08, 2]).await, 401, "a status is no request");
    assert_eq!(asked(&target, id, &[0x08, 0]).await, 100, "renewed");
    soon("a circuit", other.connect(&reached)).await.expect("connected");
    assert_eq!(asked(&other, id, &to(&target.id)).await, 201, "another circuit of this peer");
    let mut second = peer();
    let refused = soon("a refusal", second.reserve(&address)).await;
    assert!(refused.is_err(), "libp2p's own client takes the refusal for one");
    // Whoever leaves makes room.
    drop((target, other));
    let again = async {
        while asked(&second, id, &[0x08, 0]).await != 100 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("room", again).await;
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_peers_ask_in_one_moment_and_each_is_answered() {
    const PEERS: usize = 200;
    /// Handshakes at once; more are refused.
    const DIALS: usize = 20;
    let home = home();
    let mut settings = settings(home.path(), 0);
    settings.limits.reservations_per_prefix = PEERS;
    let (relay, address) = start(settings).await;
    let mut peers: Vec<Peer> = (0..PEERS).map(|_| peer()).collect();
    for few in peers.chunks_mut(DIALS) {
        let dialled = join_all(few.iter_mut().map(|peer| peer.connect(&address)));
        assert!(soon("connections", dialled).await.iter().all(Result::is_ok));
    }
    let answers = soon("answers", join_all(peers.iter_mut().map(|peer| peer.reserve(&address)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), PEERS);
    assert_eq!(relay.about.relaying.desk.told().await.reservations, PEERS);
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_streams_and_says_nothing_has_its_share_and_no_more() {
    const SILENT: usize = 40;
    let home = home();
    let (relay, address) = start(settings(home.path(), 0)).await;
    let id = id_of(&relay);
    let (mut hoarder, mut honest) = (peer(), peer());
    soon("a connection", hoarder.connect(&address)).await.expect("connected");
    let mut kept = Vec::new();
    for _ in 0..SILENT {
        let mut stream = soon("a stream", hoarder.streams.clone().open_stream(id, HOP)).await.expect("a stream");
        // The protocol's name leaves with the first byte: here the length of a message that never comes. One too many may be reset
        // already.
        if stream.write_all(&[2]).await.is_ok() {
            let _ = stream.flush().await;
        }
        kept.push(stream);
    }
    soon("an answer", honest.reserve(&address)).await.expect("reserved");
    let refused = async {
        while relay.net().counters().await.get("inbound.refused") < Some(&(SILENT as u64 - 16)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("24 are refused", refused).await;
    // Those that were let in are given up after a while, and then there is room again.
    wait_for(&relay, "silent", 16).await;
    assert_eq!(relay.net().counters().await.get("inbound.refused"), Some(&(SILENT as u64 - 16)));
    assert_eq!(asked(&hoarder, id, &[0x08, 0]).await, 100);
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn circuits_run_over_quic_and_a_reader_that_stalls_holds_up_only_whoever_writes_to_it() {
    let home = home();
    let (relay, address) = start(by_quic(home.path())).await;
    assert!(address.to_string().contains("/quic-v1/p2p/"), "{address}");
    let (mut deaf, mut target, mut source) = (peer(), peer(), peer());
    for peer in [&mut deaf, &mut target] {
        let reached = soon("a reservation", peer.reserve(&address)).await.expect("reserved");
        soon("a circuit", source.connect(&reached)).await.expect("connected");
    }
    assert!(relay.net().peers().await.iter().all(|peer| peer.transport == Transport::Quic));
    // What comes back is not read, so that in the end nothing is taken any more.
    let mut unread = source.echo(deaf.id).await.expect("an echo");
    let mut taken = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(2), unread.write(&[0; 16 * 1024])).await {
        taken += written.expect("written");
        assert!(taken < 64 << 20, "it never stalls");
    }
    let (mut reader, mut writer) = source.echo(target.id).await.expect("an echo").split();
    let sent: Vec<u8> = (0..4u32 << 20).map(|n| (n % 251) as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.expect("written");
        writer.close().await.expect("closed");
    });
    let mut got = Vec::new();
    soon("the echo", reader.read_to_end(&mut got)).await.expect("read");
    soon("all is written", writing).await.expect("written");
    assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
    drop(unread);
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_reader_that_stalls_the_relay_keeps_two_windows_and_no_more() {
    /// The source's to the relay and the relay's to the target, a piece, and what is on its way.
    const MOST: usize = 2 * 256 * 1024 + 16 * 1024 + 256 * 1024;
    let home = home();
    let mut settings = settings(home.path(), 0);
    settings.listen.push(QUIC.parse().expect("an address"));
    let relay = Running::start(settings, None).await.expect("a relay");
    let addresses = relay.about.relaying.addresses().await;
    let by = |name: &str| addresses.iter().find(|it| it.to_string().contains(name)).expect("an address").clone();
    let target = soon("a reservation", deaf::deaf(&by("/tcp/"))).await;
    let mut source = peer();
    soon("a connection", source.connect(&by("/quic-v1/"))).await.expect("connected");
    let (status, mut stream) = ask(&source, id_of(&relay), &to(&target)).await;
    assert_eq!(status, 100);
    let mut taken = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(3), stream.write(&[0; 16 * 1024])).await {
        taken += written.expect("written");
        assert!(taken <= MOST, "{taken} bytes, and it goes on");
    }
    assert!(taken > 256 * 1024, "{taken}");
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_of_somebody_who_is_gone_is_answered_at_once_and_forgotten() {
    let home = home();
    let (relay, address) = start(settings(home.path(), 0)).await;
    let id = id_of(&relay);
    let desk = &relay.about.relaying.desk;
    // As if it had left in the moment in which it was let in.
    let gone = PeerId::from_public_key(&libp2p::identity::Keypair::generate_secp256k1().public());
    desk.reserve(gone, Prefix::V4([127, 0, 0])).await.expect("reserved");
    let mut source = peer();
    soon("a connection", source.connect(&address)).await.expect("connected");
    assert_eq!(asked(&source, id, &to(&gone)).await, 204, "no such reservation");
    let told = desk.told().await;
    assert_eq!((told.reservations, told.circuits), (0, 0), "{told:?}");
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_told_whether_it_can_be_dialled() {
    let home = home();
    let (relay, address) = start(settings(home.path(), 0)).await;
    let mut open = Asker::start().await;
    let claimed = open.address.clone();
    assert!(soon("an answer", open.ask(&address, &claimed)).await);
    let mut shut = Asker::start().await;
    // A port that nobody listens on any more.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("a port").port();
    drop(socket);
    let claimed = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address");
    assert!(!soon("an answer", shut.ask(&address, &claimed)).await);
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_reservations_come_back() {
    let home = home();
    let (relay, address) = start(settings(home.path(), 0)).await;
    let port = address.to_string().split('/').nth(4).and_then(|port| port.parse().ok()).expect("a port");
    let mut target = peer();
    soon("a reservation", target.reserve(&address)).await.expect("reserved");
    relay.stop(Duration::ZERO).await;
    soon("the loss", async { while target.next().await != Some(Seen::NotListening) {} }).await;
    let (relay, again) = start(settings(home.path(), port)).await;
    assert_eq!(again, address, "the same key, the same port");
    let reached = soon("a new reservation", async {
        loop {
            if let Ok(reached) = target.reserve(&address).await {
                return reached;
            }
        }
    });
    let mut source = peer();
    let reached = reached.await;
    assert_eq!(soon("a circuit", source.connect(&reached)).await.expect("connected"), target.id);
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_is_for_one_relay() {
    let home = home();
    let (relay, _) = start(settings(home.path(), 0)).await;
    let error = Running::start(settings(home.path(), 0), None).await.err().expect("refused");
    assert_eq!(error.exit(), 3);
    assert!(error.to_string().ends_with("already: stop it, or name another directory with --home"), "{error}");
    relay.stop(Duration::ZERO).await;
    let (again, _) = start(settings(home.path(), 0)).await;
    again.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_know_only_the_relay_find_each_other_and_an_offer_crosses() {
    let home = home();
    let (relay, address) = start(settings(home.path(), 0)).await;
    let buyer = Stranger::join(vec![address.clone()]).await.expect("a node");
    // As workers do, it answers for the DHT from the start.
    let config = NetConfig {
        network: network(),
        listen: vec![loopback()],
        bootstrap: vec![address],
        serves: true,
        ..NetConfig::default()
    };
    let (worker, mut heard_by_worker) = net::start(&fresh_key(), config).await.expect("a node");
    for net in [buyer.net(), &worker] {
        assert!(net.wait_connected(clock::now().after(30_000)).await);
    }
    let offer = buyer.ask("m", 10).expect("an offer").offer;
    assert!(soon("publishing", buyer.publish(&offer)).await);
    let heard = async {
        loop {
            if let Some(Event::Offer(heard)) = heard_by_worker.recv().await
                && heard.raw() == offer.raw()
            {
                return;
            }
        }
    };
    soon("the offer", heard).await;
    let found = async {
        while !buyer.net().peers().await.iter().any(|peer| peer.id == worker.id()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon("each other", found).await;
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_knows_only_the_relays_page_asks_until_it_answers_and_begins_there() {
    let home = home();
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port");
    let page: BootstrapAddress = format!("http://{free}").parse().expect("a page");
    let config = NetConfig { network: network(), bootstrap: vec![page.into()], ..NetConfig::default() };
    // Nobody is there yet.
    let (node, _events) = net::start(&fresh_key(), config).await.expect("a node");
    let (relay, _) = start(Settings { http_listen: Some(free), ..settings(home.path(), 0) }).await;
    assert!(node.wait_connected(clock::now().after(DEADLINE.as_millis() as u64)).await);
    let id = relay.net().id();
    assert!(node.peers().await.iter().any(|peer| peer.id == id));
    let relays: Vec<String> = node.relays().await.iter().map(|relay| relay.id.to_string()).collect();
    assert_eq!(relays, [id.to_string()]);
    relay.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_to_begin_how_it_goes_and_drains() {
    let home = home();
    let (relay, address) = start(settings(home.path(), 0)).await;
    let (http, watch) = (relay.http.expect("an address"), relay.watch.expect("an address"));
    let url = format!("http://{http}/bootstrap.json");
    let client = reqwest::Client::new();
    let first = client.get(&url).send().await.expect("an answer");
    let tag = first.headers()["etag"].clone();
    assert_eq!(first.headers()["cache-control"], "public, max-age=300");
    assert!(!first.headers().contains_key("access-control-allow-origin"));
    let told: serde_json::Value = first.json().await.expect("JSON");
    assert_eq!((told["version"].as_u64(), told["network"].as_str()), (Some(1), Some(NETWORK)));
    assert_eq!(told["peers"][0]["addrs"][0], address.to_string());
    assert_eq!(told["peers"][0]["id"], relay.net().id().to_string());
    assert_eq!(told["fingerprint"].as_str().map(str::len), Some(64));
    let again = client.get(&url).header("if-none-match", tag).send().await.expect("an answer");
    assert_eq!(again.status(), 304);
    let (target, source) = pair(&address).await;
    let metrics = client.get(format!("http://{watch}/metrics")).send().await.expect("an answer").text().await.expect("text");
    assert!(metrics.contains("infernet_relay_circuits 1") && metrics.contains("infernet_relay_reservations 1"), "{metrics}");
    assert_eq!(client.get(format!("http://{http}/metrics")).send().await.expect("an answer").status(), 404);

    let desk = relay.about.relaying.desk.clone();
    let stopping = tokio::spawn(relay.stop(DEADLINE));
    soon("draining", async {
        while !desk.told().await.is_draining {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert_eq!(client.get(format!("http://{http}/readyz")).send().await.expect("an answer").status(), 503);
    assert_eq!(client.get(format!("http://{http}/healthz")).send().await.expect("an answer").status(), 200);
    assert_eq!(client.get(&url).send().await.expect("an answer").status(), 503);
    // What runs goes on, and its end ends the relay.
    let mut stream = source.echo(target.id).await.expect("an echo");
    stream.write_all(b"still").await.expect("written");
    stream.flush().await.expect("written");
    let mut echoed = [0; 5];
    soon("the echo", stream.read_exact(&mut echoed)).await.expect("read");
    assert!(!stopping.is_finished());
    drop((stream, source));
    soon("the end", stopping).await.expect("stopped");
}
