//! Disk, receipts, engines, clock, files.

use crate::doctor::{
    Check,
    facts::{Configured, Engine, Facts, ModelSize, Running},
};
use crate::{
    engines::{self, EngineReport},
    fit::{self, Fit},
    store::StoreError,
};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// The journal refuses work when nothing is left; below this the log alone may fill the disk.
const LITTLE: u64 = 100 * MIB;
/// Receipts of months, and the log.
const ENOUGH: u64 = GIB;
/// Receipts are synced before they are sent; slower, and buyers wait for them.
const SLOW_SYNC_MS: u128 = 200;
/// Messages off our clock, and their share, that make it suspect; as in `infernet why`.
const MIN_OFF_CLOCK: u64 = 10;
const OFF_CLOCK_PERCENT: u64 = 20;
/// Beside connections: store, log, listeners, engines and the streams of a busy worker.
const OTHER_FILES: u64 = 256;
/// A peer may be connected over TCP and QUIC, and be dialled meanwhile.
const FILES_PER_PEER: u64 = 2;
/// Models that are named.
const NAMED: usize = 5;

pub(super) fn disk(facts: &Facts) -> Vec<Check> {
    let free = match facts.disk.free {
        Some(free) if free < LITTLE => {
            let said = format!("{} MiB are free on the home's disk; without room no job is taken", free / MIB);
            Check::problem("disk", said, "make room, or move the home to another disk")
        }
        Some(free) if free < ENOUGH => {
            Check::warning("disk", format!("{} MiB are free on the home's disk", free / MIB), "make room for a gibibyte")
        }
        Some(free) => Check::ok("disk", format!("{} GiB are free on the home's disk", free / GIB)),
        None => Check::unchecked("disk", "how much room the disk has is not known"),
    };
    let sync = match &facts.disk.synced {
        None => Check::unchecked("sync", "there is no home to write to yet"),
        Some(Ok(took)) if took.as_millis() > SLOW_SYNC_MS => Check::warning(
            "sync",
            format!("it took {} ms until a small file was on the disk, and every receipt waits for that", took.as_millis()),
            "move the home to a faster disk",
        ),
        Some(Ok(took)) => Check::ok("sync", format!("a small file was on the disk after {:.1} ms", took.as_secs_f64() * 1e3)),
        Some(Err(why)) => {
            let said = format!("the home can't be written to: {why}");
            Check::problem("sync", said, format!("make {} writable for you", facts.home.display()))
        }
    };
    vec![free, sync]
}

pub(super) fn store(facts: &Facts) -> Check {
    if let Some(node) = facts.node.facts() {
        let store = &node.status.store;
        return match (&store.problem, store.unreadable) {
            (Some(problem), _) => of_error("store", problem),
            (None, 0) => Check::ok("store", format!("{}; the running node keeps them", counted(store.receipts, "receipt"))),
            (None, n) => unreadable(n),
        };
    }
    match &facts.store {
        None => Check::unchecked("store", "the receipts could not be looked at in time, or without a configuration"),
        Some(Ok(receipts)) if !receipts.exists => Check::ok("store", "no receipts yet"),
        Some(Ok(receipts)) if receipts.unreadable > 0 => unreadable(receipts.unreadable),
        Some(Ok(receipts)) => Check::ok("store", format!("opens; {}", counted(receipts.readable, "receipt"))),
        Some(Err(StoreError::Locked { .. })) => Check::unchecked("store", "another process has the receipts open just now"),
        Some(Err(error)) => of_error("store", &error.to_string()),
    }
}

/// The store's errors end with their way out.
fn of_error(name: &str, text: &str) -> Check {
    let (said, fix) = text.rsplit_once(": ").unwrap_or((text, "infernet logs"));
    Check::problem(name, said, fix)
}

/// `1 receipt`, `2 receipts`.
fn counted(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn unreadable(n: u64) -> Check {
    let fix = "infernet receipts verify, and keep a copy of the home";
    Check::problem("store", format!("{} can't be read: something else has changed the store", counted(n, "receipt")), fix)
}

pub(super) fn engines(facts: &Facts) -> Vec<Check> {
    // A running node may have been told of others than its file names, or of none.
    if let Some(status) = facts.node.facts().map(|node| &node.status) {
        if status.seller.is_none() {
            return vec![Check::ok("engine", "the running node needs none: it only buys")];
        }
        if !status.engines.is_empty() {
            return status.engines.iter().flat_map(|engine| of_node(engine, facts)).collect();
        }
    }
    let Ok(config) = &facts.config else { return vec![Check::unchecked("engine", "which engines there are is not known")] };
    if facts.engines.is_empty() {
        return vec![Check::ok("engine", "none is configured: this node only buys")];
    }
    let memory = (facts.memory, facts.gpu_memory);
    let used: Vec<&Engine> = match config.backend_is_guess {
        false => facts.engines.iter().collect(),
        true => facts.engines.iter().find(|engine| engine.models.is_ok()).into_iter().collect(),
    };
    if used.is_empty() {
        return vec![nowhere(&facts.engines)];
    }
    used.iter().flat_map(|engine| of_engine(engine, memory)).chain(unserved(config, &used)).collect()
}

/// Names in the configuration that are perhaps mistyped. An engine that does not answer may have them.
fn unserved(config: &Configured, engines: &[&Engine]) -> Vec<Check> {
    let there: Result<Vec<_>, _> = engines.iter().map(|engine| engine.models.as_ref()).collect();
    let there: Vec<String> = there.into_iter().flatten().flatten().map(|model| model.id.clone()).collect();
    let told = engines::unserved(&config.offers, &there);
    told.iter().map(|one| Check::warning("engine", format!("{}: {}", one.seen(), one.means()), one.change())).collect()
}

/// As the running node has it. What was seen of an engine of that name tells of memory.
fn of_node(engine: &EngineReport, facts: &Facts) -> Vec<Check> {
    let EngineReport { engine: name, models, error, .. } = engine;
    let check = match error {
        None if *models == 0 => {
            let said = format!("{name} has no model, so nothing is offered");
            Check::warning("engine", said, "infernet model pull llama3.2")
        }
        None => Check::ok("engine", format!("the running node has {} of {name}", counted(*models as u64, "model"))),
        Some(why) => Check::problem("engine", format!("{name} does not answer the running node: {why}"), "start it"),
    };
    let seen = facts.engines.iter().find(|seen| seen.label == *name);
    let models = seen.and_then(|seen| Some((seen, seen.models.as_ref().ok().filter(|models| !models.is_empty())?)));
    let memory = models.map(|(seen, models)| memory_for(seen, models, (facts.memory, facts.gpu_memory)));
    [check].into_iter().chain(memory).collect()
}

fn nowhere(engines: &[Engine]) -> Check {
    let places: Vec<&str> = engines.iter().map(|engine| engine.name.as_str()).collect();
    Check::problem(
        "engine",
        format!("no engine answers where one is looked for: {}", places.join(", ")),
        "start one, name another with backend = [\"KIND=URL\"], or only buy with backend = []",
    )
}

fn of_engine(engine: &Engine, memory: (Option<u64>, Option<u64>)) -> Vec<Check> {
    let name = &engine.name;
    match &engine.models {
        Err(why) => vec![Check::problem(
            "engine",
            format!("{name} does not answer: {why}"),
            "start it, or mend its line in config.toml",
        )],
        Ok(models) if models.is_empty() => {
            vec![Check::warning(
                "engine",
                format!("{name} has no model, so nothing is offered"),
                "infernet model pull llama3.2",
            )]
        }
        Ok(models) => {
            let named: Vec<&str> = models.iter().take(NAMED).map(|model| model.id.as_str()).collect();
            let more = models.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let mut checks = vec![Check::ok("engine", format!("{name} has {}{more}", named.join(", ")))];
            checks.push(memory_for(engine, models, memory));
            checks
        }
    }
}

/// Whether the largest model fits: the machine's memory, or that of its GPUs.
fn memory_for(engine: &Engine, models: &[ModelSize], (memory, gpus): (Option<u64>, Option<u64>)) -> Check {
    let Some((model, bytes)) = models.iter().filter_map(|model| Some((model, weight(model)?))).max_by_key(|(_, bytes)| *bytes)
    else {
        return Check::unchecked("memory", format!("{} does not tell how large its models are", engine.name));
    };
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / GIB as f64);
    let said = format!("{} needs about {}", model.id, gib(bytes));
    if !engine.is_local {
        return Check::unchecked("memory", format!("{said}, on another machine"));
    }
    let has = |bytes: Option<u64>| gib(bytes.unwrap_or(0));
    let smaller = "take a smaller model or quantisation";
    match (fit::fit_within(bytes, gpus, memory), gpus) {
        (Fit::Gpu, _) => Check::ok("memory", format!("{said} of {} on the GPUs", has(gpus))),
        (Fit::Memory, None) => Check::ok("memory", format!("{said} of {}", has(memory))),
        (Fit::Memory, Some(gpus)) => {
            let part = format!("{said}, the GPUs have {}: a part runs on the processor, slowly", gib(gpus));
            Check::warning("memory", part, smaller)
        }
        (Fit::Nowhere, gpus) => {
            let all = memory.unwrap_or(0).saturating_add(gpus.unwrap_or(0));
            Check::warning("memory", format!("{said}, and this machine has {}", gib(all)), smaller)
        }
        (Fit::Unknown, _) => Check::unchecked("memory", format!("{said}; how much this machine has is not known")),
    }
}

/// Bytes of a model in memory. `None` if it does not tell.
fn weight(model: &ModelSize) -> Option<u64> {
    Some(fit::memory(fit::weights_of(model.parameters, &model.quantisation)?, 0, 0))
}

/// What the running node has seen of others' clocks says more than the system.
pub(super) fn clock(facts: &Facts) -> Check {
    if let Running::Yes(node) = &facts.node {
        let (off, all) = node.clocks;
        if off >= MIN_OFF_CLOCK && off.saturating_mul(100) >= all.saturating_mul(OFF_CLOCK_PERCENT) {
            let said = format!("{off} of {all} messages came too late or too early by this machine's clock");
            return Check::problem("clock", said, "timedatectl set-ntp true");
        }
        if all >= MIN_OFF_CLOCK {
            return Check::ok("clock", format!("agrees with others': {off} of {all} messages came at a strange time"));
        }
    }
    match facts.synchronised {
        Some(true) => Check::ok("clock", "set by time servers, says the system"),
        Some(false) => Check::warning(
            "clock",
            "no time server sets this machine's clock; what is signed by a wrong clock is refused by others",
            "timedatectl set-ntp true",
        ),
        None => Check::unchecked("clock", "the system does not tell whether time servers set it, and no peers were heard yet"),
    }
}

pub(super) fn descriptors(facts: &Facts) -> Check {
    let Ok(config) = &facts.config else { return Check::unchecked("files", "how many peers there may be is not known") };
    let needed = u64::from(config.max_peers) * FILES_PER_PEER + OTHER_FILES;
    match facts.descriptors {
        (Some(now), most) if now < needed => {
            let said = format!("a process may open {now} files, and {} peers may need {needed}", config.max_peers);
            let fix = match most {
                Some(most) if most < needed => {
                    "lower max_peers, or raise the limit `nofile` in /etc/security/limits.conf".into()
                }
                _ => format!("ulimit -n {needed}, or install the service, which does so"),
            };
            Check::warning("files", said, fix)
        }
        (Some(now), _) => Check::ok("files", format!("a process may open {now}, and needs at most {needed}")),
        (None, _) => Check::ok("files", "a process may open as many as it likes"),
    }
}
