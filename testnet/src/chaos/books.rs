//! Whether the books balance: pure, over what every node has kept.

use super::{load::Promise, plan::Who};
use infernet_wire::id::{ChannelId, Hash, JobId, NodeId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A receipt, as far as books go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) job: JobId,
    pub(crate) worker: NodeId,
    pub(crate) buyer: NodeId,
    pub(crate) digest: Hash,
    pub(crate) micro_usd: u64,
    pub(crate) completed: bool,
    pub(crate) countersigned: bool,
}

/// What one node kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    /// Who it is, if it has a key.
    pub(crate) id: Option<NodeId>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) unreadable: u64,
    /// The highest voucher of each buyer on the ledger, in micro-USD.
    pub(crate) vouchers: BTreeMap<NodeId, u64>,
    /// What it may have promised to each worker there, in micro-USD.
    pub(crate) promised: BTreeMap<NodeId, u64>,
    /// What came of each buyer's channels.
    pub(crate) sold: BTreeMap<(NodeId, ChannelId), Sold>,
    /// What it may have promised to each worker on each channel, in micro-USD.
    pub(crate) bought: BTreeMap<(NodeId, ChannelId), u64>,
    /// What its steps have put into each channel, in micro-USD.
    pub(crate) deposited: BTreeMap<ChannelId, u64>,
    /// Steps on a chain that have not ended.
    pub(crate) open_steps: usize,
}

/// A channel that a worker is paid on, in micro-USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sold {
    /// The highest voucher.
    pub(crate) voucher: u64,
    /// What its jobs came to.
    pub(crate) came_to: u64,
    /// Whether the worker has signed its end.
    pub(crate) is_closed: bool,
}

/// What the books come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Receipts that both sides signed, as the buyers have them.
    pub settled: u64,
    /// What the buyers owe by those, in micro-USD.
    pub debits_micro_usd: u64,
    /// What the workers are owed by the same jobs.
    pub credits_micro_usd: u64,
    /// What workers have in vouchers, in micro-USD.
    pub vouchers_micro_usd: u64,
    /// Receipts of workers that no buyer signed: it was gone, or the network was.
    pub unacknowledged: u64,
    /// Receipts that the buyer signed and the worker does not know of: it was gone when the signature came.
    pub signature_not_arrived: u64,
    /// Receipts that were shown to a client, and are missing.
    pub lost: u64,
    /// What does not fit.
    pub complaints: Vec<String>,
}

/// Compares all books with each other, and with the receipts that clients were shown.
pub(crate) fn balance(books: &BTreeMap<Who, Book>, promises: &[Promise]) -> Balance {
    let mut balance = Balance::default();
    let of = |is: fn(&Who) -> bool| -> BTreeMap<(JobId, NodeId), Entry> {
        let entries = books.iter().filter(|(who, _)| is(who)).flat_map(|(_, book)| &book.entries);
        entries.map(|entry| ((entry.job, entry.worker), *entry)).collect()
    };
    let (bought, sold) = (of(|who| matches!(who, Who::Buyer(_))), of(|who| matches!(who, Who::Worker(_))));
    for entry in bought.values().filter(|entry| entry.countersigned) {
        balance.settled += 1;
        balance.debits_micro_usd += entry.micro_usd;
        match sold.get(&(entry.job, entry.worker)) {
            Some(same) if same.digest == entry.digest => {
                balance.credits_micro_usd += same.micro_usd;
                balance.signature_not_arrived += u64::from(!same.countersigned);
            }
            Some(_) => balance.complain(entry, "its two sides differ"),
            None => balance.complain(entry, "the worker does not have it"),
        }
    }
    for entry in sold.values() {
        let theirs = bought.get(&(entry.job, entry.worker)).filter(|theirs| theirs.countersigned);
        match theirs {
            None if entry.countersigned => balance.complain(entry, "the buyer signed it and does not have it"),
            None => balance.unacknowledged += 1,
            Some(_) => {}
        }
    }
    for promise in promises {
        let kept = |entries: &BTreeMap<(JobId, NodeId), Entry>| {
            entries.get(&(promise.job, promise.worker)).is_some_and(|entry| entry.micro_usd == promise.micro_usd)
        };
        if !kept(&bought) || !kept(&sold) {
            balance.lost += 1;
            balance.complaints.push(format!("{:?}'s receipt of job {} was shown and is lost", promise.buyer, promise.job));
        }
    }
    one_completion_each(&bought, &mut balance);
    vouchers(books, &mut balance);
    books.iter().for_each(|(who, book)| each_book(*who, book, &mut balance));
    balance
}

impl Balance {
    fn complain(&mut self, entry: &Entry, what: &str) {
        self.complaints.push(format!("receipt of job {}: {what}", entry.job));
    }
}

/// A job that failed over has a receipt of each worker, but only one of them completed it.
fn one_completion_each(bought: &BTreeMap<(JobId, NodeId), Entry>, balance: &mut Balance) {
    let mut completed = BTreeSet::new();
    for entry in bought.values().filter(|entry| entry.completed && entry.countersigned) {
        if !completed.insert(entry.job) {
            balance.complain(entry, "two workers completed the same job");
        }
    }
}

/// No worker has a voucher that its buyer does not know of: whoever was killed when, what counts was on the disk first.
fn vouchers(books: &BTreeMap<Who, Book>, balance: &mut Balance) {
    let by_id: BTreeMap<NodeId, &Book> = books.values().filter_map(|book| Some((book.id?, book))).collect();
    for (worker, book) in &by_id {
        for (buyer, voucher) in &book.vouchers {
            balance.vouchers_micro_usd += voucher;
            let known = by_id.get(buyer).and_then(|book| book.promised.get(worker)).copied().unwrap_or_default();
            if *voucher > known {
                balance.complaints.push(format!("a voucher of {voucher} micro-USD, of which its buyer knows {known}"));
            }
        }
    }
}

fn each_book(who: Who, book: &Book, balance: &mut Balance) {
    if book.unreadable > 0 {
        balance.complaints.push(format!("{who:?} can't read {} of its receipts", book.unreadable));
    }
    let keys: BTreeSet<_> = book.entries.iter().map(|entry| (entry.job, entry.worker)).collect();
    if keys.len() != book.entries.len() {
        balance.complaints.push(format!("{who:?} has a receipt twice"));
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    pub(crate) const WORKER: NodeId = NodeId([2; 33]);
    pub(crate) const BUYER: NodeId = NodeId([3; 33]);

    /// A receipt of ten micro-USD that both have signed.
    pub(crate) fn entry(job: u8) -> Entry {
        Entry {
            job: JobId([job; 16]),
            worker: WORKER,
            buyer: BUYER,
            digest: Hash([job; 32]),
            micro_usd: 10,
            completed: true,
            countersigned: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        samples::{BUYER, WORKER, entry},
        *,
    };

    fn books(buyer: &[Entry], worker: &[Entry]) -> BTreeMap<Who, Book> {
        let book = |entries: &[Entry]| Book { entries: entries.to_vec(), ..Book::default() };
        [(Who::Buyer(0), book(buyer)), (Who::Worker(0), book(worker))].into()
    }

    fn promise(job: u8) -> Promise {
        Promise { buyer: Who::Buyer(0), worker: WORKER, job: JobId([job; 16]), micro_usd: 10 }
    }

    fn unsigned(entry: Entry) -> Entry {
        Entry { countersigned: false, ..entry }
    }

    #[test]
    fn what_both_have_balances() {
        let both = [entry(1), entry(2)];
        let sold = [entry(1), unsigned(entry(2)), unsigned(entry(3))];
        let balance = balance(&books(&both, &sold), &[promise(1), promise(2)]);
        assert_eq!(balance.complaints, Vec::<String>::new());
        assert_eq!((balance.settled, balance.debits_micro_usd, balance.credits_micro_usd), (2, 20, 20));
        assert_eq!((balance.unacknowledged, balance.signature_not_arrived, balance.lost), (1, 1, 0));
    }

    #[test]
    fn whatever_does_not_fit_is_told() {
        let other = Entry { digest: Hash([9; 32]), ..entry(1) };
        let twin = Entry { worker: NodeId([3; 33]), ..entry(1) };
        for (buyer, worker, promises) in [
            (vec![entry(1)], vec![], vec![]),
            (vec![], vec![entry(1)], vec![]),
            (vec![entry(1)], vec![other], vec![]),
            (vec![], vec![], vec![promise(1)]),
            (vec![entry(1), twin], vec![entry(1), twin], vec![]),
            (vec![entry(1), entry(1)], vec![entry(1)], vec![]),
        ] {
            assert_eq!(balance(&books(&buyer, &worker), &promises).complaints.len(), 1, "{buyer:?} {worker:?}");
        }
    }

    #[test]
    fn a_voucher_that_its_buyer_does_not_know_of_is_told() {
        let mut books = books(&[], &[]);
        let worker = books.get_mut(&Who::Worker(0)).expect("a worker");
        (worker.id, worker.vouchers) = (Some(WORKER), [(BUYER, 10)].into());
        let of_buyer = |promised: u64, books: &mut BTreeMap<Who, Book>| {
            let buyer = books.get_mut(&Who::Buyer(0)).expect("a buyer");
            (buyer.id, buyer.promised) = (Some(BUYER), [(WORKER, promised)].into());
        };
        for (promised, complaints) in [(10, 0), (11, 0), (9, 1)] {
            of_buyer(promised, &mut books);
            let balance = balance(&books, &[]);
            assert_eq!((balance.complaints.len(), balance.vouchers_micro_usd), (complaints, 10), "{promised}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_told() {
        let mut books = books(&[entry(1)], &[entry(1)]);
        books.get_mut(&Who::Buyer(0)).expect("a buyer").unreadable = 1;
        assert_eq!(balance(&books, &[]).complaints.len(), 1);
    }
}
