//! What a newcomer runs first.

#![expect(clippy::panic, reason = "a failing test may panic")]

use serde_json::Value;
use std::process::{Command, Output};

fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_infernet-testnet")).arg("demo").args(args).output().expect("runs")
}

fn field<'a>(value: &'a Value, path: &str) -> &'a Value {
    value.pointer(path).unwrap_or_else(|| panic!("{path} is missing in {value}"))
}

#[test]
fn json_is_one_object_with_everything_in_it() {
    let output = demo(&["What is the capital of France?", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    for path in ["/answer", "/model", "/auction/offer_id", "/auction/winner", "/auction/reason", "/stream/path"] {
        assert!(!field(&value, path).as_str().expect(path).is_empty(), "{path}");
    }
    for path in ["/auction/elapsed_ms", "/stream/ttft_ms", "/stream/duration_ms"] {
        assert!(field(&value, path).as_f64().expect(path) > 0.0, "{path}");
    }
    for path in ["/stream/tokens", "/receipt/input_tokens", "/receipt/output_tokens", "/receipt/amount_micro_usd"] {
        assert!(field(&value, path).as_u64().expect(path) > 0, "{path}");
    }
    let bids = field(&value, "/auction/bids").as_array().expect("bids");
    assert!(bids.iter().any(|bid| field(bid, "/worker") == field(&value, "/auction/winner")));
    assert!(bids.iter().all(|bid| field(bid, "/price_out").is_u64() && field(bid, "/score").is_u64()));
    assert_eq!(field(&value, "/receipt/worker"), field(&value, "/auction/winner"));
    assert_ne!(field(&value, "/receipt/buyer"), field(&value, "/receipt/worker"));
    for path in ["/receipt/job_id", "/receipt/worker_signature", "/receipt/buyer_signature"] {
        assert!(hex::decode(field(&value, path).as_str().expect(path)).is_ok(), "{path}");
    }
    assert_eq!(field(&value, "/receipt/verified"), true);
    assert!(field(&value, "/answer").as_str().expect("text").contains("Paris"), "a real model answers: {value}");
}

#[test]
fn the_answer_is_on_stdout_and_its_story_on_stderr() {
    let output = demo(&["What is the capital of France?"]);
    assert!(output.status.success());
    let (answer, story) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(answer.contains("Paris") && !answer.contains("auction"), "{answer}");
    for part in ["worker", "plane   http://localhost:", "auction", "bids", "stream", "receipt", "both signatures verify"] {
        assert!(story.contains(part), "{part} in {story}");
    }
}

fn number(row: &Value, path: &str) -> u64 {
    field(row, path).as_u64().expect("a number")
}

/// What the job came to, who won it, and what everybody has, the buyer first.
fn settled(value: &Value) -> (u64, &Value, &[Value]) {
    let rows = field(value, "/settlement/balances").as_array().expect("balances");
    (number(value, "/receipt/amount_micro_usd"), field(value, "/receipt/worker"), rows)
}

#[test]
fn a_job_is_paid_on_a_chain_to_the_micro_usd() {
    if !infernet_testnet::evm::can_start("no job was paid on a chain") {
        return;
    }
    let output = demo(&["What is the capital of France?", "--json", "--settle", "evm"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let (amount, winner, rows) = settled(&value);
    let gained = |row: &Value| number(row, "/after_micro_usd").checked_sub(number(row, "/before_micro_usd"));
    let spent = number(&rows[0], "/before_micro_usd") - number(&rows[0], "/after_micro_usd");
    assert_eq!((rows.len(), spent), (4, amount));
    for row in &rows[1..] {
        let due = if field(row, "/node") == winner { amount } else { 0 };
        assert_eq!(gained(row), Some(due), "{row}");
    }
}

#[test]
fn a_job_runs_on_a_tranche_that_was_paid_on_solana() {
    let output = demo(&["What is the capital of France?", "--json", "--settle", "solana"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let (amount, winner, rows) = settled(&value);
    let spent = number(&rows[0], "/before_micro_usd") - number(&rows[0], "/after_micro_usd");
    assert_eq!((rows.len(), spent), (4, 3 * 50_000), "a tranche for each worker");
    for row in &rows[1..] {
        let used = if field(row, "/node") == winner { amount } else { 0 };
        assert_eq!((number(row, "/after_micro_usd"), number(row, "/prepaid_micro_usd")), (50_000, 50_000 - used), "{row}");
    }
}
