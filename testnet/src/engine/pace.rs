//! Slows an answer down to a rate.

use infernet_node::clock;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::EngineError;

/// A beat that doesn't drift: a late tick makes the next one come sooner. Each answer has its own copy.
#[derive(Clone)]
pub(super) struct Pace {
    period: Duration,
    next: Option<Instant>,
}

impl Pace {
    /// A beat of so many tokens per second; an error unless that is finite, above zero, and a period that fits.
    pub(super) fn new(tokens_per_second: f64) -> Result<Self, EngineError> {
        let rate = EngineError::Rate(tokens_per_second);
        if !tokens_per_second.is_finite() || tokens_per_second <= 0.0 {
            return Err(rate);
        }
        let period = Duration::try_from_secs_f64(tokens_per_second.recip()).map_err(|_| rate)?;
        Ok(Self { period, next: None })
    }

    /// The first tick comes at once and starts the clock.
    pub(super) async fn tick(&mut self) {
        let now = clock::deadline(Duration::ZERO);
        let due = *self.next.get_or_insert(now);
        // A timer rings at the next whole millisecond, even if it is due.
        if due > now {
            sleep_until(due).await;
        }
        self.next = due.checked_add(self.period);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_finite_rates_have_a_beat() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE] {
            assert!(Pace::new(rate).is_err(), "{rate}");
        }
        assert!(Pace::new(0.01).is_ok_and(|pace| pace.period == Duration::from_secs(100)));
    }
}
