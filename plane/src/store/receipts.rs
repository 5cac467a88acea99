//! Receipts as they were heard: all that the index is made from.

use super::Answer;
use infernet_wire::{
    id::{JobId, NodeId},
    receipt::SignedReceipt,
};

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptPut {
    /// The first of its job and worker.
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
    /// What `new` is to what is kept. Whatever the order in which receipts come, the same one is kept in the end.
    pub fn decide(kept: Option<&SignedReceipt>, new: &SignedReceipt) -> Self {
        let Some(kept) = kept else { return ReceiptPut::New };
        let order = |receipt: &SignedReceipt| (receipt.receipt().finished, receipt.receipt().digest());
        match (kept.countersign().is_some(), new.countersign().is_some()) {
            (false, true) => ReceiptPut::Countersigned,
            (true, false) => ReceiptPut::Known,
            _ if order(new) > order(kept) => ReceiptPut::Preferred,
            _ => ReceiptPut::Known,
        }
    }
}

/// Receipts by job and worker, and in the order in which they came.
pub trait Receipts: Send + Sync {
    /// Remembers a receipt whose signatures were verified.
    fn put_receipt<'a>(&'a self, receipt: &'a SignedReceipt) -> Answer<'a, ReceiptPut>;

    /// The receipt of a job and worker.
    fn receipt(&self, job: JobId, worker: NodeId) -> Answer<'_, Option<SignedReceipt>>;

    /// Receipts that came after `position`, the oldest first, each with its position; 0 is before all. One that was
    /// countersigned later comes again, at its new position.
    fn receipts_after(&self, position: u64, limit: usize) -> Answer<'_, Vec<(u64, SignedReceipt)>>;
}
