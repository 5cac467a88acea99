//! Buyers who break the stream of a slot that is theirs, and strangers who have none.

use super::{
    SOON, Stage,
    rogue::{Line, Rogue, fresh_key, request},
    support::{Reply, Scripted},
};
use infernet_node::store::Page;
use infernet_testnet::{cluster::eventually, engine::EngineEvent};
use infernet_wire::{
    chat::{ChatRequest, ErrorCode, Frame},
    codec,
    hash::sha256,
    id::Hash,
    limits::{MAX_FRAME_BYTES, MAX_REQUEST_BYTES},
    offer::JobOffer,
    receipt::JobStatus,
};

/// A buyer with a hold sends `request` after an offer that `change` bent: refused, its slot freed, its hold used up.
async fn check_request(stage: &mut Stage, buyer: &mut Rogue, request: Vec<u8>, change: impl FnOnce(&mut JobOffer)) {
    let before = stage.counter("chat.refused.bad_request").await;
    let deal = buyer.deal_for(request, 8, change).await;
    let accept = buyer.accept(&deal, |_| {});
    let mut line = Line::open(buyer.dial(&stage.worker).await).await;
    line.write(&deal.open(accept.raw()), &deal.request).await;
    line.refused(ErrorCode::BAD_REQUEST).await;
    stage.counted("chat.refused.bad_request", before + 1).await;
    stage.idle().await;
    assert_eq!(stage.held().await, 0);
    stage.engine_heard_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_other_than_the_offered_one_never_reaches_the_engine() {
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let encoded = |max_tokens| request(max_tokens).encode().expect("a request");
    check_request(&mut stage, &mut buyer, encoded(8), |offer| offer.commitment = Hash([7; 32])).await;
    check_request(&mut stage, &mut buyer, encoded(8), |offer| offer.input_tokens = 20).await;
    check_request(&mut stage, &mut buyer, encoded(9), |_| {}).await;
    check_request(&mut stage, &mut buyer, b"no request".to_vec(), |_| {}).await;
    check_request(&mut stage, &mut buyer, Vec::new(), |_| {}).await;
    let hot = ChatRequest { temperature: Some(1e300), ..request(8) };
    check_request(&mut stage, &mut buyer, codec::encode(&hot), |_| {}).await;
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_nobody_may_send_is_refused_before_the_hold_is_touched() {
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    for (n, len) in (1..).zip([u32::MAX, MAX_REQUEST_BYTES as u32 + 1]) {
        let deal = buyer.deal(8).await;
        let accept = buyer.accept(&deal, |_| {});
        let mut line = Line::open(buyer.dial(&stage.worker).await).await;
        line.write(&deal.open_with(accept.raw(), len), &deal.request).await;
        line.refused(ErrorCode::BAD_REQUEST).await;
        stage.counted("chat.refused.bad_request", n).await;
        assert_eq!((stage.running().await, stage.held().await), (0, 1));
    }
    stage.engine_heard_nothing();
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_shorter_or_longer_than_announced_frees_the_slot() {
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let deal = buyer.deal(8).await;
    let mut line = Line::open(buyer.dial(&stage.worker).await).await;
    line.write(&deal.open_with(buyer.accept(&deal, |_| {}).raw(), 5_000), &deal.request).await;
    line.writer.finish().await.expect("finishes");
    line.refused(ErrorCode::PROTOCOL).await;
    stage.counted("chat.refused.protocol", 1).await;
    stage.idle().await;
    stage.engine_heard_nothing();

    // What comes after the request is no frame: the buyer counts as gone.
    let deal = buyer.deal(200).await;
    let mut line = Line::open(buyer.dial(&stage.worker).await).await;
    let longer = [deal.request.as_slice(), &[0xff; 64]].concat();
    line.write(&deal.open(buyer.accept(&deal, |_| {}).raw()), &longer).await;
    stage.counted("chat.finished", 1).await;
    stage.idle().await;
    assert_eq!(stage.worker.node.store().counts().expect("the store").receipts, 0, "nothing was delivered");
    while stage.events.try_recv().is_ok() {}
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_open_frame_is_refused_on_a_connection_that_lives_on() {
    let mut stage = Stage::start().await;
    let stranger = Rogue::join(&stage.worker).await;
    let connection = stranger.dial(&stage.worker).await;
    let mut refused = 0;
    for frame in [Frame::Cancel, Frame::KeepAlive, Frame::Countersign(vec![1; 100].into()), Frame::Receipt(Vec::new().into())] {
        let mut line = Line::open(connection.clone()).await;
        line.write(&frame.encode(), &[]).await;
        line.refused(ErrorCode::PROTOCOL).await;
        refused += 1;
    }
    // Lengths from nothing to four gigabytes, and bytes that are no CBOR or the wrong one; each stream has another seed.
    for seed in 0u32..200 {
        let noise = sha256(&seed.to_be_bytes());
        let len = [0, 1, 31, 32, MAX_FRAME_BYTES as u32 + 1, u32::MAX][seed as usize % 6];
        let body: Vec<u8> = noise.0.iter().cycle().take((len as usize).min(100)).copied().collect();
        let bytes = [len.to_be_bytes().as_slice(), &body].concat();
        let mut line = Line::shout(connection.clone(), &bytes).await;
        let _ = line.writer.finish().await;
        line.refused(ErrorCode::PROTOCOL).await;
        refused += 1;
    }
    stage.counted("chat.refused.protocol", refused).await;
    assert_eq!(stage.counter("chat.streams").await, refused);
    assert!(connection.is_open());
    stage.engine_heard_nothing();
    stage.honest_job().await;
}

/// Ten seconds, which is the request's deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_stream_frees_its_slot_at_the_deadline() {
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let deal = buyer.deal(8).await;
    let mut half = Line::open(buyer.dial(&stage.worker).await).await;
    half.write(&deal.open(buyer.accept(&deal, |_| {}).raw()), &[]).await;
    // QUIC tells of a stream with its first byte.
    let mut torn = Line::shout(half.connection.clone(), &[0, 0]).await;
    let running = eventually("the slot is taken", SOON, || async { stage.running().await == 1 });
    running.await.expect("taken");
    torn.refused(ErrorCode::TIMEOUT).await;
    half.refused(ErrorCode::TIMEOUT).await;
    stage.idle().await;
    stage.engine_heard_nothing();
    stage.counted("chat.refused.timeout", 2).await;
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_that_vanishes_leaves_a_receipt_with_one_signature() {
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut line = buyer.begin(&stage, 200).await;
    assert!(matches!(line.next().await, Frame::Delta(_)));
    line.connection.close("gone");
    stage.engine("the engine stops", |e| matches!(e, EngineEvent::Cancelled { .. })).await;
    assert_eq!(stage.receipts(1).await, 0);
    stage.counted("chat.unacknowledged", 1).await;
    let kept = stage.worker.node.store().receipts(Page::newest(1)).expect("the store").remove(0);
    assert!(kept.countersign().is_none());
    assert_eq!((kept.receipt().buyer, kept.receipt().status), (buyer.id(), JobStatus::CANCELLED));
    assert!((1..200).contains(&kept.receipt().output_tokens));
    stage.idle().await;
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_reaches_the_engine_and_only_what_was_delivered_is_charged() {
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut line = buyer.begin(&stage, 200).await;
    let mut before = 0;
    for _ in 0..3 {
        let Frame::Delta(delta) = line.next().await else { panic!("a delta") };
        before = delta.tokens;
    }
    line.write(&Frame::Cancel.encode(), &[]).await;
    let (receipt, after) = line.receipt().await;
    assert_eq!(receipt.status, JobStatus::CANCELLED);
    assert!(receipt.output_tokens <= before.max(after) && receipt.output_tokens < 100, "{} tokens", receipt.output_tokens);
    line.countersign(&buyer.key, receipt.digest()).await;
    let stopped = stage.engine("the engine stops", |e| matches!(e, EngineEvent::Cancelled { .. })).await;
    assert!(matches!(stopped, EngineEvent::Cancelled { tokens, .. } if tokens < 200));
    stage.counted("chat.acknowledged", 1).await;
    assert_eq!(stage.receipts(1).await, 1);
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_buyers_signature_of_this_receipt_acknowledges_it() {
    let mut stage = Stage::start().await;
    let mut buyer = Rogue::join(&stage.worker).await;
    for (n, (other_key, other_receipt)) in (1..).zip([(true, false), (false, true)]) {
        let mut line = buyer.begin(&stage, 4).await;
        let (receipt, _) = line.receipt().await;
        let key = if other_key { fresh_key() } else { buyer.key.clone() };
        let digest = if other_receipt { Hash([7; 32]) } else { receipt.digest() };
        line.countersign(&key, digest).await;
        stage.counted("chat.countersign_refused.field", n).await;
        stage.counted("chat.unacknowledged", n).await;
    }
    let mut line = buyer.begin(&stage, 4).await;
    line.receipt().await;
    line.write(&Frame::Countersign(b"no signature".to_vec().into()).encode(), &[]).await;
    stage.counted("chat.countersign_refused.malformed", 1).await;
    let mut line = buyer.begin(&stage, 4).await;
    line.receipt().await;
    line.write(&Frame::KeepAlive.encode(), &[]).await;
    stage.counted("chat.unacknowledged", 4).await;
    assert_eq!(stage.receipts(4).await, 0);
    stage.idle().await;
    while stage.events.try_recv().is_ok() {}
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_that_does_not_sign_keeps_no_slot_and_is_waited_for() {
    let engine = Scripted::start(|_| Reply::Say(vec!["x".into(); 4])).await;
    let stage = Stage::with_slots(&engine.url(), 1).await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut unsigned = Vec::new();
    for n in 1..=2 {
        // The only slot is bid at once, although no receipt was signed yet.
        let mut line = buyer.begin(&stage, 4).await;
        let (receipt, _) = line.receipt().await;
        unsigned.push((line, receipt));
        let seller = stage.worker.node.status().await.seller.expect("it sells");
        assert_eq!((seller.running, seller.settling), (0, n));
    }
    let signed = || stage.worker.node.store().counts().expect("the store answers").countersigned;
    let drained = async {
        stage.worker.node.drain(SOON).await;
        signed()
    };
    let signing = async {
        let drains = || async { stage.worker.node.status().await.seller.is_some_and(|s| s.draining && s.settling == 2) };
        eventually("it drains", SOON, drains).await.expect("it drains");
        assert_eq!(signed(), 0);
        for (line, receipt) in &mut unsigned {
            line.countersign(&buyer.key, receipt.digest()).await;
        }
    };
    assert_eq!(tokio::join!(drained, signing).0, 2, "both signatures are kept when the drain is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_only_itself() {
    // Twice what the slow reader's window takes.
    let engine = Scripted::start(|_| Reply::Say(vec!["x".repeat(1_000); 256])).await;
    let stage = Stage::over(&engine.url()).await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut slow = buyer.begin(&stage, 1_000).await;
    let deal = buyer.deal(1_000).await;
    let mut fast = Line::open(slow.connection.clone()).await;
    fast.write(&deal.open(buyer.accept(&deal, |_| {}).raw()), &deal.request).await;
    for (n, line) in (1..).zip([&mut fast, &mut slow]) {
        let (receipt, tokens) = line.receipt().await;
        assert_eq!((receipt.status, tokens), (JobStatus::COMPLETED, 256));
        line.countersign(&buyer.key, receipt.digest()).await;
        stage.counted("chat.acknowledged", n).await;
        assert_eq!(stage.counter("chat.started").await, 2);
        // The slow one's answer can't be through before it is read.
        let running = eventually("a slot is free", SOON, || async { stage.running().await == 2 - n as usize });
        running.await.expect("free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_fails_is_told_of_by_kind_and_paid_for_what_came() {
    let words = || "no /secret/path".to_owned();
    let engine = Scripted::start(move |prompt| match prompt {
        "refuse" => Reply::Refuse(words()),
        "fail" => Reply::Fail(vec!["Once".into(), " upon".into()], words()),
        _ => Reply::Drone("x".into()),
    })
    .await;
    let stage = Stage::over(&engine.url()).await;
    let mut buyer = Rogue::join(&stage.worker).await;
    let mut begin = async |prompt: &str| {
        let mut asked = request(50);
        asked.messages[0].content = prompt.into();
        let deal = buyer.deal_for(asked.encode().expect("a request"), 50, |_| {}).await;
        let mut line = Line::open(buyer.dial(&stage.worker).await).await;
        line.write(&deal.open(buyer.accept(&deal, |_| {}).raw()), &deal.request).await;
        assert!(matches!(line.next().await, Frame::Opened(_)));
        line
    };
    let refusal = begin("refuse").await.refusal().await;
    assert_eq!(refusal.code, ErrorCode::ENGINE);
    assert!(!refusal.message.contains("secret"), "{refusal}");
    let (receipt, tokens) = begin("fail").await.receipt().await;
    assert_eq!((receipt.status, receipt.output_tokens, tokens), (JobStatus::FAILED, 2, 2));
    // An engine that never ends is stopped at the limit that the buyer set.
    let (receipt, tokens) = begin("drone").await.receipt().await;
    assert_eq!((receipt.status, receipt.output_tokens, tokens), (JobStatus::COMPLETED, 50, 50));
    stage.idle().await;
}
