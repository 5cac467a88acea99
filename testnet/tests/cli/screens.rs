//! What a person looks at: `status`, `jobs`, `why`.

use super::{DEADLINE, MODEL, START, Started, chat, command, engine, home, infernet, mistakes::check, slow_engine};
use infernet_testnet::engine::{EngineOptions, EngineServer};
use serde_json::Value;
use std::path::Path;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

/// `args --json` in `home`, as soon as `is_right`.
async fn once(home: &Path, args: &[&str], is_right: impl Fn(&Value) -> bool) -> Value {
    let seek = async {
        loop {
            let value = infernet(home, &[args, &["--json"]].concat()).await.json();
            if is_right(&value) {
                return value;
            }
        }
    };
    timeout(DEADLINE, seek).await.unwrap_or_else(|_| panic!("{args:?} is right in time"))
}

#[tokio::test]
async fn a_settled_job_is_on_every_screen_and_after_the_end_in_the_receipts() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    check(worker_home.path(), &["status"], 11, &["no node", "infernet start"]).await;
    check(worker_home.path(), &["why"], 11, &["no node", "infernet start"]).await;
    let worker = Started::worker(worker_home.path(), &engine).await;
    let buyer = Started::buyer(buyer_home.path(), &worker).await;
    infernet(buyer_home.path(), &["chat", "Hello", "--model", MODEL]).await.fine();

    let sold = once(worker_home.path(), &["jobs"], |jobs| jobs[0]["state"] == "settled").await;
    let bought = infernet(buyer_home.path(), &["jobs", "--json"]).await.json();
    assert_eq!((&sold[0]["role"], &bought[0]["role"]), (&"sold".into(), &"bought".into()));
    for field in ["id", "tokens", "amount_micro_usd", "state"] {
        assert_eq!(sold[0][field], bought[0][field], "{field}: {sold} {bought}");
    }
    assert_eq!(sold[0]["peer"], buyer.status.id.to_string().as_str());
    assert!(bought[0]["path"].as_str().is_some_and(|path| path.starts_with("direct quic")), "{bought}");

    let status = infernet(worker_home.path(), &["status", "--json"]).await.json();
    assert_eq!((&status["today"]["earned"]["jobs"], &status["today"]["spent"]["jobs"]), (&1.into(), &0.into()), "{status}");
    assert_eq!(status["today"]["earned"]["acknowledged_micro_usd"], sold[0]["amount_micro_usd"]);
    assert_eq!((&status["store"]["receipts"], &status["warnings"]), (&1.into(), &Value::Array(vec![])), "{status}");
    assert!(status["api"].as_str().is_some_and(|api| api.starts_with("http://127.0.0.1:")), "{status}");
    let text = infernet(worker_home.path(), &["status"]).await.fine();
    let jobs = infernet(worker_home.path(), &["jobs"]).await.fine();
    assert!(jobs.starts_with("JOB      STARTED    ROLE") && jobs.contains("settled"), "{jobs}");
    for part in ["on network testnet", "tiny-chat:latest at $0.100000 in", "free of 4", "earned $", "1 model", "settled"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains('\u{1b}'), "no colour in a pipe: {text}");
    let why = infernet(worker_home.path(), &["why"]).await.fine();
    assert!(why.starts_with("earns: 1 job so far"), "{why}");

    worker.stop().await;
    let after = infernet(worker_home.path(), &["jobs", "--json", "--network", "testnet"]).await.json();
    for field in ["id", "role", "peer", "tokens", "amount_micro_usd", "state"] {
        assert_eq!(after[0][field], sold[0][field], "{field}: {after} {sold}");
    }
    buyer.stop().await;
}

#[tokio::test]
async fn a_running_job_is_watched_as_it_streams() {
    let (worker_home, buyer_home, engine) = (home(), home(), slow_engine(20.0, 400).await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let asking = command(buyer_home.path(), &chat(&worker, "Count")).spawn().expect("starts");
    let mut watching = command(worker_home.path(), &["jobs", "--watch", "--json"]).spawn().expect("starts");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    let streams = async {
        loop {
            let line = lines.next_line().await.expect("reads").expect("goes on");
            let jobs: Value = serde_json::from_str(&line).expect("a value a line");
            if jobs[0]["state"] == "streaming" {
                return jobs[0]["tokens"].as_u64();
            }
        }
    };
    assert!(timeout(DEADLINE, streams).await.expect("streams in time") > Some(0));
    super::signal(&watching, "INT");
    assert!(timeout(DEADLINE, watching.wait()).await.expect("ends in time").expect("a status").success());
    super::signal(&asking, "INT");
    let ended = once(worker_home.path(), &["jobs"], |jobs| jobs[0]["state"] == "cancelled").await;
    assert!(ended[0]["tokens"].as_u64() > Some(0), "{ended}");
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_is_too_dear_is_told_so() {
    let (dear_home, cheap_home, buyer_home, engine) = (home(), home(), home(), engine().await);
    let backend = format!("ollama={}", engine.url());
    let cheap = Started::worker(cheap_home.path(), &engine).await;
    let priced = ["--backend", &backend, "--price-in", "900000", "--price-out", "900000", "--bootstrap", cheap.address()];
    let dear = Started::new(dear_home.path(), &priced).await;
    let buyer = Started::buyer(buyer_home.path(), &cheap).await;
    // It must have heard of both.
    once(buyer_home.path(), &["models"], |models| models[0]["workers"] == 2).await;
    let ask = ["chat", "Hello", "--model", MODEL, "--path", "auction", "--max-price", "1000000"];
    let told = async {
        loop {
            // Twelve: asked too often for one buyer, which is no matter here.
            let asked = infernet(buyer_home.path(), &ask).await;
            assert!([0, 12].contains(&asked.code), "{asked:?}");
            let why = infernet(dear_home.path(), &["why", "--json"]).await.json();
            if why["findings"][0]["code"] == "dearer" {
                return why;
            }
        }
    };
    let why = timeout(DEADLINE, told).await.expect("is told in time");
    let finding = &why["findings"][0];
    assert!(
        finding["seen"]
            .as_str()
            .is_some_and(|seen| seen.contains("lost to a cheaper worker; for tiny-chat winners ask $0.100000 in")),
        "{why}"
    );
    assert_eq!(finding["change"], "price_in = 99000\nprice_out = 396000", "{why}");

    infernet(buyer_home.path(), &["chat", "Hello", "--model", "no-such-model"]).await;
    let why = once(dear_home.path(), &["why"], |why| why["wanted"][0]["model"] == "no-such-model").await;
    let other = why["findings"].as_array().and_then(|all| all.iter().find(|finding| finding["code"] == "other_model"));
    let other = other.unwrap_or_else(|| panic!("{why}"));
    assert!(other["change"].is_null(), "one buyer is no demand: {other}");
    assert_eq!(why["wanted"][0]["buyers"], 1, "{why}");
    let text = infernet(dear_home.path(), &["why"]).await.fine();
    assert!(text.contains("> price_out = 396000") && text.contains("asked for, and not served here"), "{text}");
    dear.stop().await;
    cheap.stop().await;
    buyer.stop().await;
}

#[tokio::test]
async fn a_lonely_node_and_a_lost_engine_are_warned_of() {
    let (home, engine) = (home(), engine().await);
    let worker = Started::new(home.path(), &["--backend", &format!("ollama={}", engine.url())]).await;
    let status = infernet(home.path(), &["status", "--json"]).await.json();
    assert_eq!(status["warnings"][0]["code"], "no_peers", "{status}");
    let text = infernet(home.path(), &["status"]).await.fine();
    assert!(text.contains("! no peer is connected") && text.contains("bootstrap = ["), "{text}");
    drop(engine);
    once(home.path(), &["status"], |status| status["engines"][0]["error"].is_string()).await;
    let why = infernet(home.path(), &["why", "--json"]).await.json();
    let codes: Vec<_> = why["findings"].as_array().expect("a list").iter().map(|f| f["code"].clone()).collect();
    assert_eq!(codes[..2], ["no_peers", "engine_down"], "{why}");
    worker.stop().await;
    let buys = Started::new(home.path(), &["--no-serve"]).await;
    let why = infernet(home.path(), &["why"]).await.fine();
    assert!(why.contains("only buys") && why.contains("backend = ["), "{why}");
    buys.stop().await;
    assert!(START.contains(&"--no-mdns"), "or it would not be lonely");
}

#[tokio::test]
async fn a_node_that_finds_no_engine_says_so_and_takes_the_first_that_comes() {
    let (home, late) = (home(), std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    let addr = late.local_addr().expect("an address");
    drop(late);
    let mut command = command(home.path(), &[&["--json"], &START[..]].concat());
    // Nothing listens on port 1, so that no engine of this machine is found.
    for variable in ["VLLM_HOST", "SGLANG_HOST", "MODULAR_MAX_HOST", "LLAMACPP_HOST"] {
        command.env(variable, "127.0.0.1:1");
    }
    command.env("OLLAMA_HOST", addr.to_string());
    let worker = Started::from(home.path(), command).await;
    let status = infernet(home.path(), &["status", "--json"]).await.json();
    let error = status["engines"][0]["error"].as_str().expect("it says so");
    assert!(error.contains("no engine answers") && error.contains(&addr.to_string()), "{error}");
    assert_eq!(status["seller"]["models"], serde_json::json!([]), "nothing is offered: {status}");
    let options = EngineOptions { addr, ..EngineOptions::default() };
    let _engine = EngineServer::start(options).await.expect("the engine starts");
    once(home.path(), &["status"], |status| status["seller"]["models"][0] == "tiny-chat:latest").await;
    let status = infernet(home.path(), &["status", "--json"]).await.json();
    assert_eq!(status["engines"][0]["engine"], format!("ollama at http://{addr}"), "{status}");
    worker.stop().await;
}
