//! Which addresses can be had here, and which answer elsewhere.

use super::facts::{NodeFacts, Port, PortState, Reached, Use};
use crate::{
    clock,
    config::Config,
    control::schema::StatusReport,
    net::{
        Socket,
        bootstrap::{self, Trouble},
        socket,
    },
};
use infernet_wire::topic::NetworkId;
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

/// The other side of the world answers in half a second; a name server that was asleep in two.
const DIAL: Duration = Duration::from_secs(4);

/// Every address that the running node listens at: flags may have told it others than the file.
pub(super) fn held(status: &StatusReport) -> Vec<Port> {
    let mesh = status.listen.iter().filter_map(|text| mesh_port(&text.parse().ok()?));
    let chat = status.chat.parse().ok().map(|chat| (Use::Chat, chat));
    let api = status.api.as_ref().and_then(|url| Some((Use::Api, api_address(url)?)));
    let port = |(purpose, address): (Use, SocketAddr)| Port { purpose, address, state: PortState::Ours };
    let mut held: Vec<Port> = mesh.chain(chat).chain(api).map(port).collect();
    // One for each port: a machine has many addresses.
    let mut seen = BTreeSet::new();
    held.retain(|port| seen.insert((port.purpose, port.address.port())));
    held
}

/// Every address that a node of `config` would listen at, and how it is.
pub(super) fn wanted(config: &Config) -> Vec<Port> {
    let mesh = config.listen.iter().filter_map(mesh_port);
    let wanted = mesh.chain([(Use::Chat, config.chat_listen)]).chain(config.api.map(|api| (Use::Api, api)));
    let port = |(purpose, address): (Use, SocketAddr)| Port { purpose, address, state: state(try_bind(purpose, address)) };
    // Port 0 is any that is free.
    wanted.filter(|(_, address)| address.port() != 0).map(port).collect()
}

fn mesh_port(address: &Multiaddr) -> Option<(Use, SocketAddr)> {
    let (kind, socket) = socket(address)?;
    let purpose = match kind {
        Socket::Tcp => Use::MeshTcp,
        Socket::Udp => Use::MeshQuic,
    };
    Some((purpose, socket))
}

/// Of `http://127.0.0.1:46339/v1`.
fn api_address(url: &str) -> Option<SocketAddr> {
    url.strip_prefix("http://")?.split('/').next()?.parse().ok()
}

/// Takes the address, and lets it go at once.
fn try_bind(purpose: Use, address: SocketAddr) -> io::Result<()> {
    if purpose.is_tcp() { TcpListener::bind(address).map(drop) } else { UdpSocket::bind(address).map(drop) }
}

fn state(bound: io::Result<()>) -> PortState {
    match bound {
        Ok(()) => PortState::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => PortState::Taken,
        Err(error) => PortState::Unusable(error.to_string()),
    }
}

/// Whether the peer at `address` can be met, or what the page there tells a node of `network`.
pub(super) async fn peer(address: &Multiaddr, network: &NetworkId, node: Option<&NodeFacts>) -> Reached {
    if bootstrap::is_page(address) {
        return page(address, network).await;
    }
    if node.is_some_and(|node| is_connected(node, address)) {
        return Reached::Connected;
    }
    match timeout(DIAL, dial(address)).await {
        Ok(Ok(reached)) => reached,
        Ok(Err(reason)) => Reached::Failed(reason),
        Err(_) => Reached::Failed(format!("no answer within {} s", DIAL.as_secs())),
    }
}

async fn page(address: &Multiaddr, network: &NetworkId) -> Reached {
    let begin = clock::instant();
    match timeout(DIAL, bootstrap::look(address, network)).await {
        Ok(Ok(peers)) => Reached::Told(peers, begin.elapsed()),
        Ok(Err(Trouble { said, fix })) => Reached::Useless(said, fix),
        Err(_) => Reached::Failed(format!("no answer within {} s", DIAL.as_secs())),
    }
}

fn is_connected(node: &NodeFacts, address: &Multiaddr) -> bool {
    let id = address.iter().find_map(|part| if let Protocol::P2p(id) = part { Some(id.to_string()) } else { None });
    node.peers.iter().any(|peer| id.as_ref().is_some_and(|id| *id == peer.id.to_string()))
}

async fn dial(address: &Multiaddr) -> Result<Reached, String> {
    let (host, port, is_tcp) = parts(address).ok_or("it is neither TCP nor QUIC at an address or a name")?;
    let begin = clock::instant();
    let found: Vec<SocketAddr> = lookup_host((host.as_str(), port)).await.map_err(|error| error.to_string())?.collect();
    if found.is_empty() {
        return Err("the name has no address".into());
    }
    if !is_tcp {
        return Ok(Reached::Resolved);
    }
    TcpStream::connect(found.as_slice()).await.map(|_| Reached::Dialled(begin.elapsed())).map_err(|error| error.to_string())
}

/// Host, port, and whether it is TCP.
fn parts(address: &Multiaddr) -> Option<(String, u16, bool)> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => ip.to_string(),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((host, port, true)),
        Protocol::Udp(port) => Some((host, port, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a multiaddr")
    }

    #[test]
    fn a_port_is_free_until_somebody_has_it() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let held = socket.local_addr().unwrap();
        assert_eq!(state(try_bind(Use::Chat, held)), PortState::Taken);
        drop(socket);
        assert_eq!(state(try_bind(Use::Chat, held)), PortState::Free);
        let nowhere = "192.0.2.1:1".parse().unwrap();
        assert!(matches!(state(try_bind(Use::Api, nowhere)), PortState::Unusable(_)));
    }

    #[test]
    fn addresses_are_taken_apart() {
        let (host, quic) = ("example.org".to_owned(), "/ip6/::1/udp/7/quic-v1");
        assert_eq!(parts(&address("/dns4/example.org/tcp/46337")), Some((host, 46337, true)));
        assert_eq!(parts(&address(quic)), Some(("::1".into(), 7, false)));
        assert_eq!(parts(&address("/unix/a")), None);
        assert_eq!(mesh_port(&address(quic)), Some((Use::MeshQuic, "[::1]:7".parse().unwrap())));
        assert_eq!(api_address("http://[::1]:46339/v1"), "[::1]:46339".parse().ok());
    }

    #[tokio::test]
    async fn a_peer_is_dialled_and_a_dead_one_is_told_of() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = address(&format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()));
        let network = NetworkId::default();
        assert!(matches!(peer(&at, &network, None).await, Reached::Dialled(_)));
        drop(listener);
        assert!(matches!(peer(&at, &network, None).await, Reached::Failed(_)));
        assert_eq!(peer(&address("/ip4/127.0.0.1/udp/1/quic-v1"), &network, None).await, Reached::Resolved);
    }
}
