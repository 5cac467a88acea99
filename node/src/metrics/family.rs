//! Metrics as plain data, between whoever counts and whoever writes them down.

use std::borrow::Cow;

/// What tells the series of a family apart, in the order in which it is written.
pub(super) type Labels = Vec<(&'static str, Cow<'static, str>)>;

/// How a family's numbers are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows; its samples end in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often a value was at most so large.
    Histogram,
    /// A fact in its labels; its sample ends in `_info`.
    Info,
}

/// A number.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Whole.
    Whole(u64),
    /// With a fraction, such as seconds.
    Real(f64),
    /// Many, of a [`Kind::Histogram`].
    Histogram(Histogram),
}

/// One series now.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which.
    pub(super) labels: Labels,
    /// How much.
    pub(super) value: Value,
}

impl Sample {
    /// A whole number without labels.
    pub fn whole(value: u64) -> Self {
        Sample { labels: Vec::new(), value: Value::Whole(value) }
    }

    /// A whole number of one kind.
    pub fn labelled(label: &'static str, is: impl Into<Cow<'static, str>>, value: u64) -> Self {
        Sample { labels: vec![(label, is.into())], value: Value::Whole(value) }
    }
}

/// All series of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its name, without the ending that its kind adds.
    pub(super) name: &'static str,
    /// What it tells, in a sentence.
    pub(super) help: &'static str,
    /// How to read it.
    pub(super) kind: Kind,
    /// Its series. None yet: the name and help are told all the same.
    pub(super) samples: Vec<Sample>,
}

impl Family {
    /// A counter.
    pub fn counter(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Self {
        Family { name, help, kind: Kind::Counter, samples }
    }

    /// A gauge.
    pub fn gauge(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Self {
        Family { name, help, kind: Kind::Gauge, samples }
    }
}

/// Counts of values by size.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// How many were at most each bound and above the one before; the last: above all.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// An empty one; `bounds` must grow.
    pub fn new(bounds: &'static [f64]) -> Self {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts `value`. What is not a number counts nowhere.
    pub fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket).filter(|_| value.is_finite()) {
            *count += 1;
            self.sum += value;
        }
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All values together.
    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    /// Each bound, the last one infinite, and how many values lie between it and the one before.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_below_the_first_bound_that_it_does_not_exceed() {
        let mut histogram = Histogram::new(&[1.0, 2.0]);
        [0.5, 1.0, 1.5, 2.0, 2.5, f64::NAN, f64::INFINITY].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(histogram.buckets(), [(1.0, 2), (2.0, 2), (f64::INFINITY, 1)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, 7.5));
    }
}
