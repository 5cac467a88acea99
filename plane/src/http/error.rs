//! What went wrong, as clients see it: `{"error":{"code","message"}}` and the right status.
//!
//! | what | status | `code` |
//! |---|---|---|
//! | not JSON; a field is wrong | 400 | `bad_request` |
//! | no key or session; a wrong, revoked or expired one | 401 | `unauthorized` |
//! | too little balance; a key's day is spent | 402 | `insufficient_balance`, `spend_cap` |
//! | a strange `Host`, page or token; a key that may not | 403 | `unknown_host`, `unknown_origin`, `csrf`, `forbidden` |
//! | no such route, job, key; somebody else's | 404 | `not_found` |
//! | a wrong method | 405 | `method_not_allowed` |
//! | a body that does not arrive | 408 | `timeout` |
//! | it is not in a state for that | 409 | `conflict` |
//! | an answer that is not kept any more | 410 | `gone` |
//! | too large | 413 | `too_large` |
//! | a job that another instance streams | 421 | `elsewhere` |
//! | an `Idempotency-Key` used for something else | 422 | `idempotency_key_reused` |
//! | too often; full | 429 | `rate_limited`, `busy` |
//! | a bug | 500 | `internal_error` |
//! | no store; no gateway; stopping | 503 | `unavailable` |
//!
//! Messages never quote what a client sent: it may be a piece of its prompt.

use crate::store::StoreError;
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tracing::warn;

/// Seconds after which a full plane, or a store that does not answer, may be better.
const RETRY_SOON: u64 = 2;

/// The code of a 503.
pub const UNAVAILABLE: &str = "unavailable";
/// The code of a 500.
pub const INTERNAL: &str = "internal_error";

/// A refusal or failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// A short stable name, for programs.
    pub code: &'static str,
    /// For people; names the fix.
    pub message: String,
    /// When to try again, in seconds.
    pub retry_after: Option<u64>,
}

/// The body of an error.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ErrorBody {
    error: ErrorText,
}

/// What went wrong.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ErrorText {
    /// A short stable name, for programs.
    code: String,
    /// For people; names the fix.
    message: String,
}

impl Refusal {
    /// A refusal with `status`.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Refusal { status, code, message: message.into(), retry_after: None }
    }

    /// 400.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 402.
    pub fn unpaid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, code, message)
    }

    /// 403.
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 404; the same for what is not there and for what is somebody else's.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no such {what}, or it is not yours"))
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 429.
    pub fn busy(message: impl Into<String>) -> Self {
        Refusal { retry_after: Some(RETRY_SOON), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message) }
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Refusal { retry_after: Some(RETRY_SOON), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message) }
    }

    /// In the shape of the routes below `path`: those of OpenAI and of existing nodes and clients have their own.
    pub fn shaped_for(self, path: &str) -> Response {
        let body = match path {
            path if path.starts_with("/v1/") => serde_json::json!({ "error": {
                "message": self.message, "type": kind(self.status), "param": null, "code": self.code,
                "retryable": self.retry_after.is_some(),
            } }),
            path if is_existing(path) => serde_json::json!({ "error": self.message }),
            _ => return self.into_response(),
        };
        self.with_body(serde_json::to_vec(&body).unwrap_or_default())
    }

    fn with_body(&self, body: Vec<u8>) -> Response {
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Routes of the existing control plane, whose errors are `{"error":"text"}`.
fn is_existing(path: &str) -> bool {
    ["/api/chat", "/api/auth/", "/api/v1/node/", "/api/v1/user/"].iter().any(|begin| path.starts_with(begin))
}

/// OpenAI's `type` of a status.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        402 => "insufficient_quota",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = ErrorText { code: self.code.into(), message: self.message.clone() };
        self.with_body(serde_json::to_vec(&ErrorBody { error }).unwrap_or_default())
    }
}

impl From<StoreError> for Refusal {
    /// Clients hear that it is not their fault; the log has the rest.
    fn from(error: StoreError) -> Self {
        warn!("{error}");
        match error {
            StoreError::Unreachable(_) | StoreError::Timeout(_) => {
                Refusal::unavailable("the plane's store does not answer now")
            }
            StoreError::Corrupt(_) | StoreError::Refused(_) => {
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL, "the plane could not do this; its log says why")
            }
        }
    }
}

/// A refusal of the existing routes: `{"error":"text"}`.
pub struct Existing(pub Refusal);

impl IntoResponse for Existing {
    fn into_response(self) -> Response {
        self.0.shaped_for("/api/chat")
    }
}

impl<E: Into<Refusal>> From<E> for Existing {
    fn from(error: E) -> Self {
        Existing(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    async fn body(response: Response) -> Value {
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn each_family_of_routes_has_its_shape() {
        let refusal = || Refusal::busy("full");
        assert_eq!(body(refusal().into_response()).await, json!({ "error": { "code": "busy", "message": "full" } }));
        assert_eq!(body(refusal().shaped_for("/api/chat")).await, json!({ "error": "full" }));
        let openai = body(refusal().shaped_for("/v1/models")).await;
        assert_eq!((&openai["error"]["type"], &openai["error"]["code"]), (&json!("rate_limit_error"), &json!("busy")));
    }

    #[test]
    fn a_store_that_fails_tells_clients_nothing_of_itself() {
        let refusal = Refusal::from(StoreError::Unreachable("postgres://u:secret@h".into()));
        assert_eq!(refusal.status.as_u16(), 503);
        assert!(!refusal.message.contains("secret"));
    }
}
