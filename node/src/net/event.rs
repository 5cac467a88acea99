//! What the network tells the rest of the node.

use infernet_wire::{
    accept::JobAccept, bid::Answer, capability::CapabilityAd, envelope::Verified, id::NodeId, offer::JobOffer,
    receipt::SignedReceipt,
};

/// Something that arrived, checked. Nothing of our own comes back as an event.
#[derive(Debug, Clone)]
pub enum Event {
    /// A worker's newest ad.
    Ad(Verified<CapabilityAd>),
    /// A buyer asks for bids.
    Offer(Verified<JobOffer>),
    /// A worker answers one of our own offers; at most one answer per worker and offer.
    Answer(Answer),
    /// A buyer named the winner of an auction.
    Accept(Verified<JobAccept>),
    /// A finished job's receipt.
    Receipt(SignedReceipt),
    /// The first connection to a peer exists.
    PeerConnected(NodeId),
    /// The last connection to a peer is gone.
    PeerDisconnected(NodeId),
    /// A ping to a peer came back.
    Rtt {
        /// The peer.
        peer: NodeId,
        /// Round trip time in milliseconds.
        ms: u32,
    },
}
