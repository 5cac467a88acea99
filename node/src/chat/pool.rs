//! Warm connections to workers, so that a job's first byte leaves at once.
//!
//! A buyer starts connecting when a bid comes in, not when it has won: by the time the auction closes, the handshake is over.
//! Each worker has at most one connection; whoever asks while it is being made waits for the same handshake.
//!
//! To a worker that is [kept](Pool::keep) it is made again as soon as it is lost, so that a job at its standing price never
//! waits for a handshake.

use super::{
    deadline,
    endpoint::{ConnectError, Connection, Endpoint},
};
use crate::clock;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use infernet_wire::id::NodeId;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

/// Connections kept: two rounds of bidders. Above, the one used longest ago is let go; its streams go on until they end.
const CAPACITY: usize = 64;

/// Workers to whom a connection is kept: half of the room, so that bidders find some too.
const MAX_KEPT: usize = CAPACITY / 2;
/// For so long after a failure others ways are tried first: a firewall stays, and each try costs a whole deadline.
const UNREACHABLE: Duration = Duration::from_secs(60);
/// Workers remembered as unreachable. More are forgotten, the first to fail first; it only costs a deadline.
const MAX_UNREACHABLE: usize = 256;
/// The pause before a lost connection is tried again after a failure; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Failures in a row after which a worker is given up, half a minute later, until somebody asks to keep it again: its next ad.
const MAX_FAILURES: u32 = 7;

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
    /// Where to dial those to whom a connection is kept.
    kept: BTreeMap<NodeId, Vec<SocketAddr>>,
    /// Whom nobody could connect to, and when that was.
    unreachable: BTreeMap<NodeId, Instant>,
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

    /// Starts connecting to `worker` unless that is done or under way, or there is nowhere to connect to.
    pub fn warm(&self, worker: NodeId, addrs: &[SocketAddr]) {
        if addrs.is_empty() {
            return;
        }
        let handshake = self.handshake(worker, addrs);
        if handshake.peek().is_none() {
            tokio::spawn(handshake);
        }
    }

    /// Keeps a connection to `worker`: makes it if there is none, and again whenever it is lost. Where it answers may change.
    pub fn keep(&self, worker: NodeId, addrs: Vec<SocketAddr>) {
        if addrs.is_empty() {
            return;
        }
        let mut entries = self.lock();
        if entries.kept.len() >= MAX_KEPT && !entries.kept.contains_key(&worker) {
            return;
        }
        if entries.kept.insert(worker, addrs).is_none() {
            let keeper = Keeper { endpoint: self.endpoint.clone(), entries: Arc::downgrade(&self.entries) };
            tokio::spawn(keeper.run(worker));
        }
    }

    /// A live connection to `worker`, made now if there is none. A handshake that takes longer than [`deadline::CONNECT`] goes on
    /// for the next job: a worker that is in the middle of a crowd answers late, and is not dead.
    pub async fn get(&self, worker: NodeId, addrs: &[SocketAddr]) -> Result<Connection, ConnectError> {
        let handshake = self.handshake(worker, addrs);
        if handshake.peek().is_none() {
            tokio::spawn(handshake.clone());
        }
        if let Ok(connected) = timeout(deadline::CONNECT, handshake).await {
            return connected;
        }
        self.lock().ended(worker, false);
        Err(addrs.first().map_or(ConnectError::NoAddress, |addr| ConnectError::Timeout(*addr)))
    }

    /// Whether it was lately in vain to connect to `worker`, and nothing better is known.
    pub fn is_unreachable(&self, worker: &NodeId) -> bool {
        let entries = self.lock();
        let connected =
            entries.by_worker.get(worker).is_some_and(|entry| matches!(entry.handshake.peek(), Some(Ok(c)) if c.is_open()));
        let lately = |at: &Instant| clock::instant().saturating_duration_since(*at) < UNREACHABLE;
        !connected && entries.unreachable.get(worker).is_some_and(lately)
    }

    /// How far away `worker` is, if it is connected.
    pub fn rtt(&self, worker: &NodeId) -> Option<Duration> {
        match self.lock().by_worker.get(worker)?.handshake.peek() {
            Some(Ok(connection)) => Some(connection.rtt()),
            _ => None,
        }
    }

    /// Forgets the connection to `worker`, which has fallen silent, so that the next one is new. Streams on it are lost.
    pub fn drop_connection(&self, worker: &NodeId) {
        let entry = self.lock().by_worker.remove(worker);
        if let Some(Ok(connection)) = entry.and_then(|e| e.handshake.peek().cloned()) {
            connection.abandon();
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
        let all = Arc::downgrade(&self.entries);
        let handshake = async move {
            let connection = endpoint.connect(worker, &addrs).await;
            if let Some(entries) = all.upgrade() {
                entries.lock().unwrap_or_else(PoisonError::into_inner).ended(worker, connection.is_ok());
            }
            connection
        };
        let handshake = handshake.boxed().shared();
        entries.by_worker.insert(worker, Entry { handshake: handshake.clone(), last_use: now });
        handshake
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        // Nothing in here panics while it holds the lock.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renews one connection. It does not keep the pool alive.
struct Keeper {
    endpoint: Endpoint,
    entries: Weak<Mutex<Entries>>,
}

impl Keeper {
    async fn run(self, worker: NodeId) {
        let mut failures = 0;
        while failures < MAX_FAILURES && !self.endpoint.is_closed() {
            let Some(handshake) = self.handshake(worker) else { return };
            match handshake.await {
                Ok(connection) => {
                    failures = 0;
                    connection.closed().await;
                }
                Err(_) => {
                    sleep(FIRST_PAUSE * 2u32.pow(failures)).await;
                    failures += 1;
                }
            }
        }
        if let Some(pool) = self.pool() {
            pool.lock().kept.remove(&worker);
        }
    }

    fn handshake(&self, worker: NodeId) -> Option<Handshake> {
        let pool = self.pool()?;
        let addrs = pool.lock().kept.get(&worker)?.clone();
        Some(pool.handshake(worker, &addrs))
    }

    fn pool(&self) -> Option<Pool> {
        Some(Pool { endpoint: self.endpoint.clone(), entries: self.entries.upgrade()? })
    }
}

impl Entries {
    /// A handshake is over.
    fn ended(&mut self, worker: NodeId, connected: bool) {
        if connected {
            self.unreachable.remove(&worker);
            return;
        }
        if self.unreachable.len() >= MAX_UNREACHABLE
            && let Some(first) = self.unreachable.iter().min_by_key(|(_, at)| **at).map(|(id, _)| *id)
        {
            self.unreachable.remove(&first);
        }
        self.unreachable.insert(worker, clock::instant());
    }

    fn make_room(&mut self) {
        self.by_worker.retain(|_, entry| entry.is_usable());
        if self.by_worker.len() >= CAPACITY
            && let Some(oldest) =
                self.by_worker.iter().min_by_key(|(id, e)| (self.kept.contains_key(id), e.last_use)).map(|(id, _)| *id)
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

#[cfg(test)]
mod tests {
    use super::*;
    use infernet_wire::key::NodeKey;
    use std::net::Ipv4Addr;
    use tokio::sync::{Notify, mpsc};

    const SOON: Duration = Duration::from_secs(20);

    fn endpoint(n: u8) -> (NodeId, Endpoint) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = NodeKey::from_bytes(&[n; 32]).expect("a valid scalar");
        (key.id(), Endpoint::bind(&key, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binds a free port"))
    }

    #[tokio::test]
    async fn a_handshake_that_takes_too_long_for_one_job_is_there_for_the_next() {
        let ((worker, served), (_, buyer)) = (endpoint(2), endpoint(1));
        let addr = served.local_addr().expect("bound");
        let crowd_is_over = Arc::new(Notify::new());
        let goes_on = crowd_is_over.clone();
        let serving = tokio::spawn(async move {
            let dialling = served.accept().await.expect("a dial");
            goes_on.notified().await;
            dialling.finish().await.expect("a handshake")
        });
        let pool = Pool::new(buyer);
        assert_eq!(pool.get(worker, &[addr]).await.err(), Some(ConnectError::Timeout(addr)));
        assert!(pool.is_unreachable(&worker), "other ways are tried first");
        crowd_is_over.notify_one();
        let connection = timeout(SOON, pool.handshake(worker, &[])).await.expect("in time").expect("the same handshake");
        let served = timeout(SOON, serving).await.expect("in time").expect("it served");
        assert!(served.is_open() && connection.is_open() && !pool.is_unreachable(&worker));
    }

    #[tokio::test]
    async fn a_kept_connection_that_is_lost_is_made_again() {
        let ((worker, served), (_, buyer)) = (endpoint(2), endpoint(1));
        let addr = served.local_addr().expect("bound");
        let (accepted, mut connections) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(dialling) = served.accept().await {
                let _ = accepted.send(dialling.finish().await.expect("a handshake")).await;
            }
        });
        let pool = Pool::new(buyer.clone());
        pool.keep(worker, vec![addr]);
        pool.keep(worker, vec![addr]);
        for _ in 0..3 {
            let connection = timeout(SOON, connections.recv()).await.expect("in time").expect("a connection");
            connection.close("as a restarted worker would");
        }
        let last = timeout(SOON, connections.recv()).await.expect("in time").expect("a connection");
        assert!(last.is_open() && pool.get(worker, &[]).await.is_ok(), "without an address, so it is there already");
        buyer.close().await;
        assert!(connections.is_empty());
    }
}
