//! A step on a chain of numbers.

use super::*;
use infernet_wire::{codec, evm::EvmAddress};
use proptest::prelude::*;

const GWEI: u128 = 1_000_000_000;
const RULES: Rules = Rules { depth: 3, stuck_ms: 90_000, doubt_ms: 60_000, max_fee: 100 * GWEI };
/// A coin.
const RICH: u128 = 1_000_000_000 * GWEI;

fn key() -> NodeKey {
    NodeKey::from_bytes(&[2; 32]).expect("a scalar")
}

fn step() -> Step {
    Step::new(1, Call { to: Some(EvmAddress([1; 20])), value: 0, data: vec![1] }, 5, 60_000)
}

fn at(secs: u64) -> UnixMillis {
    UnixMillis(1_795_000_000_000 + secs * 1_000)
}

fn facts() -> Facts {
    Facts { head: 100, base_fee: 10 * GWEI, tip: GWEI, coin: RICH, deep_nonce: 5, receipt: None }
}

fn mined(step: &Step, attempt: usize, block: u64) -> Facts {
    let receipt = Receipt { block, block_hash: [block as u8; 32], success: true, gas_used: 50_000 };
    Facts { receipt: Some((step.attempts[attempt].hash, receipt)), ..facts() }
}

/// A step whose first attempt was sent at second 0.
fn sent() -> Step {
    let mut step = step();
    let Next::Sign(fees) = step.decide(&facts(), &RULES, at(0)) else { panic!("signs first") };
    step.sign(fees, &key());
    step.sent(at(0));
    step
}

#[test]
fn a_step_is_signed_sent_buried_and_done() {
    let mut step = step();
    assert_eq!(step.decide(&facts(), &RULES, at(0)), Next::Sign(Fees { max: 21 * GWEI, tip: GWEI }));
    assert_eq!(step.stage, Stage::Prepared, "what is decided is not yet done");
    let mut step = sent();
    assert_eq!(step.decide(&facts(), &RULES, at(1)), Next::Wait);
    let shallow = mined(&step, 0, 99);
    assert_eq!(step.decide(&shallow, &RULES, at(2)), Next::Wait);
    assert!(matches!(step.stage, Stage::Mined { block: 99, .. }));
    let deep = Facts { head: 101, deep_nonce: 6, ..shallow };
    assert_eq!(step.decide(&deep, &RULES, at(3)), Next::Done);
    assert_eq!(step.stage, Stage::Confirmed { hash: step.attempts[0].hash, block: 99 });
    assert_eq!(step.decide(&facts(), &RULES, at(4)), Next::Done, "an end is an end");
}

#[test]
fn without_coin_nothing_is_signed_and_with_it_it_goes_on() {
    let (mut step, cost) = (step(), 60_000 * 21 * GWEI);
    let with = |coin| Facts { coin, ..facts() };
    assert_eq!(step.decide(&with(0), &RULES, at(0)), Next::Poor { needed: cost });
    assert_eq!(step.decide(&with(cost - 1), &RULES, at(900)), Next::Poor { needed: cost });
    assert_eq!(step.decide(&with(cost), &RULES, at(901)), Next::Sign(Fees { max: 21 * GWEI, tip: GWEI }));
    // What was signed is not raised beyond what is there, and waits when the coin has gone elsewhere.
    let mut step = sent();
    assert_eq!(step.decide(&with(cost - 1), &RULES, at(90)), Next::Poor { needed: cost });
    assert_eq!(step.decide(&with(cost), &RULES, at(91)), Next::Send);
    assert!(matches!(step.decide(&with(2 * cost), &RULES, at(181)), Next::Sign(_)));
    // What is sent away counts too.
    let coin = Step { call: Call { value: 7, ..step.call.clone() }, attempts: vec![], stage: Stage::Prepared, ..step };
    assert_eq!(coin.clone().decide(&with(cost), &RULES, at(0)), Next::Poor { needed: cost + 7 });
}

#[test]
fn after_a_crash_between_keeping_and_sending_the_same_bytes_are_sent() {
    let mut step = step();
    step.sign(Fees { max: 21 * GWEI, tip: GWEI }, &key());
    let kept: Step = serde_json::from_str(&serde_json::to_string(&step).expect("JSON")).expect("a step");
    assert_eq!(kept, step);
    let stages = [
        Stage::Sent { at: at(1) },
        Stage::Mined { hash: step.attempts[0].hash, block: 7, block_hash: [9; 32] },
        Stage::Replaced,
        step.stage,
    ];
    for stage in stages {
        step.stage = stage;
        assert_eq!(codec::decode(&codec::encode(&step)), Ok(step.clone()), "as the journal keeps it");
    }
    assert_eq!(step.decide(&facts(), &RULES, at(500)), Next::Send);
    assert_eq!(step.attempts.len(), 1);
}

#[test]
fn a_stuck_step_pays_more_at_the_same_nonce_up_to_the_cap() {
    let mut step = sent();
    let mut now = 0;
    let mut last = step.attempts[0].fees;
    loop {
        now += 90;
        match step.decide(&facts(), &RULES, at(now)) {
            Next::Sign(fees) => {
                assert!(fees.max >= last.max * 11 / 10 && fees.tip >= last.tip * 11 / 10 && fees.max <= RULES.max_fee);
                last = fees;
                step.sign(fees, &key());
                step.sent(at(now));
            }
            next => {
                assert_eq!(next, Next::Send, "at the cap it is only sent again");
                break;
            }
        }
        assert_eq!(step.decide(&facts(), &RULES, at(now + 89)), Next::Wait);
    }
    assert!(last.max > 90 * GWEI && step.attempts.len() < MAX_ATTEMPTS, "{last:?}");
    // Any of the attempts may be the one that is mined.
    let deep = Facts { head: 110, deep_nonce: 6, ..mined(&step, 1, 100) };
    assert_eq!(step.decide(&deep, &RULES, at(now)), Next::Done);
    assert_eq!(step.stage, Stage::Confirmed { hash: step.attempts[1].hash, block: 100 });
}

#[test]
fn a_rising_market_is_followed_at_once_when_stuck() {
    let mut step = sent();
    let dear = Facts { base_fee: 40 * GWEI, tip: 3 * GWEI, ..facts() };
    assert_eq!(step.decide(&dear, &RULES, at(90)), Next::Sign(Fees { max: 83 * GWEI, tip: 3 * GWEI }));
}

#[test]
fn nothing_is_sent_while_gas_costs_more_than_may_be_paid() {
    let mut step = step();
    let dear = Facts { base_fee: 101 * GWEI, ..facts() };
    assert_eq!(step.decide(&dear, &RULES, at(0)), Next::TooDear { base_fee: 101 * GWEI });
    assert!(matches!(step.decide(&facts(), &RULES, at(10)), Next::Sign(_)));
}

#[test]
fn without_any_tip_a_bump_still_replaces() {
    let mut step = step();
    let free = Facts { base_fee: 0, tip: 0, ..facts() };
    let Next::Sign(fees) = step.decide(&free, &RULES, at(0)) else { panic!("signs") };
    step.sign(fees, &key());
    step.sent(at(0));
    let Next::Sign(more) = step.decide(&free, &RULES, at(90)) else { panic!("signs again") };
    assert!(replaces(more, fees));
}

#[test]
fn a_block_that_vanishes_sends_the_step_back() {
    let mut step = sent();
    step.decide(&mined(&step.clone(), 0, 100), &RULES, at(1));
    assert_eq!(step.decide(&facts(), &RULES, at(2)), Next::Send);
    assert_eq!(step.stage, Stage::Sent { at: at(2) });
    // In another block of the new branch, it counts from there.
    let again = mined(&step, 0, 101);
    assert_eq!(step.decide(&Facts { head: 102, ..again.clone() }, &RULES, at(3)), Next::Wait);
    assert_eq!(step.decide(&Facts { head: 103, ..again }, &RULES, at(4)), Next::Done);
}

#[test]
fn a_revert_ends_the_step_when_it_is_deep() {
    let mut step = sent();
    let mut facts = mined(&step, 0, 100);
    if let Some((_, receipt)) = &mut facts.receipt {
        receipt.success = false;
    }
    assert_eq!(step.decide(&facts, &RULES, at(1)), Next::Wait);
    assert_eq!(step.decide(&Facts { head: 102, ..facts }, &RULES, at(2)), Next::Done);
    assert!(matches!(step.stage, Stage::Reverted { block: 100, .. }));
}

#[test]
fn a_nonce_that_somebody_else_used_ends_the_step_after_a_while() {
    let mut step = sent();
    let foreign = Facts { deep_nonce: 6, ..facts() };
    assert_eq!(step.decide(&foreign, &RULES, at(1)), Next::Wait);
    assert_eq!(step.decide(&foreign, &RULES, at(60)), Next::Wait);
    assert_eq!(step.decide(&foreign, &RULES, at(61)), Next::Done);
    assert_eq!(step.stage, Stage::Replaced);
}

#[test]
fn a_node_that_lags_behind_replaces_nothing() {
    let mut step = sent();
    let foreign = Facts { deep_nonce: 6, ..facts() };
    step.decide(&foreign, &RULES, at(1));
    // The receipt appears within the time of doubt.
    let late = Facts { deep_nonce: 6, head: 105, ..mined(&step, 0, 99) };
    assert_eq!(step.decide(&late, &RULES, at(50)), Next::Done);
    assert!(matches!(step.stage, Stage::Confirmed { .. }));
    // Or the nonce is free again.
    let mut step = sent();
    step.decide(&foreign, &RULES, at(1));
    assert_eq!(step.decide(&facts(), &RULES, at(2)), Next::Send);
}

#[test]
fn a_receipt_from_above_the_head_is_not_deep() {
    let mut step = sent();
    let above = Facts { head: 10, ..mined(&step, 0, 100) };
    assert_eq!(step.decide(&above, &RULES, at(1)), Next::Wait);
}

proptest! {
    /// Whatever the chain shows, in whatever order: one nonce, attempts and fees within bounds, an end is an end, and it is
    /// confirmed only by a receipt that is deep enough.
    #[test]
    fn a_step_keeps_its_rules(looks in proptest::collection::vec((90u64..120, 0u128..300, 0u128..9, 4u64..8, 0u8..4, 0u64..100, 0u128..9_000_000), 1..80)) {
        let (mut step, mut now) = (step(), 0);
        for (head, base, tip, deep_nonce, shows, wait, coin) in looks {
            now += wait;
            let hash = step.attempts.get(usize::from(shows)).map(|attempt| attempt.hash);
            let receipt = hash.map(|hash| (hash, Receipt { block: 100, block_hash: [1; 32], success: true, gas_used: 1 }));
            let facts = Facts { head, base_fee: base * GWEI, tip: tip * GWEI, coin: coin * GWEI, deep_nonce, receipt };
            let was_done = step.is_done();
            let before = step.clone();
            match step.decide(&facts, &RULES, at(now)) {
                Next::Sign(fees) => {
                    prop_assert!(fees.max <= RULES.max_fee && fees.tip <= fees.max && fees.tip > 0);
                    prop_assert!(fees.max * u128::from(step.gas) <= facts.coin, "what can't be paid is not signed");
                    step.sign(fees, &key());
                    step.sent(at(now));
                }
                Next::Send => {
                    prop_assert!(!step.attempts.is_empty());
                    step.sent(at(now));
                }
                Next::Done => prop_assert!(step.is_done()),
                Next::TooDear { .. } => prop_assert!(step.attempts.is_empty()),
                Next::Poor { needed } => prop_assert!(needed > facts.coin && !step.is_done()),
                Next::Wait => prop_assert!(!step.is_done()),
            }
            if was_done {
                prop_assert_eq!(&step, &before);
            } else if matches!(step.stage, Stage::Confirmed { .. }) {
                prop_assert!(facts.receipt.is_some() && head + 1 >= 100 + RULES.depth);
            }
            prop_assert!(step.nonce == 5 && step.attempts.len() <= MAX_ATTEMPTS);
        }
    }
}
