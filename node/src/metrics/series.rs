//! Numbers by label, counted where things happen: a lock for some nanoseconds, a few times a job and never for a token.

use super::family::{Histogram, Kind, Labels, Sample, Value};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Models with series of their own. A worker with more is rare, and each costs some 60 lines in every scrape; whoever stores
/// them pays for each one for weeks.
const MAX_MODELS: usize = 64;
/// The label of all other models, and of those that nobody serves: buyers and clients choose names as they like.
const OTHER: &str = "other";
/// Series of one histogram; above, a model becomes [`OTHER`]. The rest of the labels come from the code and are few.
const MAX_SERIES: usize = 512;

/// What a family is read from.
pub(super) trait Recorded {
    /// How to read it.
    const KIND: Kind;
    /// Its series now.
    fn samples(&self) -> Vec<Sample>;
}

/// A count without labels, which many may raise at once.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// `n` more.
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

impl Recorded for Counter {
    const KIND: Kind = Kind::Counter;

    fn samples(&self) -> Vec<Sample> {
        vec![Sample::whole(self.0.load(Ordering::Relaxed))]
    }
}

/// Counts by labels from the code.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<BTreeMap<Labels, u64>>);

impl Counts {
    /// `n` more of these.
    pub(super) fn add<const N: usize>(&self, labels: [(&'static str, Cow<'static, str>); N], n: u64) {
        *lock(&self.0).entry(labels.into()).or_default() += n;
    }
}

impl Recorded for Counts {
    const KIND: Kind = Kind::Counter;

    fn samples(&self) -> Vec<Sample> {
        let sample = |(labels, n): (&Labels, &u64)| Sample { labels: labels.clone(), value: Value::Whole(*n) };
        lock(&self.0).iter().map(sample).collect()
    }
}

/// Values by size and labels.
#[derive(Debug)]
pub(super) struct Histograms {
    bounds: &'static [f64],
    series: Mutex<BTreeMap<Labels, Histogram>>,
}

impl Histograms {
    /// An empty one, counted up to each of `bounds`, which must grow.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Histograms { bounds, series: Mutex::default() }
    }

    /// Counts `value` among these.
    pub(super) fn observe(&self, mut labels: Labels, value: f64) {
        let mut series = lock(&self.series);
        if series.len() >= MAX_SERIES && !series.contains_key(&labels) {
            labels.iter_mut().filter(|(label, _)| *label == super::MODEL).for_each(|(_, model)| *model = OTHER.into());
        }
        series.entry(labels).or_insert_with(|| Histogram::new(self.bounds)).observe(value);
    }
}

impl Recorded for Histograms {
    const KIND: Kind = Kind::Histogram;

    fn samples(&self) -> Vec<Sample> {
        let sample = |(labels, h): (&Labels, &Histogram)| Sample { labels: labels.clone(), value: Value::Histogram(h.clone()) };
        lock(&self.series).iter().map(sample).collect()
    }
}

/// Names of models that may be labels.
#[derive(Debug, Default)]
pub(super) struct Models(Mutex<BTreeSet<String>>);

impl Models {
    /// The label of `model`. It becomes a label of its own once it `is_served`, as long as there is room.
    pub(super) fn label(&self, model: &str, is_served: bool) -> Cow<'static, str> {
        let mut names = lock(&self.0);
        if is_served && names.len() < MAX_MODELS && !names.contains(model) {
            names.insert(model.to_owned());
        }
        if names.contains(model) { model.to_owned().into() } else { OTHER.into() }
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_once_somebody_serves_it_and_while_there_is_room() {
        let models = Models::default();
        assert_eq!(models.label("tiny", false), OTHER);
        assert_eq!(models.label("tiny", true), "tiny");
        assert_eq!(models.label("tiny", false), "tiny");
        for n in 0..MAX_MODELS * 2 {
            models.label(&n.to_string(), true);
        }
        assert_eq!((models.label("late", true), models.label("tiny", true)), (OTHER.into(), "tiny".into()));
    }

    #[test]
    fn series_are_bounded_whatever_models_are_named() {
        let histograms = Histograms::new(&[1.0]);
        for n in 0..MAX_SERIES * 2 {
            histograms.observe(vec![(super::super::MODEL, n.to_string().into())], 0.5);
        }
        let samples = histograms.samples();
        assert_eq!(samples.len(), MAX_SERIES + 1);
        let counted = |sample: &Sample| if let Value::Histogram(h) = &sample.value { h.count() } else { 0 };
        assert_eq!(samples.iter().map(counted).sum::<u64>(), 2 * MAX_SERIES as u64, "nothing is lost");
    }
}
