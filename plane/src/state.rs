//! What every route is given.

use crate::{config::PlaneConfig, gateway::Gateway, legacy::Legacy, store::Store};
use std::sync::Arc;

/// A plane's parts. Cheap to clone.
#[derive(Clone)]
pub struct Plane {
    /// What it remembers.
    pub store: Arc<dyn Store>,
    /// What buys for clients; `None` on a plane that only shows.
    pub gateway: Option<Arc<Gateway>>,
    /// Jobs for daemons that know nothing of the mesh.
    pub legacy: Arc<Legacy>,
    /// How it was set up.
    pub config: Arc<PlaneConfig>,
}
