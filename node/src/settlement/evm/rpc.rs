//! JSON-RPC to an EVM chain's node: how it writes numbers, bytes and receipts.

pub use crate::settlement::json_rpc::{Endpoint, RpcError};

use crate::settlement::json_rpc::{JsonRpc, hex_bytes as bytes};
use infernet_wire::evm::EvmAddress;
use serde_json::{Value, json};

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
