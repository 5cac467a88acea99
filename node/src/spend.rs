//! Spend caps of this node's buyer: per request, per day, and per key.
//!
//! **The rule.** A job reserves the most it may cost before it is offered, and that amount is its budget; at its end the
//! reservation becomes what it really cost. Spent plus reserved never exceeds a cap, even over a `kill -9`: what may be spent
//! is written down **before** it is, in tranches, so that no request waits for a disk of its own. After a crash everything
//! that was written down counts as spent, at most one tranche and the running jobs more than the truth; an orderly stop writes
//! the truth. Without caps nothing is counted and nothing written; a day's cap that is set later finds what was spent in the receipts of
//! the day. Those don't say which key asked, so a key's cap counts from when it is set.
//!
//! **Accounts.** [`ALL`] is everything this node buys; each API key with a cap has one more. A job draws on both. Days are
//! whole days since 1970 in UTC; a job belongs to the day on which it started.
//!
//! [`Book`] decides and is pure. [`Purse`] carries out: it writes tranches into the [`Store`](crate::store::Store) and hands out [`Spending`].

mod purse;

pub use purse::{Purse, Spending};

use crate::store::{SpendRecord, StoreError};
use infernet_wire::{money::MicroUsd, time::UnixMillis};
use std::collections::BTreeMap;

/// The account of everything that this node buys.
pub const ALL: &str = "";
/// A day's cap is written down in this many steps at least: a crash costs at most one step of what is left, and a busy node
/// writes at most this often a day, but for requests larger than a step.
const STEPS: u64 = 64;
/// Accounts of one day: one for each key, and keys are made by hand.
pub const MAX_ACCOUNTS: usize = 1_024;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The day of `now`.
pub fn day(now: UnixMillis) -> u32 {
    u32::try_from(now.0 / DAY_MS).unwrap_or(u32::MAX)
}

/// What may be spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// By one request.
    pub per_request: Option<MicroUsd>,
    /// By all requests of one day.
    pub per_day: Option<MicroUsd>,
}

impl Caps {
    /// The caps of each of `jobs` jobs of one request.
    pub fn shared(self, jobs: usize) -> Self {
        let share = |cap: MicroUsd| MicroUsd(cap.0 / u64::try_from(jobs.max(1)).unwrap_or(u64::MAX));
        Caps { per_request: self.per_request.map(share), ..self }
    }
}

/// A request that would exceed a cap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapError {
    /// Nothing is left of a day's cap.
    #[error(
        "nothing is left of today's spend cap of {cap} micro-USD{of}: {spent} spent, {reserved} reserved by jobs under way; raise \
         it, or wait until midnight UTC",
        cap = .cap.0, of = of(.key), spent = .spent.0, reserved = .reserved.0
    )]
    Day {
        /// The account.
        key: String,
        /// Its cap.
        cap: MicroUsd,
        /// What is spent.
        spent: MicroUsd,
        /// What is reserved.
        reserved: MicroUsd,
    },
    /// More keys than accounts.
    #[error("{MAX_ACCOUNTS} keys have spent something today, and no more are counted; remove keys that are not used")]
    Accounts,
    /// What may be spent can't be written down.
    #[error("the spend cap can't be kept, so nothing is bought: {0}")]
    Store(#[from] StoreError),
}

fn of(key: &str) -> String {
    if key == ALL { String::new() } else { format!(" of the key {key:?}") }
}

/// A reservation on some accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    day: u32,
    /// The most that may be spent: the job's budget.
    pub most: MicroUsd,
    keys: Vec<String>,
}

/// What became of the wish to spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Reserved.
    Drawn(Draw),
    /// These must be durable first; then [`Book::extended`], and ask again.
    Extend(Vec<SpendRecord>),
}

#[derive(Debug, Clone, Default)]
struct Account {
    day: u32,
    authorised: u64,
    reserved: u64,
    spent: u64,
}

impl Account {
    fn used(&self) -> u64 {
        self.spent.saturating_add(self.reserved)
    }
}

/// What was spent, reserved and written down. Pure.
#[derive(Debug, Clone, Default)]
pub struct Book {
    accounts: BTreeMap<String, Account>,
}

impl Book {
    /// What `records` of `day`, the older ones first, leave after a stop: all that was authorised counts as spent. `bought` is what
    /// the receipts of the day come to, which is more if there was no cap at first.
    pub fn recover(records: impl IntoIterator<Item = SpendRecord>, bought: MicroUsd, day: u32) -> Self {
        let mut accounts = BTreeMap::new();
        for SpendRecord { key, authorised, .. } in records.into_iter().filter(|record| record.day == day) {
            accounts.insert(key, Account { day, authorised: authorised.0, reserved: 0, spent: authorised.0 });
        }
        let recorded = accounts.get(ALL).map_or(0, |account| account.spent);
        if bought.0 > recorded {
            accounts.insert(ALL.to_owned(), Account { day, authorised: bought.0, reserved: 0, spent: bought.0 });
        }
        Book { accounts }
    }

    /// Reserves up to `most` on each account that has a daily cap: less, if a cap leaves less. `accounts` are all that the job
    /// draws on.
    pub fn draw(&mut self, accounts: &[(&str, Caps)], day: u32, most: MicroUsd) -> Result<Decision, CapError> {
        let per_request = accounts.iter().filter_map(|(_, caps)| caps.per_request).min();
        let capped: Vec<(&str, u64)> = accounts.iter().filter_map(|(key, caps)| Some((*key, caps.per_day?.0))).collect();
        self.turn_to(day);
        let mut most = most.min(per_request.unwrap_or(most)).0;
        for (key, cap) in &capped {
            most = most.min(self.left(key, *cap)?);
        }
        let extensions: Vec<SpendRecord> =
            capped.iter().filter_map(|(key, cap)| self.extension(key, *cap, day, most)).collect();
        if !extensions.is_empty() {
            return Ok(Decision::Extend(extensions));
        }
        for (key, _) in &capped {
            self.accounts.entry((*key).to_owned()).or_default().reserved += most;
        }
        let keys = capped.into_iter().map(|(key, _)| key.to_owned()).collect();
        Ok(Decision::Drawn(Draw { day, most: MicroUsd(most), keys }))
    }

    /// A record is durable.
    pub fn extended(&mut self, record: &SpendRecord) {
        let account = self.accounts.entry(record.key.clone()).or_default();
        account.day = record.day;
        account.authorised = account.authorised.max(record.authorised.0);
    }

    /// A job has cost `actual`, which its budget has bounded, and beside that `lost`, which it has not: what workers were promised that
    /// gave nothing for it.
    pub fn settle(&mut self, draw: &Draw, actual: MicroUsd, lost: MicroUsd) {
        for key in &draw.keys {
            let Some(account) = self.accounts.get_mut(key).filter(|account| account.day == draw.day) else { continue };
            account.reserved = account.reserved.saturating_sub(draw.most.0);
            account.spent = account.spent.saturating_add(actual.min(draw.most).0).saturating_add(lost.0);
        }
    }

    /// The truth, to be written when the node stops: what is reserved then may still be spent.
    pub fn closing(&self) -> Vec<SpendRecord> {
        let record = |(key, account): (&String, &Account)| SpendRecord {
            key: key.clone(),
            day: account.day,
            authorised: MicroUsd(account.used()),
            spent: MicroUsd(account.spent),
        };
        self.accounts.iter().filter(|(_, account)| account.used() < account.authorised).map(record).collect()
    }

    /// Spent and reserved on an account today.
    pub fn used(&self, key: &str) -> (MicroUsd, MicroUsd) {
        self.accounts.get(key).map_or_else(Default::default, |a| (MicroUsd(a.spent), MicroUsd(a.reserved)))
    }

    /// Yesterday's accounts are closed. Jobs that are still running were authorised then, and count as spent then.
    fn turn_to(&mut self, day: u32) {
        self.accounts.retain(|_, account| account.day == day);
    }

    fn left(&self, key: &str, cap: u64) -> Result<u64, CapError> {
        let account = match self.accounts.get(key) {
            Some(account) => account.clone(),
            None if self.accounts.len() >= MAX_ACCOUNTS => return Err(CapError::Accounts),
            None => Account::default(),
        };
        let left = cap.saturating_sub(account.used());
        let full = || CapError::Day {
            key: key.to_owned(),
            cap: MicroUsd(cap),
            spent: MicroUsd(account.spent),
            reserved: MicroUsd(account.reserved),
        };
        if left == 0 { Err(full()) } else { Ok(left) }
    }

    /// What must be written before `most` more may be spent on `key`, if anything.
    fn extension(&self, key: &str, cap: u64, day: u32, most: u64) -> Option<SpendRecord> {
        let account = self.accounts.get(key).cloned().unwrap_or_default();
        let needed = account.used().saturating_add(most);
        // An account without a record has no day yet, so even a free job writes one.
        let known = self.accounts.contains_key(key) && needed <= account.authorised;
        let step = most.max(cap / STEPS);
        let authorised = account.used().saturating_add(step).min(cap).max(needed);
        (!known).then(|| SpendRecord {
            key: key.to_owned(),
            day,
            authorised: MicroUsd(authorised),
            spent: MicroUsd(account.spent),
        })
    }
}

#[cfg(test)]
mod tests;
