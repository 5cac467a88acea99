//! Receipts: kept before anyone is told, then published.
//!
//! Owns the store's receipts on behalf of both roles. A write waits for the disk without holding a thread, and shares its sync
//! with every other write of that moment.

use crate::{
    clock,
    disputes::Disputes,
    net::Net,
    store::{Put, Store, StoreError},
    today::Today,
};
use infernet_wire::{
    id::{JobId, NodeId},
    limits,
    receipt::SignedReceipt,
    topic,
};
use std::{collections::BTreeSet, sync::Arc};
use tracing::debug;

/// Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
    net: Net,
    today: Today,
    disputes: Disputes,
}

impl Ledger {
    /// Keeps receipts in `store` and publishes them through `net`. Those of any of `us` are this node's.
    pub fn new(store: Arc<dyn Store>, net: Net, us: BTreeSet<NodeId>) -> Self {
        let today = Today::new(us, clock::now());
        let disputes = Disputes::new(store.clone());
        Ledger { store, net, today, disputes }
    }

    /// Resolves when the receipt is on disk. Idempotent.
    pub async fn keep(&self, receipt: SignedReceipt) -> Result<Put, StoreError> {
        let put = self.store.keep_receipt(&receipt).await?;
        self.today.kept(&receipt, put);
        Ok(put)
    }

    /// What came of the receipts of this day.
    pub fn today(&self) -> &Today {
        &self.today
    }

    /// Whether a receipt of `worker` for `job` is kept. A look into the index's memory, cheaper than changing threads for it.
    pub fn has_receipt(&self, job: JobId, worker: NodeId) -> Result<bool, StoreError> {
        self.store.has_receipt(&job, &worker)
    }

    /// Tells the network of a receipt, in the background: nobody's job waits for it.
    pub fn publish(&self, receipt: SignedReceipt) {
        let (net, deadline) = (self.net.clone(), clock::now().after(limits::ACCEPT_TTL_MS));
        tokio::spawn(async move {
            let bytes: Arc<[u8]> = receipt.encode().into();
            if let Err(error) = net.publish(topic::RECEIPTS.into(), bytes, deadline).await {
                debug!("receipt not published: {error}");
            }
        });
    }

    /// What was not agreed on.
    pub fn disputes(&self) -> &Disputes {
        &self.disputes
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}
