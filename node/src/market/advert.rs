//! When a worker advertises what: its models with the speeds that jobs have shown, and the time of its next ad.
//!
//! Engines don't know how fast they are, so what was measured stays with a model for as long as it is served. A change is
//! advertised as soon as others would listen to another ad of ours; without one, the ad is refreshed at a time that a random
//! number spreads, so that workers that start together don't shout together.

use infernet_wire::{capability::ModelAd, limits, time::UnixMillis};

/// Fewer tokens tell nothing about speed.
pub const MIN_MEASURED_TOKENS: u32 = 8;

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
    /// Whether the last ad that was published names a model.
    offers: bool,
    due: UnixMillis,
}

impl Advert {
    /// Nothing to advertise yet; the first ad is due at once.
    pub fn new(now: UnixMillis) -> Self {
        Advert { models: Vec::new(), closed: false, published: None, offers: false, due: now }
    }

    /// What is served.
    pub fn models(&self) -> &[ModelAd] {
        &self.models
    }

    /// What the next ad is to say: nothing while the worker is closed. `None` if no ad is needed, since none that is believed
    /// says more.
    pub fn next(&self) -> Option<&[ModelAd]> {
        let next: &[ModelAd] = if self.closed { &[] } else { &self.models };
        (self.offers || !next.is_empty()).then_some(next)
    }

    /// Whether nothing is offered for a while. If that changes anything, it is advertised soon.
    pub fn set_closed(&mut self, closed: bool, now: UnixMillis) {
        if closed != self.closed {
            self.closed = closed;
            self.advertise_soon(now);
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
            self.advertise_soon(now);
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

    /// Time for the next ad has come: sets the time of the one after it, by the random number `spread`.
    pub fn refresh(&mut self, spread: u8, now: UnixMillis) {
        let range = limits::AD_REFRESH_MS;
        self.due = now.after(range.start + (range.end - range.start) * u64::from(spread) / 256);
    }

    /// An ad with what [`Advert::next`] says was published.
    pub fn published(&mut self, now: UnixMillis) {
        self.published = Some(now);
        self.offers = self.next().is_some_and(|models| !models.is_empty());
    }
}

/// Three parts of what was known and one of the newest; 0 is nothing known.
fn smooth(known: u32, sample: u32) -> u32 {
    if known == 0 { sample } else { u32::try_from((3 * u64::from(known) + u64::from(sample)).div_ceil(4)).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, at, model};

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
        assert_eq!((advert.next().map(<[_]>::len), advert.due()), (Some(0), T0), "as soon as others listen, or as it was due");
        advert.published(at(10_000));
        assert_eq!(advert.next(), None);
        advert.set_closed(false, at(20_000));
        assert_eq!(advert.next().map(<[_]>::len), Some(1));
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
