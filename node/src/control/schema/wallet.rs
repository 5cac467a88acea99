//! A node's accounts: what it has on each chain, channels on the EVM chain, tranches on Solana.

use super::TrancheReport;
use infernet_wire::{evm::EvmAddress, id::NodeId, solana::SolanaAddress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How it goes with the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ChainReport {
    /// The chain's id.
    pub chain: u64,
    /// The contract that holds the channels.
    pub contract: String,
    /// The token that they hold; absent for the chain's coin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Units of it for a micro-USD, in decimal.
    pub rate: String,
    /// The node's address.
    pub address: String,
    /// Whether the chain was read, and nothing holds it up.
    pub ready: bool,
    /// Why not; absent if all is well, or while it is read for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why the step whose turn it is waits; absent if nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// The newest block.
    pub head: u64,
    /// The last block that was read for new channels; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<u64>,
    /// Channels of the node.
    pub channels: usize,
    /// Steps that have not ended.
    pub open_steps: usize,
}

/// `infernet wallet balance` and `infernet payout list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WalletReport {
    /// What the node has on each chain.
    pub accounts: Vec<AccountReport>,
    /// How it goes with the EVM chain; absent if the node is on none, and then all is absent or empty down to `steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainReport>,
    /// The chain's coin that the node has, in its smallest unit, in decimal; absent if the chain's node does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coin: Option<String>,
    /// The token likewise; the same as the coin if channels hold that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The token in micro-USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_micro_usd: Option<u64>,
    /// Where payouts go; absent if they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payout_to: Option<String>,
    /// Channels to this node and from it.
    pub channels: Vec<ChannelReport>,
    /// Steps that are open, and the last that are not, in order.
    pub steps: Vec<StepReport>,
    /// The newest tranche on Solana that was bought of each worker.
    pub tranches: Vec<TrancheReport>,
    /// What buyers have prepaid on Solana.
    pub prepaid: Vec<PrepaidReport>,
}

/// What a node has on a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountReport {
    /// `evm` or `solana`.
    pub rail: String,
    /// The account's address.
    pub address: String,
    /// Why it can't be used now; absent if all is well.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
    /// Where what it earns goes; absent if it stays.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payout_to: Option<String>,
    /// What it has: first what fees are paid in, then what jobs are paid in. Empty if the chain's node does not say.
    pub balances: Vec<BalanceReport>,
}

/// What an account has of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BalanceReport {
    /// A token's address, `coin` for that of the EVM chain, or `SOL`.
    pub asset: String,
    /// How much, in its smallest unit, in decimal.
    pub units: String,
    /// What it is worth, in micro-USD; absent if jobs are not paid in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub micro_usd: Option<u64>,
}

/// What a buyer has prepaid this worker on Solana.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrepaidReport {
    /// The buyer.
    #[schemars(with = "String")]
    pub buyer: NodeId,
    /// The number of the newest that was counted.
    pub tranches: u64,
    /// What they came to, in micro-USD.
    pub micro_usd: u64,
    /// What no job has used yet, in micro-USD.
    pub left_micro_usd: u64,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelReport {
    /// Its id.
    pub channel: String,
    /// Whether this node is paid on it; else it pays.
    pub sold: bool,
    /// The other side's address.
    pub with: String,
    /// The other side's node id; absent before the first job.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    pub node: Option<NodeId>,
    /// All that was ever deposited, as far as it counts, in micro-USD.
    pub deposit_micro_usd: u64,
    /// The highest voucher, in micro-USD.
    pub promised_micro_usd: u64,
    /// What jobs that are over came to, in micro-USD.
    pub came_to_micro_usd: u64,
    /// What was redeemed, in micro-USD.
    pub redeemed_micro_usd: u64,
    /// What the highest voucher would still pay, in micro-USD.
    pub redeemable_micro_usd: u64,
    /// `open`, `exiting`, `closing` or `closed`.
    pub state: String,
    /// When the buyer may take the rest, in seconds since 1970; absent if nobody wants out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_at: Option<u64>,
}

/// A step: one transaction from the wish to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepReport {
    /// Its number.
    pub number: u64,
    /// `approve`, `open`, `top_up`, `redeem`, `start_exit`, `finish_exit`, `close` or `withdraw`; `withdraw_solana` is counted apart.
    pub what: String,
    /// On which channel; absent for a withdrawal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub channel: Option<String>,
    /// Units of the token, or of the coin, in decimal; absent if it is about no amount, or all that is there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub amount: Option<String>,
    /// `prepared`, `sent`, `acknowledged` (in a block that is not deep), `settled`, `failed` or `replaced`.
    pub stage: String,
    /// Why, where that helps.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Whether nothing more comes of it.
    pub done: bool,
    /// The newest transaction's hash; absent before there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transaction: Option<String>,
    /// Since when it is wanted, in unix milliseconds.
    pub since: u64,
}

/// What the account is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletBody {
    /// Open a channel, or add to one.
    Deposit {
        /// To whom.
        worker: NodeId,
        /// How much.
        micro_usd: u64,
    },
    /// End all channels to a worker at once: it signs, too.
    Close {
        /// To whom.
        worker: NodeId,
    },
    /// Want out of all channels to a worker.
    Exit {
        /// To whom.
        worker: NodeId,
    },
    /// Send money away.
    Withdraw {
        /// Where to.
        to: EvmAddress,
        /// How much; absent: all.
        micro_usd: Option<u64>,
        /// The chain's coin, not the token.
        coin: bool,
    },
    /// Send money away on Solana.
    WithdrawSolana {
        /// Where to.
        to: SolanaAddress,
        /// How much; absent: all.
        micro_usd: Option<u64>,
        /// SOL, whatever tranches are paid in.
        coin: bool,
    },
    /// Redeem all, and send it to the payout address.
    Payout,
}

/// Where payouts go from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutBody {
    /// On which rail.
    pub rail: String,
    /// Where to, as the rail writes it.
    pub to: String,
}
