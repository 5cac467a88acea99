//! Who asks: a key in `Authorization: Bearer`, or a browser's session in a cookie. Handlers take a [`Caller`].
//!
//! A cookie is sent by browsers whoever made them send it, so what changes something needs more: the page's origin must be
//! ours, as `Origin` or `Sec-Fetch-Site` say, and `X-CSRF-Token` must be the session's, which only our own pages can read.

use super::error::Refusal;
use crate::{
    accounts::{self, Scope},
    state::Plane,
    store::{ClientId, ClientRow, KeyRow, SessionRow, Store},
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, header, request::Parts},
};
use infernet_wire::time::UnixMillis;

/// Proves that a page of ours sent the request.
pub(crate) const CSRF_HEADER: &str = "x-csrf-token";
/// The longest key or cookie that is looked up.
const MAX_SECRET: usize = 200;

/// By what somebody is known.
#[derive(Debug, Clone)]
pub enum By {
    /// An API key.
    Key(KeyRow),
    /// A session, with the cookie's text.
    Session(SessionRow, String),
}

/// A client who asks.
#[derive(Debug, Clone)]
pub struct Somebody {
    /// Who.
    pub client: ClientRow,
    /// How it is known.
    pub by: By,
}

/// What was found out of a request's sender.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// It showed nothing.
    Nobody,
    /// It showed what is not good.
    Refused(Refusal),
    /// It is somebody.
    Somebody(Box<Somebody>),
}

/// Somebody who was let in, and may change things: for cookies that was checked.
#[derive(Debug, Clone)]
pub struct Caller(pub Somebody);

/// Somebody, or nobody at all.
#[derive(Debug, Clone)]
pub struct Maybe(pub Option<Somebody>);

impl Caller {
    /// Who.
    pub fn client(&self) -> &ClientId {
        &self.0.client.id
    }

    /// The key, if by one.
    pub fn key(&self) -> Option<&KeyRow> {
        match &self.0.by {
            By::Key(key) => Some(key),
            By::Session(..) => None,
        }
    }

    /// Refuses keys that may not do this.
    pub fn needs(&self, scope: Scope) -> Result<(), Refusal> {
        let name = scope.name();
        match self.key() {
            Some(key) if !scope.is_in(&key.scopes) => {
                Err(Refusal::forbidden("forbidden", format!("this key lacks the scope {name}: make another with it")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses keys that may not do all, or spend all: they must not become what may.
    pub fn needs_all(&self) -> Result<(), Refusal> {
        let may_all = |key: &KeyRow| key.per_day.is_none() && Scope::ALL.into_iter().all(|scope| scope.is_in(&key.scopes));
        if self.key().is_none_or(may_all) {
            return Ok(());
        }
        Err(Refusal::forbidden("forbidden", "this key may not do all: sign in by what the account was made with"))
    }

    /// Refuses whoever does not run the plane.
    pub fn needs_admin(&self) -> Result<(), Refusal> {
        self.needs_all()?;
        if self.0.client.admin { Ok(()) } else { Err(Refusal::forbidden("forbidden", "only who runs this plane may do that")) }
    }
}

/// Looks up who a request's headers show.
pub(super) async fn look_up(plane: &Plane, headers: &HeaderMap, now: UnixMillis) -> Known {
    let found = match (bearer(headers), cookie(plane, headers)) {
        (Some(Err(refusal)), _) => Err(refusal),
        (Some(Ok(key)), _) => by_key(&*plane.store, key, now).await.map(Some),
        (None, Some(text)) => by_cookie(&*plane.store, text, now).await,
        (None, None) => Ok(None),
    };
    match found {
        Ok(Some(somebody)) => Known::Somebody(Box::new(somebody)),
        Ok(None) => Known::Nobody,
        Err(refusal) => Known::Refused(refusal),
    }
}

/// The client of a key that is good at `now`.
pub(super) async fn by_key(store: &dyn Store, key: &str, now: UnixMillis) -> Result<Somebody, Refusal> {
    let row = store.key(accounts::key::hash_of(key)).await?;
    let row = accounts::key::check(row, now).map_err(Refusal::unauthorized)?;
    let client = store.client(&row.client).await?.ok_or_else(|| Refusal::unauthorized("this key's client is gone"))?;
    Ok(Somebody { client, by: By::Key(row) })
}

/// A session that has ended is nobody: a page then asks to sign in.
async fn by_cookie(store: &dyn Store, text: &str, now: UnixMillis) -> Result<Option<Somebody>, Refusal> {
    let Some(row) = store.session(accounts::session::hash_of(text), now).await? else { return Ok(None) };
    let client = store.client(&row.client).await?;
    Ok(client.map(|client| Somebody { client, by: By::Session(row, text.to_owned()) }))
}

fn bearer(headers: &HeaderMap) -> Option<Result<&str, Refusal>> {
    let bad = || Refusal::unauthorized("show a key as `Authorization: Bearer sk-plane-…`");
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok();
    let key = value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Some(key.map(|(_, key)| key.trim()).filter(|key| !key.is_empty() && key.len() <= MAX_SECRET).ok_or_else(bad))
}

fn cookie<'a>(plane: &Plane, headers: &'a HeaderMap) -> Option<&'a str> {
    let name = accounts::session::cookie_name(&plane.config.origin);
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    let mut named = all.filter_map(|pair| pair.trim().split_once('=')).filter(|(found, _)| *found == name);
    named.next().map(|(_, value)| value).filter(|value| value.len() <= MAX_SECRET)
}

/// Whether a page of ours meant to send this.
pub(super) fn check_page(plane: &Plane, method: &Method, headers: &HeaderMap, cookie: &str) -> Result<(), Refusal> {
    if [Method::GET, Method::HEAD].contains(method) {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text("origin").is_none_or(|origin| origin.eq_ignore_ascii_case(&plane.config.origin));
    let site = text("sec-fetch-site").is_none_or(|site| site == "same-origin");
    let said = text("origin").is_some() || text("sec-fetch-site").is_some();
    let token = text(CSRF_HEADER).is_some_and(|token| accounts::session::is_csrf(cookie, token));
    match () {
        () if !(origin && site && said) => {
            Err(Refusal::forbidden("unknown_origin", "a page of another origin sent this: use a key instead of a cookie"))
        }
        () if !token => {
            Err(Refusal::forbidden("csrf", "X-CSRF-Token is missing or not this session's: read it from GET /api/v1/me"))
        }
        () => Ok(()),
    }
}

impl FromRequestParts<Plane> for Maybe {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, plane: &Plane) -> Result<Self, Refusal> {
        match parts.extensions.get::<Known>() {
            Some(Known::Somebody(somebody)) => {
                if let By::Session(_, cookie) = &somebody.by {
                    check_page(plane, &parts.method, &parts.headers, cookie)?;
                }
                Ok(Maybe(Some((**somebody).clone())))
            }
            Some(Known::Refused(refusal)) => Err(refusal.clone()),
            Some(Known::Nobody) | None => Ok(Maybe(None)),
        }
    }
}

impl FromRequestParts<Plane> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, plane: &Plane) -> Result<Self, Refusal> {
        let Maybe(somebody) = Maybe::from_request_parts(parts, plane).await?;
        let nobody = || Refusal::unauthorized("this needs a key (`Authorization: Bearer …`) or a session: sign in");
        somebody.map(Caller).ok_or_else(nobody)
    }
}
