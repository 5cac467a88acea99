//! Registered nodes, nonces, payouts.

use super::{
    PostgresStore, answer,
    convert::{Columns, page, plain, role_number, signed},
    execute, lock, row,
};
use crate::store::{
    Answer, NodePut, NodeRow, Nodes, PayoutRow, Pubkey, Role, StoreError,
    nodes::{BRIEF_MS, BRIEF_SILENT_MS, SILENT_MS},
};
use deadpool_postgres::Transaction;
use infernet_wire::time::UnixMillis;
use tokio_postgres::Row;

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
    let key: String = pubkey.0.iter().map(|byte| format!("{byte:02x}")).collect();
    lock(step, &format!("node {key}")).await
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
        let now = now_at;
        let now_micros = signed(now.0.saturating_mul(1000));
        let now = signed(now.0);
        // As `is_forgotten` has it.
        let silent = "select pubkey, role from nodes
             where seen < $1 or (seen < $2 and seen - registered < $3) order by seen limit 1000";
        let ago = |ms: u64| signed(now_at.0.saturating_sub(ms));
        for row in self.rows(silent, &[&ago(SILENT_MS), &ago(BRIEF_SILENT_MS), &signed(BRIEF_MS)]).await? {
            let row = Columns(&row);
            self.remove_row(row.pubkey("pubkey")?, row.role("role")?).await?;
        }
        self.execute("delete from nonces where until < $1", &[&now]).await?;
        self.execute("delete from sessions where until < $1", &[&now]).await?;
        self.execute("delete from challenges where until < $1", &[&now]).await?;
        self.execute("delete from turns where full_at < $1", &[&now_micros]).await.map(|_| ())
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

    fn nodes(&self, seen: UnixMillis, after: Option<(Pubkey, Role)>, limit: usize) -> Answer<'_, Vec<NodeRow>> {
        answer(async move {
            let (key, role) = after.map_or((vec![], -1), |(pubkey, role)| (pubkey.0.to_vec(), role_number(role)));
            let statement = format!(
                "select {COLUMNS} from nodes where seen >= $1 and (pubkey, role) > ($2, $3) order by pubkey, role limit $4"
            );
            self.rows(&statement, &[&signed(seen.0), &key, &role, &page(limit)]).await?.iter().map(read).collect()
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
