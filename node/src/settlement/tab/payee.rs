//! The seller's side of a tab.

use infernet_wire::{
    codec,
    id::JobId,
    money::MicroUsd,
    voucher::{BadVoucher, SignedVoucher, UnverifiedVoucher},
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

/// A buyer's debt would become larger than the seller lets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no credit: you owe {owed} here, this job may cost {most}, and the limit is {limit}; ask the worker's operator for credit, or \
     for a lower --max-tokens or --budget"
)]
pub struct NoCredit {
    /// What is owed, running jobs included.
    pub owed: MicroUsd,
    /// What the new job may cost.
    pub most: MicroUsd,
    /// The most that may be owed.
    pub limit: MicroUsd,
}

/// A payment that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPayment {
    /// There is none.
    #[error("no voucher came with the job, which is paid as it runs; use a newer buyer")]
    Missing,
    /// The voucher is none, or not signed by the buyer.
    #[error(transparent)]
    Voucher(#[from] BadVoucher),
    /// It is for another channel, chain or contract.
    #[error("the voucher is for another channel than that of these two nodes")]
    Foreign,
    /// It is for another job.
    #[error("the voucher names another job")]
    OtherJob,
    /// Less than the input costs.
    #[error("pays {paid} beforehand, and the input may cost {due}")]
    TooLittle {
        /// What it pays.
        paid: MicroUsd,
        /// What it should.
        due: MicroUsd,
    },
    /// Less than was paid for the job before.
    #[error("pays {paid} for the job, after {before}")]
    Shrinks {
        /// What it pays.
        paid: MicroUsd,
        /// What was paid.
        before: MicroUsd,
    },
    /// More than the job may cost.
    #[error("pays {paid} for a job of at most {most}")]
    TooMuch {
        /// What it pays.
        paid: MicroUsd,
        /// The job's budget.
        most: MicroUsd,
    },
    /// All payments together are more than the voucher.
    #[error("the voucher says {promised}, and all jobs together take {needed}")]
    NotCovered {
        /// The highest voucher.
        promised: MicroUsd,
        /// What it has to cover.
        needed: MicroUsd,
    },
    /// More vouchers than the answer can need.
    #[error("more vouchers than the answer can need: pay for at least sixteen tokens at once")]
    TooMany,
    /// The job is over, or was never here.
    #[error("the job does not run")]
    NoJob,
}

impl BadPayment {
    /// A short stable name, for counters.
    pub fn label(&self) -> &'static str {
        match self {
            BadPayment::Missing => "missing",
            BadPayment::Voucher(_) => "bad_voucher",
            BadPayment::Foreign => "foreign",
            BadPayment::OtherJob => "other_job",
            BadPayment::TooLittle { .. } => "too_little",
            BadPayment::Shrinks { .. } => "shrinks",
            BadPayment::TooMuch { .. } => "too_much",
            BadPayment::NotCovered { .. } => "not_covered",
            BadPayment::TooMany => "too_many",
            BadPayment::NoJob => "no_job",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Job {
    most: u64,
    paid: u64,
    /// Whether `most` is what it came to.
    ended: bool,
}

/// See the module above.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PayeeTab {
    settled: u64,
    cleared: u64,
    /// Owed to a former key of the seller: a debt, and of no channel that there is now.
    carried: u64,
    jobs: BTreeMap<JobId, Job>,
    highest: Option<SignedVoucher>,
}

/// What is on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    settled: u64,
    cleared: u64,
    carried: u64,
    jobs: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    voucher: Option<ByteBuf>,
}

impl PayeeTab {
    /// What [`PayeeTab::record`] tells after a stop. The voucher was checked before it was written. `None` if it is no record.
    pub fn recover(record: &[u8]) -> Option<Self> {
        let Record { settled, cleared, carried, jobs, voucher } = codec::decode(record).ok()?;
        let settled = jobs.iter().fold(settled, |sum, paid| sum.saturating_add(*paid));
        let highest = match voucher {
            Some(bytes) => Some(UnverifiedVoucher::decode(&bytes).ok()?.as_kept()),
            None => None,
        };
        Some(PayeeTab { settled, cleared, carried, jobs: BTreeMap::new(), highest })
    }

    /// The first tab under a new key, for a buyer who owed so much under the one before.
    pub fn carrying(owed: MicroUsd) -> Self {
        PayeeTab { carried: owed.0, ..Self::default() }
    }

    /// What is to be durable before a payment counts.
    pub fn record(&self) -> Vec<u8> {
        codec::encode(&Record {
            settled: self.settled,
            cleared: self.cleared,
            carried: self.carried,
            jobs: self.jobs.values().map(|job| job.paid).filter(|paid| *paid > 0).collect(),
            voucher: self.highest.as_ref().map(|voucher| ByteBuf::from(voucher.encode())),
        })
    }

    /// Lets `job`, which may cost `most`, run on the tab if its buyer then owes no more than `limit`.
    pub fn open(&mut self, job: JobId, most: MicroUsd, limit: MicroUsd) -> Result<(), NoCredit> {
        let owed = self.owed();
        if owed.0.saturating_add(most.0) > limit.0 {
            return Err(NoCredit { owed, most, limit });
        }
        self.jobs.insert(job, Job { most: most.0, paid: 0, ended: false });
        Ok(())
    }

    /// Takes a voucher whose signature is good, or that is not above the highest and so only says what was known, as a payment of
    /// `paid` for `job` in all. Whether the state has changed, so that it has to be written before it counts.
    pub fn take(
        &mut self,
        job: &JobId,
        amount: u128,
        verified: Option<SignedVoucher>,
        paid: MicroUsd,
    ) -> Result<bool, BadPayment> {
        let Job { most, paid: before, ended } = *self.jobs.get(job).ok_or(BadPayment::NoJob)?;
        // What crossed the end on its way pays no more than what the job came to.
        let paid = if ended { MicroUsd(paid.0.clamp(before, most)) } else { paid };
        if paid.0 < before {
            return Err(BadPayment::Shrinks { paid, before: MicroUsd(before) });
        }
        if paid.0 > most {
            return Err(BadPayment::TooMuch { paid, most: MicroUsd(most) });
        }
        let running = self.jobs.values().fold(0u64, |sum, job| sum.saturating_add(job.paid)) - before;
        let needed = u128::from(self.settled) + u128::from(running) + u128::from(paid.0);
        let promised = self.promised().max(if verified.is_some() { amount } else { 0 });
        if needed > promised {
            let shown = |amount: u128| MicroUsd(u64::try_from(amount).unwrap_or(u64::MAX));
            return Err(BadPayment::NotCovered { promised: shown(promised), needed: shown(needed) });
        }
        let mut changed = paid.0 > before;
        if let Some(voucher) = verified.filter(|voucher| voucher.amount > self.promised()) {
            self.highest = Some(voucher);
            changed = true;
        }
        if let Some(job) = self.jobs.get_mut(job) {
            job.paid = paid.0;
        }
        Ok(changed)
    }

    /// The answer is over and comes to `amount`, the seller says; more was perhaps paid. What is too much is free for the buyer's other
    /// jobs from now on: before the buyer hears of it, so that it may count on that.
    pub fn end(&mut self, job: &JobId, amount: MicroUsd) {
        if let Some(job) = self.jobs.get_mut(job) {
            *job = Job { most: amount.0, paid: job.paid.min(amount.0), ended: true };
        }
    }

    /// `job` is over and came to `amount`; `agreed` tells whether the buyer has signed that.
    pub fn settle(&mut self, job: &JobId, amount: MicroUsd, agreed: bool) {
        let Some(job) = self.jobs.remove(job) else { return };
        let owed = if agreed { amount.0 } else { amount.0.min(job.paid) };
        self.settled = self.settled.saturating_add(owed);
    }

    /// The buyer has paid `amount` of its debt, outside.
    pub fn clear(&mut self, amount: MicroUsd) {
        self.cleared = self.cleared.saturating_add(amount.0);
    }

    /// What was paid for `job`.
    pub fn paid(&self, job: &JobId) -> MicroUsd {
        MicroUsd(self.jobs.get(job).map_or(0, |job| job.paid))
    }

    /// What the buyer owes, what running jobs may still cost included.
    pub fn owed(&self) -> MicroUsd {
        let running = self.jobs.values().fold(0u64, |sum, job| sum.saturating_add(job.most));
        let all = self.carried.saturating_add(self.settled).saturating_add(running);
        MicroUsd(all.saturating_sub(self.cleared))
    }

    /// What all jobs that are over came to, those under this key.
    pub fn settled(&self) -> MicroUsd {
        MicroUsd(self.settled)
    }

    /// What of that was paid outside.
    pub fn cleared(&self) -> MicroUsd {
        MicroUsd(self.cleared)
    }

    /// The highest voucher's amount.
    pub fn promised(&self) -> u128 {
        self.highest.as_ref().map_or(0, |voucher| voucher.amount)
    }

    /// The highest voucher: the evidence of the debt.
    pub fn highest(&self) -> Option<&SignedVoucher> {
        self.highest.as_ref()
    }

    /// Whether no job runs.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }
}
