//! A bought job as `infernet jobs` shows it: its steps, and how it ended.

use super::ChatError;
use crate::{
    chat::client::{Cause, Progress},
    jobs::{Ended, Job, State},
    report::ChatReport,
};
use infernet_wire::chat::FinishReason;

/// Notes a step of the stream.
pub(super) fn note(job: &Job, step: &Progress) {
    match step {
        Progress::Opened { path, agreed, .. } => job.opened(agreed.worker, path.to_string()),
        Progress::Resumed { path, .. } => job.went_on(path.to_string()),
        Progress::Text { tokens, .. } => job.tokens(*tokens),
        Progress::ToolCall(call) => job.tokens(call.tokens),
        Progress::Usage(usage) => job.tokens(usage.output_tokens),
        Progress::Embedding(_) => {}
    }
}

/// What became of the job.
pub(super) fn of(result: &Result<ChatReport, ChatError>) -> Ended {
    let report = match result {
        Ok(report) => report,
        Err(ChatError::Failed { failure, .. }) if matches!(failure.cause, Cause::Cancelled) => {
            return Ended::free(State::Cancelled, None);
        }
        Err(error) => return Ended::free(State::Failed, Some(error.label())),
    };
    let finish = report.stream.finish.as_str();
    let state = match &report.receipt {
        _ if finish == FinishReason::CANCELLED.label() => State::Cancelled,
        _ if [FinishReason::FAILED, FinishReason::UNPAID].map(FinishReason::label).contains(&finish) => State::Failed,
        Some(receipt) if !receipt.verified => State::Unsigned,
        _ => State::Settled,
    };
    let failed = if finish == FinishReason::UNPAID.label() { "payment" } else { "engine" };
    let error = (state == State::Failed).then_some(failed);
    Ended { state, amount: report.receipt.as_ref().map(crate::report::ReceiptReport::amount), error }
}
