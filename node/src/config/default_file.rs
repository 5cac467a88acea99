//! The commented file of a new home: every key, what it is for, and its default.

use super::{
    CONFIG_FILE, ConfigError,
    parse::{
        DEFAULT_API_LISTEN, DEFAULT_CHAT_LISTEN, DEFAULT_GRACE_SECS, DEFAULT_LISTEN, DEFAULT_MAX_PEERS, DEFAULT_MAX_PRICE,
        DEFAULT_PRICE_IN, DEFAULT_PRICE_OUT, DEFAULT_SLOTS,
    },
};
use crate::backend::{BackendSpec, ENGINES};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Writes a `config.toml` that explains every key, unless there is one. Returns its path. The home must exist.
pub fn write_default(home: &Path) -> Result<PathBuf, ConfigError> {
    let path = home.join(CONFIG_FILE);
    let written = fs::OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| {
        file.write_all(text().as_bytes())?;
        file.sync_all()
    });
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(ConfigError::File { path, reason: error.to_string() })
        }
        _ => Ok(path),
    }
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

# Peers to meet first, such as "/dns4/example.org/tcp/46337/p2p/16Uiu2H...".
# bootstrap = []

# Find peers on the local network.
# mdns = true

# Connections at most.
# max_peers = {DEFAULT_MAX_PEERS}

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

# Jobs at once. More than the engine runs at once (OLLAMA_NUM_PARALLEL) only wait there.
# slots = {DEFAULT_SLOTS}

# Other names of your models that buyers may ask for, such as "llama3.1:8b=meta-llama/Llama-3.1-8B-Instruct".
# aliases = []

# Where this worker is, for buyers who care. Not told by default; an example:
# region = "eu-central"

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

# ---- running

# Seconds that running jobs may take to end when the node is told to stop.
# grace_secs = {DEFAULT_GRACE_SECS}

# Also write a log to infernet.log in the home; `infernet logs` shows it.
# log_file = true
"#
    )
}
