//! `/infernet/receipts/1`: a node's receipts, page by page, the newest first, so that any indexer can be made anew.
//!
//! A libp2p request-response protocol: the request is the bytes of a [`PageRequest`], ended by closing the stream, the response
//! those of a [`Page`], ended in the same way. Nothing of it is signed: each receipt is, by whoever worked and whoever bought.
//!
//! A node's receipts stand in one order, by [`Place`], in which each has its own: the next page is asked for by the last place
//! of the one before, so that nothing is skipped or repeated while new ones come. A node may answer with fewer than were asked
//! for; an empty page that is the last ends it. One that is asked too often answers with [`Page::busy`].

use crate::{
    codec,
    envelope::Refusal,
    id::{JobId, NodeId},
    limits,
    receipt::SignedReceipt,
    time::UnixMillis,
    topic::NetworkId,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The protocol's name.
pub const PROTOCOL: &str = "/infernet/receipts/1";

/// Where a receipt stands. Times are compared first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// When the job ended.
    pub finished: UnixMillis,
    /// The job.
    pub job: JobId,
    /// Who worked.
    pub worker: NodeId,
}

impl Place {
    /// Of a receipt.
    pub fn of(receipt: &SignedReceipt) -> Self {
        let body = receipt.receipt();
        Place { finished: body.finished, job: body.job, worker: body.worker }
    }
}

/// Asks for a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// The network: a node of another one answers with an empty last page.
    pub network: NetworkId,
    /// At most so many; [`limits::MAX_PAGE_RECEIPTS`] are the most.
    pub limit: u16,
    /// Only those before this place; none: from the newest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Place>,
}

impl PageRequest {
    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a request.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        codec::canonical(bytes, limits::MAX_PAGE_REQUEST_BYTES)
    }
}

/// A page: receipts as they are stored and gossiped, not verified yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The bytes of [`SignedReceipt::encode`], the newest first.
    pub receipts: Vec<ByteBuf>,
    /// Whether nothing comes after it.
    pub is_last: bool,
    /// Not 0: the node was asked too often and answers nothing now; ask again after so many milliseconds.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub wait_ms: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Page {
    /// Of these receipts, as many as fit.
    pub fn new(receipts: &[SignedReceipt], is_last: bool) -> Self {
        let mut page = Page { receipts: Vec::new(), is_last, wait_ms: 0 };
        let mut bytes = 0;
        for receipt in receipts {
            let encoded = receipt.encode();
            bytes += encoded.len() + RECEIPT_OVERHEAD;
            if page.receipts.len() >= limits::MAX_PAGE_RECEIPTS || bytes > limits::MAX_PAGE_BYTES - PAGE_OVERHEAD {
                page.is_last = false;
                break;
            }
            page.receipts.push(ByteBuf::from(encoded));
        }
        page
    }

    /// There are none, or no more.
    pub fn none() -> Self {
        Page { is_last: true, ..Page::default() }
    }

    /// Asked too often.
    pub fn busy(wait_ms: u32) -> Self {
        Page { wait_ms: wait_ms.max(1), ..Page::default() }
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a page; its receipts are still to be verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let page: Page = codec::canonical(bytes, limits::MAX_PAGE_BYTES)?;
        if page.receipts.len() > limits::MAX_PAGE_RECEIPTS {
            return Err(Refusal::TooLarge);
        }
        Ok(page)
    }
}

/// Head of a receipt in a page.
const RECEIPT_OVERHEAD: usize = 5;
/// The rest of a page.
const PAGE_OVERHEAD: usize = 32;
