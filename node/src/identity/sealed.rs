//! A key under a passphrase: the format of backups and of encrypted key files.
//!
//! One line of text, after any number of lines that begin with `#`, and in a backup a second one if there is a wallet on Solana:
//!
//! ```text
//! infernet-key-1 id=16Uiu2H… argon2id m=65536 t=3 p=4 salt=<32 hex> nonce=<24 hex> sealed=<96 hex>
//! infernet-solana-1 id=9hSR6S7W… argon2id m=65536 t=3 p=4 salt=<32 hex> nonce=<24 hex> sealed=<96 hex>
//! ```
//!
//! The passphrase's UTF-8 bytes and the salt give a 32-byte key by Argon2id (RFC 9106, version 0x13; `m` in KiB). `sealed` is the
//! 32-byte secret scalar, or Solana's seed, under ChaCha20-Poly1305 (RFC 8439) with that key and nonce; what stands before ` sealed=` is the
//! associated data, so that no field can be exchanged. `id` is the node id, or the wallet's address, so that it can be told without the
//! passphrase; it is compared after opening. The only file that names `argon2`.

use crate::{clock, settlement::solana::key::SolanaKey};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{Aead, Payload},
};
use infernet_wire::{id::NodeId, key::NodeKey};
use zeroize::Zeroizing;

/// What a sealed key's line begins with.
pub(super) const MAGIC: &str = "infernet-key-1";
/// And that of Solana's. A version that does not know it finds the node's all the same.
pub(super) const SOLANA: &str = "infernet-solana-1";
/// RFC 9106's second choice: 64 MiB, three passes, four lanes. A tenth of a second here, some 10^5 guesses a day on a GPU's memory.
const COST: Cost = Cost { m: 64 * 1024, t: 3, p: 4 };
/// What a file may ask of this machine: a gigabyte for a minute.
const MAX_COST: Cost = Cost { m: 1024 * 1024, t: 64, p: 16 };

/// What a guess costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    /// Memory in KiB.
    m: u32,
    /// Passes.
    t: u32,
    /// Lanes.
    p: u32,
}

/// Why a sealed key can't be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// Another format.
    #[error("it is no key that infernet sealed, or it was changed")]
    Malformed,
    /// Another passphrase, or other bytes.
    #[error("the passphrase is wrong, or the file was changed")]
    Wrong,
    /// It asks for more than a key of ours ever does.
    #[error("it asks for too much memory or time to be a key that infernet sealed")]
    TooDear,
}

/// Seals `key` under `passphrase`. One line, without its end.
pub(super) fn seal(key: &NodeKey, passphrase: &str) -> String {
    seal_at(key, passphrase, COST)
}

/// The same for a key on Solana.
pub(super) fn seal_solana(key: &SolanaKey, passphrase: &str) -> String {
    seal_secret((SOLANA, &key.address().to_string()), &key.seed(), passphrase, COST)
}

fn seal_at(key: &NodeKey, passphrase: &str, cost: Cost) -> String {
    seal_secret((MAGIC, &key.id().to_string()), &key.secret_bytes(), passphrase, cost)
}

fn seal_secret((magic, id): (&str, &str), secret: &[u8; 32], passphrase: &str, cost: Cost) -> String {
    let (salt, nonce) = (clock::random::<16>(), clock::random::<12>());
    let Cost { m, t, p } = cost;
    let (salt_text, nonce_text) = (hex::encode(salt), hex::encode(nonce));
    let head = format!("{magic} id={id} argon2id m={m} t={t} p={p} salt={salt_text} nonce={nonce_text}");
    let message = Payload { msg: secret, aad: head.as_bytes() };
    let cipher = cipher(passphrase, &salt, cost).expect("our own costs are within Argon2's bounds");
    let sealed = cipher.encrypt(&nonce.into(), message).expect("ChaCha20-Poly1305 encrypts 32 bytes");
    format!("{head} sealed={}", hex::encode(sealed))
}

/// The node whose key this line holds, if it is such a line. Nothing proves it before [`open`].
pub(super) fn id(line: &str) -> Option<NodeId> {
    Line::parse(MAGIC, line)?.id.parse().ok()
}

/// Opens what [`seal`] closed.
pub(super) fn open(line: &str, passphrase: &str) -> Result<NodeKey, Unsealed> {
    let (id, secret) = open_secret(MAGIC, line, passphrase)?;
    let key = NodeKey::from_bytes(&secret).map_err(|_| Unsealed::Malformed)?;
    if key.id().to_string() == id { Ok(key) } else { Err(Unsealed::Malformed) }
}

/// Opens what [`seal_solana`] closed.
pub(super) fn open_solana(line: &str, passphrase: &str) -> Result<SolanaKey, Unsealed> {
    let (id, seed) = open_secret(SOLANA, line, passphrase)?;
    let key = SolanaKey::from_bytes(&seed);
    if key.address().to_string() == id { Ok(key) } else { Err(Unsealed::Malformed) }
}

fn open_secret<'a>(magic: &str, line: &'a str, passphrase: &str) -> Result<(&'a str, Zeroizing<[u8; 32]>), Unsealed> {
    let line = Line::parse(magic, line).ok_or(Unsealed::Malformed)?;
    if line.cost.m > MAX_COST.m || line.cost.t > MAX_COST.t || line.cost.p > MAX_COST.p {
        return Err(Unsealed::TooDear);
    }
    let cipher = cipher(passphrase, &line.salt, line.cost).ok_or(Unsealed::Malformed)?;
    let message = Payload { msg: &line.sealed, aad: line.head.as_bytes() };
    let secret = Zeroizing::new(cipher.decrypt(&line.nonce.into(), message).map_err(|_| Unsealed::Wrong)?);
    let secret = Zeroizing::new(secret.as_slice().try_into().map_err(|_| Unsealed::Malformed)?);
    Ok((line.id, secret))
}

/// `None` if Argon2 can't work at that cost.
fn cipher(passphrase: &str, salt: &[u8], Cost { m, t, p }: Cost) -> Option<ChaCha20Poly1305> {
    let params = Params::new(m, t, p, Some(32)).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(passphrase.as_bytes(), salt, &mut *key).ok()?;
    Some(ChaCha20Poly1305::new((&*key).into()))
}

struct Line<'a> {
    head: &'a str,
    id: &'a str,
    cost: Cost,
    salt: [u8; 16],
    nonce: [u8; 12],
    sealed: Vec<u8>,
}

impl<'a> Line<'a> {
    fn parse(magic: &str, line: &'a str) -> Option<Self> {
        let (head, sealed) = line.split_once(" sealed=")?;
        let mut words = head.split(' ');
        let mut field = |name: &str| words.next()?.strip_prefix(name);
        field(magic).filter(|rest| rest.is_empty())?;
        let id = field("id=")?;
        field("argon2id").filter(|rest| rest.is_empty())?;
        let cost = Cost { m: field("m=")?.parse().ok()?, t: field("t=")?.parse().ok()?, p: field("p=")?.parse().ok()? };
        let (mut salt, mut nonce) = ([0; 16], [0; 12]);
        hex::decode_to_slice(field("salt=")?, &mut salt).ok()?;
        hex::decode_to_slice(field("nonce=")?, &mut nonce).ok()?;
        Some(Line { head, id, cost, salt, nonce, sealed: hex::decode(sealed).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Good for tests alone.
    const CHEAP: Cost = Cost { m: 64, t: 1, p: 1 };

    fn key() -> NodeKey {
        NodeKey::from_bytes(&[7; 32]).expect("a key")
    }

    fn opened(line: &str, passphrase: &str) -> Result<NodeId, Unsealed> {
        open(line, passphrase).map(|key| key.id())
    }

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_alone() {
        let line = seal_at(&key(), "correct horse", CHEAP);
        assert!(!line.contains(&hex::encode([7; 32])) && !line.contains('\n'), "{line}");
        assert_eq!(id(&line), Some(key().id()));
        assert_eq!(opened(&line, "correct horse"), Ok(key().id()));
        assert_eq!(opened(&line, "correct hors"), Err(Unsealed::Wrong));
        assert_ne!(line, seal_at(&key(), "correct horse", CHEAP), "fresh salt and nonce");
    }

    #[test]
    fn no_field_can_be_exchanged() {
        let line = seal_at(&key(), "correct horse", CHEAP);
        let other = NodeKey::from_bytes(&[8; 32]).unwrap().id().to_string();
        assert_eq!(opened(&line.replace(&key().id().to_string(), &other), "correct horse"), Err(Unsealed::Wrong));
        assert_eq!(opened(&line.replace("m=64", "m=65"), "correct horse"), Err(Unsealed::Wrong));
        assert_eq!(opened(&line.replace("m=64", "m=4000000"), "correct horse"), Err(Unsealed::TooDear));
        assert_eq!(opened(&line.replace("t=1", "t=0"), "correct horse"), Err(Unsealed::Malformed));
        for broken in ["", "infernet-key-2", line.get(..90).unwrap(), &format!("x{line}"), &line.replace("argon2id", "md5")] {
            assert_eq!(opened(broken, "correct horse"), Err(Unsealed::Malformed), "{broken}");
        }
    }

    #[test]
    fn a_key_on_solana_is_sealed_the_same_way_and_is_no_nodes_key() {
        let key = SolanaKey::from_bytes(&[9; 32]);
        let address = key.address().to_string();
        let line = seal_secret((SOLANA, &address), &key.seed(), "correct horse", CHEAP);
        let opened = |line: &str| open_solana(line, "correct horse").map(|key| key.address());
        assert_eq!(opened(&line), Ok(key.address()));
        assert_eq!(open_solana(&line, "wrong horse").err(), Some(Unsealed::Wrong));
        let other = SolanaKey::from_bytes(&[8; 32]).address().to_string();
        assert_eq!(opened(&line.replace(&address, &other)), Err(Unsealed::Wrong));
        assert_eq!(opened(&line.replace(SOLANA, MAGIC)), Err(Unsealed::Malformed));
        assert_eq!(open(&line.replace(SOLANA, MAGIC), "correct horse").err(), Some(Unsealed::Wrong));
        assert_eq!(opened(&seal_at(&NodeKey::from_bytes(&[7; 32]).unwrap(), "correct horse", CHEAP)), Err(Unsealed::Malformed));
    }

    #[test]
    fn the_format_stays_readable() {
        // Written by this version; every later one must open it.
        let kept = include_str!("sealed_sample.txt");
        let line = kept.lines().find(|line| !line.starts_with('#')).unwrap();
        assert_eq!(opened(line, "correct horse battery staple"), Ok(key().id()));
    }
}
