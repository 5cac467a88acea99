//! What the last auctions tell about the price of the model that they were most about.

use super::{Counts, Evidence, Finding, part, plain};
use crate::{
    control::schema::ModelReport,
    seller::{Asking, Outcome, Status},
};
use infernet_wire::{
    model_name,
    money::{MicroUsd, Price},
};
use std::{cmp::Reverse, collections::BTreeMap};

/// Bids that lost to a cheaper one.
pub(super) fn dearer(evidence: &Evidence<'_>, seller: &Status) -> Option<Finding> {
    let counts = Counts(seller);
    let lost = counts.get("lost.dearer");
    (lost > 0).then(|| {
        let seen = format!("{} lost to a cheaper worker", part(lost, counts.get("bids"), "bid"));
        let Some((model, theirs)) = most_told(seller, "dearer", |outcome| outcome.winner) else {
            return Finding::new("dearer", seen, "others ask less").about(lost);
        };
        let ours = evidence.pricing.of(model);
        let seen = format!("{seen}; for {} winners ask {} in the median, you {}", plain(model), shown(theirs), shown(ours));
        let means = "most of these would be yours at a price just below the winners'";
        suggest(Finding::new("dearer", seen, means).about(lost), evidence, model, undercut(ours, theirs))
    })
}

/// Offers whose buyer would not pay the price.
pub(super) fn ceiling(evidence: &Evidence<'_>, seller: &Status) -> Option<Finding> {
    let counts = Counts(seller);
    let refused = counts.get("no_bid.ceiling_too_low");
    (refused > 0).then(|| {
        let seen = format!("{} would not pay your price", part(refused, counts.answered(), "offer"));
        let Some((model, theirs)) = most_told(seller, "ceiling_too_low", |outcome| Some(outcome.ceiling)) else {
            return Finding::new("ceiling_too_low", seen, "buyers' ceilings are below your price").about(refused);
        };
        let ours = evidence.pricing.of(model);
        let seen =
            format!("{seen}: for {} they pay up to {} in the median, you ask {}", plain(model), shown(theirs), shown(ours));
        let means = "half of these buyers could pay you at their median ceiling";
        suggest(Finding::new("ceiling_too_low", seen, means).about(refused), evidence, model, theirs)
    })
}

/// Others advertise the same models for less, and no auction has told so yet.
pub(super) fn rivals(evidence: &Evidence<'_>, seller: &Status) -> Option<Finding> {
    let told = Counts(seller).get("lost.dearer") + Counts(seller).get("no_bid.ceiling_too_low");
    let served = |model: &&ModelReport| seller.models.contains(&model.id);
    let price = |model: &ModelReport| Price { input: MicroUsd(model.price_in), output: MicroUsd(model.price_out) };
    let sum = |price: Price| price.input.0.saturating_add(price.output.0);
    let cheaper = |model: &&ModelReport| sum(price(model)) < sum(evidence.pricing.of(&model.id));
    let cheapest = evidence.rivals.iter().filter(served).filter(cheaper).min_by_key(|model| sum(price(model)))?;
    (told == 0).then(|| {
        let ours = evidence.pricing.of(&cheapest.id);
        let seen = format!("{} is advertised from {}, yours at {}", plain(&cheapest.id), shown(price(cheapest)), shown(ours));
        let means = "buyers who take an advertised price without an auction go there first";
        suggest(Finding::new("rivals", seen, means), evidence, &cheapest.id, undercut(ours, price(cheapest)))
    })
}

/// The lines that bring the price of `model` down to `target`, where it is above, and the floor with it. They change no other
/// model's price.
fn suggest(finding: Finding, evidence: &Evidence<'_>, model: &str, target: Price) -> Finding {
    let (pricing, ours) = (evidence.pricing, evidence.pricing.of(model));
    let line =
        |key: &str, ours: MicroUsd, target: MicroUsd| (target < ours && target.0 > 0).then(|| format!("{key} = {}", target.0));
    let lines = |input: &str, output: &str, price: Price| -> Vec<String> {
        [line(input, price.input, target.input), line(output, price.output, target.output)].into_iter().flatten().collect()
    };
    let models = evidence.seller.map_or(&[][..], |seller| &seller.models);
    let own = pricing.name_of(model).or_else(|| models.iter().find(|one| model_name::same(one, model)).map(String::as_str));
    // The floor holds all models; what lies between stays as it was.
    let mut change = lines("price_floor_in", "price_floor_out", pricing.floor);
    match own {
        Some(name) if models.len() > 1 || pricing.name_of(model).is_some() => {
            let parts = lines("in", "out", ours);
            change.extend((!parts.is_empty()).then(|| format!("[prices.{name:?}]")));
            change.extend(parts);
        }
        _ => change.extend(lines("price_in", "price_out", ours)),
    }
    if change.is_empty() { finding } else { finding.change(change.join("\n")) }
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

/// Of the models about which the last auctions told most, the first, and the median of what they told.
fn most_told<'a>(seller: &'a Status, reason: &str, asking: impl Fn(&Outcome) -> Option<Asking>) -> Option<(&'a str, Price)> {
    let mut told: BTreeMap<&str, Vec<Asking>> = BTreeMap::new();
    for outcome in seller.recent.iter().filter(|outcome| outcome.reason == reason) {
        told.entry(&outcome.model).or_default().extend(asking(outcome));
    }
    let (model, askings) = told.into_iter().max_by_key(|(model, askings)| (askings.len(), Reverse(*model)))?;
    Some((model, median(&askings)?))
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
