//! What a simulation is of: a TOML file. Numbers that a seed may draw are ranges: `[low, high]`, both included, or one number.
//!
//! The scenarios of this repository are in `testnet/scenarios/` and built in, so that a name is enough.

use super::{adversary::Adversary, plant::Plant};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{fmt, fs, path::Path};

/// A range of whole numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range(pub u64, pub u64);

impl Range {
    /// As the dice want it.
    pub fn ends(self) -> (u64, u64) {
        (self.0, self.1)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(u64),
            Two([u64; 2]),
        }
        match Written::deserialize(from)? {
            Written::One(n) => Ok(Range(n, n)),
            Written::Two([low, high]) if low <= high => Ok(Range(low, high)),
            Written::Two([low, high]) => {
                Err(de::Error::custom(format!("the range [{low}, {high}] begins above its end: swap the two")))
            }
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// For people: what it is about.
    pub about: String,
    /// How long jobs begin; then it goes on until all have ended.
    pub seconds: u64,
    /// Who there is.
    pub nodes: Nodes,
    /// How they are connected.
    #[serde(default)]
    pub network: Network,
    /// What workers offer.
    #[serde(default)]
    pub market: Market,
    /// What buyers want.
    #[serde(default)]
    pub load: Load,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Faults,
    /// Who attacks, and how; nobody if absent.
    #[serde(default)]
    pub adversary: Option<Adversary>,
    /// A bug of the world's own, by which a check is proved able to fail; none if absent.
    #[serde(skip)]
    pub plant: Option<Plant>,
}

/// Who there is.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nodes {
    /// Nodes that buy.
    pub buyers: Range,
    /// Nodes that sell.
    pub workers: Range,
}

/// How nodes are connected.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Neighbours of a node in the gossip mesh; gossipsub aims at six.
    pub degree: usize,
    /// Regions, between which it is far.
    pub regions: u64,
    /// Milliseconds from a node to its region's exchange.
    pub mile_ms: Range,
    /// Milliseconds from one region to another.
    pub far_ms: Range,
    /// Milliseconds that a message may take longer.
    pub jitter_ms: u64,
    /// Gossip that a link loses, in thousandths: a full queue, a broken connection. Streams repeat what is lost.
    pub loss_permille: u64,
    /// How far clocks may differ, in milliseconds.
    pub skew_ms: u64,
    /// Whether nodes ask their rules of gossip, which takes a third of a large simulation's time and decides nothing where
    /// nobody misbehaves.
    pub rules: bool,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            degree: 6,
            regions: 4,
            mile_ms: Range(1, 12),
            far_ms: Range(15, 90),
            jitter_ms: 4,
            loss_permille: 2,
            skew_ms: 400,
            rules: true,
        }
    }
}

/// What workers offer.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Market {
    /// Models that are served; the first are asked for most.
    pub models: u64,
    /// Models of one worker.
    pub models_each: Range,
    /// Jobs of a worker at once.
    pub slots: Range,
    /// From asking an engine to its first token.
    pub ttft_ms: Range,
    /// Of one stream.
    pub tokens_per_second: Range,
    /// Ads that a buyer keeps at most.
    pub max_ads: usize,
    /// A worker's price as a share of its model's usual one, in hundredths.
    pub price_percent: Range,
}

impl Default for Market {
    fn default() -> Self {
        Market {
            models: 4,
            models_each: Range(1, 2),
            slots: Range(1, 6),
            ttft_ms: Range(40, 600),
            tokens_per_second: Range(15, 90),
            max_ads: infernet_node::market::registry::MAX_ADS,
            price_percent: Range(60, 150),
        }
    }
}

/// What buyers want.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// Seconds before the first job: ads are on their way.
    pub warmup_s: u64,
    /// Milliseconds from one job of a buyer to the next.
    pub pause_ms: Range,
    /// Bytes of a prompt.
    pub prompt_bytes: Range,
    /// Tokens of an answer.
    pub answer_tokens: Range,
    /// Bid window in milliseconds.
    pub window_ms: Range,
    /// Jobs that are only auctioned, in thousandths; the rest may be taken at a standing price.
    pub auction_permille: u64,
    /// Jobs that their caller cancels, in thousandths.
    pub cancel_permille: u64,
    /// Jobs that wait when nobody has room instead of failing, in thousandths.
    pub wait_permille: u64,
    /// How long these may wait, in milliseconds.
    pub wait_ms: Range,
    /// A buyer's spend cap for the day, in long jobs with the first model; without it buyers have none.
    pub cap_jobs: Option<Range>,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            warmup_s: 4,
            pause_ms: Range(4_000, 16_000),
            prompt_bytes: Range(40, 400),
            answer_tokens: Range(8, 80),
            window_ms: Range(400, 1_000),
            auction_permille: 250,
            cancel_permille: 30,
            wait_permille: 0,
            wait_ms: Range(1_000, 15_000),
            cap_jobs: None,
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// How many faults, spread over the time in which jobs begin.
    pub count: Option<Range>,
}

/// A scenario that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Neither a file nor a name.
    #[error("there is no scenario {name:?}: name a TOML file, or one of {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file that can't be read.
    #[error("can't read {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// Not a scenario.
    #[error("{name} is no scenario: {error}")]
    Parse {
        /// The file or name.
        name: String,
        /// What is wrong.
        error: String,
    },
}

macro_rules! built_in {
    (honest: [$($honest:literal),* $(,)?], attacks: [$($attack:literal),* $(,)?] $(,)?) => {
        /// The scenarios of this repository: name and text.
        pub const BUILT_IN: &[(&str, &str)] =
            &[$(($honest, include_str!(concat!("../../scenarios/", $honest, ".toml"))),)*
              $(($attack, include_str!(concat!("../../scenarios/", $attack, ".toml"))),)*];
        /// The names of those that are attacks.
        pub const ATTACKS: &[&str] = &[$($attack),*];
    };
}

built_in!(
    honest: ["honest", "faults", "large"],
    attacks: [
        "sybil-ads",
        "offer-spam",
        "bid-spam",
        "hold-exhaustion",
        "sniping",
        "double-accept",
        "replay",
        "inflated-usage",
        "deadbeat-buyer",
        "lying",
        "silent-worker",
        "eclipse",
    ],
);

impl Scenario {
    /// The scenario in the file `name`, or the built-in one of that name.
    pub fn load(name: &str) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Scenario::parse(name, text);
        }
        if !Path::new(name).exists() {
            let known = BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            return Err(ScenarioError::Unknown { name: name.into(), known });
        }
        let text = fs::read_to_string(name).map_err(|error| ScenarioError::Read { path: name.into(), error })?;
        Scenario::parse(name, &text)
    }

    /// Reads `text`; `name` is for errors.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let wrong = |error: &dyn fmt::Display| ScenarioError::Parse { name: name.into(), error: error.to_string() };
        let scenario: Scenario = toml::from_str(text).map_err(|error| wrong(&error))?;
        scenario.check().map_err(|error| wrong(&error))?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), &'static str> {
        let ensure = |holds: bool, error| if holds { Ok(()) } else { Err(error) };
        ensure(self.nodes.buyers.0 > 0 && self.nodes.workers.0 > 0, "there must be a buyer and a worker")?;
        ensure(
            self.nodes.buyers.1 + self.nodes.workers.1 <= MAX_NODES,
            "more than 100000 nodes need more memory than there is",
        )?;
        ensure((1..=3_600).contains(&self.seconds), "seconds is 1 to 3600")?;
        ensure(self.network.degree > 0, "network.degree is at least 1")?;
        ensure((1..=64).contains(&self.network.regions), "network.regions is 1 to 64")?;
        ensure((1..=1_000).contains(&self.market.models), "market.models is 1 to 1000")?;
        ensure(self.market.models_each.0 > 0 && self.market.models_each.1 <= 16, "market.models_each is within 1 and 16")?;
        ensure(self.market.slots.0 > 0 && self.market.slots.1 <= 1_000, "market.slots is within 1 and 1000")?;
        ensure(self.market.tokens_per_second.0 > 0, "market.tokens_per_second is above 0")?;
        ensure(self.load.pause_ms.0 > 0, "load.pause_ms is above 0")?;
        ensure(self.load.window_ms.0 > 0 && self.load.window_ms.1 <= 2_000, "load.window_ms is within 1 and 2000")?;
        ensure(self.load.answer_tokens.0 > 0, "load.answer_tokens is above 0")
    }
}

/// Node numbers are small, and a hundred thousand registries fill tens of gigabytes.
const MAX_NODES: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_reads() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::load(name).unwrap_or_else(|error| panic!("{error}"));
            assert!(!scenario.about.is_empty(), "{name}");
        }
    }

    fn check(text: &str, expected: &str) {
        let error = Scenario::parse("x", text).expect_err("must not read").to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        check("about = 'x'\nseconds = 0\n[nodes]\nbuyers = 1\nworkers = 1", "seconds is 1 to 3600");
        check("about = 'x'\nseconds = 1\n[nodes]\nbuyers = [3, 1]\nworkers = 1", "swap the two");
        check("about = 'x'\nseconds = 1\nfoo = 1\n[nodes]\nbuyers = 1\nworkers = 1", "foo");
        let error = Scenario::load("no-such").expect_err("is not there").to_string();
        assert!(error.contains("honest"), "{error}");
    }
}
