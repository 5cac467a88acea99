//! `infernet-testnet sim report`: what the simulator says of the market, as a table, JSON and SVG plots.
//!
//! | question | how |
//! |---|---|
//! | what does growth cost? | the same market with ten to ten thousand nodes: messages for an auction, its time, its price |
//! | is it fair? | what each worker of one network has earned, against what it could serve |
//! | what do attackers achieve? | each attack of [`super::adversary`] against the same network without it |

mod svg;

use super::{
    adversary::{self, Harm},
    member::Role,
    scenario::{ATTACKS, Range, Scenario, ScenarioError},
    stats::Summary,
    world::World,
};
use serde::Serialize;
use std::{fmt, fs, io, path::Path};
use svg::Series;

/// A report that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A file.
    #[error("can't write the report: {0}; name another folder with --dir")]
    Write(#[from] io::Error),
    /// It can't be put into words.
    #[error("can't write the report as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// A network of one size.
#[derive(Debug, Clone, Serialize)]
pub struct Growth {
    /// Nodes.
    pub nodes: u64,
    /// Workers among them.
    pub workers: u64,
    /// Auctions won.
    pub auctions: usize,
    /// From the offer to the decision.
    pub auction_ms: Summary,
    /// The winner's price against the lowest of all workers with room, in thousandths.
    pub price_permille: Summary,
    /// The same with time and failures, as the buyer weighs them.
    pub weight_permille: Summary,
    /// Bids made for each auction, in tenths.
    pub bids_per_auction: u64,
    /// Answers put on a link for each auction, their hops counted.
    pub answers_per_auction: u64,
    /// Copies of offer and accept that a node is sent for each auction, in tenths.
    pub copies_per_node: u64,
    /// Copies of ads that a node is sent each second, in tenths.
    pub ads_per_node_second: u64,
}

/// What workers of one network got.
#[derive(Debug, Clone, Serialize)]
pub struct Fairness {
    /// Workers.
    pub workers: usize,
    /// Jobs done by each, the most first.
    pub jobs: Vec<u64>,
    /// Jain's index of what they earned, in thousandths: 1000 if all earned the same, 1000 ÷ workers if one earned all.
    pub jain_permille: u64,
    /// The same over workers whose price is within a tenth of their model's usual one.
    pub jain_alike_permille: u64,
    /// Workers that got nothing.
    pub idle: usize,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Networks by size.
    pub growth: Vec<Growth>,
    /// Who earned what.
    pub fairness: Fairness,
    /// What attackers achieved.
    pub adversaries: Vec<Harm>,
}

/// Makes a report with networks of up to `most` nodes and `seeds` seeds for each attack, and writes it into `dir`.
pub fn run(dir: &Path, most: u64, seeds: u64, progress: &mut dyn io::Write) -> Result<Report, ReportError> {
    let sizes = [10, 30, 100, 300, 1_000, 3_000, 10_000].into_iter().filter(|nodes| *nodes <= most);
    let mut growth = Vec::new();
    for nodes in sizes {
        writeln!(progress, "a network of {nodes} nodes")?;
        growth.push(grown(nodes)?);
    }
    let fairness = fairness(&sized(100)?);
    let mut adversaries = Vec::new();
    for name in ATTACKS.iter().copied() {
        writeln!(progress, "{name}")?;
        adversaries.extend(adversary::measure(&Scenario::load(name)?, name, seeds));
    }
    let report = Report { growth, fairness, adversaries };
    report.write(dir)?;
    Ok(report)
}

/// The growing network: a fifth of it sells. The larger, the shorter is looked at, since there is more to see each second.
fn sized(nodes: u64) -> Result<Scenario, ScenarioError> {
    let mut scenario = Scenario::load("honest")?;
    let workers = (nodes / 5).max(4);
    scenario.nodes.workers = Range(workers, workers);
    scenario.nodes.buyers = Range(nodes - workers, nodes - workers);
    scenario.seconds = (12_000 / nodes).clamp(12, 60);
    scenario.market.models = 1;
    scenario.market.models_each = Range(1, 1);
    scenario.load.warmup_s = 3;
    scenario.load.auction_permille = 1_000;
    scenario.load.cancel_permille = 0;
    // All nodes start at once, so that each is a newcomer to every other: gossip's rules are for networks that grow.
    scenario.network.rules = false;
    // Twenty auctions a second, but no more than the workers can serve.
    let (buyers, rate) = (nodes - workers, workers.min(20));
    scenario.load.pause_ms = Range(buyers * 500 / rate, buyers * 1_500 / rate);
    Ok(scenario)
}

fn grown(nodes: u64) -> Result<Growth, ScenarioError> {
    let scenario = sized(nodes)?;
    let workers = scenario.nodes.workers.0;
    let mut world = World::new(scenario, 1, false);
    world.run();
    let (stats, spent_ms) = (&world.stats, world.ms);
    let auctions = stats.auctions.max(1);
    let copies = stats.sent_by_kind.get("offer").copied().unwrap_or_default()
        + stats.sent_by_kind.get("accept").copied().unwrap_or_default();
    let ads = stats.sent_by_kind.get("ad").copied().unwrap_or_default();
    Ok(Growth {
        nodes,
        workers,
        auctions: stats.auction_ms.len(),
        auction_ms: stats.auction_ms.summary(),
        price_permille: stats.price_permille.summary(),
        weight_permille: stats.weight_permille.summary(),
        bids_per_auction: stats.bids * 10 / auctions,
        answers_per_auction: stats.answers_sent / auctions,
        copies_per_node: copies * 10 / auctions / nodes,
        ads_per_node_second: ads * 10_000 / nodes / spent_ms.max(1),
    })
}

fn fairness(scenario: &Scenario) -> Fairness {
    let mut world = World::new(scenario.clone(), 1, false);
    world.run();
    let usual: Vec<(String, u64)> = world.models().to_vec();
    let workers: Vec<_> = world.members.iter().filter(|member| member.role == Role::Worker).collect();
    let earned = |member: &&super::member::Member| {
        let earned = &member.books.earned;
        (earned.jobs, earned.acknowledged_micro_usd + earned.unacknowledged_micro_usd)
    };
    let alike = workers.iter().filter(|member| {
        let model = member.worker.as_ref().and_then(|working| working.profile.models.first());
        model.is_some_and(|model| {
            let usual = usual.iter().find(|(id, _)| *id == model.id).map_or(0, |(_, usual)| *usual);
            model.price.output.0.abs_diff(usual) * 10 <= usual
        })
    });
    let amounts: Vec<u64> = workers.iter().map(|member| earned(member).1).collect();
    let alike: Vec<u64> = alike.map(|member| earned(member).1).collect();
    let mut jobs: Vec<u64> = workers.iter().map(|member| earned(member).0).collect();
    jobs.sort_unstable_by(|a, b| b.cmp(a));
    Fairness {
        workers: workers.len(),
        idle: jobs.iter().filter(|jobs| **jobs == 0).count(),
        jobs,
        jain_permille: jain(&amounts),
        jain_alike_permille: jain(&alike),
    }
}

/// Jain's fairness index in thousandths: the square of the sum over the sum of squares times their number.
fn jain(amounts: &[u64]) -> u64 {
    let sum: u128 = amounts.iter().map(|amount| u128::from(*amount)).sum();
    let squares: u128 = amounts.iter().map(|amount| u128::from(*amount) * u128::from(*amount)).sum();
    let index = (sum * sum * 1_000).checked_div(squares * amounts.len() as u128);
    index.and_then(|index| u64::try_from(index).ok()).unwrap_or(1_000)
}

impl Report {
    fn write(&self, dir: &Path) -> Result<(), ReportError> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("report.json"), serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(dir.join("report.txt"), format!("{self}\n"))?;
        for (name, plot) in self.plots() {
            fs::write(dir.join(name), plot)?;
        }
        Ok(())
    }

    fn plots(&self) -> Vec<(&'static str, String)> {
        let places: Vec<String> = self.growth.iter().map(|growth| growth.nodes.to_string()).collect();
        let series = |name, of: fn(&Growth) -> u64| Series { name, values: self.growth.iter().map(of).collect() };
        let time = [series("p50", |g| g.auction_ms.p50), series("p99", |g| g.auction_ms.p99)];
        let price = [series("price", |g| g.price_permille.mean), series("price and time", |g| g.weight_permille.mean)];
        let messages = [
            series("bids ×10", |g| g.bids_per_auction),
            series("answers, hops counted", |g| g.answers_per_auction),
            series("copies per node ×10", |g| g.copies_per_node),
        ];
        let answered = self.adversaries.iter().filter_map(|harm| {
            let number = harm.numbers.first()?;
            Some((harm.scenario.clone(), number.value))
        });
        let jobs: Vec<(String, u64)> = self.fairness.jobs.iter().map(|jobs| (String::new(), *jobs)).collect();
        vec![
            ("auction-time.svg", svg::lines("Auction time by nodes", "ms", &places, &time)),
            ("price.svg", svg::lines("The winner against the best there was, by nodes", "‰, mean", &places, &price)),
            ("messages.svg", svg::lines("Messages for one auction, by nodes", "messages", &places, &messages)),
            ("fairness.svg", svg::bars("Jobs of each worker, the most first", "jobs", &jobs)),
            ("adversaries.svg", svg::bars("Jobs answered under attack", "‰", &answered.collect::<Vec<_>>())),
        ]
    }

    /// Whether every bound of every attack holds.
    pub fn is_well(&self) -> bool {
        self.adversaries.iter().all(Harm::is_well)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>7}{:>9}{:>10}{:>9}{:>9}{:>9}{:>9}{:>8}{:>9}{:>13}{:>12}",
            "nodes",
            "workers",
            "auctions",
            "p50 ms",
            "p99 ms",
            "price ‰",
            "best ‰",
            "bids",
            "answers",
            "copies/node",
            "ads/node/s"
        )?;
        for growth in &self.growth {
            let tenths = |n: u64| format!("{}.{}", n / 10, n % 10);
            writeln!(
                f,
                "{:>7}{:>9}{:>10}{:>9}{:>9}{:>9}{:>9}{:>8}{:>9}{:>13}{:>12}",
                growth.nodes,
                growth.workers,
                growth.auctions,
                growth.auction_ms.p50,
                growth.auction_ms.p99,
                growth.price_permille.mean,
                growth.weight_permille.mean,
                tenths(growth.bids_per_auction),
                growth.answers_per_auction,
                tenths(growth.copies_per_node),
                tenths(growth.ads_per_node_second),
            )?;
        }
        let fair = &self.fairness;
        writeln!(
            f,
            "\nfairness among {} workers: Jain's index of what they earned {} ‰, of those with like prices {} ‰; {} got no job",
            fair.workers, fair.jain_permille, fair.jain_alike_permille, fair.idle
        )?;
        self.adversaries.iter().try_for_each(|harm| write!(f, "\n{harm}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_knows_the_fair_from_the_unfair() {
        assert_eq!(jain(&[5, 5, 5, 5]), 1_000);
        assert_eq!(jain(&[8, 0, 0, 0]), 250);
        assert_eq!(jain(&[]), 1_000);
    }

    #[test]
    fn a_small_report_is_written_whole() {
        let growth = vec![grown(10).expect("the scenario is built in")];
        assert!(growth[0].auctions > 50 && growth[0].price_permille.mean >= 1_000, "{growth:?}");
        let fairness = fairness(&sized(20).expect("the scenario is built in"));
        assert!((1..=1_000).contains(&fairness.jain_permille));
        let (dir, report) = (tempfile::tempdir().expect("a folder"), Report { growth, fairness, adversaries: Vec::new() });
        report.write(dir.path()).expect("writes");
        for file in ["report.json", "report.txt", "auction-time.svg", "price.svg", "messages.svg", "fairness.svg"] {
            assert!(fs::metadata(dir.path().join(file)).is_ok_and(|file| file.len() > 100), "{file}");
        }
    }
}
