//! `JobAccept`: the buyer names the winner. The first frame of the stream to the winner; published once the winner has opened.

use crate::{
    envelope::{Kind, Message, Refusal, field},
    evm::amount,
    id::{Hash, JobId, NodeId},
    limits,
    money::Price,
    settle,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// An accept. A retry is a new one, attempt n + 1, to a runner-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAccept {
    /// Digest of the offer.
    pub offer: Hash,
    /// Digest of the winner's bid.
    pub bid: Hash,
    /// The winner.
    pub winner: NodeId,
    /// The model, by the winner's id.
    pub model: String,
    /// The agreed price: the bid's.
    pub price: Price,
    /// The job.
    pub job: JobId,
    /// 1 for the first worker tried, 2 for the next.
    pub attempt: u8,
    /// Who takes over, in order, if the winner fails before its first token. Their holds last.
    pub runners_up: Vec<NodeId>,
    /// [`crate::bid::bids_commitment`] to all bids considered.
    pub bids: Hash,
    /// The winner's score: what the job was expected to cost the buyer, in micro-USD, time included. Losers compare theirs.
    pub score: u64,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it can no longer be used.
    pub expires: UnixMillis,
    /// What a micro-USD is in the unit of the channel that the job is paid on, see [`EvmTerms::rate`](settle::EvmTerms::rate). Not
    /// said if it is 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rate: Option<Rate>,
}

impl JobAccept {
    /// Units of the channel for a micro-USD.
    pub fn units_per_micro_usd(&self) -> u128 {
        self.rate.map_or(1, |rate| rate.0)
    }
}

/// [`JobAccept::rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(#[serde(with = "amount")] pub u128);

impl Message for JobAccept {
    const KIND: Kind = Kind::JobAccept;
    const MAX_BYTES: usize = limits::MAX_ACCEPT_BYTES;
    const MAX_TTL_MS: u64 = limits::ACCEPT_TTL_MS;

    fn issued(&self) -> UnixMillis {
        self.issued
    }

    fn expires(&self) -> UnixMillis {
        self.expires
    }

    fn check(&self) -> Result<(), Refusal> {
        field::name(&self.model, "model")?;
        field::ensure(self.attempt > 0, "attempt")?;
        field::ensure(self.rate.is_none_or(|rate| settle::check_rate(rate.0)), "rate")?;
        field::ensure(self.runners_up.len() <= limits::MAX_RUNNERS_UP, "runners_up")
    }
}
