//! Keys that are made, refused, sealed, brought back and replaced.

use super::*;
use infernet_wire::{time::UnixMillis, topic::NetworkId};
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

const PASSPHRASE: &str = "correct horse battery staple";

fn given(passphrase: &str) -> impl FnOnce() -> Result<Passphrase, IdentityError> {
    let passphrase = Zeroizing::new(passphrase.to_owned());
    || Ok(passphrase)
}

#[test]
fn a_backup_brings_the_key_back_and_overwrites_nothing() {
    let (home, elsewhere) = (home(), self::home());
    let key = init(home.path()).unwrap();
    let file = elsewhere.path().join("backup");
    backup(&key, None, &file, PASSPHRASE, "2026-11-25").unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("key restore") && text.contains(&key.id().to_string()), "{text}");
    assert!(!text.contains(&hex::encode(*key.secret_bytes())), "the key is sealed");
    assert_eq!(mode(&file), 0o600);
    assert!(backup(&key, None, &file, PASSPHRASE, "").unwrap_err().to_string().contains("exists already"));

    let restored = elsewhere.path().join("home");
    assert!(restore(&restored, &file, given("wrong horse")).unwrap_err().to_string().contains("passphrase is wrong"));
    assert!(!restored.join(KEY_FILE).exists());
    assert_eq!(restore(&restored, &file, given(PASSPHRASE)).unwrap().0, key.id());
    assert_eq!((load(&restored).unwrap().id(), mode(&restored.join(KEY_FILE))), (key.id(), 0o600));
    assert_eq!(restore(&restored, &file, given(PASSPHRASE)).unwrap().0, key.id(), "twice is once");

    let other = self::home();
    let theirs = init(other.path()).unwrap().id();
    let error = restore(other.path(), &file, given(PASSPHRASE)).unwrap_err().to_string();
    assert!(error.contains(&theirs.to_string()) && error.contains("move it away"), "{error}");
    assert_eq!(load(other.path()).unwrap().id(), theirs);
}

#[test]
fn the_wallets_key_goes_along_and_overwrites_nothing() {
    let (home, elsewhere) = (home(), self::home());
    let (key, wallet) = (init(home.path()).unwrap(), solana_key(home.path()).unwrap());
    let file = elsewhere.path().join("backup");
    backup(&key, Some(&wallet), &file, PASSPHRASE, "2026-11-25").unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(&wallet.address().to_string()) && !text.contains(&hex::encode(*wallet.seed())), "{text}");

    let restored = elsewhere.path().join("home");
    let both = (key.id(), Some(wallet.address()));
    assert!(restore(&restored, &file, given("wrong horse")).is_err() && !restored.exists());
    assert_eq!(restore(&restored, &file, given(PASSPHRASE)).unwrap(), both);
    assert_eq!(existing_solana_key(&restored).unwrap().map(|key| key.address()), both.1);
    assert_eq!(mode(&restored.join(SOLANA_KEY_FILE)), 0o600);
    assert_eq!(restore(&restored, &file, given(PASSPHRASE)).unwrap(), both, "twice is once");

    // Of a home with another wallet, neither key is touched, nor is one made.
    let other = self::home();
    let theirs = solana_key(other.path()).unwrap().address();
    let error = restore(other.path(), &file, given(PASSPHRASE)).unwrap_err().to_string();
    assert!(error.contains(&theirs.to_string()) && error.contains("move it away"), "{error}");
    assert_eq!(existing_solana_key(other.path()).unwrap().map(|key| key.address()), Some(theirs));
    assert!(!other.path().join(KEY_FILE).exists());

    // A line that was changed is noticed before anything is written.
    let new = elsewhere.path().join("new");
    fs::write(&file, text.replace("infernet-solana-1 id=", "infernet-solana-1 id=1")).unwrap();
    assert!(restore(&new, &file, given(PASSPHRASE)).unwrap_err().to_string().contains("was changed") && !new.exists());
}

#[test]
fn what_can_not_be_restored_is_told_with_the_way_out() {
    let (home, elsewhere) = (home(), self::home());
    let (key, file) = (init(home.path()).unwrap(), elsewhere.path().join("backup"));
    let new = elsewhere.path().join("new");
    let check = |text: Option<&str>, mode, words: &[&str]| {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
            chmod(&file, mode);
        }
        let error = restore(&new, &file, given(PASSPHRASE)).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "{word:?} in {error}"));
        assert!(!error.contains("infernet init") && !new.exists(), "{error}");
    };
    check(None, 0, &["there is no file", "key backup"]);
    check(Some("a letter\n"), 0o600, &["no backup of a key", "key backup"]);
    let plain = fs::read_to_string(home.path().join(KEY_FILE)).unwrap();
    check(Some(&plain), 0o644, &["0644", "chmod 600"]);
    fs::remove_file(&file).unwrap();
    backup(&key, None, &file, PASSPHRASE, "2026-11-25").unwrap();
    chmod(&file, 0o644);
    assert_eq!(restore(&new, &file, given(PASSPHRASE)).unwrap().0, key.id(), "it is sealed, so others may see it");
}

#[test]
fn an_encrypted_key_file_needs_its_passphrase() {
    let home = home();
    let key = init(home.path()).unwrap();
    rewrite(home.path(), &key, Some(PASSPHRASE)).unwrap();
    let path = home.path().join(KEY_FILE);
    assert!(!fs::read_to_string(&path).unwrap().contains(&hex::encode(*key.secret_bytes())));
    assert_eq!((mode(&path), public(home.path()).unwrap()), (0o600, (key.id(), true)));
    for error in [load(home.path()).unwrap_err(), init(home.path()).unwrap_err()] {
        assert!(error.to_string().contains(PASSPHRASE_FILE), "{error}");
    }
    assert_eq!(load_with(home.path(), given(PASSPHRASE)).unwrap().id(), key.id());
    assert!(load_with(home.path(), given("wrong horse")).unwrap_err().to_string().contains("passphrase is wrong"));
    assert!(rewrite(home.path(), &key, Some(PASSPHRASE)).unwrap_err().to_string().contains("encrypted already"));
    rewrite(home.path(), &key, None).unwrap();
    assert_eq!(load(home.path()).unwrap().id(), key.id());
    assert!(rewrite(home.path(), &key, None).unwrap_err().to_string().contains("in plain already"));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no draft is left");
}

fn main_net() -> NetworkId {
    NetworkId::default()
}

#[test]
fn rotations_make_a_chain_and_keep_the_old_keys() {
    let home = home();
    let first = init(home.path()).unwrap();
    let turn = |old: &NodeKey, at| rotate(home.path(), old, None, &main_net(), UnixMillis(at)).unwrap();
    let rotated = turn(&first, 1);
    let second = load(home.path()).unwrap();
    assert_eq!((rotated.statement.statement().old, rotated.statement.statement().new), (first.id(), second.id()));
    assert_eq!(plain(&fs::read(&rotated.backup).unwrap()).unwrap().id(), first.id());
    assert_eq!(mode(&rotated.backup), 0o600);
    turn(&second, 2);
    let third = load(home.path()).unwrap();
    let ids = |key: &NodeKey| {
        history(home.path(), &key.id(), &main_net()).unwrap().iter().map(|r| r.statement().new).collect::<Vec<_>>()
    };
    assert_eq!(ids(&third), [second.id(), third.id()]);
    assert_eq!(ids(&second), [second.id()]);
    assert_eq!(ids(&first), []);
}

#[test]
fn a_rotation_that_was_cut_off_goes_on_with_the_same_key() {
    let home = home();
    let old = init(home.path()).unwrap();
    // All but the last step.
    let kept = fs::read(home.path().join(KEY_FILE)).unwrap();
    let first = rotate(home.path(), &old, None, &main_net(), UnixMillis(1)).unwrap();
    fs::rename(home.path().join(KEY_FILE), home.path().join("identity.key.next")).unwrap();
    fs::remove_file(&first.backup).unwrap();
    fs::write(home.path().join(KEY_FILE), kept).unwrap();
    chmod(&home.path().join(KEY_FILE), 0o600);

    let again = rotate(home.path(), &old, None, &main_net(), UnixMillis(2)).unwrap();
    assert_eq!(again.statement.encode(), first.statement.encode());
    assert_eq!(load(home.path()).unwrap().id(), again.statement.statement().new);
    assert_eq!(history(home.path(), &again.statement.statement().new, &main_net()).unwrap().len(), 1);
}

#[test]
fn the_next_key_of_an_encrypted_one_is_encrypted_too() {
    let home = home();
    let old = init(home.path()).unwrap();
    rewrite(home.path(), &old, Some(PASSPHRASE)).unwrap();
    let rotated = rotate(home.path(), &old, Some(PASSPHRASE), &main_net(), UnixMillis(1)).unwrap();
    assert!(public(home.path()).unwrap().1);
    let new = load_with(home.path(), given(PASSPHRASE)).unwrap().id();
    assert_eq!(new, rotated.statement.statement().new);
}
