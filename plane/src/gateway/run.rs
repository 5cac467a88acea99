//! One job from its order to its end.

use super::{Gateway, Live, Outcome, bridge};
use crate::{
    shares::Share,
    store::{JobError, JobRow, JobStatus, UNDER_WAY},
};
use infernet_node::{
    api::error::ApiError,
    buyer::{ChatError, ChatEvent, ChatOrder},
    chat::client::{Agreed, Cause, Progress},
    clock,
    report::ChatReport,
};
use infernet_wire::{
    chat::{Channel, Usage},
    id::{Hash, NodeId},
    money::MicroUsd,
    receipt::SignedReceipt,
    time::UnixMillis,
};
use std::{pin::pin, sync::Arc};
use tokio::{sync::mpsc, task::spawn_blocking};
use tracing::{debug, warn};

/// Events that wait for this task; then the worker waits, as it should.
const EVENTS: usize = 64;

/// Buys what `order` asks, and tells of it in the row and the log of `live`. `capped` is what a balance or cap left for it.
pub(super) async fn run(
    gateway: Arc<Gateway>,
    live: Arc<Live>,
    mut order: ChatOrder,
    capped: Option<MicroUsd>,
    room: Option<Arc<Share>>,
) {
    let daemons = gateway.bridge.get().zip(bridge::job(&order));
    if daemons.as_ref().is_some_and(|(legacy, job)| legacy.serves(job, clock::now())) {
        // Rather at once than when the mesh has somebody.
        order.wait_ms = 0;
    }
    let (told, mut events) = mpsc::channel(EVENTS);
    let mut cancel = live.cancelled();
    let mut job = Running { gateway: &gateway, live: &live, agreed: None, input: 0, tokens: 0, usage: None };
    let result = {
        let buyer = gateway.through.buyer.clone();
        let mut buying = pin!(buyer.chat(order, &told, &mut cancel));
        loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => job.on_event(event).await,
                result = &mut buying => break result,
            }
        }
    };
    while let Ok(event) = events.try_recv() {
        job.on_event(event).await;
    }
    let unwanted = result.as_ref().is_err_and(bridge::is_unwanted) && !*live.cancelled().borrow();
    let bridged = match daemons.filter(|_| unwanted) {
        Some((legacy, job)) => bridge::run(&gateway, legacy, &live, job).await,
        None => None,
    };
    let outcome = match bridged {
        Some(outcome) => outcome,
        None => job.outcome(result, capped).await,
    };
    gateway.finish(&live, outcome).await;
    drop(room);
}

/// What is known of the job.
struct Running<'a> {
    gateway: &'a Gateway,
    live: &'a Arc<Live>,
    agreed: Option<Agreed>,
    input: u32,
    tokens: u32,
    usage: Option<Usage>,
}

impl Running<'_> {
    async fn on_event(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Auction(report) => {
                let assigned = |row: &mut JobRow| (row.status, row.worker) = (JobStatus::Assigned, Some(report.winner));
                self.change(assigned).await;
            }
            ChatEvent::Retry { .. } => self.change(|row| (row.status, row.worker) = (JobStatus::Pending, None)).await,
            ChatEvent::Waiting { .. } => {}
            ChatEvent::Stream(progress) => self.on_progress(progress).await,
        }
    }

    async fn on_progress(&mut self, progress: Progress) {
        match progress {
            Progress::Opened { input_tokens, agreed, .. } => {
                (self.input, self.agreed) = (input_tokens, Some(*agreed.clone()));
                self.change(|row| (row.status, row.worker) = (JobStatus::Assigned, Some(agreed.worker))).await;
            }
            Progress::Text { channel, text, tokens, .. } => {
                let first = self.tokens == 0;
                self.tokens = tokens;
                self.live.note(self.cost(), tokens);
                // What a model thinks is no part of its answer; who wants to see it asks /v1/chat/completions.
                if channel == Channel::ANSWER && !self.live.push(&text) {
                    debug!(job = %self.live.id().0, "an answer is longer than any may be: cancelled");
                    self.live.cancel();
                }
                if first {
                    self.on_first(clock::now()).await;
                }
            }
            Progress::Usage(usage) => self.usage = Some(usage),
            // The answer just goes on.
            Progress::Resumed { .. } => {}
            // Neither is asked for here.
            Progress::ToolCall(_) | Progress::Embedding(_) => {}
        }
    }

    async fn on_first(&self, now: UnixMillis) {
        self.change(|row| {
            (row.status, row.started) = (JobStatus::Running, Some(now));
            row.ttft_ms = Some(now.since(row.created));
        })
        .await;
    }

    async fn change(&self, change: impl FnOnce(&mut JobRow)) {
        self.gateway.change(self.live, change).await;
    }

    /// What it has cost by now: what its usage says, else what came, for a worker may still ask for that.
    fn cost(&self) -> MicroUsd {
        let Some(agreed) = &self.agreed else { return MicroUsd(0) };
        let (input, output) = match &self.usage {
            Some(usage) => (usage.input_tokens, usage.output_tokens),
            None if self.tokens == 0 => (0, 0),
            None => (self.input, self.tokens),
        };
        // What does not fit was refused as over budget long before.
        agreed.price.cost(input, output).unwrap_or(MicroUsd(u64::MAX))
    }

    async fn outcome(&self, result: Result<ChatReport, ChatError>, capped: Option<MicroUsd>) -> Outcome {
        let wanted_no_more = *self.live.cancelled().borrow();
        let charged = result.as_ref().ok().and_then(|report| report.receipt.as_ref());
        let usage = self.usage.as_ref().filter(|usage| usage.finish.is_complete() || charged.is_some());
        let bought = self.bought().await;
        let last = bought.iter().find(|(worker, ..)| self.agreed.as_ref().is_some_and(|agreed| agreed.worker == *worker));
        // A job that failed over has a receipt of each worker that it was paid to.
        let by_receipts = bought.iter().map(|(_, amount, _)| *amount).sum::<MicroUsd>();
        let beyond = match (last, charged) {
            (Some(_), _) => MicroUsd(0),
            (None, Some(receipt)) => receipt.amount(),
            (None, None) => self.cost(),
        };
        let mut outcome = Outcome {
            cost: MicroUsd(by_receipts.0.saturating_add(beyond.0)),
            worker: self.agreed.as_ref().map(|agreed| agreed.worker),
            usage: usage.map(|usage| (usage.input_tokens, usage.output_tokens)),
            finish: self.usage.as_ref().map(|usage| usage.finish.label()),
            receipt: last.map(|(.., digest)| *digest),
            ..Outcome::default()
        };
        match (&result, &self.usage) {
            (Ok(_), Some(usage)) if usage.finish.is_complete() => {}
            (Ok(_), None) => outcome.cancelled = true,
            _ if wanted_no_more => outcome.cancelled = true,
            (Ok(_), Some(_)) => {
                outcome.error = Some(failed("node_failed", "the worker's engine failed; the answer is incomplete"))
            }
            (Err(error), _) => outcome.error = Some(explained(error, capped)),
        }
        outcome
    }

    /// The job's receipts that both have signed: whose, of how much, and their digests.
    async fn bought(&self) -> Vec<(NodeId, MicroUsd, Hash)> {
        let Some(job) = self.agreed.as_ref().map(|agreed| agreed.job) else { return Vec::new() };
        let receipts = self.gateway.through.receipts.clone();
        let found = spawn_blocking(move || receipts.receipts_of(&job)).await;
        // A store that fails tells nothing: what was agreed is charged.
        let found = found.ok().and_then(Result::ok).unwrap_or_default();
        let both = found.iter().filter(|signed| signed.countersign().is_some()).map(SignedReceipt::receipt);
        both.map(|receipt| (receipt.worker, receipt.amount, receipt.digest())).collect()
    }
}

impl Gateway {
    /// Changes a job's row, here and in the store. If it is not ours any more, it is cancelled.
    pub(super) async fn change(&self, live: &Live, change: impl FnOnce(&mut JobRow)) {
        let now = clock::now();
        let mut row = live.row.lock().await;
        if row.status.is_over() {
            return;
        }
        // What the last renewal noted is not taken back.
        live.checkpoint(&mut row);
        change(&mut row);
        row.updated = now;
        row.lease = Some((self.instance.clone(), now.after(self.config.lease_ms)));
        match self.store.update_job(&UNDER_WAY, &row).await {
            Ok(true) => {}
            Ok(false) => {
                warn!(job = %row.id.0, "a job was taken from this instance: its lease was over");
                live.cancel();
            }
            // Its end will be written again and again; if the store stays away, the lease runs out.
            Err(error) => warn!(job = %row.id.0, "{error}"),
        }
        drop(row);
        self.tell(live.id()).await;
    }
}

fn failed(code: &str, message: &str) -> JobError {
    JobError { code: code.into(), message: message.into() }
}

/// Why a job failed, in this API's words.
fn explained(error: &ChatError, capped: Option<MicroUsd>) -> JobError {
    let shown = ApiError::of_job(error, capped);
    let lost = match error {
        ChatError::Failed { failure, .. } => matches!(failure.cause, Cause::Connect(_) | Cause::Stream(_)),
        _ => false,
    };
    let code = match shown.code {
        "worker_failed" if lost => "node_disconnected",
        "worker_failed" => "node_failed",
        "no_bid" | "busy" | "no_peers" => "no_capacity",
        "deadline" => "timeout",
        "spend_cap" => "budget_too_small",
        other => other,
    };
    let message = shown.message.replace("X-Infernet-Max-Price", "max_price").replace("X-Infernet-Budget", "budget");
    let message = message.replace("X-Infernet-Path: auto", "path auto");
    JobError { code: code.into(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_node::{
        buyer::NoBids,
        chat::{client::Failure, framing::FrameError},
    };
    use infernet_wire::money::Price;

    fn check(error: ChatError, code: &str) -> String {
        let error = explained(&error, None);
        assert_eq!(error.code, code, "{}", error.message);
        error.message
    }

    #[test]
    fn failures_have_stable_names_and_words_of_this_api() {
        let stream = |after_first_token| Failure { cause: FrameError::Closed.into(), after_first_token, lost: MicroUsd(0) };
        let lost = check(ChatError::Failed { failure: stream(true), partial: "secret".into() }, "node_disconnected");
        assert!(!lost.contains("secret"));
        check(ChatError::Busy, "no_capacity");
        check(ChatError::NoPeers, "no_capacity");
        check(ChatError::ShuttingDown, "shutting_down");
        let price = |n| Price { input: MicroUsd(n), output: MicroUsd(n) };
        let dear = NoBids { model: "m".into(), ceiling: price(1), cheapest: Some(price(9)), ..NoBids::default() };
        let text = check(ChatError::NoBids(Box::new(dear)), "price_too_low");
        assert!(text.contains("raise max_price"), "{text}");
        let unknown = NoBids { model: "m".into(), models: vec!["other".into()], ..NoBids::default() };
        check(ChatError::NoBids(Box::new(unknown)), "model_not_found");
    }
}
