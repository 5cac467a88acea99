//! The fields that chat and text completions share.

use super::{
    error::ApiError,
    fields::{Fields, wrong},
};
use infernet_wire::chat::ChatRequest;
use serde_json::Value;

/// `request` with what `fields` say of sampling and of where to stop.
pub(super) fn read(fields: &Fields<'_>, request: ChatRequest) -> Result<ChatRequest, ApiError> {
    Ok(ChatRequest {
        temperature: fields.float("temperature")?,
        top_p: fields.float("top_p")?,
        seed: fields.whole("seed")?,
        stop: stop(fields)?,
        presence_penalty: fields.float("presence_penalty")?,
        frequency_penalty: fields.float("frequency_penalty")?,
        ..request
    })
}

/// A text or a list of them. The wire bounds how many.
fn stop(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let what = "a string or a list of strings";
    match fields.value("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(texts)) => {
            let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| wrong("stop", what, value));
            texts.iter().map(text).collect()
        }
        Some(other) => Err(wrong("stop", what, other)),
    }
}

/// Whether `stream_options.include_usage` is true.
pub(super) fn include_usage(fields: &Fields<'_>) -> Result<bool, ApiError> {
    let Some(options) = fields.value("stream_options") else { return Ok(false) };
    Ok(Fields::new(options, "stream_options")?.flag("include_usage")?.unwrap_or(false))
}

/// The request of the answer `n`: its own seed, so that equal requests do not give equal answers.
pub(super) fn nth(request: &ChatRequest, n: usize) -> ChatRequest {
    let offset = i64::try_from(n).unwrap_or(i64::MAX);
    ChatRequest { seed: request.seed.map(|seed| seed.wrapping_add(offset)), ..request.clone() }
}
