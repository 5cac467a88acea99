//! The buyer's role: drives [`market::buyer`](crate::market::buyer) and the attempts of each job.
//!
//! One task owns the decider: ads, answers and timers go in, closed auctions come out. A job is a plain async function in its
//! caller's task: offer → auction → accept → stream; if a worker fails before its first token the next runner-up gets a new
//! accept, and if none is left there is one more auction. The caller sees one answer.
//!
//! A buyer holds **one auction at a time**, until its winner has opened: workers keep one hold per buyer, so a second offer
//! would take back the first one's hold.

use crate::{
    chat::client::{self, Caller, Failure, Order, Progress},
    chat::session::Terms,
    clock,
    market::{
        auction::{AnswerRefused, Closed, Won},
        buyer::{self as market, Input, Observation, Output},
        job::{Attempt, Attempts},
        registry::{self, KnownModel},
    },
    net::{Net, PublishError},
    report::{AuctionReport, ChatReport, ReceiptReport, StreamReport, millis},
};
use infernet_wire::{
    bid::{Answer, NoBidReason},
    capability::Abilities,
    chat::{BadRequest, Channel, ChatMessage, ChatRequest},
    envelope::{Refusal, Verified},
    id::{Hash, JobId, NodeId, OfferId},
    limits,
    money::{MicroUsd, Price},
    offer::{JobOffer, SelectionRule, commitment},
    time::UnixMillis,
    topic,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tracing::{Instrument, debug, info, info_span};

/// Messages waiting for the task: answers of several auctions and the ads of a large network's refresh.
const QUEUE: usize = 1_024;
/// Auctions for one job: one more if every worker of the first failed.
const MAX_AUCTIONS: u32 = 2;
/// Models that an error names at most.
const MAX_NAMES: usize = 20;
/// How long a job waits for its turn to hold an auction: sixteen jobs before it, each with a full window.
const TURN: Duration = Duration::from_secs(30);
/// The bid window asked for when the caller names none. Auctions close earlier as soon as waiting does not pay.
pub const DEFAULT_WINDOW_MS: u16 = 1_000;
/// How long a job waits for a first peer.
const JOIN_MS: u64 = 10_000;
/// How long the whole answer may take when the caller names no deadline.
const DEFAULT_DEADLINE_MS: u64 = 10 * 60_000;

/// What a caller wants done.
#[derive(Debug, Clone)]
pub struct ChatOrder {
    /// The model: an id or alias.
    pub model: String,
    /// The conversation.
    pub messages: Vec<ChatMessage>,
    /// The most output tokens.
    pub max_tokens: u32,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Sampling seed.
    pub seed: Option<i64>,
    /// Stop sequences.
    pub stop: Vec<String>,
    /// The most to pay per million tokens.
    pub ceiling: Price,
    /// The most to pay for the job; the ceiling's worst case if absent.
    pub budget: Option<MicroUsd>,
    /// How to choose.
    pub rule: SelectionRule,
    /// How long to collect bids at most, in milliseconds.
    pub window_ms: u16,
}

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

/// Why a job has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The request itself.
    #[error("{0}")]
    Request(#[from] BadRequest),
    /// The offer can't be signed.
    #[error("the offer is not valid: {0}; shorten the model's name or ask for fewer tokens")]
    Offer(#[from] Refusal),
    /// Nobody to ask.
    #[error("no peers: nobody heard the offer within {} s; name a --bootstrap address or check the network", JOIN_MS / 1000)]
    NoPeers,
    /// Nobody wants to.
    #[error("{}", no_bids(.0))]
    NoBids(Box<NoBids>),
    /// Too many jobs wait for their auction.
    #[error(
        "busy: this node has more jobs waiting for their auction than workers allow one buyer (five a second); try again later"
    )]
    Busy,
    /// A worker failed and no other could take over.
    #[error("{failure}{}", if failure.after_first_token { "; the answer so far is incomplete" } else { "; no other worker could take over, try again" })]
    Failed {
        /// The last failure.
        failure: Failure,
        /// What had arrived.
        partial: String,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// What is known when nobody bid.
#[derive(Debug, Clone)]
pub struct NoBids {
    /// The model asked for.
    pub model: String,
    /// The ceiling asked for.
    pub ceiling: Price,
    /// Workers known to serve the model.
    pub asked: usize,
    /// Who refused, and why.
    pub refusals: Vec<(NodeId, NoBidReason)>,
    /// What the model costs at the cheapest known worker.
    pub cheapest: Option<Price>,
    /// Models that somebody serves.
    pub models: Vec<String>,
}

impl NoBids {
    /// Whether a higher ceiling or budget would have brought a bid.
    pub fn is_too_cheap(&self) -> bool {
        let by_price = |r: &NoBidReason| matches!(*r, NoBidReason::CEILING_TOO_LOW | NoBidReason::BUDGET_TOO_LOW);
        self.cheapest.is_some_and(|price| !price.within(&self.ceiling)) || self.refusals.iter().any(|(_, r)| by_price(r))
    }

    /// Whether everybody refused because prompt and answer are too long.
    fn is_too_long(&self) -> bool {
        !self.refusals.is_empty() && self.refusals.iter().all(|(_, r)| *r == NoBidReason::CONTEXT_TOO_LONG)
    }
}

fn no_bids(no: &NoBids) -> String {
    let NoBids { model, ceiling, cheapest, refusals, models, .. } = no;
    match cheapest {
        Some(price) if !price.within(ceiling) => format!(
            "no bids: the cheapest {model} costs {} in and {} out per million tokens, above your ceiling of {} and {}; raise --max-price",
            price.input.0, price.output.0, ceiling.input.0, ceiling.output.0
        ),
        _ if no.is_too_cheap() => {
            format!("no bids: the price ceiling or budget is too low for {model}; raise --max-price or --budget")
        }
        _ if no.is_too_long() => format!(
            "no bids: prompt and answer don't fit the context of the workers that serve {model}; lower --max-tokens or shorten the prompt"
        ),
        Some(_) if refusals.is_empty() => format!("no bids: the workers that serve {model} did not answer; try again"),
        _ if !refusals.is_empty() => {
            format!("no bids: the workers that serve {model} refused ({}); try again later", reasons(refusals))
        }
        _ if models.is_empty() => {
            format!("no bids for {model}: no worker is known yet; see `infernet peers` and `infernet models`")
        }
        _ => format!("no bids: no known worker serves {model}; known models: {}", models.join(", ")),
    }
}

fn reasons(refusals: &[(NodeId, NoBidReason)]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    refusals.iter().for_each(|(_, reason)| *counts.entry(reason.label()).or_default() += 1);
    counts.iter().map(|(reason, n)| format!("{n} × {reason}")).collect::<Vec<_>>().join(", ")
}

/// A request ready to be offered: its bytes, and the salt that hides it in the offer.
#[derive(Clone)]
pub struct Prepared {
    order: ChatOrder,
    request: Vec<u8>,
    salt: [u8; 32],
    input_tokens: u32,
    job: JobId,
}

impl Prepared {
    /// Checks and encodes `order`.
    pub fn new(order: ChatOrder) -> Result<Self, ChatError> {
        let request = ChatRequest {
            model: order.model.clone(),
            messages: order.messages.clone(),
            max_tokens: order.max_tokens,
            temperature: order.temperature,
            top_p: order.top_p,
            seed: order.seed,
            stop: order.stop.clone(),
        };
        let input_tokens = request.input_token_bound();
        let request = request.encode()?;
        Ok(Prepared { order, request, salt: clock::random(), input_tokens, job: JobId(clock::random()) })
    }

    fn budget(&self) -> MicroUsd {
        let worst = self.order.ceiling.cost(self.input_tokens, self.order.max_tokens).unwrap_or(MicroUsd(u64::MAX));
        self.order.budget.unwrap_or(worst)
    }

    fn offer(&self, now: UnixMillis) -> JobOffer {
        JobOffer {
            id: OfferId(clock::random()),
            issued: now,
            expires: now.after(limits::OFFER_TTL_MS),
            workload: topic::INFERENCE.into(),
            model: self.order.model.clone(),
            abilities: Abilities::default(),
            input_tokens: self.input_tokens,
            output_tokens: self.order.max_tokens,
            ceiling: self.order.ceiling,
            budget: self.budget(),
            deadline: now.after(DEFAULT_DEADLINE_MS),
            window_ms: self.order.window_ms,
            rule: self.order.rule,
            commitment: commitment(&self.salt, &self.request),
        }
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

enum Command {
    Input(Box<Input>),
    Open { offer: Box<Verified<JobOffer>>, reply: oneshot::Sender<Closed> },
    Abandon(Hash),
    Observe(NodeId, Observation),
    Known(oneshot::Sender<Vec<KnownModel>>),
    Survey { model: String, reply: oneshot::Sender<(Vec<String>, Option<Price>)> },
}

impl Buyer {
    /// Starts the task. It ends when every handle is gone.
    pub fn spawn(client: client::Buyer, net: Net) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let span = info_span!("buyer", me = %client.key.id().short());
        let task = Task {
            market: market::Buyer::new(registry::MAX_ADS),
            replies: BTreeMap::new(),
            early: VecDeque::new(),
            wake: None,
            pool: client.pool.clone(),
        };
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
        let _ = self.commands.send(Command::Survey { model: order.model.clone(), reply }).await;
        let (models, cheapest) = survey.await.unwrap_or_default();
        NoBids { model: order.model.clone(), ceiling: order.ceiling, asked, refusals, cheapest, models }
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
            let (tap, taken) = Tap::new(events.clone());
            let attempted = self.attempt(&attempts, &attempt, &offer, prepared, tap, cancel, &mut turn);
            let (result, (answer, reasoning)) = tokio::join!(attempted, taken.collect());
            match result {
                Ok(completed) => {
                    return Ok(ChatReport {
                        answer,
                        reasoning,
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
                Err(failure) => return Err(ChatError::Failed { failure, partial: answer }),
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
        tap: Tap,
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
                output_tokens: prepared.order.max_tokens,
            },
            salt: prepared.salt,
            request: prepared.request.clone(),
            addrs: attempt.bid.chat.iter().map(|a| a.0).collect(),
            deadline: offer.deadline,
            accept: accept.clone(),
        };
        let mut on_opened = || {
            *turn = None;
            self.announce(&accept);
        };
        let caller = Caller { progress: &tap.events, cancel, on_opened: &mut on_opened };
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

/// Passes progress on to the caller and keeps the text for the report.
struct Tap {
    events: mpsc::Sender<ChatEvent>,
}

struct Taken {
    events: mpsc::Receiver<ChatEvent>,
    caller: mpsc::Sender<ChatEvent>,
}

impl Tap {
    /// Capacity 1: a caller that does not read must slow the worker down, not fill memory.
    fn new(caller: mpsc::Sender<ChatEvent>) -> (Self, Taken) {
        let (events, inner) = mpsc::channel(1);
        (Tap { events }, Taken { events: inner, caller })
    }
}

impl Taken {
    /// Answer and reasoning, once the stream is over. A caller that goes away closes the stream too.
    async fn collect(mut self) -> (String, String) {
        let (mut answer, mut reasoning) = (String::new(), String::new());
        while let Some(event) = self.events.recv().await {
            if let ChatEvent::Stream(Progress::Text { channel, text, .. }) = &event {
                if *channel == Channel::REASONING { reasoning.push_str(text) } else { answer.push_str(text) }
            }
            if self.caller.send(event).await.is_err() {
                break;
            }
        }
        (answer, reasoning)
    }
}

struct Task {
    market: market::Buyer,
    replies: BTreeMap<Hash, oneshot::Sender<Closed>>,
    /// Answers that overtook the news that their offer is out.
    early: VecDeque<Answer>,
    wake: Option<UnixMillis>,
    pool: crate::chat::pool::Pool,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            let next = self.wake.unwrap_or(UnixMillis(u64::MAX));
            tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = sleep(clock::until(next)) => {
                    self.wake = None;
                    self.handle(Input::Wake);
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Input(input) => match *input {
                Input::Answer(answer) => self.on_answer(answer),
                input => {
                    self.handle(input);
                }
            },
            Command::Open { offer, reply } => {
                let digest = offer.digest();
                self.replies.insert(digest, reply);
                self.handle(Input::Open(*offer));
                let (mine, others): (VecDeque<_>, VecDeque<_>) = self.early.drain(..).partition(|a| a.offer() == digest);
                self.early = others;
                for answer in mine {
                    self.handle(Input::Answer(answer));
                }
            }
            Command::Abandon(offer) => {
                self.replies.remove(&offer);
                self.handle(Input::Abandon(offer));
            }
            Command::Observe(worker, observation) => self.market.observe(worker, observation),
            Command::Known(reply) => {
                let _ = reply.send(self.market.registry().known_models(clock::now()));
            }
            Command::Survey { model, reply } => {
                let _ = reply.send(self.survey(&model));
            }
        }
    }

    /// Some models that are known, and the cheapest price of the one asked for.
    fn survey(&self, model: &str) -> (Vec<String>, Option<Price>) {
        let (registry, now) = (self.market.registry(), clock::now());
        let names = registry.known_models(now).into_iter().map(|m| m.id).take(MAX_NAMES).collect();
        let serving = registry.workers(now).flat_map(|(_, ad)| &ad.models).filter(|m| m.answers_to(model));
        (names, serving.map(|m| m.price).min_by_key(|p| (p.output, p.input)))
    }

    fn on_answer(&mut self, answer: Answer) {
        if let Answer::Bid(bid) = &answer {
            let addrs: Vec<_> = bid.chat.iter().map(|a| a.0).collect();
            self.pool.warm(bid.signer(), &addrs);
        }
        let unknown = self.handle(Input::Answer(answer.clone()));
        if unknown {
            if self.early.len() >= limits::MAX_BIDDERS * 2 {
                self.early.pop_front();
            }
            self.early.push_back(answer);
        }
    }

    /// Carries out what the decider says. Whether it was an answer to an offer that the decider does not know (yet).
    fn handle(&mut self, input: Input) -> bool {
        let mut unknown = false;
        for output in self.market.handle(input, clock::now()) {
            match output {
                Output::Wake { at } => self.wake = Some(at),
                Output::Busy { offer } => drop(self.replies.remove(&offer)),
                Output::Closed { offer, outcome } => {
                    if let Some(reply) = self.replies.remove(&offer) {
                        let _ = reply.send(outcome);
                    }
                }
                Output::Refused { worker, reason } => {
                    unknown |= reason == AnswerRefused::WrongOffer;
                    debug!(worker = %worker.short(), %reason, "answer refused");
                }
            }
        }
        unknown
    }
}
