//! What a plane's operator sets: flags over environment over file over defaults.
//!
//! Each key is a flag (`--bootstrap`), a variable (`INFERNET_PLANE_BOOTSTRAP`) and a line in the file (`bootstrap = […]`); lists
//! are comma separated in a variable. [`EXAMPLE`] is the file with everything explained.

mod admin;
mod evm;

use crate::{cashier::CashierConfig, config::PlaneConfig, presence};
use clap::Args;
pub use infernet_node::program::SettingsError;
use infernet_node::{
    net::bootstrap::BootstrapAddress,
    program::{grace, level, read, wrong},
    program_keys,
};
use infernet_wire::{evm::EvmAddress, money::MicroUsd, topic::NetworkId};
use libp2p::Multiaddr;
use serde::Deserialize;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// The file with all keys at their defaults, explained.
pub const EXAMPLE: &str = include_str!("settings/plane.toml");
/// The file's name in a home.
pub const FILE: &str = "plane.toml";
/// Where HTTP is served unless said otherwise.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 46380);
/// Where `/metrics` is served unless said otherwise.
pub const WATCH_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 46381);
const P2P_LISTEN: [&str; 2] = ["/ip4/0.0.0.0/tcp/46347", "/ip4/0.0.0.0/udp/46348/quic-v1"];
/// An indexer hears more the more it is connected to; each connection is some 100 kB.
const MAX_PEERS: u32 = 128;
/// Seconds that running answers have when it stops: with the 40 that everything else may take less than a unit's 90.
const GRACE: u64 = 30;

program_keys! {
    /// What is remembered: a directory for the embedded store, or postgres://user:password@host/database
    #[arg(value_name = "DIR|URL")]
    store: String = "INFERNET_PLANE_STORE",
    /// Where HTTP is served
    #[arg(value_name = "ADDR")]
    listen: SocketAddr = "INFERNET_PLANE_LISTEN",
    /// Where clients find it, such as `https://plane.example`
    #[arg(value_name = "URL")]
    origin: String = "INFERNET_PLANE_ORIGIN",
    /// Where /metrics, /healthz and /readyz are served; none: nowhere
    #[arg(value_name = "ADDR")]
    watch_listen: String = "INFERNET_PLANE_WATCH_LISTEN",
    /// Certificate chain (PEM); with --tls-key: HTTPS
    #[arg(value_name = "FILE")]
    tls_cert: PathBuf = "INFERNET_PLANE_TLS_CERT",
    /// Private key of the certificate (PEM)
    #[arg(value_name = "FILE")]
    tls_key: PathBuf = "INFERNET_PLANE_TLS_KEY",
    /// More names that the plane is asked for by
    #[arg(value_name = "HOST", value_delimiter = ',')]
    hosts: Vec<String> = "INFERNET_PLANE_HOSTS",
    /// Pages of these origins may use the API, with a key
    #[arg(value_name = "ORIGIN", value_delimiter = ',')]
    origins: Vec<String> = "INFERNET_PLANE_ORIGINS",
    /// Proxies whose X-Forwarded-For is believed
    #[arg(value_name = "IP", value_delimiter = ',')]
    proxies: Vec<IpAddr> = "INFERNET_PLANE_PROXIES",
    /// Requests a minute of one address
    #[arg(value_name = "N")]
    per_minute: u32 = "INFERNET_PLANE_PER_MINUTE",
    /// Whether whoever signs in becomes a client
    sign_up: bool = "INFERNET_PLANE_SIGN_UP",
    /// Who runs the plane, as KIND:SUBJECT, such as operator:16Uiu2H…
    #[arg(value_name = "WHO", value_delimiter = ',')]
    admins: Vec<String> = "INFERNET_PLANE_ADMINS",
    /// Micro-USD a day for each address without a key, paid by you
    #[arg(value_name = "MICRO_USD")]
    anonymous_per_day: u64 = "INFERNET_PLANE_ANONYMOUS_PER_DAY",
    /// Which network it follows
    #[arg(value_name = "NAME")]
    network: NetworkId = "INFERNET_PLANE_NETWORK",
    /// Nodes to begin with, each with /p2p/… at the end, or a relay's http://HOST:46382/bootstrap.json
    #[arg(value_name = "ADDRESS", value_delimiter = ',')]
    bootstrap: Vec<BootstrapAddress> = "INFERNET_PLANE_BOOTSTRAP",
    /// Where the mesh reaches it
    #[arg(value_name = "MULTIADDR", value_delimiter = ',')]
    p2p_listen: Vec<Multiaddr> = "INFERNET_PLANE_P2P_LISTEN",
    /// Whether to look for nodes on the local network
    mdns: bool = "INFERNET_PLANE_MDNS",
    /// Connections to nodes at most
    #[arg(value_name = "N")]
    max_peers: u32 = "INFERNET_PLANE_MAX_PEERS",
    /// Whether it buys for clients; false: it only shows
    buys: bool = "INFERNET_PLANE_BUYS",
    /// Ceiling of jobs that name none, in micro-USD per million tokens
    #[arg(value_name = "MICRO_USD")]
    max_price: u64 = "INFERNET_PLANE_MAX_PRICE",
    /// Whether existing daemons get jobs that no node bid on
    legacy: bool = "INFERNET_PLANE_LEGACY",
    /// URL of an EVM chain's node, with its key if it has one: clients may deposit there
    #[arg(value_name = "URL")]
    evm_rpc: String = "INFERNET_PLANE_EVM_RPC",
    /// The chain that this node must be on, such as 8453
    #[arg(value_name = "ID")]
    evm_chain: u64 = "INFERNET_PLANE_EVM_CHAIN",
    /// Token of dollars with six decimals that is taken, such as USDC
    #[arg(value_name = "ADDRESS")]
    evm_token: EvmAddress = "INFERNET_PLANE_EVM_TOKEN",
    /// Blocks that bury a transfer before it counts
    #[arg(value_name = "N")]
    evm_depth: u64 = "INFERNET_PLANE_EVM_DEPTH",
    /// Where what is above --evm-hot-cap goes
    #[arg(value_name = "ADDRESS")]
    evm_cold: EvmAddress = "INFERNET_PLANE_EVM_COLD",
    /// Micro-USD that stay on the plane's own account
    #[arg(value_name = "MICRO_USD")]
    evm_hot_cap: u64 = "INFERNET_PLANE_EVM_HOT_CAP",
    /// Seconds that running answers have when it stops
    #[arg(value_name = "SECONDS")]
    grace: u64 = "INFERNET_PLANE_GRACE",
    /// error, warn, info, debug or trace
    #[arg(value_name = "LEVEL")]
    log: String = "INFERNET_PLANE_LOG",
}

/// Everything that is set, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where keys and, unless named, the store are.
    pub home: PathBuf,
    /// A directory or a URL.
    pub store: String,
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Where `/metrics` is; `None`: nowhere.
    pub watch_listen: Option<SocketAddr>,
    /// Certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Nodes to begin with.
    pub bootstrap: Vec<Multiaddr>,
    /// Where the mesh reaches it.
    pub p2p_listen: Vec<Multiaddr>,
    /// Whether to look for nodes on the local network.
    pub mdns: bool,
    /// Connections to nodes at most.
    pub max_peers: u32,
    /// Whether it buys.
    pub buys: bool,
    /// Where clients may deposit.
    pub cashier: Option<CashierConfig>,
    /// Seconds that running answers have when it stops.
    pub grace: u64,
    /// How much is logged.
    pub log: String,
    /// What the routes are set to.
    pub plane: PlaneConfig,
}

impl Settings {
    /// What `flags` and the file of `home` say together.
    pub fn load(home: &Path, flags: Keys) -> Result<Self, SettingsError> {
        let file = read(&home.join(FILE), toml::from_str::<Keys>)?;
        Settings::check(home, flags.or(file))
    }

    fn check(home: &Path, keys: Keys) -> Result<Self, SettingsError> {
        let cashier = evm::read(&keys)?;
        let listen = keys.listen.unwrap_or(LISTEN);
        let tls = match (keys.tls_cert, keys.tls_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("tls-key", "a certificate needs its key: name the file of the key, too")),
            (None, Some(_)) => return Err(wrong("tls-cert", "a key needs its certificate: name the file of the chain, too")),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = match keys.origin {
            Some(origin) => checked_origin(&origin)?,
            None if listen.ip().is_unspecified() => {
                return Err(wrong(
                    "origin",
                    "a plane that listens everywhere must be told its name: --origin https://plane.example",
                ));
            }
            None => format!("{scheme}://{listen}"),
        };
        let watch_listen = match keys.watch_listen.as_deref() {
            None => Some(WATCH_LISTEN),
            Some("none" | "") => None,
            Some(text) => Some(
                text.parse().map_err(|_| wrong("watch-listen", format!("{text:?} is no address such as {WATCH_LISTEN}")))?,
            ),
        };
        let mut plane = PlaneConfig::new(origin);
        plane.network = keys.network.unwrap_or_default();
        plane.legacy = keys.legacy.unwrap_or(plane.legacy);
        plane.offline_ms = presence::SILENCE_MS;
        plane.http.hosts = keys.hosts.unwrap_or_default();
        plane.http.origins = keys.origins.unwrap_or_default();
        plane.http.proxies = keys.proxies.unwrap_or_default();
        plane.http.per_minute = keys.per_minute.unwrap_or(plane.http.per_minute);
        if plane.http.per_minute == 0 {
            return Err(wrong("per-minute", "0 requests a minute would shut out everybody: write 1 or more"));
        }
        plane.http.sign_up = keys.sign_up.unwrap_or(plane.http.sign_up);
        let admins = keys.admins.unwrap_or_default();
        plane.http.admins =
            admins.iter().map(|text| admin::read(text)).collect::<Result<_, _>>().map_err(|reason| wrong("admins", reason))?;
        plane.http.anonymous_per_day = keys.anonymous_per_day.filter(|most| *most > 0).map(MicroUsd);
        plane.gateway.max_price = keys.max_price.map_or(plane.gateway.max_price, MicroUsd);
        let grace = grace(keys.grace, GRACE)?;
        let max_peers = keys.max_peers.unwrap_or(MAX_PEERS);
        if max_peers == 0 {
            return Err(wrong("max-peers", "without a connection it hears nothing: write 1 or more"));
        }
        let default_listen = || P2P_LISTEN.iter().filter_map(|text| text.parse().ok()).collect();
        let log = level(keys.log)?;
        Ok(Settings {
            home: home.to_owned(),
            store: keys.store.unwrap_or_else(|| home.join("store").display().to_string()),
            listen,
            watch_listen,
            tls,
            bootstrap: keys.bootstrap.unwrap_or_default().into_iter().map(Multiaddr::from).collect(),
            p2p_listen: keys.p2p_listen.unwrap_or_else(default_listen),
            mdns: keys.mdns.unwrap_or(true),
            max_peers,
            buys: keys.buys.unwrap_or(true),
            cashier,
            grace,
            log,
            plane,
        })
    }
}

/// `scheme://host[:port]`, and nothing behind it.
fn checked_origin(text: &str) -> Result<String, SettingsError> {
    let text = text.trim_end_matches('/');
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
        return Err(wrong(
            "origin",
            format!("{text:?} is no origin: write scheme and host alone, such as https://plane.example"),
        ));
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, flags: Keys) -> Result<Settings, String> {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join(FILE), file).expect("written");
        Settings::load(home.path(), flags).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let flags = Keys { listen: Some("127.0.0.1:1".parse().expect("an address")), ..Keys::default() };
        let settings = load("listen = \"127.0.0.1:2\"\nnetwork = \"test\"\nwatch-listen = \"none\"", flags).expect("good");
        assert_eq!((settings.listen.port(), settings.plane.network.as_str()), (1, "test"));
        assert_eq!(settings.plane.origin, "http://127.0.0.1:1");
        assert_eq!((settings.watch_listen, settings.buys, settings.mdns), (None, true, true));
    }

    #[test]
    fn the_example_explains_every_key_and_changes_nothing() {
        for name in Keys::NAMES {
            let key = format!("# {} = ", name.replace('_', "-"));
            assert!(EXAMPLE.contains(&key), "{key} is missing");
        }
        let home = tempfile::tempdir().expect("a directory");
        let load = |file: &str| {
            std::fs::write(home.path().join(FILE), file).expect("written");
            Settings::load(home.path(), Keys::default()).map_err(|error| error.to_string())
        };
        let plain = load("").expect("good");
        assert_eq!(plain, load(EXAMPLE).expect("good"));
        const WHERE: [&str; 8] =
            ["store", "tls-cert", "tls-key", "evm-rpc", "evm-chain", "evm-token", "evm-cold", "evm-hot-cap"];
        // And its values are the defaults, but for those that say where something of the operator's is.
        let uncommented: String = EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')))
            .map(|line| format!("{line}\n"))
            .collect();
        let (examples, defaults): (Vec<&str>, Vec<&str>) =
            uncommented.lines().partition(|line| WHERE.iter().any(|key| line.starts_with(key)));
        assert_eq!((examples.len(), defaults.len()), (WHERE.len(), Keys::NAMES.len() - WHERE.len()));
        assert_eq!(load(&defaults.join("\n")).as_ref(), Ok(&plain));
        toml::from_str::<Keys>(&uncommented).expect("every line of the example is right");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        let check = |file: &str, part: &str| {
            let told = load(file, Keys::default()).expect_err("refused");
            assert!(told.contains(part), "{told}");
            assert!(!told.contains('\n'), "{told}");
        };
        check("colour = 1", "unknown field `colour`");
        check("listen = \"0.0.0.0:80\"", "must be told its name: --origin");
        check("origin = \"plane.example\"", "write scheme and host alone");
        check("origin = \"https://plane.example/x\"", "write scheme and host alone");
        check("tls-cert = \"a.pem\"", "a certificate needs its key");
        check("log = \"loud\"", "is none of error");
        check("watch-listen = \"x\"", "is no address");
        check("listen = 5", "plane.toml: ");
        check("grace = 9223372036854775807", "write 3600 at most");
        check("per-minute = 0", "write 1 or more");
        check("max-peers = 0", "write 1 or more");
        check("admins = [\"operater:x\"]", "write KIND:WHO");
    }
}
