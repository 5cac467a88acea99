//! Whether the victims came through: pure arithmetic over what was seen.

use super::honest::JobsReport;
use serde::Serialize;

/// Memory may grow by this much from the third quarter to the last, in kilobytes: replay sets and quota tables fill up to their
/// bounds in the first minutes, and the allocator returns pages when it likes.
const SLACK_KB: f64 = 6.0 * 1_024.0;
/// And by this much of itself.
const SLACK_PERCENT: f64 = 5.0;
/// Samples below which nothing can be said.
const MIN_SAMPLES: usize = 8;

/// One victim's memory over time, in kilobytes, at equal intervals.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// The samples.
    pub kb: Vec<u64>,
}

impl Memory {
    /// Medians of the third and the last quarter; `None` if there are too few samples.
    pub fn late_quarters(&self) -> Option<(f64, f64)> {
        let n = self.kb.len();
        (n >= MIN_SAMPLES).then(|| (median(self.kb.get(n / 2..n * 3 / 4)), median(self.kb.get(n * 3 / 4..))))
    }

    /// Whether it has stopped growing.
    pub fn is_flat(&self) -> Option<bool> {
        let (third, last) = self.late_quarters()?;
        Some(last <= third * (1.0 + SLACK_PERCENT / 100.0) + SLACK_KB)
    }
}

fn median(samples: Option<&[u64]>) -> f64 {
    let mut sorted = samples.unwrap_or_default().to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default() as f64
}

/// What is wrong; nothing if all is well. `lived` tells whether both victims still run.
pub(super) fn complaints(memory: &[(&str, &Memory)], jobs: &JobsReport, lived: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    if !lived {
        wrong.push("a victim died".into());
    }
    for (name, memory) in memory {
        match (memory.is_flat(), memory.late_quarters()) {
            (Some(true), _) => {}
            (Some(false), Some((third, last))) => wrong.push(format!(
                "the {name}'s memory still grows: {:.1} MB in the third quarter, {:.1} MB in the last",
                third / 1024.0,
                last / 1024.0
            )),
            _ => wrong.push(format!("too short to tell about the {name}'s memory: {} samples", memory.kb.len())),
        }
    }
    if jobs.latency_ms.n == 0 {
        wrong.push("no honest job got through".into());
    }
    if jobs.failed + jobs.hung > 0 {
        wrong.push(format!("{} honest jobs failed and {} hung: {:?}", jobs.failed, jobs.hung, jobs.errors));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Distribution;

    fn check(kb: impl IntoIterator<Item = u64>, flat: Option<bool>) {
        assert_eq!(Memory { kb: kb.into_iter().collect() }.is_flat(), flat);
    }

    #[test]
    fn memory_that_fills_up_and_stops_is_flat_and_memory_that_leaks_is_not() {
        check((0..100).map(|_| 40_000), Some(true));
        check((0..100).map(|n| 40_000 + n.min(50) * 1_000), Some(true));
        check((0..100).map(|n| 40_000 + n * 1_000), Some(false));
        // An allocator's saw.
        check((0..100).map(|n| 40_000 + n % 7 * 2_000), Some(true));
        check([40_000; 5], None);
    }

    fn report(n: usize, failed: u64, hung: u64) -> JobsReport {
        JobsReport { latency_ms: Distribution::of(vec![1.0; n]), failed, hung, errors: Default::default() }
    }

    #[test]
    fn a_failed_a_hung_or_a_missing_job_is_a_complaint() {
        let flat = Memory { kb: vec![40_000; 20] };
        let memory = [("worker", &flat)];
        assert!(complaints(&memory, &report(10, 0, 0), true).is_empty());
        for (jobs, lived) in
            [(report(10, 1, 0), true), (report(10, 0, 1), true), (report(0, 0, 0), true), (report(10, 0, 0), false)]
        {
            assert_eq!(complaints(&memory, &jobs, lived).len(), 1);
        }
    }
}
