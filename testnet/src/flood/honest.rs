//! The honest buyer's jobs, one after the other, and how they went.

use crate::{
    cluster::{process::Process, question},
    machine::Distribution,
};
use infernet_node::{
    clock,
    control::{client::Client, schema::ChatStep},
    report::millis,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// Between two jobs: half of what workers allow one buyer.
const PAUSE: Duration = Duration::from_millis(400);
/// A job that takes longer hangs. Two whole rounds of an auction whose winner is silent are far below.
const HUNG: Duration = Duration::from_secs(30);
/// Tokens of an answer.
pub(super) const TOKENS: u32 = 16;
/// Different errors that are told.
const MAX_ERRORS: usize = 16;

/// How jobs went.
#[derive(Debug, Clone, Default)]
struct Results {
    latencies: Vec<f64>,
    failed: u64,
    hung: u64,
    errors: BTreeMap<String, u64>,
}

/// Jobs that run one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Jobs(Arc<Mutex<Results>>);

/// What to show of them.
#[derive(Debug, Clone, Serialize)]
pub struct JobsReport {
    /// From the question to the receipt, in milliseconds.
    pub latency_ms: Distribution,
    /// Ended with an error, or without a receipt that both sides signed, or with another number of tokens.
    pub failed: u64,
    /// Did not end at all.
    pub hung: u64,
    /// The errors, and how often each.
    pub errors: BTreeMap<String, u64>,
}

impl Jobs {
    /// Runs jobs on the node of `home`, for ever.
    pub(super) async fn run(self, home: std::path::PathBuf, model: String) {
        while let Some(node) = Client::connect(&home) {
            let started = clock::instant();
            let outcome = timeout(HUNG, job(&node, &model)).await;
            self.note(outcome, millis(started.elapsed()));
            sleep(PAUSE).await;
        }
        self.note(Ok(Err("the buyer's node is gone".into())), 0.0);
    }

    fn note(&self, outcome: Result<Result<(), String>, tokio::time::error::Elapsed>, ms: f64) {
        let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(Ok(())) => results.latencies.push(ms),
            Ok(Err(error)) => {
                results.failed += 1;
                if results.errors.len() < MAX_ERRORS || results.errors.contains_key(&error) {
                    *results.errors.entry(error).or_default() += 1;
                }
            }
            Err(_) => results.hung += 1,
        }
    }

    /// How they went since the last report.
    pub(super) fn take(&self) -> JobsReport {
        let taken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        JobsReport {
            latency_ms: Distribution::of(taken.latencies),
            failed: taken.failed,
            hung: taken.hung,
            errors: taken.errors,
        }
    }
}

/// The first job of a node: whether the network has formed.
pub(super) async fn first(buyer: &Process, model: &str) -> Result<(), String> {
    let node = Client::connect(buyer.home.path()).ok_or("the buyer's node does not answer")?;
    job(&node, model).await
}

async fn job(node: &Client, model: &str) -> Result<(), String> {
    let order = question(model, TOKENS);
    match node.chat(&order, |_| ControlFlow::Continue(())).await {
        Ok(Some(ChatStep::Done(report))) => {
            let signed = report.receipt.as_ref().is_some_and(|receipt| receipt.verified);
            match report.stream.tokens {
                _ if !signed => Err("no receipt that both sides signed".into()),
                TOKENS => Ok(()),
                tokens => Err(format!("{tokens} tokens instead of {TOKENS}")),
            }
        }
        Ok(Some(ChatStep::Error(error))) => Err(error.message),
        Ok(_) => Err("the answer broke off".into()),
        Err(error) => Err(error.to_string()),
    }
}
