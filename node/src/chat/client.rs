//! The buyer's end of a chat stream: one attempt with one worker.
//!
//! The caller learns of every step through [`Progress`], and of the end through the result: [`Completed`], or a [`Failure`] that
//! tells whether another worker may take over unseen. A stream that is lost within the answer is no failure yet: for as long as the
//! worker waits, the job goes on in another one, over whichever way works by then. Nothing hangs: each state has its deadline, and a stream that ends early
//! is a failure, never a short answer.

use super::{
    deadline::{self, Stage},
    endpoint::ConnectError,
    framing::{FrameError, FrameReader, FrameWriter, RawFrame},
    pool::Pool,
    relayed::Relayed,
    session::{BuyerEvent, BuyerSession, Paid, Resume, Terms, Violation},
    stream::{ChatStream, Ending, Incoming, Outgoing, Path, Way},
};
use crate::{
    clock,
    disputes::{self, Dispute},
    ledger::Ledger,
    settlement::{
        tab::Pieces,
        tabs::{CloseRefused, NotPaid, Payer, Tabs},
    },
};
use infernet_wire::{
    accept::JobAccept,
    chat::{
        Channel, Closed, Closing, Embedding, ErrorCode, Frame, Open, Payment, StreamError, TokenLogprob, ToolCallDelta, Usage,
    },
    envelope::{Envelope, Refusal, Verified},
    id::{EvmSignature, JobId, NodeId},
    key::NodeKey,
    money::{MicroUsd, Price},
    receipt::{Countersign, JobReceipt, SignedReceipt},
    solana::Tranche,
    standing::StandingOffer,
    time::UnixMillis,
    topic::NetworkId,
};
use serde_bytes::{ByteArray, ByteBuf};
use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant as TimerInstant, sleep_until, timeout},
};
use tracing::{debug, warn};

/// What is sent to one worker.
pub struct Order {
    /// The signed accept.
    pub accept: Verified<JobAccept>,
    /// The offer, if the worker has not seen it: it is asked at its ad's prices.
    pub offer: Option<StandingOffer>,
    /// What opens the offer's commitment.
    pub salt: [u8; 32],
    /// The request's bytes.
    pub request: Vec<u8>,
    /// What was agreed.
    pub terms: Terms,
    /// Where the worker answers.
    pub addrs: Vec<SocketAddr>,
    /// When the whole answer must be there, whatever the worker says until then.
    pub deadline: UnixMillis,
}

/// What a buyer signs and keeps with.
pub struct Buyer {
    /// Signs countersignatures.
    pub key: NodeKey,
    /// The network.
    pub network: NetworkId,
    /// Keeps receipts.
    pub ledger: Ledger,
    /// What is paid from.
    pub tabs: Tabs,
    /// Connections to workers.
    pub pool: Pool,
    /// The way to those whom these don't reach; `None`: there is no other.
    pub relayed: Option<Relayed>,
}

/// A step of the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The worker has the job.
    Opened {
        /// How the stream goes.
        path: Path,
        /// And what is known of that.
        way: Way,
        /// Input tokens that may be charged at most.
        input_tokens: u32,
        /// What was agreed with whom.
        agreed: Box<Agreed>,
    },
    /// The stream was lost, and the job goes on in another, where it was.
    Resumed {
        /// How the stream goes now.
        path: Path,
        /// And what is known of that.
        way: Way,
    },
    /// A piece of the answer.
    Text {
        /// Which part.
        channel: Channel,
        /// The text.
        text: String,
        /// Output tokens so far.
        tokens: u32,
        /// Log probabilities of its tokens, if asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// A piece of a tool call.
    ToolCall(ToolCallDelta),
    /// A vector.
    Embedding(Embedding),
    /// The answer is whole: the final count, and why it ended. The receipt follows unseen.
    Usage(Usage),
}

/// The terms of a running job, for whoever shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The job.
    pub job: JobId,
    /// Who serves it.
    pub worker: NodeId,
    /// The model, by the worker's id.
    pub model: String,
    /// The price.
    pub price: Price,
}

impl From<&Terms> for Agreed {
    fn from(terms: &Terms) -> Self {
        Agreed { job: terms.job, worker: terms.worker, model: terms.model.clone(), price: terms.price }
    }
}

/// A stream that ended as the protocol says.
#[derive(Debug)]
pub struct Completed {
    /// The final count, and why the answer ended.
    pub usage: Usage,
    /// The receipt with both signatures; `None` if the job ended free of charge.
    pub receipt: Option<SignedReceipt>,
    /// How the stream went, at last.
    pub path: Path,
    /// How often it was lost and the job went on in another.
    pub resumed: u32,
    /// From `Open` to the first piece of the answer; `None` if there was none.
    pub ttft: Option<Duration>,
    /// From `Open` to `Usage`.
    pub duration: Duration,
}

/// A stream that did not.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct Failure {
    /// Why.
    #[source]
    pub cause: Cause,
    /// Whether a piece of the answer had arrived: then no other worker can take over unseen.
    pub after_first_token: bool,
    /// What was promised for nothing, if it was not: the worker may still ask for it.
    pub lost: MicroUsd,
}

/// Why a stream failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// No connection.
    #[error("can't reach the worker: {0}")]
    Connect(#[from] ConnectError),
    /// The stream broke or fell silent.
    #[error("lost the worker: {0}")]
    Stream(#[from] FrameError),
    /// The worker said why.
    #[error("the worker gave up: {0}")]
    Worker(StreamError),
    /// The worker broke the protocol; nothing was countersigned.
    #[error("the worker broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// The receipt is not the worker's, or not a receipt.
    #[error("the worker's receipt is invalid: {0}")]
    Receipt(Refusal),
    /// Our own disk.
    #[error("can't keep the receipt: {0}; free some disk space")]
    Keep(String),
    /// A voucher can't be written.
    #[error("can't pay: {0}")]
    Pay(#[from] NotPaid),
    /// A channel's end is not signed.
    #[error(transparent)]
    Close(#[from] CloseRefused),
    /// The caller went away before the first token.
    #[error("cancelled")]
    Cancelled,
}

impl Cause {
    /// A short stable name, for logs: an error's text may hold what the worker wrote, and that may be the prompt.
    pub fn label(&self) -> &'static str {
        match self {
            Cause::Connect(_) => "connect",
            Cause::Stream(error) => error.label(),
            Cause::Worker(error) => error.code.label(),
            Cause::Violation(_) => "violation",
            Cause::Receipt(refusal) => refusal.label(),
            Cause::Keep(_) | Cause::Pay(_) => "store",
            Cause::Close(_) => "close",
            Cause::Cancelled => "cancelled",
        }
    }
}

impl Failure {
    /// Whether another worker may do what this one did not.
    pub fn is_retryable(&self) -> bool {
        let transient = match &self.cause {
            Cause::Worker(error) => error.retryable || error.code == ErrorCode::BAD_ACCEPT,
            Cause::Cancelled | Cause::Keep(_) | Cause::Pay(_) | Cause::Close(_) => false,
            _ => true,
        };
        transient && !self.after_first_token
    }

    /// Whether the worker only said that it can't take the job, which is no fault of its.
    pub fn is_refusal(&self) -> bool {
        matches!(&self.cause, Cause::Worker(error) if [ErrorCode::BUSY, ErrorCode::NO_HOLD, ErrorCode::PAYMENT].contains(&error.code))
    }
}

/// Where progress goes, and who may stop it.
pub struct Caller<'a, T> {
    /// Sees each step first, in the stream's own task: a token that only passes through wakes nobody twice.
    pub on_step: &'a mut (dyn FnMut(&Progress) + Send),
    /// Takes each step. When its receiver is dropped, the job is cancelled and what was delivered is still settled.
    pub progress: &'a mpsc::Sender<T>,
    /// Cancels the job when it becomes true.
    pub cancel: &'a mut watch::Receiver<bool>,
    /// How long a step may wait to be taken; [`deadline::TAKE`] unless there is a reason. Then the job is cancelled, too.
    pub patience: Duration,
}

impl<T: From<Progress>> Caller<'_, T> {
    /// Whether the caller took the step. One that takes nothing for so long gets nothing more: an answer with a gap would look
    /// whole. One that went away is noticed as a cancel.
    async fn tell(&mut self, step: Progress) -> bool {
        (self.on_step)(&step);
        timeout(self.patience, self.progress.send(step.into())).await.is_ok()
    }
}

/// Runs `order` to its end.
pub async fn run<T: From<Progress> + Send>(buyer: &Buyer, order: Order, caller: Caller<'_, T>) -> Result<Completed, Failure> {
    let before = |cause, lost| Failure { cause, after_first_token: false, lost };
    let mut attempt = Attempt::start(buyer, &order).await.map_err(|cause| before(cause, MicroUsd(0)))?;
    let result = attempt.drive(buyer, &order, caller).await;
    if matches!(&result, Err(Cause::Stream(FrameError::Timeout(_)))) {
        // Whoever is next should not wait on a dead connection.
        buyer.pool.drop_connection(&order.terms.worker);
    }
    let after_first_token = attempt.session.has_received();
    if let Err(cause @ (Cause::Violation(_) | Cause::Receipt(_))) = &result {
        buyer.ledger.disputes().keep(attempt.dispute(&order, cause)).await;
    }
    let promised = attempt.close_tab(&result);
    result.map_err(|cause| match cause {
        // Nobody waits for another worker's answer.
        _ if attempt.cancelled && !after_first_token => before(Cause::Cancelled, promised),
        cause if !after_first_token => before(cause, promised),
        cause => Failure { cause, after_first_token, lost: MicroUsd(0) },
    })
}

struct Attempt {
    reader: FrameReader<Incoming>,
    writer: FrameWriter<Outgoing>,
    session: BuyerSession,
    path: Path,
    resumed: u32,
    started: Instant,
    first_token: Option<Instant>,
    usage: Option<(Usage, Instant)>,
    opened: bool,
    /// What was shown with it, until it is opened.
    tranche: Option<Tranche>,
    /// What it is paid from; `None` if it is free.
    payer: Option<Payer>,
    /// When the worker wants how much; `None`: not as the answer runs.
    pieces: Option<Pieces>,
    /// The payment sent last.
    last_payment: Option<Payment>,
    /// The receipt that the worker has shown.
    claim: Option<String>,
    cancelled: bool,
    /// Whether the caller has stopped taking steps.
    stalled: bool,
    /// When the last frame was dealt with.
    heard: TimerInstant,
    /// When the stream must have reached its next stage, however many frames come until then.
    give_up: Limit,
    /// When it must be over.
    deadline: Limit,
}

impl Order {
    fn payer(&self, tabs: &Tabs) -> Payer {
        let Terms { worker, job, rate, .. } = self.terms;
        tabs.payer(worker, job, self.terms.most(), rate)
    }
}

/// Asks `worker`, who answers at `addrs`, for its signature over the end of a channel, and signs what it wants if that is no more than
/// we owe. From then on nothing is paid on it.
pub async fn close_channel(
    buyer: &Buyer,
    (worker, addrs): (NodeId, &[SocketAddr]),
    asked: Closing,
) -> Result<(Closed, EvmSignature), Cause> {
    let ChatStream { recv, send, .. } = connect(buyer, worker, addrs).await?;
    let (mut reader, mut writer) = (FrameReader::new(recv), FrameWriter::new(send));
    writer.write(&Frame::Close(asked).encode(), deadline::WRITE).await?;
    match reader.next_within(deadline::OPENED).await?.frame {
        Frame::Closed(closed) => {
            let signature = buyer.tabs.sign_closed(&worker, &asked, &closed)?;
            buyer.tabs.channels().close(&asked.channel);
            Ok((closed, signature))
        }
        Frame::Error(error) => Err(Cause::Worker(error)),
        _ => Err(Cause::Violation(Violation::Unexpected("answer to close"))),
    }
}

/// A stage's end, and how long the stage may take.
#[derive(Clone, Copy)]
struct Limit {
    at: TimerInstant,
    after: Duration,
}

impl Limit {
    fn from_now(after: Duration) -> Self {
        Limit { at: clock::deadline(after), after }
    }
}

/// A new stream to `worker`, by the best way that works: straight to its chat endpoint, else over the mesh. If the first
/// has lately failed, or is slow, it is made in the background for the next stream.
async fn connect(buyer: &Buyer, worker: NodeId, addrs: &[SocketAddr]) -> Result<ChatStream, Cause> {
    let Some(relayed) = &buyer.relayed else { return connect_straight(buyer, worker, addrs).await };
    if addrs.is_empty() {
        return Ok(relayed.open(worker).await?);
    }
    if buyer.pool.is_unreachable(&worker)
        && relayed.is_connected(worker).await
        && let Ok(stream) = relayed.open_at_once(worker).await
    {
        buyer.pool.warm(worker, addrs);
        return Ok(stream);
    }
    let straight = connect_straight(buyer, worker, addrs);
    if !relayed.is_connected(worker).await {
        return straight.await;
    }
    match timeout(deadline::CONNECT_STRAIGHT, straight).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(cause)) if !matches!(cause, Cause::Connect(_)) => Err(cause),
        slow_or_failed => {
            let why = slow_or_failed.map_or("slow", |_| "failed");
            debug!(worker = %worker.short(), why, "not straight; over the mesh");
            Ok(relayed.open_at_once(worker).await?)
        }
    }
}

async fn connect_straight(buyer: &Buyer, worker: NodeId, addrs: &[SocketAddr]) -> Result<ChatStream, Cause> {
    let connection = buyer.pool.get(worker, addrs).await?;
    let opening = timeout(deadline::OPENED, connection.open());
    Ok(opening.await.map_err(|_| FrameError::Timeout(deadline::OPENED))??)
}

/// What is known of the way to `worker`, over which a stream goes.
async fn way(buyer: &Buyer, path: Path, worker: NodeId) -> Way {
    match (path, &buyer.relayed) {
        (Path::Direct(_), _) => {
            let ms = |rtt: Duration| u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX);
            Way { rtt_ms: buyer.pool.rtt(&worker).map(ms), why_not_direct: None }
        }
        (_, Some(relayed)) => relayed.way(worker).await,
        (_, None) => Way::default(),
    }
}

/// The first frame of a stream, for a job that begins with `request`, or goes on at `resume_from` without one.
fn open_frame(order: &Order, request: &[u8], resume_from: u64, payment: Option<Payment>, tranche: Option<Tranche>) -> Vec<u8> {
    Frame::Open(Open {
        accept: ByteBuf::from(order.accept.raw().to_vec()),
        salt: ByteArray::new(order.salt),
        request_len: u32::try_from(request.len()).unwrap_or(u32::MAX),
        offer: order.offer.as_ref().filter(|_| !request.is_empty()).map(|offer| ByteBuf::from(offer.payload().to_vec())),
        resume_from: Some(resume_from),
        payment,
        tranche: tranche.map(Box::new),
    })
    .encode()
}

impl Attempt {
    async fn start(buyer: &Buyer, order: &Order) -> Result<Self, Cause> {
        let ChatStream { path, recv, send, .. } = connect(buyer, order.terms.worker, &order.addrs).await?;
        let mut payer = (!order.terms.is_free()).then(|| order.payer(&buyer.tabs));
        let payment = match &mut payer {
            Some(payer) => Some(payer.pay(order.terms.cost(order.terms.input_tokens, 0)).await?),
            None => None,
        };
        let tranche = payer.as_ref().and_then(|_| buyer.tabs.solana().to_show(&order.terms.worker));
        let open = open_frame(order, &order.request, 0, payment.clone(), tranche);
        let started = clock::instant();
        let mut writer = FrameWriter::new(send);
        writer.write_with(&open, &order.request, deadline::WRITE).await?;
        Ok(Attempt {
            reader: FrameReader::new(recv),
            writer,
            session: BuyerSession::new(order.terms.clone(), &open, &order.request),
            path,
            resumed: 0,
            started,
            first_token: None,
            usage: None,
            opened: false,
            tranche,
            payer,
            pieces: None,
            last_payment: payment,
            claim: None,
            cancelled: false,
            stalled: false,
            heard: clock::deadline(Duration::ZERO),
            give_up: Limit::from_now(deadline::FIRST_TOKEN),
            deadline: Limit::from_now(clock::until(order.deadline)),
        })
    }

    /// Runs to the end, over as many streams as it takes.
    async fn drive<T: From<Progress> + Send>(
        &mut self,
        buyer: &Buyer,
        order: &Order,
        mut caller: Caller<'_, T>,
    ) -> Result<Completed, Cause> {
        let (progress, mut cancel) = (caller.progress, caller.cancel.clone());
        let mut wanted = pin!(wants_cancel(&mut cancel, progress));
        loop {
            let lost = match self.drive_stream(buyer, &mut caller, wanted.as_mut()).await {
                Err(Cause::Stream(lost)) => lost,
                result => return result,
            };
            let Some(resume) = self.may_resume(&lost) else { return Err(lost.into()) };
            debug!(cause = lost.label(), from = resume.from, "lost the worker; going on in another stream");
            if matches!(lost, FrameError::Timeout(_)) {
                buyer.pool.drop_connection(&order.terms.worker);
            }
            if !self.resume(buyer, order, resume, wanted.as_mut()).await? {
                return Err(lost.into());
            }
            caller.tell(Progress::Resumed { path: self.path, way: way(buyer, self.path, order.terms.worker).await }).await;
        }
    }

    /// One timer serves the whole stream: a frame only moves what is due, and the timer is set anew when it rings too early.
    async fn drive_stream<T: From<Progress> + Send>(
        &mut self,
        buyer: &Buyer,
        caller: &mut Caller<'_, T>,
        mut wanted: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Completed, Cause> {
        let mut timer = pin!(sleep_until(self.due().at));
        loop {
            let raw = tokio::select! {
                biased;
                // Once the answer is whole there is nothing to stop, and its receipt is still wanted.
                () = &mut wanted, if !self.cancelled && self.usage.is_none() => {
                    self.cancel().await?;
                    None
                }
                () = &mut timer => match self.due() {
                    due if due.at <= timer.deadline() => return Err(FrameError::Timeout(due.after).into()),
                    due => {
                        timer.as_mut().reset(due.at);
                        continue;
                    }
                },
                raw = self.reader.next() => Some(raw?),
            };
            if let Some(raw) = raw
                && let Some(completed) = self.on_frame(raw, buyer, caller).await?
            {
                return Ok(completed);
            }
            if self.stalled && !self.cancelled {
                self.cancel().await?;
            }
            self.heard = clock::deadline(Duration::ZERO);
            let due = self.due();
            if due.at < timer.deadline() {
                timer.as_mut().reset(due.at);
            }
        }
    }

    /// How to go on after `lost`, if there is a point in it.
    fn may_resume(&mut self, lost: &FrameError) -> Option<Resume> {
        let is_late = self.give_up.at <= clock::deadline(Duration::ZERO);
        if is_late || self.cancelled || lost.ending(&self.path) == Ending::Left {
            return None;
        }
        self.session.lost()
    }

    /// Tries until a new stream goes on with the job; `false` if the worker does not wait any longer. A caller that wants no more
    /// shortens the wait: the worker should hear of it, and what came is to be settled.
    async fn resume(
        &mut self,
        buyer: &Buyer,
        order: &Order,
        resume: Resume,
        mut wanted: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<bool, Cause> {
        let mut until = clock::deadline(resume.within).min(self.give_up.at);
        let (mut pause, longest) = deadline::RESUME_PAUSE;
        loop {
            match timeout(until - clock::deadline(Duration::ZERO), self.reopen(buyer, order, resume.from)).await {
                Err(_) => return Ok(false),
                Ok(Ok(())) => break,
                Ok(Err(Cause::Worker(error))) if !error.retryable => {
                    debug!(code = error.code.label(), "the worker does not go on with the job");
                    return Ok(false);
                }
                Ok(Err(Cause::Violation(violation))) => return Err(violation.into()),
                Ok(Err(cause)) => debug!(cause = cause.label(), "not resumed yet"),
            }
            tokio::select! {
                () = &mut wanted, if !self.cancelled && self.usage.is_none() => {
                    self.cancelled = true;
                    self.give_up = Limit::from_now(deadline::CANCEL);
                    until = until.min(self.give_up.at);
                }
                () = sleep_until(clock::deadline(pause).min(until)) => pause = (pause * 2).min(longest),
            }
            if clock::deadline(Duration::ZERO) >= until {
                return Ok(false);
            }
        }
        self.resumed += 1;
        self.heard = clock::deadline(Duration::ZERO);
        if self.cancelled {
            self.cancel().await?;
        }
        Ok(true)
    }

    /// One try to go on in a new stream.
    async fn reopen(&mut self, buyer: &Buyer, order: &Order, from: u64) -> Result<(), Cause> {
        let ChatStream { path, recv, send, .. } = match (connect(buyer, order.terms.worker, &order.addrs).await, &buyer.relayed)
        {
            // Nobody else can go on with the job, so there is time to dial its worker anew.
            (Err(Cause::Connect(_)), Some(relayed)) if !order.addrs.is_empty() => relayed.open(order.terms.worker).await?,
            (connected, _) => connected?,
        };
        let (mut reader, mut writer) = (FrameReader::new(recv), FrameWriter::new(send));
        writer.write(&open_frame(order, &[], from, None, None), deadline::WRITE).await?;
        let raw = reader.next_within(deadline::OPENED).await?;
        match self.session.on_frame(raw.frame, &raw.bytes)? {
            BuyerEvent::Resumed => {}
            BuyerEvent::Failed(error) => return Err(Cause::Worker(error)),
            _ => return Err(Violation::Unexpected("first").into()),
        }
        (self.reader, self.writer, self.path) = (reader, writer, path);
        // The last voucher may have gone with the stream.
        if let Some(payment) = self.last_payment.clone().filter(|_| self.pieces.is_some()) {
            self.writer.write(&Frame::Voucher(payment).encode(), deadline::WRITE).await?;
        }
        Ok(())
    }

    /// When the stream has failed if nothing comes.
    fn due(&self) -> Limit {
        let patience = self.patience();
        let silent = Limit { at: self.heard + patience, after: patience };
        if self.give_up.at < silent.at { self.give_up } else { silent }
    }

    /// How long the next frame may take.
    fn patience(&self) -> Duration {
        let stage = match () {
            () if self.cancelled => Stage::Cancelling,
            () if !self.opened => Stage::Opening,
            () if self.usage.is_some() => Stage::Signing,
            () if self.first_token.is_none() => Stage::Reading,
            () => Stage::Streaming,
        };
        match stage {
            Stage::Streaming if self.session.can_resume() => deadline::SILENCE_IF_RESUMABLE,
            stage => stage.patience(),
        }
    }

    async fn cancel(&mut self) -> Result<(), Cause> {
        self.cancelled = true;
        self.give_up = Limit::from_now(deadline::CANCEL);
        Ok(self.writer.write(&Frame::Cancel.encode(), deadline::WRITE).await?)
    }

    async fn on_frame<T: From<Progress>>(
        &mut self,
        raw: RawFrame,
        buyer: &Buyer,
        caller: &mut Caller<'_, T>,
    ) -> Result<Option<Completed>, Cause> {
        match self.session.on_frame(raw.frame, &raw.bytes)? {
            BuyerEvent::KeepAlive | BuyerEvent::Resumed => {}
            BuyerEvent::Opened { input_tokens, chunk } => {
                self.opened = true;
                if let Some(tranche) = self.tranche.take() {
                    buyer.tabs.solana().taken(&self.session.terms().worker, &tranche);
                }
                let most = self.session.terms().output_tokens;
                self.pieces = chunk.filter(|_| self.payer.is_some()).map(|chunk| Pieces::wanted(chunk, most));
                let agreed = Box::new(Agreed::from(self.session.terms()));
                let (path, worker) = (self.path, self.session.terms().worker);
                let way = way(buyer, path, worker).await;
                self.stalled = !caller.tell(Progress::Opened { path, way, input_tokens, agreed }).await;
            }
            // The end token, which is counted and says nothing.
            BuyerEvent::Text { text, logprobs, .. } if text.is_empty() && logprobs.is_empty() => {}
            BuyerEvent::Text { channel, text, tokens, logprobs } => {
                self.content(Progress::Text { channel, text, tokens, logprobs }, caller).await?;
            }
            BuyerEvent::ToolCall(call) => self.content(Progress::ToolCall(call), caller).await?,
            BuyerEvent::Embedding(embedding) => self.content(Progress::Embedding(embedding), caller).await?,
            BuyerEvent::Usage(usage) => {
                self.usage = Some((usage.clone(), clock::instant()));
                self.give_up = Limit::from_now(deadline::SIGN);
                let price = self.session.terms().price;
                // Within the budget, as the session has checked.
                self.pay(price.cost(usage.input_tokens, usage.output_tokens).unwrap_or_default()).await?;
                if !self.cancelled {
                    caller.tell(Progress::Usage(usage)).await;
                }
            }
            // Nobody asked it to stop: to end like this is to refuse the job, which another worker may take.
            BuyerEvent::Free(_) if !self.cancelled => return Err(Violation::Unexpected("usage").into()),
            BuyerEvent::Free(usage) => {
                self.usage = Some((usage, clock::instant()));
                return Ok(self.completed(None));
            }
            BuyerEvent::Failed(error) => return Err(Cause::Worker(error)),
            BuyerEvent::Receipt(bytes) => {
                let receipt = self.countersign(buyer, &bytes).await?;
                return Ok(self.completed(Some(receipt)));
            }
        }
        Ok(None)
    }

    /// What the caller has taken is acknowledged, so one that is slow slows the engine.
    async fn content<T: From<Progress>>(&mut self, step: Progress, caller: &mut Caller<'_, T>) -> Result<(), Cause> {
        if self.first_token.is_none() {
            self.first_token = Some(clock::instant());
            self.give_up = if self.cancelled { self.give_up } else { self.deadline };
        }
        if let Some(pieces) = self.pieces.filter(|_| !self.cancelled) {
            self.pay(self.session.due(pieces.due(self.session.tokens()))).await?;
        }
        if !self.cancelled && !self.tell(step, caller).await? {
            self.stalled = true;
        }
        match self.session.acknowledge() {
            Some(seq) => Ok(self.writer.write(&Frame::Ack(seq).encode(), deadline::WRITE).await?),
            None => Ok(()),
        }
    }

    /// Pays `total` for the job in all, unless so much is paid already.
    async fn pay(&mut self, total: MicroUsd) -> Result<(), Cause> {
        let Some(payer) = self.payer.as_mut().filter(|payer| payer.paid() < total && self.pieces.is_some()) else {
            return Ok(());
        };
        let payment = payer.pay(total).await?;
        self.last_payment = Some(payment.clone());
        Ok(self.writer.write(&Frame::Voucher(payment).encode(), deadline::WRITE).await?)
    }

    /// Tells the caller, see [`Caller::tell`]; while it takes its time, tells the worker, which may wait for a payment, that we are there.
    async fn tell<T: From<Progress>>(&mut self, step: Progress, caller: &mut Caller<'_, T>) -> Result<bool, Cause> {
        let mut telling = pin!(caller.tell(step));
        // Most take it at once, and need no timer.
        if let Poll::Ready(told) = futures::poll!(telling.as_mut()) {
            return Ok(told);
        }
        loop {
            tokio::select! {
                biased;
                told = &mut telling => return Ok(told),
                () = tokio::time::sleep(deadline::REPEAT_VOUCHER), if self.pieces.is_some() => {
                    if let Some(payment) = self.last_payment.clone() {
                        self.writer.write(&Frame::Voucher(payment).encode(), deadline::WRITE).await?;
                    }
                }
            }
        }
    }

    /// What is kept of a disagreement. The texts of these causes are our own.
    fn dispute(&mut self, order: &Order, cause: &Cause) -> Dispute {
        Dispute {
            at: clock::now(),
            job: order.terms.job,
            worker: order.terms.worker,
            cause: cause.to_string(),
            output_tokens: self.session.tokens(),
            promised: self.payer.as_ref().map_or(MicroUsd(0), Payer::paid),
            receipt: self.claim.take(),
        }
    }

    /// What came of the job, for the tab; what was promised beyond that. A worker that gave up before the first token has nothing to
    /// ask for, as it says itself.
    fn close_tab(&mut self, result: &Result<Completed, Cause>) -> MicroUsd {
        let Some(payer) = self.payer.take() else { return MicroUsd(0) };
        let owed = match result {
            Ok(completed) => Some(completed.receipt.as_ref().map_or(MicroUsd(0), |receipt| receipt.receipt().amount)),
            Err(Cause::Worker(_)) if !self.session.has_received() => Some(MicroUsd(0)),
            Err(_) => None,
        };
        let promised = if owed.is_none() { payer.paid() } else { MicroUsd(0) };
        payer.close(owed);
        promised
    }

    /// Checks, keeps, then sends. A countersignature that can't be sent still counts: the worker will ask again.
    async fn countersign(&mut self, buyer: &Buyer, bytes: &[u8]) -> Result<SignedReceipt, Cause> {
        let now = clock::now();
        self.claim = disputes::claim(bytes);
        let receipt: Verified<JobReceipt> = Envelope::decode(bytes)
            .and_then(|envelope| envelope.open::<JobReceipt>(&buyer.network, now)?.verify())
            .map_err(Cause::Receipt)?;
        let paid = self.payer.as_ref().map(|payer| Paid { amount: payer.paid(), on: payer.paid_on() }).unwrap_or_default();
        self.session.check_receipt(&receipt, paid)?;
        let body = Countersign { receipt: receipt.digest(), issued: now };
        let countersign = buyer.key.sign(&buyer.network, body).map_err(Cause::Receipt)?;
        let frame = Frame::Countersign(ByteBuf::from(countersign.raw().to_vec())).encode();
        let signed = SignedReceipt::new(receipt, Some(countersign)).map_err(Cause::Receipt)?;
        buyer.ledger.keep(signed.clone()).await.map_err(|e| Cause::Keep(e.to_string()))?;
        if let Err(error) = self.writer.write(&frame, deadline::WRITE).await {
            warn!(cause = error.label(), "the worker did not take the countersignature");
        }
        let _ = self.writer.finish().await;
        // However this ends, the job is done: the worker would ask again.
        let _ = self.reader.next_within(deadline::KEPT).await;
        Ok(signed)
    }

    fn completed(&mut self, receipt: Option<SignedReceipt>) -> Option<Completed> {
        let (usage, ended) = self.usage.take()?;
        Some(Completed {
            usage,
            receipt,
            path: self.path,
            resumed: self.resumed,
            ttft: self.first_token.map(|at| at - self.started),
            duration: ended - self.started,
        })
    }
}

/// Resolves when the caller wants no more.
async fn wants_cancel<T>(cancel: &mut watch::Receiver<bool>, progress: &mpsc::Sender<T>) {
    let asked = async {
        if cancel.wait_for(|wanted| *wanted).await.is_err() {
            // The one who could cancel is gone; the progress receiver decides.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = asked => {}
        () = progress.closed() => {}
    }
}
