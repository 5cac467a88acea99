//! How long waiting for more bids is worth it. The one place that decides when an auction closes.
//!
//! Each worker's ad is a standing price, so a buyer knows what it may gain by waiting for whom. In order:
//!
//! 1. At the window's end it closes, whatever is missing.
//! 2. **Without a bid** it stays open for all who may still answer. It closes at once when all of them have refused. If no live
//!    ad names the model, and we have listened long enough to have heard every worker's ad, it closes after
//!    [`UNSERVED_GRACE_MS`].
//! 3. When all who may answer have answered, it closes.
//! 4. A **believed** worker whose ad beats the best bid by more than [`MARGIN_PERCENT`] is waited for, for its usual time.
//! 5. When the best bid is within that margin of the best that any believed worker advertises, it closes: the target is met.
//! 6. Else there is one short **grace** after the first bid for strangers with tempting ads, and for anybody if nobody is
//!    expected: as long as the first bid took, within [`GRACE_MS`]. One for all of them together, so a swarm of ads that never
//!    answer delays an auction by at most this, and only while nobody is believed.
//!
//! While there are fewer than [`ENOUGH_BIDS`], that grace is given to everybody who may answer, tempting or not: a winner without
//! runners-up costs a second auction when it fails, and a bid may be lower than its worker's ad.
//!
//! Silent workers are never waited for. Whoever comes after the close is still recorded, and is waited for next time.

use super::{rank::Weight, record::Regard};
use infernet_wire::{id::NodeId, limits::MAX_RUNNERS_UP, money::Price, offer::SelectionRule, time::UnixMillis};
use std::{collections::BTreeMap, ops::RangeInclusive};

/// A gain up to this is not worth a wait.
pub const MARGIN_PERCENT: u128 = 2;
/// Bounds of the grace in milliseconds: below, a scheduler's hiccup decides; above, people notice.
pub const GRACE_MS: RangeInclusive<u64> = 5..=50;

/// How long a model that nobody advertises is waited for: a worker that began to serve it a moment ago is heard by its bid as
/// soon as by its ad, within a round trip of the slowest links.
pub const UNSERVED_GRACE_MS: u64 = 150;

/// A winner and the runners-up that an accept can name.
pub const ENOUGH_BIDS: usize = 1 + MAX_RUNNERS_UP;

/// What an auction does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing, unless an answer comes, until then.
    Wait {
        /// When to look again.
        until: UnixMillis,
    },
    /// It is over.
    Close(CloseReason),
}

/// Why an auction closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseReason {
    /// All who usually answer did.
    AllAnswered,
    /// A bid is as good as the best that is advertised by those who usually answer.
    TargetMet,
    /// Those still missing promise too little, or are too late or too little known.
    NotWorthWaiting,
    /// No worker advertises the model.
    Unserved,
    /// The window ended.
    WindowEnded,
}

impl CloseReason {
    /// A short stable name, for counters and for people.
    pub fn label(self) -> &'static str {
        match self {
            CloseReason::AllAnswered => "all_answered",
            CloseReason::TargetMet => "target_met",
            CloseReason::NotWorthWaiting => "not_worth_waiting",
            CloseReason::Unserved => "unserved",
            CloseReason::WindowEnded => "window_ended",
        }
    }
}

/// Whether a candidate has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Missing,
    Bid,
    NoBid,
}

/// A candidate as the auction sees it.
#[derive(Debug, Clone)]
pub(crate) struct Prospect {
    /// What its ad is worth.
    pub(crate) standing: Weight,
    /// The ad's price, which its bid should not exceed.
    pub(crate) price: Price,
    /// The model in its ad that suits.
    pub(crate) model: String,
    pub(crate) regard: Regard,
    pub(crate) reply: Reply,
}

impl Prospect {
    fn may_answer(&self) -> bool {
        self.reply == Reply::Missing && self.regard != Regard::Silent
    }

    /// When it will have had its usual time; `None` if it is not known to have one.
    pub(crate) fn expected_by(&self, opened: UnixMillis) -> Option<UnixMillis> {
        match self.regard {
            Regard::Believed { usual_ms } => Some(opened.after(usual_ms)),
            _ => None,
        }
    }
}

/// An auction at one moment.
pub(crate) struct Situation<'a> {
    pub(crate) rule: SelectionRule,
    pub(crate) opened: UnixMillis,
    pub(crate) window_end: UnixMillis,
    pub(crate) first_bid: Option<UnixMillis>,
    pub(crate) best: Option<Weight>,
    pub(crate) bids: usize,
    /// No live ad names the model, and we would know.
    pub(crate) unserved: bool,
    pub(crate) prospects: &'a BTreeMap<NodeId, Prospect>,
}

impl Situation<'_> {
    pub(crate) fn step(&self, now: UnixMillis) -> Step {
        if now >= self.window_end {
            return Step::Close(CloseReason::WindowEnded);
        }
        match (self.best, self.first_bid) {
            (Some(best), Some(first_bid)) => self.step_with_bids(best, first_bid, now),
            _ => self.step_without_bids(now),
        }
    }

    fn step_without_bids(&self, now: UnixMillis) -> Step {
        let refused = self.prospects.values().any(|prospect| prospect.reply == Reply::NoBid);
        if refused && self.all_answered() {
            return Step::Close(CloseReason::AllAnswered);
        }
        let grace_end = self.opened.after(UNSERVED_GRACE_MS);
        match self.unserved {
            true if now >= grace_end => Step::Close(CloseReason::Unserved),
            true => self.wait(grace_end),
            false => self.wait(self.window_end),
        }
    }

    fn step_with_bids(&self, best: Weight, first_bid: UnixMillis, now: UnixMillis) -> Step {
        if self.all_answered() {
            return Step::Close(CloseReason::AllAnswered);
        }
        if let Some(until) = self.believed_until(best, now) {
            return self.wait(until);
        }
        if let Some(until) = self.runners_up_until(first_bid, now) {
            return self.wait(until);
        }
        if self.target_met(best) {
            return Step::Close(CloseReason::TargetMet);
        }
        match self.grace_until(best, first_bid, now) {
            Some(until) => self.wait(until),
            None => Step::Close(CloseReason::NotWorthWaiting),
        }
    }

    fn wait(&self, until: UnixMillis) -> Step {
        Step::Wait { until: until.min(self.window_end) }
    }

    /// Somebody was expected to answer, and nobody is missing who may still.
    fn all_answered(&self) -> bool {
        !self.nobody_expected() && !self.prospects.values().any(Prospect::may_answer)
    }

    /// No candidate is known, or all have been silent, as after an outage of our own network.
    fn nobody_expected(&self) -> bool {
        self.prospects.values().all(|prospect| prospect.regard == Regard::Silent)
    }

    /// When the last believed worker that is worth waiting for has had its usual time.
    fn believed_until(&self, best: Weight, now: UnixMillis) -> Option<UnixMillis> {
        let missing = self.prospects.values().filter(|prospect| prospect.may_answer());
        let tempting = missing.filter_map(|prospect| {
            let by = prospect.expected_by(self.opened)?;
            (by > now && self.is_tempting(prospect, best, by.since(now))).then_some(by)
        });
        tempting.max()
    }

    /// Until when there is time for runners-up; `None` if there are enough, or nobody is missing, or the time is over.
    fn runners_up_until(&self, first_bid: UnixMillis, now: UnixMillis) -> Option<UnixMillis> {
        let until = self.grace_end(first_bid);
        let wanted = self.bids < ENOUGH_BIDS && self.prospects.values().any(Prospect::may_answer);
        (wanted && now < until).then_some(until)
    }

    /// As long again as the first bid took, within bounds.
    fn grace_end(&self, first_bid: UnixMillis) -> UnixMillis {
        let took = first_bid.since(self.opened);
        first_bid.after(took.clamp(*GRACE_MS.start(), *GRACE_MS.end()))
    }

    fn target_met(&self, best: Weight) -> bool {
        let promises = |prospect: &&Prospect| prospect.reply != Reply::NoBid && prospect.expected_by(self.opened).is_some();
        let mut targets = self.prospects.values().filter(promises).peekable();
        targets.peek().is_some() && !targets.any(|prospect| self.is_tempting(prospect, best, 0))
    }

    fn grace_until(&self, best: Weight, first_bid: UnixMillis, now: UnixMillis) -> Option<UnixMillis> {
        let end = self.grace_end(first_bid);
        let mut strangers =
            self.prospects.values().filter(|prospect| prospect.may_answer() && prospect.regard == Regard::Stranger);
        let worth = self.nobody_expected() || strangers.any(|stranger| self.is_tempting(stranger, best, end.since(now)));
        (now < end && worth).then_some(end)
    }

    fn is_tempting(&self, prospect: &Prospect, best: Weight, wait_ms: u64) -> bool {
        better_by_margin(self.rule, prospect.standing, best, wait_ms)
    }
}

/// Whether `standing`, the promise of an ad, is better than `best` by more than the margin: in money, or in all that counts after
/// the wait. Money is compared apart because in a small job time outweighs it, and a wait within the window is cheap by the
/// buyer's own choice of that window. Who asked for the fastest has no use for money saved.
pub(crate) fn better_by_margin(rule: SelectionRule, standing: Weight, best: Weight, wait_ms: u64) -> bool {
    let saves_money = rule != SelectionRule::FASTEST && beats_by_margin(standing.likely_cost(), best.likely_cost());
    let saves_in_all = || beats_by_margin(standing.delayed(wait_ms).order(rule).0, best.order(rule).0);
    standing.order(rule) < best.order(rule) && (saves_money || saves_in_all())
}

fn beats_by_margin(challenger: u128, best: u128) -> bool {
    challenger.saturating_mul(100 + MARGIN_PERCENT) < best.saturating_mul(100)
}
