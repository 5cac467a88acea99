//! The way between buyer and worker breaks within an answer: it goes on over the next one, nothing is lost or repeated, and there is
//! one receipt for it.

use infernet_node::{
    backend,
    buyer::{Buyer, ChatError, ChatEvent},
    chat::client::Progress,
    clock,
    market::pricing::Pricing,
    node::{Node, Serve, Settings},
    report::ChatReport,
    store,
};
use infernet_testnet::{
    cluster::{CREDIT, Member, MemberSpec, NETWORK, eventually, loopback},
    demo::order,
    engine::{EngineOptions, EngineServer},
    shim::{Link, Quality},
};
use infernet_wire::{
    key::NodeKey,
    money::{MicroUsd, Price},
};
use std::{net::Ipv4Addr, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

const MODEL: &str = "tiny-chat";
const PROMPT: &str = "Tell me a story about a fox.";
const TOKENS: u32 = 48;
/// Tokens per second: an answer takes some seconds.
const SPEED: f64 = 12.0;
/// No waiting.
const FAST: f64 = 1_000.0;
/// An answer outlasts the test.
const SLOW: f64 = 4.0;
/// For everything that must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(90);
/// Long enough that the buyer gives the stream up, and short of the grace.
const CUT: Duration = Duration::from_millis(4_500);

/// A worker whose chat endpoint is reached over `link`, and a buyer.
struct Stage {
    worker: Member,
    buyer: Member,
    link: Link,
    engine: EngineServer,
}

impl Stage {
    async fn start(speed: f64) -> Self {
        let options = EngineOptions { tokens_per_second: Some(speed), ..EngineOptions::default() };
        let engine = EngineServer::start(options).await.expect("an engine");
        let link = Link::udp(Quality::default()).await.expect("a link");
        let worker = worker(&engine.url(), &link).await;
        link.aim(worker.node.chat_addr());
        let buyer = Member::start(MemberSpec::buyer(worker.addresses().await)).await.expect("a buyer");
        buyer.knows(MODEL, 1, SOON).await.expect("the worker's ad");
        Stage { worker, buyer, link, engine }
    }

    async fn counter(&self, name: &str) -> u64 {
        self.worker.node.counters().await.get(name).copied().unwrap_or_default()
    }

    async fn counted(&self, name: &str, n: u64) {
        let reached = || async { self.counter(name).await >= n };
        eventually(&format!("{name} = {n}"), SOON, reached).await.expect("it is counted");
        assert_eq!(self.counter(name).await, n, "{name}");
    }

    /// What the engine says when asked directly.
    async fn expected(&self) -> String {
        let body = serde_json::json!({
            "model": MODEL,
            "messages": [{ "role": "user", "content": PROMPT }],
            "stream": false,
            "options": { "temperature": 0, "num_predict": TOKENS },
        });
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = http.post(format!("{}/api/chat", self.engine.url())).json(&body).send().await.expect("an answer");
        let answer: serde_json::Value = answer.json().await.expect("JSON");
        answer.pointer("/message/content").and_then(|text| text.as_str()).expect("text").to_owned()
    }

    fn receipts(&self, of: &Member) -> u64 {
        of.node.store().counts().expect("the store answers").receipts
    }
}

async fn worker(engine: &str, link: &Link) -> Member {
    let home = tempfile::Builder::new().prefix("infernet-").tempdir().expect("a home");
    let network = NETWORK.parse().expect("a name");
    let engine = backend::connect(&format!("ollama={engine}").parse().expect("an engine")).expect("it connects");
    let price = Price { input: MicroUsd(100_000), output: MicroUsd(400_000) };
    let mut serve = Serve::new(vec![engine.into()], Pricing::flat(price), 4);
    serve.chat_advertise = vec![link.addr()];
    serve.credit.free = CREDIT;
    let settings = Settings {
        key: NodeKey::from_bytes(&clock::random()).expect("a key"),
        former: Vec::new(),
        network,
        listen: vec![loopback()],
        chat_listen: (Ipv4Addr::LOCALHOST, 0).into(),
        bootstrap: Vec::new(),
        mdns: false,
        reach: Default::default(),
        max_peers: 64,
        serve: Some(serve),
        preferences: Default::default(),
        tap: None,
    };
    let store = store::open(home.path(), &settings.network).expect("a store");
    Member { node: Node::start(settings, store).await.expect("a worker"), home }
}

/// A running job: what comes, and what it will report.
struct Asked {
    events: mpsc::Receiver<ChatEvent>,
    report: JoinHandle<Result<ChatReport, ChatError>>,
    text: String,
    resumed: Vec<String>,
}

fn ask(buyer: &Buyer) -> Asked {
    let (told, events) = mpsc::channel(256);
    let buyer = buyer.clone();
    let report = tokio::spawn(async move {
        let (_never, mut cancel) = watch::channel(false);
        buyer.chat(order(MODEL, PROMPT, TOKENS), &told, &mut cancel).await
    });
    Asked { events, report, text: String::new(), resumed: Vec::new() }
}

impl Asked {
    /// Reads on until so many pieces of the answer have come, or it is over.
    async fn read(&mut self, mut pieces: usize) {
        while pieces > 0 {
            match timeout(SOON, self.events.recv()).await.expect("no hang") {
                Some(ChatEvent::Stream(Progress::Text { text, .. })) => {
                    self.text.push_str(&text);
                    pieces -= 1;
                }
                Some(ChatEvent::Stream(Progress::Resumed { path, .. })) => self.resumed.push(path.label().into()),
                Some(_) => {}
                None => return,
            }
        }
    }

    async fn end(mut self) -> (Result<ChatReport, ChatError>, String, Vec<String>) {
        self.read(usize::MAX).await;
        (timeout(SOON, self.report).await.expect("no hang").expect("no panic"), self.text, self.resumed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_is_cut_within_an_answer_costs_time_and_nothing_else() {
    let stage = Stage::start(SPEED).await;
    let mut asked = ask(stage.buyer.node.buyer());
    asked.read(8).await;
    stage.link.cut();
    sleep(CUT).await;
    stage.link.mend();
    let (report, text, resumed) = asked.end().await;
    let report = report.expect("an answer");
    assert_eq!(text, stage.expected().await, "byte for byte");
    assert_eq!(report.answer, text);
    assert_eq!((report.stream.resumed, resumed.len()), (1, 1), "{resumed:?}");
    let receipt = report.receipt.expect("a receipt");
    assert!(receipt.verified);
    assert_eq!(receipt.status, "completed");
    stage.counted("chat.acknowledged", 1).await;
    stage.counted("chat.resumed.direct", 1).await;
    assert_eq!(stage.counter("chat.started").await, 1, "one job");
    assert_eq!((stage.receipts(&stage.worker), stage.receipts(&stage.buyer)), (1, 1), "one receipt");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_ended_while_the_way_was_cut_still_comes_whole_and_is_signed() {
    let stage = Stage::start(SPEED).await;
    let mut asked = ask(stage.buyer.node.buyer());
    asked.read(TOKENS as usize - 20).await;
    stage.link.cut();
    // The engine is done long before, and its slot is free for others.
    let status = || async { stage.worker.node.status().await.seller.expect("it sells").running };
    eventually("the slot is free", SOON, || async { status().await == 0 }).await.expect("it is");
    sleep(CUT).await;
    stage.link.mend();
    let (report, text, _) = asked.end().await;
    let report = report.expect("an answer");
    assert_eq!(text, stage.expected().await, "byte for byte");
    assert!(report.receipt.expect("a receipt").verified);
    assert_eq!(report.stream.resumed, 1);
    stage.counted("chat.acknowledged", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_wants_no_more_while_the_way_is_cut_gets_what_came() {
    let stage = Stage::start(SLOW).await;
    let mut asked = ask(stage.buyer.node.buyer());
    asked.read(4).await;
    stage.link.cut();
    sleep(CUT).await;
    // The receiver of the events is how the caller hangs up.
    let Asked { events, report, .. } = asked;
    drop(events);
    stage.link.mend();
    let report = timeout(SOON, report).await.expect("no hang").expect("no panic").expect("it is settled");
    assert_eq!(report.receipt.expect("a receipt for what came").status, "cancelled");
    stage.counted("chat.acknowledged", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_way_over_udp_the_answer_comes_over_the_mesh_until_there_is_one() {
    let stage = Stage::start(FAST).await;
    stage.link.cut();
    let (report, text, resumed) = ask(stage.buyer.node.buyer()).end().await;
    let report = report.expect("an answer");
    assert_eq!(text, stage.expected().await, "byte for byte");
    assert!(report.stream.path.starts_with("direct libp2p 127.0.0.1:"), "{}", report.stream.path);
    assert!(report.receipt.expect("a receipt").verified && resumed.is_empty());
    stage.counted("chat.acknowledged", 1).await;
    stage.counted("chat.mesh.direct", 1).await;
    stage.link.mend();
    // Each job tries the better way for the next one.
    for job in 1.. {
        let (report, ..) = ask(stage.buyer.node.buyer()).end().await;
        if report.expect("an answer").stream.path.starts_with("direct quic ") {
            break;
        }
        assert!(job < 20, "the way that is there again is never found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_on_over_the_mesh_when_the_way_over_udp_is_gone_for_good() {
    let stage = Stage::start(SPEED).await;
    let mut asked = ask(stage.buyer.node.buyer());
    asked.read(8).await;
    stage.link.cut();
    let (report, text, _) = asked.end().await;
    let report = report.expect("an answer");
    assert_eq!(text, stage.expected().await, "byte for byte");
    assert!(report.stream.path.starts_with("direct libp2p "), "{}", report.stream.path);
    assert_eq!(report.stream.resumed, 1);
    assert!(report.receipt.expect("a receipt").verified);
    stage.counted("chat.acknowledged", 1).await;
    assert_eq!(stage.counter("chat.started").await, 1);
    assert_eq!((stage.receipts(&stage.worker), stage.receipts(&stage.buyer)), (1, 1), "one receipt");
}
