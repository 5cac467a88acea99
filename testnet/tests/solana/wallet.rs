//! A payment when the cluster is not kind: dropped sends, dead blockhashes, nodes that lie or are silent, and a payer that dies at
//! every point between. Whatever happens, the payee is paid once, or not at all and that is said.

use crate::{FAST, PATIENCE, Scene, TOKENS, keeps};
use infernet_node::settlement::{
    json_rpc::RpcError,
    solana::{
        key::SolanaKey,
        payment::{Next, Payment, Rules, Stage},
        wallet::SolanaError,
    },
};
use infernet_testnet::svm::Faults;
use std::{cell::RefCell, time::Duration};

/// A block every so often, and some sixty times as many as on the real chain in the same time of the rules.
const BLOCK: Duration = Duration::from_millis(2);

#[tokio::test]
async fn a_payment_is_made_once_and_is_final_when_it_is_said_to_be() {
    let scene = Scene::new(1).await;
    let (wallet, order, mut payment) = (scene.wallet(), scene.order(400), Payment::default());
    wallet.check_funds(&order).await.expect("enough");
    assert!(matches!(wallet.advance(&order, &mut payment, &mut keeps).await, Ok(Next::Sign(_))));
    assert_eq!(scene.paid(), 400, "landed");
    for blocks in [0, 1, 30] {
        scene.cluster.advance(blocks);
        assert!(matches!(wallet.advance(&order, &mut payment, &mut keeps).await, Ok(Next::Wait)));
        assert!(matches!(payment.stage, Stage::Landed { .. }), "{:?}", payment.stage);
    }
    scene.cluster.advance(1);
    assert!(matches!(wallet.advance(&order, &mut payment, &mut keeps).await, Ok(Next::Done)));
    let signature = scene.cluster.landed()[0].signature;
    assert!(matches!(payment.stage, Stage::Finalized { signature: by, .. } if by == signature), "{:?}", payment.stage);
    let kept = payment.clone();
    assert!(matches!(wallet.advance(&order, &mut payment, &mut keeps).await, Ok(Next::Done)));
    assert_eq!((payment, scene.cluster.landed().len()), (kept, 1));
}

#[tokio::test]
async fn dropped_sends_are_sent_again() {
    let scene = Scene::new(1).await;
    let (wallet, order, mut payment) = (scene.wallet(), scene.order(400), Payment::default());
    scene.nodes[0].set(Faults { drops: true, ..Faults::default() });
    wallet.advance(&order, &mut payment, &mut keeps).await.expect("sent");
    assert!(matches!(payment.stage, Stage::Sent { .. }));
    assert_eq!(scene.cluster.landed().len(), 0);
    scene.nodes[0].set(Faults::default());
    let _clock = scene.cluster.tick(1, BLOCK);
    let end = wallet.drive(&order, &mut payment, PATIENCE, keeps).await.expect("an end");
    assert!(matches!(end, Stage::Finalized { .. }), "{end:?}");
    assert_eq!((payment.attempts.len(), scene.paid(), scene.cluster.landed().len()), (1, 400, 1));
}

/// What was signed over a blockhash that died can't land: another is signed, and only then.
#[tokio::test]
async fn a_dead_blockhash_is_replaced_and_only_when_it_is_dead() {
    let scene = Scene::new(1).await;
    let (wallet, order, mut payment) = (scene.wallet(), scene.order(400), Payment::default());
    scene.nodes[0].set(Faults { drops: true, ..Faults::default() });
    wallet.advance(&order, &mut payment, &mut keeps).await.expect("sent");
    let signed_at = scene.cluster.height();
    // Dead for the cluster, but not for somebody who can't know how far the node is behind.
    scene.cluster.advance(160);
    tokio::time::sleep(Duration::from_millis(FAST.life_ms + 10)).await;
    wallet.advance(&order, &mut payment, &mut keeps).await.expect("looks");
    assert_eq!(payment.attempts.len(), 1, "at {} of {signed_at}", scene.cluster.height());
    scene.cluster.advance(400);
    scene.nodes[0].set(Faults::default());
    assert!(matches!(wallet.advance(&order, &mut payment, &mut keeps).await, Ok(Next::Sign(_))));
    assert_eq!(payment.attempts.len(), 2);
    let _clock = scene.cluster.tick(1, BLOCK);
    let end = wallet.drive(&order, &mut payment, PATIENCE, keeps).await.expect("an end");
    assert!(matches!(end, Stage::Finalized { signature, .. } if signature == payment.attempts[1].signature), "{end:?}");
    assert_eq!((scene.paid(), scene.cluster.landed().len()), (400, 1));
}

/// A node that keeps what it took for later is the worst that can happen to one who gave it up: it can land until it is dead, and
/// nothing else is signed before.
#[tokio::test]
async fn a_send_that_is_held_back_and_passed_on_late_pays_once() {
    for late in [0, 100, 149, 151, 299, 300, 301, 500] {
        let scene = Scene::new(1).await;
        let (wallet, order, mut payment) = (scene.wallet(), scene.order(400), Payment::default());
        scene.nodes[0].set(Faults { holds: true, ..Faults::default() });
        wallet.advance(&order, &mut payment, &mut keeps).await.expect("sent");
        scene.cluster.advance(late);
        tokio::time::sleep(Duration::from_millis(FAST.life_ms + 10)).await;
        wallet.advance(&order, &mut payment, &mut keeps).await.expect("looks");
        scene.cluster.release();
        scene.nodes[0].set(Faults::default());
        let _clock = scene.cluster.tick(1, BLOCK);
        let end = wallet.drive(&order, &mut payment, PATIENCE, keeps).await.expect("an end");
        assert!(matches!(end, Stage::Finalized { .. }), "{late}: {end:?}");
        assert_eq!((scene.paid(), scene.cluster.landed().len()), (400, 1), "{late} blocks late");
    }
}

/// The payer dies whenever it has kept something, once before that was on the disk and once after, and again and again.
#[tokio::test]
async fn a_payer_that_is_killed_at_every_point_pays_once() {
    for (point, written) in (0..6).flat_map(|point| [(point, false), (point, true)]) {
        let scene = Scene::new(1).await;
        let order = scene.order(400);
        let _clock = scene.cluster.tick(1, BLOCK);
        let (disk, count) = (RefCell::new(Payment::default()), RefCell::new(0));
        let keep = |payment: Payment| {
            let dies = count.replace_with(|count| *count + 1) == point;
            if !dies || written {
                disk.replace(payment);
            }
            async move { if dies { Err("killed".to_owned()) } else { Ok(()) } }
        };
        loop {
            // A new process, with what the disk has.
            let mut payment = disk.borrow().clone();
            match scene.wallet().drive(&order, &mut payment, PATIENCE, keep).await {
                Ok(end) => break assert!(matches!(end, Stage::Finalized { .. }), "{point}: {end:?}"),
                Err(SolanaError::Keep(_)) => {}
                Err(other) => panic!("{point}: {other}"),
            }
        }
        assert_eq!((scene.paid(), scene.cluster.landed().len()), (400, 1), "killed at {point}, written: {written}");
    }
}

/// A disk that was full for a moment: what was signed meanwhile is on no disk, so it must not be sent when there is room again either.
#[tokio::test]
async fn what_was_signed_and_not_kept_is_never_sent() {
    let scene = Scene::new(1).await;
    let (wallet, order, mut payment) = (scene.wallet(), scene.order(400), Payment::default());
    let mut full = |_| async { Err::<(), _>("full".to_owned()) };
    for _ in 0..3 {
        let told = wallet.advance(&order, &mut payment, &mut full).await;
        assert!(matches!(told, Err(SolanaError::Keep(_))), "{told:?}");
        assert_eq!((payment.clone(), scene.cluster.landed().len()), (Payment::default(), 0));
    }
    let kept = RefCell::new(Payment::default());
    let mut keep = |payment: Payment| {
        kept.replace(payment);
        async { Ok(()) }
    };
    wallet.advance(&order, &mut payment, &mut keep).await.expect("sent");
    let signature = scene.cluster.landed()[0].signature;
    assert!(kept.borrow().attempts.iter().any(|attempt| attempt.signature == signature));
    assert_eq!((scene.cluster.landed().len(), scene.paid()), (1, 400));
}

/// What was not kept was not sent.
#[tokio::test]
async fn a_full_disk_pays_nothing() {
    let scene = Scene::new(1).await;
    let mut full = |_: Payment| async { Err("no space".to_owned()) };
    let told = scene.wallet().advance(&scene.order(400), &mut Payment::default(), &mut full).await;
    assert!(matches!(told, Err(SolanaError::Keep(_))), "{told:?}");
    assert_eq!((scene.paid(), scene.cluster.landed().len()), (0, 0));
}

/// One of two nodes hides what landed, and tells heights far ahead, so that another attempt would be signed; it can't.
#[tokio::test]
async fn a_liar_beside_an_honest_node_makes_nothing_happen_twice() {
    let liars = [
        Faults { hides: true, ..Faults::default() },
        Faults { height: 1_000, ..Faults::default() },
        Faults { hides: true, height: 1_000, drops: true, ..Faults::default() },
        Faults { hides: true, height: -150, ..Faults::default() },
        Faults { stale: 100, ..Faults::default() },
    ];
    for lies in liars {
        let scene = Scene::new(2).await;
        let (wallet, order, mut payment) = (scene.wallet(), scene.order(400), Payment::default());
        scene.nodes[0].set(lies.clone());
        let _clock = scene.cluster.tick(20, Duration::from_millis(10));
        // The liar delays it at most.
        let waits = wallet.drive(&order, &mut payment, Duration::from_millis(700), keeps).await;
        assert!(matches!(waits, Err(SolanaError::TooLong(_)) | Ok(Stage::Finalized { .. })), "{lies:?}: {waits:?}");
        assert!(scene.cluster.landed().len() <= 1, "{lies:?}");
        scene.nodes[0].set(Faults::default());
        let end = wallet.drive(&order, &mut payment, PATIENCE, keeps).await.expect("an end");
        assert!(matches!(end, Stage::Finalized { .. }), "{lies:?}: {end:?}");
        assert_eq!((scene.paid(), scene.cluster.landed().len()), (400, 1), "{lies:?}");
    }
}

/// One of two says that what was never sent is final; the other knows nothing of it.
#[tokio::test]
async fn an_invented_end_is_not_believed() {
    let scene = Scene::new(2).await;
    let (wallet, order, mut payment) = (scene.wallet(), scene.order(400), Payment::default());
    scene.nodes[0].set(Faults { invents: true, drops: true, ..Faults::default() });
    scene.nodes[1].set(Faults { drops: true, ..Faults::default() });
    let _clock = scene.cluster.tick(1, BLOCK);
    let told = wallet.drive(&order, &mut payment, Duration::from_millis(300), keeps).await;
    assert!(matches!(told, Err(SolanaError::TooLong(_))), "{told:?}");
    assert!(!payment.is_done() && scene.paid() == 0, "{:?}", payment.stage);
}

/// A node that never answers holds a payment up, and ends nothing: which of the others would lie is not known.
#[tokio::test]
async fn a_silent_node_delays_a_payment_and_another_in_its_place_ends_it() {
    let scene = Scene::new(2).await;
    let (wallet, order, mut payment) = (scene.wallet(), scene.order(400), Payment::default());
    wallet.advance(&order, &mut payment, &mut keeps).await.expect("sent");
    scene.nodes[1].set(Faults { silent: true, ..Faults::default() });
    let before = payment.clone();
    let waits = tokio::time::timeout(Duration::from_millis(300), wallet.advance(&order, &mut payment, &mut keeps)).await;
    assert!(waits.is_err() && payment == before, "nothing is decided");
    scene.nodes[1].set(Faults::default());
    let _clock = scene.cluster.tick(1, BLOCK);
    let end = wallet.drive(&order, &mut payment, PATIENCE, keeps).await.expect("an end");
    assert!(matches!(end, Stage::Finalized { .. }), "{end:?}");
    assert_eq!((scene.paid(), scene.cluster.landed().len()), (400, 1));
}

#[tokio::test]
async fn another_cluster_is_refused_before_anything_is_signed() {
    let scene = Scene::new(2).await;
    scene.nodes[1].set(Faults { genesis: Some(scene.payee), ..Faults::default() });
    let (mut payment, order) = (Payment::default(), scene.order(400));
    let told = scene.wallet().drive(&order, &mut payment, PATIENCE, keeps).await.expect_err("refused");
    assert!(matches!(&told, SolanaError::Rpc(RpcError::WrongChain { .. })) && !told.retryable(), "{told}");
    assert!(told.to_string().contains(&scene.cluster.genesis().to_string()), "{told}");
    assert_eq!((payment, scene.cluster.landed().len()), (Payment::default(), 0));
}

#[tokio::test]
async fn what_is_missing_is_said_before_anything_is_sent() {
    let scene = Scene::new(1).await;
    let told = scene.wallet().check_funds(&scene.order(TOKENS + 1)).await.expect_err("too much");
    assert!(matches!(&told, SolanaError::NoFunds { found: TOKENS, .. }), "{told}");
    let poor = SolanaKey::from_bytes(&[8; 32]);
    scene.cluster.give(&scene.mint, &poor.address(), 500).expect("tokens, and no SOL");
    let told = scene.wallet_with(&poor, Rules::default()).check_funds(&scene.order(400)).await.expect_err("no SOL");
    assert!(told.to_string().contains("SOL, in lamports"), "{told}");
}
