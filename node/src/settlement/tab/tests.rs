use super::*;
use infernet_wire::{
    evm::EvmAddress,
    id::{ChannelId, JobId},
    key::NodeKey,
    money::MicroUsd,
    voucher::{LEDGER, SignedVoucher, Voucher},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const MUCH: MicroUsd = MicroUsd(1_000_000_000);
const RICH: Cover = Cover::Credit(MUCH);

fn job(n: u8) -> JobId {
    JobId([n; 16])
}

fn key() -> NodeKey {
    NodeKey::from_bytes(&[7; 32]).expect("a key")
}

fn voucher(amount: u64) -> SignedVoucher {
    let voucher =
        Voucher { chain: LEDGER, contract: EvmAddress::ZERO, channel: ChannelId([3; 32]), job: job(1), amount: amount.into() };
    SignedVoucher::sign(&key(), voucher).expect("signed")
}

/// Pays, writing what has to be written first.
fn pay(tab: &mut PayerTab, job: JobId, paid: u64) -> u64 {
    loop {
        match tab.pay(job, MicroUsd(paid), Funds::LEDGER) {
            Authorise::Ready { amount, more } => {
                if let Some(more) = more {
                    tab.authorised(more);
                }
                return u64::try_from(amount).expect("small");
            }
            Authorise::First(total) => tab.authorised(total),
            Authorise::Refused => panic!("refused"),
        }
    }
}

fn take(tab: &mut PayeeTab, job: &JobId, amount: u64, paid: u64) -> Result<bool, BadPayment> {
    let verified = (u128::from(amount) > tab.promised()).then(|| voucher(amount));
    tab.take(job, amount.into(), verified, MicroUsd(paid))
}

#[test]
fn pieces_are_paid_as_they_come() {
    let pieces = Pieces::wanted(64, 200);
    for (tokens, due) in [(0, 64), (1, 64), (63, 64), (64, 128), (127, 128), (128, 192), (192, 200), (200, 200)] {
        assert_eq!(pieces.due(tokens), due, "{tokens} tokens");
    }
    assert_eq!(Pieces::wanted(1_000_000, 9).chunk, 64, "a worker can't have a whole answer paid ahead");
    assert_eq!(Pieces::wanted(0, 9).chunk, 1);
    assert_eq!(Pieces { chunk: 64, most: 10 }.due(12), 12, "an answer that is longer than agreed does not underflow");
}

#[test]
fn what_a_job_did_not_use_pays_for_the_next() {
    let (mut buyer, mut seller) = (PayerTab::default(), PayeeTab::default());
    seller.open(job(1), MicroUsd(100), RICH).expect("credit");
    let amount = pay(&mut buyer, job(1), 40);
    assert_eq!(take(&mut seller, &job(1), amount, 40), Ok(true));
    buyer.settle(&job(1), Some(MicroUsd(25)));
    seller.settle(&job(1), MicroUsd(25), true);
    seller.open(job(2), MicroUsd(100), RICH).expect("credit");
    assert_eq!(pay(&mut buyer, job(2), 15), 40, "no more is promised than before");
    assert_eq!(take(&mut seller, &job(2), 40, 15), Ok(true), "and it covers both");
    assert_eq!(pay(&mut buyer, job(2), 16), 41);
    assert_eq!(
        take(&mut seller, &job(2), 40, 16),
        Err(BadPayment::NotCovered { promised: MicroUsd(40), needed: MicroUsd(41) }),
        "a voucher that is shown again pays nothing again"
    );
    assert_eq!(take(&mut seller, &job(2), 41, 16), Ok(true));
    assert_eq!(take(&mut seller, &job(2), 41, 16), Ok(false), "the same once more, as after a lost stream");
}

#[test]
fn a_buyer_may_count_on_what_a_job_did_not_use_as_soon_as_it_hears_of_it() {
    let (mut buyer, mut seller) = (PayerTab::default(), PayeeTab::default());
    for n in [1, 2] {
        seller.open(job(n), MicroUsd(100), RICH).expect("credit");
    }
    take(&mut seller, &job(1), pay(&mut buyer, job(1), 40), 40).expect("good");
    // The seller ends it and tells; the buyer signs, and pays the next job before its signature arrives.
    seller.end(&job(1), MicroUsd(25));
    buyer.settle(&job(1), Some(MicroUsd(25)));
    take(&mut seller, &job(2), pay(&mut buyer, job(2), 15), 15).expect("covered");
    assert_eq!(take(&mut seller, &job(1), 40, 40), Ok(false), "what crossed the end pays no more");
    seller.settle(&job(1), MicroUsd(25), true);
    assert_eq!(seller.settled(), MicroUsd(25));
    // A job that was not paid in full yet takes the rest, and no more.
    seller.end(&job(2), MicroUsd(30));
    take(&mut seller, &job(2), pay(&mut buyer, job(2), 30), 30).expect("the rest");
    assert_eq!(seller.paid(&job(2)), MicroUsd(30));
}

#[test]
fn payments_that_are_wrong_change_nothing() {
    let mut seller = PayeeTab::default();
    seller.open(job(1), MicroUsd(100), RICH).expect("credit");
    take(&mut seller, &job(1), 30, 30).expect("good");
    let before = seller.clone();
    let mut refused = |job: JobId, amount, paid| {
        let error = take(&mut seller, &job, amount, paid).expect_err("refused");
        assert_eq!(seller, before, "{error}");
        error
    };
    assert_eq!(refused(job(1), 30, 29), BadPayment::Shrinks { paid: MicroUsd(29), before: MicroUsd(30) });
    assert_eq!(refused(job(1), 500, 101), BadPayment::TooMuch { paid: MicroUsd(101), most: MicroUsd(100) });
    assert_eq!(refused(job(2), 500, 1), BadPayment::NoJob);
    assert!(matches!(refused(job(1), 31, 32), BadPayment::NotCovered { .. }));
}

#[test]
fn nobody_owes_more_than_its_limit() {
    let mut seller = PayeeTab::default();
    let limit = MicroUsd(100);
    let cover = Cover::Credit(limit);
    seller.open(job(1), MicroUsd(60), cover).expect("credit");
    let refused = seller.open(job(2), MicroUsd(60), cover);
    assert_eq!(refused, Err(NoCredit::Limit { owed: MicroUsd(60), most: MicroUsd(60), limit }), "running jobs count whole");
    take(&mut seller, &job(1), 60, 60).expect("good");
    seller.settle(&job(1), MicroUsd(30), true);
    seller.open(job(2), MicroUsd(60), cover).expect("what it really cost counts");
    seller.settle(&job(2), MicroUsd(60), false);
    assert_eq!(seller.owed(), MicroUsd(30), "an answer that nobody paid for is no debt that anybody could show");
    seller.clear(MicroUsd(30));
    assert_eq!(seller.owed(), MicroUsd(0));
    assert_eq!(
        PayeeTab::default().open(job(3), MicroUsd(1), Cover::Credit(MicroUsd(0))),
        Err(NoCredit::Limit { owed: MicroUsd(0), most: MicroUsd(1), limit: MicroUsd(0) })
    );
    assert_eq!(
        PayeeTab::default().open(job(3), MicroUsd(0), Cover::Credit(MicroUsd(0))),
        Ok(()),
        "what is free needs no credit"
    );
}

#[test]
fn a_debt_to_a_former_key_is_a_debt() {
    let mut before = PayeeTab::default();
    before.clear(MicroUsd(5));
    before.open(job(9), MicroUsd(75), Cover::Credit(MicroUsd(100))).expect("credit");
    take(&mut before, &job(9), 75, 75).expect("good");
    before.settle(&job(9), MicroUsd(75), true);
    let mut seller = before.carried();
    assert_eq!(seller.owed(), MicroUsd(70));
    assert!(seller.open(job(1), MicroUsd(40), Cover::Credit(MicroUsd(100))).is_err());
    seller.open(job(1), MicroUsd(30), Cover::Credit(MicroUsd(100))).expect("credit");
    take(&mut seller, &job(1), 30, 30).expect("the new key's vouchers begin anew");
    let mut back = PayeeTab::recover(&seller.record()).expect("a record");
    assert_eq!((back.owed(), back.settled()), (MicroUsd(100), MicroUsd(30)));
    back.clear(MicroUsd(130));
    assert_eq!(back.owed(), MicroUsd(0));
    // What is ahead stays, too.
    let ahead = PayeeTab::recover(&back.carried().record()).expect("a record");
    assert_eq!((ahead.owed(), ahead.left(Cover::Credit(MicroUsd(0)))), (MicroUsd(0), MicroUsd(30)));
}

#[test]
fn a_crashed_buyer_promises_at_most_a_step_more() {
    let mut buyer = PayerTab::default();
    assert_eq!(buyer.pay(job(1), MicroUsd(50), Funds::LEDGER), Authorise::First(10_050));
    let written = buyer.ahead(10_050);
    buyer.authorised(10_050);
    assert_eq!(buyer.pay(job(1), MicroUsd(50), Funds::LEDGER), Authorise::Ready { amount: 50, more: None });
    let back = PayerTab::recover(&written).expect("a record");
    assert_eq!(back.promised(), 10_050);
    assert_eq!(buyer.record(), None, "a job runs");
    buyer.settle(&job(1), Some(MicroUsd(20)));
    let mut back = PayerTab::recover(&buyer.record().expect("idle")).expect("a record");
    assert_eq!(back.promised(), 50, "a clean stop forgets nothing");
    assert_eq!(pay(&mut back, job(2), 30), 50, "nor what was left");
    assert_eq!(PayerTab::recover(&[1; 16]), None);
}

#[test]
fn the_next_step_is_written_before_it_is_needed() {
    let mut buyer = PayerTab::default();
    buyer.authorised(10_000);
    assert_eq!(buyer.pay(job(1), MicroUsd(5_001), Funds::LEDGER), Authorise::Ready { amount: 5_001, more: Some(15_001) });
    assert_eq!(buyer.pay(job(1), MicroUsd(5_002), Funds::LEDGER), Authorise::Ready { amount: 5_002, more: None }, "once");
    buyer.authorised(15_001);
    assert_eq!(buyer.pay(job(1), MicroUsd(15_000), Funds::LEDGER), Authorise::Ready { amount: 15_000, more: Some(25_000) });
    assert_eq!(buyer.pay(job(1), MicroUsd(14_999), Funds::LEDGER), Authorise::Refused);
    assert_eq!(buyer.pay(job(2), MicroUsd(u64::MAX), Funds::LEDGER), Authorise::Refused);
}

#[test]
fn a_channel_pays_for_jobs_at_their_rates_and_no_further_than_its_deposit() {
    let (mut buyer, mut seller) = (PayerTab::default(), PayeeTab::default());
    let deposit = 1_000_000u128;
    let (cover, funds) = (Cover::Deposit { units: deposit, rate: 100 }, Funds { rate: 100, most: deposit });
    assert_eq!(seller.left(cover), MicroUsd(10_000));
    seller.open(job(1), MicroUsd(6_000), cover).expect("covered");
    let refused = seller.open(job(2), MicroUsd(6_000), cover);
    assert_eq!(refused, Err(NoCredit::Deposit { left: MicroUsd(4_000), most: MicroUsd(6_000) }));
    assert!(buyer.reserve(job(1), 600_000, funds) && !buyer.reserve(job(2), 600_000, funds));
    let Authorise::First(ahead) = buyer.pay(job(1), MicroUsd(50), funds) else { panic!("nothing is written yet") };
    assert_eq!(ahead, deposit, "no more is written ahead than there is");
    buyer.authorised(ahead);
    assert_eq!(buyer.pay(job(1), MicroUsd(50), funds), Authorise::Ready { amount: 5_000, more: None });
    assert_eq!(take(&mut seller, &job(1), 5_000, 50), Ok(true));
    assert!(matches!(take(&mut seller, &job(1), 5_000, 51), Err(BadPayment::NotCovered { .. })), "units, not micro-USD");
    seller.settle(&job(1), MicroUsd(40), true);
    buyer.settle(&job(1), Some(MicroUsd(40)));
    assert_eq!((seller.settled_units(), buyer.settled()), (4_000, 4_000));
    // The next job is agreed at another rate: the coin has lost value.
    let (cover, funds) = (Cover::Deposit { units: deposit, rate: 300 }, Funds { rate: 300, most: deposit });
    seller.open(job(2), MicroUsd(3_000), cover).expect("covered");
    assert!(buyer.reserve(job(2), 900_000, funds));
    assert_eq!(buyer.pay(job(2), MicroUsd(10), funds), Authorise::Ready { amount: 7_000, more: None });
    assert_eq!(take(&mut seller, &job(2), 7_000, 10), Ok(true));
    assert_eq!(buyer.pay(job(2), MicroUsd(3_321), funds), Authorise::Refused, "above the deposit");
    let back = PayeeTab::recover(&seller.record()).expect("a record");
    assert_eq!((back.settled_units(), back.promised()), (7_000, 7_000));
}

#[test]
fn what_is_prepaid_pays_for_jobs_before_credit_does_and_counts_once() {
    let mut seller = PayeeTab::default();
    let none = Cover::Credit(MicroUsd(0));
    assert!(seller.prepay(1, MicroUsd(100)) && !seller.prepay(1, MicroUsd(100)));
    assert_eq!(seller.left(none), MicroUsd(100));
    seller.open(job(1), MicroUsd(70), none).expect("prepaid");
    assert!(seller.open(job(2), MicroUsd(40), none).is_err());
    take(&mut seller, &job(1), 60, 60).expect("good");
    seller.settle(&job(1), MicroUsd(60), true);
    let mut back = PayeeTab::recover(&seller.record()).expect("a record");
    assert_eq!((back.left(none), back.prepayments(), back.owed()), (MicroUsd(40), 1, MicroUsd(0)));
    assert!(!back.prepay(1, MicroUsd(100)) && back.prepay(3, MicroUsd(5)), "the second is written off");
    assert!(!back.prepay(2, MicroUsd(5)), "and counts no more");
    assert_eq!(back.left(Cover::Credit(MicroUsd(7))), MicroUsd(52));
}

/// What happens between a buyer and a seller.
#[derive(Debug, Clone)]
enum Op {
    Open(u8),
    Pay(u8, u64),
    /// The oldest payment on its way arrives, or the newest.
    Arrive(bool),
    Lose,
    /// A job ends: agreed, or known to the seller alone.
    End(u8, bool),
    CrashBuyer,
    CrashSeller,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..4u8).prop_map(Op::Open),
        8 => (0..4u8, 1..400u64).prop_map(|(job, more)| Op::Pay(job, more)),
        8 => any::<bool>().prop_map(Op::Arrive),
        1 => Just(Op::Lose),
        3 => (0..4u8, any::<bool>()).prop_map(|(job, agreed)| Op::End(job, agreed)),
        1 => Just(Op::CrashBuyer),
        1 => Just(Op::CrashSeller),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever is lost, overtaken or crashes: a payment that arrives is good, nothing counts as paid that was not promised, and
    /// what the buyer has promised is never more than it meant to pay, but for a step at each crash.
    #[test]
    fn an_honest_buyer_is_never_refused_and_never_overcharged(ops in proptest::collection::vec(op(), 1..120)) {
        let (mut buyer, mut seller) = (PayerTab::default(), PayeeTab::default());
        let (mut buyer_disk, mut seller_disk) = (PayerTab::default().record().expect("idle"), seller.record());
        let mut on_the_way: Vec<(JobId, u64, u64)> = Vec::new();
        // Jobs have fresh ids, as in life.
        let (mut names, mut next): (BTreeMap<u8, JobId>, u8) = (BTreeMap::new(), 0);
        let (mut meant, mut crashes) = (0u128, 0u128);
        for op in ops {
            match op {
                Op::Open(n) if !names.contains_key(&n) => {
                    next = next.wrapping_add(1);
                    names.insert(n, job(next));
                    seller.open(job(next), MUCH, Cover::Credit(MicroUsd(u64::MAX))).expect("credit");
                }
                Op::Pay(n, more) => if let Some(job) = names.get(&n) {
                    let paid = buyer.paid(job).0 + more;
                    meant += u128::from(more);
                    let amount = loop {
                        match buyer.pay(*job, MicroUsd(paid), Funds::LEDGER) {
                            Authorise::Ready { amount, .. } => break amount,
                            Authorise::First(total) => {
                                buyer_disk = buyer.ahead(total);
                                buyer.authorised(total);
                            }
                            Authorise::Refused => unreachable!("it grows"),
                        }
                    };
                    on_the_way.push((*job, u64::try_from(amount).expect("small"), paid));
                }
                Op::Arrive(oldest) if !on_the_way.is_empty() => {
                    let (job, amount, paid) = if oldest { on_the_way.remove(0) } else { on_the_way.pop().expect("some") };
                    // One that a newer one of its job has overtaken can't happen: they share a stream.
                    if seller.paid(&job).0 <= paid && names.values().any(|runs| *runs == job) {
                        prop_assert_eq!(take(&mut seller, &job, amount, paid).err(), None);
                        seller_disk = seller.record();
                    }
                }
                Op::Lose => _ = on_the_way.pop(),
                Op::End(n, agreed) => if let Some(job) = names.remove(&n) {
                    // Before a buyer signs it has paid, and in order: what both have signed is covered.
                    let amount = if agreed { MicroUsd(seller.paid(&job).0 / 2) } else { MicroUsd(buyer.paid(&job).0 / 2 + 3) };
                    seller.end(&job, amount);
                    buyer.settle(&job, agreed.then_some(amount));
                    seller.settle(&job, amount, agreed);
                    seller_disk = seller.record();
                    on_the_way.retain(|(of, ..)| *of != job);
                }
                Op::CrashBuyer => {
                    buyer = PayerTab::recover(&buyer_disk).expect("a record");
                    crashes += 1;
                    for job in std::mem::take(&mut names).into_values() {
                        seller.settle(&job, MicroUsd(1), false);
                    }
                    on_the_way.clear();
                }
                Op::CrashSeller => {
                    seller = PayeeTab::recover(&seller_disk).expect("a record");
                    for job in std::mem::take(&mut names).into_values() {
                        buyer.settle(&job, None);
                    }
                    on_the_way.clear();
                }
                _ => {}
            }
            prop_assert!(seller.promised() <= buyer.promised(), "a promise that was not made");
            prop_assert!(buyer.promised() <= meant + crashes * 10_000 + 400, "{} of {meant}", buyer.promised());
        }
    }
}
