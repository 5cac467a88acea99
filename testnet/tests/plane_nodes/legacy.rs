//! Existing daemons behind the bridge, unmodified.

use super::stage::{DEADLINE, Fresh, buying, key, plane, post};
use infernet_node::clock;
use infernet_plane::{
    accounts::{self, KeyWish},
    gateway::Through,
    legacy::{Answer, Job, Told},
    store::{JobQuery, Pubkey},
};
use infernet_testnet::{
    cluster::{Member, MemberSpec, Sells, eventually},
    scripted::{CHAT_MODEL, ScriptedEngine},
};
use infernet_wire::{key::NodeKey, money::MicroUsd};
use serde_json::{Value, json};

/// Registers a daemon that serves `m`, and what a worker of the mesh may serve, too; it has asked for work once.
async fn daemon(plane: &Fresh, node_id: &str) -> NodeKey {
    let key = key();
    let specs = json!({ "served_models": ["m:latest", CHAT_MODEL] });
    let body = json!({ "role": "provider", "node_id": node_id, "specs": specs });
    assert_eq!(post(plane, &key, "/api/v1/node/register", body).await.0, 200);
    assert_eq!(poll(plane, &key).await.len(), 0);
    key
}

async fn offer(plane: &Fresh, model: &str) -> Option<Answer> {
    let job = Job {
        id: format!("00000000-0000-4000-8000-{}", hex::encode(clock::random::<6>())),
        model: model.into(),
        messages: json!([{ "role": "user", "content": "Say hi" }]),
        max_tokens: 8,
        temperature: 0.0,
        created: clock::now(),
    };
    plane.parts.legacy.offer(job, clock::now())
}

async fn poll(plane: &Fresh, key: &NodeKey) -> Vec<Value> {
    let (status, answer) = post(plane, key, "/api/v1/node/jobs/poll", json!({ "limit": 5 })).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"]["jobs"].as_array().expect("jobs").clone()
}

fn tokens(words: &[&str]) -> Value {
    let event = |word: &&str| json!({ "event_type": "token", "data": { "text": word } });
    json!({ "events": words.iter().map(event).collect::<Vec<_>>() })
}

#[tokio::test]
async fn a_daemon_streams_an_answer_and_nobody_else_has_a_word() {
    let plane = plane(90_000).await;
    let (taker, other) = (daemon(&plane, "a").await, daemon(&plane, "b").await);
    assert!(offer(&plane, "unknown").await.is_none(), "no daemon serves it");
    let mut answer = offer(&plane, "m").await.expect("one does");
    let jobs = poll(&plane, &taker).await;
    assert_eq!(poll(&plane, &other).await.len(), 0, "it is taken");
    let id = jobs[0]["id"].as_str().expect("an id");
    let events = format!("/api/v1/node/jobs/{id}/events");
    let complete = format!("/api/v1/node/jobs/{id}/complete");

    assert_eq!(post(&plane, &other, &events, tokens(&["x"])).await.0, 403);
    assert_eq!(post(&plane, &other, &complete, json!({ "result": { "text": "x" } })).await.0, 403);
    assert_eq!(post(&plane, &taker, &events, tokens(&["he", "llo"])).await, (200, json!({ "data": { "inserted": 2 } })));
    assert_eq!(post(&plane, &taker, &events, tokens(&vec!["x"; 201])).await.0, 400, "too many");
    assert_eq!(post(&plane, &taker, &events, tokens(&[&"x".repeat(20_000)])).await.0, 400, "too large");
    let whole = json!({ "result": { "type": "chat", "text": "hello!" } });
    let done = json!({ "data": { "id": id, "status": "completed" } });
    assert_eq!(post(&plane, &taker, &complete, whole.clone()).await, (200, done));
    let again = json!({ "data": { "id": id, "status": "completed", "noop": true } });
    assert_eq!(post(&plane, &taker, &complete, whole).await, (200, again));
    assert_eq!(post(&plane, &taker, &events, tokens(&["more"])).await.0, 409, "nothing after the end");

    let mut heard = Vec::new();
    while let Some(told) = answer.next().await {
        heard.push(told);
    }
    let assigned = Told::Assigned(Pubkey(taker.id().x_only()));
    assert_eq!(heard, [assigned, Told::Text("hello".into()), Told::Text("!".into()), Told::Done]);
}

#[tokio::test]
async fn a_job_that_nobody_waits_for_is_nobodys() {
    let plane = plane(90_000).await;
    let taker = daemon(&plane, "a").await;
    let answer = offer(&plane, "m").await.expect("one serves it");
    let jobs = poll(&plane, &taker).await;
    drop(answer);
    let events = format!("/api/v1/node/jobs/{}/events", jobs[0]["id"].as_str().expect("an id"));
    assert_eq!(post(&plane, &taker, &events, tokens(&["x"])).await.0, 409);
    assert_eq!(poll(&plane, &taker).await.len(), 0);
}

#[tokio::test]
async fn nodes_of_the_mesh_and_daemons_that_left_get_none() {
    let plane = plane(90_000).await;
    let (mesh, aud) = (key(), plane.origin());
    let specs = json!({ "served_models": ["m"] });
    let body = json!({ "role": "provider", "node_id": "mesh", "specs": specs, "aud": aud });
    assert_eq!(post(&plane, &mesh, "/api/v1/node/register", body).await.0, 200);
    assert!(offer(&plane, "m").await.is_none(), "it bids on the mesh");
    let leaving = daemon(&plane, "a").await;
    let bye = json!({ "role": "provider", "status": "offline" });
    assert_eq!(post(&plane, &leaving, "/api/v1/node/heartbeat", bye).await.0, 200);
    assert!(offer(&plane, "m").await.is_none());
}

/// Asks the plane's API, with a client's key.
struct Client<'a> {
    plane: &'a Fresh,
    http: reqwest::Client,
    key: String,
}

impl<'a> Client<'a> {
    async fn new(plane: &'a Fresh) -> Self {
        let store = &*plane.parts.store;
        let client = accounts::new_client(store, "a client", false).await.expect("a client").id;
        assert!(accounts::grant(store, &client, MicroUsd(1_000_000), "a grant").await.expect("a grant"));
        let wish = KeyWish { scopes: vec!["jobs".into()], ..KeyWish::default() };
        let key = accounts::new_key(store, &client, wish).await.expect("a key").0.to_string();
        Client { plane, http: reqwest::Client::builder().no_proxy().build().expect("a client"), key }
    }

    async fn submit(&self, model: &str) -> String {
        let body = json!({ "model": model, "prompt": "Say hi", "max_tokens": 8 });
        let request = self.http.post(format!("{}/api/v1/jobs", self.plane.origin())).bearer_auth(&self.key).json(&body);
        let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        answer["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    async fn job(&self, id: &str) -> Value {
        let request = self.http.get(format!("{}/api/v1/jobs/{id}", self.plane.origin())).bearer_auth(&self.key);
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    async fn completed(&self, id: &str) -> Value {
        let over = || async { ["completed", "failed"].contains(&self.job(id).await["status"].as_str().unwrap_or_default()) };
        eventually("a job's end", DEADLINE, over).await.expect("it ends");
        self.job(id).await
    }
}

#[tokio::test]
async fn only_what_no_worker_of_the_mesh_bids_on_goes_to_a_daemon_and_it_costs_nothing() {
    let engine = ScriptedEngine::start().await.expect("an engine");
    let buyer = Member::start(MemberSpec::buyer(Vec::new())).await.expect("a buyer");
    let sells = Sells::new(engine.url(), 1_000_000, 1_000_000, 2);
    let _worker = Member::start(MemberSpec::worker(buyer.addresses().await, sells)).await.expect("a worker");
    buyer.knows(CHAT_MODEL, 1, DEADLINE).await.expect("the worker's ad");
    let plane = buying(Through::from(&buyer.node)).await;
    let (client, taker) = (Client::new(&plane).await, daemon(&plane, "a").await);

    let on_the_mesh = client.completed(&client.submit(CHAT_MODEL).await).await;
    assert_eq!((&on_the_mesh["status"], engine.asked()), (&json!("completed"), 1), "{on_the_mesh}");
    assert_eq!(poll(&plane, &taker).await.len(), 0, "the daemon serves it, and a worker bid");

    let id = client.submit("m").await;
    let given = std::sync::Mutex::new(Vec::new());
    let got = || async {
        let jobs = poll(&plane, &taker).await;
        given.lock().expect("no panic").extend(jobs);
        !given.lock().expect("no panic").is_empty()
    };
    eventually("the job at the daemon", DEADLINE, got).await.expect("it is given");
    let given = given.into_inner().expect("no panic");
    assert_eq!(given[0]["input_spec"]["messages"][0]["content"], "Say hi");
    let (path, result) = (given[0]["id"].as_str().expect("an id"), json!({ "result": { "text": "hi!" } }));
    assert_eq!(post(&plane, &taker, &format!("/api/v1/node/jobs/{path}/events"), tokens(&["hi"])).await.0, 200);
    assert_eq!(post(&plane, &taker, &format!("/api/v1/node/jobs/{path}/complete"), result).await.0, 200);
    let job = client.completed(&id).await;
    assert_eq!((&job["status"], &job["result"]["content"]), (&json!("completed"), &json!("hi!")), "{job}");
    let query = JobQuery { legacy: Some(Pubkey(taker.id().x_only())), limit: 9, ..JobQuery::default() };
    let rows = plane.parts.store.jobs(&query).await.expect("the store answers");
    assert_eq!((rows.len(), rows[0].cost, rows[0].receipt), (1, Some(MicroUsd(0)), None));
    // Receipts on the mesh: that of the worker alone.
    assert_eq!(buyer.node.store().counts().expect("a store").receipts, 1);
}
