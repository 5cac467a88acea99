//! Hostile buyers and hostile workers against real nodes: real swarms, real QUIC, real stores.
//!
//! `accepts` and `standing` are buyers who want a slot that is not theirs; `streams` are buyers who break the stream once they have one;
//! `resumes` are buyers who come back for a job, their own or not; `workers` are workers who cheat a buyer. A [`Rogue`](rogue::Rogue) is a member of the mesh whose every message is made by
//! hand. After each attack the [`Stage`] tells what must hold: the refusal is counted under its reason, no slot is lost, the
//! engine heard nothing, and an honest job still gets its answer.
#![cfg(test)]

mod accepts;
mod payments;
mod resumes;
mod rogue;
mod standing;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod workers;

use infernet_node::{chat::framing::FrameError, report::ChatReport};
use infernet_testnet::{
    cluster::{Member, MemberSpec, Sells, eventually},
    demo::order,
    engine::{EngineEvent, EngineOptions, EngineServer},
};
use std::time::Duration;
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::timeout,
};

/// Far above what any step takes; reached only when something hangs.
const SOON: Duration = Duration::from_secs(30);
/// What everybody here serves and asks for.
const MODEL: &str = "tiny-chat";
/// Jobs at once: a stranger may then hold four.
const SLOTS: u16 = 8;

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}

/// A worker with its engine, an honest buyer, and what both publish.
struct Stage {
    worker: Member,
    honest: Member,
    events: broadcast::Receiver<EngineEvent>,
    gossip: mpsc::Receiver<(String, Vec<u8>)>,
    _engine: Option<EngineServer>,
}

impl Stage {
    async fn start() -> Self {
        let options = EngineOptions { tokens_per_second: Some(100.0), ..EngineOptions::default() };
        let engine = EngineServer::start(options).await.expect("the engine starts");
        let stage = Stage::over(&engine.url()).await;
        Stage { events: engine.events(), _engine: Some(engine), ..stage }
    }

    /// With an engine of the test's own, which tells nothing.
    async fn over(engine: &str) -> Self {
        Stage::with_slots(engine, SLOTS).await
    }

    async fn with_slots(engine: &str, slots: u16) -> Self {
        let (tap, gossip) = mpsc::channel(10_000);
        let spec = MemberSpec::worker(Vec::new(), Sells::new(engine, 100_000, 400_000, slots));
        let worker = Member::start(MemberSpec { tap: Some(tap), ..spec }).await.expect("the worker starts");
        let honest = Member::start(MemberSpec::buyer(worker.addresses().await)).await.expect("the buyer starts");
        honest.knows(MODEL, 1, SOON).await.expect("the worker is known");
        Stage { events: broadcast::channel(1).1, worker, honest, gossip, _engine: None }
    }

    /// A counter of the worker, be it the node's or the seller's.
    async fn counter(&self, name: &str) -> u64 {
        let seller = self.worker.node.status().await.seller.expect("it sells").counters;
        seller.get(name).copied().unwrap_or_default() + self.worker.node.counters().await.get(name).copied().unwrap_or_default()
    }

    /// Waits until a counter has reached `n`.
    async fn counted(&self, name: &str, n: u64) {
        let reached = || async { self.counter(name).await >= n };
        eventually(&format!("{name} = {n}"), SOON, reached).await.expect("it is counted");
        assert_eq!(self.counter(name).await, n, "{name}");
    }

    async fn running(&self) -> usize {
        self.worker.node.status().await.seller.expect("it sells").running
    }

    async fn held(&self) -> usize {
        self.worker.node.status().await.seller.expect("it sells").held
    }

    /// Waits until no slot is taken and no receipt is being signed.
    async fn idle(&self) {
        let under_way = || async { self.worker.node.status().await.seller.expect("it sells").under_way() };
        eventually("every job is over", SOON, || async { under_way().await == 0 }).await.expect("idle");
    }

    /// Waits until `n` receipts are kept by the worker, and tells how many of them the buyer signed.
    async fn receipts(&self, n: u64) -> u64 {
        let counts = || self.worker.node.store().counts().expect("the store answers");
        eventually("the receipts are kept", SOON, || async { counts().receipts >= n }).await.expect("kept");
        assert_eq!(counts().receipts, n);
        counts().countersigned
    }

    fn engine_heard_nothing(&mut self) {
        let event = self.events.try_recv();
        assert!(matches!(event, Err(broadcast::error::TryRecvError::Empty)), "the engine heard of {event:?}");
    }

    /// The engine's next event that `wanted` takes.
    async fn engine(&mut self, what: &str, wanted: impl Fn(EngineEvent) -> bool) -> EngineEvent {
        soon(what, async {
            loop {
                let event = self.events.recv().await.expect("the engine runs");
                if wanted(event) {
                    return event;
                }
            }
        })
        .await
    }

    /// A job of the honest buyer, which must go well whatever happened before.
    async fn honest_job(&mut self) -> ChatReport {
        let (events, mut heard) = mpsc::channel(16);
        let (_never, mut cancel) = watch::channel(false);
        let listening = tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let asked = order(MODEL, "Tell me a story about a fox.", 8);
        let report = soon("an honest job", self.honest.node.buyer().chat(asked, &events, &mut cancel)).await;
        drop(events);
        listening.await.expect("the listener ends");
        let report = report.expect("an honest job gets its answer");
        assert!(report.receipt.as_ref().is_some_and(|r| r.verified) && !report.answer.is_empty());
        self.engine("the honest job ends", |event| matches!(event, EngineEvent::Finished { .. })).await;
        self.idle().await;
        report
    }
}

/// Whether a stream is over in order.
fn is_over(error: &FrameError) -> bool {
    matches!(error, FrameError::Closed | FrameError::Io(_))
}
