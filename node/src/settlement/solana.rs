//! Prepaid tranches on Solana, in an SPL token such as USDC or in SOL.
//!
//! | module | what it owns |
//! |---|---|
//! | [`payment`] | **pure**: one payment from the decision to its end, through blockhashes that die and nodes that lie |
//! | [`transaction`] | transfers, their memos and the priority fee as one signed transaction |
//! | [`verify`] | **pure**: the payee's side: does this transaction pay this tranche? |
//! | [`key`] | the ed25519 key that pays, and its statement that it is the node's |
//! | [`rpc`] | what a node of the cluster is asked |
//! | [`wallet`] | looks at the chain, keeps and sends |
//! | [`book`] | **pure**: which tranches were bought of whom, one at a time |
//! | [`tranches`] | buys them, pays them in the background, shows them to their workers |
//! | [`withdrawals`] | sends what the wallet has elsewhere, one at a time |
//! | [`payee`] | the worker's side: looks a tranche up, and counts it once |
//! | [`account`] | what an operator says, and how a node comes to use it |
//! | [`desk`] | where jobs meet all that |
//!
//! **One tranche's way:** the buyer owes it → [`payment::Payment`], kept → signed over a blockhash, kept → sent → finalized. The
//! buyer shows the payee the signature with its next job; the payee asks its own nodes of the cluster, counts it, and runs the job on
//! it, and more jobs as long as it lasts. What either side can lose by the other is one tranche: the next is bought when one was taken.

pub mod account;
pub mod book;
pub mod desk;
pub mod key;
pub mod payee;
pub mod payment;
pub mod rpc;
pub mod tranches;
pub mod transaction;
pub mod verify;
pub mod wallet;
pub mod withdrawals;
