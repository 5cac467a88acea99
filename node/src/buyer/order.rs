//! What a caller wants done, and its form as an offer.

use super::{conversation::conversation, refused::ChatError};
use crate::{
    clock,
    jobs::Job,
    market::{buyer::Wishes, standing::PathChoice, trust::Trust},
};
use infernet_wire::{
    chat::ChatRequest,
    id::{Hash, JobId, OfferId},
    limits,
    money::{MicroUsd, Price},
    offer::{JobOffer, SelectionRule, commitment},
    time::UnixMillis,
    topic,
};
use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};

/// The bid window asked for when the caller names none. Auctions close earlier as soon as waiting does not pay.
pub const DEFAULT_WINDOW_MS: u16 = 1_000;
/// The most to pay per million tokens when the caller names no price: ten dollars, what the dearest open models cost.
pub const DEFAULT_CEILING: MicroUsd = MicroUsd(10_000_000);
/// How long the whole answer may take when the caller names no deadline.
const DEFAULT_DEADLINE_MS: u64 = 10 * 60_000;

/// Hides what conversations are about from whoever sees this process's memory.
static CONVERSATION_SALT: LazyLock<[u8; 32]> = LazyLock::new(clock::random);

/// What a caller wants done.
#[derive(Debug, Clone)]
pub struct ChatOrder {
    /// What is asked, and of which model: an id or alias.
    pub request: ChatRequest,
    /// The most to pay per million tokens.
    pub ceiling: Price,
    /// The most to pay for the job; the ceiling's worst case if absent.
    pub budget: Option<MicroUsd>,
    /// How to choose.
    pub rule: SelectionRule,
    /// How long to collect bids at most, in milliseconds.
    pub window_ms: u16,
    /// Whether it may be taken at a standing price, or must.
    pub path: PathChoice,
    /// Whose bids count. What the node itself is set to holds in any case.
    pub trust: Trust,
    /// How long to wait, and ask again, when nobody has room now or nobody is there, in milliseconds; 0: not at all.
    pub wait_ms: u64,
    /// What came of it that no receipt says.
    pub lost: Lost,
}

/// What was promised to workers that broke off before their first token, and that they may still ask for: at most what each was paid
/// for the input. It is beside a job's budget, and counts on a day's. Copies are one.
#[derive(Debug, Clone, Default)]
pub struct Lost(Arc<AtomicU64>);

impl Lost {
    /// So much more.
    pub fn add(&self, amount: MicroUsd) {
        // It fails only where the closure does.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lost| Some(lost.saturating_add(amount.0)));
    }

    /// All of it.
    pub fn amount(&self) -> MicroUsd {
        MicroUsd(self.0.load(Ordering::Relaxed))
    }
}

impl ChatOrder {
    /// `request` at the default ceiling, balanced between price and time.
    pub fn new(request: ChatRequest) -> Self {
        ChatOrder {
            request,
            ceiling: Price { input: DEFAULT_CEILING, output: DEFAULT_CEILING },
            budget: None,
            rule: SelectionRule::BALANCED,
            window_ms: DEFAULT_WINDOW_MS,
            path: PathChoice::Auto,
            trust: Trust::default(),
            wait_ms: 0,
            lost: Lost::default(),
        }
    }
}

impl ChatOrder {
    /// The most that the job may cost: its budget, or what its tokens can cost at the ceiling.
    pub fn worst(&self) -> MicroUsd {
        let at_ceiling = || self.ceiling.cost(self.request.input_token_bound(), self.request.max_tokens);
        self.budget.or_else(at_ceiling).unwrap_or(MicroUsd(u64::MAX))
    }
}

/// A request ready to be offered: its bytes, and the salt that hides it in the offer.
#[derive(Clone)]
pub struct Prepared {
    pub(super) order: ChatOrder,
    pub(super) request: Vec<u8>,
    pub(super) salt: [u8; 32],
    pub(super) input_tokens: u32,
    pub(super) job: JobId,
    pub(super) wishes: Arc<Wishes>,
    /// Where its steps are shown, if anywhere.
    pub(super) shown: Option<Arc<Job>>,
    commitment: Hash,
}

impl Prepared {
    /// Checks and encodes `order`.
    pub fn new(order: ChatOrder) -> Result<Self, ChatError> {
        let input_tokens = order.request.input_token_bound();
        let request = order.request.encode()?;
        let (salt, job) = (clock::random(), JobId(clock::random()));
        let conversation = conversation(&CONVERSATION_SALT, &order.request);
        let wishes = Arc::new(Wishes { trust: order.trust.clone(), path: order.path, conversation });
        Ok(Prepared { commitment: commitment(&salt, &request), order, request, salt, input_tokens, job, wishes, shown: None })
    }

    fn budget(&self) -> MicroUsd {
        let worst = self.order.ceiling.cost(self.input_tokens, self.order.request.max_tokens).unwrap_or(MicroUsd(u64::MAX));
        self.order.budget.unwrap_or(worst)
    }

    /// The offer of an auction that starts `now`.
    pub(crate) fn offer(&self, now: UnixMillis) -> JobOffer {
        JobOffer {
            id: OfferId(clock::random()),
            issued: now,
            expires: now.after(limits::OFFER_TTL_MS),
            workload: topic::INFERENCE.into(),
            model: self.order.request.model.clone(),
            abilities: self.order.request.abilities(),
            input_tokens: self.input_tokens,
            output_tokens: self.order.request.max_tokens,
            ceiling: self.order.ceiling,
            budget: self.budget(),
            deadline: now.after(DEFAULT_DEADLINE_MS),
            window_ms: self.order.window_ms,
            rule: self.order.rule,
            commitment: self.commitment,
            invited: Vec::new(),
        }
    }
}
