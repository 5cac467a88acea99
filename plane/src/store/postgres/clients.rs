//! Clients and how they show who they are.

use super::{
    PostgresStore, answer,
    convert::{Columns, page, plain, signed},
};
use crate::store::{
    Answer, ClientId, ClientRow, Clients, Entry, Identity, KeyRow, MAX_PAGE, Reservation, Reserved, SessionRow, StoreError,
    clients::Turns,
};
use infernet_wire::{id::Hash, money::MicroUsd, time::UnixMillis};
use tokio_postgres::Row;

pub(super) const CLIENT: &str = "id, name, created, balance, reserved, admin";
const IDENTITY: &str = "kind, subject, data, client, label, added";
const KEY: &str = "hash, prefix, client, name, scopes, per_day, per_minute, created, expires, used, revoked";
const ENTRY: &str = "client, number, kind, amount, reference, key, at";

pub(super) fn read_client(row: &Row) -> Result<ClientRow, StoreError> {
    let row = Columns(row);
    Ok(ClientRow {
        id: ClientId(row.get("id")?),
        name: row.get("name")?,
        created: row.time("created")?,
        balance: row.money("balance")?,
        reserved: row.money("reserved")?,
        admin: row.get("admin")?,
    })
}

fn read_identity(row: &Row) -> Result<Identity, StoreError> {
    let row = Columns(row);
    Ok(Identity {
        kind: row.get("kind")?,
        subject: row.get("subject")?,
        data: row.get("data")?,
        client: ClientId(row.get("client")?),
        label: row.get("label")?,
        added: row.time("added")?,
    })
}

fn read_key(row: &Row) -> Result<KeyRow, StoreError> {
    let row = Columns(row);
    Ok(KeyRow {
        hash: row.hash("hash")?,
        prefix: row.get("prefix")?,
        client: ClientId(row.get("client")?),
        name: row.get("name")?,
        scopes: row.get("scopes")?,
        per_day: row.maybe_money("per_day")?,
        per_minute: row.small("per_minute")?,
        created: row.time("created")?,
        expires: row.maybe_time("expires")?,
        used: row.maybe_time("used")?,
        revoked: row.maybe_time("revoked")?,
    })
}

fn read_entry(row: &Row) -> Result<Entry, StoreError> {
    let row = Columns(row);
    Ok(Entry {
        number: row.number("number")?,
        client: ClientId(row.get("client")?),
        kind: row.named("kind")?,
        amount: row.get("amount")?,
        reference: row.get("reference")?,
        key: row.maybe_hash("key")?,
        at: row.time("at")?,
    })
}

impl PostgresStore {
    async fn add_identity(&self, new: &Identity) -> Result<ClientId, StoreError> {
        let (kind, subject) = (plain(&new.kind), plain(&new.subject));
        let statement = "insert into identities (kind, subject, data, client, label, added) values ($1, $2, $3, $4, $5, $6)
             on conflict (kind, subject) do update set kind = identities.kind returning client";
        let values = [&plain(&new.data), &plain(&new.client.0), &plain(&new.label)];
        let row = self.row(statement, &[&kind, &subject, values[0], values[1], values[2], &signed(new.added.0)]).await?;
        let row = row.ok_or_else(|| StoreError::Refused("an identity came and went".into()))?;
        Ok(ClientId(Columns(&row).get("client")?))
    }

    async fn put_api_key(&self, row: &KeyRow) -> Result<(), StoreError> {
        let time = |time: Option<UnixMillis>| time.map(|time| signed(time.0));
        self.execute(
            &format!(
                "insert into api_keys ({KEY})
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             on conflict (hash) do update set prefix = excluded.prefix, client = excluded.client, name = excluded.name,
             scopes = excluded.scopes, per_day = excluded.per_day, per_minute = excluded.per_minute,
             created = excluded.created, expires = excluded.expires, used = excluded.used, revoked = excluded.revoked"
            ),
            &[
                &&row.hash.as_bytes()[..],
                &plain(&row.prefix),
                &plain(&row.client.0),
                &plain(&row.name),
                &row.scopes,
                &row.per_day.map(|most: MicroUsd| signed(most.0)),
                &i64::from(row.per_minute),
                &signed(row.created.0),
                &time(row.expires),
                &time(row.used),
                &time(row.revoked),
            ],
        )
        .await
        .map(|_| ())
    }
}

impl Clients for PostgresStore {
    fn put_client<'a>(&'a self, row: &'a ClientRow) -> Answer<'a, ()> {
        answer(async move {
            let statement = "insert into clients (id, name, created, admin) values ($1, $2, $3, $4)
                 on conflict (id) do update set name = excluded.name, admin = excluded.admin";
            let (id, name) = (plain(&row.id.0), plain(&row.name));
            self.execute(statement, &[&id, &name, &signed(row.created.0), &row.admin]).await.map(|_| ())
        })
    }

    fn clients<'a>(&'a self, after: Option<&'a ClientId>, limit: usize) -> Answer<'a, Vec<ClientRow>> {
        answer(async move {
            let after = after.map_or(String::new(), |id| plain(&id.0).into());
            let statement =
                format!("select {CLIENT} from clients where id collate \"C\" > $1 order by id collate \"C\" limit $2");
            self.rows(&statement, &[&after, &page(limit)]).await?.iter().map(read_client).collect()
        })
    }

    fn client<'a>(&'a self, id: &'a ClientId) -> Answer<'a, Option<ClientRow>> {
        answer(async move {
            let statement = format!("select {CLIENT} from clients where id = $1");
            self.row(&statement, &[&plain(&id.0)]).await?.as_ref().map(read_client).transpose()
        })
    }

    fn put_identity<'a>(&'a self, identity: &'a Identity) -> Answer<'a, ClientId> {
        answer(self.add_identity(identity))
    }

    fn update_identity<'a>(&'a self, new: &'a Identity) -> Answer<'a, bool> {
        answer(async move {
            let statement = "update identities set data = $4, label = $5 where kind = $1 and subject = $2 and client = $3";
            let values = [&new.kind, &new.subject, &new.client.0, &new.data, &new.label].map(|text| plain(text));
            let [kind, subject, client, data, label] = &values;
            Ok(self.execute(statement, &[kind, subject, client, data, label]).await? == 1)
        })
    }

    fn identity<'a>(&'a self, kind: &'a str, subject: &'a str) -> Answer<'a, Option<Identity>> {
        answer(async move {
            let statement = format!("select {IDENTITY} from identities where kind = $1 and subject = $2");
            self.row(&statement, &[&plain(kind), &plain(subject)]).await?.as_ref().map(read_identity).transpose()
        })
    }

    fn identities<'a>(&'a self, client: &'a ClientId) -> Answer<'a, Vec<Identity>> {
        answer(async move {
            let statement =
                format!("select {IDENTITY} from identities where client = $1 order by added, kind, subject limit $2");
            self.rows(&statement, &[&plain(&client.0), &page(MAX_PAGE)]).await?.iter().map(read_identity).collect()
        })
    }

    fn put_key<'a>(&'a self, row: &'a KeyRow) -> Answer<'a, ()> {
        answer(self.put_api_key(row))
    }

    fn key(&self, hash: Hash) -> Answer<'_, Option<KeyRow>> {
        answer(async move {
            let row = self.row(&format!("select {KEY} from api_keys where hash = $1"), &[&&hash.as_bytes()[..]]).await?;
            row.as_ref().map(read_key).transpose()
        })
    }

    fn forget_key(&self, hash: Hash) -> Answer<'_, ()> {
        answer(async move { self.execute("delete from api_keys where hash = $1", &[&&hash.as_bytes()[..]]).await.map(|_| ()) })
    }

    fn touch_key(&self, hash: Hash, now: UnixMillis) -> Answer<'_, ()> {
        answer(async move {
            let statement = "update api_keys set used = $2 where hash = $1 and (used is null or used < $2)";
            self.execute(statement, &[&&hash.as_bytes()[..], &signed(now.0)]).await.map(|_| ())
        })
    }

    fn keys<'a>(&'a self, client: &'a ClientId) -> Answer<'a, Vec<KeyRow>> {
        answer(async move {
            let statement = format!("select {KEY} from api_keys where client = $1 order by created desc, hash desc limit $2");
            self.rows(&statement, &[&plain(&client.0), &page(MAX_PAGE)]).await?.iter().map(read_key).collect()
        })
    }

    fn put_session<'a>(&'a self, row: &'a SessionRow) -> Answer<'a, ()> {
        answer(async move {
            let statement = "insert into sessions (hash, client, until) values ($1, $2, $3)
                 on conflict (hash) do update set client = excluded.client, until = excluded.until";
            let values = (plain(&row.client.0), signed(row.until.0));
            self.execute(statement, &[&&row.hash.as_bytes()[..], &values.0, &values.1]).await.map(|_| ())
        })
    }

    fn session(&self, hash: Hash, now: UnixMillis) -> Answer<'_, Option<SessionRow>> {
        answer(async move {
            let statement = "select client, until from sessions where hash = $1 and until > $2";
            let Some(row) = self.row(statement, &[&&hash.as_bytes()[..], &signed(now.0)]).await? else { return Ok(None) };
            let row = Columns(&row);
            Ok(Some(SessionRow { hash, client: ClientId(row.get("client")?), until: row.time("until")? }))
        })
    }

    fn end_session(&self, hash: Hash) -> Answer<'_, ()> {
        answer(async move { self.execute("delete from sessions where hash = $1", &[&&hash.as_bytes()[..]]).await.map(|_| ()) })
    }

    fn put_challenge<'a>(&'a self, id: &'a str, data: &'a str, until: UnixMillis) -> Answer<'a, ()> {
        answer(async move {
            let statement = "insert into challenges (id, data, until) values ($1, $2, $3)
                 on conflict (id) do update set data = excluded.data, until = excluded.until";
            self.execute(statement, &[&plain(id), &plain(data), &signed(until.0)]).await.map(|_| ())
        })
    }

    fn challenge<'a>(&'a self, id: &'a str, now: UnixMillis) -> Answer<'a, Option<String>> {
        answer(async move {
            let statement = "select data from challenges where id = $1 and until > $2";
            let row = self.row(statement, &[&plain(id), &signed(now.0)]).await?;
            row.map(|row| Columns(&row).get("data")).transpose()
        })
    }

    fn take_challenge<'a>(&'a self, id: &'a str, now: UnixMillis) -> Answer<'a, Option<String>> {
        answer(async move {
            let row = self.row("delete from challenges where id = $1 returning data, until", &[&plain(id)]).await?;
            let Some(row) = row else { return Ok(None) };
            let row = Columns(&row);
            Ok(if row.time("until")? > now { Some(row.get("data")?) } else { None })
        })
    }

    fn take_turn<'a>(&'a self, who: &'a str, per_minute: u32, now: UnixMillis) -> Answer<'a, bool> {
        answer(async move {
            let Some(first) = Turns::default().take(per_minute, now) else { return Ok(false) };
            let (now, each, most) = Turns::measures(per_minute, now);
            // The same as `Turns::take`, in one statement.
            let statement = "insert into turns as t (who, full_at) values ($1, $2)
                 on conflict (who) do update set full_at = greatest(t.full_at, $3) + $4
                 where greatest(t.full_at, $3) + $4 - $3 <= $5";
            let values = (signed(first.full), signed(now), signed(each), signed(most));
            Ok(self.execute(statement, &[&plain(who), &values.0, &values.1, &values.2, &values.3]).await? == 1)
        })
    }

    fn reserve<'a>(&'a self, wish: &'a Reservation) -> Answer<'a, Reserved> {
        answer(self.reserve_for(wish))
    }

    fn add_entry<'a>(&'a self, entry: &'a Entry) -> Answer<'a, bool> {
        answer(self.enter(entry))
    }

    fn entries<'a>(&'a self, client: &'a ClientId, before: Option<u64>, limit: usize) -> Answer<'a, Vec<Entry>> {
        answer(async move {
            let statement =
                format!("select {ENTRY} from entries where client = $1 and number < $2 order by number desc limit $3");
            let before = before.map_or(i64::MAX, signed);
            self.rows(&statement, &[&plain(&client.0), &before, &page(limit)]).await?.iter().map(read_entry).collect()
        })
    }
}
