//! Which messages were seen: by digest, for as long as they could count again.

use super::generations::Generations;
use infernet_wire::{id::Hash, time::UnixMillis};

/// A bounded set of digests.
#[derive(Debug)]
pub(super) struct Seen(Generations<Hash, ()>);

impl Seen {
    /// Remembers for at least `span_ms`, unless more than `capacity` digests come in one span. Then the oldest go early: under
    /// such a flood it is better to let a message be seen twice, which gossipsub's own cache and the market's ids also stop,
    /// than to let strangers close the market by filling the set.
    pub(super) fn new(capacity: usize, span_ms: u64) -> Self {
        Seen(Generations::new(capacity, span_ms))
    }

    /// How many digests are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, digest: &Hash) -> bool {
        self.0.get(digest).is_some()
    }

    pub(super) fn insert(&mut self, digest: Hash, now: UnixMillis) {
        self.0.insert(digest, (), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::hash::sha256;

    #[test]
    fn remembers_for_its_span() {
        let mut seen = Seen::new(1_000, 120_000);
        let t0 = UnixMillis(1_000_000);
        seen.insert(sha256(b"a"), t0);
        for step in 0..120 {
            seen.insert(sha256(&[step, 0]), t0.after(u64::from(step) * 1_000));
            assert!(seen.contains(&sha256(b"a")));
        }
        assert!(!seen.contains(&sha256(b"b")));
    }

    #[test]
    fn a_flood_can_not_make_it_grow() {
        let mut seen = Seen::new(10, 120_000);
        for n in 0..1_000u32 {
            seen.insert(sha256(&n.to_be_bytes()), UnixMillis(5));
        }
        assert!(seen.0.len() <= 20);
    }
}
