//! Whose account a request comes from: a key that may manage, or a signed-in browser.

use super::super::{caller::Caller, node::reply::Refusal};
use crate::{accounts::Scope, state::Plane, store::ClientId};
use axum::{extract::FromRequestParts, http::request::Parts};

/// The client of the key or session that the request shows.
pub(super) async fn client(plane: &Plane, parts: &Parts) -> Result<ClientId, Refusal> {
    Ok(caller(plane, parts).await?.client().clone())
}

/// The same, of one who may do all: who adds a key to an account adds a way to sign in.
pub(super) async fn whole(plane: &Plane, parts: &Parts) -> Result<ClientId, Refusal> {
    let caller = caller(plane, parts).await?;
    caller.needs_all()?;
    Ok(caller.client().clone())
}

async fn caller(plane: &Plane, parts: &Parts) -> Result<Caller, Refusal> {
    let caller = Caller::from_request_parts(&mut parts.clone(), plane).await?;
    caller.needs(Scope::Manage)?;
    Ok(caller)
}
