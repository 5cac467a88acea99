//! A peer of the infernet inference market, as a library; the `infernet` binary is a thin shell over it.
//!
//! | module | what it owns |
//! |---|---|
//! | [`net`] | the libp2p mesh: gossip, discovery, how an answer finds its buyer |
//! | [`market`] | **pure** decisions: registry, auction, rank, holds |
//! | [`seller`], [`buyer`] | the two roles: drive `market`, sign, time, retry |
//! | [`chat`] | the QUIC stream between buyer and worker |
//! | [`backend`], [`engines`] | the engines beside a worker |
//! | [`ledger`], [`store`], [`recall`], [`today`] | receipts, kept before anyone is told, and what they tell after a restart |
//! | [`settlement`] | how a debt becomes a payment: channels on an EVM chain |
//! | [`receipt_pages`] | what an indexer is told of them |
//! | [`node`] | all of the above, started in order |
//! | [`api`], [`spend`] | the OpenAI endpoint, and what it may cost |
//! | [`operator`], [`obey`] | whose signed commands count, and what they do |
//! | [`plane_client`] | tells control planes that the node is there, if its owner wants that |
//! | [`metrics`] | what a node can be watched by |
//! | [`control`], [`cli`], [`report`] | the Unix socket, the command, what both print |
//! | [`jobs`], [`why`], [`doctor`] | what runs now, why more or less is earned, what is to be mended |
//! | `files`, `toml_text`, `spelling` | files that are replaced whole; TOML that keeps its comments; what a mistyped name means |
//! | [`fit`], [`download`] | what a model needs, and how far its download is |
//! | [`program`] | what the programs beside `infernet` share: settings, home, log |
//! | [`config`], [`identity`], [`hardware`], [`clock`], [`local_time`] | the edges: file, key, machine, time |
//!
//! **Invariants.** `market` imports only `infernet_wire` and `std`. `net` never imports `market`. Only [`node`] knows everybody.
//! Prompt and answer are in `api`, `buyer`, `chat` and `backend`, and in no log, store or gossip. Every wait has a deadline and every
//! queue a bound. The swarm never waits for a consumer.

pub mod api;
pub mod api_keys;
pub mod backend;
pub mod buyer;
mod cause;
pub mod chat;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod date;
pub mod disputes;
pub mod doctor;
pub mod download;
pub mod earnings;
pub mod engines;
mod files;
pub mod fit;
#[cfg(any(test, fuzzing))]
#[allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a fuzzer's checks panic")]
#[doc(hidden)]
pub mod fuzz;
pub mod hardware;
pub mod identity;
pub mod jobs;
pub mod ledger;
pub mod local_time;
pub mod logfile;
pub mod market;
pub mod metrics;
pub mod net;
pub mod node;
pub mod obey;
pub mod operator;
pub mod plane_client;
pub mod program;
pub mod recall;
pub mod receipt_pages;
pub mod report;
pub mod seller;
pub mod settlement;
mod spelling;
pub mod spend;
pub mod store;
pub mod today;
mod toml_text;
pub mod why;
