//! What the index tells, on small markets.

use super::{Spread, Why, auctions, demand, lost, models, overview, reputation, reputation_with, traffic};
use crate::index::{
    Book, Event,
    tests::{accept, ad, node, offer, receipt},
};
use infernet_wire::{id::NodeId, money::MicroUsd, time::UnixMillis};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn book(events: impl IntoIterator<Item = Event>) -> Book {
    let mut book = Book::default();
    events.into_iter().for_each(|event| {
        book.fold(event);
    });
    book
}

fn points(events: impl IntoIterator<Item = Event>, worker: u8) -> (u64, usize, usize) {
    let told = reputation(&book(events), &node(worker));
    (told.points, told.buyers, told.counted)
}

#[test]
fn a_model_shows_who_serves_it_and_the_spread_of_prices() {
    let book = book([ad(1, 1, 0, "m", 30), ad(2, 1, 0, "m", 10), ad(3, 1, 0, "m", 20), ad(4, 1, 0, "other", 1)]);
    let rows = models(&book, NOW);
    assert_eq!(rows.iter().map(|row| (row.id.as_str(), row.nodes)).collect::<Vec<_>>(), [("m", 3), ("other", 1)]);
    assert_eq!(rows[0].workers, [node(2), node(3), node(1)], "the cheapest first");
    assert_eq!(rows[0].output_price, Some(Spread { min: 10, median: 20, max: 30 }));
    assert_eq!(overview(&book, NOW).slots, 8);
}

#[test]
fn what_nobody_serves_is_demand() {
    let book = book([
        ad(1, 1, 0, "served", 5),
        offer(1, 1, "served", 0),
        offer(2, 1, "wanted", 0),
        offer(3, 2, "wanted", 1),
        offer(4, 2, "Wanted too", 1),
    ]);
    let rows = demand(&book, NOW.after(5));
    let shown: Vec<_> = rows.iter().map(|row| (row.model.as_str(), row.buyers, row.offers)).collect();
    assert_eq!(shown, [("wanted", 2, 2), ("Wanted too", 1, 1)], "what more buyers want comes first");
    assert_eq!(rows[0].ceiling, Some(Spread { min: 2, median: 2, max: 3 }));
    assert_eq!(demand(&book, NOW.after(3_600_002)), [], "an hour later nobody wants it any more");
    assert!(demand(&book, NOW.after(90_001)).iter().any(|row| row.model == "served"), "its worker is gone");
}

#[test]
fn a_lost_auction_tells_what_prices_tell() {
    let why = |own: u64| {
        let book = book([ad(7, 1, 0, "m", own), offer(4, 1, "m", 0), accept(4, 1, 3, 1, 20)]);
        lost(&book, &node(7), NOW.after(30), 9).iter().map(|lost| lost.why).collect::<Vec<_>>()
    };
    assert_eq!(why(5), [Why::AboveCeiling], "it would pay 4 for output");
    assert_eq!(why(2), [Why::Dearer(200)], "10 × 2 + 20 × 2 against 10 × 1 + 20 × 2");
    assert_eq!(why(1), [Why::NotByPrice]);
    let book = book([
        ad(7, 1, 0, "m", 1),
        offer(4, 1, "m", 0),
        accept(4, 1, 3, 1, 20),
        accept(4, 1, 7, 2, 25),
        offer(5, 1, "other", 0),
        accept(5, 1, 3, 1, 20),
        offer(6, 7, "m", 0),
        accept(6, 7, 3, 1, 20),
        offer(8, 1, "m", 0),
        accept(8, 9, 3, 1, 20),
    ]);
    assert_eq!(lost(&book, &node(7), NOW.after(30), 9), [], "won at last, not served, its own, not the buyer's word");
    assert_eq!(lost(&book, &node(8), NOW.after(30), 9), [], "it has no ad");
    assert_eq!(lost(&book, &node(7), NOW.after(3_600_030), 9), [], "too long ago");
}

#[test]
fn only_the_buyer_closes_its_auction() {
    let book = book([
        offer(1, 1, "m", 0),
        accept(1, 9, 9, 9, 10),
        accept(1, 1, 3, 1, 20),
        accept(1, 1, 4, 2, 30),
        offer(2, 1, "m", 5),
    ]);
    let rows = auctions(&book, 10);
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].winner, rows[0].bids), (None, 0), "the newest first, and still open");
    assert_eq!((rows[1].winner, rows[1].attempts, rows[1].took_ms), (Some(node(4)), 2, Some(30)));
}

#[test]
fn volume_is_shown_by_the_hour() {
    let book = book([receipt(0, 1, 2, 500, 0, true), receipt(4, 1, 2, 700, 0, true), receipt(1, 1, 2, 9, 0, false)]);
    let points = traffic(&book, NOW.after(4_000_000), 3);
    assert_eq!(points.iter().map(|point| point.volume.0).collect::<Vec<_>>(), [0, 500, 700], "each hour, the oldest first");
    assert_eq!(points[1].tokens_per_second, Some(50.0));
}

#[test]
fn a_pair_of_keys_that_trades_with_itself_earns_nothing() {
    let one_way = (0..100).map(|job| receipt(job, 1, 2, 100_000, 0, true));
    assert_eq!(points(one_way, 1), (0, 1, 0), "a buyer of one worker alone says nothing");
    let itself = (0..100).map(|job| receipt(job, 1, 1, 100_000, 0, true));
    assert_eq!(points(itself, 1), (0, 0, 0));
    let each_other = (0..100).flat_map(|job| [receipt(job, 1, 2, 100_000, 0, true), receipt(job, 2, 1, 100_000, 0, true)]);
    // Even if one of them buys elsewhere, too.
    let elsewhere = [receipt(200, 3, 2, 1, 0, true), receipt(201, 4, 2, 1, 0, true)];
    assert_eq!(points(each_other.chain(elsewhere), 1), (0, 1, 0), "who buys from each other says nothing");
}

#[test]
fn one_buyer_adds_a_little_and_many_add_more() {
    let shops = |buyer: u8| [receipt(100 + buyer, 7, buyer, 1, 0, true), receipt(120 + buyer, 8, buyer, 1, 0, true)];
    let rich = (0..50).map(|job| receipt(job, 1, 2, 100_000, 0, true)).chain(shops(2));
    assert_eq!(points(rich, 1), (10, 1, 1), "however much it pays");
    let many = (10..15).flat_map(|buyer| [receipt(buyer, 1, buyer, 10, 0, true)].into_iter().chain(shops(buyer)));
    assert_eq!(points(many, 1), (5, 5, 5), "five small buyers");
    let failing = (10..20).flat_map(|buyer| {
        let statement = if buyer < 15 { 3 } else { 0 };
        [receipt(buyer, 1, buyer, 10, statement, true)].into_iter().chain(shops(buyer))
    });
    assert_eq!(points(failing, 1), (5, 10, 10), "half of its jobs failed");
}

#[test]
fn jobs_for_a_key_that_does_not_count_wash_nothing() {
    let shops = |buyer: u8| [receipt(100 + buyer, 7, buyer, 1, 0, true), receipt(120 + buyer, 8, buyer, 1, 0, true)];
    let failed = (10..20).flat_map(|buyer| [receipt(buyer, 1, buyer, 10, 3, true)].into_iter().chain(shops(buyer)));
    let washing = (0..1000u64).map(|n| match receipt(1, 1, 99, 10, 0, true) {
        Event::Receipt(mut fact) => {
            fact.job.0[..8].copy_from_slice(&n.to_be_bytes());
            Event::Receipt(fact)
        }
        other => other,
    });
    assert_eq!(points(failed.chain(washing), 1), (0, 11, 10));
}

#[test]
fn what_can_not_be_counts_for_nothing() {
    let with = |change: fn(&mut crate::index::ReceiptFact)| {
        let Event::Receipt(mut fact) = receipt(1, 1, 2, 5_000, 0, true) else { unreachable!("it is a receipt") };
        change(&mut fact);
        let sums = book([Event::Receipt(fact), receipt(2, 1, 2, 7, 0, true)]).ledger().all();
        (sums.jobs, sums.charged(), sums.output_tokens, sums.implausible)
    };
    let without = (1, MicroUsd(7), 100, 1);
    assert_eq!(with(|fact| fact.amount = MicroUsd(u64::MAX)), without);
    assert_eq!(with(|fact| fact.started = UnixMillis(0)), without);
    assert_eq!(with(|fact| fact.output_tokens = u32::MAX), without);
    assert_eq!(with(|_| {}), (2, MicroUsd(5_007), 200, 0));
}

#[test]
fn a_worker_can_not_erase_a_receipt_by_signing_its_job_again_for_another() {
    let (honest, later) = (receipt(1, 1, 2, 500, 3, true), receipt(1, 1, 9, 500, 4, true));
    for events in [[honest.clone(), later.clone()], [later, honest]] {
        let book = book(events);
        let buyers: Vec<NodeId> = book.ledger().of_job(&infernet_wire::id::JobId([1; 16])).map(|trade| trade.buyer).collect();
        assert_eq!(buyers.len(), 2);
        assert!(buyers.contains(&node(2)) && buyers.contains(&node(9)));
        assert_eq!((book.ledger().of(&node(1)).jobs, book.ledger().of(&node(1)).completed), (2, 1));
    }
}

#[test]
fn a_viewer_may_trust_its_own_receipts_alone() {
    let viewer: NodeId = node(2);
    let book = book([receipt(1, 1, 2, 5, 0, true), receipt(2, 1, 2, 5, 3, true), receipt(3, 1, 9, 5, 0, true)]);
    let told = reputation_with(&book, &node(1), &viewer);
    assert_eq!((told.buyers, told.completed_permille, told.points), (1, 500, 0));
    assert_eq!(reputation_with(&book, &node(1), &node(77)), super::Reputation::default());
    assert_eq!(MicroUsd(15), book.ledger().of(&node(1)).charged());
}
