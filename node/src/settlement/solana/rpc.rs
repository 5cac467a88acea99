//! JSON-RPC to a node of a Solana cluster: how it tells heights, blockhashes, statuses and balances.

use super::{
    payment::{Facts, Recent},
    transaction::{Address, Blockhash, TxSignature},
    verify::statuses,
};
use crate::settlement::json_rpc::{Endpoint, JsonRpc, RpcError};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// A cluster, by the hash of its first block. Shown in base58, as nodes tell it.
pub type Genesis = Address;

/// What a node may be asked for at: a block that two thirds have voted for. It is taken back only if many of them cheat.
const CONFIRMED: &str = "confirmed";
/// A block that 31 others have been built upon: it stays.
const FINALIZED: &str = "finalized";

/// A node of a cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rpc {
    rpc: JsonRpc,
    genesis: Genesis,
}

impl Rpc {
    /// The node at `endpoint`, which must be of the cluster that began with `genesis`. It is not asked yet.
    pub fn new(endpoint: Endpoint, genesis: Genesis) -> Result<Self, RpcError> {
        Ok(Rpc { rpc: JsonRpc::new(endpoint)?, genesis })
    }

    /// Where it is, without what may be secret.
    pub fn node(&self) -> String {
        self.rpc.node()
    }

    /// Asks which cluster the node is of, and refuses any but ours.
    pub async fn check_cluster(&self) -> Result<(), RpcError> {
        const METHOD: &str = "getGenesisHash";
        let found = self.rpc.ask(METHOD, json!([])).await?;
        let found = found.as_str().and_then(|text| text.parse::<Genesis>().ok()).ok_or_else(|| self.rpc.malformed(METHOD))?;
        if found == self.genesis {
            return Ok(());
        }
        Err(RpcError::WrongChain { node: self.node(), wanted: self.genesis.to_string(), found: found.to_string() })
    }

    /// What the node shows of a payment with these attempts. The finalized height is read first: see [`super::payment`].
    pub async fn facts(&self, attempts: &[TxSignature]) -> Result<Facts, RpcError> {
        self.check_cluster().await?;
        let height = self.height().await?;
        let recent = self.recent().await?;
        let seen = if attempts.is_empty() { Vec::new() } else { self.seen(attempts).await? };
        Ok(Facts { height, recent, seen })
    }

    async fn height(&self) -> Result<u64, RpcError> {
        const METHOD: &str = "getBlockHeight";
        let answer = self.rpc.ask(METHOD, json!([{ "commitment": FINALIZED }])).await?;
        answer.as_u64().ok_or_else(|| self.rpc.malformed(METHOD))
    }

    async fn recent(&self) -> Result<Recent, RpcError> {
        const METHOD: &str = "getLatestBlockhash";
        let answer = self.rpc.ask(METHOD, json!([{ "commitment": CONFIRMED }])).await?;
        let read = || {
            let hash: Address = answer.pointer("/value/blockhash")?.as_str()?.parse().ok()?;
            Some(Recent { blockhash: Blockhash(hash.0), last_valid: answer.pointer("/value/lastValidBlockHeight")?.as_u64()? })
        };
        read().ok_or_else(|| self.rpc.malformed(METHOD))
    }

    async fn seen(&self, attempts: &[TxSignature]) -> Result<Vec<super::payment::Seen>, RpcError> {
        const METHOD: &str = "getSignatureStatuses";
        let shown: Vec<_> = attempts.iter().map(TxSignature::to_string).collect();
        let answer = self.rpc.ask(METHOD, json!([shown, { "searchTransactionHistory": true }])).await?;
        statuses(attempts, &answer).ok_or_else(|| self.rpc.malformed(METHOD))
    }

    /// Hands a transaction to the cluster. That the node took it says nothing.
    pub async fn send(&self, raw: &[u8]) -> Result<(), RpcError> {
        let how = json!({ "encoding": "base64", "preflightCommitment": CONFIRMED, "maxRetries": 0 });
        self.rpc.ask("sendTransaction", json!([BASE64_STANDARD.encode(raw), how])).await.map(drop)
    }

    /// A final transaction as the node shows it, for [`super::verify`]; null if it knows none.
    pub async fn transaction(&self, signature: &TxSignature) -> Result<Value, RpcError> {
        let how = json!({ "encoding": "base64", "commitment": FINALIZED, "maxSupportedTransactionVersion": 0 });
        self.rpc.ask("getTransaction", json!([signature.to_string(), how])).await
    }

    /// What a wallet has, in lamports.
    pub async fn lamports(&self, wallet: &Address) -> Result<u64, RpcError> {
        const METHOD: &str = "getBalance";
        let answer = self.rpc.ask(METHOD, json!([wallet.to_string(), { "commitment": CONFIRMED }])).await?;
        answer.get("value").and_then(Value::as_u64).ok_or_else(|| self.rpc.malformed(METHOD))
    }

    /// What an account of tokens holds, in the mint's smallest unit; `None` if there is no such account.
    pub async fn tokens(&self, account: &Address) -> Result<Option<u64>, RpcError> {
        const METHOD: &str = "getTokenAccountBalance";
        if !self.exists(account).await? {
            return Ok(None);
        }
        let answer = self.rpc.ask(METHOD, json!([account.to_string(), { "commitment": CONFIRMED }])).await?;
        let amount = answer.pointer("/value/amount").and_then(Value::as_str).and_then(|text| text.parse().ok());
        amount.map(Some).ok_or_else(|| self.rpc.malformed(METHOD))
    }

    async fn exists(&self, account: &Address) -> Result<bool, RpcError> {
        const METHOD: &str = "getAccountInfo";
        let how = json!({ "encoding": "base64", "commitment": CONFIRMED, "dataSlice": { "offset": 0, "length": 0 } });
        let answer = self.rpc.ask(METHOD, json!([account.to_string(), how])).await?;
        answer.get("value").map(|value| !value.is_null()).ok_or_else(|| self.rpc.malformed(METHOD))
    }
}
