//! Deposits and payments: a transfer is credited once, whoever sees it; a payment is kept by one.

use super::{Both, NOW, RACERS, clients::client, hash, later, name};
use crate::store::{ClientId, DepositRow, EntryKind, Identity, MAX_PAGE, PaymentRow, Store};
use infernet_node::clock;
use infernet_wire::{evm::EvmAddress, money::MicroUsd};

fn wallet() -> EvmAddress {
    EvmAddress(clock::random())
}

/// The largest number that every store holds.
const MOST: u64 = i64::MAX as u64;

fn deposit(from: EvmAddress, amount: u64, block: u64) -> DepositRow {
    DepositRow {
        chain: 31_337,
        tx: hash(),
        log: 3,
        token: EvmAddress([1; 20]),
        to: EvmAddress([2; 20]),
        from,
        amount: MicroUsd(amount),
        block,
        client: None,
        credited: None,
    }
}

async fn signs_in(store: &dyn Store, wallet: EvmAddress) -> ClientId {
    let id = client(store).await;
    let identity = Identity {
        kind: "evm".into(),
        subject: hex::encode(wallet.0),
        data: String::new(),
        client: id.clone(),
        label: "a wallet".into(),
        added: NOW,
    };
    store.put_identity(&identity).await.expect("added");
    id
}

/// Those that wait for `client`: others of the same store are not ours.
async fn claimable(store: &dyn Store, client: &ClientId) -> Vec<DepositRow> {
    let all = store.claimable_deposits(MAX_PAGE).await.expect("deposits");
    all.into_iter().filter(|row| row.client.as_ref() == Some(client)).collect()
}

pub(super) async fn conform(both: &Both) {
    a_transfer_is_kept_once_and_the_mark_only_grows(both.store()).await;
    a_deposit_waits_for_its_wallet_and_is_credited_once(both).await;
    a_chain_that_was_rewritten_brings_nothing_twice(both.store()).await;
    a_payment_is_kept_by_one(both).await;
}

async fn a_transfer_is_kept_once_and_the_mark_only_grows(store: &dyn Store) {
    let (source, wallet) = (name("source "), wallet());
    assert_eq!(store.block_mark(&source).await, Ok(None));
    let first = deposit(wallet, 5, 10);
    let second = DepositRow { log: 4, amount: MicroUsd(7), ..first.clone() };
    let before = store.unclaimed_deposits().await.expect("a sum");
    assert_eq!(store.put_deposits(&source, &[first.clone(), second.clone()], 11).await, Ok(2));
    assert_eq!(store.put_deposits(&source, &[second, first.clone(), first], 9).await, Ok(0), "all are known");
    assert_eq!(store.block_mark(&source).await, Ok(Some(11)));
    let after = store.unclaimed_deposits().await.expect("a sum");
    // A sum that no row could hold stays at the most that one can.
    let sum = if before.1.0 == MOST { MOST } else { before.1.0 + 12 };
    assert_eq!((after.0, after.1.0), (before.0 + 2, sum));
    assert_eq!(store.put_deposits(&source, &[], 20).await, Ok(0));
    assert_eq!(store.block_mark(&source).await, Ok(Some(20)));
}

async fn a_deposit_waits_for_its_wallet_and_is_credited_once(both: &Both) {
    let (store, source, wallet) = (both.store(), name("source "), wallet());
    let rows = [deposit(wallet, 50, 10), deposit(wallet, 70, 11)];
    assert_eq!(store.put_deposits(&source, &rows, 12).await, Ok(2));
    let stranger = client(store).await;
    assert_eq!(store.deposits(&stranger, 10).await, Ok(vec![]));
    let id = signs_in(store, wallet).await;
    let waiting = claimable(store, &id).await;
    assert_eq!(waiting.len(), 2);
    let told = both.race(|store, _| {
        let waiting = waiting.clone();
        async move {
            let mut credited = 0;
            for row in waiting {
                credited += usize::from(store.credit_deposit(&row, later(5)).await.expect("an answer"));
            }
            credited
        }
    });
    assert_eq!(told.await.into_iter().sum::<usize>(), 2, "of {RACERS} who credit both one does, each");
    let row = store.client(&id).await.expect("read").expect("a client");
    assert_eq!((row.balance, row.reserved), (MicroUsd(120), MicroUsd(0)));
    assert_eq!(claimable(store, &id).await, []);
    assert_eq!(store.put_deposits(&source, &rows, 12).await, Ok(0), "what was credited is known, too");
    let other = DepositRow { client: Some(stranger.clone()), ..waiting[0].clone() };
    assert_eq!(store.credit_deposit(&other, later(6)).await, Ok(false));
    let own = store.deposits(&id, 10).await.expect("deposits");
    assert_eq!(own.iter().map(|row| row.amount.0).sum::<u64>(), 120);
    assert!(own.iter().all(|row| row.client.as_ref() == Some(&id) && row.credited == Some(later(5)) && row.from == wallet));
    let entries = store.entries(&id, None, 10).await.expect("entries");
    assert!(entries.iter().all(|entry| entry.kind == EntryKind::Deposit && entry.reference.starts_with("31337:0x")));
    assert_eq!(entries.iter().map(|entry| entry.amount).sum::<i64>(), 120);
    let unclaimed = store.unclaimed_deposits().await.expect("a sum");
    // One more balance than any store could hold: it waits, and nothing breaks.
    let huge = deposit(wallet, MOST, 13);
    assert_eq!(store.put_deposits(&source, std::slice::from_ref(&huge), 14).await, Ok(1));
    let huge = claimable(store, &id).await.pop().expect("it waits");
    assert_eq!(store.credit_deposit(&huge, later(7)).await, Ok(false));
    assert_eq!(store.unclaimed_deposits().await.expect("a sum").0, unclaimed.0 + 1);
}

async fn a_chain_that_was_rewritten_brings_nothing_twice(store: &dyn Store) {
    let (source, wallet) = (name("source "), wallet());
    let first = deposit(wallet, 5, 10);
    assert_eq!(store.put_deposits(&source, std::slice::from_ref(&first), 11).await, Ok(1));
    let moved = DepositRow { block: 12, log: 0, ..first };
    assert_eq!(store.put_deposits(&source, &[moved], 13).await, Ok(0));
}

async fn a_payment_is_kept_by_one(both: &Both) {
    let (store, account) = (both.store(), name("account "));
    let row = |number, revision, step: u8| PaymentRow { account: account.clone(), number, revision, at: NOW, step: vec![step] };
    assert_eq!(store.payments(&account, 10).await, Ok(vec![]));
    assert_eq!(store.keep_payment(&row(2, 0, 0)).await, Ok(false), "there is none before it");
    let told = both.race(|store, racer| {
        let row = row(1, 0, racer as u8);
        async move { store.keep_payment(&row).await.expect("an answer") }
    });
    assert_eq!(told.await.into_iter().filter(|kept| *kept).count(), 1);
    let told = both.race(|store, racer| {
        let row = row(1, 1, racer as u8);
        async move { (racer, store.keep_payment(&row).await.expect("an answer")) }
    });
    let kept: Vec<usize> = told.await.into_iter().filter(|(_, kept)| *kept).map(|(racer, _)| racer).collect();
    assert_eq!(kept.len(), 1, "an older revision replaces nothing");
    assert_eq!(store.payments(&account, 10).await, Ok(vec![row(1, 1, kept[0] as u8)]));
    assert_eq!(store.keep_payment(&row(1, 3, 0)).await, Ok(false));
    assert_eq!(store.keep_payment(&row(2, 0, 9)).await, Ok(true));
    let newest = store.payments(&account, 1).await.expect("payments");
    assert_eq!(newest, [row(2, 0, 9)]);
}
