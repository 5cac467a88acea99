//! Conversation affinity: which worker has read the beginning of a conversation already.
//!
//! Engines keep what they have read. A worker that served the last turn needs to read only the new messages; any other reads
//! all of them before its first token. So the buyer remembers, for each conversation it had answered, by whom, and the next
//! turn's choice counts the reading that every other worker would have to do again ([`Facts::reread_tokens`]).
//!
//! A conversation is named by a **chain of digests**, one for each of its prefixes. A turn's requests begin with the messages of
//! the turn before, so the longest prefix that is remembered is the last turn, or the same turn asked again, or the place where
//! the conversation was edited. Who makes the digests is no matter here; they tell nothing of what was said.
//!
//! [`Facts::reread_tokens`]: super::rank::Facts::reread_tokens

use super::recent::Recent;
use infernet_wire::{
    id::{Hash, NodeId},
    time::UnixMillis,
};

/// Conversations remembered: more than one node's users have at once.
const MAX_CONVERSATIONS: usize = 8_192;
/// Prefixes of one conversation that are looked up, the longest first. More messages than that were not added since the last
/// turn.
pub const MAX_PREFIXES: usize = 64;
/// How long an engine keeps what it has read: Ollama unloads an idle model after five minutes, and a busy one sooner needs the
/// room for others.
const WARM_MS: u64 = 5 * 60_000;

/// The beginning of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Names it, and all before it.
    pub digest: Hash,
    /// About how long it is.
    pub tokens: u32,
}

/// A conversation by its prefixes, the shortest first; the last one is the whole request. Empty: no conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation(pub Vec<Prefix>);

/// Who has read how much of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warm {
    /// The worker.
    pub worker: NodeId,
    /// Tokens it has read.
    pub tokens: u32,
}

impl Warm {
    /// What `worker` would have to read again.
    pub fn reread_by(&self, worker: &NodeId) -> u32 {
        if self.worker == *worker { 0 } else { self.tokens }
    }
}

/// Who answered which conversation. Bounded.
#[derive(Debug, Clone)]
pub struct Affinity {
    answered: Recent<Hash, (NodeId, UnixMillis)>,
}

impl Default for Affinity {
    fn default() -> Self {
        Affinity { answered: Recent::new(MAX_CONVERSATIONS) }
    }
}

impl Affinity {
    /// `worker` has answered `conversation`.
    pub fn answered(&mut self, conversation: &Conversation, worker: NodeId, now: UnixMillis) {
        if let Some(whole) = conversation.0.last() {
            self.answered.insert(whole.digest, (worker, now.after(WARM_MS)));
        }
    }

    /// Who has read the longest part of `conversation`, if anybody has it still.
    pub fn warm(&self, conversation: &Conversation, now: UnixMillis) -> Option<Warm> {
        conversation.0.iter().rev().take(MAX_PREFIXES).find_map(|prefix| {
            let (worker, until) = self.answered.get(&prefix.digest)?;
            (*until >= now).then_some(Warm { worker: *worker, tokens: prefix.tokens })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::fixture::{T0, at, node};

    /// The conversation whose messages are these, each of ten tokens.
    fn said(messages: &[u8]) -> Conversation {
        let prefix = |n: usize| {
            let digest = infernet_wire::hash::sha256(&messages[..n]);
            Prefix { digest, tokens: 10 * n as u32 }
        };
        Conversation((1..=messages.len()).map(prefix).collect())
    }

    /// Turns of messages `1`, then `1 2 3`, served by workers 1 and 2; then who is warm for `messages` at `ms`, and how far?
    fn check(messages: &[u8], ms: u64, expected: Option<(u16, u32)>) {
        let mut affinity = Affinity::default();
        affinity.answered(&said(&[1]), node(1), T0);
        affinity.answered(&said(&[1, 2, 3]), node(2), at(1_000));
        let expected = expected.map(|(worker, tokens)| Warm { worker: node(worker), tokens });
        assert_eq!(affinity.warm(&said(messages), at(ms)), expected, "{messages:?}");
    }

    #[test]
    fn the_next_turn_finds_the_last_ones_worker() {
        check(&[1, 2, 3, 4, 5], 2_000, Some((2, 30)));
        check(&[1, 2, 3], 2_000, Some((2, 30)));
        check(&[1, 2, 9, 4, 5], 2_000, Some((1, 10)));
        check(&[8, 2, 3], 2_000, None);
        check(&[], 2_000, None);
    }

    #[test]
    fn what_was_read_long_ago_is_cold() {
        check(&[1, 2, 3, 4, 5], 1_000 + WARM_MS, Some((2, 30)));
        check(&[1, 2, 3, 4, 5], 1_001 + WARM_MS, None);
    }

    #[test]
    fn other_conversations_push_out_the_oldest() {
        let mut affinity = Affinity::default();
        affinity.answered(&said(&[1]), node(1), T0);
        for n in 0..MAX_CONVERSATIONS as u32 {
            affinity.answered(&said(&n.to_be_bytes()), node(2), T0);
        }
        assert_eq!(affinity.warm(&said(&[1]), T0), None);
        assert_eq!(affinity.answered.len(), MAX_CONVERSATIONS);
    }
}
