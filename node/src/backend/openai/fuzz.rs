//! Any bytes as an engine's answer.

use super::{answer::Said, sse::EventBuffer};
use crate::backend::Chunk;

/// Read in two pieces, cut where the first byte says; the second byte says whether a start may be repeated.
pub(crate) fn events(data: &[u8]) {
    let [cut, start, data @ ..] = data else { return };
    let (first, second) = data.split_at(usize::from(*cut).min(data.len()));
    let started = (start % 2 == 1).then(|| "Once upon".to_owned());
    let (mut events, mut said) = (EventBuffer::default(), Said::new(Default::default(), started, Some(2)));
    let (mut last, mut bytes, mut done) = (0, 0, 0);
    for piece in [first, second] {
        events.push(piece);
        while let Ok(Some(event)) = events.next_event() {
            if said.done || said.absorb(&event).is_err() {
                break;
            }
        }
    }
    for chunk in said.pending {
        let (tokens, length) = match chunk {
            Chunk::Text { text, tokens, .. } => (tokens, text.len()),
            Chunk::ToolCall { name, arguments, tokens, .. } => (tokens, name.map_or(0, |name| name.len()) + arguments.len()),
            Chunk::Done { .. } => {
                done += 1;
                continue;
            }
            Chunk::Embedding { .. } => panic!("an answer has no vectors"),
        };
        assert_eq!(done, 0, "nothing follows the end");
        bytes += length;
        assert!(tokens > last, "the count of tokens grows");
        assert!(tokens as usize <= bytes, "no more tokens than bytes");
        last = tokens;
    }
    assert!(done <= 1 && (done == 1) == said.done);
}
