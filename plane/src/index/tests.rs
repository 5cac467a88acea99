//! Any order and any number of repetitions make the same index.

use super::{AcceptFact, AdFact, Book, Event, OfferFact, ReceiptFact};
use crate::query;
use infernet_wire::{
    capability::ModelAd,
    hash,
    id::{Hash, JobId, NodeId},
    money::{MicroUsd, Price},
    receipt::JobStatus,
    time::UnixMillis,
};
use proptest::prelude::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

pub(crate) fn node(n: u8) -> NodeId {
    NodeId([n; 33])
}

fn digest(parts: &[&[u8]]) -> Hash {
    hash::tagged("test", parts)
}

pub(crate) fn ad(worker: u8, sequence: u64, issued: u64, model: &str, price: u64) -> Event {
    let price = Price { input: MicroUsd(price), output: MicroUsd(price) };
    Event::Ad(AdFact {
        worker: node(worker),
        digest: digest(&[&[worker], &sequence.to_be_bytes(), &issued.to_be_bytes(), model.as_bytes()]),
        sequence,
        issued: NOW.after(issued),
        expires: NOW.after(issued + 90_000),
        tags: vec!["c0mpute:cpu".into()],
        models: vec![ModelAd { id: model.into(), price, tokens_per_second: 10, ..ModelAd::default() }],
        slots: 2,
    })
}

pub(crate) fn offer(n: u8, buyer: u8, model: &str, issued: u64) -> Event {
    Event::Offer(OfferFact {
        digest: digest(&[&[n]]),
        buyer: node(buyer),
        model: model.into(),
        input_tokens: 10,
        output_tokens: 20,
        ceiling: Price { input: MicroUsd(5), output: MicroUsd(u64::from(n)) },
        issued: NOW.after(issued),
    })
}

pub(crate) fn accept(offer: u8, buyer: u8, winner: u8, attempt: u8, issued: u64) -> Event {
    Event::Accept(AcceptFact {
        digest: digest(&[&[offer, buyer, winner, attempt], &issued.to_be_bytes()]),
        offer: digest(&[&[offer]]),
        buyer: node(buyer),
        winner: node(winner),
        model: "m".into(),
        price: Price { input: MicroUsd(1), output: MicroUsd(2) },
        job: JobId([offer; 16]),
        attempt,
        runners_up: 1,
        issued: NOW.after(issued),
    })
}

/// A receipt; `statement` tells apart what a worker says of the same job.
pub(crate) fn receipt(job: u8, worker: u8, buyer: u8, amount: u64, statement: u8, is_settled: bool) -> Event {
    let finished = NOW.after(u64::from(job) * 1_000_000 + u64::from(statement));
    Event::Receipt(ReceiptFact {
        job: JobId([job; 16]),
        worker: node(worker),
        buyer: node(buyer),
        digest: digest(&[&[job, worker, buyer, statement], &amount.to_be_bytes()]),
        is_settled,
        model: if job.is_multiple_of(2) { "even".into() } else { "odd".into() },
        input_tokens: 7,
        output_tokens: 100,
        amount: MicroUsd(amount),
        started: UnixMillis(finished.0 - 2_000),
        finished,
        status: if statement == 3 { JobStatus::FAILED } else { JobStatus::COMPLETED },
    })
}

fn event() -> impl Strategy<Value = Event> {
    let (small, time) = (0u8..6, 0u64..200_000);
    prop_oneof![
        (small.clone(), 0u64..4, time.clone(), "[ab]").prop_map(|(w, s, at, model)| ad(w, s, at, &model, 5)),
        // What has one digest is one offer.
        (0u8..12).prop_map(|n| offer(n, n % 2, ["a", "b", "c"][usize::from(n % 3)], u64::from(n) * 7)),
        (0u8..12, 0u8..2, small.clone(), 1u8..4, time).prop_map(|(n, buyer, w, a, at)| accept(n, buyer, w, a, at)),
        (0u8..12, small.clone(), small, 0u64..5_000, 0u8..4, any::<bool>())
            .prop_map(|(job, w, b, amount, statement, settled)| receipt(job, w, b, amount, statement, settled)),
    ]
}

/// All that anybody can see of a book.
fn seen(book: &Book) -> String {
    let ids: Vec<NodeId> = (0..8).map(node).collect();
    let views: Vec<_> = ids.iter().map(|id| query::node(book, id, NOW)).collect();
    let earned: Vec<_> = ids.iter().map(|id| query::earnings(book, id, NOW.after(20_000_000), 9)).collect();
    let trades: Vec<_> = book.ledger().newest().collect();
    let parts = (
        book.ads().collect::<Vec<_>>(),
        book.offers().collect::<Vec<_>>(),
        book.accepts().collect::<Vec<_>>(),
        trades,
        views,
        earned,
    );
    let market = (
        query::overview(book, NOW),
        query::models(book, NOW),
        query::demand(book, NOW),
        query::auctions(book, 99),
        query::traffic(book, NOW.after(20_000_000), 48),
    );
    format!("{parts:#?}{market:#?}")
}

fn folded(events: &[Event]) -> Book {
    // Small, so that bounds are reached.
    let mut book = Book::bounded(3, 5, 8);
    events.iter().for_each(|event| {
        book.fold(event.clone());
    });
    book
}

proptest! {
    #[test]
    fn any_order_and_repetition_make_the_same_index(
        (events, shuffled) in prop::collection::vec(event(), 0..60).prop_flat_map(|events| {
            let twice: Vec<Event> = events.iter().chain(&events).cloned().collect();
            (Just(events), Just(twice).prop_shuffle())
        })
    ) {
        prop_assert_eq!(seen(&folded(&events)), seen(&folded(&shuffled)));
    }

    #[test]
    fn sums_are_those_of_what_is_kept(events in prop::collection::vec(event(), 0..60)) {
        let book = folded(&events);
        let mut again = Book::bounded(3, 5, 8);
        for trade in book.ledger().newest() {
            again.fold(Event::Receipt(ReceiptFact {
                job: trade.job, worker: trade.worker, buyer: trade.buyer, digest: trade.digest, is_settled: trade.is_settled,
                model: trade.model, input_tokens: trade.input_tokens, output_tokens: trade.output_tokens,
                amount: trade.amount, started: trade.started, finished: trade.finished, status: trade.status,
            }));
        }
        prop_assert!(book.ledger().len() <= 8);
        prop_assert_eq!(book.ledger().all(), again.ledger().all());
        prop_assert_eq!(book.ledger().hours(0).collect::<Vec<_>>(), again.ledger().hours(0).collect::<Vec<_>>());
        prop_assert_eq!(book.ledger().workers().collect::<Vec<_>>(), again.ledger().workers().collect::<Vec<_>>());
        for id in book.ledger().workers() {
            prop_assert_eq!(query::node(&book, id, NOW).map(|view| view.work), query::node(&again, id, NOW).map(|view| view.work));
        }
    }
}

#[test]
fn a_worker_is_offline_ninety_seconds_after_its_last_ad() {
    let book = folded(&[ad(1, 1, 0, "m", 5)]);
    let is_online = |at| query::node(&book, &node(1), NOW.after(at)).expect("it is known").online;
    assert!(is_online(89_999));
    assert!(!is_online(90_000));
    assert_eq!(query::overview(&book, NOW.after(90_000)).nodes_online, 0);
    assert_eq!(query::nodes(&book, NOW.after(90_000), None, false, 9).len(), 0);
    assert_eq!(query::nodes(&book, NOW.after(90_000), None, true, 9).len(), 1);
}

#[test]
fn what_only_the_worker_signed_counts_for_nothing() {
    let book = folded(&[receipt(1, 1, 2, 5_000, 0, false)]);
    let view = query::node(&book, &node(1), NOW).expect("it is known");
    assert_eq!((view.work.jobs, view.work.earned, view.work.unacknowledged), (0, MicroUsd(0), 1));
    let book = folded(&[receipt(1, 1, 2, 5_000, 0, false), receipt(1, 1, 2, 5_000, 0, true)]);
    let view = query::node(&book, &node(1), NOW).expect("it is known");
    assert_eq!((view.work.jobs, view.work.earned, view.work.unacknowledged), (1, MicroUsd(5_000), 0));
}
