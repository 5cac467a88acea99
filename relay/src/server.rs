//! A whole relay, started in order and stopped in the other.

use crate::{
    bootstrap::About,
    desk,
    hop::{self, Relaying},
    pipe::Tap,
    settings::Settings,
    watch as watching,
};
use axum::Router;
use infernet_node::{
    api::server::{self, MAX_CONNECTIONS},
    clock, config,
    identity::{self, IdentityError},
    net::{self, Event, Mode, Net, NetConfig, NetError, ReachConfig},
};
use infernet_wire::key::NodeKey;
use libp2p::PeerId;
use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};
use tracing::{info, warn};

/// For the last answers over HTTP.
const LAST: Duration = Duration::from_secs(5);

/// A relay can't start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Its directory.
    #[error("can't use {}: {source}", path.display())]
    Home {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two relays with one key would take each other's circuits.
    #[error("a relay runs in {} already: stop it, or name another directory with --home", .0.display())]
    Taken(PathBuf),
    /// Its key.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// The mesh.
    #[error(transparent)]
    Net(#[from] NetError),
    /// An address for HTTP.
    #[error("can't listen on {addr}: {source}; name another address with --{flag}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
        /// Which flag.
        flag: &'static str,
    },
}

impl RelayError {
    /// The exit code, as `infernet` has them: 3 for home and key, 4 for an address in use.
    pub fn exit(&self) -> u8 {
        let in_use = |kind: io::ErrorKind| if kind == io::ErrorKind::AddrInUse { 4 } else { 1 };
        match self {
            RelayError::Home { .. } | RelayError::Taken(_) | RelayError::Key(_) => 3,
            RelayError::Listen { source, .. } => in_use(source.kind()),
            RelayError::Net(NetError::Listen { .. }) => 4,
            _ => 1,
        }
    }
}

/// A relay that runs.
pub struct Running {
    /// Where `/bootstrap.json` is, if anywhere.
    pub http: Option<SocketAddr>,
    /// Where `/metrics` is, if anywhere.
    pub watch: Option<SocketAddr>,
    /// What it tells of itself.
    pub about: About,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<Arc<Semaphore>>>,
    /// Its home is its own while this is open.
    home: File,
}

/// The key in `home`, made at the first start.
pub fn key(home: &Path) -> Result<NodeKey, RelayError> {
    // What is in there is nobody else's business.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(home);
    made.map_err(|source| RelayError::Home { path: home.to_owned(), source })?;
    let exists = home.join(identity::KEY_FILE).try_exists().unwrap_or(true);
    Ok(if exists { identity::load(home)? } else { identity::init(home)? })
}

/// Claims `home`, which has a key, for one relay.
fn claim(home: &Path) -> Result<File, RelayError> {
    let failed = |source| RelayError::Home { path: home.to_owned(), source };
    let file = File::open(home.join(identity::KEY_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RelayError::Taken(home.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

impl Running {
    /// Starts everything. Sockets are bound when this returns. `tap`: for tests.
    pub async fn start(mut settings: Settings, tap: Option<Tap>) -> Result<Self, RelayError> {
        if !config::has_ipv6() && settings.leave_out_ipv6() {
            info!("this machine has no IPv6: it listens on IPv4 alone");
        }
        // Fails only if a provider is installed already, which is just as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = key(&settings.home)?;
        let home = claim(&settings.home)?;
        let http = bind(settings.http_listen, "http-listen").await?;
        let watched = bind(settings.watch_listen, "watch-listen").await?;
        let (door, requests) = hop::door();
        let config = NetConfig {
            doors: vec![door],
            network: settings.network.clone(),
            listen: settings.listen.clone(),
            bootstrap: settings.bootstrap.clone(),
            mdns: settings.mdns,
            max_peers: settings.limits.peers,
            serves: true,
            dial_back: true,
            // Whoever needs a relay to be reached is none.
            reach: ReachConfig {
                mode: Mode::Direct,
                external: settings.external_address.clone(),
                hidden: settings.hide_address,
                ..ReachConfig::default()
            },
            ..NetConfig::default()
        };
        let (net, events) = net::start(&key, config).await?;
        let idle = settings.limits.idle;
        let desk = desk::start(settings.limits);
        let relaying = Relaying { net: net.clone(), desk: desk.clone(), external: settings.external_address, idle, tap };
        hop::serve(relaying.clone(), requests);
        tokio::spawn(follow(events, net, desk));
        let about = About { relaying, network: settings.network, operator: settings.operator, region: settings.region };
        let (stop, stopping) = watch::channel(false);
        let mut running = Running { http: None, watch: None, about, stop, servers: Vec::new(), home };
        running.http = http.map(|(listener, addr)| {
            running.servers.push(serve(listener, watching::public(running.about.clone()), stopping.clone()));
            addr
        });
        running.watch = watched.map(|(listener, addr)| {
            running.servers.push(serve(listener, watching::all(running.about.clone()), stopping));
            addr
        });
        Ok(running)
    }

    /// Its part in the mesh.
    pub fn net(&self) -> &Net {
        &self.about.relaying.net
    }

    /// Takes nothing new, says so (`/readyz`, `/bootstrap.json`, refusals), lets circuits end for `grace` at most, and leaves.
    pub async fn stop(self, grace: Duration) {
        let relaying = self.about.relaying;
        relaying.desk.drain().await;
        if !relaying.desk.wait_empty(grace).await {
            warn!("{} circuits were cut", relaying.desk.told().await.circuits);
        }
        relaying.net.shutdown().await;
        self.stop.send_replace(true);
        let deadline = clock::deadline(LAST);
        for server in self.servers {
            let Ok(connections) = server.await else { continue };
            let all = connections.acquire_many(MAX_CONNECTIONS as u32);
            let _ = tokio::time::timeout_at(deadline, all).await;
        }
        drop(self.home);
        info!("stopped");
    }
}

/// What is gossiped has been checked and passed on before it comes here, and nothing of it concerns a relay.
async fn follow(mut events: mpsc::Receiver<Event>, net: Net, desk: desk::Desk) {
    while let Some(event) = events.recv().await {
        if let Event::PeerDisconnected(id) = event
            // It may be back, with a new reservation.
            && net.peer(id).await.is_none()
            && let Ok(peer) = PeerId::from_bytes(&id.to_peer_id_bytes())
        {
            desk.left(peer).await;
        }
    }
}

async fn bind(addr: Option<SocketAddr>, flag: &'static str) -> Result<Option<(TcpListener, SocketAddr)>, RelayError> {
    let Some(addr) = addr else { return Ok(None) };
    let failed = |source| RelayError::Listen { addr, source, flag };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok(Some((listener, bound)))
}

fn serve(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) -> JoinHandle<Arc<Semaphore>> {
    let wrap = |stream| std::future::ready(Ok::<TcpStream, io::Error>(stream));
    let left_out = || warn!("more than {MAX_CONNECTIONS} connections over HTTP: one is turned away");
    tokio::spawn(server::serve(listener, wrap, router, MAX_CONNECTIONS, left_out, stop))
}
