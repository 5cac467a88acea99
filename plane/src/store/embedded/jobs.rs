//! Jobs, with an index for each way in which they are asked for.

use super::{
    EmbeddedStore,
    db::{Change, Key, Table},
};
use crate::store::{
    Answer, ClientId, Idempotency, Inserted, JobQuery, JobRow, JobStatus, Jobs, MAX_PAGE, StoreError, WebJobId,
};
use infernet_wire::time::UnixMillis;

const JOB: u8 = 20;
const BY_CLIENT: u8 = 21;
const BY_LEGACY: u8 = 22;
const BY_STATUS: u8 = 23;
const BY_TIME: u8 = 24;
const LEASE: u8 = 25;
const IDEMPOTENCY: u8 = 26;

fn job(id: &WebJobId) -> Key {
    Key::of(JOB).last(&id.0)
}

fn idempotency(client: &ClientId, wish: &Idempotency) -> Key {
    Key::of(IDEMPOTENCY).text(&client.0).last(&wish.key)
}

fn in_order(prefix: Key, created: UnixMillis, id: &WebJobId) -> Key {
    prefix.number(created.0).last(&id.0)
}

/// Where a job is found.
fn entries(row: &JobRow) -> Vec<Key> {
    let mut prefixes =
        vec![Key::of(BY_CLIENT).text(&row.client.0), Key::of(BY_STATUS).number(row.status as u64), Key::of(BY_TIME)];
    prefixes.extend(row.legacy.map(|daemon| Key::of(BY_LEGACY).fixed(&daemon.0)));
    let mut entries: Vec<Key> = prefixes.into_iter().map(|prefix| in_order(prefix, row.created, &row.id)).collect();
    let lease = row.lease.as_ref().filter(|_| !row.status.is_over());
    entries.extend(lease.map(|(_, until)| Key::of(LEASE).number(until.0).last(&row.id.0)));
    entries
}

fn put(change: &mut Change<'_>, old: Option<&JobRow>, new: &JobRow) -> Result<(), StoreError> {
    let (left, found) = (old.map(entries).unwrap_or_default(), entries(new));
    left.iter().filter(|entry| !found.contains(entry)).for_each(|entry| change.remove(entry));
    found.iter().filter(|entry| !left.contains(entry)).for_each(|entry| change.put_bytes(entry, &[]));
    change.put(&job(&new.id), new)
}

/// The narrowest index for a query.
fn prefix(query: &JobQuery) -> Key {
    match (&query.client, query.legacy, query.status) {
        (Some(client), ..) => Key::of(BY_CLIENT).text(&client.0),
        (_, Some(daemon), _) => Key::of(BY_LEGACY).fixed(&daemon.0),
        (_, _, Some(status)) => Key::of(BY_STATUS).number(status as u64),
        _ => Key::of(BY_TIME),
    }
}

fn matches(query: &JobQuery, row: &JobRow) -> bool {
    query.client.as_ref().is_none_or(|client| *client == row.client)
        && query.status.is_none_or(|status| status == row.status)
        && query.model.as_ref().is_none_or(|model| *model == row.model)
        && query.legacy.is_none_or(|daemon| Some(daemon) == row.legacy)
}

/// The job whose name begins in an index entry at `skip`.
fn named(table: &Table, entry: &super::db::Row, skip: usize) -> Result<Option<JobRow>, StoreError> {
    table.get(&Key::of(JOB).fixed(entry.key_after(skip)))
}

impl Jobs for EmbeddedStore {
    fn insert_job<'a>(&'a self, row: &'a JobRow) -> Answer<'a, Inserted> {
        let row = row.clone();
        self.write(move |change| {
            if let Some(wish) = &row.idempotency {
                let key = idempotency(&row.client, wish);
                let before: Option<WebJobId> = change.table().get(&key)?;
                let before: Option<JobRow> = before.map(|id| change.table().get(&job(&id))).transpose()?.flatten();
                if let Some(before) = before {
                    let is_same = before.idempotency.as_ref().is_some_and(|earlier| earlier.request == wish.request);
                    return Ok(if is_same { Inserted::Same(Box::new(before)) } else { Inserted::Conflict });
                }
                change.put(&key, &row.id)?;
            }
            if change.table().has(&job(&row.id))? {
                return Err(StoreError::Refused(format!("job {} is there already", row.id.0)));
            }
            put(change, None, &row)?;
            Ok(Inserted::New)
        })
    }

    fn update_job<'a>(&'a self, from: &'a [JobStatus], row: &'a JobRow) -> Answer<'a, bool> {
        let (from, row) = (from.to_vec(), row.clone());
        self.write(move |change| {
            let old: Option<JobRow> = change.table().get(&job(&row.id))?;
            let old = old.filter(|old| from.contains(&old.status));
            if let Some(old) = &old {
                put(change, Some(old), &row)?;
            }
            Ok(old.is_some())
        })
    }

    fn job<'a>(&'a self, id: &'a WebJobId) -> Answer<'a, Option<JobRow>> {
        let key = job(id);
        self.read(move |table| table.get(&key))
    }

    fn jobs<'a>(&'a self, query: &'a JobQuery) -> Answer<'a, Vec<JobRow>> {
        let query = query.clone();
        self.read(move |table| {
            let prefix = prefix(&query);
            let until = query.before.as_ref().map(|(created, id)| in_order(prefix.clone(), *created, id));
            let mut found = Vec::new();
            for entry in table.before(&prefix, until.as_ref()) {
                if found.len() >= query.limit.min(MAX_PAGE) {
                    break;
                }
                let Some(row) = named(table, &entry?, prefix.len() + 8)? else { continue };
                if query.since.is_some_and(|since| row.created < since) {
                    break;
                }
                found.extend(matches(&query, &row).then_some(row));
            }
            Ok(found)
        })
    }

    fn stranded(&self, now: UnixMillis, limit: usize) -> Answer<'_, Vec<JobRow>> {
        self.read(move |table| {
            let prefix = Key::of(LEASE);
            let mut found = Vec::new();
            for entry in table.after(&prefix, &prefix).take(limit.min(MAX_PAGE)) {
                let row = named(table, &entry?, prefix.len() + 8)?;
                match row.filter(|row| row.lease.as_ref().is_some_and(|(_, until)| *until < now)) {
                    Some(row) => found.push(row),
                    None => break,
                }
            }
            Ok(found)
        })
    }
}
