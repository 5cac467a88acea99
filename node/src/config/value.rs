//! What a text means: each reader gives a value, or the fix in words.

use crate::{
    market::schedule::{BadWindow, Window},
    net::bootstrap::BootstrapAddress,
};
use infernet_wire::{
    evm::{BadAddress, EvmAddress},
    id::NodeId,
    limits,
    money::MicroUsd,
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// The longest region: `north-america-northeast1-montreal` is 32.
const MAX_REGION_BYTES: usize = 32;
/// A million dollars: whoever lets others owe more has mistaken the unit.
const MAX_CREDIT: u64 = 1_000_000_000_000;
/// The longest host name of DNS (RFC 1035, 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// Where a worker says it is: 1 to 32 of a-z, 0-9 and `-`. Nobody checks it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region(String);

impl Region {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag that says so in an ad.
    pub fn tag(&self) -> String {
        format!("infernet:region:{}", self.0)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=MAX_REGION_BYTES).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Ok(Region(text.into()));
        }
        Err(format!("write 1 to {MAX_REGION_BYTES} of a-z, 0-9 and '-', such as eu-central"))
    }
}

/// A file, absolute. It need not exist.
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| format!("write the path of a file ({error})"))
}

/// Another name of a model that is served here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The model, as its engine calls it.
    pub model: String,
    /// The other name.
    pub alias: String,
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.model, self.alias)
    }
}

pub(super) fn alias(text: &str) -> Result<Alias, String> {
    let name = |name: &str| {
        let fits = (1..=limits::MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
        fits.then(|| name.to_owned())
    };
    let alias = text.split_once('=').and_then(|(model, alias)| {
        Some(Alias { model: name(model.trim())?, alias: name(alias.trim()).filter(|alias| !alias.contains('='))? })
    });
    let limit = limits::MAX_NAME_BYTES;
    alias.ok_or(format!("write MODEL=ALIAS, each 1 to {limit} bytes, such as llama3.1:8b=meta-llama/Llama-3.1-8B-Instruct"))
}

/// `MODEL=N`: jobs at once of one model.
pub(super) fn model_slots(text: &str) -> Result<(String, u16), String> {
    let read = text.rsplit_once('=').and_then(|(model, n)| {
        let n = n.trim().parse().ok().filter(|n| *n > 0)?;
        Some((model_name(model.trim()).ok()?, n))
    });
    read.ok_or("write MODEL=N with at least one job, such as llama3.3:70b=1".into())
}

/// Who may owe how much.
pub(super) fn credit(text: &str) -> Result<(NodeId, MicroUsd), String> {
    let read = text.rsplit_once('=').and_then(|(buyer, amount)| {
        let amount = amount.trim().parse().ok().filter(|amount| *amount <= MAX_CREDIT)?;
        Some((buyer.trim().parse().ok()?, MicroUsd(amount)))
    });
    read.ok_or("write NODE_ID=MICRO_USD, such as 16Uiu2H...=5000000 for five dollars".into())
}

/// A model's name as an engine has it.
pub(super) fn model_name(text: &str) -> Result<String, String> {
    let fits = (1..=limits::MAX_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
        .ok_or(format!("write a model's name of at most {} bytes, such as llama3.1:8b", limits::MAX_NAME_BYTES))
}

/// When it sells.
pub(super) fn window(text: &str) -> Result<Window, String> {
    text.parse().map_err(|error: BadWindow| error.to_string())
}

pub(super) fn peer_address(text: &str) -> Result<Multiaddr, String> {
    text.parse::<BootstrapAddress>().map(Multiaddr::from)
}

/// An address at which others dial the mesh: an IP address or a name, then TCP or QUIC; the peer at its end may be left out.
pub(super) fn external_address(text: &str) -> Result<Multiaddr, String> {
    let fix =
        "write the multiaddr that others can dial, such as /ip4/203.0.113.7/tcp/46337 or /dns4/example.org/udp/46338/quic-v1";
    let mut address: Multiaddr = text.parse().map_err(|_| fix.to_owned())?;
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    if is_dialable(&address) { Ok(address) } else { Err(fix.into()) }
}

/// An address of one of this machine's interfaces.
pub(super) fn own_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "write an IP address of this machine without a port, such as 172.17.0.1".into())
}

/// The same of a relay, which must be named.
pub(super) fn relay_address(text: &str) -> Result<Multiaddr, String> {
    let fix = "write the relay's multiaddr with its id, such as /dns4/relay.example.org/tcp/46337/p2p/16Uiu2H...";
    let address: Multiaddr = text.parse().map_err(|_| fix.to_owned())?;
    let mut place = address.clone();
    if matches!(place.pop(), Some(Protocol::P2p(_))) && is_dialable(&place) { Ok(address) } else { Err(fix.into()) }
}

fn is_dialable(address: &Multiaddr) -> bool {
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let (host, port) = match parts.as_slice() {
        [host, Protocol::Tcp(port)] | [host, Protocol::Udp(port), Protocol::QuicV1] => (host, *port),
        _ => return false,
    };
    let named = match host {
        Protocol::Ip4(ip) => !ip.is_unspecified(),
        Protocol::Ip6(ip) => !ip.is_unspecified(),
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) => true,
        _ => false,
    };
    named && port != 0
}

/// An address that the mesh can listen on: an IP address, then TCP or QUIC.
pub(super) fn mesh_address(text: &str) -> Result<Multiaddr, String> {
    let fix = "write a multiaddr of TCP or QUIC, such as /ip4/0.0.0.0/tcp/46337 or /ip6/::/udp/46338/quic-v1";
    let address: Multiaddr = text.parse().map_err(|_| fix.to_owned())?;
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    match parts.as_slice() {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)]
        | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1] => Ok(address),
        _ => Err(fix.into()),
    }
}

pub(super) fn chat_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a UDP port, such as 0.0.0.0:46337 or [::]:46337".into())
}

/// An address that others can dial.
pub(super) fn outer_address(text: &str) -> Result<SocketAddr, String> {
    let dialable = |address: &SocketAddr| !address.ip().is_unspecified() && address.port() != 0;
    let fix = "write the IP address and UDP port that others can reach, such as 203.0.113.7:46337";
    text.parse().ok().filter(dialable).ok_or(fix.into())
}

pub(super) fn api_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a TCP port, such as 127.0.0.1:46339 or [::1]:46339".into())
}

/// A host name as a browser sends it, without its port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let fits = (1..=MAX_HOST_BYTES).contains(&text.len());
    if fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
        return Ok(text.to_ascii_lowercase());
    }
    Err("write a host name without port or path, such as infernet.home.arpa".into())
}

/// A browser's origin, as its `Origin` header has it.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let fix = "write scheme and host, and the port if there is one, without a path, such as https://chat.example.org";
    let (scheme, authority) = text.split_once("://").ok_or(fix)?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let is_authority = (1..=MAX_HOST_BYTES + 6).contains(&authority.len())
        && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b));
    if is_scheme && is_authority { Ok(text.to_ascii_lowercase()) } else { Err(fix.into()) }
}

/// An account or contract, with its checksum.
pub(super) fn evm_address(text: &str) -> Result<EvmAddress, String> {
    text.parse().map_err(|error: BadAddress| error.to_string())
}

pub(super) fn worker(text: &str) -> Result<NodeId, String> {
    text.parse().map_err(|_| "write a node id, such as 16Uiu2H... (`infernet receipts --json` shows those of workers)".into())
}
