//! Real swarms on 127.0.0.1: what one node says, and what the others make of it.
#![cfg(test)]

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use infernet_node::{
    clock,
    net::{
        self, Direction, Event, Net, NetConfig, NetError, PublishError, Route, Transport,
        streams::{StreamRefused, Via},
    },
};
use infernet_wire::{
    accept::JobAccept,
    bid::{Answer, JobBid},
    capability::{Abilities, CapabilityAd, ModelAd},
    envelope::{Kind, Verified},
    hash::sha256,
    id::{Hash, JobId, NodeId, OfferId},
    key::NodeKey,
    limits,
    money::{MicroUsd, Price},
    offer::{JobOffer, SelectionRule},
    receipt::{Countersign, JobReceipt, JobStatus, SignedReceipt},
    receipt_page::{Page, PageRequest},
    time::UnixMillis,
    topic::{self, NetworkId},
};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, gossipsub, identity,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, SwarmEvent},
};
use std::{collections::BTreeMap, future::Future, io, sync::Arc, time::Duration};
use tokio::sync::mpsc;

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Long enough for a busy machine; what is awaited usually takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

// ---- a node, and what to do with one

struct Node {
    net: Net,
    events: mpsc::Receiver<Event>,
    tap: mpsc::Receiver<(String, Vec<u8>)>,
    key: NodeKey,
}

fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).unwrap()
}

fn network() -> NetworkId {
    "test".parse().unwrap()
}

fn config() -> NetConfig {
    NetConfig { network: network(), listen: vec![TCP.parse().unwrap()], ..NetConfig::default() }
}

async fn node(n: u8, config: NetConfig) -> Node {
    let (tap_out, tap) = mpsc::channel(10_000);
    let (net, events) = net::start(&key(n), NetConfig { tap: Some(tap_out), ..config }).await.unwrap();
    Node { net, events, tap, key: key(n) }
}

/// A node that others find, listening on `listen`.
async fn hub(n: u8, listen: &str) -> Node {
    node(n, NetConfig { listen: vec![listen.parse().unwrap()], serves: true, ..config() }).await
}

/// A node whose one and only neighbour is `hub`.
async fn leaf(n: u8, hub: &Node) -> Node {
    node(n, NetConfig { bootstrap: hub.net.listen_addresses().await, listen: vec![], max_peers: 1, ..config() }).await
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

fn deadline() -> UnixMillis {
    clock::now().after(20_000)
}

impl Node {
    fn id(&self) -> NodeId {
        self.net.id()
    }

    async fn connected(&self) {
        assert!(self.net.wait_connected(deadline()).await, "no subscriber");
    }

    /// The next event of one kind; others are passed over.
    async fn next<T>(&mut self, what: &str, pick: impl Fn(Event) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        })
        .await
    }

    async fn offer(&mut self) -> Verified<JobOffer> {
        self.next("an offer", |event| if let Event::Offer(offer) = event { Some(offer) } else { None }).await
    }

    async fn ad(&mut self) -> Verified<CapabilityAd> {
        self.next("an ad", |event| if let Event::Ad(ad) = event { Some(ad) } else { None }).await
    }

    async fn answer(&mut self) -> Answer {
        self.next("an answer", |event| if let Event::Answer(answer) = event { Some(answer) } else { None }).await
    }

    async fn receipt(&mut self) -> SignedReceipt {
        self.next("a receipt", |event| if let Event::Receipt(receipt) = event { Some(receipt) } else { None }).await
    }

    async fn publish(&self, topic: &str, bytes: &Arc<[u8]>) -> Result<(), PublishError> {
        soon("publishing", self.net.publish(topic.into(), bytes.clone(), deadline())).await
    }

    /// Waits until these very bytes were seen; the counters then count them.
    async fn sees(&mut self, bytes: &[u8]) {
        soon("bytes on the tap", async { while self.tap.recv().await.expect("the network runs").1 != bytes {} }).await;
    }

    /// Everything seen or said up to now.
    fn tapped(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.tap.try_recv().ok()).map(|(_, bytes)| bytes).collect()
    }

    async fn count(&self, name: &str) -> u64 {
        self.net.counters().await.get(name).copied().unwrap_or_default()
    }
}

// ---- what they say

fn an_ad(key: &NodeKey, sequence: u64) -> Arc<[u8]> {
    let now = clock::now();
    let ad = CapabilityAd {
        sequence,
        issued: now,
        expires: now.after(limits::AD_TTL_MS),
        tags: vec![],
        models: vec![ModelAd { id: "tiny".into(), ..ModelAd::default() }],
        slots: 1,
        chat: vec![],
        mesh: vec![],
        evm: Vec::new(),
        solana: None,
    };
    key.sign(&network(), ad).unwrap().raw().clone()
}

fn offer_body(issued: UnixMillis) -> JobOffer {
    JobOffer {
        id: OfferId(clock::random()),
        issued,
        expires: issued.after(5_000),
        workload: topic::INFERENCE.into(),
        model: "tiny".into(),
        abilities: Abilities::default(),
        input_tokens: 10,
        output_tokens: 10,
        ceiling: price(),
        budget: MicroUsd(1_000),
        deadline: issued.after(60_000),
        window_ms: 500,
        rule: SelectionRule::BALANCED,
        commitment: sha256(b"request"),
        invited: Vec::new(),
    }
}

fn price() -> Price {
    Price { input: MicroUsd(100_000), output: MicroUsd(200_000) }
}

fn an_offer(key: &NodeKey) -> Verified<JobOffer> {
    key.sign(&network(), offer_body(clock::now())).unwrap()
}

fn a_bid(key: &NodeKey, offer: Hash) -> Answer {
    let now = clock::now();
    let bid = JobBid {
        offer,
        issued: now,
        hold_until: now.after(1_000),
        model: "tiny".into(),
        price: price(),
        queue_ms: 0,
        ttft_ms: 1,
        tokens_per_second: 1,
        chat: vec![],
    };
    Answer::Bid(key.sign(&network(), bid).unwrap())
}

fn an_accept(key: &NodeKey) -> Verified<JobAccept> {
    an_accept_of(key, JobId([1; 16]))
}

fn an_accept_of(key: &NodeKey, job: JobId) -> Verified<JobAccept> {
    let now = clock::now();
    let accept = JobAccept {
        offer: sha256(b"offer"),
        bid: sha256(b"bid"),
        winner: key.id(),
        model: "tiny".into(),
        price: price(),
        job,
        attempt: 1,
        runners_up: vec![],
        bids: sha256(b"bids"),
        score: 1,
        issued: now,
        expires: now.after(5_000),
        rate: None,
    };
    key.sign(&network(), accept).unwrap()
}

fn a_receipt(worker: &NodeKey, buyer: &NodeKey, countersigned: bool) -> Arc<[u8]> {
    let now = clock::now();
    let receipt = JobReceipt {
        job: JobId([1; 16]),
        accept: sha256(b"accept"),
        buyer: buyer.id(),
        worker: worker.id(),
        workload: topic::INFERENCE.into(),
        model: "tiny".into(),
        weights: None,
        input_tokens: 10,
        output_tokens: 10,
        price: price(),
        amount: price().cost(10, 10).unwrap(),
        paid: MicroUsd(0),
        started: now,
        finished: now,
        status: JobStatus::COMPLETED,
        request: sha256(b"request"),
        transcript: sha256(b"transcript"),
        paid_on: None,
    };
    let receipt = worker.sign(&network(), receipt).unwrap();
    let countersign = Countersign { receipt: receipt.digest(), issued: now };
    let countersign = countersigned.then(|| buyer.sign(&network(), countersign).unwrap());
    SignedReceipt::new(receipt, countersign).unwrap().encode().into()
}

fn jobs() -> String {
    topic::jobs(topic::INFERENCE)
}

// ---- stories

async fn check_two_hops(listen: &str, transport: Transport) {
    let hub = hub(1, listen).await;
    let mut worker = leaf(2, &hub).await;
    let mut buyer = leaf(3, &hub).await;
    worker.connected().await;
    buyer.connected().await;

    worker.publish(topic::CAPABILITIES, &an_ad(&worker.key, 1)).await.unwrap();
    assert_eq!(buyer.ad().await.signer(), worker.id());

    let offer = an_offer(&buyer.key);
    buyer.publish(&jobs(), offer.raw()).await.unwrap();
    assert_eq!(worker.offer().await.digest(), offer.digest());

    let peers = buyer.net.peers().await;
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].id, peers[0].transport), (hub.id(), transport));
}

/// As the defaults have it: on Linux a check of `::` takes IPv4 in.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
async fn one_port_is_listened_on_in_both_families() {
    let Ok(both) = std::net::TcpListener::bind("[::]:0") else {
        return eprintln!("skipped: this machine has no IPv6");
    };
    let port = both.local_addr().unwrap().port();
    drop(both);
    let listen = ["ip4/0.0.0.0", "ip6/::"].map(|ip| [format!("/{ip}/tcp/{port}"), format!("/{ip}/udp/{port}/quic-v1")]);
    let listen = listen.concat().iter().map(|address| address.parse().unwrap()).collect();
    let (net, _events) = net::start(&key(1), NetConfig { listen, ..config() }).await.expect("listens on all four");
    let second = NetConfig { listen: vec![format!("/ip6/::/tcp/{port}").parse().unwrap()], ..config() };
    assert!(net::start(&key(2), second).await.is_err(), "another node's port is noticed");
    drop(net);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_network_is_left() {
    let hub = hub(1, TCP).await;
    let bootstrap = hub.net.listen_addresses().await;
    let other = NetConfig { network: "other".parse().unwrap(), bootstrap, listen: vec![], ..config() };
    let stranger = node(2, other).await;
    // Whoever hears first what the other is hangs up.
    soon("one hangs up", async {
        while hub.count("connection.other_network").await + stranger.count("connection.other_network").await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(!hub.net.wait_connected(clock::now().after(200)).await, "nobody is left to talk to");
}

#[tokio::test]
async fn net_ads_and_offers_cross_two_hops_over_tcp() {
    check_two_hops(TCP, Transport::Tcp).await;
}

#[tokio::test]
async fn net_ads_and_offers_cross_two_hops_over_quic() {
    check_two_hops(QUIC, Transport::Quic).await;
}

#[tokio::test]
async fn net_first_offer_on_a_cold_mesh_reaches_a_worker_two_hops_away() {
    let hub = hub(1, TCP).await;
    let mut worker = leaf(2, &hub).await;
    worker.connected().await;
    let buyer = leaf(3, &hub).await;
    let offer = an_offer(&buyer.key);
    let began = clock::instant();
    buyer.publish(&jobs(), offer.raw()).await.unwrap();
    assert_eq!(worker.offer().await.digest(), offer.digest());
    show_latency("cold first offer, two hops", began.elapsed());
}

/// Shown by `cargo test -- --nocapture`.
#[expect(clippy::print_stderr, reason = "a measurement for people")]
fn show_latency(what: &str, took: Duration) {
    eprintln!("{what}: {took:?}");
}

#[tokio::test]
async fn net_publish_before_any_peer_waits_for_the_first() {
    let mut worker = hub(1, TCP).await;
    let buyer = node(2, config()).await;
    let offer = an_offer(&buyer.key);
    let (net, bytes) = (buyer.net.clone(), offer.raw().clone());
    let publishing = tokio::spawn(async move { net.publish(jobs(), bytes, deadline()).await });
    while buyer.count("publish.queued").await == 0 {
        tokio::task::yield_now().await;
    }
    buyer.net.dial(worker.net.listen_addresses().await.remove(0)).await;
    assert_eq!(worker.offer().await.digest(), offer.digest());
    assert_eq!(soon("publishing", publishing).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn net_publish_without_peers_fails_at_its_deadline() {
    let lonely = node(1, config()).await;
    let offer = an_offer(&lonely.key);
    let outcome = lonely.net.publish(jobs(), offer.raw().clone(), clock::now().after(50)).await;
    assert_eq!(outcome, Err(PublishError::NoPeers));
    assert!(!lonely.net.wait_connected(clock::now().after(10)).await);
}

#[tokio::test]
async fn net_bid_goes_directly_to_a_connected_buyer() {
    let mut buyer = hub(1, TCP).await;
    let mut worker = leaf(2, &buyer).await;
    worker.connected().await;
    buyer.connected().await;
    let offer = an_offer(&buyer.key);
    buyer.publish(&jobs(), offer.raw()).await.unwrap();
    let offer = worker.offer().await;
    let bid = a_bid(&worker.key, offer.digest());
    let began = clock::instant();
    assert_eq!(worker.net.answer(buyer.id(), bid.clone()).await, Route::Direct);
    show_latency("direct answer, with its acknowledgement", began.elapsed());
    assert_eq!(buyer.answer().await.raw(), bid.raw());
    assert_eq!(worker.net.answer(buyer.id(), bid).await, Route::Refused, "one answer per worker and offer");
    assert_eq!(buyer.count("answer.already_answered").await, 1);
}

#[tokio::test]
async fn net_bid_goes_back_along_the_offers_path() {
    let mut hub = hub(1, TCP).await;
    let mut worker = leaf(2, &hub).await;
    let mut buyer = leaf(3, &hub).await;
    worker.connected().await;
    buyer.connected().await;
    let offer = an_offer(&buyer.key);
    buyer.publish(&jobs(), offer.raw()).await.unwrap();
    let offer = worker.offer().await;
    let bid = a_bid(&worker.key, offer.digest());
    let began = clock::instant();
    assert_eq!(worker.net.answer(buyer.id(), bid.clone()).await, Route::Path);
    show_latency("answer over one relay, with its acknowledgement", began.elapsed());
    assert_eq!(buyer.answer().await.raw(), bid.raw());
    assert_eq!(hub.count("answer.relayed").await, 1);
    assert_eq!(hub.count("gossip.answer_for_us").await, 0);
    let plain = bid.raw().to_vec();
    let leaked = hub.tapped().iter().any(|seen| seen.windows(plain.len()).any(|part| part == plain));
    assert!(!leaked, "the relay saw a bid in the plain");
}

#[tokio::test]
async fn net_bid_falls_back_to_the_topic() {
    let hub = hub(1, TCP).await;
    let mut buyer = leaf(2, &hub).await;
    buyer.connected().await;
    let offer = an_offer(&buyer.key);
    buyer.publish(&jobs(), offer.raw()).await.unwrap();
    // The worker comes later: it knows no way back for this offer.
    let worker = leaf(3, &hub).await;
    worker.connected().await;
    let bid = a_bid(&worker.key, offer.digest());
    assert_eq!(worker.net.answer(buyer.id(), bid.clone()).await, Route::Topic);
    assert_eq!(buyer.answer().await.raw(), bid.raw());
    assert_eq!(buyer.count("gossip.answer_for_us").await, 1);
}

#[tokio::test]
async fn net_bid_goes_back_over_two_relays() {
    // buyer → first → second → worker, who dials nobody; nobody has room for a shortcut.
    let two = || NetConfig { max_peers: 2, ..config() };
    let second = node(1, two()).await;
    let first = node(2, NetConfig { bootstrap: second.net.listen_addresses().await, ..two() }).await;
    first.connected().await;
    let mut worker = node(3, NetConfig { max_peers: 1, ..config() }).await;
    second.net.dial(worker.net.listen_addresses().await.remove(0)).await;
    worker.connected().await;
    let mut buyer = leaf(4, &first).await;
    buyer.connected().await;
    let offer = an_offer(&buyer.key);
    let began = clock::instant();
    buyer.publish(&jobs(), offer.raw()).await.unwrap();
    let offer = worker.offer().await;
    show_latency("offer over three hops", began.elapsed());
    let bid = a_bid(&worker.key, offer.digest());
    assert_eq!(worker.net.answer(buyer.id(), bid.clone()).await, Route::Path);
    assert_eq!(buyer.answer().await.raw(), bid.raw());
    assert_eq!((first.count("answer.relayed").await, second.count("answer.relayed").await), (1, 1));
}

#[tokio::test]
async fn net_bid_to_a_buyer_that_left_is_left_on_the_topic() {
    let mut hub = hub(1, TCP).await;
    let mut worker = leaf(2, &hub).await;
    let buyer = leaf(3, &hub).await;
    worker.connected().await;
    buyer.connected().await;
    buyer.publish(&jobs(), an_offer(&buyer.key).raw()).await.unwrap();
    let offer = worker.offer().await;
    buyer.net.shutdown().await;
    hub.next("the loss", |event| matches!(event, Event::PeerDisconnected(id) if id == offer.signer()).then_some(())).await;
    let bid = a_bid(&worker.key, offer.digest());
    assert_eq!(worker.net.answer(offer.signer(), bid).await, Route::Topic);
    assert_eq!(hub.count("answer.no_route").await, 1);
}

#[tokio::test]
async fn net_offer_reaches_every_leaf_of_a_star_within_a_bid_window() {
    let hub = hub(1, TCP).await;
    let mut leaves = Vec::new();
    for n in 2..22 {
        leaves.push(leaf(n, &hub).await);
    }
    for leaf in &leaves {
        leaf.connected().await;
    }
    let buyer = leaf(30, &hub).await;
    buyer.connected().await;
    let offer = an_offer(&buyer.key);
    let began = clock::instant();
    buyer.publish(&jobs(), offer.raw()).await.unwrap();
    for leaf in &mut leaves {
        assert_eq!(leaf.offer().await.digest(), offer.digest());
    }
    show_latency("offer to all of 20 leaves of a star", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(limits::MAX_BID_WINDOW_MS), "{:?}", began.elapsed());
}

#[tokio::test]
async fn net_passes_on_what_nobody_here_reads() {
    let Node { net, events, tap, key } = hub(1, TCP).await;
    drop(events);
    let hub = Node { net, events: mpsc::channel(1).1, tap, key };
    let mut worker = leaf(2, &hub).await;
    let buyer = leaf(3, &hub).await;
    worker.connected().await;
    buyer.connected().await;
    buyer.publish(&jobs(), an_offer(&buyer.key).raw()).await.unwrap();
    worker.offer().await;
}

#[tokio::test]
async fn net_tells_who_is_connected() {
    let hub = hub(1, QUIC).await;
    let mut leaf = leaf(2, &hub).await;
    leaf.next("a ping", |event| matches!(event, Event::Rtt { .. }).then_some(())).await;
    let known = soon("identify", async {
        loop {
            let peers = leaf.net.peers().await;
            if peers.iter().any(|peer| peer.agent.is_some()) {
                return peers;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let [peer] = &known[..] else { panic!("{known:?}") };
    assert_eq!((peer.id, peer.direction, peer.transport), (hub.id(), Direction::Outbound, Transport::Quic));
    assert_eq!(peer.agent.as_deref(), Some(concat!("infernet/", env!("CARGO_PKG_VERSION"), " network/test")));
    assert!(peer.rtt_ms.is_some() && peer.score >= 0.0);
    let cached: Multiaddr = format!("{}/p2p/{}", peer.addresses[0], peer.id).parse().unwrap();
    assert_eq!(hub.net.listen_addresses().await, [cached]);
    assert_eq!(hub.net.peers().await[0].direction, Direction::Inbound);
}

#[tokio::test]
async fn net_starts_with_mdns_wherever_it_runs() {
    node(1, NetConfig { mdns: true, ..config() }).await.net.shutdown().await;
}

#[tokio::test]
async fn chat_streams_opened_in_one_moment_are_all_taken_and_arrive_with_their_sender() {
    const STREAMS: usize = 64;
    let (taker, mut taken) = net::streams::channel();
    let worker = node(1, NetConfig { chat: Some(taker), serves: true, ..config() }).await;
    let buyer = leaf(2, &worker).await;
    buyer.connected().await;
    let opening = futures::future::join_all((0..STREAMS).map(|n| {
        let (net, worker) = (buyer.net.clone(), worker.id());
        async move {
            let mut opened = net.open_chat(worker).await.expect("a stream");
            assert!(matches!(opened.via, Via::Direct(_)), "{:?}", opened.via);
            opened.stream.write_all(&[n as u8]).await.expect("it writes");
            opened.stream.flush().await.expect("it writes");
            opened
        }
    }));
    let opened = soon("the streams open", opening).await;
    let mut seen = std::collections::BTreeSet::new();
    // Nobody took any until all were there.
    for _ in 0..STREAMS {
        let mut stream = soon("a stream", taken.recv()).await.expect("the network runs");
        assert_eq!(NodeId::from_peer_id_bytes(&stream.peer.to_bytes()), Some(buyer.id()));
        let mut byte = [0];
        soon("a byte", stream.stream.read_exact(&mut byte)).await.expect("it reads");
        seen.insert(byte);
    }
    assert_eq!(seen.len(), STREAMS);
    assert_eq!(worker.count("chat_streams.dropped").await, 0);
    drop(opened);
}

#[tokio::test]
async fn who_keeps_no_receipts_says_at_once_that_there_are_none() {
    let hub = hub(1, TCP).await;
    let reader = leaf(2, &hub).await;
    reader.connected().await;
    // More than a keeper would answer in one moment.
    for _ in 0..30 {
        let request = PageRequest { network: network(), limit: 10, before: None };
        let page = soon("a page", reader.net.receipt_page(hub.id(), request)).await.expect("an answer");
        assert_eq!(page, Page::none());
    }
    assert_eq!((hub.count("receipts.none_kept").await, hub.count("receipts.busy").await), (30, 0));
}

#[tokio::test]
async fn a_node_that_takes_no_chat_streams_says_so_and_one_that_is_not_there_can_not_be_opened_to() {
    let hub = hub(1, TCP).await;
    let buyer = leaf(2, &hub).await;
    buyer.connected().await;
    let nobody = soon("a refusal", buyer.net.open_chat(key(9).id())).await;
    assert_eq!(nobody.err(), Some(StreamRefused::NotConnected));
    // The protocol's name and the first bytes leave together, so the refusal comes where an answer would.
    let refused = match soon("a stream or none", buyer.net.open_chat(hub.id())).await {
        Err(refused) => refused == StreamRefused::Unsupported,
        Ok(mut opened) => soon("its end", opened.stream.read(&mut [0])).await.map_or(true, |read| read == 0),
    };
    assert!(refused);
}

#[tokio::test]
async fn net_accepts_and_receipts_spread_once() {
    let hub = hub(1, TCP).await;
    let worker = leaf(2, &hub).await;
    let mut buyer = leaf(3, &hub).await;
    let mut observer = leaf(4, &hub).await;
    for node in [&worker, &buyer, &observer] {
        node.connected().await;
    }
    buyer.publish(&jobs(), an_accept(&buyer.key).raw()).await.unwrap();
    let accept = observer.next("an accept", |event| if let Event::Accept(accept) = event { Some(accept) } else { None }).await;
    assert_eq!(accept.signer(), buyer.id());

    let unacknowledged = a_receipt(&worker.key, &buyer.key, false);
    worker.publish(topic::RECEIPTS, &unacknowledged).await.unwrap();
    assert!(observer.receipt().await.countersign().is_none());
    let countersigned = a_receipt(&worker.key, &buyer.key, true);
    buyer.publish(topic::RECEIPTS, &countersigned).await.unwrap();
    assert!(observer.receipt().await.countersign().is_some());
    // Both sides publish: the second copy stops at the first who knows it.
    worker.publish(topic::RECEIPTS, &countersigned).await.unwrap();
    let marker = an_ad(&worker.key, 1);
    worker.publish(topic::CAPABILITIES, &marker).await.unwrap();
    buyer.ad().await;
    assert_eq!(hub.count("gossip.seen").await, 1);
    assert_eq!(observer.count("gossip.seen").await, 0);
}

#[tokio::test]
async fn net_never_says_what_others_refuse() {
    let node = node(1, config()).await;
    let stranger = an_offer(&key(9));
    let refused = |outcome| matches!(outcome, Err(PublishError::Refused(_)));
    assert!(refused(node.publish(&jobs(), stranger.raw()).await));
    assert!(refused(node.publish(topic::CAPABILITIES, an_offer(&node.key).raw()).await));
    assert!(refused(node.publish("some/other/topic", an_offer(&node.key).raw()).await));
    assert!(refused(node.publish(topic::RECEIPTS, &Arc::from(&b"garbage"[..])).await));
}

#[tokio::test]
async fn net_says_which_port_is_taken() {
    for listen in [TCP, QUIC] {
        let first = hub(1, listen).await;
        let taken = first.net.listen_addresses().await.remove(0);
        let taken: Multiaddr = taken.iter().filter(|part| !matches!(part, libp2p::multiaddr::Protocol::P2p(_))).collect();
        let error = net::start(&key(2), NetConfig { listen: vec![taken.clone()], ..config() }).await.unwrap_err();
        assert!(matches!(&error, NetError::Listen { address, .. } if *address == taken), "{error}");
        assert!(error.to_string().contains("another program uses this port"), "{error}");

        first.net.shutdown().await;
        net::start(&key(2), NetConfig { listen: vec![taken], ..config() }).await.expect("the port is free after a shutdown");
    }
}

#[tokio::test]
async fn net_peers_find_each_other_through_one_bootstrap_node() {
    let hub = hub(1, TCP).await;
    let bootstrap = hub.net.listen_addresses().await;
    let config = || NetConfig { bootstrap: bootstrap.clone(), serves: true, ..config() };
    let mut nodes = [node(2, config()).await, node(3, config()).await];
    let other = nodes[0].id();
    nodes[1].next("the other peer", |event| matches!(event, Event::PeerConnected(id) if id == other).then_some(())).await;
}

#[tokio::test]
async fn net_stays_within_its_connections() {
    let mut hubs = Vec::new();
    for n in 1..=6 {
        hubs.push(hub(n, TCP).await);
    }
    let mut bootstrap = Vec::new();
    for hub in &hubs {
        bootstrap.extend(hub.net.listen_addresses().await);
    }
    let mut buyer = node(10, NetConfig { bootstrap, max_peers: 3, listen: vec![], ..config() }).await;
    for _ in 0..3 {
        buyer.next("a peer", |event| matches!(event, Event::PeerConnected(_)).then_some(())).await;
    }
    for hub in &hubs {
        buyer.net.dial(hub.net.listen_addresses().await.remove(0)).await;
    }
    // Every dial is decided: refused by us, as `dial_failed`.
    soon("refusals", async {
        while buyer.count("connection.dial_failed").await < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(buyer.net.peers().await.len(), 3);
}

#[tokio::test]
async fn net_comes_back_after_its_bootstrap_node_restarts() {
    let hub_one = hub(1, TCP).await;
    let address = hub_one.net.listen_addresses().await;
    let mut leaf = leaf(2, &hub_one).await;
    leaf.connected().await;
    hub_one.net.shutdown().await;
    leaf.next("the loss", |event| matches!(event, Event::PeerDisconnected(_)).then_some(())).await;
    let listen: Multiaddr = address[0].iter().filter(|part| !matches!(part, libp2p::multiaddr::Protocol::P2p(_))).collect();
    let _hub_two = node(1, NetConfig { listen: vec![listen], serves: true, ..config() }).await;
    leaf.next("the return", |event| matches!(event, Event::PeerConnected(_)).then_some(())).await;
}

// ---- a peer that keeps no rules

#[derive(NetworkBehaviour)]
struct RawBehaviour {
    gossip: gossipsub::Behaviour,
    answers: request_response::Behaviour<RawCodec>,
}

struct Raw {
    swarm: Swarm<RawBehaviour>,
    key: NodeKey,
}

#[derive(Clone, Default)]
struct RawCodec;

impl request_response::Codec for RawCodec {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Vec<u8>> {
        Ok(vec![])
    }

    async fn read_response<T: futures::AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        futures::AsyncReadExt::read_to_end(io, &mut bytes).await?;
        Ok(bytes)
    }

    async fn write_request<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        futures::AsyncWriteExt::write_all(io, &bytes).await
    }

    async fn write_response<T: futures::AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        futures::AsyncWriteExt::write_all(io, &bytes).await
    }
}

impl Raw {
    async fn join(n: u8, victim: &Node) -> Raw {
        let key = key(n);
        let mut secret = [n; 32];
        let secret = identity::secp256k1::SecretKey::try_from_bytes(&mut secret[..]).unwrap();
        let keypair: identity::Keypair = identity::secp256k1::Keypair::from(secret).into();
        let swarm = SwarmBuilder::with_existing_identity(keypair)
            .with_tokio()
            .with_tcp(Default::default(), libp2p::noise::Config::new, libp2p::yamux::Config::default)
            .unwrap()
            .with_behaviour(|keypair| RawBehaviour {
                gossip: gossipsub::Behaviour::new(
                    gossipsub::MessageAuthenticity::Signed(keypair.clone()),
                    gossipsub::ConfigBuilder::default().max_transmit_size(1 << 20).build().unwrap(),
                )
                .unwrap(),
                answers: request_response::Behaviour::new(
                    [(StreamProtocol::new("/infernet/bid/1"), ProtocolSupport::Full)],
                    request_response::Config::default(),
                ),
            })
            .unwrap()
            .build();
        let mut raw = Raw { swarm, key };
        raw.swarm.dial(victim.net.listen_addresses().await.remove(0)).unwrap();
        let mut topics = 0;
        soon("the victim's subscriptions", async {
            while topics < 3 {
                topics += usize::from(is_subscribed(&raw.swarm.select_next_some().await));
            }
        })
        .await;
        raw
    }

    fn say(&mut self, topic: &str, bytes: &[u8]) {
        self.swarm.behaviour_mut().gossip.publish(gossipsub::TopicHash::from_raw(topic), bytes).unwrap();
    }

    /// Lives on while something else is awaited.
    async fn during<T>(&mut self, future: impl Future<Output = T>) -> T {
        tokio::pin!(future);
        loop {
            tokio::select! {
                result = &mut future => return result,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }

    /// Sends a request on the answer protocol; the reply, if any came.
    async fn request(&mut self, to: &Node, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let to = PeerId::from_bytes(&to.id().to_peer_id_bytes()).unwrap();
        self.swarm.behaviour_mut().answers.send_request(&to, bytes);
        soon("an outcome", async {
            loop {
                match self.swarm.select_next_some().await {
                    SwarmEvent::Behaviour(RawBehaviourEvent::Answers(request_response::Event::Message {
                        message: request_response::Message::Response { response, .. },
                        ..
                    })) => return Some(response),
                    SwarmEvent::Behaviour(RawBehaviourEvent::Answers(request_response::Event::OutboundFailure { .. })) => {
                        return None;
                    }
                    _ => {}
                }
            }
        })
        .await
    }
}

fn is_subscribed(event: &SwarmEvent<RawBehaviourEvent>) -> bool {
    matches!(event, SwarmEvent::Behaviour(RawBehaviourEvent::Gossip(gossipsub::Event::Subscribed { .. })))
}

/// A message, its topic, and the counter that must name it.
struct Bad {
    topic: String,
    bytes: Vec<u8>,
    counted: &'static str,
}

fn bad(topic: &str, bytes: &[u8], counted: &'static str) -> Bad {
    Bad { topic: topic.into(), bytes: bytes.to_vec(), counted }
}

fn flip(bytes: &[u8], at_end: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bytes.len() - at_end;
    bytes[at] ^= 1;
    bytes
}

fn bad_messages(me: &NodeKey) -> Vec<Bad> {
    let now = clock::now();
    let sign = |body: JobOffer| me.sign(&network(), body).unwrap().raw().clone();
    let offer = an_offer(me);
    let other_network = me.sign(&"other".parse().unwrap(), offer_body(now)).unwrap();
    let mut too_long = offer_body(now);
    too_long.expires = now.after(limits::OFFER_TTL_MS + 1);
    let mut elsewhere = offer_body(now);
    elsewhere.workload = "ffmpeg.transcode".into();
    vec![
        bad(&jobs(), b"garbage", "gossip.malformed"),
        bad(&jobs(), &[], "gossip.malformed"),
        bad(&jobs(), &[0x5b, 0x40, 0, 0, 0, 0, 0, 0, 0], "gossip.malformed"),
        bad(&jobs(), &[0x9f; 4_000], "gossip.malformed"),
        bad(&jobs(), &[offer.raw(), &[0][..]].concat(), "gossip.malformed"),
        bad(&jobs(), &flip(offer.raw(), 1), "gossip.bad_signature"),
        bad(&jobs(), other_network.raw(), "gossip.wrong_network"),
        bad(&jobs(), an_offer(&key(77)).raw(), "gossip.wrong_author"),
        bad(&jobs(), &sign(too_long), "gossip.field"),
        bad(&jobs(), &sign(elsewhere), "gossip.wrong_workload"),
        bad(&jobs(), &an_ad(me, 1), "gossip.unexpected_kind"),
        bad(&jobs(), a_bid(me, offer.digest()).raw(), "gossip.unexpected_kind"),
        bad(topic::CAPABILITIES, offer.raw(), "gossip.unexpected_kind"),
        bad(topic::RECEIPTS, offer.raw(), "gossip.malformed"),
        bad(topic::RECEIPTS, &a_receipt(&key(77), &key(78), true), "gossip.wrong_author"),
    ]
}

fn ignored_messages(me: &NodeKey, started: UnixMillis) -> Vec<Bad> {
    let now = clock::now();
    let sign = |body: JobOffer| me.sign(&network(), body).unwrap().raw().clone();
    let mut expired = offer_body(UnixMillis(now.0 - limits::CLOCK_SKEW_MS - 2_000));
    expired.expires = expired.issued.after(1_000);
    vec![
        bad(&jobs(), &sign(expired), "gossip.expired"),
        bad(&jobs(), &sign(offer_body(now.after(limits::CLOCK_SKEW_MS + 5_000))), "gossip.future"),
        bad(&jobs(), &sign(offer_body(UnixMillis(started.0 - 1))), "gossip.before_start"),
        bad(&jobs(), &me.sign_foreign(Kind::JobOffer, 9, &network(), vec![0xff]), "gossip.unknown"),
    ]
}

async fn check_refused(message: &Bad, raw: &mut Raw, victim: &mut Node) {
    let before = victim.count(message.counted).await;
    raw.say(&message.topic, &message.bytes);
    raw.during(victim.sees(&message.bytes)).await;
    assert_eq!(victim.count(message.counted).await, before + 1, "{} for {:?}", message.counted, message.bytes);
}

/// What the victim thinks of the peer; as bad as can be once it closed the connection.
async fn score_of(victim: &Node, raw: &Raw) -> f64 {
    let peers = victim.net.peers().await;
    peers.iter().find(|peer| peer.id == raw.key.id()).map_or(f64::NEG_INFINITY, |peer| peer.score)
}

/// Below this, gossipsub reads nothing more of a peer.
const GRAYLIST: f64 = -80.0;

#[tokio::test]
async fn net_bad_messages_are_refused_counted_and_not_forwarded() {
    let mut victim = hub(1, TCP).await;
    let mut behind = leaf(2, &victim).await;
    behind.connected().await;
    for n in 0..bad_messages(&key(100)).len() {
        // A fresh peer for each, since few faults are enough to be no longer heard.
        let mut raw = Raw::join(100 + u8::try_from(n).unwrap(), &victim).await;
        let message = bad_messages(&raw.key).swap_remove(n);
        check_refused(&message, &mut raw, &mut victim).await;
        assert!(score_of(&victim, &raw).await < 0.0, "{} is a fault", message.counted);
    }
    victim.publish(&jobs(), an_offer(&victim.key).raw()).await.unwrap();
    behind.offer().await;
    assert_eq!(behind.tapped().len(), 1, "only the good message came through");
}

#[tokio::test]
async fn net_untimely_messages_are_ignored_without_a_penalty() {
    let started = clock::now();
    let mut victim = hub(1, TCP).await;
    let mut behind = leaf(2, &victim).await;
    behind.connected().await;
    let mut raw = Raw::join(9, &victim).await;
    for message in ignored_messages(&raw.key.clone(), started) {
        check_refused(&message, &mut raw, &mut victim).await;
    }
    assert!(score_of(&victim, &raw).await >= 0.0);
    let offer = an_offer(&raw.key);
    raw.say(&jobs(), offer.raw());
    assert_eq!(raw.during(behind.offer()).await.digest(), offer.digest());
    victim.sees(offer.raw()).await;
    // The same again, in a new gossip message.
    check_refused(&bad(&jobs(), offer.raw(), "gossip.seen"), &mut raw, &mut victim).await;
    assert!(score_of(&victim, &raw).await >= 0.0);
    assert_eq!(behind.tapped().len(), 1, "only the good message came through, once");
}

#[tokio::test]
async fn net_an_older_ad_does_not_replace_a_newer_one() {
    let mut victim = hub(1, TCP).await;
    let mut raw = Raw::join(9, &victim).await;
    let (newer, older) = (an_ad(&raw.key, 7), an_ad(&raw.key, 6));
    raw.say(topic::CAPABILITIES, &newer);
    raw.during(victim.ad()).await;
    check_refused(&bad(topic::CAPABILITIES, &older, "gossip.stale_ad"), &mut raw, &mut victim).await;
}

#[tokio::test]
async fn net_an_ad_heard_before_a_restart_is_stale_after_it() {
    let mut victim = hub(1, TCP).await;
    let mut raw = Raw::join(9, &victim).await;
    let (ad, older, newer) = (an_ad(&raw.key, 7), an_ad(&raw.key, 6), an_ad(&raw.key, 8));
    raw.say(topic::CAPABILITIES, &ad);
    raw.during(victim.ad()).await;
    let ad_sequences = victim.net.ad_sequences().await;
    assert_eq!(ad_sequences, [(raw.key.id(), 7)]);
    victim.net.shutdown().await;

    let mut victim = node(1, NetConfig { ad_sequences, serves: true, ..config() }).await;
    let mut raw = Raw::join(9, &victim).await;
    for replayed in [ad, older] {
        check_refused(&bad(topic::CAPABILITIES, &replayed, "gossip.stale_ad"), &mut raw, &mut victim).await;
    }
    raw.say(topic::CAPABILITIES, &newer);
    assert_eq!(raw.during(victim.ad()).await.sequence, 8);
}

#[tokio::test]
async fn net_a_newcomer_hears_of_those_who_advertised_before_it_came() {
    let hub = hub(1, TCP).await;
    let mut early = leaf(2, &hub).await;
    early.connected().await;
    let ad = an_ad(&early.key, 7);
    early.publish(topic::CAPABILITIES, &ad).await.unwrap();
    soon("the hub's ad", async {
        while hub.count("gossip.accepted").await == 0 {
            tokio::task::yield_now().await
        }
    })
    .await;
    let mut late = leaf(3, &hub).await;
    assert_eq!(late.ad().await.signer(), early.id());
    assert!(late.tapped().iter().all(|bytes| bytes != &*ad), "it was not gossiped again");
    assert_eq!((hub.count("ads.asked").await, late.count("ads.accepted").await), (2, 1));
    assert!(early.tapped().iter().filter(|bytes| *bytes == &*ad).count() == 1);
}

#[tokio::test]
async fn net_offers_above_the_quota_are_dropped() {
    let mut victim = hub(1, TCP).await;
    let mut raw = Raw::join(9, &victim).await;
    let offers: Vec<_> = (0..50).map(|_| an_offer(&raw.key)).collect();
    for offer in &offers {
        raw.say(&jobs(), offer.raw());
    }
    raw.during(victim.sees(offers[49].raw())).await;
    let (taken, dropped) = (victim.count("gossip.accepted").await, victim.count("gossip.author_quota").await);
    assert_eq!(taken + dropped, 50);
    assert!((20..=40).contains(&taken), "{taken} of 50 were taken");
}

#[tokio::test]
async fn net_events_that_nobody_takes_are_dropped_and_counted() {
    let mut victim = hub(1, TCP).await;
    let began = clock::instant();
    let mut talkers = tokio::task::JoinSet::new();
    for n in 100..120 {
        let mut raw = Raw::join(n, &victim).await;
        for _ in 0..60 {
            raw.say(&jobs(), an_accept_of(&raw.key, JobId(clock::random())).raw());
        }
        talkers.spawn(async move { raw.during(std::future::pending::<()>()).await });
    }
    soon("a full queue", async {
        while victim.count("event.dropped").await == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    show_latency("1 000 accepts of 20 strangers, checked", began.elapsed());
    let accepted = victim.count("gossip.accepted").await;
    assert!(accepted >= 1_000, "{accepted}");
    // It goes on as soon as somebody takes them.
    while victim.events.try_recv().is_ok() {}
    let friend = leaf(2, &victim).await;
    friend.connected().await;
    friend.publish(topic::CAPABILITIES, &an_ad(&friend.key, 1)).await.unwrap();
    victim.ad().await;
}

#[tokio::test]
async fn net_a_peer_that_talks_garbage_is_no_longer_heard() {
    let mut victim = hub(1, TCP).await;
    let mut raw = Raw::join(9, &victim).await;
    for n in 0..12u8 {
        let garbage = [b'x', n];
        raw.say(&jobs(), &garbage);
        if n < 8 {
            raw.during(victim.sees(&garbage)).await;
        }
    }
    while score_of(&victim, &raw).await > GRAYLIST {
        raw.during(tokio::task::yield_now()).await;
    }
    assert!(victim.count("gossip.malformed").await < 12, "the last ones were not read");
}

#[tokio::test]
async fn net_an_oversized_gossip_message_costs_the_connection_not_the_node() {
    let mut victim = hub(1, TCP).await;
    let mut raw = Raw::join(9, &victim).await;
    raw.say(&jobs(), &vec![7; limits::MAX_GOSSIP_BYTES + 1_000]);
    let mut friend = leaf(2, &victim).await;
    raw.during(friend.connected()).await;
    let offer = an_offer(&victim.key);
    victim.publish(&jobs(), offer.raw()).await.unwrap();
    assert_eq!(raw.during(friend.offer()).await.digest(), offer.digest());
    assert!(victim.tapped().iter().all(|seen| seen.len() <= limits::MAX_GOSSIP_BYTES));
}

#[tokio::test]
async fn net_bad_answers_are_refused_and_counted() {
    let mut victim = hub(1, TCP).await;
    let _friend = leaf(2, &victim).await;
    victim.connected().await;
    let mut raw = Raw::join(9, &victim).await;
    let offer = an_offer(&victim.key);
    raw.during(victim.publish(&jobs(), offer.raw())).await.unwrap();
    let cases = [
        (b"garbage".to_vec(), "answer.malformed"),
        (vec![], "answer.malformed"),
        (vec![7; 100_000], "answer.too_large"),
        (offer.raw().to_vec(), "answer.unexpected_kind"),
        (a_bid(&key(77), offer.digest()).raw().to_vec(), "answer.wrong_author"),
        (a_bid(&raw.key, sha256(b"no offer of the victim's")).raw().to_vec(), "answer.not_our_offer"),
        (flip(a_bid(&raw.key, offer.digest()).raw(), 1), "answer.bad_signature"),
    ];
    for (bytes, counted) in cases {
        let before: BTreeMap<_, _> = victim.net.counters().await;
        let reply = raw.request(&victim, bytes).await;
        assert_ne!(reply, Some(vec![0]), "{counted}");
        soon(
            counted,
            raw.during(async {
                while victim.count(counted).await == before.get(counted).copied().unwrap_or_default() {
                    tokio::task::yield_now().await;
                }
            }),
        )
        .await;
    }
    let good = a_bid(&raw.key, offer.digest());
    assert_eq!(raw.request(&victim, good.raw().to_vec()).await, Some(vec![0]), "an honest answer still gets through");
    assert_eq!(victim.answer().await.raw(), good.raw());
}
