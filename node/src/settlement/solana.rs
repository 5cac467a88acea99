//! Prepaid tranches on Solana, in an SPL token such as USDC or in SOL.
//!
//! | module | what it owns |
//! |---|---|
//! | [`payment`] | **pure**: one payment from the decision to its end, through blockhashes that die and nodes that lie |
//! | [`transaction`] | transfers, their memos and the priority fee as one signed transaction |
//! | [`verify`] | **pure**: the payee's side: does this transaction pay this tranche, and for the first time? |
//!
//! **One tranche's way:** the buyer owes it → [`payment::Payment`], kept → signed over a blockhash, kept → sent → finalized. The
//! buyer tells the payee the signature; the payee asks its own node of the chain, and serves when [`verify::Counted`] has it.
//!
//! Nothing here asks a chain's node yet: whoever does must read the finalized height before the statuses.

pub mod payment;
pub mod transaction;
pub mod verify;
