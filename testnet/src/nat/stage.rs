//! Who takes part: relays in the open, and for each kind of NAT a worker with its engine and a buyer.

use super::{
    NatError,
    ground::{Ground, Host},
    kind::NatKind,
};
use crate::cluster::{
    ClusterError, NETWORK,
    process::{Launch, Process, last_words, said_first},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long a process may take until it says that it is ready.
const START: Duration = Duration::from_secs(30);
/// Places that a relay has: these tests come from few addresses.
const PLACES: [&str; 4] = ["--reservations-per-prefix", "64", "--circuits-per-prefix", "64"];

/// What a relay says when it is ready.
#[derive(Deserialize)]
struct Ready {
    listen: Vec<String>,
}

/// A relay, which can be stopped and started again.
pub struct Relay {
    host: Host,
    binary: PathBuf,
    home: TempDir,
    child: Child,
    /// Where it is reached.
    pub addresses: Vec<String>,
}

impl Relay {
    async fn start(ground: &mut Ground, binary: &Path) -> Result<Self, NatError> {
        let host = ground.host(NatKind::Open).await?;
        let home = tempfile::Builder::new().prefix("infernet-relay-").tempdir().map_err(ClusterError::Home)?;
        let (child, addresses) = relay(&host, binary, home.path()).await?;
        Ok(Relay { host, binary: binary.to_owned(), home, child, addresses })
    }

    /// Its id, as it stands in addresses.
    pub fn id(&self) -> Option<&str> {
        self.addresses.first()?.rsplit_once("/p2p/").map(|(_, id)| id)
    }

    /// SIGKILL, and the wait for its end.
    pub async fn kill(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill().await;
    }

    /// Starts it again, with the same key at the same place.
    pub async fn again(&mut self) -> Result<(), NatError> {
        (self.child, self.addresses) = relay(&self.host, &self.binary, self.home.path()).await?;
        Ok(())
    }
}

async fn relay(host: &Host, binary: &Path, home: &Path) -> Result<(Child, Vec<String>), NatError> {
    let mut command = host.command(binary);
    command.args(["relay", "--json", "--home"]).arg(home).args(["start", "--network", NETWORK]);
    command.args(host.relay_flags()).args(PLACES);
    command.args(["--http-listen", "none", "--watch-listen", "none", "--mdns", "false"]);
    let (child, line) = ready(command, "a relay").await?;
    let Ready { listen } = serde_json::from_str(&line).map_err(|error| ClusterError::Engine(error.to_string()))?;
    host.runs(child.id()).await?;
    Ok((child, host.reached(listen)))
}

async fn ready(mut command: Command, what: &str) -> Result<(Child, String), NatError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(ClusterError::Home)?;
    match timeout(START, said_first(&mut child)).await {
        Ok(Some(line)) => Ok((child, line)),
        Ok(None) => Err(ClusterError::Engine(format!("{what} did not start: {}", last_words(&mut child).await)).into()),
        Err(_) => Err(ClusterError::Timeout { what: what.into(), within: START }.into()),
    }
}

/// A node, and where it is.
pub struct Member {
    /// What is before it.
    pub host: Host,
    /// The process.
    pub node: Process,
    // Ends with it.
    _engine: Option<Child>,
}

/// Everybody.
pub struct Stage {
    /// At least two.
    pub relays: Vec<Relay>,
    /// By what is before them; each sells a model of the name that [`model_behind`] tells.
    pub workers: BTreeMap<NatKind, Member>,
    /// By what is before them.
    pub buyers: BTreeMap<NatKind, Member>,
    binary: PathBuf,
    /// Where all are.
    pub ground: Ground,
}

/// The one model that the worker behind this kind sells.
pub fn model_behind(kind: NatKind) -> String {
    format!("behind-{}", kind.label())
}

impl Stage {
    /// Relays on `ground`, and nobody else yet. `binary` is this program.
    pub async fn new(ground: Ground, relays: usize, binary: &Path) -> Result<Self, NatError> {
        let mut stage =
            Stage { relays: Vec::new(), workers: BTreeMap::new(), buyers: BTreeMap::new(), binary: binary.to_owned(), ground };
        for _ in 0..relays {
            stage.relays.push(Relay::start(&mut stage.ground, binary).await?);
        }
        Ok(stage)
    }

    /// A worker behind `kind`, whose engine makes `tokens_per_second`.
    pub async fn add_worker(&mut self, kind: NatKind, tokens_per_second: f64) -> Result<(), NatError> {
        let engine = ["--tokens-per-second".to_owned(), tokens_per_second.to_string()];
        let worker = self.worker(kind, &model_behind(kind), &engine).await?;
        self.workers.insert(kind, worker);
        Ok(())
    }

    /// A worker behind `kind` that sells `model`, of an engine with these flags.
    pub async fn worker(&mut self, kind: NatKind, model: &str, engine: &[String]) -> Result<Member, NatError> {
        let host = self.ground.host(kind).await?;
        let mut command = host.command(&self.binary);
        command.arg("engine").args(engine);
        let (engine, url) = ready(command, "an engine").await?;
        let backend = format!("ollama={}", url.trim());
        let alias = format!("tiny-chat={model}");
        let flags = ["--backend", &backend, "--alias", &alias, "--slots", "4"].map(str::to_owned);
        let node = self.node(&host, flags.to_vec()).await?;
        Ok(Member { host, node, _engine: Some(engine) })
    }

    /// A buyer behind `kind`.
    pub async fn add_buyer(&mut self, kind: NatKind) -> Result<(), NatError> {
        let host = self.ground.host(kind).await?;
        let node = self.node(&host, vec!["--no-serve".to_owned()]).await?;
        self.buyers.insert(kind, Member { host, node, _engine: None });
        Ok(())
    }

    async fn node(&self, host: &Host, mut flags: Vec<String>) -> Result<Process, NatError> {
        flags.extend(host.node_flags());
        flags.extend(["--no-mdns", "--no-api", "--network", NETWORK].map(str::to_owned));
        for relay in &self.relays {
            flags.extend(relay.addresses.iter().flat_map(|address| ["--bootstrap".to_owned(), address.clone()]));
        }
        let node = Launch::within(host.place(), &self.binary, flags)?.start().await?;
        host.runs(node.pid()).await?;
        Ok(node)
    }
}
