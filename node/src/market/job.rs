//! Who gets the job: the winner, then the runners-up while their holds last.
//!
//! It does not know how an attempt fails. The driver asks for the next one, as long as no token has arrived.

use super::{auction::Won, rank::Scored};
use infernet_wire::{
    accept::JobAccept,
    bid::JobBid,
    envelope::Verified,
    id::{Hash, JobId, NodeId},
    limits::{ACCEPT_TTL_MS, MAX_RUNNERS_UP},
    time::UnixMillis,
};
use std::collections::VecDeque;

/// One try with one worker.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The bid to accept.
    pub bid: Verified<JobBid>,
    /// 1 for the first, 2 for the next.
    pub attempt: u8,
    /// Who follows, in order.
    pub runners_up: Vec<NodeId>,
    /// The bid's score.
    pub score: u64,
}

/// The attempts that a won auction allows: one, and one for each runner-up.
#[derive(Debug, Clone)]
pub struct Attempts {
    opened: UnixMillis,
    offer: Hash,
    commitment: Hash,
    made: u8,
    left: VecDeque<(Scored, Verified<JobBid>)>,
}

impl Attempts {
    /// The attempts for `won`.
    pub fn new(won: &Won) -> Self {
        let best = won.ranking.iter().take(1 + MAX_RUNNERS_UP);
        let left = best.filter_map(|scored| Some((scored.clone(), won.bids.get(&scored.worker)?.clone())));
        Attempts { opened: won.opened, offer: won.offer.digest(), commitment: won.commitment, made: 0, left: left.collect() }
    }

    /// The next worker whose hold lasts at `now`; `None` if there is none left.
    pub fn next(&mut self, now: UnixMillis) -> Option<Attempt> {
        let opened = self.opened;
        self.left.retain(|(_, bid)| holds(bid, opened, now));
        let (scored, bid) = self.left.pop_front()?;
        self.made += 1;
        let runners_up = self.left.iter().map(|(next, _)| next.worker).collect();
        Some(Attempt { bid, attempt: self.made, runners_up, score: scored.score })
    }

    /// The accept for `attempt`, to be signed.
    pub fn accept_body(&self, attempt: &Attempt, job: JobId, now: UnixMillis) -> JobAccept {
        JobAccept {
            offer: self.offer,
            bid: attempt.bid.digest(),
            winner: attempt.bid.signer(),
            model: attempt.bid.model.clone(),
            price: attempt.bid.price,
            job,
            attempt: attempt.attempt,
            runners_up: attempt.runners_up.clone(),
            bids: self.commitment,
            score: attempt.score,
            issued: now,
            expires: now.after(ACCEPT_TTL_MS),
            rate: None,
        }
    }
}

/// Whether a hold lasts. The worker can't have bid before the offer was made, so counting the hold's length from there never
/// trusts it too long, whatever the worker's clock says.
fn holds(bid: &JobBid, opened: UnixMillis, now: UnixMillis) -> bool {
    now <= opened.after(bid.hold_until.since(bid.issued))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::{
        auction::{Auction, CloseReason, Closed},
        fixture::{T0, at, bid_with, node, offer, sign},
        rank::Facts,
        record::AnswerRecords,
    };
    use infernet_wire::bid::Answer;

    const JOB: JobId = JobId([5; 16]);

    /// An auction won by worker 1, then 2, 3 and so on; `holds[i]` is how long worker i + 1 holds.
    fn won(holds: &[u64]) -> Won {
        let offer = offer(9, 1, |_| {});
        let mut auction = Auction::open(offer.clone(), vec![], |_| Facts::default(), &AnswerRecords::default(), T0);
        for (n, hold) in (1..).zip(holds) {
            let bid = bid_with(n, &offer, 1_000_000 * u64::from(n), |bid| bid.hold_until = bid.issued.after(*hold));
            auction.on_answer(Answer::Bid(bid), Facts::default(), T0).expect("counts");
        }
        match auction.close(CloseReason::TargetMet, T0) {
            Closed::Won(won) => *won,
            other => panic!("{other:?}"),
        }
    }

    /// At a time, who is tried, and who is behind.
    type Try = (u64, Option<(u16, &'static [u16])>);

    fn check(holds: &[u64], tries: &[Try]) {
        let mut attempts = Attempts::new(&won(holds));
        for (ms, expected) in tries {
            let attempt = attempts.next(at(*ms)).map(|attempt| (attempt.bid.signer(), attempt.runners_up));
            let expected = expected.map(|(n, next)| (node(n), next.iter().copied().map(node).collect()));
            assert_eq!(attempt, expected, "at {ms}");
        }
    }

    #[test]
    fn the_winner_is_tried_and_then_two_runners_up() {
        check(&[1_500; 5], &[(5, Some((1, &[2, 3]))), (9, Some((2, &[3]))), (9, Some((3, &[]))), (9, None)]);
    }

    #[test]
    fn only_those_whose_holds_last_are_tried() {
        check(&[1_500, 1_000, 1_500], &[(5, Some((1, &[2, 3]))), (1_000, Some((2, &[3])))]);
        check(&[1_500, 1_000, 1_500], &[(5, Some((1, &[2, 3]))), (1_001, Some((3, &[])))]);
        check(&[1_000, 1_500], &[(1_001, Some((2, &[])))]);
        check(&[1_500], &[(1_501, None)]);
    }

    #[test]
    fn an_accept_names_bid_price_and_successors() {
        let won = won(&[1_500; 3]);
        let mut attempts = Attempts::new(&won);
        let first = attempts.next(at(5)).expect("the winner");
        let accept = sign(9, attempts.accept_body(&first, JOB, at(5)));
        assert_eq!((accept.winner, accept.attempt, accept.bid), (node(1), 1, won.bids[&node(1)].digest()));
        assert_eq!((accept.runners_up.as_slice(), accept.bids), ([node(2), node(3)].as_slice(), won.commitment));
        let second = attempts.next(at(6)).expect("a runner-up");
        assert_eq!(attempts.accept_body(&second, JOB, at(6)).attempt, 2);
    }
}
