//! `bench auction`: from the signed offer to the winner's `Opened`.
//!
//! Workers are processes of their own on loopback, all started from one bootstrap address; the buyer, in this process, is
//! connected to at most three of them. Two rounds: the network as it is, and with two more workers, a cheaper one
//! behind a slow link and one that was stopped (SIGSTOP) after it had advertised.
//!
//! With `--rtt-ms` the buyer is far away from all workers: each of its links, mesh and chat, is as long as that. It listens
//! nowhere then, so that nobody reaches it by a shorter way, and the benchmark ends with an error if somebody did.

use super::BenchError;
use crate::{
    cluster::{Member, MemberSpec, Sells, process::Process},
    demo::order,
    engine::{EngineOptions, EngineServer},
    machine::{Distribution, Machine},
    shim::{Link, Quality},
};
use infernet_node::{
    buyer::{ChatEvent, Prepared},
    chat::client::Progress,
    clock,
    report::millis,
};
use infernet_wire::offer::SelectionRule;
use libp2p::{Multiaddr, multiaddr::Protocol};
use serde::Serialize;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

/// One way of the late worker's link.
const LATE: Duration = Duration::from_millis(12);
/// The cheapest regular worker's price; others are dearer, the late one is cheaper.
const BASE_PRICE: u64 = 200_000;
/// Time between auctions: what the accept's gossip needs, and below the rate that workers allow one buyer.
const PAUSE: Duration = Duration::from_millis(220);
/// Auctions before the measurement: connections warm up, records of who answers are made.
const WARM_UP: usize = 10;
/// How long the network may take to form.
const FORM: Duration = Duration::from_secs(60);
/// The buyer's connections.
const BUYER_PEERS: u32 = 3;

/// What to measure.
#[derive(Debug, Clone)]
pub struct AuctionOptions {
    /// Nodes in all, the buyer included.
    pub nodes: usize,
    /// Auctions measured per round.
    pub auctions: usize,
    /// Round trip of every link of the buyer; zero for loopback's own.
    pub rtt: Duration,
    /// A program whose `node` subcommand is `infernet`.
    pub binary: PathBuf,
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct AuctionResult {
    /// Where.
    pub machine: Machine,
    /// Nodes in all.
    pub nodes: usize,
    /// Round trip of every link of the buyer beyond loopback's own, in milliseconds.
    pub rtt_ms: f64,
    /// The network as it is.
    pub regular: Round,
    /// With two more: a late cheaper worker and a silent one.
    pub late_and_silent: Round,
    /// Resident memory of the worker processes, in kilobytes.
    pub worker_rss_kb: Distribution,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// From the call (the offer is signed in it) to the decision, in milliseconds.
    pub decided_ms: Distribution,
    /// From the call to the winner's `Opened`, in milliseconds.
    pub opened_ms: Distribution,
    /// Bids per auction.
    pub bids: Distribution,
    /// Price paid over the cheapest live price, 1.0 is optimal.
    pub price_over_best: Distribution,
    /// Jobs that needed a second worker.
    pub retries: u32,
}

impl std::fmt::Display for AuctionResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "auction, {} nodes as processes, buyer connected to at most {BUYER_PEERS}, {} ms away",
            self.nodes, self.rtt_ms
        )?;
        for (name, round) in [("regular", &self.regular), ("late cheaper + silent", &self.late_and_silent)] {
            writeln!(f, "{name}")?;
            writeln!(f, "  offer → decided   ms  {}", round.decided_ms)?;
            writeln!(f, "  offer → opened    ms  {}", round.opened_ms)?;
            writeln!(f, "  bids per auction      {}", round.bids)?;
            writeln!(f, "  price / best price    {}", round.price_over_best)?;
            writeln!(f, "  retries               {}", round.retries)?;
        }
        write!(f, "worker memory kB        {}", self.worker_rss_kb)
    }
}

/// Measures.
pub async fn run(options: AuctionOptions) -> Result<AuctionResult, BenchError> {
    if !(4..=64).contains(&options.nodes) || !(1..=1000).contains(&options.auctions) {
        return Err(BenchError::Options("use 4 to 64 --nodes and 1 to 1000 --auctions".into()));
    }
    let machine = Machine::here();
    let engine = EngineServer::start(EngineOptions::metronome(1_000.0, 16)).await?;
    let mut workers = Workers { engine: engine.url(), options: &options, running: Vec::new(), chat_links: Vec::new() };
    for n in 0..options.nodes - 1 {
        workers.start(BASE_PRICE + 10_000 * n as u64, workers.bootstrap(), &[]).await?;
    }
    let (buyer, mesh_links) = far_buyer(&workers, options.rtt).await?;
    let regular_workers = workers.running.len();
    buyer.knows("tiny-chat", regular_workers, FORM).await?;
    let regular = round(&buyer, options.auctions, BASE_PRICE).await?;

    let bootstrap = workers.bootstrap();
    let link = Link::tcp(socket(&bootstrap)?, Quality { delay: LATE, loss_percent: 0 }).await?;
    let late_price = BASE_PRICE / 2;
    // One connection, the slow one: nobody reaches it another way.
    workers.start(late_price, vec![through(&bootstrap, &link)?], &["--max-peers", "1"]).await?;
    workers.start(BASE_PRICE + 10_000, bootstrap, &[]).await?;
    buyer.knows("tiny-chat", regular_workers + 2, FORM).await?;
    if let Some(silent) = workers.running.last() {
        silent.signal("STOP").await;
    }
    let late_and_silent = round(&buyer, options.auctions, late_price).await?;
    check_far(&buyer, &mesh_links).await?;
    let rss = workers.running.iter().filter_map(Process::rss_kb).map(|kb| kb as f64).collect();
    let (nodes, rtt_ms) = (options.nodes, millis(options.rtt));
    let result = AuctionResult { machine, nodes, rtt_ms, regular, late_and_silent, worker_rss_kb: Distribution::of(rss) };
    for mut worker in workers.running {
        worker.kill().await;
    }
    buyer.node.shutdown(Duration::ZERO).await;
    Ok(result)
}

/// Worker processes, and what leads to their chat endpoints.
struct Workers<'a> {
    engine: String,
    options: &'a AuctionOptions,
    running: Vec<Process>,
    chat_links: Vec<Link>,
}

impl Workers<'_> {
    /// The first worker's addresses; none before it runs.
    fn bootstrap(&self) -> Vec<String> {
        self.running.first().map(|first| first.status.listen.clone()).unwrap_or_default()
    }

    async fn start(&mut self, price_out: u64, bootstrap: Vec<String>, flags: &[&str]) -> Result<(), BenchError> {
        let sells = Sells::new(&self.engine, BASE_PRICE, price_out, 8);
        if self.options.rtt.is_zero() {
            self.running.push(Process::worker(&self.options.binary, &sells, &bootstrap, flags).await?);
            return Ok(());
        }
        let link = Link::udp(Quality::of_rtt(self.options.rtt)).await?;
        let outside = link.addr().to_string();
        let flags = [flags, &["--chat-advertise", &outside]].concat();
        let worker = Process::worker(&self.options.binary, &sells, &bootstrap, &flags).await?;
        link.aim(
            worker.status.chat.parse().map_err(|_| BenchError::Options("a worker's chat endpoint has no address".into()))?,
        );
        self.running.push(worker);
        self.chat_links.push(link);
        Ok(())
    }
}

/// The buyer, and the links by which it reaches the mesh: none if it is near.
async fn far_buyer(workers: &Workers<'_>, rtt: Duration) -> Result<(Member, Vec<Link>), BenchError> {
    if rtt.is_zero() {
        let near = MemberSpec { max_peers: BUYER_PEERS, ..MemberSpec::buyer(parse(&workers.bootstrap())) };
        return Ok((Member::start(near).await?, Vec::new()));
    }
    let (mut links, mut bootstrap) = (Vec::new(), Vec::new());
    for worker in workers.running.iter().take(BUYER_PEERS as usize) {
        let link = Link::tcp(socket(&worker.status.listen)?, Quality::of_rtt(rtt)).await?;
        bootstrap.push(through(&worker.status.listen, &link)?);
        links.push(link);
    }
    let far = MemberSpec { max_peers: BUYER_PEERS, listens: false, ..MemberSpec::buyer(parse(&bootstrap)) };
    Ok((Member::start(far).await?, links))
}

/// That the buyer knows no shorter way.
async fn check_far(buyer: &Member, links: &[Link]) -> Result<(), BenchError> {
    let known: Vec<SocketAddr> = links.iter().map(Link::addr).collect();
    for peer in buyer.node.net().peers().await {
        let remote = socket(&[peer.remote.to_string()])?;
        if !known.is_empty() && !known.contains(&remote) {
            return Err(BenchError::Options(format!("the buyer reached {remote} by a shorter way; run it again")));
        }
    }
    Ok(())
}

async fn round(buyer: &Member, auctions: usize, best: u64) -> Result<Round, BenchError> {
    let (mut decided, mut opened, mut bids, mut prices, mut retries) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), 0);
    for n in 0..WARM_UP + auctions {
        sleep(PAUSE).await;
        let sample = one(buyer).await?;
        if n >= WARM_UP {
            decided.push(sample.decided);
            opened.push(sample.opened);
            bids.push(sample.bids as f64);
            prices.push(sample.price as f64 / best as f64);
            retries += sample.retries;
        }
    }
    Ok(Round {
        decided_ms: Distribution::of(decided),
        opened_ms: Distribution::of(opened),
        bids: Distribution::of(bids),
        price_over_best: Distribution::of(prices),
        retries,
    })
}

struct Sample {
    decided: f64,
    opened: f64,
    bids: usize,
    price: u64,
    retries: u32,
}

/// One auction; the job is cancelled as soon as the winner has opened, which is free.
async fn one(buyer: &Member) -> Result<Sample, BenchError> {
    // A job whose cost is mostly output, as most are: workers differ in that price alone.
    let mut order = order("tiny-chat", "Say hello.", 1_000);
    order.rule = SelectionRule::CHEAPEST;
    let prepared = Prepared::new(order)?;
    let role = buyer.node.buyer();
    let started = clock::instant();
    let decision = role.auction(&prepared).await?;
    let decided = millis(started.elapsed());
    let (bids, winner) = (decision.report.bids.len(), decision.report.winner);
    let price = decision.report.bids.iter().find(|b| b.worker == winner).map_or(0, |b| b.price_out);
    let (events, mut heard) = mpsc::channel(16);
    let (cancel, mut cancelled) = watch::channel(false);
    let mut retries = 0;
    let running = async {
        let result = role.run(decision, &prepared, &events, &mut cancelled, &mut retries).await;
        drop(events);
        result
    };
    let watching = async {
        let mut opened = None;
        while opened.is_none() {
            match heard.recv().await {
                Some(ChatEvent::Stream(Progress::Opened { .. })) => opened = Some(millis(started.elapsed())),
                Some(_) => {}
                None => break,
            }
        }
        let _ = cancel.send(true);
        while heard.recv().await.is_some() {}
        opened
    };
    let (result, opened) = tokio::join!(running, watching);
    result?;
    Ok(Sample { decided, opened: opened.unwrap_or(f64::NAN), bids, price, retries })
}

fn parse(addresses: &[String]) -> Vec<Multiaddr> {
    addresses.iter().filter_map(|a| a.parse().ok()).collect()
}

/// The first address as a socket address.
fn socket(addresses: &[String]) -> Result<SocketAddr, BenchError> {
    let mut ip = None;
    for part in &parse(addresses).first().cloned().unwrap_or_else(Multiaddr::empty) {
        match part {
            Protocol::Ip4(v4) => ip = Some(IpAddr::V4(v4)),
            Protocol::Tcp(port) => return Ok((ip.unwrap_or(Ipv4Addr::LOCALHOST.into()), port).into()),
            _ => {}
        }
    }
    Err(BenchError::Options("the bootstrap node listens on no TCP address".into()))
}

/// The bootstrap node's address, reached through `link`.
fn through(addresses: &[String], link: &Link) -> Result<String, BenchError> {
    let peer = addresses.first().and_then(|a| a.split_once("/p2p/")).map(|(_, peer)| peer);
    let peer = peer.ok_or_else(|| BenchError::Options("the bootstrap node has no address".into()))?;
    Ok(format!("/ip4/{}/tcp/{}/p2p/{peer}", link.addr().ip(), link.addr().port()))
}
