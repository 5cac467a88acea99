//! The `infernet` command as a stranger meets it: processes, exit codes, what is on stdout and what on stderr.
#![cfg(test)]

mod credit;
mod daily;
mod doctor;
mod drain;
mod good;
mod keys;
mod mistakes;
mod models;
mod policy;
mod screens;
mod service;
mod setup;
mod signals;
mod terminal;
mod tranches;
mod tui;
mod wallet;

use infernet_node::control::schema::StatusReport;
use infernet_testnet::{
    cluster::CREDIT,
    engine::{EngineEvent, EngineOptions, EngineServer},
};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    sync::broadcast,
    time::timeout,
};

/// Nothing here takes longer, on a busy machine either.
const DEADLINE: Duration = Duration::from_secs(60);
/// The embedded engine's model.
const MODEL: &str = "tiny-chat";
/// A node on loopback, on free ports.
const START: [&str; 8] =
    ["start", "--no-mdns", "--network", "testnet", "--listen", "/ip4/127.0.0.1/tcp/0", "--chat-listen", "127.0.0.1:0"];

/// How a command ended.
#[derive(Debug)]
struct Reply {
    code: i32,
    out: String,
    err: String,
}

impl Reply {
    /// Its stdout, if it ended well.
    fn fine(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Its stdout as JSON, if it ended well.
    fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.fine()).expect("one JSON value on stdout")
    }
}

fn home() -> TempDir {
    tempfile::Builder::new().prefix("infernet-").tempdir().expect("a directory")
}

/// `infernet args…` in `home`, deaf to this process's environment.
fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infernet-testnet"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("INFERNET_")) {
        command.env_remove(name);
    }
    command
        .env_remove("RUST_LOG")
        .env_remove("SSLKEYLOGFILE")
        .env("INFERNET_HOME", home)
        .env("INFERNET_API_LISTEN", "127.0.0.1:0")
        .env("INFERNET_FREE_CREDIT", CREDIT.0.to_string())
        .arg("node")
        .args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn infernet(home: &Path, args: &[&str]) -> Reply {
    ended(command(home, args).spawn().expect("starts")).await
}

async fn ended(child: Child) -> Reply {
    let output = timeout(DEADLINE, child.wait_with_output()).await.expect("ends in time").expect("an output");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Reply { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A running `infernet start`.
struct Started {
    child: Child,
    status: StatusReport,
    home: PathBuf,
}

impl Started {
    /// `START` and `extra` in `home`.
    async fn new(home: &Path, extra: &[&str]) -> Self {
        Self::from(home, command(home, &[&["--json"], &START[..], extra].concat())).await
    }

    async fn from(home: &Path, mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::null()).spawn().expect("starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        timeout(DEADLINE, stdout.read_line(&mut line)).await.expect("is ready in time").expect("reads");
        let status = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in {line:?}"));
        Started { child, status, home: home.into() }
    }

    /// Sells `engine`.
    async fn worker(home: &Path, engine: &EngineServer) -> Self {
        Self::new(home, &["--backend", &format!("ollama={}", engine.url()), "--slots", "4"]).await
    }

    /// Only buys, and has heard of `worker`'s model.
    async fn buyer(home: &Path, worker: &Started) -> Self {
        let buyer = Self::new(home, &["--no-serve", "--bootstrap", worker.address()]).await;
        let known = async { while infernet(home, &["models", "--json"]).await.json().as_array().is_none_or(Vec::is_empty) {} };
        timeout(DEADLINE, known).await.expect("hears of the worker in time");
        buyer
    }

    fn address(&self) -> &str {
        &self.status.listen[0]
    }

    fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// The exit code.
    async fn end(&mut self) -> Option<i32> {
        timeout(DEADLINE, self.child.wait()).await.expect("ends in time").expect("a status").code()
    }

    /// SIGTERM, and the wait for an orderly end.
    async fn stop(mut self) {
        self.signal("TERM");
        assert_eq!(self.end().await, Some(0));
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("runs").to_string();
    let sent = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status();
    assert!(sent.expect("kill runs").success());
}

/// `infernet chat prompt` with what a short-lived buyer needs to find `worker`.
fn chat<'a>(worker: &'a Started, prompt: &'a str) -> Vec<&'a str> {
    let mesh = ["--no-mdns", "--network", "testnet", "--bootstrap", worker.address()];
    [&["chat", prompt, "--model", MODEL, "--temperature", "0"][..], &mesh].concat()
}

async fn engine() -> EngineServer {
    EngineServer::start(EngineOptions::default()).await.expect("the engine starts")
}

/// An engine whose answers take `tokens` at `rate` per second.
async fn slow_engine(rate: f64, tokens: u32) -> EngineServer {
    EngineServer::start(EngineOptions::metronome(rate, tokens)).await.expect("the engine starts")
}

/// Waits until the engine has generated a first token.
async fn first_token(events: &mut broadcast::Receiver<EngineEvent>) {
    let seek = async { while !matches!(events.recv().await.expect("the engine runs"), EngineEvent::FirstToken { .. }) {} };
    timeout(DEADLINE, seek).await.expect("a token comes in time");
}

/// Feeds `text` to the command's stdin.
async fn with_stdin(mut command: Command, text: &str) -> Reply {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("starts");
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().expect("piped").write_all(text.as_bytes()).await;
    ended(child).await
}

/// Reads the first bytes of the command's stdout.
async fn first_bytes(child: &mut Child) -> tokio::process::ChildStdout {
    let mut stdout = child.stdout.take().expect("piped");
    let mut bytes = [0; 5];
    timeout(DEADLINE, stdout.read_exact(&mut bytes)).await.expect("an answer comes in time").expect("an answer comes");
    stdout
}
