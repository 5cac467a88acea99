//! Tranches that this node has prepaid on Solana: `/v0/tranche`.

use super::{
    schema::{DropBody, TrancheBody, TrancheReport},
    wallet::refused,
};
use crate::{
    cli::exit,
    node::Node,
    settlement::{
        solana::{
            book::Bought,
            payment::Stage,
            tranches::{NotBought, Tranches},
        },
        tabs::Tabs,
    },
    store::StoreError,
};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use infernet_wire::money::MicroUsd;
use std::sync::Arc;

/// `GET`: the newest of each worker.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Response {
    answer(rows(&node).await)
}

/// `POST`: one more of each worker. They are paid in the background.
pub(super) async fn buy(State(node): State<Arc<Node>>, Json(body): Json<TrancheBody>) -> Response {
    let workers = [&[body.worker], &body.also[..]].concat();
    match node.tabs().solana().buy_of(&workers, body.micro_usd.map(MicroUsd)).await {
        Ok(_) => answer(rows(&node).await),
        Err(error) => answer(Err(error)),
    }
}

/// `POST`: the newest of a worker is written off.
pub(super) async fn drop(State(node): State<Arc<Node>>, Json(body): Json<DropBody>) -> Response {
    let dropped = async { node.tabs().solana().tranches()?.write_off(&body.worker, body.number).await };
    match dropped.await {
        Ok(()) => answer(rows(&node).await),
        Err(error) => answer(Err(error)),
    }
}

async fn rows(node: &Node) -> Result<Vec<TrancheReport>, NotBought> {
    node.tabs().solana().tranches()?;
    let tabs = node.tabs().clone();
    let read = tokio::task::spawn_blocking(move || bought(&tabs)).await;
    Ok(read.map_err(|error| StoreError::Interrupted(error.to_string()))??)
}

/// The newest of each worker; none without a wallet.
pub(super) fn bought(tabs: &Tabs) -> Result<Vec<TrancheReport>, StoreError> {
    let all = tabs.solana().tranches().map(Tranches::all).unwrap_or_default();
    all.iter().map(|bought| Ok(row(bought, tabs.bought_from(&bought.worker)?.settled()))).collect()
}

/// `used`: what all jobs of that worker came to on the ledger.
fn row(bought: &Bought, used: u128) -> TrancheReport {
    let left = u128::from(bought.prepaid().0).saturating_sub(used);
    let failure = match &bought.payment.stage {
        Stage::Failed { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    TrancheReport {
        worker: bought.worker,
        number: bought.number,
        micro_usd: bought.amount.0,
        state: bought.state().into(),
        transaction: bought.payment.attempts.last().map(|attempt| attempt.signature.to_string()),
        failure,
        left_micro_usd: bought.paid_by().map(|_| u64::try_from(left).unwrap_or(u64::MAX)),
    }
}

fn answer(result: Result<Vec<TrancheReport>, NotBought>) -> Response {
    result.map(|rows| Json(rows).into_response()).unwrap_or_else(|error| {
        let exit = if matches!(error, NotBought::NoWallet) { exit::CONFIG } else { exit::FAILED };
        refused(exit, error.to_string())
    })
}
