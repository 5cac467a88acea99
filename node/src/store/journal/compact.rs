//! Rewriting closed segments without what newer records have superseded.
//!
//! Most receipts are written twice, with one signature and soon after with both, so half of a journal is soon not needed. Eight
//! closed segments at a time become one, which is never touched again. A record goes only if a newer one about its
//! subject is **among the same eight**: that needs no index that could be wrong, and memory for eight segments only. The
//! few that are superseded later than that stay.
//!
//! The new file is written and synced under another name, then renamed: from then on its name covers the old ones, which are
//! removed. A crash before the rename leaves a `.tmp`, one after it leaves segments that another covers; both are removed on
//! the next start. Callers wait meanwhile, some tens of milliseconds in 40 000 receipts.

use super::{
    Journal, JournalError, frame,
    segment::{Name, scan},
};
use crate::store::record::{Key, Record};
use std::{collections::BTreeMap, io};
use tracing::{debug, warn};

/// Segments rewritten as one.
const WINDOW: usize = 8;
/// Written at once.
const WRITE_BYTES: usize = 256 * 1024;

impl Journal {
    /// Rewrites closed segments if there are enough. A failure costs only room: the old ones stay.
    pub(super) fn compact_if_due(&mut self) {
        let first = self.closed.iter().position(|name| !name.is_merged()).unwrap_or(self.closed.len());
        let window: Vec<Name> = self.closed.iter().skip(first).take(WINDOW).copied().collect();
        if window.len() < WINDOW || !self.compacts {
            return;
        }
        match self.compact(&window) {
            Ok(merged) => {
                self.closed.splice(first..first + WINDOW, [merged]);
            }
            Err(error) => {
                self.compacts = false;
                warn!("the journal can't be compacted, and grows until the next start: {error}");
            }
        }
    }

    fn compact(&self, window: &[Name]) -> Result<Name, JournalError> {
        let (Some(first), Some(last)) = (window.first(), window.last()) else {
            return Err(JournalError::Corrupt("there is nothing to compact".into()));
        };
        let merged = Name { first: first.first, last: last.last };
        let newest = self.newest_of_each(window)?;
        let is_needed = |record: &Record| {
            !record.is_superseded_by_newer() || newest.get(&record.key()).is_none_or(|number| *number == record.number)
        };
        let (temporary, old): (_, Vec<String>) = (format!("{merged}.tmp"), window.iter().map(Name::to_string).collect());
        let rewritten = self.rewrite(&old, &temporary, self.first_of(*first).unwrap_or(1), &is_needed);
        if rewritten.is_err() {
            // Gone on the next start if not now.
            let _ = self.disk.remove(&temporary);
        }
        rewritten?;
        self.disk.rename(&temporary, &merged.to_string())?;
        self.disk.sync_dir()?;
        // What can't be removed now is removed on the next start.
        old.iter().for_each(|name| drop(self.disk.remove(name)));
        debug!(segment = %merged, "compacted");
        Ok(merged)
    }

    /// The number of the newest record about each subject. Fails if a segment is damaged: that is mended before its neighbours
    /// are touched.
    fn newest_of_each(&self, window: &[Name]) -> Result<BTreeMap<Key, u64>, JournalError> {
        let (mut newest, mut last) = (BTreeMap::new(), 0);
        for name in window {
            let found = scan(&*self.disk, &name.to_string(), self.seed, last, &mut |record| {
                newest.insert(record.key(), record.number);
            })?;
            self.mend(*name, last, &found)?;
            last = found.last;
        }
        Ok(newest)
    }

    /// Writes the good and needed records of `names` to a new file `to`, durably. Their numbers are at least `first`.
    pub(super) fn rewrite(
        &self,
        names: &[String],
        to: &str,
        first: u64,
        is_needed: &dyn Fn(&Record) -> bool,
    ) -> Result<(), JournalError> {
        let mut out = Rewriter { journal: self, to, buffer: self.header(first), written: Ok(()) };
        let mut last = first.saturating_sub(1);
        for name in names {
            let found = scan(&*self.disk, name, self.seed, last, &mut |record| {
                if is_needed(&record) {
                    out.add(&record);
                }
            })?;
            last = found.last;
        }
        out.finish()
    }
}

/// Collects records and writes them in pieces.
struct Rewriter<'a> {
    journal: &'a Journal,
    to: &'a str,
    buffer: Vec<u8>,
    written: io::Result<()>,
}

impl Rewriter<'_> {
    fn add(&mut self, record: &Record) {
        frame::write(record, self.journal.seed, &mut self.buffer);
        if self.buffer.len() >= WRITE_BYTES {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.written.is_ok() {
            self.written = self.journal.disk.append(self.to, &self.buffer);
        }
        self.buffer.clear();
    }

    fn finish(mut self) -> Result<(), JournalError> {
        self.write();
        self.written?;
        Ok(self.journal.disk.sync(self.to)?)
    }
}
