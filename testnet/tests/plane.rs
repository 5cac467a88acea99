//! The plane as a follower of the mesh: it finds what it has missed, nobody needs it, and it can be made anew.

#![cfg(test)]

use infernet_node::{
    buyer::{ChatError, ChatOrder, PathChoice},
    clock,
    report::ChatReport,
};
use infernet_plane::{
    query::{self, ReceiptRow},
    server::Running,
    settings::{Keys, Settings},
    store::MAX_PAGE,
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, NETWORK, Sells, eventually, loopback},
    demo::order,
    scripted::{CHAT_MODEL, ScriptedEngine},
};
use infernet_wire::id::NodeId;
use libp2p::Multiaddr;
use serde_json::Value;
use std::{path::Path, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// For everything that must happen, on a busy machine. Who comes late hears a worker's next ad after up to 45 s.
const SOON: Duration = Duration::from_secs(120);
/// What a worker charges per million tokens.
const PRICE: u64 = 1_000_000;

/// A worker and a buyer that never heard of a plane.
struct Mesh {
    _engine: ScriptedEngine,
    worker: Member,
    buyer: Member,
}

impl Mesh {
    async fn start() -> Self {
        let engine = ScriptedEngine::start().await.expect("an engine");
        let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
        let sells = Sells::new(engine.url(), PRICE, PRICE, 8);
        let worker = Member::start(MemberSpec::worker(buyer.addresses().await, sells)).await.expect("a worker");
        buyer.knows(CHAT_MODEL, 1, SOON).await.expect("the worker's ad");
        Mesh { _engine: engine, worker, buyer }
    }

    /// Buys at an auction, so that there is one to show.
    fn job(&self, prompt: &str) -> JoinHandle<Result<ChatReport, ChatError>> {
        let order = ChatOrder { path: PathChoice::Auction, ..order(CHAT_MODEL, prompt, 64) };
        let role = self.buyer.node.buyer().clone();
        tokio::spawn(async move {
            let (events, mut heard) = mpsc::channel(256);
            let (_never, mut cancel) = watch::channel(false);
            let reading = tokio::spawn(async move { while heard.recv().await.is_some() {} });
            let result = role.chat(order, &events, &mut cancel).await;
            drop(events);
            reading.await.expect("no panic");
            result
        })
    }

    async fn done(&self, prompt: &str) {
        let report = self.job(prompt).await.expect("no panic").expect("an answer");
        assert_eq!(report.answer, prompt);
    }

    /// A plane that begins at the buyer, with its home in `home`.
    async fn plane(&self, home: &Path) -> Running {
        start(home, self.buyer.addresses().await, |_| {}).await
    }
}

async fn start(home: &Path, bootstrap: Vec<Multiaddr>, change: impl FnOnce(&mut Settings)) -> Running {
    let keys = Keys {
        listen: Some(([127, 0, 0, 1], 0).into()),
        watch_listen: Some("127.0.0.1:0".into()),
        network: Some(NETWORK.parse().expect("a network")),
        bootstrap: Some(bootstrap.into_iter().map(Into::into).collect()),
        p2p_listen: Some(vec![loopback()]),
        mdns: Some(false),
        ..Keys::default()
    };
    let mut settings = Settings::load(home, keys).expect("good settings");
    change(&mut settings);
    Running::start(settings).await.expect("a plane")
}

async fn get(plane: &Running, path: &str) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().timeout(SOON).build().expect("a client");
    let response = client.get(format!("http://{}{path}", plane.addr)).send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

fn receipts(plane: &Running) -> Vec<ReceiptRow> {
    plane.plane.index.read(|book| query::receipts(book, None, query::MAX_ROWS))
}

fn settled(plane: &Running) -> usize {
    receipts(plane).iter().filter(|receipt| receipt.settled).count()
}

async fn has_settled(plane: &Running, jobs: usize) {
    eventually(&format!("{jobs} settled jobs in the index"), SOON, || async { settled(plane) >= jobs })
        .await
        .expect("they come");
    assert_eq!(settled(plane), jobs, "and no more");
}

async fn is_online(plane: &Running, node: &NodeId) {
    let online =
        || async { plane.plane.index.read(|book| query::node(book, node, clock::now())).is_some_and(|view| view.online) };
    eventually("a node that only gossips on the plane", SOON, online).await.expect("it is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_with_an_empty_store_finds_what_was_said_before_it_came() {
    let mesh = Mesh::start().await;
    for prompt in ["one", "two words", "three words here"] {
        mesh.done(prompt).await;
    }
    let home = tempfile::tempdir().expect("a directory");
    let plane = mesh.plane(home.path()).await;
    let worker = mesh.worker.node.id();
    is_online(&plane, &worker).await;
    has_settled(&plane, 3).await;
    // And what is said from now on, by gossip.
    mesh.done("four").await;
    has_settled(&plane, 4).await;

    let (status, node) = get(&plane, &format!("/api/v1/nodes/{worker}")).await;
    assert_eq!((status, &node["online"], &node["work"]["jobs"]), (200, &true.into(), &4.into()));
    assert_eq!(node["models"][0]["id"], CHAT_MODEL);
    let (_, models) = get(&plane, "/api/v1/nodes").await;
    assert_eq!(models["nodes"].as_array().expect("a list").len(), 1);
    let (_, shown) = get(&plane, &format!("/api/v1/receipts?worker={worker}")).await;
    let shown = shown["receipts"].as_array().expect("a list").clone();
    assert_eq!(shown.len(), 4);
    let digest = shown[0]["digest"].as_str().expect("a digest");
    let (status, cpr) = get(&plane, &format!("/api/v1/cprs/{digest}")).await;
    assert_eq!(status, 200);
    assert!(cpr["receipts"][0]["signed"]["buyer"].is_string(), "both statements: {cpr}");
    let (_, auctions) = get(&plane, "/api/v1/auctions").await;
    assert_eq!(auctions["auctions"][0]["winner"], worker.to_string(), "{auctions}");
    for (path, expected) in [
        ("/api/v1/nodes/x", 400),
        ("/api/v1/nodes/16Uiu2HAkJy3EoQ9Ctt6n7veDcR2bXYZYDrCZ2R2KBAP8CJzugVZR", 404),
        ("/api/v1/cprs/00", 400),
        ("/api/v1/receipts?limit=x", 400),
        ("/readyz", 200),
        ("/healthz", 200),
    ] {
        assert_eq!(get(&plane, path).await.0, expected, "{path}");
    }
    let watch = plane.watch_addr.expect("it is watched");
    let metrics = reqwest::get(format!("http://{watch}/metrics")).await.expect("an answer").text().await.expect("text");
    assert!(metrics.contains("infernet_plane_nodes_online 1"), "{metrics}");
    assert_eq!(get(&plane, "/metrics").await.0, 404, "only where the machine is watched");
    plane.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_a_plane_hears_of_through_others_is_asked_where_its_ad_says() {
    let hub = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a hub");
    let engine = ScriptedEngine::start().await.expect("an engine");
    let sells = Sells::new(engine.url(), PRICE, PRICE, 8);
    let worker = Member::start(MemberSpec::worker(hub.addresses().await, sells)).await.expect("a worker");
    let buyer = Member::start(MemberSpec::buyer(hub.addresses().await)).await.expect("a buyer");
    buyer.knows(CHAT_MODEL, 1, SOON).await.expect("the worker's ad");
    let mesh = Mesh { _engine: engine, worker, buyer };
    mesh.done("one").await;
    // Only the worker can tell of it.
    mesh.buyer.node.shutdown(SOON).await;
    let home = tempfile::tempdir().expect("a directory");
    let plane = start(home.path(), hub.addresses().await, |settings| settings.buys = false).await;
    has_settled(&plane, 1).await;
    plane.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plane_that_lost_its_store_makes_the_same_index_again() {
    let mesh = Mesh::start().await;
    let home = tempfile::tempdir().expect("a directory");
    let plane = mesh.plane(home.path()).await;
    is_online(&plane, &mesh.worker.node.id()).await;
    for prompt in ["one", "two words", "three words here"] {
        mesh.done(prompt).await;
    }
    has_settled(&plane, 3).await;
    let before = receipts(&plane);
    let kept = plane.plane.store.clone();
    eventually("all in the store", SOON, || async { kept.receipts_after(0, MAX_PAGE).await.is_ok_and(|page| page.len() == 3) })
        .await
        .expect("they are kept");
    drop(kept);
    plane.stop(SOON).await;

    // From its store: nobody else is asked.
    let again = start(home.path(), Vec::new(), |settings| settings.buys = false).await;
    assert_eq!(receipts(&again), before, "as it was before the restart");
    again.stop(SOON).await;

    // From nodes.
    std::fs::remove_dir_all(home.path().join("store")).expect("its store is lost");
    let anew = mesh.plane(home.path()).await;
    has_settled(&anew, 3).await;
    assert_eq!(receipts(&anew), before, "the same, whoever told it");
    anew.stop(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_of_the_mesh_is_lost_with_the_plane() {
    let mesh = Mesh::start().await;
    let home = tempfile::tempdir().expect("a directory");
    let plane = mesh.plane(home.path()).await;
    is_online(&plane, &mesh.worker.node.id()).await;
    let mut jobs = Vec::new();
    for n in 0..12 {
        jobs.push((n, mesh.job(&format!("job {n} says this"))));
        if n == 5 {
            // As a kill has it: nothing is said, nothing is written.
            plane.follower().net().clone().shutdown().await;
        }
    }
    drop(plane);
    for (n, job) in jobs {
        let report = job.await.expect("no panic").expect("every job ends well");
        assert_eq!(report.answer, format!("job {n} says this"));
    }
    mesh.done("and goes on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_shows_a_job_as_it_is_settled_and_ends_with_the_plane() {
    let mesh = Mesh::start().await;
    let home = tempfile::tempdir().expect("a directory");
    let plane = mesh.plane(home.path()).await;
    is_online(&plane, &mesh.worker.node.id()).await;
    let client = reqwest::Client::builder().no_proxy().timeout(SOON).build().expect("a client");
    let url = format!("http://{}/live?of=/receipts", plane.addr);
    let mut live = client.get(url).send().await.expect("an answer");
    assert_eq!(
        (live.status().as_u16(), &live.headers()["content-type"]),
        (200, &"text/event-stream".parse().expect("a value"))
    );
    mesh.done("seen at once").await;
    let mut seen = String::new();
    while !seen.contains("both signed") {
        let chunk = live.chunk().await.expect("it goes on").expect("it has not ended");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(seen.contains("event: asof") && seen.contains(r#""id":"receipts""#), "{seen}");
    for (of, expected) in [("/nowhere", 404), ("/chat", 404), ("/signin", 404), ("/jobs", 401), ("//evil.example", 404)] {
        assert_eq!(get(&plane, &format!("/live?of={of}")).await.0, expected, "{of}");
    }
    // Its grace is longer than this test waits: who only looks on does not hold it.
    let stopped = tokio::time::timeout(SOON, plane.stop(10 * SOON)).await;
    stopped.expect("an open page does not keep a plane from stopping");
    while live.chunk().await.is_ok_and(|chunk| chunk.is_some()) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_the_planes_own_client_is_on_the_plane() {
    let mesh = Mesh::start().await;
    let home = tempfile::tempdir().expect("a directory");
    let plane = mesh.plane(home.path()).await;
    let gateway = plane.plane.gateway.clone().expect("it buys");
    let known = || async { !gateway.through().buyer.known_models().await.is_empty() };
    eventually("the gateway's own buyer hears of the worker", SOON, known).await.expect("it does");
    let (role, order) = (gateway.through().buyer.clone(), order(CHAT_MODEL, "bought by the plane", 64));
    let (events, mut heard) = mpsc::channel(256);
    let reading = tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let (_never, mut cancel) = watch::channel(false);
    let report = role.chat(order, &events, &mut cancel).await.expect("an answer");
    drop(events);
    reading.await.expect("no panic");
    assert_eq!(report.answer, "bought by the plane");
    has_settled(&plane, 1).await;
    drop((gateway, role));
    plane.stop(SOON).await;
}
