//! Identities and digests: fixed-size byte strings that are bytes in CBOR and text in JSON and logs.

use crate::{
    evm::EvmAddress,
    key::{self, BadSignature},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Text that is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { s.serialize_bytes(&self.0) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    return String::deserialize(d)?.parse().map_err(de::Error::custom);
                }
                let bytes = serde_bytes::ByteArray::<$len>::deserialize(d)?;
                Ok($name(bytes.into_array()))
            }
        }
    };
}

macro_rules! hex_text {
    ($name:ident, $len:literal, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError { what: $what, text: text.into() })?;
                Ok($name(bytes))
            }
        }
    };
}

pub(crate) use bytes_id;

bytes_id!(
    /// A node's public key: 33 bytes, compressed SEC1, secp256k1. Shown as the libp2p PeerId it is equal to
    /// (`16Uiu2H…`: an identity multihash of the key, from which the key is recoverable).
    NodeId, 33
);
bytes_id!(
    /// A SHA-256 digest.
    Hash, 32
);
bytes_id!(
    /// A BIP-340 signature.
    Signature, 64
);
bytes_id!(
    /// An offer, chosen at random by its buyer.
    OfferId, 16
);
bytes_id!(
    /// A payment channel: who pays whom in which coin through which contract, as a digest of all of these.
    ChannelId, 32
);
bytes_id!(
    /// An ECDSA signature as EIP-2098 writes it: r, then s with the parity of the point's y in its highest bit.
    EvmSignature, 64
);
bytes_id!(
    /// A job, chosen at random by its buyer; it stays the same over retries.
    JobId, 16
);
hex_text!(Hash, 32, "digest (64 hex digits)");
hex_text!(Signature, 64, "signature (128 hex digits)");
hex_text!(ChannelId, 32, "channel id (64 hex digits)");
hex_text!(EvmSignature, 64, "compact signature (128 hex digits)");
hex_text!(OfferId, 16, "offer id (32 hex digits)");
hex_text!(JobId, 16, "job id (32 hex digits)");

/// What precedes the key in a PeerId: identity multihash of 37 bytes, protobuf key type secp256k1, 33 bytes of key
/// (libp2p specs, peer-ids).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x25, 0x08, 0x02, 0x12, 0x21];

impl NodeId {
    /// The bytes of the libp2p PeerId, 39 of them.
    pub fn to_peer_id_bytes(&self) -> Vec<u8> {
        [&PEER_ID_PREFIX[..], &self.0].concat()
    }

    /// Reads the bytes of a PeerId; `None` if it is not an inlined secp256k1 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX)?;
        Some(NodeId(key.try_into().ok()?))
    }

    /// The x coordinate: the BIP-340 public key, as `X-Infernet-Auth` shows it.
    pub fn x_only(&self) -> [u8; 32] {
        let mut x = [0; 32];
        x.copy_from_slice(&self.0[1..]);
        x
    }

    /// The address of the same key on EVM chains.
    pub fn evm_address(&self) -> EvmAddress {
        EvmAddress::of_key(&key::point(self))
    }

    /// Checks that this node signed `digest`. About 50 µs.
    pub fn verify(&self, digest: &Hash, signature: &Signature) -> Result<(), BadSignature> {
        key::verify(&self.x_only(), digest.as_bytes(), signature)
    }

    /// The last eight characters: enough to tell nodes apart in a log line or a table. All PeerIds begin alike.
    pub fn short(&self) -> String {
        let text = self.to_string();
        text.get(text.len().saturating_sub(8)..).unwrap_or_default().to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_peer_id_bytes()).into_string())
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        bs58::decode(text)
            .into_vec()
            .ok()
            .and_then(|bytes| NodeId::from_peer_id_bytes(&bytes))
            .ok_or_else(|| ParseIdError { what: "node id (a secp256k1 PeerId, 16Uiu2H…)", text: text.into() })
    }
}
