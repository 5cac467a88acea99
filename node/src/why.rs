//! Why a worker earns, or does not, and what to change: pure, from what the node has counted.
//!
//! [`Evidence`] in, [`WhyReport`] out. Each [`Finding`] says what was seen, in numbers, what that means, and the line of the
//! configuration or the command that changes it. What keeps everything from being earned comes first (`blocked`), then what
//! kept the most offers from becoming jobs (`offers`). It knows nothing of the network, the clock or the
//! market's own types, but for what models cost.

mod blocked;
mod offers;
mod price;

use crate::{
    control::schema::ModelReport,
    engines::{EngineReport, Unserved},
    market::pricing::Pricing,
    seller::Status,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Different buyers whose wish for a model is demand. Fewer may be one person who tries something, or wants it fetched here.
const MIN_BUYERS: u64 = 3;
/// Models in the demand view: what fits on a screen below the findings.
const MAX_WANTED: usize = 8;

/// The code of a finding about a model that is named and not there.
pub const UNSERVED: &str = "unserved";

/// What is known of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The worker's side; `None` if the node only buys.
    pub seller: Option<&'a Status>,
    /// What each of its models costs while nothing runs, and below what nothing is sold.
    pub pricing: &'a Pricing,
    /// Its engines.
    pub engines: &'a [EngineReport],
    /// Models that the configuration names and no engine has.
    pub unserved: &'a [Unserved],
    /// Connected peers.
    pub peers: usize,
    /// For how long it has been running, in milliseconds.
    pub uptime_ms: u64,
    /// The time, in unix milliseconds.
    pub now: u64,
    /// Why the store takes no new work, if so.
    pub store: Option<&'a str>,
    /// What others advertise.
    pub rivals: &'a [ModelReport],
    /// Messages that came too late or too early by our clock, of how many.
    pub clocks: (u64, u64),
    /// Jobs whose receipt the buyer signed, and did not.
    pub signed: (u64, u64),
}

/// `infernet why --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyReport {
    /// In a sentence.
    pub summary: String,
    /// Offers heard since the start, but for our own and repeated ones.
    pub offers: u64,
    /// Bids made.
    pub bids: u64,
    /// Jobs got, by auction and at the advertised price.
    pub jobs: u64,
    /// What keeps the worker from earning more, the weightiest first.
    pub findings: Vec<Finding>,
    /// Models that buyers asked for and this worker does not serve, those of most buyers first; at most 8.
    pub wanted: Vec<Wanted>,
}

/// One reason why nothing, or not more, is earned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// A short stable name, such as `dearer`.
    pub code: String,
    /// Whether nothing at all can be earned until it is changed.
    pub blocks: bool,
    /// Offers concerned; 0 if it is not about single offers.
    pub offers: u64,
    /// What was seen.
    pub seen: String,
    /// What it means.
    pub means: String,
    /// The line of config.toml, or the command, that changes it. Absent if nothing need, or can, be changed here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub change: Option<String>,
}

/// A model that buyers ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wanted {
    /// Its name, as buyers spell it.
    pub model: String,
    /// How often it was asked for.
    pub offers: u64,
    /// By how many different buyers; 16 stands for more, too.
    #[serde(default)]
    pub buyers: u64,
}

impl Wanted {
    /// Whether it is worth while to serve it: anybody can ask for anything, a thousand times.
    fn is_demand(&self) -> bool {
        self.buyers >= MIN_BUYERS
    }
}

impl Finding {
    fn new(code: &str, seen: impl Into<String>, means: impl Into<String>) -> Self {
        Finding { code: code.into(), blocks: false, offers: 0, seen: seen.into(), means: means.into(), change: None }
    }

    fn blocking(self) -> Self {
        Finding { blocks: true, ..self }
    }

    fn about(self, offers: u64) -> Self {
        Finding { offers, ..self }
    }

    fn change(self, line: impl Into<String>) -> Self {
        Finding { change: Some(line.into()), ..self }
    }
}

/// Looks at everything.
pub fn why(evidence: &Evidence<'_>) -> WhyReport {
    let Some(seller) = evidence.seller else { return only_buys() };
    let counts = Counts(seller);
    let mut findings = blocked::findings(evidence, seller);
    findings.extend(offers::findings(evidence, seller));
    // Stable: what blocks stays in the order in which it is to be mended.
    findings.sort_by_key(|finding| (!finding.blocks, if finding.blocks { 0 } else { u64::MAX - finding.offers }));
    let (offers, bids, jobs) = (counts.heard(), counts.get("bids"), counts.jobs());
    WhyReport { summary: summary(offers, jobs), offers, bids, jobs, findings, wanted: wanted(seller) }
}

/// What should be mended, on any node: for `infernet status`.
pub fn warnings(evidence: &Evidence<'_>) -> Vec<Finding> {
    blocked::warnings(evidence)
}

fn only_buys() -> WhyReport {
    let finding = Finding::new("only_buys", "this node has no engine to sell", "it only buys, so nobody can pay it")
        .blocking()
        .change("backend = [\"ollama=http://localhost:11434\"]");
    let summary = "earns nothing: this node only buys".into();
    WhyReport { summary, offers: 0, bids: 0, jobs: 0, findings: vec![finding], wanted: Vec::new() }
}

fn summary(offers: u64, jobs: u64) -> String {
    match jobs {
        0 => format!("earns nothing so far: {} heard, no job", counted(offers, "offer")),
        // Jobs at the advertised price come without an offer.
        _ => format!("earns: {} so far, {} heard", counted(jobs, "job"), counted(offers, "offer")),
    }
}

/// The most wanted models that are not served: what most buyers asked for first, then what was asked for most often.
fn wanted(seller: &Status) -> Vec<Wanted> {
    let buyers = |model| seller.wanted_by.get(model).copied().unwrap_or_default();
    let told = seller.wanted.iter().map(|(model, offers)| (model, *offers, buyers(model)));
    let mut wanted: Vec<_> = told.map(|(model, offers, buyers)| Wanted { model: plain(model), offers, buyers }).collect();
    wanted.sort_by(|a, b| (b.buyers, b.offers).cmp(&(a.buyers, a.offers)).then_with(|| a.model.cmp(&b.model)));
    wanted.truncate(MAX_WANTED);
    wanted
}

/// A stranger's text without signs that would change how a terminal shows the rest.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// The command that fetches `model`, unless its name is more than a name: a buyer chose it, and an operator will paste it.
fn pull(model: &str) -> Option<String> {
    let safe = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    (model.starts_with(|c: char| c.is_ascii_alphanumeric()) && model.chars().all(safe))
        .then(|| format!("infernet model pull {model}"))
}

/// The seller's counters, by name.
struct Counts<'a>(&'a Status);

impl<'a> Counts<'a> {
    fn get(&self, name: &str) -> u64 {
        self.0.counters.get(name).copied().unwrap_or_default()
    }

    /// All counters below `area.`, the largest first.
    fn below(&self, area: &str) -> Vec<(&'a str, u64)> {
        let inside = |name: &'a String| name.strip_prefix(area).and_then(|rest| rest.strip_prefix('.'));
        let mut all: Vec<_> = self.0.counters.iter().filter_map(|(name, n)| Some((inside(name)?, *n))).collect();
        all.sort_by_key(|(_, n)| u64::MAX - n);
        all
    }

    /// Offers of others, each once.
    fn heard(&self) -> u64 {
        self.get("offers").saturating_sub(self.get("ignored.own") + self.get("ignored.replayed"))
    }

    /// Offers that it bid on or refused.
    fn answered(&self) -> u64 {
        self.get("bids") + self.below("no_bid").iter().map(|(_, n)| n).sum::<u64>()
    }

    fn jobs(&self) -> u64 {
        self.get("claims") + self.get("standing")
    }
}

/// `3 of 4 offers (75 %)`.
fn part(n: u64, of: u64, what: &str) -> String {
    // Rounded to the nearest; the products can't overflow 128 bits.
    let percent = (u128::from(n) * 200 + u128::from(of)).checked_div(2 * u128::from(of)).unwrap_or(0);
    format!("{n} of {} ({percent} %)", counted(of, what))
}

/// `1 bid`, `2 bids`.
fn counted(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests;
