//! How many of our jobs each worker runs now, however they were agreed on.

use infernet_wire::id::NodeId;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts of running jobs by worker; cheap to clone. As many entries as workers have jobs of ours.
#[derive(Debug, Clone, Default)]
pub(super) struct Loads(Arc<Mutex<BTreeMap<NodeId, u32>>>);

/// One job with one worker, counted while it lives.
#[derive(Debug)]
pub(super) struct Load {
    loads: Loads,
    worker: NodeId,
}

impl Loads {
    /// Counts a job with `worker` from now on.
    pub(super) fn begin(&self, worker: NodeId) -> Load {
        self.change(|counts| *counts.entry(worker).or_default() += 1);
        Load { loads: self.clone(), worker }
    }

    /// Jobs that `worker` runs for us.
    pub(super) fn of(&self, worker: &NodeId) -> u32 {
        self.change(|counts| counts.get(worker).copied().unwrap_or_default())
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<NodeId, u32>) -> T) -> T {
        // Nothing in here panics while it holds the lock.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.loads.change(|counts| {
            let left = counts.get(&self.worker).map_or(0, |jobs| jobs.saturating_sub(1));
            if left == 0 {
                counts.remove(&self.worker);
            } else {
                counts.insert(self.worker, left);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_counts_while_it_lives() {
        let (loads, worker) = (Loads::default(), NodeId([1; 33]));
        let jobs = [loads.begin(worker), loads.begin(worker)];
        assert_eq!(loads.of(&worker), 2);
        drop(jobs);
        assert_eq!(loads.of(&worker), 0);
        assert!(loads.0.lock().expect("no panic").is_empty());
    }
}
