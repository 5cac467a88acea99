//! What settled receipts say of a worker.
//!
//! Keys cost nothing, so what a crowd of keys says of its own is worth nothing. Of a worker's buyers only some count:
//! - not the worker itself, nor one that the worker has bought from: two that trade with each other say nothing;
//! - not one that has settled with fewer than two workers: a key made to praise one worker praises only it.
//!
//! Each that counts adds ten points at most, by what it paid, so that no one buyer makes a name. Then the points
//! are what share of the jobs for those that count was completed: a thousand jobs for a key of its own wash nothing. A ring of many keys that all trade with each other crosswise still gets points, at
//! the cost of looking like a market. So it is a filter and a sort, never a part of a price; whoever wants to be sure looks at
//! its own receipts alone: [`reputation_with`].

use crate::index::{Book, Sums};
use infernet_wire::id::NodeId;
use serde::Serialize;

/// Workers with whom a buyer must have settled before it counts.
const MIN_PARTNERS: usize = 2;
/// Points that one buyer can add.
const MOST_PER_BUYER: u64 = 10;
/// What a buyer must have paid for each point: a tenth of a cent.
const PER_POINT: u64 = 1_000;

/// What settled receipts say of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reputation {
    /// Points; 0 for a stranger.
    pub points: u64,
    /// Buyers that have settled with it.
    pub buyers: usize,
    /// Of those, buyers that count.
    pub counted: usize,
    /// Of 1000 settled jobs for buyers that count, so many were completed.
    pub completed_permille: u64,
}

/// What all receipts say of `worker`.
pub fn reputation(book: &Book, worker: &NodeId) -> Reputation {
    let ledger = book.ledger();
    let settled = ledger.buyers_of(worker).filter(|(_, sums)| sums.jobs > 0);
    let (mut points, mut buyers, mut counted, mut theirs) = (0, 0, 0, Sums::default());
    for (buyer, sums) in settled {
        buyers += 1;
        if ledger.partners(buyer) >= MIN_PARTNERS && !ledger.has_bought(worker, buyer) {
            counted += 1;
            points += points_of(&sums);
            theirs += sums;
        }
    }
    told(points, buyers, counted, &theirs)
}

/// What the receipts of `viewer` alone say of `worker`: nobody else can change that.
pub fn reputation_with(book: &Book, worker: &NodeId, viewer: &NodeId) -> Reputation {
    let own = book.ledger().buyers_of(worker).find(|(buyer, sums)| *buyer == viewer && sums.jobs > 0);
    own.map_or_else(Reputation::default, |(_, sums)| told(sums.completed, 1, 1, &sums))
}

fn points_of(sums: &Sums) -> u64 {
    // At least one for a buyer that settled anything, so that free workers are known, too.
    (sums.amount / PER_POINT).clamp(1, MOST_PER_BUYER)
}

fn told(points: u64, buyers: usize, counted: usize, sums: &Sums) -> Reputation {
    let completed_permille = (sums.completed * 1000).checked_div(sums.jobs).unwrap_or_default();
    Reputation { points: points * completed_permille / 1000, buyers, counted, completed_permille }
}
