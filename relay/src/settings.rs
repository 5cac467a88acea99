//! What a relay's operator sets: flags over environment over file over defaults.
//!
//! Each key is a flag (`--rate`), a variable (`INFERNET_RELAY_RATE`) and a line in the file (`rate = …`); lists are comma
//! separated in a variable. [`EXAMPLE`] is the file with everything explained.

use crate::limits::Limits;
use clap::Args;
pub use infernet_node::program::SettingsError;
use infernet_node::{
    net::bootstrap::BootstrapAddress,
    program::{grace, level, read, wrong},
    program_keys,
};
use infernet_wire::topic::NetworkId;
use libp2p::{Multiaddr, multiaddr::Protocol};
use serde::Deserialize;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// The file with all keys at their defaults, explained.
pub const EXAMPLE: &str = include_str!("settings/relay.toml");
/// The file's name in a home.
pub const FILE: &str = "relay.toml";
const LISTEN: [&str; 4] =
    ["/ip4/0.0.0.0/tcp/46337", "/ip6/::/tcp/46337", "/ip4/0.0.0.0/udp/46338/quic-v1", "/ip6/::/udp/46338/quic-v1"];
const HTTP_LISTEN: &str = "0.0.0.0:46382";
const WATCH_LISTEN: &str = "127.0.0.1:46383";
/// Seconds that circuits have when it stops.
const GRACE: u64 = 60;

program_keys! {
    /// Which network it is of
    #[arg(value_name = "NAME")]
    network: NetworkId = "INFERNET_RELAY_NETWORK",
    /// Where nodes reach it
    #[arg(value_name = "MULTIADDR", value_delimiter = ',')]
    listen: Vec<Multiaddr> = "INFERNET_RELAY_LISTEN",
    /// Where nodes reach it, as seen from the internet, if that differs
    #[arg(value_name = "MULTIADDR", value_delimiter = ',')]
    external_address: Vec<Multiaddr> = "INFERNET_RELAY_EXTERNAL_ADDRESS",
    /// IP addresses of this machine that nobody is told
    #[arg(value_name = "IP", value_delimiter = ',')]
    hide_address: Vec<IpAddr> = "INFERNET_RELAY_HIDE_ADDRESS",
    /// Other nodes to begin with, each with /p2p/… at the end, or a relay's http://HOST:46382/bootstrap.json
    #[arg(value_name = "ADDRESS", value_delimiter = ',')]
    bootstrap: Vec<BootstrapAddress> = "INFERNET_RELAY_BOOTSTRAP",
    /// Whether to look for nodes on the local network
    mdns: bool = "INFERNET_RELAY_MDNS",
    /// Where /bootstrap.json is served; none: nowhere
    #[arg(value_name = "ADDR")]
    http_listen: String = "INFERNET_RELAY_HTTP_LISTEN",
    /// Where /metrics, /healthz and /readyz are served; none: nowhere
    #[arg(value_name = "ADDR")]
    watch_listen: String = "INFERNET_RELAY_WATCH_LISTEN",
    /// Who runs it, for bootstrap.json
    #[arg(value_name = "NAME")]
    operator: String = "INFERNET_RELAY_OPERATOR",
    /// Where it stands, such as eu, for bootstrap.json
    #[arg(value_name = "NAME")]
    region: String = "INFERNET_RELAY_REGION",
    /// Seconds without a byte after which a circuit ends
    #[arg(value_name = "SECONDS")]
    idle: u64 = "INFERNET_RELAY_IDLE",
    /// Bytes a second of all circuits; 0: no bound
    #[arg(value_name = "BYTES")]
    rate: u64 = "INFERNET_RELAY_RATE",
    /// Bytes a day of each peer that opens circuits; 0: no bound
    #[arg(value_name = "BYTES")]
    quota: u64 = "INFERNET_RELAY_QUOTA",
    /// Bytes a second of each circuit of a peer whose quota is spent
    #[arg(value_name = "BYTES")]
    slow_rate: u64 = "INFERNET_RELAY_SLOW_RATE",
    /// Peers that can be reached over it
    #[arg(value_name = "N")]
    reservations: usize = "INFERNET_RELAY_RESERVATIONS",
    /// Those of one /24 or /48
    #[arg(value_name = "N")]
    reservations_per_prefix: usize = "INFERNET_RELAY_RESERVATIONS_PER_PREFIX",
    /// Seconds that a reservation lasts
    #[arg(value_name = "SECONDS")]
    reservation: u64 = "INFERNET_RELAY_RESERVATION",
    /// Circuits at once
    #[arg(value_name = "N")]
    circuits: usize = "INFERNET_RELAY_CIRCUITS",
    /// Circuits that one peer may open
    #[arg(value_name = "N")]
    circuits_per_source: usize = "INFERNET_RELAY_CIRCUITS_PER_SOURCE",
    /// Circuits to one peer
    #[arg(value_name = "N")]
    circuits_per_target: usize = "INFERNET_RELAY_CIRCUITS_PER_TARGET",
    /// Circuits that the peers of one /24 or /48 may open
    #[arg(value_name = "N")]
    circuits_per_prefix: usize = "INFERNET_RELAY_CIRCUITS_PER_PREFIX",
    /// Connections
    #[arg(value_name = "N")]
    peers: u32 = "INFERNET_RELAY_PEERS",
    /// Seconds that circuits have when it stops
    #[arg(value_name = "SECONDS")]
    grace: u64 = "INFERNET_RELAY_GRACE",
    /// error, warn, info, debug or trace
    #[arg(value_name = "LEVEL")]
    log: String = "INFERNET_RELAY_LOG",
}

/// Everything that is set, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where its key is.
    pub home: PathBuf,
    /// Its network.
    pub network: NetworkId,
    /// Where nodes reach it.
    pub listen: Vec<Multiaddr>,
    /// The same from outside; empty: where it listens.
    pub external_address: Vec<Multiaddr>,
    /// Addresses of this machine that nobody is told.
    pub hide_address: Vec<IpAddr>,
    /// Nodes to begin with.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to look for nodes on the local network.
    pub mdns: bool,
    /// Where `/bootstrap.json` is; `None`: nowhere.
    pub http_listen: Option<SocketAddr>,
    /// Where `/metrics` is; `None`: nowhere.
    pub watch_listen: Option<SocketAddr>,
    /// Who runs it.
    pub operator: Option<String>,
    /// Where it stands.
    pub region: Option<String>,
    /// Seconds that circuits have when it stops.
    pub grace: u64,
    /// How much is logged.
    pub log: String,
    /// What may be taken of it.
    pub limits: Limits,
}

impl Settings {
    /// What `flags` and the file of `home` say together.
    pub fn load(home: &Path, flags: Keys) -> Result<Self, SettingsError> {
        let file = read(&home.join(FILE), toml::from_str::<Keys>)?;
        Settings::check(home, flags.or(file))
    }

    /// What `keys` alone say, with `home` for the key.
    pub fn check(home: &Path, keys: Keys) -> Result<Self, SettingsError> {
        let log = level(keys.log)?;
        let defaults = Limits::default();
        let seconds = |set: Option<u64>, default| set.map_or(default, Duration::from_secs);
        let limits = Limits {
            idle: at_least("idle", 30, seconds(keys.idle, defaults.idle), "libp2p pings every 15 s, and one may be lost")?,
            rate: keys.rate.unwrap_or(defaults.rate),
            quota: keys.quota.unwrap_or(defaults.quota),
            slow_rate: keys.slow_rate.unwrap_or(defaults.slow_rate),
            reservations: keys.reservations.unwrap_or(defaults.reservations),
            reservations_per_prefix: keys.reservations_per_prefix.unwrap_or(defaults.reservations_per_prefix),
            reservation: reservation(seconds(keys.reservation, defaults.reservation))?,
            circuits: keys.circuits.unwrap_or(defaults.circuits),
            circuits_per_source: keys.circuits_per_source.unwrap_or(defaults.circuits_per_source),
            circuits_per_target: keys.circuits_per_target.unwrap_or(defaults.circuits_per_target),
            circuits_per_prefix: keys.circuits_per_prefix.unwrap_or(defaults.circuits_per_prefix),
            peers: keys.peers.unwrap_or(defaults.peers),
        };
        if limits.slow_rate < 1_000 {
            return Err(wrong("slow-rate", "less than 1000 bytes a second is no stream: what is spent would be cut"));
        }
        Ok(Settings {
            home: home.to_owned(),
            network: keys.network.unwrap_or_default(),
            listen: keys.listen.unwrap_or_else(default_listen),
            external_address: keys.external_address.unwrap_or_default().into_iter().map(without_peer).collect(),
            hide_address: keys.hide_address.unwrap_or_default(),
            bootstrap: keys.bootstrap.unwrap_or_default().into_iter().map(Multiaddr::from).collect(),
            mdns: keys.mdns.unwrap_or(false),
            http_listen: address("http-listen", keys.http_listen, HTTP_LISTEN)?,
            watch_listen: address("watch-listen", keys.watch_listen, WATCH_LISTEN)?,
            operator: keys.operator,
            region: keys.region,
            grace: grace(keys.grace, GRACE)?,
            log,
            limits,
        })
    }
}

impl Settings {
    /// Leaves out the default addresses that a machine without IPv6 can't have; those that somebody wrote stay. Whether there were any.
    pub fn leave_out_ipv6(&mut self) -> bool {
        let is_default = self.listen == default_listen();
        if is_default {
            self.listen.retain(|address| matches!(address.iter().next(), Some(Protocol::Ip4(_))));
        }
        is_default
    }
}

fn default_listen() -> Vec<Multiaddr> {
    LISTEN.iter().filter_map(|text| text.parse().ok()).collect()
}

fn at_least(key: &'static str, least: u64, value: Duration, why: &str) -> Result<Duration, SettingsError> {
    let is_good = value >= Duration::from_secs(least);
    if is_good {
        Ok(value)
    } else {
        Err(wrong(key, format!("{} s are too few: {why}; write {least} or more", value.as_secs())))
    }
}

/// A connection without a stream is closed after ten minutes; nodes renew after three quarters.
fn reservation(value: Duration) -> Result<Duration, SettingsError> {
    if value > Duration::from_secs(780) {
        return Err(wrong("reservation", "nodes would renew it too late to keep the connection: write 780 or less"));
    }
    at_least("reservation", 10, value, "nodes could hardly renew it")
}

fn address(key: &'static str, set: Option<String>, default: &str) -> Result<Option<SocketAddr>, SettingsError> {
    match set.as_deref().unwrap_or(default) {
        "none" | "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| wrong(key, format!("{text:?} is no address such as {default}"))),
    }
}

fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, flags: Keys) -> Result<Settings, String> {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join(FILE), file).expect("written");
        let settings = Settings::load(home.path(), flags).map_err(|error| error.to_string())?;
        Ok(Settings { home: PathBuf::new(), ..settings })
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let flags = Keys { rate: Some(1), ..Keys::default() };
        let settings = load("rate = 2\nnetwork = \"test\"\nwatch-listen = \"none\"", flags).expect("good");
        assert_eq!((settings.limits.rate, settings.network.as_str(), settings.watch_listen), (1, "test", None));
        assert_eq!(settings.limits.circuits, Limits::default().circuits);
    }

    #[test]
    fn the_example_explains_every_key_and_its_values_are_the_defaults() {
        for name in Keys::NAMES {
            let key = format!("# {} = ", name.replace('_', "-"));
            assert!(EXAMPLE.contains(&key), "{key} is missing");
        }
        let is_key = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let uncommented: String =
            EXAMPLE.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_key).map(|line| format!("{line}\n")).collect();
        let plain = load("", Keys::default()).expect("good");
        assert_eq!(load(EXAMPLE, Keys::default()), Ok(plain.clone()));
        let told = load(&uncommented, Keys::default()).expect("every line is right");
        assert_eq!(Settings { operator: None, region: None, ..told }, plain);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        let check = |file: &str, part: &str| {
            let told = load(file, Keys::default()).expect_err("refused");
            assert!(told.contains(part), "{told}");
            assert!(!told.contains('\n'), "{told}");
        };
        check("colour = 1", "unknown field `colour`");
        check("log = \"loud\"", "is none of error");
        check("http-listen = \"x\"", "is no address such as 0.0.0.0:46382");
        check("idle = 5", "write 30 or more");
        check("reservation = 3600", "write 780 or less");
        check("slow-rate = 0", "would be cut");
        check("grace = 9223372036854775807", "write 3600 at most");
        check("listen = 5", "relay.toml: ");
    }

    #[test]
    fn without_ipv6_only_the_defaults_change() {
        let mut settings = load("", Keys::default()).expect("good");
        assert!(settings.leave_out_ipv6());
        let listen: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["/ip4/0.0.0.0/tcp/46337", "/ip4/0.0.0.0/udp/46338/quic-v1"]);
        let mut written = load("listen = [\"/ip6/::1/tcp/1\"]", Keys::default()).expect("good");
        assert!(!written.leave_out_ipv6());
        assert_eq!(written.listen.len(), 1);
    }

    #[test]
    fn an_external_address_may_name_the_relay_or_not() {
        let id = libp2p::PeerId::random();
        let settings = load(&format!("external-address = [\"/ip4/203.0.113.7/tcp/1/p2p/{id}\"]"), Keys::default());
        assert_eq!(settings.expect("good").external_address[0].to_string(), "/ip4/203.0.113.7/tcp/1");
    }
}
