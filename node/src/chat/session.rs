//! The chat protocol, pure: what each side may send when, what is counted, what the receipt must say.
//!
//! [`WorkerSession`] turns an engine's chunks into frames and, at the end, into a receipt body. [`BuyerSession`] takes the
//! worker's frames and checks all that a buyer can check: order, sequence, token counts against delivered bytes, the budget,
//! and the receipt against its own transcript. Neither knows a clock, a socket or a key.

use infernet_wire::{
    chat::{
        Channel, Delta, Embedding, FinishReason, Frame, Opened, StreamError, TokenLogprob, ToolCallDelta, Transcript, Usage,
        request_hash,
    },
    envelope::Verified,
    id::{Hash, JobId, NodeId},
    limits,
    money::{MicroUsd, Price},
    receipt::{JobReceipt, JobStatus},
    settle::PaidOn,
    time::UnixMillis,
};
use std::time::Duration;

/// What both sides agreed on before the first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The job.
    pub job: JobId,
    /// Digest of the accept.
    pub accept: Hash,
    /// Who pays.
    pub buyer: NodeId,
    /// Who works.
    pub worker: NodeId,
    /// The workload.
    pub workload: String,
    /// The model, by the worker's id.
    pub model: String,
    /// Digest of its weights, if known.
    pub weights: Option<Hash>,
    /// The agreed price.
    pub price: Price,
    /// The most the job may cost.
    pub budget: MicroUsd,
    /// The most input tokens that may be charged.
    pub input_tokens: u32,
    /// The most output tokens wanted.
    pub output_tokens: u32,
    /// Units of the channel it is paid on for a micro-USD.
    pub rate: u128,
}

/// What a buyer has paid, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paid {
    /// How much.
    pub amount: MicroUsd,
    /// On which channel; `None`: on the ledger.
    pub on: Option<PaidOn>,
}

impl Terms {
    /// What the input probably counts, where no engine has said: the bound is one token per byte, and text has about four bytes
    /// to a token. Charged when a job ends before its engine tells.
    fn likely_input(&self) -> u32 {
        self.input_tokens.div_ceil(4)
    }

    /// Whether nothing is ever to be paid.
    pub fn is_free(&self) -> bool {
        self.most() == MicroUsd(0)
    }

    /// What the job may cost.
    pub fn most(&self) -> MicroUsd {
        self.cost(self.input_tokens, self.output_tokens)
    }

    /// What so many tokens cost, within the budget.
    pub fn cost(&self, input: u32, output: u32) -> MicroUsd {
        self.price.cost_within(input, output, self.budget)
    }

    /// The output tokens to ask the engine for: what was wanted, as far as the budget reaches.
    pub fn engine_limit(&self) -> u32 {
        let input = self.likely_input();
        largest(self.output_tokens, |n| self.price.cost(input, n).is_some_and(|cost| cost <= self.budget)).max(1)
    }

    /// The largest charge within the budget for at most this many tokens: output is given up before input, since the prompt
    /// was read in any case.
    fn charge(&self, input: u32, output: u32) -> (u32, u32, MicroUsd) {
        let fits = |i: u32, o: u32| self.price.cost(i, o).filter(|cost| *cost <= self.budget);
        let input = largest(input, |n| fits(n, 0).is_some());
        let output = largest(output, |n| fits(input, n).is_some());
        (input, output, fits(input, output).unwrap_or_default())
    }
}

/// The largest `n <= max` that satisfies a condition which holds below some point and not above it; 0 if none does.
fn largest(max: u32, holds: impl Fn(u32) -> bool) -> u32 {
    if holds(max) {
        return max;
    }
    let (mut low, mut high) = (0, max);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}

/// Bytes of an answer at most, however few tokens it claims to be: four for each of the most tokens there may be, and as much
/// again. A buyer keeps the whole answer in memory.
pub const MAX_ANSWER_BYTES: u64 = 8 * limits::MAX_OUTPUT_TOKENS as u64;
/// What a worker may still send when it finds its answer full: one chunk of an engine is never longer.
const MAX_CHUNK_BYTES: u64 = 1024 * 1024;

/// What was delivered so far, and what it may be counted as.
#[derive(Debug, Clone, Copy, Default)]
struct Delivered {
    frames: u64,
    /// Of text.
    bytes: u64,
    /// Of vectors, which are no tokens.
    vectors: u64,
    tokens: u32,
}

impl Delivered {
    /// No count exceeds the bytes delivered: a token is at least one byte.
    fn cap(&self, tokens: u32) -> u32 {
        u32::try_from(self.bytes).unwrap_or(u32::MAX).min(tokens)
    }

    fn total_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.vectors)
    }
}

/// The worker's side.
#[derive(Debug)]
pub struct WorkerSession {
    terms: Terms,
    request: Hash,
    transcript: Transcript,
    delivered: Delivered,
    started: UnixMillis,
}

/// The end of a worker's session: the last content frame, and the receipt to sign unless nothing was delivered.
#[derive(Debug)]
pub struct Finished {
    /// The encoded `Usage` frame.
    pub usage: Vec<u8>,
    /// The receipt's body. `None` if the job ended before its first token without completing: that is free.
    pub receipt: Option<JobReceipt>,
}

impl WorkerSession {
    /// Starts after the accept was claimed and the request checked. Returns the encoded `Opened` frame too; `resumes` tells whether
    /// the buyer may come back after a lost stream.
    pub fn open(terms: Terms, open_frame: &[u8], request: &[u8], resumes: bool, now: UnixMillis) -> (Self, Vec<u8>) {
        let grace_ms = resumes.then_some(limits::RESUME_GRACE_MS);
        let chunk = (!terms.is_free()).then_some(limits::CHUNK_TOKENS);
        let opened = Frame::Opened(Opened { job: terms.job, input_tokens: terms.input_tokens, grace_ms, chunk }).encode();
        let session = WorkerSession {
            request: request_hash(request),
            transcript: Transcript::seed(open_frame, request),
            delivered: Delivered::default(),
            started: now,
            terms,
        };
        (session, opened)
    }

    /// The encoded frame for a piece of text; `tokens` is the engine's running count.
    pub fn delta(&mut self, channel: Channel, text: String, tokens: u32, logprobs: Vec<TokenLogprob>) -> Vec<u8> {
        let tokens = self.count(text.len(), tokens);
        let seq = self.delivered.frames;
        self.content(&Frame::Delta(Delta { seq, channel, text, tokens, logprobs }))
    }

    /// The encoded frame for a piece of a tool call. Its `seq` and count of tokens are set here; it comes with the engine's.
    pub fn tool_call(&mut self, call: ToolCallDelta) -> Vec<u8> {
        let tokens = self.count(call.text_bytes(), call.tokens);
        self.content(&Frame::ToolCall(ToolCallDelta { seq: self.delivered.frames, tokens, ..call }))
    }

    /// The encoded frame for the vector of the text `index`.
    pub fn embedding(&mut self, index: u32, vector: &[f32]) -> Vec<u8> {
        let vector = Embedding::pack(vector);
        self.delivered.vectors += vector.len() as u64;
        self.content(&Frame::Embedding(Embedding { seq: self.delivered.frames, index, vector }))
    }

    /// The encoded frame that counts the end token, if the engine's own count of an answer that it ended by itself is one more than
    /// what was delivered: the token that has no text. The bytes delivered bound the count as ever, and a buyer can lose no more
    /// by it than one token's price. Nothing else raises a count after the text.
    pub fn end_token(&mut self, counted: Option<u32>, finish: FinishReason) -> Option<Vec<u8>> {
        let whole = self.delivered.tokens.checked_add(1)?;
        let is_one_more = counted == Some(whole) && matches!(finish, FinishReason::STOP | FinishReason::TOOL_CALLS);
        let may_be_counted = self.delivered.cap(whole) == whole && whole <= self.terms.output_tokens;
        (is_one_more && may_be_counted).then(|| self.delta(Channel::ANSWER, String::new(), whole, Vec::new()))
    }

    /// Counts `bytes` of text that bring the engine's running count to `tokens`; what may be claimed of that.
    fn count(&mut self, bytes: usize, tokens: u32) -> u32 {
        self.delivered.bytes += bytes as u64;
        let tokens = self.delivered.cap(tokens).min(self.terms.output_tokens);
        self.delivered.tokens = tokens.max(self.delivered.tokens);
        self.delivered.tokens
    }

    fn content(&mut self, frame: &Frame) -> Vec<u8> {
        self.delivered.frames += 1;
        let frame = frame.encode();
        self.transcript.absorb(&frame);
        frame
    }

    /// Whether a token was delivered: from here on no other worker can take over unseen, and the job is not free.
    pub fn has_delivered(&self) -> bool {
        self.delivered.frames > 0
    }

    /// What was delivered costs so much at most, the input as it was declared.
    pub fn accrued(&self) -> MicroUsd {
        self.terms.cost(self.terms.input_tokens, self.delivered.tokens)
    }

    /// What was agreed.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether the limit of tokens or bytes is reached, so that more text means an engine that ignores it.
    pub fn is_full(&self) -> bool {
        let full = self.delivered.total_bytes() >= MAX_ANSWER_BYTES - MAX_CHUNK_BYTES;
        full || self.delivered.vectors == 0 && self.delivered.tokens >= self.terms.output_tokens
    }

    /// Ends the job. `input` and `output` are the engine's final counts where it tells them; they lower the charge, never
    /// raise it. `paid` is what the buyer has paid so far.
    pub fn finish(
        mut self,
        finish: FinishReason,
        (input, output): (Option<u32>, Option<u32>),
        paid: Paid,
        now: UnixMillis,
    ) -> Finished {
        let free = !self.has_delivered() && !finish.is_complete();
        let input = if free { 0 } else { input.unwrap_or(self.terms.likely_input()).min(self.terms.input_tokens) };
        let output = output.unwrap_or(u32::MAX).min(self.delivered.tokens);
        let (input_tokens, output_tokens, amount) = self.terms.charge(input, output);
        let usage = Frame::Usage(Usage { input_tokens, output_tokens, finish }).encode();
        self.transcript.absorb(&usage);
        let receipt = (!free).then(|| JobReceipt {
            job: self.terms.job,
            accept: self.terms.accept,
            buyer: self.terms.buyer,
            worker: self.terms.worker,
            workload: self.terms.workload,
            model: self.terms.model,
            weights: self.terms.weights,
            input_tokens,
            output_tokens,
            price: self.terms.price,
            amount,
            paid: paid.amount.min(amount),
            started: self.started,
            finished: now.max(self.started),
            status: status(finish),
            request: self.request,
            transcript: self.transcript.value(),
            paid_on: paid.on,
        });
        Finished { usage, receipt }
    }
}

fn status(finish: FinishReason) -> JobStatus {
    match finish {
        finish if finish.is_complete() => JobStatus::COMPLETED,
        FinishReason::CANCELLED | FinishReason::UNPAID => JobStatus::CANCELLED,
        _ => JobStatus::FAILED,
    }
}

/// What a frame means to the buyer.
#[derive(Debug)]
pub enum BuyerEvent {
    /// The worker runs the job and may charge this much input.
    Opened {
        /// Input tokens declared.
        input_tokens: u32,
        /// For every so many output tokens it wants a voucher; `None`: none.
        chunk: Option<u32>,
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
    /// The answer is over.
    Usage(Usage),
    /// The job ended free of charge: no receipt follows.
    Free(Usage),
    /// The receipt to verify with [`BuyerSession::check_receipt`], as envelope bytes.
    Receipt(Vec<u8>),
    /// The worker gave up.
    Failed(StreamError),
    /// The job goes on in a new stream.
    Resumed,
    /// Nothing new.
    KeepAlive,
}

/// How to go on after a lost stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The content frame that comes next.
    pub from: u64,
    /// For how long the worker waits.
    pub within: Duration,
}

/// What a worker did that it must not. The buyer stops and does not countersign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame that does not belong here.
    #[error("unexpected {0} frame")]
    Unexpected(&'static str),
    /// A gap or repetition.
    #[error("delta {got} instead of {expected}")]
    Sequence {
        /// What was due.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// More tokens than bytes, a shrinking count, or more than asked for.
    #[error("claims {claimed} output tokens, at most {most} are possible")]
    Tokens {
        /// What it claims.
        claimed: u32,
        /// What is possible.
        most: u32,
    },
    /// More text than any honest answer.
    #[error("the answer is longer than {MAX_ANSWER_BYTES} bytes")]
    TooLong,
    /// More input tokens than the request can have.
    #[error("claims {claimed} input tokens, the request has at most {most}")]
    Input {
        /// What it claims.
        claimed: u32,
        /// What is possible.
        most: u32,
    },
    /// Another job.
    #[error("opened another job")]
    Job,
    /// The charge is above the budget.
    #[error("charges {0}, above the budget of {1}")]
    Budget(MicroUsd, MicroUsd),
    /// A receipt field differs from what happened.
    #[error("receipt's {0} is not what happened")]
    Receipt(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Streaming,
    Ending,
    /// The stream is lost; the next one begins with `Opened`.
    Lost,
    Over,
}

/// The buyer's side.
#[derive(Debug)]
pub struct BuyerSession {
    terms: Terms,
    request: Hash,
    transcript: Transcript,
    delivered: Delivered,
    declared: u32,
    usage: Option<Usage>,
    state: State,
    /// For how long the worker waits after a lost stream; `None` if it does not.
    grace: Option<Duration>,
    /// The content frames that were acknowledged, and the bytes that were not.
    acknowledged: u64,
    unacknowledged: usize,
    /// Whether `Usage` comes once more.
    repeats_usage: bool,
}

impl BuyerSession {
    /// Starts when `Open` was sent.
    pub fn new(terms: Terms, open_frame: &[u8], request: &[u8]) -> Self {
        BuyerSession {
            request: request_hash(request),
            transcript: Transcript::seed(open_frame, request),
            delivered: Delivered::default(),
            declared: 0,
            usage: None,
            state: State::Opening,
            grace: None,
            acknowledged: 0,
            unacknowledged: 0,
            repeats_usage: false,
            terms,
        }
    }

    /// The stream is lost. How to go on, if the worker waits and it is worth it: before the first piece of the answer another worker
    /// does as well. What comes next is of the new stream.
    pub fn lost(&mut self) -> Option<Resume> {
        let within = self.grace.filter(|_| self.has_received())?;
        match self.state {
            State::Streaming | State::Ending | State::Lost => self.state = State::Lost,
            State::Opening | State::Over => return None,
        }
        Some(Resume { from: self.delivered.frames, within })
    }

    /// What to acknowledge now, if it is time; asked after each content frame.
    pub fn acknowledge(&mut self) -> Option<u64> {
        let frames = self.delivered.frames;
        let due = frames - self.acknowledged >= limits::ACK_FRAMES || self.unacknowledged >= limits::ACK_BYTES;
        if !due || self.grace.is_none() {
            return None;
        }
        (self.acknowledged, self.unacknowledged) = (frames, 0);
        Some(frames)
    }

    /// Whether the worker waits for us after a lost stream.
    pub fn can_resume(&self) -> bool {
        self.grace.is_some()
    }

    /// Takes the next frame of the worker; `raw` are its bytes.
    pub fn on_frame(&mut self, frame: Frame, raw: &[u8]) -> Result<BuyerEvent, Violation> {
        match (self.state, frame) {
            (State::Opening, Frame::Opened(opened)) => self.on_opened(&opened),
            (State::Streaming, Frame::Delta(delta)) => self.on_delta(delta, raw),
            (State::Streaming, Frame::ToolCall(call)) => self.on_tool_call(call, raw),
            (State::Streaming, Frame::Embedding(embedding)) => self.on_embedding(embedding, raw),
            (State::Streaming, Frame::Usage(usage)) => self.on_usage(usage, raw),
            (State::Ending, Frame::Usage(usage)) => self.on_usage_again(&usage),
            (State::Ending, Frame::Receipt(bytes)) => {
                self.state = State::Over;
                Ok(BuyerEvent::Receipt(bytes.into_vec()))
            }
            (State::Lost, Frame::Opened(opened)) => self.on_opened_again(&opened),
            // The next stream may do better.
            (State::Lost, Frame::Error(error)) => Ok(BuyerEvent::Failed(error)),
            (State::Opening | State::Streaming | State::Ending, Frame::Error(error)) => {
                self.state = State::Over;
                Ok(BuyerEvent::Failed(error))
            }
            (State::Opening | State::Streaming | State::Ending, Frame::KeepAlive) => Ok(BuyerEvent::KeepAlive),
            (_, frame) => Err(Violation::Unexpected(frame.label())),
        }
    }

    /// What was agreed.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether a piece of the answer has arrived.
    pub fn has_received(&self) -> bool {
        self.delivered.frames > 0
    }

    fn on_opened(&mut self, opened: &Opened) -> Result<BuyerEvent, Violation> {
        if opened.job != self.terms.job {
            return Err(Violation::Job);
        }
        if opened.input_tokens > self.terms.input_tokens {
            return Err(Violation::Input { claimed: opened.input_tokens, most: self.terms.input_tokens });
        }
        self.declared = opened.input_tokens;
        self.state = State::Streaming;
        self.grace = opened.grace_ms.map(|ms| Duration::from_millis(ms.min(limits::RESUME_GRACE_MS).into()));
        Ok(BuyerEvent::Opened { input_tokens: opened.input_tokens, chunk: opened.chunk })
    }

    /// To resume at a frame acknowledges those before.
    fn on_opened_again(&mut self, opened: &Opened) -> Result<BuyerEvent, Violation> {
        if opened.job != self.terms.job {
            return Err(Violation::Job);
        }
        if opened.input_tokens != self.declared {
            return Err(Violation::Input { claimed: opened.input_tokens, most: self.declared });
        }
        (self.acknowledged, self.unacknowledged) = (self.delivered.frames, 0);
        self.repeats_usage = self.usage.is_some();
        self.state = if self.repeats_usage { State::Ending } else { State::Streaming };
        Ok(BuyerEvent::Resumed)
    }

    /// A new stream repeats the end of the answer, which must be the same.
    fn on_usage_again(&mut self, usage: &Usage) -> Result<BuyerEvent, Violation> {
        if !std::mem::take(&mut self.repeats_usage) || self.usage.as_ref() != Some(usage) {
            return Err(Violation::Unexpected("usage"));
        }
        Ok(BuyerEvent::KeepAlive)
    }

    fn on_delta(&mut self, delta: Delta, raw: &[u8]) -> Result<BuyerEvent, Violation> {
        self.delivered.bytes += delta.text.len() as u64;
        self.on_content(delta.seq, Some(delta.tokens), raw)?;
        let Delta { channel, text, tokens, logprobs, .. } = delta;
        Ok(BuyerEvent::Text { channel, text, tokens, logprobs })
    }

    fn on_tool_call(&mut self, call: ToolCallDelta, raw: &[u8]) -> Result<BuyerEvent, Violation> {
        self.delivered.bytes += call.text_bytes() as u64;
        self.on_content(call.seq, Some(call.tokens), raw)?;
        Ok(BuyerEvent::ToolCall(call))
    }

    fn on_embedding(&mut self, embedding: Embedding, raw: &[u8]) -> Result<BuyerEvent, Violation> {
        self.delivered.vectors += embedding.vector.len() as u64;
        self.on_content(embedding.seq, None, raw)?;
        Ok(BuyerEvent::Embedding(embedding))
    }

    /// What all content frames must keep: order, size, and a running count that never shrinks nor exceeds the text.
    fn on_content(&mut self, seq: u64, tokens: Option<u32>, raw: &[u8]) -> Result<(), Violation> {
        let expected = self.delivered.frames;
        if seq != expected {
            return Err(Violation::Sequence { expected, got: seq });
        }
        self.delivered.frames += 1;
        self.unacknowledged += raw.len();
        if self.delivered.total_bytes() > MAX_ANSWER_BYTES {
            return Err(Violation::TooLong);
        }
        if let Some(claimed) = tokens {
            let most = self.delivered.cap(self.terms.output_tokens);
            if claimed > most || claimed < self.delivered.tokens {
                return Err(Violation::Tokens { claimed, most });
            }
            self.delivered.tokens = claimed;
        }
        self.transcript.absorb(raw);
        Ok(())
    }

    fn on_usage(&mut self, usage: Usage, raw: &[u8]) -> Result<BuyerEvent, Violation> {
        if usage.input_tokens > self.declared {
            return Err(Violation::Input { claimed: usage.input_tokens, most: self.declared });
        }
        if usage.output_tokens > self.delivered.tokens {
            return Err(Violation::Tokens { claimed: usage.output_tokens, most: self.delivered.tokens });
        }
        let cost = self.terms.price.cost(usage.input_tokens, usage.output_tokens).unwrap_or(MicroUsd(u64::MAX));
        if cost > self.terms.budget {
            return Err(Violation::Budget(cost, self.terms.budget));
        }
        self.transcript.absorb(raw);
        self.usage = Some(usage.clone());
        let completed = status(usage.finish) == JobStatus::COMPLETED;
        if completed || self.has_received() {
            self.state = State::Ending;
            return Ok(BuyerEvent::Usage(usage));
        }
        self.state = State::Over;
        Ok(BuyerEvent::Free(usage))
    }

    /// What is to be paid when `tokens` of output are.
    pub fn due(&self, tokens: u32) -> MicroUsd {
        self.terms.cost(self.declared, tokens)
    }

    /// Output tokens that have arrived.
    pub fn tokens(&self) -> u32 {
        self.delivered.tokens
    }

    /// Checks a receipt against what happened here, and that it claims no more than was `paid`. Only then may it be countersigned.
    pub fn check_receipt(&self, receipt: &Verified<JobReceipt>, paid: Paid) -> Result<(), Violation> {
        let ensure = |holds: bool, field| if holds { Ok(()) } else { Err(Violation::Receipt(field)) };
        let usage = self.usage.as_ref().ok_or(Violation::Unexpected("receipt"))?;
        let terms = &self.terms;
        ensure(receipt.signer() == terms.worker && receipt.worker == terms.worker, "worker")?;
        ensure(receipt.buyer == terms.buyer, "buyer")?;
        ensure(receipt.job == terms.job, "job")?;
        ensure(receipt.accept == terms.accept, "accept")?;
        ensure(receipt.workload == terms.workload, "workload")?;
        ensure(receipt.model == terms.model, "model")?;
        ensure(receipt.price == terms.price, "price")?;
        ensure(receipt.input_tokens == usage.input_tokens, "input tokens")?;
        ensure(receipt.output_tokens == usage.output_tokens, "output tokens")?;
        // It may have been signed before our last payment arrived.
        ensure(receipt.paid <= paid.amount, "paid")?;
        ensure(receipt.paid_on == paid.on, "paid on")?;
        ensure(receipt.status == status(usage.finish), "status")?;
        ensure(receipt.request == self.request, "request")?;
        ensure(receipt.transcript == self.transcript.value(), "transcript")
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
