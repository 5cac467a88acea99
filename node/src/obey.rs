//! Obeying an operator: verify, remember the number, then act; whoever brought the command.
//!
//! [`accept`] is the gate: what comes out of it was signed by an operator for this node, in time, and never before. [`carry_out`]
//! acts. Fetching a model takes long, so it tells how far it is, and dropping its future stops it; the engine keeps what has come.

use crate::{
    backend::{
        BackendSpec,
        manage::{self, Manage, ManageError},
    },
    clock, config,
    download::{self, Download, bytes},
    fit::{self, Fit},
    node::Node,
    operator::{self, CommandError, Operators, OperatorsError, Verb},
    store::StoreError,
};
use infernet_wire::{id::NodeId, model_name, money::Price};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{info, warn};

/// A command that is to be carried out, once.
#[derive(Debug)]
pub struct Order {
    /// Who said it.
    pub operator: NodeId,
    /// Its number.
    pub sequence: u64,
    /// What to do.
    pub verb: Verb,
    /// Taken before the number was, so that a command which can't be obeyed now may be given again.
    download: Option<OwnedSemaphorePermit>,
}

/// Why a command is not obeyed.
#[derive(Debug, thiserror::Error)]
pub enum Disobeyed {
    /// Whose commands count can't be read.
    #[error(transparent)]
    Operators(#[from] OperatorsError),
    /// The command itself.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Two downloads would only halve each other's rate.
    #[error("a model is being fetched already; give the command again when it is there")]
    Busy,
}

impl Disobeyed {
    /// A short stable name, for counters and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Disobeyed::Operators(_) => "operators",
            Disobeyed::Command(error) => error.label(),
            Disobeyed::Busy => "busy",
        }
    }
}

/// How far a command is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What is being done, in the engine's words.
    pub status: String,
    /// `download` or `verify`.
    pub phase: &'static str,
    /// Bytes in all, as far as known.
    pub total: u64,
    /// Bytes that are there.
    pub completed: u64,
    /// The share of them.
    pub pct: u64,
}

/// Why an accepted command could not be carried out, for its operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It sells nothing.
    #[error("this node only buys: give it an engine (`backend` in its config.toml) and start it again without --no-serve")]
    SellsNothing,
    /// A price of nothing.
    #[error("this node offers no {model}, so nobody could pay that price; {}", offers_said(offers))]
    NotOffered {
        /// The model.
        model: String,
        /// What it offers.
        offers: Vec<String>,
    },
    /// No engine.
    #[error(transparent)]
    Engine(#[from] ManageError),
    /// The machine.
    #[error(
        "{model} needs about {} of memory, more than this machine can give: install a smaller model or quantisation, or \
         `infernet model pull {model} --force` on the node itself", bytes(*needs)
    )]
    NoRoom {
        /// The model.
        model: String,
        /// Bytes.
        needs: u64,
    },
    /// The configuration.
    #[error("the price holds until the node stops, but can't be kept: {0}")]
    Config(#[from] config::ConfigError),
}

fn offers_said(offers: &[String]) -> String {
    if offers.is_empty() { "it offers nothing now".into() } else { format!("it offers {}", offers.join(", ")) }
}

/// Verifies the command `raw` and takes its number. The operators are read anew each time, so that `infernet operator add` and
/// `remove` count at once.
pub async fn accept(node: &Node, home: &Path, raw: &[u8]) -> Result<Order, Disobeyed> {
    let home = home.to_owned();
    // Two small files and a number that must be on disk: not for the threads that serve streams.
    let operators = tokio::task::spawn_blocking(move || Operators::load(&home));
    let operators = operators.await.map_err(|error| interrupted(&error))??;
    let checked = operator::check(raw, node.network(), &node.id(), &operators, clock::now())?;
    let (operator, sequence) = (checked.operator(), checked.sequence());
    let download = match checked.verb() {
        Verb::ModelInstall(_) => Some(node.try_download().ok_or(Disobeyed::Busy)?),
        _ => None,
    };
    let store = node.store().clone();
    let claim =
        tokio::task::spawn_blocking(move || checked.claim(|operator, sequence| store.accept_command(operator, sequence)));
    let verb = claim.await.map_err(|error| interrupted(&error))??;
    info!(operator = %operator.short(), sequence, verb = verb.name(), "operator command accepted");
    Ok(Order { operator, sequence, verb, download })
}

fn interrupted(error: &tokio::task::JoinError) -> CommandError {
    StoreError::Interrupted(error.to_string()).into()
}

/// Does what `order` says; `progress` hears of long ones. Returns what came of it, for its operator.
pub async fn carry_out(node: &Node, home: &Path, order: Order, progress: impl FnMut(Progress)) -> Result<Value, Failed> {
    let name = order.verb.name();
    let done = match order.verb {
        Verb::Drain => drain(node, true).await,
        Verb::Resume => drain(node, false).await,
        Verb::ModelInstall(model) => install(node, &model, progress).await,
        Verb::ModelRemove(model) => remove(node, model).await,
        Verb::SetPrice { model, price } => set_price(node, home.into(), model, price).await,
    };
    drop(order.download);
    match &done {
        Ok(_) => info!(verb = name, "operator command carried out"),
        Err(error) => warn!(verb = name, "operator command failed: {error}"),
    }
    done
}

async fn drain(node: &Node, draining: bool) -> Result<Value, Failed> {
    let seller = node.seller().ok_or(Failed::SellsNothing)?;
    if draining {
        seller.drain().await;
    } else {
        seller.resume().await;
    }
    Ok(json!({ "draining": draining }))
}

async fn offers(node: &Node) -> Value {
    json!({ "offers": node.poll_engines(None).await.unwrap_or_default() })
}

/// The engines beside the node, to look at and change their models.
fn engines(node: &Node) -> Result<Vec<Box<dyn Manage>>, Failed> {
    let specs = node.engine_specs().ok_or(Failed::SellsNothing)?;
    specs.iter().map(|spec| Ok(manage::manage(spec).map_err(ManageError::from)?)).collect()
}

/// In the first engine that can fetch; if none can, the first one's own words say what to do.
async fn install(node: &Node, model: &str, mut progress: impl FnMut(Progress)) -> Result<Value, Failed> {
    let engines = engines(node)?;
    let engine = engines.iter().find(|engine| engine.can_change()).or(engines.first()).ok_or(Failed::SellsNothing)?;
    let has = engine.installed().await?.iter().any(|installed| model_name::same(&installed.name, model));
    if !has {
        room(node, model, fit::file_size(model).unwrap_or(0))?;
    }
    let mut download = Download::default();
    let fetched = download::fetch(&**engine, model, &mut download, |download, _| {
        progress(far(download));
        if has { Ok(()) } else { room(node, model, download.total()) }
    });
    fetched.await??;
    progress(far(&download));
    Ok(offers(node).await)
}

fn far(download: &Download) -> Progress {
    let (total, completed) = (download.total(), download.completed().min(download.total()));
    let pct = completed.saturating_mul(100).checked_div(total).unwrap_or(0);
    let phase = if total > 0 && completed == total { "verify" } else { "download" };
    Progress { status: download.stage().into(), phase, total, completed, pct }
}

/// Refuses what this machine has no memory for. An engine elsewhere has its own, which only it knows.
fn room(node: &Node, model: &str, size: u64) -> Result<(), Failed> {
    let needs = fit::memory(size, 0, 0);
    let local = node.engine_specs().unwrap_or_default().iter().all(BackendSpec::is_local);
    match node.machine() {
        Some(machine) if local && size > 0 && fit::fit(needs, &machine) == Fit::Nowhere => {
            Err(Failed::NoRoom { model: model.into(), needs })
        }
        _ => Ok(()),
    }
}

async fn remove(node: &Node, model: String) -> Result<Value, Failed> {
    let engines = engines(node)?;
    let mut refused = None;
    for engine in &engines {
        match engine.remove(model.clone()).await {
            Ok(()) => return Ok(offers(node).await),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.map_or(Failed::SellsNothing, Failed::from))
}

/// At once, and in `config.toml`, so that it holds after a restart unless a flag or a variable says otherwise.
async fn set_price(node: &Node, home: PathBuf, model: Option<String>, price: Price) -> Result<Value, Failed> {
    let model = match model {
        Some(model) if node.seller().is_some() => {
            let name = node.priced_name(&model).await;
            Some(name.map_err(|offers| Failed::NotOffered { model, offers })?)
        }
        model => model,
    };
    if !node.set_price(model.clone(), price).await {
        return Err(Failed::SellsNothing);
    }
    let of = model.clone();
    let written = tokio::task::spawn_blocking(move || config::write_price(&home, of.as_deref(), price)).await;
    match written {
        Ok(written) => drop(written?),
        Err(error) => warn!("a price was not written: {error}"),
    }
    let mut result = json!({ "in": price.input.0, "out": price.output.0 });
    if let (Some(model), Some(result)) = (model, result.as_object_mut()) {
        result.insert("model".into(), model.into());
    }
    Ok(result)
}
