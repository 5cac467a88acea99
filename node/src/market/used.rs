//! Accepts that were used, for as long as they could be presented again.
//!
//! Unlike a map that forgets the oldest, this one never forgets too early: when it is full it takes no more.

use infernet_wire::{id::Hash, time::UnixMillis};
use std::collections::BTreeSet;

/// Digests, each until its time is over. Bounded.
#[derive(Debug, Clone)]
pub struct Used {
    capacity: usize,
    digests: BTreeSet<Hash>,
    by_end: BTreeSet<(UnixMillis, Hash)>,
}

impl Used {
    /// Room for `capacity` digests.
    pub fn new(capacity: usize) -> Self {
        Used { capacity, digests: BTreeSet::new(), by_end: BTreeSet::new() }
    }

    /// Whether `digest` was used and may still be presented.
    pub fn contains(&self, digest: &Hash) -> bool {
        self.digests.contains(digest)
    }

    /// Whether there is no room for another.
    pub fn is_full(&self) -> bool {
        self.digests.len() >= self.capacity
    }

    /// Remembers `digest` until `end`.
    pub fn insert(&mut self, digest: Hash, end: UnixMillis) {
        if self.digests.insert(digest) {
            self.by_end.insert((end, digest));
        }
    }

    /// Forgets those whose time is over.
    pub fn expire(&mut self, now: UnixMillis) {
        while let Some((end, digest)) = self.by_end.first().copied()
            && end < now
        {
            self.by_end.pop_first();
            self.digests.remove(&digest);
        }
    }

    /// Number of digests.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::at;

    #[test]
    fn it_forgets_in_time_and_never_too_early() {
        let mut used = Used::new(2);
        let digest = |n| Hash([n; 32]);
        used.insert(digest(1), at(20));
        used.insert(digest(2), at(10));
        assert!(used.is_full());
        used.expire(at(10));
        assert!(used.contains(&digest(1)) && used.contains(&digest(2)));
        used.expire(at(11));
        assert_eq!((used.contains(&digest(1)), used.contains(&digest(2)), used.len()), (true, false, 1));
    }
}
