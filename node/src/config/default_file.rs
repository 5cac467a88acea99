//! The commented file of a new home: every key, what it is for, and its default.

use super::{
    CONFIG_FILE, ConfigError, Partial,
    evm::{DEFAULT_DEPTH, DEFAULT_MAX_GWEI},
    parse::{
        DEFAULT_API_LISTEN, DEFAULT_CHAT_LISTEN, DEFAULT_GRACE_SECS, DEFAULT_HEARTBEAT_SECS, DEFAULT_IDLE_PERCENT,
        DEFAULT_LISTEN, DEFAULT_MAX_PEERS, DEFAULT_MAX_PRICE, DEFAULT_PAYOUT_AT, DEFAULT_PRICE_IN, DEFAULT_PRICE_OUT,
        DEFAULT_SLOTS,
    },
    solana::{DEFAULT_CLUSTER, DEFAULT_DECIMALS, DEFAULT_PRIORITY_FEE, DEFAULT_TRANCHE},
};
use crate::backend::{BackendSpec, ENGINES};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Writes a `config.toml` that explains every key, unless there is one. Returns its path. The home must exist.
pub fn write_default(home: &Path) -> Result<PathBuf, ConfigError> {
    write_with(home, &Partial::default())
}

/// The same, with what `said` says in the places of the defaults.
pub fn write_with(home: &Path, said: &Partial) -> Result<PathBuf, ConfigError> {
    let path = home.join(CONFIG_FILE);
    let written = fs::OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| {
        file.write_all(text_with(said).as_bytes())?;
        file.sync_all()
    });
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(ConfigError::File { path, reason: error.to_string() })
        }
        _ => Ok(path),
    }
}

/// A line that is said stands where its default or example stood as a comment.
fn text_with(said: &Partial) -> String {
    let values = toml::Table::try_from(said).unwrap_or_default();
    let mut text = text();
    for (key, value) in values {
        let (line, head) = (format!("{key} = {value}"), format!("# {key} = "));
        match text.lines().find(|line| line.starts_with(&head)).filter(|line| !line.ends_with('[')).map(str::to_owned) {
            Some(comment) => text = text.replacen(&comment, &line, 1),
            // A default of several lines stays below as a comment.
            None => text = text.replacen(&head, &format!("{line}\n{head}"), 1),
        }
    }
    text
}

fn text() -> String {
    let lines = |texts: &[String]| texts.join("\",\n#   \"");
    let listen = lines(&DEFAULT_LISTEN.map(str::to_owned));
    let backends = lines(&ENGINES.map(|facts| BackendSpec::usual(facts.kind).to_string()));
    format!(
        r#"# infernet's configuration. What is commented out shows the default, or an example where it says so.
# A flag wins over INFERNET_<KEY> in the environment, which wins over this file.
# `infernet config show --origin` tells what holds, and who said so.

# Nodes of different networks ignore each other.
# network = "main"

# ---- mesh

# Where the mesh listens: TCP and QUIC.
# listen = [
#   "{listen}",
# ]

# Where buyers open chat streams: QUIC on UDP. [::] takes IPv4 too.
# chat_listen = "{DEFAULT_CHAT_LISTEN}"

# Where others reach the chat endpoint if a router maps its port, such as "203.0.113.7:46337". Else its own addresses are told.
# chat_advertise = []

# Peers to meet first, such as "/dns4/example.org/tcp/46337/p2p/16Uiu2H...", or pages of relays that name some, such as
# "http://example.org:46382/bootstrap.json".
# bootstrap = []

# Find peers on the local network.
# mdns = true

# Connections at most.
# max_peers = {DEFAULT_MAX_PEERS}

# How others reach this node. auto: directly if peers that try can, else over relays. direct: no relays. outbound-only: listen
# nowhere. relay-only: tell nobody an address of this machine.
# reach = "auto"

# Where others reach the mesh if a router maps its ports, such as "/ip4/203.0.113.7/tcp/46337".
# external_addresses = []

# IP addresses of this machine that nobody is told, such as that of a container bridge, "172.17.0.1".
# hidden_addresses = []

# Relays to use first, such as "/dns4/relay.example.org/tcp/46337/p2p/16Uiu2H...". Else those that the mesh knows.
# relays = []

# Have the router map the mesh's ports (UPnP).
# upnp = true

# ---- selling

# Engines, as KIND=URL. All that are named are used; of the default, the first that answers. OLLAMA_HOST, VLLM_HOST,
# SGLANG_HOST, MODULAR_MAX_HOST and LLAMACPP_HOST change the default; VLLM_API_KEY and the like hold keys. An empty list makes
# a node that only buys.
# backend = [
#   "{backends}",
# ]

# Ask an engine at a link-local or metadata address (169.254.0.0/16, fe80::/10), where clouds tell machines their secrets.
# allow_link_local_engine = false

# Prices in micro-USD per million tokens: {DEFAULT_PRICE_IN} is $0.10.
# price_in = {DEFAULT_PRICE_IN}
# price_out = {DEFAULT_PRICE_OUT}

# Prices of single models. As tables, at the end of this file: [prices."llama3.1:8b"], below it in = ... and out = ...
# prices = {{}}

# Below this nothing is sold, whatever the other prices say.
# price_floor_in = 0
# price_floor_out = 0

# By how many percent the price rises until the last slot; an ad binds at its price for 90 seconds.
# price_rise = 0

# Jobs at once. More than the engine runs at once (OLLAMA_NUM_PARALLEL) only wait there.
# slots = {DEFAULT_SLOTS}

# What buyers may owe you, in micro-USD, since nothing but their word pays: anybody, and some by node id, such as
# "16Uiu2HAm...=5000000". A job needs credit for all that it may cost. At 0 and without names nothing is sold, but for free.
# free_credit = 0
# credit = []

# Jobs at once of single models, such as "llama3.3:70b=1".
# model_slots = []

# The only models that are offered; all if the list is empty. `infernet model use` writes it.
# models = []

# Other names of your models that buyers may ask for, such as "llama3.1:8b=meta-llama/Llama-3.1-8B-Instruct".
# aliases = []

# Where this worker is, for buyers who care. Not told by default; an example:
# region = "eu-central"

# When to sell, in local time, such as ["22:00-07:00 mon-fri", "sat sun"]. Always if the list is empty.
# schedule = []

# No job is taken while a GPU is hotter (degrees Celsius), or all together draw more (watts). No limit by default; an example:
# max_celsius = 80
# max_watts = 350

# Sell only while nobody else uses the machine: at most so many percent of a GPU, or of the processors.
# only_idle = false
# idle_percent = {DEFAULT_IDLE_PERCENT}

# ---- the OpenAI endpoint

# Whether there is one, and where it listens. Beyond loopback it asks for the key in its key file.
# api = true
# api_listen = "{DEFAULT_API_LISTEN}"

# More host names by which it may be asked, and browser origins that may call it.
# api_hosts = []
# api_origins = []

# ---- buying

# Price ceiling of a request that names none, in micro-USD per million tokens, in and out.
# max_price = {DEFAULT_MAX_PRICE}

# The most that one job, and all jobs of a UTC day, may cost, in micro-USD. No limit by default; an example of 1 and 20 cents:
# spend_per_request = 10000
# spend_per_day = 200000

# Node ids of the only workers that get your jobs, and of those that never do.
# allow_workers = []
# deny_workers = []

# Settled receipts that a worker must have, and the only regions that it may be in.
# min_reputation = 0
# regions = []

# Take a worker's advertised price at once where that is good enough; false holds an auction for every job.
# standing = true

# ---- control planes

# Told of this node by a signed heartbeat, such as "https://plane.example"; your operators' commands come back. Nothing needs one.
# planes = []

# Seconds between two heartbeats; after 90 seconds of silence a plane shows the node as offline.
# heartbeat_secs = {DEFAULT_HEARTBEAT_SECS}

# ---- money on an EVM chain

# Where a node of the chain answers, the chain's id, the address of Channels on it, and the token that channels hold, such as USDC;
# without a token it is the chain's own coin. The URL is a secret: INFERNET_EVM_RPC says it, too. Without these, money is promises.
# An example:
# evm_rpc = "https://rpc.example/v1/KEY"
# evm_chain = 8453
# evm_contract = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
# evm_token = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"

# Units of the token, or of the coin, for a micro-USD: 1 for USDC. It must be said for a coin.
# evm_rate = 1

# Blocks that bury what counts, and what a unit of gas may cost at most, in gwei.
# evm_depth = {DEFAULT_DEPTH}
# evm_max_gwei = {DEFAULT_MAX_GWEI}

# A channel with so much unredeemed, in micro-USD, is redeemed by itself; 0: only by `infernet payout now`.
# payout_at = {DEFAULT_PAYOUT_AT}

# Where `infernet payout now` sends what was redeemed; by default it stays with this node's key. An example:
# payout_evm = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"

# ---- money on Solana

# Where nodes of the cluster answer, best two of two operators: one alone can hide a payment that was made, and have it made again.
# The URLs are secrets: INFERNET_SOLANA_RPC says them, too. Without them no tranches are bought or taken. An example:
# solana_rpc = [
#   "https://rpc.example/v1/KEY",
# ]

# The cluster, by its name or the hash of its first block, and the token of dollars that is paid in: USDC, if nothing else is said.
# solana_cluster = "{DEFAULT_CLUSTER}"
# solana_mint = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
# solana_decimals = {DEFAULT_DECIMALS}

# With solana_mint = "SOL", tranches are in SOL, at so many lamports for a dollar: what a worker asks, and the most that a buyer pays. An
# example, for a SOL of 150 dollars:
# solana_rate = 6666667

# What is paid at once, in micro-USD: what a worker would like, and the most that a buyer pays who names no amount; it is what can be
# lost. And what a million compute units may cost above the base fee, in lamports.
# solana_tranche = {DEFAULT_TRANCHE}
# solana_priority_fee = {DEFAULT_PRIORITY_FEE}

# The wallet that is paid; by default that of this node's own key, `solana.key` in its home. An example:
# payout_solana = "9hSR6S7WPtxmTojgo6GG3k4yDPecgJY292j7xrsUGWBu"

# ---- running

# File whose first line is the passphrase of this node's key, if that is encrypted (`infernet key encrypt`); readable by you alone.
# An example:
# passphrase_file = "/home/me/.infernet-passphrase"

# Seconds that running jobs may take to end when the node is told to stop.
# grace_secs = {DEFAULT_GRACE_SECS}

# Also write a log to infernet.log in the home; `infernet logs` shows it.
# log_file = true
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_said_holds_and_the_rest_stays_explained() {
        let home = tempfile::tempdir().unwrap();
        let said = Partial {
            backend: Some(vec!["ollama=http://10.0.0.5:11434".into()]),
            listen: Some(vec!["/ip4/0.0.0.0/tcp/1".into()]),
            slots: Some(7),
            api: Some(false),
            ..Partial::default()
        };
        let path = write_with(home.path(), &said).unwrap();
        let config = Config::load(home.path(), Partial::default()).unwrap();
        assert_eq!((config.slots, config.listen.len(), config.api), (7, 1, None));
        assert_eq!(config.backend.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ollama=http://10.0.0.5:11434"]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count(), 4, "{text}");
        write_with(home.path(), &Partial::default()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "what is there stays");
    }
}
