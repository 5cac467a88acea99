//! vLLM, SGLang, Modular MAX and llama.cpp, by OpenAI's dialect: `/v1/models` to describe, `/v1/chat/completions`,
//! `/v1/completions` and `/v1/embeddings` to answer.
//!
//! | file | idea |
//! |---|---|
//! | `describe` | which engine answers, and its models |
//! | `call` | a request in its words |
//! | `sse` | bytes to events |
//! | `answer` | events to chunks |
//! | `stops` | an answer cut at its stop sequences |
//! | `probe` | what a model shows it can do |
//! | `load` | how much the engine has to do |
//!
//! What is different between the engines is in [`facts`](super::facts), never here.
//!
//! **Who answers.** Two of them share a port, so an engine is known by what it says of itself. If that is not what the operator
//! configured, the error says what to write instead; guessing on would send one engine's fields to another.
//!
//! **Tokens.** One more with each piece of text, or as many as the engine counts in the chunk (`usage`, `token_ids`), and never
//! more than the bytes so far. Modular MAX, when it is busy, sends several tokens in a chunk and does not say so, which then count
//! as one.
//!
//! **The end token** has no text. Where the engine's own usage counts it, the worker counts it too, in a last frame without text
//! (`chat::session`), so that an answer that ends by itself costs what the engine says it took.

mod answer;
mod call;
mod describe;
#[cfg(any(test, fuzzing))]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a fuzzer's checks panic")]
pub(crate) mod fuzz;
mod load;
mod probe;
mod sse;
mod stops;
#[cfg(test)]
mod tests;

pub(super) use describe::{LLAMA_SWAP, who};

use self::{
    answer::{Answer, Said},
    call::{Call, EmbedCall},
    describe::{Described, Flavour},
    probe::Shown,
};
use super::{Backend, BackendError, BackendSpec, Chunk, Deadlines, Load, Model, Wanted, facts::BackendKind, http::Http};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use infernet_wire::chat::{ChatRequest, FinishReason, Role, Task};
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio::sync::watch;

/// An engine that speaks OpenAI's dialect.
pub(super) struct OpenAi {
    http: Http,
    kind: BackendKind,
    /// What it said of itself last.
    described: watch::Sender<Described>,
    /// What its models have shown.
    shown: watch::Sender<BTreeMap<String, Shown>>,
}

#[derive(Deserialize)]
struct Embedded {
    data: Vec<Vector>,
    usage: Option<EmbeddedUsage>,
}

#[derive(Deserialize)]
struct Vector {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct EmbeddedUsage {
    prompt_tokens: Option<u32>,
}

impl OpenAi {
    pub(super) fn new(spec: &BackendSpec, deadlines: Deadlines) -> Result<Self, BackendError> {
        let http = Http::new(spec, deadlines)?;
        let (described, shown) = (watch::Sender::new(Described::default()), watch::Sender::new(BTreeMap::new()));
        Ok(OpenAi { http, kind: spec.kind, described, shown })
    }

    /// Its models, with what they have shown. What stopped, or is another engine now, may be another one when it answers again,
    /// so what its models had shown is forgotten; one that is only slow or busy is still itself.
    async fn describe(&self) -> Result<Vec<Model>, BackendError> {
        let before = self.described.borrow().clone();
        match describe::describe(&self.http, self.kind, &before).await {
            Err(error) => {
                use BackendError::{Malformed, Unreachable, WrongEngine};
                if matches!(error, Unreachable { .. } | WrongEngine { .. } | Malformed { .. }) {
                    self.shown.send_replace(BTreeMap::new());
                    // Nor is it asked anything until it has said again what it is.
                    self.described.send_modify(|described| described.models.iter_mut().for_each(|found| found.loaded = false));
                }
                Err(error)
            }
            Ok(described) => {
                self.shown.send_modify(|shown| shown.retain(|id, shown| described.still_has(id, shown)));
                let models = described.models.iter().map(|found| found.model.clone());
                let shown = self.shown.borrow();
                let models = models.map(|model| match shown.get(&model.id) {
                    Some(shown) => shown.complete(model),
                    None => model,
                });
                let models = models.collect();
                drop(shown);
                self.described.send_replace(described);
                Ok(models)
            }
        }
    }

    async fn answer(&self, request: &ChatRequest) -> Result<Answer, BackendError> {
        let call = match request.task {
            Task::COMPLETION => Call::completion(request, self.kind.facts()),
            _ => Call::chat(request, self.kind.facts()),
        };
        let body = self.http.start(call.path(), &call).await?;
        let expected = self.described.borrow().names_of(&request.model);
        // llama-server repeats it in one version and not in another, so that is found out. Whether the model just says the same
        // again can't be seen from one answer.
        let repeats = self.shown.borrow().get(&request.model).is_some_and(Shown::repeats);
        let started = started(request).filter(|_| repeats);
        let stops = if self.kind.facts().streams_past_stops { &request.stop[..] } else { &[] };
        Ok(Answer::new(body, Said::new(expected, started, request.logprobs).cut_at(stops)))
    }

    /// The vectors come all at once, in any order.
    async fn embed(&self, request: &ChatRequest) -> Result<Vec<Result<Chunk, BackendError>>, BackendError> {
        let Embedded { mut data, usage } = self.http.ask("/v1/embeddings", &EmbedCall::new(request)).await?;
        data.sort_by_key(|vector| vector.index);
        if !data.iter().map(|vector| vector.index).eq(0..request.messages.len()) {
            return Err(BackendError::Truncated);
        }
        let input_tokens = usage.and_then(|usage| usage.prompt_tokens);
        let done = Chunk::Done { input_tokens, output_tokens: Some(0), finish: FinishReason::STOP };
        let vectors = (0..).zip(data).map(|(index, vector)| Chunk::Embedding { index, vector: vector.embedding });
        Ok(vectors.chain([done]).map(Ok).collect())
    }

    fn flavour(&self) -> Flavour {
        self.described.borrow().flavour
    }
}

/// The beginning of the answer that the request gives, if it gives one.
fn started(request: &ChatRequest) -> Option<String> {
    let last = request.messages.last().filter(|_| request.task == Task::CHAT)?;
    let is_start = last.role == Role::Assistant && last.tool_calls.is_empty() && !last.content.is_empty();
    is_start.then(|| last.content.clone())
}

impl Backend for OpenAi {
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
            if request.task == Task::EMBEDDINGS {
                return Ok(stream::iter(self.embed(&request).await?).boxed());
            }
            let answer = self.answer(&request).await?;
            // In a box, since each token moves it.
            Ok(stream::try_unfold(Box::new(answer), Answer::next).boxed())
        }
        .boxed()
    }

    fn load(&self) -> BoxFuture<'_, Option<Load>> {
        load::load(&self.http, self.kind.facts(), self.flavour()).boxed()
    }

    fn probe<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, bool> {
        self.probe_one(wanted).boxed()
    }
}
