//! The buyer's decider. It owns what a buyer knows (ads, answer records, observed facts) and its open auctions.
//!
//! The driver feeds it verified messages and time, and carries its outputs out; it signs and publishes the offers it opens.
//! After every input there is at most one [`Output::Wake`], the earliest time at which anything can change: it replaces all
//! earlier ones, and none means that nothing is open. A wake too many does no harm.

use super::{
    auction::{AnswerRefused, Auction, Closed, Heard, Missing, Step},
    rank::Facts,
    recent::Recent,
    record::{AnswerRecords, Promise},
    registry::{MAX_ADS, Registry},
    select,
};
use infernet_wire::{
    bid::Answer,
    capability::CapabilityAd,
    envelope::Verified,
    id::{Hash, NodeId},
    money::Price,
    offer::JobOffer,
    time::UnixMillis,
};
use std::collections::BTreeMap;

/// Auctions open at once. Workers keep one hold per buyer, so one key gains nothing from more than a few.
pub const MAX_OPEN_AUCTIONS: usize = 64;
/// Workers with observed facts: all that one buyer may deal with in months.
const MAX_FACTS: usize = 4_096;
/// Closed auctions for which late answers are still recorded: some tens of seconds at the allowed rate.
const MAX_CLOSED: usize = 256;
/// Jobs after which old ones count half, so that a worker can change for better or worse.
const JOBS_REMEMBERED: u32 = 64;

/// What a buyer is told.
#[derive(Debug)]
pub enum Input {
    /// A worker's ad.
    Ad(Verified<CapabilityAd>),
    /// Our own offer, signed, to be auctioned.
    Open(Verified<JobOffer>),
    /// A worker's answer.
    Answer(Answer),
    /// The caller has gone: forget the auction of this offer.
    Abandon(Hash),
    /// Time has passed.
    Wake,
}

/// What a buyer's driver has to do.
#[derive(Debug)]
pub enum Output {
    /// Send [`Input::Wake`] at this time, and not at any earlier one named before.
    Wake {
        /// When.
        at: UnixMillis,
    },
    /// An auction has ended.
    Closed {
        /// Digest of its offer.
        offer: Hash,
        /// How.
        outcome: Closed,
    },
    /// Too many auctions are open; this one was not begun.
    Busy {
        /// Digest of its offer.
        offer: Hash,
    },
    /// An answer did not count.
    Refused {
        /// Whose.
        worker: NodeId,
        /// Why.
        reason: AnswerRefused,
    },
}

/// What the driver saw of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// A round trip, in milliseconds.
    Rtt(u32),
    /// A job ended well.
    Completed {
        /// From the accept to the first token, without the round trip.
        ttft_ms: u32,
        /// Tokens per second while streaming.
        tps: u32,
    },
    /// A job failed by the worker's fault.
    Failed,
}

/// A closed auction, as far as late answers concern it.
#[derive(Debug, Clone)]
struct Past {
    opened: UnixMillis,
    window_end: UnixMillis,
    missing: BTreeMap<NodeId, Price>,
}

/// The buyer's side of the market.
#[derive(Debug)]
pub struct Buyer {
    registry: Registry,
    records: AnswerRecords,
    facts: Recent<NodeId, Facts>,
    open: BTreeMap<Hash, Auction>,
    past: Recent<Hash, Past>,
}

impl Default for Buyer {
    fn default() -> Self {
        Buyer::new(MAX_ADS)
    }
}

impl Buyer {
    /// A buyer that knows nobody and keeps at most `max_ads` ads.
    pub fn new(max_ads: usize) -> Self {
        Buyer {
            registry: Registry::new(max_ads),
            records: AnswerRecords::default(),
            facts: Recent::new(MAX_FACTS),
            open: BTreeMap::new(),
            past: Recent::new(MAX_CLOSED),
        }
    }

    /// Decides on one input.
    pub fn handle(&mut self, input: Input, now: UnixMillis) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Ad(ad) => {
                self.registry.insert(ad, now);
            }
            Input::Open(offer) => outputs.extend(self.on_open(offer, now)),
            Input::Answer(answer) => outputs.extend(self.on_answer(answer, now)),
            Input::Abandon(offer) => {
                self.open.remove(&offer);
            }
            Input::Wake => {}
        }
        self.close_finished(now, &mut outputs);
        outputs.extend(self.next_wake(now).map(|at| Output::Wake { at }));
        outputs
    }

    /// Takes note of what was seen of `worker`.
    pub fn observe(&mut self, worker: NodeId, observation: Observation) {
        self.facts.update(worker, |facts| facts.note(observation));
    }

    /// Who is there.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Who usually answers.
    pub fn records(&self) -> &AnswerRecords {
        &self.records
    }

    /// What was observed of `worker`.
    pub fn facts(&self, worker: &NodeId) -> Facts {
        self.facts.get(worker).copied().unwrap_or_default()
    }

    /// Auctions open now.
    pub fn open_auctions(&self) -> usize {
        self.open.len()
    }

    fn on_open(&mut self, offer: Verified<JobOffer>, now: UnixMillis) -> Option<Output> {
        let digest = offer.digest();
        if self.open.contains_key(&digest) || self.past.contains(&digest) {
            return None;
        }
        if self.open.len() >= MAX_OPEN_AUCTIONS {
            return Some(Output::Busy { offer: digest });
        }
        let candidates = select::selected(&digest, self.registry.candidates(&offer, now));
        let auction = Auction::open(offer, candidates, |worker| self.facts(worker), &self.records, now);
        self.open.insert(digest, auction);
        None
    }

    fn on_answer(&mut self, answer: Answer, now: UnixMillis) -> Option<Output> {
        let worker = answer.signer();
        let facts = self.facts(&worker);
        let heard = match self.open.get_mut(&answer.offer()) {
            Some(auction) => auction.on_answer(answer, facts, now),
            None => Err(self.on_late_answer(&answer, now)),
        };
        match heard {
            Ok(Heard { after_ms, promise }) => {
                self.records.answered(worker, after_ms, promise);
                None
            }
            Err(reason) => Some(Output::Refused { worker, reason }),
        }
    }

    /// An answer after an early close is no bid any more, but tells that its worker answers, and how fast.
    fn on_late_answer(&mut self, answer: &Answer, now: UnixMillis) -> AnswerRefused {
        let Some(past) = self.past.get_mut(&answer.offer()) else {
            return AnswerRefused::WrongOffer;
        };
        if now < past.window_end
            && let Some(price) = past.missing.remove(&answer.signer())
        {
            self.records.answered_late(answer.signer(), now.since(past.opened), Promise::of(answer, &price));
        }
        AnswerRefused::Late
    }

    fn close_finished(&mut self, now: UnixMillis, outputs: &mut Vec<Output>) {
        let finished = self.open.iter().filter_map(|(offer, auction)| match auction.step(now) {
            Step::Close(reason) => Some((*offer, reason)),
            Step::Wait { .. } => None,
        });
        for (offer, reason) in finished.collect::<Vec<_>>() {
            if let Some(auction) = self.open.remove(&offer) {
                self.remember(offer, &auction, now);
                outputs.push(Output::Closed { offer, outcome: auction.close(reason, now) });
            }
        }
    }

    fn remember(&mut self, offer: Hash, auction: &Auction, now: UnixMillis) {
        let missing: Vec<Missing> = auction.missing(now).collect();
        for worker in &missing {
            self.records.missed(worker.worker, worker.waited_out);
        }
        let missing = missing.into_iter().map(|missing| (missing.worker, missing.price)).collect();
        self.past.insert(offer, Past { opened: auction.opened(), window_end: auction.offer().window_end(), missing });
    }

    fn next_wake(&self, now: UnixMillis) -> Option<UnixMillis> {
        let waits = self.open.values().filter_map(|auction| match auction.step(now) {
            Step::Wait { until } => Some(until),
            Step::Close(_) => None,
        });
        waits.min()
    }
}

impl Facts {
    fn note(&mut self, observation: Observation) {
        match observation {
            Observation::Rtt(ms) => self.rtt_ms = smooth(self.rtt_ms, ms),
            Observation::Completed { ttft_ms, tps } => {
                self.measured_ttft_ms = smooth(self.measured_ttft_ms, ttft_ms);
                self.measured_tps = smooth(self.measured_tps, tps);
                self.completed += 1;
            }
            Observation::Failed => self.failed += 1,
        }
        if self.completed + self.failed > JOBS_REMEMBERED {
            (self.completed, self.failed) = (self.completed / 2, self.failed / 2);
        }
    }
}

/// A quarter of the new sample and three of the old mean.
fn smooth(mean: Option<u32>, sample: u32) -> Option<u32> {
    let mean = u64::from(mean.unwrap_or(sample));
    u32::try_from((3 * mean + u64::from(sample)).div_ceil(4)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, ad, at, bids, node, offer};

    fn facts(observations: &[Observation]) -> Facts {
        let mut buyer = Buyer::default();
        observations.iter().for_each(|observation| buyer.observe(node(1), *observation));
        buyer.facts(&node(1))
    }

    #[test]
    fn observations_are_smoothed() {
        let facts = facts(&[
            Observation::Rtt(10),
            Observation::Rtt(50),
            Observation::Completed { ttft_ms: 100, tps: 40 },
            Observation::Completed { ttft_ms: 200, tps: 40 },
        ]);
        assert_eq!((facts.rtt_ms, facts.measured_ttft_ms, facts.measured_tps), (Some(20), Some(125), Some(40)));
        assert_eq!((facts.completed, facts.failed), (2, 0));
    }

    #[test]
    fn old_failures_fade() {
        let mut story = vec![Observation::Failed; 60];
        story.extend([Observation::Completed { ttft_ms: 1, tps: 1 }; 200]);
        let facts = facts(&story);
        assert!(facts.failed < 4 && facts.completed > 20, "{facts:?}");
    }

    #[test]
    fn too_many_auctions_are_refused_at_once() {
        let mut buyer = Buyer::default();
        for id in 0..MAX_OPEN_AUCTIONS as u8 {
            let outputs = buyer.handle(Input::Open(offer(9, id, |_| {})), T0);
            assert!(matches!(outputs.as_slice(), [Output::Wake { at: wake }] if *wake == at(1_000)), "{outputs:?}");
        }
        let outputs = buyer.handle(Input::Open(offer(9, 255, |_| {})), T0);
        assert!(matches!(outputs.as_slice(), [Output::Busy { .. }, Output::Wake { .. }]), "{outputs:?}");
    }

    #[test]
    fn an_abandoned_auction_tells_nothing_and_blames_nobody() {
        let mut buyer = Buyer::default();
        buyer.handle(Input::Ad(ad(1, 1, 1, T0)), T0);
        let offer = offer(9, 1, |_| {});
        buyer.handle(Input::Open(offer.clone()), T0);
        assert!(buyer.handle(Input::Abandon(offer.digest()), T0).is_empty());
        let outputs = buyer.handle(Input::Answer(bids(1, &offer, 1)), at(5));
        assert!(matches!(outputs.as_slice(), [Output::Refused { reason: AnswerRefused::WrongOffer, .. }]), "{outputs:?}");
        assert!(buyer.records().is_empty());
    }

    #[test]
    fn a_replayed_input_changes_nothing() {
        let mut buyer = Buyer::default();
        (1..=2).for_each(|n| _ = buyer.handle(Input::Ad(ad(n, 1, 1_000_000, T0)), T0));
        let offer = offer(9, 1, |_| {});
        let script = || [Input::Open(offer.clone()), Input::Answer(bids(1, &offer, 1_000_000))];
        script().into_iter().for_each(|input| _ = buyer.handle(input, T0));
        let before = *buyer.records().get(&node(1)).expect("answered");
        for now in [T0, at(2_000), at(2_001)] {
            script().into_iter().for_each(|input| _ = buyer.handle(input, now));
        }
        assert_eq!(buyer.records().get(&node(1)), Some(&before));
        assert_eq!(buyer.open_auctions(), 0);
    }
}
