//! What is reserved, settled and entered.
//!
//! Whoever changes a client's money locks its row first, and then, as far as they are touched, the job, its reservation and its
//! key's day: in one order, so that nobody waits for somebody who waits for them.

use super::{
    PostgresStore,
    clients::{CLIENT, read_client},
    convert::{Columns, Named, plain, signed},
    execute,
    jobs::write_job,
    row,
};
use crate::store::{ClientId, ClientRow, Entry, EntryKind, JobRow, Reservation, Reserved, StoreError, clients::day};
use deadpool_postgres::Transaction;
use infernet_wire::{money::MicroUsd, time::UnixMillis};

/// A client, locked until the transaction ends.
pub(super) async fn locked(step: &Transaction<'_>, id: &ClientId) -> Result<Option<ClientRow>, StoreError> {
    let statement = format!("select {CLIENT} from clients where id = $1 for update");
    row(step, &statement, &[&plain(&id.0)]).await?.as_ref().map(read_client).transpose()
}

/// Adds an entry of a client that is locked, so that its number is nobody else's; `false` if its reference was used or the balance would not do.
pub(super) async fn add(step: &Transaction<'_>, client: &ClientRow, entry: &Entry) -> Result<bool, StoreError> {
    let Some(balance) = client.balance_after(entry.amount) else { return Ok(false) };
    let (id, key) = (plain(&client.id.0), entry.key.as_ref().map(|key| &key.as_bytes()[..]));
    let added = execute(
        step,
        "insert into entries (client, number, kind, amount, reference, key, at)
         values ($1, (select coalesce(max(number), 0) + 1 from entries where client = $1), $2, $3, $4, $5, $6)
         on conflict do nothing",
        &[&id, &entry.kind.name(), &entry.amount, &plain(&entry.reference), &key, &signed(entry.at.0)],
    )
    .await?;
    if added == 1 {
        execute(step, "update clients set balance = $2 where id = $1", &[&id, &signed(balance.0)]).await?;
    }
    Ok(added == 1)
}

/// Takes the reservation of a job that ends, whose client is locked, and turns it into its cost; returns that.
async fn settle(step: &Transaction<'_>, client: Option<ClientRow>, job: &JobRow) -> Result<MicroUsd, StoreError> {
    let statement = "update reservations set settled = true where job = $1 and not settled returning client, key, day, most";
    let Some(held) = row(step, statement, &[&plain(&job.id.0)]).await? else { return Ok(MicroUsd(0)) };
    let held = Columns(&held);
    let (id, key, most) = (held.get::<String>("client")?, held.maybe_hash("key")?, held.money("most")?);
    let missing = || StoreError::Corrupt(format!("job {} has a reservation of {id}, not of its client", job.id.0));
    let mut client = client.filter(|client| client.id.0 == id).ok_or_else(missing)?;
    let cost = job.cost.unwrap_or_default().min(most);
    if let Some(key) = &key {
        let back = signed(most.0 - cost.0);
        let statement = "update key_days set used = greatest(used - $3, 0) where key = $1 and day = $2";
        execute(step, statement, &[&&key.as_bytes()[..], &held.get::<i64>("day")?, &back]).await?;
    }
    client.reserved = MicroUsd(client.reserved.0.saturating_sub(most.0));
    execute(step, "update clients set reserved = $2 where id = $1", &[&id, &signed(client.reserved.0)]).await?;
    if cost.0 == 0 {
        // One that cost nothing may be asked for again.
        execute(step, "delete from reservations where job = $1", &[&plain(&job.id.0)]).await?;
    } else if !add(step, &client, &Entry::of_job(job, cost, key)).await? {
        return Err(StoreError::Corrupt(format!("job {} was charged twice", job.id.0)));
    }
    Ok(cost)
}

/// Whether a job of the client is under way, and stays so until the transaction ends.
async fn is_under_way(step: &Transaction<'_>, job: &str, client: &str) -> Result<bool, StoreError> {
    let statement =
        "select id from jobs where id = $1 and client = $2 and status in ('pending', 'assigned', 'running') for share";
    Ok(row(step, statement, &[&job, &client]).await?.is_some())
}

impl PostgresStore {
    pub(super) async fn reserve_for(&self, wish: &Reservation) -> Result<Reserved, StoreError> {
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        let (id, job) = (plain(&wish.client.0), plain(&wish.job.0));
        let client = locked(&step, &wish.client).await?;
        let held = row(&step, "select settled from reservations where job = $1", &[&job]).await?;
        let settled = held.as_ref().map(|held| Columns(held).get("settled")).transpose()?;
        if settled == Some(true) || !is_under_way(&step, &job, &id).await? {
            return Err(StoreError::Refused(format!("job {} is over, or not there", wish.job.0)));
        }
        if settled.is_some() {
            return Ok(Reserved::Yes);
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

    pub(super) async fn end(&self, ended: &JobRow, stranded: Option<UnixMillis>) -> Result<Option<MicroUsd>, StoreError> {
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        let client = locked(&step, &ended.client).await?;
        let statement = "select id from jobs where id = $1 and client = $2 and status in ('pending', 'assigned', 'running')
             and ($3::bigint is null or lease_until < $3) for update";
        let before = stranded.map(|at| signed(at.0));
        if row(&step, statement, &[&plain(&ended.id.0), &plain(&ended.client.0), &before]).await?.is_none() {
            return Ok(None);
        }
        let cost = settle(&step, client, ended).await?;
        write_job(&step, &JobRow { cost: Some(cost), ..ended.clone() }).await?;
        step.commit().await?;
        Ok(Some(cost))
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
