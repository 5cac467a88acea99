//! Against recorded answers of llama-server, vLLM and Modular MAX, a server with the shapes of SGLang's source, and servers that
//! break in every way we could think of.

use super::*;
use crate::backend::{connect_with, first_of};
use axum::{
    Json, Router,
    body::{Body as HttpBody, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::stream::BoxStream;
use infernet_wire::{
    capability::Abilities,
    chat::{Channel, ChatMessage, ResponseFormat, Tool, ToolChoice},
};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

mod breaks;
mod recorded;
mod sglang;
mod shapes;

/// Far above any honest run, so that a hang fails instead of lasting.
const PATIENCE: Duration = Duration::from_secs(30);

/// A recorded call.
#[derive(Clone, Deserialize)]
struct Recording {
    request: Value,
    status: u16,
    body: Value,
}

impl Recording {
    /// `engine/name`, if that was recorded.
    fn find(engine: &str, name: &str) -> Option<Self> {
        let path = format!("{}/tests/fixtures/{engine}/{name}.json", env!("CARGO_MANIFEST_DIR"));
        Some(serde_json::from_str(&fs::read_to_string(path).ok()?).expect("recordings are JSON"))
    }

    fn read(engine: &str, name: &str) -> Self {
        Self::find(engine, name).expect("it was recorded")
    }

    fn text(&self) -> String {
        self.body.as_str().map_or_else(|| self.body.to_string(), str::to_owned)
    }
}

impl IntoResponse for Recording {
    fn into_response(self) -> Response {
        (StatusCode::from_u16(self.status).expect("a status"), self.text()).into_response()
    }
}

/// What a server answers to a path and a body.
type Script = Arc<dyn Fn(&str, &Value, &HeaderMap) -> Response + Send + Sync>;

/// Serves `script` and returns its address.
async fn listen(script: impl Fn(&str, &Value, &HeaderMap) -> Response + Send + Sync + 'static) -> String {
    async fn answer(State(script): State<Script>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        script(path, &serde_json::from_slice(&body).unwrap_or_default(), &headers)
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("has an address").to_string();
    let app = Router::new().fallback(answer).with_state(Arc::new(script) as Script);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn patient() -> Deadlines {
    Deadlines { connect: PATIENCE, describe: PATIENCE, first_byte: PATIENCE, between: PATIENCE }
}

fn engine(kind: &str, address: &str) -> Box<dyn Backend> {
    connect_with(&format!("{kind}={address}").parse().expect("a spec"), patient()).expect("a client")
}

async fn serve(kind: &str, script: impl Fn(&str, &Value, &HeaderMap) -> Response + Send + Sync + 'static) -> Box<dyn Backend> {
    engine(kind, &listen(script).await)
}

fn missing() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "detail": "Not Found" }))).into_response()
}

fn request() -> ChatRequest {
    ChatRequest::new("tiny-chat", vec![ChatMessage::new(Role::User, "Tell me a story about a fox.")], 32)
}

/// Everything the engine says, up to and with the first error.
async fn ask(engine: &dyn Backend, request: ChatRequest) -> (Vec<Chunk>, Option<BackendError>) {
    tokio::time::timeout(PATIENCE * 2, async {
        let mut stream = match engine.chat(request).await {
            Ok(stream) => stream,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let mut chunks = Vec::new();
        while let Some(next) = stream.next().await {
            match next {
                Ok(chunk) => chunks.push(chunk),
                Err(error) => return (chunks, Some(error)),
            }
        }
        (chunks, None)
    })
    .await
    .expect("the engine answers or fails, it never hangs")
}

/// What comes of a stream of these bytes.
async fn ask_for(body: impl Into<String>) -> (Vec<Chunk>, Option<BackendError>) {
    let body = body.into();
    let engine = serve("vllm", move |_, _, _| body.clone().into_response()).await;
    let seen = ask(&*engine, request()).await;
    check_counts(&seen.0);
    seen
}

/// The rule for running counts: each chunk at least one more, never more than the bytes so far; nothing after the end.
fn check_counts(chunks: &[Chunk]) {
    let (mut last, mut bytes) = (0, 0);
    for (at, chunk) in chunks.iter().enumerate() {
        let (tokens, length) = match chunk {
            Chunk::Text { text, tokens, .. } => (*tokens, text.len()),
            Chunk::ToolCall { name, arguments, tokens, .. } => {
                (*tokens, name.as_ref().map_or(0, String::len) + arguments.len())
            }
            Chunk::Done { .. } => return assert_eq!(at + 1, chunks.len(), "nothing follows the end: {chunks:?}"),
            Chunk::Embedding { .. } => continue,
        };
        bytes += length;
        assert!(tokens > last && tokens as usize <= bytes, "{tokens} tokens in {bytes} bytes after {last}: {chunks:?}");
        last = tokens;
    }
}

fn text_on(chunks: &[Chunk], wanted: Channel) -> String {
    let text_of = |chunk: &Chunk| match chunk {
        Chunk::Text { channel, text, .. } if *channel == wanted => Some(text.clone()),
        _ => None,
    };
    chunks.iter().filter_map(text_of).collect()
}

fn text(chunks: &[Chunk]) -> String {
    text_on(chunks, Channel::ANSWER)
}

fn done(input: Option<u32>, output: Option<u32>, finish: FinishReason) -> Option<Chunk> {
    Some(Chunk::Done { input_tokens: input, output_tokens: output, finish })
}

fn events(data: &[Value]) -> String {
    data.iter().map(|data| format!("data: {data}\n\n")).collect()
}

fn piece(text: &str) -> Value {
    json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] })
}

fn end(reason: &str) -> Value {
    json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
}

fn usage(input: u64, output: u64) -> Value {
    json!({ "choices": [], "usage": { "prompt_tokens": input, "completion_tokens": output } })
}
