//! The engine as a server: cancelling, refusing, keeping its pace, stopping.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt, future::join_all};
use infernet_testnet::engine::{EngineError, EngineEvent, EngineKind, EngineOptions, EngineServer, stamp};
use serde_json::{Value, json};
use tokio::{sync::broadcast, time::timeout};

use super::{DEADLINE, chat, engine, json_of, lines, post, text};

/// Waits for an event that `wanted` picks.
async fn event(events: &mut broadcast::Receiver<EngineEvent>, wanted: impl Fn(&EngineEvent) -> bool) -> EngineEvent {
    let seek = async {
        loop {
            let event = events.recv().await.expect("the engine runs and the subscriber keeps up");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(DEADLINE, seek).await.expect("the event comes in time")
}

#[tokio::test]
async fn alias_answers_under_its_own_name() {
    let engine = engine(EngineOptions { aliases: vec!["other:1b".into()], ..EngineOptions::default() }).await;
    let mut request = chat("Hello", false, json!({ "temperature": 0 }));
    request["model"] = json!("other:1b");
    let answer = json_of(&text(post(&engine, "/api/chat", &request).await).await);
    assert_eq!(answer["model"], "other:1b");
    assert_eq!(answer["message"]["content"], "Hello! How can I help you today?");
}

#[tokio::test]
async fn request_without_messages_only_loads() {
    let engine = engine(EngineOptions::default()).await;
    let answer = json_of(&text(post(&engine, "/api/chat", &json!({ "model": "tiny-chat" })).await).await);
    assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!("load")));
}

#[tokio::test]
async fn tools_are_refused() {
    let engine = engine(EngineOptions::default()).await;
    let mut request = chat("Hello", true, json!({}));
    request["tools"] = json!([{ "type": "function" }]);
    let response = post(&engine, "/api/chat", &request).await;
    assert_eq!(response.status(), 400);
    assert!(text(response).await.contains("does not support tools"));
}

#[tokio::test]
async fn oversized_body_is_refused() {
    let engine = engine(EngineOptions::default()).await;
    let request = chat(&"x".repeat(16 * 1024 * 1024), true, json!({}));
    assert_eq!(post(&engine, "/api/chat", &request).await.status(), 413);
}

#[tokio::test]
async fn same_seed_gives_the_same_answer() {
    let engine = engine(EngineOptions::default()).await;
    let mut answers = Vec::new();
    for seed in [7, 7, 8, 9, 10] {
        let options = json!({ "temperature": 1.5, "seed": seed, "num_predict": 32 });
        let answer = json_of(&text(post(&engine, "/api/chat", &chat("Tell me a story.", false, options)).await).await);
        answers.push(answer["message"]["content"].as_str().expect("text").to_owned());
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers.iter().collect::<BTreeSet<_>>().len() > 1, "the seed makes no difference: {answers:?}");
}

/// A request that would take hours.
fn endless() -> Value {
    chat("Count from 1 to 30.", true, json!({ "temperature": 0 }))
}

fn slow() -> EngineOptions {
    EngineOptions { tokens_per_second: Some(0.01), ..EngineOptions::default() }
}

#[tokio::test]
async fn disconnect_in_mid_stream_stops_generation() {
    let engine = engine(slow()).await;
    let mut events = engine.events();
    let mut body = post(&engine, "/api/chat", &endless()).await.bytes_stream();
    let first = timeout(DEADLINE, body.next()).await.expect("in time").expect("a line").expect("no error");
    assert!(String::from_utf8_lossy(&first).contains("\"done\":false"));
    assert_eq!(event(&mut events, |_| true).await, EngineEvent::Started { request: 0 });
    assert_eq!(event(&mut events, |_| true).await, EngineEvent::FirstToken { request: 0 });
    drop(body);
    let end = event(&mut events, |_| true).await;
    assert!(matches!(end, EngineEvent::Cancelled { request: 0, tokens: 1..=8 }), "{end:?}");
}

#[tokio::test]
async fn disconnect_before_the_answer_stops_generation() {
    let engine = engine(slow()).await;
    let mut events = engine.events();
    let request = json!({ "stream": false, "options": { "temperature": 0 }, "model": "tiny-chat", "prompt": "Count to 9." });
    let url = engine.url() + "/api/generate";
    let call = tokio::spawn(reqwest::Client::new().post(url).body(request.to_string()).send());
    event(&mut events, |e| matches!(e, EngineEvent::FirstToken { .. })).await;
    call.abort();
    event(&mut events, |e| matches!(e, EngineEvent::Cancelled { .. })).await;
}

#[tokio::test]
async fn disconnect_in_line_gives_up_the_place() {
    let engine = engine(EngineOptions { max_concurrent: 1, ..slow() }).await;
    let mut events = engine.events();
    let first = post(&engine, "/api/chat", &endless()).await;
    event(&mut events, |e| matches!(e, EngineEvent::FirstToken { request: 0 })).await;
    let second = post(&engine, "/api/chat", &endless()).await;
    event(&mut events, |e| matches!(e, EngineEvent::Started { request: 1 })).await;
    drop(second);
    assert_eq!(event(&mut events, |e| e.request() == 1).await, EngineEvent::Cancelled { request: 1, tokens: 0 });
    // The slot of a cancelled answer serves the next one.
    let third = post(&engine, "/api/chat", &endless()).await;
    drop(first);
    event(&mut events, |e| matches!(e, EngineEvent::FirstToken { request: 2 })).await;
    drop(third);
}

#[tokio::test]
async fn line_that_is_full_refuses_at_once() {
    let engine = engine(EngineOptions { max_concurrent: 1, ..EngineOptions::metronome(0.01, 9) }).await;
    let (client, url) = (reqwest::Client::new(), engine.url() + "/api/chat");
    // One in the slot, 512 in line.
    let calls = (0..513).map(|_| client.post(&url).body(endless().to_string()).send());
    let calls = timeout(DEADLINE, join_all(calls)).await.expect("all are admitted");
    assert!(calls.iter().all(|call| call.as_ref().is_ok_and(|c| c.status() == 200)));
    let refused = post(&engine, "/api/chat", &endless()).await;
    assert_eq!(refused.status(), 503);
}

#[tokio::test]
async fn finished_counts_what_the_client_was_told() {
    let engine = engine(EngineOptions::default()).await;
    let mut events = engine.events();
    let request = chat("What is the capital of France?", true, json!({ "temperature": 0 }));
    let said = lines(&text(post(&engine, "/api/chat", &request).await).await);
    let told = said.last().expect("a last line")["eval_count"].as_u64().expect("a count");
    let end = event(&mut events, |e| matches!(e, EngineEvent::Finished { .. })).await;
    assert_eq!(end, EngineEvent::Finished { request: 0, tokens: u32::try_from(told).expect("small") });
}

#[tokio::test]
async fn pace_and_delay_are_kept_and_accounted() {
    let delay = Duration::from_millis(120);
    let options = EngineOptions { tokens_per_second: Some(50.0), first_token_delay: delay, ..EngineOptions::default() };
    let engine = engine(options).await;
    let request = chat("Tell me a story about a fox.", false, json!({ "temperature": 0, "num_predict": 6 }));
    let answer = json_of(&text(post(&engine, "/api/chat", &request).await).await);
    let nanoseconds = |key: &str| Duration::from_nanos(answer[key].as_u64().expect("nanoseconds"));
    // Six tokens are five periods of 20 ms; the counted ones begin when the first token has left, perhaps late.
    let five = Duration::from_millis(100);
    assert!(nanoseconds("total_duration") >= delay + five, "{answer}");
    assert!(nanoseconds("eval_duration") >= five / 2, "{answer}");
    assert!(nanoseconds("load_duration") >= delay, "{answer}");
}

#[tokio::test]
async fn metronome_sends_exactly_what_it_promises() {
    let engine = engine(EngineOptions::metronome(2000.0, 20)).await;
    let answers = join_all((0..50).map(|_| async { text(post(&engine, "/api/chat", &endless()).await).await })).await;
    for answer in answers {
        let said = lines(&answer);
        assert_eq!(said.len(), 21);
        assert!(said[..20].iter().all(|line| line["message"]["content"].as_str().and_then(stamp::age).is_some()));
        assert_eq!((&said[20]["eval_count"], &said[20]["done_reason"]), (&json!(20), &json!("stop")));
    }
    let request = chat("Hello", false, json!({ "num_predict": 3 }));
    let answer = json_of(&text(post(&engine, "/api/chat", &request).await).await);
    let said = answer["message"]["content"].as_str().expect("text").split_whitespace().count();
    assert_eq!((said, &answer["done_reason"]), (3, &json!("length")));
}

#[tokio::test]
async fn killed_engine_breaks_streams_off() {
    let engine = engine(slow()).await;
    let (mut events, url) = (engine.events(), engine.url());
    let mut body = post(&engine, "/api/chat", &endless()).await.bytes_stream();
    timeout(DEADLINE, body.next()).await.expect("in time").expect("a line").expect("no error");
    timeout(DEADLINE, engine.kill()).await.expect("dies in time");
    let end = timeout(DEADLINE, body.next()).await.expect("in time");
    assert!(end.is_some_and(|line| line.is_err()), "a stream that is cut must not look complete");
    event(&mut events, |e| matches!(e, EngineEvent::Cancelled { .. })).await;
    assert!(reqwest::get(url).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn shutdown_lets_answers_end() {
    let engine = engine(EngineOptions::metronome(100.0, 10)).await;
    let mut body = post(&engine, "/api/chat", &endless()).await.bytes_stream();
    let first = timeout(DEADLINE, body.next()).await.expect("in time").expect("a line").expect("no error");
    let mut said = first.to_vec();
    let rest = async {
        while let Some(line) = body.next().await {
            said.extend_from_slice(&line.expect("the stream ends well"));
        }
    };
    timeout(DEADLINE, async { tokio::join!(engine.shutdown(), rest) }).await.expect("ends in time");
    assert_eq!(lines(&String::from_utf8_lossy(&said)).len(), 11);
}

#[tokio::test]
async fn impossible_options_are_errors() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let options =
            EngineOptions { kind: EngineKind::Metronome { tokens_per_second: rate, tokens: 1 }, ..EngineOptions::default() };
        assert!(matches!(EngineServer::start(options).await, Err(EngineError::Rate(_))), "{rate}");
    }
    let options = EngineOptions { max_concurrent: 0, ..EngineOptions::default() };
    assert!(matches!(EngineServer::start(options).await, Err(EngineError::NoSlots)));
}
