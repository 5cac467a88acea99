//! Follows gossip, as a node that only listens: what it hears goes into the index, and receipts into the store, too.
//!
//! **Three ways in**, of which each makes up for what another misses, since the index takes anything twice:
//! 1. gossip, as it comes;
//! 2. the store, at the start and every few seconds: what was heard before, and what other instances on the same store hear;
//! 3. nodes' own receipts, read when a node comes, soon again, and every hour ([`crate::rebuild`]): what was said while we were
//!    not there, or while it could not be heard.
//!
//! Gossip waits for nobody: a receipt that the store can't take now waits in a bounded queue, is tried again for a while, and
//! is then missing in the store, and counted. The index has it at once; the third way brings it to the store within the hour.

mod keep;
mod tally;

pub use self::tally::{Tally, Told};

use self::keep::Keeper;
use crate::{
    index::{Event, Index},
    rebuild::{self, Reader, Rounds, Visit},
    store::{KEPT_MS, MAX_FACTS, Store, StoreError},
};
use futures::{StreamExt, stream::FuturesUnordered};
use infernet_node::{
    clock,
    net::{self, Net, NetConfig, NetError},
};
use infernet_wire::{key::NodeKey, time::UnixMillis, topic::NetworkId};
use libp2p::Multiaddr;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{Instrument, info, info_span, warn};

/// How often the store is asked for what other instances have heard.
const LOOK_INTO_STORE: Duration = Duration::from_secs(5);
/// How often nonces, sessions and the like that are over are forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// How often it is looked whether a node's receipts are to be read.
const LOOK_FOR_NODES: Duration = Duration::from_secs(10);

/// How to follow.
#[derive(Debug, Clone)]
pub struct FollowConfig {
    /// Which network.
    pub network: NetworkId,
    /// Where to listen: an observer helps to pass messages on.
    pub listen: Vec<Multiaddr>,
    /// Where to begin.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to look for peers on the local network.
    pub mdns: bool,
    /// Connections at most.
    pub max_peers: u32,
    /// Whether to page nodes' receipts by itself.
    pub pages: bool,
}

impl FollowConfig {
    /// Follows `network` from `bootstrap` on.
    pub fn new(network: NetworkId, bootstrap: Vec<Multiaddr>) -> Self {
        FollowConfig { network, listen: Vec::new(), bootstrap, mdns: false, max_peers: 128, pages: true }
    }
}

/// Why a plane can't follow.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The mesh.
    #[error(transparent)]
    Net(#[from] NetError),
    /// What was heard before can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Follows until it is dropped or stopped.
pub struct Follower {
    net: Net,
    tally: Tally,
    keeper: Keeper,
    tasks: Vec<JoinHandle<()>>,
}

impl Follower {
    /// Reads what the store has, and joins the mesh.
    pub async fn start(
        key: &NodeKey,
        config: FollowConfig,
        store: Arc<dyn Store>,
        index: Arc<Index>,
    ) -> Result<Self, FollowError> {
        let position = catch_up(&*store, &index, 0).await?;
        let (receipts, offers) = index.read(|book| (book.ledger().len(), book.offers().count()));
        info!(receipts, offers, "the index is as the store has it");
        let net_config = NetConfig {
            network: config.network.clone(),
            listen: config.listen,
            bootstrap: config.bootstrap,
            mdns: config.mdns,
            max_peers: config.max_peers,
            ..NetConfig::default()
        };
        let (net, events) = net::start(key, net_config).await?;
        let tally = Tally::default();
        let keeper = Keeper::start(store.clone(), tally.clone());
        let span = || info_span!("follow", me = net.id().short());
        let hearing = hear(events, index.clone(), keeper.clone(), tally.clone());
        let mut tasks = vec![
            tokio::spawn(hearing.instrument(span())),
            tokio::spawn(look_into(store.clone(), index.clone(), position).instrument(span())),
            tokio::spawn(forget(store.clone()).instrument(span())),
        ];
        if config.pages {
            let reader = Reader { net: net.clone(), network: config.network, store, index };
            let paging = page(reader);
            tasks.push(tokio::spawn(paging.instrument(span())));
        }
        Ok(Follower { net, tally, keeper, tasks })
    }

    /// The mesh.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// What happened how often.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Leaves the mesh; returns when what was heard is in the store, or `grace` is over.
    pub async fn stop(&self, grace: Duration) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.net.clone().shutdown().await;
        if tokio::time::timeout(grace, self.keeper.idle()).await.is_err() {
            warn!("some receipts were not written in time; they are found again on nodes");
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Folds what the store has after `position`; returns the position of the last.
pub async fn catch_up(store: &dyn Store, index: &Index, mut position: u64) -> Result<u64, StoreError> {
    loop {
        let page = store.facts_after(position, MAX_FACTS).await?;
        let Some((last, _)) = page.last() else { return Ok(position) };
        position = *last;
        page.into_iter().for_each(|(_, fact)| {
            index.fold(Event::Receipt(fact));
        });
    }
}

async fn hear(mut events: mpsc::Receiver<net::Event>, index: Arc<Index>, keeper: Keeper, tally: Tally) {
    while let Some(event) = events.recv().await {
        let event = match &event {
            net::Event::Ad(ad) => Event::from(ad),
            net::Event::Offer(offer) => Event::from(offer),
            net::Event::Accept(accept) => Event::from(accept),
            net::Event::Receipt(receipt) => {
                keeper.keep(receipt.clone());
                Event::from(receipt)
            }
            net::Event::Answer(_) | net::Event::PeerConnected(_) | net::Event::PeerDisconnected(_) | net::Event::Rtt { .. } => {
                continue;
            }
        };
        tally.heard(&event);
        index.fold(event);
    }
}

async fn look_into(store: Arc<dyn Store>, index: Arc<Index>, mut position: u64) {
    loop {
        sleep(LOOK_INTO_STORE).await;
        match catch_up(&*store, &index, position).await {
            Ok(now) => position = now,
            Err(error) => warn!("the store can't be read, next try in {} s: {error}", LOOK_INTO_STORE.as_secs()),
        }
    }
}

async fn forget(store: Arc<dyn Store>) {
    loop {
        sleep(FORGET).await;
        let now = clock::now();
        let old = UnixMillis(now.0.saturating_sub(KEPT_MS));
        let (first, second) = (store.forget_nonces(now).await, store.forget_jobs(old).await);
        for error in [first.err(), second.err()].into_iter().flatten() {
            warn!("what is over can't be forgotten in the store: {error}");
        }
    }
}

async fn page(reader: Reader) {
    let newest = reader.index.read(|book| book.ledger().newest().map(|receipt| receipt.finished).next());
    let mut rounds = Rounds::new(newest.unwrap_or_default());
    let slots = Semaphore::new(rebuild::NODES_AT_ONCE);
    let mut visits = FuturesUnordered::new();
    let mut look = interval(LOOK_FOR_NODES);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            Some(visit) = visits.next() => visited(&mut rounds, &visit),
            _ = look.tick() => {
                let there = rebuild::nodes(&reader.net, &reader.index).await;
                visits.extend(rounds.due(there, clock::now()).into_iter().map(|wish| {
                    let (reader, slots) = (&reader, &slots);
                    async move {
                        let _slot = slots.acquire().await;
                        reader.visit(wish).await
                    }
                }));
            }
        }
    }
}

/// What one visit tells is heard when it ends: another may take minutes.
fn visited(rounds: &mut Rounds, visit: &Visit) {
    if visit.told.new > 0 {
        info!(node = visit.node.short(), new = visit.told.new, "receipts that were missed were found on a node");
    }
    rounds.ended(visit.node, visit.newest, visit.ended, visit.at);
    visit.unsigned.iter().for_each(|buyer| rounds.ask(buyer, visit.at));
}
