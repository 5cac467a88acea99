//! A buyer's node: drives `market::buyer`, `market::job`, `market::course` and `chat::session` as `buyer.rs` and
//! `chat/client.rs` do, on virtual time. Jobs and auctions are here, streams in `attempt`.

mod attempt;
mod purse;
mod waiting;

pub use attempt::Attempt;

use super::{
    JobNo, StreamNo, Who, World,
    check::Invariant,
    event::Timer,
    gossip::Said,
    job::{self, End, Job, Phase},
    plant::Plant,
};
use infernet_node::{
    buyer::{Lesson, NoBids, TURN, lesson},
    chat::client::{Cause, Completed, Failure},
    market::{
        auction::{AnswerRefused, Closed, Won},
        buyer::{Buyer, Input, Observation, Output},
        job::Attempts,
    },
    settlement::tab::PayerTab,
};
use infernet_wire::{
    bid::{Answer, NoBidReason},
    chat::FinishReason,
    id::{Hash, NodeId, OfferId},
    money::MicroUsd,
    standing::StandingOffer,
    time::UnixMillis,
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
};

/// Where simulated workers would answer. Nobody dials it.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// See the module.
pub struct Buying {
    /// The decider.
    pub market: Buyer,
    loads: BTreeMap<NodeId, u32>,
    /// The job whose turn it is to hold an auction, and those that wait.
    pub turn: Option<JobNo>,
    /// Jobs that wait for their turn.
    pub waiting: VecDeque<JobNo>,
    auctions: BTreeMap<Hash, JobNo>,
    /// Its streams.
    pub running: BTreeMap<StreamNo, Attempt>,
    /// What it has promised to workers.
    pub payers: BTreeMap<NodeId, PayerTab>,
    /// Connections to workers: when they are made, and to which life of the worker.
    connections: BTreeMap<NodeId, (u64, u32)>,
    wake: Option<UnixMillis>,
}

impl Buying {
    /// A buyer that knows nobody, and keeps `max_ads` ads.
    pub fn new(max_ads: usize) -> Self {
        Buying {
            market: Buyer::new(max_ads),
            loads: BTreeMap::new(),
            turn: None,
            waiting: VecDeque::new(),
            auctions: BTreeMap::new(),
            running: BTreeMap::new(),
            payers: BTreeMap::new(),
            connections: BTreeMap::new(),
            wake: None,
        }
    }
}

impl World {
    fn buying(&mut self, who: Who) -> Option<&mut Buying> {
        self.member_mut(who).buyer.as_deref_mut()
    }

    fn job(&self, no: JobNo) -> &Job {
        self.jobs.get(no as usize).expect("jobs are never removed")
    }

    fn job_mut(&mut self, no: JobNo) -> &mut Job {
        self.jobs.get_mut(no as usize).expect("jobs are never removed")
    }

    /// A job begins, or goes on after an ad that came to nothing.
    pub(super) fn proceed(&mut self, no: JobNo) {
        let who = self.job(no).buyer;
        if let Some(tried) = self.job(no).course.next_ad().map(<[NodeId]>::to_vec) {
            let now = self.local(who);
            let (id, job) = (OfferId(self.dice.bytes()), self.job(no));
            let (offer, wishes) = (job.order.offer(id, now), job.order.wishes.clone());
            let Some(buying) = self.buying(who) else { return };
            let loads = &buying.loads;
            let running = |worker: &NodeId| loads.get(worker).copied().unwrap_or_default();
            match buying.market.standing(&offer, &wishes, &tried, running, now) {
                Ok(choice) => {
                    self.job_mut(no).course.ad_tried(choice.worker);
                    self.note(who, "takes an ad", &[("job", no.into()), ("score", choice.score)]);
                    let offer = StandingOffer::new(offer).expect("an order's offer is within limits");
                    let accept = choice.accept_body(&offer, self.job(no).id, now);
                    let deal = (offer.budget, offer.deadline);
                    return self.open_stream(no, accept, Some(offer), deal);
                }
                Err(reason) => self.stats.count("not_standing", reason.label()),
            }
        }
        if self.job(no).course.may_auction() {
            self.want_auction(no);
        } else {
            self.end(no, End::Failed("no_standing"));
        }
    }

    fn want_auction(&mut self, no: JobNo) {
        let (who, until) = (self.job(no).buyer, self.ms + TURN.as_millis() as u64);
        self.set_phase(no, Phase::Queued);
        let Some(buying) = self.buying(who) else { return };
        if buying.turn.is_some() {
            buying.waiting.push_back(no);
            self.aim(no, Phase::Queued);
            return self.set(who, until, Timer::Turn(no));
        }
        buying.turn = Some(no);
        self.hold_auction(no);
    }

    /// A job has waited for its turn for too long.
    pub(super) fn on_turn_missed(&mut self, who: Who, no: JobNo) {
        let Some(buying) = self.buying(who) else { return };
        let before = buying.waiting.len();
        buying.waiting.retain(|waiting| *waiting != no);
        if buying.waiting.len() < before {
            self.wait_or_fail(no, "busy");
        }
    }

    fn give_turn_back(&mut self, no: JobNo) {
        let who = self.job(no).buyer;
        let Some(buying) = self.buying(who).filter(|buying| buying.turn == Some(no)) else { return };
        buying.turn = buying.waiting.pop_front();
        if let Some(next) = buying.turn {
            self.hold_auction(next);
        }
    }

    fn hold_auction(&mut self, no: JobNo) {
        let (who, id) = (self.job(no).buyer, OfferId(self.dice.bytes()));
        let now = self.local(who);
        self.job_mut(no).course.auction_held();
        self.job_mut(no).auctioned = self.ms;
        let mut body = self.job(no).order.offer(id, now);
        let wishes = self.job(no).order.wishes.clone();
        let Some(buying) = self.buying(who) else { return };
        body.invited = buying.market.invite(&body, &wishes, now);
        let offer = self.sign(who, body);
        self.set_phase(no, Phase::Auction);
        self.stats.auctions += 1;
        self.note(who, "offers", &[("job", no.into())]);
        if !self.publish(who, Said::Offer(offer.clone())) {
            self.wait_or_fail(no, "no_peers");
            return self.give_turn_back(no);
        }
        let Some(buying) = self.buying(who) else { return };
        buying.auctions.insert(offer.digest(), no);
        if self.is_honest(who) {
            self.stats.offers.insert(offer.digest());
        }
        self.tell_buyer(who, Input::Open(offer, wishes));
    }

    /// Tells a buyer's decider, and carries out what it says.
    pub(super) fn tell_buyer(&mut self, who: Who, input: Input) {
        let now = self.local(who);
        let max_ads = self.scenario.market.max_ads;
        if let Input::Answer(answer @ Answer::Bid(_)) = &input {
            // Its connection is made by the time it wins.
            self.connect(who, answer.signer());
        }
        let Some(buying) = self.buying(who) else { return };
        let outputs = buying.market.handle(input, now);
        let (known, open) = (buying.market.registry().len(), buying.market.open_auctions());
        let ms = self.ms;
        self.checks.ensure(
            known <= max_ads && open <= infernet_node::market::buyer::MAX_OPEN_AUCTIONS,
            Invariant::Bounded,
            ms,
            || format!("buyer {who} keeps {known} ads of {max_ads}, {open} auctions"),
        );
        for output in outputs {
            self.on_buyer_output(who, output);
        }
    }

    fn on_buyer_output(&mut self, who: Who, output: Output) {
        match output {
            Output::Wake { at } => {
                let virtual_ms = self.member(who).virtual_ms(at);
                if let Some(buying) = self.buying(who) {
                    buying.wake = Some(at);
                }
                self.set(who, virtual_ms, Timer::BuyerWake);
            }
            Output::Closed { offer, outcome } => {
                if let Some(no) = self.buying(who).and_then(|buying| buying.auctions.remove(&offer)) {
                    self.on_closed(no, outcome);
                }
            }
            Output::Busy { offer } => {
                if let Some(no) = self.buying(who).and_then(|buying| buying.auctions.remove(&offer)) {
                    self.wait_or_fail(no, "busy");
                    self.give_turn_back(no);
                }
            }
            Output::Refused { reason, .. } => {
                self.stats.count("answer_refused", reason.label());
                self.stats.late_bids += u64::from(reason == AnswerRefused::Late);
            }
        }
    }

    /// The decider's wake, unless it has named another since.
    pub(super) fn on_buyer_wake(&mut self, who: Who) {
        let now = self.local(who);
        if let Some(buying) = self.buying(who)
            && buying.wake.is_some_and(|at| at <= now)
        {
            buying.wake = None;
            self.tell_buyer(who, Input::Wake);
        }
    }

    fn on_closed(&mut self, no: JobNo, outcome: Closed) {
        let who = self.job(no).buyer;
        match outcome {
            Closed::Won(won) => {
                let facts = [
                    ("job", u64::from(no)),
                    ("bids", won.bids.len() as u64),
                    ("ms", won.elapsed_ms),
                    ("score", won.ranking.first().map_or(0, |best| best.score)),
                ];
                self.note(who, "decides", &facts);
                self.on_won(no, &won);
            }
            Closed::NoBids { no_bids, asked, elapsed_ms, others, .. } => {
                let facts =
                    [("job", no.into()), ("refusals", no_bids.len() as u64), ("asked", asked as u64), ("ms", elapsed_ms)];
                self.note(who, "got no bids", &facts);
                self.stats.no_bids += 1;
                if no_bids.is_empty() && others && self.job_mut(no).course.may_draw_again() {
                    return self.hold_auction(no);
                }
                if self.no_bids(no, no_bids, asked).passes() {
                    self.wait_or_fail(no, "no_bids");
                } else {
                    self.end(no, End::Failed("no_bids"));
                }
                self.give_turn_back(no);
            }
        }
    }

    /// What the node would know then.
    fn no_bids(&self, no: JobNo, refusals: Vec<(NodeId, NoBidReason)>, asked: usize) -> NoBids {
        let Job { buyer, order, .. } = self.job(no);
        let (model, ceiling, now) = (order.model.clone(), order.ceiling, self.local(*buyer));
        let known = NoBids { model, ceiling, asked, refusals, ..NoBids::default() };
        let Some(Buying { market, .. }) = self.member(*buyer).buyer.as_deref() else { return known };
        let registry = market.registry();
        let serving = registry.workers(now).flat_map(|(_, ad)| &ad.models).filter(|offered| offered.answers_to(&known.model));
        NoBids {
            cheapest: serving.map(|offered| offered.price).min_by_key(|price| (price.output, price.input)),
            models: registry.known_models(now).into_iter().map(|offered| offered.id).collect(),
            left_out: market.left_out(&known.model, &order.wishes.trust, now),
            ..known
        }
    }

    fn on_won(&mut self, no: JobNo, won: &Won) {
        self.measure_auction(no, won);
        let job = self.job_mut(no);
        job.won = Some((won.offer.budget, won.offer.deadline));
        job.attempts = Some(Attempts::new(won));
        job.last_failure = None;
        self.next_attempt(no);
    }

    fn next_attempt(&mut self, no: JobNo) {
        let who = self.job(no).buyer;
        let now = self.local(who);
        let job = self.job_mut(no);
        let (id, deal) = (job.id, job.won.unwrap_or((MicroUsd(0), now)));
        let next = job.attempts.as_mut().and_then(|attempts| {
            let attempt = attempts.next(now)?;
            Some(attempts.accept_body(&attempt, id, now))
        });
        match next {
            Some(accept) => self.open_stream(no, accept, None, deal),
            None => {
                let failure = job.last_failure;
                let again = job.course.may_auction_again() && failure.is_some_and(|(_, retryable)| retryable);
                self.give_turn_back(no);
                if again {
                    return self.want_auction(no);
                }
                self.wait_or_fail(no, failure.map_or("holds_lapsed", |(label, _)| label));
            }
        }
    }

    /// Makes a connection to a worker, or finds one; returns when it is made. `None` if nobody is there.
    fn connect(&mut self, who: Who, worker: NodeId) -> Option<u64> {
        let to = self.by_id.get(&worker).copied()?;
        let ms = self.ms;
        if let Some((ready, _)) = self.buying(who).and_then(|buying| buying.connections.get(&worker).copied()) {
            return Some(ready.max(ms));
        }
        let target = self.member(to);
        if !target.is_up() || !self.mesh.has_way(who, to) {
            return None;
        }
        let (epoch, ready) = (target.epoch, ms + 2 * self.mesh.base_ms(who, to));
        if let Some(buying) = self.buying(who) {
            buying.connections.insert(worker, (ready, epoch));
        }
        Some(ready)
    }

    /// One attempt is over: what it teaches, and what follows.
    fn on_stream_end(&mut self, who: Who, stream: StreamNo, result: Result<Completed, Failure>) {
        let now = self.local(who);
        let Some(buying) = self.buying(who) else { return };
        let Some(attempt) = buying.running.remove(&stream) else { return };
        let owed = attempt.owed(&result);
        let Attempt { job: no, worker, standing, .. } = attempt;
        if let Some(load) = buying.loads.get_mut(&worker) {
            *load = load.saturating_sub(1);
        }
        let id = self.job(no).id;
        let lost = self.settle_bought(who, &worker, &id, owed);
        if result.as_ref().is_err_and(|failure| !failure.after_first_token) {
            self.job_mut(no).lost.0 += lost.0;
        }
        let Some(buying) = self.buying(who) else { return };
        let taught = lesson(&result, standing);
        match taught {
            Lesson::Nothing => {}
            Lesson::Refused => buying.market.refused_standing(worker, now),
            Lesson::Observed(observation) => buying.market.observe(worker, observation),
        }
        if let Lesson::Observed(Observation::Completed { .. }) = taught {
            let wishes = self.job(no).order.wishes.clone();
            if let Some(buying) = self.buying(who) {
                buying.market.answered(&wishes.conversation, worker, now);
            }
        }
        match result {
            Ok(completed) => self.on_completed(no, stream, &completed),
            Err(failure) => self.on_failure(no, &failure, standing),
        }
    }

    fn on_completed(&mut self, no: JobNo, stream: StreamNo, completed: &Completed) {
        let finish = completed.usage.finish;
        let end = match () {
            () if finish.is_complete() => End::Answered,
            () if finish == FinishReason::CANCELLED => End::Cancelled,
            () => End::Partial,
        };
        if end == End::Answered {
            self.check_answer(no, stream, completed.usage.output_tokens);
        }
        let pays_twice = self.scenario.plant == Some(Plant::PaysTwice) && end == End::Answered;
        let has_next = self.job(no).attempts.is_some();
        self.end(no, end);
        self.give_turn_back(no);
        if pays_twice && has_next {
            self.next_attempt(no);
        }
    }

    fn check_answer(&mut self, no: JobNo, stream: StreamNo, tokens: u32) {
        let worker = self.stream(stream).map_or(0, |stream| stream.worker);
        let inflates = self.inflates(worker);
        let (ms, job) = (self.ms, self.job(no));
        let whole = job::answer(&job.id, worker, tokens);
        let holds = job.answer == whole || inflates || job.ended.is_some();
        let what = format!("job {no}'s caller saw {} bytes, its engine said {}", job.answer.len(), whole.len());
        self.checks.ensure(holds, Invariant::AnswersAreWhole, ms, || what);
    }

    fn on_failure(&mut self, no: JobNo, failure: &Failure, standing: bool) {
        let who = self.job(no).buyer;
        let label = failure.cause.label();
        self.note(who, "was failed", &[("job", no.into()), ("retryable", failure.is_retryable().into())]);
        self.stats.count("failure", label);
        if failure.is_retryable() {
            let job = self.job_mut(no);
            job.retries += u32::from(!failure.is_refusal());
            job.last_failure = Some((label, true));
            return if standing { self.proceed(no) } else { self.next_attempt(no) };
        }
        let cancelled = matches!(failure.cause, Cause::Cancelled);
        self.end(no, if cancelled { End::Cancelled } else { End::Failed(label) });
        self.give_turn_back(no);
    }

    pub(super) fn set_phase(&mut self, no: JobNo, phase: Phase) {
        let job = self.job_mut(no);
        if job.ended.is_none() && job.phase != phase {
            job.phase = phase;
            self.aim(no, phase);
        }
    }

    /// A job is over.
    pub(super) fn end(&mut self, no: JobNo, end: End) {
        let ms = self.ms;
        let job = self.job_mut(no);
        if job.ended.is_some() {
            return;
        }
        job.ended = Some((ms, end));
        job.phase = Phase::Ended;
        self.settle_purse(no);
        let job = self.job(no);
        let (who, took) = (job.buyer, ms - job.began);
        if self.is_honest(who) && !matches!(end, End::Cancelled | End::Died) {
            self.stats.honest_jobs += 1;
            self.stats.honest_answered += u64::from(end == End::Answered);
        }
        self.open_jobs -= 1;
        self.note(who, end.label(), &[("job", no.into()), ("ms", took)]);
        self.stats.count("job", end.label());
        if end == End::Answered {
            self.stats.answered_ms.note(took);
        }
    }
}
