//! `bench receipts`: how many receipts a second are on the disk, synced, when their writer is told so.
//!
//! Four ways, in turn, round after round, each on a directory of its own:
//! 1. the floor: one receipt, one `fdatasync`, then the next, into a plain file;
//! 2. one caller of the store, who waits for each receipt;
//! 3. many callers of the store, so that they share syncs;
//! 4. as before, and each receipt is made first: the worker signs, the buyer checks and countersigns, the worker checks.
//!
//! Receipts of 1 to 3 are signed before the clock starts. In 4 the signatures are most of the work: the time one takes on one
//! core is measured beside it, and how many all cores make at once when nothing is kept: two threads of one core are not two
//! cores. So what the disk costs can be told from what the curve costs.

use super::BenchError;
use crate::{
    machine::{Machine, cpu_time},
    receipts::Parties,
};
use futures::{StreamExt, executor, stream::FuturesUnordered};
use infernet_node::{
    clock,
    store::{self, Store, StoreError},
};
use infernet_wire::{envelope::Refusal, receipt::SignedReceipt};
use serde::Serialize;
use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Rounds, of which the median is told.
const ROUNDS: u32 = 5;
/// Ways that are measured in each round.
const WAYS: u32 = 4;
/// Receipts that wait for the disk at once: jobs that end within one sync on a busy worker.
const IN_FLIGHT: usize = 1_024;
/// Receipts signed before the measurement. A way that has written all ends early.
const PREPARED: u64 = 40_000;
/// Agreements timed on one core, per round: some twenty ticks of the processor clock.
const TIMED_AGREEMENTS: u64 = 1_000;

/// What to measure.
#[derive(Debug, Clone)]
pub struct ReceiptsOptions {
    /// How long all of it may take, preparation not counted.
    pub secs: u64,
}

/// The result. Rates are receipts per second, each durable when it counts.
#[derive(Debug, Clone, Serialize)]
pub struct ReceiptsResult {
    /// Where.
    pub machine: Machine,
    /// Bytes of one receipt.
    pub bytes: usize,
    /// Rounds of which each number is the median.
    pub rounds: u32,
    /// One `fdatasync` at a time.
    pub one_sync_each: f64,
    /// One caller of the store.
    pub one_caller: f64,
    /// Many callers.
    pub group_commit: f64,
    /// `group_commit` over `one_sync_each`.
    pub ratio: f64,
    /// With sign, verify, countersign and verify.
    pub with_signatures: f64,
    /// `with_signatures` over `one_sync_each`.
    pub ratio_with_signatures: f64,
    /// Processor time of sign, verify, countersign and verify, in microseconds.
    pub agreement_us: f64,
    /// What these signatures alone allow, on all cores at once.
    pub signature_bound: f64,
    /// Processor time per durable receipt of many callers, in microseconds.
    pub cpu_us: f64,
    /// Looks for a receipt that is not there, in microseconds.
    pub has_receipt_us: f64,
}

impl std::fmt::Display for ReceiptsResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "durable receipts per second, {} bytes each, median of {} rounds", self.bytes, self.rounds)?;
        writeln!(f, "  one fdatasync at a time     {:>9.0}", self.one_sync_each)?;
        writeln!(f, "  the store, one caller       {:>9.0}", self.one_caller)?;
        writeln!(
            f,
            "  group commit                {:>9.0}   × {:.1}, {:.1} µs of processor time each",
            self.group_commit, self.ratio, self.cpu_us
        )?;
        writeln!(
            f,
            "  … sign, verify, countersign {:>9.0}   × {:.1}; all cores at once make {:.0} without keeping them ({:.0} µs each on one)",
            self.with_signatures, self.ratio_with_signatures, self.signature_bound, self.agreement_us
        )?;
        write!(f, "a look for a receipt         {:>9.2} µs", self.has_receipt_us)
    }
}

/// Measures.
pub fn run(options: &ReceiptsOptions) -> Result<ReceiptsResult, BenchError> {
    if !(4..=600).contains(&options.secs) {
        return Err(BenchError::Options("use 4 to 600 --secs".into()));
    }
    let machine = Machine::here();
    let parties = Parties::new().map_err(|error| BenchError::Options(error.to_string()))?;
    let receipts = prepare(&parties, machine.cores)?;
    let span = Duration::from_secs(options.secs) / (ROUNDS * WAYS);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round(&parties, &receipts, span, machine.cores)?);
    }
    let median = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let (floor, group, signed) = (median(|r| r.one_sync_each), median(|r| r.group_commit), median(|r| r.with_signatures));
    let agreement_us = median(|r| r.agreement_us);
    Ok(ReceiptsResult {
        bytes: receipts.first().map_or(0, |receipt| receipt.encode().len()),
        rounds: ROUNDS,
        one_sync_each: floor,
        one_caller: median(|r| r.one_caller),
        group_commit: group,
        ratio: group / floor,
        with_signatures: signed,
        ratio_with_signatures: signed / floor,
        agreement_us,
        signature_bound: median(|r| r.signature_bound),
        cpu_us: median(|r| r.cpu_us),
        has_receipt_us: median(|r| r.has_receipt_us),
        machine,
    })
}

struct Round {
    one_sync_each: f64,
    one_caller: f64,
    group_commit: f64,
    with_signatures: f64,
    agreement_us: f64,
    signature_bound: f64,
    cpu_us: f64,
    has_receipt_us: f64,
}

fn round(parties: &Parties, receipts: &[SignedReceipt], span: Duration, cores: usize) -> Result<Round, BenchError> {
    let home = || tempfile::Builder::new().prefix("infernet-bench-").tempdir();
    let open = |home: &Path| store::open(home, &parties.network).map_err(failed);
    let floor = home()?;
    let one_sync_each = one_sync_each(&floor.path().join("plain"), receipts, span)?;
    let lone = home()?;
    let one_caller = one_caller(&*open(lone.path())?, receipts, span)?;
    let many = home()?;
    let store = open(many.path())?;
    let before = cpu_time();
    let group = rate(span, cores, &store, &|n| receipts.get(usize::try_from(n).unwrap_or(usize::MAX)).cloned().map(Ok))?;
    let cpu_us = (cpu_time() - before).as_secs_f64() * 1e6 / group.count.max(1) as f64;
    let has_receipt_us = look(parties, &*store)?;
    let signing = home()?;
    let signed = rate(span, cores, &open(signing.path())?, &|n| Some(parties.agree(n)))?;
    Ok(Round {
        one_sync_each,
        one_caller,
        group_commit: group.per_second(),
        with_signatures: signed.per_second(),
        agreement_us: agreement(parties)?,
        signature_bound: agreements(parties, cores)?,
        cpu_us,
        has_receipt_us,
    })
}

fn failed(error: StoreError) -> BenchError {
    BenchError::Options(error.to_string())
}

fn refused(refusal: Refusal) -> BenchError {
    BenchError::Options(refusal.to_string())
}

/// Signs on every core.
fn prepare(parties: &Parties, cores: usize) -> Result<Vec<SignedReceipt>, BenchError> {
    let share = PREPARED.div_ceil(cores as u64);
    let sign = |core: u64| (core * share..((core + 1) * share).min(PREPARED)).map(|n| parties.signed(n, true)).collect();
    let shares: Vec<Result<Vec<_>, Refusal>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores as u64).map(|core| scope.spawn(move || sign(core))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let shares: Result<Vec<Vec<_>>, Refusal> = shares.into_iter().collect();
    Ok(shares.map_err(refused)?.concat())
}

fn one_sync_each(path: &Path, receipts: &[SignedReceipt], span: Duration) -> Result<f64, BenchError> {
    let (mut file, started, mut count) = (File::create(path)?, clock::instant(), 0);
    for receipt in receipts.iter().take_while(|_| started.elapsed() < span) {
        file.write_all(&receipt.encode())?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

fn one_caller(store: &dyn Store, receipts: &[SignedReceipt], span: Duration) -> Result<f64, BenchError> {
    let (started, mut count) = (clock::instant(), 0);
    for receipt in receipts.iter().take_while(|_| started.elapsed() < span) {
        store.put_receipt(receipt).map_err(failed)?;
        count += 1;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

struct Kept {
    count: u64,
    within: Duration,
}

impl Kept {
    fn per_second(&self) -> f64 {
        self.count as f64 / self.within.as_secs_f64()
    }
}

/// What makes the receipt of a number; `None` when there are no more.
type Make<'a> = &'a (dyn Fn(u64) -> Option<Result<SignedReceipt, Refusal>> + Sync);

/// Makes receipts on every core and keeps them, [`IN_FLIGHT`] at a time. The clock stops when the last one is durable.
fn rate(span: Duration, cores: usize, store: &Arc<dyn Store>, make: Make<'_>) -> Result<Kept, BenchError> {
    let (started, next) = (clock::instant(), AtomicU64::new(0));
    let work = || -> Result<u64, BenchError> {
        let (mut flying, mut count) = (FuturesUnordered::new(), 0);
        while started.elapsed() < span
            && let Some(receipt) = make(next.fetch_add(1, Ordering::Relaxed))
        {
            flying.push(store.keep_receipt(&receipt.map_err(refused)?));
            while flying.len() >= IN_FLIGHT / cores {
                count += landed(&mut flying)?;
            }
        }
        while !flying.is_empty() {
            count += landed(&mut flying)?;
        }
        Ok(count)
    };
    let counts: Vec<Result<u64, BenchError>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let within = started.elapsed();
    let counts: Result<Vec<u64>, BenchError> = counts.into_iter().collect();
    Ok(Kept { count: counts?.into_iter().sum(), within })
}

/// Waits for one; returns how many that was.
fn landed<F>(flying: &mut FuturesUnordered<F>) -> Result<u64, BenchError>
where
    F: Future<Output = Result<store::Put, StoreError>>,
{
    executor::block_on(flying.next()).map_or(Ok(0), |kept| kept.map(|_| 1)).map_err(failed)
}

/// Processor time of both sides' signatures of one receipt, in microseconds.
fn agreement(parties: &Parties) -> Result<f64, BenchError> {
    let before = cpu_time();
    for n in 0..TIMED_AGREEMENTS {
        parties.agree(n).map_err(refused)?;
    }
    Ok((cpu_time() - before).as_secs_f64() * 1e6 / TIMED_AGREEMENTS as f64)
}

/// Agreements a second on all cores at once, of which none is kept.
fn agreements(parties: &Parties, cores: usize) -> Result<f64, BenchError> {
    let started = clock::instant();
    let work = || (0..TIMED_AGREEMENTS).try_for_each(|n| parties.agree(n).map(drop));
    let made: Vec<Result<(), Refusal>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    made.into_iter().collect::<Result<(), Refusal>>().map_err(refused)?;
    Ok((TIMED_AGREEMENTS * cores as u64) as f64 / started.elapsed().as_secs_f64())
}

/// Microseconds for a look for a receipt that is not there, as before each job.
fn look(parties: &Parties, store: &dyn Store) -> Result<f64, BenchError> {
    const LOOKS: u64 = 2_000;
    let (worker, started) = (parties.worker.id(), clock::instant());
    for n in 0..LOOKS {
        store.has_receipt(&crate::receipts::job(PREPARED + n), &worker).map_err(failed)?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / LOOKS as f64)
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
