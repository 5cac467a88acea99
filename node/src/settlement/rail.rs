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
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use infernet_wire::{capability::CapabilityAd, envelope::Verified, id::NodeId, money::MicroUsd};
use std::{future::ready, sync::Arc, time::Duration};

/// For all questions about an account.
pub(super) const REPORT: Duration = Duration::from_secs(5);

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

    /// The node's account there, if it has one. Within five seconds, whatever the chain's node does.
    fn holdings(&self) -> BoxFuture<'_, Option<Holdings>> {
        ready(None).boxed()
    }

    /// What it earns goes to this address from now on; why not, if it can't.
    fn pay_to(&self, _address: &str) -> Result<(), String> {
        Err(format!("{} pays to no address: name evm or solana", self.name()))
    }

    /// The node stops. What was begun goes on after the next start.
    fn stop(&self) {}
}

/// An account on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// Its address.
    pub address: String,
    /// Why it can't be used now.
    pub trouble: Option<String>,
    /// Where what it earns goes; `None`: it stays.
    pub payout_to: Option<String>,
    /// First what fees are paid in, then what jobs are paid in, if that is something else; nothing if the chain's node does not tell.
    pub balances: Vec<Balance>,
}

/// What an account has of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// Of what: a token's address, or the coin's name.
    pub asset: String,
    /// How much, in its smallest unit.
    pub units: u128,
    /// What that is worth, if jobs are paid in it.
    pub worth: Option<MicroUsd>,
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

    /// The accounts that there are, by their rail.
    pub async fn holdings(&self) -> Vec<(&'static str, Holdings)> {
        let asked = self.iter().map(|rail| async { Some((rail.name(), rail.holdings().await?)) });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// The one of that name.
    pub fn named(&self, name: &str) -> Option<&dyn Rail> {
        self.iter().find(|rail| rail.name() == name)
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
