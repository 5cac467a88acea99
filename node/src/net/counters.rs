//! What happened how often: one number per area and reason, for tests, `/metrics` and people.

use std::collections::BTreeMap;

/// Every key is a constant of the code, so a peer can't make this grow.
#[derive(Debug, Default)]
pub(super) struct Counters(BTreeMap<(&'static str, &'static str), u64>);

impl Counters {
    /// One more of `area.what`.
    pub(super) fn add(&mut self, area: &'static str, what: &'static str) {
        self.add_many(area, what, 1);
    }

    /// So many more of `area.what`.
    pub(super) fn add_many(&mut self, area: &'static str, what: &'static str, more: u64) {
        let count = self.0.entry((area, what)).or_default();
        *count = count.saturating_add(more);
    }

    /// All of them, as `area.what`.
    pub(super) fn snapshot(&self) -> BTreeMap<String, u64> {
        self.0.iter().map(|((area, what), count)| (format!("{area}.{what}"), *count)).collect()
    }
}
