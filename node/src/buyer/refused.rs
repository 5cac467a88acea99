//! Why a job has no answer, in one sentence that names the fix.

use super::JOIN_MS;
use crate::chat::client::Failure;
use infernet_wire::{bid::NoBidReason, chat::BadRequest, envelope::Refusal, id::NodeId, money::Price};
use std::collections::BTreeMap;

/// Why a job has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The request itself.
    #[error("{0}")]
    Request(#[from] BadRequest),
    /// The offer can't be signed.
    #[error("the offer is not valid: {0}; shorten the model's name or ask for fewer tokens")]
    Offer(#[from] Refusal),
    /// Nobody to ask.
    #[error("no peers: nobody heard the offer within {} s; name a --bootstrap address or check the network", JOIN_MS / 1000)]
    NoPeers,
    /// Nobody wants to.
    #[error("{}", no_bids(.0))]
    NoBids(Box<NoBids>),
    /// Too many jobs wait for their auction.
    #[error(
        "busy: this node has more jobs waiting for their auction than workers allow one buyer (five a second); try again later"
    )]
    Busy,
    /// A worker failed and no other could take over.
    #[error("{failure}{}", if failure.after_first_token { "; the answer so far is incomplete" } else { "; no other worker could take over, try again" })]
    Failed {
        /// The last failure.
        failure: Failure,
        /// What had arrived.
        partial: String,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// What is known when nobody bid.
#[derive(Debug, Clone)]
pub struct NoBids {
    /// The model asked for.
    pub model: String,
    /// The ceiling asked for.
    pub ceiling: Price,
    /// Workers known to serve the model.
    pub asked: usize,
    /// Who refused, and why.
    pub refusals: Vec<(NodeId, NoBidReason)>,
    /// What the model costs at the cheapest known worker.
    pub cheapest: Option<Price>,
    /// Models that somebody serves.
    pub models: Vec<String>,
}

impl NoBids {
    /// Whether a higher ceiling or budget would have brought a bid.
    pub fn is_too_cheap(&self) -> bool {
        let by_price = |r: &NoBidReason| matches!(*r, NoBidReason::CEILING_TOO_LOW | NoBidReason::BUDGET_TOO_LOW);
        self.cheapest.is_some_and(|price| !price.within(&self.ceiling)) || self.refusals.iter().any(|(_, r)| by_price(r))
    }

    /// Whether everybody refused because prompt and answer are too long.
    fn is_too_long(&self) -> bool {
        !self.refusals.is_empty() && self.refusals.iter().all(|(_, r)| *r == NoBidReason::CONTEXT_TOO_LONG)
    }
}

fn no_bids(no: &NoBids) -> String {
    let NoBids { model, ceiling, cheapest, refusals, models, .. } = no;
    match cheapest {
        Some(price) if !price.within(ceiling) => format!(
            "no bids: the cheapest {model} costs {} in and {} out per million tokens, above your ceiling of {} and {}; raise --max-price",
            price.input.0, price.output.0, ceiling.input.0, ceiling.output.0
        ),
        _ if no.is_too_cheap() => {
            format!("no bids: the price ceiling or budget is too low for {model}; raise --max-price or --budget")
        }
        _ if no.is_too_long() => format!(
            "no bids: prompt and answer don't fit the context of the workers that serve {model}; lower --max-tokens or shorten the prompt"
        ),
        Some(_) if refusals.is_empty() => format!("no bids: the workers that serve {model} did not answer; try again"),
        _ if !refusals.is_empty() => {
            format!("no bids: the workers that serve {model} refused ({}); try again later", reasons(refusals))
        }
        _ if models.is_empty() => {
            format!("no bids for {model}: no worker is known yet; see `infernet peers` and `infernet models`")
        }
        _ => format!("no bids: no known worker serves {model}; known models: {}", models.join(", ")),
    }
}

fn reasons(refusals: &[(NodeId, NoBidReason)]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    refusals.iter().for_each(|(_, reason)| *counts.entry(reason.label()).or_default() += 1);
    counts.iter().map(|(reason, n)| format!("{n} × {reason}")).collect::<Vec<_>>().join(", ")
}
