//! The market as a whole: what is served and for how much, what is wanted and not served, auctions, volume.

use super::{MAX_ROWS, Spread, live};
use crate::index::{AcceptFact, Book, OfferFact};
use infernet_node::date::HOUR_MS;
use infernet_wire::{
    id::{Hash, JobId, NodeId},
    money::{MicroUsd, Price},
    time::UnixMillis,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How far back demand is looked for.
const DEMAND_MS: u64 = HOUR_MS;
/// Hours of traffic that are shown at most: a month.
const MAX_HOURS: u64 = 31 * 24;

/// The network at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// Workers whose ad has not expired.
    pub nodes_online: usize,
    /// Models that they serve, by their own ids.
    pub models: usize,
    /// Jobs that they can run at once.
    pub slots: u64,
    /// Settled jobs of the last 24 hours.
    pub jobs_24h: u64,
    /// What they cost.
    pub volume_24h: MicroUsd,
    /// Their output tokens.
    pub output_tokens_24h: u64,
    /// Tokens a second of jobs that were settled in the last 24 hours.
    pub tokens_per_second: Option<f64>,
    /// Settled jobs of all that are kept.
    pub jobs: u64,
    /// What they cost.
    pub volume: MicroUsd,
    /// When the last of them ended.
    pub last_job: Option<UnixMillis>,
}

/// The network at a glance.
pub fn overview(book: &Book, now: UnixMillis) -> Overview {
    let (mut nodes_online, mut slots, mut models) = (0, 0, BTreeSet::new());
    for ad in live(book, now) {
        nodes_online += 1;
        slots += u64::from(ad.slots);
        models.extend(ad.models.iter().map(|model| model.id.as_str()));
    }
    let mut day = crate::index::Sums::default();
    book.ledger().hours((now.0 / HOUR_MS).saturating_sub(23)).for_each(|(_, sums)| day += sums);
    Overview {
        nodes_online,
        models: models.len(),
        slots,
        jobs_24h: day.jobs,
        volume_24h: day.paid(),
        output_tokens_24h: day.output_tokens,
        tokens_per_second: day.tokens_per_second(),
        jobs: book.ledger().all().jobs,
        volume: book.ledger().all().paid(),
        last_job: book.ledger().newest().find(|trade| trade.is_settled).map(|trade| trade.finished),
    }
}

/// A model, who serves it, and for how much.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelRow {
    /// Its id, as its workers' engines have it.
    pub id: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// Who serves it now, the cheapest output first; at most [`MAX_ROWS`].
    pub workers: Vec<NodeId>,
    /// How many do.
    pub nodes: usize,
    /// Micro-USD per million input tokens.
    pub input_price: Option<Spread>,
    /// Micro-USD per million output tokens.
    pub output_price: Option<Spread>,
    /// Tokens a second, as workers say; those that have not measured left out.
    pub tokens_per_second: Option<Spread>,
    /// Milliseconds to the first token, as workers say.
    pub ttft_ms: Option<Spread>,
    /// Tokens a second of settled jobs.
    pub settled_tokens_per_second: Option<f64>,
    /// Settled jobs that are kept.
    pub jobs: u64,
    /// The largest context, in tokens; 0 if no worker tells.
    pub context: u32,
}

/// Every model that is served now, those with the most workers first.
pub fn models(book: &Book, now: UnixMillis) -> Vec<ModelRow> {
    let mut found: BTreeMap<&str, Vec<(NodeId, &infernet_wire::capability::ModelAd)>> = BTreeMap::new();
    for ad in live(book, now) {
        for model in &ad.models {
            found.entry(&model.id).or_default().push((ad.worker, model));
        }
    }
    let settled: BTreeMap<&str, crate::index::Sums> = book.ledger().by_model().map(|(model, sums)| (&**model, sums)).collect();
    let mut rows: Vec<ModelRow> = found
        .into_iter()
        .map(|(id, mut serving)| {
            serving.sort_by_key(|(worker, model)| (model.price.output, model.price.input, *worker));
            let of = |number: fn(&infernet_wire::capability::ModelAd) -> u64| serving.iter().map(move |(_, m)| number(m));
            let sums = settled.get(id).copied().unwrap_or_default();
            let aliases: BTreeSet<&String> = serving.iter().flat_map(|(_, model)| &model.aliases).collect();
            ModelRow {
                id: id.into(),
                aliases: aliases.into_iter().take(MAX_ROWS).cloned().collect(),
                workers: serving.iter().map(|(worker, _)| *worker).take(MAX_ROWS).collect(),
                nodes: serving.len(),
                input_price: Spread::of(of(|model| model.price.input.0).collect()),
                output_price: Spread::of(of(|model| model.price.output.0).collect()),
                tokens_per_second: Spread::of(of(|m| m.tokens_per_second.into()).filter(|n| *n > 0).collect()),
                ttft_ms: Spread::of(of(|model| model.ttft_ms.into()).filter(|ms| *ms > 0).collect()),
                settled_tokens_per_second: sums.tokens_per_second(),
                jobs: sums.jobs,
                context: serving.iter().map(|(_, model)| model.context).max().unwrap_or_default(),
            }
        })
        .collect();
    rows.sort_by(|a, b| (b.nodes, &a.id).cmp(&(a.nodes, &b.id)));
    rows.truncate(MAX_ROWS);
    rows
}

/// A model that was asked for and that nobody serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// As it was asked for.
    pub model: String,
    /// Buyers who did, in the last hour. Identities cost nothing: a hint, not a count of people.
    pub buyers: usize,
    /// How often.
    pub offers: usize,
    /// When last.
    pub last: UnixMillis,
    /// What they would have paid at most, per million output tokens.
    pub ceiling: Option<Spread>,
}

/// What was asked for in the last hour and nobody serves now, what most buyers asked for first.
pub fn demand(book: &Book, now: UnixMillis) -> Vec<Demand> {
    let mut wanted: BTreeMap<&str, Vec<&OfferFact>> = BTreeMap::new();
    for offer in book.offers().take_while(|offer| offer.issued.after(DEMAND_MS) >= now) {
        wanted.entry(&offer.model).or_default().push(offer);
    }
    wanted.retain(|model, _| !live(book, now).any(|ad| ad.models.iter().any(|served| served.answers_to(model))));
    let mut rows: Vec<Demand> = wanted
        .into_iter()
        .map(|(model, offers)| Demand {
            model: model.into(),
            buyers: offers.iter().map(|offer| offer.buyer).collect::<BTreeSet<_>>().len(),
            offers: offers.len(),
            last: offers.iter().map(|offer| offer.issued).max().unwrap_or_default(),
            ceiling: Spread::of(offers.iter().map(|offer| offer.ceiling.output.0).collect()),
        })
        .collect();
    rows.sort_by(|a, b| (b.buyers, b.offers, &a.model).cmp(&(a.buyers, a.offers, &b.model)));
    rows.truncate(MAX_ROWS);
    rows
}

/// An auction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Auction {
    /// Digest of the offer.
    pub offer: Hash,
    /// Who asked.
    pub buyer: NodeId,
    /// For which model.
    pub model: String,
    /// When.
    pub issued: UnixMillis,
    /// The most that would have been paid.
    pub ceiling: Price,
    /// The job; `None` while nobody has won, or nobody did.
    pub job: Option<JobId>,
    /// Who won at last.
    pub winner: Option<NodeId>,
    /// The agreed price.
    pub price: Option<Price>,
    /// Milliseconds from the offer to the accept, by the buyer's clock.
    pub took_ms: Option<u64>,
    /// Bids that the accept tells of: the winner's and the runners-up's. Bids are sealed, so there may have been more.
    pub bids: usize,
    /// Workers that were tried.
    pub attempts: u8,
}

/// The newest auctions, at most `limit`.
pub fn auctions(book: &Book, limit: usize) -> Vec<Auction> {
    let mut accepts: BTreeMap<Hash, &AcceptFact> = BTreeMap::new();
    for accept in book.accepts() {
        // Only whoever made the offer can close its auction.
        let is_own = book.offer(&accept.offer).is_some_and(|offer| offer.buyer == accept.buyer);
        let last = accepts.get(&accept.offer).map_or((0, UnixMillis(0)), |known| (known.attempt, known.issued));
        if is_own && (accept.attempt, accept.issued) > last {
            accepts.insert(accept.offer, accept);
        }
    }
    let row = |offer: &OfferFact| {
        let accept = accepts.get(&offer.digest);
        Auction {
            offer: offer.digest,
            buyer: offer.buyer,
            model: offer.model.clone(),
            issued: offer.issued,
            ceiling: offer.ceiling,
            job: accept.map(|accept| accept.job),
            winner: accept.map(|accept| accept.winner),
            price: accept.map(|accept| accept.price),
            took_ms: accept.map(|accept| accept.issued.since(offer.issued)),
            bids: accept.map_or(0, |accept| accept.runners_up + 1),
            attempts: accept.map_or(0, |accept| accept.attempt),
        }
    };
    book.offers().take(limit.min(MAX_ROWS)).map(row).collect()
}

/// One hour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// When it began.
    pub from: UnixMillis,
    /// Settled jobs that ended in it.
    pub jobs: u64,
    /// What they cost.
    pub volume: MicroUsd,
    /// Their output tokens.
    pub output_tokens: u64,
    /// Their tokens a second.
    pub tokens_per_second: Option<f64>,
}

/// The last `hours` hours, this one included and those without jobs too, the oldest first; at most `MAX_HOURS`.
pub fn traffic(book: &Book, now: UnixMillis, hours: u64) -> Vec<Point> {
    let last = now.0 / HOUR_MS;
    let first = last.saturating_sub(hours.clamp(1, MAX_HOURS) - 1);
    let sums: BTreeMap<u64, crate::index::Sums> = book.ledger().hours(first).collect();
    let point = |hour: u64| {
        let sums = sums.get(&hour).copied().unwrap_or_default();
        Point {
            from: UnixMillis(hour * HOUR_MS),
            jobs: sums.jobs,
            volume: sums.paid(),
            output_tokens: sums.output_tokens,
            tokens_per_second: sums.tokens_per_second(),
        }
    };
    (first..=last).map(point).collect()
}
