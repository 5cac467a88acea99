//! A whole plane: store, mesh, gateway, HTTP, started in order and stopped in the other.

use crate::{
    cashier::{Cashier, CashierError, Task as CashierTask},
    follow::{FollowConfig, FollowError, Follower},
    gateway::{Gateway, SETTLING, Through},
    http,
    index::Index,
    settings::Settings,
    state::Plane,
    store::{EmbeddedStore, PostgresStore, Store, StoreError},
    watch::{self, Watched},
};
use axum::Router;
use infernet_node::{
    api::server,
    buyer::Preferences,
    clock,
    identity::{self, IdentityError},
    net::ReachConfig,
    node::{Node, Settings as NodeSettings, StartError},
    store as node_store,
};
use infernet_wire::{key::NodeKey, topic::NetworkId};
use libp2p::Multiaddr;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fs::DirBuilder,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch as signal},
    task::{JoinHandle, spawn_blocking},
};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// How long each of these may take after the answers' time is over: jobs that are cancelled, the node that bought, the observer,
/// the store.
const LAST: Duration = Duration::from_secs(10);
/// Connections at once: ten thousand who look at live pages, and those that ask for jobs.
const MAX_CONNECTIONS: usize = 16_384;
/// Where the node that buys is, in the plane's home. Its key is also that of the plane's account on a chain.
const BUYER: &str = "buyer";
/// How often it is looked whether the store is let go.
const LOOK: Duration = Duration::from_millis(5);

/// A plane can't start.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// Its directory.
    #[error("can't use {}: {source}", path.display())]
    Home {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key of its own.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// What it remembers.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The mesh.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The node that it buys through.
    #[error(transparent)]
    Node(#[from] StartError),
    /// That node's receipts.
    #[error(transparent)]
    Receipts(#[from] node_store::StoreError),
    /// The chain that clients deposit on.
    #[error(transparent)]
    Cashier(#[from] CashierError),
    /// Its address.
    #[error("can't listen on {addr}: {source}; name another address with --{flag}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
        /// Which flag.
        flag: &'static str,
    },
    /// Its certificate.
    #[error("TLS: {0}")]
    Tls(String),
}

/// A running plane.
pub struct Running {
    /// Where HTTP is.
    pub addr: SocketAddr,
    /// Where `/metrics` is.
    pub watch_addr: Option<SocketAddr>,
    /// Its parts.
    pub plane: Plane,
    follower: Arc<Follower>,
    node: Option<Node>,
    cashier: Option<CashierTask>,
    stop: signal::Sender<bool>,
    servers: Vec<JoinHandle<Arc<Semaphore>>>,
}

/// Opens what is remembered.
pub async fn open_store(place: &str, network: &NetworkId) -> Result<Arc<dyn Store>, StoreError> {
    if place.starts_with("postgres://") || place.starts_with("postgresql://") {
        return Ok(Arc::new(PostgresStore::open(place, network).await?));
    }
    if let Some((scheme, _)) = place.split_once("://") {
        return Err(StoreError::Refused(format!(
            "--store {scheme}://: name a directory, or postgres://user:password@host/database"
        )));
    }
    // It may wait for the one before to let go.
    let (place, network) = (PathBuf::from(place), network.clone());
    let opened = spawn_blocking(move || EmbeddedStore::open(&place, &network)).await;
    Ok(Arc::new(opened.unwrap_or_else(|error| Err(StoreError::Unreachable(error.to_string())))?))
}

/// The key in `home/name`, made at the first start.
pub fn key(home: &Path, name: &str) -> Result<NodeKey, PlaneError> {
    let home = home.join(name);
    // What is in there is nobody else's business.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&home);
    made.map_err(|source| PlaneError::Home { path: home.clone(), source })?;
    let exists = home.join(identity::KEY_FILE).try_exists().unwrap_or(true);
    Ok(if exists { identity::load(&home)? } else { identity::init(&home)? })
}

/// How it follows.
pub fn follow_config(settings: &Settings) -> FollowConfig {
    FollowConfig {
        network: settings.plane.network.clone(),
        listen: settings.p2p_listen.clone(),
        bootstrap: settings.bootstrap.clone(),
        mdns: settings.mdns,
        max_peers: settings.max_peers,
        pages: true,
    }
}

impl Running {
    /// Starts everything. Sockets are bound first, so that a taken one is told at once.
    pub async fn start(settings: Settings) -> Result<Self, PlaneError> {
        // Fails only if a provider is installed already, which is just as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let tls = settings.tls.as_ref().map(|(cert, key)| acceptor(cert, key)).transpose()?;
        let (listener, addr) = bind(settings.listen, "listen").await?;
        let watching = match settings.watch_listen {
            Some(listen) => Some(bind(listen, "watch-listen").await?),
            None => None,
        };
        let store = open_store(&settings.store, &settings.plane.network).await?;
        info!("{}", store.place());
        let index = Arc::new(Index::default());
        let observer = key(&settings.home, "observer")?;
        let follower = Arc::new(Follower::start(&observer, follow_config(&settings), store.clone(), index.clone()).await?);
        let node = if settings.buys { Some(node(&settings, &follower).await?) } else { None };
        let gateway =
            node.as_ref().map(|node| Gateway::start(Through::from(node), store.clone(), settings.plane.gateway.clone()));
        let (cashier, cashier_task) = match settings.cashier {
            Some(config) => {
                let (cashier, task) = Cashier::start(config, key(&settings.home, BUYER)?, store.clone()).await?;
                (Some(cashier), Some(task))
            }
            None => (None, None),
        };
        let mut config = settings.plane;
        // On any free port, the origin is known only now.
        if let Some(host) = config.origin.strip_suffix(":0") {
            config.origin = format!("{host}:{}", addr.port());
        }
        let plane = Plane::new(store, gateway, Arc::new(config)).with_index(index).with_cashier(cashier);
        let watched = Watched::new(plane.clone(), follower.clone());
        let (stop, stopping) = signal::channel(false);
        let router = watch::health(watched.clone()).merge(http::router(plane.clone()));
        let mut servers = vec![serve(listener, tls, router, stopping.clone())];
        let watch_addr = watching.map(|(listener, addr)| {
            servers.push(serve(listener, None, watch::all(watched), stopping));
            addr
        });
        Ok(Running { addr, watch_addr, plane, follower, node, cashier: cashier_task, stop, servers })
    }

    /// Who follows for it.
    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Takes nothing new, lets answers that run end for `grace` at most, and writes what is to be written. Four times `LAST`
    /// after `grace` it is over.
    pub async fn stop(self, grace: Duration) {
        // Of jobs and of connections: whoever was told of a cancelled job's end needs no more time than that took.
        let deadline = clock::deadline(grace + SETTLING);
        if let Some(gateway) = &self.plane.gateway {
            gateway.stop(grace).await;
        }
        self.plane.viewers.close();
        self.stop.send_replace(true);
        for server in self.servers {
            let Ok(connections) = server.await else { continue };
            let all = connections.acquire_many(MAX_CONNECTIONS as u32);
            if tokio::time::timeout_at(deadline, all).await.is_err() {
                warn!("some connections were cut");
            }
        }
        if let Some(node) = self.node {
            node.shutdown(LAST).await;
        }
        if let Some(cashier) = self.cashier {
            cashier.stop().await;
        }
        self.follower.stop(LAST).await;
        // Whoever starts next may open the store as soon as this returns.
        let store = Arc::downgrade(&self.plane.store);
        drop((self.plane, self.follower));
        if tokio::time::timeout(LAST, released(&store)).await.is_err() {
            warn!("something still holds the store");
        }
    }
}

/// Resolves when nobody holds the store: tasks that were ended let go of it when the runtime comes to them.
async fn released(store: &Weak<dyn Store>) {
    while store.strong_count() > 0 {
        tokio::time::sleep(LOOK).await;
    }
}

/// The node that buys. It begins at the observer, so that what it says is heard there.
async fn node(settings: &Settings, follower: &Follower) -> Result<Node, PlaneError> {
    let near = follower.net().listen_addresses().await;
    let bootstrap: Vec<Multiaddr> = near.into_iter().chain(settings.bootstrap.clone()).collect();
    let home = settings.home.join(BUYER);
    let key = key(&settings.home, BUYER)?;
    let store = node_store::open(&home, &settings.plane.network)?;
    let settings = NodeSettings {
        key,
        former: Vec::new(),
        network: settings.plane.network.clone(),
        listen: Vec::new(),
        chat_listen: (Ipv4Addr::UNSPECIFIED, 0).into(),
        bootstrap,
        mdns: settings.mdns,
        max_peers: settings.max_peers,
        reach: ReachConfig::default(),
        serve: None,
        preferences: Preferences::default(),
        tap: None,
    };
    Ok(Node::start(settings, store).await?)
}

async fn bind(addr: SocketAddr, flag: &'static str) -> Result<(TcpListener, SocketAddr), PlaneError> {
    let failed = |source| PlaneError::Listen { addr, source, flag };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: signal::Receiver<bool>,
) -> JoinHandle<Arc<Semaphore>> {
    let left_out = || warn!("more than {MAX_CONNECTIONS} connections: one is turned away");
    match tls {
        Some(tls) => {
            let wrap = move |stream| {
                let tls = tls.clone();
                async move { tls.accept(stream).await }
            };
            tokio::spawn(server::serve(listener, wrap, router, MAX_CONNECTIONS, left_out, stop))
        }
        None => {
            let wrap = |stream| std::future::ready(Ok::<TcpStream, io::Error>(stream));
            tokio::spawn(server::serve(listener, wrap, router, MAX_CONNECTIONS, left_out, stop))
        }
    }
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, PlaneError> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| PlaneError::Tls(format!("{}: {error}", path.display()));
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(cert).map_err(|error| failed(cert, &error))?.collect();
    let chain = chain.map_err(|error| failed(cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| PlaneError::Tls(error.to_string()))?.with_no_client_auth();
    let config = builder.with_single_cert(chain, secret).map_err(|error| failed(key, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
