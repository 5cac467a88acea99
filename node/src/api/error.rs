//! What went wrong, in OpenAI's words: `{"error":{"message","type","param","code","retryable"}}` and an HTTP status.
//!
//! One table decides how a failed job looks from outside: [`ApiError::of_job`]. Messages name the fix in this endpoint's terms
//! (headers and fields, not flags), and never quote prompt, answer or key.

use crate::{
    buyer::{ChatError, NoBids},
    chat::{
        client::{Cause, Failure},
        framing::FrameError,
    },
    spend::CapError,
};
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use infernet_wire::{
    bid::NoBidReason,
    chat::{BadRequest, ErrorCode},
    money::MicroUsd,
};
use serde::Serialize;

/// Whether an SDK should try again; OpenAI's libraries obey it.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Seconds after which a refusal for want of workers or slots may be over: a few auctions, or one short answer.
const RETRY_SOON: u32 = 2;
/// Models that an error names at most; the rest is at `/v1/models`.
const MAX_NAMES: usize = 20;
/// Fields that the wire's own checks begin their sentence with.
const CHECKED: [&str; 7] =
    ["max_tokens", "temperature", "top_p", "top_logprobs", "presence_penalty", "frequency_penalty", "tool_choice"];

/// A refusal or failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`: what programs look at.
    pub code: &'static str,
    /// The field at fault.
    pub param: Option<String>,
    /// For people; names the fix.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// When, in seconds.
    pub retry_after: Option<u32>,
    /// What had arrived of the answer.
    pub partial: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Shown<'a>,
}

/// The object that clients see.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<&'a str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        ApiError { status, kind, code, param: None, message, retryable: false, retry_after: None, partial: None }
    }

    /// 400: `param` can't be what it is.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = Some(param.into()).filter(|p| !p.is_empty());
        ApiError { param, ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_value", message) }
    }

    /// 400: not a JSON object.
    pub fn not_json(reason: impl std::fmt::Display) -> Self {
        let message = format!("the body is not the JSON object that this route takes: {reason}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "invalid_json", message)
    }

    /// 401: no key, or a wrong one.
    pub fn unauthorised(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", "invalid_api_key", message)
    }

    /// 402: a cap of this node or key.
    pub fn spend_cap(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, "insufficient_quota", "spend_cap", message)
    }

    /// How a refused reservation looks. What other jobs have reserved may be free again soon.
    pub fn of_cap(error: &CapError) -> Self {
        let refusal = Self::spend_cap(error.to_string());
        match error {
            CapError::Day { reserved: MicroUsd(1..), .. } => refusal.later(RETRY_SOON),
            CapError::Store(_) => Self::unavailable("store", error.to_string()),
            _ => refusal,
        }
    }

    /// 403: a browser page or a name that this endpoint does not answer to.
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", code, message)
    }

    /// 404 or 405.
    pub fn no_route(status: StatusCode, message: impl Into<String>) -> Self {
        let code = if status == StatusCode::METHOD_NOT_ALLOWED { "method_not_allowed" } else { "unknown_url" };
        Self::new(status, "invalid_request_error", code, message)
    }

    /// 404: nobody serves the model.
    pub fn unknown_model(model: &str, known: &[String]) -> Self {
        let some = known.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
        let message = format!("no known worker serves the model {model:?}; known models: {some}; see GET /v1/models");
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message);
        ApiError { param: Some("model".into()), ..error }
    }

    /// 408: the request did not come in time.
    pub fn slow_request(seconds: u64) -> Self {
        let message = format!("the request's body did not arrive within {seconds} s; send it faster, or less of it");
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "request_timeout", message).later(RETRY_SOON)
    }

    /// 410: an answer that is not kept, or not from there on.
    pub fn gone() -> Self {
        let message = "this answer is not kept any more, or not from there on; ask anew, without Last-Event-ID";
        Self::new(StatusCode::GONE, "invalid_request_error", "gone", message)
    }

    /// 413: larger than `limit`.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the request is larger than {limit} bytes; shorten the conversation or its images");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "request_too_large", message)
    }

    /// 422: an `Idempotency-Key` that was used for another request.
    pub fn other_request() -> Self {
        let message = "this Idempotency-Key was used with another request; use a new key for a new request";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", "idempotency_key_reused", message)
    }

    /// 429: full.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "busy", message).later(RETRY_SOON)
    }

    /// 503: this node can't ask anybody now.
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message).later(RETRY_SOON)
    }

    /// 502: the answer broke off.
    pub fn cut(message: impl Into<String>) -> Self {
        ApiError { retryable: true, ..Self::new(StatusCode::BAD_GATEWAY, "server_error", "worker_failed", message) }
    }

    fn later(self, seconds: u32) -> Self {
        ApiError { retryable: true, retry_after: Some(seconds), ..self }
    }

    /// With what had arrived.
    pub fn with_partial(self, partial: String) -> Self {
        ApiError { partial: Some(partial).filter(|text| !text.is_empty()), ..self }
    }

    /// How a job's failure looks from outside. `capped` is the budget, if a spend cap and not the caller set it.
    pub fn of_job(error: &ChatError, capped: Option<MicroUsd>) -> Self {
        match error {
            ChatError::Request(bad) => Self::of_request(bad),
            ChatError::Offer(refusal) => Self::field("model", format!("the request can't be offered: {refusal}")),
            ChatError::NoPeers => {
                Self::unavailable("no_peers", "this node has no peers yet; see its log, or name a bootstrap address")
            }
            ChatError::NoBids(no) => Self::of_no_bids(no, capped),
            ChatError::Busy => Self::busy("more jobs wait for their auction than workers allow one buyer; try again"),
            ChatError::Failed { failure, partial } => Self::of_failure(failure).with_partial(partial.clone()),
            ChatError::Cap(error) => Self::of_cap(error),
            ChatError::ShuttingDown => Self::unavailable("shutting_down", "this node is shutting down"),
        }
    }

    /// How a request that the wire refuses looks.
    pub fn of_request(bad: &BadRequest) -> Self {
        match bad {
            BadRequest::TooLarge(_) => Self::too_large(infernet_wire::limits::MAX_REQUEST_BYTES),
            BadRequest::Field(text) => Self::field(checked_field(text), *text),
            BadRequest::Malformed(_) => Self::not_json("it can't be encoded"),
        }
    }

    fn of_no_bids(no: &NoBids, capped: Option<MicroUsd>) -> Self {
        let (model, all) = (&no.model, |reason| !no.refusals.is_empty() && no.refusals.iter().all(|(_, r)| *r == reason));
        match no.cheapest {
            _ if no.is_too_cheap() => Self::of_price(no, capped),
            _ if !no.left_out.is_empty() && no.refusals.is_empty() => Self::unavailable("no_bid", left_out(no)),
            _ if no.standing.is_some() => Self::unavailable(
                "no_bid",
                format!(
                    "no worker that serves {model} has room for this at its standing price: allow X-Infernet-Path: auto, or wait"
                ),
            ),
            None if no.refusals.is_empty() && !no.models.is_empty() => Self::unknown_model(model, &no.models),
            None if no.refusals.is_empty() => Self::unavailable("no_bid", "no worker is known yet; try again soon"),
            _ if all(NoBidReason::CONTEXT_TOO_LONG) => Self::too_long(model),
            _ if all(NoBidReason::MISSING_ABILITY) => Self::unable(model),
            _ => Self::unavailable("no_bid", format!("no worker that serves {model} bid: {}; try again", why(no))),
        }
    }

    fn of_price(no: &NoBids, capped: Option<MicroUsd>) -> Self {
        let asked = no.cheapest.filter(|price| !price.within(&no.ceiling));
        let message = match (asked, capped, no.needed()) {
            (Some(price), ..) => format!(
                "the cheapest {} costs {} in and {} out, in micro-USD per million tokens, above the ceiling of {} and {}: raise \
                 X-Infernet-Max-Price",
                no.model, price.input.0, price.output.0, no.ceiling.input.0, no.ceiling.output.0
            ),
            (None, Some(left), needed) => {
                let most = needed.map(|needed| format!(", {} micro-USD", needed.0)).unwrap_or_default();
                let text = "and what is left of the spend cap is less than the answer may cost";
                let fix = "raise the cap or lower max_tokens";
                return Self::spend_cap(format!("{} micro-USD are left for this request, {text}{most}: {fix}", left.0));
            }
            (None, None, Some(needed)) => format!(
                "{} needs {} micro-USD for up to {} tokens, and the budget is {}: raise X-Infernet-Budget or lower max_tokens",
                no.model, needed.0, no.max_tokens, no.budget.0
            ),
            (None, None, None) if no.is_too_poor() => format!(
                "the budget of {} micro-USD is too low for up to {} tokens of {}: raise X-Infernet-Budget or lower max_tokens",
                no.budget.0, no.max_tokens, no.model
            ),
            (None, None, None) => {
                format!("the budget or ceiling is too low for {}: raise X-Infernet-Budget or X-Infernet-Max-Price", no.model)
            }
        };
        Self::new(StatusCode::PAYMENT_REQUIRED, "insufficient_quota", "price_too_low", message)
    }

    fn too_long(model: &str) -> Self {
        let message = format!(
            "prompt and answer don't fit the context of any worker that serves {model}: shorten the prompt or lower max_tokens"
        );
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "context_length_exceeded", message);
        ApiError { param: Some("messages".into()), ..error }
    }

    fn unable(model: &str) -> Self {
        let message = format!(
            "no worker that serves {model} can do what the request asks for (tools, schema, log probabilities, images, vectors): \
             ask another model or leave that out"
        );
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", "unsupported_ability", message);
        ApiError { param: Some("model".into()), ..error }
    }

    fn of_failure(failure: &Failure) -> Self {
        let timeout = match &failure.cause {
            Cause::Stream(FrameError::Timeout(_)) => true,
            Cause::Worker(error) => error.code == ErrorCode::TIMEOUT,
            _ => false,
        };
        let so_far = if failure.after_first_token { "; the answer so far is incomplete" } else { "" };
        let said = match &failure.cause {
            Cause::Keep(_) => "this node can't keep the receipt: free some disk space".to_owned(),
            // The worker's own words may quote the prompt.
            cause => format!("the worker failed ({}) and no other could take over{so_far}; try again", cause.label()),
        };
        let (status, code) =
            if timeout { (StatusCode::GATEWAY_TIMEOUT, "deadline") } else { (StatusCode::BAD_GATEWAY, "worker_failed") };
        ApiError { retryable: !matches!(failure.cause, Cause::Keep(_)), ..Self::new(status, "server_error", code, said) }
    }

    /// As clients see it, to be put inside something else.
    pub(super) fn shown(&self) -> Shown<'_> {
        Shown {
            message: &self.message,
            r#type: self.kind,
            param: self.param.as_deref(),
            code: self.code,
            retryable: self.retryable,
            partial: self.partial.as_deref(),
        }
    }
}

fn checked_field(text: &str) -> &str {
    let first = text.split(' ').next().unwrap_or_default();
    match CHECKED.contains(&first) {
        true => first,
        false if text.contains("stop sequences") => "stop",
        false if text.contains("tool") => "tools",
        false if text.contains("embedding") => "input",
        false => "messages",
    }
}

fn left_out(no: &NoBids) -> String {
    let filters: Vec<&str> = no.left_out.keys().map(|filter| filter.label()).collect();
    format!("every worker that serves {} is left out by this node's own choice ({})", no.model, filters.join(", "))
}

fn why(no: &NoBids) -> String {
    let mut labels: Vec<&str> = no.refusals.iter().map(|(_, reason)| reason.label()).collect();
    labels.sort_unstable();
    labels.dedup();
    if labels.is_empty() { "none of them answered".into() } else { labels.join(", ") }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&Body { error: self.shown() }).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(if self.retryable { "true" } else { "false" }));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::{chat::StreamError, id::NodeId, money::Price};
    use std::time::Duration;

    fn price(micro: u64) -> Price {
        Price { input: MicroUsd(micro), output: MicroUsd(micro) }
    }

    fn no_bids(cheapest: Option<u64>, refusals: &[NoBidReason], models: &[&str]) -> ChatError {
        ChatError::NoBids(Box::new(NoBids {
            model: "m".into(),
            ceiling: price(100),
            asked: 1,
            refusals: refusals.iter().map(|reason| (NodeId([2; 33]), *reason)).collect(),
            cheapest: cheapest.map(price),
            models: models.iter().map(|&m| m.to_owned()).collect(),
            ..NoBids::default()
        }))
    }

    fn failed(cause: Cause, after_first_token: bool) -> ChatError {
        ChatError::Failed { failure: Failure { cause, after_first_token, lost: MicroUsd(0) }, partial: "so f".into() }
    }

    fn check(error: &ChatError, capped: Option<u64>, status: u16, code: &str) -> ApiError {
        let error = ApiError::of_job(error, capped.map(MicroUsd));
        assert_eq!((error.status.as_u16(), error.code), (status, code), "{error}");
        error
    }

    #[test]
    fn a_job_that_fails_has_its_status() {
        check(&ChatError::Request(BadRequest::TooLarge(9_000_000)), None, 413, "request_too_large");
        let field = check(&ChatError::Request(BadRequest::Field("top_p must be 0 to 1")), None, 400, "invalid_value");
        assert_eq!(field.param.as_deref(), Some("top_p"));
        assert_eq!(check(&ChatError::NoPeers, None, 503, "no_peers").retry_after, Some(RETRY_SOON));
        check(&ChatError::Busy, None, 429, "busy");
        check(&ChatError::ShuttingDown, None, 503, "shutting_down");
    }

    #[test]
    fn nobody_bidding_says_why() {
        let unknown = check(&no_bids(None, &[], &["a", "b"]), None, 404, "model_not_found");
        assert!(unknown.message.contains("a, b"), "{unknown}");
        check(&no_bids(None, &[], &[]), None, 503, "no_bid");
        check(&no_bids(Some(50), &[], &["m"]), None, 503, "no_bid");
        let slots = check(&no_bids(Some(50), &[NoBidReason::NO_SLOT], &["m"]), None, 503, "no_bid");
        assert!(slots.message.contains("no_slot") && slots.retryable, "{slots}");
        check(&no_bids(Some(50), &[NoBidReason::CONTEXT_TOO_LONG], &["m"]), None, 400, "context_length_exceeded");
        check(&no_bids(Some(50), &[NoBidReason::MISSING_ABILITY], &["m"]), None, 400, "unsupported_ability");
    }

    #[test]
    fn too_little_money_names_what_to_raise() {
        let ceiling = check(&no_bids(Some(200), &[], &["m"]), None, 402, "price_too_low");
        assert!(ceiling.message.contains("X-Infernet-Max-Price"), "{ceiling}");
        let budget = check(&no_bids(Some(50), &[NoBidReason::BUDGET_TOO_LOW], &["m"]), None, 402, "price_too_low");
        assert!(budget.message.contains("X-Infernet-Budget or lower max_tokens"), "{budget}");
        let ChatError::NoBids(no) = no_bids(Some(50), &[], &["m"]) else { return };
        let poor = ChatError::NoBids(Box::new(NoBids { input_tokens: 0, max_tokens: 1_000_000, budget: MicroUsd(49), ..*no }));
        let poor = check(&poor, None, 402, "price_too_low");
        assert!(poor.message.contains("needs 50 micro-USD for up to 1000000 tokens"), "{poor}");
        check(&no_bids(Some(50), &[NoBidReason::BUDGET_TOO_LOW], &["m"]), Some(7), 402, "spend_cap");
    }

    #[test]
    fn a_failing_worker_is_a_bad_gateway_and_a_silent_one_a_late_gateway() {
        let engine = StreamError { code: ErrorCode::ENGINE, retryable: true, message: "secret prompt".into() };
        let error = check(&failed(Cause::Worker(engine), true), None, 502, "worker_failed");
        assert_eq!(error.partial.as_deref(), Some("so f"));
        assert!(!error.message.contains("secret"), "{error}");
        check(&failed(FrameError::Timeout(Duration::from_secs(1)).into(), false), None, 504, "deadline");
    }

    #[test]
    fn clients_see_openais_shape() {
        let error = ApiError::field("n", "n must be 1 to 8");
        assert_eq!(
            serde_json::to_string(&Body { error: error.shown() }).unwrap(),
            r#"{"error":{"message":"n must be 1 to 8","type":"invalid_request_error","param":"n","code":"invalid_value","retryable":false}}"#
        );
    }
}
