//! What every route that buys does before and after its own part: body, replay, JSON, jobs; and the whole answer.

use super::{
    access::Caller,
    error::ApiError,
    fields::Fields,
    job::Job,
    options::Options,
    replay::{Recorder, Turn},
    service::{Place, Service},
};
use axum::{
    Extension,
    body::Body,
    extract::{FromRequest, FromRequestParts, Request, rejection::ExtensionRejection},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use infernet_wire::{chat::ChatRequest, money::MicroUsd};
use serde_json::Value;
use std::sync::Arc;

/// The kind of a whole answer.
const JSON: &str = "application/json";

/// A request of a caller who was let in, its body still unread.
pub(super) struct Incoming {
    service: Arc<Service>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
}

impl FromRequest<Arc<Service>> for Incoming {
    type Rejection = ExtensionRejection;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, ExtensionRejection> {
        let (mut parts, body) = request.into_parts();
        let Extension(caller) = Extension::from_request_parts(&mut parts, service).await?;
        Ok(Incoming { service: service.clone(), caller, headers: parts.headers, body })
    }
}

impl Incoming {
    /// Lets `answer` answer it, unless the same request to `route` was answered before.
    pub(super) async fn answered<F>(self, route: &str, answer: impl FnOnce(Asking) -> F) -> Result<Response, ApiError>
    where
        F: Future<Output = Result<Response, ApiError>>,
    {
        let Incoming { service, caller, headers, body } = self;
        let (body, place) = service.receive(&headers, body).await?;
        let recorder = match service.replays.turn(&caller.key, &headers, route, &body).await? {
            Turn::Replayed(response) => return Ok(response),
            Turn::Answer(recorder) => recorder,
        };
        let body = serde_json::from_slice(&body).map_err(ApiError::not_json)?;
        answer(Asking { service, caller, headers, body, place, recorder }).await
    }
}

/// A request to be answered.
pub(super) struct Asking {
    pub(super) service: Arc<Service>,
    caller: Caller,
    headers: HeaderMap,
    body: Value,
    place: Place,
    recorder: Option<Recorder>,
}

impl Asking {
    /// What is asked, as `read` finds it in the body, and the wishes about the market.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Fields<'_>) -> Result<T, ApiError>) -> Result<(T, Options), ApiError> {
        let fields = Fields::new(&self.body, "")?;
        Ok((read(&fields)?, Options::read(&self.headers, &fields)?))
    }

    /// The jobs that `requests` become, and what a spend cap leaves for each, as [`Service::jobs`] tells; with them where the
    /// answer is noted, if it may be asked for again. The body is not needed any more.
    pub(super) async fn buy(
        self,
        options: &Options,
        requests: Vec<ChatRequest>,
    ) -> Result<(Vec<Job>, Option<MicroUsd>, Option<Recorder>), ApiError> {
        let Asking { service, caller, place, recorder, .. } = self;
        let (jobs, capped) = service.jobs(&caller, options, requests, place).await?;
        Ok((jobs, capped, recorder))
    }
}

/// The response that is `body`, a whole JSON object; noted if it may be asked for again.
pub(super) fn whole(body: Vec<u8>, recorder: Option<Recorder>) -> Response {
    if let Some(recorder) = recorder {
        recorder.complete_with(JSON, &body);
    }
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}
