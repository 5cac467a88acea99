//! `infernet-testnet api`: a small network with an OpenAI endpoint, for whoever wants to point a client at one.
//!
//! A worker with the tiny model, a worker with the scripted engine, and a buyer with three endpoints: one as every node has it,
//! one that takes a single request at once, one whose requests may cost next to nothing. It stays until stdin is closed or a
//! signal comes.

use crate::{
    cluster::{ClusterError, Member, MemberSpec, Sells},
    engine::{EngineError, EngineOptions, EngineServer},
    scripted::{CHAT_MODEL, EMBED_MODEL, ScriptedEngine},
};
use infernet_node::{
    api::{
        Api,
        open::{ApiConfig, OpenError, Opened},
        service::MAX_REQUESTS,
    },
    spend::{CapError, Caps, Purse},
};
use infernet_wire::money::MicroUsd;
use serde::Serialize;
use std::{
    io::{self, Write},
    net::Ipv4Addr,
    thread,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// The embedded model, as its worker offers it.
const TINY_MODEL: &str = "tiny-chat:latest";
/// What both workers charge, in micro-USD per million tokens.
const PRICE: u64 = 1_000_000;
/// Jobs at once of each worker: a client that tests itself asks a few at a time.
const SLOTS: u16 = 16;
/// What a request at the poor endpoint may cost: less than any answer.
const POOR: MicroUsd = MicroUsd(3);
/// How long the network may take to form.
const PATIENCE: Duration = Duration::from_secs(60);

/// The network can't be built.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A node.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The tiny model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An endpoint.
    #[error(transparent)]
    Api(#[from] OpenError),
    /// Its caps.
    #[error(transparent)]
    Caps(#[from] CapError),
    /// The terminal or a socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where to ask, and for what.
#[derive(Debug, Serialize)]
pub struct Endpoints {
    /// As every node has it.
    pub base_url: String,
    /// Takes one request at once.
    pub narrow_base_url: String,
    /// May spend next to nothing.
    pub poor_base_url: String,
    /// The real, tiny model.
    pub tiny_model: &'static str,
    /// The script: tools, schemas, probabilities, failures.
    pub script_model: &'static str,
    /// Embeds.
    pub embed_model: &'static str,
}

/// Builds the network, tells where it is, and stays.
pub async fn run(json: bool, out: &mut (dyn Write + Send)) -> Result<(), ServeError> {
    let tiny = EngineServer::start(EngineOptions::default()).await?;
    let script = ScriptedEngine::start().await?;
    let buyer = Member::start(MemberSpec::buyer(Vec::new())).await?;
    let bootstrap = buyer.addresses().await;
    let sells = |url: String| MemberSpec::worker(bootstrap.clone(), Sells::new(url, PRICE, PRICE, SLOTS));
    let _workers = [Member::start(sells(tiny.url())).await?, Member::start(sells(script.url())).await?];
    for model in [TINY_MODEL, CHAT_MODEL, EMBED_MODEL] {
        buyer.knows(model, 1, PATIENCE).await?;
    }
    let (free, capped) = (Caps::default(), Caps { per_request: Some(POOR), per_day: None });
    let usual = open(&buyer, free, MAX_REQUESTS).await?;
    let narrow = open(&buyer, free, 1).await?;
    let poor = open(&buyer, capped, MAX_REQUESTS).await?;
    let endpoints = Endpoints {
        base_url: usual.base_url(),
        narrow_base_url: narrow.base_url(),
        poor_base_url: poor.base_url(),
        tiny_model: TINY_MODEL,
        script_model: CHAT_MODEL,
        embed_model: EMBED_MODEL,
    };
    tell(&endpoints, json, out)?;
    stay().await?;
    Ok(())
}

async fn open(buyer: &Member, caps: Caps, max_requests: usize) -> Result<Api, ServeError> {
    let config = ApiConfig { max_requests, ..ApiConfig::new((Ipv4Addr::LOCALHOST, 0).into()) };
    let purse = Purse::open(caps, buyer.node.store().clone(), &[buyer.node.id()].into())?;
    Ok(Opened::new(buyer.home.path(), config).await?.serve(&buyer.node, purse, axum::Router::new())?)
}

fn tell(endpoints: &Endpoints, json: bool, out: &mut (dyn Write + Send)) -> io::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(endpoints)?)?;
    } else {
        let Endpoints { base_url, tiny_model, script_model, embed_model, .. } = endpoints;
        writeln!(
            out,
            "base_url {base_url}, no key needed\nmodels   {tiny_model}, {script_model}, {embed_model}\nCtrl-C stops it"
        )?;
    }
    out.flush()
}

/// Until Ctrl-C or SIGTERM.
pub async fn signalled() -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Until stdin is closed, Ctrl-C or SIGTERM.
pub(crate) async fn stay() -> io::Result<()> {
    let (closed, stdin) = oneshot::channel();
    // A thread of its own, which may be left behind: a read of stdin can't be cancelled.
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = closed.send(());
    });
    tokio::select! {
        stopped = signalled() => stopped,
        _ = stdin => Ok(()),
    }
}
