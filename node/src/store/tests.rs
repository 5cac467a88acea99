//! One suite for every store, and what only the one on disk can get wrong.

use super::{
    journal::{
        Sizes,
        test_disk::{Names, Tear, TestDisk},
    },
    *,
};
use crate::store::durable::DurableStore;
use infernet_wire::{
    id::Hash,
    key::NodeKey,
    money::{MicroUsd, Price},
    receipt::{Countersign, JobReceipt, JobStatus},
};
use std::{collections::BTreeSet, fs, path::Path};

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
        paid_on: None,
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
    check(&journaled(&TestDisk::default()));
}

fn journaled(disk: &TestDisk) -> JournaledStore {
    JournaledStore::open(disk.clone(), &NetworkId::default(), [7; 16], SignedReceipt::decode_stored).expect("opens")
}

#[test]
fn a_simulated_disk_keeps_what_was_promised_over_a_crash() {
    let disk = TestDisk::default();
    let store = journaled(&disk);
    assert_eq!(store.put_receipt(&receipt(1, 1, 1000, false)), Ok(Put::New));
    assert_eq!(store.put_receipt(&receipt(1, 1, 1000, true)), Ok(Put::Countersigned));
    assert_eq!(store.accept_command(&key(9).id(), 5), Ok(true));
    let sequence = store.next_ad_sequence(UnixMillis(7)).unwrap();
    let found = journaled(&disk.after_crash(Tear::LOST));
    assert_eq!(found.counts(), Ok(Counts { receipts: 1, countersigned: 1, unreadable: 0 }));
    assert_eq!(found.accept_command(&key(9).id(), 5), Ok(false));
    assert!(found.next_ad_sequence(UnixMillis(7)).unwrap() > sequence);
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
fn spend_is_what_was_said_last_of_each_key_and_day() {
    each(|store| {
        let say =
            |key: &str, day, spent| SpendRecord { key: key.into(), day, authorised: MicroUsd(100), spent: MicroUsd(spent) };
        for record in [say("", 7, 1), say("ci", 7, 2), say("", 8, 3), say("", 7, 4), say("", 300, 5)] {
            store.put_spend(&record).unwrap();
        }
        assert_eq!(store.spend_since(7).unwrap(), [say("", 7, 4), say("ci", 7, 2), say("", 8, 3), say("", 300, 5)]);
        assert_eq!(store.spend_since(8).unwrap(), [say("", 8, 3), say("", 300, 5)]);
        assert_eq!(store.spend_since(301).unwrap(), []);
        let long = say(&"k".repeat(MAX_SPEND_KEY_BYTES + 1), 7, 1);
        assert_eq!(store.put_spend(&long), Err(StoreError::KeyTooLong { bytes: MAX_SPEND_KEY_BYTES + 1 }));
    });
}

#[test]
fn a_command_is_obeyed_once_and_in_order() {
    each(|store| {
        let (one, two) = (key(1).id(), key(2).id());
        let obeyed = [(one, 5), (one, 5), (one, 4), (two, 1), (one, 6), (two, 1)];
        let obeyed = obeyed.map(|(operator, sequence)| store.accept_command(&operator, sequence).unwrap());
        assert_eq!(obeyed, [true, false, false, true, true, false]);
    });
}

#[test]
fn one_command_sent_to_many_threads_is_obeyed_by_one() {
    each(|store| {
        let obeyed = std::thread::scope(|scope| {
            let ask = || store.accept_command(&key(1).id(), 9).expect("the store answers");
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("ends")).filter(|obeyed| *obeyed).count()
        });
        assert_eq!(obeyed, 1);
    });
}

#[test]
fn a_tab_is_of_a_side_a_pair_and_a_channel_and_what_was_kept_last() {
    each(|store| {
        let [me, former, one, two] = [1, 2, 3, 4].map(|n| key(n).id());
        let ledger = TabOf::ledger;
        let on = |channel: u8| TabOf { channel: Some(ChannelId([channel; 32])), ..ledger(Side::Sold, me, one) };
        for (of, tab) in [
            (ledger(Side::Sold, me, one), 1),
            (ledger(Side::Sold, me, two), 2),
            (ledger(Side::Bought, me, one), 3),
            (ledger(Side::Sold, former, one), 4),
            (ledger(Side::Sold, me, one), 5),
            (on(7), 6),
            (on(6), 7),
        ] {
            futures::executor::block_on(store.keep_tab(&of, vec![tab])).unwrap();
        }
        let tab = |side, me, other| store.tab(&ledger(side, me, other)).unwrap();
        assert_eq!([tab(Side::Sold, me, one), tab(Side::Sold, me, two)], [Some(vec![5]), Some(vec![2])]);
        assert_eq!([tab(Side::Bought, me, one), tab(Side::Sold, former, one)], [Some(vec![3]), Some(vec![4])]);
        assert_eq!([tab(Side::Bought, me, two), tab(Side::Bought, former, one)], [None, None]);
        assert_eq!([store.tab(&on(6)), store.tab(&on(8))], [Ok(Some(vec![7])), Ok(None)]);
        let mut sold = vec![
            (ledger(Side::Sold, me, one), vec![5]),
            (on(6), vec![7]),
            (on(7), vec![6]),
            (ledger(Side::Sold, me, two), vec![2]),
        ];
        sold.sort();
        assert_eq!(store.tabs(Side::Sold, &me, None).unwrap(), sold);
        assert_eq!(store.tabs(Side::Sold, &me, Some(&sold[0].0)).unwrap(), sold[1..]);
        assert_eq!(store.tabs(Side::Bought, &me, None).unwrap(), [(ledger(Side::Bought, me, one), vec![3])]);
    });
}

#[test]
fn a_step_is_what_was_kept_last_under_its_number() {
    each(|store| {
        for (number, step) in [(2, 1), (1 << 63, 2), (1, 3), (2, 4)] {
            futures::executor::block_on(store.keep_step(number, vec![step])).unwrap();
        }
        assert_eq!(store.steps(0).unwrap(), [(1, vec![3]), (2, vec![4]), (1 << 63, vec![2])]);
        assert_eq!(store.steps(3).unwrap(), [(1 << 63, vec![2])]);
    });
}

#[test]
fn others_ad_sequences_are_replaced_and_bounded() {
    each(|store| {
        assert!(store.ad_sequences().unwrap().is_empty());
        let many: Vec<_> = (0..MAX_AD_SEQUENCES as u64 + 5).map(|n| (NodeId([n as u8; 33]), n)).collect();
        store.put_ad_sequences(&many).unwrap();
        assert_eq!(store.ad_sequences().unwrap(), many[..MAX_AD_SEQUENCES]);
        store.put_ad_sequences(&many[7..9]).unwrap();
        assert_eq!(store.ad_sequences().unwrap(), many[7..9]);
    });
}

#[test]
fn whether_there_is_a_receipt_is_known_by_job_and_worker() {
    each(|store| {
        store.put_receipt(&receipt(1, 1, 1000, false)).unwrap();
        let has = |job, worker| store.has_receipt(&JobId([job; 16]), &key(worker).id()).unwrap();
        assert_eq!([has(1, 1), has(1, 2), has(2, 1)], [true, false, false]);
        store.accepts_work().unwrap();
    });
}

#[test]
fn many_receipts_at_once_are_each_kept_once() {
    each(|store| {
        let receipts: Vec<_> = (0..40).map(|job| receipt(job, 1, 1000 + u64::from(job), true)).collect();
        let waiting: Vec<_> = receipts.iter().chain(&receipts).map(|receipt| store.keep_receipt(receipt)).collect();
        let kept = futures::executor::block_on(futures::future::join_all(waiting));
        assert_eq!(kept.iter().filter(|put| **put == Ok(Put::New)).count(), 40);
        assert_eq!(kept.iter().filter(|put| **put == Ok(Put::Known)).count(), 40);
        assert_eq!(store.counts(), Ok(Counts { receipts: 40, countersigned: 40, unreadable: 0 }));
    });
}

/// The store on disk, with what only tests may touch.
fn durable(home: &Path) -> DurableStore {
    super::open::open(home, &NetworkId::default(), |disk| disk).expect("opens")
}

/// A home with twenty receipts, a spend record and an obeyed command.
fn filled() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fill(&durable(home.path()));
    home
}

fn a_tab() -> TabOf {
    TabOf::ledger(Side::Sold, key(1).id(), key(2).id())
}

fn fill(store: &dyn Store) {
    (1..20).for_each(|job| assert_eq!(store.put_receipt(&receipt(job, 1, 1000, false)), Ok(Put::New)));
    (1..10).for_each(|job| assert_eq!(store.put_receipt(&receipt(job, 1, 1000, true)), Ok(Put::Countersigned)));
    store.put_spend(&SpendRecord { key: "".into(), day: 1, authorised: MicroUsd(2), spent: MicroUsd(1) }).unwrap();
    assert_eq!(store.accept_command(&key(3).id(), 8), Ok(true));
    (1..3).for_each(|tab| assert_eq!(store.put_tab(&a_tab(), vec![tab]), Ok(())));
    (1..3).for_each(|step| assert_eq!(store.put_step(4, vec![step]), Ok(())));
    assert_eq!(store.next_ad_sequence(UnixMillis(5_000)), Ok(5_000));
}

fn check_filled(store: &dyn Store, what: &str) {
    let receipts = store.receipts(Page::newest(99)).unwrap();
    assert_eq!(receipts.len(), 19, "{what}");
    assert_eq!(store.counts(), Ok(Counts { receipts: 19, countersigned: 9, unreadable: 0 }), "{what}");
    assert_eq!(receipts.iter().filter(|receipt| receipt.countersign().is_some()).count(), 9, "{what}");
    assert_eq!(store.spend_since(0).unwrap().len(), 1, "{what}");
    assert_eq!(store.accept_command(&key(3).id(), 8), Ok(false), "{what}");
    assert_eq!(store.tab(&a_tab()), Ok(Some(vec![2])), "{what}");
    assert_eq!(store.steps(0), Ok(vec![(4, vec![2])]), "{what}");
    assert!(store.next_ad_sequence(UnixMillis(0)).unwrap() > 5_000, "{what}");
}

fn set_aside(home: &Path) -> usize {
    let names = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("store-main.damaged-")).count()
}

#[test]
fn a_deleted_index_comes_back() {
    let home = filled();
    check_filled(&durable(home.path()), "as it was left");
    fs::remove_dir_all(home.path().join("store-main")).unwrap();
    check_filled(&durable(home.path()), "made anew");
    assert_eq!(set_aside(home.path()), 0);
}

#[test]
fn a_damaged_index_is_moved_aside_and_made_anew() {
    check_damage("conf", true, |bytes| bytes.fill(0xaa));
    check_damage("db", true, |bytes| bytes.fill(0xaa));
    check_damage("db", true, |bytes| bytes[..64].fill(0));
    // A lost tail is no damage: it is read from the journal again.
    check_damage("db", false, |bytes| bytes.truncate(bytes.len() / 2));
}

fn check_damage(file: &str, is_noticed: bool, damage: impl Fn(&mut Vec<u8>)) {
    let home = filled();
    let path = home.path().join("store-main").join(file);
    let mut bytes = fs::read(&path).unwrap();
    damage(&mut bytes);
    fs::write(path, bytes).unwrap();
    check_filled(&durable(home.path()), file);
    check_filled(&durable(home.path()), file);
    assert_eq!(set_aside(home.path()), usize::from(is_noticed), "{file}");
}

#[test]
fn damaged_rows_are_skipped_counted_and_healed_by_a_restart() {
    let home = filled();
    let store = durable(home.path());
    store.index_now().damage_rows();
    assert!(store.receipts(Page::newest(9)).unwrap().is_empty());
    assert!(store.receipts_of(&JobId([1; 16])).unwrap().is_empty());
    assert_eq!(store.counts().unwrap().unreadable, 20);
    assert_eq!(store.put_receipt(&receipt(11, 1, 2000, true)), Ok(Put::New), "a row that can't be read is replaced");
    assert_eq!(jobs(&store.receipts(Page::newest(1)).unwrap()), [11]);
    assert_eq!(store.counts().unwrap().receipts, 19);
    drop(store);
    let store = durable(home.path());
    assert_eq!(store.counts(), Ok(Counts { receipts: 19, countersigned: 10, unreadable: 0 }));
    assert_eq!(store.receipts(Page::newest(99)).unwrap().len(), 19);
    assert_eq!(set_aside(home.path()), 1);
}

#[test]
fn only_the_first_damaged_indexes_are_kept() {
    let home = filled();
    for _ in 0..5 {
        fs::write(home.path().join("store-main").join("db"), [0xaa; 100_000]).unwrap();
        check_filled(&durable(home.path()), "each time");
    }
    assert_eq!(set_aside(home.path()), 3);
}

#[test]
fn an_index_that_lags_is_brought_up_to_date() {
    let home = tempfile::tempdir().unwrap();
    let store = durable(home.path());
    store.put_receipt(&receipt(100, 1, 1, true)).unwrap();
    drop(store);
    let (index, copy) = (home.path().join("store-main"), home.path().join("copy"));
    copy_dir(&index, &copy);
    fill(&durable(home.path()));
    fs::remove_dir_all(&index).unwrap();
    fs::rename(&copy, &index).unwrap();
    let store = durable(home.path());
    assert_eq!(store.counts(), Ok(Counts { receipts: 20, countersigned: 10, unreadable: 0 }));
    assert_eq!(store.receipts(Page::newest(99)).unwrap().len(), 20);
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy_dir(&entry.path(), &to) } else { assert!(fs::copy(entry.path(), to).is_ok()) }
    }
}

#[test]
fn without_its_journal_an_index_gives_back_the_receipts() {
    let home = filled();
    fs::remove_dir_all(home.path().join("journal-main")).unwrap();
    for what in ["taken over", "kept"] {
        let store = durable(home.path());
        assert_eq!(store.counts(), Ok(Counts { receipts: 19, countersigned: 9, unreadable: 0 }), "{what}");
        assert!(store.next_ad_sequence(UnixMillis(0)).unwrap() > 5_000, "{what}");
    }
    fs::remove_dir_all(home.path().join("store-main")).unwrap();
    assert_eq!(durable(home.path()).counts().unwrap().receipts, 19);
}

#[test]
fn a_home_from_before_the_journal_is_taken_over() {
    let home = tempfile::tempdir().unwrap();
    sled::write_old_store(&home.path().join("store-main"), &[receipt(1, 1, 1000, true), receipt(2, 1, 2000, false)]);
    for what in ["taken over", "kept"] {
        let store = durable(home.path());
        assert_eq!(jobs(&store.receipts(Page::newest(9)).unwrap()), [2, 1], "{what}");
        assert_eq!(store.counts(), Ok(Counts { receipts: 2, countersigned: 1, unreadable: 0 }), "{what}");
        assert_eq!(store.peers().unwrap(), ["/ip4/192.0.2.1/tcp/1"], "{what}");
        assert!(store.next_ad_sequence(UnixMillis(0)).unwrap() > 77, "{what}");
    }
    assert!(!home.path().join("store-main.migrating").exists());
    fs::remove_dir_all(home.path().join("store-main")).unwrap();
    assert_eq!(durable(home.path()).counts().unwrap().receipts, 2, "the journal has them");
}

#[test]
fn ads_need_no_sync_each_and_go_on_behind_a_kill() {
    let home = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let open = |disk: &TestDisk| open_on(disk, home.path());
    let store = open(&disk);
    let before = disk.operations();
    let numbers: Vec<u64> = (0..8).map(|n| store.next_ad_sequence(UnixMillis(1_000_000 + n * 35_000)).unwrap()).collect();
    assert!(disk.operations() - before <= 2, "one record and its sync for eight ads");
    let killed = disk.after_crash(Tear::LOST);
    drop(store);
    let store = open(&killed);
    assert!(store.next_ad_sequence(UnixMillis(0)).unwrap() > numbers[7]);
    store.flush().unwrap();
    let exact = store.next_ad_sequence(UnixMillis(0)).unwrap();
    store.flush().unwrap();
    drop(store);
    assert_eq!(open(&killed.after_crash(Tear::LOST)).next_ad_sequence(UnixMillis(0)), Ok(exact + 1));
}

fn open_on(disk: &TestDisk, home: &Path) -> DurableStore {
    let sizes = Sizes { segment: 4_000, reserve: 3_000 };
    super::open::open_on(std::sync::Arc::new(disk.clone()), None, home, &NetworkId::default(), sizes).expect("opens")
}

#[test]
fn a_full_disk_takes_running_receipts_and_no_new_work() {
    let (home, disk) = (tempfile::tempdir().unwrap(), TestDisk::default());
    let store = open_on(&disk, home.path());
    disk.limit(Some(disk.used() + 100));
    assert_eq!(store.put_receipt(&receipt(1, 1, 1000, true)), Ok(Put::New), "from the reserve");
    let error = store.accepts_work().unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }) && error.to_string().contains("free some space"), "{error}");
    let refused = (2..20).find(|job| store.put_receipt(&receipt(*job, 1, 1000, true)).is_err()).expect("the reserve ends");
    assert!(!store.has_receipt(&JobId([refused; 16]), &key(1).id()).unwrap(), "what was refused is not there");
    disk.limit(None);
    assert_eq!(store.put_receipt(&receipt(refused, 1, 1000, true)), Ok(Put::New), "and can be tried again");
}

#[test]
fn a_disk_that_fails_to_sync_ends_the_promises() {
    let (home, disk) = (tempfile::tempdir().unwrap(), TestDisk::default());
    let store = open_on(&disk, home.path());
    disk.fail_sync_in(1);
    let error = store.put_receipt(&receipt(1, 1, 1000, true)).unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    assert!(matches!(store.put_receipt(&receipt(2, 1, 1000, true)), Err(StoreError::Failed { .. })));
    assert!(matches!(store.accept_command(&key(1).id(), 1), Err(StoreError::Failed { .. })));
    assert!(matches!(store.accepts_work(), Err(StoreError::Failed { .. })));
}

#[test]
fn without_its_index_a_store_keeps_receipts_and_obeys_nobody() {
    let home = filled();
    let store = durable(home.path());
    let gone = StoreError::Io { path: home.path().into(), reason: "no room".into() };
    // A reader that is not done yet keeps the index from being opened again.
    let reader = store.index_now();
    store.lose_index(&gone);
    assert_eq!(store.put_receipt(&receipt(50, 1, 5000, true)), Ok(Put::New));
    assert_eq!(store.put_receipt(&receipt(50, 1, 5000, true)), Ok(Put::Known));
    assert_eq!(store.put_receipt(&receipt(1, 1, 1000, false)), Ok(Put::New), "known before; the journal sorts it out");
    assert!(store.accepts_work().is_err() && store.receipts(Page::newest(9)).is_err());
    assert!(store.accept_command(&key(3).id(), 8).is_err(), "it can't know whether it has obeyed that");
    assert_eq!(store.has_receipt(&JobId([50; 16]), &key(1).id()), Ok(true));
    drop(reader);
    let deadline = crate::clock::instant() + std::time::Duration::from_secs(20);
    while store.accepts_work().is_err() {
        assert!(crate::clock::instant() < deadline, "the index comes back");
        std::thread::yield_now();
    }
    assert_eq!(store.counts(), Ok(Counts { receipts: 20, countersigned: 10, unreadable: 0 }));
    assert_eq!(jobs(&store.receipts(Page::newest(1)).unwrap()), [50]);
    assert_eq!(store.accept_command(&key(3).id(), 8), Ok(false));
}

/// Writes from several threads until the disk crashes; the jobs whose receipts were acknowledged.
fn write_until_crash(store: &DurableStore) -> BTreeSet<u8> {
    let write = |worker: u8| {
        let jobs = (0..12).map(move |job| worker * 12 + job);
        jobs.take_while(move |job| {
            let kept = store.put_receipt(&receipt(*job, 1, 1000, false)).is_ok();
            kept && store.put_receipt(&receipt(*job, 1, 1000, true)).is_ok()
        })
        .collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|worker| scope.spawn(move || write(worker))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("ends")).collect()
    })
}

#[test]
fn receipts_acknowledged_to_many_threads_survive_a_crash_at_any_time() {
    for (at, tear) in
        (12..60).step_by(4).zip([Tear::LOST, Tear::KEPT, Tear { kept: 700, garbage: 90, names: Names::Seen }].iter().cycle())
    {
        let (home, disk) = (tempfile::tempdir().unwrap(), TestDisk::default());
        let store = open_on(&disk, home.path());
        disk.crash_at(at);
        let acknowledged = write_until_crash(&store);
        drop(store);
        // Once with the index as it was left, once without.
        for without_index in [false, true] {
            if without_index {
                fs::remove_dir_all(home.path().join("store-main")).unwrap();
            }
            let store = open_on(&disk.after_crash(*tear), home.path());
            let found = store.receipts(Page::newest(999)).unwrap();
            let kept: BTreeSet<u8> = jobs(&found).into_iter().collect();
            assert_eq!(kept.len(), found.len(), "at {at}: none twice");
            assert!(acknowledged.is_subset(&kept), "at {at}: {acknowledged:?} {kept:?}");
        }
    }
}

#[test]
fn a_home_that_is_no_directory_is_an_error_of_the_disk() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(file.path(), &NetworkId::default()).err().expect("can't open");
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}
