//! `POST /v1/chat/completions`.

mod answer;
mod request;

use super::{
    access::Caller,
    error::ApiError,
    fields::Fields,
    job::Choices,
    options::Options,
    replay::{Recorder, Turn},
    sampling,
    service::{Place, Service},
    sse::Events,
};
use crate::clock;
use answer::Said;
use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use infernet_wire::money::MicroUsd;
use request::Asked;
use serde_json::Value;
use std::sync::Arc;

/// The kind of a whole answer.
pub(super) const JSON: &str = "application/json";

/// Answers a conversation.
pub(super) async fn create(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (body, place) = service.receive(&headers, body).await?;
    match service.replays.turn(&caller.key, &headers, "chat", &body).await? {
        Turn::Replayed(response) => Ok(response),
        Turn::Answer(recorder) => answer(&service, &caller, &headers, &body, place, recorder).await,
    }
}

async fn answer(
    service: &Service,
    caller: &Caller,
    headers: &HeaderMap,
    body: &[u8],
    place: Place,
    recorder: Option<Recorder>,
) -> Result<Response, ApiError> {
    let (asked, options) = read(headers, body)?;
    let request = service.with_max_tokens(asked.request).await;
    let requests = (0..asked.choices as usize).map(|n| sampling::nth(&request, n)).collect();
    let (jobs, capped) = service.jobs(caller, &options, requests, place).await?;
    let (created, count, choices) = (clock::now().0 / 1_000, jobs.len(), Choices::new(jobs));
    if asked.stream {
        let shape = answer::Stream::new(created, count, asked.include_usage, asked.parallel);
        return Events::new(choices, shape, capped, recorder).response().await;
    }
    let body = whole(choices, count, asked.parallel, created, capped).await?;
    if let Some(recorder) = recorder {
        recorder.complete_with(JSON, &body);
    }
    Ok(([(header::CONTENT_TYPE, JSON)], body).into_response())
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<(Asked, Options), ApiError> {
    let value: Value = serde_json::from_slice(body).map_err(ApiError::not_json)?;
    let fields = Fields::new(&value, "")?;
    Ok((Asked::read(&fields)?, Options::read(headers, &fields)?))
}

/// All answers, when the last is whole.
async fn whole(
    choices: Choices,
    count: usize,
    parallel: bool,
    created: u64,
    capped: Option<MicroUsd>,
) -> Result<Vec<u8>, ApiError> {
    let mut said: Vec<Said> = (0..count).map(|_| Said::default()).collect();
    let ended = choices.collect(capped, |place, progress| {
        if let Some(answer) = said.get_mut(place) {
            answer.take(progress, parallel);
        }
    });
    match ended.await {
        Ok(known) => Ok(answer::whole(created, &said, &known.iter().collect::<Vec<_>>())),
        Err((place, error)) => {
            let partial = said.get_mut(place).map(|answer| std::mem::take(&mut answer.text)).unwrap_or_default();
            Err(error.with_partial(partial))
        }
    }
}
