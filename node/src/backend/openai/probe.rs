//! What a model shows it can do: a few tiny jobs, once for each model that is new and loaded.
//!
//! Engines take fields that they then ignore, so what counts is what comes back: a call, an object, probabilities, a vector. An
//! answer of a few tokens is enough for each. What fails for a reason that may pass is asked again, ever more rarely: what was
//! found until then is kept, and an engine that is always busy has a few more questions in an hour.
//!
//! **A started answer.** An engine that continues it ends its prompt with what was there; one that takes it for finished adds
//! the template's end of a message and the beginning of the next. The engine's own count of input tokens tells one from the
//! other, whatever the model says.

use super::{
    OpenAi,
    describe::{Described, Found},
};
use crate::{
    backend::{Backend, BackendError, Chunk, Model, Wanted, facts::Started},
    clock,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use infernet_wire::{
    capability::Abilities,
    chat::{Channel, ChatMessage, ChatRequest, ResponseFormat, Role, Task, Tool, ToolChoice},
};
use serde_bytes::ByteBuf;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

/// For one question: a few tokens of a model that is loaded, behind the jobs that it has.
const STEP: Duration = Duration::from_secs(20);
/// From the first try that fails to the next one: an engine that has just started is busy for about as long.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// Each wait is twice as long as the one before, up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// Tokens in which a forced call begins; its name comes first.
const CALL_TOKENS: u32 = 48;
/// Tokens in which an object begins, after the blanks that small models like.
const OBJECT_TOKENS: u32 = 8;
/// What it is asked.
const PROMPT: &str = "Tell me a story.";
/// How the answer starts.
const START: &str = "Once upon a time there was a small brown fox";
/// A grey square of 64 × 64: some models refuse smaller ones.
const IMAGE: &str = "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAKUlEQVR42u3MQREAAAwCIKMb3RD77SAA6VEEAoFAIBAIBAKBQCAQfA8G320AeXC6efoAAAAASUVORK5CYII=";

/// What a model has shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shown {
    /// As its engine told of it; another one of the same name has shown nothing.
    told: Model,
    abilities: Abilities,
    repeats: bool,
    tries: u32,
    /// When it is asked again; `None` if there is nothing more to find out.
    again: Option<Instant>,
}

/// What was found out at once.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Findings {
    abilities: Abilities,
    /// Whether it repeats a started answer before it goes on.
    repeats: bool,
}

impl Shown {
    /// Nothing yet.
    fn new(told: Model) -> Self {
        Shown { told, abilities: Abilities::default(), repeats: false, tries: 0, again: None }
    }

    /// A try is over at `now`, and `found` something; all of it, or it failed `early`. Whether the abilities are others now.
    fn learn(&mut self, found: Findings, early: bool, now: Instant) -> bool {
        let before = self.abilities;
        self.again = early.then(|| now + wait(self.tries));
        self.tries = self.tries.saturating_add(1);
        if early {
            self.abilities = before.with(found.abilities);
        } else {
            (self.abilities, self.repeats) = (found.abilities, found.repeats);
        }
        self.abilities != before
    }

    fn is_due(&self, now: Instant) -> bool {
        self.again.is_some_and(|again| again <= now)
    }

    /// Whether it repeats a started answer before it goes on.
    pub(super) fn repeats(&self) -> bool {
        self.repeats
    }

    /// `model` with what it has shown.
    pub(super) fn complete(&self, model: Model) -> Model {
        Model { abilities: model.abilities.with(self.abilities), ..model }
    }
}

impl Findings {
    fn add(&mut self, has: bool, ability: Abilities) {
        if has {
            self.abilities = self.abilities.with(ability);
        }
    }
}

impl Described {
    /// Whether the model that has `shown` something is still the same.
    pub(super) fn still_has(&self, id: &str, shown: &Shown) -> bool {
        self.models.iter().any(|found| found.model.id == id && found.model == shown.told)
    }
}

/// What came back.
#[derive(Default)]
struct Answered {
    text: String,
    logprobs: bool,
    called: bool,
    vector: bool,
    input: Option<u32>,
}

/// Why nothing did.
enum Silence {
    /// The engine does not do this.
    Refused,
    /// It may another time.
    NotNow(BackendError),
}

impl From<BackendError> for Silence {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Status { status, .. } if !matches!(status, 408 | 425 | 429 | 503) => Silence::Refused,
            BackendError::Engine(_) | BackendError::Malformed { .. } => Silence::Refused,
            error => Silence::NotNow(error),
        }
    }
}

impl OpenAi {
    /// Asks one `wanted` model that is new, or was busy. Whether its description has changed.
    pub(super) async fn probe_one(&self, wanted: Wanted<'_>) -> bool {
        let Some(model) = self.next_to_ask(wanted, clock::deadline(Duration::ZERO)) else { return false };
        let mut found = Findings::default();
        let asked = Probe { engine: self, model: model.id.clone() }.all(model.abilities, &mut found).await;
        if !self.described.borrow().models.iter().any(|found| found.loaded && found.model == model) {
            // What answered may have been another process than the one that is there now.
            return false;
        }
        let now = clock::deadline(Duration::ZERO);
        let (mut changed, mut tries) = (false, 0);
        self.shown.send_modify(|shown| {
            let entry = shown.entry(model.id.clone()).or_insert_with(|| Shown::new(model.clone()));
            tries = entry.tries;
            changed = entry.learn(found, asked.is_err(), now);
        });
        if let Err(error) = asked {
            self.tell(&model.id, tries, &error);
        }
        changed
    }

    /// The operator is told once: what is not known is not sold.
    fn tell(&self, model: &str, tries: u32, error: &BackendError) {
        let seconds = wait(tries).as_secs();
        if tries == 0 {
            warn!(
                model,
                "not all that the model can do is known yet, so it is not offered: {error}; asking again in {seconds} s"
            );
        } else {
            debug!(model, tries, "still not known what the model can do: {}; asking again in {seconds} s", error.label());
        }
    }

    fn next_to_ask(&self, wanted: Wanted<'_>, now: Instant) -> Option<Model> {
        let (described, shown) = (self.described.borrow(), self.shown.borrow());
        let is_due = |found: &Found| shown.get(&found.model.id).is_none_or(|shown| shown.is_due(now));
        let is_open = |found: &&Found| found.loaded && wanted(&found.model.id) && is_due(found);
        described.models.iter().find(is_open).map(|found| found.model.clone())
    }
}

/// From a try to the next one, after `tries` that failed before.
fn wait(tries: u32) -> Duration {
    FIRST_WAIT.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST_WAIT)
}

struct Probe<'a> {
    engine: &'a OpenAi,
    model: String,
}

impl Probe<'_> {
    /// Everything, in turn, up to the first step that fails; `found` has what was found until then. `told` is what need not be
    /// asked.
    async fn all(&self, told: Abilities, found: &mut Findings) -> Result<(), BackendError> {
        let vectors = self.try_to(ChatRequest { task: Task::EMBEDDINGS, ..self.request(1) }).await?;
        let embeds = vectors.is_some_and(|answered| answered.vector);
        found.add(embeds, Abilities::EMBEDDINGS);
        let with_logprobs = self.try_to(ChatRequest { logprobs: Some(1), ..self.request(1) }).await?;
        found.add(with_logprobs.as_ref().is_some_and(|answered| answered.logprobs), Abilities::LOGPROBS);
        let first = match with_logprobs {
            Some(answered) => Some(answered),
            None => self.try_to(self.request(1)).await?,
        };
        let Some(first) = first else {
            found.add(embeds, Abilities::EMBEDS_ONLY);
            return Ok(());
        };
        found.add(self.makes_objects().await?, Abilities::JSON_SCHEMA);
        found.add(true, self.calls_tools(told).await?);
        if !told.contains(Abilities::VISION) {
            found.add(self.sees(first.input).await?, Abilities::VISION);
        }
        let (continues, repeats) = self.continues(first.input).await?;
        found.add(continues, Abilities::CONTINUES_TEXT);
        found.repeats = repeats;
        Ok(())
    }

    fn request(&self, max_tokens: u32) -> ChatRequest {
        let messages = vec![ChatMessage::new(Role::User, PROMPT)];
        ChatRequest { temperature: Some(0.0), ..ChatRequest::new(self.model.clone(), messages, max_tokens) }
    }

    /// What comes back; `None` if the engine refuses.
    async fn try_to(&self, request: ChatRequest) -> Result<Option<Answered>, BackendError> {
        match self.ask(request).await {
            Ok(answered) => Ok(Some(answered)),
            Err(Silence::Refused) => Ok(None),
            Err(Silence::NotNow(error)) => Err(error),
        }
    }

    async fn ask(&self, request: ChatRequest) -> Result<Answered, Silence> {
        let late = BackendError::Timeout { stage: crate::backend::Stage::FirstByte, limit: STEP };
        timeout(STEP, self.hear(request)).await.map_err(|_| Silence::NotNow(late))?
    }

    async fn hear(&self, request: ChatRequest) -> Result<Answered, Silence> {
        let mut stream = self.engine.chat(request).await?;
        let mut answered = Answered::default();
        while let Some(chunk) = stream.next().await {
            match chunk? {
                Chunk::Text { channel, text, logprobs, .. } => {
                    answered.logprobs |= !logprobs.is_empty();
                    if channel == Channel::ANSWER {
                        answered.text.push_str(&text);
                    }
                }
                // Seen is enough; what follows is spared.
                Chunk::ToolCall { .. } => return Ok(Answered { called: true, ..answered }),
                Chunk::Embedding { vector, .. } => answered.vector |= !vector.is_empty(),
                Chunk::Done { input_tokens, .. } => answered.input = input_tokens,
            }
        }
        Ok(answered)
    }

    /// Whether it keeps to a schema: nobody tells a story in braces of his own. An engine that thinks first has taken the schema
    /// and shows nothing in so few tokens; those that can't keep to one refuse it.
    async fn makes_objects(&self) -> Result<bool, BackendError> {
        let schema = r#"{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"additionalProperties":false}"#;
        let format = Some(ResponseFormat::JsonSchema(schema.into()));
        let answered = self.try_to(ChatRequest { format, ..self.request(OBJECT_TOKENS) }).await?;
        Ok(answered.is_some_and(|answered| answered.text.trim_start().chars().next().is_none_or(|first| first == '{')))
    }

    async fn calls_tools(&self, told: Abilities) -> Result<Abilities, BackendError> {
        let tool = Tool {
            name: "tell_time".into(),
            description: "Tells the time.".into(),
            parameters: r#"{"type":"object","properties":{}}"#.into(),
        };
        let messages = vec![ChatMessage::new(Role::User, "What time is it? Call tell_time.")];
        let free = ChatRequest { messages, tools: vec![tool], ..self.request(CALL_TOKENS) };
        let forced = ChatRequest { tool_choice: Some(ToolChoice::Required), ..free.clone() };
        if self.try_to(forced).await?.is_some_and(|answered| answered.called) {
            return Ok(Abilities::TOOLS.with(Abilities::FORCED_TOOLS));
        }
        let calls = told.contains(Abilities::TOOLS) || self.try_to(free).await?.is_some_and(|answered| answered.called);
        Ok(if calls { Abilities::TOOLS } else { Abilities::default() })
    }

    /// Whether an image becomes input: an engine that drops it counts as many tokens as without.
    async fn sees(&self, without: Option<u32>) -> Result<bool, BackendError> {
        let image = STANDARD.decode(IMAGE).map(ByteBuf::from).unwrap_or_default();
        let message = ChatMessage { images: vec![image], ..ChatMessage::new(Role::User, PROMPT) };
        let answered = self.try_to(ChatRequest { messages: vec![message], ..self.request(1) }).await?;
        Ok(answered.and_then(|answered| answered.input).zip(without).is_some_and(|(with, without)| with > without))
    }

    /// Whether it goes on with a started answer, and whether it repeats that first.
    async fn continues(&self, without: Option<u32>) -> Result<(bool, bool), BackendError> {
        if self.engine.kind.facts().started != Started::Continues {
            return Ok((false, false));
        }
        let mut started = self.request(1);
        started.messages.push(ChatMessage::new(Role::Assistant, START));
        let raw =
            ChatRequest { messages: vec![ChatMessage::new(Role::User, START)], task: Task::COMPLETION, ..self.request(1) };
        let (Some(with), Some(raw)) = (self.try_to(started).await?, self.try_to(raw).await?) else {
            return Ok((false, false));
        };
        let counts = (without, with.input, raw.input);
        let continues = matches!(counts, (Some(without), Some(with), Some(start)) if adds_only(without, with, start));
        Ok((continues, with.text.starts_with(START)))
    }
}

/// Whether `with` is `without` and the `start`, of which the count may include a first token of its own, and nothing of a
/// template.
fn adds_only(without: u32, with: u32, start: u32) -> bool {
    let added = with.saturating_sub(without);
    (start.saturating_sub(2)..=start.saturating_add(1)).contains(&added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_around_the_start_shows_in_the_count() {
        // Recorded: 17 tokens, 24 with seven more. A closed message adds its end, a line feed, and the next one's head.
        assert!(adds_only(17, 24, 7));
        assert!(adds_only(17, 24, 8), "the start's count has a first token");
        assert!(!adds_only(17, 28, 7));
        assert!(!adds_only(17, 17, 7), "it was dropped");
    }

    #[test]
    fn a_busy_model_is_asked_ever_more_rarely_and_never_for_the_last_time() {
        let (mut shown, mut now) = (Shown::new(Model::default()), clock::deadline(Duration::ZERO));
        let vectors = Findings { abilities: Abilities::EMBEDDINGS, repeats: false };
        let mut waits = Vec::new();
        for n in 0..9 {
            let found = if n == 0 { vectors } else { Findings::default() };
            assert_eq!(shown.learn(found, true, now), n == 0, "what was found is kept");
            let again = shown.again.expect("it is asked again");
            assert!(!shown.is_due(again - Duration::from_millis(1)) && shown.is_due(again));
            waits.push((again - now).as_secs() / 60);
            now = again;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(shown.abilities, Abilities::EMBEDDINGS);
        let all = Findings { abilities: Abilities::TOOLS, repeats: true };
        assert!(shown.learn(all, false, now), "what it shows in the end is what counts");
        assert_eq!((shown.abilities, shown.repeats, shown.again), (Abilities::TOOLS, true, None));
    }
}
