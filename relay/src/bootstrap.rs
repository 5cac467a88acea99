//! `GET /bootstrap.json`: where a new node begins.
//!
//! ```json
//! {"version":1,"network":"main","protocol_id":"/c0mpute/kad/1.0.0","fingerprint":"<64 hex digits>",
//!  "peers":[{"id":"16Uiu2H…","addrs":["/ip4/203.0.113.7/tcp/46337/p2p/16Uiu2H…"],"operator":"…","region":"eu"}]}
//! ```
//!
//! `version` is that of this shape, `protocol_id` the DHT's protocol with its version, `fingerprint` the SHA-256 of the relay's
//! public key (33 bytes, compressed): what an operator says elsewhere, so that a reader can compare. `operator` and `region` are
//! there if they are set. The answer may be kept for five minutes and has an `ETag`. It is the same for everybody and meant for
//! nodes, so no page of another origin is given it: there are no CORS headers. While the relay drains the answer is 503.

use crate::hop::Relaying;
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use infernet_node::net::{
    KAD_PROTOCOL,
    bootstrap::{Document, DocumentPeer, VERSION},
};
use infernet_wire::{id::NodeId, topic::NetworkId};
use libp2p::Multiaddr;
use sha2::{Digest, Sha256};

/// Addresses change seldom, and a node asks once.
const CACHE: &str = "public, max-age=300";

/// What it tells of itself.
#[derive(Clone)]
pub struct About {
    /// Its part in the mesh.
    pub relaying: Relaying,
    /// Its network.
    pub network: NetworkId,
    /// Who runs it.
    pub operator: Option<String>,
    /// Where it stands.
    pub region: Option<String>,
}

impl About {
    /// The document now.
    pub async fn bootstrap(&self) -> Document {
        let id = self.relaying.net.id();
        let addrs = self.relaying.addresses().await.iter().map(Multiaddr::to_string).collect();
        let peer = DocumentPeer { id: id.to_string(), addrs, operator: self.operator.clone(), region: self.region.clone() };
        Document {
            version: VERSION,
            network: self.network.as_str().to_owned(),
            protocol_id: KAD_PROTOCOL.to_string(),
            fingerprint: fingerprint(&id),
            peers: vec![peer],
        }
    }
}

/// SHA-256 of the public key, in hex.
pub fn fingerprint(id: &NodeId) -> String {
    hex::encode(Sha256::digest(id.as_bytes()))
}

/// Answers a [`Document`].
pub async fn get(State(about): State<About>, headers: HeaderMap) -> Response {
    if about.relaying.desk.told().await.is_draining {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::CACHE_CONTROL, "no-store")], "the relay is about to stop\n")
            .into_response();
    }
    let bootstrap = about.bootstrap().await;
    let Ok(body) = serde_json::to_vec(&bootstrap) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let tag = format!("\"{}\"", hex::encode(Sha256::digest(&body).get(..8).unwrap_or_default()));
    let cached = [(header::CACHE_CONTROL, CACHE.to_owned()), (header::ETAG, tag.clone())];
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    if known { (StatusCode::NOT_MODIFIED, cached).into_response() } else { (cached, Json(bootstrap)).into_response() }
}
