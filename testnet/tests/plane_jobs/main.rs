//! The plane's API for clients, over a real mesh: a worker with a scripted engine, the plane's own node, and the plane in this
//! process behind a real socket.

#![cfg(test)]

mod access;
mod jobs;
mod openai;
mod signing_in;

use infernet_node::clock;
use infernet_plane::{
    accounts::{self, KeyWish},
    config::PlaneConfig,
    gateway::{Gateway, Through},
    http,
    state::Plane,
    store::{ClientId, EmbeddedStore, Store},
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, NETWORK, Sells},
    scripted::{CHAT_MODEL, ScriptedEngine},
};
use infernet_wire::money::MicroUsd;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

/// For everything that must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// What the worker charges per million tokens: one micro-USD a token, so that amounts can be counted by hand.
const PRICE: u64 = 1_000_000;
/// What the client has.
const BALANCE: u64 = 1_000_000;

/// A plane that serves, without a mesh unless a [`Network`] gave it one.
struct Served {
    plane: Plane,
    home: TempDir,
    addr: SocketAddr,
    http: Client,
    server: JoinHandle<()>,
}

impl Served {
    /// A plane that only keeps accounts.
    async fn alone() -> Self {
        Self::start(None, |_| {}).await
    }

    async fn start(through: Option<Through>, change: impl FnOnce(&mut PlaneConfig)) -> Self {
        let home = tempfile::Builder::new().prefix("infernet-plane-").tempdir().expect("a directory");
        let store = EmbeddedStore::open(home.path(), &NETWORK.parse().expect("a network")).expect("a store");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let mut config = PlaneConfig::new(format!("http://{addr}"));
        change(&mut config);
        let store: Arc<dyn Store> = Arc::new(store);
        let gateway = through.map(|through| Gateway::start(through, store.clone(), config.gateway.clone()));
        let plane = Plane::new(store, gateway, Arc::new(config));
        let app = http::router(plane.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        let http = Client::builder().no_proxy().timeout(SOON).build().expect("a client");
        Served { plane, home, addr, http, server }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.addr))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.ask(Method::GET, path)
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.ask(Method::POST, path).json(body)
    }

    /// A client with `balance` and a key with `scopes`.
    async fn client(&self, balance: u64, scopes: &[&str]) -> (ClientId, String) {
        let store = &*self.plane.store;
        let client = accounts::new_client(store, "a client", false).await.expect("a client").id;
        if balance > 0 {
            let reference = format!("for {}", client.0);
            assert!(accounts::grant(store, &client, MicroUsd(balance), &reference).await.expect("a grant"));
        }
        let key = self.key(&client, KeyWish { scopes: scopes.iter().map(|&s| s.into()).collect(), ..KeyWish::default() }).await;
        (client, key)
    }

    async fn key(&self, client: &ClientId, wish: KeyWish) -> String {
        accounts::new_key(&*self.plane.store, client, wish).await.expect("a key").0.to_string()
    }

    /// Balance and reservations.
    async fn money(&self, client: &ClientId) -> (u64, u64) {
        let row = self.plane.store.client(client).await.expect("a store").expect("a client");
        (row.balance.0, row.reserved.0)
    }

    /// Whether `needle` is in any file of the store.
    fn keeps(&self, needle: &str) -> bool {
        fn holds(path: &std::path::Path, needle: &[u8]) -> bool {
            if path.is_dir() {
                return std::fs::read_dir(path).expect("readable").any(|entry| holds(&entry.expect("an entry").path(), needle));
            }
            let bytes = std::fs::read(path).expect("readable");
            bytes.windows(needle.len()).any(|window| window == needle)
        }
        holds(self.home.path(), needle.as_bytes())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A worker, and a plane that buys of it.
struct Network {
    engine: ScriptedEngine,
    worker: Member,
    _buyer: Member,
    served: Served,
    client: ClientId,
    key: String,
}

impl std::ops::Deref for Network {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.served
    }
}

impl Network {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut PlaneConfig)) -> Self {
        let engine = ScriptedEngine::start().await.expect("an engine");
        let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
        let sells = Sells::new(engine.url(), PRICE, PRICE, 16);
        let worker = Member::start(MemberSpec::worker(buyer.addresses().await, sells)).await.expect("a worker");
        buyer.knows(CHAT_MODEL, 1, SOON).await.expect("the worker's ad");
        let served = Served::start(Some(Through::from(&buyer.node)), change).await;
        let (client, key) = served.client(BALANCE, &["jobs"]).await;
        Network { engine, worker, _buyer: buyer, served, client, key }
    }

    /// Asks for a job, which must be taken.
    async fn submit(&self, prompt: &str, more: Value) -> Value {
        let response = self.post("/api/v1/jobs", &job(prompt, more)).bearer_auth(&self.key).send().await.expect("an answer");
        answered(response, 202).await
    }

    async fn job(&self, id: &Value) -> Value {
        let path = format!("/api/v1/jobs/{}", id.as_str().expect("an id"));
        answered(self.get(&path).bearer_auth(&self.key).send().await.expect("an answer"), 200).await
    }

    /// Follows a job from the event after `last`.
    async fn follow(&self, id: &Value, last: Option<&str>) -> Response {
        let request = self.get(&format!("/api/v1/jobs/{}/stream", id.as_str().expect("an id"))).bearer_auth(&self.key);
        let request = if let Some(last) = last { request.header("last-event-id", last) } else { request };
        let response = request.send().await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        response
    }

    /// The whole stream of a job.
    async fn stream(&self, id: &Value) -> Stream {
        Stream::read(&self.follow(id, None).await.text().await.expect("a whole stream"))
    }
}

/// A job that says `prompt`, and `more`.
fn job(prompt: &str, more: Value) -> Value {
    let mut body = json!({ "model": CHAT_MODEL, "prompt": prompt, "max_tokens": 64 });
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

/// What a stream told.
#[derive(Debug, Default)]
struct Stream {
    text: String,
    last: String,
    done: bool,
    error: Option<String>,
}

impl Stream {
    fn read(text: &str) -> Self {
        let mut stream = Stream::default();
        for event in text.split_terminator("\n\n").filter(|event| !event.starts_with(':')) {
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
            stream.last = field("id:").expect("every event has an id");
            let data = field("data:").expect("data");
            if data == "[DONE]" {
                stream.done = true;
                continue;
            }
            let data: Value = serde_json::from_str(&data).expect("JSON");
            stream.text.push_str(data["text"].as_str().unwrap_or_default());
            stream.error = data["error"].as_str().map(str::to_owned).or(stream.error);
        }
        stream
    }
}

/// The JSON of a response that must have this status.
async fn answered(response: Response, status: u16) -> Value {
    let got = response.status().as_u16();
    let text = response.text().await.expect("a body");
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// Sends a request whose answer must be an error of this status and code, in the plane's shape.
async fn refused(request: RequestBuilder, status: u16, code: &str) -> String {
    let body = answered(request.send().await.expect("an answer"), status).await;
    assert_eq!(body["error"]["code"], code, "{body}");
    body["error"]["message"].as_str().expect("a message").to_owned()
}

/// Waits until `holds`.
async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    infernet_testnet::cluster::eventually(what, SOON, holds).await.expect("in time");
}

fn now() -> infernet_wire::time::UnixMillis {
    clock::now()
}
