//! `infernet wallet`: the accounts of the running node.

use super::{Context, exit, exit::Exit, money, setup::micro_usd, tranche};
use crate::{
    clock, config,
    control::{
        client::Client,
        schema::{AccountReport, BalanceReport, ChainReport, ChannelReport, StepReport, WalletBody, WalletReport},
    },
};
use clap::{Args, Subcommand};
use infernet_wire::{
    evm::{BadAddress, EvmAddress},
    id::NodeId,
    money::MicroUsd,
    solana::SolanaAddress,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::sleep;

/// A deposit or a tranche asks the chain's nodes some questions first.
pub(super) const ASKED: Duration = Duration::from_secs(60);
/// Between two looks at a step.
const LOOK: Duration = Duration::from_millis(500);
/// A transaction is mined and deep within minutes, if its gas is paid well enough; afterwards it goes on by itself.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Subcommand)]
pub(super) enum WalletCommand {
    /// Show the accounts: addresses, balances, channels, tranches.
    Balance,
    /// Open a channel to a worker with so many dollars, or add to it.
    Deposit {
        /// The worker's node id.
        worker: NodeId,
        /// Dollars, such as 5 or 0.50.
        #[arg(value_parser = micro_usd)]
        usd: u64,
        /// Prepay a tranche on Solana instead, as `tranche buy` does.
        #[arg(long)]
        solana: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// End the channels to a worker: it gets what its jobs came to, the rest comes back.
    Close {
        /// The worker's node id.
        worker: NodeId,
        /// Without the worker: it has a day for its last voucher, then the rest comes back.
        #[arg(long)]
        exit: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// Send money from the account to an address, on its chain.
    Withdraw {
        /// Where to: `0x…` with its checksum, or a wallet on Solana.
        #[arg(value_parser = destination)]
        address: Destination,
        /// Dollars, or `all`.
        usd: String,
        /// The chain's coin, not the token that channels or tranches are paid in.
        #[arg(long)]
        coin: bool,
        #[command(flatten)]
        patience: Patience,
    },
}

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Patience {
    /// Don't wait until it is settled; it goes on by itself.
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(context: &Context, command: WalletCommand) -> Result<(), Exit> {
    let (body, patience) = match command {
        WalletCommand::Balance => return balance(context).await,
        WalletCommand::Deposit { worker, usd, solana: true, .. } => {
            return tranche::buy(context, worker, Some(usd), Vec::new()).await;
        }
        WalletCommand::Deposit { worker, usd, patience, .. } => (WalletBody::Deposit { worker, micro_usd: usd }, patience),
        WalletCommand::Close { worker, exit: true, patience } => (WalletBody::Exit { worker }, patience),
        WalletCommand::Close { worker, exit: false, patience } => (WalletBody::Close { worker }, patience),
        WalletCommand::Withdraw { address, usd, coin, patience } => {
            let micro_usd = if usd == "all" { None } else { Some(amount(&usd)?) };
            let body = match address {
                Destination::Evm(to) => WalletBody::Withdraw { to, micro_usd, coin },
                Destination::Solana(to) => WalletBody::WithdrawSolana { to, micro_usd, coin },
            };
            (body, patience)
        }
    };
    act(context, &body, patience).await
}

/// Where money can be sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Destination {
    Evm(EvmAddress),
    Solana(SolanaAddress),
}

fn destination(text: &str) -> Result<Destination, String> {
    if text.starts_with("0x") {
        return text.parse().map(Destination::Evm).map_err(|error: BadAddress| error.to_string());
    }
    config::solana_wallet(text).map(Destination::Solana).map_err(|why| format!("neither 0x… nor a wallet on Solana: {why}"))
}

fn amount(usd: &str) -> Result<u64, Exit> {
    micro_usd(usd).map_err(|why| Exit::new(exit::USAGE, format!("{usd:?} is no amount: {why}, or all")))
}

pub(super) fn node(context: &Context) -> Result<Client, Exit> {
    Client::connect(&context.home).ok_or_else(|| Exit::not_running(&context.home))
}

pub(super) async fn report(node: &Client) -> Result<WalletReport, Exit> {
    Ok(node.ask(ASKED, "wallet").await??)
}

async fn post(node: &Client, body: &WalletBody) -> Result<Vec<StepReport>, Exit> {
    let body = serde_json::to_string(body).map_err(|error| Exit::new(exit::FAILED, error))?;
    Ok(node.post_within(ASKED, "wallet", body).await??)
}

pub(super) async fn act(context: &Context, body: &WalletBody, patience: Patience) -> Result<(), Exit> {
    let node = node(context)?;
    let mut steps = post(&node, body).await?;
    if steps.is_empty() {
        context.note("nothing to do");
    }
    let (mut shown, end) = (BTreeMap::new(), clock::deadline(PATIENCE));
    loop {
        for step in &steps {
            let news = (step.stage.clone(), step.reason.clone());
            if shown.insert(name(step), news.clone()) != Some(news) {
                context.note(line(step));
            }
        }
        if patience.no_wait || steps.iter().all(|step| step.done) {
            break;
        }
        if clock::deadline(Duration::ZERO) >= end {
            context.note("it takes long, and goes on by itself; `infernet payout list` shows how far it is");
            break;
        }
        sleep(LOOK).await;
        let names: Vec<_> = steps.iter().map(name).collect();
        let told: WalletReport = node.ask(ASKED, "wallet/steps").await??;
        let on_evm = steps.iter().any(|step| step.what != "withdraw_solana");
        if let Some(why) = told.chain.filter(|_| on_evm).and_then(|chain| chain.error.or(chain.waits))
            && shown.insert((String::new(), 0), (why.clone(), None)) != Some((why.clone(), None))
        {
            context.note(format!("waits: {why}"));
        }
        steps = told.steps.into_iter().filter(|step| names.contains(&name(step))).collect();
    }
    if context.json {
        context.print_json(&steps)?;
    }
    match steps.iter().find(|step| step.done && step.stage != "settled") {
        Some(bad) => Err(Exit::new(exit::FAILED, line(bad))),
        None => Ok(()),
    }
}

/// Withdrawals on Solana are counted apart.
fn name(step: &StepReport) -> (String, u64) {
    (step.what.clone(), step.number)
}

/// A step in a line.
pub(super) fn line(step: &StepReport) -> String {
    let reason = step.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let hash = step.transaction.as_ref().map(|hash| format!(" ({hash})")).unwrap_or_default();
    format!("{} {}: {}{reason}{hash}", step.number, step.what.replace('_', " "), step.stage)
}

async fn balance(context: &Context) -> Result<(), Exit> {
    let told = report(&node(context)?).await?;
    if context.json {
        return context.print_json(&told);
    }
    if let Some(chain) = &told.chain {
        context.print(format!("address   {}", chain.address));
        context.print(format!("chain     {}: {}", chain.chain, state(chain)));
        context.print(format!("contract  {}", chain.contract));
        let unknown = || "unknown".to_owned();
        context.print(format!("coin      {} (smallest units)", told.coin.clone().unwrap_or_else(unknown)));
        let worth = told.token_micro_usd.map_or_else(unknown, money::dollars);
        context.print(format!("token     {worth} {}", chain.token.as_deref().unwrap_or("(the coin)")));
        table(context, &told.channels);
    }
    // What the EVM chain's is, is above.
    told.accounts.iter().filter(|account| account.rail != "evm").for_each(|account| holdings(context, account));
    tranche::rows(context, &told.tranches);
    Ok(())
}

fn holdings(context: &Context, account: &AccountReport) {
    context.print(format!("{:<9} {}", account.rail, account.address));
    if let Some(why) = &account.trouble {
        context.print(format!("{:<9} {why}", "waits"));
    }
    for BalanceReport { asset, units, micro_usd } in &account.balances {
        let worth = micro_usd.map_or_else(|| format!("{units} (smallest units of)"), money::dollars);
        context.print(format!("{:<9} {worth} {asset}", "has"));
    }
}

/// How it goes with the chain, in words.
pub(super) fn state(chain: &ChainReport) -> String {
    match (&chain.error, chain.ready) {
        (Some(why), _) => why.clone(),
        (None, true) => format!("block {}", chain.head),
        (None, false) => "being read".into(),
    }
}

pub(super) fn table(context: &Context, channels: &[ChannelReport]) {
    if channels.is_empty() {
        return context.note("no channels");
    }
    let columns = |side: &str, with: &str, cells: [String; 5], state: &str| {
        let [deposit, promised, came_to, redeemed, redeemable] = cells;
        context.print(format!(
            "{side:<6} {with:<53} {deposit:>12} {promised:>12} {came_to:>12} {redeemed:>12} {redeemable:>12} {state}"
        ));
    };
    let heads = ["DEPOSIT", "PROMISED", "CAME TO", "REDEEMED", "REDEEMABLE"].map(str::to_owned);
    columns("SIDE", "WITH", heads, "STATE");
    for channel in channels {
        let with = channel.node.map_or_else(|| channel.with.clone(), |node| node.to_string());
        let cells = [
            channel.deposit_micro_usd,
            channel.promised_micro_usd,
            channel.came_to_micro_usd,
            channel.redeemed_micro_usd,
            channel.redeemable_micro_usd,
        ];
        let cells = cells.map(|micro| MicroUsd(micro).to_string());
        columns(if channel.sold { "sold" } else { "bought" }, &with, cells, &channel.state);
    }
}
