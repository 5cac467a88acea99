//! Channels on an EVM chain: deposits cover jobs, and an [`Account`] moves them.

use super::Rail;
use crate::{
    settlement::{
        service::{Account, AccountError, Settings},
        tabs::Tabs,
    },
    store::Store,
};
use infernet_wire::{capability::CapabilityAd, id::NodeId, key::NodeKey, money::MicroUsd};
use std::sync::{Arc, OnceLock};
use tokio::task::JoinHandle;

/// The channels of a node, and its account if it has one.
pub struct Evm {
    tabs: Tabs,
    account: OnceLock<(Account, JoinHandle<()>)>,
}

impl Evm {
    /// On no chain yet.
    pub fn new(tabs: Tabs) -> Self {
        Evm { tabs, account: OnceLock::new() }
    }

    /// Settles there from now on, with `key`. The first call counts.
    pub fn settle(&self, settings: Settings, key: NodeKey, store: Arc<dyn Store>) -> Result<(), AccountError> {
        let spawned = Account::spawn(settings, key, store, self.tabs.clone())?;
        if let Err((_, second)) = self.account.set(spawned) {
            second.abort();
        }
        Ok(())
    }

    /// The account.
    pub fn account(&self) -> Option<&Account> {
        self.account.get().map(|(account, _)| account)
    }
}

impl Rail for Evm {
    fn name(&self) -> &'static str {
        "evm"
    }

    fn advertise(&self, ad: &mut CapabilityAd) {
        ad.evm.extend(self.tabs.channels().means());
    }

    fn covers(&self, buyer: &NodeId) -> MicroUsd {
        self.tabs.deposit_left(buyer)
    }

    fn stop(&self) {
        if let Some((_, task)) = self.account.get() {
            task.abort();
        }
    }
}
