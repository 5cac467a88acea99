//! Against recorded answers of a real Ollama, and against servers that break in every way we could think of.

use super::*;
use crate::backend::{BackendSpec, Stage, connect_with};
use axum::{
    Json, Router,
    body::{Body as HttpBody, Bytes},
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use infernet_wire::chat::{ChatMessage, Role};
use serde_json::json;
use std::{convert::Infallible, future, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

const TAGS: &str = include_str!("../../../tests/fixtures/ollama/api-tags.json");
const SHOW: &str = include_str!("../../../tests/fixtures/ollama/api-show.json");
const PS: &str = include_str!("../../../tests/fixtures/ollama/api-ps-loaded.json");
const CHAT: &str = include_str!("../../../tests/fixtures/ollama/api-chat-stream.json");
const CHAT_ONE_LINE: &str = include_str!("../../../tests/fixtures/ollama/api-chat.json");
const UNKNOWN_MODEL: &str = include_str!("../../../tests/fixtures/ollama/err-api-unknown.json");
const BAD_JSON: &str = include_str!("../../../tests/fixtures/ollama/err-api-badjson.json");
const UNKNOWN_ROUTE: &str = include_str!("../../../tests/fixtures/ollama/err-unknown-route.json");

const SHORT: Duration = Duration::from_millis(200);
/// Far above any honest run, so that a hang fails instead of lasting.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
pub(super) struct Recorded {
    status: u16,
    body: String,
}

impl Recorded {
    pub(super) fn read(fixture: &str) -> Self {
        serde_json::from_str(fixture).expect("a recorded answer")
    }
}

impl IntoResponse for Recorded {
    fn into_response(self) -> Response {
        (StatusCode::from_u16(self.status).expect("a status"), self.body).into_response()
    }
}

/// Answers a path and body.
type Script = Arc<dyn Fn(&str, Value) -> Response + Send + Sync>;

pub(super) async fn serve(script: impl Fn(&str, Value) -> Response + Send + Sync + 'static) -> Box<dyn Backend> {
    engine(&listen(script).await)
}

/// A server that answers by `script`, as a spec.
pub(super) async fn listen(script: impl Fn(&str, Value) -> Response + Send + Sync + 'static) -> String {
    async fn answer(State(script): State<Script>, uri: Uri, body: Bytes) -> Response {
        script(uri.path(), serde_json::from_slice(&body).unwrap_or_default())
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("ollama={}", listener.local_addr().expect("has an address"));
    let app = Router::new().fallback(answer).with_state(Arc::new(script) as Script);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// Takes one request, answers these bytes and closes the connection.
async fn serve_once(answer: &'static [u8]) -> Box<dyn Backend> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("ollama={}", listener.local_addr().expect("has an address"));
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("one connection");
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            socket.read_buf(&mut request).await.expect("a request");
        }
        socket.write_all(answer).await.expect("answers");
    });
    engine(&url)
}

/// An engine that has time: a busy machine fails no test here.
fn engine(spec: &str) -> Box<dyn Backend> {
    impatient(spec, Deadlines { connect: PATIENCE, describe: PATIENCE, first_byte: PATIENCE, between: PATIENCE })
}

pub(super) fn impatient(spec: &str, deadlines: Deadlines) -> Box<dyn Backend> {
    connect_with(&spec.parse::<BackendSpec>().expect("a spec"), deadlines).expect("a client")
}

fn recorded(path: &str) -> Response {
    let fixture = match path {
        "/api/tags" => TAGS,
        "/api/show" => SHOW,
        "/api/ps" => PS,
        "/api/chat" => CHAT,
        _ => UNKNOWN_ROUTE,
    };
    Recorded::read(fixture).into_response()
}

fn request() -> ChatRequest {
    ChatRequest {
        temperature: Some(0.0),
        seed: Some(7),
        stop: vec!["\n\n".into()],
        ..ChatRequest::new("tiny-chat", vec![ChatMessage::new(Role::User, "Tell me a story about a fox.")], 24)
    }
}

/// Everything the engine says, up to and with the first error.
async fn ask(backend: &dyn Backend) -> (Vec<Chunk>, Option<BackendError>) {
    ask_with(backend, request()).await
}

pub(super) async fn ask_with(backend: &dyn Backend, request: ChatRequest) -> (Vec<Chunk>, Option<BackendError>) {
    tokio::time::timeout(PATIENCE * 2, async {
        let mut stream = match backend.chat(request).await {
            Ok(stream) => stream,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let mut chunks = Vec::new();
        while let Some(next) = stream.next().await {
            match next {
                Ok(chunk) => chunks.push(chunk),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "nothing follows an error");
                    return (chunks, Some(error));
                }
            }
        }
        (chunks, None)
    })
    .await
    .expect("the engine answers or fails, it never hangs")
}

async fn ask_for(body: &'static str) -> (Vec<Chunk>, Option<BackendError>) {
    ask(&*serve(move |_, _| body.into_response()).await).await
}

fn text(chunks: &[Chunk], wanted: Channel) -> String {
    let text_of = |chunk: &Chunk| match chunk {
        Chunk::Text { channel, text, .. } if *channel == wanted => Some(text.clone()),
        _ => None,
    };
    chunks.iter().filter_map(text_of).collect()
}

/// A body that sends `first` and then nothing, without ending.
fn stalled(first: &'static str) -> Response {
    let body = stream::once(future::ready(Ok::<_, Infallible>(first))).chain(stream::pending());
    HttpBody::from_stream(body).into_response()
}

#[tokio::test]
async fn a_recorded_answer_is_replayed_with_its_counts() {
    let (chunks, error) = ask(&*serve(|path, _| recorded(path)).await).await;
    assert_eq!(error, None);
    assert!(text(&chunks, Channel::ANSWER).starts_with("Once upon a time there was a brave fox named Anna."));
    let counts: Vec<u32> =
        chunks.iter().filter_map(|c| if let Chunk::Text { tokens, .. } = c { Some(*tokens) } else { None }).collect();
    assert_eq!(counts, (1..=u32::try_from(counts.len()).unwrap()).collect::<Vec<_>>());
    assert!(
        matches!(chunks.last(), Some(Chunk::Done { input_tokens: Some(17), output_tokens: Some(24), finish }) if *finish == FinishReason::LENGTH),
        "{:?}",
        chunks.last()
    );
}

#[tokio::test]
async fn an_answer_in_one_line_without_line_feed_is_whole() {
    let (chunks, error) = ask(&*serve(|_, _| Recorded::read(CHAT_ONE_LINE).into_response()).await).await;
    assert_eq!(error, None);
    assert_eq!(text(&chunks, Channel::ANSWER), "The capital of France is Paris.");
    let done = Chunk::Done { input_tokens: Some(27), output_tokens: Some(16), finish: FinishReason::STOP };
    assert_eq!(chunks.last(), Some(&done));
}

#[tokio::test]
async fn the_request_says_what_ollama_understands() {
    let (sender, mut received) = mpsc::channel(1);
    let backend = serve(move |path, body| {
        sender.try_send(body).expect("one request");
        recorded(path)
    })
    .await;
    ask(&*backend).await;
    let expected = json!({
        "model": "tiny-chat",
        "messages": [{"role": "user", "content": "Tell me a story about a fox."}],
        "stream": true, "truncate": false, "shift": false,
        "options": {"num_predict": 24, "temperature": 0.0, "seed": 7, "stop": ["\n\n"]},
    });
    assert_eq!(received.recv().await, Some(expected));
}

#[tokio::test]
async fn reasoning_has_its_own_channel() {
    let (chunks, error) = ask_for(concat!(
        r#"{"message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#,
        "\n",
        r#"{"message":{"role":"assistant","content":"yes","thinking":"!"},"done":false}"#,
        "\n",
        r#"{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#,
        "\n",
    ))
    .await;
    assert_eq!(error, None);
    assert_eq!((text(&chunks, Channel::REASONING), text(&chunks, Channel::ANSWER)), ("hm!".into(), "yes".into()));
    assert_eq!(chunks.last(), Some(&Chunk::Done { input_tokens: None, output_tokens: None, finish: FinishReason::STOP }));
}

#[tokio::test]
async fn a_model_is_described_by_what_is_recorded() {
    let models = serve(|path, _| recorded(path)).await.models().await.expect("models");
    let expected = Model {
        id: "tiny-chat:latest".into(),
        aliases: Vec::new(),
        family: "llama".into(),
        parameters: 820_352,
        quantisation: "F16".into(),
        context: 1024,
        weights: Some("fca804c437c9bfef4d346bfe1a026abb4b15e1b1a72354c437880a6ebaa39a8e".parse().unwrap()),
        template: Some("e3b2721cec511e3a627ae0993753abbf5c72cdf4cfcdbc8f5c33ce15c4c4e04b".parse().unwrap()),
        abilities: Abilities::default(),
    };
    assert_eq!(models, [expected]);
}

#[tokio::test]
async fn cloud_models_are_not_listed_and_embedders_are_marked() {
    let backend = serve(|path, body| match (path, body["model"].as_str()) {
        ("/api/tags", _) => Json(json!({"models": [
            {"name": "gpt-oss:120b-cloud", "remote_host": "https://ollama.com:443"},
            {"name": "nomic-embed-text", "capabilities": ["embedding"]},
            {"name": "a\nb"},
            {"name": "old", "details": {"parameter_size": "8.0B", "context_length": 131072}},
            {"name": "tools"},
        ]}))
        .into_response(),
        ("/api/show", Some("tools")) => Json(json!({"capabilities": ["completion", "tools", "vision"]})).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    })
    .await;
    let models = backend.models().await.expect("models");
    let brief: Vec<_> = models.iter().map(|m| (m.id.as_str(), m.parameters, m.context, m.abilities)).collect();
    let tools = Abilities::TOOLS.with(Abilities::VISION);
    let embedder = Abilities::EMBEDDINGS.with(Abilities::EMBEDS_ONLY);
    let expected = [
        ("nomic-embed-text", 0, UNDECLARED_CONTEXT, embedder),
        ("old", 8_000_000_000, UNDECLARED_CONTEXT, Abilities::default()),
        ("tools", 0, UNDECLARED_CONTEXT, tools),
    ];
    assert_eq!(brief, expected);
}

#[test]
fn the_certain_context_is_advertised() {
    let context = |parameters: &str, trained: u32, loaded| {
        let show: Show = serde_json::from_value(json!({
            "parameters": parameters,
            "model_info": {"general.architecture": "llama", "llama.context_length": trained},
        }))
        .unwrap();
        let tag: Tag = serde_json::from_value(json!({"name": "x"})).unwrap();
        tag.context(&show.into(), loaded)
    };
    assert_eq!(context("num_ctx    1024", 2048, None), 1024);
    assert_eq!(context("stop  \"x\"\nnum_ctx 8192\n", 2048, None), 2048);
    assert_eq!(context("", 131_072, None), UNDECLARED_CONTEXT);
    assert_eq!(context("", 2048, None), 2048);
    assert_eq!(context("num_ctx 1024", 131_072, Some(32_768)), 32_768);
}

#[test]
fn sizes_are_read() {
    let sizes = ["820K", "8.0B", "7.62M", "70B", "", "big", "1.1T"].map(parse_size);
    assert_eq!(sizes, [820_000, 8_000_000_000, 7_600_000, 70_000_000_000, 0, 0, 1_100_000_000_000]);
}

#[tokio::test]
async fn an_answer_that_stops_is_never_whole() {
    let line = concat!(r#"{"message":{"content":"Once"},"done":false}"#, "\n");
    let (chunks, error) = ask_for(line).await;
    assert_eq!((text(&chunks, Channel::ANSWER).as_str(), error), ("Once", Some(BackendError::Truncated)));

    let (chunks, error) = ask_for(concat!(r#"{"message":{"content":"Once"},"done":false}"#, "\n", r#"{"message":{"con"#)).await;
    assert_eq!((text(&chunks, Channel::ANSWER).as_str(), error), ("Once", Some(BackendError::Truncated)));

    let crash = serve_once(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{\"message\":{\"content\":\"Once\"}}\n").await;
    let (chunks, error) = ask(&*crash).await;
    assert_eq!((text(&chunks, Channel::ANSWER).as_str(), error), ("Once", Some(BackendError::Truncated)));
}

#[tokio::test]
async fn an_error_line_ends_the_stream() {
    let (chunks, error) =
        ask_for(concat!(r#"{"message":{"content":"Once"},"done":false}"#, "\n", r#"{"error":"out of memory\u001b[2J"}"#, "\n"))
            .await;
    assert_eq!(text(&chunks, Channel::ANSWER), "Once");
    assert_eq!(error, Some(BackendError::Engine("out of memory [2J".into())));
}

#[tokio::test]
async fn an_endless_line_is_refused() {
    let huge = || HttpBody::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b'x'; 64 * 1024]))).into_response();
    let (_, error) = ask(&*serve(move |_, _| huge()).await).await;
    assert_eq!(error, Some(BackendError::LineTooLong { limit: crate::backend::ndjson::MAX_LINE_BYTES }));
    let error = serve(move |_, _| huge()).await.models().await.expect_err("refuses");
    assert!(matches!(error, BackendError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn another_program_is_recognised() {
    for body in ["<html>It works!</html>\n", "data: {\"choices\":[]}\n\n", "[1]\n"] {
        let (_, error) = ask_for(body).await;
        assert!(matches!(&error, Some(BackendError::Malformed { kind: "ollama", .. })), "{body}: {error:?}");
    }
    let error = serve(|_, _| "<html>".into_response()).await.models().await.expect_err("refuses");
    assert!(matches!(error, BackendError::Malformed { .. }), "{error}");
}

async fn check_refusal(answer: Recorded, message: &str, retryable: bool) {
    let status = answer.status;
    let answer = Arc::new(std::sync::Mutex::new(Some(answer)));
    let backend = serve(move |_, _| answer.lock().unwrap().take().expect("one request").into_response()).await;
    let (_, error) = ask(&*backend).await;
    let error = error.expect("an error");
    assert_eq!(error, BackendError::Status { status, message: message.into() });
    assert_eq!(error.retryable(), retryable, "{error}");
}

#[tokio::test]
async fn refusals_carry_the_engines_words() {
    check_refusal(Recorded::read(UNKNOWN_MODEL), "model 'nope' not found", true).await;
    check_refusal(Recorded::read(BAD_JSON), "unexpected EOF", false).await;
    check_refusal(Recorded::read(UNKNOWN_ROUTE), "404 page not found", true).await;
    check_refusal(Recorded { status: 503, body: String::new() }, "Service Unavailable", true).await;
    check_refusal(Recorded { status: 302, body: String::new() }, "Found", true).await;
}

#[tokio::test]
async fn every_wait_has_a_deadline() {
    let patient = Deadlines { connect: PATIENCE, describe: PATIENCE, first_byte: PATIENCE, between: PATIENCE };
    let timed_out = |stage| Some(BackendError::Timeout { stage, limit: SHORT });
    // Headers, but no line.
    let engine = impatient(&listen(|_, _| stalled("")).await, Deadlines { first_byte: SHORT, ..patient });
    assert_eq!(ask(&*engine).await.1, timed_out(Stage::FirstByte));
    // A line, then half a line.
    let half = concat!(r#"{"message":{"content":"Once"},"done":false}"#, "\n", "{");
    let engine = impatient(&listen(move |_, _| stalled(half)).await, Deadlines { between: SHORT, ..patient });
    let (chunks, error) = ask(&*engine).await;
    assert_eq!((chunks.len(), error), (1, timed_out(Stage::NextChunk)));
    // A connection that nobody serves: the listener's backlog takes it.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let spec = format!("ollama={}", listener.local_addr().expect("has an address"));
    let engine = impatient(&spec, Deadlines { first_byte: SHORT, describe: SHORT, ..patient });
    assert_eq!(ask(&*engine).await.1, timed_out(Stage::FirstByte));
    assert_eq!(engine.models().await.err(), timed_out(Stage::Describe));
}

#[tokio::test]
async fn a_refused_connection_says_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let spec = format!("ollama={}", listener.local_addr().expect("has an address"));
    drop(listener);
    let error = engine(&spec).models().await.expect_err("nobody listens");
    assert!(error.to_string().contains("Connection refused") && error.to_string().contains("is it running?"), "{error}");
    assert!(error.retryable());
}

/// Tells when it is dropped.
struct Tell(mpsc::Sender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

#[tokio::test]
async fn dropping_the_stream_stops_the_engine() {
    let (sender, mut stopped) = mpsc::channel(1);
    let endless = move |_: &str, _| {
        let tell = Tell(sender.clone());
        let body = stream::unfold(tell, |tell| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, Infallible>("{\"message\":{\"content\":\"a\"},\"done\":false}\n"), tell))
        });
        HttpBody::from_stream(body).into_response()
    };
    let backend = serve(endless).await;
    let mut stream = backend.chat(request()).await.expect("starts");
    assert!(matches!(stream.next().await, Some(Ok(Chunk::Text { .. }))));
    assert!(stopped.try_recv().is_err(), "still running");
    drop(stream);
    tokio::time::timeout(PATIENCE, stopped.recv()).await.expect("the engine notices").expect("once");
}
