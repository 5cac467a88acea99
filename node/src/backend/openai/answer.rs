//! Events to chunks: one running answer.
//!
//! **The end.** `finish_reason` is the engine's word that the answer is whole. `[DONE]` alone is not: some servers end an
//! answer that they broke off with it. So an answer is complete with a `finish_reason` and then its usage, `[DONE]`, or the
//! orderly end of the body; without a `finish_reason` it was cut, and a connection that breaks is an error even after one.

use super::{
    sse::{Event, EventBuffer, NoEvent},
    stops::Stops,
};
use crate::{
    backend::{
        BackendError, Chunk,
        http::{self, Body},
        logprob::Logprob,
        ndjson::MAX_LINE_BYTES,
    },
    clock,
};
use infernet_wire::chat::{Channel, FinishReason, TokenLogprob};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

/// Tool calls of one answer. A model that makes more has lost its way; each costs memory here and at the buyer.
const MAX_CALLS: usize = 256;

/// How long a whole answer waits for its usage: it comes with the end, or never.
const USAGE_WAIT: Duration = Duration::from_secs(2);

/// A running answer.
pub(super) struct Answer {
    body: Body,
    events: EventBuffer,
    said: Said,
}

impl Answer {
    pub(super) fn new(body: Body, said: Said) -> Self {
        Answer { body, events: EventBuffer::default(), said }
    }

    pub(super) async fn next(mut self: Box<Self>) -> Result<Option<(Chunk, Box<Self>)>, BackendError> {
        while self.said.pending.is_empty() && !self.said.done {
            match self.event().await? {
                Some(event) => {
                    self.body.started();
                    self.said.absorb(&event).map_err(|failure| failure.at(&self.body))?;
                }
                None => self.said.ended().map_err(|failure| failure.at(&self.body))?,
            }
        }
        Ok(self.said.pending.pop_front().map(|chunk| (chunk, self)))
    }

    /// The next event; `None` at the end. Comments keep the connection, not the patience: a proxy can send them for an engine
    /// that hangs.
    async fn event(&mut self) -> Result<Option<Event>, BackendError> {
        let whole = self.said.finish.is_some();
        let (stage, limit) = self.body.deadline();
        let limit = if whole { limit.min(USAGE_WAIT) } else { limit };
        let due = clock::deadline(limit);
        loop {
            match self.events.next_event() {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(NoEvent::TooLong) => return Err(BackendError::LineTooLong { limit: MAX_LINE_BYTES }),
                Err(NoEvent::Foreign(line)) => return Err(refused(&line).at(&self.body)),
            }
            match self.body.read_until(due).await? {
                Some(Some(bytes)) => self.events.push(&bytes),
                Some(None) => return Ok(self.events.rest()),
                None if whole => return Ok(None),
                None => return Err(BackendError::Timeout { stage, limit }),
            }
        }
    }
}

/// What ends an answer before its time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It stopped.
    Cut,
    /// The engine says that it failed.
    Told(String),
    /// Another model than the one asked for answers.
    OtherModel(String),
    /// This is no answer in OpenAI's dialect.
    Foreign,
}

impl Failure {
    fn at(self, body: &Body) -> BackendError {
        match self {
            Failure::Cut => BackendError::Truncated,
            Failure::Told(text) => BackendError::Engine(text),
            Failure::OtherModel(model) => BackendError::OtherModel { model },
            Failure::Foreign => body.malformed(),
        }
    }
}

/// A line that is no event: an error without the stream that was asked for, or another program's.
fn refused(line: &[u8]) -> Failure {
    match serde_json::from_slice::<Piece>(line) {
        Ok(Piece { error: Some(error), .. }) => told(&error),
        _ => Failure::Foreign,
    }
}

fn told(error: &Value) -> Failure {
    Failure::Told(http::error_text(error).unwrap_or_else(|| "no reason given".into()))
}

#[derive(Deserialize)]
struct Piece {
    error: Option<Value>,
    #[serde(default)]
    model: String,
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    delta: Option<Delta>,
    /// Of `/v1/completions`.
    text: Option<String>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<String>,
    /// vLLM, if it is asked to.
    token_ids: Option<Vec<u32>>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    /// What llama.cpp, SGLang and MAX call it, and vLLM called it.
    reasoning_content: Option<String>,
    /// What vLLM calls it since 0.11.
    reasoning: Option<String>,
    tool_calls: Option<Vec<Called>>,
}

#[derive(Deserialize)]
struct Called {
    #[serde(default)]
    index: u32,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
}

/// Of a chat, a list of tokens; of a completion, lists side by side.
#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Logprob>>,
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f64>>>,
}

impl Logprobs {
    fn read(self) -> Vec<TokenLogprob> {
        if let Some(content) = self.content.filter(|content| !content.is_empty()) {
            return content.into_iter().map(TokenLogprob::from).collect();
        }
        let tokens = self.tokens.unwrap_or_default().into_iter().zip(self.token_logprobs.unwrap_or_default());
        let known = tokens.filter_map(|(token, logprob)| Some((token, logprob?)));
        known.map(|(token, logprob)| TokenLogprob { token, logprob, top: Vec::new() }).collect()
    }
}

/// What an answer's events have said so far.
#[derive(Default)]
pub(super) struct Said {
    pub(super) pending: VecDeque<Chunk>,
    pub(super) done: bool,
    /// The names that the model may answer under; any if empty.
    expected: BTreeSet<String>,
    /// Alternatives of each token that were asked for; an engine may say more.
    alternatives: usize,
    stops: Stops,
    /// What the answer may repeat before it goes on.
    repeats: String,
    /// What it has repeated of that.
    repeated: String,
    count: Count,
    /// The engine's numbers of the calls, in the order in which they came.
    calls: Vec<u32>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
}

/// The running count of tokens.
#[derive(Default)]
struct Count {
    /// Told with a chunk.
    told: u32,
    /// By the engine's own count, told or not.
    engine: u32,
    /// UTF-8 bytes told, which no honest count exceeds.
    bytes: u32,
}

impl Count {
    /// The engine says that it has made so many more, or so many in all.
    fn engine_says(&mut self, more: usize, in_all: Option<u32>) {
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.engine = self.engine.saturating_add(more).max(in_all.unwrap_or(0));
    }

    /// The count to tell with `text`: at least one more, at most the bytes.
    fn tell(&mut self, bytes: usize) -> u32 {
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let least = self.told.saturating_add(1);
        self.told = self.engine.min(self.bytes).max(least);
        self.told
    }
}

impl Said {
    /// An answer by a model of one of the `expected` names, that may repeat what it was `started` with; with so many
    /// `alternatives` of each token.
    pub(super) fn new(expected: BTreeSet<String>, started: Option<String>, alternatives: Option<u8>) -> Self {
        let alternatives = alternatives.unwrap_or(0).into();
        Said { expected, alternatives, repeats: started.unwrap_or_default(), ..Said::default() }
    }

    /// The same, cut at these sequences.
    pub(super) fn cut_at(self, stops: &[String]) -> Self {
        Said { stops: Stops::new(stops), ..self }
    }

    pub(super) fn absorb(&mut self, event: &Event) -> Result<(), Failure> {
        if event.data.trim_ascii() == b"[DONE]" {
            return self.ended();
        }
        let piece: Piece = match serde_json::from_slice(&event.data) {
            Ok(piece) => piece,
            Err(_) if event.is_error => return Err(told(&Value::String(String::from_utf8_lossy(&event.data).into()))),
            Err(_) => return Err(Failure::Foreign),
        };
        match piece {
            Piece { error: Some(error), .. } => Err(told(&error)),
            _ if event.is_error => {
                let value = serde_json::from_slice(&event.data).unwrap_or_default();
                Err(told(&value))
            }
            Piece { choices: None, .. } => Err(Failure::Foreign),
            Piece { model, choices: Some(choices), usage, .. } => self.piece(&model, choices, usage),
        }
    }

    fn piece(&mut self, model: &str, choices: Vec<Choice>, usage: Option<Usage>) -> Result<(), Failure> {
        if !model.is_empty() && !self.expected.is_empty() && !self.expected.contains(model) {
            return Err(Failure::OtherModel(model.chars().filter(|c| !c.is_control()).take(128).collect()));
        }
        // Some count in every chunk; only with the end, or after it, is it the usage.
        let counted = usage.is_some();
        if let Some(usage) = &usage {
            self.count.engine_says(0, usage.completion_tokens);
        }
        self.usage = usage.or(self.usage.take());
        // One answer was asked for.
        for choice in choices.into_iter().filter(|choice| choice.index == 0) {
            self.choice(choice)?;
        }
        if self.finish.is_some() && counted { self.ended() } else { Ok(()) }
    }

    fn choice(&mut self, choice: Choice) -> Result<(), Failure> {
        self.count.engine_says(choice.token_ids.map_or(0, |ids| ids.len()), None);
        let mut logprobs = choice.logprobs.map(Logprobs::read).unwrap_or_default();
        logprobs.iter_mut().for_each(|logprob| logprob.top.truncate(self.alternatives));
        let delta = choice.delta.unwrap_or_default();
        self.text(Channel::REASONING, delta.reasoning_content.or(delta.reasoning), &mut logprobs);
        self.answer(delta.content.or(choice.text), &mut logprobs);
        for call in delta.tool_calls.unwrap_or_default() {
            self.tool_call(call)?;
        }
        match choice.finish_reason.as_deref() {
            None | Some("") => Ok(()),
            // vLLM and SGLang say so of requests that they dropped.
            Some(reason @ ("abort" | "error")) => Err(Failure::Told(format!("it ended the answer with {reason:?}"))),
            Some("length") => self.finished(FinishReason::LENGTH),
            Some(_) if !self.calls.is_empty() => self.finished(FinishReason::TOOL_CALLS),
            Some(_) => self.finished(FinishReason::STOP),
        }
    }

    fn finished(&mut self, finish: FinishReason) -> Result<(), Failure> {
        self.finish.get_or_insert(finish);
        // What looked like the beginning of what was there, and was not.
        let held = std::mem::take(&mut self.repeated);
        if held != self.repeats {
            self.pass(&held, &mut Vec::new());
        }
        self.repeats.clear();
        let rest = self.stops.rest();
        self.text(Channel::ANSWER, Some(rest), &mut Vec::new());
        Ok(())
    }

    /// Nothing more comes.
    pub(super) fn ended(&mut self) -> Result<(), Failure> {
        let finish = self.finish.ok_or(Failure::Cut)?;
        if !self.done {
            self.done = true;
            let usage = self.usage.take();
            let (input_tokens, output_tokens) =
                usage.map_or((None, None), |usage| (usage.prompt_tokens, usage.completion_tokens));
            self.pending.push_back(Chunk::Done { input_tokens, output_tokens, finish });
        }
        Ok(())
    }

    /// A piece of the answer, without what it repeats of its start.
    fn answer(&mut self, text: Option<String>, logprobs: &mut Vec<TokenLogprob>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        if self.repeats.is_empty() {
            return self.pass(&text, logprobs);
        }
        self.repeated.push_str(&text);
        if self.repeats.starts_with(&self.repeated) && self.repeated.len() < self.repeats.len() {
            return;
        }
        let held = std::mem::take(&mut self.repeated);
        let repeats = std::mem::take(&mut self.repeats);
        let new = held.strip_prefix(&repeats).unwrap_or(&held).to_owned();
        self.pass(&new, logprobs);
    }

    /// A piece of the answer, up to a stop sequence.
    fn pass(&mut self, text: &str, logprobs: &mut Vec<TokenLogprob>) {
        let passed = self.stops.pass(text);
        self.text(Channel::ANSWER, Some(passed), logprobs);
    }

    /// The first text of a chunk takes the chunk's probabilities.
    fn text(&mut self, channel: Channel, text: Option<String>, logprobs: &mut Vec<TokenLogprob>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        let tokens = self.count.tell(text.len());
        self.pending.push_back(Chunk::Text { channel, text, tokens, logprobs: std::mem::take(logprobs) });
    }

    /// A call's id and name come first, its arguments then or after. A call without an id gets one, which the conversation
    /// needs later.
    fn tool_call(&mut self, call: Called) -> Result<(), Failure> {
        let Called { index, id, function } = call;
        let (name, arguments) = function.map_or((None, None), |function| (function.name, function.arguments));
        let name = name.filter(|name| !name.is_empty());
        let id = id.filter(|id| !id.is_empty());
        let arguments = arguments.unwrap_or_default();
        if let Some(known) = self.calls.iter().position(|call| *call == index) {
            // Later pieces may repeat id and name; an empty piece says nothing.
            if !arguments.is_empty() {
                self.call(known, None, None, arguments);
            }
            return Ok(());
        }
        // Arguments of a call that has no name are no call.
        let Some(name) = name.filter(|_| self.calls.len() < MAX_CALLS) else { return Err(Failure::Foreign) };
        self.calls.push(index);
        let id = id.unwrap_or_else(|| format!("call_{}", hex::encode(clock::random::<12>())));
        self.call(self.calls.len() - 1, Some(id), Some(name), arguments);
        Ok(())
    }

    fn call(&mut self, index: usize, id: Option<String>, name: Option<String>, arguments: String) {
        let tokens = self.count.tell(name.as_ref().map_or(0, String::len) + arguments.len());
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.pending.push_back(Chunk::ToolCall { index, id, name, arguments, tokens });
    }
}
