//! `/infernet/ads/1`: the live ads that a node has heard, for one that has just come and would else wait for each worker's next.
//!
//! A libp2p request-response protocol: the request is the bytes of an [`AdRequest`], ended by closing the stream, the response
//! those of an [`AdPage`], ended in the same way. Each ad is signed by its worker, and is taken by the same rules as one that is
//! gossiped: the newest sequence wins, and what a node heard before its restart is stale. Who knows more than fit sends some of
//! them, by chance; who is asked too often closes the stream.

use crate::{codec, envelope::Refusal, limits, topic::NetworkId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The protocol's name.
pub const PROTOCOL: &str = "/infernet/ads/1";

/// Asks for ads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdRequest {
    /// The network: a node of another one answers with none.
    pub network: NetworkId,
}

impl AdRequest {
    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a request.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        codec::canonical(bytes, limits::MAX_AD_REQUEST_BYTES)
    }
}

/// Ads as they are gossiped, not verified yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdPage {
    /// The bytes of their envelopes, in no order.
    pub ads: Vec<ByteBuf>,
}

impl AdPage {
    /// Of these, as many as fit.
    pub fn new<'a>(ads: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut page = AdPage::default();
        let mut bytes = PAGE_OVERHEAD;
        for ad in ads.into_iter().take(limits::MAX_PAGE_ADS) {
            bytes += ad.len() + AD_OVERHEAD;
            if bytes > limits::MAX_AD_PAGE_BYTES {
                break;
            }
            page.ads.push(ByteBuf::from(ad));
        }
        page
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a page; its ads are still to be verified.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let page: AdPage = codec::canonical(bytes, limits::MAX_AD_PAGE_BYTES)?;
        if page.ads.len() > limits::MAX_PAGE_ADS { Err(Refusal::TooLarge) } else { Ok(page) }
    }
}

/// Head of an ad in a page.
const AD_OVERHEAD: usize = 5;
/// The rest of a page.
const PAGE_OVERHEAD: usize = 16;
