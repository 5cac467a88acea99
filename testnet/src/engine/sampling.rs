//! How the next token is chosen.

use candle_core::Tensor;
use candle_transformers::generation::{LogitsProcessor, Sampling as Method};

use super::EngineError;

/// Below this a temperature counts as 0: dividing by it would overflow.
const COLDEST: f64 = 1e-7;

/// Parameters of one answer; the defaults are Ollama's.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 (or less) takes the likeliest token always: same prompt, same answer.
    pub temperature: f64,
    /// Sample from the likeliest tokens that together have this probability; outside of 0 to 1 it is off.
    pub top_p: f64,
    /// Sample from this many likeliest tokens; 0 is off.
    pub top_k: usize,
    /// Same seed, same answer.
    pub seed: u64,
    /// Tokens at most, but always one; `None`: until the context window is full.
    pub max_tokens: Option<u32>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.8, top_p: 0.9, top_k: 40, seed: 0, max_tokens: None, stop: Vec::new() }
    }
}

impl Sampling {
    /// Temperature 0 and at most `max_tokens`.
    pub fn greedy(max_tokens: u32) -> Self {
        Self { temperature: 0.0, max_tokens: Some(max_tokens), ..Self::default() }
    }

    fn method(&self) -> Method {
        let (temperature, p, k) = (self.temperature, self.top_p, self.top_k);
        let nucleus = p > 0.0 && p < 1.0;
        if temperature.is_nan() || temperature < COLDEST {
            return Method::ArgMax;
        }
        match (k, nucleus) {
            (0, false) => Method::All { temperature },
            (0, true) => Method::TopP { p, temperature },
            (k, false) => Method::TopK { k, temperature },
            (k, true) => Method::TopKThenTopP { k, p, temperature },
        }
    }
}

/// The state of one answer's choices.
pub(super) struct Sampler(LogitsProcessor);

impl Sampler {
    pub(super) fn new(sampling: &Sampling) -> Self {
        Self(LogitsProcessor::from_sampling(sampling.seed, sampling.method()))
    }

    /// `logits` has one dimension, the vocabulary.
    pub(super) fn next(&mut self, logits: &Tensor) -> Result<u32, EngineError> {
        Ok(self.0.sample(logits)?)
    }
}
