//! `infernet model` against an engine whose downloads go as a test wants.

use super::{DEADLINE, Started, command, ended, home, infernet, mistakes::check, signal};
use infernet_testnet::scripted::{CHAT_MODEL, SIZE, ScriptedEngine};
use serde_json::{Value, json};
use std::{fs, path::Path};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

async fn scripted() -> ScriptedEngine {
    ScriptedEngine::start().await.expect("an engine")
}

/// A home whose configuration names `engine`.
fn home_of(engine: &ScriptedEngine) -> tempfile::TempDir {
    let home = home();
    fs::write(home.path().join("config.toml"), format!("# mine\nbackend = 'ollama={}'\n", engine.url())).expect("writes");
    home
}

/// The names in `model list --json`, and whether they are offered.
async fn listed(home: &Path) -> Vec<(String, bool)> {
    let rows = infernet(home, &["model", "list", "--json"]).await.json();
    let row = |row: &Value| (row["model"].as_str().expect("a name").to_owned(), row["offered"] == true);
    rows.as_array().expect("a list").iter().map(row).collect()
}

/// What `infernet` in `home` says with `--json`, line by line.
async fn events(home: &Path, args: &[&str]) -> (i32, Vec<Value>, String) {
    let reply = infernet(home, &[args, &["--json"]].concat()).await;
    let events = reply.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (reply.code, events, reply.err)
}

#[tokio::test]
async fn a_model_is_fetched_seen_and_removed_without_a_node() {
    let engine = scripted().await;
    let home = home_of(&engine);
    let (code, events, err) = events(home.path(), &["model", "pull", "tiny:1b"]).await;
    assert_eq!((code, err.as_str()), (0, ""), "{events:?}");
    let last = events.last().expect("an event");
    assert_eq!((&last["event"], &last["completed_bytes"]), (&json!("done"), &json!(SIZE)), "{last}");
    assert!(last["node_offers"].is_null() && events.iter().any(|e| e["stage"] == "downloading"), "{events:?}");
    let all = infernet(home.path(), &["model", "list", "--json"]).await.json();
    let row = all.as_array().expect("a list").iter().find(|row| row["model"] == "tiny:1b").expect("it is there");
    assert_eq!((&row["size_bytes"], &row["quantisation"], &row["loaded"]), (&json!(SIZE), &json!("Q4_K_M"), &json!(false)));
    let table = infernet(home.path(), &["model", "list"]).await.fine();
    assert!(table.lines().any(|line| line.starts_with("tiny:1b") && line.contains("1.0 MB")), "{table}");
    let shown = infernet(home.path(), &["model", "show", "tiny:1b", "--json"]).await.json();
    assert_eq!((&shown["family"], &shown["abilities"]), (&json!("script"), &json!(["completion"])));
    assert!(infernet(home.path(), &["model", "show", "tiny:1b"]).await.fine().contains("needs"));

    infernet(home.path(), &["model", "remove", "tiny:1b"]).await.fine();
    assert!(listed(home.path()).await.iter().all(|(name, _)| name != "tiny:1b"));
    check(home.path(), &["model", "remove", "tiny:1b"], 2, &["no model \"tiny:1b\"", "infernet model list"]).await;
    check(home.path(), &["model", "show", "tiny:1b"], 2, &["no model"]).await;
}

#[tokio::test]
async fn an_operator_who_has_a_model_fetched_hears_how_it_ended() {
    let (engine, operator) = (scripted().await, home());
    let home = home_of(&engine);
    infernet(operator.path(), &["init"]).await.fine();
    let key = infernet(operator.path(), &["key", "show", "--json"]).await.json()["x_only"].as_str().expect("a key").to_owned();
    let worker = Started::new(home.path(), &[]).await;
    infernet(home.path(), &["operator", "add", &key]).await.fine();
    let node = worker.status.id.to_string();
    let install = async |model: &str| {
        let args =
            ["operator", "sign", "--network", "testnet", "--node", &node, "--verb", "model_install", "--argument", model];
        infernet(operator.path(), &args).await.fine().trim().to_owned()
    };
    let missing = infernet(home.path(), &["operator", "send", &install("nope").await]).await;
    assert!(missing.code == 1 && missing.err.contains("nobody publishes a model \"nope\""), "{missing:?}");
    let done = infernet(home.path(), &["operator", "send", "--json", &install("tiny:1b").await]).await.json();
    assert!(done["done"] == true && done["result"]["offers"].to_string().contains("tiny:1b"), "{done}");
    let begun = infernet(home.path(), &["operator", "send", "--json", "--no-wait", &install("nope").await]).await.json();
    assert!(begun["done"] == false && begun.get("result").is_none(), "{begun}");
    worker.stop().await;
}

#[tokio::test]
async fn a_download_that_breaks_goes_on_where_it_stopped() {
    let engine = scripted().await;
    let home = home_of(&engine);
    let (code, events, err) = events(home.path(), &["model", "pull", "cut"]).await;
    assert_eq!((code, err.as_str(), engine.pulls("cut")), (0, "", 2), "{events:?}");
    let at = events.iter().position(|event| event["event"] == "retry").expect("a retry");
    assert!(events[at]["reason"].as_str().is_some_and(|why| why.contains("cut off")), "{}", events[at]);
    let after = events[at..].iter().filter_map(|event| event["completed_bytes"].as_u64()).min();
    assert!(after >= Some(SIZE / 2), "nothing came twice: {events:?}");
}

#[tokio::test]
async fn what_goes_wrong_with_a_download_is_said_with_what_to_do() {
    let engine = scripted().await;
    let home = home_of(&engine);
    check(home.path(), &["model", "pull", "nope"], 2, &["nobody publishes", "\"nope\"", "ollama.com/library"]).await;
    check(home.path(), &["model", "pull", "full"], 1, &["disk is full", "infernet model remove"]).await;
    check(home.path(), &["model", "pull", "offline"], 1, &["can't reach its registry", "no such host", "check the network"])
        .await;
    // Each command runs twice, the second time for JSON.
    assert_eq!(engine.pulls("offline"), 2, "a name that does not resolve is no passing trouble");
    // By its name, before anything is fetched; and by what the engine says of it.
    check(home.path(), &["model", "pull", "giant:9999b"], 1, &["by its name about", "--force"]).await;
    assert_eq!(engine.pulls("giant:9999b"), 0);
    check(home.path(), &["model", "pull", "huge"], 1, &["GB", "--force"]).await;
    let (code, forced, _) = events(home.path(), &["model", "pull", "giant:9999b", "--force"]).await;
    assert_eq!((code, forced.last().map(|event| event["event"].clone())), (0, Some(json!("done"))));

    check(home.path(), &["model", "pull"], 2, &["<MODEL>"]).await;
    check(home.path(), &["model", "use"], 2, &["<MODELS>"]).await;
    let nowhere = ["model", "list", "--backend", "ollama=http://127.0.0.1:9"];
    check(home.path(), &nowhere, 5, &["can't reach the engine", "is it running?"]).await;
    fs::write(home.path().join("config.toml"), "backend = []").expect("writes");
    check(home.path(), &["model", "list"], 5, &["only buys", "--backend"]).await;
}

#[tokio::test]
async fn a_download_ends_with_ctrl_c_and_says_how_to_go_on() {
    let engine = scripted().await;
    let home = home_of(&engine);
    let mut child = command(home.path(), &["model", "pull", "slow", "--json"]).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let downloading = async {
        while let Some(line) = lines.next_line().await.expect("reads") {
            if line.contains("downloading") {
                return;
            }
        }
        panic!("it ended");
    };
    timeout(DEADLINE, downloading).await.expect("begins in time");
    signal(&child, "INT");
    let reply = ended(child).await;
    assert_eq!(reply.code, 130, "{reply:?}");
    assert!(reply.err.contains("infernet model pull slow") && reply.err.contains("kept"), "{reply:?}");
}

#[tokio::test]
async fn a_running_node_offers_what_comes_and_what_it_is_told_at_once() {
    let engine = scripted().await;
    let home = home_of(&engine);
    let node = Started::new(home.path(), &["--backend", &format!("ollama={}", engine.url())]).await;
    let (_, events, _) = events(home.path(), &["model", "pull", "tiny:1b"]).await;
    let offers = events.last().expect("an event")["node_offers"].clone();
    assert!(offers.as_array().expect("a node runs").contains(&json!("tiny:1b")), "{offers}");

    let used = infernet(home.path(), &["model", "use", "tiny:1b", "--json"]).await.json();
    assert_eq!((&used["models"], &used["node_offers"]), (&json!(["tiny:1b"]), &json!(["tiny:1b"])), "{used}");
    let status = infernet(home.path(), &["status", "--json"]).await.json();
    assert_eq!(status["seller"]["models"], json!(["tiny:1b"]));
    let text = fs::read_to_string(home.path().join("config.toml")).expect("a file");
    assert!(text.contains("# mine") && text.contains("models = [\"tiny:1b\"]"), "{text}");
    assert_eq!(listed(home.path()).await.iter().filter(|(_, offered)| *offered).count(), 1);
    check(home.path(), &["model", "use", "other"], 2, &["no model \"other\""]).await;

    let all = infernet(home.path(), &["model", "use", "--all", "--json"]).await.json();
    assert!(all["node_offers"].as_array().expect("a node runs").contains(&json!(CHAT_MODEL)), "{all}");
    let removed = infernet(home.path(), &["model", "remove", CHAT_MODEL, "--json"]).await.json();
    assert!(!removed["node_offers"].as_array().expect("a node runs").contains(&json!(CHAT_MODEL)), "{removed}");
    let recommended = infernet(home.path(), &["model", "recommend", "--json"]).await.json();
    assert_eq!(recommended["wanted"], json!([]), "nobody asked for anything");
    node.stop().await;
}

#[tokio::test]
async fn what_runs_here_is_recommended_with_no_engine_at_all() {
    let home = home();
    let report = infernet(home.path(), &["model", "recommend", "--json"]).await.json();
    assert!(report["memory_bytes"].as_u64() > Some(0) && report["wanted"].is_null(), "{report}");
    let table = infernet(home.path(), &["model", "recommend"]).await;
    assert!(table.err.contains("this machine has"), "{table:?}");
}
