//! JSON-RPC to an EVM chain's node: how it writes numbers, bytes and receipts.

pub use crate::settlement::json_rpc::{Endpoint, RpcError, Unusable};

use crate::settlement::json_rpc::{JsonRpc, MAX_LOGS_BYTES, hex_bytes as bytes};
use infernet_wire::evm::EvmAddress;
use serde_json::{Value, json};

/// Blocks in one question for logs: what the strictest public nodes take.
pub const MAX_LOG_BLOCKS: u64 = 1_000;

/// An EVM chain's node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rpc {
    rpc: JsonRpc,
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

impl Rpc {
    /// The node at `endpoint`, which must be on `chain`. It is not asked yet.
    pub fn new(endpoint: Endpoint, chain: u64) -> Result<Self, RpcError> {
        Ok(Rpc { rpc: JsonRpc::new(endpoint)?, chain })
    }

    /// The chain that is meant.
    pub fn chain(&self) -> u64 {
        self.chain
    }

    /// Asks which chain the node is on, and refuses any but ours.
    pub async fn check_chain(&self) -> Result<(), RpcError> {
        let found = self.quantity("eth_chainId", json!([])).await?;
        let found = u64::try_from(found).map_err(|_| self.malformed("eth_chainId"))?;
        if found == self.chain {
            return Ok(());
        }
        Err(RpcError::WrongChain { node: self.rpc.node(), wanted: self.chain.to_string(), found: found.to_string() })
    }

    /// Asks `method`, and returns the result.
    pub async fn ask(&self, method: &'static str, params: Value) -> Result<Value, RpcError> {
        self.rpc.ask(method, params).await
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
    /// for any. Nodes refuse too many blocks at once: [`MAX_LOG_BLOCKS`] are what all take. Logs of other contracts or blocks, which
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
        let result = self.rpc.ask_for(MAX_LOGS_BYTES, METHOD, json!([filter])).await?;
        let ours = |log: &Value| log.get("address").and_then(bytes).is_some_and(|address| address == contract.0);
        let read = |log: &Value| Log::read(log).filter(|read| ours(log) && (from..=to).contains(&read.block));
        let read = result.as_array().and_then(|logs| logs.iter().map(read).collect::<Option<Vec<_>>>());
        let mut logs = read.ok_or_else(|| self.malformed(METHOD))?;
        logs.sort_by_key(|log| (log.block, log.index));
        Ok(logs)
    }

    /// The answer to `method` makes no sense.
    pub fn malformed(&self, method: &'static str) -> RpcError {
        self.rpc.malformed(method)
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

#[cfg(test)]
mod tests {
    use super::*;

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
