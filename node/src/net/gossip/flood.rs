//! An hour of flood against the gate, on a virtual clock: whatever strangers send, what it remembers stays within its bounds, and
//! an honest neighbour's messages get through.

use super::*;
use infernet_wire::{
    capability::Abilities,
    id::OfferId,
    money::{MicroUsd, Price},
    offer::SelectionRule,
};

const START: UnixMillis = UnixMillis(1_800_000_000_000);
const SECONDS: u64 = 3_600;
/// Messages of the crowd a second; each under a key that was never seen, which costs its sender nothing.
const CROWD: u64 = 20;

fn key(n: u8) -> NodeKey {
    NodeKey::from_bytes(&[n; 32]).expect("a small scalar is a key")
}

fn offer(n: u64, issued: UnixMillis) -> JobOffer {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    JobOffer {
        id: OfferId(id),
        issued,
        expires: issued.after(limits::OFFER_TTL_MS),
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
        commitment: Hash([1; 32]),
        invited: Vec::new(),
    }
}

fn stranger(n: u64) -> NodeId {
    let mut id = [2; 33];
    id[1..9].copy_from_slice(&n.to_be_bytes());
    NodeId(id)
}

/// `bytes` as if `signer` had signed them: good up to the signature.
fn under(bytes: &[u8], of: &NodeId, signer: &NodeId) -> Vec<u8> {
    let at = bytes.windows(33).position(|window| window == of.as_ref()).expect("an envelope names its signer");
    [&bytes[..at], signer.as_ref(), &bytes[at + 33..]].concat()
}

/// The most that a gate may remember.
const MOST: usize = Rules::MOST + Routes::MOST;

#[test]
fn an_hour_of_forged_replayed_and_random_gossip_leaves_a_gate_within_its_bounds_and_open_to_the_honest() {
    let (me, honest, crowd) = (key(1), key(2), key(3));
    let mut gate = Gate::new(me, NetworkId::default(), START, vec![]);
    let jobs = topic::jobs(topic::INFERENCE);
    let (mut accepted, mut made) = (0, 0);
    for second in 0..SECONDS {
        let now = START.after(second * 1_000);
        let mine = honest.sign(&NetworkId::default(), offer(second, now)).expect("an offer");
        let theirs = crowd.sign(&NetworkId::default(), offer(second, now)).expect("an offer");
        for n in 0..CROWD {
            made += 1;
            let (author, forwarder) = (stranger(made), stranger(made / 7));
            let verdict = match n % 4 {
                // Somebody else's good message, under a name of one's own; a forged one; noise; a copy of the honest one.
                0 => gate.admit(&jobs, theirs.raw(), author, forwarder, now).verdict,
                1 => gate.admit(&jobs, &under(theirs.raw(), &crowd.id(), &author), author, forwarder, now).verdict,
                2 => gate.admit(topic::CAPABILITIES, &made.to_be_bytes(), author, forwarder, now).verdict,
                _ => gate.admit(&jobs, &under(mine.raw(), &honest.id(), &author), author, forwarder, now).verdict,
            };
            assert_eq!(verdict, Verdict::Reject);
        }
        let admitted = gate.admit(&jobs, mine.raw(), honest.id(), honest.id(), now);
        accepted += u64::from(admitted.verdict == Verdict::Accept);
        let again = gate.admit(&jobs, mine.raw(), honest.id(), honest.id(), now);
        assert_eq!((again.verdict, again.reason), (Verdict::Ignore, "seen"));
        assert!(gate.entries() <= MOST, "{} entries in second {second}", gate.entries());
    }
    assert_eq!(accepted, SECONDS);
}

#[test]
fn what_a_key_may_say_in_an_hour_does_not_grow_with_what_it_tries_to_say() {
    let loud = key(4);
    let mut gate = Gate::new(key(1), NetworkId::default(), START, vec![]);
    let jobs = topic::jobs(topic::INFERENCE);
    let mut taken = 0;
    for tenth in 0..SECONDS * 10 {
        // Six a second, where five are allowed.
        let now = START.after(tenth * 100);
        if tenth % 10 < 6 {
            let said = loud.sign(&NetworkId::default(), offer(tenth, now)).expect("an offer");
            taken += u64::from(gate.admit(&jobs, said.raw(), loud.id(), stranger(tenth), now).verdict == Verdict::Accept);
        }
    }
    let allowed = SECONDS * u64::from(limits::OFFERS_PER_SECOND) + u64::from(limits::OFFER_BURST);
    assert!(taken <= allowed + 1, "{taken} of {allowed}");
    assert!(taken >= allowed * 95 / 100, "{taken} of {allowed}");
}

#[test]
fn a_neighbour_that_floods_with_its_own_is_to_blame_and_one_that_passes_it_on_is_not() {
    let (loud, honest) = (key(4), stranger(7));
    let mut gate = Gate::new(key(1), NetworkId::default(), START, vec![]);
    let jobs = topic::jobs(topic::INFERENCE);
    let mut faults = |forwarder: NodeId, from: u64| -> usize {
        (0..300)
            .filter(|n| {
                let said = loud.sign(&NetworkId::default(), offer(from + n, START)).expect("an offer");
                let admitted = gate.admit(&jobs, said.raw(), loud.id(), forwarder, START);
                assert_ne!(admitted.verdict, Verdict::Reject, "others may have passed it on in good faith");
                admitted.fault
            })
            .count()
    };
    assert_eq!(faults(honest, 0), 0);
    // The author's quota is used up by now.
    assert_eq!(faults(loud.id(), 1_000) as u64, 300 - crate::net::rules::OWN_EXCESS.burst);
}
