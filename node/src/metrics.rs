//! What a node can be watched by: `GET /metrics`, in the form that Prometheus reads.
//!
//! **Where numbers come from.** What the market, the mesh and the chat streams count anyway is read from them at the scrape and
//! gets its family in `counted`. What only shows while it happens (how long, how many, how much) is told to [`Metrics`], a
//! handle that may be cloned and given to whoever has something to tell. What is so now (peers, slots, receipts, memory) is
//! looked up by `scrape`, which also has the route.
//!
//! **Names** that begin with `gen_ai_` are those of OpenTelemetry's semantic conventions for generative AI, with its labels
//! and buckets, so that dashboards people have fit; ours begin with `infernet_`. `server` is this node as a worker, `client`
//! as a buyer.
//!
//! **Bounds.** Labels are words from the code. Only models have names from outside: one becomes a label when a worker has
//! served it, up to a number (`series`); all others are `other`. No other node, no job and no key is ever a label.
//!
//! Nothing here decides anything, and nobody waits for it: a token costs one atomic addition.

mod counted;
mod family;
mod process;
mod scrape;
mod series;
mod text;

pub use family::{Family, Histogram, Sample};
pub use scrape::{ScrapeError, answer, route, text};
pub use text::{CONTENT_TYPE, encode};

use family::{Labels, Value};
use infernet_wire::money::MicroUsd;
use series::{Counter, Counts, Histograms, Models, Recorded};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// OpenTelemetry's label of the model.
const MODEL: &str = "gen_ai_request_model";
/// OpenTelemetry's label of what was asked for: `chat` or `embeddings`.
const OPERATION: &str = "gen_ai_operation_name";
/// OpenTelemetry's label of who provides it, which it requires.
const PROVIDER: (&str, &str) = ("gen_ai_provider_name", "infernet");

/// Buckets of whole operations, as OpenTelemetry sets them.
const OPERATION_SECONDS: &[f64] = &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// Buckets of the time to the first token, as OpenTelemetry sets them.
const FIRST_TOKEN_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Buckets of the time per output token, as OpenTelemetry sets them.
const PER_TOKEN_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// Buckets of token counts, as OpenTelemetry sets them.
const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// An auction should take 10 ms on a fast network and 250 ms around the world; its window ends it after two seconds.
const AUCTION_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0];
/// At most 32 workers answer an offer.
const BIDS: &[f64] = &[0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

/// Fields with their families: the comment is the help that a scrape tells.
macro_rules! recorded {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident = $new:expr, $name:literal;)+) => {
        #[derive(Debug)]
        struct Fields { models: Models, $($(#[doc = $help])+ $field: $kind,)+ }

        impl Fields {
            fn new() -> Self {
                Fields { models: Models::default(), $($field: $new,)+ }
            }

            fn families(&self) -> Vec<Family> {
                vec![$(Family {
                    name: $name,
                    help: concat!($($help),+).trim_ascii(),
                    kind: $kind::KIND,
                    samples: self.$field.samples(),
                },)+]
            }
        }
    };
}

recorded! {
    /// Worker: from asking the engine to its first token, in seconds.
    first_token: Histograms = Histograms::new(FIRST_TOKEN_SECONDS), "gen_ai_server_time_to_first_token_seconds";
    /// Worker: time between the engine's tokens after the first, the mean of each job, in seconds.
    per_token: Histograms = Histograms::new(PER_TOKEN_SECONDS), "gen_ai_server_time_per_output_token_seconds";
    /// Worker: from asking the engine to its last token, in seconds.
    served: Histograms = Histograms::new(OPERATION_SECONDS), "gen_ai_server_request_duration_seconds";
    /// Buyer: tokens charged for a job, input and output.
    usage: Histograms = Histograms::new(TOKENS), "gen_ai_client_token_usage";
    /// Buyer: from the wish to the countersigned receipt, auctions and retries included, in seconds.
    operation: Histograms = Histograms::new(OPERATION_SECONDS), "gen_ai_client_operation_duration_seconds";
    /// Worker: output tokens passed on to buyers, counted as they stream.
    tokens_sold: Counter = Counter::default(), "infernet_tokens_sold";
    /// Buyer: output tokens received, counted as they stream.
    tokens_bought: Counter = Counter::default(), "infernet_tokens_bought";
    /// Worker: what receipts say that buyers owe, in micro-USD, by whether the buyer signed too.
    earned: Counts = Counts::default(), "infernet_earned_micro_usd";
    /// Buyer: what countersigned receipts say that this node owes, in micro-USD.
    spent: Counter = Counter::default(), "infernet_spent_micro_usd";
    /// Buyer: jobs begun.
    jobs_started: Counter = Counter::default(), "infernet_jobs_bought_started";
    /// Buyer: jobs over, by outcome: how the answer ended, or why there is none.
    jobs_ended: Counts = Counts::default(), "infernet_jobs_bought_ended";
    /// Buyer: workers that failed before their first token and were replaced, by cause.
    retries: Counts = Counts::default(), "infernet_retries";
    /// Buyer: auctions begun.
    auctions_started: Counter = Counter::default(), "infernet_auctions_started";
    /// Buyer: auctions over, by why they closed when they did.
    auctions_closed: Counts = Counts::default(), "infernet_auctions_closed";
    /// Buyer: from signing the offer to the decision, in seconds.
    auction_seconds: Histograms = Histograms::new(AUCTION_SECONDS), "infernet_auction_duration_seconds";
    /// Buyer: bids in an auction.
    auction_bids: Histograms = Histograms::new(BIDS), "infernet_auction_bids";
    /// Buyer: bids and refusals of workers that did not count in their auction, by reason.
    answers_refused: Counts = Counts::default(), "infernet_answers_refused";
    /// Buyer: jobs that asked a worker at its standing price, without an auction, by outcome.
    standing: Counts = Counts::default(), "infernet_standing_attempts";
    /// Buyer: jobs that took no standing price, by why not.
    not_standing: Counts = Counts::default(), "infernet_standing_passed_over";
    /// Buyer: streams that opened, by how they go.
    paths: Counts = Counts::default(), "infernet_stream_paths";
    /// Buyer: lost streams whose jobs went on in another, by how that goes.
    resumed: Counts = Counts::default(), "infernet_stream_resumed";
    /// Requests to this node's API, by route and status. A stream counts when it begins.
    api: Counts = Counts::default(), "infernet_api_requests";
    /// What was left out because its queue was full and nothing is lost by it but an observation or an idle connection.
    left_out: Counts = Counts::default(), "infernet_left_out";
}

/// Takes note of what happens. Cheap to clone; all clones write into the same numbers.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Fields>);

impl Default for Metrics {
    fn default() -> Self {
        Metrics(Arc::new(Fields::new()))
    }
}

/// A job that this node served, as its engine did it.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// The model, by this worker's id.
    pub model: &'a str,
    /// Whether vectors were asked for.
    pub embeds: bool,
    /// From asking to the first token; `None` if none came.
    pub first_token: Option<Duration>,
    /// Between two tokens after the first; `None` if there were too few.
    pub per_token: Option<Duration>,
    /// From asking to the end.
    pub took: Duration,
    /// Why it has no whole answer.
    pub error: Option<&'static str>,
}

/// A job that this node bought, once it is over.
#[derive(Debug, Clone)]
pub struct Bought {
    /// How the answer ended, or why there is none.
    pub outcome: Cow<'static, str>,
    /// Tokens charged, if a worker served it: input and output.
    pub tokens: Option<(u32, u32)>,
    /// What the receipt says.
    pub amount: MicroUsd,
    /// Whether there is no whole answer.
    pub failed: bool,
}

impl Metrics {
    /// A job was served, or its engine failed.
    pub fn served(&self, job: Served<'_>) {
        let fields = &*self.0;
        let labels = || labels(fields.models.label(job.model, true), job.embeds);
        let observe = |family: &Histograms, value: Option<Duration>| {
            if let Some(value) = value {
                family.observe(labels(), value.as_secs_f64());
            }
        };
        observe(&fields.first_token, job.first_token);
        observe(&fields.per_token, job.per_token);
        fields.served.observe(with_error(labels(), job.error.map(Cow::Borrowed)), job.took.as_secs_f64());
    }

    /// A receipt for a job that this node served is kept.
    pub fn earned(&self, amount: MicroUsd, is_acknowledged: bool) {
        let state = if is_acknowledged { "acknowledged" } else { "unacknowledged" };
        self.0.earned.add([("state", state.into())], amount.0);
    }

    /// Output tokens were passed on. On the way of every token: one atomic addition.
    pub fn sold_tokens(&self, tokens: u32) {
        self.0.tokens_sold.add(tokens.into());
    }

    /// Output tokens came in. As [`Metrics::sold_tokens`].
    pub fn bought_tokens(&self, tokens: u32) {
        self.0.tokens_bought.add(tokens.into());
    }

    /// A job begins. Dropping what is returned before its end counts it as `dropped`.
    pub fn buying(&self, model: &str, embeds: bool, now: Instant) -> Buying {
        self.0.jobs_started.add(1);
        Buying { metrics: self.clone(), model: model.to_owned(), embeds, started: now, is_over: false }
    }

    /// A worker failed before its first token.
    pub fn retried(&self, cause: &'static str) {
        self.0.retries.add([("cause", cause.into())], 1);
    }

    /// An offer is signed.
    pub fn auction_started(&self) {
        self.0.auctions_started.add(1);
    }

    /// Its auction is over.
    pub fn auction_closed(&self, reason: &'static str, bids: usize, took: Duration) {
        self.0.auctions_closed.add([("reason", reason.into())], 1);
        self.0.auction_seconds.observe(Labels::new(), took.as_secs_f64());
        self.0.auction_bids.observe(Labels::new(), u32::try_from(bids).unwrap_or(u32::MAX).into());
    }

    /// A worker's answer did not count in its auction.
    pub fn answer_refused(&self, reason: &'static str) {
        self.0.answers_refused.add([("reason", reason.into())], 1);
    }

    /// A worker was asked at its standing price.
    pub fn standing(&self, outcome: &'static str) {
        self.0.standing.add([("outcome", outcome.into())], 1);
    }

    /// No standing price was taken.
    pub fn not_standing(&self, reason: &'static str) {
        self.0.not_standing.add([("reason", reason.into())], 1);
    }

    /// A stream opened.
    pub fn opened(&self, path: &'static str) {
        self.0.paths.add([("path", path.into())], 1);
    }

    /// A job goes on in another stream.
    pub fn resumed(&self, path: &'static str) {
        self.0.resumed.add([("path", path.into())], 1);
    }

    /// The API answered.
    pub fn answered(&self, route: &'static str, status: u16) {
        self.0.api.add([("route", route.into()), ("status", status.to_string().into())], 1);
    }

    /// Answers of the API so far, as `api.ROUTE.STATUS`.
    pub fn answers(&self) -> BTreeMap<String, u64> {
        let name = |labels: &Labels| labels.iter().fold("api".to_owned(), |name, (_, value)| format!("{name}.{value}"));
        let whole = |value| if let Value::Whole(n) = value { n } else { 0 };
        self.0.api.samples().into_iter().map(|sample| (name(&sample.labels), whole(sample.value))).collect()
    }

    /// Something was left out because `queue` was full, and nobody misses it.
    pub fn left_out(&self, queue: &'static str) {
        self.0.left_out.add([("queue", queue.into())], 1);
    }

    fn families(&self) -> Vec<Family> {
        self.0.families()
    }
}

/// A job that is being bought.
#[derive(Debug)]
pub struct Buying {
    metrics: Metrics,
    model: String,
    embeds: bool,
    started: Instant,
    is_over: bool,
}

impl Buying {
    /// The job is over.
    pub fn ended(mut self, job: Bought, now: Instant) {
        self.is_over = true;
        let fields = &*self.metrics.0;
        // Only a name that a worker has answered to is known to mean something.
        let labels = labels(fields.models.label(&self.model, job.tokens.is_some()), self.embeds);
        for (kind, tokens) in job.tokens.into_iter().flat_map(|(input, output)| [("input", input), ("output", output)]) {
            let mut labels = labels.clone();
            labels.push(("gen_ai_token_type", kind.into()));
            fields.usage.observe(labels, tokens.into());
        }
        let error = job.failed.then(|| job.outcome.clone());
        fields.operation.observe(with_error(labels, error), now.saturating_duration_since(self.started).as_secs_f64());
        fields.jobs_ended.add([("outcome", job.outcome)], 1);
        fields.spent.add(job.amount.0);
    }
}

impl Drop for Buying {
    fn drop(&mut self) {
        if !self.is_over {
            self.metrics.0.jobs_ended.add([("outcome", "dropped".into())], 1);
        }
    }
}

fn labels(model: Cow<'static, str>, embeds: bool) -> Labels {
    let (provider, infernet) = PROVIDER;
    let operation = if embeds { "embeddings" } else { "chat" };
    vec![(OPERATION, operation.into()), (provider, infernet.into()), (MODEL, model)]
}

fn with_error(mut labels: Labels, error: Option<Cow<'static, str>>) -> Labels {
    labels.extend(error.map(|error| ("error_type", error)));
    labels
}
