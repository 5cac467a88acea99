//! Planes that lie: whatever they say, only what an operator signed for this node, in time and for the first time, is obeyed.

use super::stage::{BINARY, DEADLINE, command, key, network, obey};
use axum::{
    Json, Router,
    extract::{Path as Named, State},
    routing::post,
};
use infernet_node::{clock, control::client::Client, control::schema::StatusReport};
use infernet_testnet::{
    cluster::{Sells, eventually, process::Process},
    scripted::ScriptedEngine,
};
use infernet_wire::{command::OperatorCommand, key::NodeKey, time::UnixMillis};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// A plane that gives commands of its own, and hears how they ended.
#[derive(Clone, Default)]
struct Liar {
    gives: Arc<Mutex<Vec<Value>>>,
    ends: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Liar {
    async fn start(self) -> (String, JoinHandle<()>) {
        let yes = async || Json(json!({ "data": { "id": "x", "node_id": "x" } }));
        let router = Router::new()
            .route("/api/v1/node/register", post(yes))
            .route("/api/v1/node/heartbeat", post(yes))
            .route("/api/v1/node/commands/poll", post(give))
            .route("/api/v1/node/commands/{id}/complete", post(ended))
            .with_state(self);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        (origin, tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") }))
    }

    fn gives(&self, id: &str, signed: &str) {
        let given = json!({ "id": id, "command": "drain", "args": {}, "signed": signed });
        self.gives.lock().expect("no panic").push(given);
    }

    fn end(&self, id: &str) -> Option<Value> {
        self.ends.lock().expect("no panic").get(id).cloned()
    }

    async fn ended(&self, id: &str) -> Value {
        eventually(id, DEADLINE, || async { self.end(id).is_some() }).await.expect("it ends");
        self.end(id).expect("it has ended")
    }
}

async fn give(State(liar): State<Liar>) -> Json<Value> {
    let given = std::mem::take(&mut *liar.gives.lock().expect("no panic"));
    Json(json!({ "data": { "commands": given } }))
}

async fn ended(State(liar): State<Liar>, Named(id): Named<String>, Json(body): Json<Value>) -> Json<Value> {
    liar.ends.lock().expect("no panic").insert(id.clone(), body);
    Json(json!({ "data": { "id": id, "status": "failed" } }))
}

async fn status(node: &Process) -> StatusReport {
    Client::connect(node.home.path()).expect("it runs").get("status").await.expect("it answers")
}

async fn worker(engine: &ScriptedEngine, origin: &str) -> Process {
    let extra = ["--plane", origin, "--heartbeat-secs", "1"];
    Process::worker(Path::new(BINARY), &Sells::new(engine.url(), 100, 200, 2), &[], &extra).await.expect("starts")
}

/// As [`command`], but of another time.
fn dated(operator: &NodeKey, node: &Process, sequence: u64, issued: UnixMillis) -> String {
    let (node, verb, argument) = (node.status.id, "drain".into(), String::new());
    let body = OperatorCommand { node, sequence, issued, expires: issued.after(60_000), verb, argument };
    hex::encode(operator.sign(&network(), body).expect("within limits").raw())
}

#[tokio::test]
async fn a_hostile_plane_can_invent_alter_and_repeat_nothing() {
    let (liar, engine, operator, stranger) = (Liar::default(), ScriptedEngine::start().await.expect("an engine"), key(), key());
    let (origin, _plane) = liar.clone().start().await;
    let node = worker(&engine, &origin).await;
    obey(node.home.path(), &operator);
    let id = node.status.id;
    let resume = |sequence| command(&operator, id, sequence, "resume", "");
    liar.gives("honest", &resume(100));
    assert_eq!(liar.ended("honest").await["status"], "completed", "the way works");

    let forged = command(&stranger, id, 101, "drain", "");
    let mut altered = hex::decode(command(&operator, id, 102, "drain", "")).expect("hex");
    let place = altered.windows(5).position(|bytes| bytes == b"drain").expect("the verb");
    altered[place..place + 5].copy_from_slice(b"drair");
    let attacks = [
        ("forged", forged, "is no operator of this node"),
        ("altered", hex::encode(&altered), "signature verification failed"),
        ("of another node", command(&operator, key().id(), 103, "drain", ""), "not for this one"),
        ("expired", dated(&operator, &node, 104, UnixMillis(clock::now().0 - 120_000)), "has expired"),
        ("of the future", dated(&operator, &node, 105, clock::now().after(60_000)), "from the future"),
        ("older", command(&operator, id, 99, "drain", ""), "or a later one was obeyed already"),
        ("of no kind", "00".repeat(99), "no valid command"),
        ("of no verb", command(&operator, id, 106, "wipe", ""), "unknown verb"),
        ("an option", command(&operator, id, 107, "model_install", "--insecure"), "no name of a model"),
    ];
    let mut accepted = 0;
    for (what, signed, why) in &attacks {
        let name = what.replace(' ', "-");
        liar.gives(&name, signed);
        let end = liar.ended(&name).await;
        assert!(end["error"].as_str().is_some_and(|error| error.contains(why)), "{what}: {end}");
        accepted += usize::from(end["status"] != "failed");
    }
    assert_eq!(accepted, 0);
    assert!(!status(&node).await.seller.expect("it sells").draining);

    // Again what was obeyed once: the end is told again, nothing is done again.
    let once = command(&operator, id, 200, "drain", "");
    liar.gives("once", &once);
    assert_eq!(liar.ended("once").await["status"], "completed");
    liar.gives("resumed", &resume(201));
    assert_eq!(liar.ended("resumed").await["status"], "completed");
    liar.gives("twice", &once);
    liar.ended("twice").await;
    assert!(!status(&node).await.seller.expect("it sells").draining, "a repeated command does nothing");
}

#[tokio::test]
async fn a_command_is_not_obeyed_again_after_a_restart() {
    let (liar, engine, operator) = (Liar::default(), ScriptedEngine::start().await.expect("an engine"), key());
    let (origin, _plane) = liar.clone().start().await;
    let sold = Sells::new(engine.url(), 100, 200, 2).flags();
    let flags: Vec<&str> =
        sold.iter().map(String::as_str).chain(["--plane", origin.as_str(), "--heartbeat-secs", "1"]).collect();
    let launch = infernet_testnet::cluster::process::Launch::new(Path::new(BINARY), &[], &flags).expect("a home").listening();
    let mut node = launch.start().await.expect("starts");
    obey(node.home.path(), &operator);
    let drain = command(&operator, node.status.id, 5, "drain", "");
    liar.gives("first", &drain);
    assert_eq!(liar.ended("first").await["status"], "completed");
    node.kill().await;

    let node = launch.start().await.expect("starts again");
    liar.gives("again", &drain);
    let end = liar.ended("again").await;
    assert!(end["error"].as_str().is_some_and(|error| error.contains("obeyed already")), "{end}");
    assert!(!status(&node).await.seller.expect("it sells").draining);
}

#[tokio::test]
async fn a_plane_that_is_down_or_drowns_the_node_costs_nothing() {
    let engine = ScriptedEngine::start().await.expect("an engine");
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let silent = format!("http://{}", nobody.local_addr().expect("an address"));
    let drowning = Router::new().fallback(async || vec![b'x'; 4 << 20]);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let flooder = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, drowning).await.expect("it serves") });
    let down = "http://127.0.0.1:9".to_owned();
    let extra = ["--plane", &silent, "--plane", &flooder, "--plane", &down, "--heartbeat-secs", "1"];
    let mut node =
        Process::worker(Path::new(BINARY), &Sells::new(engine.url(), 100, 200, 2), &[], &extra).await.expect("starts");
    let worker = infernet_testnet::cluster::question(infernet_testnet::scripted::CHAT_MODEL, 8);
    let bootstrap: Vec<String> = node.status.listen.clone();
    let buyer = Process::buyer(Path::new(BINARY), &bootstrap, &[]).await.expect("starts");
    let client = Client::connect(buyer.home.path()).expect("it runs");
    let answered = || async {
        let last = client.chat(&worker, |_| std::ops::ControlFlow::Continue(())).await;
        matches!(last, Ok(Some(infernet_node::control::schema::ChatStep::Done(_))))
    };
    eventually("a job", DEADLINE, answered).await.expect("it is served");
    // The first is silent for a while yet; the others have been tried.
    let told = || async {
        let planes = status(&node).await.planes;
        let said = |n: usize, words: &str| planes[n].error.as_ref().is_some_and(|error| error.contains(words));
        planes.len() == 3 && said(1, "does not answer as a plane") && said(2, "can't be reached") && planes[2].told.is_none()
    };
    eventually("planes that fail are told of", DEADLINE, told).await.expect("with the reason");
    assert!(node.stop(DEADLINE).await.is_some_and(|exit| exit.success()), "and it stops in order");
}
