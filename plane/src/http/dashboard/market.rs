//! The network at a glance, and its models.

use super::{Ask, Part, plot, plot::Bar, words};
use crate::query::{self, Auction, Demand, ModelRow, Point};
use infernet_wire::money::MicroUsd;
use maud::{Markup, html};

/// Hours of the plots.
const HOURS: u64 = 48;
/// Auctions that are shown.
const AUCTIONS: usize = 15;

/// The network at a glance.
pub(super) fn overview(ask: &Ask<'_>) -> Vec<Part> {
    let (glance, hours, auctions, models, demand) = ask.plane.index.read(|book| {
        let models = query::models(book, ask.now);
        let (glance, hours) = (query::overview(book, ask.now), query::traffic(book, ask.now, HOURS));
        (glance, hours, query::auctions(book, AUCTIONS), models, query::demand(book, ask.now))
    });
    let tiles = html! {
        dl.tiles {
            (tile("Live nodes", words::number(glance.nodes_online as u64)))
            (tile("Models", words::number(glance.models as u64)))
            (tile("Jobs at once", words::number(glance.slots)))
            (tile("Jobs, 24 h", words::number(glance.jobs_24h)))
            (tile("Volume, 24 h", words::dollars(glance.volume_24h)))
            (tile("Tokens a second, 24 h", glance.tokens_per_second.map_or_else(|| "–".into(), |rate| format!("{rate:.1}"))))
        }
        p.note { "Volume and speed are of jobs whose receipts both sides signed. Last one: " (words::maybe_time(glance.last_job)) }
    };
    let plots = html! {
        div.plots {
            (plot::bars("Volume by hour", &hours.iter().map(volume).collect::<Vec<_>>()))
            (plot::bars("Output tokens a second by hour", &hours.iter().map(speed).collect::<Vec<_>>()))
        }
    };
    let shown: Vec<ModelRow> = models.into_iter().take(10).collect();
    vec![
        Part::live("glance", tiles),
        Part::live("plots", plots),
        Part::live("auctions", html! { h2 { "Auctions" } (auctions_table(&auctions)) }),
        Part::live("models", html! { h2 { a href="/models" { "Models" } } (models_table(&shown)) }),
        Part::live("demand", demand_of(&demand)),
    ]
}

/// All models, and what is wanted and not served.
pub(super) fn models(ask: &Ask<'_>) -> Vec<Part> {
    let (models, demand) = ask.plane.index.read(|book| (query::models(book, ask.now), query::demand(book, ask.now)));
    vec![Part::live("models", models_table(&models)), Part::live("demand", demand_of(&demand))]
}

pub(super) fn tile(name: &str, value: String) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// `25 11:00`: the day of the month and the hour in UTC.
fn hour(point: &Point) -> String {
    let text = crate::accounts::wallet::iso(point.from);
    let day = text.get(8..10).unwrap_or_default();
    format!("{day} {} UTC", text.get(11..16).unwrap_or_default())
}

fn volume(point: &Point) -> Bar {
    let shown = format!("{}, {} jobs", words::dollars(point.volume), point.jobs);
    Bar { at: hour(point), value: point.volume.0 as f64, shown }
}

fn speed(point: &Point) -> Bar {
    let rate = point.tokens_per_second.unwrap_or_default();
    Bar { at: hour(point), value: rate, shown: format!("{rate:.1} tokens a second") }
}

pub(super) fn auctions_table(auctions: &[Auction]) -> Markup {
    let row = |auction: &Auction| {
        html! {
            tr {
                td { (words::time(auction.issued)) }
                td { (auction.model) }
                td { (words::node(&auction.buyer)) }
                td { (words::price(auction.ceiling)) }
                td { @match auction.winner { Some(winner) => (words::node(&winner)), None => (words::badge("wait", "open, or nobody")) } }
                td { @match auction.price { Some(price) => (words::price(price)), None => (words::dash()) } }
                td.n { @if auction.bids > 0 { (auction.bids) } @else { (words::dash()) } }
                td.n { @match auction.took_ms { Some(ms) => { (ms) " ms" }, None => (words::dash()) } }
            }
        }
    };
    let head = ["Asked", "Model", "Buyer", "At most, in / out", "Winner", "Agreed, in / out", "#Bids told", "#Took"];
    let rows: Vec<Markup> = auctions.iter().map(row).collect();
    html! {
        (words::table(&head, &rows, "No auction has been heard of yet."))
        p.note { "Bids are sealed: only those that the buyer named with its choice are counted. Prices are per million tokens." }
    }
}

fn models_table(models: &[ModelRow]) -> Markup {
    let row = |model: &ModelRow| {
        html! {
            tr {
                td {
                    a href={ "/chat?model=" (words::escaped(&model.id)) } title="Ask it" { (model.id) }
                    @for alias in &model.aliases { " " small { (alias) } }
                }
                td.n { (model.nodes) }
                td { @for worker in model.workers.iter().take(4) { (words::node(worker)) " " } @if model.workers.len() > 4 { "…" } }
                td { (words::price_spread(model.input_price)) }
                td { (words::price_spread(model.output_price)) }
                td { (words::spread_of(model.tokens_per_second, |n| n.to_string())) }
                td { (words::spread_of(model.ttft_ms, |ms| format!("{ms} ms"))) }
                td.n { (words::rate(model.settled_tokens_per_second)) }
                td.n { (words::number(model.jobs)) }
                td.n { @if model.context > 0 { (words::number(model.context.into())) } @else { (words::dash()) } }
            }
        }
    };
    let head = [
        "Model",
        "#Nodes",
        "Who, cheapest first",
        "Input",
        "Output",
        "Tokens a second, as told",
        "First token, as told",
        "#Tokens a second, settled",
        "#Jobs",
        "#Context",
    ];
    let rows: Vec<Markup> = models.iter().map(row).collect();
    words::table(&head, &rows, "No node serves a model now.")
}

fn demand_of(demand: &[Demand]) -> Markup {
    let row = |wanted: &Demand| {
        html! {
            tr {
                td { (wanted.model) }
                td.n { (wanted.buyers) }
                td.n { (wanted.offers) }
                td { (words::spread_of(wanted.ceiling, |n| words::dollars(MicroUsd(n)))) }
                td { (words::time(wanted.last)) }
            }
        }
    };
    let rows: Vec<Markup> = demand.iter().map(row).collect();
    let head = ["Model", "#Buyers", "#Times asked", "Would pay for output", "Last asked"];
    html! {
        h2 { "Asked for in the last hour, and served by nobody" }
        (words::table(&head, &rows, "Nothing: every model that was asked for is served."))
    }
}
