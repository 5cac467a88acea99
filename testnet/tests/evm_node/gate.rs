//! A chain's node that can be taken away, or that is stingy with logs: what is asked goes on to the real one, or is answered with an error.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use infernet_node::settlement::evm::rpc::quantity;
use serde_json::{Value, json};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// In its URL's path.
pub(crate) const SECRET: &str = "a-key-that-is-secret";

/// How it gives logs.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    /// Of so many blocks at once at most.
    pub(crate) most: Option<u64>,
    /// None of blocks before this one.
    pub(crate) since: u64,
    /// What was asked for and given: the first and the last block.
    pub(crate) given: Vec<(u64, u64)>,
}

#[derive(Clone)]
struct Way {
    to: String,
    open: Arc<AtomicBool>,
    logs: Arc<Mutex<Logs>>,
    client: reqwest::Client,
}

/// Dropping it closes it.
pub(crate) struct Gate {
    url: String,
    open: Arc<AtomicBool>,
    logs: Arc<Mutex<Logs>>,
    task: JoinHandle<()>,
}

impl Gate {
    /// Before the node at `to`; open.
    pub(crate) async fn before(to: &str) -> Self {
        let (open, logs) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<Logs>>::default());
        let way = Way { to: to.into(), open: open.clone(), logs: logs.clone(), client: reqwest::Client::new() };
        let router = Router::new().route(&format!("/{SECRET}"), post(pass)).with_state(way);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let url = format!("http://{}/{SECRET}", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Gate { url, open, logs, task }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How it gives logs, to look at or to change.
    pub(crate) fn logs<T>(&self, act: impl FnOnce(&mut Logs) -> T) -> T {
        act(&mut self.logs.lock().expect("no panic"))
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(way): State<Way>, body: Bytes) -> Response {
    if !way.open.load(Ordering::SeqCst) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{SECRET} is used up")).into_response();
    }
    if let Some(refusal) = way.refusal(&body) {
        return axum::Json(json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32_005, "message": refusal } }))
            .into_response();
    }
    let asked = way.client.post(&way.to).header("content-type", "application/json").body(body).send();
    let answer = asked.await.expect("anvil is there").bytes().await.expect("an answer");
    ([("content-type", "application/json")], answer).into_response()
}

impl Way {
    fn refusal(&self, body: &[u8]) -> Option<&'static str> {
        let asked: Value = serde_json::from_slice(body).expect("JSON");
        let filter = asked["params"].get(0).filter(|_| asked["method"] == "eth_getLogs")?;
        let [from, to] = ["fromBlock", "toBlock"].map(|block| quantity(&filter[block]).expect("a number") as u64);
        let mut logs = self.logs.lock().expect("no panic");
        if logs.most.is_some_and(|most| to - from >= most) {
            return Some("query exceeds the block range");
        }
        if from < logs.since {
            return Some("history is not there");
        }
        logs.given.push((from, to));
        None
    }
}
