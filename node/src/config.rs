//! Configuration: a flag, else `INFERNET_<KEY>`, else `<home>/config.toml`, else the default.
//!
//! [`Partial`] is the file's schema and also what flags fill; everything in it is optional text and numbers. [`Config`] is
//! what the rest of the node sees: complete, parsed and checked once, here. A value that can't be used is one sentence that
//! says where it came from, what it is, and what to write instead. Nothing secret is ever configured.

use crate::backend::BackendSpec;
use figment::{
    Figment, Metadata, Profile, Provider, Source,
    error::Kind,
    providers::{Format, Serialized, Toml},
    value::{Dict, Map},
};
use infernet_wire::{
    limits,
    money::{MicroUsd, Price},
    topic::NetworkId,
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{
    fmt, fs,
    io::Write,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    str::FromStr,
};

/// The file's name in a home.
pub const CONFIG_FILE: &str = "config.toml";

/// Without IPv6: the addresses of [`DEFAULT_LISTEN`] that can be had.
const LISTEN_V4: [&str; 2] = ["/ip4/0.0.0.0/tcp/46337", "/ip4/0.0.0.0/udp/46338/quic-v1"];
/// Without IPv6, instead of [`DEFAULT_CHAT_LISTEN`].
const CHAT_LISTEN_V4: &str = "0.0.0.0:46337";

/// Before a key's name, in capitals, in the environment.
const ENV_PREFIX: &str = "INFERNET_";
/// All keys of [`Partial`].
const KEYS: [&str; 10] =
    ["network", "listen", "chat_listen", "bootstrap", "mdns", "max_peers", "backend", "price_in", "price_out", "slots"];

const DEFAULT_LISTEN: [&str; 4] =
    ["/ip4/0.0.0.0/tcp/46337", "/ip6/::/tcp/46337", "/ip4/0.0.0.0/udp/46338/quic-v1", "/ip6/::/udp/46338/quic-v1"];
/// One socket for IPv6 and, mapped, IPv4.
const DEFAULT_CHAT_LISTEN: &str = "[::]:46337";
/// A well connected mesh needs a dozen; more make a bootstrap node. Each costs a socket and some 100 kB.
const DEFAULT_MAX_PEERS: u32 = 128;
/// Where Ollama listens unless told otherwise.
const DEFAULT_BACKEND: &str = "ollama=http://127.0.0.1:11434";
/// $0.10 per million input tokens.
const DEFAULT_PRICE_IN: u64 = 100_000;
/// $0.40 per million output tokens.
const DEFAULT_PRICE_OUT: u64 = 400_000;
/// One job runs while the next is agreed on. More only where the engine runs more at once (`OLLAMA_NUM_PARALLEL`).
const DEFAULT_SLOTS: u16 = 2;

/// Bootstrap peers that are dialled at start.
const MAX_BOOTSTRAP: usize = 64;
/// Engines of one node.
const MAX_BACKENDS: usize = 8;
/// File descriptors end here on most systems.
const MAX_MAX_PEERS: u32 = 10_000;
/// One dollar per token: whoever asks for more has mistaken the unit.
const MAX_PRICE: u64 = 1_000_000_000_000;
/// As many as one connection carries streams.
const MAX_SLOTS: u16 = 4_096;

/// Some of the keys: those of a file, of the environment, or of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Partial {
    /// Name of the network; nodes of different networks ignore each other. Default `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Multiaddrs of the mesh: TCP 46337 and QUIC on UDP 46338, IPv4 and IPv6, by default.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub listen: Option<Vec<String>>,
    /// Socket address of the chat endpoint (QUIC on UDP); `[::]:46337`, which takes IPv4 too, by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_listen: Option<String>,
    /// Multiaddrs of peers to meet first. None by default.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub bootstrap: Option<Vec<String>>,
    /// Whether to find peers on the local network. Default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mdns: Option<bool>,
    /// Connections at most. Default 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_peers: Option<u32>,
    /// Engines, as `KIND=URL`. By default an Ollama on this machine, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub backend: Option<Vec<String>>,
    /// Price of a million input tokens, in micro-USD. Default 100 000, ten cents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_in: Option<u64>,
    /// Price of a million output tokens, in micro-USD. Default 400 000, forty cents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_out: Option<u64>,
    /// Jobs at once. Default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u16>,
}

/// A node's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where key, store and configuration are.
    pub home: PathBuf,
    /// The network that it takes part in.
    pub network: NetworkId,
    /// Where the mesh listens: TCP and QUIC.
    pub listen: Vec<Multiaddr>,
    /// Where the chat endpoint listens.
    pub chat_listen: SocketAddr,
    /// Peers to meet first.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to find peers on the local network.
    pub mdns: bool,
    /// Connections at most, at least one.
    pub max_peers: u32,
    /// Its engines; none for a node that only buys.
    pub backend: Vec<BackendSpec>,
    /// Whether `backend` is only the default guess: if nothing answers there, that is no mistake of the operator.
    pub backend_is_guess: bool,
    /// What its models cost.
    pub price: Price,
    /// Jobs at once, at least one.
    pub slots: u16,
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Neither flag nor environment names a home, and the system knows none.
    #[error("this user has no home directory: name one with --home or INFERNET_HOME")]
    NoHome,
    /// A file can't be read or written, or is not TOML.
    #[error("can't use {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{} has an unknown key {key:?}: the keys are {}", path.display(), KEYS.join(", "))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that can't be used.
    #[error("{key} can't be {value} ({origin}): {fix}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value, as given.
        value: String,
        /// Where it came from.
        origin: String,
        /// What it must be.
        fix: String,
    },
}

impl Config {
    /// The configuration of `home` under `flags`. The file need not exist. On a machine without IPv6 the default addresses are
    /// those of IPv4; addresses that somebody wrote stay as they are.
    pub fn load(home: &Path, flags: Partial) -> Result<Self, ConfigError> {
        let defaults = if has_ipv6() { Partial::default() } else { ipv4_only() };
        Self::load_over(defaults, home, flags, |name| std::env::var(name).ok())
    }

    #[cfg(test)]
    fn load_from(home: &Path, flags: Partial, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::load_over(Partial::default(), home, flags, env)
    }

    fn load_over(
        defaults: Partial,
        home: &Path,
        flags: Partial,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let file = home.join(CONFIG_FILE);
        let exists = file.try_exists().unwrap_or(true);
        let base = Figment::from(Layer { name: DEFAULT_LAYER, values: defaults });
        let layers = if exists { base.merge(Toml::file_exact(&file)) } else { base }
            .merge(Layer { name: ENV_LAYER, values: from_env(env)? })
            .merge(Layer { name: FLAG_LAYER, values: flags });
        let partial = layers.extract::<Partial>().map_err(|error| refused(&file, &error))?;
        Parser { layers, partial }.parse(home)
    }

    /// The configuration of a home with neither file, environment nor flags.
    pub fn defaults(home: &Path) -> Result<Self, ConfigError> {
        Parser { layers: Figment::new(), partial: Partial::default() }.parse(home)
    }
}

/// Whether sockets can have IPv6 addresses here. Containers often have the family, but no address of it: even loopback has none.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn ipv4_only() -> Partial {
    let listen = LISTEN_V4.map(str::to_owned).to_vec();
    Partial { listen: Some(listen), chat_listen: Some(CHAT_LISTEN_V4.into()), ..Partial::default() }
}

/// The home: `flag`, else `INFERNET_HOME`, else the user's data directory (`~/.local/share/infernet` on Linux). Absolute.
pub fn home(flag: Option<&Path>) -> Result<PathBuf, ConfigError> {
    home_from(flag, std::env::var_os("INFERNET_HOME").map(PathBuf::from))
}

fn home_from(flag: Option<&Path>, env: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    let named = flag.map(Path::to_owned).or(env.filter(|path| !path.as_os_str().is_empty()));
    let users = || directories::ProjectDirs::from("", "", "infernet").map(|dirs| dirs.data_dir().to_owned());
    let path = named.or_else(users).ok_or(ConfigError::NoHome)?;
    std::path::absolute(&path).map_err(|error| ConfigError::File { path, reason: error.to_string() })
}

/// Writes a `config.toml` that explains every key, unless there is one. Returns its path. The home must exist.
pub fn write_default(home: &Path) -> Result<PathBuf, ConfigError> {
    let path = home.join(CONFIG_FILE);
    let written = fs::OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| {
        file.write_all(default_file().as_bytes())?;
        file.sync_all()
    });
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(ConfigError::File { path, reason: error.to_string() })
        }
        _ => Ok(path),
    }
}

fn default_file() -> String {
    let listen = DEFAULT_LISTEN.join("\",\n#   \"");
    format!(
        r#"# infernet's configuration. What is commented out shows the default.
# A flag wins over INFERNET_<KEY> in the environment, which wins over this file.

# Nodes of different networks ignore each other.
# network = "main"

# Where the mesh listens: TCP and QUIC.
# listen = [
#   "{listen}",
# ]

# Where buyers open chat streams: QUIC on UDP. [::] takes IPv4 too.
# chat_listen = "{DEFAULT_CHAT_LISTEN}"

# Peers to meet first, such as "/dns4/example.org/tcp/46337/p2p/16Uiu2H...".
# bootstrap = []

# Find peers on the local network.
# mdns = true

# Connections at most.
# max_peers = {DEFAULT_MAX_PEERS}

# Engines, as KIND=URL. An empty list makes a node that only buys.
# backend = ["{DEFAULT_BACKEND}"]

# Prices in micro-USD per million tokens: {DEFAULT_PRICE_IN} is $0.10.
# price_in = {DEFAULT_PRICE_IN}
# price_out = {DEFAULT_PRICE_OUT}

# Jobs at once. More than the engine runs at once (OLLAMA_NUM_PARALLEL) only wait there.
# slots = {DEFAULT_SLOTS}
"#
    )
}

const DEFAULT_LAYER: &str = "default";
const ENV_LAYER: &str = "environment";
const FLAG_LAYER: &str = "command line";

/// Values with the name of where they came from.
struct Layer {
    name: &'static str,
    values: Partial,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::defaults(&self.values).data()
    }
}

/// The variables that are set; lists are comma separated.
fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Partial, ConfigError> {
    let text = |key: &str| env(&env_name(key));
    let list = |key| text(key).map(|text| text.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect());
    Ok(Partial {
        network: text("network"),
        listen: list("listen"),
        chat_listen: text("chat_listen"),
        bootstrap: list("bootstrap"),
        mdns: parsed("mdns", text("mdns"), "true or false")?,
        max_peers: parsed("max_peers", text("max_peers"), "a whole number")?,
        backend: list("backend"),
        price_in: parsed("price_in", text("price_in"), "a whole number of micro-USD")?,
        price_out: parsed("price_out", text("price_out"), "a whole number of micro-USD")?,
        slots: parsed("slots", text("slots"), "a whole number")?,
    })
}

fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase())
}

fn parsed<T: FromStr>(key: &'static str, text: Option<String>, what: &str) -> Result<Option<T>, ConfigError> {
    let parse = |text: String| {
        let bad =
            |_| ConfigError::Value { key, value: format!("{text:?}"), origin: env_name(key), fix: format!("write {what}") };
        text.trim().parse().map_err(bad)
    };
    text.map(parse).transpose()
}

/// A list, or one text instead of a list of one.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct OneOrMany;

    impl<'de> de::Visitor<'de> for OneOrMany {
        type Value = Option<Vec<String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(vec![text.to_owned()]))
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = items.next_element()? {
                texts.push(text);
            }
            Ok(Some(texts))
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

/// Turns figment's refusal of the file into one sentence. Only the file can be refused: the other layers are typed.
fn refused(file: &Path, error: &figment::Error) -> ConfigError {
    let key = error.path.first().and_then(|path| KEYS.into_iter().find(|key| key == path));
    match (&error.kind, key) {
        (Kind::UnknownField(key, _), _) => ConfigError::UnknownKey { path: file.into(), key: key.clone() },
        (Kind::InvalidType(value, expected) | Kind::InvalidValue(value, expected), Some(key)) => ConfigError::Value {
            key,
            value: value.to_string(),
            origin: file.display().to_string(),
            fix: format!("write {}", plain(expected)),
        },
        (kind, _) => ConfigError::File { path: file.into(), reason: in_one_line(&kind.to_string()) },
    }
}

/// Without the excerpt of the file, whose lines have a margin.
fn in_one_line(reason: &str) -> String {
    let lines: Vec<&str> = reason.lines().filter(|line| !line.contains(" |")).collect();
    lines.join(": ")
}

/// Rust's names of types, for people.
fn plain(expected: &str) -> &str {
    match expected {
        "u16" | "u32" | "u64" => "a whole number that is not negative",
        "a boolean" => "true or false",
        other => other,
    }
}

/// Turns texts into values, knowing where each came from.
struct Parser {
    layers: Figment,
    partial: Partial,
}

impl Parser {
    fn parse(mut self, home: &Path) -> Result<Config, ConfigError> {
        let partial = std::mem::take(&mut self.partial);
        let defaults = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let network = partial.network.unwrap_or_else(|| NetworkId::default().to_string());
        let listen = partial.listen.unwrap_or_else(|| defaults(&DEFAULT_LISTEN));
        let chat_listen = partial.chat_listen.unwrap_or_else(|| DEFAULT_CHAT_LISTEN.into());
        let backend_is_guess = partial.backend.is_none();
        let backend = partial.backend.unwrap_or_else(|| defaults(&[DEFAULT_BACKEND]));
        Ok(Config {
            home: home.into(),
            network: self.one("network", &network, |text| text.parse::<NetworkId>().map_err(|error| error.to_string()))?,
            listen: self.all("listen", &listen, limits::MAX_ADDRESSES, mesh_address)?,
            chat_listen: self.one("chat_listen", &chat_listen, socket_address)?,
            bootstrap: self.all("bootstrap", &partial.bootstrap.unwrap_or_default(), MAX_BOOTSTRAP, peer_address)?,
            mdns: partial.mdns.unwrap_or(true),
            max_peers: self.within("max_peers", partial.max_peers.unwrap_or(DEFAULT_MAX_PEERS), 1, MAX_MAX_PEERS)?,
            backend: self.all("backend", &backend, MAX_BACKENDS, |text| {
                text.parse::<BackendSpec>().map_err(|error| error.to_string())
            })?,
            backend_is_guess,
            price: Price {
                input: MicroUsd(self.within("price_in", partial.price_in.unwrap_or(DEFAULT_PRICE_IN), 0, MAX_PRICE)?),
                output: MicroUsd(self.within("price_out", partial.price_out.unwrap_or(DEFAULT_PRICE_OUT), 0, MAX_PRICE)?),
            },
            slots: self.within("slots", partial.slots.unwrap_or(DEFAULT_SLOTS), 1, MAX_SLOTS)?,
        })
    }

    fn one<T>(&self, key: &'static str, text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        read(text).map_err(|fix| self.bad(key, &format_args!("{text:?}"), fix))
    }

    fn all<T>(
        &self,
        key: &'static str,
        texts: &[String],
        limit: usize,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        if texts.len() > limit {
            return Err(self.bad(key, &format_args!("a list of {}", texts.len()), format!("write at most {limit}")));
        }
        texts.iter().map(|text| self.one(key, text, &read)).collect()
    }

    fn within<T: PartialOrd + fmt::Display>(&self, key: &'static str, value: T, least: T, most: T) -> Result<T, ConfigError> {
        if value < least || value > most {
            return Err(self.bad(key, &value, format!("write a number from {least} to {most}")));
        }
        Ok(value)
    }

    fn bad(&self, key: &'static str, value: &dyn fmt::Display, fix: impl Into<String>) -> ConfigError {
        ConfigError::Value { key, value: value.to_string(), origin: self.origin(key), fix: fix.into() }
    }

    fn origin(&self, key: &str) -> String {
        match self.layers.find_metadata(key) {
            Some(layer) if layer.name == ENV_LAYER => env_name(key),
            Some(layer) if layer.name == FLAG_LAYER => format!("--{}", key.replace('_', "-")),
            Some(Metadata { source: Some(Source::File(path)), .. }) => path.display().to_string(),
            _ => "the default".into(),
        }
    }
}

fn peer_address(text: &str) -> Result<Multiaddr, String> {
    text.parse().map_err(|_| "write a multiaddr, such as /dns4/example.org/tcp/46337/p2p/16Uiu2H...".into())
}

/// An address that the mesh can listen on: an IP address, then TCP or QUIC.
fn mesh_address(text: &str) -> Result<Multiaddr, String> {
    let fix = "write a multiaddr of TCP or QUIC, such as /ip4/0.0.0.0/tcp/46337 or /ip6/::/udp/46338/quic-v1";
    let address: Multiaddr = text.parse().map_err(|_| fix.to_owned())?;
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    match parts.as_slice() {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)]
        | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1] => Ok(address),
        _ => Err(fix.into()),
    }
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a UDP port, such as 0.0.0.0:46337 or [::]:46337".into())
}

#[cfg(test)]
mod tests;
