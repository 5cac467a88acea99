//! Jobs of web clients.

use super::{Both, NOW, RACERS, hash, job_id, later, name, pubkey};
use crate::store::{
    ClientId, Idempotency, Inserted, JobError, JobQuery, JobRow, JobStatus, MAX_PAGE, Store, StoredText, WebJobId,
};
use infernet_wire::{
    id::{Hash, NodeId},
    money::MicroUsd,
    time::UnixMillis,
};

pub(super) fn row(client: &ClientId, created: UnixMillis) -> JobRow {
    JobRow {
        id: job_id(),
        client: client.clone(),
        model: "qwen2.5:7b".into(),
        status: JobStatus::Pending,
        created,
        updated: created,
        started: None,
        ended: None,
        worker: None,
        legacy: None,
        input_tokens: None,
        output_tokens: None,
        budget: MicroUsd(500),
        cost: None,
        ttft_ms: None,
        receipt: None,
        error: None,
        idempotency: None,
        text: None,
        lease: None,
    }
}

fn client() -> ClientId {
    ClientId(name("cl_"))
}

fn query(client: &ClientId) -> JobQuery {
    JobQuery { client: Some(client.clone()), limit: MAX_PAGE, ..JobQuery::default() }
}

async fn ids(store: &dyn Store, query: &JobQuery) -> Vec<WebJobId> {
    store.jobs(query).await.expect("a page").into_iter().map(|job| job.id).collect()
}

pub(super) async fn conform(both: &Both) {
    a_job_is_kept_whole(both.store()).await;
    a_text_is_kept_until_another_is(both.store()).await;
    an_idempotency_key_has_one_job(both).await;
    a_job_changes_only_from_where_it_may(both).await;
    queries_find_the_newest_first(both.store()).await;
    stranded_jobs_are_found(both.store()).await;
    old_jobs_are_forgotten(both.store()).await;
}

async fn old_jobs_are_forgotten(store: &dyn Store) {
    let client = client();
    let wish = Idempotency { key: name(""), request: super::hash() };
    let over = |created: u64| JobRow {
        status: JobStatus::Completed,
        ended: Some(UnixMillis(created + 1)),
        ..row(&client, UnixMillis(created))
    };
    let text = Some(StoredText { request: "r".into(), answer: "a".repeat(300_000) });
    let old = JobRow { idempotency: Some(wish.clone()), text, ..over(1_000) };
    let (runs, young) = (row(&client, UnixMillis(1_001)), over(9_000));
    for job in [&old, &runs, &young] {
        assert_eq!(store.insert_job(job).await, Ok(Inserted::New));
    }
    while store.forget_jobs(UnixMillis(2_000)).await.expect("forgotten") > 0 {}
    assert_eq!(ids(store, &query(&client)).await, [young.id, runs.id], "what is not over stays");
    assert_eq!(store.job(&old.id).await, Ok(None));
    let namesake = JobRow { id: old.id.clone(), ..row(&client, NOW) };
    assert_eq!(store.insert_job(&namesake).await, Ok(Inserted::New));
    assert_eq!(store.job(&old.id).await, Ok(Some(namesake)), "its text is gone, too");
    let again = JobRow { idempotency: Some(wish), ..row(&client, NOW) };
    assert_eq!(store.insert_job(&again).await, Ok(Inserted::New), "and its idempotency key is free");
}

async fn a_job_is_kept_whole(store: &dyn Store) {
    let full = JobRow {
        status: JobStatus::Failed,
        started: Some(later(1)),
        ended: Some(later(2)),
        worker: Some(NodeId([2; 33])),
        legacy: Some(pubkey()),
        input_tokens: Some(u32::MAX),
        output_tokens: Some(0),
        cost: Some(MicroUsd(0)),
        ttft_ms: Some(12),
        receipt: Some(hash()),
        error: Some(JobError { code: "no_capacity".into(), message: "nobody, 'now'".into() }),
        idempotency: Some(Idempotency { key: name("k"), request: hash() }),
        text: Some(StoredText { request: "{\"a\":\"ü\"}".into(), answer: "x".repeat(100_000) }),
        lease: Some(("one".into(), later(30))),
        ..row(&client(), NOW)
    };
    for job in [full, row(&client(), NOW)] {
        assert_eq!(store.insert_job(&job).await, Ok(Inserted::New));
        assert_eq!(store.job(&job.id).await, Ok(Some(job.clone())));
        store.insert_job(&JobRow { idempotency: None, ..job }).await.expect_err("a name is used once");
    }
    assert_eq!(store.job(&job_id()).await, Ok(None));
}

async fn a_text_is_kept_until_another_is(store: &dyn Store) {
    let job = row(&client(), NOW);
    store.insert_job(&job).await.expect("inserted");
    let text = |letter: &str, length| StoredText { request: "\0?".into(), answer: letter.repeat(length) };
    // Longer and shorter than what a store keeps in one piece.
    for kept in [text("a", 3), text("ü", 1_000_000), text("b", 300_000), text("c", 0)] {
        assert_eq!(store.put_text(&job.id, &kept).await, Ok(true));
        let whole = JobRow { text: Some(kept), ..job.clone() };
        assert_eq!(store.job(&job.id).await, Ok(Some(whole.clone())));
        assert_eq!(store.jobs(&query(&job.client)).await, Ok(vec![job.clone()]), "a list is without texts");
        assert_eq!(
            store.update_job(&[JobStatus::Pending], &JobRow { text: Some(text("x", 1)), ..job.clone() }).await,
            Ok(true)
        );
        assert_eq!(store.job(&job.id).await, Ok(Some(whole)), "a change of status does not touch it");
    }
    let last = text("d", 600_000);
    let over = JobRow { status: JobStatus::Completed, cost: Some(MicroUsd(0)), text: Some(last.clone()), ..job.clone() };
    assert_eq!(store.end_job(&over, None).await, Ok(Some(MicroUsd(0))));
    assert_eq!(store.job(&job.id).await, Ok(Some(over.clone())), "it is whole at the end");
    assert_eq!(store.put_text(&job.id, &text("e", 1)).await, Ok(false), "and stays so");
    assert_eq!(store.job(&job.id).await, Ok(Some(over)));
    assert_eq!(store.put_text(&job_id(), &text("e", 1)).await, Ok(false), "there is no such job");
}

async fn an_idempotency_key_has_one_job(both: &Both) {
    let (store, mine, request) = (both.store(), client(), hash());
    let wish = |request: Hash| Some(Idempotency { key: "the same".into(), request });
    let told = both.race(|store, _| {
        let job = JobRow { idempotency: wish(request), ..row(&mine, NOW) };
        async move { (job.id.clone(), store.insert_job(&job).await.expect("an answer")) }
    });
    let told = told.await;
    let new: Vec<_> = told.iter().filter(|(_, inserted)| *inserted == Inserted::New).collect();
    assert_eq!(new.len(), 1, "of all who ask at once one makes the job");
    let same = |inserted: &Inserted| matches!(inserted, Inserted::Same(job) if job.id == new[0].0);
    assert_eq!(told.iter().filter(|(_, inserted)| same(inserted)).count(), RACERS - 1, "the others are told of it");
    let another = JobRow { idempotency: wish(hash()), ..row(&mine, NOW) };
    assert_eq!(store.insert_job(&another).await, Ok(Inserted::Conflict));
    assert_eq!(store.job(&another.id).await, Ok(None));
    let others = JobRow { idempotency: wish(request), ..row(&client(), NOW) };
    assert_eq!(store.insert_job(&others).await, Ok(Inserted::New), "another client's keys are others");
}

async fn a_job_changes_only_from_where_it_may(both: &Both) {
    let (store, mine) = (both.store(), client());
    let job = row(&mine, NOW);
    store.insert_job(&job).await.expect("inserted");
    let running = JobRow { status: JobStatus::Running, updated: later(1), legacy: Some(pubkey()), ..job.clone() };
    assert_eq!(store.update_job(&[JobStatus::Assigned], &running).await, Ok(false));
    assert_eq!(store.job(&job.id).await, Ok(Some(job.clone())), "nothing was changed");
    assert_eq!(store.update_job(&[JobStatus::Pending, JobStatus::Assigned], &running).await, Ok(true));
    assert_eq!(store.job(&job.id).await, Ok(Some(running.clone())));
    assert_eq!(store.update_job(&[JobStatus::Pending], &row(&mine, NOW)).await, Ok(false), "there is no such job");
    let ends = [JobStatus::Completed, JobStatus::Cancelled];
    let told = both.race(|store, racer| {
        let over = JobRow { status: ends[racer / 2 % 2], ..running.clone() };
        async move { store.update_job(&[JobStatus::Running], &over).await.expect("an answer") }
    });
    assert_eq!(told.await.into_iter().filter(|changed| *changed).count(), 1, "it ends once");
    let pending = JobQuery { status: Some(JobStatus::Pending), ..query(&mine) };
    assert_eq!(ids(store, &pending).await, [], "it is found as what it is");
}

async fn queries_find_the_newest_first(store: &dyn Store) {
    let (mine, daemon) = (client(), pubkey());
    let mut jobs = Vec::new();
    for seconds in [1, 2, 2, 3] {
        jobs.push(row(&mine, later(seconds)));
    }
    jobs[0].status = JobStatus::Completed;
    jobs[1].model = "other".into();
    jobs[3].legacy = Some(daemon);
    for job in jobs.iter().chain([&row(&client(), later(2))]) {
        store.insert_job(job).await.expect("inserted");
    }
    jobs.sort_by(|a, b| (b.created, &b.id.0).cmp(&(a.created, &a.id.0)));
    let all: Vec<WebJobId> = jobs.iter().map(|job| job.id.clone()).collect();
    let of = |keep: fn(&JobRow) -> bool| -> Vec<WebJobId> {
        jobs.iter().filter(|job| keep(job)).map(|job| job.id.clone()).collect()
    };
    assert_eq!(ids(store, &query(&mine)).await, all);
    assert_eq!(ids(store, &JobQuery { limit: 2, ..query(&mine) }).await, all[..2]);
    for at in 0..all.len() {
        let before = Some((jobs[at].created, jobs[at].id.clone()));
        assert_eq!(ids(store, &JobQuery { before, ..query(&mine) }).await, all[at + 1..], "the page after {at}");
    }
    let pending = JobQuery { status: Some(JobStatus::Pending), ..query(&mine) };
    assert_eq!(ids(store, &pending).await, of(|job| job.status == JobStatus::Pending));
    let model = JobQuery { model: Some("other".into()), ..query(&mine) };
    assert_eq!(ids(store, &model).await, of(|job| job.model == "other"));
    let since = JobQuery { since: Some(later(2)), ..query(&mine) };
    assert_eq!(ids(store, &since).await, of(|job| job.created >= later(2)));
    let legacy = JobQuery { client: None, legacy: Some(daemon), ..query(&mine) };
    assert_eq!(ids(store, &legacy).await, of(|job| job.legacy.is_some()));
    let anyones = JobQuery { client: None, status: Some(JobStatus::Completed), ..query(&mine) };
    assert!(ids(store, &anyones).await.contains(&all[3]));
    let anything = JobQuery { client: None, ..query(&mine) };
    assert!(ids(store, &anything).await.contains(&all[3]));
    assert_eq!(ids(store, &query(&client())).await, []);
}

async fn stranded_jobs_are_found(store: &dyn Store) {
    let mine = client();
    let leased =
        |until: UnixMillis, status: JobStatus| JobRow { lease: Some(("gone".into(), until)), status, ..row(&mine, NOW) };
    let lost = leased(UnixMillis(1), JobStatus::Running);
    let waiting = leased(UnixMillis(2), JobStatus::Pending);
    let alive = leased(UnixMillis(4), JobStatus::Running);
    let over = leased(UnixMillis(1), JobStatus::Completed);
    for job in [&waiting, &lost, &alive, &over, &row(&mine, NOW)] {
        store.insert_job(job).await.expect("inserted");
    }
    let stranded = async |now: u64, limit| -> Vec<WebJobId> {
        let found = store.stranded(UnixMillis(now), limit).await.expect("a page");
        found.into_iter().filter(|job| job.client == mine).map(|job| job.id).collect()
    };
    assert_eq!(stranded(3, MAX_PAGE).await, [lost.id.clone(), waiting.id.clone()], "the longest gone first");
    assert_eq!(stranded(2, MAX_PAGE).await, vec![lost.id.clone()], "a lease holds until it is over");
    let failed = JobRow { status: JobStatus::Failed, ..lost };
    assert_eq!(store.update_job(&[JobStatus::Running], &failed).await, Ok(true));
    let renewed = JobRow { lease: Some(("alive".into(), later(9))), ..waiting };
    assert_eq!(store.update_job(&[JobStatus::Pending], &renewed).await, Ok(true));
    assert_eq!(stranded(3, MAX_PAGE).await, []);
    // For the next who looks into this store.
    for job in [renewed, alive] {
        store.update_job(&[job.status], &JobRow { status: JobStatus::Cancelled, ..job.clone() }).await.expect("changed");
    }
}
