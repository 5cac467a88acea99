//! A buyer's decider: ads, auctions, answers true and false, observations, and a clock that goes on.

use super::{
    Ops,
    worker::{ad, node, sign},
};
use crate::market::{
    auction::Closed,
    buyer::{Buyer, Input, MAX_OPEN_AUCTIONS, Observation, Output, Wishes},
    fixture::{T0, model, offer_body, price},
    quote::price_job,
    rank::rank,
};
use infernet_wire::{
    bid::{Answer, JobBid, NoBid, NoBidReason},
    envelope::Verified,
    id::{Hash, OfferId},
    limits,
    money::MicroUsd,
    offer::{JobOffer, SelectionRule},
    time::UnixMillis,
};
use std::collections::BTreeMap;

struct World {
    buyer: Buyer,
    now: UnixMillis,
    /// By digest; those that are open or were given up.
    offers: BTreeMap<Hash, Verified<JobOffer>>,
    order: Vec<Hash>,
    ads: u64,
}

pub(super) fn run(data: &[u8]) {
    let mut ops = Ops::new(data);
    let mut world = World { buyer: Buyer::new(8), now: T0, offers: BTreeMap::new(), order: Vec::new(), ads: 0 };
    while let Some(op) = ops.next() {
        world.step(op, &mut ops);
        assert!(world.buyer.open_auctions() <= MAX_OPEN_AUCTIONS);
        assert!(world.buyer.registry().len() <= 8);
    }
    world.now = world.now.after(limits::MAX_BID_WINDOW_MS);
    world.tell(Input::Wake);
    assert_eq!(world.buyer.open_auctions(), 0, "no auction outlasts its window");
}

impl World {
    fn step(&mut self, op: u8, ops: &mut Ops<'_>) {
        match op % 10 {
            0 | 1 => self.open(ops),
            2..=4 => self.answer(ops),
            5 => self.now = self.now.after(u64::from(ops.byte()) * if ops.below(4) == 0 { 1_000 } else { 4 }),
            6 => self.tell(Input::Wake),
            7 => self.ad(ops),
            8 => self.observe(ops),
            _ => match self.pick(ops) {
                Some(offer) if ops.below(4) == 0 => self.tell(Input::Abandon(offer)),
                Some(offer) => self.stand(offer, ops),
                None => {}
            },
        }
    }

    fn pick(&self, ops: &mut Ops<'_>) -> Option<Hash> {
        let at = usize::from(ops.byte()).checked_rem(self.order.len())?;
        self.order.get(at).copied()
    }

    fn open(&mut self, ops: &mut Ops<'_>) {
        let body = JobOffer {
            id: OfferId([ops.byte(); 16]),
            issued: self.now,
            expires: self.now.after(limits::OFFER_TTL_MS),
            deadline: self.now.after(120_000),
            model: if ops.below(4) == 0 { "other" } else { "tiny" }.into(),
            window_ms: 1 + u16::from(ops.byte()) * 4,
            rule: SelectionRule(ops.below(4)),
            budget: MicroUsd(ops.number()),
            ceiling: price(ops.number(), ops.number()),
            ..offer_body()
        };
        let Some(offer) = sign(0, body) else { return };
        if self.offers.insert(offer.digest(), offer.clone()).is_none() {
            self.order.push(offer.digest());
        }
        self.tell(Input::Open(offer, Default::default()));
    }

    fn answer(&mut self, ops: &mut Ops<'_>) {
        let Some(digest) = self.pick(ops) else { return };
        let (worker, kind) = (1 + ops.below(4), ops.below(8));
        let offer = if kind == 7 { Hash([7; 32]) } else { digest };
        let answer = match kind {
            0 => {
                let body = NoBid { offer, issued: self.now, reason: NoBidReason(ops.byte().into()) };
                sign(worker, body).map(Answer::NoBid)
            }
            _ => {
                let body = JobBid {
                    offer,
                    issued: self.now,
                    hold_until: self.now.after(10 * u64::from(ops.byte())),
                    model: if kind == 1 { "other" } else { "tiny" }.into(),
                    price: price(ops.number(), ops.number()),
                    queue_ms: ops.byte().into(),
                    ttft_ms: ops.byte().into(),
                    tokens_per_second: ops.byte().into(),
                    chat: Vec::new(),
                };
                sign(worker, body).map(Answer::Bid)
            }
        };
        if let Some(answer) = answer {
            self.tell(Input::Answer(answer));
        }
    }

    fn ad(&mut self, ops: &mut Ops<'_>) {
        self.ads += 1;
        let name = if ops.below(4) == 0 { "other" } else { "tiny" };
        let models = vec![model(name, ops.number(), ops.number())];
        if let Some(ad) = ad(1 + ops.below(4), self.ads, models, self.now) {
            self.tell(Input::Ad(ad));
        }
    }

    fn observe(&mut self, ops: &mut Ops<'_>) {
        let worker = node(1 + ops.below(4));
        let number = |ops: &mut Ops<'_>| u32::try_from(ops.number()).unwrap_or(u32::MAX);
        let seen = match ops.below(4) {
            0 => Observation::Rtt(number(ops)),
            1 => Observation::Completed { ttft_ms: number(ops), tps: number(ops) },
            2 => Observation::Failed,
            _ => Observation::Settled,
        };
        self.buyer.observe(worker, seen);
    }

    fn stand(&mut self, offer: Hash, ops: &mut Ops<'_>) {
        let loads = u32::from(ops.below(3));
        if let Some(offer) = self.offers.get(&offer) {
            let choice = self.buyer.standing(offer, &Wishes::default(), &[], |_| loads, self.now);
            assert!(choice.is_err() || !self.buyer.registry().is_empty());
        }
    }

    fn tell(&mut self, input: Input) {
        for output in self.buyer.handle(input, self.now) {
            match output {
                Output::Closed { offer, outcome } => self.closed(offer, outcome),
                Output::Wake { at } => assert!(at > self.now, "a wake that is over already"),
                Output::Busy { .. } | Output::Refused { .. } => {}
            }
        }
    }

    /// Only what was opened closes, once; and who wins can be computed again from what is told.
    fn closed(&mut self, digest: Hash, outcome: Closed) {
        let offer = self.offers.get(&digest).expect("nobody opened it");
        let Closed::Won(won) = outcome else { return };
        assert!(won.elapsed_ms <= self.now.since(T0));
        let bids: Vec<_> = won.bids.values().cloned().collect();
        assert_eq!(rank(&won.offer, &bids, &won.facts), won.ranking);
        let best = won.ranking.first().expect("a winner");
        let price = won.bids.get(&best.worker).expect("its bid").price;
        assert!(price_job(offer, price).is_ok(), "above the ceiling or over the budget");
    }
}
