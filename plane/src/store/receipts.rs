//! Receipts as they were heard: all that the index is made from.

use super::Answer;
use crate::index::ReceiptFact;
use infernet_wire::{
    id::{JobId, NodeId},
    receipt::SignedReceipt,
};

/// Facts of one page at most: 2 MB.
pub const MAX_FACTS: usize = 10_000;

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptPut {
    /// The first of its job, worker and buyer.
    New,
    /// It has the buyer's signature, which the one before lacked, and takes its place.
    Countersigned,
    /// The worker signed two statements, and the buyer neither or both: this one takes the place of the other, since it tells of
    /// a later end, or of the same and has the greater digest. So all planes keep the same one, whichever they heard first.
    Preferred,
    /// It was known, or one that has more to it is.
    Known,
}

impl ReceiptPut {
    /// What `new` is to what is kept, by [`SignedReceipt::rank`]. Whatever the order in which receipts come, the same statement is
    /// kept in the end; of two countersignatures of it, the first.
    pub fn decide(kept: Option<&SignedReceipt>, new: &SignedReceipt) -> Self {
        let Some(kept) = kept else { return ReceiptPut::New };
        match (new.rank(), kept.rank()) {
            (new, kept) if new <= kept => ReceiptPut::Known,
            ((true, ..), (false, ..)) => ReceiptPut::Countersigned,
            _ => ReceiptPut::Preferred,
        }
    }
}

/// Receipts by job, worker and buyer, and in the order in which they came. The buyer is a part of it, or a worker that signs a
/// job again for a key of its own would have the honest receipt forgotten.
pub trait Receipts: Send + Sync {
    /// Remembers a receipt whose signatures were verified.
    fn put_receipt<'a>(&'a self, receipt: &'a SignedReceipt) -> Answer<'a, ReceiptPut>;

    /// The receipt of a job, worker and buyer.
    fn receipt(&self, job: JobId, worker: NodeId, buyer: NodeId) -> Answer<'_, Option<SignedReceipt>>;

    /// Receipts that came after `position`, the oldest first, each with its position; 0 is before all. One that was
    /// countersigned later comes again, at its new position.
    fn receipts_after(&self, position: u64, limit: usize) -> Answer<'_, Vec<(u64, SignedReceipt)>>;

    /// The same, at most [`MAX_FACTS`], as what they say. They were verified when they were put, and are not again.
    fn facts_after(&self, position: u64, limit: usize) -> Answer<'_, Vec<(u64, ReceiptFact)>>;
}
