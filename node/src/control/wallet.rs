//! The node's account on an EVM chain: `/v0/wallet`.

use super::schema::{ChainReport, ChannelReport, ErrorReport, StepReport, WalletBody, WalletReport};
use crate::{
    cli::exit,
    node::Node,
    settlement::{
        channels::Known,
        evm::contract::CLOSED,
        service::{self, Account, AccountError},
        steps::{ALL, Entry},
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
    let Some(account) = node.account() else { return no_chain() };
    match report(account, node.tabs()).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => failed(&error.into()),
    }
}

/// `POST`: wants steps, and tells which.
pub(super) async fn act(State(node): State<Arc<Node>>, Json(body): Json<WalletBody>) -> Response {
    let Some(account) = node.account() else { return no_chain() };
    let wanted = match body {
        WalletBody::Deposit { worker, micro_usd } => account.deposit(worker, MicroUsd(micro_usd)).await,
        WalletBody::Close { worker } => account.close(worker, node.buyer()).await,
        WalletBody::Exit { worker } => account.exit(worker).await,
        WalletBody::Withdraw { to, micro_usd, coin } => account.withdraw(to, micro_usd.map(MicroUsd), coin).await,
        WalletBody::Payout => account.payout().await,
        WalletBody::PayTo { to } => {
            account.set_payout_to(to);
            Ok(Vec::new())
        }
    };
    match wanted {
        Ok(numbers) => {
            let steps = account.steps().into_iter().filter(|(number, _)| numbers.contains(number));
            Json(steps.map(|(number, entry)| step(number, &entry)).collect::<Vec<_>>()).into_response()
        }
        Err(error) => failed(&error),
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

async fn report(account: &Account, tabs: &Tabs) -> Result<WalletReport, StoreError> {
    let (book, reading) = (tabs.channels().clone(), tabs.clone());
    let read = tokio::task::spawn_blocking(move || on_channels(&reading)).await;
    let mut of = read.map_err(|error| StoreError::Interrupted(error.to_string()))??;
    let rate = account.terms().rate;
    let known = book.all();
    let balances = account.balances().await;
    let (coin, token) = balances.as_ref().map_or((None, None), |(coin, token)| (Some(*coin), Some(*token)));
    let mut chain = chain(account, known.len());
    chain.error = chain.error.or(balances.err());
    let channels = known.iter().map(|known| channel(&book.us(), known, of.remove(&known.terms.id()).unwrap_or_default(), rate));
    Ok(WalletReport {
        channels: channels.collect(),
        chain,
        coin: coin.map(|coin| coin.to_string()),
        token: token.map(|token| token.to_string()),
        token_micro_usd: token.map(|token| micro(token, rate)),
        payout_to: account.payout_to().map(|to| to.to_string()),
        steps: account.steps().iter().map(|(number, entry)| step(*number, entry)).collect(),
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
        deposit_micro_usd: micro(*deposit, rate),
        promised_micro_usd: micro(tab.promised, rate),
        came_to_micro_usd: micro(tab.came_to, rate),
        redeemed_micro_usd: micro(*redeemed, rate),
        redeemable_micro_usd: micro(tab.redeemable, rate),
        state: state.into(),
        exit_at: Some(*exit_at).filter(|at| ![0, CLOSED].contains(at)),
    }
}

/// Whole micro-USD; the rest of one is nobody's wealth.
fn micro(units: u128, rate: u128) -> u64 {
    u64::try_from(units / rate.max(1)).unwrap_or(u64::MAX)
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
    let message = "this node is on no chain: write evm_chain, evm_contract and evm_token into config.toml, set INFERNET_EVM_RPC, and \
                   start it again";
    refused(StatusCode::CONFLICT, exit::CONFIG, message.into())
}

fn failed(error: &AccountError) -> Response {
    refused(StatusCode::CONFLICT, exit::FAILED, error.to_string())
}

fn refused(status: StatusCode, exit: u8, message: String) -> Response {
    (status, Json(ErrorReport { exit, message, partial: None })).into_response()
}
