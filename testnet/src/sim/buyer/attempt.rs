//! One stream of a buyer: from the accept to the countersignature, and how long each stage may stay silent.

use super::NOWHERE;
use crate::sim::{
    JobNo, StreamNo, Who, World,
    check::Invariant,
    event::Timer,
    gossip::Said,
    job::Phase,
    plant::Plant,
    stream::{OpenPiece, Piece, Stream},
};
use infernet_node::chat::{
    client::{Cause, Completed, Failure},
    deadline::{self, Stage},
    endpoint::ConnectError,
    framing::FrameError,
    session::{BuyerEvent, BuyerSession, Paid, Terms, Violation},
    stream::Path,
};
use infernet_node::settlement::tab::Pieces;
use infernet_wire::{
    accept::JobAccept,
    chat::{FinishReason, Frame, Open, Payment, Usage},
    envelope::Verified,
    id::NodeId,
    money::MicroUsd,
    receipt::{Countersign, JobReceipt, SignedReceipt},
    standing::StandingOffer,
    time::UnixMillis,
    topic,
};
use serde_bytes::{ByteArray, ByteBuf};
use std::{rc::Rc, time::Duration};

/// One stream, as its buyer sees it.
pub struct Attempt {
    pub(super) job: JobNo,
    session: BuyerSession,
    accept: Verified<JobAccept>,
    pub(super) worker: NodeId,
    pub(super) standing: bool,
    started: u64,
    first_token: Option<u64>,
    pub(super) usage: Option<(Usage, u64)>,
    opened: bool,
    /// Until when it tries to come back, and where it goes on, while its connection is lost.
    lost: Option<(Limit, u64)>,
    resumed: u32,
    /// When its worker wants how much; `None`: not as the answer runs.
    pieces: Option<Pieces>,
    /// What it has paid, and the last payment.
    paid: MicroUsd,
    last_payment: Option<Payment>,
    /// Whether a piece has come since it was back.
    shown_since: bool,
    pub(super) cancelled: bool,
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
        let silent = match self.lost {
            Some((until, _)) => until,
            None => Limit::from(self.heard, self.stage().patience()),
        };
        if self.give_up.at < silent.at { self.give_up } else { silent }
    }

    /// What the job came to, as its buyer knows.
    pub(super) fn owed(&self, result: &Result<Completed, Failure>) -> Option<MicroUsd> {
        match result {
            Ok(completed) => Some(completed.receipt.as_ref().map_or(MicroUsd(0), |receipt| receipt.receipt().amount)),
            Err(Failure { cause: Cause::Worker(_), .. }) if !self.session.has_received() => Some(MicroUsd(0)),
            Err(_) => None,
        }
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
        Completed {
            usage,
            receipt,
            path: Path::Direct(NOWHERE),
            resumed: self.resumed,
            ttft: self.first_token.map(since),
            duration: since(ended),
        }
    }
}

impl World {
    pub(super) fn open_stream(
        &mut self,
        no: JobNo,
        body: JobAccept,
        offer: Option<StandingOffer>,
        deal: (MicroUsd, UnixMillis),
    ) {
        let (who, worker, ms) = (self.job(no).buyer, body.winner, self.ms);
        let (budget, ends) = deal;
        let accept = self.sign(who, body);
        let order = self.job(no).order.clone();
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
            rate: 1,
        };
        let beforehand = terms.cost(terms.input_tokens, 0);
        let payment = if terms.is_free() { None } else { self.pay(who, &worker, accept.job, beforehand) };
        let frame = Frame::Open(Open {
            accept: ByteBuf::from(accept.raw().to_vec()),
            salt: ByteArray::new(order.salt),
            request_len: order.request.len() as u32,
            offer: offer.as_ref().map(|offer| ByteBuf::from(offer.payload().to_vec())),
            resume_from: Some(0),
            payment: payment.clone(),
            tranche: None,
        })
        .encode();
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
            lost: None,
            resumed: 0,
            pieces: None,
            paid: payment.as_ref().map(|payment| payment.paid).unwrap_or_default(),
            last_payment: payment,
            shown_since: false,
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

    pub(super) fn set_silence(&mut self, who: Who, stream: StreamNo) {
        if self.scenario.plant == Some(Plant::LosesTimers) {
            return;
        }
        if let Some(due) = self.buying(who).and_then(|buying| buying.running.get(&stream)).map(Attempt::due) {
            self.set(who, due.at, Timer::Silence(stream));
        }
    }

    /// A stream may have been silent for too long.
    pub(in crate::sim) fn on_silence(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let Some(due) = self.buying(who).and_then(|buying| buying.running.get(&stream)).map(Attempt::due) else { return };
        if due.at > ms {
            return self.set(who, due.at, Timer::Silence(stream));
        }
        self.fail(who, stream, FrameError::Timeout(due.after).into());
    }

    /// Its connection is broken: it comes back over another, soon, late or too late; or there is no point in it.
    pub(in crate::sim) fn on_buyer_lost(&mut self, who: Who, stream: StreamNo, way: u32) {
        if !self.is_broken(stream, way) {
            return;
        }
        let ms = self.ms;
        let pause = match self.fault_dice.weighted(&[4, 3, 2, 1]) {
            0 => self.fault_dice.within((20, 200)),
            1 => self.fault_dice.within((200, 2_000)),
            2 => self.fault_dice.within((5_000, 25_000)),
            _ => self.fault_dice.within((30_000, 45_000)),
        };
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get_mut(&stream)) else { return };
        let resume = if attempt.cancelled { None } else { attempt.session.lost() };
        let Some(resume) = resume else { return self.fail(who, stream, FrameError::Closed.into()) };
        attempt.lost = Some((Limit::from(ms, resume.within), resume.from));
        self.set(who, ms + pause, Timer::ComeBack(stream));
        self.set_silence(who, stream);
    }

    /// One try to go on over another connection.
    pub(in crate::sim) fn on_come_back(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get_mut(&stream)) else { return };
        let Some((_, from)) = attempt.lost else { return };
        self.reconnect(stream);
        self.send(stream, true, Piece::Resume(from));
        // An answer that does not come is waited for as long as the worker would wait.
        self.note(who, "comes back", &[("stream", stream.into()), ("from", from), ("ms", ms)]);
    }

    fn on_resumed(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get_mut(&stream)) else { return };
        (attempt.lost, attempt.heard, attempt.shown_since) = (None, ms, false);
        attempt.resumed += 1;
        let last = attempt.last_payment.clone().filter(|_| attempt.pieces.is_some());
        if attempt.cancelled {
            self.send(stream, true, Piece::frame(Frame::Cancel.encode()));
        }
        // It may have gone with the connection.
        if let Some(payment) = last {
            self.send(stream, true, Piece::frame(Frame::Voucher(payment).encode()));
        }
    }

    /// Pays `total` for the job in all, unless so much is paid already. A buyer that signs nothing pays no more, either.
    fn pay_up_to(&mut self, who: Who, stream: StreamNo, total: MicroUsd) {
        let deadbeat = self.is_deadbeat(who);
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get(&stream)) else { return };
        if deadbeat || attempt.pieces.is_none() || attempt.paid >= total {
            return;
        }
        let (worker, job) = (attempt.worker, attempt.session.terms().job);
        let Some(payment) = self.pay(who, &worker, job, total) else {
            return self.fail(who, stream, Cause::Keep("the disk".into()));
        };
        self.send(stream, true, Piece::frame(Frame::Voucher(payment.clone()).encode()));
        if let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get_mut(&stream)) {
            (attempt.paid, attempt.last_payment) = (total, Some(payment));
        }
    }

    /// Nobody answered the dialling.
    pub(in crate::sim) fn on_unreachable(&mut self, who: Who, stream: StreamNo) {
        self.fail(who, stream, ConnectError::Timeout(NOWHERE).into());
    }

    /// Its caller wants no more.
    pub(in crate::sim) fn on_cancel(&mut self, who: Who, no: JobNo) {
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

    pub(super) fn cancel(&mut self, who: Who, stream: StreamNo) {
        let ms = self.ms;
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get_mut(&stream)) else { return };
        attempt.cancelled = true;
        attempt.give_up = Limit::from(ms, deadline::CANCEL);
        self.send(stream, true, Piece::frame(Frame::Cancel.encode()));
        self.set_silence(who, stream);
    }

    /// What the worker says.
    pub(in crate::sim) fn on_buyer_frame(&mut self, who: Who, stream: StreamNo, piece: Piece) {
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
            BuyerEvent::Resumed => return self.on_resumed(who, stream),
            BuyerEvent::Opened { chunk, .. } => {
                attempt.opened = true;
                let most = attempt.session.terms().output_tokens;
                attempt.pieces = chunk.filter(|_| attempt.last_payment.is_some()).map(|chunk| Pieces::wanted(chunk, most));
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
                let price = attempt.session.terms().price;
                let total = price.cost(usage.input_tokens, usage.output_tokens).unwrap_or_default();
                attempt.usage = Some((usage, ms));
                attempt.give_up = Limit::from(ms, deadline::SIGN);
                self.pay_up_to(who, stream, total);
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
        let (acknowledge, came_back) = (attempt.session.acknowledge(), attempt.resumed > 0 && !attempt.shown_since);
        attempt.shown_since = true;
        let held_up = ms - started > 2_000;
        if is_first {
            self.stats.ttft.note(ms - self.job(no).began);
        }
        let job = self.job_mut(no);
        job.answer.push_str(text);
        if plant == Some(Plant::RepeatsText) && held_up && is_first || plant == Some(Plant::ForgetsPlace) && came_back {
            job.answer.push_str(text);
        }
        if let Some(seq) = acknowledge {
            self.send(stream, true, Piece::frame(Frame::Ack(seq).encode()));
        }
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get(&stream)) else { return };
        if let Some(pieces) = attempt.pieces.filter(|_| !attempt.cancelled) {
            let total = attempt.session.due(pieces.due(attempt.session.tokens()));
            self.pay_up_to(who, stream, total);
        }
    }

    /// Checks, keeps, then sends.
    fn on_receipt(&mut self, who: Who, stream: StreamNo, bytes: &[u8], receipt: Option<Verified<JobReceipt>>) {
        let (ms, now, plant) = (self.ms, self.local(who), self.scenario.plant);
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get(&stream)) else { return };
        let Some(receipt) = receipt.filter(|receipt| &receipt.raw()[..] == bytes && receipt.check_age(now).is_ok()) else {
            return self.fail(who, stream, FrameError::Malformed.into());
        };
        let checked = attempt.session.check_receipt(&receipt, Paid { amount: attempt.paid, on: None });
        let trusts = matches!(plant, Some(Plant::ChargesTooMuch | Plant::LeaksPrompts));
        if let Err(violation) = checked
            && !trusts
        {
            return self.fail(who, stream, violation.into());
        }
        let (no, worker, resumed) = (attempt.job, attempt.worker, attempt.resumed);
        if self.is_deadbeat(who) {
            self.stats.unsigned += receipt.amount.0;
            return self.fail(who, stream, FrameError::Closed.into());
        }
        let countersign = self.sign(who, Countersign { receipt: receipt.digest(), issued: now });
        if !self.keep_receipt(who, &receipt, Some(countersign.clone())) {
            return self.fail(who, stream, Cause::Keep("the disk".into()));
        }
        self.signed.entry(receipt.job).or_default().0 += receipt.amount.0;
        let (me, from) = (self.member(who).id, self.by_id.get(&worker).copied().unwrap_or(who));
        debug_assert_ne!(me, worker);
        self.check_charge(no, from, &receipt, resumed > 0);
        self.shown.insert((receipt.job, receipt.worker, who), receipt.digest());
        let frame = Frame::Countersign(ByteBuf::from(countersign.raw().to_vec())).encode();
        self.send(stream, true, Piece::Frame { frame, receipt: None, countersign: Some(countersign.clone()) });
        let signed = SignedReceipt::new(receipt, Some(countersign)).ok();
        let Some(attempt) = self.buying(who).and_then(|buying| buying.running.get(&stream)) else { return };
        let completed = attempt.completed(signed, ms);
        self.on_stream_end(who, stream, Ok(completed));
    }

    /// Whether a receipt charges what its engine has said; one of a job that was resumed all of it, as if nothing had been.
    fn check_charge(&mut self, no: JobNo, worker: Who, receipt: &Verified<JobReceipt>, resumed: bool) {
        let (ms, job) = (self.ms, self.job(no));
        let delivered = job.answer.split_whitespace().count() as u64;
        let within = receipt.amount <= job.order.budget() && receipt.price.within(&job.order.ceiling);
        let (charged, inflates) = (u64::from(receipt.output_tokens), self.inflates(worker));
        let what = format!("job {no} is charged {charged} of {delivered} tokens, {} of {}", receipt.amount, job.order.budget());
        self.stats.charged += charged;
        self.stats.inflated += charged.saturating_sub(delivered);
        let holds = within && (charged <= delivered || inflates) && (!resumed || charged == delivered || inflates);
        self.checks.ensure(holds, Invariant::ChargedAsDelivered, ms, || what);
    }

    pub(super) fn fail(&mut self, who: Who, stream: StreamNo, cause: Cause) {
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
            _ if attempt.cancelled && !after_first_token => {
                Failure { cause: Cause::Cancelled, after_first_token, lost: MicroUsd(0) }
            }
            cause => Failure { cause, after_first_token, lost: MicroUsd(0) },
        };
        self.send(stream, true, Piece::Reset);
        self.on_stream_end(who, stream, Err(failure));
    }
}
