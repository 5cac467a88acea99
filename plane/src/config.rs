//! What a plane is set to.

use crate::{gateway::GatewayConfig, http::HttpConfig};
use infernet_wire::topic::NetworkId;

/// What a plane is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaneConfig {
    /// Its public origin, such as `https://plane.example`: what signed requests name as `aud`, and sign-ins must be for.
    pub origin: String,
    /// Which network it follows.
    pub network: NetworkId,
    /// Whether daemons that know nothing of the mesh get jobs that no worker of the mesh wanted.
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
        PlaneConfig { origin, ..PlaneConfig::default() }
    }
}

impl Default for PlaneConfig {
    fn default() -> Self {
        PlaneConfig {
            origin: "http://127.0.0.1:46380".into(),
            network: NetworkId::default(),
            legacy: true,
            offline_ms: crate::presence::SILENCE_MS,
            http: HttpConfig::default(),
            gateway: GatewayConfig::default(),
        }
    }
}
