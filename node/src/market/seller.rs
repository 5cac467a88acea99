//! The worker's decider. It owns the slots, the catalogue, and what is known of rivals.
//!
//! An offer's way: ours or another's? seen before? → can a model of the catalogue serve it ([`quote`])? → is it our turn to
//! answer ([`select`])? → is there a slot ([`Admission`])? → [`Output::Bid`]. The driver signs the bid, tells its digest with
//! [`Seller::bid_signed`], and sends it to the buyer only. When the buyer opens a stream, [`Seller::claim`] turns the hold into
//! a running job; [`Seller::finish`] frees the slot.
//!
//! Who is not expected to answer stays silent, so that an offer is not met by refusals from a whole network: a worker that does
//! not serve the model never answers, unless its own last ad said it would.
//!
//! It does not know the engine, the stream or the request. Wakes follow the rule of [`super::buyer`].

use super::{
    admission::{Admission, ClaimError, HoldRequest},
    quote,
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
    limits::{CLOCK_SKEW_MS, HOLD_SLACK_MS},
    money::Price,
    offer::JobOffer,
    time::UnixMillis,
    topic::INFERENCE,
};
use std::collections::BTreeMap;

/// Offers remembered, so that none is answered twice: as many as 200 busy buyers publish in an offer's life.
const MAX_SEEN_OFFERS: usize = 32_768;

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
    pub offer: Verified<JobOffer>,
    /// Digest of the accept.
    pub accept: Hash,
}

/// What happened so far, for metrics. What started is `offers`; it ends in `bids`, `no_bids` or `ignored`. Bids end in `lost`,
/// `lapsed` (see [`Admission::lapsed`]), superseded, or `claims`.
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
    /// Holds that became jobs.
    pub claims: u64,
    /// Claims refused, by reason.
    pub claims_refused: BTreeMap<&'static str, u64>,
    /// Jobs ended.
    pub finished: u64,
}

/// A bid that stands.
#[derive(Debug, Clone)]
struct OpenBid {
    offer: Verified<JobOffer>,
    model: String,
    price: Price,
    score: u64,
}

/// The worker's side of the market.
#[derive(Debug)]
pub struct Seller {
    me: NodeId,
    catalogue: Vec<ModelAd>,
    addresses: Vec<SocketAddrText>,
    queue_ms: u32,
    draining: bool,
    registry: Registry,
    admission: Admission,
    open: BTreeMap<Hash, OpenBid>,
    seen: Recent<Hash, ()>,
    tally: Tally,
}

impl Seller {
    /// The worker `me` with `slots`, and no models yet.
    pub fn new(me: NodeId, slots: u16) -> Self {
        Seller {
            me,
            catalogue: Vec::new(),
            addresses: Vec::new(),
            queue_ms: 0,
            draining: false,
            registry: Registry::new(MAX_ADS),
            admission: Admission::new(slots),
            open: BTreeMap::new(),
            seen: Recent::new(MAX_SEEN_OFFERS),
            tally: Tally::default(),
        }
    }

    /// The models served from now on, with prices and measured speeds. None: no engine answers.
    pub fn set_catalogue(&mut self, catalogue: Vec<ModelAd>) {
        self.catalogue = catalogue;
    }

    /// Where our chat endpoint answers, as bids will say.
    pub fn set_addresses(&mut self, addresses: Vec<SocketAddrText>) {
        self.addresses = addresses;
    }

    /// How long a job would wait for the engine, as bids will say.
    pub fn set_queue_ms(&mut self, queue_ms: u32) {
        self.queue_ms = queue_ms;
    }

    /// Whether to refuse new jobs. Holds and running jobs are kept.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
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

    /// Decides on one input.
    pub fn handle(&mut self, input: Input, now: UnixMillis) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.admission.expire(now);
        match input {
            Input::Offer(offer) => outputs.push(self.on_offer(offer, now)),
            Input::Accept(accept) => outputs.extend(self.on_accept(&accept)),
            Input::Ad(ad) => {
                self.registry.insert(ad, now);
            }
            Input::Wake => {}
        }
        self.open.retain(|offer, _| self.admission.holder(offer).is_some());
        outputs.extend(self.admission.next_expiry().map(|at| Output::Wake { at }));
        outputs
    }

    /// The bid for `offer` was signed; its digest is what an accept must name. Without this no accept is honoured.
    pub fn bid_signed(&mut self, offer: Hash, bid: Hash) {
        self.admission.bid_signed(&offer, bid);
    }

    /// Turns a hold into a running job. `from` is the peer whose identity the stream has proved: it must be the signer.
    pub fn claim(&mut self, accept: &Verified<JobAccept>, from: NodeId, now: UnixMillis) -> Result<Claim, ClaimError> {
        let claim = self.try_claim(accept, from, now);
        match &claim {
            Ok(_) => self.tally.claims += 1,
            Err(reason) => count(&mut self.tally.claims_refused, reason.label()),
        }
        claim
    }

    /// `job` has ended; `settled` tells whether its receipt was settled, which makes its buyer known.
    pub fn finish(&mut self, job: &JobId, settled: bool) {
        if let Some(buyer) = self.admission.finish(job) {
            self.tally.finished += 1;
            if settled {
                self.admission.mark_known(buyer);
            }
        }
    }

    fn on_offer(&mut self, offer: Verified<JobOffer>, now: UnixMillis) -> Output {
        self.tally.offers += 1;
        let (buyer, digest) = (offer.signer(), offer.digest());
        match self.decide(offer, now) {
            Ok(Ok(body)) => {
                self.tally.bids += 1;
                Output::Bid { buyer, body }
            }
            Ok(Err(reason)) => {
                count(&mut self.tally.no_bids, reason.label());
                Output::NoBid { buyer, body: NoBid { offer: digest, issued: now, reason } }
            }
            Err(ignored) => {
                count(&mut self.tally.ignored, ignored.label());
                Output::Ignored(ignored)
            }
        }
    }

    /// A bid, a refusal, or silence.
    fn decide(&mut self, offer: Verified<JobOffer>, now: UnixMillis) -> Result<Result<JobBid, NoBidReason>, Ignored> {
        self.check_addressed(&offer)?;
        let quoted = quote::best(&offer, &self.catalogue).map(|(model, _)| model.clone());
        self.check_our_turn(&offer, quoted.as_ref().err().copied(), now)?;
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
            None => select::is_selected(&digest, &self.me, slots, rivals()),
            Some(_) if self.advertised(offer, now) => select::is_selected(&digest, &self.me, slots, rivals()),
            Some(NoBidReason::UNKNOWN_MODEL) => return Err(Ignored::OtherModel),
            Some(_) => select::is_selected(&digest, &self.me, slots, self.registry.serving(offer, now)),
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
        if self.catalogue.is_empty() { Err(NoBidReason::NO_ENGINE) } else { Ok(()) }
    }

    fn bid(&mut self, offer: Verified<JobOffer>, model: ModelAd, now: UnixMillis) -> Result<JobBid, NoBidReason> {
        let until = now.after(u64::from(offer.window_ms) + HOLD_SLACK_MS);
        let (buyer, issued) = (offer.signer(), offer.issued);
        self.admission.hold(HoldRequest { offer: offer.digest(), buyer, issued, until }, now)?;
        let body = JobBid {
            offer: offer.digest(),
            issued: now,
            hold_until: until,
            model: model.id,
            price: model.price,
            queue_ms: self.queue_ms,
            ttft_ms: model.ttft_ms,
            tokens_per_second: model.tokens_per_second,
            chat: self.addresses.clone(),
        };
        self.note_bid(offer, &body);
        Ok(body)
    }

    fn note_bid(&mut self, offer: Verified<JobOffer>, body: &JobBid) {
        let score = Weight::of(&offer, &Terms::from(body), &Facts::default()).score(offer.rule);
        self.open.insert(offer.digest(), OpenBid { offer, model: body.model.clone(), price: body.price, score });
    }

    /// Only the buyer for whom the slot is held can tell us that we lost.
    fn on_accept(&mut self, accept: &Verified<JobAccept>) -> Option<Output> {
        let bid = self.open.get(&accept.offer)?;
        let still_needed = accept.winner == self.me || accept.runners_up.contains(&self.me);
        if accept.signer() != bid.offer.signer() || still_needed {
            return None;
        }
        let our_score = bid.score;
        self.admission.release(&accept.offer);
        self.tally.lost += 1;
        Some(Output::Lost { offer: accept.offer, winner: accept.winner, winning_score: accept.score, our_score })
    }

    fn try_claim(&mut self, accept: &Verified<JobAccept>, from: NodeId, now: UnixMillis) -> Result<Claim, ClaimError> {
        self.check_accept(accept, from, now)?;
        self.admission.claim(&accept.offer, &accept.bid, &from, accept.job, now)?;
        let bid = self.open.remove(&accept.offer).ok_or(ClaimError::NoHold)?;
        Ok(Claim {
            job: accept.job,
            buyer: from,
            model: bid.model,
            price: bid.price,
            offer: bid.offer,
            accept: accept.digest(),
        })
    }

    fn check_accept(&self, accept: &Verified<JobAccept>, from: NodeId, now: UnixMillis) -> Result<(), ClaimError> {
        if accept.signer() != from {
            return Err(ClaimError::WrongBuyer);
        }
        if accept.winner != self.me {
            return Err(ClaimError::NotWinner);
        }
        if accept.expires.after(CLOCK_SKEW_MS) < now {
            return Err(ClaimError::Expired);
        }
        match self.open.get(&accept.offer) {
            Some(bid) if bid.model != accept.model || bid.price != accept.price => Err(ClaimError::TermsDiffer),
            _ => Ok(()),
        }
    }
}

fn count(counters: &mut BTreeMap<&'static str, u64>, label: &'static str) {
    *counters.entry(label).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, ad, ad_with, at, model, node, offer, sign};
    use infernet_wire::{capability::Abilities, money::MicroUsd};

    const ME: u16 = 1;
    const BUYER: u16 = 9;
    const DEAR: u64 = 1_000_000;

    fn seller(slots: u16) -> Seller {
        let mut seller = Seller::new(node(ME), slots);
        seller.set_catalogue(vec![model("tiny", DEAR, DEAR)]);
        seller
    }

    /// What the seller says to an offer: the first output.
    fn answer(seller: &mut Seller, offer: &Verified<JobOffer>) -> Output {
        seller.handle(Input::Offer(offer.clone()), T0).into_iter().next().expect("every offer has an output")
    }

    /// Lets the seller bid, signs the bid, and returns the accept that would win it.
    fn bid(seller: &mut Seller, offer: &Verified<JobOffer>) -> JobAccept {
        let Output::Bid { body, .. } = answer(seller, offer) else { panic!("a bid") };
        let bid = sign(ME, body);
        seller.bid_signed(offer.digest(), bid.digest());
        JobAccept {
            offer: offer.digest(),
            bid: bid.digest(),
            winner: node(ME),
            model: bid.model.clone(),
            price: bid.price,
            job: JobId([3; 16]),
            attempt: 1,
            runners_up: vec![],
            bids: Hash([0; 32]),
            score: 77,
            issued: T0,
            expires: at(10_000),
        }
    }

    #[derive(Debug, PartialEq)]
    enum Says {
        Bid,
        NoBid(NoBidReason),
        Nothing(Ignored),
    }

    fn check(prepare: impl FnOnce(&mut Seller), change: impl FnOnce(&mut JobOffer), expected: Says) {
        let mut seller = seller(2);
        prepare(&mut seller);
        let says = match answer(&mut seller, &offer(BUYER, 1, change)) {
            Output::Bid { .. } => Says::Bid,
            Output::NoBid { body, .. } => Says::NoBid(body.reason),
            Output::Ignored(reason) => Says::Nothing(reason),
            other => panic!("{other:?}"),
        };
        assert_eq!(says, expected);
    }

    #[test]
    fn every_offer_meets_a_bid_a_reason_or_silence() {
        check(|_| {}, |_| {}, Says::Bid);
        check(|seller| seller.set_draining(true), |_| {}, Says::NoBid(NoBidReason::DRAINING));
        check(|_| {}, |offer| offer.ceiling.output = MicroUsd(DEAR - 1), Says::NoBid(NoBidReason::CEILING_TOO_LOW));
        check(|_| {}, |offer| offer.abilities = Abilities::TOOLS, Says::NoBid(NoBidReason::MISSING_ABILITY));
        check(|_| {}, |offer| offer.model = "other".into(), Says::Nothing(Ignored::OtherModel));
        check(|_| {}, |offer| offer.workload = "ffmpeg.transcode".into(), Says::Nothing(Ignored::OtherWorkload));
    }

    #[test]
    fn who_advertised_what_is_gone_says_so() {
        let advertise = |seller: &mut Seller| _ = seller.handle(Input::Ad(ad(ME, 1, 1, T0)), T0);
        let lose_the_engine = |seller: &mut Seller| {
            advertise(seller);
            seller.set_catalogue(vec![]);
        };
        check(lose_the_engine, |_| {}, Says::NoBid(NoBidReason::NO_ENGINE));
        let lose_the_model = |seller: &mut Seller| {
            advertise(seller);
            seller.set_catalogue(vec![model("other", 1, 1)]);
        };
        check(lose_the_model, |_| {}, Says::NoBid(NoBidReason::UNKNOWN_MODEL));
    }

    #[test]
    fn among_many_rivals_some_stay_silent() {
        let answers = (0..40).filter(|id| {
            let mut seller = seller(2);
            (100..300).for_each(|n| _ = seller.handle(Input::Ad(ad(n, 1, 1, T0)), T0));
            matches!(answer(&mut seller, &offer(BUYER, *id, |_| {})), Output::Bid { .. })
        });
        let answers = answers.count();
        assert!((1..20).contains(&answers), "{answers} of 40, of which 32 in 201 are expected");
    }

    #[test]
    fn own_and_replayed_offers_are_left_alone() {
        let mut seller = seller(2);
        let (own, foreign) = (offer(ME, 1, |_| {}), offer(BUYER, 1, |_| {}));
        assert_eq!(answer(&mut seller, &own), Output::Ignored(Ignored::Own));
        let accept = sign(BUYER, bid(&mut seller, &foreign));
        assert_eq!(answer(&mut seller, &foreign), Output::Ignored(Ignored::Replayed));
        assert!(seller.claim(&accept, node(BUYER), T0).is_ok());
        assert_eq!(answer(&mut seller, &foreign), Output::Ignored(Ignored::Replayed));
        assert_eq!((seller.admission().running(), seller.admission().held()), (1, 0));
    }

    fn check_claim(change: impl FnOnce(&mut JobAccept), signer: u16, from: u16, ms: u64, expected: Option<ClaimError>) {
        let mut seller = seller(2);
        let mut accept = bid(&mut seller, &offer(BUYER, 1, |_| {}));
        change(&mut accept);
        assert_eq!(seller.claim(&sign(signer, accept), node(from), at(ms)).err(), expected);
        assert_eq!(seller.admission().running(), usize::from(expected.is_none()));
    }

    #[test]
    fn only_the_accept_of_our_bid_by_its_buyer_is_honoured() {
        check_claim(|_| {}, BUYER, BUYER, 0, None);
        check_claim(|_| {}, BUYER, 8, 0, Some(ClaimError::WrongBuyer));
        check_claim(|_| {}, 8, 8, 0, Some(ClaimError::WrongBuyer));
        check_claim(|_| {}, 8, BUYER, 0, Some(ClaimError::WrongBuyer));
        check_claim(|accept| accept.winner = node(2), BUYER, BUYER, 0, Some(ClaimError::NotWinner));
        check_claim(|accept| accept.bid = Hash([1; 32]), BUYER, BUYER, 0, Some(ClaimError::WrongBid));
        check_claim(|accept| accept.offer = Hash([1; 32]), BUYER, BUYER, 0, Some(ClaimError::NoHold));
        check_claim(|accept| accept.price.output = MicroUsd(1), BUYER, BUYER, 0, Some(ClaimError::TermsDiffer));
        check_claim(|accept| accept.model = "other".into(), BUYER, BUYER, 0, Some(ClaimError::TermsDiffer));
        check_claim(|_| {}, BUYER, BUYER, 1_501, Some(ClaimError::Lapsed));
        check_claim(|_| {}, BUYER, BUYER, 20_001, Some(ClaimError::Expired));
    }

    #[test]
    fn an_accept_is_used_once() {
        let mut seller = seller(2);
        let accept = sign(BUYER, bid(&mut seller, &offer(BUYER, 1, |_| {})));
        let claim = seller.claim(&accept, node(BUYER), T0).expect("a slot");
        assert_eq!((claim.job, claim.accept, claim.offer.digest()), (accept.job, accept.digest(), accept.offer));
        assert_eq!(seller.claim(&accept, node(BUYER), T0).err(), Some(ClaimError::AlreadyUsed));
        seller.finish(&accept.job, true);
        assert_eq!(seller.claim(&accept, node(BUYER), T0).err(), Some(ClaimError::AlreadyUsed));
        assert!(seller.admission().is_known(&node(BUYER)));
        assert_eq!(seller.tally().claims_refused, BTreeMap::from([("already_used", 2)]));
    }

    #[test]
    fn a_loser_lets_go_and_learns_the_score() {
        let check = |signer, change: fn(&mut JobAccept), released: bool| {
            let mut seller = seller(2);
            let mut accept = bid(&mut seller, &offer(BUYER, 1, |_| {}));
            accept.winner = node(2);
            change(&mut accept);
            let outputs = seller.handle(Input::Accept(sign(signer, accept)), T0);
            let lost = outputs.iter().any(|output| matches!(output, Output::Lost { winning_score: 77, .. }));
            assert_eq!((lost, seller.admission().held()), (released, usize::from(!released)));
        };
        check(BUYER, |_| {}, true);
        check(8, |_| {}, false);
        check(BUYER, |accept| accept.winner = node(ME), false);
        check(BUYER, |accept| accept.runners_up = vec![node(3), node(ME)], false);
    }

    #[test]
    fn the_cheapest_model_is_bid_and_a_wake_is_asked_for() {
        let mut seller = seller(2);
        let mut cheap = model("small", 1, 1);
        cheap.aliases = vec!["tiny".into()];
        seller.set_catalogue(vec![model("tiny", DEAR, DEAR), cheap]);
        seller.handle(Input::Ad(ad_with(2, 1, vec![model("tiny", 1, 1)], T0)), T0);
        let outputs = seller.handle(Input::Offer(offer(BUYER, 1, |_| {})), T0);
        let [Output::Bid { buyer, body }, Output::Wake { at: wake }] = outputs.as_slice() else { panic!("{outputs:?}") };
        assert_eq!((*buyer, body.model.as_str(), *wake), (node(BUYER), "small", at(1_501)));
        assert!(seller.handle(Input::Wake, *wake).is_empty());
        assert_eq!(seller.admission().lapsed(), 1);
    }
}
