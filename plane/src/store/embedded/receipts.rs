//! Receipts by job and worker, and by position.

use super::{
    EmbeddedStore,
    db::{Key, Table},
};
use crate::store::{Answer, MAX_PAGE, ReceiptPut, Receipts, StoreError};
use infernet_wire::{
    id::{JobId, NodeId},
    receipt::SignedReceipt,
    topic::NetworkId,
};

const PLACE: u8 = 1;
const RECEIPT: u8 = 2;

fn place(receipt: &SignedReceipt) -> Key {
    let body = receipt.receipt();
    place_of(body.job, body.worker)
}

fn place_of(job: JobId, worker: NodeId) -> Key {
    Key::of(PLACE).fixed(job.as_bytes()).fixed(worker.as_bytes())
}

/// What is kept at a place, and its position.
fn kept(table: &Table, place: &Key, network: &NetworkId) -> Result<Option<(u64, SignedReceipt)>, StoreError> {
    let Some(position) = table.get::<u64>(place)? else { return Ok(None) };
    let bytes = table.bytes(&at(position))?;
    bytes.map(|bytes| Ok((position, decode(&bytes, network)?))).transpose()
}

fn at(position: u64) -> Key {
    Key::of(RECEIPT).number(position)
}

fn decode(bytes: &[u8], network: &NetworkId) -> Result<SignedReceipt, StoreError> {
    SignedReceipt::decode_stored(bytes, network).map_err(|refusal| StoreError::Corrupt(format!("a receipt: {refusal}")))
}

fn last(table: &Table) -> Result<u64, StoreError> {
    let prefix = Key::of(RECEIPT);
    let newest = table.before(&prefix, None).next().transpose()?;
    Ok(newest.map_or(0, |row| position(row.key_after(prefix.len()))))
}

fn position(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl Receipts for EmbeddedStore {
    fn put_receipt<'a>(&'a self, receipt: &'a SignedReceipt) -> Answer<'a, ReceiptPut> {
        let (new, network) = (receipt.clone(), self.network.clone());
        self.write(move |change| {
            let old = kept(change.table(), &place(&new), &network)?;
            let put = ReceiptPut::decide(old.as_ref().map(|(_, receipt)| receipt), &new);
            if put != ReceiptPut::Known {
                let position = last(change.table())? + 1;
                old.iter().for_each(|(old, _)| change.remove(&at(*old)));
                change.put(&place(&new), &position)?;
                change.put_bytes(&at(position), &new.encode());
            }
            Ok(put)
        })
    }

    fn receipt(&self, job: JobId, worker: NodeId) -> Answer<'_, Option<SignedReceipt>> {
        let network = self.network.clone();
        self.read(move |table| Ok(kept(table, &place_of(job, worker), &network)?.map(|(_, receipt)| receipt)))
    }

    fn receipts_after(&self, position: u64, limit: usize) -> Answer<'_, Vec<(u64, SignedReceipt)>> {
        let network = self.network.clone();
        self.read(move |table| {
            let prefix = Key::of(RECEIPT);
            let rows = table.after(&prefix, &at(position.saturating_add(1))).take(limit.min(MAX_PAGE));
            let read = |row: Result<super::db::Row, StoreError>| {
                let row = row?;
                Ok((self::position(row.key_after(prefix.len())), decode(&row.value, &network)?))
            };
            rows.map(read).collect()
        })
    }
}
