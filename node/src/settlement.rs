//! How a debt becomes a payment.
//!
//! | module | what it owns |
//! |---|---|
//! | [`evm`] | channels of the contract `Channels` on an EVM chain: transactions, and what becomes of each |
//! | [`solana`] | prepaid tranches in SPL tokens or SOL: transactions, what becomes of each, and whether a tranche was paid |
//!
//! Nothing here is wired to jobs yet: receipts are IOUs until it is.

pub mod evm;
pub mod solana;
