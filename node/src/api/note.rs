//! What an answer says about itself: OpenAI's `usage`, and our `infernet` object, which OpenAI's clients pass over.

use super::job::Known;
use infernet_wire::{
    id::{JobId, NodeId},
    money::Price,
};
use serde::Serialize;

/// Tokens charged, all answers of a request together: each is a job that read the whole prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl Usage {
    pub(super) fn of(known: &[&Known]) -> Self {
        let charged = known.iter().filter_map(|known| known.usage.as_ref());
        let (input, output) = charged.fold((0, 0), |(input, output), usage| {
            (input + u64::from(usage.input_tokens), output + u64::from(usage.output_tokens))
        });
        Usage { prompt_tokens: input, completion_tokens: output, total_tokens: input + output }
    }

    /// Input tokens.
    pub(super) fn input(&self) -> u64 {
        self.prompt_tokens
    }
}

/// Who did it, and for how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Note<'a> {
    #[serde(flatten)]
    first: Done<'a>,
    /// What all answers cost together, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_micro_usd: Option<u64>,
    /// Every job, if there are more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    jobs: Vec<Done<'a>>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Done<'a> {
    job_id: Option<JobId>,
    worker: Option<NodeId>,
    path: &'a str,
    /// In micro-USD per million tokens.
    price: Price,
    amount_micro_usd: u64,
    /// Workers that failed before their first token and were replaced.
    retries: u32,
}

impl<'a> Done<'a> {
    fn of(known: &'a Known) -> Self {
        let opened = known.opened.as_ref();
        Done {
            job_id: opened.map(|opened| opened.agreed.job),
            worker: opened.map(|opened| opened.agreed.worker),
            path: opened.map_or("", |opened| &opened.path),
            price: opened.map_or_else(Price::default, |opened| opened.agreed.price),
            amount_micro_usd: known.cost().0,
            retries: known.retries,
        }
    }
}

impl<'a> Note<'a> {
    /// Of one job, if it has opened.
    pub(super) fn of(known: &'a Known) -> Option<Self> {
        known.opened.as_ref().map(|_| Note::all(&[known]))
    }

    /// Of all jobs of a request.
    pub(super) fn all(known: &[&'a Known]) -> Self {
        let jobs: Vec<Done<'a>> = known.iter().map(|known| Done::of(known)).collect();
        let first = jobs.first().cloned().unwrap_or(Done {
            job_id: None,
            worker: None,
            path: "",
            price: Price::default(),
            amount_micro_usd: 0,
            retries: 0,
        });
        let total_micro_usd = (jobs.len() > 1).then(|| jobs.iter().map(|job| job.amount_micro_usd).sum());
        Note { first, total_micro_usd, jobs: if total_micro_usd.is_some() { jobs } else { Vec::new() } }
    }
}
