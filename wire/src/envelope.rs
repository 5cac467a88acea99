//! The one way a message is signed, checked and passed on.
//!
//! An envelope holds the payload **as bytes**. The signature covers those bytes as received; they are kept and forwarded
//! verbatim, never re-encoded, so a payload with fields that this version does not know still verifies here and everywhere.
//!
//! What is signed is `tagged("infernet/<kind>/<major>", minor, network, signer, payload)`. The 33-byte signer is inside, since
//! BIP-340 alone would accept the same signature for the key with the other parity, which is another PeerId.
//!
//! A reader goes through three types, and can't skip one:
//! [`Envelope::decode`] (size, canonical form) → [`Envelope::open`] (network, payload, fields, age) → [`Unverified::verify`]
//! (signature) → [`Verified`]. The caller looks up "seen?" between the last two: it is cheaper than a signature.
//!
//! An unknown kind or major version is [`Refusal::Unknown`]: ignored, never held against anyone. So is a newer minor version
//! whose payload does not decode here.

use crate::{
    codec, hash,
    id::{Hash, NodeId, Signature},
    key::NodeKey,
    limits,
    time::UnixMillis,
    topic::NetworkId,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use std::{ops::Deref, sync::Arc};

mod simulated;

pub use simulated::SimulatedKey;

/// Major version of the protocol: another one is another protocol.
pub const MAJOR: u8 = 1;
/// Minor version: grows when fields are appended.
pub const MINOR: u8 = 0;

/// What an envelope holds. The numbers are on the wire; never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Kind {
    /// A worker says what it can do.
    CapabilityAd = 1,
    /// A buyer asks for bids.
    JobOffer = 2,
    /// A worker offers to do it.
    JobBid = 3,
    /// A worker will not do it, and why.
    NoBid = 4,
    /// A buyer names the winner.
    JobAccept = 5,
    /// A worker states what it did.
    JobReceipt = 6,
    /// The buyer agrees with a receipt.
    Countersign = 7,
    /// A message for one reader, on a public topic.
    SealedAnswer = 8,
    /// An operator tells a node what to do.
    OperatorCommand = 9,
    /// Two keys say that they are one node's, before and after.
    KeyRotation = 10,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::CapabilityAd => "capability-ad",
            Kind::JobOffer => "job-offer",
            Kind::JobBid => "job-bid",
            Kind::NoBid => "no-bid",
            Kind::JobAccept => "job-accept",
            Kind::JobReceipt => "job-receipt",
            Kind::Countersign => "countersign",
            Kind::SealedAnswer => "sealed-answer",
            Kind::OperatorCommand => "operator-command",
            Kind::KeyRotation => "key-rotation",
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        use Kind::*;
        let all = [
            CapabilityAd,
            JobOffer,
            JobBid,
            NoBid,
            JobAccept,
            JobReceipt,
            Countersign,
            SealedAnswer,
            OperatorCommand,
            KeyRotation,
        ];
        all.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// A body that can be signed.
pub trait Message: Serialize + DeserializeOwned {
    /// Its number and name on the wire.
    const KIND: Kind;
    /// Largest encoded payload, in bytes.
    const MAX_BYTES: usize;
    /// Longest time from `issued` to `expires`, in milliseconds.
    const MAX_TTL_MS: u64;

    /// When it was made, by its signer's clock.
    fn issued(&self) -> UnixMillis;
    /// When it stops counting.
    fn expires(&self) -> UnixMillis;
    /// Whether every field is within its limits.
    fn check(&self) -> Result<(), Refusal>;
}

/// Why a message was not believed. Closed: each is a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// More bytes than its kind may have.
    #[error("message is too large")]
    TooLarge,
    /// Not the CBOR of an envelope or body.
    #[error("malformed message")]
    Malformed,
    /// An envelope that was not encoded the one way.
    #[error("envelope is not in canonical form")]
    NotCanonical,
    /// A kind or version that this software does not know.
    #[error("unknown message kind or version")]
    Unknown,
    /// A known kind in a place where it does not belong.
    #[error("unexpected message kind")]
    UnexpectedKind,
    /// Signed for another network.
    #[error("message belongs to another network")]
    WrongNetwork,
    /// Its time is over.
    #[error("message has expired")]
    Expired,
    /// Made later than our clock and the allowed skew.
    #[error("message is from the future")]
    Future,
    /// A field is out of bounds; which one.
    #[error("field {0:?} is out of bounds")]
    Field(&'static str),
    /// The signature does not match.
    #[error("signature verification failed")]
    BadSignature,
}

impl Refusal {
    /// A short stable name, for counters.
    pub fn label(self) -> &'static str {
        match self {
            Refusal::TooLarge => "too_large",
            Refusal::Malformed => "malformed",
            Refusal::NotCanonical => "not_canonical",
            Refusal::Unknown => "unknown",
            Refusal::UnexpectedKind => "unexpected_kind",
            Refusal::WrongNetwork => "wrong_network",
            Refusal::Expired => "expired",
            Refusal::Future => "future",
            Refusal::Field(_) => "field",
            Refusal::BadSignature => "bad_signature",
        }
    }

    /// Whether only a broken or hostile peer would pass this on, so that it may be punished. Clocks and versions differ
    /// among honest peers.
    pub fn is_fault(self) -> bool {
        !matches!(self, Refusal::Unknown | Refusal::Expired | Refusal::Future)
    }
}

#[derive(Serialize, Deserialize)]
struct Repr {
    major: u8,
    minor: u8,
    kind: u16,
    network: String,
    payload: ByteBuf,
    signer: NodeId,
    signature: Signature,
}

/// A decoded envelope whose payload nobody has looked at yet.
#[derive(Debug, Clone)]
pub struct Envelope {
    kind: Kind,
    minor: u8,
    network: String,
    payload: Vec<u8>,
    signer: NodeId,
    signature: Signature,
    raw: Arc<[u8]>,
}

impl Envelope {
    /// Reads an envelope: its size, its one canonical form, a kind and version that we know.
    pub fn decode(raw: &[u8]) -> Result<Self, Refusal> {
        if raw.len() > limits::MAX_GOSSIP_BYTES {
            return Err(Refusal::TooLarge);
        }
        let repr: Repr = codec::decode(raw).map_err(|_| Refusal::Malformed)?;
        if codec::encode(&repr) != raw {
            return Err(Refusal::NotCanonical);
        }
        if repr.major != MAJOR {
            return Err(Refusal::Unknown);
        }
        Ok(Envelope {
            kind: Kind::from_number(repr.kind).ok_or(Refusal::Unknown)?,
            minor: repr.minor,
            network: repr.network,
            payload: repr.payload.into_vec(),
            signer: repr.signer,
            signature: repr.signature,
            raw: raw.into(),
        })
    }

    /// What it holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Who claims to have signed it.
    pub fn signer(&self) -> NodeId {
        self.signer
    }

    /// Reads the payload and checks network, fields and age at `now`.
    pub fn open<T: Message>(self, network: &NetworkId, now: UnixMillis) -> Result<Unverified<T>, Refusal> {
        let unverified = self.open_stored::<T>(network)?;
        check_age(&unverified.body, now)?;
        Ok(unverified)
    }

    /// Like [`Envelope::open`] without the age, for messages kept as evidence, such as receipts.
    pub fn open_stored<T: Message>(self, network: &NetworkId) -> Result<Unverified<T>, Refusal> {
        if self.kind != T::KIND {
            return Err(Refusal::UnexpectedKind);
        }
        if self.payload.len() > T::MAX_BYTES {
            return Err(Refusal::TooLarge);
        }
        if self.network != network.as_str() {
            return Err(Refusal::WrongNetwork);
        }
        let newer = self.minor > MINOR;
        let body: T = codec::decode(&self.payload).map_err(|_| if newer { Refusal::Unknown } else { Refusal::Malformed })?;
        body.check()?;
        let digest = digest(T::KIND, self.minor, network, &self.signer, &self.payload);
        Ok(Unverified { body, digest, signer: self.signer, signature: self.signature, raw: self.raw })
    }
}

pub(crate) fn check_age<T: Message>(body: &T, now: UnixMillis) -> Result<(), Refusal> {
    let (issued, expires) = (body.issued(), body.expires());
    if issued > now.after(limits::CLOCK_SKEW_MS) {
        return Err(Refusal::Future);
    }
    if expires.after(limits::CLOCK_SKEW_MS) < now {
        return Err(Refusal::Expired);
    }
    if expires < issued || expires.since(issued) > T::MAX_TTL_MS {
        return Err(Refusal::Field("expires"));
    }
    Ok(())
}

fn digest(kind: Kind, minor: u8, network: &NetworkId, signer: &NodeId, payload: &[u8]) -> Hash {
    let tag = format!("infernet/{}/{MAJOR}", kind.name());
    hash::tagged(&tag, &[&[minor], network.as_str().as_bytes(), signer.as_ref(), payload])
}

/// A message whose fields, network and age are right, but whose signature was not checked yet.
#[derive(Debug, Clone)]
pub struct Unverified<T> {
    body: T,
    digest: Hash,
    signer: NodeId,
    signature: Signature,
    raw: Arc<[u8]>,
}

impl<T> Unverified<T> {
    /// What was signed; the same message always has the same digest, so it is also the key for "seen?".
    pub fn digest(&self) -> Hash {
        self.digest
    }

    /// Who claims to have signed it.
    pub fn signer(&self) -> NodeId {
        self.signer
    }

    /// Checks the signature.
    pub fn verify(self) -> Result<Verified<T>, Refusal> {
        self.signer.verify(&self.digest, &self.signature).map_err(|_| Refusal::BadSignature)?;
        Ok(Verified(Arc::new(self)))
    }
}

/// A message that its signer really signed, for this network. Nothing but a check or the signing itself makes one. Cheap to
/// clone: everybody who keeps it shares it.
#[derive(Debug)]
pub struct Verified<T>(Arc<Unverified<T>>);

impl<T> Clone for Verified<T> {
    fn clone(&self) -> Self {
        Verified(self.0.clone())
    }
}

impl<T> Verified<T> {
    /// What was signed: names this very message.
    pub fn digest(&self) -> Hash {
        self.0.digest
    }

    /// Who signed it.
    pub fn signer(&self) -> NodeId {
        self.0.signer
    }

    /// The signature over [`Verified::digest`].
    pub fn signature(&self) -> Signature {
        self.0.signature
    }

    /// The envelope's bytes as received or made, to forward or store.
    pub fn raw(&self) -> &Arc<[u8]> {
        &self.0.raw
    }
}

impl<T: Message> Verified<T> {
    /// Whether it is of an age at which [`Envelope::open`] would read it.
    pub fn check_age(&self, now: UnixMillis) -> Result<(), Refusal> {
        check_age(&**self, now)
    }
}

impl<T: Clone> Verified<T> {
    /// The body alone.
    pub fn into_body(self) -> T {
        Arc::try_unwrap(self.0).map_or_else(|shared| shared.body.clone(), |own| own.body)
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.body
    }
}

impl NodeKey {
    /// Signs `body` for `network`. Fails only if a field is out of bounds, so that we never send what others refuse.
    pub fn sign<T: Message>(&self, network: &NetworkId, body: T) -> Result<Verified<T>, Refusal> {
        body.check()?;
        let payload = codec::encode(&body);
        if payload.len() > T::MAX_BYTES {
            return Err(Refusal::TooLarge);
        }
        let signed = self.sign_payload(T::KIND, MINOR, network, payload);
        Ok(Verified(Arc::new(Unverified { body, digest: signed.0, signer: self.id(), signature: signed.1, raw: signed.2 })))
    }

    fn sign_payload(&self, kind: Kind, minor: u8, network: &NetworkId, payload: Vec<u8>) -> (Hash, Signature, Arc<[u8]>) {
        let digest = digest(kind, minor, network, &self.id(), &payload);
        let signature = self.sign_digest(&digest);
        (digest, signature, seal(kind, minor, network, payload, self.id(), signature))
    }

    /// Signs bytes that a later version might produce. Only for testing how this version takes them.
    #[doc(hidden)]
    pub fn sign_foreign(&self, kind: Kind, minor: u8, network: &NetworkId, payload: Vec<u8>) -> Arc<[u8]> {
        self.sign_payload(kind, minor, network, payload).2
    }
}

/// The envelope's one canonical form.
fn seal(kind: Kind, minor: u8, network: &NetworkId, payload: Vec<u8>, signer: NodeId, signature: Signature) -> Arc<[u8]> {
    let (network, payload) = (network.as_str().into(), ByteBuf::from(payload));
    codec::encode(&Repr { major: MAJOR, minor, kind: kind as u16, network, payload, signer, signature }).into()
}

/// Field checks shared by the bodies.
pub(crate) mod field {
    use super::Refusal;
    use crate::limits;

    pub(crate) fn ensure(holds: bool, name: &'static str) -> Result<(), Refusal> {
        if holds { Ok(()) } else { Err(Refusal::Field(name)) }
    }

    /// A name is 1 to 128 bytes without control characters, so that it can be shown and logged as it is.
    pub(crate) fn name(text: &str, field: &'static str) -> Result<(), Refusal> {
        let fits = (1..=limits::MAX_NAME_BYTES).contains(&text.len());
        ensure(fits && !text.chars().any(char::is_control), field)
    }

    /// As [`name`], or empty.
    pub(crate) fn optional_name(text: &str, field: &'static str) -> Result<(), Refusal> {
        if text.is_empty() { Ok(()) } else { name(text, field) }
    }
}
