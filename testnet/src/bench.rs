//! The numbers. Each is a command that prints what it was measured on, and measures what it is compared with in the same run.

pub mod auction;
pub mod dial;
pub mod engine;
pub mod gas;
pub mod goal;
pub mod node;
pub mod plane;
pub mod program;
pub mod receipts;
pub mod relay;
pub mod stream;
pub mod vouchers;

use crate::{cluster::ClusterError, engine::EngineError, evm::ChainError};
use infernet_node::buyer::ChatError;

/// A measurement that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A node.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A job.
    #[error("a job failed: {0}")]
    Chat(#[from] ChatError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The engine, or a node's endpoint, asked over HTTP.
    #[error("asked over HTTP: {0}")]
    Http(#[from] reqwest::Error),
    /// A link, or a process.
    #[error("can't make a link or a process: {0}")]
    Io(#[from] std::io::Error),
    /// An option, or something that must not happen.
    #[error("{0}")]
    Options(String),
}
