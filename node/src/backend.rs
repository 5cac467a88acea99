//! Engines: what a worker's models are served by, behind one trait.
//!
//! A [`Backend`] tells which models an engine has and turns a [`ChatRequest`] into a stream of [`Chunk`]s. It is made by
//! [`connect`] from a [`BackendSpec`], the `KIND=URL` that the operator configured, or by [`first_of`] where none is named. It
//! knows nothing of offers, slots, prices or peers: admission is the caller's, and so is what a chunk costs.
//!
//! Two adapters speak to every engine: `ollama`, and `openai` for vLLM, SGLang, Modular MAX and llama.cpp. What is different
//! between engines is one table, [`ENGINES`].
//!
//! **One job's way:** request → HTTP → lines → chunks. Dropping the stream closes the connection, which is how an engine is
//! told to stop; nothing else is needed. Every wait has a deadline ([`Deadlines`]), and an answer that merely stops coming is
//! [`BackendError::Truncated`], never a clean end.
//!
//! **What it trusts.** The URL comes from the operator's own configuration alone, never from a peer, so that no stranger can
//! make a node call an address; proxies and redirects are off for the same reason, and addresses where clouds tell secrets need
//! the operator's word. An engine's key is sent to it alone and shown nowhere. What an engine says of its failures is
//! bounded and stripped of control characters before it becomes an error, for the operator to read; peers get
//! [`BackendError::label`]. Nothing here quotes a prompt or an answer.

pub(crate) mod address;
mod facts;
mod first;
mod http;
mod logprob;
pub mod manage;
mod ndjson;
mod ollama;
mod openai;
mod sampling;
mod spec;

pub use facts::{BackendKind, ENGINES, Facts};
pub use http::Deadlines;
pub(crate) use http::{Guarded, refused_host};
pub use spec::{ApiKey, BackendSpec, BadSpec, BadVariable, EngineVariables};

#[cfg(any(test, fuzzing))]
pub(crate) use {ollama::fuzz::lines as fuzz_ollama, openai::fuzz::events as fuzz_openai};

use futures::{future::BoxFuture, stream::BoxStream};
use infernet_wire::{
    capability::Abilities,
    chat::{Channel, ChatRequest, FinishReason, TokenLogprob},
    hash::sha256,
    id::Hash,
    limits,
};
use std::{fmt, sync::Arc, time::Duration};

/// A model as its engine tells of it. Prices and measurements are not the engine's to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// The name to ask the engine for it; fit for an ad (1 to 128 bytes, no control characters).
    pub id: String,
    /// Other names that mean it.
    pub aliases: Vec<String>,
    /// Architecture family, such as `llama`; empty if unknown.
    pub family: String,
    /// Number of parameters, 0 if unknown.
    pub parameters: u64,
    /// Quantisation, such as `Q4_K_M`; empty if unknown.
    pub quantisation: String,
    /// Tokens of input and output together that the engine would really keep, 0 if unknown.
    pub context: u32,
    /// SHA-256 of the weights file, if the engine tells it.
    pub weights: Option<Hash>,
    /// SHA-256 of the text of its chat template, if the engine tells it.
    pub template: Option<Hash>,
    /// What it can do beyond text.
    pub abilities: Abilities,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Chunk {
    /// Text. Never empty; at most 1 MiB, so a sender with smaller frames must split it.
    Text {
        /// Which part of the answer.
        channel: Channel,
        /// The text.
        text: String,
        /// Output tokens so far: at least one more with each chunk, and never more than the UTF-8 bytes so far.
        tokens: u32,
        /// Log probabilities of its tokens, if the request asks for them.
        logprobs: Vec<TokenLogprob>,
    },
    /// A tool call, or more of the arguments of one.
    ToolCall {
        /// Which call of this answer: 0, 1, 2 …
        index: u32,
        /// Its id; in its first chunk.
        id: Option<String>,
        /// The tool; in its first chunk.
        name: Option<String>,
        /// A piece of the arguments, JSON text in all.
        arguments: String,
        /// Output tokens so far, as for text.
        tokens: u32,
    },
    /// The vector of a text.
    Embedding {
        /// Which of the texts.
        index: u32,
        /// The vector.
        vector: Vec<f32>,
    },
    /// The end, exactly once and last.
    Done {
        /// Input tokens by the engine's own count; `None` if it does not tell.
        input_tokens: Option<u32>,
        /// Output tokens by the engine's own count, which may differ from the running one.
        output_tokens: Option<u32>,
        /// Why it ended.
        finish: FinishReason,
    },
}

/// How much an engine has to do, for whomever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests that it works on.
    pub running: u32,
    /// Requests that wait in it; `None` if it does not tell.
    pub waiting: Option<u32>,
}

/// An engine that serves models.
pub trait Backend: Send + Sync {
    /// How to reach it, its key included; `None` while no engine is found.
    fn spec(&self) -> Option<BackendSpec>;

    /// `KIND at URL`, for the operator to read.
    fn name(&self) -> String {
        self.spec().map_or_else(|| "any engine at its usual address".into(), |spec| format!("{} at {}", spec.kind, spec.url()))
    }

    /// The models that it could serve now. Models that an ad could not name, that can't chat, or that run elsewhere are left
    /// out.
    fn models(&self) -> BoxFuture<'_, Result<Vec<Model>, BackendError>>;

    /// Starts a job. The future resolves when the engine has accepted it; the stream then ends after [`Chunk::Done`] or after
    /// the first error. Dropping either cancels the job in the engine.
    fn chat(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Chunk, BackendError>>, BackendError>>;

    /// How much it has to do; `None` if it does not tell, as by default.
    fn load(&self) -> BoxFuture<'_, Option<Load>> {
        Box::pin(async { None })
    }

    /// Finds out by a few tiny jobs what one new model that is `wanted` can do, as far as the engine does not tell. Whether [`Backend::models`]
    /// tells more from now on; `false` at once if there is nothing to find out, as by default. Takes minutes at most, and may
    /// be dropped at any time.
    fn probe<'a>(&'a self, _wanted: Wanted<'a>) -> BoxFuture<'a, bool> {
        Box::pin(async { false })
    }
}

/// Whether anybody could buy a model of that name here.
pub type Wanted<'a> = &'a (dyn Fn(&str) -> bool + Send + Sync);

/// The engine that `spec` names. It is not contacted yet.
pub fn connect(spec: &BackendSpec) -> Result<Box<dyn Backend>, BackendError> {
    connect_with(spec, Deadlines::default())
}

/// As [`connect`], with other deadlines.
pub fn connect_with(spec: &BackendSpec, deadlines: Deadlines) -> Result<Box<dyn Backend>, BackendError> {
    match spec.kind {
        BackendKind::Ollama => Ok(Box::new(ollama::Ollama::new(spec, deadlines)?)),
        _ => Ok(Box::new(openai::OpenAi::new(spec, deadlines)?)),
    }
}

/// The first of `specs` that answers, looked for again whenever it stops. None is contacted yet.
pub fn first_of(specs: &[BackendSpec], deadlines: Deadlines) -> Result<Box<dyn Backend>, BackendError> {
    let candidates = specs.iter().map(|spec| connect_with(spec, deadlines).map(Arc::from)).collect::<Result<_, _>>()?;
    Ok(Box::new(first::FirstOf::new(candidates, deadlines.describe)))
}

/// Models that are read of what an engine lists, before those that are offered are picked: the largest collections on one disk
/// have some hundreds, and what is known of one takes less than a kilobyte.
const MAX_MODELS: usize = 512;

/// Whether an ad can carry the name (`wire`'s rule for names).
fn is_name(text: &str) -> bool {
    (1..=limits::MAX_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The digest of a template's text, if there is one.
fn template_digest(text: &str) -> Option<Hash> {
    (!text.is_empty()).then(|| sha256(text.as_bytes()))
}

fn name_or_empty(text: &str) -> String {
    if is_name(text) { text.to_owned() } else { String::new() }
}

/// What was waited for when a deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The connection.
    Connect,
    /// The list of models.
    Describe,
    /// The first byte of an answer: loading the model and reading the prompt happen here.
    FirstByte,
    /// The next piece of an answer.
    NextChunk,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Connect => "connect",
            Stage::Describe => "describe its models",
            Stage::FirstByte => "start its answer",
            Stage::NextChunk => "continue its answer",
        })
    }
}

/// Why an engine could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The HTTP client itself could not be made.
    #[error("can't make an HTTP client: {0}")]
    Client(String),
    /// No connection, or it broke before an answer.
    #[error("can't reach the engine at {url}: {reason}; is it running?")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What the operating system said.
        reason: String,
    },
    /// A deadline passed.
    #[error("the engine did not {stage} within {} ms", limit.as_millis())]
    Timeout {
        /// What was waited for.
        stage: Stage,
        /// For how long.
        limit: Duration,
    },
    /// The engine refused.
    #[error("the engine answered HTTP {status}: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What the engine says, at most 300 characters.
        message: String,
    },
    /// The engine wants a key that it did not get.
    #[error("the engine at {url} wants an API key, or another one: set {variable} to it and start again")]
    Unauthorized {
        /// Where it is.
        url: String,
        /// The environment variable that holds its key.
        variable: &'static str,
    },
    /// The engine is there, and is another one than configured.
    #[error("the engine at {url} is {found}, not {configured}: write --backend {found}={url}")]
    WrongEngine {
        /// Where it is.
        url: String,
        /// What the operator says it is.
        configured: BackendKind,
        /// What it says it is.
        found: BackendKind,
    },
    /// None of the engines that were looked for answers.
    #[error("no engine answers (looked for {at}{}); start one, or name one with --backend KIND=URL", also(refusals))]
    NoEngine {
        /// Where they were looked for.
        at: String,
        /// What those said that are there, and still can't be used.
        refusals: Vec<String>,
    },
    /// The engine's name means an address where a cloud tells its machines' secrets.
    #[error(
        "{host} is a link-local or metadata address, where no engine should be; if yours is, say --allow-link-local-engine"
    )]
    LinkLocal {
        /// The host.
        host: String,
    },
    /// The engine answers with another model than it was asked for: it was restarted.
    #[error("the engine now serves {model:?} instead of the model that it was asked for")]
    OtherModel {
        /// What it serves.
        model: String,
    },
    /// The engine began to answer and then said that it failed.
    #[error("the engine failed: {0}")]
    Engine(String),
    /// The answer stopped without its end.
    #[error("the engine's answer was cut off")]
    Truncated,
    /// The answer has a longer line than any honest one.
    #[error("the engine sent a line of more than {limit} bytes")]
    LineTooLong {
        /// The limit.
        limit: usize,
    },
    /// A description is larger than any honest one.
    #[error("the engine described itself in more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The answer is not in the engine's format: probably another program listens there.
    #[error("the engine at {url} does not answer like {kind}; check the backend's KIND and URL")]
    Malformed {
        /// What was expected.
        kind: &'static str,
        /// Where.
        url: String,
    },
}

fn also(refusals: &[String]) -> String {
    refusals.iter().map(|refusal| format!("; {refusal}")).collect()
}

impl BackendError {
    /// Whether the same request may succeed with another worker, or with this one later. Only what the engine refuses because
    /// of the request itself is final.
    pub fn retryable(&self) -> bool {
        match self {
            // 404: the model is gone here. 408, 425, 429: not now.
            BackendError::Status { status, .. } => !(400..500).contains(status) || matches!(status, 404 | 408 | 425 | 429),
            _ => true,
        }
    }

    /// A short stable name for counters, and for peers, who need not know the engine's address.
    pub fn label(&self) -> &'static str {
        match self {
            BackendError::Client(_) => "client",
            BackendError::Unreachable { .. } => "unreachable",
            BackendError::Timeout { .. } => "timeout",
            BackendError::Status { .. } => "refused",
            BackendError::Unauthorized { .. } => "unauthorized",
            BackendError::WrongEngine { .. } => "wrong_engine",
            BackendError::NoEngine { .. } => "no_engine",
            BackendError::LinkLocal { .. } => "link_local",
            BackendError::OtherModel { .. } => "other_model",
            BackendError::Engine(_) => "failed",
            BackendError::Truncated => "truncated",
            BackendError::LineTooLong { .. } => "line_too_long",
            BackendError::TooLarge { .. } => "too_large",
            BackendError::Malformed { .. } => "malformed",
        }
    }
}
