//! `infernet status`: a node on one screen. What is wrong stands out, with what to do about it.

use super::{
    Context, counted,
    exit::Exit,
    jobs,
    watch::{self, Paint, WatchArgs, cell, span, wrapped},
};
use crate::{
    control::{client::Client, schema::StatusReport},
    earnings::Sum,
    engines::EngineReport,
    seller,
    why::Finding,
};
use infernet_wire::money::MicroUsd;
use std::fmt::Write;

/// Models that are named; a worker may have 64.
const NAMED_MODELS: usize = 8;

pub(super) async fn run(context: &Context, args: WatchArgs) -> Result<(), Exit> {
    let node = Client::connect(&context.home).ok_or_else(|| Exit::not_running(&context.home))?;
    watch::show(context, args, async |paint| {
        let status: StatusReport = node.get("status").await?;
        if context.json { super::json(&status) } else { Ok(screen(&status, paint)) }
    })
    .await
}

fn screen(status: &StatusReport, paint: Paint) -> String {
    let mut text = String::new();
    let mut row = |what: &str, said: String| _ = writeln!(text, "{} {said}", paint.faint(format!("{what:<7}")));
    row("node", format!("{} on network {}", paint.bold(status.id), status.network));
    row("up", format!("{}, version {}", span(status.uptime_ms), status.version));
    status.listen.iter().for_each(|address| row("mesh", address.clone()));
    row("chat", format!("udp {}", status.chat));
    if let Some(api) = &status.api {
        row("api", api.clone());
    }
    row("peers", status.peers.to_string());
    row("store", store(status));
    status.engines.iter().for_each(|engine| row("engine", engine_line(engine, paint)));
    match &status.seller {
        Some(seller) => {
            row("sells", sells(status, seller));
            row("slots", slots(seller));
        }
        None => row("sells", "nothing; this node only buys".into()),
    }
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

fn store(status: &StatusReport) -> String {
    let store = &status.store;
    let receipts = counted(usize::try_from(store.receipts).unwrap_or(usize::MAX), "receipt");
    let unreadable = if store.unreadable > 0 { format!(", {} unreadable", store.unreadable) } else { String::new() };
    let state = if store.problem.is_some() { "takes no new work" } else { "takes work" };
    format!("{receipts}, {} unacknowledged{unreadable}; {state}", store.unacknowledged)
}

fn engine_line(engine: &EngineReport, paint: Paint) -> String {
    let state = if engine.error.is_some() { paint.bad("does not answer") } else { counted(engine.models, "model") };
    let load = match (engine.running, engine.waiting) {
        (Some(running), Some(waiting)) if waiting > 0 => format!(", {running} running, {waiting} waiting"),
        (Some(running), _) => format!(", {running} running"),
        _ => String::new(),
    };
    format!("{}: {state}{load}", engine.engine)
}

fn sells(status: &StatusReport, seller: &seller::Status) -> String {
    let named: Vec<String> = seller.models.iter().take(NAMED_MODELS).map(|model| cell(model, 40)).collect();
    let more = seller.models.len().saturating_sub(NAMED_MODELS);
    let models = match (named.is_empty(), more) {
        (true, _) => "nothing yet".into(),
        (_, 0) => named.join(", "),
        _ => format!("{} and {more} more", named.join(", ")),
    };
    let price = |price: Option<u64>| MicroUsd(price.unwrap_or_default());
    format!("{models} at {} in and {} out per million tokens", price(status.price_in), price(status.price_out))
}

fn slots(seller: &seller::Status) -> String {
    let free = usize::from(seller.slots).saturating_sub(seller.running + seller.held);
    let draining = if seller.draining { "; takes no new jobs" } else { "" };
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
