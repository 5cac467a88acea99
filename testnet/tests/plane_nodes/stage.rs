//! A plane on loopback, and clients with keys.

use infernet_node::{
    clock,
    operator::{OperatorKey, Operators},
    plane_client,
};
use infernet_plane::{
    config::PlaneConfig,
    gateway::{Gateway, Through},
    http,
    state::Plane,
    store::{EmbeddedStore, NodeRow, Pubkey, Role, Store},
};
use infernet_testnet::cluster::{NETWORK, eventually};
use infernet_wire::{
    command::OperatorCommand,
    http_auth::{self, HEADER},
    id::NodeId,
    key::NodeKey,
    topic::NetworkId,
};
use serde_json::{Map, Value};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

/// Nothing here takes longer, on the slowest machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// The real `infernet`, as the test's own binary runs it.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_infernet-testnet");

pub(crate) fn network() -> NetworkId {
    NETWORK.parse().expect("a network")
}

pub(crate) fn key() -> NodeKey {
    NodeKey::from_bytes(&clock::random()).expect("a key")
}

/// A running plane. Dropping it stops it.
pub(crate) struct TestPlane {
    pub(crate) parts: Plane,
    pub(crate) addr: SocketAddr,
    task: JoinHandle<()>,
}

impl TestPlane {
    /// With a store in `directory`; nodes are offline after `offline_ms`.
    pub(crate) async fn start_in(directory: &Path, offline_ms: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        Self::serve(listener, directory, offline_ms).await
    }

    pub(crate) async fn serve(listener: TcpListener, directory: &Path, offline_ms: u64) -> Self {
        Self::buying(listener, directory, offline_ms, None).await
    }

    /// One that buys through a node.
    pub(crate) async fn buying(listener: TcpListener, directory: &Path, offline_ms: u64, through: Option<Through>) -> Self {
        let addr = listener.local_addr().expect("an address");
        let mut config = PlaneConfig { network: network(), offline_ms, ..PlaneConfig::new(format!("http://{addr}")) };
        // Tests ask often.
        config.http.per_minute = 60_000;
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(directory, &network()).expect("a store"));
        let gateway = through.map(|through| Gateway::start(through, store.clone(), config.gateway.clone()));
        let plane = Plane::new(store.clone(), gateway, Arc::new(config));
        let router = http::router(plane.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        TestPlane { parts: plane, addr, task }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops it, and waits until its store is closed.
    pub(crate) async fn stop(self) {
        let store = Arc::downgrade(&self.parts.store);
        self.task.abort();
        drop(self);
        eventually("closing the store", DEADLINE, || async { store.strong_count() == 0 }).await.expect("closed");
    }

    /// The row of a node.
    pub(crate) async fn row(&self, id: &NodeId, role: Role) -> Option<NodeRow> {
        self.parts.store.node(Pubkey(id.x_only()), role).await.expect("the store answers")
    }

    /// A client of the plane's API as `infernet` has it, with `key`.
    pub(crate) fn client(&self, key: &NodeKey) -> plane_client::Plane {
        plane_client::Plane::new(self.origin().parse().expect("an origin"), key.clone()).expect("a client")
    }
}

impl Drop for TestPlane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A plane and the directory of its store.
pub(crate) struct Fresh {
    pub(crate) plane: TestPlane,
    _directory: TempDir,
}

impl std::ops::Deref for Fresh {
    type Target = TestPlane;

    fn deref(&self) -> &TestPlane {
        &self.plane
    }
}

/// A new plane that buys through a node.
pub(crate) async fn buying(through: Through) -> Fresh {
    let directory = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    Fresh { plane: TestPlane::buying(listener, directory.path(), 90_000, Some(through)).await, _directory: directory }
}

/// A new plane whose nodes are offline after `offline_ms`.
pub(crate) async fn plane(offline_ms: u64) -> Fresh {
    let directory = tempfile::tempdir().expect("a directory");
    Fresh { plane: TestPlane::start_in(directory.path(), offline_ms).await, _directory: directory }
}

/// A signed request as it is on the wire.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) body: String,
    pub(crate) header: String,
}

impl Request {
    /// A POST of `body`, signed by `key` now.
    pub(crate) fn new(key: &NodeKey, path: &str, body: &Value) -> Self {
        let body = body.to_string();
        let request = http_auth::Request { method: "POST", path, body: body.as_bytes() };
        let header = http_auth::sign(key, request, clock::now().0 / 1000, &clock::random());
        Request { path: path.into(), body, header }
    }

    /// Its status and answer.
    pub(crate) async fn send(&self, plane: &TestPlane) -> (u16, Value) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = client.post(format!("{}{}", plane.origin(), self.path)).header(HEADER, &self.header);
        let response = request.body(self.body.clone()).send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.expect("JSON"))
    }
}

/// POSTs `body`, signed by `key`.
pub(crate) async fn post(plane: &TestPlane, key: &NodeKey, path: &str, body: Value) -> (u16, Value) {
    Request::new(key, path, &body).send(plane).await
}

/// The command `verb` for `node`, signed by `operator` for the network of the tests.
pub(crate) fn command(operator: &NodeKey, node: NodeId, sequence: u64, verb: &str, argument: &str) -> String {
    let now = clock::now();
    let body = OperatorCommand {
        node,
        sequence,
        issued: now,
        expires: now.after(120_000),
        verb: verb.into(),
        argument: argument.into(),
    };
    hex::encode(operator.sign(&network(), body).expect("within limits").raw())
}

/// The path of a node's commands.
pub(crate) fn path_of(node: &NodeId) -> String {
    format!("/api/v1/user/nodes/{}/commands", hex::encode(node.x_only()))
}

/// A body with one field.
pub(crate) fn body(key: &str, value: impl Into<Value>) -> Map<String, Value> {
    [(key.to_owned(), value.into())].into_iter().collect()
}

/// Lets `operator` command the node of `home`.
pub(crate) fn obey(home: &Path, operator: &NodeKey) {
    let mut operators = Operators::load(home).expect("operators");
    operators.add(OperatorKey::of_node(&operator.id()), clock::now()).expect("there is room");
    operators.save(home).expect("saved");
}

/// Runs `infernet` in `home`; exit code, stdout and stderr.
pub(crate) async fn infernet(home: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(PathBuf::from(BINARY));
    command.arg("node").arg("--home").arg(home).args(args).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output()).await.expect("in time").expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
