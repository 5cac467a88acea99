//! What comes is credited once, when it is deep enough, to whoever signs in by its wallet.

use super::*;
use infernet_plane::cashier::State;
use infernet_testnet::shim::{Link, Quality};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_counts_when_it_is_deep_and_once_over_restarts_and_instances() {
    let Some(scene) = Scene::new().await else { return };
    let client = scene.signs_in(2).await;
    let (cashier, task) = scene.cashier().await;
    scene.pay(20).await;
    scene.anvil.mine(DEPTH - 2).await.expect("blocks");
    catches_up(&scene, &cashier).await;
    assert!(scene.has(&client, 0).await, "one block more is needed");
    scene.anvil.mine(1).await.expect("a block");
    eventually("the credit", || scene.has(&client, 20)).await;
    // Again from the disk, and as two instances of one plane that read the same blocks.
    task.stop().await;
    let scene = scene.reopened();
    scene.pay(5).await;
    scene.anvil.mine(DEPTH).await.expect("blocks");
    let ((one, first), (other, second)) = (scene.cashier().await, scene.cashier().await);
    eventually("the second credit", || scene.has(&client, 25)).await;
    catches_up(&scene, &one).await;
    catches_up(&scene, &other).await;
    assert!(scene.has(&client, 25).await);
    let own = scene.store.deposits(&client, 10).await.expect("deposits");
    assert_eq!(own.iter().map(|row| row.amount.0).collect::<Vec<_>>(), [5 * DOLLAR, 20 * DOLLAR]);
    assert!(own.iter().all(|row| row.from == address(2) && row.to == address(3) && row.token == scene.token));
    assert_eq!(scene.store.entries(&client, None, 10).await.expect("entries").len(), 2);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_wallets_deposit_waits_until_it_signs_in() {
    let Some(scene) = Scene::new().await else { return };
    let (cashier, _task) = scene.cashier().await;
    scene.pay(7).await;
    scene.anvil.mine(DEPTH).await.expect("blocks");
    let waits = reports(&cashier, "a deposit of nobody", |report| report.unclaimed == 1).await;
    assert_eq!((waits.unclaimed_amount, waits.credited), (MicroUsd(7 * DOLLAR), 0));
    let client = scene.signs_in(2).await;
    eventually("the credit", || scene.has(&client, 7)).await;
    reports(&cashier, "nothing more that is nobody's", |report| report.unclaimed == 0 && report.credited == 1).await;
    // Nothing, sent in anybody's name, is no deposit; nor is what the account sends itself.
    scene.pay(0).await;
    let own = scene.anvil.wallet(&key(3), at_once()).await.expect("an account");
    act(&own, contract::transfer(&scene.token, &address(3), 1)).await.expect("sent");
    scene.anvil.mine(DEPTH).await.expect("blocks");
    catches_up(&scene, &cashier).await;
    assert_eq!(scene.store.unclaimed_deposits().await, Ok((0, MicroUsd(0))));
    assert!(scene.has(&client, 7).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reorganisation_takes_away_was_never_credited() {
    let Some(scene) = Scene::new().await else { return };
    let client = scene.signs_in(2).await;
    let (cashier, _task) = scene.cashier().await;
    let before = scene.anvil.command("evm_snapshot", json!([])).await.expect("a snapshot");
    scene.pay(20).await;
    scene.anvil.mine(DEPTH - 2).await.expect("blocks");
    catches_up(&scene, &cashier).await;
    assert_eq!(scene.anvil.command("evm_revert", json!([before])).await.expect("reverted"), true);
    scene.anvil.mine(3 * DEPTH).await.expect("other blocks");
    catches_up(&scene, &cashier).await;
    assert_eq!((scene.balance(&client).await, cashier.report().unclaimed), (MicroUsd(0), 0));
    // The chain that stays is followed.
    scene.pay(3).await;
    scene.anvil.mine(DEPTH).await.expect("blocks");
    eventually("the credit", || scene.has(&client, 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_away_loses_nothing_and_is_told() {
    let Some(scene) = Scene::new().await else { return };
    let client = scene.signs_in(2).await;
    let target = scene.anvil.url().trim_start_matches("http://").parse().expect("an address");
    let link = Link::tcp(target, Quality::default()).await.expect("a link");
    link.cut();
    let config = || {
        let rpc = format!("http://{}/?key=secret-secret", link.addr()).parse().expect("a URL");
        CashierConfig { rpc, ..scene.config() }
    };
    let (cashier, task) = scene.cashier_with(config()).await.expect("it starts while the chain is away");
    let failing = reports(&cashier, "a reason", |report| report.state == State::Failing && report.reason.is_some()).await;
    let reason = failing.reason.expect("a reason");
    assert!(reason.contains(&link.addr().to_string()) && !reason.contains("secret"), "{reason}");
    assert!(!cashier.is_open(), "what came now would be before the first block that is read");
    link.mend();
    reports(&cashier, "the chain", |report| report.state == State::Following).await;
    assert!(cashier.is_open());
    link.cut();
    task.stop().await;
    let (cashier, _task) = scene.cashier_with(config()).await.expect("it starts again while the chain is away");
    assert!(cashier.is_open(), "it goes on where it was");
    scene.pay(4).await;
    scene.anvil.mine(DEPTH).await.expect("blocks");
    reports(&cashier, "the chain is away", |report| report.state == State::Failing).await;
    link.mend();
    eventually("the credit", || scene.has(&client, 4)).await;
    reports(&cashier, "the chain is back", |report| report.state == State::Following && report.reason.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_the_chain_contradicts_are_refused() {
    let Some(scene) = Scene::new().await else { return };
    let check = async |config: CashierConfig, part: &str| {
        let told = scene.cashier_with(config).await.err().expect("refused").to_string();
        assert!(told.contains(part), "{told}");
    };
    check(CashierConfig { chain: 1, ..scene.config() }, "is on chain 31337, not on 1").await;
    check(CashierConfig { token: address(9), ..scene.config() }, "there is no token").await;
    // Whatever it is asked it answers 18: PUSH1 18, PUSH1 0, MSTORE, PUSH1 32, PUSH1 0, RETURN.
    let other = address(8);
    let code = json!([other.to_string(), "0x601260005260206000f3"]);
    scene.anvil.command("anvil_setCode", code).await.expect("a contract");
    check(CashierConfig { token: other, ..scene.config() }, "has 18 decimals, not 6").await;
}
