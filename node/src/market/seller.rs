//! The worker's decider. It owns the slots, the catalogue, and what is known of rivals.
//!
//! An offer's way: ours or another's? seen before? → can a model of the catalogue serve it ([`quote`])? → is it our turn to
//! answer ([`select`])? → is there a slot ([`Admission`])? → [`Output::Bid`]. The driver signs the bid, tells its digest with
//! [`Seller::bid_signed`], and sends it to the buyer only. When the buyer opens a stream, [`Seller::claim`] turns the hold into
//! a running job; [`Seller::finish`] frees the slot.
//!
//! Our own ads are bids too, to everybody: [`Seller::claim_standing`] takes a slot for whoever accepts one of them, at its price
//! and as long as it lives ([`OwnAds`]), if there is room.
//!
//! Who is not expected to answer stays silent, so that an offer is not met by refusals from a whole network: a worker that does
//! not serve the model never answers, unless its own last ad said it would.
//!
//! It does not know the engine, the stream or the request. Wakes follow the rule of [`super::buyer`].

mod claims;

use super::{
    admission::{Admission, HoldRequest},
    outcome::{Asked, Ending, Outcome, Outcomes, why_lost},
    own_ads::OwnAds,
    pricing::Pricing,
    quote::{self, Queue},
    rank::{Facts, Terms, Weight},
    recent::Recent,
    registry::{MAX_ADS, Registry},
    select,
};
use infernet_wire::{
    accept::JobAccept,
    bid::{JobBid, NoBid, NoBidReason},
    capability::{CapabilityAd, ModelAd, SocketAddrText},
    envelope::Verified,
    id::{Hash, JobId, NodeId},
    limits::HOLD_SLACK_MS,
    money::{MicroUsd, Price},
    offer::JobOffer,
    time::UnixMillis,
    topic::INFERENCE,
};
use std::collections::{BTreeMap, BTreeSet};

/// Offers remembered, so that none is answered twice: as many as 200 busy buyers publish in an offer's life.
const MAX_SEEN_OFFERS: usize = 32_768;
/// A price that has moved by so many percent since the last ad is advertised anew.
const PRICE_MOVED_PERCENT: u128 = 10;
/// Models that others ask for and we do not serve, counted for the operator.
const MAX_WANTED: usize = 64;
/// Buyers that are told apart for each of them: "many" needs no exact number, and 64 times as many are 35 kB.
const MAX_ASKERS: usize = 16;

/// What a worker is told.
#[derive(Debug)]
pub enum Input {
    /// A buyer's offer.
    Offer(Verified<JobOffer>),
    /// An accept seen on the topic: tells the losers. The winner's own comes by stream, to [`Seller::claim`].
    Accept(Verified<JobAccept>),
    /// A worker's ad, our own included.
    Ad(Verified<CapabilityAd>),
    /// Time has passed.
    Wake,
}

/// What a worker's driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Sign and send to the buyer; then call [`Seller::bid_signed`].
    Bid {
        /// To whom.
        buyer: NodeId,
        /// To be signed.
        body: JobBid,
    },
    /// Sign and send to the buyer.
    NoBid {
        /// To whom.
        buyer: NodeId,
        /// To be signed.
        body: NoBid,
    },
    /// Our bid lost; its hold is released.
    Lost {
        /// Digest of the offer.
        offer: Hash,
        /// Who won.
        winner: NodeId,
        /// The winner's score, as the buyer published it.
        winning_score: u64,
        /// Ours, as far as we can know: without what the buyer observed.
        our_score: u64,
        /// What follows from the two.
        why: Ending,
    },
    /// Send [`Input::Wake`] at this time, and not at any earlier one named before.
    Wake {
        /// When.
        at: UnixMillis,
    },
    /// An offer was left unanswered.
    Ignored(Ignored),
}

/// Why an offer was left unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ignored {
    /// Our own node's offer.
    Own,
    /// Seen before.
    Replayed,
    /// Of a workload that we do not serve.
    OtherWorkload,
    /// For a model that we do not serve and did not advertise.
    OtherModel,
    /// Others answer it.
    NotSelected,
    /// Of a newcomer, while newcomers waste what is held for them. A refusal would cost the network more than the offer did.
    Newcomer,
}

impl Ignored {
    /// A short stable name, for counters.
    pub fn label(self) -> &'static str {
        match self {
            Ignored::Own => "own",
            Ignored::Replayed => "replayed",
            Ignored::OtherWorkload => "other_workload",
            Ignored::OtherModel => "other_model",
            Ignored::NotSelected => "not_selected",
            Ignored::Newcomer => "newcomer",
        }
    }
}

/// A job that may run now: its slot is taken.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The job.
    pub job: JobId,
    /// Who pays.
    pub buyer: NodeId,
    /// The model, by our own id.
    pub model: String,
    /// The agreed price.
    pub price: Price,
    /// The offer: budget, caps, and the commitment that the request must match.
    pub offer: JobOffer,
    /// Digest of the accept.
    pub accept: Hash,
    /// Whether it took its slot without an auction.
    pub standing: bool,
    /// Units of the channel it is paid on for a micro-USD.
    pub rate: u128,
}

/// What happened so far, for metrics. What started is `offers`; it ends in `bids`, `no_bids` or `ignored`. Bids end in `lost`,
/// `lapsed` (see [`Seller::lapsed`]), `superseded`, or `claims`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Offers looked at.
    pub offers: u64,
    /// Bids made.
    pub bids: u64,
    /// Refusals, by reason.
    pub no_bids: BTreeMap<&'static str, u64>,
    /// Offers left unanswered, by reason.
    pub ignored: BTreeMap<&'static str, u64>,
    /// Bids that lost.
    pub lost: u64,
    /// The same, by reason.
    pub lost_by: BTreeMap<&'static str, u64>,
    /// Lost bids that were kept for a winner's failure until their hold was over.
    pub kept_in_vain: u64,
    /// Bids whose buyer made a newer offer first.
    pub superseded: u64,
    /// Holds that became jobs.
    pub claims: u64,
    /// Jobs at the standing price of our ad.
    pub standing: u64,
    /// Claims refused, by reason.
    pub claims_refused: BTreeMap<&'static str, u64>,
    /// Jobs ended, receipt and all.
    pub finished: u64,
}

/// How much a model is wanted that we do not serve.
#[derive(Debug, Clone, Default)]
pub struct Demand {
    offers: u64,
    buyers: BTreeSet<NodeId>,
}

impl Demand {
    fn count(&mut self, buyer: NodeId) {
        self.offers += 1;
        if self.buyers.len() < MAX_ASKERS {
            self.buyers.insert(buyer);
        }
    }

    /// Offers for it.
    pub fn offers(&self) -> u64 {
        self.offers
    }

    /// Different buyers that made them; beyond 16 they are not told apart.
    pub fn buyers(&self) -> u64 {
        self.buyers.len() as u64
    }
}

/// A bid that stands.
#[derive(Debug, Clone)]
struct OpenBid {
    offer: Verified<JobOffer>,
    model: String,
    asked: Asked,
    until: UnixMillis,
    /// Who is before us, while we are a runner-up, and why.
    behind: Option<(Ending, Asked)>,
}

impl OpenBid {
    fn outcome(&self, ending: Ending, winner: Option<Asked>, at: UnixMillis) -> Outcome {
        let (offer, model) = (self.offer.digest(), self.offer.model.clone());
        Outcome { at, offer, model, ceiling: self.offer.ceiling, ending, ours: Some(self.asked), winner }
    }
}

/// The worker's side of the market.
#[derive(Debug)]
pub struct Seller {
    me: NodeId,
    /// At the prices of an idle worker.
    catalogue: Vec<ModelAd>,
    pricing: Pricing,
    /// The same at those of now, and how many slots were taken then.
    quoted: (usize, Vec<ModelAd>),
    /// The model of each job that has its slot.
    working: BTreeMap<JobId, String>,
    addresses: Vec<SocketAddrText>,
    queues: BTreeMap<String, Queue>,
    draining: bool,
    closed: Option<NoBidReason>,
    store_full: bool,
    /// What the buyer of the next offer may still owe.
    credit_left: MicroUsd,
    registry: Registry,
    admission: Admission,
    open: BTreeMap<Hash, OpenBid>,
    seen: Recent<Hash, ()>,
    own_ads: OwnAds,
    started: UnixMillis,
    outcomes: Outcomes,
    wanted: Recent<String, Demand>,
    tally: Tally,
}

impl Seller {
    /// The worker `me` with `slots`, and no models yet.
    pub fn new(me: NodeId, slots: u16) -> Self {
        Seller {
            me,
            catalogue: Vec::new(),
            pricing: Pricing::default(),
            quoted: (0, Vec::new()),
            working: BTreeMap::new(),
            addresses: Vec::new(),
            queues: BTreeMap::new(),
            draining: false,
            closed: None,
            store_full: false,
            credit_left: MicroUsd(u64::MAX),
            registry: Registry::new(MAX_ADS),
            admission: Admission::new(slots),
            open: BTreeMap::new(),
            seen: Recent::new(MAX_SEEN_OFFERS),
            own_ads: OwnAds::default(),
            started: UnixMillis(0),
            outcomes: Outcomes::default(),
            wanted: Recent::new(MAX_WANTED),
            tally: Tally::default(),
        }
    }

    /// When this process began: what was made before it is not honoured, since nobody here knows whether it was used.
    pub fn set_started(&mut self, started: UnixMillis) {
        self.started = started;
    }

    /// The models served from now on, with prices and measured speeds. None: no engine answers.
    pub fn set_catalogue(&mut self, catalogue: Vec<ModelAd>) {
        self.catalogue = catalogue;
        self.quote_at(self.taken());
    }

    /// How prices follow the load, and how many jobs of a model run at once. Base prices are the catalogue's.
    pub fn set_pricing(&mut self, pricing: Pricing) {
        self.pricing = pricing;
        self.quote_at(self.taken());
    }

    /// What a model of this base price costs now.
    pub fn price_now(&self, base: Price) -> Price {
        self.pricing.under_load(base, self.taken(), self.admission.slots())
    }

    /// Why nothing is sold for a while, by the operator's policy; `None` if it is. Holds and running jobs are kept.
    pub fn set_closed(&mut self, closed: Option<NoBidReason>) {
        self.closed = closed;
    }

    /// Whether our last ad tells a price from which that of now has moved far enough to advertise anew.
    pub fn prices_moved(&self, now: UnixMillis) -> bool {
        let Some(ad) = self.registry.get(&self.me, now) else { return false };
        let base = |id: &str| self.catalogue.iter().find(|model| model.id == id).map(|model| model.price);
        ad.models.iter().any(|said| base(&said.id).is_some_and(|base| moved(said.price, self.price_now(base))))
    }

    fn taken(&self) -> usize {
        self.admission.running() + self.admission.held()
    }

    fn quote_at(&mut self, taken: usize) {
        let price = |base| self.pricing.under_load(base, taken, self.admission.slots());
        let models = self.catalogue.iter().map(|model| ModelAd { price: price(model.price), ..model.clone() });
        self.quoted = (taken, models.collect());
    }

    /// Where our chat endpoint answers, as bids will say.
    pub fn set_addresses(&mut self, addresses: Vec<SocketAddrText>) {
        self.addresses = addresses;
    }

    /// What waits in the engines, by model. Bids say how long that will take.
    pub fn set_queues(&mut self, queues: BTreeMap<String, Queue>) {
        self.queues = queues;
    }

    /// Whether to refuse new jobs. Holds and running jobs are kept.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Whether it takes no new jobs.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether to refuse new jobs because their receipts might not be kept.
    pub fn set_store_full(&mut self, full: bool) {
        self.store_full = full;
    }

    /// What the buyer of the next offer may still owe; without limit at first.
    pub fn set_credit_left(&mut self, left: MicroUsd) {
        self.credit_left = left;
    }

    /// `buyer` has settled a receipt with us before.
    pub fn mark_known(&mut self, buyer: NodeId) {
        self.admission.mark_known(buyer);
    }

    /// The slots.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Rivals and ourselves.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Holds that ended in silence: nobody told who won.
    pub fn lapsed(&self) -> u64 {
        self.admission.lapsed().saturating_sub(self.tally.kept_in_vain)
    }

    /// What became of the last offers.
    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Which models were asked for that we do not serve.
    pub fn wanted(&self) -> &Recent<String, Demand> {
        &self.wanted
    }

    /// Decides on one input.
    pub fn handle(&mut self, input: Input, now: UnixMillis) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.admission.expire(now);
        match input {
            Input::Offer(offer) => outputs.push(self.on_offer(offer, now)),
            Input::Accept(accept) => outputs.extend(self.on_accept(&accept, now)),
            Input::Ad(ad) => self.on_ad(ad, now),
            Input::Wake => {}
        }
        self.close_bids(now);
        outputs.extend(self.admission.next_expiry().map(|at| Output::Wake { at }));
        outputs
    }

    /// The bid for `offer` was signed; its digest is what an accept must name. Without this no accept is honoured.
    pub fn bid_signed(&mut self, offer: Hash, bid: Hash) {
        self.admission.bid_signed(&offer, bid);
    }

    /// The engine is done with `job`: its slot is free, its receipt still to be settled.
    pub fn settle(&mut self, job: &JobId) {
        if self.admission.settle(job) {
            self.working.remove(job);
        }
    }

    /// `job` has ended; `settled` tells whether its receipt was settled, which makes its buyer known.
    pub fn finish(&mut self, job: &JobId, settled: bool) {
        self.working.remove(job);
        if let Some(buyer) = self.admission.finish(job) {
            self.tally.finished += 1;
            if settled {
                self.admission.mark_known(buyer);
            }
        }
    }

    /// One made before the start may come back by gossip: it binds no more.
    fn on_ad(&mut self, ad: Verified<CapabilityAd>, now: UnixMillis) {
        if ad.signer() == self.me && ad.issued >= self.started {
            self.own_ads.keep(ad.clone(), now);
        }
        self.registry.insert(ad, now);
    }

    /// Bids whose hold is gone, for another reason than an accept.
    fn close_bids(&mut self, now: UnixMillis) {
        let admission = &self.admission;
        let gone: Vec<OpenBid> =
            self.open.extract_if(.., |offer, _| admission.holder(offer).is_none()).map(|(_, bid)| bid).collect();
        for bid in gone {
            let over = bid.until < now;
            // The winner did not fail.
            if let Some((why, winner)) = bid.behind {
                self.tally.kept_in_vain += u64::from(over);
                self.lose(&bid, why, winner, now);
                continue;
            }
            self.tally.superseded += u64::from(!over);
            self.outcomes.push(bid.outcome(if over { Ending::Lapsed } else { Ending::Superseded }, None, now));
        }
    }

    fn lose(&mut self, bid: &OpenBid, why: Ending, winner: Asked, now: UnixMillis) {
        self.tally.lost += 1;
        count(&mut self.tally.lost_by, why.label());
        self.outcomes.push(bid.outcome(why, Some(winner), now));
    }

    fn on_offer(&mut self, offer: Verified<JobOffer>, now: UnixMillis) -> Output {
        self.tally.offers += 1;
        let (buyer, digest) = (offer.signer(), offer.digest());
        let (model, ceiling) = (offer.model.clone(), offer.ceiling);
        match self.decide(offer, now) {
            Ok(Ok(body)) => {
                self.tally.bids += 1;
                Output::Bid { buyer, body }
            }
            Ok(Err(reason)) => {
                count(&mut self.tally.no_bids, reason.label());
                let ending = Ending::Refused(reason);
                self.outcomes.push(Outcome { at: now, offer: digest, model, ceiling, ending, ours: None, winner: None });
                Output::NoBid { buyer, body: NoBid { offer: digest, issued: now, reason } }
            }
            Err(ignored) => {
                count(&mut self.tally.ignored, ignored.label());
                if ignored == Ignored::OtherModel {
                    self.wanted.update(model, |demand| demand.count(buyer));
                }
                Output::Ignored(ignored)
            }
        }
    }

    /// A bid, a refusal, or silence.
    fn decide(&mut self, offer: Verified<JobOffer>, now: UnixMillis) -> Result<Result<JobBid, NoBidReason>, Ignored> {
        self.check_addressed(&offer)?;
        let taken = self.admission.taken_besides(&offer.signer());
        if self.pricing.rise_percent > 0 && self.quoted.0 != taken {
            self.quote_at(taken);
        }
        let quoted = quote::best(&offer, &self.quoted.1).map(|(model, _)| model.clone());
        self.check_our_turn(&offer, quoted.as_ref().err().copied(), now)?;
        if self.admission.turns_away(&offer.signer(), now) {
            return Err(Ignored::Newcomer);
        }
        Ok(self.check_willing().and(quoted).and_then(|model| self.bid(offer, model, now)))
    }

    fn check_addressed(&mut self, offer: &Verified<JobOffer>) -> Result<(), Ignored> {
        if offer.signer() == self.me {
            return Err(Ignored::Own);
        }
        if offer.workload != INFERENCE {
            return Err(Ignored::OtherWorkload);
        }
        if self.seen.contains(&offer.digest()) {
            return Err(Ignored::Replayed);
        }
        self.seen.insert(offer.digest(), ());
        Ok(())
    }

    /// Among those that could serve the offer, if we could or have advertised so; among all that serve its model, if we only
    /// serve the model.
    fn check_our_turn(&self, offer: &Verified<JobOffer>, refusal: Option<NoBidReason>, now: UnixMillis) -> Result<(), Ignored> {
        let (digest, slots) = (offer.digest(), u16::try_from(self.admission.slots()).unwrap_or(u16::MAX));
        let rivals = || self.registry.matching(offer, now).map(|(worker, slots, _)| (worker, slots));
        let ours = match refusal {
            None => select::is_selected(offer, &digest, &self.me, slots, rivals()),
            Some(_) if self.advertised(offer, now) => select::is_selected(offer, &digest, &self.me, slots, rivals()),
            Some(NoBidReason::UNKNOWN_MODEL) => return Err(Ignored::OtherModel),
            Some(_) => select::is_selected(offer, &digest, &self.me, slots, self.registry.serving(offer, now)),
        };
        if ours { Ok(()) } else { Err(Ignored::NotSelected) }
    }

    fn advertised(&self, offer: &JobOffer, now: UnixMillis) -> bool {
        self.registry.get(&self.me, now).is_some_and(|ad| quote::best(offer, &ad.models).is_ok())
    }

    fn check_willing(&self) -> Result<(), NoBidReason> {
        if self.draining {
            return Err(NoBidReason::DRAINING);
        }
        if self.store_full {
            return Err(NoBidReason::STORE_FULL);
        }
        if let Some(reason) = self.closed {
            return Err(reason);
        }
        if self.catalogue.is_empty() { Err(NoBidReason::NO_ENGINE) } else { Ok(()) }
    }

    /// Whether one more job of `model` may run, besides those that hold or have a slot. `superseded`: the buyer whose own hold a
    /// newer offer takes the place of, so that it does not count.
    fn check_model_slots(&self, model: &str, superseded: Option<&NodeId>) -> Result<(), NoBidReason> {
        let Some(slots) = self.pricing.slots_of(model) else { return Ok(()) };
        // Of open bids, which may outlive their holds until the next input, those that still bind.
        let holds = |offer: &Hash| self.admission.holder(offer).filter(|buyer| Some(*buyer) != superseded).is_some();
        let held = self.open.iter().filter(|(offer, bid)| bid.model == model && holds(offer)).count();
        let running = self.working.values().filter(|running| *running == model).count();
        if held + running < usize::from(slots) { Ok(()) } else { Err(NoBidReason::NO_SLOT) }
    }

    fn bid(&mut self, offer: Verified<JobOffer>, model: ModelAd, now: UnixMillis) -> Result<JobBid, NoBidReason> {
        let most = model.price.cost_within(offer.input_tokens, offer.output_tokens, offer.budget);
        if most > self.credit_left {
            return Err(NoBidReason::NO_CREDIT);
        }
        self.check_model_slots(&model.id, Some(&offer.signer()))?;
        let until = now.after(u64::from(offer.window_ms) + HOLD_SLACK_MS);
        let (buyer, issued) = (offer.signer(), offer.issued);
        self.admission.hold(HoldRequest { offer: offer.digest(), buyer, issued, until }, now)?;
        let body = JobBid {
            offer: offer.digest(),
            issued: now,
            hold_until: until,
            queue_ms: self.queues.get(&model.id).map_or(0, |queue| quote::queue_ms(*queue, &model)),
            model: model.id,
            price: model.price,
            ttft_ms: model.ttft_ms,
            tokens_per_second: model.tokens_per_second,
            chat: self.addresses.clone(),
        };
        self.note_bid(offer, &body);
        Ok(body)
    }

    fn note_bid(&mut self, offer: Verified<JobOffer>, body: &JobBid) {
        let score = Weight::of(&offer, &Terms::from(body), &Facts::default()).score(offer.rule);
        let (model, asked) = (body.model.clone(), Asked { price: body.price, score });
        self.open.insert(offer.digest(), OpenBid { offer, model, asked, until: body.hold_until, behind: None });
    }

    /// Only the buyer for whom the slot is held can tell us that we lost.
    fn on_accept(&mut self, accept: &Verified<JobAccept>, now: UnixMillis) -> Option<Output> {
        let bid = self.open.get_mut(&accept.offer)?;
        if accept.signer() != bid.offer.signer() || accept.winner == self.me {
            return None;
        }
        let (why, winner) = (why_lost(&bid.offer, bid.asked, accept), Asked { price: accept.price, score: accept.score });
        if accept.runners_up.contains(&self.me) {
            bid.behind = Some((why, winner));
            self.admission.runner_up(&accept.offer, now);
            return None;
        }
        let bid = self.open.remove(&accept.offer)?;
        self.admission.release(&accept.offer);
        self.lose(&bid, why, winner, now);
        let (offer, winner, winning_score) = (accept.offer, accept.winner, accept.score);
        Some(Output::Lost { offer, winner, winning_score, our_score: bid.asked.score, why })
    }
}

fn moved(said: Price, now: Price) -> bool {
    let part = |said: MicroUsd, now: MicroUsd| {
        u128::from(said.0.abs_diff(now.0)) * 100 >= u128::from(said.0.max(1)) * PRICE_MOVED_PERCENT
    };
    part(said.input, now.input) || part(said.output, now.output)
}

fn count(counters: &mut BTreeMap<&'static str, u64>, label: &'static str) {
    *counters.entry(label).or_default() += 1;
}

#[cfg(test)]
mod tests;
