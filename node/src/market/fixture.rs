//! Nodes, offers, ads and bids for the market's tests.

use super::{
    auction::{AnswerRefused, CloseReason, Closed},
    buyer::{self, Buyer},
};
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
        invited: Vec::new(),
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
    sign(
        n,
        CapabilityAd {
            sequence,
            issued,
            expires,
            tags: vec![],
            models,
            slots: 2,
            chat: vec![],
            mesh: Vec::new(),
            evm: Vec::new(),
        },
    )
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

/// A buyer and a script of answers, on a virtual clock that begins anew with each auction.
pub(crate) struct Scene {
    pub(crate) buyer: Buyer,
    pub(crate) rule: SelectionRule,
    pub(crate) window_ms: u16,
    rounds: u8,
}

/// How an auction of a [`Scene`] ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) after_ms: u64,
    pub(crate) reason: CloseReason,
    /// The winner and its price.
    pub(crate) won: Option<(u16, u64)>,
    pub(crate) refused: Vec<AnswerRefused>,
}

/// When a worker answers, and with which price; without one it refuses.
pub(crate) type Line = (u16, u64, Option<u64>);

impl Scene {
    /// A buyer that knows these workers' ads and prices.
    pub(crate) fn new(ads: impl IntoIterator<Item = (u16, u64)>) -> Self {
        let mut buyer = Buyer::default();
        for (n, each) in ads {
            buyer.handle(buyer::Input::Ad(ad(n, 1, each, T0)), T0);
        }
        Scene { buyer, rule: SelectionRule::BALANCED, window_ms: 1_000, rounds: 0 }
    }

    /// Runs one auction. Answers of the script that come after its end are delivered too.
    pub(crate) fn run(&mut self, script: &[Line]) -> Ended {
        self.rounds += 1;
        let (rule, window_ms) = (self.rule, self.window_ms);
        let offer = offer(999, self.rounds, |offer| (offer.rule, offer.window_ms) = (rule, window_ms));
        let mut script = script.to_vec();
        script.sort_by_key(|(_, ms, _)| *ms);
        let mut ended = None;
        let mut refused = Vec::new();
        let mut wake = self.feed(buyer::Input::Open(offer.clone(), Default::default()), T0, &mut ended, &mut refused);
        for (n, ms, each) in script {
            self.wake_before(wake, at(ms), &mut ended, &mut refused);
            let answer = each.map_or_else(|| refuses(n, &offer, NoBidReason::NO_SLOT), |each| bids(n, &offer, each));
            wake = self.feed(buyer::Input::Answer(answer), at(ms), &mut ended, &mut refused);
        }
        self.wake_before(wake, at(1_000_000), &mut ended, &mut refused);
        let (after_ms, outcome) = ended.expect("every auction ends");
        let (reason, won) = outcome_of(&outcome);
        Ended { after_ms, reason, won, refused }
    }

    fn wake_before(
        &mut self,
        mut wake: Option<UnixMillis>,
        end: UnixMillis,
        ended: &mut Option<(u64, Closed)>,
        refused: &mut Vec<AnswerRefused>,
    ) -> Option<UnixMillis> {
        while let Some(at) = wake.filter(|at| *at <= end) {
            wake = self.feed(buyer::Input::Wake, at, ended, refused);
        }
        wake
    }

    fn feed(
        &mut self,
        input: buyer::Input,
        now: UnixMillis,
        ended: &mut Option<(u64, Closed)>,
        refused: &mut Vec<AnswerRefused>,
    ) -> Option<UnixMillis> {
        let mut wake = None;
        for output in self.buyer.handle(input, now) {
            match output {
                buyer::Output::Wake { at } => wake = Some(at),
                buyer::Output::Closed { outcome, .. } => *ended = Some((now.since(T0), outcome)),
                buyer::Output::Refused { reason, .. } => refused.push(reason),
                buyer::Output::Busy { .. } => panic!("one auction at a time"),
            }
        }
        wake
    }
}

fn outcome_of(outcome: &Closed) -> (CloseReason, Option<(u16, u64)>) {
    match outcome {
        Closed::NoBids { reason, .. } => (*reason, None),
        Closed::Won(won) => {
            let best = &won.ranking[0];
            let n = (1..1_000).find(|n| node(*n) == best.worker).expect("a worker of the fixture");
            (won.reason, Some((n, won.bids[&best.worker].price.output.0)))
        }
    }
}
