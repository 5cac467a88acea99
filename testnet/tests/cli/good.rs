//! What works: identity, configuration, asking, receipts.

use super::{DEADLINE, MODEL, START, Started, chat, command, engine, first_bytes, home, infernet, slow_engine, with_stdin};
use infernet_node::report::{ChatReport, ReceiptReport};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tokio::time::timeout;

#[tokio::test]
async fn init_makes_a_key_and_a_configuration_once() {
    let home = home();
    let id = infernet(home.path(), &["init"]).await.fine();
    let read = |name| fs::read_to_string(home.path().join(name)).expect("a file");
    let (key, config) = (read("identity.key"), read("config.toml"));
    let mode = fs::metadata(home.path().join("identity.key")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(config.lines().all(|line| line.is_empty() || line.starts_with('#')), "{config}");

    assert_eq!(infernet(home.path(), &["init"]).await.fine(), id);
    assert_eq!((read("identity.key"), read("config.toml")), (key, config));
    assert_eq!(infernet(home.path(), &["init", "--json"]).await.json()["id"], id.trim());
}

#[tokio::test]
async fn key_show_tells_the_public_half_alone() {
    let home = home();
    let id = infernet(home.path(), &["init"]).await.fine();
    let secret = fs::read_to_string(home.path().join("identity.key")).expect("a file");
    let (text, object) =
        (infernet(home.path(), &["key", "show"]).await.fine(), infernet(home.path(), &["key", "show", "--json"]).await);
    let object = object.json();
    assert_eq!(object["id"], id.trim());
    assert!(object["public_key"].as_str().is_some_and(|key| key.ends_with(object["x_only"].as_str().expect("text"))));
    assert!(text.contains(id.trim()) && !text.contains(secret.trim()));
}

#[tokio::test]
async fn help_names_the_exit_codes() {
    let help = infernet(home().path(), &["--help"]).await.fine();
    assert!(help.contains("no bids") && help.contains("130 interrupted"), "{help}");
}

#[tokio::test]
async fn flags_win_over_environment_over_file_over_default() {
    let (home, passing, engine) = (home(), home(), engine().await);
    fs::write(home.path().join("config.toml"), "slots = 3\nprice_in = 3\nprice_out = 3\n").expect("writes");
    let backend = format!("ollama={}", engine.url());
    let args = [&["--json", "start", "--no-mdns"], &START[4..], &["--backend", &backend, "--price-out", "5"]].concat();
    let mut command = command(home.path(), &args);
    command.env("INFERNET_PRICE_IN", "4").env("INFERNET_PRICE_OUT", "4");
    let worker = Started::from(home.path(), command).await;
    let seller = worker.status.seller.as_ref().expect("it sells");
    assert_eq!((worker.status.network.as_str(), seller.slots), ("main", 3));
    assert_eq!(seller.models, ["tiny-chat:latest"]);

    let args = ["models", "--json", "--no-mdns", "--bootstrap", worker.address()];
    let models = infernet(passing.path(), &args).await.json();
    let [model] = models.as_array().expect("a list").as_slice() else { panic!("one model: {models}") };
    assert_eq!((&model["id"], &model["workers"]), (&json!("tiny-chat:latest"), &json!(1)));
    assert_eq!((&model["price_in"], &model["price_out"]), (&json!(4), &json!(5)));
}

#[tokio::test]
async fn short_lived_buyer_asks_and_keeps_its_receipt() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let reply = infernet(buyer_home.path(), &chat(&worker, "Hello")).await;
    assert_eq!((reply.code, reply.out.as_str()), (0, "Hello! How can I help you today?\n"), "{reply:?}");
    // By QUIC, or on a machine too busy for that by the mesh.
    for part in ["1 bid in", "answer comes direct", "ms away", "first token", "signed by both"] {
        assert!(reply.err.contains(part), "{part} in {}", reply.err);
    }
    assert!(!reply.err.contains("How can I help"), "the answer is on stdout alone");

    let piped = with_stdin(command(buyer_home.path(), &chat(&worker, "-")), "Hello\n").await;
    assert!(!piped.fine().trim().is_empty());

    let reply = infernet(buyer_home.path(), &[&["--json"], &chat(&worker, "Hello")[..]].concat()).await;
    assert_eq!(reply.err, "");
    let report: ChatReport = serde_json::from_value(reply.json()).expect("a report");
    assert_eq!(report.answer, "Hello! How can I help you today?");
    assert!(report.receipt.is_some_and(|receipt| receipt.verified));

    check_receipts(buyer_home.path(), 3).await;
    check_receipts(worker_home.path(), 3).await;
    worker.stop().await;
    check_receipts(worker_home.path(), 3).await;
}

/// There are `n` receipts, signed by both, whether a node runs in `home` or not.
async fn check_receipts(home: &Path, n: usize) {
    let settled = async {
        loop {
            let list = infernet(home, &["receipts", "--json", "--network", "testnet"]).await.json();
            let receipts: Vec<ReceiptReport> = serde_json::from_value(list).expect("receipts");
            // The worker writes the buyer's signature down after the buyer has gone.
            if receipts.iter().filter(|r| r.verified && r.status == "completed").count() == n {
                break;
            }
        }
    };
    timeout(DEADLINE, settled).await.expect("settles in time");
    let verified = infernet(home, &["receipts", "verify", "--json", "--network", "testnet"]).await.json();
    assert_eq!(verified, json!({ "signed_by_both": n, "unacknowledged": 0, "invalid": 0 }));
    let text = infernet(home, &["receipts", "--network", "testnet", "--limit", "1"]).await.fine();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("tiny-chat:latest") && text.contains("both") && text.contains("FINISHED"), "{text}");
    check_whole(home, text.lines().nth(1).and_then(|line| line.split(' ').next()).expect("a job")).await;
}

/// All of the receipt of `job` can be read, by its whole id and by its first digits.
async fn check_whole(home: &Path, job: &str) {
    let show = |job: &str, more: &[&'static str]| {
        let args: Vec<String> = ["receipts", "show", job, "--network", "testnet"].map(str::to_owned).into();
        let args: Vec<String> = args.into_iter().chain(more.iter().map(|arg| (*arg).to_owned())).collect();
        let home = home.to_owned();
        async move { infernet(&home, &args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let whole = show(job, &["--json"]).await.json();
    assert_eq!(show(&job[..8], &["--json"]).await.json(), whole);
    assert_eq!((&whole[0]["job_id"], whole.as_array().map(Vec::len)), (&json!(job), Some(1)), "{whole}");
    let bytes = hex::decode(whole[0]["bytes"].as_str().expect("hex")).expect("hex");
    let network = "testnet".parse().expect("a name");
    let signed = infernet_wire::receipt::SignedReceipt::decode_stored(&bytes, &network).expect("it verifies");
    let body = signed.receipt();
    assert_eq!((&whole[0]["started"], &whole[0]["digest"]), (&json!(body.started.0), &json!(body.digest())));
    let text = show(&job[..8], &[]).await.fine();
    let words = [job, "status      completed", "tokens at $0.40 per million", "by buyer", &body.transcript.to_string()];
    for word in words.into_iter().chain([body.worker.to_string().as_str(), body.buyer.to_string().as_str()]) {
        assert!(text.contains(word), "{word:?} in {text}");
    }
    assert_eq!(text.matches(": verifies").count(), 2, "{text}");
    let none = show(&"0".repeat(32), &[]).await;
    assert!(none.code == 1 && none.err.contains("no receipt of job 000000"), "{none:?}");
    let none = show("abcdefab", &[]).await;
    assert!(none.code == 1 && none.err.contains("no receipt of job abcdefab"), "{none:?}");
    let wrong = show("xyz", &[]).await;
    assert!(wrong.code == 2 && wrong.err.contains("hex digits"), "{wrong:?}");
}

#[tokio::test]
async fn running_node_is_asked_if_there_is_one() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let buyer = Started::buyer(buyer_home.path(), &worker).await;
    let peers: Value = infernet(buyer_home.path(), &["peers", "--json"]).await.json();
    assert_eq!((&peers[0]["id"], &peers[0]["transport"]), (&json!(worker.status.id), &json!("tcp")));
    let table = infernet(buyer_home.path(), &["peers"]).await.fine();
    assert!(table.starts_with("PEER") && table.contains(worker.status.id.short().as_str()), "{table}");
    let status = infernet(buyer_home.path(), &["status"]).await.fine();
    assert!(status.contains("peers   1: 1 direct\n"), "{status}");
    let table = infernet(buyer_home.path(), &["models"]).await.fine();
    assert!(table.starts_with("MODEL") && table.contains("tiny-chat:latest") && table.contains("$0.4"), "{table}");
    let own = infernet(worker_home.path(), &["models"]).await;
    assert!(own.err.contains("this node itself sells tiny-chat:latest"), "{own:?}");

    let reply = infernet(buyer_home.path(), &["chat", "Hello", "--model", MODEL, "--temperature", "0"]).await;
    assert_eq!((reply.code, reply.out.as_str()), (0, "Hello! How can I help you today?\n"), "{reply:?}");
    let report = infernet(buyer_home.path(), &["chat", "Hello", "--model", MODEL, "--json"]).await.json();
    let report: ChatReport = serde_json::from_value(report).expect("a report");
    assert!(report.receipt.is_some_and(|receipt| receipt.verified));
    check_receipts(&buyer.home, 2).await;
    check_receipts(&worker.home, 2).await;
    buyer.stop().await;
    check_receipts(buyer_home.path(), 2).await;
}

#[tokio::test]
async fn receipts_that_do_not_verify_are_told() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    infernet(buyer_home.path(), &chat(&worker, "Hello")).await.fine();
    // Signatures name their network: under another's name the same bytes are forgeries.
    fs::rename(buyer_home.path().join("store-testnet"), buyer_home.path().join("store-forged")).expect("renames");
    let verify = ["receipts", "verify", "--network", "forged"];
    let stopped = infernet(buyer_home.path(), &verify).await;
    assert_eq!(
        (stopped.code, stopped.out.as_str()),
        (10, "0 signed by both, 0 by the worker only, 1 invalid\n"),
        "{stopped:?}"
    );
    let args = [&["--json", "start", "--no-mdns"], &START[4..], &["--no-serve", "--network", "forged"]].concat();
    let _node = Started::from(buyer_home.path(), command(buyer_home.path(), &args)).await;
    let running = infernet(buyer_home.path(), &verify).await;
    assert_eq!((running.code, running.out), (10, stopped.out), "{}", running.err);
}

#[tokio::test]
async fn closed_stdout_cancels_the_job_and_settles_it() {
    let (worker_home, buyer_home, passing, engine) = (home(), home(), home(), slow_engine(50.0, 500).await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let _buyer = Started::buyer(buyer_home.path(), &worker).await;
    for (home, args) in [
        (passing.path(), [&chat(&worker, "Count")[..], &["--max-tokens", "500"]].concat()),
        (buyer_home.path(), vec!["chat", "Count", "--model", MODEL, "--max-tokens", "500"]),
    ] {
        let mut child = command(home, &args).spawn().expect("starts");
        drop(first_bytes(&mut child).await);
        let reply = super::ended(child).await;
        assert_eq!(reply.code, 0, "{reply:?}");
        assert!(!reply.err.contains("panicked"), "{}", reply.err);
        super::signals::cancelled_receipt(home).await;
    }
}
