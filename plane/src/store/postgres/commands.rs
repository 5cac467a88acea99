//! Operators' commands.

use super::{
    PostgresStore, answer,
    convert::{Columns, Named, Value, page, plain, signed},
    execute, rows,
};
use crate::store::{Answer, CommandRow, CommandStatus, Commands, Pubkey, StoreError};
use infernet_wire::time::UnixMillis;
use tokio_postgres::Row;

const COLUMNS: &str =
    "id, node, verb, args, signed, operator, status, progress, result, error, issued, expires, started, lease, ended";
const PLACES: &str = "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15";
/// What the node may have: see `CommandRow::can_be_taken`.
const TAKEABLE: &str = "node = $1 and (status = 'pending' or status = 'running' and coalesce(lease, 0) <= $2)";

fn read(row: &Row) -> Result<CommandRow, StoreError> {
    let row = Columns(row);
    Ok(CommandRow {
        id: row.get("id")?,
        node: row.pubkey("node")?,
        verb: row.get("verb")?,
        args: row.get("args")?,
        signed: row.get("signed")?,
        operator: row.maybe_node("operator")?,
        status: row.named("status")?,
        progress: row.get("progress")?,
        result: row.get("result")?,
        error: row.get("error")?,
        issued: row.time("issued")?,
        expires: row.time("expires")?,
        started: row.maybe_time("started")?,
        lease: row.maybe_time("lease")?,
        ended: row.maybe_time("ended")?,
    })
}

impl PostgresStore {
    /// Runs a statement with a command's columns bound, and `more` after them.
    async fn with_command(&self, statement: &str, row: &CommandRow, more: &[Value<'_>]) -> Result<u64, StoreError> {
        let time = |time: Option<UnixMillis>| time.map(|time| signed(time.0));
        let operator = row.operator.as_ref().map(|node| &node.as_bytes()[..]);
        let (verb, error) = (plain(&row.verb), row.error.as_deref().map(plain));
        let (started, lease, ended) = (time(row.started), time(row.lease), time(row.ended));
        let (node, issued, expires) = (&row.node.0[..], signed(row.issued.0), signed(row.expires.0));
        let status = row.status.name();
        let values: [Value<'_>; 15] = [
            &row.id,
            &node,
            &verb,
            &row.args,
            &row.signed,
            &operator,
            &status,
            &row.progress,
            &row.result,
            &error,
            &issued,
            &expires,
            &started,
            &lease,
            &ended,
        ];
        let values: Vec<Value<'_>> = values.iter().chain(more).copied().collect();
        self.execute(statement, &values).await
    }

    async fn take(
        &self,
        node: Pubkey,
        limit: usize,
        now: UnixMillis,
        lease: UnixMillis,
    ) -> Result<Vec<CommandRow>, StoreError> {
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        let (node, now) = (&node.0[..], signed(now.0));
        let statement =
            format!("update commands set status = 'expired', lease = null, ended = $2 where {TAKEABLE} and expires <= $2");
        execute(&step, &statement, &[&node, &now]).await?;
        let statement = format!(
            "update commands set status = 'running', started = coalesce(started, $2), lease = $3 where id in
             (select id from commands where {TAKEABLE} and expires > $2 order by issued, id limit $4 for update skip locked)
             returning {COLUMNS}"
        );
        let taken = rows(&step, &statement, &[&node, &now, &signed(lease.0), &page(limit)]).await?;
        step.commit().await?;
        let mut taken: Vec<CommandRow> = taken.iter().map(read).collect::<Result<_, _>>()?;
        taken.sort_by(|a, b| (a.issued, &a.id).cmp(&(b.issued, &b.id)));
        Ok(taken)
    }
}

impl Commands for PostgresStore {
    fn put_command<'a>(&'a self, row: &'a CommandRow) -> Answer<'a, ()> {
        answer(async move {
            let statement = format!("insert into commands ({COLUMNS}) values ({PLACES})");
            self.with_command(&statement, row, &[]).await.map(|_| ())
        })
    }

    fn take_commands(&self, node: Pubkey, limit: usize, now: UnixMillis, lease: UnixMillis) -> Answer<'_, Vec<CommandRow>> {
        answer(self.take(node, limit, now, lease))
    }

    fn update_command<'a>(&'a self, from: &'a [CommandStatus], row: &'a CommandRow) -> Answer<'a, bool> {
        answer(async move {
            let statement = format!("update commands set ({COLUMNS}) = ({PLACES}) where id = $1 and status = any($16)");
            let from: Vec<&str> = from.iter().map(|status| status.name()).collect();
            Ok(self.with_command(&statement, row, &[&from]).await? == 1)
        })
    }

    fn command<'a>(&'a self, id: &'a str) -> Answer<'a, Option<CommandRow>> {
        answer(async move {
            self.row(&format!("select {COLUMNS} from commands where id = $1"), &[&plain(id)])
                .await?
                .as_ref()
                .map(read)
                .transpose()
        })
    }

    fn commands(&self, node: Pubkey, limit: usize) -> Answer<'_, Vec<CommandRow>> {
        answer(async move {
            let statement = format!("select {COLUMNS} from commands where node = $1 order by issued desc, id desc limit $2");
            self.rows(&statement, &[&&node.0[..], &page(limit)]).await?.iter().map(read).collect()
        })
    }
}
