//! A gossip peer that joins and then hears nothing: what is said to it piles up at whoever says it.

use super::{megaphone, tally::Tally};
use crate::stranger::fresh_key;
use futures::StreamExt;
use libp2p::Multiaddr;
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// To connect and to subscribe: then it is told what the others are told.
const JOIN: Duration = Duration::from_secs(2);
/// How long it stays: long enough to fill any queue.
const STAY: Duration = Duration::from_secs(120);

/// Joins `victims` and stops reading, again and again, for ever.
pub(super) async fn run(victims: Vec<Multiaddr>, tally: Arc<Tally>) {
    loop {
        if let Some(mut swarm) = megaphone::swarm(&fresh_key()) {
            for victim in &victims {
                let _ = swarm.dial(victim.clone());
            }
            let _ = timeout(JOIN, async { while swarm.next().await.is_some() {} }).await;
            tally.count("deaf peers");
            // Connected, and never polled again.
            sleep(STAY).await;
        }
    }
}
