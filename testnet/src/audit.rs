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
//! may come to at most.
//!
//! Chain balances belong into [`ledger::Pair`], beside the vouchers, as soon as nodes pay by channel.

mod ledger;
mod web;

pub use ledger::{Account, Audit, Loose, Pair};

use crate::{
    bench::BenchError,
    chaos::{self, Fault, JobsReport, load::Load, plan, plan::Cast, plan::Strike, plan::Who, stage::Stage},
    machine::Machine,
};
use infernet_node::clock;
use ledger::Hurt;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, io::Write, path::PathBuf, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use web::{Plane, WebReport};

const HUBS: usize = 2;
const WORKERS: usize = 2;
const BUYERS: usize = 2;
/// Mesh clients of each buyer.
const CLIENTS: usize = 2;
/// How long everything may take to come to rest at the end: a dead instance's lease of 30 s, and a round after it.
const REST: Duration = Duration::from_secs(90);
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
    /// A program whose `node`, `engine` and `plane` subcommands are those programs.
    pub binary: PathBuf,
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

fn hurt(strikes: &[Strike], plane_kills: u64) -> Hurt {
    let mut kills = BTreeMap::from([(Who::Buyer(BUYERS), plane_kills)]);
    strikes.iter().filter(|strike| strike.fault == Fault::Kill).for_each(|strike| *kills.entry(strike.who).or_default() += 1);
    // As many as each has clients: a fault may meet all of them.
    Hurt { kills, broken: (strikes.len() as u64 + plane_kills) * CLIENTS.max(web::CLIENTS) as u64 }
}

/// Runs jobs, lets things break, and audits. Tells on `notes` how it goes.
pub async fn run(options: AuditOptions, notes: &mut (dyn Write + Send)) -> Result<AuditResult, BenchError> {
    let machine = Machine::here();
    let mut cast = Cast { hubs: HUBS, workers: WORKERS, buyers: BUYERS, small_disks: 0 };
    let mut stage = Stage::build(&options.binary, &mut cast).await?;
    let homes = stage.homes();
    let mut plane = Plane::start(&options.binary, stage.ways_in()?).await?;
    chaos::all_answer(&homes).await?;
    plane.answers().await?;
    writeln!(notes, "everybody answers; {} jobs, at most {} s", options.jobs, options.time.as_secs())?;
    let (stop, stopped) = watch::channel(false);
    let (load, mut clients) = (Load::new(stage.outages.clone()), JoinSet::new());
    for (who, home) in homes.iter().filter(|(who, _)| matches!(who, Who::Buyer(_))) {
        for n in 0..CLIENTS {
            clients.spawn(load.clone().client(*who, home.clone(), n, stopped.clone()));
        }
    }
    let web = plane.load();
    for n in 0..web::CLIENTS {
        clients.spawn(web.clone().client(n, stopped.clone()));
    }
    let (strikes, ends) = (strikes(&options, cast), clock::deadline(options.time));
    let plane_kills = u64::from(options.kills > 0);
    let kill = async {
        sleep(options.time / 10).await;
        if plane_kills > 0 { plane.again().await } else { Ok(()) }
    };
    let (played, killed) = tokio::join!(chaos::play(&mut stage, &strikes, &load, notes), kill);
    played.and(killed)?;
    while load.report().0.asked + web.report().asked < options.jobs && clock::deadline(Duration::ZERO) < ends {
        sleep(LOOK).await;
    }
    let _ = stop.send(true);
    let mut complaints = Vec::new();
    if timeout(LAST, async { while clients.join_next().await.is_some() {} }).await.is_err() {
        complaints.push(format!("a job did not end within {} s", LAST.as_secs()));
    }
    writeln!(notes, "all jobs have ended; waiting for the plane to come to rest")?;
    complaints.extend(plane.rests(REST).await.err());
    complaints.extend(plane.stop(STOP).await);
    complaints.extend(stage.stop(STOP).await);
    let mut books = chaos::read_all(&homes)?;
    books.insert(Who::Buyer(BUYERS), chaos::read_one(Who::Buyer(BUYERS), &plane.buyer())?);
    let audit = ledger::audit(&books, &plane.books().await?, &hurt(&strikes, plane_kills));
    complaints.extend(audit.complaints.iter().cloned());
    let mut faults = BTreeMap::new();
    strikes.iter().for_each(|strike| *faults.entry(strike.fault).or_default() += 1);
    let (mesh, web) = (load.report().0, web.report());
    if mesh.answered == 0 || web.answered == 0 {
        complaints.push("nothing was bought: there is nothing to audit".into());
    }
    Ok(AuditResult { machine, seed: options.seed, faults, plane_kills, mesh, web, audit, complaints })
}
