//! Tells whoever listens what becomes of each request.

use tokio::sync::broadcast;

use super::{EngineEvent, Finish, jobs::Piece};

/// Events kept for a slow subscriber: four per stream of the largest benchmark, 2 000 streams.
pub(super) const EVENTS: usize = 8192;
/// Tells the subscribers how a request fares; one that is dropped before its end was cancelled.
pub(super) struct Watch {
    request: u64,
    tokens: u32,
    over: bool,
    events: broadcast::Sender<EngineEvent>,
}

impl Watch {
    pub(super) fn start(request: u64, events: broadcast::Sender<EngineEvent>) -> Self {
        let watch = Self { request, tokens: 0, over: false, events };
        watch.tell(EngineEvent::Started { request });
        watch
    }

    pub(super) fn token(&mut self) {
        if self.tokens == 0 {
            self.tell(EngineEvent::FirstToken { request: self.request });
        }
        self.tokens += 1;
    }

    pub(super) fn end(&mut self, last: &Piece) {
        let (request, tokens) = (self.request, self.tokens);
        let event = match last {
            Piece::Done(answer, _) if answer.finish == Finish::Cancelled => return,
            Piece::Done(answer, _) => EngineEvent::Finished { request, tokens: answer.eval_count },
            Piece::Text(_) | Piece::Failed(_) => EngineEvent::Failed { request, tokens },
        };
        self.over = true;
        self.tell(event);
    }

    fn tell(&self, event: EngineEvent) {
        tracing::debug!(?event, "engine");
        // Nobody has to listen.
        let _ = self.events.send(event);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.over {
            let (request, tokens) = (self.request, self.tokens);
            self.tell(EngineEvent::Cancelled { request, tokens });
        }
    }
}
