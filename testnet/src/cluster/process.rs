//! Nodes as processes: this very binary, started again as `infernet-testnet node …`, which is `infernet …`.

use super::{ClusterError, NETWORK, Sells};
use crate::machine;
use infernet_node::control::schema::StatusReport;
use std::{path::Path, process::Stdio, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a process may take until it listens.
const START: Duration = Duration::from_secs(30);

/// A running `infernet start`. Dropping it kills it.
pub struct Process {
    child: Child,
    /// What it said when it was ready.
    pub status: StatusReport,
    /// Its home, removed with it.
    pub home: TempDir,
}

impl Process {
    /// Starts a worker that sells `sells` and starts from `bootstrap`. `binary` is `infernet`, or another program whose `node`
    /// subcommand is; `extra` are more flags of `infernet start`.
    pub async fn worker(binary: &Path, sells: &Sells, bootstrap: &[String], extra: &[&str]) -> Result<Self, ClusterError> {
        let (slots, price) = (sells.slots.to_string(), sells.price);
        let (engine, input, output) =
            (format!("ollama={}", sells.engine), price.input.0.to_string(), price.output.0.to_string());
        let sold = ["--backend", &engine, "--slots", &slots, "--price-in", &input, "--price-out", &output];
        Self::start(binary, bootstrap, &[&sold, extra].concat()).await
    }

    /// Starts a node that only buys.
    pub async fn buyer(binary: &Path, bootstrap: &[String], extra: &[&str]) -> Result<Self, ClusterError> {
        Self::start(binary, bootstrap, &[&["--no-serve"], extra].concat()).await
    }

    async fn start(binary: &Path, bootstrap: &[String], flags: &[&str]) -> Result<Self, ClusterError> {
        let home = tempfile::Builder::new().prefix("infernet-").tempdir().map_err(ClusterError::Home)?;
        let mut command = Command::new(binary);
        if binary.file_stem().is_none_or(|name| name != "infernet") {
            command.arg("node");
        }
        command.args(["--json", "--home"]).arg(home.path()).args(["start", "--no-mdns", "--network", NETWORK]);
        if !flags.contains(&"--api-listen") {
            command.arg("--no-api");
        }
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--chat-listen", "127.0.0.1:0"]);
        for address in bootstrap {
            command.args(["--bootstrap", address]);
        }
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(ClusterError::Home)?;
        match timeout(START, first_line(&mut child)).await {
            Ok(Some(status)) => Ok(Process { child, status, home }),
            Ok(None) => Err(ClusterError::Engine(format!("a node did not start: {}", last_words(&mut child).await))),
            Err(_) => Err(ClusterError::Timeout { what: "a node's start".into(), within: START }),
        }
    }

    /// Its process id; `None` once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGKILL, and the wait for its end.
    pub async fn kill(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill().await;
    }

    /// Sends a signal by name, such as `STOP`. Whether there was a process to take it.
    pub async fn signal(&self, name: &str) -> bool {
        let Some(pid) = self.pid() else { return false };
        let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().await;
        sent.is_ok_and(|status| status.success())
    }

    /// Processor time used so far; zero once it has ended.
    pub fn cpu_time(&self) -> Duration {
        self.pid().map(machine::cpu_time_of).unwrap_or_default()
    }

    /// Resident memory in kilobytes; `None` once it has ended.
    pub fn rss_kb(&self) -> Option<u64> {
        machine::rss_kb_of(self.pid()?)
    }
}

/// The status it prints when ready; stderr is drained in the background so that it never blocks.
async fn first_line(child: &mut Child) -> Option<StatusReport> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).await.ok()?;
    let status = serde_json::from_str(&line).ok()?;
    let mut stderr = child.stderr.take()?;
    tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
    Some(status)
}

async fn last_words(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = child.stderr.as_mut() {
        let _ = timeout(Duration::from_secs(1), stderr.read_to_string(&mut text)).await;
    }
    text.trim().lines().last().unwrap_or("it said nothing").to_owned()
}
