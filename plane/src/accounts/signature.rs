//! Signatures of wallets and passkeys. The only file that names `aws_lc_rs`.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use infernet_wire::{
    evm::{EvmAddress, keccak},
    key,
};

/// What a DER-encoded `SubjectPublicKeyInfo` of a P-256 key in uncompressed form begins with (RFC 5480).
const P256_INFO: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same of an Ed25519 key (RFC 8410).
const ED25519_INFO: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A passkey's public key, of the two kinds that are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// ES256: an uncompressed point of P-256.
    P256([u8; 65]),
    /// EdDSA.
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`, as browsers give it.
    pub fn from_info(info: &[u8]) -> Option<Self> {
        if let Some(point) = info.strip_prefix(P256_INFO) {
            // 4: uncompressed. Whether it is on the curve shows when a signature is checked.
            return point.try_into().ok().filter(|point: &[u8; 65]| point.first() == Some(&4)).map(PublicKey::P256);
        }
        info.strip_prefix(ED25519_INFO)?.try_into().ok().map(PublicKey::Ed25519)
    }

    /// Whether it signed `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok(),
            PublicKey::Ed25519(key) => ed25519(key, message, signature),
        }
    }
}

/// Whether the Ed25519 `key` signed `message`.
pub fn ed25519(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

/// The EVM address that signed `message` as a personal message (EIP-191), if the 65 bytes are a signature.
pub fn evm_signer(message: &str, signature: &[u8]) -> Option<EvmAddress> {
    let (rs, v) = signature.split_last_chunk::<1>()?;
    let rs: &[u8; 64] = rs.try_into().ok()?;
    let recovery = match v {
        [v @ (0 | 1)] => *v,
        [v @ (27 | 28)] => v - 27,
        _ => return None,
    };
    let text = format!("\x19Ethereum Signed Message:\n{}{message}", message.len());
    let public = key::recover(&keccak(&[text.as_bytes()]), rs, recovery).ok()?;
    Some(EvmAddress::of_key(&public))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
    };

    /// A P-256 key as an authenticator has it.
    pub(crate) struct Authenticator(EcdsaKeyPair);

    impl Authenticator {
        pub(crate) fn new() -> Self {
            Authenticator(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
        }

        pub(crate) fn info(&self) -> Vec<u8> {
            [P256_INFO, self.0.public_key().as_ref()].concat()
        }

        pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
            self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
        }
    }

    /// A Solana wallet: its key, and what it signs with.
    pub(crate) fn solana() -> ([u8; 32], impl Fn(&[u8]) -> Vec<u8>) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
        (pair.public_key().as_ref().try_into().unwrap(), move |message| pair.sign(message).as_ref().to_vec())
    }

    #[test]
    fn passkeys_of_both_kinds_verify_their_own_words_alone() {
        let device = Authenticator::new();
        let key = PublicKey::from_info(&device.info()).unwrap();
        let signature = device.sign(b"words");
        assert!(key.verifies(b"words", &signature) && !key.verifies(b"other", &signature));
        let (public, sign) = solana();
        let key = PublicKey::from_info(&[ED25519_INFO, &public].concat()).unwrap();
        assert!(key.verifies(b"words", &sign(b"words")) && !key.verifies(b"other", &sign(b"words")));
        for bad in [&[][..], &[0; 91], ED25519_INFO, &[P256_INFO, &[2; 65]].concat()] {
            assert_eq!(PublicKey::from_info(bad), None);
        }
    }

    /// From ethers.js' tests: the key 0x0123…, the message "hello world".
    #[test]
    fn a_wallets_signature_tells_its_address() {
        let signature = "0xddd0a7290af9526056b4e35a077b9a11b513aa0028ec6c9880948544508f3c63265e99e47ad31bb2cab9646c504576b3abc6939a1710afc08cbf3034d73214b81c";
        let signature = hex::decode(&signature[2..]).unwrap();
        let address = evm_signer("hello world", &signature).unwrap();
        assert_eq!(address.to_string(), "0x14791697260E4c9A71f18484C9f997B308e59325");
        assert_ne!(evm_signer("hello worlds", &signature), Some(address));
        assert_eq!(evm_signer("hello world", &signature[1..]), None);
    }
}
