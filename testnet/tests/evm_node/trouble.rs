//! A chain's node that is away, on another chain, or without our contract.

use crate::{
    DOLLAR, NOBODY, Party, Scene, eventually,
    gate::{Gate, SECRET},
    key,
};
use infernet_node::{
    settlement::{
        channels::{Known, MAX_CHANNELS, MIN_DEPOSIT},
        evm::{contract, wallet::EvmError},
        service::AccountError,
        steps::{CHANNELS, Entry},
        unsettled::{Unsettled, unsettled},
    },
    store::MemoryStore,
};
use infernet_testnet::evm::{act, at_once};
use infernet_wire::{evm::EvmAddress, money::MicroUsd, settle::EvmTerms, topic::NetworkId, voucher::ChannelTerms};
use std::sync::Arc;

#[tokio::test]
async fn a_chains_node_that_goes_away_holds_up_and_loses_nothing() {
    let Some(scene) = Scene::new().await else { return };
    scene.fund(&key(1), 9_000_000).await;
    let gate = Gate::before(scene.anvil.url()).await;
    let party = Party::start(key(1), Arc::new(MemoryStore::default()), scene.settings(gate.url())).ready().await;
    gate.set_open(false);
    eventually("it is told", async || !party.account.state().ready).await;
    let why = party.account.state().error.expect("a reason");
    assert!(why.contains("HTTP 503") && !why.contains(SECRET), "{why}");
    let refused = party.account.deposit(key(2).id(), DOLLAR).await.expect_err("not now");
    assert!(matches!(refused, AccountError::NotReady(_)) && !refused.to_string().contains(SECRET), "{refused}");
    // What takes no question first is wanted all the same, and goes on later.
    let steps = party.account.withdraw(NOBODY, None, false).await.expect("wanted");
    assert_eq!(party.account.steps()[0].1.word(), "prepared");
    gate.set_open(true);
    assert_eq!(party.ended(&steps).await, ["settled"]);
    assert_eq!(scene.balance(&key(1)).await, 0);
}

#[tokio::test]
async fn nothing_is_bought_or_sold_on_the_wrong_chain_or_contract() {
    let Some(scene) = Scene::new().await else { return };
    scene.fund(&key(1), 9_000_000).await;
    let good = scene.terms;
    let elsewhere = [
        (EvmTerms { chain: 5, ..good }, "is on chain 31337, not on 5"),
        (EvmTerms { contract: good.token, ..good }, "is not that of Channels"),
        (EvmTerms { contract: EvmAddress([3; 20]), ..good }, "is not that of Channels"),
    ];
    for (terms, says) in elsewhere {
        let mut settings = scene.settings(scene.anvil.url());
        settings.evm.terms = terms;
        let party = Party::start(key(1), Arc::new(MemoryStore::default()), settings);
        eventually("it is told", async || party.account.state().error.is_some_and(|why| why.contains(says))).await;
        assert_eq!((party.tabs.channels().means(), party.account.state().ready), (None, false));
        let refused = party.account.deposit(key(2).id(), DOLLAR).await.expect_err("not here");
        assert!(refused.to_string().contains(says), "{refused}");
    }
    assert_eq!(scene.balance(&key(1)).await, 9_000_000);
    let party = scene.party(key(1)).ready().await;
    assert_eq!(party.tabs.channels().means(), Some(good));
    scene.anvil.command("anvil_setChainId", serde_json::json!([5])).await.expect("changed");
    eventually("it sells on no chain", async || party.tabs.channels().means().is_none()).await;
}

#[tokio::test]
async fn a_book_full_of_cents_has_room_for_a_dollar_and_keeps_it_over_a_restart() {
    let Some(scene) = Scene::new().await else { return };
    scene.fund(&key(1), 9_000_000).await;
    let (buyer, worker) = (scene.party(key(1)).ready().await, scene.party(key(2)).ready().await);
    let EvmTerms { chain, contract, token, .. } = scene.terms;
    for n in 0..MAX_CHANNELS {
        let mut salt = [0; 32];
        salt[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let terms = ChannelTerms { chain, contract, payer: NOBODY, payee: worker.account.address(), token, salt };
        let cent = Known { terms, deposit: MIN_DEPOSIT.0.into(), redeemed: 0, exit_at: 0, closing: false };
        assert!(worker.tabs.channels().put(cent));
    }
    let steps = buyer.account.deposit(worker.key.id(), DOLLAR).await.expect("wanted");
    buyer.ended(&steps).await;
    let id = buyer.account.steps()[1].1.purpose.channel().expect("a channel");
    eventually("it is in the book", async || worker.tabs.channels().get(&id).is_some()).await;
    assert_eq!(worker.channels().len(), MAX_CHANNELS);
    eventually("it is kept", async || !worker.store.steps(CHANNELS).expect("read").is_empty()).await;
    let again = Party::start(key(2), worker.store.clone(), scene.settings(scene.anvil.url()));
    assert_eq!(again.channels().iter().map(|known| known.terms.id()).collect::<Vec<_>>(), [id]);
}

/// As every worker is that has only earned tokens.
#[tokio::test]
async fn an_account_without_coin_says_so_and_goes_on_when_it_has_some() {
    let Some(scene) = Scene::new().await else { return };
    let (buyer, worker) = scene.trading(DOLLAR).await;
    let poor = serde_json::json!([worker.account.address().to_string(), "0x0"]);
    scene.anvil.command("anvil_setBalance", poor).await.expect("poor");
    worker.promised(&buyer.key, &worker.channels()[0].terms, 1_000_000);
    let says = |why: String| why.contains("has 0 gwei") && why.contains(&worker.account.address().to_string());
    eventually("it is told", async || worker.account.state().waits.is_some_and(says)).await;
    assert_eq!(worker.steps("redeem").iter().map(Entry::word).collect::<Vec<_>>(), ["prepared"], "nothing is signed");
    scene.anvil.fund(&worker.account.address()).await.expect("rich");
    eventually("it is redeemed", async || scene.balance(&worker.key).await == 1_000_000).await;
    eventually("all is well", async || worker.account.state().waits.is_none()).await;
    let redeemed = worker.steps("redeem");
    let attempts = redeemed.iter().filter_map(|entry| entry.step.as_ref()).map(|step| step.attempts.len());
    assert_eq!(attempts.collect::<Vec<_>>(), [1], "and for no more than it costs");
}

/// A key that was rotated with `--force` while something was under way.
#[tokio::test]
async fn what_a_former_key_has_begun_holds_up_nothing() {
    let Some(scene) = Scene::new().await else { return };
    scene.fund(&key(1), 9_000_000).await;
    scene.fund(&key(3), 5_000_000).await;
    let gate = Gate::before(scene.anvil.url()).await;
    let before = Party::start(key(1), Arc::new(MemoryStore::default()), scene.settings(gate.url())).ready().await;
    gate.set_open(false);
    before.account.withdraw(NOBODY, None, false).await.expect("wanted");
    assert_eq!(
        unsettled(&*before.store, (&NetworkId::default(), &before.key.id())).expect("read"),
        [Unsettled::Step { number: 1, what: "withdraw" }]
    );
    assert_eq!(unsettled(&*before.store, (&NetworkId::default(), &key(3).id())).expect("read"), []);
    before.task.abort();
    let after = Party::start(key(3), before.store.clone(), scene.settings(scene.anvil.url())).ready().await;
    let steps = after.account.withdraw(NOBODY, None, false).await.expect("wanted");
    assert_eq!((steps.as_slice(), after.ended(&steps).await), (&[2][..], vec!["settled"]));
    assert_eq!((scene.balance(&key(1)).await, scene.balance(&key(3)).await), (9_000_000, 0));
}

/// What a rotation would leave behind: a deposit on the one side, on the other a voucher until it is redeemed.
#[tokio::test]
async fn a_key_knows_what_it_has_on_the_chain() {
    let Some(scene) = Scene::new().await else { return };
    let (buyer, worker) = scene.trading(DOLLAR).await;
    let left = |party: &Party| unsettled(&*party.store, (&NetworkId::default(), &party.key.id())).expect("read");
    let channel = worker.channels()[0].terms.id();
    eventually("both have it on the disk", async || left(&buyer) == [Unsettled::Deposit(channel)]).await;
    assert_eq!(left(&worker), []);
    worker.promised(&buyer.key, &worker.channels()[0].terms, 400_000);
    eventually("the channel is kept", async || left(&worker) == [Unsettled::Voucher { channel, units: 400_000 }]).await;
    let steps = worker.account.payout().await.expect("wanted");
    assert_eq!(worker.ended(&steps).await, ["settled"]);
    assert_eq!(left(&worker), []);
}

/// Such as a plane that sweeps with the node's key, or a copy of its home.
#[tokio::test]
async fn a_key_that_another_program_uses_begins_nothing_new_and_is_still_paid() {
    let Some(scene) = Scene::new().await else { return };
    let (buyer, worker) = scene.trading(DOLLAR).await;
    scene.fund(&key(2), 20_000).await;
    let steps = worker.account.withdraw(NOBODY, Some(MicroUsd(1)), false).await.expect("nobody else");
    assert_eq!(worker.ended(&steps).await, ["settled"]);
    let other = scene.anvil.wallet(&key(2), at_once()).await.expect("its account");
    act(&other, contract::transfer(&scene.terms.token, &NOBODY, 1)).await.expect("sent");
    let told = worker.account.withdraw(NOBODY, None, false).await.expect_err("shared").to_string();
    assert!(told.contains("another program sends from") && told.contains("give it a key of its own"), "{told}");
    let told = worker.account.deposit(buyer.key.id(), MicroUsd(10_000)).await.expect_err("shared");
    assert!(matches!(told, AccountError::Evm(EvmError::Shared(_))), "{told}");
    // What it is owed comes all the same.
    worker.promised(&buyer.key, &worker.channels()[0].terms, 1_000_000);
    eventually("it is redeemed", async || scene.balance(&worker.key).await == 1_019_998).await;
    assert_eq!(worker.steps("withdraw").len(), 1, "nothing else was begun");
}
