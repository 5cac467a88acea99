//! The node's accounts: `/v0/wallet`. What it is asked to do is for the EVM chain; tranches are [`super::tranche`]'s.

use super::{
    schema::{
        AccountReport, BalanceReport, ChainReport, ChannelReport, ErrorReport, PayoutBody, PrepaidReport, StepReport,
        WalletBody, WalletReport,
    },
    tranche,
};
use crate::{
    cli::exit,
    node::Node,
    seller::Seller,
    settlement::{
        channels::Known,
        evm::contract::CLOSED,
        rail::{Balance, Holdings},
        service::{self, Account, AccountError},
        solana::withdrawals::{Withdrawal, Withdrawals},
        steps::{ALL, Entry},
        tab::{Cover, PayeeTab, micro_usd},
        tabs::Tabs,
    },
    store::StoreError,
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use infernet_wire::{
    evm::EvmAddress,
    id::{ChannelId, NodeId},
    money::MicroUsd,
};
use std::{collections::BTreeMap, sync::Arc};

/// `GET`: all that there is to know.
pub(super) async fn show(State(node): State<Arc<Node>>) -> Response {
    let accounts = node.rails().holdings().await;
    if accounts.is_empty() {
        return no_chain();
    }
    match report(&node, accounts).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => failed(&error.into()),
    }
}

/// `GET /v0/wallet/steps`: how far they are. No chain is asked: whoever waits looks twice a second.
pub(super) async fn steps(State(node): State<Arc<Node>>) -> Response {
    let chain = node.account().map(|account| chain(account, node.tabs().channels().all().len()));
    Json(WalletReport { chain, steps: all_steps(&node), ..WalletReport::default() }).into_response()
}

/// `POST`: wants steps, and tells which.
pub(super) async fn act(State(node): State<Arc<Node>>, Json(body): Json<WalletBody>) -> Response {
    if let WalletBody::WithdrawSolana { to, micro_usd, coin } = body {
        let Some(withdrawals) = node.tabs().solana().withdrawals() else { return no_solana() };
        return match withdrawals.withdraw(to, micro_usd.map(MicroUsd), coin).await {
            Ok(withdrawal) => Json([withdrawn(&withdrawal)]).into_response(),
            Err(error) => refused(exit::FAILED, error.to_string()),
        };
    }
    let Some(account) = node.account() else { return no_evm() };
    let wanted = match body {
        WalletBody::WithdrawSolana { .. } => return no_solana(),
        WalletBody::Deposit { worker, micro_usd } => account.deposit(worker, MicroUsd(micro_usd)).await,
        WalletBody::Close { worker } => account.close(worker, node.buyer()).await,
        WalletBody::Exit { worker } => account.exit(worker).await,
        WalletBody::Withdraw { to, micro_usd, coin } => account.withdraw(to, micro_usd.map(MicroUsd), coin).await,
        WalletBody::Payout => account.payout().await,
    };
    match wanted {
        Ok(numbers) => {
            let steps = account.steps().into_iter().filter(|(number, _)| numbers.contains(number));
            Json(steps.map(|(number, entry)| step(number, &entry)).collect::<Vec<_>>()).into_response()
        }
        Err(error) => failed(&error),
    }
}

/// `POST /v0/payout`: payouts go there from now on.
pub(super) async fn pay_to(State(node): State<Arc<Node>>, Json(PayoutBody { rail, to }): Json<PayoutBody>) -> Response {
    let paid = node.rails().named(&rail).ok_or_else(|| format!("there is no rail {rail:?}"));
    match paid.and_then(|rail| rail.pay_to(&to)) {
        Ok(()) => {
            // Its ad may say where it is paid. Should its queue be full, the next one does.
            node.seller().map(Seller::try_greet);
            Json(()).into_response()
        }
        Err(why) => refused(exit::FAILED, why),
    }
}

/// How it goes with the chain.
pub(crate) fn chain(account: &Account, channels: usize) -> ChainReport {
    let (terms, state) = (account.terms(), account.state());
    ChainReport {
        chain: terms.chain,
        contract: terms.contract.to_string(),
        token: (terms.token != EvmAddress::ZERO).then(|| terms.token.to_string()),
        rate: terms.rate.to_string(),
        address: account.address().to_string(),
        ready: state.ready,
        error: state.error,
        waits: state.waits,
        head: state.head,
        read: state.read,
        channels,
        open_steps: account.steps().iter().filter(|(_, entry)| !entry.is_done()).count(),
    }
}

/// What tabs tell of a channel, in units.
#[derive(Default)]
struct Tab {
    node: Option<NodeId>,
    promised: u128,
    came_to: u128,
    redeemable: u128,
}

async fn report(node: &Node, accounts: Vec<(&'static str, Holdings)>) -> Result<WalletReport, StoreError> {
    let evm = accounts.iter().find(|(rail, _)| *rail == "evm").map(|(_, holdings)| holdings);
    let on_chain = match node.account().zip(evm) {
        Some((account, holdings)) => on_chain(account, holdings, node.tabs()).await?,
        None => WalletReport::default(),
    };
    let tabs = node.tabs().clone();
    let read = tokio::task::spawn_blocking(move || Ok((tranche::bought(&tabs)?, prepaid(&tabs)?))).await;
    let (tranches, prepaid) = read.map_err(|error| StoreError::Interrupted(error.to_string()))??;
    let accounts = accounts.into_iter().map(|(rail, holdings)| account_row(rail, holdings)).collect();
    Ok(WalletReport { accounts, tranches, prepaid, steps: all_steps(node), ..on_chain })
}

fn account_row(rail: &str, holdings: Holdings) -> AccountReport {
    let Holdings { address, trouble, payout_to, balances } = holdings;
    let row = |Balance { asset, units, worth }: Balance| BalanceReport {
        asset,
        units: units.to_string(),
        micro_usd: worth.map(|worth| worth.0),
    };
    AccountReport { rail: rail.into(), address, trouble, payout_to, balances: balances.into_iter().map(row).collect() }
}

/// What buyers have prepaid. One whose tranches are on the way shows none yet.
fn prepaid(tabs: &Tabs) -> Result<Vec<PrepaidReport>, StoreError> {
    let row = |(buyer, tab): (NodeId, PayeeTab)| PrepaidReport {
        buyer,
        tranches: tab.prepayments(),
        micro_usd: tab.prepaid().0,
        left_micro_usd: tab.left(Cover::Credit(MicroUsd(0))).0.min(tab.prepaid().0),
    };
    Ok(tabs.all_sold()?.into_iter().filter(|(_, tab)| tab.prepayments() > 0).map(row).collect())
}

/// The EVM chain's part.
async fn on_chain(account: &Account, holdings: &Holdings, tabs: &Tabs) -> Result<WalletReport, StoreError> {
    let (book, reading) = (tabs.channels().clone(), tabs.clone());
    let read = tokio::task::spawn_blocking(move || on_channels(&reading)).await;
    let mut of = read.map_err(|error| StoreError::Interrupted(error.to_string()))??;
    let rate = account.terms().rate;
    let known = book.all();
    let (coin, token) = (holdings.balances.first(), holdings.balances.last());
    let mut chain = chain(account, known.len());
    // What its balances can't be read for.
    chain.error = chain.error.or_else(|| holdings.trouble.clone().filter(|_| token.is_none()));
    let channels = known.iter().map(|known| channel(&book.us(), known, of.remove(&known.terms.id()).unwrap_or_default(), rate));
    Ok(WalletReport {
        channels: channels.collect(),
        chain: Some(chain),
        coin: coin.map(|coin| coin.units.to_string()),
        token: token.map(|token| token.units.to_string()),
        token_micro_usd: token.and_then(|token| token.worth).map(|worth| worth.0),
        payout_to: account.payout_to().map(|to| to.to_string()),
        ..WalletReport::default()
    })
}

fn on_channels(tabs: &Tabs) -> Result<BTreeMap<ChannelId, Tab>, StoreError> {
    let book = tabs.channels();
    let mut of = BTreeMap::new();
    for (node, id, tab) in tabs.all_sold_on_channels()? {
        let redeemable = tab.highest().zip(book.get(&id)).map_or(0, |(voucher, known)| service::unredeemed(&known, voucher));
        of.insert(id, Tab { node: Some(node), promised: tab.promised(), came_to: tab.settled_units(), redeemable });
    }
    for (node, id, tab) in tabs.all_bought_on_channels()? {
        of.insert(id, Tab { node: Some(node), promised: tab.promised(), came_to: tab.settled(), redeemable: 0 });
    }
    Ok(of)
}

fn channel(us: &EvmAddress, known: &Known, tab: Tab, rate: u128) -> ChannelReport {
    let Known { terms, deposit, redeemed, exit_at, closing } = known;
    let sold = terms.payee == *us;
    let state = match (*exit_at, closing) {
        (CLOSED, _) => "closed",
        (_, true) => "closing",
        (0, false) => "open",
        _ => "exiting",
    };
    ChannelReport {
        channel: terms.id().to_string(),
        sold,
        with: if sold { terms.payer } else { terms.payee }.to_string(),
        node: tab.node,
        deposit_micro_usd: micro_usd(*deposit, rate).0,
        promised_micro_usd: micro_usd(tab.promised, rate).0,
        came_to_micro_usd: micro_usd(tab.came_to, rate).0,
        redeemed_micro_usd: micro_usd(*redeemed, rate).0,
        redeemable_micro_usd: micro_usd(tab.redeemable, rate).0,
        state: state.into(),
        exit_at: Some(*exit_at).filter(|at| ![0, CLOSED].contains(at)),
    }
}

/// Those on the EVM chain, and the newest withdrawal on Solana.
fn all_steps(node: &Node) -> Vec<StepReport> {
    let evm = node.account().map(Account::steps).unwrap_or_default();
    let solana = node.tabs().solana().withdrawals().and_then(Withdrawals::newest);
    let evm = evm.iter().map(|(number, entry)| step(*number, entry));
    evm.chain(solana.iter().map(withdrawn)).collect()
}

fn withdrawn(withdrawal: &Withdrawal) -> StepReport {
    let Withdrawal { number, since, order, payment } = withdrawal;
    StepReport {
        number: *number,
        what: "withdraw_solana".into(),
        channel: None,
        amount: order.transfers.first().map(|transfer| transfer.amount.to_string()),
        stage: withdrawal.word().into(),
        reason: withdrawal.reason(),
        done: payment.is_done(),
        transaction: payment.attempts.last().map(|attempt| attempt.signature.to_string()),
        since: since.0,
    }
}

fn step(number: u64, entry: &Entry) -> StepReport {
    let transaction = entry.step.as_ref().and_then(|step| Some(step.attempts.last()?.hash.to_string()));
    StepReport {
        number,
        what: entry.purpose.label().into(),
        channel: entry.purpose.channel().map(|channel| channel.to_string()),
        amount: entry.purpose.amount().filter(|amount| *amount != ALL).map(|amount| amount.to_string()),
        stage: entry.word().into(),
        reason: entry.refused.clone().or_else(|| entry.reason()),
        done: entry.is_done(),
        transaction,
        since: entry.since.0,
    }
}

fn no_chain() -> Response {
    let message = "this node is on no chain: write evm_chain, evm_contract and evm_token into config.toml, set INFERNET_EVM_RPC, or \
                   write solana_rpc, and start it again";
    refused(exit::CONFIG, message.into())
}

fn no_solana() -> Response {
    refused(exit::CONFIG, "this node has no wallet on Solana: write solana_rpc into config.toml and start it again".into())
}

fn no_evm() -> Response {
    let message = "this node is on no EVM chain: write evm_chain, evm_contract and evm_token into config.toml, set INFERNET_EVM_RPC, and \
                   start it again; on Solana, `infernet tranche buy WORKER` pays";
    refused(exit::CONFIG, message.into())
}

fn failed(error: &AccountError) -> Response {
    refused(exit::FAILED, error.to_string())
}

pub(super) fn refused(exit: u8, message: String) -> Response {
    (StatusCode::CONFLICT, Json(ErrorReport { exit, message, partial: None })).into_response()
}
