//! Whose account a request comes from: a key that may manage, or a signed-in browser.

use super::super::{caller::Caller, error, node::reply::Refusal};
use crate::{accounts::Scope, state::Plane, store::ClientId};
use axum::{extract::FromRequestParts, http::request::Parts};

/// The client of the key or session that the request shows.
pub(super) async fn client(plane: &Plane, parts: &Parts) -> Result<ClientId, Refusal> {
    let caller = Caller::from_request_parts(&mut parts.clone(), plane).await.map_err(reshaped)?;
    caller.needs(Scope::Manage).map_err(reshaped)?;
    Ok(caller.client().clone())
}

/// In the words of these routes, whose errors are plain texts.
fn reshaped(refusal: error::Refusal) -> Refusal {
    Refusal::new(refusal.status, refusal.message)
}
