//! Making a segment whole again: what a crash tore is cut, what is damaged is copied aside and left out.

use super::{
    Journal, JournalError,
    frame::SEGMENT_HEADER,
    segment::{Name, Scan},
};
use tracing::warn;

/// Copies of one damaged segment. More would be the same damage again.
const MAX_DAMAGED_COPIES: usize = 3;
/// Copied at once.
const COPY_BYTES: usize = 256 * 1024;

impl Journal {
    /// A segment without a beginning and without a record is one that a crash kept from being made.
    pub(super) fn drop_beginning(&self, name: Name) -> Result<(), JournalError> {
        let name = name.to_string();
        if self.disk.len(&name)? > SEGMENT_HEADER as u64 {
            warn!(file = name, "a segment has no record that verifies; a copy of it is kept");
            self.copy_aside(&name)?;
        }
        self.disk.remove(&name)?;
        Ok(self.disk.sync_dir()?)
    }

    /// Cuts what a crash left behind the last good record.
    pub(super) fn cut(&self, name: Name, found: &Scan) -> Result<(), JournalError> {
        if found.tail > 0 {
            warn!(bytes = found.tail, segment = %name, "the journal's end was torn by a crash and has been cut; nothing promised is lost");
            self.disk.truncate(&name.to_string(), found.good_end)?;
        }
        Ok(())
    }

    /// If `found` says that a segment is damaged: keeps a copy, and leaves in it what verifies.
    pub(super) fn mend(&self, name: Name, after: u64, found: &Scan) -> Result<(), JournalError> {
        if found.is_whole_to_its_tail() && found.tail == 0 {
            return Ok(());
        }
        let (name, temporary) = (name.to_string(), format!("{name}.tmp"));
        let copy = self.copy_aside(&name)?;
        warn!(
            segment = name,
            kept = found.records,
            bad_bytes = found.hole + found.tail,
            copy,
            "the journal is damaged: what does not verify was left out; see how the disk is"
        );
        let first = found.header.map_or(after + 1, |header| header.first);
        self.rewrite(std::slice::from_ref(&name), &temporary, first, &|_| true)?;
        self.disk.rename(&temporary, &name)?;
        Ok(self.disk.sync_dir()?)
    }

    /// Copies a file to `….damaged-n`, durably; the copy's name. The last copy is written over.
    fn copy_aside(&self, name: &str) -> Result<String, JournalError> {
        let present = self.disk.list()?;
        let free = (1..MAX_DAMAGED_COPIES).map(|n| format!("{name}.damaged-{n}")).find(|name| !present.contains(name));
        let copy = free.unwrap_or_else(|| format!("{name}.damaged-{MAX_DAMAGED_COPIES}"));
        if present.contains(&copy) {
            self.disk.remove(&copy)?;
        }
        let (mut at, mut buffer) = (0, vec![0; COPY_BYTES]);
        loop {
            let read = self.disk.read(name, at, &mut buffer)?;
            self.disk.append(&copy, buffer.get(..read).unwrap_or_default())?;
            if read == 0 {
                break;
            }
            at += read as u64;
        }
        self.disk.sync(&copy)?;
        self.disk.sync_dir()?;
        Ok(copy)
    }
}
