//! What of each message the index keeps.

use infernet_wire::{
    accept::JobAccept,
    capability::{CapabilityAd, ModelAd},
    envelope::Verified,
    id::{Hash, JobId, NodeId},
    money::{MicroUsd, Price},
    offer::JobOffer,
    receipt::{JobStatus, SignedReceipt},
    time::UnixMillis,
};
use std::sync::Arc;

/// A message that was verified.
#[derive(Debug, Clone)]
pub enum Event {
    /// What a worker can do.
    Ad(AdFact),
    /// What a buyer wants.
    Offer(OfferFact),
    /// Who got it.
    Accept(AcceptFact),
    /// What was done.
    Receipt(ReceiptFact),
}

/// A worker's ad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdFact {
    /// Whose.
    pub worker: NodeId,
    /// Names the ad.
    pub digest: Hash,
    /// Grows with each ad of the worker.
    pub sequence: u64,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it is gone, and its worker offline.
    pub expires: UnixMillis,
    /// Role, GPU, region.
    pub tags: Vec<String>,
    /// Models and prices.
    pub models: Vec<ModelAd>,
    /// Jobs at once.
    pub slots: u16,
}

impl From<&Verified<CapabilityAd>> for Event {
    fn from(ad: &Verified<CapabilityAd>) -> Self {
        Event::Ad(AdFact {
            worker: ad.signer(),
            digest: ad.digest(),
            sequence: ad.sequence,
            issued: ad.issued,
            expires: ad.expires,
            tags: ad.tags.clone(),
            models: ad.models.clone(),
            slots: ad.slots,
        })
    }
}

/// A buyer's offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferFact {
    /// Names the offer, in accepts.
    pub digest: Hash,
    /// Whose.
    pub buyer: NodeId,
    /// The model asked for.
    pub model: String,
    /// Input tokens at most.
    pub input_tokens: u32,
    /// Output tokens at most.
    pub output_tokens: u32,
    /// The most paid.
    pub ceiling: Price,
    /// When it was made.
    pub issued: UnixMillis,
}

impl From<&Verified<JobOffer>> for Event {
    fn from(offer: &Verified<JobOffer>) -> Self {
        Event::Offer(OfferFact {
            digest: offer.digest(),
            buyer: offer.signer(),
            model: offer.model.clone(),
            input_tokens: offer.input_tokens,
            output_tokens: offer.output_tokens,
            ceiling: offer.ceiling,
            issued: offer.issued,
        })
    }
}

/// Who won an auction. Bids are sealed, so only what the accept tells of them is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptFact {
    /// Names the accept.
    pub digest: Hash,
    /// Digest of the offer.
    pub offer: Hash,
    /// Who signed: the buyer, if the offer is its own.
    pub buyer: NodeId,
    /// Who won.
    pub winner: NodeId,
    /// The model, by the winner's id.
    pub model: String,
    /// The agreed price.
    pub price: Price,
    /// The job.
    pub job: JobId,
    /// 1 for the first worker tried.
    pub attempt: u8,
    /// How many would take over.
    pub runners_up: usize,
    /// When it was made.
    pub issued: UnixMillis,
}

impl From<&Verified<JobAccept>> for Event {
    fn from(accept: &Verified<JobAccept>) -> Self {
        Event::Accept(AcceptFact {
            digest: accept.digest(),
            offer: accept.offer,
            buyer: accept.signer(),
            winner: accept.winner,
            model: accept.model.clone(),
            price: accept.price,
            job: accept.job,
            attempt: accept.attempt,
            runners_up: accept.runners_up.len(),
            issued: accept.issued,
        })
    }
}

/// What was done, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptFact {
    /// The job.
    pub job: JobId,
    /// Who worked.
    pub worker: NodeId,
    /// Who asked.
    pub buyer: NodeId,
    /// Names the worker's statement.
    pub digest: Hash,
    /// Whether the buyer has signed, too.
    pub is_settled: bool,
    /// The model.
    pub model: Arc<str>,
    /// Input tokens charged.
    pub input_tokens: u32,
    /// Output tokens charged.
    pub output_tokens: u32,
    /// What it cost.
    pub amount: MicroUsd,
    /// When it began.
    pub started: UnixMillis,
    /// When it ended.
    pub finished: UnixMillis,
    /// How.
    pub status: JobStatus,
}

impl From<&SignedReceipt> for Event {
    fn from(signed: &SignedReceipt) -> Self {
        Event::Receipt(ReceiptFact::from(signed))
    }
}

impl From<&SignedReceipt> for ReceiptFact {
    fn from(signed: &SignedReceipt) -> Self {
        let body = signed.receipt();
        ReceiptFact {
            job: body.job,
            worker: body.worker,
            buyer: body.buyer,
            digest: body.digest(),
            is_settled: signed.countersign().is_some(),
            model: body.model.as_str().into(),
            input_tokens: body.input_tokens,
            output_tokens: body.output_tokens,
            amount: body.amount,
            started: body.started,
            finished: body.finished,
            status: body.status,
        }
    }
}
