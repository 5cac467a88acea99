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

use crate::net::{self, bootstrap::BootstrapAddress};
use facts::Reached;
use futures::future::join_all;
use libp2p::Multiaddr;
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

/// Why each of `addresses` is not met, as far as a second look tells; takes four seconds at most. One that takes connections
/// counts only if `met` nobody: else it may be another way to the same peer.
pub async fn unmet(addresses: &[Multiaddr], met: bool) -> Vec<String> {
    let looks = addresses.iter().map(async |address| (address, reach::peer(address, None).await));
    let looks = join_all(looks).await;
    let why = |(address, reached): (&Multiaddr, Reached)| {
        let why = not_met(reached, net::bootstrap::is_page(address), met)?;
        Some(format!("{}: {why}", BootstrapAddress::from(address.clone())))
    };
    looks.into_iter().filter_map(why).collect()
}

fn not_met(reached: Reached, is_page: bool, met: bool) -> Option<String> {
    match reached {
        Reached::Failed(why) => Some(why),
        _ if met => None,
        Reached::Connected => None,
        Reached::Dialled(_) if is_page => {
            Some("something answers there, and no peer that it names; the log says what it told".into())
        }
        Reached::Dialled(_) => Some("something answers there, and it is no node of this network by that id".into()),
        Reached::Resolved => Some("no node of this network answers there over UDP".into()),
    }
}

/// Looks at `home` and around it. Takes ten seconds at most.
pub async fn examine(home: &Path) -> DoctorReport {
    let facts = gather::facts(home).await;
    DoctorReport::new(home, verdict::checks(&facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_was_named_and_is_not_there_is_told_with_the_cause() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}").parse::<Multiaddr>().unwrap();
        let port = listener.local_addr().unwrap().port();
        let page = format!("http://127.0.0.1:{port}").parse::<BootstrapAddress>().unwrap();
        let named = [at(1), at(port), page.into()];
        let alone = unmet(&named, false).await;
        assert!(alone[0].starts_with("/ip4/127.0.0.1/tcp/1: ") && alone[0].contains("refused"), "{alone:?}");
        assert!(alone[1].contains("no node of this network"), "{alone:?}");
        let page = format!("http://127.0.0.1:{port}/bootstrap.json: something answers there, and no peer that it names");
        assert!(alone[2].starts_with(&page), "{alone:?}");
        assert_eq!(unmet(&named, true).await.len(), 1, "the other may be met another way");
    }
}
