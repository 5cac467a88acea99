//! How the routes that existing clients know answer: `{"data":…}`, or `{"error":"text"}` and a status.

use crate::{http::error, store::StoreError};
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use infernet_node::date::{DAY_MS, Day};
use infernet_wire::time::UnixMillis;
use serde_json::{Value, json};

/// What a handler of such a route returns.
pub type Reply = Result<Json<Value>, Refusal>;

/// `{"data": value}`.
pub fn data(value: Value) -> Reply {
    Ok(Json(json!({ "data": value })))
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// For people, and for clients that show it.
    pub text: String,
}

impl Refusal {
    /// `status` with `text`.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into() }
    }

    /// 400.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 404.
    pub fn unknown(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        error::Refusal::from(error).into()
    }
}

impl From<error::Refusal> for Refusal {
    /// In the words of these routes, whose errors are plain texts.
    fn from(refusal: error::Refusal) -> Self {
        Self::new(refusal.status, refusal.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.text }))).into_response()
    }
}

/// `2026-11-22T14:16:13.345Z`, as JavaScript writes a date.
pub fn iso(time: UnixMillis) -> String {
    let ms = time.0 % DAY_MS;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}.{:03}Z", Day::of(time), ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_javascript() {
        assert_eq!(iso(UnixMillis(1_795_356_973_345)), "2026-11-22T14:16:13.345Z");
        assert_eq!(iso(UnixMillis(0)), "1970-01-01T00:00:00.000Z");
    }
}
