//! Tagged SHA-256: one function, so that no two uses can ever collide.

use crate::id::Hash;
use sha2::{Digest, Sha256};

/// BIP-340's tagged hash, `SHA256(SHA256(tag) ‖ SHA256(tag) ‖ parts)`, each part preceded by its length as eight big-endian
/// bytes, so that no part can borrow bytes from its neighbour.
pub fn tagged(tag: &str, parts: &[&[u8]]) -> Hash {
    let tag = Sha256::digest(tag.as_bytes());
    let mut hasher = Sha256::new().chain_update(tag).chain_update(tag);
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Hash(hasher.finalize().into())
}

/// Plain SHA-256, for formats that others defined.
pub fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(tagged("t", &[b"ab", b"c"]), tagged("t", &[b"a", b"bc"]));
        assert_ne!(tagged("t", &[b"x"]), tagged("u", &[b"x"]));
    }
}
