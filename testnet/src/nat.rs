//! `infernet-testnet nat`: the real programs behind NATs of each kind, in network namespaces that end with it, or where those are
//! refused, in a model of such an internet.
//!
//! | file | idea |
//! |---|---|
//! | [`ground`] | where hosts are: there or in the model |
//! | [`namespace`] | networks of our own, without privilege |
//! | [`kind`] | the four kinds of NAT, as rules of nftables |
//! | [`internet`] | a wire with public addresses, and hosts behind NATs |
//! | [`model`] | the same in this process: NATs as tables, and sockets around them |
//! | [`stage`] | relays in the open, a worker with its engine and a buyer behind each kind |
//! | [`events`] | what happens in the middle of an answer |
//!
//! All nodes know only the relays. For each pair a buyer asks for a model that only the worker behind the one kind sells; a
//! pair is well if its answer comes whole and its receipt has both signatures, over a way that there can be.
//!
//! Loss is made by nftables, delay by netem; the model makes both. What this machine can't do is said and counted, and then the model
//! runs instead: without namespaces, and for delay where the kernel has no netem.

pub mod events;
pub mod ground;
pub mod internet;
pub mod kind;
pub mod model;
pub mod namespace;
pub mod stage;

use crate::{cluster::ClusterError, machine::Machine};
use events::{Event, What};
use ground::Ground;
use internet::Internet;
use kind::NatKind;
use model::{Model, ModelError, Tally, meet::can_meet};
use namespace::NamespaceError;
use serde::Serialize;
use serde_json::Value;
use stage::{Stage, model_behind};
use std::{
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, time::timeout};

/// Relays that nodes can choose among.
const RELAYS: usize = 2;
/// Of an engine: an answer takes a second or two, as a small model's would.
const TOKENS_PER_SECOND: f64 = 50.0;
/// Of an answer.
const TOKENS: u32 = 32;
/// How long a buyer may look for a worker.
const WAIT_SECS: u64 = 60;
/// How long one question may take in all.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between the two questions of a pair: time in which a better path may be found.
const BETWEEN: Duration = Duration::from_secs(5);

/// The stage could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// No namespaces, or a program is missing.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// No model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A process did not start.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// What to try.
#[derive(Debug, Clone)]
pub struct NatOptions {
    /// What is before the buyers.
    pub buyers: Vec<NatKind>,
    /// What is before the workers.
    pub workers: Vec<NatKind>,
    /// What is to happen in the middle of answers, after all pairs.
    pub events: Vec<What>,
    /// Of a thousand packets, how many are lost at each NAT.
    pub loss: u16,
    /// How long a packet takes from one host to another, besides.
    pub delay: Duration,
    /// The model, even if there are namespaces.
    pub model: bool,
    /// This program.
    pub binary: PathBuf,
}

/// What came of a question.
#[derive(Debug, Clone, Serialize)]
pub struct Answered {
    /// `direct`, `punched` or `relayed`, and through whom; as `infernet chat` tells it.
    pub path: String,
    /// From `Open` to the first token, in milliseconds.
    pub ttft_ms: f64,
    /// From the question to the whole answer with its receipt, in milliseconds.
    pub all_ms: u64,
    /// Of its text.
    pub bytes: usize,
    /// How often it went on in another stream.
    pub resumed: u32,
}

impl Answered {
    fn is_relayed(&self) -> bool {
        self.path.starts_with("relayed")
    }
}

/// What came of a pair.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// What is before the buyer.
    pub buyer: NatKind,
    /// What is before the worker.
    pub worker: NatKind,
    /// Whether there can be a direct way between them.
    pub can_meet: bool,
    /// The first question, or why it has no answer.
    pub first: Result<Answered, String>,
    /// The second, some seconds later.
    pub later: Result<Answered, String>,
}

impl Pair {
    fn is_well(&self) -> bool {
        let is_possible = |answered: &Answered| self.can_meet || answered.is_relayed();
        [&self.first, &self.later].into_iter().all(|answered| answered.as_ref().is_ok_and(is_possible))
    }
}

/// The result.
#[derive(Debug, Serialize)]
pub struct NatResult {
    /// Each buyer with each worker.
    pub pairs: Vec<Pair>,
    /// What happened in the middle of answers.
    pub events: Vec<Event>,
    /// `namespaces` or `model`.
    pub ground: &'static str,
    /// Of a hundred packets, how many were lost at each NAT.
    pub loss_percent: f64,
    /// How long each took from one host to another, besides.
    pub delay_ms: u64,
    /// What made loss and delay.
    pub made_by: &'static str,
    /// What the model's tables let through, and what not.
    pub model: Option<Tally>,
    /// What this machine can't do.
    pub skipped: Vec<String>,
    /// Where it ran.
    pub machine: Machine,
}

impl NatResult {
    /// Whether every pair is, and every answer in whose middle something happened.
    pub fn is_well(&self) -> bool {
        self.pairs.iter().all(Pair::is_well) && self.events.iter().all(|event| event.outcome.is_ok())
    }

    /// How many second answers came by a path of this name.
    fn by(&self, path: &str) -> usize {
        self.pairs.iter().filter(|pair| pair.later.as_ref().is_ok_and(|answered| answered.path.starts_with(path))).count()
    }
}

impl fmt::Display for NatResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<21} {:<21} {:<34} then", "buyer", "worker", "first")?;
        for Pair { buyer, worker, first, later, .. } in &self.pairs {
            writeln!(f, "{buyer:<21} {worker:<21} {:<34} {}", said(first), said(later))?;
        }
        let (direct, punched, relayed) = (self.by("direct"), self.by("punched"), self.by("relayed"));
        let well = self.pairs.iter().filter(|pair| pair.is_well()).count();
        writeln!(
            f,
            "{well} of {} pairs with a whole answer and both signatures, twice: {direct} direct, {punched} punched, {relayed} relayed",
            self.pairs.len()
        )?;
        for Event { what, outcome } in &self.events {
            writeln!(f, "{what:<43} {}", said(outcome))?;
        }
        if self.loss_percent > 0.0 || self.delay_ms > 0 {
            writeln!(f, "{} % lost at each NAT, {} ms one way, by {}", self.loss_percent, self.delay_ms, self.made_by)?;
        }
        if let Some(Tally { passed, unmapped, filtered, lost, dropped, unknown, failed, .. }) = &self.model {
            writeln!(
                f,
                "the model passed {passed} datagrams; refused: {unmapped} to no mapping, {filtered} filtered; {lost} lost as told, \
                 {dropped} for room or size, {failed} by sockets, {unknown} of no host"
            )?;
        }
        self.skipped.iter().try_for_each(|skipped| writeln!(f, "skipped: {skipped}"))?;
        writeln!(f, "{} skipped; ran on {}", self.skipped.len(), self.ground)?;
        write!(f, "{}", self.machine)
    }
}

fn said(answered: &Result<Answered, String>) -> String {
    match answered {
        Ok(Answered { path, ttft_ms, all_ms, bytes, resumed }) => {
            let path: String = path.split_whitespace().next().unwrap_or_default().into();
            let long = match *bytes >= 1_000_000 {
                true => format!(
                    ", {:.1} MB of text in {} s, {resumed} times in another stream",
                    *bytes as f64 / 1e6,
                    all_ms / 1_000
                ),
                false => String::new(),
            };
            format!("{path}, {ttft_ms:.0} ms to the first token{long}")
        }
        Err(error) => format!("FAILED: {error}"),
    }
}

/// Tries every pair.
pub async fn run(options: NatOptions, told: &mut (dyn std::io::Write + Send)) -> Result<NatResult, NatError> {
    let (ground, skipped) = lay(&options, told).await?;
    let (ground_name, made_by) = match &ground {
        Ground::Namespaces(_) if options.delay.is_zero() => ("namespaces", "nftables"),
        Ground::Namespaces(_) => ("namespaces", "nftables and netem"),
        Ground::Model(_) => ("model", "the model"),
    };
    let NatOptions { buyers, workers, events, loss, delay, binary, .. } = options;
    let mut stage = Stage::new(ground, RELAYS, &binary).await?;
    for kind in &workers {
        stage.add_worker(*kind, TOKENS_PER_SECOND).await?;
    }
    for kind in &buyers {
        stage.add_buyer(*kind).await?;
    }
    if loss > 0 {
        for member in stage.workers.values().chain(stage.buyers.values()) {
            member.host.lose(loss).await?;
        }
    }
    let mut pairs = Vec::new();
    for buyer in &buyers {
        let Some(member) = stage.buyers.get(buyer) else { continue };
        for worker in &workers {
            let home = member.node.home.path();
            let question = Question::of(model_behind(*worker), TOKENS);
            let first = ask(&binary, home, &question).await;
            if first.as_ref().is_ok_and(Answered::is_relayed) {
                // A better path is looked for meanwhile, and nothing tells that none will come.
                tokio::time::sleep(BETWEEN).await;
            }
            let later = ask(&binary, home, &question).await;
            let pair = Pair { buyer: *buyer, worker: *worker, can_meet: can_meet(*buyer, *worker), first, later };
            // Whoever watches; the result says it again.
            let _ = writeln!(told, "{buyer} buyer, {worker} worker: {}; then {}", said(&pair.first), said(&pair.later));
            pairs.push(pair);
        }
    }
    let mut happened = Vec::new();
    for what in events {
        let event = events::happen(what, &mut stage, &binary).await?;
        let _ = writeln!(told, "{what}: {}", said(&event.outcome));
        happened.push(event);
    }
    Ok(NatResult {
        pairs,
        events: happened,
        ground: ground_name,
        loss_percent: f64::from(loss) / 10.0,
        delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        made_by,
        model: stage.ground.tally().await,
        skipped,
        machine: Machine::here(),
    })
}

/// Namespaces if there are any that can do what is wanted, else the model; and what could not be had.
async fn lay(options: &NatOptions, told: &mut (dyn std::io::Write + Send)) -> Result<(Ground, Vec<String>), NatError> {
    if options.model {
        return Ok((Ground::Model(Model::new(options.delay)?), Vec::new()));
    }
    let why = match Internet::new(options.delay).await {
        Ok(internet) => return Ok((Ground::Namespaces(internet), Vec::new())),
        Err(NamespaceError::Refused(why)) => format!("namespaces are refused here ({why})"),
        Err(error @ (NamespaceError::Program { .. } | NamespaceError::NoDelay { .. })) => error.to_string(),
    };
    let skipped = format!("{why}; ran the model instead");
    let _ = writeln!(told, "skipped: {skipped}");
    Ok((Ground::Model(Model::new(options.delay)?), vec![skipped]))
}

/// What is asked, and what must come.
#[derive(Debug, Clone)]
pub struct Question {
    /// Of which model.
    pub model: String,
    /// So many tokens.
    pub tokens: u32,
    /// That are so many bytes at least.
    pub bytes: usize,
    /// How long it may take in all.
    pub within: Duration,
}

impl Question {
    /// One whose answer takes seconds.
    pub fn of(model: String, tokens: u32) -> Self {
        Question { model, tokens, bytes: 0, within: PATIENCE }
    }
}

/// Has the node of `home` ask `question`.
pub async fn ask(binary: &Path, home: &Path, question: &Question) -> Result<Answered, String> {
    let Question { model, tokens, bytes, within } = question;
    let begun = infernet_node::clock::instant();
    let mut command = Command::new(binary);
    command.args(["node", "--json", "--home"]).arg(home).args(["chat", "--model", model]);
    command.args(["--max-tokens", &tokens.to_string(), "--wait", &WAIT_SECS.to_string(), "What is the capital of France?"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = timeout(*within, command.output()).await.map_err(|_| format!("no end within {} s", within.as_secs()))?;
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words.trim().lines().last().unwrap_or("it said nothing");
        let message = serde_json::from_str::<Value>(last)
            .ok()
            .and_then(|told| Some(told.pointer("/error/message")?.as_str()?.to_owned()));
        return Err(message.unwrap_or_else(|| last.to_owned()));
    }
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let field = |at: &str| answer.pointer(at).cloned().unwrap_or_default();
    if field("/receipt/verified") != true || field("/receipt/status") != "completed" {
        return Err(format!("its receipt is {}", field("/receipt")));
    }
    if field("/stream/tokens").as_u64() != Some((*tokens).into()) {
        return Err(format!("{} of {tokens} tokens", field("/stream/tokens")));
    }
    let came = field("/answer").as_str().map_or(0, str::len);
    if came < *bytes {
        return Err(format!("{came} of {bytes} bytes"));
    }
    Ok(Answered {
        path: field("/stream/path").as_str().unwrap_or_default().to_owned(),
        ttft_ms: field("/stream/ttft_ms").as_f64().unwrap_or_default(),
        all_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        bytes: came,
        resumed: u32::try_from(field("/stream/resumed").as_u64().unwrap_or_default()).unwrap_or(u32::MAX),
    })
}
