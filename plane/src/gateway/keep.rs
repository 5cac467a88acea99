//! What goes on beside the jobs: leases are renewed, jobs of dead instances ended, old answers forgotten, cancels heard.

use super::{Gateway, UNDER_WAY};
use crate::store::{JobError, JobRow, JobStatus, Notice};
use futures::StreamExt;
use infernet_node::clock;
use infernet_wire::money::MicroUsd;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{task::JoinHandle, time::sleep};
use tracing::{info, warn};

/// Rounds in a lease: two may be lost.
const ROUNDS: u64 = 3;
/// Stranded jobs that are ended in one round.
const MAX_STRANDED: usize = 200;
/// Before a stream of notices that has ended is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Starts it; it ends when the gateway is gone.
pub(super) fn spawn(gateway: &Arc<Gateway>) -> Vec<JoinHandle<()>> {
    vec![tokio::spawn(rounds(Arc::downgrade(gateway))), tokio::spawn(hear(Arc::downgrade(gateway)))]
}

async fn rounds(gateway: Weak<Gateway>) {
    while let Some(gateway) = gateway.upgrade() {
        gateway.renew().await;
        gateway.end_stranded().await;
        gateway.table().forget(clock::now());
        let pause = Duration::from_millis(gateway.config.lease_ms / ROUNDS);
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
        let running = self.table().all_running();
        for live in running {
            self.change(&live, |row| live.checkpoint(row)).await;
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
            let cost = row.cost.unwrap_or(MicroUsd(0));
            let ended = JobRow {
                status: JobStatus::Failed,
                error: Some(JobError { code: "instance_lost".into(), message: error }),
                cost: Some(cost),
                updated: now,
                ended: Some(now),
                lease: None,
                ..row
            };
            let settled = self.store.settle(&ended.id, cost, now).await;
            match settled {
                Ok(_) => match self.store.update_job(&UNDER_WAY, &ended).await {
                    Ok(true) => info!(job = %ended.id.0, "a job of an instance that is gone was ended"),
                    Ok(false) => {}
                    Err(error) => warn!("{error}"),
                },
                Err(error) => warn!("{error}"),
            }
            self.tell(&ended.id).await;
        }
    }
}
