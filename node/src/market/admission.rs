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
//! - **Newcomers** (strangers that were not here some seconds ago either) wait while newcomers waste holds: see
//!   `market::newcomers`. Without this a flood of keys that are used once fills the strangers' half for good, and buyers that
//!   come back, but have not settled anything yet, find no place.
//! - **A rate per buyer**, in whole thousandths of offers. The network layer has such a gate too; this is the second line.
//!
//! A job at the **standing price** takes its slot without a hold, so many of one buyer's may run. They can't starve the holds:
//! a slot that is held is not free, and a stranger's standing job counts as a stranger's hold as long as it runs, so that
//! strangers together, however they come, leave the other half to buyers that are known. Each accept is good once: it is
//! remembered for as long as its times allow, and when there is no room to remember, no further job is taken this way.
//!
//! A slot is free when the engine is. What is left of the job, the signing of its receipt, is **settling**: it takes no slot, so
//! a buyer that is slow to sign, or never does, keeps nobody from an idle engine.
//!
//! It does not know models, prices or signatures; [`super::seller`] does.

pub use super::claim::ClaimError;

use super::{
    newcomers::Newcomers,
    rate::{Bucket, Rate},
    recent::Recent,
    used::Used,
};
use infernet_wire::{
    bid::NoBidReason,
    id::{Hash, JobId, NodeId},
    limits::{OFFER_BURST, OFFERS_PER_SECOND},
    time::UnixMillis,
};
use std::collections::BTreeMap;

/// Buyers whose settled receipts are remembered.
pub const MAX_KNOWN_BUYERS: usize = 65_536;
/// Buyers whose rate is counted at once. One who is forgotten starts with a full burst, so forgetting harms nobody.
const MAX_BUCKETS: usize = 4_096;
/// Claimed offers that are remembered, only to tell a replay from a hold that never was.
const MAX_CLAIMED: usize = 1_024;
/// Standing accepts that are remembered: as many as one buyer may present at [`STANDING`]'s rate while one of them lives.
const MAX_STANDING: usize = 16_384;
/// Jobs that settle beside those that run. A buyer that never signs keeps one open for ten seconds; each has a task and a stream
/// of some kilobytes. Beyond it a job keeps its slot until it is settled.
pub const MAX_SETTLING: usize = 1_024;

/// Offers of one buyer.
const OFFERS: Rate = Rate { per_second: OFFERS_PER_SECOND, burst: OFFER_BURST };
/// Standing jobs of a buyer that is known. Nobody else has to look at them, and slots bound how many run; at this rate the
/// signatures to check keep a tenth of a core busy.
const STANDING: Rate = Rate { per_second: 500, burst: 2_048 };

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

/// A wish to run a job at once, at the price of our ad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandingWish {
    /// Digest of the offer; it is good once.
    pub offer: Hash,
    /// Who asks.
    pub buyer: NodeId,
    /// The job.
    pub job: JobId,
    /// When the accept can no longer be presented.
    pub until: UnixMillis,
}

#[derive(Debug, Clone)]
struct Hold {
    buyer: NodeId,
    issued: UnixMillis,
    until: UnixMillis,
    /// Digest of the bid, once it is signed.
    bid: Option<Hash>,
    /// Its buyer was a newcomer.
    newcomer: bool,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    buyer: NodeId,
    /// It took its slot without a hold.
    standing: bool,
}

/// The slots of a worker.
#[derive(Debug, Clone)]
pub struct Admission {
    slots: usize,
    holds: BTreeMap<Hash, Hold>,
    running: BTreeMap<JobId, Running>,
    settling: BTreeMap<JobId, NodeId>,
    standing: Used,
    known: Recent<NodeId, ()>,
    newcomers: Newcomers,
    rates: Recent<NodeId, Bucket>,
    standing_rates: Recent<NodeId, Bucket>,
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
            settling: BTreeMap::new(),
            standing: Used::new(MAX_STANDING),
            known: Recent::new(MAX_KNOWN_BUYERS),
            newcomers: Newcomers::default(),
            rates: Recent::new(MAX_BUCKETS),
            standing_rates: Recent::new(MAX_BUCKETS),
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
        spend_token(&mut self.rates, wish.buyer, OFFERS, now)?;
        self.supersede(&wish)?;
        self.check_room(&wish.buyer, 0)?;
        let newcomer = self.is_newcomer(&wish.buyer, now);
        if newcomer && !self.newcomers.may_hold(now) {
            return Err(NoBidReason::STRANGER_POOL_FULL);
        }
        if newcomer {
            self.newcomers.holds(wish.until);
        }
        let HoldRequest { offer, buyer, issued, until } = wish;
        self.holds.insert(offer, Hold { buyer, issued, until, bid: None, newcomer });
        Ok(())
    }

    /// Whether an offer of `buyer` gets no answer at all: it is a newcomer, and finds no place for what those before it did with
    /// theirs, or none while many are refused already.
    pub fn turns_away(&mut self, buyer: &NodeId, now: UnixMillis) -> bool {
        self.expire(now);
        if !self.is_newcomer(buyer, now) {
            return false;
        }
        let has_room = self.check_room(buyer, self.held_for(buyer)).is_ok();
        !self.newcomers.may_hold(now) || (!has_room && !self.newcomers.may_be_refused(now))
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
        if self.holds.remove(offer).is_some_and(|hold| hold.newcomer) {
            self.newcomers.used();
        }
        self.claimed.insert(*offer, ());
        self.running.insert(job, Running { buyer: *buyer, standing: false });
        Ok(())
    }

    /// Takes a slot at once for a job at the standing price, or tells why not.
    pub fn claim_standing(&mut self, wish: &StandingWish, now: UnixMillis) -> Result<(), ClaimError> {
        self.expire(now);
        if self.standing.contains(&wish.offer) {
            return Err(ClaimError::AlreadyUsed);
        }
        if self.is_under_way(&wish.job) {
            return Err(ClaimError::JobRunning);
        }
        self.take_standing(wish, now).map_err(ClaimError::Unwilling)
    }

    fn take_standing(&mut self, wish: &StandingWish, now: UnixMillis) -> Result<(), NoBidReason> {
        let rate = if self.is_known(&wish.buyer) { STANDING } else { OFFERS };
        spend_token(&mut self.standing_rates, wish.buyer, rate, now)?;
        if self.standing.is_full() {
            return Err(NoBidReason::RATE_LIMITED);
        }
        self.check_room(&wish.buyer, 0)?;
        self.standing.insert(wish.offer, wish.until);
        self.running.insert(wish.job, Running { buyer: wish.buyer, standing: true });
        Ok(())
    }

    /// Frees the slot of `job`, whose answer is over; its receipt is still to be settled. Whether the slot is free now: it stays
    /// taken while [`MAX_SETTLING`] others settle.
    pub fn settle(&mut self, job: &JobId) -> bool {
        if self.settling.len() >= MAX_SETTLING {
            return false;
        }
        let Some(running) = self.running.remove(job) else { return false };
        self.settling.insert(*job, running.buyer);
        true
    }

    /// Forgets `job`, frees its slot if it still has it, and returns its buyer.
    pub fn finish(&mut self, job: &JobId) -> Option<NodeId> {
        self.settling.remove(job).or_else(|| self.running.remove(job).map(|running| running.buyer))
    }

    /// Gives up the hold of `offer`, whose auction another has won; whether there was one. It says nothing for or against
    /// newcomers: anybody can name a winner.
    pub fn release(&mut self, offer: &Hash) -> bool {
        self.holds.remove(offer).is_some()
    }

    /// The hold of `offer` is kept in case its winner fails. If it lapses then, its newcomer did not waste it, as far as
    /// `Newcomers::forgives`.
    pub fn runner_up(&mut self, offer: &Hash, now: UnixMillis) {
        if let Some(hold) = self.holds.get_mut(offer).filter(|hold| hold.newcomer) {
            hold.newcomer = !self.newcomers.forgives(now);
        }
    }

    /// Drops the holds that are over, and forgets accepts that can't be presented any more.
    pub fn expire(&mut self, now: UnixMillis) {
        self.standing.expire(now);
        for (_, hold) in self.holds.extract_if(.., |_, hold| hold.until < now) {
            self.lapsed += 1;
            if hold.newcomer {
                self.newcomers.wasted(hold.until);
            }
        }
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

    /// Jobs whose answer is over and whose receipt is not settled yet. They take no slot.
    pub fn settling(&self) -> usize {
        self.settling.len()
    }

    /// Slots held for bids, holds that lapsed since the last [`Admission::expire`] included.
    pub fn held(&self) -> usize {
        self.holds.len()
    }

    /// Slots that are taken, besides the hold of `buyer`, whose place its next offer takes.
    pub fn taken_besides(&self, buyer: &NodeId) -> usize {
        self.running() + self.held() - self.held_for(buyer)
    }

    fn held_for(&self, buyer: &NodeId) -> usize {
        self.holds.values().filter(|hold| hold.buyer == *buyer).count()
    }

    /// Holds that lapsed unused so far.
    pub fn lapsed(&self) -> u64 {
        self.lapsed
    }

    /// Slots held for strangers, or taken by them at the standing price.
    pub fn taken_by_strangers(&self) -> usize {
        let held = self.holds.values().filter(|hold| !self.is_known(&hold.buyer));
        let standing = self.running.values().filter(|job| job.standing && !self.is_known(&job.buyer));
        held.count() + standing.count()
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
        self.holds.remove(&offer);
        Ok(())
    }

    fn is_newcomer(&mut self, buyer: &NodeId, now: UnixMillis) -> bool {
        !self.is_known(buyer) && self.newcomers.greet(*buyer, now)
    }

    /// Whether there is a slot for `buyer`, once it has given up so many of its holds.
    fn check_room(&self, buyer: &NodeId, given_up: usize) -> Result<(), NoBidReason> {
        if self.running() + self.held() >= self.slots + given_up {
            return Err(NoBidReason::NO_SLOT);
        }
        if !self.is_known(buyer) && self.taken_by_strangers() >= self.strangers_share() + given_up {
            return Err(NoBidReason::STRANGER_POOL_FULL);
        }
        Ok(())
    }

    /// Half of what nobody else has.
    fn strangers_share(&self) -> usize {
        let others = self.running() + self.held() - self.taken_by_strangers();
        let free = self.slots.saturating_sub(others);
        if self.slots == 1 { free } else { free / 2 }
    }

    fn is_under_way(&self, job: &JobId) -> bool {
        self.running.contains_key(job) || self.settling.contains_key(job)
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
        if self.is_under_way(job) {
            return Err(ClaimError::JobRunning);
        }
        Ok(())
    }
}

fn spend_token(buckets: &mut Recent<NodeId, Bucket>, buyer: NodeId, rate: Rate, now: UnixMillis) -> Result<(), NoBidReason> {
    let mut bucket = buckets.remove(&buyer).unwrap_or_else(|| Bucket::full(rate, now));
    let spent = bucket.spend(rate, now);
    buckets.insert(buyer, bucket);
    if spent { Ok(()) } else { Err(NoBidReason::RATE_LIMITED) }
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
    fn a_flood_of_new_keys_keeps_nobody_out_who_comes_back() {
        let mut admission = Admission::new(2);
        assert_eq!(hold(&mut admission, 0, 1, 0), Ok(()));
        let mut got = Vec::new();
        for turn in 0..600 {
            let ms = 10_000 + turn * 100;
            got.extend(hold(&mut admission, 10 + (turn % 100) as u8, 1_000 + turn as u16, ms).is_ok().then_some(ms));
        }
        assert!((5..=15).contains(&got.len()), "newcomers held at {got:?}");
        let ms = 70_500;
        assert!(admission.turns_away(&node(2), at(ms)) && !admission.turns_away(&node(1), at(ms)));
        assert_eq!(hold(&mut admission, 5, 1, ms), Ok(()), "one who was here before");
        admission.mark_known(node(9));
        assert!(!admission.turns_away(&node(9), at(ms)), "one who is known");
    }

    /// How often in a minute ever new keys get one of two slots, when `after` is done with each hold.
    fn held_in_a_minute(after: impl Fn(&mut Admission, &Hash, UnixMillis)) -> usize {
        let mut admission = Admission::new(2);
        let turns = (0..600).filter(|turn| {
            let (n, ms) = ((turn % 100) as u8, turn * 100);
            let held = hold(&mut admission, n, 1_000 + *turn as u16, ms).is_ok();
            if held {
                after(&mut admission, &offer(n), at(ms));
            }
            held
        });
        turns.count()
    }

    #[test]
    fn a_flood_that_names_winners_in_its_accepts_fares_no_better() {
        let silent = held_in_a_minute(|_, _, _| {});
        let kept = held_in_a_minute(|admission, offer, now| admission.runner_up(offer, now));
        assert!(silent <= 15 && kept <= silent + 10, "{silent} in silence, {kept} as a runner-up");
        let mut admission = Admission::new(2);
        for n in 0..20 {
            let ms = u64::from(n) * 20_000;
            // One lapses, the next is released: the count of those in a row goes on.
            assert_eq!(hold(&mut admission, n, 100 + u16::from(n), ms), Ok(()));
            if n % 2 == 0 {
                admission.release(&offer(n));
            }
        }
        admission.expire(at(390_000));
        assert!(admission.turns_away(&node(1), at(390_000)), "ten were wasted in a row");
    }

    #[test]
    fn a_runner_up_of_newcomers_stays_open_for_them() {
        let mut admission = Admission::new(2);
        for n in 0..20 {
            let ms = u64::from(n) * 20_000;
            assert_eq!(hold(&mut admission, n, 100 + u16::from(n), ms), Ok(()));
            admission.runner_up(&offer(n), at(ms));
        }
        assert!(!admission.turns_away(&node(1), at(381_502)));
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

    fn stand(admission: &mut Admission, n: u8, buyer: u16, ms: u64) -> Result<(), ClaimError> {
        let wish = StandingWish { offer: offer(n), buyer: node(buyer), job: JobId([n; 16]), until: at(ms + 20_000) };
        admission.claim_standing(&wish, at(ms))
    }

    const FULL: Result<(), ClaimError> = Err(ClaimError::Unwilling(NoBidReason::NO_SLOT));
    const POOL_FULL: Result<(), ClaimError> = Err(ClaimError::Unwilling(NoBidReason::STRANGER_POOL_FULL));

    #[test]
    fn a_known_buyer_takes_every_free_slot_and_no_held_one() {
        let mut admission = Admission::new(3);
        admission.mark_known(node(BUYER));
        assert_eq!(hold(&mut admission, 9, 2, 0), Ok(()));
        assert_eq!([1, 2, 3].map(|n| stand(&mut admission, n, BUYER, 0)), [Ok(()), Ok(()), FULL]);
        assert_eq!((admission.running(), admission.held()), (2, 1));
        assert_eq!(admission.claim(&offer(9), &bid(9), &node(2), JobId([9; 16]), at(0)), Ok(()));
        assert_eq!(admission.finish(&JobId([1; 16])), Some(node(BUYER)));
        assert_eq!(stand(&mut admission, 4, BUYER, 0), Ok(()));
    }

    #[test]
    fn a_job_that_settles_takes_no_slot_and_keeps_its_id() {
        let mut admission = Admission::new(1);
        let job = JobId([1; 16]);
        assert_eq!([1, 2].map(|n| stand(&mut admission, n, BUYER, 0)), [Ok(()), FULL]);
        assert!(admission.settle(&job) && !admission.settle(&job));
        assert_eq!((admission.running(), admission.settling()), (0, 1));
        let again = StandingWish { offer: offer(3), buyer: node(BUYER), job, until: at(9) };
        assert_eq!(admission.claim_standing(&again, at(0)), Err(ClaimError::JobRunning));
        assert_eq!(stand(&mut admission, 2, BUYER, 0), Ok(()));
        assert_eq!([admission.finish(&job), admission.finish(&job)], [Some(node(BUYER)), None]);
        assert_eq!((admission.running(), admission.settling()), (1, 0));
    }

    #[test]
    fn beyond_its_bound_a_job_settles_in_its_slot() {
        let job = |n: usize| JobId((n as u128).to_be_bytes());
        let mut admission = Admission::new(1);
        for n in 0..=MAX_SETTLING {
            let wish = HoldRequest { offer: offer(1), buyer: node(BUYER), issued: at(0), until: at(1) };
            admission.rates = Recent::new(MAX_BUCKETS);
            assert_eq!(admission.hold(wish, at(0)), Ok(()));
            admission.bid_signed(&offer(1), bid(1));
            assert_eq!(admission.claim(&offer(1), &bid(1), &node(BUYER), job(n), at(0)), Ok(()));
            assert_eq!(admission.settle(&job(n)), n < MAX_SETTLING);
        }
        assert_eq!((admission.running(), admission.settling()), (1, MAX_SETTLING));
        admission.finish(&job(MAX_SETTLING));
        assert_eq!(admission.running(), 0);
    }

    #[test]
    fn strangers_share_one_pool_however_they_come() {
        let mut admission = Admission::new(4);
        assert_eq!([1, 2, 3].map(|n| stand(&mut admission, n, n.into(), 0)), [Ok(()), Ok(()), POOL_FULL]);
        assert_eq!(hold(&mut admission, 4, 4, 0), Err(NoBidReason::STRANGER_POOL_FULL));
        admission.mark_known(node(9));
        assert_eq!([5, 6, 7].map(|n| stand(&mut admission, n, 9, 0)), [Ok(()), Ok(()), FULL]);
        admission.finish(&JobId([1; 16]));
        assert_eq!(stand(&mut admission, 8, 3, 0), POOL_FULL, "of two slots that nobody else has, one is taken");
        let mut single = Admission::new(1);
        assert_eq!([1, 2].map(|n| stand(&mut single, n, 1, 0)), [Ok(()), FULL]);
    }

    #[test]
    fn a_standing_accept_is_good_once_and_for_as_long_as_it_lives() {
        let mut admission = Admission::new(4);
        admission.mark_known(node(BUYER));
        assert_eq!(stand(&mut admission, 1, BUYER, 0), Ok(()));
        assert_eq!(stand(&mut admission, 1, BUYER, 0), Err(ClaimError::AlreadyUsed));
        admission.finish(&JobId([1; 16]));
        assert_eq!(stand(&mut admission, 1, BUYER, 20_000), Err(ClaimError::AlreadyUsed));
        let wish = StandingWish { offer: offer(2), buyer: node(BUYER), job: JobId([3; 16]), until: at(9) };
        assert_eq!(admission.claim_standing(&wish, at(0)), Ok(()));
        assert_eq!(stand(&mut admission, 3, BUYER, 0), Err(ClaimError::JobRunning));
    }

    #[test]
    fn standing_jobs_have_a_rate_of_their_own() {
        let taken = |known: bool| {
            let mut admission = Admission::new(1);
            if known {
                admission.mark_known(node(BUYER));
            }
            let mut stand = |n: u64| {
                let bytes = n.to_be_bytes().repeat(4).try_into().expect("32 bytes");
                let wish = StandingWish { offer: Hash(bytes), buyer: node(BUYER), job: JOB, until: at(0) };
                let taken = admission.claim_standing(&wish, at(1));
                admission.finish(&JOB);
                taken.is_ok()
            };
            (0..3_000).take_while(|n| stand(*n)).count()
        };
        assert_eq!((taken(false), taken(true)), (20, 2_048));
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
