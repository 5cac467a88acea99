//! Gossip: what one node says to all, hop by hop over the mesh.
//!
//! Each node that hears something new asks the node's own rules ([`infernet_node::net::rules`]), acts on it if they allow, and
//! passes it on to its other neighbours. What it has heard already it drops, as gossipsub's cache does. Messages are typed and
//! carry a sender's tag that can't be forged instead of a signature ([`infernet_wire::envelope::SimulatedKey`]); a message that
//! pretends to be somebody's is marked as forged, and fails where its signature would be checked. Checking takes a node's time,
//! and what comes meanwhile waits.

use super::{Who, World, event::Event, plant::Plant};
use crate::sim::check::Invariant;
use infernet_node::{
    market::{buyer::Input as BuyerInput, seller::Input as SellerInput},
    net::rules::Refused,
};
use infernet_wire::{
    accept::JobAccept,
    capability::CapabilityAd,
    envelope::{Kind, Refusal, Verified},
    hash,
    id::{Hash, NodeId},
    offer::JobOffer,
    receipt::SignedReceipt,
    time::UnixMillis,
};
use std::collections::BTreeSet;

/// What a message costs that is refused before its signature is looked at, in microseconds: to read and decode it.
const CHEAP_US: u64 = 10;
/// What a message costs whose signature is checked: twice BIP-340, as `wire` measures it on one core, and gossipsub's own.
const DEAR_US: u64 = 250;
/// Invalid messages after which a neighbour is dropped, as `net::score` has it.
const FAULTS_FORGIVEN: u32 = 9;

/// What is said to all.
#[derive(Debug, Clone)]
pub enum Said {
    /// A worker's ad.
    Ad(Verified<CapabilityAd>),
    /// An offer.
    Offer(Verified<JobOffer>),
    /// Who won.
    Accept(Verified<JobAccept>),
    /// A receipt.
    Receipt(Box<SignedReceipt>),
}

impl Said {
    /// What kind of message it is.
    pub fn kind(&self) -> Kind {
        match self {
            Said::Ad(_) => Kind::CapabilityAd,
            Said::Offer(_) => Kind::JobOffer,
            Said::Accept(_) => Kind::JobAccept,
            Said::Receipt(_) => Kind::JobReceipt,
        }
    }

    /// Its name.
    pub fn label(&self) -> &'static str {
        match self {
            Said::Ad(_) => "ad",
            Said::Offer(_) => "offer",
            Said::Accept(_) => "accept",
            Said::Receipt(_) => "receipt",
        }
    }

    fn digest(&self) -> Hash {
        match self {
            Said::Ad(ad) => ad.digest(),
            Said::Offer(offer) => offer.digest(),
            Said::Accept(accept) => accept.digest(),
            Said::Receipt(receipt) => {
                let countersign = receipt.countersign().map(Verified::digest);
                let countersign = countersign.as_ref().map(AsRef::as_ref).unwrap_or_default();
                hash::tagged("infernet/receipt-seen/1", &[receipt.receipt().digest().as_ref(), countersign])
            }
        }
    }

    fn issued(&self) -> UnixMillis {
        match self {
            Said::Ad(ad) => ad.issued,
            Said::Offer(offer) => offer.issued,
            Said::Accept(accept) => accept.issued,
            Said::Receipt(receipt) => receipt.receipt().finished,
        }
    }

    fn check_age(&self, now: UnixMillis) -> Result<(), Refusal> {
        match self {
            Said::Ad(ad) => ad.check_age(now),
            Said::Offer(offer) => offer.check_age(now),
            Said::Accept(accept) => accept.check_age(now),
            Said::Receipt(receipt) => receipt.receipt().check_age(now),
        }
    }

    /// The bytes that everybody can read.
    pub fn raw(&self) -> Vec<u8> {
        match self {
            Said::Ad(ad) => ad.raw().to_vec(),
            Said::Offer(offer) => offer.raw().to_vec(),
            Said::Accept(accept) => accept.raw().to_vec(),
            Said::Receipt(receipt) => receipt.encode(),
        }
    }
}

/// A message on its way through the mesh.
#[derive(Debug)]
pub struct Rumour {
    /// What.
    pub said: Said,
    /// Who says to have said it.
    author: NodeId,
    digest: Hash,
    issued: UnixMillis,
    /// Whether its signature is somebody else's.
    forged: bool,
    heard: Vec<u64>,
    /// Who has acted on it in its present life, kept where messages are repeated.
    taken: BTreeSet<Who>,
    /// Copies under way.
    copies: u32,
    /// The message that this one repeats.
    pub replay_of: Option<u32>,
}

impl Rumour {
    fn has_heard(&self, who: Who) -> bool {
        self.heard.get(who as usize / 64).is_some_and(|word| word >> (who % 64) & 1 == 1)
    }

    fn hear(&mut self, who: Who) {
        if let Some(word) = self.heard.get_mut(who as usize / 64) {
            *word |= 1 << (who % 64);
        }
    }

    /// Who says to have said it.
    pub fn author(&self) -> NodeId {
        self.author
    }

    /// How many have heard it.
    pub fn reach(&self) -> u32 {
        self.heard.iter().map(|word| word.count_ones()).sum()
    }
}

/// All messages under way, and those that are kept to be repeated.
#[derive(Debug, Default)]
pub struct Rumours {
    slots: Vec<Option<Rumour>>,
    free: Vec<u32>,
    /// Whether messages are kept when they have arrived.
    pub keeps: bool,
    /// Those that are kept, the oldest first.
    pub kept: Vec<u32>,
}

impl Rumours {
    /// None yet; `keeps` tells whether they are kept when they have arrived.
    pub fn new(keeps: bool) -> Self {
        Rumours { keeps, ..Rumours::default() }
    }

    fn put(&mut self, rumour: Rumour) -> u32 {
        let no = self.free.pop().unwrap_or(self.slots.len() as u32);
        if no as usize == self.slots.len() {
            self.slots.push(None);
        }
        if let Some(slot) = self.slots.get_mut(no as usize) {
            *slot = Some(rumour);
        }
        no
    }

    /// The message of this number.
    pub fn get(&self, no: u32) -> Option<&Rumour> {
        self.slots.get(no as usize).and_then(Option::as_ref)
    }

    fn get_mut(&mut self, no: u32) -> Option<&mut Rumour> {
        self.slots.get_mut(no as usize).and_then(Option::as_mut)
    }

    /// One copy has arrived.
    pub(super) fn arrived(&mut self, no: u32) {
        let keeps = self.keeps;
        let Some(rumour) = self.get_mut(no) else { return };
        rumour.copies -= 1;
        if rumour.copies == 0 && !keeps {
            if let Some(slot) = self.slots.get_mut(no as usize) {
                *slot = None;
            }
            self.free.push(no);
        }
    }

    /// `who` begins anew. It may hear every live ad again, and what clocks ahead of its own have signed: that it answers an
    /// offer twice, once in each life, costs a hold; that no job and no receipt follows is checked where those are made.
    pub fn forget(&mut self, who: Who) {
        self.slots.iter_mut().flatten().for_each(|rumour| _ = rumour.taken.remove(&who));
    }
}

impl World {
    /// `who` says something to all. Whether anybody was there to hear it.
    pub fn publish(&mut self, who: Who, said: Said) -> bool {
        self.look_for_leaks(&said.raw(), "gossip");
        let (digest, issued, kind) = (said.digest(), said.issued(), said.kind());
        let now = self.local(who);
        let member = self.member_mut(who);
        let author = member.id;
        let allowed = member
            .rules
            .before_signature(kind, &digest, author, true, now)
            .and_then(|()| member.rules.after_signature(kind, digest, issued, author, true, now));
        if let Err(refused) = allowed {
            self.stats.count("own_refused", refused.label());
            return false;
        }
        match &said {
            Said::Ad(ad) => _ = member.rules.take_newer_ad(author, ad.sequence, now),
            Said::Offer(offer) => member.routes.learn_own(offer.digest(), now),
            Said::Accept(_) | Said::Receipt(_) => {}
        }
        self.spread(who, said, author, false, None) > 0
    }

    /// Puts a message into the mesh at `who`, whatever its rules say. Returns to how many it was sent.
    pub fn spread(&mut self, who: Who, said: Said, author: NodeId, forged: bool, replay_of: Option<u32>) -> usize {
        let (digest, issued) = (said.digest(), said.issued());
        let heard = vec![0; self.members.len().div_ceil(64)];
        let taken = BTreeSet::from([who]);
        let mut rumour = Rumour { said, author, digest, issued, forged, heard, taken, copies: 1, replay_of };
        rumour.hear(who);
        let no = self.rumours.put(rumour);
        if self.rumours.keeps && replay_of.is_none() {
            self.rumours.kept.push(no);
        }
        let sent = self.pass_on(who, who, no);
        self.rumours.arrived(no);
        sent
    }

    /// Sends a message to all neighbours but the one that brought it.
    fn pass_on(&mut self, who: Who, from: Who, no: u32) -> usize {
        if from != who && self.swallows(who) {
            return 0;
        }
        let (mesh, dice, wheel) = (&self.mesh, &mut self.way_dice, &mut self.wheel);
        let mut sent = 0;
        for (to, far) in mesh.links(who).iter().copied().filter(|(to, _)| *to != from) {
            self.stats.gossip_sent += 1;
            let Some(takes) = mesh.gossip_ms(far, dice).filter(|_| mesh.has_way(who, to)) else { continue };
            wheel.put(self.ms + takes, Event::Rumour { to, from: who, rumour: no });
            sent += 1;
        }
        if let Some(rumour) = self.rumours.get_mut(no) {
            rumour.copies += sent as u32;
            *self.stats.sent_by_kind.entry(rumour.said.label()).or_default() += sent as u64;
        }
        sent
    }

    /// A copy has arrived.
    pub(super) fn on_rumour(&mut self, to: Who, from: Who, no: u32) {
        let known = self.rumours.get(no).is_none_or(|rumour| rumour.has_heard(to));
        if !known && self.member(to).is_up() && self.mesh.is_connected(to, from) {
            if let Some(rumour) = self.rumours.get_mut(no) {
                rumour.hear(to);
            }
            self.on_news(to, from, no);
            return;
        }
        self.stats.duplicates += u64::from(known);
        self.rumours.arrived(no);
    }

    /// Something new: what is cheap is looked at at once, the rest when the node has time.
    fn on_news(&mut self, to: Who, from: Who, no: u32) {
        let Some(rumour) = self.rumours.get(no) else { return };
        let (now, from_id) = (self.local(to), self.member(from).id);
        let (kind, digest, author) = (rumour.said.kind(), rumour.digest, rumour.author);
        let of_age = rumour.said.check_age(now).map_err(Refused::Wire);
        if !self.scenario.network.rules {
            return self.on_heard(to, from, no);
        }
        let rules = &mut self.member_mut(to).rules;
        let judged = rules
            .take_message(author, from_id, now)
            .and(of_age)
            .and_then(|()| rules.before_signature(kind, &digest, author, false, now));
        match judged {
            Ok(()) => {
                let ready = self.work(to, DEAR_US);
                if ready > self.ms {
                    let epoch = self.member(to).epoch;
                    return self.wheel.put(ready, Event::Checked { to, epoch, from, rumour: no });
                }
                self.on_checked(to, from, no);
            }
            Err(refused) => {
                self.work(to, CHEAP_US);
                self.refuse(to, from, no, refused);
            }
        }
    }

    /// When a node that is given this work has done it, in virtual milliseconds.
    fn work(&mut self, who: Who, us: u64) -> u64 {
        let Some(busy_until) = self.busy_until_us.get_mut(who as usize) else { return self.ms };
        *busy_until = (*busy_until).max(self.ms * 1_000) + us;
        *busy_until / 1_000
    }

    /// The signature was looked at.
    pub(super) fn on_checked(&mut self, to: Who, from: Who, no: u32) {
        let Some(rumour) = self.rumours.get(no) else { return };
        let (kind, digest, issued, author) = (rumour.said.kind(), rumour.digest, rumour.issued, rumour.author);
        let said = rumour.said.clone();
        let (forged, replay_of) = (rumour.forged, rumour.replay_of);
        let now = self.local(to);
        let rules = &mut self.member_mut(to).rules;
        let mut judged = if forged { Err(Refused::Wire(Refusal::BadSignature)) } else { Ok(()) };
        judged = judged.and_then(|()| rules.after_signature(kind, digest, issued, author, false, now));
        if let Said::Ad(ad) = &said {
            judged = judged.and_then(|()| rules.take_newer_ad(ad.signer(), ad.sequence, now));
        }
        if let Err(refused) = judged {
            return self.refuse(to, from, no, refused);
        }
        if let Some(original) = replay_of.and_then(|original| self.rumours.get(original)) {
            let had_heard = original.taken.contains(&to);
            self.checks.ensure(!had_heard, Invariant::ReplaysChangeNothing, self.ms, || {
                format!("node {to} took a {kind:?} for new that it had heard before")
            });
            self.stats.replay_effects += u64::from(had_heard);
        }
        if self.rumours.keeps
            && let Some(rumour) = self.rumours.get_mut(replay_of.unwrap_or(no))
        {
            rumour.taken.insert(to);
        }
        self.pass_on(to, from, no);
        self.rumours.arrived(no);
        self.on_said(to, from, said);
    }

    /// Where nobody misbehaves, everything that is new is good.
    fn on_heard(&mut self, to: Who, from: Who, no: u32) {
        let Some(said) = self.rumours.get(no).map(|rumour| rumour.said.clone()) else { return };
        self.pass_on(to, from, no);
        self.rumours.arrived(no);
        self.on_said(to, from, said);
    }

    fn refuse(&mut self, to: Who, from: Who, no: u32, refused: Refused) {
        self.stats.count("gossip_refused", refused.label());
        if let Some(rumour) = self.rumours.get(no) {
            self.stats.replays_refused += u64::from(rumour.replay_of.is_some());
            if let (Some(Plant::AnswersReplays), Said::Offer(offer), "seen") =
                (self.scenario.plant, &rumour.said, refused.label())
            {
                let offer = offer.clone();
                self.bid_again(to, &offer);
            }
        }
        let author = self.rumours.get(no).map(Rumour::author);
        self.rumours.arrived(no);
        let (now, from_id) = (self.local(to), self.member(from).id);
        let floods = author.is_some_and(|author| self.member_mut(to).rules.is_flood(refused, author, from_id, now));
        if floods || refused.is_fault() {
            let blamed = self.member_mut(to).blamed.entry(from).or_default();
            *blamed += 1;
            if *blamed > FAULTS_FORGIVEN && self.mesh.is_connected(to, from) {
                self.mesh.disconnect(to, from);
                self.note(to, "drops a neighbour", &[("neighbour", from.into())]);
                self.look_for_neighbours(to);
            }
        }
    }

    /// A message that is good: what the node does with it.
    fn on_said(&mut self, to: Who, from: Who, said: Said) {
        self.stats.delivered += 1;
        match said {
            Said::Ad(ad) => {
                self.tell_seller(to, SellerInput::Ad(ad.clone()));
                self.tell_buyer(to, BuyerInput::Ad(ad));
            }
            Said::Offer(offer) => {
                let (now, from_who, from) = (self.local(to), from, self.member(from).id);
                self.member_mut(to).routes.learn(offer.digest(), offer.signer(), from, now);
                self.answer_with_spam(to, from_who, &offer);
                self.tell_seller(to, SellerInput::Offer(offer));
            }
            Said::Accept(accept) => self.tell_seller(to, SellerInput::Accept(accept)),
            // Its own were counted when the jobs ended.
            Said::Receipt(receipt) if receipt.receipt().buyer == self.member(to).id => {}
            Said::Receipt(receipt) => self.tell_buyer(to, BuyerInput::Receipt(receipt)),
        }
    }
}
