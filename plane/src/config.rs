//! What a plane is set to.

use crate::{gateway::GatewayConfig, http::HttpConfig};

/// What a plane is set to.
#[derive(Debug, Clone)]
pub struct PlaneConfig {
    /// Where clients find it, such as `https://plane.example`: what signed requests and sign-ins must name.
    pub origin: String,
    /// Who is let in, and how often.
    pub http: HttpConfig,
    /// What it buys for others.
    pub gateway: GatewayConfig,
}

impl PlaneConfig {
    /// A plane at `origin` with everything else at its default.
    pub fn new(origin: impl Into<String>) -> Self {
        let origin = origin.into().trim_end_matches('/').to_owned();
        PlaneConfig { origin, http: HttpConfig::default(), gateway: GatewayConfig::default() }
    }
}
