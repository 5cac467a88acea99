//! Nodes that registered over HTTP. What gossip says of nodes is not here: it is in the index, and says it again by itself.

use super::Answer;
use infernet_node::date::DAY_MS;
use infernet_wire::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An x-only secp256k1 key, by which a node signs its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pubkey(pub [u8; 32]);

/// What a node registers as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It serves models.
    Provider,
    /// It coordinates others; kept for clients that know the role.
    Aggregator,
    /// It buys.
    Client,
}

/// A registered node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its key; with the role, the row's own.
    pub pubkey: Pubkey,
    /// Its role.
    pub role: Role,
    /// A UUID that the plane gave it.
    pub id: String,
    /// What it calls itself, such as `provider-1a2b3c4d`. Belongs to one key.
    pub node_id: String,
    /// A name for people; empty if it gave none.
    pub name: String,
    /// Where it says it is; empty if it does not tell.
    pub address: String,
    /// And at which port; 0 if it does not tell.
    pub port: u16,
    /// Whether its last word was that it takes work.
    pub available: bool,
    /// What it says of its hardware, models and load: bounded and checked before it is kept.
    pub specs: Value,
    /// Whether the public pages show it.
    pub public: bool,
    /// Whether its requests name the plane they are for (`aud`). Once one did, all must.
    pub names_audience: bool,
    /// When it first came.
    pub registered: UnixMillis,
    /// When it was last heard.
    pub seen: UnixMillis,
}

/// How long a node that says nothing is remembered: a month of holidays.
pub(super) const SILENT_MS: u64 = 30 * DAY_MS;
/// And one that was heard for less than [`BRIEF_MS`] in all: keys cost nothing, and each may register.
pub(super) const BRIEF_SILENT_MS: u64 = DAY_MS;
pub(super) const BRIEF_MS: u64 = 60 * 60_000;

/// Whether a node was heard for so short a time in all that it may be made up.
pub fn is_brief(registered: UnixMillis, seen: UnixMillis) -> bool {
    seen.since(registered) < BRIEF_MS
}

/// Whether a node has said nothing for so long that its row goes.
pub(super) fn is_forgotten(registered: UnixMillis, seen: UnixMillis, now: UnixMillis) -> bool {
    let silent = now.since(seen);
    silent > SILENT_MS || silent > BRIEF_SILENT_MS && is_brief(registered, seen)
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePut {
    /// It is there.
    Kept,
    /// Its `node_id` is another key's; nothing was changed.
    Taken,
}

/// Where a node wants its earnings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutRow {
    /// Whose.
    pub pubkey: Pubkey,
    /// The coin, such as `USDC`.
    pub coin: String,
    /// The network; empty if the coin has but one.
    pub network: String,
    /// The address.
    pub address: String,
    /// When it was set.
    pub set: UnixMillis,
}

/// Registered nodes and the nonces of their requests.
pub trait Nodes: Send + Sync {
    /// Inserts or replaces the row of its key and role; `id` and `registered` of an earlier row stay.
    fn put_node<'a>(&'a self, row: &'a NodeRow) -> Answer<'a, NodePut>;

    /// The row of a key in a role.
    fn node(&self, pubkey: Pubkey, role: Role) -> Answer<'_, Option<NodeRow>>;

    /// Removes a row; returns what it was.
    fn remove_node(&self, pubkey: Pubkey, role: Role) -> Answer<'_, Option<NodeRow>>;

    /// Uses a nonce of a key, to be remembered until `until`. Whether it was new: of two who ask at once one is told so.
    fn use_nonce<'a>(&'a self, pubkey: Pubkey, nonce: &'a str, until: UnixMillis) -> Answer<'a, bool>;

    /// Forgets nonces that nobody could use any more, sessions, challenges and turns that are over, and nodes that have
    /// said nothing for a month, or for a day if they were heard for less than an hour.
    fn forget_nonces(&self, now: UnixMillis) -> Answer<'_, ()>;

    /// Sets where a node wants a coin.
    fn put_payout<'a>(&'a self, row: &'a PayoutRow) -> Answer<'a, ()>;

    /// Where a node wants its coins.
    fn payouts(&self, pubkey: Pubkey) -> Answer<'_, Vec<PayoutRow>>;
}
