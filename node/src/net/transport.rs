//! Sockets: TCP (noise, yamux) and QUIC, names resolved by DNS; and circuits through relays, with noise and yamux of their own.

use super::{
    NetError,
    behaviour::{Behaviour, BehaviourEvent},
};
use futures::StreamExt;
use infernet_wire::key::NodeKey;
use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, ListenerId},
        upgrade,
    },
    dns,
    identity::{Keypair, secp256k1},
    multiaddr::Protocol,
    noise, quic, relay,
    swarm::{self, SwarmEvent},
    tcp, yamux,
};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

/// Peers outside the gossip mesh are kept for direct answers; a new handshake costs more than an idle connection.
const IDLE: Duration = Duration::from_secs(600);
/// Binding a local socket takes milliseconds; name lookups for a wildcard address a little longer.
const BIND_DEADLINE: Duration = Duration::from_secs(5);
/// A handshake takes a few round trips; more than this is a dead address.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What may be under way on a stream, sent and not read: 2.5 MB/s at 100 ms there and back. yamux's own, and where it stays.
const WINDOW: u32 = 256 * 1024;
/// yamux lets the windows of a connection grow to 1 GiB together, less a [`WINDOW`] for each stream that there may be. With so many
/// none is left: else a relay, or whoever reads slower than it is sent to, would keep up to that for each connection.
const YAMUX_STREAMS: usize = 4_096;
/// Windows of a QUIC connection, beyond which all its streams wait: as many as circuits may lead to one peer of a relay, so that those
/// whose readers stall don't hold up the others.
const QUIC_WINDOWS: u32 = 64;

type Out = Boxed<(PeerId, StreamMuxerBox)>;

/// The node's key as libp2p wants it.
pub(super) fn keypair(key: &NodeKey) -> Result<Keypair, NetError> {
    let mut secret = key.secret_bytes();
    let secret = secp256k1::SecretKey::try_from_bytes(&mut *secret).map_err(|error| NetError::Setup(error.to_string()))?;
    Ok(secp256k1::Keypair::from(secret).into())
}

/// A swarm that listens nowhere yet.
pub(super) fn swarm(
    keypair: &Keypair,
    circuits: relay::client::Transport,
    behaviour: Behaviour,
) -> Result<Swarm<Behaviour>, NetError> {
    if std::env::var_os("SSLKEYLOGFILE").is_some() {
        return Err(NetError::KeyLog);
    }
    // An answer goes out with the name of its protocol instead of a round trip behind it (multistream-select, 0-RTT).
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE)
        .with_substream_upgrade_protocol_override(upgrade::Version::V1Lazy);
    Ok(Swarm::new(transport(keypair, circuits)?, behaviour, keypair.public().to_peer_id(), config))
}

/// Sockets, and circuits through what they reach.
pub(super) fn transport(keypair: &Keypair, circuits: relay::client::Transport) -> Result<Out, NetError> {
    let circuits = circuits
        .upgrade(upgrade::Version::V1Lazy)
        .authenticate(noise(keypair)?)
        .multiplex(multiplexing())
        .timeout(HANDSHAKE)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(circuits.or_transport(named(keypair)?).map(|either, _| either.into_inner()).boxed())
}

fn noise(keypair: &Keypair) -> Result<noise::Config, NetError> {
    noise::Config::new(keypair).map_err(|error| NetError::Setup(error.to_string()))
}

fn named(keypair: &Keypair) -> Result<Out, NetError> {
    match dns::tokio::Transport::system(sockets(keypair)?) {
        Ok(resolving) => Ok(resolving.map(|out, _| out).boxed()),
        Err(error) => {
            tracing::warn!(%error, "no DNS configuration: addresses with names can't be dialled");
            sockets(keypair)
        }
    }
}

fn sockets(keypair: &Keypair) -> Result<Out, NetError> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(upgrade::Version::V1Lazy)
        .authenticate(noise(keypair)?)
        .multiplex(multiplexing())
        .timeout(HANDSHAKE)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let mut config = quic::Config::new(keypair);
    (config.max_stream_data, config.max_connection_data) = (WINDOW, QUIC_WINDOWS * WINDOW);
    let quic = quic::tokio::Transport::new(config).map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    Ok(quic.or_transport(tcp).map(|either, _| either.into_inner()).boxed())
}

fn multiplexing() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(YAMUX_STREAMS);
    config
}

/// Binds all addresses. Returns what else happened meanwhile.
pub(super) async fn listen(
    swarm: &mut Swarm<Behaviour>,
    addresses: &[Multiaddr],
) -> Result<Vec<SwarmEvent<BehaviourEvent>>, NetError> {
    // All before any is ours: a check of `::` takes IPv4 in, and would meet our own socket.
    addresses.iter().try_for_each(check_free)?;
    let mut waiting = HashMap::new();
    for address in addresses {
        let id = swarm
            .listen_on(address.clone())
            .map_err(|error| NetError::listen(address, &io::Error::other(error.to_string())))?;
        waiting.insert(id, address.clone());
    }
    let mut backlog = Vec::new();
    let bound = tokio::time::timeout(BIND_DEADLINE, bind_all(swarm, &mut waiting, &mut backlog)).await;
    match (bound, waiting.values().next()) {
        (Ok(outcome), _) => outcome.map(|()| backlog),
        (Err(_), Some(address)) => Err(NetError::listen(address, &io::ErrorKind::TimedOut.into())),
        (Err(_), None) => Ok(backlog),
    }
}

async fn bind_all(
    swarm: &mut Swarm<Behaviour>,
    waiting: &mut HashMap<ListenerId, Multiaddr>,
    backlog: &mut Vec<SwarmEvent<BehaviourEvent>>,
) -> Result<(), NetError> {
    while !waiting.is_empty() {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { listener_id, .. } => drop(waiting.remove(&listener_id)),
            SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. }
            | SwarmEvent::ListenerError { listener_id, error } => {
                if let Some(address) = waiting.get(&listener_id) {
                    return Err(NetError::listen(address, &error));
                }
            }
            other => backlog.push(other),
        }
    }
    Ok(())
}

/// Binds and lets go: libp2p listens with SO_REUSEPORT, with which a second node of the same user would silently share the
/// port and get half the connections.
fn check_free(address: &Multiaddr) -> Result<(), NetError> {
    let outcome = match socket(address) {
        Some((_, socket)) if socket.port() == 0 => Ok(()),
        Some((Socket::Tcp, socket)) => TcpListener::bind(socket).map(drop),
        Some((Socket::Udp, socket)) => UdpSocket::bind(socket).map(drop),
        None => Ok(()),
    };
    outcome.map_err(|error| NetError::listen(address, &error))
}

/// A kind of socket.
pub enum Socket {
    /// TCP.
    Tcp,
    /// UDP, for QUIC.
    Udp,
}

/// The socket that an address is for; `None` if it names none directly.
pub fn socket(address: &Multiaddr) -> Option<(Socket, SocketAddr)> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((Socket::Tcp, (ip, port).into())),
        Protocol::Udp(port) => Some((Socket::Udp, (ip, port).into())),
        _ => None,
    }
}
