//! Who asks for a reservation or a circuit, and gets an answer. Decides nothing: see [`book`](crate::book).
//!
//! Requests come through a [door](inbound), which bounds how many wait and are answered; all that come within the bounds are
//! answered, however many in one moment. A request's place is free again when it is answered, or when its circuit stands.
//!
//! **Who is gone** has no reservation: it ends with the last connection. Two things may cross: a peer leaves while its request waits,
//! so after a reservation is made it is asked whether the peer is still there; and it leaves and is back before that is noted, so a
//! reservation is taken away only from who is not connected. What slips through is found by the next who asks for a circuit.

use crate::{
    book::{CircuitId, Refusal},
    desk::Desk,
    limits::Prefix,
    message::{self, HOP, Hop, MessageError, STOP, Status},
    pipe::{Pipe, Tap},
};
use infernet_node::net::{
    Net,
    inbound::{self, Arrived, Bounds, Door, Permit, Queue},
    streams::StreamRefused,
};
use infernet_wire::id::NodeId;
use libp2p::{Multiaddr, PeerId, Stream, multiaddr::Protocol};
use std::{io, net::IpAddr, time::Duration};
use tokio::{task::JoinHandle, time::timeout};
use tracing::debug;

/// Requests that wait or are being answered: all that had a reservation may ask at once after a restart. One connection's share is
/// as many as one peer may have circuits.
const REQUESTS: Bounds = Bounds { all: 1_024, connection: 16 };
/// For a request, for the other peer's answer, and for ours to leave: some round trips each.
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

/// Where requests come in, for the network.
pub fn door() -> (Door, Queue) {
    inbound::door(HOP, REQUESTS)
}

/// Takes requests until the mesh ends. How many are answered at once, the door bounds.
pub fn serve(relaying: Relaying, mut requests: Queue) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            tokio::spawn(relaying.clone().answer(request));
        }
    })
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
        let is_elsewhere = |address: &Multiaddr| ip_of(address).is_none_or(|ip| !ip.is_loopback() && !is_link_local(ip));
        if listening.iter().any(is_elsewhere) {
            listening.retain(is_elsewhere);
        }
        listening.truncate(MAX_ADDRESSES);
        listening
    }

    async fn answer(self, Arrived { peer, remote, mut stream, permit }: Arrived) {
        let Ok(asked) = timeout(PATIENCE, message::read_hop(&mut stream)).await else {
            return self.desk.happened("silent").await;
        };
        let answer = match (asked, prefix_of(&remote)) {
            (Ok(Hop::Reserve), Some(prefix)) => self.reserve(peer, prefix).await,
            (Ok(Hop::Connect(target)), Some(prefix)) => return self.connect(peer, prefix, target, stream, permit).await,
            (Ok(_), None) => Answer::from(Status::PermissionDenied),
            (Err(error), _) => {
                self.desk.happened("bad_request").await;
                debug!(%peer, %error, "a bad request");
                Answer::from(if matches!(error, MessageError::Unexpected) { Status::Unexpected } else { Status::Malformed })
            }
        };
        if tell(&mut stream, answer).await.is_err() {
            debug!(%peer, "gone before its answer");
        }
    }

    async fn reserve(&self, peer: PeerId, prefix: Prefix) -> Answer {
        match self.desk.reserve(peer, prefix).await {
            Ok(expires) => {
                // That it left may have been noted before it was let in.
                if !self.is_connected(&peer).await {
                    self.desk.left(peer).await;
                }
                Answer { status: Status::Ok, reserved: Some((expires.0 / 1_000, self.addresses().await)) }
            }
            Err(refusal) => {
                debug!(%peer, reason = refusal.label(), "no reservation");
                refusal.status().into()
            }
        }
    }

    async fn connect(self, peer: PeerId, prefix: Prefix, target: PeerId, mut stream: Stream, permit: Permit) {
        let id = match self.desk.connect(peer, prefix, target).await {
            Ok(id) => id,
            Err(refusal) => {
                debug!(%peer, %target, reason = refusal.label(), "no circuit");
                // A refused reservation is no answer to who asked for a circuit.
                let status = if refusal == Refusal::Draining { Status::ResourceLimit } else { refusal.status() };
                // It may be gone; nothing depends on it.
                let _ = tell(&mut stream, status.into()).await;
                return;
            }
        };
        let other = match timeout(PATIENCE, self.open(peer, target)).await {
            Ok(Ok(other)) => other,
            Ok(Err(status)) => return self.not_taken(id, stream, status).await,
            Err(_) => return self.not_taken(id, stream, Status::ConnectionFailed).await,
        };
        let told = tell(&mut stream, Status::Ok.into()).await;
        drop(permit);
        match told {
            Ok(()) => self.carry(id, stream, other).await,
            Err(_) => self.desk.ended(id, "broken").await,
        }
    }

    async fn not_taken(&self, id: CircuitId, mut stream: Stream, status: Status) {
        self.desk.ended(id, "not_taken").await;
        let _ = tell(&mut stream, status.into()).await;
    }

    /// A stream to `target` that has taken the circuit, or what to tell who asked for it. Nobody is dialled.
    async fn open(&self, source: PeerId, target: PeerId) -> Result<Stream, Status> {
        let id = NodeId::from_peer_id_bytes(&target.to_bytes()).ok_or(Status::NoReservation)?;
        let mut stream = match self.net.open_stream(id, STOP).await {
            Ok(opened) => opened.stream,
            Err(StreamRefused::NotConnected) => {
                self.desk.left(target).await;
                return Err(Status::NoReservation);
            }
            Err(_) => return Err(Status::ConnectionFailed),
        };
        let is_taken = message::ask_stop(&mut stream, &source).await.unwrap_or(false);
        if is_taken { Ok(stream) } else { Err(Status::ConnectionFailed) }
    }

    async fn carry(&self, id: CircuitId, stream: Stream, other: Stream) {
        let end = Pipe::new(&self.desk, id, self.tap.as_ref()).carry(stream, other, self.idle).await;
        self.desk.ended(id, end.label()).await;
    }

    async fn is_connected(&self, peer: &PeerId) -> bool {
        match NodeId::from_peer_id_bytes(&peer.to_bytes()) {
            Some(id) => self.net.peer(id).await.is_some(),
            None => false,
        }
    }
}

/// What a peer is told.
struct Answer {
    status: Status,
    reserved: Option<(u64, Vec<Multiaddr>)>,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Answer { status, reserved: None }
    }
}

/// Within [`PATIENCE`]: a peer that does not read must not keep its place.
async fn tell(stream: &mut Stream, answer: Answer) -> io::Result<()> {
    let reserved = answer.reserved.as_ref().map(|(expires, addresses)| (*expires, addresses.as_slice()));
    timeout(PATIENCE, message::write_hop(stream, answer.status, reserved)).await?
}

/// Of the network at a connection's other end; `None` if that is behind a relay itself.
fn prefix_of(remote: &Multiaddr) -> Option<Prefix> {
    let is_circuit = remote.iter().any(|part| part == Protocol::P2pCircuit);
    ip_of(remote).filter(|_| !is_circuit).map(Prefix::of)
}

/// Which names a link that only neighbours share, and nobody without its interface.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}
