//! Which bid is best, and why.
//!
//! A bid is **weighed**: what the job will probably cost, and how long it will take, `queue + RTT + TTFT + output ÷ speed`. Both
//! grow with the share of this worker's jobs that failed. The offer's rule puts the weights in order:
//!
//! | rule | order |
//! |---|---|
//! | `BALANCED`, and any unknown one | cost + time × [`VALUE_OF_TIME`] |
//! | `CHEAPEST` | cost, then time |
//! | `FASTEST` | time, then cost |
//!
//! A worker that has not read a conversation another one has must read it first: that is time too, at `READING_SPEED`. It only
//! parts the workers of one conversation; what all have to read is in nobody's favour and left out.
//!
//! What this buyer has measured counts instead of what a worker claims, so a boast wins once. What nobody knows is assumed
//! mediocre: a newcomer is neither preferred nor shut out. Ties go by a hash of offer and worker: another worker each time, and
//! none can grind it, as it could a hash of its bid.
//!
//! Bids of workers whose ads this buyer does not know come after all others, whatever they promise: a key costs nothing, so a
//! hundred of them can promise everything, and each would have to be tried to be found out.
//!
//! All is integer arithmetic on the arguments: offer, bids and facts always give the same order, in whatever order they come.

use super::quote::Estimate;
use infernet_wire::{
    bid::JobBid,
    capability::ModelAd,
    envelope::Verified,
    hash,
    id::{Hash, NodeId},
    money::{MicroUsd, Price},
    offer::{JobOffer, SelectionRule},
};
use std::collections::BTreeMap;

/// What a millisecond costs a `BALANCED` buyer, in 10⁻¹² USD: 5 micro-USD per second, 1.8 US cents per hour. Modest on
/// purpose: ten seconds weigh as much as 500 output tokens at 0.1 USD per million, so it parts the slow from the usable, while
/// among workers of like speed the price decides. Who values time more asks for `FASTEST`.
pub const VALUE_OF_TIME: u64 = 5_000;
/// What a millisecond costs in the *score* of a `FASTEST` auction: 1 USD per second, above any price difference seen.
const VALUE_OF_HASTE: u64 = 1_000_000_000;

/// Assumed while unmeasured: between two continents.
const UNKNOWN_RTT_MS: u32 = 100;
/// Assumed while unmeasured and unclaimed: a model that is loaded, on a busy machine.
const UNKNOWN_TTFT_MS: u32 = 1_000;
/// Assumed while unmeasured and unclaimed, in tokens per second: a mid-size model on a laptop.
const UNKNOWN_SPEED: u32 = 20;
/// At what speed a prompt is read, in tokens per second: a mid-size model on one consumer GPU reads one to five thousand, a large
/// one or a laptop fewer.
const READING_SPEED: u64 = 1_000;
/// Completed jobs that every worker is credited with, so that one failure is no verdict.
const BENEFIT_OF_DOUBT: u32 = 2;

const PICO_PER_MICRO: u128 = 1_000_000;

/// What this buyer has observed of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether this buyer knows a live ad of it.
    pub advertised: bool,
    /// Round trip.
    pub rtt_ms: Option<u32>,
    /// Jobs it completed.
    pub completed: u32,
    /// Jobs it failed.
    pub failed: u32,
    /// Jobs it completed since it last failed one.
    pub in_row: u32,
    /// Tokens of this very conversation that another worker has read already and this one has not.
    pub reread_tokens: u32,
    /// From the accept to the first token, without the round trip.
    pub measured_ttft_ms: Option<u32>,
    /// Tokens per second while streaming.
    pub measured_tps: Option<u32>,
}

/// A bid in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scored {
    /// Who bid.
    pub worker: NodeId,
    /// Digest of the bid.
    pub bid: Hash,
    /// What the job is expected to cost in micro-USD, with failures, and with time as the rule values it.
    pub score: u64,
    /// What will probably be paid.
    pub expected_cost: MicroUsd,
    /// How long the answer will probably take; `None` while its speed is a mere assumption.
    pub expected_ms: Option<u64>,
}

/// All bids, best first.
pub fn rank(offer: &Verified<JobOffer>, bids: &[Verified<JobBid>], facts: &BTreeMap<NodeId, Facts>) -> Vec<Scored> {
    let mut ranking: Vec<_> = bids.iter().map(|bid| place(offer, bid, facts)).collect();
    ranking.sort_by_key(|(key, _)| *key);
    ranking.into_iter().map(|(_, scored)| scored).collect()
}

type Place = (bool, Order, Hash, NodeId, Hash);

fn place(offer: &Verified<JobOffer>, bid: &Verified<JobBid>, facts: &BTreeMap<NodeId, Facts>) -> (Place, Scored) {
    let worker = bid.signer();
    let facts = facts.get(&worker).copied().unwrap_or_default();
    let weight = Weight::of(offer, &Terms::from(&**bid), &facts);
    let tie = hash::tagged("infernet/rank-tie/1", &[offer.digest().as_ref(), worker.as_ref()]);
    // The same worker's bids tie by their own digests, only to make the order total.
    ((!facts.advertised, weight.order(offer.rule), tie, worker, bid.digest()), weight.scored(offer.rule, worker, bid.digest()))
}

/// What a worker asks and claims, in a bid or standing in an ad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The price.
    pub price: Price,
    /// Wait for the engine.
    pub queue_ms: u32,
    /// Claimed time to the first token, 0 if unknown.
    pub ttft_ms: u32,
    /// Claimed speed, 0 if unknown.
    pub tokens_per_second: u32,
}

impl From<&JobBid> for Terms {
    fn from(bid: &JobBid) -> Self {
        Terms { price: bid.price, queue_ms: bid.queue_ms, ttft_ms: bid.ttft_ms, tokens_per_second: bid.tokens_per_second }
    }
}

impl From<&ModelAd> for Terms {
    fn from(ad: &ModelAd) -> Self {
        Terms { price: ad.price, queue_ms: 0, ttft_ms: ad.ttft_ms, tokens_per_second: ad.tokens_per_second }
    }
}

/// What two weights are compared by: the first number, then the second.
pub type Order = (u128, u128);

/// Expected cost and time of a job with one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// In 10⁻¹² USD, in which a price per million tokens times tokens is exact.
    cost: u128,
    ms: u64,
    /// Whether `ms` rests on what was measured, by us or, as it says, by the worker.
    measured: bool,
    /// Jobs tried per job completed, as a fraction.
    tries: (u64, u64),
}

impl Weight {
    /// Weighs `terms` for `offer`, given what was observed of the worker.
    pub fn of(offer: &JobOffer, terms: &Terms, facts: &Facts) -> Self {
        let completed = u64::from(facts.completed) + u64::from(BENEFIT_OF_DOUBT);
        Weight {
            cost: cost(offer, &terms.price),
            ms: time(offer, terms, facts),
            measured: ttft(terms, facts).is_some() && speed(terms, facts).is_some(),
            tries: (completed + u64::from(facts.failed), completed),
        }
    }

    /// What it is compared by under `rule`: less is better.
    pub fn order(&self, rule: SelectionRule) -> Order {
        let (cost, ms) = (self.likely_cost(), self.with_failures(self.ms.into()));
        match rule {
            SelectionRule::CHEAPEST => (cost, ms),
            SelectionRule::FASTEST => (ms, cost),
            _ => (cost.saturating_add(ms.saturating_mul(VALUE_OF_TIME.into())), ms),
        }
    }

    /// The number that a buyer publishes, and losers compare theirs with.
    pub fn score(&self, rule: SelectionRule) -> u64 {
        let value_of_time = match rule {
            SelectionRule::CHEAPEST => 0,
            SelectionRule::FASTEST => VALUE_OF_HASTE,
            _ => VALUE_OF_TIME,
        };
        let total = self.cost.saturating_add(u128::from(self.ms) * u128::from(value_of_time));
        micro(self.with_failures(total))
    }

    /// What will probably be paid.
    pub fn expected_cost(&self) -> MicroUsd {
        MicroUsd(micro(self.cost))
    }

    /// How long the answer will probably take, in milliseconds. `None` if nobody has measured: what is assumed to rank by is wrong
    /// by factors, and no number for people.
    pub fn expected_ms(&self) -> Option<u64> {
        self.measured.then_some(self.ms)
    }

    /// Its cost in 10⁻¹² USD, with failures.
    pub fn likely_cost(&self) -> u128 {
        self.with_failures(self.cost)
    }

    /// The same job, begun `ms` later.
    #[must_use]
    pub fn delayed(self, ms: u64) -> Self {
        Weight { ms: self.ms.saturating_add(ms), ..self }
    }

    fn with_failures(&self, amount: u128) -> u128 {
        amount.saturating_mul(self.tries.0.into()) / u128::from(self.tries.1.max(1))
    }

    fn scored(&self, rule: SelectionRule, worker: NodeId, bid: Hash) -> Scored {
        Scored { worker, bid, score: self.score(rule), expected_cost: self.expected_cost(), expected_ms: self.expected_ms() }
    }
}

fn micro(pico: u128) -> u64 {
    u64::try_from(pico.div_ceil(PICO_PER_MICRO)).unwrap_or(u64::MAX)
}

fn cost(offer: &JobOffer, price: &Price) -> u128 {
    let Estimate { input, output } = Estimate::of(offer);
    u128::from(price.input.0) * u128::from(input) + u128::from(price.output.0) * u128::from(output)
}

fn time(offer: &JobOffer, terms: &Terms, facts: &Facts) -> u64 {
    let rtt = facts.rtt_ms.unwrap_or(UNKNOWN_RTT_MS);
    let ttft = ttft(terms, facts).unwrap_or(UNKNOWN_TTFT_MS);
    let speed = speed(terms, facts).unwrap_or(UNKNOWN_SPEED);
    let decode = u64::from(Estimate::of(offer).output) * 1_000 / u64::from(speed.max(1));
    let reread = u64::from(facts.reread_tokens) * 1_000 / READING_SPEED;
    u64::from(terms.queue_ms) + u64::from(rtt) + u64::from(ttft) + reread + decode
}

fn ttft(terms: &Terms, facts: &Facts) -> Option<u32> {
    facts.measured_ttft_ms.or(known(terms.ttft_ms))
}

fn speed(terms: &Terms, facts: &Facts) -> Option<u32> {
    facts.measured_tps.or(known(terms.tokens_per_second))
}

fn known(claim: u32) -> Option<u32> {
    (claim > 0).then_some(claim)
}

/// One sentence on why the first of `ranking` won.
pub fn explain(ranking: &[Scored]) -> String {
    let Some((first, others)) = ranking.split_first() else {
        return "no bids".into();
    };
    let (cost, ms) = (first.expected_cost, first.expected_ms);
    let Some(least) = others.iter().map(|scored| scored.expected_cost.0).min() else {
        return format!("the only bid: {cost} expected, {}", shown(ms));
    };
    // Who is not measured can't be compared with: it may be the fastest of all.
    let soonest = others.iter().map(|scored| scored.expected_ms).min().flatten();
    let times = ms.zip(soonest);
    let rank = match (cost.0 <= least, times.is_some_and(|(ms, soonest)| ms <= soonest)) {
        (true, true) => "cheapest and fastest",
        (true, false) => "cheapest",
        (false, true) => "fastest",
        (false, false) => "best balance of price and time",
    };
    let time = match times {
        Some((ms, soonest)) => compare_ms(ms, soonest),
        None => "their speeds are not all measured".into(),
    };
    format!("{rank} of {}: {cost} expected, {}; {time}", ranking.len(), compare_cost(cost.0, least))
}

/// An expected time for people.
pub fn shown(expected_ms: Option<u64>) -> String {
    expected_ms.map_or("speed not measured".into(), |ms| format!("{ms} ms"))
}

fn compare_cost(cost: u64, other: u64) -> String {
    let percent = |difference: u64, of: u64| u128::from(difference) * 100 / u128::from(of.max(1));
    match cost.cmp(&other) {
        std::cmp::Ordering::Less => format!("{} % below the next", percent(other - cost, other)),
        std::cmp::Ordering::Equal => "as the next".into(),
        std::cmp::Ordering::Greater => format!("{} % above the cheapest", percent(cost - other, other)),
    }
}

fn compare_ms(ms: u64, other: u64) -> String {
    match ms.cmp(&other) {
        std::cmp::Ordering::Less => format!("{} ms faster than the next", other - ms),
        std::cmp::Ordering::Equal => "as fast as the next".into(),
        std::cmp::Ordering::Greater => format!("{} ms slower than the fastest", ms - other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{bid, bid_with, node, offer};

    fn facts(change: impl FnOnce(&mut Facts)) -> Facts {
        let mut facts = Facts::default();
        change(&mut facts);
        facts
    }

    /// A worker: price in USD per million tokens, claimed TTFT and speed, facts.
    type Row = (u64, u32, u32, Facts);

    /// Which of workers 1, 2 and 3 is put first?
    fn check(rule: SelectionRule, rows: [Row; 3], first: u16) {
        let offer = offer(9, 1, |offer| offer.rule = rule);
        let bids = (1..).zip(&rows).map(|(n, (usd, ttft_ms, tps, _))| {
            bid_with(n, &offer, usd * 1_000_000, |bid| (bid.ttft_ms, bid.tokens_per_second) = (*ttft_ms, *tps))
        });
        let facts = (1..).zip(&rows).map(|(n, (.., facts))| (node(n), *facts)).collect();
        let ranking = rank(&offer, &bids.collect::<Vec<_>>(), &facts);
        assert_eq!(ranking[0].worker, node(first), "{ranking:#?}");
    }

    #[test]
    fn rules_put_price_or_time_first() {
        let none = Facts::default();
        // 300 tokens at 1, 2 and 5 USD per million; 200 tokens of output at 1, 100 and 110 per second.
        let rows = [(1, 100, 1, none), (2, 100, 100, none), (5, 100, 110, none)];
        check(SelectionRule::CHEAPEST, rows, 1);
        check(SelectionRule::BALANCED, rows, 2);
        check(SelectionRule::FASTEST, rows, 3);
        check(SelectionRule(77), rows, 2);
        let equal_price = [(1, 300, 50, none), (1, 200, 50, none), (1, 400, 50, none)];
        check(SelectionRule::CHEAPEST, equal_price, 2);
        let equal_time = [(3, 100, 50, none), (2, 100, 50, none), (1, 100, 50, none)];
        check(SelectionRule::FASTEST, equal_time, 3);
    }

    #[test]
    fn what_was_measured_counts_instead_of_what_is_claimed() {
        let slow = facts(|facts| (facts.measured_tps, facts.measured_ttft_ms) = (Some(10), Some(500)));
        let none = Facts::default();
        check(SelectionRule::FASTEST, [(1, 1, 1_000_000, none), (1, 100, 50, none), (1, 100, 40, none)], 1);
        check(SelectionRule::FASTEST, [(1, 1, 1_000_000, slow), (1, 100, 50, none), (1, 100, 40, none)], 2);
        let near = facts(|facts| facts.rtt_ms = Some(1));
        check(SelectionRule::FASTEST, [(1, 100, 50, none), (1, 100, 50, none), (1, 100, 50, near)], 3);
    }

    #[test]
    fn who_has_read_the_conversation_wins_unless_others_are_much_cheaper() {
        let none = Facts::default();
        let cold = facts(|facts| facts.reread_tokens = 8_000);
        // Eight seconds of reading weigh 40 micro-USD, and a dollar per million 300.
        check(SelectionRule::BALANCED, [(1, 100, 50, none), (1, 100, 50, cold), (1, 100, 50, cold)], 1);
        check(SelectionRule::BALANCED, [(10, 100, 50, none), (9, 100, 50, cold), (11, 100, 50, cold)], 2);
        check(SelectionRule::FASTEST, [(9, 100, 50, none), (1, 100, 60, cold), (1, 90, 50, cold)], 1);
        check(SelectionRule::CHEAPEST, [(2, 100, 50, none), (1, 100, 50, cold), (2, 100, 50, cold)], 2);
    }

    #[test]
    fn the_unknown_is_neither_preferred_nor_shut_out() {
        let none = Facts::default();
        check(SelectionRule::FASTEST, [(1, 0, 0, none), (1, 500, 60, none), (1, 5_000, 2, none)], 2);
        check(SelectionRule::FASTEST, [(1, 5_000, 2, none), (1, 0, 0, none), (1, 9_000, 2, none)], 2);
    }

    #[test]
    fn a_time_is_told_only_if_somebody_has_measured() {
        let offer = offer(9, 1, |_| {});
        let told = |ttft_ms, tokens_per_second, facts: Facts| {
            let bid = bid_with(1, &offer, 1, |bid| (bid.ttft_ms, bid.tokens_per_second) = (ttft_ms, tokens_per_second));
            Weight::of(&offer, &Terms::from(&*bid), &facts).expected_ms()
        };
        assert_eq!(told(0, 0, Facts::default()), None);
        assert_eq!(told(100, 0, Facts::default()), None);
        assert_eq!(told(100, 100, Facts::default()), Some(2_200));
        let ours = facts(|facts| (facts.measured_ttft_ms, facts.measured_tps) = (Some(50), Some(200)));
        assert_eq!(told(0, 0, ours), Some(1_150));
    }

    #[test]
    fn failures_make_a_worker_dearer_and_slower() {
        let none = Facts::default();
        let failing = facts(|facts| facts.failed = 10);
        let once = facts(|facts| (facts.failed, facts.completed) = (1, 50));
        for rule in [SelectionRule::BALANCED, SelectionRule::CHEAPEST, SelectionRule::FASTEST] {
            check(rule, [(4, 100, 50, failing), (5, 110, 50, none), (6, 120, 50, none)], 2);
            check(rule, [(4, 100, 50, once), (5, 200, 40, none), (6, 300, 30, none)], 1);
        }
    }

    #[test]
    fn ties_favour_nobody() {
        let first = |id| {
            let offer = offer(9, id, |_| {});
            rank(&offer, &[bid(1, &offer, 1), bid(2, &offer, 1)], &BTreeMap::new())[0].worker
        };
        let wins = (0..40).filter(|id| first(*id) == node(1)).count();
        assert!((8..=32).contains(&wins), "{wins}");
    }

    #[test]
    fn a_score_is_cost_and_time_in_micro_usd() {
        let offer = offer(9, 1, |_| {});
        let scored = |rule| {
            let bid = bid_with(1, &offer, 1_000_000, |bid| (bid.ttft_ms, bid.tokens_per_second) = (100, 100));
            let weight = Weight::of(&offer, &Terms::from(&*bid), &facts(|facts| facts.rtt_ms = Some(20)));
            (weight.score(rule), weight.ms)
        };
        // 300 tokens at 1 USD per million, and 20 + 100 + 2000 ms.
        assert_eq!(scored(SelectionRule::CHEAPEST), (300, 2_120));
        assert_eq!(scored(SelectionRule::BALANCED), (311, 2_120));
        assert_eq!(scored(SelectionRule::FASTEST), (300 + 2_120_000, 2_120));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let offer = offer(9, 1, |offer| (offer.input_tokens, offer.output_tokens) = (u32::MAX, 1 << 20));
        let bid =
            bid_with(1, &offer, u64::MAX, |bid| (bid.queue_ms, bid.ttft_ms, bid.tokens_per_second) = (u32::MAX, u32::MAX, 1));
        let facts = facts(|facts| (facts.failed, facts.completed, facts.rtt_ms) = (u32::MAX, u32::MAX, Some(u32::MAX)));
        let ranking = rank(&offer, &[bid], &BTreeMap::from([(node(1), facts)]));
        assert_eq!(ranking[0].score, u64::MAX);
    }

    #[test]
    fn the_winner_is_explained() {
        let scored = |cost, ms| Scored {
            worker: node(1),
            bid: Hash([0; 32]),
            score: 0,
            expected_cost: MicroUsd(cost),
            expected_ms: (ms > 0).then_some(ms),
        };
        let check = |costs: &[(u64, u64)], expected: &str| {
            let ranking: Vec<_> = costs.iter().map(|(cost, ms)| scored(*cost, *ms)).collect();
            assert_eq!(explain(&ranking), expected);
        };
        check(&[], "no bids");
        check(&[(21, 900)], "the only bid: $0.000021 expected, 900 ms");
        check(
            &[(21, 900), (34, 780), (50, 2_000)],
            "cheapest of 3: $0.000021 expected, 38 % below the next; 120 ms slower than the fastest",
        );
        check(
            &[(30, 500), (20, 9_000)],
            "fastest of 2: $0.000030 expected, 50 % above the cheapest; 8500 ms faster than the next",
        );
        check(&[(21, 0)], "the only bid: $0.000021 expected, speed not measured");
        let unknown = "$0.000021 expected, 38 % below the next; their speeds are not all measured";
        check(&[(21, 900), (34, 0), (50, 2_000)], &format!("cheapest of 3: {unknown}"));
        check(&[(21, 0), (34, 900)], &format!("cheapest of 2: {unknown}"));
        check(&[(0, 5), (0, 5)], "cheapest and fastest of 2: $0.000000 expected, as the next; as fast as the next");
    }
}
