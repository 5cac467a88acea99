//! Channels on an EVM chain: deposits cover jobs, and an [`Account`] moves them.

use super::{Balance, Holdings, Rail};
use crate::{
    settlement::{
        service::{Account, AccountError, Settings},
        tab::micro_usd,
        tabs::Tabs,
    },
    store::Store,
};
use futures::{FutureExt, future::BoxFuture};
use infernet_wire::{
    capability::CapabilityAd,
    evm::{BadAddress, EvmAddress},
    id::NodeId,
    key::NodeKey,
    money::MicroUsd,
    settle::EvmTerms,
};
use std::sync::{Arc, OnceLock};
use tokio::task::JoinHandle;

const NO_CHAIN: &str = "this node is on no EVM chain: write evm_chain, evm_contract and evm_token into config.toml, set INFERNET_EVM_RPC, \
                        and start it again";

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

fn balances(EvmTerms { token, rate, .. }: EvmTerms, coin: u128, tokens: u128) -> Vec<Balance> {
    let what = |asset: String, units, worth| Balance { asset, units, worth };
    let worth = Some(micro_usd(tokens, rate));
    if token == EvmAddress::ZERO {
        return vec![what("coin".into(), coin, worth)];
    }
    vec![what("coin".into(), coin, None), what(token.to_string(), tokens, worth)]
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

    fn holdings(&self) -> BoxFuture<'_, Option<Holdings>> {
        async {
            let account = self.account()?;
            let (state, told) = (account.state(), account.balances().await);
            let (balances, unknown) = match told {
                Ok((coin, tokens)) => (balances(account.terms(), coin, tokens), None),
                Err(why) => (Vec::new(), Some(why)),
            };
            let payout_to = account.payout_to().map(|to| to.to_string());
            let trouble = state.error.or(unknown).or(state.waits);
            Some(Holdings { address: account.address().to_string(), trouble, payout_to, balances })
        }
        .boxed()
    }

    fn pay_to(&self, address: &str) -> Result<(), String> {
        let to = address.parse().map_err(|error: BadAddress| error.to_string())?;
        self.account().ok_or(NO_CHAIN)?.set_payout_to(to);
        Ok(())
    }

    fn stop(&self) {
        if let Some((_, task)) = self.account.get() {
            task.abort();
        }
    }
}
