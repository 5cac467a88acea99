//! Receipts by job, worker and buyer, and by position. A store of before has places without the buyer: these are read, too, and
//! go when their receipt is replaced.

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
    place_of(body.job, body.worker, body.buyer)
}

fn place_of(job: JobId, worker: NodeId, buyer: NodeId) -> Key {
    old_place(job, worker).fixed(buyer.as_bytes())
}

fn old_place(job: JobId, worker: NodeId) -> Key {
    Key::of(PLACE).fixed(job.as_bytes()).fixed(worker.as_bytes())
}

/// A receipt that is kept, with its position and the place that names it.
struct Found {
    place: Key,
    position: u64,
    receipt: SignedReceipt,
}

fn kept(
    table: &Table,
    (job, worker, buyer): (JobId, NodeId, NodeId),
    network: &NetworkId,
) -> Result<Option<Found>, StoreError> {
    for place in [place_of(job, worker, buyer), old_place(job, worker)] {
        let Some(position) = table.get::<u64>(&place)? else { continue };
        let Some(bytes) = table.bytes(&at(position))? else { continue };
        let receipt = decode(&bytes, network)?;
        if receipt.receipt().buyer == buyer {
            return Ok(Some(Found { place, position, receipt }));
        }
    }
    Ok(None)
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
            let body = new.receipt();
            let old = kept(change.table(), (body.job, body.worker, body.buyer), &network)?;
            let put = ReceiptPut::decide(old.as_ref().map(|old| &old.receipt), &new);
            if put != ReceiptPut::Known {
                let position = last(change.table())? + 1;
                let place = place(&new);
                if let Some(old) = old {
                    change.remove(&at(old.position));
                    if old.place != place {
                        change.remove(&old.place);
                    }
                }
                change.put(&place, &position)?;
                change.put_bytes(&at(position), &new.encode());
            }
            Ok(put)
        })
    }

    fn receipt(&self, job: JobId, worker: NodeId, buyer: NodeId) -> Answer<'_, Option<SignedReceipt>> {
        let network = self.network.clone();
        self.read(move |table| Ok(kept(table, (job, worker, buyer), &network)?.map(|found| found.receipt)))
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
