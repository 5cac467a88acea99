//! The first engine that answers, for operators who name none: looked for at the start, and again whenever it stops answering.
//!
//! One that answers is kept, whatever else comes up: models that change under a node's ad help nobody.

use super::{Backend, BackendError, Chunk, Load, Model};
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use infernet_wire::chat::ChatRequest;
use std::sync::Arc;
use tokio::sync::watch;

/// See the module.
pub(super) struct FirstOf {
    candidates: Vec<Arc<dyn Backend>>,
    found: watch::Sender<Option<usize>>,
}

impl FirstOf {
    /// Looks for `candidates` in this order.
    pub(super) fn new(candidates: Vec<Arc<dyn Backend>>) -> Self {
        FirstOf { candidates, found: watch::Sender::new(None) }
    }

    fn current(&self) -> Option<&Arc<dyn Backend>> {
        self.candidates.get((*self.found.borrow())?)
    }

    async fn look(&self) -> Result<Vec<Model>, BackendError> {
        if let Some(current) = self.current().cloned()
            && let Ok(models) = current.models().await
        {
            return Ok(models);
        }
        let mut refusals = Vec::new();
        for (index, candidate) in self.candidates.iter().enumerate() {
            match candidate.models().await {
                Ok(models) => {
                    self.found.send_replace(Some(index));
                    return Ok(models);
                }
                // Nobody listens there, or somebody else.
                Err(BackendError::Unreachable { .. } | BackendError::Malformed { .. } | BackendError::WrongEngine { .. }) => {}
                Err(error) => refusals.push(format!("{}: {error}", candidate.kind())),
            }
        }
        self.found.send_replace(None);
        let at = self.candidates.iter().map(|one| format!("{} at {}", one.kind(), one.url())).collect::<Vec<_>>().join(", ");
        Err(BackendError::NoEngine { at, refusals })
    }
}

impl Backend for FirstOf {
    fn kind(&self) -> &'static str {
        self.current().map_or("any engine", |engine| engine.kind())
    }

    fn url(&self) -> String {
        self.current().map_or_else(|| "its usual address".into(), |engine| engine.url())
    }

    fn models(&self) -> BoxFuture<'_, Result<Vec<Model>, BackendError>> {
        self.look().boxed()
    }

    fn chat(
        &self,
        request: ChatRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Chunk, BackendError>>, BackendError>> {
        match self.current() {
            Some(engine) => engine.chat(request),
            None => async { Err(BackendError::NoEngine { at: "its usual address".into(), refusals: Vec::new() }) }.boxed(),
        }
    }

    fn load(&self) -> BoxFuture<'_, Option<Load>> {
        match self.current() {
            Some(engine) => engine.load(),
            None => async { None }.boxed(),
        }
    }

    fn probe(&self) -> BoxFuture<'_, bool> {
        match self.current() {
            Some(engine) => engine.probe(),
            None => async { false }.boxed(),
        }
    }
}
