//! What a run is counted by.

use infernet_wire::id::Hash;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Samples of one quantity.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// One more.
    pub fn note(&mut self, sample: u64) {
        self.0.push(sample);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over another's.
    pub fn add(&mut self, other: &Samples) {
        self.0.extend(&other.0);
    }

    /// Quantiles, the mean, and how many.
    pub fn summary(&self) -> Summary {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |permille: usize| sorted.get((sorted.len().saturating_sub(1)) * permille / 1_000).copied().unwrap_or_default();
        Summary {
            count: sorted.len(),
            mean: sorted.iter().sum::<u64>().checked_div(sorted.len() as u64).unwrap_or_default(),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            max: at(1_000),
        }
    }
}

/// What samples say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Rounded down.
    pub mean: u64,
    /// Half are no more.
    pub p50: u64,
    /// Nine of ten are no more.
    pub p90: u64,
    /// Ninety-nine of a hundred are no more.
    pub p99: u64,
    /// The most.
    pub max: u64,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Counts by area and reason.
    counts: BTreeMap<(&'static str, &'static str), u64>,
    /// Gossip messages put on a link.
    pub gossip_sent: u64,
    /// The same by kind.
    pub sent_by_kind: BTreeMap<&'static str, u64>,
    /// Gossip messages that a node had heard already.
    pub duplicates: u64,
    /// Gossip messages that a node acted on.
    pub delivered: u64,
    /// Answers put on a link.
    pub answers_sent: u64,
    /// Pieces of chat streams.
    pub frames: u64,
    /// Tokens that engines said.
    pub tokens: u64,
    /// Auctions begun.
    pub auctions: u64,
    /// Offers of honest buyers.
    pub offers: BTreeSet<Hash>,
    /// Offers that an honest worker answered.
    pub reached: BTreeSet<Hash>,
    /// Auctions without a bid.
    pub no_bids: u64,
    /// Bids made.
    pub bids: u64,
    /// Bids that came too late.
    pub late_bids: u64,
    /// Offers left to others.
    pub not_selected: u64,
    /// Jobs that got a slot.
    pub claims: u64,
    /// Payments that buyers have sent.
    pub vouchers: u64,
    /// Tabs that were compared with their other side in the end.
    pub tabs: u64,
    /// How often slots were looked at.
    pub looked_at_slots: u64,
    /// Messages repeated.
    pub replayed: u64,
    /// Copies of them that were refused.
    pub replays_refused: u64,
    /// Those that had an effect.
    pub replay_effects: u64,
    /// What both sides signed to owe and to have earned, in micro-USD.
    pub volume: u64,
    /// Jobs of honest buyers that were not cancelled and did not die with their node.
    pub honest_jobs: u64,
    /// Those that were answered.
    pub honest_answered: u64,
    /// Auctions that attackers won, and all, in each half of the time.
    pub won_by_attackers: [(u64, u64); 2],
    /// The most of a worker's slots that strangers had, in thousandths.
    pub strangers_permille: u64,
    /// Offers that attackers made up.
    pub cried: u64,
    /// Tokens charged to honest buyers.
    pub charged: u64,
    /// What workers have signed and their buyers have not, in micro-USD.
    pub unsigned: u64,
    /// Tokens charged that were not delivered.
    pub inflated: u64,
    /// From the offer to the decision, in milliseconds.
    pub auction_ms: Samples,
    /// From the order to the first token, in milliseconds.
    pub ttft: Samples,
    /// From the order to the receipt, in milliseconds.
    pub answered_ms: Samples,
    /// The winner's price as a share of the lowest that any worker with room asks, in thousandths.
    pub price_permille: Samples,
    /// The winner's weight, time included, as a share of the best, in thousandths.
    pub weight_permille: Samples,
}

impl Stats {
    /// One more in `area`, for `reason`.
    pub fn count(&mut self, area: &'static str, reason: &'static str) {
        *self.counts.entry((area, reason)).or_default() += 1;
    }

    /// How often.
    pub fn counted(&self, area: &str, reason: &str) -> u64 {
        self.counts.iter().filter(|((a, r), _)| *a == area && *r == reason).map(|(_, n)| n).sum()
    }

    /// All counts, as `area.reason`.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.counts.iter().map(|((area, reason), n)| (format!("{area}.{reason}"), *n)).collect()
    }

    /// Counts of one area.
    pub fn area(&self, area: &str) -> BTreeMap<&'static str, u64> {
        self.counts.iter().filter(|((a, _), _)| *a == area).map(|((_, reason), n)| (*reason, *n)).collect()
    }
}
