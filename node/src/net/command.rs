//! What the rest of the node asks of the network.

use super::{PeerInfo, PublishError, RelayInfo, Route, bootstrap, receipts::PageError, streams};
use infernet_wire::{bid::Answer, id::NodeId, receipt_page::PageRequest, time::UnixMillis};
use libp2p::{Multiaddr, StreamProtocol};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::oneshot;

/// One request to the [`super::task::NetTask`]. An asker that is gone is no error.
#[derive(Debug)]
pub(super) enum Command {
    /// Hand a signed message to the mesh, once somebody is there to take it.
    Publish { topic: String, bytes: Arc<[u8]>, deadline: UnixMillis, reply: oneshot::Sender<Result<(), PublishError>> },
    /// Bring an answer to its buyer.
    Answer { buyer: NodeId, answer: Box<Answer>, reply: oneshot::Sender<Route> },
    /// Ask a peer for a page of its receipts.
    ReceiptPage { peer: NodeId, request: PageRequest, reply: oneshot::Sender<Result<Vec<u8>, PageError>> },
    /// Tell where we listen.
    ListenAddresses { reply: oneshot::Sender<Vec<Multiaddr>> },
    /// Tell who is connected.
    Peers { reply: oneshot::Sender<Vec<PeerInfo>> },
    /// Tell of one peer.
    Peer { id: NodeId, reply: oneshot::Sender<Option<PeerInfo>> },
    /// Be connected to a peer.
    Connect { peer: NodeId, addresses: Vec<Multiaddr>, deadline: UnixMillis, reply: oneshot::Sender<Option<PeerInfo>> },
    /// Tell which relays are known.
    Relays { reply: oneshot::Sender<Vec<RelayInfo>> },
    /// Tell what happened how often.
    Counters { reply: oneshot::Sender<BTreeMap<String, u64>> },
    /// Tell the newest ad sequence of each worker.
    AdSequences { reply: oneshot::Sender<Vec<(NodeId, u64)>> },
    /// Open a chat stream to a peer.
    OpenChat { peer: NodeId, reply: streams::Reply },
    /// Open a stream of another protocol to a connected peer.
    OpenStream { peer: NodeId, protocol: StreamProtocol, reply: streams::Reply },
    /// Connect to an address.
    Dial { address: Multiaddr },
    /// Begin at these relays, too.
    Begin { relays: bootstrap::Relays },
    /// Say goodbye and end.
    Shutdown,
}
