//! A node that is killed: its caps hold.

use super::*;
use infernet_node::{control::schema::StatusReport, store::Page};
use infernet_testnet::cluster::{NETWORK, eventually};
use std::{path::Path, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// What the node may spend a day: thirty answers of [`COST`].
const CAP: u64 = 300;
/// An answer of five words to five: one micro-USD each.
const COST: u64 = 10;

/// A buyer with an endpoint and a cap, as a process.
async fn start(home: &Path, bootstrap: &str) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-testnet"));
    command.args(["node", "--json", "--home"]).arg(home).args(["start", "--no-serve", "--no-mdns", "--network", NETWORK]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--chat-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
    command.args(["--bootstrap", bootstrap, "--spend-per-day", &CAP.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().expect("it starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    timeout(SOON, stdout.read_line(&mut line)).await.expect("in time").expect("a line");
    let status: StatusReport = serde_json::from_str(&line).expect("a status");
    (child, status.api.expect("an endpoint"))
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_never_lets_a_day_cost_more_than_its_cap() {
    let engine = ScriptedEngine::start().await.expect("an engine");
    let worker =
        Member::start(MemberSpec::worker(Vec::new(), Sells::new(engine.url(), PRICE, PRICE, 8))).await.expect("a worker");
    let bootstrap = worker.addresses().await.first().expect("an address").to_string();
    let home = tempfile::tempdir().expect("a home");
    let http = Client::builder().no_proxy().timeout(SOON).build().expect("a client");
    // Small enough that a reservation fits what a crash leaves.
    let body = ask("one two three four five", json!({ "max_tokens": 8, "infernet": { "budget": 60, "wait": 30 } }));
    let mut bought = 0;
    let mut refused = false;
    for round in 0..12 {
        let (mut node, url) = start(home.path(), &bootstrap).await;
        eventually("the model", SOON, async || {
            let models = http.get(format!("{url}/models")).send().await.expect("an answer").text().await.expect("text");
            models.contains(CHAT_MODEL)
        })
        .await
        .expect("known");
        for _ in 0..=round % 3 {
            let response = http.post(format!("{url}/chat/completions")).json(&body).send().await.expect("an answer");
            match response.status().as_u16() {
                200 => bought += 1,
                402 => refused = true,
                status => panic!("{status}: {}", response.text().await.expect("text")),
            }
        }
        // One more is under way when it dies; whatever that costs was reserved.
        let dying = http
            .post(format!("{url}/chat/completions"))
            .json(&ask("drone", json!({ "stream": true, "infernet": { "budget": 90 } })))
            .send()
            .await;
        node.kill().await.expect("killed");
        drop(dying);
        if refused {
            break;
        }
    }
    assert!(refused, "the cap was reached");
    let receipts = worker.node.store().receipts(Page::newest(1_000)).expect("receipts");
    let cost: u64 = receipts.iter().map(|receipt| receipt.receipt().amount.0).sum();
    assert!(bought * COST <= cost && cost <= CAP, "{bought} answers for {cost}");
}
