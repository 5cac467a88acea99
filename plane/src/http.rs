//! The plane over HTTP.
//!
//! | module | what |
//! |---|---|
//! | [`limits`] | the door: names, pages, turns, headers |
//! | [`caller`] | who asks |
//! | [`jobs`], [`stream`] | `/api/v1/jobs*` |
//! | [`openai`] | `/v1/*`, by the node's own code |
//! | [`chat`] | `/api/chat*`, for clients of the existing control plane |
//! | [`clients`] | keys, balance, entries; grants by who runs the plane |
//! | [`deposits`] | where to deposit, what came; the plane's own account |
//! | [`auth`], [`device`] | signing in: passkey, wallet, a node's or operator's key; a terminal by a browser |
//! | [`node`], [`legacy`], [`commands`] | nodes' own routes; existing daemons; operators' commands |
//! | [`market`] | what is offered now |
//! | [`network`] | nodes, receipts, auctions, traffic, from the index |
//! | [`dashboard`] | pages for people, live |
//! | [`openapi`] | `/openapi.json`, and a page of it |
//! | [`node`], [`legacy`] | `/api/v1/node/*`: what nodes and existing daemons say |
//! | [`commands`] | `/api/v1/user/*`: operators' commands |
//! | [`error`], [`body`] | the shape of errors; bodies within bounds |
//!
//! **What never happens:** a cookie that counts for another page; a job, key or balance that tells somebody else it exists; a
//! prompt in an error or a log; an answer to a `Host` that is not ours.

pub mod auth;
pub mod body;
pub mod caller;
pub mod chat;
pub mod clients;
pub mod commands;
pub mod dashboard;
pub mod deposits;
pub mod device;
pub mod error;
pub mod jobs;
pub mod legacy;
pub mod limits;
pub mod market;
pub mod network;
pub mod node;
pub mod openai;
pub mod openapi;
pub mod stream;

pub use limits::HttpConfig;

use crate::state::Plane;
use axum::{
    Router,
    http::{StatusCode, Uri},
    middleware,
    response::Response,
};
use error::Refusal;
use limits::{Door, Turns};
use std::sync::Arc;

/// Every route of `plane`. To be served with the address of who asks
/// ([`Router::into_make_service_with_connect_info`]): turns are counted by it.
pub fn router(plane: Plane) -> Router {
    let door = Arc::new(Door::new(plane.clone(), Arc::new(Turns::default())));
    let own = Router::new()
        .merge(jobs::routes())
        .merge(chat::routes())
        .merge(clients::routes())
        .merge(deposits::routes())
        .merge(auth::routes())
        .merge(dashboard::routes())
        .merge(device::routes())
        .merge(market::routes())
        .merge(network::routes())
        .merge(openapi::routes())
        .merge(node::routes())
        .merge(legacy::routes())
        .merge(commands::routes())
        .method_not_allowed_fallback(no_method)
        .fallback(no_route)
        .with_state(plane.clone());
    openai::mount(own, &plane).layer(middleware::from_fn_with_state(door, limits::enter))
}

async fn no_route(uri: Uri) -> Response {
    let refusal = Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is no such route: see /openapi.json");
    refusal.shaped_for(uri.path())
}

async fn no_method(uri: Uri) -> Response {
    let text = "this route takes another method: see /openapi.json";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text).shaped_for(uri.path())
}
