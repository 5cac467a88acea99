//! Buyers who want a slot that is not theirs.

use super::{
    Stage,
    rogue::{Deal, Line, Rogue, ago, network},
};
use infernet_node::clock;
use infernet_testnet::engine::EngineEvent;
use infernet_wire::{
    accept::JobAccept,
    chat::ErrorCode,
    envelope::Kind,
    id::Hash,
    limits,
    money::MicroUsd,
    topic::{self, NetworkId},
};

/// `attacker` presents `accept` for `deal`: it is refused with `code`, counted as `reason`, and the hold is still there.
async fn check(stage: &mut Stage, attacker: &Rogue, deal: &Deal, accept: &[u8], code: ErrorCode, reason: &str) {
    let before = (stage.counter(reason).await, stage.held().await);
    let mut line = Line::open(attacker.dial(&stage.worker).await).await;
    line.write(&deal.open(accept), &deal.request).await;
    line.refused(code).await;
    stage.counted(reason, before.0 + 1).await;
    assert_eq!((stage.running().await, stage.held().await), (0, before.1), "{reason}");
    stage.engine_heard_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_that_is_not_the_holds_is_refused_and_the_hold_survives() {
    type Change = fn(&mut JobAccept);
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let cases: [(Change, ErrorCode, &str); 9] = [
        (|a| a.offer = Hash([7; 32]), ErrorCode::NO_HOLD, "claim_refused.no_hold"),
        (|a| a.bid = Hash([7; 32]), ErrorCode::BAD_ACCEPT, "claim_refused.wrong_bid"),
        (|a| a.winner = super::rogue::fresh_key().id(), ErrorCode::BAD_ACCEPT, "claim_refused.not_winner"),
        (|a| a.model = "another:latest".into(), ErrorCode::BAD_ACCEPT, "claim_refused.terms_differ"),
        (|a| a.price.input = MicroUsd(0), ErrorCode::BAD_ACCEPT, "claim_refused.terms_differ"),
        (|a| a.price.output.0 -= 1, ErrorCode::BAD_ACCEPT, "claim_refused.terms_differ"),
        (|a| (a.issued, a.expires) = (ago(30_000), ago(20_000)), ErrorCode::BAD_ACCEPT, "chat.accept_refused.expired"),
        (
            |a| (a.issued, a.expires) = (clock::now().after(15_000), clock::now().after(20_000)),
            ErrorCode::BAD_ACCEPT,
            "chat.accept_refused.future",
        ),
        (|a| a.expires = a.issued.after(limits::ACCEPT_TTL_MS + 1), ErrorCode::BAD_ACCEPT, "chat.accept_refused.field"),
    ];
    for (change, code, reason) in cases {
        let deal = buyer.deal(8).await;
        let accept = buyer.accept(&deal, change);
        check(&mut stage, &buyer, &deal, accept.raw(), code, reason).await;
    }

    let deal = buyer.deal(8).await;
    let accept = buyer.accept(&deal, |_| {});
    let elsewhere: NetworkId = "elsewhere".parse().expect("a name");
    let foreign = buyer.key.sign(&elsewhere, accept.clone().into_body()).expect("an accept");
    let mut forged = accept.raw().to_vec();
    *forged.last_mut().expect("bytes") ^= 1;
    let unreadable = buyer.key.sign_foreign(Kind::JobAccept, 0, &network(), b"no accept".to_vec());
    let unknown = buyer.key.sign_foreign(Kind::JobAccept, 99, &network(), b"newer".to_vec());
    for (bytes, reason) in [
        (foreign.raw().to_vec(), "chat.accept_refused.wrong_network"),
        (forged, "chat.accept_refused.bad_signature"),
        (deal.offer.raw().to_vec(), "chat.accept_refused.unexpected_kind"),
        (unreadable.to_vec(), "chat.accept_refused.malformed"),
        (unknown.to_vec(), "chat.accept_refused.unknown"),
        (Vec::new(), "chat.accept_refused.malformed"),
        (vec![0xff; 60_000], "chat.accept_refused.malformed"),
    ] {
        let deal = buyer.deal(8).await;
        check(&mut stage, &buyer, &deal, &bytes, ErrorCode::BAD_ACCEPT, reason).await;
    }

    // What was refused changed nothing: the same hold still takes its own accept.
    let deal = buyer.deal(8).await;
    let bad = buyer.accept(&deal, |a| a.price.output.0 -= 1);
    check(&mut stage, &buyer, &deal, bad.raw(), ErrorCode::BAD_ACCEPT, "claim_refused.terms_differ").await;
    let mut line = Line::open(buyer.dial(&stage.worker).await).await;
    line.write(&deal.open(buyer.accept(&deal, |_| {}).raw()), &deal.request).await;
    let (receipt, _) = line.receipt().await;
    line.countersign(&buyer.key, receipt.digest()).await;
    stage.counted("chat.acknowledged", 1).await;
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_the_slot_that_is_held_for_another() {
    let mut stage = Stage::start().await;
    let mut victim = Rogue::join(&stage.worker).await;
    let attacker = Rogue::join(&stage.worker).await;
    let wrong_buyer = "claim_refused.wrong_buyer";

    // The victim's own accept, stolen on its way; then one that the attacker signed for the victim's hold.
    let deal = victim.deal(8).await;
    let stolen = victim.accept(&deal, |_| {});
    check(&mut stage, &attacker, &deal, stolen.raw(), ErrorCode::BAD_ACCEPT, wrong_buyer).await;
    let deal = victim.deal(8).await;
    let own = attacker.accept(&deal, |_| {});
    check(&mut stage, &attacker, &deal, own.raw(), ErrorCode::BAD_ACCEPT, wrong_buyer).await;

    // An offer that nobody bid on, of a model that nobody serves.
    let mut never = victim.deal(8).await;
    let mut body = victim.offer(&never.request, &never.salt, 8);
    body.model = "no-such-model".into();
    never.offer = victim.key.sign(&network(), body).expect("an offer");
    let accept = victim.accept(&never, |_| {});
    check(&mut stage, &victim, &never, accept.raw(), ErrorCode::NO_HOLD, "claim_refused.no_hold").await;
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_is_good_once() {
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let attacker = Rogue::join(&stage.worker).await;
    let deal = buyer.deal(40).await;
    let accept = buyer.accept(&deal, |_| {});
    let mut line = Line::open(buyer.dial(&stage.worker).await).await;
    line.write(&deal.open(accept.raw()), &deal.request).await;
    stage.engine("the job starts", |_| true).await;

    // While it runs: the same accept again, and another one for the same job.
    let refused = |reason: &'static str| (ErrorCode::BAD_ACCEPT, reason);
    let twin = buyer.deal(8).await;
    let same_job = buyer.accept(&twin, |a| a.job = accept.job);
    for (deal, bytes, (code, reason)) in [
        (&deal, accept.raw(), refused("claim_refused.already_used")),
        (&twin, same_job.raw(), refused("claim_refused.job_running")),
    ] {
        let mut again = Line::open(buyer.dial(&stage.worker).await).await;
        again.write(&deal.open(bytes), &deal.request).await;
        again.refused(code).await;
        stage.counted(reason, 1).await;
        assert_eq!(stage.running().await, 1);
    }
    let (receipt, _) = line.receipt().await;
    line.countersign(&buyer.key, receipt.digest()).await;
    stage.counted("chat.acknowledged", 1).await;
    stage.idle().await;
    stage.engine("the job ends", |e| matches!(e, EngineEvent::Finished { .. })).await;

    // When it is over, with the accept as everybody heard it.
    let published = buyer.net.publish(topic::jobs(topic::INFERENCE), accept.raw().clone(), accept.expires);
    published.await.expect("it is published");
    let heard = super::soon("the accept on the topic", async {
        loop {
            let (_, bytes) = stage.gossip.recv().await.expect("the tap runs");
            if bytes == accept.raw().to_vec() {
                return bytes;
            }
        }
    })
    .await;
    check(&mut stage, &attacker, &deal, &heard, ErrorCode::BAD_ACCEPT, "claim_refused.wrong_buyer").await;
    check(&mut stage, &buyer, &deal, &heard, ErrorCode::BAD_ACCEPT, "claim_refused.already_used").await;

    // A new hold under the old job's id: the worker could not keep a second receipt for it.
    let deal = buyer.deal(8).await;
    let reused = buyer.accept(&deal, |a| a.job = accept.job);
    let mut line = Line::open(buyer.dial(&stage.worker).await).await;
    line.write(&deal.open(reused.raw()), &deal.request).await;
    line.refused(ErrorCode::BAD_ACCEPT).await;
    stage.counted("chat.accept_refused.job_settled", 1).await;
    stage.idle().await;
    stage.engine_heard_nothing();
    assert_eq!(stage.receipts(1).await, 1);
    stage.honest_job().await;
}
