//! A map that forgets what was used least recently, so that no peer can make it grow.

use std::collections::BTreeMap;

/// At most `capacity` entries; a new one takes the place of the one that was written longest ago. Reading does not refresh.
#[derive(Debug, Clone)]
pub struct Recent<K, V> {
    capacity: usize,
    writes: u64,
    entries: BTreeMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
}

impl<K: Ord + Clone, V> Recent<K, V> {
    /// An empty map of at most `capacity` entries, at least one.
    pub fn new(capacity: usize) -> Self {
        Recent { capacity: capacity.max(1), writes: 0, entries: BTreeMap::new(), order: BTreeMap::new() }
    }

    /// The value of `key`, if it is still remembered.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// The value of `key`, to change in place.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// Whether `key` is remembered.
    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Remembers `value`; the oldest entry goes if there is no room.
    pub fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        if self.entries.len() >= self.capacity {
            self.forget_oldest();
        }
        self.writes += 1;
        self.order.insert(self.writes, key.clone());
        self.entries.insert(key, (self.writes, value));
    }

    /// Forgets `key` and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (write, value) = self.entries.remove(key)?;
        self.order.remove(&write);
        Some(value)
    }

    /// Changes the value of `key`, or a default one, and makes it the newest.
    pub fn update(&mut self, key: K, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        let mut value = self.remove(&key).unwrap_or_default();
        change(&mut value);
        self.insert(key, value);
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_written_goes() {
        let mut map = Recent::new(2);
        map.insert('a', 1);
        map.insert('b', 2);
        map.update('a', |value| *value += 10);
        map.insert('c', 3);
        assert_eq!((map.get(&'a'), map.get(&'b'), map.get(&'c'), map.len()), (Some(&11), None, Some(&3), 2));
    }

    #[test]
    fn removing_makes_room() {
        let mut map = Recent::new(1);
        map.insert(1, ());
        assert_eq!(map.remove(&1), Some(()));
        assert!(map.is_empty() && map.order.is_empty());
    }
}
