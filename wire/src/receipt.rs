//! `JobReceipt`: the Compute Payment Receipt (CPR). The worker signs what it did, the buyer countersigns; it holds no prompt
//! and no answer, only their hashes.

use crate::{
    codec,
    envelope::{Envelope, Kind, Message, Refusal, Verified, field},
    id::{Hash, JobId, NodeId},
    limits,
    money::{MicroUsd, Price},
    settle::PaidOn,
    time::UnixMillis,
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fmt;

/// How a job ended. An open number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobStatus(pub u8);

impl JobStatus {
    /// The engine finished.
    pub const COMPLETED: Self = JobStatus(0);
    /// The buyer stopped it; what was delivered counts.
    pub const CANCELLED: Self = JobStatus(1);
    /// The engine failed; what was delivered counts.
    pub const FAILED: Self = JobStatus(2);
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::COMPLETED => "completed",
            Self::CANCELLED => "cancelled",
            Self::FAILED => "failed",
            _ => "other",
        })
    }
}

/// A worker's statement of a finished job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReceipt {
    /// The job.
    pub job: JobId,
    /// Digest of the accept it ran under.
    pub accept: Hash,
    /// Who asked.
    pub buyer: NodeId,
    /// Who worked; the signer.
    pub worker: NodeId,
    /// The workload.
    pub workload: String,
    /// The model, by the worker's id.
    pub model: String,
    /// Digest of its weights, if the engine tells one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights: Option<Hash>,
    /// Input tokens charged.
    pub input_tokens: u32,
    /// Output tokens charged.
    pub output_tokens: u32,
    /// The agreed price.
    pub price: Price,
    /// `price.cost(input_tokens, output_tokens)`.
    pub amount: MicroUsd,
    /// What vouchers have already covered.
    pub paid: MicroUsd,
    /// When the worker opened the job.
    pub started: UnixMillis,
    /// When its last token left.
    pub finished: UnixMillis,
    /// How it ended.
    pub status: JobStatus,
    /// [`crate::chat::request_hash`] of the request.
    pub request: Hash,
    /// The transcript's last value, see [`crate::chat::Transcript`].
    pub transcript: Hash,
    /// On which channel of a chain it was paid; not said if on the ledger.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paid_on: Option<PaidOn>,
}

impl Message for JobReceipt {
    const KIND: Kind = Kind::JobReceipt;
    const MAX_BYTES: usize = limits::MAX_RECEIPT_BYTES;
    const MAX_TTL_MS: u64 = limits::RECEIPT_TTL_MS;

    fn issued(&self) -> UnixMillis {
        self.finished
    }

    fn expires(&self) -> UnixMillis {
        self.finished.after(limits::RECEIPT_TTL_MS)
    }

    fn check(&self) -> Result<(), Refusal> {
        field::name(&self.workload, "workload")?;
        field::name(&self.model, "model")?;
        field::ensure(self.price.cost(self.input_tokens, self.output_tokens) == Some(self.amount), "amount")?;
        field::ensure(self.paid <= self.amount, "paid")?;
        self.paid_on.as_ref().map_or(Ok(()), PaidOn::check)?;
        field::ensure(self.started <= self.finished, "finished")
    }
}

/// The buyer's agreement with one receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Countersign {
    /// Digest of the receipt.
    pub receipt: Hash,
    /// When the buyer agreed.
    pub issued: UnixMillis,
}

impl Message for Countersign {
    const KIND: Kind = Kind::Countersign;
    const MAX_BYTES: usize = limits::MAX_RECEIPT_BYTES;
    const MAX_TTL_MS: u64 = limits::RECEIPT_TTL_MS;

    fn issued(&self) -> UnixMillis {
        self.issued
    }

    fn expires(&self) -> UnixMillis {
        self.issued.after(limits::RECEIPT_TTL_MS)
    }

    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A receipt with the signatures that exist so far. Made by [`SignedReceipt::new`] and the reading functions alone, so its
/// parts always belong together.
#[derive(Debug, Clone)]
pub struct SignedReceipt {
    receipt: Verified<JobReceipt>,
    countersign: Option<Verified<Countersign>>,
}

#[derive(Serialize, Deserialize)]
struct Repr {
    receipt: ByteBuf,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    countersign: Option<ByteBuf>,
}

impl SignedReceipt {
    /// Puts the parts together: the receipt must be signed by its worker, the countersignature by its buyer and for it.
    pub fn new(receipt: Verified<JobReceipt>, countersign: Option<Verified<Countersign>>) -> Result<Self, Refusal> {
        field::ensure(receipt.signer() == receipt.worker, "worker")?;
        if let Some(countersign) = &countersign {
            field::ensure(countersign.signer() == receipt.buyer, "buyer")?;
            field::ensure(countersign.receipt == receipt.digest(), "receipt")?;
        }
        Ok(SignedReceipt { receipt, countersign })
    }

    /// The worker's statement.
    pub fn receipt(&self) -> &Verified<JobReceipt> {
        &self.receipt
    }

    /// The buyer's agreement; `None` while the receipt is unacknowledged.
    pub fn countersign(&self) -> Option<&Verified<Countersign>> {
        self.countersign.as_ref()
    }

    /// Which of several of one job, worker and buyer is kept, the greatest: one that both signed before one that only the worker
    /// did, then the later end, then the greater digest. Two countersignatures of one statement are equal: the first stays.
    pub fn rank(&self) -> (bool, UnixMillis, Hash) {
        (self.countersign.is_some(), self.receipt.finished, self.receipt.digest())
    }

    /// The bytes in which it is stored and gossiped.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&Repr {
            receipt: ByteBuf::from(self.receipt.raw().to_vec()),
            countersign: self.countersign.as_ref().map(|c| ByteBuf::from(c.raw().to_vec())),
        })
    }

    /// Reads one from the store: everything is checked but its age.
    pub fn decode_stored(bytes: &[u8], network: &NetworkId) -> Result<Self, Refusal> {
        let parts = ReceiptParts::decode(bytes)?;
        let receipt = parts.receipt.open_stored(network)?.verify()?;
        let countersign = parts.countersign.map(|c| c.open_stored(network)?.verify()).transpose()?;
        SignedReceipt::new(receipt, countersign)
    }

    /// The same for the receipts of simulated nodes, which have no signatures, and for no others: see
    /// [`crate::envelope::SimulatedKey`].
    pub fn decode_simulated(bytes: &[u8], network: &NetworkId) -> Result<Self, Refusal> {
        let parts = ReceiptParts::decode(bytes)?;
        let receipt = parts.receipt.open_stored(network)?.verify_simulated()?;
        let countersign = parts.countersign.map(|c| c.open_stored(network)?.verify_simulated()).transpose()?;
        SignedReceipt::new(receipt, countersign)
    }
}

/// A gossiped receipt before its signatures are checked.
#[derive(Debug, Clone)]
pub struct ReceiptParts {
    /// The worker's part.
    pub receipt: Envelope,
    /// The buyer's part.
    pub countersign: Option<Envelope>,
}

impl ReceiptParts {
    /// Splits the bytes of [`SignedReceipt::encode`], which have one canonical form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let repr: Repr = codec::decode(bytes).map_err(|_| Refusal::Malformed)?;
        if codec::encode(&repr) != bytes {
            return Err(Refusal::NotCanonical);
        }
        Ok(ReceiptParts {
            receipt: Envelope::decode(&repr.receipt)?,
            countersign: repr.countersign.as_deref().map(|bytes| Envelope::decode(bytes)).transpose()?,
        })
    }
}
