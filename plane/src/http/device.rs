//! A terminal signs in by a browser: it starts, shows an address, and polls; somebody who has signed in there approves; the
//! next poll gets a key, once.
//!
//! Of two polls at once one gets the key: what the approval left is taken in one step. Who approves sees which code, and for
//! what; a page that only links there approves nothing.

use super::{
    caller::{self, By, Caller, Known, Somebody},
    dashboard,
    error::{Existing, Refusal},
    limits::{self, From as Sender, Turns},
};
use crate::{
    accounts::{self, KeyWish, Scope, session, wallet::iso},
    state::Plane,
    store::ClientId,
};
use axum::{
    Extension, Json, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use infernet_node::clock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// How long a code is good.
const LIFE_MS: u64 = 10 * 60_000;
/// How long the key is good: 90 days.
const KEY_MS: u64 = 90 * 24 * 60 * 60 * 1_000;
/// Characters of a code: 16 random bytes in base64url.
const CODE: usize = 22;
/// The largest form.
const FORM: usize = 4 * 1024;

/// The routes.
pub fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/auth/cli/start", post(start))
        .route("/api/auth/cli/poll/{code}", get(poll))
        .route("/api/auth/cli/approve", post(approve))
        .route("/auth/cli/{code}", get(page).post(approve_form))
}

/// A code, and where to go with it.
#[derive(Serialize, ToSchema)]
pub struct Started {
    /// The code.
    pub code: String,
    /// Where somebody approves it.
    pub verify_url: String,
    /// Where the terminal asks whether somebody has.
    pub poll_url: String,
    /// When it is over, RFC 3339.
    pub expires_at: String,
}

/// A code that somebody approves.
#[derive(Deserialize, ToSchema)]
pub struct Approval {
    /// The code.
    pub code: String,
}

/// A code's state is kept as a challenge that is looked at and not taken.
fn mark(state: &str, code: &str) -> String {
    format!("device-{state}:{code}")
}

async fn put_mark(plane: &Plane, state: &str, code: &str) -> Result<(), Refusal> {
    Ok(plane.store.put_challenge(&mark(state, code), "", clock::now().after(LIFE_MS)).await?)
}

async fn is_marked(plane: &Plane, state: &str, code: &str) -> Result<bool, Refusal> {
    Ok(plane.store.challenge(&mark(state, code), clock::now()).await?.is_some())
}

fn is_code(code: &str) -> bool {
    code.len() == CODE && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Begin to sign in a terminal.
#[utoipa::path(post, path = "/api/auth/cli/start", tag = "signing in", responses((status = 200, body = Started), (status = 429)))]
async fn start(
    State(plane): State<Plane>,
    Extension(from): Extension<Sender>,
    Extension(turns): Extension<Arc<Turns>>,
) -> Result<Json<Started>, Existing> {
    limits::sign_in_turn(&plane, &turns, from)?;
    let (code, origin) = (accounts::passkey::encode(&clock::random::<16>()), &plane.config.origin);
    put_mark(&plane, "pending", &code).await?;
    Ok(Json(Started {
        verify_url: format!("{origin}/auth/cli/{code}"),
        poll_url: format!("{origin}/api/auth/cli/poll/{code}"),
        expires_at: iso(clock::now().after(LIFE_MS)),
        code,
    }))
}

/// Whether somebody has approved: `pending`, `authorized` with the key, once, `consumed` after that, or `not_found`.
#[utoipa::path(get, path = "/api/auth/cli/poll/{code}", tag = "signing in", params(("code" = String, Path, description = "The code")),
    responses((status = 200, body = Object), (status = 404, body = Object)))]
async fn poll(State(plane): State<Plane>, Path(code): Path<String>) -> Result<Response, Existing> {
    let said = |status: &str| json!({ "status": status });
    if !is_code(&code) {
        return Ok((StatusCode::NOT_FOUND, Json(said("not_found"))).into_response());
    }
    let now = clock::now();
    if let Some(client) = plane.store.take_challenge(&format!("device:{code}"), now).await? {
        put_mark(&plane, "consumed", &code).await?;
        plane.store.take_challenge(&mark("pending", &code), now).await?;
        return Ok(Json(authorized(&plane, ClientId(client)).await?).into_response());
    }
    let status = match () {
        () if is_marked(&plane, "consumed", &code).await? => "consumed",
        () if is_marked(&plane, "pending", &code).await? => "pending",
        () => return Ok((StatusCode::NOT_FOUND, Json(said("not_found"))).into_response()),
    };
    Ok(Json(said(status)).into_response())
}

async fn authorized(plane: &Plane, client: ClientId) -> Result<Value, Refusal> {
    let expires = clock::now().after(KEY_MS);
    let scopes = Scope::ALL.map(|scope| scope.name().to_owned()).to_vec();
    let wish = KeyWish { name: "terminal".into(), scopes, expires: Some(expires), ..KeyWish::default() };
    let (text, _) = accounts::new_key(&*plane.store, &client, wish).await?;
    Ok(json!({ "status": "authorized", "token": *text, "userId": client.0, "email": null, "expiresAt": iso(expires) }))
}

/// Approve a terminal's code: it becomes the caller.
#[utoipa::path(post, path = "/api/auth/cli/approve", tag = "signing in", request_body = Approval,
    responses((status = 400), (status = 204), (status = 401), (status = 403), (status = 404)))]
async fn approve(
    State(plane): State<Plane>,
    caller: Caller,
    super::body::Json(asked): super::body::Json<Approval>,
) -> Result<StatusCode, Existing> {
    // A key that may not manage would else make one that may.
    if caller.key().is_some() {
        return Err(
            Refusal::forbidden("forbidden", "a terminal is approved by somebody who has signed in, not by a key").into()
        );
    }
    approved(&plane, caller.client(), &asked.code).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn approved(plane: &Plane, client: &ClientId, code: &str) -> Result<(), Refusal> {
    if !is_code(code) || !is_marked(plane, "pending", code).await? || is_marked(plane, "consumed", code).await? {
        return Err(Refusal::not_found("code"));
    }
    Ok(plane.store.put_challenge(&format!("device:{code}"), &client.0, clock::now().after(LIFE_MS)).await?)
}

/// The page on which somebody approves. It needs no script.
async fn page(State(plane): State<Plane>, Path(code): Path<String>, known: Option<Extension<Known>>) -> Response {
    let (somebody, cookie) = session_of(known).unzip();
    let shown = |status, body| html(status, somebody.as_ref(), body);
    if !is_code(&code) || !is_marked(&plane, "pending", &code).await.unwrap_or(false) {
        let over = maud::html! { p { "This code is over, or was never given. Begin again in your terminal." } };
        return shown(StatusCode::NOT_FOUND, over);
    }
    match (&somebody, cookie) {
        (Some(somebody), Some(cookie)) => shown(
            StatusCode::OK,
            maud::html! {
                p { "A terminal that shows the code " b { (code) } " wants to sign in as you, " (somebody.client.name) "." }
                p { "Approve this only if you have just started it yourself." }
                form method="post" { input type="hidden" name="csrf" value=(session::csrf(&cookie)); button { "Approve" } }
            },
        ),
        _ => shown(
            StatusCode::UNAUTHORIZED,
            maud::html! {
                p { a href={ "/signin?next=/auth/cli/" (code) } { "Sign in" } " first." }
            },
        ),
    }
}

async fn approve_form(
    State(plane): State<Plane>,
    Path(code): Path<String>,
    known: Option<Extension<Known>>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let Some((somebody, cookie)) = session_of(known) else {
        return html(StatusCode::UNAUTHORIZED, None, maud::html! { p { a href="/signin" { "Sign in" } " first." } });
    };
    let bytes = super::body::read(&headers, request.into_body(), FORM).await.unwrap_or_default();
    let form = String::from_utf8_lossy(&bytes).into_owned();
    let token = super::jobs::pairs(&form).find(|(name, _)| *name == "csrf").map(|(_, value)| value).unwrap_or_default();
    let mut shown = headers;
    if let Ok(token) = token.parse() {
        shown.insert(caller::CSRF_HEADER, token);
    }
    let checked = caller::check_page(&plane, &Method::POST, &shown, &cookie);
    let done = match checked {
        Ok(()) => approved(&plane, &somebody.client.id, &code).await,
        Err(refusal) => Err(refusal),
    };
    let (status, text) = match done {
        Ok(()) => (StatusCode::OK, "Approved. You may close this page.".to_owned()),
        Err(refusal) => (refusal.status, refusal.message),
    };
    html(status, Some(&somebody), maud::html! { p { (text) } })
}

/// Who has signed in, and the cookie.
fn session_of(known: Option<Extension<Known>>) -> Option<(Somebody, String)> {
    let Extension(Known::Somebody(somebody)) = known? else { return None };
    match &somebody.by {
        By::Session(_, cookie) => Some(((*somebody).clone(), cookie.clone())),
        By::Key(_) => None,
    }
}

fn html(status: StatusCode, somebody: Option<&Somebody>, body: maud::Markup) -> Response {
    dashboard::html(status, dashboard::plain("A terminal signs in", somebody, body))
}
