//! What a caller wants done, and its form as an offer.

use super::refused::ChatError;
use crate::clock;
use infernet_wire::{
    capability::Abilities,
    chat::{ChatMessage, ChatRequest},
    id::{JobId, OfferId},
    limits,
    money::{MicroUsd, Price},
    offer::{JobOffer, SelectionRule, commitment},
    time::UnixMillis,
    topic,
};

/// The bid window asked for when the caller names none. Auctions close earlier as soon as waiting does not pay.
pub const DEFAULT_WINDOW_MS: u16 = 1_000;
/// How long the whole answer may take when the caller names no deadline.
const DEFAULT_DEADLINE_MS: u64 = 10 * 60_000;

/// What a caller wants done.
#[derive(Debug, Clone)]
pub struct ChatOrder {
    /// The model: an id or alias.
    pub model: String,
    /// The conversation.
    pub messages: Vec<ChatMessage>,
    /// The most output tokens.
    pub max_tokens: u32,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Sampling seed.
    pub seed: Option<i64>,
    /// Stop sequences.
    pub stop: Vec<String>,
    /// The most to pay per million tokens.
    pub ceiling: Price,
    /// The most to pay for the job; the ceiling's worst case if absent.
    pub budget: Option<MicroUsd>,
    /// How to choose.
    pub rule: SelectionRule,
    /// How long to collect bids at most, in milliseconds.
    pub window_ms: u16,
}

/// A request ready to be offered: its bytes, and the salt that hides it in the offer.
#[derive(Clone)]
pub struct Prepared {
    pub(super) order: ChatOrder,
    pub(super) request: Vec<u8>,
    pub(super) salt: [u8; 32],
    pub(super) input_tokens: u32,
    pub(super) job: JobId,
}

impl Prepared {
    /// Checks and encodes `order`.
    pub fn new(order: ChatOrder) -> Result<Self, ChatError> {
        let request = ChatRequest {
            model: order.model.clone(),
            messages: order.messages.clone(),
            max_tokens: order.max_tokens,
            temperature: order.temperature,
            top_p: order.top_p,
            seed: order.seed,
            stop: order.stop.clone(),
        };
        let input_tokens = request.input_token_bound();
        let request = request.encode()?;
        Ok(Prepared { order, request, salt: clock::random(), input_tokens, job: JobId(clock::random()) })
    }

    fn budget(&self) -> MicroUsd {
        let worst = self.order.ceiling.cost(self.input_tokens, self.order.max_tokens).unwrap_or(MicroUsd(u64::MAX));
        self.order.budget.unwrap_or(worst)
    }

    /// The offer of an auction that starts `now`.
    pub(super) fn offer(&self, now: UnixMillis) -> JobOffer {
        JobOffer {
            id: OfferId(clock::random()),
            issued: now,
            expires: now.after(limits::OFFER_TTL_MS),
            workload: topic::INFERENCE.into(),
            model: self.order.model.clone(),
            abilities: Abilities::default(),
            input_tokens: self.input_tokens,
            output_tokens: self.order.max_tokens,
            ceiling: self.order.ceiling,
            budget: self.budget(),
            deadline: now.after(DEFAULT_DEADLINE_MS),
            window_ms: self.order.window_ms,
            rule: self.order.rule,
            commitment: commitment(&self.salt, &self.request),
        }
    }
}
