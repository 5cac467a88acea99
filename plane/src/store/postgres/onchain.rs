//! Deposits and payments. Whoever credits one locks its client first, as for all of a client's money.

use super::{
    PostgresStore, answer,
    convert::{Columns, page, plain, signed},
    execute,
    money::{add, locked},
    row,
};
use crate::store::{Answer, ClientId, DepositRow, Onchain, PaymentRow, StoreError};
use infernet_wire::{evm::EvmAddress, money::MicroUsd, time::UnixMillis};
use tokio_postgres::Row;

const DEPOSIT: &str = "d.chain, d.tx, d.log, d.token, d.account, d.sender, d.amount, d.block, d.credited";
const PAYMENT: &str = "account, number, revision, at, step";

/// A deposit, with the client of the column `client`.
fn read(row: &Row) -> Result<DepositRow, StoreError> {
    let row = Columns(row);
    let corrupt = || StoreError::Corrupt("column sender".into());
    Ok(DepositRow {
        chain: row.number("chain")?,
        tx: row.hash("tx")?,
        log: row.number("log")?,
        token: row.evm("token")?,
        to: row.evm("account")?,
        from: EvmAddress::from_lower(&format!("0x{}", row.get::<String>("sender")?)).map_err(|_| corrupt())?,
        amount: row.money("amount")?,
        block: row.number("block")?,
        client: row.get::<Option<String>>("client")?.map(ClientId),
        credited: row.maybe_time("credited")?,
    })
}

fn read_payment(row: &Row) -> Result<PaymentRow, StoreError> {
    let row = Columns(row);
    Ok(PaymentRow {
        account: row.get("account")?,
        number: row.number("number")?,
        revision: row.number("revision")?,
        at: row.time("at")?,
        step: row.get("step")?,
    })
}

impl PostgresStore {
    async fn take_deposits(&self, source: &str, deposits: &[DepositRow], next: u64) -> Result<usize, StoreError> {
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        let mut new = 0;
        for deposit in deposits {
            let added = execute(
                &step,
                "insert into deposits (chain, tx, log, token, account, sender, amount, block)
                 select $1, $2, $3, $4, $5, $6, $7, $8
                 where not exists (select 1 from deposits where chain = $1 and tx = $2 and block <> $8)
                 on conflict do nothing",
                &[
                    &signed(deposit.chain),
                    &&deposit.tx.as_bytes()[..],
                    &signed(deposit.log),
                    &&deposit.token.0[..],
                    &&deposit.to.0[..],
                    &deposit.subject(),
                    &signed(deposit.amount.0),
                    &signed(deposit.block),
                ],
            )
            .await?;
            new += usize::from(added == 1);
        }
        let mark = "insert into block_marks (source, next) values ($1, $2)
             on conflict (source) do update set next = greatest(block_marks.next, $2)";
        execute(&step, mark, &[&plain(source), &signed(next)]).await?;
        step.commit().await?;
        Ok(new)
    }

    async fn credit(&self, deposit: &DepositRow, now: UnixMillis) -> Result<bool, StoreError> {
        let Some(id) = &deposit.client else { return Ok(false) };
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        let unknown = || StoreError::Refused(format!("there is no client {}", id.0));
        let client = locked(&step, id).await?.ok_or_else(unknown)?;
        let statement = format!(
            "update deposits d set client = $4, credited = $5 where chain = $1 and tx = $2 and log = $3 and client is null
             returning {DEPOSIT}, d.client"
        );
        let (chain, log, tx) = (signed(deposit.chain), signed(deposit.log), &deposit.tx.as_bytes()[..]);
        let taken = row(&step, &statement, &[&chain, &tx, &log, &plain(&id.0), &signed(now.0)]).await?;
        let Some(taken) = taken.as_ref().map(read).transpose()? else { return Ok(false) };
        let is_new = add(&step, &client, &taken.entry(id, now)).await?;
        if is_new {
            step.commit().await?;
        }
        Ok(is_new)
    }

    async fn put_payment(&self, row: &PaymentRow) -> Result<bool, StoreError> {
        let (account, number, step) = (plain(&row.account), signed(row.number), &row.step[..]);
        let kept = match row.revision.checked_sub(1) {
            None => {
                let statement = "insert into payments (account, number, revision, at, step)
                     select $1, $2, 0, $3, $4
                     where $2 = (select coalesce(max(number), 0) + 1 from payments where account = $1)
                     on conflict do nothing";
                self.execute(statement, &[&account, &number, &signed(row.at.0), &step]).await?
            }
            Some(before) => {
                let statement = "update payments set revision = $3 + 1, step = $4
                     where account = $1 and number = $2 and revision = $3";
                self.execute(statement, &[&account, &number, &signed(before), &step]).await?
            }
        };
        Ok(kept == 1)
    }
}

impl Onchain for PostgresStore {
    fn block_mark<'a>(&'a self, source: &'a str) -> Answer<'a, Option<u64>> {
        answer(async move {
            let row = self.row("select next from block_marks where source = $1", &[&plain(source)]).await?;
            row.map(|row| Columns(&row).number("next")).transpose()
        })
    }

    fn put_deposits<'a>(&'a self, source: &'a str, rows: &'a [DepositRow], next: u64) -> Answer<'a, usize> {
        answer(self.take_deposits(source, rows, next))
    }

    fn claimable_deposits(&self, limit: usize) -> Answer<'_, Vec<DepositRow>> {
        answer(async move {
            let statement = format!(
                "select {DEPOSIT}, i.client from deposits d join identities i on i.kind = 'evm' and i.subject = d.sender
                 where d.client is null order by d.block, d.log limit $1"
            );
            self.rows(&statement, &[&page(limit)]).await?.iter().map(read).collect()
        })
    }

    fn credit_deposit<'a>(&'a self, row: &'a DepositRow, now: UnixMillis) -> Answer<'a, bool> {
        answer(self.credit(row, now))
    }

    fn deposits<'a>(&'a self, client: &'a ClientId, limit: usize) -> Answer<'a, Vec<DepositRow>> {
        answer(async move {
            let statement = format!(
                "select {DEPOSIT}, d.client from deposits d where d.client = $1
                 order by d.credited desc, d.chain desc, d.tx desc, d.log desc limit $2"
            );
            self.rows(&statement, &[&plain(&client.0), &page(limit)]).await?.iter().map(read).collect()
        })
    }

    fn unclaimed_deposits(&self) -> Answer<'_, (u64, MicroUsd)> {
        answer(async move {
            let statement = "select count(*) as count, least(coalesce(sum(amount), 0), 9223372036854775807)::bigint as sum from deposits where client is null";
            let row = self.row(statement, &[]).await?;
            let row = row.ok_or_else(|| StoreError::Corrupt("a count of nothing".into()))?;
            Ok((Columns(&row).number("count")?, Columns(&row).money("sum")?))
        })
    }

    fn keep_payment<'a>(&'a self, row: &'a PaymentRow) -> Answer<'a, bool> {
        answer(self.put_payment(row))
    }

    fn payments<'a>(&'a self, account: &'a str, limit: usize) -> Answer<'a, Vec<PaymentRow>> {
        answer(async move {
            let statement = format!("select {PAYMENT} from payments where account = $1 order by number desc limit $2");
            self.rows(&statement, &[&plain(account), &page(limit)]).await?.iter().map(read_payment).collect()
        })
    }
}
