//! `infernet-testnet sim`: a network of simulated nodes on virtual time, from a seed.
//!
//! It runs **the node's own deciders**, never a model of them: `market` (buyer, seller, auction, admission, standing, trust and
//! all below them), the chat sessions, the rules of gossip and the ways back to a buyer, the receipts' store with its journal
//! and recovery. What is simulated is what is around them: clocks, links, engines, disks, processes, callers. The drivers
//! ([`buyer`], [`worker`]) do what `node/src/buyer.rs`, `seller.rs` and `chat/` do between decisions, without tokio.
//!
//! | module | its one idea |
//! |---|---|
//! | [`world`] | the nodes and the one loop |
//! | [`scenario`] | what a simulation is of: a TOML file |
//! | [`wheel`], [`dice`], [`log`] | order, chance, and what happened |
//! | [`mesh`], [`gossip`], [`stream`] | links; what is said to all; what two say to each other |
//! | [`member`], [`buyer`], [`worker`], [`job`] | a node, its two sides, a job |
//! | [`fault`], [`coverage`] | what goes wrong, and which jobs it met |
//! | [`check`], [`audit`], [`plant`] | what must hold, and bugs by which that is shown to be able to fail |
//! | [`adversary`] | who attacks |
//! | [`outcome`], [`stats`], [`report`] | what a run tells, and what many tell together |
//!
//! **Signatures.** Thousands of them a second can't be afforded, so simulated nodes have none: a message carries its sender's
//! tag, which only that node can make ([`infernet_wire::envelope::SimulatedKey`]); a forged one is marked as such and fails where
//! the signature would be checked. That signatures themselves keep out forgers and replays is tested with real ones, in
//! `node/src/net/gossip` and `testnet/tests/hostile`.
//!
//! **What is absent:** clocks, threads, floating point in anything that decides, maps without an order. So one seed has one
//! history, on every machine, in debug and in release.

pub mod adversary;
pub mod audit;
pub mod buyer;
pub mod check;
pub mod coverage;
pub mod dice;
pub mod event;
pub mod fault;
pub mod gossip;
pub mod job;
pub mod log;
pub mod member;
pub mod mesh;
pub mod outcome;
mod pay;
pub mod plant;
pub mod report;
pub mod scenario;
pub mod stats;
pub mod stream;
pub mod wheel;
pub mod worker;
pub mod world;

pub use outcome::{Outcome, run, run_many};
pub use world::World;

/// A node's number.
pub type Who = u32;
/// A job's number.
pub type JobNo = u32;
/// A stream's number.
pub type StreamNo = u32;
