//! Jobs: bought, followed, resumed, cancelled, paid.

use super::*;
use infernet_plane::{
    gateway::NewJob,
    store::{Idempotency, JobError, JobQuery, JobRow, JobStatus, Reservation, Reserved, WebJobId},
};
use infernet_testnet::demo::order;
use infernet_wire::hash;
use std::pin::pin;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_the_workers_answer_and_the_job_tells_the_rest() {
    let network = Network::start().await;
    let accepted = network.submit("one two three", json!({})).await;
    // A quick worker may have it before the answer is written.
    assert!(["pending", "assigned"].contains(&accepted["status"].as_str().unwrap_or_default()), "{accepted}");
    assert_eq!(accepted["model"], CHAT_MODEL);
    let stream = network.stream(&accepted["id"]).await;
    assert_eq!((stream.text.as_str(), stream.done, stream.error), ("one two three", true, None));
    let job = network.job(&accepted["id"]).await;
    assert_eq!(job["status"], "completed");
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6 });
    assert_eq!(job["result"], json!({ "content": "one two three", "finish_reason": "stop", "usage": usage }));
    assert_eq!((&job["cost_micro_usd"], &job["node_id"]), (&json!(6), &json!(network.worker.node.id().to_string())));
    assert!(job["latency_ms"].is_u64() && job["ttft_ms"].is_u64() && job["error"].is_null(), "{job}");
    assert_eq!(network.money(&network.client).await, (BALANCE - 6, 0), "exactly the receipt, and nothing reserved");
    let receipts = network.worker.node.store().receipts(infernet_node::store::Page::newest(10)).expect("receipts");
    assert_eq!(job["receipt"], receipts[0].receipt().digest().to_string(), "the worker has the same receipt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_comes_back_loses_nothing_and_repeats_nothing() {
    let network = Network::start().await;
    let words = (0..400).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
    let id = network.submit(&words, json!({ "max_tokens": 2_000 })).await["id"].clone();
    let (mut text, mut last, mut rounds) = (String::new(), None::<String>, 0);
    loop {
        let mut response = network.follow(&id, last.as_deref()).await;
        let mut seen = String::new();
        // Of each connection only the first events are read; then it is cut.
        while !seen.contains("\n\n") {
            match response.chunk().await.expect("a stream") {
                Some(chunk) => seen.push_str(std::str::from_utf8(&chunk).expect("text")),
                None => break,
            }
        }
        drop(response);
        let whole = seen.rfind("\n\n").map_or("", |end| &seen[..end + 2]);
        let part = Stream::read(whole);
        text.push_str(&part.text);
        rounds += 1;
        if part.done {
            last = Some(part.last);
            break;
        }
        if !part.last.is_empty() {
            last = Some(part.last);
        }
    }
    assert_eq!(text, words, "after {rounds} connections");
    let path = format!("/api/v1/jobs/{}/stream", id.as_str().expect("an id"));
    let after = network.get(&path).bearer_auth(&network.key).header("last-event-id", last.expect("an end")).send().await;
    assert_eq!(after.expect("an answer").status().as_u16(), 204, "there is nothing more");
    for bad in ["x", "-1", "99999999"] {
        refused(network.get(&path).bearer_auth(&network.key).header("last-event-id", bad), 400, "bad_request").await;
    }
    let middle = network.get(&format!("{path}?last_event_id=10")).bearer_auth(&network.key).send().await.expect("an answer");
    assert_eq!(Stream::read(&middle.text().await.expect("a stream")).text, words[10..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_the_engine_and_what_came_is_paid() {
    let network = Network::start().await;
    let id = network.submit("drone", json!({ "max_tokens": 4_000 })).await["id"].clone();
    let mut response = network.follow(&id, None).await;
    response.chunk().await.expect("a stream").expect("a first piece");
    assert_eq!(network.engine.live(), 1);
    let path = format!("/api/v1/jobs/{}", id.as_str().expect("an id"));
    let cancelled = network.ask(Method::DELETE, &path).bearer_auth(&network.key).send().await.expect("an answer");
    assert!([200, 202].contains(&cancelled.status().as_u16()));
    eventually("the engine hears of it", || async { network.engine.live() == 0 }).await;
    eventually("the job is over", || async { network.job(&id).await["status"] == "cancelled" }).await;
    let rest = Stream::read(&network.follow(&id, None).await.text().await.expect("a stream"));
    assert_eq!((rest.done, rest.error.as_deref()), (false, Some("cancelled")));
    let job = network.job(&id).await;
    let cost = job["cost_micro_usd"].as_u64().expect("a cost");
    assert!(cost > 0, "{job}");
    assert_eq!(network.money(&network.client).await, (BALANCE - cost, 0));
    let again = network.ask(Method::DELETE, &path).bearer_auth(&network.key).send().await.expect("an answer");
    assert_eq!(answered(again, 200).await["status"], "cancelled", "a second cancel changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_job_is_not_there() {
    let network = Network::start().await;
    let id = network.submit("one", json!({})).await["id"].clone();
    network.stream(&id).await;
    let (_, other) = network.client(BALANCE, &["jobs", "read", "manage"]).await;
    let unknown = format!("job_{}", "0".repeat(32));
    for id in [id.as_str().expect("an id"), &unknown, "job_1", "../../etc"] {
        let path = format!("/api/v1/jobs/{}", id.replace('/', "%2F"));
        let shown = refused(network.get(&path).bearer_auth(&other), 404, "not_found").await;
        assert_eq!(shown, "there is no such job, or it is not yours");
        refused(network.get(&format!("{path}/stream")).bearer_auth(&other), 404, "not_found").await;
        refused(network.ask(Method::DELETE, &path).bearer_auth(&other), 404, "not_found").await;
    }
    let list = answered(network.get("/api/v1/jobs").bearer_auth(&other).send().await.expect("an answer"), 200).await;
    assert_eq!(list["jobs"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_money_nothing_is_bought_and_a_cap_holds() {
    let network = Network::start().await;
    let (poor, key) = network.client(0, &["jobs"]).await;
    refused(network.post("/api/v1/jobs", &job("one", json!({}))).bearer_auth(&key), 402, "insufficient_balance").await;
    let with_key = network.post("/api/v1/jobs", &job("one", json!({}))).bearer_auth(&key).header("idempotency-key", "k");
    refused(with_key, 402, "insufficient_balance").await;
    assert_eq!((network.engine.asked(), network.money(&poor).await), (0, (0, 0)));
    // Once there is money, the same request under the same key is a job at last.
    accounts::grant(&*network.plane.store, &poor, MicroUsd(BALANCE), "later").await.expect("a grant");
    let with_key = network.post("/api/v1/jobs", &job("one", json!({}))).bearer_auth(&key).header("idempotency-key", "k");
    let accepted = answered(with_key.send().await.expect("an answer"), 202).await;
    let path = format!("/api/v1/jobs/{}/stream", accepted["id"].as_str().expect("an id"));
    let stream = network.get(&path).bearer_auth(&key).send().await.expect("an answer").text().await.expect("a stream");
    assert_eq!(Stream::read(&stream).text, "one");
    let wish = KeyWish { per_day: Some(MicroUsd(0)), ..KeyWish::default() };
    let capped = network.served.key(&network.client, wish).await;
    refused(network.post("/api/v1/jobs", &job("one", json!({}))).bearer_auth(&capped), 402, "spend_cap").await;
    assert_eq!(network.money(&network.client).await, (BALANCE, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_under_one_key_is_one_job() {
    let network = Network::start().await;
    let send = |prompt: &'static str| {
        let request = network.post("/api/v1/jobs", &job(prompt, json!({}))).bearer_auth(&network.key);
        request.header("idempotency-key", "mine").send()
    };
    let first = answered(send("one two").await.expect("an answer"), 202).await;
    let again = answered(send("one two").await.expect("an answer"), 202).await;
    assert_eq!(first["id"], again["id"]);
    network.stream(&first["id"]).await;
    assert_eq!(answered(send("one two").await.expect("an answer"), 202).await["status"], "completed");
    assert_eq!(network.engine.asked(), 1);
    assert_eq!(answered(send("other").await.expect("an answer"), 422).await["error"]["code"], "idempotency_key_reused");
    assert_eq!(network.money(&network.client).await, (BALANCE - 4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_many_jobs_and_the_list_has_pages() {
    let network = Network::start().await;
    let body = json!({ "model": CHAT_MODEL, "prompts": ["a", "b c", "d"], "max_tokens": 8 });
    let batch = network.post("/api/v1/jobs/batch", &body).bearer_auth(&network.key).send().await.expect("an answer");
    let jobs = answered(batch, 202).await["jobs"].as_array().expect("jobs").clone();
    let mut texts = Vec::new();
    for job in &jobs {
        texts.push(network.stream(&job["id"]).await.text);
    }
    assert_eq!(texts, ["a", "b c", "d"]);
    let mut found = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("/api/v1/jobs?limit=2&status=completed{next}");
        let page = answered(network.get(&path).bearer_auth(&network.key).send().await.expect("an answer"), 200).await;
        found.extend(page["jobs"].as_array().expect("jobs").iter().map(|job| job["id"].as_str().expect("an id").to_owned()));
        match page["next"].as_str() {
            Some(before) => next = format!("&before={before}"),
            None => break,
        }
    }
    found.sort();
    let mut all: Vec<_> = jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect();
    all.sort();
    assert_eq!(found, all, "each once");
    let large = json!({ "model": CHAT_MODEL, "prompts": vec!["x"; 65] });
    refused(network.post("/api/v1/jobs/batch", &large).bearer_auth(&network.key), 400, "bad_request").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_says_so_and_nobody_is_an_error_too() {
    let network = Network::start().await;
    let id = network.submit("fail 2", json!({})).await["id"].clone();
    let stream = network.stream(&id).await;
    assert!(!stream.done && stream.error.is_some(), "{stream:?}");
    let failed = network.job(&id).await;
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!(stream.error)));
    let cost = failed["cost_micro_usd"].as_u64().expect("a cost");
    let wish = json!({ "model": "nobody-has-this", "wait": 0, "store": true });
    let unknown = network.submit("canary-unanswered", wish).await["id"].clone();
    assert_eq!(network.stream(&unknown).await.error.as_deref(), Some("model_not_found"));
    assert!(!network.keeps("canary-unanswered"), "what nobody pays for is not kept");
    let dear = network.submit("one", json!({ "max_price": 1 })).await["id"].clone();
    assert_eq!(network.stream(&dear).await.error.as_deref(), Some("price_too_low"));
    assert_eq!(network.money(&network.client).await, (BALANCE - cost, 0), "who gets nothing pays nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_can_be_for_one_node_alone() {
    let network = Network::start().await;
    let worker = network.worker.node.id().to_string();
    let id = network.submit("one", json!({ "node_id": worker })).await["id"].clone();
    assert_eq!(network.stream(&id).await.text, "one");
    let nobody = infernet_wire::key::NodeKey::from_bytes(&[9; 32]).expect("a key").id().to_string();
    let id = network.submit("one", json!({ "node_id": nobody, "wait": 0 })).await["id"].clone();
    assert_eq!(network.stream(&id).await.error.as_deref(), Some("no_capacity"));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_an_instance_that_died_fail_and_are_settled() {
    let network = Network::with(|config| config.gateway.lease_ms = 300).await;
    let store = &network.plane.store;
    let id = WebJobId(format!("job_{}", "d".repeat(32)));
    let at = now();
    let row = JobRow {
        id: id.clone(),
        client: network.client.clone(),
        model: "m".into(),
        status: JobStatus::Running,
        created: at,
        updated: at,
        started: Some(at),
        ended: None,
        worker: None,
        legacy: None,
        input_tokens: None,
        output_tokens: Some(5),
        budget: MicroUsd(100),
        cost: Some(MicroUsd(7)),
        ttft_ms: None,
        receipt: None,
        error: None,
        idempotency: None,
        text: None,
        // So that it is not over before there is a reservation.
        lease: Some(("dead".into(), at.after(2_000))),
    };
    store.insert_job(&row).await.expect("a store");
    let wish = Reservation {
        job: id.clone(),
        client: network.client.clone(),
        key: None,
        most: MicroUsd(100),
        key_per_day: None,
        now: at,
    };
    assert_eq!(store.reserve(&wish).await, Ok(Reserved::Yes));
    let id = json!(id.0);
    eventually("it is ended", || async { network.job(&id).await["status"] == "failed" }).await;
    let job = network.job(&id).await;
    assert_eq!((&job["error"]["code"], &job["cost_micro_usd"]), (&json!("instance_lost"), &json!(7)));
    assert_eq!(network.money(&network.client).await, (BALANCE - 7, 0), "what was noted is paid, the rest is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_run_though_its_client_hung_up_before_it_was_begun() {
    let network = Network::start().await;
    let gateway = network.plane.gateway.as_ref().expect("it buys");
    let order = order(CHAT_MODEL, "one two", 64);
    let new = NewJob {
        client: network.client.clone(),
        key: None,
        model: CHAT_MODEL.into(),
        most: order.worst(),
        text: None,
        idempotency: None,
        followed: true,
    };
    {
        let mut asking = pin!(gateway.submit(new, order, None));
        assert!(futures::poll!(&mut asking).is_pending());
    }
    let all = JobQuery { client: Some(network.client.clone()), limit: 10, ..JobQuery::default() };
    eventually("it is run", || async {
        let jobs = network.plane.store.jobs(&all).await.expect("a store");
        jobs.iter().any(|job| job.status == JobStatus::Completed)
    })
    .await;
    assert_eq!(network.engine.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_before_anybody_had_it_may_be_asked_for_again() {
    let network = Network::start().await;
    let store = &network.plane.store;
    let (body, at) = (job("one two", json!({})), now());
    let idempotency = |key: &str| {
        let request = hash::sha256(&serde_json::to_vec(&body).expect("JSON"));
        Some(Idempotency { key: key.into(), request })
    };
    let id = WebJobId(format!("job_{}", "e".repeat(32)));
    let row = JobRow {
        id: id.clone(),
        client: network.client.clone(),
        model: CHAT_MODEL.into(),
        status: JobStatus::Pending,
        created: at,
        updated: at,
        started: None,
        ended: None,
        worker: None,
        legacy: None,
        input_tokens: None,
        output_tokens: None,
        budget: MicroUsd(100),
        cost: None,
        ttft_ms: None,
        receipt: None,
        error: None,
        idempotency: idempotency("mine"),
        text: None,
        lease: Some(("dead".into(), at.after(600_000))),
    };
    store.insert_job(&row).await.expect("a store");
    let client = network.client.clone();
    let wish = Reservation { job: id.clone(), client, key: None, most: MicroUsd(100), key_per_day: None, now: at };
    assert_eq!(store.reserve(&wish).await, Ok(Reserved::Yes));
    let error = Some(JobError { code: "unavailable".into(), message: "the store was slow".into() });
    let failed = JobRow { status: JobStatus::Failed, error, ended: Some(at), lease: None, ..row };
    assert_eq!(store.end_job(&failed, None).await, Ok(Some(MicroUsd(0))));
    let again = network.post("/api/v1/jobs", &body).bearer_auth(&network.key).header("idempotency-key", "mine");
    let again = answered(again.send().await.expect("an answer"), 202).await;
    assert_eq!(again["id"], id.0);
    assert_eq!(network.stream(&again["id"]).await.text, "one two");
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_jobs_that_run_are_renewed() {
    let network = Network::with(|config| config.gateway.lease_ms = 300).await;
    let id = network.submit("drone", json!({ "max_tokens": 4_000 })).await["id"].clone();
    network.follow(&id, None).await.chunk().await.expect("a stream").expect("a first piece");
    let job = WebJobId(id.as_str().expect("an id").into());
    let lease = || async { network.plane.store.job(&job).await.expect("a store").expect("a job").lease.expect("a lease").1 };
    let first = lease().await;
    // Several leases long.
    eventually("it is renewed", || async { lease().await.since(first) > 900 }).await;
    assert_eq!(network.job(&id).await["status"], "running");
    network.plane.gateway.as_ref().expect("a gateway").stop(Duration::ZERO).await;
    assert_eq!(network.job(&id).await["status"], "cancelled", "an orderly stop settles what runs");
    let refusal = network.post("/api/v1/jobs", &job_of("one")).bearer_auth(&network.key);
    refused(refusal, 503, "unavailable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_whose_notice_was_lost_is_heard_with_the_next_renewal() {
    let network = Network::with(|config| config.gateway.lease_ms = 300).await;
    let id = network.submit("drone", json!({ "max_tokens": 4_000 })).await["id"].clone();
    network.follow(&id, None).await.chunk().await.expect("a stream").expect("a first piece");
    // What another instance writes before it tells of it.
    let job = WebJobId(id.as_str().expect("an id").into());
    assert_eq!(network.plane.store.want_cancel(&job).await, Ok(true));
    eventually("it is cancelled", || async { network.job(&id).await["status"] == "cancelled" }).await;
    assert_eq!(network.money(&network.client).await.1, 0, "nothing stays reserved");
}

fn job_of(prompt: &str) -> Value {
    job(prompt, json!({}))
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_and_answers_are_kept_only_on_request_and_then_outlive_memory() {
    let network = Network::with(|config| (config.gateway.resume_ms, config.gateway.lease_ms) = (0, 300)).await;
    let id = network.submit("canary-forgotten", json!({})).await["id"].clone();
    let followed = network.stream(&id).await;
    assert!(followed.text == "canary-forgotten" && followed.done);
    let kept = network.submit("canary-kept words", json!({ "store": true })).await["id"].clone();
    assert!(network.stream(&kept).await.done);
    let path = |id: &Value| format!("/api/v1/jobs/{}/stream", id.as_str().expect("an id"));
    let forgotten =
        || async { network.get(&path(&id)).bearer_auth(&network.key).send().await.expect("an answer").status() == 410 };
    // The next round of housekeeping forgets both.
    let gateway = network.plane.gateway.as_ref().expect("a gateway");
    eventually("memory forgets", || async { gateway.live(&WebJobId(id.as_str().expect("an id").into())).is_none() }).await;
    assert!(forgotten().await);
    assert!(network.job(&id).await["result"]["content"].is_null());
    let stream = network.stream(&kept).await;
    assert_eq!((stream.text.as_str(), stream.done), ("canary-kept words", true), "from the store");
    assert_eq!(network.job(&kept).await["result"]["content"], "canary-kept words");
    let list = answered(network.get("/api/v1/jobs").bearer_auth(&network.key).send().await.expect("an answer"), 200).await;
    assert!(list["jobs"].as_array().is_some_and(|jobs| jobs.len() == 2) && !list.to_string().contains("canary"), "{list}");
    assert!(network.keeps("canary-kept"), "the search finds what is there");
    assert!(!network.keeps("canary-forgotten"));
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_clients_find_their_routes_and_no_prompt_in_them() {
    let network = Network::with(|config| config.http.anonymous_per_day = Some(MicroUsd(1_000_000))).await;
    accounts::ensure_anonymous(&*network.plane.store).await.expect("a client");
    let body = json!({ "messages": [{ "role": "user", "content": "secret words" }], "modelName": "auto", "maxTokens": 8 });
    let broke = network.post("/api/chat", &body).send().await.expect("an answer");
    assert!(answered(broke, 402).await["error"].is_string(), "nobody has paid for those who are nobody");
    let anonymous = ClientId(accounts::ANONYMOUS.into());
    accounts::grant(&*network.plane.store, &anonymous, MicroUsd(BALANCE), "open day").await.expect("a grant");
    let asked = answered(network.post("/api/chat", &body).send().await.expect("an answer"), 200).await;
    assert_eq!(asked["source"], "p2p");
    let url = asked["streamUrl"].as_str().expect("an address");
    let stream = network.get(url).send().await.expect("an answer").text().await.expect("a stream");
    let names: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!((names.first(), names.last()), (Some(&"job"), Some(&"done")), "{stream}");
    assert!(names.contains(&"token"));
    let opening = stream.split("\n\n").next().expect("an event");
    assert!(!opening.contains("secret"), "{opening}");
    let status = format!("/api/chat/{}/status", asked["jobId"].as_str().expect("an id"));
    assert_eq!(answered(network.get(&status).send().await.expect("an answer"), 200).await["status"], "completed");
    // A client's own job is nobody else's, however they ask.
    let own = network.submit("secret", json!({})).await["id"].as_str().expect("an id").to_owned();
    for path in [format!("/api/chat/stream/{own}"), format!("/api/chat/{own}/status")] {
        assert!(answered(network.get(&path).send().await.expect("an answer"), 404).await["error"].is_string());
    }
}
