//! What is above the cap goes to the cold account, once, whoever is killed when.

use super::*;
use infernet_plane::cashier::Sweep;

const CAP: u64 = 5;
const COLD: u8 = 9;

async fn sweeping(scene: &Scene) -> (Cashier, Task) {
    let config = CashierConfig { cold: Some((address(COLD), MicroUsd(CAP * DOLLAR))), ..scene.config() };
    scene.cashier_with(config).await.expect("a cashier")
}

fn is(sweep: &Option<Sweep>, number: u64, stage: &str) -> bool {
    sweep.as_ref().is_some_and(|sweep| sweep.number == number && sweep.stage == stage)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_above_the_cap_is_swept_once_over_restarts_and_instances() {
    let Some(scene) = Scene::new().await else { return };
    let (cashier, task) = sweeping(&scene).await;
    scene.anvil.automine(false).await.expect("held");
    let mut paid =
        scene.wallet.prepare(contract::transfer(&scene.token, &address(3), u128::from(20 * DOLLAR))).await.expect("prepared");
    scene.wallet.advance(&mut paid, &mut |_| async { Ok(()) }).await.expect("sent");
    scene.anvil.mine(DEPTH).await.expect("blocks");
    // Sent, and in no block: killed there.
    let sent = reports(&cashier, "a sweep on its way", |report| is(&report.sweep, 1, "sent")).await.sweep.expect("a sweep");
    assert_eq!((sent.amount, sent.to), (MicroUsd(15 * DOLLAR), address(COLD)));
    task.stop().await;
    let scene = scene.reopened();
    let ((one, first), (other, second)) = (sweeping(&scene).await, sweeping(&scene).await);
    scene.anvil.mine(1).await.expect("a block");
    scene.anvil.mine(DEPTH).await.expect("blocks");
    for cashier in [&one, &other] {
        reports(cashier, "the sweep's end", |report| is(&report.sweep, 1, "settled")).await;
        catches_up(&scene, cashier).await;
    }
    assert_eq!((scene.held(&address(COLD)).await, scene.held(&address(3)).await), (15 * DOLLAR, CAP * DOLLAR));
    let payments = scene.store.payments(&format!("{CHAIN}:{}", address(3)), 10).await.expect("payments");
    assert_eq!(payments.len(), 1, "nothing was sent twice");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_gas_keeps_nobodys_deposit_waiting() {
    let Some(scene) = Scene::new().await else { return };
    let client = scene.signs_in(2).await;
    let poor = serde_json::json!([address(3).to_string(), "0x0"]);
    scene.anvil.command("anvil_setBalance", poor).await.expect("poor");
    let (cashier, _task) = sweeping(&scene).await;
    scene.pay(20).await;
    scene.anvil.mine(DEPTH).await.expect("blocks");
    eventually("the credit", || scene.has(&client, 20)).await;
    let says = |why: &String| why.contains("has 0 gwei") && why.contains(&address(3).to_string());
    reports(&cashier, "a reason", |report| report.sweep_reason.as_ref().is_some_and(says)).await;
    assert_eq!(scene.held(&address(COLD)).await, 0);
    scene.anvil.fund(&address(3)).await.expect("rich");
    eventually("the sweep", || async {
        scene.anvil.mine(1).await.expect("a block");
        scene.held(&address(COLD)).await == 15 * DOLLAR
    })
    .await;
    reports(&cashier, "no reason any more", |report| report.sweep_reason.is_none()).await;
}

/// Such as a node that settles with a copy of the plane's key.
#[tokio::test(flavor = "multi_thread")]
async fn a_plane_whose_key_another_program_uses_sweeps_nothing_and_says_why() {
    let Some(scene) = Scene::new().await else { return };
    let (cashier, _task) = sweeping(&scene).await;
    scene.pay(20).await;
    eventually("the first sweep", || async {
        scene.anvil.mine(1).await.expect("a block");
        is(&cashier.report().sweep, 1, "settled")
    })
    .await;
    let other = scene.anvil.wallet(&key(3), at_once()).await.expect("its account");
    act(&other, contract::transfer(&scene.token, &address(4), 1)).await.expect("sent");
    scene.pay(20).await;
    scene.anvil.mine(DEPTH).await.expect("blocks");
    let told = reports(&cashier, "a reason", |report| report.sweep_reason.is_some()).await;
    let why = told.sweep_reason.expect("a reason");
    assert!(why.contains("another program sends from") && why.contains("give it a key of its own"), "{why}");
    assert!(is(&told.sweep, 1, "settled"), "nothing more was begun");
    assert_eq!(scene.held(&address(COLD)).await, 15 * DOLLAR);
}
