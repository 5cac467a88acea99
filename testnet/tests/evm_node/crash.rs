//! The disk crashes before each of its operations, with every kind of torn tail: a new node goes on, and pays once.

use crate::{NOBODY, POLL, Party, Scene, eventually, key};
use infernet_node::{
    settlement::steps::{Entry, Persist},
    store::{JournaledStore, Names, Store, Tear, TestDisk},
};
use infernet_wire::{codec, evm::EvmAddress, money::MicroUsd, receipt::SignedReceipt, topic::NetworkId};
use std::{collections::BTreeSet, sync::Arc};
use tokio::time::sleep;

const AMOUNT: u128 = 7;

fn open(disk: &TestDisk) -> Arc<dyn Store> {
    let read = SignedReceipt::decode_stored;
    Arc::new(JournaledStore::open(disk.clone(), &NetworkId::default(), [7; 16], read).expect("opens"))
}

#[tokio::test]
async fn a_node_that_crashes_at_any_point_pays_once() {
    let Some(scene) = Scene::new().await else { return };
    scene.fund(&key(1), 0).await;
    scene.fund(&key(1), 1_000_000).await;
    let tears = [Tear::LOST, Tear::KEPT, Tear { kept: 700, garbage: 90, names: Names::Seen }];
    let (mut seen, mut owed) = (BTreeSet::new(), 0);
    for operation in 0.. {
        let tear = tears[operation % tears.len()];
        let disk = TestDisk::default();
        let party = Party::start(key(1), open(&disk), scene.settings(scene.anvil.url())).ready().await;
        disk.crash_at(disk.operations() + u64::try_from(operation).expect("small"));
        let wanted = party.account.withdraw(NOBODY, Some(MicroUsd(7)), false).await;
        let promised = wanted.is_ok();
        // Until it ends, or its disk is gone.
        let whole = loop {
            let state = party.account.state();
            let ended = party.account.steps().iter().all(|(_, entry)| entry.is_done());
            let stuck = !promised || state.waits.is_some() || state.error.is_some();
            if ended && promised || stuck {
                break ended && promised;
            }
            sleep(POLL).await;
        };
        drop(party);
        let after = disk.after_crash(tear);
        let store = open(&after);
        let kept = store.steps(1).expect("read");
        let kept: Vec<Entry> = kept.iter().filter_map(|(_, record)| codec::decode(record).ok()).collect();
        kept.iter().for_each(|entry| _ = seen.insert(entry.at()));
        assert!(!promised || !kept.is_empty(), "what was promised is kept: crash at {operation}");
        owed += AMOUNT * u128::try_from(kept.len()).expect("few");
        let again = Party::start(key(1), store, scene.settings(scene.anvil.url())).ready().await;
        eventually("it ends", async || again.account.steps().iter().all(|(_, entry)| entry.is_done())).await;
        assert!(again.account.steps().iter().all(|(_, entry)| entry.word() == "settled"), "{:?}", again.account.steps());
        let paid = scene.stranger.balance(&scene.terms.token, &NOBODY).await.expect("a balance");
        assert_eq!(paid, owed, "crash at {operation}");
        if whole {
            break;
        }
    }
    assert_eq!(seen, BTreeSet::from(Persist::ALL), "each point was crashed at");
    assert_ne!(scene.terms.token, EvmAddress::ZERO);
}
