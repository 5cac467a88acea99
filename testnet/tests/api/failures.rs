//! What goes wrong, and that it never looks right.

use super::*;
use futures::StreamExt;
use infernet_testnet::cluster::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_never_looks_complete() {
    let network = Network::start().await;
    for text in ["fail 3", "cut 3"] {
        let events = network.events(&ask(text, json!({ "stream": true }))).await;
        assert!(!events.iter().any(|event| event.contains("[DONE]")), "{events:?}");
        let last: Value = serde_json::from_str(events.last().expect("events")).expect("JSON");
        assert_eq!(last["choices"][0]["finish_reason"], "error", "{last}");
        assert_eq!((&last["error"]["code"], &last["error"]["retryable"]), (&json!("worker_failed"), &json!(true)));
        assert!(!last.to_string().contains("script failed"), "the engine's words stay with its worker");
        let text: String = events[..events.len() - 1].join("");
        assert!(text.contains("word2"), "what came was passed on: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_that_breaks_off_is_a_bad_gateway_with_what_came() {
    let network = Network::start().await;
    let error = error(network.chat(&ask("fail 2", json!({}))).await, 502, "worker_failed").await;
    assert_eq!(error["partial"], "word0 word1 ");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_status() {
    let network = Network::start().await;
    error(network.chat(&ask("refuse", json!({}))).await, 502, "worker_failed").await;
    let unknown = error(network.chat(&ask("hi", json!({ "model": "nobody/has-it" }))).await, 404, "model_not_found").await;
    assert!(unknown["message"].as_str().expect("text").contains(CHAT_MODEL), "{unknown}");
    let poor = network.post("/v1/chat/completions", &ask("hi", json!({}))).header("X-Infernet-Max-Price", "5");
    error(poor.send().await.expect("an answer"), 402, "price_too_low").await;
    error(network.chat(&ask("hi", json!({ "infernet": { "budget": 1 } }))).await, 402, "price_too_low").await;
    error(network.chat(&ask("hi", json!({ "max_tokens": 100_000 }))).await, 400, "context_length_exceeded").await;
    let bad = error(network.chat(&ask("hi", json!({ "temperature": 3 }))).await, 400, "invalid_value").await;
    assert_eq!(bad["param"], "temperature");
    let junk = network.http.post(network.url("/v1/chat/completions")).body("{").send().await.expect("an answer");
    error(junk, 400, "invalid_json").await;
    error(network.http.get(network.url("/v1/chat/completions")).send().await.expect("an answer"), 405, "method_not_allowed")
        .await;
    error(network.http.post(network.url("/v1/nothing")).send().await.expect("an answer"), 404, "unknown_url").await;
    let vast = "x".repeat(infernet_node::api::service::MAX_BODY);
    error(network.chat(&ask(&vast, json!({}))).await, 413, "request_too_large").await;
    let counters = network.api.counters();
    assert_eq!((counters["api.chat.404"], counters["api.chat.413"], counters["api.other.404"]), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_ask_is_said_with_when_to_try_again() {
    let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
    let api = open(&buyer, |_| {}).await;
    let http = Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}", api.addr());
    let response = http.post(format!("{url}/v1/chat/completions")).json(&ask("hi", json!({}))).send().await.expect("an answer");
    assert!(response.headers().contains_key("retry-after"));
    error(response, 503, "no_peers").await;
    let health = http.get(format!("{url}/healthz")).send().await.expect("an answer");
    assert_eq!(health.status(), 503);
    assert_eq!(http.get(format!("{url}/livez")).send().await.expect("an answer").status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_cancels_the_job_and_settles_it() {
    let network = Network::start().await;
    let response = network.chat(&ask("drone", json!({ "stream": true, "max_tokens": 100_000, "model": CHAT_MODEL }))).await;
    assert_eq!(response.status(), 400, "more than the context");
    let response = network.chat(&ask("drone", json!({ "stream": true, "max_tokens": 4_000 }))).await;
    let mut bytes = response.bytes_stream();
    bytes.next().await.expect("a piece").expect("bytes");
    assert_eq!(network.engine.live(), 1);
    drop(bytes);
    eventually("the engine's end", SOON, async || network.engine.live() == 0).await.expect("cancelled");
    let receipts = || network.buyer.node.store().receipts(infernet_node::store::Page::newest(10)).expect("receipts");
    eventually("a receipt", SOON, async || receipts().len() == 1).await.expect("settled");
    assert_eq!(receipts()[0].receipt().status.to_string(), "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_before_the_first_token_cancels_too() {
    let network = Network::start().await;
    for stream in [true, false] {
        let body = ask("silent", json!({ "stream": stream }));
        let gone = tokio::time::timeout(Duration::from_secs(2), network.chat(&body)).await;
        assert!(gone.is_err(), "nothing comes");
        eventually("the engine's end", SOON, async || network.engine.live() == 0).await.expect("cancelled");
    }
    assert_eq!(network.engine.asked(), 2);
}
