//! Jobs of web clients.

use super::{
    PostgresStore, answer,
    convert::{Columns, Named, Value, page, plain, signed},
    execute,
};
use crate::store::{
    Answer, ClientId, Idempotency, Inserted, JobError, JobQuery, JobRow, JobStatus, Jobs, Renewal, StoreError, StoredText,
    WebJobId,
};
use deadpool_postgres::Transaction;
use infernet_wire::{money::MicroUsd, time::UnixMillis};
use std::{borrow::Cow, collections::BTreeSet};
use tokio_postgres::Row;

const COLUMNS: &str = "id, client, model, status, created, updated, started, ended, worker, legacy, input_tokens, output_tokens, \
     budget, cost, ttft_ms, receipt, error_code, error_message, idempotency_key, idempotency_request, \
     lease_by, lease_until";
const PLACES: &str = "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22";

/// A job's columns, in the order of [`COLUMNS`].
struct Bound<'a> {
    texts: [Cow<'a, str>; 2],
    status: &'static str,
    numbers: [i64; 3],
    maybe: [Option<i64>; 7],
    bytes: [Option<&'a [u8]>; 4],
    maybe_texts: [Option<Cow<'a, str>>; 4],
    id: &'a str,
}

impl<'a> Bound<'a> {
    fn new(row: &'a JobRow) -> Self {
        let time = |time: Option<UnixMillis>| time.map(|time| signed(time.0));
        let wish = row.idempotency.as_ref();
        Bound {
            id: &row.id.0,
            texts: [plain(&row.client.0), plain(&row.model)],
            status: row.status.name(),
            numbers: [signed(row.created.0), signed(row.updated.0), signed(row.budget.0)],
            maybe: [
                time(row.started),
                time(row.ended),
                row.input_tokens.map(i64::from),
                row.output_tokens.map(i64::from),
                row.cost.map(|cost| signed(cost.0)),
                row.ttft_ms.map(signed),
                time(row.lease.as_ref().map(|lease| lease.1)),
            ],
            bytes: [
                row.worker.as_ref().map(|node| &node.as_bytes()[..]),
                row.legacy.as_ref().map(|key| &key.0[..]),
                row.receipt.as_ref().map(|hash| &hash.as_bytes()[..]),
                wish.map(|wish| &wish.request.as_bytes()[..]),
            ],
            maybe_texts: [
                row.error.as_ref().map(|error| plain(&error.code)),
                row.error.as_ref().map(|error| plain(&error.message)),
                wish.map(|wish| plain(&wish.key)),
                row.lease.as_ref().map(|lease| plain(&lease.0)),
            ],
        }
    }

    fn values(&self) -> [Value<'_>; 22] {
        let [client, model] = &self.texts;
        let [created, updated, budget] = &self.numbers;
        let [started, ended, input, output, cost, ttft, lease_until] = &self.maybe;
        let [worker, legacy, receipt, request] = &self.bytes;
        let [code, message, key, lease_by] = &self.maybe_texts;
        [
            &self.id,
            client,
            model,
            &self.status,
            created,
            updated,
            started,
            ended,
            worker,
            legacy,
            input,
            output,
            budget,
            cost,
            ttft,
            receipt,
            code,
            message,
            key,
            request,
            lease_by,
            lease_until,
        ]
    }
}

fn read(row: &Row) -> Result<JobRow, StoreError> {
    let row = Columns(row);
    let code: Option<String> = row.get("error_code")?;
    let message: Option<String> = row.get("error_message")?;
    let key: Option<String> = row.get("idempotency_key")?;
    let lease: Option<String> = row.get("lease_by")?;
    Ok(JobRow {
        id: WebJobId(row.get("id")?),
        client: ClientId(row.get("client")?),
        model: row.get("model")?,
        status: row.named("status")?,
        created: row.time("created")?,
        updated: row.time("updated")?,
        started: row.maybe_time("started")?,
        ended: row.maybe_time("ended")?,
        worker: row.maybe_node("worker")?,
        legacy: row.maybe_pubkey("legacy")?,
        input_tokens: row.maybe_small("input_tokens")?,
        output_tokens: row.maybe_small("output_tokens")?,
        budget: row.money("budget")?,
        cost: row.maybe_money("cost")?,
        ttft_ms: row.maybe_number("ttft_ms")?,
        receipt: row.maybe_hash("receipt")?,
        error: code.zip(message).map(|(code, message)| JobError { code, message }),
        idempotency: key.zip(row.maybe_hash("idempotency_request")?).map(|(key, request)| Idempotency { key, request }),
        text: None,
        lease: lease.zip(row.maybe_time("lease_until")?),
    })
}

fn read_text(row: &Row) -> Result<Option<StoredText>, StoreError> {
    let row = Columns(row);
    let kept = row.maybe_text("kept_request")?.zip(row.maybe_text("kept_answer")?);
    Ok(kept.map(|(request, answer)| StoredText { request, answer }))
}

/// Writes a job that is locked, and its text if it has one.
pub(super) async fn write_job(step: &Transaction<'_>, row: &JobRow) -> Result<(), StoreError> {
    let statement = format!("update jobs set ({COLUMNS}) = ({PLACES}) where id = $1");
    execute(step, &statement, &Bound::new(row).values()).await?;
    let Some(text) = &row.text else { return Ok(()) };
    let (request, answer) = (text.request.as_bytes(), text.answer.as_bytes());
    let statement = "update jobs set kept_request = $2, kept_answer = $3 where id = $1";
    execute(step, statement, &[&plain(&row.id.0), &request, &answer]).await.map(|_| ())
}

impl PostgresStore {
    async fn renew(&self, instance: &str, jobs: &[Renewal], until: UnixMillis) -> Result<Vec<WebJobId>, StoreError> {
        let ids: Vec<&str> = jobs.iter().map(|job| job.id.0.as_str()).collect();
        let tokens: Vec<Option<i64>> = jobs.iter().map(|job| job.output_tokens.map(i64::from)).collect();
        let costs: Vec<Option<i64>> = jobs.iter().map(|job| job.cost.map(|cost| signed(cost.0))).collect();
        let statement = "update jobs set lease_until = $2, output_tokens = coalesce(known.tokens, output_tokens),
             cost = coalesce(known.cost, jobs.cost)
             from unnest($3::text[], $4::bigint[], $5::bigint[]) as known (job, tokens, cost)
             where id = known.job and lease_by = $1 and status in ('pending', 'assigned', 'running')
             returning id, cancel_wanted";
        let rows = self.rows(statement, &[&plain(instance), &signed(until.0), &ids, &tokens, &costs]).await?;
        let mut wanted = BTreeSet::new();
        for row in &rows {
            let row = Columns(row);
            if !row.get::<bool>("cancel_wanted")? {
                wanted.insert(row.get::<String>("id")?);
            }
        }
        Ok(jobs.iter().filter(|job| !wanted.contains(&job.id.0)).map(|job| job.id.clone()).collect())
    }

    async fn insert(&self, row: &JobRow) -> Result<Inserted, StoreError> {
        let statement = format!(
            "insert into jobs ({COLUMNS}, kept_request, kept_answer) values ({PLACES}, $23, $24)
             on conflict (client, idempotency_key) where idempotency_key is not null do nothing"
        );
        let bound = Bound::new(row);
        let text = row.text.as_ref().map(|text| (text.request.as_bytes(), text.answer.as_bytes())).unzip();
        let values: Vec<Value<'_>> = bound.values().into_iter().chain([&text.0 as Value<'_>, &text.1]).collect();
        if self.execute(&statement, &values).await? == 1 {
            return Ok(Inserted::New);
        }
        let Some(wish) = &row.idempotency else { return Err(StoreError::Refused("a job without a key was not new".into())) };
        let statement = format!("select {COLUMNS} from jobs where client = $1 and idempotency_key = $2");
        let old = self.row(&statement, &[&plain(&row.client.0), &plain(&wish.key)]).await?;
        let old = old.as_ref().map(read).transpose()?.ok_or_else(|| StoreError::Refused("a job came and went".into()))?;
        let is_same = old.idempotency.as_ref().is_some_and(|earlier| earlier.request == wish.request);
        Ok(if is_same { Inserted::Same(Box::new(old)) } else { Inserted::Conflict })
    }
}

impl Jobs for PostgresStore {
    fn insert_job<'a>(&'a self, row: &'a JobRow) -> Answer<'a, Inserted> {
        answer(self.insert(row))
    }

    fn update_job<'a>(&'a self, from: &'a [JobStatus], row: &'a JobRow) -> Answer<'a, bool> {
        answer(async move {
            let statement = format!("update jobs set ({COLUMNS}) = ({PLACES}) where id = $1 and status = any($23)");
            let from: Vec<&str> = from.iter().map(|status| status.name()).collect();
            let bound = Bound::new(row);
            let values: Vec<Value<'_>> = bound.values().into_iter().chain([&from as Value<'_>]).collect();
            Ok(self.execute(&statement, &values).await? == 1)
        })
    }

    fn end_job<'a>(&'a self, row: &'a JobRow, stranded: Option<UnixMillis>) -> Answer<'a, Option<MicroUsd>> {
        answer(self.end(row, stranded))
    }

    fn renew_jobs<'a>(&'a self, instance: &'a str, jobs: &'a [Renewal], until: UnixMillis) -> Answer<'a, Vec<WebJobId>> {
        answer(self.renew(instance, jobs, until))
    }

    fn put_text<'a>(&'a self, id: &'a WebJobId, text: &'a StoredText) -> Answer<'a, bool> {
        answer(async move {
            let statement = "update jobs set kept_request = $2, kept_answer = $3
                 where id = $1 and status in ('pending', 'assigned', 'running')";
            let (request, answer) = (text.request.as_bytes(), text.answer.as_bytes());
            Ok(self.execute(statement, &[&plain(&id.0), &request, &answer]).await? == 1)
        })
    }

    fn want_cancel<'a>(&'a self, id: &'a WebJobId) -> Answer<'a, bool> {
        answer(async move {
            let statement =
                "update jobs set cancel_wanted = true where id = $1 and status in ('pending', 'assigned', 'running')";
            Ok(self.execute(statement, &[&plain(&id.0)]).await? == 1)
        })
    }

    fn forget_jobs(&self, before: UnixMillis) -> Answer<'_, usize> {
        answer(async move {
            let statement = "delete from jobs where id in
                 (select id from jobs where created < $1 and ended is not null order by created limit 1000)";
            Ok(usize::try_from(self.execute(statement, &[&signed(before.0)]).await?).unwrap_or(usize::MAX))
        })
    }

    fn job<'a>(&'a self, id: &'a WebJobId) -> Answer<'a, Option<JobRow>> {
        answer(async move {
            let statement = format!("select {COLUMNS}, kept_request, kept_answer from jobs where id = $1");
            let Some(row) = self.row(&statement, &[&plain(&id.0)]).await? else { return Ok(None) };
            Ok(Some(JobRow { text: read_text(&row)?, ..read(&row)? }))
        })
    }

    fn jobs<'a>(&'a self, query: &'a JobQuery) -> Answer<'a, Vec<JobRow>> {
        answer(async move {
            let (client, model) = (query.client.as_ref().map(|id| plain(&id.0)), query.model.as_deref().map(plain));
            let (status, legacy) = (query.status.map(Named::name), query.legacy.as_ref().map(|key| &key.0[..]));
            let since = query.since.map(|since| signed(since.0));
            let before = query.before.as_ref().map(|(created, id)| (signed(created.0), plain(&id.0)));
            let limit = page(query.limit);
            let mut values: Vec<Value<'_>> = vec![&limit];
            let mut wanted = vec!["true".to_owned()];
            let conditions: [(&str, Option<Value<'_>>); 5] = [
                ("client =", client.as_ref().map(|value| value as Value<'_>)),
                ("model =", model.as_ref().map(|value| value as Value<'_>)),
                ("status =", status.as_ref().map(|value| value as Value<'_>)),
                ("legacy =", legacy.as_ref().map(|value| value as Value<'_>)),
                ("created >=", since.as_ref().map(|value| value as Value<'_>)),
            ];
            for (condition, value) in conditions {
                let Some(value) = value else { continue };
                values.push(value);
                wanted.push(format!("{condition} ${}", values.len()));
            }
            if let Some((created, id)) = &before {
                values.extend([created as Value<'_>, id]);
                wanted.push(format!("(created, id) < (${}, ${})", values.len() - 1, values.len()));
            }
            let wanted = wanted.join(" and ");
            let statement = format!("select {COLUMNS} from jobs where {wanted} order by created desc, id desc limit $1");
            self.rows(&statement, &values).await?.iter().map(read).collect()
        })
    }

    fn stranded(&self, now: UnixMillis, limit: usize) -> Answer<'_, Vec<JobRow>> {
        answer(async move {
            let statement = format!(
                "select {COLUMNS} from jobs where status in ('pending', 'assigned', 'running') and lease_until < $1
                 order by lease_until, id limit $2"
            );
            self.rows(&statement, &[&signed(now.0), &page(limit)]).await?.iter().map(read).collect()
        })
    }
}
