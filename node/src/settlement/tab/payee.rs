//! The seller's side of a tab.

use super::{micro_usd, units};
use infernet_wire::{
    codec,
    evm::amount,
    id::JobId,
    money::MicroUsd,
    time::UnixMillis,
    voucher::{BadVoucher, SignedVoucher, UnverifiedVoucher},
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

/// A job may cost more than its seller can be sure of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoCredit {
    /// The buyer's debt would become larger than the seller lets it.
    #[error(
        "no credit: you owe {owed} here, this job may cost {most}, and the limit is {limit}; ask the worker's operator for credit, \
         deposit for this worker (`infernet wallet deposit`), or ask for less with --max-tokens or --budget"
    )]
    Limit {
        /// What is owed, running jobs included, less what was prepaid.
        owed: MicroUsd,
        /// What the new job may cost.
        most: MicroUsd,
        /// The most that may be owed.
        limit: MicroUsd,
    },
    /// The channel's deposit is not enough.
    #[error(
        "{left} of the channel's deposit is free, and this job may cost {most}; deposit more (`infernet wallet deposit`), or ask for \
         less with --max-tokens or --budget"
    )]
    Deposit {
        /// What no job has used yet.
        left: MicroUsd,
        /// What the new job may cost.
        most: MicroUsd,
    },
    /// Its end is signed.
    #[error("the channel is being closed; open another one (`infernet wallet deposit`)")]
    Closed,
}

/// Why a channel's end is not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotClosed {
    /// Jobs run on it.
    #[error("{0} jobs run on the channel: close it when they are over")]
    Running(usize),
}

/// What stands behind a buyer's promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// Its word: it may owe so much.
    Credit(MicroUsd),
    /// A channel's deposit, in units of its token; a micro-USD is `rate` of them.
    Deposit {
        /// All that was ever deposited.
        units: u128,
        /// Units for a micro-USD.
        rate: u128,
    },
}

impl Cover {
    /// Units for a micro-USD: on the ledger it is the unit itself.
    pub fn rate(&self) -> u128 {
        match self {
            Cover::Credit(_) => 1,
            Cover::Deposit { rate, .. } => *rate,
        }
    }
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
    /// Units for a micro-USD.
    rate: u128,
    /// Whether `most` is what it came to.
    ended: bool,
}

impl Job {
    fn units(&self, amount: u64) -> u128 {
        units(MicroUsd(amount), self.rate)
    }
}

/// See the module above. On the ledger a unit is a micro-USD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PayeeTab {
    settled: u128,
    cleared: u128,
    /// Owed to a former key of the seller: a debt, and of no channel that there is now.
    carried: u128,
    /// The number of the newest prepayment that was counted: each once, in their order.
    prepayments: u64,
    /// What they came to.
    prepaid: u64,
    jobs: BTreeMap<JobId, Job>,
    highest: Option<SignedVoucher>,
    /// Its end is signed, since when: what it came to is all that it ever comes to.
    closed: Option<UnixMillis>,
}

/// What is on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(with = "amount")]
    settled: u128,
    #[serde(with = "amount")]
    cleared: u128,
    #[serde(with = "amount")]
    carried: u128,
    prepayments: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    voucher: Option<ByteBuf>,
    closed: bool,
    /// Milliseconds; 0 if `closed` was written without.
    #[serde(default)]
    closed_at: u64,
    #[serde(default)]
    prepaid: u64,
}

impl PayeeTab {
    /// What [`PayeeTab::record`] tells after a stop. The voucher was checked before it was written. `None` if it is no record.
    pub fn recover(record: &[u8]) -> Option<Self> {
        let Record { settled, cleared, carried, prepayments, voucher, closed, closed_at, prepaid } =
            codec::decode(record).ok()?;
        let closed = closed.then_some(UnixMillis(closed_at));
        let highest = match voucher {
            Some(bytes) => Some(UnverifiedVoucher::decode(&bytes).ok()?.as_kept()),
            None => None,
        };
        Some(PayeeTab { settled, cleared, carried, prepayments, prepaid, jobs: BTreeMap::new(), highest, closed })
    }

    /// The first tab under a new key, if this was the last under the one before: it owes the same, or has the same ahead.
    pub fn carried(&self) -> Self {
        let all = self.used();
        let (carried, cleared) = (all.saturating_sub(self.cleared), self.cleared.saturating_sub(all));
        PayeeTab { carried, cleared, ..Self::default() }
    }

    /// The first tab on a channel on which so much was redeemed: its record is lost, and what was redeemed was sold.
    pub fn redeemed(units: u128) -> Self {
        PayeeTab { settled: units, ..Self::default() }
    }

    /// What is to be durable before a payment counts. After a crash the jobs that run are over, and came to what was paid.
    pub fn record(&self) -> Vec<u8> {
        codec::encode(&Record {
            settled: self.settled.saturating_add(self.running(|job| job.paid)),
            cleared: self.cleared,
            carried: self.carried,
            prepayments: self.prepayments,
            voucher: self.highest.as_ref().map(|voucher| ByteBuf::from(voucher.encode())),
            closed: self.closed.is_some(),
            closed_at: self.closed.map_or(0, |at| at.0),
            prepaid: self.prepaid,
        })
    }

    /// Lets `job`, which may cost `most`, run on the tab if `cover` suffices for it and all others.
    pub fn open(&mut self, job: JobId, most: MicroUsd, cover: Cover) -> Result<(), NoCredit> {
        if self.is_closed() {
            return Err(NoCredit::Closed);
        }
        if self.left(cover) < most {
            return Err(match cover {
                Cover::Credit(limit) => NoCredit::Limit { owed: self.owed(), most, limit },
                Cover::Deposit { .. } => NoCredit::Deposit { left: self.left(cover), most },
            });
        }
        self.jobs.insert(job, Job { most: most.0, paid: 0, rate: cover.rate(), ended: false });
        Ok(())
    }

    /// Ends the tab for ever. What all jobs came to, in units: what its end may be signed for, once that is durable. To sign it again is
    /// no later end.
    pub fn close(&mut self, now: UnixMillis) -> Result<u128, NotClosed> {
        if !self.is_idle() {
            return Err(NotClosed::Running(self.jobs.len()));
        }
        self.closed.get_or_insert(now);
        Ok(self.settled)
    }

    /// What another job may cost.
    pub fn left(&self, cover: Cover) -> MicroUsd {
        if self.is_closed() {
            return MicroUsd(0);
        }
        let covered = match cover {
            Cover::Credit(limit) => self.cleared.saturating_add(limit.0.into()),
            Cover::Deposit { units, .. } => units,
        };
        micro_usd(covered.saturating_sub(self.used()), cover.rate())
    }

    /// What all jobs came to, and those that run may come to, in units.
    fn used(&self) -> u128 {
        self.carried.saturating_add(self.settled).saturating_add(self.running(|job| job.most))
    }

    /// The sum of something over all jobs that run, in units.
    fn running(&self, what: impl Fn(&Job) -> u64) -> u128 {
        self.jobs.values().fold(0u128, |sum, job| sum.saturating_add(job.units(what(job))))
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
        let Job { most, paid: before, rate, ended } = *self.jobs.get(job).ok_or(BadPayment::NoJob)?;
        // What crossed the end on its way pays no more than what the job came to.
        let paid = if ended { MicroUsd(paid.0.clamp(before, most)) } else { paid };
        if paid.0 < before {
            return Err(BadPayment::Shrinks { paid, before: MicroUsd(before) });
        }
        if paid.0 > most {
            return Err(BadPayment::TooMuch { paid, most: MicroUsd(most) });
        }
        let others = self.settled.saturating_add(self.running(|job| job.paid)).saturating_sub(units(MicroUsd(before), rate));
        let needed = others.saturating_add(units(paid, rate));
        let promised = self.promised().max(if verified.is_some() { amount } else { 0 });
        if needed > promised {
            return Err(BadPayment::NotCovered { promised: micro_usd(promised, rate), needed: micro_usd(needed, rate) });
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
            *job = Job { most: amount.0, paid: job.paid.min(amount.0), ended: true, ..*job };
        }
    }

    /// `job` is over and came to `amount`; `agreed` tells whether the buyer has signed that.
    pub fn settle(&mut self, job: &JobId, amount: MicroUsd, agreed: bool) {
        let Some(job) = self.jobs.remove(job) else { return };
        let owed = if agreed { amount.0 } else { amount.0.min(job.paid) };
        self.settled = self.settled.saturating_add(job.units(owed));
    }

    /// The buyer has paid `amount` outside: of its debt, or ahead of the jobs to come.
    pub fn clear(&mut self, amount: MicroUsd) {
        self.cleared = self.cleared.saturating_add(amount.0.into());
    }

    /// That payment was none after all.
    pub fn unclear(&mut self, amount: MicroUsd) {
        self.cleared = self.cleared.saturating_sub(amount.0.into());
    }

    /// The same for its prepayment `number`, from 1 on: once for each, in their order, with gaps where the buyer has written some
    /// off. Whether it is counted now: one that was before, or is older than one that was, is not.
    pub fn prepay(&mut self, number: u64, amount: MicroUsd) -> bool {
        let next = number > self.prepayments;
        if next {
            self.prepayments = number;
            self.prepaid = self.prepaid.saturating_add(amount.0);
            self.clear(amount);
        }
        next
    }

    /// The number of the newest prepayment that was counted; 0 before the first.
    pub fn prepayments(&self) -> u64 {
        self.prepayments
    }

    /// What they came to.
    pub fn prepaid(&self) -> MicroUsd {
        MicroUsd(self.prepaid)
    }

    /// What was paid for `job`.
    pub fn paid(&self, job: &JobId) -> MicroUsd {
        MicroUsd(self.jobs.get(job).map_or(0, |job| job.paid))
    }

    /// What the buyer owes, what running jobs may still cost included.
    pub fn owed(&self) -> MicroUsd {
        micro_usd(self.used().saturating_sub(self.cleared), 1)
    }

    /// What all jobs that are over came to, those under this key, in units.
    pub fn settled_units(&self) -> u128 {
        self.settled
    }

    /// [`PayeeTab::settled_units`] on the ledger.
    pub fn settled(&self) -> MicroUsd {
        micro_usd(self.settled, 1)
    }

    /// What was paid outside, on the ledger.
    pub fn cleared(&self) -> MicroUsd {
        micro_usd(self.cleared, 1)
    }

    /// The highest voucher's amount, in units.
    pub fn promised(&self) -> u128 {
        self.highest.as_ref().map_or(0, |voucher| voucher.amount)
    }

    /// The highest voucher: the evidence of the debt.
    pub fn highest(&self) -> Option<&SignedVoucher> {
        self.highest.as_ref()
    }

    /// Since when its end is signed.
    pub fn closed(&self) -> Option<UnixMillis> {
        self.closed
    }

    /// Whether its end is signed.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Whether no job runs.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }
}
