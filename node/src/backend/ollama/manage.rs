//! Ollama's models: `/api/tags`, `/api/ps` and `/api/show` to see them, `/api/pull` and `/api/delete` to change them.
//!
//! `/api/pull` streams one object per line. Errors come in the stream too, under HTTP 200. A download that was broken off goes on
//! where it stopped when it is asked for again: Ollama keeps the parts.

use super::{Details, Named, Ollama, Show, Tag, parse_size};
use crate::backend::{
    BackendError, BackendSpec,
    http::{self, Body},
    manage::{Installed, Manage, ManageError, PullStep, Steps},
    ndjson::LineBuffer,
    template_digest,
};
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self},
};
use infernet_wire::model_name;
use serde::Deserialize;
use serde_json::{Value, json};

/// A line of `/api/pull`.
#[derive(Deserialize)]
struct Line {
    error: Option<Value>,
    #[serde(default)]
    status: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    total: u64,
    #[serde(default)]
    completed: u64,
}

impl Ollama {
    async fn all(&self) -> Result<Vec<Installed>, ManageError> {
        let tags = self.tags().await?;
        let loaded = self.loaded().await?;
        let local = tags.models.into_iter().filter(Tag::is_local);
        Ok(local.map(|tag| tag.installed(|name| loaded.contains_key(name))).collect())
    }

    async fn one(&self, model: String) -> Result<Installed, ManageError> {
        let unknown = |error| self.unknown(&model, error);
        let show: Show = self.http.post("/api/show", &Named { model: &model }).await.map_err(unknown)?;
        let all = self.all().await?;
        let found = all.into_iter().find(|installed| model_name::same(&installed.name, &model));
        let mut installed = found.unwrap_or_else(|| Installed { name: model.clone(), ..Installed::default() });
        installed.parameters = show.parameter_count().unwrap_or(installed.parameters);
        (installed.weights, installed.template) = (show.weights(), template_digest(&show.template));
        installed.context = show.context_length().unwrap_or(installed.context);
        if !show.capabilities.is_empty() {
            installed.abilities = show.capabilities;
        }
        Ok(installed)
    }

    /// A 404 is about the model.
    fn unknown(&self, model: &str, error: BackendError) -> ManageError {
        match error {
            BackendError::Status { status: 404, .. } => ManageError::Unknown { engine: self.engine(), model: model.into() },
            other => other.into(),
        }
    }

    async fn fetch(&self, model: String) -> Result<Steps, ManageError> {
        let request = json!({ "model": model, "stream": true });
        let body = self.http.start("/api/pull", &request).await.map_err(|error| ManageError::of_pull(&model, error))?;
        let pull = Pull { body, lines: LineBuffer::default(), model, done: false };
        Ok(stream::try_unfold(Box::new(pull), Pull::next).boxed())
    }
}

impl Tag {
    fn installed(self, is_loaded: impl Fn(&str) -> bool) -> Installed {
        let Tag { name, size, details, capabilities, .. } = self;
        let Details { family, parameter_size, quantization_level, context_length } = details;
        Installed {
            loaded: Some(is_loaded(&name)),
            name,
            size,
            family,
            parameters: parse_size(&parameter_size),
            quantisation: quantization_level,
            context: context_length,
            abilities: capabilities,
            weights: None,
            template: None,
        }
    }
}

impl Manage for Ollama {
    fn spec(&self) -> &BackendSpec {
        self.http.spec()
    }

    fn can_change(&self) -> bool {
        true
    }

    fn installed(&self) -> BoxFuture<'_, Result<Vec<Installed>, ManageError>> {
        self.all().boxed()
    }

    fn show(&self, model: String) -> BoxFuture<'_, Result<Installed, ManageError>> {
        self.one(model).boxed()
    }

    fn pull(&self, model: String) -> BoxFuture<'_, Result<Steps, ManageError>> {
        self.fetch(model).boxed()
    }

    fn remove(&self, model: String) -> BoxFuture<'_, Result<(), ManageError>> {
        async move {
            let deleted = self.http.delete("/api/delete", &Named { model: &model }).await;
            deleted.map_err(|error| self.unknown(&model, error))
        }
        .boxed()
    }
}

/// A running download.
struct Pull {
    body: Body,
    lines: LineBuffer,
    model: String,
    done: bool,
}

impl Pull {
    async fn next(mut self: Box<Self>) -> Result<Option<(PullStep, Box<Self>)>, ManageError> {
        if self.done {
            return Ok(None);
        }
        let line: Result<Line, _> = self.body.read_json(&mut self.lines).await;
        let line = line.map_err(|error| ManageError::of_pull(&self.model, error))?;
        if let Some(error) = line.error {
            let said = http::error_text(&error).unwrap_or_else(|| "no reason given".into());
            return Err(ManageError::of_pull(&self.model, BackendError::Engine(said)));
        }
        let step = match line.status.as_str() {
            "success" => PullStep::Done,
            _ if !line.digest.is_empty() && line.total > 0 => {
                PullStep::Part { part: line.digest, total: line.total, completed: line.completed.min(line.total) }
            }
            _ => PullStep::Stage(http::clean(&line.status)),
        };
        self.done = step == PullStep::Done;
        Ok(Some((step, self)))
    }
}
