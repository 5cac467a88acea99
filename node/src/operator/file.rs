//! `<home>/operators.toml`: the keys of operators, readable by the node's owner alone.

use crate::files;
use infernet_wire::{id::NodeId, time::UnixMillis};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The file's name in a home.
pub const OPERATORS_FILE: &str = "operators.toml";
/// Operators of one node: a person with some machines, or a small team.
const MAX_OPERATORS: usize = 32;
/// The largest file that is read: twice what [`MAX_OPERATORS`] take.
const MAX_FILE_BYTES: u64 = 16 * 1024;
/// Permission bits that let others change who commands.
const OTHERS_WRITE: u32 = 0o022;

/// What stands above the keys.
const HEADER: &str = "# Whose signed commands this node obeys. Change it with `infernet operator add` and `remove`.\n\n";

/// An operator's public key: x-only, as BIP-340 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperatorKey([u8; 32]);

impl OperatorKey {
    /// The node id with this key and an even y. Commands of both parities count as this one's: whoever has one secret has both.
    pub fn as_node(&self) -> NodeId {
        let mut bytes = [2; 33];
        if let Some(x) = bytes.get_mut(1..) {
            x.copy_from_slice(&self.0);
        }
        NodeId(bytes)
    }

    /// The key of a node.
    pub fn of_node(node: &NodeId) -> Self {
        OperatorKey(node.x_only())
    }
}

impl fmt::Display for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for OperatorKey {
    type Err = OperatorsError;

    /// 64 hex digits, or a node id.
    fn from_str(text: &str) -> Result<Self, OperatorsError> {
        let bad = || OperatorsError::Key(text.into());
        let mut x = [0; 32];
        let key = match hex::decode_to_slice(text, &mut x) {
            Ok(()) => OperatorKey(x),
            Err(_) => OperatorKey::of_node(&text.parse().map_err(|_| bad())?),
        };
        // Of all x, half are on the curve; whoever mistypes a digit should hear of it now.
        infernet_wire::key::is_public(&key.0).then_some(key).ok_or_else(bad)
    }
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Its key.
    pub key: OperatorKey,
    /// When the owner added it.
    pub added: UnixMillis,
}

/// The operators of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operators(Vec<Operator>);

/// What adding did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// The key is new.
    New,
    /// It was there.
    Known,
}

/// Why the operators can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorsError {
    /// Not a public key.
    #[error(
        "{0:?} is no operator key: give 64 hex digits (x-only) or a node id; `infernet key show` prints both where the key is"
    )]
    Key(String),
    /// It is not there.
    #[error("{0} is no operator of this node; `infernet operator list` shows who is")]
    Unknown(OperatorKey),
    /// There is no more room.
    #[error("a node has at most {MAX_OPERATORS} operators: remove one first")]
    Full,
    /// Others may write the file.
    #[error("others may change {} (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not what was written.
    #[error("can't read {}: {reason}; correct it, or remove it and add the operators again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The disk or its permissions.
    #[error("can't use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Schema {
    #[serde(default)]
    operator: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    key: String,
    added: u64,
}

impl Operators {
    /// Those of `home`; none if there is no file.
    pub fn load(home: &Path) -> Result<Self, OperatorsError> {
        let path = home.join(OPERATORS_FILE);
        match read(&path)? {
            Some(text) => parse(&text).map_err(|reason| OperatorsError::Malformed { path, reason }),
            None => Ok(Operators::default()),
        }
    }

    /// All of them, in the order in which they were added.
    pub fn all(&self) -> &[Operator] {
        &self.0
    }

    /// The operator's key that `signer` has.
    pub fn find(&self, signer: &NodeId) -> Option<OperatorKey> {
        let key = OperatorKey::of_node(signer);
        self.0.iter().map(|operator| operator.key).find(|known| *known == key)
    }

    /// Adds a key at `now`.
    pub fn add(&mut self, key: OperatorKey, now: UnixMillis) -> Result<Added, OperatorsError> {
        if self.0.iter().any(|operator| operator.key == key) {
            return Ok(Added::Known);
        }
        if self.0.len() >= MAX_OPERATORS {
            return Err(OperatorsError::Full);
        }
        self.0.push(Operator { key, added: now });
        Ok(Added::New)
    }

    /// Removes a key, which must be there.
    pub fn remove(&mut self, key: OperatorKey) -> Result<(), OperatorsError> {
        let before = self.0.len();
        self.0.retain(|operator| operator.key != key);
        if self.0.len() < before { Ok(()) } else { Err(OperatorsError::Unknown(key)) }
    }

    /// Replaces the file of `home`, whole or not at all. The home must exist.
    pub fn save(&self, home: &Path) -> Result<(), OperatorsError> {
        let path = home.join(OPERATORS_FILE);
        let row = |operator: &Operator| Row { key: operator.key.to_string(), added: operator.added.0 };
        let schema = Schema { operator: self.0.iter().map(row).collect() };
        let text = toml::to_string(&schema)
            .map_err(|error| OperatorsError::Malformed { path: path.clone(), reason: error.to_string() })?;
        let text = format!("{HEADER}{text}");
        files::replace(&path, text.as_bytes(), Some(0o600)).map_err(|source| OperatorsError::Io { path, source })
    }
}

fn read(path: &Path) -> Result<Option<String>, OperatorsError> {
    let failed = |source| OperatorsError::Io { path: path.into(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return Err(OperatorsError::Exposed { path: path.into(), mode });
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

pub(super) fn parse(text: &str) -> Result<Operators, String> {
    let schema: Schema = toml::from_str(text).map_err(|error| crate::toml_text::reason(text, &error))?;
    let mut operators = Operators::default();
    for row in schema.operator {
        let key = row.key.parse().map_err(|error: OperatorsError| error.to_string())?;
        operators.add(key, UnixMillis(row.added)).map_err(|error| error.to_string())?;
    }
    Ok(operators)
}
