//! How a debt becomes a payment.
//!
//! | module | what it owns |
//! |---|---|
//! | [`channels`] | which channels there are on a chain, as far as jobs can be paid on them |
//! | [`evm`] | channels of the contract `Channels` on an EVM chain: transactions, and what becomes of each |
//! | [`service`] | the account on that chain while the node runs: what is due is wanted, and steps are driven |
//! | [`steps`] | **pure**: what is wanted, under way and done on that chain, as the journal has it |
//! | `watch` | thin: reads the chain into the book of channels |
//! | [`rail`] | what ledger, EVM and Solana have in common, for whoever need not tell them apart |
//! | [`solana`] | prepaid tranches in SPL tokens or SOL: transactions, what becomes of each, and whether a tranche was paid |
//! | [`json_rpc`] | questions to a chain's node, within deadlines and bounds, without its key in any error |
//! | [`tab`] | what one node owes another, as vouchers say it: pure |
//! | [`tabs`] | the tabs of a node, kept; a till for each job sold, a payer for each bought |
//! | [`unsettled`] | what a key still has on chains, as its home's journal tells |
//!
//! A chat stream is paid on a tab as it runs. What a tab says is an IOU, or is covered: by the deposit of a channel, whose vouchers are
//! money that [`service`] redeems, or by a tranche that was paid beforehand.

pub mod channels;
pub mod evm;
pub mod json_rpc;
pub mod rail;
pub mod service;
pub mod solana;
pub mod steps;
pub mod tab;
pub mod tabs;
pub mod unsettled;
mod watch;
