//! An operator's command on its way in: verified, remembered, acted on, in this order.

use super::schema::{CommandReport, DrainReport, ErrorReport};
use crate::{
    cli::exit,
    node::Node,
    obey::{self, Disobeyed, Failed},
    operator::{CommandError, Verb},
};
use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use infernet_wire::envelope::Refusal;
use serde_json::Value;
use std::{path::PathBuf, sync::Arc};
use tracing::{info, warn};

/// Whether the answer is to wait for the end of what takes minutes. It does, if nothing is said.
#[derive(serde::Deserialize)]
struct Patience {
    wait: Option<bool>,
}

/// `POST /v0/command`, whose body is the hex of an envelope.
pub(super) fn route(home: PathBuf) -> MethodRouter<Arc<Node>> {
    post(move |State(node): State<Arc<Node>>, Query(patience): Query<Patience>, body: String| async move {
        match obey(node, home, &body, patience.wait.unwrap_or(true)).await {
            Ok(report) => Json(report).into_response(),
            Err(error) => (StatusCode::FORBIDDEN, Json(error)).into_response(),
        }
    })
}

async fn obey(node: Arc<Node>, home: PathBuf, hex: &str, wait: bool) -> Result<CommandReport, ErrorReport> {
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
    let (verb, operator, sequence) = (order.verb.name().to_owned(), order.operator, order.sequence);
    let report = |result: Option<Value>| CommandReport { verb, operator, sequence, done: result.is_some(), result };
    let takes_long = matches!(order.verb, Verb::ModelInstall(_));
    // A task of its own: whoever hangs up stops nothing.
    let working = tokio::spawn(async move { obey::carry_out(&node, &home, order, |_| {}).await });
    if takes_long && !wait {
        return Ok(report(None));
    }
    match working.await {
        Ok(Ok(result)) => Ok(report(Some(result))),
        Ok(Err(error)) => Err(failed(code(&error), error.to_string())),
        Err(error) => Err(failed(exit::FAILED, format!("the command was interrupted: {error}"))),
    }
}

fn code(error: &Failed) -> u8 {
    match error {
        Failed::SellsNothing | Failed::NotOffered { .. } | Failed::NoRoom { .. } => exit::REFUSED,
        Failed::Config(_) => exit::CONFIG,
        Failed::Engine(_) => exit::FAILED,
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
