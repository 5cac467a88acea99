//! Each mistake gives one sentence that names the way out, nothing on stdout, and its exit code; `--json` the same as an object.

use super::{DEADLINE, Reply, START, Started, chat, command, ended, engine, home, infernet, signal, with_stdin};
use serde_json::Value;
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

/// Runs `args` in `home`, for people and for scripts.
pub(super) async fn check(home: &Path, args: &[&str], code: i32, words: &[&str]) {
    check_reply(&infernet(home, args).await, code, words);
    check_json(&infernet(home, &[&["--json"], args].concat()).await, code, words);
}

pub(super) fn check_reply(reply: &Reply, code: i32, words: &[&str]) {
    assert_eq!((reply.code, reply.out.as_str()), (code, ""), "{reply:?}");
    // What is told of a home that was new is no part of the failure.
    let lines: Vec<&str> = reply.err.lines().filter(|line| !line.starts_with("made a new key")).collect();
    let [line] = lines.as_slice() else { panic!("one line: {reply:?}") };
    let said = line.strip_prefix("infernet: ").unwrap_or_else(|| panic!("says who speaks: {line}"));
    check_words(said, words);
}

fn check_json(reply: &Reply, code: i32, words: &[&str]) {
    assert_eq!((reply.code, reply.out.as_str()), (code, ""), "{reply:?}");
    let object: Value = serde_json::from_str(&reply.err).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
    assert_eq!(object["error"]["exit"], code);
    check_words(object["error"]["message"].as_str().expect("a message"), words);
}

fn check_words(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} in {said:?}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn start<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    [&START[..], extra].concat()
}

#[tokio::test]
async fn unknown_flags_and_missing_ones() {
    let home = home();
    check(home.path(), &["chat", "hi"], 2, &["--model", "--help"]).await;
    check(home.path(), &["chat", "hi", "--modle", "x"], 2, &["--modle", "'--model'"]).await;
    check(home.path(), &["strat"], 2, &["strat", "'start'"]).await;
    check(home.path(), &["chat", "hi", "-m", "x", "--max-price", "cheap"], 2, &["cheap", "--max-price"]).await;
    let dollars = ["0.4", "--price-out", "whole micro-USD", "for $0.40 write 400000"];
    check(home.path(), &["start", "--price-out", "0.4"], 2, &dollars).await;
    check(home.path(), &["chat", "hi", "-m", "x", "--budget", "$0.01"], 2, &["for $0.01 write 10000"]).await;
    check(home.path(), &["chat", "hi", "-m", "x", "--rule", "best"], 2, &["best", "balanced", "cheapest", "fastest"]).await;
    check(home.path(), &["start", "--no-serve", "--backend", "ollama=http://127.0.0.1:1"], 2, &["--backend", "--no-serve"])
        .await;
}

#[tokio::test]
async fn empty_prompt() {
    let home = home();
    check(home.path(), &["chat", " ", "--model", "x"], 2, &["prompt is empty", "quotes"]).await;
    check_reply(&with_stdin(command(home.path(), &["chat", "-", "--model", "x"]), "\n").await, 2, &["prompt is empty"]);
}

#[tokio::test]
async fn bad_addresses() {
    let home = home();
    check(home.path(), &["start", "--listen", "foo"], 3, &["\"foo\"", "--listen", "/ip4/0.0.0.0/tcp/46337"]).await;
    check(home.path(), &["start", "--bootstrap", "example.org:46337"], 3, &["--bootstrap", "/dns4/example.org/tcp/46337"])
        .await;
    check(home.path(), &["start", "--chat-listen", "46337"], 3, &["--chat-listen", "0.0.0.0:46337"]).await;
    check(home.path(), &["start", "--backend", "ollama"], 3, &["--backend", "KIND=URL"]).await;
    check(home.path(), &["start", "--slots", "0"], 3, &["--slots", "from 1 to"]).await;
}

#[tokio::test]
async fn mesh_port_in_use() {
    let (home, taken) = (home(), TcpListener::bind("127.0.0.1:0").expect("binds"));
    let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().expect("an address").port());
    let args = ["start", "--no-mdns", "--no-serve", "--chat-listen", "127.0.0.1:0", "--listen", &address];
    check(home.path(), &args, 4, &[&address, "stop it", "another port"]).await;
}

#[tokio::test]
async fn api_port_in_use() {
    let (home, taken) = (home(), std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let address = taken.local_addr().expect("an address").to_string();
    let args = [&START[..], &["--no-serve", "--api-listen", &address]].concat();
    check(home.path(), &args, 4, &[&address, "--api-listen", "--no-api"]).await;
}

#[tokio::test]
async fn api_keys_that_can_not_be() {
    let home = home();
    check(home.path(), &["api-key", "add", "a b"], 2, &["letters, digits"]).await;
    check(home.path(), &["api-key", "remove", "ci"], 2, &["ci", "api-key list"]).await;
}

#[tokio::test]
async fn chat_port_in_use() {
    let (home, taken) = (home(), UdpSocket::bind("127.0.0.1:0").expect("binds"));
    let address = taken.local_addr().expect("an address").to_string();
    let args = ["start", "--no-mdns", "--no-serve", "--listen", "/ip4/127.0.0.1/tcp/0", "--chat-listen", &address];
    check(home.path(), &args, 4, &[&address, "--chat-listen"]).await;
}

#[tokio::test]
async fn key_that_others_may_read() {
    let home = home();
    infernet(home.path(), &["init"]).await.fine();
    let key = home.path().join("identity.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("chmod");
    for command in [&["key", "show"][..], &start(&["--no-serve"]), &["init"]] {
        check(home.path(), command, 3, &["0644", "chmod 600", &key.display().to_string()]).await;
    }
}

#[tokio::test]
async fn no_key() {
    check(home().path(), &["key", "show"], 3, &["no key", "infernet init"]).await;
}

#[tokio::test]
async fn unknown_key_in_the_configuration() {
    let home = home();
    fs::write(home.path().join("config.toml"), "prise_out = 1\n").expect("writes");
    check(home.path(), &["start"], 3, &["config.toml", "prise_out", "price_out"]).await;
}

/// Runs a node until it is ready and a line of its stderr has all `words`; returns what it said until then.
async fn heard(mut command: Command, words: &[&str]) -> Vec<String> {
    let mut node = command.spawn().expect("starts");
    let mut lines = BufReader::new(node.stderr.take().expect("piped")).lines();
    let mut said = Vec::new();
    let seek = async {
        let told = |line: &String| words.iter().all(|word| line.contains(word));
        // Only who is ready knows what to do with a signal.
        while !said.iter().any(told) || !said.iter().any(|line: &String| line.starts_with("node ")) {
            said.push(lines.next_line().await.expect("reads").unwrap_or_else(|| panic!("goes on after {said:?}")));
        }
    };
    timeout(DEADLINE, seek).await.unwrap_or_else(|_| panic!("says {words:?} in time"));
    signal(&node, "TERM");
    // Whoever nobody listens to ends as well as others.
    let rest = async { while lines.next_line().await.is_ok_and(|line| line.is_some()) {} };
    timeout(DEADLINE, rest).await.expect("ends in time");
    assert_eq!(ended(node).await.code, 0);
    said
}

#[tokio::test]
async fn a_model_that_no_engine_has_is_told_at_the_start_and_on_every_screen() {
    let (home, engine) = (home(), engine().await);
    let backend = format!("ollama={}", engine.url());
    let args = ["--backend", &backend, "--model", "nope", "--price", "tiny-caht=1/2", "--alias", "tiny-chat=x"];
    heard(command(home.path(), &start(&args)), &["WARN", "no engine has nope, which models", "there is tiny-chat:latest"])
        .await;
    let node = Started::new(home.path(), &[&args[..], &["--model", "tiny-chat"]].concat()).await;
    let told: Vec<_> = node.status.warnings.iter().filter(|finding| finding.code == "unserved").collect();
    assert!(told.len() == 2 && told[1].seen.contains("tiny-caht, which prices"), "{told:?}");
    for command in ["status", "doctor", "why"] {
        let said = infernet(home.path(), &[command]).await.fine().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("no engine has nope") && said.contains("tiny-chat:latest"), "{command}: {said}");
    }
    assert!(node.status.seller.as_ref().is_some_and(|seller| seller.models == ["tiny-chat:latest"]), "{:?}", node.status);
    node.stop().await;
}

#[tokio::test]
async fn a_start_without_an_engine_says_once_that_there_is_none() {
    let home = home();
    let mut command = command(home.path(), &START);
    for engine in ["OLLAMA", "VLLM", "SGLANG", "MODULAR_MAX", "LLAMACPP"] {
        command.env(format!("{engine}_HOST"), "127.0.0.1:1");
    }
    let said = heard(command, &["sells nothing until an engine answers"]).await;
    let told: Vec<_> = said.iter().filter(|line| line.contains("looked for")).collect();
    assert!(told.len() == 1 && told[0].contains("WARN") && told[0].contains("--backend"), "{said:#?}");
    assert!(!said.iter().any(|line| line.contains("no price")), "{said:#?}");
}

#[tokio::test]
async fn a_peer_to_meet_first_that_is_not_there_is_told() {
    let nobody = "/ip4/127.0.0.1/tcp/1";
    let start = command(home().path(), &start(&["--no-serve", "--bootstrap", nobody]));
    heard(start, &["WARN", "named with bootstrap can't be met", nobody, "refused"]).await;
}

#[tokio::test]
async fn a_mistyped_variable_is_told_and_stops_nothing() {
    let home = home();
    let with = |args: &[&str]| {
        let mut command = command(home.path(), args);
        command.env("INFERNET_PRICE_OOT", "5").env("INFERNET_PLANE_STORE", "the plane's own");
        command
    };
    let told = "INFERNET_PRICE_OOT is not known and counts for nothing: did you mean INFERNET_PRICE_OUT?\n";
    let reply = ended(with(&["config", "show"]).spawn().expect("starts")).await;
    assert_eq!((reply.code, reply.err.as_str()), (0, told), "{reply:?}");
    assert!(reply.out.contains("price_out"), "{reply:?}");

    heard(with(&start(&["--no-serve"])), &[told.trim()]).await;
}

#[tokio::test]
async fn home_with_too_long_a_path() {
    let home = home();
    let deep = home.path().join("x".repeat(120));
    check(&deep, &start(&["--no-serve"]), 3, &["too long", "--home"]).await;
}

#[tokio::test]
async fn secrets_would_be_logged() {
    let home = home();
    let mut command = command(home.path(), &start(&["--no-serve"]));
    command.env("SSLKEYLOGFILE", home.path().join("secrets"));
    check_reply(&ended(command.spawn().expect("starts")).await, 3, &["SSLKEYLOGFILE", "unset"]);
    assert!(!home.path().join("secrets").exists());
}

#[tokio::test]
async fn no_engine() {
    let args = start(&["--backend", "ollama=http://127.0.0.1:1"]);
    check(home().path(), &args, 5, &["http://127.0.0.1:1", "--backend", "--no-serve"]).await;
}

#[tokio::test]
async fn nobody_to_ask() {
    let args = ["chat", "hi", "--model", "x", "--no-mdns", "--network", "testnet"];
    check(home().path(), &args, 6, &["no peers", "--bootstrap"]).await;
}

#[tokio::test]
async fn bootstrap_peer_that_is_not_there() {
    let args = ["models", "--no-mdns", "--network", "testnet", "--bootstrap", "/ip4/127.0.0.1/tcp/1"];
    check_reply(&infernet(home().path(), &args).await, 6, &["no peers", "/ip4/127.0.0.1/tcp/1: ", "refused", "--bootstrap"]);
}

#[tokio::test]
async fn no_node_runs() {
    check(home().path(), &["peers"], 11, &["no node runs", "infernet start"]).await;
}

#[tokio::test]
async fn second_node_in_the_same_home() {
    let home = home();
    let first = Started::new(home.path(), &["--no-serve"]).await;
    check(home.path(), &start(&["--no-serve"]), 4, &["another node", "--home"]).await;
    assert_eq!(infernet(home.path(), &["peers", "--json"]).await.fine(), "[]\n", "the first is unharmed");
    first.stop().await;
}

#[tokio::test]
async fn orders_that_nobody_takes() {
    let (engine, worker_home, buyer_home, passing) = (engine().await, home(), home(), home());
    let worker = Started::worker(worker_home.path(), &engine).await;
    let order = |more: &[&'static str]| [&chat(&worker, "hi")[..], more].concat();
    check(passing.path(), &order(&["--max-price", "5"]), 8, &["no bids", "--max-price"]).await;
    check(passing.path(), &order(&["--budget", "0"]), 8, &["no bids", "--budget"]).await;
    let poor = ["up to 512 tokens", "budget", "9", "raise --budget or lower --max-tokens"];
    check(passing.path(), &order(&["--budget", "9"]), 8, &poor).await;
    check(passing.path(), &order(&["--max-tokens", "100000"]), 7, &["no bids", "--max-tokens"]).await;

    let _buyer = Started::buyer(buyer_home.path(), &worker).await;
    check(buyer_home.path(), &["chat", "hi", "--model", "gpt-9"], 7, &["no bids", "gpt-9", "tiny-chat:latest"]).await;
    let poor = ["tiny-chat needs 2", "micro-USD for up to 512 tokens, and the budget is 9", "--budget", "lower --max-tokens"];
    for path in ["auto", "auction", "standing"] {
        check(buyer_home.path(), &["chat", "hi", "--model", "tiny-chat", "--budget", "9", "--path", path], 8, &poor).await;
    }
    let cheap = ["chat", "hi", "--model", "tiny-chat", "--max-price", "5"];
    check(buyer_home.path(), &cheap, 8, &["100000", "400000", "--max-price"]).await;
}
