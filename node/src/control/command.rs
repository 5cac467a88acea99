//! An operator's command on its way in: verified, remembered, acted on, in this order.

use super::schema::{CommandReport, DrainReport, ErrorReport};
use crate::{
    cli::exit,
    node::Node,
    obey::{self, Disobeyed},
    operator::{CommandError, Verb},
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use infernet_wire::envelope::Refusal;
use std::{path::PathBuf, sync::Arc};
use tracing::{info, warn};

/// `POST /v0/command`, whose body is the hex of an envelope.
pub(super) fn route(home: PathBuf) -> MethodRouter<Arc<Node>> {
    post(move |State(node): State<Arc<Node>>, body: String| async move {
        match obey(node, home, &body).await {
            Ok(report) => Json(report).into_response(),
            Err(error) => (StatusCode::FORBIDDEN, Json(error)).into_response(),
        }
    })
}

async fn obey(node: Arc<Node>, home: PathBuf, hex: &str) -> Result<CommandReport, ErrorReport> {
    let failed = |exit, message: String| ErrorReport { exit, message, partial: None };
    let refused = |error: Disobeyed| {
        warn!(reason = error.label(), "operator command refused");
        let code = match &error {
            Disobeyed::Operators(_) | Disobeyed::Command(CommandError::Store(_)) => exit::CONFIG,
            _ => exit::REFUSED,
        };
        failed(code, error.to_string())
    };
    let raw = hex::decode(hex.trim()).map_err(|_| refused(CommandError::from(Refusal::Malformed).into()))?;
    let order = obey::accept(&node, &home, &raw).await.map_err(refused)?;
    let report = CommandReport { verb: order.verb.name().into(), operator: order.operator, sequence: order.sequence };
    if matches!(order.verb, Verb::ModelInstall(_)) {
        // Takes minutes; its end is in the log, and `infernet model list` shows the model.
        tokio::spawn(async move { obey::carry_out(&node, &home, order, |_| {}).await });
        return Ok(report);
    }
    let is_drain = matches!(order.verb, Verb::Drain | Verb::Resume);
    match obey::carry_out(&node, &home, order, |_| {}).await {
        // A node that sells nothing is as drained as it can be.
        Err(obey::Failed::SellsNothing) if is_drain => Ok(report),
        Err(error) => Err(failed(exit::FAILED, error.to_string())),
        Ok(_) => Ok(report),
    }
}

/// `POST /v0/drain`, of whoever may open the socket: the owner of the home, who needs no signature to command the node.
pub(super) async fn drain(State(node): State<Arc<Node>>) -> Response {
    own(&node, true).await
}

/// `POST /v0/resume`, likewise.
pub(super) async fn resume(State(node): State<Arc<Node>>) -> Response {
    own(&node, false).await
}

async fn own(node: &Node, draining: bool) -> Response {
    let Some(seller) = node.seller() else {
        let message = "this node sells nothing, so there is nothing to drain".into();
        return (StatusCode::CONFLICT, Json(ErrorReport { exit: exit::REFUSED, message, partial: None })).into_response();
    };
    if draining {
        seller.drain().await;
    } else {
        seller.resume().await;
    }
    info!(draining, "the owner's command obeyed");
    Json(DrainReport { draining }).into_response()
}
