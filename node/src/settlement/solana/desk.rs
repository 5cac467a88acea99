//! Where jobs meet Solana. Every node has a desk; it is empty until a wallet is configured, and then jobs show and count tranches.

use super::{
    book::Wanted,
    payee::{NotCounted, Payee},
    tranches::{NotBought, Tranches},
    withdrawals::Withdrawals,
};
use crate::settlement::tabs::Tabs;
use infernet_wire::{
    id::NodeId,
    money::MicroUsd,
    solana::{SolanaAddress, SolanaTerms, Tranche},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// Workers whose terms are known: more than anybody buys of. One takes some two hundred bytes.
const MAX_HEARD: usize = 4_096;

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub struct Desk {
    parts: Arc<Parts>,
}

#[derive(Default)]
struct Parts {
    bought: OnceLock<Tranches>,
    sold: OnceLock<Payee>,
    withdrawn: OnceLock<Withdrawals>,
    /// What workers' newest ads say.
    heard: Mutex<BTreeMap<NodeId, SolanaTerms>>,
}

impl Desk {
    /// Tranches are bought from now on; `false` if they were before.
    pub fn buys(&self, tranches: Tranches) -> bool {
        self.parts.bought.set(tranches).is_ok()
    }

    /// Money can be sent elsewhere from now on; `false` if it could before.
    pub fn withdraws(&self, withdrawals: Withdrawals) -> bool {
        self.parts.withdrawn.set(withdrawals).is_ok()
    }

    /// What was sent elsewhere; `None` without a wallet.
    pub fn withdrawals(&self) -> Option<&Withdrawals> {
        self.parts.withdrawn.get()
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
        self.parts.sold.get().map(Payee::terms)
    }

    /// This worker is paid there from now on; `false` if it takes no tranches.
    pub fn pay_to(&self, to: SolanaAddress) -> bool {
        self.parts.sold.get().map(|payee| payee.pay_to(to)).is_some()
    }

    /// A worker's ad was heard. Of interest to those who buy.
    pub fn heard(&self, worker: NodeId, terms: Option<SolanaTerms>) {
        if self.parts.bought.get().is_none() {
            return;
        }
        let mut heard = self.parts.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match terms {
            Some(terms) if heard.len() < MAX_HEARD || heard.contains_key(&worker) => drop(heard.insert(worker, terms)),
            Some(_) => {}
            None => drop(heard.remove(&worker)),
        }
    }

    /// How a worker wants to be paid, as its newest ad says.
    pub fn terms_of(&self, worker: &NodeId) -> Option<SolanaTerms> {
        self.parts.heard.lock().unwrap_or_else(PoisonError::into_inner).get(worker).copied()
    }

    /// Begins to buy a tranche of a worker; its number. Without an amount it is as large as the worker would like,
    /// up to our own.
    pub async fn buy(&self, worker: NodeId, amount: Option<MicroUsd>) -> Result<u64, NotBought> {
        let numbers = self.buy_of(&[worker], amount).await?;
        Ok(numbers.first().copied().unwrap_or_default())
    }

    /// The same of several workers, all or none, in as few transactions as they fit into; who is named twice counts once.
    pub async fn buy_of(&self, workers: &[NodeId], amount: Option<MicroUsd>) -> Result<Vec<u64>, NotBought> {
        let tranches = self.tranches()?;
        let workers: BTreeSet<NodeId> = workers.iter().copied().collect();
        let mut wanted = Vec::new();
        for worker in &workers {
            let among = |why: NotBought| why.among(*worker, workers.len());
            let terms = self.terms_of(worker).ok_or(NotBought::NotTaken).map_err(among)?;
            let amount = amount.map_or_else(|| tranches.means().unasked(&terms), Ok).map_err(|why| among(why.into()))?;
            wanted.push(Wanted { worker: *worker, terms, amount });
        }
        tranches.buy(&wanted).await
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
