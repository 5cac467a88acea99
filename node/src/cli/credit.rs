//! `infernet credit`: what buyers owe this worker, may owe, and have paid.

use super::{Context, exit, exit::Exit, setup::micro_usd};
use crate::{
    config::{self, Config, Partial},
    control::{
        client::Client,
        credit,
        schema::{ClearBody, CreditBody, CreditReport},
    },
    identity,
    settlement::tabs::{self, Credit},
    store::{self, Side, Store, TabOf},
};
use clap::Subcommand;
use infernet_wire::{id::NodeId, money::MicroUsd};
use std::sync::Arc;

fn dollars(text: &str) -> Result<MicroUsd, String> {
    micro_usd(text).map(MicroUsd)
}

#[derive(Debug, Subcommand)]
pub(super) enum CreditCommand {
    /// Show who owes how much, and may.
    List,
    /// Let a buyer owe up to so many dollars; at once, and in config.toml.
    Set {
        /// The buyer's node id, or `anybody`.
        buyer: String,
        /// Dollars, such as 0.10; 0 for nothing.
        #[arg(value_parser = dollars)]
        usd: MicroUsd,
    },
    /// Note that a buyer has paid so many dollars of its debt.
    Paid {
        /// The buyer's node id.
        buyer: NodeId,
        /// Dollars, such as 1.25.
        #[arg(value_parser = dollars)]
        usd: MicroUsd,
    },
}

pub(super) async fn run(context: &Context, command: CreditCommand) -> Result<(), Exit> {
    let rows = match command {
        CreditCommand::List => list(context).await?,
        CreditCommand::Set { buyer, usd } => set(context, &buyer, usd).await?,
        CreditCommand::Paid { buyer, usd } => paid(context, buyer, usd).await?,
    };
    if context.json {
        return context.print_json(&rows);
    }
    let free = Config::load(&context.home, Partial::default())?.credit.free;
    context.note(format!("anybody else may owe {free}"));
    if rows.is_empty() {
        context.note("no buyer has owed anything yet");
        return Ok(());
    }
    context.print(format!("{:<53} {:>14} {:>14} {:>14} {:>14}", "BUYER", "OWES", "MAY OWE", "CAME TO", "HAS PAID"));
    for row in &rows {
        let [owed, limit, came_to, paid] = [row.owed_micro_usd, row.limit_micro_usd, row.came_to_micro_usd, row.paid_micro_usd]
            .map(|n| MicroUsd(n).to_string());
        context.print(format!("{:<53} {owed:>14} {limit:>14} {came_to:>14} {paid:>14}", row.buyer));
    }
    Ok(())
}

async fn list(context: &Context) -> Result<Vec<CreditReport>, Exit> {
    match Client::connect(&context.home) {
        Some(node) => Ok(node.get("credit").await?),
        None => {
            let (config, us, store) = on_disk(context)?;
            Ok(credit::rows(&config.credit, tabs::all_kept(&*store, &us)?))
        }
    }
}

/// What the configuration says, our keys with the newest first, and where the tabs are.
type OnDisk = (Config, Vec<NodeId>, Arc<dyn Store>);

/// What there is while no node runs.
fn on_disk(context: &Context) -> Result<OnDisk, Exit> {
    let config = Config::load(&context.home, Partial::default())?;
    let (id, _) = identity::public(&context.home)?;
    let former = identity::former(&context.home, &id, &config.network)?;
    let store = store::open(&context.home, &config.network)?;
    Ok((config, [id].into_iter().chain(former.into_iter().rev()).collect(), store))
}

async fn set(context: &Context, buyer: &str, limit: MicroUsd) -> Result<Vec<CreditReport>, Exit> {
    let mut credit = Config::load(&context.home, Partial::default())?.credit;
    if buyer == "anybody" {
        credit.free = limit;
    } else {
        let buyer: NodeId = buyer.parse().map_err(|_| {
            Exit::new(
                exit::USAGE,
                format!("{buyer:?} is no node id: write one, such as 16Uiu2H... (`infernet key show` there), or anybody"),
            )
        })?;
        credit.limits.insert(buyer, limit);
    }
    config::write_credit(&context.home, &credit)?;
    let Some(node) = Client::connect(&context.home) else {
        context.note("kept in config.toml; no node runs here");
        return list(context).await;
    };
    let Credit { free, limits } = credit;
    let body = CreditBody { free: free.0, limits: limits.into_iter().map(|(buyer, limit)| (buyer, limit.0)).collect() };
    let answer = node.post("credit", serde_json::to_string(&body).map_err(|error| Exit::new(exit::FAILED, error))?).await?;
    Ok(answer?)
}

async fn paid(context: &Context, buyer: NodeId, amount: MicroUsd) -> Result<Vec<CreditReport>, Exit> {
    let Some(node) = Client::connect(&context.home) else {
        let (config, us, store) = on_disk(context)?;
        let Some(me) = us.first() else { return Ok(Vec::new()) };
        let mut tab = tabs::kept(&*store, &us, &buyer)?;
        tab.clear(amount);
        store.keep_tab(&TabOf::ledger(Side::Sold, *me, buyer), tab.record()).await?;
        return Ok(vec![credit::row(&config.credit, buyer, &tab)]);
    };
    let body = ClearBody { buyer, micro_usd: amount.0 };
    let answer =
        node.post("credit/paid", serde_json::to_string(&body).map_err(|error| Exit::new(exit::FAILED, error))?).await?;
    Ok(answer?)
}
