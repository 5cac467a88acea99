//! Carries out what the [`Book`] decides: writes tranches before they are spent.

use super::{ALL, Book, CapError, Caps, Decision, Draw, day};
use crate::{
    buyer::ChatError,
    clock,
    report::{ChatReport, ReceiptReport},
    store::{MAX_PAGE, Page, Position, SpendRecord, Store, StoreError},
};
use infernet_wire::{id::NodeId, money::MicroUsd, receipt::SignedReceipt};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{sync::Mutex as AsyncMutex, task::spawn_blocking};

/// The caps of this node and what is spent of them. Cheap to clone.
#[derive(Clone)]
pub struct Purse {
    shared: Arc<Shared>,
}

struct Shared {
    caps: Caps,
    book: Mutex<Book>,
    store: Arc<dyn Store>,
    /// One writer at a time, so that a record never overtakes a later one.
    writing: AsyncMutex<()>,
}

/// A reservation of a running job. One that is never settled stays reserved until midnight: nobody knows what it cost.
#[derive(Debug)]
pub struct Spending {
    draw: Draw,
    purse: Purse,
}

/// What `us` have bought in jobs that started on `today`.
fn bought_on(today: u32, store: &dyn Store, us: &BTreeSet<NodeId>) -> Result<MicroUsd, StoreError> {
    let (mut bought, mut before) = (0u64, None);
    loop {
        let page = store.receipts(Page { before, limit: MAX_PAGE })?;
        for body in page.iter().map(SignedReceipt::receipt).filter(|body| us.contains(&body.buyer)) {
            let amount = if day(body.started) == today { body.amount.0 } else { 0 };
            bought = bought.saturating_add(amount);
        }
        match page.last() {
            Some(last) if day(last.receipt().finished) >= today => before = Some(Position::of(last)),
            _ => return Ok(MicroUsd(bought)),
        }
    }
}

impl std::fmt::Debug for Purse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Purse").field("caps", &self.shared.caps).finish_non_exhaustive()
    }
}

impl Purse {
    /// The purse of a node with `caps`, as the store says it was left. Jobs that any of `us` bought are its own. With a day's cap
    /// the receipts of the day are read, and their signatures checked, before it returns.
    pub fn open(caps: Caps, store: Arc<dyn Store>, us: &BTreeSet<NodeId>) -> Result<Self, CapError> {
        let today = day(clock::now());
        let records = store.spend_since(today)?;
        let bought = if caps.per_day.is_some() { bought_on(today, &*store, us)? } else { MicroUsd::default() };
        let book = Mutex::new(Book::recover(records, bought, today));
        Ok(Purse { shared: Arc::new(Shared { caps, book, store, writing: AsyncMutex::new(()) }) })
    }

    /// Reserves up to `most` for a job of the key `key`, whose own caps are `caps`; the job is one of `jobs` of its request,
    /// which share what a request may cost. `None` if no cap applies.
    pub async fn authorise(&self, key: &str, caps: Caps, most: MicroUsd, jobs: usize) -> Result<Option<Spending>, CapError> {
        let accounts = [(ALL, self.shared.caps.shared(jobs)), (key, caps.shared(jobs))];
        let accounts = if key == ALL { &accounts[..1] } else { &accounts[..] };
        if accounts.iter().all(|(_, caps)| *caps == Caps::default()) {
            return Ok(None);
        }
        if let Decision::Drawn(draw) = self.draw(accounts, most)? {
            return Ok(Some(self.spending(draw)));
        }
        let _writing = self.shared.writing.lock().await;
        loop {
            match self.draw(accounts, most)? {
                Decision::Drawn(draw) => return Ok(Some(self.spending(draw))),
                Decision::Extend(records) => self.write(records).await?,
            }
        }
    }

    /// Spent and reserved today, of everything.
    pub fn used(&self) -> (MicroUsd, MicroUsd) {
        self.book(|book| book.used(ALL))
    }

    /// Writes what was really spent, when the node stops.
    pub async fn close(&self) -> Result<(), CapError> {
        let _writing = self.shared.writing.lock().await;
        let records = self.book(|book| book.closing());
        let store = self.shared.store.clone();
        blocking(move || records.iter().try_for_each(|record| store.put_spend(record))).await
    }

    fn draw(&self, accounts: &[(&str, Caps)], most: MicroUsd) -> Result<Decision, CapError> {
        self.book(|book| book.draw(accounts, day(clock::now()), most))
    }

    fn spending(&self, draw: Draw) -> Spending {
        Spending { draw, purse: self.clone() }
    }

    async fn write(&self, records: Vec<SpendRecord>) -> Result<(), CapError> {
        for record in records {
            let (store, written) = (self.shared.store.clone(), record.clone());
            blocking(move || store.put_spend(&written)).await?;
            self.book(|book| book.extended(&record));
        }
        Ok(())
    }

    fn book<T>(&self, with: impl FnOnce(&mut Book) -> T) -> T {
        // Nothing in here panics while it holds the lock.
        with(&mut self.shared.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn blocking(write: impl FnOnce() -> Result<(), StoreError> + Send + 'static) -> Result<(), CapError> {
    let written = spawn_blocking(write).await;
    Ok(written.map_err(|error| StoreError::Interrupted(error.to_string()))??)
}

impl Spending {
    /// The most the job may cost.
    pub fn most(&self) -> MicroUsd {
        self.draw.most
    }

    /// The job has ended as `result`, and workers that gave nothing were promised `lost`. A job that broke off without a receipt counts
    /// whole: its worker may still ask for it.
    pub fn settle_as(self, result: &Result<ChatReport, ChatError>, lost: MicroUsd) {
        let most = self.most();
        let actual = match result {
            Ok(report) => report.receipt.as_ref().map(ReceiptReport::amount).unwrap_or_default(),
            Err(ChatError::Failed { failure, .. }) if failure.after_first_token => most,
            Err(_) => MicroUsd(0),
        };
        self.settle(actual, lost);
    }

    /// The job has cost `actual`, and beside that `lost`.
    pub fn settle(self, actual: MicroUsd, lost: MicroUsd) {
        self.purse.book(|book| book.settle(&self.draw, actual, lost));
    }
}
