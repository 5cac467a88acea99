//! What a journal must keep through crashes, for the tests and the fuzzer.

use super::{Journal, JournalError, Sizes, test_disk::TestDisk};
use crate::store::{
    Standing,
    record::{Key, Kind, ReceiptRow, Record},
};
use infernet_wire::{id::Hash, time::UnixMillis, topic::NetworkId};
use std::{collections::BTreeMap, sync::Arc};

/// Segments of a few records, so that small histories close and compact many.
pub(super) const SMALL: Sizes = Sizes { segment: 400, reserve: 300 };

pub(super) fn open(disk: &TestDisk) -> Result<Journal, JournalError> {
    Journal::open(Arc::new(disk.clone()), &NetworkId::default(), [7; 16], SMALL)
}

/// A record about one of a few subjects, so that some supersede others.
pub(super) fn record(kind: Kind, subject: u8, body: u8) -> Record {
    let standing = Standing { digest: Hash([body; 32]), countersigned: body % 2 == 1 };
    let receipt = ReceiptRow { finished: UnixMillis(body.into()), standing, signed: &[body; 20] }.encode();
    let body = if kind == Kind::RECEIPT { receipt } else { vec![body; 8] };
    Record::new(kind, vec![subject; 4], body)
}

/// Numbers and appends; returns the records as they were written.
pub(super) fn append(journal: &mut Journal, mut records: Vec<Record>) -> Result<Vec<Record>, JournalError> {
    for (record, number) in records.iter_mut().zip(journal.last() + 1..) {
        record.number = number;
    }
    journal.append(&records).map(|()| records)
}

pub(super) fn replayed(journal: &mut Journal) -> Vec<Record> {
    let mut found = Vec::new();
    journal.replay(0, &mut |record| found.push(record)).expect("reads");
    found
}

/// What was written before a crash: what was acknowledged, and what was on its way.
#[derive(Default)]
pub(super) struct Written {
    pub(super) acknowledged: Vec<Record>,
    pub(super) tried: Vec<Record>,
}

/// Nothing acknowledged is lost but what something newer superseded, nothing comes twice or in another order, and nothing is
/// there that was never written.
pub(super) fn check_kept(written: &Written, found: &[Record], what: &str) {
    let numbers: Vec<u64> = found.iter().map(|record| record.number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{what}: {numbers:?}");
    let mut newest: BTreeMap<Key, u64> = BTreeMap::new();
    for record in found {
        assert!(written.tried.contains(record), "{what}: {record:?} was never written");
        newest.insert(record.key(), record.number);
    }
    for record in &written.acknowledged {
        let is_superseded =
            record.is_superseded_by_newer() && newest.get(&record.key()).is_some_and(|number| *number > record.number);
        assert!(is_superseded || found.contains(record), "{what}: {record:?} is lost, {numbers:?} are there");
    }
}
