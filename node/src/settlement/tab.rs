//! What one node owes another for jobs, as vouchers say it: pure, and the same for whoever settles it in the end.
//!
//! All jobs of a buyer with a seller share one **tab**, since a voucher is cumulative: it says what the buyer has promised in all.
//! Next to each voucher stands how much of that is for its job. Both sides count
//!
//! ```text
//! settled  what the jobs that are over came to
//! jobs     what was paid for each job that runs
//! promised the highest voucher
//! ```
//!
//! and the seller takes a payment if `settled + Σ jobs ≤ promised`. So vouchers of jobs that run side by side may overtake each
//! other, one that is lost is covered by the next, what a job did not use pays for the next one, and a voucher that is shown twice
//! pays nothing twice.
//!
//! **When a job is over.** With a receipt that both signed, it came to its amount, for both. Without, the seller counts what was
//! paid, as far as the job cost so much; the buyer counts all that it paid. So the buyer's sum is never below the seller's, and what
//! it promises next always suffices: no lost message can make the two disagree for good.
//!
//! **After a crash.** The seller's state is written with each voucher, jobs that run included; these count as over then, with what was
//! paid. The buyer writes ahead how much it *may* promise, a step at a time, so that a warm payment waits for no disk; after a crash it
//! takes all of that for promised, which costs it one step at most, and only towards sellers it was dealing with. A clean stop
//! writes the truth.
//!
//! **The bound.** A seller that is shown a bad voucher, or none, has worked for nothing for at most what it had accepted to be behind:
//! the input, or one piece of the answer. A buyer whose seller stops after a payment has lost what that payment was ahead of what
//! had arrived: the input, or one piece.

mod payee;
mod payer;

pub use payee::{BadPayment, Cover, NoCredit, NotClosed, PayeeTab};
pub use payer::{Authorise, Funds, PayerTab, STEP};

use infernet_wire::{limits, money::MicroUsd};

/// What `amount` is, at so many units for a micro-USD. No amount is more units than can be counted, at no rate that may be agreed.
pub fn units(amount: MicroUsd, rate: u128) -> u128 {
    u128::from(amount.0).saturating_mul(rate)
}

/// Whole micro-USD of so many units; the rest of one is nobody's wealth.
pub fn micro_usd(units: u128, rate: u128) -> MicroUsd {
    MicroUsd(u64::try_from(units.checked_div(rate).unwrap_or_default()).unwrap_or(u64::MAX))
}

/// When a buyer pays how much: the piece that comes, once what it has paid for has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    /// Output tokens of a piece.
    pub chunk: u32,
    /// Output tokens at most.
    pub most: u32,
}

impl Pieces {
    /// As the worker wants them, but no larger than is usual: a buyer loses no more than that.
    pub fn wanted(chunk: u32, most: u32) -> Self {
        Pieces { chunk: chunk.clamp(1, limits::CHUNK_TOKENS), most }
    }

    /// The output tokens that are to be paid for when `tokens` have arrived.
    pub fn due(&self, tokens: u32) -> u32 {
        let pieces = tokens / self.chunk + 1;
        pieces.saturating_mul(self.chunk).min(self.most).max(tokens)
    }
}

#[cfg(test)]
mod tests;
