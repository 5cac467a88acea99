//! What people and scripts are told of a job: the schema of `--json` and of the control socket. Internal types are copied into
//! these, never serialised themselves.

use crate::{
    chat::client::Completed,
    market::{auction::Won, rank, standing::Choice},
};
use infernet_wire::{
    bid::NoBidReason,
    chat::ToolCall,
    id::{JobId, NodeId, OfferId, Signature},
    money::MicroUsd,
    receipt::SignedReceipt,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An auction that had a winner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuctionReport {
    /// The offer.
    #[schemars(with = "String")]
    pub offer_id: OfferId,
    /// The bids, best first.
    pub bids: Vec<BidReport>,
    /// Who refused, and why.
    pub no_bids: Vec<NoBidReport>,
    /// Who won.
    #[schemars(with = "String")]
    pub winner: NodeId,
    /// Why, in a sentence.
    pub reason: String,
    /// Why it closed when it did.
    pub closed: String,
    /// From the signed offer to the decision, in milliseconds.
    pub elapsed_ms: f64,
    /// Whether no auction was held: the one bid is the worker's ad, accepted as it stands.
    #[serde(default)]
    pub standing: bool,
}

/// A bid as the buyer judged it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BidReport {
    /// Who.
    #[schemars(with = "String")]
    pub worker: NodeId,
    /// Micro-USD per million input tokens.
    pub price_in: u64,
    /// Micro-USD per million output tokens.
    pub price_out: u64,
    /// Expected cost, time included, in micro-USD; the lowest wins.
    pub score: u64,
    /// Expected time to the last token, in milliseconds; absent while neither the worker nor we have measured its speed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected_ms: Option<u64>,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NoBidReport {
    /// Who.
    #[schemars(with = "String")]
    pub worker: NodeId,
    /// Why.
    pub reason: String,
}

/// How the answer came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StreamReport {
    /// How the stream came, at last: `direct quic ADDRESS` or `direct libp2p ADDRESS`, `punched …`, `relayed by ID`.
    pub path: String,
    /// From `Open` to the first token, in milliseconds; absent if there was none.
    pub ttft_ms: Option<f64>,
    /// Output tokens charged.
    pub tokens: u32,
    /// From `Open` to the last token, in milliseconds.
    pub duration_ms: f64,
    /// `stop`, `length`, `cancelled` or `error`.
    pub finish: String,
    /// Workers that failed before the first token and were replaced.
    pub retries: u32,
    /// How often the stream was lost and the job went on in another.
    pub resumed: u32,
}

/// A receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptReport {
    /// The job.
    #[schemars(with = "String")]
    pub job_id: JobId,
    /// Who worked.
    #[schemars(with = "String")]
    pub worker: NodeId,
    /// Who asked.
    #[schemars(with = "String")]
    pub buyer: NodeId,
    /// The model, by the worker's id.
    pub model: String,
    /// Input tokens charged.
    pub input_tokens: u32,
    /// Output tokens charged.
    pub output_tokens: u32,
    /// The charge.
    pub amount_micro_usd: u64,
    /// `completed`, `cancelled` or `failed`.
    pub status: String,
    /// When the last token left, in unix milliseconds.
    pub finished: u64,
    /// The worker's signature.
    #[schemars(with = "String")]
    pub worker_signature: Signature,
    /// The buyer's; absent while the receipt is unacknowledged.
    #[schemars(with = "Option<String>")]
    pub buyer_signature: Option<Signature>,
    /// Whether every signature that is there verifies, and both are.
    pub verified: bool,
}

/// A finished job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatReport {
    /// The answer.
    pub answer: String,
    /// The model's reasoning, if it told any.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub reasoning: String,
    /// The tools it called.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    #[schemars(with = "Vec<serde_json::Value>")]
    pub tool_calls: Vec<ToolCall>,
    /// The model, by the worker's id.
    pub model: String,
    /// The auction.
    pub auction: AuctionReport,
    /// The stream.
    pub stream: StreamReport,
    /// The receipt; absent if the job ended free of charge.
    pub receipt: Option<ReceiptReport>,
}

/// Milliseconds with three decimals.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl AuctionReport {
    /// Describes `won`, which took `elapsed`.
    pub fn new(won: &Won, elapsed: Duration) -> Self {
        let no_bid = |(worker, reason): &(NodeId, NoBidReason)| NoBidReport { worker: *worker, reason: reason.to_string() };
        AuctionReport {
            offer_id: won.offer.id,
            bids: won.ranking.iter().filter_map(|scored| BidReport::new(won, scored)).collect(),
            no_bids: won.no_bids.iter().map(no_bid).collect(),
            // A won auction has a winner; were its ranking empty, the buyer would be on its own.
            winner: won.ranking.first().map_or(won.offer.signer(), |best| best.worker),
            reason: rank::explain(&won.ranking),
            closed: won.reason.label().into(),
            elapsed_ms: millis(elapsed),
            standing: false,
        }
    }

    /// Describes the ad that was chosen without an auction, for the offer `offer_id`.
    pub fn standing(choice: &Choice, offer_id: OfferId, elapsed: Duration) -> Self {
        let (cost, time) = (choice.expected_cost, rank::shown(choice.expected_ms));
        let why = if choice.warm { "it has read this conversation" } else { "no known worker advertises better" };
        AuctionReport {
            offer_id,
            bids: vec![BidReport {
                worker: choice.worker,
                price_in: choice.price.input.0,
                price_out: choice.price.output.0,
                score: choice.score,
                expected_ms: choice.expected_ms,
            }],
            no_bids: Vec::new(),
            winner: choice.worker,
            reason: format!("its standing price, without an auction: {why}; {cost} expected, {time}"),
            closed: "standing".into(),
            elapsed_ms: millis(elapsed),
            standing: true,
        }
    }
}

impl BidReport {
    fn new(won: &Won, scored: &rank::Scored) -> Option<Self> {
        let bid = won.bids.get(&scored.worker)?;
        Some(BidReport {
            worker: scored.worker,
            price_in: bid.price.input.0,
            price_out: bid.price.output.0,
            score: scored.score,
            expected_ms: scored.expected_ms,
        })
    }
}

impl StreamReport {
    /// Describes how `completed` came.
    pub fn new(completed: &Completed, retries: u32) -> Self {
        StreamReport {
            path: completed.path.to_string(),
            ttft_ms: completed.ttft.map(millis),
            tokens: completed.usage.output_tokens,
            duration_ms: millis(completed.duration),
            finish: completed.usage.finish.label().into(),
            retries,
            resumed: completed.resumed,
        }
    }
}

impl From<&SignedReceipt> for ReceiptReport {
    /// `verified` needs no further check: a [`SignedReceipt`] holds verified signatures or none.
    fn from(signed: &SignedReceipt) -> Self {
        let receipt = signed.receipt();
        ReceiptReport {
            job_id: receipt.job,
            worker: receipt.worker,
            buyer: receipt.buyer,
            model: receipt.model.clone(),
            input_tokens: receipt.input_tokens,
            output_tokens: receipt.output_tokens,
            amount_micro_usd: receipt.amount.0,
            status: receipt.status.to_string(),
            finished: receipt.finished.0,
            worker_signature: receipt.signature(),
            buyer_signature: signed.countersign().map(|c| c.signature()),
            verified: signed.countersign().is_some(),
        }
    }
}

impl ReceiptReport {
    /// The charge as money.
    pub fn amount(&self) -> MicroUsd {
        MicroUsd(self.amount_micro_usd)
    }
}
