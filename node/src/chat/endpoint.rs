//! QUIC on UDP 46337. The only file that names `quinn`.
//!
//! The TLS identity on both sides is a libp2p certificate of the node's own key, so a connection's peer is a [`NodeId`] that
//! was proved in the handshake. A TLS 1.3 client's handshake ends before the server has accepted its certificate: a refusal
//! comes with the first reply, so nobody relies on `connect` alone.
//!
//! Windows are bounded per stream: a reader that stops reading stalls its own stream and nobody else's.

use super::{
    deadline,
    paced::Paced,
    stream::{ChatStream, Path},
};
use crate::net::streams::StreamRefused;
use futures::{StreamExt, stream::FuturesUnordered};
use infernet_wire::{chat::ALPN, id::NodeId, key::NodeKey};
use libp2p::identity::{Keypair, secp256k1};
use quinn::{
    AckFrequencyConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Jobs that one connection may run at once. A plane or a load test multiplexes thousands over one connection.
const MAX_STREAMS: u32 = 4_096;
/// Bytes a peer may send on one stream ahead of our reading: more than a round trip of tokens, less than it would take to
/// make a cancel late.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Bytes in flight per connection: 200 Mbit/s at 100 ms, and the most a dead peer makes us keep.
const SEND_WINDOW: u64 = 2 * 1024 * 1024;
/// Packets that a peer may leave unacknowledged (QUIC Acknowledgement Frequency, draft-ietf-quic-ack-frequency), up to its
/// ordinary delay of 25 ms. A stream of tokens is many small packets: an acknowledgement for every second of them costs as much
/// as the tokens do.
const PACKETS_PER_ACK: u32 = 10;
/// A silent connection is given up after this; keep-alives come three times as often.
const IDLE: Duration = Duration::from_secs(30);
/// Kernel buffers, as far as the system allows: with defaults, 400 handshakes at once fall to 26 per second.
const UDP_BUFFER: usize = 4 * 1024 * 1024;
/// Handshakes under way; above, the kernel's view is that the packet was lost.
const MAX_INCOMING: usize = 4_096;
/// Connections above which a newcomer must prove its address first (QUIC Retry, RFC 9000 §8.1.2), at the cost of a round trip.
const RETRY_ABOVE: usize = 1_024;
/// Connections above which newcomers are refused.
const MAX_CONNECTIONS: usize = 8_192;
/// With this code a peer closes a connection that it has no more use for.
const GOODBYE: u32 = 0;
/// With this one, a connection that has fallen silent.
const ABANDONED: u32 = 1;
/// Addresses of a worker that are tried at once: enough for v4 and v6 on two uplinks, too few to flood a third party with.
const MAX_DIALS: usize = 4;

/// The endpoint can't start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket.
    #[error("can't listen for chat on UDP {addr}: {source}{}", hint(.source))]
    Socket {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate.
    #[error("can't make the chat endpoint's TLS identity: {0}")]
    Tls(String),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; stop the other program or choose another port with --chat-listen",
        io::ErrorKind::PermissionDenied => "; choose a port above 1023 with --chat-listen",
        _ => "",
    }
}

/// A worker can't be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nothing to dial.
    #[error("the worker names no address that can be dialled from here")]
    NoAddress,
    /// Another node answers there.
    #[error("another node ({0}) answers at the worker's address")]
    WrongPeer(NodeId),
    /// The peer's certificate holds no secp256k1 key.
    #[error("the peer has no infernet identity")]
    NoIdentity,
    /// Nobody answered.
    #[error("no answer from {0} in time")]
    Timeout(SocketAddr),
    /// QUIC failed.
    #[error("{0}")]
    Quic(String),
    /// The mesh has no stream to it.
    #[error("over libp2p: {0}")]
    Mesh(StreamRefused),
    /// Nor made one in time.
    #[error("over libp2p: no answer within {} ms", .0.as_millis())]
    MeshTimeout(Duration),
}

/// The socket, to dial from and to be dialled at.
#[derive(Clone)]
pub struct Endpoint {
    inner: quinn::Endpoint,
    closed: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

impl Endpoint {
    /// Binds `addr` (UDP). An unspecified IPv6 address takes IPv4 as well.
    pub fn bind(key: &NodeKey, addr: SocketAddr) -> Result<Self, BindError> {
        let keypair = keypair(key)?;
        let socket = bind_udp(addr).map_err(|source| BindError::Socket { addr, source })?;
        let runtime = Arc::new(PacingRuntime::default());
        let mut inner = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server_config(&keypair)?), socket, runtime)
            .map_err(|source| BindError::Socket { addr, source })?;
        inner.set_default_client_config(client_config(&keypair)?);
        Ok(Endpoint { inner, closed: Arc::default(), refused: Arc::default() })
    }

    /// Where it is bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Connects to `worker` at whichever of `addrs` answers first, and makes sure that it is the worker. A crowd may hold up the
    /// handshake for seconds; how long a job waits for it is [`Pool::get`](super::pool::Pool::get)'s to say.
    pub async fn connect(&self, worker: NodeId, addrs: &[SocketAddr]) -> Result<Connection, ConnectError> {
        let here = self.local_addr().unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let mut dials: FuturesUnordered<_> =
            addrs.iter().filter(|addr| is_dialable(addr, &here)).take(MAX_DIALS).map(|addr| self.dial(worker, *addr)).collect();
        let mut failure = ConnectError::NoAddress;
        while let Some(result) = dials.next().await {
            match result {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn dial(&self, worker: NodeId, addr: SocketAddr) -> Result<Connection, ConnectError> {
        let quic = |error: &dyn std::fmt::Display| ConnectError::Quic(error.to_string());
        let connecting = self.inner.connect(addr, "l").map_err(|e| quic(&e))?;
        let inner =
            timeout(deadline::HANDSHAKE, connecting).await.map_err(|_| ConnectError::Timeout(addr))?.map_err(|e| quic(&e))?;
        let connection = Connection::identify(inner).ok_or(ConnectError::NoIdentity)?;
        if connection.peer != worker {
            connection.close("wrong peer");
            return Err(ConnectError::WrongPeer(connection.peer));
        }
        Ok(connection)
    }

    /// The next peer that wants a connection; `None` once closed. Finish it with [`Dialling::finish`] in a task of its own, so that slow
    /// handshakes hold up nobody.
    pub async fn accept(&self) -> Option<Dialling> {
        loop {
            let incoming = self.inner.accept().await?;
            let open = self.inner.open_connections();
            if open >= MAX_CONNECTIONS {
                self.refused.fetch_add(1, Ordering::Relaxed);
                incoming.refuse();
            } else if open >= RETRY_ABOVE && !incoming.remote_address_validated() && incoming.may_retry() {
                // Fails only for an address already validated, which was just ruled out.
                let _ = incoming.retry();
            } else {
                return Some(Dialling { incoming });
            }
        }
    }

    /// Connections refused because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether it was closed: nothing can be dialled any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Closes every connection and waits, [`deadline::GOODBYE`] at most, until peers were told.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.inner.close(VarInt::from_u32(GOODBYE), b"shutting down");
        let _ = timeout(deadline::GOODBYE, self.inner.wait_idle()).await;
    }
}

/// tokio, with each connection's driver [`Paced`].
#[derive(Debug, Default)]
struct PacingRuntime {
    /// What is spawned first is the endpoint's own driver, which serves all connections and must not rest.
    has_endpoint: AtomicBool,
}

impl quinn::Runtime for PacingRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn quinn::AsyncTimer>> {
        quinn::TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Pin<Box<dyn Future<Output = ()> + Send>>) {
        if self.has_endpoint.swap(true, Ordering::Relaxed) {
            tokio::spawn(Paced::new(driver));
        } else {
            tokio::spawn(driver);
        }
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        quinn::TokioRuntime.wrap_udp_socket(socket)
    }
}

/// A handshake that was asked for.
pub struct Dialling {
    incoming: quinn::Incoming,
}

impl Dialling {
    /// Completes the handshake; `None` if the peer fails or is no infernet node.
    pub async fn finish(self) -> Option<Connection> {
        let connecting = self.incoming.accept().ok()?;
        let inner = timeout(deadline::HANDSHAKE, connecting).await.ok()?.ok()?;
        Connection::identify(inner)
    }
}

/// An authenticated connection, cheap to clone. It closes when the last clone is gone.
#[derive(Clone)]
pub struct Connection {
    peer: NodeId,
    inner: quinn::Connection,
}

impl Connection {
    fn identify(inner: quinn::Connection) -> Option<Self> {
        let identity = inner.peer_identity()?.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok()?;
        let certificate = libp2p_tls::certificate::parse(identity.first()?).ok()?;
        let peer = NodeId::from_peer_id_bytes(&certificate.peer_id().to_bytes())?;
        Some(Connection { peer, inner })
    }

    /// Who is on the other side.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// Whether it can still carry streams.
    pub fn is_open(&self) -> bool {
        self.inner.close_reason().is_none()
    }

    /// Resolves when it can carry no more streams.
    pub async fn closed(&self) {
        self.inner.closed().await;
    }

    /// Estimated round-trip time.
    pub fn rtt(&self) -> Duration {
        self.inner.rtt()
    }

    /// A new stream to the peer. Waits while the peer's limit of streams is reached.
    pub async fn open(&self) -> Result<ChatStream, ConnectError> {
        let streams = self.inner.open_bi().await.map_err(|e| ConnectError::Quic(e.to_string()))?;
        Ok(self.stream(streams))
    }

    /// The next stream of the peer; `None` once the connection is closed.
    pub async fn accept(&self) -> Option<ChatStream> {
        Some(self.stream(self.inner.accept_bi().await.ok()?))
    }

    fn stream(&self, (send, recv): (quinn::SendStream, quinn::RecvStream)) -> ChatStream {
        let path = Path::Direct(canonical(self.inner.remote_address()));
        ChatStream { peer: self.peer, path, recv: Box::pin(recv), send: Box::pin(send) }
    }

    /// Ends the connection and every stream on it, for good.
    pub fn close(&self, reason: &str) {
        self.inner.close(VarInt::from_u32(GOODBYE), reason.as_bytes());
    }

    /// Ends the connection, which does not work any more. Jobs on it may go on over another.
    pub fn abandon(&self) {
        self.inner.close(VarInt::from_u32(ABANDONED), b"no answer");
    }
}

/// Whether a stream failed because the other side has left on purpose, by what the transport's error tells.
pub(super) fn is_goodbye(error: &io::Error) -> bool {
    use quinn::{ConnectionError, ReadError, WriteError};
    let Some(inner) = error.get_ref() else { return false };
    let lost = match (inner.downcast_ref::<ReadError>(), inner.downcast_ref::<WriteError>()) {
        (Some(ReadError::ConnectionLost(lost)), _) | (_, Some(WriteError::ConnectionLost(lost))) => lost,
        // The stream alone was reset or stopped, over a connection that works.
        (Some(_), _) | (_, Some(_)) => return true,
        (None, None) => return false,
    };
    match lost {
        ConnectionError::ApplicationClosed(close) => close.error_code != VarInt::from_u32(ABANDONED),
        ConnectionError::LocallyClosed => true,
        _ => false,
    }
}

/// An IPv4 address that came in on a dual-stack socket, as people write it.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Only unicast addresses of a family that our socket speaks.
fn is_dialable(addr: &SocketAddr, here: &SocketAddr) -> bool {
    let unicast = match addr.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    unicast && addr.port() != 0 && (here.is_ipv6() || addr.is_ipv4())
}

fn keypair(key: &NodeKey) -> Result<Keypair, BindError> {
    let secret =
        secp256k1::SecretKey::try_from_bytes(key.secret_bytes().as_mut()).map_err(|e| BindError::Tls(e.to_string()))?;
    Ok(secp256k1::Keypair::from(secret).into())
}

fn server_config(keypair: &Keypair) -> Result<quinn::ServerConfig, BindError> {
    let tls = |error: &dyn std::fmt::Display| BindError::Tls(error.to_string());
    let mut config = libp2p_tls::make_server_config(keypair).map_err(|e| tls(&e))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // libp2p-tls would write traffic secrets to $SSLKEYLOGFILE.
    config.key_log = Arc::new(rustls::NoKeyLog);
    let config = QuicServerConfig::try_from(config).map_err(|e| tls(&e))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(config));
    config.transport_config(transport()).max_incoming(MAX_INCOMING).migration(true);
    Ok(config)
}

/// One configuration for all workers: the peer's identity is compared after the handshake, before anything is sent.
fn client_config(keypair: &Keypair) -> Result<quinn::ClientConfig, BindError> {
    let tls = |error: &dyn std::fmt::Display| BindError::Tls(error.to_string());
    let mut config = libp2p_tls::make_client_config(keypair, None).map_err(|e| tls(&e))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.key_log = Arc::new(rustls::NoKeyLog);
    let config = QuicClientConfig::try_from(config).map_err(|e| tls(&e))?;
    let mut config = quinn::ClientConfig::new(Arc::new(config));
    config.transport_config(transport());
    Ok(config)
}

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(PACKETS_PER_ACK));
    config
        .ack_frequency_config(Some(acks))
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .send_window(SEND_WINDOW)
        .keep_alive_interval(Some(IDLE / 3))
        .max_idle_timeout(Some(IDLE.try_into().unwrap_or(VarInt::from_u32(30_000).into())));
    Arc::new(config)
}

fn bind_udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    // Best effort: the system caps what it grants.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
