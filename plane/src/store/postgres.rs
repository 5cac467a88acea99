//! The store on PostgreSQL 13 or newer, Supabase's included: for planes of several instances, and for those that want their rows
//! where their tools are. The only folder that names `tokio_postgres` and `deadpool_postgres`.
//!
//! Everything is in the schema `infernet`; no extension is needed. [`migrate`] makes and changes it, one instance at a time.
//! Older ones may fail from then on, so stop them first; statements name their columns, and one whose result has another type
//! than before is prepared anew.
//! What depends on what was there happens in one statement, or in a transaction that locks what it depends on, a client before
//! its jobs. Every wait has a deadline, here and at the server, and what a call that was given up had a connection for is not
//! known: that connection is closed. Notices go by `LISTEN` and `NOTIFY`, so that a pooler in front must keep sessions: with
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
mod onchain;
mod receipts;

use self::{
    connect::{Connections, Lent, Target},
    convert::Value,
    listen::Listener,
};
use super::{Answer, Notice, Notices, Store, StoreError};
use deadpool_postgres::Transaction;
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use infernet_wire::topic::NetworkId;
use std::{future::Future, time::Duration};
use tokio_postgres::{Row, error::SqlState};

/// The longest that a call waits, for a connection and for all of its statements.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest that a start waits for the schema: a table of millions of rows may be written anew, by another instance first.
const MIGRATION: Duration = Duration::from_secs(30 * 60);
/// What PostgreSQL can be told in one notice is below 8000 bytes.
const MAX_NOTICE_BYTES: usize = 7_999;

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    connections: Connections,
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
        let connections = target.connections()?;
        let migrated = async { migrate::migrate(&mut *connections.lend().await?, network).await };
        connect::within(MIGRATION, migrated).await?;
        let listener = Listener::start(target.clone());
        Ok(PostgresStore { connections, target, network: network.clone(), listener })
    }

    async fn connection(&self) -> Result<Lent, StoreError> {
        self.connections.lend().await
    }

    async fn rows(&self, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        let connection = self.connection().await?;
        let told = query(&connection, statement, values).await;
        if !told.as_ref().is_err_and(is_outdated) {
            return Ok(told?);
        }
        self.connections.forget_statements();
        Ok(query(&connection, statement, values).await?)
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

async fn query(connection: &Lent, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>, tokio_postgres::Error> {
    let statement = connection.prepare_cached(statement).await?;
    connection.query(&statement, values).await
}

/// "cached plan must not change result type": another instance has changed the schema since the statement was prepared.
fn is_outdated(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED)
}

async fn rows(step: &Transaction<'_>, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
    let statement = step.prepare_cached(statement).await?;
    let told = step.query(&statement, values).await;
    if told.as_ref().is_err_and(is_outdated) {
        // This transaction is lost, the next is not.
        step.statement_cache.clear();
    }
    Ok(told?)
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
    connect::within(DEADLINE, work).await
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
