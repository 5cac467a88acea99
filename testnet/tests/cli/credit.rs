//! What buyers owe a worker, and may, with the real command.

use super::{Started, chat, command, ended, engine, home, infernet, mistakes::check};
use serde_json::Value;

#[tokio::test]
async fn nothing_is_sold_on_credit_until_the_operator_says_so_and_what_is_owed_is_told() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let backend = format!("ollama={}", engine.url());
    let args = [&["--json"], &super::START[..], &["--backend", &backend, "--slots", "4"]].concat();
    let mut start = command(worker_home.path(), &args);
    start.env_remove("INFERNET_FREE_CREDIT");
    let worker = Started::from(worker_home.path(), start).await;
    check(buyer_home.path(), &chat(&worker, "Hello"), 7, &["no credit", "infernet credit set"]).await;

    let ask = async |args: &[&str]| {
        let mut asking = command(worker_home.path(), args);
        asking.env_remove("INFERNET_FREE_CREDIT").env("INFERNET_NETWORK", "testnet");
        ended(asking.spawn().expect("starts")).await
    };
    ask(&["credit", "set", "anybody", "0.10"]).await.fine();
    let written = std::fs::read_to_string(worker_home.path().join("config.toml")).expect("written");
    assert!(written.contains("free_credit = 100000"), "{written}");
    let told = infernet(buyer_home.path(), &[&chat(&worker, "Hello")[..], &["--json"]].concat()).await.json();
    let amount = told["receipt"]["amount_micro_usd"].as_u64().expect("an amount");
    let buyer = told["receipt"]["buyer"].as_str().expect("a buyer").to_owned();

    let rows = ask(&["credit", "list", "--json"]).await.json();
    let row = rows.as_array().and_then(|rows| rows.first()).cloned().expect("one buyer");
    assert_eq!((&row["buyer"], row["owed_micro_usd"].as_u64()), (&Value::from(buyer.clone()), Some(amount)), "{rows}");
    assert_eq!(row["limit_micro_usd"], 100_000);
    assert!(row["promised_micro_usd"].as_u64() >= Some(amount), "{rows}");
    ask(&["credit", "set", &buyer, "2"]).await.fine();
    check(worker_home.path(), &["credit", "set", "somebody", "2"], 2, &["somebody", "node id"]).await;
    check(worker_home.path(), &["credit", "paid", &buyer, "1 dollar"], 2, &["write dollars"]).await;
    worker.stop().await;

    // The same from the disk, and what is noted there is there for the next start.
    let rows = ask(&["credit", "list", "--json"]).await.json();
    assert_eq!(
        (&rows[0]["owed_micro_usd"], &rows[0]["limit_micro_usd"]),
        (&Value::from(amount), &Value::from(2_000_000)),
        "{rows}"
    );
    let dollars = format!("0.{amount:06}");
    let paid = ask(&["credit", "paid", &buyer, &dollars, "--json"]).await.json();
    assert_eq!((&paid[0]["owed_micro_usd"], &paid[0]["paid_micro_usd"]), (&Value::from(0), &Value::from(amount)), "{paid}");
    let screen = ask(&["credit", "list"]).await;
    assert!(screen.err.contains("anybody else may owe $0.100000") && screen.out.contains(&buyer), "{screen:?}");
}
