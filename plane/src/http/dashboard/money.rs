//! What a client has, spent and earned, on a page and as CSV.

use super::{Ask, Part, account, deposits, market::tile, words};
use crate::{
    accounts::{Scope, wallet::iso},
    http::{caller::Caller, clients::EntryView, error::Refusal, jobs::pairs},
    query,
    state::Plane,
    store::{Entry, MAX_PAGE},
};
use axum::{
    Router,
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use infernet_node::clock;
use infernet_wire::{id::NodeId, money::MicroUsd};
use maud::{Markup, html};

/// Rows of a page.
const PAGE: usize = 50;
/// Rows of one CSV: a year of a busy client, in 4 MB; `before` continues.
const MAX_CSV: usize = 50_000;
/// Days of earnings in one CSV.
const CSV_DAYS: u64 = 366;

pub(super) fn routes() -> Router<Plane> {
    Router::new().route("/money.csv", get(spent_csv)).route("/earnings.csv", get(earned_csv))
}

/// Balance, entries, and what one's nodes earned.
pub(super) async fn page(ask: &Ask<'_>, before: Option<u64>) -> Result<Vec<Part>, Refusal> {
    let client = &ask.must()?.client;
    let rows = ask.plane.store.entries(&client.id, before, PAGE).await?;
    let next = rows.last().filter(|_| rows.len() == PAGE).map(|entry| entry.number);
    let identities = ask.plane.store.identities(&client.id).await?;
    let nodes: Vec<NodeId> = account::nodes_of(ask, &identities);
    let has = html! {
        dl.tiles {
            (tile("Balance", words::dollars(client.balance)))
            (tile("Reserved for running jobs", words::dollars(client.reserved)))
            (tile("Left to spend", words::dollars(client.available())))
        }
        @if client.balance == MicroUsd(0) {
            p.note { "Who runs this plane can give " code { (client.id.0) } " a balance: " code { "infernet-plane grant " (client.id.0) " 5000000 --reference " (iso(ask.now).get(..10).unwrap_or("top-up")) } ", five dollars; the same word counts once." }
        }
    };
    let shown: Vec<Markup> = rows.into_iter().map(entry).collect();
    let entries = html! {
        h2 { "What changed it" }
        (words::table(&["When", "What", "For", "#Amount"], &shown, "Nothing yet."))
        @if let Some(next) = next { p { a href={ "/money?before=" (next) } { "Older" } } }
        p { a href="/money.csv" { "CSV" } }
    };
    let mut parts = vec![Part::live("has", has)];
    if let Some(cashier) = &ask.plane.cashier {
        parts.push(Part::live("deposits", deposits::own(ask, cashier, &client.id).await?));
        if client.admin {
            parts.push(Part::live("chain", deposits::chain(cashier)));
        }
    }
    parts.extend([Part::live("entries", entries), Part::live("earned", earned(ask, &nodes))]);
    Ok(parts)
}

fn entry(entry: Entry) -> Markup {
    let (at, amount) = (entry.at, entry.amount);
    let EntryView { kind, reference, .. } = EntryView::from(entry);
    let kind = serde_json::to_value(kind).ok().and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
    html! {
        tr {
            td { (words::time(at)) }
            td { (kind) }
            td { @if kind == "job" { a.id href={ "/jobs/" (reference) } { (words::cut(&reference)) } } @else { (reference) } }
            td.n { (words::signed_dollars(amount)) }
        }
    }
}

fn earned(ask: &Ask<'_>, nodes: &[NodeId]) -> Markup {
    let row = |node: &NodeId| {
        let (day, all) = ask.plane.index.read(|book| {
            let month = query::earnings(book, node, ask.now, 30);
            (month.iter().map(|day| day.work.earned).sum::<MicroUsd>(), query::node(book, node, ask.now).map(|view| view.work))
        });
        html! {
            tr {
                td { (words::node(node)) }
                td.n { (words::dollars(day)) }
                td.n { (words::or_dash(all.map(|work| words::dollars(work.earned)))) }
                td.n { (words::or_dash(all.map(|work| words::number(work.jobs)))) }
                td { a href={ "/earnings.csv?node=" (node) } { "CSV" } }
            }
        }
    };
    let rows: Vec<Markup> = nodes.iter().map(row).collect();
    html! {
        h2 { "What my nodes earned" }
        (words::table(&["Node", "#30 days", "#All that is kept", "#Settled jobs", ""], &rows, "No node's key is linked: `infernet login` on the node links it."))
    }
}

/// All entries, the newest first; `before` is the `number` of the last row of a CSV before.
async fn spent_csv(State(plane): State<Plane>, caller: Caller, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    caller.needs(Scope::Manage)?;
    let query = query.unwrap_or_default();
    let mut before = match pairs(&query).find(|(name, _)| *name == "before") {
        Some((_, text)) => Some(text.parse().map_err(|_| Refusal::bad("before must be a row's number"))?),
        None => None,
    };
    let mut csv = String::from("number,time,kind,reference,amount_micro_usd\n");
    let mut rows = 0;
    while rows < MAX_CSV {
        let page = plane.store.entries(caller.client(), before, MAX_PAGE).await?;
        rows += page.len();
        before = page.last().map(|entry| entry.number);
        let is_last = page.len() < MAX_PAGE;
        for entry in page.into_iter().map(EntryView::from) {
            let kind = serde_json::to_value(entry.kind).unwrap_or_default();
            let kind = kind.as_str().unwrap_or_default();
            csv.push_str(&format!(
                "{},{},{kind},{},{}\n",
                entry.number,
                entry.at,
                field(&entry.reference),
                entry.amount_micro_usd
            ));
        }
        if is_last {
            break;
        }
    }
    Ok(download("spend.csv", csv))
}

/// What a node earned, day by day for a year. Open to all, as the receipts are that it is made from.
async fn earned_csv(State(plane): State<Plane>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let query = query.unwrap_or_default();
    let node = pairs(&query).find(|(name, _)| *name == "node").and_then(|(_, id)| id.parse::<NodeId>().ok());
    let node = node.ok_or_else(|| Refusal::bad("node must be a node's id: they begin with 16Uiu2H"))?;
    let days = plane.index.read(|book| query::earnings(book, &node, clock::now(), CSV_DAYS));
    let mut csv = String::from("day,jobs,completed,input_tokens,output_tokens,earned_micro_usd\n");
    for day in days {
        let (work, date) = (day.work, iso(day.from));
        let date = date.get(..10).unwrap_or(&date);
        csv.push_str(&format!(
            "{date},{},{},{},{},{}\n",
            work.jobs, work.completed, work.input_tokens, work.output_tokens, work.earned.0
        ));
    }
    Ok(download("earnings.csv", csv))
}

/// A field of a CSV (RFC 4180). What a spreadsheet would take for a formula begins with an apostrophe.
fn field(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn download(name: &str, csv: String) -> Response {
    let named = format!("attachment; filename=\"infernet-{name}\"");
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, named),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, csv).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_and_are_no_formulas() {
        for (text, expected) in
            [("a", "a"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("=1+1", "'=1+1"), ("@x,y", "\"'@x,y\"")]
        {
            assert_eq!(field(text), expected);
        }
    }
}
