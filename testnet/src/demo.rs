//! `infernet-testnet demo`: one prompt through the whole thing, on this machine, in seconds.
//!
//! Three workers with a real tiny language model behind them, at different prices and speeds, and a buyer; real libp2p, real
//! QUIC, real signatures. It shows the auction, the answer as it streams, and the receipt both sides signed.

mod settle;
mod tranche;

use crate::{
    cluster::{ClusterError, Member, MemberSpec, Sells},
    engine::{EngineError, EngineOptions, EngineServer},
    evm::ChainError,
    plane::Beside,
    serve::signalled,
    svm::SvmError,
};
use infernet_node::{
    buyer::{ChatError, ChatEvent, ChatOrder},
    chat::client::Progress,
    control::{Control, ControlError},
    node::Node,
    report::{AuctionReport, ChatReport},
    settlement::service::AccountError,
};
use infernet_wire::{
    chat::{ChatMessage, ChatRequest, Role},
    money::MicroUsd,
};
use settle::OnChain;
use std::{collections::BTreeMap, io::Write, sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tranche::OnSolana;

/// What it asks when nobody says otherwise: something the tiny model was trained on.
pub const DEFAULT_PROMPT: &str = "Tell me a story about a fox.";
/// Where a real Ollama would answer.
const OLLAMA: &str = "http://127.0.0.1:11434";
/// How long the mesh may take to form: a slow CI machine under load needs seconds, others a fraction of one.
const FORM: Duration = Duration::from_secs(30);

/// The three sellers: name, micro-USD per million tokens in and out, tokens per second.
const WORKERS: [(&str, u64, u64, f64); 3] =
    [("a fast one", 300_000, 1_200_000, 400.0), ("a cheap one", 60_000, 240_000, 150.0), ("a slow one", 80_000, 300_000, 40.0)];

/// What to show.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// What to ask.
    pub prompt: String,
    /// Print one JSON object instead of a story.
    pub json: bool,
    /// Keep the network running until Ctrl-C.
    pub stay: bool,
    /// Pay on a chain of this machine.
    pub settle: Option<Settle>,
    /// Use this engine, as `KIND=URL`, and this model of it instead of the embedded one.
    pub engine: Option<(String, String)>,
}

/// Where jobs are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Settle {
    /// Channels on an EVM chain: a real anvil.
    Evm,
    /// Prepaid tranches on Solana: its runtime, in this process.
    Solana,
}

/// The demo can't go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A node.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The embedded engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The job.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The control socket of `--stay`.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Solana's runtime.
    #[error(transparent)]
    Svm(#[from] SvmError),
    /// A node's account there.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A transaction that should have worked.
    #[error("a transaction to {what} did not work: {reason}")]
    Transaction {
        /// What it was for.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The chain says otherwise than the receipt.
    #[error("the buyer has spent {spent:?} on the chain, and the receipt says {paid:?}")]
    Books {
        /// What the chain says; `None`: it has more than before.
        spent: Option<MicroUsd>,
        /// What the receipt says, if there is one.
        paid: Option<MicroUsd>,
    },
    /// The output.
    #[error("can't write: {0}")]
    Write(#[from] std::io::Error),
    /// A receipt without both signatures.
    #[error("the job ended without a receipt that both sides signed")]
    Unsigned,
}

/// Runs it. Output goes to `out` (answer or JSON) and `notes` (everything about it).
pub async fn run(options: DemoOptions, out: &mut (dyn Write + Send), notes: &mut (dyn Write + Send)) -> Result<(), DemoError> {
    let mut say = |text: String| if options.json { Ok(()) } else { writeln!(notes, "{text}") };
    let mut network = Network::start(&options, &mut say).await?;
    let model = network.model.clone();
    say(format!("\nasking {model:?}: {:?}\n", options.prompt))?;
    let report = ask(&network, &options, &mut say, out).await?;
    if !options.json {
        writeln!(out)?;
        receipt(&report, &mut say)?;
        network.tab(&report, &mut say)?;
    }
    let settled = match network.chain.take() {
        Some(Chain::Evm(chain)) => Some(chain.close(&network.buyer, &network.workers, &report, &mut say).await?),
        Some(Chain::Solana(chain)) => Some(chain.close(&network.buyer, &network.workers, &report, &mut say)?),
        None => None,
    };
    if options.json {
        let mut report = serde_json::to_value(&report).map_err(std::io::Error::other)?;
        if let (Some(settled), Some(fields)) = (settled, report.as_object_mut()) {
            fields.insert("settlement".into(), settled);
        }
        writeln!(out, "{report}")?;
    }
    let signed = report.receipt.as_ref().is_some_and(|r| r.verified);
    if options.stay {
        network.stay(&mut say).await?;
    } else {
        network.stop().await;
    }
    if signed { Ok(()) } else { Err(DemoError::Unsigned) }
}

type Say<'a> = dyn FnMut(String) -> std::io::Result<()> + Send + 'a;

struct Network {
    buyer: Member,
    workers: Vec<Member>,
    engines: Vec<EngineServer>,
    plane: Beside,
    model: String,
    names: BTreeMap<String, &'static str>,
    chain: Option<Chain>,
}

enum Chain {
    Evm(Box<OnChain>),
    Solana(OnSolana),
}

impl Network {
    async fn start(options: &DemoOptions, say: &mut Say<'_>) -> Result<Self, DemoError> {
        let mut chain = match options.settle {
            Some(Settle::Evm) => Some(Chain::Evm(Box::new(OnChain::start(say).await?))),
            Some(Settle::Solana) => Some(Chain::Solana(OnSolana::start(say).await?)),
            None => None,
        };
        let settles = || match &chain {
            Some(Chain::Evm(chain)) => chain.bank().settings().map(Some),
            _ => Ok(None),
        };
        let buyer = Member::start(MemberSpec { settles: settles()?, ..MemberSpec::buyer(Vec::new()) }).await?;
        if let Some(Chain::Solana(chain)) = &chain {
            chain.buys(&buyer)?;
        }
        let bootstrap = buyer.addresses().await;
        say(format!(
            "buyer   {}  {}",
            buyer.node.id().short(),
            bootstrap.first().map(ToString::to_string).unwrap_or_default()
        ))?;
        let (mut workers, mut engines, mut names) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (name, price_in, price_out, speed) in WORKERS {
            let url = match &options.engine {
                Some((engine, _)) => engine.clone(),
                None => {
                    let engine =
                        EngineServer::start(EngineOptions { tokens_per_second: Some(speed), ..EngineOptions::default() })
                            .await?;
                    let url = engine.url();
                    engines.push(engine);
                    url
                }
            };
            let mut sells = Sells::new(url, price_in, price_out, 4);
            if chain.is_some() {
                sells.credit = MicroUsd(0);
            }
            let spec = MemberSpec { settles: settles()?, ..MemberSpec::worker(bootstrap.clone(), sells) };
            let worker = Member::start(spec).await?;
            if let Some(Chain::Solana(chain)) = &chain {
                chain.sells(workers.len(), &worker)?;
            }
            let id = worker.node.id();
            let dollars = (MicroUsd(price_in), MicroUsd(price_out));
            say(format!(
                "worker  {}  {name}: {} in, {} out per million tokens; chat on udp {}",
                id.short(),
                dollars.0,
                dollars.1,
                worker.node.chat_addr()
            ))?;
            names.insert(id.to_string(), name);
            workers.push(worker);
        }
        let model = options.engine.as_ref().map_or_else(|| "tiny-chat".into(), |(_, model)| model.clone());
        let plane = Beside::start(bootstrap).await?;
        say(format!("plane   {}  follows; nothing needs it", plane.url()))?;
        buyer.knows(&model, WORKERS.len(), FORM).await?;
        if options.engine.is_none() && ollama_answers().await {
            say(format!("an Ollama answers at {OLLAMA}: --engine ollama={OLLAMA} MODEL asks one of its models instead"))?;
        }
        match &mut chain {
            Some(Chain::Evm(chain)) => chain.deposit(&buyer, &workers, say).await?,
            Some(Chain::Solana(chain)) => chain.deposit(&buyer, &workers, say).await?,
            None => {}
        }
        Ok(Network { buyer, workers, engines, plane, model, names, chain })
    }

    fn name(&self, worker: &str) -> &'static str {
        self.names.get(worker).copied().unwrap_or("a worker")
    }

    /// What the worker has in writing.
    fn tab(&self, report: &ChatReport, say: &mut Say<'_>) -> std::io::Result<()> {
        let Some(receipt) = &report.receipt else { return Ok(()) };
        let Some(worker) = self.workers.iter().find(|worker| worker.node.id() == receipt.worker) else { return Ok(()) };
        let (tabs, us) = (worker.node.tabs(), self.buyer.node.id());
        let channel = tabs.channels().from(&us).into_iter().next();
        let tab = channel.map_or_else(|| tabs.sold_to(&us), |known| tabs.sold_on(&us, &known.terms.id()));
        let Ok(tab) = tab else { return Ok(()) };
        let promised = MicroUsd(u64::try_from(tab.promised()).unwrap_or(u64::MAX));
        say(format!("paid as it streamed: vouchers of {promised} in all; what was not used pays for the next job"))
    }

    async fn stop(self) {
        self.plane.stop().await;
        for member in self.workers.into_iter().chain([self.buyer]) {
            member.node.shutdown(Duration::from_secs(2)).await;
        }
        for engine in self.engines {
            engine.shutdown().await;
        }
    }

    async fn stay(self, say: &mut Say<'_>) -> Result<(), DemoError> {
        let Network { buyer, workers, engines, plane, model, .. } = self;
        let home = buyer.home.path().to_owned();
        let node: Arc<Node> = Arc::new(buyer.node);
        let mut control = Control::bind(&home)?;
        control.serve(node.clone());
        say(format!(
            "\nstill running; in another terminal, here:\n  alias infernet='cargo run --quiet --release --bin infernet -- --home {0}'\n  infernet chat \"Count to 5.\" --model {model}\n  infernet status --watch\n  infernet receipts verify\nor open {1} in a browser; the API key {2} signs you in, with $10 to spend\nCtrl-C stops it",
            home.display(),
            plane.url(),
            plane.key()
        ))?;
        signalled().await?;
        drop(control);
        plane.stop().await;
        for worker in workers {
            worker.node.shutdown(Duration::from_secs(1)).await;
        }
        node.drain(Duration::ZERO).await;
        drop(engines);
        Ok(())
    }
}

async fn ollama_answers() -> bool {
    let Ok(http) = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(500)).build() else { return false };
    http.get(format!("{OLLAMA}/api/version")).send().await.is_ok_and(|answer| answer.status().is_success())
}

/// The order of a short chat that may cost little.
pub fn order(model: &str, prompt: &str, max_tokens: u32) -> ChatOrder {
    let messages = vec![ChatMessage::new(Role::User, prompt)];
    ChatOrder::new(ChatRequest { temperature: Some(0.0), ..ChatRequest::new(model, messages, max_tokens) })
}

async fn ask(
    network: &Network,
    options: &DemoOptions,
    say: &mut Say<'_>,
    out: &mut (dyn Write + Send),
) -> Result<ChatReport, DemoError> {
    let (events, mut heard) = mpsc::channel(16);
    let (_never, mut cancel) = watch::channel(false);
    let asking = async {
        let result = network.buyer.node.buyer().chat(order(&network.model, &options.prompt, 256), &events, &mut cancel).await;
        drop(events);
        result
    };
    let showing = async {
        while let Some(event) = heard.recv().await {
            match event {
                ChatEvent::Auction(report) => auction(network, &report, say)?,
                ChatEvent::Retry { worker, reason } => say(format!("{} failed: {reason}; asking the next", worker.short()))?,
                ChatEvent::Stream(Progress::Opened { path, input_tokens, .. }) => {
                    say(format!("\nstream  {path}, at most {input_tokens} input tokens\n"))?;
                }
                ChatEvent::Stream(Progress::Text { text, .. }) if !options.json => {
                    out.write_all(text.as_bytes())?;
                    out.flush()?;
                }
                ChatEvent::Stream(_) | ChatEvent::Waiting { .. } => {}
            }
        }
        Ok::<(), std::io::Error>(())
    };
    let (result, shown) = tokio::join!(asking, showing);
    shown?;
    Ok(result?)
}

fn auction(network: &Network, report: &AuctionReport, say: &mut Say<'_>) -> std::io::Result<()> {
    say(format!("auction {}: {} bids in {:.1} ms ({})", report.offer_id, report.bids.len(), report.elapsed_ms, report.closed))?;
    for bid in &report.bids {
        let mark = if bid.worker == report.winner { "→" } else { " " };
        let name = network.name(&bid.worker.to_string());
        say(format!(
            "  {mark} {}  {name:<12} {:>9} µ$/M out, score {:>6} µ$, {}",
            bid.worker.short(),
            bid.price_out,
            bid.score,
            bid.expected_ms.map_or("speed not measured".into(), |ms| format!("{ms:>6} ms expected"))
        ))?;
    }
    say(format!("  {}", report.reason))
}

fn receipt(report: &ChatReport, say: &mut Say<'_>) -> std::io::Result<()> {
    let stream = &report.stream;
    let ttft = stream.ttft_ms.unwrap_or_default();
    say(format!("\n{} tokens in {:.0} ms, the first after {ttft:.1} ms", stream.tokens, stream.duration_ms))?;
    let Some(receipt) = &report.receipt else { return say("no receipt".into()) };
    say(format!("receipt job {}", receipt.job_id))?;
    say(format!("  {} input + {} output tokens = {}", receipt.input_tokens, receipt.output_tokens, receipt.amount()))?;
    say(format!("  worker {}  {}", receipt.worker.short(), receipt.worker_signature))?;
    if let Some(signature) = receipt.buyer_signature {
        say(format!("  buyer  {}  {signature}", receipt.buyer.short()))?;
    }
    say(format!("  {}", if receipt.verified { "both signatures verify" } else { "not signed by both" }))
}
