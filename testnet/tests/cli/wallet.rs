//! Money on a real chain, with the real commands: a deposit, a job that is paid from it, a payout.

use super::{DEADLINE, MODEL, Started, command, ended, engine, home, infernet, mistakes::check};
use infernet_node::identity;
use infernet_testnet::evm::{self, Anvil, CHAIN, Program, act, at_once};
use infernet_wire::{
    evm::{EvmAddress, address_word, word},
    key::NodeKey,
};
use serde_json::Value;
use std::path::Path;
use tokio::time::timeout;

/// In the chain's URL; anvil does not look at it.
const SECRET: &str = "a-key-that-is-secret";

/// What a node of this chain has in its file.
fn configure(home: &Path, anvil: &Anvil, contract: &EvmAddress, token: &EvmAddress) {
    let rpc = format!("evm_rpc = \"{}/?key={SECRET}\"\n", anvil.url());
    let text = rpc
        + &format!(
            "evm_chain = {CHAIN}\nevm_contract = \"{contract}\"\nevm_token = \"{token}\"\nevm_depth = 1\npayout_at = 0\n"
        );
    std::fs::write(home.join("config.toml"), text).expect("written");
}

/// A node that lets nobody owe it anything.
pub(super) async fn start(home: &Path, extra: &[&str]) -> Started {
    let mut start = command(home, &[&["--json"], &super::START[..], extra].concat());
    start.env_remove("INFERNET_FREE_CREDIT").env("RUST_LOG", "debug");
    Started::from(home, start).await
}

/// Neither what is secret about the chain's URL nor the node's keys are in any file of its home but those that hold them, however much is
/// logged.
pub(super) fn leaks_nothing(home: &Path, secret: &str) {
    let (key, solana) = (identity::load(home).expect("a key"), identity::existing_solana_key(home).expect("readable"));
    let keys = [Some(*key.secret_bytes()), solana.map(|key| *key.seed())];
    let keys = keys.into_iter().flatten().flat_map(|key| [key.to_vec(), hex::encode(key).into_bytes()]);
    let secrets: Vec<Vec<u8>> = keys.chain([secret.as_bytes().to_vec()]).collect();
    let (mut folders, mut read) = (vec![home.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name != "config.toml" && !name.ends_with(".key") && path.is_file() {
                let bytes = std::fs::read(&path).expect("readable");
                let holds = |secret: &Vec<u8>| bytes.windows(secret.len()).any(|window| window == &secret[..]);
                assert!(!secrets.iter().any(holds), "{} has a secret in it", path.display());
                read += 1;
            }
        }
    }
    assert!(read > 3, "there are a log, a journal and an index: {read} files");
}

/// What the node's own API and metrics tell.
pub(super) async fn told_by_http(node: &Started) -> String {
    let api = node.status.api.as_deref().expect("an API").trim_end_matches("/v1").to_owned();
    let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
    let mut told = String::new();
    for path in ["/metrics", "/healthz", "/v1/models"] {
        told += &http.get(format!("{api}{path}")).send().await.expect("an answer").text().await.expect("a body");
    }
    told
}

pub(super) async fn until(home: &Path, args: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let told = infernet(home, args).await.json();
            if holds(&told) {
                return told;
            }
        }
    };
    timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("{args:?} never told it"))
}

#[tokio::test]
async fn a_job_is_paid_from_a_deposit_and_the_worker_is_paid_out() {
    let Some(anvil) = evm::chain("the wallet was not tested").await else { return };
    let stranger = anvil.wallet(&NodeKey::from_bytes(&[9; 32]).expect("a key"), at_once()).await.expect("an account");
    let contract = Program::Channels.deploy(&stranger).await.expect("deployed");
    let token = Program::TestToken.deploy(&stranger).await.expect("deployed");
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    [&worker_home, &buyer_home].iter().for_each(|home| configure(home.path(), &anvil, &contract, &token));
    let backend = format!("ollama={}", engine.url());
    let worker = start(worker_home.path(), &["--backend", &backend, "--slots", "4"]).await;
    let buyer = start(buyer_home.path(), &["--no-serve", "--no-api", "--bootstrap", worker.address()]).await;
    let worker_id = worker.status.id.to_string();
    for home in [&worker_home, &buyer_home] {
        let told = until(home.path(), &["wallet", "balance", "--json"], |told| told["chain"]["ready"] == true).await;
        let address = EvmAddress::from_lower(told["chain"]["address"].as_str().expect("text")).expect("an address");
        anvil.fund(&address).await.expect("coins");
        let mint = evm::call(&token, "mint(address,uint256)", &[address_word(&address), word(2_000_000)], None);
        act(&stranger, mint).await.expect("tokens");
    }
    check(buyer_home.path(), &["wallet", "deposit", &worker_id, "5"], 1, &["2000000", "5000000", "are needed"]).await;
    let steps = infernet(buyer_home.path(), &["wallet", "deposit", &worker_id, "1.50", "--json"]).await.json();
    let ends: Vec<_> = steps.as_array().expect("steps").iter().map(|step| (&step["what"], &step["stage"])).collect();
    assert_eq!(ends, [(&"approve".into(), &"settled".into()), (&"open".into(), &Value::from("settled"))], "{steps}");
    for home in [&worker_home, &buyer_home] {
        until(home.path(), &["wallet", "balance", "--json"], |told| told["channels"][0]["deposit_micro_usd"] == 1_500_000)
            .await;
    }
    // A job, on nobody's credit.
    let known =
        async { while infernet(buyer_home.path(), &["models", "--json"]).await.json().as_array().is_none_or(Vec::is_empty) {} };
    timeout(DEADLINE, known).await.expect("hears of the worker in time");
    let asked = ["chat", "Hello", "--model", MODEL, "--temperature", "0", "--json"];
    let told = infernet(buyer_home.path(), &asked).await.json();
    let amount = told["receipt"]["amount_micro_usd"].as_u64().expect("an amount");
    let earned =
        until(worker_home.path(), &["payout", "list", "--json"], |told| told["channels"][0]["promised_micro_usd"] != 0).await;
    let channel = &earned["channels"][0];
    assert_eq!(channel["came_to_micro_usd"], amount, "{earned}");
    assert!(channel["redeemable_micro_usd"].as_u64() >= Some(amount), "{earned}");

    let cold = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    check(worker_home.path(), &["payout", "set", "evm", &cold.to_lowercase()], 2, &["no checksum", cold]).await;
    infernet(worker_home.path(), &["payout", "set", "evm", cold]).await.fine();
    let steps = infernet(worker_home.path(), &["payout", "now", "--json"]).await.json();
    assert!(
        steps.as_array().is_some_and(|steps| steps.len() == 2 && steps.iter().all(|step| step["stage"] == "settled")),
        "{steps}"
    );
    let got = stranger.balance(&token, &cold.parse().expect("an address")).await.expect("a balance");
    assert!(got >= 2_000_000 + u128::from(amount), "{got}");
    let csv = infernet(worker_home.path(), &["payout", "list", "--csv"]).await.fine();
    assert!(csv.lines().any(|line| line.contains(",redeem,") && line.contains(",settled,")), "{csv}");
    check(buyer_home.path(), &["wallet", "withdraw", cold, "lots"], 2, &["lots", "write dollars", "all"]).await;
    infernet(buyer_home.path(), &["wallet", "withdraw", cold, "0.25"]).await.fine();
    infernet(buyer_home.path(), &["wallet", "close", &worker_id, "--exit"]).await.fine();

    // Another channel, another job, and its end by both sides' word: the worker gets what the job came to, the buyer the rest.
    infernet(buyer_home.path(), &["wallet", "deposit", &worker_id, "0.20"]).await.fine();
    let open = |told: &Value| told["channels"].as_array().is_some_and(|all| all.iter().any(|one| one["state"] == "open"));
    until(worker_home.path(), &["wallet", "balance", "--json"], open).await;
    let amount = infernet(buyer_home.path(), &asked).await.json()["receipt"]["amount_micro_usd"].as_u64().expect("an amount");
    let steps = infernet(buyer_home.path(), &["wallet", "close", &worker_id, "--json"]).await.json();
    assert_eq!((&steps[0]["what"], &steps[0]["stage"]), (&"close".into(), &"settled".into()), "{steps}");
    assert_eq!(steps[0]["amount"], amount.to_string(), "{steps}");

    // The credential is in no output and no log.
    let mut shown = String::new();
    for home in [&worker_home, &buyer_home] {
        for args in [&["config", "show"][..], &["status"], &["wallet", "balance"], &["payout", "list"], &["doctor"]] {
            let mut asking = command(home.path(), args);
            asking.env("INFERNET_EVM_RPC", format!("{}/?key={SECRET}", anvil.url()));
            let reply = ended(asking.spawn().expect("starts")).await;
            shown += &format!("{reply:?}");
        }
    }
    shown += &told_by_http(&worker).await;
    buyer.stop().await;
    worker.stop().await;
    for home in [&worker_home, &buyer_home] {
        leaks_nothing(home.path(), SECRET);
    }
    assert!(shown.contains("evm_rpc") && !shown.contains(SECRET), "{shown}");
}

#[tokio::test]
async fn without_a_node_or_a_chain_the_wallet_says_what_to_do() {
    let home = home();
    check(home.path(), &["wallet", "balance"], 11, &["infernet start"]).await;
    check(home.path(), &["payout", "now"], 11, &["infernet start"]).await;
    let node = Started::new(home.path(), &["--no-serve"]).await;
    check(home.path(), &["wallet", "balance"], 3, &["on no chain", "INFERNET_EVM_RPC"]).await;
    node.stop().await;
}
