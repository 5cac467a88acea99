//! One suite for every store, and what only the one on disk can get wrong.

use super::*;
use crate::store::sled::SledStore;
use infernet_wire::{
    id::Hash,
    key::NodeKey,
    money::{MicroUsd, Price},
    receipt::{Countersign, JobReceipt, JobStatus},
};
use std::collections::BTreeSet;

fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).expect("a valid scalar")
}

/// A receipt of job `job` that worker `worker` finished at `finished`, countersigned or not.
fn receipt(job: u8, worker: u8, finished: u64, countersigned: bool) -> SignedReceipt {
    let network = NetworkId::default();
    let (worker, buyer) = (key(worker), key(200));
    let price = Price { input: MicroUsd(100_000), output: MicroUsd(400_000) };
    let body = JobReceipt {
        job: JobId([job; 16]),
        accept: Hash([1; 32]),
        buyer: buyer.id(),
        worker: worker.id(),
        workload: "infernet.inference".into(),
        model: "tiny-chat".into(),
        weights: None,
        input_tokens: 10,
        output_tokens: 20,
        price,
        amount: price.cost(10, 20).expect("fits"),
        paid: MicroUsd(0),
        started: UnixMillis(0),
        finished: UnixMillis(finished),
        status: JobStatus::COMPLETED,
        request: Hash([2; 32]),
        transcript: Hash([3; 32]),
    };
    let receipt = worker.sign(&network, body).expect("signs");
    let agreement = Countersign { receipt: receipt.digest(), issued: UnixMillis(finished) };
    let countersign = countersigned.then(|| buyer.sign(&network, agreement).expect("signs"));
    SignedReceipt::new(receipt, countersign).expect("belongs together")
}

/// Runs `check` on a fresh one of every store.
fn each(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::default());
    let home = tempfile::tempdir().expect("a directory");
    check(&*open(home.path(), &NetworkId::default()).expect("opens"));
}

fn jobs(receipts: &[SignedReceipt]) -> Vec<u8> {
    receipts.iter().map(|r| r.receipt().job.as_bytes()[0]).collect()
}

#[test]
fn a_receipt_is_kept_once_as_it_was_signed() {
    each(|store| {
        let signed = receipt(1, 1, 1000, true);
        assert_eq!(store.put_receipt(&signed), Ok(Put::New));
        assert_eq!(store.put_receipt(&signed), Ok(Put::Known));
        let read = store.receipts_of(&JobId([1; 16])).unwrap();
        assert_eq!(read.iter().map(SignedReceipt::encode).collect::<Vec<_>>(), [signed.encode()]);
        assert!(store.receipts_of(&JobId([2; 16])).unwrap().is_empty());
    });
}

#[test]
fn a_countersignature_is_gained_and_never_lost() {
    each(|store| {
        store.put_receipt(&receipt(1, 1, 1000, false)).unwrap();
        assert_eq!(store.counts(), Ok(Counts { receipts: 1, countersigned: 0, unreadable: 0 }));
        assert_eq!(store.put_receipt(&receipt(1, 1, 1000, true)), Ok(Put::Countersigned));
        assert_eq!(store.put_receipt(&receipt(1, 1, 1000, false)), Ok(Put::Known));
        assert_eq!(store.counts(), Ok(Counts { receipts: 1, countersigned: 1, unreadable: 0 }));
        assert!(store.receipts(Page::newest(9)).unwrap().iter().all(|r| r.countersign().is_some()));
    });
}

#[test]
fn of_two_stories_the_first_is_kept_unless_the_buyer_signed_the_second() {
    each(|store| {
        let finished = |store: &dyn Store| {
            store.receipts(Page::newest(9)).unwrap().iter().map(|r| r.receipt().finished.0).collect::<Vec<_>>()
        };
        store.put_receipt(&receipt(1, 1, 1000, false)).unwrap();
        assert_eq!(store.put_receipt(&receipt(1, 1, 2000, false)), Ok(Put::Conflicting));
        assert_eq!(finished(store), [1000]);
        assert_eq!(store.put_receipt(&receipt(1, 1, 3000, true)), Ok(Put::Countersigned));
        assert_eq!(store.put_receipt(&receipt(1, 1, 4000, true)), Ok(Put::Conflicting));
        assert_eq!(finished(store), [3000], "one entry in the index of time, too");
    });
}

#[test]
fn a_job_that_failed_over_has_a_receipt_of_each_worker() {
    each(|store| {
        store.put_receipt(&receipt(1, 1, 1000, true)).unwrap();
        store.put_receipt(&receipt(1, 2, 1000, true)).unwrap();
        store.put_receipt(&receipt(2, 1, 1000, true)).unwrap();
        let workers: BTreeSet<_> = store.receipts_of(&JobId([1; 16])).unwrap().iter().map(|r| r.receipt().worker).collect();
        assert_eq!(workers, BTreeSet::from([key(1).id(), key(2).id()]));
        assert_eq!(store.counts().unwrap().receipts, 3);
    });
}

#[test]
fn pages_go_back_in_time_without_gap_or_repeat() {
    each(|store| {
        for (job, finished) in [(1, 10), (2, 30), (3, 20), (4, 20), (5, 20)] {
            store.put_receipt(&receipt(job, 1, finished, true)).unwrap();
        }
        assert_eq!(jobs(&store.receipts(Page::newest(usize::MAX)).unwrap()), [2, 5, 4, 3, 1]);
        let mut seen = Vec::new();
        let mut page = Page::newest(2);
        loop {
            let receipts = store.receipts(page).unwrap();
            let Some(last) = receipts.last() else { break };
            page.before = Some(Position::of(last));
            seen.extend(jobs(&receipts));
        }
        assert_eq!(seen, [2, 5, 4, 3, 1]);
        assert!(store.receipts(Page::newest(0)).unwrap().is_empty());
    });
}

#[test]
fn ad_numbers_grow_even_if_the_clock_does_not() {
    each(|store| {
        let numbers = [1000, 1000, 500, 5000].map(|now| store.next_ad_sequence(UnixMillis(now)).unwrap());
        assert_eq!(numbers, [1000, 1001, 1002, 5000]);
    });
}

#[test]
fn peers_are_bounded() {
    each(|store| {
        assert!(store.peers().unwrap().is_empty());
        let peers: Vec<String> = (0..100).map(|n| format!("/ip4/192.0.2.{n}/tcp/46337")).collect();
        store.put_peers(&[&["x".repeat(MAX_PEER_BYTES + 1)], &peers[..]].concat()).unwrap();
        assert_eq!(store.peers().unwrap(), peers[..MAX_PEERS]);
        store.put_peers(&peers[..1]).unwrap();
        assert_eq!(store.peers().unwrap(), peers[..1]);
        store.flush().unwrap();
    });
}

#[test]
fn a_restart_forgets_nothing() {
    let home = tempfile::tempdir().unwrap();
    let network = NetworkId::default();
    let store = open(home.path(), &network).unwrap();
    store.put_receipt(&receipt(1, 1, 1000, false)).unwrap();
    store.put_peers(&["/ip4/192.0.2.1/tcp/46337".into()]).unwrap();
    let before = store.next_ad_sequence(UnixMillis(7)).unwrap();
    drop(store);

    let store = open(home.path(), &network).unwrap();
    assert_eq!(jobs(&store.receipts(Page::newest(9)).unwrap()), [1]);
    assert_eq!(store.counts().unwrap().receipts, 1);
    assert_eq!(store.peers().unwrap().len(), 1);
    assert!(store.next_ad_sequence(UnixMillis(7)).unwrap() > before);
}

#[test]
fn networks_do_not_mix() {
    let home = tempfile::tempdir().unwrap();
    open(home.path(), &NetworkId::default()).unwrap().put_receipt(&receipt(1, 1, 1000, true)).unwrap();
    for other in ["test", "..", "."] {
        let store = open(home.path(), &other.parse().unwrap()).unwrap();
        assert!(store.receipts(Page::newest(9)).unwrap().is_empty(), "{other}");
    }
}

#[test]
fn a_second_process_is_told_which_home_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let _first = open(home.path(), &NetworkId::default()).unwrap();
    let error = open(home.path(), &NetworkId::default()).err().expect("is locked");
    assert_eq!(error, StoreError::Locked { home: home.path().into() });
    assert!(error.to_string().contains("--home"));
}

#[test]
fn unreadable_rows_are_skipped_counted_and_replaceable() {
    let home = tempfile::tempdir().unwrap();
    let store = SledStore::open(home.path(), &NetworkId::default()).unwrap();
    store.put_receipt(&receipt(1, 1, 1000, true)).unwrap();
    store.damage_rows();
    assert!(store.receipts(Page::newest(9)).unwrap().is_empty());
    assert!(store.receipts_of(&JobId([1; 16])).unwrap().is_empty());
    assert_eq!(store.counts().unwrap().unreadable, 2);
    assert_eq!(store.put_receipt(&receipt(1, 1, 2000, true)), Ok(Put::New));
    assert_eq!(jobs(&store.receipts(Page::newest(9)).unwrap()), [1]);
    assert_eq!((store.counts().unwrap().receipts, store.counts().unwrap().countersigned), (1, 1));
}

/// Fills a store, breaks one of its files and opens it again.
fn check_damage(file: &str, damage: impl Fn(&mut Vec<u8>)) {
    let home = tempfile::tempdir().unwrap();
    let network = NetworkId::default();
    let store = open(home.path(), &network).unwrap();
    (1..20).for_each(|job| assert_eq!(store.put_receipt(&receipt(job, 1, 1000, true)), Ok(Put::New)));
    drop(store);
    let path = home.path().join("store-main").join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(path, bytes).unwrap();
    let error = open(home.path(), &network).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("move that directory away"), "{file}: {error}");
}

#[test]
fn a_damaged_store_says_what_to_do() {
    check_damage("conf", |bytes| bytes.fill(0xaa));
    check_damage("db", |bytes| bytes.fill(0xaa));
    check_damage("db", |bytes| bytes[..64].fill(0));
}

#[test]
fn a_home_that_is_no_directory_is_an_error_of_the_disk() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(file.path(), &NetworkId::default()).err().expect("can't open");
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}
