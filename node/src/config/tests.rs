//! Every way to configure, and every mistake, as the operator reads it.

use super::*;

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
    assert_eq!(config.backend[0].to_string(), DEFAULT_BACKEND);
    assert!(config.backend_is_guess);
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let home = Home::with("slots = 3\nprice_in = 3\nprice_out = 3\nlisten = '/ip4/127.0.0.1/tcp/0'");
    let flags = Partial { slots: Some(5), backend: Some(vec!["ollama=gpu-box".into()]), ..Partial::default() };
    let config = home.load(&[("INFERNET_SLOTS", "4"), ("INFERNET_PRICE_IN", "4")], flags).unwrap();
    assert_eq!((config.slots, config.price.input.0, config.price.output.0, config.max_peers), (5, 4, 3, DEFAULT_MAX_PEERS));
    assert_eq!(config.listen, ["/ip4/127.0.0.1/tcp/0".parse().unwrap()]);
    assert!(!config.backend_is_guess);
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
    check("bootstrap = ['example.org']", &[], none(), &["bootstrap", "example.org", "multiaddr"]);
    check("backend = 'vllm=http://a'", &[], none(), &["backend", "vllm", "there is ollama"]);
    check("price_out = 1000000000001", &[], none(), &["price_out", "1000000000001", "to 1000000000000"]);
    check("max_peers = 0", &[], Partial { max_peers: Some(0), ..none() }, &["max_peers", "--max-peers"]);
    let many = Partial { backend: Some(vec!["ollama=a".into(); 9]), ..none() };
    check("", &[], many, &["backend", "a list of 9", "--backend", "at most 8"]);
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
    assert!(toml::Value::try_from(&uncommented).unwrap().as_table().unwrap().keys().eq(sorted(KEYS).iter()));
    fs::write(&path, values.join("\n")).unwrap();
    let config = Config::load_from(home.path(), Partial::default(), |_| None).unwrap();
    assert_eq!(Config { backend_is_guess: true, ..config }, Config::defaults(home.path()).unwrap());
}

fn sorted(keys: [&str; 10]) -> Vec<String> {
    let mut keys = keys.map(str::to_owned);
    keys.sort();
    keys.into()
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
