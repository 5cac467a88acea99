//! Which of many workers answer an offer: at most [`MAX_BIDDERS`], so that an auction costs the same in a large network.
//!
//! Up to half of them are **invited** by the buyer, by name ([`invite`]); the rest of the turns go by lot. Either way alone would
//! fail. By lot alone, ads that cost nothing drown the workers: among twenty ads of a swarm for each honest one, every fifth
//! auction would have no honest worker in it at all. By invitation alone, newcomers would never be heard.
//!
//! **The lot.** Nobody hands out turns. Each worker draws a number for each of its rivals and for itself, a hash of offer and
//! worker divided by the worker's slots, and answers if fewer than there are turns drew lower: rendezvous hashing. All who know
//! the same ads come to the same result, the buyer too, which is how it knows whom to expect. Where views differ a few more or
//! fewer answer. Nobody can steer it: a worker's id is advertised before the offer exists, and claimed slots count only to
//! [`MAX_WEIGHT`].
//!
//! **Who is invited.** Workers whose last job for this buyer went well, then those that answer and keep what their ads promise,
//! the best ads first; what they have earned no swarm can make up. At least [`STRANGERS`] invitations go to others: those asked
//! least often first, and of these the ones with settled receipts. So a buyer that knows nobody, or whose first draw brought no
//! answer, asks others each time until it has found somebody, and remembers whom it asked in vain.

use super::{
    rank::Order,
    record::{AnswerRecords, Regard},
    registry::Candidate,
};
use infernet_wire::{
    hash,
    id::{Hash, NodeId},
    limits::{MAX_BIDDERS, MAX_INVITED},
    offer::{Invitation, JobOffer},
};

/// Slots beyond this many bring no more turns: they are claimed, not proved.
pub const MAX_WEIGHT: u16 = 16;
/// Invitations that are kept for workers that the buyer does not know.
pub const STRANGERS: usize = MAX_INVITED / 4;

/// Whether the worker `me` with `my_slots` answers `offer`, whose digest is `digest`, among `rivals` with their slots. It does
/// not matter whether `rivals` has `me` too.
pub fn is_selected(
    offer: &JobOffer,
    digest: &Hash,
    me: &NodeId,
    my_slots: u16,
    rivals: impl IntoIterator<Item = (NodeId, u16)>,
) -> bool {
    if offer.invites(me) {
        return true;
    }
    let mut rivals = rivals.into_iter().filter(|(worker, _)| worker != me);
    // With few rivals, as usual, there is nothing to draw.
    let first: Vec<_> = rivals.by_ref().take(MAX_BIDDERS).collect();
    if first.len() < MAX_BIDDERS {
        return true;
    }
    let (mine, turns) = (draw(digest, me, my_slots), turns(offer));
    let lower = first.into_iter().chain(rivals).filter(|(worker, slots)| draw(digest, worker, *slots) < mine);
    lower.take(turns).count() < turns
}

/// Those of `candidates` that will answer `offer`, whose digest is `digest`.
pub fn selected(offer: &JobOffer, digest: &Hash, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    if candidates.len() > MAX_BIDDERS {
        candidates.sort_by_cached_key(|candidate| draw(digest, &candidate.worker, candidate.slots));
        let mut turns = turns(offer);
        candidates.retain(|candidate| {
            let drawn = turns > 0;
            turns = turns.saturating_sub(1);
            drawn || offer.invites(&candidate.worker)
        });
    }
    candidates
}

/// Turns that go by lot.
fn turns(offer: &JobOffer) -> usize {
    MAX_BIDDERS - offer.invited.len().min(MAX_INVITED)
}

/// A worker that may be invited.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Who.
    pub worker: NodeId,
    /// What its ad is worth: less is better.
    pub order: Order,
    /// Whether its last job for us went well.
    pub proven: bool,
    /// Whether it has settled receipts with anybody.
    pub has_past: bool,
}

/// Whom to invite to `offer` of all that could serve it; nobody if they all answer anyway.
pub fn invite(offer: &JobOffer, guests: Vec<Guest>, records: &AnswerRecords) -> Vec<Invitation> {
    if guests.len() <= MAX_BIDDERS {
        return Vec::new();
    }
    let (mut known, mut strangers) = (Vec::new(), Vec::new());
    for guest in guests {
        match records.regard(&guest.worker) {
            Regard::Silent => {}
            Regard::Believed { .. } | Regard::Stranger if guest.proven => known.push((0, guest)),
            Regard::Believed { .. } => known.push((1, guest)),
            Regard::Stranger | Regard::Doubted => strangers.push(guest),
        }
    }
    known.sort_by_key(|(class, guest)| (*class, guest.order, guest.worker));
    let asked = |worker: &NodeId| records.get(worker).map_or(0, |record| record.asked);
    let lot = |worker: &NodeId| hash::tagged("infernet/invitation-lot/1", &[offer.id.as_ref(), worker.as_ref()]);
    strangers.sort_by_cached_key(|guest| (asked(&guest.worker), !guest.has_past, lot(&guest.worker)));
    let known = known.into_iter().map(|(_, guest)| guest.worker).take(MAX_INVITED - STRANGERS);
    let invited = known.chain(strangers.into_iter().map(|guest| guest.worker)).take(MAX_INVITED);
    invited.map(|worker| Invitation::of(&offer.id, &worker)).collect()
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
    use crate::market::{
        fixture::{model, offer_body},
        record::Promise,
    };
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn worker(n: u16) -> NodeId {
        let mut bytes = [2; 33];
        bytes[1..3].copy_from_slice(&n.to_be_bytes());
        NodeId(bytes)
    }

    fn answering(offer: &JobOffer, digest: &Hash, workers: &[(NodeId, u16)]) -> Vec<NodeId> {
        let selects = |(me, slots): &&(NodeId, u16)| is_selected(offer, digest, me, *slots, workers.iter().copied());
        workers.iter().filter(selects).map(|(me, _)| *me).collect()
    }

    proptest! {
        #[test]
        fn exactly_the_limit_answers_and_the_buyer_knows_who(
            seed: [u8; 32], n in 0..100u16, slots in 1..20u16, guests in 0..=MAX_INVITED,
        ) {
            let mut offer = offer_body();
            let digest = Hash(seed);
            offer.invited = (0..guests as u16).map(|i| Invitation::of(&offer.id, &worker(5 * i))).collect();
            let workers: Vec<_> = (0..n).map(|i| (worker(i), 1 + i % slots)).collect();
            let answering = answering(&offer, &digest, &workers);
            // Who is invited and has drawn well has one turn, not two.
            let most = usize::from(n).min(MAX_BIDDERS);
            prop_assert!((most - guests.min(most)..=most).contains(&answering.len()));
            let invited = workers.iter().filter(|(worker, _)| offer.invites(worker));
            prop_assert!(invited.into_iter().all(|(worker, _)| answering.contains(worker)));
            let candidate = |(worker, slots): &(NodeId, u16)| Candidate { worker: *worker, model: model("m", 0, 0), slots: *slots };
            let mut expected: Vec<_> = selected(&offer, &digest, workers.iter().map(candidate).collect()).iter().map(|c| c.worker).collect();
            expected.sort_unstable();
            prop_assert_eq!(answering, expected);
        }
    }

    #[test]
    fn more_slots_bring_more_turns_but_a_boast_does_not() {
        let turns = |slots: u16| {
            let workers: Vec<_> = (0..200).map(|i| (worker(i), if i == 0 { slots } else { 1 })).collect();
            let wins = |n: &u16| {
                is_selected(&offer_body(), &hash::sha256(&n.to_be_bytes()), &worker(0), slots, workers.iter().copied())
            };
            (0..200).filter(wins).count()
        };
        let (one, four, boast) = (turns(1), turns(4), turns(u16::MAX));
        assert!((20..50).contains(&one), "{one}");
        assert!((100..160).contains(&four), "{four}");
        assert_eq!(boast, turns(MAX_WEIGHT));
    }

    fn guests(n: u16) -> Vec<Guest> {
        let guest = |i| Guest { worker: worker(i), order: (1_000 - u128::from(i), 0), proven: i < 3, has_past: i % 100 == 7 };
        (0..n).map(guest).collect()
    }

    #[test]
    fn a_buyer_invites_whom_it_knows_and_some_that_it_does_not() {
        let (offer, mut records) = (offer_body(), AnswerRecords::default());
        assert_eq!(invite(&offer, guests(MAX_BIDDERS as u16), &records), [], "all of so few answer");
        (0..40).for_each(|i| records.answered(worker(i), 5, Promise::Kept));
        (0..2).for_each(|_| records.missed(worker(1), false));
        let invited = invite(&offer, guests(200), &records);
        let is_in = |i: u16| invited.contains(&Invitation::of(&offer.id, &worker(i)));
        assert_eq!(invited.len(), MAX_INVITED);
        assert!(is_in(0) && is_in(2), "their last jobs went well");
        assert!(!is_in(1), "it is silent");
        assert!(is_in(39) && is_in(38), "the best ads of those that answer");
        assert!(is_in(107) && (40..200).filter(|i| is_in(*i)).count() == STRANGERS);
    }

    #[test]
    fn who_was_asked_in_vain_is_not_asked_again_before_the_others() {
        let (offer, mut records) = (offer_body(), AnswerRecords::default());
        let mut seen = BTreeSet::new();
        let strangers: Vec<Guest> = guests(80).into_iter().map(|guest| Guest { proven: false, ..guest }).collect();
        for _ in 0..5 {
            let invited = invite(&offer, strangers.clone(), &records);
            for guest in strangers.iter().filter(|guest| invited.contains(&Invitation::of(&offer.id, &guest.worker))) {
                assert!(seen.insert(guest.worker), "asked twice");
                records.missed(guest.worker, false);
            }
        }
        assert_eq!(seen.len(), 80);
    }
}
