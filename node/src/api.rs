//! The node's OpenAI endpoint: any OpenAI client buys on the mesh, through its own node, with no account anywhere.
//!
//! | route | what |
//! |---|---|
//! | `POST /v1/chat/completions` | a conversation is answered (`chat`) |
//! | `POST /v1/completions` | a text is continued (`completions`) |
//! | `POST /v1/embeddings` | vectors of texts (`embeddings`) |
//! | `GET /v1/models`, `GET /v1/models/{id}` | what live ads offer (`models`) |
//! | `GET /healthz`, `GET /livez` | whether the node can buy; whether it runs (`health`) |
//!
//! **One request's way:** a bounded connection ([`server`]) → `Host`, `Origin` and key ([`access`]) → the body, within what
//! memory there is ([`service`]) → has it been answered before (`replay`)? → typed fields (`fields`) → a reservation of what
//! it may cost ([`crate::spend`]) → jobs (`job`) → bytes, token by token (`sse`) or whole. The jobs run in the connection's
//! own task; when it ends early, they are cancelled and settled apart.
//!
//! **What fails, and how it looks** ([`error`]):
//!
//! | what | status | `code` |
//! |---|---|---|
//! | not JSON; a field is wrong | 400 | `invalid_json`, `invalid_value` |
//! | too long for every worker; asks what none can do | 400 | `context_length_exceeded`, `unsupported_ability` |
//! | no key, or a wrong one | 401 | `invalid_api_key` |
//! | a spend cap; a ceiling or budget below every price | 402 | `spend_cap`, `price_too_low` |
//! | a strange `Host` or `Origin` | 403 | `unknown_host`, `unknown_origin` |
//! | no such model; no such route | 404 | `model_not_found`, `unknown_url` |
//! | a wrong method | 405 | `method_not_allowed` |
//! | a body that does not arrive | 408 | `request_timeout` |
//! | a body that is too large | 413 | `request_too_large` |
//! | an `Idempotency-Key` used before for something else | 422 | `idempotency_key_reused` |
//! | full | 429 | `busy` |
//! | a worker failed | 502 | `worker_failed` |
//! | no peers; no bid; shutting down | 503 | `no_peers`, `no_bid`, `shutting_down` |
//! | a worker was silent for too long | 504 | `deadline` |
//!
//! **What it does not know:** where it listens (loopback or not), how keys are kept, who pays in the end: those come in as
//! [`Doors`], [`Authenticate`] and [`Till`], so that another host can serve the same routes ([`hosted`]). It never fetches an address that
//! a request names, and never logs what is asked or answered.

pub mod access;
mod asking;
mod chat;
mod comeback;
mod completions;
mod embeddings;
pub mod error;
mod fields;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod health;
mod job;
mod models;
mod note;
pub mod open;
mod options;
mod replay;
mod sampling;
pub mod server;
pub mod service;
mod sse;
pub mod till;

#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::bodies as fuzz_bodies;

use crate::{buyer::Buyer, metrics::Metrics, net::Net};
use access::{Caller, Doors};
use asking::Incoming;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use error::ApiError;
use futures::future::BoxFuture;
use infernet_wire::money::MicroUsd;
use service::Service;
use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};
use till::Till;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Where the routes of OpenAI begin.
const BASE: &str = "/v1";
/// Routes that need no key: who watches a machine has none.
const OPEN: [&str; 2] = ["/healthz", "/livez"];

/// Tells who asks, by the bearer token if there is one.
pub type Authenticate = Arc<dyn for<'a> Fn(Option<&'a str>) -> BoxFuture<'a, Result<Caller, ApiError>> + Send + Sync>;

/// What the endpoint is made of.
pub struct Settings {
    /// Names and pages that are let in.
    pub doors: Doors,
    /// Who asks.
    pub authenticate: Authenticate,
    /// Caps, and what is spent of them.
    pub till: Arc<dyn Till>,
    /// The ceiling of requests that name none, per million tokens.
    pub max_price: MicroUsd,
    /// Requests at once; [`service::MAX_REQUESTS`] unless there is a reason.
    pub max_requests: usize,
    /// Where answers are counted.
    pub metrics: Metrics,
    /// More routes under the same access rules, such as `/metrics`.
    pub more: Router,
}

/// The endpoint can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't open the API at {listen}: {source}; name another address with --api-listen, or none with --no-api")]
pub struct BindError {
    listen: SocketAddr,
    source: io::Error,
}

/// The routes, for a server that is another's.
pub struct Hosted {
    /// The routes, with their access rules.
    pub router: Router,
    service: Arc<Service>,
}

impl Hosted {
    /// Takes no more requests; answers that are under way go on.
    pub fn stop(&self) {
        self.service.stop();
    }
}

/// The routes with what `buyer` can buy over `net`, to be served by another server.
pub fn hosted(buyer: Buyer, net: Net, settings: Settings) -> Hosted {
    let Settings { doors, authenticate, till, max_price, max_requests, metrics, more } = settings;
    let service = Arc::new(Service::new(buyer, net, till, max_price, max_requests));
    let gate = Arc::new(Gate { doors, authenticate, metrics });
    Hosted { router: router(service.clone(), gate, more), service }
}

/// A running endpoint. Dropping it closes it.
pub struct Api {
    addr: SocketAddr,
    service: Arc<Service>,
    metrics: Metrics,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// A bound address, before anything is served there.
pub struct Listener(TcpListener);

impl Listener {
    /// Takes `listen`; port 0 picks a free one.
    pub async fn bind(listen: SocketAddr) -> Result<Self, BindError> {
        TcpListener::bind(listen).await.map(Listener).map_err(|source| BindError { listen, source })
    }

    /// Where it is.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Api {
    /// Serves `settings` with what `buyer` can buy over `net`.
    pub fn start(listener: Listener, buyer: Buyer, net: Net, settings: Settings) -> io::Result<Self> {
        let addr = listener.addr()?;
        let metrics = settings.metrics.clone();
        let Hosted { router, service } = hosted(buyer, net, settings);
        let (stop, stopping) = watch::channel(false);
        let counted = metrics.clone();
        let left_out = move || counted.left_out("api_connections");
        let plain = |stream| std::future::ready(Ok::<TcpStream, io::Error>(stream));
        let serving = server::serve(listener.0, plain, router, server::MAX_CONNECTIONS, left_out, stopping);
        let task = tokio::spawn(async move { drop(serving.await) });
        Ok(Api { addr, service, metrics, stop, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What OpenAI's clients call `base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}{BASE}", self.addr)
    }

    /// Requests answered, as `api.ROUTE.STATUS`. A stream counts when it begins.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.metrics.answers()
    }

    /// Takes no more requests; answers that are under way go on.
    pub fn stop(&self) {
        self.service.stop();
        self.stop.send_replace(true);
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop();
        self.task.abort();
    }
}

fn router(service: Arc<Service>, gate: Arc<Gate>, more: Router) -> Router {
    let no_method = || async {
        ApiError::no_route(StatusCode::METHOD_NOT_ALLOWED, "this route takes another method; see the documentation")
    };
    let no_route = || async { ApiError::no_route(StatusCode::NOT_FOUND, "there is no such route; the API begins at /v1") };
    Router::new()
        .route("/v1/chat/completions", post(|incoming: Incoming| incoming.answered("chat", chat::answer)))
        .route("/v1/completions", post(|incoming: Incoming| incoming.answered("completions", completions::answer)))
        .route("/v1/embeddings", post(|incoming: Incoming| incoming.answered("embeddings", embeddings::answer)))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::get))
        .route("/healthz", get(health::ready))
        .route("/livez", get(health::alive))
        .with_state(service)
        .merge(more)
        .method_not_allowed_fallback(no_method)
        .fallback(no_route)
        .layer(middleware::from_fn_with_state(gate, enter))
}

/// Who comes in.
struct Gate {
    doors: Doors,
    authenticate: Authenticate,
    metrics: Metrics,
}

async fn enter(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let route = route(request.uri().path());
    let origin = match gate.doors.admit(request.headers(), request.uri().authority().map(|a| a.as_str())) {
        Ok(origin) => origin,
        Err(error) => return gate.counted(route, error.into_response()),
    };
    let preflight = origin.is_some() && access::is_preflight(request.method(), request.headers());
    let mut response = if preflight {
        StatusCode::NO_CONTENT.into_response()
    } else {
        match gate.caller(request.uri().path(), request.headers()).await {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(error) => error.into_response(),
        }
    };
    if let Some(origin) = origin {
        access::cors(response.headers_mut(), origin, preflight);
    }
    gate.counted(route, response)
}

impl Gate {
    fn counted(&self, route: &'static str, response: Response) -> Response {
        self.metrics.answered(route, response.status().as_u16());
        response
    }

    async fn caller(&self, path: &str, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if OPEN.contains(&path) {
            return Ok(Caller::operator());
        }
        (self.authenticate)(access::bearer(headers)).await
    }
}

/// The route's name for counters, which must be few.
fn route(path: &str) -> &'static str {
    match path {
        "/v1/chat/completions" => "chat",
        "/v1/completions" => "completions",
        "/v1/embeddings" => "embeddings",
        "/healthz" | "/livez" => "health",
        "/metrics" => "metrics",
        path if path.starts_with("/v1/models") => "models",
        _ => "other",
    }
}
