//! Balances: what is reserved, settled, granted. Nothing is spent twice.

use super::{Both, NOW, RACERS, clients::client, hash, job_id, jobs::row, later, name};
use crate::store::{
    ClientId, Entry, EntryKind, JobRow, JobStatus, Renewal, Reservation, Reserved, Store, StoreError, WebJobId,
};
use infernet_node::date::DAY_MS;
use infernet_wire::{id::Hash, money::MicroUsd, time::UnixMillis};

fn entry(client: &ClientId, kind: EntryKind, amount: i64, reference: &str) -> Entry {
    Entry { number: 0, client: client.clone(), kind, amount, reference: reference.into(), key: None, at: NOW }
}

async fn rich(store: &dyn Store, amount: i64) -> ClientId {
    let id = client(store).await;
    assert_eq!(store.add_entry(&entry(&id, EntryKind::Grant, amount, &name("grant "))).await, Ok(true));
    id
}

fn wish(client: &ClientId, most: u64) -> Reservation {
    Reservation { job: job_id(), client: client.clone(), key: None, most: MicroUsd(most), key_per_day: None, now: NOW }
}

/// Balance and what of it is reserved.
async fn money(store: &dyn Store, id: &ClientId) -> (u64, u64) {
    let row = store.client(id).await.expect("read").expect("a client");
    (row.balance.0, row.reserved.0)
}

/// Reserves for a job that is there.
async fn ask(store: &dyn Store, wish: &Reservation) -> Result<Reserved, StoreError> {
    let job = JobRow { id: wish.job.clone(), lease: Some(("one".into(), later(30))), ..row(&wish.client, wish.now) };
    // It may be there already.
    let _ = store.insert_job(&job).await;
    store.reserve(wish).await
}

async fn reserve(store: &dyn Store, wish: &Reservation, expected: Reserved) {
    assert_eq!(ask(store, wish).await, Ok(expected));
}

/// The end of a job that cost so much.
async fn ended(store: &dyn Store, job: &WebJobId, cost: u64) -> JobRow {
    let row = store.job(job).await.expect("read").expect("a job");
    let (status, cost) = (JobStatus::Completed, Some(MicroUsd(cost)));
    JobRow { status, cost, updated: later(5), ended: Some(later(5)), lease: None, ..row }
}

async fn settle(store: &dyn Store, job: &WebJobId, cost: u64, expected: Option<u64>) {
    let row = ended(store, job, cost).await;
    assert_eq!(store.end_job(&row, None).await, Ok(expected.map(MicroUsd)));
}

pub(super) async fn conform(both: &Both) {
    a_reservation_becomes_its_cost_once(both).await;
    a_balance_is_reserved_once(both).await;
    a_key_has_its_day(both).await;
    nobody_waits_for_who_waits_for_them(both).await;
    a_job_that_is_over_holds_nothing(both).await;
    a_lease_that_is_renewed_is_not_over(both).await;
    an_entry_counts_once(both).await;
    a_balance_is_the_sum_of_its_entries(both.store()).await;
}

async fn a_reservation_becomes_its_cost_once(both: &Both) {
    let store = both.store();
    let id = rich(store, 1000).await;
    let first = wish(&id, 300);
    reserve(store, &first, Reserved::Yes).await;
    assert_eq!(money(store, &id).await, (1000, 300));
    reserve(store, &first, Reserved::Yes).await;
    assert_eq!(money(store, &id).await, (1000, 300), "a job reserves once");
    reserve(store, &wish(&id, 701), Reserved::Balance(MicroUsd(700))).await;
    assert_eq!(money(store, &id).await, (1000, 300), "a refusal changes nothing");
    let told = both.race(|store, _| {
        let job = first.job.clone();
        async move { store.end_job(&ended(&*store, &job, 120).await, None).await.expect("an answer") }
    });
    let told: Vec<MicroUsd> = told.await.into_iter().flatten().collect();
    assert_eq!(told, [MicroUsd(120)], "it is settled once");
    assert_eq!(money(store, &id).await, (880, 0));
    store.reserve(&first).await.expect_err("a job that was settled reserves nothing");
    let second = wish(&id, 880);
    reserve(store, &second, Reserved::Yes).await;
    settle(store, &second.job, 5000, Some(880)).await;
    assert_eq!(ended(store, &second.job, 0).await.status, JobStatus::Completed);
    let shown = store.job(&second.job).await.expect("read").expect("a job").cost;
    assert_eq!(shown, Some(MicroUsd(880)), "the row says what was charged");
    assert_eq!(money(store, &id).await, (0, 0), "a cost is at most what was reserved");
    let unreserved = row(&id, NOW);
    store.insert_job(&unreserved).await.expect("inserted");
    settle(store, &unreserved.id, 1, Some(0)).await;
    assert_eq!(store.end_job(&row(&id, NOW), None).await, Ok(None), "there is no such job");
    let free = wish(&id, 0);
    reserve(store, &free, Reserved::Yes).await;
    settle(store, &free.job, 0, Some(0)).await;
    settle(store, &free.job, 0, None).await;
    let entries = store.entries(&id, None, 10).await.expect("entries");
    let shown: Vec<(EntryKind, i64, &str)> = entries.iter().map(|e| (e.kind, e.amount, e.reference.as_str())).collect();
    let jobs = [(EntryKind::Job, -880, second.job.0.as_str()), (EntryKind::Job, -120, first.job.0.as_str())];
    assert_eq!(shown[..2], jobs, "the newest first; what cost nothing is no entry");
    assert_eq!(entries[0].at, later(5));
    reserve(store, &wish(&ClientId(name("cl_")), 1), Reserved::Balance(MicroUsd(0))).await;
}

async fn a_balance_is_reserved_once(both: &Both) {
    let id = rich(both.store(), 500).await;
    let told = both.race(|store, _| {
        let wish = wish(&id, 100);
        async move { ask(&*store, &wish).await.expect("an answer") }
    });
    let told = told.await;
    assert_eq!(told.iter().filter(|told| **told == Reserved::Yes).count(), 5, "{told:?}");
    assert_eq!(told.iter().filter(|told| **told == Reserved::Balance(MicroUsd(0))).count(), RACERS - 5);
    assert_eq!(money(both.store(), &id).await, (500, 500));
}

async fn a_key_has_its_day(both: &Both) {
    let store = both.store();
    let (id, key) = (rich(store, 100_000).await, hash());
    let midnight = UnixMillis(NOW.0 / DAY_MS * DAY_MS + DAY_MS);
    let by = |key: Hash, most: u64, now: UnixMillis| Reservation {
        key: Some(key),
        key_per_day: Some(MicroUsd(300)),
        now,
        ..wish(&id, most)
    };
    let told = both.race(|store, _| {
        let wish = by(key, 100, NOW);
        async move { (wish.job.clone(), ask(&*store, &wish).await.expect("an answer")) }
    });
    let told = told.await;
    let held: Vec<&WebJobId> = told.iter().filter(|(_, told)| *told == Reserved::Yes).map(|(job, _)| job).collect();
    assert_eq!(held.len(), 3, "{told:?}");
    assert_eq!(money(store, &id).await, (100_000, 300));
    reserve(store, &by(key, 1, NOW), Reserved::KeyDay(MicroUsd(0))).await;
    reserve(store, &by(hash(), 300, NOW), Reserved::Yes).await;
    let unlimited = Reservation { key_per_day: None, ..by(key, 10, NOW) };
    reserve(store, &unlimited, Reserved::Yes).await;
    settle(store, held[0], 40, Some(40)).await;
    reserve(store, &by(key, 60, NOW), Reserved::KeyDay(MicroUsd(50))).await;
    reserve(store, &by(key, 50, NOW), Reserved::Yes).await;
    let tomorrow = by(key, 300, midnight);
    reserve(store, &tomorrow, Reserved::Yes).await;
    // Yesterday's job gives back to its own day.
    settle(store, held[1], 0, Some(0)).await;
    reserve(store, &by(key, 1, midnight), Reserved::KeyDay(MicroUsd(0))).await;
    reserve(store, &by(key, 100, UnixMillis(midnight.0 - 1)), Reserved::Yes).await;
    let entries = store.entries(&id, None, 1).await.expect("entries");
    assert_eq!(entries[0].key, Some(key), "an entry tells with which key");
}

/// Those who reserve and those who settle want the same rows, all at the same time.
async fn nobody_waits_for_who_waits_for_them(both: &Both) {
    const TURNS: usize = 20;
    let (id, key) = (rich(both.store(), 1_000_000).await, hash());
    let told = both.race(|store, racer| {
        let id = id.clone();
        async move {
            let mut told = Vec::new();
            for turn in 0..TURNS {
                let wish = Reservation { key: Some(key), key_per_day: Some(MicroUsd(1_000_000)), ..wish(&id, 100) };
                told.push(ask(&*store, &wish).await.map(|_| ()));
                let cost = (racer + turn) as u64;
                told.push(store.end_job(&ended(&*store, &wish.job, cost).await, None).await.map(|_| ()));
            }
            told
        }
    });
    let failed: Vec<StoreError> = told.await.into_iter().flatten().filter_map(Result::err).collect();
    assert_eq!(failed, []);
    let spent: usize = (0..RACERS).map(|racer| (0..TURNS).map(|turn| racer + turn).sum::<usize>()).sum();
    assert_eq!(money(both.store(), &id).await, (1_000_000 - spent as u64, 0));
}

/// Whoever gave up waiting for a reservation ends the job; the reservation may come after that.
async fn a_job_that_is_over_holds_nothing(both: &Both) {
    let store = both.store();
    let id = rich(store, 100_000).await;
    let late = wish(&id, 300);
    store.insert_job(&JobRow { id: late.job.clone(), ..row(&id, NOW) }).await.expect("inserted");
    settle(store, &late.job, 0, Some(0)).await;
    store.reserve(&late).await.expect_err("the job is over");
    store.reserve(&wish(&id, 1)).await.expect_err("there is no such job");
    let stolen = wish(&rich(store, 10).await, 5);
    store.insert_job(&JobRow { id: stolen.job.clone(), ..row(&id, NOW) }).await.expect("inserted");
    store.reserve(&stolen).await.expect_err("it is another's job");
    assert_eq!(money(store, &id).await, (100_000, 0));
    for _ in 0..20 {
        let wish = wish(&id, 10);
        store.insert_job(&JobRow { id: wish.job.clone(), ..row(&id, NOW) }).await.expect("inserted");
        let over = ended(store, &wish.job, 0).await;
        both.race(|store, racer| {
            let (wish, over) = (wish.clone(), over.clone());
            async move {
                match racer {
                    2 => store.end_job(&over, None).await.map(|_| ()).expect("an answer"),
                    _ => drop(store.reserve(&wish).await),
                }
            }
        })
        .await;
        assert_eq!(money(store, &id).await, (100_000, 0), "whoever is first, nothing stays reserved");
    }
}

/// An instance that is only slow renews its leases while another ends what is stranded: one of them is right.
async fn a_lease_that_is_renewed_is_not_over(both: &Both) {
    let store = both.store();
    let id = rich(store, 1_000).await;
    let begin = async |lease: UnixMillis| {
        let wish = wish(&id, 10);
        let job = JobRow { id: wish.job.clone(), lease: Some(("slow".into(), lease)), ..row(&id, NOW) };
        store.insert_job(&job).await.expect("inserted");
        reserve(store, &wish, Reserved::Yes).await;
        job
    };
    let renewal = |job: &JobRow| Renewal { id: job.id.clone(), output_tokens: Some(3), cost: Some(MicroUsd(4)) };
    let job = begin(later(1)).await;
    let over = ended(store, &job.id, 4).await;
    assert_eq!(store.end_job(&over, Some(later(1))).await, Ok(None), "a lease holds until it is over");
    assert_eq!(store.renew_jobs("other", &[renewal(&job)], later(9)).await, Ok(vec![job.id.clone()]), "it is not its job");
    assert_eq!(store.job(&job.id).await, Ok(Some(job.clone())));
    assert_eq!(store.renew_jobs("slow", &[renewal(&job)], later(9)).await, Ok(vec![]));
    let renewed =
        JobRow { output_tokens: Some(3), cost: Some(MicroUsd(4)), lease: Some(("slow".into(), later(9))), ..job.clone() };
    assert_eq!(store.job(&job.id).await, Ok(Some(renewed.clone())));
    let silent = Renewal { output_tokens: None, cost: None, ..renewal(&job) };
    assert_eq!(store.renew_jobs("slow", &[silent], later(9)).await, Ok(vec![]));
    assert_eq!(store.job(&job.id).await, Ok(Some(renewed)), "what is noted stays");
    assert_eq!(store.end_job(&over, Some(later(2))).await, Ok(None), "it was renewed");
    assert_eq!(store.want_cancel(&job.id).await, Ok(true));
    assert_eq!(
        store.renew_jobs("slow", &[renewal(&job)], later(9)).await,
        Ok(vec![job.id.clone()]),
        "somebody wants it cancelled"
    );
    assert_eq!(store.end_job(&over, Some(later(10))).await, Ok(Some(MicroUsd(4))));
    assert_eq!(store.renew_jobs("slow", &[renewal(&job)], later(20)).await, Ok(vec![job.id.clone()]), "it is over");
    assert_eq!(store.job(&job.id).await, Ok(Some(over)), "and stays as it was");
    assert_eq!(store.want_cancel(&job.id).await, Ok(false));
    assert_eq!(store.want_cancel(&job_id()).await, Ok(false));
    for _ in 0..20 {
        let job = begin(later(1)).await;
        let over = ended(store, &job.id, 1).await;
        let told = both.race(|store, racer| {
            let (over, renewal) = (over.clone(), renewal(&job));
            async move {
                match racer % 4 {
                    0 | 1 => store.renew_jobs("slow", &[renewal], later(9)).await.map(|lost| lost.is_empty()),
                    _ => store.end_job(&over, Some(later(2))).await.map(|ended| ended.is_some()),
                }
                .expect("an answer")
            }
        });
        let told = told.await;
        let is_over = store.job(&job.id).await.expect("read").expect("a job").status.is_over();
        let ends = told.iter().enumerate().filter(|(racer, told)| racer % 4 > 1 && **told).count();
        let renewals = told.iter().enumerate().filter(|(racer, told)| racer % 4 < 2 && **told).count();
        assert_eq!((ends, renewals), if is_over { (1, 0) } else { (0, RACERS / 2) }, "{told:?}");
        if !is_over {
            settle(store, &job.id, 1, Some(1)).await;
        }
    }
    assert_eq!(money(store, &id).await, (1_000 - 4 - 20, 0));
}

async fn an_entry_counts_once(both: &Both) {
    let store = both.store();
    let (id, other) = (client(store).await, client(store).await);
    let deposit = entry(&id, EntryKind::Deposit, 50, &name("0x"));
    let told = both.race(|store, _| {
        let deposit = deposit.clone();
        async move { store.add_entry(&deposit).await.expect("an answer") }
    });
    assert_eq!(told.await.into_iter().filter(|is_new| *is_new).count(), 1);
    assert_eq!(money(store, &id).await, (50, 0));
    let stolen = Entry { client: other.clone(), ..deposit.clone() };
    assert_eq!(store.add_entry(&stolen).await, Ok(false), "whoever's it is");
    assert_eq!(money(store, &other).await, (0, 0));
    let grant = Entry { kind: EntryKind::Grant, ..deposit.clone() };
    assert_eq!(store.add_entry(&grant).await, Ok(true), "another kind's references are others");
    assert_eq!(store.add_entry(&grant).await, Ok(false), "a client's grant counts once");
    let others = Entry { client: rich(store, 1).await, ..grant.clone() };
    assert_eq!(store.add_entry(&others).await, Ok(true), "another client's grant is another, though it has the same words");
    assert_eq!(money(store, &id).await, (100, 0));
    let job = entry(&id, EntryKind::Job, -1, &name("job_"));
    store.add_entry(&job).await.expect_err("a job is settled, not added");
    let nobody = entry(&ClientId(name("cl_")), EntryKind::Grant, 1, &name("x"));
    store.add_entry(&nobody).await.expect_err("there is no such client");
    let huge = entry(&id, EntryKind::Grant, i64::MAX, &name("x"));
    assert_eq!(store.add_entry(&huge).await, Ok(false), "a balance that no store could hold");
    assert_eq!(money(store, &id).await, (100, 0));
    // What is reserved can't be withdrawn.
    reserve(store, &wish(&id, 60), Reserved::Yes).await;
    let take = |amount| entry(&id, EntryKind::Withdrawal, amount, &name("w"));
    assert_eq!(store.add_entry(&take(-41)).await, Ok(false));
    assert_eq!(store.add_entry(&take(i64::MIN)).await, Ok(false));
    let told = both.race(|store, _| {
        let take = take(-10);
        async move { store.add_entry(&take).await.expect("an answer") }
    });
    assert_eq!(told.await.into_iter().filter(|done| *done).count(), 4);
    assert_eq!(money(store, &id).await, (60, 60));
}

async fn a_balance_is_the_sum_of_its_entries(store: &dyn Store) {
    let id = rich(store, 100).await;
    for amount in [5, 6, 7, 8] {
        let entry = entry(&id, EntryKind::Deposit, amount, &name("d"));
        assert_eq!(store.add_entry(&entry).await, Ok(true));
    }
    let all = store.entries(&id, None, 10).await.expect("entries");
    assert_eq!(all.len(), 5);
    assert!(all.windows(2).all(|pair| pair[0].number > pair[1].number), "numbers grow");
    assert_eq!(all.iter().map(|entry| entry.amount).sum::<i64>(), 126);
    assert_eq!(money(store, &id).await, (126, 0));
    let page = store.entries(&id, Some(all[1].number), 2).await.expect("entries");
    assert_eq!(page, all[2..4]);
}
