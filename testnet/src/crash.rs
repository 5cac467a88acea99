//! `infernet-testnet crash`: a node's money, in processes that are killed at every write of it, on a real EVM chain or Solana's runtime.
//!
//! A **life** is that of two channels: a deposit, more of it, a voucher and its redemption, money sent away, an end that both sides
//! signed; a deposit, and the slow way out. Each of its steps is killed with SIGKILL at each of its points ([`Persist`](infernet_node::settlement::steps::Persist)): a process
//! of the node's own account, journal and driver stops there ([`stop`]), is killed, and the next one in the same home goes on and stops
//! at the next point. Whether it stops before a write, behind it but before its sync, or behind that too goes by turns, so that three
//! lives have all of them. Buyers live on from life to life; workers are new.
//!
//! On Solana a life is that of two tranches and a withdrawal, killed at each point of their payments ([`Paid`](infernet_node::settlement::solana::payment::Persist)), when the worker
//! counts a tranche, and when the buyer hears of that.
//!
//! After each step, and to the unit: every account has what it should, the contract holds the rest, every step is settled, there is one
//! for each thing that was asked for, and the chain has as many transactions of an account as its journal.

pub mod account;
mod life;
mod prepaid;
mod process;
pub mod stop;
pub mod wallet;

use crate::{bank::Bank, bench::BenchError, demo::Settle, evm::Program, machine::Machine};
use infernet_node::clock;
use process::Wrong;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, io::Write, path::PathBuf};
use stop::Stop;

/// What to do.
#[derive(Debug, Clone)]
pub struct CrashOptions {
    /// Lives, one after the other.
    pub lives: u32,
    /// Where.
    pub settle: Settle,
    /// A program whose `account` subcommand is [`account::main`].
    pub binary: PathBuf,
}

/// So many places passed by in a life, on average, are too many. Some are, where the disk is slower than the chain's node.
const PASSED: u64 = 4;

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct CrashResult {
    /// Where.
    pub machine: Machine,
    /// Lives.
    pub lives: u32,
    /// Seconds.
    pub seconds: u64,
    /// SIGKILLs.
    pub kills: u64,
    /// The same by where: the step, its point, and the moment of that write.
    pub points: BTreeMap<String, u64>,
    /// Places that no process came to: it was past them in the one before.
    pub passed: u64,
    /// Transactions that were mined in the end.
    pub transactions: u64,
    /// What is wrong; empty if all was paid once.
    pub complaints: Vec<String>,
}

impl CrashResult {
    /// Whether all was paid once.
    pub fn is_well(&self) -> bool {
        self.complaints.is_empty()
    }
}

impl fmt::Display for CrashResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "{} lives in {} s: {} processes killed at {} places, {} passed by, {} transactions",
            self.lives,
            self.seconds,
            self.kills,
            self.points.len(),
            self.passed,
            self.transactions
        )?;
        match self.complaints.as_slice() {
            [] => write!(f, "well: everything was paid once, and nothing is missing"),
            wrong => write!(f, "NOT well: {}", wrong.join("; ")),
        }
    }
}

enum Scene {
    Evm(Box<life::Scene>),
    Solana(Box<prepaid::Scene>),
}

impl Scene {
    async fn live(&mut self, number: u32, kills: &mut BTreeMap<Stop, u64>) -> Result<(), Wrong> {
        match self {
            Scene::Evm(scene) => life::Life::new(scene, number, kills).await?.live().await,
            Scene::Solana(scene) => prepaid::Life::new(scene, number, kills)?.live().await,
        }
    }

    fn passed(&self) -> u64 {
        match self {
            Scene::Evm(scene) => scene.passed(),
            Scene::Solana(scene) => scene.passed(),
        }
    }

    fn transactions(&self) -> u64 {
        match self {
            Scene::Evm(scene) => scene.transactions(),
            Scene::Solana(scene) => scene.transactions(),
        }
    }
}

/// Kills, and looks what is there. A life that goes wrong is the last.
pub async fn run(options: CrashOptions, notes: &mut (dyn Write + Send)) -> Result<CrashResult, BenchError> {
    let (machine, started) = (Machine::here(), clock::instant());
    let mut scene = match options.settle {
        // The strictest: what a killed deposit has left must be taken back.
        Settle::Evm => {
            let bank = Bank::start_with(Program::StrictToken).await?;
            Scene::Evm(Box::new(life::Scene::new(bank, options.binary).await?))
        }
        Settle::Solana => Scene::Solana(Box::new(prepaid::Scene::new(options.binary).await?)),
    };
    let (mut kills, mut complaints): (BTreeMap<Stop, u64>, _) = (BTreeMap::new(), Vec::new());
    let mut lives = 0;
    for number in 0..options.lives {
        lives += 1;
        let lived = scene.live(number, &mut kills).await;
        let killed: u64 = kills.values().sum();
        writeln!(notes, "life {lives}: {killed} processes killed, {} s", started.elapsed().as_secs())?;
        if let Err(Wrong::Stage(error)) = lived {
            return Err(error);
        }
        if let Err(wrong) = lived {
            complaints.push(format!("life {number}: {wrong}"));
            break;
        }
    }
    let passed = scene.passed();
    if passed >= PASSED * u64::from(lives) {
        complaints.push(format!("{passed} places were passed by in {lives} lives: nobody was killed there"));
    }
    Ok(CrashResult {
        machine,
        lives,
        seconds: started.elapsed().as_secs(),
        kills: kills.values().sum(),
        points: kills.into_iter().map(|(stop, n)| (stop.to_string(), n)).collect(),
        passed,
        transactions: scene.transactions(),
        complaints,
    })
}
