//! Log probabilities as both dialects tell them.

use infernet_wire::chat::{Alternative, TokenLogprob};
use serde::Deserialize;

/// Of one token, and of what it might have been.
#[derive(Deserialize)]
pub(super) struct Logprob {
    token: String,
    logprob: f64,
    #[serde(default)]
    top_logprobs: Vec<TopLogprob>,
}

#[derive(Deserialize)]
struct TopLogprob {
    token: String,
    logprob: f64,
}

impl From<Logprob> for TokenLogprob {
    fn from(logprob: Logprob) -> Self {
        let top = logprob.top_logprobs.into_iter().map(|TopLogprob { token, logprob }| Alternative { token, logprob });
        TokenLogprob { token: logprob.token, logprob: logprob.logprob, top: top.collect() }
    }
}
