//! An hour of flood against both deciders, on a virtual clock: every structure keeps its bound, and honest business goes on.
//!
//! Signing is what a test can afford least, so most of the flood are replays, as they would be: a copy is free.

use super::{
    auction::Closed,
    buyer::{Buyer, Input as Told, MAX_OPEN_AUCTIONS, Output as Says},
    fixture::{ad, ad_with, at, bid_with, model, node, offer_body, refuses, sign},
    record::MAX_RECORDS,
    registry::MAX_ADS,
    seller::{Input, Output, Seller},
};
use infernet_wire::{
    accept::JobAccept,
    bid::{Answer, NoBidReason},
    capability::CapabilityAd,
    envelope::Verified,
    id::{Hash, JobId, NodeId, OfferId},
    limits,
    money::MicroUsd,
    offer::JobOffer,
    time::UnixMillis,
};
use std::collections::{BTreeMap, VecDeque};

const SECONDS: u64 = 3_600;
/// How far the clock moves at once.
const STEP: usize = 2;
const SLOTS: u16 = 8;
/// Keys of attackers. A key costs nothing, but each of their ads is looked at with each offer.
const CROWD: u16 = 400;
const FIRST_OF_CROWD: u16 = 1_000;
const ME: u16 = 1;
const HONEST: u16 = 2;
/// New messages of the crowd in a step, and copies of each.
const FRESH: u64 = 2;
const COPIES: usize = 20;
/// How long an honest job runs.
const JOB_MS: u64 = 2_500;

/// A deterministic crowd (xorshift).
struct Crowd {
    dice: u64,
    made: u64,
}

impl Crowd {
    fn new() -> Self {
        Crowd { dice: 88_172_645_463_325_252, made: 0 }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % n
    }

    fn member(&mut self) -> u16 {
        FIRST_OF_CROWD + self.below(CROWD.into()) as u16
    }

    fn number(&mut self) -> [u8; 16] {
        self.made += 1;
        let mut id = [0xcc; 16];
        id[..8].copy_from_slice(&self.made.to_be_bytes());
        id
    }
}

fn offer_at(n: u16, id: [u8; 16], now: UnixMillis, model: &str) -> Verified<JobOffer> {
    let (expires, deadline) = (now.after(limits::OFFER_TTL_MS), now.after(120_000));
    sign(n, JobOffer { id: OfferId(id), issued: now, expires, deadline, model: model.into(), ..offer_body() })
}

fn accept_at(n: u16, offer: Hash, bid: Hash, job: [u8; 16], now: UnixMillis) -> Verified<JobAccept> {
    let price = model("tiny", 1_000_000, 1_000_000).price;
    let body = JobAccept {
        offer,
        bid,
        winner: node(ME),
        model: "tiny".into(),
        price,
        job: JobId(job),
        attempt: 1,
        runners_up: vec![],
        bids: Hash([0; 32]),
        score: 1,
        issued: now,
        expires: now.after(limits::ACCEPT_TTL_MS),
        rate: None,
    };
    sign(n, body)
}

/// A worker, and the jobs that it runs until then.
struct Worker {
    seller: Seller,
    running: BTreeMap<JobId, (UnixMillis, bool)>,
}

impl Worker {
    fn new() -> Self {
        let mut seller = Seller::new(node(ME), SLOTS);
        seller.set_catalogue(vec![model("tiny", 1_000_000, 1_000_000)]);
        Worker { seller, running: BTreeMap::new() }
    }

    /// Whether it bids; if so, the digest of its bid.
    fn bid(&mut self, offer: &Verified<JobOffer>, now: UnixMillis) -> Result<Hash, Box<Output>> {
        match self.seller.handle(Input::Offer(offer.clone()), now).into_iter().next().expect("an outcome") {
            Output::Bid { body, .. } => {
                let bid = sign(ME, body);
                self.seller.bid_signed(offer.digest(), bid.digest());
                Ok(bid.digest())
            }
            other => Err(Box::new(other)),
        }
    }

    fn claim(&mut self, accept: &Verified<JobAccept>, from: NodeId, for_ms: u64, settles: bool, now: UnixMillis) -> bool {
        let claimed = self.seller.claim(accept, from, now);
        claimed.is_ok_and(|claim| self.running.insert(claim.job, (now.after(for_ms), settles)).is_none())
    }

    fn finish_due(&mut self, now: UnixMillis) {
        for (job, (_, settles)) in self.running.extract_if(.., |_, (until, _)| *until <= now).collect::<Vec<_>>() {
            self.seller.finish(&job, settles);
        }
    }

    fn check(&self) {
        let admission = self.seller.admission();
        assert!(admission.running() + admission.held() <= usize::from(SLOTS));
        assert!(self.seller.registry().len() <= MAX_ADS);
        assert!(self.seller.outcomes().iter().count() <= 64);
        assert!(self.seller.wanted().len() <= 64, "{} models wanted", self.seller.wanted().len());
    }
}

#[test]
fn an_hour_of_offers_ads_and_accepts_leaves_a_worker_within_its_bounds_and_its_buyers_served() {
    let (mut worker, mut crowd) = (Worker::new(), Crowd::new());
    let (mut heard, mut served, mut strangers) = (VecDeque::new(), 0, 0);
    for second in (0..SECONDS).step_by(STEP) {
        let now = at(second * 1_000);
        worker.finish_due(now);
        for _ in 0..FRESH {
            let (member, number) = (crowd.member(), crowd.number());
            let wanted = if crowd.below(4) == 0 { format!("model-{}", crowd.below(1_000_000)) } else { "tiny".into() };
            let offer = offer_at(member, number, now, &wanted);
            let bid = worker.bid(&offer, now);
            // A third of those who get a bid use it, and keep the slot for long.
            if let (Ok(bid), 0) = (bid, crowd.below(3)) {
                let accept = accept_at(member, offer.digest(), bid, number, now);
                strangers += u32::from(worker.claim(&accept, node(member), 20_000, false, now));
                heard.push_back(Input::Accept(accept));
            }
            heard.push_back(Input::Offer(offer));
        }
        let member = crowd.member();
        heard.push_back(Input::Ad(ad_with(member, second + 1, vec![model("other", 1, 1)], now)));
        heard.push_back(Input::Accept(accept_at(member, Hash([7; 32]), Hash([7; 32]), crowd.number(), now)));
        for n in 0..COPIES * FRESH as usize {
            let copied = match &heard[n % heard.len()] {
                Input::Offer(offer) => Input::Offer(offer.clone()),
                Input::Accept(accept) => Input::Accept(accept.clone()),
                Input::Ad(ad) => Input::Ad(ad.clone()),
                Input::Wake => Input::Wake,
            };
            worker.seller.handle(copied, now);
        }
        heard.drain(..heard.len().saturating_sub(64));

        let number = crowd.number();
        let offer = offer_at(HONEST, number, now, "tiny");
        match worker.bid(&offer, now) {
            Ok(bid) => {
                let accept = accept_at(HONEST, offer.digest(), bid, number, now);
                assert!(worker.claim(&accept, node(HONEST), JOB_MS, true, now), "second {second}");
                served += 1;
            }
            Err(other) => {
                assert!(second < 60, "the honest buyer, who is no stranger any more, got {other:?} in second {second}")
            }
        }
        worker.check();
    }
    assert!(served > SECONDS as usize / STEP * 99 / 100, "{served}");
    // The crowd was not simply shut out either.
    assert!(strangers > 100, "{strangers}");
}

/// Runs one auction of an honest buyer in which one honest worker bids among a crowd that lies; its winner.
fn auction(buyer: &mut Buyer, crowd: &mut Crowd, now: UnixMillis) -> NodeId {
    let offer = offer_at(HONEST, crowd.number(), now, "tiny");
    let mut closed = None;
    let mut tell = |buyer: &mut Buyer, told: Told, now: UnixMillis| {
        for says in buyer.handle(told, now) {
            if let Says::Closed { outcome: Closed::Won(won), .. } = says {
                closed = Some(won.ranking.first().expect("a winner").worker);
            }
        }
    };
    tell(buyer, Told::Open(offer.clone(), Default::default()), now);
    for _ in 0..8 {
        let member = crowd.member();
        let lie = match crowd.below(4) {
            0 => refuses(member, &offer, NoBidReason::NO_SLOT),
            1 => Answer::Bid(bid_with(member, &offer, 1, |bid| bid.offer = Hash([crowd.below(256) as u8; 32]))),
            2 => Answer::Bid(bid_with(member, &offer, 1, |bid| bid.price.output = MicroUsd(u64::MAX))),
            _ => Answer::Bid(bid_with(member, &offer, 1, |bid| bid.model = "another".into())),
        };
        (0..4).for_each(|_| tell(buyer, Told::Answer(lie.clone()), now.after(1)));
    }
    tell(buyer, Told::Answer(Answer::Bid(bid_with(ME, &offer, 1_000_000, |_| {}))), now.after(2));
    for ms in [5, 60, 1_000, 2_000] {
        tell(buyer, Told::Wake, now.after(ms));
    }
    closed.expect("an honest bid wins")
}

#[test]
fn an_hour_of_lies_leaves_a_buyer_within_its_bounds_and_with_its_worker() {
    let (mut buyer, mut crowd) = (Buyer::default(), Crowd::new());
    let mut abandoned = VecDeque::new();
    for second in (0..SECONDS).step_by(STEP) {
        let now = at(second * 1_000);
        if second % 30 == 0 {
            buyer.handle(Told::Ad(ad(ME, second + 1, 1_000_000, now)), now);
        }
        for _ in 0..FRESH {
            let member = crowd.member();
            buyer.handle(Told::Ad(crowd_ad(member, second + 1, now)), now);
        }
        // Callers who leave without a word, and answers to what was never asked.
        let lost = offer_at(HONEST, crowd.number(), now, "nobody-has-it");
        buyer.handle(Told::Open(lost.clone(), Default::default()), now);
        abandoned.push_back(lost.digest());
        if second % 4 == 0 {
            abandoned.drain(..).for_each(|offer| _ = buyer.handle(Told::Abandon(offer), now));
        }
        if second % 4 == 0 {
            assert_eq!(auction(&mut buyer, &mut crowd, now), node(ME), "second {second}");
        }
        assert!(buyer.open_auctions() <= MAX_OPEN_AUCTIONS);
        assert!(buyer.registry().len() <= MAX_ADS);
        assert!(buyer.records().len() <= MAX_RECORDS);
    }
}

/// Of a worker that is dear, so that nobody need wait for it, and never answers as it should. Few of them name the model that is
/// asked for: with more than `MAX_BIDDERS` such workers the honest one would not be asked each time, which is another story.
fn crowd_ad(member: u16, sequence: u64, now: UnixMillis) -> Verified<CapabilityAd> {
    let name = if member.is_multiple_of(16) { "tiny" } else { "other" };
    ad_with(member, sequence, vec![model(name, 9_000_000, 9_000_000)], now)
}
