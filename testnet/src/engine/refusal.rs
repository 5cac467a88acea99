//! Why a request gets no answer, in Ollama's words.

use axum::{
    extract::rejection::BytesRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{jobs::Busy, server::json_response};

/// Its text is the answer's `error`.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("missing request body")]
    NoBody,
    #[error("{0}")]
    Body(BytesRejection),
    #[error("{}", json_error(.0))]
    Json(serde_json::Error),
    #[error("model '{0}' not found")]
    UnknownModel(String),
    #[error("registry.ollama.ai/library/{0} does not support tools")]
    Tools(String),
    #[error("server busy, please try again.  maximum pending requests exceeded")]
    Busy,
    #[error("{0}")]
    Failed(String),
}

/// Go's decoder, and so Ollama, calls a document that breaks off an unexpected end of file.
fn json_error(error: &serde_json::Error) -> String {
    if error.is_eof() { "unexpected EOF".into() } else { error.to_string() }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoBody | Self::Json(_) | Self::Tools(_) => StatusCode::BAD_REQUEST,
            Self::Body(rejection) => rejection.status(),
            Self::UnknownModel(_) => StatusCode::NOT_FOUND,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Busy> for Refusal {
    fn from(_: Busy) -> Self {
        Self::Busy
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json_response(self.status(), &json!({ "error": self.to_string() }))
    }
}
