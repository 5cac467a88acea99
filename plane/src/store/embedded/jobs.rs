//! Jobs, with an index for each way in which they are asked for.

use super::{
    EmbeddedStore,
    clients::settle,
    db::{Change, Key, Row, Table},
};
use crate::store::{
    Answer, ClientId, Idempotency, Inserted, JobQuery, JobRow, JobStatus, Jobs, MAX_PAGE, Renewal, StoreError, StoredText,
    WebJobId,
};
use infernet_wire::{money::MicroUsd, time::UnixMillis};

const JOB: u8 = 20;
const BY_CLIENT: u8 = 21;
const BY_LEGACY: u8 = 22;
const BY_STATUS: u8 = 23;
const BY_TIME: u8 = 24;
const LEASE: u8 = 25;
const IDEMPOTENCY: u8 = 26;
const CANCEL: u8 = 27;
const TEXT: u8 = 28;
const BY_CLIENT_STATUS: u8 = 29;

/// Rows that a query looks at for a page of what it asks for: some tenths of a second.
const MAX_LOOKED_AT: usize = 20_000;
/// A piece of a text: rows of more than half a megabyte are files of their own, which sled does not sync.
const PIECE: usize = 192 * 1024;

/// Old jobs that are forgotten at once: each may have a kept answer of megabytes.
const MAX_FORGOTTEN_JOBS: usize = 1_000;

pub(super) fn job(id: &WebJobId) -> Key {
    Key::of(JOB).last(&id.0)
}

fn idempotency(client: &ClientId, wish: &Idempotency) -> Key {
    Key::of(IDEMPOTENCY).text(&client.0).last(&wish.key)
}

/// A text's pieces.
fn text(id: &WebJobId) -> Key {
    Key::of(TEXT).text(&id.0)
}

/// Puts a text in pieces, in the place of what was there.
fn put_text(change: &mut Change<'_>, id: &WebJobId, kept: &StoredText) -> Result<(), StoreError> {
    let prefix = text(id);
    let bytes = serde_json::to_vec(kept).map_err(|error| StoreError::Refused(error.to_string()))?;
    let pieces = bytes.chunks(PIECE);
    let (before, number) = (change.table().after(&prefix, &prefix).count(), pieces.len());
    for (at, piece) in pieces.enumerate() {
        change.put_bytes(&prefix.clone().number(at as u64), piece);
    }
    (number..before).for_each(|at| change.remove(&prefix.clone().number(at as u64)));
    Ok(())
}

fn read_text(table: &Table, id: &WebJobId) -> Result<Option<StoredText>, StoreError> {
    let (prefix, mut bytes) = (text(id), Vec::new());
    for piece in table.after(&prefix, &prefix) {
        bytes.extend(piece?.value);
    }
    let read = |error: serde_json::Error| StoreError::Corrupt(format!("the text of job {}: {error}", id.0));
    (!bytes.is_empty()).then(|| serde_json::from_slice(&bytes).map_err(read)).transpose()
}

/// There while somebody wants the job cancelled.
fn cancel(id: &WebJobId) -> Key {
    Key::of(CANCEL).last(&id.0)
}

/// A job that is not over.
fn under_way(table: &Table, id: &WebJobId) -> Result<Option<JobRow>, StoreError> {
    Ok(table.get::<JobRow>(&job(id))?.filter(|row| !row.status.is_over()))
}

fn is_leased_by(row: &JobRow, instance: &str) -> bool {
    row.lease.as_ref().is_some_and(|(by, _)| by == instance)
}

fn is_stranded(row: &JobRow, at: UnixMillis) -> bool {
    row.lease.as_ref().is_some_and(|(_, until)| *until < at)
}

fn in_order(prefix: Key, created: UnixMillis, id: &WebJobId) -> Key {
    prefix.number(created.0).last(&id.0)
}

/// Where a job is found.
fn entries(row: &JobRow) -> Vec<Key> {
    let mut prefixes =
        vec![Key::of(BY_CLIENT).text(&row.client.0), Key::of(BY_STATUS).number(row.status as u64), Key::of(BY_TIME)];
    prefixes.push(Key::of(BY_CLIENT_STATUS).text(&row.client.0).number(row.status as u64));
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
    if new.text.is_none() {
        change.put(&job(&new.id), new)
    } else {
        change.put(&job(&new.id), &JobRow { text: None, ..new.clone() })
    }
}

/// The narrowest index for a query.
fn prefix(query: &JobQuery) -> Key {
    match (&query.client, query.legacy, query.status) {
        (Some(client), _, Some(status)) => Key::of(BY_CLIENT_STATUS).text(&client.0).number(status as u64),
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
fn named(table: &Table, entry: &Row, skip: usize) -> Result<Option<JobRow>, StoreError> {
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
            if let Some(text) = &row.text {
                put_text(change, &row.id, text)?;
            }
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

    fn end_job<'a>(&'a self, row: &'a JobRow, stranded: Option<UnixMillis>) -> Answer<'a, Option<MicroUsd>> {
        let mut row = row.clone();
        self.write(move |change| {
            let old = under_way(change.table(), &row.id)?.filter(|old| stranded.is_none_or(|at| is_stranded(old, at)));
            let Some(old) = old else { return Ok(None) };
            let cost = settle(change, &row)?;
            row.cost = Some(cost);
            put(change, Some(&old), &row)?;
            if let Some(text) = &row.text {
                put_text(change, &row.id, text)?;
            }
            change.remove(&cancel(&row.id));
            Ok(Some(cost))
        })
    }

    fn renew_jobs<'a>(&'a self, instance: &'a str, jobs: &'a [Renewal], until: UnixMillis) -> Answer<'a, Vec<WebJobId>> {
        let (instance, jobs) = (instance.to_owned(), jobs.to_vec());
        // A lease that a power cut takes back was the lease of a process that it ended, too.
        self.write_soon(move |change| {
            let mut unwanted = Vec::new();
            for known in jobs {
                let old = under_way(change.table(), &known.id)?.filter(|old| is_leased_by(old, &instance));
                if let Some(old) = &old {
                    let (output_tokens, cost) = (known.output_tokens.or(old.output_tokens), known.cost.or(old.cost));
                    let lease = Some((instance.clone(), until));
                    put(change, Some(old), &JobRow { output_tokens, cost, lease, ..old.clone() })?;
                }
                if old.is_none() || change.table().has(&cancel(&known.id))? {
                    unwanted.push(known.id);
                }
            }
            Ok(unwanted)
        })
    }

    fn put_text<'a>(&'a self, id: &'a WebJobId, text: &'a StoredText) -> Answer<'a, bool> {
        let (id, text) = (id.clone(), text.clone());
        self.write(move |change| {
            let may = under_way(change.table(), &id)?.is_some();
            if may {
                put_text(change, &id, &text)?;
            }
            Ok(may)
        })
    }

    fn want_cancel<'a>(&'a self, id: &'a WebJobId) -> Answer<'a, bool> {
        let id = id.clone();
        self.write(move |change| {
            let may = under_way(change.table(), &id)?.is_some();
            if may {
                change.put_bytes(&cancel(&id), &[]);
            }
            Ok(may)
        })
    }

    fn forget_jobs(&self, before: UnixMillis) -> Answer<'_, usize> {
        self.write_soon(move |change| {
            let prefix = Key::of(BY_TIME);
            let end = prefix.clone().number(before.0);
            let table = change.table();
            let found = table.before(&prefix, Some(&end)).map(|entry| named(table, &entry?, prefix.len() + 8));
            let old = found.filter_map(Result::transpose).filter(|row| row.as_ref().map_or(true, |row| row.status.is_over()));
            let old: Vec<JobRow> = old.take(MAX_FORGOTTEN_JOBS).collect::<Result<_, _>>()?;
            for row in &old {
                entries(row).iter().for_each(|entry| change.remove(entry));
                row.idempotency.iter().for_each(|wish| change.remove(&idempotency(&row.client, wish)));
                change.remove(&job(&row.id));
                change.remove(&cancel(&row.id));
                let prefix = text(&row.id);
                let pieces: Vec<Row> = change.table().after(&prefix, &prefix).collect::<Result<_, _>>()?;
                pieces.into_iter().for_each(|piece| change.remove(&Key::read(piece.key)));
            }
            Ok(old.len())
        })
    }

    fn job<'a>(&'a self, id: &'a WebJobId) -> Answer<'a, Option<JobRow>> {
        let id = id.clone();
        self.read(move |table| {
            let Some(row) = table.get::<JobRow>(&job(&id))? else { return Ok(None) };
            Ok(Some(JobRow { text: read_text(table, &id)?, ..row }))
        })
    }

    fn jobs<'a>(&'a self, query: &'a JobQuery) -> Answer<'a, Vec<JobRow>> {
        let query = query.clone();
        self.read(move |table| {
            let prefix = prefix(&query);
            let until = query.before.as_ref().map(|(created, id)| in_order(prefix.clone(), *created, id));
            let mut found = Vec::new();
            for entry in table.before(&prefix, until.as_ref()).take(MAX_LOOKED_AT) {
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
                match row.filter(|row| is_stranded(row, now)) {
                    Some(row) => found.push(row),
                    None => break,
                }
            }
            Ok(found)
        })
    }
}
