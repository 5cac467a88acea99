//! What a worker has said so far, for the report.

use crate::chat::client::Progress;
use infernet_wire::chat::{Channel, ToolCall, ToolCallDelta};

/// A whole answer.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) answer: String,
    pub(super) reasoning: String,
    pub(super) tool_calls: Vec<ToolCall>,
}

impl Said {
    /// Adds a step of the stream.
    pub(super) fn note(&mut self, progress: &Progress) {
        match progress {
            Progress::Text { channel: Channel::REASONING, text, .. } => self.reasoning.push_str(text),
            Progress::Text { text, .. } => self.answer.push_str(text),
            Progress::ToolCall(piece) => self.note_call(piece),
            // Vectors are the caller's to keep: they are larger than any answer, and no report shows them.
            Progress::Embedding(_) | Progress::Opened { .. } | Progress::Resumed { .. } | Progress::Usage(_) => {}
        }
    }

    /// The first piece of a call names it; others lengthen its arguments. Pieces of one call come one after the other.
    fn note_call(&mut self, piece: &ToolCallDelta) {
        let ToolCallDelta { id, name, arguments, .. } = piece;
        match (name, self.tool_calls.last_mut()) {
            (None, Some(call)) => call.arguments.push_str(arguments),
            _ => self.tool_calls.push(ToolCall {
                id: id.clone().unwrap_or_default(),
                name: name.clone().unwrap_or_default(),
                arguments: arguments.clone(),
            }),
        }
    }
}
