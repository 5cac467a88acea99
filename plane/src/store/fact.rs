//! What a receipt says, as a store keeps it beside the signed bytes: so that a start reads a million of them in seconds and checks
//! no signature again. The layout is the stores' own and goes over no wire.
//!
//! **Why that is sound.** A receipt is verified before it is put. Whoever can write a plane's store can set balances and make
//! admins, so it is trusted as the plane itself is. Whoever is told of a receipt gets the signed bytes, which are verified again.

use crate::index::ReceiptFact;
use infernet_wire::{
    id::{Hash, JobId, NodeId},
    money::MicroUsd,
    receipt::JobStatus,
    time::UnixMillis,
};

/// Told apart from what another layout wrote.
const LAYOUT: u8 = 1;

/// The bytes of a fact.
pub(super) fn encode(fact: &ReceiptFact) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(160 + fact.model.len());
    bytes.extend([LAYOUT, u8::from(fact.is_settled), fact.status.0]);
    bytes.extend(fact.job.as_bytes());
    bytes.extend(fact.worker.as_bytes());
    bytes.extend(fact.buyer.as_bytes());
    bytes.extend(fact.digest.as_bytes());
    bytes.extend(fact.input_tokens.to_be_bytes());
    bytes.extend(fact.output_tokens.to_be_bytes());
    for number in [fact.amount.0, fact.started.0, fact.finished.0] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(fact.model.as_bytes());
    bytes
}

/// The fact in `bytes`; `None` if they are of another layout.
pub(super) fn decode(bytes: &[u8]) -> Option<ReceiptFact> {
    let mut rest = bytes;
    let [layout, is_settled, status] = take(&mut rest)?;
    if layout != LAYOUT {
        return None;
    }
    Some(ReceiptFact {
        is_settled: is_settled == 1,
        status: JobStatus(status),
        job: JobId(take(&mut rest)?),
        worker: NodeId(take(&mut rest)?),
        buyer: NodeId(take(&mut rest)?),
        digest: Hash(take(&mut rest)?),
        input_tokens: u32::from_be_bytes(take(&mut rest)?),
        output_tokens: u32::from_be_bytes(take(&mut rest)?),
        amount: MicroUsd(u64::from_be_bytes(take(&mut rest)?)),
        started: UnixMillis(u64::from_be_bytes(take(&mut rest)?)),
        finished: UnixMillis(u64::from_be_bytes(take(&mut rest)?)),
        model: std::str::from_utf8(rest).ok()?.into(),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_comes_back_and_cut_ones_are_none() {
        let fact = ReceiptFact {
            job: JobId([1; 16]),
            worker: NodeId([2; 33]),
            buyer: NodeId([3; 33]),
            digest: Hash([4; 32]),
            is_settled: true,
            model: "m/ü:latest".into(),
            input_tokens: 7,
            output_tokens: u32::MAX,
            amount: MicroUsd(u64::MAX),
            started: UnixMillis(8),
            finished: UnixMillis(9),
            status: JobStatus::CANCELLED,
        };
        let bytes = encode(&fact);
        assert_eq!(decode(&bytes), Some(fact.clone()));
        let names = bytes.len() - fact.model.len();
        assert!((0..names).all(|cut| decode(&bytes[..cut]).is_none()));
        assert_eq!(decode(&[&[LAYOUT + 1], &bytes[1..]].concat()), None);
    }
}
