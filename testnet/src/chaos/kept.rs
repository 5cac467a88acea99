//! What nodes keep: asked of those that run, and read from the disks of those that have ended.

use super::{
    books::{Book, Entry, Sold},
    plan::Who,
};
use crate::{bench::BenchError, cluster::NETWORK};
use infernet_node::{
    control::{client::Client, schema::ReceiptRows},
    identity,
    settlement::{
        steps::{self, CHANNELS, Purpose},
        tab::{PayeeTab, PayerTab},
        tabs,
    },
    store::{self, Page, Position, Side, Store, StoreError, TabOf},
};
use infernet_wire::{
    codec,
    id::{ChannelId, Hash, NodeId},
    receipt::{JobStatus, SignedReceipt},
    topic::NetworkId,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

fn network() -> NetworkId {
    NETWORK.parse().unwrap_or_default()
}

/// What the running nodes have in receipts that both signed, in micro-USD by digest.
pub(crate) async fn settled(homes: &BTreeMap<Who, PathBuf>) -> Result<BTreeMap<Hash, u64>, BenchError> {
    let (network, mut settled) = (network(), BTreeMap::new());
    for (who, home) in homes {
        let gone = |why: String| BenchError::Options(format!("{who:?} does not tell its receipts: {why}"));
        let node = Client::connect(home).ok_or_else(|| gone("it does not run".into()))?;
        let mut before = String::new();
        loop {
            let path = format!("receipts?limit={}{before}", store::MAX_PAGE);
            let page: ReceiptRows = node.get(&path).await.map_err(|error| gone(error.to_string()))?;
            let read = |row: &String| SignedReceipt::decode_stored(&hex::decode(row).ok()?, &network).ok();
            let page: Vec<SignedReceipt> = page.rows.iter().filter_map(read).collect();
            let Some(last) = page.last() else { break };
            before = format!("&before={}", Position::of(last));
            let both = page.iter().filter(|signed| signed.countersign().is_some());
            settled.extend(both.map(|signed| (signed.receipt().digest(), signed.receipt().amount.0)));
        }
    }
    Ok(settled)
}

/// The books of everybody, who must have ended.
pub(crate) fn read_all(homes: &BTreeMap<Who, PathBuf>) -> Result<BTreeMap<Who, Book>, BenchError> {
    homes.iter().map(|(who, home)| Ok((*who, read_one(*who, home)?))).collect()
}

/// The book of one, likewise.
pub(crate) fn read_one(who: Who, home: &Path) -> Result<Book, BenchError> {
    read(home).map_err(|error| unreadable(who, &error))
}

/// Steps on a chain that have not ended, of one that has.
pub(crate) fn open_steps(who: Who, home: &Path) -> Result<usize, BenchError> {
    let mut book = Book::default();
    let read = store::open(home, &network()).and_then(|store| read_steps(&*store, &mut book));
    read.map(|()| book.open_steps).map_err(|error| unreadable(who, &error))
}

fn unreadable(who: Who, error: &StoreError) -> BenchError {
    BenchError::Options(format!("can't read the books of {who:?}: {error}"))
}

fn read(home: &Path) -> Result<Book, StoreError> {
    let store = store::open(home, &network())?;
    let (mut entries, mut page) = (Vec::new(), Page::newest(store::MAX_PAGE));
    loop {
        let receipts = store.receipts(page)?;
        entries.extend(receipts.iter().map(entry));
        match receipts.last() {
            Some(last) => page.before = Some(Position::of(last)),
            None => break,
        }
    }
    let id = identity::public(home).ok().map(|(id, _)| id);
    let mut book = Book { id, entries, unreadable: store.counts()?.unreadable, ..Book::default() };
    if let Some(me) = &id {
        let ledgers = tabs::all_kept(&*store, &[*me])?;
        book.vouchers = ledgers.into_iter().map(|(buyer, tab)| (buyer, micro_usd(tab.promised()))).collect();
        read_tabs(&*store, me, &mut book)?;
    }
    read_steps(&*store, &mut book)?;
    Ok(book)
}

/// The tabs on channels, and on ledgers where this node buys.
fn read_tabs(store: &dyn Store, me: &NodeId, book: &mut Book) -> Result<(), StoreError> {
    for (of, record) in all_tabs(store, Side::Bought, me)? {
        let promised = PayerTab::recover(&record).map_or(0, |tab| micro_usd(tab.promised()));
        match of.channel {
            Some(channel) => _ = book.bought.insert((of.other, channel), promised),
            None => _ = book.promised.insert(of.other, promised),
        }
    }
    for (of, record) in all_tabs(store, Side::Sold, me)? {
        if let (Some(channel), Some(tab)) = (of.channel, PayeeTab::recover(&record)) {
            let (voucher, came_to) = (micro_usd(tab.promised()), micro_usd(tab.settled_units()));
            book.sold.insert((of.other, channel), Sold { voucher, came_to, is_closed: tab.is_closed() });
        }
    }
    Ok(())
}

fn all_tabs(store: &dyn Store, side: Side, me: &NodeId) -> Result<Vec<(TabOf, Vec<u8>)>, StoreError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.tabs(side, me, after.as_ref())?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        after = Some(*last);
        all.extend(page);
    }
}

/// What was done on an EVM chain.
fn read_steps(store: &dyn Store, book: &mut Book) -> Result<(), StoreError> {
    let mut from = 1;
    loop {
        let mut page = store.steps(from)?;
        page.retain(|(number, _)| *number < CHANNELS);
        let Some((last, _)) = page.last() else { return Ok(()) };
        from = last + 1;
        for step in page.iter().filter_map(|(_, record)| codec::decode::<steps::Entry>(record).ok()) {
            book.open_steps += usize::from(!step.is_done());
            if let Some((channel, amount)) = deposit(&step).filter(|_| step.word() == "settled") {
                *book.deposited.entry(channel).or_default() += amount;
            }
        }
    }
}

fn deposit(step: &steps::Entry) -> Option<(ChannelId, u64)> {
    let is_one = matches!(step.purpose, Purpose::Open { .. } | Purpose::TopUp { .. });
    is_one.then(|| Some((step.purpose.channel()?, micro_usd(step.purpose.amount()?)))).flatten()
}

/// Everything here is at a unit for a micro-USD.
fn micro_usd(units: u128) -> u64 {
    u64::try_from(units).unwrap_or(u64::MAX)
}

fn entry(signed: &SignedReceipt) -> Entry {
    let receipt = signed.receipt();
    Entry {
        job: receipt.job,
        worker: receipt.worker,
        buyer: receipt.buyer,
        digest: receipt.digest(),
        micro_usd: receipt.amount.0,
        completed: receipt.status == JobStatus::COMPLETED,
        countersigned: signed.countersign().is_some(),
    }
}
