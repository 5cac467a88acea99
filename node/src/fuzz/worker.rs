//! A worker's decider: offers, accepts of bids and of ads, jobs that end, rivals, and a clock that goes on.

use super::Ops;
use crate::market::{
    fixture::{T0, key, model, offer_body, price},
    seller::{Input, Output, Seller},
};
use infernet_wire::{
    accept::JobAccept,
    bid::JobBid,
    capability::{CapabilityAd, ModelAd},
    envelope::{Message, Verified},
    id::{Hash, JobId, NodeId, OfferId},
    key::NodeKey,
    limits,
    money::MicroUsd,
    offer::JobOffer,
    standing::{StandingAccept, StandingOffer},
    time::UnixMillis,
    topic::NetworkId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

/// The worker, and the number of nodes in all.
const ME: u8 = 0;
const NODES: usize = 5;

/// Keys and ids, which are dear to make.
pub(super) fn nodes() -> &'static [(NodeKey, NodeId); NODES] {
    static NODES: OnceLock<[(NodeKey, NodeId); 5]> = OnceLock::new();
    NODES.get_or_init(|| [1, 2, 3, 4, 5].map(|n| (key(n), key(n).id())))
}

pub(super) fn node(n: u8) -> NodeId {
    nodes()[usize::from(n) % NODES].1
}

pub(super) fn sign<T: Message>(n: u8, body: T) -> Option<Verified<T>> {
    nodes()[usize::from(n) % NODES].0.sign(&NetworkId::default(), body).ok()
}

/// An ad of node `n` for what `models` are.
pub(super) fn ad(n: u8, sequence: u64, models: Vec<ModelAd>, issued: UnixMillis) -> Option<Verified<CapabilityAd>> {
    let expires = issued.after(limits::AD_TTL_MS);
    sign(
        n,
        CapabilityAd {
            sequence,
            issued,
            expires,
            tags: Vec::new(),
            models,
            slots: 2,
            chat: Vec::new(),
            mesh: Vec::new(),
            evm: Vec::new(),
        },
    )
}

/// A bid that was made, with what an accept of it needs.
struct Bid {
    buyer: u8,
    offer: Hash,
    body: Verified<JobBid>,
}

struct World {
    seller: Seller,
    slots: usize,
    now: UnixMillis,
    bids: Vec<Bid>,
    ad: Option<Hash>,
    ads: u64,
    /// Jobs under way.
    jobs: BTreeSet<JobId>,
    /// Accepts that were honoured.
    used: BTreeSet<Hash>,
    offers: BTreeMap<u8, u64>,
}

pub(super) fn run(data: &[u8]) {
    let mut ops = Ops::new(data);
    let slots = 1 + ops.below(4);
    let mut seller = Seller::new(node(ME), slots.into());
    seller.set_catalogue(vec![model("tiny", 1_000_000, 1_000_000)]);
    // Some buyers are no strangers: a swarm of strangers stops at half of the slots.
    (1..=ops.below(4)).for_each(|buyer| seller.mark_known(node(buyer)));
    let mut world = World {
        seller,
        slots: slots.into(),
        now: T0,
        bids: Vec::new(),
        ad: None,
        ads: 0,
        jobs: BTreeSet::new(),
        used: BTreeSet::new(),
        offers: BTreeMap::new(),
    };
    while let Some(op) = ops.next() {
        world.step(op, &mut ops);
        world.check();
    }
}

impl World {
    fn step(&mut self, op: u8, ops: &mut Ops<'_>) {
        match op % 14 {
            0..=2 => self.offer(ops),
            3 | 4 => self.claim(ops),
            5 => self.stand(ops),
            6 => self.seller.settle(&JobId([ops.below(8); 16])),
            7 => self.finish(ops),
            8 => self.now = self.now.after(50 * u64::from(ops.byte())),
            9 => _ = self.seller.handle(Input::Wake, self.now),
            10 => self.rival(ops),
            11 => self.own_ad(),
            12 => match ops.below(4) {
                0 => self.seller.set_draining(ops.below(2) == 1),
                1 => self.seller.set_store_full(ops.below(2) == 1),
                2 => self.seller.set_catalogue(Vec::new()),
                _ => self.seller.set_catalogue(vec![model("tiny", ops.number(), ops.number())]),
            },
            _ => self.hear_accept(ops),
        }
    }

    fn body(&self, ops: &mut Ops<'_>) -> JobOffer {
        let name = ["tiny", "other", "tiny:latest", "TINY"][usize::from(ops.below(4))];
        JobOffer {
            id: OfferId([ops.byte(); 16]),
            issued: self.now,
            expires: self.now.after(limits::OFFER_TTL_MS),
            deadline: self.now.after(120_000),
            model: name.into(),
            input_tokens: u32::try_from(ops.number()).unwrap_or(u32::MAX),
            output_tokens: u32::try_from(ops.number()).unwrap_or(u32::MAX),
            budget: MicroUsd(1_000_000),
            ..offer_body()
        }
    }

    fn offer(&mut self, ops: &mut Ops<'_>) {
        let buyer = ops.below(5);
        let Some(offer) = sign(buyer, self.body(ops)) else { return };
        *self.offers.entry(buyer).or_default() += 1;
        for output in self.seller.handle(Input::Offer(offer.clone()), self.now) {
            if let Output::Bid { buyer: to, body } = output {
                assert_eq!((to, body.offer), (node(buyer), offer.digest()));
                let Some(body) = sign(ME, body) else { continue };
                self.seller.bid_signed(offer.digest(), body.digest());
                self.bids.push(Bid { buyer, offer: offer.digest(), body });
            }
        }
    }

    fn accept(&self, ops: &mut Ops<'_>, offer: Hash, bid: Hash, agreed: infernet_wire::money::Price) -> JobAccept {
        let (change, job) = (ops.below(12), JobId([ops.below(8); 16]));
        JobAccept {
            offer: if change == 1 { Hash([7; 32]) } else { offer },
            bid: if change == 2 { Hash([7; 32]) } else { bid },
            winner: node(if change == 3 { 1 } else { ME }),
            model: if change == 4 { "other" } else { "tiny" }.into(),
            price: if change == 5 { price(1, 1) } else { agreed },
            job,
            attempt: 1,
            runners_up: if change == 6 { vec![node(ME)] } else { Vec::new() },
            bids: Hash([0; 32]),
            score: ops.number(),
            issued: self.now,
            expires: self.now.after(limits::ACCEPT_TTL_MS),
            rate: None,
        }
    }

    fn claim(&mut self, ops: &mut Ops<'_>) {
        let Some(at) = usize::from(ops.byte()).checked_rem(self.bids.len()) else { return };
        let bid = &self.bids[at];
        let (signer, from) = if ops.below(8) == 0 { (ops.below(5), ops.below(5)) } else { (bid.buyer, bid.buyer) };
        let (buyer, offer) = (bid.buyer, bid.offer);
        let body = self.accept(ops, offer, bid.body.digest(), bid.body.price);
        let Some(accept) = sign(signer, body) else { return };
        if let Ok(claim) = self.seller.claim(&accept, node(from), self.now) {
            assert_eq!((signer, from), (buyer, buyer), "a hold went to another buyer");
            assert!(self.used.insert(offer), "a hold was used twice");
            self.begun(claim.job);
        }
    }

    fn stand(&mut self, ops: &mut Ops<'_>) {
        let (Some(ad), buyer) = (self.ad, ops.below(5)) else { return };
        let Ok(offer) = StandingOffer::new(self.body(ops)) else { return };
        let body = self.accept(ops, offer.digest(), ad, price(1_000_000, 1_000_000));
        let Some(accept) = sign(buyer, body) else { return };
        let Ok(standing) = StandingAccept::read(accept, offer.payload(), self.now) else { return };
        if let Ok(claim) = self.seller.claim_standing(standing, node(buyer), self.now) {
            assert!(self.used.insert(offer.digest()), "an accept was used twice");
            self.begun(claim.job);
        }
    }

    fn begun(&mut self, job: JobId) {
        assert!(self.jobs.insert(job), "a job runs twice");
    }

    fn finish(&mut self, ops: &mut Ops<'_>) {
        let job = JobId([ops.below(8); 16]);
        self.seller.finish(&job, ops.below(2) == 1);
        self.jobs.remove(&job);
    }

    fn rival(&mut self, ops: &mut Ops<'_>) {
        let (n, sequence) = (1 + ops.below(4), 1 + u64::from(ops.byte()));
        if let Some(ad) = ad(n, sequence, vec![model("tiny", ops.byte().into(), ops.byte().into())], self.now) {
            self.seller.handle(Input::Ad(ad), self.now);
        }
    }

    fn own_ad(&mut self) {
        self.ads += 1;
        let Some(ad) = ad(ME, self.ads, vec![model("tiny", 1_000_000, 1_000_000)], self.now) else { return };
        self.ad = Some(ad.digest());
        self.seller.handle(Input::Ad(ad), self.now);
    }

    fn hear_accept(&mut self, ops: &mut Ops<'_>) {
        let offer = usize::from(ops.byte()).checked_rem(self.bids.len()).map_or(Hash([9; 32]), |at| self.bids[at].offer);
        let body = self.accept(ops, offer, Hash([8; 32]), price(1, 1));
        if let Some(accept) = sign(ops.below(5), body) {
            self.seller.handle(Input::Accept(accept), self.now);
        }
    }

    fn check(&self) {
        let (admission, tally) = (self.seller.admission(), self.seller.tally());
        assert!(admission.running() + admission.held() <= self.slots, "slots are oversold");
        assert_eq!(admission.running() + admission.settling(), self.jobs.len(), "a job was lost, or came from nowhere");
        assert_eq!(tally.offers, tally.bids + sum(&tally.no_bids) + sum(&tally.ignored), "an offer without an outcome");
        assert_eq!(tally.claims + tally.standing - tally.finished, self.jobs.len() as u64);
        assert!(self.seller.outcomes().iter().count() <= 64);
        assert!(self.seller.wanted().len() <= 64);
    }
}

fn sum(counts: &BTreeMap<&'static str, u64>) -> u64 {
    counts.values().sum()
}
