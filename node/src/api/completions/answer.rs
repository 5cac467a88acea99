//! `POST /v1/completions` out: token by token ([`Stream`]), or whole ([`whole`]).

use super::super::{
    error::ApiError,
    job::Known,
    note::{self, Head, Note, Usage},
    sse::{self, Shape},
};
use crate::chat::client::Progress;
use bytes::BytesMut;
use infernet_wire::chat::{Channel, FinishReason, TokenLogprob};
use serde::Serialize;
use std::collections::BTreeMap;

/// The legacy form of log probabilities.
#[derive(Debug, Default, Serialize)]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f64>,
    top_logprobs: Vec<BTreeMap<String, f64>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
}

impl Logprobs {
    /// Of `tokens` that begin at `offset`.
    fn of(tokens: Vec<TokenLogprob>, mut offset: usize) -> Option<Self> {
        let mut told = Logprobs::default();
        for TokenLogprob { token, logprob, top } in tokens {
            told.text_offset.push(offset);
            offset += token.chars().count();
            told.tokens.push(token);
            told.token_logprobs.push(logprob);
            told.top_logprobs.push(top.into_iter().map(|other| (other.token, other.logprob)).collect());
        }
        (!told.tokens.is_empty()).then_some(told)
    }
}

#[derive(Serialize)]
struct Choice<'a> {
    text: &'a str,
    index: usize,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'a str>,
}

/// Chunks of one request, all answers.
pub(super) struct Stream {
    created: u64,
    include_usage: bool,
    head: Vec<u8>,
    /// What is still to be put before each answer.
    echoes: Vec<String>,
    /// Characters of each answer so far.
    lengths: Vec<usize>,
}

impl Stream {
    pub(super) fn new(created: u64, echoes: Vec<String>, include_usage: bool) -> Self {
        let lengths = vec![0; echoes.len()];
        Stream { created, include_usage, head: Vec::new(), echoes, lengths }
    }

    fn chunk(&self, choice: &Choice<'_>, out: &mut BytesMut, tail: impl FnOnce(&mut BytesMut)) {
        sse::event(out, |out| {
            out.extend_from_slice(&self.head);
            sse::json(out, choice);
            out.extend_from_slice(b"]");
            if self.include_usage {
                out.extend_from_slice(b",\"usage\":null");
            }
            tail(out);
            out.extend_from_slice(b"}");
        });
    }

    fn text(&mut self, index: usize, text: &str, logprobs: &[TokenLogprob], out: &mut BytesMut) {
        let offset = self.lengths.get(index).copied().unwrap_or(0);
        // Probabilities are asked for seldom; a plain token copies nothing.
        let logprobs = if logprobs.is_empty() { None } else { Logprobs::of(logprobs.to_vec(), offset) };
        self.chunk(&Choice { text, index, logprobs, finish_reason: None }, out, |_| {});
        if let Some(length) = self.lengths.get_mut(index) {
            *length += text.chars().count();
        }
    }

    fn echo(&mut self, place: usize, out: &mut BytesMut) {
        let echo = self.echoes.get_mut(place).map(std::mem::take).unwrap_or_default();
        if !echo.is_empty() {
            self.text(place, &echo, &[], out);
        }
    }
}

impl Shape for Stream {
    fn write(&mut self, place: usize, progress: &Progress, known: &Known, out: &mut BytesMut) {
        match progress {
            Progress::Opened { .. } if self.head.is_empty() => {
                self.head = Head::of("cmpl", "text_completion", self.created, &[known]).open();
            }
            Progress::Text { channel: Channel::ANSWER, text, logprobs, .. } => {
                self.echo(place, out);
                self.text(place, text, logprobs, out);
            }
            Progress::Usage(usage) => {
                self.echo(place, out);
                let note = Note::of(known).filter(|_| !self.include_usage);
                let choice = Choice { text: "", index: place, logprobs: None, finish_reason: Some(usage.finish.label()) };
                self.chunk(&choice, out, |out| {
                    if let Some(note) = note {
                        out.extend_from_slice(b",\"infernet\":");
                        sse::json(out, &note);
                    }
                });
            }
            // This dialect knows neither reasoning nor tools.
            _ => {}
        }
    }

    fn end(&mut self, known: &mut dyn Iterator<Item = &Known>, out: &mut BytesMut) {
        if self.include_usage {
            note::usage_chunk(&self.head, &known.collect::<Vec<_>>(), out);
        }
    }

    fn fail(&mut self, place: usize, error: &ApiError, out: &mut BytesMut) {
        if self.head.is_empty() {
            return note::bare_error(error, out);
        }
        let choice = Choice { text: "", index: place, logprobs: None, finish_reason: Some("error") };
        self.chunk(&choice, out, |out| {
            out.extend_from_slice(b",\"error\":");
            sse::json(out, &error.shown());
        });
    }
}

/// A whole answer, as it is collected.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) text: String,
    logprobs: Vec<TokenLogprob>,
    finish: Option<FinishReason>,
}

impl Text {
    /// An answer that begins with `echo`.
    pub(super) fn after(echo: String) -> Self {
        Text { text: echo, ..Text::default() }
    }

    /// Takes one step of the answer.
    pub(super) fn take(&mut self, progress: Progress) {
        match progress {
            Progress::Text { channel: Channel::ANSWER, text, logprobs, .. } => {
                self.text.push_str(&text);
                self.logprobs.extend(logprobs);
            }
            Progress::Usage(usage) => self.finish = Some(usage.finish),
            _ => {}
        }
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    choices: Vec<Choice<'a>>,
    usage: Usage,
    infernet: Note<'a>,
}

/// The JSON of a whole answer.
pub(super) fn whole(created: u64, texts: &[Text], known: &[&Known]) -> Vec<u8> {
    let choices = texts.iter().enumerate().map(|(index, text)| Choice {
        text: &text.text,
        index,
        logprobs: Logprobs::of(text.logprobs.clone(), 0),
        finish_reason: Some(text.finish.unwrap_or(FinishReason::STOP).label()),
    });
    let head = Head::of("cmpl", "text_completion", created, known);
    let whole = Whole { head, choices: choices.collect(), usage: Usage::of(known), infernet: Note::all(known) };
    serde_json::to_vec(&whole).unwrap_or_default()
}
