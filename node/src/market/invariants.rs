//! What holds whatever happens: properties over arbitrary sequences of inputs.

use super::{
    admission::{Admission, HoldRequest, StandingWish},
    auction::Won,
    buyer::{Buyer, Input, Output},
    fixture::{Line, Scene, T0, ad, at, bid_with, bids, node, offer, refuses},
    rank::{Facts, rank},
};
use infernet_wire::{
    bid::{NoBidReason, bids_commitment},
    id::{Hash, JobId, NodeId},
    offer::SelectionRule,
};
use proptest::{collection::vec, option, prelude::*};
use std::collections::{BTreeMap, BTreeSet};

const SLOTS: u16 = 5;

/// Something that happens to a worker's slots. Buyers, offers and jobs are few, so that they meet.
#[derive(Debug, Clone)]
enum Event {
    Offer { buyer: u8, offer: u8, for_ms: u64 },
    Claim { buyer: u8, offer: u8, job: u8 },
    Stand { buyer: u8, offer: u8, job: u8 },
    Settle { job: u8 },
    Finish { job: u8, known: bool },
    Release { offer: u8 },
    Later { ms: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..8u8, 0..20u8, 0..3_000u64).prop_map(|(buyer, offer, for_ms)| Event::Offer { buyer, offer, for_ms }),
        3 => (0..8u8, 0..20u8, 0..6u8).prop_map(|(buyer, offer, job)| Event::Claim { buyer, offer, job }),
        3 => (0..8u8, 100..120u8, 0..6u8).prop_map(|(buyer, offer, job)| Event::Stand { buyer, offer, job }),
        2 => (0..6u8, any::<bool>()).prop_map(|(job, known)| Event::Finish { job, known }),
        2 => (0..6u8).prop_map(|job| Event::Settle { job }),
        1 => (0..20u8).prop_map(|offer| Event::Release { offer }),
        2 => (0..1_000u64).prop_map(|ms| Event::Later { ms }),
    ]
}

fn buyer_id(n: u8) -> NodeId {
    NodeId([n; 33])
}

/// How long an accept of an ad can be presented.
const STANDING_MS: u64 = 2_000;

/// Offers as they were first made: who asked, and when; and the standing ones, with the end of their time.
#[derive(Default)]
struct World {
    now: u64,
    owner: BTreeMap<u8, u8>,
    claimed: BTreeSet<u8>,
    standing: BTreeMap<u8, u64>,
}

impl World {
    fn apply(&mut self, admission: &mut Admission, event: &Event) {
        match *event {
            Event::Offer { buyer, offer, for_ms } => self.offer(admission, buyer, offer, for_ms),
            Event::Claim { buyer, offer, job } => {
                let hash = Hash([offer; 32]);
                if admission.claim(&hash, &hash, &buyer_id(buyer), JobId([job; 16]), at(self.now)).is_ok() {
                    assert!(self.claimed.insert(offer), "a hold was used twice");
                    assert_eq!(self.owner.get(&offer), Some(&buyer), "a hold went to another buyer");
                }
            }
            Event::Stand { buyer, offer, job } => self.stand(admission, buyer, offer, job),
            Event::Settle { job } => {
                let before = admission.running() + admission.settling();
                admission.settle(&JobId([job; 16]));
                assert_eq!(admission.running() + admission.settling(), before, "a job was lost");
            }
            Event::Finish { job, known } => {
                let buyer = admission.finish(&JobId([job; 16]));
                buyer.filter(|_| known).into_iter().for_each(|buyer| admission.mark_known(buyer));
            }
            Event::Release { offer } => _ = admission.release(&Hash([offer; 32])),
            Event::Later { ms } => self.now += ms,
        }
    }

    /// An offer has one buyer for ever, and is never held again once it was claimed: the seller sees to both.
    fn offer(&mut self, admission: &mut Admission, buyer: u8, offer: u8, for_ms: u64) {
        let owner = *self.owner.entry(offer).or_insert(buyer);
        if self.claimed.contains(&offer) {
            return;
        }
        let strangers = admission.taken_by_strangers();
        let now = at(self.now);
        let wish = HoldRequest { offer: Hash([offer; 32]), buyer: buyer_id(owner), issued: now, until: now.after(for_ms) };
        let held = admission.hold(wish, now);
        admission.bid_signed(&wish.offer, wish.offer);
        if held.is_ok() && admission.taken_by_strangers() > strangers {
            check_strangers(admission);
        }
    }

    /// Each offer has its time, counted from when it was first made; the buyer presents it within.
    fn stand(&mut self, admission: &mut Admission, buyer: u8, offer: u8, job: u8) {
        let end = *self.standing.entry(offer).or_insert(self.now + STANDING_MS);
        if self.now > end {
            return;
        }
        let (free, strangers) = (usize::from(SLOTS) - admission.running() - admission.held(), admission.taken_by_strangers());
        let wish = StandingWish { offer: Hash([offer; 32]), buyer: buyer_id(buyer), job: JobId([job; 16]), until: at(end) };
        let held = admission.held();
        if admission.claim_standing(&wish, at(self.now)).is_ok() {
            assert!(self.claimed.insert(offer), "an accept was used twice");
            assert!(free > 0 || admission.held() < held, "a held slot was taken");
        }
        if admission.taken_by_strangers() > strangers {
            check_strangers(admission);
        }
    }
}

/// What strangers hold, and run at the standing price, is at most half of what nobody else has.
fn check_strangers(admission: &Admission) {
    let strangers = admission.taken_by_strangers();
    let others = admission.running() + admission.held() - strangers;
    assert!(strangers <= (usize::from(SLOTS) - others) / 2, "strangers took more than half");
}

fn check_slots(admission: &Admission) {
    assert!(admission.running() + admission.held() <= usize::from(SLOTS));
    let holders: Vec<_> = (0..20u8).filter_map(|offer| admission.holder(&Hash([offer; 32]))).collect();
    assert_eq!(holders.len(), holders.iter().collect::<BTreeSet<_>>().len(), "two holds of one buyer");
}

fn rule() -> impl Strategy<Value = SelectionRule> {
    (0..4u8).prop_map(SelectionRule)
}

/// Bids as rows of price, queue, TTFT and speed.
fn rows() -> impl Strategy<Value = Vec<(u64, u32, u32, u32)>> {
    vec((0..5_000_000u64, 0..500u32, 0..2_000u32, 0..200u32), 1..8)
}

/// Workers 1 to 8 and when they answer, with which price.
fn script() -> impl Strategy<Value = Vec<Line>> {
    vec((1..9u16, 0..1_200u64, option::weighted(0.8, 1_000_000..2_000_000u64)), 0..12)
}

fn outcome(buyer: &mut Buyer, inputs: Vec<(u64, Input)>) -> Option<Won> {
    let outputs = inputs.into_iter().flat_map(|(ms, input)| buyer.handle(input, at(ms))).collect::<Vec<_>>();
    outputs.into_iter().find_map(|output| match output {
        Output::Closed { outcome: super::auction::Closed::Won(won), .. } => Some(*won),
        _ => None,
    })
}

proptest! {
    #[test]
    fn slots_are_never_oversold(events in vec(event(), 0..120)) {
        let (mut admission, mut world) = (Admission::new(SLOTS), World::default());
        for event in &events {
            world.apply(&mut admission, event);
            check_slots(&admission);
        }
    }
}

proptest! {
    // Signatures make these dearer.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rank_does_not_depend_on_the_order_of_bids(rows in rows(), rule in rule(), turn in 0..8usize) {
        let offer = offer(9, 1, |offer| offer.rule = rule);
        let make = |(n, (each, queue, ttft, tps))| bid_with(n, &offer, each, |bid| {
            (bid.queue_ms, bid.ttft_ms, bid.tokens_per_second) = (queue, ttft, tps);
        });
        let mut bids: Vec<_> = (1..).zip(rows).map(make).collect();
        let facts = BTreeMap::from([(node(1), Facts { failed: 1, rtt_ms: Some(3), ..Facts::default() })]);
        let expected = rank(&offer, &bids, &facts);
        let turn = turn % bids.len();
        bids.rotate_left(turn);
        prop_assert_eq!(&rank(&offer, &bids, &facts), &expected);
        bids.reverse();
        prop_assert_eq!(&rank(&offer, &bids, &facts), &expected);
    }

    #[test]
    fn an_auction_never_outlasts_its_window(scripts in vec(script(), 1..6), window_ms in 1..1_000u16, rule in rule()) {
        let mut scene = Scene::new((1..7).map(|n| (n, 1_500_000)));
        (scene.window_ms, scene.rule) = (window_ms, rule);
        for script in scripts {
            prop_assert!(scene.run(&script).after_ms <= u64::from(window_ms));
        }
    }

    #[test]
    fn known_workers_that_keep_their_ads_lose_no_more_than_the_margin(
        workers in vec((1_000..1_200u64, 1..400u64), 1..8),
    ) {
        let lines = || (1..).zip(&workers);
        let mut scene = Scene::new(lines().map(|(n, (each, _))| (n, *each)));
        let script: Vec<Line> = lines().map(|(n, (each, ms))| (n, *ms, Some(*each))).collect();
        // The first auctions make everybody known: late answers are recorded too.
        (0..20).for_each(|_| _ = scene.run(&script));
        let (_, paid) = scene.run(&script).won.expect("all bid");
        let best = workers.iter().map(|(each, _)| *each).min().expect("somebody");
        prop_assert!(paid * 100 <= best * 102, "paid {paid}, best {best}");
    }

    #[test]
    fn anyone_who_knows_the_bids_can_compute_the_winner(rows in rows(), rule in rule()) {
        let offer = offer(9, 1, |offer| offer.rule = rule);
        let mut buyer = Buyer::default();
        let mut inputs = vec![(0, Input::Open(offer.clone(), Default::default()))];
        for (n, (each, queue, ttft, tps)) in (1..).zip(rows) {
            let bid = bid_with(n, &offer, each, |bid| {
                (bid.queue_ms, bid.ttft_ms, bid.tokens_per_second) = (queue, ttft, tps);
            });
            inputs.push((1, Input::Answer(infernet_wire::bid::Answer::Bid(bid))));
        }
        inputs.push((1_000, Input::Wake));
        let won = outcome(&mut buyer, inputs).expect("somebody bid");
        let bids: Vec<_> = won.bids.values().rev().cloned().collect();
        prop_assert_eq!(rank(&won.offer, &bids, &won.facts), won.ranking);
        prop_assert_eq!(bids_commitment(bids.iter().map(|bid| bid.digest()).collect()), won.commitment);
    }

    #[test]
    fn replayed_inputs_change_nothing(script in script(), times in 1..3usize) {
        let run = |times: usize| {
            let mut buyer = Buyer::default();
            let offer = offer(9, 1, |_| {});
            let mut won = Vec::new();
            let mut feed = |ms: u64, make: &dyn Fn() -> Input| (0..times).for_each(|_| {
                won.extend(buyer.handle(make(), at(ms)).into_iter().filter(|output| matches!(output, Output::Closed { .. })));
            });
            (1..5).for_each(|n| feed(0, &|| Input::Ad(ad(n, 1, 1_500_000, T0))));
            feed(0, &|| Input::Open(offer.clone(), Default::default()));
            let mut script = script.clone();
            script.sort_by_key(|line| line.1);
            for (n, ms, each) in script {
                feed(ms, &|| Input::Answer(match each {
                    Some(each) => bids(n, &offer, each),
                    None => refuses(n, &offer, NoBidReason::NO_SLOT),
                }));
            }
            feed(2_000, &|| Input::Wake);
            let records: Vec<_> = (1..9).map(|n| buyer.records().get(&node(n)).copied()).collect();
            (format!("{won:?}"), records)
        };
        prop_assert_eq!(run(1), run(1 + times));
    }
}
