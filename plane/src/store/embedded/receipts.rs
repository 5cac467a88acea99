//! Receipts by job, worker and buyer, and by position. A store of before has places without the buyer: these are read, too, and
//! go when their receipt is replaced.

use super::{
    EmbeddedStore,
    db::{Key, Table},
};
use crate::{
    index::ReceiptFact,
    store::{Answer, MAX_FACTS, MAX_PAGE, ReceiptPut, Receipts, StoreError, fact},
};
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

/// A row: a mark, the length of the fact in two bytes, the fact, and the signed bytes. One of before is the signed bytes alone,
/// which begin with a map of CBOR.
const WITH_FACT: u8 = 0;

fn joined(receipt: &SignedReceipt) -> Vec<u8> {
    let (fact, signed) = (fact::encode(&ReceiptFact::from(receipt)), receipt.encode());
    // A model's name is a field of the wire and far shorter.
    let length = u16::try_from(fact.len()).unwrap_or_default().to_be_bytes();
    [&[WITH_FACT][..], &length, &fact, &signed].concat()
}

/// The fact, if the row has one, and the signed bytes.
fn parts(row: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match row {
        [WITH_FACT, high, low, rest @ ..] => match rest.split_at_checked(u16::from_be_bytes([*high, *low]).into()) {
            Some((fact, signed)) => (Some(fact), signed),
            None => (None, &[]),
        },
        signed => (None, signed),
    }
}

fn told(row: &[u8], network: &NetworkId) -> Result<ReceiptFact, StoreError> {
    match parts(row).0.and_then(fact::decode) {
        Some(fact) => Ok(fact),
        None => decode(row, network).map(|receipt| ReceiptFact::from(&receipt)),
    }
}

fn decode(row: &[u8], network: &NetworkId) -> Result<SignedReceipt, StoreError> {
    SignedReceipt::decode_stored(parts(row).1, network).map_err(|refusal| StoreError::Corrupt(format!("a receipt: {refusal}")))
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
                change.put_bytes(&at(position), &joined(&new));
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
        self.read(move |table| rows_after(table, position, limit.min(MAX_PAGE), |row| decode(row, &network)))
    }

    fn facts_after(&self, position: u64, limit: usize) -> Answer<'_, Vec<(u64, ReceiptFact)>> {
        let network = self.network.clone();
        self.read(move |table| rows_after(table, position, limit.min(MAX_FACTS), |row| told(row, &network)))
    }
}

fn rows_after<T>(
    table: &Table,
    from: u64,
    limit: usize,
    read: impl Fn(&[u8]) -> Result<T, StoreError>,
) -> Result<Vec<(u64, T)>, StoreError> {
    let prefix = Key::of(RECEIPT);
    let rows = table.after(&prefix, &at(from.saturating_add(1))).take(limit);
    rows.map(|row| row.and_then(|row| Ok((position(row.key_after(prefix.len())), read(&row.value)?)))).collect()
}
