//! The buyer's side of a tab.

use super::units;
use infernet_wire::{id::JobId, money::MicroUsd};
use std::collections::BTreeMap;

/// What a buyer may promise beyond what it needs, in micro-USD: what it loses at most if it crashes, once for each seller that it
/// was dealing with. A cent is a hundred thousand tokens at the usual price, so that few payments wait for the disk.
pub const STEP: u64 = 10_000;
/// The bytes of [`PayerTab::record`].
const RECORD: usize = 33;

/// Where a payment comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Funds {
    /// Units of the channel for a micro-USD.
    pub rate: u128,
    /// The most that can be promised in all, in units.
    pub most: u128,
}

impl Funds {
    /// The buyer's word.
    pub const LEDGER: Self = Funds { rate: 1, most: u64::MAX as u128 };
}

/// What it takes to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorise {
    /// The voucher's amount; `more` should be made durable soon, so that the next payments need not wait.
    Ready {
        /// The channel's total.
        amount: u128,
        /// What to write when there is time; [`PayerTab::authorised`] comes after it.
        more: Option<u128>,
    },
    /// This total must be durable first; then [`PayerTab::authorised`], and ask again.
    First(u128),
    /// More than the funds have, or less than was paid for the job already.
    Refused,
}

/// See the module above.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PayerTab {
    settled: u128,
    /// What was paid, and how many units a micro-USD is.
    jobs: BTreeMap<JobId, (u64, u128)>,
    /// What each job may cost, in units, where that is limited.
    reserved: BTreeMap<JobId, u128>,
    promised: u128,
    authorised: u128,
    /// The highest total that is on its way to the disk, so that a later record is never lower.
    asked: u128,
}

impl PayerTab {
    /// What [`PayerTab::record`] tells after a stop. Bytes that are no record count as none.
    pub fn recover(record: &[u8]) -> Option<Self> {
        let record: &[u8; RECORD] = record.try_into().ok()?;
        let (&clean, rest) = record.split_first()?;
        let (settled, authorised) = rest.split_first_chunk()?;
        let (settled, authorised) = (u128::from_be_bytes(*settled), u128::from_be_bytes(authorised.try_into().ok()?));
        let settled = if clean == 1 { settled.min(authorised) } else { authorised };
        Some(PayerTab { settled, promised: authorised, authorised, ..Self::default() })
    }

    /// What is written before the total `authorised` may be promised.
    pub fn ahead(&self, authorised: u128) -> Vec<u8> {
        Self::bytes(false, self.settled, authorised)
    }

    /// What is written in the end, when no job runs: the truth. `None` while one runs.
    pub fn record(&self) -> Option<Vec<u8>> {
        self.is_idle().then(|| Self::bytes(true, self.settled, self.promised))
    }

    fn bytes(clean: bool, settled: u128, total: u128) -> Vec<u8> {
        [&[u8::from(clean)][..], &settled.to_be_bytes(), &total.to_be_bytes()].concat()
    }

    /// Pays `paid` for `job` in all.
    pub fn pay(&mut self, job: JobId, paid: MicroUsd, funds: Funds) -> Authorise {
        let Funds { rate, most } = funds;
        let (before, earlier_rate) = self.jobs.get(&job).copied().unwrap_or((0, rate));
        let others = self.running().checked_sub(units(MicroUsd(before), earlier_rate));
        let total = others.and_then(|others| others.checked_add(units(paid, rate))?.checked_add(self.settled));
        let fits = |needed: &u128| paid.0 >= before && rate == earlier_rate && *needed <= most;
        let Some(needed) = total.filter(fits) else { return Authorise::Refused };
        let amount = needed.max(self.promised);
        let step = units(MicroUsd(STEP), rate);
        let ahead = amount.saturating_add(step).min(most.max(amount));
        if amount > self.authorised {
            self.asked = self.asked.max(ahead);
            return Authorise::First(self.asked);
        }
        self.jobs.insert(job, (paid.0, rate));
        self.promised = amount;
        let low = self.authorised - amount < step / 2 && self.asked <= self.authorised && ahead > self.authorised;
        if low {
            self.asked = ahead;
        }
        Authorise::Ready { amount, more: low.then_some(self.asked) }
    }

    /// [`PayerTab::ahead`] of this total is durable.
    pub fn authorised(&mut self, total: u128) {
        self.authorised = self.authorised.max(total);
    }

    /// `job` is over. It came to `owed`, as both have signed; `None`: nobody knows, so all that was paid.
    pub fn settle(&mut self, job: &JobId, owed: Option<MicroUsd>) {
        self.reserved.remove(job);
        // A job that was not paid for at all costs nothing: nobody knows at which rate.
        let Some((paid, rate)) = self.jobs.remove(job) else { return };
        self.settled = self.settled.saturating_add(units(owed.unwrap_or(MicroUsd(paid)), rate));
    }

    /// What was paid for `job` so far.
    pub fn paid(&self, job: &JobId) -> MicroUsd {
        MicroUsd(self.jobs.get(job).map_or(0, |(paid, _)| *paid))
    }

    /// The highest voucher, in units.
    pub fn promised(&self) -> u128 {
        self.promised
    }

    /// Sets aside what `job` may cost, `units`, if the funds have that much besides all other jobs. Whether they have.
    pub fn reserve(&mut self, job: JobId, units: u128, funds: Funds) -> bool {
        let others = self.reserved.values().fold(self.settled, |sum, units| sum.saturating_add(*units));
        let fits = others.saturating_add(units) <= funds.most;
        if fits {
            self.reserved.insert(job, units);
        }
        fits
    }

    /// What all jobs that are over came to, in units.
    pub fn settled(&self) -> u128 {
        self.settled
    }

    /// Whether no job runs.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.reserved.is_empty()
    }

    fn running(&self) -> u128 {
        self.jobs.values().fold(0, |sum, (paid, rate)| sum.saturating_add(units(MicroUsd(*paid), *rate)))
    }
}
