//! What happened on the chat streams of a worker, counted.
//!
//! The streams run side by side and only add; whoever shows the counts takes a copy.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts by `chat.what` and `chat.what.reason`. What started is `streams`: each is refused (`refused`, by error code) or
/// becomes a job (`started`), and each job ends (`finished`). Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: Arc<Mutex<BTreeMap<(&'static str, &'static str), u64>>>,
}

impl Tally {
    /// One more of `what`.
    pub fn count(&self, what: &'static str) {
        self.count_reason(what, "");
    }

    /// One more of `what`, for `reason`. Both are labels from the code, so there are only so many.
    pub fn count_reason(&self, what: &'static str, reason: &'static str) {
        // Nothing panics while it holds the lock.
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry((what, reason)).or_default() += 1;
    }

    /// The counts now, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let name =
            |what: &str, reason: &str| if reason.is_empty() { format!("chat.{what}") } else { format!("chat.{what}.{reason}") };
        counts.iter().map(|((what, reason), n)| (name(what, reason), *n)).collect()
    }
}
