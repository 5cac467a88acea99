//! What an operator says of Solana, and how a node comes to use it.

use super::{
    book::Means,
    desk::Desk,
    key::SolanaKey,
    payee::Payee,
    payment::Rules,
    rpc::{Genesis, Rpc},
    tranches::Tranches,
    wallet::{SolanaError, Wallet},
    withdrawals::Withdrawals,
};
use crate::{
    settlement::json_rpc::Endpoint,
    store::{Store, StoreError},
};
use infernet_wire::{
    id::NodeId,
    money::MicroUsd,
    solana::{Coin, SolanaAddress, SolanaTerms},
    topic::NetworkId,
};
use std::{sync::Arc, time::Duration};

/// Between two looks at a payment: five slots, which is often enough for one that takes half a minute.
pub const POLL: Duration = Duration::from_secs(2);

/// A node's account on a cluster, as its operator says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Where nodes of the cluster answer; two of two operators are what safety needs.
    pub rpc: Vec<Endpoint>,
    /// Which cluster.
    pub genesis: Genesis,
    /// What is paid in, such as USDC; with SOL, what a dollar is to a worker, and at most to a buyer.
    pub coin: Coin,
    /// What is paid at once: what a worker would like, and at most what a buyer pays that names no amount.
    pub tranche: MicroUsd,
    /// The priority fee, see [`super::transaction::Order::unit_price`].
    pub unit_price: u64,
    /// Where this worker is paid; its own key's wallet by default.
    pub payout: Option<SolanaAddress>,
    /// How patient payments are.
    pub rules: Rules,
    /// Between two looks at a payment.
    pub poll: Duration,
}

/// Why a node can't use Solana.
#[derive(Debug, thiserror::Error)]
pub enum NotUsed {
    /// The wallet or its nodes.
    #[error(transparent)]
    Solana(#[from] SolanaError),
    /// What was bought can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Account {
    /// Puts what `us` buys, and sells if it `sells`, onto its desk. Nobody is asked yet; payments that were on their way go on.
    pub fn open(
        self,
        desk: &Desk,
        key: &SolanaKey,
        (us, network): (NodeId, &NetworkId),
        store: Arc<dyn Store>,
        sells: bool,
    ) -> Result<(), NotUsed> {
        let Account { rpc, genesis, coin, tranche, unit_price, payout, rules, poll } = self;
        let nodes = rpc.into_iter().map(|endpoint| Rpc::new(endpoint, genesis)).collect::<Result<Vec<_>, _>>();
        let nodes = nodes.map_err(SolanaError::from)?;
        let wallet = Wallet::new(nodes.clone(), key.clone(), rules, poll)?;
        let binding = key.bind(network, &us);
        let means = Means { network: network.clone(), buyer: us, coin, tranche, unit_price };
        desk.withdraws(Withdrawals::start(means.clone(), wallet.clone(), store.clone())?);
        desk.buys(Tranches::start(means, binding, wallet, store.clone())?);
        if sells {
            let payee = Payee::new(nodes, binding, SolanaTerms::new(binding, coin, tranche), (us, network.clone()), store)?;
            payee.pay_to(payout.unwrap_or(binding.address));
            desk.sells(payee);
        }
        Ok(())
    }
}
