//! What an answer says about itself: OpenAI's head and `usage`, and our `infernet` object, which OpenAI's clients pass over.

use super::{
    error::{ApiError, Shown},
    job::Known,
    sse,
};
use bytes::BytesMut;
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

/// How every answer and every chunk begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Head<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// Of an answer named for the first of its jobs that has opened.
    pub(super) fn of(prefix: &str, object: &'static str, created: u64, known: &[&'a Known]) -> Self {
        let opened = known.iter().find_map(|known| known.opened.as_ref());
        let (job, model) = opened.map_or_else(Default::default, |o| (o.agreed.job.to_string(), o.agreed.model.as_str()));
        Head { id: format!("{prefix}-{job}"), object, created, model, system_fingerprint: None }
    }

    /// As JSON, up to the first choice.
    pub(super) fn open(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        // The chunk goes on where the object would end.
        bytes.pop();
        bytes.extend_from_slice(b",\"choices\":[");
        bytes
    }
}

/// The chunk without choices that holds the usage.
pub(super) fn usage_chunk(head: &[u8], known: &[&Known], out: &mut BytesMut) {
    sse::event(out, |out| {
        out.extend_from_slice(head);
        out.extend_from_slice(b"],\"usage\":");
        sse::json(out, &Usage::of(known));
        out.extend_from_slice(b",\"infernet\":");
        sse::json(out, &Note::all(known));
        out.extend_from_slice(b"}");
    });
}

/// An error where no job has opened: pings went out, and then no worker took the job.
pub(super) fn bare_error(error: &ApiError, out: &mut BytesMut) {
    #[derive(Serialize)]
    struct Failed<'a> {
        error: Shown<'a>,
    }
    sse::event(out, |out| sse::json(out, &Failed { error: error.shown() }));
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
