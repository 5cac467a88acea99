//! Receipts by job, worker and buyer, and by position.

use super::{
    PostgresStore, answer,
    convert::{Columns, page, signed},
    execute, lock, row,
};
use crate::{
    index::ReceiptFact,
    store::{Answer, MAX_FACTS, ReceiptPut, Receipts, StoreError, fact},
};
use infernet_wire::{
    id::{JobId, NodeId},
    receipt::SignedReceipt,
    topic::NetworkId,
};

fn decode(bytes: &[u8], network: &NetworkId) -> Result<SignedReceipt, StoreError> {
    SignedReceipt::decode_stored(bytes, network).map_err(|refusal| StoreError::Corrupt(format!("a receipt: {refusal}")))
}

impl PostgresStore {
    async fn put_signed(&self, new: &SignedReceipt) -> Result<ReceiptPut, StoreError> {
        let body = new.receipt();
        let (job, worker, buyer) = (&body.job.as_bytes()[..], &body.worker.as_bytes()[..], &body.buyer.as_bytes()[..]);
        let mut connection = self.connection().await?;
        let step = connection.transaction().await?;
        // Positions are seen in their order only if they are given one after the other, each until it is committed.
        lock(&step, "receipts").await?;
        let old =
            row(&step, "select signed from receipts where job = $1 and worker = $2 and buyer = $3", &[&job, &worker, &buyer])
                .await?;
        let old = old.map(|row| decode(Columns(&row).get("signed")?, &self.network)).transpose()?;
        let put = ReceiptPut::decide(old.as_ref(), new);
        if put == ReceiptPut::Known {
            return Ok(put);
        }
        execute(
            &step,
            "insert into receipts (job, worker, buyer, position, finished, countersigned, signed, fact)
             values ($1, $2, $3, (select coalesce(max(position), 0) + 1 from receipts), $4, $5, $6, $7)
             on conflict (job, worker, buyer) do update set position = excluded.position, finished = excluded.finished,
             countersigned = excluded.countersigned, signed = excluded.signed, fact = excluded.fact",
            &[
                &job,
                &worker,
                &buyer,
                &signed(body.finished.0),
                &new.countersign().is_some(),
                &new.encode(),
                &fact::encode(&ReceiptFact::from(new)),
            ],
        )
        .await?;
        step.commit().await?;
        Ok(put)
    }
}

impl Receipts for PostgresStore {
    fn put_receipt<'a>(&'a self, receipt: &'a SignedReceipt) -> Answer<'a, ReceiptPut> {
        answer(self.put_signed(receipt))
    }

    fn receipt(&self, job: JobId, worker: NodeId, buyer: NodeId) -> Answer<'_, Option<SignedReceipt>> {
        answer(async move {
            let statement = "select signed from receipts where job = $1 and worker = $2 and buyer = $3";
            let values: [&[u8]; 3] = [job.as_bytes(), worker.as_bytes(), buyer.as_bytes()];
            let row = self.row(statement, &[&values[0], &values[1], &values[2]]).await?;
            row.map(|row| decode(Columns(&row).get("signed")?, &self.network)).transpose()
        })
    }

    fn receipts_after(&self, position: u64, limit: usize) -> Answer<'_, Vec<(u64, SignedReceipt)>> {
        answer(async move {
            let statement = "select position, signed from receipts where position > $1 order by position limit $2";
            let rows = self.rows(statement, &[&signed(position), &page(limit)]).await?;
            let network = self.network.clone();
            // Verifying a page takes tens of milliseconds.
            let read = move |row: &tokio_postgres::Row| {
                let row = Columns(row);
                Ok((row.number("position")?, decode(row.get("signed")?, &network)?))
            };
            let read = tokio::task::spawn_blocking(move || rows.iter().map(read).collect());
            read.await.unwrap_or_else(|error| Err(StoreError::Unreachable(error.to_string())))
        })
    }

    fn facts_after(&self, position: u64, limit: usize) -> Answer<'_, Vec<(u64, ReceiptFact)>> {
        answer(async move {
            let statement = "select position, fact, case when fact is null then signed end as signed
                 from receipts where position > $1 order by position limit $2";
            let rows = self.rows(statement, &[&signed(position), &signed(limit.min(MAX_FACTS) as u64)]).await?;
            rows.iter().map(|row| told(Columns(row), &self.network)).collect()
        })
    }
}

/// A row of before has no fact, and says the same in its signed bytes.
fn told(row: Columns<'_>, network: &NetworkId) -> Result<(u64, ReceiptFact), StoreError> {
    let position = row.number("position")?;
    let fact = row.get::<Option<&[u8]>>("fact")?.and_then(fact::decode);
    let fact = match fact {
        Some(fact) => fact,
        None => ReceiptFact::from(&decode(row.get::<Option<&[u8]>>("signed")?.unwrap_or_default(), network)?),
    };
    Ok((position, fact))
}
