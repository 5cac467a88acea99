//! Existing daemons behind the bridge, unmodified.

use super::stage::{Fresh, key, plane, post};
use infernet_node::clock;
use infernet_plane::{
    legacy::{Answer, Job, Told},
    store::Pubkey,
};
use infernet_wire::key::NodeKey;
use serde_json::{Value, json};

/// Registers a daemon that serves `m`.
async fn daemon(plane: &Fresh, node_id: &str) -> NodeKey {
    let key = key();
    let body = json!({ "role": "provider", "node_id": node_id, "specs": { "served_models": ["m:latest"] } });
    assert_eq!(post(plane, &key, "/api/v1/node/register", body).await.0, 200);
    key
}

async fn offer(plane: &Fresh, model: &str) -> Option<Answer> {
    let job = Job {
        id: format!("00000000-0000-4000-8000-{}", hex::encode(clock::random::<6>())),
        model: model.into(),
        messages: json!([{ "role": "user", "content": "Say hi" }]),
        max_tokens: 8,
        temperature: 0.0,
        only: None,
        created: clock::now(),
    };
    plane.parts.legacy.offer(job, clock::now()).await.expect("the store answers")
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
