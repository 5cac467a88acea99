//! `KIND=URL`: how an operator names an engine.

use super::http::EngineUrl;
use std::{fmt, str::FromStr};

/// The engines that exist today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// Ollama's own API (`/api/chat`).
    Ollama,
}

impl BackendKind {
    const ALL: [BackendKind; 1] = [BackendKind::Ollama];

    /// Its name in a spec.
    pub const fn name(self) -> &'static str {
        match self {
            BackendKind::Ollama => "ollama",
        }
    }

    /// The port that it listens on unless told otherwise.
    const fn default_port(self) -> u16 {
        match self {
            BackendKind::Ollama => 11434,
        }
    }
}

/// A kind of engine and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSpec {
    /// What it speaks.
    pub kind: BackendKind,
    pub(super) url: EngineUrl,
}

/// A spec that names no engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSpec {
    /// There is no `=`.
    #[error("{0:?} names no backend: write KIND=URL, such as ollama=http://127.0.0.1:11434")]
    NoKind(String),
    /// The kind is not one of [`BackendKind`].
    #[error("unknown backend kind {0:?}: there is {known}", known = BackendKind::ALL.map(BackendKind::name).join(", "))]
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
}

impl FromStr for BackendSpec {
    type Err = BadSpec;

    /// `KIND=URL`. A URL without a scheme is `http://` at the engine's own port, as in `OLLAMA_HOST`: `ollama=gpu-box` is
    /// `http://gpu-box:11434`.
    fn from_str(text: &str) -> Result<Self, BadSpec> {
        let (kind, url) = text.split_once('=').ok_or_else(|| BadSpec::NoKind(text.into()))?;
        let kind = BackendKind::ALL
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(kind.trim()))
            .ok_or_else(|| BadSpec::UnknownKind(kind.into()))?;
        Ok(BackendSpec { kind, url: EngineUrl::parse(url.trim(), kind.default_port())? })
    }
}

impl fmt::Display for BackendSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind.name(), self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        match text.parse::<BackendSpec>() {
            Ok(spec) => assert_eq!(spec.to_string(), expected, "{text}"),
            Err(error) => assert!(error.to_string().contains(expected), "{text}: {error}"),
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
    }

    #[test]
    fn mistakes_are_explained() {
        check("http://127.0.0.1:11434", "KIND=URL");
        check("vllm=http://127.0.0.1:8000", "unknown backend kind \"vllm\": there is ollama");
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
}
