//! `bench plane`: how fast a plane's index takes in what it hears, and how fast it is made anew from a store.
//!
//! 1. *fold*: verified messages of all four kinds, many of them twice, into one index on one core;
//! 2. *anew*: receipts from an embedded store on disk into an empty index, as at a start; they were verified when they were put;
//! 3. *signatures*: the same receipts with both signatures checked, on all cores: the least that it takes to find them on nodes;
//! 4. *read*: what the front page asks of the full index;
//! 5. *viewers*: memory of a plane with many who look at a live page;
//! 6. *jobs*: from `POST /api/v1/jobs` to the first token, and the same bought straight on the mesh.
//!
//! Nothing is extrapolated but to a million: the second part has as many receipts as are signed for it in some ten seconds.

mod jobs;
mod viewers;

pub use self::{jobs::JobsResult, viewers::ViewersResult};

use super::BenchError;
use crate::{
    machine::Machine,
    receipts::{Parties, job},
};
use infernet_node::clock;
use infernet_plane::{
    follow::catch_up,
    index::{AcceptFact, AdFact, Book, Event, Index, OfferFact, ReceiptFact},
    query,
    store::{EmbeddedStore, Store, StoreError},
};
use infernet_wire::{
    capability::ModelAd,
    id::{Hash, NodeId},
    money::{MicroUsd, Price},
    receipt::{JobStatus, SignedReceipt},
    time::UnixMillis,
};
use rayon::prelude::*;
use serde::Serialize;
use std::{sync::Arc, time::Instant};

/// Workers and buyers of the made-up network.
const WORKERS: u64 = 2_000;
const BUYERS: u64 = 5_000;
/// Receipts signed and stored for the second part.
const STORED: u64 = 40_000;

/// What to measure.
#[derive(Debug, Clone)]
pub struct PlaneOptions {
    /// Messages folded in the first part.
    pub events: u64,
    /// Who look at a live page at once.
    pub viewers: usize,
    /// Jobs over the plane, and as many on the mesh.
    pub jobs: usize,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct PlaneResult {
    /// Where.
    pub machine: Machine,
    /// Messages folded.
    pub events: u64,
    /// Messages a second, on one core.
    pub fold_per_second: f64,
    /// Seconds that a million of them would take.
    pub million_folded_s: f64,
    /// Receipts that the index then has.
    pub indexed: usize,
    /// Receipts a second from the embedded store into an empty index.
    pub anew_per_second: f64,
    /// Seconds that a million receipts would take in this way.
    pub million_anew_s: f64,
    /// Receipts a second whose signatures are checked, on all cores.
    pub verified_per_second: f64,
    /// Microseconds of the front page's overview, models, demand and auctions on the full index.
    pub page_us: f64,
    /// Who look at a live page.
    pub viewers: ViewersResult,
    /// From asking to the first token.
    pub jobs: JobsResult,
}

impl std::fmt::Display for PlaneResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "fold                {:>9.0} messages/s, one core ({} of them; a million in {:.1} s), {} receipts indexed",
            self.fold_per_second, self.events, self.million_folded_s, self.indexed
        )?;
        writeln!(
            f,
            "anew from its store {:>9.0} receipts/s (a million in {:.1} s)",
            self.anew_per_second, self.million_anew_s
        )?;
        writeln!(
            f,
            "signatures          {:>9.0} receipts/s, both checked, all cores (a million in {:.0} s: the floor of one from nodes)",
            self.verified_per_second,
            1e6 / self.verified_per_second
        )?;
        writeln!(f, "the front page      {:>9.0} µs", self.page_us)?;
        let ViewersResult { viewers, before_kb, with_kb } = self.viewers;
        writeln!(
            f,
            "viewers             {viewers:>9} of a live page: {:.1} MB more than the {:.1} MB without, {:.1} KB each",
            with_kb.saturating_sub(before_kb) as f64 / 1024.0,
            before_kb as f64 / 1024.0,
            with_kb.saturating_sub(before_kb) as f64 / viewers.max(1) as f64
        )?;
        let JobsResult { jobs, plane_p50_us, plane_p99_us, direct_p50_us, direct_p99_us } = self.jobs;
        write!(
            f,
            "first token         over the plane p50 {:.1} ms, p99 {:.1}; on the mesh p50 {:.1} ms, p99 {:.1} ({jobs} jobs each)",
            plane_p50_us as f64 / 1e3,
            plane_p99_us as f64 / 1e3,
            direct_p50_us as f64 / 1e3,
            direct_p99_us as f64 / 1e3
        )
    }
}

/// Measures.
pub async fn run(options: &PlaneOptions) -> Result<PlaneResult, BenchError> {
    if !(10_000..=5_000_000).contains(&options.events) {
        return Err(BenchError::Options("use 10000 to 5000000 --events".into()));
    }
    let now = clock::now();
    let events: Vec<Event> = (0..options.events).map(|n| event(n, now)).collect();
    let mut book = Book::default();
    let begin = clock::instant();
    for event in events {
        book.fold(event);
    }
    let fold_per_second = rate(options.events, begin);
    let begin = clock::instant();
    let shown = (query::overview(&book, now), query::models(&book, now), query::demand(&book, now), query::auctions(&book, 50));
    let page_us = begin.elapsed().as_secs_f64() * 1e6;
    if shown.1.is_empty() {
        return Err(BenchError::Options("the index shows no model: nothing was measured".into()));
    }
    let (anew_per_second, verified_per_second) = anew().await?;
    Ok(PlaneResult {
        machine: Machine::here(),
        events: options.events,
        fold_per_second,
        million_folded_s: 1e6 / fold_per_second,
        indexed: book.ledger().len(),
        anew_per_second,
        million_anew_s: 1e6 / anew_per_second,
        verified_per_second,
        page_us,
        viewers: viewers::run(options.viewers).await?,
        jobs: jobs::run(options.jobs).await?,
    })
}

fn rate(count: u64, begin: Instant) -> f64 {
    count as f64 / begin.elapsed().as_secs_f64()
}

async fn anew() -> Result<(f64, f64), BenchError> {
    let failed = |error: StoreError| BenchError::Options(error.to_string());
    let home = tempfile::tempdir()?;
    let wrong = |error: &dyn std::fmt::Display| BenchError::Options(error.to_string());
    let parties = Parties::new().map_err(|error| wrong(&error))?;
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(home.path(), &parties.network).map_err(failed)?);
    let mut puts = Vec::new();
    let mut signed = Vec::new();
    for n in 0..STORED {
        let (store, receipt) = (store.clone(), parties.signed(n, true).map_err(|error| wrong(&error))?);
        signed.push(receipt.encode());
        puts.push(async move { store.put_receipt(&receipt).await });
    }
    for put in futures::future::join_all(puts).await {
        put.map_err(failed)?;
    }
    let index = Index::default();
    let begin = clock::instant();
    catch_up(&*store, &index, 0).await.map_err(failed)?;
    let rate = rate(STORED, begin);
    let indexed = index.read(|book| book.ledger().len() as u64);
    if indexed != STORED {
        return Err(BenchError::Options(format!("{indexed} of {STORED} receipts came back")));
    }
    let begin = clock::instant();
    let good = signed.par_iter().filter(|bytes| SignedReceipt::decode_stored(bytes, &parties.network).is_ok()).count();
    if good as u64 != STORED {
        return Err(BenchError::Options(format!("{good} of {STORED} receipts verify")));
    }
    Ok((rate, self::rate(STORED, begin)))
}

fn node(n: u64) -> NodeId {
    let mut id = [2; 33];
    id.iter_mut().skip(1).zip(n.to_be_bytes()).for_each(|(place, byte)| *place = byte);
    NodeId(id)
}

fn digest(kind: u8, n: u64) -> Hash {
    let mut bytes = [kind; 32];
    // Spread, as digests are.
    bytes.iter_mut().zip(job(n).0).for_each(|(place, byte)| *place = byte);
    Hash(bytes)
}

/// The `n`th message: of ten an ad, two offers, two accepts, five receipts of which each second one comes again.
fn event(n: u64, now: UnixMillis) -> Event {
    let (round, worker, buyer) = (n / 10, node(n % WORKERS), node(WORKERS + n % BUYERS));
    let at = UnixMillis(now.0.saturating_sub(1_000_000_000) + n);
    let price = Price { input: MicroUsd(100_000 + n % 1_000), output: MicroUsd(200_000 + n % 1_000) };
    match n % 10 {
        0 => Event::Ad(AdFact {
            worker: node(round % WORKERS),
            digest: digest(1, n),
            sequence: n,
            issued: now,
            expires: now.after(90_000),
            tags: vec!["c0mpute:role:infernet".into(), "c0mpute:gpu:nvidia".into()],
            models: vec![ModelAd { id: format!("model-{}", round % 40), price, ..ModelAd::default() }],
            slots: 4,
        }),
        1 | 2 => Event::Offer(OfferFact {
            digest: digest(2, n),
            buyer,
            model: format!("model-{}", n % 50),
            input_tokens: 100,
            output_tokens: 500,
            ceiling: price,
            issued: at,
        }),
        3 | 4 => Event::Accept(AcceptFact {
            digest: digest(3, n),
            offer: digest(2, n - 2),
            buyer: node(WORKERS + (n - 2) % BUYERS),
            winner: worker,
            model: "model-1".into(),
            price,
            job: job(n),
            attempt: 1,
            runners_up: 2,
            issued: at,
        }),
        other => {
            let number = if other == 9 { n - 2 } else { n };
            Event::Receipt(ReceiptFact {
                job: job(number),
                worker: node(number % WORKERS),
                buyer: node(WORKERS + number % BUYERS),
                digest: digest(4, number),
                is_settled: number % 8 != 0,
                model: format!("model-{}", number % 40).into(),
                input_tokens: 100,
                output_tokens: 400,
                amount: MicroUsd(number % 1_000),
                started: UnixMillis(at.0.saturating_sub(4_000)),
                finished: at,
                status: JobStatus::COMPLETED,
            })
        }
    }
}
