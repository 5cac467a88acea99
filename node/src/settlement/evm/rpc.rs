//! JSON-RPC to a chain's node. Every question has a deadline and a bound; an endpoint's path, query and password are credentials,
//! and are in no error, log or `Debug`.

use crate::cause;
use infernet_wire::evm::EvmAddress;
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
/// Characters of a node's message that are kept: two sentences.
const MAX_MESSAGE_CHARS: usize = 300;

/// Blocks in one question for logs: what the strictest public nodes take.
pub const MAX_LOG_BLOCKS: u64 = 1_000;

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
    /// It answers with something else.
    #[error("the chain's node at {node} answers {method} with something else")]
    Malformed {
        /// Which.
        node: String,
        /// What it was asked.
        method: &'static str,
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
        /// What a contract gave as its reason.
        data: Vec<u8>,
    },
    /// It is on another chain.
    #[error("the node at {node} is on chain {found}, not on {wanted}: name an endpoint of chain {wanted}")]
    WrongChain {
        /// Which.
        node: String,
        /// The chain that is meant.
        wanted: u64,
        /// The one it is on.
        found: u64,
    },
}

/// A chain's node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rpc {
    endpoint: Endpoint,
    client: Client,
    chain: u64,
}

/// What a node says of a mined transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The number of its block.
    pub block: u64,
    /// The hash of its block.
    pub block_hash: [u8; 32],
    /// Whether it did what it should; else it was reverted, and only its gas was paid.
    pub success: bool,
    /// Gas that it took.
    pub gas_used: u64,
}

/// What a contract said in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The number of its block.
    pub block: u64,
    /// The hash of its block.
    pub block_hash: [u8; 32],
    /// The transaction.
    pub transaction: [u8; 32],
    /// Its place in the block.
    pub index: u64,
    /// The hash of the event, and the fields that can be asked for.
    pub topics: Vec<[u8; 32]>,
    /// The other fields.
    pub data: Vec<u8>,
}

impl Log {
    fn read(log: &Value) -> Option<Self> {
        let number = |field: &str| log.get(field).and_then(quantity).and_then(|number| u64::try_from(number).ok());
        let hash = |value: &Value| bytes(value)?.try_into().ok();
        Some(Log {
            block: number("blockNumber")?,
            block_hash: hash(log.get("blockHash")?)?,
            transaction: hash(log.get("transactionHash")?)?,
            index: number("logIndex")?,
            topics: log.get("topics")?.as_array()?.iter().map(hash).collect::<Option<_>>()?,
            data: log.get("data").and_then(bytes)?,
        })
    }
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

impl Rpc {
    /// The node at `endpoint`, which must be on `chain`. It is not asked yet.
    pub fn new(endpoint: Endpoint, chain: u64) -> Result<Self, RpcError> {
        let builder = Client::builder()
            // Credentials go nowhere else.
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(concat!("infernet/", env!("CARGO_PKG_VERSION")));
        // A chain's node on one's own machine needs no certificates, and no proxy is between.
        let plain = endpoint.0.scheme() == "http";
        let builder = if plain { builder.tls_certs_only([]).no_proxy() } else { builder };
        let client = builder.build().map_err(|error| RpcError::Client(cause::root(&error.without_url())))?;
        Ok(Rpc { endpoint, client, chain })
    }

    /// The chain that is meant.
    pub fn chain(&self) -> u64 {
        self.chain
    }

    /// Asks which chain the node is on, and refuses any but ours.
    pub async fn check_chain(&self) -> Result<(), RpcError> {
        let found = self.quantity("eth_chainId", json!([])).await?;
        let found = u64::try_from(found).map_err(|_| self.malformed("eth_chainId"))?;
        if found == self.chain { Ok(()) } else { Err(RpcError::WrongChain { node: self.node(), wanted: self.chain, found }) }
    }

    /// Asks `method`, and returns the result.
    pub async fn ask(&self, method: &'static str, params: Value) -> Result<Value, RpcError> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answered = async {
            let response = self.client.post(self.endpoint.0.clone()).json(&body).send().await;
            let response = response.map_err(|error| self.unreachable(error))?;
            let status = response.status();
            let read = self.read(response, method).await?;
            match serde_json::from_slice::<Answer>(&read) {
                Ok(Answer { error: Some(failure), .. }) => Err(self.refused(method, &failure)),
                Ok(answer) if status.is_success() => Ok(answer.result),
                _ if !status.is_success() => Err(RpcError::Status { node: self.node(), status: status.as_u16() }),
                _ => Err(self.malformed(method)),
            }
        };
        timeout(ANSWER, answered).await.map_err(|_| RpcError::Silent { node: self.node() })?
    }

    /// Asks for a number.
    pub async fn quantity(&self, method: &'static str, params: Value) -> Result<u128, RpcError> {
        let result = self.ask(method, params).await?;
        quantity(&result).ok_or_else(|| self.malformed(method))
    }

    /// Asks for a number of 64 bits.
    pub async fn count(&self, method: &'static str, params: Value) -> Result<u64, RpcError> {
        self.quantity(method, params).await?.try_into().map_err(|_| self.malformed(method))
    }

    /// Asks for bytes.
    pub async fn bytes(&self, method: &'static str, params: Value) -> Result<Vec<u8>, RpcError> {
        let result = self.ask(method, params).await?;
        bytes(&result).ok_or_else(|| self.malformed(method))
    }

    /// What became of a transaction; `None` while it is in no block.
    pub async fn receipt(&self, hash: &[u8; 32]) -> Result<Option<Receipt>, RpcError> {
        const METHOD: &str = "eth_getTransactionReceipt";
        let result = self.ask(METHOD, json!([shown(hash)])).await?;
        if result.is_null() {
            return Ok(None);
        }
        let number = |field: &str| result.get(field).and_then(quantity).and_then(|number| u64::try_from(number).ok());
        let read = || {
            Some(Receipt {
                block: number("blockNumber")?,
                block_hash: result.get("blockHash").and_then(bytes)?.try_into().ok()?,
                success: number("status")? == 1,
                gas_used: number("gasUsed")?,
            })
        };
        read().map(Some).ok_or_else(|| self.malformed(METHOD))
    }

    /// What `contract` said in the blocks `from` to `to`, both included, in their order. `topics`: the event, then its fields; `None`
    /// for any. Nodes refuse too many blocks at once: ask for [`MAX_LOG_BLOCKS`] at most. Logs of other contracts or blocks, which
    /// nobody asked for, make the answer malformed.
    pub async fn logs(
        &self,
        contract: &EvmAddress,
        topics: &[Option<[u8; 32]>],
        (from, to): (u64, u64),
    ) -> Result<Vec<Log>, RpcError> {
        const METHOD: &str = "eth_getLogs";
        let topics: Vec<_> = topics.iter().map(|topic| topic.as_ref().map(|topic| shown(topic))).collect();
        let [from_block, to_block] = [from, to].map(|block| shown_quantity(block.into()));
        let filter =
            json!({ "address": shown_address(contract), "topics": topics, "fromBlock": from_block, "toBlock": to_block });
        let result = self.ask(METHOD, json!([filter])).await?;
        let ours = |log: &Value| log.get("address").and_then(bytes).is_some_and(|address| address == contract.0);
        let read = |log: &Value| Log::read(log).filter(|read| ours(log) && (from..=to).contains(&read.block));
        let read = result.as_array().and_then(|logs| logs.iter().map(read).collect::<Option<Vec<_>>>());
        let mut logs = read.ok_or_else(|| self.malformed(METHOD))?;
        logs.sort_by_key(|log| (log.block, log.index));
        Ok(logs)
    }

    async fn read(&self, mut response: Response, method: &'static str) -> Result<Vec<u8>, RpcError> {
        let mut read = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if read.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.malformed(method));
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
        let data = bytes(&failure.data).or_else(|| failure.data.get("data").and_then(bytes)).unwrap_or_default();
        RpcError::Refused { node: self.node(), method, message, data }
    }

    /// The parts of the URL that a node might repeat.
    fn secrets(&self) -> Vec<String> {
        let url = &self.endpoint.0;
        let parts = url.path_segments().into_iter().flatten().chain(url.query()).chain(url.password()).chain([url.username()]);
        // Shorter ones are words such as "v1".
        parts.filter(|part| part.len() >= 8).map(str::to_owned).collect()
    }

    fn node(&self) -> String {
        self.endpoint.to_string()
    }

    /// The answer to `method` makes no sense.
    pub fn malformed(&self, method: &'static str) -> RpcError {
        RpcError::Malformed { node: self.node(), method }
    }

    fn unreachable(&self, error: reqwest::Error) -> RpcError {
        RpcError::Unreachable { node: self.node(), reason: cause::root(&error.without_url()) }
    }
}

/// Bytes as JSON-RPC writes them.
pub fn shown(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// An address as JSON-RPC writes it.
pub fn shown_address(address: &EvmAddress) -> String {
    shown(&address.0)
}

/// A number as JSON-RPC writes it.
pub fn shown_quantity(number: u128) -> String {
    format!("{number:#x}")
}

/// A number as JSON-RPC writes it; `None` if it is none, or of more than 128 bits.
pub fn quantity(value: &Value) -> Option<u128> {
    u128::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    hex::decode(value.as_str()?.strip_prefix("0x")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(url: &str) -> Rpc {
        Rpc::new(url.parse().expect("a URL"), 1).expect("a client")
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
        let error = rpc("http://127.0.0.1:1/v3/0123456789abcdef").check_chain().await.expect_err("nobody");
        assert!(error.to_string().starts_with("the chain's node at http://127.0.0.1:1 can't be reached"), "{error}");
        assert!(!format!("{error:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn numbers_and_bytes_as_json_rpc_writes_them() {
        assert_eq!(quantity(&json!("0x1a")), Some(26));
        assert_eq!(shown_quantity(26), "0x1a");
        for bad in [json!("1a"), json!(26), json!("0x"), json!("0xg"), json!(null), json!(format!("0x1{}", "0".repeat(32)))] {
            assert_eq!(quantity(&bad), None, "{bad}");
        }
        assert_eq!(bytes(&json!("0x")), Some(vec![]));
        assert_eq!(bytes(&json!("0x0aff")), Some(vec![10, 255]));
        assert_eq!(bytes(&json!("0x0af")), None);
    }
}
