//! What the last auctions tell about the price.

use super::{Counts, Evidence, Finding, part};
use crate::{
    control::schema::ModelReport,
    seller::{Asking, Outcome, Status},
};
use infernet_wire::money::{MicroUsd, Price};

/// Bids that lost to a cheaper one.
pub(super) fn dearer(evidence: &Evidence<'_>, seller: &Status) -> Option<Finding> {
    let counts = Counts(seller);
    let lost = counts.get("lost.dearer");
    (lost > 0).then(|| {
        let winners = askings(seller, "dearer", |outcome| outcome.winner);
        let seen = format!("{} lost to a cheaper worker", part(lost, counts.get("bids"), "bid"));
        let Some(theirs) = median(&winners) else {
            return Finding::new("dearer", seen, "others ask less").about(lost);
        };
        let seen = format!("{seen}; winners ask {} in the median, you {}", shown(theirs), shown(evidence.price));
        let means = "most of these would be yours at a price just below the winners'";
        suggest(Finding::new("dearer", seen, means).about(lost), evidence.price, undercut(evidence.price, theirs))
    })
}

/// Offers whose buyer would not pay the price.
pub(super) fn ceiling(evidence: &Evidence<'_>, seller: &Status) -> Option<Finding> {
    let counts = Counts(seller);
    let refused = counts.get("no_bid.ceiling_too_low");
    (refused > 0).then(|| {
        let ceilings = askings(seller, "ceiling_too_low", |outcome| Some(outcome.ceiling));
        let seen = format!("{} would not pay your price", part(refused, counts.answered(), "offer"));
        let Some(theirs) = median(&ceilings) else {
            return Finding::new("ceiling_too_low", seen, "buyers' ceilings are below your price").about(refused);
        };
        let seen = format!("{seen}: they pay up to {} in the median, you ask {}", shown(theirs), shown(evidence.price));
        let means = "half of these buyers could pay you at their median ceiling";
        suggest(Finding::new("ceiling_too_low", seen, means).about(refused), evidence.price, theirs)
    })
}

/// Others advertise the same models for less, and no auction has told so yet.
pub(super) fn rivals(evidence: &Evidence<'_>, seller: &Status) -> Option<Finding> {
    let told = Counts(seller).get("lost.dearer") + Counts(seller).get("no_bid.ceiling_too_low");
    let served = |model: &&ModelReport| seller.models.contains(&model.id);
    let price = |model: &ModelReport| Price { input: MicroUsd(model.price_in), output: MicroUsd(model.price_out) };
    let sum = |price: Price| price.input.0.saturating_add(price.output.0);
    let cheaper = |model: &&ModelReport| sum(price(model)) < sum(evidence.price);
    let cheapest = evidence.rivals.iter().filter(served).filter(cheaper).min_by_key(|model| sum(price(model)))?;
    (told == 0).then(|| {
        let seen = format!("{} is advertised from {}, yours at {}", cheapest.id, shown(price(cheapest)), shown(evidence.price));
        let means = "buyers who take an advertised price without an auction go there first";
        suggest(Finding::new("rivals", seen, means), evidence.price, undercut(evidence.price, price(cheapest)))
    })
}

/// The lines that bring our price down to `target`, where it is above.
fn suggest(finding: Finding, ours: Price, target: Price) -> Finding {
    let line = |key, ours: MicroUsd, target: MicroUsd| (target < ours && target.0 > 0).then(|| format!("{key} = {}", target.0));
    let lines = [line("price_in", ours.input, target.input), line("price_out", ours.output, target.output)];
    let lines: Vec<String> = lines.into_iter().flatten().collect();
    if lines.is_empty() { finding } else { finding.change(lines.join("\n")) }
}

/// Below `theirs` where we are above, by one in a hundred; where nothing is above, all of it.
fn undercut(ours: Price, theirs: Price) -> Price {
    let above = |ours: MicroUsd, theirs: MicroUsd| ours > theirs;
    let any = above(ours.input, theirs.input) || above(ours.output, theirs.output);
    let part = |ours: MicroUsd, theirs: MicroUsd| {
        if any && !above(ours, theirs) { ours } else { MicroUsd(theirs.0 - theirs.0.div_ceil(100)) }
    };
    Price { input: part(ours.input, theirs.input), output: part(ours.output, theirs.output) }
}

fn askings(seller: &Status, reason: &str, asking: impl Fn(&Outcome) -> Option<Asking>) -> Vec<Asking> {
    seller.recent.iter().filter(|outcome| outcome.reason == reason).filter_map(asking).collect()
}

/// The lower median of each part, since a price that is too high by a little wins nothing.
fn median(askings: &[Asking]) -> Option<Price> {
    let middle = |part: fn(&Asking) -> u64| {
        let mut parts: Vec<u64> = askings.iter().map(part).collect();
        parts.sort_unstable();
        parts.get(parts.len().saturating_sub(1) / 2).copied().map(MicroUsd)
    };
    Some(Price { input: middle(|a| a.price_in)?, output: middle(|a| a.price_out)? })
}

/// `$0.100000 in, $0.400000 out`.
fn shown(price: Price) -> String {
    format!("{} in and {} out", price.input, price.output)
}
