//! `bench relay`: what a relay, a process of its own on loopback, costs and withstands.
//!
//! 1. *latency*: token frames are echoed on `streams` streams at once, with a frame every 20 ms on each: through the relay, and
//!    over a direct connection of the same two libraries, in turns of 2 s, so that both have the same machine. A frame's way there
//!    and back passes the relay twice.
//! 2. *fairness*: peers echo at a steady pace, alone, and then beside one that sends on all the circuits it may have as fast as it can.
//! 3. *memory*: the relay's resident memory with so many reservations, and with an idle circuit to each of them.
//!
//! With `secs` above zero also one stream that long, of more than 10 MB.

use super::{BenchError, goal::Goal};
use crate::{
    circuit::{CircuitError, Peer},
    machine::{Machine, rss_kb_of},
};
use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use infernet_node::clock;
use libp2p::{Multiaddr, PeerId};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A token with its frame.
const FRAME: usize = 120;
/// Between two frames of a stream.
const PACE: Duration = Duration::from_millis(20);
/// How long each half of fairness is measured.
const MEASURED: Duration = Duration::from_secs(10);
/// Of latency, a turn's time, and how many turns each way has.
const TURN: Duration = Duration::from_secs(2);
const TURNS: usize = 5;
/// What an honest stream sends at once when fairness is measured, each [`PACE`]: 25 kB/s.
const HONEST: usize = 500;
/// Circuits of the greedy peer.
const GREEDY: usize = 16;
/// Reservations asked for at once.
const BATCH: usize = 16;
const PING: Duration = Duration::from_secs(15);

/// What to measure.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Streams of latency, and honest peers' streams.
    pub streams: usize,
    /// Reservations.
    pub reservations: usize,
    /// Seconds of the long stream; 0: none.
    pub secs: u64,
    /// A program whose `relay` subcommand is `infernet-relay`.
    pub binary: PathBuf,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct RelayResult {
    /// Where.
    pub machine: Machine,
    /// Streams at once.
    pub streams: usize,
    /// The 50th and 99th percentile of a frame's way there and back, directly, in milliseconds.
    pub direct_ms: [f64; 2],
    /// The same through the relay.
    pub relayed_ms: [f64; 2],
    /// What one pass through the relay adds to the 99th percentile, in milliseconds.
    pub added_p99_ms: f64,
    /// Bytes a second that honest streams get together, alone.
    pub honest_alone: f64,
    /// The same beside a greedy peer.
    pub honest_beside_greedy: f64,
    /// Bytes a second that the greedy one got.
    pub greedy: f64,
    /// Reservations.
    pub reservations: usize,
    /// The relay's resident memory before them, in kB.
    pub rss_kb_before: u64,
    /// And with them.
    pub rss_kb_after: u64,
    /// And with an idle circuit to each.
    pub rss_kb_circuits: u64,
    /// Bytes that the long stream brought back, of those sent; none if it was not measured.
    pub long_stream: Option<[u64; 2]>,
}

impl RelayResult {
    /// What it should be.
    fn goals(&self) -> [Goal; 2] {
        let kept = 100.0 * self.honest_beside_greedy / self.honest_alone.max(1.0);
        [
            Goal::at_most("one pass adds to p99, ms", self.added_p99_ms, 1.0),
            Goal::at_least("the honest keep beside a greedy peer, %", kept, 90.0),
        ]
    }
}

impl std::fmt::Display for RelayResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ([dp50, dp99], [rp50, rp99]) = (self.direct_ms, self.relayed_ms);
        writeln!(f, "{} streams: there and back p50 {dp50:.2} ms, p99 {dp99:.2} ms directly", self.streams)?;
        writeln!(
            f,
            "  through the relay p50 {rp50:.2} ms, p99 {rp99:.2} ms: one pass adds {:.2} ms to p99",
            self.added_p99_ms
        )?;
        let share = 100.0 * self.honest_beside_greedy / self.honest_alone.max(1.0);
        writeln!(f, "beside a greedy peer ({:.1} MB/s) the honest keep {share:.1} % of their throughput", self.greedy / 1e6)?;
        let kb = self.rss_kb_after.saturating_sub(self.rss_kb_before);
        writeln!(f, "{} reservations: {} kB resident, {} more than before", self.reservations, self.rss_kb_after, kb)?;
        let kb = self.rss_kb_circuits.saturating_sub(self.rss_kb_after);
        writeln!(f, "an idle circuit to each: {} kB resident, {kb} more", self.rss_kb_circuits)?;
        if let Some([got, sent]) = self.long_stream {
            writeln!(f, "the long stream: {got} bytes came back of {sent}")?;
        }
        self.goals().iter().try_for_each(|goal| writeln!(f, "{goal}"))?;
        write!(f, "measured on {}", self.machine)
    }
}

fn failed(error: CircuitError) -> BenchError {
    BenchError::Options(error.to_string())
}

struct Relay {
    process: Child,
    address: Multiaddr,
}

impl Relay {
    /// Limits per prefix are lifted, since all come from one.
    async fn start(program: &Path, home: &Path) -> Result<Self, BenchError> {
        let lifted = ["reservations-per-prefix", "circuits-per-prefix", "reservations", "circuits-per-target", "circuits"];
        let mut command = Command::new(program);
        command.arg("relay").arg("--home").arg(home).args([
            "--json",
            "start",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--http-listen",
            "none",
        ]);
        command.args(["--watch-listen", "none", "--log", "error"]);
        command.args(lifted.map(|limit| format!("--{limit}=4096")));
        let started = command.stdout(Stdio::piped()).kill_on_drop(true).spawn();
        let mut process = started?;
        let out = process.stdout.take().ok_or_else(|| BenchError::Options("the relay says nothing".into()))?;
        let line = BufReader::new(out).lines().next_line().await?.unwrap_or_default();
        let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let address = told.pointer("/listen/0").and_then(|it| it.as_str()).and_then(|it| it.parse().ok());
        let address = address.ok_or_else(|| BenchError::Options(format!("the relay told no address: {line:?}")))?;
        Ok(Relay { process, address })
    }

    fn rss_kb(&self) -> u64 {
        self.process.id().and_then(rss_kb_of).unwrap_or_default()
    }
}

/// A peer, and one that it reaches through the relay.
async fn pair(relay: &Relay) -> Result<(Peer, Peer), BenchError> {
    let (mut target, mut source) = (Peer::start(PING).map_err(failed)?, Peer::start(PING).map_err(failed)?);
    let reached = target.reserve(&relay.address).await.map_err(failed)?;
    source.connect(&reached).await.map_err(failed)?;
    Ok((source, target))
}

/// Measures.
pub async fn run(options: &RelayOptions) -> Result<RelayResult, BenchError> {
    let home = tempfile::tempdir()?;
    let relay = Relay::start(&options.binary, home.path()).await?;
    let mut pairs = Vec::new();
    for _ in 0..8 {
        pairs.push(pair(&relay).await?);
    }
    let mut direct = Vec::new();
    for _ in 0..8 {
        let (target, mut source) = (Peer::start(PING).map_err(failed)?, Peer::start(PING).map_err(failed)?);
        let mut target = target;
        let at = target.listen().await.map_err(failed)?;
        source.connect(&at).await.map_err(failed)?;
        direct.push((source, target));
    }
    let (mut relayed, mut directly) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        relayed.extend(latency(&pairs, options.streams).await?);
        directly.extend(latency(&direct, options.streams).await?);
    }
    for samples in [&mut relayed, &mut directly] {
        samples.sort_by(f64::total_cmp);
    }
    drop(direct);

    let honest_alone = throughput(&pairs, options.streams).await?;
    let (honest_beside_greedy, greedy) = beside_greedy(&relay, &pairs, options.streams).await?;
    let long_stream = if options.secs > 0 { Some(long(&pairs, options.secs).await?) } else { None };
    drop(pairs);

    let rss_kb_before = relay.rss_kb();
    let mut kept = Vec::new();
    while kept.len() < options.reservations {
        let few = (options.reservations - kept.len()).min(BATCH);
        let made = join_all((0..few).map(|_| async {
            let mut peer = Peer::start(PING)?;
            let reached = peer.reserve(&relay.address).await?;
            Ok::<_, CircuitError>((peer, reached))
        }));
        for peer in made.await {
            kept.push(peer.map_err(failed)?);
        }
    }
    let rss_kb_after = relay.rss_kb();
    let mut sources = Vec::new();
    for some in kept.chunks(GREEDY) {
        let mut source = Peer::start(PING).map_err(failed)?;
        for (_, reached) in some {
            source.connect(reached).await.map_err(failed)?;
        }
        sources.push(source);
    }
    let rss_kb_circuits = relay.rss_kb();
    let [direct_ms, relayed_ms] = [directly, relayed].map(|samples| [at(&samples, 50), at(&samples, 99)]);
    let ([_, direct_p99], [_, relayed_p99]) = (direct_ms, relayed_ms);
    Ok(RelayResult {
        machine: Machine::here(),
        streams: options.streams,
        direct_ms,
        relayed_ms,
        added_p99_ms: (relayed_p99 - direct_p99) / 2.0,
        honest_alone,
        honest_beside_greedy,
        greedy,
        reservations: kept.len(),
        rss_kb_before,
        rss_kb_after,
        rss_kb_circuits,
        long_stream,
    })
}

/// The times of frames, in milliseconds.
async fn latency(pairs: &[(Peer, Peer)], streams: usize) -> Result<Vec<f64>, BenchError> {
    let each = pairs.iter().cycle().take(streams).map(|(source, target)| frames(source, target.id, FRAME, TURN));
    let mut all = Vec::new();
    for one in join_all(each).await {
        all.extend(one?);
    }
    Ok(all)
}

/// Echoes of `bytes` at a steady pace for so long; how long each took.
async fn frames(source: &Peer, target: PeerId, bytes: usize, time: Duration) -> Result<Vec<f64>, BenchError> {
    let mut stream = source.echo(target).await.map_err(failed)?;
    let (began, mut took) = (clock::instant(), Vec::new());
    let (out, mut back) = (vec![7; bytes], vec![0; bytes]);
    let mut tick = tokio::time::interval(PACE);
    while began.elapsed() < time {
        tick.tick().await;
        let sent = clock::instant();
        stream.write_all(&out).await?;
        stream.flush().await?;
        stream.read_exact(&mut back).await?;
        took.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// Bytes a second of all honest streams.
async fn throughput(pairs: &[(Peer, Peer)], streams: usize) -> Result<f64, BenchError> {
    let each = pairs.iter().cycle().take(streams).map(|(source, target)| frames(source, target.id, HONEST, MEASURED));
    let mut count = 0;
    for one in join_all(each).await {
        count += one?.len();
    }
    Ok((count * HONEST) as f64 / MEASURED.as_secs_f64())
}

async fn beside_greedy(relay: &Relay, pairs: &[(Peer, Peer)], streams: usize) -> Result<(f64, f64), BenchError> {
    let mut source = Peer::start(PING).map_err(failed)?;
    let mut targets = Vec::new();
    for _ in 0..GREEDY {
        let mut target = Peer::start(PING).map_err(failed)?;
        let reached = target.reserve(&relay.address).await.map_err(failed)?;
        source.connect(&reached).await.map_err(failed)?;
        targets.push(target);
    }
    let pushing = targets.iter().map(|target| push(&source, target.id));
    let (honest, pushed) = tokio::join!(throughput(pairs, streams), join_all(pushing));
    let pushed: u64 = pushed.into_iter().sum::<Result<u64, BenchError>>()?;
    Ok((honest?, pushed as f64 / MEASURED.as_secs_f64()))
}

/// Sends as much as goes, and reads what comes back; how much came.
async fn push(source: &Peer, target: PeerId) -> Result<u64, BenchError> {
    let (mut reader, mut writer) = source.echo(target).await.map_err(failed)?.split();
    let mut back = vec![0; 64 * 1024];
    let mut got = 0;
    let piece = vec![9; 64 * 1024];
    let writing = async { while writer.write_all(&piece).await.is_ok() {} };
    let reading = async {
        while let Ok(length) = reader.read(&mut back).await {
            if length == 0 {
                break;
            }
            got += length as u64;
        }
    };
    let both = futures::future::join(writing, reading);
    let _ = tokio::time::timeout(MEASURED, both).await;
    Ok(got)
}

/// 70 kB/s for `secs`: more than 10 MB in 180 s.
async fn long(pairs: &[(Peer, Peer)], secs: u64) -> Result<[u64; 2], BenchError> {
    const PIECE: usize = 7_000;
    let (source, target) = pairs.first().ok_or_else(|| BenchError::Options("no pair".into()))?;
    let mut stream = source.echo(target.id).await.map_err(failed)?;
    let (began, mut counts) = (clock::instant(), [0, 0]);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut back = vec![0; PIECE];
    while began.elapsed() < Duration::from_secs(secs) {
        tick.tick().await;
        stream.write_all(&[1; PIECE]).await?;
        stream.flush().await?;
        let [got, sent] = &mut counts;
        *sent += PIECE as u64;
        stream.read_exact(&mut back).await?;
        *got += PIECE as u64;
    }
    Ok(counts)
}

/// A percentile of sorted samples.
fn at(samples: &[f64], percent: usize) -> f64 {
    samples.get((samples.len() * percent / 100).min(samples.len().saturating_sub(1))).copied().unwrap_or_default()
}
