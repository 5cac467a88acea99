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
//! **Resume.** A buyer that sets [`Open::resume_from`] acknowledges what it has by [`Frame::Ack`], and may go on in another stream when
//! the first one is lost: it sends `Open` with the same accept, no request, and the `seq` that it wants next. A worker that answers
//! [`Opened::grace_ms`] keeps the job for so long after the loss, and what was not acknowledged; it answers `Opened` as before and
//! goes on there. If the answer is over, `Usage` and `Receipt` are sent again. Neither counts for the transcript again. Whoever knows
//! none of this leaves both fields out, and the job ends with its stream.
//!
//! **Payment.** `Open` carries voucher 0, which covers the input that the request has at most. A worker that answers
//! [`Opened::chunk`] gets one more [`Frame::Voucher`] for each such piece of the answer: the buyer pays the piece that comes, when
//! what it has paid for has arrived. The worker stops its engine when it is one piece ahead of what is paid. After `Usage`, and before
//! it countersigns, the buyer pays what is missing of the amount. No payment is in the transcript, but for that in `Open`.
//!
//! **Standing price.** A worker's live ad is a bid at its prices. A buyer that takes it sends the offer inside [`Open`] and names
//! the ad's digest as the accept's bid: no gossip, no auction, one round trip.
//!
//! **Tools and vectors.** A tool call is a frame of its own, an embedding too; both share the deltas' `seq`, so that they are in
//! the transcript at their place.
//!
//! **Tokens.** The worker declares input tokens in `Opened`, at most [`ChatRequest::input_token_bound`]; `Usage` may lower the
//! number, never raise it. The running output count never exceeds the UTF-8 bytes delivered. A last `Delta` without text counts the
//! end token, if the engine's own usage does.

use crate::{
    capability::Abilities,
    codec::{self, Malformed},
    evm::{EvmAddress, amount},
    hash,
    id::{ChannelId, EvmSignature, Hash, JobId},
    limits,
    money::MicroUsd,
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
    /// Images beside the text, in a format that the engine reads (PNG, JPEG).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub images: Vec<ByteBuf>,
    /// What an assistant's message called.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tool_calls: Vec<ToolCall>,
    /// Which call a tool's message answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    /// A message of text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        ChatMessage { role, content: content.into(), images: Vec::new(), tool_calls: Vec::new(), tool_call_id: None }
    }

    /// The bytes that a tokenizer sees, images apart.
    fn text_bytes(&self) -> usize {
        let calls = self.tool_calls.iter().map(|call| call.id.len() + call.name.len() + call.arguments.len());
        self.content.len() + calls.sum::<usize>() + self.tool_call_id.as_ref().map_or(0, String::len)
    }
}

/// A call of a tool, as the model made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Tells it from the other calls of the conversation.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments: JSON text, by the model, so it may be no JSON at all.
    pub arguments: String,
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// JSON schema of its arguments, as text; empty for none.
    pub parameters: String,
}

/// Which tools must be called. Not said: the model decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolChoice {
    /// None may.
    Never,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// What the answer must look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseFormat {
    /// Any JSON object.
    JsonObject,
    /// JSON by this schema, given as text.
    JsonSchema(String),
}

/// What is asked of the model. An open number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Task(pub u8);

impl Task {
    /// An answer to a conversation.
    pub const CHAT: Self = Task(0);
    /// The continuation of a text, the one message's, without a chat template.
    pub const COMPLETION: Self = Task(1);
    /// A vector for each message.
    pub const EMBEDDINGS: Self = Task(2);

    fn is_chat(&self) -> bool {
        *self == Task::CHAT
    }
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
    /// What is asked.
    #[serde(skip_serializing_if = "Task::is_chat", default)]
    pub task: Task,
    /// Tools that the model may call.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tools: Vec<Tool>,
    /// Which of them must be called; the model decides if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool_choice: Option<ToolChoice>,
    /// What the answer must look like; free text if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub format: Option<ResponseFormat>,
    /// Log probabilities of the answer's tokens, each with this many alternatives; none if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub logprobs: Option<u8>,
    /// Penalty on tokens that are there already; the engine's default if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub presence_penalty: Option<f64>,
    /// Penalty on tokens by how often they are there; the engine's default if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frequency_penalty: Option<f64>,
    /// What follows the gap that a completion fills.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suffix: Option<String>,
    /// Length of each vector, for models that can shorten theirs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dimensions: Option<u32>,
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
    /// A request to `model` to answer a conversation with at most `max_tokens`; the engine's defaults for the rest.
    pub fn new(model: impl Into<String>, messages: Vec<ChatMessage>, max_tokens: u32) -> Self {
        ChatRequest {
            model: model.into(),
            messages,
            max_tokens,
            temperature: None,
            top_p: None,
            seed: None,
            stop: Vec::new(),
            task: Task::CHAT,
            tools: Vec::new(),
            tool_choice: None,
            format: None,
            logprobs: None,
            presence_penalty: None,
            frequency_penalty: None,
            suffix: None,
            dimensions: None,
        }
    }

    /// What a model must be able to do to serve it.
    pub fn abilities(&self) -> Abilities {
        let needs = [
            (!self.tools.is_empty() && self.tool_choice != Some(ToolChoice::Never), Abilities::TOOLS),
            (matches!(self.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_))), Abilities::FORCED_TOOLS),
            (self.format.is_some(), Abilities::JSON_SCHEMA),
            (self.logprobs.is_some(), Abilities::LOGPROBS),
            (self.messages.iter().any(|message| !message.images.is_empty()), Abilities::VISION),
            (self.task == Task::EMBEDDINGS, Abilities::EMBEDDINGS),
        ];
        needs.into_iter().filter(|(needed, _)| *needed).fold(Abilities::default(), |all, (_, ability)| all.with(ability))
    }

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
        ensure(self.top_p.is_none_or(|p| (0.0..=1.0).contains(&p)), "top_p must be 0 to 1")?;
        self.check_task()?;
        self.check_tools()?;
        ensure(self.logprobs.is_none_or(|n| n <= limits::MAX_TOP_LOGPROBS), "top_logprobs must be 0 to 20")?;
        let penalty = |p: Option<f64>| p.is_none_or(|p| (-2.0..=2.0).contains(&p));
        ensure(penalty(self.presence_penalty), "presence_penalty must be -2 to 2")?;
        ensure(penalty(self.frequency_penalty), "frequency_penalty must be -2 to 2")?;
        let images: usize = self.messages.iter().map(|message| message.images.len()).sum();
        ensure(images <= limits::MAX_IMAGES, "a request holds at most 64 images")
    }

    fn check_task(&self) -> Result<(), BadRequest> {
        let ensure = |holds: bool, text| if holds { Ok(()) } else { Err(BadRequest::Field(text)) };
        let chat_only = self.tools.is_empty() && self.tool_choice.is_none();
        match self.task {
            Task::CHAT => ensure(self.suffix.is_none(), "only a completion has a suffix"),
            Task::COMPLETION => ensure(self.messages.len() == 1 && chat_only, "a completion has one text and no tools"),
            Task::EMBEDDINGS => {
                let few = self.messages.len() <= limits::MAX_EMBEDDING_INPUTS;
                ensure(few && chat_only, "an embedding request holds at most 256 texts and no tools")
            }
            _ => ensure(false, "this task is not known here"),
        }
    }

    fn check_tools(&self) -> Result<(), BadRequest> {
        let ensure = |holds: bool, text| if holds { Ok(()) } else { Err(BadRequest::Field(text)) };
        let named = |name: &str| (1..=limits::MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
        ensure(self.tools.len() <= limits::MAX_TOOLS, "a request holds at most 128 tools")?;
        ensure(self.tools.iter().all(|tool| named(&tool.name)), "a tool's name has 1 to 128 bytes")?;
        let known = match &self.tool_choice {
            Some(ToolChoice::Named(name)) => self.tools.iter().any(|tool| tool.name == *name),
            Some(ToolChoice::Required) => !self.tools.is_empty(),
            _ => true,
        };
        ensure(known, "tool_choice names a tool that the request does not hold")
    }

    /// The most input tokens that this request can honestly be: no tokenizer yields more tokens than bytes, plus what chat
    /// templates add. Both sides compute it, so an offer made before any engine has counted is still a bound.
    pub fn input_token_bound(&self) -> u32 {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let text: usize = self.messages.iter().map(ChatMessage::text_bytes).sum();
        let tools: usize = self.tools.iter().map(|t| t.name.len() + t.description.len() + t.parameters.len()).sum();
        let format = if let Some(ResponseFormat::JsonSchema(schema)) = &self.format { schema.len() } else { 0 };
        let images: usize = self.messages.iter().map(|message| message.images.len()).sum();
        // A template frames a tool much as it frames a message.
        let framed = count(self.messages.len() + self.tools.len());
        count(text + tools + format + self.suffix.as_ref().map_or(0, String::len))
            .saturating_add(framed.saturating_mul(limits::TEMPLATE_TOKENS_PER_MESSAGE))
            .saturating_add(count(images).saturating_mul(limits::TOKENS_PER_IMAGE))
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
    /// The model called tools and waits for what they say.
    pub const TOOL_CALLS: Self = FinishReason(4);
    /// The buyer stopped paying.
    pub const UNPAID: Self = FinishReason(5);

    /// Whether the engine came to an end of its own.
    pub fn is_complete(self) -> bool {
        matches!(self, Self::STOP | Self::LENGTH | Self::TOOL_CALLS)
    }

    /// The word that OpenAI clients know.
    pub fn label(self) -> &'static str {
        match self {
            Self::STOP => "stop",
            Self::LENGTH => "length",
            Self::CANCELLED => "cancelled",
            Self::TOOL_CALLS => "tool_calls",
            Self::UNPAID => "unpaid",
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
    /// A newer stream of the same buyer goes on with the job.
    pub const REPLACED: Self = ErrorCode(9);
    /// The job can't go on where the buyer wants to: what it asks for was never sent, or was acknowledged and let go.
    pub const BAD_RESUME: Self = ErrorCode(10);
    /// No voucher, a wrong one, or no credit for it.
    pub const PAYMENT: Self = ErrorCode(11);

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
            Self::REPLACED => "replaced",
            Self::BAD_RESUME => "bad_resume",
            Self::PAYMENT => "payment",
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Worker: the model calls a tool, or goes on with the arguments of a call.
    ToolCall(ToolCallDelta),
    /// Worker: the vector of one text.
    Embedding(Embedding),
    /// Buyer: it has every content frame below this `seq`. Only to a worker that has told its [`Opened::grace_ms`].
    Ack(u64),
    /// Buyer: it pays. Only to a worker that has told its [`Opened::chunk`].
    Voucher(Payment),
    /// Payer, instead of [`Frame::Open`]: it wants to close a channel of a chain, and asks for the payee's signature.
    Close(Closing),
    /// Payee: what it wants, and its signature over that. The stream is over.
    Closed(Closed),
}

/// Body of [`Frame::Close`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The chain.
    pub chain: u64,
    /// The contract.
    pub contract: EvmAddress,
    /// The channel. No job may run on it, and none will any more.
    pub channel: ChannelId,
}

/// Body of [`Frame::Closed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// What the payee has then received in total, in the token's smallest unit: what all jobs on the channel came to.
    #[serde(with = "amount")]
    pub amount: u128,
    /// Of a [`crate::voucher::Close`] that says so.
    pub signature: EvmSignature,
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
    /// The payload of the [`crate::offer::JobOffer`], if the worker has not seen it: then the accept's bid is the digest of the
    /// worker's ad, and its price the ad's. See [`crate::standing`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offer: Option<ByteBuf>,
    /// With a request: 0, and the buyer will acknowledge what it has and may resume. Without one (a request is never empty): the
    /// accepted job runs already, its stream was lost, and the buyer wants to go on at this `seq`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resume_from: Option<u64>,
    /// What the buyer pays beforehand: voucher 0, for the input that the request has at most.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payment: Option<Payment>,
}

impl Open {
    /// Where the buyer wants to go on with a job that runs already; `None` for a new one.
    pub fn resumes_at(&self) -> Option<u64> {
        self.resume_from.filter(|_| self.request_len == 0)
    }
}

/// Body of [`Frame::Opened`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The job.
    pub job: JobId,
    /// Input tokens that the worker may charge at most.
    pub input_tokens: u32,
    /// For how long the job goes on when its stream is lost, in milliseconds. Only to a buyer that may resume.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grace_ms: Option<u32>,
    /// For every so many output tokens the worker wants a voucher. Not said if nothing is to be paid as the answer runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chunk: Option<u32>,
}

/// Body of [`Frame::Voucher`]: a buyer pays what a job has cost, or is about to cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// [`crate::voucher::SignedVoucher::encode`]: what all jobs on the channel are worth together.
    pub voucher: ByteBuf,
    /// How much of that is for this job, in micro-USD; never less than before. Since vouchers of jobs that run side by side may
    /// overtake each other, one voucher alone does not say it.
    pub paid: MicroUsd,
}

/// Body of [`Frame::Delta`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// 0, 1, 2 … without a gap.
    pub seq: u64,
    /// Which part of the answer.
    pub channel: Channel,
    /// The text.
    pub text: String,
    /// Output tokens so far, this delta's included.
    pub tokens: u32,
    /// Log probabilities of this delta's tokens, if the request asks for them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub logprobs: Vec<TokenLogprob>,
}

/// How probable a token was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token as text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// The most probable tokens at this place, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub top: Vec<Alternative>,
}

/// A token that could have stood here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// The token as text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
}

/// Body of [`Frame::ToolCall`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallDelta {
    /// Its place among all content frames.
    pub seq: u64,
    /// Which call of this answer: 0, 1, 2 …
    pub index: u32,
    /// The call's id; with its first frame.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// The tool; with its first frame.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// A piece of the arguments, to be put behind those before it.
    pub arguments: String,
    /// Output tokens so far, this frame's included.
    pub tokens: u32,
}

impl ToolCallDelta {
    /// The bytes of text in it, which bound its tokens.
    pub fn text_bytes(&self) -> usize {
        self.arguments.len() + self.name.as_ref().map_or(0, String::len) + self.id.as_ref().map_or(0, String::len)
    }
}

/// Body of [`Frame::Embedding`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Embedding {
    /// Its place among all content frames.
    pub seq: u64,
    /// Which of the texts.
    pub index: u32,
    /// The vector: 32-bit floats, little endian.
    pub vector: ByteBuf,
}

impl Embedding {
    /// The vector's numbers.
    pub fn numbers(&self) -> impl Iterator<Item = f32> + '_ {
        self.vector.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
    }

    /// The bytes of a vector.
    pub fn pack(numbers: &[f32]) -> ByteBuf {
        ByteBuf::from(numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
    }
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
            Frame::ToolCall(_) => "tool_call",
            Frame::Embedding(_) => "embedding",
            Frame::Ack(_) => "ack",
            Frame::Voucher(_) => "voucher",
            Frame::Close(_) => "close",
            Frame::Closed(_) => "closed",
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
