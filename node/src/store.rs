//! What a node remembers: receipts, tabs with other nodes, what was spent, which commands it has obeyed, the number of its last ad, and peers to try
//! first after a restart.
//!
//! Callers see the [`Store`] trait; [`open`] gives the one on disk, [`MemoryStore`] is for tests and nodes without a disk, and
//! [`JournaledStore`] for simulated nodes, whose disk can crash. All pass one suite. On disk there are two things under the
//! node's home: `journal-<network>`, the truth, and `store-<network>`, an index over it. Delete the index and it comes back;
//! damage it and it is moved aside, made anew, and the log says so.
//!
//! A receipt is kept per (job, worker), since a job that failed over has one from each worker; what a second receipt for the
//! same pair does is decided in one place, [`Put::decide`]. Rows are the signed bytes as they were received, and every read
//! verifies them again: a row that can't be read is skipped and counted, never believed, never fatal.
//!
//! Calls are synchronous. Those that promise something (receipts, tabs, spend, commands, ad numbers) return when it is **on the
//! disk**, synced: it survives a killed process and a power cut. That takes some milliseconds, however many callers wait at
//! once. [`Store::keep_receipt`] is the same for callers that may not block. When the disk is full, running jobs are
//! still settled from a reserve and [`Store::accepts_work`] says no. No prompt, answer or key is ever stored.

mod commit;
mod durable;
mod journal;
mod journaled;
mod memory;
mod open;
mod record;
mod sled;

pub use self::{
    journal::{
        Disk,
        test_disk::{Names, Tear, TestDisk},
    },
    journaled::{JournaledStore, ReadReceipt},
    memory::MemoryStore,
};

use self::sled::{Contents, Index, OpenError};

use crate::metrics::Histogram;
use futures::{FutureExt, future::BoxFuture};
use infernet_wire::{
    id::{ChannelId, Hash, JobId, NodeId},
    money::MicroUsd,
    receipt::SignedReceipt,
    time::UnixMillis,
    topic::NetworkId,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Receipts in one page at most: about a megabyte.
pub const MAX_PAGE: usize = 1000;
/// Peers remembered: far more than are needed to find the mesh again.
pub const MAX_PEERS: usize = 64;
/// The longest address of a peer that is remembered, in bytes; relayed ones are about 200.
pub const MAX_PEER_BYTES: usize = 512;
/// Other workers' ad sequences remembered: those of a large mesh, in 170 kB.
pub const MAX_AD_SEQUENCES: usize = 4_096;
/// The longest name of an API key in a [`SpendRecord`], in bytes.
pub const MAX_SPEND_KEY_BYTES: usize = 128;

/// A node's memory. One process at a time.
pub trait Store: Send + Sync {
    /// Remembers a receipt; a second time changes nothing. Durable on return.
    fn put_receipt(&self, receipt: &SignedReceipt) -> Result<Put, StoreError>;

    /// [`Store::put_receipt`] for callers that may not block: decided at once, durable when it resolves.
    fn keep_receipt(&self, receipt: &SignedReceipt) -> BoxFuture<'static, Result<Put, StoreError>> {
        std::future::ready(self.put_receipt(receipt)).boxed()
    }

    /// Receipts, the newest first, at most [`MAX_PAGE`].
    fn receipts(&self, page: Page) -> Result<Vec<SignedReceipt>, StoreError>;

    /// The receipts of one job: one from each worker that did a part of it.
    fn receipts_of(&self, job: &JobId) -> Result<Vec<SignedReceipt>, StoreError>;

    /// Whether a receipt of `worker` for `job` is kept. One look into the index: a few microseconds.
    fn has_receipt(&self, job: &JobId, worker: &NodeId) -> Result<bool, StoreError>;

    /// How much is remembered.
    fn counts(&self) -> Result<Counts, StoreError>;

    /// A number for the next ad: above every earlier one of this store, and at least `now` in milliseconds, so that it grows
    /// even if the store is lost. Durable on return.
    fn next_ad_sequence(&self, now: UnixMillis) -> Result<u64, StoreError>;

    /// Spend of one API key (or "" for the node's own CLI) on one UTC day, cumulative; the newest record of (key, day) counts.
    /// Durable on return.
    fn put_spend(&self, record: &SpendRecord) -> Result<(), StoreError>;

    /// The newest record of every key and day since `day`, in the order of days and keys.
    fn spend_since(&self, day: u32) -> Result<Vec<SpendRecord>, StoreError>;

    /// Whether `sequence` is above every earlier one of `operator`; if so it is remembered, durably, before this returns true.
    fn accept_command(&self, operator: &NodeId, sequence: u64) -> Result<bool, StoreError>;

    /// Remembers a tab, see [`crate::settlement::tab`]; the newest counts. Durable on return.
    fn put_tab(&self, of: &TabOf, tab: Vec<u8>) -> Result<(), StoreError>;

    /// [`Store::put_tab`] for callers that may not block: queued before this returns, durable when it resolves.
    fn keep_tab(&self, of: &TabOf, tab: Vec<u8>) -> BoxFuture<'static, Result<(), StoreError>> {
        std::future::ready(self.put_tab(of, tab)).boxed()
    }

    /// A tab, as it was kept last. One look into the index.
    fn tab(&self, of: &TabOf) -> Result<Option<Vec<u8>>, StoreError>;

    /// All tabs of `me` on one side, in order, after `after`: [`MAX_PAGE`] at most.
    fn tabs(&self, side: Side, me: &NodeId, after: Option<&TabOf>) -> Result<Vec<(TabOf, Vec<u8>)>, StoreError>;

    /// Remembers the step `number` of settling debts on a chain, see [`crate::settlement`]; the newest counts. Durable on return.
    fn put_step(&self, number: u64, step: Vec<u8>) -> Result<(), StoreError>;

    /// [`Store::put_step`] for callers that may not block: queued before this returns, durable when it resolves.
    fn keep_step(&self, number: u64, step: Vec<u8>) -> BoxFuture<'static, Result<(), StoreError>> {
        std::future::ready(self.put_step(number, step)).boxed()
    }

    /// The steps from number `from` on, in order: [`MAX_PAGE`] at most.
    fn steps(&self, from: u64) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;

    /// Replaces the remembered ad sequences of other workers by the first [`MAX_AD_SEQUENCES`] of these, so that an older ad
    /// that is replayed after a restart is stale. May be lost.
    fn put_ad_sequences(&self, sequences: &[(NodeId, u64)]) -> Result<(), StoreError>;

    /// The remembered ad sequences.
    fn ad_sequences(&self) -> Result<Vec<(NodeId, u64)>, StoreError>;

    /// Whether new work may begin: no if the disk is full or does not keep what is written; then the error says what to do.
    fn accepts_work(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What was written and how long that took; `None` if nothing is written to a disk.
    fn commits(&self) -> Option<Commits> {
        None
    }

    /// Replaces the remembered peers by the first [`MAX_PEERS`] of these multiaddrs. Best first.
    fn put_peers(&self, peers: &[String]) -> Result<(), StoreError>;

    /// The remembered peers, as they were put.
    fn peers(&self) -> Result<Vec<String>, StoreError>;

    /// Writes everything out. To be called before the process ends.
    fn flush(&self) -> Result<(), StoreError>;
}

/// The store on disk under a node's home, one for each network.
pub fn open(home: &Path, network: &NetworkId) -> Result<Arc<dyn Store>, StoreError> {
    open_through(home, network, |disk| disk)
}

/// The same, whose journal reaches the disk through what `through` makes of it: for who wants to see, or to stop, what is written.
pub fn open_through(
    home: &Path,
    network: &NetworkId,
    through: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(self::open::open(home, network, through)?))
}

/// The networks on which the node of `home` has kept anything, in order; none if it can't be listed.
pub fn networks(home: &Path) -> Vec<NetworkId> {
    let named = |name: &str| name.strip_prefix("journal-")?.parse().ok();
    let entries = std::fs::read_dir(home).into_iter().flatten().flatten();
    let mut all: Vec<NetworkId> = entries.filter_map(|entry| named(entry.file_name().to_str()?)).collect();
    all.sort();
    all
}

/// On which side of a job this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Side {
    /// It pays.
    Bought = 0,
    /// It is paid.
    Sold = 1,
}

/// Whose tab it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TabOf {
    /// Who pays.
    pub side: Side,
    /// An id of this node: the one that it has, or one that it had.
    pub me: NodeId,
    /// The other node.
    pub other: NodeId,
    /// On which channel of a chain; `None` for the ledger between the two.
    pub channel: Option<ChannelId>,
}

impl TabOf {
    /// The ledger between `me` and `other`.
    pub fn ledger(side: Side, me: NodeId, other: NodeId) -> Self {
        TabOf { side, me, other, channel: None }
    }
}

/// What one API key may have spent on one day, and has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendRecord {
    /// The key's name, never the key itself; empty for the node's own command line.
    pub key: String,
    /// Days since 1970-01-01, UTC.
    pub day: u32,
    /// What running and finished jobs could cost at most.
    pub authorised: MicroUsd,
    /// What finished jobs have cost.
    pub spent: MicroUsd,
}

/// What of a receipt decides whether another one replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Digest of the worker's statement.
    pub digest: Hash,
    /// Whether the buyer has signed.
    pub countersigned: bool,
}

impl Standing {
    /// Of `receipt`.
    pub fn of(receipt: &SignedReceipt) -> Self {
        Standing { digest: receipt.receipt().digest(), countersigned: receipt.countersign().is_some() }
    }
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
    pub fn decide(stored: Option<Standing>, new: Standing) -> Self {
        let Some(stored) = stored else { return Put::New };
        match (stored.countersigned, new.countersigned) {
            (false, true) => Put::Countersigned,
            _ if stored.digest == new.digest => Put::Known,
            _ => Put::Conflicting,
        }
    }

    /// Whether the store now holds the new one.
    pub fn is_kept(self) -> bool {
        matches!(self, Put::New | Put::Countersigned)
    }
}

/// Where a receipt stands in time. Unique, so that paging skips and repeats nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Position {
    /// When the job ended.
    pub finished: UnixMillis,
    /// The job.
    pub job: JobId,
    /// Who worked.
    pub worker: NodeId,
}

impl fmt::Display for Position {
    /// `<finished>.<job>.<worker>`, which can stand in a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.finished.0, self.job, self.worker)
    }
}

impl TryFrom<String> for Position {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().ok_or("a position is FINISHED.JOB.WORKER");
        let (finished, job, worker) = (next()?, next()?, next()?);
        Ok(Position {
            finished: UnixMillis(finished.parse().map_err(|_| "a position begins with unix milliseconds")?),
            job: job.parse().map_err(|_| "a position's second part is a job id")?,
            worker: worker.parse().map_err(|_| "a position's third part is a node id")?,
        })
    }
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

/// What a store has written since it was opened.
#[derive(Debug, Clone)]
pub struct Commits {
    /// Records.
    pub records: u64,
    /// Seconds that each batch of them took, its sync included.
    pub seconds: Histogram,
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
    /// More than could be read again.
    #[error("a record of {0} bytes is more than the journal takes, so it is not kept")]
    TooLarge(usize),
    /// No room. Running jobs are still settled while the reserve lasts.
    #[error("the disk of {} is full: free some space; running jobs are still settled, new work waits for room", path.display())]
    Full {
        /// The journal's directory.
        path: PathBuf,
    },
    /// The disk did not keep what was written, so nothing more is promised.
    #[error("the disk did not keep what was written to {} ({reason}): check the disk, then start the node again", path.display())]
    Failed {
        /// The journal's directory.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// The disk is slower than what comes.
    #[error("{0} writes wait for the disk already: try again later")]
    Busy(usize),
    /// The name of an API key is too long.
    #[error("the key's name has {bytes} bytes: use at most {MAX_SPEND_KEY_BYTES}")]
    KeyTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The node is shutting down.
    #[error("the store was closed while writing: {0}")]
    Interrupted(String),
}

fn check_spend(record: &SpendRecord) -> Result<(), StoreError> {
    let bytes = record.key.len();
    if bytes <= MAX_SPEND_KEY_BYTES { Ok(()) } else { Err(StoreError::KeyTooLong { bytes }) }
}

/// The number after `last`, never below the clock.
fn sequence_after(last: u64, now: UnixMillis) -> u64 {
    last.saturating_add(1).max(now.0)
}

/// What of `peers` is worth keeping.
fn bounded_peers(peers: &[String]) -> Vec<String> {
    peers.iter().filter(|peer| peer.len() <= MAX_PEER_BYTES).take(MAX_PEERS).cloned().collect()
}

#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_journal(data: &[u8]) {
    journal::fuzz::history(data);
}

#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_journal_file(data: &[u8]) {
    journal::fuzz::file(data);
}

#[cfg(test)]
mod tests;
