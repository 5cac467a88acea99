//! One auction, from the offer to its outcome: collects answers, refuses those that do not count, and closes.
//!
//! When it closes is decided in [`super::patience`], who wins in [`super::rank`]. Facts about workers are taken as they are when
//! the auction opens or a worker bids, so the outcome is a function of what the [`Won`] holds and can be computed again.

use super::{
    patience::{Prospect, Reply, Situation},
    quote::price_job,
    rank::{self, Facts, Scored, Terms, Weight},
    record::{AnswerRecords, Promise},
    registry::Candidate,
};
use infernet_wire::{
    bid::{Answer, JobBid, NoBidReason, bids_commitment},
    capability::ModelAd,
    envelope::Verified,
    id::{Hash, NodeId},
    limits::MAX_BIDDERS,
    money::Price,
    offer::JobOffer,
    time::UnixMillis,
};
use std::{collections::BTreeMap, fmt};

pub use super::patience::{CloseReason, Step};

/// Answers from workers that were not expected to answer: views of the network differ a little, so some are honest. Counted
/// apart, so that they never crowd out a candidate.
const MAX_UNEXPECTED: usize = MAX_BIDDERS;

/// Why an answer does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnswerRefused {
    /// It answers no open auction of ours.
    WrongOffer,
    /// It came after the end.
    Late,
    /// The worker has answered before: the first answer binds.
    Duplicate,
    /// Its price is above the ceiling.
    AboveCeiling,
    /// At its price the job could cost more than the budget.
    OverBudget,
    /// The model is neither the one asked for nor the one advertised.
    WrongModel,
    /// Its hold ends before the window does.
    NotHeldLongEnough,
    /// Too many have answered that were not expected to.
    Full,
    /// The buyer does not deal with this worker.
    Untrusted,
}

impl AnswerRefused {
    /// A short stable name, for counters.
    pub fn label(self) -> &'static str {
        match self {
            AnswerRefused::WrongOffer => "wrong_offer",
            AnswerRefused::Late => "late",
            AnswerRefused::Duplicate => "duplicate",
            AnswerRefused::AboveCeiling => "above_ceiling",
            AnswerRefused::OverBudget => "over_budget",
            AnswerRefused::WrongModel => "wrong_model",
            AnswerRefused::NotHeldLongEnough => "not_held_long_enough",
            AnswerRefused::Full => "full",
            AnswerRefused::Untrusted => "untrusted",
        }
    }
}

impl fmt::Display for AnswerRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// An answer that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// How long it took.
    pub after_ms: u64,
    /// Whether it keeps what the worker's ad promised.
    pub promise: Promise,
}

/// An auction that is open.
#[derive(Debug, Clone)]
pub struct Auction {
    offer: Verified<JobOffer>,
    opened: UnixMillis,
    prospects: BTreeMap<NodeId, Prospect>,
    bids: BTreeMap<NodeId, Verified<JobBid>>,
    no_bids: BTreeMap<NodeId, NoBidReason>,
    facts: BTreeMap<NodeId, Facts>,
    best: Option<Weight>,
    first_bid: Option<UnixMillis>,
    unserved: bool,
}

/// How an auction ended.
#[derive(Debug, Clone)]
pub enum Closed {
    /// Somebody won.
    Won(Box<Won>),
    /// Nobody bid.
    NoBids {
        /// Who refused, and why.
        no_bids: Vec<(NodeId, NoBidReason)>,
        /// How many workers were expected to answer.
        asked: usize,
        /// Whether others, whose turn it was not, could still be asked.
        others: bool,
        /// Why it closed.
        reason: CloseReason,
        /// How long it was open.
        elapsed_ms: u64,
    },
}

/// A won auction, with all that is needed to compute the winner again.
#[derive(Debug, Clone)]
pub struct Won {
    /// The offer.
    pub offer: Verified<JobOffer>,
    /// When it opened, by our clock.
    pub opened: UnixMillis,
    /// All bids, best first; never empty.
    pub ranking: Vec<Scored>,
    /// The bids by worker.
    pub bids: BTreeMap<NodeId, Verified<JobBid>>,
    /// What was known of the bidders.
    pub facts: BTreeMap<NodeId, Facts>,
    /// Who refused, and why.
    pub no_bids: Vec<(NodeId, NoBidReason)>,
    /// Why it closed.
    pub reason: CloseReason,
    /// How long it was open.
    pub elapsed_ms: u64,
    /// [`bids_commitment`] to the bids.
    pub commitment: Hash,
}

/// A candidate that had not answered at the close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The worker.
    pub worker: NodeId,
    /// The price in its ad.
    pub price: Price,
    /// Whether it had had its usual time.
    pub waited_out: bool,
}

impl Auction {
    /// Opens an auction among `candidates`, those that [`super::select`] says will answer. `facts` is asked for each of them.
    pub fn open(
        offer: Verified<JobOffer>,
        candidates: Vec<Candidate>,
        facts: impl Fn(&NodeId) -> Facts,
        records: &AnswerRecords,
        now: UnixMillis,
    ) -> Self {
        let prospect = |candidate: Candidate| {
            let standing = Weight::of(&offer, &Terms::from(&candidate.model), &facts(&candidate.worker));
            let (ModelAd { price, id: model, .. }, regard) = (candidate.model, records.regard(&candidate.worker));
            (candidate.worker, Prospect { standing, price, model, regard, reply: Reply::Missing })
        };
        let prospects = candidates.into_iter().map(prospect).collect();
        Auction {
            offer,
            opened: now,
            prospects,
            bids: BTreeMap::new(),
            no_bids: BTreeMap::new(),
            facts: BTreeMap::new(),
            best: None,
            first_bid: None,
            unserved: false,
        }
    }

    /// The same, not to be waited for long: no live ad names the model.
    pub fn unserved(self) -> Self {
        Auction { unserved: true, ..self }
    }

    /// The offer.
    pub fn offer(&self) -> &Verified<JobOffer> {
        &self.offer
    }

    /// When it opened.
    pub fn opened(&self) -> UnixMillis {
        self.opened
    }

    /// Takes an answer, with what is known of its signer.
    pub fn on_answer(&mut self, answer: Answer, facts: Facts, now: UnixMillis) -> Result<Heard, AnswerRefused> {
        self.check_answer(&answer, now)?;
        let promise = self.note_reply(&answer);
        match answer {
            Answer::Bid(bid) => self.keep_bid(bid, facts, now),
            Answer::NoBid(no) => _ = self.no_bids.insert(no.signer(), no.reason),
        }
        Ok(Heard { after_ms: now.since(self.opened), promise })
    }

    /// What to do at `now`. Idempotent; to be asked again after every answer.
    pub fn step(&self, now: UnixMillis) -> Step {
        Situation {
            rule: self.offer.rule,
            opened: self.opened,
            window_end: self.offer.window_end(),
            first_bid: self.first_bid,
            best: self.best,
            bids: self.facts.values().filter(|facts| facts.advertised || self.prospects.is_empty()).count(),
            unserved: self.unserved,
            prospects: &self.prospects,
        }
        .step(now)
    }

    /// The candidates that have not answered.
    pub fn missing(&self, now: UnixMillis) -> impl Iterator<Item = Missing> {
        let missing = self.prospects.iter().filter(|(_, prospect)| prospect.reply == Reply::Missing);
        missing.map(move |(worker, prospect)| Missing {
            worker: *worker,
            price: prospect.price,
            waited_out: prospect.expected_by(self.opened).is_some_and(|by| by <= now),
        })
    }

    /// Ends it for `reason`, as [`Auction::step`] said.
    pub fn close(self, reason: CloseReason, now: UnixMillis) -> Closed {
        let elapsed_ms = now.since(self.opened);
        let no_bids = self.no_bids.into_iter().collect();
        if self.bids.is_empty() {
            return Closed::NoBids { no_bids, asked: self.prospects.len(), others: false, reason, elapsed_ms };
        }
        let bids: Vec<_> = self.bids.values().cloned().collect();
        Closed::Won(Box::new(Won {
            ranking: rank::rank(&self.offer, &bids, &self.facts),
            commitment: bids_commitment(bids.iter().map(Verified::digest).collect()),
            offer: self.offer,
            opened: self.opened,
            bids: self.bids,
            facts: self.facts,
            no_bids,
            reason,
            elapsed_ms,
        }))
    }

    fn check_answer(&self, answer: &Answer, now: UnixMillis) -> Result<(), AnswerRefused> {
        let worker = answer.signer();
        if answer.offer() != self.offer.digest() {
            return Err(AnswerRefused::WrongOffer);
        }
        if now >= self.offer.window_end() {
            return Err(AnswerRefused::Late);
        }
        if self.bids.contains_key(&worker) || self.no_bids.contains_key(&worker) {
            return Err(AnswerRefused::Duplicate);
        }
        if !self.prospects.contains_key(&worker) && self.unexpected() >= MAX_UNEXPECTED {
            return Err(AnswerRefused::Full);
        }
        match answer {
            Answer::Bid(bid) => self.check_bid(bid),
            Answer::NoBid(_) => Ok(()),
        }
    }

    /// How many have answered who were not expected to.
    fn unexpected(&self) -> usize {
        let expected = self.prospects.values().filter(|prospect| prospect.reply != Reply::Missing).count();
        (self.bids.len() + self.no_bids.len()).saturating_sub(expected)
    }

    fn check_bid(&self, bid: &Verified<JobBid>) -> Result<(), AnswerRefused> {
        price_job(&self.offer, bid.price).map_err(|reason| match reason {
            NoBidReason::CEILING_TOO_LOW => AnswerRefused::AboveCeiling,
            _ => AnswerRefused::OverBudget,
        })?;
        // A duration by the worker's own clock: see the parent module on clocks.
        if bid.hold_until.since(bid.issued) < self.offer.window_ms.into() {
            return Err(AnswerRefused::NotHeldLongEnough);
        }
        if self.model_suits(bid) { Ok(()) } else { Err(AnswerRefused::WrongModel) }
    }

    /// An alias can only be resolved by the worker's ad; without one the id itself must be what was asked for.
    fn model_suits(&self, bid: &Verified<JobBid>) -> bool {
        let advertised = self.prospects.get(&bid.signer()).is_some_and(|prospect| prospect.model == bid.model);
        advertised || ModelAd { id: bid.model.clone(), ..ModelAd::default() }.answers_to(&self.offer.model)
    }

    fn note_reply(&mut self, answer: &Answer) -> Promise {
        let Some(prospect) = self.prospects.get_mut(&answer.signer()) else {
            return Promise::NoneMade;
        };
        prospect.reply = if matches!(answer, Answer::Bid(_)) { Reply::Bid } else { Reply::NoBid };
        Promise::of(answer, &prospect.price)
    }

    fn keep_bid(&mut self, bid: Verified<JobBid>, facts: Facts, now: UnixMillis) {
        let (worker, rule) = (bid.signer(), self.offer.rule);
        let weight = Weight::of(&self.offer, &Terms::from(&*bid), &facts);
        // One that ranks last is no reason to wait less for others.
        if facts.advertised || self.prospects.is_empty() {
            if self.best.is_none_or(|best| weight.order(rule) < best.order(rule)) {
                self.best = Some(weight);
            }
            self.first_bid.get_or_insert(now);
        }
        self.facts.insert(worker, facts);
        self.bids.insert(worker, bid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, at, bid_with, bids, model, node, offer, offer_body, refuses};
    use infernet_wire::money::MicroUsd;

    fn open(offer: &Verified<JobOffer>, candidates: Vec<Candidate>) -> Auction {
        Auction::open(offer.clone(), candidates, |_| Facts::default(), &AnswerRecords::default(), T0)
    }

    fn check(change: impl FnOnce(&mut JobBid), expected: Option<AnswerRefused>) {
        let mut alias = model("weights-v2", 1, 1);
        alias.aliases = vec!["tiny".into()];
        let offer = offer(9, 1, |offer| offer.budget = MicroUsd(2_000));
        let mut auction = open(&offer, vec![Candidate { worker: node(1), model: alias, slots: 1 }]);
        let answer = Answer::Bid(bid_with(1, &offer, 1_000_000, change));
        assert_eq!(auction.on_answer(answer, Facts::default(), T0).err(), expected);
    }

    #[test]
    fn only_bids_on_the_offers_terms_count() {
        check(|_| {}, None);
        check(|bid| bid.model = "weights-v2".into(), None);
        check(|bid| bid.model = "TINY:latest".into(), None);
        check(|bid| bid.model = "tiniest".into(), Some(AnswerRefused::WrongModel));
        check(|bid| bid.price.input = MicroUsd(10_000_001), Some(AnswerRefused::AboveCeiling));
        check(|bid| bid.price.output = MicroUsd(9_500_000), None);
        check(|bid| bid.price.output = MicroUsd(9_500_001), Some(AnswerRefused::OverBudget));
        check(|bid| bid.hold_until = bid.issued.after(1_000), None);
        check(|bid| bid.hold_until = bid.issued.after(999), Some(AnswerRefused::NotHeldLongEnough));
        check(|bid| bid.offer = Hash([1; 32]), Some(AnswerRefused::WrongOffer));
    }

    #[test]
    fn a_workers_clock_does_not_matter() {
        let hour = 3_600_000;
        check(|bid| (bid.issued, bid.hold_until) = (at(hour), at(hour + 1_000)), None);
    }

    #[test]
    fn a_late_bid_is_refused() {
        let offer = offer(9, 1, |_| {});
        let mut auction = open(&offer, vec![]);
        let window = u64::from(offer_body().window_ms);
        assert!(auction.on_answer(bids(1, &offer, 1), Facts::default(), at(window - 1)).is_ok());
        assert_eq!(auction.on_answer(bids(2, &offer, 1), Facts::default(), at(window)).err(), Some(AnswerRefused::Late));
    }

    #[test]
    fn a_crowd_of_unexpected_bidders_leaves_room_for_the_expected() {
        let offer = offer(9, 1, |_| {});
        let mut auction = open(&offer, vec![Candidate { worker: node(1), model: model("tiny", 1, 1), slots: 1 }]);
        let refused = (2..50).filter(|n| auction.on_answer(bids(*n, &offer, 1), Facts::default(), T0).is_err()).count();
        assert_eq!(refused, 48 - MAX_UNEXPECTED);
        assert!(auction.on_answer(bids(1, &offer, 1), Facts::default(), T0).is_ok());
    }

    #[test]
    fn the_outcome_tells_who_refused_and_why() {
        let offer = offer(9, 1, |_| {});
        let mut auction = open(&offer, vec![]);
        let refusal = refuses(1, &offer, NoBidReason::DRAINING);
        assert!(auction.on_answer(refusal.clone(), Facts::default(), at(3)).is_ok());
        assert_eq!(auction.on_answer(refusal, Facts::default(), at(3)).err(), Some(AnswerRefused::Duplicate));
        match auction.close(CloseReason::WindowEnded, at(9)) {
            Closed::NoBids { no_bids, asked, elapsed_ms, .. } => {
                assert_eq!((no_bids.as_slice(), asked, elapsed_ms), ([(node(1), NoBidReason::DRAINING)].as_slice(), 0, 9));
            }
            other => panic!("{other:?}"),
        }
    }
}
