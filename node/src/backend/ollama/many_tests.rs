//! An Ollama with as many models as an ad holds, which is slow to tell of each.

use super::tests::{PATIENCE, impatient};
use super::*;
use axum::{Json, Router, extract::State, routing::post};
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio::{net::TcpListener, sync::Semaphore};

const MODELS: usize = 64;
/// Models that it tells of before it gets stuck.
const FEW: usize = 10;

/// What it has, and what it was asked.
struct Slow {
    /// By model: its digest.
    digests: Mutex<Vec<usize>>,
    /// Answers that it may give.
    answers: Semaphore,
    /// Models that it has told of, in turn.
    told: Mutex<Vec<String>>,
}

impl Slow {
    async fn start() -> (Arc<Self>, Box<dyn Backend>) {
        let slow = Slow { digests: Mutex::new(vec![0; MODELS]), answers: Semaphore::new(FEW), told: Mutex::default() };
        let slow = Arc::new(slow);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let spec = format!("ollama={}", listener.local_addr().expect("has an address"));
        let app =
            Router::new().route("/api/show", post(show)).route("/api/tags", axum::routing::get(tags)).with_state(slow.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        // Far more than ten answers need.
        let deadlines =
            Deadlines { connect: PATIENCE, describe: Duration::from_secs(6), first_byte: PATIENCE, between: PATIENCE };
        (slow, impatient(&spec, deadlines))
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

async fn tags(State(slow): State<Arc<Slow>>) -> Json<Value> {
    let digests = slow.digests.lock().unwrap().clone();
    let models = digests.iter().enumerate().map(|(n, digest)| json!({ "name": name(n), "digest": digest.to_string() }));
    Json(json!({ "models": models.collect::<Vec<_>>() }))
}

/// One that is given up takes no answer away.
async fn show(State(slow): State<Arc<Slow>>, Json(asked): Json<Value>) -> Json<Value> {
    slow.answers.acquire().await.expect("open").forget();
    slow.told.lock().unwrap().push(asked["model"].as_str().expect("a name").to_owned());
    Json(json!({ "capabilities": ["completion"], "model_info": { "general.parameter_count": 7 } }))
}

fn name(n: usize) -> String {
    format!("m{n:02}")
}

/// The models that are described.
async fn names(engine: &dyn Backend) -> Vec<String> {
    let models = tokio::time::timeout(PATIENCE, engine.models()).await.expect("a poll ends");
    models.unwrap_or_default().into_iter().map(|model| model.id).collect()
}

/// Polls until `count` models are described; how many polls that took.
async fn until(engine: &dyn Backend, count: usize) -> usize {
    for polls in 1..10 {
        if names(engine).await.len() == count {
            return polls;
        }
    }
    panic!("{count} models are not described");
}

#[tokio::test]
async fn many_models_are_learnt_over_several_polls_and_none_is_asked_about_twice() {
    let (slow, engine) = Slow::start().await;
    let mut polls = until(&*engine, FEW).await;
    assert_eq!(slow.told(), (0..FEW).map(name).collect::<Vec<_>>(), "what is known so far is served");
    slow.answers.add_permits(10 * MODELS);
    polls += until(&*engine, MODELS).await;
    let mut rest = slow.told();
    // The server may learn late that a question was given up: one in a poll.
    assert!(rest.len() <= MODELS - FEW + polls, "{rest:?}");
    rest.sort();
    rest.dedup();
    assert_eq!(rest, (FEW..MODELS).map(name).collect::<Vec<_>>());
    assert_eq!(names(&*engine).await.len(), MODELS);
    assert!(slow.told().is_empty(), "all is known");
    slow.digests.lock().unwrap()[5] = 1;
    assert_eq!(names(&*engine).await.len(), MODELS);
    assert_eq!(slow.told(), [name(5)], "only what has changed");
}
