//! The HTTP side: routes, errors, and how an engine stops.
//!
//! Requests are bounded in size here and in number by `jobs`; connections are not, as only this machine can reach them.

use infernet_node::clock;
use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{broadcast, watch},
    task::JoinHandle,
    time::timeout,
};

use super::{
    EngineError, EngineEvent, EngineOptions, Message, Sampling, TinyModel,
    api::{ChatRequest, GenerateRequest, Shape, ShowRequest, Writer, error_line},
    catalog::Catalog,
    jobs::{Jobs, Piece, Pieces, Work},
    refusal::Refusal,
};

/// Largest request body.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// Answers in flight get this long to end when the server shuts down.
const DRAIN: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted, also Linux' own limit. With tokio's 1 024, some of 2 000 clients that come
/// at once are dropped and try again seconds later.
const BACKLOG: u32 = 4096;
const JSON: &str = "application/json; charset=utf-8";
const NDJSON: &str = "application/x-ndjson";

/// How far a server is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    Run,
    /// No new connections; answers in flight go on.
    Drain,
    /// Answers in flight break off.
    Cut,
}

/// A running engine. Dropping it kills it.
#[derive(Debug)]
pub struct EngineServer {
    addr: SocketAddr,
    stop: watch::Sender<Stop>,
    task: JoinHandle<io::Result<()>>,
    events: broadcast::Sender<EngineEvent>,
}

impl EngineServer {
    /// Loads the model, listens, and serves in a task of the current tokio runtime.
    pub async fn start(options: EngineOptions) -> Result<Self, EngineError> {
        let stop = watch::Sender::new(Stop::Run);
        let engine = Engine {
            jobs: Arc::new(Jobs::new(&options)?),
            catalog: Catalog::new(&options, clock::system_time())?,
            stop: stop.subscribe(),
        };
        let events = engine.jobs.events();
        let bind = |source| EngineError::Bind { addr: options.addr, source };
        let listener = listen(options.addr).map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        // Tokens are small writes; with Nagle's algorithm they would wait for each other.
        let listener = listener.tap_io(|io| {
            let _ = io.set_nodelay(true);
        });
        let mut stopping = stop.subscribe();
        let serve = axum::serve(listener, router(engine)).with_graceful_shutdown(async move {
            let _ = stopping.wait_for(|stop| *stop != Stop::Run).await;
        });
        let task = tokio::spawn(serve.into_future());
        Ok(Self { addr, stop, task, events })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What happens to requests from now on. A subscriber that falls 8 192 events behind loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<EngineEvent> {
        self.events.subscribe()
    }

    /// Takes no more requests, lets the answers in flight end (5 seconds at most), and returns when all is closed.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(Stop::Drain);
        if timeout(DRAIN, &mut self.task).await.is_err() {
            self.kill().await;
        }
    }

    /// Dies as if its process had been killed: answers in flight break off without an end. Returns when the port is
    /// closed.
    pub async fn kill(mut self) {
        self.stop.send_replace(Stop::Cut);
        // A connection that sends half a request and then nothing would hold it up.
        if timeout(DRAIN, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for EngineServer {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Cut);
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As tokio's own `bind` does: a restart may take the port of connections that linger.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// What the handlers share.
struct Engine {
    jobs: Arc<Jobs>,
    catalog: Catalog,
    stop: watch::Receiver<Stop>,
}

/// That of an Ollama which, like this engine, knows neither schemas nor log probabilities: nodes must not promise them.
const VERSION: &str = "0.4.0";

type Shared = State<Arc<Engine>>;
type RawBody = Result<Bytes, BytesRejection>;

fn router(engine: Engine) -> Router {
    Router::new()
        .route("/", get(|| async { "Ollama is running" }))
        .route(
            "/api/version",
            get(|| async { json_response(StatusCode::OK, &json!({ "version": VERSION })) }),
        )
        .route(
            "/api/tags",
            get(|State(engine): Shared| async move {
                json_response(StatusCode::OK, &engine.catalog.tags())
            }),
        )
        .route(
            "/api/ps",
            get(|State(engine): Shared| async move {
                json_response(StatusCode::OK, &engine.catalog.running(clock::system_time()))
            }),
        )
        .route("/api/show", post(show))
        .route("/api/chat", post(chat))
        .route("/api/generate", post(generate))
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found") })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(engine))
}

pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

fn parse<T: DeserializeOwned>(body: RawBody) -> Result<T, Refusal> {
    let body = body.map_err(Refusal::Body)?;
    if body.is_empty() {
        return Err(Refusal::NoBody);
    }
    serde_json::from_slice(&body).map_err(Refusal::Json)
}

async fn show(State(engine): Shared, body: RawBody) -> Result<Response, Refusal> {
    let request: ShowRequest = parse(body)?;
    engine.known(&request.model)?;
    Ok(json_response(StatusCode::OK, &engine.catalog.show(&request.model)))
}

async fn chat(State(engine): Shared, body: RawBody) -> Result<Response, Refusal> {
    let request: ChatRequest = parse(body)?;
    engine.known(&request.model)?;
    if !request.tools.is_empty() {
        return Err(Refusal::Tools(request.model));
    }
    let prompt = (!request.messages.is_empty()).then(|| TinyModel::chat_prompt(&request.messages));
    let writer = Writer::new(Shape::Chat, request.model);
    engine.answer(prompt, request.options.into(), writer, request.stream).await
}

async fn generate(State(engine): Shared, body: RawBody) -> Result<Response, Refusal> {
    let request: GenerateRequest = parse(body)?;
    engine.known(&request.model)?;
    let prompt = generate_prompt(request.prompt, request.system, request.raw);
    let writer = Writer::new(Shape::Generate, request.model);
    engine.answer(prompt, request.options.into(), writer, request.stream).await
}

fn generate_prompt(prompt: String, system: String, raw: bool) -> Option<String> {
    if raw || prompt.is_empty() {
        return Some(prompt).filter(|p| !p.is_empty());
    }
    let said = [("system", system), ("user", prompt)].map(|(role, content)| Message { role: role.into(), content });
    let said: Vec<Message> = said.into_iter().filter(|message| !message.content.is_empty()).collect();
    Some(TinyModel::chat_prompt(&said))
}

impl Engine {
    fn known(&self, model: &str) -> Result<(), Refusal> {
        if self.catalog.has(model) { Ok(()) } else { Err(Refusal::UnknownModel(model.into())) }
    }

    /// Answers in the way asked for; without a prompt there is nothing to answer.
    async fn answer(
        &self,
        prompt: Option<String>,
        sampling: Sampling,
        writer: Writer,
        stream: Option<bool>,
    ) -> Result<Response, Refusal> {
        let Some(prompt) = prompt else {
            return Ok(([(header::CONTENT_TYPE, JSON)], writer.loaded()).into_response());
        };
        let pieces = self.jobs.submit(Work { prompt, sampling })?;
        if stream.unwrap_or(true) {
            return Ok(streamed(pieces, writer, self.stop.clone()));
        }
        let body = whole(pieces, writer, self.stop.clone()).await?;
        Ok(([(header::CONTENT_TYPE, JSON)], body).into_response())
    }
}

type Cut = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Resolves when answers in flight are to break off.
fn cut(mut stop: watch::Receiver<Stop>) -> Cut {
    Box::pin(async move {
        // An error means that the server is gone, which is the same.
        let _ = stop.wait_for(|stop| *stop == Stop::Cut).await;
    })
}

/// Collects an answer. Cancel-safe: dropped with the connection, it takes the answer with it.
async fn whole(mut pieces: Pieces, mut writer: Writer, stop: watch::Receiver<Stop>) -> Result<Bytes, Refusal> {
    let (mut cut, mut text) = (cut(stop), String::new());
    loop {
        let piece = tokio::select! {
            biased;
            () = &mut cut => None,
            piece = pieces.next() => piece,
        };
        match piece {
            Some(Piece::Text(piece)) => {
                text.push_str(&piece);
                writer.token();
            }
            Some(Piece::Done(answer, prompt)) => return Ok(writer.end(&text, &answer, prompt)),
            Some(Piece::Failed(why)) => return Err(Refusal::Failed(why)),
            None => return Err(Refusal::Failed("the engine was stopped".into())),
        }
    }
}

/// Sends an answer line by line.
fn streamed(pieces: Pieces, writer: Writer, stop: watch::Receiver<Stop>) -> Response {
    let lines = Lines { pieces, writer, cut: cut(stop), over: false };
    let lines = stream::unfold(lines, async |mut lines| Some((lines.next().await?, lines)));
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}

/// An answer on its way out.
struct Lines {
    pieces: Pieces,
    writer: Writer,
    cut: Cut,
    over: bool,
}

impl Lines {
    /// The next line. The error of an answer that is cut makes the server close the connection amid the body.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        while !self.over {
            let piece = tokio::select! {
                biased;
                () = &mut self.cut => None,
                piece = self.pieces.next() => piece,
            };
            self.over = !matches!(piece, Some(Piece::Text(_)));
            if !self.over {
                self.writer.token();
            }
            return Some(match piece {
                Some(Piece::Text(text)) if text.is_empty() => continue,
                Some(Piece::Text(text)) => Ok(self.writer.text(&text)),
                Some(Piece::Done(answer, prompt)) => Ok(self.writer.end("", &answer, prompt)),
                Some(Piece::Failed(why)) => Ok(error_line(&why)),
                None => Err(io::ErrorKind::ConnectionReset.into()),
            });
        }
        None
    }
}
