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
        }
    }
}

/// Whether a hold lasts. The worker can't have bid before the offer was made, so counting the hold's length from there never
/// trusts it too long, whatever the worker's clock says.
fn holds(bid: &JobBid, opened: UnixMillis, now: UnixMillis) -> bool {
    now <= opened.after(bid.hold_until.since(bid.issued))
}
