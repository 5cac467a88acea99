//! The store on disk. The only file that names `sled`.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `receipts` | job ‖ worker | [`SignedReceipt::encode`] |
//! | `receipts_by_time` | finished, 8 bytes big endian ‖ job ‖ worker | nothing |
//! | `meta` | `ad_sequence`, `receipts`, `countersigned` | 8 bytes, big endian |
//! | `meta` | `peers` | CBOR list of text |
//! | `meta` | `schema` | one byte: 1 |
//!
//! One transaction writes the first three, so index and counts always agree with the rows. Everything here can be rebuilt
//! from receipts that the other side or an indexer has, which is why a damaged store is moved away, not repaired.
//!
//! **What sled does not notice.** It takes the first damaged record of its log for the log's end and forgets what follows,
//! without a word. A store that has lost everything is recognised by its missing `schema`; a lost tail is not.

use super::{Counts, MAX_PAGE, Page, Position, Put, Store, StoreError, bounded_peers, sequence_after};
use infernet_wire::{
    codec,
    id::{JobId, NodeId},
    receipt::SignedReceipt,
    time::UnixMillis,
    topic::NetworkId,
};
use sled::{
    Config, Db, IVec, Transactional, Tree,
    transaction::{ConflictableTransactionError, TransactionError, TransactionalTree},
};
use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// No transaction here gives up by its own choice.
type Conflict = ConflictableTransactionError<Infallible>;

/// Memory for pages. The store is read seldom and in small pieces.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// A log of fewer bytes may belong to a process that was killed while it made the store; a log of more has a schema.
const FRESH_LOG_BYTES: u64 = 16 * 1024;

/// The version of the trees above.
const SCHEMA_VERSION: u8 = 1;

const SCHEMA: &str = "schema";
const AD_SEQUENCE: &str = "ad_sequence";
const RECEIPTS: &str = "receipts";
const COUNTERSIGNED: &str = "countersigned";
const PEERS: &str = "peers";

/// A [`Store`] in `<home>/store-<network>`.
#[derive(Debug)]
pub(super) struct SledStore {
    db: Db,
    receipts: Tree,
    by_time: Tree,
    meta: Tree,
    place: Place,
    network: NetworkId,
    unreadable: AtomicU64,
}

/// Where the store is, for errors.
#[derive(Debug)]
struct Place {
    home: PathBuf,
    path: PathBuf,
}

impl Place {
    fn error(&self, error: sled::Error) -> StoreError {
        let path = self.path.clone();
        match error {
            // sled tells of its lock in words alone.
            sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
                StoreError::Locked { home: self.home.clone() }
            }
            sled::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                StoreError::Corrupt { path, reason: error.to_string() }
            }
            sled::Error::Io(error) => StoreError::Io { path, reason: error.to_string() },
            other => StoreError::Corrupt { path, reason: other.to_string() },
        }
    }
}

impl SledStore {
    /// Opens or makes the store of `network`.
    pub(super) fn open(home: &Path, network: &NetworkId) -> Result<Self, StoreError> {
        let place = Place { home: home.into(), path: home.join(format!("store-{network}")) };
        let log_bytes = std::fs::metadata(place.path.join("db")).map_or(0, |log| log.len());
        let opened = Config::new().path(&place.path).cache_capacity(CACHE_BYTES).open();
        let db = opened.map_err(|error| place.error(error))?;
        let tree = |name: &str| db.open_tree(name).map_err(|error| place.error(error));
        let store = SledStore {
            receipts: tree("receipts")?,
            by_time: tree("receipts_by_time")?,
            meta: tree("meta")?,
            db,
            network: network.clone(),
            unreadable: AtomicU64::new(0),
            place,
        };
        store.check_schema(log_bytes)?;
        Ok(store)
    }

    fn check_schema(&self, log_bytes: u64) -> Result<(), StoreError> {
        let damaged = |reason: &str| Err(StoreError::Corrupt { path: self.place.path.clone(), reason: reason.into() });
        match self.checked(self.meta.get(SCHEMA))?.as_deref() {
            Some([SCHEMA_VERSION]) => Ok(()),
            Some(_) => damaged("it was written by a newer version"),
            None if log_bytes > FRESH_LOG_BYTES => damaged("it has lost its contents"),
            None => {
                self.checked(self.meta.insert(SCHEMA, &[SCHEMA_VERSION]))?;
                self.flush()
            }
        }
    }

    fn checked<T>(&self, result: sled::Result<T>) -> Result<T, StoreError> {
        result.map_err(|error| self.place.error(error))
    }

    /// `None` for a row that can't be read, which is counted.
    fn decode(&self, row: &[u8]) -> Option<SignedReceipt> {
        let receipt = SignedReceipt::decode_stored(row, &self.network);
        if receipt.is_err() {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
        }
        receipt.ok()
    }

    fn put_in(&self, trees: &Trees<'_>, receipt: &SignedReceipt) -> Result<Put, Conflict> {
        let position = Position::of(receipt);
        let key = row_key(&position.job, &position.worker);
        let row = trees.receipts.get(key)?;
        let stored = row.as_deref().and_then(|row| self.decode(row));
        let put = Put::decide(stored.as_ref(), receipt);
        if !put.is_kept() {
            return Ok(put);
        }
        if let Some(old) = &stored {
            trees.by_time.remove(&time_key(&Position::of(old))[..])?;
        }
        trees.receipts.insert(&key[..], receipt.encode())?;
        trees.by_time.insert(&time_key(&position)[..], &[])?;
        trees.add(RECEIPTS, row.is_none())?;
        // A row that could not be read may have been counted already.
        let replaces_unreadable = row.is_some() && stored.is_none();
        trees.add(COUNTERSIGNED, receipt.countersign().is_some() && !replaces_unreadable)?;
        Ok(put)
    }

    fn number(&self, key: &str) -> Result<u64, StoreError> {
        Ok(self.checked(self.meta.get(key))?.map_or(0, |value| read_number(&value)))
    }

    /// The receipt at an index key, if it is still what the index says.
    fn at(&self, key: &[u8]) -> Result<Option<SignedReceipt>, StoreError> {
        let row = self.checked(self.receipts.get(key.get(8..).unwrap_or_default()))?;
        let receipt = row.and_then(|row| self.decode(&row));
        Ok(receipt.filter(|receipt| time_key(&Position::of(receipt)) == key))
    }
}

struct Trees<'a> {
    receipts: &'a TransactionalTree,
    by_time: &'a TransactionalTree,
    meta: &'a TransactionalTree,
}

impl Trees<'_> {
    fn add(&self, key: &str, one: bool) -> Result<(), Conflict> {
        if one {
            let count = self.meta.get(key)?.map_or(0, |value| read_number(&value));
            self.meta.insert(key, &count.saturating_add(1).to_be_bytes())?;
        }
        Ok(())
    }
}

impl Store for SledStore {
    fn put_receipt(&self, receipt: &SignedReceipt) -> Result<Put, StoreError> {
        let put = (&self.receipts, &self.by_time, &self.meta)
            .transaction(|(receipts, by_time, meta)| self.put_in(&Trees { receipts, by_time, meta }, receipt));
        let put = put.map_err(|error| match error {
            TransactionError::Storage(error) => self.place.error(error),
            TransactionError::Abort(never) => match never {},
        })?;
        self.flush()?;
        Ok(put)
    }

    fn receipts(&self, page: Page) -> Result<Vec<SignedReceipt>, StoreError> {
        let limit = page.limit.min(MAX_PAGE);
        let keys = match &page.before {
            Some(before) => self.by_time.range(..time_key(before)),
            None => self.by_time.iter(),
        };
        let mut found = Vec::new();
        for key in keys.keys().rev() {
            if found.len() >= limit {
                break;
            }
            found.extend(self.at(&self.checked(key)?)?);
        }
        Ok(found)
    }

    fn receipts_of(&self, job: &JobId) -> Result<Vec<SignedReceipt>, StoreError> {
        let rows = self.receipts.scan_prefix(job);
        let mut found = Vec::new();
        for row in rows.values() {
            found.extend(self.decode(&self.checked(row)?));
        }
        Ok(found)
    }

    fn counts(&self) -> Result<Counts, StoreError> {
        Ok(Counts {
            receipts: self.number(RECEIPTS)?,
            countersigned: self.number(COUNTERSIGNED)?,
            unreadable: self.unreadable.load(Ordering::Relaxed),
        })
    }

    fn next_ad_sequence(&self, now: UnixMillis) -> Result<u64, StoreError> {
        let next = |last: Option<&[u8]>| Some(sequence_after(last.map_or(0, read_number), now).to_be_bytes().to_vec());
        let stored = self.checked(self.meta.update_and_fetch(AD_SEQUENCE, next))?;
        self.flush()?;
        Ok(read_number(&stored.unwrap_or_default()))
    }

    fn put_peers(&self, peers: &[String]) -> Result<(), StoreError> {
        self.checked(self.meta.insert(PEERS, codec::encode(&bounded_peers(peers))))?;
        Ok(())
    }

    fn peers(&self) -> Result<Vec<String>, StoreError> {
        let row = self.checked(self.meta.get(PEERS))?;
        Ok(row.and_then(|row: IVec| codec::decode(&row).ok()).unwrap_or_default())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.checked(self.db.flush())?;
        Ok(())
    }
}

fn row_key(job: &JobId, worker: &NodeId) -> [u8; 49] {
    let mut key = [0; 49];
    let (front, back) = key.split_at_mut(16);
    front.copy_from_slice(job.as_bytes());
    back.copy_from_slice(worker.as_bytes());
    key
}

fn time_key(position: &Position) -> [u8; 57] {
    let mut key = [0; 57];
    let (front, back) = key.split_at_mut(8);
    front.copy_from_slice(&position.finished.0.to_be_bytes());
    back.copy_from_slice(&row_key(&position.job, &position.worker));
    key
}

/// Eight bytes; anything else was not written here and counts as nothing.
fn read_number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
impl SledStore {
    /// Overwrites every receipt's row, as a bad disk would.
    pub(super) fn damage_rows(&self) {
        for key in self.receipts.iter().keys() {
            self.receipts.insert(key.expect("a key"), &b"nonsense"[..]).expect("writes");
        }
    }
}
