//! A chain where nodes of this machine pay each other: a real anvil, `Channels`, a token of six decimals, and money for who asks.

use crate::evm::{self, Anvil, CHAIN, ChainError, Program, act, at_once};
use infernet_node::settlement::{
    evm::{
        EvmSettings,
        contract::{self, Channel, Channels},
        rpc::{Log, MAX_LOG_BLOCKS},
        wallet::Wallet,
    },
    service::Settings,
};
use infernet_wire::{
    evm::{EvmAddress, address_word, word},
    id::{ChannelId, NodeId},
    key::NodeKey,
    money::MicroUsd,
    settle::EvmTerms,
};
use serde_json::json;
use std::time::Duration;

/// Between two looks of a node at this chain: it is near.
const POLL: Duration = Duration::from_millis(20);

/// A running chain; dropping it stops it.
pub struct Bank {
    anvil: Anvil,
    terms: EvmTerms,
    teller: Wallet,
}

impl Bank {
    /// Starts a chain, and puts contract and token on it. Fails where there is no anvil.
    pub async fn start() -> Result<Self, ChainError> {
        Self::start_with(Program::TestToken).await
    }

    /// The same with another token, which anybody can mint.
    pub async fn start_with(token: Program) -> Result<Self, ChainError> {
        let anvil = Anvil::start().await?;
        let key = NodeKey::from_bytes(&[9; 32]).map_err(|error| ChainError::Start(error.to_string()))?;
        let teller = anvil.wallet(&key, at_once()).await?;
        let contract = Program::Channels.deploy(&teller).await?;
        let token = token.deploy(&teller).await?;
        Ok(Bank { anvil, terms: EvmTerms { chain: CHAIN, contract, token, rate: 1 }, teller })
    }

    /// Where channels are, and in what.
    pub fn terms(&self) -> &EvmTerms {
        &self.terms
    }

    /// The chain itself.
    pub fn anvil(&self) -> &Anvil {
        &self.anvil
    }

    /// Coins for gas, and so much of the token.
    pub async fn fund(&self, node: &NodeId, amount: MicroUsd) -> Result<(), ChainError> {
        let address = node.evm_address();
        self.anvil.fund(&address).await?;
        let mint =
            evm::call(&self.terms.token, "mint(address,uint256)", &[address_word(&address), word(amount.0.into())], None);
        act(&self.teller, mint).await.map(drop)
    }

    /// What an account has of the token.
    pub async fn balance(&self, account: &EvmAddress) -> Result<MicroUsd, ChainError> {
        let units = self.teller.balance(&self.terms.token, account).await?;
        Ok(MicroUsd(u64::try_from(units).unwrap_or(u64::MAX)))
    }

    /// Sends so much of the token from the account of `key`, which has coins for gas.
    pub async fn send(&self, key: &NodeKey, to: &EvmAddress, amount: MicroUsd) -> Result<(), ChainError> {
        let wallet = Wallet::new(self.anvil.rpc()?, key.clone(), at_once(), POLL);
        act(&wallet, contract::transfer(&self.terms.token, to, amount.0.into())).await.map(drop)
    }

    /// A channel as it is now; `None` if it was never opened.
    pub async fn channel(&self, id: &ChannelId) -> Result<Option<Channel>, ChainError> {
        Ok(self.teller.channel(&Channels(self.terms.contract), id).await?)
    }

    /// All that a contract ever logged, by its topics.
    pub async fn logs(&self, of: &EvmAddress, topics: &[Option<[u8; 32]>]) -> Result<Vec<Log>, ChainError> {
        let rpc = self.anvil.rpc()?;
        let (head, mut logs, mut from) = (rpc.count("eth_blockNumber", json!([])).await?, Vec::new(), 0);
        while from <= head {
            let to = head.min(from + MAX_LOG_BLOCKS - 1);
            logs.extend(rpc.logs(of, topics, (from, to)).await?);
            from = to + 1;
        }
        Ok(logs)
    }

    /// How a node settles here: at once, and only when it is told to.
    pub fn settings(&self) -> Result<Settings, ChainError> {
        let rpc = self.anvil.url().parse().map_err(ChainError::Start)?;
        let evm = EvmSettings { rpc, terms: self.terms, depth: 1, max_gwei: 200 };
        Ok(Settings { evm, payout_at: MicroUsd(0), payout_to: None, poll: POLL })
    }
}
