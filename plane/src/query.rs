//! What the index tells, at a time. Pure: a [`Book`] and `now` in, rows to show out. Every list is bounded.
//!
//! A worker is online while its newest ad has not expired: it renews it every 30 to 45 seconds, and after 90 it is gone.

mod lost;
mod market;
mod node;
mod reputation;
#[cfg(test)]
mod tests;

pub use self::{
    lost::{Lost, Why, lost},
    market::{Auction, Demand, ModelRow, Overview, Point, auctions, demand, models, overview, traffic},
    node::{Earned, NodeRow, NodeView, ReceiptRow, Served, Work, earnings, node, nodes, receipt, receipts, receipts_of_job},
    reputation::{Reputation, reputation, reputation_with},
};

use crate::index::{AdFact, Book};
use infernet_wire::time::UnixMillis;

/// Rows of one answer at most.
pub const MAX_ROWS: usize = 500;

/// Whether an ad still counts.
pub fn is_live(ad: &AdFact, now: UnixMillis) -> bool {
    ad.expires > now
}

fn live(book: &Book, now: UnixMillis) -> impl Iterator<Item = &AdFact> {
    book.ads().filter(move |ad| is_live(ad, now))
}

/// The least, the middle and the most of some numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Spread {
    /// The least.
    pub min: u64,
    /// The middle one, the lower of two.
    pub median: u64,
    /// The most.
    pub max: u64,
}

impl Spread {
    /// `None` without numbers.
    pub fn of(mut numbers: Vec<u64>) -> Option<Self> {
        numbers.sort_unstable();
        let median = numbers.get(numbers.len().saturating_sub(1) / 2)?;
        Some(Spread { min: *numbers.first()?, median: *median, max: *numbers.last()? })
    }
}
