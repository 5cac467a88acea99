//! One job's byte stream, whatever carries it: QUIC of our own, or a libp2p stream over a direct, a punched or a relayed connection.

use infernet_wire::id::NodeId;
use std::{fmt, io, net::SocketAddr, pin::Pin};
use tokio::io::{AsyncRead, AsyncWrite};

/// How a stream reaches the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Straight over UDP, to the chat endpoint.
    Direct(SocketAddr),
    /// Over the mesh's own connection, which goes straight; to where, if it is a socket.
    Mesh(Option<SocketAddr>),
    /// The same, after hole punching.
    Punched(Option<SocketAddr>),
    /// Through this relay, if its key is one of ours.
    Relayed(Option<NodeId>),
}

impl Path {
    /// A short stable name, for counters.
    pub fn label(&self) -> &'static str {
        match self {
            Path::Direct(_) | Path::Mesh(_) => "direct",
            Path::Punched(_) => "punched",
            Path::Relayed(_) => "relayed",
        }
    }

    /// Whether a closed stream may mean a lost connection: libp2p ends streams in order when their connection breaks.
    fn ends_when_lost(&self) -> bool {
        !matches!(self, Path::Direct(_))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |f: &mut fmt::Formatter<'_>, kind, addr: &Option<SocketAddr>| match addr {
            Some(addr) => write!(f, "{kind} libp2p {addr}"),
            None => write!(f, "{kind} libp2p"),
        };
        match self {
            Path::Direct(addr) => write!(f, "direct quic {addr}"),
            Path::Mesh(addr) => at(f, "direct", addr),
            Path::Punched(addr) => at(f, "punched", addr),
            Path::Relayed(Some(relay)) => write!(f, "relayed by {}", relay.short()),
            Path::Relayed(None) => write!(f, "relayed"),
        }
    }
}

/// What a buyer knows of the way to its worker, beside which it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// There and back, in milliseconds, once measured.
    pub rtt_ms: Option<u32>,
    /// Why it is not direct; `None` if it is.
    pub why_not_direct: Option<String>,
}

/// What comes in on a stream.
pub type Incoming = Pin<Box<dyn AsyncRead + Send>>;
/// What goes out on it. Dropping it closes in order.
pub type Outgoing = Pin<Box<dyn AsyncWrite + Send>>;

/// One job's byte stream.
pub struct ChatStream {
    /// Who is on the other side, proved.
    pub peer: NodeId,
    /// How.
    pub path: Path,
    /// What comes in.
    pub recv: Incoming,
    /// What goes out.
    pub send: Outgoing,
}

/// Why a stream is over, as far as the transport tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The network failed, or may have: the other side may come back.
    Lost,
    /// The other side ended it.
    Left,
}

impl Ending {
    /// The end of a stream on `path` that was closed, in order or not.
    pub fn of_close(path: &Path) -> Self {
        if path.ends_when_lost() { Ending::Lost } else { Ending::Left }
    }

    /// The end of a stream that failed with `error`.
    pub fn of_error(error: &io::Error) -> Self {
        if super::endpoint::is_goodbye(error) { Ending::Left } else { Ending::Lost }
    }
}
