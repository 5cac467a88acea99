//! The numbers. Each is a command that prints what it was measured on, and measures what it is compared with in the same run.

pub mod auction;
pub mod receipts;
pub mod stream;

use crate::{cluster::ClusterError, engine::EngineError};
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
    /// The engine, asked directly.
    #[error("the engine, asked directly: {0}")]
    Direct(#[from] reqwest::Error),
    /// The link of a late worker.
    #[error("can't make a slow link: {0}")]
    Link(#[from] std::io::Error),
    /// An option.
    #[error("{0}")]
    Options(String),
}
