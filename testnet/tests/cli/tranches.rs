//! Money on Solana, with the real commands and Solana's own runtime: a tranche, the job that it pays for, and where it arrives.

use super::{
    DEADLINE, MODEL, START, command, ended, engine, home, infernet,
    mistakes::check,
    signal,
    wallet::{leaks_nothing, start, told_by_http, until},
};
use infernet_node::{
    identity,
    settlement::solana::{key::SolanaKey, transaction::Asset},
};
use infernet_testnet::svm::{Clock, Cluster, Faults, Node};
use infernet_wire::solana::SolanaAddress;
use serde_json::Value;
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

/// Final within a second, and a blockhash lives for three.
const BLOCK: Duration = Duration::from_millis(20);
/// In the cluster's URL; nobody looks at it.
const SECRET: &str = "a-key-that-is-secret";
/// What the buyer has.
const PURSE: u64 = 1_000_000;

/// A cluster with a token, one endpoint and a clock.
struct Chain {
    cluster: Cluster,
    endpoint: Node,
    _clock: Clock,
    mint: SolanaAddress,
}

impl Chain {
    async fn start() -> Self {
        let cluster = Cluster::new();
        let Asset::Token { mint, .. } = cluster.token(7, 6).expect("a token") else { panic!("a token") };
        let (endpoint, clock) = (cluster.node().await.expect("an endpoint"), cluster.tick(1, BLOCK));
        Chain { cluster, endpoint, _clock: clock, mint }
    }

    /// What a node of this cluster has in its file; its wallet.
    fn configure(&self, home: &Path) -> SolanaAddress {
        let (url, genesis, mint) = (self.endpoint.url(), self.cluster.genesis(), self.mint);
        let text =
            format!("solana_rpc = [\"{url}/?key={SECRET}\"]\nsolana_cluster = \"{genesis}\"\nsolana_mint = \"{mint}\"\n");
        std::fs::write(home.join("config.toml"), text).expect("written");
        identity::solana_key(home).expect("a key").address()
    }

    fn fund(&self, wallet: &SolanaAddress) {
        self.cluster.airdrop(wallet, 10_000_000_000);
        self.cluster.give(&self.mint, wallet, PURSE).expect("tokens");
    }
}

#[tokio::test]
async fn a_tranche_pays_for_a_job_and_arrives_where_the_worker_says() {
    let chain = Chain::start().await;
    let (worker_home, buyer_home, engine) = (home(), home(), engine().await);
    chain.configure(worker_home.path());
    let wallet = chain.configure(buyer_home.path());
    chain.fund(&wallet);
    // Where the worker is paid: a wallet, not the account that holds its tokens.
    let cold = SolanaKey::from_bytes(&[41; 32]).address();
    let program = SolanaAddress([2; 32]).to_string();
    check(worker_home.path(), &["payout", "set", "solana", &program], 2, &["address of a wallet"]).await;
    check(worker_home.path(), &["payout", "set", "solana", "0x12"], 2, &["base58"]).await;
    let row = infernet(worker_home.path(), &["payout", "set", "solana", &cold.to_string(), "--json"]).await.json();
    assert_eq!((&row["key"], &row["value"]), (&"payout_solana".into(), &cold.to_string().into()));
    let backend = format!("ollama={}", engine.url());
    let worker = start(worker_home.path(), &["--backend", &backend, "--slots", "4"]).await;
    let buyer = start(buyer_home.path(), &["--no-serve", "--no-api", "--bootstrap", worker.address()]).await;
    let worker_id = worker.status.id.to_string();

    let list = ["payout", "list", "--json"];
    let told = infernet(worker_home.path(), &list).await.json();
    assert_eq!(told["accounts"][0]["payout_to"], cold.to_string(), "{told}");

    let balance = ["wallet", "balance", "--json"];
    let told = infernet(buyer_home.path(), &balance).await.json();
    let account = &told["accounts"][0];
    assert_eq!((&account["rail"], &account["address"]), (&"solana".into(), &wallet.to_string().into()), "{told}");
    assert_eq!((&account["balances"][0]["asset"], &account["balances"][1]["micro_usd"]), (&"SOL".into(), &PURSE.into()));
    assert!(told["chain"].is_null(), "{told}");

    // The first ad may be of before the wallet was open.
    let dear = ["tranche", "buy", &worker_id, "5"];
    let heard = async { while infernet(buyer_home.path(), &dear).await.err.contains("takes no tranches") {} };
    timeout(DEADLINE, heard).await.expect("hears of the worker in time");
    assert_eq!(infernet(buyer_home.path(), &["tranche", "list", "--json"]).await.json(), Value::Array(Vec::new()));
    check(buyer_home.path(), &dear, 1, &["1000000", "5000000", "send it some"]).await;
    check(buyer_home.path(), &["tranche", "buy", &buyer.status.id.to_string()], 1, &["takes no tranches"]).await;
    let rows = infernet(buyer_home.path(), &["tranche", "buy", &worker_id, "--json"]).await.json();
    assert_eq!((&rows[0]["worker"], &rows[0]["micro_usd"]), (&worker_id.as_str().into(), &50_000.into()), "{rows}");
    let is = |state: &'static str| move |told: &Value| told[0]["state"] == state;
    let rows = until(buyer_home.path(), &["tranche", "list", "--json"], is("paid and waiting for a job")).await;
    assert_eq!(rows[0]["left_micro_usd"], 50_000, "{rows}");
    check(buyer_home.path(), &["tranche", "buy", &worker_id], 1, &["tranche 1", "waiting for a job"]).await;

    // A job, on nobody's credit.
    let asked = ["chat", "Hello", "--model", MODEL, "--temperature", "0", "--json"];
    let told = infernet(buyer_home.path(), &asked).await.json();
    let left = told["receipt"]["amount_micro_usd"].as_u64().and_then(|amount| 50_000_u64.checked_sub(amount));
    let rows = until(buyer_home.path(), &["tranche", "list", "--json"], is("taken")).await;
    assert_eq!(rows[0]["left_micro_usd"].as_u64(), left, "{rows}");
    let arrived = until(worker_home.path(), &list, |told| told["prepaid"][0]["left_micro_usd"].as_u64() == left).await;
    let row = &arrived["prepaid"][0];
    assert_eq!((&row["buyer"], &row["tranches"]), (&buyer.status.id.to_string().into(), &1.into()), "{arrived}");
    assert_eq!((row["micro_usd"].as_u64(), chain.cluster.tokens(&chain.mint, &cold)), (Some(50_000), 50_000));

    // The next, by the other name of the same command.
    let rows = infernet(buyer_home.path(), &["wallet", "deposit", &worker_id, "0.02", "--solana", "--json"]).await.json();
    assert_eq!((&rows[0]["number"], &rows[0]["micro_usd"]), (&2.into(), &20_000.into()), "{rows}");
    until(buyer_home.path(), &["tranche", "list", "--json"], is("paid and waiting for a job")).await;
    assert_eq!(chain.cluster.tokens(&chain.mint, &cold), 70_000);

    // What the wallet has can leave it, in the token and in SOL.
    let (away, units) = (SolanaKey::from_bytes(&[42; 32]).address(), PURSE - 70_000);
    let withdraw = |to: &SolanaAddress, rest: &[&str]| {
        let to = to.to_string();
        let words: Vec<String> = ["wallet", "withdraw", &to].iter().chain(rest).map(|&word| word.to_owned()).collect();
        let home = buyer_home.path().to_owned();
        async move { infernet(&home, &words.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let told = withdraw(&wallet, &["1"]).await;
    assert!(told.code == 1 && told.err.contains("own wallet"), "{told:?}");
    let told = withdraw(&away, &["5", "--coin"]).await;
    assert!(told.code == 1 && told.err.contains("say all"), "{told:?}");
    let told = withdraw(&away, &["5"]).await;
    assert!(told.code == 1 && told.err.contains("send it some"), "{told:?}");
    let told = withdraw(&away, &["0.03", "--json"]).await.json();
    assert_eq!((&told[0]["what"], &told[0]["stage"]), (&"withdraw_solana".into(), &"settled".into()), "{told}");
    assert_eq!((&told[0]["number"], chain.cluster.tokens(&chain.mint, &away)), (&1.into(), 30_000));
    let told = withdraw(&away, &["all", "--json"]).await.json();
    assert_eq!((&told[0]["number"], chain.cluster.tokens(&chain.mint, &away)), (&2.into(), units), "{told}");
    let (told, left) = (withdraw(&away, &["all"]).await, chain.cluster.tokens(&chain.mint, &wallet));
    assert!(told.code == 1 && told.err.contains("nothing to send") && left == 0, "{told:?}");
    let before = chain.cluster.lamports(&wallet);
    withdraw(&away, &["all", "--coin"]).await.fine();
    let (sent, kept) = (chain.cluster.lamports(&away), chain.cluster.lamports(&wallet));
    assert!(sent + kept <= before && kept < 3_000_000 && before - sent - kept < 100_000, "{before} {sent} {kept}");
    check(buyer_home.path(), &["wallet", "withdraw", &format!("0x{}", "11".repeat(20)), "1"], 3, &["no EVM chain"]).await;
    let listed = infernet(buyer_home.path(), &["payout", "list", "--csv"]).await.fine();
    assert!(listed.contains("3,withdraw_solana"), "{listed}");

    // For people, and without what is secret; a node of the cluster that is silent holds nobody up.
    let mut shown = infernet(worker_home.path(), &["payout", "list"]).await.fine();
    assert!(shown.contains("PREPAID") && shown.contains(&buyer.status.id.to_string()), "{shown}");
    let text = infernet(buyer_home.path(), &["wallet", "balance"]).await.fine();
    assert!(["solana", " SOL", "$0.00", "left"].iter().all(|word| text.contains(word)), "{text}");
    chain.endpoint.set(Faults { silent: true, ..Faults::default() });
    let told = infernet(buyer_home.path(), &balance).await.json();
    assert!(told["accounts"][0]["trouble"].is_string() && told["tranches"][0]["number"] == 2, "{told}");
    shown += &format!("{text}{told}");
    // A new key could not show it.
    buyer.stop().await;
    check(buyer_home.path(), &["key", "rotate"], 1, &["tranche 2 to", "--force"]).await;
    chain.endpoint.set(Faults::default());
    let buyer = start(buyer_home.path(), &["--no-serve", "--no-api", "--bootstrap", worker.address()]).await;
    // What no job can use is written off, and only that.
    check(buyer_home.path(), &["tranche", "drop", &worker_id, "1"], 1, &["newest tranche", "is 2"]).await;
    let rows = infernet(buyer_home.path(), &["tranche", "drop", &worker_id, "2", "--json"]).await.json();
    assert_eq!((&rows[0]["state"], &rows[0]["number"]), (&"written off".into(), &2.into()), "{rows}");
    check(buyer_home.path(), &["tranche", "drop", &worker_id, "2"], 1, &["is written off"]).await;
    buyer.stop().await;
    check(buyer_home.path(), &["key", "rotate"], 1, &["was prepaid are not used", "--force"]).await;
    infernet(buyer_home.path(), &["key", "rotate", "--force"]).await.fine();
    shown += &told_by_http(&worker).await;
    worker.stop().await;
    for home in [&worker_home, &buyer_home] {
        leaks_nothing(home.path(), SECRET);
    }
    assert!(!shown.contains(SECRET), "{shown}");
}

#[tokio::test]
async fn without_a_wallet_tranches_say_what_to_do() {
    let home = home();
    check(home.path(), &["tranche", "list"], 11, &["infernet start"]).await;
    let node = start(home.path(), &["--no-serve"]).await;
    check(home.path(), &["tranche", "list"], 3, &["solana_rpc"]).await;
    check(home.path(), &["wallet", "balance"], 3, &["solana_rpc", "evm_chain"]).await;
    node.stop().await;
}

#[tokio::test]
async fn whoever_has_a_backup_is_told_of_a_new_wallet() {
    let home = home();
    std::fs::write(home.path().join("config.toml"), "solana_rpc = [\"http://127.0.0.1:1\"]\n").expect("written");
    for is_new in [true, false] {
        let mut child = command(home.path(), &[&START[..], &["--no-serve"]].concat()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut said = String::new();
        let ready = async {
            while !said.contains("sells nothing") {
                said += &lines.next_line().await.expect("reads").expect("a line");
            }
        };
        timeout(DEADLINE, ready).await.expect("is ready in time");
        signal(&child, "TERM");
        let reply = ended(child).await;
        let wallet = identity::existing_solana_key(home.path()).expect("readable").expect("a key").address();
        let told = said.contains(&format!("made a wallet on Solana, {wallet}")) && said.contains("key backup FILE");
        assert_eq!((reply.code, told), (0, is_new), "{said}");
    }
}
