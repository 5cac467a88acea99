//! When a worker sells, as its operator configures it, with the real command.

use super::{DEADLINE, MODEL, Started, chat, command, engine, home, infernet, mistakes::check};
use infernet_node::clock;
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use tokio::time::timeout;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// What `rocm-smi` prints for a card that is as hot as said.
fn card(celsius: u32) -> String {
    json!({ "card0": { "Temperature (Sensor edge) (C)": format!("{celsius}.0"), "GPU use (%)": "0",
        "Average Graphics Package Power (W)": "38.0", "VRAM Total Memory (B)": "17163091968",
        "VRAM Total Used Memory (B)": "1219493888", "Card series": "Radeon RX 6800 XT" } })
    .to_string()
}

/// The day of the week that begins `after` days from now, in UTC.
fn day(after: u64) -> &'static str {
    // 1 January 1970 was a Thursday.
    let days = clock::now().0 / 86_400_000 + 3 + after;
    DAYS[usize::try_from(days % 7).expect("small")]
}

async fn status(home: &Path) -> Value {
    infernet(home, &["status", "--json"]).await.json()
}

#[tokio::test]
async fn outside_its_schedule_a_worker_offers_nothing_and_says_when_it_will() {
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    let backend = format!("ollama={}", engine.url());
    // Open in three days: far from now, however long this takes.
    let args = [&["--json"], &super::START[..], &["--backend", &backend, "--schedule", day(3)]].concat();
    let mut start = command(worker_home.path(), &args);
    start.env("TZ", "UTC");
    let worker = Started::from(worker_home.path(), start).await;
    check(buyer_home.path(), &chat(&worker, "Hello"), 7, &["no bids"]).await;
    let status = status(worker_home.path()).await;
    let closed = &status["seller"]["closed"];
    let opens = closed["opens"].as_u64().expect("a time");
    let days = (opens / 86_400_000).abs_diff(clock::now().0 / 86_400_000);
    assert!(closed["reason"] == "off_schedule" && opens % 86_400_000 == 0 && (2..=3).contains(&days), "{closed}");
    let why = infernet(worker_home.path(), &["why", "--json"]).await.json();
    let finding = why["findings"].as_array().expect("a list").iter().find(|f| f["code"] == "off_schedule").expect("told");
    assert!(finding["blocks"] == true && finding["means"].as_str().is_some_and(|m| m.contains("opens in")), "{finding}");
    assert!(status["seller"]["counters"]["no_bid.off_schedule"].as_u64() > Some(0), "the buyer was told why");
    let screen = infernet(worker_home.path(), &["status"]).await.fine();
    assert!(screen.contains("outside the schedule; opens in 2 d"), "{screen}");
    worker.stop().await;
    check(worker_home.path(), &["start", "--schedule", "at night"], 3, &["schedule", "at night", "22:00-07:00 mon-fri"]).await;
}

#[tokio::test]
async fn a_hot_gpu_stops_selling_and_a_cooler_one_is_told_in_ad_and_status() {
    let (worker_home, buyer_home, tools, engine) = (home(), home(), home(), engine().await);
    // Stands in for the driver's tool, with its recorded words: no card of that make is in the machines that test this.
    let (tool, said) = (tools.path().join("rocm-smi"), tools.path().join("said.json"));
    fs::write(&tool, format!("#!/bin/sh\nexec cat {}\n", said.display())).expect("writes");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("is executable");
    let says = |celsius| {
        let draft = tools.path().join("draft");
        fs::write(&draft, card(celsius)).and_then(|()| fs::rename(&draft, &said)).expect("writes");
    };
    says(50);
    let backend = format!("ollama={}", engine.url());
    let args = [&["--json"], &super::START[..], &["--backend", &backend, "--max-celsius", "80"]].concat();
    let mut start = command(worker_home.path(), &args);
    start.env("PATH", format!("{}:/usr/bin:/bin", tools.path().display()));
    let worker = Started::from(worker_home.path(), start).await;
    infernet(buyer_home.path(), &chat(&worker, "Hello")).await.fine();
    let gpu = status(worker_home.path()).await["machine"]["gpus"][0].clone();
    assert_eq!((&gpu["vendor"], &gpu["model"], &gpu["celsius"]), (&json!("amd"), &json!("Radeon RX 6800 XT"), &json!(50)));
    let screen = infernet(worker_home.path(), &["status"]).await.fine();
    assert!(screen.contains("Radeon RX 6800 XT: busy 0 %, 1.2 GB of 17.2 GB in use, 50 °C, 38 W"), "{screen}");

    says(95);
    let closes = async { while status(worker_home.path()).await["seller"]["closed"]["reason"] != "too_hot" {} };
    timeout(DEADLINE, closes).await.expect("closes in time");
    check(buyer_home.path(), &chat(&worker, "Hello"), 7, &["no bids"]).await;
    says(50);
    let opens = async { while !status(worker_home.path()).await["seller"]["closed"].is_null() {} };
    timeout(DEADLINE, opens).await.expect("opens when it was cool for a while");
    infernet(buyer_home.path(), &[&chat(&worker, "Hello")[..], &["--path", "auction"]].concat()).await.fine();
    worker.stop().await;
}

#[tokio::test]
async fn each_model_has_its_price_and_the_floor_holds() {
    let (worker_home, engine) = (home(), engine().await);
    let backend = format!("ollama={}", engine.url());
    let price = format!("{MODEL}=5/700");
    let flags = ["--backend", &backend, "--price", &price, "--price-floor-in", "20"];
    let worker = Started::new(worker_home.path(), &flags).await;
    let offered = &status(worker_home.path()).await["seller"]["prices"][0];
    assert_eq!((&offered["price_in"], &offered["price_out"]), (&json!(20), &json!(700)), "{offered}");
    worker.stop().await;
    check(worker_home.path(), &["start", "--price", "cheap"], 2, &["--price", "MODEL=IN/OUT"]).await;
}
