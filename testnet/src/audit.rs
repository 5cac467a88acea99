//! `infernet-testnet audit`: many jobs on real processes while things break, then all books to the micro-USD.
//!
//! ```text
//! mesh buyer ──┐            ┌── worker ── engine
//! mesh buyer ──┼─ hub   hub ┼── worker ── engine
//! plane ───────┘            └──
//!   ├── web client     buyers' debits = workers' credits = the plane's volume; the plane's debits = its clients' drops
//!   └── web client
//! ```
//!
//! The stage, its faults and the load of mesh buyers are those of [`crate::chaos`]; the plane and its clients are added here
//! (`web`). When enough jobs were asked everybody is stopped, everything that was kept is read from the disks, and `ledger`
//! compares it: pure, and exact but for jobs whose buyer or plane was killed amid them, which are listed one by one with what they
//! may come to at most. Workers and buyers listen, so that the plane can ask them for the receipts that it did not hear while it
//! was away; by the end it must have all.
//!
//! With [`Settle::Evm`] mesh buyers pay on channels of a real chain and web clients deposit there, and nodes are killed amid that,
//! too (`cash`); what the chain has in the end must be the same once more (`chain`). The plane buys on credit all the same.

mod cash;
mod chain;
mod ledger;
mod web;

pub use chain::{Holding, OnChain};
pub use ledger::{Account, Audit, Loose, Pair};

use crate::{
    bench::BenchError,
    chaos::{
        self, Fault, JobsReport, kept,
        load::Load,
        plan::{self, Cast, Strike, Who},
        stage::{Setup, Stage},
    },
    machine::Machine,
};
use cash::Cash;
use infernet_node::clock;
use infernet_wire::id::NodeId;
use ledger::Hurt;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, io::Write, path::PathBuf, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use web::{Plane, Till, WebReport};

const HUBS: usize = 2;
const WORKERS: usize = 2;
const BUYERS: usize = 2;
/// Mesh clients of each buyer.
const CLIENTS: usize = 2;
/// How long everything may take to come to rest at the end: a dead instance's lease of 30 s, and a round after it.
const REST: Duration = Duration::from_secs(90);
/// How long the plane may take to read what it did not hear: it looks every 10 s for who has come, and again 30 s later.
const READ: Duration = Duration::from_secs(90);
/// How long it may take to stop, and the last job to end.
const STOP: Duration = Duration::from_secs(40);
const LAST: Duration = Duration::from_secs(100);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// Jobs that are asked for, of all buyers and clients.
    pub jobs: u64,
    /// For how long things go wrong and jobs are asked for, at most.
    pub time: Duration,
    /// Which faults.
    pub seed: u64,
    /// SIGKILLs of nodes; the plane is killed once more than none.
    pub kills: usize,
    /// Where mesh buyers pay and web clients deposit; on credit, and by grants, unless said.
    pub settle: Option<Settle>,
    /// A program whose `node`, `engine` and `plane` subcommands are those programs.
    pub binary: PathBuf,
}

/// A chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Settle {
    /// Channels on an EVM chain: a real anvil.
    Evm,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct AuditResult {
    /// Where.
    pub machine: Machine,
    /// Which faults.
    pub seed: u64,
    /// What was done, and how often; the plane's own kills are told apart.
    pub faults: BTreeMap<Fault, u64>,
    /// SIGKILLs of the plane.
    pub plane_kills: u64,
    /// Steps on a chain that were under way on nodes when they were killed.
    pub steps_met: usize,
    /// What became of the mesh buyers' jobs.
    pub mesh: JobsReport,
    /// And of the web clients'.
    pub web: WebReport,
    /// The books.
    pub audit: Audit,
    /// What is wrong; empty if all is well.
    pub complaints: Vec<String>,
}

impl AuditResult {
    /// Whether everything is accounted for.
    pub fn is_well(&self) -> bool {
        self.complaints.is_empty()
    }
}

impl fmt::Display for AuditResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let faults: Vec<_> = self.faults.iter().map(|(fault, n)| format!("{n} {fault:?}")).collect();
        writeln!(f, "audit, seed {}: {}, {} kills of the plane", self.seed, faults.join(", "), self.plane_kills)?;
        if !self.audit.holdings.is_empty() {
            writeln!(f, "kills met {} steps on the chain that were under way", self.steps_met)?;
        }
        writeln!(f, "mesh jobs: {} asked, {} answered, {} cut off", self.mesh.asked, self.mesh.answered, self.mesh.cut)?;
        writeln!(
            f,
            "web jobs:  {} asked, {} answered, {} refused, {} lost",
            self.web.asked, self.web.answered, self.web.refused, self.web.lost
        )?;
        write!(f, "{}", self.audit)?;
        for complaint in &self.complaints {
            writeln!(f, "WRONG: {complaint}")?;
        }
        writeln!(f, "{}", if self.is_well() { "every micro-USD is accounted for" } else { "the books do not balance" })
    }
}

/// Only what breaks jobs: who is killed, and streams that break.
fn strikes(options: &AuditOptions, cast: Cast) -> Vec<Strike> {
    let wanted = |strike: &Strike| match strike.fault {
        Fault::Kill => !matches!(strike.who, Who::Hub(_)),
        Fault::CutChat | Fault::CutEngine => true,
        _ => false,
    };
    let all = plan::plan(options.seed, options.time / 2, options.kills, cast);
    all.into_iter().filter(wanted).map(|strike| Strike { lasts: strike.lasts.min(Duration::from_secs(3)), ..strike }).collect()
}

/// What those that struck `amid` jobs and the plane's kills explain: who is killed before the first job or after the last promises nothing
/// more.
fn hurt(amid: &[Strike], plane_kills: u64) -> Hurt {
    let mut kills = BTreeMap::from([(Who::Buyer(BUYERS), plane_kills)]);
    amid.iter().filter(|strike| strike.fault == Fault::Kill).for_each(|strike| *kills.entry(strike.who).or_default() += 1);
    // As many as each has clients: a fault may meet all of them.
    Hurt { kills, broken: (amid.len() as u64 + plane_kills) * CLIENTS.max(web::CLIENTS) as u64 }
}

/// Everybody can be asked for receipts by whoever meets them.
fn setup(cash: Option<&Cash>, plane: &NodeId) -> Setup {
    let setup = Setup { is_open: true, ..Setup::default() };
    match cash {
        Some(cash) => Setup { config: cash.config(), worker: cash.worker(plane), on_chain: true, ..setup },
        None => setup,
    }
}

/// Everybody, and what was done to whom.
struct Scene {
    stage: Stage,
    homes: BTreeMap<Who, PathBuf>,
    plane: Plane,
    cash: Option<Cash>,
    struck: Vec<Strike>,
    /// Whether anybody is killed.
    kills: bool,
}

impl Scene {
    /// Until everybody has had an answer.
    async fn begin(options: &AuditOptions, cast: &mut Cast) -> Result<Self, BenchError> {
        let mut cash = match options.settle {
            Some(Settle::Evm) => Some(Cash::start(web::CLIENTS).await?),
            None => None,
        };
        let till = cash.as_ref().map(|cash| Till { flags: cash.cashier(), wallets: cash.wallets() });
        let mut plane = Plane::new(&options.binary, till).await?;
        let mut stage = Stage::build(&options.binary, cast, setup(cash.as_ref(), &plane.id()?)).await?;
        plane.start(stage.ways_in()?).await?;
        let (kills, mut struck) = (options.kills > 0, Vec::new());
        if let Some(cash) = &mut cash {
            cash.open(&mut stage, &plane.id()?, kills.then_some(&mut struck)).await?;
        }
        let homes = stage.homes();
        chaos::all_answer(&homes).await?;
        plane.answers().await?;
        Ok(Scene { stage, homes, plane, cash, struck, kills })
    }

    /// Jobs of all clients until `stop`, and top-ups.
    fn load(&self, stop: &watch::Receiver<bool>) -> (Load, web::Load, JoinSet<()>) {
        let (mesh, web, mut clients) = (Load::new(self.stage.outages.clone()), self.plane.load(), JoinSet::new());
        for (who, home) in self.homes.iter().filter(|(who, _)| matches!(who, Who::Buyer(_))) {
            for n in 0..CLIENTS {
                clients.spawn(mesh.clone().client(*who, home.clone(), n, stop.clone()));
            }
        }
        for n in 0..web::CLIENTS {
            clients.spawn(web.clone().client(n, stop.clone()));
        }
        if let Some(cash) = &self.cash {
            clients.spawn(cash.top_ups(stop.clone()));
        }
        (mesh, web, clients)
    }

    /// Lets things break; the plane, too, just when its clients have paid in once more.
    async fn play(
        &mut self,
        strikes: &[Strike],
        early: Duration,
        load: &Load,
        notes: &mut (dyn Write + Send),
    ) -> Result<(), BenchError> {
        let Scene { stage, plane, cash, kills, .. } = self;
        let kill = async {
            sleep(early).await;
            if let Some(cash) = cash {
                cash.more().await?;
            }
            if *kills { plane.again().await } else { Ok(()) }
        };
        let (played, killed) = tokio::join!(chaos::play(stage, strikes, load, notes), kill);
        self.struck.extend_from_slice(strikes);
        played.and(killed)
    }

    /// Settles, waits until all is known, and stops everybody. What is wrong with that.
    async fn end(&mut self, notes: &mut (dyn Write + Send)) -> Result<Vec<String>, BenchError> {
        let mut complaints = Vec::new();
        if let Some(cash) = &self.cash {
            writeln!(notes, "settling on the chain")?;
            let settled = cash.settle(&mut self.stage, self.kills.then_some(&mut self.struck)).await;
            complaints.extend(settled.err().map(|error| error.to_string()));
            complaints.extend(self.plane.credits(&cash.sent().await?, REST).await.err());
        }
        writeln!(notes, "waiting for the plane to come to rest")?;
        complaints.extend(self.plane.rests(REST).await.err());
        complaints.extend(self.plane.knows(kept::settled(&self.homes).await?.values().sum(), READ).await.err());
        complaints.extend(self.plane.stop(STOP).await);
        complaints.extend(self.stage.stop(STOP).await);
        Ok(complaints)
    }

    /// All books; `amid` are the strikes that met jobs.
    async fn audit(&self, amid: &[Strike]) -> Result<Audit, BenchError> {
        let mut books = kept::read_all(&self.homes)?;
        books.insert(Who::Buyer(BUYERS), kept::read_one(Who::Buyer(BUYERS), &self.plane.buyer())?);
        let chain = match &self.cash {
            Some(cash) => Some(cash.books().await?),
            None => None,
        };
        let hurt = hurt(amid, self.kills.into());
        Ok(ledger::audit(&books, &self.plane.books().await?, chain.as_ref(), &hurt))
    }
}

/// Runs jobs, lets things break, and audits. Tells on `notes` how it goes.
pub async fn run(options: AuditOptions, notes: &mut (dyn Write + Send)) -> Result<AuditResult, BenchError> {
    let machine = Machine::here();
    let mut cast = Cast { hubs: HUBS, workers: WORKERS, buyers: BUYERS, small_disks: 0 };
    let mut scene = Scene::begin(&options, &mut cast).await?;
    writeln!(notes, "everybody answers; {} jobs, at most {} s", options.jobs, options.time.as_secs())?;
    let (stop, stopped) = watch::channel(false);
    let (load, web, mut clients) = scene.load(&stopped);
    let (strikes, ends) = (strikes(&options, cast), clock::deadline(options.time));
    scene.play(&strikes, options.time / 10, &load, notes).await?;
    while load.report().0.asked + web.report().asked < options.jobs && clock::deadline(Duration::ZERO) < ends {
        sleep(LOOK).await;
    }
    let _ = stop.send(true);
    let mut complaints = Vec::new();
    if timeout(LAST, async { while clients.join_next().await.is_some() {} }).await.is_err() {
        complaints.push(format!("a job did not end within {} s", LAST.as_secs()));
    }
    complaints.extend(scene.end(notes).await?);
    let audit = scene.audit(&strikes).await?;
    complaints.extend(audit.complaints.iter().cloned());
    let mut faults = BTreeMap::new();
    scene.struck.iter().for_each(|strike| *faults.entry(strike.fault).or_default() += 1);
    let (mesh, web) = (load.report().0, web.report());
    if mesh.answered == 0 || web.answered == 0 {
        complaints.push("nothing was bought: there is nothing to audit".into());
    }
    let (seed, plane_kills, steps_met) = (options.seed, scene.kills.into(), scene.stage.steps_met);
    Ok(AuditResult { machine, seed, faults, plane_kills, steps_met, mesh, web, audit, complaints })
}
