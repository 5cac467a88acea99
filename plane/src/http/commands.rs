//! Operators and owners: give a node a command, see how far it is, take it back.
//!
//! A command is signed by an operator of the node, and the signature is all that it needs: whoever posts it may be anybody. To
//! read or cancel commands a request is signed (`X-Infernet-Auth`) by one of the node's operators or by the node itself, or
//! carries the bearer token of the client that linked the node's key. An owner's token alone commands only daemons that know no
//! signatures, as the existing dashboard does.

mod bearer;

use super::{
    body, jobs,
    node::{
        commands::told,
        reply::{Refusal, Reply, data, iso},
        specs,
    },
};
use crate::{
    auth::{self, Denied, MAX_BODY_BYTES, Signed},
    commands::{self, MAX_PENDING, Uncarried},
    presence,
    state::Plane,
    store::{ClientId, CommandRow, CommandStatus, Identity, NodeRow, Pubkey, Role, StoreError},
    uuid,
};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, RawQuery, Request, State},
    http::{StatusCode, request::Parts},
    routing::{delete, get, post},
};
use infernet_node::{clock, download::bytes};
use infernet_wire::{
    command::{MODEL_INSTALL, MODEL_REMOVE, Verb},
    hash,
    id::NodeId,
    time::UnixMillis,
};
use serde_json::{Map, Value, json};

/// The longest name that a client gives a linked key.
const MAX_LABEL: usize = 80;
/// How long an owner's command to a daemon waits for it: as long as the daemon may be silent and still get one.
const UNSIGNED_MS: u64 = 10 * 60_000;

/// The routes of operators and owners.
pub fn routes() -> Router<Plane> {
    Router::new()
        .route("/api/v1/user/nodes/{pubkey}/commands", post(give).get(list))
        .route("/api/v1/user/nodes/{pubkey}/commands/{id}", get(one).merge(delete(cancel)))
        .route("/api/v1/user/pubkey/link", post(link))
}

/// Who asks to see or cancel a node's commands.
enum Asking {
    /// Whoever holds a key that the node obeys, or the node's own.
    Key,
    /// The client that linked the node's key.
    Owner,
}
/// Give a node a command: signed by one of its operators, or, to a daemon that knows no signatures, by its owner.
#[utoipa::path(post, path = "/api/v1/user/nodes/{pubkey}/commands", tag = "operators", request_body = Object,
    params(("pubkey" = String, Path, description = "The node, by 64 hexadecimal digits or its id")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 404, body = Object), (status = 408, body = Object), (status = 409, body = Object), (status = 413, body = Object), (status = 422, body = Object)))]
async fn give(State(plane): State<Plane>, Path(pubkey): Path<String>, request: Request) -> Reply {
    let (parts, body) = read(request).await?;
    let node = node(&plane, &pubkey).await?;
    let body = object(&body)?;
    let now = clock::now();
    let (row, verb) = match body.get("signed").and_then(Value::as_str) {
        Some(text) => {
            let carried = commands::read(text, &node, &plane.config.network, now).map_err(refused)?;
            (carried.row, carried.verb)
        }
        None => unsigned(&plane, &parts, &node, &body, now).await?,
    };
    if let Some(known) = plane.store.command(&row.id).await? {
        return data(given(&known, now));
    }
    must_be_there(&plane, &node, now)?;
    if let Verb::ModelInstall(model) = &verb {
        has_room(&node, model)?;
    }
    let waiting = plane.store.commands(node.pubkey, 4 * MAX_PENDING).await?;
    if waiting.iter().filter(|row| commands::status(row, now) == CommandStatus::Pending).count() >= MAX_PENDING {
        let text = format!("{MAX_PENDING} commands wait for this node already; cancel one, or wait until it has asked");
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, text));
    }
    match plane.store.put_command(&row).await {
        // Somebody gave the same command at the same time.
        Err(StoreError::Refused(_)) if plane.store.command(&row.id).await?.is_some() => {}
        put => put?,
    }
    told(&plane, &row).await;
    data(given(&row, now))
}

fn given(row: &CommandRow, now: UnixMillis) -> Value {
    let (status, issued_at) = (commands::status(row, now), iso(row.issued));
    json!({ "id": row.id, "command": row.verb, "args": row.args, "status": status, "issued_at": issued_at })
}

fn refused(error: Uncarried) -> Refusal {
    let status = match error {
        Uncarried::Stranger(_) => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    Refusal::new(status, error.to_string())
}

/// `{command, args}` of the owner of a daemon that knows no signatures.
async fn unsigned(
    plane: &Plane,
    parts: &Parts,
    node: &NodeRow,
    body: &Map<String, Value>,
    now: UnixMillis,
) -> Result<(CommandRow, Verb), Refusal> {
    let client = bearer::client(plane, parts).await?;
    must_own(plane, &client, node.pubkey).await?;
    if node.names_audience {
        let text = "this node obeys signed commands only: `infernet command` signs one with an operator's key";
        return Err(Refusal::new(StatusCode::FORBIDDEN, text));
    }
    let verb = body.get("command").and_then(Value::as_str).unwrap_or_default();
    if ![MODEL_INSTALL, MODEL_REMOVE].contains(&verb) {
        return Err(Refusal::bad(format!("command must be one of: {MODEL_INSTALL}, {MODEL_REMOVE}")));
    }
    let model = body.get("args").and_then(|args| args.get("model")).and_then(Value::as_str).unwrap_or_default();
    let verb = Verb::parse(verb, model).map_err(|error| Refusal::bad(error.to_string()))?;
    Ok((commands::unsigned(node.pubkey, &verb, now, now.after(UNSIGNED_MS)), verb))
}

fn must_be_there(plane: &Plane, node: &NodeRow, now: UnixMillis) -> Result<(), Refusal> {
    if presence::is_online(node, plane.config.offline_ms, now) {
        return Ok(());
    }
    let ago = now.since(node.seen) / 1_000;
    let text = if node.available {
        format!("the node is offline: it was last heard {ago} s ago")
    } else {
        format!("the node is offline: it said {ago} s ago that it stops")
    };
    Err(Refusal::new(StatusCode::CONFLICT, text))
}

/// Refuses a model that the machine can't hold, as far as both are known.
fn has_room(node: &NodeRow, model: &str) -> Result<(), Refusal> {
    match commands::lacks(node, model) {
        Some(needs) => {
            let text = format!("{model} needs about {} of memory, more than this node has", bytes(needs));
            Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text))
        }
        None => Ok(()),
    }
}

/// The newest commands of a node.
#[utoipa::path(get, path = "/api/v1/user/nodes/{pubkey}/commands", tag = "operators",
    params(("pubkey" = String, Path, description = "The node, by 64 hexadecimal digits or its id"), ("X-Infernet-Auth" = Option<String>, Header, description = "A signature, unless a session or key shows who asks"), ("limit" = Option<usize>, Query, description = "20 unless said, at most 100")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 404, body = Object), (status = 408, body = Object), (status = 413, body = Object)))]
async fn list(State(plane): State<Plane>, Path(pubkey): Path<String>, RawQuery(query): RawQuery, request: Request) -> Reply {
    let query = query.unwrap_or_default();
    let limit = match jobs::pairs(&query).find(|(name, _)| *name == "limit") {
        Some((_, text)) => text.parse().map_err(|_| Refusal::bad("limit must be a whole number from 1 to 100"))?,
        None => 20usize,
    };
    let node = node(&plane, &pubkey).await?;
    asking(&plane, &node, request).await?;
    let rows = plane.store.commands(node.pubkey, limit.clamp(1, 100)).await?;
    let now = clock::now();
    data(rows.iter().map(|row| shown(row, now)).collect())
}
/// A command, and how far it is.
#[utoipa::path(get, path = "/api/v1/user/nodes/{pubkey}/commands/{id}", tag = "operators",
    params(("pubkey" = String, Path, description = "The node, by 64 hexadecimal digits or its id"), ("id" = String, Path, description = "Its id"), ("X-Infernet-Auth" = Option<String>, Header, description = "A signature, unless a session or key shows who asks")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 404, body = Object), (status = 408, body = Object), (status = 413, body = Object)))]
async fn one(State(plane): State<Plane>, Path((pubkey, id)): Path<(String, String)>, request: Request) -> Reply {
    let node = node(&plane, &pubkey).await?;
    asking(&plane, &node, request).await?;
    data(shown(&of(&plane, &node, &id).await?, clock::now()))
}

fn shown(row: &CommandRow, now: UnixMillis) -> Value {
    json!({
        "id": row.id,
        "command": row.verb,
        "args": row.args,
        "status": commands::status(row, now),
        "result": row.result,
        "error": row.error,
        "progress": row.progress,
        "operator": row.operator,
        "issued_at": iso(row.issued),
        "expires_at": iso(row.expires),
        "started_at": row.started.map(iso),
        "completed_at": row.ended.map(iso),
    })
}
/// Take a command back.
#[utoipa::path(delete, path = "/api/v1/user/nodes/{pubkey}/commands/{id}", tag = "operators",
    params(("pubkey" = String, Path, description = "The node, by 64 hexadecimal digits or its id"), ("id" = String, Path, description = "Its id"), ("X-Infernet-Auth" = Option<String>, Header, description = "A signature, unless a session or key shows who asks")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 404, body = Object), (status = 408, body = Object), (status = 413, body = Object)))]
async fn cancel(State(plane): State<Plane>, Path((pubkey, id)): Path<(String, String)>, request: Request) -> Reply {
    let node = node(&plane, &pubkey).await?;
    asking(&plane, &node, request).await?;
    let before = of(&plane, &node, &id).await?;
    let row = CommandRow { status: CommandStatus::Cancelled, lease: None, ended: Some(clock::now()), ..before };
    let cancelled = plane.store.update_command(&[CommandStatus::Pending, CommandStatus::Running], &row).await?;
    let row = if cancelled { row } else { of(&plane, &node, &id).await? };
    if cancelled {
        told(&plane, &row).await;
    }
    data(json!({ "id": row.id, "status": commands::status(&row, clock::now()), "cancelled": cancelled }))
}

async fn of(plane: &Plane, node: &NodeRow, id: &str) -> Result<CommandRow, Refusal> {
    let row = plane.store.command(id).await?.filter(|row| row.node == node.pubkey);
    row.ok_or_else(|| Refusal::unknown("command not found"))
}

/// Lets operators, the node itself and its owner pass.
async fn asking(plane: &Plane, node: &NodeRow, request: Request) -> Result<Asking, Refusal> {
    let (parts, body) = read(request).await?;
    let now = clock::now();
    if auth::is_signed(&parts) {
        let signed = auth::check(plane, &parts, &body, now).await?;
        if signed.pubkey == node.pubkey || commands::obeys(node, &even(signed.pubkey)) {
            return Ok(Asking::Key);
        }
        return Err(Refusal::new(StatusCode::FORBIDDEN, "this key is no operator of this node"));
    }
    let client = bearer::client(plane, &parts).await?;
    must_own(plane, &client, node.pubkey).await?;
    Ok(Asking::Owner)
}

/// The node id of an x-only key with an even y; the parity does not matter to whoever looks at x alone.
fn even(pubkey: Pubkey) -> NodeId {
    let mut bytes = [2; 33];
    bytes.iter_mut().skip(1).zip(pubkey.0).for_each(|(byte, from)| *byte = from);
    NodeId(bytes)
}

async fn must_own(plane: &Plane, client: &ClientId, pubkey: Pubkey) -> Result<(), Refusal> {
    let identity = plane.store.identity(KIND, &hex::encode(pubkey.0)).await?;
    if identity.is_some_and(|identity| identity.client == *client) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, "this node's key is not linked to your account"))
}

/// The kind of identity that a linked node's key is.
const KIND: &str = "node";

/// Link a node's key to the account of who asks: both sign.
///
/// Bearer and signature together: the account is told whose key it is by the key itself.
#[utoipa::path(post, path = "/api/v1/user/pubkey/link", tag = "operators", request_body = Object,
    params(("X-Infernet-Auth" = String, Header, description = "The signature of the request")),
    responses((status = 200, body = Object), (status = 400, body = Object), (status = 408, body = Object), (status = 409, body = Object), (status = 413, body = Object)))]
async fn link(State(plane): State<Plane>, request: Request) -> Reply {
    let (parts, body) = read(request).await?;
    let now = clock::now();
    let client = bearer::whole(&plane, &parts).await?;
    let signed = auth::check(&plane, &parts, &body, now).await?;
    let role = super::node::role(&signed.body)?;
    let label = super::node::text(&signed.body, "label", MAX_LABEL).unwrap_or_default();
    let identity = identity(&signed, role, client.clone(), label, now);
    let known = plane.store.identity(KIND, &identity.subject).await?;
    if plane.store.put_identity(&identity).await? != client {
        return Err(Refusal::new(StatusCode::CONFLICT, "this pubkey is linked to another account"));
    }
    let id = uuid::of_digest(&hash::sha256(format!("{}/{role:?}", identity.subject).as_bytes()));
    let Identity { subject, label, .. } = identity;
    let created = known.is_none();
    data(json!({ "id": id, "user_id": client, "pubkey": subject, "role": role, "label": label, "created": created }))
}

fn identity(signed: &Signed, role: Role, client: ClientId, label: String, added: UnixMillis) -> Identity {
    let data = json!({ "role": role }).to_string();
    Identity {
        kind: KIND.into(),
        subject: hex::encode(signed.pubkey.0),
        data,
        client,
        label: specs::plain(&label, MAX_LABEL),
        added,
    }
}

async fn node(plane: &Plane, pubkey: &str) -> Result<NodeRow, Refusal> {
    let mut x = [0; 32];
    let key = match hex::decode_to_slice(pubkey, &mut x) {
        Ok(()) => Pubkey(x),
        Err(_) => Pubkey(
            pubkey.parse::<NodeId>().map_err(|_| Refusal::bad("name the node by 64 hex digits or its node id"))?.x_only(),
        ),
    };
    super::node::worker(plane, key).await.map_err(|refusal| match refusal.status {
        StatusCode::NOT_FOUND => Refusal::unknown("no such node has registered here; start it with --plane"),
        _ => refusal,
    })
}

async fn read(request: Request) -> Result<(Parts, Bytes), Refusal> {
    let (parts, body) = request.into_parts();
    let body = body::read(&parts.headers, body, MAX_BODY_BYTES).await?;
    Ok((parts, body))
}

fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    serde_json::from_slice(body).map_err(|_| Denied::NotJson.into())
}
