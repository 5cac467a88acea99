//! The buyer's side: tranches are bought, paid in the background, and shown to their workers. Thin: [`super::book`] decides which,
//! [`super::payment`] how they are paid.

use super::{
    book::{self, Begun, Book, Bought, FIRST_STEP, Means, NotBegun, NotDropped, Step, Wanted},
    payment::Payment,
    transaction::Order,
    wallet::{RETRY, SolanaError, Wallet},
};
use crate::store::{MAX_PAGE, Store, StoreError};
use futures::future::try_join_all;
use infernet_wire::{
    id::NodeId,
    solana::{BadBinding, SolanaBinding, Tranche},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::{Instrument, info, info_span, warn};

/// Workers that are paid at once: some seven transactions, which land within the same half minute.
pub const MAX_AT_ONCE: usize = 32;

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
    /// It is not written off.
    #[error(transparent)]
    NotDropped(#[from] NotDropped),
    /// It is written off only until the next start.
    #[error("can't keep that the tranche is written off, so it is shown again after a restart: {0}")]
    Forgets(StoreError),
    /// The wallet or the chain.
    #[error(transparent)]
    Solana(#[from] SolanaError),
    /// It can't be kept.
    #[error("can't keep the tranche, so it is not paid: {0}")]
    Store(#[from] StoreError),
    /// Of one worker among several, and so of none.
    #[error("nothing is bought, for of {worker}: {why}")]
    Among {
        /// Which.
        worker: NodeId,
        /// Why.
        why: Box<NotBought>,
    },
    /// Too many.
    #[error("tranches of {0} workers at once: name {MAX_AT_ONCE} at most")]
    TooMany(usize),
}

impl NotBought {
    /// Of `worker`, one of so many.
    pub(super) fn among(self, worker: NodeId, of: usize) -> Self {
        if of == 1 { self } else { NotBought::Among { worker, why: Box::new(self) } }
    }
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
    /// What `store` has of them; payments that were signed go on at once, others are given up.
    pub fn start(means: Means, binding: SolanaBinding, wallet: Wallet, store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let book = Mutex::new(Book::recover((&means.network, &means.buyer), all_steps(&*store)?));
        let tranches = Tranches { shared: Arc::new(Shared { means, binding, wallet, store, book }) };
        let running = tranches.book().running();
        running.into_iter().for_each(|batch| tranches.pay(batch));
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

    /// Begins to buy tranches, all or none; their numbers. The payments go on in the background, as few as they fit into, and after a
    /// restart too, if they were signed by then.
    pub async fn buy(&self, wanted: &[Wanted]) -> Result<Vec<u64>, NotBought> {
        if wanted.len() > MAX_AT_ONCE {
            return Err(NotBought::TooMany(wanted.len()));
        }
        let Shared { means, wallet, .. } = &*self.shared;
        let among = |worker, why: NotBought| why.among(worker, wanted.len());
        for Wanted { worker, terms, .. } in wanted {
            terms.verify(&means.network, worker).map_err(|why| among(*worker, why.into()))?;
        }
        let next = |book: &Book| book.next(means, wanted).map_err(|(worker, why)| among(worker, why.into()));
        let transfers = next(&self.book())?.iter().flat_map(|(_, bought)| bought.order.transfers.clone()).collect();
        wallet.check_funds(&Order { transfers, unit_price: means.unit_price }).await?;
        let (batches, keeping) = {
            let mut book = self.book();
            // Others may have been begun in the meantime.
            let batches = book::together(next(&book)?, |order| order.fits(&wallet.address()));
            let kept = batches.iter().flatten().map(|(step, bought)| book.put(*step, bought.clone()));
            let keeping: Vec<_> = kept.map(|step| self.keep(step)).collect();
            (batches, keeping)
        };
        if let Err(error) = try_join_all(keeping).await {
            batches.into_iter().flatten().for_each(|(step, bought)| self.book().give_up(step, bought));
            return Err(error.into());
        }
        let numbers = batches.iter().flatten().map(|(_, bought)| bought.number).collect();
        for (_, Bought { worker, number, amount, .. }) in batches.iter().flatten() {
            info!(worker = %worker.short(), number, %amount, "buying a tranche on Solana");
        }
        batches.into_iter().for_each(|batch| self.pay(batch));
        Ok(numbers)
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

    /// Writes off a tranche that its worker refuses for good, see [`Book::write_off`], and waits until that is on disk.
    pub async fn write_off(&self, worker: &NodeId, number: u64) -> Result<(), NotBought> {
        let step = self.book().write_off(worker, number)?;
        warn!(worker = %worker.short(), number, "a tranche is written off");
        self.keep(step).await.map_err(NotBought::Forgets)
    }

    fn keep(&self, (number, bytes): Step) -> futures::future::BoxFuture<'static, Result<(), StoreError>> {
        self.shared.store.keep_step(number, bytes)
    }

    /// Pays them in the background, with one transaction, however long it takes.
    fn pay(&self, batch: Vec<Begun>) {
        let tranches = self.clone();
        tokio::spawn(async move { tranches.drive(&batch).await });
    }

    async fn drive(&self, batch: &[Begun]) {
        let Some((_, Bought { order, worker, number, .. })) = batch.first() else { return };
        let (mut payment, span) =
            (book::payment_of(batch), info_span!("tranche", worker = %worker.short(), number, of = batch.len()));
        let keep = |payment: Payment| {
            let kept: Vec<Step> = {
                let mut book = self.book();
                let put = |(step, bought): &Begun| book.put(*step, Bought { payment: payment.clone(), ..bought.clone() });
                batch.iter().map(put).collect()
            };
            let keeping: Vec<_> = kept.into_iter().map(|step| self.keep(step)).collect();
            // All of them: see the book.
            async move { try_join_all(keeping).await.map(drop).map_err(|error| error.to_string()) }
        };
        let driving = async {
            // After a crash copies may differ; what one alone has must not be sent.
            while batch.iter().any(|(_, bought)| bought.payment != payment)
                && let Err(error) = keep(payment.clone()).await
            {
                warn!(%error, "can't keep a tranche, so it waits");
                tokio::time::sleep(RETRY).await;
            }
            let end = self.shared.wallet.pay(order, &mut payment, keep).await;
            info!(?end, "a tranche has ended");
        };
        driving.instrument(span).await;
    }
}

/// All of them, as the journal has them.
pub fn all_steps(store: &dyn Store) -> Result<Vec<Step>, StoreError> {
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
