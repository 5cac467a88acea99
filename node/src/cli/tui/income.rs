//! What the receipts of the last day tell: how much was earned, minute by minute and hour by hour. Pure.

use infernet_wire::{
    id::{JobId, NodeId},
    receipt::SignedReceipt,
    time::UnixMillis,
};
use std::collections::{BTreeMap, BTreeSet};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// Minutes that are shown.
pub(super) const MINUTES: usize = 60;
/// Hours that are shown.
pub(super) const HOURS: usize = 24;
/// For how long a receipt is of interest.
pub(super) const SPAN_MS: u64 = HOURS as u64 * HOUR_MS;
/// Receipts that are kept: a job every four seconds all day, in 2 MB. Beyond it, the oldest are left out of the picture.
pub(super) const MAX_RECEIPTS: usize = 20_000;

/// One job sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Earned {
    /// When it ended.
    pub(super) at: UnixMillis,
    /// Which.
    pub(super) job: JobId,
    /// What it brings, in micro-USD.
    pub(super) amount: u64,
}

impl Earned {
    /// What a receipt says, if it is one of ours as a worker.
    pub(super) fn of(signed: &SignedReceipt, us: &BTreeSet<NodeId>) -> Option<Self> {
        let body = signed.receipt();
        us.contains(&body.worker).then_some(Earned { at: body.finished, job: body.job, amount: body.amount.0 })
    }
}

/// The jobs of the last day, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Income(BTreeMap<(UnixMillis, JobId), u64>);

impl Income {
    /// Enters `earned`, some of which may be there already, and forgets what is too old by `now`.
    pub(super) fn enter(&mut self, earned: &[Earned], now: UnixMillis) {
        self.0.extend(earned.iter().map(|one| ((one.at, one.job), one.amount)));
        self.0.retain(|(at, _), _| now.since(*at) < SPAN_MS);
        while self.0.len() > MAX_RECEIPTS {
            self.0.pop_first();
        }
    }

    /// The last hour, the minute of `now` last, in micro-USD.
    pub(super) fn minutes(&self, now: UnixMillis) -> [u64; MINUTES] {
        self.by(MINUTE_MS, now)
    }

    /// The last day, the hour of `now` last, in micro-USD.
    pub(super) fn hours(&self, now: UnixMillis) -> [u64; HOURS] {
        self.by(HOUR_MS, now)
    }

    /// Whole minutes or hours by the clock, so that a bar stays where it is until the next begins.
    fn by<const N: usize>(&self, unit: u64, now: UnixMillis) -> [u64; N] {
        let mut sums = [0u64; N];
        for ((at, _), amount) in &self.0 {
            // What ended in our future, by a clock that was set back, counts as now.
            let ago = usize::try_from((now.0 / unit).saturating_sub(at.0 / unit)).unwrap_or(usize::MAX);
            if let Some(sum) = N.checked_sub(ago.saturating_add(1)).and_then(|place| sums.get_mut(place)) {
                *sum = sum.saturating_add(*amount);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn earned(at: u64, n: u8) -> Earned {
        Earned { at: UnixMillis(at), job: JobId([n; 16]), amount: u64::from(n) }
    }

    #[test]
    fn each_job_is_in_its_minute_and_hour_once() {
        let now = UnixMillis(100 * HOUR_MS + 5 * MINUTE_MS + 7);
        let mut income = Income::default();
        let jobs = [earned(now.0, 1), earned(now.0 - 6 * MINUTE_MS, 2), earned(now.0 - 30 * HOUR_MS, 4), earned(now.0 + 5, 8)];
        income.enter(&jobs, now);
        income.enter(&jobs[..2], now);
        let (minutes, hours) = (income.minutes(now), income.hours(now));
        assert_eq!((minutes[59], minutes[53], minutes.iter().sum::<u64>()), (9, 2, 11));
        assert_eq!((hours[23], hours[22], hours.iter().sum::<u64>()), (9, 2, 11));
    }

    #[test]
    fn a_day_later_nothing_is_left_and_there_is_a_bound() {
        let mut income = Income::default();
        let many: Vec<_> = (0..MAX_RECEIPTS as u64 + 5).map(|n| earned(n, 1)).collect();
        income.enter(&many, UnixMillis(0));
        assert_eq!(income.0.len(), MAX_RECEIPTS);
        income.enter(&[], UnixMillis(2 * SPAN_MS));
        assert!(income.0.is_empty());
    }
}
