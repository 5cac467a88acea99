//! `infernet-testnet flood`: a worker and a buyer with steady honest jobs, while everybody else attacks them.
//!
//! Worker and buyer are processes, so their memory is theirs alone; the attackers are in this process and speak real libp2p and
//! real QUIC:
//!
//! | attack | who |
//! |---|---|
//! | gossip far above every quota, from many keys: offers, accepts and ads that are fresh, expired, foreign, forged or noise | `megaphone` |
//! | bids that must not count | `liar` |
//! | dials, handshakes left half-way, streams that never say what they want, noise on the chat port | `dialler` |
//! | long answers that nobody reads | `dialler` |
//! | TCP connections to mesh and OpenAI endpoint that say one byte at a time | `squatter` |
//!
//! The flood has come through when both live, their memory has stopped growing, and no honest job failed or hung. What that
//! means in numbers is in `verdict`. Attackers and victims share this machine: a rate at which the attackers alone use it up
//! measures the machine, so the rates are arguments, and the load is printed.

mod dialler;
pub(crate) mod dice;
mod honest;
mod liar;
mod megaphone;
mod squatter;
mod tally;
mod verdict;

pub use honest::JobsReport;
pub use verdict::Memory;

use crate::{
    bench::{BenchError, engine::EngineProcess},
    cluster::{Sells, eventually, process::Process},
    machine::Machine,
};
use dialler::Victim;
use dice::Dice;
use honest::Jobs;
use infernet_node::{clock, control::client::Client};
use libp2p::{Multiaddr, multiaddr::Protocol};
use megaphone::Manner;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tally::Tally;
use tokio::{task::JoinSet, time::sleep};

const MODEL: &str = "tiny-chat";
/// Slots of the worker: enough that slow readers, who pay for what they don't read, leave some.
const SLOTS: u16 = 64;
/// Engine's speed.
const TOKENS_PER_SECOND: f64 = 400.0;
/// Gossip peers that shout.
const MEGAPHONES: u32 = 16;
/// Workers that lie.
const LIARS: u64 = 2;
/// Buyers that don't read.
const SLOW_READERS: u64 = 3;
/// How long the network may take to form.
const FORM: Duration = Duration::from_secs(60);
/// Memory is looked at this often.
const LOOK: Duration = Duration::from_millis(500);
/// Jobs before the attack, to compare with.
const CALM: Duration = Duration::from_secs(5);
/// After the attack, in which victims must still do honest jobs.
const AFTER: Duration = Duration::from_secs(3);

/// What to do.
#[derive(Debug, Clone)]
pub struct FloodOptions {
    /// For how long to attack.
    pub attack: Duration,
    /// Which attack: the same seed makes the same choices in the same order.
    pub seed: u64,
    /// Gossip messages a second, of all attackers together.
    pub gossip_per_second: u32,
    /// Dials, TCP connections and noise datagrams a second, each.
    pub dials_per_second: u32,
    /// A program whose `node` and `engine` subcommands are `infernet` and the engine.
    pub binary: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct FloodResult {
    /// Where.
    pub machine: Machine,
    /// Which attack.
    pub seed: u64,
    /// Seconds of attack.
    pub seconds: u64,
    /// What the attackers did.
    pub attacks: BTreeMap<&'static str, u64>,
    /// Honest jobs before the attack.
    pub calm: JobsReport,
    /// Honest jobs under attack.
    pub jobs: JobsReport,
    /// The worker's memory.
    pub worker: Memory,
    /// The buyer's.
    pub buyer: Memory,
    /// What the worker counted meanwhile.
    pub worker_counters: BTreeMap<String, u64>,
    /// What the buyer counted meanwhile.
    pub buyer_counters: BTreeMap<String, u64>,
    /// What is wrong; empty if all is well.
    pub complaints: Vec<String>,
}

impl FloodResult {
    /// Whether the victims came through.
    pub fn is_well(&self) -> bool {
        self.complaints.is_empty()
    }
}

impl fmt::Display for FloodResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: Vec<(String, u64)>| {
            counts.into_iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
        };
        let named = |counts: &BTreeMap<String, u64>| list(counts.iter().map(|(name, n)| (name.clone(), *n)).collect());
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "flood of {} s, seed {}", self.seconds, self.seed)?;
        writeln!(f, "attacks: {}", list(self.attacks.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()))?;
        writeln!(f, "worker counted: {}", named(&self.worker_counters))?;
        writeln!(f, "buyer counted: {}", named(&self.buyer_counters))?;
        for (name, memory) in [("worker", &self.worker), ("buyer", &self.buyer)] {
            let mb = |kb: Option<&u64>| kb.map_or(f64::NAN, |kb| *kb as f64 / 1024.0);
            let (first, most, last) = (mb(memory.kb.first()), mb(memory.kb.iter().max()), mb(memory.kb.last()));
            writeln!(f, "{name} memory: {first:.1} MB at first, {most:.1} MB at most, {last:.1} MB at last")?;
        }
        writeln!(f, "honest jobs before  ms  {}", self.calm.latency_ms)?;
        writeln!(f, "honest jobs         ms  {}  failed {} hung {}", self.jobs.latency_ms, self.jobs.failed, self.jobs.hung)?;
        match self.complaints.as_slice() {
            [] => write!(f, "well: memory flat, every honest job done"),
            wrong => write!(f, "NOT well: {}", wrong.join("; ")),
        }
    }
}

/// Attacks, and tells every minute on `notes` how it goes.
pub async fn run(options: FloodOptions, notes: &mut (dyn Write + Send)) -> Result<FloodResult, BenchError> {
    let machine = Machine::here();
    let engine = EngineProcess::metronome(&options.binary, TOKENS_PER_SECOND).await?;
    let worker = Process::worker(&options.binary, &Sells::new(engine.url(), 1_000, 1_000, SLOTS), &[], &[]).await?;
    let buyer = Process::buyer(&options.binary, &worker.status.listen, &["--api-listen", "127.0.0.1:0"]).await?;
    eventually("the first honest job", FORM, || async { honest::first(&buyer, MODEL).await.is_ok() }).await?;
    let jobs = Jobs::default();
    let mut honest = JoinSet::new();
    honest.spawn(jobs.clone().run(buyer.home.path().to_owned(), MODEL.into()));
    sleep(CALM).await;
    let calm = jobs.take();
    let before = (counters(&worker).await, counters(&buyer).await);
    let (tally, mut attackers) = (Arc::new(Tally::default()), JoinSet::new());
    attack(&options, &worker, &buyer, &tally, &mut attackers);
    let mut watch = Watch { worker: Memory::default(), buyer: Memory::default(), total: Vec::new() };
    watch.for_a(options.attack, (&worker, &buyer), &jobs, notes).await?;
    attackers.shutdown().await;
    sleep(AFTER).await;
    honest.shutdown().await;
    watch.total.push(jobs.take());
    let after = (counters(&worker).await, counters(&buyer).await);
    let jobs = merged(watch.total);
    let memory = [("worker", &watch.worker), ("buyer", &watch.buyer)];
    let complaints = verdict::complaints(&memory, &jobs, worker.rss_kb().is_some() && buyer.rss_kb().is_some());
    Ok(FloodResult {
        machine,
        seed: options.seed,
        seconds: options.attack.as_secs(),
        attacks: tally.now(),
        calm,
        jobs,
        worker_counters: grown(before.0, after.0),
        buyer_counters: grown(before.1, after.1),
        worker: watch.worker,
        buyer: watch.buyer,
        complaints,
    })
}

/// Starts all attackers.
fn attack(options: &FloodOptions, worker: &Process, buyer: &Process, tally: &Arc<Tally>, attackers: &mut JoinSet<()>) {
    let mesh = |process: &Process| -> Vec<Multiaddr> { process.status.listen.iter().filter_map(|a| a.parse().ok()).collect() };
    let everybody = [mesh(worker), mesh(buyer)].concat();
    let victims: Vec<Victim> = [worker, buyer].iter().filter_map(|process| victim(process)).collect();
    let mut uses = 0;
    let mut dice = || {
        uses += 1;
        Dice::new(options.seed, uses)
    };
    let pause = Duration::from_secs(1) / options.dials_per_second.max(1);
    for n in 0..MEGAPHONES {
        let (rate, manner) = (options.gossip_per_second / MEGAPHONES, if n % 4 == 0 { Manner::Crude } else { Manner::Sly });
        attackers.spawn(megaphone::run(everybody.clone(), manner, rate, dice(), tally.clone()));
    }
    for _ in 0..LIARS {
        attackers.spawn(liar::run(everybody.clone(), dice(), tally.clone()));
    }
    for victim in &victims {
        attackers.spawn(dialler::dial(*victim, pause, dice(), tally.clone()));
        attackers.spawn(dialler::noise(*victim, pause, dice(), tally.clone()));
    }
    for _ in 0..SLOW_READERS {
        if let Some(victim) = victims.first() {
            attackers.spawn(dialler::slow_reader(mesh(worker), *victim, MODEL.into(), tally.clone()));
        }
    }
    for address in everybody.iter().filter_map(tcp_of) {
        attackers.spawn(squatter::run(address, pause, b"\x13/multistream/1.0.0\n", tally.clone()));
    }
    if let Some(api) = buyer.status.api.as_deref().and_then(socket_of) {
        attackers.spawn(squatter::run(api, pause, b"POST /v1/chat/completions HTTP/1.1\r\nx: ", tally.clone()));
    }
}

fn victim(process: &Process) -> Option<Victim> {
    Some(Victim { id: process.status.id, chat: process.status.chat.parse().ok()? })
}

/// Of `http://127.0.0.1:46339/v1`.
fn socket_of(url: &str) -> Option<SocketAddr> {
    url.strip_prefix("http://")?.split('/').next()?.parse().ok()
}

fn tcp_of(address: &Multiaddr) -> Option<SocketAddr> {
    let port = address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None })?;
    Some((Ipv4Addr::LOCALHOST, port).into())
}

/// What is seen while the attack goes on.
struct Watch {
    worker: Memory,
    buyer: Memory,
    total: Vec<JobsReport>,
}

impl Watch {
    async fn for_a(
        &mut self,
        time: Duration,
        (worker, buyer): (&Process, &Process),
        jobs: &Jobs,
        notes: &mut (dyn Write + Send),
    ) -> Result<(), BenchError> {
        let (started, mut minutes) = (clock::instant(), 0);
        while started.elapsed() < time {
            sleep(LOOK).await;
            self.worker.kb.extend(worker.rss_kb());
            self.buyer.kb.extend(buyer.rss_kb());
            if started.elapsed().as_secs() / 60 > minutes {
                minutes += 1;
                let report = jobs.take();
                let mb = |memory: &Memory| memory.kb.last().map_or(0, |kb| kb / 1024);
                let (worker, buyer, load) = (mb(&self.worker), mb(&self.buyer), Machine::here().load_1m);
                let (p50, p99, n) = (report.latency_ms.p50, report.latency_ms.p99, report.latency_ms.n);
                writeln!(
                    notes,
                    "minute {minutes}: worker {worker} MB, buyer {buyer} MB, {n} honest jobs p50 {p50:.0} ms p99 {p99:.0} ms, {} failed, {} hung, load {load:.1}",
                    report.failed, report.hung
                )?;
                self.total.push(report);
            }
        }
        Ok(())
    }
}

/// All reports as one. Percentiles of percentiles would be wrong, so the latency is that of the last report with samples, with
/// the worst p99 and maximum of all.
fn merged(reports: Vec<JobsReport>) -> JobsReport {
    reports
        .into_iter()
        .reduce(|mut all, next| {
            let (a, b) = (all.latency_ms, next.latency_ms);
            let p50 = if b.n > a.n { b.p50 } else { a.p50 };
            let (p90, p99, max) = (a.p90.max(b.p90), a.p99.max(b.p99), a.max.max(b.max));
            all.latency_ms = crate::machine::Distribution { n: a.n + b.n, p50, p90, p99, max };
            all.failed += next.failed;
            all.hung += next.hung;
            for (error, n) in next.errors {
                *all.errors.entry(error).or_default() += n;
            }
            all
        })
        .unwrap_or_else(|| Jobs::default().take())
}

async fn counters(process: &Process) -> BTreeMap<String, u64> {
    match Client::connect(process.home.path()) {
        Some(node) => node.get("counters").await.unwrap_or_default(),
        None => BTreeMap::new(),
    }
}

/// What has grown.
fn grown(before: BTreeMap<String, u64>, after: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let grown = |(name, n): (String, u64)| {
        let more = n.saturating_sub(before.get(&name).copied().unwrap_or_default());
        (more > 0).then_some((name, more))
    };
    after.into_iter().filter_map(grown).collect()
}
