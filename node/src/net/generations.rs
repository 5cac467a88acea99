//! A bounded map that forgets by turning over two generations.
//!
//! Quotas, the replay set and the routes of offers all need the same thing: remember each entry for at least a time span, never
//! more than a number of entries, and spend no scan on either. Entries go into the young generation; when the span is over, or
//! the young generation is full, the old one is dropped and the young one takes its place.

use infernet_wire::time::UnixMillis;
use std::{collections::HashMap, hash::Hash};

/// See the module.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    capacity: usize,
    span_ms: u64,
    turned: UnixMillis,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// Keeps each entry for `span_ms` to twice that, and at most twice `capacity` entries. Only if more than `capacity` come
    /// within one span is something forgotten early.
    pub(super) fn new(capacity: usize, span_ms: u64) -> Self {
        Generations { young: HashMap::new(), old: HashMap::new(), capacity, span_ms, turned: UnixMillis(0) }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    /// Sets a value; it counts as new again.
    pub(super) fn insert(&mut self, key: K, value: V, now: UnixMillis) {
        self.turn(now);
        if !self.old.is_empty() {
            self.old.remove(&key);
        }
        self.young.insert(key, value);
    }

    fn turn(&mut self, now: UnixMillis) {
        let age = now.since(self.turned);
        if age >= self.span_ms || self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
            self.turned = now;
        }
    }

    /// Every entry, the younger generation first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.young.iter().chain(&self.old)
    }

    /// How many entries are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_for_its_span_and_forgets_after_two() {
        let mut map = Generations::new(100, 1_000);
        map.insert("a", 1, UnixMillis(10_000));
        map.insert("b", 2, UnixMillis(10_999));
        assert_eq!(map.get(&"a"), Some(&1));
        map.insert("c", 3, UnixMillis(11_000));
        assert_eq!(map.get(&"a"), Some(&1), "moved to the old generation");
        map.insert("d", 4, UnixMillis(12_000));
        assert_eq!(map.get(&"a"), None);
        assert_eq!(map.get(&"c"), Some(&3));
    }

    #[test]
    fn never_holds_more_than_two_generations() {
        let mut map = Generations::new(10, 1_000_000);
        for n in 0..1_000 {
            map.insert(n, (), UnixMillis(1_000_000));
            assert!(map.len() <= 20);
        }
        assert!(map.get(&999).is_some());
    }
}
