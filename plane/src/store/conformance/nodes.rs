//! Registered nodes, their nonces, their payouts.

use super::{Both, NOW, later, name, pubkey};
use crate::store::{NodePut, NodeRow, PayoutRow, Pubkey, Role, Store};
use infernet_wire::time::UnixMillis;
use serde_json::json;

fn row(pubkey: Pubkey, node_id: &str, seen: UnixMillis) -> NodeRow {
    NodeRow {
        pubkey,
        role: Role::Provider,
        id: name("id-"),
        node_id: node_id.into(),
        name: "a node's \"name\", ü".into(),
        address: "192.0.2.7".into(),
        port: 46337,
        available: true,
        specs: json!({"gpus": [{"vram_tier": ">=48gb"}], "load": {"load_avg_1m": 0.25}, "none": null}),
        public: true,
        names_audience: false,
        registered: NOW,
        seen,
    }
}

pub(super) async fn conform(both: &Both) {
    a_row_is_replaced_but_for_what_it_was_given(both.store()).await;
    a_name_belongs_to_one_key(both.store()).await;
    a_nonce_is_used_once(both).await;
    payouts_are_kept(both.store()).await;
    silent_nodes_are_forgotten(both.store()).await;
}

async fn silent_nodes_are_forgotten(store: &dyn Store) {
    const DAY: u64 = 24 * 60 * 60;
    let ago = |seconds: u64| UnixMillis(NOW.0 - seconds * 1000);
    let heard = |from: u64, to: u64| NodeRow { registered: ago(from), ..row(pubkey(), &name("provider-"), ago(to)) };
    let (gone, brief) = (heard(60 * DAY, 31 * DAY), heard(2 * DAY + 60, 2 * DAY));
    let (away, new) = (heard(60 * DAY, 29 * DAY), heard(60, 60));
    for row in [&gone, &brief, &away, &new] {
        assert_eq!(store.put_node(row).await, Ok(NodePut::Kept));
    }
    store.forget_nonces(NOW).await.expect("forgotten");
    for (row, stays) in [(&gone, false), (&brief, false), (&away, true), (&new, true)] {
        let found = store.node(row.pubkey, row.role).await.expect("an answer");
        assert_eq!(found.is_some(), stays, "heard from {:?} to {:?}", row.registered, row.seen);
        let again = NodeRow { seen: NOW, ..super::nodes::row(pubkey(), &row.node_id, NOW) };
        let taken = if stays { NodePut::Taken } else { NodePut::Kept };
        assert_eq!(store.put_node(&again).await, Ok(taken), "a name goes with its row");
    }
}

async fn a_row_is_replaced_but_for_what_it_was_given(store: &dyn Store) {
    let first = row(pubkey(), &name("provider-"), NOW);
    assert_eq!(store.put_node(&first).await, Ok(NodePut::Kept));
    assert_eq!(store.node(first.pubkey, Role::Provider).await, Ok(Some(first.clone())));
    assert_eq!(store.node(first.pubkey, Role::Client).await, Ok(None));
    let second = NodeRow {
        id: name("id-"),
        registered: later(5),
        seen: later(5),
        available: false,
        names_audience: true,
        port: 0,
        ..first.clone()
    };
    assert_eq!(store.put_node(&second).await, Ok(NodePut::Kept));
    let kept = NodeRow { id: first.id.clone(), registered: first.registered, ..second };
    assert_eq!(store.node(first.pubkey, Role::Provider).await, Ok(Some(kept.clone())));
    assert_eq!(store.remove_node(first.pubkey, Role::Provider).await, Ok(Some(kept)));
    assert_eq!(store.remove_node(first.pubkey, Role::Provider).await, Ok(None));
    assert_eq!(store.node(first.pubkey, Role::Provider).await, Ok(None));
}

async fn a_name_belongs_to_one_key(store: &dyn Store) {
    let (mine, node_id, other_id) = (pubkey(), name("provider-"), name("provider-"));
    let first = row(mine, &node_id, NOW);
    assert_eq!(store.put_node(&first).await, Ok(NodePut::Kept));
    let thief = row(pubkey(), &node_id, NOW);
    assert_eq!(store.put_node(&thief).await, Ok(NodePut::Taken));
    assert_eq!(store.node(thief.pubkey, Role::Provider).await, Ok(None), "nothing was changed");
    let also = NodeRow { role: Role::Client, ..row(mine, &node_id, NOW) };
    assert_eq!(store.put_node(&also).await, Ok(NodePut::Kept), "its own key may use it in another role");
    assert_eq!(store.put_node(&NodeRow { node_id: other_id.clone(), ..first }).await, Ok(NodePut::Kept));
    assert_eq!(store.put_node(&thief).await, Ok(NodePut::Taken), "the other role still has it");
    store.remove_node(mine, Role::Client).await.expect("removed");
    assert_eq!(store.put_node(&thief).await, Ok(NodePut::Kept), "nobody has it");
    assert_eq!(store.put_node(&row(mine, &node_id, NOW)).await, Ok(NodePut::Taken));
    let kept = store.node(mine, Role::Provider).await.expect("read").expect("a row");
    assert_eq!(kept.node_id, other_id, "a refused change changes nothing");
}

async fn a_nonce_is_used_once(both: &Both) {
    let (store, mine, nonce) = (both.store(), pubkey(), name(""));
    let told = both.race(|store, _| {
        let nonce = nonce.clone();
        async move { store.use_nonce(mine, &nonce, later(120)).await.expect("an answer") }
    });
    assert_eq!(told.await.into_iter().filter(|is_new| *is_new).count(), 1, "of all who ask at once one is told so");
    assert_eq!(store.use_nonce(pubkey(), &nonce, later(120)).await, Ok(true), "another key's nonces are others");
    assert_eq!(store.use_nonce(mine, "", later(120)).await, Ok(true), "any text is a nonce");
    assert_eq!(store.use_nonce(mine, "a\nb'\u{0}ü", later(240)).await, Ok(true));
    store.forget_nonces(later(119)).await.expect("forgotten");
    assert_eq!(store.use_nonce(mine, &nonce, later(120)).await, Ok(false), "its time is not over");
    store.forget_nonces(later(121)).await.expect("forgotten");
    assert_eq!(store.use_nonce(mine, &nonce, later(300)).await, Ok(true), "what nobody could use any more is forgotten");
    assert_eq!(store.use_nonce(mine, "a\nb'\u{0}ü", later(300)).await, Ok(false), "and nothing else");
}

async fn payouts_are_kept(store: &dyn Store) {
    let payout = |pubkey, coin: &str, network: &str, address: &str| PayoutRow {
        pubkey,
        coin: coin.into(),
        network: network.into(),
        address: address.into(),
        set: NOW,
    };
    let mine = pubkey();
    for row in [payout(mine, "USDC", "solana", "a"), payout(mine, "BTC", "", "b"), payout(mine, "USDC", "base", "c")] {
        store.put_payout(&row).await.expect("set");
    }
    store.put_payout(&payout(mine, "USDC", "base", "d")).await.expect("set");
    let expected = vec![payout(mine, "BTC", "", "b"), payout(mine, "USDC", "base", "d"), payout(mine, "USDC", "solana", "a")];
    assert_eq!(store.payouts(mine).await, Ok(expected), "one address for each coin and network");
    assert_eq!(store.payouts(pubkey()).await, Ok(vec![]));
}
