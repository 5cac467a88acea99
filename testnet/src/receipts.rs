//! Receipts without a job: two parties that sign what never happened, for measurements and for tests of what is kept.

use infernet_wire::{
    envelope::{Refusal, Verified},
    id::{Hash, JobId},
    key::{BadKey, NodeKey},
    money::{MicroUsd, Price},
    receipt::{Countersign, JobReceipt, JobStatus, ReceiptParts, SignedReceipt},
    time::UnixMillis,
    topic::{INFERENCE, NetworkId},
};

/// A worker and a buyer.
#[derive(Debug, Clone)]
pub struct Parties {
    /// Signs receipts.
    pub worker: NodeKey,
    /// Countersigns them.
    pub buyer: NodeKey,
    /// Where they are good.
    pub network: NetworkId,
}

impl Parties {
    /// The same two every time.
    pub fn new() -> Result<Self, BadKey> {
        let (worker, buyer) = (NodeKey::from_bytes(&[0x11; 32])?, NodeKey::from_bytes(&[0x22; 32])?);
        Ok(Parties { worker, buyer, network: NetworkId::default() })
    }

    /// The worker's statement about job `n`.
    pub fn receipt(&self, n: u64) -> Result<Verified<JobReceipt>, Refusal> {
        let price = Price { input: MicroUsd(100_000), output: MicroUsd(400_000) };
        let (input_tokens, output_tokens) = (800, 300);
        let body = JobReceipt {
            job: job(n),
            accept: Hash([1; 32]),
            buyer: self.buyer.id(),
            worker: self.worker.id(),
            workload: INFERENCE.into(),
            model: "llama3.1:8b".into(),
            weights: Some(Hash([4; 32])),
            input_tokens,
            output_tokens,
            price,
            amount: price.cost(input_tokens, output_tokens).unwrap_or_default(),
            paid: MicroUsd(0),
            started: UnixMillis(n),
            finished: UnixMillis(n),
            status: JobStatus::COMPLETED,
            request: Hash([2; 32]),
            transcript: Hash([3; 32]),
            paid_on: None,
        };
        self.worker.sign(&self.network, body)
    }

    /// The receipt of job `n`, with one signature or with both.
    pub fn signed(&self, n: u64, countersigned: bool) -> Result<SignedReceipt, Refusal> {
        let receipt = self.receipt(n)?;
        let agreement = Countersign { receipt: receipt.digest(), issued: UnixMillis(n) };
        let countersign = countersigned.then(|| self.buyer.sign(&self.network, agreement)).transpose()?;
        SignedReceipt::new(receipt, countersign)
    }

    /// What both sides do about the receipt of job `n`: the worker signs, the buyer reads, checks and countersigns, the worker
    /// reads and checks that.
    pub fn agree(&self, n: u64) -> Result<SignedReceipt, Refusal> {
        let sent = SignedReceipt::new(self.receipt(n)?, None)?.encode();
        let received = ReceiptParts::decode(&sent)?.receipt.open_stored::<JobReceipt>(&self.network)?.verify()?;
        let agreement = Countersign { receipt: received.digest(), issued: UnixMillis(n) };
        let answer = SignedReceipt::new(received.clone(), Some(self.buyer.sign(&self.network, agreement)?))?.encode();
        let answer = ReceiptParts::decode(&answer)?.countersign.ok_or(Refusal::Malformed)?;
        SignedReceipt::new(received, Some(answer.open_stored::<Countersign>(&self.network)?.verify()?))
    }
}

/// The id of job `n`.
pub fn job(n: u64) -> JobId {
    let mut id = [0; 16];
    let (_, back) = id.split_at_mut(8);
    // Spread, as real ids are: consecutive ones would be too easy on an index.
    back.copy_from_slice(&n.to_be_bytes());
    let (front, _) = id.split_at_mut(8);
    front.copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    JobId(id)
}

/// The number of the job with this id.
pub fn number(id: &JobId) -> u64 {
    id.as_bytes().last_chunk().map_or(0, |back| u64::from_be_bytes(*back))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_make_the_same_receipt() {
        let parties = Parties::new().expect("keys");
        let agreed = parties.agree(7).expect("agrees");
        assert_eq!(agreed.encode(), parties.signed(7, true).expect("signs").encode());
        assert_eq!(number(&agreed.receipt().job), 7);
    }
}
