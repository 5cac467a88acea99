//! The engines of this worker: which models they serve now, and which engine serves which.
//!
//! Polls every engine; what changes is advertised. An engine that stops answering takes its models out of the catalogue, so
//! nothing is bid on that nobody could serve. Between polls, when no job runs, a model that is new shows what it can do
//! ([`Backend::probe`]).
//!
//! An engine may have other users than this node. Bids tell how long what waits in it, by its own word, will take; who gets a
//! slot here is decided without it.

mod unserved;

pub use unserved::{Unserved, unserved};

use crate::{
    backend::{Backend, BackendError, BackendSpec, Load, Model, Stage},
    config::Alias,
    market::{pricing::Pricing, quote::Queue},
    seller::Seller,
};
use futures::{
    FutureExt,
    future::{BoxFuture, Fuse, FusedFuture, join_all},
};
use infernet_wire::{capability::ModelAd, id::Hash, limits, model_name, money::Price};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

/// How often engines are asked for their models: with [`ANSWER`], ads are true again within ten seconds.
const POLL: Duration = Duration::from_secs(5);
/// How long an engine may take over all questions of a poll. A little more than over one of them, whose error says more.
const ANSWER: Duration = Duration::from_millis(4_500);
/// Polls that a new model waits for a moment without jobs: a minute. Its tiny jobs then come between.
const PATIENT_POLLS: u32 = 12;
/// Wishes that wait for the poll before them: a person gives one at a time.
const WISHES: usize = 4;

/// Which engine serves which model. Cheap to clone.
#[derive(Clone)]
pub struct Engines {
    backends: Arc<[Arc<dyn Backend>]>,
    routes: watch::Receiver<Routes>,
    reports: watch::Receiver<Vec<EngineReport>>,
    unserved: watch::Receiver<Vec<Unserved>>,
    pricing: watch::Receiver<Pricing>,
    wishes: mpsc::Sender<Wish>,
}

/// What is offered of all that the engines have, and how.
#[derive(Debug, Clone, Default)]
pub struct Offers {
    /// What it costs.
    pub pricing: Pricing,
    /// Other names of models.
    pub aliases: Vec<Alias>,
    /// The only models that are offered, by the engines' names; all if empty.
    pub only: Vec<String>,
}

/// What somebody wants done before the next poll is due.
struct Wish {
    /// Offer these alone, or all for an empty list; `None`: as before.
    only: Option<Vec<String>>,
    /// Sell one model, or all that have no price of their own, at this price; `None`: as before.
    price: Option<(Option<String>, Price)>,
    /// Told when it is done: the models that are offered.
    done: oneshot::Sender<Vec<String>>,
}

/// An engine as it answered last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineReport {
    /// `KIND at URL`.
    pub engine: String,
    /// Models that it has.
    pub models: usize,
    /// Requests that it works on, for whomever; absent if it does not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub running: Option<u32>,
    /// Requests that wait in it; absent if it does not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waiting: Option<u32>,
    /// Why it does not answer; absent if it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// By model: the engine's index, and the digest of the weights if it tells.
type Routes = BTreeMap<String, (usize, Option<Hash>)>;

/// What serves a model.
pub struct Engine {
    /// The engine.
    pub backend: Arc<dyn Backend>,
    /// Digest of the model's weights, if the engine tells.
    pub weights: Option<Hash>,
}

/// What an engine answered when asked at start.
#[derive(Debug, Clone)]
pub struct Probed {
    /// `KIND at URL`.
    pub engine: String,
    /// Its models, or why it does not tell.
    pub models: Result<Vec<String>, String>,
}

impl Engines {
    /// Asks every engine once and returns what they said. Nothing runs yet.
    pub async fn probe(backends: &[Arc<dyn Backend>]) -> Vec<Probed> {
        let mut probed = Vec::new();
        for backend in backends {
            let models = backend.models().await.map(|all| all.into_iter().map(|m| m.id).collect()).map_err(|e| e.to_string());
            // Only now is it known which one was found.
            probed.push(Probed { engine: backend.name(), models });
        }
        probed
    }

    /// Polls once, so that `seller` knows the models when this returns, and goes on in the background; `seller` learns of every
    /// change. Ends with the last handle.
    pub async fn spawn(backends: Vec<Arc<dyn Backend>>, offers: Offers, seller: Seller) -> Self {
        let (sender, routes) = watch::channel(BTreeMap::new());
        let (reporter, reports) = watch::channel(Vec::new());
        let (strange, unserved) = watch::channel(Vec::new());
        let (priced, pricing) = watch::channel(offers.pricing.clone());
        let (wishes, wished) = mpsc::channel(WISHES);
        let engines = Engines { backends: backends.into(), routes, reports, unserved, pricing, wishes };
        let backends = engines.backends.clone();
        let failing = BTreeMap::new();
        let mut poll = Poll {
            backends,
            offers,
            seller,
            routes: sender,
            reports: reporter,
            unserved: strange,
            pricing: priced,
            failing,
            busy: 0,
        };
        poll.poll().await;
        tokio::spawn(poll.run(wished));
        engines
    }

    /// Asks every engine now, and offers `only` these models from now on, all for an empty list; `None`: as before. Returns the
    /// models that are offered, when the seller knows them.
    pub async fn poll_now(&self, only: Option<Vec<String>>) -> Vec<String> {
        self.wish(only, None).await
    }

    /// Sells `model`, or for `None` all models that have no price of their own, at `price` from now on, though never below the
    /// floor. Ads that are out still bind until they expire. Returns when the seller knows it.
    pub async fn set_price(&self, model: Option<String>, price: Price) {
        self.wish(None, Some((model, price))).await;
    }

    async fn wish(&self, only: Option<Vec<String>>, price: Option<(Option<String>, Price)>) -> Vec<String> {
        let (done, told) = oneshot::channel();
        if self.wishes.send(Wish { only, price, done }).await.is_err() {
            return Vec::new();
        }
        told.await.unwrap_or_default()
    }

    /// What they cost now.
    pub fn pricing(&self) -> Pricing {
        self.pricing.borrow().clone()
    }

    /// How to reach each that is known, keys included.
    pub fn specs(&self) -> Vec<BackendSpec> {
        self.backends.iter().filter_map(|backend| backend.spec()).collect()
    }

    /// Every engine as it answered last.
    pub fn reports(&self) -> Vec<EngineReport> {
        self.reports.borrow().clone()
    }

    /// Models that are named in what is offered, and that no engine has.
    pub fn unserved(&self) -> Vec<Unserved> {
        self.unserved.borrow().clone()
    }

    /// The engine that serves `model` now.
    pub fn find(&self, model: &str) -> Option<Engine> {
        let (index, weights) = *self.routes.borrow().get(model)?;
        Some(Engine { backend: self.backends.get(index)?.clone(), weights })
    }
}

struct Poll {
    backends: Arc<[Arc<dyn Backend>]>,
    offers: Offers,
    seller: Seller,
    routes: watch::Sender<Routes>,
    reports: watch::Sender<Vec<EngineReport>>,
    unserved: watch::Sender<Vec<Unserved>>,
    pricing: watch::Sender<Pricing>,
    failing: BTreeMap<usize, String>,
    /// Polls in a row at which jobs ran.
    busy: u32,
}

impl Poll {
    /// Ends with the last [`Engines`], which alone can wish.
    async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        let mut probing = Box::pin(self.probe().await);
        let mut wait = Box::pin(sleep(POLL));
        loop {
            tokio::select! {
                biased;
                wish = wishes.recv() => match wish {
                    Some(wish) => self.grant(wish).await,
                    None => return,
                },
                () = &mut wait => {
                    self.poll().await;
                    wait = Box::pin(sleep(POLL));
                    if probing.is_terminated() {
                        probing = Box::pin(self.probe().await);
                    }
                }
                found = &mut probing => if found {
                    self.poll().await;
                    probing = Box::pin(self.probe().await);
                },
            }
        }
    }

    async fn grant(&mut self, wish: Wish) {
        if let Some(only) = wish.only {
            self.offers.only = only;
        }
        if let Some((model, price)) = wish.price {
            self.reprice(model, price).await;
        }
        self.poll().await;
        let offered = self.routes.borrow().keys().cloned().collect();
        // Whoever wished may be gone.
        let _ = wish.done.send(offered);
    }

    async fn reprice(&mut self, model: Option<String>, price: Price) {
        let pricing = &mut self.offers.pricing;
        match model {
            Some(model) => _ = pricing.models.insert(model, price),
            None => pricing.base = price,
        }
        self.seller.set_pricing(pricing.clone()).await;
        self.pricing.send_replace(pricing.clone());
    }

    fn is_offered(&self, model: &Model) -> bool {
        let same = |name: &String| model_name::same(name, &model.id);
        self.offers.only.is_empty() || self.offers.only.iter().any(same)
    }

    /// One question to each engine that has a new model, unless jobs run that it would delay. Whether anything was found.
    async fn probe(&mut self) -> Fuse<BoxFuture<'static, bool>> {
        let running = self.seller.status().await.map_or(0, |status| status.running);
        self.busy = if running == 0 { 0 } else { self.busy.saturating_add(1) };
        if self.busy > 0 && self.busy < PATIENT_POLLS {
            return async { false }.boxed().fuse();
        }
        self.busy = 0;
        let backends = self.backends.clone();
        let offered: BTreeSet<String> = self.routes.borrow().keys().cloned().collect();
        let all = async move {
            let mut found = false;
            for backend in backends.iter() {
                found |= backend.probe(&|model| offered.contains(model)).await;
            }
            found
        };
        all.boxed().fuse()
    }

    async fn poll(&mut self) {
        let (mut routes, mut there) = (Routes::new(), Vec::new());
        let (mut ads, mut reports, mut queues) = (Vec::new(), Vec::new(), BTreeMap::new());
        // All at once: one that hangs must not make the ads of the others false.
        let answers = join_all(self.backends.iter().map(|backend| ask(&**backend))).await;
        for (index, answer) in answers.into_iter().enumerate() {
            let (models, load) = self.heard(index, answer);
            reports.extend(self.report(index, models.len(), load));
            there.extend(models.iter().map(|model| model.id.clone()));
            for model in models.into_iter().filter(|model| self.is_offered(model)) {
                if !routes.contains_key(&model.id) && ads.len() < limits::MAX_AD_MODELS {
                    routes.insert(model.id.clone(), (index, model.weights));
                    queues.extend(load.map(|load| (model.id.clone(), queue(load))));
                    ads.push(advertise(model, &self.offers));
                }
            }
        }
        self.routes.send_replace(routes);
        self.reports.send_replace(reports);
        // An engine that does not answer may have them.
        let strange = if self.failing.is_empty() { unserved(&self.offers, &there) } else { Vec::new() };
        self.unserved.send_replace(strange);
        self.seller.set_catalogue(ads).await;
        self.seller.set_queues(queues).await;
    }

    fn report(&self, index: usize, models: usize, load: Option<Load>) -> Option<EngineReport> {
        let engine = self.backends.get(index)?.name();
        let (running, waiting) = (load.map(|load| load.running), load.and_then(|load| load.waiting));
        Some(EngineReport { engine, models, running, waiting, error: self.failing.get(&index).cloned() })
    }

    fn heard(&mut self, index: usize, answer: Answer) -> (Vec<Model>, Option<Load>) {
        let Some(backend) = self.backends.get(index) else { return (Vec::new(), None) };
        match answer {
            Ok((models, load)) => {
                if self.failing.remove(&index).is_some() {
                    info!(engine = backend.name(), "engine answers again");
                }
                (models, load)
            }
            Err(error) => {
                let text = error.to_string();
                if self.failing.insert(index, text.clone()).as_ref() != Some(&text) {
                    warn!(engine = backend.name(), "engine does not answer, so its models are not offered: {text}");
                } else {
                    debug!(engine = backend.name(), "engine still does not answer");
                }
                (Vec::new(), None)
            }
        }
    }
}

/// What an engine has, and has to do.
type Answer = Result<(Vec<Model>, Option<Load>), BackendError>;

async fn ask(backend: &dyn Backend) -> Answer {
    let asked = async { Ok((backend.models().await?, backend.load().await)) };
    let late = BackendError::Timeout { stage: Stage::Describe, limit: ANSWER };
    timeout(ANSWER, asked).await.unwrap_or(Err(late))
}

fn queue(load: Load) -> Queue {
    Queue { running: load.running, waiting: load.waiting.unwrap_or(0) }
}

/// The operator's names for it come first: what an engine calls a model besides is a convenience.
fn advertise(model: Model, offers: &Offers) -> ModelAd {
    let same = |alias: &&Alias| model_name::same(&model.id, &alias.model);
    let own = offers.aliases.iter().filter(same).map(|alias| alias.alias.clone());
    ModelAd {
        price: offers.pricing.of(&model.id),
        aliases: own.chain(model.aliases).take(limits::MAX_ALIASES).collect(),
        id: model.id,
        family: model.family,
        parameters: model.parameters,
        quantisation: model.quantisation,
        context: model.context,
        weights: model.weights,
        template: model.template,
        abilities: model.abilities,
        ttft_ms: 0,
        tokens_per_second: 0,
    }
}
