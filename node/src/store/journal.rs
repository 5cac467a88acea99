//! The journal: what may not be lost, in the order in which it happened. The truth; the index beside it can be made from it.
//!
//! Records go to the end of the newest *segment*, a batch at a time, and [`Journal::append`] returns when the batch is on the
//! disk: one `fdatasync`, however many records. Full segments are closed, and eight closed ones are rewritten as one
//! without what newer records have superseded ([`compact`]). A journal has one owner, which is why nothing here locks; how
//! many callers share one sync is [`commit`](super::commit)'s business.
//!
//! **A crash** may leave the last batch in part, or as other bytes. On the next start the newest segment is cut behind its last
//! good record: nobody was told that what follows was kept. **Damage** is anything else that does not verify, such as a bad
//! record with good ones behind it: the file is copied to `….damaged-n`, what still verifies is kept, and the log says so.
//!
//! **A full disk** releases a reserve that was written when there was room, so that running jobs are still settled; the
//! journal says [`Health::Full`] from then on, until the reserve could be written again. **A failed sync** ends it: the
//! kernel may have dropped what it could not write, so nothing after that can be promised (Rebello et al., "Can Applications
//! Recover from fsync Failures?", USENIX ATC 2020).

mod compact;
mod disk;
mod frame;
mod mend;
mod segment;
pub(super) mod test_disk;

pub use self::disk::Disk;
pub(super) use self::{
    disk::RealDisk,
    frame::{JournalId, checksum},
};

use self::{
    disk::is_full,
    frame::{BadHeader, SEGMENT_HEADER, Seed, SegmentHeader},
    segment::{Name, scan},
};
use super::record::Record;
use infernet_wire::topic::NetworkId;
use std::{io, sync::Arc};
use tracing::{info, warn};

/// A segment is closed when it has this size. Small enough to be rewritten in some tens of milliseconds, large enough that
/// the three syncs of a new one do not count: 4 MiB are about 5 000 receipts.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Written while there is room, released when there is none: the last receipts of a thousand jobs, twice signed.
const RESERVE_BYTES: usize = 1024 * 1024;
/// The reserve is written in pieces of this. A large block that is freed early teaches glibc, where it is the allocator, to keep
/// later large ones on its heap, where the index's zeroed tables would be resident: five megabytes of an idle node.
const RESERVE_PIECE: usize = 64 * 1024;

const RESERVE: &str = "reserve";

/// Whether the journal can be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// What is written comes from the reserve.
    Full,
    /// Nothing is accepted any more: why.
    Failed(String),
}

/// Why the journal does not do as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    /// No room, not even in the reserve. Nothing was written.
    #[error("the disk is full")]
    Full,
    /// See [`Health::Failed`].
    #[error("{0}")]
    Failed(String),
    /// It can't be read, and not for want of permission.
    #[error("{0}")]
    Corrupt(String),
    /// The disk or its permissions, when opening.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Sizes, smaller in tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) segment: u64,
    pub(super) reserve: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { segment: SEGMENT_BYTES, reserve: RESERVE_BYTES }
    }
}

/// See the module.
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    network: NetworkId,
    seed: Seed,
    id: JournalId,
    sizes: Sizes,
    /// All but the newest, oldest first.
    closed: Vec<Name>,
    newest: Name,
    newest_len: u64,
    /// The number of the last record.
    last: u64,
    health: Health,
    /// Whether closed segments are still rewritten: not after that has failed.
    compacts: bool,
}

impl Journal {
    /// Opens the journal in `disk`, or makes it with `fresh_id`. Afterwards it is whole: a torn end is cut, what an interrupted
    /// compaction left is gone, and everything found is durable.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        network: &NetworkId,
        fresh_id: JournalId,
        sizes: Sizes,
    ) -> Result<Self, JournalError> {
        let closed = segments(&*disk)?;
        let mut journal = Journal {
            disk,
            network: network.clone(),
            seed: Seed::of(network),
            id: fresh_id,
            sizes,
            newest: Name::one(0),
            closed,
            newest_len: 0,
            last: 0,
            health: Health::Good,
            compacts: true,
        };
        journal.read_id()?;
        journal.open_newest()?;
        journal.make_reserve();
        Ok(journal)
    }

    /// Which journal this is.
    pub(super) fn id(&self) -> JournalId {
        self.id
    }

    /// The number of the last record, 0 if there is none.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether it can be relied on.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Hands every record with a number above `after` to `each`, in order.
    pub(super) fn replay(&mut self, after: u64, each: &mut dyn FnMut(Record)) -> Result<(), JournalError> {
        let names: Vec<Name> = self.closed.iter().copied().chain([self.newest]).collect();
        let mut last = 0;
        for (at, name) in names.iter().enumerate() {
            if names.get(at + 1).is_some_and(|next| self.first_of(*next).is_some_and(|first| first <= after + 1)) {
                continue;
            }
            let found = scan(&*self.disk, &name.to_string(), self.seed, last, &mut |record| {
                if record.number > after {
                    each(record);
                }
            })?;
            if *name != self.newest {
                self.mend(*name, last, &found)?;
            }
            last = found.last;
        }
        Ok(())
    }

    /// Writes `records`, whose numbers go on from [`Journal::last`], and returns when they are durable. After an error none of
    /// them counts.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        if let Health::Failed(reason) = &self.health {
            return Err(JournalError::Failed(reason.clone()));
        }
        let (Some(first), Some(newest)) = (records.first(), records.last()) else { return Ok(()) };
        if first.number <= self.last {
            return Err(JournalError::Corrupt(format!("record {} comes after {}", first.number, self.last)));
        }
        let mut bytes = Vec::new();
        records.iter().for_each(|record| frame::write(record, self.seed, &mut bytes));
        if self.newest_len > SEGMENT_HEADER as u64 && self.newest_len + bytes.len() as u64 > self.sizes.segment {
            self.start_segment()?;
        }
        self.write(&bytes)?;
        self.newest_len += bytes.len() as u64;
        self.last = newest.number;
        Ok(())
    }

    /// Tries to leave [`Health::Full`]: there must be room for the reserve again.
    pub(super) fn try_recover(&mut self) {
        if self.health != Health::Full {
            return;
        }
        self.make_reserve();
        if self.disk.len(RESERVE).is_ok_and(|len| len == self.sizes.reserve as u64) {
            (self.health, self.compacts) = (Health::Good, true);
            info!(journal = %self.disk.place().display(), "the disk has room again");
        }
    }

    fn first_of(&self, name: Name) -> Option<u64> {
        let header = segment::header(&*self.disk, &name.to_string(), self.seed).ok()?.ok()?;
        Some(header.first)
    }

    fn read_id(&mut self) -> Result<(), JournalError> {
        for name in self.closed.iter().rev() {
            match segment::header(&*self.disk, &name.to_string(), self.seed)? {
                Ok(header) => self.id = header.id,
                Err(BadHeader::Newer(version)) => {
                    let reason = format!("{name} has version {version}, which a newer infernet wrote: use that one");
                    return Err(JournalError::Corrupt(reason));
                }
                Err(BadHeader::Damaged) => continue,
            }
            break;
        }
        Ok(())
    }

    /// Makes the newest of the segments found whole, or a first one.
    fn open_newest(&mut self) -> Result<(), JournalError> {
        while let Some(name) = self.closed.pop() {
            // All earlier numbers are below the first; should its beginning be damaged, they are looked up.
            let before = self.first_of(name).map_or_else(|| self.last_of_closed(), |first| Ok(first.saturating_sub(1)))?;
            let found = scan(&*self.disk, &name.to_string(), self.seed, before, &mut |_| {})?;
            if found.header.is_err() && found.records == 0 {
                self.drop_beginning(name)?;
                continue;
            }
            if found.is_whole_to_its_tail() {
                self.cut(name, &found)?
            } else {
                self.mend(name, before, &found)?
            }
            let first = found.header.map_or(1, |header| header.first);
            self.last = found.last.max(first.saturating_sub(1));
            self.newest = name;
            self.newest_len = self.disk.len(&name.to_string())?;
            // What a killed process wrote is readable, and not yet durable.
            self.disk.sync(&name.to_string())?;
            self.disk.sync_dir()?;
            return Ok(());
        }
        self.create(Name::one(1))?;
        Ok(())
    }

    /// The last number in the closed segments: all but the newest end with a record.
    fn last_of_closed(&self) -> Result<u64, JournalError> {
        let Some(name) = self.closed.last() else { return Ok(0) };
        Ok(scan(&*self.disk, &name.to_string(), self.seed, 0, &mut |_| {})?.last)
    }

    fn header(&self, first: u64) -> Vec<u8> {
        SegmentHeader { id: self.id, first }.encode(&self.network, self.seed)
    }

    /// Makes an empty segment, durably, and writes to it from now on.
    fn create(&mut self, name: Name) -> io::Result<()> {
        let (text, header) = (name.to_string(), self.header(self.last + 1));
        self.disk.append(&text, &header)?;
        self.disk.sync(&text)?;
        self.disk.sync_dir()?;
        (self.newest, self.newest_len) = (name, header.len() as u64);
        Ok(())
    }

    /// Closes the newest segment and begins the next. Without room for that, the newest simply grows.
    fn start_segment(&mut self) -> Result<(), JournalError> {
        let (closing, next) = (self.newest, Name::one(self.newest.last + 1));
        match self.create(next) {
            Ok(()) => {
                self.closed.push(closing);
                self.compact_if_due();
                Ok(())
            }
            Err(error) if is_full(&error) => {
                // The beginning of a segment must not stay behind one that grows.
                let removed = self.disk.remove(&next.to_string()).and_then(|()| self.disk.sync_dir());
                removed.map_err(|error| self.fail("can't remove a segment that did not fit", &error))
            }
            Err(error) => Err(self.fail("can't begin a segment", &error)),
        }
    }

    /// Writes to the newest segment and syncs it. Without room, once more from the reserve.
    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let name = self.newest.to_string();
        let mut written = self.disk.append(&name, bytes);
        if written.as_ref().is_err_and(is_full) {
            self.take_back(&name)?;
            self.release_reserve();
            written = self.disk.append(&name, bytes);
        }
        match written {
            Ok(()) => self.disk.sync(&name).map_err(|error| self.fail("the disk failed to sync", &error)),
            Err(error) if is_full(&error) => {
                self.take_back(&name)?;
                Err(JournalError::Full)
            }
            Err(error) => Err(self.fail("the disk failed to write", &error)),
        }
    }

    /// Cuts what an append that failed may have left.
    fn take_back(&mut self, name: &str) -> Result<(), JournalError> {
        self.disk.truncate(name, self.newest_len).map_err(|error| self.fail("can't cut a write that did not fit", &error))
    }

    fn fail(&mut self, what: &str, error: &io::Error) -> JournalError {
        let reason = format!("{what}: {error}");
        self.health = Health::Failed(reason.clone());
        JournalError::Failed(reason)
    }

    fn release_reserve(&mut self) {
        if self.health == Health::Good {
            warn!(journal = %self.disk.place().display(), "the disk is full: running jobs are settled from the reserve, new work is refused; free some space");
        }
        self.health = Health::Full;
        // Freed blocks can be used once the removal itself is durable. If that fails there was no reserve.
        let _ = self.disk.remove(RESERVE).and_then(|()| self.disk.sync_dir());
    }

    /// Writes the reserve unless it is there; without room for it the journal is full.
    fn make_reserve(&mut self) {
        let size = self.sizes.reserve;
        if self.disk.len(RESERVE).is_ok_and(|len| len == size as u64) {
            return;
        }
        // One that was written in part.
        let _ = self.disk.remove(RESERVE);
        if self.write_reserve(size).is_err() {
            self.release_reserve();
        }
    }

    fn write_reserve(&self, size: usize) -> io::Result<()> {
        let mut bytes = incompressible();
        for start in (0..size).step_by(RESERVE_PIECE) {
            let piece: Vec<u8> = bytes.by_ref().take(RESERVE_PIECE.min(size - start)).collect();
            self.disk.append(RESERVE, &piece)?;
        }
        self.disk.sync(RESERVE)
    }
}

/// The segments in `disk`, oldest first, without what interrupted work has left behind.
fn segments(disk: &dyn Disk) -> Result<Vec<Name>, JournalError> {
    let files = disk.list()?;
    let mut names: Vec<Name> = files.iter().filter_map(|name| Name::parse(name)).collect();
    names.sort_unstable();
    let merged = names.clone();
    let is_left_over = |name: &Name| merged.iter().any(|other| name.is_within(*other));
    let stale = names.iter().filter(|name| is_left_over(name)).map(Name::to_string);
    for file in stale.chain(files.iter().filter(|name| name.ends_with(".tmp")).cloned()) {
        disk.remove(&file)?;
    }
    names.retain(|name| !is_left_over(name));
    for pair in names.windows(2) {
        if let [one, next] = pair
            && one.last + 1 != next.first
        {
            warn!(after = %one, before = %next, "a segment of the journal is missing; what it held is lost unless you put it back");
        }
    }
    Ok(names)
}

/// Bytes that no file system stores in less room: xorshift.
fn incompressible() -> impl Iterator<Item = u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten()
}

#[cfg(any(test, fuzzing))]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a fuzzer's checks panic")]
pub(super) mod fuzz;
#[cfg(any(test, fuzzing))]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a fuzzer's checks panic")]
mod kept;
#[cfg(test)]
mod tests;
