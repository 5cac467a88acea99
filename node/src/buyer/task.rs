//! The task that owns the decider.

use crate::{
    chat::pool::Pool,
    clock,
    market::{
        auction::{AnswerRefused, Closed},
        buyer::{self as market, Input, Observation, Output},
        registry::{self, KnownModel},
    },
};
use infernet_wire::{
    bid::Answer,
    envelope::Verified,
    id::{Hash, NodeId},
    limits,
    money::Price,
    offer::JobOffer,
    time::UnixMillis,
};
use std::collections::{BTreeMap, VecDeque};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::debug;

/// Models that an error names at most.
const MAX_NAMES: usize = 20;

/// What the task is told.
pub(super) enum Command {
    /// Something was heard.
    Input(Box<Input>),
    /// Our own offer is out.
    Open { offer: Box<Verified<JobOffer>>, reply: oneshot::Sender<Closed> },
    /// Nobody waits for this auction any more.
    Abandon(Hash),
    /// How a worker behaved.
    Observe(NodeId, Observation),
    /// Which models are there?
    Known(oneshot::Sender<Vec<KnownModel>>),
    /// Some models, and the cheapest price of this one?
    Survey { model: String, reply: oneshot::Sender<(Vec<String>, Option<Price>)> },
}

pub(super) struct Task {
    market: market::Buyer,
    replies: BTreeMap<Hash, oneshot::Sender<Closed>>,
    /// Answers that overtook the news that their offer is out.
    early: VecDeque<Answer>,
    wake: Option<UnixMillis>,
    pool: Pool,
}

impl Task {
    /// A task that knows nobody yet, and warms connections in `pool`.
    pub(super) fn new(pool: Pool) -> Self {
        let market = market::Buyer::new(registry::MAX_ADS);
        Task { market, replies: BTreeMap::new(), early: VecDeque::new(), wake: None, pool }
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
