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

use crate::net::bootstrap::BootstrapAddress;
use facts::Reached;
use futures::future::join_all;
use infernet_wire::topic::NetworkId;
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

/// Why each of `addresses` is not met by a node of `network`, as far as a second look tells; takes four seconds at most. One that
/// takes connections counts only if `met` nobody: else it may be another way to the same peer.
pub async fn unmet(addresses: &[Multiaddr], network: &NetworkId, met: bool) -> Vec<String> {
    let looks = addresses.iter().map(async |address| (address, reach::peer(address, network, None).await));
    let looks = join_all(looks).await;
    let why = |(address, reached): (&Multiaddr, Reached)| match reached {
        Reached::Useless(said, _) => Some(said),
        reached => Some(format!("{}: {}", BootstrapAddress::from(address.clone()), not_met(reached, met)?)),
    };
    looks.into_iter().filter_map(why).collect()
}

fn not_met(reached: Reached, met: bool) -> Option<String> {
    match reached {
        Reached::Failed(why) | Reached::Useless(why, _) => Some(why),
        _ if met => None,
        Reached::Connected => None,
        Reached::Told(1, _) => Some("the peer that it names can't be met".into()),
        Reached::Told(peers, _) => Some(format!("none of the {peers} peers that it names can be met")),
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

    /// A server that answers every request with `answer`, and its URL.
    async fn serves(answer: String) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new().fallback(async move || answer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    /// A page of `network` that names peers at `addrs`, `ID` being theirs.
    fn page(network: &str, addrs: &[&str]) -> String {
        let id = infernet_wire::key::NodeKey::from_bytes(&[7; 32]).unwrap().id().to_string();
        let addrs: Vec<String> = addrs.iter().map(|address| address.replace("ID", &id)).collect();
        let protocol = crate::net::KAD_PROTOCOL.to_string();
        let peers = serde_json::json!([{"id": id, "addrs": addrs}]);
        serde_json::json!({"version": 1, "network": network, "protocol_id": protocol, "peers": peers}).to_string()
    }

    #[tokio::test]
    async fn a_page_to_begin_at_is_read_and_judged() {
        const PEER: &str = "/ip4/127.0.0.1/tcp/1/p2p/ID";
        let network: NetworkId = "main".parse().unwrap();
        let look = async |url: &str| {
            let address: Multiaddr = url.parse::<BootstrapAddress>().unwrap().into();
            reach::peer(&address, &network, None).await
        };
        let good = serves(page("main", &[PEER])).await;
        assert!(matches!(look(&good).await, Reached::Told(1, _)));
        let named = [good.parse::<BootstrapAddress>().unwrap().into()];
        let unmet = unmet(&named, &network, false).await;
        assert!(unmet[0].ends_with("bootstrap.json: the peer that it names can't be met"), "{unmet:?}");
        for (url, said, fix) in [
            (serves(page("other", &[PEER])).await, "of the network \"other\"", "network = \"other\""),
            (serves(page("main", &[])).await, "none of the 1 peers", "--external-address"),
            (serves("<html>Welcome</html>".into()).await, "not a relay's bootstrap.json", "name a relay's page"),
            ("http://127.0.0.1:1".into(), "can't be reached", "start that relay"),
        ] {
            let Reached::Useless(why, what) = look(&url).await else { panic!("{url} is of use") };
            assert!(why.starts_with(&url) && why.contains(said) && what.contains(fix), "{why}; {what}");
        }
    }

    #[tokio::test]
    async fn who_was_named_and_is_not_there_is_told_with_the_cause() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = |port: u16| format!("/ip4/127.0.0.1/tcp/{port}").parse::<Multiaddr>().unwrap();
        let port = listener.local_addr().unwrap().port();
        let (network, named) = (NetworkId::default(), [at(1), at(port)]);
        let alone = unmet(&named, &network, false).await;
        assert!(alone[0].starts_with("/ip4/127.0.0.1/tcp/1: ") && alone[0].contains("refused"), "{alone:?}");
        assert!(alone[1].contains("no node of this network"), "{alone:?}");
        assert_eq!(unmet(&named, &network, true).await.len(), 1, "the other may be met another way");
    }
}
