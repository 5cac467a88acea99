//! `KIND=URL`: how an operator names an engine; the addresses and keys that the environment tells.

use super::{
    facts::{BackendKind, ENGINES},
    http::EngineUrl,
};
use std::{fmt, str::FromStr};

/// What an engine wants to hear from its clients. Never shown: neither by `Debug`, nor by a spec's text, nor in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The key in `text`; `None` if there is none. It must be fit for an HTTP header.
    fn read(text: &str) -> Result<Option<Self>, NotAKey> {
        let text = text.trim();
        let fit = text.chars().all(|c| c.is_ascii_graphic());
        match text {
            "" => Ok(None),
            _ if !fit => Err(NotAKey),
            _ => Ok(Some(ApiKey(text.into()))),
        }
    }

    /// For the header alone.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

/// A key holds what no header can.
struct NotAKey;

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// A kind of engine and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSpec {
    /// What it speaks.
    pub kind: BackendKind,
    pub(super) url: EngineUrl,
    /// What it wants to hear, if anything.
    pub(super) key: Option<ApiKey>,
    /// Whether it may be at an address where clouds tell their machines' secrets.
    pub(super) link_local: bool,
}

/// A spec that names no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSpec {
    /// There is no `=`.
    #[error("{0:?} names no backend: write KIND=URL, such as ollama=http://127.0.0.1:11434")]
    NoKind(String),
    /// The kind is not one of [`BackendKind`].
    #[error("unknown backend kind {0:?}: there is {known}", known = ENGINES.iter().map(|facts| facts.name).collect::<Vec<_>>().join(", "))]
    UnknownKind(String),
    /// Not a URL.
    #[error("{url:?} is not a backend's URL ({reason}): write something like http://127.0.0.1:11434")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another scheme than http and https.
    #[error("a backend's URL starts with http:// or https://, not {0}://")]
    Scheme(String),
    /// A user name or password, which would end up in logs. The URL is not repeated here for that reason.
    #[error("a backend's URL must not hold a user name or password; put the engine behind a local proxy that adds them")]
    Credentials,
    /// A query or fragment.
    #[error("{0:?} has a query or fragment, which a backend's URL can't have")]
    Extra(String),
    /// An address at which a cloud tells its machines' secrets.
    #[error("{0} is a link-local or metadata address, where no engine should be; if yours is, say --allow-link-local-engine")]
    LinkLocal(String),
    /// A key that no header can carry. It is not repeated.
    #[error("{0} holds a space or another character that no key has")]
    Key(&'static str),
}

impl BackendSpec {
    /// The engine of this kind at its usual place on this machine.
    pub fn usual(kind: BackendKind) -> Self {
        // Plain digits, so that it always parses.
        let url = EngineUrl::loopback(kind.facts().port);
        BackendSpec { kind, url, key: None, link_local: false }
    }

    /// The engine of this kind at `text`, in any form that `OLLAMA_HOST` may have: `host`, `host:port`, `:port`, a URL. An
    /// address to listen on (`0.0.0.0`) means this machine.
    pub fn at(kind: BackendKind, text: &str) -> Result<Self, BadSpec> {
        let text = text.trim().trim_matches(['"', '\'']).trim();
        let local = match text.strip_prefix(':') {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        let url = EngineUrl::parse(&local, kind.facts().port)?.reachable();
        Ok(BackendSpec { kind, url, key: None, link_local: false })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Whether it is on this machine, so that its memory and disk are this machine's.
    pub fn is_local(&self) -> bool {
        self.url.is_local()
    }

    /// With the key that its engine wants to hear.
    #[must_use]
    pub fn with_key(self, key: Option<ApiKey>) -> Self {
        BackendSpec { key, ..self }
    }

    /// The same, if its address may be asked: link-local addresses and those of clouds' metadata need the operator's word.
    pub fn allowed(self, link_local: bool) -> Result<Self, BadSpec> {
        match self.url.suspicious() {
            Some(host) if !link_local => Err(BadSpec::LinkLocal(host)),
            _ => Ok(BackendSpec { link_local, ..self }),
        }
    }
}

impl FromStr for BackendSpec {
    type Err = BadSpec;

    /// `KIND=URL`. A URL without a scheme is `http://` at the engine's own port, as in `OLLAMA_HOST`: `ollama=gpu-box` is
    /// `http://gpu-box:11434`.
    fn from_str(text: &str) -> Result<Self, BadSpec> {
        let (kind, url) = text.split_once('=').ok_or_else(|| BadSpec::NoKind(text.into()))?;
        let kind = BackendKind::named(kind.trim()).ok_or_else(|| BadSpec::UnknownKind(kind.into()))?;
        Ok(BackendSpec { kind, url: EngineUrl::parse(url.trim(), kind.facts().port)?, key: None, link_local: false })
    }
}

impl fmt::Display for BackendSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind.name(), self.url)
    }
}

/// What the environment says of engines, by their own variables: where each is, and its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineVariables {
    hosts: Vec<(BackendKind, String)>,
    keys: Vec<(BackendKind, ApiKey)>,
}

/// A variable that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadVariable {
    /// Which.
    pub name: &'static str,
    /// What it holds; nothing of a key.
    pub value: String,
    /// Why not.
    pub why: BadSpec,
}

impl EngineVariables {
    /// Reads them.
    pub fn read(env: impl Fn(&str) -> Option<String>) -> Result<Self, BadVariable> {
        let mut variables = EngineVariables::default();
        for facts in &ENGINES {
            if let Some(host) = env(facts.host_variable).filter(|host| !host.trim().is_empty()) {
                variables.hosts.push((facts.kind, host));
            }
            let name = facts.key_variable;
            let key = ApiKey::read(&env(name).unwrap_or_default());
            let key = key.map_err(|NotAKey| BadVariable { name, value: "what it is".into(), why: BadSpec::Key(name) })?;
            variables.keys.extend(key.map(|key| (facts.kind, key)));
        }
        Ok(variables)
    }

    /// The variables that say where an engine is.
    pub fn host_names(&self) -> Vec<&'static str> {
        self.hosts.iter().map(|(kind, _)| kind.facts().host_variable).collect()
    }

    /// Every engine at its place, for when the operator names none: first those whose variable is set, then the others at
    /// their usual places; in the order of [`ENGINES`].
    pub fn candidates(&self) -> Result<Vec<BackendSpec>, BadVariable> {
        let named = self.hosts.iter().map(|(kind, host)| {
            let name = kind.facts().host_variable;
            BackendSpec::at(*kind, host).map_err(|why| BadVariable { name, value: format!("{host:?}"), why })
        });
        let is_named = |kind: BackendKind| self.hosts.iter().any(|(named, _)| *named == kind);
        let usual = ENGINES.iter().filter(|facts| !is_named(facts.kind)).map(|facts| Ok(BackendSpec::usual(facts.kind)));
        named.chain(usual).collect()
    }

    /// The key that engines of this kind want.
    pub fn key(&self, kind: BackendKind) -> Option<ApiKey> {
        self.keys.iter().find(|(of, _)| *of == kind).map(|(_, key)| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        match text.parse::<BackendSpec>().and_then(|spec| spec.allowed(false)) {
            Ok(spec) => assert_eq!(spec.to_string(), expected, "{text}"),
            Err(error) => assert!(error.to_string().contains(expected), "{text}: {error}"),
        }
    }

    #[test]
    fn only_an_engine_on_this_machine_is_local() {
        let is_local = |spec: &str| spec.parse::<BackendSpec>().expect("a spec").is_local();
        for here in ["ollama=http://127.0.0.1:11434", "ollama=127.9.9.9", "vllm=http://[::1]:1", "max=localhost:8000"] {
            assert!(is_local(here), "{here}");
        }
        for elsewhere in ["ollama=http://10.0.0.5:11434", "ollama=https://gpu-box", "ollama=http://localhost.example:1"] {
            assert!(!is_local(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn missing_parts_are_those_of_ollama_host() {
        check("ollama=http://127.0.0.1:11434", "ollama=http://127.0.0.1:11434");
        check("ollama=127.0.0.1:8080", "ollama=http://127.0.0.1:8080");
        check("Ollama = localhost", "ollama=http://localhost:11434");
        check("ollama=[::1]", "ollama=http://[::1]:11434");
        check("ollama=http://gpu-box", "ollama=http://gpu-box");
        check("ollama=https://gpu-box/engines/a/", "ollama=https://gpu-box/engines/a");
        check("vllm=gpu-box", "vllm=http://gpu-box:8000");
        check("sglang=gpu-box", "sglang=http://gpu-box:30000");
        check("MAX=gpu-box", "max=http://gpu-box:8000");
        check("llamacpp=gpu-box", "llamacpp=http://gpu-box:8080");
    }

    #[test]
    fn mistakes_are_explained() {
        check("http://127.0.0.1:11434", "KIND=URL");
        check("tgi=http://127.0.0.1:8000", "unknown backend kind \"tgi\": there is ollama, vllm, sglang, max, llamacpp");
        check("ollama=", "is not a backend's URL");
        check("ollama=http://", "is not a backend's URL");
        check("ollama=:11434", "is not a backend's URL");
        check("ollama=http://a:99999", "is not a backend's URL");
        check("ollama=file:///etc/passwd", "not file://");
        check("ollama=ftp://a/b", "not ftp://");
        check("ollama=http://a/?x=1", "query or fragment");
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        let error = "ollama=http://me:hunter2@a".parse::<BackendSpec>().expect_err("credentials").to_string();
        assert!(!error.contains("hunter2") && error.contains("password"), "{error}");
    }

    #[test]
    fn places_of_secrets_need_the_operators_word() {
        for url in [
            "http://169.254.169.254",
            "http://169.254.1.2:8000",
            "http://2852039166",
            "http://0xa9.0xfe.0xa9.0xfe",
            "http://[fe80::1]:8000",
            "http://[::ffff:169.254.169.254]",
            "http://[64:ff9b::a9fe:a9fe]",
            "http://[fd00:ec2::254]",
            "http://100.100.100.200",
            "http://metadata.google.internal",
            "http://METADATA.google.internal./x",
            "http://instance-data",
        ] {
            let text = format!("vllm={url}");
            check(&text, "--allow-link-local-engine");
            assert!(text.parse::<BackendSpec>().expect("a spec").allowed(true).is_ok(), "{url}");
        }
        check("vllm=http://10.0.0.5:8000", "vllm=http://10.0.0.5:8000");
        check("vllm=http://[fd00::1]:8000", "vllm=http://[fd00::1]:8000");
    }

    fn variables(env: &[(&str, &str)]) -> Result<EngineVariables, BadVariable> {
        EngineVariables::read(|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn candidates(env: &[(&str, &str)]) -> Vec<String> {
        variables(env).expect("read").candidates().expect("specs").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_variables_each_engine_is_looked_for_at_its_usual_place() {
        let usual = [
            "ollama=http://127.0.0.1:11434",
            "vllm=http://127.0.0.1:8000",
            "sglang=http://127.0.0.1:30000",
            "max=http://127.0.0.1:8000",
            "llamacpp=http://127.0.0.1:8080",
        ];
        assert_eq!(candidates(&[]), usual);
        assert_eq!(candidates(&[("OLLAMA_HOST", " ")]), usual);
    }

    #[test]
    fn what_a_variable_names_comes_first() {
        let found = candidates(&[("LLAMACPP_HOST", "gpu:9"), ("MODULAR_MAX_HOST", "https://max.example/x")]);
        assert_eq!(found[..3], ["max=https://max.example/x", "llamacpp=http://gpu:9", "ollama=http://127.0.0.1:11434"]);
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn ollama_host_means_what_ollama_means_by_it() {
        let check = |text: &str, expected: &str| {
            assert_eq!(candidates(&[("OLLAMA_HOST", text)]).first().map(String::as_str), Some(expected), "{text}");
        };
        check("gpu-box", "ollama=http://gpu-box:11434");
        check("gpu-box:1234", "ollama=http://gpu-box:1234");
        check(":1234", "ollama=http://127.0.0.1:1234");
        check("0.0.0.0", "ollama=http://127.0.0.1:11434");
        check("0.0.0.0:1234", "ollama=http://127.0.0.1:1234");
        check("[::]:1234", "ollama=http://[::1]:1234");
        check("[::1]", "ollama=http://[::1]:11434");
        check("http://gpu-box", "ollama=http://gpu-box");
        check("https://gpu-box:443/ollama/", "ollama=https://gpu-box/ollama");
        check("\"gpu-box\"", "ollama=http://gpu-box:11434");
    }

    #[test]
    fn a_bad_variable_is_named() {
        let bad = variables(&[("VLLM_HOST", "http://")]).expect("read").candidates().expect_err("no URL");
        assert_eq!((bad.name, bad.value.as_str()), ("VLLM_HOST", "\"http://\""));
        let bad = variables(&[("VLLM_API_KEY", "hunter2 x")]).expect_err("a space");
        let text = format!("{bad:?} {}", bad.why);
        assert!(text.contains("VLLM_API_KEY") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn keys_are_kept_and_never_shown() {
        let variables = variables(&[("SGLANG_API_KEY", "hunter2")]).expect("read");
        assert_eq!(variables.key(BackendKind::Vllm), None);
        let spec = BackendSpec::usual(BackendKind::Sglang).with_key(variables.key(BackendKind::Sglang));
        assert_eq!(spec.key.as_ref().map(ApiKey::secret), Some("hunter2"));
        let shown = format!("{variables:?} {spec:?} {spec}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
