//! Where a newcomer begins, if it is told a page instead of peers: a relay's `bootstrap.json`.
//!
//! Wherever a peer to begin with is named, the page may be, too: `http://relay.example:46382/bootstrap.json`, or without the path.
//! It is kept as a multiaddr like the others, see [`BootstrapAddress`]. A task fetches the pages at the start, and whenever nobody
//! is connected again, after pauses that grow; what they tell goes to the network's own task as peers to dial and as relays.
//!
//! A page is a hint from whoever answers there. It must be of our network and protocol. Of what it names only what a peer nearby
//! could claim counts: each address with its peer's id at the end, none closer to us than the page itself, and none where clouds
//! tell their secrets. Over `http` whoever is on the way can name peers of their own, which can hide the network but not forge a
//! message; `https` and a full multiaddr with `/p2p/…` rule that out.

mod page;

pub use page::BootstrapAddress;
pub(crate) use page::is_page;

use super::{KAD_PROTOCOL, command::Command, discovery, peers};
use crate::{backend::address, clock};
use futures::future::join_all;
use infernet_wire::{id::NodeId, topic::NetworkId};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use page::{Fetched, Fetcher, PageError};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::{info, warn};

/// The shape that is spoken here.
pub const VERSION: u32 = 1;
/// Pages that are asked: one or two are named.
const MAX_PAGES: usize = 8;
/// Peers taken from one page: as many as a node wants neighbours, twice.
const MAX_PEERS: usize = 16;
/// Before a page is asked again.
const FIRST_PAUSE_MS: u64 = 5_000;
/// The longest such pause: what a page says may be kept for five minutes.
const LONGEST_PAUSE_MS: u64 = 300_000;
/// Connected for so long, the next loss is a new one.
const SETTLED: Duration = Duration::from_secs(60);

/// The page as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Of this shape: [`VERSION`].
    pub version: u32,
    /// The network that it is about.
    pub network: String,
    /// The DHT's protocol with its version.
    pub protocol_id: String,
    /// SHA-256 of the key of who answers: for people, who compare it with what was said elsewhere.
    #[serde(default)]
    pub fingerprint: String,
    /// Where to begin.
    pub peers: Vec<DocumentPeer>,
}

/// One of its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentPeer {
    /// Who it is.
    pub id: String,
    /// Where it is, each with `/p2p/` and its id at the end.
    pub addrs: Vec<String>,
    /// Who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Peers of a page with their addresses, each with `/p2p/` at the end.
pub(super) type Relays = BTreeMap<PeerId, Vec<Multiaddr>>;

/// A page is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Useless {
    #[error("its shape is version {0}, this node knows {VERSION}: update the older of the two")]
    Version(u32),
    #[error("it is of the network {0:?}, this node of {1:?}: see --network and --bootstrap")]
    Network(String, NetworkId),
    #[error("it speaks {0:?}, this node {KAD_PROTOCOL:?}: update the older of the two")]
    Protocol(String),
    #[error("none of the {0} peers it names has an address that can be used from here")]
    NoPeers(usize),
}

impl Document {
    /// What can be used of it; `from` is where it came from, as an address.
    fn relays(&self, network: &NetworkId, from: IpAddr) -> Result<Relays, Useless> {
        if self.version != VERSION {
            return Err(Useless::Version(self.version));
        }
        if self.network != network.as_str() {
            return Err(Useless::Network(self.network.chars().take(64).collect(), network.clone()));
        }
        if self.protocol_id != KAD_PROTOCOL {
            return Err(Useless::Protocol(self.protocol_id.chars().take(64).collect()));
        }
        // Which port it was does not matter.
        let from = Multiaddr::from(from).with(Protocol::Tcp(1));
        let relays: Relays = self.peers.iter().take(MAX_PEERS).filter_map(|peer| peer.usable(&from)).collect();
        if relays.is_empty() { Err(Useless::NoPeers(self.peers.len())) } else { Ok(relays) }
    }
}

impl DocumentPeer {
    fn usable(&self, from: &Multiaddr) -> Option<(PeerId, Vec<Multiaddr>)> {
        let node: NodeId = self.id.parse().ok()?;
        let peer = peers::peer_id(&node)?;
        let addresses = self.addrs.iter().take(discovery::MAX_ADDRESSES).filter_map(|text| text.parse().ok());
        let usable: Vec<Multiaddr> = addresses.filter(|address| is_usable(address, peer, from)).collect();
        (!usable.is_empty()).then_some((peer, usable))
    }
}

fn is_usable(address: &Multiaddr, peer: PeerId, from: &Multiaddr) -> bool {
    let is_whole = discovery::peer_of(address) == Some(peer) && discovery::relay_of(address).is_none();
    let tells_secrets = match address.iter().next() {
        Some(Protocol::Ip4(ip)) => address::tells_secrets(ip.into()),
        Some(Protocol::Ip6(ip)) => address::tells_secrets(ip.into()),
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => address::is_metadata_name(&name),
        _ => true,
    };
    is_whole && !tells_secrets && discovery::is_usable(address, from)
}

impl Useless {
    fn fix(&self) -> String {
        match self {
            Useless::Version(_) | Useless::Protocol(_) => "update the older of the two".into(),
            Useless::Network(theirs, ours) => format!("network = {theirs:?} if you mean that one; else name a relay of {ours}"),
            Useless::NoPeers(_) => {
                "its operator should start it with --external-address and where it is reached; or name another relay".into()
            }
        }
    }
}

/// Why a page is no place to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In a sentence that names the page.
    pub(crate) said: String,
    /// What to do.
    pub(crate) fix: String,
}

impl From<PageError> for Trouble {
    fn from(error: PageError) -> Self {
        Trouble { said: error.to_string(), fix: error.fix().into() }
    }
}

/// Reads the page at `address` once, as a node of `network` does at its start. How many peers it names that are of use here.
pub(crate) async fn look(address: &Multiaddr, network: &NetworkId) -> Result<usize, Trouble> {
    let fetched = Fetcher::new(page::is_encrypted(address))?.fetch(address).await?;
    Ok(told(address, &fetched, network)?.len())
}

/// What of a page can be used.
fn told(address: &Multiaddr, fetched: &Fetched, network: &NetworkId) -> Result<Relays, Trouble> {
    let useless =
        |error: Useless| Trouble { said: format!("{}: {error}", BootstrapAddress::from(address.clone())), fix: error.fix() };
    fetched.document.relays(network, fetched.from).map_err(useless)
}

/// How long to wait before the pages are asked again, after `rounds` of it without being connected for long.
fn pause(rounds: u32, chance: u64) -> Duration {
    let ms = FIRST_PAUSE_MS.checked_shl(rounds.min(10)).unwrap_or(LONGEST_PAUSE_MS).min(LONGEST_PAUSE_MS);
    Duration::from_millis(discovery::spread(ms, chance))
}

/// Asks `pages` while nobody is connected; ends with the network. `subscribers` counts who is connected.
pub(super) async fn follow(
    pages: Vec<Multiaddr>,
    network: NetworkId,
    commands: mpsc::WeakSender<Command>,
    subscribers: watch::Receiver<usize>,
) {
    let mut ended = subscribers.clone();
    let asking =
        Asking { pages: pages.into_iter().take(MAX_PAGES).map(|page| (page, None)).collect(), network, commands, subscribers };
    tokio::select! {
        biased;
        // Nobody counts to that: it resolves when the network is gone.
        _ = ended.wait_for(|count| *count == usize::MAX) => {}
        () = asking.run() => {}
    }
}

struct Asking {
    /// Each with what was logged of it last, so that it is logged once.
    pages: Vec<(Multiaddr, Option<String>)>,
    network: NetworkId,
    commands: mpsc::WeakSender<Command>,
    subscribers: watch::Receiver<usize>,
}

impl Asking {
    async fn run(mut self) {
        let fetcher = match Fetcher::new(self.pages.iter().any(|(page, _)| page::is_encrypted(page))) {
            Ok(fetcher) => fetcher,
            Err(error) => return warn!("pages to begin at can't be asked: {error}"),
        };
        let mut rounds = 0;
        loop {
            self.ask(&fetcher).await;
            let pause = pause(rounds, u64::from_be_bytes(clock::random()));
            rounds += 1;
            let connected = timeout(pause, self.subscribers.wait_for(|count| *count > 0)).await.is_ok();
            if connected && timeout(SETTLED, self.subscribers.wait_for(|count| *count == 0)).await.is_err() {
                rounds = 0;
                let _ = self.subscribers.wait_for(|count| *count == 0).await;
            }
            if connected {
                // First those that are known are tried again; and pages are not asked by everybody at once.
                let _ = timeout(pause, self.subscribers.wait_for(|count| *count > 0)).await;
            }
            let _ = self.subscribers.wait_for(|count| *count == 0).await;
        }
    }

    async fn ask(&mut self, fetcher: &Fetcher) {
        let fetched = join_all(self.pages.iter().map(|(page, _)| fetcher.fetch(page))).await;
        let mut told = Relays::new();
        for ((page, said), fetched) in self.pages.iter_mut().zip(fetched) {
            let of_page = fetched.map_err(Trouble::from).and_then(|fetched| self::told(page, &fetched, &self.network));
            let now = of_page.as_ref().map_or_else(|trouble| trouble.said.clone(), |relays| format!("{} peers", relays.len()));
            if said.as_ref() != Some(&now) {
                match &of_page {
                    Ok(relays) => {
                        info!(page = %BootstrapAddress::from(page.clone()), peers = relays.len(), "told where to begin")
                    }
                    Err(trouble) => warn!("not told where to begin: {}", trouble.said),
                }
            }
            *said = Some(now);
            told.extend(of_page.unwrap_or_default());
        }
        if let (false, Some(commands)) = (told.is_empty(), self.commands.upgrade()) {
            // Nobody is left to begin after the shutdown.
            let _ = commands.send(Command::Begin { relays: told }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = "198.51.100.7";

    fn id(fill: u8) -> String {
        infernet_wire::key::NodeKey::from_bytes(&[fill; 32]).unwrap().id().to_string()
    }

    fn document(addrs: &[&str]) -> Document {
        let id = id(7);
        let addrs = addrs.iter().map(|address| address.replace("ID", &id)).collect();
        let peers = vec![DocumentPeer { id, addrs, operator: None, region: None }];
        let protocol_id = KAD_PROTOCOL.to_string();
        Document { version: VERSION, network: "main".into(), protocol_id, fingerprint: String::new(), peers }
    }

    fn judged(document: &Document, from: &str) -> Result<usize, String> {
        let relays = document.relays(&"main".parse().unwrap(), from.parse().unwrap());
        relays.map(|relays| relays.values().map(Vec::len).sum()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_page_of_another_network_shape_or_protocol_is_refused_in_words() {
        let good = document(&["/ip4/198.51.100.9/tcp/46337/p2p/ID", "/ip4/198.51.100.9/udp/46338/quic-v1/p2p/ID"]);
        assert_eq!(judged(&good, WORLD), Ok(2));
        let check = |change: fn(&mut Document), words: &str| {
            let mut document = good.clone();
            change(&mut document);
            let said = judged(&document, WORLD).unwrap_err();
            assert!(said.contains(words), "{said}");
        };
        check(|page| page.version = 2, "version 2");
        check(|page| page.network = "test".into(), "\"test\"");
        check(|page| page.protocol_id = "/c0mpute/kad/9".into(), "kad/9");
        check(|page| page.peers.clear(), "none of the 0 peers");
        check(|page| page.peers[0].id = id(8), "none of the 1 peers");
        check(|page| page.peers[0].id = "x".into(), "none of the 1 peers");
    }

    #[test]
    fn only_addresses_that_name_their_peer_and_reach_as_far_as_the_page_count() {
        let check = |address: &str, from: &str, is_good: bool| {
            assert_eq!(judged(&document(&[address]), from).is_ok(), is_good, "{address} from {from}");
        };
        check("/ip4/127.0.0.1/tcp/1/p2p/ID", "127.0.0.1", true);
        check("/ip4/10.0.0.1/tcp/1/p2p/ID", "10.0.0.2", true);
        check("/dns4/relay.example/tcp/46337/p2p/ID", WORLD, true);
        check("/ip4/127.0.0.1/tcp/1/p2p/ID", WORLD, false);
        check("/ip4/10.0.0.1/tcp/1/p2p/ID", WORLD, false);
        check("/ip4/198.51.100.9/tcp/1", WORLD, false);
        check("/ip4/198.51.100.9/tcp/0/p2p/ID", WORLD, false);
        check("/ip4/169.254.169.254/tcp/80/p2p/ID", "127.0.0.1", false);
        check("/ip6/fe80::1/tcp/80/p2p/ID", "127.0.0.1", false);
        check("/dns4/metadata.google.internal/tcp/80/p2p/ID", WORLD, false);
        check("/ip4/198.51.100.9/tcp/1/p2p/ID/p2p-circuit/p2p/ID", WORLD, false);
        check("/ip4/198.51.100.9/udp/1/p2p/ID", WORLD, false);
        check("/unix/a/p2p/ID", "127.0.0.1", false);
    }

    #[test]
    fn a_page_names_sixteen_peers_at_most() {
        let mut page = document(&[]);
        page.peers = (1..40)
            .map(|fill| {
                let addrs = vec![format!("/ip4/198.51.100.9/tcp/1/p2p/{}", id(fill)); 99];
                DocumentPeer { id: id(fill), addrs, operator: None, region: None }
            })
            .collect();
        assert_eq!(judged(&page, WORLD), Ok(MAX_PEERS * discovery::MAX_ADDRESSES));
    }

    #[test]
    fn pauses_grow_to_five_minutes() {
        let pauses: Vec<u64> = (0..9).map(|round| pause(round, 0).as_millis() as u64).collect();
        assert_eq!(pauses[..3], [3_750, 7_500, 15_000]);
        assert_eq!(pauses[8], 225_000);
    }
}
