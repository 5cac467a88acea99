//! Where to deposit and what came; for who runs the plane, how its own account is.

use super::{Ask, market::tile, words};
use crate::{
    cashier::{Cashier, State},
    http::{deposits::PAGE, error::Refusal},
    store::{ClientId, DepositRow},
};
use infernet_wire::money::MicroUsd;
use maud::{Markup, html};

/// For a client: what it sends goes from a wallet that it signs in by.
pub(super) async fn own(ask: &Ask<'_>, cashier: &Cashier, client: &ClientId) -> Result<Markup, Refusal> {
    let rows: Vec<Markup> = ask.plane.store.deposits(client, PAGE).await?.into_iter().map(row).collect();
    let config = cashier.config();
    Ok(html! {
        h2 { "Deposit" }
        p {
            "Send tokens of " code.id { (config.token) } " on chain " (config.chain) " to " code.id { (cashier.address()) }
            ", from a wallet that you sign in by: " a href="/settings" { "add it" } " first. A unit is a micro-dollar; it counts "
            (config.depth) " blocks deep. This plane can't send it back."
        }
        (words::table(&["When", "Transaction", "From", "#Amount"], &rows, "Nothing came yet."))
    })
}

fn row(deposit: DepositRow) -> Markup {
    let tx = format!("0x{}", hex::encode(deposit.tx.as_bytes()));
    html! {
        tr {
            td { (words::maybe_time(deposit.credited)) }
            td { span.id title=(tx) { (words::cut(&tx)) } }
            td { span.id { (deposit.from) } }
            td.n { (words::dollars(deposit.amount)) }
        }
    }
}

/// For who runs the plane.
pub(super) fn chain(cashier: &Cashier) -> Markup {
    let (report, cold) = (cashier.report(), cashier.config().cold);
    let (kind, text) = match report.state {
        State::Following => ("good", "following"),
        State::Starting => ("wait", "starting"),
        State::Failing => ("bad", "failing"),
    };
    let money = |amount: Option<MicroUsd>| amount.map_or_else(|| "–".to_owned(), words::dollars);
    html! {
        h2 { "The plane's account on chain " (cashier.config().chain) }
        dl.tiles {
            (tile("At hand", money(report.hot)))
            (tile("Stays at hand at most", money(cold.map(|(_, cap)| cap))))
            (tile("Nobody's yet", words::dollars(report.unclaimed_amount)))
        }
        p {
            (words::badge(kind, text)) " "
            @if let Some(read) = report.read { "read up to block " (words::number(read)) }
            @if let Some(head) = report.head { " of " (words::number(head)) }
            @if let Some(well) = report.well { ", well " (words::time(well)) }
            @if let Some(reason) = &report.reason { ": " (reason) }
        }
        @if let Some(sweep) = &report.sweep {
            p {
                "Sweep " (sweep.number) " of " (words::dollars(sweep.amount)) " to " span.id { (sweep.to) } " is " (sweep.stage) ", decided "
                (words::time(sweep.at)) "."
            }
        }
        @if let Some(reason) = &report.sweep_reason { p.note { "Nothing can be swept: " (reason) } }
    }
}
