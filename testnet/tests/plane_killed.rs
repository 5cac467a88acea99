//! A plane's process is killed while jobs run: those of the mesh go on, and the next one knows what it knew.

#![cfg(test)]

use infernet_node::{
    buyer::{ChatOrder, PathChoice},
    clock,
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, NETWORK, Sells, eventually},
    demo::order,
    scripted::{CHAT_MODEL, ScriptedEngine},
};
use infernet_wire::{
    http_auth::{self, HEADER},
    key::NodeKey,
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// For everything that must happen, on a busy machine. Who comes late hears a worker's next ad after up to 45 s.
const SOON: Duration = Duration::from_secs(120);
/// What a worker charges per million tokens.
const PRICE: u64 = 1_000_000;
/// Jobs of the mesh that run while the plane dies.
const JOBS: usize = 12;

fn plane(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-testnet"));
    command.args(["plane", "--json", "--home"]).arg(home).args(args).args(["--network", NETWORK, "--mdns", "false"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// A plane in a process of its own; dropping it kills it.
struct Running {
    child: Child,
    url: String,
}

impl Running {
    fn start(home: &Path, listen: &str, bootstrap: &str) -> Self {
        let anywhere = ["start", "--listen", listen, "--watch-listen", "none", "--p2p-listen", "/ip4/127.0.0.1/tcp/0"];
        let mut child = plane(home, &[&anywhere[..], &["--bootstrap", bootstrap]].concat()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("is piped")).read_line(&mut line).expect("says where it is");
        let said: Value = serde_json::from_str(&line).expect("JSON");
        Running { url: said["url"].as_str().expect("an address").to_owned(), child }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().expect("is alive");
        assert!(!self.child.wait().expect("ends").success(), "it was killed");
    }

    async fn ask(&self, request: impl Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder) -> (u16, Value) {
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build().expect("a client");
        let response = request(&client, &self.url).send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    /// Slowly enough for a key's turns of a minute.
    async fn get(&self, path: &str, key: &str) -> Value {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let (status, body) = self.ask(|client, url| client.get(format!("{url}{path}")).bearer_auth(key)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Signs in by a key; the same request again and again.
async fn signs_in(plane: &Running, key: &NodeKey, header: &mut Option<(String, String)>) -> u16 {
    let (header, body) = header.get_or_insert_with(|| {
        let body = json!({ "aud": plane.url, "as": "node" }).to_string();
        let request = http_auth::Request { method: "POST", path: "/api/v1/auth/key", body: body.as_bytes() };
        (http_auth::sign(key, request, clock::now().0 / 1_000, &[7; 16]), body)
    });
    plane.ask(|client, url| client.post(format!("{url}/api/v1/auth/key")).header(HEADER, &*header).body(body.clone())).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_plane_takes_no_job_of_the_mesh_with_it_and_comes_back() {
    let engine = ScriptedEngine::start().await.expect("an engine");
    let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
    let sells = Sells::new(engine.url(), PRICE, PRICE, 16);
    let bootstrap = buyer.addresses().await;
    let worker = Member::start(MemberSpec::worker(bootstrap.clone(), sells)).await.expect("a worker");
    buyer.knows(CHAT_MODEL, 1, SOON).await.expect("the worker's ad");
    let home = tempfile::tempdir().expect("a directory");
    let made = plane(home.path(), &["client", "me", "--grant", "1000000"]).output().expect("makes a client");
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let key = made["key"].as_str().expect("a key").to_owned();

    let first = Running::start(home.path(), "127.0.0.1:0", &bootstrap[0].to_string());
    let node = format!("/api/v1/nodes/{}", worker.node.id());
    let seen = || async { first.ask(|client, url| client.get(format!("{url}{node}"))).await.1["online"] == true };
    eventually("the worker on the plane", SOON, seen).await.expect("it is there");
    // One of its own clients' jobs, which goes on until somebody stops it.
    let models = || async { first.get("/api/v1/models", &key).await["models"].as_array().is_some_and(|all| !all.is_empty()) };
    eventually("its own buyer hears of the worker", SOON, models).await.expect("it does");
    let asked = json!({ "model": CHAT_MODEL, "prompt": "drone", "max_tokens": 1_000 });
    let (status, job) = first.ask(|client, url| client.post(format!("{url}/api/v1/jobs")).bearer_auth(&key).json(&asked)).await;
    assert_eq!(status, 202, "{job}");
    let job = format!("/api/v1/jobs/{}", job["id"].as_str().expect("an id"));
    let runs = || async { first.get(&job, &key).await["status"] == "running" };
    eventually("the client's job", SOON, runs).await.expect("it runs");
    let (stranger, mut signed) = (NodeKey::from_bytes(&[9; 32]).expect("a key"), None);
    assert_eq!(signs_in(&first, &stranger, &mut signed).await, 201);

    // Killed amid jobs of the mesh.
    let mut jobs = Vec::new();
    for n in 0..JOBS {
        let order = ChatOrder { path: PathChoice::Auction, ..order(CHAT_MODEL, &format!("job {n} says this"), 64) };
        let role = buyer.node.buyer().clone();
        jobs.push(tokio::spawn(async move {
            let (events, mut heard) = mpsc::channel(256);
            let (_never, mut cancel) = watch::channel(false);
            let reading = tokio::spawn(async move { while heard.recv().await.is_some() {} });
            let result = role.chat(order, &events, &mut cancel).await;
            drop(events);
            reading.await.expect("no panic");
            result
        }));
        if n == JOBS / 2 {
            eventually("a job under way", SOON, || async { engine.asked() > 1 }).await.expect("it began");
        }
    }
    let origin = first.url.clone();
    first.kill();
    for (n, job) in jobs.into_iter().enumerate() {
        let report = job.await.expect("no panic").expect("every job ends well");
        assert_eq!(report.answer, format!("job {n} says this"));
    }

    // It knows who has signed in, ends what it ran, gives back what that had reserved, and finds what it has missed.
    let again = Running::start(home.path(), origin.trim_start_matches("http://"), &bootstrap[0].to_string());
    assert_eq!(again.url, origin, "so that what was signed for it still names it");
    assert_eq!(signs_in(&again, &stranger, &mut signed).await, 401, "a captured request is refused after a restart");
    let ended = || async { again.get(&job, &key).await["status"] == "failed" };
    eventually("the end of the job that it ran", SOON, ended).await.expect("its lease runs out");
    let me = again.get("/api/v1/me", &key).await;
    assert_eq!(me["reserved_micro_usd"], 0, "{me}");
    let known = || async {
        let receipts = again.get("/api/v1/receipts?limit=100", &key).await;
        let settled = |receipt: &&Value| receipt["settled"] == true && receipt["status"] == "completed";
        receipts["receipts"].as_array().is_some_and(|all| all.iter().filter(settled).count() >= JOBS)
    };
    eventually("every job's receipt on the plane that came back", SOON, known).await.expect("they are found");
}

#[test]
fn variables_that_are_empty_are_not_set() {
    let home = tempfile::tempdir().expect("a directory");
    let named = include_str!("../../plane/deploy/compose.yaml").lines().filter_map(|line| line.trim().split_once(": "));
    let named: Vec<&str> = named.map(|(name, _)| name).filter(|name| name.starts_with("INFERNET_PLANE_")).collect();
    assert!(named.len() >= 5, "{named:?}");
    let empty = named.iter().chain(&["INFERNET_PLANE_LISTEN", "INFERNET_PLANE_HOME"]).map(|name| (name, ""));
    let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-testnet"));
    command.args(["plane", "config", "--home"]).arg(home.path()).envs(empty).stdin(Stdio::null());
    let told = command.output().expect("runs");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}
