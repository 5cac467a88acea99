//! Receipts from nodes that have them, by `/infernet/receipts/1`: how an index is made anew when the store is lost, and how what
//! was missed is found. Each receipt is verified here; who brought it does not matter.

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
    /// Receipts that do not verify, or are of another network.
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
    // Those that we are connected to first: they surely answer.
    connected.into_iter().chain(others).filter(|id| *id != net.id()).take(MAX_NODES).collect()
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
        let (mut told, mut before) = (Rebuilt::default(), None);
        for _ in 0..MAX_PAGES {
            let page = match self.page(node, before).await {
                Ok(page) => page,
                Err(error) => {
                    debug!(node = node.short(), "its receipts can't be read: {error}");
                    told.failed = 1;
                    return told;
                }
            };
            let (one, last) = match self.take(&page).await {
                Ok(taken) => taken,
                Err(error) => {
                    warn!("receipts can't be written, so no more are read: {error}");
                    told.failed = 1;
                    return told;
                }
            };
            told.add(one);
            let is_known = depth == Depth::UntilKnown && one.new == 0;
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
    async fn take(&self, page: &Page) -> Result<(Rebuilt, Option<Place>), StoreError> {
        let (bytes, network, now) = (page.receipts.clone(), self.network.clone(), clock::now());
        let read =
            tokio::task::spawn_blocking(move || bytes.iter().map(|bytes| verified(bytes, &network, now)).collect::<Vec<_>>());
        let read = read.await.map_err(|error| StoreError::Unreachable(error.to_string()))?;
        let mut told = Rebuilt { read: read.len() as u64, ..Rebuilt::default() };
        told.refused = read.iter().filter(|receipt| receipt.is_none()).count() as u64;
        let good: Vec<SignedReceipt> = read.into_iter().flatten().collect();
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

/// A receipt that its signers have signed, for this network, of a job that has ended.
fn verified(bytes: &[u8], network: &NetworkId, now: UnixMillis) -> Option<SignedReceipt> {
    let receipt = SignedReceipt::decode_stored(bytes, network).ok()?;
    (receipt.receipt().finished <= now.after(limits::CLOCK_SKEW_MS)).then_some(receipt)
}
