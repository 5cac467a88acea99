//! The schema, by numbered steps that are part of the program. One instance at a time makes them; the others wait.

use super::super::StoreError;
use deadpool_postgres::{Client, Transaction};
use infernet_wire::topic::NetworkId;
use tracing::info;

/// In order; the number of a step is its place. A step that was released is never changed.
const STEPS: [(&str, &str); 4] = [
    ("plane", include_str!("migrations/0001_plane.sql")),
    ("money", include_str!("migrations/0002_money.sql")),
    ("receipts", include_str!("migrations/0003_receipts.sql")),
    ("onchain", include_str!("migrations/0004_onchain.sql")),
];

/// Brings the database up to this program's schema, and makes sure that it is this network's.
pub(super) async fn migrate(connection: &mut Client, network: &NetworkId) -> Result<(), StoreError> {
    let step = connection.transaction().await?;
    // A large table may take minutes, and whoever starts at the same time waits for that; `PostgresStore::open` has a deadline.
    step.batch_execute("set local statement_timeout = 0; set local lock_timeout = 0").await?;
    // Held until the transaction ends, however it does.
    super::lock(&step, "migrations").await?;
    let known = step.query_one("select to_regclass('infernet.migrations') is not null", &[]).await?;
    // A role that may only use what is there may start, too.
    if !known.try_get::<_, bool>(0)? {
        step.batch_execute(
            "create schema if not exists infernet;
             create table infernet.migrations
                 (number bigint primary key, name text not null, applied timestamptz not null default now())",
        )
        .await?;
    }
    let applied: i64 = step.query_one("select coalesce(max(number), 0) from infernet.migrations", &[]).await?.try_get(0)?;
    let applied = usize::try_from(applied).unwrap_or_default();
    if applied > STEPS.len() {
        return Err(StoreError::Refused(format!(
            "its schema is of a newer version (step {applied}, this program knows {}): use that version",
            STEPS.len()
        )));
    }
    for (at, (name, sql)) in STEPS.iter().enumerate().skip(applied) {
        let number = at as i64 + 1;
        step.batch_execute(sql).await?;
        step.execute("insert into infernet.migrations (number, name) values ($1, $2)", &[&number, name]).await?;
        info!("the store's schema is at step {number}, {name}");
    }
    check_network(&step, network).await?;
    Ok(step.commit().await?)
}

async fn check_network(step: &Transaction<'_>, network: &NetworkId) -> Result<(), StoreError> {
    let ours = network.as_str();
    step.execute("insert into meta (name, value) values ('network', $1) on conflict do nothing", &[&ours]).await?;
    let theirs: String = step.query_one("select value from meta where name = 'network'", &[]).await?.try_get(0)?;
    if theirs == ours {
        return Ok(());
    }
    Err(StoreError::Refused(format!("it holds the network {theirs:?}, not {ours:?}: give each network a database of its own")))
}
