//! The index: what the journal tells, in the order in which it is read. The only file that names `sled`.
//!
//! | key | value |
//! |---|---|
//! | `r` job ‖ worker | CRC-32 ‖ the receipt's body as in the journal |
//! | `t` finished, 8 bytes ‖ job ‖ worker | nothing |
//! | `s` day, 4 bytes ‖ key | spend, as in the journal |
//! | `c` operator | sequence, 8 bytes |
//! | `d` side, 1 byte ‖ our id ‖ the other node ‖ the channel, if any | the tab, as in the journal |
//! | `e` number, 8 bytes | the step, as in the journal |
//! | `m` `journal`, `applied` | which journal, and the number of its last record that is in here |
//! | `m` `ad_lease`, `receipts`, `countersigned` | 8 bytes |
//! | `m` `peers`, `ad_sequences` | what may be lost: addresses as CBOR; node ‖ sequence, one after the other |
//! | `m` `schema` | one byte: 2 |
//!
//! Numbers are big endian. One atomic batch writes the records of one commit together with `applied`, so whatever sled
//! forgets in a crash (its flush is no barrier, and it takes the first damaged record of its log for the log's end) is
//! forgotten from the end on, and is read from the journal again. An index that can't be opened, has lost its schema or
//! holds rows that fail their checksum is moved aside and made anew by [`open`](super::open).
//!
//! Before there was a journal, receipts were kept here alone, in a tree of their own; see [`Index::receipt_rows`].

use super::{
    Counts, MAX_PAGE, Page, Position, Side, SpendRecord, StoreError, TabOf,
    journal::{JournalId, checksum},
    record::{Key, Kind, ReceiptRow, Record, read_number, read_spend, read_tab_subject, receipt_subject, tab_subject},
};
use infernet_wire::{
    codec,
    id::{JobId, NodeId},
    receipt::SignedReceipt,
    topic::NetworkId,
};
use sled::{Batch, Config, Db, Tree};
use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Memory for pages. The index is read seldom and in small pieces.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// A log of fewer bytes may belong to a process that was killed while it made the index; a log of more has a schema.
const FRESH_LOG_BYTES: u64 = 16 * 1024;
/// Rows looked at when opening: damage at the log's end, where a crash writes, shows in the newest.
const CHECKED_ROWS: usize = 64;

const SCHEMA_VERSION: u8 = 2;
const SCHEMA: &[u8] = b"mschema";
const JOURNAL: &[u8] = b"mjournal";
const APPLIED: &[u8] = b"mapplied";
const SUSPECT: &[u8] = b"msuspect";
const AD_LEASE: &[u8] = b"mad_lease";
const RECEIPTS: &[u8] = b"mreceipts";
const COUNTERSIGNED: &[u8] = b"mcountersigned";
const PEERS: &[u8] = b"mpeers";
const AD_SEQUENCES: &[u8] = b"mad_sequences";

/// Trees of the first schema.
const OLD_RECEIPTS: &str = "receipts";
const OLD_META: &str = "meta";

/// An index in one directory.
pub(super) struct Index {
    db: Db,
    path: PathBuf,
    network: NetworkId,
    unreadable: AtomicU64,
    /// Whether it is written down that a row is damaged.
    is_suspect: AtomicBool,
}

/// Why an index can't be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// Another process has it.
    Locked,
    /// What is there is not what was written.
    Damaged(String),
    /// The disk or its permissions.
    Io(String),
}

impl From<sled::Error> for OpenError {
    fn from(error: sled::Error) -> Self {
        match error {
            // sled tells of its lock in words alone.
            sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => OpenError::Locked,
            sled::Error::Io(error) if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                OpenError::Io(error.to_string())
            }
            other => OpenError::Damaged(other.to_string()),
        }
    }
}

/// What an opened index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    /// Nothing yet.
    Nothing,
    /// A journal's records up to this number.
    Of(JournalId, u64),
    /// Receipts from before there was a journal.
    BeforeJournal,
}

impl Index {
    /// Opens or makes the index in `path`.
    pub(super) fn open(path: &Path, network: &NetworkId) -> Result<Self, OpenError> {
        let log_bytes = std::fs::metadata(path.join("db")).map_or(0, |log| log.len());
        // sled is known to panic over some damaged files.
        let opened = catch_unwind(|| Config::new().path(path).cache_capacity(CACHE_BYTES).open());
        let db = opened.unwrap_or_else(|_| Err(sled::Error::ReportableBug("it can't be read".into())))?;
        let (unreadable, is_suspect) = (AtomicU64::new(0), AtomicBool::new(false));
        let index = Index { db, path: path.into(), network: network.clone(), unreadable, is_suspect };
        index.check(log_bytes)?;
        Ok(index)
    }

    fn check(&self, log_bytes: u64) -> Result<(), OpenError> {
        let damaged = |reason: &str| Err(OpenError::Damaged(reason.into()));
        match self.db.get(SCHEMA)?.as_deref() {
            Some([SCHEMA_VERSION]) if self.db.contains_key(SUSPECT)? => damaged("a row failed its checksum"),
            Some([SCHEMA_VERSION]) => self.check_rows(),
            Some(_) => damaged("another version wrote it"),
            None if log_bytes > FRESH_LOG_BYTES && !self.is_old() => damaged("it has lost its contents"),
            None => Ok(()),
        }
    }

    fn check_rows(&self) -> Result<(), OpenError> {
        for entry in self.db.scan_prefix(b"t").keys().rev().take(CHECKED_ROWS) {
            let entry = entry?;
            let row = self.db.get(row_of(&entry))?;
            if row.as_deref().and_then(unsealed).is_none() {
                return Err(OpenError::Damaged("a row failed its checksum".into()));
            }
        }
        Ok(())
    }

    fn is_old(&self) -> bool {
        self.db.tree_names().iter().any(|name| &**name == OLD_RECEIPTS.as_bytes())
    }

    /// What is in it.
    pub(super) fn contents(&self) -> Result<Contents, StoreError> {
        if let Some(id) = self.get(JOURNAL)?.and_then(|id| id.as_slice().try_into().ok()) {
            return Ok(Contents::Of(id, self.number(APPLIED)?));
        }
        Ok(if self.is_old() { Contents::BeforeJournal } else { Contents::Nothing })
    }

    /// Makes it the index of a journal.
    pub(super) fn begin(&self, journal: JournalId) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.insert(SCHEMA, &[SCHEMA_VERSION]);
        batch.insert(JOURNAL, &journal);
        self.write(batch)
    }

    /// Takes in the next records of the journal, all or none.
    pub(super) fn apply(&self, records: &[Record]) -> Result<(), StoreError> {
        let Some(last) = records.last() else { return Ok(()) };
        let mut changes = Changes { index: self, batch: Batch::default(), receipts: BTreeMap::new(), new: 0, countersigned: 0 };
        records.iter().try_for_each(|record| changes.add(record))?;
        changes.finish(last.number)
    }

    /// The body of the newest record about `key`, as far as it is in here.
    pub(super) fn body(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let (kind, subject) = key;
        match *kind {
            Kind::RECEIPT => Ok(self.get(&keyed(b'r', subject))?.and_then(|row| self.unseal(&row).map(<[u8]>::to_vec))),
            Kind::SPEND => self.get(&keyed(b's', subject)),
            Kind::COMMAND => self.get(&keyed(b'c', subject)),
            Kind::TAB => self.get(&keyed(b'd', subject)),
            Kind::STEP => self.get(&keyed(b'e', subject)),
            Kind::AD_LEASE => self.get(AD_LEASE),
            _ => Ok(None),
        }
    }

    /// Whether there is a receipt of `worker` for `job`.
    pub(super) fn has_receipt(&self, job: &JobId, worker: &NodeId) -> Result<bool, StoreError> {
        self.checked(self.db.contains_key(keyed(b'r', &receipt_subject(job, worker))))
    }

    /// A page of receipts, the newest first. A row that can't be read is counted and left out.
    pub(super) fn receipts(&self, page: Page) -> Result<Vec<SignedReceipt>, StoreError> {
        let limit = page.limit.min(MAX_PAGE);
        let end = page.before.map_or_else(|| b"u".to_vec(), |before| time_key(&before));
        let mut found = Vec::new();
        for key in self.db.range(&b"t"[..]..&end[..]).keys().rev() {
            if found.len() >= limit {
                break;
            }
            let key = self.checked(key)?;
            let receipt = self.get(&row_of(&key))?.and_then(|row| self.decode(&row));
            // An entry that a later receipt has left behind names another time.
            found.extend(receipt.filter(|receipt| time_key(&Position::of(receipt)) == *key));
        }
        Ok(found)
    }

    /// The receipts of one job.
    pub(super) fn receipts_of(&self, job: &JobId) -> Result<Vec<SignedReceipt>, StoreError> {
        let mut found = Vec::new();
        for row in self.db.scan_prefix(keyed(b'r', job.as_bytes())).values() {
            found.extend(self.decode(&self.checked(row)?));
        }
        Ok(found)
    }

    /// Every spend record since `day`.
    pub(super) fn spend_since(&self, day: u32) -> Result<Vec<SpendRecord>, StoreError> {
        let mut found = Vec::new();
        for entry in self.db.range(keyed(b's', &day.to_be_bytes())..b"t".to_vec()) {
            let (key, value) = self.checked(entry)?;
            found.extend(read_spend(key.get(1..).unwrap_or_default(), &value));
        }
        Ok(found)
    }

    /// Tabs of `me` on one side, after `after`.
    pub(super) fn tabs(
        &self,
        side: Side,
        me: &NodeId,
        after: Option<&TabOf>,
        limit: usize,
    ) -> Result<Vec<(TabOf, Vec<u8>)>, StoreError> {
        let ours = keyed(b'd', &[&[side as u8], &me.as_bytes()[..]].concat());
        let after = after.map_or_else(|| ours.clone(), |after| keyed(b'd', &tab_subject(after)));
        let mut found = Vec::new();
        for entry in self.db.range((Bound::Excluded(after), Bound::Unbounded)).take(limit) {
            let (key, value) = self.checked(entry)?;
            if !key.starts_with(&ours) {
                break;
            }
            found.extend(key.get(1..).and_then(read_tab_subject).map(|of| (of, value.to_vec())));
        }
        Ok(found)
    }

    /// Steps from `from` on.
    pub(super) fn steps(&self, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        for entry in self.db.range(keyed(b'e', &from.to_be_bytes())..b"f".to_vec()).take(limit) {
            let (key, value) = self.checked(entry)?;
            found.push((read_number(key.get(1..).unwrap_or_default()), value.to_vec()));
        }
        Ok(found)
    }

    /// How much there is.
    pub(super) fn counts(&self) -> Result<Counts, StoreError> {
        Ok(Counts {
            receipts: self.number(RECEIPTS)?,
            countersigned: self.number(COUNTERSIGNED)?,
            unreadable: self.unreadable.load(Ordering::Relaxed),
        })
    }

    /// Remembers peers.
    pub(super) fn put_peers(&self, peers: &[String]) -> Result<(), StoreError> {
        self.put(PEERS, codec::encode(&peers))
    }

    /// The remembered peers.
    pub(super) fn peers(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.get(PEERS)?.and_then(|row| codec::decode(&row).ok()).unwrap_or_default())
    }

    /// Remembers others' ad sequences.
    pub(super) fn put_ad_sequences(&self, sequences: &[(NodeId, u64)]) -> Result<(), StoreError> {
        let rows = sequences.iter().flat_map(|(node, sequence)| [&node.as_bytes()[..], &sequence.to_be_bytes()].concat());
        self.put(AD_SEQUENCES, rows.collect())
    }

    /// The remembered sequences.
    pub(super) fn ad_sequences(&self) -> Result<Vec<(NodeId, u64)>, StoreError> {
        let rows = self.get(AD_SEQUENCES)?.unwrap_or_default();
        let read = |row: &[u8]| row.split_first_chunk().map(|(node, rest)| (NodeId(*node), read_number(rest)));
        Ok(rows.chunks_exact(41).filter_map(read).collect())
    }

    /// Asks sled to write everything out.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.checked(self.db.flush()).map(|_| ())
    }

    /// Hands every receipt of an index of whatever kind to `each`, as a record for the journal; for an index that is to be
    /// given up. Rows whose signatures do not verify are handed on as they are: they stay as unreadable as they were.
    pub(super) fn receipt_rows(&self, each: &mut dyn FnMut(Record) -> Result<(), StoreError>) -> Result<(), StoreError> {
        for entry in self.db.scan_prefix(b"r") {
            let (key, row) = self.checked(entry)?;
            if let Some(body) = self.unseal(&row) {
                each(Record::new(Kind::RECEIPT, key.get(1..).unwrap_or_default(), body))?;
            }
        }
        if self.is_old() {
            for entry in self.old_tree(OLD_RECEIPTS)?.iter() {
                let (key, row) = self.checked(entry)?;
                each(self.old_row(&key, &row))?;
            }
        }
        Ok(())
    }

    /// The ad sequence and the peers of an index that is to be given up.
    pub(super) fn leftovers(&self) -> Result<(u64, Vec<String>), StoreError> {
        if !self.is_old() {
            return Ok((self.number(AD_LEASE)?, self.peers()?));
        }
        let meta = self.old_tree(OLD_META)?;
        let peers = self.checked(meta.get("peers"))?.and_then(|row| codec::decode(&row).ok());
        let sequence = self.checked(meta.get("ad_sequence"))?.map_or(0, |row| read_number(&row));
        Ok((sequence, peers.unwrap_or_default()))
    }

    fn old_tree(&self, name: &str) -> Result<Tree, StoreError> {
        self.checked(self.db.open_tree(name))
    }

    fn old_row(&self, key: &[u8], row: &[u8]) -> Record {
        if let Ok(receipt) = SignedReceipt::decode_stored(row, &self.network) {
            return Record::receipt(&receipt);
        }
        Record::new(Kind::RECEIPT, key, ReceiptRow::unreadable(row).encode())
    }

    fn checked<T>(&self, result: sled::Result<T>) -> Result<T, StoreError> {
        let path = self.path.clone();
        result.map_err(|error| match error {
            sled::Error::Io(error) => StoreError::Io { path, reason: error.to_string() },
            other => StoreError::Corrupt { path, reason: other.to_string() },
        })
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.checked(self.db.get(key))?.map(|row| row.to_vec()))
    }

    fn put(&self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        self.checked(self.db.insert(key, value)).map(|_| ())
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.checked(self.db.apply_batch(batch))
    }

    fn number(&self, key: &[u8]) -> Result<u64, StoreError> {
        Ok(self.get(key)?.map_or(0, |value| read_number(&value)))
    }

    /// A row's content. One that fails its checksum is counted, and has the index made anew at the next start.
    fn unseal<'a>(&self, row: &'a [u8]) -> Option<&'a [u8]> {
        let body = unsealed(row);
        if body.is_none() {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
            if !self.is_suspect.swap(true, Ordering::Relaxed) {
                // If that fails, the next damaged row that is read says it again.
                let _ = self.put(SUSPECT, Vec::new());
            }
        }
        body
    }

    fn decode(&self, row: &[u8]) -> Option<SignedReceipt> {
        let body = self.unseal(row)?;
        let receipt = ReceiptRow::read(body).and_then(|row| SignedReceipt::decode_stored(row.signed, &self.network).ok());
        if receipt.is_none() {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
        }
        receipt
    }
}

/// What a run of records changes.
struct Changes<'a> {
    index: &'a Index,
    batch: Batch,
    /// The receipts written by this very batch: when they ended, and whether they are countersigned.
    receipts: BTreeMap<Vec<u8>, (u64, bool)>,
    new: u64,
    countersigned: u64,
}

impl Changes<'_> {
    fn add(&mut self, record: &Record) -> Result<(), StoreError> {
        match record.kind {
            Kind::RECEIPT => return self.receipt(record),
            Kind::SPEND => self.batch.insert(keyed(b's', &record.subject), record.body.clone()),
            Kind::COMMAND => self.batch.insert(keyed(b'c', &record.subject), record.body.clone()),
            Kind::TAB => self.batch.insert(keyed(b'd', &record.subject), record.body.clone()),
            Kind::STEP => self.batch.insert(keyed(b'e', &record.subject), record.body.clone()),
            Kind::AD_LEASE => self.batch.insert(AD_LEASE, record.body.clone()),
            // Of a newer version: it stays in the journal.
            _ => {}
        }
        Ok(())
    }

    fn receipt(&mut self, record: &Record) -> Result<(), StoreError> {
        let Some(row) = ReceiptRow::read(&record.body) else { return Ok(()) };
        let (finished, countersigned) = (row.finished.0, row.standing.countersigned);
        let stored = self.stored(&record.subject)?;
        match stored {
            Stored::Nothing => self.new += 1,
            // Whatever comes after the buyer's signature.
            Stored::Receipt(_, true) => return Ok(()),
            Stored::Receipt(before, false) => self.batch.remove(timed(before, &record.subject)),
            Stored::Unreadable => {}
        }
        // A row that could not be read may have been counted already.
        self.countersigned += u64::from(countersigned && stored != Stored::Unreadable);
        self.batch.insert(keyed(b'r', &record.subject), [&checksum(&record.body), &record.body[..]].concat());
        self.batch.insert(timed(finished, &record.subject), Vec::new());
        self.receipts.insert(record.subject.clone(), (finished, countersigned));
        Ok(())
    }

    fn stored(&self, subject: &[u8]) -> Result<Stored, StoreError> {
        if let Some((finished, countersigned)) = self.receipts.get(subject) {
            return Ok(Stored::Receipt(*finished, *countersigned));
        }
        let Some(sealed) = self.index.get(&keyed(b'r', subject))? else { return Ok(Stored::Nothing) };
        let row = unsealed(&sealed).and_then(ReceiptRow::read);
        Ok(row.map_or(Stored::Unreadable, |row| Stored::Receipt(row.finished.0, row.standing.countersigned)))
    }

    fn finish(mut self, last: u64) -> Result<(), StoreError> {
        for (key, more) in [(RECEIPTS, self.new), (COUNTERSIGNED, self.countersigned)] {
            if more > 0 {
                self.batch.insert(key, &self.index.number(key)?.saturating_add(more).to_be_bytes());
            }
        }
        self.batch.insert(APPLIED, &last.to_be_bytes());
        self.index.write(self.batch)
    }
}

/// What the index has about a receipt's subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Nothing,
    /// When it ended, and whether it is countersigned.
    Receipt(u64, bool),
    Unreadable,
}

fn keyed(prefix: u8, subject: &[u8]) -> Vec<u8> {
    [&[prefix], subject].concat()
}

fn timed(finished: u64, subject: &[u8]) -> Vec<u8> {
    [&b"t"[..], &finished.to_be_bytes(), subject].concat()
}

fn time_key(position: &Position) -> Vec<u8> {
    timed(position.finished.0, &receipt_subject(&position.job, &position.worker))
}

/// The key of the row that an entry in the order of time is about.
fn row_of(time_key: &[u8]) -> Vec<u8> {
    keyed(b'r', time_key.get(9..).unwrap_or_default())
}

/// A row without its checksum, if that is right.
fn unsealed(row: &[u8]) -> Option<&[u8]> {
    let (sum, body) = row.split_first_chunk()?;
    (checksum(body) == *sum).then_some(body)
}

#[cfg(test)]
impl Index {
    /// Overwrites every receipt's row, as a bad disk would.
    pub(super) fn damage_rows(&self) {
        for key in self.db.scan_prefix(b"r").keys() {
            self.db.insert(key.expect("a key"), &b"nonsense"[..]).expect("writes");
        }
    }
}

/// Makes a store as it was before there was a journal.
#[cfg(test)]
pub(super) fn write_old_store(path: &Path, receipts: &[SignedReceipt]) {
    let db = Config::new().path(path).open().expect("opens");
    let (rows, meta) = (db.open_tree(OLD_RECEIPTS).expect("opens"), db.open_tree(OLD_META).expect("opens"));
    for receipt in receipts {
        let body = receipt.receipt();
        rows.insert(receipt_subject(&body.job, &body.worker), receipt.encode()).expect("writes");
    }
    meta.insert("schema", &[1]).expect("writes");
    meta.insert("ad_sequence", &77_u64.to_be_bytes()).expect("writes");
    meta.insert("peers", codec::encode(&["/ip4/192.0.2.1/tcp/1"])).expect("writes");
}
