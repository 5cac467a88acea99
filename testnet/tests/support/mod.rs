//! An engine with Ollama's interface whose every piece the test decides.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle};

/// The model it serves.
pub(crate) const MODEL: &str = "tiny-chat:latest";

/// What it does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Says these pieces and ends well.
    Say(Vec<String>),
    /// Says this piece every few milliseconds until nobody listens.
    Drone(String),
    /// Says these pieces, then that it failed, in these words.
    Fail(Vec<String>, String),
    /// Refuses at once with HTTP 500 and these words.
    Refuse(String),
}

/// Slower than a cancel, fast enough for a test.
const PACE: Duration = Duration::from_millis(5);

type Decide = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

/// The running engine; dropping it stops it.
pub(crate) struct Scripted {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Answers each request as `decide` says of its last message.
    pub(crate) async fn start(decide: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let decide: Decide = Arc::new(decide);
        let router = Router::new()
            .route("/api/tags", get(async || Json(json!({ "models": [{ "name": MODEL }] }))))
            .route("/api/ps", get(async || Json(json!({ "models": [] }))))
            .route("/api/show", post(async || Json(json!({}))))
            .route("/api/chat", post(chat))
            .with_state(decide);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Scripted { addr, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn chat(State(decide): State<Decide>, Json(request): Json<Value>) -> Response {
    let prompt = request.pointer("/messages").and_then(Value::as_array).and_then(|m| m.last()?.pointer("/content")?.as_str());
    match decide(prompt.unwrap_or_default()) {
        Reply::Say(pieces) => {
            let count = pieces.len();
            let end = json!({ "message": { "content": "" }, "done": true, "done_reason": "stop", "eval_count": count });
            lines(stream::iter(pieces.into_iter().map(piece)).chain(stream::iter([end])))
        }
        Reply::Drone(text) => lines(ticks().map(move |()| piece(text.clone()))),
        Reply::Fail(pieces, error) => {
            lines(stream::iter(pieces.into_iter().map(piece)).chain(stream::iter([json!({ "error": error })])))
        }
        Reply::Refuse(error) => {
            (axum::http::StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error }))).into_response()
        }
    }
}

fn ticks() -> impl stream::Stream<Item = ()> {
    stream::unfold(tokio::time::interval(PACE), |mut interval| async move { Some((interval.tick().await, interval)) })
        .map(|_| ())
}

fn piece(text: String) -> Value {
    json!({ "message": { "role": "assistant", "content": text }, "done": false })
}

fn lines(values: impl stream::Stream<Item = Value> + Send + 'static) -> Response {
    Body::from_stream(values.map(|value| Ok::<_, Infallible>(Bytes::from(format!("{value}\n"))))).into_response()
}
