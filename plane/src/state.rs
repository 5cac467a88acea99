//! What every route is given.

use crate::{config::PlaneConfig, gateway::Gateway, store::Store};
use std::sync::Arc;

/// A plane's parts. Cheap to clone.
#[derive(Clone)]
pub struct Plane {
    /// What it remembers.
    pub store: Arc<dyn Store>,
    /// What buys for clients; `None` on a plane that only shows.
    pub gateway: Option<Arc<Gateway>>,
    /// What it is set to.
    pub config: Arc<PlaneConfig>,
}
