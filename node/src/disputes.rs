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
    limits,
    money::MicroUsd,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::{sync::Mutex, task::spawn_blocking};
use tracing::warn;

/// As many are kept: six megabytes at most, with the largest receipts.
pub const MAX_DISPUTES: u64 = 1_024;
/// The largest statement of a worker that is kept, in bytes: a receipt and its envelope. More is none.
pub const MAX_CLAIM_BYTES: usize = limits::MAX_RECEIPT_BYTES + 512;
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
    /// The receipt that was not signed, as it came, in hex, if it came to that and may be one. As text, since the journal looks for its
    /// records by bytes that no text has: a worker's own bytes must not be among ours.
    pub receipt: Option<String>,
}

/// A worker's statement as it is kept.
pub fn claim(bytes: &[u8]) -> Option<String> {
    (bytes.len() <= MAX_CLAIM_BYTES).then(|| hex::encode(bytes))
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
    use crate::store::{self, MemoryStore};
    use infernet_wire::{key::NodeKey, topic::NetworkId};
    use std::path::Path;

    fn dispute(n: u32) -> Dispute {
        let worker = NodeKey::from_bytes(&[2; 32]).expect("a key").id();
        let (cause, receipt) = ("it counts too much".into(), claim(&[1, 2]));
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

    const STEP: &[u8] = b"a step of the worker's";

    fn holds(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    /// Else a worker could write steps of its own into a buyer's journal.
    #[tokio::test]
    async fn what_a_worker_claims_is_never_read_as_a_record() {
        let (home, network) = (tempfile::tempdir().expect("a folder"), NetworkId::default());
        let place = home.path().join("journal-main");
        // A real record, as it stands in another journal of the same network.
        let other = tempfile::tempdir().expect("a folder");
        let store = store::open(other.path(), &network).expect("opens");
        store.put_step(77, STEP.to_vec()).expect("kept");
        drop(store);
        let read = |folder: &Path| -> Vec<u8> {
            let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
            files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).expect("readable")).collect()
        };
        let forged = read(&other.path().join("journal-main"));
        let at = forged.windows(STEP.len()).position(|window| window == STEP).expect("the step");
        let forged = &forged[at.saturating_sub(64)..at + STEP.len() + 16];
        let store = store::open(home.path(), &network).expect("opens");
        let told = Dispute { receipt: claim(forged), ..dispute(1) };
        Disputes::new(store.clone()).keep(told.clone()).await;
        assert_eq!(claim(&[0; MAX_CLAIM_BYTES + 1]), None);
        assert!(store.put_step(78, vec![0; 70_000]).is_err(), "what could not be read again is not written");
        drop(store);
        // Whatever is damaged before it: nothing in it looks like a record.
        let whole = read(&place);
        assert!(holds(&whole, b"it counts too much") && !holds(&whole, STEP));
        let again = store::open(home.path(), &network).expect("opens");
        assert_eq!(again.steps(77).expect("read").into_iter().filter(|(number, _)| *number < SINGLE).count(), 0);
        assert_eq!(Disputes::new(again).all().await.expect("read"), [told]);
    }
}
