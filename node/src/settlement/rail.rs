//! What all ways to settle have in common. The ledger, an EVM chain and Solana are each a [`Rail`]: ads, the cover of a job and the end of
//! a node go through [`Rails`], which knows them by nothing but this. A further one is a file in `rail/` and its line in [`Rails::new`].
//!
//! What they do not share is not here: channels, their steps and their ends are [`super::service`]'s, tranches [`super::solana`]'s, and
//! what is owed is the tabs', whoever settles it.

mod evm;
mod ledger;
mod solana;

pub use evm::Evm;

use super::tabs::Tabs;
use infernet_wire::{capability::CapabilityAd, envelope::Verified, id::NodeId, money::MicroUsd};
use std::sync::Arc;

/// One way to settle. Every node has all of them; what its operator has not set up covers nothing and says nothing.
pub trait Rail: Send + Sync {
    /// What it is called in commands and reports.
    fn name(&self) -> &'static str;

    /// Writes into an ad how this node is paid by it.
    fn advertise(&self, ad: &mut CapabilityAd);

    /// An ad was heard, which tells how its worker is paid.
    fn heard(&self, _ad: &Verified<CapabilityAd>) {}

    /// What another job of `buyer` may cost, paid by it.
    fn covers(&self, buyer: &NodeId) -> MicroUsd;

    /// The node stops. What was begun goes on after the next start.
    fn stop(&self) {}
}

/// All of them; cheap to clone.
#[derive(Clone)]
pub struct Rails(Arc<[Arc<dyn Rail>]>);

impl Rails {
    /// Those of the node with these tabs.
    pub fn new(tabs: &Tabs, evm: Arc<Evm>) -> Self {
        Rails([Arc::new(ledger::Ledger(tabs.clone())) as Arc<dyn Rail>, evm, Arc::new(solana::Solana(tabs.clone()))].into())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Rail> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Writes into an ad all the ways in which this node is paid.
    pub fn advertise(&self, ad: &mut CapabilityAd) {
        self.iter().for_each(|rail| rail.advertise(ad));
    }

    /// What another job of `buyer` may cost, whichever way it pays.
    pub fn covers(&self, buyer: &NodeId) -> MicroUsd {
        self.iter().map(|rail| rail.covers(buyer)).max().unwrap_or_default()
    }
}
