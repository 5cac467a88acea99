//! Engines that hang, stall, lie, break off and talk nonsense, behind a real worker and a real buyer's OpenAI endpoint.
//!
//! Whatever the engine does: the caller gets a typed error within the engine's deadline, or an answer that is really whole; an
//! answer that is not never looks so; the worker's slot is free again and the engine is let go of; and both sides keep a receipt
//! for what was delivered, and for nothing else.
#![cfg(test)]

mod engine;
mod openai;
mod several;

use engine::{Act, BadEngine, Dialect, MODEL};
use infernet_node::{
    api::{
        Api,
        open::{ApiConfig, Opened},
    },
    backend::Deadlines,
    clock,
    spend::{Caps, Purse},
    store::Page,
};
use infernet_testnet::cluster::{Member, MemberSpec, Sells, eventually};
use infernet_wire::receipt::JobStatus;
use serde_json::{Value, json};
use std::{net::Ipv4Addr, time::Duration};

/// For everything that must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// What the worker's engine gets, in all stages.
const DEADLINE: Duration = Duration::from_millis(800);
/// What a caller waits at most: two workers' attempts, each after an auction of at most a second, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a worker charges for a token of input or output.
const MICRO_USD: u64 = 1;

struct Network {
    engine: BadEngine,
    worker: Member,
    buyer: Member,
    api: Api,
    http: reqwest::Client,
}

/// What the caller saw and what was kept.
#[derive(Debug)]
struct Seen {
    /// HTTP status of a whole answer.
    status: u16,
    /// Its body.
    whole: Value,
    /// The data of the events of a streamed answer.
    events: Vec<String>,
    /// Of both jobs: status, tokens in and out, and whether both sides signed. None if nothing is owed.
    receipts: Vec<(JobStatus, u32, u32, bool)>,
}

impl Network {
    async fn start(dialect: Dialect, script: Vec<Act>) -> Self {
        let engine = BadEngine::start(dialect, script).await;
        let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
        let deadlines = Deadlines { first_byte: DEADLINE, between: DEADLINE, ..Deadlines::default() };
        let sells = Sells { deadlines, ..Sells::new(engine.backend(), MICRO_USD * 1_000_000, MICRO_USD * 1_000_000, 4) };
        let worker = Member::start(MemberSpec::worker(buyer.addresses().await, sells)).await.expect("a worker");
        buyer.knows(MODEL, 1, SOON).await.expect("the worker's ad");
        let opened = Opened::new(buyer.home.path(), ApiConfig::new((Ipv4Addr::LOCALHOST, 0).into())).await.expect("an address");
        let purse = Purse::open(Caps::default(), buyer.node.store().clone(), &[buyer.node.id()].into()).expect("a purse");
        let api = opened.serve(&buyer.node, purse, axum::Router::new()).expect("an endpoint");
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build().expect("a client");
        Network { engine, worker, buyer, api, http }
    }

    async fn ask(&self, stream: bool) -> reqwest::Response {
        let body = json!({
            "model": MODEL, "messages": [{ "role": "user", "content": "Go." }], "max_tokens": 50, "stream": stream,
        });
        let started = clock::instant();
        let asked = self.http.post(format!("{}/chat/completions", self.api.base_url())).json(&body).send().await;
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
        asked.expect("an answer")
    }

    /// A whole answer and a streamed one, and what is left when they are over.
    async fn run(self) -> Seen {
        let whole = self.ask(false).await;
        let (status, whole) = (whole.status().as_u16(), whole.json().await.expect("JSON"));
        let started = clock::instant();
        let body = self.ask(true).await.text().await.expect("a body that ends in order, whatever it says");
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
        let events = body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect();
        let under_way = async || self.worker.node.status().await.seller.expect("it sells").under_way();
        eventually("every job is over", SOON, async || under_way().await == 0).await.expect("idle");
        eventually("the engine is let go of", SOON, async || self.engine.live() == 0).await.expect("let go of");
        let kept = |member: &Member| member.node.store().receipts(Page::newest(10)).expect("the store answers");
        eventually("both keep the same", SOON, async || kept(&self.worker).len() == kept(&self.buyer).len())
            .await
            .expect("kept");
        let receipts = kept(&self.worker).into_iter().map(|signed| {
            let body = signed.receipt();
            assert_eq!(body.amount.0, u64::from(body.input_tokens + body.output_tokens) * MICRO_USD);
            (body.status, body.input_tokens, body.output_tokens, signed.countersign().is_some())
        });
        Seen { status, whole, events, receipts: receipts.collect() }
    }
}

impl Seen {
    /// Nothing came: an error, and nothing is owed.
    fn is_a_clean_failure(&self) {
        assert_eq!((self.status, &self.whole["error"]["code"]), (502, &json!("worker_failed")), "{self:?}");
        self.stream_looks_broken();
        assert!(self.receipts.is_empty(), "{self:?}");
    }

    /// `tokens` came: an error with what came, and that is paid for.
    fn is_a_partial_answer(&self, tokens: u32) {
        assert_eq!((self.status, &self.whole["error"]["code"]), (502, &json!("worker_failed")), "{self:?}");
        let partial = self.whole["error"]["partial"].as_str().expect("what came");
        assert_eq!(partial.split_whitespace().count(), tokens as usize, "{self:?}");
        self.stream_looks_broken();
        assert_eq!(self.receipts.len(), 2, "{self:?}");
        for (status, _, output, signed) in &self.receipts {
            assert_eq!((*status, *output, *signed), (JobStatus::FAILED, tokens, true), "{self:?}");
        }
    }

    /// The answer is whole, and `tokens` are paid for.
    fn is_whole(&self, tokens: u32) {
        assert_eq!((self.status, &self.whole["choices"][0]["finish_reason"]), (200, &json!("stop")), "{self:?}");
        assert_eq!(self.whole["usage"]["completion_tokens"], tokens, "{self:?}");
        assert_eq!(self.events.last().map(String::as_str), Some("[DONE]"), "{self:?}");
        assert_eq!(self.receipts.len(), 2, "{self:?}");
        for (status, input, output, signed) in &self.receipts {
            assert_eq!((*status, *output, *signed), (JobStatus::COMPLETED, tokens, true), "{self:?}");
            assert!(*input <= 200, "more input than the request has bytes: {self:?}");
        }
    }

    fn stream_looks_broken(&self) {
        assert!(!self.events.iter().any(|event| event.contains("[DONE]")), "{self:?}");
        assert!(!self.events.iter().any(|event| event.contains(r#""finish_reason":"stop""#)), "{self:?}");
        // Before the first token it may be an error object instead of a stream; then there are no events at all.
        if let Some(last) = self.events.last() {
            let last: Value = serde_json::from_str(last).expect("JSON");
            assert!(last["error"]["code"].is_string(), "{self:?}");
        }
        assert!(!format!("{self:?}").contains("/secret/"), "the engine's own words stay with its worker");
    }
}

async fn check(script: Vec<Act>) -> Seen {
    Network::start(Dialect::Ollama, script).await.run().await
}

fn words(n: usize) -> Vec<Act> {
    std::iter::once(Act::Head).chain((0..n).map(|_| Act::Word)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_before_its_first_token_costs_its_deadline_and_nothing_else() {
    check(vec![Act::Hang]).await.is_a_clean_failure();
    check(vec![Act::Head, Act::Hang]).await.is_a_clean_failure();
    // Bytes, but never a line: each is within the deadline of the one before.
    check(vec![Act::Head, Act::Drip(b"{")]).await.is_a_clean_failure();
    check(vec![Act::Head, Act::Drip(b"\n")]).await.is_a_clean_failure();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_stops_in_the_middle_is_paid_for_what_came() {
    let then = |last: Act| words(3).into_iter().chain([last]).collect::<Vec<_>>();
    for last in [
        Act::Hang,
        // The connection is cut; the answer ends in order but says not that it is done; it is cut amid a line.
        Act::Cut,
        Act::End,
        Act::Raw(br#"{"message":{"content":"hal"#),
        Act::Drip(b" "),
        Act::Drip(b"\n"),
        Act::Raw(b"this is no JSON\n"),
        Act::Raw(b"[]\n"),
        Act::Raw(b"{\"error\":\"no /secret/ path\"}\n"),
        Act::Raw(b"{\"message\":{\"content\":7},\"done\":false}\n"),
        Act::Raw(b"\xff\xfe\x00\n"),
    ] {
        check(then(last)).await.is_a_partial_answer(3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_floods_one_endless_line_is_cut_off() {
    check(words(3).into_iter().chain([Act::Flood]).collect()).await.is_a_partial_answer(3);
    check(vec![Act::Head, Act::Flood]).await.is_a_clean_failure();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_of_another_kind_is_an_error_from_the_first_byte() {
    check(vec![Act::Raw(b"SSH-2.0-OpenSSH_9.2\r\n")]).await.is_a_clean_failure();
    check(vec![Act::Head, Act::Raw(b"<html>no /secret/ engine</html>\n")]).await.is_a_clean_failure();
    check(vec![Act::Cut]).await.is_a_clean_failure();
    check(vec![Act::Head, Act::End]).await.is_a_clean_failure();
    check(vec![Act::Status("500 Internal Server Error", "no /secret/ path")]).await.is_a_clean_failure();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_engine_is_not_a_failing_one() {
    let slow = [
        Act::Head,
        Act::Word,
        Act::Pause(DEADLINE / 2),
        Act::Word,
        Act::Pause(DEADLINE / 2),
        Act::Word,
        Act::Pause(DEADLINE / 2),
    ];
    check(slow.into_iter().chain([Act::done("\"eval_count\":3"), Act::End]).collect()).await.is_whole(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_lies_about_usage_charges_no_more_than_was_delivered() {
    let lying = |counts: &'static str| words(4).into_iter().chain([Act::done(counts), Act::End]).collect::<Vec<_>>();
    check(lying(r#""eval_count":4294967295,"prompt_eval_count":4294967295"#)).await.is_whole(4);
    check(lying(r#""eval_count":2,"prompt_eval_count":0"#)).await.is_whole(2);
    check(lying(r#""eval_duration":1"#)).await.is_whole(4);
    // Not even a number: the end can't be read, so there was none.
    check(lying(r#""eval_count":-1"#)).await.is_a_partial_answer(4);
    check(lying(r#""eval_count":1e99"#)).await.is_a_partial_answer(4);
}
