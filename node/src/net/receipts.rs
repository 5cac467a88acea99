//! `/infernet/receipts/1` on libp2p: see [`infernet_wire::receipt_page`].

use super::raw::Raw;
use infernet_wire::{
    envelope::Refusal,
    limits,
    receipt_page::{self, Page, PageRequest},
};
use libp2p::{StreamProtocol, request_response};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a page may take, dialling included.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Pages in flight per connection: whoever reads asks for one after the other.
const MAX_STREAMS: usize = 4;

/// A peer wants a page.
#[derive(Debug)]
pub struct Asked {
    /// What it wants.
    pub request: PageRequest,
    /// To be answered within [`PATIENCE`], or the peer is told that we are busy.
    pub reply: oneshot::Sender<Page>,
}

/// How long the network waits for whoever keeps the receipts.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// It can't be reached, does not answer, or keeps no receipts.
    #[error("it does not answer: {0}")]
    Unreachable(String),
    /// It has answered what is no page.
    #[error("its answer is no page: {0}")]
    Malformed(#[from] Refusal),
    /// Too many pages are asked for already.
    #[error("too many pages are asked for at once")]
    Busy,
    /// The network has been shut down.
    #[error("the network is shut down")]
    Stopped,
}

pub(super) type Behaviour = request_response::Behaviour<Raw>;
pub(super) type Event = request_response::Event<Vec<u8>, Vec<u8>>;
pub(super) type Channel = request_response::ResponseChannel<Vec<u8>>;

pub(super) fn behaviour() -> Behaviour {
    let config = request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(MAX_STREAMS);
    let raw = Raw { request: limits::MAX_PAGE_REQUEST_BYTES, response: limits::MAX_PAGE_BYTES };
    let protocol = StreamProtocol::new(receipt_page::PROTOCOL);
    Behaviour::with_codec(raw, [(protocol, request_response::ProtocolSupport::Full)], config)
}
