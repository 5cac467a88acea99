//! Receipts from nodes that have them, by `/infernet/receipts/1`: how an index is made anew when the store is lost, and how what
//! was missed is found. Each receipt is verified here, and a node tells of its own alone: it must be the worker or the buyer, and is
//! left at the first receipt that is not so or that does not verify.

use crate::{
    index::{Event, Index},
    store::{ReceiptPut, Store, StoreError},
};
use futures::{StreamExt, stream};
use infernet_node::{
    clock,
    net::{Net, receipts::PageError},
};
use infernet_wire::{
    id::NodeId,
    limits,
    receipt::SignedReceipt,
    receipt_page::{Page, PageRequest, Place},
    time::UnixMillis,
    topic::NetworkId,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::{debug, warn};

/// Nodes that are paged at once: each lets us have some five pages a second.
const NODES_AT_ONCE: usize = 8;
/// Nodes that are paged in one go.
const MAX_NODES: usize = 1_000;
/// Receipts of one node that are written at once, so that they share the store's syncs.
const PUTS_AT_ONCE: usize = 16;
/// Pages of one node: a million receipts. Beyond that a node makes them up as it goes.
const MAX_PAGES: usize = 10_000;
/// The longest that one node is read in a round that only looks for what was missed; the next round begins at its newest again.
const PER_NODE: Duration = Duration::from_secs(300);
/// How often a node that is busy is asked again for one page.
const MAX_WAITS: usize = 60;
/// The longest that one is waited for between.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// All that a node has.
    All,
    /// Until a page that is known from beginning to end.
    UntilKnown,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Nodes that told all they were asked for.
    pub nodes: usize,
    /// Nodes that could not be reached, or stopped answering.
    pub failed: usize,
    /// Receipts read.
    pub read: u64,
    /// Of those, what was new or is better than what was there.
    pub new: u64,
    /// Receipts that do not verify, are of another network, or not the node's own.
    pub refused: u64,
}

impl Rebuilt {
    fn add(&mut self, other: Rebuilt) {
        self.nodes += other.nodes;
        self.failed += other.failed;
        self.read += other.read;
        self.new += other.new;
        self.refused += other.refused;
    }
}

/// Who may have receipts: those we are connected to, and those that have said what they serve.
pub async fn nodes(net: &Net, index: &Index) -> Vec<NodeId> {
    let connected: BTreeSet<NodeId> = net.peers().await.into_iter().map(|peer| peer.id).collect();
    let advertised: Vec<NodeId> = index.read(|book| book.ads().map(|ad| ad.worker).collect());
    let others: Vec<NodeId> = advertised.into_iter().filter(|id| !connected.contains(id)).collect();
    // Those that we are connected to first: they surely answer. Each time others, where there are more than are read.
    let from_anywhere = |mut ids: Vec<NodeId>| {
        let turns = u64::from_be_bytes(clock::random()) % (ids.len().max(1) as u64);
        ids.rotate_left(turns as usize);
        ids
    };
    from_anywhere(connected.into_iter().collect())
        .into_iter()
        .chain(from_anywhere(others))
        .filter(|id| *id != net.id())
        .take(MAX_NODES)
        .collect()
}

/// Reads nodes' receipts into a store and an index. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    /// The mesh.
    pub net: Net,
    /// Which network.
    pub network: NetworkId,
    /// Where they are kept.
    pub store: Arc<dyn Store>,
    /// And what they are folded into.
    pub index: Arc<Index>,
}

impl Reader {
    /// Pages the receipts of `nodes`.
    pub async fn read(&self, nodes: Vec<NodeId>, depth: Depth) -> Rebuilt {
        let reader = self.clone();
        let one = move |node| {
            let reader = reader.clone();
            async move { reader.read_all(node, depth).await }
        };
        let mut told = stream::iter(nodes).map(one).buffer_unordered(NODES_AT_ONCE);
        let mut all = Rebuilt::default();
        while let Some(one) = told.next().await {
            all.add(one);
        }
        all
    }

    async fn read_all(&self, node: NodeId, depth: Depth) -> Rebuilt {
        let (mut told, mut before, until) = (Rebuilt::default(), None, clock::deadline(PER_NODE));
        for _ in 0..MAX_PAGES {
            let page = match self.page(node, before).await {
                Ok(page) => page,
                Err(error) => {
                    debug!(node = node.short(), "its receipts can't be read: {error}");
                    told.failed = 1;
                    return told;
                }
            };
            let (one, last) = match self.take(node, &page).await {
                Ok(taken) => taken,
                Err(error) => {
                    warn!("receipts can't be written, so no more are read: {error}");
                    told.failed = 1;
                    return told;
                }
            };
            told.add(one);
            let is_known = depth == Depth::UntilKnown && (one.new == 0 || until.elapsed() > Duration::ZERO);
            if one.refused > 0 {
                debug!(node = node.short(), "it tells what is not its own or does not verify: it is left");
                told.failed = 1;
                return told;
            }
            // Places fall from page to page: a node that turns in circles is left.
            let goes_on = last.filter(|last| before.is_none_or(|before| *last < before));
            if page.is_last || is_known || goes_on.is_none() {
                break;
            }
            before = goes_on;
        }
        told.nodes = 1;
        told
    }

    async fn page(&self, node: NodeId, before: Option<Place>) -> Result<Page, PageError> {
        let limit = u16::try_from(limits::MAX_PAGE_RECEIPTS).unwrap_or(u16::MAX);
        for _ in 0..MAX_WAITS {
            let request = PageRequest { network: self.network.clone(), limit, before };
            let page = self.net.receipt_page(node, request).await?;
            if page.wait_ms == 0 {
                return Ok(page);
            }
            sleep(Duration::from_millis(page.wait_ms.into()).min(LONGEST_WAIT)).await;
        }
        Err(PageError::Unreachable("it is busy all the time".into()))
    }

    /// Takes in a page. Where the last receipt of it stands that could be read.
    async fn take(&self, node: NodeId, page: &Page) -> Result<(Rebuilt, Option<Place>), StoreError> {
        let (bytes, network, now) = (page.receipts.clone(), self.network.clone(), clock::now());
        let read = tokio::task::spawn_blocking(move || own_until_refused(&bytes, &node, &network, now));
        let (good, refused) = read.await.map_err(|error| StoreError::Unreachable(error.to_string()))?;
        let mut told = Rebuilt { read: good.len() as u64 + u64::from(refused), refused: refused.into(), ..Rebuilt::default() };
        let put = |receipt: SignedReceipt| {
            let store = self.store.clone();
            async move { store.put_receipt(&receipt).await }
        };
        let puts = stream::iter(good.clone()).map(put).buffer_unordered(PUTS_AT_ONCE);
        let puts: Vec<Result<ReceiptPut, StoreError>> = puts.collect().await;
        for put in puts {
            told.new += u64::from(put? != ReceiptPut::Known);
        }
        good.iter().for_each(|receipt| {
            self.index.fold(Event::from(receipt));
        });
        Ok((told, good.iter().map(Place::of).min()))
    }
}

/// The receipts of a page up to the first that is not good, and whether there is one: bad ones cost us two signatures each.
fn own_until_refused<B: AsRef<[u8]>>(
    page: &[B],
    node: &NodeId,
    network: &NetworkId,
    now: UnixMillis,
) -> (Vec<SignedReceipt>, bool) {
    let is_own = |receipt: &SignedReceipt| [receipt.receipt().worker, receipt.receipt().buyer].contains(node);
    let read = page.iter().map_while(|bytes| verified(bytes.as_ref(), network, now).filter(is_own));
    let good: Vec<SignedReceipt> = read.collect();
    let refused = good.len() < page.len();
    (good, refused)
}

/// A receipt that its signers have signed, for this network, of a job that has ended.
fn verified(bytes: &[u8], network: &NetworkId, now: UnixMillis) -> Option<SignedReceipt> {
    let receipt = SignedReceipt::decode_stored(bytes, network).ok()?;
    (receipt.receipt().finished <= now.after(limits::CLOCK_SKEW_MS)).then_some(receipt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::{
        id::{Hash, JobId},
        key::NodeKey,
        money::{MicroUsd, Price},
        receipt::{JobReceipt, JobStatus},
    };

    fn receipt(worker: &NodeKey, buyer: &NodeKey, job: u8) -> Vec<u8> {
        let body = JobReceipt {
            job: JobId([job; 16]),
            accept: Hash([1; 32]),
            buyer: buyer.id(),
            worker: worker.id(),
            workload: "infernet.inference".into(),
            model: "m".into(),
            weights: None,
            input_tokens: 0,
            output_tokens: 1,
            price: Price { input: MicroUsd(0), output: MicroUsd(1_000_000) },
            amount: MicroUsd(1),
            paid: MicroUsd(0),
            started: UnixMillis(1),
            finished: UnixMillis(2),
            status: JobStatus::COMPLETED,
            request: Hash([2; 32]),
            transcript: Hash([3; 32]),
        };
        let receipt = worker.sign(&NetworkId::default(), body).expect("a receipt within bounds");
        SignedReceipt::new(receipt, None).expect("it is the worker's").encode()
    }

    #[test]
    fn a_node_is_left_at_the_first_receipt_that_is_not_its_own_or_does_not_verify() {
        let key = |n: u8| NodeKey::from_bytes(&[n; 32]).expect("a key");
        let (node, other, third) = (key(1), key(2), key(3));
        let check = |page: &[Vec<u8>], expected: (usize, bool)| {
            let (good, refused) = own_until_refused(page, &node.id(), &NetworkId::default(), UnixMillis(10));
            assert_eq!((good.len(), refused), expected);
        };
        let (sold, bought, strange) = (receipt(&node, &other, 1), receipt(&other, &node, 2), receipt(&other, &third, 3));
        check(&[sold.clone(), bought.clone()], (2, false));
        check(&[sold.clone(), strange, bought.clone()], (1, true));
        check(&[vec![0; 9], sold, bought], (0, true));
    }
}
