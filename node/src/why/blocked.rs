//! What keeps a worker from earning anything at all, in the order in which it is to be mended.

use super::{Counts, Evidence, Finding, UNSERVED, counted, part, pull, wanted};
use crate::{engines::EngineReport, seller::Status};

/// Whoever has just started has not been heard of: ads are repeated within 45 s.
const NEW_MS: u64 = 60_000;
/// Messages off our clock, and their share, that make it suspect.
const MIN_OFF_CLOCK: u64 = 10;
const OFF_CLOCK_PERCENT: u64 = 20;

pub(super) fn findings(evidence: &Evidence<'_>, seller: &Status) -> Vec<Finding> {
    warnings(evidence).into_iter().chain(quiet(evidence, seller)).collect()
}

/// What is wrong, whether the node sells or only buys.
pub(super) fn warnings(evidence: &Evidence<'_>) -> Vec<Finding> {
    let of_seller = |find: fn(&Evidence<'_>, &Status) -> Option<Finding>| find(evidence, evidence.seller?);
    let found = [
        no_peers(evidence),
        engines(evidence),
        of_seller(no_model),
        store(evidence),
        of_seller(|_, seller| draining(seller)),
        of_seller(closed),
        clock(evidence),
    ];
    found.into_iter().flatten().chain(unserved(evidence)).collect()
}

fn no_peers(evidence: &Evidence<'_>) -> Option<Finding> {
    (evidence.peers == 0).then(|| {
        Finding::new(
            "no_peers",
            "no peer is connected",
            "nothing that is offered here is heard, and nothing is heard of others",
        )
        .blocking()
        .change("bootstrap = [\"/ip4/ADDRESS/tcp/46337/p2p/ID\"]")
    })
}

/// Blocks if none answers.
fn engines(evidence: &Evidence<'_>) -> Option<Finding> {
    let down: Vec<&EngineReport> = evidence.engines.iter().filter(|engine| engine.error.is_some()).collect();
    let first = down.first()?;
    let named = down.iter().map(|engine| engine.engine.as_str()).collect::<Vec<_>>().join(", ");
    let seen = format!("{} of {} down: {named}", down.len(), counted(evidence.engines.len() as u64, "engine"));
    let means = match &first.error {
        Some(error) => format!("its models are not offered until it answers again: {error}"),
        None => "its models are not offered until it answers again".into(),
    };
    let start = if first.engine.starts_with("ollama") { "ollama serve" } else { "backend = [\"KIND=URL\"]" };
    let finding = Finding::new("engine_down", seen, means).change(start);
    Some(if down.len() == evidence.engines.len() { finding.blocking() } else { finding })
}

fn no_model(evidence: &Evidence<'_>, seller: &Status) -> Option<Finding> {
    let answers = evidence.engines.iter().any(|engine| engine.error.is_none());
    if seller.models.is_empty() && evidence.engines.iter().any(|engine| engine.models > 0) {
        let seen = "the engines have models, but none of those that you let be offered";
        let finding = Finding::new("none_offered", seen, "there is nothing to sell until one of them is there");
        return Some(finding.blocking().change("infernet model use --all"));
    }
    (seller.models.is_empty() && answers).then(|| {
        let most = wanted(seller).first().filter(|most| most.is_demand()).and_then(|most| pull(&most.model));
        Finding::new(
            "no_model",
            "the engines have no model",
            "there is nothing to sell; a model is offered as soon as it is there",
        )
        .blocking()
        .change(most.unwrap_or_else(|| "infernet model pull llama3.2".into()))
    })
}

/// Names that were perhaps mistyped.
fn unserved<'a>(evidence: &Evidence<'a>) -> impl Iterator<Item = Finding> + use<'a> {
    evidence.unserved.iter().map(|one| Finding::new(UNSERVED, one.seen(), one.means()).change(one.change()))
}

/// The store says what is wrong, and behind a colon what to do.
fn store(evidence: &Evidence<'_>) -> Option<Finding> {
    evidence.store.map(|why| {
        let (seen, change) = why.rsplit_once(": ").unwrap_or((why, "infernet logs"));
        Finding::new("store", seen, "a receipt could be lost, so no new job is taken").blocking().change(change)
    })
}

/// One wrong clock among the peers shows in a few messages, our own in many.
fn clock(evidence: &Evidence<'_>) -> Option<Finding> {
    let (off, all) = evidence.clocks;
    (off >= MIN_OFF_CLOCK && off * 100 >= all * OFF_CLOCK_PERCENT).then(|| {
        let seen = format!("{} came too late or too early by this machine's clock", part(off, all, "message"));
        let means = "clocks differ by more than the mesh forgives; what is signed here looks stale, or not yet true, to others";
        Finding::new("clock", seen, means).change("timedatectl set-ntp true")
    })
}

fn draining(seller: &Status) -> Option<Finding> {
    seller.draining.then(|| {
        Finding::new("draining", "the node was told to take no new jobs", "running jobs end, and nothing else begins")
            .blocking()
            .change("infernet resume")
    })
}

/// By the operator's own policy.
fn closed(evidence: &Evidence<'_>, seller: &Status) -> Option<Finding> {
    let closed = seller.closed.as_ref()?;
    let (seen, change) = match closed.reason.as_str() {
        "off_schedule" => ("it is outside the schedule", "schedule = []"),
        "too_hot" => ("a GPU is hotter than max_celsius", "max_celsius = 85"),
        "too_much_power" => ("the GPUs draw more than max_watts", "max_watts = 400"),
        "busy_host" => ("somebody else uses this machine more than idle_percent", "only_idle = false"),
        other => (other, "infernet config show --origin"),
    };
    let minutes = closed.opens.map(|at| at.saturating_sub(evidence.now).div_ceil(60_000));
    let when = match minutes {
        None => "it opens by itself".into(),
        Some(n @ 0..=120) => format!("it opens in {}", counted(n, "minute")),
        Some(n) => format!("it opens in {}", counted(n / 60, "hour")),
    };
    let means = format!("no job is taken and nothing is advertised, as you configured; {when}");
    Some(Finding::new(&closed.reason, seen, means).blocking().change(change))
}

/// Nobody has asked for anything.
fn quiet(evidence: &Evidence<'_>, seller: &Status) -> Option<Finding> {
    let silent = evidence.peers > 0 && Counts(seller).heard() == 0 && Counts(seller).jobs() == 0;
    silent.then(|| {
        let time = match evidence.uptime_ms {
            0..NEW_MS => counted(evidence.uptime_ms / 1_000, "second"),
            ms => counted(ms / 60_000, "minute"),
        };
        let seen = format!("no offer was heard from {} in {time}", counted(evidence.peers as u64, "peer"));
        let means = match evidence.uptime_ms {
            0..NEW_MS => "the node has just started; ads take up to a minute to be known",
            _ => "nobody on this network buys at the moment, or only from whom they know",
        };
        Finding::new("quiet", seen, means)
    })
}
