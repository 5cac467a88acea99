//! What is reserved, settled and entered. Whoever changes a client's money has its row locked.

use super::{
    PostgresStore,
    clients::read_client,
    convert::{Columns, Named, plain, signed},
    execute, row,
};
use crate::store::{ClientId, ClientRow, Entry, EntryKind, Reservation, Reserved, Settled, StoreError, WebJobId, clients::day};
use deadpool_postgres::Transaction;
use infernet_wire::{money::MicroUsd, time::UnixMillis};

/// A client, locked until the transaction ends.
async fn locked(step: &Transaction<'_>, id: &ClientId) -> Result<Option<ClientRow>, StoreError> {
    row(step, "select * from clients where id = $1 for update", &[&plain(&id.0)]).await?.as_ref().map(read_client).transpose()
}

/// Adds an entry of a client that is locked; `false` if its reference was used or the balance would not do.
async fn add(step: &Transaction<'_>, client: &ClientRow, entry: &Entry) -> Result<bool, StoreError> {
    let Some(balance) = client.balance_after(entry.amount) else { return Ok(false) };
    let (id, key) = (plain(&client.id.0), entry.key.as_ref().map(|key| &key.as_bytes()[..]));
    let added = execute(
        step,
        "insert into entries (client, number, kind, amount, reference, key, at)
         values ($1, (select coalesce(max(number), 0) + 1 from entries where client = $1), $2, $3, $4, $5, $6)
         on conflict (kind, reference) do nothing",
        &[&id, &entry.kind.name(), &entry.amount, &plain(&entry.reference), &key, &signed(entry.at.0)],
    )
    .await?;
    if added == 1 {
        execute(step, "update clients set balance = $2 where id = $1", &[&id, &signed(balance.0)]).await?;
    }
    Ok(added == 1)
}

impl PostgresStore {
    pub(super) async fn reserve_for(&self, wish: &Reservation) -> Result<Reserved, StoreError> {
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        let (id, job) = (plain(&wish.client.0), plain(&wish.job.0));
        let client = locked(&step, &wish.client).await?;
        if let Some(held) = row(&step, "select settled from reservations where job = $1", &[&job]).await? {
            let settled = StoreError::Refused(format!("job {} was settled before", wish.job.0));
            return if Columns(&held).get("settled")? { Err(settled) } else { Ok(Reserved::Yes) };
        }
        let Some(client) = client else { return Ok(Reserved::Balance(MicroUsd(0))) };
        if client.available() < wish.most {
            return Ok(Reserved::Balance(client.available()));
        }
        let (day, most) = (signed(day(wish.now)), signed(wish.most.0));
        let key = wish.key.as_ref().map(|key| &key.as_bytes()[..]);
        if let Some(key) = key {
            let used = row(&step, "select used from key_days where key = $1 and day = $2", &[&key, &day]).await?;
            let used = used.map(|row| Columns(&row).number("used")).transpose()?.unwrap_or_default();
            let left = wish.key_per_day.map_or(u64::MAX, |most| most.0.saturating_sub(used));
            if left < wish.most.0 {
                return Ok(Reserved::KeyDay(MicroUsd(left)));
            }
            let statement = "insert into key_days (key, day, used) values ($1, $2, $3)
                 on conflict (key, day) do update set used = key_days.used + $3";
            execute(&step, statement, &[&key, &day, &most]).await?;
        }
        execute(&step, "update clients set reserved = reserved + $2 where id = $1", &[&id, &most]).await?;
        let statement = "insert into reservations (job, client, key, day, most) values ($1, $2, $3, $4, $5)";
        execute(&step, statement, &[&job, &id, &key, &day, &most]).await?;
        step.commit().await?;
        Ok(Reserved::Yes)
    }

    pub(super) async fn settle_job(&self, job: &WebJobId, cost: MicroUsd, now: UnixMillis) -> Result<Settled, StoreError> {
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        let name = plain(&job.0);
        let statement = "update reservations set settled = true where job = $1 and not settled returning *";
        let Some(held) = row(&step, statement, &[&name]).await? else { return Ok(Settled::Nothing) };
        let held = Columns(&held);
        let (id, key, most) = (ClientId(held.get("client")?), held.maybe_hash("key")?, held.money("most")?);
        let cost = cost.min(most);
        if let Some(key) = &key {
            let back = signed(most.0 - cost.0);
            let statement = "update key_days set used = greatest(used - $3, 0) where key = $1 and day = $2";
            execute(&step, statement, &[&&key.as_bytes()[..], &held.get::<i64>("day")?, &back]).await?;
        }
        let mut client = locked(&step, &id).await?.ok_or_else(|| StoreError::Corrupt(format!("no client {}", id.0)))?;
        client.reserved = MicroUsd(client.reserved.0.saturating_sub(most.0));
        execute(&step, "update clients set reserved = $2 where id = $1", &[&id.0, &signed(client.reserved.0)]).await?;
        if cost.0 > 0 && !add(&step, &client, &Entry::of_job(&id, job, cost, key, now)).await? {
            return Err(StoreError::Corrupt(format!("job {} was charged twice", job.0)));
        }
        step.commit().await?;
        Ok(Settled::Yes)
    }

    pub(super) async fn enter(&self, entry: &Entry) -> Result<bool, StoreError> {
        if entry.kind == EntryKind::Job {
            return Err(StoreError::Refused("a job is charged by settling it".into()));
        }
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        let unknown = || StoreError::Refused(format!("there is no client {}", entry.client.0));
        let client = locked(&step, &entry.client).await?.ok_or_else(unknown)?;
        let is_new = add(&step, &client, entry).await?;
        if is_new {
            step.commit().await?;
        }
        Ok(is_new)
    }
}
