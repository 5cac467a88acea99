//! What this UTC day has brought and cost, kept up to date as receipts are kept: for `infernet status`, which may be asked twice
//! a second and must not read a day's receipts each time. `infernet earnings` adds up the receipts themselves.

use crate::{clock, date::Day, earnings::Sum, store::Put};
use infernet_wire::{id::NodeId, receipt::SignedReceipt, time::UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a UTC day has brought and cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TodayReport {
    /// The day, such as `2026-11-25`.
    pub day: String,
    /// Jobs sold.
    pub earned: Sum,
    /// Jobs bought.
    pub spent: Sum,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Today {
    us: Arc<BTreeSet<NodeId>>,
    begun: UnixMillis,
    sums: Arc<Mutex<Sums>>,
}

#[derive(Debug)]
struct Sums {
    day: Day,
    earned: Sum,
    spent: Sum,
}

impl Today {
    /// Of the node that is or was one of `us`, and begins at `now`.
    pub fn new(us: BTreeSet<NodeId>, now: UnixMillis) -> Self {
        let sums = Sums { day: Day::of(now), earned: Sum::default(), spent: Sum::default() };
        Today { us: Arc::new(us), begun: now, sums: Arc::new(Mutex::new(sums)) }
    }

    /// A receipt was kept, and `put` is what it was to the store.
    pub fn kept(&self, receipt: &SignedReceipt, put: Put) {
        let mut sums = self.sums(clock::now());
        match (put, sums.of(receipt, &self.us)) {
            (Put::New, Some(sum)) => sum.add(receipt),
            (Put::Countersigned, Some(sum)) => sum.acknowledge(receipt),
            _ => {}
        }
    }

    /// Receipts of an earlier run; those of jobs that ended in this one were told when they were kept.
    pub fn recall(&self, receipts: &[SignedReceipt]) {
        let mut sums = self.sums(clock::now());
        for receipt in receipts.iter().filter(|r| r.receipt().finished < self.begun) {
            if let Some(sum) = sums.of(receipt, &self.us) {
                sum.add(receipt);
            }
        }
    }

    /// The day as it is shown.
    pub fn report(&self, now: UnixMillis) -> TodayReport {
        let sums = self.sums(now);
        TodayReport { day: sums.day.to_string(), earned: sums.earned.clone(), spent: sums.spent.clone() }
    }

    /// The sums of the day of `now`; empty ones if it is a new day.
    fn sums(&self, now: UnixMillis) -> MutexGuard<'_, Sums> {
        // Nothing panics while it holds the lock.
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.day < Day::of(now) {
            *sums = Sums { day: Day::of(now), earned: Sum::default(), spent: Sum::default() };
        }
        sums
    }
}

impl Sums {
    /// Where a receipt counts, if it is of this day and of one of `us`.
    fn of(&mut self, receipt: &SignedReceipt, us: &BTreeSet<NodeId>) -> Option<&mut Sum> {
        let body = receipt.receipt();
        match () {
            () if Day::of(body.finished) != self.day => None,
            () if us.contains(&body.worker) => Some(&mut self.earned),
            () if us.contains(&body.buyer) => Some(&mut self.spent),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::date::DAY_MS;
    use infernet_wire::{
        id::{Hash, JobId},
        key::NodeKey,
        money::{MicroUsd, Price},
        receipt::{Countersign, JobReceipt, JobStatus},
        topic::{INFERENCE, NetworkId},
    };

    fn key(n: u8) -> NodeKey {
        NodeKey::from_bytes(&[n; 32]).expect("a valid scalar")
    }

    /// Worker 1's receipt for buyer 2, of seven micro-USD.
    fn receipt(finished: UnixMillis, countersigned: bool) -> SignedReceipt {
        let network = NetworkId::default();
        let body = JobReceipt {
            job: JobId([1; 16]),
            accept: Hash([1; 32]),
            buyer: key(2).id(),
            worker: key(1).id(),
            workload: INFERENCE.into(),
            model: "tiny".into(),
            weights: None,
            input_tokens: 0,
            output_tokens: 7,
            price: Price { input: MicroUsd(0), output: MicroUsd(1_000_000) },
            amount: MicroUsd(7),
            paid: MicroUsd(0),
            started: finished,
            finished,
            status: JobStatus::COMPLETED,
            request: Hash([1; 32]),
            transcript: Hash([1; 32]),
            paid_on: None,
        };
        let receipt = key(1).sign(&network, body).expect("within limits");
        let agreed = Countersign { receipt: receipt.digest(), issued: finished };
        let countersign = countersigned.then(|| key(2).sign(&network, agreed).expect("within limits"));
        SignedReceipt::new(receipt, countersign).expect("its parts belong together")
    }

    /// Jobs, micro-USD that both signed, and that the worker alone signed.
    fn shown(sum: &Sum) -> (u64, u64, u64) {
        (sum.jobs, sum.acknowledged_micro_usd, sum.unacknowledged_micro_usd)
    }

    #[test]
    fn the_buyers_signature_makes_no_second_job() {
        let now = clock::now();
        let (worker, buyer) = (Today::new([key(1).id()].into(), now), Today::new([key(9).id(), key(2).id()].into(), now));
        worker.kept(&receipt(now, false), Put::New);
        assert_eq!(shown(&worker.report(now).earned), (1, 0, 7));
        worker.kept(&receipt(now, true), Put::Countersigned);
        worker.kept(&receipt(now, true), Put::Known);
        assert_eq!((shown(&worker.report(now).earned), shown(&worker.report(now).spent)), ((1, 7, 0), (0, 0, 0)));
        buyer.kept(&receipt(now, true), Put::New);
        assert_eq!(shown(&buyer.report(now).spent), (1, 7, 0));
    }

    #[test]
    fn an_earlier_run_counts_once_and_another_day_does_not() {
        let begun = clock::now();
        let today = Today::new([key(1).id()].into(), begun);
        let (before, yesterday) = (UnixMillis(begun.0 - 1), UnixMillis(begun.0 - DAY_MS));
        today.kept(&receipt(begun, true), Put::New);
        today.recall(&[receipt(begun, true), receipt(before, true), receipt(yesterday, true)]);
        // A millisecond before may be yesterday, once in a while.
        let earlier = u64::from(Day::of(before) == Day::of(begun));
        assert_eq!(today.report(begun).earned.jobs, 1 + earlier);
        assert_eq!(today.report(begun.after(DAY_MS)).earned, Sum::default(), "a new day begins with nothing");
    }
}
