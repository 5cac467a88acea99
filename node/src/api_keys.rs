//! Who may use the API: the node's own token, and named keys with caps of their own.
//!
//! On loopback nobody needs a key: who can connect can read the home, too. But a key that is shown must be right: one of ours by
//! its looks, or any at all once there are named keys. (OpenAI's clients always show some key; without named keys a foreign one
//! is passed over.) Beyond loopback a key is required, and the node makes one, `<home>/api-token`, when it first listens there.
//!
//! Named keys are in `<home>/api-keys.toml`, as hashes: a key is shown once, when it is made. A running node looks at
//! each request whether the file is another one, which costs a `stat`, so that a new key is good and a removed one void at once. Both files are readable by their owner alone, and refused if they are not. Keys have 256 random bits, so a
//! plain hash is enough; hashes are compared in constant time.

use crate::{
    api::{Authenticate, access::Caller, error::ApiError},
    clock, files,
    spend::{ALL, Caps},
    toml_text,
};
use futures::{FutureExt, future};
use infernet_wire::{hash, id::Hash, money::MicroUsd};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tracing::warn;
use zeroize::Zeroizing;

/// The node's own token in a home.
pub const TOKEN_FILE: &str = "api-token";
/// The named keys in a home.
pub const KEYS_FILE: &str = "api-keys.toml";
/// How every key of ours begins: people and scanners for leaked secrets know it by that.
const PREFIX: &str = "sk-infernet-";
/// Keys of one node: made by hand, one for each person or program.
pub const MAX_KEYS: usize = 512;
/// The longest name of a key.
pub const MAX_NAME: usize = 64;
/// What is read of either file at most: [`MAX_KEYS`] keys are some 150 kB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Keys can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Others may read the file.
    #[error("others may read {} (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not what was written.
    #[error("{} can't be read ({reason}): mend it, or move it away and make new keys with `infernet api-key add`", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, without what is in it.
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
    /// The name is no name.
    #[error("a key's name has 1 to {MAX_NAME} letters, digits, dots, dashes or underscores")]
    Name,
    /// The name is taken.
    #[error("there is a key {0:?} already: remove it first, or choose another name")]
    Taken(String),
    /// There is no such key.
    #[error("there is no key {0:?}: see `infernet api-key list`")]
    Unknown(String),
    /// Too many keys.
    #[error("there are {MAX_KEYS} keys already: remove some")]
    Full,
}

/// A named key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Its name.
    pub name: String,
    /// The hash of the key.
    hash: Hash,
    /// The most that one request may cost, in micro-USD.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub per_request: Option<u64>,
    /// The most that all requests of a day may cost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub per_day: Option<u64>,
}

impl ApiKey {
    fn caps(&self) -> Caps {
        Caps { per_request: self.per_request.map(MicroUsd), per_day: self.per_day.map(MicroUsd) }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    key: Vec<ApiKey>,
}

/// The named keys of `home`.
pub fn list(home: &Path) -> Result<Vec<ApiKey>, KeyError> {
    let path = home.join(KEYS_FILE);
    let Some(text) = read_private(&path)? else { return Ok(Vec::new()) };
    let malformed = |reason: &str| KeyError::Malformed { path: path.clone(), reason: reason.into() };
    let file: KeysFile = toml::from_str(&text).map_err(|error| malformed(&toml_text::reason(&text, &error)))?;
    if file.key.len() > MAX_KEYS { Err(malformed("too many keys")) } else { Ok(file.key) }
}

/// Makes a key `name` and returns it; it can't be shown again.
pub fn add(home: &Path, name: &str, per_request: Option<u64>, per_day: Option<u64>) -> Result<Zeroizing<String>, KeyError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !(1..=MAX_NAME).contains(&name.len()) || !name.chars().all(plain) {
        return Err(KeyError::Name);
    }
    let mut keys = list(home)?;
    if keys.iter().any(|key| key.name == name) {
        return Err(KeyError::Taken(name.into()));
    }
    if keys.len() >= MAX_KEYS {
        return Err(KeyError::Full);
    }
    let token = new_token();
    keys.push(ApiKey { name: name.into(), hash: hash_of(&token), per_request, per_day });
    write_keys(home, keys)?;
    Ok(token)
}

/// Forgets the key `name`.
pub fn remove(home: &Path, name: &str) -> Result<(), KeyError> {
    let mut keys = list(home)?;
    let before = keys.len();
    keys.retain(|key| key.name != name);
    if keys.len() == before { Err(KeyError::Unknown(name.into())) } else { write_keys(home, keys) }
}

fn write_keys(home: &Path, key: Vec<ApiKey>) -> Result<(), KeyError> {
    let text = toml::to_string(&KeysFile { key }).unwrap_or_default();
    write_private(&home.join(KEYS_FILE), text.as_bytes())
}

fn new_token() -> Zeroizing<String> {
    Zeroizing::new(format!("{PREFIX}{}", *Zeroizing::new(hex::encode(clock::random::<32>()))))
}

fn hash_of(token: &str) -> Hash {
    hash::tagged("infernet/api-key/1", &[token.as_bytes()])
}

/// Looks at every byte, whatever the first ones say.
fn same(a: &Hash, b: &Hash) -> bool {
    a.as_bytes().iter().zip(b.as_bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// The file's text; `None` if there is none.
fn read_private(path: &Path) -> Result<Option<String>, KeyError> {
    let io_error = |source| KeyError::Io { path: path.into(), source };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_error)?,
    };
    let mode = file.metadata().map_err(io_error)?.mode();
    if mode & OTHERS != 0 {
        return Err(KeyError::Exposed { path: path.into(), mode: mode & 0o7777 });
    }
    let mut text = String::new();
    (&mut file).take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io_error)?;
    Ok(Some(text))
}

/// Replaces the file, whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    files::replace(path, bytes, Some(0o600)).map_err(|source| KeyError::Io { path: path.into(), source })
}

/// The node's own token, made if there is none.
fn token(home: &Path) -> Result<Zeroizing<String>, KeyError> {
    let path = home.join(TOKEN_FILE);
    if let Some(text) = read_private(&path)?.map(Zeroizing::new) {
        let token = text.trim();
        let short = || KeyError::Malformed { path, reason: "a token has at least 32 characters".into() };
        return if token.len() < 32 { Err(short()) } else { Ok(Zeroizing::new(token.to_owned())) };
    }
    let token = new_token();
    write_private(&path, Zeroizing::new(format!("{}\n", *token)).as_bytes())?;
    Ok(token)
}

/// Who asks, by the keys of `home`. Where `required`, the node's own token is made.
pub fn authenticate(home: &Path, required: bool) -> Result<Authenticate, KeyError> {
    let own =
        if required { Some(hash_of(&token(home)?)) } else { read_private(&home.join(TOKEN_FILE))?.map(|t| hash_of(t.trim())) };
    let keys = list(home)?;
    let seen = Seen { stamp: stamp(home), keys };
    let ring = Ring { home: home.into(), required, own, seen: Mutex::new(seen) };
    Ok(Arc::new(move |bearer| future::ready(ring.caller(bearer)).boxed()))
}

struct Ring {
    home: PathBuf,
    required: bool,
    own: Option<Hash>,
    seen: Mutex<Seen>,
}

/// The keys as they were at a time.
struct Seen {
    stamp: Stamp,
    keys: Vec<ApiKey>,
}

/// Changes when the file does, or who may read it.
type Stamp = Option<(u64, i64, i64)>;

fn stamp(home: &Path) -> Stamp {
    fs::metadata(home.join(KEYS_FILE)).ok().map(|about| (about.ino(), about.ctime(), about.ctime_nsec()))
}

impl Ring {
    fn caller(&self, bearer: Option<&str>) -> Result<Caller, ApiError> {
        // Nothing in here panics while it holds the lock.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.look(&self.home);
        decide(bearer, self.required, self.own.as_ref(), &seen.keys)
    }
}

impl Seen {
    fn look(&mut self, home: &Path) {
        let stamp = stamp(home);
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        match list(home) {
            Ok(keys) => self.keys = keys,
            // Until it can be read, the keys that were known count.
            Err(error) => warn!("the API's keys stay as they were: {error}"),
        }
    }
}

fn decide(bearer: Option<&str>, required: bool, own: Option<&Hash>, keys: &[ApiKey]) -> Result<Caller, ApiError> {
    let Some(token) = bearer else {
        let fix = "show a key as `Authorization: Bearer …`: the node's own is in api-token in its home";
        return if required { Err(ApiError::unauthorised(fix)) } else { Ok(Caller::operator()) };
    };
    let hash = hash_of(token);
    let named = keys.iter().fold(None, |found, key| if same(&key.hash, &hash) { Some(key) } else { found });
    let is_own = own.is_some_and(|own| same(own, &hash));
    match named {
        _ if is_own => Ok(Caller { key: ALL.into(), caps: Caps::default() }),
        Some(key) => Ok(Caller { key: key.name.clone(), caps: key.caps() }),
        None if required || !keys.is_empty() || token.starts_with(PREFIX) => {
            Err(ApiError::unauthorised("this API key is not known here: see `infernet api-key list`, or make one with `add`"))
        }
        None => Ok(Caller::operator()),
    }
}

/// Any text as the file of keys.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_file(text: &str) {
    if let Ok(file) = toml::from_str::<KeysFile>(text) {
        file.key.iter().for_each(|key| _ = key.caps());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn home() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    fn mode(path: PathBuf) -> u32 {
        fs::metadata(path).expect("exists").mode() & 0o777
    }

    fn asking(home: &Path, required: bool) -> impl Fn(Option<&str>) -> Result<Caller, ApiError> {
        let ask = authenticate(home, required).unwrap();
        move |bearer| ask(bearer).now_or_never().expect("it does not wait")
    }

    fn code(result: Result<Caller, ApiError>) -> Result<String, &'static str> {
        result.map(|caller| caller.key).map_err(|error| error.code)
    }

    #[test]
    fn on_loopback_only_a_wrong_key_is_refused() {
        let home = home();
        let ask = asking(home.path(), false);
        assert_eq!(code(ask(None)), Ok(String::new()));
        assert_eq!(code(ask(Some("not-needed"))), Ok(String::new()), "clients show anything");
        assert_eq!(code(ask(Some("sk-infernet-wrong"))), Err("invalid_api_key"));
        assert!(!home.path().join(TOKEN_FILE).exists());
    }

    #[test]
    fn beyond_loopback_a_key_is_required_and_made() {
        let home = home();
        let ask = asking(home.path(), true);
        assert_eq!(mode(home.path().join(TOKEN_FILE)), 0o600);
        let token = fs::read_to_string(home.path().join(TOKEN_FILE)).unwrap();
        assert_eq!(code(ask(None)), Err("invalid_api_key"));
        assert_eq!(code(ask(Some("x"))), Err("invalid_api_key"));
        assert_eq!(code(ask(Some(token.trim()))), Ok(String::new()));
        let again = asking(home.path(), true);
        assert_eq!(code(again(Some(token.trim()))), Ok(String::new()), "it stays the same");
    }

    #[test]
    fn named_keys_have_caps_and_are_kept_as_hashes() {
        let home = home();
        let token = add(home.path(), "ci", Some(5), Some(10)).unwrap();
        let file = fs::read_to_string(home.path().join(KEYS_FILE)).unwrap();
        assert!(!file.contains(token.trim_start_matches(PREFIX)), "{file}");
        assert_eq!(mode(home.path().join(KEYS_FILE)), 0o600);
        let ask = asking(home.path(), false);
        let caller = ask(Some(&token)).unwrap();
        assert_eq!((caller.key.as_str(), caller.caps.per_day), ("ci", Some(MicroUsd(10))));
        assert_eq!(code(ask(Some("something"))), Err("invalid_api_key"), "with named keys a key that is shown must be one");
        assert_eq!(code(ask(None)), Ok(String::new()));
        assert!(matches!(add(home.path(), "ci", None, None), Err(KeyError::Taken(_))));
        assert!(matches!(add(home.path(), "c i", None, None), Err(KeyError::Name)));
        remove(home.path(), "ci").unwrap();
        assert!(matches!(remove(home.path(), "ci"), Err(KeyError::Unknown(_))));
        assert!(list(home.path()).unwrap().is_empty());
    }

    #[test]
    fn a_running_node_sees_new_keys_at_once_and_keeps_those_it_knows_while_the_file_is_damaged() {
        let home = home();
        let ask = asking(home.path(), true);
        let token = add(home.path(), "new", None, None).unwrap();
        assert_eq!(code(ask(Some(&token))), Ok("new".into()));
        let path = home.path().join(KEYS_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(code(ask(Some(&token))), Ok("new".into()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        remove(home.path(), "new").unwrap();
        assert_eq!(code(ask(Some(&token))), Err("invalid_api_key"));
    }

    #[test]
    fn files_that_others_may_read_or_that_are_damaged_are_refused() {
        let home = home();
        add(home.path(), "a", None, None).unwrap();
        let path = home.path().join(KEYS_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = list(home.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "key = 3").unwrap();
        assert!(matches!(list(home.path()), Err(KeyError::Malformed { .. })));
        fs::write(home.path().join(TOKEN_FILE), "short").unwrap();
        fs::set_permissions(home.path().join(TOKEN_FILE), fs::Permissions::from_mode(0o600)).unwrap();
        assert!(token(home.path()).is_err());
    }
}
