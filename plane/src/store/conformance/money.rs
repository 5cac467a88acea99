//! Balances: what is reserved, settled, granted. Nothing is spent twice.

use super::{Both, NOW, RACERS, clients::client, hash, job_id, later, name};
use crate::store::{ClientId, Entry, EntryKind, Reservation, Reserved, Settled, Store, WebJobId};
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

async fn reserve(store: &dyn Store, wish: &Reservation, expected: Reserved) {
    assert_eq!(store.reserve(wish).await, Ok(expected));
}

async fn settle(store: &dyn Store, job: &WebJobId, cost: u64, expected: Settled) {
    assert_eq!(store.settle(job, MicroUsd(cost), later(5)).await, Ok(expected));
}

pub(super) async fn conform(both: &Both) {
    a_reservation_becomes_its_cost_once(both).await;
    a_balance_is_reserved_once(both).await;
    a_key_has_its_day(both).await;
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
        async move { store.settle(&job, MicroUsd(120), later(5)).await.expect("an answer") }
    });
    assert_eq!(told.await.into_iter().filter(|told| *told == Settled::Yes).count(), 1, "it is settled once");
    assert_eq!(money(store, &id).await, (880, 0));
    store.reserve(&first).await.expect_err("a job that was settled reserves nothing");
    let second = wish(&id, 880);
    reserve(store, &second, Reserved::Yes).await;
    settle(store, &second.job, 5000, Settled::Yes).await;
    assert_eq!(money(store, &id).await, (0, 0), "a cost is at most what was reserved");
    settle(store, &job_id(), 1, Settled::Nothing).await;
    let free = wish(&id, 0);
    reserve(store, &free, Reserved::Yes).await;
    settle(store, &free.job, 0, Settled::Yes).await;
    settle(store, &free.job, 0, Settled::Nothing).await;
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
        async move { store.reserve(&wish).await.expect("an answer") }
    });
    let told = told.await;
    assert_eq!(told.iter().filter(|told| **told == Reserved::Yes).count(), 5, "{told:?}");
    assert_eq!(told.iter().filter(|told| **told == Reserved::Balance(MicroUsd(0))).count(), RACERS - 5);
    assert_eq!(money(both.store(), &id).await, (500, 500));
}

async fn a_key_has_its_day(both: &Both) {
    let store = both.store();
    let (id, key) = (rich(store, 100_000).await, hash());
    let midnight = UnixMillis(NOW.0 / 86_400_000 * 86_400_000 + 86_400_000);
    let by = |key: Hash, most: u64, now: UnixMillis| Reservation {
        key: Some(key),
        key_per_day: Some(MicroUsd(300)),
        now,
        ..wish(&id, most)
    };
    let told = both.race(|store, _| {
        let wish = by(key, 100, NOW);
        async move { (wish.job.clone(), store.reserve(&wish).await.expect("an answer")) }
    });
    let told = told.await;
    let held: Vec<&WebJobId> = told.iter().filter(|(_, told)| *told == Reserved::Yes).map(|(job, _)| job).collect();
    assert_eq!(held.len(), 3, "{told:?}");
    assert_eq!(money(store, &id).await, (100_000, 300));
    reserve(store, &by(key, 1, NOW), Reserved::KeyDay(MicroUsd(0))).await;
    reserve(store, &by(hash(), 300, NOW), Reserved::Yes).await;
    let unlimited = Reservation { key_per_day: None, ..by(key, 10, NOW) };
    reserve(store, &unlimited, Reserved::Yes).await;
    settle(store, held[0], 40, Settled::Yes).await;
    reserve(store, &by(key, 60, NOW), Reserved::KeyDay(MicroUsd(50))).await;
    reserve(store, &by(key, 50, NOW), Reserved::Yes).await;
    let tomorrow = by(key, 300, midnight);
    reserve(store, &tomorrow, Reserved::Yes).await;
    // Yesterday's job gives back to its own day.
    settle(store, held[1], 0, Settled::Yes).await;
    reserve(store, &by(key, 1, midnight), Reserved::KeyDay(MicroUsd(0))).await;
    reserve(store, &by(key, 100, UnixMillis(midnight.0 - 1)), Reserved::Yes).await;
    let entries = store.entries(&id, None, 1).await.expect("entries");
    assert_eq!(entries[0].key, Some(key), "an entry tells with which key");
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
