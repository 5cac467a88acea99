//! The control socket: how `infernet` commands talk to the node that runs in the same home.
//!
//! HTTP on a Unix socket in the home, which only its owner may enter: the file system is the access control, no port is open
//! and no token exists. A chat is one POST whose answer is a line of JSON per step.

pub mod client;
mod command;
pub mod credit;
pub mod schema;
mod tranche;
pub(crate) mod wallet;

use crate::{
    buyer::{ChatError, ChatEvent},
    disputes::Disputes,
    jobs::JobReport,
    node::Node,
    store::{Page, Position, Store, StoreError},
    why::WhyReport,
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{Stream, stream};
use infernet_wire::id::JobId;
use schema::{ChatStep, DisputeReport, ErrorReport, ModelReport, OfferedReport, PeerReport, ReceiptRows, StatusReport};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// The socket's name in a home.
pub const SOCKET: &str = "control.sock";
/// The longest path that a Unix socket may have on every system.
const MAX_PATH: usize = 100;
/// Steps that wait for a reader; then the worker waits, as it should.
const STEPS: usize = 16;

/// The socket can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody answers there.
    #[error("another node is running in {}; stop it, or give this one its own --home", .0.display())]
    Running(PathBuf),
    /// The path is too long for the operating system.
    #[error("the home's path {} is too long for a control socket; choose one of at most {} characters with --home", .0.display(), MAX_PATH - SOCKET.len() - 1)]
    PathTooLong(PathBuf),
    /// The operating system.
    #[error("can't open the control socket {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound control socket. Dropping it removes the file.
pub struct Control {
    listener: Option<UnixListener>,
    path: PathBuf,
    task: Option<JoinHandle<()>>,
}

impl Control {
    /// Takes the socket of `home`, so that no second node starts there.
    pub fn bind(home: &Path) -> Result<Self, ControlError> {
        let path = home.join(SOCKET);
        if path.as_os_str().len() > MAX_PATH {
            return Err(ControlError::PathTooLong(home.into()));
        }
        if UnixStream::connect(&path).is_ok() {
            return Err(ControlError::Running(home.into()));
        }
        // Left behind by a node that was killed.
        let _ = fs::remove_file(&path);
        let failed = |source| ControlError::Io { path: path.clone(), source };
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Control { listener: Some(listener), path, task: None })
    }

    /// Serves `node` from now on.
    pub fn serve(&mut self, node: Arc<Node>) {
        let Some(listener) = self.listener.take() else { return };
        let router = Router::new()
            .route("/v0/status", get(status))
            .route("/v0/peers", get(peers))
            .route("/v0/models", get(models))
            .route("/v0/counters", get(counters))
            .route("/v0/metrics", get(metrics))
            .route("/v0/jobs", get(jobs))
            .route("/v0/why", get(why))
            .route("/v0/receipts", get(receipts))
            .route("/v0/disputes", get(disputes))
            .route("/v0/chat", post(chat))
            .route("/v0/engines", post(engines))
            .route("/v0/command", command::route(self.home()))
            .route("/v0/credit", get(credit::list).post(credit::set))
            .route("/v0/credit/paid", post(credit::clear))
            .route("/v0/tranche", get(tranche::list).post(tranche::buy))
            .route("/v0/tranche/drop", post(tranche::drop))
            .route("/v0/wallet", get(wallet::show).post(wallet::act))
            .route("/v0/wallet/steps", get(wallet::steps))
            .route("/v0/payout", post(wallet::pay_to))
            .route("/v0/drain", post(command::drain))
            .route("/v0/resume", post(command::resume))
            .with_state(node);
        self.task = Some(tokio::spawn(async move {
            // Runs until aborted; a failing accept is retried by axum.
            let _ = axum::serve(listener, router).await;
        }));
    }
}

impl Control {
    fn home(&self) -> PathBuf {
        self.path.parent().map(Path::to_owned).unwrap_or_default()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        let _ = fs::remove_file(&self.path);
    }
}

async fn status(State(node): State<Arc<Node>>) -> Json<StatusReport> {
    Json(node.status().await)
}

async fn peers(State(node): State<Arc<Node>>) -> Json<Vec<PeerReport>> {
    Json(node.peers().await)
}

async fn models(State(node): State<Arc<Node>>) -> Json<Vec<ModelReport>> {
    Json(node.buyer().known_models().await.iter().map(ModelReport::from).collect())
}

/// How many jobs are asked for.
#[derive(serde::Deserialize)]
struct Listed {
    #[serde(default = "everything")]
    limit: usize,
}

fn everything() -> usize {
    usize::MAX
}

async fn jobs(State(node): State<Arc<Node>>, Query(listed): Query<Listed>) -> Json<Vec<JobReport>> {
    Json(node.recent_jobs(listed.limit))
}

async fn why(State(node): State<Arc<Node>>) -> Json<WhyReport> {
    Json(node.why().await)
}

async fn counters(State(node): State<Arc<Node>>) -> Json<BTreeMap<String, u64>> {
    Json(node.counters().await)
}

/// Asks the engines now, after a model came, went, or is to be offered.
async fn engines(State(node): State<Arc<Node>>, Json(body): Json<schema::EnginesBody>) -> Json<OfferedReport> {
    Json(OfferedReport { models: node.poll_engines(body.only).await.unwrap_or_default() })
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    crate::metrics::answer(&node).await
}

/// Which receipts are asked for: `before` is the position of the last one that the reader has.
#[derive(serde::Deserialize)]
struct Wanted {
    limit: usize,
    before: Option<Position>,
    /// Those of this job alone, whatever the rest says.
    job: Option<JobId>,
}

/// Receipts as hex of their bytes, newest first: the reader verifies them itself. And how many can't be read.
async fn receipts(State(node): State<Arc<Node>>, Query(wanted): Query<Wanted>) -> Response {
    let store = node.store().clone();
    let read = tokio::task::spawn_blocking(move || receipt_rows(&*store, &wanted)).await;
    match read {
        Ok(Ok(rows)) => Json(rows).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn receipt_rows(store: &dyn Store, wanted: &Wanted) -> Result<ReceiptRows, StoreError> {
    let before = store.counts()?.unreadable;
    let receipts = match &wanted.job {
        Some(job) => store.receipts_of(job)?,
        None => store.receipts(Page { before: wanted.before, limit: wanted.limit })?,
    };
    let unreadable = store.counts()?.unreadable.saturating_sub(before);
    Ok(ReceiptRows { rows: receipts.iter().map(|r| hex::encode(r.encode())).collect(), unreadable })
}

async fn disputes(State(node): State<Arc<Node>>) -> Response {
    match Disputes::new(node.store().clone()).all().await {
        Ok(all) => Json(all.into_iter().map(DisputeReport::from).collect::<Vec<_>>()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Runs a chat. The job is cancelled when the reader goes away.
async fn chat(State(node): State<Arc<Node>>, Json(order): Json<schema::ChatOrderBody>) -> Response {
    let (steps, lines) = mpsc::channel(STEPS);
    tokio::spawn(run_chat(node, order, steps));
    ([("content-type", "application/x-ndjson")], Body::from_stream(ndjson(lines))).into_response()
}

async fn run_chat(node: Arc<Node>, order: schema::ChatOrderBody, steps: mpsc::Sender<ChatStep>) {
    let (events, mut heard) = mpsc::channel::<ChatEvent>(STEPS);
    let forwarding = {
        let steps = steps.clone();
        async move {
            // Dropping `heard` cancels the job. The reader may go away while nothing happens, too.
            loop {
                let event = tokio::select! {
                    () = steps.closed() => break,
                    event = heard.recv() => event,
                };
                let Some(event) = event else { break };
                if steps.send(ChatStep::from(event)).await.is_err() {
                    break;
                }
            }
            drop(heard);
        }
    };
    let (_never, mut cancel) = watch::channel(false);
    let running = async {
        let result = node.chat(order.into(), &events, &mut cancel).await;
        drop(events);
        result
    };
    let (result, ()) = tokio::join!(running, forwarding);
    let last = match result {
        Ok(report) => ChatStep::Done(Box::new(report)),
        Err(error) => ChatStep::Error(error_report(&error)),
    };
    let _ = steps.send(last).await;
}

/// The error as `infernet` shows it, here or at the other end of the socket.
pub fn error_report(error: &ChatError) -> ErrorReport {
    let partial = match error {
        ChatError::Failed { partial, .. } if !partial.is_empty() => Some(partial.clone()),
        _ => None,
    };
    ErrorReport { exit: crate::cli::exit::of_chat(error), message: error.to_string(), partial }
}

fn ndjson(lines: mpsc::Receiver<ChatStep>) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(lines, |mut lines| async move {
        let step = lines.recv().await?;
        let mut line = serde_json::to_vec(&step).unwrap_or_default();
        line.push(b'\n');
        Some((Ok(Bytes::from(line)), lines))
    })
}
