//! What happened how often while following.

use crate::index::Event;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counts since the start. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    ads: AtomicU64,
    offers: AtomicU64,
    accepts: AtomicU64,
    receipts: AtomicU64,
    kept: AtomicU64,
    lost: AtomicU64,
}

/// A [`Tally`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Ads heard.
    pub ads: u64,
    /// Offers heard.
    pub offers: u64,
    /// Accepts heard.
    pub accepts: u64,
    /// Receipts heard.
    pub receipts: u64,
    /// Receipts that the store has taken, new or known.
    pub kept: u64,
    /// Receipts that the store could not take in time.
    pub lost: u64,
}

impl Tally {
    pub(super) fn heard(&self, event: &Event) {
        let counter = match event {
            Event::Ad(_) => &self.0.ads,
            Event::Offer(_) => &self.0.offers,
            Event::Accept(_) => &self.0.accepts,
            Event::Receipt(_) => &self.0.receipts,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn kept(&self) {
        self.0.kept.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) {
        self.0.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// All counts.
    pub fn told(&self) -> Told {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Told {
            ads: read(&self.0.ads),
            offers: read(&self.0.offers),
            accepts: read(&self.0.accepts),
            receipts: read(&self.0.receipts),
            kept: read(&self.0.kept),
            lost: read(&self.0.lost),
        }
    }
}
