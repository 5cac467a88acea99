//! Why a job has no answer, in one sentence that names the fix.

use super::JOIN_MS;
use crate::{
    chat::client::Failure,
    market::{standing::NotStanding, trust::LeftOut},
    spend::CapError,
};
use infernet_wire::{
    bid::NoBidReason,
    chat::BadRequest,
    envelope::Refusal,
    id::NodeId,
    money::{MicroUsd, Price},
};
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
    /// A spend cap.
    #[error(transparent)]
    Cap(#[from] CapError),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl ChatError {
    /// Whether it passes by itself, so that the same order may succeed a moment later.
    pub fn passes(&self) -> bool {
        match self {
            ChatError::NoPeers | ChatError::Busy => true,
            ChatError::NoBids(no) => no.passes(),
            ChatError::Failed { failure, .. } => failure.is_retryable(),
            ChatError::Request(_) | ChatError::Offer(_) | ChatError::Cap(_) | ChatError::ShuttingDown => false,
        }
    }

    /// A short stable name, for logs: a failure's text may hold what a worker wrote.
    pub fn label(&self) -> &'static str {
        match self {
            ChatError::Request(_) => "request",
            ChatError::Offer(_) => "offer",
            ChatError::NoPeers => "no_peers",
            ChatError::NoBids(_) => "no_bids",
            ChatError::Busy => "busy",
            ChatError::Failed { failure, .. } => failure.cause.label(),
            ChatError::Cap(_) => "spend_cap",
            ChatError::ShuttingDown => "shutting_down",
        }
    }
}

/// What is known when nobody bid.
#[derive(Debug, Clone, Default)]
pub struct NoBids {
    /// The model asked for.
    pub model: String,
    /// The ceiling asked for.
    pub ceiling: Price,
    /// Workers known to serve the model.
    pub asked: usize,
    /// The most that the job may cost.
    pub budget: MicroUsd,
    /// Its input tokens, as workers estimate them before they bid.
    pub input_tokens: u32,
    /// The most output tokens.
    pub max_tokens: u32,
    /// Whether others, whose turn it was not, could have been asked.
    pub others: bool,
    /// Who refused, and why.
    pub refusals: Vec<(NodeId, NoBidReason)>,
    /// What the model costs at the cheapest known worker.
    pub cheapest: Option<Price>,
    /// Models that somebody serves.
    pub models: Vec<String>,
    /// Workers that serve the model and that the order or the node won't deal with, by filter.
    pub left_out: BTreeMap<LeftOut, usize>,
    /// Why no ad was accepted, if the order forbids an auction.
    pub standing: Option<NotStanding>,
}

impl NoBids {
    /// Whether a higher ceiling or budget would have brought a bid.
    pub fn is_too_cheap(&self) -> bool {
        let by_price = |r: &NoBidReason| matches!(*r, NoBidReason::CEILING_TOO_LOW | NoBidReason::BUDGET_TOO_LOW);
        self.cheapest.is_some_and(|price| !price.within(&self.ceiling))
            || self.needed().is_some()
            || self.refusals.iter().any(|(_, r)| by_price(r))
    }

    /// What the budget must be, at the least, for the longest answer at the cheapest price; `None` if it is enough.
    pub fn needed(&self) -> Option<MicroUsd> {
        let most = self.cheapest?.cost(self.input_tokens, self.max_tokens)?;
        (most > self.budget).then_some(most)
    }

    /// Whether the budget alone is what keeps everybody away.
    pub fn is_too_poor(&self) -> bool {
        !self.refusals.is_empty() && self.refusals.iter().all(|(_, reason)| *reason == NoBidReason::BUDGET_TOO_LOW)
    }

    /// Whether somebody may bid a moment later: who serves the model has no room now, or was not heard of yet.
    pub fn passes(&self) -> bool {
        match () {
            () if self.is_too_cheap() || self.standing == Some(NotStanding::NobodyKnown) => false,
            () if !self.refusals.is_empty() => self.refusals.iter().any(|(_, reason)| is_transient(*reason)),
            () if !self.left_out.is_empty() => self.standing == Some(NotStanding::Full),
            () => self.cheapest.is_some() || self.models.is_empty(),
        }
    }

    /// Whether everybody refused because we owe enough there, or may owe nothing.
    fn is_without_credit(&self) -> bool {
        !self.refusals.is_empty() && self.refusals.iter().all(|(_, r)| *r == NoBidReason::NO_CREDIT)
    }

    /// Whether everybody refused because prompt and answer are too long.
    fn is_too_long(&self) -> bool {
        !self.refusals.is_empty() && self.refusals.iter().all(|(_, r)| *r == NoBidReason::CONTEXT_TOO_LONG)
    }
}

/// Whether a worker that refuses for this may bid a moment later. Reasons that this version does not know may be of either kind; waiting costs only time that the caller has given.
fn is_transient(reason: NoBidReason) -> bool {
    !matches!(
        reason,
        NoBidReason::UNKNOWN_MODEL
            | NoBidReason::CEILING_TOO_LOW
            | NoBidReason::BUDGET_TOO_LOW
            | NoBidReason::CONTEXT_TOO_LONG
            | NoBidReason::MISSING_ABILITY
            | NoBidReason::DEADLINE_TOO_CLOSE
            | NoBidReason::NO_CREDIT
    )
}

fn no_bids(no: &NoBids) -> String {
    let NoBids { model, ceiling, cheapest, refusals, models, left_out, .. } = no;
    match cheapest {
        Some(price) if !price.within(ceiling) => format!(
            "no bids: the cheapest {model} costs {} in and {} out per million tokens, above your ceiling of {} and {}; raise --max-price",
            price.input.0, price.output.0, ceiling.input.0, ceiling.output.0
        ),
        _ if let Some(needed) = no.needed() => format!(
            "no bids: {model} needs {} micro-USD for up to {} tokens, and the budget is {}: raise --budget or lower --max-tokens",
            needed.0, no.max_tokens, no.budget.0
        ),
        _ if no.standing == Some(NotStanding::Full) => format!(
            "no standing price: every worker that advertises {model} on these terms is busy, or runs as many of your jobs as it has slots; wait, or allow an auction with --path auto"
        ),
        _ if !left_out.is_empty() && refusals.is_empty() => format!(
            "no bids: {} that serve {model} are left out by your own choice ({}); relax it, or wait for others",
            workers(left_out.values().sum()),
            filters(left_out)
        ),
        _ if no.is_too_poor() => format!(
            "no bids: the budget of {} micro-USD is too low for up to {} tokens of {model}; raise --budget or lower --max-tokens",
            no.budget.0, no.max_tokens
        ),
        _ if no.is_too_cheap() => {
            format!("no bids: the price ceiling or budget is too low for {model}; raise --max-price or --budget")
        }
        _ if no.is_too_long() => format!(
            "no bids: prompt and answer don't fit the context of the workers that serve {model}; lower --max-tokens or shorten the prompt"
        ),
        Some(_) if no.standing.is_some() => format!(
            "no standing price: no worker that serves {model} promises in its ad what this order wants; allow an auction with --path auto"
        ),
        Some(_) if refusals.is_empty() => format!("no bids: the workers that serve {model} did not answer; try again"),
        _ if no.is_without_credit() => format!(
            "no bids: the workers that serve {model} give you no credit for what this job may cost; ask for less with --max-tokens or \
             --budget, or ask an operator for credit: `infernet credit set` there, with your id from `infernet key show`"
        ),
        _ if !refusals.is_empty() => {
            format!("no bids: the workers that serve {model} refused ({}); try again later", reasons(refusals))
        }
        _ if models.is_empty() => {
            format!("no bids for {model}: no worker is known yet; see `infernet peers` and `infernet models`")
        }
        _ => format!("no bids: no known worker serves {model}; known models: {}", models.join(", ")),
    }
}

fn workers(n: usize) -> String {
    if n == 1 { "1 worker".into() } else { format!("{n} workers") }
}

fn filters(left_out: &BTreeMap<LeftOut, usize>) -> String {
    left_out.iter().map(|(filter, n)| format!("{} by {}", workers(*n), filter.label())).collect::<Vec<_>>().join(", ")
}

fn reasons(refusals: &[(NodeId, NoBidReason)]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    refusals.iter().for_each(|(_, reason)| *counts.entry(reason.label()).or_default() += 1);
    counts.iter().map(|(reason, n)| format!("{n} × {reason}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::money::MicroUsd;

    fn price(each: u64) -> Price {
        Price { input: MicroUsd(each), output: MicroUsd(each) }
    }

    /// Nobody bids for `tiny`, which one known worker serves at 5, under a ceiling of 10.
    fn check(change: impl FnOnce(&mut NoBids), says: &str, passes: bool) {
        let mut no = NoBids {
            model: "tiny".into(),
            ceiling: price(10),
            budget: MicroUsd(5_000),
            asked: 1,
            cheapest: Some(price(5)),
            models: vec!["tiny".into()],
            ..NoBids::default()
        };
        change(&mut no);
        let error = ChatError::NoBids(Box::new(no));
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.passes(), passes, "{error}");
    }

    #[test]
    fn what_passes_by_itself_is_worth_a_wait() {
        let refused = |reason| move |no: &mut NoBids| no.refusals = vec![(NodeId([2; 33]), reason)];
        check(|_| {}, "did not answer", true);
        check(refused(NoBidReason::NO_SLOT), "1 × no_slot", true);
        check(refused(NoBidReason::DRAINING), "1 × draining", true);
        check(refused(NoBidReason(999)), "1 × other", true);
        check(refused(NoBidReason::CONTEXT_TOO_LONG), "context", false);
        check(refused(NoBidReason::BUDGET_TOO_LOW), "the budget of 5000 micro-USD is too low for up to 0 tokens", false);
        check(refused(NoBidReason::CEILING_TOO_LOW), "raise --max-price or --budget", false);
        check(refused(NoBidReason::NO_CREDIT), "infernet credit set", false);
        check(refused(NoBidReason::MISSING_ABILITY), "missing_ability", false);
        check(|no| no.cheapest = Some(price(11)), "raise --max-price", false);
        let dear = |no: &mut NoBids| (no.cheapest, no.input_tokens, no.max_tokens) = (Some(price(10)), 300_000, 512_000);
        check(dear, "did not answer", true);
        let poor = |no: &mut NoBids| (no.budget, no.standing) = (MicroUsd(8), Some(NotStanding::NobodyKnown));
        check(
            |no| (dear(no), poor(no)).0,
            "needs 9 micro-USD for up to 512000 tokens, and the budget is 8: raise --budget",
            false,
        );
        check(|no| no.cheapest = None, "known models: tiny", false);
        check(|no| (no.cheapest, no.models) = (None, Vec::new()), "no worker is known yet", true);
        check(|no| no.standing = Some(NotStanding::Full), "is busy", true);
        check(|no| no.standing = Some(NotStanding::NobodyKnown), "promises in its ad", false);
    }

    #[test]
    fn it_tells_how_many_workers_each_filter_left_out() {
        let filters = BTreeMap::from([(LeftOut::Denied, 1), (LeftOut::Reputation, 2)]);
        check(
            |no| no.left_out = filters,
            "3 workers that serve tiny are left out by your own choice (1 worker by deny, 2 workers by min_reputation)",
            false,
        );
    }
}
