//! The network that is measured: a worker process, and a buyer in this process or in one of its own. Its first jobs hold an
//! auction; from then on the worker is known, and asked at the price in its ad.

use super::{super::BenchError, StreamOptions, ways::Way};
use crate::cluster::{Member, MemberSpec, Sells, eventually, process::Process};
use serde::Serialize;
use std::{fmt, net::SocketAddr, time::Duration};

/// Slots beside those of the streams: a short question's slot is taken until its receipt is on both disks, and the next one does
/// not wait for that.
const SPARE_SLOTS: usize = 512;
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
    buyer: Buyer,
    way: Way,
}

enum Buyer {
    Member(Box<Member>),
    Process(Box<Process>),
}

impl Far {
    /// A network with room for `streams`, over `engine`, whose buyer knows its worker.
    pub(super) async fn start(options: &StreamOptions, engine: &str, streams: usize) -> Result<Self, BenchError> {
        let slots = u16::try_from(streams + SPARE_SLOTS).unwrap_or(u16::MAX);
        let worker = Process::worker(&options.binary, &Sells::new(engine, 1, 1, slots), &[], &[]).await?;
        let bootstrap = &worker.status.listen;
        let (buyer, way) = match options.through {
            Through::Node => {
                let bootstrap = bootstrap.iter().filter_map(|address| address.parse().ok()).collect();
                let member = Member::start(MemberSpec::buyer(bootstrap)).await?;
                let way = Way::Buyer(member.node.buyer().clone());
                (Buyer::Member(Box::new(member)), way)
            }
            Through::Api => {
                let buyer = Process::buyer(&options.binary, bootstrap, &["--api-listen", "127.0.0.1:0"]).await?;
                let url = buyer.status.api.clone();
                let url = url.ok_or_else(|| BenchError::Options("the buyer's node has no OpenAI endpoint".into()))?;
                (Buyer::Process(Box::new(buyer)), Way::api(&url)?)
            }
        };
        eventually("the first job", FORM, || async { way.ask_shortly().await.is_ok() }).await?;
        Ok(Far { worker, buyer, way })
    }

    /// How to ask it.
    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// The worker's chat endpoint.
    pub(super) fn chat(&self) -> Result<SocketAddr, BenchError> {
        self.worker.status.chat.parse().map_err(|_| BenchError::Options("the worker has no chat address".into()))
    }

    /// Whose processor time it costs, apart from this process.
    pub(super) fn processes(&self) -> Vec<(&'static str, u32)> {
        let buyer = match &self.buyer {
            Buyer::Member(_) => None,
            Buyer::Process(buyer) => buyer.pid(),
        };
        let buyer = buyer.map(|pid| ("buyer", pid));
        self.worker.pid().map(|pid| ("worker", pid)).into_iter().chain(buyer).collect()
    }

    pub(super) async fn stop(mut self) {
        match self.buyer {
            Buyer::Member(member) => member.node.shutdown(Duration::ZERO).await,
            Buyer::Process(mut buyer) => buyer.kill().await,
        }
        self.worker.kill().await;
    }
}
