//! One stream of a worker: from the accept to the settled receipt, and what the engine says meanwhile.

use super::Conduct;
use crate::sim::{
    StreamNo, Who, World,
    check::Invariant,
    event::Timer,
    fault::EngineTrouble,
    gossip::Said,
    job,
    plant::Plant,
    stream::{OpenPiece, Piece},
};
use infernet_node::{
    chat::{
        arrears::{Arrears, Waits, goes_on},
        backlog::Backlog,
        deadline,
        server::{read_request, refused_claim, terms},
        session::{Finished, Paid, WorkerSession},
    },
    market::{
        admission::ClaimError,
        advert::{MIN_MEASURED_TOKENS, Measured},
        seller::Claim,
    },
    seller::Unclaimed,
    store::{Put, Store},
};
use infernet_wire::{
    accept::JobAccept,
    chat::{Channel, ErrorCode, FinishReason, Frame, Open, Payment, StreamError},
    envelope::Verified,
    id::{JobId, NodeId, OfferId},
    limits,
    money::MicroUsd,
    receipt::{Countersign, JobReceipt, SignedReceipt},
    standing::StandingAccept,
    time::UnixMillis,
};

use std::time::Duration;

/// How late a planted bug writes a receipt that it has sent already.
const LATE_MS: u64 = 400;

/// A job that a worker runs.
pub struct Serving {
    claim: Claim,
    session: Option<WorkerSession>,
    job: JobId,
    /// How many tokens the engine will say.
    tokens: u32,
    said: u32,
    asked: u64,
    first: Option<u64>,
    last: u64,
    next_token: u64,
    /// The receipt that waits for its countersignature.
    receipt: Option<Verified<JobReceipt>>,
    /// Until when it waits.
    sign_by: u64,
    /// What its buyer may not have.
    backlog: Backlog,
    /// How each of its connections begins.
    opened: Vec<u8>,
    /// Whether its buyer can come back.
    resumes: bool,
    /// Whether its buyer is away.
    away: bool,
    /// How long it has waited for a payment.
    arrears: Arrears,
    /// What it came to.
    amount: MicroUsd,
}

impl World {
    /// A stream begins: everything before `Opened`.
    pub(in crate::sim) fn on_open(&mut self, who: Who, stream: StreamNo, piece: &OpenPiece) {
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

    fn admit(&mut self, who: Who, stream: StreamNo, piece: &OpenPiece) -> Result<Vec<u8>, StreamError> {
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
        piece: &OpenPiece,
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
        let (buyer, id) = (terms.buyer, claim.job);
        if !terms.is_free() {
            self.open_tab(who, &buyer, id, terms.most());
            let due = terms.cost(terms.input_tokens, 0);
            let taken = self.take_payment(who, &buyer, &id, open.payment.as_ref());
            if taken.is_err() || self.paid(who, &buyer, &id) < due {
                self.settle_sold(who, &buyer, &id, MicroUsd(0), false);
                return Err(StreamError { code: ErrorCode::PAYMENT, retryable: true, message: "not paid".into() });
            }
        }
        let (limit, resumes) = (terms.engine_limit(), open.resume_from.is_some());
        let (session, opened) = WorkerSession::open(terms, &piece.frame, &piece.request, resumes, now);
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
            sign_by: 0,
            backlog: Backlog::default(),
            opened: opened.clone(),
            resumes,
            away: false,
            arrears: Arrears::default(),
            amount: MicroUsd(0),
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
        let mut offer = job.order.offer(OfferId([0; 16]), accept.issued);
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
    pub(in crate::sim) fn check_slots(&mut self, who: Who) {
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
    pub(in crate::sim) fn on_keep_alive(&mut self, who: Who, stream: StreamNo) {
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
    pub(in crate::sim) fn on_token(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let Some(working) = self.working(who) else { return };
        let (trouble, speed, conduct) = (working.trouble, working.profile.tokens_per_second.max(1), working.profile.conduct);
        let Some(serving) = working.serving.get_mut(&stream).filter(|serving| serving.next_token <= ms) else { return };
        if serving.session.is_none() {
            return;
        }
        match trouble {
            // Looked at again, until it goes on or the buyer has lost patience.
            Some(EngineTrouble::Stalls) => {
                serving.next_token = ms + 500;
                return self.set_token(who, stream);
            }
            Some(EngineTrouble::Fails) => return self.on_engine_failure(who, stream),
            None => {}
        }
        if self.is_behind(who, stream) {
            return;
        }
        let Some(working) = self.working(who) else { return };
        let Some(serving) = working.serving.get_mut(&stream) else { return };
        let Some(session) = serving.session.as_mut() else { return };
        // The engine has to wait.
        if serving.resumes && serving.backlog.is_full() {
            serving.next_token = ms + 100;
            return self.set_token(who, stream);
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
        serving.backlog.push(frame);
        let first = serving.first.unwrap_or(ms);
        serving.next_token = (first + u64::from(serving.said) * 1_000 / speed).max(ms + 1);
        self.stats.tokens += 1;
        self.check_paid(who, stream);
        self.flush(who, stream);
        self.set_token(who, stream);
    }

    /// Whether the engine has to wait for a payment. If that has taken too long, the job is over.
    fn is_behind(&mut self, who: Who, stream: StreamNo) -> bool {
        let (ms, plant) = (self.ms, self.scenario.plant);
        let Some((buyer, job)) = self.working(who).and_then(|w| w.serving.get(&stream)).map(|s| (s.claim.buyer, s.job)) else {
            return false;
        };
        let paid = self.paid(who, &buyer, &job);
        let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream)) else { return false };
        let Some(session) = &serving.session else { return false };
        let goes_on = goes_on(&session.terms().price, limits::CHUNK_TOKENS, session.accrued(), paid);
        if goes_on || plant == Some(Plant::WorksForNothing) {
            serving.arrears.note(Waits::No);
            return false;
        }
        let now = Duration::from_millis(ms - serving.asked);
        serving.arrears.note(if serving.away { Waits::Paused(now) } else { Waits::Yes(now) });
        // As all buyers here, it can come back.
        if serving.arrears.is_over(now, true) {
            self.stats.count("payment_refused", "none");
            self.settle(who, stream, FinishReason::UNPAID, None, None, false);
            return true;
        }
        serving.next_token = ms + 100;
        self.set_token(who, stream);
        true
    }

    /// Nobody works for nothing, beyond one piece and the token that goes over it.
    fn check_paid(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let Some((buyer, job)) = self.working(who).and_then(|w| w.serving.get(&stream)).map(|s| (s.claim.buyer, s.job)) else {
            return;
        };
        let paid = self.paid(who, &buyer, &job);
        let Some(serving) = self.working(who).and_then(|working| working.serving.get(&stream)) else { return };
        let (inflates, session) = (serving.session.as_ref(), &serving.claim);
        let Some(inside) = inflates else { return };
        // One that inflates counts three for one.
        let piece = session.price.cost(0, limits::CHUNK_TOKENS + 3).unwrap_or_default();
        let accrued = inside.accrued();
        self.checks.ensure(accrued.0 <= paid.0 + piece.0.max(1) + 1, Invariant::PaymentsHold, ms, || {
            format!("worker {who} has delivered {accrued} for {paid}")
        });
    }

    fn on_payment(&mut self, who: Who, stream: StreamNo, payment: &Payment) {
        let ms = self.ms;
        let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream)) else { return };
        serving.arrears.hear(Duration::from_millis(ms - serving.asked));
        let (buyer, job, runs) = (serving.claim.buyer, serving.job, serving.session.is_some());
        if self.take_payment(who, &buyer, &job, Some(payment)).is_err() && runs {
            self.settle(who, stream, FinishReason::UNPAID, None, None, false);
        }
    }

    /// Before the first token another worker may take over; later what came is settled.
    pub(in crate::sim) fn on_engine_failure(&mut self, who: Who, stream: StreamNo) {
        let Some(serving) = self.working(who).and_then(|working| working.serving.get(&stream)) else { return };
        let Some(session) = &serving.session else { return };
        if session.has_delivered() {
            return self.settle(who, stream, FinishReason::FAILED, None, None, false);
        }
        let (buyer, job) = (serving.claim.buyer, serving.job);
        self.end_of_answer(who, &buyer, &job, MicroUsd(0));
        if self.member(who).store.is_none() {
            return;
        }
        let error = StreamError { code: ErrorCode::ENGINE, retryable: true, message: "the engine failed".into() };
        self.send(stream, false, Piece::frame(Frame::Error(error).encode()));
        self.end_serving(who, stream, false);
    }

    /// What the buyer says while the answer runs, or that it is gone.
    pub(in crate::sim) fn on_worker_frame(&mut self, who: Who, stream: StreamNo, piece: Piece) {
        let Some(serving) = self.working(who).and_then(|working| working.serving.get(&stream)) else { return };
        let waits = serving.receipt.is_some();
        if let Piece::Frame { frame, .. } = &piece
            && let Ok(Frame::Ack(seq)) = Frame::decode(frame)
        {
            return self.on_ack(who, stream, seq);
        }
        if let Piece::Frame { frame, .. } = &piece
            && let Ok(Frame::Voucher(payment)) = Frame::decode(frame)
        {
            return self.on_payment(who, stream, &payment);
        }
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
        let Some((buyer, job)) = self.working(who).and_then(|w| w.serving.get(&stream)).map(|s| (s.claim.buyer, s.job)) else {
            return;
        };
        let paid = self.paid(who, &buyer, &job);
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
        let Finished { usage, receipt } = session.finish(finish, (input, output), Paid { amount: paid, on: None }, now);
        let amount = receipt.as_ref().map(|body| body.amount).unwrap_or_default();
        if let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream)) {
            serving.amount = amount;
        }
        self.end_of_answer(who, &buyer, &job, amount);
        // It has died of writing that.
        if self.member(who).store.is_none() {
            return;
        }
        if !gone {
            self.say_ending(who, stream, usage);
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
        if let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream)) {
            serving.receipt = Some(receipt);
        }
        self.say_ending(who, stream, frame);
        self.wait_for_signature(who, stream);
    }

    fn wait_for_signature(&mut self, who: Who, stream: StreamNo) {
        let until = self.ms + deadline::SIGN.as_millis() as u64;
        if let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream)) {
            serving.sign_by = until;
            self.set(who, until, Timer::Countersign(stream));
        }
    }

    // ---- the line to the buyer, as `chat/line.rs` has it

    fn say_ending(&mut self, who: Who, stream: StreamNo, frame: Vec<u8>) {
        if let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream)) {
            serving.backlog.push_ending(frame);
        }
        self.flush(who, stream);
    }

    /// Writes what is due, to whichever connection there is; if that is broken it is lost there, and kept here.
    fn flush(&mut self, who: Who, stream: StreamNo) {
        loop {
            let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream)) else { return };
            if serving.away {
                return;
            }
            let Some(frame) = serving.backlog.unwritten().map(<[u8]>::to_vec) else { break };
            serving.backlog.wrote();
            let receipt = serving.receipt.clone().filter(|_| matches!(Frame::decode(&frame), Ok(Frame::Receipt(_))));
            self.send(stream, false, Piece::Frame { frame, receipt, countersign: None });
        }
        if let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream))
            && !serving.resumes
        {
            serving.backlog.forget_written();
        }
    }

    fn on_ack(&mut self, who: Who, stream: StreamNo, seq: u64) {
        let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream)) else { return };
        if serving.backlog.acknowledge(seq).is_err() {
            self.lose(who, stream);
        }
    }

    /// The buyer's connection is broken: it is waited for, if it knows how to come back.
    pub(in crate::sim) fn on_worker_lost(&mut self, who: Who, stream: StreamNo, way: u32) {
        if !self.is_broken(stream, way) {
            return;
        }
        let (until, plant) = (self.ms + u64::from(limits::RESUME_GRACE_MS), self.scenario.plant);
        let Some(serving) = self.working(who).and_then(|working| working.serving.get_mut(&stream)) else { return };
        if !serving.resumes {
            return self.lose(who, stream);
        }
        serving.away = true;
        if plant != Some(Plant::WaitsForever) {
            self.set(who, until, Timer::Grace(stream, way));
        }
    }

    /// It did not come back.
    pub(in crate::sim) fn on_grace(&mut self, who: Who, stream: StreamNo, way: u32) {
        let away = self.working(who).and_then(|working| working.serving.get(&stream)).is_some_and(|serving| serving.away);
        if away && self.is_last(stream, way) {
            self.stats.count("resume", "too_late");
            self.lose(who, stream);
        }
    }

    /// The buyer can't hear us any more.
    fn lose(&mut self, who: Who, stream: StreamNo) {
        let Some(serving) = self.working(who).and_then(|working| working.serving.get(&stream)) else { return };
        match serving.session {
            Some(_) => self.settle(who, stream, FinishReason::CANCELLED, None, None, true),
            None => self.end_serving(who, stream, false),
        }
    }

    /// The buyer is back.
    pub(in crate::sim) fn on_resume(&mut self, who: Who, stream: StreamNo, from: u64) {
        let serving = self.working(who).and_then(|working| working.serving.get_mut(&stream));
        let rewound = serving.and_then(|serving| serving.backlog.rewind(from).is_ok().then_some(serving));
        let Some(serving) = rewound else { return self.refuse_resume(stream) };
        serving.away = false;
        let (opened, signs) = (serving.opened.clone(), serving.receipt.is_some());
        self.take_way(stream);
        self.stats.count("resume", if signs { "at_the_end" } else { "in_the_answer" });
        self.note(who, "resumes", &[("stream", stream.into()), ("from", from)]);
        self.send(stream, false, Piece::frame(opened));
        self.flush(who, stream);
        if signs {
            self.wait_for_signature(who, stream);
        }
    }

    /// A planted bug: only now is on the disk what was shown long ago.
    pub(in crate::sim) fn on_keep_late(&mut self, who: Who, stream: StreamNo) {
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
    pub(in crate::sim) fn keep_receipt(
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
    pub(in crate::sim) fn on_countersign_due(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let serving = self.working(who).and_then(|working| working.serving.get(&stream));
        // A buyer that is away has its own time.
        if serving.is_none_or(|serving| serving.away || serving.sign_by > ms) {
            return;
        }
        self.end_serving(who, stream, false);
    }

    /// Frees the slot.
    fn end_serving(&mut self, who: Who, stream: StreamNo, settled: bool) {
        let plant = self.scenario.plant;
        let Some(working) = self.working(who) else { return };
        let Some(serving) = working.serving.remove(&stream) else { return };
        let (buyer, job, amount) = (serving.claim.buyer, serving.job, serving.amount);
        if plant != Some(Plant::LeaksSlots) || settled {
            working.market.finish(&serving.claim.job, settled);
        }
        self.settle_sold(who, &buyer, &job, amount, settled);
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
    let order = job::Order::new("none".into(), 0, 1, accept.price, [0; 32]);
    Ok(Claim {
        job: accept.job,
        buyer: from,
        model: accept.model.clone(),
        price: accept.price,
        offer: order.offer(OfferId([0; 16]), accept.issued),
        accept: accept.digest(),
        standing,
        rate: accept.units_per_micro_usd(),
    })
}
