//! Nodes, offers, ads and bids for the market's tests.

use infernet_wire::{
    bid::{Answer, JobBid, NoBid, NoBidReason},
    capability::{CapabilityAd, ModelAd},
    envelope::{Message, Verified},
    id::{Hash, NodeId, OfferId},
    key::NodeKey,
    limits,
    money::{MicroUsd, Price},
    offer::{JobOffer, SelectionRule},
    time::UnixMillis,
    topic::{INFERENCE, NetworkId},
};

/// When every test begins.
pub(crate) const T0: UnixMillis = UnixMillis(1_700_000_000_000);

/// `ms` after the beginning.
pub(crate) fn at(ms: u64) -> UnixMillis {
    T0.after(ms)
}

/// The key of node `n`, which is not 0.
pub(crate) fn key(n: u16) -> NodeKey {
    let mut bytes = [1; 32];
    bytes[30..].copy_from_slice(&n.to_be_bytes());
    NodeKey::from_bytes(&bytes).expect("a small scalar is a key")
}

pub(crate) fn node(n: u16) -> NodeId {
    key(n).id()
}

pub(crate) fn sign<T: Message>(n: u16, body: T) -> Verified<T> {
    key(n).sign(&NetworkId::default(), body).expect("the fixture keeps the limits")
}

pub(crate) fn price(input: u64, output: u64) -> Price {
    Price { input: MicroUsd(input), output: MicroUsd(output) }
}

pub(crate) fn model(id: &str, input: u64, output: u64) -> ModelAd {
    ModelAd { id: id.into(), price: price(input, output), ..ModelAd::default() }
}

/// 100 input tokens by the estimate, 200 output tokens, for `tiny`, with money and time to spare.
pub(crate) fn offer_body() -> JobOffer {
    JobOffer {
        id: OfferId([7; 16]),
        issued: T0,
        expires: at(limits::OFFER_TTL_MS),
        workload: INFERENCE.into(),
        model: "tiny".into(),
        abilities: Default::default(),
        input_tokens: 400,
        output_tokens: 200,
        ceiling: price(10_000_000, 10_000_000),
        budget: MicroUsd(1_000_000),
        deadline: at(120_000),
        window_ms: 1_000,
        rule: SelectionRule::BALANCED,
        commitment: Hash([9; 32]),
    }
}

/// Offer number `id` of buyer `n`, changed.
pub(crate) fn offer(n: u16, id: u8, change: impl FnOnce(&mut JobOffer)) -> Verified<JobOffer> {
    let mut body = JobOffer { id: OfferId([id; 16]), ..offer_body() };
    change(&mut body);
    sign(n, body)
}

/// An ad of worker `n` for `tiny` at the same price for input and output.
pub(crate) fn ad(n: u16, sequence: u64, each: u64, issued: UnixMillis) -> Verified<CapabilityAd> {
    ad_with(n, sequence, vec![model("tiny", each, each)], issued)
}

pub(crate) fn ad_with(n: u16, sequence: u64, models: Vec<ModelAd>, issued: UnixMillis) -> Verified<CapabilityAd> {
    let expires = issued.after(limits::AD_TTL_MS);
    sign(n, CapabilityAd { sequence, issued, expires, tags: vec![], models, slots: 2, chat: vec![] })
}

/// A bid of worker `n` at the same price for input and output, with all speeds unknown, changed.
pub(crate) fn bid_with(n: u16, offer: &Verified<JobOffer>, each: u64, change: impl FnOnce(&mut JobBid)) -> Verified<JobBid> {
    let mut body = JobBid {
        offer: offer.digest(),
        issued: T0,
        hold_until: at(u64::from(offer.window_ms) + limits::HOLD_SLACK_MS),
        model: "tiny".into(),
        price: price(each, each),
        queue_ms: 0,
        ttft_ms: 0,
        tokens_per_second: 0,
        chat: vec![],
    };
    change(&mut body);
    sign(n, body)
}

pub(crate) fn bid(n: u16, offer: &Verified<JobOffer>, each: u64) -> Verified<JobBid> {
    bid_with(n, offer, each, |_| {})
}

pub(crate) fn bids(n: u16, offer: &Verified<JobOffer>, each: u64) -> Answer {
    Answer::Bid(bid(n, offer, each))
}

pub(crate) fn refuses(n: u16, offer: &Verified<JobOffer>, reason: NoBidReason) -> Answer {
    Answer::NoBid(sign(n, NoBid { offer: offer.digest(), issued: T0, reason }))
}
