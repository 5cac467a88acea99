//! API keys: `sk-plane-` and 64 hexadecimal digits. A key has 256 random bits, so a plain hash keeps it: the store holds that,
//! and to look a key up is to compare hashes, which tells a guesser nothing.

use super::{KeyWish, Scope, name};
use crate::store::{ClientId, KeyRow};
use infernet_node::clock;
use infernet_wire::{hash, id::Hash, time::UnixMillis};
use zeroize::Zeroizing;

/// How every key begins: people and scanners for leaked secrets know it by that.
pub const PREFIX: &str = "sk-plane-";
/// Characters by which a key is spoken of: its prefix and eight digits, which leaves 224 bits to guess.
const SHOWN: usize = PREFIX.len() + 8;
/// Requests a minute where nobody says otherwise.
pub const PER_MINUTE: u32 = 300;
/// The most requests a minute that a key may be given.
pub const MAX_PER_MINUTE: u32 = 60_000;

/// What the store knows a key by.
pub fn hash_of(key: &str) -> Hash {
    hash::sha256(key.as_bytes())
}

/// A new key of `client`.
pub(super) fn new(client: &ClientId, wish: KeyWish, now: UnixMillis) -> (Zeroizing<String>, KeyRow) {
    let secret = Zeroizing::new(hex::encode(clock::random::<32>()));
    let text = Zeroizing::new(format!("{PREFIX}{}", *secret));
    let scopes = if wish.scopes.is_empty() { vec![Scope::Jobs.name().to_owned()] } else { wish.scopes };
    let row = KeyRow {
        hash: hash_of(&text),
        prefix: text.chars().take(SHOWN).collect(),
        client: client.clone(),
        name: name(&wish.name, "key"),
        scopes,
        per_day: wish.per_day,
        per_minute: wish.per_minute.unwrap_or(PER_MINUTE).clamp(1, MAX_PER_MINUTE),
        created: now,
        expires: wish.expires,
        used: None,
        revoked: None,
    };
    (text, row)
}

/// The row, if the key is good at `now`; else why not.
pub fn check(row: Option<KeyRow>, now: UnixMillis) -> Result<KeyRow, &'static str> {
    match row {
        None => Err("this key is not known here: make one at this plane"),
        Some(row) if row.revoked.is_some() => Err("this key was revoked: make a new one"),
        Some(row) if row.expires.is_some_and(|expires| expires <= now) => Err("this key has expired: make a new one"),
        Some(row) => Ok(row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_good_until_it_expires_or_is_revoked() {
        let client = ClientId("cl_x".into());
        let wish = KeyWish { expires: Some(UnixMillis(10)), ..KeyWish::default() };
        let (text, row) = new(&client, wish, UnixMillis(1));
        assert_eq!((row.hash, row.scopes.as_slice()), (hash_of(&text), &["jobs".to_owned()][..]));
        assert!(text.starts_with(&row.prefix) && row.prefix.len() < 20 && text.len() == PREFIX.len() + 64);
        assert!(check(Some(row.clone()), UnixMillis(9)).is_ok());
        assert!(check(Some(row.clone()), UnixMillis(10)).unwrap_err().contains("expired"));
        let revoked = KeyRow { revoked: Some(UnixMillis(2)), ..row };
        assert!(check(Some(revoked), UnixMillis(3)).unwrap_err().contains("revoked"));
        assert!(check(None, UnixMillis(3)).is_err());
    }
}
