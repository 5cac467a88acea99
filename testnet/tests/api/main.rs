//! The OpenAI endpoint of a real node, to the byte: answers, failures, and who may ask.
//!
//! Each test starts a worker with a scripted engine and a buyer whose endpoint is asked over HTTP.

#![cfg(test)]

mod access;
mod chat;
mod comeback;
mod crash;
mod failures;
mod texts;

use infernet_node::{
    api::{
        Api,
        open::{ApiConfig, Opened},
    },
    spend::{Caps, Purse},
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, Sells},
    scripted::{CHAT_MODEL, ScriptedEngine},
};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use std::{net::Ipv4Addr, time::Duration};

/// For everything that must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// What a worker charges per million tokens: one micro-USD a token, so that amounts can be counted by hand.
const PRICE: u64 = 1_000_000;

/// A worker, a buyer, and the buyer's endpoint.
struct Network {
    engine: ScriptedEngine,
    worker: Member,
    buyer: Member,
    api: Api,
    http: Client,
}

impl Network {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With a setup that `change` has changed.
    async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let engine = ScriptedEngine::start().await.expect("an engine");
        let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
        let sells = Sells::new(engine.url(), PRICE, PRICE, 16);
        let worker = Member::start(MemberSpec::worker(buyer.addresses().await, sells)).await.expect("a worker");
        buyer.knows(CHAT_MODEL, 1, SOON).await.expect("the worker's ad");
        let api = open(&buyer, change).await;
        let http = Client::builder().no_proxy().timeout(SOON).build().expect("a client");
        Network { engine, worker, buyer, api, http }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.api.addr())
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.http.post(self.url(path)).json(body)
    }

    /// Asks for a chat completion.
    async fn chat(&self, body: &Value) -> Response {
        self.post("/v1/chat/completions", body).send().await.expect("an answer")
    }

    /// As [`Network::chat`], for a whole answer that must be there.
    async fn whole(&self, body: &Value) -> Value {
        let response = self.chat(body).await;
        let status = response.status();
        let answer: Value = response.json().await.expect("JSON");
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The events of a stream, without `data: `.
    async fn events(&self, body: &Value) -> Vec<String> {
        let response = self.chat(body).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        events(&response.text().await.expect("a whole body"))
    }
}

/// What an endpoint is opened with.
struct Setup {
    config: ApiConfig,
    caps: Caps,
}

/// An endpoint of `buyer` on a free port.
async fn open(buyer: &Member, change: impl FnOnce(&mut Setup)) -> Api {
    let mut setup = Setup { config: ApiConfig::new((Ipv4Addr::LOCALHOST, 0).into()), caps: Caps::default() };
    change(&mut setup);
    let purse = Purse::open(setup.caps, buyer.node.store().clone(), &[buyer.node.id()].into()).expect("a purse");
    let opened = Opened::new(buyer.home.path(), setup.config).await.expect("an address");
    opened.serve(&buyer.node, purse, axum::Router::new()).expect("an endpoint")
}

fn events(body: &str) -> Vec<String> {
    let mut events = Vec::new();
    for event in body.split_terminator("\n\n").filter(|event| !event.starts_with(':')) {
        events.push(event.strip_prefix("data: ").expect("data").to_owned());
    }
    events
}

/// A request that says `text`, and `more`.
fn ask(text: &str, more: Value) -> Value {
    let mut body = json!({ "model": CHAT_MODEL, "messages": [{ "role": "user", "content": text }], "max_tokens": 64 });
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

/// The error of a response, which must have this status and code.
async fn error(response: Response, status: u16, code: &str) -> Value {
    let got = response.status().as_u16();
    let body: Value = response.json().await.expect("JSON");
    assert_eq!((got, body["error"]["code"].as_str()), (status, Some(code)), "{body}");
    assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string(), "{body}");
    body["error"].clone()
}
