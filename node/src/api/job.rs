//! A job as a request drives it: polled inside the connection's own task, so that a token costs no hop between tasks.
//!
//! [`Job`] holds the buyer's future and the events it tells; [`Job::poll_step`] moves the one and hands out the other. Whoever
//! drops a job before its end, because the client went away or has all it needs, leaves the rest to a task of its own: there
//! the buyer cancels or settles what was delivered, and the spending is booked. [`Choices`] are the jobs of one request.

use super::{
    error::ApiError,
    service::Place,
    till::{Bill, Charge},
};
use crate::{
    buyer::{Buyer, ChatError, ChatEvent, ChatOrder, Lost},
    chat::client::{Agreed, Progress},
    report::ChatReport,
};
use futures::{FutureExt, future::BoxFuture};
use infernet_wire::{
    chat::{FinishReason, Usage},
    money::MicroUsd,
};
use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tracing::debug;

/// Events that wait for the connection; then the worker waits, as it should.
const EVENTS: usize = 16;

type Outcome = Result<ChatReport, ChatError>;

/// What happened.
pub(super) enum Step {
    /// The job goes on.
    Event(Progress),
    /// It ended without a [`Progress::Usage`]: it failed, or, with `Ok`, was cancelled.
    Over(Result<(), ChatError>),
}

impl Step {
    /// The step as progress, or why there is none any more.
    pub(super) fn failure(self, capped: Option<MicroUsd>) -> Result<Progress, ApiError> {
        match self {
            Step::Event(Progress::Usage(usage)) if !usage.finish.is_complete() => {
                let unpaid = usage.finish == FinishReason::UNPAID;
                let why = if unpaid { "the worker waited for a payment in vain" } else { "the engine failed" };
                Err(ApiError::cut(format!("{why}; the answer is incomplete")))
            }
            Step::Event(progress) => Ok(progress),
            Step::Over(result) => Err(ApiError::of_job(&result.err().unwrap_or(ChatError::ShuttingDown), capped)),
        }
    }
}

/// What is known of a job so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// What was agreed, how the stream goes, and the input tokens declared; once it has opened.
    pub(super) opened: Option<Opened>,
    /// Output tokens so far.
    pub(super) tokens: u32,
    /// Workers that failed before their first token.
    pub(super) retries: u32,
    /// The final count.
    pub(super) usage: Option<Usage>,
    lost: Lost,
}

/// An opened stream.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) agreed: Agreed,
    pub(super) path: String,
    input_tokens: u32,
}

impl Known {
    /// What the job has cost by now: what its usage says, else what came, for a worker may still ask for that.
    pub(super) fn cost(&self) -> MicroUsd {
        let Some(Opened { agreed, input_tokens, .. }) = &self.opened else { return MicroUsd(0) };
        let (input, output) = match &self.usage {
            Some(usage) => (usage.input_tokens, usage.output_tokens),
            None if self.tokens == 0 => (0, 0),
            None => (*input_tokens, self.tokens),
        };
        // What does not fit was refused as over budget long before.
        agreed.price.cost(input, output).unwrap_or(MicroUsd(u64::MAX))
    }

    fn bill(&self, cost: MicroUsd, failure: Option<&'static str>) -> Bill {
        let worker = self.opened.as_ref().map(|opened| opened.agreed.worker);
        let usage = self.usage.as_ref().map(|usage| (usage.input_tokens, usage.output_tokens));
        Bill { cost, lost: self.lost.amount(), worker, usage, failure }
    }

    fn note(&mut self, progress: &Progress) {
        match progress {
            Progress::Opened { path, input_tokens, agreed, .. } => {
                self.opened = Some(Opened { agreed: (**agreed).clone(), path: path.to_string(), input_tokens: *input_tokens });
            }
            Progress::Resumed { path, .. } => {
                if let Some(opened) = &mut self.opened {
                    opened.path = path.to_string();
                }
            }
            Progress::Text { tokens, .. } => self.tokens = *tokens,
            Progress::ToolCall(call) => self.tokens = call.tokens,
            Progress::Usage(usage) => self.usage = Some(usage.clone()),
            Progress::Embedding(_) => {}
        }
    }
}

/// A running job.
pub(super) struct Job {
    running: Option<BoxFuture<'static, Outcome>>,
    outcome: Option<Outcome>,
    events: mpsc::Receiver<ChatEvent>,
    known: Known,
    /// Nothing more is to be told.
    over: bool,
    charge: Option<Box<dyn Charge>>,
    /// Counts the request as under way until its last job is settled.
    place: Arc<Place>,
}

impl Job {
    /// Prepares `order`; nothing happens until it is polled.
    pub(super) fn new(buyer: Buyer, mut order: ChatOrder, charge: Option<Box<dyn Charge>>, place: Arc<Place>) -> Self {
        let (told, events) = mpsc::channel(EVENTS);
        let cancelled = charge.as_ref().and_then(|charge| charge.cancelled());
        // Orders of one request are copies.
        order.lost = Lost::default();
        let known = Known { lost: order.lost.clone(), ..Known::default() };
        let running = async move {
            let (_never, never) = watch::channel(false);
            let mut cancel = cancelled.unwrap_or(never);
            buyer.chat(order, &told, &mut cancel).await
        };
        Job { running: Some(running.boxed()), outcome: None, events, known, over: false, charge, place }
    }

    /// The next step; must not be called again once it is over.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(running) = &mut self.running
            && let Poll::Ready(outcome) = running.as_mut().poll(cx)
        {
            self.running = None;
            self.outcome = Some(outcome);
        }
        loop {
            match self.events.poll_recv(cx) {
                Poll::Ready(Some(ChatEvent::Stream(progress))) => return Poll::Ready(self.on_progress(progress)),
                Poll::Ready(Some(ChatEvent::Retry { .. })) => self.known.retries += 1,
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => match self.outcome.take() {
                    Some(outcome) => return Poll::Ready(Step::Over(self.end(outcome))),
                    None => return Poll::Pending,
                },
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn on_progress(&mut self, progress: Progress) -> Step {
        self.known.note(&progress);
        if let Some(charge) = self.charge.as_ref().filter(|_| self.known.tokens > 0) {
            charge.note(self.known.cost(), self.known.tokens);
        }
        if let Progress::Usage(_) = progress {
            // The answer is whole and its price known: the receipt's exchange must hold up neither the client nor what it may
            // spend next.
            self.over = true;
            if let Some(charge) = self.charge.take() {
                charge.settle(self.known.bill(self.known.cost(), None));
            }
            self.leave();
        }
        Step::Event(progress)
    }

    fn end(&mut self, outcome: Outcome) -> Result<(), ChatError> {
        self.over = true;
        book(self.charge.take(), &outcome, &self.known);
        outcome.map(drop)
    }

    /// Leaves what is still to be done to a task of its own.
    fn leave(&mut self) {
        // Without a receiver the buyer cancels, unless the answer is whole already.
        let (_, nobody) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.events, nobody));
        let (Some(running), Ok(runtime)) = (self.running.take(), Handle::try_current()) else { return };
        let (charge, known, place) = (self.charge.take(), self.known.clone(), self.place.clone());
        runtime.spawn(async move {
            let outcome = running.await;
            if let (Err(ChatError::Failed { failure, .. }), Some(opened)) = (&outcome, &known.opened) {
                debug!(job = %opened.agreed.job, cause = failure.cause.label(), "a job failed that no client waits for");
            }
            book(charge, &outcome, &known);
            drop(place);
        });
    }
}

/// Books what a job really cost.
fn book(charge: Option<Box<dyn Charge>>, outcome: &Outcome, known: &Known) {
    let Some(charge) = charge else { return };
    let receipt = outcome.as_ref().ok().and_then(|report| report.receipt.as_ref());
    let cost = receipt.map_or_else(|| known.cost(), |receipt| receipt.amount());
    charge.settle(known.bill(cost, outcome.as_ref().err().map(ChatError::label)));
}

impl Drop for Job {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The jobs of one request, by the place of their answer.
pub(super) struct Choices {
    jobs: Vec<Job>,
    /// Whose turn it is, so that no answer waits for another.
    next: usize,
}

impl Choices {
    /// `jobs` side by side.
    pub(super) fn new(jobs: Vec<Job>) -> Self {
        Choices { jobs, next: 0 }
    }

    /// What is known of each job, by place.
    pub(super) fn known(&self) -> impl Iterator<Item = &Known> {
        self.jobs.iter().map(|job| &job.known)
    }

    /// The next step of any of them, with its place; `None` when all answers are whole or over.
    pub(super) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Step)>> {
        let count = self.jobs.len();
        let mut open = false;
        for place in (0..count).map(|n| (self.next + n) % count) {
            let Some(job) = self.jobs.get_mut(place).filter(|job| !job.over) else { continue };
            open = true;
            if let Poll::Ready(step) = job.poll_step(cx) {
                self.next = place + 1;
                return Poll::Ready(Some((place, step)));
            }
        }
        if open { Poll::Pending } else { Poll::Ready(None) }
    }

    /// Drives all to their ends; `take` sees each step. The first that fails ends all, with its place: the client asked for
    /// them together. `capped` is as for [`ApiError::of_job`].
    pub(super) async fn collect(
        mut self,
        capped: Option<MicroUsd>,
        mut take: impl FnMut(usize, Progress),
    ) -> Result<Vec<Known>, (usize, ApiError)> {
        while let Some((place, step)) = poll_fn(|cx| self.poll_step(cx)).await {
            match step.failure(capped) {
                Ok(progress) => take(place, progress),
                Err(error) => return Err((place, error)),
            }
        }
        Ok(self.jobs.iter().map(|job| job.known.clone()).collect())
    }

    /// [`Choices::collect`] into `answers`, one for each job. A failure comes with the `text` that its answer had got.
    pub(super) async fn collect_into<T>(
        self,
        answers: &mut [T],
        capped: Option<MicroUsd>,
        take: impl Fn(&mut T, Progress),
        text: impl Fn(&mut T) -> &mut String,
    ) -> Result<Vec<Known>, ApiError> {
        let take = |place: usize, progress| {
            if let Some(answer) = answers.get_mut(place) {
                take(answer, progress);
            }
        };
        let ended = self.collect(capped, take).await;
        ended.map_err(|(place, error)| {
            let partial = answers.get_mut(place).map(|answer| std::mem::take(text(answer))).unwrap_or_default();
            error.with_partial(partial)
        })
    }
}
