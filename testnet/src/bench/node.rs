//! `bench node`: what a node costs that does nothing: its binary, its memory, and the time from its start to its first bid.
//!
//! The first bid is measured from outside: for each start there is a buyer that waits for nobody else, and offers at once when
//! the new worker has joined. Memory is that of the same processes, and of nodes that only buy, when they have been idle for
//! half a minute.

use super::{BenchError, engine::EngineProcess, program};
use crate::{
    cluster::{Sells, process::Process},
    machine::{Distribution, Machine},
    stranger::Stranger,
};
use infernet_node::{clock, report::millis};
use infernet_wire::bid::Answer;
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

const MODEL: &str = "tiny-chat";
/// Between two offers, so that the first bid is seen this late at most. The burst of offers that a buyer may publish at once
/// lasts for half a second.
const OFFERS: Duration = Duration::from_millis(25);
/// For a start, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// After which a node counts as idle.
const IDLE: Duration = Duration::from_secs(30);
/// Starts at most: all of them run at once in the end.
const MAX_STARTS: usize = 32;

/// What to measure.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// How often to start a worker, and a node that only buys.
    pub starts: usize,
    /// The `infernet` program.
    pub binary: PathBuf,
    /// A program whose `engine` subcommand is the engine.
    pub engine: PathBuf,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct NodeResult {
    /// Where.
    pub machine: Machine,
    /// What was measured.
    pub binary: PathBuf,
    /// Its size, in megabytes of 10⁶ bytes.
    pub binary_mb: f64,
    /// From the start of the process to both listeners bound, in milliseconds.
    pub listening_ms: Distribution,
    /// From the start of the process to its first bid, at the buyer, in milliseconds.
    pub first_bid_ms: Distribution,
    /// Resident memory of idle workers, in megabytes.
    pub worker_mb: Distribution,
    /// Resident memory of idle nodes that only buy, in megabytes.
    pub buyer_mb: Distribution,
}

impl fmt::Display for NodeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "binary                MB  {:.1}  {}", self.binary_mb, self.binary.display())?;
        writeln!(f, "start → listening     ms  {}", self.listening_ms)?;
        writeln!(f, "start → first bid     ms  {}", self.first_bid_ms)?;
        writeln!(f, "idle worker           MB  {}", self.worker_mb)?;
        write!(f, "idle, only buying     MB  {}", self.buyer_mb)
    }
}

/// Measures.
pub async fn run(options: NodeOptions) -> Result<NodeResult, BenchError> {
    if !(1..=MAX_STARTS).contains(&options.starts) {
        return Err(BenchError::Options(format!("use 1 to {MAX_STARTS} --starts")));
    }
    let machine = Machine::here();
    let binary_mb = program::size(&options.binary)? as f64 / 1e6;
    let engine = EngineProcess::metronome(&options.engine, 100.0).await?;
    let (mut workers, mut buyers, mut listening, mut first_bid) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.starts {
        let started = start(&options.binary, engine.url()).await?;
        listening.push(started.listening);
        first_bid.push(started.first_bid);
        buyers.push(Process::buyer(&options.binary, &started.worker.status.listen, &[]).await?);
        workers.push(started.worker);
    }
    sleep(IDLE).await;
    let memory = |nodes: &[Process]| {
        Distribution::of(nodes.iter().filter_map(Process::rss_kb).map(|kb| kb as f64 * 1.024 / 1e3).collect())
    };
    let (worker_mb, buyer_mb) = (memory(&workers), memory(&buyers));
    for mut node in workers.into_iter().chain(buyers) {
        node.kill().await;
    }
    let (listening_ms, first_bid_ms) = (Distribution::of(listening), Distribution::of(first_bid));
    Ok(NodeResult { machine, binary: options.binary, binary_mb, listening_ms, first_bid_ms, worker_mb, buyer_mb })
}

struct Started {
    worker: Process,
    listening: f64,
    first_bid: f64,
}

async fn start(binary: &Path, engine: &str) -> Result<Started, BenchError> {
    let buyer = Stranger::join(Vec::new()).await.map_err(|e| BenchError::Options(e.to_string()))?;
    let bootstrap: Vec<String> = buyer.net().listen_addresses().await.iter().map(ToString::to_string).collect();
    let started = clock::instant();
    let sells = Sells::new(engine, 1, 1, 2);
    let listening = async {
        let worker = Process::worker(binary, &sells, &bootstrap, &[]).await;
        (worker, millis(started.elapsed()))
    };
    let ((worker, listening), bid) = tokio::join!(listening, timeout(START, first_bid(buyer, started)));
    let first_bid = bid.ok().flatten();
    let first_bid = first_bid.ok_or_else(|| BenchError::Options(format!("no bid within {} s", START.as_secs())))?;
    Ok(Started { worker: worker?, listening, first_bid: millis(first_bid) })
}

/// Offers, again and again, until there is a bid.
async fn first_bid(mut buyer: Stranger, started: Instant) -> Option<Duration> {
    buyer.net().wait_connected(clock::now().after(START.as_millis() as u64)).await;
    loop {
        let asked = buyer.ask(MODEL, 16)?;
        buyer.publish(&asked.offer).await;
        match timeout(OFFERS, buyer.answer()).await {
            Ok(Some(Answer::Bid(_))) => return Some(started.elapsed()),
            Ok(None) => return None,
            // Refused, as while the engine's models are not known yet, or nothing heard.
            Ok(Some(Answer::NoBid(_))) | Err(_) => {}
        }
    }
}
