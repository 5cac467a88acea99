//! The models of the scripted engine: which there are, and downloads that go as their names say.
//!
//! | the name begins with | the download |
//! |---|---|
//! | `nope` | is of a model that nobody publishes |
//! | `full` | meets a full disk |
//! | `offline` | does not reach the registry |
//! | `cut` | breaks off halfway once, and goes on there when it is asked for again |
//! | `broken` | breaks off at its begin, always |
//! | `slow` | goes on for as long as somebody listens |
//! | `huge` | says that it is of an exabyte |
//! | anything else | comes in ten steps |

use super::{CHAT_MODEL, EMBED_MODEL};
use axum::{
    Json,
    body::{Body, Bytes},
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::sleep;

/// Bytes of a download.
pub const SIZE: u64 = 1_000_000;
/// Steps of a download.
const STEPS: u64 = 10;
/// Between two steps.
const PACE: Duration = Duration::from_millis(5);
const DIGEST: &str = "sha256:2af3b81862c6be03c769683af18efdadb2c33f60ff32ab6f83e42c043d6c7816";

type Lines = Pin<Box<dyn Stream<Item = io::Result<Value>> + Send>>;

/// What the engine has.
#[derive(Clone, Default)]
pub(super) struct Models(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    fetched: BTreeSet<String>,
    removed: BTreeSet<String>,
    /// Bytes of broken downloads.
    parts: BTreeMap<String, u64>,
    /// Downloads that were asked for, by model.
    asked: BTreeMap<String, u32>,
}

impl Models {
    fn with<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Body of `/api/tags`.
    pub(super) fn tags(&self) -> Value {
        let own = [
            json!({ "name": CHAT_MODEL, "capabilities": ["completion", "tools", "vision"] }),
            json!({ "name": EMBED_MODEL, "capabilities": ["embedding"] }),
        ];
        self.with(|disk| {
            let own = own.into_iter().filter(|model| !disk.removed.contains(model["name"].as_str().unwrap_or_default()));
            let fetched = disk.fetched.iter().map(|name| {
                json!({ "name": name, "size": SIZE, "capabilities": ["completion"],
                    "details": { "family": "script", "parameter_size": "1.2M", "quantization_level": "Q4_K_M" } })
            });
            json!({ "models": own.chain(fetched).collect::<Vec<_>>() })
        })
    }

    fn has(&self, name: &str) -> bool {
        self.tags()["models"].as_array().is_some_and(|all| all.iter().any(|model| model["name"] == name))
    }

    /// How often a download of `model` was asked for.
    pub(super) fn pulls(&self, model: &str) -> u32 {
        self.with(|disk| disk.asked.get(model).copied().unwrap_or_default())
    }
}

/// Ollama's name for a model without a tag.
fn full(model: &Value) -> String {
    let model = model.as_str().unwrap_or_default();
    if model.contains(':') { model.to_owned() } else { format!("{model}:latest") }
}

fn unknown(model: &Value) -> Response {
    let error = format!("model '{}' not found", model.as_str().unwrap_or_default());
    (StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response()
}

/// `POST /api/show`.
pub(super) async fn show(State(models): State<Models>, Json(request): Json<Value>) -> Response {
    let name = full(&request["model"]);
    if !models.has(&name) {
        return unknown(&request["model"]);
    }
    let can = match name.as_str() {
        EMBED_MODEL => vec!["embedding"],
        CHAT_MODEL => vec!["completion", "tools", "vision"],
        _ => vec!["completion"],
    };
    Json(json!({ "capabilities": can })).into_response()
}

/// `DELETE /api/delete`.
pub(super) async fn delete(State(models): State<Models>, Json(request): Json<Value>) -> Response {
    let name = full(&request["model"]);
    if !models.has(&name) {
        return unknown(&request["model"]);
    }
    models.with(|disk| {
        disk.fetched.remove(&name);
        disk.removed.insert(name);
    });
    StatusCode::OK.into_response()
}

/// `POST /api/pull`.
pub(super) async fn pull(State(models): State<Models>, Json(request): Json<Value>) -> Response {
    let asked = request["model"].as_str().unwrap_or_default().to_owned();
    let before = models.with(|disk| {
        let times = disk.asked.entry(asked.clone()).or_default();
        *times += 1;
        *times - 1
    });
    let lines = stream::iter([Ok(stage("pulling manifest"))]).chain(script(&asked, before, models));
    Body::from_stream(lines.map(|line| line.map(|line| Bytes::from(format!("{line}\n"))))).into_response()
}

fn script(model: &str, before: u32, models: Models) -> Lines {
    let error = |text: &str| Box::pin(stream::iter([Ok(json!({ "error": text }))])) as Lines;
    let from = models.with(|disk| disk.parts.get(model).copied().unwrap_or_default());
    match () {
        () if model.starts_with("nope") => error("pull model manifest: file does not exist"),
        () if model.starts_with("full") => error("write /models/blobs/sha256-2af3: no space left on device"),
        () if model.starts_with("offline") => {
            error("pull model manifest: Get \"https://registry.example/v2/\": dial tcp: lookup registry.example: no such host")
        }
        () if model.starts_with("huge") => Box::pin(stream::iter([Ok(part(1 << 60, 0))]).chain(stream::pending())),
        () if model.starts_with("slow") => {
            let steps = stream::iter(1..).then(|n: u64| async move {
                sleep(PACE).await;
                Ok(part(SIZE, n.min(SIZE / 2)))
            });
            Box::pin(steps)
        }
        () if model.starts_with("broken") => Box::pin(broken()),
        () if model.starts_with("cut") && before == 0 => {
            models.with(|disk| disk.parts.insert(model.to_owned(), SIZE / 2));
            Box::pin(steps(0, SIZE / 2).chain(broken()))
        }
        () => Box::pin(steps(from, SIZE).chain(end(full(&json!(model)), models))),
    }
}

/// Progress from one byte to another.
fn steps(from: u64, to: u64) -> impl Stream<Item = io::Result<Value>> + Send {
    stream::iter(0..=STEPS).then(move |n| async move {
        sleep(PACE).await;
        Ok(part(SIZE, from + (to - from) * n / STEPS))
    })
}

/// A connection that is closed, after what was said has got through.
fn broken() -> impl Stream<Item = io::Result<Value>> + Send {
    stream::once(async {
        sleep(PACE * 20).await;
        Err(io::ErrorKind::ConnectionReset.into())
    })
}

fn end(name: String, models: Models) -> impl Stream<Item = io::Result<Value>> + Send {
    let stages = ["verifying sha256 digest", "writing manifest"].map(|text| Ok(stage(text)));
    let done = stream::once(async move {
        models.with(|disk| disk.fetched.insert(name));
        Ok(stage("success"))
    });
    stream::iter(stages).chain(done)
}

fn stage(text: &str) -> Value {
    json!({ "status": text })
}

fn part(total: u64, completed: u64) -> Value {
    json!({ "status": format!("pulling {}", &DIGEST[7..19]), "digest": DIGEST, "total": total, "completed": completed })
}
