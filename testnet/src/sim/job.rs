//! A job as its buyer's node runs it, and what is known of it from above: where it stands, what was said, how it ended.

use super::{JobNo, Who, dice::mix};
use infernet_node::{
    market::{
        affinity::Conversation,
        buyer::Wishes,
        course::{Course, Pauses},
        job::Attempts,
    },
    spend::Draw,
};
use infernet_wire::{
    chat::{ChatMessage, ChatRequest, Role},
    id::{Hash, JobId, OfferId},
    limits,
    money::{MicroUsd, Price},
    offer::{JobOffer, SelectionRule, commitment},
    time::UnixMillis,
    topic,
};
use serde::Serialize;
use std::{rc::Rc, sync::Arc};

/// In every prompt, and nowhere else.
pub const PROMPT_MARK: &str = "qzprompt";
/// In every answer, and nowhere else.
pub const ANSWER_MARK: &str = "qzanswer";
/// How long an answer may take.
const DEADLINE_MS: u64 = 10 * 60_000;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nobody had room; it is tried again after a pause.
    Waiting,
    /// It waits for its turn to hold an auction.
    Queued,
    /// Its auction is open.
    Auction,
    /// A worker was asked.
    Opening,
    /// A worker has it and has said nothing yet.
    Reading,
    /// The answer runs.
    Streaming,
    /// The answer is whole, the receipt is not signed by both.
    Signing,
    /// It is over.
    Ended,
}

impl Phase {
    /// All but the last.
    pub const LIVE: [Phase; 7] =
        [Phase::Waiting, Phase::Queued, Phase::Auction, Phase::Opening, Phase::Reading, Phase::Streaming, Phase::Signing];

    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Queued => "queued",
            Phase::Auction => "auction",
            Phase::Opening => "opening",
            Phase::Reading => "reading",
            Phase::Streaming => "streaming",
            Phase::Signing => "signing",
            Phase::Ended => "ended",
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// With its whole answer, settled.
    Answered,
    /// The engine failed after the first token; what came was settled.
    Partial,
    /// Its caller wanted no more.
    Cancelled,
    /// With an error: its label.
    Failed(&'static str),
    /// Its node died.
    Died,
}

impl End {
    /// A short stable name.
    pub fn label(self) -> &'static str {
        match self {
            End::Answered => "answered",
            End::Partial => "partial",
            End::Cancelled => "cancelled",
            End::Failed(why) => why,
            End::Died => "buyer_died",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Job {
    /// Its number.
    pub no: JobNo,
    /// Whose.
    pub buyer: Who,
    /// Its id.
    pub id: JobId,
    /// What is wanted.
    pub order: Order,
    /// What is tried next.
    pub course: Course,
    /// The pauses that it may make when nobody has room.
    pub pauses: Pauses,
    /// What is reserved for it of its buyer's cap.
    pub draw: Option<Draw>,
    /// What workers were promised that broke off before their first token.
    pub lost: MicroUsd,
    /// Who may be tried.
    pub attempts: Option<Attempts>,
    /// Budget and deadline of the offer that won.
    pub won: Option<(MicroUsd, UnixMillis)>,
    /// Where it stands.
    pub phase: Phase,
    /// The worker that was asked last.
    pub worker: Option<Who>,
    /// Whether its caller wants no more.
    pub cancelled: bool,
    /// What its caller has seen.
    pub answer: String,
    /// When it began, in virtual milliseconds.
    pub began: u64,
    /// When its last auction opened.
    pub auctioned: u64,
    /// Workers that failed it.
    pub retries: u32,
    /// How it ended, and when.
    pub ended: Option<(u64, End)>,
    /// Why its last attempt failed, and whether another could follow.
    pub last_failure: Option<(&'static str, bool)>,
}

/// What a caller wants.
#[derive(Debug, Clone)]
pub struct Order {
    /// The model's name.
    pub model: String,
    /// The request's bytes.
    pub request: Rc<[u8]>,
    /// Hides the request in the offer.
    pub salt: [u8; 32],
    /// The most input tokens.
    pub input_tokens: u32,
    /// The most output tokens.
    pub output_tokens: u32,
    /// The most to pay.
    pub ceiling: Price,
    /// How to choose.
    pub rule: SelectionRule,
    /// How long bids are collected.
    pub window_ms: u16,
    /// How long it may wait for somebody to have room.
    pub wait_ms: u64,
    /// What its buyer's cap leaves for it.
    pub most: MicroUsd,
    /// What nobody is told.
    pub wishes: Arc<Wishes>,
}

impl Order {
    /// An order for `model`. `prompt_bytes` and `numbers` make its prompt and salt.
    pub fn new(model: String, prompt_bytes: usize, output_tokens: u32, ceiling: Price, numbers: [u8; 32]) -> Self {
        let mut prompt = format!("{PROMPT_MARK} {}", hex::encode(numbers));
        prompt.extend(std::iter::repeat_n('x', prompt_bytes.saturating_sub(prompt.len())));
        let request = ChatRequest::new(model.clone(), vec![ChatMessage::new(Role::User, prompt)], output_tokens);
        let input_tokens = request.input_token_bound();
        let request: Rc<[u8]> = request.encode().expect("a small request is within limits").into();
        Order {
            model,
            request,
            salt: numbers,
            input_tokens,
            output_tokens,
            ceiling,
            rule: SelectionRule::BALANCED,
            window_ms: 1_000,
            wait_ms: 0,
            most: MicroUsd(u64::MAX),
            wishes: Arc::default(),
        }
    }

    /// This order, chosen and waited for like `other`.
    #[must_use]
    pub fn like(self, other: &Order) -> Self {
        Order { rule: other.rule, window_ms: other.window_ms, wait_ms: other.wait_ms, wishes: other.wishes.clone(), ..self }
    }

    /// The offer of an auction, or at a standing price, that starts `now`.
    pub fn offer(&self, id: OfferId, now: UnixMillis) -> JobOffer {
        JobOffer {
            id,
            issued: now,
            expires: now.after(limits::OFFER_TTL_MS),
            workload: topic::INFERENCE.into(),
            model: self.model.clone(),
            abilities: Default::default(),
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            ceiling: self.ceiling,
            budget: self.budget(),
            deadline: now.after(DEADLINE_MS),
            window_ms: self.window_ms,
            rule: self.rule,
            commitment: commitment(&self.salt, &self.request),
            invited: Vec::new(),
        }
    }

    /// The most that the job may cost.
    pub fn budget(&self) -> MicroUsd {
        self.ceiling.cost(self.input_tokens, self.output_tokens).unwrap_or(MicroUsd(u64::MAX)).min(self.most)
    }

    /// The conversation that it goes on with.
    pub fn conversation(&self) -> &Conversation {
        &self.wishes.conversation
    }
}

/// What an engine says as token `index` for a job: so that everybody can tell what the whole answer must be.
pub fn token(job: &JobId, worker: Who, index: u32) -> String {
    if index == 0 {
        return format!("{ANSWER_MARK} ");
    }
    let [a, b, ..] = job.0;
    let number = mix(u64::from(u16::from_le_bytes([a, b])) << 40 | u64::from(worker) << 20 | u64::from(index));
    format!("w{:x} ", number & 0xffff)
}

/// The first `tokens` of an engine's answer.
pub fn answer(job: &JobId, worker: Who, tokens: u32) -> String {
    (0..tokens).map(|index| token(job, worker, index)).collect()
}

/// A digest that names turn `turn` of conversation `number` of `buyer`.
pub fn turn_digest(buyer: Who, number: u64, turn: u64) -> Hash {
    infernet_wire::hash::tagged(
        "infernet/simulated-turn/1",
        &[&buyer.to_be_bytes(), &number.to_be_bytes(), &turn.to_be_bytes()],
    )
}
