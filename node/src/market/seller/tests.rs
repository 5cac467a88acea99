//! The worker's decider, input by input.

use super::*;
use crate::market::claim::ClaimError;
use crate::market::fixture::{T0, ad, ad_with, at, model, node, offer, offer_body, price, sign};
use infernet_wire::{
    accept::JobAccept,
    capability::Abilities,
    id::{JobId, OfferId},
    money::MicroUsd,
    standing::{StandingAccept, StandingOffer},
};

const ME: u16 = 1;
const BUYER: u16 = 9;
const DEAR: u64 = 1_000_000;

fn seller(slots: u16) -> Seller {
    let mut seller = Seller::new(node(ME), slots);
    seller.set_catalogue(vec![model("tiny", DEAR, DEAR)]);
    seller
}

/// What the seller says to an offer: the first output.
fn answer(seller: &mut Seller, offer: &Verified<JobOffer>) -> Output {
    seller.handle(Input::Offer(offer.clone()), T0).into_iter().next().expect("every offer has an output")
}

/// Lets the seller bid, signs the bid, and returns the accept that would win it.
fn bid(seller: &mut Seller, offer: &Verified<JobOffer>) -> JobAccept {
    let Output::Bid { body, .. } = answer(seller, offer) else { panic!("a bid") };
    let bid = sign(ME, body);
    seller.bid_signed(offer.digest(), bid.digest());
    JobAccept {
        offer: offer.digest(),
        bid: bid.digest(),
        winner: node(ME),
        model: bid.model.clone(),
        price: bid.price,
        job: JobId([3; 16]),
        attempt: 1,
        runners_up: vec![],
        bids: Hash([0; 32]),
        score: 77,
        issued: T0,
        expires: at(10_000),
        rate: None,
    }
}

#[derive(Debug, PartialEq)]
enum Says {
    Bid,
    NoBid(NoBidReason),
    Nothing(Ignored),
}

fn check(prepare: impl FnOnce(&mut Seller), change: impl FnOnce(&mut JobOffer), expected: Says) {
    let mut seller = seller(2);
    prepare(&mut seller);
    let says = match answer(&mut seller, &offer(BUYER, 1, change)) {
        Output::Bid { .. } => Says::Bid,
        Output::NoBid { body, .. } => Says::NoBid(body.reason),
        Output::Ignored(reason) => Says::Nothing(reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(says, expected);
}

#[test]
fn every_offer_meets_a_bid_a_reason_or_silence() {
    check(|_| {}, |_| {}, Says::Bid);
    check(|seller| seller.set_draining(true), |_| {}, Says::NoBid(NoBidReason::DRAINING));
    check(|seller| seller.set_store_full(true), |_| {}, Says::NoBid(NoBidReason::STORE_FULL));
    check(|seller| seller.set_credit_left(MicroUsd(0)), |_| {}, Says::NoBid(NoBidReason::NO_CREDIT));
    check(|_| {}, |offer| offer.ceiling.output = MicroUsd(DEAR - 1), Says::NoBid(NoBidReason::CEILING_TOO_LOW));
    check(|_| {}, |offer| offer.abilities = Abilities::TOOLS, Says::NoBid(NoBidReason::MISSING_ABILITY));
    check(|_| {}, |offer| offer.model = "other".into(), Says::Nothing(Ignored::OtherModel));
    check(|_| {}, |offer| offer.workload = "ffmpeg.transcode".into(), Says::Nothing(Ignored::OtherWorkload));
}

#[test]
fn who_advertised_what_is_gone_says_so() {
    let advertise = |seller: &mut Seller| _ = seller.handle(Input::Ad(ad(ME, 1, 1, T0)), T0);
    let lose_the_engine = |seller: &mut Seller| {
        advertise(seller);
        seller.set_catalogue(vec![]);
    };
    check(lose_the_engine, |_| {}, Says::NoBid(NoBidReason::NO_ENGINE));
    let lose_the_model = |seller: &mut Seller| {
        advertise(seller);
        seller.set_catalogue(vec![model("other", 1, 1)]);
    };
    check(lose_the_model, |_| {}, Says::NoBid(NoBidReason::UNKNOWN_MODEL));
}

#[test]
fn among_many_rivals_some_stay_silent() {
    let answers = (0..40).filter(|id| {
        let mut seller = seller(2);
        (100..300).for_each(|n| _ = seller.handle(Input::Ad(ad(n, 1, 1, T0)), T0));
        matches!(answer(&mut seller, &offer(BUYER, *id, |_| {})), Output::Bid { .. })
    });
    let answers = answers.count();
    assert!((1..20).contains(&answers), "{answers} of 40, of which 32 in 201 are expected");
}

#[test]
fn own_and_replayed_offers_are_left_alone() {
    let mut seller = seller(2);
    let (own, foreign) = (offer(ME, 1, |_| {}), offer(BUYER, 1, |_| {}));
    assert_eq!(answer(&mut seller, &own), Output::Ignored(Ignored::Own));
    let accept = sign(BUYER, bid(&mut seller, &foreign));
    assert_eq!(answer(&mut seller, &foreign), Output::Ignored(Ignored::Replayed));
    assert!(seller.claim(&accept, node(BUYER), T0).is_ok());
    assert_eq!(answer(&mut seller, &foreign), Output::Ignored(Ignored::Replayed));
    assert_eq!((seller.admission().running(), seller.admission().held()), (1, 0));
}

fn check_claim(change: impl FnOnce(&mut JobAccept), signer: u16, from: u16, ms: u64, expected: Option<ClaimError>) {
    let mut seller = seller(2);
    let mut accept = bid(&mut seller, &offer(BUYER, 1, |_| {}));
    change(&mut accept);
    assert_eq!(seller.claim(&sign(signer, accept), node(from), at(ms)).err(), expected);
    assert_eq!(seller.admission().running(), usize::from(expected.is_none()));
}

#[test]
fn only_the_accept_of_our_bid_by_its_buyer_is_honoured() {
    check_claim(|_| {}, BUYER, BUYER, 0, None);
    check_claim(|_| {}, BUYER, 8, 0, Some(ClaimError::WrongBuyer));
    check_claim(|_| {}, 8, 8, 0, Some(ClaimError::WrongBuyer));
    check_claim(|_| {}, 8, BUYER, 0, Some(ClaimError::WrongBuyer));
    check_claim(|accept| accept.winner = node(2), BUYER, BUYER, 0, Some(ClaimError::NotWinner));
    check_claim(|accept| accept.bid = Hash([1; 32]), BUYER, BUYER, 0, Some(ClaimError::WrongBid));
    check_claim(|accept| accept.offer = Hash([1; 32]), BUYER, BUYER, 0, Some(ClaimError::NoHold));
    check_claim(|accept| accept.price.output = MicroUsd(1), BUYER, BUYER, 0, Some(ClaimError::TermsDiffer));
    check_claim(|accept| accept.model = "other".into(), BUYER, BUYER, 0, Some(ClaimError::TermsDiffer));
    check_claim(|_| {}, BUYER, BUYER, 1_501, Some(ClaimError::Lapsed));
    check_claim(|_| {}, BUYER, BUYER, 20_001, Some(ClaimError::Expired));
}

#[test]
fn an_accept_is_used_once() {
    let mut seller = seller(2);
    let accept = sign(BUYER, bid(&mut seller, &offer(BUYER, 1, |_| {})));
    let claim = seller.claim(&accept, node(BUYER), T0).expect("a slot");
    assert_eq!((claim.job, claim.accept, claim.standing), (accept.job, accept.digest(), false));
    assert_eq!(seller.claim(&accept, node(BUYER), T0).err(), Some(ClaimError::AlreadyUsed));
    seller.finish(&accept.job, true);
    assert_eq!(seller.claim(&accept, node(BUYER), T0).err(), Some(ClaimError::AlreadyUsed));
    assert!(seller.admission().is_known(&node(BUYER)));
    assert_eq!(seller.tally().claims_refused, BTreeMap::from([("already_used", 2)]));
}

#[test]
fn a_loser_lets_go_and_learns_the_score() {
    let check = |signer, change: fn(&mut JobAccept), released: bool| {
        let mut seller = seller(2);
        let mut accept = bid(&mut seller, &offer(BUYER, 1, |_| {}));
        accept.winner = node(2);
        change(&mut accept);
        let outputs = seller.handle(Input::Accept(sign(signer, accept)), T0);
        let lost = outputs.iter().any(|output| matches!(output, Output::Lost { winning_score: 77, .. }));
        assert_eq!((lost, seller.admission().held()), (released, usize::from(!released)));
    };
    check(BUYER, |_| {}, true);
    check(8, |_| {}, false);
    check(BUYER, |accept| accept.winner = node(ME), false);
    check(BUYER, |accept| accept.runners_up = vec![node(3), node(ME)], false);
}

#[test]
fn the_cheapest_model_is_bid_and_a_wake_is_asked_for() {
    let mut seller = seller(2);
    let mut cheap = model("small", 1, 1);
    cheap.aliases = vec!["tiny".into()];
    seller.set_catalogue(vec![model("tiny", DEAR, DEAR), cheap]);
    seller.handle(Input::Ad(ad_with(2, 1, vec![model("tiny", 1, 1)], T0)), T0);
    let outputs = seller.handle(Input::Offer(offer(BUYER, 1, |_| {})), T0);
    let [Output::Bid { buyer, body }, Output::Wake { at: wake }] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!((*buyer, body.model.as_str(), *wake), (node(BUYER), "small", at(1_501)));
    assert!(seller.handle(Input::Wake, *wake).is_empty());
    assert_eq!(seller.admission().lapsed(), 1);
}

/// The seller's ad for `tiny` at `each`, as it goes out at `ms`.
fn advertise(seller: &mut Seller, sequence: u64, each: u64, ms: u64) -> Hash {
    let own = ad(ME, sequence, each, at(ms));
    let digest = own.digest();
    seller.handle(Input::Ad(own), at(ms));
    digest
}

/// What a buyer sends for the ad with digest `ad`: offer number `id` for `tiny`, and the accept, each changed.
fn standing_accept(ad: Hash, id: u8, offer: impl FnOnce(&mut JobOffer), accept: impl FnOnce(&mut JobAccept)) -> StandingAccept {
    signed_standing(BUYER, ad, id, offer, accept)
}

fn signed_standing(
    signer: u16,
    ad: Hash,
    id: u8,
    offer: impl FnOnce(&mut JobOffer),
    accept: impl FnOnce(&mut JobAccept),
) -> StandingAccept {
    let mut body = JobOffer { id: OfferId([id; 16]), ..offer_body() };
    offer(&mut body);
    let offer = StandingOffer::new(body).expect("within limits");
    let mut body = JobAccept {
        offer: offer.digest(),
        bid: ad,
        winner: node(ME),
        model: "tiny".into(),
        price: price(DEAR, DEAR),
        job: JobId([id; 16]),
        attempt: 1,
        runners_up: vec![],
        bids: Hash([0; 32]),
        score: 77,
        issued: T0,
        expires: at(10_000),
        rate: None,
    };
    accept(&mut body);
    StandingAccept::read(sign(signer, body), offer.payload(), T0).expect("its own offer")
}

#[test]
fn a_live_ad_is_a_bid_to_whoever_accepts_it() {
    let mut seller = seller(2);
    let ad = advertise(&mut seller, 1, DEAR, 0);
    let accept = standing_accept(ad, 1, |_| {}, |_| {});
    let digest = accept.accept().digest();
    let claim = seller.claim_standing(accept.clone(), node(BUYER), T0).expect("a slot");
    assert_eq!((claim.accept, claim.price, claim.standing), (digest, price(DEAR, DEAR), true));
    assert_eq!((seller.admission().running(), seller.tally().standing, seller.tally().claims), (1, 1, 0));
    assert_eq!(seller.claim_standing(accept.clone(), node(BUYER), T0).err(), Some(ClaimError::AlreadyUsed));
    seller.finish(&claim.job, true);
    assert_eq!(seller.claim_standing(accept, node(BUYER), at(15_000)).err(), Some(ClaimError::AlreadyUsed));
    let ending = seller.outcomes().iter().map(|outcome| outcome.ending).collect::<Vec<_>>();
    assert_eq!(ending, [Ending::Standing]);
}

/// A seller that advertises at `DEAR`, prepared; then an accept of its ad, changed.
fn check_standing(
    prepare: impl FnOnce(&mut Seller),
    offer: impl FnOnce(&mut JobOffer),
    accept: impl FnOnce(&mut JobAccept),
    expected: Option<ClaimError>,
) {
    let mut seller = seller(2);
    let ad = advertise(&mut seller, 1, DEAR, 0);
    prepare(&mut seller);
    let accept = standing_accept(ad, 1, offer, accept);
    assert_eq!(seller.claim_standing(accept, node(BUYER), T0).err(), expected);
    assert_eq!(seller.admission().running(), usize::from(expected.is_none()));
}

#[test]
fn an_ad_promises_what_it_says_and_nothing_else() {
    let unwilling = |reason| Some(ClaimError::Unwilling(reason));
    check_standing(|_| {}, |_| {}, |_| {}, None);
    check_standing(|_| {}, |_| {}, |accept| accept.bid = Hash([1; 32]), Some(ClaimError::UnknownAd));
    check_standing(|_| {}, |_| {}, |accept| accept.winner = node(2), Some(ClaimError::NotWinner));
    check_standing(|_| {}, |_| {}, |accept| accept.model = "small".into(), Some(ClaimError::TermsDiffer));
    check_standing(|_| {}, |_| {}, |accept| accept.price.input = MicroUsd(1), Some(ClaimError::TermsDiffer));
    check_standing(|_| {}, |offer| offer.model = "other".into(), |_| {}, unwilling(NoBidReason::UNKNOWN_MODEL));
    check_standing(|_| {}, |offer| offer.budget = MicroUsd(1), |_| {}, unwilling(NoBidReason::BUDGET_TOO_LOW));
    check_standing(|_| {}, |offer| offer.abilities = Abilities::TOOLS, |_| {}, unwilling(NoBidReason::MISSING_ABILITY));
    check_standing(|seller| seller.set_draining(true), |_| {}, |_| {}, unwilling(NoBidReason::DRAINING));
    check_standing(|seller| seller.set_catalogue(vec![]), |_| {}, |_| {}, unwilling(NoBidReason::NO_ENGINE));
    let swap = |seller: &mut Seller| seller.set_catalogue(vec![model("other", 1, 1)]);
    check_standing(swap, |_| {}, |_| {}, unwilling(NoBidReason::UNKNOWN_MODEL));
}

#[test]
fn a_standing_accept_is_its_signers_alone() {
    let mut seller = seller(2);
    let ad = advertise(&mut seller, 1, DEAR, 0);
    let stolen = standing_accept(ad, 1, |_| {}, |_| {});
    assert_eq!(seller.claim_standing(stolen, node(8), T0).err(), Some(ClaimError::WrongBuyer));
    let own = signed_standing(8, ad, 1, |_| {}, |_| {});
    assert!(seller.claim_standing(own, node(8), T0).is_ok());
}

#[test]
fn a_dearer_price_does_not_bind_who_accepted_the_older_ad() {
    let mut seller = seller(2);
    let old = advertise(&mut seller, 1, DEAR, 0);
    seller.set_catalogue(vec![model("tiny", 9 * DEAR, 9 * DEAR)]);
    let new = advertise(&mut seller, 2, 9 * DEAR, 1);
    let claim = seller.claim_standing(standing_accept(old, 1, |_| {}, |_| {}), node(BUYER), at(1)).expect("the old price");
    assert_eq!(claim.price, price(DEAR, DEAR));
    let wrong = standing_accept(new, 2, |_| {}, |_| {});
    assert_eq!(seller.claim_standing(wrong, node(BUYER), at(1)).err(), Some(ClaimError::TermsDiffer));
}

#[test]
fn nothing_from_before_the_start_is_honoured() {
    let mut seller = seller(2);
    seller.set_started(at(1));
    let old = advertise(&mut seller, 1, DEAR, 0);
    let accept = standing_accept(old, 1, |_| {}, |accept| accept.issued = at(1));
    assert_eq!(
        seller.claim_standing(accept, node(BUYER), at(1)).err(),
        Some(ClaimError::UnknownAd),
        "its ad came back by gossip"
    );
    let new = advertise(&mut seller, 2, DEAR, 1);
    let accept = standing_accept(new, 1, |_| {}, |_| {});
    assert_eq!(seller.claim_standing(accept, node(BUYER), at(1)).err(), Some(ClaimError::BeforeStart));
}

/// How a lost bid of 300 tokens at 1 USD per million, with all speeds unknown, is explained.
#[test]
fn a_lost_bid_tells_what_to_change() {
    let check = |each: u64, score: u64, expected: Ending| {
        let mut seller = seller(2);
        let mut accept = bid(&mut seller, &offer(BUYER, 1, |_| {}));
        (accept.winner, accept.price, accept.score) = (node(2), price(each, each), score);
        seller.handle(Input::Accept(sign(BUYER, accept)), T0);
        let outcome = seller.outcomes().iter().last().expect("an outcome").clone();
        assert_eq!((outcome.ending, outcome.winner.map(|winner| winner.score)), (expected, Some(score)));
        assert_eq!(seller.tally().lost_by, BTreeMap::from([(expected.label(), 1)]));
    };
    check(DEAR - 1, 1, Ending::Dearer);
    check(DEAR, 1, Ending::Slower);
    check(DEAR + 1, 1, Ending::Slower);
    check(DEAR + 1, 1_000_000, Ending::Outranked);
}

#[test]
fn a_runner_up_that_was_not_needed_has_lost_and_knows_why() {
    let mut seller = seller(2);
    let mut accept = bid(&mut seller, &offer(BUYER, 1, |_| {}));
    (accept.winner, accept.price, accept.score) = (node(2), price(DEAR - 1, DEAR - 1), 1);
    accept.runners_up = vec![node(ME)];
    seller.handle(Input::Accept(sign(BUYER, accept)), T0);
    assert_eq!((seller.tally().lost, seller.admission().held()), (0, 1));
    seller.handle(Input::Wake, at(9_000));
    let outcome = seller.outcomes().iter().last().expect("an outcome");
    assert_eq!((outcome.ending, outcome.winner.map(|winner| winner.score)), (Ending::Dearer, Some(1)));
    assert_eq!(seller.tally().lost_by, BTreeMap::from([("dearer", 1)]));
    assert_eq!((seller.tally().lost, seller.lapsed(), seller.admission().held()), (1, 0, 0));
}

#[test]
fn bids_that_nobody_took_lapse_or_are_superseded() {
    let mut seller = seller(4);
    bid(&mut seller, &offer(BUYER, 1, |_| {}));
    bid(&mut seller, &offer(BUYER, 2, |_| {}));
    seller.handle(Input::Wake, at(9_000));
    answer(&mut seller, &offer(BUYER, 3, |offer| offer.budget = MicroUsd(1)));
    let endings: Vec<_> = seller.outcomes().iter().map(|outcome| outcome.ending).collect();
    assert_eq!(endings, [Ending::Superseded, Ending::Lapsed, Ending::Refused(NoBidReason::BUDGET_TOO_LOW)]);
    assert_eq!((seller.tally().superseded, seller.admission().lapsed()), (1, 1));
}

#[test]
fn what_others_ask_for_is_counted_by_model_and_buyer() {
    let mut seller = seller(4);
    for id in 0..3 {
        answer(&mut seller, &offer(BUYER, id, |offer| offer.model = "llama3.1:70b".into()));
    }
    answer(&mut seller, &offer(7, 0, |offer| offer.model = "llama3.1:70b".into()));
    let demand = seller.wanted().get(&"llama3.1:70b".to_owned()).expect("it is wanted");
    assert_eq!((demand.offers(), demand.buyers()), (4, 2));
    (0..200u8).for_each(|id| _ = answer(&mut seller, &offer(8, id, |offer| offer.model = format!("m{id}"))));
    assert_eq!(seller.wanted().len(), MAX_WANTED);
}

#[test]
fn draining_keeps_the_promises_that_were_made() {
    let mut seller = seller(4);
    let accept = sign(BUYER, bid(&mut seller, &offer(BUYER, 1, |_| {})));
    seller.set_draining(true);
    assert!(seller.claim(&accept, node(BUYER), T0).is_ok(), "the bid binds");
    assert!(matches!(answer(&mut seller, &offer(8, 2, |_| {})), Output::NoBid { .. }));
    seller.set_draining(false);
    assert!(matches!(answer(&mut seller, &offer(8, 3, |_| {})), Output::Bid { .. }));
}

#[test]
fn a_runner_up_takes_over_with_the_second_accept() {
    let mut seller = seller(2);
    let mut first = bid(&mut seller, &offer(BUYER, 1, |_| {}));
    let own = first.clone();
    (first.winner, first.bid, first.runners_up) = (node(2), Hash([2; 32]), vec![node(ME)]);
    assert_eq!(
        seller.handle(Input::Accept(sign(BUYER, first)), T0).iter().filter(|o| matches!(o, Output::Lost { .. })).count(),
        0
    );
    let second = sign(BUYER, JobAccept { attempt: 2, ..own });
    assert!(seller.claim(&second, node(BUYER), at(1_500)).is_ok(), "its hold lasts");
    assert_eq!(seller.tally().lost, 0);
}

#[test]
fn a_closed_worker_refuses_with_its_reason_and_keeps_what_it_promised() {
    let close = |seller: &mut Seller| seller.set_closed(Some(NoBidReason::TOO_HOT));
    check(close, |_| {}, Says::NoBid(NoBidReason::TOO_HOT));
    check_standing(close, |_| {}, |_| {}, Some(ClaimError::Unwilling(NoBidReason::TOO_HOT)));
    let mut seller = seller(2);
    seller.mark_known(node(BUYER));
    let accept = sign(BUYER, bid(&mut seller, &offer(BUYER, 1, |_| {})));
    close(&mut seller);
    assert!(seller.claim(&accept, node(BUYER), T0).is_ok(), "a hold is a promise");
    assert_eq!(seller.tally().no_bids.len(), 0);
    answer(&mut seller, &offer(BUYER, 2, |_| {}));
    assert_eq!(seller.tally().no_bids, [("too_hot", 1)].into());
    seller.set_closed(None);
    bid(&mut seller, &offer(BUYER, 3, |_| {}));
}

/// The price that the seller asks of a buyer who pays up to ten times `DEAR`.
fn asked(seller: &mut Seller, buyer: u16) -> Price {
    let rich = |offer: &mut JobOffer| {
        offer.ceiling = price(10 * DEAR, 10 * DEAR);
        offer.budget = MicroUsd(u64::MAX);
    };
    let offer = offer(buyer, 1, rich);
    let Output::Bid { body, .. } = answer(seller, &offer) else { panic!("a bid for {buyer}") };
    body.price
}

#[test]
fn bids_follow_the_load_and_the_ad_keeps_its_price() {
    let mut seller = seller(4);
    (20..25).for_each(|buyer| seller.mark_known(node(buyer)));
    seller.set_pricing(Pricing { rise_percent: 90, ..Pricing::flat(price(DEAR, DEAR)) });
    let prices: Vec<u64> = (20..24).map(|buyer| asked(&mut seller, buyer).output.0).collect();
    assert_eq!(prices, [DEAR, 1_300_000, 1_600_000, 1_900_000]);
    assert_eq!(seller.price_now(price(DEAR, 0)), price(1_900_000, 0));
    // All lapse.
    seller.handle(Input::Wake, at(60_000));
    assert_eq!(seller.price_now(price(DEAR, DEAR)), price(DEAR, DEAR));
    let ad = advertise(&mut seller, 1, DEAR, 60_000);
    asked(&mut seller, 24);
    let accept = standing_accept(ad, 1, |_| {}, |_| {});
    assert_eq!(seller.claim_standing(accept, node(BUYER), T0).map(|claim| claim.price), Ok(price(DEAR, DEAR)));
}

#[test]
fn a_buyer_does_not_pay_for_the_load_of_its_own_older_hold() {
    let mut seller = seller(4);
    seller.set_pricing(Pricing { rise_percent: 90, ..Pricing::flat(price(DEAR, DEAR)) });
    assert_eq!(asked(&mut seller, BUYER).output.0, DEAR);
    let rich = |offer: &mut JobOffer| {
        offer.ceiling = price(10 * DEAR, 10 * DEAR);
        offer.budget = MicroUsd(u64::MAX);
    };
    let Output::Bid { body, .. } = answer(&mut seller, &offer(BUYER, 2, rich)) else { panic!("a bid") };
    assert_eq!((body.price.output.0, seller.admission().held()), (DEAR, 1));
}

#[test]
fn a_price_has_moved_when_the_ad_is_far_from_it() {
    let mut seller = seller(4);
    (20..25).for_each(|buyer| seller.mark_known(node(buyer)));
    let pricing = |floor| Pricing { rise_percent: 90, floor: price(floor, floor), ..Pricing::flat(price(DEAR, DEAR)) };
    seller.set_pricing(pricing(0));
    assert!(!seller.prices_moved(T0), "nothing was said");
    advertise(&mut seller, 1, DEAR, 0);
    assert!(!seller.prices_moved(T0));
    asked(&mut seller, 20);
    assert!(seller.prices_moved(T0), "the second slot is dearer by 30 %");
    advertise(&mut seller, 2, 1_300_000, 0);
    assert!(!seller.prices_moved(T0));
    // A floor far above: whatever the load, the price stays.
    seller.set_pricing(pricing(9 * DEAR));
    advertise(&mut seller, 3, 9 * DEAR, 0);
    (21..24).for_each(|buyer| _ = asked(&mut seller, buyer));
    assert!(!seller.prices_moved(T0));
    seller.set_pricing(pricing(20 * DEAR));
    assert!(seller.prices_moved(T0), "the floor has risen");
}

#[test]
fn a_ceiling_between_the_idle_and_the_busy_price_is_too_low_only_while_it_is_busy() {
    let mut seller = seller(2);
    seller.mark_known(node(20));
    seller.set_pricing(Pricing { rise_percent: 100, ..Pricing::flat(price(DEAR, DEAR)) });
    let ceiling = |offer: &mut JobOffer| offer.ceiling = price(DEAR, DEAR);
    assert!(matches!(answer(&mut seller, &offer(20, 1, ceiling)), Output::Bid { .. }));
    let Output::NoBid { body, .. } = answer(&mut seller, &offer(21, 1, ceiling)) else { panic!("a refusal") };
    assert_eq!(body.reason, NoBidReason::CEILING_TOO_LOW);
}

#[test]
fn a_model_has_at_most_its_own_slots() {
    let mut seller = seller(8);
    let slots = [("tiny".to_owned(), 1)].into();
    seller.set_pricing(Pricing { slots, ..Pricing::flat(price(DEAR, DEAR)) });
    let accept = sign(BUYER, bid(&mut seller, &offer(BUYER, 1, |_| {})));
    let refused = |seller: &mut Seller, id| match answer(seller, &offer(20, id, |_| {})) {
        Output::NoBid { body, .. } => Some(body.reason),
        _ => None,
    };
    assert_eq!(refused(&mut seller, 1), Some(NoBidReason::NO_SLOT), "its slot is held");
    let job = seller.claim(&accept, node(BUYER), T0).expect("the hold").job;
    assert_eq!(refused(&mut seller, 2), Some(NoBidReason::NO_SLOT), "its slot runs");
    let ad = advertise(&mut seller, 1, DEAR, 0);
    let standing = signed_standing(21, ad, 1, |_| {}, |accept| accept.job = JobId([7; 16]));
    let unwilling = Some(ClaimError::Unwilling(NoBidReason::NO_SLOT));
    assert_eq!(seller.claim_standing(standing, node(21), T0).err(), unwilling);
    seller.settle(&job);
    assert_eq!(refused(&mut seller, 3), None, "it is free while the receipt is signed");
}

#[test]
fn one_buyers_hold_and_its_standing_job_are_two_jobs_of_a_model() {
    let mut seller = seller(8);
    seller.mark_known(node(BUYER));
    seller.set_pricing(Pricing { slots: [("tiny".to_owned(), 1)].into(), ..Pricing::flat(price(DEAR, DEAR)) });
    let ad = advertise(&mut seller, 1, DEAR, 0);
    let held = sign(BUYER, bid(&mut seller, &offer(BUYER, 1, |_| {})));
    let standing = |id| standing_accept(ad, id, |_| {}, |_| {});
    let unwilling = Some(ClaimError::Unwilling(NoBidReason::NO_SLOT));
    assert_eq!(seller.claim_standing(standing(7), node(BUYER), T0).err(), unwilling, "the hold binds us");
    assert!(seller.claim(&held, node(BUYER), T0).is_ok());
    assert_eq!(seller.claim_standing(standing(8), node(BUYER), T0).err(), unwilling, "it runs");
}

#[test]
fn a_hold_that_is_over_keeps_no_model_slot() {
    let mut seller = seller(8);
    seller.set_pricing(Pricing { slots: [("tiny".to_owned(), 1)].into(), ..Pricing::flat(price(DEAR, DEAR)) });
    bid(&mut seller, &offer(20, 1, |_| {}));
    let ad = advertise(&mut seller, 1, DEAR, 0);
    // No other input has closed the bid yet.
    let claim = seller.claim_standing(standing_accept(ad, 7, |_| {}, |_| {}), node(BUYER), at(2_000));
    assert!(claim.is_ok(), "{claim:?}");
}
