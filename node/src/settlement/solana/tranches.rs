//! The buyer's side: tranches are bought, paid in the background, and shown to their workers. Thin: [`super::book`] decides which,
//! [`super::payment`] how they are paid.

use super::{
    book::{Book, Bought, FIRST_STEP, Means, NotBegun, Step},
    payment::Payment,
    wallet::{SolanaError, Wallet},
};
use crate::store::{MAX_PAGE, Store, StoreError};
use infernet_wire::{
    id::NodeId,
    money::MicroUsd,
    solana::{BadBinding, SolanaBinding, SolanaTerms, Tranche},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tracing::{info, warn};

/// After which a payment that does not end is told of once more.
const TELL: Duration = Duration::from_secs(300);
/// After a full disk or a wrong endpoint.
const RETRY: Duration = Duration::from_secs(30);

/// Why no tranche is bought.
#[derive(Debug, thiserror::Error)]
pub enum NotBought {
    /// This node has no wallet.
    #[error("this node has no wallet on Solana: set solana_rpc and solana_mint")]
    NoWallet,
    /// The worker takes none.
    #[error("the worker takes no tranches on Solana, or its ad is not known yet")]
    NotTaken,
    /// The worker's wallet is not its own.
    #[error(transparent)]
    Binding(#[from] BadBinding),
    /// Not this one, or not now.
    #[error(transparent)]
    NotBegun(#[from] NotBegun),
    /// The wallet or the chain.
    #[error(transparent)]
    Solana(#[from] SolanaError),
    /// It can't be kept.
    #[error("can't keep the tranche, so it is not paid: {0}")]
    Store(#[from] StoreError),
}

/// A handle to all tranches that this node has bought. Cheap to clone.
#[derive(Clone)]
pub struct Tranches {
    shared: Arc<Shared>,
}

struct Shared {
    means: Means,
    binding: SolanaBinding,
    wallet: Wallet,
    store: Arc<dyn Store>,
    book: Mutex<Book>,
}

impl Tranches {
    /// What `store` has of them; their payments go on at once.
    pub fn start(means: Means, binding: SolanaBinding, wallet: Wallet, store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let book = Mutex::new(Book::recover(all_steps(&*store)?));
        let tranches = Tranches { shared: Arc::new(Shared { means, binding, wallet, store, book }) };
        let running = tranches.book().running();
        running.into_iter().for_each(|(step, bought)| tranches.pay(step, bought));
        Ok(tranches)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change is complete before the lock is given back.
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who buys, and in what.
    pub fn means(&self) -> &Means {
        &self.shared.means
    }

    /// The wallet that pays.
    pub fn wallet(&self) -> &Wallet {
        &self.shared.wallet
    }

    /// All of them, the newest of each worker.
    pub fn all(&self) -> Vec<Bought> {
        self.book().all().cloned().collect()
    }

    /// Begins to buy `amount` of a worker, whose ad says `terms`; its number. The payment goes on in the background.
    pub async fn buy(&self, worker: NodeId, terms: &SolanaTerms, amount: MicroUsd) -> Result<u64, NotBought> {
        let means = &self.shared.means;
        terms.verify(&means.network, &worker)?;
        let (_, wanted) = self.book().next(means, worker, terms, amount)?;
        self.shared.wallet.check_funds(&wanted.order).await?;
        let (begun, keeping) = {
            let mut book = self.book();
            // Another one may have been begun in the meantime.
            let (step, bought) = book.next(means, worker, terms, amount)?;
            let kept = book.put(step, bought.clone());
            ((step, bought), self.keep(kept))
        };
        let number = begun.1.number;
        keeping.await?;
        info!(worker = %worker.short(), number, %amount, "buying a tranche on Solana");
        self.pay(begun.0, begun.1);
        Ok(number)
    }

    /// What to show a worker when a job is opened with it.
    pub fn to_show(&self, worker: &NodeId) -> Option<Tranche> {
        let book = self.book();
        let (Bought { number, amount, rate, .. }, transaction) = book.to_show(worker)?;
        Some(Tranche { number: *number, amount: *amount, transaction, payer: self.shared.binding, rate: *rate })
    }

    /// The worker has opened a job with that tranche. Kept in the background: shown once more, it is not counted once more.
    pub fn taken(&self, worker: &NodeId, number: u64) {
        let Some(step) = self.book().taken(worker, number) else { return };
        let keeping = self.keep(step);
        tokio::spawn(async move {
            if let Err(error) = keeping.await {
                warn!("can't keep that a tranche was taken: {error}");
            }
        });
    }

    fn keep(&self, (number, bytes): Step) -> futures::future::BoxFuture<'static, Result<(), StoreError>> {
        self.shared.store.keep_step(number, bytes)
    }

    /// Pays it in the background, however long it takes.
    fn pay(&self, step: u64, bought: Bought) {
        let tranches = self.clone();
        tokio::spawn(async move { tranches.drive(step, bought).await });
    }

    async fn drive(&self, step: u64, bought: Bought) {
        let Bought { order, mut payment, worker, number, .. } = bought.clone();
        let keep = |payment: Payment| {
            let kept = self.book().put(step, Bought { payment, ..bought.clone() });
            let keeping = self.keep(kept);
            async move { keeping.await.map_err(|error| error.to_string()) }
        };
        loop {
            match self.shared.wallet.drive(&order, &mut payment, TELL, keep).await {
                Ok(end) => return info!(worker = %worker.short(), number, ?end, "a tranche has ended"),
                Err(SolanaError::TooLong(_)) => warn!(number, stage = ?payment.stage, "a tranche is not final yet"),
                Err(error) => {
                    warn!(number, %error, "can't pay a tranche now");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn all_steps(store: &dyn Store) -> Result<Vec<Step>, StoreError> {
    let (mut all, mut from) = (Vec::new(), FIRST_STEP);
    loop {
        let page = store.steps(from)?;
        let (last, full) = (page.last().map(|(number, _)| *number), page.len() >= MAX_PAGE);
        all.extend(page);
        match last.and_then(|last| last.checked_add(1)).filter(|_| full) {
            Some(next) => from = next,
            None => return Ok(all),
        }
    }
}
