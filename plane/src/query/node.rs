//! One node: what it serves, what it did, what it earned.

use super::{MAX_ROWS, Reputation, is_live, reputation};
use crate::index::{AdFact, Book, ReceiptFact, Sums};
use infernet_node::date::DAY_MS;
use infernet_wire::{
    id::{Hash, JobId, NodeId},
    money::{MicroUsd, Price},
    time::UnixMillis,
};
use serde::Serialize;

/// Days of earnings that are shown at most.
const MAX_DAYS: u64 = 366;

/// A node in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeRow {
    /// Who.
    pub id: NodeId,
    /// Whether its ad has not expired.
    pub online: bool,
    /// When it made its newest ad.
    pub seen: UnixMillis,
    /// Role, GPU, region.
    pub tags: Vec<String>,
    /// Its models, by their ids.
    pub models: Vec<String>,
    /// Jobs that it can run at once.
    pub slots: u16,
    /// Settled jobs that are kept.
    pub jobs: u64,
    /// Its reputation.
    pub reputation: Reputation,
}

fn row(book: &Book, ad: &AdFact, now: UnixMillis) -> NodeRow {
    NodeRow {
        id: ad.worker,
        online: is_live(ad, now),
        seen: ad.issued,
        tags: ad.tags.clone(),
        models: ad.models.iter().map(|model| model.id.clone()).collect(),
        slots: ad.slots,
        jobs: book.ledger().of(&ad.worker).jobs,
        reputation: reputation(book, &ad.worker),
    }
}

/// Nodes by their ids, after the one named; those offline only if asked for. At most `limit`.
pub fn nodes(book: &Book, now: UnixMillis, after: Option<&NodeId>, with_offline: bool, limit: usize) -> Vec<NodeRow> {
    let wanted = |ad: &&AdFact| (with_offline || is_live(ad, now)) && after.is_none_or(|after| ad.worker > *after);
    book.ads().filter(wanted).take(limit.min(MAX_ROWS)).map(|ad| row(book, ad, now)).collect()
}

/// What a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Work {
    /// Settled jobs.
    pub jobs: u64,
    /// Of those, completed.
    pub completed: u64,
    /// Receipts that the buyer has not signed: they count for nothing.
    pub unacknowledged: u64,
    /// Input tokens.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// What it earned.
    pub earned: MicroUsd,
    /// Tokens a second while at work.
    pub tokens_per_second: Option<f64>,
}

impl From<Sums> for Work {
    fn from(sums: Sums) -> Self {
        Work {
            jobs: sums.jobs,
            completed: sums.completed,
            unacknowledged: sums.unsettled,
            input_tokens: sums.input_tokens,
            output_tokens: sums.output_tokens,
            earned: sums.paid(),
            tokens_per_second: sums.tokens_per_second(),
        }
    }
}

/// All that is known of a node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeView {
    /// Who.
    pub id: NodeId,
    /// Whether its ad has not expired.
    pub online: bool,
    /// When it made its newest ad; `None` if none is kept.
    pub seen: Option<UnixMillis>,
    /// Role, GPU, region.
    pub tags: Vec<String>,
    /// Jobs that it can run at once.
    pub slots: u16,
    /// What it serves, with prices: as in its ad.
    pub models: Vec<Served>,
    /// What it did, of what is kept.
    pub work: Work,
    /// The same by model, at most [`MAX_ROWS`].
    pub by_model: Vec<(String, Work)>,
    /// What others say by trading with it.
    pub reputation: Reputation,
}

/// A model that a node serves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Served {
    /// Its id.
    pub id: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// Quantisation; empty if unknown.
    pub quantisation: String,
    /// Context in tokens; 0 if unknown.
    pub context: u32,
    /// What it costs.
    pub price: Price,
    /// Tokens a second, as the worker says; 0 if it has not measured.
    pub tokens_per_second: u32,
    /// Milliseconds to the first token, as the worker says; 0 if it has not measured.
    pub ttft_ms: u32,
}

/// A node that has an ad or has worked; `None` if nothing is known of it.
pub fn node(book: &Book, id: &NodeId, now: UnixMillis) -> Option<NodeView> {
    let (ad, sums) = (book.ad(id), book.ledger().of(id));
    if ad.is_none() && sums == Sums::default() {
        return None;
    }
    let models = ad.map(|ad| ad.models.as_slice()).unwrap_or_default();
    let served = models.iter().map(|model| Served {
        id: model.id.clone(),
        aliases: model.aliases.clone(),
        quantisation: model.quantisation.clone(),
        context: model.context,
        price: model.price,
        tokens_per_second: model.tokens_per_second,
        ttft_ms: model.ttft_ms,
    });
    Some(NodeView {
        id: *id,
        online: ad.is_some_and(|ad| is_live(ad, now)),
        seen: ad.map(|ad| ad.issued),
        tags: ad.map(|ad| ad.tags.clone()).unwrap_or_default(),
        slots: ad.map_or(0, |ad| ad.slots),
        models: served.collect(),
        work: sums.into(),
        by_model: book.ledger().models_of(id).take(MAX_ROWS).map(|(model, sums)| (model.to_string(), sums.into())).collect(),
        reputation: reputation(book, id),
    })
}

/// One day of a worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Earned {
    /// When the day began, in UTC.
    pub from: UnixMillis,
    /// What was done.
    pub work: Work,
}

/// The last `days` days of a worker, today and those without jobs too, the oldest first; at most `MAX_DAYS`.
pub fn earnings(book: &Book, worker: &NodeId, now: UnixMillis, days: u64) -> Vec<Earned> {
    let last = now.0 / DAY_MS;
    let first = last.saturating_sub(days.clamp(1, MAX_DAYS) - 1);
    let sums: std::collections::BTreeMap<u64, Sums> = book.ledger().days_of(worker, first).collect();
    let day = |day: u64| {
        let sums = sums.get(&day).copied().unwrap_or_default();
        Earned { from: UnixMillis(day * DAY_MS), work: sums.into() }
    };
    (first..=last).map(day).collect()
}

/// A receipt as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReceiptRow {
    /// The job.
    pub job: JobId,
    /// Names the worker's statement.
    pub digest: Hash,
    /// Who worked.
    pub worker: NodeId,
    /// Who asked.
    pub buyer: NodeId,
    /// The model.
    pub model: String,
    /// Input tokens charged.
    pub input_tokens: u32,
    /// Output tokens charged.
    pub output_tokens: u32,
    /// What it cost.
    pub amount: MicroUsd,
    /// When it began.
    pub started: UnixMillis,
    /// When it ended.
    pub finished: UnixMillis,
    /// `completed`, `cancelled`, `failed` or `other`.
    pub status: String,
    /// Whether both have signed.
    pub settled: bool,
}

impl From<ReceiptFact> for ReceiptRow {
    fn from(trade: ReceiptFact) -> Self {
        ReceiptRow {
            job: trade.job,
            digest: trade.digest,
            worker: trade.worker,
            buyer: trade.buyer,
            model: trade.model.to_string(),
            input_tokens: trade.input_tokens,
            output_tokens: trade.output_tokens,
            amount: trade.amount,
            started: trade.started,
            finished: trade.finished,
            status: trade.status.to_string(),
            settled: trade.is_settled,
        }
    }
}

/// The newest receipts, of one worker or of all; at most `limit`.
pub fn receipts(book: &Book, worker: Option<&NodeId>, limit: usize) -> Vec<ReceiptRow> {
    let limit = limit.min(MAX_ROWS);
    match worker {
        Some(worker) => book.ledger().newest_of(worker).take(limit).map(ReceiptRow::from).collect(),
        None => book.ledger().newest().take(limit).map(ReceiptRow::from).collect(),
    }
}

/// The receipt whose statement has this digest.
pub fn receipt(book: &Book, digest: &Hash) -> Option<ReceiptRow> {
    book.ledger().by_digest(digest).map(ReceiptRow::from)
}

/// The receipts of one job, at most [`MAX_ROWS`].
pub fn receipts_of_job(book: &Book, job: &JobId) -> Vec<ReceiptRow> {
    book.ledger().of_job(job).take(MAX_ROWS).map(ReceiptRow::from).collect()
}
