//! A worker's node: drives `market::seller` and `chat::session` as `seller.rs` and `chat/server.rs` do, on virtual time.
//!
//! The engine is a metronome: it says its first token after its time to first token, and one more each time its speed allows.

use super::{
    StreamNo, Who, World,
    check::Invariant,
    event::{Event, Timer},
    fault::EngineTrouble,
    gossip::Said,
    job,
    plant::Plant,
    stream::Piece,
};
use infernet_node::{
    chat::{
        deadline,
        server::{read_request, refused_claim, terms},
        session::{Finished, WorkerSession},
    },
    market::{
        admission::ClaimError,
        advert::{Advert, Measured},
        registry::MAX_ADS,
        seller::{Claim, Ignored, Input, Output, Seller},
    },
    seller::Unclaimed,
    store::{Put, Store},
};
use infernet_wire::{
    accept::JobAccept,
    bid::{Answer, JobBid, NoBid},
    capability::{CapabilityAd, ModelAd},
    chat::{Channel, ErrorCode, FinishReason, Frame, Open, StreamError},
    envelope::Verified,
    id::{Hash, NodeId},
    limits,
    offer::JobOffer,
    receipt::{Countersign, JobReceipt, SignedReceipt},
    standing::StandingAccept,
    time::UnixMillis,
};
use std::{collections::BTreeMap, rc::Rc};

/// Fewer tokens tell nothing about speed, as `chat::server` has it.
const MIN_MEASURED_TOKENS: u32 = 8;
/// How late a planted bug writes a receipt that it has sent already.
const LATE_MS: u64 = 400;

/// What a worker can do, which no crash changes.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its models at its prices.
    pub models: Vec<ModelAd>,
    /// Jobs at once.
    pub slots: u16,
    /// From asking the engine to its first token.
    pub ttft_ms: u64,
    /// Of one stream.
    pub tokens_per_second: u64,
    /// Whether it keeps to the protocol; attackers don't.
    pub conduct: Conduct,
}

/// How a worker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conduct {
    /// As it should.
    #[default]
    Honest,
    /// It advertises and never answers an offer.
    Silent,
    /// It bids below its ad and claims a speed that it has not; then its engine is slow.
    Boastful,
    /// It bids a tenth of what it will charge: its receipts name more tokens than it delivered.
    Inflating,
    /// It bids when the window is about to end, a little below its ad.
    Sniping,
}

/// See the module.
pub struct Working {
    /// What it can do.
    pub profile: Profile,
    /// The decider.
    pub market: Seller,
    /// When it advertises what.
    pub advert: Advert,
    /// Its streams.
    pub serving: BTreeMap<StreamNo, Serving>,
    wake: Option<UnixMillis>,
    /// Bids of this life: until when the slot is held, whether it was used, and for whom. To check claims by.
    bids: BTreeMap<Hash, (UnixMillis, bool, NodeId)>,
    /// Ads of this life, and when they expire. To check claims by.
    ads: BTreeMap<Hash, UnixMillis>,
    /// Accepts of ads that were used. To check claims by.
    taken: std::collections::BTreeSet<Hash>,
    /// What is wrong with its engine now.
    pub trouble: Option<EngineTrouble>,
}

impl Working {
    /// A worker that starts at `now`, by its clock.
    pub fn new(me: NodeId, profile: Profile, now: UnixMillis) -> Self {
        let mut market = Seller::new(me, profile.slots);
        market.set_started(now);
        Working {
            profile,
            market,
            advert: Advert::new(now),
            serving: BTreeMap::new(),
            wake: None,
            bids: BTreeMap::new(),
            ads: BTreeMap::new(),
            taken: Default::default(),
            trouble: None,
        }
    }
}

impl Working {
    /// Whether it holds a slot for `buyer`.
    pub fn holds_for(&self, buyer: Option<NodeId>) -> bool {
        let admission = self.market.admission();
        let holds = |(offer, (_, used, of)): (&Hash, &(UnixMillis, bool, NodeId))| {
            !used && Some(*of) == buyer && admission.holder(offer).is_some()
        };
        self.bids.iter().any(holds)
    }
}

/// A job that a worker runs.
pub struct Serving {
    claim: Claim,
    session: Option<WorkerSession>,
    job: job_id::Id,
    /// How many tokens the engine will say.
    tokens: u32,
    said: u32,
    asked: u64,
    first: Option<u64>,
    last: u64,
    next_token: u64,
    /// The receipt that waits for its countersignature.
    receipt: Option<Verified<JobReceipt>>,
}

mod job_id {
    /// Under which id the engine's text is known.
    pub(super) type Id = infernet_wire::id::JobId;
}

impl World {
    fn working(&mut self, who: Who) -> Option<&mut Working> {
        self.member_mut(who).worker.as_deref_mut()
    }

    /// The engines are found: it advertises them.
    pub(super) fn start_worker(&mut self, who: Who) {
        let now = self.local(who);
        let Some(working) = self.working(who) else { return };
        let models = working.profile.models.clone();
        working.advert.set_models(models.clone(), now);
        working.market.set_catalogue(models);
        self.set_advertise(who);
    }

    fn set_advertise(&mut self, who: Who) {
        let Some(due) = self.working(who).map(|working| working.advert.due()) else { return };
        let at = self.member(who).virtual_ms(due);
        self.set(who, at, Timer::Advertise);
    }

    /// An ad may be due: this one, or one that was put forward meanwhile.
    pub(super) fn on_advertise(&mut self, who: Who) {
        let now = self.local(who);
        let spread = self.dice.below(256) as u8;
        let Some(working) = self.working(who) else { return };
        if working.advert.due() > now {
            return;
        }
        working.advert.refresh(spread, now);
        self.set_advertise(who);
        let Some(ad) = self.signed_ad(who, now) else { return };
        let Some(working) = self.working(who) else { return };
        working.advert.published(now);
        working.ads.insert(ad.digest(), ad.expires);
        self.tell_seller(who, Input::Ad(ad.clone()));
        self.note(who, "advertises", &[("sequence", ad.sequence)]);
        self.publish(who, Said::Ad(ad));
    }

    fn signed_ad(&mut self, who: Who, now: UnixMillis) -> Option<Verified<CapabilityAd>> {
        let sequence = self.keep(who, |store| store.next_ad_sequence(now))?;
        let working = self.working(who)?;
        let (mut models, slots) = (working.advert.models().to_vec(), working.profile.slots);
        if working.profile.conduct == Conduct::Boastful {
            models.iter_mut().for_each(|model| model.price.output.0 /= 2);
        }
        let expires = now.after(limits::AD_TTL_MS);
        let ad = CapabilityAd { sequence, issued: now, expires, tags: vec![], models, slots, chat: vec![] };
        Some(self.sign(who, ad))
    }

    /// Tells a worker's decider, and carries out what it says.
    pub(super) fn tell_seller(&mut self, who: Who, input: Input) {
        let now = self.local(who);
        let is_offer = matches!(input, Input::Offer(_));
        let full = is_offer && self.member(who).store.as_ref().is_none_or(|store| store.accepts_work().is_err());
        let Some(working) = self.working(who) else { return };
        if is_offer {
            working.market.set_store_full(full);
        }
        let outputs = working.market.handle(input, now);
        let known = working.market.registry().len();
        let ms = self.ms;
        self.checks.ensure(known <= MAX_ADS, Invariant::Bounded, ms, || format!("worker {who} keeps {known} ads"));
        for output in outputs {
            self.on_seller_output(who, output);
        }
        self.check_slots(who);
    }

    fn on_seller_output(&mut self, who: Who, output: Output) {
        let honest = self.working(who).is_some_and(|working| working.profile.conduct == Conduct::Honest);
        match &output {
            Output::Bid { body: JobBid { offer, .. }, .. } | Output::NoBid { body: NoBid { offer, .. }, .. } if honest => {
                self.stats.reached.insert(*offer);
            }
            _ => {}
        }
        if let Output::Bid { buyer, .. } | Output::NoBid { buyer, .. } = &output
            && self.working(who).is_some_and(|working| working.market.admission().is_known(buyer))
        {
            let what = if matches!(output, Output::Bid { .. }) { "bid" } else { "refused" };
            self.stats.count("known_buyer", what);
        }
        match output {
            Output::Bid { body, .. } => self.on_bid(who, body),
            Output::NoBid { body, .. } => {
                self.note(who, "refuses", &[("reason", body.reason.0.into())]);
                self.stats.count("no_bid", body.reason.label());
                let answer = Answer::NoBid(self.sign(who, body));
                self.send_answer(who, answer);
            }
            Output::Lost { winning_score, our_score, .. } => {
                self.note(who, "lost", &[("winning_score", winning_score), ("our_score", our_score)]);
            }
            Output::Wake { at } => {
                let virtual_ms = self.member(who).virtual_ms(at);
                if let Some(working) = self.working(who) {
                    working.wake = Some(at);
                }
                self.set(who, virtual_ms, Timer::WorkerWake);
            }
            Output::Ignored(reason) => {
                self.stats.count("ignored", reason.label());
                if reason == Ignored::NotSelected {
                    self.stats.not_selected += 1;
                }
            }
        }
    }

    /// The decider's wake, unless it has named another since.
    pub(super) fn on_worker_wake(&mut self, who: Who) {
        let now = self.local(who);
        if let Some(working) = self.working(who)
            && working.wake.is_some_and(|at| at <= now)
        {
            working.wake = None;
            self.tell_seller(who, Input::Wake);
        }
    }

    fn on_bid(&mut self, who: Who, body: JobBid) {
        let offer = body.offer;
        let conduct = self.working(who).map(|working| working.profile.conduct).unwrap_or_default();
        self.stats.bids += 1;
        let (body, delay_ms) = self.disguised(conduct, body);
        let (until, price) = (body.hold_until, body.price.output.0);
        let bid = self.sign(who, body);
        let Some(working) = self.working(who) else { return };
        working.market.bid_signed(offer, bid.digest());
        let buyer = working.market.admission().holder(&offer).copied().unwrap_or(NodeId([0; 33]));
        let twice = working.bids.insert(offer, (until, false, buyer)).is_some();
        let ms = self.ms;
        self.checks.ensure(!twice, Invariant::ReplaysChangeNothing, ms, || format!("worker {who} bid twice for offer {offer}"));
        self.note(who, "bids", &[("price", price)]);
        self.send_answer_in(who, Answer::Bid(bid), delay_ms);
    }

    /// A planted bug: bids once more, for an offer that it has seen.
    pub(super) fn bid_again(&mut self, who: Who, offer: &Verified<JobOffer>) {
        let now = self.local(who);
        let Some(working) = self.working(who) else { return };
        let Some(model) = working.profile.models.iter().find(|model| model.answers_to(&offer.model)).cloned() else { return };
        if working.bids.contains_key(&offer.digest()) {
            let body = JobBid {
                offer: offer.digest(),
                issued: now,
                hold_until: now.after(u64::from(offer.window_ms) + limits::HOLD_SLACK_MS),
                model: model.id,
                price: model.price,
                queue_ms: 0,
                ttft_ms: 0,
                tokens_per_second: 0,
                chat: vec![],
            };
            self.on_bid(who, body);
        }
    }

    /// Sends an answer on its way, straight to the buyer if connected, else to the neighbour that brought the offer.
    pub(super) fn send_answer(&mut self, who: Who, answer: Answer) {
        self.send_answer_in(who, answer, 0);
    }

    fn send_answer_in(&mut self, who: Who, answer: Answer, delay_ms: u64) {
        let conduct = self.working(who).map(|working| working.profile.conduct).unwrap_or_default();
        if conduct == Conduct::Silent {
            return;
        }
        let Some(infernet_node::net::routes::NextHop::There { buyer, via }) = self.member(who).routes.next_hop(&answer.offer())
        else {
            return;
        };
        self.forward_answer(who, buyer, via, answer, delay_ms);
    }

    /// Hands an answer to the next on its way.
    pub(super) fn forward_answer(&mut self, who: Who, buyer: NodeId, via: NodeId, answer: Answer, delay_ms: u64) {
        let is_neighbour = |id: &NodeId| self.by_id.get(id).copied().filter(|to| self.mesh.is_connected(who, *to));
        let Some(to) = is_neighbour(&buyer).or_else(|| is_neighbour(&via)) else {
            self.stats.count("answer_lost", "no_way_back");
            return;
        };
        if !self.mesh.has_way(who, to) {
            self.stats.count("answer_lost", "partition");
            return;
        }
        self.stats.answers_sent += 1;
        let at = self.ms + delay_ms + self.mesh.takes_ms(who, to, &mut self.way_dice);
        let from = self.member(who).id;
        self.wheel.put(at, Event::Answer { to, answer: Box::new((from, answer)) });
    }

    /// A stream begins: everything before `Opened`.
    pub(super) fn on_open(&mut self, who: Who, stream: StreamNo, piece: &super::stream::OpenPiece) {
        match self.admit(who, stream, piece) {
            Ok(opened) => {
                self.note(who, "opens", &[("stream", stream.into())]);
                self.send(stream, false, Piece::frame(opened));
                self.set_token(who, stream);
            }
            Err(refusal) => {
                self.stats.count("refused_open", refusal.code.label());
                self.note(who, "refuses to open", &[("stream", stream.into()), ("code", refusal.code.0.into())]);
                self.send(stream, false, Piece::frame(Frame::Error(refusal).encode()));
            }
        }
        self.check_slots(who);
    }

    fn admit(&mut self, who: Who, stream: StreamNo, piece: &super::stream::OpenPiece) -> Result<Vec<u8>, StreamError> {
        let refuse = |code, text: &str| StreamError { code, retryable: false, message: text.into() };
        let Ok(Frame::Open(open)) = Frame::decode(&piece.frame) else {
            return Err(refuse(ErrorCode::PROTOCOL, "the first frame must be open"));
        };
        let now = self.local(who);
        let accept = &piece.accept;
        if open.accept.as_slice() != &accept.raw()[..] || accept.check_age(now).is_err() {
            return Err(refuse(ErrorCode::BAD_ACCEPT, "the accept is not good"));
        }
        let claim = self.claim(who, accept, &open, piece.from, now)?;
        let settled = self.claim_and_session(who, stream, claim.clone(), &open, piece, now);
        if settled.is_err()
            && let Some(working) = self.working(who)
        {
            working.market.finish(&claim.job, false);
        }
        settled
    }

    fn claim_and_session(
        &mut self,
        who: Who,
        stream: StreamNo,
        claim: Claim,
        open: &Open,
        piece: &super::stream::OpenPiece,
        now: UnixMillis,
    ) -> Result<Vec<u8>, StreamError> {
        let refuse = |code, text: &str| StreamError { code, retryable: false, message: text.into() };
        let me = self.member(who).id;
        let known = self.member(who).store.as_ref().map(|store| store.has_receipt(&claim.job, &me));
        if known != Some(Ok(false)) {
            return Err(refuse(ErrorCode::BAD_ACCEPT, "the job has its receipt already"));
        }
        let parsed = read_request(&claim, open, &piece.request)?;
        let terms = terms(me, &claim, None, &parsed);
        let limit = terms.engine_limit();
        let (session, opened) = WorkerSession::open(terms, &piece.frame, &piece.request, now);
        let (ms, wanted) = (self.ms, self.wanted_tokens(stream).min(limit));
        let Some(working) = self.working(who) else { return Err(refuse(ErrorCode::BUSY, "no worker")) };
        let ttft = working.profile.ttft_ms;
        let job = claim.job;
        let serving = Serving {
            claim,
            session: Some(session),
            job,
            tokens: wanted,
            said: 0,
            asked: ms,
            first: None,
            last: ms,
            next_token: ms + ttft,
            receipt: None,
        };
        working.serving.insert(stream, serving);
        Ok(opened)
    }

    /// Turns an accept into a slot, and checks that the decider was right to.
    fn claim(
        &mut self,
        who: Who,
        accept: &Verified<JobAccept>,
        open: &Open,
        from: NodeId,
        now: UnixMillis,
    ) -> Result<Claim, StreamError> {
        let plant = self.scenario.plant;
        let standing = open.offer.as_ref().map(|payload| StandingAccept::read(accept.clone(), payload, now));
        let standing = standing.transpose().map_err(|refusal| StreamError {
            code: ErrorCode::BAD_ACCEPT,
            retryable: false,
            message: refusal.to_string(),
        })?;
        let full = self.member(who).store.as_ref().is_none_or(|store| store.accepts_work().is_err());
        let Some(working) = self.working(who) else {
            return Err(refused_claim(Unclaimed::ShuttingDown));
        };
        working.market.set_store_full(full);
        let offer = standing.as_ref().map(|standing| standing.offer().clone());
        let claimed = match standing {
            Some(standing) => working.market.claim_standing(standing, from, now),
            None => working.market.claim(accept, from, now),
        };
        let claimed = match (claimed, plant, offer) {
            (Err(ClaimError::NoHold | ClaimError::Lapsed), Some(Plant::ForgetsHolds), _) => self.claim_anyway(accept, from),
            (Err(error), Some(Plant::Oversells), Some(offer)) if error.is_busy() => {
                Some(Claim { offer, ..claim_of(accept, from, true)? }).ok_or(error)
            }
            (claimed, ..) => claimed,
        };
        match &claimed {
            Ok(claim) => self.check_claim(who, claim, accept, now),
            Err(error) => self.stats.count("claim_refused", error.label()),
        }
        claimed.map_err(|error| refused_claim(Unclaimed::Refused(error)))
    }

    /// A planted bug.
    fn claim_anyway(&mut self, accept: &Verified<JobAccept>, from: NodeId) -> Result<Claim, ClaimError> {
        let job = self.jobs.iter().rev().find(|job| job.id == accept.job).ok_or(ClaimError::NoHold)?;
        let mut offer = job.order.offer(infernet_wire::id::OfferId([0; 16]), accept.issued);
        offer.budget = job.order.budget();
        let claim = claim_of(accept, from, false).map_err(|_| ClaimError::NoHold)?;
        Ok(Claim { offer, ..claim })
    }

    fn check_claim(&mut self, who: Who, claim: &Claim, accept: &Verified<JobAccept>, now: UnixMillis) {
        let (ms, standing) = (self.ms, claim.standing);
        let Some(working) = self.working(who) else { return };
        let good = if standing {
            let live = working.ads.get(&accept.bid).is_some_and(|expires| expires.after(limits::CLOCK_SKEW_MS) >= now);
            live && working.taken.insert(accept.offer)
        } else {
            let bid = working.bids.get_mut(&accept.offer);
            bid.is_some_and(|(until, used, buyer)| *until >= now && *buyer == claim.buyer && !std::mem::replace(used, true))
        };
        self.checks.ensure(good, Invariant::NoJobWithoutHold, ms, || {
            let way = if standing { "an ad that is not live or was used" } else { "no hold of its present life" };
            format!("worker {who} runs job {} by {way}", claim.job)
        });
        self.stats.claims += 1;
    }

    /// Slots that are held and that run, by the decider's count and by ours.
    pub(super) fn check_slots(&mut self, who: Who) {
        let ms = self.ms;
        let Some(working) = self.working(who) else { return };
        let admission = working.market.admission();
        let (running, held, slots) = (admission.running(), admission.held(), admission.slots());
        let streams = working.serving.values().filter(|serving| serving.session.is_some()).count();
        self.checks.ensure(running + held <= slots && streams <= slots, Invariant::SlotsNotOversold, ms, || {
            format!("worker {who} runs {running} ({streams} streams) and holds {held} of {slots} slots")
        });
        self.stats.looked_at_slots += 1;
        self.note_strangers(who);
    }

    fn set_token(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let Some(serving) = self.working(who).and_then(|working| working.serving.get(&stream)) else { return };
        let next = serving.next_token;
        self.set(who, next, Timer::Token(stream));
        let quiet = deadline::KEEP_ALIVE.as_millis() as u64;
        if next > ms + quiet {
            self.set(who, ms + quiet, Timer::KeepAlive(stream));
        }
    }

    /// Says that it is still there, while the engine says nothing.
    pub(super) fn on_keep_alive(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let quiet = deadline::KEEP_ALIVE.as_millis() as u64;
        let Some(serving) = self.working(who).and_then(|working| working.serving.get(&stream)) else { return };
        if serving.receipt.is_some() || serving.session.is_none() || serving.last.max(serving.asked) + quiet > ms {
            return;
        }
        self.send(stream, false, Piece::frame(Frame::KeepAlive.encode()));
        self.set(who, ms + quiet, Timer::KeepAlive(stream));
    }

    /// The engine's next token, or what it does instead.
    pub(super) fn on_token(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let Some(working) = self.working(who) else { return };
        let (trouble, speed, conduct) = (working.trouble, working.profile.tokens_per_second.max(1), working.profile.conduct);
        let Some(serving) = working.serving.get_mut(&stream).filter(|serving| serving.next_token <= ms) else { return };
        let Some(session) = serving.session.as_mut() else { return };
        match trouble {
            // Looked at again, until it goes on or the buyer has lost patience.
            Some(EngineTrouble::Stalls) => {
                serving.next_token = ms + 500;
                return self.set_token(who, stream);
            }
            Some(EngineTrouble::Fails) => return self.on_engine_failure(who, stream),
            None => {}
        }
        if serving.said >= serving.tokens || session.is_full() {
            let (input, output) = (serving.claim.offer.input_tokens / 4, serving.said);
            let output = (conduct != Conduct::Inflating).then_some(output);
            return self.settle(who, stream, FinishReason::STOP, Some(input), output, false);
        }
        let text = job::token(&serving.job, who, serving.said);
        serving.said += 1;
        let counted = if conduct == Conduct::Inflating { serving.said * 3 } else { serving.said };
        let frame = session.delta(Channel::ANSWER, text, counted, vec![]);
        serving.first.get_or_insert(ms);
        serving.last = ms;
        let first = serving.first.unwrap_or(ms);
        serving.next_token = (first + u64::from(serving.said) * 1_000 / speed).max(ms + 1);
        self.stats.tokens += 1;
        self.send(stream, false, Piece::frame(frame));
        self.set_token(who, stream);
    }

    /// Before the first token another worker may take over; later what came is settled.
    pub(super) fn on_engine_failure(&mut self, who: Who, stream: StreamNo) {
        let Some(serving) = self.working(who).and_then(|working| working.serving.get(&stream)) else { return };
        let Some(session) = &serving.session else { return };
        if session.has_delivered() {
            return self.settle(who, stream, FinishReason::FAILED, None, None, false);
        }
        let error = StreamError { code: ErrorCode::ENGINE, retryable: true, message: "the engine failed".into() };
        self.send(stream, false, Piece::frame(Frame::Error(error).encode()));
        self.end_serving(who, stream, false);
    }

    /// What the buyer says while the answer runs, or that it is gone.
    pub(super) fn on_worker_frame(&mut self, who: Who, stream: StreamNo, piece: Piece) {
        let Some(serving) = self.working(who).and_then(|working| working.serving.get(&stream)) else { return };
        let waits = serving.receipt.is_some();
        match piece {
            Piece::Frame { countersign: Some(countersign), .. } if waits => self.on_countersign(who, stream, countersign),
            // It crossed the end of the answer.
            Piece::Frame { ref frame, .. } if waits && matches!(Frame::decode(frame), Ok(Frame::Cancel)) => {}
            _ if waits => self.end_serving(who, stream, false),
            Piece::Frame { ref frame, .. } if matches!(Frame::decode(frame), Ok(Frame::Cancel)) => {
                self.settle(who, stream, FinishReason::CANCELLED, None, None, false);
            }
            _ => self.settle(who, stream, FinishReason::CANCELLED, None, None, true),
        }
    }

    /// Usage, receipt, and the wait for the countersignature.
    fn settle(
        &mut self,
        who: Who,
        stream: StreamNo,
        finish: FinishReason,
        input: Option<u32>,
        output: Option<u32>,
        gone: bool,
    ) {
        let now = self.local(who);
        let plant = self.scenario.plant;
        let Some(working) = self.working(who) else { return };
        let Some(serving) = working.serving.get_mut(&stream) else { return };
        let Some(session) = serving.session.take() else { return };
        // The engine is free; what is left takes no slot.
        working.market.settle(&serving.claim.job);
        if working.profile.conduct != Conduct::Boastful
            && let Some(measured) = serving.measured()
            && working.advert.measure(&serving.claim.model.clone(), measured)
        {
            let models = working.advert.models().to_vec();
            working.market.set_catalogue(models);
        }
        let Finished { usage, receipt } = session.finish(finish, input, output, now);
        if !gone {
            self.send(stream, false, Piece::frame(usage));
        }
        let Some(mut body) = receipt else { return self.end_serving(who, stream, false) };
        if plant == Some(Plant::ChargesTooMuch) {
            body.output_tokens += 1;
            body.amount = body.price.cost(body.input_tokens, body.output_tokens).unwrap_or_default();
        }
        if plant == Some(Plant::LeaksPrompts) {
            body.model = format!("{} {}", body.model, job::PROMPT_MARK);
        }
        let receipt = self.sign(who, body);
        if plant == Some(Plant::SendsBeforeKeeping) && !gone {
            self.show_receipt(who, stream, receipt);
            let late = self.ms + LATE_MS;
            return self.set(who, late, Timer::KeepLate(stream));
        }
        if !self.keep_receipt(who, &receipt, None) {
            return self.end_serving(who, stream, false);
        }
        if gone {
            self.note(who, "settles alone", &[("stream", stream.into())]);
            return self.end_serving(who, stream, false);
        }
        self.show_receipt(who, stream, receipt);
    }

    fn show_receipt(&mut self, who: Who, stream: StreamNo, receipt: Verified<JobReceipt>) {
        self.shown.insert((receipt.job, receipt.worker, who), receipt.digest());
        let frame = Frame::Receipt(receipt.raw().to_vec().into()).encode();
        self.send(stream, false, Piece::Frame { frame, receipt: Some(receipt.clone()), countersign: None });
        let until = self.ms + deadline::SIGN.as_millis() as u64;
        if let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream)) {
            serving.receipt = Some(receipt);
        }
        self.set(who, until, Timer::Countersign(stream));
    }

    /// A planted bug: only now is on the disk what was shown long ago.
    pub(super) fn on_keep_late(&mut self, who: Who, stream: StreamNo) {
        let serving = self.working(who).and_then(|working| working.serving.get(&stream));
        let Some(receipt) = serving.and_then(|serving| serving.receipt.clone()) else { return };
        self.keep_receipt(who, &receipt, None);
    }

    fn on_countersign(&mut self, who: Who, stream: StreamNo, countersign: Verified<Countersign>) {
        let serving = self.working(who).and_then(|working| working.serving.get(&stream));
        let Some(receipt) = serving.and_then(|serving| serving.receipt.clone()) else { return };
        let acknowledged = self.keep_receipt(who, &receipt, Some(countersign.clone()));
        self.note(who, "settles", &[("stream", stream.into()), ("amount", receipt.amount.0)]);
        if acknowledged && let Ok(signed) = SignedReceipt::new(receipt, Some(countersign)) {
            let body = signed.receipt();
            self.published.insert((body.job, body.worker), (body.amount.0, body.buyer));
            self.publish(who, Said::Receipt(Box::new(signed)));
        }
        self.end_serving(who, stream, acknowledged);
    }

    /// Keeps a receipt and counts it, in the node's own books. Whether it is kept.
    pub(super) fn keep_receipt(
        &mut self,
        who: Who,
        receipt: &Verified<JobReceipt>,
        countersign: Option<Verified<Countersign>>,
    ) -> bool {
        let Ok(signed) = SignedReceipt::new(receipt.clone(), countersign) else { return false };
        let Some(put) = self.keep(who, |store| store.put_receipt(&signed)) else { return false };
        self.book(who, &signed, put);
        true
    }

    fn book(&mut self, who: Who, signed: &SignedReceipt, put: Put) {
        let twice = self.scenario.plant == Some(Plant::CountsTwice);
        let member = self.member_mut(who);
        let is_ours = signed.receipt().worker == member.id;
        let sum = if is_ours { &mut member.books.earned } else { &mut member.books.spent };
        match put {
            Put::New => sum.add(signed),
            Put::Countersigned if twice => sum.add(signed),
            Put::Countersigned => sum.acknowledge(signed),
            Put::Known | Put::Conflicting => {}
        }
    }

    /// No countersignature came in time.
    pub(super) fn on_countersign_due(&mut self, who: Who, stream: StreamNo) {
        self.end_serving(who, stream, false);
    }

    /// Frees the slot.
    fn end_serving(&mut self, who: Who, stream: StreamNo, settled: bool) {
        let plant = self.scenario.plant;
        let Some(working) = self.working(who) else { return };
        let Some(serving) = working.serving.remove(&stream) else { return };
        if plant != Some(Plant::LeaksSlots) || settled {
            working.market.finish(&serving.claim.job, settled);
        }
        self.close(stream);
    }
}

impl Serving {
    /// How fast the engine was; `None` if no token came.
    fn measured(&self) -> Option<Measured> {
        let first = self.first?;
        let streaming = self.last - first;
        let speed = (u64::from(self.said.saturating_sub(1)) * 1_000).checked_div(streaming);
        let speed = speed.filter(|_| self.said >= MIN_MEASURED_TOKENS);
        Some(Measured {
            ttft_ms: u32::try_from(first - self.asked).unwrap_or(u32::MAX),
            tokens_per_second: speed.map(|speed| u32::try_from(speed).unwrap_or(u32::MAX)),
        })
    }
}

/// What an accept says, as a claim without its offer: for planted bugs.
fn claim_of(accept: &Verified<JobAccept>, from: NodeId, standing: bool) -> Result<Claim, StreamError> {
    let order = super::job::Order::new("none".into(), 0, 1, accept.price, [0; 32]);
    Ok(Claim {
        job: accept.job,
        buyer: from,
        model: accept.model.clone(),
        price: accept.price,
        offer: order.offer(infernet_wire::id::OfferId([0; 16]), accept.issued),
        accept: accept.digest(),
        standing,
    })
}

/// An open frame's bytes are shared by its sender's session and its way.
pub type Bytes = Rc<[u8]>;
