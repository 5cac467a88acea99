//! Where jobs meet Solana. Every node has a desk; it is empty until a wallet is configured, and then jobs show and count tranches.

use super::{
    payee::{NotCounted, Payee},
    tranches::{NotBought, Tranches},
};
use crate::settlement::tabs::Tabs;
use infernet_wire::{
    id::NodeId,
    solana::{SolanaTerms, Tranche},
};
use std::sync::{Arc, OnceLock};

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub struct Desk {
    parts: Arc<Parts>,
}

#[derive(Default)]
struct Parts {
    bought: OnceLock<Tranches>,
    sold: OnceLock<Payee>,
}

impl Desk {
    /// Tranches are bought from now on; `false` if they were before.
    pub fn buys(&self, tranches: Tranches) -> bool {
        self.parts.bought.set(tranches).is_ok()
    }

    /// Tranches are taken from now on; `false` if they were before.
    pub fn sells(&self, payee: Payee) -> bool {
        self.parts.sold.set(payee).is_ok()
    }

    /// What was bought.
    pub fn tranches(&self) -> Result<&Tranches, NotBought> {
        self.parts.bought.get().ok_or(NotBought::NoWallet)
    }

    /// What the ad says.
    pub fn terms(&self) -> Option<SolanaTerms> {
        self.parts.sold.get().map(|payee| payee.terms)
    }

    /// What to show a worker when a job is opened with it.
    pub fn to_show(&self, worker: &NodeId) -> Option<Tranche> {
        self.parts.bought.get()?.to_show(worker)
    }

    /// The worker has opened a job with it.
    pub fn taken(&self, worker: &NodeId, tranche: &Tranche) {
        if let Some(tranches) = self.parts.bought.get() {
            tranches.taken(worker, tranche.number);
        }
    }

    /// Counts a tranche that came with a job.
    pub async fn count(&self, tabs: &Tabs, buyer: &NodeId, tranche: &Tranche) -> Result<(), NotCounted> {
        self.parts.sold.get().ok_or(NotCounted::NotTaken)?.count(tabs, buyer, tranche).await
    }
}
