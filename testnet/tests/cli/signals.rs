//! Being told to stop, and being killed.

use super::{
    DEADLINE, MODEL, Started, chat, command, ended, engine, first_bytes, first_token, home, infernet, signal, slow_engine,
};
use serde_json::Value;
use std::path::Path;
use tokio::time::timeout;

/// Waits until the newest receipt in `home` is one of a cancelled job, signed by both.
pub(super) async fn cancelled_receipt(home: &Path) {
    let settled = async {
        loop {
            let list: Value = infernet(home, &["receipts", "--json", "--network", "testnet"]).await.json();
            if list[0]["status"] == "cancelled" && list[0]["verified"] == true {
                break;
            }
        }
    };
    timeout(DEADLINE, settled).await.expect("settles in time");
}

#[tokio::test]
async fn sigterm_lets_the_running_job_end() {
    let (worker_home, buyer_home, engine) = (home(), home(), slow_engine(50.0, 60).await);
    let mut worker = Started::worker(worker_home.path(), &engine).await;
    let mut events = engine.events();
    let asking = command(buyer_home.path(), &[&["--json"], &chat(&worker, "Count")[..]].concat()).spawn().expect("starts");
    first_token(&mut events).await;
    worker.signal("TERM");
    let report = ended(asking).await.json();
    assert_eq!((&report["stream"]["finish"], &report["receipt"]["verified"]), (&"stop".into(), &true.into()), "{report}");
    assert_eq!(worker.end().await, Some(0));
    assert!(!worker_home.path().join("control.sock").exists());
}

#[tokio::test]
async fn sigterm_lets_the_running_nodes_own_question_end() {
    let (worker_home, buyer_home, engine) = (home(), home(), slow_engine(50.0, 60).await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let mut buyer = Started::buyer(buyer_home.path(), &worker).await;
    let mut events = engine.events();
    let asking = command(buyer_home.path(), &["chat", "Count", "--model", MODEL, "--json"]).spawn().expect("starts");
    first_token(&mut events).await;
    buyer.signal("TERM");
    let report = ended(asking).await.json();
    assert_eq!((&report["stream"]["finish"], &report["receipt"]["verified"]), (&"stop".into(), &true.into()), "{report}");
    assert_eq!(buyer.end().await, Some(0));
}

#[tokio::test]
async fn second_sigterm_stops_at_once() {
    let (worker_home, buyer_home, engine) = (home(), home(), slow_engine(2.0, 200).await);
    let mut worker = Started::worker(worker_home.path(), &engine).await;
    let mut asking = command(buyer_home.path(), &chat(&worker, "Count")).spawn().expect("starts");
    let _stdout = first_bytes(&mut asking).await;
    worker.signal("TERM");
    let socket = worker_home.path().join("control.sock");
    let heard = async {
        while socket.exists() {
            tokio::task::yield_now().await
        }
    };
    timeout(DEADLINE, heard).await.expect("hears the first in time");
    worker.signal("TERM");
    assert_eq!(worker.end().await, Some(1));
    let reply = ended(asking).await;
    assert_eq!(reply.code, 9, "{reply:?}");
    assert!(reply.err.contains("incomplete"), "{}", reply.err);
}

#[tokio::test]
async fn killed_node_starts_again_with_its_receipts() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let mut worker = Started::worker(worker_home.path(), &engine).await;
    infernet(buyer_home.path(), &chat(&worker, "Hello")).await.fine();
    worker.child.kill().await.expect("dies");
    assert!(worker_home.path().join("control.sock").exists(), "nobody cleaned up");
    let again = Started::worker(worker_home.path(), &engine).await;
    assert_eq!(again.status.id, worker.status.id);
    let verified = infernet(worker_home.path(), &["receipts", "verify"]).await.fine();
    assert_eq!(verified, "1 signed by both, 0 by the worker only, 0 invalid\n");
    infernet(buyer_home.path(), &chat(&again, "Hello")).await.fine();
}

#[tokio::test]
async fn ctrl_c_cancels_and_settles() {
    let (worker_home, buyer_home, passing, engine) = (home(), home(), home(), slow_engine(50.0, 500).await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let _buyer = Started::buyer(buyer_home.path(), &worker).await;
    for (home, args) in [
        (passing.path(), [&chat(&worker, "Count")[..], &["--max-tokens", "500"]].concat()),
        (buyer_home.path(), vec!["chat", "Count", "--model", MODEL, "--max-tokens", "500"]),
    ] {
        let mut child = command(home, &args).spawn().expect("starts");
        let stdout = first_bytes(&mut child).await;
        signal(&child, "INT");
        let reply = ended(child).await;
        drop(stdout);
        assert_eq!(reply.code, 130, "{reply:?}");
        assert!(reply.err.lines().last().is_some_and(|line| line.starts_with("infernet: interrupted")), "{}", reply.err);
        cancelled_receipt(home).await;
    }
}
