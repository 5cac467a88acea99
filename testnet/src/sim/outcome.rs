//! What a run tells: its digest, its numbers, what did not hold, and how to see it again.

use super::{
    check::Violation,
    coverage::Coverage,
    plant::Plant,
    scenario::Scenario,
    stats::{Stats, Summary},
    world::World,
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, num::NonZero, thread};

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The scenario's name or file.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Digest of all that happened.
    pub digest: String,
    /// Lines of the log.
    pub lines: u64,
    /// Nodes that were ever there.
    pub nodes: usize,
    /// Jobs begun.
    pub jobs: usize,
    /// How they ended.
    pub ended: BTreeMap<&'static str, u64>,
    /// Faults that struck.
    pub faults: u64,
    /// How often something was looked at that must hold.
    pub looked: u64,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// From the offer to the decision.
    pub auction_ms: Summary,
    /// From the order to the first token.
    pub ttft_ms: Summary,
    /// The winner's price against the lowest there was, in thousandths.
    pub price_permille: Summary,
    /// The same with time and failures, as the buyer weighs them.
    pub weight_permille: Summary,
    /// Offers made.
    pub offers: u64,
    /// Those that an honest worker answered.
    pub reached: u64,
    /// What both sides signed, in micro-USD.
    pub volume: u64,
    /// What was refused, lost and ignored how often, as `area.reason`.
    pub counts: BTreeMap<String, u64>,
    /// Which faults met what.
    #[serde(skip)]
    pub coverage: Coverage,
    /// All that was counted.
    #[serde(skip)]
    pub stats: Stats,
    /// The bug that was planted.
    pub planted: Option<Plant>,
    /// What happened, if it was to be kept.
    #[serde(skip)]
    pub trace: Vec<String>,
}

/// Runs `scenario`, called `name`, with `seed`.
pub fn run(scenario: &Scenario, name: &str, seed: u64, traced: bool) -> Outcome {
    let mut world = World::new(scenario.clone(), seed, traced);
    world.run();
    Outcome::of(&mut world, name, seed)
}

/// Runs many seeds on all cores, and adds up what they met. `each` sees every run, in the order of the seeds.
pub fn run_many(
    scenario: &Scenario,
    name: &str,
    seeds: std::ops::RangeInclusive<u64>,
    mut each: impl FnMut(&Outcome),
) -> Coverage {
    let cores = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let mut coverage = Coverage::default();
    let (mut first, last) = (*seeds.start(), *seeds.end());
    while first <= last {
        let batch = first..=last.min(first.saturating_add(cores * BATCH - 1));
        for outcome in run_batch(scenario, name, batch.clone(), cores) {
            coverage.add(&outcome.coverage);
            each(&outcome);
        }
        first = batch.end().saturating_add(1);
    }
    coverage
}

/// Seeds that one thread runs before the runs are told: so that their outcomes don't fill the memory.
const BATCH: u64 = 8;

fn run_batch(scenario: &Scenario, name: &str, seeds: std::ops::RangeInclusive<u64>, cores: u64) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|core| {
                let mine = seeds.clone().filter(move |seed| seed % cores == core);
                scope.spawn(move || mine.map(|seed| run(scenario, name, seed, false)).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a run that panics has said so")).collect()
    });
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

impl Outcome {
    fn of(world: &mut World, name: &str, seed: u64) -> Self {
        let stats = world.stats.clone();
        Outcome {
            scenario: name.into(),
            seed,
            digest: world.log.digest(),
            lines: world.log.entries(),
            nodes: world.members.iter().filter(|member| member.epoch > 0 || member.is_up()).count(),
            jobs: world.jobs.len(),
            ended: stats.area("job"),
            faults: world.coverage.faults(),
            looked: world.checks.looked(),
            violations: world.checks.violations().to_vec(),
            auction_ms: stats.auction_ms.summary(),
            ttft_ms: stats.ttft.summary(),
            price_permille: stats.price_permille.summary(),
            weight_permille: stats.weight_permille.summary(),
            offers: stats.offers.len() as u64,
            reached: stats.offers.intersection(&stats.reached).count() as u64,
            volume: stats.volume,
            counts: stats.counters(),
            coverage: world.coverage.clone(),
            stats,
            planted: world.scenario.plant,
            trace: world.log.lines().cloned().collect(),
        }
    }

    /// The command that shows this very run again.
    pub fn replay(&self) -> String {
        let plant = self.planted.map(|plant| format!(" --plant {plant}")).unwrap_or_default();
        format!("infernet-testnet sim --scenario {} --seed {}{plant} --trace", self.scenario, self.seed)
    }

    /// Whether everything held.
    pub fn is_well(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} with seed {}: {} nodes, {} jobs, {} faults",
            self.scenario, self.seed, self.nodes, self.jobs, self.faults
        )?;
        let ended: Vec<String> = self.ended.iter().map(|(how, times)| format!("{times} {how}")).collect();
        writeln!(f, "  jobs        {}", ended.join(", "))?;
        let Summary { count, p50, p99, .. } = self.auction_ms;
        writeln!(
            f,
            "  auctions    {count} won, {p50} ms (p50), {p99} ms (p99); offers that reached an honest worker: {} of {}",
            self.reached, self.offers
        )?;
        let (price, weight) = (self.price_permille, self.weight_permille);
        writeln!(f, "  price       {} ‰ of the lowest (mean), {} ‰ of the best with time", price.mean, weight.mean)?;
        writeln!(f, "  first token {} ms (p50), {} ms (p99)", self.ttft_ms.p50, self.ttft_ms.p99)?;
        writeln!(f, "  log         {} lines, {}", self.lines, self.digest)?;
        write!(f, "  checks      {} looks, {} violations", self.looked, self.violations.len())?;
        for violation in &self.violations {
            write!(f, "\n    {violation}")?;
        }
        if !self.violations.is_empty() {
            write!(f, "\n  replay      {}", self.replay())?;
        }
        Ok(())
    }
}
