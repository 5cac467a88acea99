//! What goes on beside the jobs: leases are renewed, jobs of dead instances ended, old answers forgotten, cancels heard.

use super::{Gateway, LOST};
use crate::store::{JobError, JobRow, JobStatus, Notice, Renewal};
use futures::StreamExt;
use infernet_node::clock;
use infernet_wire::time::UnixMillis;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

/// Rounds in a lease: two may be lost.
const ROUNDS: u64 = 3;
/// Stranded jobs that are ended in one round.
const MAX_STRANDED: usize = 200;
/// Between two writes of an answer that is to be kept and still grows: it may be megabytes.
const KEEP_TEXT_MS: u64 = 60_000;
/// Before a stream of notices that has ended is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Starts it; it ends when the gateway is gone.
pub(super) fn spawn(gateway: &Arc<Gateway>) -> Vec<JoinHandle<()>> {
    vec![tokio::spawn(rounds(Arc::downgrade(gateway))), tokio::spawn(hear(Arc::downgrade(gateway)))]
}

async fn rounds(gateway: Weak<Gateway>) {
    while let Some(gateway) = gateway.upgrade() {
        let pause = Duration::from_millis(gateway.config.lease_ms / ROUNDS);
        gateway.renew().await;
        // What is not written in time is written a minute later, or at the job's end. Leases do not wait for it.
        let _ = timeout(pause, gateway.keep_texts()).await;
        gateway.end_stranded().await;
        gateway.table().forget(clock::now());
        drop(gateway);
        sleep(pause).await;
    }
}

async fn hear(gateway: Weak<Gateway>) {
    loop {
        let Some(mut notices) = gateway.upgrade().map(|gateway| gateway.store.notices()) else { return };
        while let Some(notice) = notices.next().await {
            let Some(gateway) = gateway.upgrade() else { return };
            if let Notice::Cancel { id } = notice
                && let Some(live) = gateway.live(&id)
            {
                live.cancel();
            }
        }
        sleep(REOPEN).await;
    }
}

impl Gateway {
    async fn renew(&self) {
        let running = self.table().all_written();
        if running.is_empty() {
            return;
        }
        let known: Vec<Renewal> = running.iter().map(|live| live.renewal()).collect();
        match self.store.renew_jobs(&self.instance, &known, clock::now().after(self.config.lease_ms)).await {
            // One that has ended meanwhile is among them, and does not mind.
            Ok(unwanted) => running.iter().filter(|live| unwanted.contains(live.id())).for_each(|live| live.cancel()),
            Err(error) => warn!("leases can't be renewed yet: {error}"),
        }
    }

    /// Answers that are to be kept, as far as they are: a crash loses a minute of them.
    async fn keep_texts(&self) {
        let now = clock::now();
        let before = UnixMillis(now.0.saturating_sub(KEEP_TEXT_MS));
        let running = self.table().all_written();
        for live in running {
            let Some(text) = live.text(before, now) else { continue };
            if let Err(error) = self.store.put_text(live.id(), &text).await {
                return warn!("answers can't be kept yet: {error}");
            }
        }
    }

    /// Jobs whose instance is gone are failed, and pay for what was noted of them.
    async fn end_stranded(&self) {
        let now = clock::now();
        let stranded = match self.store.stranded(now, MAX_STRANDED).await {
            Ok(stranded) => stranded,
            Err(error) => return warn!("{error}"),
        };
        for row in stranded {
            let error = "the instance of this plane that ran the job has stopped: ask again".to_owned();
            let ended = JobRow {
                status: JobStatus::Failed,
                error: Some(JobError { code: LOST.into(), message: error }),
                updated: now,
                ended: Some(now),
                lease: None,
                ..row
            };
            match self.store.end_job(&ended, Some(now)).await {
                Ok(Some(_)) => info!(job = %ended.id.0, "a job of an instance that is gone was ended"),
                // Its instance is there after all, or another was faster.
                Ok(None) => continue,
                Err(error) => warn!("{error}"),
            }
            self.tell(&ended.id).await;
        }
    }
}
