//! The JSON of Ollama's interface, as its recorded answers have it (`testnet/tests/fixtures/`).

use infernet_node::clock;
use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Answer, Finish, Message, Sampling};

/// Body of `POST /api/chat`.
#[derive(Debug, Deserialize)]
pub(super) struct ChatRequest {
    #[serde(default)]
    pub(super) model: String,
    #[serde(default)]
    pub(super) messages: Vec<Message>,
    #[serde(default)]
    pub(super) tools: Vec<serde_json::Value>,
    pub(super) stream: Option<bool>,
    #[serde(default)]
    pub(super) options: Options,
}

/// Body of `POST /api/generate`.
#[derive(Debug, Deserialize)]
pub(super) struct GenerateRequest {
    #[serde(default)]
    pub(super) model: String,
    #[serde(default)]
    pub(super) prompt: String,
    #[serde(default)]
    pub(super) system: String,
    /// The prompt is to be taken as it is, without the template.
    #[serde(default)]
    pub(super) raw: bool,
    pub(super) stream: Option<bool>,
    #[serde(default)]
    pub(super) options: Options,
}

/// Body of `POST /api/show`; `name` is the older spelling.
#[derive(Debug, Deserialize)]
pub(super) struct ShowRequest {
    #[serde(default, alias = "name")]
    pub(super) model: String,
}

/// The part of Ollama's `options` that this engine knows.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Options {
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    seed: Option<i64>,
    num_predict: Option<i64>,
    #[serde(default)]
    stop: Vec<String>,
}

impl From<Options> for Sampling {
    /// Ollama's conventions: no seed or a negative one is a random one, a `num_predict` below 1 is no limit.
    fn from(options: Options) -> Self {
        let defaults = Self::default();
        let random = || RandomState::new().hash_one(0);
        Self {
            temperature: options.temperature.unwrap_or(defaults.temperature),
            top_p: options.top_p.unwrap_or(defaults.top_p),
            top_k: options.top_k.map_or(defaults.top_k, |k| usize::try_from(k).unwrap_or(0)),
            seed: options.seed.and_then(|s| u64::try_from(s).ok()).unwrap_or_else(random),
            max_tokens: options.num_predict.filter(|n| *n > 0).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            stop: options.stop,
        }
    }
}

/// Which of the two generating routes an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Generate,
}

/// One line of a stream, or the whole of an answer that isn't streamed.
#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Said<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    done: bool,
    #[serde(flatten)]
    end: Option<End>,
}

#[derive(Serialize)]
struct Said<'a> {
    role: &'static str,
    content: &'a str,
}

/// What only the last line has.
#[derive(Serialize)]
struct End {
    done_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Vec<u32>>,
    #[serde(flatten)]
    counts: Option<Counts>,
}

/// Durations in nanoseconds.
#[derive(Serialize)]
struct Counts {
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: u32,
    prompt_eval_duration: u64,
    eval_count: u32,
    eval_duration: u64,
}

/// Writes the lines of one answer.
pub(super) struct Writer {
    shape: Shape,
    model: String,
    started: Instant,
    first: Option<Instant>,
}

impl Writer {
    /// `model` is the name as the client wrote it.
    pub(super) fn new(shape: Shape, model: String) -> Self {
        Self { shape, model, started: clock::instant(), first: None }
    }

    /// A line with a piece of the answer.
    pub(super) fn text(&self, text: &str) -> Bytes {
        self.line(text, None)
    }

    /// Notes that a token has come, whether or not it makes a line.
    pub(super) fn token(&mut self) {
        self.first.get_or_insert_with(clock::instant);
    }

    /// The last line; `text` is the whole answer if it isn't streamed.
    pub(super) fn end(&self, text: &str, answer: &Answer, mut context: Vec<u32>) -> Bytes {
        context.extend_from_slice(&answer.tokens);
        let end = End {
            done_reason: match answer.finish {
                Finish::Stop => "stop",
                Finish::Length => "length",
                Finish::Cancelled => "cancelled",
            },
            context: (self.shape == Shape::Generate).then_some(context),
            counts: Some(self.counts(answer)),
        };
        self.line(text, Some(end))
    }

    /// What Ollama says to a request without a prompt, which only asks it to load the model.
    pub(super) fn loaded(&self) -> Bytes {
        let end = End { done_reason: "load", context: None, counts: None };
        self.line("", Some(end))
    }

    fn counts(&self, answer: &Answer) -> Counts {
        // Paced tokens leave later than the model made them; clients compute rates from what they see.
        let sent = self.first.map_or(Duration::ZERO, |first| first.elapsed());
        let (total, prompt, eval) = (self.started.elapsed(), answer.prompt_eval_duration, answer.eval_duration.max(sent));
        Counts {
            total_duration: nanoseconds(total),
            load_duration: nanoseconds(total.saturating_sub(prompt + eval)),
            prompt_eval_count: answer.prompt_tokens,
            prompt_eval_duration: nanoseconds(prompt),
            eval_count: answer.eval_count,
            eval_duration: nanoseconds(eval),
        }
    }

    fn line(&self, text: &str, end: Option<End>) -> Bytes {
        let line = Line {
            model: &self.model,
            created_at: rfc3339(clock::system_time()),
            message: (self.shape == Shape::Chat).then_some(Said { role: "assistant", content: text }),
            response: (self.shape == Shape::Generate).then_some(text),
            done: end.is_some(),
            end,
        };
        let mut json = serde_json::to_vec(&line).expect("strings and numbers always serialise");
        json.push(b'\n');
        json.into()
    }
}

/// An error as Ollama words it, on its own or as the last line of a stream.
pub(super) fn error_line(message: &str) -> Bytes {
    (serde_json::json!({ "error": message }).to_string() + "\n").into()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `time` in UTC with nanoseconds. The calendar is Howard Hinnant's `civil_from_days`, with years that begin in March.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second, nanos) = (second / 3600, second / 60 % 60, second % 60, since.subsec_nanos());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_follow_the_calendar() {
        let at = |seconds, nanos| rfc3339(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_827_696, 7), "2000-02-29T12:34:56.000000007Z");
        assert_eq!(at(1_795_359_917, 781_498_840), "2026-11-22T15:05:17.781498840Z");
        assert_eq!(at(4_107_542_399, 0), "2100-02-28T23:59:59.000000000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn missing_options_are_ollamas() {
        let options = |json| Sampling::from(serde_json::from_str::<Options>(json).expect("valid options"));
        let sampling = options(r#"{"seed": 7, "num_predict": -1, "num_ctx": 9, "top_k": -3}"#);
        let expected = Sampling { seed: 7, top_k: 0, ..Sampling::default() };
        assert_eq!(sampling, expected);
        assert_ne!(options("{}").seed, options("{}").seed);
        assert_eq!(options(r#"{"num_predict": 12}"#).max_tokens, Some(12));
    }
}
