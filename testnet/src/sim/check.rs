//! What must hold whatever happens, each by its name.
//!
//! Some are looked at with each step, where the step happens; the others when all is over, by [`super::audit`].

use serde::Serialize;
use std::fmt;

/// Violations kept of one run: one is enough to fail, and a broken world breaks everything.
const MAX_KEPT: usize = 20;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// A completed job has one receipt that both have signed, or that its worker has signed and its buyer did not live to; and
    /// no job has two that both have signed as completed.
    OneReceiptPerJob,
    /// What buyers have signed to owe is what their workers have it in writing, and what observers add up; running sums are the
    /// sums of what is kept.
    BooksBalance,
    /// No job runs that has neither a live hold of its worker's present life nor a live ad of it, used for the first time.
    NoJobWithoutHold,
    /// A worker never runs or holds more than its slots.
    SlotsNotOversold,
    /// What one side has shown the other is on its disk after a power cut.
    ReceiptsSurvive,
    /// A receipt charges what was delivered, within budget and ceiling.
    ChargedAsDelivered,
    /// What a buyer has signed to owe on one day is within its cap.
    SpendWithinCaps,
    /// The answer that a caller saw is what the engine said, in order, once.
    AnswersAreWhole,
    /// Every job ends, with an answer or an error.
    JobsEnd,
    /// When all jobs have ended, no stream, hold, slot, auction or turn is left.
    NothingHangs,
    /// A message that is heard again has no effect.
    ReplaysChangeNothing,
    /// Every structure stays within its bound.
    Bounded,
    /// No prompt and no answer is in gossip or on a disk.
    NothingLeaks,
    /// No worker is more than one piece ahead of what is paid; an honest buyer's payments are good, it promises no more than it means to,
    /// and it knows of every promise that a seller has in writing.
    PaymentsHold,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Invariant; 14] = [
        Invariant::OneReceiptPerJob,
        Invariant::BooksBalance,
        Invariant::NoJobWithoutHold,
        Invariant::SlotsNotOversold,
        Invariant::ReceiptsSurvive,
        Invariant::ChargedAsDelivered,
        Invariant::SpendWithinCaps,
        Invariant::AnswersAreWhole,
        Invariant::JobsEnd,
        Invariant::NothingHangs,
        Invariant::ReplaysChangeNothing,
        Invariant::Bounded,
        Invariant::NothingLeaks,
        Invariant::PaymentsHold,
    ];

    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Invariant::OneReceiptPerJob => "one_receipt_per_job",
            Invariant::BooksBalance => "books_balance",
            Invariant::NoJobWithoutHold => "no_job_without_hold",
            Invariant::SlotsNotOversold => "slots_not_oversold",
            Invariant::ReceiptsSurvive => "receipts_survive",
            Invariant::ChargedAsDelivered => "charged_as_delivered",
            Invariant::SpendWithinCaps => "spend_within_caps",
            Invariant::AnswersAreWhole => "answers_are_whole",
            Invariant::JobsEnd => "jobs_end",
            Invariant::NothingHangs => "nothing_hangs",
            Invariant::ReplaysChangeNothing => "replays_change_nothing",
            Invariant::Bounded => "bounded",
            Invariant::NothingLeaks => "nothing_leaks",
            Invariant::PaymentsHold => "payments_hold",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// An invariant that did not hold.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, in virtual milliseconds.
    pub ms: u64,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}.{:03} s: {}", self.invariant, self.ms / 1_000, self.ms % 1_000, self.what)
    }
}

/// The violations of a run.
#[derive(Debug, Default)]
pub struct Checks {
    looked: u64,
    violations: Vec<Violation>,
}

impl Checks {
    /// Looks at one thing that must hold.
    pub fn ensure(&mut self, holds: bool, invariant: Invariant, ms: u64, what: impl FnOnce() -> String) {
        self.looked += 1;
        if !holds && self.violations.len() < MAX_KEPT {
            self.violations.push(Violation { invariant, ms, what: what() });
        }
    }

    /// How often something was looked at.
    pub fn looked(&self) -> u64 {
        self.looked
    }

    /// What did not hold.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}
