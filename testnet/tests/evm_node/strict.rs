//! A token that takes no new allowance while there is one, and whose calls return nothing, as USDT's on Ethereum.

use crate::{DOLLAR, NOBODY, Scene, eventually, key};
use infernet_node::settlement::evm::contract;
use infernet_testnet::evm::{Program, act, at_once};
use infernet_wire::money::MicroUsd;
use serde_json::json;

/// What some deposit that came to nothing has left.
const LEFT_OVER: u128 = 5;

/// A deposit, while the contract may still take something: whether that had to be taken back, and how many transactions it took in all.
async fn deposit_over_an_allowance(scene: &Scene) -> (bool, u64) {
    scene.fund(&key(1), 9_000_000).await;
    let wallet = scene.anvil.wallet(&key(1), at_once()).await.expect("an account");
    act(&wallet, contract::approve(&scene.terms.token, &scene.terms.contract, LEFT_OVER)).await.expect("an allowance");
    let (buyer, worker) = (scene.party(key(1)).ready().await, key(2).id());
    for amount in [DOLLAR, MicroUsd(2 * DOLLAR.0)] {
        let steps = buyer.account.deposit(worker, amount).await.expect("wanted");
        assert_eq!(buyer.ended(&steps).await, ["settled", "settled"]);
        eventually("it is in the book", async || buyer.channels().iter().any(|known| known.deposit >= amount.0.into())).await;
    }
    assert_eq!(buyer.channels().iter().map(|known| known.deposit).collect::<Vec<_>>(), [3_000_000]);
    assert_eq!(scene.balance(&key(1)).await, 6_000_000);
    let approvals: Vec<_> = buyer.steps("approve").iter().map(|entry| entry.clearing.is_some()).collect();
    assert!(!approvals[1], "nothing was left over from the first");
    let sent = wallet.rpc().count("eth_getTransactionCount", json!([wallet.address().to_string(), "latest"])).await;
    (approvals[0], sent.expect("a number"))
}

#[tokio::test]
async fn a_deposit_takes_back_what_may_still_be_taken_where_the_token_wants_that() {
    let Some(scene) = Scene::with(Program::StrictToken).await else { return };
    assert_eq!(deposit_over_an_allowance(&scene).await, (true, 1 + 3 + 2));
}

#[tokio::test]
async fn and_pays_no_gas_for_that_where_it_does_not() {
    let Some(scene) = Scene::new().await else { return };
    assert_eq!(deposit_over_an_allowance(&scene).await, (false, 1 + 2 + 2));
}

#[tokio::test]
async fn what_returns_nothing_is_redeemed_and_sent_away_all_the_same() {
    let Some(scene) = Scene::with(Program::StrictToken).await else { return };
    let (buyer, worker) = scene.trading(DOLLAR).await;
    worker.promised(&buyer.key, &worker.channels()[0].terms, 700_000);
    worker.account.set_payout_to(NOBODY);
    let steps = worker.account.payout().await.expect("wanted");
    assert_eq!(worker.ended(&steps).await, ["settled", "settled"], "redeem, withdraw");
    let sent = scene.stranger.balance(&scene.terms.token, &NOBODY).await.expect("a balance");
    assert_eq!((sent, scene.balance(&key(2)).await), (700_000, 0));
}
