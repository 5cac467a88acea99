//! What every store must do, as its traits say. Each store's tests call [`conforms`] with two handles to one memory: the same
//! twice, or those of two instances. Stores may hold other things already; names here are new each time.

mod clients;
mod commands;
mod jobs;
mod money;
mod nodes;
mod onchain;
mod receipts;

use super::{Notice, Pubkey, Store, WebJobId};
use futures::StreamExt;
use infernet_node::clock;
use infernet_wire::{id::Hash, time::UnixMillis};
use std::{future::Future, sync::Arc, time::Duration};

/// Tasks that race.
const RACERS: usize = 16;
/// For what is to happen soon.
const SOON: Duration = Duration::from_secs(10);
/// The suite's own present: stores read no clock.
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Holds two handles of one memory to all rules.
pub(super) async fn conforms(one: Arc<dyn Store>, other: Arc<dyn Store>) {
    one.ready().await.expect("the store is ready");
    let both = Both(one, other);
    receipts::conform(&both).await;
    nodes::conform(&both).await;
    jobs::conform(&both).await;
    clients::conform(&both).await;
    money::conform(&both).await;
    commands::conform(&both).await;
    onchain::conform(&both).await;
    notices_reach_all(&both).await;
}

/// Two handles of one memory.
pub(super) struct Both(Arc<dyn Store>, Arc<dyn Store>);

impl Both {
    fn store(&self) -> &dyn Store {
        &*self.0
    }

    /// What so many tasks are told who do the same at the same time, half of them by each handle.
    async fn race<T: Send + 'static, F>(&self, act: impl Fn(Arc<dyn Store>, usize) -> F) -> Vec<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let handle = |racer: usize| if racer.is_multiple_of(2) { self.0.clone() } else { self.1.clone() };
        let tasks: Vec<_> = (0..RACERS).map(|racer| tokio::spawn(act(handle(racer), racer))).collect();
        let mut told = Vec::new();
        for task in tasks {
            told.push(task.await.expect("a racer ends"));
        }
        told
    }
}

fn pubkey() -> Pubkey {
    Pubkey(clock::random())
}

fn hash() -> Hash {
    Hash(clock::random())
}

fn name(prefix: &str) -> String {
    format!("{prefix}{:032x}", u128::from_be_bytes(clock::random()))
}

fn job_id() -> WebJobId {
    WebJobId(name("job_"))
}

fn later(seconds: u64) -> UnixMillis {
    NOW.after(seconds * 1000)
}

async fn notices_reach_all(both: &Both) {
    let notice = Notice::Node { pubkey: pubkey() };
    let (mut here, mut there) = (both.0.notices(), both.1.notices());
    let told = async {
        for heard in [&mut here, &mut there] {
            while heard.next().await.expect("notices go on") != notice {}
        }
    };
    // A listener that has just come may not have reached its server yet.
    let tell = async {
        loop {
            both.0.notify(&notice).await.expect("notices are taken");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = told => {}
        () = tell => {}
        () = tokio::time::sleep(SOON) => panic!("a notice did not reach both"),
    }
    for notice in [
        Notice::Job { id: job_id() },
        Notice::Cancel { id: job_id() },
        Notice::Command { id: name(""), node: pubkey() },
        Notice::Node { pubkey: pubkey() },
    ] {
        let mut heard = both.1.notices();
        both.0.notify(&notice).await.expect("notices are taken");
        let arrives = async { while heard.next().await.expect("notices go on") != notice {} };
        tokio::time::timeout(SOON, arrives).await.expect("a notice arrives");
    }
}
