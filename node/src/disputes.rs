//! What this buyer and its workers did not agree on, kept as evidence. A worker that breaks the protocol, or whose receipt is not what
//! happened, gets no signature; what it claims, and what it has of ours in writing, is in the journal from then on.
//!
//! A worker can cause one with each job that it is given, so there is a ring of them: the oldest make room.

use crate::{
    settlement::steps::SINGLE,
    store::{Store, StoreError},
};
use infernet_wire::{
    codec,
    id::{JobId, NodeId},
    money::MicroUsd,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::sync::Arc;
use tokio::{sync::Mutex, task::spawn_blocking};
use tracing::warn;

/// As many are kept: two megabytes at most, with the largest receipts.
pub const MAX_DISPUTES: u64 = 1_024;
/// Steps in the journal from this number on are ours.
const FIRST: u64 = SINGLE;

/// What one worker did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispute {
    /// When it showed.
    pub at: UnixMillis,
    /// In which job.
    pub job: JobId,
    /// Who.
    pub worker: NodeId,
    /// What was wrong.
    pub cause: String,
    /// Output tokens that had come.
    pub output_tokens: u32,
    /// What it was promised for the job: it may ask for that.
    pub promised: MicroUsd,
    /// The receipt that was not signed, as it came, if it came to that.
    pub receipt: Option<ByteBuf>,
}

/// A dispute with its number, from 1 on.
type Numbered = (u64, Dispute);

/// The evidence of this node. Cheap to clone.
#[derive(Clone)]
pub struct Disputes {
    store: Arc<dyn Store>,
    /// The number of the last, once it was looked for.
    last: Arc<Mutex<Option<u64>>>,
}

impl Disputes {
    /// Those of `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Disputes { store, last: Arc::default() }
    }

    /// Keeps one, and returns when it is on the disk. If it can't be kept, the log says so: the job is over in any case.
    pub async fn keep(&self, dispute: Dispute) {
        let mut last = self.last.lock().await;
        let before = match *last {
            Some(last) => Ok(last),
            None => self.read().await.map(|all| all.first().map_or(0, |(number, _)| *number)),
        };
        let kept = match before {
            Ok(before) => {
                let number = before.saturating_add(1);
                *last = Some(number);
                self.store.keep_step(FIRST + number % MAX_DISPUTES, codec::encode(&(number, dispute))).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            warn!("can't keep the evidence of a dispute: {error}");
        }
    }

    /// All that are kept, the newest first.
    pub async fn all(&self) -> Result<Vec<Dispute>, StoreError> {
        Ok(self.read().await?.into_iter().map(|(_, dispute)| dispute).collect())
    }

    async fn read(&self) -> Result<Vec<Numbered>, StoreError> {
        let store = self.store.clone();
        let read = spawn_blocking(move || all(&*store)).await;
        read.map_err(|error| StoreError::Interrupted(error.to_string()))?
    }
}

fn all(store: &dyn Store) -> Result<Vec<Numbered>, StoreError> {
    let (mut all, mut from) = (Vec::new(), FIRST);
    while from < FIRST + MAX_DISPUTES {
        let page = store.steps(from)?;
        let Some((last, _)) = page.last() else { break };
        from = last.saturating_add(1);
        let ours = page.iter().filter(|(place, _)| *place < FIRST + MAX_DISPUTES);
        all.extend(ours.filter_map(|(_, bytes)| codec::decode::<Numbered>(bytes).ok()));
    }
    all.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use infernet_wire::key::NodeKey;

    fn dispute(n: u32) -> Dispute {
        let worker = NodeKey::from_bytes(&[2; 32]).expect("a key").id();
        let (cause, receipt) = ("it counts too much".into(), Some(ByteBuf::from(vec![1, 2])));
        Dispute { at: UnixMillis(7), job: JobId([1; 16]), worker, cause, output_tokens: n, promised: MicroUsd(9), receipt }
    }

    #[tokio::test]
    async fn the_newest_are_kept_over_restarts_and_the_oldest_make_room() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let many = u32::try_from(MAX_DISPUTES).expect("small") + 3;
        for n in 1..=many {
            // A process for each.
            Disputes::new(store.clone()).keep(dispute(n)).await;
        }
        let all = Disputes::new(store).all().await.expect("read");
        assert_eq!((all.len() as u64, &all[0]), (MAX_DISPUTES, &dispute(many)));
        assert_eq!(all.last(), Some(&dispute(4)));
    }
}
