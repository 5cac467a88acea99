//! A chain's node that can be taken away: what is asked goes on to the real one, or is answered with an error.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// In its URL's path.
pub(crate) const SECRET: &str = "a-key-that-is-secret";

#[derive(Clone)]
struct Way {
    to: String,
    open: Arc<AtomicBool>,
    client: reqwest::Client,
}

/// Dropping it closes it.
pub(crate) struct Gate {
    url: String,
    open: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Gate {
    /// Before the node at `to`; open.
    pub(crate) async fn before(to: &str) -> Self {
        let open = Arc::new(AtomicBool::new(true));
        let way = Way { to: to.into(), open: open.clone(), client: reqwest::Client::new() };
        let router = Router::new().route(&format!("/{SECRET}"), post(pass)).with_state(way);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let url = format!("http://{}/{SECRET}", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Gate { url, open, task }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
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
    let asked = way.client.post(&way.to).header("content-type", "application/json").body(body).send();
    let answer = asked.await.expect("anvil is there").bytes().await.expect("an answer");
    ([("content-type", "application/json")], answer).into_response()
}
