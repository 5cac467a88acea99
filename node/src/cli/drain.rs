//! `infernet drain` and `infernet resume`: the node of this home takes no new jobs, or takes them again. For scripts that stop a
//! machine: `infernet drain --wait 300 && shutdown`.

use super::{Context, counted, exit, exit::Exit};
use crate::control::{
    client::{AskError, Client},
    schema::{DrainReport, StatusReport},
};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::{cell::Cell, time::Duration};
use tokio::time::{sleep, timeout};

/// How often the node is asked whether jobs still run: often enough for who waits, and nothing for the node.
const LOOK: Duration = Duration::from_millis(200);
/// A day: whoever waits longer has mistaken the unit.
const MAX_WAIT_SECS: u64 = 86_400;

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// Wait until no job runs any more, at most so long; exit code 12 if one still does.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(..=MAX_WAIT_SECS))]
    wait: Option<u64>,
}

/// `infernet drain --json` and `infernet resume --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DrainedReport {
    /// Whether the node takes no new jobs.
    draining: bool,
    /// Jobs that it still works on: those that run, those whose receipt is being signed, and bids that may yet be accepted.
    jobs: usize,
}

pub(super) async fn drain(context: &Context, args: DrainArgs) -> Result<(), Exit> {
    let node = order(context, "drain").await?;
    let Some(secs) = args.wait else { return told(context, true, under_way(&node).await?) };
    let left = Cell::new(under_way(&node).await?);
    let idle = async {
        while left.get() > 0 {
            sleep(LOOK).await;
            left.set(under_way(&node).await?);
        }
        Ok::<(), AskError>(())
    };
    match context.during("draining", timeout(Duration::from_secs(secs), idle)).await {
        Ok(done) => done?,
        Err(_) => {
            let jobs = counted(left.get(), "job");
            let text = format!("{jobs} not over within {secs} s; the node takes no new ones: wait again, or `infernet resume`");
            return Err(Exit::new(exit::BUSY, text));
        }
    }
    told(context, true, 0)
}

pub(super) async fn resume(context: &Context) -> Result<(), Exit> {
    let node = order(context, "resume").await?;
    told(context, false, under_way(&node).await?)
}

/// The node of this home, which has obeyed.
async fn order(context: &Context, what: &str) -> Result<Client, Exit> {
    let node = Client::connect(&context.home).ok_or_else(|| Exit::not_running(&context.home))?;
    let obeyed = node.post::<DrainReport>(what, String::new()).await?;
    obeyed?;
    Ok(node)
}

/// A bid that was made still binds, so it counts.
async fn under_way(node: &Client) -> Result<usize, AskError> {
    let status: StatusReport = node.get("status").await?;
    Ok(status.seller.map_or(0, |seller| seller.under_way() + seller.held))
}

fn told(context: &Context, draining: bool, jobs: usize) -> Result<(), Exit> {
    if context.json {
        return context.print_json(&DrainedReport { draining, jobs });
    }
    context.note(match (draining, jobs) {
        (true, 0) => "the node takes no new jobs, and none runs; `infernet resume` ends that".into(),
        (true, n) => format!("the node takes no new jobs; {} to end; `infernet resume` ends that", counted(n, "job")),
        (false, _) => "the node takes jobs again".into(),
    });
    Ok(())
}
