//! Clients: who they are, how they show it, and what they may spend.

use super::{Answer, JobRow, WebJobId};
use infernet_node::date::DAY_MS;
use infernet_wire::{id::Hash, money::MicroUsd, time::UnixMillis};
use serde::{Deserialize, Serialize};

/// A client's name: `cl_` and 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub String);

/// A client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRow {
    /// Its name.
    pub id: ClientId,
    /// For people.
    pub name: String,
    /// When it came.
    pub created: UnixMillis,
    /// What it has left, reservations not taken off.
    pub balance: MicroUsd,
    /// What is reserved for jobs that run.
    pub reserved: MicroUsd,
    /// Whether it runs the plane.
    pub admin: bool,
}

/// By what a client signs in: a passkey, a wallet, a node's or an operator's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// `passkey`, `evm`, `solana`, `node` or `operator`.
    pub kind: String,
    /// Its public half, or a passkey's credential id, in hexadecimal.
    pub subject: String,
    /// What else is needed to check it, as JSON: a passkey's public key and counter.
    pub data: String,
    /// Whose.
    pub client: ClientId,
    /// What the client calls it.
    pub label: String,
    /// When it was added.
    pub added: UnixMillis,
}

/// An API key. The key itself is shown once and kept by nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// SHA-256 of the key.
    pub hash: Hash,
    /// A short name to speak of it: its first characters.
    pub prefix: String,
    /// Whose.
    pub client: ClientId,
    /// What the client calls it.
    pub name: String,
    /// What it may do: `jobs`, `read`, `manage`.
    pub scopes: Vec<String>,
    /// The most that it may spend a day.
    pub per_day: Option<MicroUsd>,
    /// Requests a minute.
    pub per_minute: u32,
    /// When it was made.
    pub created: UnixMillis,
    /// When it is no longer good; `None`: never.
    pub expires: Option<UnixMillis>,
    /// When it was last used, to the minute.
    pub used: Option<UnixMillis>,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
}

/// A browser that has signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// SHA-256 of the cookie.
    pub hash: Hash,
    /// Whose.
    pub client: ClientId,
    /// When it ends.
    pub until: UnixMillis,
}

/// A wish to spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// For which job.
    pub job: WebJobId,
    /// Who pays.
    pub client: ClientId,
    /// With which key, if with one.
    pub key: Option<Hash>,
    /// The most it may cost.
    pub most: MicroUsd,
    /// The most that the key may spend a day.
    pub key_per_day: Option<MicroUsd>,
    /// When: tells the day, in UTC.
    pub now: UnixMillis,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// It is reserved.
    Yes,
    /// The balance leaves only so much.
    Balance(MicroUsd),
    /// The key's day leaves only so much.
    KeyDay(MicroUsd),
}

/// Why a balance changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// The plane's operator gave it.
    Grant,
    /// It came by a chain.
    Deposit,
    /// A job cost it.
    Job,
    /// It was taken back.
    Withdrawal,
}

/// A change of a balance. The balance is the sum of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Grows with each entry of a client.
    pub number: u64,
    /// Whose.
    pub client: ClientId,
    /// Why.
    pub kind: EntryKind,
    /// By how much, signed.
    pub amount: i64,
    /// For what: a job's name, a transaction, a word of the operator. The same deposit or job counts once; the same word of the
    /// operator once for each client.
    pub reference: String,
    /// With which key.
    pub key: Option<Hash>,
    /// When.
    pub at: UnixMillis,
}

impl ClientRow {
    /// What it may still reserve.
    pub fn available(&self) -> MicroUsd {
        MicroUsd(self.balance.0.saturating_sub(self.reserved.0))
    }

    /// The balance after a change, or `None` if that would take what is not there or is reserved.
    pub(super) fn balance_after(&self, amount: i64) -> Option<MicroUsd> {
        let taken = if amount < 0 { amount.unsigned_abs() } else { 0 };
        let fits = taken <= self.available().0;
        // What PostgreSQL's bigint holds.
        let after = self.balance.0.checked_add_signed(amount).filter(|after| i64::try_from(*after).is_ok());
        after.filter(|_| fits).map(MicroUsd)
    }
}

impl Entry {
    /// What a job has cost.
    pub(super) fn of_job(row: &JobRow, cost: MicroUsd, key: Option<Hash>) -> Self {
        // A cost is at most a balance, which fits.
        let amount = -i64::try_from(cost.0).unwrap_or(i64::MAX);
        let (client, reference, at) = (row.client.clone(), row.id.0.clone(), row.ended.unwrap_or(row.updated));
        Entry { number: 0, client, kind: EntryKind::Job, amount, reference, key, at }
    }
}

/// The day of a time, in UTC, since 1970.
pub(super) fn day(at: UnixMillis) -> u64 {
    at.0 / DAY_MS
}

const MINUTE_MICROS: u64 = 60_000_000;

/// How many of a minute's turns are used up: one moment says it (GCRA, ITU-T I.371). A minute's turns may be taken at once;
/// then one comes back after another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turns {
    /// When all will be there again, in unix microseconds.
    pub(super) full: u64,
}

impl Turns {
    /// Takes one; `None` if there is none.
    pub(super) fn take(self, per_minute: u32, now: UnixMillis) -> Option<Self> {
        let (now, each, most) = Turns::measures(per_minute, now);
        let full = self.full.max(now).saturating_add(each);
        (full - now <= most).then_some(Turns { full })
    }

    /// Now, how long a turn takes to come back, and how long all of them do, in microseconds.
    pub(super) fn measures(per_minute: u32, now: UnixMillis) -> (u64, u64, u64) {
        let each = MINUTE_MICROS.div_ceil(u64::from(per_minute.max(1)));
        // Rounding up makes a minute some microseconds longer.
        (now.0.saturating_mul(1000), each, each.saturating_mul(u64::from(per_minute)))
    }

    /// When all are there again.
    pub(super) fn full(self) -> UnixMillis {
        UnixMillis(self.full.div_ceil(1000))
    }
}

/// Clients and what is theirs.
pub trait Clients: Send + Sync {
    /// Adds a client, or changes its name and whether it is an admin. Balances are changed by entries alone.
    fn put_client<'a>(&'a self, row: &'a ClientRow) -> Answer<'a, ()>;

    /// Clients by their names, after the one named.
    fn clients<'a>(&'a self, after: Option<&'a ClientId>, limit: usize) -> Answer<'a, Vec<ClientRow>>;

    /// A client.
    fn client<'a>(&'a self, id: &'a ClientId) -> Answer<'a, Option<ClientRow>>;

    /// Adds an identity, unless somebody has it: whose it is now.
    fn put_identity<'a>(&'a self, identity: &'a Identity) -> Answer<'a, ClientId>;

    /// Changes the data of an identity that is there, such as a passkey's counter.
    fn update_identity<'a>(&'a self, identity: &'a Identity) -> Answer<'a, bool>;

    /// An identity.
    fn identity<'a>(&'a self, kind: &'a str, subject: &'a str) -> Answer<'a, Option<Identity>>;

    /// All identities of a client.
    fn identities<'a>(&'a self, client: &'a ClientId) -> Answer<'a, Vec<Identity>>;

    /// Adds or changes a key.
    fn put_key<'a>(&'a self, row: &'a KeyRow) -> Answer<'a, ()>;

    /// The key of this hash, revoked or not.
    fn key(&self, hash: Hash) -> Answer<'_, Option<KeyRow>>;

    /// Forgets a key.
    fn forget_key(&self, hash: Hash) -> Answer<'_, ()>;

    /// Notes that a key was used at `now`.
    fn touch_key(&self, hash: Hash, now: UnixMillis) -> Answer<'_, ()>;

    /// All keys of a client, the newest first.
    fn keys<'a>(&'a self, client: &'a ClientId) -> Answer<'a, Vec<KeyRow>>;

    /// Adds a session.
    fn put_session<'a>(&'a self, row: &'a SessionRow) -> Answer<'a, ()>;

    /// A session that has not ended at `now`.
    fn session(&self, hash: Hash, now: UnixMillis) -> Answer<'_, Option<SessionRow>>;

    /// Ends a session.
    fn end_session(&self, hash: Hash) -> Answer<'_, ()>;

    /// Keeps a challenge until `until`, to be taken once.
    fn put_challenge<'a>(&'a self, id: &'a str, data: &'a str, until: UnixMillis) -> Answer<'a, ()>;

    /// What a challenge says that is not over, without taking it.
    fn challenge<'a>(&'a self, id: &'a str, now: UnixMillis) -> Answer<'a, Option<String>>;

    /// Takes a challenge: of two who ask at once one gets it. `None` if it is over or was taken.
    fn take_challenge<'a>(&'a self, id: &'a str, now: UnixMillis) -> Answer<'a, Option<String>>;

    /// One more request of `who`, who has `per_minute`. Whether it may pass. Counted over restarts and instances.
    fn take_turn<'a>(&'a self, who: &'a str, per_minute: u32, now: UnixMillis) -> Answer<'a, bool>;

    /// Reserves for a job of the client, or tells what is missing. A job that has its reservation keeps that one; one that is
    /// over or not there is refused, for nobody would settle that. It becomes the job's cost by [`Jobs::end_job`].
    ///
    /// [`Jobs::end_job`]: super::Jobs::end_job
    fn reserve<'a>(&'a self, wish: &'a Reservation) -> Answer<'a, Reserved>;

    /// Adds an entry that is no job's; `number` is given by the store. Whether it is new: the same kind and reference counts
    /// once, whoever's it is, and that of a grant once for each client. A withdrawal beyond the balance is refused with `false`, too.
    fn add_entry<'a>(&'a self, entry: &'a Entry) -> Answer<'a, bool>;

    /// A client's entries, the newest first, older than `before`.
    fn entries<'a>(&'a self, client: &'a ClientId, before: Option<u64>, limit: usize) -> Answer<'a, Vec<Entry>>;
}
