//! The key through a node's life: backed up, brought back, encrypted, replaced.

use super::{START, Started, chat, command, ended, engine, home, infernet, mistakes::check};
use infernet_node::{control::Control, identity};
use infernet_testnet::cluster::{Member, MemberSpec};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const PASSPHRASE: &str = "correct horse battery staple";

/// A passphrase file in `dir`.
fn passphrase(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join(format!("passphrase-{}", text.len()));
    fs::write(&path, format!("{text}\n")).expect("writes");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

async fn id(home: &Path) -> String {
    infernet(home, &["key", "show", "--json"]).await.json()["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_node_whose_key_is_elsewhere_has_its_books_and_gets_no_second_key() {
    let member = Member::start(MemberSpec::buyer(Vec::new())).await.expect("starts");
    let home = member.home.path();
    let mut control = Control::bind(home).expect("a socket");
    let node = Arc::new(member.node);
    control.serve(node.clone());
    let shown = infernet(home, &["key", "show", "--json"]).await.json();
    assert_eq!((&shown["id"], shown.get("encrypted")), (&node.id().to_string().into(), None), "{shown}");
    let text = infernet(home, &["key", "show"]).await.fine();
    assert!(text.contains("key file    none here"), "{text}");
    for books in ["jobs", "earnings", "spend", "receipts"] {
        infernet(home, &[books]).await.fine();
    }
    for makes in [&["init"][..], &["setup", "--yes"], &START, &["key", "restore", "/nonexistent"]] {
        check(home, makes, 3, &["with a key that is not there", "key show", "--home"]).await;
        assert!(!home.join("identity.key").exists(), "{makes:?}");
    }
    drop(control);
    node.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_backup_survives_the_machine() {
    let (first, second, other) = (home(), home(), home());
    let file = first.path().join("key.backup");
    let words = passphrase(first.path(), PASSPHRASE);
    infernet(first.path(), &["init"]).await.fine();
    let id = id(first.path()).await;
    let wallet = identity::solana_key(first.path()).expect("a key").address().to_string();
    let secret = fs::read_to_string(first.path().join("identity.key")).expect("a file");
    let backup = infernet(first.path(), &["key", "backup", text(&file), "--passphrase-file", text(&words)]).await;
    assert_eq!(backup.fine().trim(), id);
    let kept = fs::read_to_string(&file).expect("a file");
    assert!(kept.contains("argon2id") && !kept.contains(secret.trim()), "{kept}");

    let restore = ["key", "restore", text(&file), "--passphrase-file", text(&words)];
    let restored = infernet(second.path(), &[&restore[..], &["--json"]].concat()).await.json();
    assert_eq!((&restored["id"], &restored["solana"]), (&id.as_str().into(), &wallet.as_str().into()));
    let files = [&first, &second].map(|home| fs::read(home.path().join("solana.key")).expect("a file"));
    assert_eq!(files[0], files[1]);
    assert_eq!(fs::read_to_string(second.path().join("identity.key")).expect("a file"), secret);

    check(first.path(), &["key", "backup", text(&file), "--passphrase-file", text(&words)], 3, &["exists already"]).await;
    let wrong = passphrase(first.path(), "wrong horse");
    check(other.path(), &["key", "restore", text(&file), "--passphrase-file", text(&wrong)], 3, &["passphrase is wrong"]).await;
    let weak = passphrase(first.path(), "horse");
    check(first.path(), &["key", "backup", "x", "--passphrase-file", text(&weak)], 3, &["5 characters", "at least 8"]).await;
    check(first.path(), &["key", "backup", "x"], 3, &["no terminal", "--passphrase-file"]).await;
    infernet(other.path(), &["init"]).await.fine();
    check(other.path(), &restore, 3, &[&id, "move it away", "--home"]).await;
    check(other.path(), &["key", "restore", "/nonexistent"], 3, &["there is no file /nonexistent", "key backup"]).await;
}

#[tokio::test]
async fn a_new_key_is_told_so_that_a_mistyped_home_is_noticed() {
    let home = home();
    let wrong = home.path().join("tpyo");
    let ask = ["chat", "hi", "--model", "x", "--no-mdns", "--network", "testnet"];
    let first = infernet(&wrong, &ask).await;
    let id = id(&wrong).await;
    assert!(first.err.starts_with(&format!("made a new key, of node {id}, in {}", wrong.display())), "{first:?}");
    let again = infernet(&wrong, &ask).await;
    assert!(again.code == 6 && !again.err.contains("new key"), "{again:?}");
}

#[tokio::test]
async fn an_encrypted_key_starts_with_its_passphrase_alone() {
    let (home, dir) = (home(), home());
    let words = passphrase(dir.path(), PASSPHRASE);
    infernet(home.path(), &["init"]).await.fine();
    let id = id(home.path()).await;
    infernet(home.path(), &["key", "encrypt", "--passphrase-file", text(&words)]).await.fine();
    let shown = infernet(home.path(), &["key", "show", "--json"]).await.json();
    assert_eq!((&shown["id"], &shown["encrypted"]), (&Value::from(id.as_str()), &Value::from(true)), "needs no passphrase");
    assert_eq!(infernet(home.path(), &["init"]).await.fine().trim(), id, "neither does this");

    let start = [&START[..], &["--no-serve"]].concat();
    let ways = ["no terminal", "INFERNET_PASSPHRASE_FILE", "passphrase_file in config.toml", "--passphrase-file"];
    check(home.path(), &start, 3, &ways).await;
    check(home.path(), &["service", "install", "--print"], 3, &["encrypted", "passphrase_file in config.toml"]).await;
    check(home.path(), &["key", "encrypt", "--passphrase-file", text(&words)], 3, &["encrypted already"]).await;
    let mut command = command(home.path(), &[&["--json"], &start[..]].concat());
    command.env("INFERNET_PASSPHRASE_FILE", &words);
    let node = Started::from(home.path(), command).await;
    assert_eq!(node.status.id.to_string(), id);
    node.stop().await;
    Started::new(home.path(), &["--no-serve", "--passphrase-file", text(&words)]).await.stop().await;
    fs::write(home.path().join("config.toml"), format!("passphrase_file = {:?}\n", text(&words))).expect("writes");
    Started::new(home.path(), &["--no-serve"]).await.stop().await;
    let unit = infernet(home.path(), &["service", "install", "--print"]).await.fine();
    assert!(unit.contains("ExecStart=") && !unit.contains("PASSPHRASE"), "the file says it: {unit}");
    fs::set_permissions(&words, fs::Permissions::from_mode(0o644)).expect("chmod");
    check(home.path(), &start, 3, &[text(&words), "chmod 600"]).await;
    fs::set_permissions(&words, fs::Permissions::from_mode(0o600)).expect("chmod");

    infernet(home.path(), &["key", "decrypt", "--passphrase-file", text(&words)]).await.fine();
    Started::new(home.path(), &["--no-serve"]).await.stop().await;
}

#[tokio::test]
async fn a_rotated_key_keeps_its_past() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let worker = Started::worker(worker_home.path(), &engine).await;
    infernet(buyer_home.path(), &chat(&worker, "Hello")).await.fine();
    let old = worker.status.id.to_string();
    check(worker_home.path(), &["key", "rotate"], 4, &["can't be rotated now", "another node is running", "stop it"]).await;
    worker.stop().await;

    let mut rotate = command(worker_home.path(), &["key", "rotate", "--json"]);
    rotate.env("INFERNET_NETWORK", "testnet");
    let rotated = ended(rotate.spawn().expect("starts")).await.json();
    let new = id(worker_home.path()).await;
    assert_eq!((&rotated["old"], &rotated["new"]), (&Value::from(old.as_str()), &Value::from(new.as_str())));
    let short = &old[old.len() - 8..];
    assert!(worker_home.path().join(format!("identity-{short}.key")).exists(), "the old key is kept");

    let mut show = command(worker_home.path(), &["key", "show"]);
    show.env("INFERNET_NETWORK", "testnet");
    let shown = ended(show.spawn().expect("starts")).await.fine();
    assert!(shown.contains(&new) && shown.contains(&format!("from {old}")), "{shown}");
    let again = Started::worker(worker_home.path(), &engine).await;
    assert_eq!(again.status.id.to_string(), new);
    infernet(buyer_home.path(), &chat(&again, "Hello")).await.fine();
    again.stop().await;
    let earned = infernet(worker_home.path(), &["earnings", "--json", "--network", "testnet"]).await.json();
    assert_eq!(earned["total"]["jobs"], 2, "what the old key earned is ours: {earned}");
}
