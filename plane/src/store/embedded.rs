//! The store that needs no set-up: one directory, one process.
//!
//! | tag | key | value |
//! |---|---|---|
//! | 1 | job ‖ worker ‖ buyer of a receipt | its position |
//! | 2 | position | the receipt as signed |
//! | 10, 11 | pubkey ‖ role; node_id | node; its pubkey |
//! | 12, 13 | pubkey ‖ nonce; until ‖ pubkey ‖ nonce | nonces |
//! | 14 | pubkey ‖ coin ‖ network | payout |
//! | 20 | job | job |
//! | 21 to 24, 29 | client, daemon, status, nothing, client ‖ status ‖ created ‖ job | jobs in order |
//! | 25, 26 | lease's end ‖ job; client ‖ idempotency key | unfinished jobs, which job |
//! | 27 | job | there while somebody wants it cancelled |
//! | 28 | job ‖ piece | a text that is kept |
//! | 30 to 49 | clients and what is theirs | see `clients` |
//! | 50 to 52 | command; node ‖ issued ‖ command; the same of those that are open | commands |
//! | 60 to 64 | deposits and payments | see `onchain` |
//!
//! Work with the disk is done on threads that may block, [`MAX_AT_ONCE`] of them at most.

mod clients;
mod commands;
mod db;
mod jobs;
mod nodes;
mod onchain;
mod receipts;

use self::db::{Change, Keep, Table};
use super::{Answer, Notice, Notices, Store, StoreError};
use futures::{FutureExt, StreamExt, stream, stream::BoxStream};
use infernet_wire::topic::NetworkId;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, broadcast};

/// Calls that are at the disk at once: enough that a sync serves many, and far fewer than the runtime has threads to block.
const MAX_AT_ONCE: usize = 128;
/// The longest that a call waits: a disk that is slower than this is broken.
const DEADLINE: Duration = Duration::from_secs(10);
/// Notices that a slow reader may be behind.
const MAX_NOTICES: usize = 1024;

/// A store in one directory.
pub struct EmbeddedStore {
    table: Arc<Table>,
    network: NetworkId,
    turns: Arc<Semaphore>,
    notices: broadcast::Sender<Notice>,
}

impl EmbeddedStore {
    /// Opens or makes the store in `directory`, for one network.
    pub fn open(directory: &Path, network: &NetworkId) -> Result<Self, StoreError> {
        let table = Arc::new(Table::open(&directory.join(format!("plane-{network}")))?);
        let turns = Arc::new(Semaphore::new(MAX_AT_ONCE));
        Ok(EmbeddedStore { table, network: network.clone(), turns, notices: broadcast::channel(MAX_NOTICES).0 })
    }

    fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Table) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'static, T> {
        let (table, turns) = (self.table.clone(), self.turns.clone());
        let work = async move {
            let turn = turns.acquire_owned().await;
            let done = tokio::task::spawn_blocking(move || {
                // Kept until the work is over, even if nobody waits for it any more.
                let _turn = turn;
                job(&table)
            });
            done.await.unwrap_or_else(|error| Err(StoreError::Unreachable(error.to_string())))
        };
        let late = StoreError::Timeout(DEADLINE.as_millis() as u64);
        async move { tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(late)) }.boxed()
    }

    fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Change<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'static, T> {
        self.read(move |table| table.write(Keep::Durably, job))
    }

    fn write_soon<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Change<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'static, T> {
        self.read(move |table| table.write(Keep::Soon, job))
    }
}

impl Store for EmbeddedStore {
    fn place(&self) -> String {
        format!("embedded store in {}", self.table.path().display())
    }

    fn ready(&self) -> Answer<'_, ()> {
        self.read(|table| table.has(&db::Key::of(0)).map(|_| ()))
    }
}

impl Notices for EmbeddedStore {
    fn notify<'a>(&'a self, notice: &'a Notice) -> Answer<'a, ()> {
        // Nobody listens: nobody is to be told.
        let _ = self.notices.send(notice.clone());
        std::future::ready(Ok(())).boxed()
    }

    fn notices(&self) -> BoxStream<'static, Notice> {
        heard(self.notices.subscribe())
    }
}

/// What is sent from now on; what a slow reader missed is left out.
pub(super) fn heard(receiver: broadcast::Receiver<Notice>) -> BoxStream<'static, Notice> {
    let next = |mut receiver: broadcast::Receiver<Notice>| async move {
        loop {
            match receiver.recv().await {
                Ok(notice) => return Some((notice, receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    };
    stream::unfold(receiver, next).boxed()
}

#[cfg(test)]
mod tests;
