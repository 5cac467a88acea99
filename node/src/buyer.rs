//! The buyer's role: drives [`market::buyer`](crate::market::buyer) and the attempts of each job.
//!
//! One task owns the decider: ads, answers and timers go in, closed auctions come out. A job is a plain async function in its
//! caller's task: offer → auction → accept → stream; if a worker fails before its first token the next runner-up gets a new
//! accept, and if none is left there is one more auction. The caller sees one answer.
//!
//! A buyer holds **one auction at a time**, until its winner has opened: workers keep one hold per buyer, so a second offer
//! would take back the first one's hold. Where an auction would hardly find better, a job goes straight to a known worker at the
//! price in its ad (`standing`); of those any number run side by side.

mod conversation;
mod ended;
mod loads;
mod order;
mod refused;
mod said;
mod standing;
mod task;
mod waiting;

pub use crate::market::{standing::PathChoice, trust::Trust};
pub use order::{ChatOrder, DEFAULT_CEILING, DEFAULT_WINDOW_MS, Lost, Prepared};
pub use refused::{ChatError, NoBids};

use crate::{
    chat::{
        client::{self, Caller, Failure, Order, Progress},
        deadline,
        session::Terms,
    },
    clock,
    jobs::{Jobs, Role},
    market::{
        auction::{Closed, Won},
        buyer::{Input, Observation},
        course::Course,
        job::{Attempt, Attempts},
        quote::Estimate,
        registry::KnownModel,
    },
    metrics::{Bought, Metrics},
    net::{Net, PublishError},
    report::{AuctionReport, ChatReport, ReceiptReport, StreamReport, millis},
};
use infernet_wire::{
    accept::{JobAccept, Rate},
    bid::NoBidReason,
    chat::{self as wire_chat, Closing, Task as Asked},
    envelope::Verified,
    id::{EvmSignature, NodeId},
    money::MicroUsd,
    offer::JobOffer,
    standing::StandingOffer,
    time::UnixMillis,
    topic,
};
use loads::{Load, Loads};
use said::Said;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use task::{Command, Survey, Task};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tracing::{Instrument, debug, info, info_span};

/// Messages waiting for the task: answers of several auctions and the ads of a large network's refresh.
const QUEUE: usize = 1_024;
/// How long a job waits for its turn to hold an auction: sixteen jobs before it, each with a full window.
pub const TURN: Duration = Duration::from_secs(30);
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
    /// Nobody has room now, or nobody is there: it is tried again, because the order allows waiting.
    Waiting {
        /// Why the last try came to nothing.
        reason: String,
        /// When the next one begins, in milliseconds from now.
        next_ms: u64,
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

/// How a node buys, whatever its orders say.
#[derive(Debug, Clone)]
pub struct Preferences {
    /// Whose bids count.
    pub trust: Trust,
    /// Whether a job may be taken at a standing price unless its order says so.
    pub standing: bool,
}

impl Default for Preferences {
    /// Everybody's, and yes.
    fn default() -> Self {
        Preferences { trust: Trust::default(), standing: true }
    }
}

/// What was agreed on with one worker, whichever way.
struct Deal {
    accept: Verified<JobAccept>,
    /// At a standing price, what the worker has not seen yet.
    offer: Option<StandingOffer>,
    budget: MicroUsd,
    deadline: UnixMillis,
    addrs: Vec<SocketAddr>,
    load: Load,
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
    preferences: Preferences,
    loads: Loads,
    metrics: Metrics,
    /// Jobs under way.
    running: watch::Sender<usize>,
    /// What is shown of them.
    jobs: Jobs,
}

impl Buyer {
    /// Starts the task. It ends when every handle is gone.
    pub fn spawn(client: client::Buyer, net: Net, preferences: Preferences, metrics: Metrics, jobs: Jobs) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let span = info_span!("buyer", me = %client.key.id().short());
        let loads = Loads::default();
        let task = Task::new(net.clone(), client.pool.clone(), loads.clone(), metrics.clone());
        tokio::spawn(task.run(inbox).instrument(span));
        let (turn, running) = (Arc::new(Semaphore::new(1)), watch::Sender::new(0));
        Buyer { commands, shared: Arc::new(Shared { client, net, turn, preferences, loads, metrics, running, jobs }) }
    }

    /// Tells of something heard. `false` if the task is too busy: the message is dropped.
    pub fn try_tell(&self, input: Input) -> bool {
        self.commands.try_send(Command::Input(Box::new(input))).is_ok()
    }

    /// Notes how a worker behaves, for the next auctions.
    pub fn observe(&self, worker: NodeId, observation: Observation) {
        self.hint(Command::Observe(worker, observation));
    }

    /// Tells the task something that it can do without: lost when it is busy, it only means choosing by older facts.
    fn hint(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            self.shared.metrics.left_out("buyer_observations");
        }
    }

    /// These workers have settled receipts with us before, one for each time they are named.
    pub async fn recall(&self, workers: Vec<NodeId>) {
        for worker in workers {
            let _ = self.commands.send(Command::Observe(worker, Observation::Settled)).await;
        }
    }

    /// Jobs that run now.
    pub fn running(&self) -> usize {
        *self.shared.running.borrow()
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

    /// Has `worker` sign the end of a channel, and signs it too: see [`client::close_channel`].
    pub async fn close_channel(
        &self,
        worker: NodeId,
        asked: Closing,
    ) -> Result<(wire_chat::Closed, EvmSignature), client::Cause> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Addresses(worker, reply)).await;
        let addrs = answer.await.unwrap_or_default();
        client::close_channel(&self.shared.client, (worker, &addrs), asked).await
    }

    /// Runs a job from offer to countersigned receipt. Steps go to `events`; dropping its receiver, or setting `cancel`,
    /// cancels the job.
    pub async fn chat(
        &self,
        order: ChatOrder,
        events: &mpsc::Sender<ChatEvent>,
        cancel: &mut watch::Receiver<bool>,
    ) -> Result<ChatReport, ChatError> {
        let mut prepared = Prepared::new(self.with_preferences(order))?;
        let shown = self.shared.jobs.begin(Role::Bought, prepared.job, prepared.order.request.model.clone());
        prepared.shown = Some(shown.job());
        let _running = Running::new(&self.shared.running);
        let span = info_span!("job", job = %prepared.job);
        let request = &prepared.order.request;
        let buying = self.shared.metrics.buying(&request.model, request.task == Asked::EMBEDDINGS, clock::instant());
        let result = self.patiently(&prepared, events, cancel).instrument(span).await;
        buying.ended(bought(&result), clock::instant());
        shown.end(ended::of(&result));
        result
    }

    /// The order, no laxer than this node.
    fn with_preferences(&self, order: ChatOrder) -> ChatOrder {
        let Preferences { trust, standing } = &self.shared.preferences;
        let path = match order.path {
            PathChoice::Auto if !standing => PathChoice::Auction,
            path => path,
        };
        ChatOrder { trust: order.trust.and(trust), path, ..order }
    }

    /// At a standing price, or by auction: one try each, but a second auction if every worker of the first failed.
    async fn once(
        &self,
        prepared: &Prepared,
        events: &mpsc::Sender<ChatEvent>,
        cancel: &mut watch::Receiver<bool>,
    ) -> Result<ChatReport, ChatError> {
        let (mut retries, mut course) = (0, Course::new(prepared.wishes.path));
        if let Some(report) = self.try_standing(prepared, events, cancel, &mut retries, &mut course).await? {
            return Ok(report);
        }
        loop {
            course.auction_held();
            let decided = match self.auction(prepared).await {
                Err(ChatError::NoBids(no)) if no.others && no.refusals.is_empty() && course.may_draw_again() => {
                    debug!(asked = no.asked, "nobody answered; others are asked");
                    continue;
                }
                decided => decided?,
            };
            tell(events, ChatEvent::Auction(Box::new(decided.report.clone()))).await;
            match self.run(decided, prepared, events, cancel, &mut retries).await {
                Err(ChatError::Failed { failure, .. }) if failure.is_retryable() && course.may_auction_again() => {
                    debug!(cause = failure.cause.label(), "every worker of the auction failed");
                }
                result => return result,
            }
        }
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
        self.shared.metrics.auction_started();
        let offer = client.key.sign(&client.network, self.invite(prepared).await?)?;
        let digest = offer.digest();
        let closed = self.offer(offer, prepared).await;
        let (reason, bids) = closing(&closed);
        self.shared.metrics.auction_closed(reason, bids, started.elapsed());
        if closed.is_err() {
            let _ = self.commands.send(Command::Abandon(digest)).await;
        }
        match closed? {
            Closed::Won(won) => {
                let report = AuctionReport::new(&won, started.elapsed());
                info!(winner = %report.winner.short(), bids = won.bids.len(), ms = report.elapsed_ms, "auction: {}", report.reason);
                Ok(Decided { won: *won, report, turn })
            }
            Closed::NoBids { no_bids, asked, others, .. } => {
                let no_bids = self.no_bids(prepared, no_bids, asked).await;
                Err(ChatError::NoBids(Box::new(NoBids { others, ..no_bids })))
            }
        }
    }

    /// The offer of an auction that starts now, with its invitations.
    async fn invite(&self, prepared: &Prepared) -> Result<JobOffer, ChatError> {
        let offer = prepared.offer(clock::now());
        let (reply, invited) = oneshot::channel();
        let command = Command::Invite { offer: Box::new(offer.clone()), wishes: prepared.wishes.clone(), reply };
        self.commands.send(command).await.map_err(|_| ChatError::ShuttingDown)?;
        Ok(JobOffer { invited: invited.await.map_err(|_| ChatError::ShuttingDown)?, ..offer })
    }

    /// Publishes the offer and waits for the auction to close.
    async fn offer(&self, offer: Verified<JobOffer>, prepared: &Prepared) -> Result<Closed, ChatError> {
        let (reply, closed) = oneshot::channel();
        let (raw, topic) = (offer.raw().clone(), topic::jobs(&offer.workload));
        match self.shared.net.publish(topic, raw, offer.window_end()).await {
            Ok(()) => {}
            Err(PublishError::NoPeers) => return Err(ChatError::NoPeers),
            Err(PublishError::Refused(_) | PublishError::Busy) => return Err(ChatError::Busy),
            Err(PublishError::Stopped) => return Err(ChatError::ShuttingDown),
        }
        let command = Command::Open { offer: Box::new(offer), wishes: prepared.wishes.clone(), reply };
        self.commands.send(command).await.map_err(|_| ChatError::ShuttingDown)?;
        closed.await.map_err(|_| ChatError::ShuttingDown)
    }

    async fn no_bids(&self, prepared: &Prepared, refusals: Vec<(NodeId, NoBidReason)>, asked: usize) -> NoBids {
        let (model, ceiling) = (prepared.order.request.model.clone(), prepared.order.ceiling);
        let (reply, survey) = oneshot::channel();
        let trust = prepared.wishes.trust.clone();
        let _ = self.commands.send(Command::Survey { model: model.clone(), trust, reply }).await;
        let Survey { models, cheapest, left_out } = survey.await.unwrap_or_default();
        NoBids {
            model,
            ceiling,
            budget: prepared.order.worst(),
            input_tokens: Estimate::input(prepared.input_tokens),
            max_tokens: prepared.order.request.max_tokens,
            asked,
            refusals,
            cheapest,
            models,
            left_out,
            standing: None,
            others: false,
        }
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
        let mut attempts = Attempts::new(&won);
        let mut last = None;
        while let Some(attempt) = attempts.next(clock::now()) {
            let worker = attempt.bid.signer();
            let deal = self.deal(&attempts, &attempt, &won, prepared)?;
            let accept = deal.accept.clone();
            let mut on_opened = || {
                turn = None;
                self.announce(&accept);
            };
            let (result, said) = self.stream(deal, prepared, events, cancel, &mut on_opened).await;
            match result {
                Ok(completed) => return Ok(self::report(&completed, said, attempt.bid.model.clone(), *retries, report)),
                Err(failure) if failure.is_retryable() => {
                    *retries += 1;
                    self.shared.metrics.retried(failure.cause.label());
                    info!(worker = %worker.short(), cause = failure.cause.label(), "retrying elsewhere");
                    tell(events, ChatEvent::Retry { worker, reason: failure.to_string() }).await;
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

    /// The accept with the rate of the channels to the winner, if there are any and it is not 1.
    fn at_our_rate(&self, accept: JobAccept) -> JobAccept {
        let channels = self.shared.client.tabs.channels();
        let means = channels.means().filter(|means| means.rate != 1 && !channels.to(&accept.winner).is_empty());
        JobAccept { rate: means.map(|means| Rate(means.rate)), ..accept }
    }

    /// The accept of a bid.
    fn deal(&self, attempts: &Attempts, attempt: &Attempt, won: &Won, prepared: &Prepared) -> Result<Deal, ChatError> {
        let client = &self.shared.client;
        let body = self.at_our_rate(attempts.accept_body(attempt, prepared.job, clock::now()));
        Ok(Deal {
            accept: client.key.sign(&client.network, body)?,
            offer: None,
            budget: won.offer.budget,
            deadline: won.offer.deadline,
            addrs: attempt.bid.chat.iter().map(|a| a.0).collect(),
            load: self.shared.loads.begin(attempt.bid.signer()),
        })
    }

    /// Runs the stream to the worker of `deal`, and takes note of how it went.
    async fn stream(
        &self,
        deal: Deal,
        prepared: &Prepared,
        events: &mpsc::Sender<ChatEvent>,
        cancel: &mut watch::Receiver<bool>,
        on_opened: &mut (dyn FnMut() + Send),
    ) -> (Result<client::Completed, Failure>, Said) {
        let (worker, standing) = (deal.accept.winner, deal.offer.is_some());
        let (order, _load) = self.order(deal, prepared);
        let (mut said, mut seen) = (Said::default(), Seen::default());
        let mut on_step = |step: &Progress| {
            said.note(step);
            seen.note(step, &self.shared.metrics);
            if let Some(job) = &prepared.shown {
                ended::note(job, step);
            }
            if matches!(step, Progress::Opened { .. }) {
                on_opened();
            }
        };
        let caller = Caller { on_step: &mut on_step, progress: events, cancel, patience: deadline::TAKE };
        let result = client::run(&self.shared.client, order, caller).await;
        if let Err(failure) = &result {
            prepared.order.lost.add(failure.lost);
        }
        self.observe_result(worker, &result, standing, prepared);
        (result, said)
    }

    fn order(&self, deal: Deal, prepared: &Prepared) -> (Order, Load) {
        let Deal { accept, offer, budget, deadline, addrs, load } = deal;
        let terms = Terms {
            job: accept.job,
            accept: accept.digest(),
            buyer: self.shared.client.key.id(),
            worker: accept.winner,
            workload: topic::INFERENCE.into(),
            model: accept.model.clone(),
            weights: None,
            price: accept.price,
            budget,
            input_tokens: prepared.input_tokens,
            output_tokens: prepared.order.request.max_tokens,
            rate: accept.units_per_micro_usd(),
        };
        let (salt, request) = (prepared.salt, prepared.request.clone());
        (Order { accept, offer, salt, request, terms, addrs, deadline }, load)
    }

    /// Tells everybody who won, in the background: losers free their holds.
    fn announce(&self, accept: &Verified<JobAccept>) {
        let (net, raw, deadline) = (self.shared.net.clone(), accept.raw().clone(), accept.expires);
        tokio::spawn(async move { net.publish(topic::jobs(topic::INFERENCE), raw, deadline).await });
    }

    fn observe_result(&self, worker: NodeId, result: &Result<client::Completed, Failure>, standing: bool, prepared: &Prepared) {
        match lesson(result, standing) {
            Lesson::Nothing => {}
            Lesson::Refused => self.hint(Command::Refused(worker)),
            Lesson::Observed(observation) => {
                self.observe(worker, observation);
                if matches!(observation, Observation::Completed { .. }) {
                    self.hint(Command::Answered(worker, prepared.wishes.clone()));
                }
            }
        }
    }
}

/// What the end of a stream teaches of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// Nothing: we wanted no more, or our own disk failed.
    Nothing,
    /// It has no room at its standing price now, which is no fault of its.
    Refused,
    /// This.
    Observed(Observation),
}

/// What `result` teaches; `standing` tells whether the job came without an auction.
pub fn lesson(result: &Result<client::Completed, Failure>, standing: bool) -> Lesson {
    match result {
        // Ended before the first token, free of charge, since we wanted no more: that shows nothing.
        Ok(completed) if completed.receipt.is_none() => Lesson::Nothing,
        Ok(completed) => {
            let ttft = completed.ttft.unwrap_or(completed.duration);
            let streaming = completed.duration.saturating_sub(ttft).as_secs_f64();
            let after_first = f64::from(completed.usage.output_tokens.saturating_sub(1));
            // Too few tokens tell nothing about speed; the estimate then stays what it was.
            let tps = if streaming > 0.0 { (after_first / streaming) as u32 } else { 0 };
            Lesson::Observed(Observation::Completed { ttft_ms: millis(ttft) as u32, tps })
        }
        Err(failure) if matches!(failure.cause, client::Cause::Cancelled | client::Cause::Keep(_)) => Lesson::Nothing,
        Err(failure) if standing && failure.is_refusal() => Lesson::Refused,
        Err(_) => Lesson::Observed(Observation::Failed),
    }
}

fn report(completed: &client::Completed, said: Said, model: String, retries: u32, auction: AuctionReport) -> ChatReport {
    ChatReport {
        answer: said.answer,
        reasoning: said.reasoning,
        tool_calls: said.tool_calls,
        model,
        stream: StreamReport::new(completed, retries),
        receipt: completed.receipt.as_ref().map(ReceiptReport::from),
        auction,
    }
}

/// What a stream has told so far, for the metrics.
#[derive(Default)]
struct Seen {
    tokens: u32,
}

impl Seen {
    fn note(&mut self, step: &Progress, metrics: &Metrics) {
        let tokens = match step {
            Progress::Opened { path, .. } => return metrics.opened(path.label()),
            Progress::Resumed { path, .. } => return metrics.resumed(path.label()),
            Progress::Text { tokens, .. } => *tokens,
            Progress::ToolCall(call) => call.tokens,
            Progress::Embedding(_) | Progress::Usage(_) => return,
        };
        metrics.bought_tokens(tokens.saturating_sub(self.tokens));
        self.tokens = tokens;
    }
}

/// A job's end, for the metrics.
fn bought(result: &Result<ChatReport, ChatError>) -> Bought {
    match result {
        Ok(report) => {
            let receipt = report.receipt.as_ref();
            let finish = report.stream.finish.clone();
            Bought {
                failed: !["stop", "length", "tool_calls"].contains(&finish.as_str()),
                outcome: finish.into(),
                tokens: receipt.map(|receipt| (receipt.input_tokens, receipt.output_tokens)),
                amount: receipt.map_or(MicroUsd(0), ReceiptReport::amount),
            }
        }
        Err(error) => Bought { outcome: error.label().into(), tokens: None, amount: MicroUsd(0), failed: true },
    }
}

/// Why an auction closed, and how many bid, for the metrics.
fn closing(closed: &Result<Closed, ChatError>) -> (&'static str, usize) {
    match closed {
        Ok(Closed::Won(won)) => (won.reason.label(), won.bids.len()),
        Ok(Closed::NoBids { .. }) => ("no_bids", 0),
        Err(error) => (error.label(), 0),
    }
}

/// Tells the caller of a step before the stream. Nobody waits for one that takes nothing.
async fn tell(events: &mpsc::Sender<ChatEvent>, event: ChatEvent) {
    let _ = timeout(deadline::TAKE, events.send(event)).await;
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
