use super::*;
use crate::{
    control::schema::MeetsReport,
    doctor::{
        Level,
        facts::{Configured, Disk, Engine, ModelSize, NodeFacts, Port, PortState, Reached, Receipts, Use},
    },
    engines::Offers,
    store::StoreError,
};
use infernet_wire::key::NodeKey;
use serde_json::json;
use std::time::Duration;

/// A home in which all is well, without a node.
fn well() -> Facts {
    let id = NodeKey::from_bytes(&[1; 32]).expect("a key").id();
    Facts {
        home: "/home/x".into(),
        home_mode: Some(0o700),
        key: Ok((id, false)),
        config: Ok(Configured {
            has_file: true,
            network: "main".into(),
            backend_is_guess: false,
            mdns: true,
            max_peers: 128,
            offers: Offers::default(),
        }),
        unknown_variables: Vec::new(),
        node: Running::No,
        secrets: vec![("/home/x/api-token".into(), 0o600)],
        disk: Disk { free: Some(1 << 36), synced: Some(Ok(Duration::from_millis(3))) },
        store: Some(Ok(Receipts { exists: true, readable: 7, unreadable: 0 })),
        ports: vec![Port { purpose: Use::Chat, address: "0.0.0.0:46337".parse().unwrap(), state: PortState::Free }],
        engines: vec![engine(Ok(vec![ModelSize { id: "m".into(), parameters: 8_000_000_000, quantisation: "Q4_0".into() }]))],
        bootstrap: vec![("/ip4/192.0.2.1/tcp/1".into(), Reached::Dialled(Duration::from_millis(20)))],
        synchronised: Some(true),
        multicast: Some(true),
        memory: Some(16 << 30),
        gpu_memory: None,
        descriptors: (Some(1024), Some(4096)),
        buffers: Some((8 << 20, 8 << 20)),
    }
}

fn engine(models: Result<Vec<ModelSize>, String>) -> Engine {
    let label = "ollama at http://127.0.0.1:11434".into();
    Engine { name: "ollama=http://127.0.0.1:11434".into(), label, is_local: true, models }
}

/// The node that runs, in `change`d circumstances.
fn running(change: impl FnOnce(&mut NodeFacts)) -> Running {
    let id = NodeKey::from_bytes(&[1; 32]).expect("a key").id();
    let status = json!({"version": env!("CARGO_PKG_VERSION"), "id": id, "network": "main", "listen": [], "chat": "0.0.0.0:1",
        "peers": 1, "seller": null, "reach": {"state": "open", "why": "a peer reached it"}});
    let peer = json!([{"id": id, "remote": "x", "transport": "tcp", "direction": "inbound", "rtt_ms": 1, "agent": null,
        "score": 0.0, "connected_ms": 1}]);
    let mut facts = NodeFacts {
        status: serde_json::from_value(status).expect("a status"),
        peers: serde_json::from_value(peer).expect("peers"),
        clocks: (0, 100),
    };
    change(&mut facts);
    Running::Yes(Box::new(facts))
}

/// In a home that is well but for `change`, exactly one check is bad: `name`, at `level`, with these words in sentence and fix.
fn check(change: impl FnOnce(&mut Facts), name: &str, level: Level, said: &str, fix: &str) {
    let mut facts = well();
    change(&mut facts);
    let mut bad = checks(&facts);
    bad.retain(|check| check.level >= Level::Warning);
    let [check] = bad.as_slice() else { panic!("one is bad: {bad:#?}") };
    assert_eq!((check.name.as_str(), check.level), (name, level), "{check:?}");
    assert!(check.said.contains(said), "{said:?} in {check:?}");
    assert!(check.fix.as_ref().is_some_and(|text| text.contains(fix)), "{fix:?} in {check:?}");
}

#[test]
fn nothing_is_wrong_where_all_is_well() {
    for facts in [well(), Facts { node: running(|_| {}), store: None, ..well() }] {
        let bad: Vec<_> = checks(&facts).into_iter().filter(|check| check.level != Level::Ok).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
}

#[test]
fn a_model_that_is_named_and_not_there_is_told() {
    let naming = |facts: &mut Facts| facts.config.as_mut().unwrap().offers.only = vec!["mm".into(), "m".into()];
    check(
        naming,
        "engine",
        Level::Warning,
        "no engine has mm, which models of your configuration names: there is m",
        "write m",
    );
    let mut down = well();
    naming(&mut down);
    down.engines.push(engine(Err("it does not answer".into())));
    let checks = checks(&down);
    assert!(!checks.iter().any(|check| check.said.contains("no engine has")), "the other may have it: {checks:#?}");
}

#[test]
fn a_variable_that_nobody_reads_is_told() {
    let said = "INFERNET_SLOT is not known and counts for nothing: did you mean INFERNET_SLOTS?";
    check(|facts| facts.unknown_variables = vec![said.into()], "config", Level::Warning, "INFERNET_SLOT is", "INFERNET_SLOTS?");
}

#[test]
fn by_which_way_peers_are_connected_is_told_and_why_not_directly() {
    let node = running(|node| {
        let mut relayed = node.peers[0].clone();
        node.peers[0].path = "punched".into();
        (relayed.path, relayed.via, relayed.rtt_ms) = ("relayed".into(), Some("16Uiu2HRelay".into()), Some(80));
        relayed.why_not_direct = Some("hole punching failed: refused".into());
        node.peers.push(relayed);
    });
    let checks = checks(&Facts { node, store: None, ..well() });
    let said = &checks.iter().find(|check| check.name == "peers").expect("it is checked").said;
    let ways = "2 are connected: 1 punched, 1 relayed; 1 through 16Uiu2HRelay, 80 ms away: hole punching failed: refused";
    assert_eq!(said, ways);
}

#[test]
fn who_can_not_be_reached_is_told_and_how_that_is_mended() {
    let behind = |relays: &[&str], sells: bool| {
        running(|node| {
            let relay = |state: &&str| json!({"id": "r", "state": state, "configured": false, "rtt_ms": 1, "failures": 0});
            let relays: Vec<_> = relays.iter().map(relay).collect();
            let reach = json!({"state": "behind_nat", "why": "a peer could not reach it", "relays": relays});
            node.status.reach = serde_json::from_value(reach).expect("a report");
            let seller = json!({"running": 0, "held": 0, "slots": 1, "models": [], "counters": {}});
            node.status.seller = sells.then(|| serde_json::from_value(seller).expect("a seller"));
        })
    };
    let reach = |node: Running| {
        let facts = Facts { node, store: None, ..well() };
        checks(&facts).into_iter().find(|check| check.name == "reach").expect("it is checked")
    };
    let lost = reach(behind(&["known"], true));
    assert_eq!(lost.level, Level::Warning);
    assert!(lost.said.contains("no buyer reaches it") && lost.fix.is_some_and(|fix| fix.contains("relays")), "{}", lost.said);
    assert_eq!(reach(behind(&["held", "known"], true)).level, Level::Ok);
    assert_eq!(reach(behind(&[], false)).level, Level::Ok, "who buys dials");
    let barren = reach(running(|node| {
        node.status.seller = behind(&[], true).facts().and_then(|other| other.status.seller.clone());
        let relay = json!({"id": "16Uiu2HBarren", "state": "known", "configured": true, "failures": 0, "barren": 1});
        let reach = json!({"state": "behind_nat", "why": "a peer could not reach it", "relays": [relay]});
        node.status.reach = serde_json::from_value(reach).expect("a report");
    }));
    assert_eq!(barren.level, Level::Warning);
    assert!(barren.said.contains("granted a place and carried nothing: 16Uiu2HBarren"), "{}", barren.said);
    let unknown = reach(running(|node| node.status.reach = Default::default()));
    assert_eq!(unknown.level, Level::NotChecked);
}

#[test]
fn homes_keys_and_secrets_that_others_may_use() {
    use Level::{Problem, Warning};
    check(|f| f.home_mode = Some(0o777), "home", Problem, "0777", "chmod 700 /home/x");
    check(|f| f.home_mode = Some(0o755), "home", Warning, "0755", "chmod 700");
    check(|f| f.home_mode = None, "home", Warning, "no home", "infernet setup");
    let exposed = || IdentityError::Exposed { path: "/home/x/identity.key".into(), mode: 0o644 };
    check(|f| f.key = Err(exposed()), "key", Problem, "0644", "chmod 600");
    check(|f| f.key = Err(IdentityError::Missing { path: "k".into() }), "key", Warning, "no key", "infernet setup");
    let missing = IdentityError::Missing { path: "k".into() };
    let elsewhere = checks(&Facts { key: Err(missing), node: running(|_| {}), store: None, ..well() });
    let key = elsewhere.iter().find(|check| check.name == "key").expect("it is checked");
    assert!(key.level == Level::Ok && key.said.contains("has its key from elsewhere"), "{key:?}");
    check(|f| f.secrets.push(("/home/x/api-keys.toml".into(), 0o640)), "secrets", Problem, "api-keys.toml", "chmod 600");
}

#[test]
fn disks_and_stores() {
    use Level::{Problem, Warning};
    check(|f| f.disk.free = Some(50 << 20), "disk", Problem, "50 MiB", "make room");
    check(|f| f.disk.free = Some(500 << 20), "disk", Warning, "500 MiB", "gibibyte");
    check(|f| f.disk.synced = Some(Err("read-only".into())), "sync", Problem, "read-only", "/home/x");
    check(|f| f.disk.synced = Some(Ok(Duration::from_secs(1))), "sync", Warning, "1000 ms", "faster");
    let full = || StoreError::Full { path: "/home/x/journal-main".into() };
    check(|f| f.store = Some(Err(full())), "store", Problem, "full", "");
    let changed = Receipts { exists: true, readable: 1, unreadable: 2 };
    check(|f| f.store = Some(Ok(changed)), "store", Problem, "2 receipts", "verify");
    check(|f| f.node = running(|node| node.status.store.unreadable = 3), "store", Problem, "3 receipts", "verify");
}

#[test]
fn nodes_versions_peers_and_clocks() {
    use Level::{Problem, Warning};
    check(|f| f.node = Running::Stuck("silent".into()), "node", Problem, "silent", "infernet logs");
    check(|f| f.node = running(|node| node.status.version = "0.0.1".into()), "version", Warning, "0.0.1", "again");
    check(|f| f.node = running(|node| node.peers.clear()), "peers", Warning, "no peer", "bootstrap");
    check(|f| f.node = running(|node| node.clocks = (30, 100)), "clock", Problem, "30 of 100", "timedatectl");
    check(|f| f.synchronised = Some(false), "clock", Warning, "time server", "timedatectl");
    let told = json!({"code": "draining", "blocks": true, "offers": 0, "seen": "told to drain", "means": "no jobs"});
    let told: crate::why::Finding = serde_json::from_value(told).unwrap();
    check(|f| f.node = running(|node| node.status.warnings.push(told)), "draining", Warning, "told to drain", "infernet why");
}

#[test]
fn ports_and_ways_to_others() {
    use Level::{Problem, Warning};
    let stuck = |f: &mut Facts| (f.ports[0].state, f.node) = (PortState::Taken, Running::Stuck("silent".into()));
    check(stuck, "node", Problem, "silent", "again");
    check(|f| f.ports[0].state = PortState::Taken, "port", Problem, "UDP 0.0.0.0:46337 for chat is taken", "chat_listen");
    let unusable = PortState::Unusable("not here".into());
    check(|f| f.ports[0].state = unusable, "port", Problem, "not here", "another address");
    let failed = || ("/dns4/example.org/tcp/1".to_owned(), Reached::Failed("refused".into()));
    check(|f| f.bootstrap.push(failed()), "bootstrap", Warning, "refused", "name another");
    check(|f| f.bootstrap = vec![failed()], "bootstrap", Problem, "refused", "name another");
    let page = |reached| ("http://relay.example/bootstrap.json".to_owned(), reached);
    let useless = || page(Reached::Useless("http://relay.example/bootstrap.json: no".into(), "name it".into()));
    check(|f| f.bootstrap = vec![useless()], "bootstrap", Problem, "bootstrap.json: no", "name it");
    let told = page(Reached::Told(2, Duration::from_millis(7)));
    check(|f| f.bootstrap = vec![told, useless()], "bootstrap", Warning, "bootstrap.json: no", "name it");
    let alone = |f: &mut Facts| {
        f.bootstrap.clear();
        f.config.as_mut().unwrap().mdns = false;
    };
    check(alone, "bootstrap", Warning, "nobody is named", "bootstrap = [");
    check(|f| f.multicast = Some(false), "mdns", Warning, "multicast", "bootstrap");
    check(|f| f.buffers = Some((212_992, 8 << 20)), "buffers", Warning, "208 KiB", "sysctl -w net.core.rmem_max=4194304");
}

#[test]
fn engines_and_what_they_need() {
    use Level::{Problem, Warning};
    check(|f| f.engines = vec![engine(Err("refused".into()))], "engine", Problem, "does not answer: refused", "config.toml");
    let guessed = |f: &mut Facts| {
        f.engines = vec![engine(Err("refused".into()))];
        f.config.as_mut().unwrap().backend_is_guess = true;
    };
    check(guessed, "engine", Problem, "is looked for", "backend = []");
    // Of several that are guessed, one that answers is enough.
    let second = |f: &mut Facts| {
        f.engines = vec![engine(Err("refused".into())), engine(Ok(Vec::new()))];
        f.config.as_mut().unwrap().backend_is_guess = true;
    };
    check(second, "engine", Warning, "no model", "infernet model pull");
    check(|f| f.engines = vec![engine(Ok(Vec::new()))], "engine", Warning, "no model", "infernet model pull");
    check(|f| f.memory = Some(4 << 30), "memory", Warning, "4.0 GiB", "smaller model");
    check(|f| f.gpu_memory = Some(4 << 30), "memory", Warning, "a part runs on the processor", "smaller model");
    check(|f| (f.memory, f.gpu_memory) = (Some(1 << 30), Some(1 << 30)), "memory", Warning, "2.0 GiB", "smaller model");
    check(|f| f.descriptors = (Some(256), Some(511)), "files", Warning, "256 files", "raise");
    check(|f| f.descriptors = (Some(256), None), "files", Warning, "256 files", "ulimit -n 512");
}

#[test]
fn without_a_configuration_the_rest_is_not_checked_and_not_called_good() {
    let broken = |f: &mut Facts| {
        f.config = Err("unknown key".into());
        (f.ports, f.engines, f.bootstrap, f.store) = (Vec::new(), Vec::new(), Vec::new(), None);
    };
    check(broken, "config", Level::Problem, "unknown key", "config show");
    let mut facts = well();
    broken(&mut facts);
    let unchecked: Vec<_> =
        checks(&facts).into_iter().filter(|check| check.level == Level::NotChecked).map(|c| c.name).collect();
    assert_eq!(unchecked, ["store", "port", "engine", "bootstrap", "mdns", "files"]);
}

#[test]
fn a_running_node_is_judged_and_not_the_file() {
    let dead = || vec![engine(Err("refused".into()))];
    let buys = Facts { node: running(|_| {}), engines: dead(), store: None, ..well() };
    assert!(checks(&buys).iter().all(|check| check.level == Level::Ok), "it needs no engine");
    let sells = running(|node| {
        let seller = json!({"running": 0, "held": 0, "slots": 1, "models": ["m"], "counters": {}});
        node.status.seller = serde_json::from_value(seller).ok();
        node.status.engines = serde_json::from_value(json!([{"engine": "vllm at http://x", "models": 1}])).expect("engines");
        node.status.meets = Some(MeetsReport { bootstrap: Vec::new(), mdns: false });
    });
    let all = checks(&Facts { node: sells, engines: dead(), multicast: Some(false), store: None, ..well() });
    let said = |name: &str| all.iter().find(|check| check.name == name).map(|check| (check.level, check.said.as_str()));
    assert_eq!(said("engine"), Some((Level::Ok, "the running node has 1 model of vllm at http://x")));
    assert_eq!(said("mdns").map(|(level, _)| level), Some(Level::Ok), "it was started with --no-mdns");
}

#[test]
fn whoever_names_nobody_and_knows_nobody_is_told_so() {
    check(|f| f.bootstrap = Vec::new(), "bootstrap", Level::Warning, "nobody is named", "bootstrap = [");
    let met = Facts { bootstrap: Vec::new(), node: running(|_| {}), store: None, ..well() };
    assert!(checks(&met).iter().all(|check| check.level == Level::Ok), "it has met somebody");
}
