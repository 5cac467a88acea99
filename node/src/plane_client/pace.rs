//! When a plane is told next. Pure.

use std::time::Duration;

/// Failures in a row at the usual pace: a plane that restarts is back by then.
const PATIENCE: u32 = 4;
/// The longest wait for one that does not answer.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// How long until the next word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    every: Duration,
    failures: u32,
}

impl Pace {
    /// A word every so often.
    pub(super) fn new(every: Duration) -> Self {
        Pace { every, failures: 0 }
    }

    /// It was heard, or not.
    pub(super) fn was_heard(&mut self, heard: bool) {
        self.failures = if heard { 0 } else { self.failures.saturating_add(1) };
    }

    /// Until the next word: up to a tenth less, by `spread` of 256, so that nodes which started together part.
    pub(super) fn wait(&self, spread: u8) -> Duration {
        let doubled = self.failures.saturating_sub(PATIENCE).min(16);
        let wait = self.every.saturating_mul(1 << doubled).min(MAX_WAIT.max(self.every));
        wait - wait / 10 * u32::from(spread) / 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_that_is_down_is_asked_ever_more_seldom_and_at_once_often_again() {
        let mut pace = Pace::new(Duration::from_secs(30));
        let waits: Vec<u64> = (0..10)
            .map(|_| {
                pace.was_heard(false);
                pace.wait(0).as_secs()
            })
            .collect();
        assert_eq!(waits, [30, 30, 30, 30, 60, 120, 240, 300, 300, 300]);
        pace.was_heard(true);
        assert_eq!(pace.wait(0), Duration::from_secs(30));
        assert!((27..30).contains(&pace.wait(255).as_secs()));
    }
}
