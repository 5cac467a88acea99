//! The seller's state, for people and scripts: a schema of its own, filled from the decider.

use crate::market::{
    outcome::{Asked, Outcome as MarketOutcome},
    seller as market,
};
use infernet_wire::{id::Hash, money::Price};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The seller's state.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Jobs running.
    pub running: usize,
    /// Jobs whose answer is over and whose receipt is being signed. They take no slot.
    #[serde(default)]
    pub settling: usize,
    /// Slots held for bids.
    pub held: usize,
    /// Slots in all.
    pub slots: u16,
    /// Models served.
    pub models: Vec<String>,
    /// What each of them costs now.
    #[serde(default)]
    pub prices: Vec<Offered>,
    /// Why nothing is sold for a while, by the operator's own policy; absent if it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub closed: Option<ClosedReport>,
    /// Bids, refusals and losses by reason.
    pub counters: BTreeMap<String, u64>,
    /// What became of the last offers, the oldest first; at most 64.
    #[serde(default)]
    pub recent: Vec<Outcome>,
    /// Models that buyers asked for and we do not serve, and how often; the 64 heard of last.
    #[serde(default)]
    pub wanted: BTreeMap<String, u64>,
    /// How many different buyers asked for each of them; 16 stands for more, too.
    #[serde(default)]
    pub wanted_by: BTreeMap<String, u64>,
    /// Whether it takes no new jobs, because it was told so.
    #[serde(default)]
    pub draining: bool,
}

impl Status {
    /// Jobs that are not over: those that run, and those whose receipt is being signed.
    pub fn under_way(&self) -> usize {
        self.running + self.settling
    }
}

/// A model and its price now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Offered {
    /// The model.
    pub model: String,
    /// Micro-USD per million input tokens.
    pub price_in: u64,
    /// Micro-USD per million output tokens.
    pub price_out: u64,
}

impl Offered {
    pub(super) fn new(model: &str, price: Price) -> Self {
        Offered { model: model.into(), price_in: price.input.0, price_out: price.output.0 }
    }
}

/// Why nothing is sold for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedReport {
    /// `off_schedule`, `too_hot`, `too_much_power` or `busy_host`.
    pub reason: String,
    /// When it opens, at the earliest, in unix milliseconds; absent where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub opens: Option<u64>,
}

/// What became of one offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// When it was known, in unix milliseconds.
    pub at: u64,
    /// Digest of the offer.
    #[schemars(with = "String")]
    pub offer: Hash,
    /// The model asked for.
    pub model: String,
    /// `won`; `standing`, if our ad was taken without an auction; a bid that came to nothing: `dearer`, `slower`, `outranked`, `lapsed`, `superseded`; or why we did not bid, as
    /// in the counters below `no_bid.`.
    pub reason: String,
    /// Whether we bid, or our ad was taken.
    pub bid: bool,
    /// The most that the buyer would pay.
    pub ceiling: Asking,
    /// What we asked, if we bid.
    pub ours: Option<Asking>,
    /// What the winner asked, if it is another and told.
    pub winner: Option<Asking>,
}

/// A price, and what a job at it was expected to cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Asking {
    /// Micro-USD per million input tokens.
    pub price_in: u64,
    /// Micro-USD per million output tokens.
    pub price_out: u64,
    /// The buyer's score in micro-USD, time included: the lowest wins. Ours is without what only the buyer knows. Absent for
    /// a ceiling.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<u64>,
}

impl Asking {
    fn new(price: Price, score: Option<u64>) -> Self {
        Asking { price_in: price.input.0, price_out: price.output.0, score }
    }
}

impl From<Asked> for Asking {
    fn from(asked: Asked) -> Self {
        Asking::new(asked.price, Some(asked.score))
    }
}

impl From<&MarketOutcome> for Outcome {
    fn from(outcome: &MarketOutcome) -> Self {
        Outcome {
            at: outcome.at.0,
            offer: outcome.offer,
            model: outcome.model.clone(),
            reason: outcome.ending.label().into(),
            bid: outcome.ours.is_some(),
            ceiling: Asking::new(outcome.ceiling, None),
            ours: outcome.ours.map(Asking::from),
            winner: outcome.winner.map(Asking::from),
        }
    }
}

/// Every count of the decider, under the names that people see.
pub(super) fn counters(market: &market::Seller) -> BTreeMap<String, u64> {
    let tally = market.tally();
    let mut counters: BTreeMap<String, u64> = [
        ("offers", tally.offers),
        ("bids", tally.bids),
        ("lost", tally.lost),
        ("lapsed", market.lapsed()),
        ("superseded", tally.superseded),
        ("claims", tally.claims),
        ("standing", tally.standing),
        ("finished", tally.finished),
    ]
    .map(|(name, n)| (name.to_owned(), n))
    .into();
    for (area, counts) in [
        ("no_bid", &tally.no_bids),
        ("ignored", &tally.ignored),
        ("lost", &tally.lost_by),
        ("claim_refused", &tally.claims_refused),
    ] {
        counters.extend(counts.iter().map(|(reason, n)| (format!("{area}.{reason}"), *n)));
    }
    counters
}
