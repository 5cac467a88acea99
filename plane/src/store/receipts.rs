//! Receipts as they were heard: all that the index is made from.

use super::Answer;
use infernet_wire::receipt::SignedReceipt;

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptPut {
    /// The first of its job and worker.
    New,
    /// It has the buyer's signature, which the one before lacked, and takes its place.
    Countersigned,
    /// It was known, or another is: the first one stays, as [`infernet_wire::receipt`] has it.
    Known,
}

/// Receipts by job and worker, and in the order in which they came.
pub trait Receipts: Send + Sync {
    /// Remembers a receipt whose signatures were verified.
    fn put_receipt<'a>(&'a self, receipt: &'a SignedReceipt) -> Answer<'a, ReceiptPut>;

    /// Receipts that came after `position`, the oldest first, each with its position; 0 is before all. One that was
    /// countersigned later comes again, at its new position.
    fn receipts_after(&self, position: u64, limit: usize) -> Answer<'_, Vec<(u64, SignedReceipt)>>;
}
