//! `POST /v1/completions`: OpenAI's older dialect, a text continued without a chat template.
//!
//! Each prompt and each of its `n` answers is a job. `echo` puts the prompt before the answer; its own probabilities nobody
//! knows, so `echo` with `logprobs` is refused.

mod answer;

use super::{
    asking::{self, Asking},
    error::ApiError,
    fields::{Fields, wrong},
    job::Choices,
    sampling,
    sse::Events,
};
use crate::clock;
use answer::Text;
use axum::response::Response;
use infernet_wire::{
    chat::{ChatMessage, ChatRequest, Role, Task},
    limits,
};
use serde_json::Value;

/// Answers to one request, all prompts together: each is a job of its own, with its own slot.
const MAX_JOBS: usize = 16;
/// The most answers to one prompt.
const MAX_CHOICES: u32 = 8;
/// The longest answer where the client names none: OpenAI's own default for this route.
const DEFAULT_MAX_TOKENS: u32 = 16;
/// Alternatives of a token, as OpenAI has it here.
const MAX_LOGPROBS: u32 = 5;

/// A request, and how its answers are to be told.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    /// One for each answer, in order.
    requests: Vec<ChatRequest>,
    stream: bool,
    include_usage: bool,
    echo: bool,
}

impl Asked {
    fn read(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let model = fields.required("model", fields.text("model")?)?;
        let choices = fields.count_in("n", 1..=MAX_CHOICES)?.unwrap_or(1);
        let logprobs = fields.count_in("logprobs", 0..=MAX_LOGPROBS)?;
        let echo = fields.flag("echo")?.unwrap_or(false);
        if echo && logprobs.is_some() {
            return Err(ApiError::field(
                "echo",
                "echo with logprobs is not supported: no worker tells a prompt's probabilities",
            ));
        }
        if fields.count_in("best_of", 1..=MAX_CHOICES)?.is_some_and(|best| best > choices) {
            return Err(ApiError::field("best_of", "best_of above n is not supported: ask for n answers and choose"));
        }
        let max_tokens = fields.count_in("max_tokens", 1..=limits::MAX_OUTPUT_TOKENS)?.unwrap_or(DEFAULT_MAX_TOKENS);
        let suffix = fields.text("suffix")?.map(str::to_owned);
        let mut requests = Vec::new();
        for prompt in prompts(fields)? {
            let message = ChatMessage::new(Role::User, prompt);
            let request = sampling::read(fields, ChatRequest::new(model, vec![message], max_tokens))?;
            let logprobs = logprobs.and_then(|n| u8::try_from(n).ok());
            let request = ChatRequest { task: Task::COMPLETION, suffix: suffix.clone(), logprobs, ..request };
            requests.extend((0..choices as usize).map(|n| sampling::nth(&request, n)));
        }
        if requests.len() > MAX_JOBS {
            let message = format!("prompts times n is {}, above {MAX_JOBS}: ask in several requests", requests.len());
            return Err(ApiError::field("prompt", message));
        }
        let (stream, include_usage) = (fields.flag("stream")?.unwrap_or(false), sampling::include_usage(fields)?);
        Ok(Asked { requests, stream, include_usage, echo })
    }

    /// The texts to put before the answers.
    fn echoes(&self) -> Vec<String> {
        let prompt = |request: &ChatRequest| request.messages.first().map(|message| message.content.clone());
        self.requests.iter().map(|request| prompt(request).filter(|_| self.echo).unwrap_or_default()).collect()
    }
}

fn prompts<'a>(fields: &Fields<'a>) -> Result<Vec<&'a str>, ApiError> {
    let what = "a string or a list of strings; lists of tokens are not supported";
    match fields.required("prompt", fields.value("prompt"))? {
        Value::String(text) => Ok(vec![text]),
        list @ Value::Array(texts) if texts.is_empty() => Err(wrong("prompt", what, list)),
        Value::Array(texts) => texts.iter().map(|text| text.as_str().ok_or_else(|| wrong("prompt", what, text))).collect(),
        other => Err(wrong("prompt", what, other)),
    }
}

/// Continues texts.
pub(super) async fn answer(asking: Asking) -> Result<Response, ApiError> {
    let (asked, options) = asking.read(Asked::read)?;
    let echoes = asked.echoes();
    let (jobs, capped, recorder) = asking.buy(&options, asked.requests).await?;
    let (created, choices) = (clock::now().0 / 1_000, Choices::new(jobs));
    if asked.stream {
        let shape = answer::Stream::new(created, echoes, asked.include_usage);
        return Events::new(choices, shape, capped, recorder).response().await;
    }
    let mut texts: Vec<Text> = echoes.into_iter().map(Text::after).collect();
    let known = choices.collect_into(&mut texts, capped, Text::take, |text| &mut text.text).await?;
    Ok(asking::whole(answer::whole(created, &texts, &known.iter().collect::<Vec<_>>()), recorder))
}

#[cfg(any(test, fuzzing))]
pub(super) fn requests_of(fields: &Fields<'_>) -> Result<Vec<ChatRequest>, ApiError> {
    Asked::read(fields).map(|asked| asked.requests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Result<Asked, ApiError> {
        Asked::read(&Fields::new(body, "")?)
    }

    #[test]
    fn every_prompt_and_choice_is_a_job() {
        let asked =
            read(&json!({ "model": "m", "prompt": ["a", "b"], "n": 2, "seed": 5, "echo": true, "suffix": "z" })).unwrap();
        let seen: Vec<_> = asked.requests.iter().map(|r| (r.messages[0].content.as_str(), r.seed)).collect();
        assert_eq!(seen, [("a", Some(5)), ("a", Some(6)), ("b", Some(5)), ("b", Some(6))]);
        assert!(asked.requests.iter().all(|r| r.task == Task::COMPLETION && r.max_tokens == 16 && r.suffix.is_some()));
        assert_eq!(asked.echoes(), ["a", "a", "b", "b"]);
    }

    #[test]
    fn mistakes_name_the_field() {
        for (more, param) in [
            (json!({ "prompt": [1, 2] }), "prompt"),
            (json!({ "prompt": [[1, 2]] }), "prompt"),
            (json!({ "prompt": [] }), "prompt"),
            (json!({ "prompt": vec!["x"; 9], "n": 2 }), "prompt"),
            (json!({ "prompt": "a", "echo": true, "logprobs": 1 }), "echo"),
            (json!({ "prompt": "a", "best_of": 3 }), "best_of"),
            (json!({ "prompt": "a", "logprobs": 6 }), "logprobs"),
            (json!({}), "prompt"),
        ] {
            let mut body = json!({ "model": "m" });
            if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
                body.extend(more);
            }
            assert_eq!(read(&body).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }
}
