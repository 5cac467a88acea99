//! A plane beside a network on this machine: in this process, on free ports, with a home that goes with it.

use crate::cluster::{ClusterError, NETWORK, loopback};
use infernet_plane::{
    server::Running,
    settings::{Keys, Settings},
};
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
}

impl Beside {
    /// Starts one that begins at `bootstrap`.
    pub async fn start(bootstrap: Vec<Multiaddr>) -> Result<Self, ClusterError> {
        let home = tempfile::Builder::new().prefix("infernet-plane-").tempdir().map_err(ClusterError::Home)?;
        let keys = Keys {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            watch_listen: Some("127.0.0.1:0".into()),
            network: Some(NETWORK.parse().unwrap_or_default()),
            bootstrap: Some(bootstrap),
            p2p_listen: Some(vec![loopback()]),
            mdns: Some(false),
            ..Keys::default()
        };
        let settings = Settings::load(home.path(), keys).map_err(|error| ClusterError::Plane(error.to_string()))?;
        let running = Running::start(settings).await.map_err(|error| ClusterError::Plane(error.to_string()))?;
        Ok(Beside { running, home })
    }

    /// Where it is served.
    pub fn url(&self) -> String {
        format!("http://{}", self.running.addr)
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
