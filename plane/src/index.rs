//! What the network is like, as far as this plane has heard: a fold of verified ads, offers, accepts and receipts. Pure.
//!
//! **In any order, any number of times, the same messages make the same index.** That is what lets a plane be deleted and made
//! anew, and two planes agree. It holds because each part keeps the greatest so many of all it was ever given, by an order that
//! is in the messages themselves: an ad by when it was issued, a receipt by when its job ended. What that leaves out, no other
//! order would have kept. Sums are made from what is kept, and unmade when it goes.
//!
//! Nothing here is taken from a clock: what is live is asked with `now` ([`crate::query`]). Nothing is believed that was not
//! signed; what is signed by one side alone is shown as such, and counts for nothing.

mod facts;
mod ledger;
mod newest;

pub use self::{
    facts::{AcceptFact, AdFact, Event, OfferFact, ReceiptFact},
    ledger::{Ledger, Sums},
};

use self::newest::Newest;
use infernet_wire::{
    id::{Hash, NodeId},
    time::UnixMillis,
};
use std::sync::{PoisonError, RwLock};
use tokio::sync::watch;

/// Workers whose newest ad is kept: a large network, in some 40 MB should all their ads be as long as may be.
pub const MAX_WORKERS: usize = 10_000;
/// Offers that are kept: an hour of a network with five auctions a second, in 5 MB.
pub const MAX_OFFERS: usize = 20_000;
/// Accepts that are kept: as many.
pub const MAX_ACCEPTS: usize = 20_000;

/// How ads of one worker, and of all, are ordered. By time before sequence, so that both orders are one.
type AdOrder = (UnixMillis, u64, Hash);

/// What is known. See the module.
#[derive(Debug)]
pub struct Book {
    ads: Newest<NodeId, AdOrder, AdFact>,
    offers: Newest<Hash, (UnixMillis, Hash), OfferFact>,
    accepts: Newest<Hash, (UnixMillis, Hash), AcceptFact>,
    ledger: Ledger,
}

impl Default for Book {
    fn default() -> Self {
        Book::bounded(MAX_WORKERS, MAX_OFFERS, ledger::MAX_TRADES)
    }
}

impl Book {
    /// With other bounds: offers and accepts share one.
    pub fn bounded(workers: usize, offers: usize, trades: usize) -> Self {
        Book {
            ads: Newest::new(workers),
            offers: Newest::new(offers),
            accepts: Newest::new(offers),
            ledger: Ledger::bounded(trades),
        }
    }

    /// Takes in one message. Whether anything is different now.
    pub fn fold(&mut self, event: Event) -> bool {
        match event {
            Event::Ad(ad) => self.ads.put(ad.worker, (ad.issued, ad.sequence, ad.digest), ad),
            Event::Offer(offer) => self.offers.put(offer.digest, (offer.issued, offer.digest), offer),
            Event::Accept(accept) => self.accepts.put(accept.digest, (accept.issued, accept.digest), accept),
            Event::Receipt(receipt) => self.ledger.put(receipt),
        }
    }

    /// The newest ad of each worker, expired or not.
    pub fn ads(&self) -> impl Iterator<Item = &AdFact> {
        self.ads.values()
    }

    /// The newest ad of a worker.
    pub fn ad(&self, worker: &NodeId) -> Option<&AdFact> {
        self.ads.get(worker)
    }

    /// Offers, the newest first.
    pub fn offers(&self) -> impl Iterator<Item = &OfferFact> {
        self.offers.newest()
    }

    /// An offer by its digest.
    pub fn offer(&self, digest: &Hash) -> Option<&OfferFact> {
        self.offers.get(digest)
    }

    /// Accepts, the newest first.
    pub fn accepts(&self) -> impl Iterator<Item = &AcceptFact> {
        self.accepts.newest()
    }

    /// Receipts and what they add up to.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

/// A [`Book`] that many read and few write, and that tells when it has changed.
#[derive(Debug, Default)]
pub struct Index {
    book: RwLock<Book>,
    revision: watch::Sender<u64>,
}

impl Index {
    /// Takes in one message. Whether anything is different now.
    pub fn fold(&self, event: Event) -> bool {
        let is_new = self.book.write().unwrap_or_else(PoisonError::into_inner).fold(event);
        if is_new {
            self.revision.send_modify(|revision| *revision += 1);
        }
        is_new
    }

    /// A number that grows with each change: for pages that are live.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Looks at what is known. Others who write wait meanwhile: compute, do not wait.
    pub fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
pub(crate) mod tests;
