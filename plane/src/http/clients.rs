//! What a client may see and change of its own: keys, balance, entries, identities. And what who runs the plane may do: make
//! clients, give them money.

use super::{
    body::Json as Body,
    caller::{By, Caller},
    error::{ErrorBody, Refusal},
    jobs,
};
use crate::{
    accounts::{self, KeyWish, Scope, wallet::iso},
    state::Plane,
    store::{ClientId, ClientRow, Entry, EntryKind, Identity, KeyRow},
};
use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use infernet_node::clock;
use infernet_wire::money::MicroUsd;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Entries of a page.
const PAGE: usize = 50;

/// The routes.
pub fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/v1/me", get(me))
        .route("/api/v1/me/entries", get(entries))
        .route("/api/v1/me/identities", get(identities))
        .route("/api/v1/keys", get(keys).post(make_key))
        .route("/api/v1/keys/{prefix}", delete(revoke))
        .route("/api/v1/admin/clients", post(make_client))
        .route("/api/v1/admin/clients/{id}", get(show_client))
        .route("/api/v1/admin/grants", post(give))
}

/// A client.
#[derive(Serialize, ToSchema)]
pub struct ClientView {
    /// Its name.
    pub id: String,
    /// For people.
    pub name: String,
    /// When it came, RFC 3339.
    pub created_at: String,
    /// What it has, in micro-USD.
    pub balance_micro_usd: u64,
    /// What of it running jobs have reserved.
    pub reserved_micro_usd: u64,
    /// What is left.
    pub available_micro_usd: u64,
    /// Whether it runs the plane.
    pub admin: bool,
    /// For a session: what its pages show as `X-CSRF-Token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csrf_token: Option<String>,
}

impl From<ClientRow> for ClientView {
    fn from(row: ClientRow) -> Self {
        ClientView {
            id: row.id.0,
            name: row.name,
            created_at: iso(row.created),
            balance_micro_usd: row.balance.0,
            reserved_micro_usd: row.reserved.0,
            available_micro_usd: row.balance.0.saturating_sub(row.reserved.0),
            admin: row.admin,
            csrf_token: None,
        }
    }
}

/// A key, without its text.
#[derive(Serialize, ToSchema)]
pub struct KeyView {
    /// Its first characters, by which it is spoken of.
    pub prefix: String,
    /// What it is called.
    pub name: String,
    /// `jobs`, `read`, `manage`.
    pub scopes: Vec<String>,
    /// The most that it may spend a day, in micro-USD.
    pub per_day_micro_usd: Option<u64>,
    /// Requests a minute.
    pub per_minute: u32,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// When it is no longer good.
    pub expires_at: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<String>,
}

impl From<KeyRow> for KeyView {
    fn from(row: KeyRow) -> Self {
        KeyView {
            prefix: row.prefix,
            name: row.name,
            scopes: row.scopes,
            per_day_micro_usd: row.per_day.map(|cap| cap.0),
            per_minute: row.per_minute,
            created_at: iso(row.created),
            expires_at: row.expires.map(iso),
            revoked_at: row.revoked.map(iso),
        }
    }
}

/// What a new key is to be.
#[derive(Deserialize, ToSchema)]
pub struct KeyRequest {
    /// What to call it.
    #[serde(default)]
    pub name: String,
    /// `jobs` unless said.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The most that it may spend a day, in micro-USD.
    #[serde(default)]
    pub per_day_micro_usd: Option<u64>,
    /// Requests a minute.
    #[serde(default)]
    pub per_minute: Option<u32>,
    /// Seconds until it is no longer good.
    #[serde(default)]
    pub expires_in: Option<u64>,
}

/// A new key. Its text is shown now and never again.
#[derive(Serialize, ToSchema)]
pub struct NewKey {
    /// The key itself: keep it.
    pub key: String,
    /// What it is.
    #[serde(flatten)]
    pub about: KeyView,
}

/// All keys.
#[derive(Serialize, ToSchema)]
pub struct KeyList {
    /// The newest first.
    pub keys: Vec<KeyView>,
}

/// Why a balance changed.
#[derive(Serialize, ToSchema)]
pub struct EntryView {
    /// Grows with each.
    pub number: u64,
    /// `grant`, `deposit`, `job` or `withdrawal`.
    #[schema(value_type = String)]
    pub kind: EntryKind,
    /// By how much, in micro-USD.
    pub amount_micro_usd: i64,
    /// For what.
    pub reference: String,
    /// When, RFC 3339.
    pub at: String,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        EntryView {
            number: entry.number,
            kind: entry.kind,
            amount_micro_usd: entry.amount,
            reference: entry.reference,
            at: iso(entry.at),
        }
    }
}

/// A page of entries.
#[derive(Serialize, ToSchema)]
pub struct EntryList {
    /// The newest first.
    pub entries: Vec<EntryView>,
    /// What `before` is for the next page.
    pub next: Option<u64>,
}

/// By what a client signs in.
#[derive(Serialize, ToSchema)]
pub struct IdentityView {
    /// `passkey`, `evm`, `solana`, `node` or `operator`.
    pub kind: String,
    /// Its public half, or a passkey's id, in hexadecimal.
    pub subject: String,
    /// What it is called.
    pub label: String,
    /// When it was added, RFC 3339.
    pub added_at: String,
}

/// All of them.
#[derive(Serialize, ToSchema)]
pub struct IdentityList {
    /// Each.
    pub identities: Vec<IdentityView>,
}

impl From<Identity> for IdentityView {
    fn from(identity: Identity) -> Self {
        let added_at = iso(identity.added);
        IdentityView { kind: identity.kind, subject: identity.subject, label: identity.label, added_at }
    }
}

/// Who am I, and what is left?
#[utoipa::path(get, path = "/api/v1/me", tag = "clients",
    responses((status = 200, body = ClientView), (status = 401, body = ErrorBody)))]
async fn me(caller: Caller) -> Json<ClientView> {
    let csrf_token = match &caller.0.by {
        By::Session(_, cookie) => Some(accounts::session::csrf(cookie)),
        By::Key(_) => None,
    };
    Json(ClientView { csrf_token, ..ClientView::from(caller.0.client) })
}

/// What has changed my balance, the newest first.
#[utoipa::path(get, path = "/api/v1/me/entries", tag = "clients",
    params(("before" = Option<u64>, Query, description = "The `next` of the page before")),
    responses((status = 400, body = ErrorBody), (status = 200, body = EntryList), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn entries(State(plane): State<Plane>, caller: Caller, RawQuery(query): RawQuery) -> Result<Json<EntryList>, Refusal> {
    caller.needs(Scope::Manage)?;
    let query = query.unwrap_or_default();
    let before = jobs::pairs(&query).find(|(name, _)| *name == "before").map(|(_, value)| value.parse());
    let before = before.transpose().map_err(|_| Refusal::bad("before must be the `next` of the page before"))?;
    let rows = plane.store.entries(caller.client(), before, PAGE).await?;
    let next = rows.last().filter(|_| rows.len() == PAGE).map(|entry| entry.number);
    Ok(Json(EntryList { entries: rows.into_iter().map(EntryView::from).collect(), next }))
}

/// By what I sign in.
#[utoipa::path(get, path = "/api/v1/me/identities", tag = "clients",
    responses((status = 200, body = IdentityList), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn identities(State(plane): State<Plane>, caller: Caller) -> Result<Json<IdentityList>, Refusal> {
    caller.needs(Scope::Manage)?;
    let rows = plane.store.identities(caller.client()).await?;
    Ok(Json(IdentityList { identities: rows.into_iter().map(IdentityView::from).collect() }))
}

/// My keys.
#[utoipa::path(get, path = "/api/v1/keys", tag = "clients",
    responses((status = 200, body = KeyList), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn keys(State(plane): State<Plane>, caller: Caller) -> Result<Json<KeyList>, Refusal> {
    caller.needs(Scope::Manage)?;
    let rows = plane.store.keys(caller.client()).await?;
    Ok(Json(KeyList { keys: rows.into_iter().map(KeyView::from).collect() }))
}

/// Make a key. Its text is shown now and never again.
#[utoipa::path(post, path = "/api/v1/keys", tag = "clients", request_body = KeyRequest,
    responses((status = 201, body = NewKey), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn make_key(
    State(plane): State<Plane>,
    caller: Caller,
    Body(asked): Body<KeyRequest>,
) -> Result<(StatusCode, Json<NewKey>), Refusal> {
    caller.needs(Scope::Manage)?;
    // A key may not make a key that may more, or spends more, than it may itself.
    let wish = KeyWish {
        name: asked.name,
        scopes: asked.scopes,
        per_day: asked.per_day_micro_usd.map(MicroUsd),
        per_minute: asked.per_minute,
        expires: asked.expires_in.map(|seconds| clock::now().after(seconds.saturating_mul(1_000))),
    };
    let wish = match caller.key() {
        Some(key) => within(key, wish)?,
        None => wish,
    };
    let (text, row) = accounts::new_key(&*plane.store, caller.client(), wish).await?;
    Ok((StatusCode::CREATED, Json(NewKey { key: text.to_string(), about: KeyView::from(row) })))
}

/// The wish for a key that another makes: what it does not say is as that one is.
fn within(key: &KeyRow, wish: KeyWish) -> Result<KeyWish, Refusal> {
    let named = |name: &str| Scope::ALL.into_iter().find(|scope| scope.name() == name);
    let beyond = wish.scopes.iter().any(|name| named(name).is_some_and(|scope| !scope.is_in(&key.scopes)));
    let default = wish.scopes.is_empty() && !Scope::Jobs.is_in(&key.scopes);
    let wish = KeyWish {
        per_day: wish.per_day.or(key.per_day),
        per_minute: wish.per_minute.or(Some(key.per_minute)),
        expires: wish.expires.or(key.expires),
        ..wish
    };
    let dearer = key.per_day.is_some_and(|cap| wish.per_day.is_some_and(|wanted| wanted > cap));
    let faster = wish.per_minute.is_some_and(|wanted| wanted > key.per_minute);
    let longer = key.expires.is_some_and(|end| wish.expires.is_some_and(|wanted| wanted > end));
    if beyond || default || dearer || faster || longer {
        return Err(Refusal::forbidden("forbidden", "a key can't make one that may more than itself: sign in for that"));
    }
    Ok(wish)
}

/// Revoke a key, from this moment on.
#[utoipa::path(delete, path = "/api/v1/keys/{prefix}", tag = "clients",
    params(("prefix" = String, Path, description = "The key's first characters, as the list shows them")),
    responses((status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn revoke(State(plane): State<Plane>, caller: Caller, Path(prefix): Path<String>) -> Result<StatusCode, Refusal> {
    caller.needs(Scope::Manage)?;
    let rows = plane.store.keys(caller.client()).await?;
    let row = rows.into_iter().find(|row| row.prefix == prefix && row.revoked.is_none());
    let row = row.ok_or_else(|| Refusal::not_found("key"))?;
    plane.store.put_key(&KeyRow { revoked: Some(clock::now()), ..row }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A client that who runs the plane makes for somebody.
#[derive(Deserialize, ToSchema)]
pub struct ClientRequest {
    /// What to call it.
    #[serde(default)]
    pub name: String,
}

/// A new client, with a key that may do all.
#[derive(Serialize, ToSchema)]
pub struct NewClient {
    /// The client.
    pub client: ClientView,
    /// Its first key.
    pub key: NewKey,
}

/// Money for a client.
#[derive(Deserialize, ToSchema)]
pub struct GrantRequest {
    /// Whose.
    pub client: String,
    /// How much, in micro-USD.
    pub amount_micro_usd: u64,
    /// For what; the same reference counts once.
    pub reference: String,
}

/// What became of a grant.
#[derive(Serialize, ToSchema)]
pub struct Granted {
    /// Whether it is new, and not the same as one before.
    pub new: bool,
    /// The client, afterwards.
    pub client: ClientView,
}

/// Make a client, with a key. For who runs the plane.
#[utoipa::path(post, path = "/api/v1/admin/clients", tag = "admin", request_body = ClientRequest,
    responses((status = 400, body = ErrorBody), (status = 201, body = NewClient), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn make_client(
    State(plane): State<Plane>,
    caller: Caller,
    Body(asked): Body<ClientRequest>,
) -> Result<(StatusCode, Json<NewClient>), Refusal> {
    caller.needs_admin()?;
    let row = accounts::new_client(&*plane.store, &asked.name, false).await?;
    let scopes = Scope::ALL.map(|scope| scope.name().to_owned()).to_vec();
    let wish = KeyWish { name: "first".into(), scopes, ..KeyWish::default() };
    let (text, key) = accounts::new_key(&*plane.store, &row.id, wish).await?;
    let key = NewKey { key: text.to_string(), about: KeyView::from(key) };
    Ok((StatusCode::CREATED, Json(NewClient { client: ClientView::from(row), key })))
}

/// A client, for who runs the plane.
#[utoipa::path(get, path = "/api/v1/admin/clients/{id}", tag = "admin", params(("id" = String, Path, description = "Its name")),
    responses((status = 200, body = ClientView), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)))]
async fn show_client(State(plane): State<Plane>, caller: Caller, Path(id): Path<String>) -> Result<Json<ClientView>, Refusal> {
    caller.needs_admin()?;
    let row = plane.store.client(&ClientId(id)).await?.ok_or_else(|| Refusal::not_found("client"))?;
    Ok(Json(ClientView::from(row)))
}

/// Give a client money. For who runs the plane.
#[utoipa::path(post, path = "/api/v1/admin/grants", tag = "admin", request_body = GrantRequest,
    responses((status = 200, body = Granted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn give(State(plane): State<Plane>, caller: Caller, Body(asked): Body<GrantRequest>) -> Result<Json<Granted>, Refusal> {
    caller.needs_admin()?;
    let id = ClientId(asked.client);
    if id.0 == accounts::ANONYMOUS {
        accounts::ensure_anonymous(&*plane.store).await?;
    }
    let new = accounts::grant(&*plane.store, &id, MicroUsd(asked.amount_micro_usd), &asked.reference).await?;
    let row = plane.store.client(&id).await?.ok_or_else(|| Refusal::not_found("client"))?;
    Ok(Json(Granted { new, client: ClientView::from(row) }))
}
