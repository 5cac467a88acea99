//! The first engine that answers, for operators who name none: looked for at the start, and again whenever it stops answering.
//!
//! One that answers is kept, whatever else comes up: models that change under a node's ad help nobody.

use super::{Backend, BackendError, BackendSpec, Chunk, Load, Model, Stage, Wanted};
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
    stream::BoxStream,
};
use infernet_wire::chat::ChatRequest;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

/// See the module.
pub(super) struct FirstOf {
    candidates: Vec<Arc<dyn Backend>>,
    /// How long one may take while others are asked too.
    patience: Duration,
    found: watch::Sender<Option<usize>>,
}

impl FirstOf {
    /// Looks for `candidates` in this order.
    pub(super) fn new(candidates: Vec<Arc<dyn Backend>>, patience: Duration) -> Self {
        FirstOf { candidates, patience, found: watch::Sender::new(None) }
    }

    fn current(&self) -> Option<&Arc<dyn Backend>> {
        self.candidates.get((*self.found.borrow())?)
    }

    /// The one that was found is asked alone; all at once if it fails, so that a place which hangs makes nobody wait for the
    /// others longer than for itself.
    async fn look(&self) -> Result<Vec<Model>, BackendError> {
        let found = *self.found.borrow();
        let mut failed = None;
        if let Some((index, current)) = found.and_then(|index| Some((index, self.candidates.get(index)?))) {
            match current.models().await {
                Ok(models) => return Ok(models),
                Err(error) => failed = Some((index, error)),
            }
            // Whoever asks may have no time left for the others; the next time they are asked first.
            self.found.send_replace(None);
        }
        let again = |index| failed.as_ref().filter(|(of, _)| *of == index).map(|(_, error)| error.clone());
        let late = BackendError::Timeout { stage: Stage::Describe, limit: self.patience };
        let asked = self.candidates.iter().enumerate().map(async |(index, candidate)| match again(index) {
            Some(error) => Err(error),
            None => timeout(self.patience, candidate.models()).await.unwrap_or_else(|_| Err(late.clone())),
        });
        let (mut refusals, mut others) = (Vec::new(), Vec::new());
        for (index, answer) in join_all(asked).await.into_iter().enumerate() {
            match answer {
                Ok(models) => {
                    self.found.send_replace(Some(index));
                    return Ok(models);
                }
                // Nobody listens there, or no engine.
                Err(BackendError::Unreachable { .. } | BackendError::Malformed { .. }) => {}
                // Several kinds look at one port, and each finds the same.
                Err(error @ BackendError::WrongEngine { .. }) => others.push(error.to_string()),
                Err(error) => refusals.extend(self.candidates.get(index).map(|one| format!("{}: {error}", one.name()))),
            }
        }
        others.dedup();
        refusals.extend(others);
        let at = self.candidates.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ");
        Err(BackendError::NoEngine { at, refusals })
    }
}

impl Backend for FirstOf {
    fn spec(&self) -> Option<BackendSpec> {
        self.current()?.spec()
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

    fn probe<'a>(&'a self, wanted: Wanted<'a>) -> BoxFuture<'a, bool> {
        match self.current() {
            Some(engine) => engine.probe(wanted),
            None => async { false }.boxed(),
        }
    }
}
