//! `bench stream`: what the way through the network adds to a token, against asking the engine directly, in one run.
//!
//! The engine is a metronome: no model, tokens at an exact rate, since two cores can't run a model a thousand times. Buyers
//! and the worker are nodes of this process on real libp2p and real QUIC. Each buyer starts its streams one auction after the
//! other, as fast as workers allow one buyer (burst 20, then 5 a second), so a large number takes a while to ramp up; samples
//! count only while all streams run.

use super::BenchError;
use crate::{
    cluster::{Member, MemberSpec, Sells},
    demo::order,
    engine::{EngineOptions, EngineServer},
    machine::{Distribution, Machine, cpu_time},
};
use futures::StreamExt;
use infernet_node::{buyer::ChatEvent, chat::client::Progress, clock, report::millis};
use serde::Serialize;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Tokens per second of each stream.
const RATE: f64 = 50.0;
/// How long samples are taken.
const WINDOW: Duration = Duration::from_secs(10);
/// Streams of one buyer: its burst of offers, so that the ramp is short.
const PER_BUYER: usize = 20;
/// Offers per second of one buyer, a little below what workers allow.
const OFFER_PAUSE: Duration = Duration::from_millis(210);
/// Buyers at most; more nodes in one process would measure the nodes, not the streams.
const MAX_BUYERS: usize = 16;
/// How long the network may take to form, and the ramp to end.
const PATIENCE: Duration = Duration::from_secs(240);
/// A gap this much longer than the token interval is a stall.
const STALL: Duration = Duration::from_millis(250);

/// What to measure.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Streams at once.
    pub streams: usize,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct StreamResult {
    /// Where.
    pub machine: Machine,
    /// Streams at once.
    pub streams: usize,
    /// Asking the engine directly over HTTP.
    pub direct: Side,
    /// Through buyer and worker.
    pub network: Side,
    /// `network` minus `direct`: processor time per token, in microseconds, of everything in between.
    pub added_cpu_us_per_token: f64,
    /// `network` minus `direct`: median time to the first token after the worker was asked, in milliseconds.
    pub added_ttft_ms: f64,
}

/// One way of asking.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// From the request (direct) or `Open` (network) to the first token, in milliseconds.
    pub ttft_ms: Distribution,
    /// How late a token is against its stream's own beat, in milliseconds.
    pub late_ms: Distribution,
    /// Tokens in the window.
    pub tokens: usize,
    /// Gaps of more than 250 ms above the beat.
    pub stalls: usize,
    /// Processor time per token of this whole process, engine included, in microseconds.
    pub cpu_us_per_token: f64,
}

impl std::fmt::Display for StreamResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{} streams at {RATE} tokens/s", self.streams)?;
        for (name, side) in [("direct", &self.direct), ("network", &self.network)] {
            writeln!(f, "{name}")?;
            writeln!(f, "  first token       ms  {}", side.ttft_ms)?;
            writeln!(f, "  token late by     ms  {}", side.late_ms)?;
            writeln!(f, "  tokens {}, stalls {}, {:.1} µs CPU per token", side.tokens, side.stalls, side.cpu_us_per_token)?;
        }
        write!(f, "added: {:.1} µs CPU per token, {:.3} ms to the first token", self.added_cpu_us_per_token, self.added_ttft_ms)
    }
}

/// Measures.
pub async fn run(options: StreamOptions) -> Result<StreamResult, BenchError> {
    let most = MAX_BUYERS * 128;
    if !(1..=most).contains(&options.streams) {
        return Err(BenchError::Options(format!("use 1 to {most} --streams")));
    }
    let machine = Machine::here();
    let engine = EngineServer::start(EngineOptions::metronome(RATE, u32::MAX >> 12)).await?;
    let direct = direct(&engine.url(), options.streams).await?;
    let network = network(&engine.url(), options.streams).await?;
    engine.shutdown().await;
    Ok(StreamResult {
        machine,
        streams: options.streams,
        added_cpu_us_per_token: network.cpu_us_per_token - direct.cpu_us_per_token,
        added_ttft_ms: network.ttft_ms.p50 - direct.ttft_ms.p50,
        direct,
        network,
    })
}

/// What streams share: how many run, and when samples count.
struct Stage {
    running: AtomicUsize,
    failed: AtomicUsize,
    stop: watch::Sender<bool>,
    measure: watch::Sender<bool>,
}

impl Stage {
    fn new() -> Arc<Self> {
        Arc::new(Stage {
            running: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            stop: watch::channel(false).0,
            measure: watch::channel(false).0,
        })
    }

    /// Whether a stream gave up; its error is what the measurement ends with.
    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) > 0
    }

    fn note<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        self.failed.fetch_add(usize::from(result.is_err()), Ordering::Relaxed);
        result
    }

    /// Waits until all run, lets samples count for a while, stops; returns the processor time spent meanwhile.
    async fn conduct(&self, streams: usize) -> Result<Duration, BenchError> {
        let settled = || async { self.running.load(Ordering::Relaxed) >= streams || self.has_failed() };
        crate::cluster::eventually("the start of all streams", PATIENCE, settled).await?;
        if self.has_failed() {
            self.stop.send_replace(true);
            return Ok(Duration::ZERO);
        }
        sleep(Duration::from_secs(1)).await;
        let before = cpu_time();
        self.measure.send_replace(true);
        sleep(WINDOW).await;
        self.measure.send_replace(false);
        let spent = cpu_time() - before;
        self.stop.send_replace(true);
        Ok(spent)
    }
}

/// What one stream saw.
#[derive(Default)]
struct Samples {
    ttft: Option<f64>,
    arrivals: Vec<Instant>,
    tokens: usize,
}

impl Samples {
    fn token(&mut self, stage: &Stage, started: Instant) {
        let now = clock::instant();
        if self.ttft.is_none() {
            self.ttft = Some(millis(now - started));
            stage.running.fetch_add(1, Ordering::Relaxed);
        }
        if *stage.measure.borrow() {
            self.arrivals.push(now);
            self.tokens += 1;
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

fn side(samples: Vec<Samples>, cpu: Duration) -> Side {
    let tokens: usize = samples.iter().map(|s| s.tokens).sum();
    let (mut late, mut stalls) = (Vec::with_capacity(tokens), 0);
    for stream in &samples {
        let (offsets, stalled) = stream.lateness();
        late.extend(offsets);
        stalls += stalled;
    }
    Side {
        ttft_ms: Distribution::of(samples.iter().filter_map(|s| s.ttft).collect()),
        late_ms: Distribution::of(late),
        tokens,
        stalls,
        cpu_us_per_token: (cpu.as_secs_f64() * 1e7 / tokens.max(1) as f64).round() / 10.0,
    }
}

async fn direct(url: &str, streams: usize) -> Result<Side, BenchError> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let (stage, mut tasks) = (Stage::new(), JoinSet::new());
    for _ in 0..streams {
        let (http, url, stage) = (http.clone(), url.to_owned(), stage.clone());
        tasks.spawn(async move { stage.note(ask_directly(http, url, &stage).await) });
        sleep(Duration::from_millis(1)).await;
    }
    let cpu = stage.conduct(streams).await?;
    let mut samples = Vec::new();
    for result in tasks.join_all().await {
        samples.push(result?);
    }
    Ok(side(samples, cpu))
}

async fn ask_directly(http: reqwest::Client, url: String, stage: &Stage) -> Result<Samples, BenchError> {
    let body = serde_json::json!({ "model": "tiny-chat", "messages": [{ "role": "user", "content": "Go." }], "options": { "num_predict": 1_000_000 } });
    let mut stop = stage.stop.subscribe();
    let (mut samples, started) = (Samples::default(), clock::instant());
    let mut answer = http.post(format!("{url}/api/chat")).json(&body).send().await?.error_for_status()?.bytes_stream();
    loop {
        tokio::select! {
            chunk = answer.next() => match chunk {
                Some(chunk) => for _ in chunk?.iter().filter(|b| **b == b'\n') { samples.token(stage, started) },
                None => return Ok(samples),
            },
            _ = stop.wait_for(|s| *s) => return Ok(samples),
        }
    }
}

async fn network(url: &str, streams: usize) -> Result<Side, BenchError> {
    let slots = u16::try_from(streams * 4).unwrap_or(u16::MAX);
    let hub = Member::start(MemberSpec::buyer(Vec::new())).await?;
    let worker = Member::start(MemberSpec::worker(hub.addresses().await, Sells::new(url, 1, 1, slots))).await?;
    let bootstrap = worker.addresses().await;
    let mut buyers = vec![hub];
    for _ in 1..streams.div_ceil(PER_BUYER).min(MAX_BUYERS) {
        buyers.push(Member::start(MemberSpec::buyer(bootstrap.clone())).await?);
    }
    for buyer in &buyers {
        buyer.knows("tiny-chat", 1, PATIENCE).await?;
    }
    let (stage, mut tasks) = (Stage::new(), JoinSet::new());
    for (n, buyer) in buyers.iter().enumerate() {
        let mine = streams / buyers.len() + usize::from(n < streams % buyers.len());
        let (role, stage) = (buyer.node.buyer().clone(), stage.clone());
        tasks.spawn(async move {
            let mut jobs = JoinSet::new();
            for started in 0..mine {
                if started >= PER_BUYER {
                    sleep(OFFER_PAUSE).await;
                }
                let (role, stage) = (role.clone(), stage.clone());
                jobs.spawn(async move { stage.note(ask_the_network(role, &stage).await) });
            }
            jobs.join_all().await
        });
    }
    let cpu = stage.conduct(streams).await?;
    let mut samples = Vec::new();
    for result in timeout(PATIENCE, tasks.join_all()).await.unwrap_or_default().into_iter().flatten() {
        samples.push(result?);
    }
    for member in buyers.into_iter().chain([worker]) {
        member.node.shutdown(Duration::ZERO).await;
    }
    Ok(side(samples, cpu))
}

async fn ask_the_network(role: infernet_node::buyer::Buyer, stage: &Stage) -> Result<Samples, BenchError> {
    let (events, mut heard) = mpsc::channel(16);
    let mut stop = stage.stop.subscribe();
    let running = async {
        let result = role.chat(order("tiny-chat", "Go.", 1_000_000), &events, &mut stop).await;
        drop(events);
        result
    };
    let watching = async {
        let (mut samples, mut opened) = (Samples::default(), clock::instant());
        while let Some(event) = heard.recv().await {
            match event {
                ChatEvent::Stream(Progress::Opened { .. }) => opened = clock::instant(),
                ChatEvent::Stream(Progress::Text { .. }) => samples.token(stage, opened),
                _ => {}
            }
        }
        samples
    };
    let (report, mut samples) = tokio::join!(running, watching);
    // From `Open`, not from `Opened`: the buyer's own measurement.
    samples.ttft = report?.stream.ttft_ms;
    Ok(samples)
}
