//! What transfers take of the cluster: `TRANSFER_UNITS` was set from these numbers.

use crate::{PATIENCE, Scene, keeps};
use infernet_node::settlement::solana::{
    payment::{Payment, Stage},
    transaction::{Address, Asset, Order, Transfer},
};
use std::time::Duration;

/// Pays them, and returns the compute units that it took, and the fee.
async fn takes(scene: &Scene, transfers: Vec<Transfer>, unit_price: u64) -> (u64, u64) {
    let order = Order { transfers, unit_price };
    let _clock = scene.cluster.tick(1, Duration::from_millis(2));
    let end = scene.wallet().drive(&order, &mut Payment::default(), PATIENCE, keeps).await.expect("an end");
    assert!(matches!(end, Stage::Finalized { .. }), "{end:?}");
    let landed = scene.cluster.landed();
    let last = landed.last().expect("landed");
    (last.units, last.fee)
}

/// The bounds are those that `transaction.rs` names; a runtime that takes more must be noticed here, not by a failed payment.
#[tokio::test]
async fn a_transfer_takes_what_was_measured_with_and_without_an_account_to_make() {
    let scene = Scene::new(1).await;
    let (with_account, fee) = takes(&scene, vec![scene.transfer(10)], 0).await;
    let (without, _) = takes(&scene, vec![scene.transfer(20)], 0).await;
    let sol = Transfer { asset: Asset::Sol, amount: 1_000_000, ..scene.transfer(1) };
    let (sol, _) = takes(&scene, vec![sol], 0).await;
    assert_eq!(fee, 5_000, "without a priority fee: one signature");
    assert!(
        (1..60_000).contains(&without) && without < with_account && with_account < 60_000,
        "{with_account} with an account to make, {without} without"
    );
    assert!(sol < 40_000, "{sol} in SOL");
}

#[tokio::test]
async fn a_full_batch_of_new_accounts_fits_its_units_and_its_priority_fee_is_paid() {
    let scene = Scene::new(1).await;
    let to = |n: u8| infernet_node::settlement::solana::key::SolanaKey::from_bytes(&[n; 32]).address();
    let transfers: Vec<_> = (20..25).map(|n| Transfer { to: to(n), ..scene.transfer(5) }).collect();
    let paid: Vec<Address> = transfers.iter().map(|transfer| transfer.to).collect();
    // One lamport for each unit of the limit.
    let (units, fee) = takes(&scene, transfers, 1_000_000).await;
    assert!(paid.iter().all(|wallet| scene.cluster.tokens(&scene.mint, wallet) == 5));
    assert!(fee > units, "the limit is above the {units} units that it takes, and is what is paid for: {fee}");
}
