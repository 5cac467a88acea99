//! The variables of the environment: which there are for a key, and which are there that nobody reads.

use super::{KEYS, partial};
use crate::spelling;
use std::fmt;

/// Before a key's name, in capitals.
pub(super) const PREFIX: &str = "INFERNET_";

/// Read elsewhere in this project: the home, and what tests and their scripts use.
const OTHERS: [&str; 6] = ["HOME", "BLESS", "ANVIL", "LLAMA_SERVER", "FUZZ_TARGET", "ENDPOINTS"];
/// Of other programs of this project, and of its tests.
const OTHER_PREFIXES: [&str; 4] = ["PLANE_", "RELAY_", "TEST_", "NEEDS_"];

/// A variable that is set and read by nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVariable {
    name: String,
    meant: Option<String>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not known and counts for nothing", self.name)?;
        match &self.meant {
            Some(meant) => write!(f, ": did you mean {meant}?"),
            // Whoever looks for a level looks for this.
            None if self.name.contains("LOG") => f.write_str(": RUST_LOG=infernet_node=debug has more in the log"),
            None => f.write_str(": `infernet start --help` names all"),
        }
    }
}

/// Whether the configuration, or something else of this project, reads a variable of this name.
pub fn is_variable(name: &str) -> bool {
    unknown(std::iter::once(name.to_owned())).is_empty()
}

/// The variables of this process that begin like ours and are not, in order.
pub fn unknown_variables() -> Vec<UnknownVariable> {
    unknown(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

pub(super) fn unknown(names: impl Iterator<Item = String>) -> Vec<UnknownVariable> {
    let ours: Vec<String> = KEYS.iter().flat_map(|key| partial::variables(key)).collect();
    let meant = |name: &str| {
        let rests = ours.iter().filter_map(|our| our.strip_prefix(PREFIX));
        Some(format!("{PREFIX}{}", spelling::nearest(name, rests)?))
    };
    let strange = |name: String| {
        let rest = name.strip_prefix(PREFIX)?;
        let known =
            ours.contains(&name) || OTHERS.contains(&rest) || OTHER_PREFIXES.iter().any(|prefix| rest.starts_with(prefix));
        let meant = meant(rest);
        (!known).then_some(UnknownVariable { name, meant })
    };
    let mut all: Vec<_> = names.filter_map(strange).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
