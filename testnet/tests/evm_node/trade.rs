//! A deposit's way: to the worker, and back.

use crate::{CHALLENGE, DOLLAR, NOBODY, Party, Scene, eventually, key};
use infernet_node::settlement::service::AccountError;
use infernet_wire::{chat::Closing, money::MicroUsd, settle::EvmTerms};

fn dollars(n: u64) -> MicroUsd {
    MicroUsd(n * DOLLAR.0)
}

#[tokio::test]
async fn a_deposit_is_seen_redeemed_by_itself_and_what_is_left_comes_back() {
    let Some(scene) = Scene::new().await else { return };
    let (buyer, worker) = scene.parties().await;
    let told = buyer.account.deposit(worker.key.id(), dollars(10)).await.expect_err("too much");
    assert!(matches!(told, AccountError::TooLittle { found: 9_000_000, needed: 10_000_000, .. }), "{told}");

    let steps = buyer.account.deposit(worker.key.id(), dollars(5)).await.expect("wanted");
    assert_eq!(buyer.ended(&steps).await, ["settled", "settled"], "approve, open");
    for party in [&buyer, &worker] {
        eventually("it is in the book", async || party.channels().iter().any(|known| known.deposit == 5_000_000)).await;
    }
    let steps = buyer.account.deposit(worker.key.id(), dollars(2)).await.expect("wanted");
    assert_eq!(buyer.ended(&steps).await, ["settled", "settled"], "approve, top up");
    eventually("both", async || worker.channels().iter().any(|known| known.deposit == 7_000_000)).await;
    let [known] = worker.channels()[..] else { panic!("one channel: {:?}", worker.channels()) };

    worker.promised(&buyer.key, &known.terms, 3_000_000);
    eventually("three dollars", async || scene.balance(&worker.key).await == 3_000_000).await;
    eventually("it is noted", async || worker.channels().iter().any(|known| known.redeemed == 3_000_000)).await;
    // Less than a dollar more waits, until the buyer wants out.
    worker.promised(&buyer.key, &known.terms, 3_200_000);
    let steps = buyer.account.exit(worker.key.id()).await.expect("wanted");
    assert_eq!(buyer.ended(&steps).await, ["settled"]);
    eventually("the rest", async || scene.balance(&worker.key).await == 3_200_000).await;
    assert_eq!(worker.steps("redeem").len(), 2, "nothing was redeemed in between: {:?}", worker.steps("redeem"));
    assert!(buyer.steps("finish_exit").is_empty(), "not before the worker's time is over");
    scene.anvil.pass(CHALLENGE + 1).await.expect("time");
    eventually("the rest is back", async || scene.balance(&buyer.key).await == 9_000_000 - 3_200_000).await;
    for party in [&buyer, &worker] {
        eventually("it is in no book", async || party.channels().is_empty()).await;
    }
    let error = buyer.account.exit(worker.key.id()).await.expect_err("closed");
    assert!(matches!(error, AccountError::NoChannel), "{error}");
}

#[tokio::test]
async fn a_payout_redeems_what_there_is_and_sends_it_away() {
    let Some(scene) = Scene::new().await else { return };
    let (buyer, worker) = scene.trading(dollars(1)).await;
    worker.promised(&buyer.key, &worker.channels()[0].terms, 700_000);
    assert!(worker.account.payout_to().is_none());
    worker.account.set_payout_to(NOBODY);
    let steps = worker.account.payout().await.expect("wanted");
    assert_eq!(worker.ended(&steps).await, ["settled", "settled"], "redeem, withdraw");
    let sent = scene.stranger.balance(&scene.terms.token, &NOBODY).await.expect("a balance");
    assert_eq!((sent, scene.balance(&worker.key).await), (700_000, 0));
    // Once more: nothing to redeem, nothing to send.
    let steps = worker.account.payout().await.expect("wanted");
    assert_eq!(worker.ended(&steps).await, ["failed"]);
}

/// After a restart, the book comes from the journal and the chain; a voucher is still good.
#[tokio::test]
async fn a_worker_that_was_away_redeems_when_the_buyer_wants_out() {
    let Some(scene) = Scene::new().await else { return };
    let (buyer, worker) = scene.trading(dollars(1)).await;
    worker.promised(&buyer.key, &worker.channels()[0].terms, 500_000);
    let store = worker.store.clone();
    drop(worker);
    let steps = buyer.account.exit(key(2).id()).await.expect("wanted");
    assert_eq!(buyer.ended(&steps).await, ["settled"]);
    let back = Party::start(key(2), store, scene.settings(scene.anvil.url()));
    eventually("in time", async || scene.balance(&back.key).await == 500_000).await;
}

#[tokio::test]
async fn a_channel_that_made_room_is_redeemed_by_the_next_payout() {
    let Some(scene) = Scene::new().await else { return };
    let (buyer, worker) = scene.trading(dollars(1)).await;
    let terms = worker.channels()[0].terms;
    worker.promised(&buyer.key, &terms, 500_000);
    worker.tabs.channels().remove(&terms.id());
    let steps = worker.account.payout().await.expect("wanted");
    assert_eq!(worker.ended(&steps).await, ["settled"]);
    assert_eq!(scene.balance(&worker.key).await, 500_000);
    assert!(worker.account.payout().await.expect("wanted").is_empty(), "nothing more");
}

/// The worker has signed the end of a channel, and the buyer sends it nowhere and says nothing more.
#[tokio::test]
async fn a_close_that_is_never_sent_is_redeemed_after_a_day_over_a_restart_too() {
    let Some(scene) = Scene::new().await else { return };
    let (buyer, worker) = scene.trading(dollars(5)).await;
    let (channel, EvmTerms { chain, contract, .. }) = (worker.channels()[0].terms, scene.terms);
    // Less than a dollar, so that it is not redeemed before.
    worker.promised(&buyer.key, &channel, 700_000);
    let asked = Closing { chain, contract, channel: channel.id() };
    let closed = worker.tabs.sign_close(&buyer.key.id(), &asked).await.expect("signed");
    assert_eq!(closed.amount, 700_000);
    drop(buyer);
    let store = worker.store.clone();
    drop(worker);
    let back = Party::start(key(2), store, scene.settings(scene.anvil.url())).ready().await;
    // It looks at the chain, and leaves it alone.
    scene.anvil.pass(CHALLENGE / 2).await.expect("time");
    let head = scene.stranger.head().await.expect("a block").0;
    scene.anvil.mine(1).await.expect("a block");
    eventually("it looks twice", async || back.account.state().head > head).await;
    assert_eq!(back.steps("redeem").len(), 0);
    scene.anvil.pass(CHALLENGE / 2 + 60).await.expect("time");
    eventually("it is paid", async || scene.balance(&back.key).await == 700_000).await;
}
