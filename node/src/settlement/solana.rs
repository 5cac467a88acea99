//! Prepaid tranches on Solana, in an SPL token such as USDC or in SOL.
//!
//! | module | what it owns |
//! |---|---|
//! | [`payment`] | **pure**: one payment from the decision to its end, through blockhashes that die and nodes that lie |
//! | [`transaction`] | transfers, their memos and the priority fee as one signed transaction |
//! | [`verify`] | **pure**: the payee's side: does this transaction pay this tranche, and for the first time? |
//! | [`key`] | the ed25519 key that pays, and its statement that it is the node's |
//! | [`rpc`] | what a node of the cluster is asked |
//! | [`wallet`] | looks at the chain, keeps and sends; asks whether a tranche was paid |
//!
//! **One tranche's way:** the buyer owes it → [`payment::Payment`], kept → signed over a blockhash, kept → sent → finalized. The
//! buyer tells the payee the signature; the payee asks its own nodes of the cluster, and serves when it has counted it.

pub mod key;
pub mod payment;
pub mod rpc;
pub mod transaction;
pub mod verify;
pub mod wallet;
