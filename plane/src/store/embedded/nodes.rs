//! Registered nodes, nonces, payouts.

use super::{
    EmbeddedStore,
    clients::MAX_FORGOTTEN,
    db::{Change, Key, Table},
};
use crate::store::{Answer, NodePut, NodeRow, Nodes, PayoutRow, Pubkey, Role, StoreError, nodes::is_forgotten};
use futures::FutureExt;
use infernet_wire::time::UnixMillis;

const NODE: u8 = 10;
const NAME: u8 = 11;
const NONCE: u8 = 12;
const NONCE_END: u8 = 13;
const PAYOUT: u8 = 14;

/// Nodes that are forgotten in one write.
const NODES_AT_ONCE: usize = 100;
/// Payouts of one node that are read: coins times networks, with room to spare.
const MAX_PAYOUTS: usize = 100;

fn node(pubkey: Pubkey, role: Role) -> Key {
    Key::of(NODE).fixed(&pubkey.0).number(role as u64)
}

fn name(node_id: &str) -> Key {
    Key::of(NAME).last(node_id)
}

/// Whether another role of the key goes by this name, too.
fn is_shared(table: &Table, row: &NodeRow) -> Result<bool, StoreError> {
    let others = [Role::Provider, Role::Aggregator, Role::Client].into_iter().filter(|role| *role != row.role);
    for role in others {
        let other: Option<NodeRow> = table.get(&node(row.pubkey, role))?;
        if other.is_some_and(|other| other.node_id == row.node_id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Nodes that are to be forgotten, so many at once.
fn forgotten(table: &Table, now: UnixMillis) -> Result<Vec<(Pubkey, Role)>, StoreError> {
    let prefix = Key::of(NODE);
    let rows = table.after(&prefix, &prefix).map(|row| row?.read::<NodeRow>());
    let gone = rows.filter(|row| row.as_ref().map_or(true, |row| is_forgotten(row.registered, row.seen, now)));
    gone.take(MAX_FORGOTTEN).map(|row| row.map(|row| (row.pubkey, row.role))).collect()
}

/// Removes those of `nodes` that have not come back since.
fn forget_nodes(change: &mut Change<'_>, nodes: &[(Pubkey, Role)], now: UnixMillis) -> Result<(), StoreError> {
    for (pubkey, role) in nodes {
        let row: Option<NodeRow> = change.table().get(&node(*pubkey, *role))?;
        if let Some(row) = row.filter(|row| is_forgotten(row.registered, row.seen, now)) {
            remove(change, &row)?;
        }
    }
    Ok(())
}

/// Forgets nonces whose time is over.
fn forget_used(change: &mut Change<'_>, now: UnixMillis) -> Result<(), StoreError> {
    let prefix = Key::of(NONCE_END);
    let over: Result<Vec<_>, _> =
        change.table().before(&prefix, Some(&prefix.clone().number(now.0))).take(MAX_FORGOTTEN).collect();
    for row in over? {
        // Behind the time they are as in the other index.
        change.remove(&Key::of(NONCE).fixed(row.key_after(prefix.len() + 8)));
        change.remove(&Key::read(row.key));
    }
    Ok(())
}

fn remove(change: &mut Change<'_>, row: &NodeRow) -> Result<(), StoreError> {
    change.remove(&node(row.pubkey, row.role));
    if !is_shared(change.table(), row)? {
        change.remove(&name(&row.node_id));
    }
    Ok(())
}

impl Nodes for EmbeddedStore {
    fn put_node<'a>(&'a self, row: &'a NodeRow) -> Answer<'a, NodePut> {
        let mut row = row.clone();
        self.write(move |change| {
            let owner: Option<Pubkey> = change.table().get(&name(&row.node_id))?;
            if owner.is_some_and(|owner| owner != row.pubkey) {
                return Ok(NodePut::Taken);
            }
            let old: Option<NodeRow> = change.table().get(&node(row.pubkey, row.role))?;
            if let Some(old) = old {
                if old.node_id != row.node_id && !is_shared(change.table(), &old)? {
                    change.remove(&name(&old.node_id));
                }
                (row.id, row.registered) = (old.id, old.registered);
            }
            change.put(&name(&row.node_id), &row.pubkey)?;
            change.put(&node(row.pubkey, row.role), &row)?;
            Ok(NodePut::Kept)
        })
    }

    fn node(&self, pubkey: Pubkey, role: Role) -> Answer<'_, Option<NodeRow>> {
        self.read(move |table| table.get(&node(pubkey, role)))
    }

    fn remove_node(&self, pubkey: Pubkey, role: Role) -> Answer<'_, Option<NodeRow>> {
        self.write(move |change| {
            let old: Option<NodeRow> = change.table().get(&node(pubkey, role))?;
            if let Some(old) = &old {
                remove(change, old)?;
            }
            Ok(old)
        })
    }

    fn use_nonce<'a>(&'a self, pubkey: Pubkey, nonce: &'a str, until: UnixMillis) -> Answer<'a, bool> {
        let key = Key::of(NONCE).fixed(&pubkey.0).last(nonce);
        let end = Key::of(NONCE_END).number(until.0).fixed(&pubkey.0).last(nonce);
        self.write(move |change| {
            let is_new = !change.table().has(&key)?;
            if is_new {
                change.put_bytes(&key, &[]);
                change.put_bytes(&end, &[]);
            }
            Ok(is_new)
        })
    }

    fn forget_nonces(&self, now: UnixMillis) -> Answer<'_, ()> {
        async move {
            self.write_soon(move |change| {
                forget_used(change, now)?;
                super::clients::forget(change, now)
            })
            .await?;
            // All rows are read, and nobody waits for that; who writes waits for a few removals at most.
            let gone = self.read(move |table| forgotten(table, now)).await?;
            for few in gone.chunks(NODES_AT_ONCE) {
                let few = few.to_vec();
                self.write_soon(move |change| forget_nodes(change, &few, now)).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn put_payout<'a>(&'a self, row: &'a PayoutRow) -> Answer<'a, ()> {
        let row = row.clone();
        self.write(move |change| change.put(&Key::of(PAYOUT).fixed(&row.pubkey.0).text(&row.coin).last(&row.network), &row))
    }

    fn payouts(&self, pubkey: Pubkey) -> Answer<'_, Vec<PayoutRow>> {
        self.read(move |table| {
            let prefix = Key::of(PAYOUT).fixed(&pubkey.0);
            let rows: Result<Vec<PayoutRow>, _> =
                table.after(&prefix, &prefix).take(MAX_PAYOUTS).map(|row| row?.read()).collect();
            let mut rows = rows?;
            rows.sort_by(|a, b| (&a.coin, &a.network).cmp(&(&b.coin, &b.network)));
            Ok(rows)
        })
    }
}
