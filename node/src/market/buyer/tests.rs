//! The buyer's decider, input by input.

use super::*;
use crate::market::{
    affinity::Prefix,
    auction::CloseReason,
    fixture::{T0, ad, at, bid_with, bids, node, offer, offer_body},
    patience::UNSERVED_GRACE_MS,
    standing::{COMPARE_EVERY_MS, NotStanding},
};

fn facts(observations: &[Observation]) -> Facts {
    let mut buyer = Buyer::default();
    observations.iter().for_each(|observation| buyer.observe(node(1), *observation));
    buyer.facts(&node(1))
}

#[test]
fn observations_are_smoothed() {
    let facts = facts(&[
        Observation::Rtt(10),
        Observation::Rtt(50),
        Observation::Completed { ttft_ms: 100, tps: 40 },
        Observation::Completed { ttft_ms: 200, tps: 40 },
    ]);
    assert_eq!((facts.rtt_ms, facts.measured_ttft_ms, facts.measured_tps), (Some(20), Some(125), Some(40)));
    assert_eq!((facts.completed, facts.failed), (2, 0));
}

#[test]
fn old_failures_fade() {
    let mut story = vec![Observation::Failed; 60];
    story.extend([Observation::Completed { ttft_ms: 1, tps: 1 }; 200]);
    let facts = facts(&story);
    assert!(facts.failed < 4 && facts.completed > 20, "{facts:?}");
}

/// A buyer that knows an ad of worker 1 at a dollar, has auctioned `tiny` just now, and has had a job done by it.
fn proven() -> Buyer {
    let mut buyer = Buyer::default();
    buyer.handle(Input::Ad(ad(1, 1, 1_000_000, T0)), T0);
    buyer.handle(Input::Open(offer(9, 1, |_| {}), Default::default()), T0);
    buyer.observe(node(1), Observation::Completed { ttft_ms: 100, tps: 50 });
    buyer
}

fn standing(buyer: &mut Buyer, wishes: &Wishes, ms: u64) -> Result<NodeId, NotStanding> {
    buyer.standing(&offer_body(), wishes, &[], |_| 0, at(ms)).map(|choice| choice.worker)
}

#[test]
fn a_workers_word_is_good_after_a_job_that_went_well_and_until_one_that_did_not() {
    let (mut buyer, any) = (proven(), Wishes::default());
    assert_eq!(standing(&mut buyer, &any, 1), Ok(node(1)));
    buyer.observe(node(1), Observation::Failed);
    assert_eq!(standing(&mut buyer, &any, 1), Err(NotStanding::NobodyKnown));
    buyer.observe(node(1), Observation::Settled);
    assert_eq!(standing(&mut buyer, &any, 1), Ok(node(1)));
    assert_eq!(buyer.standing(&offer_body(), &any, &[node(1)], |_| 0, at(1)).err(), Some(NotStanding::NobodyKnown));
    assert_eq!(buyer.standing(&offer_body(), &any, &[], |_| 2, at(1)).err(), Some(NotStanding::Full));
    assert_eq!(standing(&mut buyer, &any, 101_000), Err(NotStanding::NobodyKnown), "the ad has expired");
}

#[test]
fn a_refusal_is_believed_for_a_moment() {
    let (mut buyer, any) = (proven(), Wishes::default());
    buyer.refused_standing(node(1), at(1));
    assert_eq!(standing(&mut buyer, &any, 1_000), Err(NotStanding::Full));
    assert_eq!(standing(&mut buyer, &any, 1_001), Ok(node(1)));
    buyer.refused_standing(node(1), at(2_000));
    buyer.observe(node(1), Observation::Completed { ttft_ms: 100, tps: 50 });
    assert_eq!(standing(&mut buyer, &any, 2_000), Ok(node(1)), "one of our jobs there has ended");
}

#[test]
fn one_job_in_five_minutes_is_auctioned_and_a_conversation_is_not() {
    let (mut buyer, any) = (proven(), Wishes::default());
    let prefix = Prefix { digest: Hash([1; 32]), tokens: 500 };
    let talk = Wishes { conversation: Conversation(vec![prefix]), ..Wishes::default() };
    let later = COMPARE_EVERY_MS;
    [1, 2].iter().for_each(|n| _ = buyer.handle(Input::Ad(ad(*n, 2, 1_000_000, at(later))), at(later)));
    buyer.observe(node(2), Observation::Completed { ttft_ms: 100, tps: 50 });
    buyer.answered(&talk.conversation, node(2), at(later));
    assert_eq!(standing(&mut buyer, &talk, later), Ok(node(2)));
    assert_eq!(standing(&mut buyer, &any, later), Err(NotStanding::TimeToCompare));
    assert!(standing(&mut buyer, &any, later).is_ok(), "the others need not wait for that auction");
}

#[test]
fn whom_the_buyer_does_not_trust_neither_bids_nor_stands() {
    let mut buyer = proven();
    let wishes = Wishes { trust: Trust { deny: [node(1)].into(), ..Trust::default() }, ..Wishes::default() };
    assert_eq!(standing(&mut buyer, &wishes, 1), Err(NotStanding::NobodyKnown));
    assert_eq!(buyer.left_out("tiny", &wishes.trust, at(1)), BTreeMap::from([(LeftOut::Denied, 1)]));
    let offer = offer(9, 2, |_| {});
    buyer.handle(Input::Open(offer.clone(), Arc::new(wishes)), at(1));
    let outputs = buyer.handle(Input::Answer(bids(1, &offer, 1)), at(2));
    let refused = |output: &Output| matches!(output, Output::Refused { reason: AnswerRefused::Untrusted, .. });
    assert!(outputs.iter().any(refused), "{outputs:?}");
    let reputable = Trust { min_reputation: 2, ..Trust::default() };
    assert_eq!(buyer.left_out("tiny", &reputable, at(1)), BTreeMap::from([(LeftOut::Reputation, 1)]));
    buyer.observe(node(1), Observation::Settled);
    assert!(buyer.left_out("tiny", &reputable, at(1)).is_empty());
}

#[test]
fn a_bid_of_the_conversations_worker_outranks_an_equal_one() {
    let mut buyer = Buyer::default();
    let prefix = Prefix { digest: Hash([1; 32]), tokens: 4_000 };
    let wishes = Arc::new(Wishes { conversation: Conversation(vec![prefix]), ..Wishes::default() });
    buyer.answered(&wishes.conversation, node(2), T0);
    for id in 0..8 {
        let offer = offer(9, id, |_| {});
        buyer.handle(Input::Open(offer.clone(), wishes.clone()), T0);
        (1..=3).for_each(|n| _ = buyer.handle(Input::Answer(bids(n, &offer, 1_000_000)), at(2)));
        let outputs = buyer.handle(Input::Wake, at(1_000));
        let won = outputs.iter().find_map(|output| match output {
            Output::Closed { outcome: Closed::Won(won), .. } => Some(won.ranking[0].worker),
            _ => None,
        });
        assert_eq!(won, Some(node(2)));
    }
}

#[test]
fn too_many_auctions_are_refused_at_once() {
    let mut buyer = Buyer::default();
    for id in 0..MAX_OPEN_AUCTIONS as u8 {
        let outputs = buyer.handle(Input::Open(offer(9, id, |_| {}), Default::default()), T0);
        assert!(matches!(outputs.as_slice(), [Output::Wake { at: wake }] if *wake == at(1_000)), "{outputs:?}");
    }
    let outputs = buyer.handle(Input::Open(offer(9, 255, |_| {}), Default::default()), T0);
    assert!(matches!(outputs.as_slice(), [Output::Busy { .. }, Output::Wake { .. }]), "{outputs:?}");
}

#[test]
fn an_abandoned_auction_tells_nothing_and_blames_nobody() {
    let mut buyer = Buyer::default();
    buyer.handle(Input::Ad(ad(1, 1, 1, T0)), T0);
    let offer = offer(9, 1, |_| {});
    buyer.handle(Input::Open(offer.clone(), Default::default()), T0);
    assert!(buyer.handle(Input::Abandon(offer.digest()), T0).is_empty());
    let outputs = buyer.handle(Input::Answer(bids(1, &offer, 1)), at(5));
    assert!(matches!(outputs.as_slice(), [Output::Refused { reason: AnswerRefused::WrongOffer, .. }]), "{outputs:?}");
    assert!(buyer.records().is_empty());
}

#[test]
fn a_replayed_input_changes_nothing() {
    let mut buyer = Buyer::default();
    (1..=2).for_each(|n| _ = buyer.handle(Input::Ad(ad(n, 1, 1_000_000, T0)), T0));
    let offer = offer(9, 1, |_| {});
    let script = || [Input::Open(offer.clone(), Default::default()), Input::Answer(bids(1, &offer, 1_000_000))];
    script().into_iter().for_each(|input| _ = buyer.handle(input, T0));
    let before = *buyer.records().get(&node(1)).expect("answered");
    for now in [T0, at(2_000), at(2_001)] {
        script().into_iter().for_each(|input| _ = buyer.handle(input, now));
    }
    assert_eq!(buyer.records().get(&node(1)), Some(&before));
    assert_eq!(buyer.open_auctions(), 0);
}

/// How long a buyer that heard an ad for `tiny` at each of `ads` keeps an auction for `model` open, and why it ends it, if
/// nobody answers.
fn check_unanswered(model: &str, ads: &[u64], opened: u64, expected: (u64, CloseReason)) {
    let mut buyer = Buyer::default();
    (1..).zip(ads).for_each(|(n, ms)| _ = buyer.handle(Input::Ad(ad(1, n, 1_000_000, at(*ms))), at(*ms)));
    let offer = offer(9, 1, |offer| {
        (offer.model, offer.issued, offer.expires) = (model.into(), at(opened), at(opened + 30_000));
    });
    let outputs = buyer.handle(Input::Open(offer, Default::default()), at(opened));
    let [Output::Wake { at: wake }] = outputs.as_slice() else { panic!("{outputs:?}") };
    let outputs = buyer.handle(Input::Wake, *wake);
    let [Output::Closed { outcome: Closed::NoBids { reason, .. }, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!((wake.since(at(opened)), *reason), expected, "{model} {ads:?} {opened}");
}

#[test]
fn a_model_that_nobody_advertises_is_not_waited_for_by_who_would_know() {
    let (short, long) = ((UNSERVED_GRACE_MS, CloseReason::Unserved), (1_000, CloseReason::WindowEnded));
    let refreshed = [0, 40_000, 80_000];
    check_unanswered("other", &refreshed, 80_000, short);
    check_unanswered("tiny", &refreshed, 80_000, long);
    check_unanswered("other", &[], 80_000, long);
    // Just started, or just come back after a silence.
    check_unanswered("other", &[0, 40_000], 44_999, long);
    check_unanswered("other", &[0, 40_000], 45_000, short);
    check_unanswered("other", &[0, 40_000, 131_000], 132_000, long);
    // Cut off now: whom we knew has expired, and says nothing about who is there.
    check_unanswered("other", &[0, 40_000], 131_000, long);
}

#[test]
fn a_bid_for_a_model_that_nobody_advertised_still_wins_within_the_grace() {
    let mut buyer = Buyer::default();
    [0, 40_000].iter().for_each(|ms| _ = buyer.handle(Input::Ad(ad(1, *ms + 1, 1_000_000, at(*ms))), at(*ms)));
    let offer = offer(9, 1, |offer| {
        (offer.model, offer.issued, offer.expires) = ("new".into(), at(50_000), at(80_000));
    });
    buyer.handle(Input::Open(offer.clone(), Default::default()), at(50_000));
    let bid = bid_with(2, &offer, 1, |bid| {
        (bid.model, bid.issued, bid.hold_until) = ("new".into(), at(50_000), at(60_000));
    });
    let late = at(50_000 + UNSERVED_GRACE_MS - 1);
    let mut outputs = buyer.handle(Input::Answer(infernet_wire::bid::Answer::Bid(bid)), late);
    outputs.extend(buyer.handle(Input::Wake, late.after(1_000)));
    let won = outputs.iter().any(|output| matches!(output, Output::Closed { outcome: Closed::Won(_), .. }));
    assert!(won, "{outputs:?}");
}
