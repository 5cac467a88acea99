//! `infernet-testnet nat` as on a machine without namespaces: the real programs, and the model between them.

#![cfg(target_os = "linux")]

use serde_json::Value;
use std::{process::Stdio, time::Duration};
use tokio::{process::Command, time::timeout};

/// For a few pairs, on a busy machine.
const SOON: Duration = Duration::from_secs(200);
/// Two datagrams of each try of a relay: two workers try two, and once more on a slow machine.
const MAX_UNKNOWN: u64 = 16;

async fn nat(path: Option<&std::path::Path>, args: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-testnet"));
    command.arg("nat").args(args).args(["--no-events", "--json"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = timeout(SOON, command.output()).await.expect("no hang").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The ways of the second answers, as `buyer > worker: way`.
fn ways(told: &Value) -> Vec<String> {
    let text = |pair: &Value, at: &str| pair.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let pairs = told["pairs"].as_array().expect("pairs").iter();
    let way = |pair: &Value| text(pair, "/later/Ok/path").split(' ').next().unwrap_or_default().to_owned();
    pairs.map(|pair| format!("{} > {}: {}", text(pair, "/buyer"), text(pair, "/worker"), way(pair))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_model_nodes_meet_as_the_tables_say_they_must() {
    let told =
        nat(None, &["--model", "--buyer", "open", "--buyer", "symmetric", "--worker", "open", "--worker", "symmetric"]).await;
    let ways = ways(&told);
    assert_eq!(ways[0], "open > open: direct");
    assert!(["open > symmetric: direct", "open > symmetric: punched"].contains(&ways[1].as_str()), "{ways:?}");
    assert!(["symmetric > open: direct", "symmetric > open: punched"].contains(&ways[2].as_str()), "{ways:?}");
    assert_eq!(ways[3], "symmetric > symmetric: relayed");
    let count = |what: &str| told["model"][what].as_u64().expect("a count");
    assert!(count("passed") > 500, "{}", told["model"]);
    // A try of a relay comes from a socket of its own, whose last datagram may be looked at when it is gone.
    assert!(count("unknown") <= MAX_UNKNOWN, "every other datagram was of a host: {}", told["model"]);
    assert_eq!((count("failed"), count("lost")), (0, 0), "{}", told["model"]);
    assert_eq!((&told["ground"], &told["skipped"]), (&"model".into(), &serde_json::json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_namespaces_are_refused_the_model_runs_and_the_skip_is_told_and_counted() {
    // Without `unshare` there are none.
    let nothing = tempfile::tempdir().expect("a directory");
    let told = nat(
        Some(nothing.path()),
        &["--buyer", "endpoint-independent", "--worker", "symmetric", "--loss", "1", "--delay", "20"],
    )
    .await;
    let skipped = told["skipped"].as_array().expect("what was skipped");
    assert_eq!(skipped.len(), 1);
    let words = skipped[0].as_str().expect("words");
    assert!(words.starts_with("namespaces are refused here (") && words.ends_with("; ran the model instead"), "{words}");
    assert_eq!((&told["ground"], &told["loss_percent"], &told["delay_ms"]), (&"model".into(), &1.0.into(), &20.into()));
    assert!(told["pairs"][0]["first"]["Ok"]["ttft_ms"].as_f64().expect("an answer") >= 40.0, "there and back: {told}");
    assert!(told["model"]["lost"].as_u64().expect("a count") > 0, "{}", told["model"]);
}
