//! Buyers that were not here before, and what they do with the slots that are held for them.
//!
//! A key costs nothing, so anybody can ask for holds under ever new ones and let them lapse. That one key does so says nothing
//! of the next; that newcomers do so one after the other does. So after some wasted holds the next newcomer finds a place only
//! some time later, and later still after each further one. One newcomer that uses its hold ends that. One that tells who won
//! instead has wasted nothing, and proved nothing: anybody can publish an accept. Who comes back after some seconds is no
//! newcomer any more: such a buyer has a key to lose, and one hold at a time.
//!
//! A runner-up's hold is kept until it lapses, which is nobody's fault; but an accept may name us one without an auction behind
//! it. So one such hold in [`LONGEST_MS`] is forgiven, which is as many as a flood gets in any case.

use super::{
    rate::{Bucket, Rate},
    recent::Recent,
};
use infernet_wire::{id::NodeId, time::UnixMillis};

/// A buyer is a newcomer for so long after its first offer.
const NEW_MS: u64 = 10_000;
/// Buyers whose first offer is remembered: with all neighbours of a node bringing as many newcomers as `net` lets through,
/// about those of half a minute.
const MAX_MET: usize = 8_192;
/// Wasted holds in a row that may be bad luck: accepts get lost.
const FORGIVEN: u32 = 4;
/// What the first one after these costs the next newcomer; each further one doubles it.
const FIRST_MS: u64 = 500;
/// The longest wait.
const LONGEST_MS: u64 = 10_000;

/// Refusals to newcomers. Each is signed, and crosses the network on its way to somebody who may not even be there.
const REFUSALS: Rate = Rate { per_second: 5, burst: 20 };

/// Who came, and how the last of them behaved.
#[derive(Debug, Clone)]
pub(super) struct Newcomers {
    met: Recent<NodeId, UnixMillis>,
    in_a_row: u32,
    shut_until: UnixMillis,
    /// When the next runner-up's hold is forgiven.
    forgives_from: UnixMillis,
    refusals: Bucket,
}

impl Default for Newcomers {
    fn default() -> Self {
        let (never, refusals) = (UnixMillis(0), Bucket::full(REFUSALS, UnixMillis(0)));
        Newcomers { met: Recent::new(MAX_MET), in_a_row: 0, shut_until: never, forgives_from: never, refusals }
    }
}

impl Newcomers {
    /// An offer of `buyer`; whether it is a newcomer.
    pub(super) fn greet(&mut self, buyer: NodeId, now: UnixMillis) -> bool {
        let first = self.met.remove(&buyer).unwrap_or(now);
        self.met.insert(buyer, first);
        now.since(first) < NEW_MS
    }

    /// Whether a newcomer may have a hold now.
    pub(super) fn may_hold(&self, now: UnixMillis) -> bool {
        now >= self.shut_until
    }

    /// Whether one more newcomer may be told that there is no place.
    pub(super) fn may_be_refused(&mut self, now: UnixMillis) -> bool {
        self.refusals.spend(REFUSALS, now)
    }

    /// A newcomer has a hold. While newcomers waste theirs there is one at a time.
    pub(super) fn holds(&mut self, until: UnixMillis) {
        if self.in_a_row >= FORGIVEN {
            self.shut_until = self.shut_until.max(until.after(1));
        }
    }

    /// Whether a runner-up's hold that lapses now is nobody's waste.
    pub(super) fn forgives(&mut self, now: UnixMillis) -> bool {
        let forgives = now >= self.forgives_from;
        if forgives {
            self.forgives_from = now.after(LONGEST_MS);
        }
        forgives
    }

    /// A newcomer used its hold.
    pub(super) fn used(&mut self) {
        (self.in_a_row, self.shut_until) = (0, UnixMillis(0));
    }

    /// A newcomer let its hold lapse.
    pub(super) fn wasted(&mut self, now: UnixMillis) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let Some(doublings) = self.in_a_row.checked_sub(FORGIVEN + 1) else { return };
        let wait = FIRST_MS.checked_shl(doublings).map_or(LONGEST_MS, |ms| ms.min(LONGEST_MS));
        self.shut_until = self.shut_until.max(now.after(wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{at, node};

    #[test]
    fn who_comes_back_is_no_newcomer() {
        let mut newcomers = Newcomers::default();
        assert!(newcomers.greet(node(1), at(0)));
        assert!(newcomers.greet(node(1), at(NEW_MS - 1)));
        assert!(!newcomers.greet(node(1), at(NEW_MS)));
        assert!(newcomers.greet(node(2), at(NEW_MS)));
    }

    #[test]
    fn few_newcomers_are_refused_aloud() {
        let mut newcomers = Newcomers::default();
        let told = |newcomers: &mut Newcomers, ms| (0..100).filter(|_| newcomers.may_be_refused(at(ms))).count();
        assert_eq!([0, 0, 200, 1_000].map(|ms| told(&mut newcomers, ms)), [20, 0, 1, 4]);
    }

    #[test]
    fn wasted_holds_keep_the_next_newcomer_out_for_longer_and_longer() {
        let mut newcomers = Newcomers::default();
        let waits: Vec<u64> = (0..12)
            .map(|_| {
                newcomers.wasted(at(0));
                (0..=LONGEST_MS).find(|ms| newcomers.may_hold(at(*ms))).unwrap_or(u64::MAX)
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]);
        for _ in 0..100 {
            newcomers.wasted(at(0));
        }
        assert!(!newcomers.may_hold(at(LONGEST_MS - 1)) && newcomers.may_hold(at(LONGEST_MS)));
        newcomers.used();
        assert!(newcomers.may_hold(at(0)));
        newcomers.wasted(at(0));
        assert!(newcomers.may_hold(at(0)), "the count begins anew");
    }
}
