//! Why an accept did not get its slot.

use infernet_wire::bid::NoBidReason;

/// Why an accept did not get its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ClaimError {
    /// No slot is held for that offer.
    #[error("no slot is held for this offer")]
    NoHold,
    /// The slot is held for another buyer.
    #[error("the slot is held for another buyer")]
    WrongBuyer,
    /// The accept names another bid than ours.
    #[error("the accept names another bid")]
    WrongBid,
    /// The hold is over.
    #[error("the hold has lapsed")]
    Lapsed,
    /// The hold, or the accept of our ad, was turned into a job before.
    #[error("the accept was used before")]
    AlreadyUsed,
    /// A job with that id is running.
    #[error("a job with this id is running")]
    JobRunning,
    /// The accept names another winner.
    #[error("the accept names another winner")]
    NotWinner,
    /// Model or price differ from the bid's, or the ad's.
    #[error("model or price differ from the bid")]
    TermsDiffer,
    /// The accept's time is over.
    #[error("the accept has expired")]
    Expired,
    /// The accept is older than this process, which can't know whether it was used.
    #[error("the accept was made before this worker started")]
    BeforeStart,
    /// The accept names an ad that is not ours, or no longer live.
    #[error("the accept names no live ad of this worker")]
    UnknownAd,
    /// The ad is right, but the worker can't take the job now, or not on these terms.
    #[error("the worker can't take the job at its standing price now: {0}")]
    Unwilling(NoBidReason),
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
            ClaimError::BeforeStart => "before_start",
            ClaimError::UnknownAd => "unknown_ad",
            ClaimError::Unwilling(reason) => reason.label(),
        }
    }

    /// Whether an auction may help: the accept was honest, only too late, or the worker has no room now.
    pub fn retryable(self) -> bool {
        use ClaimError::{BeforeStart, Expired, Lapsed, NoHold, UnknownAd};
        matches!(self, NoHold | Lapsed | Expired | BeforeStart | UnknownAd) || self.is_busy()
    }

    /// Whether the worker is the one that can't, not the accept that is not good.
    pub fn is_busy(self) -> bool {
        matches!(self, ClaimError::Unwilling(_))
    }
}
