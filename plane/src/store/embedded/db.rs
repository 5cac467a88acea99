//! One ordered table on disk. The only file of the plane that names `sled`.
//!
//! One writer at a time: what it reads stays so until its changes are in, which is how a change that depends on what was there
//! happens in one step. Its changes are one atomic batch. [`Table::write`] returns when they are on the disk: sled's own flush
//! is no barrier against a power cut, so its log is synced after it; whoever waits at the same time shares one sync. Rows of
//! more than half a megabyte would be in files of their own, which sled does not sync: larger things are kept in pieces.
//!
//! A value is a version byte and JSON, or a version byte and the signed bytes of a receipt.

use super::super::StoreError;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Memory for pages.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// What a value begins with.
const VERSION: u8 = 1;
/// Of the table as a whole.
const SCHEMA: u8 = 1;
const SCHEMA_KEY: &[u8] = &[0];

/// How often it is looked whether the one who has the table lets it go: sled's own threads hold it for a moment after it is
/// closed. Three seconds in all.
const LOOKS: usize = 150;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Table {
    db: sled::Db,
    path: PathBuf,
    log: File,
    writer: Mutex<()>,
    written: AtomicU64,
    synced: Mutex<u64>,
}

/// Whether a change must outlive a power cut before its caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Yes.
    Durably,
    /// The last half second of these may be lost with a killed process.
    Soon,
}

impl Table {
    /// Opens or makes the table in `path`.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display();
        // Hashes of keys, and answers that clients asked to be kept.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| StoreError::Unreachable(format!("{shown}: {error}")))?;
        // sled is known to panic over some damaged files.
        let open = || catch_unwind(|| sled::Config::new().path(path).cache_capacity(CACHE_BYTES).open());
        let mut opened = open();
        for _ in 0..LOOKS {
            if !matches!(&opened, Ok(Err(error)) if is_held(error)) {
                break;
            }
            thread::sleep(LOOK_AGAIN);
            opened = open();
        }
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(error)) if is_held(&error) => {
                return Err(StoreError::Unreachable(format!(
                    "a plane is running in {shown}: stop it first; while it runs, POST /api/v1/admin/clients and \
                     /api/v1/admin/grants with an admin's key do what client and grant do"
                )));
            }
            Ok(Err(sled::Error::Io(error))) => return Err(StoreError::Unreachable(format!("{shown}: {error}"))),
            Ok(Err(error)) => return Err(StoreError::Corrupt(format!("{shown}: {error}"))),
            Err(_) => return Err(StoreError::Corrupt(format!("{shown}: move it away, or restore it"))),
        };
        let log = File::open(path.join("db")).map_err(|error| StoreError::Unreachable(format!("{shown}: {error}")))?;
        let (writer, written, synced) = (Mutex::new(()), AtomicU64::new(0), Mutex::new(0));
        let table = Table { db, path: path.into(), log, writer, written, synced };
        table.check_schema()?;
        Ok(table)
    }

    fn check_schema(&self) -> Result<(), StoreError> {
        match self.raw(SCHEMA_KEY)?.as_deref() {
            Some([SCHEMA]) => Ok(()),
            Some(other) => Err(StoreError::Refused(format!(
                "{} was written by another version ({other:?}): use that one, or an empty directory",
                self.path.display()
            ))),
            None => self.write(Keep::Durably, |change| {
                change.batch.insert(SCHEMA_KEY, &[SCHEMA]);
                Ok(())
            }),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Changes what is there, in one step that is all or nothing; the change of a job that fails is dropped.
    pub(super) fn write<T>(
        &self,
        keep: Keep,
        job: impl FnOnce(&mut Change<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let alone = lock(&self.writer);
        let mut change = Change { table: self, batch: sled::Batch::default(), is_empty: true };
        let answer = job(&mut change)?;
        let Change { batch, is_empty, .. } = change;
        if !is_empty || keep == Keep::Durably {
            self.checked(self.db.apply_batch(batch))?;
        }
        let number = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        drop(alone);
        // Even what only read waits: it may have read what is not on the disk yet.
        if keep == Keep::Durably {
            self.sync(number)?;
        }
        Ok(answer)
    }

    /// Whoever comes first syncs for all that were written until then.
    fn sync(&self, number: u64) -> Result<(), StoreError> {
        let mut synced = lock(&self.synced);
        if *synced >= number {
            return Ok(());
        }
        let upto = self.written.load(Ordering::SeqCst);
        self.checked(self.db.flush())?;
        self.log.sync_data().map_err(|error| StoreError::Unreachable(format!("{}: {error}", self.path.display())))?;
        *synced = upto;
        Ok(())
    }

    /// A value.
    pub(super) fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        self.raw(&key.0)?.map(|bytes| self.read(&bytes)).transpose()
    }

    /// The bytes of a value.
    pub(super) fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        self.raw(&key.0)?.map(|bytes| self.unversioned(&bytes).map(<[u8]>::to_vec)).transpose()
    }

    /// Whether there is something.
    pub(super) fn has(&self, key: &Key) -> Result<bool, StoreError> {
        self.checked(self.db.contains_key(&key.0))
    }

    /// Keys and bytes from `from` on while keys begin with `prefix`.
    pub(super) fn after<'a>(&'a self, prefix: &'a Key, from: &Key) -> impl Iterator<Item = Result<Row, StoreError>> + 'a {
        let range = from.0.clone()..prefix.end();
        self.db.range(range).map(|entry| self.row(entry))
    }

    /// The same backwards, from the last key before `until`.
    pub(super) fn before<'a>(
        &'a self,
        prefix: &'a Key,
        until: Option<&Key>,
    ) -> impl Iterator<Item = Result<Row, StoreError>> + 'a {
        let range = prefix.0.clone()..until.map_or_else(|| prefix.end(), |until| until.0.clone());
        self.db.range(range).rev().map(|entry| self.row(entry))
    }

    fn row(&self, entry: sled::Result<(sled::IVec, sled::IVec)>) -> Result<Row, StoreError> {
        let (key, value) = self.checked(entry)?;
        Ok(Row { key: key.to_vec(), value: self.unversioned(&value)?.to_vec() })
    }

    fn raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.checked(self.db.get(key))?.map(|value| value.to_vec()))
    }

    fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        let json = self.unversioned(bytes)?;
        serde_json::from_slice(json).map_err(|error| StoreError::Corrupt(format!("{}: {error}", self.path.display())))
    }

    fn unversioned<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8], StoreError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(rest),
            _ => Err(StoreError::Corrupt(format!("{}: a row of another version", self.path.display()))),
        }
    }

    fn checked<T>(&self, result: sled::Result<T>) -> Result<T, StoreError> {
        result.map_err(|error| {
            let told = format!("{}: {error}", self.path.display());
            match error {
                sled::Error::Io(_) => StoreError::Unreachable(told),
                _ => StoreError::Corrupt(told),
            }
        })
    }
}

/// sled has no error of its own for it.
fn is_held(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

/// A key and what is there.
pub(super) struct Row {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl Row {
    /// The value as JSON.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        serde_json::from_slice(&self.value).map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    /// What follows the first `length` bytes of the key.
    pub(super) fn key_after(&self, length: usize) -> &[u8] {
        self.key.get(length..).unwrap_or_default()
    }
}

/// What a writer changes. It does not see its own changes: one key is put or removed once.
pub(super) struct Change<'a> {
    table: &'a Table,
    batch: sled::Batch,
    is_empty: bool,
}

impl Change<'_> {
    /// What is there.
    pub(super) fn table(&self) -> &Table {
        self.table
    }

    /// Puts a value.
    pub(super) fn put<T: Serialize>(&mut self, key: &Key, value: &T) -> Result<(), StoreError> {
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, value).map_err(|error| StoreError::Refused(error.to_string()))?;
        self.insert(key, bytes);
        Ok(())
    }

    /// Puts bytes.
    pub(super) fn put_bytes(&mut self, key: &Key, value: &[u8]) {
        self.insert(key, [&[VERSION], value].concat());
    }

    /// Removes what is there.
    pub(super) fn remove(&mut self, key: &Key) {
        self.is_empty = false;
        self.batch.remove(key.0.clone());
    }

    fn insert(&mut self, key: &Key, bytes: Vec<u8>) {
        self.is_empty = false;
        self.batch.insert(key.0.clone(), bytes);
    }
}

/// A key: a tag, and parts in the order in which rows are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(Vec<u8>);

impl Key {
    /// Of a kind. 0 is the table's own.
    pub(super) fn of(tag: u8) -> Self {
        Key(vec![tag])
    }

    /// A key that was read.
    pub(super) fn read(bytes: Vec<u8>) -> Self {
        Key(bytes)
    }

    /// A number, in its order.
    #[must_use]
    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Bytes of a length that is always the same.
    #[must_use]
    pub(super) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// A text that others follow: no text is the beginning of another. Not in its order.
    #[must_use]
    pub(super) fn text(mut self, text: &str) -> Self {
        self.0.extend((text.len() as u64).to_be_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    /// A text that nothing follows, in its order.
    #[must_use]
    pub(super) fn last(mut self, text: &str) -> Self {
        self.0.extend(text.as_bytes());
        self
    }

    /// Right behind it.
    #[must_use]
    pub(super) fn next(mut self) -> Self {
        self.0.push(0);
        self
    }

    /// As it is written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How long it is.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Behind all keys that begin with it.
    fn end(&self) -> Vec<u8> {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return end;
            }
        }
        vec![u8::MAX; self.0.len() + 64]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
