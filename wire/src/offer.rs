//! `JobOffer`: a buyer asks the workers of a topic for bids. It never holds the prompt, only a salted commitment to it.

use crate::{
    capability::Abilities,
    envelope::{Kind, Message, Refusal, field},
    hash,
    id::{Hash, NodeId, OfferId},
    limits,
    money::{MicroUsd, Price},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// How the buyer will choose among bids. An open number: a worker need not know the rule to bid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SelectionRule(pub u8);

impl SelectionRule {
    /// Money first, and a price on waiting: see the node's `market::rank`.
    pub const BALANCED: Self = SelectionRule(0);
    /// The lowest price; time only breaks ties.
    pub const CHEAPEST: Self = SelectionRule(1);
    /// The earliest answer; price only breaks ties.
    pub const FASTEST: Self = SelectionRule(2);
}

/// An offer on the topic of its workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOffer {
    /// Chosen at random.
    pub id: OfferId,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it is gone.
    pub expires: UnixMillis,
    /// The workload, as in the topic.
    pub workload: String,
    /// The model asked for: an id or alias.
    pub model: String,
    /// What the model must be able to do.
    pub abilities: Abilities,
    /// An upper bound of the input's tokens, as [`crate::chat::ChatRequest::input_token_bound`] counts it.
    pub input_tokens: u32,
    /// The most output tokens wanted.
    pub output_tokens: u32,
    /// The most the buyer pays per million tokens.
    pub ceiling: Price,
    /// The most the buyer pays for the job.
    pub budget: MicroUsd,
    /// When the answer must be complete.
    pub deadline: UnixMillis,
    /// How long bids are collected at most, in milliseconds.
    pub window_ms: u16,
    /// How the winner is chosen.
    pub rule: SelectionRule,
    /// [`commitment`] to the request.
    pub commitment: Hash,
    /// [`Invitation`]s of workers that the buyer wants to hear, at most [`limits::MAX_INVITED`]. They answer whatever lot they
    /// drew; the fewer they are, the more draw theirs.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub invited: Vec<Invitation>,
}

/// A worker's name in one offer. Short: two workers of a network of a million share one once in two hundred offers, and then
/// one more answers. It is another in each offer, so that nobody sees at a glance whom a buyer prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Invitation(pub u32);

impl Invitation {
    /// The name of `worker` in the offer `offer`.
    pub fn of(offer: &OfferId, worker: &NodeId) -> Self {
        let digest = hash::tagged("infernet/invitation/1", &[offer.as_ref(), worker.as_ref()]);
        Invitation(digest.0.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes)))
    }
}

impl Message for JobOffer {
    const KIND: Kind = Kind::JobOffer;
    const MAX_BYTES: usize = limits::MAX_OFFER_BYTES;
    const MAX_TTL_MS: u64 = limits::OFFER_TTL_MS;

    fn issued(&self) -> UnixMillis {
        self.issued
    }

    fn expires(&self) -> UnixMillis {
        self.expires
    }

    fn check(&self) -> Result<(), Refusal> {
        field::name(&self.workload, "workload")?;
        field::name(&self.model, "model")?;
        field::ensure(self.invited.len() <= limits::MAX_INVITED, "invited")?;
        field::ensure(self.output_tokens <= limits::MAX_OUTPUT_TOKENS, "output_tokens")?;
        field::ensure(u64::from(self.window_ms) <= limits::MAX_BID_WINDOW_MS, "window_ms")
    }
}

impl JobOffer {
    /// Whether `worker` is invited.
    pub fn invites(&self, worker: &NodeId) -> bool {
        !self.invited.is_empty() && self.invited.contains(&Invitation::of(&self.id, worker))
    }

    /// When the last bid counts.
    pub fn window_end(&self) -> UnixMillis {
        self.issued.after(self.window_ms.into())
    }
}

/// Commits to a request without telling anything about it: nobody can guess a short prompt from it, for want of the salt,
/// which travels with the request itself.
pub fn commitment(salt: &[u8; 32], request: &[u8]) -> Hash {
    hash::tagged("infernet/request-commitment/1", &[salt, request])
}
