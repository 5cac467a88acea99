//! How a worker is paid on a chain, as its ad says it, and on which channel a job was paid, as its receipt says it.

use crate::{
    envelope::{Refusal, field},
    evm::{EvmAddress, amount},
    id::ChannelId,
};
use serde::{Deserialize, Serialize};

/// Channels that a worker takes vouchers on. Its own address there is that of its key, [`crate::id::NodeId::evm_address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EvmTerms {
    /// The chain, as EIP-155 numbers it.
    pub chain: u64,
    /// The contract that holds the deposits.
    pub contract: EvmAddress,
    /// In which token; [`EvmAddress::ZERO`] for the chain's coin.
    pub token: EvmAddress,
    /// What a micro-USD is in the token's smallest unit: 1 for USDC, which has six decimals.
    #[serde(with = "amount")]
    pub rate: u128,
}

/// What [`EvmTerms::rate`] may be at most: a coin of 18 decimals that is worth a thousandth of a cent. So no amount of micro-USD
/// is more than 128 bits of units.
pub const MAX_RATE: u128 = 100_000_000_000_000_000;

impl EvmTerms {
    /// Checks what can be checked without asking the chain.
    pub fn check(&self) -> Result<(), Refusal> {
        let named = self.chain > 0 && self.contract != EvmAddress::ZERO;
        field::ensure(named && check_rate(self.rate), "evm")
    }
}

/// Whether a rate can be one.
pub fn check_rate(rate: u128) -> bool {
    (1..=MAX_RATE).contains(&rate)
}

/// The channel on which a job was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaidOn {
    /// The chain.
    pub chain: u64,
    /// The contract.
    pub contract: EvmAddress,
    /// The channel.
    pub channel: ChannelId,
    /// What a micro-USD was, see [`EvmTerms::rate`].
    #[serde(with = "amount")]
    pub rate: u128,
}

impl PaidOn {
    /// Checks what can be checked without asking the chain.
    pub fn check(&self) -> Result<(), Refusal> {
        let named = self.chain > 0 && self.contract != EvmAddress::ZERO;
        field::ensure(named && check_rate(self.rate), "channel")
    }
}
