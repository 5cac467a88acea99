//! How an answer is drawn, in the words that both dialects have in common.

use infernet_wire::chat::ChatRequest;
use serde::Serialize;

/// What the request says of it; the rest is the engine's default.
#[derive(Serialize)]
pub(super) struct Sampling<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
}

impl<'a> Sampling<'a> {
    /// Of `request`.
    pub(super) fn of(request: &'a ChatRequest) -> Self {
        Sampling {
            temperature: request.temperature,
            top_p: request.top_p,
            seed: request.seed,
            presence_penalty: request.presence_penalty,
            frequency_penalty: request.frequency_penalty,
            stop: &request.stop,
        }
    }
}
