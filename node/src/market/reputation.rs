//! What is known of workers by their settled receipts: those with both signatures.
//!
//! A worker's **reputation** is the number of buyers, other than itself, that have settled a receipt with it and said so on the
//! topic, and of the receipts that we settled with it ourselves. Identities cost nothing, so a worker can make itself buyers: the
//! number tells the unknown from those with a past, and whoever wants proof looks at its own receipts. So it is a filter that
//! people may set ([`super::trust`]), never a part of the price.

use super::recent::Recent;
use infernet_wire::{
    id::NodeId,
    receipt::{JobStatus, SignedReceipt},
};
use std::collections::BTreeSet;

/// Workers of whom receipts are counted.
const MAX_WORKERS: usize = 4_096;
/// Buyers counted for one worker: beyond this the number says nothing new.
const MAX_BUYERS: usize = 256;

/// Settled receipts, by worker. Bounded.
#[derive(Debug, Clone)]
pub struct Reputation {
    workers: Recent<NodeId, Settled>,
}

#[derive(Debug, Clone, Default)]
struct Settled {
    buyers: BTreeSet<NodeId>,
    own: u32,
}

impl Default for Reputation {
    fn default() -> Self {
        Reputation { workers: Recent::new(MAX_WORKERS) }
    }
}

impl Reputation {
    /// Somebody's receipt was heard. Only one that both signed, of a job that was completed, counts, and a buyer counts once.
    pub fn heard(&mut self, receipt: &SignedReceipt) {
        let body = receipt.receipt();
        let counts = receipt.countersign().is_some() && body.status == JobStatus::COMPLETED && body.buyer != body.worker;
        if counts {
            let buyer = body.buyer;
            self.workers.update(body.worker, |settled| {
                if settled.buyers.len() < MAX_BUYERS {
                    settled.buyers.insert(buyer);
                }
            });
        }
    }

    /// We settled a receipt with `worker`.
    pub fn settled(&mut self, worker: NodeId) {
        self.workers.update(worker, |settled| settled.own = settled.own.saturating_add(1));
    }

    /// The reputation of `worker`.
    pub fn of(&self, worker: &NodeId) -> u32 {
        self.workers.get(worker).map_or(0, |settled| {
            let buyers = u32::try_from(settled.buyers.len()).unwrap_or(u32::MAX);
            buyers.saturating_add(settled.own)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, node, price, sign};
    use infernet_wire::{
        id::{Hash, JobId},
        money::MicroUsd,
        receipt::{Countersign, JobReceipt},
        topic::INFERENCE,
    };

    fn receipt(worker: u16, buyer: u16, status: JobStatus, countersigned: bool) -> SignedReceipt {
        let receipt = sign(
            worker,
            JobReceipt {
                job: JobId([1; 16]),
                accept: Hash([1; 32]),
                buyer: node(buyer),
                worker: node(worker),
                workload: INFERENCE.into(),
                model: "tiny".into(),
                weights: None,
                input_tokens: 0,
                output_tokens: 0,
                price: price(1, 1),
                amount: MicroUsd(0),
                paid: MicroUsd(0),
                started: T0,
                finished: T0,
                status,
                request: Hash([1; 32]),
                transcript: Hash([1; 32]),
                paid_on: None,
            },
        );
        let countersign = countersigned.then(|| sign(buyer, Countersign { receipt: receipt.digest(), issued: T0 }));
        SignedReceipt::new(receipt, countersign).expect("its parts belong together")
    }

    #[test]
    fn it_counts_distinct_buyers_and_our_own_receipts() {
        let mut reputation = Reputation::default();
        let check = |reputation: &Reputation, expected| assert_eq!(reputation.of(&node(1)), expected);
        reputation.heard(&receipt(1, 2, JobStatus::COMPLETED, true));
        reputation.heard(&receipt(1, 2, JobStatus::COMPLETED, true));
        check(&reputation, 1);
        reputation.heard(&receipt(1, 3, JobStatus::COMPLETED, true));
        check(&reputation, 2);
        reputation.heard(&receipt(1, 1, JobStatus::COMPLETED, true));
        reputation.heard(&receipt(1, 4, JobStatus::COMPLETED, false));
        reputation.heard(&receipt(1, 5, JobStatus::FAILED, true));
        reputation.heard(&receipt(7, 6, JobStatus::COMPLETED, true));
        check(&reputation, 2);
        (0..3).for_each(|_| reputation.settled(node(1)));
        check(&reputation, 5);
    }

    #[test]
    fn a_swarm_of_buyers_counts_only_so_far() {
        let mut reputation = Reputation::default();
        (10..300).for_each(|buyer| reputation.heard(&receipt(1, buyer, JobStatus::COMPLETED, true)));
        assert_eq!(reputation.of(&node(1)) as usize, MAX_BUYERS);
    }
}
