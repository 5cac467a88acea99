//! `bench auction`: from the signed offer to the winner's `Opened`.
//!
//! Workers are processes of their own on loopback, all started from one bootstrap address; the buyer, in this process, is
//! connected to at most three of them. Two rounds: the network as it is, and with two more workers, a cheaper one
//! behind a slow link and one that was stopped (SIGSTOP) after it had advertised.

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
        writeln!(f, "auction, {} nodes as processes, buyer connected to at most {BUYER_PEERS}", self.nodes)?;
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
    let mut workers = Vec::new();
    let sells = |n: usize| Sells::new(engine.url(), BASE_PRICE, BASE_PRICE + 10_000 * n as u64, 8);
    workers.push(Process::worker(&options.binary, &sells(0), &[], &[]).await?);
    let bootstrap: Vec<String> = workers.iter().flat_map(|w| w.status.listen.clone()).collect();
    let buyer = Member::start(MemberSpec { max_peers: BUYER_PEERS, ..MemberSpec::buyer(parse(&bootstrap)) }).await?;
    for n in 1..options.nodes - 1 {
        workers.push(Process::worker(&options.binary, &sells(n), &bootstrap, &[]).await?);
    }
    let regular_workers = workers.len();
    buyer.knows("tiny-chat", regular_workers, FORM).await?;
    let regular = round(&buyer, options.auctions, BASE_PRICE).await?;

    let link = Link::tcp(socket(&bootstrap)?, Quality { delay: LATE, loss_percent: 0 }).await?;
    let late_price = BASE_PRICE / 2;
    let slow = vec![through(&bootstrap, &link)?];
    let late = Sells::new(engine.url(), BASE_PRICE, late_price, 8);
    // One connection, the slow one: nobody reaches it another way.
    workers.push(Process::worker(&options.binary, &late, &slow, &["--max-peers", "1"]).await?);
    let silent = Process::worker(&options.binary, &sells(1), &bootstrap, &[]).await?;
    buyer.knows("tiny-chat", regular_workers + 2, FORM).await?;
    silent.signal("STOP").await;
    let late_and_silent = round(&buyer, options.auctions, late_price).await?;
    silent.signal("CONT").await;
    let rss = workers.iter().filter_map(Process::rss_kb).map(|kb| kb as f64).collect();
    let result =
        AuctionResult { machine, nodes: options.nodes, regular, late_and_silent, worker_rss_kb: Distribution::of(rss) };
    for mut worker in workers.into_iter().chain([silent]) {
        worker.kill().await;
    }
    buyer.node.shutdown(Duration::ZERO).await;
    Ok(result)
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
