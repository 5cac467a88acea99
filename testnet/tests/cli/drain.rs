//! A node that is told to take no new jobs, by a script.

use super::{
    DEADLINE, Started, chat, command, daily::check_schema, ended, engine, first_bytes, home, infernet, mistakes::check, signal,
    slow_engine,
};
use serde_json::json;
use tokio::time::timeout;

#[tokio::test]
async fn a_drained_node_ends_its_jobs_and_takes_no_new_ones_until_it_resumes() {
    let (worker_home, buyer_home, engine) = (home(), home(), slow_engine(20.0, 400).await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let schema = infernet(worker_home.path(), &["schema", "drain"]).await.json();
    let mut asking = command(buyer_home.path(), &chat(&worker, "Count")).spawn().expect("starts");
    let _stdout = first_bytes(&mut asking).await;

    let drained = infernet(worker_home.path(), &["drain", "--json"]).await.json();
    check_schema("drain", &drained, &schema, &schema);
    assert_eq!(drained, json!({ "draining": true, "jobs": 1 }));
    check(worker_home.path(), &["drain", "--wait", "0"], 12, &["1 job not over within 0 s", "infernet resume"]).await;
    let screen = infernet(worker_home.path(), &["status"]).await.fine();
    assert!(screen.contains("the node is draining") && !screen.contains("; takes work"), "{screen}");
    assert!(screen.contains("draining: takes no new jobs") && screen.contains("infernet resume"), "{screen}");

    let waiting = command(worker_home.path(), &["drain", "--wait", "60"]).spawn().expect("starts");
    signal(&asking, "INT");
    assert_eq!(ended(asking).await.code, 130);
    let waited = ended(waiting).await;
    assert!(waited.code == 0 && waited.err.contains("none runs"), "{waited:?}");
    check(buyer_home.path(), &[&chat(&worker, "Hello")[..], &["--path", "auction"]].concat(), 7, &["no bids"]).await;

    let resumed = infernet(worker_home.path(), &["resume", "--json"]).await.json();
    assert_eq!(resumed, json!({ "draining": false, "jobs": 0 }));
    let ask = [&chat(&worker, "Hello")[..], &["--max-tokens", "5", "--path", "auction"]].concat();
    timeout(DEADLINE, infernet(buyer_home.path(), &ask)).await.expect("is served in time").fine();
    worker.stop().await;
}

#[tokio::test]
async fn a_node_that_sells_nothing_has_nothing_to_drain() {
    let (home, engine) = (home(), engine().await);
    check(home.path(), &["drain"], 11, &["no node runs"]).await;
    check(home.path(), &["drain", "--wait", "soon"], 2, &["soon", "--wait"]).await;
    let buyer = Started::new(home.path(), &["--no-serve"]).await;
    for what in ["drain", "resume"] {
        check(home.path(), &[what], 13, &["sells nothing"]).await;
    }
    buyer.stop().await;
    let seller = Started::worker(home.path(), &engine).await;
    let told = infernet(home.path(), &["drain", "--wait", "30"]).await;
    assert!(told.code == 0 && told.out.is_empty() && told.err.contains("none runs"), "{told:?}");
    seller.stop().await;
}
