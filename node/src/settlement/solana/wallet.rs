//! The node's wallet on Solana: looks, lets [`super::payment`] decide, keeps, sends. Thin.
//!
//! Through one node of the cluster or several. **All** of them must answer before anything is decided: if those that are silent were
//! left out, who silences the honest one could hide a payment that landed, and have it made again. A payment that waits for a node
//! goes on when that node is back, or was taken out of the configuration.
//!
//! What is decided does not depend on what a node answers to a send: whether it took it, knew it or dropped it shows in the blocks.

use super::{
    key::SolanaKey,
    payment::{Attempt, Facts, Next, Payment, Rules, Stage, merged},
    rpc::Rpc,
    transaction::{Address, Asset, Order, OrderError, Transfer, token_account},
};
use crate::{clock, settlement::json_rpc::RpcError};
use futures::future::{join_all, try_join_all};
use std::{future::Future, time::Duration};
use tracing::{debug, warn};

/// Lamports that a transfer may take besides what it pays and a priority fee: an account of tokens that has to be made (2 039 280), and
/// the fee of a signature (5 000).
const FEES: u64 = 2_050_000;
/// After which a payment that does not end is told of once more.
const TELL: Duration = Duration::from_secs(300);
/// After a full disk or a wrong endpoint.
pub(super) const RETRY: Duration = Duration::from_secs(30);
/// What a wallet must hold, or nothing at all: what Solana asks for an account without data.
const RENT: u64 = 890_880;
/// Nodes of a cluster that are asked. Each look asks all of them: two of two operators are what safety needs.
pub const MAX_NODES: usize = 4;

/// Why a payment can't go on. Nothing is lost: a payment that was kept goes on later.
#[derive(Debug, thiserror::Error)]
pub enum SolanaError {
    /// A node of the cluster.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// What is to be paid makes no transaction.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// Too few or too many nodes.
    #[error("{0} nodes of the cluster are named: name 1 to {MAX_NODES}")]
    Nodes(usize),
    /// Not enough of what is to be paid.
    #[error("the wallet {wallet} has {found} of the {wanted} units of {asset} that this takes: send it some")]
    NoFunds {
        /// Whose.
        wallet: Address,
        /// In what: a mint, or SOL.
        asset: String,
        /// What is there.
        found: u64,
        /// What it takes.
        wanted: u64,
    },
    /// Too little for a wallet that does not exist yet.
    #[error(
        "{to} is empty, and Solana opens no wallet with less than {RENT} lamports, which {amount} are not: pay more at once"
    )]
    Rent {
        /// Whose.
        to: Address,
        /// What would be paid.
        amount: u64,
    },
    /// The payment could not be kept, so it was not sent.
    #[error("can't keep the payment's state, so it is not sent: {0}")]
    Keep(String),
    /// It takes longer than the caller wants to wait.
    #[error("the payment is not final within {} s; it goes on when it is driven again", .0.as_secs())]
    TooLong(Duration),
}

impl SolanaError {
    /// Whether the same may work later.
    pub fn retryable(&self) -> bool {
        match self {
            SolanaError::Rpc(error) => !matches!(error, RpcError::WrongChain { .. }),
            SolanaError::NoFunds { .. } | SolanaError::Keep(_) | SolanaError::TooLong(_) => true,
            SolanaError::Order(_) | SolanaError::Nodes(_) | SolanaError::Rent { .. } => false,
        }
    }
}

/// A wallet, its cluster and its patience. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Wallet {
    nodes: Vec<Rpc>,
    key: SolanaKey,
    rules: Rules,
    /// Between two looks at the chain.
    poll: Duration,
}

/// The most lamports that `order` may take besides what it pays.
pub(super) fn fees(order: &Order) -> u64 {
    let transfers = u64::try_from(order.transfers.len()).unwrap_or(u64::MAX);
    FEES.saturating_mul(transfers).saturating_add(order.priority_fee())
}

impl Wallet {
    /// The wallet of `key`, through all of `nodes`, which are looked at every `poll`.
    pub fn new(nodes: Vec<Rpc>, key: SolanaKey, rules: Rules, poll: Duration) -> Result<Self, SolanaError> {
        if nodes.is_empty() || nodes.len() > MAX_NODES {
            return Err(SolanaError::Nodes(nodes.len()));
        }
        Ok(Wallet { nodes, key, rules, poll })
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.key.address()
    }

    /// Checks that all nodes are of the right cluster, and that the wallet has what `order` takes, as the poorest of them tells.
    /// Otherwise nodes would refuse its transaction, and it would expire.
    pub async fn check_funds(&self, order: &Order) -> Result<(), SolanaError> {
        try_join_all(self.nodes.iter().map(Rpc::check_cluster)).await?;
        let wallet = self.address();
        let short = |asset: String, found, wanted| Err(SolanaError::NoFunds { wallet, asset, found, wanted });
        let of = |wanted: Asset| order.transfers.iter().filter(move |transfer| transfer.asset == wanted);
        let mut sol = fees(order);
        let mut assets: Vec<Asset> = order.transfers.iter().map(|transfer| transfer.asset).collect();
        assets.dedup();
        for asset in assets {
            let wanted = of(asset).fold(0, |sum: u64, transfer| sum.saturating_add(transfer.amount));
            match asset {
                Asset::Sol => {
                    sol = sol.saturating_add(wanted);
                    try_join_all(of(asset).map(|transfer| self.check_rent(transfer))).await?;
                }
                Asset::Token { mint, .. } => {
                    let found = self.tokens(&mint).await?;
                    if found < wanted {
                        return short(mint.to_string(), found, wanted);
                    }
                }
            }
        }
        let found = self.lamports().await?;
        if found < sol { short("SOL, in lamports,".into(), found, sol) } else { Ok(()) }
    }

    /// What the wallet has of a token, in its smallest unit, as the poorest node tells.
    pub async fn tokens(&self, mint: &Address) -> Result<u64, SolanaError> {
        let account = token_account(&self.address(), mint);
        let told = try_join_all(self.nodes.iter().map(|node| node.tokens(&account))).await?;
        Ok(told.into_iter().map(Option::unwrap_or_default).min().unwrap_or_default())
    }

    /// What the wallet has, in lamports, as the poorest node tells.
    pub async fn lamports(&self) -> Result<u64, SolanaError> {
        self.lamports_of(&self.address()).await
    }

    /// Checks that a wallet that is paid in SOL will have what Solana asks.
    async fn check_rent(&self, &Transfer { to, amount, .. }: &Transfer) -> Result<(), SolanaError> {
        if amount >= RENT || self.lamports_of(&to).await?.saturating_add(amount) >= RENT {
            return Ok(());
        }
        Err(SolanaError::Rent { to, amount })
    }

    async fn lamports_of(&self, wallet: &Address) -> Result<u64, SolanaError> {
        let told = try_join_all(self.nodes.iter().map(|node| node.lamports(wallet))).await?;
        Ok(told.into_iter().min().unwrap_or_default())
    }

    /// Drives the payment of `order` to its end, however long that takes, and tells of what holds it up.
    pub async fn pay<K, F>(&self, order: &Order, payment: &mut Payment, mut keep: K) -> Stage
    where
        K: FnMut(Payment) -> F,
        F: Future<Output = Result<(), String>>,
    {
        loop {
            match self.drive(order, payment, TELL, &mut keep).await {
                Ok(end) => return end,
                Err(SolanaError::TooLong(_)) => warn!(stage = ?payment.stage, "a payment is not final yet"),
                Err(error) => {
                    warn!(%error, "can't pay on Solana now");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Drives the payment of `order` to its end, or for `patience`. `keep` makes it durable; what it has not kept is not sent.
    pub async fn drive<K, F>(
        &self,
        order: &Order,
        payment: &mut Payment,
        patience: Duration,
        mut keep: K,
    ) -> Result<Stage, SolanaError>
    where
        K: FnMut(Payment) -> F,
        F: Future<Output = Result<(), String>>,
    {
        let end = clock::deadline(patience);
        loop {
            match self.advance(order, payment, &mut keep).await {
                Ok(Next::Done) => return Ok(payment.stage.clone()),
                Ok(_) => {}
                // The node may be back soon.
                Err(SolanaError::Rpc(error)) if !matches!(error, RpcError::WrongChain { .. }) => {
                    warn!(%error, "can't look at Solana, so the payment waits")
                }
                Err(error) => return Err(error),
            }
            if clock::deadline(self.poll) >= end {
                return Err(SolanaError::TooLong(patience));
            }
            tokio::time::sleep(self.poll).await;
        }
    }

    /// One look, one decision, and what follows from it.
    pub async fn advance<K, F>(&self, order: &Order, payment: &mut Payment, keep: &mut K) -> Result<Next, SolanaError>
    where
        K: FnMut(Payment) -> F,
        F: Future<Output = Result<(), String>>,
    {
        let facts = self.look(payment).await?;
        let before = payment.stage.clone();
        let next = payment.decide(&facts, &self.rules, clock::now());
        match next {
            Next::Sign(recent) => {
                let signed = order.sign(&self.key, &recent.blockhash)?;
                let (signature, raw) = (signed.signature, signed.raw);
                let (at, unsigned) = (clock::now(), payment.clone());
                payment.signed(Attempt { signature, blockhash: recent.blockhash, last_valid: recent.last_valid, at, raw });
                if let Err(why) = keep(payment.clone()).await {
                    // Else it would be sent the next time round: what is not kept is as if it was not signed.
                    *payment = unsigned;
                    return Err(SolanaError::Keep(why));
                }
                self.send(payment).await;
            }
            Next::Send => self.send(payment).await,
            Next::Implausible => warn!("a node of Solana shows a blockhash that can't be one: the payment waits"),
            Next::Wait | Next::Done => {}
        }
        if payment.stage != before {
            keep(payment.clone()).await.map_err(SolanaError::Keep)?;
        }
        Ok(next)
    }

    async fn look(&self, payment: &Payment) -> Result<Facts, SolanaError> {
        let attempts: Vec<_> = payment.attempts.iter().map(|attempt| attempt.signature).collect();
        let all = try_join_all(self.nodes.iter().map(|node| node.facts(&attempts))).await?;
        merged(&all).ok_or(SolanaError::Nodes(0))
    }

    /// Sends the newest attempt to all nodes. A refusal decides nothing.
    async fn send(&self, payment: &mut Payment) {
        let Some(attempt) = payment.attempts.last() else { return };
        let sent = join_all(self.nodes.iter().map(|node| node.send(&attempt.raw))).await;
        for error in sent.into_iter().filter_map(Result::err) {
            debug!(signature = %attempt.signature, %error, "a transaction was not taken");
        }
        payment.sent(clock::now());
    }
}
