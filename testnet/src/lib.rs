//! A whole infernet on one machine, from the same parts that run everywhere else.
//!
//! | module | what it owns |
//! |---|---|
//! | [`engine`] | a real tiny language model behind an Ollama-compatible server |
//! | [`cluster`] | nodes on loopback with homes of their own: in this process, or as processes that can be killed |
//! | [`demo`] | what a newcomer runs |
//! | [`mod@bench`] | the numbers, each a command |
//! | [`serve`] | a small network with an OpenAI endpoint, to point a client at |
//! | [`up`] | a network of processes that stays, to break by hand |
//! | [`scripted`] | an engine without a model, for what the tiny one can't do |
//! | [`audit`] | jobs of mesh buyers and web clients while things break, then all books, and a chain's, to the micro-USD |
//! | [`chaos`] | processes that are killed, frozen, cut off and starved under load, and whether the books balance |
//! | [`crash`] | a node's money, in processes that are killed at every write of it, on a real EVM chain |
//! | [`flood`] | a worker and a buyer under attack, and whether they come through |
//! | [`sim`] | thousands of nodes on virtual time, from a seed, with the node's own deciders |
//! | [`stranger`] | a member of the mesh that is no node |
//! | [`pay`] | payments of buyers that are no nodes |
//! | [`shim`] | TCP and UDP links that are worse than loopback |
//! | [`evm`], [`bank`] | a real EVM chain, and the contract on it; a token, and money for nodes |
//! | [`svm`] | Solana's runtime in this process, behind the RPC of a cluster |
//! | [`receipts`], [`scribe`] | receipts without a job, and a process that writes them until it is killed |
//! | [`machine`] | what a number was measured on |
//!
//! Nothing depends on this crate. Fault injection is done from outside a node: by signals, by links, by its engine.

pub mod audit;
pub mod bank;
pub mod bench;
pub mod chaos;
pub mod circuit;
pub mod cluster;
pub mod crash;
pub mod demo;
pub mod engine;
pub mod evm;
pub mod flood;
pub mod machine;
pub mod nat;
pub mod pay;
pub mod plane;
pub mod receipts;
pub mod scribe;
pub mod scripted;
pub mod serve;
pub mod shim;
pub mod sim;
pub mod stranger;
pub mod svm;
pub mod up;
