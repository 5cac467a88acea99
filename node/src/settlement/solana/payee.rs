//! The worker's side: a tranche that came with a job is looked up on the chain, and counted on its buyer's tab. Once: the tab keeps
//! how many were counted, in the same record as the money.
//!
//! A tranche that was counted before, or whose number is below one that was, costs nothing to see. Each other costs its buyer a slot
//! while it is looked up, so nobody can have many questions asked. Buyers leave out numbers that they have written off.

use super::{
    book::WALLETS_STEP,
    rpc::Rpc,
    transaction::{Address, Transfer, TxSignature},
    verify::{Expected, NotPaid, verify},
};
use crate::{
    settlement::{json_rpc::RpcError, tabs::Tabs},
    store::{Store, StoreError},
};
use futures::future::try_join_all;
use infernet_wire::{
    codec,
    envelope::Refusal,
    id::NodeId,
    money::MicroUsd,
    solana::{BadBinding, Coin, SolanaBinding, SolanaTerms, Tranche},
    topic::NetworkId,
};
use serde_json::Value;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::timeout;
use tracing::warn;

/// Wallets at which tranches still count after the worker has named another, since a tranche may be on its way there, or wait for a
/// job. A wallet is named anew when one is lost, and a tranche is used long before that has happened four times.
const MAX_FORMER: usize = 4;
/// What a job waits for the chain's nodes: it is before the first token.
const LOOK: Duration = Duration::from_secs(3);

/// Why a tranche is not counted.
#[derive(Debug, thiserror::Error)]
pub enum NotCounted {
    /// This worker is on no such chain.
    #[error("this worker takes no tranches on Solana; its ad would say so")]
    NotTaken,
    /// It can't be one.
    #[error("no tranche: {0}")]
    Malformed(#[from] Refusal),
    /// More than can be counted, or nothing.
    #[error("a tranche of {0} is more than can be counted, or worth nothing here")]
    Amount(MicroUsd),
    /// Paid in something else.
    #[error("this worker takes {0}: its ad says so")]
    Coin(Coin),
    /// The key that paid is not the buyer's.
    #[error(transparent)]
    Binding(#[from] BadBinding),
    /// It is not paid.
    #[error(transparent)]
    NotPaid(#[from] NotPaid),
    /// A node of the chain does not tell.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// It takes too long to tell.
    #[error("the chain did not tell within {} s whether the tranche is paid: try again soon", LOOK.as_secs())]
    Silent,
    /// It can't be kept.
    #[error("the worker's store does not answer")]
    Store(#[from] StoreError),
}

impl NotCounted {
    /// Whether the same may be counted later.
    pub fn retryable(&self) -> bool {
        match self {
            NotCounted::NotPaid(reason) => reason.retryable(),
            NotCounted::Rpc(_) | NotCounted::Silent | NotCounted::Store(_) => true,
            _ => false,
        }
    }

    /// A short stable name, for counters.
    pub fn label(&self) -> &'static str {
        match self {
            NotCounted::NotTaken => "no_solana",
            NotCounted::Malformed(_) | NotCounted::Amount(_) | NotCounted::Coin(_) => "bad_tranche",
            NotCounted::Binding(_) => "bad_binding",
            NotCounted::NotPaid(NotPaid::NotFinal) => "not_final",
            NotCounted::NotPaid(_) => "not_paid",
            NotCounted::Rpc(_) | NotCounted::Silent => "chain",
            NotCounted::Store(_) => "store",
        }
    }
}

/// Checks that `signature` pays what is expected, as **all** of `nodes` show it: a lone one could claim what never was. At the wallets
/// `others` it counts as well. Each node is asked once.
pub async fn check_paid(
    nodes: &[Rpc],
    expected: &Expected,
    others: &[Address],
    signature: TxSignature,
) -> Result<(), NotCounted> {
    let shown = shown(nodes, &signature).await?;
    let at = |to| {
        let expected = Expected { transfer: Transfer { to, ..expected.transfer }, ..*expected };
        shown.iter().try_for_each(|answer| verify(&expected, signature, answer))
    };
    let is_elsewhere = |told: &Result<(), NotPaid>| matches!(told, Err(NotPaid::Destination(_)));
    let told = at(expected.transfer.to);
    if !is_elsewhere(&told) {
        return Ok(told?);
    }
    Ok(others.iter().map(|to| at(*to)).find(|told| !is_elsewhere(told)).unwrap_or(told)?)
}

/// What each of `nodes` shows of a transaction.
async fn shown(nodes: &[Rpc], signature: &TxSignature) -> Result<Vec<Value>, RpcError> {
    let ask = async |node: &Rpc| {
        node.check_cluster().await?;
        node.transaction(signature).await
    };
    try_join_all(nodes.iter().map(ask)).await
}

/// How a worker is paid beforehand, and where it looks that up.
pub struct Payee {
    nodes: Vec<Rpc>,
    /// The worker's own wallet, at which tranches always count.
    own: SolanaBinding,
    paid: Mutex<Paid>,
    store: Arc<dyn Store>,
    network: NetworkId,
    us: NodeId,
}

struct Paid {
    terms: SolanaTerms,
    /// The newest first.
    former: Vec<Address>,
}

impl Payee {
    /// The worker `us`, which looks tranches up at `nodes`. Its ad says `terms`; they are those of its `own` wallet until
    /// [`Payee::pay_to`] says otherwise. `store` has the wallets that were named before.
    pub fn new(
        nodes: Vec<Rpc>,
        own: SolanaBinding,
        terms: SolanaTerms,
        (us, network): (NodeId, NetworkId),
        store: Arc<dyn Store>,
    ) -> Result<Self, StoreError> {
        let kept = store.steps(WALLETS_STEP)?.into_iter().next();
        let former = kept.and_then(|(_, bytes)| codec::decode(&bytes).ok()).unwrap_or_default();
        Ok(Payee { nodes, own, paid: Mutex::new(Paid { terms, former }), store, network, us })
    }

    fn paid(&self) -> MutexGuard<'_, Paid> {
        // Every change is complete before the lock is given back.
        self.paid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its ad says.
    pub fn terms(&self) -> SolanaTerms {
        self.paid().terms
    }

    /// It is paid there from now on. Kept in the background, so that a tranche counts there after a restart too.
    pub fn pay_to(&self, to: Address) {
        let own = self.own.address;
        let keeping = {
            let mut paid = self.paid();
            let before = [paid.terms.address].into_iter().chain(paid.former.iter().copied());
            let former: Vec<_> = before.filter(|before| ![to, own].contains(before)).take(MAX_FORMER).collect();
            let named: Vec<_> = [to].into_iter().chain(former.iter().copied()).filter(|named| *named != own).collect();
            paid.former = former;
            paid.terms = SolanaTerms { address: to, proof: (to == own).then_some(self.own.proof), ..paid.terms };
            self.store.keep_step(WALLETS_STEP, codec::encode(&named))
        };
        tokio::spawn(async move {
            if let Err(error) = keeping.await {
                warn!("can't keep where tranches are paid to: {error}");
            }
        });
    }

    /// Counts a tranche that `buyer` shows, if it is paid, and waits until that is on disk. What was counted before is well.
    pub async fn count(&self, tabs: &Tabs, buyer: &NodeId, tranche: &Tranche) -> Result<(), NotCounted> {
        tranche.check()?;
        if tranche.number <= tabs.sold_to(buyer)?.prepayments() {
            return Ok(());
        }
        tranche.payer.verify(&self.network, buyer)?;
        let (expected, worth) = self.expected(buyer, tranche)?;
        let others = [&self.paid().former[..], &[self.own.address]].concat();
        let looked = check_paid(&self.nodes, &expected, &others, tranche.transaction);
        timeout(LOOK, looked).await.map_err(|_| NotCounted::Silent)??;
        // Another job may have been faster: then it is counted, and not twice.
        tabs.prepay(buyer, tranche.number, worth).await?;
        Ok(())
    }

    /// What must be on the chain, and what it counts for: SOL that was paid at another rate than is asked for now, no more than it is
    /// worth now. The buyer's price may have been of the ad before, so its money is not lost.
    fn expected(&self, buyer: &NodeId, tranche: &Tranche) -> Result<(Expected, MicroUsd), NotCounted> {
        let terms = self.terms();
        let (agreed, now) = match (tranche.rate, terms.coin()) {
            (None, now @ Coin::Token { .. }) => (now, now),
            (Some(rate), now @ Coin::Sol { .. }) => (Coin::Sol { rate }, now),
            (_, now) => return Err(NotCounted::Coin(now)),
        };
        let refused = NotCounted::Amount(tranche.amount);
        let Some(amount) = agreed.units(tranche.amount) else { return Err(refused) };
        let worth = now.worth(amount).min(tranche.amount);
        if worth == MicroUsd(0) {
            return Err(refused);
        }
        let hash = tranche.hash(&self.network, buyer, &self.us).0;
        let transfer = Transfer { to: terms.address, asset: now.into(), amount, hash };
        Ok((Expected { payer: tranche.payer.address, transfer }, worth))
    }
}
