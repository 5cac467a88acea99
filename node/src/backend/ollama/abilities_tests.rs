//! Tools, schemas, images, log probabilities, completions and embeddings: what Ollama is asked, and what comes back.

use super::tests::{Recorded, ask_with, serve};
use super::*;
use axum::response::{IntoResponse, Response};
use infernet_wire::chat::{ChatMessage, ResponseFormat, Role, Tool, ToolCall, ToolChoice};
use serde_bytes::ByteBuf;
use serde_json::json;
use std::sync::{Arc, Mutex};

const LOGPROBS: &str = include_str!("../../../tests/fixtures/ollama/api-chat-logprobs.json");
const GENERATE: &str = include_str!("../../../tests/fixtures/ollama/api-generate-stream.json");
const DONE: &str = r#"{"message":{"content":""},"done":true,"done_reason":"stop","prompt_eval_count":9,"eval_count":4}"#;

fn request() -> ChatRequest {
    ChatRequest::new("tiny-chat", vec![ChatMessage::new(Role::User, "What is the weather in Oslo?")], 64)
}

fn weather() -> Tool {
    let parameters = r#"{"type":"object","properties":{"city":{"type":"string"}}}"#.into();
    Tool { name: "weather".into(), description: "Tells the weather.".into(), parameters }
}

/// What the engine is asked for `request`, and what becomes of its answer.
async fn exchange(
    request: ChatRequest,
    answer: impl Fn() -> Response + Send + Sync + 'static,
) -> (String, Value, Vec<Chunk>, Option<BackendError>) {
    let asked = Arc::new(Mutex::new((String::new(), Value::Null)));
    let heard = asked.clone();
    let backend = serve(move |path, body| {
        *heard.lock().unwrap() = (path.to_owned(), body);
        answer()
    })
    .await;
    let (chunks, error) = ask_with(&*backend, request).await;
    let (path, body) = asked.lock().unwrap().clone();
    (path, body, chunks, error)
}

#[tokio::test]
async fn tools_are_offered_and_calls_come_back() {
    let call =
        r#"{"message":{"content":"","tool_calls":[{"function":{"name":"weather","arguments":{"city":"Oslo"}}}]},"done":false}"#;
    let wanted = ChatRequest { tools: vec![weather()], ..request() };
    let (path, body, chunks, error) = exchange(wanted, move || format!("{call}\n{DONE}\n").into_response()).await;
    assert_eq!((path.as_str(), error), ("/api/chat", None));
    assert_eq!(body.pointer("/tools/0/function/parameters/properties/city/type"), Some(&json!("string")));
    let [Chunk::ToolCall { index: 0, id: Some(id), name: Some(name), arguments, tokens: 1 }, Chunk::Done { finish, .. }] =
        &chunks[..]
    else {
        panic!("{chunks:?}")
    };
    assert_eq!((name.as_str(), arguments.as_str(), *finish), ("weather", r#"{"city":"Oslo"}"#, FinishReason::TOOL_CALLS));
    assert!(id.starts_with("call_") && id.len() > 20, "{id}");
}

#[tokio::test]
async fn a_conversation_with_calls_and_results_is_told_in_ollamas_words() {
    let call = ToolCall { id: "c1".into(), name: "weather".into(), arguments: r#"{"city":"Oslo"}"#.into() };
    let mut asked = request();
    asked.messages.push(ChatMessage { tool_calls: vec![call], ..ChatMessage::new(Role::Assistant, "") });
    asked.messages.push(ChatMessage { tool_call_id: Some("c1".into()), ..ChatMessage::new(Role::Tool, "rain") });
    asked
        .messages
        .push(ChatMessage { images: vec![ByteBuf::from(vec![1, 2, 3])], ..ChatMessage::new(Role::User, "And here?") });
    let (_, body, ..) = exchange(ChatRequest { tools: vec![weather()], tool_choice: Some(ToolChoice::Never), ..asked }, || {
        DONE.into_response()
    })
    .await;
    assert_eq!(
        body.pointer("/messages/1/tool_calls/0/function"),
        Some(&json!({ "name": "weather", "arguments": { "city": "Oslo" } }))
    );
    assert_eq!(
        body.pointer("/messages/2"),
        Some(&json!({ "role": "tool", "content": "rain", "tool_call_id": "c1", "tool_name": "weather" }))
    );
    assert_eq!(body.pointer("/messages/3/images/0"), Some(&json!("AQID")));
    assert_eq!(body.get("tools"), None, "none may be called");
}

#[tokio::test]
async fn a_recorded_answer_keeps_its_log_probabilities() {
    let wanted =
        ChatRequest { logprobs: Some(2), presence_penalty: Some(0.5), format: Some(ResponseFormat::JsonObject), ..request() };
    let (_, body, chunks, error) = exchange(wanted, || Recorded::read(LOGPROBS).into_response()).await;
    assert_eq!(error, None);
    assert_eq!(
        (body.get("logprobs"), body.get("top_logprobs"), body.get("format")),
        (Some(&json!(true)), Some(&json!(2)), Some(&json!("json")))
    );
    assert_eq!(body.pointer("/options/presence_penalty"), Some(&json!(0.5)));
    let Some(Chunk::Text { text, logprobs, .. }) = chunks.first() else { panic!("{chunks:?}") };
    let [first] = &logprobs[..] else { panic!("{logprobs:?}") };
    assert_eq!((text.as_str(), first.token.as_str()), ("The", "The"));
    assert!(first.logprob < 0.0 && first.logprob > -0.01);
    assert_eq!(first.top.iter().map(|t| t.token.as_str()).collect::<Vec<_>>(), ["The", "Hello"]);
}

#[tokio::test]
async fn a_text_is_continued_without_a_template() {
    let wanted = ChatRequest { task: Task::COMPLETION, ..request() };
    let (path, body, chunks, error) = exchange(wanted.clone(), || Recorded::read(GENERATE).into_response()).await;
    assert_eq!((path.as_str(), error, body.get("raw")), ("/api/generate", None, Some(&json!(true))));
    assert_eq!(body.get("prompt"), Some(&json!("What is the weather in Oslo?")));
    assert!(matches!(chunks.first(), Some(Chunk::Text { text, tokens: 1, .. }) if text == "The"), "{chunks:?}");
    assert!(matches!(chunks.last(), Some(Chunk::Done { .. })));
    let (_, body, ..) = exchange(ChatRequest { suffix: Some("}".into()), ..wanted }, || DONE.into_response()).await;
    assert_eq!((body.get("raw"), body.get("suffix")), (Some(&json!(false)), Some(&json!("}"))));
}

#[tokio::test]
async fn texts_become_vectors_in_their_order() {
    let mut wanted = ChatRequest { task: Task::EMBEDDINGS, dimensions: Some(2), ..request() };
    wanted.messages.push(ChatMessage::new(Role::User, "second"));
    let vectors = || r#"{"embeddings":[[0.5,-1],[2,3]],"prompt_eval_count":7}"#.into_response();
    let (path, body, chunks, error) = exchange(wanted.clone(), vectors).await;
    assert_eq!((path.as_str(), error), ("/api/embed", None));
    assert_eq!((body.pointer("/input/1"), body.get("dimensions")), (Some(&json!("second")), Some(&json!(2))));
    let expected = [
        Chunk::Embedding { index: 0, vector: vec![0.5, -1.0] },
        Chunk::Embedding { index: 1, vector: vec![2.0, 3.0] },
        Chunk::Done { input_tokens: Some(7), output_tokens: Some(0), finish: FinishReason::STOP },
    ];
    assert_eq!(chunks, expected);
    let one_of_two = || r#"{"embeddings":[[0.5,-1]]}"#.into_response();
    assert_eq!(exchange(wanted, one_of_two).await.3, Some(BackendError::Truncated));
}

#[test]
fn abilities_follow_the_version() {
    let check = |version: &str, logprobs, schema| {
        let abilities = Version { version: version.into() }.abilities();
        assert_eq!(
            (abilities.contains(Abilities::LOGPROBS), abilities.contains(Abilities::JSON_SCHEMA)),
            (logprobs, schema),
            "{version}"
        );
    };
    check("0.12.11", true, true);
    check("0.13.0-rc1", true, true);
    check("0.12.10", false, true);
    check("0.4.7", false, false);
    check("0.0.0", true, true);
    check("", false, false);
}

#[test]
fn what_only_embeds_is_listed_as_such() {
    let tag = |capabilities: &[&str]| -> Option<Model> {
        let tag: Tag = serde_json::from_value(json!({ "name": "nomic", "capabilities": capabilities })).unwrap();
        tag.model(&Facts::default(), None, Abilities::JSON_SCHEMA)
    };
    let embedder = tag(&["embedding"]).expect("listed");
    assert_eq!(embedder.abilities, Abilities::EMBEDDINGS.with(Abilities::EMBEDS_ONLY));
    assert_eq!(tag(&["completion", "tools"]).map(|m| m.abilities), Some(Abilities::JSON_SCHEMA.with(Abilities::TOOLS)));
    assert!(tag(&["image"]).is_none());
}
