//! The node's transactions when the chain is not kind: stuck, replaced, undone, and a node that dies at every point between.

use crate::{Kind, Scene, key, pays};
use infernet_node::settlement::evm::{
    rpc::Rpc,
    step::{Next, Rules, Stage, Step},
    transaction::{Call, Fees},
    wallet::{EvmError, Wallet},
};
use infernet_testnet::evm::{CHAIN, PATIENCE, at_once};
use serde_json::json;
use std::{cell::RefCell, time::Duration};

/// In no block for this long is stuck, here.
const SOON: Rules = Rules { depth: 1, stuck_ms: 50, doubt_ms: 100, max_fee: 200_000_000_000 };

async fn keeps(_: Step) -> Result<(), String> {
    Ok(())
}

#[tokio::test]
async fn a_stuck_transaction_pays_more_and_happens_once() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    let payee = scene.anvil.wallet(&key(3), SOON).await.expect("an account");
    scene.anvil.automine(false).await.expect("held");
    let mut step = payee.prepare(scene.channels.redeem(&pays(&terms, 400))).await.expect("prepared");
    let nonce = step.nonce;
    while step.attempts.len() < 4 {
        payee.advance(&mut step, &mut keeps).await.expect("goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let fees: Vec<u128> = step.attempts.iter().map(|attempt| attempt.fees.max).collect();
    assert!(fees.is_sorted_by(|a, b| a * 110 <= b * 100), "{fees:?}");
    // The pool holds one of them: the dearest.
    let pool = scene.anvil.command("txpool_content", json!([])).await.expect("the pool");
    let waiting =
        pool["pending"].as_object().expect("accounts").values().next().expect("one account").as_object().expect("nonces");
    assert_eq!(waiting.keys().collect::<Vec<_>>(), [&nonce.to_string()]);
    let newest = step.attempts.last().expect("attempts").hash.to_string();
    assert_eq!(waiting[&nonce.to_string()]["hash"], newest);
    scene.anvil.automine(true).await.expect("goes on");
    scene.anvil.mine(1).await.expect("a block");
    let end = payee.drive(&mut step, PATIENCE, keeps).await.expect("an end");
    assert!(matches!(end, Stage::Confirmed { hash, .. } if hash.to_string() == newest), "{end:?}");
    assert_eq!(scene.balance(Kind::Token, &payee.address()).await, 400);
}

/// A pool forgets: what was dropped is sent again.
#[tokio::test]
async fn a_dropped_transaction_is_sent_again() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    let payee = scene.anvil.wallet(&key(3), SOON).await.expect("an account");
    scene.anvil.automine(false).await.expect("held");
    let mut step = payee.prepare(scene.channels.redeem(&pays(&terms, 400))).await.expect("prepared");
    payee.advance(&mut step, &mut keeps).await.expect("sent");
    scene.anvil.command("anvil_dropAllTransactions", json!([])).await.expect("forgotten");
    scene.anvil.automine(true).await.expect("goes on");
    let end = payee.drive(&mut step, PATIENCE, keeps).await.expect("an end");
    assert!(matches!(end, Stage::Confirmed { .. }), "{end:?}");
    assert_eq!(scene.balance(Kind::Token, &payee.address()).await, 400);
}

/// Another program with the same key takes the nonce: the step ends, and says so; nothing was paid by it.
#[tokio::test]
async fn a_replaced_transaction_ends_as_replaced_and_paid_nothing() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    let payee = scene.anvil.wallet(&key(3), Rules { stuck_ms: 60_000, ..SOON }).await.expect("an account");
    scene.anvil.automine(false).await.expect("held");
    let mut step = payee.prepare(scene.channels.redeem(&pays(&terms, 400))).await.expect("prepared");
    payee.advance(&mut step, &mut keeps).await.expect("sent");
    let mut foreign =
        Step::new(CHAIN, Call { to: Some(key(9).id().evm_address()), value: 5, data: vec![] }, step.nonce, 30_000);
    foreign.sign(Fees { max: 150_000_000_000, tip: 50_000_000_000 }, &key(3));
    let raw = format!("0x{}", hex::encode(&foreign.attempts[0].raw));
    scene.anvil.command("eth_sendRawTransaction", json!([raw])).await.expect("taken");
    scene.anvil.mine(1).await.expect("a block");
    scene.anvil.automine(true).await.expect("goes on");
    assert_eq!(payee.drive(&mut step, PATIENCE, keeps).await.expect("an end"), Stage::Replaced);
    assert_eq!(scene.balance(Kind::Token, &payee.address()).await, 0);
    // The voucher is as good as before.
    scene.ok(&scene.payee, scene.channels.redeem(&pays(&terms, 400))).await;
    assert_eq!(scene.balance(Kind::Token, &payee.address()).await, 400);
}

/// The block with the payment vanishes, and the transaction with it: it is sent again, and counts when it is deep.
#[tokio::test]
async fn a_payment_survives_a_reorganisation_and_happens_once() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    let payee = scene.anvil.wallet(&key(3), Rules { depth: 4, ..SOON }).await.expect("an account");
    let snapshot = scene.anvil.command("evm_snapshot", json!([])).await.expect("a snapshot");
    let mut step = payee.prepare(scene.channels.redeem(&pays(&terms, 400))).await.expect("prepared");
    payee.advance(&mut step, &mut keeps).await.expect("sent");
    scene.anvil.mine(1).await.expect("a block");
    assert_eq!(payee.advance(&mut step, &mut keeps).await.expect("looks"), Next::Wait);
    assert!(matches!(step.stage, Stage::Mined { .. }), "not deep enough: {:?}", step.stage);
    // The chain goes back, and grows a branch without it.
    scene.anvil.command("evm_revert", json!([snapshot])).await.expect("undone");
    scene.anvil.mine(3).await.expect("another branch");
    assert_eq!(scene.balance(Kind::Token, &payee.address()).await, 0);
    assert_eq!(payee.advance(&mut step, &mut keeps).await.expect("sends again"), Next::Send);
    scene.anvil.mine(4).await.expect("deep");
    let end = payee.drive(&mut step, PATIENCE, keeps).await.expect("an end");
    assert!(matches!(end, Stage::Confirmed { .. }), "{end:?}");
    assert_eq!(scene.balance(Kind::Token, &payee.address()).await, 400);
}

/// anvil's own reorganisation: the block is replaced by others that hold the same transaction or not.
#[tokio::test]
async fn a_payment_that_moves_to_another_block_counts_from_there() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    // The channel itself is deep.
    scene.anvil.mine(5).await.expect("blocks");
    let payee = scene.anvil.wallet(&key(3), Rules { depth: 6, ..SOON }).await.expect("an account");
    let mut step = payee.prepare(scene.channels.redeem(&pays(&terms, 400))).await.expect("prepared");
    payee.advance(&mut step, &mut keeps).await.expect("sent");
    scene.anvil.mine(1).await.expect("a block");
    payee.advance(&mut step, &mut keeps).await.expect("looks");
    let Stage::Mined { block_hash, .. } = step.stage else { panic!("mined: {:?}", step.stage) };
    scene
        .anvil
        .command("anvil_reorg", json!([3, [[format!("0x{}", hex::encode(&step.attempts[0].raw)), 1]]]))
        .await
        .expect("reorganised");
    payee.advance(&mut step, &mut keeps).await.expect("looks");
    let Stage::Mined { block_hash: moved, .. } = step.stage else { panic!("mined again: {:?}", step.stage) };
    assert_ne!(moved, block_hash);
    scene.anvil.mine(6).await.expect("deep");
    let end = payee.drive(&mut step, PATIENCE, keeps).await.expect("an end");
    assert!(matches!(end, Stage::Confirmed { .. }), "{end:?}");
    assert_eq!(scene.balance(Kind::Token, &payee.address()).await, 400);
}

/// A deposit counts for a payee when it is deep, or it could vanish with what was delivered for it.
#[tokio::test]
async fn a_deposit_counts_when_it_is_deep() {
    let Some(scene) = Scene::new().await else { return };
    let payee = scene.anvil.wallet(&key(3), Rules { depth: 4, ..SOON }).await.expect("an account");
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    for deep in [None, None, None, Some(1_000)] {
        let channel = payee.deep_channel(&scene.channels, &terms.id()).await.expect("asked");
        assert_eq!(channel.map(|channel| channel.deposit), deep);
        scene.anvil.mine(1).await.expect("a block");
    }
}

/// The node dies at each point where it keeps something, before and after: a new one goes on from what was kept, and pays once.
#[tokio::test]
async fn a_node_that_dies_at_any_point_pays_once() {
    let Some(scene) = Scene::new().await else { return };
    let nobody = key(9).id().evm_address();
    let mut paid = 0;
    for dies_at in 0..6 {
        for before in [true, false] {
            let payer = scene.anvil.wallet(&key(5), at_once()).await.expect("an account");
            let step = payer.prepare(Call { to: Some(nobody), value: 7, data: vec![] }).await.expect("prepared");
            // The step itself is kept before it is driven.
            let kept = RefCell::new(bytes(&step));
            let count = RefCell::new(0);
            let mut step = step;
            let keep = |step: Step| {
                let point = count.replace_with(|count| *count + 1);
                if point != dies_at || !before {
                    kept.replace(bytes(&step));
                }
                let dies = point == dies_at;
                async move { if dies { Err("dead".to_owned()) } else { Ok(()) } }
            };
            let first = payer.drive(&mut step, PATIENCE, keep).await;
            // A new process: nothing is left but what was kept.
            drop(step);
            let again = scene.anvil.wallet(&key(5), at_once()).await.expect("an account");
            let mut step: Step = serde_json::from_slice(&kept.borrow()).expect("what was kept");
            let end = again.drive(&mut step, PATIENCE, keeps).await.expect("an end");
            assert!(matches!(end, Stage::Confirmed { .. }), "{end:?}");
            assert!(matches!(first, Ok(_) | Err(EvmError::Keep(_))), "{first:?}");
            paid += 7;
            assert_eq!(scene.balance(Kind::Coin, &nobody).await, paid, "died at {dies_at}, before: {before}");
        }
    }
}

/// The chain's node is away, and comes back: the step waits, and goes on.
#[tokio::test]
async fn a_node_that_can_not_be_reached_loses_nothing() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Token, 1_000, 1).await;
    let mut step = scene.payee.prepare(scene.channels.redeem(&pays(&terms, 400))).await.expect("prepared");
    // Port 1 of loopback: nobody listens.
    let away = Rpc::new("http://127.0.0.1:1/key-that-is-secret".parse().expect("a URL"), CHAIN).expect("a client");
    let cut = Wallet::new(away, key(3), at_once(), Duration::from_millis(10));
    let error = cut.drive(&mut step, Duration::from_millis(100), keeps).await.expect_err("nobody answers");
    assert!(matches!(error, EvmError::TooLong(_)) && error.retryable(), "{error}");
    let error = cut.advance(&mut step, &mut keeps).await.expect_err("nobody answers");
    assert!(error.to_string().contains("can't be reached") && !error.to_string().contains("secret"), "{error}");
    let end = scene.payee.drive(&mut step, PATIENCE, keeps).await.expect("an end");
    assert!(matches!(end, Stage::Confirmed { .. }), "{end:?}");
    assert_eq!(scene.balance(Kind::Token, &scene.payee.address()).await, 400);
}

/// A node that is suddenly on another chain is sent nothing.
#[tokio::test]
async fn a_step_is_not_sent_to_another_chain() {
    let Some(scene) = Scene::new().await else { return };
    let mut step =
        scene.payee.prepare(Call { to: Some(key(9).id().evm_address()), value: 7, data: vec![] }).await.expect("prepared");
    scene.anvil.command("anvil_setChainId", json!([5])).await.expect("changed");
    let error = scene.payee.drive(&mut step, PATIENCE, keeps).await.expect_err("another chain");
    assert!(error.to_string().contains("is on chain 5, not on 31337") && !error.retryable(), "{error}");
    assert!(step.attempts.is_empty());
}

fn bytes(step: &Step) -> Vec<u8> {
    serde_json::to_vec(step).expect("JSON")
}
