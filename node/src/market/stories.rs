//! How long auctions take, told as stories: who advertises, who answers when, when the buyer stops waiting, who wins.
//!
//! Prices are per million input and output tokens alike, in micro-USD; times are milliseconds since the offer.

use super::{
    auction::{AnswerRefused, CloseReason},
    fixture::{Ended, Line, Scene, node},
    record::Regard,
};
use infernet_wire::offer::SelectionRule;

const DEAR: u64 = 1_000_000;
const CHEAP: u64 = 500_000;

/// Runs the same auction until the buyer has got to know everybody; tells the last.
fn steady(scene: &mut Scene, script: &[Line]) -> Ended {
    (0..20).map(|_| scene.run(script)).last().expect("twenty auctions")
}

fn check(ended: &Ended, after_ms: u64, reason: CloseReason, winner: Option<u16>) {
    assert_eq!((ended.after_ms, ended.reason, ended.won.map(|won| won.0)), (after_ms, reason, winner), "{ended:?}");
}

/// Nine workers of like price, which answer after 2 and 3 ms.
fn nine() -> (Scene, Vec<Line>) {
    let scene = Scene::new((1..=9).map(|n| (n, DEAR)));
    (scene, (1..=9).map(|n| (n, 2 + u64::from(n % 2), Some(DEAR))).collect())
}

/// The same, and worker 10 advertises half the price; it is not in the script.
fn nine_and_a_cheaper() -> (Scene, Vec<Line>) {
    let scene = Scene::new((1..=9).map(|n| (n, DEAR)).chain([(10, CHEAP)]));
    (scene, nine().1)
}

#[test]
fn among_strangers_the_first_bid_opens_a_short_grace() {
    let mut scene = Scene::new([(1, DEAR), (2, CHEAP), (3, CHEAP)]);
    check(&scene.run(&[(1, 2, Some(DEAR))]), 7, CloseReason::NotWorthWaiting, Some(1));
    let mut scene = Scene::new([(1, DEAR), (2, CHEAP), (3, CHEAP)]);
    check(&scene.run(&[(1, 30, Some(DEAR)), (2, 55, Some(CHEAP))]), 60, CloseReason::NotWorthWaiting, Some(2));
    let mut scene = Scene::new([(1, DEAR), (2, CHEAP)]);
    check(&scene.run(&[(1, 200, Some(DEAR))]), 250, CloseReason::NotWorthWaiting, Some(1));
}

#[test]
fn when_all_have_answered_it_closes() {
    let mut scene = Scene::new([(1, DEAR), (2, CHEAP)]);
    check(&scene.run(&[(1, 2, Some(DEAR)), (2, 4, Some(CHEAP))]), 4, CloseReason::AllAnswered, Some(2));
    check(&scene.run(&[(1, 2, None), (2, 4, None)]), 4, CloseReason::AllAnswered, None);
}

#[test]
fn a_bid_at_the_best_known_price_wins_at_once() {
    let (mut scene, script) = nine();
    let ended = steady(&mut scene, &script);
    assert_eq!((ended.after_ms, ended.reason), (2, CloseReason::TargetMet));
}

#[test]
fn a_winner_without_runners_up_waits_a_grace_for_them() {
    let mut scene = Scene::new((1..=4).map(|n| (n, DEAR)));
    let answers = |last| [(1, 2, Some(DEAR)), (2, 3, Some(DEAR)), (3, last, Some(DEAR)), (4, 600, Some(DEAR))];
    let ended = steady(&mut scene, &answers(5));
    assert_eq!((ended.after_ms, ended.reason), (5, CloseReason::TargetMet), "three bids are enough");
    let ended = scene.run(&answers(500));
    assert_eq!((ended.after_ms, ended.reason), (7, CloseReason::TargetMet), "but not worth more than the grace");
}

#[test]
fn a_late_cheaper_worker_is_waited_for_once_it_is_known_to_answer() {
    let (mut scene, mut script) = nine_and_a_cheaper();
    script.push((10, 25, Some(CHEAP)));
    assert_ne!(scene.run(&script).won.map(|won| won.0), Some(10), "a stranger is not waited for");
    check(&scene.run(&script), 25, CloseReason::AllAnswered, Some(10));
    check(&steady(&mut scene, &script), 25, CloseReason::AllAnswered, Some(10));
}

#[test]
fn a_little_cheaper_is_not_worth_a_wait() {
    let script = [(1, 2, Some(1_000_000)), (2, 25, Some(990_000))];
    let mut scene = Scene::new([(1, 1_000_000), (2, 990_000)]);
    check(&steady(&mut scene, &script), 7, CloseReason::TargetMet, Some(1));
}

#[test]
fn three_percent_of_a_tiny_price_are_worth_a_wait() {
    // 300 tokens cost $0.0000003, and the value of the 11 s they take is two hundred times that.
    let script = [(1, 2, Some(1_000)), (2, 25, Some(970))];
    let mut scene = Scene::new([(1, 1_000), (2, 970)]);
    check(&steady(&mut scene, &script), 25, CloseReason::AllAnswered, Some(2));
}

#[test]
fn who_has_refused_sets_no_target() {
    let mut scene = Scene::new([(1, DEAR), (2, CHEAP), (3, DEAR), (4, CHEAP)]);
    scene.run(&[(1, 2, Some(DEAR)), (2, 2, Some(CHEAP)), (3, 2, Some(DEAR))]);
    check(&scene.run(&[(2, 1, None), (1, 2, Some(DEAR))]), 7, CloseReason::TargetMet, Some(1));
}

#[test]
fn a_silent_worker_delays_only_its_first_auctions() {
    let (mut scene, script) = nine_and_a_cheaper();
    assert!(scene.run(&script).after_ms <= 7);
    assert!(scene.run(&script).after_ms <= 7);
    assert_eq!(scene.buyer.records().regard(&node(10)), Regard::Silent);
    assert_eq!(scene.run(&script).after_ms, 2);
}

#[test]
fn a_worker_that_dies_is_waited_for_twice() {
    let (mut scene, mut script) = nine_and_a_cheaper();
    script.push((10, 40, Some(CHEAP)));
    check(&steady(&mut scene, &script), 40, CloseReason::AllAnswered, Some(10));
    script.pop();
    let waits: Vec<_> = (0..4).map(|_| scene.run(&script).after_ms > 10).collect();
    assert_eq!(waits, [true, true, false, false]);
}

#[test]
fn a_swarm_of_silent_ads_delays_by_at_most_the_grace() {
    let swarm = || (100..300).map(|n| (n, 1));
    let mut scene = Scene::new(swarm().chain([(1, DEAR), (2, DEAR)]));
    for _ in 0..20 {
        let ended = scene.run(&[(1, 2, Some(DEAR)), (2, 3, Some(DEAR))]);
        assert!(ended.after_ms <= 8, "{ended:?}");
    }
}

#[test]
fn a_worker_that_tempts_and_refuses_late_is_not_waited_for_long() {
    let script = [(1, 2, Some(DEAR)), (2, 600, None)];
    let mut scene = Scene::new([(1, DEAR), (2, 1)]);
    let slow = (0..20).filter(|_| scene.run(&script).after_ms > 60).count();
    assert!(slow <= 2, "{slow}");
}

#[test]
fn without_bids_it_waits_for_strangers_until_the_window_ends() {
    let mut scene = Scene::new([(1, DEAR), (2, DEAR)]);
    check(&scene.run(&[(1, 2, None)]), 1_000, CloseReason::WindowEnded, None);
    check(&scene.run(&[(1, 2, None), (2, 900, Some(DEAR))]), 900, CloseReason::AllAnswered, Some(2));
    scene.run(&[(1, 2, Some(DEAR))]);
    scene.run(&[(1, 2, Some(DEAR))]);
    check(&scene.run(&[(1, 2, None)]), 2, CloseReason::AllAnswered, None);
}

#[test]
fn with_nobody_known_the_first_bid_opens_the_grace() {
    let mut scene = Scene::new([]);
    check(&scene.run(&[(1, 3, Some(DEAR)), (2, 6, Some(CHEAP))]), 8, CloseReason::NotWorthWaiting, Some(2));
    check(&scene.run(&[]), 1_000, CloseReason::WindowEnded, None);
}

#[test]
fn after_an_outage_the_first_to_answer_does_not_win_by_that() {
    let mut scene = Scene::new([(1, DEAR), (2, CHEAP)]);
    (0..3).for_each(|_| check(&scene.run(&[]), 1_000, CloseReason::WindowEnded, None));
    check(&scene.run(&[(1, 2, Some(DEAR)), (2, 5, Some(CHEAP))]), 7, CloseReason::NotWorthWaiting, Some(2));
}

#[test]
fn who_wants_the_fastest_does_not_wait_for_it_longer_than_it_saves() {
    // All speeds are unknown and so alike: nobody is worth a wait, however cheap.
    let mut scene = Scene::new([(1, DEAR), (2, CHEAP)]);
    scene.rule = SelectionRule::FASTEST;
    check(&steady(&mut scene, &[(1, 2, Some(DEAR)), (2, 25, Some(CHEAP))]), 7, CloseReason::TargetMet, Some(1));
}

#[test]
fn answers_count_once_and_in_time() {
    let mut scene = Scene::new([(1, DEAR), (2, CHEAP)]);
    let ended = scene.run(&[(1, 2, Some(DEAR)), (1, 3, Some(CHEAP)), (2, 900, Some(CHEAP)), (2, 901, Some(CHEAP))]);
    assert_eq!(ended.refused, [AnswerRefused::Duplicate, AnswerRefused::Late, AnswerRefused::Late]);
    assert_eq!(ended.won, Some((1, DEAR)));
    let record = *scene.buyer.records().get(&node(2)).expect("asked");
    assert_eq!((record.asked, record.answered), (1, 1), "the second late answer is not recorded");
}
