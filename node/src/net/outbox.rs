//! Messages that wait for somebody to hand them to: gossipsub refuses to publish while no peer subscribes.

use infernet_wire::time::UnixMillis;
use std::sync::Arc;

/// Messages that may wait at once. A node without peers has little to say: its ad, and offers at the allowed rate until
/// their deadlines, at most 5 a second for 30 seconds.
const CAPACITY: usize = 256;

/// One message, and whom to tell how it went.
#[derive(Debug)]
pub(super) struct Waiting<R> {
    pub(super) topic: String,
    pub(super) bytes: Arc<[u8]>,
    pub(super) deadline: UnixMillis,
    pub(super) reply: R,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox<R>(Vec<Waiting<R>>);

impl<R> Outbox<R> {
    pub(super) fn new() -> Self {
        Outbox(Vec::new())
    }

    /// Keeps a message, or gives it back when full.
    pub(super) fn try_push(&mut self, message: Waiting<R>) -> Result<(), Waiting<R>> {
        if self.0.len() >= CAPACITY {
            return Err(message);
        }
        self.0.push(message);
        Ok(())
    }

    /// Takes out, in order, what waits for `topic`.
    pub(super) fn take_topic(&mut self, topic: &str) -> Vec<Waiting<R>> {
        self.0.extract_if(.., |message| message.topic == topic).collect()
    }

    /// Takes out what has waited too long.
    pub(super) fn take_expired(&mut self, now: UnixMillis) -> Vec<Waiting<R>> {
        self.0.extract_if(.., |message| message.deadline <= now).collect()
    }

    /// When the next message expires.
    pub(super) fn next_deadline(&self) -> Option<UnixMillis> {
        self.0.iter().map(|message| message.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, deadline: u64) -> Waiting<u64> {
        Waiting { topic: topic.into(), bytes: Arc::new([]), deadline: UnixMillis(deadline), reply: deadline }
    }

    #[test]
    fn waits_for_its_topic_or_its_deadline() {
        let mut outbox = Outbox::new();
        for (topic, deadline) in [("a", 3), ("b", 2), ("a", 1)] {
            outbox.try_push(message(topic, deadline)).unwrap();
        }
        assert_eq!(outbox.next_deadline(), Some(UnixMillis(1)));
        let replies = |taken: Vec<Waiting<u64>>| taken.into_iter().map(|m| m.reply).collect::<Vec<_>>();
        assert_eq!(replies(outbox.take_expired(UnixMillis(1))), [1]);
        assert_eq!(replies(outbox.take_topic("a")), [3]);
        assert_eq!(outbox.next_deadline(), Some(UnixMillis(2)));
    }

    #[test]
    fn refuses_when_full() {
        let mut outbox = Outbox::new();
        let accepted = (0..1_000).filter(|n| outbox.try_push(message("a", *n)).is_ok()).count();
        assert_eq!(accepted, CAPACITY);
    }
}
