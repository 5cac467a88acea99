//! The embedded engine: against recorded answers of real engines (`recorded`), by itself (`model`), as a server (`serving`). And
//! real engines, where there is one (`real`).

#![expect(clippy::indexing_slicing, reason = "a missing field fails the test, as it should")]

mod model;
mod real;
mod recorded;
mod serving;

use std::time::Duration;

use infernet_testnet::engine::{EngineOptions, EngineServer};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Far above what any step takes; reached only when something hangs.
const DEADLINE: Duration = Duration::from_secs(60);

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn lines(body: &str) -> Vec<Value> {
    body.lines().map(json_of).collect()
}

async fn engine(options: EngineOptions) -> EngineServer {
    EngineServer::start(options).await.expect("the engine starts")
}

async fn post(engine: &EngineServer, path: &str, body: &Value) -> reqwest::Response {
    let request = reqwest::Client::new().post(engine.url() + path).body(body.to_string());
    timeout(DEADLINE, request.send()).await.expect("answers in time").expect("answers")
}

async fn text(response: reqwest::Response) -> String {
    timeout(DEADLINE, response.text()).await.expect("ends in time").expect("ends well")
}

async fn get(engine: &EngineServer, path: &str) -> String {
    text(reqwest::get(engine.url() + path).await.expect("answers")).await
}

fn chat(content: &str, stream: bool, options: Value) -> Value {
    let messages = json!([{ "role": "user", "content": content }]);
    json!({ "model": "tiny-chat", "messages": messages, "stream": stream, "options": options })
}
