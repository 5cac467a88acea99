//! `JobBid` and `NoBid`: a worker's answer to an offer, and the seal that hides it from everybody but the buyer.

use crate::{
    capability::SocketAddrText,
    codec,
    envelope::{Envelope, Kind, Message, Refusal, Verified, field},
    id::{Hash, NodeId},
    key::{self, BadKey, NodeKey, Sealed},
    limits,
    money::Price,
    time::UnixMillis,
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::{fmt, sync::Arc};

/// A bid. It binds: the worker keeps a slot until `hold_until`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobBid {
    /// Digest of the offer that this answers.
    pub offer: Hash,
    /// When it was made.
    pub issued: UnixMillis,
    /// Until when the slot and the price are kept.
    pub hold_until: UnixMillis,
    /// The model that would serve, by the worker's own id.
    pub model: String,
    /// The price.
    pub price: Price,
    /// How long the job would wait for the engine, in milliseconds.
    pub queue_ms: u32,
    /// Expected time from the engine's start to the first token, in milliseconds; 0 if not measured yet.
    pub ttft_ms: u32,
    /// Expected speed in tokens per second, 0 if not measured yet.
    pub tokens_per_second: u32,
    /// Where the chat endpoint answers.
    pub chat: Vec<SocketAddrText>,
}

impl Message for JobBid {
    const KIND: Kind = Kind::JobBid;
    const MAX_BYTES: usize = limits::MAX_BID_BYTES;
    const MAX_TTL_MS: u64 = limits::MAX_BID_WINDOW_MS + limits::HOLD_SLACK_MS;

    fn issued(&self) -> UnixMillis {
        self.issued
    }

    fn expires(&self) -> UnixMillis {
        self.hold_until
    }

    fn check(&self) -> Result<(), Refusal> {
        field::name(&self.model, "model")?;
        field::ensure(self.chat.len() <= limits::MAX_ADDRESSES, "chat")
    }
}

/// Why a worker does not bid. An open number: newer workers may have newer reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NoBidReason(pub u16);

impl NoBidReason {
    /// It does not serve that model.
    pub const UNKNOWN_MODEL: Self = NoBidReason(1);
    /// Its price is above the ceiling.
    pub const CEILING_TOO_LOW: Self = NoBidReason(2);
    /// The job could cost more than its budget.
    pub const BUDGET_TOO_LOW: Self = NoBidReason(3);
    /// Every slot is busy or held.
    pub const NO_SLOT: Self = NoBidReason(4);
    /// The slots that strangers may hold are all held.
    pub const STRANGER_POOL_FULL: Self = NoBidReason(5);
    /// Input and output do not fit the model's context.
    pub const CONTEXT_TOO_LONG: Self = NoBidReason(6);
    /// The model lacks a required ability.
    pub const MISSING_ABILITY: Self = NoBidReason(7);
    /// No engine answers.
    pub const NO_ENGINE: Self = NoBidReason(8);
    /// The worker is shutting down.
    pub const DRAINING: Self = NoBidReason(9);
    /// The buyer publishes offers faster than allowed.
    pub const RATE_LIMITED: Self = NoBidReason(10);
    /// The job's deadline is too close.
    pub const DEADLINE_TOO_CLOSE: Self = NoBidReason(11);
    /// The worker's disk is full or does not keep what is written, so a receipt could be lost.
    pub const STORE_FULL: Self = NoBidReason(12);
    /// Its operator sells at other times.
    pub const OFF_SCHEDULE: Self = NoBidReason(13);
    /// Its GPU is too hot.
    pub const TOO_HOT: Self = NoBidReason(14);
    /// Its GPUs draw more power than its operator allows.
    pub const TOO_MUCH_POWER: Self = NoBidReason(15);
    /// Somebody else uses the machine.
    pub const BUSY_HOST: Self = NoBidReason(16);
    /// The buyer may owe no more here than it does, or nothing at all.
    pub const NO_CREDIT: Self = NoBidReason(17);

    /// A short stable name, for counters and for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::UNKNOWN_MODEL => "unknown_model",
            Self::CEILING_TOO_LOW => "ceiling_too_low",
            Self::BUDGET_TOO_LOW => "budget_too_low",
            Self::NO_SLOT => "no_slot",
            Self::STRANGER_POOL_FULL => "stranger_pool_full",
            Self::CONTEXT_TOO_LONG => "context_too_long",
            Self::MISSING_ABILITY => "missing_ability",
            Self::NO_ENGINE => "no_engine",
            Self::DRAINING => "draining",
            Self::RATE_LIMITED => "rate_limited",
            Self::DEADLINE_TOO_CLOSE => "deadline_too_close",
            Self::STORE_FULL => "store_full",
            Self::OFF_SCHEDULE => "off_schedule",
            Self::TOO_HOT => "too_hot",
            Self::TOO_MUCH_POWER => "too_much_power",
            Self::BUSY_HOST => "busy_host",
            Self::NO_CREDIT => "no_credit",
            _ => "other",
        }
    }
}

impl fmt::Display for NoBidReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A refusal to bid, so that the buyer need not wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoBid {
    /// Digest of the offer that this answers.
    pub offer: Hash,
    /// When it was made.
    pub issued: UnixMillis,
    /// Why.
    pub reason: NoBidReason,
}

impl Message for NoBid {
    const KIND: Kind = Kind::NoBid;
    const MAX_BYTES: usize = limits::MAX_BID_BYTES;
    const MAX_TTL_MS: u64 = limits::MAX_BID_WINDOW_MS;

    fn issued(&self) -> UnixMillis {
        self.issued
    }

    fn expires(&self) -> UnixMillis {
        self.issued.after(limits::MAX_BID_WINDOW_MS)
    }

    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A bid or no-bid as its buyer reads it.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The worker would do it.
    Bid(Verified<JobBid>),
    /// The worker would not.
    NoBid(Verified<NoBid>),
}

impl Answer {
    /// Reads and verifies the envelope of either kind.
    pub fn read(raw: &[u8], network: &NetworkId, now: UnixMillis) -> Result<Self, Refusal> {
        let envelope = Envelope::decode(raw)?;
        match envelope.kind() {
            Kind::JobBid => Ok(Answer::Bid(envelope.open(network, now)?.verify()?)),
            Kind::NoBid => Ok(Answer::NoBid(envelope.open(network, now)?.verify()?)),
            _ => Err(Refusal::UnexpectedKind),
        }
    }

    /// Digest of the offer that this answers.
    pub fn offer(&self) -> Hash {
        match self {
            Answer::Bid(bid) => bid.offer,
            Answer::NoBid(no) => no.offer,
        }
    }

    /// The worker.
    pub fn signer(&self) -> NodeId {
        match self {
            Answer::Bid(bid) => bid.signer(),
            Answer::NoBid(no) => no.signer(),
        }
    }

    /// The envelope's bytes.
    pub fn raw(&self) -> &Arc<[u8]> {
        match self {
            Answer::Bid(bid) => bid.raw(),
            Answer::NoBid(no) => no.raw(),
        }
    }
}

/// An [`Answer`] that only the buyer can read, for when no connection to the buyer exists. It tells who answered which offer,
/// not what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedAnswer {
    /// Digest of the offer.
    pub offer: Hash,
    /// The buyer.
    pub to: NodeId,
    /// When it was made.
    pub issued: UnixMillis,
    /// Key used once.
    pub ephemeral: NodeId,
    /// The sealed envelope.
    pub ciphertext: ByteBuf,
}

impl Message for SealedAnswer {
    const KIND: Kind = Kind::SealedAnswer;
    const MAX_BYTES: usize = limits::MAX_BID_BYTES + 2 * limits::ENVELOPE_OVERHEAD_BYTES;
    const MAX_TTL_MS: u64 = limits::MAX_BID_WINDOW_MS;

    fn issued(&self) -> UnixMillis {
        self.issued
    }

    fn expires(&self) -> UnixMillis {
        self.issued.after(limits::MAX_BID_WINDOW_MS)
    }

    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

impl SealedAnswer {
    /// Seals `answer` to `buyer`. `ephemeral` is 32 fresh random bytes.
    pub fn seal(answer: &Answer, buyer: &NodeId, now: UnixMillis, ephemeral: &[u8; 32]) -> Result<Self, BadKey> {
        let sealed = key::seal(buyer, answer.raw(), &answer.offer(), ephemeral)?;
        Ok(SealedAnswer {
            offer: answer.offer(),
            to: *buyer,
            issued: now,
            ephemeral: sealed.ephemeral,
            ciphertext: ByteBuf::from(sealed.ciphertext),
        })
    }
}

impl Verified<SealedAnswer> {
    /// Opens it with the buyer's key; the answer inside must be signed by the one who sealed it.
    pub fn unseal(&self, key: &NodeKey, network: &NetworkId, now: UnixMillis) -> Result<Answer, Refusal> {
        let sealed = Sealed { ephemeral: self.ephemeral, ciphertext: self.ciphertext.to_vec() };
        let raw = key.open(&sealed, &self.offer).map_err(|_| Refusal::Field("ciphertext"))?;
        let answer = Answer::read(&raw, network, now)?;
        let consistent = answer.signer() == self.signer() && answer.offer() == self.offer;
        if consistent { Ok(answer) } else { Err(Refusal::Field("signer")) }
    }
}

/// The size of an encoded, signed answer at most, for transports that read it whole.
pub const MAX_ANSWER_BYTES: usize = limits::MAX_BID_BYTES + limits::ENVELOPE_OVERHEAD_BYTES;

/// Commits to a set of bids: their digests, sorted. Published with the accept, so that a loser can prove whether its bid was
/// among those considered.
pub fn bids_commitment(mut digests: Vec<Hash>) -> Hash {
    digests.sort_unstable();
    crate::hash::tagged("infernet/bids/1", &[&codec::encode(&digests)])
}
