//! The payer's way out, and what the payee can still do meanwhile.

use crate::{Kind, Scene, pays};
use infernet_node::settlement::evm::{contract::CHALLENGE_SECS, step::Stage};

#[tokio::test]
async fn a_payer_gets_the_rest_after_the_payees_time_without_anybodys_help() {
    let Some(scene) = Scene::new().await else { return };
    for (kind, salt) in [(Kind::Token, 1), (Kind::Coin, 2)] {
        let terms = scene.open(kind, 1_000, salt).await;
        let id = terms.id();
        scene.refused(&scene.payer, scene.channels.finish_exit(&id), "has not said").await;
        for other in [&scene.payee, &scene.stranger] {
            scene.refused(other, scene.channels.start_exit(&id), "only the payer").await;
        }
        scene.ok(&scene.payer, scene.channels.start_exit(&id)).await;
        // Neither sooner nor later by saying it again.
        scene.refused(&scene.payer, scene.channels.start_exit(&id), "on the way out").await;
        scene.refused(&scene.payer, scene.channels.top_up(&id, &terms.token, 5), "on the way out").await;
        scene.refused(&scene.payer, scene.channels.finish_exit(&id), "still has time").await;
        // The challenge: the payee's last voucher, in time.
        scene.anvil.pass(CHALLENGE_SECS - 60).await.expect("time");
        scene.refused(&scene.payer, scene.channels.finish_exit(&id), "still has time").await;
        scene.ok(&scene.payee, scene.channels.redeem(&pays(&terms, 600))).await;
        scene.anvil.pass(60).await.expect("time");
        let before = scene.balance(kind, &scene.payer.address()).await;
        scene.ok(&scene.stranger, scene.channels.finish_exit(&id)).await;
        assert_eq!(scene.balance(kind, &scene.payer.address()).await, before + 400);
        scene.refused(&scene.payee, scene.channels.redeem(&pays(&terms, 900)), "closed").await;
        scene.refused(&scene.payer, scene.channels.finish_exit(&id), "closed").await;
        assert_eq!(scene.held(kind).await, 0);
    }
}

/// The payee comes late, the payer is at the door: whoever is first in the block wins, and nobody gets more than there is.
#[tokio::test]
async fn an_exit_and_a_redemption_in_one_block_divide_the_deposit() {
    let Some(scene) = Scene::new().await else { return };
    for (payee_first, salt) in [(true, 1), (false, 2)] {
        let terms = scene.open(Kind::Token, 1_000, salt).await;
        scene.ok(&scene.payer, scene.channels.start_exit(&terms.id())).await;
        scene.anvil.pass(CHALLENGE_SECS + 1).await.expect("time");
        let [payer_before, payee_before] = balances(&scene).await;
        let redeem = (&scene.payee, scene.channels.redeem(&pays(&terms, 600)));
        let finish = (&scene.payer, scene.channels.finish_exit(&terms.id()));
        let (first, second) = if payee_first { (redeem, finish) } else { (finish, redeem) };
        let ends = scene.meet(first, second).await;
        let [payer, payee] = balances(&scene).await;
        let gained = (payer - payer_before, payee - payee_before);
        assert_eq!(gained, if payee_first { (400, 600) } else { (1_000, 0) }, "{ends:?}");
        let second_failed = matches!(ends, (Stage::Confirmed { .. }, Stage::Reverted { .. }));
        // The payer's door closes after any redemption; a redemption does not work behind it.
        assert_eq!(second_failed, !payee_first, "{ends:?}");
        assert_eq!(scene.held(Kind::Token).await, 0);
    }
}

/// Until the payer takes the rest, even after its time, the voucher counts.
#[tokio::test]
async fn a_late_voucher_counts_until_the_door_is_closed() {
    let Some(scene) = Scene::new().await else { return };
    let terms = scene.open(Kind::Coin, 1_000, 1).await;
    scene.ok(&scene.payer, scene.channels.start_exit(&terms.id())).await;
    scene.anvil.pass(10 * CHALLENGE_SECS).await.expect("time");
    scene.ok(&scene.stranger, scene.channels.redeem(&pays(&terms, 1_000))).await;
    // Nothing is left, and the channel can still be closed.
    scene.ok(&scene.payer, scene.channels.finish_exit(&terms.id())).await;
    assert_eq!((scene.held(Kind::Coin).await, scene.state(&terms).await.left()), (0, 0));
}

async fn balances(scene: &Scene) -> [u128; 2] {
    [scene.balance(Kind::Token, &scene.payer.address()).await, scene.balance(Kind::Token, &scene.payee.address()).await]
}
