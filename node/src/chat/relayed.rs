//! Chat over a libp2p stream, for two who have no direct UDP path to a chat endpoint: the very frames and rules of QUIC, over
//! `/infernet/chat/1` of the mesh's own connection, be that straight, punched or through a relay, which can't read it.
//!
//! libp2p's handshake has proved who is on the other side. Which connection carries a stream is the network's choice
//! ([`crate::net::streams`]): the best at the moment when it is opened.

use super::{
    deadline,
    endpoint::ConnectError,
    server::{self, Worker},
    stream::{ChatStream, Path, Way},
};
use crate::clock;
use crate::net::{
    self, Net,
    streams::{PeerStream, StreamRefused, Via},
};
use futures::{AsyncRead as _, AsyncWrite as _};
use infernet_wire::id::NodeId;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout, timeout_at},
};
use tracing::debug;

/// Streams served at once, of all peers: as many as one QUIC connection may have. Jobs are bounded by the slots.
const MAX_SERVED: usize = 4_096;
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(200);

/// Opens streams of the mesh. Cheap to clone.
#[derive(Clone)]
pub struct Relayed {
    net: Net,
}

impl Relayed {
    /// Over the connections of `net`.
    pub fn new(net: Net) -> Self {
        Relayed { net }
    }

    /// A stream to `worker`. Whether it takes any may only show when its first answer is read.
    pub async fn open(&self, worker: NodeId) -> Result<ChatStream, ConnectError> {
        let until = clock::deadline(deadline::CONNECT_MESH);
        loop {
            match timeout_at(until, self.net.open_chat(worker)).await {
                Err(_) => return Err(ConnectError::MeshTimeout(deadline::CONNECT_MESH)),
                Ok(Ok(stream)) => return chat_stream(stream).ok_or(ConnectError::NoIdentity),
                // A relay that is full for a moment, or a circuit that ends just now, says nothing of the next try.
                Ok(Err(StreamRefused::NotConnected)) if until > clock::deadline(AGAIN) => sleep(AGAIN).await,
                Ok(Err(refused)) => return Err(ConnectError::Mesh(refused)),
            }
        }
    }

    /// The same over a connection that stands, for [`deadline::OPENED`] at most: should it break just now, runners-up hold their
    /// slots for less than dialling takes.
    pub async fn open_at_once(&self, worker: NodeId) -> Result<ChatStream, ConnectError> {
        match timeout(deadline::OPENED, self.net.open_chat(worker)).await {
            Err(_) => Err(ConnectError::MeshTimeout(deadline::OPENED)),
            Ok(stream) => chat_stream(stream.map_err(ConnectError::Mesh)?).ok_or(ConnectError::NoIdentity),
        }
    }

    /// What is known of the way to `worker`.
    pub async fn way(&self, worker: NodeId) -> Way {
        let known = self.net.peer(worker).await;
        known.map(|peer| Way { rtt_ms: peer.rtt_ms, why_not_direct: peer.why_not_direct }).unwrap_or_default()
    }

    /// Whether `worker` is connected, so that a stream costs no dialling.
    pub async fn is_connected(&self, worker: NodeId) -> bool {
        self.net.peer(worker).await.is_some()
    }
}

/// Serves the streams that peers open, as long as the network brings any. What is too much is reset.
pub async fn run(mut streams: mpsc::Receiver<PeerStream>, worker: Arc<Worker>) {
    let served = Arc::new(Semaphore::new(MAX_SERVED));
    while let Some(stream) = streams.recv().await {
        let Ok(place) = served.clone().try_acquire_owned() else {
            worker.tally.count_reason("mesh", "full");
            continue;
        };
        // Only keys of ours can buy.
        let Some(stream) = chat_stream(stream) else {
            worker.tally.count_reason("mesh", "no_identity");
            continue;
        };
        worker.tally.count_reason("mesh", stream.path.label());
        debug!(peer = %stream.peer.short(), path = %stream.path, "chat stream over the mesh");
        let worker = worker.clone();
        tokio::spawn(async move {
            server::serve_stream(&worker, stream).await;
            drop(place);
        });
    }
}

fn chat_stream(PeerStream { peer, via, stream }: PeerStream) -> Option<ChatStream> {
    let peer = NodeId::from_peer_id_bytes(&peer.to_bytes())?;
    let addr = |address| net::socket(&address).map(|(_, addr)| addr);
    let path = match via {
        Via::Direct(address) => Path::Mesh(addr(address)),
        Via::Punched(address) => Path::Punched(addr(address)),
        Via::Relayed(relay) => Path::Relayed(relay.and_then(|relay| NodeId::from_peer_id_bytes(&relay.to_bytes()))),
    };
    let (recv, send) = tokio::io::split(Tokio(stream));
    Some(ChatStream { peer, path, recv: Box::pin(recv), send: Box::pin(send) })
}

/// A libp2p stream as tokio reads and writes it.
struct Tokio(libp2p::Stream);

impl AsyncRead for Tokio {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.0).poll_read(cx, into.initialize_unfilled());
        read.map_ok(|length| into.advance(length))
    }
}

impl AsyncWrite for Tokio {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
