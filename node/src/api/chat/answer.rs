//! `POST /v1/chat/completions` out: token by token ([`Stream`]), or whole ([`whole`]).
//!
//! What is the same in every chunk of an answer is serialised once; a token costs one JSON string between two copies.

use super::super::{
    error::ApiError,
    job::Known,
    note::{self, Head, Note, Usage},
    sse::{self, Shape},
};
use crate::chat::client::Progress;
use bytes::BytesMut;
use infernet_wire::chat::{Alternative, Channel, FinishReason, TokenLogprob, ToolCall, ToolCallDelta};
use serde::Serialize;

/// Chunks of one request, all answers.
pub(super) struct Stream {
    created: u64,
    include_usage: bool,
    parallel: bool,
    /// `{"id":…,"object":…,"created":…,"model":…,"system_fingerprint":null,"choices":[`, once a job has opened.
    head: Vec<u8>,
    /// Whether an answer's role was told.
    begun: Vec<bool>,
}

impl Stream {
    pub(super) fn new(created: u64, choices: usize, include_usage: bool, parallel: bool) -> Self {
        Stream { created, include_usage, parallel, head: Vec::new(), begun: vec![false; choices] }
    }

    fn open(&mut self, known: &Known) {
        if self.head.is_empty() {
            self.head = Head::of("chatcmpl", "chat.completion.chunk", self.created, &[known]).open();
        }
    }

    /// One chunk: `delta` and `logprobs` as JSON, each written by its closure.
    fn chunk(
        &self,
        place: usize,
        out: &mut BytesMut,
        delta: impl FnOnce(&mut BytesMut),
        logprobs: &[TokenLogprob],
        finish: Option<&str>,
        tail: impl FnOnce(&mut BytesMut),
    ) {
        sse::event(out, |out| {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"{\"index\":");
            sse::json(out, &place);
            out.extend_from_slice(b",\"delta\":{");
            delta(out);
            out.extend_from_slice(b"},\"logprobs\":");
            sse::json(out, &Logprobs::of(logprobs));
            out.extend_from_slice(b",\"finish_reason\":");
            sse::json(out, &finish);
            out.extend_from_slice(b"}]");
            if self.include_usage {
                out.extend_from_slice(b",\"usage\":null");
            }
            tail(out);
            out.extend_from_slice(b"}");
        });
    }

    /// The role, before the first piece of an answer.
    fn begin(&mut self, place: usize, out: &mut BytesMut) {
        if let Some(begun) = self.begun.get_mut(place)
            && !std::mem::replace(begun, true)
        {
            let role = |out: &mut BytesMut| out.extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\"");
            self.chunk(place, out, role, &[], None, |_| {});
        }
    }

    fn text(&self, place: usize, channel: Channel, text: &str, logprobs: &[TokenLogprob], out: &mut BytesMut) {
        let key: &[u8] = if channel == Channel::REASONING { b"\"reasoning_content\":" } else { b"\"content\":" };
        let delta = |out: &mut BytesMut| {
            out.extend_from_slice(key);
            sse::json(out, text);
        };
        self.chunk(place, out, delta, logprobs, None, |_| {});
    }

    fn tool_call(&self, place: usize, call: &ToolCallDelta, out: &mut BytesMut) {
        let delta = |out: &mut BytesMut| {
            out.extend_from_slice(b"\"tool_calls\":[");
            sse::json(out, &CallPiece::of(call));
            out.extend_from_slice(b"]");
        };
        self.chunk(place, out, delta, &[], None, |_| {});
    }
}

impl Shape for Stream {
    fn write(&mut self, place: usize, progress: &Progress, known: &Known, out: &mut BytesMut) {
        match progress {
            Progress::Opened { .. } => self.open(known),
            Progress::Text { channel, text, logprobs, .. } => {
                self.begin(place, out);
                self.text(place, *channel, text, logprobs, out);
            }
            Progress::ToolCall(call) if self.parallel || call.index == 0 => {
                self.begin(place, out);
                self.tool_call(place, call, out);
            }
            Progress::ToolCall(_) | Progress::Embedding(_) | Progress::Resumed { .. } => {}
            Progress::Usage(usage) => {
                self.begin(place, out);
                // With a chunk for the usage the note goes there, once for all answers.
                let note = Note::of(known).filter(|_| !self.include_usage);
                let tail = |out: &mut BytesMut| {
                    if let Some(note) = note {
                        out.extend_from_slice(b",\"infernet\":");
                        sse::json(out, &note);
                    }
                };
                self.chunk(place, out, |_| {}, &[], Some(usage.finish.label()), tail);
            }
        }
    }

    fn end(&mut self, known: &mut dyn Iterator<Item = &Known>, out: &mut BytesMut) {
        if !self.include_usage {
            return;
        }
        let known: Vec<&Known> = known.collect();
        note::usage_chunk(&self.head, &known, out);
    }

    fn fail(&mut self, place: usize, error: &ApiError, out: &mut BytesMut) {
        if self.head.is_empty() {
            // Pings went out, and then no worker took the job.
            return note::bare_error(error, out);
        }
        let tail = |out: &mut BytesMut| {
            out.extend_from_slice(b",\"error\":");
            sse::json(out, &error.shown());
        };
        self.chunk(place, out, |_| {}, &[], Some("error"), tail);
    }
}

#[derive(Serialize)]
struct CallPiece<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'a str>,
    function: FunctionPiece<'a>,
}

#[derive(Serialize)]
struct FunctionPiece<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl<'a> CallPiece<'a> {
    fn of(call: &'a ToolCallDelta) -> Self {
        CallPiece {
            index: call.index,
            id: call.id.as_deref(),
            r#type: call.name.is_some().then_some("function"),
            function: FunctionPiece { name: call.name.as_deref(), arguments: &call.arguments },
        }
    }
}

#[derive(Serialize)]
struct Logprobs<'a> {
    content: Vec<Token<'a>>,
    refusal: Option<&'a str>,
}

#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
    logprob: f64,
    bytes: &'a [u8],
    top_logprobs: Vec<Other<'a>>,
}

#[derive(Serialize)]
struct Other<'a> {
    token: &'a str,
    logprob: f64,
    bytes: &'a [u8],
}

impl<'a> Logprobs<'a> {
    /// `None`, JSON's null, where there are none.
    fn of(tokens: &'a [TokenLogprob]) -> Option<Self> {
        let other =
            |Alternative { token, logprob }: &'a Alternative| Other { token, logprob: *logprob, bytes: token.as_bytes() };
        let token = |t: &'a TokenLogprob| Token {
            token: &t.token,
            logprob: t.logprob,
            bytes: t.token.as_bytes(),
            top_logprobs: t.top.iter().map(other).collect(),
        };
        (!tokens.is_empty()).then(|| Logprobs { content: tokens.iter().map(token).collect(), refusal: None })
    }
}

/// A whole answer, as it is collected.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
    logprobs: Vec<TokenLogprob>,
    finish: Option<FinishReason>,
}

impl Said {
    /// Takes one step of the answer.
    pub(super) fn take(&mut self, progress: Progress, parallel: bool) {
        match progress {
            Progress::Text { channel: Channel::REASONING, text, .. } => self.reasoning.push_str(&text),
            Progress::Text { text, logprobs, .. } => {
                self.text.push_str(&text);
                self.logprobs.extend(logprobs);
            }
            Progress::ToolCall(call) if parallel || call.index == 0 => self.take_call(call),
            Progress::Usage(usage) => self.finish = Some(usage.finish),
            Progress::ToolCall(_) | Progress::Embedding(_) | Progress::Opened { .. } | Progress::Resumed { .. } => {}
        }
    }

    fn take_call(&mut self, piece: ToolCallDelta) {
        match (&piece.name, self.calls.last_mut()) {
            (None, Some(call)) => call.arguments.push_str(&piece.arguments),
            _ => self.calls.push(ToolCall {
                id: piece.id.unwrap_or_default(),
                name: piece.name.unwrap_or_default(),
                arguments: piece.arguments,
            }),
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

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    /// Null where the model only called tools.
    content: Option<&'a str>,
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reasoning_content: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl<'a> Choice<'a> {
    fn of(index: usize, said: &'a Said) -> Self {
        let call = |call: &'a ToolCall| Call {
            id: &call.id,
            r#type: "function",
            function: Function { name: &call.name, arguments: &call.arguments },
        };
        let message = Message {
            role: "assistant",
            content: Some(said.text.as_str()).filter(|text| !text.is_empty() || said.calls.is_empty()),
            refusal: None,
            reasoning_content: &said.reasoning,
            tool_calls: said.calls.iter().map(call).collect(),
        };
        let finish_reason = said.finish.unwrap_or(FinishReason::STOP).label();
        Choice { index, message, logprobs: Logprobs::of(&said.logprobs), finish_reason }
    }
}

/// The JSON of a whole answer.
pub(super) fn whole(created: u64, said: &[Said], known: &[&Known]) -> Vec<u8> {
    let head = Head::of("chatcmpl", "chat.completion", created, known);
    let choices = said.iter().enumerate().map(|(index, said)| Choice::of(index, said)).collect();
    let whole = Whole { head, choices, usage: Usage::of(known), infernet: Note::all(known) };
    serde_json::to_vec(&whole).unwrap_or_default()
}
