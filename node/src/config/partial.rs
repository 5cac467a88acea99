//! The keys: one table, from which come the file's schema, the list of names and the reading of the environment.

use super::{ConfigError, variables::PREFIX};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{collections::BTreeMap, convert::Infallible, fmt, str::FromStr};

macro_rules! keys {
    ($($(#[$doc:meta])+ $key:ident: $kind:ty,)+) => {
        /// Some of the keys: those of a file, of the environment, or of the command line.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Partial {
            $(
                $(#[$doc])+
                #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "of_file")]
                pub $key: Option<$kind>,
            )+
        }

        /// The names of all keys, in the order of the default file.
        pub const KEYS: &[&str] = &[$(stringify!($key)),+];

        impl Partial {
            /// The variables that are set; lists are comma separated.
            pub(super) fn of_environment(env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
                Ok(Partial { $($key: of_variable(stringify!($key), &env)?,)+ })
            }

            #[cfg(test)]
            pub(super) fn is_complete(&self) -> bool {
                true $(&& self.$key.is_some())+
            }
        }
    };
}

keys! {
    /// Name of the network; nodes of different networks ignore each other. Default `main`.
    network: String,
    /// Multiaddrs of the mesh: TCP 46337 and QUIC on UDP 46338, IPv4 and IPv6, by default.
    listen: Vec<String>,
    /// Socket address of the chat endpoint (QUIC on UDP); `[::]:46337`, which takes IPv4 too, by default.
    chat_listen: String,
    /// Socket addresses at which others reach the chat endpoint. By default those on which it listens.
    chat_advertise: Vec<String>,
    /// Multiaddrs of peers to meet first, or URLs of relays' pages that name some. None by default.
    bootstrap: Vec<String>,
    /// Whether to find peers on the local network. Default true.
    mdns: bool,
    /// Connections at most. Default 128.
    max_peers: u32,
    /// How others are to reach this node: `auto`, `direct`, `outbound-only` or `relay-only`. Default `auto`.
    reach: String,
    /// Multiaddrs at which others reach the mesh, such as those of mapped ports. None by default.
    external_addresses: Vec<String>,
    /// IP addresses of this machine that nobody is told. None by default.
    hidden_addresses: Vec<String>,
    /// Multiaddrs of relays to use first, with `/p2p/` at the end. None by default: those that the mesh knows.
    relays: Vec<String>,
    /// Whether to have the router map the mesh's ports (UPnP). Default true.
    upnp: bool,
    /// Engines, as `KIND=URL`. By default the first on this machine that answers.
    backend: Vec<String>,
    /// Whether an engine may be at a link-local or metadata address. Default false.
    allow_link_local_engine: bool,
    /// Price of a million input tokens, in micro-USD. Default 100 000, ten cents.
    price_in: u64,
    /// Price of a million output tokens, in micro-USD. Default 400 000, forty cents.
    price_out: u64,
    /// Prices of single models: a table for each, with `in` and `out`, in micro-USD per million tokens. None by default.
    prices: PriceTable,
    /// Below which no million input tokens are sold, in micro-USD. Default 0.
    price_floor_in: u64,
    /// Below which no million output tokens are sold, in micro-USD. Default 0.
    price_floor_out: u64,
    /// By how many percent the price of the last free slot is above that of the first. Default 0.
    price_rise: u32,
    /// Jobs at once. Default 2.
    slots: u16,
    /// What anybody may owe this worker, in micro-USD. Default 0: only those named in `credit` can buy, unless it is for free.
    free_credit: u64,
    /// What certain buyers may owe, as `NODE_ID=MICRO_USD`. Nobody by default.
    credit: Vec<String>,
    /// Jobs at once of single models, as `MODEL=N`. All slots by default.
    model_slots: Vec<String>,
    /// The only models that are offered. All by default.
    models: Vec<String>,
    /// Other names of models served here, as `MODEL=ALIAS`. None by default.
    aliases: Vec<String>,
    /// Where this worker says it is. Nothing by default.
    region: String,
    /// When it sells, in local time, such as `22:00-07:00 mon-fri`. Always by default.
    schedule: Vec<String>,
    /// Temperature of a GPU above which it does not sell, in degrees Celsius. No limit by default.
    max_celsius: u16,
    /// What its GPUs together may draw, in watts. No limit by default.
    max_watts: u32,
    /// Whether it sells only while nobody else uses the machine. Default false.
    only_idle: bool,
    /// Percent of a GPU, or of the processors, that others may use with `only_idle`. Default 20.
    idle_percent: u16,
    /// Whether there is an OpenAI endpoint. Default true.
    api: bool,
    /// Socket address of the OpenAI endpoint. Default `127.0.0.1:46339`.
    api_listen: String,
    /// More host names by which the endpoint may be asked. None by default.
    api_hosts: Vec<String>,
    /// Browser origins that may call the endpoint. None by default.
    api_origins: Vec<String>,
    /// Price ceiling of API requests, in micro-USD per million tokens. Default 10 000 000, ten dollars.
    max_price: u64,
    /// The most that one bought job may cost, in micro-USD. No limit by default.
    spend_per_request: u64,
    /// The most that all bought jobs of a UTC day may cost, in micro-USD. No limit by default.
    spend_per_day: u64,
    /// Node ids of the only workers that get our jobs. Everybody by default.
    allow_workers: Vec<String>,
    /// Node ids of workers that never get our jobs. None by default.
    deny_workers: Vec<String>,
    /// Settled receipts that a worker must have. Default 0.
    min_reputation: u32,
    /// Only workers that say they are in one of these regions get our jobs. Everywhere by default.
    regions: Vec<String>,
    /// Whether a job may go to a worker at its advertised price, without an auction. Default true.
    standing: bool,
    /// Control planes that are told of this node, by URL. None by default.
    planes: Vec<String>,
    /// Seconds between two heartbeats to them. Default 30; after 90 s of silence a plane shows the node as offline.
    heartbeat_secs: u64,
    /// Where a node of an EVM chain answers, as a URL: a secret. None by default, and then money is promises alone.
    evm_rpc: Secret,
    /// The id of that chain.
    evm_chain: u64,
    /// The address of `Channels` on it.
    evm_contract: String,
    /// The token that channels hold, by its address. The chain's own coin by default.
    evm_token: String,
    /// Units of the token, or of the coin, for a micro-USD. Default 1 with a token, as for USDC; needed for the coin.
    evm_rate: u64,
    /// Blocks that bury what counts. Default 12.
    evm_depth: u64,
    /// What a unit of gas may cost at most, in gwei. Default 200.
    evm_max_gwei: u64,
    /// Unredeemed micro-USD at which a channel is redeemed by itself. Default 1 000 000, one dollar; 0: only by `payout now`.
    payout_at: u64,
    /// Where `payout now` sends what was redeemed on the EVM chain. Nowhere by default: it stays with the node's key.
    payout_evm: String,
    /// Where nodes of Solana answer, as URLs: secrets. Best two of two operators. None by default, and then no tranches are paid.
    solana_rpc: Vec<Secret>,
    /// Which cluster: `mainnet-beta`, `devnet`, `testnet`, or the hash of its first block. Default `mainnet-beta`.
    solana_cluster: String,
    /// The token of dollars that is paid in, by its mint's address, or `SOL`. Default USDC, where that is known.
    solana_mint: String,
    /// Decimals of the token. Default 6.
    solana_decimals: u16,
    /// Lamports for a dollar, with `SOL`: what a worker asks, and the most that a buyer pays. No default.
    solana_rate: u64,
    /// What is paid at once, in micro-USD, and the most that is paid if no amount is named: what can be lost. Default 50 000, five cents.
    solana_tranche: u64,
    /// What a million compute units may cost above the base fee, in lamports. Default 10 000.
    solana_priority_fee: u64,
    /// The wallet that is paid on Solana. That of the node's own key by default.
    payout_solana: String,
    /// File whose first line is the passphrase of an encrypted key. None by default: a terminal is asked.
    passphrase_file: String,
    /// Seconds that running jobs may take to end after the first signal. Default 60.
    grace_secs: u64,
    /// Whether `infernet start` also writes `<home>/infernet.log`. Default true.
    log_file: bool,
}

/// A text that is shown nowhere.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a secret)")
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Secret(text.into()))
    }
}

/// Prices by model, then by `in` and `out`.
pub(super) type PriceTable = BTreeMap<String, BTreeMap<String, u64>>;

/// `MODEL=IN/OUT`, as flags and the environment say it.
pub fn model_price(text: &str) -> Option<(String, BTreeMap<String, u64>)> {
    let (model, price) = text.rsplit_once('=')?;
    let (input, output) = price.split_once('/')?;
    let part = |name: &str, text: &str| Some((name.to_owned(), text.trim().parse().ok()?));
    let model = model.trim();
    (!model.is_empty()).then(|| Some((model.to_owned(), [part("in", input)?, part("out", output)?].into()))).flatten()
}

/// The variable of `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase())
}

/// Whether a flag says no to `key`, and the name of that flag or of the one that says what: both are variables, too.
fn flag_said(key: &str) -> (bool, String) {
    let flag = if key == "backend" { "--no-serve".into() } else { flag(key) };
    let is_no = flag.starts_with("--no-");
    (is_no, variable(&flag.trim_start_matches('-').replace('-', "_")))
}

/// The variables that fill `key`: its own, and that of its flag.
pub(super) fn variables(key: &str) -> [String; 2] {
    [variable(key), flag_said(key).1]
}

/// The flag of `key`: some say no, lists are given one by one.
pub(super) fn flag(key: &str) -> String {
    match key {
        "mdns" | "api" | "standing" => format!("--no-{key}"),
        "log_file" => "--no-log-file".into(),
        "aliases" => "--alias".into(),
        "prices" => "--price".into(),
        "models" => "--model".into(),
        "planes" => "--plane".into(),
        "relays" => "--relay".into(),
        "external_addresses" => "--external-address".into(),
        "hidden_addresses" => "--hide-address".into(),
        "allow_workers" => "--allow".into(),
        "deny_workers" => "--deny".into(),
        "regions" => "--only-region".into(),
        _ => format!("--{}", key.replace('_', "-")),
    }
}

/// What a key can hold, and how each source writes it.
trait Kind: Sized {
    /// What the environment should say, for whoever wrote something else.
    const WHAT: &'static str;

    fn of_text(text: &str) -> Option<Self>;

    fn of_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

macro_rules! plain_kinds {
    ($($kind:ty: $what:literal,)+) => { $(
        impl Kind for $kind {
            const WHAT: &'static str = $what;

            fn of_text(text: &str) -> Option<Self> {
                text.trim().parse().ok()
            }

            fn of_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::deserialize(deserializer)
            }
        }
    )+ };
}

plain_kinds! {
    String: "a text",
    Secret: "a text",
    bool: "true or false",
    u16: "a whole number",
    u32: "a whole number",
    u64: "a whole number",
}

impl Kind for Vec<String> {
    const WHAT: &'static str = "a list, comma separated";

    fn of_text(text: &str) -> Option<Self> {
        Some(text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
    }

    fn of_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMany)
    }
}

impl Kind for Vec<Secret> {
    const WHAT: &'static str = Vec::<String>::WHAT;

    fn of_text(text: &str) -> Option<Self> {
        Some(Vec::<String>::of_text(text)?.into_iter().map(Secret).collect())
    }

    fn of_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<String>::of_file(deserializer)?.into_iter().map(Secret).collect())
    }
}

impl Kind for PriceTable {
    const WHAT: &'static str = "MODEL=IN/OUT, comma separated, such as llama3.1:8b=100000/400000";

    fn of_text(text: &str) -> Option<Self> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(model_price).collect()
    }

    fn of_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

/// What the variable of the key says, else that of its flag.
fn of_variable<K: Kind>(key: &'static str, env: impl Fn(&str) -> Option<String>) -> Result<Option<K>, ConfigError> {
    let Some((name, text)) = said(key, env)? else { return Ok(None) };
    let bad = || ConfigError::Value { key, value: format!("{text:?}"), origin: name, fix: format!("write {}", K::WHAT) };
    K::of_text(&text).ok_or_else(bad).map(Some)
}

/// A key's variable and its text. A flag's name, such as `INFERNET_DENY` or `INFERNET_NO_API`, is a variable, too: whoever
/// trusts in a list of workers must not have it ignored.
pub(super) fn said(key: &'static str, env: impl Fn(&str) -> Option<String>) -> Result<Option<(String, String)>, ConfigError> {
    let name = variable(key);
    if let Some(text) = env(&name) {
        return Ok(Some((name, text)));
    }
    let (is_no, name) = flag_said(key);
    let Some(text) = env(&name) else { return Ok(None) };
    let said = match (is_no, text.trim()) {
        (false, _) => Some(text),
        (true, "true") if key == "backend" => Some(String::new()),
        (true, "false") if key == "backend" => None,
        (true, "true") => Some("false".into()),
        (true, "false") => Some("true".into()),
        _ => {
            let fix = format!("write {}", <bool as Kind>::WHAT);
            return Err(ConfigError::Value { key, value: format!("{text:?}"), origin: name, fix });
        }
    };
    Ok(said.map(|text| (name, text)))
}

fn of_file<'de, D: Deserializer<'de>, K: Kind>(deserializer: D) -> Result<Option<K>, D::Error> {
    K::of_file(deserializer).map(Some)
}

/// A list, or one text instead of a list of one.
struct OneOrMany;

impl<'de> de::Visitor<'de> for OneOrMany {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(vec![text.to_owned()])
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = items.next_element()? {
            texts.push(text);
        }
        Ok(texts)
    }
}
