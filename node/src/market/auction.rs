//! One auction, from the offer to its outcome: collects answers, refuses those that do not count, and closes.
//!
//! When it closes is decided in [`super::patience`], who wins in [`super::rank`]. Facts about workers are taken as they are when
//! the auction opens or a worker bids, so the outcome is a function of what the [`Won`] holds and can be computed again.

use super::{
    patience::{Prospect, Reply, Situation},
    quote::price_job,
    rank::{self, Facts, Scored, Terms, Weight},
    record::AnswerRecords,
    registry::Candidate,
};
use infernet_wire::{
    bid::{Answer, JobBid, NoBid, NoBidReason, bids_commitment},
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
    /// Whether it is a bid no dearer than the worker's ad.
    pub kept: bool,
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
        }
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
        let kept = match answer {
            Answer::Bid(bid) => self.keep_bid(bid, facts, now),
            Answer::NoBid(no) => self.keep_refusal(no),
        };
        Ok(Heard { after_ms: now.since(self.opened), kept })
    }

    /// What to do at `now`. Idempotent; to be asked again after every answer.
    pub fn step(&self, now: UnixMillis) -> Step {
        Situation {
            rule: self.offer.rule,
            opened: self.opened,
            window_end: self.offer.window_end(),
            first_bid: self.first_bid,
            best: self.best,
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
            return Closed::NoBids { no_bids, asked: self.prospects.len(), reason, elapsed_ms };
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

    fn keep_bid(&mut self, bid: Verified<JobBid>, facts: Facts, now: UnixMillis) -> bool {
        let worker = bid.signer();
        let weight = Weight::of(&self.offer, &Terms::from(&*bid), &facts);
        let rule = self.offer.rule;
        if self.best.is_none_or(|best| weight.order(rule) < best.order(rule)) {
            self.best = Some(weight);
        }
        self.first_bid.get_or_insert(now);
        let kept = self.reply(&worker, Reply::Bid).is_some_and(|standing| bid.price.within(&standing));
        self.facts.insert(worker, facts);
        self.bids.insert(worker, bid);
        kept
    }

    fn keep_refusal(&mut self, no: Verified<NoBid>) -> bool {
        self.reply(&no.signer(), Reply::NoBid);
        self.no_bids.insert(no.signer(), no.reason);
        false
    }

    /// Notes a candidate's reply and returns its standing price.
    fn reply(&mut self, worker: &NodeId, reply: Reply) -> Option<Price> {
        let prospect = self.prospects.get_mut(worker)?;
        prospect.reply = reply;
        Some(prospect.price)
    }
}
