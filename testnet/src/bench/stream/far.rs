//! The network that is measured: a worker process, and buyers in this process or in one of their own.

use super::{
    super::BenchError,
    StreamOptions,
    ways::{MODEL, Way},
};
use crate::cluster::{Member, MemberSpec, Sells, process::Process};
use serde::Serialize;
use std::{fmt, time::Duration};

/// Streams of one buyer, while each stream takes an offer: its burst of offers, so that the ramp is short.
const PER_BUYER: usize = 20;
/// Buyers at most; more nodes in one process would measure the nodes, not the streams.
const MAX_BUYERS: usize = 16;
/// How long the network may take to form.
const FORM: Duration = Duration::from_secs(60);

/// Which way through the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Through {
    /// The buyer's role of a node in the caller's process.
    Node,
    /// A node's OpenAI endpoint, over HTTP on loopback.
    Api,
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Through::Node => "buyer's role",
            Through::Api => "node's OpenAI endpoint",
        })
    }
}

/// A running network.
pub(super) struct Far {
    worker: Process,
    members: Vec<Member>,
    ways: Vec<Way>,
}

impl Far {
    /// A network with room for `streams`, over `engine`.
    pub(super) async fn start(options: &StreamOptions, engine: &str, streams: usize) -> Result<Self, BenchError> {
        // Strangers may hold at most half of the free slots, so the last stream needs as much room again.
        let slots = u16::try_from(streams * 2 + 16).unwrap_or(u16::MAX);
        let worker = Process::worker(&options.binary, &Sells::new(engine, 1, 1, slots), &[], &[]).await?;
        match options.through {
            Through::Node => Self::with_members(worker, streams).await,
            Through::Api => Err(BenchError::Options("the node has no OpenAI endpoint yet".into())),
        }
    }

    async fn with_members(worker: Process, streams: usize) -> Result<Self, BenchError> {
        let bootstrap: Vec<_> = worker.status.listen.iter().filter_map(|address| address.parse().ok()).collect();
        let (mut members, mut ways) = (Vec::new(), Vec::new());
        for _ in 0..streams.div_ceil(PER_BUYER).min(MAX_BUYERS) {
            let member = Member::start(MemberSpec::buyer(bootstrap.clone())).await?;
            member.knows(MODEL, 1, FORM).await?;
            ways.push(Way::Buyer(member.node.buyer().clone()));
            members.push(member);
        }
        Ok(Far { worker, members, ways })
    }

    /// How to ask it.
    pub(super) fn ways(&self) -> &[Way] {
        &self.ways
    }

    /// Whose processor time it costs, apart from this process.
    pub(super) fn processes(&self) -> Vec<(&'static str, u32)> {
        self.worker.pid().map(|pid| ("worker", pid)).into_iter().collect()
    }

    pub(super) async fn stop(mut self) {
        for member in self.members {
            member.node.shutdown(Duration::ZERO).await;
        }
        self.worker.kill().await;
    }
}
