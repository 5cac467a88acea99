//! The store on PostgreSQL 13 or newer, Supabase's included: for planes of several instances, and for those that want their rows
//! where their tools are. The only folder that names `tokio_postgres` and `deadpool_postgres`.
//!
//! Everything is in the schema `infernet`; no extension is needed. [`migrate`] makes and changes it, one instance at a time.
//! What depends on what was there happens in one statement, or in a transaction that first locks its subject. Every wait has
//! a deadline, here and at the server. Notices go by `LISTEN` and `NOTIFY`, so that a pooler in front must keep sessions: with
//! Supabase the direct connection or the session pooler, not the transaction pooler.

mod clients;
mod commands;
mod connect;
mod convert;
mod error;
mod jobs;
mod listen;
mod migrate;
mod money;
mod nodes;
mod receipts;

use self::{connect::Target, convert::Value, listen::Listener};
use super::{Answer, Notice, Notices, Store, StoreError};
use deadpool_postgres::{Object, Pool, Transaction};
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use infernet_wire::topic::NetworkId;
use std::{future::Future, time::Duration};
use tokio_postgres::Row;

/// The longest that a call waits, for a connection and for all of its statements.
const DEADLINE: Duration = Duration::from_secs(10);
/// What PostgreSQL can be told in one notice is below 8000 bytes.
const MAX_NOTICE_BYTES: usize = 7_999;

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    pool: Pool,
    target: Target,
    network: NetworkId,
    listener: Listener,
}

impl PostgresStore {
    /// Connects to `url` (`postgres://user:password@host/database`), makes or changes the schema, and checks that it is of this
    /// network. `sslmode` is `require` unless the server is on this machine or the URL says otherwise; certificates are always
    /// verified, against the system's roots or those of `sslrootcert`.
    pub async fn open(url: &str, network: &NetworkId) -> Result<Self, StoreError> {
        let target = Target::parse(url)?;
        let pool = target.pool()?;
        deadline(async { migrate::migrate(&mut pool.get().await?, network).await }).await?;
        let listener = Listener::start(target.clone());
        Ok(PostgresStore { pool, target, network: network.clone(), listener })
    }

    async fn connection(&self) -> Result<Object, StoreError> {
        Ok(self.pool.get().await?)
    }

    async fn rows(&self, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        let connection = self.connection().await?;
        let statement = connection.prepare_cached(statement).await?;
        Ok(connection.query(&statement, values).await?)
    }

    async fn row(&self, statement: &str, values: &[Value<'_>]) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(statement, values).await?.into_iter().next())
    }

    async fn execute(&self, statement: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
        let connection = self.connection().await?;
        let statement = connection.prepare_cached(statement).await?;
        Ok(connection.execute(&statement, values).await?)
    }
}

async fn rows(step: &Transaction<'_>, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
    let statement = step.prepare_cached(statement).await?;
    Ok(step.query(&statement, values).await?)
}

async fn row(step: &Transaction<'_>, statement: &str, values: &[Value<'_>]) -> Result<Option<Row>, StoreError> {
    Ok(rows(step, statement, values).await?.into_iter().next())
}

async fn execute(step: &Transaction<'_>, statement: &str, values: &[Value<'_>]) -> Result<u64, StoreError> {
    let statement = step.prepare_cached(statement).await?;
    Ok(step.execute(&statement, values).await?)
}

/// Lets nobody else work on `subject` until the transaction ends.
async fn lock(step: &Transaction<'_>, subject: &str) -> Result<(), StoreError> {
    let subject = format!("infernet {subject}");
    row(step, "select pg_advisory_xact_lock(hashtextextended($1, 0))", &[&subject]).await.map(|_| ())
}

async fn deadline<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = StoreError::Timeout(DEADLINE.as_millis() as u64);
    tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(late))
}

fn answer<'a, T>(work: impl Future<Output = Result<T, StoreError>> + Send + 'a) -> BoxFuture<'a, Result<T, StoreError>>
where
    T: Send + 'a,
{
    deadline(work).boxed()
}

impl Store for PostgresStore {
    fn place(&self) -> String {
        format!("PostgreSQL {}", self.target)
    }

    fn ready(&self) -> Answer<'_, ()> {
        answer(async { self.row("select value from meta where name = 'network'", &[]).await.map(|_| ()) })
    }
}

impl Notices for PostgresStore {
    fn notify<'a>(&'a self, notice: &'a Notice) -> Answer<'a, ()> {
        answer(async {
            let text = serde_json::to_string(notice).map_err(|error| StoreError::Refused(error.to_string()))?;
            if text.len() > MAX_NOTICE_BYTES {
                return Err(StoreError::Refused(format!("a notice of {} bytes", text.len())));
            }
            self.execute("select pg_notify($1, $2)", &[&listen::CHANNEL, &text]).await.map(|_| ())
        })
    }

    fn notices(&self) -> BoxStream<'static, Notice> {
        self.listener.notices()
    }
}

#[cfg(test)]
mod tests;
