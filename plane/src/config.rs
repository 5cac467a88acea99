//! How a plane is set up.

use infernet_wire::topic::NetworkId;

/// A plane's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaneConfig {
    /// Its public origin, such as `https://plane.example`: what requests name as `aud`.
    pub origin: String,
    /// Which network it follows.
    pub network: NetworkId,
    /// Whether daemons that know nothing of the mesh get jobs that no worker of the mesh wanted.
    pub legacy: bool,
    /// After so many milliseconds of silence a registered node is offline.
    pub offline_ms: u64,
}

impl Default for PlaneConfig {
    fn default() -> Self {
        PlaneConfig {
            origin: "http://127.0.0.1:46380".into(),
            network: NetworkId::default(),
            legacy: true,
            offline_ms: crate::presence::SILENCE_MS,
        }
    }
}
