//! Receipts from nodes that have them, by `/infernet/receipts/1`: how an index is made anew when the store is lost, and how what
//! was missed is found. Each receipt is verified here.
//!
//! A node tells of its own jobs alone, those it did and those it bought. What it tells of others' is left out: it may have had
//! another key before. One that tells what does not verify is left at once: it can fill a store with what its keys say of each
//! other, and with nothing else.

pub mod rounds;

pub use rounds::{Ended, Rounds, Seen, Wish};

use crate::{
    index::{AdFact, Event, Index},
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
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Nodes that are paged at once: each lets us have some five pages a second.
pub const NODES_AT_ONCE: usize = 8;
/// Receipts of one node that are written at once, so that they share the store's syncs.
const PUTS_AT_ONCE: usize = 16;
/// Pages of one visit to a node: fifty thousand receipts. Then others have a turn.
const MAX_PAGES: usize = 500;
/// Receipts of others, one after another, until a node is not asked for more: what is older is of its key before, too.
const MAX_FOREIGN: u64 = 1_000;
/// The longest visit to a node.
const VISIT: Duration = Duration::from_secs(5 * 60);
/// Buyers that one visit can name: as many as are read at once. What more there are is read within the hour.
const MAX_BUYERS: usize = 64;
/// How often a node that is busy is asked again for one page: a minute at most.
const MAX_WAITS: usize = 12;
/// The longest that one is waited for between.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

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
        self.read += other.read;
        self.new += other.new;
        self.refused += other.refused;
    }
}

/// What came of a visit to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// Which.
    pub node: NodeId,
    /// What it told; `nodes` and `failed` are 0.
    pub told: Rebuilt,
    /// When the newest ended of what it told.
    pub newest: Option<UnixMillis>,
    /// How the visit ended.
    pub ended: Ended,
    /// When.
    pub at: UnixMillis,
    /// Who bought what the node alone has signed, as far as that is new.
    pub unsigned: BTreeSet<NodeId>,
}

/// Who may have receipts: those we are connected to, and those that say what they serve.
pub async fn nodes(net: &Net, index: &Index) -> Vec<Seen> {
    let connected = net.peers().await.into_iter().map(|peer| (peer.id, peer.connected_since)).collect();
    let mut nodes = index.read(|book| there(connected, book.ads(), clock::now()));
    nodes.retain(|seen| seen.node != net.id());
    nodes
}

/// An ad that is over names nobody: its worker may be gone for ever, and the index keeps it.
fn there<'a>(connected: BTreeMap<NodeId, UnixMillis>, ads: impl Iterator<Item = &'a AdFact>, now: UnixMillis) -> Vec<Seen> {
    let advertised = ads.filter(|ad| ad.expires > now).map(|ad| (ad.worker, UnixMillis(0)));
    let mut all: BTreeMap<NodeId, UnixMillis> = advertised.collect();
    all.extend(connected);
    all.into_iter().map(|(node, since)| Seen { node, since }).collect()
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
    /// All that `nodes` have.
    pub async fn read_whole(&self, nodes: Vec<NodeId>) -> Rebuilt {
        let (mut all, mut left): (Rebuilt, Vec<Wish>) = (Rebuilt::default(), nodes.into_iter().map(Wish::all).collect());
        while !left.is_empty() {
            let visits = self.read(left).await;
            left = Vec::new();
            for visit in visits {
                all.add(visit.told);
                match visit.ended {
                    Ended::More(from) => left.push(Wish { from: Some(from), ..Wish::all(visit.node) }),
                    Ended::Whole => all.nodes += 1,
                    Ended::Silent(_) | Ended::Liar => all.failed += 1,
                }
            }
        }
        all
    }

    /// A visit to each.
    async fn read(&self, wishes: Vec<Wish>) -> Vec<Visit> {
        let one = |wish: Wish| {
            let reader = self.clone();
            async move { reader.visit(wish).await }
        };
        stream::iter(wishes).map(one).buffer_unordered(NODES_AT_ONCE).collect().await
    }

    /// A visit to one node, of five minutes at most.
    pub async fn visit(&self, wish: Wish) -> Visit {
        let (told, unsigned, ended) = (Rebuilt::default(), BTreeSet::new(), Ended::Silent(wish.from));
        let mut visit = Visit { node: wish.node, told, newest: None, ended, at: UnixMillis(0), unsigned };
        // What was read by then is kept, and the next visit goes on from there.
        let _ = timeout(VISIT, self.pages(wish, &mut visit)).await;
        visit.at = clock::now();
        visit
    }

    async fn pages(&self, wish: Wish, visit: &mut Visit) {
        let (node, mut before, mut foreign) = (wish.node, wish.from, 0u64);
        for _ in 0..MAX_PAGES {
            let page = match self.page(node, before).await {
                Ok(page) => page,
                Err(error) => {
                    debug!(node = node.short(), "its receipts can't be read: {error}");
                    visit.ended = Ended::Silent(before);
                    return;
                }
            };
            let Taken { told, places, own, unsigned } = match self.take(node, &page).await {
                Ok(taken) => taken,
                Err(error) => {
                    warn!("receipts can't be written, so no more are read: {error}");
                    visit.ended = Ended::Silent(before);
                    return;
                }
            };
            visit.told.add(told);
            let room = MAX_BUYERS.saturating_sub(visit.unsigned.len());
            visit.unsigned.extend(unsigned.into_iter().take(room));
            let (oldest, newest) = (places.first().copied(), places.last().copied());
            visit.newest = visit.newest.max(newest.map(|place| place.finished));
            // Places fall from page to page: a node that turns in circles lies, too.
            let falls = oldest.is_none_or(|oldest| before.is_none_or(|before| oldest < before));
            if told.refused > 0 || !falls {
                debug!(node = node.short(), refused = told.refused, "it tells what is not signed, or the same again");
                visit.ended = Ended::Liar;
                return;
            }
            foreign = if own > 0 { 0 } else { foreign + places.len() as u64 };
            let goes_on = !page.is_last && foreign < MAX_FOREIGN;
            let Some(oldest) = oldest.filter(|oldest| goes_on && oldest.finished >= wish.floor) else {
                visit.ended = Ended::Whole;
                return;
            };
            visit.ended = Ended::More(oldest);
            before = Some(oldest);
        }
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

    /// Takes in a page of `node`.
    async fn take(&self, node: NodeId, page: &Page) -> Result<Taken, StoreError> {
        let (bytes, network, now) = (page.receipts.clone(), self.network.clone(), clock::now());
        let read =
            tokio::task::spawn_blocking(move || bytes.iter().map(|bytes| verified(bytes, &network, now)).collect::<Vec<_>>());
        let read = read.await.map_err(|error| StoreError::Unreachable(error.to_string()))?;
        let mut told = Rebuilt { read: read.len() as u64, ..Rebuilt::default() };
        told.refused = read.iter().filter(|receipt| receipt.is_none()).count() as u64;
        let signed: Vec<SignedReceipt> = read.into_iter().flatten().collect();
        let mut places: Vec<Place> = signed.iter().map(Place::of).collect();
        places.sort_unstable();
        let good: Vec<SignedReceipt> = signed.into_iter().filter(|receipt| is_of(receipt, &node)).collect();
        let put = |receipt: SignedReceipt| {
            let store = self.store.clone();
            async move { store.put_receipt(&receipt).await.map(|put| (receipt, put)) }
        };
        let puts: Vec<Result<_, StoreError>> = stream::iter(good).map(put).buffer_unordered(PUTS_AT_ONCE).collect().await;
        let puts = puts.into_iter().collect::<Result<Vec<(SignedReceipt, ReceiptPut)>, StoreError>>()?;
        let mut unsigned = BTreeSet::new();
        for (receipt, put) in &puts {
            let is_new = *put != ReceiptPut::Known;
            told.new += u64::from(is_new);
            if is_new && receipt.countersign().is_none() {
                unsigned.insert(receipt.receipt().buyer);
            }
            self.index.fold(Event::from(receipt));
        }
        Ok(Taken { told, places, own: puts.len(), unsigned })
    }
}

/// What was in a page.
struct Taken {
    told: Rebuilt,
    /// Where its receipts stand, the oldest first.
    places: Vec<Place>,
    /// How many are of the node that told them.
    own: usize,
    /// Who bought what is new and only its worker has signed: at most one of each receipt.
    unsigned: BTreeSet<NodeId>,
}

/// A receipt that its signers have signed, for this network, of a job that has ended.
fn verified(bytes: &[u8], network: &NetworkId, now: UnixMillis) -> Option<SignedReceipt> {
    let receipt = SignedReceipt::decode_stored(bytes, network).ok()?;
    (receipt.receipt().finished <= now.after(limits::CLOCK_SKEW_MS)).then_some(receipt)
}

fn is_of(receipt: &SignedReceipt, node: &NodeId) -> bool {
    let body = receipt.receipt();
    body.worker == *node || body.buyer == *node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::{ad, node};

    #[test]
    fn who_is_connected_or_advertises_now_may_have_receipts() {
        let facts = [ad(1, 1, 0, "m", 1), ad(2, 1, 0, "m", 1), ad(3, 1, 60_000, "m", 1)];
        let ads = facts.iter().map(|event| if let Event::Ad(ad) = event { ad } else { panic!("an ad") });
        let over = if let Event::Ad(ad) = &facts[0] { ad.expires } else { panic!("an ad") };
        let since = UnixMillis(7);
        let seen = there(BTreeMap::from([(node(2), since), (node(4), since)]), ads, over);
        let expected = [(2, since), (3, UnixMillis(0)), (4, since)].map(|(n, since)| Seen { node: node(n), since });
        assert_eq!(seen, expected);
    }
}
