//! Names the beginning of a conversation, so that its next turn finds the worker that has read it.
//!
//! A chain of digests over what an engine reads, in the order in which it reads it: the model's name, the tools, then message
//! by message. The chain begins with a number drawn when the process starts: the digests stay in this process's memory, and
//! whoever gets hold of it can't try out short prompts either.

use crate::market::affinity::{Conversation, MAX_PREFIXES, Prefix};
use infernet_wire::{
    chat::{ChatMessage, ChatRequest, Task},
    codec, hash,
    id::Hash,
};

/// Bytes of text per token, as [`crate::market::quote`] has it.
const BYTES_PER_TOKEN: usize = 4;

/// The conversation that `request` goes on with; none if nothing can follow it.
pub(super) fn conversation(salt: &[u8; 32], request: &ChatRequest) -> Conversation {
    if request.task != Task::CHAT {
        return Conversation::default();
    }
    let tools = codec::encode(&request.tools);
    let mut digest = hash::tagged("infernet/conversation/1", &[salt, request.model.as_bytes(), &tools]);
    let mut bytes = tools.len();
    let prefixes = request.messages.iter().map(|message| {
        (digest, bytes) = (step(&digest, message), bytes + message.content.len());
        Prefix { digest, tokens: u32::try_from(bytes / BYTES_PER_TOKEN).unwrap_or(u32::MAX) }
    });
    let all: Vec<Prefix> = prefixes.collect();
    Conversation(all.get(all.len().saturating_sub(MAX_PREFIXES)..).unwrap_or_default().to_vec())
}

fn step(before: &Hash, message: &ChatMessage) -> Hash {
    hash::tagged("infernet/conversation-step/1", &[before.as_ref(), &codec::encode(message)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::chat::Role;

    fn digests(salt: u8, model: &str, texts: &[&str]) -> Vec<Hash> {
        let message = |(n, text): (usize, &&str)| {
            ChatMessage::new(if n % 2 == 0 { Role::User } else { Role::Assistant }, (*text).to_owned())
        };
        let request = ChatRequest::new(model, texts.iter().enumerate().map(message).collect(), 8);
        conversation(&[salt; 32], &request).0.into_iter().map(|prefix| prefix.digest).collect()
    }

    #[test]
    fn a_turn_begins_with_the_turn_before() {
        let first = digests(1, "tiny", &["Hello"]);
        let second = digests(1, "tiny", &["Hello", "Hi!", "How are you?"]);
        assert_eq!((first.len(), second.len()), (1, 3));
        assert_eq!(first.last(), second.first());
        assert_ne!(digests(1, "tiny", &["Hello", "Hi", "How are you?"])[1], second[1]);
        assert_ne!(digests(1, "other", &["Hello"]), first);
        assert_ne!(digests(2, "tiny", &["Hello"]), first);
    }

    #[test]
    fn only_the_longest_prefixes_are_kept() {
        let texts = vec!["x"; 3 * MAX_PREFIXES];
        let kept = digests(1, "tiny", &texts);
        assert_eq!(kept.len(), MAX_PREFIXES);
        assert_eq!(kept[MAX_PREFIXES - 3], *digests(1, "tiny", &texts[..texts.len() - 2]).last().expect("a prefix"));
    }

    #[test]
    fn vectors_and_completions_are_no_conversation() {
        let mut request = ChatRequest::new("tiny", vec![ChatMessage::new(Role::User, "Hello")], 8);
        request.task = Task::EMBEDDINGS;
        assert_eq!(conversation(&[1; 32], &request), Conversation::default());
    }
}
