//! Many streams at once: when they count, and what they saw.

use super::{
    super::BenchError,
    RATE,
    ways::{PAUSE, Stop, Way},
};
use crate::{
    cluster::eventually,
    engine::stamp,
    machine::{Distribution, cpu_time, cpu_time_of},
};
use infernet_node::{clock, report::millis};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long samples are taken.
const WINDOW: Duration = Duration::from_secs(10);
/// After the last stream began, until the ramp's wake has settled.
const SETTLE: Duration = Duration::from_secs(1);
/// How long the ramp may take.
const RAMP: Duration = Duration::from_secs(240);
/// How long stopped streams may take to settle: receipts of all of them, on two cores.
const END: Duration = Duration::from_secs(120);
/// A gap this much longer than the token interval is a stall.
const STALL: Duration = Duration::from_millis(250);
/// Questions asked while the streams run, in at most [`WINDOW`].
const QUESTIONS: usize = 500;
/// Before the questions that count: connections are warm, prices known.
const WARM_UP: usize = 5;

/// One way of asking.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// From the call to the first token of a short question beside the streams, in milliseconds.
    pub ttft_ms: Distribution,
    /// From a token's birth in the engine to the caller, in milliseconds.
    pub one_way_ms: Distribution,
    /// How late a token is against its stream's own beat, in milliseconds.
    pub late_ms: Distribution,
    /// Tokens in the window.
    pub tokens: usize,
    /// Gaps of more than 250 ms above the beat.
    pub stalls: usize,
    /// Processor time per token of all processes, in microseconds.
    pub cpu_us_per_token: f64,
    /// The same as a share of all cores. What `direct` takes is the measurement's own, engine and caller: near 100 % there, lateness
    /// and stalls are the machine's and not the network's.
    pub cpu_percent: f64,
    /// Whose it is: engine, worker, buyer, and the caller with what runs in its process.
    pub cpu_us_by_process: BTreeMap<&'static str, f64>,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  first token       ms  {}", self.ttft_ms)?;
        writeln!(f, "  engine to caller  ms  {}", self.one_way_ms)?;
        writeln!(f, "  token late by     ms  {}", self.late_ms)?;
        let parts: Vec<String> = self.cpu_us_by_process.iter().map(|(name, us)| format!("{name} {us:.1}")).collect();
        let (tokens, stalls, cpu, percent) = (self.tokens, self.stalls, self.cpu_us_per_token, self.cpu_percent);
        let parts = parts.join(", ");
        write!(f, "  {tokens} tokens, {stalls} stalls, {cpu:.1} µs CPU per token ({parts}), {percent:.0} % of all cores")
    }
}

/// What streams share.
struct Signals {
    running: AtomicUsize,
    failed: AtomicBool,
    measuring: AtomicBool,
    stop: watch::Sender<bool>,
}

/// Streams by one way, and the processes whose time they cost.
pub(super) struct Stage {
    way: Way,
    processes: Vec<(&'static str, u32)>,
    signals: Arc<Signals>,
}

impl Stage {
    pub(super) fn new(way: Way, processes: Vec<(&'static str, u32)>) -> Self {
        let (running, failed, measuring) = Default::default();
        let signals = Signals { running, failed, measuring, stop: watch::channel(false).0 };
        Stage { way, processes, signals: Arc::new(signals) }
    }

    /// Runs `streams` at once and tells what they saw.
    pub(super) async fn conduct(self, streams: usize) -> Result<Side, BenchError> {
        let started = tokio::spawn(start(self.way.clone(), streams, self.signals.clone()));
        let measured = self.measure(streams).await;
        self.signals.stop.send_replace(true);
        let late = |_| BenchError::Options(format!("streams did not end within {} s", END.as_secs()));
        let ended = timeout(END, started).await.map_err(late)?;
        let ended = ended.map_err(|e| BenchError::Options(e.to_string()))?;
        let samples = ended.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (cpu, ttft) = measured?;
        Ok(side(&samples, ttft, cpu))
    }

    /// Processor time by process, and times to the first token.
    async fn measure(&self, streams: usize) -> Result<(BTreeMap<&'static str, Duration>, Vec<f64>), BenchError> {
        let failed = || self.signals.failed.load(Ordering::Relaxed);
        let settled = || async { self.signals.running.load(Ordering::Relaxed) >= streams || failed() };
        eventually("the start of all streams", RAMP, settled).await?;
        if failed() {
            // Its own error is what the measurement ends with.
            return Ok(Default::default());
        }
        sleep(SETTLE).await;
        let before = self.cpu();
        self.signals.measuring.store(true, Ordering::Relaxed);
        sleep(WINDOW).await;
        self.signals.measuring.store(false, Ordering::Relaxed);
        let spent = self.cpu().into_iter().map(|(name, now)| (name, now - before.get(name).copied().unwrap_or_default()));
        Ok((spent.collect(), self.questions().await?))
    }

    fn cpu(&self) -> BTreeMap<&'static str, Duration> {
        let mut times = BTreeMap::from([("caller", cpu_time())]);
        for (name, pid) in &self.processes {
            *times.entry(*name).or_default() += cpu_time_of(*pid);
        }
        times
    }

    async fn questions(&self) -> Result<Vec<f64>, BenchError> {
        let (mut samples, end) = (Vec::new(), clock::instant() + WINDOW);
        for n in 0..WARM_UP + QUESTIONS {
            let sample = self.way.ask_shortly().await?;
            if n >= WARM_UP {
                samples.push(millis(sample));
            }
            if clock::instant() > end && !samples.is_empty() {
                break;
            }
            sleep(PAUSE).await;
        }
        Ok(samples)
    }
}

/// Starts `streams` one after the other, and waits for their end.
async fn start(way: Way, streams: usize, signals: Arc<Signals>) -> Vec<Result<Samples, BenchError>> {
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        sleep(PAUSE).await;
        let (way, signals) = (way.clone(), signals.clone());
        tasks.spawn(async move { one(way, &signals).await });
    }
    tasks.join_all().await
}

/// One stream until all are stopped.
async fn one(way: Way, signals: &Signals) -> Result<Samples, BenchError> {
    let mut samples = Samples::default();
    let result = way.ask(u32::MAX, &mut |text| samples.token(signals, text), Stop::when(&signals.stop)).await;
    if result.is_err() {
        signals.failed.store(true, Ordering::Relaxed);
    }
    result.map(|()| samples)
}

/// What one stream saw.
#[derive(Default)]
struct Samples {
    started: bool,
    arrivals: Vec<Instant>,
    one_way: Vec<f64>,
}

impl Samples {
    fn token(&mut self, signals: &Signals, text: &str) {
        if !self.started {
            self.started = true;
            signals.running.fetch_add(1, Ordering::Relaxed);
        }
        if signals.measuring.load(Ordering::Relaxed) {
            self.arrivals.push(clock::instant());
            self.one_way.extend(stamp::age(text).map(millis));
        }
    }

    /// Lateness against the beat through the earliest tokens, and stalls.
    fn lateness(&self) -> (Vec<f64>, usize) {
        let Some(first) = self.arrivals.first() else { return (Vec::new(), 0) };
        let offsets: Vec<f64> =
            self.arrivals.iter().enumerate().map(|(n, at)| millis(*at - *first) - n as f64 * 1e3 / RATE).collect();
        let earliest = offsets.iter().copied().fold(f64::INFINITY, f64::min);
        let gap = STALL.as_secs_f64() * 1e3 + 1e3 / RATE;
        let stalls = self.arrivals.windows(2).filter(|w| matches!(w, [a, b] if millis(*b - *a) > gap)).count();
        (offsets.into_iter().map(|o| o - earliest).collect(), stalls)
    }
}

fn side(samples: &[Samples], ttft: Vec<f64>, cpu: BTreeMap<&'static str, Duration>) -> Side {
    let tokens: usize = samples.iter().map(|s| s.arrivals.len()).sum();
    let (mut late, mut stalls) = (Vec::with_capacity(tokens), 0);
    for stream in samples {
        let (offsets, stalled) = stream.lateness();
        late.extend(offsets);
        stalls += stalled;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let spent: Duration = cpu.values().sum();
    let per_token = |cpu: Duration| (cpu.as_secs_f64() * 1e7 / tokens.max(1) as f64).round() / 10.0;
    Side {
        ttft_ms: Distribution::of(ttft),
        one_way_ms: Distribution::of(samples.iter().flat_map(|s| &s.one_way).copied().collect()),
        late_ms: Distribution::of(late),
        tokens,
        stalls,
        cpu_us_per_token: per_token(spent),
        cpu_percent: (1e3 * spent.as_secs_f64() / (WINDOW.as_secs_f64() * cores as f64)).round() / 10.0,
        cpu_us_by_process: cpu.into_iter().map(|(name, time)| (name, per_token(time))).collect(),
    }
}
