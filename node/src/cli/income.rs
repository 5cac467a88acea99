//! `infernet earnings` and `infernet spend`: receipts, added up by day and model. Receipts are read page by page, from the
//! running node or from its store, so memory does not grow with their number.

use super::{Context, exit, exit::Exit, query};
use crate::{
    clock,
    config::{Config, Partial},
    control::client::Client,
    date::Day,
    earnings::{Book, BookReport, Side, Sum},
    identity,
    store::{self, Page, Position, Store},
};
use clap::Args;
use infernet_wire::{id::NodeId, topic::NetworkId};
use std::{collections::BTreeSet, path::Path, sync::Arc};

#[derive(Debug, Args)]
pub(super) struct BookArgs {
    /// First day to show, as 2026-11-25 (UTC) [default: everything]
    #[arg(long, value_name = "DATE")]
    since: Option<Day>,
    /// Show the last N days, today included.
    #[arg(long, value_name = "N", conflicts_with = "since", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: Option<u32>,
    /// Print comma separated values, for a spreadsheet.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Network that the receipts are of [default: the running node's, else main]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

impl BookArgs {
    fn since(&self) -> Option<Day> {
        let today = || Day::of(clock::now());
        self.since.or_else(|| self.days.map(|days| Day(today().0.saturating_sub(days - 1))))
    }
}

pub(super) async fn run(context: &Context, side: Side, args: BookArgs) -> Result<(), Exit> {
    let report = context.during("adding up receipts", read(context, side, &args)).await?;
    if context.json {
        return context.print_json(&report);
    }
    if args.csv {
        csv(context, &report);
    } else {
        table(context, side, &report);
    }
    if report.invalid > 0 {
        let text =
            format!("{} receipts could not be verified and are in no sum; see `infernet receipts verify`", report.invalid);
        return Err(Exit::new(exit::UNVERIFIED, text));
    }
    Ok(())
}

/// Where the receipts are.
enum Source {
    Node(Client),
    Disk(Arc<dyn Store>),
    Nowhere,
}

async fn read(context: &Context, side: Side, args: &BookArgs) -> Result<BookReport, Exit> {
    let flags = Partial { network: args.network.clone(), ..Partial::default() };
    let mut network = Config::load(&context.home, flags)?.network;
    let mut runs = None;
    let source = match Client::connect(&context.home) {
        Some(node) => {
            let (its, id) = query::who(&node, args.network.is_some().then_some(network)).await?;
            (network, runs) = (its, Some(id));
            Source::Node(node)
        }
        None if context.home.is_dir() => Source::Disk(store::open(&context.home, &network)?),
        None => Source::Nowhere,
    };
    let mut book = Book::new(side, us(&context.home, &network, runs)?, args.since());
    let invalid = fill(&mut book, &source, &network).await?;
    Ok(book.report(network.to_string(), invalid))
}

/// This node's id, and those that it had before its key was rotated. Its key is in `home`, unless a node `runs` there.
pub(super) fn us(home: &Path, network: &NetworkId, runs: Option<NodeId>) -> Result<BTreeSet<NodeId>, Exit> {
    let id = runs.map_or_else(|| identity::public(home).map(|(id, _)| id), Ok)?;
    Ok(identity::former(home, &id, network)?.into_iter().chain([id]).collect())
}

/// Enters all receipts, newest first; returns how many could not be read.
async fn fill(book: &mut Book, source: &Source, network: &NetworkId) -> Result<u64, Exit> {
    let (mut before, mut invalid) = (None, 0);
    loop {
        let (page, bad) = match source {
            Source::Node(node) => query::receipts_page(node, network, before, store::MAX_PAGE).await?,
            Source::Disk(store) => {
                let known = store.counts()?.unreadable;
                let page = store.receipts(Page { before, limit: store::MAX_PAGE })?;
                (page, store.counts()?.unreadable.saturating_sub(known))
            }
            Source::Nowhere => return Ok(0),
        };
        invalid += bad;
        page.iter().for_each(|receipt| book.enter(receipt));
        match page.last() {
            Some(last) if !book.is_before(last) => before = Some(Position::of(last)),
            _ => return Ok(invalid),
        }
        // Adding up is work; whoever presses Ctrl-C should be heard in between.
        tokio::task::yield_now().await;
    }
}

const COLUMNS: [&str; 7] =
    ["day", "model", "jobs", "input_tokens", "output_tokens", "acknowledged_micro_usd", "unacknowledged_micro_usd"];

/// RFC 4180, with a header; amounts in micro-USD, so that no spreadsheet rounds them.
fn csv(context: &Context, report: &BookReport) {
    context.print(COLUMNS.join(","));
    for row in &report.days {
        let Sum { jobs, input_tokens, output_tokens, acknowledged_micro_usd, unacknowledged_micro_usd } = row.sum;
        context.print(format!(
            "{},{},{jobs},{input_tokens},{output_tokens},{acknowledged_micro_usd},{unacknowledged_micro_usd}",
            row.day,
            quoted(&row.model)
        ));
    }
}

/// A model's name is its worker's choice: quotes are doubled, and nothing in it is a formula to a spreadsheet.
pub(super) fn quoted(text: &str) -> String {
    let text = text.replace('"', "\"\"");
    let formula = text.starts_with(['=', '+', '-', '@']);
    format!("\"{}{text}\"", if formula { "'" } else { "" })
}

fn table(context: &Context, side: Side, report: &BookReport) {
    if report.days.is_empty() {
        let what = if side == Side::Earned { "nothing earned" } else { "nothing bought" };
        let when = report.since.as_ref().map_or("yet".into(), |day| format!("since {day}"));
        context.note(format!("{what} {when} on network {}", report.network));
        return;
    }
    let line = |day: &str, model: &str, sum: &Sum| {
        let (signed, unsigned) = (sum.acknowledged().to_string(), sum.unacknowledged().to_string());
        context.print(format!(
            "{day:<10} {model:<28} {:>8} {:>12} {:>12} {signed:>14} {unsigned:>16}",
            sum.jobs, sum.input_tokens, sum.output_tokens
        ));
    };
    context.print(format!(
        "{:<10} {:<28} {:>8} {:>12} {:>12} {:>14} {:>16}",
        "DAY", "MODEL", "JOBS", "IN", "OUT", "ACKNOWLEDGED", "UNACKNOWLEDGED"
    ));
    report.days.iter().for_each(|row| line(&row.day, &row.model, &row.sum));
    line("total", "", &report.total);
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn names_can_not_break_out_of_their_cell() {
        assert_eq!(quoted("llama3.1:8b"), "\"llama3.1:8b\"");
        assert_eq!(quoted("a\"b,c"), "\"a\"\"b,c\"");
        assert_eq!(quoted("=1+1"), "\"'=1+1\"");
    }
}
