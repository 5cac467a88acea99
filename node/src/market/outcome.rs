//! What became of the last offers, for an operator who asks why nothing is earned.
//!
//! A loser learns the winner's price and score from the accept on the topic. Compared with its own bid that tells what to
//! change: the price, the speed, or, when its own bid looks better, what the buyer has seen of it.

use super::rank::{Facts, Terms, Weight};
use infernet_wire::{accept::JobAccept, bid::NoBidReason, id::Hash, money::Price, offer::JobOffer, time::UnixMillis};
use std::collections::VecDeque;

/// Outcomes kept: a screen, and enough for a percentage.
const MAX_OUTCOMES: usize = 64;

/// How an offer ended for this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It got the job.
    Won,
    /// There was no auction: the buyer took our ad at its price.
    Standing,
    /// The winner costs less.
    Dearer,
    /// The winner costs no less, but is sooner done.
    Slower,
    /// By price and claimed speed our bid was no worse: the buyer knows more, such as our failures or the way to us.
    Outranked,
    /// Nobody told what became of our bid until its hold was over.
    Lapsed,
    /// The buyer made a newer offer before it decided on this one.
    Superseded,
    /// We did not bid.
    Refused(NoBidReason),
}

impl Ending {
    /// A short stable name, for counters.
    pub fn label(self) -> &'static str {
        match self {
            Ending::Won => "won",
            Ending::Standing => "standing",
            Ending::Dearer => "dearer",
            Ending::Slower => "slower",
            Ending::Outranked => "outranked",
            Ending::Lapsed => "lapsed",
            Ending::Superseded => "superseded",
            Ending::Refused(reason) => reason.label(),
        }
    }
}

/// What became of one offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// When it was known.
    pub at: UnixMillis,
    /// Digest of the offer.
    pub offer: Hash,
    /// The model asked for.
    pub model: String,
    /// The most that the buyer would pay.
    pub ceiling: Price,
    /// How it ended.
    pub ending: Ending,
    /// What we asked, if we bid.
    pub ours: Option<Asked>,
    /// What the winner asked, if it is another and known.
    pub winner: Option<Asked>,
}

/// A price, and what the job was expected to cost with time included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Per million tokens.
    pub price: Price,
    /// The buyer's score in micro-USD; ours is without what the buyer observed.
    pub score: u64,
}

/// Why our bid lost to the one that `accept` names.
pub fn why_lost(offer: &JobOffer, ours: Asked, accept: &JobAccept) -> Ending {
    let cost = |price| {
        let terms = Terms { price, queue_ms: 0, ttft_ms: 0, tokens_per_second: 0 };
        Weight::of(offer, &terms, &Facts::default()).likely_cost()
    };
    match () {
        () if cost(ours.price) > cost(accept.price) => Ending::Dearer,
        () if ours.score > accept.score => Ending::Slower,
        () => Ending::Outranked,
    }
}

/// The last outcomes.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    last: VecDeque<Outcome>,
}

impl Outcomes {
    /// Keeps one more; the oldest goes if there is no room.
    pub fn push(&mut self, outcome: Outcome) {
        if self.last.len() >= MAX_OUTCOMES {
            self.last.pop_front();
        }
        self.last.push_back(outcome);
    }

    /// The oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Outcome> {
        self.last.iter()
    }
}
