//! How far a download is, how fast it goes, when it will be done, and when a broken one is tried again. Pure, but for [`fetch`],
//! which has an engine do it.

use crate::{
    backend::{
        BackendError,
        manage::{Manage, ManageError, PullStep},
    },
    clock,
};
use futures::StreamExt;
use infernet_wire::time::UnixMillis;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Parts of a model: its weights in some files, template, licence, parameters.
const MAX_PARTS: usize = 1_024;
/// The rate is the mean over this time: shorter it jumps, longer it lies.
const WINDOW_MS: u64 = 10_000;
/// Between two measurements.
const SAMPLE_MS: u64 = 250;
/// Failures in a row, without a byte in between, after which it is given up.
const MAX_FAILURES: u32 = 6;
/// The longest wait before another try.
const MAX_WAIT_SECS: u64 = 30;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Download {
    parts: BTreeMap<String, (u64, u64)>,
    samples: VecDeque<(UnixMillis, u64)>,
    stage: String,
    failures: u32,
    /// What was there when it broke last.
    broke_at: u64,
}

impl Download {
    /// Takes note of a step.
    pub fn step(&mut self, step: &PullStep, now: UnixMillis) {
        match step {
            PullStep::Stage(stage) => self.stage.clone_from(stage),
            PullStep::Part { part, total, completed } => {
                if self.parts.len() < MAX_PARTS || self.parts.contains_key(part) {
                    self.parts.insert(part.clone(), (*total, *completed));
                }
                self.stage = "downloading".into();
                self.sample(now);
            }
            PullStep::Done => self.stage = "done".into(),
        }
    }

    /// What is being done.
    pub fn stage(&self) -> &str {
        &self.stage
    }

    /// Bytes in all, of the parts known so far.
    pub fn total(&self) -> u64 {
        self.parts.values().fold(0, |sum, (total, _)| sum.saturating_add(*total))
    }

    /// Bytes that are there.
    pub fn completed(&self) -> u64 {
        self.parts.values().fold(0, |sum, (_, completed)| sum.saturating_add(*completed))
    }

    /// Bytes a second over the last ten; `None` at first.
    pub fn rate(&self) -> Option<u64> {
        let ((begin, first), (end, last)) = (self.samples.front()?, self.samples.back()?);
        let ms = end.since(*begin);
        (ms >= SAMPLE_MS).then(|| u64::try_from(u128::from(last.saturating_sub(*first)) * 1_000 / u128::from(ms)).unwrap_or(0))
    }

    /// Milliseconds until all known parts are there, at the present rate.
    pub fn left_ms(&self) -> Option<u64> {
        let left = self.total().saturating_sub(self.completed());
        left.saturating_mul(1_000).checked_div(self.rate()?)
    }

    /// It broke: how long to wait before the next try, or `None` if it is no use. Progress since the last failure makes it worth
    /// as many tries again.
    pub fn broke(&mut self) -> Option<Duration> {
        let completed = self.completed();
        self.failures = if completed > self.broke_at { 1 } else { self.failures + 1 };
        self.broke_at = self.broke_at.max(completed);
        self.samples.clear();
        let wait = 1u64.checked_shl(self.failures - 1).unwrap_or(MAX_WAIT_SECS).min(MAX_WAIT_SECS);
        (self.failures < MAX_FAILURES).then(|| Duration::from_secs(wait))
    }

    fn sample(&mut self, now: UnixMillis) {
        let completed = self.completed();
        // What was there before is told at first all at once; that is no speed.
        if self.samples.back().is_some_and(|(at, _)| now.since(*at) < SAMPLE_MS) {
            return;
        }
        self.samples.push_back((now, completed));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(at, _)| now.since(*at) > WINDOW_MS) {
            self.samples.pop_front();
        }
    }
}

/// What [`fetch`] tells.
#[derive(Debug)]
pub enum Fetching<'a> {
    /// It is further.
    Further,
    /// It broke, and goes on after this time.
    Broke(&'a ManageError, Duration),
}

/// Has `engine` fetch `model`, again and again for as long as that is of use. `told` hears how far it is and may end it, which is
/// the outer error; the inner one is the engine's.
pub async fn fetch<E>(
    engine: &dyn Manage,
    model: &str,
    download: &mut Download,
    mut told: impl FnMut(&Download, Fetching<'_>) -> Result<(), E>,
) -> Result<Result<(), ManageError>, E> {
    loop {
        let Err(error) = fetch_once(engine, model, download, &mut told).await? else { return Ok(Ok(())) };
        let wait = if error.is_passing() { download.broke() } else { None };
        let Some(wait) = wait else { return Ok(Err(error)) };
        told(download, Fetching::Broke(&error, wait))?;
        tokio::time::sleep(wait).await;
    }
}

async fn fetch_once<E>(
    engine: &dyn Manage,
    model: &str,
    download: &mut Download,
    told: &mut impl FnMut(&Download, Fetching<'_>) -> Result<(), E>,
) -> Result<Result<(), ManageError>, E> {
    let mut steps = match engine.pull(model.to_owned()).await {
        Ok(steps) => steps,
        Err(error) => return Ok(Err(error)),
    };
    while let Some(step) = steps.next().await {
        let step = match step {
            Ok(step) => step,
            Err(error) => return Ok(Err(error)),
        };
        download.step(&step, clock::now());
        if step == PullStep::Done {
            return Ok(Ok(()));
        }
        told(download, Fetching::Further)?;
    }
    Ok(Err(BackendError::Truncated.into()))
}

/// `1.3 GB`, `274 MB`, `12 kB`: decimal, as registries and disks say it.
pub fn bytes(n: u64) -> String {
    // To the nearest, in 128 bits, which no amount overflows.
    let tenths = |unit: u64| u64::try_from((u128::from(n) * 10 + u128::from(unit) / 2) / u128::from(unit)).unwrap_or(u64::MAX);
    let shown = |unit: u64, name: &str| {
        let t = tenths(unit);
        if t >= 1_000 { format!("{} {name}", t / 10) } else { format!("{}.{} {name}", t / 10, t % 10) }
    };
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => shown(1_000, "kB"),
        1_000_000..1_000_000_000 => shown(1_000_000, "MB"),
        _ => shown(1_000_000_000, "GB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(part: &str, total: u64, completed: u64) -> PullStep {
        PullStep::Part { part: part.into(), total, completed }
    }

    #[test]
    fn parts_add_up_and_the_rate_is_that_of_the_last_seconds() {
        let mut download = Download::default();
        let at = UnixMillis;
        download.step(&PullStep::Stage("pulling manifest".into()), at(0));
        assert_eq!((download.stage(), download.total(), download.rate()), ("pulling manifest", 0, None));
        download.step(&part("a", 1_000, 400), at(0));
        assert_eq!((download.rate(), download.left_ms()), (None, None));
        for second in 1..=20 {
            download.step(&part("a", 1_000, 400 + 10 * second), at(second * 1_000));
        }
        download.step(&part("b", 100, 100), at(20_001));
        assert_eq!((download.total(), download.completed(), download.rate()), (1_100, 700, Some(10)));
        assert_eq!(download.left_ms(), Some(40_000));
    }

    #[test]
    fn tries_are_bounded_and_progress_gives_new_ones() {
        let mut download = Download::default();
        let waits = |download: &mut Download| std::iter::from_fn(|| download.broke()).map(|w| w.as_secs()).collect::<Vec<_>>();
        assert_eq!(waits(&mut download), [1, 2, 4, 8, 16]);
        download.step(&part("a", 10, 1), UnixMillis(0));
        assert_eq!(waits(&mut download), [1, 2, 4, 8, 16]);
        assert_eq!(download.broke(), None);
    }

    #[test]
    fn amounts_are_short() {
        let shown = [7, 1_000, 1_234_567, 274_000_000, 4_920_753_328, 65_400_000_000, 165_000_000_000].map(bytes);
        assert_eq!(shown, ["7 B", "1.0 kB", "1.2 MB", "274 MB", "4.9 GB", "65.4 GB", "165 GB"]);
        assert!(bytes(u64::MAX).ends_with("GB"));
    }
}
