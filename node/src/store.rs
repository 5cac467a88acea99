//! What a node remembers: receipts, the number of its last ad, and peers to try first after a restart.
//!
//! Callers see the [`Store`] trait; [`open`] gives the one on disk, [`MemoryStore`] is for tests and nodes without a disk. Both
//! pass one suite. A receipt is kept per (job, worker), since a job that failed over has one from each worker; what a second
//! receipt for the same pair does is decided in one place, [`Put::decide`]. Rows are the signed bytes as they were received,
//! and every read verifies them again: a row that can't be read is skipped and counted, never believed, never fatal.
//!
//! Calls are synchronous and short; those that promise something (receipts, ad numbers) return after a flush, some
//! milliseconds. A flush survives a killed process, not a power cut. No prompt, answer or key is ever stored.

mod memory;
mod sled;

pub use self::memory::MemoryStore;

use infernet_wire::{
    id::{JobId, NodeId},
    receipt::SignedReceipt,
    time::UnixMillis,
    topic::NetworkId,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Receipts in one page at most: about a megabyte.
pub const MAX_PAGE: usize = 1000;
/// Peers remembered: far more than are needed to find the mesh again.
pub const MAX_PEERS: usize = 64;
/// The longest address of a peer that is remembered, in bytes; relayed ones are about 200.
pub const MAX_PEER_BYTES: usize = 512;

/// A node's memory. One process at a time.
pub trait Store: Send + Sync {
    /// Remembers a receipt; a second time changes nothing. Durable on return.
    fn put_receipt(&self, receipt: &SignedReceipt) -> Result<Put, StoreError>;

    /// Receipts, the newest first, at most [`MAX_PAGE`].
    fn receipts(&self, page: Page) -> Result<Vec<SignedReceipt>, StoreError>;

    /// The receipts of one job: one from each worker that did a part of it.
    fn receipts_of(&self, job: &JobId) -> Result<Vec<SignedReceipt>, StoreError>;

    /// How much is remembered.
    fn counts(&self) -> Result<Counts, StoreError>;

    /// A number for the next ad: above every earlier one of this store, and at least `now` in milliseconds, so that it grows
    /// even if the store is lost. Durable on return.
    fn next_ad_sequence(&self, now: UnixMillis) -> Result<u64, StoreError>;

    /// Replaces the remembered peers by the first [`MAX_PEERS`] of these multiaddrs. Best first.
    fn put_peers(&self, peers: &[String]) -> Result<(), StoreError>;

    /// The remembered peers, as they were put.
    fn peers(&self) -> Result<Vec<String>, StoreError>;

    /// Writes everything out. To be called before the process ends.
    fn flush(&self) -> Result<(), StoreError>;
}

/// The store on disk under a node's home, one for each network.
pub fn open(home: &Path, network: &NetworkId) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(self::sled::SledStore::open(home, network)?))
}

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The first for its job and worker.
    New,
    /// It has the buyer's signature, which the one it replaces had not.
    Countersigned,
    /// Nothing new in it.
    Known,
    /// The worker signed something else for the same job. The first is kept, unless only the second has the buyer's signature.
    Conflicting,
}

impl Put {
    /// What `new` is to what is `stored`. A countersigned receipt is never replaced.
    pub fn decide(stored: Option<&SignedReceipt>, new: &SignedReceipt) -> Self {
        let Some(stored) = stored else { return Put::New };
        match (stored.countersign(), new.countersign()) {
            (None, Some(_)) => Put::Countersigned,
            _ if stored.receipt().digest() == new.receipt().digest() => Put::Known,
            _ => Put::Conflicting,
        }
    }

    /// Whether the store now holds the new one.
    pub fn is_kept(self) -> bool {
        matches!(self, Put::New | Put::Countersigned)
    }
}

/// Where a receipt stands in time. Unique, so that paging skips and repeats nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When the job ended.
    pub finished: UnixMillis,
    /// The job.
    pub job: JobId,
    /// Who worked.
    pub worker: NodeId,
}

impl Position {
    /// Where `receipt` stands.
    pub fn of(receipt: &SignedReceipt) -> Self {
        let body = receipt.receipt();
        Position { finished: body.finished, job: body.job, worker: body.worker }
    }
}

/// Which receipts to read.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Only those before this one; the last of the previous page.
    pub before: Option<Position>,
    /// How many at most.
    pub limit: usize,
}

impl Page {
    /// The newest `limit` receipts.
    pub fn newest(limit: usize) -> Self {
        Page { before: None, limit }
    }
}

/// How much a store remembers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Receipts.
    pub receipts: u64,
    /// Those with the buyer's signature; the rest are unacknowledged.
    pub countersigned: u64,
    /// Times that a read met a row that could not be read, since the store was opened.
    pub unreadable: u64,
}

/// Why a store can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("another infernet node is running in {}: stop it, or give this one its own --home", home.display())]
    Locked {
        /// The node's home.
        home: PathBuf,
    },
    /// What is on disk is not what was written.
    #[error(
        "the store {} is damaged ({reason}): move that directory away and start again; it holds receipts, so keep it if they matter",
        path.display()
    )]
    Corrupt {
        /// Its directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The disk or its permissions.
    #[error("can't use the store {}: {reason}; check its permissions and the free space", path.display())]
    Io {
        /// Its directory.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// The node is shutting down.
    #[error("the store was closed while writing: {0}")]
    Interrupted(String),
}

/// The number after `last`, never below the clock.
fn sequence_after(last: u64, now: UnixMillis) -> u64 {
    last.saturating_add(1).max(now.0)
}

/// What of `peers` is worth keeping.
fn bounded_peers(peers: &[String]) -> Vec<String> {
    peers.iter().filter(|peer| peer.len() <= MAX_PEER_BYTES).take(MAX_PEERS).cloned().collect()
}

#[cfg(test)]
mod tests;
