//! `infernet tranche`: what this node has prepaid on Solana, one more, and one that is lost.

use super::{
    Context, exit,
    exit::Exit,
    setup::micro_usd,
    wallet::{self, ASKED},
};
use crate::control::schema::{DropBody, TrancheBody, TrancheReport};
use clap::Subcommand;
use infernet_wire::{id::NodeId, money::MicroUsd};
use serde::Serialize;

#[derive(Debug, Subcommand)]
pub(super) enum TrancheCommand {
    /// Show the newest tranche of each worker.
    List,
    /// Prepay a worker on Solana; its next job shows it the tranche, as soon as it is final (half a minute). If the node is
    /// stopped before it has signed the payment, the tranche is given up, and has to be bought again.
    Buy {
        /// The worker's node id.
        worker: NodeId,
        /// Dollars, such as 0.05 [default: what the worker would like, up to `solana_tranche`]
        #[arg(value_parser = micro_usd)]
        usd: Option<u64>,
        /// Prepay this one too, in the same transaction if it fits; may be given several times.
        #[arg(long, value_name = "WORKER")]
        also: Vec<NodeId>,
    },
    /// Write off a tranche that its worker refuses for good, because it takes another coin now, or has left the wallet that was
    /// paid. Its money is lost to you; after that the next can be bought.
    Drop {
        /// The worker's node id.
        worker: NodeId,
        /// Which, as `infernet tranche list` shows it.
        number: u64,
    },
}

pub(super) async fn run(context: &Context, command: TrancheCommand) -> Result<(), Exit> {
    match command {
        TrancheCommand::List => show(context, &wallet::node(context)?.ask(ASKED, "tranche").await??),
        TrancheCommand::Buy { worker, usd, also } => buy(context, worker, usd, also).await,
        TrancheCommand::Drop { worker, number } => post(context, "tranche/drop", &DropBody { worker, number }).await,
    }
}

/// Prepays each so many micro-USD, or what it would like, up to `solana_tranche`.
pub(super) async fn buy(context: &Context, worker: NodeId, micro_usd: Option<u64>, also: Vec<NodeId>) -> Result<(), Exit> {
    post(context, "tranche", &TrancheBody { worker, micro_usd, also }).await
}

async fn post(context: &Context, what: &str, body: &impl Serialize) -> Result<(), Exit> {
    let body = serde_json::to_string(body).map_err(|error| Exit::new(exit::FAILED, error))?;
    show(context, &wallet::node(context)?.post_within(ASKED, what, body).await??)
}

fn show(context: &Context, list: &Vec<TrancheReport>) -> Result<(), Exit> {
    if context.json {
        return context.print_json(list);
    }
    if list.is_empty() {
        context.note("no tranche was bought yet");
    }
    rows(context, list);
    Ok(())
}

/// A line for each.
pub(super) fn rows(context: &Context, rows: &[TrancheReport]) {
    for row in rows {
        let (amount, state) = (MicroUsd(row.micro_usd), row.failure.as_deref().unwrap_or(&row.state));
        let left = row.left_micro_usd.map(|left| format!(", {} left", MicroUsd(left))).unwrap_or_default();
        context.print(format!("{:<53} {:>4} {amount:>14} {state}{left}", row.worker, row.number));
    }
}
