//! Progress passes through here on its way to the caller; the text is kept for the report.

use super::ChatEvent;
use crate::chat::client::Progress;
use infernet_wire::chat::{Channel, ToolCall, ToolCallDelta};
use tokio::sync::mpsc;

/// Passes progress on to the caller and keeps the text for the report.
pub(super) struct Tap {
    /// Where the stream tells its progress.
    pub(super) events: mpsc::Sender<ChatEvent>,
}

/// The other end of a [`Tap`].
pub(super) struct Taken {
    events: mpsc::Receiver<ChatEvent>,
    caller: mpsc::Sender<ChatEvent>,
}

impl Tap {
    /// Capacity 1: a caller that does not read must slow the worker down, not fill memory.
    pub(super) fn new(caller: mpsc::Sender<ChatEvent>) -> (Self, Taken) {
        let (events, inner) = mpsc::channel(1);
        (Tap { events }, Taken { events: inner, caller })
    }
}

impl Taken {
    /// What was said, once the stream is over. A caller that goes away closes the stream too.
    pub(super) async fn collect(mut self) -> Said {
        let mut said = Said::default();
        while let Some(event) = self.events.recv().await {
            if let ChatEvent::Stream(progress) = &event {
                said.note(progress);
            }
            if self.caller.send(event).await.is_err() {
                break;
            }
        }
        said
    }
}

/// A whole answer.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) answer: String,
    pub(super) reasoning: String,
    pub(super) tool_calls: Vec<ToolCall>,
}

impl Said {
    fn note(&mut self, progress: &Progress) {
        match progress {
            Progress::Text { channel: Channel::REASONING, text, .. } => self.reasoning.push_str(text),
            Progress::Text { text, .. } => self.answer.push_str(text),
            Progress::ToolCall(piece) => self.note_call(piece),
            // Vectors are the caller's to keep: they are larger than any answer, and no report shows them.
            Progress::Embedding(_) | Progress::Opened { .. } | Progress::Usage(_) => {}
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
