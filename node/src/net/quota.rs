//! Token buckets, one per key, in integers.
//!
//! A bucket is one number: the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371). Each use
//! moves that time one interval ahead; a use that would move it further ahead than a full bucket lasts is refused.

use super::generations::Generations;
use infernet_wire::time::UnixMillis;
use std::hash::Hash;

/// One use per `interval_ms` in the long run, `burst` of them at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) interval_ms: u64,
    pub(super) burst: u64,
}

/// The buckets of many keys.
#[derive(Debug)]
pub(super) struct Quota<K> {
    rate: Rate,
    full_at: Generations<K, UnixMillis>,
}

impl<K: Eq + Hash> Quota<K> {
    /// At most twice `capacity` buckets are kept. One that is forgotten after its span was full again, so nothing is lost;
    /// a flood of keys that forces older buckets out gains no more than those keys would.
    pub(super) fn new(rate: Rate, capacity: usize) -> Self {
        Quota { rate, full_at: Generations::new(capacity, rate.interval_ms * rate.burst) }
    }

    /// How many buckets are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.full_at.len()
    }

    /// Uses one token of `key`; false if there is none.
    pub(super) fn try_take(&mut self, key: K, now: UnixMillis) -> bool {
        let Rate { interval_ms, burst } = self.rate;
        let full_at = self.full_at.get(&key).copied().unwrap_or(now);
        // Further ahead than any use can move it: the clock was set back.
        let sane = full_at.since(now) <= interval_ms * burst;
        let full_at = if sane { full_at.max(now) } else { now };
        if full_at.since(now) > interval_ms * (burst - 1) {
            return false;
        }
        self.full_at.insert(key, full_at.after(interval_ms), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { interval_ms: 200, burst: 20 };
    const T0: UnixMillis = UnixMillis(1_000_000);

    fn taken(quota: &mut Quota<u8>, tries: u32, now: UnixMillis) -> usize {
        (0..tries).filter(|_| quota.try_take(1, now)).count()
    }

    #[test]
    fn a_burst_then_the_sustained_rate() {
        let mut quota = Quota::new(RATE, 10);
        assert_eq!(taken(&mut quota, 100, T0), 20);
        assert_eq!(taken(&mut quota, 100, T0.after(199)), 0);
        assert_eq!(taken(&mut quota, 100, T0.after(1_000)), 5);
        assert_eq!(taken(&mut quota, 100, T0.after(60_000)), 20, "never more than a burst");
    }

    #[test]
    fn keys_do_not_share() {
        let mut quota = Quota::new(RATE, 10);
        assert_eq!(taken(&mut quota, 100, T0), 20);
        assert!(quota.try_take(2, T0));
    }

    #[test]
    fn a_clock_set_back_does_not_lock_anyone_out() {
        let mut quota = Quota::new(RATE, 10);
        assert_eq!(taken(&mut quota, 100, T0.after(3_600_000)), 20);
        assert_eq!(taken(&mut quota, 100, T0), 20);
    }
}
