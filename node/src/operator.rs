//! Operators: whose commands this node obeys, and which commands those are.
//!
//! The node's owner names operator keys on the node itself (`infernet operator add KEY`); they are kept in
//! `<home>/operators.toml`. A command is an [`OperatorCommand`] envelope, whoever carries it. It is obeyed if an operator signed
//! it, for this node, in time, with a number above all earlier ones. The number is durable **before** the command is acted on,
//! so a replay has no effect, after a crash or a restart either.
//!
//! [`check`] decides and touches nothing; [`Checked::claim`] remembers the number; whoever holds the [`Verb`] then acts.

mod file;

pub use file::{Added, OPERATORS_FILE, Operator, OperatorKey, Operators, OperatorsError};

use crate::store::StoreError;
pub use infernet_wire::command::Verb;
use infernet_wire::{
    command::{BadVerb, OperatorCommand},
    envelope::{Envelope, Refusal},
    id::NodeId,
    time::UnixMillis,
    topic::NetworkId,
};

/// Why a command is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not a signed command, not for this network, or not in time.
    #[error("this is no valid command: {0}; sign a new one, it counts for at most five minutes")]
    Refused(#[from] Refusal),
    /// Its signer is no operator of this node.
    #[error("{0} is no operator of this node; its owner can run `infernet operator add {0}`")]
    Stranger(NodeId),
    /// It is for another node.
    #[error("this command is for node {0}, not for this one")]
    OtherNode(NodeId),
    /// This version can't do it, or not with that argument.
    #[error(transparent)]
    Verb(#[from] BadVerb),
    /// It, or a later one, was heard before.
    #[error("command {0} or a later one was obeyed already; sign one with a higher sequence")]
    Replayed(u64),
    /// Its number can't be remembered, so it is not obeyed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CommandError {
    /// A short stable name, for counters.
    pub fn label(&self) -> &'static str {
        match self {
            CommandError::Refused(refusal) => refusal.label(),
            CommandError::Stranger(_) => "stranger",
            CommandError::OtherNode(_) => "other_node",
            CommandError::Verb(BadVerb::Unknown(_)) => "unknown_verb",
            CommandError::Verb(_) => "argument",
            CommandError::Replayed(_) => "replayed",
            CommandError::Store(_) => "store",
        }
    }
}

/// A command of an operator for this node, whose number has still to be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    operator: NodeId,
    sequence: u64,
    verb: Verb,
}

/// Checks the envelope `raw` at `now`: cheap checks first, the signature after them. Changes nothing.
pub fn check(
    raw: &[u8],
    network: &NetworkId,
    me: &NodeId,
    operators: &Operators,
    now: UnixMillis,
) -> Result<Checked, CommandError> {
    let command = Envelope::decode(raw)?.open::<OperatorCommand>(network, now)?;
    let operator = operators.find(&command.signer()).ok_or(CommandError::Stranger(command.signer()))?;
    let command = command.verify()?;
    if command.node != *me {
        return Err(CommandError::OtherNode(command.node));
    }
    let verb = Verb::parse(&command.verb, &command.argument)?;
    Ok(Checked { operator: operator.as_node(), sequence: command.sequence, verb })
}

impl Checked {
    /// Who said it; the same for both node ids that an x-only key can have.
    pub fn operator(&self) -> NodeId {
        self.operator
    }

    /// What it says to do, once it is claimed.
    pub fn verb(&self) -> &Verb {
        &self.verb
    }

    /// Its number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Remembers the number with `accept`, which is durable on return and answers whether the number is above all earlier ones
    /// of this operator. Only then is there something to do.
    pub fn claim(self, accept: impl FnOnce(&NodeId, u64) -> Result<bool, StoreError>) -> Result<Verb, CommandError> {
        if accept(&self.operator, self.sequence)? { Ok(self.verb) } else { Err(CommandError::Replayed(self.sequence)) }
    }
}

/// Any text as the file of operators.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_file(text: &str) {
    if let Err(reason) = file::parse(text) {
        assert!(!reason.is_empty());
    }
}

#[cfg(test)]
mod tests;
