//! A job as its client sees it.

use crate::{
    accounts::wallet::iso,
    gateway::{End, Log},
    http::error::Refusal,
    store::{JobError, JobRow, JobStatus},
};
use serde::Serialize;
use utoipa::ToSchema;

/// A job that was taken.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Accepted {
    /// Its name.
    pub id: String,
    /// How far it is: `pending`, or further if it was asked before.
    pub status: &'static str,
    /// The model asked for.
    pub model: String,
    /// When it came, RFC 3339.
    pub created_at: String,
    /// Where to follow it.
    pub stream_url: String,
}

/// Jobs that were asked together, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub struct Batch {
    /// Each of them.
    pub jobs: Vec<BatchItem>,
}

/// One of a batch: a job, or why it was not taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum BatchItem {
    /// It was taken.
    Accepted(Accepted),
    /// It was not.
    Refused {
        /// Why.
        error: Problem,
    },
}

/// Why a job failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// A short stable name, such as `no_capacity`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Of the input.
    pub prompt_tokens: u32,
    /// Of the answer.
    pub completion_tokens: u32,
    /// Of both.
    pub total_tokens: u32,
}

/// An answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobResult {
    /// The text; null if it is not kept any more.
    pub content: Option<String>,
    /// Why it ended, as OpenAI names it; null if that is not kept any more.
    pub finish_reason: Option<String>,
    /// Exact counts, as both sides signed them.
    pub usage: Option<Usage>,
}

/// A job, and how far it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobView {
    /// Its name.
    pub id: String,
    /// `pending`, `assigned`, `running`, `completed`, `failed` or `cancelled`.
    pub status: &'static str,
    /// The model asked for.
    pub model: String,
    /// When it came, RFC 3339.
    pub created_at: String,
    /// When its answer began.
    pub started_at: Option<String>,
    /// When it ended.
    pub completed_at: Option<String>,
    /// Who serves it.
    pub node_id: Option<String>,
    /// The answer, once it is over.
    pub result: Option<JobResult>,
    /// The most it may cost, in micro-USD.
    pub budget_micro_usd: u64,
    /// What it has cost, in micro-USD.
    pub cost_micro_usd: Option<u64>,
    /// From coming to the first token.
    pub ttft_ms: Option<u64>,
    /// From coming to the end.
    pub latency_ms: Option<u64>,
    /// Digest of the receipt.
    pub receipt: Option<String>,
    /// Why it failed.
    pub error: Option<Problem>,
    /// Where to follow it.
    pub stream_url: String,
}

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobList {
    /// The newest first.
    pub jobs: Vec<JobView>,
    /// What `before` is for the next page; null if there is none.
    pub next: Option<String>,
}

/// A status as it is written.
pub fn status(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Pending => "pending",
        JobStatus::Assigned => "assigned",
        JobStatus::Running => "running",
        JobStatus::Completed => "completed",
        JobStatus::Failed => "failed",
        JobStatus::Cancelled => "cancelled",
    }
}

fn stream_url(row: &JobRow) -> String {
    format!("/api/v1/jobs/{}/stream", row.id.0)
}

impl From<&JobRow> for Accepted {
    fn from(row: &JobRow) -> Self {
        Accepted {
            id: row.id.0.clone(),
            status: status(row.status),
            model: row.model.clone(),
            created_at: iso(row.created),
            stream_url: stream_url(row),
        }
    }
}

impl From<Result<Accepted, Refusal>> for BatchItem {
    fn from(begun: Result<Accepted, Refusal>) -> Self {
        match begun {
            Ok(accepted) => BatchItem::Accepted(accepted),
            Err(refusal) => BatchItem::Refused { error: Problem { code: refusal.code.into(), message: refusal.message } },
        }
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        Problem { code: error.code, message: error.message }
    }
}

impl JobView {
    /// A row, with what is remembered of its answer.
    pub fn new(row: JobRow, log: Option<Log>) -> Self {
        let usage = row.input_tokens.zip(row.output_tokens).map(|(prompt_tokens, completion_tokens)| Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
        });
        let finish_reason = match log.as_ref().and_then(|log| log.end.as_ref()) {
            Some(End::Done(finish)) => finish.clone(),
            _ => None,
        };
        let stored = || row.text.as_ref().map(|text| text.answer.clone());
        let content = log.map(|log| log.text).or_else(stored);
        let result = row.status.is_over().then_some(JobResult { content, finish_reason, usage });
        JobView {
            id: row.id.0.clone(),
            status: status(row.status),
            model: row.model.clone(),
            created_at: iso(row.created),
            started_at: row.started.map(iso),
            completed_at: row.ended.map(iso),
            node_id: row.worker.map(|worker| worker.to_string()).or_else(|| row.legacy.map(|key| hex::encode(key.0))),
            result,
            budget_micro_usd: row.budget.0,
            cost_micro_usd: row.cost.map(|cost| cost.0),
            ttft_ms: row.ttft_ms,
            latency_ms: row.ended.map(|ended| ended.since(row.created)),
            receipt: row.receipt.map(|digest| digest.to_string()),
            stream_url: stream_url(&row),
            error: row.error.map(Problem::from),
        }
    }
}
