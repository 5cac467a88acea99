//! How often somebody may do something: token buckets in whole numbers.

use infernet_wire::time::UnixMillis;

/// Thousandths of an offer, so that a rate per second counts in whole numbers per millisecond.
const MILLI: u64 = 1_000;

/// How often something may be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) per_second: u32,
    pub(super) burst: u32,
}

impl Rate {
    fn size(self) -> u64 {
        u64::from(self.burst) * MILLI
    }
}

/// A token bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    milli: u64,
    filled: UnixMillis,
}

impl Bucket {
    /// A full one.
    pub(super) fn full(rate: Rate, now: UnixMillis) -> Self {
        Bucket { milli: rate.size(), filled: now }
    }

    /// Takes one turn's worth, if it is there. A clock that went back fills nothing.
    pub(super) fn spend(&mut self, rate: Rate, now: UnixMillis) -> bool {
        let gained = now.since(self.filled).saturating_mul(rate.per_second.into());
        self.milli = self.milli.saturating_add(gained).min(rate.size());
        self.filled = self.filled.max(now);
        let spent = self.milli.checked_sub(MILLI);
        self.milli = spent.unwrap_or(self.milli);
        spent.is_some()
    }
}
