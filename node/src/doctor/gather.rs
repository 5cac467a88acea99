//! Looks at everything at once. Each look has a deadline, and what blocks has a thread of its own: a sick disk or a name server
//! that sleeps keeps nobody from hearing of the rest.

use super::{
    facts::{Configured, Disk, Engine, Facts, ModelSize, NodeFacts, Reached, Receipts, Running},
    machine, reach,
};
use crate::{
    api_keys::{KEYS_FILE, TOKEN_FILE},
    backend::{self, BackendSpec},
    config::{self, CONFIG_FILE, Config, Partial},
    control::client::{AskError, Client},
    engines::Offers,
    hardware, identity,
    net::bootstrap::BootstrapAddress,
    operator::OPERATORS_FILE,
    store::{self, StoreError},
};
use futures::future::join_all;
use infernet_wire::topic::NetworkId;
use libp2p::Multiaddr;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// For each thing: with the node asked first, all is over within ten seconds.
const LOOK: Duration = Duration::from_secs(6);
/// The node answers at once, or is stuck.
const NODE: Duration = Duration::from_secs(3);

/// Looks at `home` and around it.
pub(super) async fn facts(home: &Path) -> Facts {
    let config = Config::load(home, Partial::default());
    let node = running(home).await;
    let known = config.as_ref().ok();
    let of_node = node.facts();
    let bootstrap = bootstrap(known, of_node);
    let passphrase_file = known.and_then(|config| config.passphrase_file.clone());
    let network = network(known, of_node);
    let (engines, bootstrap, synchronised, disk, store, machine_now) = tokio::join!(
        join_all(known.into_iter().flat_map(|config| &config.backend).map(engine)),
        join_all(
            bootstrap
                .iter()
                .map(async |address| -> (String, Reached) { (shown(address), reach::peer(address, &network, of_node).await) })
        ),
        machine::synchronised(),
        disk(home),
        store(home, known, &node),
        hardware::once(LOOK),
    );
    Facts {
        home: home.into(),
        home_mode: fs::metadata(home).ok().filter(fs::Metadata::is_dir).map(|about| about.permissions().mode() & 0o7777),
        key: identity::public(home),
        ports: match of_node {
            Some(node) => reach::held(&node.status),
            None => known.map(reach::wanted).unwrap_or_default(),
        },
        config: config.map(|config| configured(home, &config)).map_err(|error| error.to_string()),
        unknown_variables: config::unknown_variables().iter().map(ToString::to_string).collect(),
        node,
        secrets: secrets(home, passphrase_file),
        disk,
        store,
        engines,
        bootstrap,
        synchronised,
        multicast: machine::multicast(),
        memory: machine_now.memory_bytes,
        gpu_memory: machine_now.gpu_memory(),
        descriptors: hardware::descriptors(),
        buffers: machine::buffers(),
    }
}

/// Whom the running node was told to meet first, else whom the configuration names.
fn bootstrap(config: Option<&Config>, node: Option<&NodeFacts>) -> Vec<Multiaddr> {
    match node.and_then(|node| node.status.meets.as_ref()) {
        Some(meets) => meets.bootstrap.iter().filter_map(|text| text.parse().ok()).collect(),
        None => config.map(|config| config.bootstrap.clone()).unwrap_or_default(),
    }
}

/// Likewise, what network it is all about.
fn network(config: Option<&Config>, node: Option<&NodeFacts>) -> NetworkId {
    let of_node = node.and_then(|node| node.status.network.parse().ok());
    of_node.or_else(|| config.map(|config| config.network.clone())).unwrap_or_default()
}

/// As an operator writes it.
fn shown(address: &Multiaddr) -> String {
    BootstrapAddress::from(address.clone()).to_string()
}

fn configured(home: &Path, config: &Config) -> Configured {
    Configured {
        has_file: home.join(CONFIG_FILE).exists(),
        network: config.network.to_string(),
        backend_is_guess: config.backend_is_guess,
        mdns: config.mdns,
        max_peers: config.max_peers,
        offers: Offers { pricing: config.pricing.clone(), aliases: config.aliases.clone(), only: config.models.clone() },
    }
}

async fn running(home: &Path) -> Running {
    let Some(node) = Client::connect(home) else { return Running::No };
    match timeout(NODE, ask(&node)).await {
        Ok(Ok(facts)) => Running::Yes(Box::new(facts)),
        Ok(Err(error)) => Running::Stuck(error.to_string()),
        Err(_) => Running::Stuck(format!("the running node does not answer within {} s", NODE.as_secs())),
    }
}

async fn ask(node: &Client) -> Result<NodeFacts, AskError> {
    let counters: BTreeMap<String, u64> = node.get("counters").await?;
    let gossip = || counters.iter().filter_map(|(name, n)| Some((name.strip_prefix("gossip.")?, *n)));
    let off = gossip().filter(|(name, _)| ["expired", "future"].contains(name)).map(|(_, n)| n).sum();
    let clocks = (off, gossip().map(|(_, n)| n).sum());
    Ok(NodeFacts { status: node.get("status").await?, peers: node.get("peers").await?, clocks })
}

async fn engine(spec: &BackendSpec) -> Engine {
    let name = spec.to_string();
    let models = async {
        let engine = backend::connect(spec).map_err(|error| error.to_string())?;
        let models = timeout(LOOK, engine.models()).await;
        let models = models.map_err(|_| format!("it does not answer within {} s", LOOK.as_secs()))?;
        models.map_err(|error| error.to_string())
    };
    let models = models.await.map(|all| {
        let size =
            |model: backend::Model| ModelSize { id: model.id, parameters: model.parameters, quantisation: model.quantisation };
        all.into_iter().map(size).collect()
    });
    Engine { is_local: spec.is_local(), label: format!("{} at {}", spec.kind, spec.url()), name, models }
}

async fn disk(home: &Path) -> Disk {
    let place = home.to_owned();
    let silent = || Disk { free: None, synced: Some(Err(format!("it did not answer within {} s", LOOK.as_secs()))) };
    aside(move || machine::disk(&place)).await.unwrap_or_else(silent)
}

/// The store, unless a node holds it. One that is not there is not made.
async fn store(home: &Path, config: Option<&Config>, node: &Running) -> Option<Result<Receipts, StoreError>> {
    let network = config.filter(|_| matches!(node, Running::No))?.network.clone();
    let home = home.to_owned();
    aside(move || {
        let places = [format!("journal-{network}"), format!("store-{network}")];
        if !places.iter().any(|place| home.join(place).exists()) {
            return Ok(Receipts { exists: false, readable: 0, unreadable: 0 });
        }
        let counts = store::open(&home, &network)?.counts()?;
        Ok(Receipts { exists: true, readable: counts.receipts, unreadable: counts.unreadable })
    })
    .await
}

/// What `work` returns, if it does so in time. It may go on when nobody waits any more: it ends with the process.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, answer) = oneshot::channel();
    thread::spawn(move || _ = done.send(work()));
    timeout(LOOK, answer).await.ok()?.ok()
}

/// Files with secrets, that are there, and their permission bits.
fn secrets(home: &Path, passphrase: Option<PathBuf>) -> Vec<(PathBuf, u32)> {
    let mode = |path: PathBuf| {
        let mode = fs::metadata(&path).ok()?.permissions().mode() & 0o7777;
        Some((path, mode))
    };
    let ours = [TOKEN_FILE, KEYS_FILE, OPERATORS_FILE].map(|name| home.join(name));
    ours.into_iter().chain(passphrase).filter_map(mode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_place_is_looked_at_and_left_empty() {
        let home = tempfile::tempdir().unwrap();
        let facts = facts(home.path()).await;
        assert!(matches!(facts.node, Running::No) && facts.key.is_err());
        assert!(matches!(facts.store, Some(Ok(Receipts { exists: false, .. }))));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
