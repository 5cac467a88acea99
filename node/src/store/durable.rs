//! The store on disk: a journal that is the truth, an index to read from, and a thread between them.
//!
//! A write is decided against what is known, queued, and waited for; reads go to the index. Peers and others' ad sequences may
//! be lost, so they are in the index alone.

use super::{
    Commits, Counts, Index, MAX_AD_SEQUENCES, MAX_PAGE, Page, Put, Side, SpendRecord, Standing, Store, StoreError, TabOf,
    bounded_peers, check_spend,
    commit::{Committer, Durable, State},
    record::{Key, Kind, ReceiptRow, Record, read_number, tab_subject},
    sequence_after,
};
use futures::{FutureExt, executor, future::BoxFuture};
use infernet_wire::{
    id::{JobId, NodeId},
    receipt::SignedReceipt,
    time::UnixMillis,
};
use std::{
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

/// Ad sequences are reserved for so long ahead, so that one sync serves some eight ads. After a kill the sequences go on as far
/// ahead of the clock at most.
const AD_LEASE_MS: u64 = 300_000;
/// Sequences reserved at least, should they be ahead of the clock already: few, so that a node that is killed again and again
/// does not run away from it.
const AD_LEASE_MIN: u64 = 64;

/// A [`Store`] in `<home>/journal-<network>` and `<home>/store-<network>`.
pub(super) struct DurableStore {
    // First, so that the last record is written before the lock is let go.
    committer: Committer,
    ads: Mutex<AdLease>,
    /// Held as long as the store is open; none in tests without a directory.
    _lock: Option<File>,
}

/// Which ad sequences may be used without a sync.
#[derive(Debug, Default)]
pub(super) struct AdLease {
    pub(super) last: u64,
    pub(super) until: u64,
}

impl AdLease {
    /// The next sequence, and the lease that must be durable before it is used, if it needs a new one.
    pub(super) fn next(&self, now: UnixMillis) -> (u64, Option<u64>) {
        let next = sequence_after(self.last, now);
        let until = next.saturating_add(AD_LEASE_MIN).max(now.0.saturating_add(AD_LEASE_MS));
        (next, (next > self.until).then_some(until))
    }
}

impl DurableStore {
    pub(super) fn new(committer: Committer, lock: Option<File>) -> Result<Self, StoreError> {
        let until = committer.index()?.body(&Record::ad_lease(0).key())?.map_or(0, |body| read_number(&body));
        Ok(DurableStore { committer, ads: Mutex::new(AdLease { last: until, until }), _lock: lock })
    }

    fn index(&self) -> Result<Arc<Index>, StoreError> {
        self.committer.index()
    }

    /// The index, with all in it that was queued before.
    fn index_of_all(&self) -> Result<Arc<Index>, StoreError> {
        let all = self.committer.lock().barrier()?;
        wait_here(all)?;
        self.index()
    }

    /// The newest body about `key`, durable or on its way there.
    fn newest(&self, state: &State, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        match state.newest(key) {
            Some(record) => Ok(Some(record.body.clone())),
            None => self.index()?.body(key),
        }
    }

    fn queue(&self, record: Record) -> Result<Durable, StoreError> {
        self.committer.lock().queue(record)
    }

    /// Decides about a receipt and queues it if it is kept. A known one is waited for too, should it still be on its way.
    fn queue_receipt(&self, receipt: &SignedReceipt) -> Result<(Put, Durable), StoreError> {
        let record = Record::receipt(receipt);
        let mut state = self.committer.lock();
        // Without an index it is taken for new: the journal sorts it out, and a receipt must not be lost.
        let stored = self.newest(&state, &record.key()).unwrap_or_default();
        let stored = stored.as_deref().and_then(ReceiptRow::read).map(|row| row.standing);
        let put = Put::decide(stored, Standing::of(receipt));
        let durable = if put.is_kept() { state.queue(record)? } else { state.join(&record.key()) };
        Ok((put, durable))
    }

    /// The newest sequence accepted of `operator` is raised to `sequence`; `None` if it is that high already.
    fn queue_command(&self, operator: &NodeId, sequence: u64) -> Result<Option<Durable>, StoreError> {
        let record = Record::command(operator, sequence);
        let mut state = self.committer.lock();
        match self.newest(&state, &record.key())? {
            Some(newest) if read_number(&newest) >= sequence => Ok(None),
            _ => state.queue(record).map(Some),
        }
    }
}

/// Waits until it is on the disk.
async fn wait(durable: Durable) -> Result<(), StoreError> {
    durable.await.map_err(|_| StoreError::Interrupted("its thread has ended".into()))?
}

fn wait_here(durable: Durable) -> Result<(), StoreError> {
    executor::block_on(wait(durable))
}

impl Store for DurableStore {
    fn put_receipt(&self, receipt: &SignedReceipt) -> Result<Put, StoreError> {
        let (put, durable) = self.queue_receipt(receipt)?;
        wait_here(durable).map(|()| put)
    }

    fn keep_receipt(&self, receipt: &SignedReceipt) -> BoxFuture<'static, Result<Put, StoreError>> {
        let queued = self.queue_receipt(receipt);
        async move {
            let (put, durable) = queued?;
            wait(durable).await.map(|()| put)
        }
        .boxed()
    }

    fn receipts(&self, page: Page) -> Result<Vec<SignedReceipt>, StoreError> {
        self.index()?.receipts(page)
    }

    fn receipts_of(&self, job: &JobId) -> Result<Vec<SignedReceipt>, StoreError> {
        self.index()?.receipts_of(job)
    }

    fn has_receipt(&self, job: &JobId, worker: &NodeId) -> Result<bool, StoreError> {
        let key = (Kind::RECEIPT, super::record::receipt_subject(job, worker).to_vec());
        let is_pending = self.committer.lock().newest(&key).is_some();
        Ok(is_pending || self.index()?.has_receipt(job, worker)?)
    }

    fn counts(&self) -> Result<Counts, StoreError> {
        self.index()?.counts()
    }

    fn next_ad_sequence(&self, now: UnixMillis) -> Result<u64, StoreError> {
        let mut ads = self.ads.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, lease) = ads.next(now);
        if let Some(until) = lease {
            wait_here(self.queue(Record::ad_lease(until))?)?;
            ads.until = until;
        }
        ads.last = next;
        Ok(next)
    }

    fn put_spend(&self, record: &SpendRecord) -> Result<(), StoreError> {
        check_spend(record)?;
        wait_here(self.queue(Record::spend(record))?)
    }

    fn spend_since(&self, day: u32) -> Result<Vec<SpendRecord>, StoreError> {
        self.index()?.spend_since(day)
    }

    fn accept_command(&self, operator: &NodeId, sequence: u64) -> Result<bool, StoreError> {
        match self.queue_command(operator, sequence)? {
            Some(durable) => wait_here(durable).map(|()| true),
            None => Ok(false),
        }
    }

    fn put_tab(&self, of: &TabOf, tab: Vec<u8>) -> Result<(), StoreError> {
        wait_here(self.queue(Record::tab(of, tab))?)
    }

    fn keep_tab(&self, of: &TabOf, tab: Vec<u8>) -> BoxFuture<'static, Result<(), StoreError>> {
        let queued = self.queue(Record::tab(of, tab));
        async move { wait(queued?).await }.boxed()
    }

    fn tab(&self, of: &TabOf) -> Result<Option<Vec<u8>>, StoreError> {
        let key = (Kind::TAB, tab_subject(of));
        self.newest(&self.committer.lock(), &key)
    }

    fn tabs(&self, side: Side, me: &NodeId, after: Option<&TabOf>) -> Result<Vec<(TabOf, Vec<u8>)>, StoreError> {
        self.index_of_all()?.tabs(side, me, after, MAX_PAGE)
    }

    fn put_step(&self, number: u64, step: Vec<u8>) -> Result<(), StoreError> {
        wait_here(self.queue(Record::step(number, step))?)
    }

    fn keep_step(&self, number: u64, step: Vec<u8>) -> BoxFuture<'static, Result<(), StoreError>> {
        let queued = self.queue(Record::step(number, step));
        async move { wait(queued?).await }.boxed()
    }

    fn steps(&self, from: u64) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.index_of_all()?.steps(from, MAX_PAGE)
    }

    fn put_ad_sequences(&self, sequences: &[(NodeId, u64)]) -> Result<(), StoreError> {
        self.index()?.put_ad_sequences(sequences.get(..MAX_AD_SEQUENCES).unwrap_or(sequences))
    }

    fn ad_sequences(&self) -> Result<Vec<(NodeId, u64)>, StoreError> {
        self.index()?.ad_sequences()
    }

    fn put_peers(&self, peers: &[String]) -> Result<(), StoreError> {
        self.index()?.put_peers(&bounded_peers(peers))
    }

    fn peers(&self) -> Result<Vec<String>, StoreError> {
        self.index()?.peers()
    }

    fn accepts_work(&self) -> Result<(), StoreError> {
        self.committer.lock().accepts_work()
    }

    fn commits(&self) -> Option<Commits> {
        Some(self.committer.lock().commits())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut ads = self.ads.lock().unwrap_or_else(PoisonError::into_inner);
        // Sequences that were not used are given back, so that they stay with the clock.
        if ads.last < ads.until {
            wait_here(self.queue(Record::ad_lease(ads.last))?)?;
            ads.until = ads.last;
        }
        drop(ads);
        let all = self.committer.lock().barrier()?;
        wait_here(all)?;
        self.index()?.flush()
    }
}

#[cfg(test)]
impl DurableStore {
    pub(super) fn index_now(&self) -> Arc<Index> {
        self.index().expect("there is an index")
    }

    pub(super) fn lose_index(&self, error: &StoreError) {
        self.committer.lose_index(error);
    }
}
