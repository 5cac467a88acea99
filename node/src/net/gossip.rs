//! Admission: what happens to a message before anybody acts on it. Pure: bytes and `now` in, a verdict out.
//!
//! The checks go from cheap to dear: size, the forwarder's quota, decoding, kind, network, fields and age, author, seen before?,
//! the author's quota, signature (50 µs), then it is marked as seen. gossipsub has already checked its own signature, so the
//! author is real; an author who is not the signer of what it publishes is refused, which is why a stranger can't use up
//! somebody else's quota.
//!
//! `Reject` counts against the forwarder, so it is given only for what the forwarder should have refused itself by the same
//! rules. Clocks, versions, quotas and memory differ among honest peers: that is `Ignore`. Unknown kinds and versions too.
//!
//! A replay set does not survive a restart. So whatever was made before this process started is ignored, except ads: the node
//! remembers the newest sequence of each worker from one run to the next, and only a newer ad counts.

use super::{
    board::Board,
    direct,
    event::Event,
    routes::{NextHop, Routes},
    rules::{Refused, Rules},
};
use infernet_wire::{
    accept::JobAccept,
    ad_page::AdPage,
    bid::{Answer, SealedAnswer},
    capability::CapabilityAd,
    envelope::{Envelope, Kind, Message, Refusal, Unverified, Verified},
    hash,
    id::{Hash, NodeId},
    key::NodeKey,
    limits,
    offer::JobOffer,
    receipt::{Countersign, JobReceipt, ReceiptParts, SignedReceipt},
    time::UnixMillis,
    topic::{self, NetworkId},
};

/// What gossipsub is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Good: pass it on.
    Accept,
    /// Not to be passed on, and nobody's fault.
    Ignore,
    /// Not to be passed on, and its forwarder should have known.
    Reject,
}

/// The outcome of [`Gate::admit`].
#[derive(Debug)]
pub(super) struct Admitted {
    /// For gossipsub.
    pub(super) verdict: Verdict,
    /// For the counters.
    pub(super) reason: &'static str,
    /// For the node.
    pub(super) event: Option<Event>,
    /// Whether the neighbour itself is to blame, whatever others do who had the same message. gossipsub's own `Reject` blames
    /// all of them, so it can't tell on whom a neighbour's own flood falls.
    pub(super) fault: bool,
}

/// The outcome of [`Gate::answer`].
#[derive(Debug)]
pub(super) enum AnswerAdmitted {
    /// It answers an offer of ours.
    Ours(Box<Answer>),
    /// It is to be passed on: to the buyer if connected, else to this neighbour.
    Forward { buyer: NodeId, via: NodeId },
    /// Neither: why, and whether an honest peer would not have sent it.
    Refused { reason: &'static str, fault: bool },
}

fn verdict(refused: Refused) -> Verdict {
    if refused.is_fault() { Verdict::Reject } else { Verdict::Ignore }
}

type Judged = Result<Option<Event>, Refused>;

/// Who published a message, and who brought it. Of our own, nothing is asked that only protects us from others.
#[derive(Debug, Clone, Copy)]
enum Origin {
    Us,
    Peer { author: NodeId, forwarder: NodeId },
}

impl Origin {
    fn is_ours(self) -> bool {
        matches!(self, Origin::Us)
    }
}

/// Decides about every message from outside, and remembers what that takes.
#[derive(Debug)]
pub(super) struct Gate {
    key: NodeKey,
    network: NetworkId,
    rules: Rules,
    routes: Routes,
    board: Board,
}

impl Gate {
    /// `started` is when this process began to remember what it has seen; `ad_sequences` are what earlier ones remembered.
    pub(super) fn new(key: NodeKey, network: NetworkId, started: UnixMillis, ad_sequences: Vec<(NodeId, u64)>) -> Self {
        Gate { key, network, rules: Rules::new(started, ad_sequences), routes: Routes::new(), board: Board::default() }
    }

    /// All that it remembers, in entries.
    #[cfg(test)]
    fn entries(&self) -> usize {
        self.rules.entries() + self.routes.len() + self.board.len()
    }

    /// Judges a gossip message that `author` published and `forwarder` brought.
    pub(super) fn admit(&mut self, topic: &str, bytes: &[u8], author: NodeId, forwarder: NodeId, now: UnixMillis) -> Admitted {
        match self.judge(topic, bytes, Origin::Peer { author, forwarder }, now) {
            Ok(Some(event @ Event::Answer(_))) => {
                // It has arrived: nobody else needs it.
                Admitted { verdict: Verdict::Ignore, reason: "answer_for_us", event: Some(event), fault: false }
            }
            Ok(event) => Admitted { verdict: Verdict::Accept, reason: "accepted", event, fault: false },
            Err(refused) => {
                let floods = self.rules.is_flood(refused, author, forwarder, now);
                Admitted { verdict: verdict(refused), reason: refused.label(), event: None, fault: floods }
            }
        }
    }

    /// Judges what we are about to publish by the rules of those who will get it, and remembers it, so that answers are known
    /// and an echo is not. Refused: the reason.
    pub(super) fn publish(&mut self, topic: &str, bytes: &[u8], now: UnixMillis) -> Result<(), &'static str> {
        self.judge(topic, bytes, Origin::Us, now).map(|_| ()).map_err(Refused::label)
    }

    /// Judges an answer that `peer` sent to us alone: a plain one for us, or a sealed one for us or to be passed on.
    pub(super) fn answer(&mut self, bytes: &[u8], peer: NodeId, now: UnixMillis) -> AnswerAdmitted {
        self.judge_answer(bytes, peer, now).unwrap_or_else(|refused| AnswerAdmitted::Refused {
            reason: refused.label(),
            fault: verdict(refused) == Verdict::Reject,
        })
    }

    /// The live ads that it has admitted; see [`Board::page`].
    pub(super) fn ad_page(&self, chance: u64, now: UnixMillis) -> AdPage {
        self.board.page(chance, now)
    }

    /// Judges a page of ads that we have asked for.
    pub(super) fn admit_page(&mut self, bytes: &[u8], now: UnixMillis) -> Vec<Admitted> {
        let ads = AdPage::decode(bytes).map(|page| page.ads).map_err(Refused::from);
        let judged: Vec<Judged> = match ads {
            Ok(ads) => ads.iter().map(|ad| self.paged_ad(ad, now)).collect(),
            Err(refused) => vec![Err(refused)],
        };
        let admitted = |judged: Judged| match judged {
            Ok(event) => Admitted { verdict: Verdict::Ignore, reason: "accepted", event, fault: false },
            Err(refused) => Admitted { verdict: Verdict::Ignore, reason: refused.label(), event: None, fault: false },
        };
        judged.into_iter().map(admitted).collect()
    }

    /// Neither a quota nor the replay set hears of it: its copy that is gossiped meanwhile is to be passed on.
    fn paged_ad(&mut self, bytes: &[u8], now: UnixMillis) -> Judged {
        if bytes.len() > limits::MAX_GOSSIP_BYTES {
            return Err(Refusal::TooLarge.into());
        }
        let ad = Envelope::decode(bytes)?.open::<CapabilityAd>(&self.network, now)?.verify()?;
        self.rules.take_paged_ad(ad.signer(), ad.sequence, now)?;
        self.board.take(&ad, now);
        Ok(Some(Event::Ad(ad)))
    }

    /// The newest ad sequence of each worker, the latest heard first.
    pub(super) fn ad_sequences(&self) -> Vec<(NodeId, u64)> {
        self.rules.ad_sequences()
    }

    /// The neighbour that brought `offer`.
    pub(super) fn way_back(&self, offer: &Hash) -> Option<NodeId> {
        match self.routes.next_hop(offer)? {
            NextHop::Here => None,
            NextHop::There { via, .. } => Some(via),
        }
    }

    fn judge(&mut self, topic: &str, bytes: &[u8], origin: Origin, now: UnixMillis) -> Judged {
        if bytes.len() > limits::MAX_GOSSIP_BYTES {
            return Err(Refusal::TooLarge.into());
        }
        if let Origin::Peer { author, forwarder } = origin {
            self.rules.take_message(author, forwarder, now)?;
        }
        match topic {
            topic::CAPABILITIES => self.ad(Envelope::decode(bytes)?, origin, now),
            topic::RECEIPTS => self.receipt(ReceiptParts::decode(bytes)?, origin, now),
            _ => self.job(topic, Envelope::decode(bytes)?, origin, now),
        }
    }

    fn job(&mut self, topic: &str, envelope: Envelope, origin: Origin, now: UnixMillis) -> Judged {
        if topic != topic::jobs(topic::INFERENCE) {
            return Err(Refused::Ignore("unknown_topic"));
        }
        match envelope.kind() {
            Kind::JobOffer => self.offer(envelope, origin, now),
            Kind::JobAccept => Ok(Some(Event::Accept(self.verified::<JobAccept>(envelope, origin, now)?))),
            Kind::SealedAnswer => self.sealed_answer(envelope, origin, now),
            _ => Err(Refusal::UnexpectedKind.into()),
        }
    }

    fn ad(&mut self, envelope: Envelope, origin: Origin, now: UnixMillis) -> Judged {
        let ad = self.verified::<CapabilityAd>(envelope, origin, now)?;
        self.rules.take_newer_ad(ad.signer(), ad.sequence, now)?;
        self.board.take(&ad, now);
        Ok(Some(Event::Ad(ad)))
    }

    fn offer(&mut self, envelope: Envelope, origin: Origin, now: UnixMillis) -> Judged {
        let offer = self.verified::<JobOffer>(envelope, origin, now)?;
        if offer.workload != topic::INFERENCE {
            return Err(Refused::Reject("wrong_workload"));
        }
        match origin {
            Origin::Us => self.routes.learn_own(offer.digest(), now),
            Origin::Peer { forwarder, .. } => self.routes.learn(offer.digest(), offer.signer(), forwarder, now),
        }
        Ok(Some(Event::Offer(offer)))
    }

    fn sealed_answer(&mut self, envelope: Envelope, origin: Origin, now: UnixMillis) -> Judged {
        let sealed = self.verified::<SealedAnswer>(envelope, origin, now)?;
        if sealed.to != self.key.id() {
            return Ok(None);
        }
        self.claim_ours(&sealed.offer, sealed.signer()).map_err(Refused::Ignore)?;
        // Nobody on the way could look inside, so a bad inside is nobody's fault but the worker's.
        let answer = sealed.unseal(&self.key, &self.network, now).map_err(|_| Refused::Ignore("bad_seal"))?;
        Ok(Some(Event::Answer(answer)))
    }

    fn claim_ours(&mut self, offer: &Hash, worker: NodeId) -> Result<(), &'static str> {
        match self.routes.next_hop(offer) {
            Some(NextHop::Here) => self.routes.claim(offer, worker).map(|_| ()),
            _ => Err("not_our_offer"),
        }
    }

    fn receipt(&mut self, parts: ReceiptParts, origin: Origin, now: UnixMillis) -> Judged {
        let receipt = parts.receipt.open::<JobReceipt>(&self.network, now)?;
        let countersign = parts.countersign.map(|part| part.open::<Countersign>(&self.network, now)).transpose()?;
        // With and without the countersignature are two messages: the first may come before the second.
        let digest = receipt_digest(receipt.digest(), countersign.as_ref().map(Unverified::digest));
        let author = self.author(origin);
        self.rules.before_signature(Kind::JobReceipt, &digest, author, origin.is_ours(), now)?;
        let signed = SignedReceipt::new(receipt.verify()?, countersign.map(Unverified::verify).transpose()?)?;
        let body = signed.receipt();
        if author != body.worker && author != body.buyer {
            return Err(Refused::Reject("wrong_author"));
        }
        self.rules.after_signature(Kind::JobReceipt, digest, body.issued(), author, origin.is_ours(), now)?;
        Ok(Some(Event::Receipt(signed)))
    }

    /// The checks that all messages of one envelope share.
    fn verified<T: Message>(&mut self, envelope: Envelope, origin: Origin, now: UnixMillis) -> Result<Verified<T>, Refused> {
        let signer = envelope.signer();
        let message = envelope.open::<T>(&self.network, now)?;
        let author = self.author(origin);
        if author != signer {
            return Err(Refused::Reject("wrong_author"));
        }
        self.rules.before_signature(T::KIND, &message.digest(), author, origin.is_ours(), now)?;
        let message = message.verify()?;
        self.rules.after_signature(T::KIND, message.digest(), message.issued(), author, origin.is_ours(), now)?;
        Ok(message)
    }

    fn author(&self, origin: Origin) -> NodeId {
        match origin {
            Origin::Us => self.key.id(),
            Origin::Peer { author, .. } => author,
        }
    }

    fn judge_answer(&mut self, bytes: &[u8], peer: NodeId, now: UnixMillis) -> Result<AnswerAdmitted, Refused> {
        if bytes.len() > direct::MAX_REQUEST_BYTES {
            return Err(Refusal::TooLarge.into());
        }
        self.rules.take_forwarder(peer, now)?;
        let envelope = Envelope::decode(bytes)?;
        match envelope.kind() {
            Kind::JobBid | Kind::NoBid => self.plain_answer(&envelope, bytes, peer, now),
            Kind::SealedAnswer => self.relayed_answer(envelope, now),
            _ => Err(Refusal::UnexpectedKind.into()),
        }
    }

    fn plain_answer(
        &mut self,
        envelope: &Envelope,
        bytes: &[u8],
        peer: NodeId,
        now: UnixMillis,
    ) -> Result<AnswerAdmitted, Refused> {
        if envelope.signer() != peer {
            return Err(Refused::Reject("wrong_author"));
        }
        let answer = Answer::read(bytes, &self.network, now)?;
        self.claim_ours(&answer.offer(), peer).map_err(Refused::Ignore)?;
        Ok(AnswerAdmitted::Ours(answer.into()))
    }

    fn relayed_answer(&mut self, envelope: Envelope, now: UnixMillis) -> Result<AnswerAdmitted, Refused> {
        let sealed = envelope.open::<SealedAnswer>(&self.network, now)?.verify()?;
        match self.routes.claim(&sealed.offer, sealed.signer()).map_err(Refused::Ignore)? {
            NextHop::Here => {
                let answer = sealed.unseal(&self.key, &self.network, now).map_err(|_| Refused::Ignore("bad_seal"))?;
                Ok(AnswerAdmitted::Ours(answer.into()))
            }
            NextHop::There { buyer, via } => Ok(AnswerAdmitted::Forward { buyer, via }),
        }
    }
}

fn receipt_digest(receipt: Hash, countersign: Option<Hash>) -> Hash {
    let countersign = countersign.as_ref().map(AsRef::as_ref).unwrap_or_default();
    hash::tagged("infernet/receipt-seen/1", &[receipt.as_ref(), countersign])
}

#[cfg(test)]
mod flood;

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::{
        bid::{JobBid, NoBid, NoBidReason},
        capability::Abilities,
        hash::sha256,
        id::{JobId, OfferId},
        money::{MicroUsd, Price},
        offer::SelectionRule,
        receipt::JobStatus,
    };
    use proptest::prelude::*;
    use std::sync::Arc;

    const START: UnixMillis = UnixMillis(1_800_000_000_000);
    const NOW: UnixMillis = UnixMillis(START.0 + 60_000);

    fn key(n: u8) -> NodeKey {
        NodeKey::from_bytes(&[n; 32]).unwrap()
    }

    fn network() -> NetworkId {
        NetworkId::default()
    }

    /// The gate of node 1.
    fn gate() -> Gate {
        Gate::new(key(1), network(), START, vec![])
    }

    fn jobs() -> String {
        topic::jobs(topic::INFERENCE)
    }

    fn offer(n: u8, issued: UnixMillis) -> JobOffer {
        JobOffer {
            id: OfferId([n; 16]),
            issued,
            expires: issued.after(5_000),
            workload: topic::INFERENCE.into(),
            model: "tiny".into(),
            abilities: Abilities::default(),
            input_tokens: 1,
            output_tokens: 1,
            ceiling: Price::default(),
            budget: MicroUsd(1),
            deadline: issued.after(60_000),
            window_ms: 500,
            rule: SelectionRule::BALANCED,
            commitment: sha256(b"request"),
            invited: Vec::new(),
        }
    }

    fn ad(sequence: u64) -> CapabilityAd {
        let (tags, models, chat) = (vec![], vec![], vec![]);
        CapabilityAd {
            sequence,
            issued: NOW,
            expires: NOW.after(1_000),
            tags,
            models,
            slots: 1,
            chat,
            mesh: Vec::new(),
            evm: Vec::new(),
        }
    }

    fn signed<T: Message>(key: &NodeKey, body: T) -> Verified<T> {
        key.sign(&network(), body).unwrap()
    }

    /// Of worker 2 for buyer 3.
    fn job_receipt() -> JobReceipt {
        JobReceipt {
            job: JobId([1; 16]),
            accept: sha256(b"accept"),
            buyer: key(3).id(),
            worker: key(2).id(),
            workload: topic::INFERENCE.into(),
            model: "tiny".into(),
            weights: None,
            input_tokens: 0,
            output_tokens: 0,
            price: Price::default(),
            amount: MicroUsd(0),
            paid: MicroUsd(0),
            started: NOW,
            finished: NOW,
            status: JobStatus::COMPLETED,
            request: sha256(b"request"),
            transcript: sha256(b"transcript"),
            paid_on: None,
        }
    }

    fn accept() -> JobAccept {
        JobAccept {
            offer: sha256(b"offer"),
            bid: sha256(b"bid"),
            winner: key(3).id(),
            model: "tiny".into(),
            price: Price::default(),
            job: JobId([1; 16]),
            attempt: 1,
            runners_up: vec![],
            bids: sha256(b"bids"),
            score: 1,
            issued: NOW,
            expires: NOW.after(1_000),
            rate: None,
        }
    }

    fn no_bid(worker: &NodeKey, offer: Hash) -> Answer {
        Answer::NoBid(signed(worker, NoBid { offer, issued: NOW, reason: NoBidReason::NO_SLOT }))
    }

    fn sealed(worker: &NodeKey, answer: &Answer, buyer: NodeId) -> Arc<[u8]> {
        signed(worker, SealedAnswer::seal(answer, &buyer, NOW, &[5; 32]).unwrap()).raw().clone()
    }

    /// From node `author`, brought by node 9.
    fn check(gate: &mut Gate, topic: &str, bytes: &[u8], author: u8, verdict: Verdict, reason: &str) {
        let admitted = gate.admit(topic, bytes, key(author).id(), key(9).id(), NOW);
        assert_eq!((admitted.verdict, admitted.reason), (verdict, reason));
        let is_good = verdict == Verdict::Accept || reason == "answer_for_us";
        assert!(is_good || admitted.event.is_none(), "only what is good reaches the node");
    }

    #[test]
    fn a_page_of_ads_is_judged_like_gossip_and_shown_to_the_next() {
        let (good, other) = (signed(&key(2), ad(7)), key(3).sign(&"other".parse().unwrap(), ad(7)).unwrap());
        let mut forged = signed(&key(4), ad(7)).raw().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let no_ad = signed(&key(5), offer(1, NOW));
        let raws: [&[u8]; 6] = [good.raw(), other.raw(), &forged, no_ad.raw(), b"nonsense", good.raw()];
        let page = AdPage::new(raws).encode();
        let mut gate = gate();
        let admitted = gate.admit_page(&page, NOW);
        let reasons: Vec<_> = admitted.iter().map(|one| one.reason).collect();
        assert_eq!(reasons, ["accepted", "wrong_network", "bad_signature", "unexpected_kind", "malformed", "stale_ad"]);
        assert!(matches!(&admitted[0].event, Some(Event::Ad(ad)) if ad.signer() == key(2).id()));
        assert!(admitted.iter().all(|one| !one.fault && (one.reason == "accepted" || one.event.is_none())));
        assert_eq!(gate.ad_page(0, NOW).ads, Vec::<serde_bytes::ByteBuf>::new(), "it offers nothing");
        assert_eq!(gate.admit_page(b"nonsense", NOW)[0].reason, "malformed");
        check(&mut gate, topic::CAPABILITIES, good.raw(), 2, Verdict::Accept, "accepted");
        assert_eq!(gate.admit_page(&page, NOW)[0].reason, "stale_ad");
        assert_eq!(gate.ad_sequences(), [(key(2).id(), 7)]);
    }

    fn check_offer(bytes: &[u8], author: u8, verdict: Verdict, reason: &str) {
        check(&mut gate(), &jobs(), bytes, author, verdict, reason);
    }

    #[test]
    fn a_good_message_is_passed_on_once() {
        let mut gate = gate();
        let bytes = signed(&key(2), offer(1, NOW));
        check(&mut gate, &jobs(), bytes.raw(), 2, Verdict::Accept, "accepted");
        check(&mut gate, &jobs(), bytes.raw(), 2, Verdict::Ignore, "seen");
    }

    #[test]
    fn faults_are_rejected() {
        let good = signed(&key(2), offer(1, NOW));
        let mut forged = good.raw().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let foreign = key(2).sign(&"other".parse().unwrap(), offer(1, NOW)).unwrap();
        let workload = JobOffer { workload: "other".into(), ..offer(1, NOW) };
        check_offer(&[0; limits::MAX_GOSSIP_BYTES + 1], 2, Verdict::Reject, "too_large");
        check_offer(b"x", 2, Verdict::Reject, "malformed");
        check_offer(&forged, 2, Verdict::Reject, "bad_signature");
        check_offer(foreign.raw(), 2, Verdict::Reject, "wrong_network");
        check_offer(good.raw(), 3, Verdict::Reject, "wrong_author");
        check_offer(signed(&key(2), workload).raw(), 2, Verdict::Reject, "wrong_workload");
        check_offer(signed(&key(2), ad(1)).raw(), 2, Verdict::Reject, "unexpected_kind");
        check_offer(no_bid(&key(2), good.digest()).raw(), 2, Verdict::Reject, "unexpected_kind");
        check(&mut gate(), topic::CAPABILITIES, good.raw(), 2, Verdict::Reject, "unexpected_kind");
    }

    #[test]
    fn what_honest_peers_may_pass_on_is_ignored() {
        let old = UnixMillis(NOW.0 - 16_000);
        check_offer(signed(&key(2), offer(1, old)).raw(), 2, Verdict::Ignore, "expired");
        check_offer(signed(&key(2), offer(1, NOW.after(10_001))).raw(), 2, Verdict::Ignore, "future");
        check_offer(&key(2).sign_foreign(Kind::JobOffer, 7, &network(), vec![1]), 2, Verdict::Ignore, "unknown");
        check(&mut gate(), "c0mpute/jobs/other", signed(&key(2), offer(1, NOW)).raw(), 2, Verdict::Ignore, "unknown_topic");
    }

    #[test]
    fn a_forged_copy_does_not_shut_out_the_real_message() {
        let mut gate = gate();
        let good = signed(&key(2), offer(1, NOW));
        let mut forged = good.raw().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        check(&mut gate, &jobs(), &forged, 2, Verdict::Reject, "bad_signature");
        check(&mut gate, &jobs(), good.raw(), 2, Verdict::Accept, "accepted");
    }

    #[test]
    fn after_a_restart_only_ads_from_before_count() {
        let mut restarted = Gate::new(key(1), network(), NOW.after(1), vec![]);
        check(&mut restarted, &jobs(), signed(&key(2), offer(1, NOW)).raw(), 2, Verdict::Ignore, "before_start");
        check(&mut restarted, topic::CAPABILITIES, signed(&key(2), ad(1)).raw(), 2, Verdict::Accept, "accepted");
    }

    #[test]
    fn whatever_was_heard_has_no_effect_after_a_restart() {
        let receipt = SignedReceipt::new(signed(&key(2), job_receipt()), None).unwrap();
        let mut first = gate();
        let heard = [
            (topic::CAPABILITIES.to_owned(), signed(&key(2), ad(7)).raw().clone()),
            (topic::CAPABILITIES.to_owned(), signed(&key(3), ad(8)).raw().clone()),
            (jobs(), signed(&key(2), offer(1, NOW)).raw().clone()),
            (jobs(), signed(&key(2), accept()).raw().clone()),
            (topic::RECEIPTS.to_owned(), receipt.encode().into()),
        ];
        let author = |at: usize| if at == 1 { 3 } else { 2 };
        for (at, (topic, bytes)) in heard.iter().enumerate() {
            check(&mut first, topic, bytes, author(at), Verdict::Accept, "accepted");
        }
        let mut restarted = Gate::new(key(1), network(), NOW.after(1), first.ad_sequences());
        for (at, (topic, bytes)) in heard.iter().enumerate() {
            let reason = if at < 2 { "stale_ad" } else { "before_start" };
            check(&mut restarted, topic, bytes, author(at), Verdict::Ignore, reason);
        }
        let older = signed(&key(2), ad(6));
        check(&mut restarted, topic::CAPABILITIES, older.raw(), 2, Verdict::Ignore, "stale_ad");
        let newer = signed(&key(3), ad(9));
        check(&mut restarted, topic::CAPABILITIES, newer.raw(), 3, Verdict::Accept, "accepted");
    }

    #[test]
    fn the_newest_ad_wins() {
        let mut gate = gate();
        for (sequence, verdict, reason) in [
            (2, Verdict::Accept, "accepted"),
            (1, Verdict::Ignore, "stale_ad"),
            (3, Verdict::Accept, "accepted"),
            (4, Verdict::Ignore, "author_quota"),
        ] {
            check(&mut gate, topic::CAPABILITIES, signed(&key(2), ad(sequence)).raw(), 2, verdict, reason);
        }
    }

    #[test]
    fn a_buyer_has_its_quota_of_offers_and_a_neighbour_one_of_messages() {
        let mut gate = gate();
        let offers: Vec<_> = (0..30).map(|n| signed(&key(2), offer(n, NOW))).collect();
        let mut say = |bytes: &[u8], forwarder: u8| gate.admit(&jobs(), bytes, key(2).id(), key(forwarder).id(), NOW).reason;
        let reasons: Vec<_> = offers.iter().map(|offer| say(offer.raw(), 9)).collect();
        assert_eq!(reasons.iter().filter(|reason| **reason == "accepted").count(), 20);
        assert_eq!(reasons.iter().filter(|reason| **reason == "author_quota").count(), 10);
        let flood = (0..2_000).map(|_| say(b"x", 9));
        assert_eq!(flood.filter(|reason| *reason == "malformed").count(), 20, "of an author who is new here");
        assert_eq!(say(b"x", 8), "malformed", "another neighbour");
        let own = (0..2_000).map(|_| say(b"x", 2));
        assert_eq!(own.filter(|reason| *reason == "malformed").count(), 1_000, "of its own");
    }

    #[test]
    fn a_receipt_comes_from_its_worker_or_its_buyer() {
        let receipt = signed(&key(2), job_receipt());
        let countersign = signed(&key(3), Countersign { receipt: receipt.digest(), issued: NOW });
        let alone = SignedReceipt::new(receipt.clone(), None).unwrap().encode();
        let both = SignedReceipt::new(receipt, Some(countersign)).unwrap().encode();
        let mut gate = gate();
        check(&mut gate, topic::RECEIPTS, &alone, 4, Verdict::Reject, "wrong_author");
        check(&mut gate, topic::RECEIPTS, &alone, 2, Verdict::Accept, "accepted");
        check(&mut gate, topic::RECEIPTS, &both, 3, Verdict::Accept, "accepted");
        check(&mut gate, topic::RECEIPTS, &both, 2, Verdict::Ignore, "seen");
    }

    #[test]
    fn answers_are_only_for_our_own_offers() {
        let mut gate = gate();
        let ours = signed(&key(1), offer(1, NOW));
        let refused = |outcome| if let AnswerAdmitted::Refused { reason, .. } = outcome { reason } else { "taken" };
        let answer = no_bid(&key(2), ours.digest());
        assert_eq!(refused(gate.answer(answer.raw(), key(2).id(), NOW)), "not_our_offer");
        gate.publish(&jobs(), ours.raw(), NOW).unwrap();
        assert_eq!(refused(gate.answer(answer.raw(), key(3).id(), NOW)), "wrong_author");
        assert!(matches!(gate.answer(answer.raw(), key(2).id(), NOW), AnswerAdmitted::Ours(_)));
        assert_eq!(refused(gate.answer(answer.raw(), key(2).id(), NOW)), "already_answered");
        check(&mut gate, &jobs(), &sealed(&key(2), &answer, key(1).id()), 2, Verdict::Ignore, "already_answered");
        let late = no_bid(&key(3), ours.digest());
        check(&mut gate, &jobs(), &sealed(&key(3), &late, key(1).id()), 3, Verdict::Ignore, "answer_for_us");
        check(&mut gate, &jobs(), ours.raw(), 1, Verdict::Ignore, "seen");
    }

    #[test]
    fn sealed_answers_for_others_go_back_where_the_offer_came_from() {
        let mut gate = gate();
        let theirs = signed(&key(3), offer(1, NOW));
        let bytes = sealed(&key(2), &no_bid(&key(2), theirs.digest()), key(3).id());
        let unknown = AnswerAdmitted::Refused { reason: "unknown_offer", fault: false };
        assert_eq!(format!("{:?}", gate.answer(&bytes, key(2).id(), NOW)), format!("{unknown:?}"));
        check(&mut gate, &jobs(), theirs.raw(), 3, Verdict::Accept, "accepted");
        assert_eq!(gate.way_back(&theirs.digest()), Some(key(9).id()));
        let AnswerAdmitted::Forward { buyer, via } = gate.answer(&bytes, key(2).id(), NOW) else { panic!("not forwarded") };
        assert_eq!((buyer, via), (key(3).id(), key(9).id()));
    }

    #[test]
    fn a_seal_with_somebody_elses_answer_inside_is_refused() {
        let mut gate = gate();
        let ours = signed(&key(1), offer(1, NOW));
        gate.publish(&jobs(), ours.raw(), NOW).unwrap();
        let stolen = no_bid(&key(2), ours.digest());
        check(&mut gate, &jobs(), &sealed(&key(3), &stolen, key(1).id()), 3, Verdict::Ignore, "bad_seal");
    }

    /// Bytes that look more and more like a message.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let bid = JobBid {
            offer: sha256(b"offer"),
            issued: NOW,
            hold_until: NOW.after(1_000),
            model: "tiny".into(),
            price: Price::default(),
            queue_ms: 0,
            ttft_ms: 0,
            tokens_per_second: 0,
            chat: vec![],
        };
        let real = vec![
            signed(&key(2), offer(1, NOW)).raw().to_vec(),
            signed(&key(2), ad(1)).raw().to_vec(),
            signed(&key(2), bid).raw().to_vec(),
            sealed(&key(2), &no_bid(&key(2), sha256(b"offer")), key(1).id()).to_vec(),
        ];
        let altered = (prop::sample::select(real), any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            altered.prop_map(|(mut bytes, at, value, cut)| {
                let at = at.index(bytes.len());
                bytes[at] = value;
                bytes.truncate(if cut { at } else { bytes.len() });
                bytes
            }),
        ]
    }

    proptest! {
        #[test]
        fn no_bytes_can_break_the_gate(bytes in hostile(), topic in prop::sample::select(vec![jobs(), topic::CAPABILITIES.into(), topic::RECEIPTS.into()])) {
            let mut gate = gate();
            let admitted = gate.admit(&topic, &bytes, key(2).id(), key(9).id(), NOW);
            prop_assert!(admitted.event.is_none() || admitted.verdict != Verdict::Reject);
            gate.answer(&bytes, key(2).id(), NOW);
        }
    }
}
