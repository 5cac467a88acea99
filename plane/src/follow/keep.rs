//! Receipts on their way into the store: some at once, so that they share its syncs, and a bounded queue before them.

use super::Tally;
use crate::store::{Store, StoreError};
use futures::{Stream, StreamExt, stream};
use infernet_wire::receipt::SignedReceipt;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tracing::warn;

/// Receipts that wait: some seconds of all that gossip lets through, in 20 MB at most.
const WAITING: usize = 4_096;
/// Receipts that are being written.
const AT_ONCE: usize = 32;
/// How often one is tried, each time after twice as long: a minute in all.
const TRIES: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Puts receipts into the store. Cheap to clone.
#[derive(Clone)]
pub(super) struct Keeper {
    queue: mpsc::Sender<SignedReceipt>,
    tally: Tally,
    under_way: Arc<AtomicUsize>,
    done: Arc<Notify>,
}

impl Keeper {
    pub(super) fn start(store: Arc<dyn Store>, tally: Tally) -> Self {
        let (queue, receipts) = mpsc::channel(WAITING);
        let keeper = Keeper { queue, tally, under_way: Arc::default(), done: Arc::default() };
        let (tally, under_way, done) = (keeper.tally.clone(), keeper.under_way.clone(), keeper.done.clone());
        tokio::spawn(receive(receipts).for_each_concurrent(AT_ONCE, move |receipt| {
            let (store, tally, under_way, done) = (store.clone(), tally.clone(), under_way.clone(), done.clone());
            async move {
                put(&*store, &receipt, &tally).await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                done.notify_waiters();
            }
        }));
        keeper
    }

    /// Takes a receipt, if there is room.
    pub(super) fn keep(&self, receipt: SignedReceipt) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        if self.queue.try_send(receipt).is_err() {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            self.tally.lost();
        }
    }

    /// Resolves when nothing is on its way.
    pub(super) async fn idle(&self) {
        loop {
            let done = self.done.notified();
            tokio::pin!(done);
            // Before the look, so that no end between them is missed.
            done.as_mut().enable();
            if self.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
            done.await;
        }
    }
}

async fn put(store: &dyn Store, receipt: &SignedReceipt, tally: &Tally) {
    let mut pause = FIRST_PAUSE;
    for attempt in 1..=TRIES {
        let error = match store.put_receipt(receipt).await {
            Ok(_) => return tally.kept(),
            Err(error) => error,
        };
        let may_work = matches!(error, StoreError::Unreachable(_) | StoreError::Timeout(_));
        if !may_work || attempt == TRIES {
            warn!("a receipt was not written: {error}");
            return tally.lost();
        }
        sleep(pause).await;
        pause *= 2;
    }
}

/// A receiver as a stream.
fn receive<T>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) })
}
