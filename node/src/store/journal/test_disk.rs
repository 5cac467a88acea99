//! A disk that keeps only what it must: whatever was not synced is lost, torn or garbled at a crash, which may come before any
//! operation; and it can fill up, and fail a sync.
//!
//! For tests and for simulated nodes. Files have two contents, what reads see and what a crash leaves; so has the directory. A sync copies one to the other.

use super::Disk;
use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a crash leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tear {
    /// How many bytes of each file's unsynced end are kept: all if it is not that long.
    pub kept: usize,
    /// How many bytes of garbage follow.
    pub garbage: usize,
    /// Which of the files that were made, renamed or removed without a sync of the directory are so.
    pub names: Names,
}

/// What a crash leaves of a directory that was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// As it was synced.
    Synced,
    /// As it was seen.
    Seen,
    /// Files that were taken away are gone, new names are not there.
    Fewest,
}

impl Tear {
    /// Everything unsynced is lost.
    pub const LOST: Tear = Tear { kept: 0, garbage: 0, names: Names::Synced };
    /// Nothing is lost.
    pub const KEPT: Tear = Tear { kept: usize::MAX, garbage: 0, names: Names::Seen };
}

#[derive(Debug, Clone, Default)]
struct Content {
    seen: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    seen: BTreeMap<String, u64>,
    synced: BTreeMap<String, u64>,
    made: u64,
    /// Operations so far that change or sync something.
    operations: u64,
    /// The operation before which it crashes.
    crash_at: Option<u64>,
    /// The sync that fails, counted from now.
    failing_syncs: Vec<u64>,
    syncs: u64,
    capacity: Option<usize>,
}

/// A directory that can crash.
#[derive(Debug, Clone, Default)]
pub struct TestDisk(Arc<Mutex<State>>);

impl TestDisk {
    /// It will crash before the operation of this number, counted from its making.
    pub fn crash_at(&self, operation: u64) {
        self.state().crash_at = Some(operation);
    }

    /// It has room for so many bytes.
    pub fn limit(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    /// The sync after so many more fails.
    pub fn fail_sync_in(&self, more: u64) {
        let mut state = self.state();
        let at = state.syncs + more;
        state.failing_syncs.push(at);
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Bytes in all files.
    pub fn used(&self) -> usize {
        self.state().used()
    }

    /// All that is in its files.
    pub fn bytes(&self) -> Vec<u8> {
        let state = self.state();
        state.seen.values().filter_map(|file| state.files.get(file)).flat_map(|content| content.seen.clone()).collect()
    }

    /// The disk as it is found after a crash.
    pub fn after_crash(&self, tear: Tear) -> TestDisk {
        let state = self.state();
        let names = match tear.names {
            Names::Synced => state.synced.clone(),
            Names::Seen => state.seen.clone(),
            Names::Fewest => {
                let kept = state.synced.iter().filter(|(name, file)| state.seen.get(*name) == Some(file));
                kept.map(|(name, file)| (name.clone(), *file)).collect()
            }
        };
        let files = names.values().filter_map(|file| Some((*file, torn(state.files.get(file)?, tear))));
        let files = files.collect();
        let after = State { files, seen: names.clone(), synced: names, made: state.made, ..State::default() };
        TestDisk(Arc::new(Mutex::new(after)))
    }

    /// The disk as another process finds it after this one was killed: what was not synced is there, and still not synced.
    pub fn after_kill(&self) -> TestDisk {
        let state = self.state();
        let (files, seen, synced) = (state.files.clone(), state.seen.clone(), state.synced.clone());
        TestDisk(Arc::new(Mutex::new(State { files, seen, synced, made: state.made, ..State::default() })))
    }

    /// Changes a file's bytes, as rot does.
    pub fn damage(&self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if let Ok(content) = state.file(name) {
            damage(&mut content.seen);
            content.synced = content.seen.clone();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the lock is given back.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation; fails from the crash on.
    fn operate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.check_alive()?;
        state.operations += 1;
        Ok(state)
    }
}

/// What is left of a file: a cut that was not synced may be undone, and bytes that were not synced may be there in part.
fn torn(content: &Content, tear: Tear) -> Content {
    let mut bytes = if tear.kept == usize::MAX { content.seen.clone() } else { content.synced.clone() };
    let unsynced = content.seen.get(content.synced.len()..).unwrap_or_default();
    if tear.kept != usize::MAX && !unsynced.is_empty() {
        bytes.extend(unsynced.iter().take(tear.kept));
        // A rest of another file: it looks like the real thing.
        bytes.extend(content.seen.iter().take(tear.garbage));
    }
    Content { seen: bytes.clone(), synced: bytes }
}

impl State {
    fn check_alive(&self) -> io::Result<()> {
        match self.crash_at {
            Some(at) if self.operations >= at => Err(io::Error::other("crashed")),
            _ => Ok(()),
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Content> {
        let file = self.seen.get(name).ok_or(ErrorKind::NotFound)?;
        self.files.get_mut(file).ok_or(ErrorKind::NotFound.into())
    }

    fn used(&self) -> usize {
        self.seen.values().filter_map(|file| self.files.get(file)).map(|content| content.seen.len()).sum()
    }
}

impl Disk for TestDisk {
    fn place(&self) -> &Path {
        Path::new("test-disk")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check_alive()?;
        Ok(state.seen.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.state().file(name)?.seen.len() as u64)
    }

    fn read(&self, name: &str, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.check_alive()?;
        let content = &state.file(name)?.seen;
        let rest = content.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
        buffer.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Ok(rest.len().min(buffer.len()))
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.operate()?;
        let room = state.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(state.used()));
        if !state.seen.contains_key(name) {
            let file = state.made;
            state.made += 1;
            state.seen.insert(name.to_owned(), file);
            state.files.insert(file, Content::default());
        }
        let fits = bytes.len().min(room);
        state.file(name)?.seen.extend(bytes.iter().take(fits));
        if fits < bytes.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.operate()?.file(name)?.seen.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        state.syncs += 1;
        let nth = state.syncs;
        if state.failing_syncs.contains(&nth) {
            return Err(io::Error::other("input/output error"));
        }
        let content = state.file(name)?;
        content.synced.clone_from(&content.seen);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        let file = state.seen.remove(from).ok_or(ErrorKind::NotFound)?;
        state.seen.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.operate()?;
        state.seen.remove(name).ok_or(ErrorKind::NotFound)?;
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.operate()?;
        state.synced = state.seen.clone();
        Ok(())
    }
}
