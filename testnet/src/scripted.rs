//! **No model at all**: an engine with Ollama's interface whose answers follow from the request, so that clients can be tested
//! for what the tiny model can't do: tools, schemas, log probabilities, vectors, failures.
//!
//! Models can be fetched and removed as at Ollama; see `models`. What an answer is is said by the last message:
//!
//! | the last message | the answer |
//! |---|---|
//! | `fail N`, `cut N` | N words, then Ollama's error line, or a closed connection |
//! | `drone` | the same word until nobody listens |
//! | `flood` | eight thousand letters at a time, as fast as they are taken |
//! | `silent` | nothing at all until nobody listens |
//! | `refuse` | HTTP 500 at once |
//! | `think …` | a thought, then the answer |
//! | `seed?` | the seed that was asked for |
//! | a tool's result | what the tool said |
//! | anything else, with tools | a call of each tool |
//! | anything else, with `format` | the smallest JSON that fits the schema |
//! | anything else | its own words again, each with its probability if that is asked for |

#![expect(clippy::indexing_slicing, reason = "a field that a JSON value lacks reads as null")]

mod models;

pub use models::SIZE;

use models::Models;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{interval, sleep},
};

/// The model that chats.
pub const CHAT_MODEL: &str = "script:latest";
/// The model that embeds.
pub const EMBED_MODEL: &str = "script-embed:latest";
/// Numbers of a vector where no length is asked for.
pub const DIMENSIONS: usize = 8;
/// Between two words of a drone: slower than a cancel, fast enough for a test.
const PACE: Duration = Duration::from_millis(5);

/// Letters of a piece of a flood.
const FLOOD: usize = 8_000;

type Lines = Pin<Box<dyn Stream<Item = io::Result<Value>> + Send>>;

/// The running engine; dropping it stops it.
pub struct ScriptedEngine {
    addr: SocketAddr,
    live: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    models: Models,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    live: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

impl ScriptedEngine {
    /// Serves on a free port of loopback.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Shared { live: Arc::default(), asked: Arc::default() };
        let models = Models::default();
        let kept = Router::new()
            .route("/api/tags", get(async |State(models): State<Models>| Json(models.tags())))
            .route("/api/show", post(models::show))
            .route("/api/pull", post(models::pull))
            .route("/api/delete", delete(models::delete))
            .with_state(models.clone());
        let router = Router::new()
            .route("/api/ps", get(async || Json(json!({ "models": [] }))))
            .route("/api/version", get(async || Json(json!({ "version": "0.0.0" }))))
            .route("/api/chat", post(chat))
            .route("/api/generate", post(generate))
            .route("/api/embed", post(embed))
            .with_state(shared.clone())
            .merge(kept);
        let task = tokio::spawn(async move {
            // Runs until aborted.
            let _ = axum::serve(listener, router).await;
        });
        Ok(ScriptedEngine { addr, live: shared.live, asked: shared.asked, models, task })
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Answers that are being given now.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// How often a download of `model` was asked for.
    pub fn pulls(&self, model: &str) -> u32 {
        self.models.pulls(model)
    }

    /// Answers that were begun.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for ScriptedEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn chat(State(shared): State<Shared>, Json(request): Json<Value>) -> Response {
    let last = request["messages"].as_array().and_then(|messages| messages.last()).cloned().unwrap_or_default();
    let text = last["content"].as_str().unwrap_or_default().to_owned();
    let tools = request["tools"].as_array().cloned().unwrap_or_default();
    match &text {
        _ if last["role"] == "tool" => answer(&shared, said(&request, &format!("The tool said: {text}"))),
        _ if text == "refuse" => refused("the script says so"),
        _ if !tools.is_empty() => answer(&shared, calls(&tools)),
        _ if !request["format"].is_null() => answer(&shared, said(&request, &fitting(&request["format"]).to_string())),
        _ => answer(&shared, script(&request, &text)),
    }
}

async fn generate(State(shared): State<Shared>, Json(request): Json<Value>) -> Response {
    let prompt = request["prompt"].as_str().unwrap_or_default();
    let text = match request["suffix"].as_str() {
        Some(suffix) => format!("(between {prompt} and {suffix})"),
        None => format!(" and {prompt} again"),
    };
    let lines = said(&request, &text).map(|line| {
        line.map(|mut line| {
            let text = line["message"]["content"].take();
            if let Some(line) = line.as_object_mut() {
                line.remove("message");
                line.insert("response".into(), text);
            }
            line
        })
    });
    answer(&shared, Box::pin(lines))
}

async fn embed(Json(request): Json<Value>) -> Json<Value> {
    let length = request["dimensions"].as_u64().map_or(DIMENSIONS, |n| n as usize);
    let texts = request["input"].as_array().cloned().unwrap_or_default();
    let vectors: Vec<Vec<f32>> = texts.iter().map(|text| vector(text.as_str().unwrap_or_default(), length)).collect();
    let words: usize = texts.iter().map(|text| text.as_str().unwrap_or_default().split_whitespace().count()).sum();
    Json(json!({ "embeddings": vectors, "prompt_eval_count": words }))
}

/// Different for different texts, and exact in 32 bits.
fn vector(text: &str, length: usize) -> Vec<f32> {
    let sum: u32 = text.bytes().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    (0..length).map(|n| (sum.rotate_left(n as u32) % 1_000) as f32 / 8.0).collect()
}

fn script(request: &Value, text: &str) -> Lines {
    let count = |rest: &str| rest.parse().unwrap_or(1);
    let words = |n: usize| stream::iter((0..n).map(|n| Ok(piece(&format!("word{n} ")))));
    match text.split_once(' ') {
        Some(("fail", n)) => Box::pin(words(count(n)).chain(stream::iter([Ok(json!({ "error": "the script failed" }))]))),
        Some(("cut", n)) => {
            let cut = stream::once(async {
                // A connection that is closed at once takes the words with it.
                sleep(PACE * 20).await;
                Err(io::ErrorKind::ConnectionReset.into())
            });
            Box::pin(words(count(n)).chain(cut))
        }
        Some(("think", rest)) => {
            let thought = json!({ "message": { "role": "assistant", "content": "", "thinking": "hmm" }, "done": false });
            Box::pin(stream::iter([Ok(thought)]).chain(said(request, rest)))
        }
        _ if text == "drone" => Box::pin(ticks().map(|()| Ok(piece("drone ")))),
        _ if text == "flood" => Box::pin(stream::repeat_with(|| Ok(piece(&"x".repeat(FLOOD))))),
        _ if text == "silent" => Box::pin(stream::pending()),
        _ if text == "seed?" => said(request, &request["options"]["seed"].to_string()),
        _ => said(request, text),
    }
}

fn ticks() -> impl Stream<Item = ()> + Send {
    stream::unfold(interval(PACE), |mut interval| async move {
        interval.tick().await;
        Some(((), interval))
    })
}

/// `text` word by word, up to what `num_predict` allows and to where `stop` says.
fn said(request: &Value, text: &str) -> Lines {
    let options = &request["options"];
    let stops = options["stop"].as_array().cloned().unwrap_or_default();
    let end = stops.iter().filter_map(|stop| text.find(stop.as_str()?)).min().unwrap_or(text.len());
    let words: Vec<&str> = text.get(..end).unwrap_or_default().split_inclusive(' ').collect();
    let most = options["num_predict"].as_u64().map_or(usize::MAX, |n| n as usize);
    let cut = words.len() > most;
    let told = words.len().min(most);
    let mut lines: Vec<io::Result<Value>> = words.iter().take(most).map(|word| Ok(with_logprobs(request, word))).collect();
    lines.push(Ok(done(if cut { "length" } else { "stop" }, text.split_whitespace().count(), told)));
    Box::pin(stream::iter(lines))
}

fn with_logprobs(request: &Value, word: &str) -> Value {
    let mut line = piece(word);
    if request["logprobs"] == true {
        let top = request["top_logprobs"].as_u64().unwrap_or(0);
        let other = |n: u64| json!({ "token": format!("{word}{n}"), "logprob": -0.5 - n as f64 });
        line["logprobs"] =
            json!([{ "token": word, "logprob": -0.25, "top_logprobs": (0..top).map(other).collect::<Vec<_>>() }]);
    }
    line
}

fn calls(tools: &[Value]) -> Lines {
    let call = |tool: &Value| json!({ "function": { "name": tool["function"]["name"], "arguments": fitting(&tool["function"]["parameters"]) } });
    let calls: Vec<Value> = tools.iter().map(call).collect();
    let line = json!({ "message": { "role": "assistant", "content": "", "tool_calls": calls }, "done": false });
    Box::pin(stream::iter([Ok(line), Ok(done("stop", 1, tools.len()))]))
}

/// The smallest JSON that fits a schema.
fn fitting(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("string") => json!("text"),
        Some("integer" | "number") => json!(42),
        Some("boolean") => json!(true),
        Some("array") => json!([fitting(&schema["items"])]),
        Some("null") => Value::Null,
        _ => {
            let properties = schema["properties"].as_object().cloned().unwrap_or_default();
            Value::Object(properties.into_iter().map(|(name, schema)| (name, fitting(&schema))).collect())
        }
    }
}

fn piece(text: &str) -> Value {
    json!({ "message": { "role": "assistant", "content": text }, "done": false })
}

fn done(reason: &str, input: usize, output: usize) -> Value {
    json!({ "message": { "role": "assistant", "content": "" }, "done": true, "done_reason": reason,
        "prompt_eval_count": input, "eval_count": output })
}

fn refused(error: &str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error }))).into_response()
}

fn answer(shared: &Shared, lines: Lines) -> Response {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    shared.live.fetch_add(1, Ordering::SeqCst);
    let counted = Counted { lines, live: shared.live.clone() };
    Body::from_stream(counted.map(|line| line.map(|line| Bytes::from(format!("{line}\n"))))).into_response()
}

/// Counts an answer while it is given.
struct Counted {
    lines: Lines,
    live: Arc<AtomicUsize>,
}

impl Stream for Counted {
    type Item = io::Result<Value>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.lines.as_mut().poll_next(cx)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}
