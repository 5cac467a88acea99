//! A chain's node that is broken or hostile: each answer is refused in bounded time and memory, without its URL's secrets, and the
//! step that was asked about is as it was.

use crate::key;
use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use futures::stream;
use infernet_node::settlement::evm::{
    rpc::{Rpc, RpcError},
    step::{Facts, Next, Rules, Stage, Step},
    transaction::{Call, Fees},
    wallet::{EvmError, Wallet},
};
use infernet_testnet::evm::CHAIN;
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::net::TcpListener;

const SECRET: &str = "0123456789abcdef";

/// What it answers to which method.
type Answers = Arc<dyn Fn(&str, &Value) -> Response + Send + Sync>;

async fn node(answers: impl Fn(&str, &Value) -> Response + Send + Sync + 'static) -> Rpc {
    async fn answer(State(answers): State<Answers>, Json(asked): Json<Value>) -> Response {
        answers(asked["method"].as_str().unwrap_or_default(), &asked["params"])
    }
    let answers: Answers = Arc::new(answers);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let app = Router::new().route(&format!("/v3/{SECRET}"), post(answer)).with_state(answers);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Rpc::new(format!("http://127.0.0.1:{port}/v3/{SECRET}").parse().expect("a URL"), CHAIN).expect("a client")
}

fn result(value: Value) -> Response {
    Json(json!({ "jsonrpc": "2.0", "id": 1, "result": value })).into_response()
}

/// Asks for the chain, and checks what is said about the answer.
async fn check(answers: impl Fn(&str, &Value) -> Response + Send + Sync + 'static, says: &str) {
    let error = node(answers).await.check_chain().await.expect_err(says);
    assert!(error.to_string().contains(says), "{error}, and not {says}");
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_refused_in_a_sentence() {
    check(|_, _| "<html>no</html>".into_response(), "answers eth_chainId with something else").await;
    check(|_, _| result(Value::Null), "answers eth_chainId with something else").await;
    check(|_, _| result(json!("31337")), "answers eth_chainId with something else").await;
    check(|_, _| result(json!(format!("0x{}", "f".repeat(64)))), "answers eth_chainId with something else").await;
    check(|_, _| result(json!("0x1")), "is on chain 1, not on 31337").await;
    check(|_, _| StatusCode::TOO_MANY_REQUESTS.into_response(), "HTTP 429").await;
    check(|_, _| (StatusCode::UNAUTHORIZED, "no").into_response(), "HTTP 401").await;
    let told = json!({ "error": { "code": -32000, "message": format!("project {SECRET} is over its limit\u{1b}[2J") } });
    check(move |_, _| Json(told.clone()).into_response(), "refuses eth_chainId: project … is over its limit[2J").await;
    // Credentials are not carried elsewhere.
    check(|_, _| (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "http://127.0.0.1:1/")]).into_response(), "HTTP 307")
        .await;
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let endless = || Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 64 * 1024]))));
    check(move |_, _| endless().into_response(), "answers eth_chainId with more than 1 MiB").await;
}

/// What a lying node can do: nothing to a step's nonce, its bytes or the money; only to what is believed, and that only after a time.
#[tokio::test]
async fn a_node_that_invents_blocks_makes_nothing_happen_twice() {
    let lies = |method: &str, _: &Value| match method {
        "eth_chainId" => result(json!(format!("{CHAIN:#x}"))),
        "eth_getBlockByNumber" => result(json!({ "number": "0xffffffffffffffff", "baseFeePerGas": "0x1" })),
        "eth_getTransactionCount" => result(json!("0xffffffffffffffff")),
        "eth_maxPriorityFeePerGas" | "eth_getBalance" => result(json!("0xffffffffffffffffffffffffffffffff")),
        _ => result(Value::Null),
    };
    let rules = Rules { doubt_ms: 60_000, ..Rules::default() };
    let wallet = Wallet::new(node(lies).await, key(2), rules, Duration::from_millis(10));
    let mut step = Step::new(CHAIN, Call { to: Some(key(9).id().evm_address()), value: 7, data: vec![] }, 5, 21_000);
    step.sign(Fees { max: 2, tip: 1 }, &key(2));
    let before = step.clone();
    for _ in 0..3 {
        let next = wallet.advance(&mut step, &mut |_| async { Ok(()) }).await.expect("looks");
        assert_eq!(next, Next::Wait);
    }
    assert!(matches!(step.stage, Stage::Doubt { .. }));
    assert_eq!((step.nonce, &step.attempts), (before.nonce, &before.attempts));
    // Fees above the cap are never signed, whatever is said of the market.
    let mut fresh = Step { attempts: vec![], stage: Stage::Prepared, ..before };
    let facts =
        Facts { head: u64::MAX, base_fee: u128::MAX / 2, tip: u128::MAX, coin: u128::MAX, deep_nonce: 0, receipt: None };
    assert!(matches!(fresh.decide(&facts, &rules, infernet_node::clock::now()), Next::TooDear { .. }));
    let facts = Facts { base_fee: 1, ..facts };
    let Next::Sign(fees) = fresh.decide(&facts, &rules, infernet_node::clock::now()) else { panic!("signs") };
    assert!(fees.max <= rules.max_fee && fees.tip <= fees.max);
}

/// Half an answer, and nothing after it: the deadline of a question ends it, here the one of the whole drive.
#[tokio::test]
async fn a_silent_node_does_not_hold_a_step_for_ever() {
    let silent = |_: &str, _: &Value| Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()).into_response();
    let rpc = node(silent).await;
    let asked = tokio::time::timeout(Duration::from_secs(40), rpc.check_chain()).await.expect("a deadline of its own");
    assert!(matches!(asked, Err(RpcError::Silent { .. })), "{asked:?}");
    assert!(EvmError::from(asked.expect_err("silent")).retryable());
}
