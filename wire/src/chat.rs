//! The frames of a chat stream, the request they answer, and the hash chain that the receipt signs.
//!
//! The buyer opens a stream with [`Frame::Open`], which is followed by `request_len` raw bytes of [`ChatRequest`]; sending them
//! beside the frame, not in it, lets the worker check the accept before it reads a long context, and keeps every frame below
//! 64 KiB. The worker answers [`Frame::Opened`], [`Frame::Delta`] with `seq` 0, 1, 2 …, [`Frame::Usage`], [`Frame::Receipt`];
//! the buyer ends with [`Frame::Countersign`]. Either side may send [`Frame::Error`] and the buyer [`Frame::Cancel`] at any
//! time. A stream that ends before `Usage` was cut, never completed.
//!
//! **Transcript.** Seeded with the `Open` frame and the request, then chained over the bytes of each `Delta` and the `Usage`:
//! dropping, reordering or splicing frames gives another value than the one in the receipt.
//!
//! **Tokens.** The worker declares input tokens in `Opened`, at most [`ChatRequest::input_token_bound`]; `Usage` may lower the
//! number, never raise it. The running output count never exceeds the UTF-8 bytes delivered.

use crate::{
    codec::{self, Malformed},
    hash,
    id::{Hash, JobId},
    limits,
};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use std::fmt;

/// ALPN of the chat protocol.
pub const ALPN: &[u8] = b"infernet-chat/1";

/// Who wrote a message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who wrote it.
    pub role: Role,
    /// What it says.
    pub content: String,
}

/// What the model is asked. It travels only on the stream to the winner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The model, as the offer names it: no winner is known yet when the offer commits to this request.
    pub model: String,
    /// The conversation.
    pub messages: Vec<ChatMessage>,
    /// The most output tokens wanted.
    pub max_tokens: u32,
    /// Sampling temperature; the engine's default if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub temperature: Option<f64>,
    /// Nucleus sampling; the engine's default if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub top_p: Option<f64>,
    /// Sampling seed, for engines that can repeat themselves.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seed: Option<i64>,
    /// Texts at which the answer ends.
    #[serde(default)]
    pub stop: Vec<String>,
}

/// A request that can't be sent or served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Not the CBOR of a request.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// More bytes than allowed.
    #[error("request of {0} bytes exceeds {max}; shorten the conversation", max = limits::MAX_REQUEST_BYTES)]
    TooLarge(usize),
    /// A field is out of bounds.
    #[error("{0}")]
    Field(&'static str),
}

impl ChatRequest {
    /// The bytes sent, committed to and hashed.
    pub fn encode(&self) -> Result<Vec<u8>, BadRequest> {
        self.check()?;
        let bytes = codec::encode(self);
        if bytes.len() > limits::MAX_REQUEST_BYTES { Err(BadRequest::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads a request of at most [`limits::MAX_REQUEST_BYTES`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRequest> {
        if bytes.len() > limits::MAX_REQUEST_BYTES {
            return Err(BadRequest::TooLarge(bytes.len()));
        }
        let request: ChatRequest = codec::decode(bytes)?;
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), BadRequest> {
        let ensure = |holds: bool, text| if holds { Ok(()) } else { Err(BadRequest::Field(text)) };
        ensure(!self.messages.is_empty(), "a request needs at least one message")?;
        ensure(self.messages.len() <= limits::MAX_MESSAGES, "a request holds at most 4096 messages")?;
        ensure((1..=limits::MAX_OUTPUT_TOKENS).contains(&self.max_tokens), "max_tokens must be 1 to 1048576")?;
        ensure(self.stop.len() <= limits::MAX_STOPS, "a request holds at most 16 stop sequences")?;
        ensure(self.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)), "temperature must be 0 to 2")?;
        ensure(self.top_p.is_none_or(|p| (0.0..=1.0).contains(&p)), "top_p must be 0 to 1")
    }

    /// The most input tokens that this request can honestly be: no tokenizer yields more tokens than bytes, plus what chat
    /// templates add. Both sides compute it, so an offer made before any engine has counted is still a bound.
    pub fn input_token_bound(&self) -> u32 {
        let bytes: usize = self.messages.iter().map(|m| m.content.len()).sum();
        let messages = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .saturating_add(messages.saturating_mul(limits::TEMPLATE_TOKENS_PER_MESSAGE))
            .saturating_add(limits::TEMPLATE_TOKENS_ONCE)
    }
}

/// The hash of a request's bytes, as a receipt holds it.
pub fn request_hash(request: &[u8]) -> Hash {
    hash::tagged("infernet/request/1", &[request])
}

/// Which part of the answer a delta belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Channel(pub u8);

impl Channel {
    /// The answer.
    pub const ANSWER: Self = Channel(0);
    /// The model's reasoning: shown apart, charged like any token.
    pub const REASONING: Self = Channel(1);
}

/// Why the answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FinishReason(pub u8);

impl FinishReason {
    /// The model was done, or met a stop sequence.
    pub const STOP: Self = FinishReason(0);
    /// The token limit.
    pub const LENGTH: Self = FinishReason(1);
    /// The buyer cancelled.
    pub const CANCELLED: Self = FinishReason(2);
    /// The engine failed after some tokens.
    pub const FAILED: Self = FinishReason(3);

    /// The word that OpenAI clients know.
    pub fn label(self) -> &'static str {
        match self {
            Self::STOP => "stop",
            Self::LENGTH => "length",
            Self::CANCELLED => "cancelled",
            _ => "error",
        }
    }
}

/// Why a stream failed. An open number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// The accept names no live hold: it was used, has lapsed, or never existed.
    pub const NO_HOLD: Self = ErrorCode(1);
    /// The accept does not verify, or is not the hold's.
    pub const BAD_ACCEPT: Self = ErrorCode(2);
    /// The request is not the one committed to, or can't be read.
    pub const BAD_REQUEST: Self = ErrorCode(3);
    /// The engine failed before or during the answer.
    pub const ENGINE: Self = ErrorCode(4);
    /// A frame that the protocol does not allow here.
    pub const PROTOCOL: Self = ErrorCode(5);
    /// The other side was silent for too long.
    pub const TIMEOUT: Self = ErrorCode(6);
    /// The worker is full or shutting down.
    pub const BUSY: Self = ErrorCode(7);
    /// The two sides do not agree on tokens, price or transcript.
    pub const DISPUTE: Self = ErrorCode(8);

    /// A short stable name.
    pub fn label(self) -> &'static str {
        match self {
            Self::NO_HOLD => "no_hold",
            Self::BAD_ACCEPT => "bad_accept",
            Self::BAD_REQUEST => "bad_request",
            Self::ENGINE => "engine",
            Self::PROTOCOL => "protocol",
            Self::TIMEOUT => "timeout",
            Self::BUSY => "busy",
            Self::DISPUTE => "dispute",
            _ => "other",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A frame. On the wire each is a map of one entry from the variant's number to the body. Append variants, never reorder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// Buyer: start the accepted job. `request_len` bytes of request follow the frame.
    Open(Open),
    /// Worker: the job runs.
    Opened(Opened),
    /// Worker: a piece of the answer.
    Delta(Delta),
    /// Worker: the answer is over; the final count.
    Usage(Usage),
    /// Worker: its signed receipt, as envelope bytes.
    Receipt(ByteBuf),
    /// Buyer: its countersignature, as envelope bytes.
    Countersign(ByteBuf),
    /// Buyer: stop. What was delivered is still receipted.
    Cancel,
    /// Either side: the stream is over, and why.
    Error(StreamError),
    /// Worker: still here, the engine is working.
    KeepAlive,
}

/// Body of [`Frame::Open`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The signed [`crate::accept::JobAccept`], as envelope bytes.
    pub accept: ByteBuf,
    /// What opens the offer's commitment.
    pub salt: ByteArray<32>,
    /// Bytes of request that follow.
    pub request_len: u32,
}

/// Body of [`Frame::Opened`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The job.
    pub job: JobId,
    /// Input tokens that the worker may charge at most.
    pub input_tokens: u32,
}

/// Body of [`Frame::Delta`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// 0, 1, 2 … without a gap.
    pub seq: u64,
    /// Which part of the answer.
    pub channel: Channel,
    /// The text.
    pub text: String,
    /// Output tokens so far, this delta's included.
    pub tokens: u32,
}

/// Body of [`Frame::Usage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Input tokens charged: at most what `Opened` declared.
    pub input_tokens: u32,
    /// Output tokens charged: at most the last delta's running count.
    pub output_tokens: u32,
    /// Why the answer ended.
    pub finish: FinishReason,
}

/// Body of [`Frame::Error`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct StreamError {
    /// What kind.
    pub code: ErrorCode,
    /// Whether another worker, or this one later, may succeed.
    pub retryable: bool,
    /// For people. Never holds prompt or answer.
    pub message: String,
}

impl Frame {
    /// The frame's bytes, without the length prefix.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the bytes of one frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        codec::decode(bytes)
    }

    /// A short stable name, for errors and counters.
    pub fn label(&self) -> &'static str {
        match self {
            Frame::Open(_) => "open",
            Frame::Opened(_) => "opened",
            Frame::Delta(_) => "delta",
            Frame::Usage(_) => "usage",
            Frame::Receipt(_) => "receipt",
            Frame::Countersign(_) => "countersign",
            Frame::Cancel => "cancel",
            Frame::Error(_) => "error",
            Frame::KeepAlive => "keep_alive",
        }
    }
}

/// The running hash over what a stream delivered. One SHA-256 per frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transcript(Hash);

impl Transcript {
    /// Starts from the bytes of the `Open` frame and the request.
    pub fn seed(open_frame: &[u8], request: &[u8]) -> Self {
        Transcript(hash::tagged("infernet/transcript/1", &[open_frame, request_hash(request).as_ref()]))
    }

    /// Chains one content frame's bytes.
    pub fn absorb(&mut self, frame: &[u8]) {
        self.0 = hash::tagged("infernet/transcript-step/1", &[self.0.as_ref(), frame]);
    }

    /// The value so far.
    pub fn value(&self) -> Hash {
        self.0
    }
}
