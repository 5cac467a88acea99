//! The node's one key. The only file that names `k256`.
//!
//! The same secp256k1 scalar signs every message (BIP-340), is the libp2p and TLS identity, and opens bids sealed to it. It is
//! never printed: `Debug` shows the public half, and the bytes leave only as [`Zeroizing`].

use crate::{
    hash,
    id::{EvmSignature, Hash, NodeId, Signature},
};
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit,
    aead::{Aead, Payload},
};
use k256::{SecretKey, ecdh, ecdsa::signature::hazmat::PrehashVerifier, schnorr};
use std::fmt;
use zeroize::Zeroizing;

/// A signature that does not match its signer and message, or is not a signature at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signature verification failed")]
pub struct BadSignature;

/// Why a compact ECDSA signature has no signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// Its s is in the upper half of the group: allowed, every signature would have a twin.
    #[error("the signature's s is in the upper half of the group order")]
    HighS,
    /// It is no signature.
    #[error(transparent)]
    Bad(#[from] BadSignature),
}

/// 32 bytes that are no secp256k1 secret key: zero, or not below the group order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a secp256k1 secret key")]
pub struct BadKey;

/// A sealed message that was not meant for this key, or was changed on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("can't open the sealed message with this key")]
pub struct CantOpen;

/// A node's secret key.
#[derive(Clone)]
pub struct NodeKey {
    secret: SecretKey,
    signing: schnorr::SigningKey,
    id: NodeId,
}

impl NodeKey {
    /// Reads a 32-byte big-endian scalar.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, BadKey> {
        let secret = SecretKey::from_slice(bytes).map_err(|_| BadKey)?;
        let signing = schnorr::SigningKey::from_slice(bytes).map_err(|_| BadKey)?;
        let id = node_id(&secret)?;
        Ok(NodeKey { secret, signing, id })
    }

    /// The public half.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The secret scalar, for the key file and for libp2p's own key type.
    pub fn secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes().into())
    }

    /// Signs a digest (BIP-340). The auxiliary randomness is zero, which BIP-340 allows: signatures are reproducible, so a
    /// simulation is too.
    pub fn sign_digest(&self, digest: &Hash) -> Signature {
        let signature = self.signing.sign_raw(digest.as_bytes(), &[0; 32]).expect("a valid key signs any 32-byte digest");
        Signature(signature.to_bytes())
    }

    /// Signs a digest as EVM chains want it: ECDSA with a deterministic nonce (RFC 6979) and a low s (EIP-2).
    pub fn sign_evm(&self, digest: &[u8; 32]) -> EvmSignature {
        let (signature, recovery) = k256::ecdsa::SigningKey::from(&self.secret).sign_prehash_recoverable(digest);
        let mut compact: [u8; 64] = signature.to_bytes().into();
        // The highest bit of a low s is free (EIP-2098).
        compact[32] |= u8::from(recovery.is_y_odd()) << 7;
        EvmSignature(compact)
    }

    /// Opens what [`seal`] closed for this node. `context` must be the sealer's.
    pub fn open(&self, sealed: &Sealed, context: &Hash) -> Result<Vec<u8>, CantOpen> {
        let ephemeral = k256::PublicKey::from_sec1_bytes(sealed.ephemeral.as_ref()).map_err(|_| CantOpen)?;
        let shared = ecdh::diffie_hellman(self.secret.to_nonzero_scalar(), ephemeral.as_affine());
        cipher(&shared, &sealed.ephemeral, &self.id)
            .decrypt(&Default::default(), Payload { msg: &sealed.ciphertext, aad: context.as_ref() })
            .map_err(|_| CantOpen)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.id)
    }
}

/// Bytes that only one node can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// A public key used once.
    pub ephemeral: NodeId,
    /// ChaCha20-Poly1305 ciphertext with its tag.
    pub ciphertext: Vec<u8>,
}

/// Seals `message` to `recipient` (ECIES: ephemeral ECDH, tagged SHA-256, ChaCha20-Poly1305), bound to `context`.
/// `ephemeral` is the secret scalar to use: 32 fresh random bytes, used once.
pub fn seal(recipient: &NodeId, message: &[u8], context: &Hash, ephemeral: &[u8; 32]) -> Result<Sealed, BadKey> {
    let secret = SecretKey::from_slice(ephemeral).map_err(|_| BadKey)?;
    let public = k256::PublicKey::from_sec1_bytes(recipient.as_ref()).map_err(|_| BadKey)?;
    let shared = ecdh::diffie_hellman(secret.to_nonzero_scalar(), public.as_affine());
    let ephemeral = node_id(&secret)?;
    let ciphertext = cipher(&shared, &ephemeral, recipient)
        .encrypt(&Default::default(), Payload { msg: message, aad: context.as_ref() })
        .expect("ChaCha20-Poly1305 encrypts any message below 256 GiB");
    Ok(Sealed { ephemeral, ciphertext })
}

/// The key is used for one message only, so its nonce may be constant.
fn cipher(shared: &ecdh::SharedSecret, ephemeral: &NodeId, recipient: &NodeId) -> ChaCha20Poly1305 {
    let key = hash::tagged("infernet/seal/1", &[shared.raw_secret_bytes(), ephemeral.as_ref(), recipient.as_ref()]);
    ChaCha20Poly1305::new(key.as_bytes().into())
}

fn node_id(secret: &SecretKey) -> Result<NodeId, BadKey> {
    let bytes = secret.public_key().to_sec1_bytes();
    Ok(NodeId((*bytes).try_into().map_err(|_| BadKey)?))
}

/// Whether these 32 bytes are a public key: the x of a point on the curve.
pub fn is_public(x_only: &[u8; 32]) -> bool {
    schnorr::VerifyingKey::from_slice(x_only).is_ok()
}

/// Verifies a BIP-340 signature of `message` by an x-only public key.
pub fn verify(x_only: &[u8; 32], message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
    let key = schnorr::VerifyingKey::from_slice(x_only).map_err(|_| BadSignature)?;
    let signature = schnorr::Signature::try_from(&signature.0[..]).map_err(|_| BadSignature)?;
    key.verify_raw(message, &signature).map_err(|_| BadSignature)
}

/// The public key, x and y, that made an ECDSA signature `r ‖ s` of a 32-byte digest, as wallets of EVM chains make them;
/// `recovery` is 0 or 1.
pub fn recover(digest: &[u8; 32], signature: &[u8; 64], recovery: u8) -> Result<[u8; 64], BadSignature> {
    let signature = k256::ecdsa::Signature::from_slice(signature).map_err(|_| BadSignature)?;
    let recovery = k256::ecdsa::RecoveryId::from_byte(recovery).filter(|id| !id.is_x_reduced()).ok_or(BadSignature)?;
    let key = k256::ecdsa::VerifyingKey::recover_from_prehash(digest, &signature, recovery).map_err(|_| BadSignature)?;
    let point = key.to_sec1_point(false);
    point.as_bytes().get(1..).and_then(|xy| xy.try_into().ok()).ok_or(BadSignature)
}

/// The public key, x and y, that made a compact signature of a digest. About 60 µs.
pub fn recover_compact(digest: &[u8; 32], signature: &EvmSignature) -> Result<[u8; 64], RecoverError> {
    let (mut rs, odd) = (signature.0, signature.0[32] >> 7);
    rs[32] &= 0x7f;
    let parsed = k256::ecdsa::Signature::from_slice(&rs).map_err(|_| BadSignature)?;
    if parsed.normalize_s() != parsed {
        return Err(RecoverError::HighS);
    }
    Ok(recover(digest, &rs, odd)?)
}

/// A signer's key, read once: finding the point that an id names takes about a sixth of a check.
#[derive(Debug, Clone)]
pub struct Signer {
    id: NodeId,
    key: k256::ecdsa::VerifyingKey,
}

impl Signer {
    /// Of the node `id`. An error if that names no point of the curve.
    pub fn of(id: &NodeId) -> Result<Self, BadSignature> {
        let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(id.as_ref()).map_err(|_| BadSignature)?;
        Ok(Signer { id: *id, key })
    }

    /// Whose it is.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Checks a compact signature of a digest, but for the bit that tells which of two keys signed.
    pub fn verify_compact(&self, digest: &[u8; 32], signature: &EvmSignature) -> Result<(), RecoverError> {
        let mut rs = signature.0;
        rs[32] &= 0x7f;
        let parsed = k256::ecdsa::Signature::from_slice(&rs).map_err(|_| BadSignature)?;
        if parsed.normalize_s() != parsed {
            return Err(RecoverError::HighS);
        }
        Ok(self.key.verify_prehash(digest, &parsed).map_err(|_| BadSignature)?)
    }
}

/// A public key, x and y. Zeros if it is none, which no signature matches: an id that was read from the wire is 33 bytes that
/// nobody has checked yet.
pub(crate) fn point(id: &NodeId) -> [u8; 64] {
    let key = k256::PublicKey::from_sec1_bytes(id.as_ref()).ok();
    let point = key.map(|key| k256::ecdsa::VerifyingKey::from(key).to_sec1_point(false));
    point.and_then(|point| point.as_bytes().get(1..).and_then(|xy| xy.try_into().ok())).unwrap_or([0; 64])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovered_key_is_the_signers() {
        let signing = k256::ecdsa::SigningKey::from_slice(&[7; 32]).expect("a scalar");
        let digest = *hash::sha256(b"sign in").as_bytes();
        let (signature, recovery) = signing.sign_prehash_recoverable(&digest);
        let bytes: [u8; 64] = signature.to_bytes().as_slice().try_into().expect("64 bytes");
        let point = signing.verifying_key().to_sec1_point(false);
        assert_eq!(recover(&digest, &bytes, recovery.to_byte()).expect("a key"), point.as_bytes()[1..]);
        assert_ne!(
            recover(hash::sha256(b"other").as_bytes(), &bytes, recovery.to_byte()).ok(),
            Some(point.as_bytes()[1..].try_into().expect("64"))
        );
        assert!(recover(&digest, &[0; 64], 0).is_err());
        assert!(recover(&digest, &bytes, 4).is_err());
    }

    fn key(n: u8) -> NodeKey {
        NodeKey::from_bytes(&[n; 32]).expect("a valid scalar")
    }

    #[test]
    fn zero_and_overflow_are_no_keys() {
        assert!(NodeKey::from_bytes(&[0; 32]).is_err());
        assert!(NodeKey::from_bytes(&[0xff; 32]).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", key(7));
        assert!(!shown.contains(&hex::encode([7; 32])));
        assert!(shown.contains("16Uiu2H"));
    }

    #[test]
    fn sealed_opens_only_for_its_recipient_and_context() {
        let (alice, bob) = (key(1), key(2));
        let context = hash::sha256(b"offer");
        let mut sealed = seal(&alice.id(), b"a price", &context, &[9; 32]).expect("seals");
        assert_eq!(alice.open(&sealed, &context).as_deref(), Ok(&b"a price"[..]));
        assert_eq!(bob.open(&sealed, &context), Err(CantOpen));
        assert_eq!(alice.open(&sealed, &hash::sha256(b"other offer")), Err(CantOpen));
        if let Some(byte) = sealed.ciphertext.first_mut() {
            *byte ^= 1;
        }
        assert_eq!(alice.open(&sealed, &context), Err(CantOpen));
    }

    #[test]
    fn a_signature_is_bound_to_key_and_digest() {
        let (digest, other) = (hash::sha256(b"a"), hash::sha256(b"b"));
        let signature = key(1).sign_digest(&digest);
        assert_eq!(key(1).id().verify(&digest, &signature), Ok(()));
        assert_eq!(key(2).id().verify(&digest, &signature), Err(BadSignature));
        assert_eq!(key(1).id().verify(&other, &signature), Err(BadSignature));
    }
}
