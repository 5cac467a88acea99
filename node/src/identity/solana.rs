//! The node's key on Solana: `<home>/solana.key`, made when it is first needed. The file is as `solana-keygen` writes it, 64 numbers
//! in brackets, so that any wallet of Solana's takes it over. A backup of the node's key holds it too. It is kept as the node's own key is:
//! whole or not at all, readable by its owner alone. It is not sealed: hold in it what may be lost, as in any hot wallet.

use super::{IdentityError, Secret, check_home, read_key, write_whole, written_once};
use crate::{clock, settlement::solana::key::SolanaKey};
use std::path::Path;
use zeroize::Zeroizing;

/// The key's file in a home.
pub const SOLANA_KEY_FILE: &str = "solana.key";

/// The key of `home`, made if there is none.
pub fn solana_key(home: &Path) -> Result<SolanaKey, IdentityError> {
    if let Some(key) = existing_solana_key(home)? {
        return Ok(key);
    }
    written_once(write_solana(home, &SolanaKey::from_bytes(&Zeroizing::new(clock::random()))))?;
    existing_solana_key(home)?.ok_or_else(|| IdentityError::Missing { path: home.join(SOLANA_KEY_FILE) })
}

/// Writes the key of `home`, which must have none.
pub(super) fn write_solana(home: &Path, key: &SolanaKey) -> Result<(), IdentityError> {
    let numbers: Vec<String> = key.to_keypair_bytes().iter().map(u8::to_string).collect();
    write_whole(home, SOLANA_KEY_FILE, &Zeroizing::new(format!("[{}]\n", numbers.join(","))))
}

/// The key of `home`, if there is one.
pub fn existing_solana_key(home: &Path) -> Result<Option<SolanaKey>, IdentityError> {
    check_home(home)?;
    let path = home.join(SOLANA_KEY_FILE);
    let (text, mode) = match read_key(&path) {
        Err(IdentityError::Missing { .. }) => return Ok(None),
        read => read?,
    };
    Secret::unexposed(&path, mode)?;
    parse(&text).map(Some).ok_or(IdentityError::NotSolana { path })
}

fn parse(text: &[u8]) -> Option<SolanaKey> {
    let numbers: Zeroizing<Vec<u8>> = Zeroizing::new(serde_json::from_slice(text).ok()?);
    SolanaKey::from_keypair_bytes(&Zeroizing::new(numbers.as_slice().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn the_key_is_made_once_for_its_owner_alone_and_read_again() {
        let home = tempfile::tempdir().expect("a folder");
        assert!(existing_solana_key(home.path()).expect("none").is_none());
        let key = solana_key(home.path()).expect("made");
        let again = solana_key(home.path()).expect("read");
        assert_eq!(key.address(), again.address());
        let path = home.path().join(SOLANA_KEY_FILE);
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(home.path()).expect("a folder").count(), 1, "no draft is left");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
        let told = solana_key(home.path()).expect_err("others may read it").to_string();
        assert!(told.contains("chmod 600"), "{told}");
    }

    /// A file of `solana-keygen`: the seed, then its public key.
    #[test]
    fn a_file_of_solana_keygen_is_read_and_a_damaged_one_is_told_without_what_is_in_it() {
        let key = SolanaKey::from_bytes(&[3; 32]);
        let shown = |bytes: &[u8]| serde_json::to_vec(bytes).expect("JSON");
        let whole = key.to_keypair_bytes();
        assert_eq!(parse(&shown(&*whole)).map(|key| key.address()), Some(key.address()));
        let mut other = *whole;
        other[40] ^= 1;
        for bad in [shown(&other), shown(&whole[..63]), b"[]".to_vec(), b"[256]".to_vec(), b"\"3\"".to_vec(), vec![0xff]] {
            assert!(parse(&bad).is_none());
        }
        let home = tempfile::tempdir().expect("a folder");
        write_whole(home.path(), SOLANA_KEY_FILE, &Zeroizing::new("[3,3,3]".into())).expect("written");
        let told = solana_key(home.path()).expect_err("damaged");
        assert!(!format!("{told} {told:?}").contains("3,3"), "{told}");
    }
}
