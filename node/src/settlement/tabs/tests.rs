use super::*;
use crate::{
    settlement::{
        channels::{Known, MAX_CHANNELS},
        rail::{Evm, Rails},
    },
    store::MemoryStore,
};
use futures::executor::block_on;
use infernet_wire::settle::EvmTerms;

const CONTRACT: EvmAddress = EvmAddress([9; 20]);
const MEANS: EvmTerms = EvmTerms { chain: 31_337, contract: CONTRACT, token: EvmAddress([8; 20]), rate: 1 };

struct Side {
    key: NodeKey,
    store: Arc<dyn Store>,
    tabs: Tabs,
}

fn tabs(key: &NodeKey, store: &Arc<dyn Store>, means: EvmTerms) -> Tabs {
    let tabs = Tabs::new(key.clone(), &[], NetworkId::default(), store.clone(), Credit::default());
    tabs.channels().set_means(Some(means));
    tabs
}

fn side(n: u8, means: EvmTerms) -> Side {
    let (key, store) = (NodeKey::from_bytes(&[n; 32]).expect("a key"), Arc::new(MemoryStore::default()) as Arc<dyn Store>);
    Side { tabs: tabs(&key, &store, means), key, store }
}

/// A buyer, a seller, and a channel of `deposit` units between them that both know.
fn stage(means: EvmTerms, deposit: u128) -> (Side, Side, Known) {
    let (buyer, seller) = (side(1, means), side(2, means));
    let [payer, payee] = [&buyer, &seller].map(|side| side.key.id().evm_address());
    let EvmTerms { chain, contract, token, .. } = means;
    let terms = ChannelTerms { chain, contract, payer, payee, token, salt: [5; 32] };
    let known = Known { terms, deposit, redeemed: 0, exit_at: 0, closing: false };
    assert!([&buyer, &seller].iter().all(|side| side.tabs.channels().put(known)));
    (buyer, seller, known)
}

const MOST: MicroUsd = MicroUsd(60_000);

fn job(n: u8) -> JobId {
    JobId([n; 16])
}

/// What `buyer` may buy for, however it pays.
fn covered(seller: &Side, buyer: &Side) -> MicroUsd {
    Rails::new(&seller.tabs, Arc::new(Evm::new(seller.tabs.clone()))).covers(&buyer.key.id())
}

fn open(buyer: &Side, seller: &Side, n: u8, rate: u128) -> (Payer, Result<Till, NotOpened>, Payment) {
    let mut payer = buyer.tabs.payer(seller.key.id(), job(n), MOST, rate);
    let payment = block_on(payer.pay(MicroUsd(100))).expect("pays");
    let sale = Sale { buyer: buyer.key.id(), job: job(n), most: MOST, tokens: 100, payment: Some(&payment), rate };
    let till = seller.tabs.open(&sale);
    (payer, till, payment)
}

#[test]
fn a_job_without_credit_is_paid_from_a_channel_at_its_rate() {
    let (buyer, seller, known) = stage(EvmTerms { rate: 400, ..MEANS }, 40_000_000);
    assert_eq!(covered(&seller, &buyer), MicroUsd(100_000), "the deposit, and no credit");
    let (mut payer, till, payment) = open(&buyer, &seller, 1, 400);
    let mut till = till.expect("covered");
    till.take(&payment).expect("good");
    block_on(till.kept()).expect("kept");
    let voucher = UnverifiedVoucher::decode(&payment.voucher).expect("a voucher").as_kept();
    assert_eq!((voucher.chain, voucher.contract, voucher.channel), (31_337, CONTRACT, known.terms.id()));
    assert_eq!(voucher.amount, 40_000, "in units");
    assert_eq!(payer.paid_on(), till.paid_on());
    assert_eq!(payer.paid_on().map(|on| (on.channel, on.rate)), Some((known.terms.id(), 400)));
    let payment = block_on(payer.pay(MicroUsd(150))).expect("pays");
    till.take(&payment).expect("good");
    block_on(till.kept()).expect("kept");
    till.close(MicroUsd(120), true);
    payer.close(Some(MicroUsd(120)));
    let sold = seller.tabs.sold_on(&buyer.key.id(), &known.terms.id()).expect("kept");
    assert_eq!((sold.settled_units(), sold.promised()), (48_000, 60_000));
    assert_eq!(buyer.tabs.bought_on(&seller.key.id(), &known.terms.id()).expect("kept").settled(), 48_000);
    assert_eq!(seller.tabs.sold_to(&buyer.key.id()).expect("kept").owed(), MicroUsd(0), "nothing of it is an IOU");
    let again = tabs(&seller.key, &seller.store, MEANS);
    let kept = again.all_sold_on_channels().expect("kept");
    assert_eq!(kept, [(buyer.key.id(), known.terms.id(), sold)], "and it is there after a restart");
}

#[test]
fn a_voucher_of_another_rate_channel_or_chain_opens_no_job() {
    let (buyer, seller, known) = stage(MEANS, 1_000_000);
    let refused = |(_payer, till, _): (Payer, Result<Till, NotOpened>, Payment)| till.err().map(|error| error.label());
    assert_eq!(refused(open(&buyer, &seller, 1, 1)), None);
    seller.tabs.channels().set_means(Some(EvmTerms { rate: 2, ..MEANS }));
    assert_eq!(refused(open(&buyer, &seller, 2, 1)), Some("rate"));
    seller.tabs.channels().set_means(Some(EvmTerms { chain: 1, ..MEANS }));
    assert_eq!(refused(open(&buyer, &seller, 3, 1)), Some("chain"));
    seller.tabs.channels().set_means(Some(MEANS));
    seller.tabs.channels().put(Known { exit_at: 7, ..known });
    assert_eq!(refused(open(&buyer, &seller, 4, 1)), Some("closing_channel"));
    seller.tabs.channels().remove(&known.terms.id());
    assert_eq!(refused(open(&buyer, &seller, 5, 1)), Some("unknown_channel"));
    buyer.tabs.channels().remove(&known.terms.id());
    assert_eq!(refused(open(&buyer, &seller, 6, 1)), Some("no_credit"), "then it is an IOU, which needs credit");
}

#[test]
fn jobs_side_by_side_use_a_deposit_once() {
    let (buyer, seller, _) = stage(MEANS, 100_000);
    let (first, till, _) = open(&buyer, &seller, 1, 1);
    let till = till.expect("covered");
    assert_eq!(covered(&seller, &buyer), MicroUsd(40_000));
    let second = buyer.tabs.payer(seller.key.id(), job(2), MOST, 1);
    assert_eq!(second.paid_on(), None, "what the first may cost is set aside");
    drop(second);
    till.close(MicroUsd(100), true);
    first.close(Some(MicroUsd(100)));
    let (third, till, _) = open(&buyer, &seller, 3, 1);
    assert!(third.paid_on().is_some() && till.is_ok(), "and free again for the next");
}

#[test]
fn a_channel_ends_at_what_its_jobs_came_to_and_never_opens_again() {
    let (buyer, seller, known) = stage(MEANS, 1_000_000);
    let asked = Closing { chain: 31_337, contract: CONTRACT, channel: known.terms.id() };
    let (us, them) = (buyer.key.id(), seller.key.id());
    let (payer, till, payment) = open(&buyer, &seller, 1, 1);
    let mut till = till.expect("covered");
    till.take(&payment).expect("good");
    let refused = block_on(seller.tabs.sign_close(&us, &asked)).expect_err("a job runs");
    assert_eq!(refused, CloseRefused::Running(NotClosed::Running(1)));
    till.close(MicroUsd(70), true);
    let stranger = side(3, MEANS);
    assert!(block_on(seller.tabs.sign_close(&stranger.key.id(), &asked)).is_err(), "it is not its channel");
    let closed = block_on(seller.tabs.sign_close(&us, &asked)).expect("signed");
    assert_eq!(closed.amount, 70);
    let unknown = buyer.tabs.sign_closed(&them, &asked, &closed).expect_err("the job runs here");
    assert_eq!(unknown, CloseRefused::TooMuch { wants: 70, owed: 0 });
    payer.close(Some(MicroUsd(70)));
    let ours = buyer.tabs.sign_closed(&them, &asked, &closed).expect("agreed");
    let close = Close { chain: 31_337, contract: CONTRACT, channel: asked.channel, amount: 70 };
    assert_eq!(close.verify(&ours, &us.evm_address()), Ok(()));
    assert_eq!(close.verify(&closed.signature, &them.evm_address()), Ok(()));
    let greedy = Closed { amount: 71, signature: Close { amount: 71, ..close }.sign(&seller.key) };
    assert_eq!(buyer.tabs.sign_closed(&them, &asked, &greedy), Err(CloseRefused::TooMuch { wants: 71, owed: 70 }));
    let forged = Closed { signature: close.sign(&stranger.key), ..closed };
    assert!(matches!(buyer.tabs.sign_closed(&them, &asked, &forged), Err(CloseRefused::Signature(_))));
    // It has redeemed its voucher, which was a piece ahead: the chain takes no lower end.
    let redeemed = Known { redeemed: 100, ..known };
    assert!(seller.tabs.channels().put(redeemed));
    let more = block_on(seller.tabs.sign_close(&us, &asked)).expect("signed");
    assert_eq!(more.amount, 100);
    assert!(buyer.tabs.sign_closed(&them, &asked, &more).is_err(), "not before the buyer sees it on the chain");
    assert!(buyer.tabs.channels().put(redeemed));
    assert!(buyer.tabs.sign_closed(&them, &asked, &more).is_ok());
    // A seller that was restarted since, and has the channel from the chain.
    let again = Side { tabs: tabs(&seller.key, &seller.store, MEANS), key: seller.key.clone(), store: seller.store.clone() };
    assert!(again.tabs.channels().put(known));
    let (_payer, till, _) = open(&buyer, &again, 9, 1);
    assert_eq!(till.err(), Some(NotOpened::NoCredit(NoCredit::Closed)));
    assert_eq!(block_on(again.tabs.sign_close(&us, &asked)), Ok(closed), "asked twice, it says the same");
}

#[test]
fn a_channel_makes_room_unless_a_job_runs_on_it_or_its_voucher_is_worth_a_payout() {
    let (buyer, seller, known) = stage(MEANS, 200_000);
    let (channels, stranger) = (seller.tabs.channels(), key_address(3));
    let other = |deposit, n: usize| {
        let mut terms = ChannelTerms { payer: stranger, ..known.terms };
        terms.salt[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Known { terms, deposit, ..known }
    };
    (1..MAX_CHANNELS).for_each(|n| assert!(channels.put(other(300_000, n))));
    let mut next = MAX_CHANNELS;
    let mut make_room = || {
        next += 1;
        let newcomer = other(400_000, next);
        assert!(!channels.put(newcomer), "it is full");
        let gone = seller.tabs.make_room(&newcomer, 100).expect("read").expect("somebody");
        assert!(channels.get(&gone).is_none() && channels.put(newcomer));
        gone
    };
    let (_payer, till, payment) = open(&buyer, &seller, 1, 1);
    let mut till = till.expect("covered");
    assert_ne!(make_room(), known.terms.id(), "a job runs on it");
    till.take(&payment).expect("good");
    block_on(till.kept()).expect("kept");
    till.close(MicroUsd(100), true);
    assert_ne!(make_room(), known.terms.id(), "its voucher is worth something");
    // A seller that was restarted since knows that from its store.
    let again = tabs(&seller.key, &seller.store, MEANS);
    channels.all().into_iter().for_each(|known| assert!(again.channels().put(known)));
    assert_ne!(again.make_room(&other(400_000, 0), 100).expect("read"), Some(known.terms.id()));
    assert!(channels.put(Known { redeemed: 1, ..known }));
    assert_eq!(make_room(), known.terms.id(), "the rest is not");
    let (_payer, till, _) = open(&buyer, &seller, 2, 1);
    assert_eq!(till.err().map(|error| error.label()), Some("unknown_channel"));
    assert_eq!(seller.tabs.make_room(&other(300_000, 0), 100).expect("read"), None, "no larger than the others");
}

#[test]
fn a_promise_of_more_than_the_deposit_keeps_no_place() {
    let (buyer, seller, known) = stage(MEANS, 60_000);
    let channels = seller.tabs.channels();
    let (_payer, till, _) = open(&buyer, &seller, 1, 1);
    let mut till = till.expect("covered");
    let ChannelTerms { chain, contract, .. } = known.terms;
    let all = Voucher { chain, contract, channel: known.terms.id(), job: job(1), amount: (1 << 96) - 1 };
    let all = SignedVoucher::sign(&buyer.key, all).expect("signed");
    till.take(&Payment { voucher: ByteBuf::from(all.encode()), paid: MicroUsd(1) }).expect("good");
    block_on(till.kept()).expect("kept");
    till.close(MicroUsd(1), true);
    let other = |n: usize| {
        let mut terms = ChannelTerms { payer: key_address(3), ..known.terms };
        terms.salt[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Known { terms, deposit: 300_000, ..known }
    };
    (1..MAX_CHANNELS).for_each(|n| assert!(channels.put(other(n))));
    assert_eq!(seller.tabs.make_room(&other(0), 60_000).expect("read"), None, "it pays as much");
    assert_eq!(seller.tabs.make_room(&other(0), 60_001).expect("read"), Some(known.terms.id()));
}

#[test]
fn a_seller_that_lost_its_store_gives_nothing_again_for_what_was_redeemed() {
    let (buyer, seller, known) = stage(MEANS, 1_000_000);
    let job_of = |buyer: &Side, seller: &Side, n: u8| {
        let (payer, till, payment) = open(buyer, seller, n, 1);
        let mut till = till.expect("covered");
        let taken = till.take(&payment);
        if taken.is_ok() {
            block_on(till.kept()).expect("kept");
            till.close(MicroUsd(100), true);
            payer.close(Some(MicroUsd(100)));
        }
        taken
    };
    assert_eq!(job_of(&buyer, &seller, 1), Ok(()));
    // It has redeemed that; then its home was restored from its key.
    let lost = side(2, MEANS);
    assert!(lost.tabs.channels().put(Known { redeemed: 100, ..known }));
    let forgetful = side(1, MEANS);
    assert!(forgetful.tabs.channels().put(known));
    let again = job_of(&forgetful, &lost, 2).expect_err("the same voucher");
    assert!(matches!(again, BadPayment::NotCovered { .. }), "{again}");
    assert_eq!(job_of(&buyer, &lost, 3), Ok(()), "one that goes on where it was");
    assert_eq!(lost.tabs.sold_on(&buyer.key.id(), &known.terms.id()).expect("kept").settled_units(), 200);
}

fn key_address(n: u8) -> EvmAddress {
    NodeKey::from_bytes(&[n; 32]).expect("a key").id().evm_address()
}
