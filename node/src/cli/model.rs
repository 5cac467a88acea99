//! `infernet model`: what the engines have, what is fetched, removed and offered, and what would run here.
//!
//! The engines are asked themselves, so it works with and without a running node. A node that runs is told at once of what has
//! changed, and what it offers follows.

mod pull;
mod recommend;

pub(super) use pull::PullEvent;
pub(super) use recommend::RecommendReport;

use super::{Context, exit, exit::Exit, watch::cell};
use crate::{
    backend::{
        BackendError, BackendSpec,
        manage::{self, Installed, Manage, ManageError},
    },
    config::{self, Config, Partial},
    control::{
        client::Client,
        schema::{EnginesBody, OfferedReport, StatusReport},
    },
    download::bytes,
    fit,
    hardware::{self, Reading},
};
use clap::{Args, Subcommand};
use infernet_wire::model_name;
use schemars::JsonSchema;
use serde::Serialize;
use std::{path::PathBuf, time::Duration};

/// A driver that tells its GPUs takes two seconds at most; one that hangs is not waited for.
const MACHINE: Duration = Duration::from_secs(6);

#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    /// Engine to ask, such as ollama=http://127.0.0.1:11434 [default: those of the running node, else of the configuration]
    #[arg(long, global = true, value_name = "KIND=URL")]
    backend: Option<BackendSpec>,
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// Show the models that the engines have.
    List,
    /// Fetch a model; a broken download goes on where it stopped.
    Pull(pull::PullArgs),
    /// Remove a model from its engine's disk.
    Remove {
        /// Its name, as `list` shows it.
        model: String,
    },
    /// Show one model: size, context, whether it fits this machine.
    Show {
        /// Its name, as `list` shows it.
        model: String,
    },
    /// Offer these models alone; kept in config.toml.
    Use(UseArgs),
    /// Show which common models this machine can run, and what buyers ask for.
    Recommend,
}

#[derive(Debug, Args)]
struct UseArgs {
    /// Names, as `list` shows them.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    models: Vec<String>,
    /// Offer every model again.
    #[arg(long)]
    all: bool,
}

/// `infernet model list --json`: a list of these.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InstalledReport {
    /// The engine that has it, as `KIND=URL`.
    engine: String,
    /// Its name there.
    model: String,
    /// Bytes on its disk; 0 if the engine does not tell.
    size_bytes: u64,
    /// Number of parameters; 0 if unknown.
    parameters: u64,
    /// Quantisation, such as `Q4_K_M`; empty if unknown.
    quantisation: String,
    /// Whether it is in memory now; absent if the engine does not tell.
    loaded: Option<bool>,
    /// Whether the configuration lets it be offered.
    offered: bool,
}

/// `infernet model show --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ModelDetails {
    /// The engine that has it, as `KIND=URL`.
    engine: String,
    /// Its name there.
    model: String,
    /// Architecture family; empty if unknown.
    family: String,
    /// Number of parameters; 0 if unknown.
    parameters: u64,
    /// Quantisation; empty if unknown.
    quantisation: String,
    /// The longest context it was trained for, in tokens; 0 if unknown.
    context: u32,
    /// Bytes on the engine's disk; 0 if it does not tell.
    size_bytes: u64,
    /// What it can do, in the engine's words.
    abilities: Vec<String>,
    /// SHA-256 of its weights, in hex, as its ad tells it; absent if the engine does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<String>,
    /// The same of its chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// Memory that it takes, estimated, in bytes, without any for a context; absent if its size is unknown.
    needs_bytes: Option<u64>,
    /// Where it would run here: `gpu`, `memory`, `nowhere`, or `unknown`.
    fits: String,
    /// Whether the configuration lets it be offered.
    offered: bool,
}

/// `infernet model remove --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RemovedReport {
    /// The engine that had it.
    engine: String,
    /// The model.
    model: String,
    /// What the running node offers now; absent if none runs.
    node_offers: Option<Vec<String>>,
}

/// `infernet model use --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct UseReport {
    /// The only models that are offered; empty: all.
    models: Vec<String>,
    /// The file that says so.
    config: PathBuf,
    /// What the running node offers now; absent if none runs.
    node_offers: Option<Vec<String>>,
}

pub(super) async fn run(context: &Context, args: ModelArgs) -> Result<(), Exit> {
    let engines = Engines::new(context, args.backend).await;
    match args.command {
        ModelCommand::List => list(context, &engines?).await,
        ModelCommand::Pull(args) => pull::run(context, &engines?, args).await,
        ModelCommand::Remove { model } => remove(context, &engines?, model).await,
        ModelCommand::Show { model } => show(context, &engines?, model).await,
        ModelCommand::Use(args) => choose(context, &engines?, args).await,
        // Nobody needs an engine to know what would run.
        ModelCommand::Recommend => recommend::run(context, engines.as_ref().ok()).await,
    }
}

/// The engines, and what is configured of them.
struct Engines {
    all: Vec<Box<dyn Manage>>,
    only: Vec<String>,
    /// Whether nobody named them: then they are all usual places, and most are empty.
    is_guess: bool,
}

impl Engines {
    /// Those of `named`, else of the running node, else of the configuration.
    async fn new(context: &Context, named: Option<BackendSpec>) -> Result<Self, Exit> {
        let config = Config::load(&context.home, Partial::default())?;
        let (specs, is_guess) = match named {
            Some(spec) => (vec![keyed(&config, spec)?], false),
            None => match running(context).await {
                Some(specs) => (specs.into_iter().map(|spec| keyed(&config, spec)).collect::<Result<_, _>>()?, false),
                None => (config.backend, config.backend_is_guess),
            },
        };
        if specs.is_empty() {
            let fix = "name one with --backend KIND=URL";
            return Err(Exit::new(exit::NO_ENGINE, format!("this node has no engine, it only buys: {fix}")));
        }
        let all = specs.iter().map(manage::manage).collect::<Result<_, _>>();
        Ok(Engines { all: all.map_err(|error| Exit::new(exit::NO_ENGINE, error))?, only: config.models, is_guess })
    }

    /// What each engine has. Fails if none answers; others' silence is told.
    async fn installed(&self, context: &Context) -> Result<Vec<(String, Installed)>, Exit> {
        let (mut found, mut silent) = (Vec::new(), Vec::new());
        for engine in &self.all {
            match engine.installed().await {
                Ok(models) => found.extend(models.into_iter().map(|model| (engine.engine(), model))),
                Err(error) => silent.push(error),
            }
        }
        if silent.len() == self.all.len() && self.is_guess {
            return Err(self.nobody());
        }
        if silent.len() == self.all.len() {
            return Err(silent.into_iter().next().map_or_else(|| Exit::new(exit::NO_ENGINE, "no engine"), Exit::from));
        }
        if !self.is_guess {
            silent.iter().for_each(|error| context.note(format!("{error}")));
        }
        Ok(found)
    }

    /// The engine that has `model`, and what it says of it.
    async fn find(&self, model: &str) -> Result<(&dyn Manage, Installed), Exit> {
        let mut why = None;
        for engine in &self.all {
            match engine.show(model.to_owned()).await {
                Ok(installed) => return Ok((&**engine, installed)),
                // An engine that does not answer says less than one that does.
                Err(error @ ManageError::Unknown { .. }) => why = Some(error),
                Err(error) => why = why.or(Some(error)),
            }
        }
        Err(why.map_or_else(|| Exit::new(exit::NO_ENGINE, "no engine"), Exit::from))
    }

    /// None of the usual places has an engine.
    fn nobody(&self) -> Exit {
        let places: Vec<String> = self.all.iter().map(|engine| engine.engine()).collect();
        let fix = "start one, or name yours with --backend KIND=URL";
        Exit::new(exit::NO_ENGINE, format!("no engine answers at its usual place ({}): {fix}", places.join(", ")))
    }

    fn is_offered(&self, model: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| model_name::same(only, model))
    }
}

/// With its key, as the configuration has it.
fn keyed(config: &Config, spec: BackendSpec) -> Result<BackendSpec, Exit> {
    config.engine(spec).map_err(|error| Exit::new(exit::USAGE, error))
}

/// The engines of the node that runs here.
async fn running(context: &Context) -> Option<Vec<BackendSpec>> {
    let status: StatusReport = Client::connect(&context.home)?.get("status").await.ok()?;
    let specs = status.engines.iter().filter_map(|engine| engine.engine.replacen(" at ", "=", 1).parse().ok());
    let specs: Vec<BackendSpec> = specs.collect();
    (!specs.is_empty()).then_some(specs)
}

/// Has the running node look at its engines now, and offer `only` these models. What it offers then; `None` if none runs.
async fn tell_node(context: &Context, only: Option<Vec<String>>) -> Option<Vec<String>> {
    let node = Client::connect(&context.home)?;
    let body = serde_json::to_string(&EnginesBody { only }).ok()?;
    match node.post::<OfferedReport>("engines", body).await {
        Ok(Ok(offered)) => Some(offered.models),
        Ok(Err(error)) => {
            context.note(format!("the running node was not told: {}", error.message));
            None
        }
        Err(error) => {
            context.note(format!("the running node was not told, and looks by itself within 10 s: {error}"));
            None
        }
    }
}

fn told(context: &Context, offers: Option<&Vec<String>>) {
    match offers {
        Some(models) if models.is_empty() => context.note("the running node offers nothing now"),
        Some(models) => context.note(format!("the running node offers {}", models.join(", "))),
        None => {}
    }
}

/// This machine, as it is now.
async fn machine() -> Reading {
    hardware::once(MACHINE).await
}

async fn list(context: &Context, engines: &Engines) -> Result<(), Exit> {
    let found = engines.installed(context).await?;
    if context.json {
        let row = |(engine, model): (String, Installed)| InstalledReport {
            engine,
            offered: engines.is_offered(&model.name),
            model: model.name,
            size_bytes: model.size,
            parameters: model.parameters,
            quantisation: model.quantisation,
            loaded: model.loaded,
        };
        return context.print_json(&found.into_iter().map(row).collect::<Vec<_>>());
    }
    if found.is_empty() {
        context.note(
            "no engine has a model yet: `infernet model recommend` says what runs here, `infernet model pull` fetches it",
        );
        return Ok(());
    }
    context.print(format!("{:<40} {:>8} {:>8} {:<10} {:<7} OFFERED", "MODEL", "SIZE", "PARAMS", "QUANT", "LOADED"));
    for (_, model) in &found {
        let size = if model.size > 0 { bytes(model.size) } else { "-".into() };
        let quantisation = if model.quantisation.is_empty() { "-" } else { &model.quantisation };
        let loaded = model.loaded.map_or("-", |loaded| if loaded { "yes" } else { "no" });
        let offered = if engines.is_offered(&model.name) { "yes" } else { "no" };
        let (name, quantisation) = (cell(&model.name, 40), cell(quantisation, 10));
        context.print(format!("{name:<40} {size:>8} {:>8} {quantisation:<10} {loaded:<7} {offered}", parameters(model)));
    }
    Ok(())
}

/// `8.0B`, `270M`.
fn parameters(model: &Installed) -> String {
    match model.parameters {
        0 => "-".into(),
        n @ 0..1_000_000_000 => format!("{}M", n.div_ceil(1_000_000)),
        n => format!("{:.1}B", n as f64 / 1e9),
    }
}

async fn show(context: &Context, engines: &Engines, model: String) -> Result<(), Exit> {
    let (engine, installed) = engines.find(&model).await?;
    let needs = (installed.size > 0).then(|| fit::memory(installed.size, 0, 0));
    let fits = match needs {
        Some(needs) => fit::fit(needs, &machine().await),
        None => fit::Fit::Unknown,
    };
    let details = ModelDetails {
        engine: engine.engine(),
        offered: engines.is_offered(&installed.name),
        model: installed.name.clone(),
        family: installed.family.clone(),
        parameters: installed.parameters,
        quantisation: installed.quantisation.clone(),
        context: installed.context,
        size_bytes: installed.size,
        abilities: installed.abilities.clone(),
        weights: installed.weights.map(|digest| digest.to_string()),
        template: installed.template.map(|digest| digest.to_string()),
        needs_bytes: needs,
        fits: fits.label().into(),
    };
    if context.json {
        return context.print_json(&details);
    }
    let row = |what: &str, said: &str| {
        if !said.is_empty() && said != "0" && said != "-" {
            context.print(format!("{what:<13} {}", cell(said, 100)));
        }
    };
    row("model", &details.model);
    row("engine", &details.engine);
    row("family", &details.family);
    row("parameters", &parameters(&installed));
    row("quantisation", &details.quantisation);
    row("context", &details.context.to_string());
    row("size", &if details.size_bytes > 0 { bytes(details.size_bytes) } else { String::new() });
    row("can", &details.abilities.join(", "));
    row("weights", details.weights.as_deref().unwrap_or_default());
    row("template", details.template.as_deref().unwrap_or_default());
    row(
        "needs",
        &details
            .needs_bytes
            .map(|needs| format!("about {} of memory, and more for a context", bytes(needs)))
            .unwrap_or_default(),
    );
    row("runs", said(fits));
    row("offered", if details.offered { "yes" } else { "no; `infernet model use` changes it" });
    Ok(())
}

/// Where a model runs, for people.
fn said(fit: fit::Fit) -> &'static str {
    match fit {
        fit::Fit::Gpu => "on the GPU",
        fit::Fit::Memory => "in memory, slower than on a GPU",
        fit::Fit::Nowhere => "not here: it needs more memory than this machine has",
        fit::Fit::Unknown => "",
    }
}

async fn remove(context: &Context, engines: &Engines, model: String) -> Result<(), Exit> {
    let (engine, installed) = engines.find(&model).await?;
    engine.remove(installed.name.clone()).await?;
    let offers = tell_node(context, None).await;
    if context.json {
        return context.print_json(&RemovedReport { engine: engine.engine(), model: installed.name, node_offers: offers });
    }
    context.note(format!("{} is gone from {}", installed.name, engine.engine()));
    told(context, offers.as_ref());
    Ok(())
}

async fn choose(context: &Context, engines: &Engines, args: UseArgs) -> Result<(), Exit> {
    let mut models = Vec::new();
    for model in &args.models {
        let (_, installed) = engines.find(model).await?;
        models.push(installed.name);
    }
    let config = config::write_models(&context.home, (!args.all).then_some(&models[..]))?;
    let offers = tell_node(context, Some(models.clone())).await;
    if context.json {
        return context.print_json(&UseReport { models, config, node_offers: offers });
    }
    context.note(match args.all {
        true => "every model is offered".into(),
        false => format!("only {} is offered; `infernet model use --all` offers all again", models.join(", ")),
    });
    told(context, offers.as_ref());
    Ok(())
}

impl From<ManageError> for Exit {
    fn from(error: ManageError) -> Self {
        let code = match &error {
            ManageError::Unknown { .. } | ManageError::NotPublished { .. } | ManageError::Fixed { .. } => exit::USAGE,
            ManageError::Engine(
                BackendError::Unreachable { .. } | BackendError::Timeout { .. } | BackendError::Malformed { .. },
            ) => exit::NO_ENGINE,
            _ => exit::FAILED,
        };
        Exit::new(code, error)
    }
}
