//! Who usually answers, and how fast. It decides for whom an auction is kept open.
//!
//! Times are smoothed as TCP smooths round trips (RFC 6298): a mean and a mean deviation; an answer is late after the mean and
//! four deviations.
//!
//! An ad costs nothing, so an ad alone makes nobody worth waiting for. What counts is [`Regard`], which is earned:
//!
//! - a **stranger** never answered;
//! - a **believed** worker answers, and its bids keep what its ad promises;
//! - a **doubted** one answers, but refused, bid above its ad, or came when it had been waited for in vain;
//! - a **silent** one has not answered twice in a row.
//!
//! Without doubt, a worker with a tempting ad could hold every auction open and never have to serve: by refusing late, or by
//! bidding just after the buyer has stopped waiting. Doubt fades slowly with kept, if late, bids: such a worker costs a wait in
//! one auction of eight, and an honest one is waited for again at once after a bid in time.

use super::recent::Recent;
use infernet_wire::{bid::Answer, id::NodeId, money::Price};

/// Workers whose records are kept: far more than the 32 that answer one auction.
pub const MAX_RECORDS: usize = 4_096;
/// Misses in a row after which a worker counts as silent. One may be a lost packet.
pub const SILENT_AFTER: u8 = 2;
/// Milliseconds beyond the mean that everybody has: timers and schedulers are no finer (RFC 6298's clock granularity).
pub const LEAST_SPREAD_MS: u64 = 5;

/// What one broken promise adds to a worker's doubt, and so how many kept late bids make up for it.
const BREACH: u8 = 8;
/// Doubt from which a worker is not waited for: two broken promises.
const DOUBTED_FROM: u8 = 2 * BREACH;
/// Doubt grows no further, so that a worker that was busy for long can come back.
const MAX_DOUBT: u8 = 4 * BREACH;
/// Fractions of a millisecond, so that means of few milliseconds do not round to nothing.
const FINE: u64 = 16;

/// How a buyer regards a worker's promise to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regard {
    /// Answers as it advertises, usually within this many milliseconds.
    Believed {
        /// The mean and four deviations.
        usual_ms: u64,
    },
    /// Answers, but not as it advertises.
    Doubted,
    /// Never answered.
    Stranger,
    /// Did not answer lately.
    Silent,
}

/// How an answer compares with the worker's ad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// A bid no dearer than the ad.
    Kept,
    /// A refusal, or a dearer bid.
    Broken,
    /// We know of no ad that promised anything.
    NoneMade,
}

impl Promise {
    /// Compares `answer` with the price of an ad.
    pub fn of(answer: &Answer, standing: &Price) -> Self {
        match answer {
            Answer::Bid(bid) if bid.price.within(standing) => Promise::Kept,
            _ => Promise::Broken,
        }
    }
}

/// What is remembered of one worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// Auctions in which it was expected to answer or did.
    pub asked: u32,
    /// Those it answered, before the window's end.
    pub answered: u32,
    /// Those it missed since its last answer.
    misses: u8,
    doubt: u8,
    mean: u64,
    deviation: u64,
}

impl Record {
    fn regard(&self) -> Regard {
        match self {
            record if record.misses >= SILENT_AFTER => Regard::Silent,
            record if record.answered == 0 => Regard::Stranger,
            record if record.doubt >= DOUBTED_FROM => Regard::Doubted,
            record => Regard::Believed { usual_ms: record.usual_ms() },
        }
    }

    fn usual_ms(&self) -> u64 {
        (self.mean + (4 * self.deviation).max(LEAST_SPREAD_MS * FINE)).div_ceil(FINE)
    }

    fn count_answer(&mut self, ms: u64) {
        // No auction lasts a minute; the bound only keeps sums small.
        let sample = ms.min(60_000) * FINE;
        if self.answered == 0 {
            (self.mean, self.deviation) = (sample, sample / 2);
        } else {
            self.deviation = (3 * self.deviation + self.mean.abs_diff(sample)) / 4;
            self.mean = (7 * self.mean + sample) / 8;
        }
        self.answered = self.answered.saturating_add(1);
        self.misses = 0;
    }

    fn count_breach(&mut self) {
        self.doubt = self.doubt.saturating_add(BREACH).min(MAX_DOUBT);
    }
}

/// The records of all workers met. Bounded.
#[derive(Debug, Clone)]
pub struct AnswerRecords {
    records: Recent<NodeId, Record>,
}

impl Default for AnswerRecords {
    fn default() -> Self {
        AnswerRecords { records: Recent::new(MAX_RECORDS) }
    }
}

impl AnswerRecords {
    /// How `worker` is regarded.
    pub fn regard(&self, worker: &NodeId) -> Regard {
        self.records.get(worker).map_or(Regard::Stranger, Record::regard)
    }

    /// The record of `worker`, if it was ever asked.
    pub fn get(&self, worker: &NodeId) -> Option<&Record> {
        self.records.get(worker)
    }

    /// `worker` answered after `ms`, while the auction was open.
    pub fn answered(&mut self, worker: NodeId, ms: u64, promise: Promise) {
        self.records.update(worker, |record| {
            record.asked = record.asked.saturating_add(1);
            record.count_answer(ms);
            match promise {
                Promise::Kept => record.doubt = 0,
                Promise::Broken => record.count_breach(),
                Promise::NoneMade => {}
            }
        });
    }

    /// The auction closed without `worker`. `waited_out` tells whether it had its usual time.
    pub fn missed(&mut self, worker: NodeId, waited_out: bool) {
        self.records.update(worker, |record| {
            record.asked = record.asked.saturating_add(1);
            record.misses = record.misses.saturating_add(1);
            if waited_out {
                record.count_breach();
            }
        });
    }

    /// `worker` answered after `ms`, when the auction had closed early: so a slow worker is not silent, and next time it is
    /// known how long it takes.
    pub fn answered_late(&mut self, worker: NodeId, ms: u64, promise: Promise) {
        self.records.update(worker, |record| {
            record.count_answer(ms);
            match promise {
                Promise::Kept => record.doubt = record.doubt.saturating_sub(1),
                Promise::Broken => record.count_breach(),
                Promise::NoneMade => {}
            }
        });
    }

    /// All workers remembered.
    pub fn workers(&self) -> impl Iterator<Item = NodeId> {
        self.records.iter().map(|(worker, _)| *worker)
    }

    /// How many workers are remembered.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::node;

    const BELIEVED: Regard = Regard::Believed { usual_ms: 1 + LEAST_SPREAD_MS };

    fn check(story: impl FnOnce(&mut AnswerRecords, NodeId), expected: Regard) {
        let (mut records, worker) = (AnswerRecords::default(), node(1));
        story(&mut records, worker);
        assert_eq!(records.regard(&worker), expected);
    }

    #[test]
    fn regard_is_earned_and_lost() {
        check(|_, _| {}, Regard::Stranger);
        check(|records, w| records.missed(w, false), Regard::Stranger);
        check(|records, w| records.answered(w, 1, Promise::Kept), BELIEVED);
        check(
            |records, w| {
                records.missed(w, false);
                records.missed(w, false);
            },
            Regard::Silent,
        );
    }

    #[test]
    fn a_late_answer_ends_the_silence() {
        check(
            |records, w| {
                (0..9).for_each(|_| records.missed(w, false));
                records.answered_late(w, 1, Promise::Kept);
            },
            BELIEVED,
        );
    }

    #[test]
    fn refusals_bring_doubt_and_one_kept_bid_ends_it() {
        let refuse = |records: &mut AnswerRecords, w, times| (0..times).for_each(|_| records.answered(w, 1, Promise::Broken));
        check(|records, w| refuse(records, w, 1), BELIEVED);
        check(|records, w| refuse(records, w, 2), Regard::Doubted);
        check(
            |records, w| {
                refuse(records, w, 99);
                records.answered(w, 1, Promise::Kept);
            },
            BELIEVED,
        );
    }

    #[test]
    fn who_bids_only_when_nobody_waits_is_waited_for_in_one_auction_of_eight() {
        let (mut records, w) = (AnswerRecords::default(), node(1));
        let mut waits = 0;
        for _ in 0..80 {
            let waited = matches!(records.regard(&w), Regard::Believed { .. });
            waits += u32::from(waited);
            records.missed(w, waited);
            records.answered_late(w, 1_000, Promise::Kept);
        }
        assert!((8..=12).contains(&waits), "{waits}");
    }

    #[test]
    fn usual_time_follows_the_mean_and_its_spread() {
        let usual = |samples: &[u64]| {
            let mut records = AnswerRecords::default();
            samples.iter().for_each(|ms| records.answered(node(1), *ms, Promise::Kept));
            match records.regard(&node(1)) {
                Regard::Believed { usual_ms } => usual_ms,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(usual(&[2; 50]), 2 + LEAST_SPREAD_MS);
        assert!((100..110).contains(&usual(&[100; 50])), "{}", usual(&[100; 50]));
        assert!(usual(&[80, 120, 80, 120, 80, 120, 80, 120]) > 140);
        assert!(usual(&[u64::MAX]) < 200_000);
    }
}
