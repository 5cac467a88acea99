//! `infernet payout`: what the running node has earned on chains, and where it goes.

use super::{
    Context, exit,
    exit::Exit,
    income::quoted,
    wallet::{self, Patience},
};
use crate::{
    config,
    control::{
        client::Client,
        schema::{AccountReport, ErrorReport, PayoutBody, PrepaidReport, StepReport, WalletBody},
    },
};
use clap::Subcommand;
use infernet_wire::{evm::EvmAddress, money::MicroUsd, solana::SolanaAddress};

#[derive(Debug, Subcommand)]
pub(super) enum PayoutCommand {
    /// Say where payouts go; at once, and in config.toml.
    Set {
        #[command(subcommand)]
        to: PayoutTo,
    },
    /// Show what was earned on each channel, what of it was redeemed, all steps, and what was prepaid on Solana.
    List {
        /// Print the steps as comma separated values, for a spreadsheet.
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
    /// Redeem all that is redeemable, and send it to the payout address if there is one.
    Now {
        #[command(flatten)]
        patience: Patience,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PayoutTo {
    /// To an account on the EVM chain.
    Evm {
        /// Its address, with its checksum.
        address: EvmAddress,
    },
    /// To a wallet on Solana, which tranches are then paid to.
    Solana {
        /// Its address, in base58.
        #[arg(value_parser = config::solana_wallet)]
        address: SolanaAddress,
    },
}

pub(super) async fn run(context: &Context, command: PayoutCommand) -> Result<(), Exit> {
    match command {
        PayoutCommand::Set { to: PayoutTo::Evm { address } } => set(context, "evm", address.to_string()).await,
        PayoutCommand::Set { to: PayoutTo::Solana { address } } => set(context, "solana", address.to_string()).await,
        PayoutCommand::List { csv } => list(context, csv).await,
        PayoutCommand::Now { patience } => wallet::act(context, &WalletBody::Payout, patience).await,
    }
}

async fn set(context: &Context, rail: &str, to: String) -> Result<(), Exit> {
    let key = format!("payout_{rail}");
    let path = config::write_payout(&context.home, &key, &to)?;
    if let Some(node) = Client::connect(&context.home) {
        let body = PayoutBody { rail: rail.into(), to: to.clone() };
        let body = serde_json::to_string(&body).map_err(|error| Exit::new(exit::FAILED, error))?;
        // One that has no account there, or sells nothing there, refuses: what is in the file holds from its next start.
        let _: Result<(), ErrorReport> = node.post("payout", body).await?;
    }
    if context.json {
        return context.print_json(&config::Row { key, value: to.into(), origin: path.display().to_string() });
    }
    context.print(format!("payouts go to {to}"));
    Ok(())
}

async fn list(context: &Context, csv: bool) -> Result<(), Exit> {
    let mut told = wallet::report(&wallet::node(context)?).await?;
    told.channels.retain(|channel| channel.sold);
    if context.json {
        return context.print_json(&told);
    }
    if csv {
        context.print("number,what,channel,amount,stage,reason,transaction,since");
        told.steps.iter().for_each(|step| context.print(cells(step)));
        return Ok(());
    }
    if let Some(chain) = &told.chain {
        context.note(format!("chain {}: {}", chain.chain, wallet::state(chain)));
        if let Some(why) = &chain.waits {
            context.note(format!("waits: {why}"));
        }
    }
    told.accounts.iter().for_each(|account| context.note(goes_to(account)));
    if told.chain.is_some() {
        wallet::table(context, &told.channels);
    }
    told.steps.iter().for_each(|step| context.print(wallet::line(step)));
    prepaid(context, &told.prepaid);
    Ok(())
}

fn cells(step: &StepReport) -> String {
    let text = |text: &Option<String>| quoted(text.as_deref().unwrap_or_default());
    let (channel, reason, transaction) = (text(&step.channel), text(&step.reason), text(&step.transaction));
    let amount = step.amount.as_deref().unwrap_or_default();
    let StepReport { number, what, stage, since, .. } = step;
    format!("{number},{what},{channel},{amount},{stage},{reason},{transaction},{since}")
}

fn goes_to(AccountReport { rail, payout_to, .. }: &AccountReport) -> String {
    match payout_to {
        Some(to) => format!("payouts go to {to}"),
        None => format!("payouts stay with this node's key; `infernet payout set {rail} ADDRESS` sends them elsewhere"),
    }
}

fn prepaid(context: &Context, rows: &[PrepaidReport]) {
    if rows.is_empty() {
        return;
    }
    let line = |buyer: &str, tranches: &str, paid: &str, left: &str| {
        context.print(format!("{buyer:<53} {tranches:>8} {paid:>14} {left:>14}"));
    };
    line("BUYER", "TRANCHES", "PREPAID", "LEFT");
    for PrepaidReport { buyer, tranches, micro_usd, left_micro_usd } in rows {
        let [paid, left] = [*micro_usd, *left_micro_usd].map(|micro| MicroUsd(micro).to_string());
        line(&buyer.to_string(), &tranches.to_string(), &paid, &left);
    }
}
