//! `infernet-testnet chaos`: a network of processes under a steady load, to which everything happens that happens to machines.
//!
//! ```text
//! buyer ──┐            ┌── worker ── engine
//! buyer ──┼─ hub   hub ┼── worker ── engine      every ── is a link that can be cut;
//! buyer ──┘            └── worker ── engine      chat goes straight from buyer to worker, over another one
//! ```
//!
//! Buyers and workers listen nowhere, so that the links are their only ways: each has one to each hub. Nodes are killed
//! (SIGKILL) and started again in the same home, frozen (SIGSTOP), cut off; the mesh is split; engines break off, refuse and
//! hang; disks are full or slow. Which, when and whom is decided by a seed, in `plan`. What the machine makes of it is not:
//! these are real processes, so a seed repeats the faults, not the outcome.
//!
//! Then all is mended, every buyer must get an answer, every node must stop when told to, and the books of all nodes are laid
//! side by side (`books`). It has come through when every job ended with an answer or an error that says why, nothing hung, and
//! no receipt that anybody was shown is missing anywhere.

pub(crate) mod books;
pub(crate) mod kept;
pub(crate) mod load;
pub(crate) mod plan;
pub(crate) mod stage;

pub use books::Balance;
pub use load::JobsReport;
pub use plan::Fault;

use crate::{bench::BenchError, machine::Machine};
use infernet_node::clock;
use load::Load;
use plan::{Cast, Strike, Who};
use serde::Serialize;
use stage::{Setup, Stage};
use std::{collections::BTreeMap, fmt, io::Write, path::PathBuf, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

pub(crate) const MODEL: &str = "tiny-chat";
const HUBS: usize = 2;
/// Clients of each buyer.
const CLIENTS: usize = 3;
/// How long the network may take to form, and to form again.
const FORM: Duration = Duration::from_secs(60);
/// Before a job that failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a node may take to stop: its grace of 20 s, and what settling and flushing take on a busy machine.
const STOP: Duration = Duration::from_secs(40);
/// How long the last jobs may take.
const LAST: Duration = Duration::from_secs(100);

/// What to do.
#[derive(Debug, Clone)]
pub struct ChaosOptions {
    /// For how long things go wrong.
    pub time: Duration,
    /// SIGKILLs. Half as many other faults come with them.
    pub kills: usize,
    /// Nodes that sell.
    pub workers: usize,
    /// Nodes that buy.
    pub buyers: usize,
    /// Which faults.
    pub seed: u64,
    /// A program whose `node` and `engine` subcommands are `infernet` and the engine.
    pub binary: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct ChaosResult {
    /// Where.
    pub machine: Machine,
    /// Which faults.
    pub seed: u64,
    /// Seconds.
    pub seconds: u64,
    /// What was done, and how often.
    pub faults: BTreeMap<Fault, u64>,
    /// Why no disk could be filled, if none could.
    pub no_small_disk: Option<String>,
    /// What became of the jobs.
    pub jobs: JobsReport,
    /// What the books come to.
    pub balance: Balance,
    /// What is wrong; empty if all is well.
    pub complaints: Vec<String>,
}

impl ChaosResult {
    /// Whether the network came through.
    pub fn is_well(&self) -> bool {
        self.complaints.is_empty()
    }
}

impl fmt::Display for ChaosResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let faults: Vec<_> = self.faults.iter().map(|(fault, n)| format!("{n} {fault:?}")).collect();
        writeln!(f, "chaos of {} s, seed {}: {}", self.seconds, self.seed, faults.join(", "))?;
        if let Some(why) = &self.no_small_disk {
            writeln!(f, "no disk was filled: {why}")?;
        }
        let jobs = &self.jobs;
        writeln!(
            f,
            "jobs: {} asked, {} answered ({} without a receipt that both signed), {} cut off and told so, {} refused with a reason, {} whose own node was gone",
            jobs.asked, jobs.answered, jobs.unsigned, jobs.cut, jobs.refused, jobs.node_gone
        )?;
        writeln!(f, "      {} short, {} broken off, {} hung", jobs.short, jobs.broken_off, jobs.hung)?;
        if let Some(latency) = &jobs.latency_ms {
            writeln!(f, "      ms  {latency}")?;
        }
        jobs.errors.iter().try_for_each(|(error, n)| writeln!(f, "      {n} × {error}"))?;
        let b = &self.balance;
        writeln!(
            f,
            "books: {} receipts settled, {} micro-USD owed, {} earned, {} in vouchers; {} unacknowledged, {} signatures did not arrive, {} lost",
            b.settled,
            b.debits_micro_usd,
            b.credits_micro_usd,
            b.vouchers_micro_usd,
            b.unacknowledged,
            b.signature_not_arrived,
            b.lost
        )?;
        match self.complaints.as_slice() {
            [] => write!(f, "well: every job ended, the books balance, nothing hung"),
            wrong => write!(f, "NOT well: {}", wrong.join("; ")),
        }
    }
}

/// Makes chaos, and tells every half minute on `notes` how it goes.
pub async fn run(options: ChaosOptions, notes: &mut (dyn Write + Send)) -> Result<ChaosResult, BenchError> {
    if options.workers == 0 || options.buyers == 0 {
        return Err(BenchError::Options("chaos needs at least one worker and one buyer".into()));
    }
    let machine = Machine::here();
    let mut cast = Cast { hubs: HUBS, workers: options.workers, buyers: options.buyers, small_disks: 1 };
    let mut stage = Stage::build(&options.binary, &mut cast, Setup::default()).await?;
    let homes = stage.homes();
    all_answer(&homes).await?;
    let (stop, stopped) = watch::channel(false);
    let (load, mut clients) = (Load::new(stage.outages.clone()), JoinSet::new());
    for (who, home) in homes.iter().filter(|(who, _)| matches!(who, Who::Buyer(_))) {
        for n in 0..CLIENTS {
            clients.spawn(load.clone().client(*who, home.clone(), n, stopped.clone()));
        }
    }
    let strikes = plan::plan(options.seed, options.time, options.kills, cast);
    play(&mut stage, &strikes, &load, notes).await?;
    let mut complaints = Vec::new();
    if let Err(error) = all_answer(&homes).await {
        complaints.push(format!("after everything was mended: {error}"));
    }
    let _ = stop.send(true);
    let last = async { while clients.join_next().await.is_some() {} };
    if timeout(LAST, last).await.is_err() {
        complaints.push(format!("a job did not end within {} s", LAST.as_secs()));
    }
    complaints.extend(stage.stop(STOP).await);
    let (jobs, promises) = load.report();
    let balance = books::balance(&kept::read_all(&homes)?, &promises);
    complaints.extend(balance.complaints.iter().cloned());
    complaints.extend(complaints_about(&jobs));
    let mut faults = BTreeMap::new();
    strikes.iter().for_each(|strike| *faults.entry(strike.fault).or_default() += 1);
    Ok(ChaosResult {
        machine,
        seed: options.seed,
        seconds: options.time.as_secs(),
        faults,
        no_small_disk: stage.no_small_disk.take(),
        jobs,
        balance,
        complaints,
    })
}

fn complaints_about(jobs: &JobsReport) -> Vec<String> {
    let mut wrong = Vec::new();
    if jobs.answered == 0 {
        wrong.push("no job was answered".into());
    }
    let bad = [(jobs.short, "ended short as if whole"), (jobs.broken_off, "broke off"), (jobs.hung, "hung")];
    wrong.extend(bad.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} jobs {what}")));
    wrong
}

/// Until every buyer has had an answer.
pub(crate) async fn all_answer(homes: &BTreeMap<Who, PathBuf>) -> Result<(), BenchError> {
    for (who, home) in homes.iter().filter(|(who, _)| matches!(who, Who::Buyer(_))) {
        let ends = clock::instant() + FORM;
        while let Err(error) = load::first(*who, home).await {
            if clock::instant() >= ends {
                let text = format!("no answer for {who:?} within {} s: {error}", FORM.as_secs());
                return Err(BenchError::Options(text));
            }
            sleep(AGAIN).await;
        }
    }
    Ok(())
}

/// Beginnings and ends in their order; of one moment, ends first.
pub(crate) async fn play(
    stage: &mut Stage,
    strikes: &[Strike],
    load: &Load,
    notes: &mut (dyn Write + Send),
) -> Result<(), BenchError> {
    let started = clock::deadline(Duration::ZERO);
    let mut acts: Vec<(Duration, bool, &Strike)> =
        strikes.iter().flat_map(|strike| [(strike.at, true, strike), (strike.ends(), false, strike)]).collect();
    acts.sort_by_key(|(at, begins, _)| (*at, *begins));
    let mut told = 0;
    for (at, begins, strike) in acts {
        sleep_until(started + at).await;
        if begins {
            stage.begin(strike).await?
        } else {
            stage.end(strike).await?
        }
        if at.as_secs() / 30 > told {
            told = at.as_secs() / 30;
            let (jobs, _) = load.report();
            writeln!(
                notes,
                "{} s: {} jobs asked, {} answered, {} refused, {} hung",
                at.as_secs(),
                jobs.asked,
                jobs.answered,
                jobs.refused,
                jobs.hung
            )?;
        }
    }
    Ok(())
}
