//! JSON-RPC to a chain's node, whichever chain. Every question has a deadline and a bound; an endpoint's path, query and password
//! are credentials, and are in no error, log or `Debug`.

use crate::cause;
use reqwest::{Client, Response, Url, redirect::Policy};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{fmt, str::FromStr, time::Duration};
use tokio::time::timeout;

/// To accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// From question to the end of the answer: public nodes take a second or two under load.
const ANSWER: Duration = Duration::from_secs(15);
/// The longest answer that is read: a block's header with its transactions' hashes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// The same for logs: those of one block must fit, whoever fills it. An opening is a kilobyte of JSON and costs fifty thousand gas:
/// that is a block of eight hundred million.
pub const MAX_LOGS_BYTES: usize = 16 * MAX_ANSWER_BYTES;
/// Characters of a node's message that are kept: two sentences.
const MAX_MESSAGE_CHARS: usize = 300;

/// Where a chain's node answers. Shown without what may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The text itself may be a secret: it is not repeated.
        let fix = "write the URL of the chain's node, such as https://rpc.example/v1/KEY or http://127.0.0.1:8545";
        let url = Url::parse(text).map_err(|error| format!("{error}: {fix}"))?;
        let known = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
        if known { Ok(Endpoint(url)) } else { Err(format!("only http and https are spoken: {fix}")) }
    }
}

/// What an answer is that can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not what was asked for.
    #[error("something else")]
    Other,
    /// Longer than is read.
    #[error("more than {} MiB", .most >> 20)]
    TooLong {
        /// Bytes that are read.
        most: usize,
    },
}

/// Why a chain's node did not tell what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// There can't be a client.
    #[error("can't use TLS here: {0}")]
    Client(String),
    /// It can't be reached.
    #[error("the chain's node at {node} can't be reached: {reason}")]
    Unreachable {
        /// Which.
        node: String,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("the chain's node at {node} did not answer within {} s", ANSWER.as_secs())]
    Silent {
        /// Which.
        node: String,
    },
    /// It answers with something else, or too much.
    #[error("the chain's node at {node} answers {method} with {with}")]
    Malformed {
        /// Which.
        node: String,
        /// What it was asked.
        method: &'static str,
        /// What it answers.
        with: Unusable,
    },
    /// It answers with another status: a wrong key, too many questions.
    #[error("the chain's node at {node} answers with HTTP {status}; is its key right, and is its limit not used up?")]
    Status {
        /// Which.
        node: String,
        /// The HTTP status.
        status: u16,
    },
    /// It refuses.
    #[error("the chain's node at {node} refuses {method}: {message}")]
    Refused {
        /// Which.
        node: String,
        /// What it was asked.
        method: &'static str,
        /// In its words.
        message: String,
        /// What an EVM contract gave as its reason.
        data: Vec<u8>,
    },
    /// It is on another chain.
    #[error("the node at {node} is on chain {found}, not on {wanted}: name an endpoint of chain {wanted}")]
    WrongChain {
        /// Which.
        node: String,
        /// The chain that is meant.
        wanted: String,
        /// The one it is on.
        found: String,
    },
}

/// A chain's node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JsonRpc {
    endpoint: Endpoint,
    client: Client,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Value,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    message: String,
    #[serde(default)]
    data: Value,
}

impl JsonRpc {
    /// The node at `endpoint`. It is not asked yet.
    pub fn new(endpoint: Endpoint) -> Result<Self, RpcError> {
        let builder = Client::builder()
            // Credentials go nowhere else.
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(concat!("infernet/", env!("CARGO_PKG_VERSION")));
        // A chain's node on one's own machine needs no certificates, and no proxy is between.
        let plain = endpoint.0.scheme() == "http";
        let builder = if plain { builder.tls_certs_only([]).no_proxy() } else { builder };
        let client = builder.build().map_err(|error| RpcError::Client(cause::root(&error.without_url())))?;
        Ok(JsonRpc { endpoint, client })
    }

    /// Where it is, without what may be secret.
    pub fn node(&self) -> String {
        self.endpoint.to_string()
    }

    /// Asks `method`, and returns the result.
    pub async fn ask(&self, method: &'static str, params: Value) -> Result<Value, RpcError> {
        self.ask_for(MAX_ANSWER_BYTES, method, params).await
    }

    /// The same, and reads so many bytes at most.
    pub async fn ask_for(&self, most: usize, method: &'static str, params: Value) -> Result<Value, RpcError> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answered = async {
            let response = self.client.post(self.endpoint.0.clone()).json(&body).send().await;
            let response = response.map_err(|error| self.unreachable(error))?;
            let status = response.status();
            let read = self.read(response, most, method).await?;
            match serde_json::from_slice::<Answer>(&read) {
                Ok(Answer { error: Some(failure), .. }) => Err(self.refused(method, &failure)),
                Ok(answer) if status.is_success() => Ok(answer.result),
                _ if !status.is_success() => Err(RpcError::Status { node: self.node(), status: status.as_u16() }),
                _ => Err(self.malformed(method)),
            }
        };
        timeout(ANSWER, answered).await.map_err(|_| RpcError::Silent { node: self.node() })?
    }

    async fn read(&self, mut response: Response, most: usize, method: &'static str) -> Result<Vec<u8>, RpcError> {
        let mut read = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if read.len() + chunk.len() > most {
                return Err(RpcError::Malformed { node: self.node(), method, with: Unusable::TooLong { most } });
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read)
    }

    fn refused(&self, method: &'static str, failure: &Failure) -> RpcError {
        let mut message: String = failure.message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE_CHARS).collect();
        for secret in self.secrets() {
            message = message.replace(&secret, "…");
        }
        // geth gives the data itself, others put it into an object.
        let data = hex_bytes(&failure.data).or_else(|| failure.data.get("data").and_then(hex_bytes)).unwrap_or_default();
        RpcError::Refused { node: self.node(), method, message, data }
    }

    /// The parts of the URL that a node might repeat.
    fn secrets(&self) -> Vec<String> {
        let url = &self.endpoint.0;
        let parts = url.path_segments().into_iter().flatten().chain(url.query()).chain(url.password()).chain([url.username()]);
        // Shorter ones are words such as "v1".
        parts.filter(|part| part.len() >= 8).map(str::to_owned).collect()
    }

    /// The answer to `method` makes no sense.
    pub fn malformed(&self, method: &'static str) -> RpcError {
        RpcError::Malformed { node: self.node(), method, with: Unusable::Other }
    }

    fn unreachable(&self, error: reqwest::Error) -> RpcError {
        RpcError::Unreachable { node: self.node(), reason: cause::root(&error.without_url()) }
    }
}

/// Bytes in hex behind "0x"; `None` if they are something else.
pub fn hex_bytes(value: &Value) -> Option<Vec<u8>> {
    hex::decode(value.as_str()?.strip_prefix("0x")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(url: &str) -> JsonRpc {
        JsonRpc::new(url.parse().expect("a URL")).expect("a client")
    }

    #[test]
    fn an_endpoints_secrets_are_shown_nowhere() {
        let endpoint: Endpoint = "https://user:pass-pass@rpc.example/v3/0123456789abcdef?key=fedcba987".parse().expect("a URL");
        for shown in [endpoint.to_string(), format!("{endpoint:?}")] {
            assert_eq!(shown, "https://rpc.example");
        }
        for bad in ["secret-secret", "ftp://secret-secret", ""] {
            let error = bad.parse::<Endpoint>().expect_err(bad);
            assert!(error.contains("https://rpc.example") && !error.contains("secret"), "{error}");
        }
        let rpc = rpc("http://user:pass-pass@127.0.0.1:1/v3/0123456789abcdef?key=fedcba987");
        assert!(!format!("{rpc:?}").contains("0123456789abcdef"));
        let told = "no project 0123456789abcdef, pass-pass, key=fedcba987\u{1b}";
        let refused = rpc.refused("eth_call", &Failure { message: told.into(), data: Value::Null });
        assert_eq!(refused.to_string(), "the chain's node at http://127.0.0.1:1 refuses eth_call: no project …, …, …");
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_named_without_its_key() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // Port 1 of loopback: nobody listens.
        let error = rpc("http://127.0.0.1:1/v3/0123456789abcdef").ask("eth_chainId", json!([])).await.expect_err("nobody");
        assert!(error.to_string().starts_with("the chain's node at http://127.0.0.1:1 can't be reached"), "{error}");
        assert!(!format!("{error:?}").contains("0123456789abcdef"));
    }
}
