//! `infernet doctor`, in homes that are well and in others.

use super::{Started, command, daily::check_schema, ended, engine, home, infernet};
use serde_json::Value;
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// A home whose configuration touches nothing but loopback.
async fn prepared(home: &Path, backend: &str, more: &str) {
    infernet(home, &["init"]).await.fine();
    fs::set_permissions(home, fs::Permissions::from_mode(0o700)).expect("is ours");
    let chat = if more.contains("chat_listen") { "" } else { "chat_listen = '127.0.0.1:0'\n" };
    let text = format!("network = 'testnet'\nlisten = ['/ip4/127.0.0.1/tcp/0']\n{chat}backend = [{backend}]\n{more}\n");
    fs::write(home.join("config.toml"), text).expect("writes");
}

/// What the doctor says, with its exit code.
async fn report(home: &Path) -> (i32, Value) {
    let reply = infernet(home, &["doctor", "--json"]).await;
    let report: Value = serde_json::from_str(&reply.out).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
    let schema = infernet(home, &["schema", "doctor"]).await.json();
    check_schema("doctor", &report, &schema, &schema);
    assert_eq!(reply.code == 0, report["problems"] == 0, "{reply:?}");
    (reply.code, report)
}

/// The checks of that name, with these words in one of them.
fn find<'a>(report: &'a Value, name: &str, word: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a list");
    let said = |check: &&Value| check["name"] == name && check["said"].as_str().is_some_and(|said| said.contains(word));
    checks.iter().find(said).unwrap_or_else(|| panic!("{name} with {word:?} in {report:#}"))
}

#[tokio::test]
async fn a_good_home_is_well_with_and_without_a_node() {
    let (home, engine) = (home(), engine().await);
    let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let (backend, chat) = (format!("'ollama={}'", engine.url()), format!("chat_listen = '{free}'"));
    prepared(home.path(), &backend, &chat).await;
    let (code, before) = report(home.path()).await;
    assert_eq!(code, 0, "{before:#}");
    assert_eq!(find(&before, "port", "is free")["level"], "ok");
    assert_eq!(find(&before, "engine", "tiny-chat")["level"], "ok");
    for name in ["sync", "key", "home", "store"] {
        assert_eq!(find(&before, name, "")["level"], "ok", "{before:#}");
    }

    let mut start = command(home.path(), &["--json", "start", "--no-mdns"]);
    start.env("INFERNET_API_LISTEN", "127.0.0.1:0");
    let node = Started::from(home.path(), start).await;
    let (code, during) = report(home.path()).await;
    assert_eq!(code, 0, "{during:#}");
    find(&during, "node", "sells and buys");
    find(&during, "port", "held by the running node");
    find(&during, "store", "the running node keeps them");
    assert_eq!(find(&during, "peers", "no peer")["level"], "warning");
    let text = infernet(home.path(), &["doctor"]).await.fine();
    assert!(text.contains("0 problems") && text.contains("> bootstrap = ["), "{text}");
    infernet(home.path(), &["status"]).await.fine();
    node.stop().await;
    assert!(
        fs::read_dir(home.path()).expect("a home").flatten().all(|file| !file.file_name().to_string_lossy().contains("doctor"))
    );
}

#[tokio::test]
async fn each_trouble_is_found_with_its_fix() {
    let (home, taken) = (home(), UdpSocket::bind("127.0.0.1:0").expect("binds"));
    let chat = format!(
        "chat_listen = '{}'\nbootstrap = ['/ip4/127.0.0.1/tcp/1']\nmdns = false",
        taken.local_addr().expect("an address")
    );
    prepared(home.path(), "'ollama=http://127.0.0.1:1'", &chat).await;
    fs::set_permissions(home.path().join("identity.key"), fs::Permissions::from_mode(0o644)).expect("chmod");
    fs::write(home.path().join("api-token"), "x").expect("writes");
    fs::set_permissions(home.path().join("api-token"), fs::Permissions::from_mode(0o604)).expect("chmod");
    let (code, report) = report(home.path()).await;
    assert_eq!((code, &report["problems"]), (14, &5.into()), "{report:#}");
    for (name, said, fix) in [
        ("key", "0644", "chmod 600"),
        ("secrets", "0604", "chmod 600"),
        ("port", "is taken", "chat_listen"),
        ("engine", "does not answer", "config.toml"),
        ("bootstrap", "/ip4/127.0.0.1/tcp/1", "another"),
    ] {
        let check = find(&report, name, said);
        assert_eq!(check["level"], "problem", "{check}");
        assert!(check["fix"].as_str().is_some_and(|text| text.contains(fix)), "{check}");
    }
    let reply = ended(command(home.path(), &["doctor"]).spawn().expect("starts")).await;
    assert!(reply.code == 14 && reply.err.contains("5 problems, ") && !reply.out.contains("5 problems") && reply.out.contains("> chmod 600"), "{reply:?}");
    assert!(!reply.out.contains('\u{1b}'), "no colour in a pipe");
}

#[tokio::test]
async fn a_broken_configuration_is_a_problem_and_hides_nothing_else() {
    let home = home();
    prepared(home.path(), "", "prise_out = 1").await;
    let (code, report) = report(home.path()).await;
    assert_eq!((code, &report["problems"]), (14, &1.into()), "{report:#}");
    find(&report, "config", "prise_out");
    assert_eq!(find(&report, "engine", "not known")["level"], "not_checked");
    assert_eq!(find(&report, "key", "node 16Uiu2H")["level"], "ok");
}

#[tokio::test]
async fn a_node_and_an_engine_that_are_stuck_are_told_of_and_not_waited_for() {
    let (home, silent) = (home(), TcpListener::bind("127.0.0.1:0").expect("binds"));
    prepared(home.path(), &format!("'ollama=http://{}'", silent.local_addr().expect("an address")), "").await;
    let node = Started::from(home.path(), command(home.path(), &["--json", "start", "--no-mdns", "--no-serve"])).await;
    node.signal("STOP");
    let (code, report) = report(home.path()).await;
    node.signal("CONT");
    assert_eq!(code, 14);
    assert_eq!(find(&report, "node", "does not answer within 3 s")["level"], "problem", "{report:#}");
    assert_eq!(find(&report, "engine", "within")["level"], "problem", "{report:#}");
    assert_eq!(find(&report, "store", "could not be looked at")["level"], "not_checked", "{report:#}");
    node.stop().await;
}
