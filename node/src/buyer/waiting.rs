//! Waiting instead of failing: an order that allows it is tried again until somebody has room, or its time is over.
//!
//! Only what passes by itself is worth a wait ([`ChatError::passes`]): slots become free, engines come back, peers are found.
//! A price too low or a model that nobody serves stays what it is.

use super::{Buyer, ChatError, ChatEvent, Prepared};
use crate::{clock, market::course::Pauses, report::ChatReport};
use std::time::Duration;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::debug;

impl Buyer {
    /// Tries, and waits and tries again as long as the order allows it and there is a point in it.
    pub(super) async fn patiently(
        &self,
        prepared: &Prepared,
        events: &mpsc::Sender<ChatEvent>,
        cancel: &mut watch::Receiver<bool>,
    ) -> Result<ChatReport, ChatError> {
        let (began, mut pauses) = (clock::instant(), Pauses::new(prepared.order.wait_ms));
        loop {
            let error = match self.once(prepared, events, cancel).await {
                Err(error) if error.passes() => error,
                result => return result,
            };
            let Some(next_ms) = pauses.next(began.elapsed().as_millis() as u64) else { return Err(error) };
            debug!(pause_ms = next_ms, "waiting: {}", error.label());
            super::tell(events, ChatEvent::Waiting { reason: error.to_string(), next_ms }).await;
            if given_up(Duration::from_millis(next_ms), events, cancel).await {
                return Err(error);
            }
        }
    }
}

/// Waits for `pause`; whether the caller went away or cancelled meanwhile.
async fn given_up(pause: Duration, events: &mpsc::Sender<ChatEvent>, cancel: &mut watch::Receiver<bool>) -> bool {
    let cancelled = async {
        if cancel.wait_for(|wanted| *wanted).await.is_err() {
            // The one who could cancel is gone; the receiver of the events decides.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = sleep(pause) => false,
        () = cancelled => true,
        () = events.closed() => true,
    }
}
