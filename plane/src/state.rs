//! What every route is given.

use crate::{
    cashier::Cashier, config::PlaneConfig, gateway::Gateway, http::dashboard::Viewers, index::Index, legacy::Legacy,
    store::Store,
};
use std::sync::Arc;

/// A plane's parts. Cheap to clone.
#[derive(Clone)]
pub struct Plane {
    /// What it remembers.
    pub store: Arc<dyn Store>,
    /// What the network is like; empty on a plane that does not follow it.
    pub index: Arc<Index>,
    /// What buys for clients; `None` on a plane that only shows.
    pub gateway: Option<Arc<Gateway>>,
    /// Who looks after deposits; `None` on a plane without a chain.
    pub cashier: Option<Cashier>,
    /// Jobs for daemons that know nothing of the mesh.
    pub legacy: Arc<Legacy>,
    /// Who looks at its pages.
    pub viewers: Arc<Viewers>,
    /// What it is set to.
    pub config: Arc<PlaneConfig>,
}

impl Plane {
    /// A plane of these parts. What `gateway` gets no bid for goes to daemons behind the legacy bridge, if that is on.
    pub fn new(store: Arc<dyn Store>, gateway: Option<Arc<Gateway>>, config: Arc<PlaneConfig>) -> Self {
        let legacy = Arc::new(Legacy::new(config.legacy, config.offline_ms));
        if let Some(gateway) = &gateway {
            gateway.bridge(legacy.clone());
        }
        Plane { store, index: Arc::default(), gateway, cashier: None, legacy, viewers: Arc::default(), config }
    }

    /// The same, with what somebody who follows the network makes of it.
    #[must_use]
    pub fn with_index(self, index: Arc<Index>) -> Self {
        Plane { index, ..self }
    }

    /// The same, with who looks after deposits.
    #[must_use]
    pub fn with_cashier(self, cashier: Option<Cashier>) -> Self {
        Plane { cashier, ..self }
    }
}
