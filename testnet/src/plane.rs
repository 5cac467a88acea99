//! A plane beside a network on this machine: in this process, on free ports, with a home that goes with it.

use crate::cluster::{ClusterError, NETWORK, loopback};
use infernet_plane::{
    accounts::{self, KeyWish, Scope},
    server::Running,
    settings::{Keys, Settings},
};
use infernet_wire::money::MicroUsd;
use libp2p::Multiaddr;
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tempfile::TempDir;

/// A running plane.
pub struct Beside {
    /// It.
    pub running: Running,
    home: TempDir,
    key: String,
}

/// What the plane's first client has to spend: ten dollars.
const BALANCE: MicroUsd = MicroUsd(10_000_000);

impl Beside {
    /// Starts one that begins at `bootstrap`.
    pub async fn start(bootstrap: Vec<Multiaddr>) -> Result<Self, ClusterError> {
        let home = tempfile::Builder::new().prefix("infernet-plane-").tempdir().map_err(ClusterError::Home)?;
        let keys = Keys {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            // Browsers lend passkeys to names, not to addresses.
            origin: Some("http://localhost:0".into()),
            watch_listen: Some("127.0.0.1:0".into()),
            network: Some(NETWORK.parse().unwrap_or_default()),
            bootstrap: Some(bootstrap.into_iter().map(Into::into).collect()),
            p2p_listen: Some(vec![loopback()]),
            mdns: Some(false),
            ..Keys::default()
        };
        let settings = Settings::load(home.path(), keys).map_err(|error| ClusterError::Plane(error.to_string()))?;
        let running = Running::start(settings).await.map_err(|error| ClusterError::Plane(error.to_string()))?;
        let key = client(&running).await?;
        Ok(Beside { running, home, key })
    }

    /// Where it is served.
    pub fn url(&self) -> String {
        self.running.plane.config.origin.clone()
    }

    /// An API key that may do all, of a client with ten dollars to spend.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its home.
    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Stops it.
    pub async fn stop(self) {
        self.running.stop(Duration::from_secs(1)).await;
    }
}

async fn client(running: &Running) -> Result<String, ClusterError> {
    let failed = |error: &dyn std::fmt::Display| ClusterError::Plane(error.to_string());
    let store = &*running.plane.store;
    let row = accounts::new_client(store, "you", true).await.map_err(|error| failed(&error))?;
    accounts::grant(store, &row.id, BALANCE, "a beginning").await.map_err(|error| failed(&error))?;
    let scopes = Scope::ALL.map(|scope| scope.name().to_owned()).to_vec();
    let wish = KeyWish { name: "first".into(), scopes, ..KeyWish::default() };
    let (text, _) = accounts::new_key(store, &row.id, wish).await.map_err(|error| failed(&error))?;
    Ok(text.to_string())
}
