//! A payment on a chain of numbers.

use super::*;
use infernet_wire::codec;
use proptest::prelude::*;

const RULES: Rules = Rules { resend_ms: 5_000, life_ms: 150_000 };

fn at(secs: u64) -> UnixMillis {
    UnixMillis(1_795_000_000_000 + secs * 1_000)
}

fn facts(height: u64) -> Facts {
    Facts { height, recent: Recent { blockhash: hash(height), last_valid: height + VALID_BLOCKS }, seen: vec![] }
}

fn hash(height: u64) -> Blockhash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&height.to_le_bytes());
    Blockhash(bytes)
}

fn sign(payment: &mut Payment, recent: Recent, now: UnixMillis) -> TxSignature {
    let mut signature = TxSignature([payment.attempts.len() as u8; 64]);
    signature.0[..32].copy_from_slice(&recent.blockhash.0);
    let Recent { blockhash, last_valid } = recent;
    payment.signed(Attempt { signature, blockhash, last_valid, at: now, raw: vec![1] });
    signature
}

/// A payment whose first attempt was sent at second 0, at height 1000.
fn sent() -> (Payment, TxSignature) {
    let mut payment = Payment::default();
    let Next::Sign(recent) = payment.decide(&facts(1_000), &RULES, at(0)) else { panic!("signs first") };
    let signature = sign(&mut payment, recent, at(0));
    payment.sent(at(0));
    (payment, signature)
}

fn seen(signature: TxSignature, finalized: bool) -> Seen {
    Seen { signature, slot: 1_010, finalized, failed: None }
}

fn shows(height: u64, seen: Seen) -> Facts {
    Facts { seen: vec![seen], ..facts(height) }
}

#[test]
fn a_payment_is_signed_sent_landed_and_finalized() {
    let (mut payment, signature) = sent();
    assert_eq!(payment.decide(&facts(1_001), &RULES, at(1)), Next::Wait);
    assert_eq!(payment.decide(&shows(1_002, seen(signature, false)), &RULES, at(2)), Next::Wait);
    assert_eq!(payment.stage, Stage::Landed { signature });
    assert_eq!(payment.decide(&shows(1_040, seen(signature, true)), &RULES, at(20)), Next::Done);
    assert_eq!(payment.stage, Stage::Finalized { signature, slot: 1_010 });
    assert_eq!(payment.decide(&facts(9_000), &RULES, at(9_000)), Next::Done, "an end is an end");
}

#[test]
fn the_same_bytes_are_sent_again_while_they_live() {
    let (mut payment, _) = sent();
    assert_eq!(payment.decide(&facts(1_010), &RULES, at(4)), Next::Wait);
    assert_eq!(payment.decide(&facts(1_020), &RULES, at(5)), Next::Send);
    payment.sent(at(5));
    assert_eq!(payment.decide(&facts(1_020), &RULES, at(9)), Next::Wait);
    assert_eq!(payment.attempts.len(), 1);
}

#[test]
fn after_a_crash_between_keeping_and_sending_the_same_bytes_are_sent() {
    let mut payment = Payment::default();
    let Next::Sign(recent) = payment.decide(&facts(1_000), &RULES, at(0)) else { panic!("signs first") };
    sign(&mut payment, recent, at(0));
    let mut kept: Payment = codec::decode(&codec::encode(&payment)).expect("a payment");
    assert_eq!(kept, payment);
    assert_eq!(kept.decide(&facts(1_001), &RULES, at(1)), Next::Send);
}

#[test]
fn another_attempt_is_signed_only_when_the_first_is_dead_by_height_and_by_time() {
    let last = 1_000 + VALID_BLOCKS + LAG;
    for (height, secs, dead) in [(last, 500, false), (last + 1, 149, false), (last + 1, 150, true), (5_000, 10, false)] {
        let (mut payment, _) = sent();
        let next = payment.decide(&facts(height), &RULES, at(secs));
        assert_eq!(matches!(next, Next::Sign(_)), dead, "height {height} after {secs} s: {next:?}");
    }
}

#[test]
fn a_signature_that_is_known_is_never_given_up() {
    let (mut payment, signature) = sent();
    assert_eq!(payment.decide(&shows(5_000, seen(signature, false)), &RULES, at(5_000)), Next::Wait);
    assert_eq!(payment.attempts.len(), 1);
}

#[test]
fn a_block_that_vanishes_sends_the_payment_back() {
    let (mut payment, signature) = sent();
    payment.decide(&shows(1_002, seen(signature, false)), &RULES, at(1));
    assert_eq!(payment.decide(&facts(1_003), &RULES, at(2)), Next::Send);
}

#[test]
fn a_transaction_that_failed_ends_the_payment_once_it_is_final() {
    let (mut payment, signature) = sent();
    let failed = |finalized| Seen { failed: Some("insufficient funds".into()), ..seen(signature, finalized) };
    assert_eq!(payment.decide(&shows(1_002, failed(false)), &RULES, at(1)), Next::Wait);
    assert_eq!(payment.decide(&shows(1_040, failed(true)), &RULES, at(20)), Next::Done);
    assert_eq!(payment.stage, Stage::Failed { signature, reason: "insufficient funds".into() });
}

#[test]
fn a_blockhash_that_lives_for_ever_or_was_used_before_is_not_signed_over() {
    let mut payment = Payment::default();
    let forever = Facts { recent: Recent { blockhash: hash(1), last_valid: u64::MAX }, ..facts(1_000) };
    assert_eq!(payment.decide(&forever, &RULES, at(0)), Next::Implausible);
    let (mut payment, _) = sent();
    let stale = Facts { recent: facts(1_000).recent, ..facts(1_400) };
    assert_eq!(payment.decide(&stale, &RULES, at(400)), Next::Implausible);
    assert!(matches!(payment.decide(&facts(1_401), &RULES, at(401)), Next::Sign(_)));
}

#[test]
fn a_signature_of_somebody_else_decides_nothing() {
    let (mut payment, _) = sent();
    assert_eq!(payment.decide(&shows(1_001, seen(TxSignature([9; 64]), true)), &RULES, at(1)), Next::Wait);
}

#[test]
fn a_payment_that_never_lands_is_given_up_in_the_end() {
    let (mut payment, mut height, mut secs) = (Payment::default(), 1_000, 0);
    while let Next::Sign(recent) = payment.decide(&facts(height), &RULES, at(secs)) {
        sign(&mut payment, recent, at(secs));
        (height, secs) = (height + 400, secs + 400);
    }
    assert_eq!((payment.attempts.len(), payment.stage), (MAX_ATTEMPTS, Stage::GivenUp));
}

#[test]
fn of_several_nodes_the_most_cautious_is_believed() {
    let (_, signature) = sent();
    let (high, low) = (shows(5_000, seen(signature, true)), facts(1_000));
    let both = merged(&[high.clone(), low.clone()]).expect("facts");
    assert_eq!((both.height, both.recent.last_valid), (1_000, 5_150));
    assert_eq!(both.seen, [seen(signature, false)], "one says that it is final, the other does not know it");
    assert_eq!(merged(&[low, high.clone()]).expect("facts").seen, [seen(signature, false)]);
    assert_eq!(merged(&[high.clone(), high.clone()]), Some(high));
    assert_eq!(merged(&[]), None);
}

/// The true chain: transactions that somebody holds, and those that landed.
#[derive(Default)]
struct Chain {
    tip: u64,
    held: Vec<(TxSignature, u64)>,
    landed: Vec<(TxSignature, u64)>,
}

impl Chain {
    /// What an honest node shows whose finalized height is `lag` blocks behind. If that is odd, it knows nothing beyond.
    fn honest(&self, lag: u64) -> Facts {
        let height = self.tip.saturating_sub(lag);
        // It hands out the newest blockhash, which lives longest.
        let recent = Recent { blockhash: hash(self.tip), last_valid: self.tip + VALID_BLOCKS };
        let known = |&(signature, block): &(TxSignature, u64)| Seen { finalized: block <= height, ..seen(signature, true) };
        let landed = self.landed.iter().filter(|(_, block)| lag.is_multiple_of(2) || *block <= height);
        Facts { height, recent, seen: landed.map(known).collect() }
    }

    fn land(&mut self, which: usize) {
        let Some(&(signature, last)) = self.held.get(which) else { return };
        let fresh = self.landed.iter().all(|(landed, _)| *landed != signature);
        if fresh && self.tip < last {
            self.tip += 1;
            self.landed.push((signature, self.tip));
        }
    }
}

#[derive(Debug, Clone)]
struct Turn {
    blocks: u64,
    secs: u64,
    lag: u64,
    /// What the liar tells: its height, what its blockhash is good for, whom it knows, and whether it is asked first.
    lie: (u64, u64, u8, bool),
    land: Option<usize>,
    crash: bool,
}

fn turn() -> impl Strategy<Value = Turn> {
    let lie = (0u64..5_000, 0u64..5_000, any::<u8>(), any::<bool>());
    (0u64..200, 0u64..200, 0..=LAG, lie, prop::option::of(0usize..6), any::<bool>())
        .prop_map(|(blocks, secs, lag, lie, land, crash)| Turn { blocks, secs, lag, lie, land, crash })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// One honest node with a lag, one liar that tells any height, lifetime and status; blocks that vanish are not in it. Whatever
    /// was signed may land at any time while its blockhash lives, sent by us or not. At most one attempt lands.
    #[test]
    fn whatever_a_lying_node_says_at_most_one_attempt_lands(turns in prop::collection::vec(turn(), 1..60)) {
        let (mut chain, mut payment, mut now) = (Chain { tip: 1_000, ..Chain::default() }, Payment::default(), 0);
        for turn in turns {
            chain.tip += turn.blocks;
            now += turn.secs;
            if let Some(which) = turn.land {
                chain.land(which);
            }
            let (height, last_valid, knows, first) = turn.lie;
            let invented = payment.attempts.get(usize::from(knows % 8)).map(|attempt| Seen {
                failed: (knows > 200).then(|| "a lie".into()), ..seen(attempt.signature, knows > 100)
            });
            // The liar's blockhash is a true one: another would be good for nothing.
            let recent = Recent { blockhash: hash(chain.tip), last_valid };
            let lie = Facts { height, recent, seen: invented.into_iter().collect() };
            let honest = chain.honest(turn.lag);
            let all = if first { [lie, honest] } else { [honest, lie] };
            let kept = payment.clone();
            match payment.decide(&merged(&all).expect("two"), &RULES, at(now)) {
                Next::Sign(recent) => {
                    let signature = sign(&mut payment, recent, at(now));
                    chain.held.push((signature, chain.tip + VALID_BLOCKS));
                }
                Next::Send => payment.sent(at(now)),
                Next::Wait | Next::Implausible | Next::Done => {}
            }
            // What was only decided is lost in a crash; what was signed was kept before it was sent.
            if turn.crash && payment.attempts == kept.attempts {
                payment = kept;
            }
            prop_assert!(chain.landed.len() <= 1, "paid twice: {:?}", chain.landed);
            prop_assert!(payment.attempts.len() <= MAX_ATTEMPTS);
            if let Stage::Finalized { signature, .. } = &payment.stage {
                prop_assert_eq!(&chain.landed[0].0, signature, "what is called paid is paid");
            }
            if payment.stage == Stage::GivenUp {
                prop_assert!(chain.landed.is_empty());
            }
        }
    }
}
