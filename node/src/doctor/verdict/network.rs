//! Ports, peers, and what the kernel allows a socket.

use crate::doctor::{
    Check,
    facts::{Facts, Port, PortState, Reached, Running, Use},
};
use crate::{
    control::schema::{PathsReport, PeerReport, ViaReport},
    net::Reachability,
};

/// What the chat endpoint asks for; see `chat/endpoint`.
const WANTED_BUFFER: u64 = 4 * 1024 * 1024;

pub(super) fn ports(facts: &Facts) -> Vec<Check> {
    if facts.config.is_err() && facts.node.facts().is_none() {
        return vec![Check::unchecked("port", "which ports there should be is not known")];
    }
    let is_stuck = matches!(facts.node, Running::Stuck(_));
    facts.ports.iter().map(|one| port(one, is_stuck)).collect()
}

/// A node that is stuck tells nobody which ports are its own.
fn port(port: &Port, is_stuck: bool) -> Check {
    let protocol = if port.purpose.is_tcp() { "TCP" } else { "UDP" };
    let (what, key) = match port.purpose {
        Use::MeshTcp | Use::MeshQuic => ("mesh", "listen"),
        Use::Chat => ("chat", "chat_listen"),
        Use::Api => ("API", "api_listen"),
    };
    let shown = format!("{protocol} {} for {what}", port.address);
    match &port.state {
        PortState::Free => Check::ok("port", format!("{shown} is free")),
        PortState::Ours => Check::ok("port", format!("{shown} is held by the running node")),
        PortState::Taken if is_stuck => {
            Check::unchecked("port", format!("{shown} is taken, it may be by the node that does not answer"))
        }
        PortState::Taken => Check::problem(
            "port",
            format!("{shown} is taken by another program"),
            format!("stop that program (`ss -lpn` names it), or write another port for {key} in config.toml"),
        ),
        PortState::Unusable(why) => {
            let fix = format!("write another address for {key} in config.toml");
            Check::problem("port", format!("{shown} can't be had: {why}"), fix)
        }
    }
}

pub(super) fn peers(facts: &Facts) -> Vec<Check> {
    let Running::Yes(node) = &facts.node else { return Vec::new() };
    vec![match node.peers.len() {
        0 => Check::warning(
            "peers",
            "the running node has no peer, so it hears and sells nothing",
            "bootstrap = [\"/ip4/ADDRESS/tcp/46337/p2p/ID\"], and open TCP 46337 and UDP 46337-46338",
        ),
        1 => Check::ok("peers", format!("1 is connected{}", ways(&node.peers))),
        n => Check::ok("peers", format!("{n} are connected{}", ways(&node.peers))),
    }]
}

/// By which way they are, and who is relayed through whom.
fn ways(peers: &[PeerReport]) -> String {
    let paths = PathsReport::of(peers);
    let said = std::iter::once(paths.said()).chain(paths.relays.iter().map(ViaReport::said));
    let said: Vec<String> = said.filter(|said| !said.is_empty()).collect();
    if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) }
}

/// Whether others can reach the running node, if it sells.
pub(super) fn reach(facts: &Facts) -> Vec<Check> {
    let Running::Yes(node) = &facts.node else { return Vec::new() };
    let (reach, sells) = (&node.status.reach, node.status.seller.is_some());
    let held = reach.relays.iter().filter(|relay| relay.is_held()).count();
    let barren: Vec<String> = reach.relays.iter().filter(|relay| relay.barren > 0).map(|relay| relay.id.clone()).collect();
    let barren = match barren.is_empty() {
        true => String::new(),
        false => format!("; granted a place and carried nothing: {}", barren.join(", ")),
    };
    let said = format!("{}: {}{barren}", reach.state.label(), reach.why);
    vec![match (reach.state, held) {
        (Reachability::Open | Reachability::Mapped, _) => Check::ok("reach", said),
        (Reachability::Unknown, _) => Check::unchecked("reach", said),
        (Reachability::BehindNat, _) if !sells => Check::ok("reach", format!("{said}; it only buys, which works")),
        (Reachability::BehindNat, 0) => Check::warning(
            "reach",
            format!("{said}, and no relay holds a place for it, so no buyer reaches it"),
            "forward TCP 46337 and UDP 46337-46338 in the router, or name a relay with relays in config.toml",
        ),
        (Reachability::BehindNat, 1) => Check::ok("reach", format!("{said}; 1 relay holds a place for it")),
        (Reachability::BehindNat, n) => Check::ok("reach", format!("{said}; {n} relays hold a place for it")),
    }]
}

/// Whether the local network is searched: by the running node, else by what the configuration says.
fn searches(facts: &Facts) -> Option<bool> {
    let told = facts.node.facts().and_then(|node| node.status.meets.as_ref()).map(|meets| meets.mdns);
    told.or_else(|| facts.config.as_ref().ok().map(|config| config.mdns))
}

pub(super) fn bootstrap(facts: &Facts) -> Vec<Check> {
    let Some(mdns) = searches(facts) else { return vec![Check::unchecked("bootstrap", "whom to meet first is not known")] };
    if facts.bootstrap.is_empty() {
        return vec![unnamed(facts, mdns)];
    }
    let all_fail = facts.bootstrap.iter().all(|(_, reached)| matches!(reached, Reached::Failed(_) | Reached::Useless(..)));
    facts.bootstrap.iter().map(|(address, reached)| met(address, reached, all_fail)).collect()
}

/// Nobody is named. A node that has met somebody all the same needs no name.
fn unnamed(facts: &Facts, mdns: bool) -> Check {
    const NAME: &str = "bootstrap = [\"/ip4/ADDRESS/tcp/46337/p2p/ID\"]";
    match (mdns, facts.node.facts().map(|node| node.peers.len())) {
        // That it has none is said under `peers`, with the same way out.
        (_, Some(0)) => Check::unchecked("bootstrap", "nobody is named to be met first"),
        (_, Some(_)) => Check::ok("bootstrap", "nobody is named to be met first, and it has met peers all the same"),
        (true, None) => Check::warning(
            "bootstrap",
            "nobody is named to be met first, so only peers on the local network and those of earlier runs are met",
            format!("{NAME}, unless all of yours are on the local network"),
        ),
        (false, None) => {
            Check::warning("bootstrap", "nobody is named to be met first, and the local network is not searched", NAME)
        }
    }
}

fn met(address: &str, reached: &Reached, all_fail: bool) -> Check {
    match reached {
        Reached::Connected => Check::ok("bootstrap", format!("{address} is connected")),
        Reached::Dialled(took) => Check::ok("bootstrap", format!("{address} answers after {} ms", took.as_millis())),
        Reached::Resolved => {
            Check::unchecked("bootstrap", format!("{address} has an address; over UDP only a node's handshake tells more"))
        }
        Reached::Told(peers, took) => {
            let peers = if *peers == 1 { "1 peer".into() } else { format!("{peers} peers") };
            Check::ok("bootstrap", format!("{address} names {peers} to begin with, after {} ms", took.as_millis()))
        }
        Reached::Failed(why) => {
            let fix = "see whether that node runs and its TCP 46337 is open, or name another in config.toml";
            unmet(format!("{address} can't be met: {why}"), fix, all_fail)
        }
        Reached::Useless(said, fix) => unmet(said.clone(), fix, all_fail),
    }
}

fn unmet(said: String, fix: &str, all_fail: bool) -> Check {
    if all_fail { Check::problem("bootstrap", said, fix) } else { Check::warning("bootstrap", said, fix) }
}

pub(super) fn mdns(facts: &Facts) -> Check {
    match (searches(facts), facts.multicast) {
        (None, _) => Check::unchecked("mdns", "whether the local network is searched is not known"),
        (Some(false), _) => Check::ok("mdns", "the local network is not searched: mdns = false or --no-mdns"),
        (Some(true), Some(true)) => Check::ok("mdns", "peers on the local network are found; routers pass none of it on"),
        (Some(true), Some(false)) => Check::warning(
            "mdns",
            "no network interface takes multicast, so no peer on the local network is found",
            "name peers with bootstrap, or say mdns = false",
        ),
        (Some(true), None) => Check::unchecked("mdns", "the system does not tell whether an interface takes multicast"),
    }
}

pub(super) fn buffers(facts: &Facts) -> Check {
    match facts.buffers {
        None => Check::unchecked("buffers", "the system does not tell how large a socket's buffers may be"),
        Some((receive, send)) if receive.min(send) < WANTED_BUFFER => Check::warning(
            "buffers",
            format!(
                "a UDP socket gets {} KiB of buffers, and a busy worker wants {}",
                receive.min(send) / 1024,
                WANTED_BUFFER / 1024
            ),
            format!("sudo sysctl -w net.core.rmem_max={WANTED_BUFFER} net.core.wmem_max={WANTED_BUFFER}"),
        ),
        Some((receive, _)) => Check::ok("buffers", format!("a UDP socket gets {} KiB", receive / 1024)),
    }
}
