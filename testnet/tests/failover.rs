//! A worker dies before its first token: the buyer gets its answer from a runner-up, and sees one answer.
//!
//! Workers are processes, killed with SIGKILL; the buyer is a node of this process; the model is the real tiny one, so the
//! answer of the second worker can be compared with what the engine says when asked directly.

use infernet_node::{
    buyer::{ChatEvent, Decided, Prepared},
    chat::client::Progress,
    report::ChatReport,
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, Sells, process::Process},
    demo::order,
    engine::{EngineEvent, EngineOptions, EngineServer},
};
use std::{path::Path, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

const MODEL: &str = "tiny-chat";
const PROMPT: &str = "What is the capital of France?";
/// For everything that must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A buyer, and workers in the order of their prices, the cheapest first.
struct Market {
    buyer: Member,
    workers: Vec<Process>,
    engine: EngineServer,
    /// The cheapest worker's.
    first_engine: EngineServer,
}

impl Market {
    /// `first_token_delay` is the cheapest worker's engine's.
    async fn start(first_token_delay: Duration) -> Self {
        let engine = EngineServer::start(EngineOptions::default()).await.expect("an engine");
        let options = EngineOptions { first_token_delay, ..EngineOptions::default() };
        let first_engine = EngineServer::start(options).await.expect("an engine");
        let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
        let bootstrap: Vec<String> = buyer.addresses().await.iter().map(ToString::to_string).collect();
        let binary = Path::new(env!("CARGO_BIN_EXE_infernet-testnet"));
        let mut workers = Vec::new();
        for (n, engine) in [&first_engine, &engine, &engine].into_iter().enumerate() {
            let price = 100_000 * (n as u64 + 1);
            let sells = Sells::new(engine.url(), price, price, 4);
            workers.push(Process::worker(binary, &sells, &bootstrap, &[]).await.expect("a worker"));
        }
        buyer.knows(MODEL, workers.len(), SOON).await.expect("the workers' ads");
        Market { buyer, workers, engine, first_engine }
    }

    /// An auction that `worker`, the cheapest, has won; on a busy machine its bids may come too late for a while.
    async fn won_by(&self, worker: &Process, prepared: &Prepared) -> Decided {
        let won = async {
            loop {
                let decided = self.buyer.node.buyer().auction(prepared).await.expect("bids");
                if decided.report.winner == worker.status.id && decided.report.bids.len() > 1 {
                    break decided;
                }
            }
        };
        timeout(SOON, won).await.expect("the cheapest worker never won")
    }

    /// What the engine says when asked directly.
    async fn expected(&self) -> String {
        let body = serde_json::json!({
            "model": MODEL,
            "messages": [{ "role": "user", "content": PROMPT }],
            "stream": false,
            "options": { "temperature": 0, "num_predict": 64 },
        });
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = http.post(format!("{}/api/chat", self.engine.url())).json(&body).send().await.expect("an answer");
        let answer: serde_json::Value = answer.json().await.expect("JSON");
        answer.pointer("/message/content").and_then(|text| text.as_str()).expect("text").to_owned()
    }

    async fn check_answer(&self, report: &ChatReport, dead: &Process) {
        assert_eq!(report.answer, self.expected().await, "one whole answer, nothing lost or repeated");
        let receipt = report.receipt.as_ref().expect("a receipt");
        assert!(receipt.verified);
        assert_ne!(receipt.worker, dead.status.id, "from another worker");
        assert!(report.stream.retries >= 1);
        assert!(report.auction.bids.iter().any(|bid| bid.worker == receipt.worker), "a runner-up of the same auction");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn winner_killed_between_accept_and_opened() {
    for stop_first in [true, false] {
        let mut market = Market::start(Duration::ZERO).await;
        let role = market.buyer.node.buyer().clone();
        let prepared = Prepared::new(order(MODEL, PROMPT, 64)).expect("a request");
        let mut dead = market.workers.remove(0);
        let winner = dead.status.id;
        let decided = market.won_by(&dead, &prepared).await;
        if stop_first {
            // The kernel still takes the accept; the process never answers it.
            assert!(dead.signal("STOP").await);
        } else {
            dead.kill().await;
        }
        let (events, mut heard) = mpsc::channel(64);
        let (_never, mut cancel) = watch::channel(false);
        let mut retries = 0;
        let running = async {
            let report = role.run(decided, &prepared, &events, &mut cancel, &mut retries).await;
            drop(events);
            report
        };
        let watching = async {
            let mut failed = Vec::new();
            while let Some(event) = heard.recv().await {
                if let ChatEvent::Retry { worker, .. } = event {
                    failed.push(worker);
                    dead.kill().await;
                }
            }
            failed
        };
        let (report, failed) = timeout(SOON, async { tokio::join!(running, watching) }).await.expect("no hang");
        assert_eq!(failed, [winner]);
        market.check_answer(&report.expect("an answer"), &dead).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn winner_killed_after_opened_before_the_first_token() {
    let mut market = Market::start(Duration::from_secs(600)).await;
    let mut dead = market.workers.remove(0);
    let mut engine = market.first_engine.events();
    let role = market.buyer.node.buyer().clone();
    let prepared = Prepared::new(order(MODEL, PROMPT, 64)).expect("a request");
    let decided = market.won_by(&dead, &prepared).await;
    let (events, mut heard) = mpsc::channel(64);
    let (_never, mut cancel) = watch::channel(false);
    let mut retries = 0;
    let asking = async {
        let report = role.run(decided, &prepared, &events, &mut cancel, &mut retries).await;
        drop(events);
        report
    };
    let killing = async {
        let (mut opened, mut texts) = (0, String::new());
        while let Some(event) = heard.recv().await {
            match event {
                ChatEvent::Stream(Progress::Opened { .. }) => {
                    opened += 1;
                    if opened == 1 {
                        while !matches!(engine.recv().await, Ok(EngineEvent::Started { .. })) {}
                        dead.kill().await;
                    }
                }
                ChatEvent::Stream(Progress::Text { text, .. }) => texts.push_str(&text),
                _ => {}
            }
        }
        (opened, texts)
    };
    let (report, (opened, texts)) = timeout(SOON, async { tokio::join!(asking, killing) }).await.expect("no hang");
    let report = report.expect("an answer");
    assert_eq!(opened, 2, "the dead one and its successor");
    assert_eq!(texts, report.answer, "the caller saw one answer");
    market.check_answer(&report, &dead).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_worker_dying_is_a_clear_error() {
    let mut market = Market::start(Duration::ZERO).await;
    for worker in &mut market.workers {
        worker.kill().await;
    }
    let (events, _heard) = mpsc::channel(64);
    let (_never, mut cancel) = watch::channel(false);
    let asking = market.buyer.node.buyer().chat(order(MODEL, PROMPT, 64), &events, &mut cancel);
    let error = timeout(SOON, asking).await.expect("no hang").expect_err("nobody is left").to_string();
    assert!(error.contains("no peers") || error.contains("no bids"), "{error}");
}
