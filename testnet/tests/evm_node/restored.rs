//! A home that has the key and nothing else: its channels are on the chain, however old they are.

use crate::{DOLLAR, Party, Scene, eventually, gate::Gate, key};
use infernet_node::store::MemoryStore;
use std::sync::Arc;

/// Blocks after the deposit: more than a first start looks back before it is ready. Made by so many at once, in a question's time.
const OLD: u64 = 1_600;
const AT_ONCE: u64 = 200;
/// Logs of so many blocks at once.
const MOST: u64 = 50;
/// How near to the deposit the chain's node gives logs at first.
const NEAR: u64 = 250;

#[tokio::test]
async fn a_restored_home_finds_its_channels_however_old_and_goes_on_after_a_restart() {
    let Some(scene) = Scene::new().await else { return };
    scene.fund(&key(1), 9_000_000).await;
    let buyer = scene.party(key(1)).ready().await;
    let steps = buyer.account.deposit(key(2).id(), DOLLAR).await.expect("wanted");
    assert_eq!(buyer.ended(&steps).await, ["settled", "settled"]);
    drop(buyer);
    for _ in 0..OLD / AT_ONCE {
        scene.anvil.mine(AT_ONCE).await.expect("blocks");
    }
    let gate = Gate::before(scene.anvil.url()).await;
    gate.logs(|logs| (logs.most, logs.since) = (Some(MOST), NEAR));

    let store = Arc::new(MemoryStore::default());
    let first = Party::start(key(1), store.clone(), scene.settings(gate.url())).ready().await;
    let lowest = || gate.logs(|logs| logs.given.iter().map(|(from, _)| *from).min()).expect("some");
    eventually("it has read what there is", async || lowest() < NEAR + MOST).await;
    assert!(first.channels().is_empty() && first.account.state().ready, "old blocks hold up nothing");
    drop(first);
    let (reached, before) = (lowest(), gate.logs(|logs| std::mem::take(&mut logs.given)));
    assert!(before.iter().all(|(from, to)| to - from < MOST), "no more than it gives");
    gate.logs(|logs| logs.since = 0);

    let again = Party::start(key(1), store, scene.settings(gate.url())).ready().await;
    eventually("it is found", async || again.channels().iter().any(|known| known.deposit == 1_000_000)).await;
    let read_again = gate.logs(|logs| logs.given.iter().filter(|(from, _)| (reached + MOST..OLD).contains(from)).count());
    assert_eq!(read_again, 0, "what was read stays read: {reached}");
    // What was promised on it nobody knows: no job is paid from it, and a deposit opens another.
    assert!(again.tabs.channels().to(&key(2).id()).is_empty());
    // And it can be left.
    let steps = again.account.exit(key(2).id()).await.expect("wanted");
    assert_eq!(again.ended(&steps).await, ["settled"]);
}
