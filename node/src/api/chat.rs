//! `POST /v1/chat/completions`.

mod answer;
mod request;

use super::{
    asking::{self, Asking},
    error::ApiError,
    job::Choices,
    sampling,
    sse::Events,
};
use crate::clock;
use answer::Said;
use axum::response::Response;
use infernet_wire::money::MicroUsd;
use request::Asked;

/// Answers a conversation.
pub(super) async fn answer(asking: Asking) -> Result<Response, ApiError> {
    let (asked, options) = asking.read(Asked::read)?;
    let request = asking.service.with_max_tokens(asked.request).await;
    let requests = (0..asked.choices as usize).map(|n| sampling::nth(&request, n)).collect();
    let (jobs, capped, recorder) = asking.buy(&options, requests).await?;
    let (created, count, choices) = (clock::now().0 / 1_000, jobs.len(), Choices::new(jobs));
    if asked.stream {
        let shape = answer::Stream::new(created, count, asked.include_usage, asked.parallel);
        return Events::new(choices, shape, capped, recorder).response().await;
    }
    Ok(asking::whole(whole(choices, count, asked.parallel, created, capped).await?, recorder))
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
    let take = |said: &mut Said, progress| said.take(progress, parallel);
    let known = choices.collect_into(&mut said, capped, take, |said| &mut said.text).await?;
    Ok(answer::whole(created, &said, &known.iter().collect::<Vec<_>>()))
}

#[cfg(any(test, fuzzing))]
pub(super) fn requests_of(fields: &super::fields::Fields<'_>) -> Result<Vec<infernet_wire::chat::ChatRequest>, ApiError> {
    let asked = Asked::read(fields)?;
    Ok((0..asked.choices as usize).map(|n| sampling::nth(&asked.request, n)).collect())
}
