//! Nodes as processes: this very binary, started again as `infernet-testnet node …`, which is `infernet …`.

use super::{CREDIT, ClusterError, NETWORK, Sells, small_disk::SmallDisk};
use crate::{machine, nat::namespace::Namespace};
use infernet_node::control::schema::StatusReport;
use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// How long a process may take until it listens.
const START: Duration = Duration::from_secs(30);

/// How to start a node, and start it again.
#[derive(Clone)]
pub struct Launch {
    binary: PathBuf,
    flags: Vec<String>,
    /// Its home, removed with the last of its processes.
    pub home: Arc<TempDir>,
    disk: Option<Arc<SmallDisk>>,
    place: Option<Arc<Namespace>>,
}

impl Launch {
    /// A node with these flags alone, in a network of its own if there is one.
    pub fn within(place: Option<Arc<Namespace>>, binary: &Path, flags: Vec<String>) -> Result<Self, ClusterError> {
        Ok(Launch { binary: binary.to_owned(), flags, home: Arc::new(new_home()?), disk: None, place })
    }

    /// A node with a fresh home. `binary` is `infernet`, or another program whose `node` subcommand is; `flags` are those of
    /// `infernet start`.
    pub fn new(binary: &Path, bootstrap: &[String], flags: &[&str]) -> Result<Self, ClusterError> {
        let mut all = vec!["--no-mdns", "--network", NETWORK, "--chat-listen", "127.0.0.1:0"];
        if !flags.contains(&"--api-listen") {
            all.push("--no-api");
        }
        bootstrap.iter().for_each(|address| all.extend(["--bootstrap", address]));
        let flags = all.iter().chain(flags).map(ToString::to_string).collect();
        Ok(Launch { binary: binary.to_owned(), flags, home: Arc::new(new_home()?), disk: None, place: None })
    }

    /// It listens on loopback.
    #[must_use]
    pub fn listening(mut self) -> Self {
        self.flags.extend(["--listen", "/ip4/127.0.0.1/tcp/0"].map(str::to_owned));
        self
    }

    /// It listens nowhere: what it reaches, and what reaches it, goes by its bootstrap addresses.
    pub fn dialling_only(self) -> Result<Self, ClusterError> {
        self.configured("listen = []\n")
    }

    /// This is all of its config.toml.
    pub fn configured(self, text: &str) -> Result<Self, ClusterError> {
        std::fs::write(self.home().join("config.toml"), text).map_err(ClusterError::Home)?;
        Ok(self)
    }

    /// Its home is on a disk of its own.
    pub async fn on_small_disk(mut self, megabytes: u32) -> Result<Self, ClusterError> {
        self.disk = Some(Arc::new(SmallDisk::mount(self.home.path(), megabytes).await?));
        Ok(self)
    }

    /// The disk of its own, if it has one.
    pub fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_deref()
    }

    /// Its home as this process sees it.
    pub fn home(&self) -> PathBuf {
        self.disk.as_ref().map_or_else(|| self.home.path().to_owned(), |disk| disk.seen_from_outside())
    }

    /// Starts it, and waits until it listens.
    pub async fn start(&self) -> Result<Process, ClusterError> {
        let mut command = match (&self.disk, &self.place) {
            (Some(disk), _) => disk.command(&self.binary),
            (None, Some(place)) => place.command(&self.binary),
            (None, None) => Command::new(&self.binary),
        };
        if self.binary.file_stem().is_none_or(|name| name != "infernet") {
            command.arg("node");
        }
        command.args(["--json", "--home"]).arg(self.home.path()).arg("start").args(&self.flags);
        // A flag of its own counts more.
        command.env("INFERNET_FREE_CREDIT", CREDIT.0.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(ClusterError::Home)?;
        match timeout(START, first_line(&mut child)).await {
            Ok(Some(status)) => Ok(Process { child, status, home: self.home.clone() }),
            Ok(None) => Err(ClusterError::Engine(format!("a node did not start: {}", last_words(&mut child).await))),
            Err(_) => Err(ClusterError::Timeout { what: "a node's start".into(), within: START }),
        }
    }
}

/// A running `infernet start`. Dropping it kills it.
pub struct Process {
    child: Child,
    /// What it said when it was ready.
    pub status: StatusReport,
    /// Its home, removed with it.
    pub home: Arc<TempDir>,
}

impl Process {
    /// Starts a worker that sells `sells` and starts from `bootstrap`. `binary` and `extra` are as in [`Launch::new`].
    pub async fn worker(binary: &Path, sells: &Sells, bootstrap: &[String], extra: &[&str]) -> Result<Self, ClusterError> {
        let sold = sells.flags();
        let flags: Vec<&str> = sold.iter().map(String::as_str).chain(extra.iter().copied()).collect();
        Launch::new(binary, bootstrap, &flags)?.listening().start().await
    }

    /// Starts a node that only buys.
    pub async fn buyer(binary: &Path, bootstrap: &[String], extra: &[&str]) -> Result<Self, ClusterError> {
        Launch::new(binary, bootstrap, &[&["--no-serve"], extra].concat())?.listening().start().await
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

    /// SIGTERM, and the wait for its end; SIGKILL and `None` if it does not end `within`.
    pub async fn stop(&mut self, within: Duration) -> Option<ExitStatus> {
        self.signal("TERM").await;
        let ended = timeout(within, self.child.wait()).await;
        if ended.is_err() {
            self.kill().await;
        }
        ended.ok()?.ok()
    }

    /// Sends a signal by name, such as `STOP`. Whether there was a process to take it.
    pub async fn signal(&self, name: &str) -> bool {
        match self.pid() {
            Some(pid) => signal(pid, name).await,
            None => false,
        }
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

fn new_home() -> Result<TempDir, ClusterError> {
    tempfile::Builder::new().prefix("infernet-").tempdir().map_err(ClusterError::Home)
}

/// Sends a signal by name to a process that was started here. Whether there was a process to take it.
pub(crate) async fn signal(pid: u32, name: &str) -> bool {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().await;
    sent.is_ok_and(|status| status.success())
}

/// The status it prints when ready.
async fn first_line(child: &mut Child) -> Option<StatusReport> {
    let line = said_first(child).await?;
    serde_json::from_str(&line).ok()
}

/// The first line of its output; stderr is drained in the background so that it never blocks.
pub(crate) async fn said_first(child: &mut Child) -> Option<String> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).await.ok().filter(|bytes| *bytes > 0)?;
    let mut stderr = child.stderr.take()?;
    tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
    Some(line)
}

pub(crate) async fn last_words(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = child.stderr.as_mut() {
        let _ = timeout(Duration::from_secs(1), stderr.read_to_string(&mut text)).await;
    }
    text.trim().lines().last().unwrap_or("it said nothing").to_owned()
}
