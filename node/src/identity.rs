//! The node's key on disk: `<home>/identity.key`, 64 hex digits and a line feed, readable by its owner alone; or, if the owner
//! wants it so, [`sealed`] under a passphrase.
//!
//! The file appears whole or not at all: it is written beside its place, synced, and linked there, which fails if another
//! process was faster. It is replaced only when the owner asks for it, by a rename. Loading refuses a file that anyone else may
//! read, so that a careless copy is noticed before it costs money. The key itself is in no error, log or debug output; buffers
//! that held it are wiped. What a file system keeps of a replaced plain file is beyond our reach.

mod passphrase;
mod rotation;
pub mod sealed;
mod solana;

pub use self::{
    passphrase::{PASSPHRASE_FILE, Passphrase, Source},
    rotation::{Rotated, former, history, rotate},
    solana::{SOLANA_KEY_FILE, existing_solana_key, solana_key},
};

use self::{sealed::Unsealed, solana::write_solana};
use crate::{clock, settlement::solana::key::SolanaKey};
use infernet_wire::{id::NodeId, key::NodeKey, solana::SolanaAddress};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The key's file in a home.
pub const KEY_FILE: &str = "identity.key";

/// What is read of a key file at most: a sealed line is some 350 bytes, and a backup has two, with comments above them.
const MAX_KEY_FILE_BYTES: u64 = 4 * 1024;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;
/// Permission bits that let others replace files.
const OTHERS_WRITE: u32 = 0o022;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no key file.
    #[error("no key at {}: run `infernet init`, or name another --home", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is no backup.
    #[error("there is no file {}: name the one that `infernet key backup` wrote", path.display())]
    NoBackup {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file that should be restored holds no key.
    #[error("{} is no backup of a key ({reason}): name the file that `infernet key backup` wrote", path.display())]
    NotBackup {
        /// The file.
        path: PathBuf,
        /// What is wrong, without what is in it.
        reason: &'static str,
    },
    /// Others may read the key.
    #[error("others may read the key {} (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others may replace the key.
    #[error("others may write to the home {} (mode {mode:04o}): run `chmod 700 {}`", home.display(), home.display())]
    ExposedHome {
        /// The home.
        home: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no key.
    #[error("{} is not a key ({reason}): restore it from your backup, or move it away and run `infernet init`", path.display())]
    Malformed {
        /// The key file.
        path: PathBuf,
        /// What is wrong, without what is in it.
        reason: &'static str,
    },
    /// The file holds no key for Solana.
    #[error("{} is not a key as solana-keygen writes it: move it away, then put your copy there or run `infernet key restore FILE`; without it, what its wallet holds is lost", path.display())]
    NotSolana {
        /// The key file.
        path: PathBuf,
    },
    /// The key is sealed, and nobody gave its passphrase.
    #[error("the key {} is encrypted: name a file with its passphrase in {PASSPHRASE_FILE}, or run this in a terminal", path.display())]
    Locked {
        /// The key file.
        path: PathBuf,
    },
    /// The key is sealed, and does not open.
    #[error("can't open the key {}: {reason}", path.display())]
    Sealed {
        /// The key file or backup.
        path: PathBuf,
        /// Why.
        reason: Unsealed,
    },
    /// The passphrase can't be read, or is not good enough.
    #[error("{0}")]
    Passphrase(String),
    /// The key is sealed already, or is not.
    #[error("the key {} is {} already", path.display(), if *sealed { "encrypted" } else { "in plain" })]
    Already {
        /// The key file.
        path: PathBuf,
        /// Which of the two.
        sealed: bool,
    },
    /// There is something where nothing may be overwritten.
    #[error("{} exists already: name another file, or move it away", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another key is in the place of the one that should be restored.
    #[error("{} holds the key of {found}, not of {restored}: move it away first, or name another --home", path.display())]
    OtherKey {
        /// The key file.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Whose should be.
        restored: NodeId,
    },
    /// Likewise the key of another wallet.
    #[error("{} holds the key of the wallet {found}, not of {restored}: move it away first, or name another --home", path.display())]
    OtherWallet {
        /// The key file.
        path: PathBuf,
        /// Whose it is.
        found: SolanaAddress,
        /// Whose should be.
        restored: SolanaAddress,
    },
    /// The disk or its permissions.
    #[error("can't {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl IdentityError {
    fn locked(path: &Path) -> Self {
        IdentityError::Locked { path: path.into() }
    }
}

/// The key of `home`, made if there is none. Makes the home, too, for its owner alone (mode 0700). A sealed key is refused.
pub fn init(home: &Path) -> Result<NodeKey, IdentityError> {
    init_with(home, || Err(IdentityError::locked(&home.join(KEY_FILE))))
}

/// As [`init`], and `ask` gives the passphrase if the key is sealed.
pub fn init_with(home: &Path, ask: impl FnOnce() -> Result<Passphrase, IdentityError>) -> Result<NodeKey, IdentityError> {
    make_home(home)?;
    if !home.join(KEY_FILE).exists() {
        create(home)?;
    }
    load_with(home, ask)
}

/// The key of `home`, which must exist and not be sealed.
pub fn load(home: &Path) -> Result<NodeKey, IdentityError> {
    load_with(home, || Err(IdentityError::locked(&home.join(KEY_FILE))))
}

/// The key of `home`, which must exist; `ask` gives the passphrase if it is sealed.
pub fn load_with(home: &Path, ask: impl FnOnce() -> Result<Passphrase, IdentityError>) -> Result<NodeKey, IdentityError> {
    check_home(home)?;
    let path = home.join(KEY_FILE);
    Secret::read(&path)?.open(&path, ask)
}

/// The public half of the key of `home`, and whether the key is sealed. Needs no passphrase.
pub fn public(home: &Path) -> Result<(NodeId, bool), IdentityError> {
    check_home(home)?;
    let path = home.join(KEY_FILE);
    let secret = Secret::read(&path)?;
    let malformed = || IdentityError::Sealed { path, reason: Unsealed::Malformed };
    Ok((secret.id().ok_or_else(malformed)?, matches!(secret, Secret::Sealed(_))))
}

/// Writes `key`, and that of the node's wallet on Solana, to `file`, which must not exist, sealed under `passphrase`. `day` is for the
/// reader.
pub fn backup(
    key: &NodeKey,
    solana: Option<&SolanaKey>,
    file: &Path,
    passphrase: &str,
    day: &str,
) -> Result<(), IdentityError> {
    let mut text =
        format!("# Backup of the infernet key of {}, {day}.\n# `infernet key restore FILE` brings it back.\n", key.id());
    text += &(sealed::seal(key, passphrase) + "\n");
    if let Some(solana) = solana {
        text += &(sealed::seal_solana(solana, passphrase) + "\n");
    }
    write_new(file, &Zeroizing::new(text))
}

/// Brings the keys of a backup into `home`, which has none or these. Returns whose they are.
pub fn restore(
    home: &Path,
    file: &Path,
    ask: impl FnOnce() -> Result<Passphrase, IdentityError>,
) -> Result<(NodeId, Option<SolanaAddress>), IdentityError> {
    // First, so that a mistake leaves no home behind.
    let (key, solana) = open_backup(file, ask)?;
    make_home(home)?;
    check_home(home)?;
    // Both are compared before one is written.
    check_place(home, &key, solana.as_ref())?;
    written_once(write_whole(home, KEY_FILE, &key_file(&key, None)))?;
    if let Some(solana) = &solana {
        written_once(write_solana(home, solana))?;
    }
    check_place(home, &key, solana.as_ref())?;
    Ok((key.id(), solana.map(|solana| solana.address())))
}

/// Refuses a home with other keys than these.
fn check_place(home: &Path, key: &NodeKey, solana: Option<&SolanaKey>) -> Result<(), IdentityError> {
    let path = home.join(KEY_FILE);
    match public(home) {
        Err(IdentityError::Missing { .. }) => {}
        Ok((found, _)) if found == key.id() => {}
        Ok((found, _)) => return Err(IdentityError::OtherKey { path, found, restored: key.id() }),
        Err(error) => return Err(error),
    }
    let Some(restored) = solana.map(SolanaKey::address) else { return Ok(()) };
    match existing_solana_key(home)?.map(|found| found.address()).filter(|found| *found != restored) {
        Some(found) => Err(IdentityError::OtherWallet { path: home.join(SOLANA_KEY_FILE), found, restored }),
        None => Ok(()),
    }
}

/// What is there already, or another process wrote first, stays.
fn written_once(written: Result<(), IdentityError>) -> Result<(), IdentityError> {
    match written {
        Err(IdentityError::Exists { .. }) => Ok(()),
        done => done,
    }
}

/// Replaces the key file of `home` by one that is sealed under `passphrase`, or by a plain one.
pub fn rewrite(home: &Path, key: &NodeKey, passphrase: Option<&str>) -> Result<(), IdentityError> {
    let (path, draft) = (home.join(KEY_FILE), draft(home));
    if public(home)?.1 == passphrase.is_some() {
        return Err(IdentityError::Already { path, sealed: passphrase.is_some() });
    }
    write_new(&draft, &key_file(key, passphrase))?;
    fs::rename(&draft, &path).map_err(io_error("replace", &path))?;
    sync(home)
}

/// What a key file holds.
enum Secret {
    Plain(NodeKey),
    Sealed(String),
}

impl Secret {
    /// What a node's key file holds: nobody else may read it, even if it is sealed.
    fn read(path: &Path) -> Result<Self, IdentityError> {
        let (text, mode) = read_key(path)?;
        Self::unexposed(path, mode)?;
        Self::parse(&text).map_err(|reason| IdentityError::Malformed { path: path.into(), reason })
    }

    fn unexposed(path: &Path, mode: u32) -> Result<(), IdentityError> {
        if mode & OTHERS == 0 { Ok(()) } else { Err(IdentityError::Exposed { path: path.into(), mode: mode & 0o7777 }) }
    }

    fn parse(text: &[u8]) -> Result<Self, &'static str> {
        match sealed_line(text, sealed::MAGIC) {
            Some(line) => Ok(Secret::Sealed(line.into())),
            None => plain(text).map(Secret::Plain),
        }
    }

    /// Whose it is; `None` if the line is damaged.
    fn id(&self) -> Option<NodeId> {
        match self {
            Secret::Plain(key) => Some(key.id()),
            Secret::Sealed(line) => sealed::id(line),
        }
    }

    fn open(self, path: &Path, ask: impl FnOnce() -> Result<Passphrase, IdentityError>) -> Result<NodeKey, IdentityError> {
        match self {
            Secret::Plain(key) => Ok(key),
            Secret::Sealed(line) => {
                sealed::open(&line, &ask()?).map_err(|reason| IdentityError::Sealed { path: path.into(), reason })
            }
        }
    }
}

/// The line of a file that begins with `magic`.
fn sealed_line<'a>(text: &'a [u8], magic: &str) -> Option<&'a str> {
    std::str::from_utf8(text).ok()?.lines().map(str::trim).find(|line| line.starts_with(magic))
}

/// What a backup holds. A sealed one may lie where others can read it: that is what its passphrase is for.
fn open_backup(
    path: &Path,
    ask: impl FnOnce() -> Result<Passphrase, IdentityError>,
) -> Result<(NodeKey, Option<SolanaKey>), IdentityError> {
    let not = |reason| IdentityError::NotBackup { path: path.into(), reason };
    let (text, mode) = read_key(path).map_err(|error| match error {
        IdentityError::Missing { path } => IdentityError::NoBackup { path },
        IdentityError::Malformed { reason, .. } => not(reason),
        other => other,
    })?;
    let failed = |reason| IdentityError::Sealed { path: path.into(), reason };
    match Secret::parse(&text).map_err(not)? {
        Secret::Plain(key) => Secret::unexposed(path, mode).map(|()| (key, None)),
        Secret::Sealed(line) => {
            let passphrase = ask()?;
            let key = sealed::open(&line, &passphrase).map_err(failed)?;
            let solana = sealed_line(&text, sealed::SOLANA).map(|line| sealed::open_solana(line, &passphrase));
            Ok((key, solana.transpose().map_err(failed)?))
        }
    }
}

/// What the file at `path` holds, and its permission bits.
fn read_key(path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), IdentityError> {
    let mut file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { path: path.into() },
        _ => io_error("open", path)(error),
    })?;
    // Of the open file, not of the path: it can't be exchanged in between.
    let about = file.metadata().map_err(io_error("read", path))?;
    if !about.is_file() {
        return Err(IdentityError::Malformed { path: path.into(), reason: "not a regular file" });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES as usize));
    (&mut file).take(MAX_KEY_FILE_BYTES).read_to_end(&mut text).map_err(io_error("read", path))?;
    Ok((text, about.mode()))
}

/// Any bytes as a key file. A sealed one is not opened: that takes a second by design.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_file(data: &[u8]) {
    if let Ok(secret) = Secret::parse(data) {
        let _ = secret.id();
    }
}

fn plain(text: &[u8]) -> Result<NodeKey, &'static str> {
    let digits = text.trim_ascii();
    if digits.len() != 64 {
        return Err("it must be 64 hex digits");
    }
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *bytes).map_err(|_| "it must be 64 hex digits")?;
    NodeKey::from_bytes(&bytes).map_err(|_| "its digits are not a secp256k1 secret key")
}

/// What is written for `key`.
fn key_file(key: &NodeKey, passphrase: Option<&str>) -> Zeroizing<String> {
    Zeroizing::new(match passphrase {
        Some(passphrase) => sealed::seal(key, passphrase) + "\n",
        None => format!("{}\n", *Zeroizing::new(hex::encode(*key.secret_bytes()))),
    })
}

/// Writes a new key. If another process is faster, its key stays.
fn create(home: &Path) -> Result<(), IdentityError> {
    written_once(write_whole(home, KEY_FILE, &key_file(&new_key(), None)))
}

fn draft(home: &Path) -> PathBuf {
    home.join(format!(".{KEY_FILE}.{}", hex::encode(clock::random::<8>())))
}

/// Writes `home`'s file `name`, which must not exist: whole or not at all.
fn write_whole(home: &Path, name: &str, text: &Zeroizing<String>) -> Result<(), IdentityError> {
    let (path, draft) = (home.join(name), draft(home));
    let made = write_new(&draft, text).and_then(|()| {
        fs::hard_link(&draft, &path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists { path: path.clone() },
            _ => io_error("create", &path)(error),
        })
    });
    let cleaned = fs::remove_file(&draft).map_err(io_error("remove", &draft));
    made.and(cleaned)?;
    sync(home)
}

/// Writes `path`, which must not exist, for its owner alone.
fn write_new(path: &Path, text: &Zeroizing<String>) -> Result<(), IdentityError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let write = |mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    options.open(path).and_then(write).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => IdentityError::Exists { path: path.into() },
        _ => io_error("write", path)(error),
    })
}

fn sync(home: &Path) -> Result<(), IdentityError> {
    File::open(home).and_then(|dir| dir.sync_all()).map_err(io_error("sync", home))
}

fn new_key() -> NodeKey {
    loop {
        // All but one in 2^128 numbers of 32 bytes are keys.
        if let Ok(key) = NodeKey::from_bytes(&Zeroizing::new(clock::random())) {
            return key;
        }
    }
}

fn make_home(home: &Path) -> Result<(), IdentityError> {
    DirBuilder::new().recursive(true).mode(0o700).create(home).map_err(io_error("create", home))
}

fn check_home(home: &Path) -> Result<(), IdentityError> {
    match fs::metadata(home) {
        Ok(about) if about.mode() & OTHERS_WRITE != 0 => {
            Err(IdentityError::ExposedHome { home: home.into(), mode: about.mode() & 0o7777 })
        }
        _ => Ok(()),
    }
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> IdentityError + use<> {
    let path = path.to_owned();
    move |source| IdentityError::Io { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests;
