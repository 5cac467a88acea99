//! How long a worker waits for a buyer that is behind with its payments, pure. Times are since the job began.

use super::deadline;
use infernet_wire::money::{MicroUsd, Price};
use std::time::Duration;

/// Whether a worker goes on: what was delivered costs no more than what was paid and one piece of `chunk` tokens.
pub fn goes_on(price: &Price, chunk: u32, accrued: MicroUsd, paid: MicroUsd) -> bool {
    // A free piece would make every debt one too many.
    let piece = price.cost(0, chunk).unwrap_or(MicroUsd(u64::MAX)).max(MicroUsd(1));
    accrued.0 <= paid.0.saturating_add(piece.0)
}

/// Whether the engine waits for a payment, and at what time that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// All is paid that must be.
    No,
    /// The buyer is behind, and there.
    Yes(Duration),
    /// It is behind, and can't pay now: it is away, or our own disk is slow.
    Paused(Duration),
}

/// How long a buyer is behind, and when it last said that it is there. Only a payment ends what it is behind: who goes away and comes back
/// goes on where it was.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrears {
    since: Option<Duration>,
    /// What it was behind before it went away.
    before: Duration,
    heard: Duration,
}

impl Arrears {
    /// Whether the engine waits.
    pub fn note(&mut self, waits: Waits) {
        match waits {
            Waits::No => *self = Arrears { heard: self.heard, ..Arrears::default() },
            Waits::Yes(now) => self.since = self.since.or(Some(now)),
            Waits::Paused(now) => self.before += self.since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since)),
        }
    }

    /// A voucher came, a new one or the last one again; or the buyer is back after a lost stream.
    pub fn hear(&mut self, now: Duration) {
        self.heard = now;
    }

    /// Whether it has been waited long enough: [`deadline::WRITE`] in all, and for a buyer that can't come back in another stream
    /// [`deadline::VOUCHER`] after its last sign. One that can may just not be heard: where a way breaks without a word, neither side
    /// knows for a while.
    pub fn is_over(&self, now: Duration, can_come_back: bool) -> bool {
        let Some(since) = self.since else { return false };
        let is_silent = now >= since.max(self.heard) + deadline::VOUCHER;
        (is_silent && !can_come_back) || now + self.before >= since + deadline::WRITE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_one_piece_behind_at_most() {
        let price = Price { input: MicroUsd(100_000), output: MicroUsd(400_000) };
        let piece = price.cost(0, 64).expect("a cost").0;
        let check = |accrued: u64, paid, expected| {
            assert_eq!(goes_on(&price, 64, MicroUsd(accrued), MicroUsd(paid)), expected, "{accrued} of {paid}");
        };
        check(0, 0, true);
        check(piece, 0, true);
        check(piece + 1, 0, false);
        check(piece + 1, 1, true);
        check(u64::MAX, u64::MAX, true);
        assert!(goes_on(&Price::default(), 64, MicroUsd(0), MicroUsd(0)), "what costs nothing is never unpaid");
    }

    #[test]
    fn two_seconds_of_silence_or_thirty_of_words() {
        let secs = Duration::from_secs;
        let mut arrears = Arrears::default();
        let is_over = |arrears: &Arrears, at| arrears.is_over(secs(at), false);
        assert!(!is_over(&arrears, 99), "it is not behind");
        arrears.note(Waits::Yes(secs(10)));
        arrears.note(Waits::Yes(secs(11)));
        assert!(!is_over(&arrears, 11) && is_over(&arrears, 12));
        arrears.hear(secs(11));
        assert!(!is_over(&arrears, 12) && is_over(&arrears, 13));
        arrears.hear(secs(39));
        assert!(is_over(&arrears, 40), "however often it says that it is there");
        arrears.note(Waits::No);
        assert!(!is_over(&arrears, 99), "it has paid");
    }

    #[test]
    fn who_can_come_back_has_the_time_to_find_out_that_the_way_is_broken() {
        let secs = Duration::from_secs;
        let mut arrears = Arrears::default();
        arrears.note(Waits::Yes(secs(10)));
        assert!(!arrears.is_over(secs(39), true) && arrears.is_over(secs(40), true));
        let noticed = deadline::SILENCE_IF_RESUMABLE + deadline::CONNECT_MESH;
        assert!(noticed < deadline::WRITE, "that is time enough to notice and to dial");
    }

    #[test]
    fn who_goes_away_and_comes_back_is_as_far_behind_as_before() {
        let secs = Duration::from_secs;
        let mut arrears = Arrears::default();
        arrears.note(Waits::Yes(secs(10)));
        arrears.note(Waits::Paused(secs(29)));
        arrears.note(Waits::Paused(secs(40)));
        assert!(!arrears.is_over(secs(50), true), "it is away");
        arrears.note(Waits::Yes(secs(50)));
        assert!(!arrears.is_over(secs(60), true) && arrears.is_over(secs(61), true), "19 seconds before, 11 now");
        arrears.note(Waits::No);
        arrears.note(Waits::Yes(secs(61)));
        assert!(!arrears.is_over(secs(90), true) && arrears.is_over(secs(91), true), "a payment begins it anew");
    }
}
