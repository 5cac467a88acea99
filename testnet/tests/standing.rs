//! Jobs without an auction: a worker's ad taken at its word, over real nodes.
//!
//! Where a worker must be full, restarted or slow, it is the node that it would be in life: a process that is killed, an engine
//! that takes its time.

#![expect(clippy::panic, reason = "a failing test may panic")]

use infernet_node::{
    buyer::{ChatError, ChatEvent, ChatOrder, PathChoice, Trust},
    report::ChatReport,
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, Sells, eventually, process::Process},
    demo::order,
    engine::{EngineOptions, EngineServer},
};
use infernet_wire::{
    chat::{ChatMessage, Role},
    id::NodeId,
    offer::SelectionRule,
};
use std::{path::Path, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

const MODEL: &str = "tiny-chat";
/// For everything that must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// The price decides, whatever delays a busy machine brings.
fn ask(prompt: &str, tokens: u32, path: PathChoice) -> ChatOrder {
    ChatOrder { path, rule: SelectionRule::CHEAPEST, ..order(MODEL, prompt, tokens) }
}

/// An order with one of the three ways.
fn story(path: PathChoice) -> ChatOrder {
    ask("Tell me a story about a fox.", 8, path)
}

/// A job under way: what it tells, and how it ends.
struct Running {
    events: mpsc::Receiver<ChatEvent>,
    result: JoinHandle<Result<ChatReport, ChatError>>,
}

impl Running {
    fn start(buyer: &Member, order: ChatOrder) -> Self {
        let (events, heard) = mpsc::channel(256);
        let role = buyer.node.buyer().clone();
        let result = tokio::spawn(async move {
            let (_never, mut cancel) = watch::channel(false);
            role.chat(order, &events, &mut cancel).await
        });
        Running { events: heard, result }
    }

    /// Reads events until one is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&ChatEvent) -> bool) {
        let reading = async {
            while let Some(event) = self.events.recv().await {
                if wanted(&event) {
                    return;
                }
            }
            panic!("the job ended before {what}");
        };
        timeout(SOON, reading).await.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"));
    }

    /// All other events, and the result.
    async fn end(mut self) -> (Vec<ChatEvent>, Result<ChatReport, ChatError>) {
        let draining = async {
            let mut events = Vec::new();
            while let Some(event) = self.events.recv().await {
                events.push(event);
            }
            (events, self.result.await.expect("no panic"))
        };
        timeout(SOON, draining).await.expect("no job hangs")
    }
}

async fn job(buyer: &Member, order: ChatOrder) -> ChatReport {
    let (_, result) = Running::start(buyer, order).end().await;
    let report = result.expect("an answer");
    assert!(report.receipt.as_ref().is_some_and(|receipt| receipt.verified) && !report.answer.is_empty());
    report
}

fn opened(event: &ChatEvent) -> bool {
    matches!(event, ChatEvent::Stream(infernet_node::chat::client::Progress::Opened { .. }))
}

/// A counter of a worker of this process.
async fn counter(worker: &Member, name: &str) -> u64 {
    let status = worker.node.status().await.seller.expect("it sells");
    status.counters.get(name).copied().unwrap_or_default()
}

/// A buyer, and workers of this process at these prices, each with these slots and an engine of its own.
struct Market {
    buyer: Member,
    workers: Vec<Member>,
    _engines: Vec<EngineServer>,
}

impl Market {
    async fn start(prices: &[u64], slots: u16, engine: EngineOptions) -> Self {
        let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
        let bootstrap = buyer.addresses().await;
        let (mut workers, mut engines) = (Vec::new(), Vec::new());
        for price in prices {
            let engine = EngineServer::start(engine.clone()).await.expect("an engine");
            let sells = Sells::new(engine.url(), *price, *price, slots);
            workers.push(Member::start(MemberSpec::worker(bootstrap.clone(), sells)).await.expect("a worker"));
            engines.push(engine);
        }
        buyer.knows(MODEL, prices.len(), SOON).await.expect("the workers' ads");
        Market { buyer, workers, _engines: engines }
    }

    fn id(&self, n: usize) -> NodeId {
        self.workers.get(n).expect("a worker").node.id()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_good_job_the_next_needs_no_auction() {
    let market = Market::start(&[100_000], 2, EngineOptions::default()).await;
    let first = job(&market.buyer, story(PathChoice::Auto)).await;
    assert!(!first.auction.standing);
    let second = job(&market.buyer, story(PathChoice::Auto)).await;
    assert!(second.auction.standing, "{:?}", second.auction);
    assert_eq!((second.auction.winner, second.stream.retries), (market.id(0), 0));
    assert_eq!(second.answer, first.answer);
    assert_eq!(second.receipt.map(|receipt| receipt.worker), Some(market.id(0)));
    let worker = &market.workers[0];
    assert_eq!((counter(worker, "claims").await, counter(worker, "standing").await, counter(worker, "bids").await), (1, 1, 1));
    assert!(!job(&market.buyer, story(PathChoice::Auction)).await.auction.standing, "an order may forbid it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_may_insist_on_a_standing_price_of_whoever_there_is() {
    let market = Market::start(&[100_000, 300_000], 2, EngineOptions::default()).await;
    let report = job(&market.buyer, story(PathChoice::Standing)).await;
    assert_eq!((report.auction.standing, report.auction.winner), (true, market.id(0)));
    let dear = ChatOrder {
        trust: Trust { deny: [market.id(0), market.id(1)].into(), ..Trust::default() },
        ..story(PathChoice::Standing)
    };
    let error = Running::start(&market.buyer, dear).end().await.1.expect_err("nobody is left").to_string();
    assert!(error.contains("2 workers that serve tiny-chat are left out") && error.contains("deny"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_worker_is_passed_over_without_the_caller_noticing() {
    let slow = EngineOptions { tokens_per_second: Some(4.0), ..EngineOptions::default() };
    let market = Market::start(&[100_000, 200_000], 1, slow).await;
    // Both are proven; another buyer then takes the only slot of the cheaper one.
    for n in [0, 1] {
        let only = Trust { allow: [market.id(n)].into(), ..Trust::default() };
        job(&market.buyer, ChatOrder { trust: only, ..ask("Hello", 2, PathChoice::Auto) }).await;
    }
    let other = Member::start(MemberSpec::buyer(market.buyer.addresses().await)).await.expect("another buyer");
    other.knows(MODEL, 2, SOON).await.expect("the workers' ads");
    let only = Trust { allow: [market.id(0)].into(), ..Trust::default() };
    let mut long =
        Running::start(&other, ChatOrder { trust: only, ..ask("Tell me a story about a fox.", 64, PathChoice::Auto) });
    long.until("the other buyer's job runs", opened).await;
    let no_hold = async || market.workers[1].node.status().await.seller.is_some_and(|seller| seller.held == 0);
    eventually("the loser lets go of its slot", SOON, no_hold).await.expect("it hears who won");

    let (events, result) = Running::start(&market.buyer, ask("Hello", 2, PathChoice::Auto)).end().await;
    let report = result.expect("an answer");
    assert_eq!((report.auction.winner, report.stream.retries), (market.id(1), 0));
    assert!(!events.iter().any(|event| matches!(event, ChatEvent::Retry { .. })), "the refusal is no failure");
    assert_eq!(counter(&market.workers[0], "claim_refused.no_slot").await, 1);
    drop(long);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_stand_side_by_side_and_no_worker_gets_more_than_its_slots() {
    let slow = EngineOptions { tokens_per_second: Some(20.0), ..EngineOptions::default() };
    let market = Market::start(&[100_000, 101_000], 8, slow).await;
    for n in [0, 1] {
        let only = Trust { allow: [market.id(n)].into(), ..Trust::default() };
        job(&market.buyer, ChatOrder { trust: only, ..ask("Hello", 2, PathChoice::Auto) }).await;
    }
    let jobs: Vec<_> =
        (0..16).map(|_| Running::start(&market.buyer, ask("Tell me a story about a fox.", 24, PathChoice::Auto))).collect();
    let mut standing = Vec::new();
    for job in jobs {
        let report = job.end().await.1.expect("an answer");
        standing.push((report.auction.standing, report.auction.winner));
    }
    assert!(standing.iter().all(|(standing, _)| *standing), "sixteen jobs for sixteen slots: {standing:?}");
    assert_eq!(standing.iter().filter(|(_, winner)| *winner == market.id(0)).count(), 8);
    for worker in &market.workers {
        assert_eq!(counter(worker, "claim_refused.no_slot").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_turn_goes_where_the_conversation_was_read() {
    // Reading it again takes longer than any delay of a busy machine: six seconds and more, as buyers reckon.
    let beginning = "a long beginning ".repeat(2_000);
    let market = Market::start(&[100_000, 100_500, 101_000], 4, EngineOptions::metronome(200.0, 4)).await;
    for n in [0, 1, 2] {
        let only = Trust { allow: [market.id(n)].into(), ..Trust::default() };
        job(&market.buyer, ChatOrder { trust: only, ..ask("Hello", 2, PathChoice::Auto) }).await;
    }
    // The second turn, after `n` alone was asked the first.
    let turns = async |n: usize, path| {
        let only = Trust { allow: [market.id(n)].into(), ..Trust::default() };
        let mut order = ChatOrder { trust: only, ..ask(&format!("Story {n}: {beginning}"), 4, PathChoice::Auto) };
        let first = job(&market.buyer, order.clone()).await;
        (order.trust, order.path, order.rule) = (Trust::default(), path, SelectionRule::BALANCED);
        order.request.messages.push(ChatMessage::new(Role::Assistant, first.answer));
        order.request.messages.push(ChatMessage::new(Role::User, "And then?"));
        job(&market.buyer, order).await.auction
    };
    for n in [2, 1] {
        let standing = turns(n, PathChoice::Auto).await;
        assert_eq!((standing.standing, standing.winner), (true, market.id(n)), "{}", standing.reason);
        // On a busy machine a bid may come too late.
        let of_all = async {
            loop {
                let auction = turns(n, PathChoice::Auction).await;
                if auction.bids.len() == 3 {
                    break auction;
                }
            }
        };
        let auction = timeout(SOON, of_all).await.expect("an auction of all three");
        assert_eq!((auction.standing, auction.winner), (false, market.id(n)), "{}", auction.reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_gets_the_slot_that_becomes_free() {
    let slow = EngineOptions { tokens_per_second: Some(20.0), ..EngineOptions::default() };
    let market = Market::start(&[100_000], 1, slow).await;
    let mut long = Running::start(&market.buyer, ask("Tell me a story about a fox.", 40, PathChoice::Auto));
    long.until("the long job runs", opened).await;
    let impatient = Running::start(&market.buyer, story(PathChoice::Auto)).end().await.1.expect_err("no slot");
    assert!(impatient.to_string().contains("no_slot"), "{impatient}");

    let patient = ChatOrder { wait_ms: 50_000, ..story(PathChoice::Auto) };
    let (events, result) = Running::start(&market.buyer, patient).end().await;
    assert!(events.iter().any(|event| matches!(event, ChatEvent::Waiting { reason, .. } if reason.contains("no_slot"))));
    assert!(result.expect("an answer once the slot is free").receipt.is_some_and(|receipt| receipt.verified));
    long.end().await.1.expect("the long one was not disturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_does_not_help_a_price_or_a_model() {
    let market = Market::start(&[100_000], 1, EngineOptions::default()).await;
    let mut cheap = ChatOrder { wait_ms: 50_000, ..story(PathChoice::Auto) };
    (cheap.ceiling.input.0, cheap.ceiling.output.0) = (1, 1);
    let unknown = ChatOrder { wait_ms: 50_000, ..order("no-such-model", "Hello", 8) };
    for (order, says) in [(cheap, "raise --max-price"), (unknown, "no known worker serves no-such-model")] {
        let (events, result) = Running::start(&market.buyer, order).end().await;
        let error = result.expect_err("nobody bids").to_string();
        assert!(error.contains(says), "{error}");
        assert!(!events.iter().any(|event| matches!(event, ChatEvent::Waiting { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_leave_workers_out_and_say_so() {
    let market = Market::start(&[100_000, 200_000], 2, EngineOptions::default()).await;
    let with = |trust| ChatOrder { trust, ..story(PathChoice::Auto) };
    let not_first = Trust { deny: [market.id(0)].into(), ..Trust::default() };
    assert_eq!(job(&market.buyer, with(not_first)).await.auction.winner, market.id(1));
    let only_first = Trust { allow: [market.id(0)].into(), ..Trust::default() };
    assert_eq!(job(&market.buyer, with(only_first)).await.auction.winner, market.id(0));
    // Each has one settled receipt with us.
    let known = Trust { min_reputation: 1, ..Trust::default() };
    job(&market.buyer, with(known)).await;
    let renowned = Trust { min_reputation: 5, ..Trust::default() };
    let europe = Trust { regions: ["eu".into()].into(), ..Trust::default() };
    for (trust, says) in [(renowned, "2 workers by min_reputation"), (europe, "2 workers by regions")] {
        let error = Running::start(&market.buyer, with(trust)).end().await.1.expect_err("nobody is left").to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_died_or_drains_is_no_dead_end() {
    let engine = EngineServer::start(EngineOptions::default()).await.expect("an engine");
    let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
    let bootstrap: Vec<String> = buyer.addresses().await.iter().map(ToString::to_string).collect();
    let binary = Path::new(env!("CARGO_BIN_EXE_infernet-testnet"));
    let start = async |price| {
        let sells = Sells::new(engine.url(), price, price, 2);
        Process::worker(binary, &sells, &bootstrap, &[]).await.expect("a worker")
    };
    let (mut cheap, dear) = (start(100_000).await, start(200_000).await);
    buyer.knows(MODEL, 2, SOON).await.expect("the workers' ads");
    // On a busy machine a stranger's bids may come too late, for as long as its process does not get to run.
    let won = async { while job(&buyer, story(PathChoice::Auction)).await.auction.winner != cheap.status.id {} };
    timeout(SOON, won).await.expect("the cheapest never won");
    let standing = job(&buyer, story(PathChoice::Auto)).await;
    let auction = standing.auction;
    assert_eq!((auction.standing, auction.winner), (true, cheap.status.id), "{}", auction.reason);

    // Killed: its ad lives on for a while, and nobody answers there.
    cheap.kill().await;
    let report = job(&buyer, story(PathChoice::Auto)).await;
    assert_eq!(report.auction.winner, dear.status.id);
    // It is cheaper, so it is waited for in auctions until it has missed two.
    let mut next = Vec::new();
    for _ in 0..4 {
        let report = job(&buyer, story(PathChoice::Auto)).await;
        next.push((report.auction.standing, report.auction.winner));
    }
    assert_eq!(next.last(), Some(&(true, dear.status.id)), "{next:?}");

    // Drained: it refuses, and nobody else is there.
    assert!(dear.signal("TERM").await);
    // The signal may still be on its way.
    let refused = async {
        loop {
            if let Err(error) = Running::start(&buyer, story(PathChoice::Auto)).end().await.1 {
                break error.to_string();
            }
        }
    };
    let error = timeout(SOON, refused).await.expect("nobody is left");
    assert!(error.contains("draining") || error.contains("did not answer") || error.contains("no peers"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_same_model_meet() {
    let engine = EngineServer::start(EngineOptions::default()).await.expect("an engine");
    let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
    let bootstrap: Vec<String> = buyer.addresses().await.iter().map(ToString::to_string).collect();
    let sells = Sells::new(engine.url(), 100_000, 100_000, 2);
    let alias = "tiny-chat=meta-llama/Llama-3.1-8B-Instruct";
    let binary = Path::new(env!("CARGO_BIN_EXE_infernet-testnet"));
    let worker = Process::worker(binary, &sells, &bootstrap, &["--alias", alias]).await.expect("a worker");
    buyer.knows(MODEL, 1, SOON).await.expect("the worker's ad");
    for (name, path) in
        [("llama3.1:8b", PathChoice::Auction), ("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", PathChoice::Standing)]
    {
        let report = job(&buyer, ChatOrder { path, ..order(name, "Hello", 4) }).await;
        assert_eq!((report.auction.winner, report.model.as_str()), (worker.status.id, "tiny-chat:latest"), "{name}");
    }
    for other in ["llama3.1:70b", "llama3.2:3b", "meta-llama/Llama-3.1-8B"] {
        let (_, result) = Running::start(&buyer, order(other, "Hello", 4)).end().await;
        let error = result.expect_err("another model").to_string();
        assert!(error.contains("no known worker serves"), "{error}");
    }
}
