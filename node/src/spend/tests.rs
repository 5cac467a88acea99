//! Stories of caps.

use super::*;

const DAY: u32 = 20_000;

fn caps(per_request: Option<u64>, per_day: Option<u64>) -> Caps {
    Caps { per_request: per_request.map(MicroUsd), per_day: per_day.map(MicroUsd) }
}

fn record(key: &str, authorised: u64) -> SpendRecord {
    SpendRecord { key: key.into(), day: DAY, authorised: MicroUsd(authorised), spent: MicroUsd(0) }
}

/// Draws as a purse does, and counts what it would have written.
fn draw(book: &mut Book, accounts: &[(&str, Caps)], day: u32, most: u64, log: &mut Vec<SpendRecord>) -> Result<Draw, CapError> {
    loop {
        match book.draw(accounts, day, MicroUsd(most))? {
            Decision::Drawn(draw) => return Ok(draw),
            Decision::Extend(records) => {
                records.iter().for_each(|record| book.extended(record));
                log.extend(records);
            }
        }
    }
}

#[test]
fn a_request_gets_at_most_its_cap() {
    let (mut book, mut log) = (Book::default(), Vec::new());
    let got = draw(&mut book, &[(ALL, caps(Some(10), None))], DAY, 100, &mut log).unwrap();
    assert_eq!(got.most, MicroUsd(10));
    assert!(log.is_empty(), "without a daily cap nothing is written");
}

#[test]
fn what_is_not_used_is_free_again() {
    let (mut book, mut log, all) = (Book::default(), Vec::new(), [(ALL, caps(None, Some(100)))]);
    let first = draw(&mut book, &all, DAY, 80, &mut log).unwrap();
    let second = draw(&mut book, &all, DAY, 80, &mut log).unwrap();
    assert_eq!(second.most, MicroUsd(20), "what is left");
    let full = draw(&mut book, &all, DAY, 1, &mut log).unwrap_err();
    assert!(full.to_string().contains("100 reserved by jobs under way"), "{full}");
    book.settle(&first, MicroUsd(5), MicroUsd(0));
    book.settle(&second, MicroUsd(20), MicroUsd(0));
    assert_eq!(book.used(ALL), (MicroUsd(25), MicroUsd(0)));
    assert_eq!(draw(&mut book, &all, DAY, 80, &mut log).unwrap().most, MicroUsd(75));
}

#[test]
fn what_was_promised_for_nothing_counts_beside_a_jobs_budget() {
    let (mut book, mut log, all) = (Book::default(), Vec::new(), [(ALL, caps(None, Some(100)))]);
    let job = draw(&mut book, &all, DAY, 50, &mut log).unwrap();
    book.settle(&job, MicroUsd(50), MicroUsd(40));
    assert_eq!(book.used(ALL), (MicroUsd(90), MicroUsd(0)));
    assert_eq!(draw(&mut book, &all, DAY, 50, &mut log).unwrap().most, MicroUsd(10));
}

#[test]
fn tranches_spare_the_disk() {
    let (mut book, mut log, all) = (Book::default(), Vec::new(), [(ALL, caps(None, Some(64_000)))]);
    for _ in 0..6_400 {
        let job = draw(&mut book, &all, DAY, 10, &mut log).unwrap();
        book.settle(&job, MicroUsd(10), MicroUsd(0));
    }
    assert_eq!(log.len(), 64);
    assert!(draw(&mut book, &all, DAY, 10, &mut log).is_err());
}

#[test]
fn a_key_has_its_own_cap_beside_everybodys() {
    let (mut book, mut log) = (Book::default(), Vec::new());
    let accounts = |key| [(ALL, caps(None, Some(100))), (key, caps(None, Some(60)))];
    assert_eq!(draw(&mut book, &accounts("a"), DAY, 80, &mut log).unwrap().most, MicroUsd(60));
    let error = draw(&mut book, &accounts("a"), DAY, 1, &mut log).unwrap_err();
    assert!(error.to_string().contains("of the key \"a\""), "{error}");
    assert_eq!(draw(&mut book, &accounts("b"), DAY, 80, &mut log).unwrap().most, MicroUsd(40));
}

#[test]
fn midnight_begins_anew_and_late_jobs_belong_to_yesterday() {
    let (mut book, mut log, all) = (Book::default(), Vec::new(), [(ALL, caps(None, Some(100)))]);
    let late = draw(&mut book, &all, DAY, 100, &mut log).unwrap();
    let next = draw(&mut book, &all, DAY + 1, 100, &mut log).unwrap();
    assert_eq!(next.most, MicroUsd(100));
    book.settle(&late, MicroUsd(100), MicroUsd(0));
    assert_eq!(book.used(ALL), (MicroUsd(0), MicroUsd(100)));
    assert_eq!(log.iter().map(|r| r.day).collect::<Vec<_>>(), [DAY, DAY + 1]);
}

#[test]
fn after_a_crash_all_that_was_authorised_counts() {
    let mut book =
        Book::recover([record(ALL, 70), record("a", 10), SpendRecord { day: DAY - 1, ..record(ALL, 99) }], MicroUsd(0), DAY);
    assert_eq!(book.used(ALL).0, MicroUsd(70));
    let mut log = Vec::new();
    assert_eq!(draw(&mut book, &[(ALL, caps(None, Some(100)))], DAY, 80, &mut log).unwrap().most, MicroUsd(30));
}

#[test]
fn what_was_spent_before_there_was_a_cap_counts() {
    let all = [(ALL, caps(None, Some(100)))];
    let mut book = Book::recover([record(ALL, 10)], MicroUsd(90), DAY);
    assert_eq!(book.used(ALL).0, MicroUsd(90));
    let mut log = Vec::new();
    assert_eq!(draw(&mut book, &all, DAY, 80, &mut log).unwrap().most, MicroUsd(10));
    assert_eq!(log, [record(ALL, 100)].map(|of| SpendRecord { spent: MicroUsd(90), ..of }), "and is written down from now on");
    let full = draw(&mut Book::recover([], MicroUsd(300), DAY), &all, DAY, 80, &mut Vec::new()).unwrap_err();
    assert!(matches!(&full, CapError::Day { spent: MicroUsd(300), .. }), "{full}");
    assert_eq!(Book::recover([record(ALL, 70)], MicroUsd(60), DAY).used(ALL).0, MicroUsd(70), "a crash may have cost more");
}

#[test]
fn an_orderly_stop_writes_the_truth() {
    let (mut book, mut log, all) = (Book::default(), Vec::new(), [(ALL, caps(None, Some(6_400)))]);
    let job = draw(&mut book, &all, DAY, 50, &mut log).unwrap();
    book.settle(&job, MicroUsd(3), MicroUsd(0));
    assert_eq!(log, [record(ALL, 100)], "one step");
    let closing = book.closing();
    assert_eq!(closing, [SpendRecord { spent: MicroUsd(3), ..record(ALL, 3) }]);
    assert_eq!(Book::recover(closing, MicroUsd(0), DAY).used(ALL).0, MicroUsd(3));
}

#[test]
fn keys_are_counted_up_to_a_bound() {
    let (mut book, mut log) = (Book::default(), Vec::new());
    for n in 0..MAX_ACCOUNTS {
        draw(&mut book, &[(&n.to_string(), caps(None, Some(1)))], DAY, 1, &mut log).unwrap();
    }
    assert_eq!(draw(&mut book, &[("one more", caps(None, Some(1)))], DAY, 1, &mut log), Err(CapError::Accounts));
}

/// Any order of jobs, ends and crashes: what was really spent never exceeds the cap, and nothing is spent unwritten.
#[test]
fn no_crash_lets_a_day_exceed_its_cap() {
    let all = [(ALL, caps(None, Some(1_000)))];
    for seed in 0..200_u64 {
        let (mut book, mut log, mut running, mut truth) = (Book::default(), Vec::new(), Vec::<Draw>::new(), 0);
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..200 {
            match random(10) {
                0 => {
                    // A crash: jobs under way may have cost their most, and nobody settles them.
                    truth += running.drain(..).map(|job| job.most.0).sum::<u64>();
                    book = Book::recover(log.last().cloned(), MicroUsd(0), DAY);
                }
                1..=5 => running.extend(draw(&mut book, &all, DAY, random(100) + 1, &mut log)),
                _ => {
                    if let Some(job) = running.pop() {
                        let cost = random(job.most.0 + 1);
                        truth += cost;
                        book.settle(&job, MicroUsd(cost), MicroUsd(0));
                    }
                }
            }
            let written = log.last().map_or(0, |record| record.authorised.0);
            let possible = truth + running.iter().map(|job| job.most.0).sum::<u64>();
            assert!(possible <= written && written <= 1_000, "seed {seed}: {possible} of {written}");
        }
    }
}
