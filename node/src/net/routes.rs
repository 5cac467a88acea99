//! The way back to a buyer: which neighbour brought each offer, and who has answered it.
//!
//! Bids are not flooded. A worker hands its sealed answer to the neighbour that first brought the offer, that neighbour to its
//! own, and so on to the buyer: each answer crosses each link of one path once, so an auction's cost does not grow with the
//! network. This is also where answers are bounded: one per worker and offer, and no more than `MAX_ANSWERS` per offer.

use super::generations::Generations;
use infernet_wire::{
    id::{Hash, NodeId},
    limits,
    time::UnixMillis,
};
use std::collections::BTreeSet;

/// Answers per offer that are passed on: workers that should answer, twice over, since each chooses for itself whether it is
/// among the [`limits::MAX_BIDDERS`].
const MAX_ANSWERS: usize = 2 * limits::MAX_BIDDERS;
/// Offers of others remembered per generation. At 500 offers a second this is still four seconds, twice the longest bid window.
const OFFERS: usize = 2_048;
/// Own offers remembered per generation: 30 seconds of the allowed rate, with room for several front ends.
const OWN_OFFERS: usize = 1_024;

/// Where an answer goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// The offer was ours.
    Here,
    /// To the buyer, if connected, else to the neighbour that brought the offer.
    There {
        /// Who asked.
        buyer: NodeId,
        /// Who brought the offer.
        via: NodeId,
    },
}

#[derive(Debug)]
struct Known {
    next: NextHop,
    answered: BTreeSet<NodeId>,
}

/// See the module.
#[derive(Debug)]
pub struct Routes {
    own: Generations<Hash, Known>,
    others: Generations<Hash, Known>,
}

#[cfg(test)]
impl Routes {
    /// Offers that are kept at most.
    pub(super) const MOST: usize = 2 * (OFFERS + OWN_OFFERS);

    /// How many offers are kept.
    pub(super) fn len(&self) -> usize {
        self.own.len() + self.others.len()
    }
}

impl Default for Routes {
    fn default() -> Self {
        Routes::new()
    }
}

impl Routes {
    /// None yet.
    pub fn new() -> Self {
        Routes {
            own: Generations::new(OWN_OFFERS, limits::OFFER_TTL_MS),
            others: Generations::new(OFFERS, limits::OFFER_TTL_MS),
        }
    }

    /// Remembers an offer that we publish.
    pub fn learn_own(&mut self, offer: Hash, now: UnixMillis) {
        self.own.insert(offer, Known { next: NextHop::Here, answered: BTreeSet::new() }, now);
    }

    /// Remembers who brought an offer.
    pub fn learn(&mut self, offer: Hash, buyer: NodeId, via: NodeId, now: UnixMillis) {
        self.others.insert(offer, Known { next: NextHop::There { buyer, via }, answered: BTreeSet::new() }, now);
    }

    /// Where to, without answering.
    pub fn next_hop(&self, offer: &Hash) -> Option<NextHop> {
        self.own.get(offer).or_else(|| self.others.get(offer)).map(|known| known.next)
    }

    /// Uses up the one answer that `worker` has for `offer`.
    pub fn claim(&mut self, offer: &Hash, worker: NodeId) -> Result<NextHop, &'static str> {
        let known = self.own.get_mut(offer).or_else(|| self.others.get_mut(offer)).ok_or("unknown_offer")?;
        if known.answered.contains(&worker) {
            return Err("already_answered");
        }
        if known.answered.len() >= MAX_ANSWERS {
            return Err("too_many_answers");
        }
        known.answered.insert(worker);
        Ok(known.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::hash::sha256;

    fn node(n: u8) -> NodeId {
        NodeId([n; 33])
    }

    #[test]
    fn one_answer_per_worker_and_a_bound_per_offer() {
        let mut routes = Routes::new();
        let offer = sha256(b"offer");
        let there = NextHop::There { buyer: node(200), via: node(201) };
        assert_eq!(routes.claim(&offer, node(1)), Err("unknown_offer"));
        routes.learn(offer, node(200), node(201), UnixMillis(1));
        assert_eq!(routes.claim(&offer, node(1)), Ok(there));
        assert_eq!(routes.claim(&offer, node(1)), Err("already_answered"));
        for n in 2..=64 {
            assert_eq!(routes.claim(&offer, node(n)), Ok(there));
        }
        assert_eq!(routes.claim(&offer, node(65)), Err("too_many_answers"));
    }

    #[test]
    fn a_flood_of_offers_does_not_drive_out_our_own() {
        let mut routes = Routes::new();
        routes.learn_own(sha256(b"own"), UnixMillis(1));
        for n in 0..10_000u32 {
            routes.learn(sha256(&n.to_be_bytes()), node(1), node(2), UnixMillis(1));
        }
        assert_eq!(routes.claim(&sha256(b"own"), node(1)), Ok(NextHop::Here));
        assert_eq!(routes.next_hop(&sha256(&0u32.to_be_bytes())), None);
    }
}
