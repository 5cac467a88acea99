//! `bench stream`: what the way through the network adds to a token, against asking the engine directly, in one run.
//!
//! The engine is a metronome: no model, tokens at an exact rate, since two cores can't run a model a thousand times. Each token
//! is the time at which it was made, so that the way from the engine to the caller is measured, not guessed. Engine, worker and,
//! for `--through api`, the buyer are processes of their own: their processor time is their own.
//!
//! For each number of streams, first directly (`ways`), then through the network (`far`):
//! 1. all streams start; when each has had a token, samples count for a while (`stage`);
//! 2. while they go on, one more caller asks short questions, one after the other: the time to its first token;
//! 3. for one stream alone, a long answer as fast as it comes: what a token costs when nobody waits for the engine.
//!
//! **Where the time to the first token goes**: medians in µs of 455 short questions through the buyer's role, one after the other
//! beside one stream, on two virtual cores with other work on them, all processes at real-time priority. 110: the buyer has
//! prepared, chosen, signed (40) and written. 228: the worker's task has the stream. 344: it has read, claimed and checked (64), and
//! asks the engine. 502: the engine's handler. 651: its answer is back. 677: the token is written. 759: the caller has it.
//! Directly: 97 to the handler, 196 to the caller. So about 100 are arithmetic, and the rest is four changes of process at 80 to 120
//! each, two of which a direct caller pays as well. Checking the signature while the engine begins was tried: it changed the order
//! of checks, and no gain showed in repeated runs.

mod far;
mod stage;
mod ways;

pub use far::Through;
pub use stage::Side;

use super::{BenchError, engine::EngineProcess};
use crate::machine::Machine;
use far::Far;
use serde::Serialize;
use stage::Stage;
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use ways::Way;

/// Tokens per second of each stream.
const RATE: f64 = 50.0;
/// Streams at once at most: what the engine has room for, with some to spare for questions.
const MAX_STREAMS: usize = 2_048;
/// Tokens of the long answer: long enough that its beginning does not count.
const FULL_SPEED_TOKENS: u32 = 20_000;
/// Faster than anything can make tokens, so that it never waits.
const FULL_SPEED_RATE: f64 = 10e6;

/// What to measure.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Streams at once; each number is measured.
    pub streams: Vec<usize>,
    /// Which way through the network.
    pub through: Through,
    /// A program whose `node` and `engine` subcommands are `infernet` and the engine.
    pub binary: PathBuf,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct StreamResult {
    /// Where.
    pub machine: Machine,
    /// Which way through the network.
    pub through: Through,
    /// One for each number of streams.
    pub rows: Vec<Row>,
}

/// One number of streams, side by side.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Streams at once.
    pub streams: usize,
    /// Load average of the last minute when it began.
    pub load_1m: f64,
    /// Asking the engine directly over HTTP.
    pub direct: Side,
    /// Through buyer and worker.
    pub network: Side,
    /// `network` minus `direct`.
    pub added: Added,
    /// One long answer as fast as it comes; only for one stream.
    pub full_speed: Option<FullSpeed>,
}

/// What the way through the network costs, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Added {
    /// Median time to the first token.
    pub ttft_p50_us: f64,
    /// Time to the first token that 99 of 100 stay below.
    pub ttft_p99_us: f64,
    /// Median way from engine to caller.
    pub one_way_p50_us: f64,
    /// Way from engine to caller that 99 of 100 stay below.
    pub one_way_p99_us: f64,
    /// Processor time per token, of all processes together.
    pub cpu_us_per_token: f64,
}

/// A long answer, in microseconds per token.
#[derive(Debug, Clone, Serialize)]
pub struct FullSpeed {
    /// Its length.
    pub tokens: u32,
    /// Directly.
    pub direct_us_per_token: f64,
    /// Through the network.
    pub network_us_per_token: f64,
    /// The difference: (duration − direct duration) / tokens.
    pub added_us_per_token: f64,
}

impl fmt::Display for StreamResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        write!(f, "streams at {RATE} tokens/s, through the {}", self.through)?;
        self.rows.iter().try_for_each(|row| write!(f, "\n\n{row}"))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} streams, load {:.2}", self.streams, self.load_1m)?;
        writeln!(f, "direct\n{}", self.direct)?;
        writeln!(f, "network\n{}", self.network)?;
        let Added { ttft_p50_us, ttft_p99_us, one_way_p50_us, one_way_p99_us, cpu_us_per_token } = self.added;
        writeln!(f, "added")?;
        writeln!(f, "  first token       µs  p50 {ttft_p50_us:.0}  p99 {ttft_p99_us:.0}")?;
        writeln!(f, "  engine to caller  µs  p50 {one_way_p50_us:.0}  p99 {one_way_p99_us:.0}")?;
        write!(f, "  CPU per token     µs  {cpu_us_per_token:.1}")?;
        match &self.full_speed {
            Some(full) => write!(
                f,
                "\n  at full speed     µs per token  {:.1} = {:.1} − {:.1}",
                full.added_us_per_token, full.network_us_per_token, full.direct_us_per_token
            ),
            None => Ok(()),
        }
    }
}

/// Measures.
pub async fn run(options: StreamOptions) -> Result<StreamResult, BenchError> {
    if options.streams.is_empty() || options.streams.iter().any(|streams| !(1..=MAX_STREAMS).contains(streams)) {
        return Err(BenchError::Options(format!("use 1 to {MAX_STREAMS} --streams, as in --streams 1,64,512")));
    }
    let machine = Machine::here();
    let mut rows = Vec::new();
    for streams in &options.streams {
        // In a task, as a node's callers are: on the main thread every step would cost a change of threads.
        let measured = tokio::spawn(row(options.clone(), *streams)).await;
        rows.push(measured.map_err(|e| BenchError::Options(e.to_string()))??);
    }
    Ok(StreamResult { machine, through: options.through, rows })
}

async fn row(options: StreamOptions, streams: usize) -> Result<Row, BenchError> {
    let load_1m = Machine::here().load_1m;
    let engine = EngineProcess::metronome(&options.binary, RATE).await?;
    let direct = Stage::new(Way::direct(engine.url())?, vec![("engine", engine.pid())]).conduct(streams).await?;
    let far = Far::start(&options, engine.url(), streams).await?;
    let processes = [vec![("engine", engine.pid())], far.processes()].concat();
    let network = Stage::new(far.way().clone(), processes).conduct(streams).await;
    far.stop().await;
    let (network, full_speed) = (network?, if streams == 1 { Some(full_speed(&options).await?) } else { None });
    Ok(Row { streams, load_1m, added: added(&direct, &network), direct, network, full_speed })
}

/// `streams` through the buyer's role, first as ever, then while what `begin` starts against the worker's chat endpoint runs.
pub(super) async fn flooded<T>(
    binary: &Path,
    streams: usize,
    begin: impl FnOnce(SocketAddr) -> T,
) -> Result<(Side, Side, T), BenchError> {
    let options = StreamOptions { streams: vec![streams], through: Through::Node, binary: binary.to_owned() };
    let engine = EngineProcess::metronome(binary, RATE).await?;
    let far = Far::start(&options, engine.url(), streams).await?;
    let stage = || Stage::new(far.way().clone(), [vec![("engine", engine.pid())], far.processes()].concat());
    let quiet = stage().conduct(streams).await?;
    let begun = begin(far.chat()?);
    let flooded = stage().conduct(streams).await;
    far.stop().await;
    Ok((quiet, flooded?, begun))
}

fn added(direct: &Side, network: &Side) -> Added {
    let us = |of: &dyn Fn(&Side) -> f64| ((of(network) - of(direct)) * 1e4).round() / 10.0;
    Added {
        ttft_p50_us: us(&|side| side.ttft_ms.p50),
        ttft_p99_us: us(&|side| side.ttft_ms.p99),
        one_way_p50_us: us(&|side| side.one_way_ms.p50),
        one_way_p99_us: us(&|side| side.one_way_ms.p99),
        cpu_us_per_token: us(&|side| side.cpu_us_per_token / 1e3),
    }
}

/// Side by side, with an engine of its own.
async fn full_speed(options: &StreamOptions) -> Result<FullSpeed, BenchError> {
    let engine = EngineProcess::metronome(&options.binary, FULL_SPEED_RATE).await?;
    let direct = Way::direct(engine.url())?.time_per_token(FULL_SPEED_TOKENS).await?;
    let far = Far::start(options, engine.url(), 1).await?;
    let network = far.way().time_per_token(FULL_SPEED_TOKENS).await;
    far.stop().await;
    let round = |us: f64| (us * 10.0).round() / 10.0;
    let (direct, network) = (direct.as_secs_f64() * 1e6, network?.as_secs_f64() * 1e6);
    Ok(FullSpeed {
        tokens: FULL_SPEED_TOKENS,
        direct_us_per_token: round(direct),
        network_us_per_token: round(network),
        added_us_per_token: round(network - direct),
    })
}
