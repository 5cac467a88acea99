//! Commands of daily life: configuration, earnings, operators, logs, help for the shell.

use super::{
    DEADLINE, MODEL, START, Started, chat, command, ended, engine, home, infernet,
    mistakes::{check, check_reply},
    with_stdin,
};
use serde_json::{Value, json};
use std::{fs, path::Path};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

#[tokio::test]
async fn config_tells_what_holds_and_who_said_so() {
    let home = home();
    infernet(home.path(), &["init"]).await.fine();
    fs::write(home.path().join("config.toml"), "slots = 3\nregions = ['eu-1']\n").expect("writes");
    let mut show = command(home.path(), &["config", "show", "--origin", "--price-in", "7", "--json"]);
    show.env("INFERNET_GRACE_SECS", "9");
    let rows = ended(show.spawn().expect("starts")).await.json();
    let file = home.path().join("config.toml").display().to_string();
    let row = |key: &str| rows.as_array().expect("a list").iter().find(|row| row["key"] == key).expect(key).clone();
    assert_eq!(row("slots"), json!({ "key": "slots", "value": 3, "origin": file }));
    assert_eq!(row("regions")["value"], json!(["eu-1"]));
    assert_eq!(row("price_in"), json!({ "key": "price_in", "value": 7, "origin": "--price-in" }));
    assert_eq!(row("grace_secs"), json!({ "key": "grace_secs", "value": 9, "origin": "INFERNET_GRACE_SECS" }));
    assert_eq!(row("spend_per_day"), json!({ "key": "spend_per_day", "value": null, "origin": "default" }));
    let text = infernet(home.path(), &["config", "show", "--origin"]).await.fine();
    assert!(text.lines().any(|line| line.starts_with("slots") && line.ends_with(&format!("# {file}"))), "{text}");
    assert_eq!(infernet(home.path(), &["config", "path"]).await.fine().trim(), file);
    fs::write(home.path().join("config.toml"), "slots = 0").expect("writes");
    check(home.path(), &["config", "show"], 3, &["slots", "config.toml", "from 1 to"]).await;
}

#[tokio::test]
async fn worker_tells_its_region_and_outer_address() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let backend = format!("ollama={}", engine.url());
    let worker = Started::new(worker_home.path(), &["--backend", &backend, "--region", "eu-1"]).await;
    let ask = |region: &'static str| [&chat(&worker, "Hello")[..], &["--region", region]].concat();
    infernet(buyer_home.path(), &ask("eu-1")).await.fine();
    check(buyer_home.path(), &ask("us-1"), 7, &["no bids"]).await;
    check(buyer_home.path(), &ask("US"), 2, &["--region", "a-z"]).await;
    let id = worker.status.id.to_string();
    let deny = [&chat(&worker, "Hello")[..], &["--deny", &id]].concat();
    check(buyer_home.path(), &deny, 7, &["no bids"]).await;
    let allow = [&chat(&worker, "Hello")[..], &["--allow", &id, "--path", "auction", "--json"]].concat();
    assert_eq!(infernet(buyer_home.path(), &allow).await.json()["auction"]["winner"], id.as_str());
    worker.stop().await;

    // A port that is mapped elsewhere: nobody answers there, so the answer comes over the mesh.
    let outer = Started::new(worker_home.path(), &["--backend", &backend, "--chat-advertise", "127.0.0.1:9"]).await;
    let reply = infernet(buyer_home.path(), &[&chat(&outer, "Hello")[..], &["--path", "auction"]].concat()).await;
    assert_eq!(reply.code, 0, "{reply:?}");
    assert!(reply.err.contains("answer comes direct libp2p"), "{reply:?}");
}

/// What `side` says in `home`, as JSON.
async fn book(home: &Path, side: &str) -> Value {
    infernet(home, &[side, "--json", "--network", "testnet"]).await.json()
}

#[tokio::test]
async fn earnings_are_spending_whether_a_node_runs_or_not() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    for _ in 0..2 {
        infernet(buyer_home.path(), &chat(&worker, "Hello")).await.fine();
    }
    let spent = book(buyer_home.path(), "spend").await;
    assert_eq!((&spent["total"]["jobs"], &spent["network"]), (&json!(2), &json!("testnet")), "{spent}");
    assert!(spent["total"]["acknowledged_micro_usd"].as_u64() > Some(0), "{spent}");
    assert_eq!(spent["days"][0]["model"], "tiny-chat:latest");
    let earned = async {
        // The worker writes the buyer's signature down after the buyer has gone.
        while book(worker_home.path(), "earnings").await["total"] != spent["total"] {}
    };
    timeout(DEADLINE, earned).await.expect("settles in time");
    assert_eq!(book(worker_home.path(), "spend").await["total"]["jobs"], 0, "it bought nothing");
    worker.stop().await;
    assert_eq!(book(worker_home.path(), "earnings").await["total"], spent["total"]);

    let csv = infernet(buyer_home.path(), &["spend", "--csv", "--network", "testnet", "--days", "2"]).await.fine();
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("day,model,jobs,") && lines[1].contains("\"tiny-chat:latest\",2,"), "{csv}");
    let csv = infernet(worker_home.path(), &["earnings", "--csv", "--network", "testnet"]).await.fine();
    assert!(csv.lines().nth(1).is_some_and(|line| line.contains("\"tiny-chat:latest\",2,")), "{csv}");
    let csv = infernet(worker_home.path(), &["receipts", "--csv", "--network", "testnet"]).await.fine();
    let amounts = csv.lines().skip(1).map(|line| line.split(',').nth(7).and_then(|amount| amount.parse::<u64>().ok()));
    assert!(csv.starts_with("finished_unix_ms,job,worker,") && csv.lines().count() == 3, "{csv}");
    assert_eq!(amounts.sum::<Option<u64>>(), spent["total"]["acknowledged_micro_usd"].as_u64(), "{csv}");
    let told = infernet(worker_home.path(), &["receipts", "disputes", "--json", "--network", "testnet"]).await.json();
    assert_eq!(told, Value::Array(Vec::new()));
    let table = infernet(buyer_home.path(), &["spend", "--network", "testnet"]).await.fine();
    assert!(table.contains("UNACKNOWLEDGED") && table.lines().last().is_some_and(|l| l.starts_with("total")), "{table}");
    let none = infernet(buyer_home.path(), &["spend", "--since", "2999-01-01", "--network", "testnet"]).await;
    assert_eq!((none.code, none.out.as_str()), (0, ""), "{none:?}");
    check(buyer_home.path(), &["spend", "--since", "yesterday"], 2, &["yesterday", "2026-11-25"]).await;
    check(buyer_home.path(), &["spend", "--days", "0"], 2, &["--days"]).await;
    check(home().path(), &["earnings"], 3, &["no key", "infernet init"]).await;
}

#[tokio::test]
async fn operators_drain_a_node_and_replays_do_nothing() {
    let (worker_home, buyer_home, operator, stranger, engine) = (home(), home(), home(), home(), engine().await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let key = |home: &Path| {
        let home = home.to_owned();
        async move {
            infernet(&home, &["init"]).await.fine();
            infernet(&home, &["key", "show", "--json"]).await.json()["x_only"].as_str().expect("a key").to_owned()
        }
    };
    let (theirs, _) = (key(operator.path()).await, key(stranger.path()).await);
    let node = worker.status.id.to_string();
    let sign = |home: &Path, verb: &'static str, sequence: &'static str| {
        let (home, node) = (home.to_owned(), node.clone());
        async move {
            let args = ["operator", "sign", "--network", "testnet", "--node", &node, "--verb", verb, "--sequence", sequence];
            infernet(&home, &args).await.fine().trim().to_owned()
        }
    };
    let drain = sign(operator.path(), "drain", "7").await;
    check(worker_home.path(), &["operator", "send", &drain], 13, &["is no operator of this node", "operator add"]).await;
    check(worker_home.path(), &["operator", "add", "me"], 2, &["\"me\"", "64 hex digits", "node id"]).await;
    infernet(worker_home.path(), &["operator", "add", &theirs]).await.fine();
    let listed = infernet(worker_home.path(), &["operator", "list", "--json"]).await.json();
    assert_eq!(listed[0]["key"], theirs.as_str());

    let obeyed = with_stdin(command(worker_home.path(), &["operator", "send", "--json"]), &drain).await.json();
    assert_eq!((&obeyed["verb"], &obeyed["sequence"]), (&json!("drain"), &json!(7)));
    assert_eq!((&obeyed["done"], &obeyed["result"]), (&json!(true), &json!({ "draining": true })));
    let ask = [&chat(&worker, "Hello")[..], &["--path", "auction"]].concat();
    check(buyer_home.path(), &ask, 7, &["no bids"]).await;
    {
        let passing = home();
        let buyer = Started::buyer(passing.path(), &worker).await;
        let standing = ["chat", "Hello", "--model", MODEL, "--path", "standing"];
        let reply = infernet(passing.path(), &standing).await;
        assert!(reply.code != 0 && reply.out.is_empty(), "its ad is still known, and no longer good: {reply:?}");
        buyer.stop().await;
    }
    check(worker_home.path(), &["operator", "send", &drain], 13, &["7", "higher sequence"]).await;
    let resume = sign(operator.path(), "resume", "8").await;
    let resumed = infernet(worker_home.path(), &["operator", "send", &resume]).await;
    assert!(resumed.code == 0 && resumed.err.contains("has done it: resume"), "{resumed:?}");
    infernet(buyer_home.path(), &ask).await.fine();

    let send = |command: &'static str| ["operator", "send", command];
    check(worker_home.path(), &send("00"), 13, &["no valid command"]).await;
    check(worker_home.path(), &["operator", "send", &sign(stranger.path(), "drain", "9").await], 13, &["no operator"]).await;
    for (verb, argument, words) in [
        ("dance", "", &["\"dance\"", "there are drain, resume"][..]),
        ("drain", "now", &["drain takes no argument"]),
        ("set_price", "cheap", &["\"cheap\"", "IN/OUT"]),
        ("model_install", "", &["no name of a model"]),
    ] {
        let args = ["operator", "sign", "--node", &node, "--verb", verb, "--argument", argument];
        check(operator.path(), &args, 2, words).await;
    }
    // What was asked for rightly, and can't be done, is no success.
    let sign = ["operator", "sign", "--network", "testnet", "--node", &node, "--sequence", "9"];
    let remove = [&sign[..], &["--verb", "model_remove", "--argument", "nope"]].concat();
    let remove = infernet(operator.path(), &remove).await.fine();
    let reply = infernet(worker_home.path(), &["operator", "send", remove.trim()]).await;
    assert!(reply.code == 1 && reply.err.contains("nope") && !reply.err.contains("done it"), "{reply:?}");
    let price = [&sign[..sign.len() - 1], &["10", "--verb", "set_price", "--argument", "nope=1/2"]].concat();
    let price = infernet(operator.path(), &price).await.fine();
    check_reply(&infernet(worker_home.path(), &["operator", "send", price.trim()]).await, 13, &["no nope", "tiny-chat"]);

    // Numbers outlive the process, however it ends.
    let mut worker = worker;
    worker.child.kill().await.expect("dies");
    let again = Started::worker(worker_home.path(), &engine).await;
    check(worker_home.path(), &["operator", "send", &drain], 13, &["7", "higher sequence"]).await;
    infernet(buyer_home.path(), &chat(&again, "Hello")).await.fine();
    infernet(worker_home.path(), &["operator", "remove", &theirs]).await.fine();
    check(worker_home.path(), &["operator", "remove", &theirs], 2, &["no operator", "operator list"]).await;
    let late = [&sign[..sign.len() - 1], &["11", "--verb", "drain"]].concat();
    let late = infernet(operator.path(), &late).await.fine().trim().to_owned();
    check(worker_home.path(), &["operator", "send", &late], 13, &["no operator"]).await;
    check(buyer_home.path(), &["operator", "send", &late], 11, &["no node runs"]).await;
    check(home().path(), &["operator", "add", &theirs], 3, &["no key", "infernet init"]).await;
}

#[tokio::test]
async fn log_is_kept_followed_and_free_of_prompts() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    check(worker_home.path(), &["logs"], 3, &["no infernet.log", "log_file"]).await;
    let backend = format!("ollama={}", engine.url());
    let args = [&["--json"], &START[..], &["--backend", &backend]].concat();
    let mut start = command(worker_home.path(), &args);
    start.env("RUST_LOG", "debug,infernet_node=trace,infernet_wire=trace");
    let worker = Started::from(worker_home.path(), start).await;
    let mut follow = command(worker_home.path(), &["logs", "--follow", "--lines", "0"]).spawn().expect("starts");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();

    let mut ask = command(buyer_home.path(), &chat(&worker, "Repeat xyzzyprompt please"));
    ask.env("RUST_LOG", "debug,infernet_node=trace,infernet_wire=trace");
    let reply = ended(ask.spawn().expect("starts")).await;
    assert_eq!(reply.code, 0, "{}", reply.err);
    let followed = timeout(DEADLINE, lines.next_line()).await.expect("a line comes in time").expect("reads");
    assert!(followed.is_some_and(|line| line.starts_with("20")), "with its time");
    super::signal(&follow, "INT");
    assert_eq!(timeout(DEADLINE, follow.wait()).await.expect("ends in time").expect("a status").code(), Some(0));
    worker.stop().await;

    let log = fs::read_to_string(worker_home.path().join("infernet.log")).expect("a log");
    let secret = fs::read_to_string(worker_home.path().join("identity.key")).expect("a key");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|event| event["level"].is_string())));
    for canary in ["xyzzyprompt", &hex::encode("xyzzyprompt"), reply.out.trim(), secret.trim()] {
        assert!(!log.contains(canary), "{canary:?} is in the log");
    }
    assert!(log.contains("tiny-chat"));
    let last = infernet(worker_home.path(), &["logs", "--lines", "2"]).await.fine();
    assert_eq!(last.lines().count(), 2, "{last}");
    let raw = infernet(worker_home.path(), &["logs", "--json", "-n", "1"]).await.json();
    assert!(raw["fields"]["message"].is_string(), "{raw}");

    let quiet = Started::new(buyer_home.path(), &["--no-serve", "--no-log-file"]).await;
    quiet.stop().await;
    assert!(!buyer_home.path().join("infernet.log").exists());
}

#[tokio::test]
async fn shells_and_readers_are_helped() {
    let home = home();
    for shell in ["bash", "zsh", "fish"] {
        let script = infernet(home.path(), &["completions", shell]).await.fine();
        assert!(script.contains("infernet") && script.contains("bootstrap"), "{shell}");
    }
    let pages = home.path().join("man");
    let page = infernet(home.path(), &["man"]).await.fine();
    assert!(page.contains(".TH infernet") && page.contains("no bids"), "{page}");
    infernet(home.path(), &["man", "--dir", pages.to_str().expect("UTF-8")]).await.fine();
    let chat = fs::read_to_string(pages.join("infernet-chat.1")).expect("a page");
    assert!(chat.contains("max\\-price"), "{chat}");
    check(home.path(), &["completions", "cmd"], 2, &["cmd", "bash"]).await;
    check(home.path(), &["man", "--dir", "/proc/x"], 1, &["/proc/x"]).await;
}

#[tokio::test]
async fn a_chat_waits_for_a_worker_as_long_as_it_is_told() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let _buyer = Started::buyer(buyer_home.path(), &worker).await;
    let unknown = ["chat", "Hello", "--model", "gpt-9", "--wait", "1"];
    let reply = infernet(buyer_home.path(), &unknown).await;
    assert_eq!((reply.code, reply.out.as_str()), (7, ""), "{reply:?}");
    let standing = ["chat", "Hello", "--model", MODEL, "--path", "standing", "--json"];
    let report = infernet(buyer_home.path(), &standing).await.json();
    assert_eq!(report["auction"]["standing"], true, "{report}");
    check(buyer_home.path(), &["chat", "Hello", "--model", MODEL, "--path", "fast"], 2, &["fast", "standing"]).await;
    check(buyer_home.path(), &["chat", "Hello", "--model", MODEL, "--wait", "4000"], 2, &["4000", "3600"]).await;
}

/// Whether `value` is what `schema` says, as far as our types go: names and requirements of fields, all the way down.
pub(super) fn check_schema(path: &str, value: &Value, schema: &Value, root: &Value) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").expect("of this schema");
        return check_schema(path, value, &root["$defs"][name], root);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let inner = any.iter().find(|schema| schema["type"] != "null").expect("a value");
        if !value.is_null() {
            check_schema(path, value, inner, root);
        }
        return;
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        items.iter().for_each(|item| check_schema(path, item, schema, root));
    }
    let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else { return };
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains_key(name.as_str().expect("a name")), "{path} has no {name}: {value}");
    }
    for (name, value) in fields {
        let schema = properties.get(name).unwrap_or_else(|| panic!("{path}.{name} is in no schema: {value}"));
        check_schema(&format!("{path}.{name}"), value, schema, root);
    }
}

#[tokio::test]
async fn json_is_what_its_schema_says() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    let schemas = infernet(worker_home.path(), &["schema"]).await.json();
    let check = |name: &str, value: &Value| {
        assert!(schemas[name].is_object(), "no schema of {name}");
        check_schema(name, value, &schemas[name], &schemas[name]);
    };
    check("start", &serde_json::to_value(&worker.status).expect("JSON"));
    check("chat", &infernet(buyer_home.path(), &[&chat(&worker, "Hello")[..], &["--json"]].concat()).await.json());
    let _buyer = Started::buyer(buyer_home.path(), &worker).await;
    let network = ["--network", "testnet"];
    for (name, more) in [
        ("models", &[][..]),
        ("peers", &[]),
        ("receipts", &network),
        ("receipts verify", &network),
        ("spend", &network),
        ("jobs", &network),
        ("key show", &[]),
        ("operator list", &[]),
        ("config show", &[]),
        ("config path", &[]),
        ("init", &[]),
    ] {
        let args: Vec<&str> = name.split(' ').chain(more.iter().copied()).chain(["--json"]).collect();
        check(name, &infernet(buyer_home.path(), &args).await.json());
    }
    let failed = infernet(buyer_home.path(), &["chat", " ", "-m", "x", "--json"]).await;
    check("error", &serde_json::from_str(&failed.err).expect("JSON"));
    assert_eq!(infernet(buyer_home.path(), &["schema", "key", "show"]).await.json(), schemas["key show"]);
    let (code, words) = (2, ["\"dance\"", "key show", "receipts verify"]);
    super::mistakes::check(buyer_home.path(), &["schema", "dance"], code, &words).await;
}
