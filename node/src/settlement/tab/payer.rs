//! The buyer's side of a tab.

use infernet_wire::{id::JobId, money::MicroUsd};
use std::collections::BTreeMap;

/// What a buyer may promise beyond what it needs, in micro-USD: what it loses at most if it crashes, once for each seller that it
/// was dealing with. A cent is a hundred thousand tokens at the usual price, so that few payments wait for the disk.
const STEP: u64 = 10_000;
/// The bytes of [`PayerTab::record`].
const RECORD: usize = 17;

/// What it takes to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorise {
    /// The voucher's amount; `more` should be made durable soon, so that the next payments need not wait.
    Ready {
        /// The channel's total.
        amount: u64,
        /// What to write when there is time; [`PayerTab::authorised`] comes after it.
        more: Option<u64>,
    },
    /// This total must be durable first; then [`PayerTab::authorised`], and ask again.
    First(u64),
    /// More than can be counted, or less than was paid for the job already.
    Refused,
}

/// See the module above.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PayerTab {
    settled: u64,
    jobs: BTreeMap<JobId, u64>,
    promised: u64,
    authorised: u64,
    /// The highest total that is on its way to the disk, so that a later record is never lower.
    asked: u64,
}

impl PayerTab {
    /// What [`PayerTab::record`] tells after a stop. Bytes that are no record count as none.
    pub fn recover(record: &[u8]) -> Option<Self> {
        let record: &[u8; RECORD] = record.try_into().ok()?;
        let (&clean, rest) = record.split_first()?;
        let (settled, authorised) = rest.split_first_chunk()?;
        let (settled, authorised) = (u64::from_be_bytes(*settled), u64::from_be_bytes(authorised.try_into().ok()?));
        let settled = if clean == 1 { settled.min(authorised) } else { authorised };
        Some(PayerTab { settled, promised: authorised, authorised, ..Self::default() })
    }

    /// What is written before the total `authorised` may be promised.
    pub fn ahead(&self, authorised: u64) -> Vec<u8> {
        Self::bytes(false, self.settled, authorised)
    }

    /// What is written in the end, when no job runs: the truth. `None` while one runs.
    pub fn record(&self) -> Option<Vec<u8>> {
        self.is_idle().then(|| Self::bytes(true, self.settled, self.promised))
    }

    fn bytes(clean: bool, settled: u64, total: u64) -> Vec<u8> {
        [&[u8::from(clean)][..], &settled.to_be_bytes(), &total.to_be_bytes()].concat()
    }

    /// Pays `paid` for `job` in all.
    pub fn pay(&mut self, job: JobId, paid: MicroUsd) -> Authorise {
        let before = self.jobs.get(&job).copied().unwrap_or_default();
        let others = self.running().checked_sub(before);
        let total = others.and_then(|others| others.checked_add(paid.0)?.checked_add(self.settled));
        let Some(needed) = total.filter(|_| paid.0 >= before) else { return Authorise::Refused };
        let amount = needed.max(self.promised);
        if amount > self.authorised {
            self.asked = self.asked.max(amount.saturating_add(STEP));
            return Authorise::First(self.asked);
        }
        self.jobs.insert(job, paid.0);
        self.promised = amount;
        let low = self.authorised - amount < STEP / 2 && self.asked <= self.authorised;
        if low {
            self.asked = amount.saturating_add(STEP);
        }
        Authorise::Ready { amount, more: low.then_some(self.asked) }
    }

    /// [`PayerTab::ahead`] of this total is durable.
    pub fn authorised(&mut self, total: u64) {
        self.authorised = self.authorised.max(total);
    }

    /// `job` is over. It came to `owed`, as both have signed; `None`: nobody knows, so all that was paid.
    pub fn settle(&mut self, job: &JobId, owed: Option<MicroUsd>) {
        let paid = self.jobs.remove(job).unwrap_or_default();
        self.settled = self.settled.saturating_add(owed.map_or(paid, |owed| owed.0));
    }

    /// What was paid for `job` so far.
    pub fn paid(&self, job: &JobId) -> MicroUsd {
        MicroUsd(self.jobs.get(job).copied().unwrap_or_default())
    }

    /// The highest voucher.
    pub fn promised(&self) -> MicroUsd {
        MicroUsd(self.promised)
    }

    /// Whether no job runs.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    fn running(&self) -> u64 {
        self.jobs.values().fold(0, |sum, paid| sum.saturating_add(*paid))
    }
}
