//! Clients and what is theirs.
//!
//! | tag | key | value |
//! |---|---|---|
//! | 30 | client | client |
//! | 31, 32 | kind ‖ subject; client ‖ added ‖ kind ‖ subject | identity; nothing |
//! | 33, 34 | hash; client ‖ created ‖ hash | key; nothing |
//! | 35 | hash | session |
//! | 36 | id | challenge |
//! | 37 | whose | until when turns are used up, in microseconds |
//! | 38 | until ‖ key | sessions, challenges and turns to be forgotten |
//! | 40 | job | reservation |
//! | 41 | key ‖ day | what the key has spent and reserved |
//! | 42, 43 | client ‖ number; kind ‖ (of a grant: client) ‖ reference | entry; nothing |

use super::{
    EmbeddedStore,
    db::{Change, Key, Table},
    jobs::job,
};
use crate::store::{
    Answer, ClientId, ClientRow, Clients, Entry, EntryKind, Identity, JobRow, KeyRow, MAX_PAGE, Reservation, Reserved,
    SessionRow, StoreError,
    clients::{Turns, day},
};
use infernet_wire::{id::Hash, money::MicroUsd, time::UnixMillis};
use serde::{Deserialize, Serialize};

const CLIENT: u8 = 30;
const IDENTITY: u8 = 31;
const IDENTITIES: u8 = 32;
const KEY: u8 = 33;
const KEYS: u8 = 34;
const SESSION: u8 = 35;
const CHALLENGE: u8 = 36;
const TURNS: u8 = 37;
const END: u8 = 38;
const RESERVATION: u8 = 40;
const KEY_DAY: u8 = 41;
const ENTRY: u8 = 42;
const REFERENCE: u8 = 43;

/// What is forgotten in one go, so that a write is never long.
pub(super) const MAX_FORGOTTEN: usize = 10_000;

#[derive(Serialize, Deserialize)]
struct Challenge {
    data: String,
    until: UnixMillis,
}

/// What is kept of a reservation; after it is settled, only that it was.
#[derive(Serialize, Deserialize)]
struct Held {
    client: ClientId,
    key: Option<Hash>,
    day: u64,
    most: MicroUsd,
    is_settled: bool,
}

pub(super) fn client(id: &ClientId) -> Key {
    Key::of(CLIENT).last(&id.0)
}

pub(super) fn identity(kind: &str, subject: &str) -> Key {
    Key::of(IDENTITY).text(kind).last(subject)
}

fn key_day(key: &Hash, day: u64) -> Key {
    Key::of(KEY_DAY).fixed(key.as_bytes()).number(day)
}

/// What counts once: a grant's word for its client, anything else's for all.
fn reference(entry: &Entry) -> Key {
    let kind = Key::of(REFERENCE).number(entry.kind as u64);
    let kind = if entry.kind == EntryKind::Grant { kind.text(&entry.client.0) } else { kind };
    kind.last(&entry.reference)
}

fn ending(until: UnixMillis, key: &[u8]) -> Key {
    Key::of(END).number(until.0).fixed(key)
}

/// Forgets sessions and challenges that are over, and turns that are full again.
pub(super) fn forget(change: &mut Change<'_>, now: UnixMillis) -> Result<(), StoreError> {
    let prefix = Key::of(END);
    let over: Result<Vec<_>, _> =
        change.table().before(&prefix, Some(&prefix.clone().number(now.0))).take(MAX_FORGOTTEN).collect();
    for row in over? {
        let key = Key::read(row.key_after(prefix.len() + 8).to_vec());
        if !lasts(change.table(), &key, now)? {
            change.remove(&key);
        }
        change.remove(&Key::read(row.key));
    }
    Ok(())
}

/// Whether what is there now is of a later time than its entry.
fn lasts(table: &Table, key: &Key, now: UnixMillis) -> Result<bool, StoreError> {
    let until = match key.bytes().first() {
        Some(&TURNS) => table.get::<Turns>(key)?.map(Turns::full),
        Some(&CHALLENGE) => table.get::<Challenge>(key)?.map(|challenge| challenge.until),
        _ => table.get::<SessionRow>(key)?.map(|session| session.until),
    };
    Ok(until.is_some_and(|until| until >= now))
}

fn next_number(table: &Table, id: &ClientId) -> Result<u64, StoreError> {
    let prefix = Key::of(ENTRY).text(&id.0);
    let newest = table.before(&prefix, None).next().transpose()?;
    Ok(newest.map(|row| row.read::<Entry>()).transpose()?.map_or(1, |entry| entry.number + 1))
}

/// Adds an entry, and returns the client as it is then. `None` if the reference was used, or the balance would not do.
pub(super) fn add(change: &mut Change<'_>, mut row: ClientRow, entry: &Entry) -> Result<Option<ClientRow>, StoreError> {
    let reference = reference(entry);
    let Some(balance) = row.balance_after(entry.amount) else { return Ok(None) };
    if change.table().has(&reference)? {
        return Ok(None);
    }
    let number = next_number(change.table(), &entry.client)?;
    change.put_bytes(&reference, &[]);
    change.put(&Key::of(ENTRY).text(&entry.client.0).number(number), &Entry { number, ..entry.clone() })?;
    row.balance = balance;
    Ok(Some(row))
}

fn reserve(change: &mut Change<'_>, wish: &Reservation) -> Result<Reserved, StoreError> {
    let place = Key::of(RESERVATION).last(&wish.job.0);
    let job: Option<JobRow> = change.table().get(&job(&wish.job))?;
    let held: Option<Held> = change.table().get(&place)?;
    if !job.is_some_and(|job| job.client == wish.client && !job.status.is_over()) || held.as_ref().is_some_and(|h| h.is_settled)
    {
        return Err(StoreError::Refused(format!("job {} is over, or not there", wish.job.0)));
    }
    if held.is_some() {
        return Ok(Reserved::Yes);
    }
    let Some(mut row) = change.table().get::<ClientRow>(&client(&wish.client))? else {
        return Ok(Reserved::Balance(MicroUsd(0)));
    };
    if row.available() < wish.most {
        return Ok(Reserved::Balance(row.available()));
    }
    let day = day(wish.now);
    if let Some(key) = &wish.key {
        let used: MicroUsd = change.table().get(&key_day(key, day))?.unwrap_or_default();
        let left = wish.key_per_day.map_or(u64::MAX, |most| most.0.saturating_sub(used.0));
        if left < wish.most.0 {
            return Ok(Reserved::KeyDay(MicroUsd(left)));
        }
        change.put(&key_day(key, day), &MicroUsd(used.0.saturating_add(wish.most.0)))?;
    }
    row.reserved = MicroUsd(row.reserved.0.saturating_add(wish.most.0));
    change.put(&client(&wish.client), &row)?;
    let held = Held { client: wish.client.clone(), key: wish.key, day, most: wish.most, is_settled: false };
    change.put(&place, &held)?;
    Ok(Reserved::Yes)
}

/// Turns the reservation of a job that ends into its cost; returns that.
pub(super) fn settle(change: &mut Change<'_>, job: &JobRow) -> Result<MicroUsd, StoreError> {
    let place = Key::of(RESERVATION).last(&job.id.0);
    let held = change.table().get::<Held>(&place)?.filter(|held| !held.is_settled);
    let Some(mut held) = held else { return Ok(MicroUsd(0)) };
    let cost = job.cost.unwrap_or_default().min(held.most);
    let missing = || StoreError::Corrupt(format!("{} has a reservation but no row", held.client.0));
    let mut row: ClientRow = change.table().get(&client(&held.client))?.ok_or_else(missing)?;
    if let Some(key) = &held.key {
        let used: MicroUsd = change.table().get(&key_day(key, held.day))?.unwrap_or_default();
        change.put(&key_day(key, held.day), &MicroUsd(used.0.saturating_sub(held.most.0 - cost.0)))?;
    }
    row.reserved = MicroUsd(row.reserved.0.saturating_sub(held.most.0));
    let row = if cost.0 == 0 {
        row
    } else {
        let entry = Entry::of_job(job, cost, held.key);
        add(change, row, &entry)?.ok_or_else(|| StoreError::Corrupt(format!("job {} was charged twice", job.id.0)))?
    };
    change.put(&client(&held.client), &row)?;
    if cost.0 == 0 {
        // One that cost nothing may be asked for again.
        change.remove(&place);
    } else {
        held.is_settled = true;
        change.put(&place, &held)?;
    }
    Ok(cost)
}

impl Clients for EmbeddedStore {
    fn put_client<'a>(&'a self, row: &'a ClientRow) -> Answer<'a, ()> {
        let row = row.clone();
        self.write(move |change| {
            let old: Option<ClientRow> = change.table().get(&client(&row.id))?;
            let kept = match old {
                Some(old) => ClientRow { name: row.name, admin: row.admin, ..old },
                None => ClientRow { balance: MicroUsd(0), reserved: MicroUsd(0), ..row },
            };
            change.put(&client(&kept.id), &kept)
        })
    }

    fn clients<'a>(&'a self, after: Option<&'a ClientId>, limit: usize) -> Answer<'a, Vec<ClientRow>> {
        let prefix = Key::of(CLIENT);
        let from = after.map_or(prefix.clone(), |id| client(id).next());
        self.read(move |table| table.after(&prefix, &from).take(limit.min(MAX_PAGE)).map(|row| row?.read()).collect())
    }

    fn client<'a>(&'a self, id: &'a ClientId) -> Answer<'a, Option<ClientRow>> {
        let key = client(id);
        self.read(move |table| table.get(&key))
    }

    fn put_identity<'a>(&'a self, new: &'a Identity) -> Answer<'a, ClientId> {
        let new = new.clone();
        self.write(move |change| {
            let key = identity(&new.kind, &new.subject);
            if let Some(old) = change.table().get::<Identity>(&key)? {
                return Ok(old.client);
            }
            let entry = Key::of(IDENTITIES).text(&new.client.0).number(new.added.0).text(&new.kind).last(&new.subject);
            change.put(&entry, &(&new.kind, &new.subject))?;
            change.put(&key, &new)?;
            Ok(new.client)
        })
    }

    fn update_identity<'a>(&'a self, new: &'a Identity) -> Answer<'a, bool> {
        let new = new.clone();
        self.write(move |change| {
            let key = identity(&new.kind, &new.subject);
            let old = change.table().get::<Identity>(&key)?.filter(|old| old.client == new.client);
            let Some(old) = old else { return Ok(false) };
            change.put(&key, &Identity { data: new.data, label: new.label, ..old })?;
            Ok(true)
        })
    }

    fn identity<'a>(&'a self, kind: &'a str, subject: &'a str) -> Answer<'a, Option<Identity>> {
        let key = identity(kind, subject);
        self.read(move |table| table.get(&key))
    }

    fn identities<'a>(&'a self, client: &'a ClientId) -> Answer<'a, Vec<Identity>> {
        let prefix = Key::of(IDENTITIES).text(&client.0);
        self.read(move |table| {
            let mut found = Vec::new();
            for row in table.after(&prefix, &prefix).take(MAX_PAGE) {
                let (kind, subject): (String, String) = row?.read()?;
                found.extend(table.get::<Identity>(&identity(&kind, &subject))?);
            }
            Ok(found)
        })
    }

    fn put_key<'a>(&'a self, row: &'a KeyRow) -> Answer<'a, ()> {
        let row = row.clone();
        self.write(move |change| {
            let key = Key::of(KEY).fixed(row.hash.as_bytes());
            let entry = |row: &KeyRow| Key::of(KEYS).text(&row.client.0).number(row.created.0).fixed(row.hash.as_bytes());
            let old: Option<KeyRow> = change.table().get(&key)?;
            old.iter().map(entry).filter(|old| *old != entry(&row)).for_each(|old| change.remove(&old));
            change.put_bytes(&entry(&row), &[]);
            change.put(&key, &row)
        })
    }

    fn key(&self, hash: Hash) -> Answer<'_, Option<KeyRow>> {
        self.read(move |table| table.get(&Key::of(KEY).fixed(hash.as_bytes())))
    }

    fn forget_key(&self, hash: Hash) -> Answer<'_, ()> {
        let key = Key::of(KEY).fixed(hash.as_bytes());
        self.write(move |change| {
            if let Some(row) = change.table().get::<KeyRow>(&key)? {
                change.remove(&Key::of(KEYS).text(&row.client.0).number(row.created.0).fixed(hash.as_bytes()));
                change.remove(&key);
            }
            Ok(())
        })
    }

    fn touch_key(&self, hash: Hash, now: UnixMillis) -> Answer<'_, ()> {
        let key = Key::of(KEY).fixed(hash.as_bytes());
        self.write_soon(move |change| match change.table().get::<KeyRow>(&key)? {
            Some(row) => change.put(&key, &KeyRow { used: row.used.max(Some(now)), ..row }),
            None => Ok(()),
        })
    }

    fn keys<'a>(&'a self, client: &'a ClientId) -> Answer<'a, Vec<KeyRow>> {
        let prefix = Key::of(KEYS).text(&client.0);
        self.read(move |table| {
            let mut found = Vec::new();
            for row in table.before(&prefix, None).take(MAX_PAGE) {
                found.extend(table.get::<KeyRow>(&Key::of(KEY).fixed(row?.key_after(prefix.len() + 8)))?);
            }
            Ok(found)
        })
    }

    fn put_session<'a>(&'a self, row: &'a SessionRow) -> Answer<'a, ()> {
        let row = row.clone();
        self.write(move |change| {
            let key = Key::of(SESSION).fixed(row.hash.as_bytes());
            change.put_bytes(&ending(row.until, key.bytes()), &[]);
            change.put(&key, &row)
        })
    }

    fn session(&self, hash: Hash, now: UnixMillis) -> Answer<'_, Option<SessionRow>> {
        self.read(move |table| {
            let row: Option<SessionRow> = table.get(&Key::of(SESSION).fixed(hash.as_bytes()))?;
            Ok(row.filter(|row| row.until > now))
        })
    }

    fn end_session(&self, hash: Hash) -> Answer<'_, ()> {
        self.write(move |change| {
            change.remove(&Key::of(SESSION).fixed(hash.as_bytes()));
            Ok(())
        })
    }

    fn put_challenge<'a>(&'a self, id: &'a str, data: &'a str, until: UnixMillis) -> Answer<'a, ()> {
        let (key, challenge) = (Key::of(CHALLENGE).last(id), Challenge { data: data.into(), until });
        self.write(move |change| {
            change.put_bytes(&ending(until, key.bytes()), &[]);
            change.put(&key, &challenge)
        })
    }

    fn challenge<'a>(&'a self, id: &'a str, now: UnixMillis) -> Answer<'a, Option<String>> {
        let key = Key::of(CHALLENGE).last(id);
        self.read(move |table| {
            let challenge: Option<Challenge> = table.get(&key)?;
            Ok(challenge.filter(|challenge| challenge.until > now).map(|challenge| challenge.data))
        })
    }

    fn take_challenge<'a>(&'a self, id: &'a str, now: UnixMillis) -> Answer<'a, Option<String>> {
        let key = Key::of(CHALLENGE).last(id);
        self.write(move |change| {
            let challenge: Option<Challenge> = change.table().get(&key)?;
            if challenge.is_some() {
                change.remove(&key);
            }
            Ok(challenge.filter(|challenge| challenge.until > now).map(|challenge| challenge.data))
        })
    }

    fn take_turn<'a>(&'a self, who: &'a str, per_minute: u32, now: UnixMillis) -> Answer<'a, bool> {
        let key = Key::of(TURNS).last(who);
        self.write_soon(move |change| {
            let before: Option<Turns> = change.table().get(&key)?;
            let Some(turns) = before.unwrap_or_default().take(per_minute, now) else { return Ok(false) };
            // One entry is enough: what is used again when it comes up waits for the next.
            let full = UnixMillis(turns.full().0 / 60_000 * 60_000 + 60_000);
            change.put_bytes(&ending(full, key.bytes()), &[]);
            change.put(&key, &turns)?;
            Ok(true)
        })
    }

    fn reserve<'a>(&'a self, wish: &'a Reservation) -> Answer<'a, Reserved> {
        let wish = wish.clone();
        self.write(move |change| reserve(change, &wish))
    }

    fn add_entry<'a>(&'a self, entry: &'a Entry) -> Answer<'a, bool> {
        let entry = entry.clone();
        self.write(move |change| {
            if entry.kind == EntryKind::Job {
                return Err(StoreError::Refused("a job is charged by settling it".into()));
            }
            let unknown = || StoreError::Refused(format!("there is no client {}", entry.client.0));
            let row: ClientRow = change.table().get(&client(&entry.client))?.ok_or_else(unknown)?;
            let after = add(change, row, &entry)?;
            if let Some(row) = &after {
                change.put(&client(&row.id), row)?;
            }
            Ok(after.is_some())
        })
    }

    fn entries<'a>(&'a self, client: &'a ClientId, before: Option<u64>, limit: usize) -> Answer<'a, Vec<Entry>> {
        let prefix = Key::of(ENTRY).text(&client.0);
        self.read(move |table| {
            let until = before.map(|number| prefix.clone().number(number));
            table.before(&prefix, until.as_ref()).take(limit.min(MAX_PAGE)).map(|row| row?.read()).collect()
        })
    }
}
