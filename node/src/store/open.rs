//! Opening the store: lock, journal, index, and what to do when they do not agree.
//!
//! The journal is opened first and decides. An index that belongs to it is brought up to date from where it left off; a damaged
//! one is moved aside to `store-<network>.damaged-n` and made anew; one that holds receipts of no journal (a home from before
//! there was one, or whose journal somebody took away) gives them to the journal. For that it is renamed to
//! `store-<network>.migrating` until every row is in the journal, so a crash in between only means to go on. The same is done
//! again when an index fails while the node runs.

use super::{
    Contents, Index, OpenError, StoreError,
    commit::Committer,
    durable::DurableStore,
    journal::{Disk, Journal, JournalError, RealDisk, Sizes},
    record::Record,
};
use crate::clock;
use infernet_wire::topic::NetworkId;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};
use tracing::{info, warn};

/// Damaged indexes kept to look at. They hold nothing that is not in the journal, so the first few are enough.
const MAX_DAMAGED: usize = 3;
/// How long the index of this very process may take to be let go: sled's own threads hold it for a moment after it is closed.
/// Other processes are kept out by the journal's lock.
const LET_GO: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Records taken from the journal, or put into it, at once.
const BATCH: usize = 1_000;

/// The store of `network` under `home`, made if need be.
pub(super) fn open(
    home: &Path,
    network: &NetworkId,
    through: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>,
) -> Result<DurableStore, StoreError> {
    let place = home.join(format!("journal-{network}"));
    let disk = RealDisk::open(place.clone()).map_err(|error| io_error(&place, &error))?;
    let lock = take_lock(home, &place)?;
    open_on(through(Arc::new(disk)), Some(lock), home, network, Sizes::default())
}

/// The same on any disk; the index is under `home`.
pub(super) fn open_on(
    disk: Arc<dyn Disk>,
    lock: Option<File>,
    home: &Path,
    network: &NetworkId,
    sizes: Sizes,
) -> Result<DurableStore, StoreError> {
    let place = disk.place().to_path_buf();
    let opened = Journal::open(disk, network, clock::random(), sizes);
    let index = home.join(format!("store-{network}"));
    let mut paths = Paths { home: home.into(), journal: place.clone(), index, network: network.clone(), patience: LET_GO };
    let mut journal = opened.map_err(|error| paths.journal_error(error))?;
    let index = paths.up_to_date_index(&mut journal)?;
    paths.migrate(&mut journal, &index)?;
    // Commits must not wait for it: it is tried again.
    paths.patience = Duration::ZERO;
    let reopen = Box::new(move |journal: &mut Journal| paths.up_to_date_index(journal));
    DurableStore::new(Committer::start(journal, index, reopen, place)?, lock)
}

/// One process for each journal. The operating system takes the lock away with the process.
fn take_lock(home: &Path, place: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(place.join("lock"));
    let file = file.map_err(|error| io_error(place, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { home: home.into() }),
        Err(TryLockError::Error(error)) => Err(io_error(place, &error)),
    }
}

fn io_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { path: path.into(), reason: error.to_string() }
}

struct Paths {
    home: PathBuf,
    journal: PathBuf,
    index: PathBuf,
    network: NetworkId,
    /// How long to wait for an index that is still held.
    patience: Duration,
}

impl Paths {
    fn open_index(&self, path: &Path) -> Result<Index, OpenError> {
        let started = clock::instant();
        loop {
            match Index::open(path, &self.network) {
                Err(OpenError::Locked) if started.elapsed() < self.patience => thread::sleep(LOOK_AGAIN),
                other => return other,
            }
        }
    }

    /// `….what` beside the index.
    fn beside(&self, what: &str) -> PathBuf {
        self.home.join(format!("store-{}.{what}", self.network))
    }

    fn journal_error(&self, error: JournalError) -> StoreError {
        let path = self.journal.clone();
        match error {
            JournalError::Full => StoreError::Full { path },
            JournalError::Failed(reason) => StoreError::Failed { path, reason },
            JournalError::Corrupt(reason) => StoreError::Corrupt { path, reason },
            JournalError::Io(error) => io_error(&path, &error),
        }
    }

    /// An index that has all that the journal has.
    fn up_to_date_index(&self, journal: &mut Journal) -> Result<Index, StoreError> {
        let index = self.index_of(journal)?;
        self.catch_up(journal, &index)?;
        Ok(index)
    }

    /// An index for `journal`: the one that is there if it is of use, else a new one.
    fn index_of(&self, journal: &Journal) -> Result<Index, StoreError> {
        let index = match self.open_index(&self.index) {
            Ok(index) => index,
            Err(OpenError::Damaged(reason)) => {
                self.set_aside(&self.index, &reason)?;
                self.fresh()?
            }
            Err(error) => return Err(self.index_error(error)),
        };
        match index.contents()? {
            Contents::Of(id, applied) if id == journal.id() && applied <= journal.last() => return Ok(index),
            Contents::Nothing => index.begin(journal.id())?,
            Contents::Of(..) | Contents::BeforeJournal => {
                drop(index);
                let migrating = self.beside("migrating");
                if migrating.exists() {
                    self.set_aside(&migrating, "another one needs its place")?;
                }
                rename(&self.index, &migrating)?;
                let index = self.fresh()?;
                index.begin(journal.id())?;
                return Ok(index);
            }
        }
        Ok(index)
    }

    fn fresh(&self) -> Result<Index, StoreError> {
        self.open_index(&self.index).map_err(|error| self.index_error(error))
    }

    fn index_error(&self, error: OpenError) -> StoreError {
        let path = self.index.clone();
        match error {
            OpenError::Locked => StoreError::Locked { home: self.home.clone() },
            OpenError::Damaged(reason) => StoreError::Corrupt { path, reason },
            OpenError::Io(reason) => StoreError::Io { path, reason },
        }
    }

    /// Moves a damaged index out of the way.
    fn set_aside(&self, path: &Path, reason: &str) -> Result<(), StoreError> {
        let mut names = (1..=MAX_DAMAGED).map(|n| self.beside(&format!("damaged-{n}")));
        match names.find(|name| !name.exists()) {
            Some(aside) => {
                warn!(from = %path.display(), to = %aside.display(), "the store's index is damaged ({reason}): moved aside, made anew from the journal");
                rename(path, &aside)
            }
            None => {
                warn!(path = %path.display(), "the store's index is damaged ({reason}): removed, as {MAX_DAMAGED} such are kept already, and made anew from the journal");
                fs::remove_dir_all(path).map_err(|error| io_error(path, &error))
            }
        }
    }

    /// Takes over what the index does not have yet.
    fn catch_up(&self, journal: &mut Journal, index: &Index) -> Result<(), StoreError> {
        let Contents::Of(_, applied) = index.contents()? else { return Ok(()) };
        let (mut batch, mut outcome) = (Vec::new(), Ok(()));
        let mut apply = |batch: &mut Vec<Record>| {
            if outcome.is_ok() {
                outcome = index.apply(batch);
            }
            batch.clear();
        };
        let replayed = journal.replay(applied, &mut |record| {
            batch.push(record);
            if batch.len() >= BATCH {
                apply(&mut batch);
            }
        });
        replayed.map_err(|error| self.journal_error(error))?;
        apply(&mut batch);
        outcome
    }

    /// Gives to the journal what an index holds that is to be given up. Only before others give numbers to records.
    fn migrate(&self, journal: &mut Journal, index: &Index) -> Result<(), StoreError> {
        let migrating = self.beside("migrating");
        if !migrating.exists() {
            return Ok(());
        }
        let old = match self.open_index(&migrating) {
            Ok(old) => old,
            Err(OpenError::Damaged(reason)) => return self.set_aside(&migrating, &reason),
            Err(error) => return Err(self.index_error(error)),
        };
        let mut target = Target { paths: self, journal, index, batch: Vec::new(), taken: 0 };
        old.receipt_rows(&mut |record| target.take(record))?;
        let (ad_sequence, peers) = old.leftovers()?;
        target.take(Record::ad_lease(ad_sequence))?;
        target.write()?;
        let taken = target.taken;
        if index.peers()?.is_empty() {
            index.put_peers(&peers)?;
        }
        index.flush()?;
        drop(old);
        fs::remove_dir_all(&migrating).map_err(|error| io_error(&migrating, &error))?;
        info!(receipts = taken, journal = %self.journal.display(), "receipts were taken over into the journal");
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|error| io_error(from, &error))
}

/// Where a migration writes to.
struct Target<'a> {
    paths: &'a Paths,
    journal: &'a mut Journal,
    index: &'a Index,
    batch: Vec<Record>,
    taken: u64,
}

impl Target<'_> {
    /// Unless something about its subject is there already: then an earlier try has got so far, or the journal knows better.
    fn take(&mut self, record: Record) -> Result<(), StoreError> {
        if self.index.body(&record.key())?.is_some() {
            return Ok(());
        }
        self.taken += u64::from(record.kind == super::record::Kind::RECEIPT);
        self.batch.push(record);
        if self.batch.len() >= BATCH { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        for (record, number) in self.batch.iter_mut().zip(self.journal.last() + 1..) {
            record.number = number;
        }
        self.journal.append(&self.batch).map_err(|error| self.paths.journal_error(error))?;
        self.index.apply(&self.batch)?;
        self.batch.clear();
        Ok(())
    }
}
