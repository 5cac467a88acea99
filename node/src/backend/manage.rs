//! Which models an engine keeps: to see, fetch and remove them, for its operator.
//!
//! Ollama can do it while it runs. The others serve what they were started with; asked to change that, they answer with the
//! command that does. Nothing here is reached by a peer: the engine is the operator's, and so is the name of the model.

use super::{Backend, BackendError, BackendKind, BackendSpec, Deadlines, connect_with, ollama};
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use infernet_wire::{id::Hash, model_name};
use std::time::Duration;

/// How long an engine may take over its models. A large file is checked for minutes without a word.
const DEADLINES: Deadlines = Deadlines {
    connect: Duration::from_secs(2),
    describe: Duration::from_secs(30),
    first_byte: Duration::from_secs(60),
    between: Duration::from_secs(600),
};

/// A model that an engine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    /// Its name there.
    pub name: String,
    /// Bytes on its disk, 0 if unknown.
    pub size: u64,
    /// Architecture family, such as `llama`; empty if unknown.
    pub family: String,
    /// Number of parameters, 0 if unknown.
    pub parameters: u64,
    /// Quantisation, such as `Q4_K_M`; empty if unknown.
    pub quantisation: String,
    /// The longest context that it was trained for, or that its engine keeps; 0 if unknown.
    pub context: u32,
    /// What it can do, in the engine's words.
    pub abilities: Vec<String>,
    /// Digests of its weights and of its chat template, as its ad tells them; `None` if the engine does not.
    pub weights: Option<Hash>,
    /// See `weights`.
    pub template: Option<Hash>,
    /// Whether it is in memory now; `None` if the engine does not tell.
    pub loaded: Option<bool>,
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullStep {
    /// What the engine does, in its words, such as `pulling manifest`.
    Stage(String),
    /// A part of the model.
    Part {
        /// Which, such as a digest.
        part: String,
        /// Its bytes.
        total: u64,
        /// Those that are there.
        completed: u64,
    },
    /// All is there. The last step.
    Done,
}

/// The steps of a download. Dropping it stops the download; what is there is kept by the engine.
pub type Steps = BoxStream<'static, Result<PullStep, ManageError>>;

/// An engine whose models can be looked at and changed.
pub trait Manage: Send + Sync {
    /// Where it is.
    fn spec(&self) -> &BackendSpec;

    /// The same, as it is written.
    fn engine(&self) -> String {
        self.spec().to_string()
    }

    /// Whether models can be fetched and removed while it runs.
    fn can_change(&self) -> bool;

    /// What it has, whether it could be sold or not.
    fn installed(&self) -> BoxFuture<'_, Result<Vec<Installed>, ManageError>>;

    /// One of them.
    fn show(&self, model: String) -> BoxFuture<'_, Result<Installed, ManageError>>;

    /// Fetches a model. What is there of it already is not fetched again.
    fn pull(&self, model: String) -> BoxFuture<'_, Result<Steps, ManageError>>;

    /// Removes a model from its disk.
    fn remove(&self, model: String) -> BoxFuture<'_, Result<(), ManageError>>;
}

/// Why an engine did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    /// It has no such model.
    #[error("{engine} has no model {model:?}; `infernet model list` shows what is there")]
    Unknown {
        /// The engine.
        engine: String,
        /// What was asked for.
        model: String,
    },
    /// This engine serves what it was started with.
    #[error("{engine} serves the model that it was started with: start it again with another one, as in `{start}`")]
    Fixed {
        /// The engine.
        engine: String,
        /// The command that starts it.
        start: &'static str,
    },
    /// Its registry has no such model.
    #[error("nobody publishes a model {model:?}: check its name and tag at https://ollama.com/library")]
    NotPublished {
        /// What was asked for.
        model: String,
    },
    /// It can't reach its registry.
    #[error("the engine can't reach its registry ({0}): check the network of the machine that it runs on")]
    Registry(String),
    /// Its disk is full.
    #[error("the engine's disk is full ({0}): remove a model with `infernet model remove`, or free some space")]
    DiskFull(String),
    /// Something else.
    #[error(transparent)]
    Engine(#[from] BackendError),
}

impl ManageError {
    /// Whether the same download may go on if it is asked for again, since only the way to the registry or the engine broke.
    pub fn is_passing(&self) -> bool {
        match self {
            ManageError::Registry(said) => !said.contains("no such host"),
            ManageError::Engine(error) => {
                matches!(error, BackendError::Unreachable { .. } | BackendError::Timeout { .. } | BackendError::Truncated)
            }
            _ => false,
        }
    }

    /// What an engine's error about the download of `model` means.
    pub(super) fn of_pull(model: &str, error: BackendError) -> Self {
        let said = match &error {
            BackendError::Engine(said) | BackendError::Status { message: said, .. } => said.clone(),
            _ => return error.into(),
        };
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if has(&["file does not exist", "manifest unknown", "invalid model name"]) {
            return ManageError::NotPublished { model: model.into() };
        }
        if has(&["no space left", "disk quota"]) {
            return ManageError::DiskFull(said);
        }
        let net =
            ["dial tcp", "no such host", "connection re", "i/o timeout", "EOF", "max retries", "TLS handshake", "unreachable"];
        if has(&net) { ManageError::Registry(said) } else { error.into() }
    }
}

/// The engine that `spec` names. It is not contacted yet.
pub fn manage(spec: &BackendSpec) -> Result<Box<dyn Manage>, BackendError> {
    manage_with(spec, DEADLINES)
}

/// As [`manage`], with other deadlines.
pub fn manage_with(spec: &BackendSpec, deadlines: Deadlines) -> Result<Box<dyn Manage>, BackendError> {
    if spec.kind == BackendKind::Ollama {
        return Ok(Box::new(ollama::Ollama::new(spec, deadlines)?));
    }
    Ok(Box::new(Fixed { backend: connect_with(spec, deadlines)?, spec: spec.clone(), start: spec.kind.facts().start }))
}

/// An engine that serves what it was started with.
struct Fixed {
    backend: Box<dyn Backend>,
    spec: BackendSpec,
    /// The command that starts it.
    start: &'static str,
}

impl Fixed {
    fn refusal(&self) -> ManageError {
        ManageError::Fixed { engine: self.engine(), start: self.start }
    }

    async fn all(&self) -> Result<Vec<Installed>, ManageError> {
        let models = self.backend.models().await?;
        Ok(models.into_iter().map(Installed::from).collect())
    }
}

impl From<super::Model> for Installed {
    fn from(model: super::Model) -> Self {
        let super::Model { id: name, family, parameters, quantisation, context, weights, template, .. } = model;
        Installed { name, family, parameters, quantisation, context, weights, template, ..Installed::default() }
    }
}

impl Manage for Fixed {
    fn spec(&self) -> &BackendSpec {
        &self.spec
    }

    fn can_change(&self) -> bool {
        false
    }

    fn installed(&self) -> BoxFuture<'_, Result<Vec<Installed>, ManageError>> {
        self.all().boxed()
    }

    fn show(&self, model: String) -> BoxFuture<'_, Result<Installed, ManageError>> {
        async move {
            let found = self.all().await?.into_iter().find(|installed| model_name::same(&installed.name, &model));
            found.ok_or_else(|| ManageError::Unknown { engine: self.engine(), model })
        }
        .boxed()
    }

    fn pull(&self, _: String) -> BoxFuture<'_, Result<Steps, ManageError>> {
        std::future::ready(Err(self.refusal())).boxed()
    }

    fn remove(&self, _: String) -> BoxFuture<'_, Result<(), ManageError>> {
        std::future::ready(Err(self.refusal())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Chunk, Model};
    use infernet_wire::chat::ChatRequest;

    struct Started;

    impl Backend for Started {
        fn spec(&self) -> Option<BackendSpec> {
            None
        }

        fn models(&self) -> BoxFuture<'_, Result<Vec<Model>, BackendError>> {
            std::future::ready(Ok(vec![Model { id: "qwen".into(), context: 4096, ..Model::default() }])).boxed()
        }

        fn chat(&self, _: ChatRequest) -> BoxFuture<'_, Result<BoxStream<'static, Result<Chunk, BackendError>>, BackendError>> {
            std::future::ready(Err(BackendError::Truncated)).boxed()
        }
    }

    #[tokio::test]
    async fn an_engine_with_one_model_shows_it_and_says_how_to_change_it() {
        let spec = "vllm=http://127.0.0.1:8000".parse().expect("a spec");
        let fixed = Fixed { backend: Box::new(Started), spec, start: BackendKind::Vllm.facts().start };
        let all = fixed.installed().await.expect("its models");
        assert_eq!((all.len(), all[0].name.as_str(), all[0].context, all[0].loaded), (1, "qwen", 4096, None));
        assert_eq!(fixed.show("qwen".into()).await.as_ref(), Ok(&all[0]));
        assert!(matches!(fixed.show("other".into()).await, Err(ManageError::Unknown { .. })));
        let refused = fixed.pull("other".into()).await.err().expect("refused").to_string();
        assert!(refused.contains("vllm=http://127.0.0.1:8000") && refused.contains("vllm serve MODEL"), "{refused}");
        assert!(fixed.remove("qwen".into()).await.is_err());
    }

    #[test]
    fn what_an_engine_says_of_a_download_is_understood() {
        let check = |said: &str, expected: &str, passing: bool| {
            let error = ManageError::of_pull("nope", BackendError::Engine(said.into()));
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.is_passing(), passing, "{error}");
        };
        check("pull model manifest: file does not exist", "nobody publishes a model \"nope\"", false);
        check("lookup registry.example on 192.0.2.53:53: no such host", "check the network", false);
        check("max retries exceeded: unexpected EOF", "check the network", true);
        check("write /models/blobs/x: no space left on device", "disk is full", false);
        check("something new", "something new", false);
        assert!(ManageError::of_pull("a", BackendError::Truncated).is_passing());
    }
}
