//! Operators' commands, signed by them. The plane carries them; the node verifies them.

use super::{Answer, Pubkey};
use infernet_wire::{id::NodeId, time::UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandStatus {
    /// The node has not asked yet.
    Pending,
    /// The node has it, until the lease ends.
    Running,
    /// Done.
    Completed,
    /// The node could not.
    Failed,
    /// It was taken back.
    Cancelled,
    /// Its time was over before the node asked.
    Expired,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandRow {
    /// A UUID.
    pub id: String,
    /// For which node.
    pub node: Pubkey,
    /// What to do, such as `model_install`.
    pub verb: String,
    /// To what, as JSON.
    pub args: Value,
    /// The signed command as its operator made it; `None` for daemons that know no signatures, behind the legacy bridge.
    pub signed: Option<Vec<u8>>,
    /// Who signed it.
    pub operator: Option<NodeId>,
    /// How far it is.
    pub status: CommandStatus,
    /// What the node says of it while it runs.
    pub progress: Option<Value>,
    /// What it brought.
    pub result: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it no longer counts.
    pub expires: UnixMillis,
    /// When the node took it.
    pub started: Option<UnixMillis>,
    /// Until when the node is believed to be at it.
    pub lease: Option<UnixMillis>,
    /// When it ended.
    pub ended: Option<UnixMillis>,
}

impl CommandRow {
    /// Whether the node may have it now: it is pending, or whoever took it let its lease end.
    pub(super) fn can_be_taken(&self, now: UnixMillis) -> bool {
        match self.status {
            CommandStatus::Pending => true,
            CommandStatus::Running => self.lease.is_none_or(|lease| lease <= now),
            _ => false,
        }
    }

    /// The node has it.
    pub(super) fn take(&mut self, now: UnixMillis, lease: UnixMillis) {
        self.status = CommandStatus::Running;
        self.started = self.started.or(Some(now));
        self.lease = Some(lease);
    }

    /// It came too late, or its last lease ended after its time.
    pub(super) fn expire(&mut self, now: UnixMillis) {
        self.status = CommandStatus::Expired;
        self.lease = None;
        self.ended = Some(now);
    }
}

/// Commands by node.
pub trait Commands: Send + Sync {
    /// Adds a command; refused if its id is there already.
    fn put_command<'a>(&'a self, row: &'a CommandRow) -> Answer<'a, ()>;

    /// Takes up to `limit` commands for `node`, the oldest first: those pending, and those whose lease is over; each is running
    /// then, with a lease until `lease`. Those of them that have expired become [`CommandStatus::Expired`]. Of two who
    /// ask at once each gets others.
    fn take_commands(&self, node: Pubkey, limit: usize, now: UnixMillis, lease: UnixMillis) -> Answer<'_, Vec<CommandRow>>;

    /// Replaces a command that is in one of the statuses `from`. Whether it was.
    fn update_command<'a>(&'a self, from: &'a [CommandStatus], row: &'a CommandRow) -> Answer<'a, bool>;

    /// A command.
    fn command<'a>(&'a self, id: &'a str) -> Answer<'a, Option<CommandRow>>;

    /// Commands of a node, the newest first.
    fn commands(&self, node: Pubkey, limit: usize) -> Answer<'_, Vec<CommandRow>>;
}
