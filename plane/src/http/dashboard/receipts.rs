//! Receipts, and one of them, to be verified by whoever looks.

use super::{Ask, Part, view::Digest, words};
use crate::{
    http::error::Refusal,
    query::{self, ReceiptRow},
};
use infernet_wire::{id::NodeId, receipt::SignedReceipt};
use maud::{Markup, html};

/// Rows of the list.
const ROWS: usize = 100;

/// The newest receipts.
pub(super) fn list(ask: &Ask<'_>, worker: Option<&NodeId>) -> Vec<Part> {
    let rows = ask.plane.index.read(|book| query::receipts(book, worker, ROWS));
    let find = html! {
        form.row action="/receipts" {
            label { "Digest or job" input name="find" required minlength="32" maxlength="66" autocomplete="off" spellcheck="false"; }
            button { "Find" }
        }
        @if let Some(worker) = worker { p { "Of " (words::node(worker)) ". " a href="/receipts" { "Of all" } } }
    };
    vec![Part::fixed(find), Part::live("receipts", table(&rows))]
}

pub(super) fn table(rows: &[ReceiptRow]) -> Markup {
    let row = |row: &ReceiptRow| {
        html! {
            tr {
                td { a.id href={ "/receipts/" (row.digest) } { (words::cut(&row.digest.to_string())) } }
                td { (words::time(row.finished)) }
                td { (row.model) }
                td { (words::node(&row.worker)) }
                td { (words::node(&row.buyer)) }
                td.n { (words::number(row.input_tokens.into())) " / " (words::number(row.output_tokens.into())) }
                td.n { (words::dollars(row.amount)) }
                td { (settled(row)) }
            }
        }
    };
    let rows: Vec<Markup> = rows.iter().map(row).collect();
    words::table(
        &["Receipt", "Ended", "Model", "Worker", "Buyer", "#Tokens, in / out", "#Cost", "State"],
        &rows,
        "None has been heard of yet.",
    )
}

fn settled(row: &ReceiptRow) -> Markup {
    if row.settled { words::badge("good", "both signed") } else { words::badge("wait", "only the worker signed") }
}

/// One receipt, or those of one job.
pub(super) async fn one(ask: &Ask<'_>, digest: Digest) -> Result<Vec<Part>, Refusal> {
    let rows = ask.plane.index.read(|book| match digest {
        Digest::Of(digest) => query::receipt(book, &digest).into_iter().collect(),
        Digest::Job(job) => query::receipts_of_job(book, &job),
    });
    if rows.is_empty() {
        return Err(Refusal::not_found("receipt"));
    }
    let mut parts = Vec::new();
    for row in rows {
        let signed = ask.plane.store.receipt(row.job, row.worker, row.buyer).await?;
        parts.push(Part::fixed(whole(ask, &row, signed.as_ref())));
    }
    Ok(parts)
}

fn whole(ask: &Ask<'_>, row: &ReceiptRow, signed: Option<&SignedReceipt>) -> Markup {
    html! {
        article {
            dl.facts {
                dt { "Digest" } dd.wrap { code { (row.digest) } }
                dt { "Job" } dd.wrap { code { (row.job) } }
                dt { "Worker" } dd.wrap { a href={ "/nodes/" (row.worker) } { (row.worker) } }
                dt { "Buyer" } dd.wrap { a href={ "/nodes/" (row.buyer) } { (row.buyer) } }
                dt { "Model" } dd { (row.model) }
                dt { "Tokens" } dd { (row.input_tokens) " in, " (row.output_tokens) " out" }
                dt { "Cost" } dd { (words::dollars(row.amount)) }
                dt { "Time" } dd { (words::moment(row.started)) " to " (words::moment(row.finished)) }
                dt { "End" } dd { (row.status) }
                dt { "State" } dd { (settled(row)) }
            }
            @match signed {
                Some(signed) => (verified(ask, row, signed)),
                None => p.note { "Its signed statements are not in this plane's store." }
            }
        }
    }
}

/// For the script that checks both signatures in the browser: this plane need not be believed.
fn verified(ask: &Ask<'_>, row: &ReceiptRow, signed: &SignedReceipt) -> Markup {
    let buyer = signed.countersign().map(|countersign| hex::encode(countersign.raw()));
    html! {
        form data-verify data-worker=(hex::encode(signed.receipt().raw())) data-buyer=[buyer] data-digest=(row.digest)
            data-network=(ask.plane.config.network) {
            button { "Verify in this browser" }
            output {}
        }
        p.note { "Your browser reads the statements as they were signed, and checks both signatures (BIP-340), the digest, the names and the sum." }
        details {
            summary { "As it was signed" }
            h3 { "Worker" }
            pre.wrap { code { (hex::encode(signed.receipt().raw())) } }
            @if let Some(countersign) = signed.countersign() {
                h3 { "Buyer" }
                pre.wrap { code { (hex::encode(countersign.raw())) } }
            }
        }
    }
}
