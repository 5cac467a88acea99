//! A worker's slots: free, held for a bid, or running a job.
//!
//! A bid binds, so it takes a **hold**; [`Admission::claim`] turns a hold into a running slot, exactly once; running and held
//! together never exceed the slots. Holds can't be starved:
//!
//! - **One open hold per buyer.** A newer offer of the same buyer supersedes its older hold. Refusing the newer one instead
//!   would let a lost accept, or an auction that the buyer gave up, lock that buyer out until the hold lapses. Honest buyers
//!   lose nothing: they run one auction at a time, until its winner has opened the stream.
//! - **Strangers** (buyers who never settled a receipt here) hold at most half of the slots that are neither running nor held
//!   by known buyers. New identities are free, so without this a swarm could hold everything. A worker with one slot has no
//!   half to give and serves whoever comes.
//! - **A rate per buyer**, in whole thousandths of offers. The network layer has such a gate too; this is the second line.
//!
//! It does not know models, prices or signatures; [`super::seller`] does.

use super::recent::Recent;
use infernet_wire::{
    bid::NoBidReason,
    id::{Hash, JobId, NodeId},
    limits::{OFFER_BURST, OFFERS_PER_SECOND},
    time::UnixMillis,
};
use std::{collections::BTreeMap, fmt};

/// Buyers whose settled receipts are remembered.
pub const MAX_KNOWN_BUYERS: usize = 65_536;
/// Buyers whose rate is counted at once. One who is forgotten starts with a full burst, so forgetting harms nobody.
const MAX_BUCKETS: usize = 4_096;
/// Claimed offers that are remembered, only to tell a replay from a hold that never was.
const MAX_CLAIMED: usize = 1_024;

/// A wish for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldRequest {
    /// Digest of the offer.
    pub offer: Hash,
    /// Who asked.
    pub buyer: NodeId,
    /// When the offer was made, by the buyer's clock: tells the newer of two.
    pub issued: UnixMillis,
    /// Until when the slot is to be kept.
    pub until: UnixMillis,
}

/// Why an accept did not get its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimError {
    /// No slot is held for that offer.
    NoHold,
    /// The slot is held for another buyer.
    WrongBuyer,
    /// The accept names another bid than ours.
    WrongBid,
    /// The hold is over.
    Lapsed,
    /// The hold was turned into a job before.
    AlreadyUsed,
    /// A job with that id is running.
    JobRunning,
    /// The accept names another winner.
    NotWinner,
    /// Model or price differ from the bid's.
    TermsDiffer,
    /// The accept's time is over.
    Expired,
}

impl ClaimError {
    /// A short stable name, for counters.
    pub fn label(self) -> &'static str {
        match self {
            ClaimError::NoHold => "no_hold",
            ClaimError::WrongBuyer => "wrong_buyer",
            ClaimError::WrongBid => "wrong_bid",
            ClaimError::Lapsed => "lapsed",
            ClaimError::AlreadyUsed => "already_used",
            ClaimError::JobRunning => "job_running",
            ClaimError::NotWinner => "not_winner",
            ClaimError::TermsDiffer => "terms_differ",
            ClaimError::Expired => "expired",
        }
    }

    /// Whether a new auction may help: the accept was honest, only too late.
    pub fn retryable(self) -> bool {
        matches!(self, ClaimError::NoHold | ClaimError::Lapsed | ClaimError::Expired)
    }
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClaimError::NoHold => "no slot is held for this offer",
            ClaimError::WrongBuyer => "the slot is held for another buyer",
            ClaimError::WrongBid => "the accept names another bid",
            ClaimError::Lapsed => "the hold has lapsed",
            ClaimError::AlreadyUsed => "the hold was used before",
            ClaimError::JobRunning => "a job with this id is running",
            ClaimError::NotWinner => "the accept names another winner",
            ClaimError::TermsDiffer => "model or price differ from the bid",
            ClaimError::Expired => "the accept has expired",
        })
    }
}

impl std::error::Error for ClaimError {}

#[derive(Debug, Clone)]
struct Hold {
    buyer: NodeId,
    issued: UnixMillis,
    until: UnixMillis,
    /// Digest of the bid, once it is signed.
    bid: Option<Hash>,
}

/// The slots of a worker.
#[derive(Debug, Clone)]
pub struct Admission {
    slots: usize,
    holds: BTreeMap<Hash, Hold>,
    running: BTreeMap<JobId, NodeId>,
    known: Recent<NodeId, ()>,
    rates: Recent<NodeId, Bucket>,
    claimed: Recent<Hash, ()>,
    lapsed: u64,
}

impl Admission {
    /// A worker that runs `slots` jobs at once.
    pub fn new(slots: u16) -> Self {
        Admission {
            slots: slots.into(),
            holds: BTreeMap::new(),
            running: BTreeMap::new(),
            known: Recent::new(MAX_KNOWN_BUYERS),
            rates: Recent::new(MAX_BUCKETS),
            claimed: Recent::new(MAX_CLAIMED),
            lapsed: 0,
        }
    }

    /// Holds a slot, or tells why not. Asking again for an offer that has its hold changes nothing.
    pub fn hold(&mut self, wish: HoldRequest, now: UnixMillis) -> Result<(), NoBidReason> {
        self.expire(now);
        if self.holds.contains_key(&wish.offer) {
            return Ok(());
        }
        self.spend_token(wish.buyer, now)?;
        self.supersede(&wish)?;
        self.check_room(&wish.buyer)?;
        self.holds.insert(wish.offer, Hold { buyer: wish.buyer, issued: wish.issued, until: wish.until, bid: None });
        Ok(())
    }

    /// Notes the digest of the bid that the hold of `offer` stands behind.
    pub fn bid_signed(&mut self, offer: &Hash, bid: Hash) {
        if let Some(hold) = self.holds.get_mut(offer) {
            hold.bid = Some(bid);
        }
    }

    /// Turns the hold of `offer` into a running slot. A refused claim leaves the hold as it was.
    pub fn claim(&mut self, offer: &Hash, bid: &Hash, buyer: &NodeId, job: JobId, now: UnixMillis) -> Result<(), ClaimError> {
        self.check_claim(offer, bid, buyer, &job, now)?;
        self.holds.remove(offer);
        self.claimed.insert(*offer, ());
        self.running.insert(job, *buyer);
        Ok(())
    }

    /// Frees the slot of `job` and returns its buyer.
    pub fn finish(&mut self, job: &JobId) -> Option<NodeId> {
        self.running.remove(job)
    }

    /// Gives up the hold of `offer`; whether there was one.
    pub fn release(&mut self, offer: &Hash) -> bool {
        self.holds.remove(offer).is_some()
    }

    /// Drops the holds that are over.
    pub fn expire(&mut self, now: UnixMillis) {
        let before = self.holds.len();
        self.holds.retain(|_, hold| hold.until >= now);
        self.lapsed += (before - self.holds.len()) as u64;
    }

    /// `buyer` has settled a receipt: no stranger any more.
    pub fn mark_known(&mut self, buyer: NodeId) {
        self.known.insert(buyer, ());
    }

    /// Whether `buyer` has settled a receipt here.
    pub fn is_known(&self, buyer: &NodeId) -> bool {
        self.known.contains(buyer)
    }

    /// For whom a slot is held for `offer`.
    pub fn holder(&self, offer: &Hash) -> Option<&NodeId> {
        self.holds.get(offer).map(|hold| &hold.buyer)
    }

    /// When the next hold lapses: the first moment at which it is over.
    pub fn next_expiry(&self) -> Option<UnixMillis> {
        self.holds.values().map(|hold| hold.until.after(1)).min()
    }

    /// Jobs that run at once.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Jobs running now.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Slots held for bids, holds that lapsed since the last [`Admission::expire`] included.
    pub fn held(&self) -> usize {
        self.holds.len()
    }

    /// Holds that lapsed unused so far.
    pub fn lapsed(&self) -> u64 {
        self.lapsed
    }

    /// Slots held for strangers.
    pub fn held_by_strangers(&self) -> usize {
        self.holds.values().filter(|hold| !self.is_known(&hold.buyer)).count()
    }

    fn spend_token(&mut self, buyer: NodeId, now: UnixMillis) -> Result<(), NoBidReason> {
        let mut bucket = self.rates.remove(&buyer).unwrap_or(Bucket::full(now));
        let spent = bucket.spend(now);
        self.rates.insert(buyer, bucket);
        if spent { Ok(()) } else { Err(NoBidReason::RATE_LIMITED) }
    }

    /// Drops the buyer's older hold. An older offer that comes late does not take the newer one's place.
    fn supersede(&mut self, wish: &HoldRequest) -> Result<(), NoBidReason> {
        let open = self.holds.iter().find(|(_, hold)| hold.buyer == wish.buyer);
        let Some((offer, issued)) = open.map(|(offer, hold)| (*offer, hold.issued)) else {
            return Ok(());
        };
        if issued > wish.issued {
            return Err(NoBidReason::NO_SLOT);
        }
        self.release(&offer);
        Ok(())
    }

    fn check_room(&self, buyer: &NodeId) -> Result<(), NoBidReason> {
        if self.running() + self.held() >= self.slots {
            return Err(NoBidReason::NO_SLOT);
        }
        if !self.is_known(buyer) && self.held_by_strangers() >= self.strangers_share() {
            return Err(NoBidReason::STRANGER_POOL_FULL);
        }
        Ok(())
    }

    fn strangers_share(&self) -> usize {
        let held_by_known = self.held() - self.held_by_strangers();
        let free = self.slots.saturating_sub(self.running() + held_by_known);
        if self.slots == 1 { free } else { free / 2 }
    }

    fn check_claim(&self, offer: &Hash, bid: &Hash, buyer: &NodeId, job: &JobId, now: UnixMillis) -> Result<(), ClaimError> {
        let missing = if self.claimed.contains(offer) { ClaimError::AlreadyUsed } else { ClaimError::NoHold };
        let hold = self.holds.get(offer).ok_or(missing)?;
        if hold.buyer != *buyer {
            return Err(ClaimError::WrongBuyer);
        }
        if hold.bid.as_ref() != Some(bid) {
            return Err(ClaimError::WrongBid);
        }
        if hold.until < now {
            return Err(ClaimError::Lapsed);
        }
        if self.running.contains_key(job) {
            return Err(ClaimError::JobRunning);
        }
        Ok(())
    }
}

/// Thousandths of an offer, so that a rate per second counts in whole numbers per millisecond.
const MILLI: u64 = 1_000;

/// A token bucket.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    milli: u64,
    filled: UnixMillis,
}

impl Bucket {
    const SIZE: u64 = OFFER_BURST as u64 * MILLI;

    fn full(now: UnixMillis) -> Self {
        Bucket { milli: Self::SIZE, filled: now }
    }

    /// Takes one offer's worth, if it is there. A clock that went back fills nothing.
    fn spend(&mut self, now: UnixMillis) -> bool {
        let gained = now.since(self.filled).saturating_mul(OFFERS_PER_SECOND.into());
        self.milli = self.milli.saturating_add(gained).min(Self::SIZE);
        self.filled = self.filled.max(now);
        let spent = self.milli.checked_sub(MILLI);
        self.milli = spent.unwrap_or(self.milli);
        spent.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{at, node};

    const BUYER: u16 = 1;
    const JOB: JobId = JobId([1; 16]);

    fn offer(n: u8) -> Hash {
        Hash([n; 32])
    }

    fn bid(n: u8) -> Hash {
        Hash([100 + n; 32])
    }

    fn hold(admission: &mut Admission, n: u8, buyer: u16, ms: u64) -> Result<(), NoBidReason> {
        let wish = HoldRequest { offer: offer(n), buyer: node(buyer), issued: at(ms), until: at(ms + 1_500) };
        admission.hold(wish, at(ms))?;
        admission.bid_signed(&offer(n), bid(n));
        Ok(())
    }

    /// Slots, known buyers; then holds by these buyers, one offer each, and what they get.
    fn check(slots: u16, known: &[u16], wishes: &[(u16, Result<(), NoBidReason>)]) {
        let mut admission = Admission::new(slots);
        known.iter().for_each(|buyer| admission.mark_known(node(*buyer)));
        for (n, (buyer, expected)) in (1..).zip(wishes) {
            assert_eq!(hold(&mut admission, n, *buyer, 0), *expected, "wish {n} of buyer {buyer}");
        }
    }

    #[test]
    fn strangers_share_half_of_what_is_free() {
        let full = Err(NoBidReason::STRANGER_POOL_FULL);
        check(4, &[], &[(1, Ok(())), (2, Ok(())), (3, full)]);
        check(4, &[9], &[(9, Ok(())), (1, Ok(())), (2, full)]);
        check(4, &[9], &[(1, Ok(())), (2, Ok(())), (3, full), (9, Ok(()))]);
        check(3, &[], &[(1, Ok(())), (2, full)]);
    }

    #[test]
    fn a_single_slot_serves_whoever_comes() {
        check(1, &[], &[(1, Ok(())), (2, Err(NoBidReason::NO_SLOT))]);
        check(1, &[9], &[(9, Ok(())), (1, Err(NoBidReason::NO_SLOT))]);
    }

    #[test]
    fn a_newer_offer_supersedes_the_buyers_hold() {
        let mut admission = Admission::new(4);
        assert_eq!(hold(&mut admission, 1, BUYER, 10), Ok(()));
        assert_eq!(hold(&mut admission, 2, BUYER, 20), Ok(()));
        assert_eq!((admission.held(), admission.holder(&offer(1)).is_none()), (1, true));
        let older = HoldRequest { offer: offer(3), buyer: node(BUYER), issued: at(5), until: at(2_000) };
        assert_eq!(admission.hold(older, at(20)), Err(NoBidReason::NO_SLOT));
        assert_eq!(admission.holder(&offer(2)), Some(&node(BUYER)));
    }

    #[test]
    fn a_hold_becomes_one_job() {
        let mut admission = Admission::new(2);
        assert_eq!(hold(&mut admission, 1, BUYER, 0), Ok(()));
        let mut claim =
            |n, the_bid, buyer, job, ms| admission.claim(&offer(n), &bid(the_bid), &node(buyer), JobId([job; 16]), at(ms));
        assert_eq!(claim(2, 2, BUYER, 1, 0), Err(ClaimError::NoHold));
        assert_eq!(claim(1, 1, 2, 1, 0), Err(ClaimError::WrongBuyer));
        assert_eq!(claim(1, 2, BUYER, 1, 0), Err(ClaimError::WrongBid));
        assert_eq!(claim(1, 1, BUYER, 1, 1_501), Err(ClaimError::Lapsed));
        assert_eq!(claim(1, 1, BUYER, 1, 1_500), Ok(()));
        assert_eq!(claim(1, 1, BUYER, 1, 1_500), Err(ClaimError::AlreadyUsed));
        assert_eq!((admission.running(), admission.held()), (1, 0));
        assert_eq!(hold(&mut admission, 2, 3, 0), Err(NoBidReason::STRANGER_POOL_FULL));
        assert_eq!(admission.finish(&JOB), Some(node(BUYER)));
        assert_eq!(admission.finish(&JOB), None);
        assert_eq!(hold(&mut admission, 2, 3, 0), Ok(()));
    }

    #[test]
    fn an_unsigned_bid_or_a_running_job_can_not_be_claimed() {
        let mut admission = Admission::new(4);
        let wish = HoldRequest { offer: offer(1), buyer: node(BUYER), issued: at(0), until: at(9) };
        assert_eq!(admission.hold(wish, at(0)), Ok(()));
        assert_eq!(admission.claim(&offer(1), &bid(1), &node(BUYER), JOB, at(0)), Err(ClaimError::WrongBid));
        admission.bid_signed(&offer(1), bid(1));
        assert_eq!(admission.claim(&offer(1), &bid(1), &node(BUYER), JOB, at(0)), Ok(()));
        assert_eq!(hold(&mut admission, 2, BUYER, 0), Ok(()));
        assert_eq!(admission.claim(&offer(2), &bid(2), &node(BUYER), JOB, at(0)), Err(ClaimError::JobRunning));
    }

    #[test]
    fn a_lapsed_hold_makes_room_and_is_counted() {
        let mut admission = Admission::new(1);
        assert_eq!(hold(&mut admission, 1, BUYER, 0), Ok(()));
        assert_eq!(admission.next_expiry(), Some(at(1_501)));
        assert_eq!(hold(&mut admission, 2, 2, 1_500), Err(NoBidReason::NO_SLOT));
        assert_eq!(hold(&mut admission, 2, 2, 1_501), Ok(()));
        assert_eq!((admission.lapsed(), admission.held()), (1, 1));
    }

    #[test]
    fn a_buyer_has_a_burst_and_then_a_rate() {
        let mut admission = Admission::new(4);
        for n in 0..20 {
            assert_eq!(hold(&mut admission, n, BUYER, 0), Ok(()), "offer {n}");
        }
        assert_eq!(hold(&mut admission, 20, BUYER, 199), Err(NoBidReason::RATE_LIMITED));
        assert_eq!(hold(&mut admission, 21, BUYER, 200), Ok(()));
        assert_eq!(hold(&mut admission, 22, BUYER, 0), Err(NoBidReason::RATE_LIMITED), "a clock that went back fills nothing");
    }
}
