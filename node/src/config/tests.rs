//! Every way to configure, and every mistake, as the operator reads it.

use super::{parse::DEFAULT_MAX_PEERS, show::rows_over, *};
use infernet_wire::{limits, solana::Coin};
use std::{fs, net::IpAddr};

struct Home(tempfile::TempDir);

impl Home {
    fn with(file: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        fs::write(home.path().join(CONFIG_FILE), file).expect("writes");
        Home(home)
    }

    fn load(&self, env: &[(&str, &str)], flags: Partial) -> Result<Config, ConfigError> {
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::load_from(self.0.path(), flags, lookup)
    }
}

/// The sentence that a bad file, environment or flags give must hold all of `expected`.
fn check(file: &str, env: &[(&str, &str)], flags: Partial, expected: &[&str]) {
    let home = Home::with(file);
    let error = home.load(env, flags).expect_err("can't be used").to_string();
    assert!(!error.contains('\n'), "one sentence: {error}");
    for part in expected {
        assert!(error.contains(part), "{part:?} in {error}");
    }
}

#[test]
fn a_new_home_has_working_defaults() {
    let home = tempfile::tempdir().unwrap();
    let config = Config::load_from(home.path(), Partial::default(), |_| None).unwrap();
    assert_eq!(config, Config::defaults(home.path()).unwrap());
    assert_eq!((config.network.as_str(), config.listen.len(), config.mdns), ("main", 4, true));
    assert_eq!(config.chat_listen, "[::]:46337".parse().unwrap());
    assert_eq!(config.backend[0].to_string(), "ollama=http://127.0.0.1:11434");
    assert_eq!(config.backend.len(), 5);
    assert!(config.backend_is_guess);
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let home = Home::with("slots = 3\nprice_in = 3\nprice_out = 3\nlisten = '/ip4/127.0.0.1/tcp/0'");
    let flags = Partial { slots: Some(5), backend: Some(vec!["ollama=gpu-box".into()]), ..Partial::default() };
    let config = home.load(&[("INFERNET_SLOTS", "4"), ("INFERNET_PRICE_IN", "4")], flags).unwrap();
    assert_eq!(
        (config.slots, config.pricing.base.input.0, config.pricing.base.output.0, config.max_peers),
        (5, 4, 3, DEFAULT_MAX_PEERS)
    );
    assert_eq!(config.listen, ["/ip4/127.0.0.1/tcp/0".parse().unwrap()]);
    assert!(!config.backend_is_guess);
}

#[test]
fn engines_own_variables_change_what_is_looked_for_and_hold_keys() {
    let env = [("OLLAMA_HOST", "0.0.0.0:9"), ("VLLM_API_KEY", "hunter2"), ("VLLM_HOST", "http://169.254.0.1")];
    let config = Home::with("allow_link_local_engine = true").load(&env, Partial::default()).unwrap();
    let texts: Vec<_> = config.backend.iter().take(2).map(ToString::to_string).collect();
    assert_eq!(texts, ["ollama=http://127.0.0.1:9", "vllm=http://169.254.0.1"]);
    assert!(config.backend_is_guess && !format!("{config:?}").contains("hunter2"));
    let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let home = Home::with("allow_link_local_engine = true");
    let rows = rows_over(Partial::default(), home.0.path(), Partial::default(), lookup).unwrap();
    let row = rows.iter().find(|row| row.key == "backend").unwrap();
    assert_eq!(row.origin, "OLLAMA_HOST, VLLM_HOST");
    assert!(!format!("{rows:?}").contains("hunter2"));
    let named = Partial { backend: Some(vec!["vllm=gpu-box".into()]), ..Partial::default() };
    let config = Home::with("").load(&[("VLLM_API_KEY", "hunter2"), ("OLLAMA_HOST", "x")], named).unwrap();
    assert_eq!(config.backend.iter().map(ToString::to_string).collect::<Vec<_>>(), ["vllm=http://gpu-box:8000"]);
    let elsewhere = |text: &str| config.engine(text.parse().unwrap());
    assert_eq!(elsewhere("vllm=gpu-box").as_ref(), Ok(&config.backend[0]), "with its key");
    assert!(elsewhere("vllm=http://169.254.0.1").is_err());
}

#[test]
fn how_a_node_is_reached_is_said_by_flag_variable_or_file_and_mistakes_name_the_fix() {
    let relay = "/dns4/relay.example.org/tcp/46337/p2p/16Uiu2HAm9hxjkpxSdLpKPqVt2AGwGQEVMh8fH2dXYzkjnEKkVK4r";
    let home = Home::with(&format!("reach = 'relay-only'\nrelays = '{relay}'\nupnp = false"));
    let config =
        home.load(&[("INFERNET_EXTERNAL_ADDRESSES", "/ip4/203.0.113.7/tcp/1,/dns4/a.b/udp/2/quic-v1")], none()).unwrap();
    assert_eq!((config.reach.mode.to_string(), config.reach.upnp), ("relay-only".into(), false));
    assert_eq!((config.reach.external.len(), config.reach.relays[0].to_string()), (2, relay.to_owned()));
    let defaults = Home::with("").load(&[], none()).unwrap().reach;
    assert_eq!(defaults, ReachConfig { upnp: true, ..ReachConfig::default() });
    let flags = Partial { reach: Some("direct".into()), relays: Some(vec![relay.into()]), ..none() };
    let rows = rows_over(Partial::default(), home.0.path(), flags, |_| None).unwrap();
    let origin = |key: &str| rows.iter().find(|row| row.key == key).map(|row| row.origin.clone()).unwrap();
    assert_eq!(
        (origin("reach"), origin("relays"), origin("external_addresses")),
        ("--reach".into(), "--relay".into(), "default".into())
    );
    check("reach = 'both'", &[], none(), &["reach", "both", "config.toml", "outbound-only"]);
    for bad in ["203.0.113.7:1", "/ip4/0.0.0.0/tcp/1", "/ip4/203.0.113.7/tcp/0", "/ip4/203.0.113.7/udp/1", "/unix/a"] {
        check(
            "",
            &[],
            Partial { external_addresses: Some(vec![bad.into()]), ..none() },
            &[bad, "--external-address", "203.0.113.7/tcp"],
        );
    }
    let hidden = Partial { hidden_addresses: Some(vec!["172.17.0.1".into()]), ..none() };
    assert_eq!(home.load(&[], hidden).unwrap().reach.hidden, ["172.17.0.1".parse::<IpAddr>().unwrap()]);
    let with_port = Partial { hidden_addresses: Some(vec!["172.17.0.1:1".into()]), ..none() };
    check("", &[], with_port, &["172.17.0.1:1", "--hide-address", "without a port"]);
    check("", &[("INFERNET_RELAYS", "/ip4/203.0.113.7/tcp/1")], none(), &["relays", "INFERNET_RELAYS", "with its id"]);
}

fn none() -> Partial {
    Partial::default()
}

#[test]
fn names_of_flags_are_variables_too() {
    let home = Home::with("");
    let none = Partial::default;
    let of = |name: &str, text: &str| home.load(&[(name, text)], none()).unwrap();
    assert!(of("INFERNET_NO_API", "true").api.is_none() && of("INFERNET_NO_API", "false").api.is_some());
    assert!(!of("INFERNET_NO_MDNS", "true").mdns && !of("INFERNET_NO_STANDING", "true").standing);
    let buys = of("INFERNET_NO_SERVE", "true");
    assert!(buys.backend.is_empty() && !buys.backend_is_guess);
    assert!(of("INFERNET_NO_SERVE", "false").backend_is_guess);
    assert_eq!(of("INFERNET_MODEL", "a,b").models, ["a", "b"]);
    assert_eq!(of("INFERNET_ONLY_REGION", "eu").regions.len(), 1);
    check("", &[("INFERNET_DENY", "nobody")], none(), &["deny_workers", "INFERNET_DENY"]);
    check("", &[("INFERNET_NO_API", "1")], none(), &["api", "INFERNET_NO_API", "true or false"]);
}

#[test]
fn an_origin_is_the_variable_or_flag_that_was_given() {
    let home = Home::with("");
    let origin = |key: &str, env: &[(&'static str, &'static str)], flags: Partial| {
        let said: std::collections::BTreeMap<_, _> = env.iter().copied().collect();
        let rows = show::rows_over(none(), home.0.path(), flags, |name| said.get(name).map(|text| (*text).to_owned())).unwrap();
        rows.into_iter().find(|row| row.key == key).unwrap().origin
    };
    for (key, name, text) in [
        ("models", "INFERNET_MODEL", "a"),
        ("models", "INFERNET_MODELS", "a"),
        ("api", "INFERNET_NO_API", "true"),
        ("api", "INFERNET_API", "false"),
        ("backend", "INFERNET_NO_SERVE", "true"),
        ("prices", "INFERNET_PRICE", "a=1/2"),
        ("external_addresses", "INFERNET_EXTERNAL_ADDRESS", "/ip4/203.0.113.7/tcp/1"),
    ] {
        assert_eq!(origin(key, &[(name, text)], none()), name);
    }
    assert_eq!(origin("models", &[("INFERNET_MODEL", "a"), ("INFERNET_MODELS", "b")], none()), "INFERNET_MODELS");
    assert_eq!(origin("backend", &[], Partial { backend: Some(Vec::new()), ..none() }), "--no-serve");
}

#[test]
fn variables_that_nobody_reads_are_told_with_what_was_meant() {
    let told = |name: &str| {
        let unknown = variables::unknown(std::iter::once(name.to_owned()));
        unknown.first().map(ToString::to_string)
    };
    for known in ["INFERNET_HOME", "INFERNET_NO_SERVE", "INFERNET_MODEL", "INFERNET_PRICES", "INFERNET_PLANE", "PATH"] {
        assert_eq!(told(known), None);
    }
    for elsewhere in ["INFERNET_PLANE_STORE", "INFERNET_RELAY_RATE", "INFERNET_TEST_ENGINE", "INFERNET_BLESS"] {
        assert_eq!(told(elsewhere), None);
    }
    for (name, words) in [
        ("INFERNET_PRISE_OUT", "did you mean INFERNET_PRICE_OUT?"),
        ("INFERNET_SLOT", "did you mean INFERNET_SLOTS?"),
        ("INFERNET_LOG", "RUST_LOG"),
        ("INFERNET_WHATEVER", "infernet start --help"),
    ] {
        let told = told(name).unwrap();
        assert!(told.starts_with(name) && told.contains(words), "{told}");
    }
}

#[test]
fn lists_of_the_environment_are_comma_separated() {
    let env = [
        ("INFERNET_CHAT_LISTEN", "[::1]:0"),
        ("INFERNET_LISTEN", "/ip4/127.0.0.1/tcp/0, /ip4/127.0.0.1/udp/0/quic-v1,"),
        ("INFERNET_BACKEND", ""),
        ("INFERNET_HOME", "/x"),
        ("INFERNET_LOG", "debug"),
    ];
    let config = Home::with("").load(&env, Partial::default()).unwrap();
    assert_eq!(config.chat_listen, "[::1]:0".parse().unwrap());
    assert_eq!(config.listen.len(), 2);
    assert!(config.backend.is_empty() && !config.backend_is_guess);
}

#[test]
fn mistakes_in_the_file_name_file_key_and_fix() {
    let none = Partial::default;
    check("slot = 3", &[], none(), &["config.toml", "\"slot\"", "slots, ", "max_peers"].map(|s| s.trim_end_matches(", ")));
    check("slots = 'many'", &[], none(), &["slots", "many", "config.toml", "whole number"]);
    check("price_in = -3", &[], none(), &["price_in", "-3", "config.toml", "whole number"]);
    check("slots = 70000", &[], none(), &["slots", "70000", "config.toml", "whole number"]);
    check("mdns = 'yes'", &[], none(), &["mdns", "yes", "true or false"]);
    check("listen = 3", &[], none(), &["listen", "3", "a text or a list of texts"]);
    check("slots = ", &[], none(), &["config.toml"]);
    check("[net]\nx = 1", &[], none(), &["config.toml", "\"net\""]);
}

#[test]
fn mistakes_in_values_name_their_origin() {
    let none = Partial::default;
    check("slots = 0", &[], none(), &["slots", "0", "config.toml", "from 1 to 4096"]);
    check("", &[("INFERNET_SLOTS", "0")], none(), &["slots", "INFERNET_SLOTS", "from 1 to 4096"]);
    check("", &[("INFERNET_SLOTS", "a few")], none(), &["slots", "\"a few\"", "INFERNET_SLOTS", "whole number"]);
    check("slots = 1", &[], Partial { slots: Some(0), ..none() }, &["slots", "--slots", "from 1 to 4096"]);
    check("network = 'My Net'", &[], none(), &["network", "My Net", "config.toml", "a-z"]);
    check(
        "",
        &[("INFERNET_LISTEN", "0.0.0.0:1")],
        none(),
        &["listen", "0.0.0.0:1", "INFERNET_LISTEN", "/ip4/0.0.0.0/tcp/46337"],
    );
    check("listen = '/dns4/example.org/tcp/1'", &[], none(), &["listen", "TCP or QUIC"]);
    check("chat_listen = '46337'", &[], none(), &["chat_listen", "46337", "[::]:46337"]);
    check("chat_listen = []", &[], none(), &["chat_listen", "config.toml"]);
    check("bootstrap = ['http://169.254.169.254']", &[], none(), &["bootstrap", "link-local or metadata"]);
    check("bootstrap = ['example.org']", &[], none(), &["bootstrap", "example.org", "multiaddr"]);
    check("backend = 'tgi=http://a'", &[], none(), &["backend", "tgi", "there is ollama, vllm"]);
    check("backend = 'vllm=http://169.254.169.254'", &[], none(), &["backend", "metadata", "--allow-link-local-engine"]);
    check("", &[("VLLM_HOST", "fe80::1")], none(), &["VLLM_HOST", "is not a backend's URL"]);
    check("", &[("VLLM_HOST", "[fe80::1]")], none(), &["VLLM_HOST", "--allow-link-local-engine"]);
    check("", &[("SGLANG_API_KEY", "a b")], none(), &["SGLANG_API_KEY", "no key"]);
    check("price_out = 1000000000001", &[], none(), &["price_out", "1000000000001", "to 1000000000000"]);
    check("max_peers = 0", &[], Partial { max_peers: Some(0), ..none() }, &["max_peers", "--max-peers"]);
    let many = Partial { backend: Some(vec!["ollama=a".into(); 9]), ..none() };
    check("", &[], many, &["backend", "a list of 9", "--backend", "at most 8"]);
}

#[test]
fn mistakes_in_the_keys_of_daily_life_name_the_fix() {
    let none = Partial::default;
    let check_file = |file: &str, expected: &[&str]| check(file, &[], none(), expected);
    check_file("api_listen = 'localhost:1'", &["api_listen", "localhost:1", "TCP port", "127.0.0.1:46339"]);
    check("", &[("INFERNET_API", "off")], none(), &["api", "\"off\"", "INFERNET_API", "true or false"]);
    check_file("api_hosts = ['http://a']", &["api_hosts", "http://a", "without port or path"]);
    check_file("api_origins = ['example.org']", &["api_origins", "example.org", "https://chat.example.org"]);
    check_file("api_origins = ['https://example.org/']", &["api_origins", "without a path"]);
    check_file("api_origins = ['*']", &["api_origins", "\"*\"", "scheme and host"]);
    check_file("max_price = 1000000000001", &["max_price", "to 1000000000000"]);
    check_file("spend_per_day = -1", &["spend_per_day", "-1", "not negative"]);
    check_file("spend_per_request = 1000000000001", &["spend_per_request", "to 1000000000000"]);
    check_file("allow_workers = ['me']", &["allow_workers", "\"me\"", "node id"]);
    let worker = infernet_wire::key::NodeKey::from_bytes(&[7; 32]).unwrap().id();
    let both = format!("allow_workers = '{worker}'\ndeny_workers = '{worker}'");
    check(&both, &[], none(), &["deny_workers", &worker.to_string(), "allow_workers too", "config.toml"]);
    check_file("min_reputation = 1000001", &["min_reputation", "to 1000000"]);
    check_file("regions = ['EU']", &["regions", "EU", "a-z"]);
    check("", &[], Partial { region: Some(String::new()), ..none() }, &["region", "--region", "1 to 32"]);
    check("", &[], Partial { regions: Some(vec!["x y".into()]), ..none() }, &["regions", "--only-region"]);
    check_file("aliases = ['llama']", &["aliases", "llama", "MODEL=ALIAS"]);
    check("", &[], Partial { aliases: Some(vec!["=x".into()]), ..none() }, &["aliases", "--alias", "MODEL=ALIAS"]);
    let nine: Vec<String> = (0..9).map(|n| format!("'m=a{n}'")).collect();
    check(&format!("aliases = [{}]", nine.join(",")), &[], none(), &["aliases", "9 names of \"m\"", "at most 8"]);
    check_file("chat_advertise = ['0.0.0.0:1']", &["chat_advertise", "0.0.0.0:1", "203.0.113.7:46337"]);
    check_file("chat_advertise = ['192.0.2.1:0']", &["chat_advertise", "can reach"]);
    check_file("grace_secs = 3601", &["grace_secs", "3601", "to 3600"]);
    check("", &[("INFERNET_LOG_FILE", "1")], none(), &["log_file", "INFERNET_LOG_FILE", "true or false"]);
}

#[test]
fn the_keys_of_daily_life_are_read() {
    let file = "api_hosts = 'Box.Local'\napi_origins = ['HTTPS://chat.example.org:8443']\nspend_per_day = 5\nregion = 'eu-1'\n\
        aliases = ['llama3.1:8b = meta-llama/Llama-3.1-8B']\nchat_advertise = '203.0.113.7:1'\ngrace_secs = 0";
    let config = Home::with(file).load(&[("INFERNET_API", "false")], Partial::default()).unwrap();
    assert_eq!(
        (config.api, config.api_hosts, config.api_origins),
        (None, vec!["box.local".to_owned()], vec!["https://chat.example.org:8443".to_owned()])
    );
    assert_eq!((config.spend_per_request, config.spend_per_day), (None, Some(MicroUsd(5))));
    assert_eq!(config.region.unwrap().tag(), "infernet:region:eu-1");
    assert_eq!(config.aliases, [Alias { model: "llama3.1:8b".into(), alias: "meta-llama/Llama-3.1-8B".into() }]);
    assert_eq!((config.chat_advertise, config.grace), (vec!["203.0.113.7:1".parse().unwrap()], Duration::ZERO));
    let defaults = Config::defaults(Path::new("/x")).unwrap();
    assert_eq!((defaults.api, defaults.max_price.0), (Some("127.0.0.1:46339".parse().unwrap()), 10_000_000));
}

#[test]
fn the_written_file_explains_every_key_with_its_default() {
    let home = tempfile::tempdir().unwrap();
    let path = write_default(home.path()).unwrap();
    assert_eq!(Config::load_from(home.path(), Partial::default(), |_| None), Config::defaults(home.path()));

    let file = fs::read_to_string(&path).unwrap();
    let is_value = |line: &&str| {
        line.starts_with("#   ") || line.starts_with("# ]") || KEYS.iter().any(|key| line.starts_with(&format!("# {key} = ")))
    };
    let values: Vec<&str> = file.lines().filter(is_value).map(|line| &line[2..]).collect();
    let uncommented: Partial = toml::from_str(&values.join("\n")).unwrap();
    assert!(uncommented.is_complete(), "{uncommented:?}");
    fs::write(&path, values.join("\n")).unwrap();
    let config = Config::load_from(home.path(), Partial::default(), |_| None).unwrap();
    let defaults = Config::defaults(home.path()).unwrap();
    // These have no default, so the file shows an example.
    let Config { region, spend_per_request, spend_per_day, .. } = config.clone();
    assert!(config.passphrase_file.is_some() && region.is_some() && spend_per_request.is_some() && spend_per_day.is_some());
    assert!(config.policy.max_celsius.is_some() && config.policy.max_watts.is_some());
    let (region, spend_per_request, spend_per_day) = (None, None, None);
    let policy = crate::market::policy::Policy { max_celsius: None, max_watts: None, ..config.policy.clone() };
    assert!(config.evm.is_some() && config.payout_evm.is_some());
    assert!(config.solana.as_ref().is_some_and(|solana| solana.payout.is_some()));
    let config = Config { passphrase_file: None, evm: None, payout_evm: None, solana: None, ..config };
    assert_eq!(Config { backend_is_guess: true, region, spend_per_request, spend_per_day, policy, ..config }, defaults);
}

#[test]
fn prices_of_models_come_from_tables_flags_and_the_environment() {
    let home = Home::with("price_in = 5\n[prices.'a:1b']\nin = 1\nout = 2\n[prices.b]\nout = 4\n");
    let price = |config: &Config, model: &str| {
        let price = config.pricing.of(model);
        (price.input.0, price.output.0)
    };
    let config = home.load(&[], Partial::default()).unwrap();
    assert_eq!((price(&config, "a:1b"), price(&config, "b:latest"), price(&config, "c")), ((1, 2), (5, 4), (5, 400_000)));
    let flags = Partial { prices: Some([model_price("b=7/8").unwrap()].into()), ..Partial::default() };
    let config = home.load(&[("INFERNET_PRICES", "a:1b=3/4, x=y=5/6")], flags).unwrap();
    assert_eq!((price(&config, "a:1b"), price(&config, "b"), price(&config, "x=y")), ((3, 4), (7, 8), (5, 6)));
    let rows = rows_over(Partial::default(), home.0.path(), Partial::default(), |_| None).unwrap();
    let row = rows.iter().find(|row| row.key == "prices").unwrap();
    assert_eq!(row.value, serde_json::json!({ "a:1b": { "in": 1, "out": 2 }, "b": { "in": 5, "out": 4 } }));
    assert!(row.origin.ends_with(CONFIG_FILE), "{}", row.origin);
    for bad in ["a", "a=1", "=1/2", "a=1/x", "a=-1/2"] {
        assert_eq!(model_price(bad), None, "{bad}");
        check("", &[("INFERNET_PRICES", bad)], Partial::default(), &["prices", "INFERNET_PRICES", "MODEL=IN/OUT"]);
    }
    check("[prices.a]\nin = 1\nfor = 2", &[], Partial::default(), &["prices", "\"for\" of \"a\"", "in and out", "config.toml"]);
    check("[prices.a]\nin = 1000000000001", &[], Partial::default(), &["prices", "1000000000001", "to 1000000000000"]);
    check("[prices.a]\nin = 'x'", &[], Partial::default(), &["config.toml", "whole number"]);
}

#[test]
fn when_to_sell_is_checked_where_it_is_written() {
    let none = Partial::default;
    let file = "schedule = ['22:00-07:00 mon-fri', 'sat sun']\nmodel_slots = 'big=1'\nonly_idle = true\nmax_celsius = 80";
    let config = Home::with(file).load(&[], none()).unwrap();
    assert_eq!(
        (config.policy.schedule.0.len(), config.policy.idle_percent, config.policy.max_celsius),
        (2, Some(20), Some(80))
    );
    assert_eq!((config.pricing.slots_of("big:latest"), config.pricing.slots_of("small")), (Some(1), None));
    check("schedule = 'at night'", &[], none(), &["schedule", "at night", "22:00-07:00 mon-fri"]);
    check("model_slots = 'big=0'", &[], none(), &["model_slots", "big=0", "MODEL=N"]);
    check("max_celsius = 200", &[], none(), &["max_celsius", "200", "from 1 to 120"]);
    check("idle_percent = 0", &[], none(), &["idle_percent", "from 1 to 100"]);
    check("price_rise = 5000", &[], none(), &["price_rise", "5000", "to 1000"]);
    check("models = ['']", &[], none(), &["models", "a model's name"]);
}

#[test]
fn the_models_that_are_offered_are_written_into_the_file() {
    let home = Home::with("# mine\nslots = 3\n");
    let models = ["a:1b".to_owned(), "b".to_owned()];
    let path = write_models(home.0.path(), Some(&models)).unwrap();
    let config = home.load(&[], Partial::default()).unwrap();
    assert_eq!((config.models.as_slice(), config.slots), (&models[..], 3));
    assert!(fs::read_to_string(&path).unwrap().contains("# mine"));
    write_models(home.0.path(), None).unwrap();
    assert!(home.load(&[], Partial::default()).unwrap().models.is_empty());
    fs::write(&path, "slots = [1").unwrap();
    assert!(write_models(home.0.path(), None).unwrap_err().to_string().contains("line 1"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "slots = [1", "as it was");
}

#[test]
fn no_price_is_written_that_would_keep_the_node_from_starting() {
    let home = Home::with("");
    let price = Price { input: MicroUsd(1), output: MicroUsd(2) };
    let write = |n: usize| write_price(home.0.path(), Some(&format!("m{n}")), price);
    (0..limits::MAX_AD_MODELS).for_each(|n| _ = write(n).unwrap());
    let error = write(limits::MAX_AD_MODELS).unwrap_err().to_string();
    assert!(error.contains("at most 64"), "{error}");
    assert_eq!(home.load(&[], Partial::default()).unwrap().pricing.models.len(), limits::MAX_AD_MODELS);
}

#[test]
fn each_row_says_what_holds_and_who_said_so() {
    let home = Home::with("slots = 3\nbootstrap = '/ip4/192.0.2.1/tcp/1'\napi = false\napi_listen = '127.0.0.1:1'");
    let flags = Partial { mdns: Some(false), ..Partial::default() };
    let env = |name: &str| (name == "INFERNET_PRICE_IN").then(|| "7".to_owned());
    let rows = rows_over(Partial::default(), home.0.path(), flags, env).unwrap();
    assert!(rows.iter().map(|row| row.key.as_str()).eq(KEYS.iter().copied()));
    let row = |key: &str| {
        let row = rows.iter().find(|row| row.key == key).unwrap();
        (row.value.to_string(), row.origin.clone())
    };
    let file = home.0.path().join(CONFIG_FILE).display().to_string();
    assert_eq!(row("slots"), ("3".into(), file.clone()));
    assert_eq!(row("bootstrap"), ("[\"/ip4/192.0.2.1/tcp/1\"]".into(), file.clone()));
    assert_eq!(row("mdns"), ("false".into(), "--no-mdns".into()));
    assert_eq!(row("price_in"), ("7".into(), "INFERNET_PRICE_IN".into()));
    assert_eq!(row("price_out"), ("400000".into(), "default".into()));
    assert_eq!(row("api_listen"), ("\"127.0.0.1:1\"".into(), file));
    assert_eq!(row("spend_per_day"), ("null".into(), "default".into()));
    assert!(rows_over(Partial::default(), Home::with("slots = 0").0.path(), Partial::default(), |_| None).is_err());
}

#[test]
fn an_existing_file_is_left_alone() {
    let home = Home::with("slots = 7");
    write_default(home.0.path()).unwrap();
    assert_eq!(home.load(&[], Partial::default()).unwrap().slots, 7);
    assert!(write_default(Path::new("/nonexistent")).is_err());
}

#[test]
fn the_home_is_a_flag_else_the_environment_else_the_users() {
    let env = || Some(PathBuf::from("/env"));
    assert_eq!(home_from(Some(Path::new("/flag")), env()), Ok("/flag".into()));
    assert_eq!(home_from(None, env()), Ok("/env".into()));
    assert!(home_from(Some(Path::new("here")), None).unwrap().is_absolute());
    let users = home_from(None, Some(PathBuf::new())).map(|path| path.ends_with("infernet"));
    assert!(matches!(users, Ok(true) | Err(ConfigError::NoHome)));
}

#[test]
fn without_ipv6_only_the_defaults_change() {
    let home = Home::with("");
    let load = |flags| Config::load_over(ipv4_only(), home.0.path(), flags, |_| None).unwrap();
    let config = load(Partial::default());
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!((listen, config.chat_listen), (LISTEN_V4.map(str::to_owned).to_vec(), CHAT_LISTEN_V4.parse().unwrap()));
    let config = load(Partial {
        listen: Some(vec!["/ip6/::1/tcp/1".into()]),
        chat_listen: Some("[::1]:1".into()),
        ..Partial::default()
    });
    assert_eq!((config.listen.len(), config.chat_listen), (1, "[::1]:1".parse().unwrap()));
}

const CONTRACT: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
const TOKEN: &str = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359";

#[test]
fn a_chain_is_said_as_a_whole_or_the_missing_key_is_named() {
    let whole = format!("evm_rpc = 'https://rpc.example/v1/0123456789'\nevm_chain = 1\nevm_contract = '{CONTRACT}'");
    let with_token = format!("{whole}\nevm_token = '{TOKEN}'");
    let evm = Home::with(&with_token).load(&[], Partial::default()).unwrap().evm.expect("a chain");
    assert_eq!((evm.terms.chain, evm.terms.rate, evm.depth, evm.max_gwei), (1, 1, 12, 200));
    let coin = format!("{whole}\nevm_rate = 333000000");
    let evm = Home::with(&coin).load(&[], Partial::default()).unwrap().evm.expect("a chain");
    assert_eq!((evm.terms.token, evm.terms.rate), (EvmAddress::ZERO, 333_000_000));
    let check = |file: &str, expected: &[&str]| check(file, &[], Partial::default(), expected);
    check(&whole, &["evm_rate", "missing", "coin"]);
    let lacking = Home::with(&format!("evm_chain = 1\nevm_contract = '{CONTRACT}'")).load(&[], Partial::default()).unwrap();
    assert!(lacking.evm_lacks_rpc && lacking.evm.is_none(), "for a node's environment to say");
    check("evm_rpc = 'http://127.0.0.1:1'\nevm_chain = 1", &["evm_contract", "missing"]);
    check("evm_rpc = 'http://127.0.0.1:1'", &["evm_chain", "missing"]);
    check(&format!("{with_token}\nevm_depth = 0"), &["evm_depth", "from 1"]);
    check(&whole.replace("BeAed", "Beaed"), &["evm_contract", "mistyped"]);
    check("payout_evm = '0x12'", &["payout_evm", "40 hex digits"]);
    let none = Home::with(&format!("payout_at = 0\npayout_evm = '{TOKEN}'")).load(&[], Partial::default()).unwrap();
    assert_eq!((none.evm, none.payout_at.0, none.payout_evm.map(|to| to.to_string())), (None, 0, Some(TOKEN.into())));
}

#[test]
fn the_chains_credential_is_shown_nowhere() {
    let secret = "0123456789abcdef";
    let file = format!("evm_chain = 1\nevm_contract = '{CONTRACT}'\nevm_token = '{TOKEN}'");
    let home = Home::with(&file);
    let env = |url: String| move |name: &str| (name == "INFERNET_EVM_RPC").then(|| url.clone());
    let good = env(format!("https://rpc.example/v1/{secret}"));
    let config = Config::load_from(home.0.path(), Partial::default(), &good).unwrap();
    let rows = rows_over(Partial::default(), home.0.path(), Partial::default(), good).unwrap();
    let row = rows.iter().find(|row| row.key == "evm_rpc").unwrap();
    assert_eq!((&row.value, row.origin.as_str()), (&serde_json::json!("https://rpc.example"), "INFERNET_EVM_RPC"));
    assert!(!format!("{config:?} {rows:?}").contains(secret));
    for bad in [format!("ftp://{secret}"), secret.into()] {
        let error = Config::load_from(home.0.path(), Partial::default(), env(bad)).expect_err("no URL").to_string();
        assert!(
            error.contains("evm_rpc") && error.contains("https://rpc.example/v1/KEY") && !error.contains(secret),
            "{error}"
        );
    }
    // The file alone is half of it, and can still be written to.
    write_payout(home.0.path(), "payout_evm", TOKEN).unwrap();
    let partial = Partial { evm_rpc: Some(Secret(secret.into())), ..Partial::default() };
    assert!(!format!("{partial:?}").contains(secret));
}

#[test]
fn solana_is_said_by_its_urls_and_the_rest_has_defaults_or_is_named() {
    let secret = "0123456789abcdef";
    let file = format!("solana_rpc = ['https://rpc.example/{secret}', 'http://127.0.0.1:1']");
    let account = |file: &str| Home::with(file).load(&[], Partial::default()).unwrap().solana;
    let solana = account(&file).expect("a wallet");
    assert_eq!((solana.rpc.len(), solana.tranche.0, solana.payout), (2, 50_000, None));
    let usdc = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v".parse().unwrap();
    assert_eq!(solana.coin, Coin::Token { mint: usdc, decimals: 6 });
    let in_sol = account(&format!("{file}\nsolana_mint = 'SOL'\nsolana_rate = 6666667")).expect("a wallet");
    assert_eq!(in_sol.coin, Coin::Sol { rate: 6_666_667 });
    assert!(!format!("{solana:?}").contains(secret));
    assert_eq!(account("solana_tranche = 5"), None);
    let check = |more: &str, expected: &[&str]| check(&format!("{file}\n{more}"), &[], Partial::default(), expected);
    check("solana_cluster = 'testnet'", &["solana_mint", "missing"]);
    check("solana_cluster = 'main'", &["solana_cluster", "mainnet-beta"]);
    check("solana_mint = '0x12'", &["solana_mint", "base58"]);
    check("solana_mint = 'SOL'", &["solana_rate", "missing", "lamports"]);
    check("solana_mint = 'SOL'\nsolana_rate = 0", &["solana_rate", "from 1"]);
    check("solana_decimals = 13", &["solana_decimals", "to 12"]);
    check("solana_tranche = 0", &["solana_tranche", "from 1"]);
    // The account that holds the tokens of a wallet, in place of the wallet.
    let program = infernet_wire::solana::SolanaAddress([2; 32]);
    assert!(!program.is_wallet());
    check(&format!("payout_solana = '{program}'"), &["payout_solana", "wallet"]);
    let bad = Partial { solana_rpc: Some(vec![Secret(secret.into())]), ..Partial::default() };
    let error = Home::with("").load(&[], bad).expect_err("no URL").to_string();
    assert!(error.contains("solana_rpc") && !error.contains(secret), "{error}");
    let many = Partial { solana_rpc: Some(vec![Secret("http://127.0.0.1:1".into()); 5]), ..Partial::default() };
    assert!(Home::with("").load(&[], many).expect_err("too many").to_string().contains("4 at most"));
}
