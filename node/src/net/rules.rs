//! What a node takes from its neighbours: quotas, the replay set, and what a restart makes of both. Pure.
//!
//! `gossip` reads bytes and asks here, before the signature is checked and after it; the simulator, which has no
//! bytes, asks here too. Who signed and who is the author is checked there.

use super::{
    generations::Generations,
    quota::{Quota, Rate},
    replay::Seen,
};
use infernet_wire::{
    envelope::{Kind, Refusal},
    id::{Hash, NodeId},
    limits,
    time::UnixMillis,
};

/// All messages of all authors that one neighbour may pass on. 500 a second are 5 % of a core to check; a neighbour that is
/// the only way to a busy network needs hundreds.
const FORWARDER: Rate = Rate { interval_ms: 2, burst: 1_000 };
/// Of those, messages of authors that are not at home here ([`AT_HOME_MS`]) and not the neighbour itself. A key costs nothing, so
/// there may be any number of such authors, and each neighbour adds up what all of its own let through: without a share of
/// their own for those that were here before, a flood of fresh keys leaves no place for them. Twenty a second are the ads of a
/// thousand newcomers.
const NEWCOMERS: Rate = Rate { interval_ms: 50, burst: 50 };
/// An author is at home so long after its first good message: a key that is used once never speaks then.
const AT_HOME_MS: u64 = 10_000;
/// For how long a first message counts as one.
const FIRST_HEARD_MS: u64 = 10 * 60_000;
/// Who says nothing for so long is not at home any more.
const HOME_MS: u64 = 60 * 60_000;
/// Authors of either kind per generation, each in about 100 bytes.
const AUTHORS: usize = 8_192;
/// As the protocol says.
const ADS: Rate = Rate { interval_ms: limits::AD_MIN_INTERVAL_MS, burst: limits::AD_BURST };
/// As the protocol says.
const OFFERS: Rate = Rate { interval_ms: 1_000 / limits::OFFERS_PER_SECOND as u64, burst: limits::OFFER_BURST as u64 };
/// Every offer may lead to one accept, and one more per runner-up.
const ACCEPTS: Rate = Rate { interval_ms: OFFERS.interval_ms / 3, burst: OFFERS.burst * 3 };
/// A worker may answer many buyers; but on the topic it answers only for want of a better way.
const ANSWERS: Rate = Rate { interval_ms: 50, burst: 64 };
/// Short jobs on sixteen slots, published by both sides. What is dropped can still be asked for.
const RECEIPTS: Rate = Rate { interval_ms: 20, burst: 200 };
/// What a neighbour may publish itself beyond its own quotas before it is to blame. It knows its quotas, so an honest one keeps
/// them; but what it said over ten seconds may arrive at once. What a neighbour only passes on is never held against it.
pub(super) const OWN_EXCESS: Rate = Rate { interval_ms: 1_000, burst: 100 };
/// Peers and authors whose buckets are kept per generation, each in about 100 bytes.
const QUOTA_KEYS: usize = 4_096;
/// Ads live longest of all messages but receipts: 90 s, and the skew at both ends.
const SEEN_MS: u64 = limits::AD_TTL_MS + 2 * limits::CLOCK_SKEW_MS;
/// As above, for receipts.
const SEEN_RECEIPTS_MS: u64 = limits::RECEIPT_TTL_MS + 2 * limits::CLOCK_SKEW_MS;
/// Digests per generation: 500 messages a second for the whole span, in about 3 MB.
const SEEN_DIGESTS: usize = 65_536;
/// Workers whose newest sequence is known, per generation.
const SEQUENCES: usize = 16_384;

/// Why a message goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The message itself.
    Wire(Refusal),
    /// Nobody's fault: why.
    Ignore(&'static str),
    /// Its forwarder should have known: why.
    Reject(&'static str),
}

const AUTHOR_QUOTA: Refused = Refused::Ignore("author_quota");

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused::Wire(refusal)
    }
}

impl Refused {
    /// A short stable name, for counters.
    pub fn label(self) -> &'static str {
        match self {
            Refused::Wire(refusal) => refusal.label(),
            Refused::Ignore(label) | Refused::Reject(label) => label,
        }
    }

    /// Whether only a broken or hostile neighbour passes on what is refused for this.
    pub fn is_fault(self) -> bool {
        match self {
            Refused::Wire(refusal) => refusal.is_fault(),
            Refused::Reject(_) => true,
            Refused::Ignore(_) => false,
        }
    }
}

#[derive(Debug)]
struct AuthorQuotas {
    ads: Quota<NodeId>,
    offers: Quota<NodeId>,
    accepts: Quota<NodeId>,
    answers: Quota<NodeId>,
    receipts: Quota<NodeId>,
}

impl AuthorQuotas {
    fn new() -> Self {
        let quota = |rate| Quota::new(rate, QUOTA_KEYS);
        AuthorQuotas {
            ads: quota(ADS),
            offers: quota(OFFERS),
            accepts: quota(ACCEPTS),
            answers: quota(ANSWERS),
            receipts: quota(RECEIPTS),
        }
    }

    fn take(&mut self, kind: Kind, author: NodeId, now: UnixMillis) -> Result<(), Refused> {
        let quota = match kind {
            Kind::CapabilityAd => &mut self.ads,
            Kind::JobOffer => &mut self.offers,
            Kind::JobAccept => &mut self.accepts,
            Kind::JobBid | Kind::NoBid | Kind::SealedAnswer => &mut self.answers,
            Kind::JobReceipt | Kind::Countersign => &mut self.receipts,
            // They travel by other ways; a later version may gossip them.
            Kind::OperatorCommand | Kind::KeyRotation => return Err(Refused::Ignore("not_gossiped")),
        };
        if quota.try_take(author, now) { Ok(()) } else { Err(AUTHOR_QUOTA) }
    }
}

#[cfg(test)]
impl AuthorQuotas {
    fn entries(&self) -> usize {
        [&self.ads, &self.offers, &self.accepts, &self.answers, &self.receipts].into_iter().map(Quota::len).sum()
    }
}

/// What a node remembers of what it heard. Bounded.
#[derive(Debug)]
pub struct Rules {
    started: UnixMillis,
    forwarders: Quota<NodeId>,
    newcomers: Quota<NodeId>,
    first_heard: Generations<NodeId, UnixMillis>,
    at_home: Generations<NodeId, ()>,
    authors: AuthorQuotas,
    excess: Quota<NodeId>,
    seen: Seen,
    seen_receipts: Seen,
    sequences: Generations<NodeId, u64>,
    /// The same of ads that came in a page, not by gossip.
    paged: Generations<NodeId, u64>,
}

impl Rules {
    /// `started` is when this process began to remember what it has seen; `ad_sequences` are what earlier ones remembered, the
    /// latest heard first. Their workers are at home from the start, else each restart would put them behind a flood of keys.
    pub fn new(started: UnixMillis, ad_sequences: Vec<(NodeId, u64)>) -> Self {
        let mut sequences = Generations::new(SEQUENCES, limits::AD_TTL_MS);
        let mut at_home = Generations::new(AUTHORS, HOME_MS);
        ad_sequences.iter().take(AUTHORS).for_each(|(worker, _)| at_home.insert(*worker, (), started));
        ad_sequences.into_iter().for_each(|(worker, sequence)| sequences.insert(worker, sequence, started));
        Rules {
            started,
            forwarders: Quota::new(FORWARDER, QUOTA_KEYS),
            newcomers: Quota::new(NEWCOMERS, QUOTA_KEYS),
            first_heard: Generations::new(AUTHORS, FIRST_HEARD_MS),
            at_home,
            authors: AuthorQuotas::new(),
            excess: Quota::new(OWN_EXCESS, QUOTA_KEYS),
            seen: Seen::new(SEEN_DIGESTS, SEEN_MS),
            seen_receipts: Seen::new(SEEN_DIGESTS, SEEN_RECEIPTS_MS),
            sequences,
            paged: Generations::new(SEQUENCES, limits::AD_TTL_MS),
        }
    }

    /// One more message that `forwarder` brings.
    pub fn take_forwarder(&mut self, forwarder: NodeId, now: UnixMillis) -> Result<(), Refused> {
        if self.forwarders.try_take(forwarder, now) { Ok(()) } else { Err(Refused::Ignore("forwarder_quota")) }
    }

    /// One more message of `author` that `forwarder` brings.
    pub fn take_message(&mut self, author: NodeId, forwarder: NodeId, now: UnixMillis) -> Result<(), Refused> {
        if author != forwarder && !self.is_at_home(&author, now) && !self.newcomers.try_take(forwarder, now) {
            return Err(Refused::Ignore("newcomer_quota"));
        }
        self.take_forwarder(forwarder, now)
    }

    /// What is cheaper than a signature: seen before? too much of its author? Of our own messages only the quota is asked.
    pub fn before_signature(
        &mut self,
        kind: Kind,
        digest: &Hash,
        author: NodeId,
        ours: bool,
        now: UnixMillis,
    ) -> Result<(), Refused> {
        if !ours && self.seen_of(kind).contains(digest) {
            return Err(Refused::Ignore("seen"));
        }
        self.authors.take(kind, author, now)
    }

    /// What is asked of a message whose signature is good; it is marked as seen. An ad may be older than this process: its
    /// sequence tells ([`Rules::take_newer_ad`]).
    pub fn after_signature(
        &mut self,
        kind: Kind,
        digest: Hash,
        issued: UnixMillis,
        author: NodeId,
        ours: bool,
        now: UnixMillis,
    ) -> Result<(), Refused> {
        if !ours && kind != Kind::CapabilityAd && issued < self.started {
            return Err(Refused::Ignore("before_start"));
        }
        self.seen_of(kind).insert(digest, now);
        if !ours {
            self.greet(author, now);
        }
        Ok(())
    }

    fn is_at_home(&self, author: &NodeId, now: UnixMillis) -> bool {
        let first_heard = || self.first_heard.get(author).is_some_and(|first| now.since(*first) >= AT_HOME_MS);
        self.at_home.get(author).is_some() || first_heard()
    }

    /// An author has said something good. Who is at home is kept apart, where no flood of new ones takes its place.
    fn greet(&mut self, author: NodeId, now: UnixMillis) {
        if self.is_at_home(&author, now) {
            self.at_home.insert(author, (), now);
        } else if self.first_heard.get(&author).is_none() {
            self.first_heard.insert(author, now, now);
        }
    }

    /// Whether what was `refused` is a flood of the neighbour's own.
    pub fn is_flood(&mut self, refused: Refused, author: NodeId, forwarder: NodeId, now: UnixMillis) -> bool {
        refused == AUTHOR_QUOTA && author == forwarder && !self.excess.try_take(author, now)
    }

    /// Whether an ad is the newest of its worker, which it is from then on.
    pub fn take_newer_ad(&mut self, worker: NodeId, sequence: u64, now: UnixMillis) -> Result<(), Refused> {
        if self.sequences.get(&worker).is_some_and(|newest| sequence <= *newest) {
            return Err(Refused::Ignore("stale_ad"));
        }
        self.sequences.insert(worker, sequence, now);
        Ok(())
    }

    /// Whether an ad of a page is the newest of its worker. Its copy that is gossiped meanwhile is still as good as new: others have
    /// not had it.
    pub fn take_paged_ad(&mut self, worker: NodeId, sequence: u64, now: UnixMillis) -> Result<(), Refused> {
        let newest = self.sequences.get(&worker).max(self.paged.get(&worker));
        if newest.is_some_and(|newest| sequence <= *newest) {
            return Err(Refused::Ignore("stale_ad"));
        }
        self.paged.insert(worker, sequence, now);
        Ok(())
    }

    /// The newest ad sequence of each worker, the latest heard first.
    pub fn ad_sequences(&self) -> Vec<(NodeId, u64)> {
        let known =
            |worker: &NodeId, sequence: u64| (*worker, self.paged.get(worker).map_or(sequence, |paged| sequence.max(*paged)));
        let gossiped = self.sequences.iter().map(|(worker, sequence)| known(worker, *sequence));
        let paged = self.paged.iter().filter(|(worker, _)| self.sequences.get(worker).is_none());
        gossiped.chain(paged.map(|(worker, sequence)| (*worker, *sequence))).collect()
    }

    fn seen_of(&mut self, kind: Kind) -> &mut Seen {
        match kind {
            Kind::JobReceipt | Kind::Countersign => &mut self.seen_receipts,
            _ => &mut self.seen,
        }
    }

    /// Entries that are kept at most.
    #[cfg(test)]
    pub(super) const MOST: usize = 2 * (8 * QUOTA_KEYS + 2 * AUTHORS + 2 * SEEN_DIGESTS + 2 * SEQUENCES);

    /// All that it remembers, in entries.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        let seen = self.seen.len() + self.seen_receipts.len();
        let quotas = self.forwarders.len() + self.newcomers.len() + self.authors.entries() + self.excess.len();
        quotas + self.first_heard.len() + self.at_home.len() + seen + self.sequences.len() + self.paged.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: UnixMillis = UnixMillis(1_800_000_000_000);

    fn node(n: u32) -> NodeId {
        let mut id = [2; 33];
        id[1..5].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    }

    fn hears(rules: &mut Rules, author: NodeId, n: u32, now: UnixMillis) -> Result<(), Refused> {
        let digest = infernet_wire::hash::sha256(&n.to_be_bytes());
        rules.take_message(author, node(0), now)?;
        rules.before_signature(Kind::JobOffer, &digest, author, false, now)?;
        rules.after_signature(Kind::JobOffer, digest, now, author, false, now)
    }

    #[test]
    fn a_flood_of_fresh_keys_takes_nothing_from_those_that_were_here_before() {
        let (mut rules, regular, late) = (Rules::new(T0, vec![]), node(1), node(2));
        assert_eq!(hears(&mut rules, regular, 1, T0), Ok(()));
        let (mut keys, mut let_in) = (10, 0);
        for second in 0..60 {
            let now = T0.after(AT_HOME_MS + second * 1_000);
            for _ in 0..2_000 {
                keys += 1;
                let_in += u64::from(hears(&mut rules, node(keys), keys, now).is_ok());
            }
            assert_eq!(hears(&mut rules, late, keys + 1_000_000, now), Err(Refused::Ignore("newcomer_quota")));
            assert_eq!(hears(&mut rules, regular, keys + 2_000_000, now), Ok(()), "in second {second}");
        }
        let most = NEWCOMERS.burst + 60_000 / NEWCOMERS.interval_ms;
        assert!((most - 50..=most).contains(&let_in), "{let_in} of {most}");
    }

    #[test]
    fn a_worker_known_from_before_the_start_is_at_home_under_a_flood() {
        let mut rules = Rules::new(T0, vec![(node(1), 7)]);
        let mut flood = (10..).map(node);
        let refused = flood.find(|key| rules.take_message(*key, node(0), T0).is_err()).expect("the quota ends");
        assert_eq!(rules.take_message(refused, node(0), T0), Err(Refused::Ignore("newcomer_quota")));
        assert_eq!(rules.take_message(node(1), node(0), T0), Ok(()));
    }

    #[test]
    fn a_neighbour_is_at_home_from_the_first_moment() {
        let mut rules = Rules::new(T0, vec![]);
        for n in 0..NEWCOMERS.burst as u32 {
            assert_eq!(rules.take_message(node(10 + n), node(0), T0), Ok(()));
        }
        assert_eq!(rules.take_message(node(9), node(0), T0), Err(Refused::Ignore("newcomer_quota")));
        assert_eq!(rules.take_message(node(0), node(0), T0), Ok(()));
    }
}
