//! What its own receipts tell a node that starts: which buyers are no strangers, and which workers have served it well.
//!
//! Both are lost with the process and written down anyway, in receipts that both sides signed. They are read in the background,
//! page by page, the newest first, while the node works already: until then a known buyer shares the strangers' slots, and a
//! proven worker has to win an auction once more.

use crate::{
    buyer::Buyer,
    seller::Seller,
    store::{Page, Position, Store},
    today::Today,
};
use infernet_wire::{
    id::NodeId,
    receipt::{JobStatus, SignedReceipt},
};
use std::{collections::BTreeSet, sync::Arc};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

/// Receipts read at most: as many as buyers are remembered ([`crate::market::admission::MAX_KNOWN_BUYERS`]). Their signatures
/// are checked anew, which takes ten seconds of one core for all of them.
const MAX_RECALLED: usize = crate::market::admission::MAX_KNOWN_BUYERS;
/// Receipts read at once, a tenth of a second's work.
const PAGE: usize = 512;

/// Who is remembered by some receipts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// They paid us.
    pub buyers: Vec<NodeId>,
    /// They worked for us, once for each job.
    pub workers: Vec<NodeId>,
}

/// Reads the receipts of the node that is or was one of `us` and tells its roles, and what of them is of this day.
pub async fn run(us: BTreeSet<NodeId>, store: Arc<dyn Store>, today: Today, buyer: Buyer, seller: Option<Seller>) {
    let (mut read, mut before) = (0, None);
    while read < MAX_RECALLED {
        let store = store.clone();
        let page = spawn_blocking(move || store.receipts(Page { before, limit: PAGE })).await;
        let receipts = match page {
            Ok(Ok(receipts)) => receipts,
            Ok(Err(error)) => return warn!("receipts can't be recalled: {error}"),
            Err(_) => return,
        };
        let Some(last) = receipts.last() else { break };
        (read, before) = (read + receipts.len(), Some(Position::of(last)));
        today.recall(&receipts);
        let Met { buyers, workers } = met(&us, &receipts);
        if let Some(seller) = &seller {
            seller.know(buyers).await;
        }
        buyer.recall(workers).await;
    }
    debug!(receipts = read, "recalled");
}

/// Whom `receipts` of one of `us` make known: those of completed jobs that both signed.
pub fn met(us: &BTreeSet<NodeId>, receipts: &[SignedReceipt]) -> Met {
    let mut met = Met::default();
    let settled = receipts.iter().filter(|r| r.countersign().is_some() && r.receipt().status == JobStatus::COMPLETED);
    for receipt in settled {
        let body = receipt.receipt();
        match () {
            () if us.contains(&body.worker) && us.contains(&body.buyer) => {}
            () if us.contains(&body.worker) => met.buyers.push(body.buyer),
            () if us.contains(&body.buyer) => met.workers.push(body.worker),
            () => {}
        }
    }
    met
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::{
        id::{Hash, JobId},
        key::NodeKey,
        money::{MicroUsd, Price},
        receipt::{Countersign, JobReceipt},
        time::UnixMillis,
        topic::{INFERENCE, NetworkId},
    };

    fn key(n: u8) -> NodeKey {
        NodeKey::from_bytes(&[n; 32]).expect("a valid scalar")
    }

    fn receipt(worker: u8, buyer: u8, status: JobStatus, countersigned: bool) -> SignedReceipt {
        let body = JobReceipt {
            job: JobId([1; 16]),
            accept: Hash([1; 32]),
            buyer: key(buyer).id(),
            worker: key(worker).id(),
            workload: INFERENCE.into(),
            model: "tiny".into(),
            weights: None,
            input_tokens: 0,
            output_tokens: 0,
            price: Price::default(),
            amount: MicroUsd(0),
            paid: MicroUsd(0),
            started: UnixMillis(1),
            finished: UnixMillis(2),
            status,
            request: Hash([1; 32]),
            transcript: Hash([1; 32]),
            paid_on: None,
        };
        let network = NetworkId::default();
        let receipt = key(worker).sign(&network, body).expect("within limits");
        let agreed = Countersign { receipt: receipt.digest(), issued: UnixMillis(2) };
        let countersign = countersigned.then(|| key(buyer).sign(&network, agreed).expect("within limits"));
        SignedReceipt::new(receipt, countersign).expect("its parts belong together")
    }

    #[test]
    fn settled_jobs_make_both_sides_known() {
        let receipts = [
            receipt(1, 2, JobStatus::COMPLETED, true),
            receipt(1, 3, JobStatus::COMPLETED, false),
            receipt(1, 4, JobStatus::CANCELLED, true),
            receipt(1, 1, JobStatus::COMPLETED, true),
            receipt(5, 1, JobStatus::COMPLETED, true),
            receipt(6, 7, JobStatus::COMPLETED, true),
        ];
        let expected = Met { buyers: vec![key(2).id()], workers: vec![key(5).id()] };
        assert_eq!(met(&[key(1).id()].into(), &receipts), expected);
    }
}
