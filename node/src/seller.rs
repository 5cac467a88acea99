//! The worker's role: drives [`market::seller`](crate::market::seller).
//!
//! One task owns the decider. Offers, ads and accepts come in from gossip, claims from chat streams; bids go out, signed, by
//! the cheapest private route, and the worker's ad is published and refreshed. A [`Slot`] is a claimed place: dropping it ends
//! the job, whatever became of it, because room for that message was reserved when the place was claimed. The place itself is
//! free as soon as the engine is done, which [`Seller::settle`] tells.

mod status;

pub use crate::market::advert::Measured;
pub use status::{Asking, ClosedReport, Offered, Outcome, Status};

use crate::{
    clock,
    market::{
        admission::{ClaimError, MAX_SETTLING},
        advert::{Advert, REMEMBERED_MS},
        policy::{Gate, Policy, Sensed, Verdict},
        pricing::Pricing,
        quote::Queue,
        seller::{self as market, Claim, Input, Output},
    },
    net::Net,
    settlement::rail::Rails,
    store::Store,
};
use infernet_wire::{
    accept::JobAccept,
    bid::Answer,
    capability::{CapabilityAd, MeshAddress, ModelAd, SocketAddrText},
    envelope::Verified,
    id::{JobId, NodeId},
    key::NodeKey,
    limits,
    standing::StandingAccept,
    time::UnixMillis,
    topic::{self, NetworkId},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::sleep,
};
use tracing::{Instrument, debug, info, info_span, warn};

/// Messages waiting for the task beyond one per job: a burst of offers from every neighbour.
const QUEUE: usize = 1_024;
/// Answers on their way out at once. More means that the network is stuck; further ones are dropped and counted.
const MAX_ANSWERS: usize = 256;

/// A handle to the seller's task; cheap to clone.
#[derive(Clone)]
pub struct Seller {
    commands: mpsc::Sender<Command>,
}

/// What the task is told.
enum Command {
    /// Something was heard.
    Input(Box<Input>),
    /// A peer connected that has not seen our ad, or it says something new.
    Newcomer,
    /// A stream presents an accept.
    Claim { presented: Box<Presented>, from: NodeId, slot: mpsc::OwnedPermit<Command>, reply: oneshot::Sender<ClaimReply> },
    /// An engine is done with a job.
    Settle(JobId),
    /// A job is over.
    Finish { job: JobId, settled: bool },
    /// The engines serve this now.
    Catalogue(Vec<ModelAd>),
    /// This waits in the engines, by model.
    Queues(BTreeMap<String, Queue>),
    /// A job has shown how fast a model is.
    Measured(String, Measured),
    /// These buyers settled with us in an earlier run.
    Know(Vec<NodeId>),
    /// Bid on nothing more, or bid again.
    Drain(bool),
    /// What models cost from now on.
    Pricing(Box<Pricing>),
    /// How the machine is.
    Sensed(Sensed),
    /// What the machine is.
    Tags(Vec<String>),
    /// Where the worker can be reached.
    Places(Places),
    /// How are we doing?
    Status(oneshot::Sender<Status>),
}

/// What a stream presents to get a slot.
#[derive(Debug)]
pub enum Presented {
    /// The accept of a bid, for which a slot is held.
    Held(Verified<JobAccept>),
    /// The accept of an ad.
    Standing(StandingAccept),
}

type ClaimReply = Result<Slot, Unclaimed>;

/// Why a claim got no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unclaimed {
    /// The accept is not good for a slot.
    #[error(transparent)]
    Refused(#[from] ClaimError),
    /// The node is shutting down.
    #[error("the worker is shutting down")]
    ShuttingDown,
}

/// A claimed place, until the job's receipt is settled.
#[derive(Debug)]
pub struct Slot {
    claim: Claim,
    release: Option<mpsc::OwnedPermit<Command>>,
    settled: bool,
}

impl Slot {
    /// Whether both sides signed: the buyer is no stranger from then on.
    pub fn set_settled(&mut self, settled: bool) {
        self.settled = settled;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release.send(Command::Finish { job: self.claim.job, settled: self.settled });
        }
    }
}

impl std::ops::Deref for Slot {
    type Target = Claim;

    fn deref(&self) -> &Claim {
        &self.claim
    }
}

/// What the task works with.
pub struct Settings {
    /// Signs bids and ads.
    pub key: NodeKey,
    /// The network.
    pub network: NetworkId,
    /// What buyers may buy for, and how they pay.
    pub rails: Rails,
    /// Jobs at once.
    pub slots: u16,
    /// How prices follow the load, and how many jobs of each model run at once.
    pub pricing: Pricing,
    /// When nothing is sold.
    pub policy: Policy,
    /// Role and hardware tags of the ad at first.
    pub tags: Vec<String>,
    /// Where it can be reached at first.
    pub places: Places,
}

/// Where a worker can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Its chat endpoint.
    pub chat: Vec<SocketAddrText>,
    /// Its libp2p.
    pub mesh: Vec<MeshAddress>,
}

impl Seller {
    /// Starts the task. It ends when every handle and [`Slot`] is gone.
    pub fn spawn(settings: Settings, net: Net, store: Arc<dyn Store>) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE + usize::from(settings.slots) + MAX_SETTLING);
        let span = info_span!("seller", me = %settings.key.id().short());
        let mut market = market::Seller::new(settings.key.id(), settings.slots);
        market.set_addresses(settings.places.chat.clone());
        market.set_started(clock::now());
        market.set_pricing(settings.pricing.clone());
        let task = Task {
            market,
            ad: first_advert(&*store, clock::now()),
            answers: Arc::new(Semaphore::new(MAX_ANSWERS)),
            dropped_answers: 0,
            wake: None,
            gate: Gate::new(settings.policy.clone()),
            verdict: Verdict::default(),
            settings,
            net,
            store,
        };
        tokio::spawn(task.run(inbox).instrument(span));
        Seller { commands }
    }

    /// Tells of something heard. `false` if the task is too busy: the message is dropped.
    pub fn try_tell(&self, input: Input) -> bool {
        self.commands.try_send(Command::Input(Box::new(input))).is_ok()
    }

    /// Tells that a peer connected that has not seen our ad, or that the ad says something new.
    pub fn try_greet(&self) -> bool {
        self.commands.try_send(Command::Newcomer).is_ok()
    }

    /// Turns what a stream presents into a slot, once.
    pub async fn claim(&self, presented: Presented, from: NodeId) -> ClaimReply {
        let (reply, answer) = oneshot::channel();
        let slot = self.commands.clone().reserve_owned().await.map_err(|_| Unclaimed::ShuttingDown)?;
        let claim = Command::Claim { presented: Box::new(presented), from, slot, reply };
        self.commands.send(claim).await.map_err(|_| Unclaimed::ShuttingDown)?;
        answer.await.map_err(|_| Unclaimed::ShuttingDown)?
    }

    /// Tells that the engine is done with `job`. Once this returns, whoever asks next finds the slot free.
    pub async fn settle(&self, job: JobId) {
        let _ = self.commands.send(Command::Settle(job)).await;
    }

    /// Replaces what is advertised and bid on.
    pub async fn set_catalogue(&self, models: Vec<ModelAd>) {
        let _ = self.commands.send(Command::Catalogue(models)).await;
    }

    /// Tells what waits in the engines, by model, for bids.
    pub async fn set_queues(&self, queues: BTreeMap<String, Queue>) {
        let _ = self.commands.send(Command::Queues(queues)).await;
    }

    /// Tells how fast a job was, for ad and bids. `false` if the task is too busy, which only means older numbers.
    pub fn try_measured(&self, model: &str, measured: Measured) -> bool {
        self.commands.try_send(Command::Measured(model.to_owned(), measured)).is_ok()
    }

    /// These buyers have settled receipts with us before.
    pub async fn know(&self, buyers: Vec<NodeId>) {
        let _ = self.commands.send(Command::Know(buyers)).await;
    }

    /// Stops bidding; running jobs go on.
    pub async fn drain(&self) {
        let _ = self.commands.send(Command::Drain(true)).await;
    }

    /// Bids again.
    pub async fn resume(&self) {
        let _ = self.commands.send(Command::Drain(false)).await;
    }

    /// Bids at these prices from now on; what was promised stays.
    pub async fn set_pricing(&self, pricing: Pricing) {
        let _ = self.commands.send(Command::Pricing(Box::new(pricing))).await;
    }

    /// Tells how the machine is; the operator's policy decides whether that is good enough.
    pub async fn sensed(&self, sensed: Sensed) {
        let _ = self.commands.send(Command::Sensed(sensed)).await;
    }

    /// Tells what the machine is. If that is something else, an ad says so as soon as others listen.
    pub async fn set_tags(&self, tags: Vec<String>) {
        let _ = self.commands.send(Command::Tags(tags)).await;
    }

    /// Tells where the worker can be reached from now on. If that is another place, an ad says so as soon as others listen.
    pub async fn set_places(&self, places: Places) {
        let _ = self.commands.send(Command::Places(places)).await;
    }

    /// The state now; `None` once the task has ended.
    pub async fn status(&self) -> Option<Status> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Status(reply)).await.ok()?;
        answer.await.ok()
    }
}

struct Task {
    market: market::Seller,
    ad: Advert,
    answers: Arc<Semaphore>,
    dropped_answers: u64,
    wake: Option<UnixMillis>,
    gate: Gate,
    verdict: Verdict,
    settings: Settings,
    net: Net,
    store: Arc<dyn Store>,
}

/// Sequences follow the time. One of a while ago is free only if no earlier run has advertised since; after a crash the store does
/// not know that, and says no.
fn first_advert(store: &dyn Store, now: UnixMillis) -> Advert {
    let before = UnixMillis(now.0.saturating_sub(REMEMBERED_MS));
    match store.next_ad_sequence(before) {
        Ok(sequence) if sequence == before.0 => Advert::new(now),
        _ => Advert::after_restart(now),
    }
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            let next = self.ad.due().min(self.wake.unwrap_or(UnixMillis(u64::MAX)));
            tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = sleep(clock::until(next)) => self.on_timer(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Input(input) => self.handle(*input),
            Command::Newcomer => self.ad.advertise_soon(clock::now()),
            Command::Claim { presented, from, slot, reply } => {
                let now = clock::now();
                self.look_at_store();
                let claimed = match *presented {
                    Presented::Held(accept) => self.market.claim(&accept, from, now),
                    Presented::Standing(standing) => self.market.claim_standing(standing, from, now),
                };
                // The asker may be gone; then the slot is dropped, and freed, right here.
                let slot = claimed.map(|claim| Slot { claim, release: Some(slot), settled: false });
                let _ = reply.send(slot.map_err(Unclaimed::from));
            }
            Command::Settle(job) => self.market.settle(&job),
            Command::Finish { job, settled } => self.market.finish(&job, settled),
            Command::Catalogue(models) => self.set_catalogue(models),
            Command::Queues(queues) => self.market.set_queues(queues),
            Command::Measured(model, measured) => self.on_measured(&model, measured),
            Command::Know(buyers) => buyers.into_iter().for_each(|buyer| self.market.mark_known(buyer)),
            Command::Drain(draining) => self.market.set_draining(draining),
            Command::Pricing(pricing) => self.market.set_pricing(*pricing),
            Command::Sensed(sensed) => self.on_sensed(&sensed, clock::now()),
            Command::Tags(tags) => self.on_tags(tags, clock::now()),
            Command::Places(places) => self.on_places(places, clock::now()),
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
        }
    }

    fn on_timer(&mut self) {
        let now = clock::now();
        if self.wake.is_some_and(|at| at <= now) {
            self.wake = None;
            self.handle(Input::Wake);
        }
        if self.ad.due() <= now {
            self.advertise(now);
        }
    }

    /// What is promised from now on must be kept.
    fn look_at_store(&mut self) {
        self.market.set_store_full(self.store.accepts_work().is_err());
    }

    fn handle(&mut self, input: Input) {
        if let Input::Offer(offer) = &input {
            self.look_at_store();
            self.market.set_credit_left(self.settings.rails.covers(&offer.signer()));
        }
        for output in self.market.handle(input, clock::now()) {
            match output {
                Output::Bid { buyer, body } => {
                    let offer = body.offer;
                    match self.settings.key.sign(&self.settings.network, body) {
                        Ok(bid) => {
                            self.market.bid_signed(offer, bid.digest());
                            self.answer(buyer, Answer::Bid(bid));
                        }
                        Err(refusal) => warn!("can't sign a bid: {refusal}"),
                    }
                }
                Output::NoBid { buyer, body } => match self.settings.key.sign(&self.settings.network, body) {
                    Ok(no) => self.answer(buyer, Answer::NoBid(no)),
                    Err(refusal) => warn!("can't sign a refusal: {refusal}"),
                },
                Output::Lost { offer, winner, winning_score, our_score, why } => {
                    debug!(%offer, winner = %winner.short(), winning_score, our_score, why = why.label(), "lost");
                }
                Output::Wake { at } => self.wake = Some(at),
                Output::Ignored(reason) => debug!(reason = reason.label(), "offer ignored"),
            }
        }
    }

    /// Sends in the background, so that the next offer is looked at at once.
    fn answer(&mut self, buyer: NodeId, answer: Answer) {
        let Ok(permit) = self.answers.clone().try_acquire_owned() else {
            self.dropped_answers += 1;
            return;
        };
        let net = self.net.clone();
        tokio::spawn(async move {
            let route = net.answer(buyer, answer).await;
            debug!(buyer = %buyer.short(), ?route, "answered");
            drop(permit);
        });
    }

    fn set_catalogue(&mut self, models: Vec<ModelAd>) {
        if self.ad.set_models(models, clock::now()) {
            info!(models = self.ad.models().len(), "catalogue changed");
            self.market.set_catalogue(self.ad.models().to_vec());
        }
    }

    fn on_measured(&mut self, model: &str, measured: Measured) {
        if self.ad.measure(model, measured) {
            self.market.set_catalogue(self.ad.models().to_vec());
        }
    }

    fn on_sensed(&mut self, sensed: &Sensed, now: UnixMillis) {
        let before = self.verdict;
        self.verdict = self.gate.look(sensed, self.market.admission().running() > 0, now);
        if before.closed != self.verdict.closed {
            let reason = self.verdict.closed.map(|closed| closed.reason());
            self.market.set_closed(reason);
            self.ad.set_closed(reason.is_some(), now);
            match reason {
                Some(reason) => info!(%reason, "sells nothing for now; running jobs end"),
                None => info!("sells again"),
            }
        }
        if self.market.prices_moved(now) {
            self.ad.advertise_soon(now);
        }
    }

    fn on_tags(&mut self, tags: Vec<String>, now: UnixMillis) {
        if tags != self.settings.tags {
            self.settings.tags = tags;
            self.ad.advertise_soon(now);
        }
    }

    fn on_places(&mut self, places: Places, now: UnixMillis) {
        if places != self.settings.places {
            self.market.set_addresses(places.chat.clone());
            self.settings.places = places;
            self.ad.advertise_soon(now);
        }
    }

    fn advertise(&mut self, now: UnixMillis) {
        let [spread] = clock::random::<1>();
        self.ad.refresh(spread, now);
        let Places { chat, mesh } = &self.settings.places;
        // Nobody could come. As soon as a relay holds a place, it is advertised.
        let is_nowhere = chat.is_empty() && mesh.is_empty();
        if is_nowhere || self.ad.next().is_none() {
            return;
        }
        match self.signed_ad(now) {
            Ok(ad) => {
                self.ad.published(now);
                self.handle(Input::Ad(ad.clone()));
                let (net, raw, deadline) = (self.net.clone(), ad.raw().clone(), now.after(limits::AD_MIN_INTERVAL_MS));
                tokio::spawn(async move {
                    if let Err(error) = net.publish(topic::CAPABILITIES.into(), raw, deadline).await {
                        debug!("ad not published: {error}");
                    }
                });
            }
            Err(error) => warn!("can't advertise: {error}"),
        }
    }

    /// The ad; models at its end are left out while it is too large.
    fn signed_ad(&mut self, now: UnixMillis) -> Result<Verified<CapabilityAd>, String> {
        let sequence = self.store.next_ad_sequence(now).map_err(|e| e.to_string())?;
        let price = |model: &ModelAd| ModelAd { price: self.market.price_now(model.price), ..model.clone() };
        let mut models: Vec<ModelAd> = self.ad.next().unwrap_or_default().iter().map(price).collect();
        loop {
            let mut ad = CapabilityAd {
                sequence,
                issued: now,
                expires: now.after(limits::AD_TTL_MS),
                tags: self.settings.tags.clone(),
                models: models.clone(),
                slots: self.settings.slots,
                chat: self.settings.places.chat.clone(),
                mesh: self.settings.places.mesh.clone(),
                evm: Vec::new(),
                solana: None,
            };
            self.settings.rails.advertise(&mut ad);
            match self.settings.key.sign(&self.settings.network, ad) {
                Err(infernet_wire::envelope::Refusal::TooLarge | infernet_wire::envelope::Refusal::Field("models"))
                    if models.len() > 1 =>
                {
                    models.pop();
                }
                other => return other.map_err(|e| e.to_string()),
            }
        }
    }

    fn status(&self) -> Status {
        let mut counters = status::counters(&self.market);
        counters.insert("answers_dropped".into(), self.dropped_answers);
        let admission = self.market.admission();
        Status {
            running: admission.running(),
            settling: admission.settling(),
            held: admission.held(),
            slots: self.settings.slots,
            models: self.ad.models().iter().map(|m| m.id.clone()).collect(),
            prices: self.ad.models().iter().map(|m| Offered::new(&m.id, self.market.price_now(m.price))).collect(),
            closed: self
                .verdict
                .closed
                .map(|closed| ClosedReport { reason: closed.reason().to_string(), opens: self.verdict.opens.map(|at| at.0) }),
            counters,
            recent: self.market.outcomes().iter().map(Outcome::from).collect(),
            wanted: self.market.wanted().iter().map(|(model, demand)| (model.clone(), demand.offers())).collect(),
            wanted_by: self.market.wanted().iter().map(|(model, demand)| (model.clone(), demand.buyers())).collect(),
            draining: self.market.is_draining(),
        }
    }
}
