//! Nodes, and one of them.

use super::{Ask, Part, market::tile, plot, plot::Bar, receipts, words};
use crate::{
    commands,
    http::error::Refusal,
    presence,
    query::{self, Earned, Lost, NodeRow, NodeView, Why},
    store::{self, CommandRow, CommandStatus, Pubkey, Role},
};
use infernet_wire::{id::NodeId, money::MicroUsd};
use maud::{Markup, html};
use serde_json::Value;

/// Rows of a page.
const PAGE: usize = 100;
/// Days of a node's earnings, its newest receipts, and auctions that it lost.
const DAYS: u64 = 30;
const RECEIPTS: usize = 15;
const LOST: usize = 10;
/// Commands of a node that its owner is shown.
const COMMANDS: usize = 10;

/// Nodes of the network.
pub(super) fn list(ask: &Ask<'_>, offline: bool, after: Option<&NodeId>) -> Vec<Part> {
    let rows = ask.plane.index.read(|book| query::nodes(book, ask.now, after, offline, PAGE));
    let next = rows.last().filter(|_| rows.len() == PAGE).map(|row| row.id);
    let shown: Vec<Markup> = rows.iter().map(row).collect();
    let head = ["Node", "Status", "Models", "#Jobs at once", "Tags", "#Settled jobs", "#Reputation", "Last ad"];
    let none = "No node is there. Start one with `infernet start`.";
    let switch = html! {
        p {
            @if offline { a href="/nodes" { "Only those that are there" } } @else { a href="/nodes?offline=1" { "Those that are gone, too" } }
        }
    };
    let more = html! {
        @if let Some(next) = next { p { a href={ "/nodes?after=" (next) (if offline { "&offline=1" } else { "" }) } { "More" } } }
    };
    vec![Part::fixed(switch), Part::live("nodes", html! { (words::table(&head, &shown, none)) (more) })]
}

fn row(node: &NodeRow) -> Markup {
    html! {
        tr {
            td { (words::node(&node.id)) }
            td { (status(node.online)) }
            td { (node.models.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ")) @if node.models.len() > 5 { " …" } }
            td.n { (node.slots) }
            td { (node.tags.join(", ")) }
            td.n { (words::number(node.jobs)) }
            td.n title="Points by buyers that trade with several workers" { (words::number(node.reputation.points)) }
            td { (words::time(node.seen)) }
        }
    }
}

fn status(online: bool) -> Markup {
    if online { words::badge("good", "online") } else { words::badge("bad", "offline") }
}

/// One node.
pub(super) async fn one(ask: &Ask<'_>, id: &NodeId) -> Result<Vec<Part>, Refusal> {
    let index = &ask.plane.index;
    let view = index.read(|book| query::node(book, id, ask.now));
    let pubkey = Pubkey(id.x_only());
    let registered = ask.plane.store.node(pubkey, Role::Provider).await?.filter(|row| row.public);
    if view.is_none() && registered.is_none() {
        return Err(Refusal::not_found("node"));
    }
    let (days, newest, lost) = index.read(|book| {
        let days = query::earnings(book, id, ask.now, DAYS);
        (days, query::receipts(book, Some(id), RECEIPTS), query::lost(book, id, ask.now, LOST))
    });
    let owner = is_owner(ask, pubkey).await?;
    let mut parts = vec![Part::live("about", about(id, view.as_ref()))];
    if let Some(row) = &registered {
        parts.push(Part::live("machine", machine(ask, row)));
    }
    if let Some(view) = &view {
        parts.push(Part::live("served", models(view)));
    }
    parts.push(Part::fixed(manage(ask, id, registered.as_ref(), owner)));
    if owner {
        let rows = ask.plane.store.commands(pubkey, COMMANDS).await?;
        parts.push(Part::live("commands", given(ask, &rows)));
    }
    parts.push(Part::live("earned", earned(id, &days)));
    parts.push(Part::live("lost", lost_of(&lost)));
    parts.push(Part::live("recent", html! { h2 { "Recent jobs" } (receipts::table(&newest)) }));
    Ok(parts)
}

async fn is_owner(ask: &Ask<'_>, pubkey: Pubkey) -> Result<bool, Refusal> {
    let Some(somebody) = ask.somebody else { return Ok(false) };
    let identity = ask.plane.store.identity("node", &hex::encode(pubkey.0)).await?;
    Ok(identity.is_some_and(|identity| identity.client == somebody.client.id))
}

fn about(id: &NodeId, view: Option<&NodeView>) -> Markup {
    html! {
        p.wrap { code { (id) } }
        @match view {
            Some(view) => {
                dl.tiles {
                    div { dt { "Status" } dd { (status(view.online)) } }
                    (tile("Jobs at once", view.slots.to_string()))
                    (tile("Settled jobs", words::number(view.work.jobs)))
                    (tile("Earned", words::dollars(view.work.earned)))
                    (tile("Tokens a second", view.work.tokens_per_second.map_or_else(|| "–".into(), |rate| format!("{rate:.1}"))))
                    (tile("Reputation", words::number(view.reputation.points)))
                }
                p.note {
                    "Last ad: " (words::maybe_time(view.seen)) ". Tags: " (view.tags.join(", ")) ". "
                    "Of its settled jobs " (view.reputation.completed_permille as f64 / 10.0) " % were completed; "
                    "buyers: " (view.reputation.buyers) ", of whom for its reputation count: " (view.reputation.counted) "; "
                    "receipts that the buyer has not signed, which count for nothing: " (view.work.unacknowledged) "."
                }
            }
            None => p.note { "It is registered here, and has said nothing on the mesh." }
        }
    }
}

/// What a node says of its machine to planes that it reports to.
fn machine(ask: &Ask<'_>, row: &store::NodeRow) -> Markup {
    let online = presence::is_online(row, ask.plane.config.offline_ms, ask.now);
    let specs = &row.specs;
    let load = |name: &str| specs.get("load").and_then(|load| load.get(name));
    let gigabytes =
        |kind: &str| {
            let memory = load(kind)?;
            let (total, free) = (memory.get("total_gb")?.as_f64()?, memory.get("free_gb").and_then(Value::as_f64));
            Some(free.map_or_else(
                || format!("{total:.0} GB"),
                |free| format!("{:.1} of {total:.0} GB used", (total - free).max(0.0)),
            ))
        };
    let none = Vec::new();
    let gpus = specs.get("gpus").and_then(Value::as_array).unwrap_or(&none);
    let number = |value: Option<&Value>, unit: &str| value.and_then(Value::as_f64).map(|n| format!("{n:.0}{unit}"));
    let gpu = |gpu: &Value| {
        let text = |name: &str| gpu.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        html! {
            tr {
                td { (text("vendor")) " " (text("model")) }
                td { (text("vram_tier")) }
                td.n { (words::or_dash(number(gpu.get("busy_percent"), " %"))) }
                td.n { (words::or_dash(number(gpu.get("celsius"), " °C"))) }
                td.n { (words::or_dash(number(gpu.get("watts"), " W"))) }
            }
        }
    };
    let rows: Vec<Markup> = gpus.iter().map(gpu).collect();
    html! {
        h2 { "Machine and load" }
        dl.tiles {
            div { dt { "Heartbeat" } dd { (status(online)) } }
            (tile("Jobs running", number(load("active_jobs"), "").unwrap_or_else(|| "–".into())))
            (tile("Memory", gigabytes("ram").unwrap_or_else(|| "–".into())))
            (tile("GPU memory", gigabytes("vram").unwrap_or_else(|| "–".into())))
        }
        (words::table(&["GPU", "Memory", "#Busy", "#Heat", "#Power"], &rows, "It tells of no GPU."))
        p.note { "As the node told this plane, last " (words::time(row.seen)) "." }
    }
}

fn models(view: &NodeView) -> Markup {
    let work = |id: &str| view.by_model.iter().find(|(model, _)| model == id).map(|(_, work)| work.jobs).unwrap_or_default();
    let row = |model: &query::Served| {
        html! {
            tr {
                td { (model.id) @for alias in &model.aliases { " " small { (alias) } } }
                td { (words::price(model.price)) }
                td { @if model.quantisation.is_empty() { (words::dash()) } @else { (model.quantisation) } }
                td.n { @if model.context > 0 { (words::number(model.context.into())) } @else { (words::dash()) } }
                td.n { @if model.tokens_per_second > 0 { (model.tokens_per_second) } @else { (words::dash()) } }
                td.n { @if model.ttft_ms > 0 { (model.ttft_ms) " ms" } @else { (words::dash()) } }
                td.n { (words::number(work(&model.id))) }
            }
        }
    };
    let rows: Vec<Markup> = view.models.iter().map(row).collect();
    let head = [
        "Model",
        "Price, in / out",
        "Quantisation",
        "#Context",
        "#Tokens a second, as told",
        "#First token, as told",
        "#Settled jobs",
    ];
    html! { h2 { "Models" } (words::table(&head, &rows, "It serves none now.")) }
}

/// How models come and go: a node obeys its operators' signatures, so a page can only say what to run; a daemon that knows none
/// obeys its owner here.
fn manage(ask: &Ask<'_>, id: &NodeId, registered: Option<&store::NodeRow>, owner: bool) -> Markup {
    let plane = &ask.plane.config.origin;
    match registered {
        Some(row) if owner && !row.names_audience => {
            let path = format!("/api/v1/user/nodes/{}/commands", hex::encode(row.pubkey.0));
            html! {
                h2 { "Install or remove a model" }
                form.row data-api={ "POST " (path) } data-shape="command" {
                    label { "Model" input name="model" required placeholder="qwen2.5:0.5b" autocomplete="off"; }
                    button name="command" value="model_install" { "Install" }
                    button.danger name="command" value="model_remove" { "Remove" }
                    output {}
                }
            }
        }
        Some(_) => html! {
            details {
                summary { "Install or remove a model" }
                p { "The node obeys what its operator's key has signed. On the machine with that key, run:" }
                pre { code {
                    "infernet command " (id) " model_install MODEL --plane " (plane) "\n"
                    "infernet command " (id) " model_remove MODEL --plane " (plane)
                } }
                @if !owner { p.note { "Its owner sees the progress here: sign in with " code { "infernet login " (plane) } " and the node's key." } }
            }
        },
        None => html! {},
    }
}

fn given(ask: &Ask<'_>, rows: &[CommandRow]) -> Markup {
    let row = |row: &CommandRow| {
        let status = commands::status(row, ask.now);
        let (kind, text) = match status {
            CommandStatus::Pending => ("wait", "waits for the node"),
            CommandStatus::Running => ("wait", "running"),
            CommandStatus::Completed => ("good", "completed"),
            CommandStatus::Failed => ("bad", "failed"),
            CommandStatus::Cancelled => ("", "cancelled"),
            CommandStatus::Expired => ("bad", "expired"),
        };
        let percent = row.progress.as_ref().and_then(|progress| progress.get("pct")).and_then(Value::as_f64);
        let said =
            row.progress.as_ref().and_then(|progress| progress.get("status")).and_then(Value::as_str).unwrap_or_default();
        html! {
            tr {
                td { (row.verb) }
                td { (row.args.get("model").and_then(Value::as_str).unwrap_or_default()) }
                td { (words::badge(kind, text)) }
                td {
                    @match (status, percent) {
                        (CommandStatus::Running, Some(percent)) => { progress max="100" value=(percent) {} " " (format!("{percent:.0} %")) " " (said) }
                        (CommandStatus::Running, None) => { progress {} " " (said) }
                        _ => (row.error.as_deref().unwrap_or_default())
                    }
                }
                td { (words::time(row.issued)) }
            }
        }
    };
    let rows: Vec<Markup> = rows.iter().map(row).collect();
    html! { h2 { "Commands" } (words::table(&["Command", "Model", "Status", "Progress", "Given"], &rows, "None was given yet.")) }
}

fn earned(id: &NodeId, days: &[Earned]) -> Markup {
    let bar = |day: &Earned| {
        let at = crate::accounts::wallet::iso(day.from).chars().take(10).collect();
        Bar {
            at,
            value: day.work.earned.0 as f64,
            shown: format!("{}, {} jobs", words::dollars(day.work.earned), day.work.jobs),
        }
    };
    let total = days.iter().map(|day| day.work.earned).sum::<MicroUsd>();
    html! {
        h2 { "Earnings" }
        (plot::bars("Earned by day", &days.iter().map(bar).collect::<Vec<_>>()))
        p { (words::dollars(total)) " in " (days.len()) " days. " a href={ "/earnings.csv?node=" (id) } { "CSV of a year" } }
    }
}

fn lost_of(lost: &[Lost]) -> Markup {
    let row = |lost: &Lost| {
        html! {
            tr {
                td { (words::time(lost.issued)) }
                td { (lost.model) }
                td { (words::price(lost.own)) }
                td { (words::price(lost.price)) " by " (words::node(&lost.winner)) }
                td { (why(&lost.why)) }
            }
        }
    };
    let rows: Vec<Markup> = lost.iter().map(row).collect();
    html! {
        h2 { "Auctions that others won" }
        (words::table(&["Asked", "Model", "Its price, in / out", "Agreed, in / out", "Likely why"], &rows, "None of late."))
        p.note { "Bids are sealed, so this is read from prices alone. What the node itself knows is told by " code { "infernet why" } " on it." }
    }
}

fn why(why: &Why) -> Markup {
    match why {
        Why::AboveCeiling => html! { "dearer than the buyer would pay" },
        Why::Dearer(permille) => html! { "dearer by " (format!("{:.1}", *permille as f64 / 10.0)) " %" },
        Why::NotByPrice => html! { "not by its price: it was busy, slower, further away, or less known to the buyer" },
    }
}
