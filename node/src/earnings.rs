//! What was earned, or spent, by day and model: a fold over receipts, pure.
//!
//! A receipt counts on the UTC day on which its job ended. What the buyer has signed is acknowledged; what it has not is the
//! worker's word alone, and is never added to the former.

use crate::date::Day;
use infernet_wire::{
    id::NodeId,
    money::MicroUsd,
    receipt::{JobReceipt, SignedReceipt},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Lines of one book: ten years of thirty models a day. Beyond it, the oldest are told in one line.
const MAX_ROWS: usize = 100_000;
/// The model of the line that stands for all that have none of their own.
const OTHERS: &str = "(others)";

/// Whose side a book is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Jobs that we did.
    Earned,
    /// Jobs that we asked for.
    Spent,
}

impl Side {
    fn us(self, receipt: &JobReceipt) -> NodeId {
        match self {
            Side::Earned => receipt.worker,
            Side::Spent => receipt.buyer,
        }
    }
}

/// One line, or the total.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sum {
    /// Jobs.
    pub jobs: u64,
    /// Input tokens charged.
    pub input_tokens: u64,
    /// Output tokens charged.
    pub output_tokens: u64,
    /// Signed by both sides, in micro-USD.
    pub acknowledged_micro_usd: u64,
    /// Signed by the worker alone, in micro-USD.
    pub unacknowledged_micro_usd: u64,
}

impl Sum {
    /// One receipt more.
    pub fn add(&mut self, signed: &SignedReceipt) {
        let receipt = signed.receipt();
        let amount = match signed.countersign() {
            Some(_) => &mut self.acknowledged_micro_usd,
            None => &mut self.unacknowledged_micro_usd,
        };
        // A total for people to read: it saturates rather than wraps.
        *amount = amount.saturating_add(receipt.amount.0);
        self.jobs += 1;
        self.input_tokens += u64::from(receipt.input_tokens);
        self.output_tokens += u64::from(receipt.output_tokens);
    }

    /// The buyer has signed a receipt that is in here without its signature.
    pub fn acknowledge(&mut self, signed: &SignedReceipt) {
        let amount = signed.receipt().amount.0;
        self.unacknowledged_micro_usd = self.unacknowledged_micro_usd.saturating_sub(amount);
        self.acknowledged_micro_usd = self.acknowledged_micro_usd.saturating_add(amount);
    }

    /// What both sides have signed.
    pub fn acknowledged(&self) -> MicroUsd {
        MicroUsd(self.acknowledged_micro_usd)
    }

    /// What the worker alone has signed.
    pub fn unacknowledged(&self) -> MicroUsd {
        MicroUsd(self.unacknowledged_micro_usd)
    }
}

/// A day and model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DayReport {
    /// The UTC day, such as `2026-11-25`.
    pub day: String,
    /// The model, by the worker's id.
    pub model: String,
    /// What came of it.
    #[serde(flatten)]
    pub sum: Sum,
}

/// `infernet earnings --json` and `infernet spend --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BookReport {
    /// The network that the receipts are of.
    pub network: String,
    /// The first day that was asked for; absent for all.
    pub since: Option<String>,
    /// By day and model, oldest first.
    pub days: Vec<DayReport>,
    /// Everything together.
    pub total: Sum,
    /// Receipts that could not be read or verified, and are in no sum.
    pub invalid: u64,
}

/// Receipts are entered in any order; each at most once is the caller's care.
#[derive(Debug)]
pub struct Book {
    side: Side,
    us: BTreeSet<NodeId>,
    since: Option<Day>,
    rows: BTreeMap<(Day, String), Sum>,
    total: Sum,
}

impl Book {
    /// An empty book of the node that has been `us`, from the day `since` on.
    pub fn new(side: Side, us: impl IntoIterator<Item = NodeId>, since: Option<Day>) -> Self {
        Book { side, us: us.into_iter().collect(), since, rows: BTreeMap::new(), total: Sum::default() }
    }

    /// Enters a receipt, if it is one of ours and not too old.
    pub fn enter(&mut self, signed: &SignedReceipt) {
        let receipt = signed.receipt();
        if !self.us.contains(&self.side.us(receipt)) || self.is_before(signed) {
            return;
        }
        self.total.add(signed);
        let row = (Day::of(receipt.finished), receipt.model.clone());
        let row = if self.rows.len() < MAX_ROWS || self.rows.contains_key(&row) { row } else { (Day(0), OTHERS.into()) };
        self.rows.entry(row).or_default().add(signed);
    }

    /// Whether a receipt is too old for this book; so then is every older one.
    pub fn is_before(&self, signed: &SignedReceipt) -> bool {
        self.since.is_some_and(|since| Day::of(signed.receipt().finished) < since)
    }

    /// The book as it is shown.
    pub fn report(self, network: String, invalid: u64) -> BookReport {
        let day = |((day, model), sum): ((Day, String), Sum)| DayReport { day: day.to_string(), model, sum };
        let days = self.rows.into_iter().map(day).collect();
        BookReport { network, since: self.since.map(|day| day.to_string()), days, total: self.total, invalid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::date::DAY_MS;
    use infernet_wire::{
        id::{Hash, JobId},
        key::NodeKey,
        money::Price,
        receipt::{Countersign, JobStatus},
        time::UnixMillis,
        topic::{INFERENCE, NetworkId},
    };

    fn key(n: u8) -> NodeKey {
        NodeKey::from_bytes(&[n; 32]).expect("a key")
    }

    /// Worker 1's receipt for buyer 2 of a dollar per token.
    fn receipt(day: u64, model: &str, tokens: u32, acknowledged: bool) -> SignedReceipt {
        let price = Price { input: MicroUsd(0), output: MicroUsd(1_000_000) };
        let finished = UnixMillis(day * DAY_MS + 5);
        let body = JobReceipt {
            job: JobId([7; 16]),
            accept: Hash([0; 32]),
            buyer: key(2).id(),
            worker: key(1).id(),
            workload: INFERENCE.into(),
            model: model.into(),
            weights: None,
            input_tokens: 3,
            output_tokens: tokens,
            price,
            amount: price.cost(3, tokens).expect("fits"),
            paid: MicroUsd(0),
            started: finished,
            finished,
            status: JobStatus::COMPLETED,
            request: Hash([0; 32]),
            transcript: Hash([0; 32]),
            paid_on: None,
        };
        let receipt = key(1).sign(&NetworkId::default(), body).expect("within limits");
        let agreed = Countersign { receipt: receipt.digest(), issued: finished };
        let countersign = acknowledged.then(|| key(2).sign(&NetworkId::default(), agreed).expect("within limits"));
        SignedReceipt::new(receipt, countersign).expect("belong together")
    }

    fn report(side: Side, us: u8, since: Option<Day>, receipts: &[SignedReceipt]) -> BookReport {
        let mut book = Book::new(side, [key(us).id()], since);
        receipts.iter().for_each(|receipt| book.enter(receipt));
        book.report("main".into(), 0)
    }

    #[test]
    fn days_and_models_are_apart_and_so_is_what_nobody_acknowledged() {
        let receipts = [
            receipt(2, "b", 5, true),
            receipt(1, "a", 10, true),
            receipt(1, "a", 1, false),
            receipt(1, "a", 2, true),
            receipt(1, "b", 7, false),
        ];
        let book = report(Side::Earned, 1, None, &receipts);
        let rows: Vec<_> = book
            .days
            .iter()
            .map(|d| {
                let sum = &d.sum;
                (d.day.as_str(), d.model.as_str(), sum.jobs, sum.acknowledged_micro_usd, sum.unacknowledged_micro_usd)
            })
            .collect();
        assert_eq!(rows, [("1970-01-02", "a", 3, 12, 1), ("1970-01-02", "b", 1, 0, 7), ("1970-01-03", "b", 1, 5, 0)]);
        let total = &book.total;
        assert_eq!((total.jobs, total.input_tokens, total.output_tokens), (5, 15, 25));
        assert_eq!((total.acknowledged().0, total.unacknowledged().0), (17, 8));
        assert_eq!(report(Side::Spent, 2, None, &receipts).total, *total, "the buyer's debits are the worker's credits");
    }

    #[test]
    fn only_ours_and_only_since() {
        let receipts = [receipt(3, "a", 1, true), receipt(2, "a", 1, true), receipt(1, "a", 1, true)];
        assert_eq!(report(Side::Spent, 1, None, &receipts).total, Sum::default(), "we bought nothing");
        let book = report(Side::Earned, 1, Some(Day(2)), &receipts);
        assert_eq!((book.total.jobs, book.since.as_deref()), (2, Some("1970-01-03")));
    }
}
