//! `infernet jobs`: the jobs that run, then the last ones; older than the node's memory are those of which there are receipts.

use super::{
    Context,
    exit::Exit,
    income, query,
    watch::{self, Paint, WatchArgs, cell, span},
};
use crate::{
    clock,
    config::{Config, Partial},
    control::client::Client,
    jobs::{JobReport, Role, State},
    local_time,
};
use clap::Args;
use infernet_wire::{id::NodeId, money::MicroUsd, receipt::SignedReceipt, time::UnixMillis, topic::NetworkId};
use std::{collections::BTreeSet, fmt::Write};

/// Jobs that are shown unless told otherwise: a screen.
const LISTED: u64 = 20;
/// More than a node remembers and a page of receipts holds.
const MAX_LISTED: u64 = 500;

#[derive(Debug, Args)]
pub(super) struct JobsArgs {
    /// Jobs at most.
    #[arg(long, short = 'n', value_name = "N", default_value_t = LISTED, value_parser = clap::value_parser!(u64).range(1..=MAX_LISTED))]
    limit: u64,
    /// Network that receipts are of [default: the running node's, else main]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

pub(super) async fn run(context: &Context, args: JobsArgs) -> Result<(), Exit> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let flags = Partial { network: args.network.clone(), ..Partial::default() };
    let network = Config::load(&context.home, flags)?.network;
    let wanted = args.network.is_some();
    watch::show(context, args.watch, async |paint| {
        let jobs = look(context, (&network, wanted), limit).await?;
        if context.json {
            return super::json(&jobs);
        }
        Ok(if jobs.is_empty() { "no jobs yet\n".into() } else { table(&jobs, paint) })
    })
    .await
}

/// Those of the running node, filled up from receipts, of `network` if that is `wanted`.
async fn look(context: &Context, (network, wanted): (&NetworkId, bool), limit: usize) -> Result<Vec<JobReport>, Exit> {
    let Some(node) = Client::connect(&context.home) else {
        let (receipts, _) = query::read_receipts(context, network, limit)?;
        return Ok(filled(Vec::new(), &receipts, &income::us(&context.home, network, None)?, limit));
    };
    let (network, id) = query::who(&node, wanted.then(|| network.clone())).await?;
    let jobs: Vec<JobReport> = node.get(&format!("jobs?limit={limit}")).await?;
    if jobs.len() >= limit {
        return Ok(jobs);
    }
    let (receipts, _) = query::receipts_page(&node, &network, None, limit).await?;
    Ok(filled(jobs, &receipts, &income::us(&context.home, &network, Some(id))?, limit))
}

/// `jobs`, and of `receipts` those that are not among them.
fn filled(mut jobs: Vec<JobReport>, receipts: &[SignedReceipt], us: &BTreeSet<NodeId>, limit: usize) -> Vec<JobReport> {
    for receipt in receipts {
        let body = receipt.receipt();
        let role = if us.contains(&body.worker) { Role::Sold } else { Role::Bought };
        if jobs.len() < limit && !jobs.iter().any(|job| job.id == body.job && job.role == role) {
            jobs.push(JobReport::of_receipt(receipt, role));
        }
    }
    jobs
}

/// The jobs below each other.
pub(super) fn table(jobs: &[JobReport], paint: Paint) -> String {
    let head = format!(
        "{:<8} {:<10} {:<6} {:<9} {:<8} {:<24} {:>7} {:>6} {:>8} {:>10} {:>11}  {}",
        "JOB", "STARTED", "ROLE", "STATE", "PEER", "MODEL", "TOKENS", "TOK/S", "TTFT", "TIME", "AMOUNT", "BY"
    );
    let now = clock::now();
    let mut text = paint.bold(head.trim_end()) + "\n";
    for job in jobs {
        let _ = writeln!(text, "{}", line(job, now, paint));
    }
    text
}

fn line(job: &JobReport, now: UnixMillis, paint: Paint) -> String {
    let dash = || "-".to_owned();
    let id: String = job.id.to_string().chars().take(8).collect();
    let began = local_time::brief(UnixMillis(job.started), now);
    let peer = job.peer.map_or_else(dash, |peer| peer.short());
    let speed = job.tokens_per_second.map_or_else(dash, |speed| speed.to_string());
    let ttft = job.ttft_ms.map_or_else(dash, span);
    let amount = job.amount_micro_usd.map_or_else(dash, |amount| MicroUsd(amount).to_string());
    let note = job.error.as_deref().or(job.path.as_deref()).unwrap_or_default();
    // Padded before it is painted: what paints has no width.
    let state = format!("{:<9}", job.state.label());
    let state = match job.state {
        State::Failed => paint.bad(state),
        State::Auction | State::Opened | State::Streaming => paint.good(state),
        State::Settled | State::Unsigned | State::Cancelled => state,
    };
    let line = format!(
        "{id:<8} {began:<10} {:<6} {state} {peer:<8} {:<24} {:>7} {speed:>6} {ttft:>8} {:>10} {amount:>11}  {}",
        job.role.label(),
        cell(&job.model, 24),
        job.tokens,
        span(job.ms),
        cell(note, 48)
    );
    line.trim_end().to_owned()
}
