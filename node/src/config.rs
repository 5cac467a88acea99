//! Configuration: a flag, else `INFERNET_<KEY>`, else `<home>/config.toml`, else the default.
//!
//! [`Partial`] is the file's schema and also what flags fill; everything in it is optional text and numbers. [`Config`] is
//! what the rest of the node sees: complete, parsed and checked once, here. A value that can't be used is one sentence that
//! says where it came from, what it is, and what to write instead. Nothing secret is in file or flags; engines' keys come from their
//! own variables (`VLLM_API_KEY`), and are never shown.
//!
//! | file | idea |
//! |---|---|
//! | `partial` | the keys, and how environment and file fill them |
//! | `layers` | which of flag, environment, file and default says what |
//! | `parse` | text to value, with every bound |
//! | `value` | what a text means: addresses, regions, aliases, origins |
//! | `evm` | the account on an EVM chain: all of its keys, or none |
//! | `solana` | the wallet on Solana: likewise |
//! | `default_file` | the commented file of a new home |
//! | `show` | every key with its value and origin |
//! | `variables` | the environment's names, and those that nobody reads |

mod default_file;
mod evm;
mod layers;
mod parse;
mod partial;
mod show;
mod solana;
mod value;
mod variables;

pub use self::{
    default_file::{write_default, write_with},
    layers::in_one_line,
    partial::{KEYS, Partial, Secret, model_price},
    show::{Row, rows},
    value::{Alias, Region},
    variables::{UnknownVariable, is_variable, unknown_variables},
};

pub(crate) use self::solana::wallet as solana_wallet;

use self::layers::Layers;
use crate::{
    backend::{BackendSpec, BadSpec, EngineVariables},
    files,
    market::{policy::Policy, pricing::Pricing},
    net::ReachConfig,
    plane_client::Origin,
    settlement::{evm::EvmSettings, solana::account::Account, tabs::Credit},
    spelling,
    spend::Caps,
    toml_text,
};
use infernet_wire::{
    evm::EvmAddress,
    id::NodeId,
    money::{MicroUsd, Price},
    topic::NetworkId,
};
use libp2p::Multiaddr;
use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

/// The file's name in a home.
pub const CONFIG_FILE: &str = "config.toml";

/// Without IPv6: the addresses of the default that can be had.
const LISTEN_V4: [&str; 2] = ["/ip4/0.0.0.0/tcp/46337", "/ip4/0.0.0.0/udp/46338/quic-v1"];
/// Without IPv6, instead of `[::]`.
const CHAT_LISTEN_V4: &str = "0.0.0.0:46337";

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
    /// Where others reach the chat endpoint, if not at its own addresses: the outside of mapped ports.
    pub chat_advertise: Vec<SocketAddr>,
    /// Peers to meet first.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to find peers on the local network.
    pub mdns: bool,
    /// Connections at most, at least one.
    pub max_peers: u32,
    /// How others are to reach it.
    pub reach: ReachConfig,
    /// Its engines; none for a node that only buys.
    pub backend: Vec<BackendSpec>,
    /// Whether nobody named `backend`: then it is every engine at its usual place, and the first that answers is used. That none
    /// does is no mistake of the operator.
    pub backend_is_guess: bool,
    /// What its models cost, and how many jobs of each run at once.
    pub pricing: Pricing,
    /// The only models that are offered; all if empty.
    pub models: Vec<String>,
    /// When it sells.
    pub policy: Policy,
    /// Percent that others may use of an idle machine.
    pub idle_percent: u16,
    /// Whether an engine may be at an address where clouds tell their machines' secrets.
    pub allow_link_local_engine: bool,
    /// Where the environment says that engines are, and their keys.
    pub engine_variables: EngineVariables,
    /// Jobs at once, at least one.
    pub slots: u16,
    /// What buyers may owe.
    pub credit: Credit,
    /// Other names of the models served here.
    pub aliases: Vec<Alias>,
    /// Where this worker says it is.
    pub region: Option<Region>,
    /// Where the OpenAI endpoint listens; `None` if there is none.
    pub api: Option<SocketAddr>,
    /// Host names, besides loopback's and the listen address, by which the endpoint may be asked; lower case.
    pub api_hosts: Vec<String>,
    /// Browser origins that may call the endpoint; lower case.
    pub api_origins: Vec<String>,
    /// The most that an API request pays per million tokens, in or out, unless it says otherwise.
    pub max_price: MicroUsd,
    /// The most that one bought job may cost.
    pub spend_per_request: Option<MicroUsd>,
    /// The most that all bought jobs of one UTC day may cost.
    pub spend_per_day: Option<MicroUsd>,
    /// The only workers that get our jobs; everybody if empty.
    pub allow_workers: Vec<NodeId>,
    /// Workers that never get our jobs; disjoint from `allow_workers`.
    pub deny_workers: Vec<NodeId>,
    /// Settled receipts that a worker must have to get our jobs.
    pub min_reputation: u32,
    /// The only regions whose workers get our jobs; everywhere if empty.
    pub regions: Vec<Region>,
    /// Whether a job may go to a worker at its advertised price, without an auction.
    pub standing: bool,
    /// Control planes that are told of this node; none unless the owner wants it.
    pub planes: Vec<Origin>,
    /// How often they are told.
    pub heartbeat: Duration,
    /// Its account on an EVM chain; `None` if its money is promises alone.
    pub evm: Option<EvmSettings>,
    /// Whether a chain is named, and no node of it: who would use the account can't.
    pub evm_lacks_rpc: bool,
    /// Unredeemed money at which a channel is redeemed by itself; 0: never.
    pub payout_at: MicroUsd,
    /// Where what was redeemed on an EVM chain is sent.
    pub payout_evm: Option<EvmAddress>,
    /// Its wallet on Solana; `None` if it has none.
    pub solana: Option<Account>,
    /// Where the passphrase of its key is, if that is sealed.
    pub passphrase_file: Option<PathBuf>,
    /// How long running jobs may take to end after the first signal.
    pub grace: Duration,
    /// Whether `infernet start` also writes `<home>/infernet.log`.
    pub log_file: bool,
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
    #[error("{} has an unknown key {key:?}{}: the keys are {}", path.display(), perhaps(key), KEYS.join(", "))]
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

/// The key that was meant, if one is like `written`.
fn perhaps(written: &str) -> String {
    spelling::nearest(written, KEYS.iter().copied()).map(|key| format!(" (did you mean {key}?)")).unwrap_or_default()
}

impl Config {
    /// An engine that was named elsewhere, such as on a command line, with the key that its kind wants and the operator's word on
    /// link-local addresses.
    pub fn engine(&self, spec: BackendSpec) -> Result<BackendSpec, BadSpec> {
        let key = self.engine_variables.key(spec.kind);
        Ok(spec.allowed(self.allow_link_local_engine)?.with_key(key))
    }

    /// What this node may spend.
    pub fn caps(&self) -> Caps {
        Caps { per_request: self.spend_per_request, per_day: self.spend_per_day }
    }

    /// The configuration of `home` under `flags`. The file need not exist. On a machine without IPv6 the default addresses are
    /// those of IPv4; addresses that somebody wrote stay as they are.
    pub fn load(home: &Path, flags: Partial) -> Result<Self, ConfigError> {
        Self::load_over(machine_defaults(), home, flags, |name| std::env::var(name).ok())
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
        parse::config(home, &Layers::read(defaults, home, flags, env)?)
    }

    /// The configuration of a home with neither file, environment nor flags.
    pub fn defaults(home: &Path) -> Result<Self, ConfigError> {
        parse::config(home, &Layers::none())
    }
}

/// Makes the file of `home` say that only `models` are offered, or that all are for `None`; everything else in it stays. Returns
/// its path. The home must exist, the file need not.
pub fn write_models(home: &Path, models: Option<&[String]>) -> Result<PathBuf, ConfigError> {
    rewrite(home, |text| toml_text::with_list(text, "models", models))
}

/// Writes the price of `model`, or of all that have none of their own, into the file of `home`, see [`write_models`].
pub fn write_price(home: &Path, model: Option<&str>, price: Price) -> Result<PathBuf, ConfigError> {
    let (input, output) = (price.input.0, price.output.0);
    rewrite(home, |text| match model {
        Some(model) => toml_text::with_entry(text, "prices", model, &[("in", input), ("out", output)]),
        None => {
            toml_text::with_number(text, "price_in", input).and_then(|text| toml_text::with_number(&text, "price_out", output))
        }
    })
}

/// Writes what buyers may owe into the file of `home`, see [`write_models`].
pub fn write_credit(home: &Path, credit: &Credit) -> Result<PathBuf, ConfigError> {
    let limits: Vec<String> = credit.limits.iter().map(|(buyer, limit)| format!("{buyer}={}", limit.0)).collect();
    rewrite(home, |text| {
        let text = toml_text::with_number(text, "free_credit", credit.free.0)?;
        if limits.is_empty() {
            toml_text::with_list(&text, "credit", None)
        } else {
            toml_text::with_list(&text, "credit", Some(&limits))
        }
    })
}

/// Writes where payouts go into the file of `home`, see [`write_models`].
pub fn write_payout(home: &Path, key: &str, to: &str) -> Result<PathBuf, ConfigError> {
    rewrite(home, |text| toml_text::with_text(text, key, to))
}

/// Replaces the file of `home` by what `change` makes of it, unless no node could start with that; its path.
fn rewrite(home: &Path, change: impl FnOnce(&str) -> Result<String, String>) -> Result<PathBuf, ConfigError> {
    let path = home.join(CONFIG_FILE);
    let failed = |reason: String| ConfigError::File { path: path.clone(), reason };
    let unwritten = |error: std::io::Error| failed(error.to_string());
    // From reading to writing: a command's change and an operator's don't undo each other.
    let _lock = files::lock(&path).map_err(unwritten)?;
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(unwritten)?,
    };
    let text = change(&text).map_err(failed)?;
    Layers::of_text(&text).and_then(|layers| parse::config(home, &layers))?;
    files::replace(&path, text.as_bytes(), None).map_err(unwritten)?;
    Ok(path)
}

/// Any bytes as `config.toml`: a configuration, or a sentence that says what is wrong.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = Layers::of_text(text).and_then(|layers| parse::config(Path::new("/home"), &layers));
    match read {
        Ok(config) => assert!(config.slots > 0),
        Err(error) => assert!(!error.to_string().trim_end().ends_with(':'), "no reason: {error}"),
    }
}

/// What the defaults are on this machine.
fn machine_defaults() -> Partial {
    if has_ipv6() { Partial::default() } else { ipv4_only() }
}

/// Whether sockets can have IPv6 addresses here. Containers often have the family, but no address of it: even loopback has none.
pub fn has_ipv6() -> bool {
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
    let path = named.or_else(home_by_default).ok_or(ConfigError::NoHome)?;
    std::path::absolute(&path).map_err(|error| ConfigError::File { path, reason: error.to_string() })
}

/// The home of a user who names none; `None` if the system knows of none.
pub fn home_by_default() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "infernet").map(|dirs| dirs.data_dir().to_owned())
}

#[cfg(test)]
mod tests;
