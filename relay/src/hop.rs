//! Who asks for a reservation or a circuit, and gets an answer. Decides nothing: see [`book`](crate::book).

use crate::{
    book::{CircuitId, Refusal},
    desk::Desk,
    limits::Prefix,
    message::{self, HOP, Hop, MessageError, STOP, Status},
    pipe::{Pipe, Tap},
};
use futures::StreamExt;
use infernet_node::net::Net;
use infernet_wire::id::NodeId;
use libp2p::{Multiaddr, PeerId, Stream, multiaddr::Protocol};
use libp2p_stream::{AlreadyRegistered, IncomingStreams};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::timeout,
};
use tracing::debug;

/// Requests that are being answered at once; more are dropped, and asked again.
const HANDSHAKES: usize = 256;
/// For a request, and for the other peer's answer: some round trips.
const PATIENCE: Duration = Duration::from_secs(10);
/// Addresses in a reservation: the message has 4 KiB.
const MAX_ADDRESSES: usize = 8;

/// What every request needs.
#[derive(Clone)]
pub struct Relaying {
    /// The mesh.
    pub net: Net,
    /// Who decides.
    pub desk: Desk,
    /// Where peers reach the relay, without `/p2p/`; empty: where it listens.
    pub external: Vec<Multiaddr>,
    /// After so long without a byte a circuit ends.
    pub idle: Duration,
    /// See [`Tap`].
    pub tap: Option<Tap>,
}

/// Takes requests until the mesh ends.
pub fn serve(relaying: Relaying) -> Result<JoinHandle<()>, AlreadyRegistered> {
    let incoming = relaying.net.streams().accept(HOP)?;
    Ok(tokio::spawn(take_all(relaying, incoming)))
}

/// Only spawns: a stream that is not taken at once is lost.
async fn take_all(relaying: Relaying, mut incoming: IncomingStreams) {
    let free = Arc::new(Semaphore::new(HANDSHAKES));
    while let Some((peer, stream)) = incoming.next().await {
        match free.clone().try_acquire_owned() {
            Ok(permit) => drop(tokio::spawn(relaying.clone().answer(peer, stream, permit))),
            Err(_) => relaying.desk.happened("too_busy").await,
        }
    }
}

impl Relaying {
    /// Where peers reach the relay, each with `/p2p/` and its id.
    pub async fn addresses(&self) -> Vec<Multiaddr> {
        let me = self.net.id();
        let Ok(me) = PeerId::from_bytes(&me.to_peer_id_bytes()) else { return Vec::new() };
        if !self.external.is_empty() {
            let own = self.external.iter().map(|address| address.clone().with_p2p(me).unwrap_or_else(|address| address));
            return own.take(MAX_ADDRESSES).collect();
        }
        let mut listening = self.net.listen_addresses().await;
        let is_elsewhere = |address: &Multiaddr| ip_of(address).is_none_or(|ip| !ip.is_loopback());
        if listening.iter().any(is_elsewhere) {
            listening.retain(is_elsewhere);
        }
        listening.truncate(MAX_ADDRESSES);
        listening
    }

    async fn answer(self, peer: PeerId, mut stream: Stream, permit: OwnedSemaphorePermit) {
        let asked = timeout(PATIENCE, message::read_hop(&mut stream)).await;
        let outcome = match (asked, self.prefix_of(&peer).await) {
            (Err(_), _) => return self.desk.happened("silent").await,
            (Ok(Ok(Hop::Reserve)), Some(prefix)) => self.reserve(peer, prefix, &mut stream).await,
            (Ok(Ok(Hop::Connect(target))), Some(prefix)) => {
                return self.connect(peer, prefix, target, stream, permit).await;
            }
            (Ok(Ok(_)), None) => message::write_hop(&mut stream, Status::PermissionDenied, None).await,
            (Ok(Err(error)), _) => {
                self.desk.happened("bad_request").await;
                let status = if matches!(error, MessageError::Unexpected) { Status::Unexpected } else { Status::Malformed };
                debug!(%peer, %error, "a bad request");
                message::write_hop(&mut stream, status, None).await
            }
        };
        if outcome.is_err() {
            debug!(%peer, "gone before its answer");
        }
    }

    async fn reserve(&self, peer: PeerId, prefix: Prefix, stream: &mut Stream) -> std::io::Result<()> {
        let addresses = self.addresses().await;
        match self.desk.reserve(peer, prefix).await {
            Ok(expires) => message::write_hop(stream, Status::Ok, Some((expires.0 / 1_000, &addresses))).await,
            Err(refusal) => {
                debug!(%peer, reason = refusal.label(), "no reservation");
                message::write_hop(stream, refusal.status(), None).await
            }
        }
    }

    async fn connect(self, peer: PeerId, prefix: Prefix, target: PeerId, mut stream: Stream, permit: OwnedSemaphorePermit) {
        let id = match self.desk.connect(peer, prefix, target).await {
            Ok(id) => id,
            Err(refusal) => {
                debug!(%peer, %target, reason = refusal.label(), "no circuit");
                // A refused reservation is no answer to who asked for a circuit.
                let status = if refusal == Refusal::Draining { Status::ResourceLimit } else { refusal.status() };
                let _ = timeout(PATIENCE, message::write_hop(&mut stream, status, None)).await;
                return;
            }
        };
        let Ok(Some(other)) = timeout(PATIENCE, self.open(peer, target)).await else {
            self.desk.ended(id, "not_taken").await;
            let _ = timeout(PATIENCE, message::write_hop(&mut stream, Status::ConnectionFailed, None)).await;
            return;
        };
        let told = timeout(PATIENCE, message::write_hop(&mut stream, Status::Ok, None)).await;
        drop(permit);
        match told {
            Ok(Ok(())) => self.carry(id, stream, other).await,
            _ => self.desk.ended(id, "broken").await,
        }
    }

    /// A stream to `target` that has taken the circuit.
    async fn open(&self, source: PeerId, target: PeerId) -> Option<Stream> {
        let mut stream = self.net.streams().open_stream(target, STOP).await.ok()?;
        let is_taken = message::ask_stop(&mut stream, &source).await.unwrap_or(false);
        is_taken.then_some(stream)
    }

    async fn carry(&self, id: CircuitId, stream: Stream, other: Stream) {
        let end = Pipe::new(&self.desk, id, self.tap.as_ref()).carry(stream, other, self.idle).await;
        self.desk.ended(id, end.label()).await;
    }

    /// Where `peer` is; `None` if it is not connected directly.
    async fn prefix_of(&self, peer: &PeerId) -> Option<Prefix> {
        let id = NodeId::from_peer_id_bytes(&peer.to_bytes())?;
        let remote = self.net.peer(id).await?.remote;
        if remote.iter().any(|part| part == Protocol::P2pCircuit) {
            return None;
        }
        ip_of(&remote).map(Prefix::of)
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}
