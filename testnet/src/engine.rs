//! A real, if tiny, inference engine with the HTTP interface of Ollama.
//!
//! Owns an 820 000-parameter chat model (embedded in the binary, see `testnet/model/`) and a server on the loopback
//! interface. Nodes under test talk to it as they would to any Ollama: they don't know that it is ours, and it knows
//! nothing of nodes, auctions or money.
//!
//! One request travels like this: `server` parses it and looks its model up in `catalog`; `jobs` admits it, waits for
//! a slot and runs `model` on that slot's own thread; every token comes back through a short channel, is paced if the
//! options say so, and leaves as one JSON line (`api`). A client that goes away drops the response body, which closes
//! the channel, which ends the generation after at most one more token.
//!
//! Absent on purpose: the OpenAI routes, tools, embeddings, JSON schemas, log-probabilities, pulling and deleting
//! models. `keep_alive`, `num_ctx`, `format`, `think`, `logprobs` and an inbound `context` are ignored. Where Ollama
//! shifts a full context window and goes on, this engine ends the answer with `length`.

mod api;
mod catalog;
mod jobs;
mod model;
mod pace;
mod refusal;
mod sampling;
mod server;
pub mod stamp;
mod text;
mod watch;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

pub use model::{Answer, Finish, Message, TinyModel, Token};
pub use sampling::Sampling;
pub use server::EngineServer;

/// What generates the tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineKind {
    /// The embedded model. All engines of a process share one copy of the weights.
    TinyModel,
    /// **No model at all**: every request is answered with `tokens` synthetic tokens, each the time at which it was made
    /// ([`stamp`]), at an exact rate kept by timers. For stream benchmarks only, which need thousands of concurrent answers at a known rate where a
    /// model would be the bottleneck. Prompts are counted in words, and `EngineOptions::tokens_per_second` is unused.
    Metronome {
        /// Rate of each stream, finite and above zero.
        tokens_per_second: f64,
        /// Length of an answer; a smaller `num_predict` cuts it.
        tokens: u32,
    },
}

/// How an [`EngineServer`] presents itself and how fast it is.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Where to listen; port 0 picks a free one.
    pub addr: SocketAddr,
    /// Model name that `/api/tags` shows first. A name without a tag means `:latest`, as in Ollama.
    pub name: String,
    /// Further names for the same weights.
    pub aliases: Vec<String>,
    /// What generates the tokens.
    pub kind: EngineKind,
    /// Slows each answer of the model down to this many tokens a second. `None`: as fast as it goes.
    pub tokens_per_second: Option<f64>,
    /// Time between getting a slot and starting the prompt, as a large model's prompt processing would take.
    pub first_token_delay: Duration,
    /// Bytes of a metronome's token, at least those of a [`stamp`]; the rest is filling.
    pub token_bytes: usize,
    /// Answers generated at the same time, at least 1; further requests wait in line.
    pub max_concurrent: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            name: "tiny-chat:latest".into(),
            aliases: Vec::new(),
            kind: EngineKind::TinyModel,
            tokens_per_second: None,
            first_token_delay: Duration::ZERO,
            token_bytes: 0,
            max_concurrent: 4, // llama-server's default number of slots
        }
    }
}

impl EngineOptions {
    /// Options of a [`EngineKind::Metronome`] that has room for thousands of streams.
    pub fn metronome(tokens_per_second: f64, tokens: u32) -> Self {
        Self {
            kind: EngineKind::Metronome { tokens_per_second, tokens },
            max_concurrent: 4096, // twice the 2 000 streams that the benchmark asks for
            ..Self::default()
        }
    }
}

/// What happened to a request, for tests that must know that it reached the engine. `request` counts from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// The request was valid and was admitted; it may still wait for a slot.
    Started {
        /// Number of the request.
        request: u64,
    },
    /// The first token was generated.
    FirstToken {
        /// Number of the request.
        request: u64,
    },
    /// The answer was generated to its end.
    Finished {
        /// Number of the request.
        request: u64,
        /// Tokens generated, the end token included (Ollama's `eval_count`).
        tokens: u32,
    },
    /// The client went away, or the server was killed, and generation has stopped.
    Cancelled {
        /// Number of the request.
        request: u64,
        /// Tokens generated up to then; a few more than the client saw.
        tokens: u32,
    },
    /// The model failed; the client got an error.
    Failed {
        /// Number of the request.
        request: u64,
        /// Tokens generated up to then.
        tokens: u32,
    },
}

impl EngineEvent {
    /// Number of the request that the event is about.
    pub fn request(&self) -> u64 {
        match *self {
            Self::Started { request }
            | Self::FirstToken { request }
            | Self::Finished { request, .. }
            | Self::Cancelled { request, .. }
            | Self::Failed { request, .. } => request,
        }
    }
}

/// Why an engine did not start or an answer was not generated.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The network failed: a shape, a type, a number that is none.
    #[error("the model failed: {0}")]
    Model(#[from] candle_core::Error),
    /// The embedded configuration is not that of a llama model.
    #[error("model configuration: {0}")]
    Config(#[from] serde_json::Error),
    /// The tokenizer could not be read or could not encode a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A prompt without a token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A prompt that leaves no room for an answer.
    #[error("prompt of {tokens} tokens does not fit the context of {context}")]
    PromptTooLong {
        /// Length of the prompt.
        tokens: usize,
        /// Size of the context window.
        context: usize,
    },
    /// A rate that no clock can keep.
    #[error("{0} tokens per second is not a rate")]
    Rate(f64),
    /// An engine without a slot could not answer anything.
    #[error("max_concurrent is 0")]
    NoSlots,
    /// The address can't be listened on.
    #[error("listen on {addr}: {source}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread of a slot could not be started.
    #[error("start a generation thread: {0}")]
    Thread(#[from] rayon::ThreadPoolBuildError),
}
