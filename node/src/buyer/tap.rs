//! Progress passes through here on its way to the caller; the text is kept for the report.

use super::ChatEvent;
use crate::chat::client::Progress;
use infernet_wire::chat::Channel;
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
    /// Answer and reasoning, once the stream is over. A caller that goes away closes the stream too.
    pub(super) async fn collect(mut self) -> (String, String) {
        let (mut answer, mut reasoning) = (String::new(), String::new());
        while let Some(event) = self.events.recv().await {
            if let ChatEvent::Stream(Progress::Text { channel, text, .. }) = &event {
                if *channel == Channel::REASONING { reasoning.push_str(text) } else { answer.push_str(text) }
            }
            if self.caller.send(event).await.is_err() {
                break;
            }
        }
        (answer, reasoning)
    }
}
