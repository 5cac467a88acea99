//! Taking a worker at its word: whether to accept a live ad without an auction, and whose.
//!
//! An auction finds the best of all who are there; an ad can be taken in one round trip. So the buyer skips the auction when it
//! would hardly find better:
//!
//! - the worker is **proven**: its last job for us went well, and it keeps what its ads promise;
//! - its ad satisfies the offer, and it has room: fewer of our own jobs than slots, and it has not just said that it is busy;
//! - no believed worker with room advertises better by more than [`MARGIN_PERCENT`];
//! - the last auction for that model is no older than [`COMPARE_EVERY_MS`], so that newcomers and bids below the ad get their
//!   hearing. A conversation whose beginning the worker has read already is not moved to try others.
//!
//! Of the proven ones within the margin of the best, one that has read the conversation goes first, then the one with the
//! smallest share of its slots taken by us, then the lot. All of them may be asked at once: nothing here waits for a turn.
//!
//! A path of `Standing` asks whoever advertises, proven or not; `Auction` never asks anybody without.

use super::{
    patience::better_by_margin,
    quote,
    rank::{Facts, Order, Terms, Weight},
    record::Regard,
};
use infernet_wire::{
    accept::JobAccept,
    bid::bids_commitment,
    capability::{CapabilityAd, ModelAd},
    envelope::Verified,
    hash,
    id::{Hash, JobId, NodeId},
    limits::ACCEPT_TTL_MS,
    money::{MicroUsd, Price},
    offer::JobOffer,
    standing::StandingOffer,
    time::UnixMillis,
};
use std::{fmt, net::SocketAddr, str::FromStr};

#[cfg(doc)]
use super::patience::MARGIN_PERCENT;

/// How old the last auction for a model may be: one in five minutes costs a busy buyer nothing and a person a few milliseconds.
pub const COMPARE_EVERY_MS: u64 = 5 * 60_000;
/// How long a worker that said it is busy is not asked this way: a short job's time.
pub const BUSY_MS: u64 = 1_000;
/// What an auction among known workers takes, for comparing what it may gain.
const AUCTION_MS: u64 = 10;

/// How a job finds its worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PathChoice {
    /// A live ad if an auction would hardly find better, else an auction.
    #[default]
    Auto,
    /// Always an auction.
    Auction,
    /// Always a live ad, of any worker.
    Standing,
}

impl PathChoice {
    /// Its name, as people write it.
    pub fn label(self) -> &'static str {
        match self {
            PathChoice::Auto => "auto",
            PathChoice::Auction => "auction",
            PathChoice::Standing => "standing",
        }
    }
}

impl fmt::Display for PathChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for PathChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [PathChoice::Auto, PathChoice::Auction, PathChoice::Standing];
        all.into_iter().find(|path| path.label() == text).ok_or("a path is auto, auction or standing")
    }
}

/// A worker with a live ad, as this buyer sees it.
#[derive(Debug, Clone, Copy)]
pub struct Contender<'a> {
    /// Its ad.
    pub ad: &'a Verified<CapabilityAd>,
    /// What was observed of it, for this very conversation.
    pub facts: Facts,
    /// Whether it keeps its promises.
    pub regard: Regard,
    /// Our jobs that it runs now.
    pub running: u32,
    /// It has just said that it is busy.
    pub busy: bool,
    /// It has read the beginning of the conversation.
    pub warm: bool,
}

impl Contender<'_> {
    fn worker(&self) -> NodeId {
        self.ad.signer()
    }

    fn is_proven(&self) -> bool {
        self.facts.in_row > 0 && !matches!(self.regard, Regard::Doubted | Regard::Silent)
    }

    /// Whether an auction would probably hear of it.
    fn is_rival(&self) -> bool {
        self.is_proven() || matches!(self.regard, Regard::Believed { .. })
    }

    fn has_room(&self) -> bool {
        !self.busy && self.running < u32::from(self.ad.slots)
    }

    /// Thousandths of its slots that our jobs take.
    fn load(&self) -> u32 {
        self.running.saturating_mul(1_000) / u32::from(self.ad.slots.max(1))
    }
}

/// An ad to accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Whose.
    pub worker: NodeId,
    /// Its digest.
    pub ad: Hash,
    /// The model, by the worker's id.
    pub model: String,
    /// The ad's price.
    pub price: Price,
    /// Where the worker answers.
    pub chat: Vec<SocketAddr>,
    /// What the job is expected to cost, time included, as [`super::rank`] scores bids.
    pub score: u64,
    /// What will probably be paid.
    pub expected_cost: MicroUsd,
    /// How long the answer will probably take, if anybody has measured.
    pub expected_ms: Option<u64>,
    /// Whether the worker has read the conversation's beginning.
    pub warm: bool,
}

impl Choice {
    /// The accept of the ad for `job`, to be signed. `offer` travels with it.
    pub fn accept_body(&self, offer: &StandingOffer, job: JobId, now: UnixMillis) -> JobAccept {
        JobAccept {
            offer: offer.digest(),
            bid: self.ad,
            winner: self.worker,
            model: self.model.clone(),
            price: self.price,
            job,
            attempt: 1,
            runners_up: Vec::new(),
            bids: bids_commitment(vec![self.ad]),
            score: self.score,
            issued: now,
            expires: now.after(ACCEPT_TTL_MS),
            rate: None,
        }
    }
}

/// Why no ad is accepted without an auction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotStanding {
    /// The order wants an auction.
    Forbidden,
    /// No worker that may be asked advertises what the order wants.
    NobodyKnown,
    /// Those who do run as many of our jobs as they have slots, or have just said that they are busy.
    Full,
    /// A believed worker that has not worked for us advertises better.
    BetterElsewhere,
    /// The last auction for the model is too old to know what others would bid.
    TimeToCompare,
}

impl NotStanding {
    /// A short stable name, for counters.
    pub fn label(self) -> &'static str {
        match self {
            NotStanding::Forbidden => "forbidden",
            NotStanding::NobodyKnown => "nobody_known",
            NotStanding::Full => "full",
            NotStanding::BetterElsewhere => "better_elsewhere",
            NotStanding::TimeToCompare => "time_to_compare",
        }
    }
}

struct Weighed<'a> {
    contender: Contender<'a>,
    model: &'a ModelAd,
    weight: Weight,
    order: Order,
}

/// Which of `contenders` to ask for `offer` without an auction. `compared` tells whether the last auction is young enough.
pub fn choose<'a>(
    offer: &JobOffer,
    path: PathChoice,
    compared: bool,
    contenders: impl Iterator<Item = Contender<'a>>,
) -> Result<Choice, NotStanding> {
    if path == PathChoice::Auction {
        return Err(NotStanding::Forbidden);
    }
    let any = path == PathChoice::Standing;
    let concerned = contenders.filter(|contender| any || contender.is_rival());
    let weighed: Vec<Weighed<'_>> = concerned.filter_map(|contender| weigh(offer, contender)).collect();
    let candidates = || weighed.iter().filter(|w| any || w.contender.is_proven());
    let free = || candidates().filter(|w| w.contender.has_room());
    if candidates().next().is_none() {
        return Err(NotStanding::NobodyKnown);
    }
    let best = free().min_by_key(|w| w.order).ok_or(NotStanding::Full)?;
    let tempting = |w: &Weighed<'_>, wait_ms| better_by_margin(offer.rule, w.weight, best.weight, wait_ms);
    if !any && weighed.iter().any(|w| w.contender.has_room() && tempting(w, AUCTION_MS)) {
        return Err(NotStanding::BetterElsewhere);
    }
    let equal = free().filter(|w| !better_by_margin(offer.rule, best.weight, w.weight, 0));
    let chosen = equal.min_by_key(|w| w.preference(offer)).unwrap_or(best);
    if any || compared || chosen.contender.warm { Ok(chosen.choice(offer)) } else { Err(NotStanding::TimeToCompare) }
}

fn weigh<'a>(offer: &JobOffer, contender: Contender<'a>) -> Option<Weighed<'a>> {
    let (model, _) = quote::best(offer, &contender.ad.models).ok()?;
    let weight = Weight::of(offer, &Terms::from(model), &contender.facts);
    Some(Weighed { contender, model, weight, order: weight.order(offer.rule) })
}

impl Weighed<'_> {
    /// Among those that are as good: less is better.
    fn preference(&self, offer: &JobOffer) -> (bool, u32, Hash) {
        let lot = hash::tagged("infernet/standing-tie/1", &[&offer.id.0, self.contender.worker().as_ref()]);
        (!self.contender.warm, self.contender.load(), lot)
    }

    fn choice(&self, offer: &JobOffer) -> Choice {
        let ad = self.contender.ad;
        Choice {
            worker: ad.signer(),
            ad: ad.digest(),
            model: self.model.id.clone(),
            price: self.model.price,
            chat: ad.chat.iter().map(|address| address.0).collect(),
            score: self.weight.score(offer.rule),
            expected_cost: self.weight.expected_cost(),
            expected_ms: self.weight.expected_ms(),
            warm: self.contender.warm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, ad, node, offer_body};
    use infernet_wire::offer::SelectionRule;

    const DEAR: u64 = 1_000_000;
    const BELIEVED: Regard = Regard::Believed { usual_ms: 5 };

    /// Worker, price, our jobs there, then what else is known.
    type Row = (u16, u64, u32, fn(&mut Contender<'_>));

    fn proven(_: &mut Contender<'_>) {}

    fn newcomer(contender: &mut Contender<'_>) {
        contender.facts = Facts::default();
    }

    fn stranger(contender: &mut Contender<'_>) {
        (contender.facts, contender.regard) = (Facts::default(), Regard::Stranger);
    }

    fn check(path: PathChoice, compared: bool, rows: &[Row], expected: Result<u16, NotStanding>) {
        let ads: Vec<_> = rows.iter().map(|(n, each, ..)| ad(*n, 1, *each, T0)).collect();
        let contenders = ads.iter().zip(rows).map(|(ad, (_, _, running, change))| {
            let facts = Facts { completed: 1, in_row: 1, ..Facts::default() };
            let mut contender = Contender { ad, facts, regard: BELIEVED, running: *running, busy: false, warm: false };
            change(&mut contender);
            contender
        });
        let chosen = choose(&offer_body(), path, compared, contenders);
        assert_eq!(chosen.map(|choice| choice.worker), expected.map(node), "{path}");
    }

    fn auto(rows: &[Row], expected: Result<u16, NotStanding>) {
        check(PathChoice::Auto, true, rows, expected);
    }

    #[test]
    fn only_a_proven_worker_is_taken_at_its_word() {
        auto(&[(1, DEAR, 0, proven)], Ok(1));
        auto(&[(1, DEAR, 0, newcomer)], Err(NotStanding::NobodyKnown));
        auto(&[(1, DEAR, 0, |c| c.regard = Regard::Doubted)], Err(NotStanding::NobodyKnown));
        auto(&[(1, DEAR, 0, |c| c.regard = Regard::Silent)], Err(NotStanding::NobodyKnown));
        auto(&[(1, DEAR, 0, |c| c.facts.in_row = 0)], Err(NotStanding::NobodyKnown));
        auto(&[(1, 20_000_000, 0, proven)], Err(NotStanding::NobodyKnown));
        auto(&[], Err(NotStanding::NobodyKnown));
    }

    #[test]
    fn the_order_may_force_or_forbid_it() {
        check(PathChoice::Standing, false, &[(1, DEAR, 0, stranger), (2, DEAR / 2, 0, stranger)], Ok(2));
        check(PathChoice::Auction, true, &[(1, DEAR, 0, proven)], Err(NotStanding::Forbidden));
        assert_eq!("standing".parse(), Ok(PathChoice::Standing));
        assert!("fast".parse::<PathChoice>().is_err());
    }

    #[test]
    fn a_believed_worker_that_is_cheaper_by_more_than_the_margin_is_worth_an_auction() {
        auto(&[(1, DEAR, 0, proven), (2, DEAR * 97 / 100, 0, newcomer)], Err(NotStanding::BetterElsewhere));
        auto(&[(1, DEAR, 0, proven), (2, DEAR * 99 / 100, 0, newcomer)], Ok(1));
        auto(&[(1, DEAR, 0, proven), (2, 1, 0, stranger)], Ok(1));
        auto(&[(1, DEAR, 0, proven), (2, 1, 0, |c| (newcomer(c), c.busy = true).0)], Ok(1));
    }

    #[test]
    fn a_worker_gets_no_more_of_our_jobs_than_it_has_slots() {
        // The fixture's ads have two slots.
        auto(&[(1, DEAR, 1, proven)], Ok(1));
        auto(&[(1, DEAR, 2, proven)], Err(NotStanding::Full));
        auto(&[(1, DEAR, 0, |c| c.busy = true)], Err(NotStanding::Full));
        auto(&[(1, DEAR, 2, proven), (2, 2 * DEAR, 0, proven)], Ok(2));
    }

    #[test]
    fn of_equals_the_least_loaded_is_asked() {
        auto(&[(1, DEAR, 1, proven), (2, DEAR * 101 / 100, 0, proven)], Ok(2));
        auto(&[(1, DEAR, 1, proven), (2, DEAR * 105 / 100, 0, proven)], Ok(1));
    }

    #[test]
    fn who_has_read_the_conversation_goes_first_and_is_not_compared() {
        let cold = |c: &mut Contender<'_>| c.facts.reread_tokens = 8_000;
        let warm = |c: &mut Contender<'_>| c.warm = true;
        auto(&[(1, DEAR, 1, warm), (2, DEAR, 0, cold)], Ok(1));
        check(PathChoice::Auto, false, &[(1, DEAR, 1, warm), (2, DEAR, 0, cold)], Ok(1));
        check(PathChoice::Auto, false, &[(1, DEAR, 0, warm)], Ok(1));
        check(PathChoice::Auto, false, &[(1, DEAR, 0, proven)], Err(NotStanding::TimeToCompare));
        auto(&[(1, DEAR, 2, warm), (2, DEAR, 0, cold)], Ok(2));
    }

    #[test]
    fn who_wants_the_fastest_is_not_held_up_by_money() {
        let (one, two) = (ad(1, 1, DEAR, T0), ad(2, 1, DEAR / 2, T0));
        let contender = |ad, completed| {
            let facts = Facts { completed, in_row: completed, ..Facts::default() };
            Contender { ad, facts, regard: BELIEVED, running: 0, busy: false, warm: false }
        };
        let mut offer = offer_body();
        offer.rule = SelectionRule::FASTEST;
        let both = [contender(&one, 1), contender(&two, 0)].into_iter();
        assert_eq!(choose(&offer, PathChoice::Auto, true, both).map(|choice| choice.worker), Ok(node(1)));
    }
}
