//! A worker's node: drives `market::seller` and `chat::session` as `seller.rs` and `chat/server.rs` do, on virtual time. Ads and
//! bids are here, streams in `serving`.
//!
//! The engine is a metronome: it says its first token after its time to first token, and one more each time its speed allows.

mod serving;

pub use serving::Serving;

use super::{
    StreamNo, Who, World,
    check::Invariant,
    event::{Event, Timer},
    fault::EngineTrouble,
    gossip::Said,
};
use infernet_node::{
    market::{
        advert::Advert,
        registry::MAX_ADS,
        seller::{Ignored, Input, Output, Seller},
    },
    settlement::tab::PayeeTab,
    store::Store,
};
use infernet_wire::{
    bid::{Answer, JobBid, NoBid},
    capability::{CapabilityAd, ModelAd},
    envelope::Verified,
    id::{Hash, NodeId},
    limits,
    offer::JobOffer,
    time::UnixMillis,
};
use std::collections::BTreeMap;

/// What a worker can do, which no crash changes.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its models at its prices.
    pub models: Vec<ModelAd>,
    /// Jobs at once.
    pub slots: u16,
    /// From asking the engine to its first token.
    pub ttft_ms: u64,
    /// Of one stream.
    pub tokens_per_second: u64,
    /// Whether it keeps to the protocol; attackers don't.
    pub conduct: Conduct,
}

/// How a worker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conduct {
    /// As it should.
    #[default]
    Honest,
    /// It advertises and never answers an offer.
    Silent,
    /// It bids below its ad and claims a speed that it has not; then its engine is slow.
    Boastful,
    /// It bids a tenth of what it will charge: its receipts name more tokens than it delivered.
    Inflating,
    /// It bids when the window is about to end, a little below its ad.
    Sniping,
}

/// See the module.
pub struct Working {
    /// What it can do.
    pub profile: Profile,
    /// The decider.
    pub market: Seller,
    /// When it advertises what.
    pub advert: Advert,
    /// Its streams.
    pub serving: BTreeMap<StreamNo, Serving>,
    /// What buyers owe it.
    pub payees: BTreeMap<NodeId, PayeeTab>,
    wake: Option<UnixMillis>,
    /// Bids of this life: until when the slot is held, whether it was used, and for whom. To check claims by.
    bids: BTreeMap<Hash, (UnixMillis, bool, NodeId)>,
    /// Ads of this life, and when they expire. To check claims by.
    ads: BTreeMap<Hash, UnixMillis>,
    /// Accepts of ads that were used. To check claims by.
    taken: std::collections::BTreeSet<Hash>,
    /// What is wrong with its engine now.
    pub trouble: Option<EngineTrouble>,
}

impl Working {
    /// A worker that starts at `now`, by its clock.
    pub fn new(me: NodeId, profile: Profile, now: UnixMillis) -> Self {
        let mut market = Seller::new(me, profile.slots);
        market.set_started(now);
        Working {
            profile,
            market,
            advert: Advert::after_restart(now),
            serving: BTreeMap::new(),
            payees: BTreeMap::new(),
            wake: None,
            bids: BTreeMap::new(),
            ads: BTreeMap::new(),
            taken: Default::default(),
            trouble: None,
        }
    }
}

impl Working {
    /// Whether it holds a slot for `buyer`.
    pub fn holds_for(&self, buyer: Option<NodeId>) -> bool {
        let admission = self.market.admission();
        let holds = |(offer, (_, used, of)): (&Hash, &(UnixMillis, bool, NodeId))| {
            !used && Some(*of) == buyer && admission.holder(offer).is_some()
        };
        self.bids.iter().any(holds)
    }
}

impl World {
    fn working(&mut self, who: Who) -> Option<&mut Working> {
        self.member_mut(who).worker.as_deref_mut()
    }

    /// The engines are found: it advertises them.
    pub(super) fn start_worker(&mut self, who: Who) {
        let now = self.local(who);
        let Some(working) = self.working(who) else { return };
        let models = working.profile.models.clone();
        working.advert.set_models(models.clone(), now);
        working.market.set_catalogue(models);
        self.set_advertise(who);
    }

    fn set_advertise(&mut self, who: Who) {
        let Some(due) = self.working(who).map(|working| working.advert.due()) else { return };
        let at = self.member(who).virtual_ms(due);
        self.set(who, at, Timer::Advertise);
    }

    /// An ad may be due: this one, or one that was put forward meanwhile.
    pub(super) fn on_advertise(&mut self, who: Who) {
        let now = self.local(who);
        let spread = self.dice.below(256) as u8;
        let Some(working) = self.working(who) else { return };
        if working.advert.due() > now {
            return;
        }
        working.advert.refresh(spread, now);
        self.set_advertise(who);
        let Some(ad) = self.signed_ad(who, now) else { return };
        let Some(working) = self.working(who) else { return };
        working.advert.published(now);
        working.ads.insert(ad.digest(), ad.expires);
        self.tell_seller(who, Input::Ad(ad.clone()));
        self.note(who, "advertises", &[("sequence", ad.sequence)]);
        self.publish(who, Said::Ad(ad));
    }

    fn signed_ad(&mut self, who: Who, now: UnixMillis) -> Option<Verified<CapabilityAd>> {
        let sequence = self.keep(who, |store| store.next_ad_sequence(now))?;
        let working = self.working(who)?;
        let (mut models, slots) = (working.advert.models().to_vec(), working.profile.slots);
        if working.profile.conduct == Conduct::Boastful {
            models.iter_mut().for_each(|model| model.price.output.0 /= 2);
        }
        let expires = now.after(limits::AD_TTL_MS);
        let ad = CapabilityAd {
            sequence,
            issued: now,
            expires,
            tags: vec![],
            models,
            slots,
            chat: vec![],
            mesh: Vec::new(),
            evm: Vec::new(),
            solana: None,
        };
        Some(self.sign(who, ad))
    }

    /// Tells a worker's decider, and carries out what it says.
    pub(super) fn tell_seller(&mut self, who: Who, input: Input) {
        let now = self.local(who);
        let is_offer = matches!(input, Input::Offer(_));
        let full = is_offer && self.member(who).store.as_ref().is_none_or(|store| store.accepts_work().is_err());
        let Some(working) = self.working(who) else { return };
        if is_offer {
            working.market.set_store_full(full);
        }
        let outputs = working.market.handle(input, now);
        let known = working.market.registry().len();
        let ms = self.ms;
        self.checks.ensure(known <= MAX_ADS, Invariant::Bounded, ms, || format!("worker {who} keeps {known} ads"));
        for output in outputs {
            self.on_seller_output(who, output);
        }
        self.check_slots(who);
    }

    fn on_seller_output(&mut self, who: Who, output: Output) {
        let honest = self.working(who).is_some_and(|working| working.profile.conduct == Conduct::Honest);
        match &output {
            Output::Bid { body: JobBid { offer, .. }, .. } | Output::NoBid { body: NoBid { offer, .. }, .. } if honest => {
                self.stats.reached.insert(*offer);
            }
            _ => {}
        }
        if let Output::Bid { buyer, .. } | Output::NoBid { buyer, .. } = &output
            && self.working(who).is_some_and(|working| working.market.admission().is_known(buyer))
        {
            let what = if matches!(output, Output::Bid { .. }) { "bid" } else { "refused" };
            self.stats.count("known_buyer", what);
        }
        match output {
            Output::Bid { body, .. } => self.on_bid(who, body),
            Output::NoBid { body, .. } => {
                self.note(who, "refuses", &[("reason", body.reason.0.into())]);
                self.stats.count("no_bid", body.reason.label());
                let answer = Answer::NoBid(self.sign(who, body));
                self.send_answer(who, answer);
            }
            Output::Lost { winning_score, our_score, .. } => {
                self.note(who, "lost", &[("winning_score", winning_score), ("our_score", our_score)]);
            }
            Output::Wake { at } => {
                let virtual_ms = self.member(who).virtual_ms(at);
                if let Some(working) = self.working(who) {
                    working.wake = Some(at);
                }
                self.set(who, virtual_ms, Timer::WorkerWake);
            }
            Output::Ignored(reason) => {
                self.stats.count("ignored", reason.label());
                if reason == Ignored::NotSelected {
                    self.stats.not_selected += 1;
                }
            }
        }
    }

    /// The decider's wake, unless it has named another since.
    pub(super) fn on_worker_wake(&mut self, who: Who) {
        let now = self.local(who);
        if let Some(working) = self.working(who)
            && working.wake.is_some_and(|at| at <= now)
        {
            working.wake = None;
            self.tell_seller(who, Input::Wake);
        }
    }

    fn on_bid(&mut self, who: Who, body: JobBid) {
        let offer = body.offer;
        let conduct = self.working(who).map(|working| working.profile.conduct).unwrap_or_default();
        self.stats.bids += 1;
        let (body, delay_ms) = self.disguised(conduct, body);
        let (until, price) = (body.hold_until, body.price.output.0);
        let bid = self.sign(who, body);
        let Some(working) = self.working(who) else { return };
        working.market.bid_signed(offer, bid.digest());
        let buyer = working.market.admission().holder(&offer).copied().unwrap_or(NodeId([0; 33]));
        let twice = working.bids.insert(offer, (until, false, buyer)).is_some();
        let ms = self.ms;
        self.checks.ensure(!twice, Invariant::ReplaysChangeNothing, ms, || format!("worker {who} bid twice for offer {offer}"));
        self.note(who, "bids", &[("price", price)]);
        self.send_answer_in(who, Answer::Bid(bid), delay_ms);
    }

    /// A planted bug: bids once more, for an offer that it has seen.
    pub(super) fn bid_again(&mut self, who: Who, offer: &Verified<JobOffer>) {
        let now = self.local(who);
        let Some(working) = self.working(who) else { return };
        let Some(model) = working.profile.models.iter().find(|model| model.answers_to(&offer.model)).cloned() else { return };
        if working.bids.contains_key(&offer.digest()) {
            let body = JobBid {
                offer: offer.digest(),
                issued: now,
                hold_until: now.after(u64::from(offer.window_ms) + limits::HOLD_SLACK_MS),
                model: model.id,
                price: model.price,
                queue_ms: 0,
                ttft_ms: 0,
                tokens_per_second: 0,
                chat: vec![],
            };
            self.on_bid(who, body);
        }
    }

    /// Sends an answer on its way, straight to the buyer if connected, else to the neighbour that brought the offer.
    pub(super) fn send_answer(&mut self, who: Who, answer: Answer) {
        self.send_answer_in(who, answer, 0);
    }

    fn send_answer_in(&mut self, who: Who, answer: Answer, delay_ms: u64) {
        let conduct = self.working(who).map(|working| working.profile.conduct).unwrap_or_default();
        if conduct == Conduct::Silent {
            return;
        }
        let Some(infernet_node::net::routes::NextHop::There { buyer, via }) = self.member(who).routes.next_hop(&answer.offer())
        else {
            return;
        };
        self.forward_answer(who, buyer, via, answer, delay_ms);
    }

    /// Hands an answer to the next on its way.
    pub(super) fn forward_answer(&mut self, who: Who, buyer: NodeId, via: NodeId, answer: Answer, delay_ms: u64) {
        let is_neighbour = |id: &NodeId| self.by_id.get(id).copied().filter(|to| self.mesh.is_connected(who, *to));
        let Some(to) = is_neighbour(&buyer).or_else(|| is_neighbour(&via)) else {
            self.stats.count("answer_lost", "no_way_back");
            return;
        };
        if !self.mesh.has_way(who, to) {
            self.stats.count("answer_lost", "partition");
            return;
        }
        self.stats.answers_sent += 1;
        let at = self.ms + delay_ms + self.mesh.takes_ms(who, to, &mut self.way_dice);
        let from = self.member(who).id;
        self.wheel.put(at, Event::Answer { to, answer: Box::new((from, answer)) });
    }
}
