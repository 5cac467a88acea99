//! An operator's command on its way in: verified, remembered, acted on, in this order.

use super::schema::{CommandReport, DrainReport, ErrorReport};
use crate::{
    cli::exit,
    clock,
    node::Node,
    operator::{self, CommandError, Operators, Verb},
    store::StoreError,
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

/// `POST /v0/command`, whose body is the hex of an envelope. The operators are read anew each time, so that `infernet operator
/// add` and `remove` count at once.
pub(super) fn route(home: PathBuf) -> MethodRouter<Arc<Node>> {
    post(move |State(node): State<Arc<Node>>, body: String| async move {
        match obey(&node, home, &body).await {
            Ok(report) => Json(report).into_response(),
            Err(error) => (StatusCode::FORBIDDEN, Json(error)).into_response(),
        }
    })
}

async fn obey(node: &Node, home: PathBuf, hex: &str) -> Result<CommandReport, ErrorReport> {
    let failed = |exit, message: String| ErrorReport { exit, message, partial: None };
    // Two small files and a number that must be on disk: not for the threads that serve streams.
    let operators = tokio::task::spawn_blocking(move || Operators::load(&home));
    let operators = operators.await.map_err(|error| failed(exit::FAILED, error.to_string()))?;
    let operators = operators.map_err(|error| failed(exit::CONFIG, error.to_string()))?;
    let refused = |error: CommandError| {
        warn!(reason = error.label(), "operator command refused");
        let code = if matches!(error, CommandError::Store(_)) { exit::CONFIG } else { exit::REFUSED };
        failed(code, error.to_string())
    };
    let raw = hex::decode(hex.trim()).map_err(|_| refused(Refusal::Malformed.into()))?;
    let checked = operator::check(&raw, node.network(), &node.id(), &operators, clock::now()).map_err(refused)?;
    let store = node.store().clone();
    let claim =
        tokio::task::spawn_blocking(move || checked.claim(|operator, sequence| store.accept_command(operator, sequence)));
    let claimed = claim.await.unwrap_or_else(|error| Err(StoreError::Interrupted(error.to_string()).into()));
    let verb = claimed.map_err(refused)?;
    act(node, verb).await;
    let (operator, sequence) = (checked.operator(), checked.sequence());
    info!(operator = %operator.short(), sequence, verb = verb.name(), "operator command obeyed");
    Ok(CommandReport { verb: verb.name().into(), operator, sequence })
}

/// `POST /v0/drain`, of whoever may open the socket: the owner of the home, who needs no signature to command the node.
pub(super) async fn drain(State(node): State<Arc<Node>>) -> Response {
    own(&node, Verb::Drain).await
}

/// `POST /v0/resume`, likewise.
pub(super) async fn resume(State(node): State<Arc<Node>>) -> Response {
    own(&node, Verb::Resume).await
}

async fn own(node: &Node, verb: Verb) -> Response {
    if node.seller().is_none() {
        let message = "this node sells nothing, so there is nothing to drain".into();
        return (StatusCode::CONFLICT, Json(ErrorReport { exit: exit::REFUSED, message, partial: None })).into_response();
    }
    act(node, verb).await;
    info!(verb = verb.name(), "the owner's command obeyed");
    Json(DrainReport { draining: verb == Verb::Drain }).into_response()
}

/// A node that sells nothing has nothing to drain, and says so by doing nothing.
async fn act(node: &Node, verb: Verb) {
    let Some(seller) = node.seller() else { return };
    match verb {
        Verb::Drain => seller.drain().await,
        Verb::Resume => seller.resume().await,
    }
}
