//! Whose bearer token a request carries: an API key with the scope `manage`, or a session.

use super::super::node::reply::Refusal;
use crate::{state::Plane, store::ClientId};
use axum::http::{StatusCode, header, request::Parts};
use infernet_wire::{hash, time::UnixMillis};

/// The scope of a key that may see and command its owner's nodes.
const SCOPE: &str = "manage";

/// The client of the token in `Authorization`.
pub(super) async fn client(plane: &Plane, parts: &Parts, now: UnixMillis) -> Result<ClientId, Refusal> {
    let text = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(token) =
        text.split_once(' ').filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim())
    else {
        return Err(denied("sign in first: send Authorization: Bearer TOKEN"));
    };
    let digest = hash::sha256(token.as_bytes());
    if let Some(session) = plane.store.session(digest, now).await? {
        return Ok(session.client);
    }
    match plane.store.key(digest).await? {
        Some(key) if key.revoked.is_some() || key.expires.is_some_and(|at| at <= now) => {
            Err(denied("this key is no longer good: make a new one"))
        }
        Some(key) if !key.scopes.iter().any(|scope| scope == SCOPE) => {
            Err(Refusal::new(StatusCode::FORBIDDEN, "this key lacks the scope manage"))
        }
        Some(key) => Ok(key.client),
        None => Err(denied("unknown token: sign in again")),
    }
}

fn denied(text: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, text)
}
