//! A store that forgets when it is dropped.

use super::{
    Counts, MAX_AD_SEQUENCES, MAX_PAGE, Page, Position, Put, Side, SpendRecord, Standing, Store, StoreError, TabOf,
    bounded_peers, check_spend, sequence_after,
};
use infernet_wire::{
    id::{JobId, NodeId},
    receipt::SignedReceipt,
    time::UnixMillis,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A [`Store`] in memory. It grows with its receipts: for tests and short runs.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    receipts: BTreeMap<(JobId, NodeId), SignedReceipt>,
    by_time: BTreeSet<Position>,
    ad_sequence: u64,
    spend: BTreeMap<(u32, String), SpendRecord>,
    commands: BTreeMap<NodeId, u64>,
    tabs: BTreeMap<TabOf, Vec<u8>>,
    steps: BTreeMap<u64, Vec<u8>>,
    ad_sequences: Vec<(NodeId, u64)>,
    peers: Vec<String>,
}

impl MemoryStore {
    /// Every change is complete before the lock is given back, so a panic elsewhere leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn put_receipt(&self, receipt: &SignedReceipt) -> Result<Put, StoreError> {
        let mut state = self.state();
        let position = Position::of(receipt);
        let key = (position.job, position.worker);
        let stored = state.receipts.get(&key);
        let put = Put::decide(stored.map(Standing::of), Standing::of(receipt));
        if put.is_kept() {
            let old = stored.map(Position::of);
            old.map(|old| state.by_time.remove(&old));
            state.by_time.insert(position);
            state.receipts.insert(key, receipt.clone());
        }
        Ok(put)
    }

    fn receipts(&self, page: Page) -> Result<Vec<SignedReceipt>, StoreError> {
        let state = self.state();
        let older = state.by_time.iter().rev().filter(|position| page.before.is_none_or(|before| **position < before));
        let found = older.filter_map(|position| state.receipts.get(&(position.job, position.worker)));
        Ok(found.take(page.limit.min(MAX_PAGE)).cloned().collect())
    }

    fn receipts_of(&self, job: &JobId) -> Result<Vec<SignedReceipt>, StoreError> {
        let first = (*job, NodeId([0; 33]));
        let last = (*job, NodeId([0xff; 33]));
        Ok(self.state().receipts.range(first..=last).map(|(_, receipt)| receipt.clone()).collect())
    }

    fn has_receipt(&self, job: &JobId, worker: &NodeId) -> Result<bool, StoreError> {
        Ok(self.state().receipts.contains_key(&(*job, *worker)))
    }

    fn counts(&self) -> Result<Counts, StoreError> {
        let state = self.state();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let countersigned = state.receipts.values().filter(|receipt| receipt.countersign().is_some()).count();
        Ok(Counts { receipts: count(state.receipts.len()), countersigned: count(countersigned), unreadable: 0 })
    }

    fn next_ad_sequence(&self, now: UnixMillis) -> Result<u64, StoreError> {
        let mut state = self.state();
        state.ad_sequence = sequence_after(state.ad_sequence, now);
        Ok(state.ad_sequence)
    }

    fn put_spend(&self, record: &SpendRecord) -> Result<(), StoreError> {
        check_spend(record)?;
        self.state().spend.insert((record.day, record.key.clone()), record.clone());
        Ok(())
    }

    fn spend_since(&self, day: u32) -> Result<Vec<SpendRecord>, StoreError> {
        Ok(self.state().spend.range((day, String::new())..).map(|(_, record)| record.clone()).collect())
    }

    fn accept_command(&self, operator: &NodeId, sequence: u64) -> Result<bool, StoreError> {
        let mut state = self.state();
        let is_newer = state.commands.get(operator).is_none_or(|newest| sequence > *newest);
        if is_newer {
            state.commands.insert(*operator, sequence);
        }
        Ok(is_newer)
    }

    fn put_tab(&self, of: &TabOf, tab: Vec<u8>) -> Result<(), StoreError> {
        self.state().tabs.insert(*of, tab);
        Ok(())
    }

    fn tab(&self, of: &TabOf) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().tabs.get(of).cloned())
    }

    fn tabs(&self, side: Side, me: &NodeId, after: Option<&TabOf>) -> Result<Vec<(TabOf, Vec<u8>)>, StoreError> {
        let state = self.state();
        let first = TabOf::ledger(side, *me, NodeId([0; 33]));
        let tabs = state.tabs.range((Bound::Excluded(after.unwrap_or(&first)), Bound::Unbounded));
        let ours = tabs.take_while(|(of, _)| (of.side, of.me) == (side, *me));
        Ok(ours.take(MAX_PAGE).map(|(of, tab)| (*of, tab.clone())).collect())
    }

    fn put_step(&self, number: u64, step: Vec<u8>) -> Result<(), StoreError> {
        self.state().steps.insert(number, step);
        Ok(())
    }

    fn steps(&self, from: u64) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        Ok(self.state().steps.range(from..).take(MAX_PAGE).map(|(number, step)| (*number, step.clone())).collect())
    }

    fn put_ad_sequences(&self, sequences: &[(NodeId, u64)]) -> Result<(), StoreError> {
        self.state().ad_sequences = sequences.iter().take(MAX_AD_SEQUENCES).copied().collect();
        Ok(())
    }

    fn ad_sequences(&self) -> Result<Vec<(NodeId, u64)>, StoreError> {
        Ok(self.state().ad_sequences.clone())
    }

    fn put_peers(&self, peers: &[String]) -> Result<(), StoreError> {
        self.state().peers = bounded_peers(peers);
        Ok(())
    }

    fn peers(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.state().peers.clone())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
