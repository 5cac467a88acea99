//! Payment channels on an EVM chain, with the node's own key.
//!
//! | module | what it owns |
//! |---|---|
//! | [`step`] | **pure**: one transaction from the decision to its end, through fees that rise and blocks that vanish |
//! | [`transaction`] | EIP-1559 transactions: their bytes, hash and signature |
//! | [`contract`] | the calls that `Channels` and tokens understand, and what they answer |
//! | [`rpc`] | JSON-RPC over HTTP: deadlines, bounds, the right chain, no secret in any error |
//! | [`sole`] | **pure**: whether somebody else uses the account |
//! | [`wallet`] | thin: looks at the chain, lets the step decide, keeps it, sends |
//!
//! **One payment's way:** a call → [`wallet::Wallet::prepare`] (gas, nonce) → [`step::Step`], kept → signed, kept → sent → mined →
//! deep enough. A step has one nonce for ever, so whatever is sent again, and however often, at most one of its attempts is ever
//! mined. It is kept before it is sent; after a crash the same bytes are sent once more.
//!
//! A node's own steps are [`super::steps`], driven by [`super::service`].
//!
//! **What is believed.** One RPC node is asked, and it can lie: it can hide a payment or invent one, never move money. The
//! contract's code is compared with ours before a coin goes there. There is no web3 library below this: what is needed of one is
//! two encodings and a dozen calls.

use infernet_wire::settle::EvmTerms;

/// A node's account on a chain, as its operator says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvmSettings {
    /// Where the chain's node answers.
    pub rpc: rpc::Endpoint,
    /// What channels are worth, and where.
    pub terms: EvmTerms,
    /// Blocks that bury what counts.
    pub depth: u64,
    /// What a unit of gas may cost at most, in gwei.
    pub max_gwei: u64,
}

impl EvmSettings {
    /// How patient a transaction is, and what it may pay.
    pub fn rules(&self) -> step::Rules {
        step::Rules { depth: self.depth, max_fee: u128::from(self.max_gwei) * 1_000_000_000, ..step::Rules::default() }
    }
}

pub mod contract;
pub mod rpc;
pub mod sole;
pub mod step;
pub mod transaction;
pub mod wallet;
