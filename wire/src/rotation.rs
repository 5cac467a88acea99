//! `KeyRotation`: a node's old and new key say that they belong together. Both sign the same statement, so neither can be
//! claimed by a stranger: a thief of the old key has no name to add, and nobody can adopt somebody else's past.

use crate::{
    codec,
    envelope::{Envelope, Kind, Message, Refusal, Verified, field},
    id::NodeId,
    limits,
    time::UnixMillis,
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotation {
    /// The key until now.
    pub old: NodeId,
    /// The key from now on.
    pub new: NodeId,
    /// When it was made.
    pub issued: UnixMillis,
}

impl Message for KeyRotation {
    const KIND: Kind = Kind::KeyRotation;
    const MAX_BYTES: usize = limits::MAX_ROTATION_BYTES;
    // Kept as evidence; the age is checked by nobody but who hears it as news.
    const MAX_TTL_MS: u64 = 0;

    fn issued(&self) -> UnixMillis {
        self.issued
    }

    fn expires(&self) -> UnixMillis {
        self.issued
    }

    fn check(&self) -> Result<(), Refusal> {
        field::ensure(self.old != self.new, "new")
    }
}

/// The statement with both signatures.
#[derive(Debug, Clone)]
pub struct SignedRotation {
    by_old: Verified<KeyRotation>,
    by_new: Verified<KeyRotation>,
}

#[derive(Serialize, Deserialize)]
struct Repr {
    by_old: ByteBuf,
    by_new: ByteBuf,
}

impl SignedRotation {
    /// Puts the parts together: one statement, signed by each of the keys that it names.
    pub fn new(by_old: Verified<KeyRotation>, by_new: Verified<KeyRotation>) -> Result<Self, Refusal> {
        field::ensure(*by_old == *by_new, "statement")?;
        field::ensure(by_old.signer() == by_old.old, "old")?;
        field::ensure(by_new.signer() == by_new.new, "new")?;
        Ok(SignedRotation { by_old, by_new })
    }

    /// What both say.
    pub fn statement(&self) -> &KeyRotation {
        &self.by_old
    }

    /// The bytes in which it is stored and shown.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = |part: &Verified<KeyRotation>| ByteBuf::from(part.raw().to_vec());
        codec::encode(&Repr { by_old: bytes(&self.by_old), by_new: bytes(&self.by_new) })
    }

    /// Reads the bytes of [`SignedRotation::encode`]: everything is checked but the age.
    pub fn decode_stored(bytes: &[u8], network: &NetworkId) -> Result<Self, Refusal> {
        let repr: Repr = codec::decode(bytes).map_err(|_| Refusal::Malformed)?;
        let read = |part: &ByteBuf| Envelope::decode(part)?.open_stored(network)?.verify();
        SignedRotation::new(read(&repr.by_old)?, read(&repr.by_new)?)
    }
}
