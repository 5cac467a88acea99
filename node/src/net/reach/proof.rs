//! Whether a relay that holds a place for us carries anything, and when that is tried. Pure; see [`super`].
//!
//! A reservation is a promise, which costs a relay nothing. What proves that it is kept is a circuit that comes through: somebody's, or
//! else our own, dialled from a second identity (`net/probe.rs`). Two tries in vain are a loss, and more: the relay *carried nothing*. It
//! is let go, asked again after [`FIRST_REST_MS`], then ever later, after all others, and told to nobody until a circuit has come.
//!
//! A relay that is full, or whose share for our own network is taken, refuses us as it would refuse most others: that counts, too.
//!
//! **What can't be found out**: our tries come from our own address, and a stranger's circuit may be the relay's own. One that lets these
//! through and no others looks fine.

use super::discovery;
use infernet_wire::time::UnixMillis;

/// Between two proofs: with a reservation of ten minutes, each is proved twice. Two handshakes each time, and a circuit for a moment.
const AGAIN_MS: u64 = 5 * 60_000;
/// After one in vain: a link that is down for a moment is up again, or its loss has ended the reservation, too.
const SOON_MS: u64 = 15_000;
/// The same where circuits have come before: what is only for a while, such as a relay that restarts, or whose share for our network is
/// taken, should not cost a place that is good.
const LATER_MS: u64 = 150_000;
/// Tries in vain, one after the other, after which the place is worth nothing.
const MAX_MISSED: u32 = 2;
/// The pause after a relay has carried nothing; it doubles each time. A relay that was full for a moment is worth another try.
const FIRST_REST_MS: u64 = 2 * 60_000;
/// The longest such pause: the mistake may be mended.
const LONGEST_REST_MS: u64 = 60 * 60_000;

/// Of one place at a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proof {
    due: UnixMillis,
    missed: u32,
    proved: bool,
}

impl Proof {
    /// Of a place that was got now: it is tried at once.
    pub(super) fn new(now: UnixMillis) -> Self {
        Proof { due: now, missed: 0, proved: false }
    }

    /// When it is to be tried.
    pub(super) fn due(&self) -> UnixMillis {
        self.due
    }

    /// Whether a circuit has come.
    pub(super) fn is_proved(&self) -> bool {
        self.proved
    }

    /// A circuit has come.
    pub(super) fn carried(&mut self, now: UnixMillis, chance: u64) {
        *self = Proof { due: now.after(discovery::spread(AGAIN_MS, chance)), missed: 0, proved: true };
    }

    /// It could not be tried now.
    pub(super) fn put_off(&mut self, now: UnixMillis) {
        self.due = now.after(SOON_MS);
    }

    /// None came. Whether that was once too often.
    pub(super) fn missed(&mut self, now: UnixMillis) -> bool {
        self.missed += 1;
        self.due = now.after(if self.proved { LATER_MS } else { SOON_MS });
        self.missed >= MAX_MISSED
    }
}

/// How long a relay is not asked that has carried nothing so often, at least once.
pub(super) fn rest_ms(barren: u32) -> u64 {
    let doubled = FIRST_REST_MS.checked_shl(barren.saturating_sub(1).min(16)).unwrap_or(LONGEST_REST_MS);
    doubled.min(LONGEST_REST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: UnixMillis = UnixMillis(1_000_000);

    #[test]
    fn a_place_is_tried_at_once_and_then_every_some_minutes() {
        let mut proof = Proof::new(T0);
        assert_eq!((proof.due(), proof.is_proved()), (T0, false));
        proof.carried(T0, 0);
        assert!(proof.is_proved() && proof.due() > T0.after(AGAIN_MS / 2) && proof.due() < T0.after(AGAIN_MS * 2));
    }

    #[test]
    fn two_tries_in_vain_are_a_loss_unless_something_came_between_them() {
        let mut proof = Proof::new(T0);
        assert!(!proof.missed(T0));
        assert_eq!(proof.due(), T0.after(SOON_MS));
        proof.carried(T0, 0);
        assert!(!proof.missed(T0));
        assert_eq!(proof.due(), T0.after(LATER_MS));
        assert!(proof.missed(T0));
    }

    #[test]
    fn rests_grow_to_a_bound() {
        let rests: Vec<u64> = [1, 2, 3, 9, u32::MAX].map(rest_ms).into();
        assert_eq!(rests, [FIRST_REST_MS, 2 * FIRST_REST_MS, 4 * FIRST_REST_MS, LONGEST_REST_MS, LONGEST_REST_MS]);
    }
}
