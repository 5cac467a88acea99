//! A client whose connection breaks comes back with `Last-Event-ID` and goes on where it was.

use super::{Network, SOON, ask, error};
use infernet_testnet::cluster::eventually;
use reqwest::Response;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Words of an answer that takes a second.
const WORDS: u32 = 200;

fn request() -> Value {
    ask("drone", json!({ "stream": true, "max_tokens": WORDS }))
}

async fn send(network: &Network, key: &str, last: Option<&str>) -> Response {
    let request = network.post("/v1/chat/completions", &request()).header("Idempotency-Key", key);
    let request = if let Some(last) = last { request.header("Last-Event-ID", last) } else { request };
    request.send().await.expect("an answer")
}

/// Reads until so many events have come; the whole ones.
async fn read(response: &mut Response, events: usize) -> String {
    let mut text = String::new();
    while text.matches("\n\n").count() < events {
        let chunk = timeout(SOON, response.chunk()).await.expect("in time").expect("reads").expect("more");
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    let whole = text.rfind("\n\n").expect("an event") + 2;
    text.truncate(whole);
    text
}

/// The id of the last event.
fn last_id(events: &str) -> &str {
    events.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().expect("events have ids")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_loses_and_repeats_nothing_and_pays_once() {
    let network = Network::start().await;
    let before = network.engine.asked();
    let mut first = send(&network, "k", None).await;
    let mut seen = read(&mut first, 20).await;
    // More than it read is on its way or in buffers, and is lost with the connection.
    drop(first);
    for pause in [0, 100, 200] {
        sleep(Duration::from_millis(pause)).await;
        let mut again = send(&network, "k", Some(last_id(&seen))).await;
        assert_eq!(again.status(), 200);
        seen += &read(&mut again, 20).await;
    }
    // Somebody who names no event of the answer does no harm.
    error(send(&network, "k", Some("7")).await, 400, "invalid_value").await;
    error(send(&network, "k", Some("x")).await, 400, "invalid_value").await;
    let rest = send(&network, "k", Some(last_id(&seen))).await;
    seen += &timeout(SOON, rest.text()).await.expect("in time").expect("text");
    assert!(seen.ends_with("data: [DONE]\n\n"));
    let whole = send(&network, "k", None).await;
    assert_eq!(whole.headers()["x-infernet-replayed"], "true");
    assert_eq!(seen, whole.text().await.expect("text"), "to the byte");
    assert_eq!(network.engine.asked() - before, 1, "one job");
    let tail = send(&network, "k", Some(last_id(&seen))).await.text().await.expect("text");
    assert!(tail.is_empty(), "nothing comes behind the end: {tail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_takes_over_from_whoever_still_reads() {
    let network = Network::start().await;
    let before = network.engine.asked();
    let mut older = send(&network, "k", None).await;
    let seen = read(&mut older, 5).await;
    let newer = send(&network, "k", Some(last_id(&seen))).await;
    let (older, newer) = tokio::join!(older.text(), newer.text());
    assert!(!older.unwrap_or_default().contains("[DONE]"), "one that is cut off does not look complete");
    assert!(newer.expect("text").ends_with("data: [DONE]\n\n"));
    assert_eq!(network.engine.asked() - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_on_without_its_reader_to_its_end() {
    let network = Network::start().await;
    let before = network.engine.asked();
    let mut first = send(&network, "k", None).await;
    let seen = read(&mut first, 5).await;
    drop(first);
    eventually("the engine is done", SOON, async || network.engine.live() == 0).await.expect("it is");
    let rest = send(&network, "k", Some(last_id(&seen))).await.text().await.expect("text");
    assert!(rest.ends_with("data: [DONE]\n\n"));
    assert_eq!(network.engine.asked() - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_kept_can_be_come_back_to() {
    let network = Network::start().await;
    let before = network.engine.asked();
    error(send(&network, "never", Some("100")).await, 410, "gone").await;
    assert_eq!(network.engine.asked() - before, 0, "nothing was bought for it");
    let plain = network.chat(&request()).await.text().await.expect("text");
    assert!(!plain.contains("id: ") && plain.ends_with("data: [DONE]\n\n"), "without a key there is nothing to come back by");
}
