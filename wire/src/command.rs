//! `OperatorCommand`: what an operator tells a node from afar. The node's owner named the operator's key on the node itself;
//! whoever carries the command (a control plane, a file) can delay or lose it, never invent or repeat it.

use crate::{
    envelope::{Kind, Message, Refusal, field},
    id::NodeId,
    limits,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// Stop bidding; running jobs end. Undone by [`RESUME`].
pub const DRAIN: &str = "drain";
/// Bid again.
pub const RESUME: &str = "resume";

/// One command for one node. Verbs are open: a node refuses what it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorCommand {
    /// The node that is to obey.
    pub node: NodeId,
    /// Above every earlier one of the same operator for the same node.
    pub sequence: u64,
    /// When it was made.
    pub issued: UnixMillis,
    /// When it no longer counts.
    pub expires: UnixMillis,
    /// What to do, such as [`DRAIN`].
    pub verb: String,
    /// To what or how; empty where the verb needs nothing.
    pub argument: String,
}

impl Message for OperatorCommand {
    const KIND: Kind = Kind::OperatorCommand;
    const MAX_BYTES: usize = limits::MAX_COMMAND_BYTES;
    const MAX_TTL_MS: u64 = limits::COMMAND_TTL_MS;

    fn issued(&self) -> UnixMillis {
        self.issued
    }

    fn expires(&self) -> UnixMillis {
        self.expires
    }

    fn check(&self) -> Result<(), Refusal> {
        field::ensure(self.sequence > 0, "sequence")?;
        field::name(&self.verb, "verb")?;
        field::optional_name(&self.argument, "argument")
    }
}
