//! Any bytes as an engine's answer.

use super::{Chunk, LineBuffer, Said};

/// Read in two pieces, cut where the first byte says.
pub(crate) fn lines(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let (first, second) = data.split_at(usize::from(*cut).min(data.len()));
    let (mut lines, mut said, mut last) = (LineBuffer::default(), Said::default(), 0);
    for piece in [first, second] {
        lines.push(piece);
        while let Ok(Some(line)) = lines.next_line() {
            let Ok(line) = serde_json::from_slice(&line) else { return };
            if said.absorb(line).is_err() {
                return;
            }
        }
    }
    for chunk in said.pending {
        if let Chunk::Text { tokens, .. } | Chunk::ToolCall { tokens, .. } = chunk {
            assert!(tokens > last, "the count of tokens grows");
            last = tokens;
        }
    }
}
