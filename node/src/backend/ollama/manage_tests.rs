//! Models of a real Ollama, by its recorded answers; its registry was out of reach when they were recorded.

use super::tests::{Recorded, listen};
use crate::backend::{
    BackendError, Deadlines,
    manage::{Manage, ManageError, PullStep, manage_with},
};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use std::time::Duration;

const TAGS: &str = include_str!("../../../tests/fixtures/ollama/api-tags.json");
const SHOW: &str = include_str!("../../../tests/fixtures/ollama/api-show.json");
const PS: &str = include_str!("../../../tests/fixtures/ollama/api-ps-loaded.json");
const UNKNOWN: &str = include_str!("../../../tests/fixtures/ollama/err-delete-unknown.json");
const UNPULLED: &str = include_str!("../../../tests/fixtures/ollama/err-pull-unknown.json");
/// Far above any honest run, so that a hang fails instead of lasting.
const PATIENCE: Duration = Duration::from_secs(30);

fn recorded(path: &str) -> Response {
    let fixture = match path {
        "/api/tags" => TAGS,
        "/api/show" => SHOW,
        "/api/ps" => PS,
        "/api/pull" => UNPULLED,
        _ => UNKNOWN,
    };
    Recorded::read(fixture).into_response()
}

async fn engine(script: impl Fn(&str) -> Response + Send + Sync + 'static) -> Box<dyn Manage> {
    let spec = listen(move |path, _| script(path)).await.parse().expect("a spec");
    let deadlines = Deadlines { connect: PATIENCE, describe: PATIENCE, first_byte: PATIENCE, between: PATIENCE };
    manage_with(&spec, deadlines).expect("a client")
}

/// Every step of a download, and how it failed.
async fn pulled(engine: &dyn Manage) -> (Vec<PullStep>, Option<ManageError>) {
    let mut steps = engine.pull("m".into()).await.expect("begins");
    let mut seen = Vec::new();
    while let Some(step) = steps.next().await {
        match step {
            Ok(step) => seen.push(step),
            Err(error) => return (seen, Some(error)),
        }
    }
    (seen, None)
}

#[tokio::test]
async fn its_models_are_told_with_size_and_whether_they_are_loaded() {
    let engine = engine(recorded).await;
    let all = engine.installed().await.expect("its models");
    let [model] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((model.name.as_str(), model.size, model.loaded), ("tiny-chat:latest", 1_657_988, Some(true)));
    assert_eq!((model.parameters, model.quantisation.as_str()), (820_000, "F16"));
    let shown = engine.show("tiny-chat".into()).await.expect("the model");
    assert_eq!((shown.size, shown.parameters, shown.context), (1_657_988, 820_352, 2_048));
    assert!(engine.engine().starts_with("ollama=http://127.0.0.1:"));
}

#[tokio::test]
async fn its_refusals_are_understood() {
    let engine = engine(recorded).await;
    let gone = engine.remove("nope".into()).await.expect_err("it never was");
    assert!(matches!(&gone, ManageError::Unknown { model, .. } if model == "nope"), "{gone:?}");
    let (steps, error) = pulled(&*engine).await;
    assert_eq!(steps, [PullStep::Stage("pulling manifest".into())]);
    let error = error.expect("its registry is away");
    assert!(matches!(&error, ManageError::Registry(said) if said.contains("no such host")), "{error:?}");
    assert!(!error.is_passing() && error.to_string().contains("check the network"));
}

#[tokio::test]
async fn a_download_is_over_only_when_the_engine_says_so() {
    let said = |body: &'static str| engine(move |_| body.into_response());
    let whole = "{\"status\":\"pulling a\",\"digest\":\"sha256:a\",\"total\":9,\"completed\":99}\n{\"status\":\"success\"}";
    let part = PullStep::Part { part: "sha256:a".into(), total: 9, completed: 9 };
    assert_eq!(pulled(&*said(whole).await).await, (vec![part, PullStep::Done], None));
    for cut in ["", "{\"status\":\"verifying\"}\n", "{\"status\":\"succ"] {
        let (steps, error) = pulled(&*said(cut).await).await;
        assert_eq!(error, Some(ManageError::Engine(BackendError::Truncated)), "{cut:?} {steps:?}");
    }
    let (_, error) = pulled(&*said("<html>\n").await).await;
    assert!(matches!(error, Some(ManageError::Engine(BackendError::Malformed { .. }))), "{error:?}");
}
