//! What was seen, without a judgement.

use crate::{
    control::schema::{PeerReport, StatusReport},
    engines::Offers,
    identity::IdentityError,
    store::StoreError,
};
use infernet_wire::id::NodeId;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Everything that was seen. `None` is what could not be seen.
#[derive(Debug)]
pub struct Facts {
    /// The home.
    pub home: PathBuf,
    /// Its permission bits; `None` if there is no such directory.
    pub home_mode: Option<u32>,
    /// Whose key is there, and whether it is sealed.
    pub key: Result<(NodeId, bool), IdentityError>,
    /// What the configuration says, as far as it matters here, or why it can't be used.
    pub config: Result<Configured, String>,
    /// What is wrong with variables that nobody reads.
    pub unknown_variables: Vec<String>,
    /// The node that runs here.
    pub node: Running,
    /// Files with secrets that are there, and their permission bits.
    pub secrets: Vec<(PathBuf, u32)>,
    /// The disk below the home.
    pub disk: Disk,
    /// The receipts, if no node holds them.
    pub store: Option<Result<Receipts, StoreError>>,
    /// Addresses that a node listens at.
    pub ports: Vec<Port>,
    /// The engines that are configured.
    pub engines: Vec<Engine>,
    /// Peers to meet first, and how it went.
    pub bootstrap: Vec<(String, Reached)>,
    /// Whether the system says that its clock is set by time servers.
    pub synchronised: Option<bool>,
    /// Whether a network interface other than loopback takes multicast.
    pub multicast: Option<bool>,
    /// Physical memory, in bytes.
    pub memory: Option<u64>,
    /// Memory of all its GPUs, in bytes.
    pub gpu_memory: Option<u64>,
    /// How many files a process may open: as it is, and as far as it may raise that; `None` within is no limit.
    pub descriptors: (Option<u64>, Option<u64>),
    /// The largest receive and send buffer of a socket, in bytes.
    pub buffers: Option<(u64, u64)>,
}

/// What matters here of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Configured {
    /// Whether there is a file; else defaults hold.
    pub has_file: bool,
    /// Its network.
    pub network: String,
    /// Whether nobody named an engine, so that the usual one is looked for.
    pub backend_is_guess: bool,
    /// Whether peers on the local network are looked for.
    pub mdns: bool,
    /// Connections at most.
    pub max_peers: u32,
    /// What is to be offered of what the engines have.
    pub offers: Offers,
}

/// Whether a node runs in the home.
#[derive(Debug)]
pub enum Running {
    /// None.
    No,
    /// One that does not answer, and why.
    Stuck(String),
    /// One that answers.
    Yes(Box<NodeFacts>),
}

impl Running {
    /// What it says, if it does.
    pub fn facts(&self) -> Option<&NodeFacts> {
        match self {
            Running::Yes(facts) => Some(facts),
            _ => None,
        }
    }
}

/// What the running node says.
#[derive(Debug)]
pub struct NodeFacts {
    /// Its state.
    pub status: StatusReport,
    /// Its peers.
    pub peers: Vec<PeerReport>,
    /// Messages that came too late or too early by its clock, of how many.
    pub clocks: (u64, u64),
}

/// A disk.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Bytes that a user may still write.
    pub free: Option<u64>,
    /// How long a small file took to be on the disk, in the home; `None` if there is no home to write to.
    pub synced: Option<Result<Duration, String>>,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipts {
    /// Whether there is a store at all.
    pub exists: bool,
    /// Receipts that can be read.
    pub readable: u64,
    /// Rows that can't.
    pub unreadable: u64,
}

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// The mesh, over TCP.
    MeshTcp,
    /// The mesh, over QUIC.
    MeshQuic,
    /// Chat streams.
    Chat,
    /// The OpenAI endpoint.
    Api,
}

impl Use {
    /// Whether it is TCP, and not UDP.
    pub fn is_tcp(self) -> bool {
        matches!(self, Use::MeshTcp | Use::Api)
    }
}

/// An address that a node of this configuration listens at.
#[derive(Debug, Clone)]
pub struct Port {
    /// What for.
    pub purpose: Use,
    /// Where.
    pub address: SocketAddr,
    /// How it is.
    pub state: PortState,
}

/// How an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortState {
    /// It can be had.
    Free,
    /// The node of this home has it.
    Ours,
    /// Somebody else has it.
    Taken,
    /// It can't be had, and why.
    Unusable(String),
}

/// An engine, as it answered.
#[derive(Debug, Clone)]
pub struct Engine {
    /// `KIND=URL`.
    pub name: String,
    /// As a running node names it: `KIND at URL`.
    pub label: String,
    /// Whether it is on this machine.
    pub is_local: bool,
    /// Its models, or why it does not tell.
    pub models: Result<Vec<ModelSize>, String>,
}

/// A model, and what its weights weigh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSize {
    /// Its name.
    pub id: String,
    /// Its parameters, 0 if unknown.
    pub parameters: u64,
    /// How its weights are kept, such as `Q4_K_M`; empty if unknown.
    pub quantisation: String,
}

/// How it went with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// The running node is connected to it.
    Connected,
    /// It took a connection after so long.
    Dialled(Duration),
    /// Its name has an address, and over UDP only a peer's own handshake tells more.
    Resolved,
    /// It did not, and why.
    Failed(String),
    /// It is a page that names so many peers to begin with, told after so long.
    Told(usize, Duration),
    /// It is a page that is of no use here: why, naming it, and what to do.
    Useless(String, String),
}
