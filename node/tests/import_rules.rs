//! Who may know whom, held by reading the sources.
//!
//! The rules are in [`RULES`], [`HOMES`] and [`check_manifest`]; each is also tested on a planted violation, so that a checker that finds
//! nothing is known to be able to find something. Comments, strings and `#[cfg(test)]` modules do not count: tests may use
//! what they like.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const MEMBERS: [&str; 5] = ["wire", "node", "relay", "plane", "testnet"];

/// The runtimes and engines that `wire` and the market must not know.
const OUTSIDE: [&str; 12] =
    ["tokio", "futures", "libp2p", "libp2p_tls", "quinn", "rustls", "sled", "reqwest", "axum", "clap", "figment", "tracing"];

struct Rule {
    /// For the reader of a failure.
    says: &'static str,
    /// Whether the rule is about this file; paths are relative to the workspace.
    governs: fn(&str) -> bool,
    /// What of a file breaks the rule.
    breaks: fn(&Source) -> Vec<String>,
}

/// Where an outside crate is at home, so that replacing it touches one file.
struct Home {
    crates: &'static [&'static str],
    at: &'static [&'static str],
    /// The part of the workspace that the rule is about; all of it if empty.
    within: &'static str,
}

impl Home {
    fn governs(&self, path: &str) -> bool {
        path.starts_with(self.within) && !self.at.iter().any(|home| path.starts_with(home))
    }

    fn says(&self) -> String {
        format!("only {} may name {}", self.at.join(", "), self.crates.join(", "))
    }
}

/// Outside crates, and the only files that name them; a name without an ending is a file and the folder beside it.
const HOMES: &[Home] = &[
    Home { crates: &["serde_cbor"], at: &["wire/src/codec.rs"], within: "" },
    Home { crates: &["k256"], at: &["wire/src/key.rs"], within: "" },
    Home { crates: &["sled"], at: &["node/src/store/sled.rs", "plane/src/store/embedded/db.rs"], within: "" },
    Home { crates: &["tokio_postgres", "deadpool_postgres"], at: &["plane/src/store/postgres"], within: "" },
    Home { crates: &["crc32fast"], at: &["node/src/store/journal/frame.rs"], within: "" },
    // Its tests stand beside it.
    Home { crates: &["quinn"], at: &["node/src/chat/endpoint"], within: "" },
    // Engines over TCP, the control socket, control planes, chains, and pages that say where to begin.
    Home {
        crates: &["reqwest"],
        at: &[
            "node/src/backend/http.rs",
            "node/src/control/client.rs",
            "node/src/net/bootstrap/page.rs",
            "node/src/plane_client/http.rs",
            "node/src/settlement/json_rpc.rs",
        ],
        within: "node/src",
    },
    Home { crates: &["hyper", "hyper_util"], at: &["node/src/api/server.rs"], within: "node/src" },
    Home { crates: &["prometheus_client"], at: &["node/src/metrics/text.rs"], within: "" },
    Home { crates: &["figment"], at: &["node/src/config/layers.rs"], within: "" },
    // What is sealed to a node, and what is sealed under a passphrase.
    Home { crates: &["chacha20poly1305"], at: &["wire/src/key.rs", "node/src/identity/sealed.rs"], within: "" },
    Home { crates: &["argon2"], at: &["node/src/identity/sealed.rs"], within: "" },
    Home { crates: &["rpassword"], at: &["node/src/identity/passphrase.rs"], within: "" },
    Home { crates: &["clap_complete", "clap_mangen"], at: &["node/src/cli.rs", "node/src/cli/pages.rs"], within: "" },
    // Its tests stand beside it.
    Home { crates: &["ratatui"], at: &["node/src/cli/tui/draw"], within: "" },
    Home { crates: &["crossterm"], at: &["node/src/cli/tui/terminal.rs"], within: "" },
    Home { crates: &["nvml_wrapper"], at: &["node/src/hardware/nvidia.rs"], within: "" },
    Home { crates: &["rustix"], at: &["node/src/hardware/host.rs"], within: "" },
    Home { crates: &["jiff"], at: &["node/src/local_time.rs"], within: "" },
    Home { crates: &["toml_edit"], at: &["node/src/toml_text.rs"], within: "" },
    Home { crates: &["aws_lc_rs"], at: &["plane/src/accounts/signature.rs"], within: "" },
    Home { crates: &["sha3"], at: &["wire/src/evm.rs"], within: "" },
    Home { crates: &["ed25519_dalek"], at: &["wire/src/solana.rs"], within: "" },
    Home { crates: &["litesvm"], at: &["testnet/src/svm"], within: "" },
    // What pays, and what looks whether it was paid.
    Home {
        crates: &[
            "bincode",
            "solana_sdk",
            "solana_compute_budget_interface",
            "solana_system_interface",
            "spl_associated_token_account_interface",
            "spl_memo_interface",
            "spl_token_interface",
        ],
        at: &[
            "node/src/settlement/solana/key.rs",
            "node/src/settlement/solana/transaction.rs",
            "node/src/settlement/solana/verify.rs",
            // What tests run them on.
            "testnet/src/svm",
        ],
        within: "",
    },
];

const RULES: [Rule; 9] = [
    Rule {
        says: "wire knows no runtime, network or store",
        governs: |path| path.starts_with("wire/src/"),
        breaks: |source| source.names_of(&OUTSIDE),
    },
    Rule {
        says: "the market imports only infernet_wire, std and, for its errors, thiserror",
        // Of its tests, those over arbitrary inputs need a generator of them.
        governs: |path| path.starts_with("node/src/market") && path != "node/src/market/invariants.rs",
        breaks: Source::beyond_market,
    },
    Rule {
        says: "net does not know the market",
        governs: |path| path.starts_with("node/src/net/") || path == "node/src/net.rs",
        breaks: |source| source.of_node("market"),
    },
    Rule {
        says: "what a payment's next step is, is decided without a runtime, a network or a clock",
        governs: |path| {
            ["evm/step", "solana/payment", "solana/transaction", "solana/verify"]
                .iter()
                .any(|pure| path.strip_prefix("node/src/settlement/").is_some_and(|rest| rest.starts_with(pure)))
        },
        breaks: |source| [source.names_of(&OUTSIDE), source.of_node("clock")].concat(),
    },
    Rule {
        says: "what the plane remembers, and who its clients are, knows nothing of HTTP servers",
        governs: |path| path.starts_with("plane/src/store") || path.starts_with("plane/src/accounts"),
        breaks: |source| source.names_of(&["axum"]),
    },
    Rule {
        says: "only node/src/clock.rs reads a clock",
        governs: |path| path != "node/src/clock.rs",
        breaks: |source| [source.sequence(&["SystemTime", "::", "now"]), source.sequence(&["Instant", "::", "now"])].concat(),
    },
    Rule {
        says: "only the simulator makes messages without signatures",
        governs: |path| !path.starts_with("testnet/src/sim") && !path.starts_with("wire/src/envelope"),
        breaks: |source| source.sequence(&["SimulatedKey"]),
    },
    Rule {
        says: "the simulator knows no runtime and no clock",
        governs: |path| path.starts_with("testnet/src/sim/") || path == "testnet/src/sim.rs",
        breaks: |source| [source.names_of(&["tokio", "libp2p", "futures"]), source.of_node("clock")].concat(),
    },
    Rule {
        says: "no file is borrowed from elsewhere by its path",
        governs: |_| true,
        breaks: |source| source.sequence(&["#", "[", "path"]),
    },
];

/// A source file as words and signs; `::` is one sign.
struct Source {
    words: Vec<String>,
    is_crate_child: bool,
}

impl Source {
    fn read(path: &str, text: &str) -> Self {
        // `super` in a file such as src/market.rs is the crate itself.
        let is_crate_child = path.rsplit_once('/').is_some_and(|(folder, _)| folder.ends_with("/src"));
        Source { words: without_tests(words(&without_comments(text))), is_crate_child }
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.words.get(at).is_some_and(|found| found == word)
    }

    /// Places where one of `crates` is meant: `use name`, or a path that begins with it.
    fn names_of(&self, crates: &[&str]) -> Vec<String> {
        let names = |at: &usize| {
            let continues = self.continues(*at);
            let imported =
                *at > 0 && (self.is(at - 1, "use") || self.is(at - 1, "crate") && self.is(at.wrapping_sub(2), "extern"));
            crates.iter().any(|name| self.is(*at, name)) && !continues && (imported || self.is(at + 1, "::"))
        };
        (0..self.words.len()).filter(names).map(|at| self.shown(at)).collect()
    }

    /// Whether the word at `at` goes on a path, unlike the first of one, even of one such as `::quinn`.
    fn continues(&self, at: usize) -> bool {
        let before = at.checked_sub(2).and_then(|before| self.words.get(before));
        at > 0 && self.is(at - 1, "::") && before.is_some_and(|word| word == ">" || word != "use" && word.starts_with(is_word))
    }

    /// Places where a module `name` of the node crate is meant.
    fn of_node(&self, name: &str) -> Vec<String> {
        let grouped = |at: usize, root: &str| self.is(at, root) && self.is(at + 1, "::") && self.is(at + 2, "{");
        let direct = |at: usize, root: &str| self.is(at, root) && self.is(at + 1, "::") && self.is(at + 2, name);
        let mut found = Vec::new();
        for at in 0..self.words.len() {
            for root in ["crate", "super", "infernet_node"] {
                let in_group = grouped(at, root) && self.group(at + 2).iter().any(|word| word == name);
                if direct(at, root) || in_group {
                    found.push(self.shown(at));
                }
            }
        }
        found
    }

    /// The first word of each path in the braces that open at `at`.
    fn group(&self, at: usize) -> Vec<String> {
        let (mut depth, mut firsts) = (0usize, Vec::new());
        for (place, word) in self.words.iter().enumerate().skip(at) {
            match word.as_str() {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ if depth == 1 && (self.is(place - 1, "{") || self.is(place - 1, ",")) => firsts.push(word.clone()),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        firsts
    }

    /// What a file of the market names beyond `infernet_wire`, `std`, `thiserror` and the market.
    fn beyond_market(&self) -> Vec<String> {
        let mut found = self.names_of(&OUTSIDE);
        for at in 0..self.words.len() {
            let begins_path = self.is(at + 1, "::") && !self.continues(at);
            let word = self.words.get(at).map(String::as_str).unwrap_or_default();
            let bad = match word {
                "crate" if begins_path => !self.is(at + 2, "market"),
                "super" if begins_path => self.is_crate_child || self.is(at + 2, "super"),
                "infernet_node" => true,
                // `use<…>` of a returned `impl` captures; it imports nothing.
                "<" => false,
                _ if at > 0 && self.is(at - 1, "use") => {
                    !["infernet_wire", "std", "core", "thiserror", "crate", "super", "self"].contains(&word)
                        && !self.is_own(word)
                }
                _ => false,
            };
            if bad {
                found.push(self.shown(at));
            }
        }
        found
    }

    /// Whether the file itself declares a module or type of that name, so that `use name::Variant` stays at home.
    fn is_own(&self, name: &str) -> bool {
        ["mod", "enum"].iter().any(|kind| self.words.windows(2).any(|pair| matches!(pair, [a, b] if a == kind && b == name)))
            || name.starts_with(char::is_uppercase)
    }

    fn sequence(&self, wanted: &[&str]) -> Vec<String> {
        let matches = |at: &usize| wanted.iter().enumerate().all(|(offset, word)| self.is(at + offset, word));
        (0..self.words.len()).filter(matches).map(|at| self.shown(at)).collect()
    }

    fn shown(&self, at: usize) -> String {
        self.words.iter().skip(at.saturating_sub(1)).take(5).cloned().collect::<Vec<_>>().join(" ")
    }
}

/// The text with comments, strings and characters blanked out.
fn without_comments(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let mut kept = String::with_capacity(text.len());
    let mut place = 0;
    while place < chars.len() {
        place = match (at(place), at(place + 1)) {
            ('/', '/') => skip_while(&chars, place, |rest| !rest.starts_with(&['\n'])),
            ('/', '*') => skip_while(&chars, place, |rest| !rest.starts_with(&['*', '/'])) + 2,
            ('r', '"' | '#') if !kept.ends_with(is_word) || kept.ends_with('b') => after_raw_string(&chars, place),
            ('"', _) => after_string(&chars, place + 1),
            ('\'', '\\') => skip_while(&chars, place + 3, |rest| !rest.starts_with(&['\''])) + 1,
            ('\'', _) if at(place + 2) == '\'' => place + 3,
            (other, _) => {
                kept.push(other);
                place + 1
            }
        };
    }
    kept
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn skip_while(chars: &[char], mut place: usize, inside: impl Fn(&[char]) -> bool) -> usize {
    while chars.get(place..).is_some_and(|rest| !rest.is_empty() && inside(rest)) {
        place += 1;
    }
    place
}

fn after_string(chars: &[char], mut place: usize) -> usize {
    while let Some(c) = chars.get(place) {
        match c {
            '"' => return place + 1,
            '\\' => place += 2,
            _ => place += 1,
        }
    }
    place
}

/// After `r#"…"#`; an `r#word` loses only its `r#`.
fn after_raw_string(chars: &[char], place: usize) -> usize {
    let hashes = chars.get(place + 1..).into_iter().flatten().take_while(|c| **c == '#').count();
    if chars.get(place + 1 + hashes) != Some(&'"') {
        return place + 1 + hashes;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    skip_while(chars, place + 2 + hashes, |rest| !rest.starts_with(&end)) + end.len()
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = ' ';
    for c in text.chars() {
        match words.last_mut() {
            Some(word) if is_word(c) && is_word(previous) => word.push(c),
            Some(word) if c == ':' && previous == ':' && word == ":" => word.push(c),
            _ if c.is_whitespace() => {}
            _ => words.push(c.to_string()),
        }
        previous = c;
    }
    words
}

/// Leaves out each `#[cfg(test)] mod … { … }` and its like.
fn without_tests(words: Vec<String>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::with_capacity(words.len());
    let mut place = 0;
    while let Some(word) = words.get(place) {
        let marked = MARK.iter().enumerate().all(|(offset, mark)| words.get(place + offset).is_some_and(|word| word == mark));
        if !marked {
            kept.push(word.clone());
            place += 1;
            continue;
        }
        let (mut depth, mut inside) = (0usize, place + MARK.len());
        while let Some(word) = words.get(inside) {
            inside += 1;
            match word.as_str() {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
        place = inside;
    }
    kept
}

/// What of one file breaks which rules.
fn check(path: &str, text: &str) -> Vec<String> {
    let source = Source::read(path, text);
    let rules = RULES.iter().filter(|rule| (rule.governs)(path));
    let broken = rules.flat_map(|rule| (rule.breaks)(&source).into_iter().map(|at| (rule.says.to_owned(), at)));
    let homes = HOMES.iter().filter(|home| home.governs(path));
    let strays = homes.flat_map(|home| source.names_of(home.crates).into_iter().map(|at| (home.says(), at)));
    broken.chain(strays).map(|(says, at)| format!("{path}: {says}: {at}")).collect()
}

/// Which crates of the workspace a manifest must not depend on. Nothing but testnet builds on relay or plane, and nothing on
/// testnet; wire builds on nothing of ours.
fn check_manifest(member: &str, manifest: &toml::Table) -> Vec<String> {
    let forbidden: &[&str] = match member {
        "testnet" => &["infernet-testnet"],
        "wire" => &["infernet-node", "infernet-relay", "infernet-plane", "infernet-testnet"],
        _ => &["infernet-relay", "infernet-plane", "infernet-testnet"],
    };
    let mut found = dependencies(manifest);
    found.retain(|name| forbidden.contains(&name.as_str()));
    found.iter().map(|name| format!("{member}/Cargo.toml: must not depend on {name}")).collect()
}

/// All that a manifest depends on, for any target and use, by its real name.
fn dependencies(table: &toml::Table) -> Vec<String> {
    let mut names = Vec::new();
    for (key, value) in table {
        let Some(inner) = value.as_table() else { continue };
        if key.ends_with("dependencies") {
            names.extend(inner.iter().map(|(name, spec)| {
                let renamed = spec.get("package").and_then(toml::Value::as_str);
                renamed.unwrap_or(name).to_owned()
            }));
        } else {
            names.extend(dependencies(inner));
        }
    }
    names
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All product sources, by path. Test files are not product.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for member in MEMBERS {
        collect(&workspace().join(member).join("src"), &format!("{member}/src"), &mut found);
    }
    found
}

fn collect(folder: &Path, shown: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a source folder").map(|entry| entry.expect("an entry")) {
        let name = entry.file_name().into_string().expect("names are text");
        let path = format!("{shown}/{name}");
        if entry.path().is_dir() {
            collect(&entry.path(), &path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" && !shown.ends_with("/tests") {
            found.insert(path, fs::read_to_string(entry.path()).expect("a source file"));
        }
    }
}

#[test]
fn the_sources_keep_the_rules() {
    let sources = sources();
    assert!(sources.len() > 20, "the walk finds the sources: {}", sources.len());
    let broken: Vec<String> = sources.iter().flat_map(|(path, text)| check(path, text)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_manifests_keep_the_rules() {
    for member in MEMBERS {
        let text = fs::read_to_string(workspace().join(member).join("Cargo.toml")).expect("a manifest");
        let broken = check_manifest(member, &text.parse().expect("TOML"));
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }
}

fn planted(path: &str, text: &str, expected: usize) {
    let broken = check(path, text);
    assert_eq!(broken.len(), expected, "{path}: {text}: {broken:?}");
}

#[test]
fn planted_violations_are_found() {
    planted("wire/src/offer.rs", "use tokio::time::sleep;", 1);
    planted("wire/src/offer.rs", "fn f() { libp2p::PeerId::random(); }", 1);
    planted("wire/src/offer.rs", "use serde_cbor as cbor;", 1);
    planted("wire/src/id.rs", "use k256::{SecretKey, ecdh};", 1);
    planted("node/src/store.rs", "fn open() -> sled::Db {}", 1);
    planted("node/src/chat/server.rs", "use quinn::Connection;", 1);
    planted("node/src/config.rs", "use figment::Figment;", 1);
    planted("node/src/identity.rs", "fn f() { chacha20poly1305::aead::generate_nonce(); argon2::Argon2::default(); }", 2);
    planted("node/src/cli/key.rs", "let p = rpassword::read_password();", 1);
    planted("node/src/cli/start.rs", "use clap_complete::Shell;", 1);
    planted("node/src/cli/tui/panes.rs", "use ratatui::text::Line;", 1);
    planted("node/src/cli/tui/draw.rs", "use ratatui::Frame; let size = crossterm::terminal::size();", 1);
    planted("node/src/cli/doctor.rs", "rustix::fs::statvfs(path)", 1);
    planted("node/src/chat.rs", "pub use ::quinn::Connection;", 1);
    planted("plane/src/lib.rs", "extern crate sled;", 1);
    planted("plane/src/store/embedded.rs", "use tokio_postgres::Row;", 1);
    planted("node/src/backend/ollama.rs", "let c = reqwest::Client::new();", 1);
    planted("node/src/api/sse.rs", "use hyper_util::rt::TokioIo;", 1);
    planted("node/src/seller.rs", "let t = std::time::Instant::now();", 1);
    planted("testnet/src/bench.rs", "SystemTime :: now()", 1);
    planted("node/src/net/task.rs", "use crate::market::quote;", 1);
    planted("node/src/net.rs", "use crate::{clock, market::quote};", 1);
    planted("node/src/net.rs", "use super::market;", 1);
    planted("node/src/market/auction.rs", "use crate::net::Net;", 1);
    planted("node/src/market/auction.rs", "use rand::Rng;", 1);
    planted("node/src/market/auction.rs", "fn f() { tracing::info!(\"x\") }", 1);
    planted("node/src/market/auction.rs", "use super::super::net;", 1);
    planted("node/src/market.rs", "use super::clock;", 1);
    planted("node/src/settlement/evm/step.rs", "use crate::clock; use tokio::time::sleep;", 2);
    planted("node/src/settlement/solana/payment.rs", "use crate::clock; use solana_sdk::hash::Hash;", 2);
    planted("node/src/settlement/solana/verify.rs", "let c = reqwest::Client::new();", 2);
    planted("node/src/clock.rs", "#[path = \"../../wire/src/id.rs\"] mod id;", 1);
}

#[test]
fn whoever_leaves_its_home_is_found() {
    for home in HOMES {
        for name in home.crates {
            let text = format!("use {name}::Thing;");
            planted("node/src/stranger.rs", &text, 1);
            home.at.iter().for_each(|at| planted(&format!("{}.rs", at.trim_end_matches(".rs")), &text, 0));
        }
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    planted("wire/src/codec.rs", "use serde_cbor::ser;", 0);
    planted("wire/src/lib.rs", "//! It knows nothing of tokio::time. /* sled::open */\npub mod id;", 0);
    planted(
        "wire/src/lib.rs",
        "const A: &str = \"use tokio::x \\\" quinn::y\"; const B: &str = r#\"sled::z\"#; const C: char = '\"'; const D: &[u8] = br#\"a\" tokio::x\"#;",
        0,
    );
    planted("node/src/clock.rs", "Instant::now()", 0);
    planted("node/src/store.rs", "mod sled; pub use self::sled::SledStore;", 0);
    planted(
        "node/src/market/auction.rs",
        "use crate::market::rank; use super::rank; use infernet_wire::bid::JobBid; use std::fmt;",
        0,
    );
    planted("node/src/market/auction.rs", "#[cfg(test)]\nmod tests { use proptest::x; fn f() { tokio::y() } }", 0);
    planted("node/src/market.rs", "pub mod rank; pub use rank::Score; #[cfg(test)] mod tests;", 0);
    planted("node/src/net.rs", "struct Supermarket; // crate::market", 0);
}

#[test]
fn planted_dependencies_are_found() {
    let check = |member, text: &str, expected: usize| {
        assert_eq!(check_manifest(member, &text.parse().expect("TOML")).len(), expected, "{member}: {text}");
    };
    check("node", "[dependencies]\ninfernet-relay.workspace = true", 1);
    check("node", "[target.'cfg(unix)'.dev-dependencies]\nx = { package = \"infernet-testnet\", path = \"../testnet\" }", 1);
    check("wire", "[build-dependencies]\ninfernet-node = { path = \"../node\" }", 1);
    check("relay", "[dependencies]\ninfernet-plane = \"1\"", 1);
    check("relay", "[dependencies]\ninfernet-node.workspace = true", 0);
    check("testnet", "[dependencies]\ninfernet-relay.workspace = true\ninfernet-plane.workspace = true", 0);
}
