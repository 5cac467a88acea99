//! The node's key on disk: `<home>/identity.key`, 64 hex digits and a line feed, readable by its owner alone.
//!
//! The file appears whole or not at all, and is never overwritten: it is written beside its place, synced, and linked there,
//! which fails if another process was faster. Loading refuses a file that anyone else may read, so that a careless copy is
//! noticed before it costs money. The key itself is in no error, log or debug output; buffers that held it are wiped.

use crate::clock;
use infernet_wire::key::NodeKey;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The key's file in a home.
pub const KEY_FILE: &str = "identity.key";

/// What is read of a key file at most: the digits, a line feed, and a little more to notice what does not belong.
const MAX_KEY_FILE_BYTES: u64 = 128;
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

/// The key of `home`, made if there is none. Makes the home, too, for its owner alone (mode 0700).
pub fn init(home: &Path) -> Result<NodeKey, IdentityError> {
    make_home(home)?;
    match load(home) {
        Err(IdentityError::Missing { .. }) => {
            create(home)?;
            load(home)
        }
        other => other,
    }
}

/// The key of `home`, which must exist.
pub fn load(home: &Path) -> Result<NodeKey, IdentityError> {
    check_home(home)?;
    let path = home.join(KEY_FILE);
    let mut file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing { path: path.clone() },
        _ => io_error("open", &path)(error),
    })?;
    // Of the open file, not of the path: it can't be exchanged in between.
    let about = file.metadata().map_err(io_error("read", &path))?;
    if !about.is_file() {
        return Err(IdentityError::Malformed { path, reason: "not a regular file" });
    }
    if about.mode() & OTHERS != 0 {
        return Err(IdentityError::Exposed { path, mode: about.mode() & 0o7777 });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES as usize));
    (&mut file).take(MAX_KEY_FILE_BYTES).read_to_end(&mut text).map_err(io_error("read", &path))?;
    parse(&text).map_err(|reason| IdentityError::Malformed { path, reason })
}

fn parse(text: &[u8]) -> Result<NodeKey, &'static str> {
    let digits = text.trim_ascii();
    if digits.len() != 64 {
        return Err("it must be 64 hex digits");
    }
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *bytes).map_err(|_| "it must be 64 hex digits")?;
    NodeKey::from_bytes(&bytes).map_err(|_| "its digits are not a secp256k1 secret key")
}

/// Writes a new key. If another process is faster, its key stays.
fn create(home: &Path) -> Result<(), IdentityError> {
    let path = home.join(KEY_FILE);
    let draft = home.join(format!(".{KEY_FILE}.{}", hex::encode(clock::random::<8>())));
    let made = write_draft(&draft).and_then(|()| match fs::hard_link(&draft, &path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error("create", &path)(error)),
        _ => Ok(()),
    });
    let cleaned = fs::remove_file(&draft).map_err(io_error("remove", &draft));
    made.and(cleaned)?;
    File::open(home).and_then(|dir| dir.sync_all()).map_err(io_error("sync", home))
}

fn write_draft(draft: &Path) -> Result<(), IdentityError> {
    let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(*new_key().secret_bytes()))));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let write = |mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    options.open(draft).and_then(write).map_err(io_error("write", draft))
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn home() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").mode() & 0o777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("is ours");
    }

    #[test]
    fn init_makes_one_key_and_keeps_it() {
        let dir = home();
        let home = dir.path().join("a/b");
        let key = init(&home).unwrap();
        assert_eq!(init(&home).unwrap().id(), key.id());
        assert_eq!(load(&home).unwrap().id(), key.id());
        assert_eq!((mode(&home), mode(&home.join(KEY_FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "no draft is left");
        assert_ne!(init(dir.path()).unwrap().id(), key.id());
    }

    #[test]
    fn of_two_at_once_one_key_stays() {
        let home = home();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| init(home.path()).unwrap().id())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let home = home();
        init(home.path()).unwrap();
        let path = home.path().join(KEY_FILE);
        for bits in [0o640, 0o604, 0o644, 0o660, 0o601] {
            chmod(&path, bits);
            let error = load(home.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
            assert!(init(home.path()).is_err(), "init does not repair it silently");
        }
        chmod(&path, 0o400);
        assert!(load(home.path()).is_ok());
    }

    #[test]
    fn a_home_that_others_may_write_is_refused() {
        let home = home();
        init(home.path()).unwrap();
        chmod(home.path(), 0o777);
        let error = load(home.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
        chmod(home.path(), 0o755);
        assert!(load(home.path()).is_ok(), "others may look");
    }

    fn check_content(content: &[u8], expected: &str) {
        let home = home();
        let path = home.path().join(KEY_FILE);
        fs::write(&path, content).unwrap();
        chmod(&path, 0o600);
        match load(home.path()) {
            Ok(key) => assert_eq!(key.id(), NodeKey::from_bytes(&[7; 32]).unwrap().id()),
            Err(error) => {
                let error = error.to_string();
                assert!(!expected.is_empty() && error.contains(expected), "{error}");
                assert!(!error.contains("0707"), "no part of the key is shown: {error}");
            }
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_showing_it() {
        let key = hex::encode([7; 32]);
        check_content(key.as_bytes(), "");
        check_content(format!("  {}\r\n", key.to_uppercase()).as_bytes(), "");
        check_content(b"", "64 hex digits");
        check_content(&key.as_bytes()[..63], "64 hex digits");
        check_content(format!("{key}07").as_bytes(), "64 hex digits");
        check_content(format!("{}zz", &key[..62]).as_bytes(), "64 hex digits");
        check_content(&[7; 32], "64 hex digits");
        check_content("0".repeat(64).as_bytes(), "secp256k1");
        check_content("f".repeat(64).as_bytes(), "secp256k1");
    }

    #[test]
    fn a_missing_key_says_what_to_do() {
        let error = load(home().path()).unwrap_err().to_string();
        assert!(error.contains("infernet init"), "{error}");
        let home = home();
        fs::create_dir(home.path().join(KEY_FILE)).unwrap();
        assert!(matches!(load(home.path()), Err(IdentityError::Malformed { reason: "not a regular file", .. })));
    }
}
