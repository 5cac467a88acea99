//! `/infernet/ads/1` on libp2p: see [`infernet_wire::ad_page`].

use super::raw::Raw;
use infernet_wire::{ad_page, limits};
use libp2p::{StreamProtocol, request_response};
use std::time::Duration;

pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new(ad_page::PROTOCOL);
/// How long a page may take: it is in memory.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pages in flight per connection: a node asks each neighbour once.
const MAX_STREAMS: usize = 2;

pub(super) type Behaviour = request_response::Behaviour<Raw>;
pub(super) type Event = request_response::Event<Vec<u8>, Vec<u8>>;
pub(super) type Channel = request_response::ResponseChannel<Vec<u8>>;

pub(super) fn behaviour() -> Behaviour {
    let config = request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(MAX_STREAMS);
    let raw = Raw { request: limits::MAX_AD_REQUEST_BYTES, response: limits::MAX_AD_PAGE_BYTES };
    Behaviour::with_codec(raw, [(PROTOCOL, request_response::ProtocolSupport::Full)], config)
}
