//! The buyer's role: drives [`market::buyer`](crate::market::buyer) and the attempts of each job.
//!
//! One task owns the decider: ads, answers and timers go in, closed auctions come out. A job is a plain async function in its
//! caller's task: offer → auction → accept → stream; if a worker fails before its first token the next runner-up gets a new
//! accept, and if none is left there is one more auction. The caller sees one answer.
//!
//! A buyer holds **one auction at a time**, until its winner has opened: workers keep one hold per buyer, so a second offer
//! would take back the first one's hold.

mod order;
mod refused;
mod said;
mod task;

pub use order::{ChatOrder, DEFAULT_CEILING, DEFAULT_WINDOW_MS, Prepared};
pub use refused::{ChatError, NoBids};

use crate::{
    chat::{
        client::{self, Caller, Failure, Order, Progress},
        session::Terms,
    },
    clock,
    market::{
        auction::{Closed, Won},
        buyer::{Input, Observation},
        job::{Attempt, Attempts},
        registry::KnownModel,
    },
    net::{Net, PublishError},
    report::{AuctionReport, ChatReport, ReceiptReport, StreamReport, millis},
};
use infernet_wire::{bid::NoBidReason, envelope::Verified, id::NodeId, offer::JobOffer, topic};
use said::Said;
use std::{sync::Arc, time::Duration};
use task::{Command, Task};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tracing::{Instrument, debug, info, info_span};

/// Messages waiting for the task: answers of several auctions and the ads of a large network's refresh.
const QUEUE: usize = 1_024;
/// Auctions for one job: one more if every worker of the first failed.
const MAX_AUCTIONS: u32 = 2;
/// How long a job waits for its turn to hold an auction: sixteen jobs before it, each with a full window.
const TURN: Duration = Duration::from_secs(30);
/// How long a job waits for a first peer.
const JOIN_MS: u64 = 10_000;

/// A step of a job, for whoever waits for it.
#[derive(Debug, Clone)]
pub enum ChatEvent {
    /// An auction was decided.
    Auction(Box<AuctionReport>),
    /// A worker failed before its first token; the next one gets the job.
    Retry {
        /// Who failed.
        worker: NodeId,
        /// How.
        reason: String,
    },
    /// The stream of the winner.
    Stream(Progress),
}

impl From<Progress> for ChatEvent {
    fn from(progress: Progress) -> Self {
        ChatEvent::Stream(progress)
    }
}

/// A decided auction whose winner has not been told yet.
pub struct Decided {
    won: Won,
    /// What to show.
    pub report: AuctionReport,
    turn: OwnedSemaphorePermit,
}

/// A handle to the buyer; cheap to clone.
#[derive(Clone)]
pub struct Buyer {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

struct Shared {
    client: client::Buyer,
    net: Net,
    turn: Arc<Semaphore>,
    /// Jobs under way.
    running: watch::Sender<usize>,
}

impl Buyer {
    /// Starts the task. It ends when every handle is gone.
    pub fn spawn(client: client::Buyer, net: Net) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let span = info_span!("buyer", me = %client.key.id().short());
        let task = Task::new(client.pool.clone());
        tokio::spawn(task.run(inbox).instrument(span));
        let shared = Shared { client, net, turn: Arc::new(Semaphore::new(1)), running: watch::Sender::new(0) };
        Buyer { commands, shared: Arc::new(shared) }
    }

    /// Tells of something heard. `false` if the task is too busy: the message is dropped.
    pub fn try_tell(&self, input: Input) -> bool {
        self.commands.try_send(Command::Input(Box::new(input))).is_ok()
    }

    /// Notes how a worker behaves, for the next auctions.
    pub fn observe(&self, worker: NodeId, observation: Observation) {
        // Losing one of these when busy only means choosing by older facts.
        let _ = self.commands.try_send(Command::Observe(worker, observation));
    }

    /// Resolves when no job runs.
    pub async fn idle(&self) {
        let mut running = self.shared.running.subscribe();
        // Fails only if the sender is gone, which `self` holds.
        let _ = running.wait_for(|jobs| *jobs == 0).await;
    }

    /// Every model that a live ad names.
    pub async fn known_models(&self) -> Vec<KnownModel> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Known(reply)).await;
        answer.await.unwrap_or_default()
    }

    /// Runs a job from offer to countersigned receipt. Steps go to `events`; dropping its receiver, or setting `cancel`,
    /// cancels the job.
    pub async fn chat(
        &self,
        order: ChatOrder,
        events: &mpsc::Sender<ChatEvent>,
        cancel: &mut watch::Receiver<bool>,
    ) -> Result<ChatReport, ChatError> {
        let prepared = Prepared::new(order)?;
        let _running = Running::new(&self.shared.running);
        let span = info_span!("job", job = %prepared.job);
        async {
            let mut retries = 0;
            for round in 1.. {
                let decided = self.auction(&prepared).await?;
                let _ = events.send(ChatEvent::Auction(Box::new(decided.report.clone()))).await;
                match self.run(decided, &prepared, events, cancel, &mut retries).await {
                    Err(ChatError::Failed { failure, .. }) if failure.is_retryable() && round < MAX_AUCTIONS => {
                        debug!(cause = failure.cause.label(), "every worker of the auction failed");
                    }
                    result => return result,
                }
            }
            Err(ChatError::ShuttingDown)
        }
        .instrument(span)
        .await
    }

    /// Offers the job and decides. Nobody is told yet.
    pub async fn auction(&self, prepared: &Prepared) -> Result<Decided, ChatError> {
        let waiting = timeout(TURN, self.shared.turn.clone().acquire_owned());
        let turn = waiting.await.map_err(|_| ChatError::Busy)?.map_err(|_| ChatError::ShuttingDown)?;
        let Shared { client, net, .. } = &*self.shared;
        // The bid window starts when the offer is signed, so first there must be somebody to hear it.
        if !net.wait_connected(clock::now().after(JOIN_MS)).await {
            return Err(ChatError::NoPeers);
        }
        let started = clock::instant();
        let offer = client.key.sign(&client.network, prepared.offer(clock::now()))?;
        let digest = offer.digest();
        let closed = self.offer(offer).await;
        if closed.is_err() {
            let _ = self.commands.send(Command::Abandon(digest)).await;
        }
        match closed? {
            Closed::Won(won) => {
                let report = AuctionReport::new(&won, started.elapsed());
                info!(winner = %report.winner.short(), bids = won.bids.len(), ms = report.elapsed_ms, "auction: {}", report.reason);
                Ok(Decided { won: *won, report, turn })
            }
            Closed::NoBids { no_bids, asked, .. } => {
                Err(ChatError::NoBids(Box::new(self.no_bids(prepared, no_bids, asked).await)))
            }
        }
    }

    /// Publishes the offer and waits for the auction to close.
    async fn offer(&self, offer: Verified<JobOffer>) -> Result<Closed, ChatError> {
        let (reply, closed) = oneshot::channel();
        let (raw, topic) = (offer.raw().clone(), topic::jobs(&offer.workload));
        match self.shared.net.publish(topic, raw, offer.window_end()).await {
            Ok(()) => {}
            Err(PublishError::NoPeers) => return Err(ChatError::NoPeers),
            Err(PublishError::Refused(_) | PublishError::Busy) => return Err(ChatError::Busy),
            Err(PublishError::Stopped) => return Err(ChatError::ShuttingDown),
        }
        self.commands.send(Command::Open { offer: Box::new(offer), reply }).await.map_err(|_| ChatError::ShuttingDown)?;
        closed.await.map_err(|_| ChatError::ShuttingDown)
    }

    async fn no_bids(&self, prepared: &Prepared, refusals: Vec<(NodeId, NoBidReason)>, asked: usize) -> NoBids {
        let order = &prepared.order;
        let (reply, survey) = oneshot::channel();
        let _ = self.commands.send(Command::Survey { model: order.request.model.clone(), reply }).await;
        let (models, cheapest) = survey.await.unwrap_or_default();
        NoBids { model: order.request.model.clone(), ceiling: order.ceiling, asked, refusals, cheapest, models }
    }

    /// Gives the job to the winner, then to the runners-up while none has delivered a token.
    pub async fn run(
        &self,
        decided: Decided,
        prepared: &Prepared,
        events: &mpsc::Sender<ChatEvent>,
        cancel: &mut watch::Receiver<bool>,
        retries: &mut u32,
    ) -> Result<ChatReport, ChatError> {
        let Decided { won, report, turn } = decided;
        let mut turn = Some(turn);
        let offer = won.offer.clone();
        let mut attempts = Attempts::new(&won);
        let mut last = None;
        while let Some(attempt) = attempts.next(clock::now()) {
            let worker = attempt.bid.signer();
            let mut said = Said::default();
            match self.attempt(&attempts, &attempt, &offer, prepared, events, &mut said, cancel, &mut turn).await {
                Ok(completed) => {
                    return Ok(ChatReport {
                        answer: said.answer,
                        reasoning: said.reasoning,
                        tool_calls: said.tool_calls,
                        model: attempt.bid.model.clone(),
                        stream: StreamReport::new(&completed, *retries),
                        receipt: completed.receipt.as_ref().map(ReceiptReport::from),
                        auction: report,
                    });
                }
                Err(failure) if failure.is_retryable() => {
                    *retries += 1;
                    info!(worker = %worker.short(), cause = failure.cause.label(), "retrying elsewhere");
                    let _ = events.send(ChatEvent::Retry { worker, reason: failure.to_string() }).await;
                    last = Some(failure);
                }
                Err(failure) => return Err(ChatError::Failed { failure, partial: said.answer }),
            }
        }
        match last {
            Some(failure) => Err(ChatError::Failed { failure, partial: String::new() }),
            None => Err(ChatError::ShuttingDown),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one job's whole context, used once")]
    async fn attempt(
        &self,
        attempts: &Attempts,
        attempt: &Attempt,
        offer: &Verified<JobOffer>,
        prepared: &Prepared,
        events: &mpsc::Sender<ChatEvent>,
        said: &mut Said,
        cancel: &mut watch::Receiver<bool>,
        turn: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<client::Completed, Failure> {
        let client = &self.shared.client;
        let body = attempts.accept_body(attempt, prepared.job, clock::now());
        let invalid = |refusal| Failure { cause: client::Cause::Receipt(refusal), after_first_token: false };
        let accept = client.key.sign(&client.network, body).map_err(invalid)?;
        let worker = attempt.bid.signer();
        let order = Order {
            terms: Terms {
                job: prepared.job,
                accept: accept.digest(),
                buyer: client.key.id(),
                worker,
                workload: offer.workload.clone(),
                model: attempt.bid.model.clone(),
                weights: None,
                price: attempt.bid.price,
                budget: offer.budget,
                input_tokens: prepared.input_tokens,
                output_tokens: prepared.order.request.max_tokens,
            },
            salt: prepared.salt,
            request: prepared.request.clone(),
            addrs: attempt.bid.chat.iter().map(|a| a.0).collect(),
            deadline: offer.deadline,
            accept: accept.clone(),
            offer: None,
        };
        let mut on_step = |step: &Progress| {
            said.note(step);
            if matches!(step, Progress::Opened { .. }) {
                *turn = None;
                self.announce(&accept);
            }
        };
        let caller = Caller { on_step: &mut on_step, progress: events, cancel };
        let result = client::run(client, order, caller).await;
        self.observe_result(worker, &result);
        result
    }

    /// Tells everybody who won, in the background: losers free their holds.
    fn announce(&self, accept: &Verified<infernet_wire::accept::JobAccept>) {
        let (net, raw, deadline) = (self.shared.net.clone(), accept.raw().clone(), accept.expires);
        tokio::spawn(async move { net.publish(topic::jobs(topic::INFERENCE), raw, deadline).await });
    }

    fn observe_result(&self, worker: NodeId, result: &Result<client::Completed, Failure>) {
        match result {
            Ok(completed) => {
                let ttft = completed.ttft.unwrap_or(completed.duration);
                let streaming = completed.duration.saturating_sub(ttft).as_secs_f64();
                let after_first = f64::from(completed.usage.output_tokens.saturating_sub(1));
                // Too few tokens tell nothing about speed; the estimate then stays what it was.
                let tps = if streaming > 0.0 { (after_first / streaming) as u32 } else { 0 };
                self.observe(worker, Observation::Completed { ttft_ms: millis(ttft) as u32, tps });
            }
            Err(failure) if matches!(failure.cause, client::Cause::Cancelled | client::Cause::Keep(_)) => {}
            Err(_) => self.observe(worker, Observation::Failed),
        }
    }
}

/// Counts a job while it lives.
struct Running<'a>(&'a watch::Sender<usize>);

impl<'a> Running<'a> {
    fn new(jobs: &'a watch::Sender<usize>) -> Self {
        jobs.send_modify(|jobs| *jobs += 1);
        Running(jobs)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|jobs| *jobs -= 1);
    }
}
