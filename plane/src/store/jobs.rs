//! Jobs of web clients. What streams is not here: it is in the memory of the instance that runs the job.

use super::{Answer, ClientId, Pubkey};
use infernet_node::date::DAY_MS;
use infernet_wire::{
    id::{Hash, NodeId},
    money::MicroUsd,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// A job's name: `job_` and 32 hexadecimal digits, which nobody can guess.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WebJobId(pub String);

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// It is being auctioned, or waits for its turn.
    Pending,
    /// A worker has it and has said nothing yet.
    Assigned,
    /// The answer streams.
    Running,
    /// The answer is whole.
    Completed,
    /// It ended with an error.
    Failed,
    /// Its client wanted no more.
    Cancelled,
}

/// A job that is not over is in one of these.
pub const UNDER_WAY: [JobStatus; 3] = [JobStatus::Pending, JobStatus::Assigned, JobStatus::Running];

impl JobStatus {
    /// Whether it stays as it is.
    pub fn is_over(self) -> bool {
        matches!(self, JobStatus::Completed | JobStatus::Failed | JobStatus::Cancelled)
    }
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// A short stable name, such as `no_capacity`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// By which a client may ask twice for one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The client's key.
    pub key: String,
    /// SHA-256 of the request: another request under the same key is a mistake.
    pub request: Hash,
}

/// What a client asked to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredText {
    /// The request as JSON.
    pub request: String,
    /// The answer so far.
    pub answer: String,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its name.
    pub id: WebJobId,
    /// Whose.
    pub client: ClientId,
    /// The model asked for.
    pub model: String,
    /// How far it is.
    pub status: JobStatus,
    /// When it came.
    pub created: UnixMillis,
    /// When it was last changed.
    pub updated: UnixMillis,
    /// When its answer began.
    pub started: Option<UnixMillis>,
    /// When it ended.
    pub ended: Option<UnixMillis>,
    /// Who serves it.
    pub worker: Option<NodeId>,
    /// Or which daemon behind the legacy bridge does.
    pub legacy: Option<Pubkey>,
    /// The input's tokens.
    pub input_tokens: Option<u32>,
    /// The answer's tokens.
    pub output_tokens: Option<u32>,
    /// The most it may cost, as its client wished; where the balance or a key's day left less, less is reserved.
    pub budget: MicroUsd,
    /// What it has cost; while it runs, by now.
    pub cost: Option<MicroUsd>,
    /// Milliseconds from coming to the first token.
    pub ttft_ms: Option<u64>,
    /// Digest of the receipt that both have signed.
    pub receipt: Option<Hash>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// By which it may be asked for again.
    pub idempotency: Option<Idempotency>,
    /// What its client asked to be kept. Changed by [`Jobs::put_text`] and [`Jobs::end_job`] alone, read by [`Jobs::job`] alone:
    /// it may be megabytes.
    pub text: Option<StoredText>,
    /// Which instance runs it, and until when it is believed to.
    pub lease: Option<(String, UnixMillis)>,
}

/// What became of a new job.
#[derive(Debug, Clone, PartialEq)]
pub enum Inserted {
    /// It is there.
    New,
    /// The same request came before under the same idempotency key: this is its job.
    Same(Box<JobRow>),
    /// Another request came under this key.
    Conflict,
}

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobQuery {
    /// Of one client.
    pub client: Option<ClientId>,
    /// In one status.
    pub status: Option<JobStatus>,
    /// For one model.
    pub model: Option<String>,
    /// Given to this daemon behind the legacy bridge.
    pub legacy: Option<Pubkey>,
    /// That came since.
    pub since: Option<UnixMillis>,
    /// Older than this one, for the next page.
    pub before: Option<(UnixMillis, WebJobId)>,
    /// At most so many.
    pub limit: usize,
}

/// What an instance knows of a job that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Which.
    pub id: WebJobId,
    /// The answer's tokens by now; `None` leaves what is noted.
    pub output_tokens: Option<u32>,
    /// What it has cost by now; `None` leaves what is noted.
    pub cost: Option<MicroUsd>,
}

/// How long a job is remembered: what an account's statements of a quarter speak of.
pub const KEPT_MS: u64 = 90 * DAY_MS;

/// Jobs by name.
pub trait Jobs: Send + Sync {
    /// Inserts a job, unless its idempotency key has one already.
    fn insert_job<'a>(&'a self, row: &'a JobRow) -> Answer<'a, Inserted>;

    /// Replaces a job that is in one of the statuses `from`, but for its text. Whether it was.
    fn update_job<'a>(&'a self, from: &'a [JobStatus], row: &'a JobRow) -> Answer<'a, bool>;

    /// Ends a job that is not over, in one step: its reservation becomes what `row` says that it cost, at most what was
    /// reserved, and `row` is written with that. With `stranded` only if its lease is over by then. What it was charged; `None`
    /// if it did not end by this, and nothing was changed.
    fn end_job<'a>(&'a self, row: &'a JobRow, stranded: Option<UnixMillis>) -> Answer<'a, Option<MicroUsd>>;

    /// Makes the leases of jobs that `instance` runs last until `until`. Those of them that it shall stop: they are not its any
    /// more, or somebody wants them cancelled.
    fn renew_jobs<'a>(&'a self, instance: &'a str, jobs: &'a [Renewal], until: UnixMillis) -> Answer<'a, Vec<WebJobId>>;

    /// Keeps the text of a job that is not over, in the place of what was kept. Whether it is not over.
    fn put_text<'a>(&'a self, id: &'a WebJobId, text: &'a StoredText) -> Answer<'a, bool>;

    /// Somebody wants a job cancelled, whichever instance runs it: that is told at the next renewal. Whether it is not over.
    fn want_cancel<'a>(&'a self, id: &'a WebJobId) -> Answer<'a, bool>;

    /// Forgets some of the jobs that came before `before` and are over; how many.
    fn forget_jobs(&self, before: UnixMillis) -> Answer<'_, usize>;

    /// A job.
    fn job<'a>(&'a self, id: &'a WebJobId) -> Answer<'a, Option<JobRow>>;

    /// Jobs, the newest first, without their texts. A store may look at so many rows only and return fewer than there are, if
    /// what is asked for is rare.
    fn jobs<'a>(&'a self, query: &'a JobQuery) -> Answer<'a, Vec<JobRow>>;

    /// Jobs, without their texts, that are not over and whose instance's lease ended before `now`.
    fn stranded(&self, now: UnixMillis, limit: usize) -> Answer<'_, Vec<JobRow>>;
}
