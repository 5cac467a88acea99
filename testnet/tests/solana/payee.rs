//! What a payee takes for a payment, as its own node of the cluster shows it, and what it does not.

use crate::{PATIENCE, Scene, keeps};
use infernet_node::settlement::solana::{
    key::SolanaKey,
    payee::{NotCounted, check_paid},
    payment::{Payment, Stage},
    transaction::{Address, Asset, Order, Transfer, TxSignature},
    verify::{Expected, NotPaid},
};
use infernet_testnet::svm::Faults;
use std::time::Duration;

/// Pays it, and waits until it is final.
async fn pay(scene: &Scene, payer: &SolanaKey, transfer: Transfer) -> TxSignature {
    let _clock = scene.cluster.tick(1, Duration::from_millis(2));
    let order = Order { transfers: vec![transfer], unit_price: 0 };
    let wallet = scene.wallet_with(payer, crate::FAST);
    match wallet.drive(&order, &mut Payment::default(), PATIENCE, keeps).await.expect("an end") {
        Stage::Finalized { signature, .. } => signature,
        other => panic!("{other:?}"),
    }
}

async fn check(scene: &Scene, expected: &Expected, signature: TxSignature) -> Result<(), NotPaid> {
    match check_paid(&scene.rpcs(), expected, &[], signature).await {
        Ok(()) => Ok(()),
        Err(NotCounted::NotPaid(why)) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_tranche_counts_when_it_is_final_and_not_before() {
    let scene = Scene::new(2).await;
    let (wallet, order, mut payment) = (scene.wallet(), scene.order(400), Payment::default());
    wallet.advance(&order, &mut payment, &mut keeps).await.expect("sent");
    let signature = payment.attempts[0].signature;
    for blocks in [0, 1, 30] {
        scene.cluster.advance(blocks);
        let told = check(&scene, &scene.expected(400), signature).await;
        assert!(told == Err(NotPaid::NotFinal) && NotPaid::NotFinal.retryable(), "{told:?}");
    }
    scene.cluster.advance(1);
    assert_eq!(check(&scene, &scene.expected(400), signature).await, Ok(()));
    // One node that does not know it is enough to wait.
    scene.nodes[1].set(Faults { hides: true, ..Faults::default() });
    assert_eq!(check(&scene, &scene.expected(400), signature).await, Err(NotPaid::NotFinal));
}

#[tokio::test]
async fn wrong_amount_mint_destination_memo_and_payer_are_refused() {
    let scene = Scene::new(1).await;
    let right = scene.transfer(400);
    let expected = scene.expected(400);
    let other_asset = scene.cluster.token(70, 6).expect("a token");
    let Asset::Token { mint: other_mint, .. } = other_asset else { panic!("a token") };
    scene.cluster.give(&other_mint, &scene.payer.address(), 1_000).expect("tokens");
    let stranger = scene.cluster.wallet(5, &scene.mint, 1_000).expect("a wallet");
    let elsewhere: Address = SolanaKey::from_bytes(&[6; 32]).address();

    let less = pay(&scene, &scene.payer, Transfer { amount: 399, ..right }).await;
    assert_eq!(check(&scene, &expected, less).await, Err(NotPaid::Amount { found: 399, wanted: 400 }));
    let mint = pay(&scene, &scene.payer, Transfer { asset: other_asset, ..right }).await;
    assert_eq!(check(&scene, &expected, mint).await, Err(NotPaid::Asset));
    let sol = pay(&scene, &scene.payer, Transfer { asset: Asset::Sol, amount: 2_000_000, ..right }).await;
    assert_eq!(check(&scene, &expected, sol).await, Err(NotPaid::Asset));
    let away = pay(&scene, &scene.payer, Transfer { to: elsewhere, ..right }).await;
    assert!(matches!(check(&scene, &expected, away).await, Err(NotPaid::Destination(_))));
    let memo = pay(&scene, &scene.payer, Transfer { hash: [8; 32], ..right }).await;
    assert_eq!(check(&scene, &expected, memo).await, Err(NotPaid::Memo));
    let theirs = pay(&scene, &stranger, right).await;
    assert_eq!(check(&scene, &expected, theirs).await, Err(NotPaid::Payer(stranger.address())));
    assert_eq!(check(&scene, &expected, TxSignature([1; 64])).await, Err(NotPaid::NotFinal), "one that is not there");
    let good = pay(&scene, &scene.payer, right).await;
    assert_eq!(check(&scene, &expected, good).await, Ok(()));
}
