//! When a worker advertises what: its models with the speeds that jobs have shown, and the time of its next ad.
//!
//! Engines don't know how fast they are, so what was measured stays with a model for as long as it is served. A change is
//! advertised as soon as others would listen to another ad of ours; without one, the ad is refreshed at a time that a random
//! number spreads, so that workers that start together don't shout together.
//!
//! **An ad that has become false** costs others their jobs, so what takes something back does not wait for its turn. Others take a
//! few ads at once ([`limits::AD_BURST`]): ads that add something use one of these, ads that take something back one more, and the last is
//! left for a restart, or for an ad that is late on its way. So an [`Advert`] counts by the rule of those who hear it.

use infernet_wire::{capability::ModelAd, limits, time::UnixMillis};

/// Fewer tokens tell nothing about speed.
pub const MIN_MEASURED_TOKENS: u32 = 8;

/// For so long others remember an ad that was one more than one per interval, if it was not the last of a restart.
pub const REMEMBERED_MS: u64 = (limits::AD_BURST - 1) * limits::AD_MIN_INTERVAL_MS;
/// An ad that takes something back leaves one of the burst, besides itself.
const SPARE_MS: u64 = (limits::AD_BURST - 2) * limits::AD_MIN_INTERVAL_MS;

/// How fast a job was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// From asking the engine to its first token, in milliseconds.
    pub ttft_ms: u32,
    /// Tokens per second after the first; `None` if there were too few.
    pub tokens_per_second: Option<u32>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Advert {
    models: Vec<ModelAd>,
    closed: bool,
    published: Option<UnixMillis>,
    /// What the last ad that was published says.
    said: Vec<ModelAd>,
    /// When others have forgotten all ads so far: each counts for an interval.
    forgotten: UnixMillis,
    due: UnixMillis,
}

impl Advert {
    /// Nothing to advertise yet, and nothing that others remember; the first ad is due at once.
    pub fn new(now: UnixMillis) -> Self {
        Advert { models: Vec::new(), closed: false, published: None, said: Vec::new(), forgotten: now, due: now }
    }

    /// The same, but an earlier run may have advertised just now.
    pub fn after_restart(now: UnixMillis) -> Self {
        Advert { forgotten: now.after(REMEMBERED_MS), ..Advert::new(now) }
    }

    /// What is served.
    pub fn models(&self) -> &[ModelAd] {
        &self.models
    }

    /// What the next ad is to say: nothing while the worker is closed. `None` if no ad is needed, since none that is believed
    /// says more.
    pub fn next(&self) -> Option<&[ModelAd]> {
        let next = self.now_true();
        (!self.said.is_empty() || !next.is_empty()).then_some(next)
    }

    fn now_true(&self) -> &[ModelAd] {
        if self.closed { &[] } else { &self.models }
    }

    /// Whether nothing is offered for a while. If that changes anything, it is advertised soon.
    pub fn set_closed(&mut self, closed: bool, now: UnixMillis) {
        if closed != self.closed {
            self.closed = closed;
            self.advertise_change(now);
        }
    }

    /// When the next ad is due.
    pub fn due(&self) -> UnixMillis {
        self.due
    }

    /// The engines serve `models` from now on. Whether that changes anything.
    pub fn set_models(&mut self, mut models: Vec<ModelAd>, now: UnixMillis) -> bool {
        for model in &mut models {
            if let Some(known) = self.models.iter().find(|known| known.id == model.id) {
                (model.ttft_ms, model.tokens_per_second) = (known.ttft_ms, known.tokens_per_second);
            }
        }
        let changed = models != self.models;
        if changed {
            self.models = models;
            self.advertise_change(now);
        }
        changed
    }

    /// A job has shown how fast `model` is. Whether it is advertised. Bids tell it at once, the ad when it is refreshed.
    pub fn measure(&mut self, model: &str, measured: Measured) -> bool {
        let Some(ad) = self.models.iter_mut().find(|ad| ad.id == model) else { return false };
        ad.ttft_ms = smooth(ad.ttft_ms, measured.ttft_ms.max(1));
        if let Some(speed) = measured.tokens_per_second {
            ad.tokens_per_second = smooth(ad.tokens_per_second, speed.max(1));
        }
        true
    }

    /// Advertises again, at once or as soon as others would listen.
    pub fn advertise_soon(&mut self, now: UnixMillis) {
        let earliest = self.published.map_or(UnixMillis(0), |at| at.after(limits::AD_MIN_INTERVAL_MS));
        self.due = self.due.min(earliest.max(now));
    }

    /// The same; but what was said and is not true any more is taken back at once, where others listen to one ad more.
    fn advertise_change(&mut self, now: UnixMillis) {
        self.advertise_soon(now);
        let next = self.now_true();
        if self.said.iter().any(|said| !next.iter().any(|model| keeps(model, said))) {
            let earliest = UnixMillis(self.forgotten.0.saturating_sub(SPARE_MS));
            self.due = self.due.min(earliest.max(now));
        }
    }

    /// Time for the next ad has come: sets the time of the one after it, by the random number `spread`.
    pub fn refresh(&mut self, spread: u8, now: UnixMillis) {
        let range = limits::AD_REFRESH_MS;
        self.due = now.after(range.start + (range.end - range.start) * u64::from(spread) / 256);
    }

    /// An ad with what [`Advert::next`] says was published.
    pub fn published(&mut self, now: UnixMillis) {
        self.published = Some(now);
        self.said = self.now_true().to_vec();
        self.forgotten = self.forgotten.max(now).after(limits::AD_MIN_INTERVAL_MS);
    }
}

/// Whether `model` is all that was `said` of it. Prices are no promise to take back: each ad binds as long as it lives.
fn keeps(model: &ModelAd, said: &ModelAd) -> bool {
    let same = model.id == said.id && (said.weights.is_none() || model.weights == said.weights);
    same && model.abilities.contains(said.abilities) && model.context >= said.context
}

/// Three parts of what was known and one of the newest; 0 is nothing known.
fn smooth(known: u32, sample: u32) -> u32 {
    if known == 0 { sample } else { u32::try_from((3 * u64::from(known) + u64::from(sample)).div_ceil(4)).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        market::fixture::{T0, at, model, node, price},
        net::rules::Rules,
    };
    use infernet_wire::{capability::Abilities, envelope::Kind};

    #[test]
    fn a_change_is_advertised_as_soon_as_others_listen() {
        let mut advert = Advert::new(T0);
        assert!(advert.set_models(vec![model("tiny", 1, 1)], T0));
        advert.refresh(0, T0);
        advert.published(T0);
        assert_eq!(advert.due(), at(limits::AD_REFRESH_MS.start));
        assert!(!advert.set_models(vec![model("tiny", 1, 1)], at(5)));
        assert!(advert.set_models(vec![model("tiny", 2, 2)], at(6)));
        assert_eq!(advert.due(), at(limits::AD_MIN_INTERVAL_MS));
        advert.advertise_soon(at(20_000));
        assert_eq!(advert.due(), at(limits::AD_MIN_INTERVAL_MS), "never later than it was");
    }

    #[test]
    fn a_worker_that_closes_says_so_once() {
        let mut advert = Advert::new(T0);
        assert_eq!(advert.next(), None, "nothing to offer, and nothing to take back");
        advert.set_models(vec![model("tiny", 1, 1)], T0);
        assert_eq!(advert.next().map(<[_]>::len), Some(1));
        advert.published(T0);
        advert.set_closed(true, at(5));
        assert_eq!((advert.next().map(<[_]>::len), advert.due()), (Some(0), T0), "at once, or as it was due");
        advert.published(at(10_000));
        assert_eq!(advert.next(), None);
        advert.set_closed(false, at(20_000));
        assert_eq!(advert.next().map(<[_]>::len), Some(1));
    }

    /// What those who hear our ads make of them, by their own rule.
    struct Others(Rules);

    impl Others {
        fn new() -> Self {
            Others(Rules::new(T0, Vec::new()))
        }

        /// Whether they take an ad that is sent at `ms`.
        fn take(&mut self, ms: u64) -> bool {
            let digest = infernet_wire::hash::sha256(&ms.to_be_bytes());
            self.0.before_signature(Kind::CapabilityAd, &digest, node(1), false, at(ms)).is_ok()
        }
    }

    /// Sends the ad that is due at `ms`. Whether one is.
    fn send(advert: &mut Advert, ms: u64) -> bool {
        let is_due = advert.due() <= at(ms);
        if is_due {
            advert.refresh(0, at(ms));
            advert.published(at(ms));
        }
        is_due
    }

    #[test]
    fn what_is_not_true_any_more_is_taken_back_at_once() {
        let full = ModelAd { abilities: Abilities::TOOLS, context: 4_096, ..model("tiny", 1, 1) };
        let check = |next: Vec<ModelAd>, expected: u64| {
            let mut advert = Advert::new(T0);
            advert.set_models(vec![full.clone()], T0);
            assert!(send(&mut advert, 0));
            assert!(advert.set_models(next, at(500)));
            assert_eq!(advert.due(), at(expected));
        };
        check(Vec::new(), 500);
        check(vec![ModelAd { abilities: Abilities::default(), ..full.clone() }], 500);
        check(vec![ModelAd { context: 4_095, ..full.clone() }], 500);
        check(vec![ModelAd { price: price(9, 9), ..full.clone() }], limits::AD_MIN_INTERVAL_MS);
        check(
            vec![ModelAd { abilities: Abilities::TOOLS.with(Abilities::VISION), ..full.clone() }],
            limits::AD_MIN_INTERVAL_MS,
        );
        check(vec![full.clone(), model("other", 1, 1)], limits::AD_MIN_INTERVAL_MS);
    }

    #[test]
    fn ads_that_take_back_wait_when_others_would_not_listen() {
        let (mut advert, mut others) = (Advert::new(T0), Others::new());
        let tiny = || vec![model("tiny", 1, 1)];
        advert.set_models(tiny(), T0);
        assert!(send(&mut advert, 0) && others.take(0));
        advert.set_models(Vec::new(), at(1));
        assert!(send(&mut advert, 1) && others.take(1), "at once");
        advert.set_models(tiny(), at(2));
        assert_eq!(advert.due(), at(10_001));
        assert!(send(&mut advert, 10_001) && others.take(10_001));
        advert.set_models(Vec::new(), at(10_002));
        assert_eq!(advert.due(), at(20_000), "the burst is used up but for one, which is left for a restart");
        // An earlier run has used what it might: the first ad of the next one is that which is left, and no other is until then.
        let mut again = Advert::after_restart(at(10_003));
        again.set_models(tiny(), at(10_003));
        assert!(send(&mut again, 10_003) && others.take(10_003));
        again.set_models(Vec::new(), at(10_004));
        assert_eq!(again.due(), at(20_003));
        assert!(!others.take(10_004), "they would not have listened");
        assert!(send(&mut again, 20_003) && others.take(20_003));
    }

    #[test]
    fn nothing_is_ever_said_that_others_would_not_take() {
        let mut taken_back = 0;
        for seed in 0..200_u64 {
            let (mut dice, mut others, mut advert) = (seed, Others::new(), Advert::new(T0));
            let mut roll = |sides: u64| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (dice >> 33) % sides
            };
            let (mut last, mut restart) = (0, 30_000 + roll(30_000));
            for step in 0..3_000_u64 {
                let ms = step * 100;
                match roll(30) {
                    0 => _ = advert.set_models(vec![model("tiny", 1, 1)], at(ms)),
                    1 => _ = advert.set_models(Vec::new(), at(ms)),
                    2 => advert.advertise_soon(at(ms)),
                    _ => {}
                }
                if ms >= restart {
                    // At its worst: just after an ad. The next one comes when others have forgotten all of them.
                    advert = Advert::after_restart(at(ms));
                    restart = u64::MAX;
                }
                if send(&mut advert, ms) {
                    assert!(others.take(ms), "seed {seed}: refused at {ms}");
                    taken_back += u64::from(ms - last < limits::AD_MIN_INTERVAL_MS && last > 0);
                    last = ms;
                }
            }
        }
        assert!(taken_back > 200, "only {taken_back} ads came early");
    }

    #[test]
    fn what_was_measured_stays_with_a_model_and_follows_slowly() {
        let mut advert = Advert::new(T0);
        advert.set_models(vec![model("tiny", 1, 1)], T0);
        assert!(advert.measure("tiny", Measured { ttft_ms: 100, tokens_per_second: Some(40) }));
        assert!(advert.measure("tiny", Measured { ttft_ms: 200, tokens_per_second: None }));
        assert!(!advert.measure("other", Measured { ttft_ms: 1, tokens_per_second: None }));
        advert.set_models(vec![model("tiny", 9, 9)], T0);
        let ad = advert.models().first().expect("one model");
        assert_eq!((ad.ttft_ms, ad.tokens_per_second, ad.price.output.0), (125, 40, 9));
    }
}
