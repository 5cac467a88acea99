//! The account on an EVM chain: its keys hold together, or not at all.

use super::{ConfigError, Partial, Secret, parse::Parser, value};
use crate::settlement::evm::{EvmSettings, rpc::Endpoint};
use infernet_wire::{evm::EvmAddress, settle::EvmTerms};

/// Two minutes on Ethereum; more than any reorganisation since its merge.
pub(super) const DEFAULT_DEPTH: u64 = 12;
/// A redemption costs less than 0.015 coins.
pub(super) const DEFAULT_MAX_GWEI: u64 = 200;
/// An hour of the fastest chains; nobody waits longer.
const MAX_DEPTH: u64 = 10_000;
/// A thousandth of a coin for a unit of gas: whoever allows more has mistaken the unit.
const MAX_MAX_GWEI: u64 = 1_000_000;
/// A thousand coins of 18 decimals for a dollar.
const MAX_RATE: u64 = 1_000_000_000_000_000;
const NO_RATE: &str = "write how many units of its coin a micro-USD is, or name evm_token";

impl Parser<'_> {
    /// `None` if no key says that there is a chain.
    pub(super) fn evm(&self, p: &Partial) -> Result<Option<EvmSettings>, ConfigError> {
        let said = [
            ("evm_rpc", p.evm_rpc.is_some()),
            ("evm_chain", p.evm_chain.is_some()),
            ("evm_contract", p.evm_contract.is_some()),
            ("evm_token", p.evm_token.is_some()),
            ("evm_rate", p.evm_rate.is_some()),
        ];
        let depth = self.within("evm_depth", p.evm_depth.unwrap_or(DEFAULT_DEPTH), 1, MAX_DEPTH)?;
        let max_gwei = self.within("evm_max_gwei", p.evm_max_gwei.unwrap_or(DEFAULT_MAX_GWEI), 1, MAX_MAX_GWEI)?;
        let Some((first, _)) = said.iter().find(|(_, said)| *said) else { return Ok(None) };
        let missing = |key, fix: &str| self.bad(key, &"missing", format!("{first} says that there is a chain, so {fix}"));
        let rpc = p.evm_rpc.as_ref().map(|Secret(url)| self.endpoint(url)).transpose()?;
        // Only who uses the account needs it: it may be in the environment of the node alone.
        let Some(rpc) = rpc else { return Ok(None) };
        let chain = p.evm_chain.ok_or_else(|| missing("evm_chain", "write its id, such as 8453"))?;
        let contract = self.maybe("evm_contract", p.evm_contract.clone(), value::evm_address)?;
        let token = self.maybe("evm_token", p.evm_token.clone(), value::evm_address)?;
        let rate = p.evm_rate.or(token.map(|_| 1));
        let terms = EvmTerms {
            chain: self.within("evm_chain", chain, 1, i64::MAX.unsigned_abs())?,
            contract: contract.ok_or_else(|| missing("evm_contract", "write the address of Channels on it"))?,
            token: token.unwrap_or(EvmAddress::ZERO),
            rate: self.within("evm_rate", rate.ok_or_else(|| missing("evm_rate", NO_RATE))?, 1, MAX_RATE)?.into(),
        };
        Ok(Some(EvmSettings { rpc, terms, depth, max_gwei }))
    }

    /// Whether there is a chain, and its node is not said.
    pub(super) fn evm_lacks_rpc(p: &Partial) -> bool {
        p.evm_rpc.is_none() && (p.evm_chain.is_some() || p.evm_contract.is_some())
    }

    /// A text that can't be used may be the secret all the same: it is not repeated.
    fn endpoint(&self, url: &str) -> Result<Endpoint, ConfigError> {
        url.parse().map_err(|fix: String| self.bad("evm_rpc", &"what it is", fix))
    }
}
