//! The greatest so many of all that was ever put, by an order of their own.
//!
//! For each key the value of the greatest order stays, and of all keys those with the greatest orders. Both are one total order,
//! so what is left does not depend on who came when: whoever is pushed out had as many above it as there is room for, and they
//! only rise.

use std::collections::{BTreeMap, BTreeSet};

/// See the module. Orders are unique: they end in a digest.
#[derive(Debug)]
pub(super) struct Newest<K, O, V> {
    bound: usize,
    values: BTreeMap<K, (O, V)>,
    order: BTreeSet<(O, K)>,
}

impl<K: Ord + Clone, O: Ord + Clone, V> Newest<K, O, V> {
    pub(super) fn new(bound: usize) -> Self {
        Newest { bound, values: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Whether it stays.
    pub(super) fn put(&mut self, key: K, order: O, value: V) -> bool {
        match self.values.get(&key) {
            Some((kept, _)) if *kept >= order => return false,
            Some((kept, _)) => {
                self.order.remove(&(kept.clone(), key.clone()));
            }
            None => {}
        }
        self.order.insert((order.clone(), key.clone()));
        self.values.insert(key.clone(), (order, value));
        while self.order.len() > self.bound {
            let Some((_, last)) = self.order.pop_first() else { break };
            self.values.remove(&last);
        }
        self.values.contains_key(&key)
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    /// By key.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.values.values().map(|(_, value)| value)
    }

    /// The greatest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &V> {
        self.order.iter().rev().filter_map(|(_, key)| self.get(key))
    }
}
