//! That something has changed, told to all instances: pages are live by it. A notice may be lost; what it is about is in the
//! store.

use super::{Answer, Pubkey, WebJobId};
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

/// What has changed. As JSON it is below PostgreSQL's 8000 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Notice {
    /// A job.
    Job {
        /// Which.
        id: WebJobId,
    },
    /// A registered node.
    Node {
        /// Which.
        pubkey: Pubkey,
    },
    /// A command.
    Command {
        /// Which.
        id: String,
        /// For which node.
        node: Pubkey,
    },
    /// Somebody wants a job cancelled, which another instance may run.
    Cancel {
        /// Which.
        id: WebJobId,
    },
}

/// Notices to and from all instances.
pub trait Notices: Send + Sync {
    /// Tells all instances, this one included.
    fn notify<'a>(&'a self, notice: &'a Notice) -> Answer<'a, ()>;

    /// Notices from now on. A reader that is slow loses some.
    fn notices(&self) -> BoxStream<'static, Notice>;
}
