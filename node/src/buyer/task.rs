//! The task that owns the decider.

use super::{loads::Loads, standing::Booked};
use crate::{
    chat::pool::Pool,
    clock,
    market::{
        affinity::Conversation,
        auction::{AnswerRefused, Closed},
        buyer::{self as market, Input, Observation, Output, Wishes},
        registry::{self, KnownModel},
        standing::NotStanding,
        trust::{LeftOut, Trust},
    },
    metrics::Metrics,
    net::Net,
};
use infernet_wire::{
    bid::Answer,
    envelope::Verified,
    id::{Hash, NodeId},
    limits,
    money::Price,
    offer::{Invitation, JobOffer},
    time::UnixMillis,
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::debug;

/// A handshake with a relay, and one through it.
const MEET_MS: u64 = 10_000;
/// Models that an error names at most.
const MAX_NAMES: usize = 20;

/// What the task is told.
pub(super) enum Command {
    /// Something was heard.
    Input(Box<Input>),
    /// Whom should this offer invite?
    Invite { offer: Box<JobOffer>, wishes: Arc<Wishes>, reply: oneshot::Sender<Vec<Invitation>> },
    /// Our own offer is out.
    Open { offer: Box<Verified<JobOffer>>, wishes: Arc<Wishes>, reply: oneshot::Sender<Closed> },
    /// Whose ad to accept for this offer, without an auction?
    Choose {
        offer: Box<JobOffer>,
        wishes: Arc<Wishes>,
        excluded: Vec<NodeId>,
        reply: oneshot::Sender<Result<Booked, NotStanding>>,
    },
    /// A worker has no room for a job at its standing price.
    Refused(NodeId),
    /// A worker has answered a conversation.
    Answered(NodeId, Arc<Wishes>),
    /// Nobody waits for this auction any more.
    Abandon(Hash),
    /// How a worker behaved.
    Observe(NodeId, Observation),
    /// Where does this worker say that its chat endpoint is?
    Addresses(NodeId, oneshot::Sender<Vec<SocketAddr>>),
    /// Which models are there?
    Known(oneshot::Sender<Vec<KnownModel>>),
    /// What is known of this model?
    Survey { model: String, trust: Trust, reply: oneshot::Sender<Survey> },
}

/// What there is to know when nobody bid.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Some models that somebody serves.
    pub(super) models: Vec<String>,
    /// The cheapest price of the one asked for.
    pub(super) cheapest: Option<Price>,
    /// Workers that serve it and are left out, by filter.
    pub(super) left_out: BTreeMap<LeftOut, usize>,
}

pub(super) struct Task {
    market: market::Buyer,
    replies: BTreeMap<Hash, oneshot::Sender<Closed>>,
    /// Answers that overtook the news that their offer is out.
    early: VecDeque<Answer>,
    wake: Option<UnixMillis>,
    pool: Pool,
    net: Net,
    loads: Loads,
    metrics: Metrics,
    me: NodeId,
}

impl Task {
    /// A task of the node of `net` that knows nobody yet, warms connections in `pool` and counts jobs in `loads`.
    pub(super) fn new(net: Net, pool: Pool, loads: Loads, metrics: Metrics) -> Self {
        let me = net.id();
        let market = market::Buyer::new(registry::MAX_ADS);
        Task { market, replies: BTreeMap::new(), early: VecDeque::new(), wake: None, pool, net, loads, metrics, me }
    }

    /// Runs until every handle is gone.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
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
                // Ours were counted when the jobs ended.
                Input::Receipt(receipt) if receipt.receipt().buyer == self.me => {}
                Input::Ad(ad) => {
                    let worker = ad.signer();
                    self.handle(Input::Ad(ad));
                    self.keep_warm(&worker);
                }
                input => {
                    self.handle(input);
                }
            },
            Command::Invite { offer, wishes, reply } => {
                let _ = reply.send(self.market.invite(&offer, &wishes, clock::now()));
            }
            Command::Open { offer, wishes, reply } => {
                let digest = offer.digest();
                self.replies.insert(digest, reply);
                self.handle(Input::Open(*offer, wishes));
                let (mine, others): (VecDeque<_>, VecDeque<_>) = self.early.drain(..).partition(|a| a.offer() == digest);
                self.early = others;
                for answer in mine {
                    self.handle(Input::Answer(answer));
                }
            }
            Command::Addresses(worker, reply) => {
                let ad = self.market.registry().get(&worker, clock::now());
                let addresses = ad.map(|ad| ad.chat.iter().map(|address| address.0).collect());
                let _ = reply.send(addresses.unwrap_or_default());
            }
            Command::Abandon(offer) => {
                self.replies.remove(&offer);
                self.handle(Input::Abandon(offer));
            }
            Command::Choose { offer, wishes, excluded, reply } => {
                let _ = reply.send(self.choose(&offer, &wishes, &excluded));
            }
            Command::Refused(worker) => self.market.refused_standing(worker, clock::now()),
            Command::Answered(worker, wishes) => self.on_answered(&wishes.conversation, worker),
            Command::Observe(worker, observation) => {
                self.market.observe(worker, observation);
                self.keep_warm(&worker);
            }
            Command::Known(reply) => {
                let _ = reply.send(self.market.registry().known_models(clock::now()));
            }
            Command::Survey { model, trust, reply } => {
                let _ = reply.send(self.survey(&model, &trust));
            }
        }
    }

    /// The job is counted with its worker from here on, so that two who ask at once do not get the same slot.
    fn choose(&mut self, offer: &JobOffer, wishes: &Wishes, excluded: &[NodeId]) -> Result<Booked, NotStanding> {
        let loads = &self.loads;
        let choice = self.market.standing(offer, wishes, excluded, |worker| loads.of(worker), clock::now())?;
        Ok(Booked { load: loads.begin(choice.worker), choice })
    }

    fn on_answered(&mut self, conversation: &Conversation, worker: NodeId) {
        self.market.answered(conversation, worker, clock::now());
    }

    /// The next job of a proven worker is to find its connection made.
    fn keep_warm(&self, worker: &NodeId) {
        if self.market.is_proven(worker)
            && let Some(ad) = self.market.registry().get(worker, clock::now())
        {
            match ad.chat.as_slice() {
                [] => self.meet(*worker),
                chat => self.pool.keep(*worker, chat.iter().map(|address| address.0).collect()),
            }
        }
    }

    /// A worker that has no chat endpoint is met in the mesh, where its ad says that it is: through a relay, perhaps.
    fn meet(&self, worker: NodeId) {
        let net = self.net.clone();
        tokio::spawn(async move {
            match net.connect(worker, Vec::new(), clock::now().after(MEET_MS)).await {
                Some(peer) => debug!(worker = %worker.short(), path = %peer.path, "met"),
                None => debug!(worker = %worker.short(), "can't be met"),
            }
        });
    }

    fn survey(&self, model: &str, trust: &Trust) -> Survey {
        let (registry, now) = (self.market.registry(), clock::now());
        let serving = registry.workers(now).flat_map(|(_, ad)| &ad.models).filter(|m| m.answers_to(model));
        Survey {
            models: registry.known_models(now).into_iter().map(|m| m.id).take(MAX_NAMES).collect(),
            cheapest: serving.map(|m| m.price).min_by_key(|p| (p.output, p.input)),
            left_out: self.market.left_out(model, trust, now),
        }
    }

    fn on_answer(&mut self, answer: Answer) {
        if let Answer::Bid(bid) = &answer {
            let addrs: Vec<_> = bid.chat.iter().map(|a| a.0).collect();
            if addrs.is_empty() {
                self.meet(bid.signer());
            } else {
                self.pool.warm(bid.signer(), &addrs);
            }
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
                    // Of these, some are only early.
                    let is_unknown = reason == AnswerRefused::WrongOffer;
                    if !is_unknown {
                        self.metrics.answer_refused(reason.label());
                    }
                    unknown |= is_unknown;
                    debug!(worker = %worker.short(), %reason, "answer refused");
                }
            }
        }
        unknown
    }
}
