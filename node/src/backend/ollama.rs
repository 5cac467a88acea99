//! Ollama, by its own API: `/api/tags`, `/api/show`, `/api/ps` and `/api/version` to describe, `/api/chat` to answer, one JSON
//! object per line; see [`call`] for the rest.
//!
//! **Tokens.** While it runs Ollama sends one object per token, sometimes one for several, and no count; so the running count
//! is the number of content pieces so far. The final object has the true counts (`prompt_eval_count`, `eval_count`).
//!
//! **Context.** A model's own `context_length` is not what Ollama keeps: it is the loaded model's (`/api/ps`), else the
//! `num_ctx` that its Modelfile sets, else a default that depends on the machine. What does not fit Ollama silently cuts off
//! at the front, so we advertise what is certain, and ask for an error instead (`truncate: false`, `shift: false`; versions
//! that do not know these ignore them).
//!
//! Cloud models (`remote_host`) are never listed: their prompts would leave this machine for a company's.
//!
//! What `/api/show` says is remembered ([`known`]), so that only models that are new or changed are asked about.

mod call;
mod known;
mod manage;

use self::{
    call::{Call, EmbedCall},
    known::{Can, Facts, Known, Seen},
};
use super::{
    Backend, BackendError, BackendKind, Chunk, Deadlines, MAX_MODELS, Model, Stage,
    http::{self, Body, Http},
    is_name,
    logprob::Logprob,
    name_or_empty,
    ndjson::LineBuffer,
    openai,
    spec::BackendSpec,
};
use crate::clock;
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use infernet_wire::{
    capability::Abilities,
    chat::{Channel, ChatRequest, FinishReason, Task, TokenLogprob},
    id::Hash,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// Ollama's default context where neither the Modelfile nor a loaded model says otherwise: 4096 on machines with little
/// memory, more on others. The least is the one that holds everywhere.
const UNDECLARED_CONTEXT: u32 = 4096;

/// The first version that tells log probabilities. Development builds call themselves 0.0.0 and are newer than all.
const LOGPROBS_SINCE: (u32, u32, u32) = (0, 12, 11);

/// An Ollama server.
#[derive(Debug, Clone)]
pub(super) struct Ollama {
    http: Http,
    /// How long a poll may take, with what it asks about models that are not known yet.
    limit: Duration,
    known: watch::Sender<Known>,
    /// The version that it told last.
    version: watch::Sender<Version>,
}

impl Ollama {
    /// What one question may take is left for a whole poll: it ends in time, and the next one goes on with models that are new.
    pub(super) fn new(spec: &BackendSpec, deadlines: Deadlines) -> Result<Self, BackendError> {
        let (http, known) = (Http::new(spec, deadlines)?, watch::Sender::new(Known::default()));
        Ok(Ollama { http, limit: deadlines.describe, known, version: watch::Sender::new(Version::default()) })
    }

    /// The models that are known by now.
    async fn describe(&self) -> Result<Vec<Model>, BackendError> {
        let until = clock::deadline(self.limit);
        let Tags { models: mut tags, .. } = self.tags().await?;
        tags.retain(|tag| tag.is_local() && is_name(&tag.name));
        tags.truncate(MAX_MODELS);
        let loaded = self.loaded().await?;
        let version: Version = optional(self.http.get("/api/version").await)?;
        if !version.version.is_empty() {
            self.version.send_replace(version);
        }
        // An error that passes makes it no other.
        let version = self.version.borrow().clone();
        let bad = self.learn(&tags, &version, until).await?;
        let (known, everywhere) = (self.known.borrow(), version.abilities());
        let told: Vec<_> = tags.iter().filter_map(|tag| Some((tag, known.facts(&tag.name)?))).collect();
        if told.is_empty() && !tags.is_empty() {
            return Err(bad.unwrap_or(BackendError::Timeout { stage: Stage::Describe, limit: self.limit }));
        }
        let context = |tag: &Tag| loaded.get(&tag.name).copied().flatten();
        Ok(told.into_iter().filter_map(|(tag, facts)| tag.model(facts, context(tag), everywhere)).collect())
    }

    /// Asks about models of `tags` that are not known, as long as there is time. Each answer is kept at once, so this may be
    /// dropped at any time. An answer that makes no sense is that model's alone; one of them is returned.
    async fn learn(&self, tags: &[Tag], version: &Version, until: Instant) -> Result<Option<BackendError>, BackendError> {
        let seen: Vec<(&str, Seen)> = tags.iter().map(|tag| (&*tag.name, tag.seen(version))).collect();
        let mut open = Vec::new();
        self.known.send_modify(|known| open = known.open(&seen));
        let asking = async {
            let mut bad = None;
            for name in open {
                self.known.send_modify(|known| known.asked(&name));
                match self.http.post::<Show>("/api/show", &Named { model: &name }).await {
                    Ok(show) => self.known.send_modify(|known| known.told(&name, show.into())),
                    Err(BackendError::Status { .. }) => self.known.send_modify(|known| known.refused(&name)),
                    Err(BackendError::Timeout { .. }) => {}
                    Err(error @ (BackendError::Malformed { .. } | BackendError::TooLarge { .. })) => bad = Some(error),
                    Err(error) => return Err(error),
                }
            }
            Ok(bad)
        };
        timeout_at(until, asking).await.unwrap_or(Ok(None))
    }

    /// Its models. llama-server has this path too, and says there what it is; others lack it.
    async fn tags(&self) -> Result<Tags, BackendError> {
        match self.http.get::<Tags>("/api/tags").await {
            Ok(Tags { data: Some(_), .. }) | Err(BackendError::Status { status: 404, .. } | BackendError::Malformed { .. }) => {
                let who = openai::who(&self.http).await.filter(|kind| *kind != BackendKind::Ollama);
                Err(who.map_or_else(|| self.http.malformed(), |found| self.http.is_another(found)))
            }
            told => told,
        }
    }

    /// The models that are in memory now, each with its context; older versions don't tell that.
    async fn loaded(&self) -> Result<BTreeMap<String, Option<u32>>, BackendError> {
        let running: Running = optional(self.http.get("/api/ps").await)?;
        let context = |model: &Loaded| Some(model.context_length).filter(|length| *length > 0);
        Ok(running.models.into_iter().map(|model| (model.name.clone(), context(&model))).collect())
    }

    async fn answer(&self, call: Call<'_>) -> Result<Answer, BackendError> {
        let body = self.http.start(call.path(), &call).await?;
        Ok(Answer { body, lines: LineBuffer::default(), said: Said::default() })
    }

    /// The vectors come all at once.
    async fn embed(&self, request: &ChatRequest) -> Result<Vec<Result<Chunk, BackendError>>, BackendError> {
        let Embedded { embeddings, prompt_eval_count } = self.http.ask("/api/embed", &EmbedCall::new(request)).await?;
        if embeddings.len() != request.messages.len() {
            return Err(BackendError::Truncated);
        }
        let done = Chunk::Done { input_tokens: prompt_eval_count, output_tokens: Some(0), finish: FinishReason::STOP };
        let vectors = (0..).zip(embeddings).map(|(index, vector)| Chunk::Embedding { index, vector });
        Ok(vectors.chain([done]).map(Ok).collect())
    }
}

impl Backend for Ollama {
    fn spec(&self) -> Option<BackendSpec> {
        Some(self.http.spec().clone())
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<Model>, BackendError>> {
        self.describe().boxed()
    }

    fn chat(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Chunk, BackendError>>, BackendError>> {
        async move {
            let call = match request.task {
                Task::EMBEDDINGS => return Ok(stream::iter(self.embed(&request).await?).boxed()),
                Task::COMPLETION => Call::completion(&request),
                _ => Call::chat(&request),
            };
            let answer = self.answer(call).await?;
            // In a box, since each token moves it.
            Ok(stream::try_unfold(Box::new(answer), Answer::next).boxed())
        }
        .boxed()
    }
}

/// What an older Ollama, or one whose model was just deleted, does not tell is simply unknown.
fn optional<T: Default>(told: Result<T, BackendError>) -> Result<T, BackendError> {
    match told {
        Err(BackendError::Status { .. }) => Ok(T::default()),
        other => other,
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Version {
    version: String,
}

impl Version {
    /// What every model can do here.
    fn abilities(&self) -> Abilities {
        let mut numbers = self.version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let version = (next(), next(), next());
        let known = !self.version.is_empty();
        let logprobs = known && (version == (0, 0, 0) || version >= LOGPROBS_SINCE);
        // `format` with a schema came in 0.5.0, before versions of 2025.
        let schema = known && (version == (0, 0, 0) || version >= (0, 5, 0));
        let pick = |has: bool, ability| if has { ability } else { Abilities::default() };
        pick(logprobs, Abilities::LOGPROBS).with(pick(schema, Abilities::JSON_SCHEMA))
    }
}

#[derive(Deserialize)]
struct Embedded {
    embeddings: Vec<Vec<f32>>,
    prompt_eval_count: Option<u32>,
}

#[derive(Serialize)]
struct Named<'a> {
    model: &'a str,
}

#[derive(Deserialize)]
struct Tags {
    models: Vec<Tag>,
    /// Only in OpenAI's list.
    data: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    modified_at: String,
    #[serde(default)]
    details: Details,
    #[serde(default)]
    capabilities: Vec<String>,
    #[serde(default)]
    remote_host: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    family: String,
    parameter_size: String,
    quantization_level: String,
    context_length: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Show {
    modelfile: String,
    parameters: String,
    template: String,
    model_info: Map<String, Value>,
    capabilities: Vec<String>,
    remote_host: String,
}

#[derive(Default, Deserialize)]
struct Running {
    models: Vec<Loaded>,
}

#[derive(Deserialize)]
struct Loaded {
    name: String,
    #[serde(default)]
    context_length: u32,
}

impl Tag {
    fn is_local(&self) -> bool {
        self.remote_host.is_empty()
    }

    /// The model, or `None` if it can neither chat nor embed here.
    fn model(&self, facts: &Facts, loaded_context: Option<u32>, everywhere: Abilities) -> Option<Model> {
        let can = facts.can.or_else(|| Can::of(&self.capabilities));
        let (chats, embeds) = (can.is_none_or(|can| can.chats), can.is_some_and(|can| can.embeds));
        let everywhere = if chats { everywhere } else { Abilities::EMBEDS_ONLY };
        ((chats || embeds) && !facts.is_remote).then(|| Model {
            id: self.name.clone(),
            aliases: Vec::new(),
            family: name_or_empty(&self.details.family),
            parameters: facts.parameters.unwrap_or_else(|| parse_size(&self.details.parameter_size)),
            quantisation: name_or_empty(&self.details.quantization_level),
            context: self.context(facts, loaded_context),
            weights: facts.weights,
            template: facts.template,
            abilities: can.map_or(everywhere, |can| everywhere.with(can.abilities)),
        })
    }

    fn context(&self, facts: &Facts, loaded: Option<u32>) -> u32 {
        let kept = loaded.or(facts.num_ctx).unwrap_or(UNDECLARED_CONTEXT);
        match facts.trained.unwrap_or(self.details.context_length) {
            0 => kept,
            trained => kept.min(trained),
        }
    }
}

impl Show {
    fn parameter_count(&self) -> Option<u64> {
        self.model_info.get("general.parameter_count")?.as_u64()
    }

    /// What the model was trained for: `<architecture>.context_length`.
    fn context_length(&self) -> Option<u32> {
        let architecture = self.model_info.get("general.architecture")?.as_str()?;
        let length = self.model_info.get(&format!("{architecture}.context_length"))?.as_u64()?;
        Some(u32::try_from(length).unwrap_or(u32::MAX))
    }

    /// The Modelfile's `PARAMETER num_ctx`.
    fn num_ctx(&self) -> Option<u32> {
        let line = self.parameters.lines().find_map(|line| line.trim_start().strip_prefix("num_ctx"))?;
        line.trim().parse().ok()
    }

    /// The digest in the Modelfile's `FROM …/blobs/sha256-…`: that of the weights file, equal wherever the same file is served.
    fn weights(&self) -> Option<Hash> {
        let from = self.modelfile.lines().find_map(|line| line.strip_prefix("FROM "))?;
        from.trim().rsplit_once("sha256-")?.1.parse().ok()
    }
}

fn ability(capability: &str) -> Abilities {
    match capability {
        "tools" => Abilities::TOOLS,
        "vision" => Abilities::VISION,
        "embedding" => Abilities::EMBEDDINGS,
        _ => Abilities::default(),
    }
}

/// `820K`, `8.0B`; 0 if it is something else.
fn parse_size(text: &str) -> u64 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let unit: u64 = match text.get(digits.len()..) {
        Some("K") => 1_000,
        Some("M") => 1_000_000,
        Some("B") => 1_000_000_000,
        Some("T") => 1_000_000_000_000,
        _ => 1,
    };
    let tenth = fraction.get(..1).and_then(|digit| digit.parse::<u64>().ok()).unwrap_or(0);
    whole.parse::<u64>().map_or(0, |whole| whole.saturating_mul(unit).saturating_add(tenth * (unit / 10)))
}

#[derive(Deserialize)]
struct Line {
    error: Option<Value>,
    message: Option<Message>,
    /// Of `/api/generate`.
    #[serde(default)]
    response: String,
    #[serde(default)]
    logprobs: Vec<Logprob>,
    #[serde(default)]
    done: bool,
    done_reason: Option<String>,
    prompt_eval_count: Option<u32>,
    eval_count: Option<u32>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: String,
    #[serde(default)]
    thinking: String,
    #[serde(default)]
    tool_calls: Vec<Called>,
}

#[derive(Deserialize)]
struct Called {
    #[serde(default)]
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// A running answer.
struct Answer {
    body: Body,
    lines: LineBuffer,
    said: Said,
}

/// What an answer's lines have said so far.
#[derive(Default)]
struct Said {
    pending: VecDeque<Chunk>,
    tokens: u32,
    calls: u32,
    done: bool,
}

impl Answer {
    async fn next(mut self: Box<Self>) -> Result<Option<(Chunk, Box<Self>)>, BackendError> {
        while self.said.pending.is_empty() && !self.said.done {
            let line: Line = self.body.read_json(&mut self.lines).await?;
            self.said.absorb(line)?;
        }
        Ok(self.said.pending.pop_front().map(|chunk| (chunk, self)))
    }
}

impl Said {
    fn absorb(&mut self, line: Line) -> Result<(), BackendError> {
        if let Some(error) = line.error {
            return Err(BackendError::Engine(http::error_text(&error).unwrap_or_else(|| "no reason given".into())));
        }
        let mut logprobs: Vec<TokenLogprob> = line.logprobs.into_iter().map(TokenLogprob::from).collect();
        if let Some(message) = line.message {
            self.text(Channel::REASONING, message.thinking, &mut logprobs);
            self.text(Channel::ANSWER, message.content, &mut logprobs);
            message.tool_calls.into_iter().for_each(|call| self.tool_call(call));
        }
        self.text(Channel::ANSWER, line.response, &mut logprobs);
        if line.done {
            self.done = true;
            self.pending.push_back(Chunk::Done {
                input_tokens: line.prompt_eval_count,
                output_tokens: line.eval_count,
                finish: match line.done_reason.as_deref() {
                    Some("length") => FinishReason::LENGTH,
                    _ if self.calls > 0 => FinishReason::TOOL_CALLS,
                    _ => FinishReason::STOP,
                },
            });
        }
        Ok(())
    }

    /// Ollama tells a call when it is whole. Older versions give it no id, which the conversation needs later.
    fn tool_call(&mut self, call: Called) {
        let Called { id, function: Function { name, arguments } } = call;
        let id = if id.is_empty() { format!("call_{}", hex::encode(clock::random::<12>())) } else { id };
        self.tokens = self.tokens.saturating_add(1);
        let arguments = Value::Object(arguments).to_string();
        let (index, tokens) = (self.calls, self.tokens);
        self.pending.push_back(Chunk::ToolCall { index, id: Some(id), name: Some(name), arguments, tokens });
        self.calls = self.calls.saturating_add(1);
    }

    /// The first text of a line takes the line's probabilities.
    fn text(&mut self, channel: Channel, text: String, logprobs: &mut Vec<TokenLogprob>) {
        if !text.is_empty() {
            let logprobs = std::mem::take(logprobs);
            self.tokens = self.tokens.saturating_add(1);
            self.pending.push_back(Chunk::Text { channel, text, tokens: self.tokens, logprobs });
        }
    }
}

#[cfg(test)]
mod abilities_tests;
#[cfg(any(test, fuzzing))]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a fuzzer's checks panic")]
pub(crate) mod fuzz;
#[cfg(test)]
mod manage_tests;
#[cfg(test)]
mod many_tests;
#[cfg(test)]
mod tests;
