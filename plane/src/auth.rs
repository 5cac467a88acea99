//! Who signed a request (`X-Infernet-Auth`), that it was meant for this plane, and that it was not heard before.
//!
//! The order of checks and the texts are those of the existing control plane: header, fields, time, signature, nonce, then the
//! body. The nonce of a key is remembered by the store, so that a captured request is refused after a restart and by every
//! instance. The header signs no host, so nodes name the plane in the body (`aud`), or in the query where there is no body;
//! a key that registered so must always do so. Daemons that know no `aud` are believed without.

use crate::{
    http::{self, node::reply::Refusal},
    state::Plane,
    store::{Pubkey, Role, Store, StoreError},
};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, request::Parts},
};
use infernet_node::clock;
use infernet_wire::{
    hash,
    http_auth::{self, AuthError, HEADER},
    time::UnixMillis,
};
use serde_json::{Map, Value};

/// The largest body of a signed request: a finished answer of 256 KiB as JSON, with room for escapes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Longest nonce that is kept as it is; a longer one is kept as its digest.
const MAX_NONCE_BYTES: usize = 64;
/// How long a nonce is remembered after its request's time: twice the window in which it could be repeated.
const NONCE_MS: u64 = 2 * http_auth::WINDOW_SECONDS * 1000;

/// A request whose signer is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed {
    /// The signer.
    pub pubkey: Pubkey,
    /// The body; empty for none.
    pub body: Map<String, Value>,
    /// Whether the request names this plane.
    pub names_audience: bool,
}

/// Why a request is not believed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Denied {
    /// The header.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// It was heard before.
    #[error("nonce already used")]
    Replayed,
    /// The body is no JSON object.
    #[error("body must be a JSON object")]
    NotJson,
    /// It is for another plane.
    #[error("this request is for {named:?}, and this is {own:?}: name the plane by that origin")]
    OtherAudience {
        /// What it names.
        named: String,
        /// What this is.
        own: String,
    },
    /// It is for any plane, and its signer's requests are not.
    #[error("this key's requests name the plane they are for: put \"aud\":{0:?} into the body")]
    NoAudience(String),
    /// The store does not say whether it was heard before.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Store(error) => error.into(),
            Denied::NotJson => Refusal::bad(denied.to_string()),
            _ => Refusal::new(StatusCode::UNAUTHORIZED, denied.to_string()),
        }
    }
}

impl FromRequest<Plane> for Signed {
    type Rejection = Refusal;

    async fn from_request(request: Request, plane: &Plane) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        // Who shows nothing has nothing read of theirs.
        http_auth::check_header(header(&parts), clock::now().0 / 1000).map_err(Denied::from)?;
        let body = http::body::read(&parts.headers, body, MAX_BODY_BYTES).await?;
        Ok(check(plane, &parts, &body, clock::now()).await?)
    }
}

/// Whether a request claims to be signed.
pub fn is_signed(parts: &Parts) -> bool {
    parts.headers.contains_key(HEADER)
}

fn header(parts: &Parts) -> Option<&str> {
    parts.headers.get(HEADER).map(|value| value.to_str().unwrap_or("?"))
}

/// Checks a request at `now`, and uses up its nonce.
pub async fn check(plane: &Plane, parts: &Parts, body: &Bytes, now: UnixMillis) -> Result<Signed, Denied> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = http_auth::Request { method: parts.method.as_str(), path, body };
    let signed = http_auth::verify(header(parts), request, now.0 / 1000)?;
    let pubkey = Pubkey(signed.pubkey);
    // Verified to be within a minute of now.
    let until = UnixMillis((signed.created_at.max(0.0) * 1000.0) as u64).after(NONCE_MS);
    if !plane.store.use_nonce(pubkey, &kept(&signed.nonce), until).await? {
        return Err(Denied::Replayed);
    }
    let body = object(body)?;
    let names_audience = audience(plane, pubkey, &body, parts.uri.query()).await?;
    Ok(Signed { pubkey, body, names_audience })
}

/// Any nonce in bounded space.
fn kept(nonce: &str) -> String {
    if nonce.len() <= MAX_NONCE_BYTES { nonce.into() } else { hash::sha256(nonce.as_bytes()).to_string() }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Denied> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(Denied::NotJson),
    }
}

/// Whether the request names this plane; refused if it names another, or none though its key must.
async fn audience(plane: &Plane, pubkey: Pubkey, body: &Map<String, Value>, query: Option<&str>) -> Result<bool, Denied> {
    let own = plane.config.origin.as_str();
    let in_query = || query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("aud="));
    let named = match body.get("aud") {
        Some(aud) => Some(aud.as_str().unwrap_or("?")),
        None => in_query(),
    };
    match named {
        Some(named) if named == own => Ok(true),
        Some(named) => Err(Denied::OtherAudience { named: named.chars().take(256).collect(), own: own.into() }),
        None if must_name(&*plane.store, pubkey).await? => Err(Denied::NoAudience(own.into())),
        None => Ok(false),
    }
}

/// Whether this key registered, in any role, as one that names its audience.
pub async fn must_name(store: &dyn Store, pubkey: Pubkey) -> Result<bool, StoreError> {
    for role in [Role::Provider, Role::Client, Role::Aggregator] {
        if store.node(pubkey, role).await?.is_some_and(|row| row.names_audience) {
            return Ok(true);
        }
    }
    Ok(false)
}
