//! `infernet model recommend`: which common models this machine can run, and what buyers ask for.

use super::{Engines, machine};
use crate::{
    cli::{Context, counted, exit::Exit, watch::cell},
    control::client::Client,
    download::bytes,
    fit::{self, COMMON, Common, Fit, USUAL_CONTEXT},
    hardware::Reading,
    why::{Wanted, WhyReport},
};
use infernet_wire::model_name;
use schemars::JsonSchema;
use serde::Serialize;

/// A processor reads the weights from memory for each token: with usual memory, some ten of this size in a second.
const SLOW_BYTES: u64 = 5_500_000_000;

/// `infernet model recommend --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cli) struct RecommendReport {
    /// Memory of all GPUs, in bytes; absent without one that tells.
    gpu_memory_bytes: Option<u64>,
    /// The machine's memory, in bytes; absent if unknown.
    memory_bytes: Option<u64>,
    /// Models that run here, the largest of those in GPU memory first.
    models: Vec<Recommended>,
    /// Models that buyers asked the running node for and it does not serve, the most wanted first; absent if none runs.
    wanted: Option<Vec<WantedModel>>,
}

/// A model that would run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
struct Recommended {
    /// Its name in Ollama's library.
    model: String,
    /// Bytes to fetch.
    size_bytes: u64,
    /// Memory that it takes with a context of 4096 tokens, estimated, in bytes.
    needs_bytes: u64,
    /// Where it would run: `gpu` or `memory`.
    fits: String,
    /// What it is good for.
    good_for: String,
    /// Whether an engine has it already.
    installed: bool,
}

/// A model that buyers ask for.
#[derive(Debug, Serialize, JsonSchema)]
struct WantedModel {
    /// Its name, as buyers spell it.
    model: String,
    /// How often it was asked for since the node started.
    offers: u64,
    /// By how many different buyers; 16 stands for more, too.
    buyers: u64,
    /// Where it would run here, by what its name says of its size: `gpu`, `memory`, `nowhere`, or `unknown`.
    fits: String,
}

pub(super) async fn run(context: &Context, engines: Option<&Engines>) -> Result<(), Exit> {
    let machine = machine().await;
    let mut installed = Vec::new();
    for engine in engines.into_iter().flat_map(|engines| &engines.all) {
        installed.extend(engine.installed().await.into_iter().flatten().map(|model| model.name));
    }
    let wanted = wanted(context, &machine).await;
    let report = RecommendReport {
        gpu_memory_bytes: machine.gpu_memory(),
        memory_bytes: machine.memory_bytes,
        models: recommended(&machine, &installed),
        wanted,
    };
    if context.json {
        return context.print_json(&report);
    }
    show(context, &report);
    Ok(())
}

/// Those of the table that run on `machine`: in GPU memory first, and of these the largest, since they are the best.
fn recommended(machine: &Reading, installed: &[String]) -> Vec<Recommended> {
    let judged = |model: &Common| {
        let needs = fit::memory(model.weights, model.cache_per_token(), USUAL_CONTEXT);
        (fit::fit(needs, machine), needs, *model)
    };
    let mut fitting: Vec<_> = COMMON.iter().map(judged).filter(|(fit, ..)| matches!(fit, Fit::Gpu | Fit::Memory)).collect();
    fitting.sort_by_key(|(fit, needs, _)| (*fit, u64::MAX - needs));
    let row = |(fit, needs, model): (Fit, u64, Common)| Recommended {
        model: model.name.into(),
        size_bytes: model.weights,
        needs_bytes: needs,
        fits: fit.label().into(),
        good_for: model.good_for.into(),
        installed: installed.iter().any(|name| model_name::meets(model.name, name, "")),
    };
    fitting.into_iter().map(row).collect()
}

/// What the running node has heard of.
async fn wanted(context: &Context, machine: &Reading) -> Option<Vec<WantedModel>> {
    let report: WhyReport = Client::connect(&context.home)?.get("why").await.ok()?;
    let judged = |Wanted { model, offers, buyers }: Wanted| {
        let fits = fit::file_size(&model).map_or(Fit::Unknown, |size| fit::fit(fit::memory(size, 0, 0), machine));
        WantedModel { model, offers, buyers, fits: fits.label().into() }
    };
    Some(report.wanted.into_iter().map(judged).collect())
}

fn show(context: &Context, report: &RecommendReport) {
    let memory = |what: &str, told: Option<u64>| told.map(|n| format!("{} of {what}", bytes(n)));
    let has: Vec<String> =
        [memory("GPU memory", report.gpu_memory_bytes), memory("memory", report.memory_bytes)].into_iter().flatten().collect();
    context.note(match has.is_empty() {
        true => "this machine does not tell how much memory it has".into(),
        false => format!("this machine has {}", has.join(" and ")),
    });
    if !report.models.is_empty() {
        context.print(format!("{:<20} {:>9} {:>9} {:<7} {:<5} GOOD FOR", "MODEL", "DOWNLOAD", "NEEDS", "RUNS IN", "HERE"));
    }
    for model in &report.models {
        let (size, needs) = (bytes(model.size_bytes), bytes(model.needs_bytes));
        let here = if model.installed { "yes" } else { "no" };
        let place = if model.fits == "gpu" { "GPU" } else { "memory" };
        context.print(format!("{:<20} {size:>9} {needs:>9} {place:<7} {here:<5} {}", model.model, model.good_for));
    }
    for wanted in report.wanted.iter().flatten() {
        let fits = if wanted.fits == "nowhere" { ", and it would not run here" } else { "" };
        let buyers = usize::try_from(wanted.buyers).unwrap_or(usize::MAX);
        let (by, model) = (counted(buyers, "buyer"), cell(&wanted.model, 64));
        context.print(format!("asked for: {model}, in {} offers by {by} so far{fits}", wanted.offers));
    }
    if let Some(best) = to_fetch(&report.models) {
        context.note(format!("needs are estimates; fetch one with `infernet model pull {}`", best.model));
    }
}

/// The best that is not here: the largest in GPU memory, else the largest that a processor runs at a speed worth paying for.
fn to_fetch(models: &[Recommended]) -> Option<&Recommended> {
    models.iter().filter(|model| !model.installed).find(|model| model.fits == "gpu" || model.size_bytes <= SLOW_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{Gpu, Vendor};

    fn machine(gpu_gib: Option<u64>, memory_gib: u64) -> Reading {
        let gpu = |gib: u64| Gpu {
            vendor: Vendor::Nvidia,
            model: "a".into(),
            memory_bytes: Some(gib << 30),
            used_bytes: None,
            busy_percent: None,
            celsius: None,
            watts: None,
        };
        let gpus = gpu_gib.map(gpu).into_iter().collect();
        Reading { gpus, memory_bytes: Some(memory_gib << 30), ..Reading::default() }
    }

    /// The first that is recommended for each place.
    fn check(machine: Reading, gpu: Option<&str>, memory: Option<&str>) {
        let all = recommended(&machine, &["llama3.1:8b".into(), "nomic-embed-text:latest".into()]);
        let first = |fits: &str| all.iter().find(|model| model.fits == fits).map(|model| model.model.as_str());
        assert_eq!((first("gpu"), first("memory")), (gpu, memory), "{all:?}");
        let has = |model: &Recommended| ["llama3.1:8b", "nomic-embed-text"].contains(&model.model.as_str());
        assert!(all.iter().all(|model| model.installed == has(model)), "{all:?}");
    }

    #[test]
    fn the_largest_that_fits_a_usual_machine_comes_first() {
        check(machine(Some(8), 16), Some("qwen3:8b"), Some("mistral-small:24b"));
        check(machine(Some(24), 64), Some("qwen3:32b"), Some("gpt-oss:120b"));
        check(machine(Some(80), 128), Some("gpt-oss:120b"), None);
        check(machine(None, 8), None, Some("llama3.1:8b"));
        check(machine(None, 1), None, None);
        let best = |machine| to_fetch(&recommended(&machine, &["qwen3:8b".into()])).map(|model| model.model.clone());
        assert_eq!(best(machine(None, 32)).as_deref(), Some("llama3.1:8b"));
        assert_eq!(best(machine(Some(24), 64)).as_deref(), Some("qwen3:32b"));
        assert_eq!(best(machine(None, 1)), None);
    }
}
