//! What is right and wrong with a node's home, machine and surroundings, for `infernet doctor` and the end of `infernet setup`.
//!
//! `gather` looks at everything at once, each look with a deadline, and writes down [`facts`]; `verdict` is pure and makes
//! of them [`Check`]s: what was seen, in a sentence, and what to do about it. What can't be known is said to be not checked. Nobody
//! is contacted but the node of this home and what the configuration names: engines, and peers to meet first.

pub mod facts;
mod gather;
mod machine;
mod reach;
mod verdict;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It could not be looked at, or does not matter here.
    NotChecked,
    /// The node works, but not as well as it could.
    Warning,
    /// The node does not work, or not for long.
    Problem,
}

impl Level {
    /// As it is shown.
    pub fn label(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::NotChecked => "not checked",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// One look at one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What was looked at, a short stable name such as `port`; several checks may share one.
    pub name: String,
    /// `ok`, `not_checked`, `warning` or `problem`.
    pub level: Level,
    /// What was seen, in a sentence.
    pub said: String,
    /// What to do about it; absent if there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fix: Option<String>,
}

impl Check {
    fn new(name: &str, level: Level, said: impl Into<String>) -> Self {
        Check { name: name.into(), level, said: said.into(), fix: None }
    }

    fn ok(name: &str, said: impl Into<String>) -> Self {
        Check::new(name, Level::Ok, said)
    }

    fn unchecked(name: &str, said: impl Into<String>) -> Self {
        Check::new(name, Level::NotChecked, said)
    }

    fn warning(name: &str, said: impl Into<String>, fix: impl Into<String>) -> Self {
        Check { fix: Some(fix.into()), ..Check::new(name, Level::Warning, said) }
    }

    fn problem(name: &str, said: impl Into<String>, fix: impl Into<String>) -> Self {
        Check { fix: Some(fix.into()), ..Check::new(name, Level::Problem, said) }
    }
}

/// `infernet doctor --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorReport {
    /// Version of the software that looked.
    pub version: String,
    /// Where it looked.
    pub home: String,
    /// Checks that are a problem.
    pub problems: usize,
    /// Checks that are a warning.
    pub warnings: usize,
    /// Every check, in the order in which things are to be mended.
    pub checks: Vec<Check>,
}

impl DoctorReport {
    fn new(home: &Path, checks: Vec<Check>) -> Self {
        let count = |level| checks.iter().filter(|check| check.level == level).count();
        let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
        let version = env!("CARGO_PKG_VERSION").into();
        DoctorReport { version, home: home.display().to_string(), problems, warnings, checks }
    }
}

/// Looks at `home` and around it. Takes ten seconds at most.
pub async fn examine(home: &Path) -> DoctorReport {
    let facts = gather::facts(home).await;
    DoctorReport::new(home, verdict::checks(&facts))
}
