//! The journal over a disk that crashes before every operation in turn, loses, tears and garbles what was not synced, fills up,
//! rots, and fails a sync.

use super::{
    kept::{SMALL, Written, append, check_kept, open, record, replayed},
    test_disk::{Names, Tear, TestDisk},
    *,
};
use crate::store::record::Kind;
use proptest::prelude::*;

/// Writes batch after batch until the disk crashes.
fn write(disk: &TestDisk, history: &[Vec<Record>]) -> Written {
    let mut written = Written::default();
    let Ok(mut journal) = open(disk) else { return written };
    for batch in history {
        let mut batch = batch.clone();
        for (record, number) in batch.iter_mut().zip(journal.last() + 1..) {
            record.number = number;
        }
        written.tried.extend(batch.clone());
        match journal.append(&batch) {
            Ok(()) => written.acknowledged.extend(batch),
            Err(_) => break,
        }
    }
    written
}

fn torn(kept: usize, garbage: usize, names: Names) -> Tear {
    Tear { kept, garbage, names }
}

fn tears() -> [Tear; 9] {
    [
        Tear::LOST,
        Tear::KEPT,
        torn(0, 0, Names::Seen),
        torn(0, 0, Names::Fewest),
        torn(1, 0, Names::Synced),
        torn(23, 0, Names::Seen),
        torn(90, 7, Names::Synced),
        torn(0, 200, Names::Seen),
        torn(61, 500, Names::Seen),
    ]
}

/// Crashes before every operation of `history`, in every way, and once more before every operation of the recovery.
fn check_crashes(history: &[Vec<Record>], recoveries_too: bool) {
    let whole = TestDisk::default();
    write(&whole, history);
    for at in 0..=whole.operations() {
        for tear in tears() {
            let disk = TestDisk::default();
            disk.crash_at(at);
            let written = write(&disk, history);
            let what = format!("crash at {at}, {tear:?}");
            check_recovery(&disk.after_crash(tear), &written, &what);
            check_kill(&disk, &written, &what);
            if recoveries_too {
                check_crashed_recoveries(&disk, tear, &written, &what);
            }
        }
    }
}

/// Recovers after a kill, and once more after a crash that comes before anything else is written.
fn check_kill(disk: &TestDisk, written: &Written, what: &str) {
    let killed = disk.after_kill();
    let found = replayed(&mut open(&killed).unwrap_or_else(|error| panic!("{what}: {error}")));
    check_kept(written, &found, what);
    let again = replayed(&mut open(&killed.after_crash(Tear::LOST)).expect("opens"));
    assert!(again == found, "{what}: what was read once is durable");
}

/// Recovers, and goes on writing.
fn check_recovery(disk: &TestDisk, written: &Written, what: &str) {
    let mut journal = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = replayed(&mut journal);
    check_kept(written, &found, what);
    let more = append(&mut journal, vec![record(Kind::SPEND, 200, 1)]).unwrap_or_else(|error| panic!("{what}: {error}"));
    // What was found is durable, and so is what came after.
    let (all, later) = ([found, more].concat(), disk.after_crash(Tear::LOST));
    let again = replayed(&mut open(&later).expect("opens"));
    check_kept(&Written { acknowledged: all.clone(), tried: all }, &again, &format!("{what}, and once more"));
    let copies = later.list().expect("lists").iter().filter(|name| name.contains("damaged")).count();
    let has_garbage = what.matches("garbage: ").count() > what.matches("garbage: 0").count();
    assert!(copies == 0 || has_garbage, "{what}: a crash without garbage is no damage");
}

fn check_crashed_recoveries(disk: &TestDisk, tear: Tear, written: &Written, what: &str) {
    let probe = disk.after_crash(tear);
    replayed(&mut open(&probe).expect("opens"));
    for at in 0..probe.operations() {
        let recovering = disk.after_crash(tear);
        recovering.crash_at(at);
        if let Ok(mut journal) = open(&recovering) {
            let _ = journal.replay(0, &mut |_| {});
        }
        for again in [Tear::LOST, Tear::KEPT, torn(30, 0, Names::Seen)] {
            check_recovery(
                &recovering.after_crash(again),
                written,
                &format!("{what}, then at {at} of the recovery, {again:?}"),
            );
        }
    }
}

/// A history that rolls over and compacts: two receipts per job, spend, commands, leases and a kind from the future.
fn history(batches: u8) -> Vec<Vec<Record>> {
    let batch = |n: u8| match n % 5 {
        0 => vec![record(Kind::RECEIPT, n, 2 * n), record(Kind::SPEND, 1, n)],
        1 => vec![record(Kind::RECEIPT, n - 1, 2 * n + 1)],
        2 => vec![record(Kind::COMMAND, 3, n), record(Kind(77), 3, n), record(Kind::AD_LEASE, 0, n)],
        3 => vec![record(Kind::RECEIPT, n, 2 * n), record(Kind::RECEIPT, n, 2 * n + 1), record(Kind::SPEND, n % 3, n)],
        _ => vec![record(Kind(77), 3, n)],
    };
    (0..batches).map(batch).collect()
}

#[test]
fn a_crash_at_every_point_of_a_long_history_loses_nothing() {
    let history = history(60);
    let disk = TestDisk::default();
    write(&disk, &history);
    let files = disk.list().expect("lists");
    assert!(files.iter().any(|name| Name::parse(name).is_some_and(Name::is_merged)), "the history compacts: {files:?}");
    check_crashes(&history, false);
}

#[test]
fn a_crash_in_a_recovery_loses_nothing() {
    check_crashes(&history(14), true);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_history_and_no_crash_loses_what_was_acknowledged(
        history in prop::collection::vec(prop::collection::vec((1_u16..6, 0_u8..6, any::<u8>()), 1..4), 1..25)
    ) {
        let batches: Vec<Vec<Record>> = history
            .into_iter()
            .map(|batch| batch.into_iter().map(|(kind, subject, body)| record(Kind(kind), subject, body)).collect())
            .collect();
        check_crashes(&batches, false);
    }
}

#[test]
fn compaction_leaves_out_what_is_superseded_and_keeps_what_it_does_not_know() {
    let disk = TestDisk::default();
    let mut journal = open(&disk).unwrap();
    for n in 0..200 {
        append(&mut journal, vec![record(Kind::SPEND, 1, n), record(Kind(77), 1, n)]).unwrap();
    }
    let found = replayed(&mut journal);
    let of = |kind| found.iter().filter(|record| record.kind == kind).count();
    assert_eq!(of(Kind(77)), 200, "a kind from the future is kept as it is");
    assert!(of(Kind::SPEND) < 60, "{}", of(Kind::SPEND));
    assert_eq!(found.iter().rfind(|record| record.kind == Kind::SPEND).unwrap().body, vec![199; 8]);
    assert!(disk.list().unwrap().len() < 20, "{:?}", disk.list());
}

#[test]
fn a_receipt_that_the_buyer_signed_outlives_whatever_comes_after_it() {
    let disk = TestDisk::default();
    let mut journal = open(&disk).unwrap();
    let signed = append(&mut journal, vec![record(Kind::RECEIPT, 1, 1)]).unwrap();
    (0..150).for_each(|_| drop(append(&mut journal, vec![record(Kind::RECEIPT, 1, 2)])));
    assert!(replayed(&mut journal).contains(&signed[0]));
}

#[test]
fn a_part_can_be_replayed() {
    let disk = TestDisk::default();
    let mut journal = open(&disk).unwrap();
    for n in 0..100 {
        append(&mut journal, vec![record(Kind(77), 1, n)]).unwrap();
    }
    for after in [0, 1, 50, 99, 100, 1000] {
        let mut found = Vec::new();
        journal.replay(after, &mut |record| found.push(record.number)).unwrap();
        assert_eq!(found, (after + 1..=100).collect::<Vec<_>>(), "after {after}");
    }
}

/// Writes twenty records, damages the file `name`, and tells what is found after that and how many copies are kept.
fn damaged(name: &str, damage: impl FnOnce(&mut Vec<u8>)) -> (Vec<u64>, usize) {
    let disk = TestDisk::default();
    let mut journal = open(&disk).unwrap();
    for n in 0..20 {
        append(&mut journal, vec![record(Kind(77), 1, n)]).unwrap();
    }
    disk.damage(name, damage);
    let mut journal = open(&disk).expect("opens all the same");
    let found = replayed(&mut journal);
    append(&mut journal, vec![record(Kind(77), 1, 99)]).expect("goes on");
    let copies = disk.list().unwrap().iter().filter(|name| name.contains(".damaged-")).count();
    assert_eq!(replayed(&mut open(&disk).unwrap()).len(), found.len() + 1, "and says so only once");
    (found.into_iter().map(|record| record.number).collect(), copies)
}

#[test]
fn damage_costs_what_it_hit_and_a_copy_is_kept() {
    let frame = 24 + 4 + 8;
    let all_but = |gone: std::ops::RangeInclusive<u64>| (1..=20).filter(|n| !gone.contains(n)).collect::<Vec<_>>();
    let in_record = SEGMENT_HEADER + frame + 30;
    let older = "0000000001.seg";
    assert_eq!(damaged(older, |bytes| bytes[in_record] ^= 1), (all_but(2..=2), 1));
    assert_eq!(damaged(older, |bytes| bytes[3] ^= 1), (all_but(21..=21), 1), "its beginning");
    assert_eq!(damaged(older, |bytes| bytes.truncate(SEGMENT_HEADER + frame + 5)), (all_but(2..=9), 1));
    assert_eq!(damaged(older, Vec::clear), (all_but(1..=9), 1));
    let newest = "0000000003.seg";
    assert_eq!(damaged(newest, |bytes| bytes[SEGMENT_HEADER + 30] ^= 1), (all_but(19..=19), 1), "good ones follow");
    assert_eq!(damaged(newest, |bytes| *bytes.last_mut().unwrap() ^= 1), (all_but(20..=20), 0), "like a torn end");
}

#[test]
fn a_full_disk_settles_what_runs_from_the_reserve_and_recovers_with_room() {
    let disk = TestDisk::default();
    let mut journal = open(&disk).unwrap();
    disk.limit(Some(disk.used() + 50));
    let mut kept = append(&mut journal, vec![record(Kind(77), 1, 1)]).unwrap();
    assert_eq!(journal.health(), &Health::Good);
    let small = || vec![record(Kind(77), 1, 2)];
    while let Ok(records) = append(&mut journal, small()) {
        assert_eq!(journal.health(), &Health::Full, "from the reserve");
        kept.extend(records);
    }
    assert!(kept.len() > 5, "the reserve has room for some: {}", kept.len());
    journal.try_recover();
    assert_eq!(journal.health(), &Health::Full, "there is no room yet");
    assert!(matches!(append(&mut journal, small()), Err(JournalError::Full)));
    assert_eq!(replayed(&mut open(&disk.after_crash(Tear::KEPT)).unwrap()), kept, "a write that did not fit leaves nothing");
    disk.limit(None);
    kept.extend(append(&mut journal, small()).unwrap());
    journal.try_recover();
    assert_eq!(journal.health(), &Health::Good);
    assert_eq!(replayed(&mut journal), kept);
    assert_eq!(disk.len(RESERVE).unwrap(), SMALL.reserve as u64);
}

#[test]
fn a_full_disk_at_any_byte_loses_nothing_acknowledged() {
    let history = history(30);
    let whole = TestDisk::default();
    write(&whole, &history);
    for room in (SMALL.reserve + SEGMENT_HEADER..whole.used() + 200).step_by(13) {
        let disk = TestDisk::default();
        disk.limit(Some(room));
        let written = write(&disk, &history);
        let found = replayed(&mut open(&disk.after_crash(Tear::LOST)).unwrap());
        check_kept(&written, &found, &format!("room for {room}"));
    }
}

#[test]
fn after_a_failed_sync_nothing_is_accepted() {
    for nth in 1..12 {
        let disk = TestDisk::default();
        let mut journal = open(&disk).unwrap();
        disk.fail_sync_in(nth);
        let history = history(30);
        let outcomes: Vec<bool> = history.into_iter().map(|batch| append(&mut journal, batch).is_ok()).collect();
        let good = outcomes.iter().take_while(|ok| **ok).count();
        assert!(good < outcomes.len() && outcomes[good..].iter().all(|ok| !ok), "sync {nth}: {outcomes:?}");
        assert!(matches!(journal.health(), Health::Failed(_)));
        journal.try_recover();
        assert!(matches!(append(&mut journal, vec![record(Kind(77), 1, 1)]), Err(JournalError::Failed(_))));
    }
}

#[test]
fn a_newer_versions_journal_is_left_alone() {
    let disk = TestDisk::default();
    drop(open(&disk).unwrap());
    disk.damage("0000000001.seg", |bytes| {
        bytes[8] = 2;
        let sum = crc(&bytes[..SEGMENT_HEADER - 4]);
        bytes[SEGMENT_HEADER - 4..SEGMENT_HEADER].copy_from_slice(&sum);
    });
    let error = open(&disk).err().expect("refuses").to_string();
    assert!(error.contains("newer infernet"), "{error}");
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    Seed::of(&NetworkId::default()).checksum(bytes)
}

#[test]
fn a_real_directory_does_the_same() {
    let home = tempfile::tempdir().unwrap();
    let open = || {
        let disk = RealDisk::open(home.path().join("journal-main")).unwrap();
        Journal::open(Arc::new(disk), &NetworkId::default(), [7; 16], SMALL).unwrap()
    };
    let mut journal = open();
    let written: Vec<Record> = (0..100).flat_map(|n| append(&mut journal, vec![record(Kind(77), 1, n)]).unwrap()).collect();
    drop(journal);
    assert_eq!(replayed(&mut open()), written);
}
