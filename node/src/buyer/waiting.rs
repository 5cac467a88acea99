//! Waiting instead of failing: an order that allows it is tried again until somebody has room, or its time is over.
//!
//! Only what passes by itself is worth a wait ([`ChatError::passes`]): slots become free, engines come back, peers are found.
//! A price too low or a model that nobody serves stays what it is.

use super::{Buyer, ChatError, ChatEvent, Prepared};
use crate::{clock, report::ChatReport};
use std::time::Duration;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::debug;

/// The first pause: a short answer's time, after which a slot may be free.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest: more often than this, ten waiting buyers would be heard once a second by each worker.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Buyer {
    /// Tries, and waits and tries again as long as the order allows it and there is a point in it.
    pub(super) async fn patiently(
        &self,
        prepared: &Prepared,
        events: &mpsc::Sender<ChatEvent>,
        cancel: &mut watch::Receiver<bool>,
    ) -> Result<ChatReport, ChatError> {
        let end = clock::deadline(Duration::from_millis(prepared.order.wait_ms));
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.once(prepared, events, cancel).await {
                Err(error) if error.passes() => error,
                result => return result,
            };
            if clock::deadline(pause) > end {
                return Err(error);
            }
            debug!(pause_ms = pause.as_millis() as u64, "waiting: {}", error.label());
            let next_ms = pause.as_millis() as u64;
            super::tell(events, ChatEvent::Waiting { reason: error.to_string(), next_ms }).await;
            if given_up(pause, events, cancel).await {
                return Err(error);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
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
