//! `bench dial`: a flash crowd at a worker's chat endpoint, and its live streams under a flood of handshakes that are none.
//!
//! **The crowd**: buyers, each with a key and a socket of its own, dial one worker process at the same moment. A dial is over when
//! the worker has answered on a stream: a TLS 1.3 client's own handshake ends before it was let in. The buyers are in this
//! process and cost as much as the worker does.
//!
//! **The flood**: streams through the buyer's role as in `bench stream`, first in quiet, then while datagrams come that are
//! well-formed QUIC Initials but for their keys, each from a connection id of its own (RFC 9000 §17.2.2), in one run.

use super::{BenchError, engine::EngineProcess, goal::Goal, stream};
use crate::{
    cluster::{Sells, process::Process},
    machine::{Distribution, Machine},
    stranger::fresh_key,
};
use infernet_node::{
    chat::{
        deadline,
        endpoint::Endpoint,
        framing::{FrameReader, FrameWriter},
    },
    clock,
    report::millis,
};
use infernet_wire::{chat::Frame, id::NodeId};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::UdpSocket,
    sync::Barrier,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};

/// Dials at most: each has a socket.
const MAX_DIALS: usize = 4_000;
/// Tokens per second of the streams.
const RATE: f64 = 50.0;
/// Datagrams a second at most.
const MAX_NOISE: u32 = 50_000;
/// Between two bursts of datagrams.
const BURST: Duration = Duration::from_millis(2);
/// An Initial (RFC 9000 §14.1).
const INITIAL: usize = 1_200;

/// What to measure.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// Buyers that dial at once.
    pub dials: usize,
    /// Streams under the flood; 0: no flood.
    pub streams: usize,
    /// Datagrams a second.
    pub noise: u32,
    /// A program whose `node` and `engine` subcommands are `infernet` and the engine.
    pub binary: PathBuf,
}

/// The result.
#[derive(Debug, Serialize)]
pub struct DialResult {
    /// Where.
    pub machine: Machine,
    /// Buyers that dialled at once.
    pub dials: usize,
    /// From the moment to the worker's last answer, in milliseconds.
    pub all_ms: f64,
    /// From the moment to a buyer's answer, in milliseconds.
    pub dial_ms: Distribution,
    /// Why others got none.
    pub failed: BTreeMap<String, usize>,
    /// Streams under the flood.
    pub flood: Option<Flood>,
}

/// Live streams and a flood.
#[derive(Debug, Serialize)]
pub struct Flood {
    /// Streams at once.
    pub streams: usize,
    /// Datagrams a second that were to be sent.
    pub noise: u32,
    /// Those that were sent.
    pub sent_per_second: f64,
    /// How late tokens were before it, in milliseconds.
    pub quiet_late_ms: Distribution,
    /// How late they were in it.
    pub flooded_late_ms: Distribution,
    /// Gaps of more than 250 ms above the beat, before and in it.
    pub stalls: [usize; 2],
}

impl DialResult {
    /// Whether every dial had its answer.
    pub fn is_well(&self) -> bool {
        self.failed() == 0
    }

    fn failed(&self) -> usize {
        self.failed.values().sum()
    }

    /// What it should be.
    fn goals(&self) -> Vec<Goal> {
        let mut goals = vec![
            Goal::at_most("all dials over after, ms", self.all_ms, 3_000.0),
            Goal::at_most("failed dials", self.failed() as f64, 0.0),
        ];
        goals.extend(self.flood.as_ref().map(|flood| {
            let times = flood.flooded_late_ms.p99 / flood.quiet_late_ms.p99;
            Goal::at_most("p99 under the flood, times that in quiet", times, 2.0)
        }));
        goals
    }
}

impl fmt::Display for DialResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let failed = self.failed();
        writeln!(f, "{} dials at once: {failed} failed, all over after {:.0} ms", self.dials, self.all_ms)?;
        self.failed.iter().try_for_each(|(why, n)| writeln!(f, "  {n} failed: {why}"))?;
        write!(f, "  dial ms  {}", self.dial_ms)?;
        if let Some(flood) = &self.flood {
            let [quiet, flooded] = flood.stalls;
            writeln!(f, "\n{} streams, {:.0} bogus Initials a second", flood.streams, flood.sent_per_second)?;
            writeln!(f, "  quiet    token late by ms  {}, {quiet} stalls", flood.quiet_late_ms)?;
            write!(f, "  flooded  token late by ms  {}, {flooded} stalls", flood.flooded_late_ms)?;
        }
        self.goals().iter().try_for_each(|goal| write!(f, "\n{goal}"))
    }
}

/// Measures.
pub async fn run(options: DialOptions) -> Result<DialResult, BenchError> {
    if !(1..=MAX_DIALS).contains(&options.dials) || options.noise > MAX_NOISE {
        return Err(BenchError::Options(format!("use 1 to {MAX_DIALS} --dials, and at most {MAX_NOISE} --noise")));
    }
    let machine = Machine::here();
    let engine = EngineProcess::metronome(&options.binary, RATE).await?;
    let mut worker = Process::worker(&options.binary, &Sells::new(engine.url(), 1, 1, 4), &[], &[]).await?;
    let chat = address(&worker)?;
    let mut buyers = Vec::new();
    for _ in 0..options.dials {
        let buyer = Endpoint::bind(&fresh_key(), (Ipv4Addr::LOCALHOST, 0).into());
        buyers.push(buyer.map_err(|error| BenchError::Options(error.to_string()))?);
    }
    let (all_ms, dialled, failed) = crowd(buyers, worker.status.id, chat).await;
    worker.kill().await;
    let flood = if options.streams > 0 { Some(flood(&options).await?) } else { None };
    Ok(DialResult { machine, dials: options.dials, all_ms, dial_ms: Distribution::of(dialled), failed, flood })
}

fn address(worker: &Process) -> Result<SocketAddr, BenchError> {
    worker.status.chat.parse().map_err(|_| BenchError::Options("the worker has no chat address".into()))
}

/// All dial at once; returns when the last answer came, when each did, and why others didn't.
async fn crowd(buyers: Vec<Endpoint>, worker: NodeId, chat: SocketAddr) -> (f64, Vec<f64>, BTreeMap<String, usize>) {
    let together = Arc::new(Barrier::new(buyers.len() + 1));
    let mut dials = JoinSet::new();
    for buyer in &buyers {
        let (buyer, together) = (buyer.clone(), together.clone());
        dials.spawn(async move {
            together.wait().await;
            dial(&buyer, worker, chat).await.map(|()| clock::instant())
        });
    }
    together.wait().await;
    let begun = clock::instant();
    let (mut dialled, mut failed) = (Vec::new(), BTreeMap::new());
    while let Some(done) = dials.join_next().await {
        match done {
            Ok(Ok(at)) => dialled.push(millis(at - begun)),
            Ok(Err(why)) => *failed.entry(why).or_insert(0) += 1,
            Err(error) => *failed.entry(error.to_string()).or_insert(0) += 1,
        }
    }
    (millis(begun.elapsed()), dialled, failed)
}

/// Until the worker has answered a stream: it refuses what asks for nothing.
async fn dial(buyer: &Endpoint, worker: NodeId, chat: SocketAddr) -> Result<(), String> {
    let connection = buyer.connect(worker, &[chat]).await.map_err(|error| unaddressed(&error.to_string()))?;
    let stream = connection.open().await.map_err(|error| unaddressed(&error.to_string()))?;
    let (mut reader, mut writer) = (FrameReader::new(stream.recv), FrameWriter::new(stream.send));
    let nonsense = Frame::Cancel.encode();
    writer.write(&nonsense, deadline::WRITE).await.map_err(|error| error.label().to_owned())?;
    match reader.next_within(deadline::HANDSHAKE).await {
        Ok(answer) if matches!(answer.frame, Frame::Error(_)) => Ok(()),
        Ok(answer) => Err(format!("answered with {}", answer.frame.label())),
        Err(error) => Err(error.label().to_owned()),
    }
}

/// So that one reason is counted as one.
fn unaddressed(error: &str) -> String {
    error.split_whitespace().filter(|word| !word.contains("127.0.0.1")).collect::<Vec<_>>().join(" ")
}

async fn flood(options: &DialOptions) -> Result<Flood, BenchError> {
    let begin = |chat| Noise::start(chat, options.noise);
    let (quiet, flooded, noise) = stream::flooded(&options.binary, options.streams, begin).await?;
    Ok(Flood {
        streams: options.streams,
        noise: options.noise,
        sent_per_second: noise.stop().await,
        quiet_late_ms: quiet.late_ms,
        flooded_late_ms: flooded.late_ms,
        stalls: [quiet.stalls, flooded.stalls],
    })
}

/// A flood that runs.
pub(super) struct Noise {
    task: JoinHandle<()>,
    sent: Arc<AtomicU64>,
    begun: Instant,
}

impl Noise {
    fn start(victim: SocketAddr, per_second: u32) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let counted = sent.clone();
        let task = tokio::spawn(async move {
            let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else { return };
            let mut beat = interval(BURST);
            beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let burst = (f64::from(per_second) * BURST.as_secs_f64()).ceil() as u32;
            loop {
                beat.tick().await;
                for _ in 0..burst {
                    if socket.send_to(&bogus(), victim).await.is_ok() {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Noise { task, sent, begun: clock::instant() }
    }

    /// Ends it; datagrams a second.
    async fn stop(self) -> f64 {
        self.task.abort();
        self.sent.load(Ordering::Relaxed) as f64 / self.begun.elapsed().as_secs_f64()
    }
}

/// Header of an Initial of version 1: connection ids of eight bytes, no token, and the length of what follows.
fn bogus() -> Vec<u8> {
    let ids: [u8; 16] = clock::random();
    let (destination, source) = ids.split_at(8);
    let mut datagram = vec![0xc3, 0, 0, 0, 1, 8];
    datagram.extend(destination);
    datagram.push(8);
    datagram.extend(source);
    datagram.push(0);
    let rest = INITIAL - datagram.len() - 2;
    datagram.extend((0x4000 | rest as u16).to_be_bytes());
    let noise: [u8; 32] = clock::random();
    datagram.extend(noise.iter().cycle().take(rest));
    datagram
}
