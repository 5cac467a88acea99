//! A store whose journal is on a [`TestDisk`] and whose index is memory: for simulated nodes, which crash thousands of times.
//!
//! The journal and its recovery are the node's own, to the byte. What is missing is what has no part in a decision: the thread
//! that shares a sync among callers, and the index on disk, which can be made from the journal and here always is.

use super::{
    Counts, MemoryStore, Page, Put, Side, SpendRecord, Standing, Store, StoreError, TabOf, check_spend,
    durable::AdLease,
    journal::{Health, Journal, JournalError, Sizes, test_disk::TestDisk},
    record::{Kind, ReceiptRow, Record, read_number, read_spend, read_tab_subject},
};
use infernet_wire::{
    envelope::Refusal,
    id::{JobId, NodeId},
    receipt::SignedReceipt,
    time::UnixMillis,
    topic::NetworkId,
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Segments of some tens of receipts, so that a short life closes and compacts several, and a reserve of a few.
const SIZES: Sizes = Sizes { segment: 32 * 1024, reserve: 4 * 1024 };

/// Reads a receipt back from its bytes: [`SignedReceipt::decode_stored`], or [`SignedReceipt::decode_simulated`].
pub type ReadReceipt = fn(&[u8], &NetworkId) -> Result<SignedReceipt, Refusal>;

/// See the module.
pub struct JournaledStore {
    state: Mutex<State>,
    memory: MemoryStore,
}

struct State {
    journal: Journal,
    ads: AdLease,
    unreadable: u64,
}

impl JournaledStore {
    /// Recovers what `disk` holds. `fresh_id` names the journal if there is none yet.
    pub fn open(disk: TestDisk, network: &NetworkId, fresh_id: [u8; 16], read: ReadReceipt) -> Result<Self, StoreError> {
        let journal = Journal::open(Arc::new(disk), network, fresh_id, SIZES).map_err(store_error)?;
        let store = JournaledStore {
            state: Mutex::new(State { journal, ads: AdLease::default(), unreadable: 0 }),
            memory: MemoryStore::default(),
        };
        store.replay(network, read)?;
        Ok(store)
    }

    fn replay(&self, network: &NetworkId, read: ReadReceipt) -> Result<(), StoreError> {
        let mut records = Vec::new();
        let mut state = self.state();
        state.journal.replay(0, &mut |record| records.push(record)).map_err(store_error)?;
        for record in records {
            match record.kind {
                Kind::RECEIPT => match ReceiptRow::read(&record.body).map(|row| read(row.signed, network)) {
                    Some(Ok(receipt)) => _ = self.memory.put_receipt(&receipt)?,
                    _ => state.unreadable += 1,
                },
                Kind::AD_LEASE => {
                    let until = read_number(&record.body);
                    state.ads = AdLease { last: until, until };
                }
                Kind::SPEND => {
                    if let Some(spend) = read_spend(&record.subject, &record.body) {
                        self.memory.put_spend(&spend)?;
                    }
                }
                Kind::COMMAND => {
                    if let Ok(operator) = record.subject.as_slice().try_into() {
                        self.memory.accept_command(&NodeId(operator), read_number(&record.body))?;
                    }
                }
                Kind::TAB => {
                    if let Some(of) = read_tab_subject(&record.subject) {
                        self.memory.put_tab(&of, record.body)?;
                    }
                }
                Kind::STEP => self.memory.put_step(read_number(&record.subject), record.body)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the lock is given back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, mut record: Record) -> Result<(), StoreError> {
        record.number = self.journal.last() + 1;
        self.journal.append(&[record]).map_err(store_error)
    }
}

fn store_error(error: JournalError) -> StoreError {
    let path = PathBuf::from("test-disk");
    match error {
        JournalError::Full => StoreError::Full { path },
        JournalError::Failed(reason) => StoreError::Failed { path, reason },
        JournalError::Corrupt(reason) => StoreError::Corrupt { path, reason },
        JournalError::Io(error) => StoreError::Io { path, reason: error.to_string() },
    }
}

impl Store for JournaledStore {
    fn put_receipt(&self, receipt: &SignedReceipt) -> Result<Put, StoreError> {
        let body = receipt.receipt();
        let stored = self.memory.receipts_of(&body.job)?;
        let stored = stored.iter().find(|kept| kept.receipt().worker == body.worker);
        let put = Put::decide(stored.map(Standing::of), Standing::of(receipt));
        if put.is_kept() {
            self.state().append(Record::receipt(receipt))?;
            self.memory.put_receipt(receipt)?;
        }
        Ok(put)
    }

    fn receipts(&self, page: Page) -> Result<Vec<SignedReceipt>, StoreError> {
        self.memory.receipts(page)
    }

    fn receipts_of(&self, job: &JobId) -> Result<Vec<SignedReceipt>, StoreError> {
        self.memory.receipts_of(job)
    }

    fn has_receipt(&self, job: &JobId, worker: &NodeId) -> Result<bool, StoreError> {
        self.memory.has_receipt(job, worker)
    }

    fn counts(&self) -> Result<Counts, StoreError> {
        Ok(Counts { unreadable: self.state().unreadable, ..self.memory.counts()? })
    }

    fn next_ad_sequence(&self, now: UnixMillis) -> Result<u64, StoreError> {
        let mut state = self.state();
        let (next, lease) = state.ads.next(now);
        if let Some(until) = lease {
            state.append(Record::ad_lease(until))?;
            state.ads.until = until;
        }
        state.ads.last = next;
        Ok(next)
    }

    fn put_spend(&self, record: &SpendRecord) -> Result<(), StoreError> {
        check_spend(record)?;
        self.state().append(Record::spend(record))?;
        self.memory.put_spend(record)
    }

    fn spend_since(&self, day: u32) -> Result<Vec<SpendRecord>, StoreError> {
        self.memory.spend_since(day)
    }

    fn accept_command(&self, operator: &NodeId, sequence: u64) -> Result<bool, StoreError> {
        let is_newer = self.memory.accept_command(operator, sequence)?;
        if is_newer {
            self.state().append(Record::command(operator, sequence))?;
        }
        Ok(is_newer)
    }

    fn put_tab(&self, of: &TabOf, tab: Vec<u8>) -> Result<(), StoreError> {
        self.state().append(Record::tab(of, tab.clone()))?;
        self.memory.put_tab(of, tab)
    }

    fn tab(&self, of: &TabOf) -> Result<Option<Vec<u8>>, StoreError> {
        self.memory.tab(of)
    }

    fn tabs(&self, side: Side, me: &NodeId, after: Option<&TabOf>) -> Result<Vec<(TabOf, Vec<u8>)>, StoreError> {
        self.memory.tabs(side, me, after)
    }

    fn put_step(&self, number: u64, step: Vec<u8>) -> Result<(), StoreError> {
        self.state().append(Record::step(number, step.clone()))?;
        self.memory.put_step(number, step)
    }

    fn steps(&self, from: u64) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.memory.steps(from)
    }

    fn put_ad_sequences(&self, sequences: &[(NodeId, u64)]) -> Result<(), StoreError> {
        self.memory.put_ad_sequences(sequences)
    }

    fn ad_sequences(&self) -> Result<Vec<(NodeId, u64)>, StoreError> {
        self.memory.ad_sequences()
    }

    fn accepts_work(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        state.journal.try_recover();
        match state.journal.health() {
            Health::Good => Ok(()),
            Health::Full => Err(store_error(JournalError::Full)),
            Health::Failed(reason) => Err(store_error(JournalError::Failed(reason.clone()))),
        }
    }

    fn put_peers(&self, peers: &[String]) -> Result<(), StoreError> {
        self.memory.put_peers(peers)
    }

    fn peers(&self) -> Result<Vec<String>, StoreError> {
        self.memory.peers()
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.ads.last < state.ads.until {
            let last = state.ads.last;
            state.append(Record::ad_lease(last))?;
            state.ads.until = last;
        }
        Ok(())
    }
}
