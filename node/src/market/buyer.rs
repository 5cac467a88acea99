//! The buyer's decider. It owns what a buyer knows (ads, answer records, observed facts) and its open auctions.
//!
//! The driver feeds it verified messages and time, and carries its outputs out; it signs and publishes the offers it opens.
//! After every input there is at most one [`Output::Wake`], the earliest time at which anything can change: it replaces all
//! earlier ones, and none means that nothing is open. A wake too many does no harm.

mod standing;

use super::{
    affinity::{Affinity, Conversation, Warm},
    auction::{AnswerRefused, Auction, Closed, Heard, Missing, Step},
    rank::{Facts, Terms, Weight},
    recent::Recent,
    record::{AnswerRecords, Promise, Regard},
    registry::{Listening, MAX_ADS, Registry},
    reputation::Reputation,
    select::{self, Guest},
    standing::PathChoice,
    trust::{LeftOut, Trust},
};
use infernet_wire::{
    bid::Answer,
    capability::{CapabilityAd, ModelAd},
    envelope::Verified,
    id::{Hash, NodeId},
    limits::MAX_BIDDERS,
    money::Price,
    offer::{Invitation, JobOffer},
    receipt::SignedReceipt,
    time::UnixMillis,
};
use std::{collections::BTreeMap, sync::Arc};

/// Auctions open at once. Workers keep one hold per buyer, so one key gains nothing from more than a few.
pub const MAX_OPEN_AUCTIONS: usize = 64;
/// Workers with observed facts: all that one buyer may deal with in months.
const MAX_FACTS: usize = 4_096;
/// Closed auctions for which late answers are still recorded: some tens of seconds at the allowed rate.
const MAX_CLOSED: usize = 256;
/// Models for which the time of the last auction is remembered.
const MAX_MODELS: usize = 1_024;
/// Jobs after which old ones count half, so that a worker can change for better or worse.
const JOBS_REMEMBERED: u32 = 64;

/// What a buyer is told.
#[derive(Debug)]
pub enum Input {
    /// A worker's ad.
    Ad(Verified<CapabilityAd>),
    /// Our own offer, signed, to be auctioned; and what the offer does not tell.
    Open(Verified<JobOffer>, Arc<Wishes>),
    /// Somebody's receipt.
    Receipt(Box<SignedReceipt>),
    /// A worker's answer.
    Answer(Answer),
    /// The caller has gone: forget the auction of this offer.
    Abandon(Hash),
    /// Time has passed.
    Wake,
}

/// What a buyer wants that it tells nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Whom it deals with.
    pub trust: Trust,
    /// How the job may find its worker.
    pub path: PathChoice,
    /// The conversation that the job goes on with.
    pub conversation: Conversation,
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
    /// A job of an earlier run of this node was settled with it.
    Settled,
}

/// A closed auction, as far as late answers concern it.
#[derive(Debug, Clone)]
struct Past {
    opened: UnixMillis,
    window_end: UnixMillis,
    missing: BTreeMap<NodeId, Price>,
}

/// An open auction with the wishes behind it.
#[derive(Debug)]
struct Open {
    auction: Auction,
    wishes: Arc<Wishes>,
    warm: Option<Warm>,
}

/// The buyer's side of the market.
#[derive(Debug)]
pub struct Buyer {
    registry: Registry,
    listening: Listening,
    records: AnswerRecords,
    facts: Recent<NodeId, Facts>,
    reputation: Reputation,
    affinity: Affinity,
    open: BTreeMap<Hash, Open>,
    past: Recent<Hash, Past>,
    /// When a model was auctioned last, by the name asked for.
    auctioned: Recent<String, UnixMillis>,
    /// Workers that said they are busy, until when they are believed.
    busy: Recent<NodeId, UnixMillis>,
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
            listening: Listening::default(),
            records: AnswerRecords::default(),
            facts: Recent::new(MAX_FACTS),
            reputation: Reputation::default(),
            affinity: Affinity::default(),
            open: BTreeMap::new(),
            past: Recent::new(MAX_CLOSED),
            auctioned: Recent::new(MAX_MODELS),
            busy: Recent::new(MAX_FACTS),
        }
    }

    /// Decides on one input.
    pub fn handle(&mut self, input: Input, now: UnixMillis) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Ad(ad) => {
                self.listening.heard(now);
                self.registry.insert(ad, now);
            }
            Input::Open(offer, wishes) => outputs.extend(self.on_open(offer, wishes, now)),
            Input::Receipt(receipt) => self.reputation.heard(&receipt),
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
        if matches!(observation, Observation::Completed { .. } | Observation::Settled) {
            self.reputation.settled(worker);
            self.busy.remove(&worker);
        }
        self.facts.update(worker, |facts| facts.note(observation));
    }

    /// `worker` has answered `conversation`: it need not read that part again.
    pub fn answered(&mut self, conversation: &Conversation, worker: NodeId, now: UnixMillis) {
        self.affinity.answered(conversation, worker, now);
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

    /// The reputation of `worker`.
    pub fn reputation(&self, worker: &NodeId) -> u32 {
        self.reputation.of(worker)
    }

    /// How many workers that serve the model of `offer` the wish for `trust` leaves out, by filter.
    pub fn left_out(&self, model: &str, trust: &Trust, now: UnixMillis) -> BTreeMap<LeftOut, usize> {
        let mut left_out = BTreeMap::new();
        let serves = |ad: &CapabilityAd| ad.models.iter().any(|offered| offered.answers_to(model));
        for (worker, ad) in self.registry.workers(now).filter(|(_, ad)| serves(ad)) {
            if let Err(filter) = trust.judge(worker, Some(ad), self.reputation.of(worker)) {
                *left_out.entry(filter).or_default() += 1;
            }
        }
        left_out
    }

    fn is_trusted(&self, worker: &NodeId, trust: &Trust, now: UnixMillis) -> bool {
        let ad = self.registry.get(worker, now).map(|ad| &**ad);
        trust.judge(worker, ad, self.reputation.of(worker)).is_ok()
    }

    /// What was observed of `worker`, and what it would have to read again.
    fn facts_for(&self, worker: &NodeId, warm: Option<Warm>) -> Facts {
        Facts { reread_tokens: warm.map_or(0, |warm| warm.reread_by(worker)), ..self.facts(worker) }
    }

    /// Whom `offer` should invite, as it stands in [`JobOffer::invited`]; nobody if all that can serve it answer anyway.
    pub fn invite(&self, offer: &JobOffer, wishes: &Wishes, now: UnixMillis) -> Vec<Invitation> {
        let warm = self.affinity.warm(&wishes.conversation, now);
        let suitable = self.registry.matching(offer, now).filter(|(worker, ..)| self.is_trusted(worker, &wishes.trust, now));
        let guest = |(worker, _, model): (NodeId, u16, &ModelAd)| {
            let facts = self.facts_for(&worker, warm);
            let order = Weight::of(offer, &Terms::from(model), &facts).order(offer.rule);
            Guest { worker, order, proven: facts.in_row > 0, has_past: self.reputation.of(&worker) > 0 }
        };
        select::invite(offer, suitable.map(guest).collect(), &self.records)
    }

    /// Workers that could serve `offer` and have not been asked yet, or not often enough to be called silent.
    pub fn may_still_answer(&self, offer: &JobOffer, now: UnixMillis) -> bool {
        self.registry.matching(offer, now).any(|(worker, ..)| self.records.regard(&worker) != Regard::Silent)
    }

    /// Auctions open now.
    pub fn open_auctions(&self) -> usize {
        self.open.len()
    }

    fn on_open(&mut self, offer: Verified<JobOffer>, wishes: Arc<Wishes>, now: UnixMillis) -> Option<Output> {
        let digest = offer.digest();
        if self.open.contains_key(&digest) || self.past.contains(&digest) {
            return None;
        }
        if self.open.len() >= MAX_OPEN_AUCTIONS {
            return Some(Output::Busy { offer: digest });
        }
        self.auctioned.insert(offer.model.clone(), now);
        // Who answers is decided among all: workers don't know whom we trust.
        let mut candidates = select::selected(&offer, &digest, self.registry.candidates(&offer, now));
        candidates.retain(|candidate| self.is_trusted(&candidate.worker, &wishes.trust, now));
        let warm = self.affinity.warm(&wishes.conversation, now);
        let unserved = self.listening.is_long(now) && self.registry.serving(&offer, now).next().is_none();
        let auction = Auction::open(offer, candidates, |worker| self.facts_for(worker, warm), &self.records, now);
        let auction = if unserved { auction.unserved() } else { auction };
        self.open.insert(digest, Open { auction, wishes, warm });
        None
    }

    fn on_answer(&mut self, answer: Answer, now: UnixMillis) -> Option<Output> {
        let worker = answer.signer();
        let heard = match self.open.get(&answer.offer()) {
            Some(open) if !self.is_trusted(&worker, &open.wishes.trust, now) => Err(AnswerRefused::Untrusted),
            Some(open) => {
                let advertised = self.registry.get(&worker, now).is_some();
                let facts = Facts { advertised, ..self.facts_for(&worker, open.warm) };
                self.take_answer(answer, facts, now)
            }
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

    fn take_answer(&mut self, answer: Answer, facts: Facts, now: UnixMillis) -> Result<Heard, AnswerRefused> {
        let open = self.open.get_mut(&answer.offer()).ok_or(AnswerRefused::WrongOffer)?;
        open.auction.on_answer(answer, facts, now)
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
        let finished = self.open.iter().filter_map(|(offer, open)| match open.auction.step(now) {
            Step::Close(reason) => Some((*offer, reason)),
            Step::Wait { .. } => None,
        });
        for (offer, reason) in finished.collect::<Vec<_>>() {
            if let Some(Open { auction, .. }) = self.open.remove(&offer) {
                self.remember(offer, &auction, now);
                let body = auction.offer().clone();
                let mut outcome = auction.close(reason, now);
                if let Closed::NoBids { others, asked, .. } = &mut outcome {
                    *others = *asked >= MAX_BIDDERS / 2 && self.may_still_answer(&body, now);
                }
                outputs.push(Output::Closed { offer, outcome });
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
        let waits = self.open.values().filter_map(|open| match open.auction.step(now) {
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
                self.count_completed();
            }
            Observation::Settled => self.count_completed(),
            Observation::Failed => (self.failed, self.in_row) = (self.failed + 1, 0),
        }
        if self.completed + self.failed > JOBS_REMEMBERED {
            (self.completed, self.failed) = (self.completed / 2, self.failed / 2);
        }
    }

    fn count_completed(&mut self) {
        self.completed += 1;
        self.in_row = self.in_row.saturating_add(1);
    }
}

/// A quarter of the new sample and three of the old mean.
fn smooth(mean: Option<u32>, sample: u32) -> Option<u32> {
    let mean = u64::from(mean.unwrap_or(sample));
    u32::try_from((3 * mean + u64::from(sample)).div_ceil(4)).ok()
}

#[cfg(test)]
mod tests;
