//! What a plane is set to.

use crate::{gateway::GatewayConfig, http::HttpConfig, presence::SILENCE_MS};
use infernet_wire::topic::NetworkId;

/// What a plane is set to.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaneConfig {
    /// Where clients find it, such as `https://plane.example`: what signed requests and sign-ins must name.
    pub origin: String,
    /// Which network it follows.
    pub network: NetworkId,
    /// Whether daemons that know nothing of the mesh get jobs that no worker of the mesh bid on.
    pub legacy: bool,
    /// After so many milliseconds of silence a registered node is offline.
    pub offline_ms: u64,
    /// Who is let in, and how often.
    pub http: HttpConfig,
    /// What it buys for others.
    pub gateway: GatewayConfig,
}

impl PlaneConfig {
    /// A plane at `origin` with everything else at its default.
    pub fn new(origin: impl Into<String>) -> Self {
        let origin = origin.into().trim_end_matches('/').to_owned();
        PlaneConfig {
            origin,
            network: NetworkId::default(),
            legacy: true,
            offline_ms: SILENCE_MS,
            http: HttpConfig::default(),
            gateway: GatewayConfig::default(),
        }
    }
}
