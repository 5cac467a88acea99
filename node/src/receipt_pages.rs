//! Answers peers that ask for a page of our receipts, from the store. What a receipt says is public: it was gossiped.

use crate::{
    net::receipts::Asked,
    store::{Page as StorePage, Position, Store},
};
use infernet_wire::{
    limits,
    receipt_page::{Page, PageRequest},
    topic::NetworkId,
};
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::warn;

/// Requests that wait: each takes some ten milliseconds, as the store verifies what it reads.
const WAITING: usize = 16;

/// The way from the network to whoever keeps the receipts.
pub fn channel() -> (mpsc::Sender<Asked>, mpsc::Receiver<Asked>) {
    mpsc::channel(WAITING)
}

/// Answers one after the other, so that all who ask together take one core at most.
pub async fn run(network: NetworkId, store: Arc<dyn Store>, mut asked: mpsc::Receiver<Asked>) {
    while let Some(Asked { request, reply }) = asked.recv().await {
        // Who asked may be gone by now.
        if reply.is_closed() {
            continue;
        }
        let (store, network) = (store.clone(), network.clone());
        let looked_up = tokio::task::spawn_blocking(move || page(&*store, &network, &request)).await;
        // Without an answer the network says that we are busy.
        if let Ok(Some(page)) = looked_up {
            let _ = reply.send(page);
        }
    }
}

/// The page; `None` if the store can't be read.
fn page(store: &dyn Store, network: &NetworkId, request: &PageRequest) -> Option<Page> {
    if request.network != *network {
        return Some(Page::none());
    }
    let limit = usize::from(request.limit).clamp(1, limits::MAX_PAGE_RECEIPTS);
    let before = request.before.map(|place| Position { finished: place.finished, job: place.job, worker: place.worker });
    match store.receipts(StorePage { before, limit }) {
        Ok(receipts) => Some(Page::new(&receipts, receipts.len() < limit)),
        Err(error) => {
            warn!("receipts can't be read for a peer that asks: {error}");
            None
        }
    }
}
