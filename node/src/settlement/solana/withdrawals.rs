//! Money that leaves the node's wallet for another, one withdrawal at a time. Thin: [`super::payment`] decides. Its newest is one step in
//! the journal, so the journal does not grow with them; what was not signed when the process ended is given up, as with tranches.

use super::{
    book::{Means, WITHDRAWAL_STEP},
    payment::{Payment, Stage},
    transaction::{Address, Asset, Order, Transfer},
    wallet::{self, SolanaError, Wallet},
};
use crate::{
    clock,
    store::{Store, StoreError},
};
use infernet_wire::{codec, hash, money::MicroUsd, solana::Coin, time::UnixMillis};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Mutex as AsyncMutex;
use tracing::{info, warn};

/// A withdrawal, from the wish to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// Its number, from 1 on.
    pub number: u64,
    /// Since when it is wanted.
    pub since: UnixMillis,
    /// What it does.
    pub order: Order,
    /// How far it is.
    pub payment: Payment,
}

impl Withdrawal {
    /// How far it is, in a word as steps on other chains have it.
    pub fn word(&self) -> &'static str {
        match &self.payment.stage {
            Stage::Prepared | Stage::Signed => "prepared",
            Stage::Sent { .. } => "sent",
            Stage::Landed { .. } => "acknowledged",
            Stage::Finalized { .. } => "settled",
            Stage::Failed { .. } | Stage::GivenUp => "failed",
        }
    }

    /// Why it failed.
    pub fn reason(&self) -> Option<String> {
        match &self.payment.stage {
            Stage::Failed { reason, .. } => Some(reason.clone()),
            Stage::GivenUp => Some("none of its transactions was taken in time, and none ever will be: say it again".into()),
            _ => None,
        }
    }

    /// After a restart.
    fn recovered(self) -> Self {
        if self.payment.is_done() || !self.payment.attempts.is_empty() {
            return self;
        }
        Withdrawal { payment: Payment { stage: Stage::GivenUp, ..self.payment }, ..self }
    }
}

/// Why nothing is withdrawn. Nothing has begun.
#[derive(Debug, thiserror::Error)]
pub enum NotWithdrawn {
    /// One is under way.
    #[error("withdrawal {0} is under way: wait for its end (`infernet payout list` shows it)")]
    Open(u64),
    /// To whom?
    #[error("{0} is this node's own wallet: name another")]
    Own(Address),
    /// No key can be had for it.
    #[error("{0} is of a program's account, such as one that holds a wallet's tokens: name the wallet")]
    NoWallet(Address),
    /// SOL beside a token.
    #[error("what a SOL is worth is not known here, where `solana_mint` is a token: say all")]
    NoPrice,
    /// Nothing, or more than can be.
    #[error("{0} can't be sent")]
    Amount(MicroUsd),
    /// Nothing is there.
    #[error("there is nothing to send, beside what the fees may take")]
    Nothing,
    /// The wallet or the chain.
    #[error(transparent)]
    Solana(#[from] SolanaError),
    /// It can't be kept.
    #[error("can't keep the withdrawal, so nothing is sent: {0}")]
    Store(#[from] StoreError),
}

/// A handle to the withdrawals of this node's wallet. Cheap to clone.
#[derive(Clone)]
pub struct Withdrawals {
    shared: Arc<Shared>,
}

struct Shared {
    means: Means,
    wallet: Wallet,
    store: Arc<dyn Store>,
    newest: Mutex<Option<Withdrawal>>,
    /// Two at once are not begun.
    beginning: AsyncMutex<()>,
}

impl Withdrawals {
    /// What `store` has of them; one that was signed goes on at once.
    pub fn start(means: Means, wallet: Wallet, store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let kept = store.steps(WITHDRAWAL_STEP)?.into_iter().find(|(number, _)| *number == WITHDRAWAL_STEP);
        let newest = kept.and_then(|(_, bytes)| codec::decode::<Withdrawal>(&bytes).ok()).map(Withdrawal::recovered);
        let running = newest.clone().filter(|newest| !newest.payment.is_done());
        let shared = Shared { means, wallet, store, newest: Mutex::new(newest), beginning: AsyncMutex::default() };
        let withdrawals = Withdrawals { shared: Arc::new(shared) };
        running.into_iter().for_each(|running| withdrawals.pay(running));
        Ok(withdrawals)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Withdrawal>> {
        // Every change is complete before the lock is given back.
        self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest.
    pub fn newest(&self) -> Option<Withdrawal> {
        self.lock().clone()
    }

    /// Begins to send `amount`, or all that is there, to the wallet `to`: of the token that tranches are paid in, or of SOL if it is
    /// that, or if `sol`. It goes on in the background, and after a restart too, if it was signed by then.
    pub async fn withdraw(&self, to: Address, amount: Option<MicroUsd>, sol: bool) -> Result<Withdrawal, NotWithdrawn> {
        let Shared { means, wallet, .. } = &*self.shared;
        let _beginning = self.shared.beginning.lock().await;
        let last = self.newest();
        if let Some(open) = last.as_ref().filter(|last| !last.payment.is_done()) {
            return Err(NotWithdrawn::Open(open.number));
        }
        if to == wallet.address() {
            return Err(NotWithdrawn::Own(to));
        }
        if !to.is_wallet() {
            return Err(NotWithdrawn::NoWallet(to));
        }
        let (asset, units) = match (means.coin, amount) {
            (Coin::Token { .. }, Some(_)) if sol => return Err(NotWithdrawn::NoPrice),
            (coin, Some(amount)) => {
                let units = coin.units(amount).filter(|units| *units > 0).ok_or(NotWithdrawn::Amount(amount))?;
                (Asset::from(coin), units)
            }
            (Coin::Token { mint, decimals }, None) if !sol => (Asset::Token { mint, decimals }, wallet.tokens(&mint).await?),
            (_, None) => (Asset::Sol, wallet.lamports().await?),
        };
        let (number, since) = (last.map_or(1, |last| last.number.saturating_add(1)), clock::now());
        let said = [means.buyer.as_ref(), &number.to_be_bytes(), &since.0.to_be_bytes()];
        let hash = hash::tagged("infernet/withdrawal/1", &said).0;
        let order = |amount| Order { transfers: vec![Transfer { to, asset, amount, hash }], unit_price: means.unit_price };
        let spared = if amount.is_none() && asset == Asset::Sol { wallet::fees(&order(units)) } else { 0 };
        let order = order(units.checked_sub(spared).filter(|units| *units > 0).ok_or(NotWithdrawn::Nothing)?);
        wallet.check_funds(&order).await?;
        let wanted = Withdrawal { number, since, order, payment: Payment::default() };
        self.shared.store.keep_step(WITHDRAWAL_STEP, codec::encode(&wanted)).await?;
        *self.lock() = Some(wanted.clone());
        info!(number, %to, units, "withdrawing on Solana");
        self.pay(wanted.clone());
        Ok(wanted)
    }

    /// Pays it in the background, however long it takes.
    fn pay(&self, withdrawal: Withdrawal) {
        let withdrawals = self.clone();
        tokio::spawn(async move {
            let Withdrawal { number, order, mut payment, .. } = withdrawal.clone();
            let keep = |payment: Payment| {
                let kept = Withdrawal { payment, ..withdrawal.clone() };
                *withdrawals.lock() = Some(kept.clone());
                let keeping = withdrawals.shared.store.keep_step(WITHDRAWAL_STEP, codec::encode(&kept));
                async move { keeping.await.map_err(|error| error.to_string()) }
            };
            match withdrawals.shared.wallet.pay(&order, &mut payment, keep).await {
                Stage::Finalized { .. } => info!(number, "a withdrawal is final"),
                end => warn!(number, ?end, "a withdrawal has failed"),
            }
        });
    }
}
