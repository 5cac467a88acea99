//! Engines that come, go and have much: what a worker offers of them, as another node sees it.

use super::{
    SOON,
    engine::{Act, BadEngine, Dialect, MODEL},
    words,
};
use infernet_node::{
    api::{
        Api,
        open::{ApiConfig, Opened},
    },
    spend::{Caps, Purse},
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, Sells, eventually},
    engine::{EngineOptions, EngineServer},
};
use infernet_wire::{
    capability::CapabilityAd,
    envelope::Envelope,
    limits::{self, MAX_AD_MODELS},
    topic::{self, NetworkId},
};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use tokio::{sync::mpsc, time::timeout};

const TINY: &str = "tiny-chat:latest";

fn network() -> NetworkId {
    infernet_testnet::cluster::NETWORK.parse().expect("a name")
}

async fn tiny(options: EngineOptions) -> EngineServer {
    EngineServer::start(options).await.expect("an engine")
}

async fn worker(buyer: &Member, sells: Sells) -> Member {
    Member::start(MemberSpec::worker(buyer.addresses().await, sells)).await.expect("a worker")
}

async fn api(buyer: &Member) -> Api {
    let opened = Opened::new(buyer.home.path(), ApiConfig::new((Ipv4Addr::LOCALHOST, 0).into())).await.expect("an address");
    let purse = Purse::open(Caps::default(), buyer.node.store().clone(), &[buyer.node.id()].into()).expect("a purse");
    opened.serve(&buyer.node, purse, axum::Router::new()).expect("an endpoint")
}

/// What `model` answers.
async fn answer(api: &Api, model: &str) -> String {
    let http = reqwest::Client::builder().no_proxy().timeout(SOON).build().expect("a client");
    let body = json!({
        "model": model, "messages": [{ "role": "user", "content": "Hello" }], "max_tokens": 50, "temperature": 0,
    });
    let response = http.post(format!("{}/chat/completions", api.base_url())).json(&body).send().await.expect("an answer");
    let (status, answer): (u16, Value) = (response.status().as_u16(), response.json().await.expect("JSON"));
    assert_eq!(status, 200, "{answer}");
    answer.pointer("/choices/0/message/content").and_then(Value::as_str).expect("text").to_owned()
}

/// The models that `member` could buy.
async fn known(member: &Member) -> Vec<String> {
    let mut known: Vec<String> = member.node.buyer().known_models().await.into_iter().map(|model| model.id).collect();
    known.sort();
    known
}

#[tokio::test(flavor = "multi_thread")]
async fn each_model_is_served_by_its_engine_and_leaves_with_it() {
    let script = words(1).into_iter().chain([Act::done(r#""prompt_tokens":3,"completion_tokens":1"#), Act::End]);
    let vllm = BadEngine::start(Dialect::OpenAi, script.collect()).await;
    let ollama = tiny(EngineOptions::default()).await;
    let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
    let sells = Sells { also: vec![vllm.backend()], ..Sells::new(ollama.url(), 1_000, 1_000, 2) };
    let worker = worker(&buyer, sells).await;
    eventually("both models are offered", SOON, async || known(&buyer).await == [MODEL, TINY]).await.expect("offered");
    let api = api(&buyer).await;
    assert_eq!(answer(&api, TINY).await, "Hello! How can I help you today?");
    assert_eq!(answer(&api, MODEL).await, "word ");

    ollama.kill().await;
    eventually("its model is gone", SOON, async || known(&buyer).await == [MODEL]).await.expect("gone");
    assert_eq!(answer(&api, MODEL).await, "word ", "the other engine serves on");
    let offered = worker.node.status().await.seller.expect("it sells").models;
    assert_eq!(offered, [MODEL]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ad_that_was_just_sent_is_taken_back_when_its_engine_dies() {
    let (tap, mut heard) = mpsc::channel(10_000);
    let buyer = Member::start(MemberSpec { tap: Some(tap), ..MemberSpec::buyer(Vec::new()) }).await.expect("a buyer");
    let engine = tiny(EngineOptions::default()).await;
    let _worker = worker(&buyer, Sells::new(engine.url(), 1_000, 1_000, 2)).await;
    let mut ad = async || {
        let seek = async {
            loop {
                let (topic, bytes) = heard.recv().await.expect("the buyer runs");
                if topic == topic::CAPABILITIES {
                    let ad = Envelope::decode(&bytes).expect("an envelope").open_stored::<CapabilityAd>(&network());
                    return ad.expect("an ad").verify().expect("signed").issued;
                }
            }
        };
        timeout(SOON, seek).await.expect("an ad")
    };
    ad().await;
    // Another, since the buyer was new.
    let second = ad().await;
    assert_eq!(known(&buyer).await, [TINY]);
    engine.kill().await;
    eventually("its model is gone", SOON, async || known(&buyer).await.is_empty()).await.expect("gone");
    let waited = ad().await.since(second);
    assert!(waited < limits::AD_MIN_INTERVAL_MS, "{waited} ms, as long as any ad that takes nothing back");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_model_of_many_can_be_the_one_that_is_offered() {
    let names: Vec<String> = (1..=70).map(|n| format!("m{n}:latest")).collect();
    let (first, rest) = names.split_first().expect("seventy");
    let engine = tiny(EngineOptions { name: first.clone(), aliases: rest.to_vec(), ..EngineOptions::default() }).await;
    let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
    let worker = worker(&buyer, Sells::new(engine.url(), 1_000, 1_000, 2)).await;
    let offer = async |only: &[&str]| {
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        worker.node.poll_engines(Some(only)).await.expect("it sells")
    };
    let all = async || offer(&[]).await.len() == MAX_AD_MODELS;
    eventually("as many as an ad holds are offered", SOON, all).await.expect("offered");
    assert_eq!(offer(&["m70"]).await, ["m70:latest"]);
    eventually("its ad says so", SOON, async || known(&buyer).await == ["m70:latest"]).await.expect("advertised");
}
