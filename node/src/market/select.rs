//! Which of many workers answer an offer: at most [`MAX_BIDDERS`], so that an auction costs the same in a large network.
//!
//! Nobody hands out turns. Each worker draws a number for each of its rivals and for itself, a hash of offer and worker divided
//! by the worker's slots, and answers if fewer than [`MAX_BIDDERS`] drew lower: rendezvous hashing. All who know the same ads
//! come to the same result, the buyer too, which is how it knows whom to expect. Where views differ a few more or fewer answer.
//!
//! Nobody can steer it: a worker's id is advertised before the offer exists, and claimed slots count only to [`MAX_WEIGHT`].

use super::registry::Candidate;
use infernet_wire::{
    hash,
    id::{Hash, NodeId},
    limits::MAX_BIDDERS,
};

/// Slots beyond this many bring no more turns: they are claimed, not proved.
pub const MAX_WEIGHT: u16 = 16;

/// Whether the worker `me` with `my_slots` answers the offer with digest `offer`, among `rivals` with their slots. It does not
/// matter whether `rivals` has `me` too.
pub fn is_selected(offer: &Hash, me: &NodeId, my_slots: u16, rivals: impl IntoIterator<Item = (NodeId, u16)>) -> bool {
    let mut rivals = rivals.into_iter().filter(|(worker, _)| worker != me);
    // With few rivals, as usual, there is nothing to draw.
    let first: Vec<_> = rivals.by_ref().take(MAX_BIDDERS).collect();
    if first.len() < MAX_BIDDERS {
        return true;
    }
    let mine = draw(offer, me, my_slots);
    let lower = first.into_iter().chain(rivals).filter(|(worker, slots)| draw(offer, worker, *slots) < mine);
    lower.take(MAX_BIDDERS).count() < MAX_BIDDERS
}

/// Those of `candidates` that will answer the offer with digest `offer`.
pub fn selected(offer: &Hash, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    if candidates.len() > MAX_BIDDERS {
        candidates.sort_by_cached_key(|candidate| draw(offer, &candidate.worker, candidate.slots));
        candidates.truncate(MAX_BIDDERS);
    }
    candidates
}

/// A worker's number for an offer: the lowest ones answer. The id only makes the order total.
fn draw(offer: &Hash, worker: &NodeId, slots: u16) -> (u64, NodeId) {
    let digest = hash::tagged("infernet/select/1", &[offer.as_ref(), worker.as_ref()]);
    let number = digest.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    (number / u64::from(slots.clamp(1, MAX_WEIGHT)), *worker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::model;
    use proptest::prelude::*;

    fn worker(n: u16) -> NodeId {
        let mut bytes = [2; 33];
        bytes[1..3].copy_from_slice(&n.to_be_bytes());
        NodeId(bytes)
    }

    fn answering(offer: &Hash, workers: &[(NodeId, u16)]) -> Vec<NodeId> {
        let selects = |(me, slots): &&(NodeId, u16)| is_selected(offer, me, *slots, workers.iter().copied());
        workers.iter().filter(selects).map(|(me, _)| *me).collect()
    }

    proptest! {
        #[test]
        fn exactly_the_limit_answers_and_the_buyer_knows_who(seed: [u8; 32], n in 0..100u16, slots in 1..20u16) {
            let offer = Hash(seed);
            let workers: Vec<_> = (0..n).map(|i| (worker(i), 1 + i % slots)).collect();
            let answering = answering(&offer, &workers);
            prop_assert_eq!(answering.len(), usize::from(n).min(MAX_BIDDERS));
            let candidate = |(worker, slots): &(NodeId, u16)| Candidate { worker: *worker, model: model("m", 0, 0), slots: *slots };
            let mut expected: Vec<_> = selected(&offer, workers.iter().map(candidate).collect()).iter().map(|c| c.worker).collect();
            expected.sort_unstable();
            prop_assert_eq!(answering, expected);
        }
    }

    #[test]
    fn more_slots_bring_more_turns_but_a_boast_does_not() {
        let turns = |slots: u16| {
            let workers: Vec<_> = (0..200).map(|i| (worker(i), if i == 0 { slots } else { 1 })).collect();
            let wins = |n: &u16| is_selected(&hash::sha256(&n.to_be_bytes()), &worker(0), slots, workers.iter().copied());
            (0..200).filter(wins).count()
        };
        let (one, four, boast) = (turns(1), turns(4), turns(u16::MAX));
        assert!((20..50).contains(&one), "{one}");
        assert!((100..160).contains(&four), "{four}");
        assert_eq!(boast, turns(MAX_WEIGHT));
    }
}
