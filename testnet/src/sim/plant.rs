//! Bugs of the simulated world, each of which one invariant must find: a check that can't fail proves nothing.
//!
//! They are in the drivers of the simulated nodes, never in the deciders.

use super::check::Invariant;
use serde::Serialize;
use std::{fmt, str::FromStr};

/// What a simulated node gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plant {
    /// A worker takes any accept for good whose hold it does not know, as if it had only forgotten it in a crash.
    ForgetsHolds,
    /// A worker runs jobs for which it has no slot.
    Oversells,
    /// A worker that loses its buyer forgets that the slot is free.
    LeaksSlots,
    /// A receipt is sent before it is on the disk.
    SendsBeforeKeeping,
    /// A ledger counts a receipt again when its countersignature comes.
    CountsTwice,
    /// A buyer that starts again does not read what it had authorised of its cap.
    ForgetsSpend,
    /// A worker charges one token more than it delivered, and its buyer does not look.
    ChargesTooMuch,
    /// A buyer repeats what it has shown when a stream was held up.
    RepeatsText,
    /// A buyer that comes back shows once more what it had shown last.
    ForgetsPlace,
    /// A worker waits for a lost buyer for good.
    WaitsForever,
    /// A buyer forgets to look at the time while a worker is silent.
    LosesTimers,
    /// A buyer opens a job once more with the next worker although it is answered.
    PaysTwice,
    /// A worker names the prompt in what it publishes.
    LeaksPrompts,
    /// A node keeps every ad that it hears.
    KeepsEverything,
    /// A worker bids again for an offer that it has seen.
    AnswersReplays,
    /// A buyer that starts again does not read what it had promised.
    ForgetsVouchers,
    /// A worker goes on, whatever is paid.
    WorksForNothing,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 17] = [
        Plant::ForgetsHolds,
        Plant::Oversells,
        Plant::LeaksSlots,
        Plant::SendsBeforeKeeping,
        Plant::CountsTwice,
        Plant::ForgetsSpend,
        Plant::ChargesTooMuch,
        Plant::RepeatsText,
        Plant::ForgetsPlace,
        Plant::WaitsForever,
        Plant::LosesTimers,
        Plant::PaysTwice,
        Plant::LeaksPrompts,
        Plant::KeepsEverything,
        Plant::AnswersReplays,
        Plant::ForgetsVouchers,
        Plant::WorksForNothing,
    ];

    /// The check that must find it.
    pub fn found_by(self) -> Invariant {
        match self {
            Plant::ForgetsHolds => Invariant::NoJobWithoutHold,
            Plant::Oversells => Invariant::SlotsNotOversold,
            Plant::LeaksSlots => Invariant::NothingHangs,
            Plant::SendsBeforeKeeping => Invariant::ReceiptsSurvive,
            Plant::CountsTwice => Invariant::BooksBalance,
            Plant::ForgetsSpend => Invariant::SpendWithinCaps,
            Plant::ChargesTooMuch => Invariant::ChargedAsDelivered,
            Plant::RepeatsText => Invariant::AnswersAreWhole,
            Plant::ForgetsPlace => Invariant::AnswersAreWhole,
            Plant::WaitsForever => Invariant::NothingHangs,
            Plant::LosesTimers => Invariant::JobsEnd,
            Plant::PaysTwice => Invariant::OneReceiptPerJob,
            Plant::LeaksPrompts => Invariant::NothingLeaks,
            Plant::KeepsEverything => Invariant::Bounded,
            Plant::AnswersReplays => Invariant::ReplaysChangeNothing,
            Plant::ForgetsVouchers => Invariant::PaymentsHold,
            Plant::WorksForNothing => Invariant::PaymentsHold,
        }
    }

    /// Its name on the command line.
    pub fn label(self) -> &'static str {
        match self {
            Plant::ForgetsHolds => "forgets-holds",
            Plant::Oversells => "oversells",
            Plant::LeaksSlots => "leaks-slots",
            Plant::SendsBeforeKeeping => "sends-before-keeping",
            Plant::CountsTwice => "counts-twice",
            Plant::ForgetsSpend => "forgets-spend",
            Plant::ChargesTooMuch => "charges-too-much",
            Plant::RepeatsText => "repeats-text",
            Plant::ForgetsPlace => "forgets-place",
            Plant::WaitsForever => "waits-forever",
            Plant::LosesTimers => "loses-timers",
            Plant::PaysTwice => "pays-twice",
            Plant::LeaksPrompts => "leaks-prompts",
            Plant::KeepsEverything => "keeps-everything",
            Plant::AnswersReplays => "answers-replays",
            Plant::ForgetsVouchers => "forgets-vouchers",
            Plant::WorksForNothing => "works-for-nothing",
        }
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = || Plant::ALL.map(Plant::label).join(", ");
        Plant::ALL.into_iter().find(|plant| plant.label() == text).ok_or_else(|| format!("a planted bug is one of {}", names()))
    }
}
