//! `infernet-testnet up`: a network of real processes that stays, to look at and to break by hand.
//!
//! The first node buys and has an OpenAI endpoint, the others sell the tiny model at rising prices; a plane follows. Each has a home of its own,
//! so every `infernet` command works on it with `--home`; kill one with `kill -9` and see what the others make of it.

use crate::{
    bench::BenchError,
    cluster::{
        Sells, eventually,
        process::{Launch, Process},
    },
    engine::{EngineOptions, EngineServer},
    plane::Beside,
    serve::stay,
};
use infernet_node::control::{client::Client, schema::ModelReport};
use serde::Serialize;
use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

/// What the cheapest worker charges, in micro-USD per million tokens; each further one that much more.
const PRICE: u64 = 100_000;
/// Jobs at once of each worker.
const SLOTS: u16 = 4;
/// Nodes at most: each is a process of about 30 MB.
const MAX_NODES: usize = 64;
/// How long the network may take to form.
const FORM: Duration = Duration::from_secs(60);

/// One node.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `buyer`, `worker` or `plane`.
    pub role: &'static str,
    /// Its process.
    pub pid: u32,
    /// The node.
    pub id: String,
    /// For `infernet --home`.
    pub home: PathBuf,
    /// Of the buyer's OpenAI endpoint, or the plane's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// A key of the plane, with ten dollars to spend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Starts `nodes` processes of `binary`, tells who they are, and stays until stdin is closed or a signal comes.
pub async fn run(nodes: usize, binary: &Path, json: bool, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    if !(2..=MAX_NODES).contains(&nodes) {
        return Err(BenchError::Options(format!("--nodes {nodes}: from 2, a buyer and a worker, to {MAX_NODES}")));
    }
    let engine = EngineServer::start(EngineOptions::default()).await?;
    let launch = Launch::new(binary, &[], &["--no-serve", "--api-listen", "127.0.0.1:0"])?.listening();
    let buyer = launch.start().await?;
    let bootstrap = buyer.status.listen.clone();
    let mut workers = Vec::new();
    for n in 1..nodes {
        let price = PRICE * n as u64;
        workers.push(Process::worker(binary, &Sells::new(engine.url(), price, price, SLOTS), &bootstrap, &[]).await?);
    }
    eventually("hearing of every worker", FORM, || async { sellers(buyer.home.path()).await >= workers.len() }).await?;
    let plane = Beside::start(bootstrap.iter().filter_map(|address| address.parse().ok()).collect()).await?;
    let rows = std::iter::once(row("buyer", &buyer)).chain(workers.iter().map(|w| row("worker", w)));
    let rows: Vec<Row> = rows.chain([plane_row(&plane)]).collect();
    tell(&rows, json, out)?;
    stay().await?;
    plane.stop().await;
    Ok(())
}

/// Workers that the node of `home` has heard of.
async fn sellers(home: &Path) -> usize {
    let models: Vec<ModelReport> = match Client::connect(home) {
        Some(node) => node.get("models").await.unwrap_or_default(),
        None => Vec::new(),
    };
    models.iter().map(|model| model.workers).max().unwrap_or(0)
}

fn row(role: &'static str, process: &Process) -> Row {
    let status = &process.status;
    let (pid, home) = (process.pid().unwrap_or_default(), process.home.path().to_owned());
    Row { role, pid, id: status.id.to_string(), home, api: status.api.clone(), key: None }
}

fn plane_row(plane: &Beside) -> Row {
    let id = plane.running.follower().net().id().to_string();
    Row {
        role: "plane",
        pid: std::process::id(),
        id,
        home: plane.home().to_owned(),
        api: Some(plane.url()),
        key: Some(plane.key().into()),
    }
}

fn tell(rows: &[Row], json: bool, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    if json {
        let text = serde_json::to_string(rows).map_err(|error| BenchError::Options(error.to_string()))?;
        writeln!(out, "{text}")?;
        return Ok(out.flush()?);
    }
    for Row { role, pid, home, id, api, key } in rows {
        if let (Some(url), Some(key)) = (api, key) {
            writeln!(out, "plane   {url}  in this process; nothing needs it")?;
            writeln!(out, "        sign in there with the API key {key}, which has $10 to spend")?;
            continue;
        }
        writeln!(out, "{role:<6}  pid {pid:<8} --home {}  {id}", home.display())?;
        if let Some(api) = api {
            writeln!(out, "        OpenAI endpoint {api}, no key needed")?;
        }
    }
    writeln!(out, "any `infernet` command works with a --home; kill -9 a pid and look on; Ctrl-C stops all")?;
    Ok(out.flush()?)
}
