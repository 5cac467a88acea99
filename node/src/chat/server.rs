//! The worker's end of a chat stream: between the stream, the engine and the market.
//!
//! Cheap checks come first: the accept is verified and its hold claimed before the request is read, and the request is
//! compared with the offer's commitment before the engine hears of it. From the claim on, the slot is freed whatever happens,
//! and as soon as the engine is done: the receipt is settled without it.
//!
//! A buyer whose stream is lost may come back for its job in another (`line`): the engine goes on meanwhile, as far as there is room
//! for what it says, and the receipt does not tell how many streams it took.
//!
//! The receipt is on disk before it is sent, and again with the countersignature before anyone is told of that. A buyer that
//! vanishes leaves a receipt with one signature.

use super::{
    arrears::{Arrears, Waits, goes_on},
    deadline,
    endpoint::{Dialling, Endpoint},
    framing::{FrameError, FrameReader, FrameWriter, RawFrame},
    lasting::{Lasting, Listed, NotResumed},
    line::{Gone, Line, Newcomer, Reader, Said, Writer},
    session::{Finished, Paid, Terms, WorkerSession},
    stream::{ChatStream, Path},
    tally::Tally,
};
use crate::{
    backend::{Backend, BackendError, Chunk},
    clock,
    engines::Engines,
    jobs::{Ended, Jobs, Role, Running, State},
    ledger::Ledger,
    market::{advert::MIN_MEASURED_TOKENS, seller::Claim},
    metrics::{Metrics, Served},
    seller::{Measured, Presented, Seller, Slot, Unclaimed},
    settlement::{
        tab::BadPayment,
        tabs::{CloseRefused, Sale, Tabs, Till},
    },
    store::StoreError,
};
use bytes::BytesMut;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use infernet_wire::{
    accept::JobAccept,
    capability::Abilities,
    chat::{ChatRequest, Closing, ErrorCode, FinishReason, Frame, Open, Payment, StreamError, TokenLogprob, ToolCallDelta},
    envelope::{Envelope, Verified},
    id::{Hash, NodeId},
    key::NodeKey,
    limits,
    money::MicroUsd,
    offer::commitment,
    receipt::{JobReceipt, SignedReceipt},
    solana::Tranche,
    standing::StandingAccept,
    topic::NetworkId,
};
use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::sleep_until;
use tracing::{Instrument, debug, info, info_span, warn};

/// Text in one delta at most: a frame with room for the rest. Engines send a token or a few; only a hostile one sends more.
const MAX_DELTA_BYTES: usize = 16 * 1024;

/// Log probabilities in one delta: with the text they fill three quarters of a frame.
const MAX_LOGPROB_BYTES: usize = 32 * 1024;
/// What CBOR adds to a token's text: keys, lengths, a number of nine bytes.
const LOGPROB_OVERHEAD: usize = 24;

/// What a worker serves jobs with.
pub struct Worker {
    /// Signs receipts.
    pub key: NodeKey,
    /// The network served.
    pub network: NetworkId,
    /// Claims holds.
    pub seller: Seller,
    /// Finds the engine of a model.
    pub engines: Engines,
    /// Keeps receipts.
    pub ledger: Ledger,
    /// Where buyers pay.
    pub tabs: Tabs,
    /// Jobs whose buyers may come back.
    pub lasting: Lasting,
    /// Counts what happens.
    pub tally: Tally,
    /// Measures it.
    pub metrics: Metrics,
    /// Shows what runs.
    pub jobs: Jobs,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, BackendError>> + Send>>;

/// Serves every connection to `endpoint` until it closes. The endpoint bounds connections, QUIC bounds streams of each.
pub async fn run(endpoint: Endpoint, worker: Arc<Worker>) {
    while let Some(dialling) = endpoint.accept().await {
        tokio::spawn(serve_connection(dialling, worker.clone()));
    }
}

async fn serve_connection(dialling: Dialling, worker: Arc<Worker>) {
    let Some(connection) = dialling.finish().await else { return worker.tally.count_reason("connection", "handshake_failed") };
    worker.tally.count_reason("connection", "opened");
    debug!(peer = %connection.peer().short(), "chat connection");
    while let Some(stream) = connection.accept().await {
        let worker = worker.clone();
        tokio::spawn(async move { serve_stream(&worker, stream).await });
    }
}

/// Serves one stream to its end, or hands it to the job that it goes on with.
pub(super) async fn serve_stream(worker: &Worker, stream: ChatStream) {
    let ChatStream { peer, path, recv, send } = stream;
    let (mut reader, mut writer) = (FrameReader::new(recv), FrameWriter::new(send));
    worker.tally.count("streams");
    let refusal = match read_first(&mut reader).await {
        Err(refusal) => refusal,
        Ok(First::Open(open, bytes)) => match open.resumes_at() {
            Some(from) => match resume(worker, &peer, &open, Newcomer { from, path, reader, writer }) {
                Ok(()) => return worker.tally.count("resuming"),
                Err((refusal, newcomer)) => {
                    writer = newcomer.writer;
                    refusal
                }
            },
            None => match admit(worker, peer, *open, &bytes, &mut reader).await {
                Ok(job) => return serve_job(worker, peer, path, job, (reader, writer)).await,
                Err(refusal) => refusal,
            },
        },
        Ok(First::Close(asked)) => match worker.tabs.sign_close(&peer, &asked).await {
            Ok(closed) => {
                worker.tally.count("channels_closed");
                info!(buyer = %peer.short(), channel = %asked.channel, "signed the end of a channel");
                let _ = writer.write(&Frame::Closed(closed).encode(), deadline::WRITE).await;
                return drop(writer.finish().await);
            }
            Err(error) => {
                let retryable = matches!(error, CloseRefused::Running(_) | CloseRefused::Store(_));
                refuse(ErrorCode::PAYMENT, retryable, error)
            }
        },
    };
    worker.tally.count_reason("refused", refusal.code.label());
    debug!(peer = %peer.short(), code = refusal.code.label(), "refused: {}", refusal.message);
    let _ = writer.write(&Frame::Error(refusal).encode(), deadline::WRITE).await;
    let _ = writer.finish().await;
}

/// The first frame.
enum First {
    /// A job, and the frame's bytes.
    Open(Box<Open>, BytesMut),
    /// The end of a channel.
    Close(Closing),
}

async fn read_first(reader: &mut Reader) -> Result<First, StreamError> {
    let RawFrame { frame, bytes } = reader.next_within(deadline::OPEN_FRAME).await.map_err(broken)?;
    match frame {
        Frame::Open(open) => Ok(First::Open(Box::new(open), bytes)),
        Frame::Close(closing) => Ok(First::Close(closing)),
        _ => Err(refuse(ErrorCode::PROTOCOL, false, "the first frame must be open or close")),
    }
}

/// Brings a stream to the job that it wants to go on with. The accept only names it: who may is told by the connection.
fn resume(worker: &Worker, peer: &NodeId, open: &Open, newcomer: Newcomer) -> Result<(), (StreamError, Box<Newcomer>)> {
    let accept = Envelope::decode(&open.accept).and_then(|envelope| envelope.open_stored::<JobAccept>(&worker.network));
    let accept = match accept {
        Ok(accept) => accept.digest(),
        Err(refusal) => return Err((refuse(ErrorCode::BAD_ACCEPT, false, refusal), Box::new(newcomer))),
    };
    worker.lasting.resume(&accept, peer, newcomer).map_err(|(reason, newcomer)| {
        let (code, retryable) = match reason {
            NotResumed::Unknown => (ErrorCode::NO_HOLD, false),
            NotResumed::Busy => (ErrorCode::BUSY, true),
        };
        (refuse(code, retryable, reason), newcomer)
    })
}

async fn serve_job(worker: &Worker, peer: NodeId, path: Path, job: Job, stream: (Reader, Writer)) {
    worker.tally.count("started");
    let span = info_span!("job", job = %job.claim.job, buyer = %peer.short());
    async {
        job.shown.opened(peer, path.to_string());
        info!(%path, model = job.claim.model, standing = job.claim.standing, "opened");
        let (listed, newcomers) = match job.resumes {
            true => Some(worker.lasting.list(job.claim.accept, peer)).unzip(),
            false => (None, None),
        };
        let line = Line::new(path, stream, newcomers, job.opened.clone());
        job.run(worker, line, listed).await;
    }
    .instrument(span)
    .await;
    worker.tally.count("finished");
}

fn refuse(code: ErrorCode, retryable: bool, message: impl ToString) -> StreamError {
    StreamError { code, retryable, message: message.to_string() }
}

fn broken(error: FrameError) -> StreamError {
    match error {
        FrameError::Timeout(_) => refuse(ErrorCode::TIMEOUT, true, error),
        _ => refuse(ErrorCode::PROTOCOL, false, error),
    }
}

/// A job that may run.
struct Job {
    claim: Slot,
    session: WorkerSession,
    opened: Vec<u8>,
    /// Whether the buyer may come back for it.
    resumes: bool,
    chunks: Chunks,
    /// Where it is paid; `None` if it is free.
    till: Option<Till>,
    arrears: Arrears,
    pace: Pace,
    shown: Running,
}

/// Everything before `Opened`.
async fn admit(worker: &Worker, peer: NodeId, open: Open, bytes: &[u8], reader: &mut Reader) -> Result<Job, StreamError> {
    let accept = read_accept(worker, &open)?;
    let presented = read_presented(worker, accept, &open)?;
    let claim = worker.seller.claim(presented, peer).await.map_err(refused_claim)?;
    check_unused(worker, &claim)?;
    let request = reader.read_raw(open.request_len as usize, deadline::REQUEST).await.map_err(broken)?;
    let parsed = read_request(&claim, &open, &request)?;
    let engine =
        worker.engines.find(&claim.model).ok_or_else(|| refuse(ErrorCode::ENGINE, true, "no engine serves the model now"))?;
    let terms = terms(worker.key.id(), &claim, engine.weights, &parsed);
    if let Some(tranche) = open.tranche.as_deref().filter(|_| !terms.is_free()) {
        count(worker, &terms.buyer, tranche).await?;
    }
    let till = paid_beforehand(worker, &terms, open.payment.as_ref()).await?;
    let request_for_engine = ChatRequest { model: claim.model.clone(), max_tokens: terms.engine_limit(), ..parsed };
    let resumes = open.resume_from.is_some();
    let (session, opened) = WorkerSession::open(terms, bytes, &request, resumes, clock::now());
    let shown = worker.jobs.begin(Role::Sold, claim.job, claim.model.clone());
    Ok(Job {
        claim,
        session,
        opened,
        resumes,
        chunks: ask(engine.backend, request_for_engine),
        till,
        arrears: Arrears::default(),
        pace: Pace::start(worker.metrics.clone()),
        shown,
    })
}

/// Counts what the buyer has prepaid, so that the job can run on it.
async fn count(worker: &Worker, buyer: &NodeId, tranche: &Tranche) -> Result<(), StreamError> {
    worker.tabs.solana().count(&worker.tabs, buyer, tranche).await.map_err(|error| {
        worker.tally.count_reason("payment_refused", error.label());
        refuse(ErrorCode::PAYMENT, error.retryable(), error)
    })
}

/// Opens the tab of a job that costs something: the buyer needs credit for all that it may cost, and pays the input beforehand.
async fn paid_beforehand(worker: &Worker, terms: &Terms, payment: Option<&Payment>) -> Result<Option<Till>, StreamError> {
    if terms.is_free() {
        return Ok(None);
    }
    let refused = |error: &dyn std::fmt::Display, label| {
        worker.tally.count_reason("payment_refused", label);
        refuse(ErrorCode::PAYMENT, true, error)
    };
    let Terms { buyer, job, output_tokens: tokens, rate, .. } = *terms;
    let opened = worker.tabs.open(&Sale { buyer, job, most: terms.most(), tokens, payment, rate });
    let mut till = opened.map_err(|error| refused(&error, error.label()))?;
    let taken = payment.ok_or(BadPayment::Missing).and_then(|payment| {
        let due = terms.cost(terms.input_tokens, 0);
        till.take(payment)?;
        if payment.paid < due { Err(BadPayment::TooLittle { paid: payment.paid, due }) } else { Ok(()) }
    });
    match taken {
        Ok(()) => Ok(Some(till)),
        Err(error) => {
            till.close_for_free().await;
            Err(refused(&error, error.label()))
        }
    }
}

fn read_accept(worker: &Worker, open: &Open) -> Result<Verified<JobAccept>, StreamError> {
    if open.request_len as usize > limits::MAX_REQUEST_BYTES {
        let text = format!("request of {} bytes exceeds {}", open.request_len, limits::MAX_REQUEST_BYTES);
        return Err(refuse(ErrorCode::BAD_REQUEST, false, text));
    }
    Envelope::decode(&open.accept)
        .and_then(|envelope| envelope.open::<JobAccept>(&worker.network, clock::now())?.verify())
        .map_err(|refusal| {
            worker.tally.count_reason("accept_refused", refusal.label());
            refuse(ErrorCode::BAD_ACCEPT, false, refusal)
        })
}

/// With an offer beside it, the accept is one of our ad.
fn read_presented(worker: &Worker, accept: Verified<JobAccept>, open: &Open) -> Result<Presented, StreamError> {
    let Some(payload) = &open.offer else { return Ok(Presented::Held(accept)) };
    StandingAccept::read(accept, payload, clock::now()).map(Presented::Standing).map_err(|refusal| {
        worker.tally.count_reason("offer_refused", refusal.label());
        refuse(ErrorCode::BAD_ACCEPT, false, refusal)
    })
}

/// A receipt is kept per job and worker, the first one for good: under a job id that has its receipt, we would work and have
/// nothing to show for it.
fn check_unused(worker: &Worker, claim: &Claim) -> Result<(), StreamError> {
    match worker.ledger.has_receipt(claim.job, worker.key.id()) {
        Ok(false) => Ok(()),
        Ok(true) => {
            worker.tally.count_reason("accept_refused", "job_settled");
            Err(refuse(ErrorCode::BAD_ACCEPT, false, "the job has its receipt already"))
        }
        Err(error) => {
            warn!("can't look for earlier receipts: {error}");
            Err(refuse(ErrorCode::BUSY, true, "the worker's store does not answer"))
        }
    }
}

/// What a buyer is told when its accept gets no slot.
pub fn refused_claim(error: Unclaimed) -> StreamError {
    match error {
        Unclaimed::ShuttingDown => refuse(ErrorCode::BUSY, true, error),
        Unclaimed::Refused(reason) if reason.is_busy() => refuse(ErrorCode::BUSY, true, error),
        Unclaimed::Refused(reason) if reason.retryable() => refuse(ErrorCode::NO_HOLD, true, error),
        Unclaimed::Refused(_) => refuse(ErrorCode::BAD_ACCEPT, false, error),
    }
}

/// The request, if it is the one that the claimed offer commits to, and no larger.
pub fn read_request(claim: &Claim, open: &Open, request: &[u8]) -> Result<ChatRequest, StreamError> {
    let bad = |text: &str| refuse(ErrorCode::BAD_REQUEST, false, text);
    if commitment(&open.salt, request) != claim.offer.commitment {
        return Err(bad("the request is not the one the offer commits to"));
    }
    let parsed = ChatRequest::decode(request).map_err(|e| bad(&e.to_string()))?;
    if parsed.input_token_bound() > claim.offer.input_tokens || parsed.max_tokens > claim.offer.output_tokens {
        return Err(bad("the request is larger than the offer says"));
    }
    Ok(parsed)
}

/// The terms of a claimed job, as its worker `me` sees them.
pub fn terms(me: NodeId, claim: &Claim, weights: Option<Hash>, request: &ChatRequest) -> Terms {
    Terms {
        job: claim.job,
        accept: claim.accept,
        buyer: claim.buyer,
        worker: me,
        workload: claim.offer.workload.clone(),
        model: claim.model.clone(),
        weights,
        price: claim.price,
        budget: claim.offer.budget,
        input_tokens: request.input_token_bound(),
        output_tokens: request.max_tokens,
        rate: claim.rate,
    }
}

/// The engine's answer as one stream, the wait for its start included.
fn ask(backend: Arc<dyn Backend>, request: ChatRequest) -> Chunks {
    let started = async move { backend.chat(request).await };
    Box::pin(stream::once(started).try_flatten())
}

/// How the answer ended.
struct End {
    finish: FinishReason,
    input: Option<u32>,
    output: Option<u32>,
    /// Set when the buyer can't hear us any more.
    gone: bool,
}

impl End {
    fn new(finish: FinishReason) -> Self {
        End { finish, input: None, output: None, gone: false }
    }

    fn gone() -> Self {
        End { gone: true, ..End::new(FinishReason::CANCELLED) }
    }
}

/// How fast the engine was, for the next bids.
struct Pace {
    asked: Instant,
    first: Option<Instant>,
    last: Instant,
    tokens: u32,
    metrics: Metrics,
}

impl Pace {
    /// The engine is asked now.
    fn start(metrics: Metrics) -> Self {
        let asked = clock::instant();
        Pace { asked, first: None, last: asked, tokens: 0, metrics }
    }

    /// Since the engine was asked.
    fn so_far(&self) -> Duration {
        clock::instant() - self.asked
    }

    fn token(&mut self, tokens: u32) {
        self.last = clock::instant();
        self.first.get_or_insert(self.last);
        self.metrics.sold_tokens(tokens.saturating_sub(self.tokens));
        self.tokens = tokens;
    }

    /// Tells how the engine did, once it is done.
    fn tell(&self, claim: &Claim, error: Option<&'static str>) {
        let embeds = claim.offer.abilities.contains(Abilities::EMBEDDINGS);
        let first_token = self.first.map(|first| first - self.asked);
        // Between two tokens after the first, on average; none if there is only one.
        let per_token = self.first.and_then(|first| (self.last - first).checked_div(self.tokens.saturating_sub(1)));
        let took = clock::instant() - self.asked;
        self.metrics.served(Served { model: &claim.model, embeds, first_token, per_token, took, error });
    }

    /// `None` if no token came.
    fn measured(&self) -> Option<Measured> {
        let first = self.first?;
        let streaming = (self.last - first).as_secs_f64();
        let enough = self.tokens >= MIN_MEASURED_TOKENS && streaming > 0.0;
        Some(Measured {
            ttft_ms: u32::try_from((first - self.asked).as_millis()).unwrap_or(u32::MAX),
            tokens_per_second: enough.then(|| (f64::from(self.tokens - 1) / streaming) as u32),
        })
    }
}

impl Job {
    async fn run(mut self, worker: &Worker, mut line: Line, listed: Option<Listed>) {
        if line.open().await.is_err() {
            return;
        }
        match self.stream(worker, &mut line).await {
            Ok(end) => self.settle(end, worker, &mut line, listed).await,
            Err(error) => {
                info!("gave up before the first token: {}", error.message);
                worker.tally.count_reason("ended", "no_answer");
                self.pace.tell(&self.claim, Some(error.code.label()));
                self.shown.end(Ended::free(State::Failed, Some(error.code.label())));
                drop(self.chunks);
                worker.seller.settle(self.claim.job).await;
                if let Some(till) = self.till {
                    till.close_for_free().await;
                }
                let _ = line.say_now(&Frame::Error(error)).await;
            }
        }
        line.finish().await;
    }

    fn on_tokens(&mut self, tokens: u32) {
        self.pace.token(tokens);
        self.shown.tokens(tokens);
    }

    /// Passes the answer on. `Err` only before the first token: then another worker can still take over.
    async fn stream(&mut self, worker: &Worker, line: &mut Line) -> Result<End, StreamError> {
        let mut quiet_until = clock::deadline(deadline::KEEP_ALIVE);
        let mut timer = pin!(sleep_until(quiet_until));
        // Since when the engine has waited for an acknowledgement of a buyer that is there.
        let mut full_since = None;
        loop {
            let behind = self.is_behind(line);
            let chunk = tokio::select! {
                biased;
                happening = line.next() => {
                    match line.handle(happening).await {
                        Ok(Said::Nothing) => {}
                        Ok(Said::Back(path)) => self.is_back(worker, path),
                        Ok(Said::Pays(payment)) => if let Some(end) = self.is_paid(worker, &payment) {
                            return Ok(end);
                        },
                        Ok(Said::Cancel) => return Ok(End::new(FinishReason::CANCELLED)),
                        Ok(Said::Countersign(_)) | Err(Gone) => return Ok(End::gone()),
                    }
                    continue;
                }
                kept = kept(&mut self.till) => match kept {
                    Ok(()) => continue,
                    Err(error) => {
                        warn!("can't keep a voucher: {error}; free some disk space");
                        return Ok(End::new(FinishReason::FAILED));
                    }
                },
                chunk = self.chunks.next(), if !behind && !line.is_full() => chunk,
                () = &mut timer => {
                    // A token only moves the time; the timer is set anew when it rings too early.
                    if quiet_until <= timer.deadline() {
                        quiet_until = clock::deadline(deadline::KEEP_ALIVE);
                        full_since = full_since.filter(|_| line.is_full() && !line.is_lost());
                        let takes_nothing = line.is_full()
                            && !line.is_lost()
                            && full_since.get_or_insert_with(clock::instant).elapsed() > deadline::WRITE;
                        if self.arrears.is_over(self.pace.so_far(), line.can_be_resumed()) {
                            worker.tally.count_reason("payment_refused", "none");
                            return Ok(End::new(FinishReason::UNPAID));
                        }
                        if takes_nothing || line.say_now(&Frame::KeepAlive).await.is_err() {
                            return Ok(End::gone());
                        }
                    }
                    timer.as_mut().reset(quiet_until);
                    continue;
                }
            };
            match chunk {
                Some(Ok(Chunk::Done { input_tokens, output_tokens, finish })) => {
                    if let Some(frame) = self.session.end_token(output_tokens, finish)
                        && line.say(frame).await.is_err()
                    {
                        return Ok(End::gone());
                    }
                    return Ok(End { finish, input: input_tokens, output: output_tokens, gone: false });
                }
                Some(Ok(content)) => {
                    if self.session.is_full() {
                        return Ok(End::new(FinishReason::LENGTH));
                    }
                    if self.pass_on(content, line).await.is_err() {
                        return Ok(End::gone());
                    }
                    quiet_until = clock::deadline(deadline::KEEP_ALIVE);
                }
                Some(Err(error)) => return self.engine_failed(&error),
                None => return self.engine_failed(&BackendError::Truncated),
            }
        }
    }

    /// Whether the engine must wait for a payment. A buyer that is away can't pay; for it there is a time of its own.
    fn is_behind(&mut self, line: &Line) -> bool {
        let Some(till) = &self.till else { return false };
        let price = &self.session.terms().price;
        let behind = !goes_on(price, limits::CHUNK_TOKENS, self.session.accrued(), till.paid());
        let waits = match behind {
            false => Waits::No,
            // A disk that is slow is not the buyer's fault.
            true if line.is_lost() || till.is_writing() => Waits::Paused(self.pace.so_far()),
            true => Waits::Yes(self.pace.so_far()),
        };
        self.arrears.note(waits);
        behind
    }

    /// A voucher came. A wrong one ends the job: its two sides don't agree on what is owed.
    fn is_paid(&mut self, worker: &Worker, payment: &Payment) -> Option<End> {
        self.arrears.hear(self.pace.so_far());
        let error = self.till.as_mut()?.take(payment).err()?;
        warn!(reason = error.label(), "stopped: {error}");
        worker.tally.count_reason("payment_refused", error.label());
        Some(End::new(FinishReason::UNPAID))
    }

    fn is_back(&mut self, worker: &Worker, path: Path) {
        self.arrears.hear(self.pace.so_far());
        worker.tally.count_reason("resumed", path.label());
        self.shown.went_on(path.to_string());
        info!(%path, "the buyer is back");
    }

    fn engine_failed(&self, error: &BackendError) -> Result<End, StreamError> {
        // Not in its own words: an engine may quote the prompt in them. Its own log has them.
        warn!(retryable = error.retryable(), "the engine failed: {}", error.label());
        if self.session.has_delivered() {
            return Ok(End::new(FinishReason::FAILED));
        }
        // The buyer learns the kind of failure, not this machine's addresses.
        Err(refuse(ErrorCode::ENGINE, error.retryable(), format!("the engine failed: {}", error.label())))
    }

    async fn pass_on(&mut self, content: Chunk, line: &mut Line) -> Result<(), Gone> {
        match content {
            Chunk::Text { channel, text, tokens, logprobs } if text.len() <= MAX_DELTA_BYTES => {
                let frame = self.session.delta(channel, text, tokens, fitting(logprobs));
                self.on_tokens(tokens);
                line.say(frame).await
            }
            Chunk::Text { channel, text, tokens, .. } => {
                self.on_tokens(tokens);
                for piece in pieces(&text, MAX_DELTA_BYTES) {
                    let frame = self.session.delta(channel, piece.to_owned(), tokens, Vec::new());
                    line.say(frame).await?;
                }
                Ok(())
            }
            Chunk::ToolCall { index, mut id, mut name, arguments, tokens } => {
                self.on_tokens(tokens);
                // A call without arguments is a call all the same.
                let whole = [arguments.as_str()];
                let cut: Vec<&str> = if arguments.len() <= MAX_DELTA_BYTES {
                    whole.to_vec()
                } else {
                    pieces(&arguments, MAX_DELTA_BYTES).collect()
                };
                for piece in cut {
                    let (id, name, arguments) = (id.take(), name.take(), piece.to_owned());
                    let frame = self.session.tool_call(ToolCallDelta { seq: 0, index, id, name, arguments, tokens });
                    line.say(frame).await?;
                }
                Ok(())
            }
            Chunk::Embedding { index, vector } => {
                let frame = self.session.embedding(index, &vector);
                line.say(frame).await
            }
            // The caller has ended the answer with it.
            Chunk::Done { .. } => Ok(()),
        }
    }

    /// Usage, receipt, countersignature. The engine is let go first, and its slot with it.
    async fn settle(self, end: End, worker: &Worker, line: &mut Line, mut listed: Option<Listed>) {
        let Job { mut claim, session, chunks, pace, shown, mut till, .. } = self;
        drop(chunks);
        worker.seller.settle(claim.job).await;
        worker.tally.count_reason("ended", end.finish.label());
        pace.tell(&claim, (!end.finish.is_complete()).then(|| end.finish.label()));
        if pace.measured().is_some_and(|measured| !worker.seller.try_measured(&claim.model, measured)) {
            worker.metrics.left_out("seller_measurements");
        }
        // What it wrote is as good as there by the time that the receipt is.
        let paid = till.as_ref().map(|till| Paid { amount: till.paid(), on: till.paid_on() }).unwrap_or_default();
        let Finished { usage, receipt } = session.finish(end.finish, (end.input, end.output), paid, clock::now());
        match &receipt {
            // The receipt is kept after it, and nobody counts on anything before that is shown.
            Some(body) => till.iter_mut().for_each(|till| drop(till.end_of_answer(body.amount))),
            None => {
                if let Some(till) = till.take() {
                    till.close_for_free().await;
                }
            }
        }
        // A buyer that is away is waited for as long as there is room.
        let reachable = !line.is_lost() || listed.as_mut().is_some_and(Listed::may_wait);
        let told = !end.gone && reachable && line.say_ending(usage).await.is_ok();
        let Some(body) = receipt else {
            info!(finish = end.finish.label(), "ended before the first token, free of charge");
            return shown.end(Ended::free(State::Cancelled, None));
        };
        let (tokens, amount) = (body.output_tokens, body.amount);
        match sign(worker, body).await {
            Ok(receipt) => {
                let acknowledged = told && countersigned(worker, &receipt, line, (&mut listed, &mut till)).await;
                worker.tally.count(if acknowledged { "acknowledged" } else { "unacknowledged" });
                claim.set_settled(acknowledged);
                if let Some(till) = till {
                    till.close(amount, acknowledged);
                }
                worker.metrics.earned(amount, acknowledged);
                info!(finish = end.finish.label(), tokens, %amount, acknowledged, "done");
                shown.tokens(tokens);
                shown.end(ended(&end, acknowledged, amount));
            }
            Err(error) => {
                warn!("can't keep the receipt: {error}; free some disk space");
                shown.end(Ended::free(State::Failed, Some("store")));
            }
        }
    }
}

/// What became of a job that has its receipt.
fn ended(end: &End, acknowledged: bool, amount: MicroUsd) -> Ended {
    let failed = end.finish == FinishReason::FAILED;
    let state = match () {
        () if failed => State::Failed,
        () if !acknowledged => State::Unsigned,
        () if end.finish == FinishReason::CANCELLED => State::Cancelled,
        () => State::Settled,
    };
    Ended { state, amount: Some(amount), error: failed.then_some("engine") }
}

/// Log probabilities as far as a frame has room for them: an engine that says more than was asked for is cut short.
fn fitting(logprobs: Vec<TokenLogprob>) -> Vec<TokenLogprob> {
    let mut room = MAX_LOGPROB_BYTES;
    let size = |token: &str| token.len() + LOGPROB_OVERHEAD;
    let mut fits = |logprob: &TokenLogprob| {
        let bytes = size(&logprob.token) + logprob.top.iter().map(|other| size(&other.token)).sum::<usize>();
        room.checked_sub(bytes).map(|left| room = left).is_some()
    };
    logprobs.into_iter().take_while(|logprob| fits(logprob)).collect()
}

/// `text` in pieces of at most `max` bytes, cut between characters.
fn pieces(text: &str, max: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, tail) = rest.split_at(rest.floor_char_boundary(max.max(4)));
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

async fn sign(worker: &Worker, body: JobReceipt) -> Result<Verified<JobReceipt>, String> {
    let receipt = worker.key.sign(&worker.network, body).map_err(|e| e.to_string())?;
    let unacknowledged = SignedReceipt::new(receipt.clone(), None).map_err(|e| e.to_string())?;
    worker.ledger.keep(unacknowledged).await.map_err(|e| e.to_string())?;
    Ok(receipt)
}

/// Sends the receipt and waits for the buyer's signature. Whether it came, was right, and is kept.
async fn countersigned(
    worker: &Worker,
    receipt: &Verified<JobReceipt>,
    line: &mut Line,
    (listed, till): (&mut Option<Listed>, &mut Option<Till>),
) -> bool {
    let frame = Frame::Receipt(receipt.raw().to_vec().into()).encode();
    if line.say_ending(frame).await.is_err() {
        return false;
    }
    let Some(bytes) = await_countersign(worker, line, listed, till).await else { return false };
    let countersign = Envelope::decode(&bytes).and_then(|e| e.open(&worker.network, clock::now())?.verify());
    let signed = match countersign.and_then(|c| SignedReceipt::new(receipt.clone(), Some(c))) {
        Ok(signed) => signed,
        Err(refusal) => {
            debug!("countersignature refused: {refusal}");
            worker.tally.count_reason("countersign_refused", refusal.label());
            return false;
        }
    };
    match worker.ledger.keep(signed.clone()).await {
        Ok(_) => worker.ledger.publish(signed),
        Err(error) => {
            warn!("can't keep the countersigned receipt: {error}; free some disk space");
            return false;
        }
    }
    true
}

/// A `Cancel` may have crossed the end of the answer, and a buyer whose stream is lost may come back for its receipt.
async fn await_countersign(
    worker: &Worker,
    line: &mut Line,
    listed: &mut Option<Listed>,
    till: &mut Option<Till>,
) -> Option<Vec<u8>> {
    let mut limit = clock::deadline(deadline::SIGN);
    loop {
        if line.is_lost() && !listed.as_mut().is_some_and(Listed::may_wait) {
            return None;
        }
        let happening = tokio::select! {
            biased;
            happening = line.next() => happening,
            () = sleep_until(limit), if !line.is_lost() => return None,
        };
        match line.handle(happening).await.ok()? {
            Said::Countersign(bytes) => return Some(bytes),
            Said::Back(path) => {
                worker.tally.count_reason("resumed", path.label());
                limit = clock::deadline(deadline::SIGN);
            }
            // What was missing of the amount. One that is wrong leaves the tab as it was.
            Said::Pays(payment) => {
                if let Some(Err(error)) = till.as_mut().map(|till| till.take(&payment)) {
                    debug!("the last payment is refused: {error}");
                    worker.tally.count_reason("payment_refused", error.label());
                }
            }
            Said::Cancel | Said::Nothing => {}
        }
    }
}

/// Resolves when a payment counts; never if none is on its way.
async fn kept(till: &mut Option<Till>) -> Result<(), StoreError> {
    match till {
        Some(till) => till.kept().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_characters_whole() {
        let text = "aé🦊".repeat(10);
        for max in 1..12 {
            let cut: Vec<_> = pieces(&text, max).collect();
            assert_eq!(cut.concat(), text);
            assert!(cut.iter().all(|p| p.len() <= max.max(4)));
        }
        assert_eq!(pieces("", 4).count(), 0);
    }
}
