//! `infernet key rotate`: a new key, a statement signed by both, and the old key kept.
//!
//! Every step can be cut off and taken again: the next key waits in `identity.key.next` until it is in force, so that a second
//! try takes the same one; the statement is written before the key changes; the old key keeps a name of its own. The statements
//! of a home are in `rotations`, one in hex a line, oldest first.

use super::{IdentityError, KEY_FILE, Secret, io_error, key_file, new_key, sync, write_new};
use infernet_wire::{id::NodeId, key::NodeKey, rotation::*, time::UnixMillis, topic::NetworkId};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The next key, until it is in force.
const NEXT: &str = "identity.key.next";
/// The statements of a home.
const ROTATIONS: &str = "rotations";
/// Rotations of one home: one a month for twenty years.
const MAX_ROTATIONS: usize = 256;
/// Twice what [`MAX_ROTATIONS`] statements take.
const MAX_FILE_BYTES: u64 = 512 * 1024;

/// What a rotation did.
#[derive(Debug)]
pub struct Rotated {
    /// The statement that both keys signed.
    pub statement: SignedRotation,
    /// Where the old key is kept.
    pub backup: PathBuf,
}

/// Replaces the key `old` of `home`, sealed if there is a `passphrase`. No node may run there meanwhile.
pub fn rotate(
    home: &Path,
    old: &NodeKey,
    passphrase: Option<&str>,
    network: &NetworkId,
    now: UnixMillis,
) -> Result<Rotated, IdentityError> {
    let new = next_key(home, passphrase)?;
    let statement = state(home, old, &new, network, now)?;
    let (key, next) = (home.join(KEY_FILE), home.join(NEXT));
    let backup = home.join(format!("identity-{}.key", old.id().short()));
    match fs::hard_link(&key, &backup) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error("create", &backup)(error)),
        _ => {}
    }
    fs::rename(&next, &key).map_err(io_error("replace", &key))?;
    sync(home)?;
    Ok(Rotated { statement, backup })
}

/// The key that an earlier try left behind, else a new one.
fn next_key(home: &Path, passphrase: Option<&str>) -> Result<NodeKey, IdentityError> {
    let path = home.join(NEXT);
    match Secret::read(&path) {
        Err(IdentityError::Missing { .. }) => {
            let key = new_key();
            write_new(&path, &key_file(&key, passphrase))?;
            Ok(key)
        }
        secret => secret?.open(&path, || passphrase.map(|text| text.to_owned().into()).ok_or(IdentityError::locked(&path))),
    }
}

/// Writes the statement down, unless an earlier try did.
fn state(
    home: &Path,
    old: &NodeKey,
    new: &NodeKey,
    network: &NetworkId,
    now: UnixMillis,
) -> Result<SignedRotation, IdentityError> {
    let mut lines = lines(home)?;
    let known = lines.last().and_then(|line| read(line, network));
    let is_this = |r: &SignedRotation| (r.statement().old, r.statement().new) == (old.id(), new.id());
    if let Some(known) = known.filter(is_this) {
        return Ok(known);
    }
    let path = home.join(ROTATIONS);
    let malformed = |reason| IdentityError::Malformed { path: path.clone(), reason };
    if lines.len() >= MAX_ROTATIONS {
        return Err(malformed("there are too many rotations in it"));
    }
    let body = KeyRotation { old: old.id(), new: new.id(), issued: now };
    let sign = |key: &NodeKey| key.sign(network, body.clone()).map_err(|_| malformed("a rotation can't be signed"));
    let statement = SignedRotation::new(sign(old)?, sign(new)?).map_err(|_| malformed("the two keys are one"))?;
    lines.push(hex::encode(statement.encode()));
    let draft = home.join(format!(".{ROTATIONS}"));
    let _ = fs::remove_file(&draft);
    write_new(&draft, &(lines.join("\n") + "\n").into())?;
    fs::rename(&draft, &path).map_err(io_error("replace", &path))?;
    sync(home)?;
    Ok(statement)
}

fn lines(home: &Path) -> Result<Vec<String>, IdentityError> {
    let path = home.join(ROTATIONS);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(io_error("open", &path))?,
    };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io_error("read", &path))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn read(line: &str, network: &NetworkId) -> Option<SignedRotation> {
    SignedRotation::decode_stored(&hex::decode(line).ok()?, network).ok()
}

/// The ids that the node of `home` had before `id`, oldest first.
pub fn former(home: &Path, id: &NodeId, network: &NetworkId) -> Result<Vec<NodeId>, IdentityError> {
    Ok(history(home, id, network)?.iter().map(|rotation| rotation.statement().old).collect())
}

/// The rotations of `home` that led to `id` and verify, oldest first. Others are left out: a home can be copied together.
pub fn history(home: &Path, id: &NodeId, network: &NetworkId) -> Result<Vec<SignedRotation>, IdentityError> {
    let mut chain: Vec<SignedRotation> = Vec::new();
    for line in lines(home)?.iter().rev() {
        let Some(rotation) = read(line, network) else { continue };
        if rotation.statement().new == chain.last().map_or(*id, |later| later.statement().old) {
            chain.push(rotation);
        }
    }
    chain.reverse();
    Ok(chain)
}
