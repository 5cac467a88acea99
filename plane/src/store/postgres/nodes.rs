//! Registered nodes, nonces, payouts.

use super::{
    PostgresStore, answer,
    convert::{Columns, Value, plain, role_number, signed},
    execute, lock, row, rows,
};
use crate::store::{
    Answer, NodePut, NodeRow, Nodes, PayoutRow, Pubkey, Role, StoreError,
    nodes::{BRIEF_MS, BRIEF_SILENT_MS, SILENT_MS},
};
use deadpool_postgres::Transaction;
use infernet_wire::time::UnixMillis;
use std::collections::BTreeSet;
use tokio_postgres::Row;

/// Nodes that are forgotten in one go: each is a lock, of which PostgreSQL has some thousands.
const NODES_AT_ONCE: usize = 1_000;
const COLUMNS: &str =
    "pubkey, role, id, node_id, name, address, port, available, specs, public, names_audience, registered, seen";

fn read(row: &Row) -> Result<NodeRow, StoreError> {
    let row = Columns(row);
    Ok(NodeRow {
        pubkey: row.pubkey("pubkey")?,
        role: row.role("role")?,
        id: row.get("id")?,
        node_id: row.get("node_id")?,
        name: row.get("name")?,
        address: row.get("address")?,
        port: u16::try_from(row.get::<i32>("port")?).unwrap_or_default(),
        available: row.get("available")?,
        specs: row.get("specs")?,
        public: row.get("public")?,
        names_audience: row.get("names_audience")?,
        registered: row.time("registered")?,
        seen: row.time("seen")?,
    })
}

/// Nobody else works on the rows of a key meanwhile.
async fn lock_key(step: &Transaction<'_>, pubkey: Pubkey) -> Result<(), StoreError> {
    lock(step, &subject(pubkey)).await
}

fn subject(pubkey: Pubkey) -> String {
    format!("node {}", hex::encode(pubkey.0))
}

/// Gives a name back that no role of the key goes by any more.
async fn free_name(step: &Transaction<'_>, pubkey: Pubkey, node_id: &str) -> Result<(), StoreError> {
    let statement = "delete from node_names where node_id = $1 and pubkey = $2
         and not exists (select from nodes where pubkey = $2 and node_id = $1)";
    execute(step, statement, &[&node_id, &&pubkey.0[..]]).await.map(|_| ())
}

impl PostgresStore {
    async fn put_row(&self, new: &NodeRow) -> Result<NodePut, StoreError> {
        let (key, role, node_id) = (&new.pubkey.0[..], role_number(new.role), plain(&new.node_id));
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        lock_key(&step, new.pubkey).await?;
        let statement = "insert into node_names (node_id, pubkey) values ($1, $2)
             on conflict (node_id) do update set pubkey = node_names.pubkey returning pubkey";
        let owner = row(&step, statement, &[&node_id, &key]).await?;
        let owner = owner.map(|row| Columns(&row).pubkey("pubkey")).transpose()?;
        if owner != Some(new.pubkey) {
            return Ok(NodePut::Taken);
        }
        let old = row(&step, "select node_id from nodes where pubkey = $1 and role = $2", &[&key, &role]).await?;
        execute(
            &step,
            &format!(
                "insert into nodes ({COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             on conflict (pubkey, role) do update set node_id = excluded.node_id, name = excluded.name,
             address = excluded.address, port = excluded.port, available = excluded.available, specs = excluded.specs,
             public = excluded.public, names_audience = excluded.names_audience, seen = excluded.seen"
            ),
            &[
                &key,
                &role,
                &new.id,
                &node_id,
                &plain(&new.name),
                &plain(&new.address),
                &i32::from(new.port),
                &new.available,
                &new.specs,
                &new.public,
                &new.names_audience,
                &signed(new.registered.0),
                &signed(new.seen.0),
            ],
        )
        .await?;
        if let Some(old) = old {
            free_name(&step, new.pubkey, Columns(&old).get("node_id")?).await?;
        }
        step.commit().await?;
        Ok(NodePut::Kept)
    }

    async fn remove_row(&self, pubkey: Pubkey, role: Role) -> Result<Option<NodeRow>, StoreError> {
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        lock_key(&step, pubkey).await?;
        let statement = format!("delete from nodes where pubkey = $1 and role = $2 returning {COLUMNS}");
        let old = row(&step, &statement, &[&&pubkey.0[..], &role_number(role)]).await?;
        let old = old.as_ref().map(read).transpose()?;
        if let Some(old) = &old {
            free_name(&step, pubkey, &old.node_id).await?;
        }
        step.commit().await?;
        Ok(old)
    }

    async fn forget(&self, now_at: UnixMillis) -> Result<(), StoreError> {
        let now_micros = signed(now_at.0.saturating_mul(1000));
        let now = signed(now_at.0);
        // First what there is most of, so that it goes even if nodes take long.
        self.execute("delete from nonces where until < $1", &[&now]).await?;
        self.execute("delete from sessions where until < $1", &[&now]).await?;
        self.execute("delete from challenges where until < $1", &[&now]).await?;
        self.execute("delete from turns where full_at < $1", &[&now_micros]).await?;
        self.forget_nodes(now_at).await
    }

    /// Removes rows of nodes that are forgotten, so many at once, and the names that nobody goes by any more.
    async fn forget_nodes(&self, now: UnixMillis) -> Result<(), StoreError> {
        let ago = |ms: u64| signed(now.0.saturating_sub(ms));
        let since: [i64; 3] = [ago(SILENT_MS), ago(BRIEF_SILENT_MS), signed(BRIEF_MS)];
        let since: [Value<'_>; 3] = [&since[0], &since[1], &since[2]];
        // As `is_forgotten` has it.
        let silent = "(seen < $1 or (seen < $2 and seen - registered < $3))";
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        let statement = format!("select pubkey from nodes where {silent} order by seen limit {NODES_AT_ONCE}");
        let found = rows(&step, &statement, &since).await?;
        let keys: Result<BTreeSet<Pubkey>, _> = found.iter().map(|row| Columns(row).pubkey("pubkey")).collect();
        let keys: Vec<Pubkey> = keys?.into_iter().collect();
        // As whoever works on one key does; in their order, so that two who forget don't wait for each other.
        let subjects: Vec<String> = keys.iter().map(|key| format!("infernet {}", subject(*key))).collect();
        let locks = "select pg_advisory_xact_lock(hashtextextended(key, 0)) from unnest($1::text[]) as key";
        rows(&step, locks, &[&subjects]).await?;
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key.0[..]).collect();
        let with_keys: Vec<Value<'_>> = since.into_iter().chain([&keys as Value<'_>]).collect();
        execute(&step, &format!("delete from nodes where pubkey = any($4) and {silent}"), &with_keys).await?;
        let names = "delete from node_names where pubkey = any($1) and not exists
             (select from nodes where nodes.pubkey = node_names.pubkey and nodes.node_id = node_names.node_id)";
        execute(&step, names, &[&keys]).await?;
        Ok(step.commit().await?)
    }
}

impl Nodes for PostgresStore {
    fn put_node<'a>(&'a self, row: &'a NodeRow) -> Answer<'a, NodePut> {
        answer(self.put_row(row))
    }

    fn node(&self, pubkey: Pubkey, role: Role) -> Answer<'_, Option<NodeRow>> {
        answer(async move {
            let statement = format!("select {COLUMNS} from nodes where pubkey = $1 and role = $2");
            self.row(&statement, &[&&pubkey.0[..], &role_number(role)]).await?.as_ref().map(read).transpose()
        })
    }

    fn remove_node(&self, pubkey: Pubkey, role: Role) -> Answer<'_, Option<NodeRow>> {
        answer(self.remove_row(pubkey, role))
    }

    fn use_nonce<'a>(&'a self, pubkey: Pubkey, nonce: &'a str, until: UnixMillis) -> Answer<'a, bool> {
        answer(async move {
            let statement = "insert into nonces (pubkey, nonce, until) values ($1, $2, $3) on conflict do nothing";
            Ok(self.execute(statement, &[&&pubkey.0[..], &nonce.as_bytes(), &signed(until.0)]).await? == 1)
        })
    }

    fn forget_nonces(&self, now: UnixMillis) -> Answer<'_, ()> {
        answer(self.forget(now))
    }

    fn put_payout<'a>(&'a self, row: &'a PayoutRow) -> Answer<'a, ()> {
        answer(async move {
            let statement = "insert into payouts (pubkey, coin, network, address, set_at) values ($1, $2, $3, $4, $5)
                 on conflict (pubkey, coin, network) do update set address = excluded.address, set_at = excluded.set_at";
            let (coin, network, address) = (plain(&row.coin), plain(&row.network), plain(&row.address));
            self.execute(statement, &[&&row.pubkey.0[..], &coin, &network, &address, &signed(row.set.0)]).await.map(|_| ())
        })
    }

    fn payouts(&self, pubkey: Pubkey) -> Answer<'_, Vec<PayoutRow>> {
        answer(async move {
            let statement = "select pubkey, coin, network, address, set_at from payouts where pubkey = $1 order by coin collate \"C\", network collate \"C\" limit 100";
            let read = |row: &Row| {
                let row = Columns(row);
                Ok(PayoutRow {
                    pubkey: row.pubkey("pubkey")?,
                    coin: row.get("coin")?,
                    network: row.get("network")?,
                    address: row.get("address")?,
                    set: row.time("set_at")?,
                })
            };
            self.rows(statement, &[&&pubkey.0[..]]).await?.iter().map(read).collect()
        })
    }
}
