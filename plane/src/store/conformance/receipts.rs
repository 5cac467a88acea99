//! Receipts: one per job, worker and buyer, the same whatever the order.

use super::Both;
use crate::{
    index::ReceiptFact,
    store::{MAX_PAGE, ReceiptPut, Store},
};
use infernet_node::clock;
use infernet_wire::{
    id::{Hash, JobId},
    key::NodeKey,
    money::{MicroUsd, Price},
    receipt::{Countersign, JobReceipt, JobStatus, SignedReceipt},
    time::UnixMillis,
    topic::NetworkId,
};
use std::sync::Arc;

/// Who trades.
struct Pair {
    worker: NodeKey,
    buyer: NodeKey,
}

fn key() -> NodeKey {
    NodeKey::from_bytes(&clock::random()).expect("random bytes are a key")
}

impl Pair {
    fn new() -> Self {
        Pair { worker: key(), buyer: key() }
    }

    fn receipt(&self, job: JobId, tokens: u32, is_countersigned: bool) -> SignedReceipt {
        let network = NetworkId::default();
        let price = Price { input: MicroUsd(0), output: MicroUsd(1_000_000) };
        let body = JobReceipt {
            job,
            accept: Hash([1; 32]),
            buyer: self.buyer.id(),
            worker: self.worker.id(),
            workload: "infernet.inference".into(),
            model: "m".into(),
            weights: None,
            input_tokens: 0,
            output_tokens: tokens,
            price,
            amount: MicroUsd(u64::from(tokens)),
            paid: MicroUsd(0),
            started: UnixMillis(1),
            finished: UnixMillis(2),
            status: JobStatus::COMPLETED,
            request: Hash([2; 32]),
            transcript: Hash([3; 32]),
            paid_on: None,
        };
        let receipt = self.worker.sign(&network, body).expect("a receipt within bounds");
        let countersign = Countersign { receipt: receipt.digest(), issued: UnixMillis(3) };
        let countersign = is_countersigned.then(|| self.buyer.sign(&network, countersign).expect("within bounds"));
        SignedReceipt::new(receipt, countersign).expect("they belong together")
    }
}

pub(super) async fn conform(both: &Both) {
    one_per_job_and_worker(both.store()).await;
    a_worker_can_not_erase_what_it_did_for_another_buyer(both.store()).await;
    of_two_statements_all_keep_the_same(both.store()).await;
    positions_grow_and_pages_follow(both.store()).await;
    one_racer_is_first(both).await;
}

async fn put(store: &dyn Store, receipt: &SignedReceipt, expected: ReceiptPut) {
    assert_eq!(store.put_receipt(receipt).await, Ok(expected));
}

/// Position and receipt of each that the store has of a job.
async fn kept(store: &dyn Store, job: JobId) -> Vec<(u64, SignedReceipt)> {
    let (mut position, mut found) = (0, Vec::new());
    loop {
        let page = store.receipts_after(position, MAX_PAGE).await.expect("a page");
        let Some((last, _)) = page.last() else { return found };
        assert!(page.windows(2).all(|pair| pair[0].0 < pair[1].0), "positions grow");
        assert!(*last > position, "a page comes after its position");
        position = *last;
        found.extend(page.into_iter().filter(|(_, receipt)| receipt.receipt().job == job));
    }
}

async fn one_per_job_and_worker(store: &dyn Store) {
    let (pair, job) = (Pair::new(), JobId(clock::random()));
    let (alone, signed) = (pair.receipt(job, 5, false), pair.receipt(job, 5, true));
    put(store, &alone, ReceiptPut::New).await;
    put(store, &alone, ReceiptPut::Known).await;
    let first = kept(store, job).await;
    put(store, &signed, ReceiptPut::Countersigned).await;
    put(store, &signed, ReceiptPut::Known).await;
    put(store, &alone, ReceiptPut::Known).await;
    let now = kept(store, job).await;
    assert_eq!(now.len(), 1, "the countersigned one takes the other's place");
    assert_eq!(now[0].1.encode(), signed.encode(), "bytes are kept as they are");
    assert!(now[0].0 > first[0].0, "and comes again, at its new position");
    let other = Pair { worker: key(), buyer: key() };
    put(store, &other.receipt(job, 7, false), ReceiptPut::New).await;
    let found = store.receipt(job, pair.worker.id(), pair.buyer.id()).await.expect("read").expect("a receipt");
    assert_eq!(found.encode(), signed.encode());
    assert!(store.receipt(job, pair.buyer.id(), pair.worker.id()).await.expect("read").is_none());
    assert_eq!(kept(store, job).await.len(), 2, "another worker's part of the job is another receipt");
}

async fn a_worker_can_not_erase_what_it_did_for_another_buyer(store: &dyn Store) {
    let (honest, job) = (Pair::new(), JobId(clock::random()));
    let of_itself = Pair { worker: NodeKey::from_bytes(&honest.worker.secret_bytes()).expect("a key"), buyer: key() };
    let (first, second) = (honest.receipt(job, 5, true), of_itself.receipt(job, 9, true));
    put(store, &first, ReceiptPut::New).await;
    put(store, &second, ReceiptPut::New).await;
    assert_eq!(kept(store, job).await.len(), 2);
    for (pair, receipt) in [(&honest, &first), (&of_itself, &second)] {
        let found = store.receipt(job, pair.worker.id(), pair.buyer.id()).await.expect("read").expect("it is still there");
        assert_eq!(found.encode(), receipt.encode());
    }
}

async fn of_two_statements_all_keep_the_same(store: &dyn Store) {
    for is_countersigned in [false, true] {
        let (pair, mut stayed) = (Pair::new(), Vec::new());
        for turn in [false, true] {
            // Both end at the same time, so that the greater digest decides.
            let job = JobId(clock::random());
            let mut two = [pair.receipt(job, 1, is_countersigned), pair.receipt(job, 2, is_countersigned)];
            two.sort_by_key(|receipt| receipt.receipt().digest());
            let [other_one, chosen] = two;
            if turn {
                put(store, &chosen, ReceiptPut::New).await;
                put(store, &other_one, ReceiptPut::Known).await;
            } else {
                put(store, &other_one, ReceiptPut::New).await;
                put(store, &chosen, ReceiptPut::Preferred).await;
            }
            let kept = kept(store, job).await;
            assert_eq!(kept.len(), 1);
            stayed.push(kept[0].1.receipt().digest() == chosen.receipt().digest());
        }
        assert_eq!(stayed, [true, true], "whatever came first");
    }
    let (pair, job) = (Pair::new(), JobId(clock::random()));
    put(store, &pair.receipt(job, 1, true), ReceiptPut::New).await;
    put(store, &pair.receipt(job, 2, false), ReceiptPut::Known).await;
    let job = JobId(clock::random());
    put(store, &pair.receipt(job, 2, false), ReceiptPut::New).await;
    put(store, &pair.receipt(job, 1, true), ReceiptPut::Countersigned).await;
}

async fn positions_grow_and_pages_follow(store: &dyn Store) {
    let pair = Pair::new();
    let jobs: Vec<JobId> = (0..5).map(|_| JobId(clock::random())).collect();
    let mut before = 0;
    while let Some((last, _)) = store.receipts_after(before, MAX_PAGE).await.expect("a page").last() {
        before = *last;
    }
    for job in &jobs {
        put(store, &pair.receipt(*job, 1, false), ReceiptPut::New).await;
    }
    let facts = store.facts_after(before, 2).await.expect("a page");
    let first = store.receipts_after(before, 2).await.expect("a page");
    let told: Vec<_> = first.iter().map(|(at, receipt)| (*at, ReceiptFact::from(receipt))).collect();
    assert_eq!(facts, told, "the same, as what they say");
    assert_eq!(first.len(), 2, "a page has what was asked for at most");
    let rest = store.receipts_after(first[1].0, MAX_PAGE + 1).await.expect("a page");
    let read: Vec<JobId> = first.iter().chain(&rest).map(|(_, receipt)| receipt.receipt().job).collect();
    assert_eq!(read, jobs, "nothing is skipped or repeated, in the order in which they came");
    assert!(store.receipts_after(u64::MAX, 10).await.expect("a page").is_empty());
}

async fn one_racer_is_first(both: &Both) {
    let receipt = Pair::new().receipt(JobId(clock::random()), 1, false);
    let told = both.race(|store, _| {
        let receipt = receipt.clone();
        async move { store.put_receipt(&receipt).await.expect("it is put") }
    });
    let told = told.await;
    assert_eq!(told.iter().filter(|put| **put == ReceiptPut::New).count(), 1, "{told:?}");
    // A reader that goes by positions misses none that were put at the same time.
    let pair = Arc::new(Pair::new());
    let jobs = both.race(|store, _| {
        let (pair, job) = (pair.clone(), JobId(clock::random()));
        async move {
            store.put_receipt(&pair.receipt(job, 1, false)).await.expect("it is put");
            job
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    let reading = async {
        let mut position = 0;
        while seen.len() < super::RACERS {
            let page = both.store().receipts_after(position, 3).await.expect("a page");
            position = page.last().map_or(position, |(last, _)| *last);
            seen.extend(page.iter().filter(|(_, r)| r.receipt().worker == pair.worker.id()).map(|(_, r)| r.receipt().job));
        }
    };
    let (jobs, read) = tokio::join!(jobs, tokio::time::timeout(super::SOON, reading));
    read.expect("every receipt comes by");
    assert_eq!(seen, jobs.into_iter().collect());
}
