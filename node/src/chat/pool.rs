//! Warm connections to workers, so that a job's first byte leaves at once.
//!
//! A buyer starts connecting when a bid comes in, not when it has won: by the time the auction closes, the handshake is over.
//! Each worker has at most one connection; whoever asks while it is being made waits for the same handshake.

use super::endpoint::{ConnectError, Connection, Endpoint};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use infernet_wire::id::NodeId;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Connections kept: two rounds of bidders. Above, the one used longest ago is let go; its streams go on until they end.
const CAPACITY: usize = 64;

type Handshake = Shared<BoxFuture<'static, Result<Connection, ConnectError>>>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    endpoint: Endpoint,
    entries: Arc<Mutex<Entries>>,
}

#[derive(Default)]
struct Entries {
    by_worker: BTreeMap<NodeId, Entry>,
    uses: u64,
}

struct Entry {
    handshake: Handshake,
    last_use: u64,
}

impl Pool {
    /// An empty pool that dials from `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Pool { endpoint, entries: Arc::default() }
    }

    /// Starts connecting to `worker` unless that is done or under way.
    pub fn warm(&self, worker: NodeId, addrs: &[SocketAddr]) {
        let handshake = self.handshake(worker, addrs);
        if handshake.peek().is_none() {
            tokio::spawn(handshake);
        }
    }

    /// A live connection to `worker`, made now if there is none.
    pub async fn get(&self, worker: NodeId, addrs: &[SocketAddr]) -> Result<Connection, ConnectError> {
        self.handshake(worker, addrs).await
    }

    /// Forgets the connection to `worker`, so that the next one is new. Streams on it end.
    pub fn drop_connection(&self, worker: &NodeId) {
        let entry = self.lock().by_worker.remove(worker);
        if let Some(Ok(connection)) = entry.and_then(|e| e.handshake.peek().cloned()) {
            connection.close("no answer");
        }
    }

    fn handshake(&self, worker: NodeId, addrs: &[SocketAddr]) -> Handshake {
        let mut entries = self.lock();
        entries.uses += 1;
        let now = entries.uses;
        if let Some(entry) = entries.by_worker.get_mut(&worker)
            && entry.is_usable()
        {
            entry.last_use = now;
            return entry.handshake.clone();
        }
        entries.make_room();
        let (endpoint, addrs) = (self.endpoint.clone(), addrs.to_vec());
        let handshake = async move { endpoint.connect(worker, &addrs).await }.boxed().shared();
        entries.by_worker.insert(worker, Entry { handshake: handshake.clone(), last_use: now });
        handshake
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Nothing in here panics while it holds the lock.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn make_room(&mut self) {
        self.by_worker.retain(|_, entry| entry.is_usable());
        if self.by_worker.len() >= CAPACITY
            && let Some(oldest) = self.by_worker.iter().min_by_key(|(_, e)| e.last_use).map(|(id, _)| *id)
        {
            self.by_worker.remove(&oldest);
        }
    }
}

impl Entry {
    /// Under way, or done and still open.
    fn is_usable(&self) -> bool {
        match self.handshake.peek() {
            None => true,
            Some(Ok(connection)) => connection.is_open(),
            Some(Err(_)) => false,
        }
    }
}
