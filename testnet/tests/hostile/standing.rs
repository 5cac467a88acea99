//! Buyers who misuse a standing price: a worker's ad binds the worker, and nothing else does.

use super::{
    MODEL, SLOTS, Stage,
    rogue::{Line, Rogue, network, request},
    soon,
};
use infernet_node::{
    backend, clock,
    market::pricing::Pricing,
    net::Event,
    node::{Node, Serve, Settings},
    store,
};
use infernet_testnet::{
    cluster::{CREDIT, NETWORK, loopback},
    engine::{EngineEvent, EngineOptions, EngineServer},
};
use infernet_wire::{
    accept::JobAccept,
    bid::bids_commitment,
    capability::CapabilityAd,
    chat::{ErrorCode, Frame, Open, Payment},
    envelope::Verified,
    id::{Hash, JobId, NodeId},
    key::NodeKey,
    limits,
    money::{MicroUsd, Price},
    offer::JobOffer,
    standing::StandingOffer,
};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};

/// Tokens of a job that outlasts a test at [`SLOW`].
const LONG: u32 = 80;
/// Tokens per second.
const SLOW: f64 = 4.0;

/// What a buyer sends for an ad.
#[derive(Clone)]
struct Taking {
    offer: Vec<u8>,
    accept: Verified<JobAccept>,
    request: Vec<u8>,
    salt: [u8; 32],
    payment: Option<Payment>,
}

impl Taking {
    /// The bytes of the `Open` frame.
    fn open(&self) -> Vec<u8> {
        self.open_with(self.accept.raw().to_vec())
    }

    /// The same with another signature in the accept, whose last bytes it is.
    fn forged(&self) -> Vec<u8> {
        let mut accept = self.accept.raw().to_vec();
        *accept.last_mut().expect("bytes") ^= 1;
        self.open_with(accept)
    }

    fn open_with(&self, accept: Vec<u8>) -> Vec<u8> {
        let request_len = u32::try_from(self.request.len()).expect("a small request");
        let (accept, offer) = (accept.into(), Some(self.offer.clone().into()));
        let (salt, payment) = (self.salt.into(), self.payment.clone());
        Frame::Open(Open { accept, salt, request_len, offer, resume_from: None, payment }).encode()
    }
}

/// The newest ad of `worker` that `rogue` hears of.
async fn ad_of(rogue: &mut Rogue, worker: NodeId) -> Verified<CapabilityAd> {
    soon("the worker's ad", async {
        loop {
            match rogue.events.recv().await.expect("the mesh runs") {
                Event::Ad(ad) if ad.signer() == worker && !ad.models.is_empty() => return ad,
                _ => {}
            }
        }
    })
    .await
}

fn take(
    rogue: &Rogue,
    ad: &Verified<CapabilityAd>,
    tokens: u32,
    offer: impl FnOnce(&mut JobOffer),
    accept: impl FnOnce(&mut JobAccept),
) -> Taking {
    let (salt, request) = (clock::random(), request(tokens).encode().expect("a request"));
    let mut body = rogue.offer(&request, &salt, tokens);
    offer(&mut body);
    let offer = StandingOffer::new(body).expect("within limits");
    let (now, model) = (clock::now(), &ad.models[0]);
    let mut body = JobAccept {
        offer: offer.digest(),
        bid: ad.digest(),
        winner: ad.signer(),
        model: model.id.clone(),
        price: model.price,
        job: JobId(clock::random()),
        attempt: 1,
        runners_up: Vec::new(),
        bids: bids_commitment(vec![ad.digest()]),
        score: 1,
        issued: now,
        expires: now.after(limits::ACCEPT_TTL_MS),
        rate: None,
    };
    accept(&mut body);
    let accept = rogue.key.sign(&network(), body).expect("an accept");
    let payment = rogue.promises.whole(&accept, &request, MicroUsd(1_000_000));
    Taking { offer: offer.payload().to_vec(), accept, request, salt, payment }
}

/// `rogue` presents `taking`: it is refused with `code`, counted as `reason`, and no slot is taken.
async fn check(stage: &mut Stage, rogue: &Rogue, taking: &Taking, code: ErrorCode, reason: &str) {
    let (before, running) = (stage.counter(reason).await, stage.running().await);
    let mut line = Line::open(rogue.dial(&stage.worker).await).await;
    line.write(&taking.open(), &taking.request).await;
    line.refused(code).await;
    stage.counted(reason, before + 1).await;
    assert_eq!(stage.running().await, running, "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ad_binds_to_its_own_terms_only() {
    let mut stage = Stage::start().await;
    let mut rogue = Rogue::join(&stage.worker).await;
    let thief = Rogue::join(&stage.worker).await;
    let ad = ad_of(&mut rogue, stage.worker.node.id()).await;
    let bad = ErrorCode::BAD_ACCEPT;

    let cheaper = take(&rogue, &ad, 8, |_| {}, |accept| accept.price.output = MicroUsd(1));
    check(&mut stage, &rogue, &cheaper, bad, "claim_refused.terms_differ").await;
    let unknown = take(&rogue, &ad, 8, |_| {}, |accept| accept.bid = Hash([7; 32]));
    check(&mut stage, &rogue, &unknown, ErrorCode::NO_HOLD, "claim_refused.unknown_ad").await;
    let poor = take(&rogue, &ad, 8, |offer| offer.budget = MicroUsd(0), |_| {});
    check(&mut stage, &rogue, &poor, ErrorCode::BUSY, "claim_refused.budget_too_low").await;
    let honest = take(&rogue, &ad, 8, |_| {}, |_| {});
    check(&mut stage, &thief, &honest, bad, "claim_refused.wrong_buyer").await;
    let mut changed = honest.clone();
    let last = changed.offer.len() - 1;
    changed.offer[last] ^= 1;
    check(&mut stage, &rogue, &changed, bad, "chat.offer_refused.field").await;
    let mut signed = honest.clone();
    signed.offer = rogue.key.sign(&network(), rogue.offer(&honest.request, &honest.salt, 8)).expect("an offer").raw().to_vec();
    check(&mut stage, &rogue, &signed, bad, "chat.offer_refused.field").await;
    stage.engine_heard_nothing();
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_accept_of_an_ad_gets_no_answer_and_no_slot() {
    let mut stage = Stage::start().await;
    let mut rogue = Rogue::join(&stage.worker).await;
    let ad = ad_of(&mut rogue, stage.worker.node.id()).await;
    let (reason, before) = ("chat.accept_refused.bad_signature", stage.running().await);
    for n in 1..=3 {
        let taking = take(&rogue, &ad, LONG, |_| {}, |_| {});
        let mut line = Line::open(rogue.dial(&stage.worker).await).await;
        line.write(&taking.forged(), &taking.request).await;
        line.refused(ErrorCode::BAD_ACCEPT).await;
        stage.counted(reason, n).await;
    }
    assert_eq!(stage.running().await, before);
    assert_eq!(stage.receipts(0).await, 0);
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_open_is_good_once() {
    let mut stage = Stage::start().await;
    let mut rogue = Rogue::join(&stage.worker).await;
    let ad = ad_of(&mut rogue, stage.worker.node.id()).await;
    let taking = take(&rogue, &ad, 40, |_| {}, |_| {});
    let mut line = Line::open(rogue.dial(&stage.worker).await).await;
    line.write(&taking.open(), &taking.request).await;
    stage.engine("the job starts", |_| true).await;
    check(&mut stage, &rogue, &taking, ErrorCode::BAD_ACCEPT, "claim_refused.already_used").await;
    // The same job under a fresh offer would leave one of the two without a receipt.
    let twin = take(&rogue, &ad, 8, |_| {}, |accept| accept.job = taking.accept.job);
    check(&mut stage, &rogue, &twin, ErrorCode::BAD_ACCEPT, "claim_refused.job_running").await;
    let (receipt, _) = line.receipt().await;
    line.countersign(&rogue.key, receipt.digest()).await;
    stage.counted("chat.acknowledged", 1).await;
    stage.idle().await;
    stage.engine("the job ends", |event| matches!(event, EngineEvent::Finished { .. })).await;
    check(&mut stage, &rogue, &taking, ErrorCode::BAD_ACCEPT, "claim_refused.already_used").await;
    let settled = take(&rogue, &ad, 8, |_| {}, |accept| accept.job = taking.accept.job);
    check(&mut stage, &rogue, &settled, ErrorCode::BAD_ACCEPT, "chat.accept_refused.job_settled").await;
    stage.engine_heard_nothing();
    assert_eq!(stage.receipts(1).await, 1);
    stage.honest_job().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_strangers_leaves_half_of_the_slots() {
    let options = EngineOptions { tokens_per_second: Some(SLOW), ..EngineOptions::default() };
    let engine = EngineServer::start(options).await.expect("an engine");
    let mut stage = Stage { events: engine.events(), ..Stage::over(&engine.url()).await };
    // No stranger any more.
    stage.honest_job().await;
    let mut lines = Vec::new();
    let mut first = Rogue::join(&stage.worker).await;
    let ad = ad_of(&mut first, stage.worker.node.id()).await;
    let mut crowd = Vec::new();
    for _ in 0..SLOTS / 2 {
        crowd.push(Rogue::join(&stage.worker).await);
    }
    for rogue in &crowd {
        let taking = take(rogue, &ad, LONG, |_| {}, |_| {});
        let mut line = Line::open(rogue.dial(&stage.worker).await).await;
        line.write(&taking.open(), &taking.request).await;
        assert!(matches!(line.next().await, Frame::Opened(_)));
        lines.push(line);
    }
    let one_more = take(&first, &ad, 8, |_| {}, |_| {});
    check(&mut stage, &first, &one_more, ErrorCode::BUSY, "claim_refused.stranger_pool_full").await;
    // A known buyer finds its half, however it comes.
    assert_eq!(stage.running().await, usize::from(SLOTS / 2));
    let (events, mut heard) = tokio::sync::mpsc::channel(64);
    let (_never, mut cancel) = tokio::sync::watch::channel(false);
    let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
    let asked = infernet_testnet::demo::order(MODEL, "Tell me a story about a fox.", 8);
    let report = soon("an honest job", stage.honest.node.buyer().chat(asked, &events, &mut cancel)).await;
    drop(events);
    listening.await.expect("the listener ends");
    assert!(report.expect("a slot is left").receipt.is_some_and(|receipt| receipt.verified));
    drop(lines);
}

/// A worker with this key and home, so that it can come back as itself.
async fn worker(key: &NodeKey, home: &std::path::Path, engine: &str) -> Node {
    let spec = format!("ollama={engine}").parse().expect("an engine's address");
    let price = Price { input: MicroUsd(100_000), output: MicroUsd(100_000) };
    let engines = vec![Arc::from(backend::connect(&spec).expect("an engine"))];
    let network = NETWORK.parse().expect("a name");
    let store = store::open(home, &network).expect("a store");
    let mut serve = Serve::new(engines, Pricing::flat(price), 4);
    serve.credit.free = CREDIT;
    let settings = Settings {
        key: key.clone(),
        former: Vec::new(),
        network,
        listen: vec![loopback()],
        chat_listen: (Ipv4Addr::LOCALHOST, 0).into(),
        bootstrap: Vec::new(),
        mdns: false,
        max_peers: 16,
        reach: Default::default(),
        serve: Some(serve),
        preferences: Default::default(),
        tap: None,
    };
    Node::start(settings, store).await.expect("the worker starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_captured_before_a_restart_is_worth_nothing_after_it() {
    let engine = EngineServer::start(EngineOptions::default()).await.expect("an engine");
    let key = super::rogue::fresh_key();
    let homes = [(); 2].map(|()| tempfile::tempdir().expect("a home"));
    let first = worker(&key, homes[0].path(), &engine.url()).await;
    let mut rogue = Rogue::join_at(first.net().listen_addresses().await).await;
    let ad = ad_of(&mut rogue, first.id()).await;
    let taking = take(&rogue, &ad, 8, |_| {}, |_| {});
    first.shutdown(Duration::ZERO).await;

    // The accept was never used, its times allow it, it is the same worker, and nothing that was written down says no.
    let second = worker(&key, homes[1].path(), &engine.url()).await;
    let connection =
        soon("a connection", rogue.endpoint.connect(second.id(), &[second.chat_addr()])).await.expect("it answers");
    let mut line = Line::open(connection).await;
    line.write(&taking.open(), &taking.request).await;
    line.refused(ErrorCode::NO_HOLD).await;
    let counters = second.status().await.seller.expect("it sells").counters;
    assert_eq!(counters.get("claim_refused.before_start"), Some(&1), "{counters:?}");
    second.shutdown(Duration::ZERO).await;
}
