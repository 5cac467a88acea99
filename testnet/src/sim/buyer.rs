//! A buyer's node: drives `market::buyer`, `market::job`, `market::course` and `chat::session` as `buyer.rs` and
//! `chat/client.rs` do, on virtual time.

use super::{
    JobNo, StreamNo, Who, World,
    check::Invariant,
    event::Timer,
    gossip::Said,
    job::{self, End, Job, Phase},
    plant::Plant,
    stream::{OpenPiece, Piece, Stream},
};
use infernet_node::{
    buyer::{Lesson, lesson},
    chat::{
        client::{Cause, Completed, Failure},
        deadline::{self, Stage},
        endpoint::{ConnectError, Path},
        framing::FrameError,
        session::{BuyerEvent, BuyerSession, Terms, Violation},
    },
    market::{
        auction::{AnswerRefused, Closed, Won},
        buyer::{Buyer, Input, Observation, Output},
        job::Attempts,
    },
};
use infernet_wire::{
    accept::JobAccept,
    bid::Answer,
    chat::{FinishReason, Frame, Open, Usage},
    envelope::Verified,
    id::{Hash, NodeId, OfferId},
    money::MicroUsd,
    receipt::{Countersign, JobReceipt, SignedReceipt},
    standing::StandingOffer,
    time::UnixMillis,
    topic,
};
use serde_bytes::{ByteArray, ByteBuf};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

/// How long a job waits for its turn to hold an auction, as `buyer.rs` has it.
const TURN_MS: u64 = 30_000;
/// Where simulated workers would answer. Nobody dials it.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// See the module.
pub struct Buying {
    /// The decider.
    pub market: Buyer,
    loads: BTreeMap<NodeId, u32>,
    /// The job whose turn it is to hold an auction, and those that wait.
    pub turn: Option<JobNo>,
    /// Jobs that wait for their turn.
    pub waiting: VecDeque<JobNo>,
    auctions: BTreeMap<Hash, JobNo>,
    /// Its streams.
    pub running: BTreeMap<StreamNo, Attempt>,
    /// Connections to workers: when they are made, and to which life of the worker.
    connections: BTreeMap<NodeId, (u64, u32)>,
    wake: Option<UnixMillis>,
}

impl Buying {
    /// A buyer that knows nobody, and keeps `max_ads` ads.
    pub fn new(max_ads: usize) -> Self {
        Buying {
            market: Buyer::new(max_ads),
            loads: BTreeMap::new(),
            turn: None,
            waiting: VecDeque::new(),
            auctions: BTreeMap::new(),
            running: BTreeMap::new(),
            connections: BTreeMap::new(),
            wake: None,
        }
    }
}

/// One stream, as its buyer sees it.
pub struct Attempt {
    job: JobNo,
    session: BuyerSession,
    accept: Verified<JobAccept>,
    worker: NodeId,
    standing: bool,
    started: u64,
    first_token: Option<u64>,
    usage: Option<(Usage, u64)>,
    opened: bool,
    cancelled: bool,
    heard: u64,
    give_up: Limit,
    deadline: Limit,
}

/// When a stage must have ended, and how long it may take.
#[derive(Clone, Copy)]
struct Limit {
    at: u64,
    after: Duration,
}

impl Limit {
    fn from(ms: u64, after: Duration) -> Self {
        Limit { at: ms + after.as_millis() as u64, after }
    }
}

impl Attempt {
    fn stage(&self) -> Stage {
        match () {
            () if self.cancelled => Stage::Cancelling,
            () if !self.opened => Stage::Opening,
            () if self.usage.is_some() => Stage::Signing,
            () if self.first_token.is_none() => Stage::Reading,
            () => Stage::Streaming,
        }
    }

    /// When the stream has failed if nothing comes.
    fn due(&self) -> Limit {
        let silent = Limit::from(self.heard, self.stage().patience());
        if self.give_up.at < silent.at { self.give_up } else { silent }
    }

    fn phase(&self) -> Phase {
        match () {
            () if !self.opened => Phase::Opening,
            () if self.usage.is_some() => Phase::Signing,
            () if self.first_token.is_none() => Phase::Reading,
            () => Phase::Streaming,
        }
    }

    fn completed(&self, receipt: Option<SignedReceipt>, ms: u64) -> Completed {
        let (usage, ended) =
            self.usage.clone().unwrap_or((Usage { input_tokens: 0, output_tokens: 0, finish: FinishReason::CANCELLED }, ms));
        let since = |at: u64| Duration::from_millis(at - self.started);
        Completed { usage, receipt, path: Path::Direct(NOWHERE), ttft: self.first_token.map(since), duration: since(ended) }
    }
}

impl World {
    fn buying(&mut self, who: Who) -> Option<&mut Buying> {
        self.member_mut(who).buyer.as_deref_mut()
    }

    fn job(&self, no: JobNo) -> &Job {
        self.jobs.get(no as usize).expect("jobs are never removed")
    }

    fn job_mut(&mut self, no: JobNo) -> &mut Job {
        self.jobs.get_mut(no as usize).expect("jobs are never removed")
    }

    /// A job begins, or goes on after an ad that came to nothing.
    pub(super) fn proceed(&mut self, no: JobNo) {
        let who = self.job(no).buyer;
        if let Some(tried) = self.job(no).course.next_ad().map(<[NodeId]>::to_vec) {
            let now = self.local(who);
            let (id, job) = (OfferId(self.dice.bytes()), self.job(no));
            let (offer, wishes) = (job.order.offer(id, now), job.order.wishes.clone());
            let Some(buying) = self.buying(who) else { return };
            let loads = &buying.loads;
            let running = |worker: &NodeId| loads.get(worker).copied().unwrap_or_default();
            match buying.market.standing(&offer, &wishes, &tried, running, now) {
                Ok(choice) => {
                    self.job_mut(no).course.ad_tried(choice.worker);
                    self.note(who, "takes an ad", &[("job", no.into()), ("score", choice.score)]);
                    let offer = StandingOffer::new(offer).expect("an order's offer is within limits");
                    let accept = choice.accept_body(&offer, self.job(no).id, now);
                    let deal = (offer.budget, offer.deadline);
                    return self.open_stream(no, accept, Some(offer), deal);
                }
                Err(reason) => self.stats.count("not_standing", reason.label()),
            }
        }
        if self.job(no).course.may_auction() {
            self.want_auction(no);
        } else {
            self.end(no, End::Failed("no_standing"));
        }
    }

    fn want_auction(&mut self, no: JobNo) {
        let (who, until) = (self.job(no).buyer, self.ms + TURN_MS);
        self.set_phase(no, Phase::Queued);
        let Some(buying) = self.buying(who) else { return };
        if buying.turn.is_some() {
            buying.waiting.push_back(no);
            self.aim(no, Phase::Queued);
            return self.set(who, until, Timer::Turn(no));
        }
        buying.turn = Some(no);
        self.hold_auction(no);
    }

    /// A job has waited for its turn for too long.
    pub(super) fn on_turn_missed(&mut self, who: Who, no: JobNo) {
        let Some(buying) = self.buying(who) else { return };
        let before = buying.waiting.len();
        buying.waiting.retain(|waiting| *waiting != no);
        if buying.waiting.len() < before {
            self.end(no, End::Failed("busy"));
        }
    }

    fn give_turn_back(&mut self, no: JobNo) {
        let who = self.job(no).buyer;
        let Some(buying) = self.buying(who).filter(|buying| buying.turn == Some(no)) else { return };
        buying.turn = buying.waiting.pop_front();
        if let Some(next) = buying.turn {
            self.hold_auction(next);
        }
    }

    fn hold_auction(&mut self, no: JobNo) {
        let (who, id) = (self.job(no).buyer, OfferId(self.dice.bytes()));
        let now = self.local(who);
        self.job_mut(no).course.auction_held();
        self.job_mut(no).auctioned = self.ms;
        let mut body = self.job(no).order.offer(id, now);
        let wishes = self.job(no).order.wishes.clone();
        let Some(buying) = self.buying(who) else { return };
        body.invited = buying.market.invite(&body, &wishes, now);
        let offer = self.sign(who, body);
        self.set_phase(no, Phase::Auction);
        self.stats.auctions += 1;
        self.note(who, "offers", &[("job", no.into())]);
        if !self.publish(who, Said::Offer(offer.clone())) {
            self.end(no, End::Failed("no_peers"));
            return self.give_turn_back(no);
        }
        let Some(buying) = self.buying(who) else { return };
        buying.auctions.insert(offer.digest(), no);
        if self.is_honest(who) {
            self.stats.offers.insert(offer.digest());
        }
        self.tell_buyer(who, Input::Open(offer, wishes));
    }

    /// Tells a buyer's decider, and carries out what it says.
    pub(super) fn tell_buyer(&mut self, who: Who, input: Input) {
        let now = self.local(who);
        let max_ads = self.scenario.market.max_ads;
        if let Input::Answer(answer @ Answer::Bid(_)) = &input {
            // Its connection is made by the time it wins.
            self.connect(who, answer.signer());
        }
        let Some(buying) = self.buying(who) else { return };
        let outputs = buying.market.handle(input, now);
        let (known, open) = (buying.market.registry().len(), buying.market.open_auctions());
        let ms = self.ms;
        self.checks.ensure(
            known <= max_ads && open <= infernet_node::market::buyer::MAX_OPEN_AUCTIONS,
            Invariant::Bounded,
            ms,
            || format!("buyer {who} keeps {known} ads of {max_ads}, {open} auctions"),
        );
        for output in outputs {
            self.on_buyer_output(who, output);
        }
    }

    fn on_buyer_output(&mut self, who: Who, output: Output) {
        match output {
            Output::Wake { at } => {
                let virtual_ms = self.member(who).virtual_ms(at);
                if let Some(buying) = self.buying(who) {
                    buying.wake = Some(at);
                }
                self.set(who, virtual_ms, Timer::BuyerWake);
            }
            Output::Closed { offer, outcome } => {
                if let Some(no) = self.buying(who).and_then(|buying| buying.auctions.remove(&offer)) {
                    self.on_closed(no, outcome);
                }
            }
            Output::Busy { offer } => {
                if let Some(no) = self.buying(who).and_then(|buying| buying.auctions.remove(&offer)) {
                    self.end(no, End::Failed("busy"));
                    self.give_turn_back(no);
                }
            }
            Output::Refused { reason, .. } => {
                self.stats.count("answer_refused", reason.label());
                self.stats.late_bids += u64::from(reason == AnswerRefused::Late);
            }
        }
    }

    /// The decider's wake, unless it has named another since.
    pub(super) fn on_buyer_wake(&mut self, who: Who) {
        let now = self.local(who);
        if let Some(buying) = self.buying(who)
            && buying.wake.is_some_and(|at| at <= now)
        {
            buying.wake = None;
            self.tell_buyer(who, Input::Wake);
        }
    }

    fn on_closed(&mut self, no: JobNo, outcome: Closed) {
        let who = self.job(no).buyer;
        match outcome {
            Closed::Won(won) => {
                let facts = [
                    ("job", u64::from(no)),
                    ("bids", won.bids.len() as u64),
                    ("ms", won.elapsed_ms),
                    ("score", won.ranking.first().map_or(0, |best| best.score)),
                ];
                self.note(who, "decides", &facts);
                self.on_won(no, &won);
            }
            Closed::NoBids { no_bids, asked, elapsed_ms, others, .. } => {
                let facts =
                    [("job", no.into()), ("refusals", no_bids.len() as u64), ("asked", asked as u64), ("ms", elapsed_ms)];
                self.note(who, "got no bids", &facts);
                self.stats.no_bids += 1;
                if no_bids.is_empty() && others && self.job_mut(no).course.may_draw_again() {
                    return self.hold_auction(no);
                }
                self.end(no, End::Failed("no_bids"));
                self.give_turn_back(no);
            }
        }
    }

    fn on_won(&mut self, no: JobNo, won: &Won) {
        self.measure_auction(no, won);
        let job = self.job_mut(no);
        job.won = Some((won.offer.budget, won.offer.deadline));
        job.attempts = Some(Attempts::new(won));
        job.last_failure = None;
        self.next_attempt(no);
    }

    fn next_attempt(&mut self, no: JobNo) {
        let who = self.job(no).buyer;
        let now = self.local(who);
        let job = self.job_mut(no);
        let (id, deal) = (job.id, job.won.unwrap_or((MicroUsd(0), now)));
        let next = job.attempts.as_mut().and_then(|attempts| {
            let attempt = attempts.next(now)?;
            Some(attempts.accept_body(&attempt, id, now))
        });
        match next {
            Some(accept) => self.open_stream(no, accept, None, deal),
            None => {
                let failure = job.last_failure;
                let again = job.course.may_auction_again() && failure.is_some_and(|(_, retryable)| retryable);
                self.give_turn_back(no);
                if again {
                    return self.want_auction(no);
                }
                self.end(no, End::Failed(failure.map_or("holds_lapsed", |(label, _)| label)));
            }
        }
    }

    /// Makes a connection to a worker, or finds one; returns when it is made. `None` if nobody is there.
    fn connect(&mut self, who: Who, worker: NodeId) -> Option<u64> {
        let to = self.by_id.get(&worker).copied()?;
        let ms = self.ms;
        if let Some((ready, _)) = self.buying(who).and_then(|buying| buying.connections.get(&worker).copied()) {
            return Some(ready.max(ms));
        }
        let target = self.member(to);
        if !target.is_up() || !self.mesh.has_way(who, to) {
            return None;
        }
        let (epoch, ready) = (target.epoch, ms + 2 * self.mesh.base_ms(who, to));
        if let Some(buying) = self.buying(who) {
            buying.connections.insert(worker, (ready, epoch));
        }
        Some(ready)
    }

    fn open_stream(&mut self, no: JobNo, body: JobAccept, offer: Option<StandingOffer>, deal: (MicroUsd, UnixMillis)) {
        let (who, worker, ms) = (self.job(no).buyer, body.winner, self.ms);
        let (budget, ends) = deal;
        let accept = self.sign(who, body);
        let order = self.job(no).order.clone();
        let frame = Frame::Open(Open {
            accept: ByteBuf::from(accept.raw().to_vec()),
            salt: ByteArray::new(order.salt),
            request_len: order.request.len() as u32,
            offer: offer.as_ref().map(|offer| ByteBuf::from(offer.payload().to_vec())),
        })
        .encode();
        let from = self.member(who).id;
        let terms = Terms {
            job: accept.job,
            accept: accept.digest(),
            buyer: from,
            worker,
            workload: topic::INFERENCE.into(),
            model: accept.model.clone(),
            weights: None,
            price: accept.price,
            budget,
            input_tokens: order.input_tokens,
            output_tokens: order.output_tokens,
        };
        let session = BuyerSession::new(terms, &frame, &order.request);
        let ready = self.connect(who, worker);
        let to = self.by_id.get(&worker).copied().unwrap_or(who);
        let worker_epoch = self
            .buying(who)
            .and_then(|buying| buying.connections.get(&worker).map(|(_, epoch)| *epoch))
            .unwrap_or_else(|| self.member(to).epoch);
        let stream = self.streams.len() as StreamNo;
        self.streams.push(Stream::new(no, who, to, (self.member(who).epoch, worker_epoch)));
        let deadline_ms = self.member(who).virtual_ms(ends);
        let started = ready.unwrap_or(ms);
        let attempt = Attempt {
            job: no,
            session,
            accept: accept.clone(),
            worker,
            standing: offer.is_some(),
            started,
            first_token: None,
            usage: None,
            opened: false,
            cancelled: false,
            heard: started,
            give_up: Limit::from(started, deadline::FIRST_TOKEN),
            deadline: Limit { at: deadline_ms, after: Duration::from_millis(deadline_ms.saturating_sub(ms)) },
        };
        let Some(buying) = self.buying(who) else { return };
        *buying.loads.entry(worker).or_default() += 1;
        buying.running.insert(stream, attempt);
        self.job_mut(no).worker = Some(to);
        self.set_phase(no, Phase::Opening);
        self.note(who, "asks", &[("job", no.into()), ("worker", to.into()), ("stream", stream.into())]);
        let Some(ready) = ready else {
            let at = ms + deadline::CONNECT.as_millis() as u64;
            return self.set(who, at, Timer::Unreachable(stream));
        };
        let open = OpenPiece { from, frame: frame.into(), request: order.request, accept };
        self.open_twice(stream, &open);
        self.send_after(stream, true, Piece::Open(Rc::new(open)), ready - ms);
        self.set_silence(who, stream);
        if self.job(no).cancelled {
            self.cancel(who, stream);
        }
    }

    fn set_silence(&mut self, who: Who, stream: StreamNo) {
        if self.scenario.plant == Some(Plant::LosesTimers) {
            return;
        }
        if let Some(due) = self.buying(who).and_then(|buying| buying.running.get(&stream)).map(Attempt::due) {
            self.set(who, due.at, Timer::Silence(stream));
        }
    }

    /// A stream may have been silent for too long.
    pub(super) fn on_silence(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let Some(due) = self.buying(who).and_then(|buying| buying.running.get(&stream)).map(Attempt::due) else { return };
        if due.at > ms {
            return self.set(who, due.at, Timer::Silence(stream));
        }
        self.fail(who, stream, FrameError::Timeout(due.after).into());
    }

    /// Nobody answered the dialling.
    pub(super) fn on_unreachable(&mut self, who: Who, stream: StreamNo) {
        self.fail(who, stream, ConnectError::Timeout(NOWHERE).into());
    }

    /// Its caller wants no more.
    pub(super) fn on_cancel(&mut self, who: Who, no: JobNo) {
        if self.job(no).ended.is_some() {
            return;
        }
        self.job_mut(no).cancelled = true;
        let running = self.buying(who).map(|buying| &buying.running).into_iter().flatten();
        let mut stream = running.filter(|(_, attempt)| attempt.job == no && attempt.usage.is_none()).map(|(stream, _)| *stream);
        if let Some(stream) = stream.next_back() {
            self.cancel(who, stream);
        }
    }

    fn cancel(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get_mut(&stream)) else { return };
        attempt.cancelled = true;
        attempt.give_up = Limit::from(ms, deadline::CANCEL);
        self.send(stream, true, Piece::frame(Frame::Cancel.encode()));
        self.set_silence(who, stream);
    }

    /// What the worker says.
    pub(super) fn on_buyer_frame(&mut self, who: Who, stream: StreamNo, piece: Piece) {
        let Piece::Frame { frame, receipt, .. } = piece else {
            return self.fail(who, stream, FrameError::Closed.into());
        };
        let ms = self.ms;
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get_mut(&stream)) else { return };
        let Ok(decoded) = Frame::decode(&frame) else {
            return self.fail(who, stream, FrameError::Malformed.into());
        };
        attempt.heard = ms;
        match attempt.session.on_frame(decoded, &frame) {
            Ok(event) => self.on_session_event(who, stream, event, receipt),
            Err(violation) => self.fail(who, stream, violation.into()),
        }
        self.set_silence(who, stream);
    }

    fn on_session_event(&mut self, who: Who, stream: StreamNo, event: BuyerEvent, receipt: Option<Verified<JobReceipt>>) {
        let ms = self.ms;
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get_mut(&stream)) else { return };
        let no = attempt.job;
        match event {
            BuyerEvent::KeepAlive => {}
            BuyerEvent::Opened { .. } => {
                attempt.opened = true;
                let (accept, standing) = (attempt.accept.clone(), attempt.standing);
                self.note(who, "is served", &[("job", no.into()), ("stream", stream.into())]);
                if !standing {
                    self.publish(who, Said::Accept(accept));
                    self.give_turn_back(no);
                }
            }
            BuyerEvent::Text { text, .. } => self.on_text(who, stream, &text),
            BuyerEvent::ToolCall(_) | BuyerEvent::Embedding(_) => {}
            BuyerEvent::Usage(usage) => {
                attempt.usage = Some((usage, ms));
                attempt.give_up = Limit::from(ms, deadline::SIGN);
            }
            BuyerEvent::Free(_) if !attempt.cancelled => return self.fail(who, stream, Violation::Unexpected("usage").into()),
            BuyerEvent::Free(usage) => {
                attempt.usage = Some((usage, ms));
                let completed = attempt.completed(None, ms);
                return self.on_stream_end(who, stream, Ok(completed));
            }
            BuyerEvent::Failed(error) => return self.fail(who, stream, Cause::Worker(error)),
            BuyerEvent::Receipt(bytes) => return self.on_receipt(who, stream, &bytes, receipt),
        }
        let phase = self.buying(who).and_then(|buying| buying.running.get(&stream)).map(Attempt::phase);
        if let Some(phase) = phase {
            self.set_phase(no, phase);
        }
    }

    fn on_text(&mut self, who: Who, stream: StreamNo, text: &str) {
        let (ms, plant) = (self.ms, self.scenario.plant);
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get_mut(&stream)) else { return };
        let (no, started) = (attempt.job, attempt.started);
        let is_first = attempt.first_token.is_none();
        if is_first {
            attempt.first_token = Some(ms);
            attempt.give_up = if attempt.cancelled { attempt.give_up } else { attempt.deadline };
        }
        let held_up = ms - started > 2_000;
        if is_first {
            self.stats.ttft.note(ms - self.job(no).began);
        }
        let job = self.job_mut(no);
        job.answer.push_str(text);
        if plant == Some(Plant::RepeatsText) && held_up && is_first {
            job.answer.push_str(text);
        }
    }

    /// Checks, keeps, then sends.
    fn on_receipt(&mut self, who: Who, stream: StreamNo, bytes: &[u8], receipt: Option<Verified<JobReceipt>>) {
        let (ms, now, plant) = (self.ms, self.local(who), self.scenario.plant);
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get(&stream)) else { return };
        let Some(receipt) = receipt.filter(|receipt| &receipt.raw()[..] == bytes && receipt.check_age(now).is_ok()) else {
            return self.fail(who, stream, FrameError::Malformed.into());
        };
        let checked = attempt.session.check_receipt(&receipt);
        let trusts = matches!(plant, Some(Plant::ChargesTooMuch | Plant::LeaksPrompts));
        if let Err(violation) = checked
            && !trusts
        {
            return self.fail(who, stream, violation.into());
        }
        let (no, worker) = (attempt.job, attempt.worker);
        if self.is_deadbeat(who) {
            self.stats.unsigned += receipt.amount.0;
            return self.fail(who, stream, FrameError::Closed.into());
        }
        let countersign = self.sign(who, Countersign { receipt: receipt.digest(), issued: now });
        if !self.keep_receipt(who, &receipt, Some(countersign.clone())) {
            return self.fail(who, stream, Cause::Keep("the disk".into()));
        }
        let (me, from) = (self.member(who).id, self.by_id.get(&worker).copied().unwrap_or(who));
        debug_assert_ne!(me, worker);
        self.check_charge(no, from, &receipt);
        self.shown.insert((receipt.job, receipt.worker, who), receipt.digest());
        let frame = Frame::Countersign(ByteBuf::from(countersign.raw().to_vec())).encode();
        self.send(stream, true, Piece::Frame { frame, receipt: None, countersign: Some(countersign.clone()) });
        let signed = SignedReceipt::new(receipt, Some(countersign)).ok();
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get(&stream)) else { return };
        let completed = attempt.completed(signed, ms);
        self.on_stream_end(who, stream, Ok(completed));
    }

    /// Whether a receipt charges what its engine has said.
    fn check_charge(&mut self, no: JobNo, worker: Who, receipt: &Verified<JobReceipt>) {
        let (ms, job) = (self.ms, self.job(no));
        let delivered = job.answer.split_whitespace().count() as u64;
        let within = receipt.amount <= job.order.budget() && receipt.price.within(&job.order.ceiling);
        let (charged, inflates) = (u64::from(receipt.output_tokens), self.inflates(worker));
        let what = format!("job {no} is charged {charged} of {delivered} tokens, {} of {}", receipt.amount, job.order.budget());
        self.stats.charged += charged;
        self.stats.inflated += charged.saturating_sub(delivered);
        let holds = within && (charged <= delivered || inflates);
        self.checks.ensure(holds, Invariant::ChargedAsDelivered, ms, || what);
    }

    fn fail(&mut self, who: Who, stream: StreamNo, cause: Cause) {
        let Some(buying) = self.buying(who) else { return };
        let Some(attempt) = buying.running.get(&stream) else { return };
        let after_first_token = attempt.session.has_received();
        if matches!(cause, Cause::Stream(FrameError::Timeout(_))) {
            // Whoever is next should not wait on a dead connection.
            let worker = attempt.worker;
            buying.connections.remove(&worker);
        }
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get(&stream)) else { return };
        let failure = match cause {
            _ if attempt.cancelled && !after_first_token => Failure { cause: Cause::Cancelled, after_first_token: false },
            cause => Failure { cause, after_first_token },
        };
        self.send(stream, true, Piece::Reset);
        self.on_stream_end(who, stream, Err(failure));
    }

    /// One attempt is over: what it teaches, and what follows.
    fn on_stream_end(&mut self, who: Who, stream: StreamNo, result: Result<Completed, Failure>) {
        let now = self.local(who);
        let Some(buying) = self.buying(who) else { return };
        let Some(attempt) = buying.running.remove(&stream) else { return };
        let Attempt { job: no, worker, standing, .. } = attempt;
        if let Some(load) = buying.loads.get_mut(&worker) {
            *load = load.saturating_sub(1);
        }
        let taught = lesson(&result, standing);
        match taught {
            Lesson::Nothing => {}
            Lesson::Refused => buying.market.refused_standing(worker, now),
            Lesson::Observed(observation) => buying.market.observe(worker, observation),
        }
        if let Lesson::Observed(Observation::Completed { .. }) = taught {
            let wishes = self.job(no).order.wishes.clone();
            if let Some(buying) = self.buying(who) {
                buying.market.answered(&wishes.conversation, worker, now);
            }
        }
        match result {
            Ok(completed) => self.on_completed(no, stream, &completed),
            Err(failure) => self.on_failure(no, &failure, standing),
        }
    }

    fn on_completed(&mut self, no: JobNo, stream: StreamNo, completed: &Completed) {
        let finish = completed.usage.finish;
        let end = match () {
            () if finish.is_complete() => End::Answered,
            () if finish == FinishReason::CANCELLED => End::Cancelled,
            () => End::Partial,
        };
        if end == End::Answered {
            self.check_answer(no, stream, completed.usage.output_tokens);
        }
        let pays_twice = self.scenario.plant == Some(Plant::PaysTwice) && end == End::Answered;
        let has_next = self.job(no).attempts.is_some();
        self.end(no, end);
        self.give_turn_back(no);
        if pays_twice && has_next {
            self.next_attempt(no);
        }
    }

    fn check_answer(&mut self, no: JobNo, stream: StreamNo, tokens: u32) {
        let worker = self.stream(stream).map_or(0, |stream| stream.worker);
        let inflates = self.inflates(worker);
        let (ms, job) = (self.ms, self.job(no));
        let whole = job::answer(&job.id, worker, tokens);
        let holds = job.answer == whole || inflates || job.ended.is_some();
        let what = format!("job {no}'s caller saw {} bytes, its engine said {}", job.answer.len(), whole.len());
        self.checks.ensure(holds, Invariant::AnswersAreWhole, ms, || what);
    }

    fn on_failure(&mut self, no: JobNo, failure: &Failure, standing: bool) {
        let who = self.job(no).buyer;
        let label = failure.cause.label();
        self.note(who, "was failed", &[("job", no.into()), ("retryable", failure.is_retryable().into())]);
        self.stats.count("failure", label);
        if failure.is_retryable() {
            let job = self.job_mut(no);
            job.retries += u32::from(!failure.is_refusal());
            job.last_failure = Some((label, true));
            return if standing { self.proceed(no) } else { self.next_attempt(no) };
        }
        let cancelled = matches!(failure.cause, Cause::Cancelled);
        self.end(no, if cancelled { End::Cancelled } else { End::Failed(label) });
        self.give_turn_back(no);
    }

    pub(super) fn set_phase(&mut self, no: JobNo, phase: Phase) {
        let job = self.job_mut(no);
        if job.ended.is_none() && job.phase != phase {
            job.phase = phase;
            self.aim(no, phase);
        }
    }

    /// A job is over.
    pub(super) fn end(&mut self, no: JobNo, end: End) {
        let ms = self.ms;
        let job = self.job_mut(no);
        if job.ended.is_some() {
            return;
        }
        job.ended = Some((ms, end));
        job.phase = Phase::Ended;
        let (who, took) = (job.buyer, ms - job.began);
        if self.is_honest(who) && !matches!(end, End::Cancelled | End::Died) {
            self.stats.honest_jobs += 1;
            self.stats.honest_answered += u64::from(end == End::Answered);
        }
        self.open_jobs -= 1;
        self.note(who, end.label(), &[("job", no.into()), ("ms", took)]);
        self.stats.count("job", end.label());
        if end == End::Answered {
            self.stats.answered_ms.note(took);
        }
    }
}
