//! Signing in, without passwords: by a passkey, by a wallet's signature, or by a node's or operator's key.
//!
//! Each begins with a challenge that counts once (`Clients::take_challenge`); the key's way is a request signed as
//! `X-Infernet-Auth`, whose nonce counts once. A browser gets a session, a program a key.

use super::{
    body::{self, Json as Body},
    caller::{By, Caller, Maybe},
    clients::{ClientView, KeyView, NewKey},
    error::{ErrorBody, Refusal},
    limits::{self, From as Sender, Turns, host_of},
};
use crate::{
    accounts::{
        self, KeyWish, Proven, Scope,
        passkey::{self, Kept, PasskeyError, Place},
        session,
        wallet::{self, Address, Chain},
    },
    state::Plane,
    store::{ClientId, Identity, Pubkey},
};
use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use infernet_node::{clock, date::DAY_MS};
use infernet_wire::{http_auth, time::UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// The time in which a passkey must have been used.
const PASSKEY_MS: u64 = 5 * 60_000;
/// How long a nonce of a signed request is remembered: twice the window in which it could be used.
const NONCE_MS: u64 = 2 * http_auth::WINDOW_SECONDS * 1_000;
/// The longest nonce.
const MAX_NONCE: usize = 128;
/// How long a program's key from a signed request is good: 90 days.
const KEY_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// The routes.
pub fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/v1/auth/wallet/start", post(wallet_start))
        .route("/api/v1/auth/wallet/finish", post(wallet_finish))
        .route("/api/v1/auth/passkey/register/start", post(register_start))
        .route("/api/v1/auth/passkey/register/finish", post(register_finish))
        .route("/api/v1/auth/passkey/start", post(passkey_start))
        .route("/api/v1/auth/passkey/finish", post(passkey_finish))
        .route("/api/v1/auth/key", post(by_key))
        .route("/api/v1/auth/session", post(by_own_key))
        .route("/api/v1/auth/logout", post(logout))
}

/// A wallet that wants to sign in.
#[derive(Deserialize, ToSchema)]
pub struct WalletStart {
    /// `evm` or `solana`.
    pub chain: Chain,
    /// Its address.
    pub address: String,
}

/// What it is to sign.
#[derive(Serialize, ToSchema)]
pub struct WalletChallenge {
    /// To be given back.
    pub id: String,
    /// To be signed as it is.
    pub message: String,
}

/// What it signed.
#[derive(Deserialize, ToSchema)]
pub struct WalletFinish {
    /// Of the challenge.
    pub id: String,
    /// The signature: hexadecimal, or base58 on Solana.
    pub signature: String,
}

/// What is kept of a wallet's challenge.
#[derive(Serialize, Deserialize)]
struct WalletKept {
    chain: Chain,
    address: Address,
    message: String,
}

/// What a browser's passkey API is given.
#[derive(Serialize, ToSchema)]
pub struct PasskeyChallenge {
    /// To be given back.
    pub id: String,
    /// `publicKey` of `navigator.credentials`, with binary values in base64url.
    #[schema(value_type = Object)]
    pub options: Value,
}

/// What a browser's passkey API gave, with binary values in base64url.
#[derive(Deserialize, ToSchema)]
pub struct PasskeyFinish {
    /// Of the challenge.
    pub id: String,
    /// What to call it.
    #[serde(default)]
    pub name: String,
    /// The credential.
    pub credential: Credential,
}

/// A credential.
#[derive(Deserialize, ToSchema)]
pub struct Credential {
    /// Its id.
    pub id: String,
    /// What the device said.
    pub response: DeviceSaid,
}

/// What a device said.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSaid {
    /// `clientDataJSON`.
    #[serde(rename = "clientDataJSON")]
    pub client_data: String,
    /// `authenticatorData`, or `getAuthenticatorData()`.
    pub authenticator_data: String,
    /// `getPublicKey()`, of a new passkey.
    #[serde(default)]
    pub public_key: Option<String>,
    /// The signature, of one that signs in.
    #[serde(default)]
    pub signature: Option<String>,
}

/// Somebody who has signed in.
#[derive(Serialize, ToSchema)]
pub struct SignedIn {
    /// Who.
    pub client: ClientView,
}

/// What a node or operator signs to get a key.
#[derive(Deserialize, ToSchema)]
pub struct KeyLogin {
    /// This plane's origin: so that the request is of no use elsewhere.
    pub aud: String,
    /// `node` or `operator`.
    pub r#as: String,
    /// What to call the key.
    #[serde(default)]
    pub name: String,
}

/// What signed requests are answered with.
#[derive(Serialize, ToSchema)]
pub struct KeyData {
    /// It.
    pub data: KeyLoggedIn,
}

/// A key for who signed.
#[derive(Serialize, ToSchema)]
pub struct KeyLoggedIn {
    /// Who.
    pub client: ClientView,
    /// A key that may do all, for 90 days.
    pub key: NewKey,
}

type TurnsOf = Extension<Arc<Turns>>;

fn fresh() -> String {
    hex::encode(clock::random::<16>())
}

async fn take<T: for<'de> Deserialize<'de>>(plane: &Plane, kind: &str, id: &str) -> Result<T, Refusal> {
    let over = || Refusal::unauthorized("this sign-in is over, or was used: begin again");
    if id.len() > MAX_NONCE {
        return Err(over());
    }
    let kept = plane.store.take_challenge(&format!("{kind}:{id}"), clock::now()).await?.ok_or_else(over)?;
    serde_json::from_str(&kept).map_err(|_| over())
}

async fn put(plane: &Plane, kind: &str, id: &str, kept: &impl Serialize, life_ms: u64) -> Result<(), Refusal> {
    let kept = serde_json::to_string(kept).unwrap_or_default();
    Ok(plane.store.put_challenge(&format!("{kind}:{id}"), &kept, clock::now().after(life_ms)).await?)
}

/// A session for `client`, in a cookie.
async fn signed_in(plane: &Plane, client: crate::store::ClientRow) -> Result<Response, Refusal> {
    signed_in_until(plane, clock::now().after(session::LIFE_MS), client).await
}

async fn signed_in_until(plane: &Plane, until: UnixMillis, client: crate::store::ClientRow) -> Result<Response, Refusal> {
    let (text, row) = session::new(&client.id, until);
    plane.store.put_session(&row).await?;
    let cookie = session::set_cookie(&plane.config.origin, Some(&text));
    let client = ClientView { csrf_token: Some(session::csrf(&text)), ..ClientView::from(client) };
    Ok(([(header::SET_COOKIE, cookie)], Json(SignedIn { client })).into_response())
}

/// Somebody with a session or a key that may do all, to whom a new identity is added; `None` for whoever is nobody yet.
fn adds_to(somebody: Maybe) -> Result<Option<ClientId>, Refusal> {
    let Some(caller) = somebody.0.map(Caller) else { return Ok(None) };
    caller.needs_all()?;
    Ok(Some(caller.client().clone()))
}

/// Begin to sign in by a wallet.
#[utoipa::path(post, path = "/api/v1/auth/wallet/start", tag = "signing in", request_body = WalletStart,
    responses((status = 200, body = WalletChallenge), (status = 400, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn wallet_start(
    State(plane): State<Plane>,
    Extension(from): Extension<Sender>,
    Extension(turns): TurnsOf,
    Body(asked): Body<WalletStart>,
) -> Result<Json<WalletChallenge>, Refusal> {
    limits::sign_in_turn(&plane, &turns, from)?;
    let none = || Refusal::bad("address is no address of that chain");
    let address = Address::parse(asked.chain, &asked.address).ok_or_else(none)?;
    let (id, nonce) = (fresh(), fresh());
    let message = wallet::message(&plane.config.origin, asked.chain, &address, &nonce, clock::now());
    let kept = WalletKept { chain: asked.chain, address, message: message.clone() };
    put(&plane, "wallet", &id, &kept, wallet::LIFE_MS).await?;
    Ok(Json(WalletChallenge { id, message }))
}

/// Sign in by a wallet's signature; a session comes as a cookie.
#[utoipa::path(post, path = "/api/v1/auth/wallet/finish", tag = "signing in", request_body = WalletFinish,
    responses((status = 400, body = ErrorBody), (status = 200, body = SignedIn), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn wallet_finish(
    State(plane): State<Plane>,
    somebody: Maybe,
    Body(asked): Body<WalletFinish>,
) -> Result<Response, Refusal> {
    let owner = adds_to(somebody)?;
    let kept: WalletKept = take(&plane, "wallet", &asked.id).await?;
    if !kept.address.signed(&kept.message, &asked.signature) {
        return Err(Refusal::unauthorized("the signature is not that wallet's of this message"));
    }
    let proven =
        Proven { kind: kept.chain.name(), subject: kept.address.subject(), data: String::new(), label: kept.address.shown() };
    let client = accounts::sign_in(&*plane.store, &plane.config.http, proven, owner.as_ref()).await?;
    signed_in(&plane, client).await
}

fn host(plane: &Plane) -> &str {
    host_of(&plane.config.origin).unwrap_or_default()
}

fn refused(error: PasskeyError) -> Refusal {
    match error {
        PasskeyError::Malformed | PasskeyError::Algorithm => Refusal::bad(error.to_string()),
        _ => Refusal::unauthorized(error.to_string()),
    }
}

/// Begin to make a passkey; for somebody who has signed in, one more.
#[utoipa::path(post, path = "/api/v1/auth/passkey/register/start", tag = "signing in",
    responses((status = 200, body = PasskeyChallenge), (status = 429, body = ErrorBody)))]
async fn register_start(
    State(plane): State<Plane>,
    somebody: Maybe,
    Extension(from): Extension<Sender>,
    Extension(turns): TurnsOf,
) -> Result<Json<PasskeyChallenge>, Refusal> {
    limits::sign_in_turn(&plane, &turns, from)?;
    let (id, challenge) = (fresh(), passkey::encode(&clock::random::<32>()));
    let name = somebody.0.as_ref().map_or("infernet", |somebody| somebody.client.name.as_str());
    let params: Vec<Value> = passkey::ALGORITHMS.iter().map(|alg| json!({ "type": "public-key", "alg": alg })).collect();
    let options = json!({
        "challenge": challenge, "attestation": "none", "timeout": PASSKEY_MS, "pubKeyCredParams": params,
        "rp": { "id": host(&plane), "name": "infernet" },
        "user": { "id": passkey::encode(&clock::random::<16>()), "name": name, "displayName": name },
        "authenticatorSelection": { "residentKey": "required", "userVerification": "required" },
    });
    put(&plane, "passkey-new", &id, &challenge, PASSKEY_MS).await?;
    Ok(Json(PasskeyChallenge { id, options }))
}

/// Make a passkey, and sign in by it.
#[utoipa::path(post, path = "/api/v1/auth/passkey/register/finish", tag = "signing in", request_body = PasskeyFinish,
    responses((status = 200, body = SignedIn), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn register_finish(
    State(plane): State<Plane>,
    somebody: Maybe,
    Body(asked): Body<PasskeyFinish>,
) -> Result<Response, Refusal> {
    let owner = adds_to(somebody)?;
    let challenge: String = take(&plane, "passkey-new", &asked.id).await?;
    let place = Place { origin: &plane.config.origin, host: host(&plane), challenge: &challenge };
    let said = &asked.credential.response;
    let (client_data, data) = (decode(&said.client_data)?, decode(&said.authenticator_data)?);
    let info = said.public_key.as_deref().ok_or_else(|| Refusal::bad("credential.response.publicKey is missing"))?;
    let kept = passkey::register(place, &client_data, &data, &decode(info)?).map_err(refused)?;
    let subject = passkey::subject(&decode(&asked.credential.id)?).map_err(refused)?;
    // A passkey is new: one that is there is somebody's, and a registration proves nothing about it.
    if plane.store.identity("passkey", &subject).await?.is_some() {
        return Err(Refusal::conflict("this passkey is known here: sign in by it"));
    }
    let data = serde_json::to_string(&kept).unwrap_or_default();
    let proven = Proven { kind: "passkey", subject, data, label: asked.name };
    let client = accounts::sign_in(&*plane.store, &plane.config.http, proven, owner.as_ref()).await?;
    signed_in(&plane, client).await
}

fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    passkey::decode(text).map_err(refused)
}

/// Begin to sign in by a passkey.
#[utoipa::path(post, path = "/api/v1/auth/passkey/start", tag = "signing in",
    responses((status = 200, body = PasskeyChallenge), (status = 429, body = ErrorBody)))]
async fn passkey_start(
    State(plane): State<Plane>,
    Extension(from): Extension<Sender>,
    Extension(turns): TurnsOf,
) -> Result<Json<PasskeyChallenge>, Refusal> {
    limits::sign_in_turn(&plane, &turns, from)?;
    let (id, challenge) = (fresh(), passkey::encode(&clock::random::<32>()));
    let options = json!({
        "challenge": challenge, "rpId": host(&plane), "userVerification": "required", "timeout": PASSKEY_MS, "allowCredentials": [],
    });
    put(&plane, "passkey", &id, &challenge, PASSKEY_MS).await?;
    Ok(Json(PasskeyChallenge { id, options }))
}

/// Sign in by a passkey; a session comes as a cookie.
#[utoipa::path(post, path = "/api/v1/auth/passkey/finish", tag = "signing in", request_body = PasskeyFinish,
    responses((status = 200, body = SignedIn), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
async fn passkey_finish(State(plane): State<Plane>, Body(asked): Body<PasskeyFinish>) -> Result<Response, Refusal> {
    let challenge: String = take(&plane, "passkey", &asked.id).await?;
    let place = Place { origin: &plane.config.origin, host: host(&plane), challenge: &challenge };
    let unknown = || Refusal::unauthorized("this passkey is not known here: make one first");
    let subject = passkey::subject(&decode(&asked.credential.id)?).map_err(refused)?;
    let identity = plane.store.identity("passkey", &subject).await?.ok_or_else(unknown)?;
    let kept: Kept = serde_json::from_str(&identity.data).map_err(|_| unknown())?;
    let said = &asked.credential.response;
    let (client_data, data) = (decode(&said.client_data)?, decode(&said.authenticator_data)?);
    let signature = said.signature.as_deref().ok_or_else(|| Refusal::bad("credential.response.signature is missing"))?;
    let used = passkey::verify(place, &kept, &client_data, &data, &decode(signature)?).map_err(refused)?;
    if used != kept {
        let data = serde_json::to_string(&used).unwrap_or_default();
        plane.store.update_identity(&Identity { data, ..identity.clone() }).await?;
    }
    let client = plane.store.client(&identity.client).await?.ok_or_else(unknown)?;
    signed_in(&plane, client).await
}

/// Get a key by a request that a node's or operator's key has signed as `X-Infernet-Auth`.
#[utoipa::path(post, path = "/api/v1/auth/key", tag = "signing in", request_body = KeyLogin,
    params(("X-Infernet-Auth" = String, Header, description = "The signature")),
    responses((status = 201, body = KeyData), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn by_key(
    State(plane): State<Plane>,
    Extension(from): Extension<Sender>,
    Extension(turns): TurnsOf,
    request: Request,
) -> Result<Response, Refusal> {
    limits::sign_in_turn(&plane, &turns, from)?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, body::SMALL).await?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let signed = http_auth::Request { method: parts.method.as_str(), path, body: &bytes };
    let header = parts.headers.get(http_auth::HEADER).and_then(|value| value.to_str().ok());
    let now = clock::now();
    let by = http_auth::verify(header, signed, now.0 / 1_000).map_err(|error| Refusal::unauthorized(error.to_string()))?;
    let asked: KeyLogin = body::parse(&bytes)?;
    if asked.aud.trim_end_matches('/') != plane.config.origin {
        return Err(Refusal::unauthorized("aud must be this plane's origin: the request was signed for another"));
    }
    let kind = match asked.r#as.as_str() {
        "node" => "node",
        "operator" => "operator",
        _ => return Err(Refusal::bad("as must be node or operator")),
    };
    let fresh = by.nonce.len() <= MAX_NONCE && plane.store.use_nonce(Pubkey(by.pubkey), &by.nonce, now.after(NONCE_MS)).await?;
    if !fresh {
        return Err(Refusal::unauthorized("nonce already used"));
    }
    let subject = hex::encode(by.pubkey);
    let label = if asked.name.is_empty() { format!("{kind} {}", subject.get(..8).unwrap_or_default()) } else { asked.name };
    let proven = Proven { kind, subject, data: String::new(), label: label.clone() };
    let client = accounts::sign_in(&*plane.store, &plane.config.http, proven, None).await?;
    let scopes = Scope::ALL.map(|scope| scope.name().to_owned()).to_vec();
    let wish = KeyWish { name: label, scopes, expires: Some(now.after(KEY_MS)), ..KeyWish::default() };
    let (text, row) = accounts::new_key(&*plane.store, &client.id, wish).await?;
    let key = NewKey { key: text.to_string(), about: KeyView::from(row) };
    Ok((StatusCode::CREATED, Json(KeyData { data: KeyLoggedIn { client: ClientView::from(client), key } })).into_response())
}

/// Sign a browser in by a key that may do all. The session ends after a day: the key may be revoked meanwhile.
#[utoipa::path(post, path = "/api/v1/auth/session", tag = "signing in",
    responses((status = 200, body = SignedIn), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
async fn by_own_key(State(plane): State<Plane>, caller: Caller) -> Result<Response, Refusal> {
    let Some(key) = caller.key() else { return Err(Refusal::conflict("you are signed in")) };
    caller.needs_all()?;
    // How long a session by a key lasts.
    let day = clock::now().after(DAY_MS);
    signed_in_until(&plane, key.expires.map_or(day, |expires| expires.min(day)), caller.0.client.clone()).await
}

/// Sign out: the session ends, or the key that is shown is revoked.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "signing in",
    responses((status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
async fn logout(State(plane): State<Plane>, caller: Caller) -> Result<Response, Refusal> {
    match caller.0.by {
        By::Session(row, _) => plane.store.end_session(row.hash).await?,
        By::Key(row) => plane.store.put_key(&crate::store::KeyRow { revoked: Some(clock::now()), ..row }).await?,
    }
    let cookie = session::set_cookie(&plane.config.origin, None);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
