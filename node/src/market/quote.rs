//! What a job may cost, and whether a model can serve it at all. Both sides ask: a worker before it bids, a buyer of an ad.
//!
//! An offer bounds its input by **bytes**, before any engine has counted tokens. Text has about four bytes per token (English
//! in the tokenizers of Llama 3 and Qwen 2.5; code and other scripts have fewer), so a quarter of the bound is the estimate on
//! which jobs are refused and ranked. Judging by the bound itself would turn away most jobs that fit. What a job really costs is
//! capped by its budget while it runs, so a low estimate costs nobody money.

use infernet_wire::{
    bid::NoBidReason,
    capability::{Abilities, ModelAd},
    money::{MicroUsd, Price},
    offer::JobOffer,
};

/// Bytes of text per token.
const BYTES_PER_TOKEN: u32 = 4;
/// Output tokens of a usual answer. The mean of LMSYS-Chat-1M is 215, and reasoning models say more. Callers leave the cap at
/// a default of thousands, so the cap says little.
const USUAL_OUTPUT_TOKENS: u32 = 512;

/// How large a job will probably be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Input tokens.
    pub input: u32,
    /// Output tokens of a usual answer, at most the cap.
    pub output: u32,
}

impl Estimate {
    /// The estimate for an input of at most `bound` tokens.
    pub fn input(bound: u32) -> u32 {
        bound.div_ceil(BYTES_PER_TOKEN)
    }

    /// The estimate for `offer`.
    pub fn of(offer: &JobOffer) -> Self {
        Estimate { input: Estimate::input(offer.input_tokens), output: offer.output_tokens.min(USUAL_OUTPUT_TOKENS) }
    }
}

/// What a model would take for a job that it can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Per million tokens.
    pub price: Price,
    /// For a usual answer.
    pub expected: MicroUsd,
    /// For an answer of the full output cap; within the budget.
    pub most: MicroUsd,
}

/// What an engine has to do for a model, by its own word, for whomever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    /// Requests that it works on.
    pub running: u32,
    /// Requests that wait.
    pub waiting: u32,
}

/// How long a job would wait behind those that wait already, in milliseconds, if each has a usual answer at the model's measured
/// speed and as many end at a time as run. 0 if nothing waits, or the speed is not known.
pub fn queue_ms(queue: Queue, model: &ModelAd) -> u32 {
    let answer_ms = (u64::from(USUAL_OUTPUT_TOKENS) * 1_000).checked_div(model.tokens_per_second.into()).unwrap_or(0);
    let all = u64::from(queue.waiting).saturating_mul(answer_ms);
    u32::try_from(all / u64::from(queue.running.max(1))).unwrap_or(u32::MAX)
}

/// Quotes `offer` for `model`, or tells the first reason why not: model, abilities, context, ceiling, budget, deadline.
pub fn quote(offer: &JobOffer, model: &ModelAd) -> Result<Quote, NoBidReason> {
    refuse_unless(model.answers_to(&offer.model), NoBidReason::UNKNOWN_MODEL)?;
    quote_named(offer, model)
}

/// The same for a model that has the name asked for.
fn quote_named(offer: &JobOffer, model: &ModelAd) -> Result<Quote, NoBidReason> {
    refuse_unless(model.abilities.contains(offer.abilities), NoBidReason::MISSING_ABILITY)?;
    let chats = !model.abilities.contains(Abilities::EMBEDS_ONLY);
    refuse_unless(chats || offer.abilities.contains(Abilities::EMBEDDINGS), NoBidReason::MISSING_ABILITY)?;
    refuse_unless(fits_context(offer, model), NoBidReason::CONTEXT_TOO_LONG)?;
    let quote = price_job(offer, model.price)?;
    refuse_unless(meets_deadline(offer, model), NoBidReason::DEADLINE_TOO_CLOSE)?;
    Ok(quote)
}

/// Quotes `offer` at `price`, whatever the model: ceiling and budget.
pub fn price_job(offer: &JobOffer, price: Price) -> Result<Quote, NoBidReason> {
    refuse_unless(price.within(&offer.ceiling), NoBidReason::CEILING_TOO_LOW)?;
    let estimate = Estimate::of(offer);
    let most = price.cost(estimate.input, offer.output_tokens).ok_or(NoBidReason::BUDGET_TOO_LOW)?;
    refuse_unless(most <= offer.budget, NoBidReason::BUDGET_TOO_LOW)?;
    let expected = price.cost(estimate.input, estimate.output).ok_or(NoBidReason::BUDGET_TOO_LOW)?;
    Ok(Quote { price, expected, most })
}

/// The cheapest of `models` that can serve `offer`. If none can, the reason of one that at least has the name asked for.
pub fn best<'a>(offer: &JobOffer, models: impl IntoIterator<Item = &'a ModelAd>) -> Result<(&'a ModelAd, Quote), NoBidReason> {
    best_named(offer, models.into_iter().filter(|model| model.answers_to(&offer.model)))
}

/// The same of models that have the name asked for, as somebody has found out already.
pub fn best_named<'a>(
    offer: &JobOffer,
    models: impl IntoIterator<Item = &'a ModelAd>,
) -> Result<(&'a ModelAd, Quote), NoBidReason> {
    let mut refusal = NoBidReason::UNKNOWN_MODEL;
    let mut best: Option<(&ModelAd, Quote)> = None;
    for model in models {
        match quote_named(offer, model) {
            Ok(quote) if best.is_none_or(|(other, least)| (quote.expected, &model.id) < (least.expected, &other.id)) => {
                best = Some((model, quote));
            }
            Ok(_) => {}
            Err(reason) => refusal = reason,
        }
    }
    best.ok_or(refusal)
}

fn refuse_unless(holds: bool, reason: NoBidReason) -> Result<(), NoBidReason> {
    if holds { Ok(()) } else { Err(reason) }
}

/// A model that does not tell its context is trusted to cope.
fn fits_context(offer: &JobOffer, model: &ModelAd) -> bool {
    model.context == 0 || Estimate::of(offer).input.saturating_add(offer.output_tokens) <= model.context
}

/// Whether a usual answer is complete in the time the buyer gives, as far as the model's speed is known.
fn meets_deadline(offer: &JobOffer, model: &ModelAd) -> bool {
    let given_ms = offer.deadline.since(offer.issued);
    let output_ms = u64::from(Estimate::of(offer).output) * 1_000;
    let decode_ms = output_ms.checked_div(model.tokens_per_second.into()).unwrap_or(0);
    given_ms > 0 && u64::from(model.ttft_ms).saturating_add(decode_ms) <= given_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{model, offer_body, price};
    use infernet_wire::time::UnixMillis;

    fn check(change: impl FnOnce(&mut JobOffer, &mut ModelAd), expected: Result<u64, NoBidReason>) {
        let (mut offer, mut model) = (offer_body(), model("tiny", 1_000_000, 2_000_000));
        change(&mut offer, &mut model);
        assert_eq!(quote(&offer, &model).map(|quote| quote.most.0), expected);
    }

    #[test]
    fn a_quarter_of_the_bound_and_the_full_output_must_fit() {
        // 400 bytes are 100 tokens; 100 × 1 + 200 × 2.
        check(|_, _| {}, Ok(500));
        check(|offer, _| offer.budget = MicroUsd(500), Ok(500));
        check(|offer, _| offer.budget = MicroUsd(499), Err(NoBidReason::BUDGET_TOO_LOW));
        check(|_, model| model.context = 300, Ok(500));
        check(|_, model| model.context = 299, Err(NoBidReason::CONTEXT_TOO_LONG));
    }

    #[test]
    fn what_waits_in_the_engine_is_waited_for() {
        let wait = |running, waiting, speed| {
            let model = ModelAd { tokens_per_second: speed, ..model("tiny", 1, 1) };
            queue_ms(Queue { running, waiting }, &model)
        };
        assert_eq!(wait(4, 0, 100), 0);
        assert_eq!(wait(0, 1, 512), 1_000);
        assert_eq!(wait(4, 8, 64), 16_000);
        assert_eq!(wait(4, 8, 0), 0, "the speed is not known");
        assert_eq!(wait(1, u32::MAX, 1), u32::MAX);
    }

    #[test]
    fn every_refusal_has_its_reason() {
        check(|offer, _| offer.model = "other".into(), Err(NoBidReason::UNKNOWN_MODEL));
        check(|offer, _| offer.abilities = Abilities::TOOLS, Err(NoBidReason::MISSING_ABILITY));
        check(|_, model| model.abilities = Abilities::EMBEDS_ONLY, Err(NoBidReason::MISSING_ABILITY));
        check(|offer, _| offer.ceiling = price(1_000_000, 1_999_999), Err(NoBidReason::CEILING_TOO_LOW));
        check(|offer, _| offer.deadline = offer.issued, Err(NoBidReason::DEADLINE_TOO_CLOSE));
    }

    #[test]
    fn a_price_beyond_64_bits_is_over_any_budget() {
        let most = u64::MAX;
        let change = |offer: &mut JobOffer, model: &mut ModelAd| {
            (offer.ceiling, offer.budget, model.price) = (price(most, most), MicroUsd(most), price(most, most));
            (offer.input_tokens, offer.output_tokens) = (u32::MAX, 1 << 20);
        };
        check(change, Err(NoBidReason::BUDGET_TOO_LOW));
    }

    #[test]
    fn a_deadline_is_held_against_the_measured_speed() {
        let with = |tokens_per_second, ttft_ms, given_ms| {
            move |offer: &mut JobOffer, model: &mut ModelAd| {
                offer.deadline = UnixMillis(offer.issued.0 + given_ms);
                (model.tokens_per_second, model.ttft_ms) = (tokens_per_second, ttft_ms);
            }
        };
        check(with(100, 500, 2_500), Ok(500));
        check(with(100, 501, 2_500), Err(NoBidReason::DEADLINE_TOO_CLOSE));
        check(with(0, 0, 1), Ok(500));
    }

    #[test]
    fn the_best_model_is_the_cheapest_that_can() {
        let mut offer = offer_body();
        let mut dear = model("tiny", 2_000_000, 2_000_000);
        let mut cheap = model("small", 1_000_000, 1_000_000);
        cheap.aliases = vec!["tiny".into()];
        assert_eq!(best(&offer, [&dear, &cheap]).map(|(model, _)| model.id.as_str()), Ok("small"));
        offer.abilities = Abilities::VISION;
        dear.abilities = Abilities::VISION;
        assert_eq!(best(&offer, [&dear, &cheap]).map(|(model, _)| model.id.as_str()), Ok("tiny"));
        offer.model = "none".into();
        assert_eq!(best(&offer, [&dear, &cheap]), Err(NoBidReason::UNKNOWN_MODEL));
    }
}
