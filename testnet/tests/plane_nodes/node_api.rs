//! What daemons say over HTTP, as existing ones say it, and what is not believed.

use super::stage::{Request, TestPlane, key, plane, post};
use infernet_node::clock;
use infernet_plane::{
    legacy::{Job, Told},
    store::{Pubkey, Role},
};
use serde_json::{Value, json};

const REQUESTS: &str = include_str!("../fixtures/node_daemon_requests.json");
const SILENCE: u64 = 90_000;

/// `value` with every UUID and date of `from` in the places of the recorded ones.
fn shaped(recorded: &Value, answer: &Value) -> Value {
    match (recorded, answer) {
        (Value::Object(recorded), Value::Object(answer)) => {
            assert!(recorded.keys().eq(answer.keys()), "{recorded:?}: {answer:?}");
            recorded.iter().map(|(key, value)| (key.clone(), shaped(value, &answer[key]))).collect()
        }
        (Value::Array(recorded), Value::Array(answer)) if recorded.len() == answer.len() => {
            recorded.iter().zip(answer).map(|(recorded, answer)| shaped(recorded, answer)).collect()
        }
        (Value::String(recorded), Value::String(answer)) => {
            let same_shape = recorded.len() == answer.len()
                && recorded.chars().zip(answer.chars()).all(|(a, b)| a == b || a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
            if same_shape { recorded.clone().into() } else { answer.clone().into() }
        }
        _ => answer.clone(),
    }
}

#[tokio::test]
async fn an_existing_daemons_requests_get_the_answers_that_it_knows() {
    let (plane, daemon) = (plane(SILENCE).await, key());
    let requests: Vec<Value> = serde_json::from_str(REQUESTS).expect("recorded requests");
    let mut given = None;
    for recorded in &requests {
        let mut path = recorded["url"].as_str().expect("a URL").to_owned();
        if path.ends_with("/jobs/poll") {
            let job = Job {
                id: "00000000-0000-4000-8000-000000000001".into(),
                model: "qwen2.5:0.5b".into(),
                messages: json!([{ "role": "user", "content": "Say hi" }]),
                max_tokens: 32,
                temperature: 0.7,
                created: clock::now(),
            };
            // It asks for work every 15 seconds; this was the time before.
            let serves = json!({ "role": "provider", "specs": { "served_models": ["qwen2.5:0.5b"] } });
            assert_eq!(post(&plane, &daemon, "/api/v1/node/heartbeat", serves).await.0, 200);
            assert_eq!(post(&plane, &daemon, &path, json!({ "limit": 5 })).await.0, 200);
            given = plane.parts.legacy.offer(job, clock::now());
            assert!(given.is_some(), "the daemon is there");
        }
        if path.ends_with("/complete") {
            path = "/api/v1/node/jobs/00000000-0000-4000-8000-000000000001/complete".into();
        }
        let (status, answer) = post(&plane, &daemon, &path, recorded["body"].clone()).await;
        assert_eq!(status, recorded["reply_status"], "{path}: {answer}");
        assert_eq!(shaped(&recorded["reply"], &answer), recorded["reply"], "{path}");
    }
    let mut answer = given.expect("a job");
    let whole = requests[3]["body"]["result"]["text"].as_str().expect("a text");
    assert_eq!(answer.next().await, Some(Told::Assigned(Pubkey(daemon.id().x_only()))));
    assert_eq!(answer.next().await, Some(Told::Text(whole.into())));
    assert_eq!((answer.next().await, answer.next().await), (Some(Told::Done), None));
}

async fn check(plane: &TestPlane, request: Request, status: u16, error: &str) {
    let (found, answer) = request.send(plane).await;
    assert_eq!(found, status, "{answer}");
    let text = answer["error"].as_str().unwrap_or_default();
    assert!(text.contains(error), "{answer}, not {error}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_as_existing_clients_know_it() {
    let (plane, daemon) = (plane(SILENCE).await, key());
    let beat = "/api/v1/node/heartbeat";
    let good = || Request::new(&daemon, beat, &json!({ "role": "provider" }));
    check(&plane, Request { header: String::new(), ..good() }, 401, "missing X-Infernet-Auth header").await;
    check(&plane, Request { header: "!!!".into(), ..good() }, 401, "malformed X-Infernet-Auth header").await;
    check(&plane, Request { body: "{}".into(), ..good() }, 401, "signature verification failed").await;
    check(&plane, Request { path: "/api/v1/node/me".into(), ..good() }, 401, "signature verification failed").await;
    check(&plane, good(), 404, "no row for this pubkey — call /register first").await;
    check(&plane, Request::new(&daemon, beat, &json!([])), 400, "JSON object").await;
    check(&plane, Request::new(&daemon, beat, &json!({ "role": "boss" })), 400, "provider, aggregator, client").await;
    let register = "/api/v1/node/register";
    check(&plane, Request::new(&daemon, register, &json!({ "role": "provider", "node_id": "a b" })), 400, "node_id").await;
    check(&plane, Request::new(&daemon, beat, &json!({ "role": "x".repeat(2_000_000) })), 413, "at most 1048576 bytes").await;
    check(&plane, Request::new(&daemon, "/api/v1/node/commands/poll", &json!({})), 404, "call /register first").await;
    check(
        &plane,
        Request::new(&daemon, "/api/v1/node/commands/nope/complete", &json!({ "status": "completed" })),
        404,
        "not found",
    )
    .await;

    let claim = json!({ "role": "provider", "node_id": "mine" });
    assert_eq!(post(&plane, &daemon, register, claim.clone()).await.0, 200);
    check(&plane, Request::new(&key(), register, &claim), 403, "node_id is owned by another pubkey").await;
    // Nor does anybody go by another node's id; by its own it may.
    let by_id = |id: String| json!({ "role": "client", "node_id": id });
    check(&plane, Request::new(&daemon, register, &by_id(key().id().to_string())), 403, "owned by another pubkey").await;
    assert_eq!(post(&plane, &daemon, register, by_id(daemon.id().to_string())).await.0, 200);
    let once = good();
    assert_eq!(once.send(&plane).await.0, 200);
    check(&plane, once, 401, "nonce already used").await;
}

#[tokio::test]
async fn a_captured_request_is_refused_after_a_restart_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let (daemon, plane) = (key(), TestPlane::start_in(directory.path(), SILENCE).await);
    let aud = plane.origin();
    let request = Request::new(&daemon, "/api/v1/node/register", &json!({ "role": "provider", "node_id": "n", "aud": aud }));
    let (status, first) = request.send(&plane).await;
    assert_eq!(status, 200, "{first}");
    let addr = plane.addr;
    plane.stop().await;

    let listener = tokio::net::TcpListener::bind(addr).await.expect("the same port");
    let plane = TestPlane::serve(listener, directory.path(), SILENCE).await;
    check(&plane, request, 401, "nonce already used").await;
    let again = Request::new(&daemon, "/api/v1/node/register", &json!({ "role": "provider", "node_id": "n", "aud": aud }));
    assert_eq!(again.send(&plane).await.1, first, "the node's id is as durable");
}

#[tokio::test]
async fn a_request_for_one_plane_is_no_use_at_another() {
    let (here, there, node) = (plane(SILENCE).await, plane(SILENCE).await, key());
    let register = |aud: Option<String>| {
        let body = json!({ "role": "provider", "node_id": "n", "aud": aud });
        let body = if aud.is_some() { body } else { json!({ "role": "provider", "node_id": "n" }) };
        Request::new(&node, "/api/v1/node/register", &body)
    };
    let captured = register(Some(here.origin()));
    assert_eq!(captured.send(&here).await.0, 200);
    check(&there, captured, 401, &here.origin()).await;
    check(&here, register(None), 401, "\"aud\"").await;
    check(&here, Request::new(&node, "/api/v1/node/jobs/poll", &json!({})), 401, "\"aud\"").await;
    assert_eq!(register(None).send(&there).await.0, 200, "a key that never named a plane need not");
    let row = here.row(&node.id(), Role::Provider).await.expect("a row");
    assert!(row.names_audience);
    assert!(!there.row(&node.id(), Role::Provider).await.expect("a row").names_audience);
}

#[tokio::test]
async fn a_node_sees_changes_and_removes_its_row() {
    let (plane, node) = (plane(SILENCE).await, key());
    let call = async |what: &str, body: Value| post(&plane, &node, &format!("/api/v1/node/{what}"), body).await;
    assert_eq!(call("me", json!({ "role": "provider" })).await, (200, json!({ "data": { "row": null } })));
    let specs = json!({ "served_models": ["m"], "evil": "<script>", "gpus": vec![json!({ "vendor": "x" }); 99] });
    let body = json!({ "role": "provider", "node_id": "n", "gpu_model": "RTX\u{7} 4090", "port": 46337, "specs": specs });
    let (_, registered) = call("register", body).await;
    let (_, me) = call("me", json!({ "role": "provider" })).await;
    let row = &me["data"]["row"];
    assert_eq!((&row["id"], &row["status"]), (&registered["data"]["id"], &json!("available")));
    assert_eq!((&row["gpu_model"], &row["port"]), (&json!("RTX 4090"), &json!(46337)));
    assert!(row["specs"]["evil"].is_null() && row["specs"]["gpus"].as_array().is_some_and(|gpus| gpus.len() == 16), "{row}");
    call("heartbeat", json!({ "role": "provider", "status": "offline" })).await;
    assert_eq!(call("me", json!({ "role": "provider" })).await.1["data"]["row"]["status"], "offline");

    let (status, _) = call("payouts/set", json!({ "coin": "usdc", "network": "base", "address": "0xabc" })).await;
    assert_eq!(status, 200);
    let (_, payouts) = call("payouts/list", json!({})).await;
    assert_eq!(payouts["data"]["rows"][0]["coin"], "USDC", "{payouts}");
    assert_eq!(call("payouts/set", json!({ "coin": "usdc", "address": "a b" })).await.0, 400);
    assert_eq!(call("payments/list", json!({ "role": "aggregator" })).await.1, json!({ "data": { "rows": [] } }));

    let (_, removed) = call("remove", json!({ "role": "provider" })).await;
    assert_eq!(removed, json!({ "data": { "deleted": true, "id": registered["data"]["id"] } }));
    assert_eq!(call("remove", json!({ "role": "provider" })).await.1, json!({ "data": { "deleted": false } }));
}
