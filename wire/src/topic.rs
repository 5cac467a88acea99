//! Gossip topics, the network's name, and names that travel.

use crate::limits;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Where workers publish what they can do.
pub const CAPABILITIES: &str = "c0mpute/cap/v1";
/// Where receipts are published.
pub const RECEIPTS: &str = "c0mpute/receipts/v1";
/// The workload of language models.
pub const INFERENCE: &str = "infernet.inference";

/// The topic on which jobs of `workload` are auctioned.
pub fn jobs(workload: &str) -> String {
    format!("c0mpute/jobs/{workload}")
}

/// Which network a message belongs to: signed with every message, so that nothing from a test network counts on another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkId(String);

/// A network name that is empty, too long, or has other characters than `a-z 0-9 - .`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network name: use 1 to 32 of a-z, 0-9, '-' and '.'")]
pub struct BadNetworkId(String);

impl NetworkId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NetworkId {
    fn default() -> Self {
        NetworkId("main".into())
    }
}

impl TryFrom<String> for NetworkId {
    type Error = BadNetworkId;

    fn try_from(name: String) -> Result<Self, BadNetworkId> {
        let fits = (1..=limits::MAX_NETWORK_BYTES).contains(&name.len());
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        if fits && plain { Ok(NetworkId(name)) } else { Err(BadNetworkId(name)) }
    }
}

impl From<NetworkId> for String {
    fn from(id: NetworkId) -> String {
        id.0
    }
}

impl FromStr for NetworkId {
    type Err = BadNetworkId;

    fn from_str(name: &str) -> Result<Self, BadNetworkId> {
        name.to_owned().try_into()
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
