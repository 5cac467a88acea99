//! `infernet tranche`: what this node has prepaid on Solana, and one more.

use super::{Context, exit, exit::Exit, setup::micro_usd};
use crate::control::{
    client::Client,
    schema::{TrancheBody, TrancheReport},
};
use clap::Subcommand;
use infernet_wire::{id::NodeId, money::MicroUsd};

fn dollars(text: &str) -> Result<MicroUsd, String> {
    micro_usd(text).map(MicroUsd)
}

#[derive(Debug, Subcommand)]
pub(super) enum TrancheCommand {
    /// Show the newest tranche of each worker.
    List,
    /// Prepay a worker on Solana; its next job shows it the tranche, as soon as it is final (half a minute).
    Buy {
        /// The worker's node id.
        worker: NodeId,
        /// Dollars, such as 0.05 [default: what the worker would like]
        #[arg(value_parser = dollars)]
        usd: Option<MicroUsd>,
    },
}

pub(super) async fn run(context: &Context, command: TrancheCommand) -> Result<(), Exit> {
    let missing = "no node runs in this home: tranches are paid by the running node (`infernet start`)";
    let node = Client::connect(&context.home).ok_or_else(|| Exit::new(exit::FAILED, missing))?;
    let rows: Vec<TrancheReport> = match command {
        TrancheCommand::List => node.get("tranche").await?,
        TrancheCommand::Buy { worker, usd } => {
            let body = TrancheBody { worker, micro_usd: usd.map(|usd| usd.0) };
            let body = serde_json::to_string(&body).map_err(|error| Exit::new(exit::FAILED, error))?;
            node.post("tranche", body).await?.map_err(|error| Exit::new(error.exit, error.message))?
        }
    };
    if context.json {
        return context.print_json(&rows);
    }
    if rows.is_empty() {
        context.note("no tranche was bought yet");
    }
    for row in &rows {
        let amount = MicroUsd(row.micro_usd);
        context.print(format!(
            "{:<53} {:>4} {amount:>14} {}",
            row.worker,
            row.number,
            row.failure.as_deref().unwrap_or(&row.state)
        ));
    }
    Ok(())
}
