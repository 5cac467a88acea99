//! Who is there: the newest live ad of each worker.
//!
//! Fed with verified ads; asked by buyers for candidates, by workers for their rivals, by people for the known models. It does
//! not know who answers or who serves well: that is [`super::record`] and [`super::rank`].

use super::quote;
use infernet_wire::{
    bid::NoBidReason,
    capability::{Abilities, CapabilityAd, ModelAd},
    envelope::Verified,
    id::NodeId,
    limits::{AD_REFRESH_MS, AD_TTL_MS, CLOCK_SKEW_MS},
    money::Price,
    offer::JobOffer,
    time::UnixMillis,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Ads kept by default: of 1 KiB or so each, some tens of megabytes.
pub const MAX_ADS: usize = 16_384;

/// For how long ads have been heard without a break. Who has just come, or come back, knows only some of the workers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Listening {
    since: Option<UnixMillis>,
    last: UnixMillis,
}

impl Listening {
    /// An ad was heard. After a silence in which every ad would have expired, listening begins anew.
    pub fn heard(&mut self, now: UnixMillis) {
        if now.since(self.last) > AD_TTL_MS {
            self.since = None;
        }
        self.since.get_or_insert(now);
        self.last = now;
    }

    /// Whether every worker has had its turn to advertise, and ads still come: what nobody advertised then, nobody serves.
    pub fn is_long(&self, now: UnixMillis) -> bool {
        let long = self.since.is_some_and(|since| now.since(since) >= AD_REFRESH_MS.end);
        long && now.since(self.last) <= AD_TTL_MS
    }
}

/// What became of an ad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// The first of its worker.
    New,
    /// It replaced an older one.
    Newer,
    /// We have this one or a newer one.
    Stale,
    /// Its time is over.
    Expired,
    /// No room for another worker, though expired ads were dropped.
    Full,
}

/// A worker whose ad promises to serve an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The worker.
    pub worker: NodeId,
    /// The model that would serve: its standing price and claimed speed.
    pub model: ModelAd,
    /// Jobs it runs at once.
    pub slots: u16,
}

/// A model that somebody serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownModel {
    /// Its id, as workers spell it.
    pub id: String,
    /// How many workers serve it.
    pub workers: usize,
    /// How many jobs they run at once, together and over all their models.
    pub slots: u32,
    /// The lowest price, by the sum of input and output.
    pub price: Price,
    /// The longest context in tokens, 0 if nobody tells.
    pub context: u32,
    /// What it can do on at least one worker.
    pub abilities: Abilities,
}

/// Live ads by worker. Bounded.
#[derive(Debug, Clone)]
pub struct Registry {
    capacity: usize,
    ads: BTreeMap<NodeId, Verified<CapabilityAd>>,
    /// Who serves a model of these names: in a large network an offer concerns few of all.
    serving: BTreeMap<Names, BTreeSet<NodeId>>,
    /// No ad expires before this, so there is nothing to evict until then.
    first_expiry: UnixMillis,
}

impl Registry {
    /// An empty registry for at most `capacity` workers.
    pub fn new(capacity: usize) -> Self {
        Registry { capacity, ads: BTreeMap::new(), serving: BTreeMap::new(), first_expiry: UnixMillis(u64::MAX) }
    }

    /// Takes an ad; the highest sequence of a worker wins. When full, expired ads make room, living ones never do: else a flood
    /// of new identities would push the old ones out.
    pub fn insert(&mut self, ad: Verified<CapabilityAd>, now: UnixMillis) -> Insertion {
        if !is_live(&ad, now) {
            return Insertion::Expired;
        }
        if let Some(old) = self.ads.get_mut(&ad.signer()) {
            if old.sequence >= ad.sequence {
                return Insertion::Stale;
            }
            self.first_expiry = self.first_expiry.min(ad.expires);
            let old = std::mem::replace(old, ad.clone());
            if !old.models.iter().map(names).eq(ad.models.iter().map(names)) {
                self.unlist(&old);
                self.list(&ad);
            }
            return Insertion::Newer;
        }
        if !self.has_room(now) {
            return Insertion::Full;
        }
        self.first_expiry = self.first_expiry.min(ad.expires);
        self.list(&ad);
        self.ads.insert(ad.signer(), ad);
        Insertion::New
    }

    /// The live ad of `worker`.
    pub fn get(&self, worker: &NodeId, now: UnixMillis) -> Option<&Verified<CapabilityAd>> {
        self.ads.get(worker).filter(|ad| is_live(ad, now))
    }

    /// All live ads, by worker.
    pub fn workers(&self, now: UnixMillis) -> impl Iterator<Item = (&NodeId, &Verified<CapabilityAd>)> {
        self.ads.iter().filter(move |(_, ad)| is_live(ad, now))
    }

    /// The workers whose ads promise to serve `offer`: worker, slots, cheapest suitable model.
    pub fn matching<'a>(
        &'a self,
        offer: &'a JobOffer,
        now: UnixMillis,
    ) -> impl Iterator<Item = (NodeId, u16, &'a ModelAd)> + 'a {
        self.named(&offer.model, now).filter_map(move |(worker, ad, meant)| {
            let models = ad.models.iter().filter(|model| meant.contains(&names(model)));
            let (model, _) = quote::best_named(offer, models).ok()?;
            Some((worker, ad.slots, model))
        })
    }

    /// The workers that serve the model of `offer`, whether or not on its terms: worker and slots.
    pub fn serving<'a>(&'a self, offer: &'a JobOffer, now: UnixMillis) -> impl Iterator<Item = (NodeId, u16)> + 'a {
        self.named(&offer.model, now).map(|(worker, ad, _)| (worker, ad.slots))
    }

    /// [`Registry::matching`], to keep.
    pub fn candidates(&self, offer: &JobOffer, now: UnixMillis) -> Vec<Candidate> {
        self.matching(offer, now).map(|(worker, slots, model)| Candidate { worker, model: model.clone(), slots }).collect()
    }

    /// Why the known workers would not serve `offer`, and how many for each reason: what to tell when nobody bids.
    pub fn refusals(&self, offer: &JobOffer, now: UnixMillis) -> BTreeMap<NoBidReason, usize> {
        let mut refusals = BTreeMap::new();
        for (_, ad) in self.workers(now) {
            if let Err(reason) = quote::best(offer, &ad.models) {
                *refusals.entry(reason).or_default() += 1;
            }
        }
        refusals
    }

    /// Every model that a live ad names, by id.
    pub fn known_models(&self, now: UnixMillis) -> Vec<KnownModel> {
        let mut known: BTreeMap<&str, KnownModel> = BTreeMap::new();
        for (_, ad) in self.workers(now) {
            for model in &ad.models {
                known.entry(&model.id).or_insert_with(|| KnownModel::first(model)).count(model, ad.slots);
            }
        }
        known.into_values().collect()
    }

    /// Drops expired ads and returns how many.
    pub fn evict_expired(&mut self, now: UnixMillis) -> usize {
        if now < self.first_expiry {
            return 0;
        }
        let before = self.ads.len();
        let gone: Vec<_> = self.ads.extract_if(.., |_, ad| !is_live(ad, now)).collect();
        gone.iter().for_each(|(_, ad)| self.unlist(ad));
        self.first_expiry = self.ads.values().map(|ad| ad.expires).min().unwrap_or(UnixMillis(u64::MAX));
        before - self.ads.len()
    }

    /// How many ads are kept, expired ones that were not evicted yet included.
    pub fn len(&self) -> usize {
        self.ads.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.ads.is_empty()
    }

    /// The workers with a live ad of a model that `asked` means, by worker; and the names of all such models. Names are compared
    /// once each, however many workers serve them: comparing is dear.
    fn named<'a>(
        &'a self,
        asked: &str,
        now: UnixMillis,
    ) -> impl Iterator<Item = (NodeId, &'a Verified<CapabilityAd>, Rc<Meant<'a>>)> + use<'a> {
        let means = |(id, quantisation, aliases): &Names| {
            let (id, quantisation, aliases) = (id.clone(), quantisation.clone(), aliases.clone());
            ModelAd { id, quantisation, aliases, ..ModelAd::default() }.answers_to(asked)
        };
        let (mut meant, mut workers) = (Meant::new(), BTreeSet::new());
        for (names, serving) in self.serving.iter().filter(|(names, _)| means(names)) {
            meant.insert((names.0.as_str(), names.1.as_str(), names.2.as_slice()));
            workers.extend(serving.iter().copied());
        }
        let meant = Rc::new(meant);
        workers.into_iter().filter_map(move |worker| Some((worker, self.get(&worker, now)?, meant.clone())))
    }

    fn list(&mut self, ad: &Verified<CapabilityAd>) {
        for (id, quantisation, aliases) in ad.models.iter().map(names) {
            let names = (id.to_owned(), quantisation.to_owned(), aliases.to_vec());
            self.serving.entry(names).or_default().insert(ad.signer());
        }
    }

    fn unlist(&mut self, ad: &Verified<CapabilityAd>) {
        for (id, quantisation, aliases) in ad.models.iter().map(names) {
            let names = (id.to_owned(), quantisation.to_owned(), aliases.to_vec());
            if let Some(workers) = self.serving.get_mut(&names) {
                workers.remove(&ad.signer());
                if workers.is_empty() {
                    self.serving.remove(&names);
                }
            }
        }
    }

    fn has_room(&mut self, now: UnixMillis) -> bool {
        if self.ads.len() >= self.capacity {
            self.evict_expired(now);
        }
        self.ads.len() < self.capacity
    }
}

/// Names of models that somebody means who asks for one.
type Meant<'a> = BTreeSet<(&'a str, &'a str, &'a [String])>;

/// What a model is known by: id, quantisation, aliases.
type Names = (String, String, Vec<String>);

fn names(model: &ModelAd) -> (&str, &str, &[String]) {
    (&model.id, &model.quantisation, &model.aliases)
}

/// The same rule by which an envelope is believed: its signer's clock may be behind ours.
fn is_live(ad: &CapabilityAd, now: UnixMillis) -> bool {
    ad.expires.after(CLOCK_SKEW_MS) >= now
}

impl KnownModel {
    fn first(model: &ModelAd) -> Self {
        let (id, price) = (model.id.clone(), model.price);
        KnownModel { id, workers: 0, slots: 0, price, context: 0, abilities: Abilities::default() }
    }

    fn count(&mut self, model: &ModelAd, slots: u16) {
        self.workers += 1;
        self.slots = self.slots.saturating_add(slots.into());
        self.price = cheaper(self.price, model.price);
        self.context = self.context.max(model.context);
        self.abilities = self.abilities.with(model.abilities);
    }
}

fn cheaper(a: Price, b: Price) -> Price {
    let sum = |price: &Price| price.input.0.saturating_add(price.output.0);
    if sum(&b) < sum(&a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, ad, ad_with, at, model, node, offer_body, price};

    const LIFE: u64 = infernet_wire::limits::AD_TTL_MS + CLOCK_SKEW_MS;

    #[test]
    fn the_newest_sequence_wins() {
        let mut registry = Registry::new(2);
        let mut check = |sequence, each, now, expected| {
            assert_eq!(registry.insert(ad(1, sequence, each, T0), now), expected, "sequence {sequence}");
        };
        check(5, 50, T0, Insertion::New);
        check(5, 51, T0, Insertion::Stale);
        check(4, 40, T0, Insertion::Stale);
        check(6, 60, T0, Insertion::Newer);
        check(7, 70, at(LIFE + 1), Insertion::Expired);
        assert_eq!(registry.get(&node(1), T0).map(|ad| ad.sequence), Some(6));
        assert_eq!(registry.get(&node(1), at(LIFE + 1)).map(|ad| ad.sequence), None);
    }

    #[test]
    fn only_expired_ads_make_room() {
        let mut registry = Registry::new(1);
        assert_eq!(registry.insert(ad(1, 1, 1, T0), T0), Insertion::New);
        assert_eq!(registry.insert(ad(2, 1, 1, T0), T0), Insertion::Full);
        let later = at(LIFE + 1);
        assert_eq!(registry.insert(ad(2, 1, 1, later), later), Insertion::New);
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn candidates_can_serve_on_the_offers_terms() {
        let mut registry = Registry::new(9);
        registry.insert(ad(1, 1, 1_000_000, T0), T0);
        registry.insert(ad(2, 1, 20_000_000, T0), T0);
        registry.insert(ad_with(3, 1, vec![model("other", 1, 1)], T0), T0);
        let offer = offer_body();
        let workers: Vec<_> = registry.candidates(&offer, T0).into_iter().map(|candidate| candidate.worker).collect();
        assert_eq!(workers, [node(1)]);
        assert_eq!(registry.serving(&offer, T0).count(), 2);
        let expected = BTreeMap::from([(NoBidReason::UNKNOWN_MODEL, 1), (NoBidReason::CEILING_TOO_LOW, 1)]);
        assert_eq!(registry.refusals(&offer, T0), expected);
        assert!(registry.candidates(&offer, at(LIFE + 1)).is_empty());
    }

    #[test]
    fn known_models_are_summed_up() {
        let mut registry = Registry::new(9);
        registry.insert(ad_with(1, 1, vec![model("tiny", 5, 5), model("big", 9, 9)], T0), T0);
        registry.insert(ad_with(2, 1, vec![ModelAd { context: 8_192, ..model("tiny", 6, 3) }], T0), T0);
        let models = registry.known_models(T0);
        assert_eq!(models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), ["big", "tiny"]);
        let tiny = &models[1];
        assert_eq!((tiny.workers, tiny.slots, tiny.context, tiny.price), (2, 4, 8_192, price(6, 3)));
    }
}
