//! Against what Ollama and llama-server said, at temperature 0, when they served the same weights
//! (`tests/fixtures/`, verbatim but for paths and host names).

use std::collections::BTreeSet;

use infernet_testnet::engine::{EngineOptions, Message, Sampling, TinyModel};
use serde_json::{Value, json};

use super::{chat, engine, get, json_of, lines, post, text};

/// A recorded call.
struct Recording {
    request: Value,
    status: u16,
    body: String,
}

impl Recording {
    fn load(name: &str) -> Self {
        let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the recording is in the repository");
        let call: Value = serde_json::from_str(&text).expect("recordings are JSON");
        Self {
            request: call["request"].clone(),
            status: call["status"].as_u64().and_then(|s| u16::try_from(s).ok()).expect("a status"),
            body: call["body"].as_str().expect("a body").to_owned(),
        }
    }

    fn messages(&self) -> Vec<Message> {
        serde_json::from_value(self.request["body"]["messages"].clone()).expect("messages")
    }

    fn lines(&self) -> Vec<Value> {
        lines(&self.body)
    }

    /// The pieces of text of an OpenAI event stream, without the empty ones.
    fn deltas(&self) -> Vec<String> {
        let events = self.body.lines().filter_map(|line| line.strip_prefix("data: {"));
        let events = events.map(|event| json_of(&format!("{{{event}")));
        let text = events.filter_map(|e| e["choices"][0]["delta"]["content"].as_str().map(str::to_owned));
        text.filter(|text| !text.is_empty()).collect()
    }
}

/// What time changes in an answer, removed; that it was there, and of which type, is kept.
fn timeless(mut line: Value) -> Value {
    let fields = line.as_object_mut().expect("an object");
    for (key, value) in fields.iter_mut() {
        if key == "created_at" || key.ends_with("_duration") {
            *value = json!(value.is_string());
        }
    }
    line
}

/// A call to the engine gives what the recorded engine gave, line for line, apart from times.
async fn check_replay(name: &str) {
    let recording = Recording::load(name);
    let engine = engine(EngineOptions::default()).await;
    let path = recording.request["path"].as_str().expect("a path");
    let response = post(&engine, path, &recording.request["body"]).await;
    assert_eq!(response.status().as_u16(), recording.status);
    let said: Vec<Value> = lines(&text(response).await).into_iter().map(timeless).collect();
    let recorded: Vec<Value> = recording.lines().into_iter().map(timeless).collect();
    assert_eq!(said, recorded, "{name}");
}

#[tokio::test]
async fn chat_equals_ollama() {
    check_replay("ollama-api-chat").await;
}

#[tokio::test]
async fn chat_stream_equals_ollama_token_for_token() {
    check_replay("ollama-api-chat-stream").await;
}

#[tokio::test]
async fn generate_stream_equals_ollama_with_its_context() {
    check_replay("ollama-api-generate-stream").await;
}

#[tokio::test]
async fn unusual_prompt_equals_ollama() {
    check_replay("ollama-api-chat-prefill").await;
}

#[tokio::test]
async fn unknown_model_is_not_found() {
    check_replay("ollama-err-api-unknown").await;
}

#[tokio::test]
async fn broken_json_is_a_bad_request() {
    let recording = Recording::load("ollama-err-api-badjson");
    let engine = engine(EngineOptions::default()).await;
    let sent = recording.request["body"].as_str().expect("text").to_owned();
    let request = reqwest::Client::new().post(engine.url() + "/api/chat").body(sent);
    let response = request.send().await.expect("answers");
    assert_eq!(response.status().as_u16(), recording.status);
    assert_eq!(json_of(&text(response).await), json_of(&recording.body));
}

/// The model alone, with its own texts for each token.
fn check_deltas(name: &str, sampling: &Sampling) {
    let recording = Recording::load(name);
    let model = TinyModel::load().expect("the embedded model loads");
    let prompt = model.encode(&TinyModel::chat_prompt(&recording.messages())).expect("encodes");
    let mut said = Vec::new();
    let answer = model.generate(&prompt, sampling, || false, |token| said.push(token.text)).expect("generates");
    said.retain(|text| !text.is_empty());
    assert_eq!(said, recording.deltas(), "{name}");
    let body = &recording.body;
    for (count, field) in [(answer.prompt_tokens, "prompt_tokens"), (answer.eval_count, "completion_tokens")] {
        let usage = format!("\"{field}\":{count},");
        assert!(!body.contains("\"usage\"") || body.contains(&usage), "{name}: {usage}");
    }
}

#[test]
fn stories_equal_llama_server() {
    check_deltas("llama-server-chat-stream", &Sampling::greedy(48));
}

#[test]
fn counts_equal_llama_server() {
    check_deltas("llama-server-chat-stream-usage", &Sampling::greedy(32));
}

#[test]
fn stop_string_equals_ollama() {
    let sampling = Sampling { stop: vec!["fox".into()], ..Sampling::greedy(60) };
    check_deltas("ollama-chat-stop", &sampling);
}

#[test]
fn raw_continuation_equals_llama_server() {
    let recording = Recording::load("llama-server-native-completion-stream");
    let model = TinyModel::load().expect("the embedded model loads");
    let prompt = model.encode(recording.request["body"]["prompt"].as_str().expect("text")).expect("encodes");
    let answer = model.generate(&prompt, &Sampling::greedy(6), || false, |_| ()).expect("generates");
    let events = recording.body.lines().filter_map(|line| line.strip_prefix("data: ")).map(json_of);
    let recorded: Vec<Value> = events.flat_map(|e| e["tokens"].as_array().cloned().unwrap_or_default()).collect();
    assert_eq!(json!(answer.tokens), json!(recorded));
}

#[test]
fn template_and_tokens_equal_llama_server() {
    let template = Recording::load("llama-server-apply-template");
    let prompt = TinyModel::chat_prompt(&template.messages());
    assert_eq!(json!({ "prompt": prompt }), json_of(&template.body));
    let tokenize = Recording::load("llama-server-tokenize");
    let model = TinyModel::load().expect("the embedded model loads");
    let tokens = model.encode(tokenize.request["body"]["content"].as_str().expect("text")).expect("encodes");
    assert_eq!(json!({ "tokens": tokens }), json_of(&tokenize.body));
}

#[tokio::test]
async fn overlong_prompt_is_cut_to_ollamas_514_tokens() {
    // Ollama said 514 to this conversation, of 18 010 tokens.
    let engine = engine(EngineOptions::default()).await;
    let request = chat(&"fox ".repeat(9000), false, json!({ "temperature": 0, "num_predict": 1 }));
    let answer = json_of(&text(post(&engine, "/api/chat", &request).await).await);
    assert_eq!(answer["prompt_eval_count"], 514);
}

/// Every key of the recorded answer is there with the same type, and no other.
fn check_shape(said: &Value, recorded: &Value, at: &str) {
    match (said, recorded) {
        (Value::Object(said), Value::Object(recorded)) => {
            let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(keys(said), keys(recorded), "{at}");
            for (key, value) in said {
                check_shape(value, &recorded[key], &format!("{at}.{key}"));
            }
        }
        (Value::Array(said), Value::Array(recorded)) => {
            for value in said {
                check_shape(value, &recorded[0], &format!("{at}[]"));
            }
        }
        _ => assert_eq!(std::mem::discriminant(said), std::mem::discriminant(recorded), "{at}"),
    }
}

#[tokio::test]
async fn descriptions_have_ollamas_shape() {
    let engine = engine(EngineOptions { aliases: vec!["other:1b".into()], ..EngineOptions::default() }).await;
    for path in ["/api/version", "/api/tags", "/api/ps"] {
        let recording = Recording::load(&format!("ollama{}", path.replace('/', "-")));
        check_shape(&json_of(&get(&engine, path).await), &json_of(&recording.body), path);
    }
    let recording = Recording::load("ollama-api-show");
    let said = text(post(&engine, "/api/show", &json!({ "model": "other:1b" })).await).await;
    check_shape(&json_of(&said), &json_of(&recording.body), "/api/show");
    assert_eq!(get(&engine, "/").await, "Ollama is running");
    assert_eq!(get(&engine, "/health").await, "404 page not found");
}
