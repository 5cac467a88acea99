//! The node's account on a chain: looks, lets [`super::step`] decide, keeps, sends. Thin.
//!
//! One step of an account is driven at a time: whoever owns the wallet sees to that. What is decided does not depend on what a node
//! answers to a send: whether it took it, knew it or dropped it shows in the blocks.

use super::{
    contract::{self, Channel, Channels},
    rpc::{Receipt, Rpc, RpcError, quantity, shown, shown_address, shown_quantity},
    sole::Shared,
    step::{Facts, Next, Rules, Stage, Step},
    transaction::{Call, TxHash},
};
use crate::clock;
use infernet_wire::{
    evm::{EvmAddress, keccak},
    id::ChannelId,
    key::NodeKey,
};
use serde_json::{Value, json};
use std::{future::Future, time::Duration};
use tracing::{debug, warn};

/// The most gas that a call may take: a token with a proxy and a slow transfer takes a third of it.
const MAX_GAS: u64 = 500_000;
const BLOCK: &str = "eth_getBlockByNumber";
/// In wei.
const GWEI: u128 = 1_000_000_000;
/// Gas in percent of what the node estimates: a channel's words may turn from zero to something in between.
const GAS_PERCENT: u64 = 125;

/// Why a payment can't go on. Nothing is lost: a step that was kept goes on later.
#[derive(Debug, thiserror::Error)]
pub enum EvmError {
    /// The chain's node.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The contract would refuse.
    #[error("the contract would refuse: {0}")]
    Refused(&'static str),
    /// More gas than such a call can honestly need.
    #[error("the call would take {needed} gas, more than {MAX_GAS}: is the token what it says it is?")]
    TooMuchGas {
        /// The estimate.
        needed: u64,
    },
    /// Another program at the contract's address.
    #[error("the code at {contract} is not that of Channels: is the address right, and on this chain?")]
    NotOurContract {
        /// The address.
        contract: EvmAddress,
    },
    /// Gas costs more than may be paid.
    #[error("gas costs {} gwei, more than evm_max_gwei allows: it waits until it is cheaper", .base_fee / GWEI)]
    TooDear {
        /// In wei.
        base_fee: u128,
    },
    /// Nothing to pay the gas with.
    #[error(
        "the account has {} gwei of the chain's coin, and the transaction may cost {}: send some to {account}",
        .there / GWEI, .needed.div_ceil(GWEI)
    )]
    Poor {
        /// In wei.
        there: u128,
        /// In wei.
        needed: u128,
        /// Whose.
        account: EvmAddress,
    },
    /// The step could not be kept, so it was not sent.
    #[error("can't keep the payment's state, so it is not sent: {0}")]
    Keep(String),
    /// Somebody else uses the account.
    #[error(transparent)]
    Shared(#[from] Shared),
    /// It takes longer than the caller wants to wait.
    #[error("the transaction is not confirmed within {} s; it goes on when the step is driven again", .0.as_secs())]
    TooLong(Duration),
}

impl EvmError {
    /// Whether the same may work later.
    pub fn retryable(&self) -> bool {
        !matches!(self, EvmError::Refused(_) | EvmError::NotOurContract { .. } | EvmError::Rpc(RpcError::WrongChain { .. }))
    }
}

/// An account, its chain and its patience. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Wallet {
    rpc: Rpc,
    key: NodeKey,
    rules: Rules,
    /// Between two looks at the chain.
    poll: Duration,
}

impl Wallet {
    /// The account of `key`, through `rpc`, which is looked at every `poll`.
    pub fn new(rpc: Rpc, key: NodeKey, rules: Rules, poll: Duration) -> Self {
        Wallet { rpc, key, rules, poll }
    }

    /// Its address.
    pub fn address(&self) -> EvmAddress {
        self.key.id().evm_address()
    }

    /// What a plain transfer of coin may cost in gas at most, in wei.
    pub fn transfer_cost(&self) -> u128 {
        self.rules.max_fee.saturating_mul(21_000 * u128::from(GAS_PERCENT) / 100)
    }

    /// The chain's node.
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// Checks that `contract` is `Channels`, byte for byte, before money goes there.
    pub async fn check_contract(&self, contract: &EvmAddress) -> Result<Channels, EvmError> {
        self.rpc.check_chain().await?;
        let code = self.rpc.bytes("eth_getCode", json!([shown_address(contract), "latest"])).await?;
        if hex::encode(keccak(&[&code])) == contract::CODE_HASH {
            Ok(Channels(*contract))
        } else {
            Err(EvmError::NotOurContract { contract: *contract })
        }
    }

    /// Whether there was a contract in a block.
    pub async fn has_code(&self, contract: &EvmAddress, block: u64) -> Result<bool, EvmError> {
        let asked = json!([shown_address(contract), shown_quantity(block.into())]);
        Ok(!self.rpc.bytes("eth_getCode", asked).await?.is_empty())
    }

    /// Asks a contract without changing anything.
    pub async fn view(&self, call: &Call) -> Result<Vec<u8>, EvmError> {
        self.view_at(call, "latest").await
    }

    async fn view_at(&self, call: &Call, block: &str) -> Result<Vec<u8>, EvmError> {
        self.rpc.bytes("eth_call", json!([self.shown(call), block])).await.map_err(explained)
    }

    /// A channel as the newest block has it; `None` if it was never opened.
    pub async fn channel(&self, contract: &Channels, id: &ChannelId) -> Result<Option<Channel>, EvmError> {
        self.read_channel(contract, id, "latest").await
    }

    /// A channel as it was [`Rules::depth`] blocks deep: the deposit that a payee may rely on. An exit must be looked for in
    /// [`Wallet::channel`], which tells it sooner.
    pub async fn deep_channel(&self, contract: &Channels, id: &ChannelId) -> Result<Option<Channel>, EvmError> {
        let head = self.rpc.count("eth_blockNumber", json!([])).await?;
        self.channel_at(contract, id, self.deep(head)).await
    }

    /// A channel as a block had it.
    pub async fn channel_at(&self, contract: &Channels, id: &ChannelId, block: u64) -> Result<Option<Channel>, EvmError> {
        self.read_channel(contract, id, &shown_quantity(block.into())).await
    }

    async fn read_channel(&self, contract: &Channels, id: &ChannelId, block: &str) -> Result<Option<Channel>, EvmError> {
        let answer = self.view_at(&contract.channel(id), block).await?;
        Ok(Channel::read(&answer).ok_or_else(|| self.rpc.malformed("eth_call"))?)
    }

    /// The newest block: its number, and when it was made, in seconds since 1970.
    pub async fn head(&self) -> Result<(u64, u64), EvmError> {
        let block = self.newest().await?;
        let field = |name: &str| block.get(name).and_then(quantity).and_then(|number| u64::try_from(number).ok());
        let read = || Some((field("number")?, field("timestamp")?));
        Ok(read().ok_or_else(|| self.rpc.malformed(BLOCK))?)
    }

    async fn newest(&self) -> Result<Value, EvmError> {
        Ok(self.rpc.ask(BLOCK, json!(["latest", false])).await?)
    }

    /// The newest block that counts, if `head` is the newest.
    pub fn deep(&self, head: u64) -> u64 {
        head.saturating_add(1).saturating_sub(self.rules.depth)
    }

    /// How much of a token, or of the chain's coin, an account has.
    pub async fn balance(&self, token: &EvmAddress, account: &EvmAddress) -> Result<u128, EvmError> {
        if *token == EvmAddress::ZERO {
            return Ok(self.rpc.quantity("eth_getBalance", json!([shown_address(account), "latest"])).await?);
        }
        Ok(amount(self.view(&contract::balance_of(token, account)).await?))
    }

    /// How much of a token `spender` may take from here.
    pub async fn allowance(&self, token: &EvmAddress, spender: &EvmAddress) -> Result<u128, EvmError> {
        Ok(amount(self.view(&contract::allowance(token, &self.address(), spender)).await?))
    }

    /// The first form of a payment: what it takes and where its place is. Keep it; nothing is sent yet.
    pub async fn prepare(&self, call: Call) -> Result<Step, EvmError> {
        self.rpc.check_chain().await?;
        let estimate = self.rpc.count("eth_estimateGas", json!([self.shown(&call)])).await.map_err(explained)?;
        // Code is dear to store; who makes a contract knows it.
        let needed = estimate.saturating_mul(GAS_PERCENT) / 100;
        if needed > MAX_GAS && call.to.is_some() {
            return Err(EvmError::TooMuchGas { needed });
        }
        // After what others sent with this key.
        let nonce = self.used().await?;
        Ok(Step::new(self.rpc.chain(), call, nonce, needed))
    }

    /// Drives a step to its end, or for `patience`. `keep` makes it durable; what it has not kept is not sent.
    pub async fn drive<K, F>(&self, step: &mut Step, patience: Duration, mut keep: K) -> Result<Stage, EvmError>
    where
        K: FnMut(Step) -> F,
        F: Future<Output = Result<(), String>>,
    {
        let end = clock::deadline(patience);
        loop {
            match self.advance(step, &mut keep).await {
                Ok(Next::Done) => return Ok(step.stage),
                Ok(_) => {}
                // The chain's node may be back soon, gas cheaper, the account filled.
                Err(error @ (EvmError::TooDear { .. } | EvmError::Poor { .. })) => warn!(nonce = step.nonce, "{error}"),
                Err(EvmError::Rpc(error)) if !matches!(error, RpcError::WrongChain { .. }) => {
                    warn!(nonce = step.nonce, %error, "can't look at the chain")
                }
                Err(error) => return Err(error),
            }
            if clock::deadline(self.poll) >= end {
                return Err(EvmError::TooLong(patience));
            }
            tokio::time::sleep(self.poll).await;
        }
    }

    /// One look, one decision, and what follows from it. What keeps it from going on is an error, after which it can be looked at again.
    pub async fn advance<K, F>(&self, step: &mut Step, keep: &mut K) -> Result<Next, EvmError>
    where
        K: FnMut(Step) -> F,
        F: Future<Output = Result<(), String>>,
    {
        let facts = self.look(step).await?;
        let before = step.stage;
        let next = step.decide(&facts, &self.rules, clock::now());
        match next {
            Next::Sign(fees) => {
                step.sign(fees, &self.key);
                keep(step.clone()).await.map_err(EvmError::Keep)?;
                self.send(step).await?;
            }
            Next::Send => self.send(step).await?,
            Next::TooDear { .. } | Next::Poor { .. } | Next::Wait | Next::Done => {}
        }
        if step.stage != before {
            keep(step.clone()).await.map_err(EvmError::Keep)?;
        }
        match next {
            Next::TooDear { base_fee } => Err(EvmError::TooDear { base_fee }),
            Next::Poor { needed } => Err(EvmError::Poor { there: facts.coin, needed, account: self.address() }),
            next => Ok(next),
        }
    }

    /// What the chain shows of a step. The nonce is read before the receipts, so that it can't look used by somebody else when it
    /// was used by us in between.
    async fn look(&self, step: &Step) -> Result<Facts, EvmError> {
        self.rpc.check_chain().await?;
        let block = self.newest().await?;
        let field = |name: &str| block.get(name).and_then(quantity);
        let malformed = || self.rpc.malformed(BLOCK);
        let head = field("number").and_then(|number| u64::try_from(number).ok()).ok_or_else(malformed)?;
        let base_fee = field("baseFeePerGas").ok_or_else(malformed)?;
        let deep_nonce = self.nonce(&shown_quantity(self.deep(head).into())).await?;
        let coin = self.balance(&EvmAddress::ZERO, &self.address()).await?;
        Ok(Facts { head, base_fee, tip: self.tip().await?, coin, deep_nonce, receipt: self.receipt(step).await? })
    }

    async fn receipt(&self, step: &Step) -> Result<Option<(TxHash, Receipt)>, EvmError> {
        for attempt in step.attempts.iter().rev() {
            if let Some(receipt) = self.rpc.receipt(&attempt.hash.0).await? {
                return Ok(Some((attempt.hash, receipt)));
            }
        }
        Ok(None)
    }

    /// What others tip. Nodes that don't tell are taken to want one gwei.
    async fn tip(&self) -> Result<u128, EvmError> {
        match self.rpc.quantity("eth_maxPriorityFeePerGas", json!([])).await {
            Err(RpcError::Refused { .. }) => Ok(GWEI),
            told => Ok(told?),
        }
    }

    /// The account's transactions, those on their way included.
    pub async fn used(&self) -> Result<u64, EvmError> {
        self.nonce("pending").await
    }

    async fn nonce(&self, at: &str) -> Result<u64, EvmError> {
        Ok(self.rpc.count("eth_getTransactionCount", json!([shown_address(&self.address()), at])).await?)
    }

    /// Sends the newest attempt. A refusal decides nothing: it may be known already, mined already, or its place taken.
    async fn send(&self, step: &mut Step) -> Result<(), EvmError> {
        let Some(attempt) = step.attempts.last() else { return Ok(()) };
        match self.rpc.ask("eth_sendRawTransaction", json!([shown(&attempt.raw)])).await {
            // The first time it is news; again it is known already, mined, or its place taken.
            Err(RpcError::Refused { message, .. }) if matches!(step.stage, Stage::Prepared) => {
                warn!(hash = %attempt.hash, message, "a transaction was not taken")
            }
            Err(RpcError::Refused { message, .. }) => debug!(hash = %attempt.hash, message, "a transaction was not taken"),
            other => drop(other?),
        }
        step.sent(clock::now());
        Ok(())
    }

    fn shown(&self, call: &Call) -> Value {
        let mut shown_call = json!({
            "from": shown_address(&self.address()),
            "value": shown_quantity(call.value),
            "data": shown(&call.data),
        });
        if let (Some(to), Some(fields)) = (call.to, shown_call.as_object_mut()) {
            fields.insert("to".into(), shown_address(&to).into());
        }
        shown_call
    }
}

/// A token's answer; more than 128 bits are enough for everybody.
fn amount(answer: Vec<u8>) -> u128 {
    answer.try_into().map_or(0, |word| contract::number(&word).unwrap_or(u128::MAX))
}

/// A revert of `Channels` in words.
fn explained(error: RpcError) -> EvmError {
    match &error {
        RpcError::Refused { data, .. } => contract::refusal(data).map_or_else(|| error.clone().into(), EvmError::Refused),
        _ => error.into(),
    }
}
