//! What buyers owe, and may: `/v0/credit`.

use super::schema::{ClearBody, CreditBody, CreditReport, ErrorReport};
use crate::{
    cli::exit,
    node::Node,
    settlement::{tab::PayeeTab, tabs::Credit},
    store::StoreError,
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use infernet_wire::{id::NodeId, money::MicroUsd};
use std::{collections::BTreeMap, sync::Arc};

/// `GET`: every buyer with a tab or a limit of its own.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Response {
    let tabs = node.tabs().clone();
    let read = tokio::task::spawn_blocking(move || Ok(rows(&tabs.credit(), tabs.all_sold()?))).await;
    answer(read.unwrap_or_else(|error| Err(StoreError::Interrupted(error.to_string()))))
}

/// `POST`: what buyers may owe from now on.
pub(super) async fn set(State(node): State<Arc<Node>>, Json(body): Json<CreditBody>) -> Response {
    let limits = body.limits.into_iter().map(|(buyer, limit)| (buyer, MicroUsd(limit))).collect();
    node.tabs().set_credit(Credit { free: MicroUsd(body.free), limits });
    list(State(node)).await
}

/// `POST` to `/paid`: a buyer has paid outside.
pub(super) async fn clear(State(node): State<Arc<Node>>, Json(body): Json<ClearBody>) -> Response {
    let tabs = node.tabs();
    let cleared = tabs.clear(&body.buyer, MicroUsd(body.micro_usd)).await;
    answer(cleared.map(|tab| vec![row(&tabs.credit(), body.buyer, &tab)]))
}

/// These tabs, and who has a limit of its own, in the order of ids.
pub(crate) fn rows(credit: &Credit, mut tabs: BTreeMap<NodeId, PayeeTab>) -> Vec<CreditReport> {
    for buyer in credit.limits.keys() {
        tabs.entry(*buyer).or_default();
    }
    tabs.iter().map(|(buyer, tab)| row(credit, *buyer, tab)).collect()
}

pub(crate) fn row(credit: &Credit, buyer: NodeId, tab: &PayeeTab) -> CreditReport {
    CreditReport {
        buyer,
        owed_micro_usd: tab.owed().0,
        limit_micro_usd: credit.limit(&buyer).0,
        promised_micro_usd: u64::try_from(tab.promised()).unwrap_or(u64::MAX),
        came_to_micro_usd: tab.settled().0,
        paid_micro_usd: tab.cleared().0,
    }
}

fn answer<T: serde::Serialize>(result: Result<T, StoreError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            let report = ErrorReport { exit: exit::FAILED, message: error.to_string(), partial: None };
            (StatusCode::INTERNAL_SERVER_ERROR, Json(report)).into_response()
        }
    }
}
