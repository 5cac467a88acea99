//! `infernet status`: a node on one screen. What is wrong stands out, with what to do about it.

use super::{
    Context, counted,
    exit::Exit,
    jobs, wallet,
    watch::{self, Paint, WatchArgs, cell, span, wrapped},
};
use crate::{
    clock,
    control::{
        client::Client,
        schema::{PlaneReport, ReachReport, RelayReport, StatusReport, ViaReport, away},
    },
    download,
    earnings::Sum,
    engines::EngineReport,
    hardware::{Gpu, Reading},
    seller::{self, ClosedReport},
    why::Finding,
};
use infernet_wire::{money::MicroUsd, time::UnixMillis};
use std::fmt::Write;

/// Models that are named; a worker may have 64.
const NAMED_MODELS: usize = 8;

pub(super) async fn run(context: &Context, args: WatchArgs) -> Result<(), Exit> {
    let node = Client::connect(&context.home).ok_or_else(|| Exit::not_running(&context.home))?;
    watch::show(context, args, async |paint| {
        let status: StatusReport = node.get("status").await?;
        if context.json { super::json(&status) } else { Ok(screen(&status, paint, clock::now())) }
    })
    .await
}

fn screen(status: &StatusReport, paint: Paint, now: UnixMillis) -> String {
    let mut text = String::new();
    let mut row = |what: &str, said: String| _ = writeln!(text, "{} {said}", paint.faint(format!("{what:<7}")));
    row("node", format!("{} on network {}", paint.bold(status.id), status.network));
    row("up", format!("{}, version {}", span(status.uptime_ms), status.version));
    status.listen.iter().for_each(|address| row("mesh", address.clone()));
    row("chat", format!("udp {}", status.chat));
    reach(&status.reach).into_iter().for_each(|(what, said)| row(what, said));
    if let Some(api) = &status.api {
        row("api", api.clone());
    }
    status.planes.iter().for_each(|plane| row("plane", plane_line(plane, now, paint)));
    if let Some(chain) = &status.chain {
        row("chain", format!("{}: {}", chain.chain, cell(&wallet::state(chain), 200)));
        chain.waits.iter().for_each(|why| row("", paint.bad(cell(why, 200))));
    }
    peers(status).into_iter().for_each(|said| row("peers", said));
    row("store", store(status));
    status.engines.iter().for_each(|engine| row("engine", engine_line(engine, paint)));
    match &status.seller {
        Some(seller) => {
            row("sells", sells(seller));
            if let Some(closed) = &seller.closed {
                row("closed", paint.bad(closed_said(closed, now)));
            }
            row("slots", slots(seller));
        }
        None => row("sells", "nothing; this node only buys".into()),
    }
    status.machine.iter().flat_map(machine).for_each(|(what, said)| row(what, said));
    row(
        "today",
        format!("earned {}, spent {} ({} UTC)", sum(&status.today.earned), sum(&status.today.spent), status.today.day),
    );
    status.warnings.iter().for_each(|warning| text.push_str(&warned(warning, paint)));
    if !status.jobs.is_empty() {
        text.push('\n');
        text.push_str(&jobs::table(&status.jobs, paint));
    }
    text
}

/// Whether others can dial it, the relays that hold a place for it, and those that carried nothing.
pub(super) fn reach(reach: &ReachReport) -> Vec<(&'static str, String)> {
    let shown = reach.relays.iter().filter(|relay| relay.is_held() || relay.barren > 0);
    let relay = |relay: &RelayReport| match relay.barren {
        0 => format!("{}{}", relay.id, away(relay.rtt_ms)),
        _ if relay.is_held() => format!("{} carried nothing before, and is tried again", relay.id),
        _ => format!("{} granted a place and carried nothing, so it was let go", relay.id),
    };
    let state = [("reach", format!("{}: {}", reach.state.label(), reach.why))];
    state.into_iter().chain(shown.map(|one| ("relay", relay(one)))).collect()
}

/// How many there are and by which way; and below that, who is relayed through whom.
pub(super) fn peers(status: &StatusReport) -> Vec<String> {
    let said = match status.paths.said() {
        ways if ways.is_empty() => status.peers.to_string(),
        ways => format!("{}: {ways}", status.peers),
    };
    std::iter::once(said).chain(status.paths.relays.iter().map(ViaReport::said)).collect()
}

/// Whether a plane hears of the node.
pub(super) fn plane_said(plane: &PlaneReport, now: UnixMillis) -> (bool, String) {
    let last = plane.told.map(|at| format!("told {} ago", span(now.since(UnixMillis(at)))));
    match (last, &plane.error) {
        (last, Some(error)) => {
            // The plane is named already.
            let why = error.strip_prefix(&plane.url).map_or(error.as_str(), str::trim_start);
            (false, format!("{}: {why}", last.as_deref().unwrap_or("not told yet")))
        }
        (Some(last), None) => (true, last),
        (None, None) => (true, "not told yet".into()),
    }
}

fn plane_line(plane: &PlaneReport, now: UnixMillis, paint: Paint) -> String {
    let (fine, said) = plane_said(plane, now);
    let said = cell(&said, 200);
    format!("{}: {}", plane.url, if fine { said } else { paint.bad(said) })
}

fn store(status: &StatusReport) -> String {
    let store = &status.store;
    let receipts = counted(usize::try_from(store.receipts).unwrap_or(usize::MAX), "receipt");
    let unreadable = if store.unreadable > 0 { format!(", {} unreadable", store.unreadable) } else { String::new() };
    let draining = status.seller.as_ref().is_some_and(|seller| seller.draining);
    let state = match (&store.problem, draining) {
        (Some(_), _) => "takes no new work",
        (None, true) => "could take work, but the node is draining",
        (None, false) => "takes work",
    };
    format!("{receipts}, {} unacknowledged{unreadable}; {state}", store.unacknowledged)
}

fn engine_line(engine: &EngineReport, paint: Paint) -> String {
    let state = if engine.error.is_some() { paint.bad("does not answer") } else { counted(engine.models, "model") };
    format!("{}: {state}{}", engine.engine, load(engine))
}

/// `, 2 running, 1 waiting`, as far as the engine tells.
pub(super) fn load(engine: &EngineReport) -> String {
    match (engine.running, engine.waiting) {
        (Some(running), Some(waiting)) if waiting > 0 => format!(", {running} running, {waiting} waiting"),
        (Some(running), _) => format!(", {running} running"),
        _ => String::new(),
    }
}

fn sells(seller: &seller::Status) -> String {
    let named: Vec<String> = seller.models.iter().take(NAMED_MODELS).map(|model| cell(model, 40)).collect();
    let more = seller.models.len().saturating_sub(NAMED_MODELS);
    let models = match (named.is_empty(), more) {
        (true, _) => return "nothing yet".into(),
        (_, 0) => named.join(", "),
        _ => format!("{} and {more} more", named.join(", ")),
    };
    format!("{models} at {}", priced(seller))
}

/// What models cost: one price, or that of the cheapest.
pub(super) fn priced(seller: &seller::Status) -> String {
    let Some(least) = seller.prices.iter().min_by_key(|offered| (offered.price_out, offered.price_in)) else {
        return "no price yet".into();
    };
    let same = seller.prices.iter().all(|one| (one.price_in, one.price_out) == (least.price_in, least.price_out));
    let more = if same { "" } else { ", others for more" };
    format!("{} in and {} out per million tokens{more}", MicroUsd(least.price_in), MicroUsd(least.price_out))
}

/// Why nothing is sold, and until when.
pub(super) fn closed_said(closed: &ClosedReport, now: UnixMillis) -> String {
    let why = match closed.reason.as_str() {
        "off_schedule" => "outside the schedule",
        "too_hot" => "a GPU is too hot",
        "too_much_power" => "the GPUs draw too much power",
        "busy_host" => "somebody else uses the machine",
        other => other,
    };
    match closed.opens {
        Some(at) => format!("{why}; opens in {}", span(at.saturating_sub(now.0))),
        None => why.into(),
    }
}

/// GPUs, and the load of the machine.
pub(super) fn machine(machine: &Reading) -> Vec<(&'static str, String)> {
    let gpus = machine.gpus.iter().map(|gpu| ("gpu", gpu_line(gpu)));
    let load = machine.load_percent.map(|percent| format!("load {percent} %"));
    let free = machine.available_bytes.zip(machine.memory_bytes);
    let memory = free.map(|(free, all)| format!("{} of {} memory free", download::bytes(free), download::bytes(all)));
    let host: Vec<String> = load.into_iter().chain(memory).collect();
    let host = (!host.is_empty()).then(|| ("host", host.join(", ")));
    gpus.chain(host).collect()
}

fn gpu_line(gpu: &Gpu) -> String {
    let memory = match (gpu.used_bytes, gpu.memory_bytes) {
        (Some(used), Some(all)) => Some(format!("{} of {} in use", download::bytes(used), download::bytes(all))),
        (None, Some(all)) => Some(download::bytes(all)),
        _ => None,
    };
    let busy = gpu.busy_percent.map(|percent| format!("busy {percent} %"));
    let rest = [busy, memory, gpu.celsius.map(|c| format!("{c} °C")), gpu.watts.map(|w| format!("{w} W"))];
    let rest: Vec<String> = rest.into_iter().flatten().collect();
    let name = cell(&gpu.model, 40);
    if rest.is_empty() { name } else { format!("{name}: {}", rest.join(", ")) }
}

fn slots(seller: &seller::Status) -> String {
    let free = usize::from(seller.slots).saturating_sub(seller.running + seller.held);
    let draining = if seller.draining { "; draining: takes no new jobs" } else { "" };
    format!("{} running, {} held, {free} free of {}{draining}", seller.running, seller.held, seller.slots)
}

fn sum(sum: &Sum) -> String {
    let unsigned = match sum.unacknowledged() {
        MicroUsd(0) => String::new(),
        amount => format!(", {amount} more unacknowledged"),
    };
    format!("{} in {}{unsigned}", sum.acknowledged(), counted(usize::try_from(sum.jobs).unwrap_or(usize::MAX), "job"))
}

/// What was seen, what it means, and below it what to change.
fn warned(warning: &Finding, paint: Paint) -> String {
    let said = wrapped(&format!("{}: {}", warning.seen, warning.means), "  ");
    let mut text = format!("\n{}\n", said.replacen(' ', &paint.bad("!"), 1));
    for line in warning.change.iter().flat_map(|change| change.lines()) {
        let _ = writeln!(text, "    {}", paint.bold(line));
    }
    text
}
