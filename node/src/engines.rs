//! The engines of this worker: which models they serve now, and which engine serves which.
//!
//! Polls every engine; what changes is advertised. An engine that stops answering takes its models out of the catalogue, so
//! nothing is bid on that nobody could serve.

use crate::{
    backend::{Backend, Model},
    config::Alias,
    market::pricing::Pricing,
    seller::Seller,
};
use infernet_wire::{capability::ModelAd, id::Hash, limits, money::Price};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use tracing::{debug, info, warn};

/// How often engines are asked for their models.
const POLL: Duration = Duration::from_secs(10);
/// Wishes that wait for the poll before them: a person gives one at a time.
const WISHES: usize = 4;

/// Which engine serves which model. Cheap to clone.
#[derive(Clone)]
pub struct Engines {
    backends: Arc<[Arc<dyn Backend>]>,
    routes: watch::Receiver<Routes>,
    reports: watch::Receiver<Vec<EngineReport>>,
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
            probed.push(Probed { engine: name(&**backend), models });
        }
        probed
    }

    /// Polls once, so that `seller` knows the models when this returns, and goes on in the background; `seller` learns of every
    /// change. Ends with the last handle.
    pub async fn spawn(backends: Vec<Arc<dyn Backend>>, offers: Offers, seller: Seller) -> Self {
        let (sender, routes) = watch::channel(BTreeMap::new());
        let (reporter, reports) = watch::channel(Vec::new());
        let (priced, pricing) = watch::channel(offers.pricing.clone());
        let (wishes, wished) = mpsc::channel(WISHES);
        let engines = Engines { backends: backends.into(), routes, reports, pricing, wishes };
        let backends = engines.backends.clone();
        let mut poll =
            Poll { backends, offers, seller, routes: sender, reports: reporter, pricing: priced, failing: BTreeMap::new() };
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

    /// Each as `KIND=URL`, as a configuration names it.
    pub fn specs(&self) -> Vec<String> {
        self.backends.iter().map(|backend| format!("{}={}", backend.kind(), backend.url())).collect()
    }

    /// Every engine as it answered last.
    pub fn reports(&self) -> Vec<EngineReport> {
        self.reports.borrow().clone()
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
    pricing: watch::Sender<Pricing>,
    failing: BTreeMap<usize, String>,
}

impl Poll {
    /// Ends with the last [`Engines`], which alone can wish.
    async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        loop {
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(wish) => self.grant(wish).await,
                    None => return,
                },
                () = sleep(POLL) => self.poll().await,
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
        let same = |name: &String| named(name).eq_ignore_ascii_case(named(&model.id));
        self.offers.only.is_empty() || self.offers.only.iter().any(same)
    }

    async fn poll(&mut self) {
        let mut routes = Routes::new();
        let (mut ads, mut reports) = (Vec::new(), Vec::new());
        for index in 0..self.backends.len() {
            let models = self.ask(index).await;
            reports.extend(self.report(index, models.len()));
            for model in models.into_iter().filter(|model| self.is_offered(model)) {
                if !routes.contains_key(&model.id) && ads.len() < limits::MAX_AD_MODELS {
                    routes.insert(model.id.clone(), (index, model.weights));
                    ads.push(advertise(model, &self.offers));
                }
            }
        }
        self.routes.send_replace(routes);
        self.reports.send_replace(reports);
        self.seller.set_catalogue(ads).await;
    }

    fn report(&self, index: usize, models: usize) -> Option<EngineReport> {
        let engine = name(&**self.backends.get(index)?);
        Some(EngineReport { engine, models, error: self.failing.get(&index).cloned() })
    }

    async fn ask(&mut self, index: usize) -> Vec<Model> {
        let Some(backend) = self.backends.get(index) else { return Vec::new() };
        match backend.models().await {
            Ok(models) => {
                if self.failing.remove(&index).is_some() {
                    info!(engine = backend.kind(), "engine answers again");
                }
                models
            }
            Err(error) => {
                let text = error.to_string();
                if self.failing.insert(index, text.clone()).as_ref() != Some(&text) {
                    warn!(engine = backend.kind(), "engine does not answer, so its models are not offered: {text}");
                } else {
                    debug!(engine = backend.kind(), "engine still does not answer");
                }
                Vec::new()
            }
        }
    }
}

fn name(backend: &dyn Backend) -> String {
    format!("{} at {}", backend.kind(), backend.url())
}

/// The operator's names for it come first: what an engine calls a model besides is a convenience.
fn advertise(model: Model, offers: &Offers) -> ModelAd {
    let same = |alias: &&Alias| named(&model.id) == named(&alias.model);
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
        abilities: model.abilities,
        ttft_ms: 0,
        tokens_per_second: 0,
    }
}

/// A model's name as an operator may write it: Ollama's `:latest` may be left out.
fn named(id: &str) -> &str {
    id.strip_suffix(":latest").unwrap_or(id)
}
