//! Auctions that a worker could have won and did not, and what prices tell of why. Bids are sealed: more than that only the
//! worker itself knows.

use super::MAX_ROWS;
use crate::index::{AdFact, Book, OfferFact};
use infernet_wire::{
    id::NodeId,
    money::{MicroUsd, Price},
    time::UnixMillis,
};
use serde::Serialize;
use std::collections::BTreeSet;

/// How far back is looked: what an ad says now says little of prices before.
const WINDOW_MS: u64 = 60 * 60_000;

/// Why somebody else won, as far as prices tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The buyer would not have paid the worker's price.
    AboveCeiling,
    /// By so many thousandths the job would have cost more.
    Dearer(u64),
    /// It would have cost no more.
    NotByPrice,
}

/// An auction that another worker won.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// When it was asked.
    pub issued: UnixMillis,
    /// The model, as the buyer named it.
    pub model: String,
    /// Who won.
    pub winner: NodeId,
    /// The agreed price.
    pub price: Price,
    /// The worker's own, as in its ad of now.
    pub own: Price,
    /// What prices tell.
    pub why: Why,
}

/// Auctions of the last hour for a model that `worker` serves and that others won, the newest first; at most `limit`. Nothing if
/// it has no ad that was there at the time.
pub fn lost(book: &Book, worker: &NodeId, now: UnixMillis, limit: usize) -> Vec<Lost> {
    let Some(ad) = book.ad(worker) else { return Vec::new() };
    let mut seen = BTreeSet::new();
    let recent = book.accepts().take_while(|accept| accept.issued.after(WINDOW_MS) >= now);
    let rows = recent.filter_map(|accept| {
        let offer = book.offer(&accept.offer).filter(|offer| offer.buyer == accept.buyer && offer.buyer != *worker)?;
        // The newest accept of an auction is its last word.
        if !seen.insert(offer.digest) || accept.winner == *worker {
            return None;
        }
        let own = price_for(ad, &offer.model)?;
        let (mine, agreed) = (exact(own, offer), exact(accept.price, offer));
        let why = match own.within(&offer.ceiling) {
            false => Why::AboveCeiling,
            true if mine > agreed => Why::Dearer(((mine - agreed) * 1000 / agreed.max(1)).try_into().unwrap_or(u64::MAX)),
            true => Why::NotByPrice,
        };
        Some(Lost { issued: offer.issued, model: offer.model.clone(), winner: accept.winner, price: accept.price, own, why })
    });
    rows.take(limit.min(MAX_ROWS)).collect()
}

fn price_for(ad: &AdFact, model: &str) -> Option<Price> {
    ad.models.iter().find(|served| served.answers_to(model)).map(|served| served.price)
}

/// What all the tokens that were asked for would have cost, in millionths of a micro-USD.
fn exact(price: Price, offer: &OfferFact) -> u128 {
    let part = |price: MicroUsd, tokens: u32| u128::from(price.0) * u128::from(tokens);
    part(price.input, offer.input_tokens) + part(price.output, offer.output_tokens)
}
